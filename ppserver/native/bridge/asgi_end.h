/* The end of an application's call. */
#ifndef PP_BRIDGE_ASGI_END_H
#define PP_BRIDGE_ASGI_END_H

#include "bridge/request.h"

/* A pp_app_ended: answers what the application left unanswered. */
int pp_request_app_ended(PyObject *send, PyObject *scope, bool failed);

#endif
