/* The threads of an executor. */
#ifndef PP_BRIDGE_LEAD_THREADS_H
#define PP_BRIDGE_LEAD_THREADS_H

#include "bridge/lead_base.h"

/* Leads until the lead is lost or given away; the manager returns with it (word != 0) when it is
 * time to end. Begins and ends detached. */
void pp_lead_threads_turn(struct pp_lead_worker *self);
/* One thread more. Manager, attached; -1 with an exception. */
int pp_lead_threads_spawn(struct pp_lead *lead);
/* Manager, detached: keeps one thread parked while the limit allows. */
void pp_lead_threads_keep_spare(struct pp_lead *lead);
/* Waits until the threads that have nothing left to do are gone. Attached. */
void pp_lead_threads_join(struct pp_lead *lead);

#endif
