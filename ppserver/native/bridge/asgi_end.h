/* The end of an application's call. */
#ifndef PP_BRIDGE_ASGI_END_H
#define PP_BRIDGE_ASGI_END_H

#include "bridge/request.h"

/* The application's coroutine ended, failed: with the raised exception set (it is consumed, except
 * that CancelledError is left raised). Answers what the application left unanswered. Returns -1
 * when an exception is left raised. */
int pp_request_app_ended(PpRequest *req, PyObject *scope, bool failed);

#endif
