/* A call that an exception ends. */
#ifndef PP_BRIDGE_WSGI_FAIL_H
#define PP_BRIDGE_WSGI_FAIL_H

#include "bridge/wsgi_call.h"

/* The raised exception ends the request: reports it and answers. Never raises. */
void pp_wsgi_fail(PpWsgiCall *call, PyObject *env);

#endif
