/* How an event loop drives the core. */
#ifndef PP_BRIDGE_SELECTOR_H
#define PP_BRIDGE_SELECTOR_H

#include "bridge/core_base.h"

extern PyMethodDef pp_selector_methods[]; /* Core's */
int pp_selector_output_late(PpCore *core);
/* Output was queued: outside of a batch makes sure that somebody flushes, at once if it has been
 * long since the last time. -1 with an exception. */
static inline int pp_selector_output_queued(PpCore *core)
{
    return PP_LIKELY(core->in_batch) ? 0 : pp_selector_output_late(core);
}

#endif
