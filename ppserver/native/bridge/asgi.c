/* The ASGI HTTP bridge: a batch of connection events in, applications run, responses out.
 *
 * A PpRequest is one request's state and at the same time its `send` callable; `receive` is a small
 * object beside it. send() checks and writes at once and returns a shared, finished awaitable
 * unless the peer does not keep up; receive() decides when awaited (awaitable.c).
 *
 *   START --http.response.start--> HEAD --body, more--> BODY --body, last--> COMPLETE
 *                                    \------body, last------------------------/
 *
 * The head is not written before the first body message (ASGI HTTP spec), so that a single-shot
 * response leaves with its Content-Length in one piece, unless that takes PP_HEAD_WAIT_MS. When the
 * response is COMPLETE the connection goes on to its next request, although the application may
 * still run (background work). `conn` is NULL from then on, and after a disconnect. */
#include "bridge/asgi.h"
#include "bridge/access.h"
#include "bridge/awaitable.h"
#include "bridge/forked.h"
#include "bridge/message.h"
#include "bridge/scope.h"
#include "bridge/selector.h"
#include "bridge/worker.h"

#include <string.h>

#include "net/thread.h"

#define FIELDS_ON_STACK 48
/* So much may be given to send() after the disconnect before it raises; the least that a message
 * counts for, so that senders of little end as well. */
#define NOWHERE_BYTES_MAX 1048576
#define NOWHERE_BYTES_MIN 64
#define FAREWELL_TURNS 8

PpCore *pp_request_core(PpRequest *req)
{
    return req->core;
}

PyObject **pp_request_waiters(PpRequest *req, enum pp_wait_kind kind)
{
    return kind == PP_WAIT_RECEIVE ? &req->receive_waiters : &req->drain_waiters;
}

/* Lets go of the connection: it may begin its next request, or be freed. */
static void release_conn(PpRequest *req)
{
    struct pp_conn *conn = req->conn;
    if (conn == NULL) {
        return;
    }
    req->conn = NULL;
    pp_access_log(req->core, conn);
    pp_conn_set_app(conn, NULL);
    pp_conn_finish(conn);
    Py_DECREF((PyObject *)req); /* the connection's reference; the caller has its own */
}

static void on_forked(void *app)
{
    PpRequest *req = app;
    req->conn = NULL;
}

/* ---- send: checks ---- */

static int check_bytes(PyObject *value, const char *what)
{
    if (PyBytes_Check(value)) {
        return 0;
    }
    PyErr_Format(PyExc_TypeError, "http.response.start: header %s: expected bytes, got %.100s",
                 what, Py_TYPE(value)->tp_name);
    return -1;
}

static int not_a_pair(PyObject *pair, Py_ssize_t index)
{
    PyErr_Format(PyExc_TypeError,
                 "http.response.start: header %zd: expected a (name, value) pair, got %R", index,
                 pair);
    return -1;
}

static int check_pair(PyObject *tuple, Py_ssize_t index)
{
    if (PyTuple_GET_SIZE(tuple) != 2) {
        return not_a_pair(tuple, index);
    }
    int rc = check_bytes(PyTuple_GET_ITEM(tuple, 0), "name");
    return rc == 0 ? check_bytes(PyTuple_GET_ITEM(tuple, 1), "value") : rc;
}

/* Puts a copy of a pair that is a list in its place: what is sent must not change any more, nor be
 * freed, and on free-threaded builds other threads may be changing it now. */
static int settle_pair(PyObject *headers, Py_ssize_t index)
{
    PyObject *pair = PyTuple_GET_ITEM(headers, index);
    if (!PyList_Check(pair)) {
        return not_a_pair(pair, index);
    }
    PyObject *copy = PyList_AsTuple(pair);
    if (copy == NULL) {
        return -1;
    }
    PyTuple_SET_ITEM(headers, index, copy);
    Py_DECREF(pair);
    return 0;
}

/* A new tuple of the same items: one that only we have. */
static PyObject *copy_tuple(PyObject *tuple)
{
    PyObject *copy = PyTuple_New(PyTuple_GET_SIZE(tuple));
    for (Py_ssize_t i = 0; copy != NULL && i < PyTuple_GET_SIZE(tuple); i++) {
        PyTuple_SET_ITEM(copy, i, Py_NewRef(PyTuple_GET_ITEM(tuple, i)));
    }
    return copy;
}

/* The headers as a tuple of (name, value) tuples of bytes, which nobody changes; NULL with an
 * exception. */
static PyObject *settle_headers(PyObject *headers)
{
    PyObject *all = PySequence_Fast(headers, "http.response.start: headers: expected an iterable");
    bool ours = all != NULL && !PyTuple_Check(all);
    if (ours) {
        Py_SETREF(all, PyList_AsTuple(all)); /* what is sent is what it is now */
    }
    for (Py_ssize_t i = 0; all != NULL && i < PyTuple_GET_SIZE(all); i++) {
        if (PP_UNLIKELY(!PyTuple_Check(PyTuple_GET_ITEM(all, i)))) {
            if (!ours) {
                Py_SETREF(all, copy_tuple(all));
                ours = true;
            }
            if (all == NULL || settle_pair(all, i) < 0) {
                Py_CLEAR(all);
                break;
            }
        }
        if (check_pair(PyTuple_GET_ITEM(all, i), i) < 0) {
            Py_CLEAR(all);
        }
    }
    return all;
}

static int wrong_order(PpRequest *req, PyObject *type)
{
    static const char *const expected[] = {
        [REQ_START] = "'http.response.start'",
        [REQ_HEAD] = "'http.response.body'",
        [REQ_BODY] = "'http.response.body'",
        [REQ_COMPLETE] = "nothing more, as the response is complete",
    };
    PyErr_Format(PyExc_RuntimeError, "unexpected ASGI message %R: expected %s", type,
                 expected[req->state]);
    return -1;
}

/* Looking at a message can run code of the application, and that code can call send(). */
static int meanwhile(void)
{
    PyErr_SetString(PyExc_RuntimeError, "another message was sent while this one was looked at");
    return -1;
}

static int get_bool(PpRequest *req, struct pp_message *message, enum pp_message_field field)
{
    PyObject *value;
    int found = pp_message_take(message, &req->core->k, field, &value);
    if (found <= 0) {
        return found;
    }
    int truth = PyObject_IsTrue(value);
    Py_DECREF(value);
    return truth;
}

static int send_start(PpRequest *req, struct pp_message *message)
{
    const struct pp_constants *k = &req->core->k;
    PyObject *status, *headers;
    int found = pp_message_take(message, k, PP_MESSAGE_STATUS, &status);
    if (found <= 0) {
        if (found == 0) {
            PyErr_SetString(PyExc_KeyError, "http.response.start: 'status' is missing");
        }
        return -1;
    }
    /* http.HTTPStatus is an int; True is, too, and fails the range check. */
    long number = PyLong_Check(status) ? PyLong_AsLong(status) : -2;
    if (number < 200 || number > 999) {
        if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_OverflowError)) {
            PyErr_Clear();
            PyErr_Format(PyLong_Check(status) ? PyExc_ValueError : PyExc_TypeError,
                         "http.response.start: status: expected an int from 200 to 999, got %R",
                         status);
        }
        Py_DECREF(status);
        return -1;
    }
    Py_DECREF(status);
    int trailers = get_bool(req, message, PP_MESSAGE_TRAILERS);
    if (trailers != 0) {
        if (trailers > 0) {
            PyErr_SetString(PyExc_RuntimeError,
                            "http.response.start: trailers are not offered in scope['extensions']");
        }
        return -1;
    }
    if ((found = pp_message_take(message, k, PP_MESSAGE_HEADERS, &headers)) < 0) {
        return -1;
    }
    PyObject *settled = NULL;
    if (found > 0) {
        settled = settle_headers(headers);
        Py_DECREF(headers);
        if (settled == NULL) {
            return -1;
        }
    }
    if (req->state != REQ_START) {
        Py_XDECREF(settled);
        return meanwhile();
    }
    Py_XSETREF(req->headers, settled);
    req->status = (int)number;
    req->state = REQ_HEAD;
    if (!req->core
             ->in_batch) { /* in a batch, it counts when the application waits: start_request */
        pp_conn_head_wait(req->conn);
    }
    return 0;
}

/* ---- send: writing ---- */

void pp_request_raise_disconnected(PpRequest *req)
{
    req->disconnect_raised = true;
    PyErr_SetString(req->core->state->client_disconnected,
                    "send() after the client has disconnected");
}

/* The first send() to a vanished peer leaves some to a task that waits in receive(): it gets
 * http.disconnect, ends, and what waits for it (asyncio.wait, a task group) cancels the sender.
 * The others leave one, so that a sender that never waits does not hold the loop. */
int pp_request_farewell_turns(PpRequest *req)
{
    bool first = !req->farewell && (req->listened || req->disconnect_told);
    req->farewell |= first;
    return first ? FAREWELL_TURNS : 1;
}

/* The bytes of a body message; view.obj is to be released if it is set. */
static int body_bytes(PyObject *body, Py_buffer *view, const uint8_t **data, size_t *len)
{
    view->obj = NULL;
    *data = NULL;
    *len = 0;
    if (body == NULL || body == Py_None) {
        return 0;
    }
    if (PyBytes_Check(body)) {
        *data = (const uint8_t *)PyBytes_AS_STRING(body);
        *len = (size_t)PyBytes_GET_SIZE(body);
        return 0;
    }
    if (PyObject_GetBuffer(body, view, PyBUF_SIMPLE) < 0) {
        PyErr_Format(PyExc_TypeError,
                     "http.response.body: body: expected bytes, bytearray or memoryview, got "
                     "%.100s",
                     Py_TYPE(body)->tp_name);
        return -1;
    }
    *data = view->buf;
    *len = (size_t)view->len;
    return 0;
}

/* send() after the disconnect does nothing: an application that listens has been told, and to one
 * that does not an exception would look like a fault of its own. Only a sender that goes on and on
 * gets one. Either way by way of turns of the loop, in which who listens can end the sender. */
static PyObject *send_nowhere(PpRequest *req, struct pp_message *message, bool has_body)
{
    PyObject *body = NULL;
    Py_buffer view;
    const uint8_t *data;
    size_t len = 0;
    if (req->sent_nowhere >= NOWHERE_BYTES_MAX) {
        return pp_wait_new(req, PP_WAIT_FAREWELL);
    }
    if (has_body) {
        if (pp_message_take(message, &req->core->k, PP_MESSAGE_BODY, &body) < 0 ||
            body_bytes(body, &view, &data, &len) < 0) {
            Py_XDECREF(body);
            return NULL;
        }
        if (view.obj != NULL) {
            PyBuffer_Release(&view);
        }
        Py_XDECREF(body);
    }
    size_t room = NOWHERE_BYTES_MAX - req->sent_nowhere;
    len = len < NOWHERE_BYTES_MIN ? NOWHERE_BYTES_MIN : len;
    req->sent_nowhere += len < room ? len : room;
    return pp_wait_new(req, PP_WAIT_NOWHERE);
}

/* Head and first body bytes. */
static int write_head(PpRequest *req, PyObject *body, const uint8_t *data, size_t len, bool more)
{
    struct pp_h1_out_field on_stack[FIELDS_ON_STACK], *fields = on_stack;
    Py_ssize_t count = req->headers != NULL ? PyTuple_GET_SIZE(req->headers) : 0;
    if (count > FIELDS_ON_STACK) {
        fields = PyMem_New(struct pp_h1_out_field, (size_t)count);
        if (fields == NULL) {
            PyErr_NoMemory();
            return -1;
        }
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *pair = PyTuple_GET_ITEM(req->headers, i);
        PyObject *name = PyTuple_GET_ITEM(pair, 0), *value = PyTuple_GET_ITEM(pair, 1);
        fields[i].name = (const uint8_t *)PyBytes_AS_STRING(name);
        fields[i].name_len = (size_t)PyBytes_GET_SIZE(name);
        fields[i].value = (const uint8_t *)PyBytes_AS_STRING(value);
        fields[i].value_len = (size_t)PyBytes_GET_SIZE(value);
    }
    int result = -1;
    struct pp_h1_response r = {.status = req->status,
                               .fields = fields,
                               .field_count = (size_t)count,
                               .complete = !more,
                               .body_bytes = len};
    bool borrowed = false;
    PyObject *owner = body != NULL && PyBytes_CheckExact(body) ? Py_NewRef(body) : NULL;
    int rc = pp_conn_respond(req->conn, &r, data, len, owner, &borrowed);
    if (!borrowed) {
        Py_XDECREF(owner);
    }
    if (rc == PP_OK) {
        req->state = more ? REQ_BODY : REQ_COMPLETE;
        Py_CLEAR(req->headers);
        result = 0;
    } else {
        req->state = REQ_START; /* nothing was written: another response may be tried */
        Py_CLEAR(req->headers);
        pp_raise_code(req->core, rc);
    }
    if (fields != on_stack) {
        PyMem_Free(fields);
    }
    return result;
}

static int write_more(PpRequest *req, PyObject *body, const uint8_t *data, size_t len, bool more)
{
    bool borrowed = false;
    PyObject *owner = body != NULL && PyBytes_CheckExact(body) ? Py_NewRef(body) : NULL;
    int rc = pp_conn_send(req->conn, data, len, more, owner, &borrowed);
    if (!borrowed) {
        Py_XDECREF(owner);
    }
    if (rc != PP_OK) {
        pp_raise_code(req->core, rc);
        return -1;
    }
    req->state = more ? REQ_BODY : REQ_COMPLETE;
    return 0;
}

static PyObject *after_write(PpRequest *req)
{
    PpCore *core = req->core;
    if (req->state == REQ_COMPLETE) {
        release_conn(req);
        /* A receive() that waits for a disconnect learns that nothing more comes. */
        pp_wake_waiters(core, &req->receive_waiters);
    } else if (pp_conn_out_full(req->conn)) {
        if (pp_selector_output_queued(core) < 0) {
            return NULL;
        }
        return pp_wait_new(req, PP_WAIT_DRAIN);
    }
    if (pp_selector_output_queued(core) < 0) {
        return NULL;
    }
    return Py_NewRef(core->done);
}

int pp_request_try_drain(PpRequest *req, PyObject **none)
{
    if (req->conn != NULL && req->state != REQ_COMPLETE && pp_conn_out_full(req->conn)) {
        return 0;
    }
    /* Also when the peer has gone meanwhile: then the message went nowhere. */
    *none = Py_NewRef(Py_None);
    return 1;
}

static PyObject *send_body(PpRequest *req, struct pp_message *message)
{
    PyObject *body, *result = NULL;
    uint8_t state = req->state;
    int more = get_bool(req, message, PP_MESSAGE_MORE_BODY);
    if (more < 0 || pp_message_take(message, &req->core->k, PP_MESSAGE_BODY, &body) < 0) {
        return NULL;
    }
    Py_buffer view;
    const uint8_t *data;
    size_t len;
    if (body_bytes(body, &view, &data, &len) < 0) {
        Py_DECREF(body);
        return NULL;
    }
    int rc = req->state != state || req->conn == NULL ? meanwhile()
             : state == REQ_HEAD                      ? write_head(req, body, data, len, more != 0)
                                                      : write_more(req, body, data, len, more != 0);
    if (rc == 0) {
        result = after_write(req);
    }
    if (view.obj != NULL) {
        PyBuffer_Release(&view);
    }
    Py_XDECREF(body);
    return result;
}

enum message_kind { MESSAGE_OTHER, MESSAGE_START, MESSAGE_BODY };

/* CPython does not intern literals with dots, so each application has a "http.response.start"
 * object of its own. Those seen last are remembered: mostly a pointer comparison is enough. */
static enum message_kind kind_of(PpCore *core, PyObject *type)
{
    if (type == core->seen_start) {
        return MESSAGE_START;
    }
    if (type == core->seen_body) {
        return MESSAGE_BODY;
    }
    if (!PyUnicode_Check(type)) {
        return MESSAGE_OTHER;
    }
    if (PyUnicode_CompareWithASCIIString(type, "http.response.start") == 0) {
        Py_XSETREF(core->seen_start, Py_NewRef(type));
        return MESSAGE_START;
    }
    if (PyUnicode_CompareWithASCIIString(type, "http.response.body") == 0) {
        Py_XSETREF(core->seen_body, Py_NewRef(type));
        return MESSAGE_BODY;
    }
    return MESSAGE_OTHER;
}

/* The body broke a rule or a limit, and the application has heard of it as of a disconnect: the
 * answer is the server's. */
static bool body_failed(const PpRequest *req)
{
    return req->disconnect_told && pp_conn_error(req->conn) != PP_OK;
}

/* By the message's type. */
static PyObject *send_typed(PpRequest *req, struct pp_message *message, PyObject *type)
{
    enum message_kind kind = kind_of(req->core, type);
    bool start = kind == MESSAGE_START, body = kind == MESSAGE_BODY;
    bool gone = req->conn == NULL || pp_conn_closed(req->conn) || body_failed(req);
    if ((start || body) && gone && req->state != REQ_COMPLETE) {
        return send_nowhere(req, message, body); /* in whatever order: none of them is looked at */
    }
    if ((!start && !body) || (start && req->state != REQ_START) ||
        (body && req->state != REQ_HEAD && req->state != REQ_BODY)) {
        wrong_order(req, type);
        return NULL;
    }
    if (body) {
        return send_body(req, message);
    }
    return send_start(req, message) == 0 ? Py_NewRef(req->core->done) : NULL;
}

static PyObject *send_message(PpRequest *req, PyObject *dict)
{
    const struct pp_constants *k = &req->core->k;
    PyObject *type, *result = NULL;
    if (pp_core_check_thread(req->core) < 0) {
        return NULL;
    }
    if (!PyDict_Check(dict)) {
        PyErr_Format(PyExc_TypeError, "send(): expected a dict, got %.100s",
                     Py_TYPE(dict)->tp_name);
        return NULL;
    }
    struct pp_message message;
    pp_message_init(&message, k, dict);
    int found = pp_message_take(&message, k, PP_MESSAGE_TYPE, &type);
    if (found > 0) {
        result = send_typed(req, &message, type);
        Py_DECREF(type);
    } else if (found == 0) {
        PyErr_SetString(PyExc_KeyError, "send(): the message has no 'type'");
    }
    pp_message_fini(&message);
    return result;
}

static PyObject *send_call(PyObject *op, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    PpRequest *req = (PpRequest *)op;
    Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);
    bool keyword = kwnames != NULL && PyTuple_GET_SIZE(kwnames) == 1 && nargs == 0 &&
                   PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, 0), "message") == 0;
    if (!keyword && (nargs != 1 || (kwnames != NULL && PyTuple_GET_SIZE(kwnames) != 0))) {
        PyErr_SetString(PyExc_TypeError, "send() takes exactly one argument, the message");
        return NULL;
    }
    PyObject *self = Py_NewRef(op); /* a finished response drops the connection's reference */
    PyObject *result = send_message(req, args[0]);
    Py_DECREF(self);
    return result;
}

/* ---- the end of an application call ---- */

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
    if (req->conn != NULL) {
        pp_conn_fail(req->conn, 500);
    }
}

int pp_request_app_ended(PpRequest *req, PyObject *scope, bool failed)
{
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
    if (req->conn != NULL && req->state != REQ_COMPLETE) {
        if (!failed && !pp_conn_closed(req->conn) && !req->disconnect_told) {
            PyErr_SetString(PyExc_RuntimeError,
                            req->state == REQ_BODY
                                ? "the ASGI application returned without completing its response"
                                : "the ASGI application returned without sending a response");
            pp_core_report_error(core, scope);
        }
        if (req->disconnect_told && req->state != REQ_BODY && !body_failed(req) &&
            (!failed || cancelled != NULL)) {
            pp_conn_abandon(req->conn); /* nobody is there, as it was told */
        }
        answer_failure(req);
    }
    release_conn(req);
    if (core->loop != NULL && pp_selector_output_queued(core) < 0) {
        PyErr_WriteUnraisable((PyObject *)core);
    }
    if (cancelled != NULL) {
        PyErr_SetRaisedException(cancelled);
        return -1;
    }
    return 0;
}

/* ---- a batch ---- */

static PpRequest *request_new(PpCore *core, struct pp_conn *conn)
{
    PyTypeObject *type = core->state->request_type;
    PpRequest *req = (PpRequest *)pp_kept_take(&core->kept_requests, type);
    if (req != NULL) {
        req->vectorcall = send_call;
        req->core = (PpCore *)Py_NewRef((PyObject *)core);
        req->conn = conn;
        pp_conn_set_app(conn, Py_NewRef((PyObject *)req)); /* dropped by release_conn */
    }
    return req;
}

static void start_request(PpCore *core, struct pp_conn *conn)
{
    PyObject *scope = core->app != NULL ? pp_scope_new(core, conn) : NULL;
    PpRequest *req = scope != NULL ? request_new(core, conn) : NULL;
    PyObject *receive = req != NULL ? pp_receive_new(core, req) : NULL;
    if (receive != NULL) {
        pp_worker_run(core, req, scope, receive);
        if (req->state == REQ_HEAD && req->conn != NULL) {
            pp_conn_head_wait(conn);
        }
    } else {
        pp_core_report_error(core, scope);
        pp_conn_fail(conn, 503);
        if (req != NULL) {
            release_conn(req);
        } else {
            pp_conn_finish(conn);
        }
    }
    Py_XDECREF(receive);
    Py_XDECREF((PyObject *)req);
    Py_XDECREF(scope);
}

/* The application gave a head some time ago and is silent since: its client may wait for the head
 * alone (EventSource's onopen). From now on an error can only break the response off. */
static void head_due(PpRequest *req)
{
    if (req->conn != NULL && req->state == REQ_HEAD && write_head(req, NULL, NULL, 0, true) < 0) {
        pp_core_report_error(req->core, NULL); /* its next message will be out of order: a 500 */
    }
}

static void handle_event(PpCore *core, struct pp_conn *conn, unsigned events)
{
    if (events & PP_EV_REQUEST) {
        if (events & PP_EV_CLOSED) {
            pp_conn_finish(conn); /* gone before anybody looked at it */
        } else {
            start_request(core, conn);
            if (!(events & PP_EV_EOF)) {
                return;
            }
        }
    }
    PpRequest *req = pp_conn_app(conn);
    if (req == NULL) {
        return;
    }
    Py_INCREF((PyObject *)req);
    if (events & PP_EV_HEAD) {
        head_due(req);
    }
    if (events & PP_EV_EOF) {
        req->peer_eof = true;
    }
    if (events & PP_EV_CLOSED) {
        release_conn(req);
    }
    if (events & (PP_EV_EOF | PP_EV_CLOSED)) {
        req->listened |= req->receive_waiters != NULL;
    }
    if (events & (PP_EV_BODY | PP_EV_EOF | PP_EV_CLOSED)) {
        pp_wake_waiters(core, &req->receive_waiters);
    }
    if (events & (PP_EV_DRAINED | PP_EV_CLOSED)) {
        pp_wake_waiters(core, &req->drain_waiters);
    }
    Py_DECREF((PyObject *)req);
}

static void run_batch(PpCore *core)
{
    struct pp_conn *conn;
    unsigned events;
    if (core->in_batch) {
        return; /* a nested event loop inside an application */
    }
    core->in_batch = true;
    for (;;) {
        if (PP_UNLIKELY(core->loop == NULL)) {
            pp_forked_back(core);
            break;
        }
        if ((conn = pp_loop_take_event(core->loop, &events)) == NULL) {
            break;
        }
        handle_event(core, conn, events);
    }
    pp_worker_batch_end(core);
    core->in_batch = false;
}

/* ---- serving ---- */

static const struct pp_mode asgi_mode = {
    .run_batch = run_batch,
    .end = pp_worker_drop,
    .forked = on_forked,
};

static int set_task_mode(PpCore *core, const char *task)
{
    if (strcmp(task, "worker") == 0) {
        core->task_mode = PP_TASK_WORKER;
    } else if (strcmp(task, "plain") == 0) {
        core->task_mode = PP_TASK_PLAIN;
    } else if (strcmp(task, "eager") == 0) {
#if PY_VERSION_HEX < 0x030C0000
        PyErr_SetString(PyExc_ValueError, "task 'eager' needs CPython 3.12 or later");
        return -1;
#else
        core->task_mode = PP_TASK_EAGER;
#endif
    } else {
        PyErr_Format(PyExc_ValueError, "task: expected 'worker', 'eager' or 'plain', got '%s'",
                     task);
        return -1;
    }
    return 0;
}

static PyObject *serve_asgi(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"app",  "loop",     "state",          "root_path",
                               "task", "on_error", "root_path_mode", NULL};
    PpCore *core = (PpCore *)self;
    PyObject *app, *loop, *state = Py_None, *root_path = NULL, *on_error = Py_None;
    const char *task = "worker", *root_path_mode = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|$OUsOs:serve_asgi", keywords, &app, &loop,
                                     &state, &root_path, &task, &on_error, &root_path_mode) ||
        pp_core_check_open(core) < 0) {
        return NULL;
    }
    if (core->mode != &pp_mode_none) {
        PyErr_SetString(PyExc_RuntimeError, "the core already serves an application");
        return NULL;
    }
    if (state != Py_None && !PyDict_Check(state)) {
        PyErr_SetString(PyExc_TypeError, "state: expected dict or None");
        return NULL;
    }
    if (set_task_mode(core, task) < 0 || pp_scope_set_root_path_mode(core, root_path_mode) < 0) {
        return NULL;
    }
    Py_XSETREF(core->app, Py_NewRef(app));
    Py_XSETREF(core->event_loop, Py_NewRef(loop));
    Py_XSETREF(core->lifespan_state, state == Py_None ? NULL : Py_NewRef(state));
    Py_XSETREF(core->root_path, Py_NewRef(root_path != NULL ? root_path : core->k.empty_str));
    Py_XSETREF(core->root_path_bytes, PyUnicode_AsUTF8String(core->root_path));
    Py_XSETREF(core->on_error, on_error == Py_None ? NULL : Py_NewRef(on_error));
    if (core->root_path_bytes == NULL || pp_scope_setup(core) < 0) {
        return NULL;
    }
    if ((core->done == NULL && (core->done = pp_done_new(core)) == NULL) ||
        (core->tasks == NULL && (core->tasks = PySet_New(NULL)) == NULL)) {
        return NULL;
    }
    if (core->selector != NULL && !core->attached) {
        PyObject *r = PyObject_CallMethod(core->selector, "bind", "O", loop);
        if (r == NULL) {
            return NULL;
        }
        Py_DECREF(r);
    }
    pp_loop_adopt(core->loop);
    pp_loop_take_bodies(core->loop);
    core->mode = &asgi_mode;
    core->process = pp_thread_process();
    Py_RETURN_NONE;
}

PyMethodDef pp_asgi_methods[] = {
    {"serve_asgi", (PyCFunction)(void (*)(void))serve_asgi, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("serve_asgi(app, loop, *, state=None, root_path='', task='worker', on_error=None, "
               "root_path_mode='auto')"
               "\n\nServe an ASGI 3 application on the given event loop.")},
    {NULL, NULL, 0, NULL},
};

/* ---- types ---- */

static int request_traverse(PyObject *op, visitproc visit, void *arg)
{
    PpRequest *req = (PpRequest *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT((PyObject *)req->core);
    Py_VISIT(req->headers);
    Py_VISIT(req->receive_waiters);
    Py_VISIT(req->drain_waiters);
    return 0;
}

static int request_clear(PyObject *op)
{
    PpRequest *req = (PpRequest *)op;
    Py_CLEAR(req->headers);
    Py_CLEAR(req->receive_waiters);
    Py_CLEAR(req->drain_waiters);
    return 0; /* core is needed as long as the object can be called: dropped in dealloc */
}

static void request_dealloc(PyObject *op)
{
    PpRequest *req = (PpRequest *)op;
    PpCore *core = req->core;
    PyObject_GC_UnTrack(op);
    PP_ASSERT(req->conn == NULL);
    request_clear(op);
    pp_kept_give(&core->kept_requests, op);
    Py_DECREF((PyObject *)core);
}

static PyMemberDef request_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(PpRequest, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot request_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("send(message): the ASGI send callable of one request.")},
    {Py_tp_dealloc, request_dealloc},
    {Py_tp_traverse, request_traverse},
    {Py_tp_clear, request_clear},
    {Py_tp_members, request_members},
    {Py_tp_call, PyVectorcall_Call},
    {0, NULL},
};

PyType_Spec pp_request_spec = {
    .name = "ppserver._native.Send",
    .basicsize = sizeof(PpRequest),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = request_slots,
};
