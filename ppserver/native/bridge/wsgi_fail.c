/* A call that an exception ends: what is reported, and what the client gets.
 *
 * Before the head was sent a 500, afterwards an end of the connection that the peer can tell from
 * the end of a whole response. */
#include "bridge/wsgi_fail.h"
#include "bridge/forked.h"
#include "bridge/wsgi_op.h"

/* The raised exception is that the peer has gone, or was made of that (raise ... from). */
static bool is_disconnect(PpWsgiCall *call)
{
    PyObject *kind = call->core->state->client_disconnected;
    PyObject *raised = PyErr_GetRaisedException(), *exc = Py_XNewRef(raised);
    bool found = false;
    for (int i = 0; i < PP_WSGI_CAUSES_MAX && exc != NULL && !found; i++) {
        found = PyErr_GivenExceptionMatches(exc, kind);
        Py_SETREF(exc, PyException_GetCause(exc));
    }
    Py_XDECREF(exc);
    PyErr_SetRaisedException(raised);
    return found;
}

void pp_wsgi_fail(PpWsgiCall *call, PyObject *env)
{
    struct pp_wsgi_op op = {.call = call, .kind = PP_WSGI_OP_FAIL};
    if (PP_UNLIKELY(call->w->lead.forked)) {
        pp_forked_end(call->core, env);
    }
    if (is_disconnect(call)) {
        PyErr_Clear(); /* the peer's doing, and counted there */
    } else {
        pp_core_report_error(call->core, env);
    }
    pp_wsgi_op_run(&op);
    call->failed = true;
}
