/* What calls want from their connections. */
#ifndef PP_BRIDGE_WSGI_OP_H
#define PP_BRIDGE_WSGI_OP_H

#include "bridge/wsgi_call.h"

/* Carries out op for its call, from any thread; returns when it is done. Attached. */
void pp_wsgi_op_run(struct pp_wsgi_op *op);
/* FINISH for the call's own thread: true if it still leads. */
bool pp_wsgi_op_finish(PpWsgiCall *call);
/* Leader: the connection of a call has news. */
void pp_wsgi_op_event(PpWsgiCall *call, unsigned events);
/* Leader, the end: the call goes on without its connection. */
void pp_wsgi_op_let_go(PpWsgiCall *call);

#endif
