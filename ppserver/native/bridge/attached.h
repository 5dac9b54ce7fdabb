/* Core driven by another event loop's add_reader. */
#ifndef PP_BRIDGE_ATTACHED_H
#define PP_BRIDGE_ATTACHED_H

#include "bridge/core_base.h"

extern PyMethodDef pp_attached_methods[]; /* Core's */
int pp_attached_output_late(PpCore *core);
/* Output was queued: outside of a batch makes sure that somebody flushes, at once if it has been
 * long since the last time. -1 with an exception. */
static inline int pp_attached_output_queued(PpCore *core)
{
    return PP_LIKELY(core->in_batch) ? 0 : pp_attached_output_late(core);
}

#endif
