/* A call of the ASGI application for one request, whatever Task it runs in. */
#ifndef PP_BRIDGE_APP_CALL_H
#define PP_BRIDGE_APP_CALL_H

#include "bridge/core_base.h"

/* The application's call has ended, failed: with the raised exception set (it is consumed, except
 * that CancelledError is left raised). Returns -1 when an exception is left raised. */
typedef int pp_app_ended(PyObject *send, PyObject *scope, bool failed);

/* What the application is called with, and who is told of its end, once. Borrowed. */
struct pp_app_call {
    PyObject *scope, *receive, *send;
    pp_app_ended *ended;
};

#endif
