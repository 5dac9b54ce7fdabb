/* Raw connections. */
#ifndef PP_BRIDGE_PARALLEL_RAW_H
#define PP_BRIDGE_PARALLEL_RAW_H

#include "bridge/parallel_base.h"

/* A raw connection's events. Leader; may attach. False: leadership lost. */
bool pp_par_raw_event(struct pp_lead_worker *self, struct pp_exchange *ex, unsigned events);
/* Runs what waits in par->ready; leader, not the manager. False: leadership lost. */
bool pp_par_run_ready(struct pp_lead_worker *self);

#endif
