/* Requests of http11 protocols. */
#ifndef PP_BRIDGE_PARALLEL_HTTP11_H
#define PP_BRIDGE_PARALLEL_HTTP11_H

#include "bridge/parallel_base.h"

/* What the queue runs: the method for the request on ex. */
void pp_par_request(struct pp_lead_worker *self, struct pp_exchange *ex,
                    struct pp_queue_body *body);
/* Leader: a copy of the head of the request whose method runs (pp_mem, *len bytes); NULL: there is
 * none, with *len 0, or no memory. */
uint8_t *pp_par_head(PpTransport *t, size_t *len);

#endif
