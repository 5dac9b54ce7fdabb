/* The send callable of an ASGI request. */
#ifndef PP_BRIDGE_ASGI_SEND_H
#define PP_BRIDGE_ASGI_SEND_H

#include "bridge/request.h"

/* send(message): the vectorcall of a PpRequest. */
PyObject *pp_asgi_send(PyObject *op, PyObject *const *args, size_t nargsf, PyObject *kwnames);
/* The application gave a head some time ago and is silent since: its client may wait for the head
 * alone (EventSource's onopen). From now on an error can only break the response off. */
void pp_asgi_send_head(PpRequest *req);

#endif
