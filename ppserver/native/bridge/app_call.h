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

/* What the application returns, an awaitable; NULL with an exception. */
PyObject *pp_app_call(PpCore *core, PyObject *scope, PyObject *receive, PyObject *send);
/* Nothing of it has run: tells of the raised exception. Never raises. */
void pp_app_call_fail(const struct pp_app_call *call);

/* asyncio keeps only weak references to Tasks. A request's Task must not vanish with what it waits
 * for, so the context holds on to it until the application ends. *held: NULL before. */
void pp_app_call_hold(PpCore *core, PyObject **held, PyObject *task);
void pp_app_call_let_go(PpCore *core, PyObject **held);

#endif
