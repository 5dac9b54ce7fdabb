/* Whether a worker Task may serve another request (contract for worker.c alone). */
#ifndef PP_BRIDGE_PRISTINE_H
#define PP_BRIDGE_PRISTINE_H

#include "bridge/core_base.h"

/* Remembers what the core's new worker Task, which nobody has entered or seen, looks like. -1 with
 * an exception. */
int pp_pristine_remember(PpCore *core);
/* True only if nobody can tell the core's worker Task, its coroutine, its context and the future it
 * is parked on from what they were then, and nobody else has kept one of them. Raises nothing; what
 * cannot be looked at counts as touched. */
bool pp_pristine(PpCore *core);
/* A quicker look, for the end of a batch: it leaves out the parking future. True may be wrong; the
 * look before the next request, pp_pristine, finds that out. */
bool pp_pristine_at_end(PpCore *core);

#endif
