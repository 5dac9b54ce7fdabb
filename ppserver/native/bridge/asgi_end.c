/* The end of an ASGI application's call: what is reported, and what the client gets of a response
 * that is not complete. */
#include "bridge/asgi_end.h"
#include "bridge/attached.h"
#include "bridge/forked.h"

#include <string.h>

/* Ours, or what frameworks make of http.disconnect (Starlette's ClientDisconnect). */
static bool says_disconnect(PpRequest *req, PyObject *exc)
{
    const char *name = strrchr(Py_TYPE(exc)->tp_name, '.');
    name = name != NULL ? name + 1 : Py_TYPE(exc)->tp_name;
    return PyErr_GivenExceptionMatches(exc, req->core->state->client_disconnected) ||
           strcmp(name, "ClientDisconnect") == 0 || strcmp(name, "ClientDisconnected") == 0;
}

/* True when the raised exception, or each of a group, only says what we said: the peer is gone. One
 * that was raised while such a one was handled says something else. */
static bool is_disconnect(PpRequest *req, PyObject *exc)
{
    if (!req->disconnect_raised && !req->disconnect_told) {
        return false;
    }
    PyObject *group = Py_NewRef(exc);
    for (int depth = 0; depth < 16; depth++) { /* as task groups nest */
        PyObject *parts = PyErr_GivenExceptionMatches(group, PyExc_BaseExceptionGroup)
                              ? PyObject_GetAttr(group, req->core->k.exceptions)
                              : NULL;
        if (parts == NULL || !PyTuple_Check(parts) || PyTuple_GET_SIZE(parts) == 0) {
            PyErr_Clear();
            Py_XDECREF(parts);
            break;
        }
        bool all = true;
        for (Py_ssize_t i = 1; i < PyTuple_GET_SIZE(parts); i++) {
            all = all && says_disconnect(req, PyTuple_GET_ITEM(parts, i));
        }
        Py_SETREF(group, Py_NewRef(PyTuple_GET_ITEM(parts, 0)));
        Py_DECREF(parts);
        if (!all) {
            Py_DECREF(group);
            return false;
        }
    }
    bool says = says_disconnect(req, group);
    Py_DECREF(group);
    return says;
}

static void answer_failure(PpRequest *req)
{
    Py_CLEAR(req->headers);
    if (req->ex != NULL) {
        pp_exchange_fail(req->ex, 500);
    }
}

int pp_request_app_ended(PyObject *send, PyObject *scope, bool failed)
{
    PpRequest *req = (PpRequest *)send;
    PpCore *core = req->core;
    PyObject *cancelled = NULL;
    if (failed && PP_UNLIKELY(pp_forked(core))) {
        pp_forked_end(core, scope);
    }
    if (failed && PyErr_ExceptionMatches(core->state->cancelled_error)) {
        cancelled = PyErr_GetRaisedException();
        if (!core->draining) { /* then it is the server that cancels */
            PyErr_SetRaisedException(Py_NewRef(cancelled));
            pp_core_report_error(core, scope);
        }
    } else if (failed) {
        PyObject *exc = PyErr_GetRaisedException();
        bool expected = is_disconnect(req, exc);
        PyErr_SetRaisedException(exc);
        if (expected) {
            PyErr_Clear();
        } else {
            pp_core_report_error(core, scope);
        }
    }
    if (req->ex != NULL && req->state != REQ_COMPLETE) {
        if (!failed && !pp_exchange_closed(req->ex) && !req->disconnect_told) {
            PyErr_SetString(PyExc_RuntimeError,
                            req->state == REQ_BODY
                                ? "the ASGI application returned without completing its response"
                                : "the ASGI application returned without sending a response");
            pp_core_report_error(core, scope);
        }
        if (req->disconnect_told && req->state != REQ_BODY && !pp_request_body_failed(req) &&
            (!failed || cancelled != NULL)) {
            pp_exchange_abandon(req->ex); /* nobody is there, as it was told */
        }
        answer_failure(req);
    }
    pp_request_release(req);
    if (core->loop != NULL && pp_attached_output_queued(core) < 0) {
        PyErr_WriteUnraisable((PyObject *)core);
    }
    if (cancelled != NULL) {
        PyErr_SetRaisedException(cancelled);
        return -1;
    }
    return 0;
}
