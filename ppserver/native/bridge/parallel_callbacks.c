/* What a raw connection's protocol is told, and what its callbacks give.
 *
 * Runs inside the application, on the thread that runs the transport (parallel_run.c). What the
 * callbacks give is collected in the transport's turn. */
#include "bridge/parallel_callbacks.h"
#include "bridge/transport.h"

#include <string.h>

/* ---- what callbacks give ---- */

static PyObject *call(PpTransport *t, enum pp_par_callback which, PyObject *argument)
{
    PyObject *args[] = {t->handler, (PyObject *)t, argument};
    return PyObject_VectorcallMethod(t->par->names[which], args, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET,
                                     NULL);
}

/* The protocol's exception_handler gets what is raised; without one it is logged, and the
 * connection ends. */
void pp_par_failed(PpTransport *t)
{
    PyObject *exc = PyErr_GetRaisedException();
    if (exc == NULL) {
        return;
    }
    if (t->protocol->has[PP_PAR_exception_handler] && t->handler != NULL) {
        int rc = pp_transport_take(t, call(t, PP_PAR_exception_handler, exc));
        Py_DECREF(exc);
        if (rc == 0) {
            return;
        }
    } else {
        PyErr_SetRaisedException(exc);
    }
    pp_core_report_error(t->core, t->protocol->maker);
    t->closing = true;
}

/* True unless it failed. */
static bool tell(PpTransport *t, enum pp_par_callback which, PyObject *argument)
{
    if (!t->protocol->has[which]) {
        return true;
    }
    if (pp_transport_take(t, call(t, which, argument)) < 0) {
        pp_par_failed(t);
        return false;
    }
    return true;
}

static void tell_number(PpTransport *t, enum pp_par_callback which, uint64_t number)
{
    if (!t->protocol->has[which]) {
        return;
    }
    PyObject *argument = PyLong_FromUnsignedLongLong(number);
    if (argument == NULL) {
        pp_par_failed(t);
        return;
    }
    (void)tell(t, which, argument);
    Py_DECREF(argument);
}

static void give_bytes(PpTransport *t, const struct pp_par_bytes *what, PyObject *name)
{
    PyObject *given;
    if (what->constant != NULL) {
        given = Py_NewRef(what->constant);
    } else if (what->args >= 0) {
        PyObject *args[] = {t->handler, (PyObject *)t};
        given = PyObject_VectorcallMethod(
            name, args, (size_t)(1 + what->args) | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    } else {
        return;
    }
    if (pp_transport_take(t, given) < 0) {
        pp_par_failed(t);
    }
}

/* ---- input ---- */

static void one_line(PpTransport *t, const char *text, size_t len)
{
    if (len > 0 && text[len - 1] == '\r') {
        len--;
    }
    PyObject *line = PyBytes_FromStringAndSize(text, (Py_ssize_t)len);
    if (line == NULL) {
        pp_par_failed(t);
        return;
    }
    (void)tell(t, PP_PAR_line_received, line);
    Py_DECREF(line);
}

/* Whole lines to the callback, the rest is kept. */
static void lines(PpTransport *t, PyObject *data)
{
    const struct pp_par_protocol *p = t->protocol;
    if (t->partial != NULL) {
        PyObject *joined = t->partial;
        t->partial = NULL;
        PyBytes_Concat(&joined, data);
        if (joined == NULL) {
            pp_par_failed(t);
            return;
        }
        data = joined;
    } else {
        Py_INCREF(data);
    }
    const char *at = PyBytes_AS_STRING(data), *end = at + PyBytes_GET_SIZE(data), *eol;
    while (!t->closing && (eol = memchr(at, '\n', (size_t)(end - at))) != NULL) {
        if ((size_t)(eol - at) > p->line_max) {
            break;
        }
        one_line(t, at, (size_t)(eol - at));
        at = eol + 1;
    }
    if (t->closing) {
        at = end;
    } else if ((size_t)(end - at) > p->line_max) {
        PyErr_Format(PyExc_ValueError, "the peer sent a line of more than %u bytes", p->line_max);
        if (p->has[PP_PAR_connection_error]) {
            PyObject *exc = PyErr_GetRaisedException();
            (void)tell(t, PP_PAR_connection_error, exc);
            Py_XDECREF(exc);
        }
        PyErr_Clear();
        t->closing = true;
        at = end;
    } else if (at < end && !p->wait_for_eol) {
        one_line(t, at, (size_t)(end - at));
        at = end;
    }
    if (at < end) {
        t->partial = PyBytes_FromStringAndSize(at, end - at);
        if (t->partial == NULL) {
            pp_par_failed(t);
        }
    }
    Py_DECREF(data);
}

static void received(PpTransport *t, PyObject *data)
{
    uint64_t len = (uint64_t)PyBytes_GET_SIZE(data);
    __atomic_store_n(&t->just_received, len, __ATOMIC_RELAXED);
    __atomic_store_n(&t->received, t->received + len, __ATOMIC_RELAXED);
    __atomic_store_n(&t->recv_id, t->recv_id + 1, __ATOMIC_RELAXED);
    if (t->protocol->line_mode) {
        lines(t, data);
    } else if (t->protocol->has[PP_PAR_data_received]) {
        (void)tell(t, PP_PAR_data_received, data);
    } else {
        give_bytes(t, &t->protocol->next, t->par->next);
    }
}

/* ---- callbacks of a raw connection ---- */

bool pp_par_make_handler(PpTransport *t)
{
    const struct pp_par_protocol *p = t->protocol;
    t->handler = p->is_class ? PyObject_CallNoArgs(p->maker) : Py_NewRef(p->maker);
    if (t->handler == NULL) {
        pp_par_failed(t);
        t->closing = true;
        return false;
    }
    if (pp_par_may_leave(t) && p->is_class &&
        (t->kept = PyObject_GenericGetDict(t->handler, NULL)) == NULL) {
        PyErr_Clear(); /* has slots, or nothing */
    }
    return true;
}

static void opened(PpTransport *t)
{
    if (pp_par_make_handler(t)) {
        (void)tell(t, PP_PAR_connection_made, Py_None);
        give_bytes(t, &t->protocol->initial, t->par->initial);
    }
}

static void all_sent(PpTransport *t)
{
    PyObject *last = t->last_sent;
    t->last_sent = NULL;
    if (last != NULL) {
        __atomic_store_n(&t->just_sent, (uint64_t)PyBytes_GET_SIZE(last), __ATOMIC_RELAXED);
        (void)tell(t, PP_PAR_data_sent, last);
        Py_DECREF(last);
    }
    tell_number(t, PP_PAR_send_complete, t->send_id);
}

/* How it ended: by the peer or by us in order, or not. */
static void closed(PpTransport *t, int code, bool ours)
{
    struct pp_par *par = t->par;
    if (t->last_sent != NULL) {
        tell_number(t, PP_PAR_send_failed, t->send_id);
    }
    bool timed_out = code == PP_ERR_WRITE_TIMEOUT || (t->timed_out && !t->peer_ended);
    if (timed_out && t->protocol->has[PP_PAR_connection_timeout]) {
        (void)tell(t, PP_PAR_connection_timeout, Py_None);
    } else if (!ours && !t->peer_ended && t->protocol->has[PP_PAR_connection_lost]) {
        (void)tell(t, PP_PAR_connection_lost, Py_None);
    } else {
        bool by_us = ours && !t->peer_ended;
        (void)tell(t, PP_PAR_connection_closed, by_us ? par->close : par->recv);
    }
}

void pp_par_run_callbacks(PpTransport *t, struct pp_par_news *news)
{
    if (news->events & PP_EV_REQUEST) {
        opened(t);
    }
    if (t->handler == NULL) {
        return;
    }
    if (news->events & PP_EV_FINISHED) {
        all_sent(t);
    }
    if (news->data != NULL && !t->closing) {
        received(t, news->data);
    }
    if ((news->events & PP_EV_EOF) && !t->closing) {
        if (t->partial != NULL) {
            PyObject *rest = t->partial;
            t->partial = NULL;
            one_line(t, PyBytes_AS_STRING(rest), (size_t)PyBytes_GET_SIZE(rest));
            Py_DECREF(rest);
        }
        t->closing = t->peer_ended = true;
    }
    if ((news->events & PP_EV_IDLE) && !(news->events & (PP_EV_BODY | PP_EV_CLOSED))) {
        t->closing = t->timed_out = true;
    }
    if (news->events & PP_EV_CLOSED) {
        closed(t, news->code, news->ours);
    }
}
