/* The receive callable of an ASGI request. */
#ifndef PP_BRIDGE_ASGI_RECEIVE_H
#define PP_BRIDGE_ASGI_RECEIVE_H

#include "bridge/request.h"

extern PyType_Spec pp_receive_spec;
/* The receive callable of a request; NULL with an exception. */
PyObject *pp_receive_new(PpCore *core, PpRequest *req);

#endif
