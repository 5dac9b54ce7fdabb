/* Runs of callbacks. */
#ifndef PP_BRIDGE_PARALLEL_RUN_H
#define PP_BRIDGE_PARALLEL_RUN_H

#include "bridge/parallel_base.h"

/* Into the application. The thread leads. */
void pp_par_begin(PpTransport *t, struct pp_lead_worker *self, struct pp_par_turn *turn,
                  struct pp_lead_trip *trip);
/* Back, and settled: from here on another thread may run the transport. */
void pp_par_end(PpTransport *t, struct pp_lead_worker *self, struct pp_par_turn *turn,
                struct pp_lead_trip *trip);
/* A transport for a connection that has none; NULL: that has been refused. Leader; attaches. */
PpTransport *pp_par_transport_of(struct pp_lead_worker *self, struct pp_exchange *ex);
/* Nothing of the application ran: the raised exception is ours. The thread leads. */
void pp_par_refuse(struct pp_lead_worker *self, struct pp_exchange *ex);
void pp_par_let_go(PpTransport *t);  /* leader: of its connection */
void pp_par_close(PpTransport *t);   /* leader: as transport.close() */
void pp_par_abandon(PpTransport *t); /* leader, the end: lets go of the connection */

#endif
