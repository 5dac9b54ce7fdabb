/* send() of an ASGI request: messages checked, and written at once.
 *
 *   START --http.response.start--> HEAD --body, more--> BODY --body, last--> COMPLETE
 *                                    \------body, last------------------------/
 *
 * It returns a shared, finished awaitable unless the peer does not keep up (awaitable.c). The head
 * is not written before the first body message (ASGI HTTP spec), so that a single-shot response
 * leaves with its Content-Length in one piece, unless that takes PP_HEAD_WAIT_MS. When the response
 * is COMPLETE the connection goes on to its next request, although the application may still run
 * (background work). */
#include "bridge/asgi_send.h"
#include "bridge/attached.h"
#include "bridge/awaitable.h"
#include "bridge/message.h"

/* So much may be given to send() after the disconnect before it raises; the least that a message
 * counts for, so that senders of little end as well. */
#define NOWHERE_BYTES_MAX 1048576
#define NOWHERE_BYTES_MIN 64
#define FAREWELL_TURNS 8

/* ---- send: checks ---- */

static int not_bytes(PyObject *name, PyObject *value)
{
    bool wrong_name = !PyBytes_Check(name);
    PyErr_Format(PyExc_TypeError, "http.response.start: header %s: expected bytes, got %.100s",
                 wrong_name ? "name" : "value", Py_TYPE(wrong_name ? name : value)->tp_name);
    return -1;
}

static int not_a_pair(PyObject *pair, Py_ssize_t index)
{
    PyErr_Format(PyExc_TypeError,
                 "http.response.start: header %zd: expected a (name, value) pair, got %R", index,
                 pair);
    return -1;
}

/* Checks a tuple of pairs, and keeps in the core's room what is to be written of them: as many as
 * fit, and the bytes of all. Runs no code of the application, which could need the same room for
 * another response. 1: a pair is no tuple. -1 with an exception. */
static int read_fields(const PpRequest *req, PyObject *headers)
{
    struct pp_head_fields *head = &req->core->head;
    size_t bytes = 0;
    head->of = NULL;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(headers); i++) {
        PyObject *pair = PyTuple_GET_ITEM(headers, i);
        if (PP_UNLIKELY(!PyTuple_Check(pair))) {
            return 1;
        }
        if (PP_UNLIKELY(PyTuple_GET_SIZE(pair) != 2)) {
            return not_a_pair(pair, i);
        }
        PyObject *name = PyTuple_GET_ITEM(pair, 0), *value = PyTuple_GET_ITEM(pair, 1);
        if (PP_UNLIKELY(!PyBytes_Check(name) || !PyBytes_Check(value))) {
            return not_bytes(name, value);
        }
        struct pp_out_field field = {.name = (const uint8_t *)PyBytes_AS_STRING(name),
                                     .value = (const uint8_t *)PyBytes_AS_STRING(value),
                                     .name_len = (size_t)PyBytes_GET_SIZE(name),
                                     .value_len = (size_t)PyBytes_GET_SIZE(value)};
        bytes += pp_out_field_bytes(&field);
        if (i < PP_HEAD_FIELDS_KEPT) {
            head->fields[i] = field;
        }
    }
    head->bytes = bytes;
    head->of = req;
    return 0;
}

/* A new tuple, with a copy of each pair that is a list: what is sent must not change any more, nor
 * be freed, and on free-threaded builds other threads may be changing it now. */
static PyObject *copy_pairs(PyObject *headers)
{
    PyObject *copy = PyTuple_New(PyTuple_GET_SIZE(headers));
    for (Py_ssize_t i = 0; copy != NULL && i < PyTuple_GET_SIZE(headers); i++) {
        PyObject *pair = PyTuple_GET_ITEM(headers, i), *settled = NULL;
        if (PyTuple_Check(pair)) {
            settled = Py_NewRef(pair);
        } else if (PyList_Check(pair)) {
            settled = PyList_AsTuple(pair);
        } else {
            (void)not_a_pair(pair, i);
        }
        if (settled == NULL) {
            Py_CLEAR(copy);
        } else {
            PyTuple_SET_ITEM(copy, i, settled);
        }
    }
    return copy;
}

/* The headers as a tuple of (name, value) tuples of bytes, which nobody changes, read into the
 * core's room; NULL with an exception. */
static PyObject *settle_headers(const PpRequest *req, PyObject *headers)
{
    PyObject *all = PySequence_Fast(headers, "http.response.start: headers: expected an iterable");
    if (all != NULL && !PyTuple_Check(all)) {
        Py_SETREF(all, PyList_AsTuple(all)); /* what is sent is what it is now */
    }
    int rc = all != NULL ? read_fields(req, all) : -1;
    if (PP_UNLIKELY(rc > 0)) {
        Py_SETREF(all, copy_pairs(all));
        rc = all != NULL ? read_fields(req, all) : -1;
    }
    if (rc < 0) {
        Py_CLEAR(all);
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
        settled = settle_headers(req, headers);
        Py_DECREF(headers);
        if (settled == NULL) {
            return -1;
        }
    }
    if (req->state != REQ_START) {
        req->core->head.of = NULL; /* they are not those of req->headers */
        Py_XDECREF(settled);
        return meanwhile();
    }
    PP_ASSERT(req->headers == NULL);
    req->headers = settled;
    req->status = (int)number;
    req->state = REQ_HEAD;
    if (!req->core
             ->in_batch) { /* in a batch, it counts when the application waits: start_request */
        pp_exchange_head_wait(req->ex);
    }
    return 0;
}

/* ---- send: what it waits for ---- */

static int look_drain(PyObject *op, PyObject **none)
{
    PpRequest *req = (PpRequest *)op;
    if (req->ex != NULL && req->state != REQ_COMPLETE && pp_exchange_out_full(req->ex)) {
        return 0;
    }
    /* Also when the peer has gone meanwhile: then the message went nowhere. */
    *none = Py_NewRef(Py_None);
    return 1;
}

static int look_nowhere(PyObject *Py_UNUSED(op), PyObject **none)
{
    *none = Py_NewRef(Py_None);
    return 1;
}

static int look_farewell(PyObject *op, PyObject **Py_UNUSED(none))
{
    PpRequest *req = (PpRequest *)op;
    req->disconnect_raised = true;
    PyErr_SetString(req->core->state->client_disconnected,
                    "send() after the client has disconnected");
    return -1;
}

static const struct pp_wait_kind wait_drain = {look_drain, offsetof(PpRequest, drain_waiters)};
/* After a disconnect: others go first, then it is done, or raises. */
static const struct pp_wait_kind wait_nowhere = {look_nowhere, 0};
static const struct pp_wait_kind wait_farewell = {look_farewell, 0};

static PyObject *wait_new(PpRequest *req, const struct pp_wait_kind *kind, int turns)
{
    return pp_wait_new(req->core, (PyObject *)req, kind, turns);
}

/* The first send() to a vanished peer leaves some to a task that waits in receive(): it gets
 * http.disconnect, ends, and what waits for it (asyncio.wait, a task group) cancels the sender.
 * The others leave one, so that a sender that never waits does not hold the loop. */
static int farewell_turns(PpRequest *req)
{
    bool first = !req->farewell && (req->listened || req->disconnect_told);
    req->farewell |= first;
    return first ? FAREWELL_TURNS : 1;
}

/* ---- send: writing ---- */

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
        return wait_new(req, &wait_farewell, farewell_turns(req));
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
    return wait_new(req, &wait_nowhere, farewell_turns(req));
}

/* The fields of a head, of which send_start has kept the headers: those that the core has room for
 * are still there, unless another response has begun since. *many: to be freed (PyMem), or NULL.
 * -1 with an exception. */
static int head_fields(PpRequest *req, struct pp_response *r, struct pp_out_field **many)
{
    struct pp_head_fields *head = &req->core->head;
    *many = NULL;
    if (req->headers == NULL) {
        return 0;
    }
    if (PP_UNLIKELY(head->of != req)) {
        int rc = read_fields(req, req->headers);
        PP_CHECK(rc == 0); /* they were checked before, and nobody changes them */
    }
    size_t count = (size_t)PyTuple_GET_SIZE(req->headers);
    r->fields = head->fields;
    r->field_count = count;
    r->field_bytes = head->bytes;
    if (PP_LIKELY(count <= PP_HEAD_FIELDS_KEPT)) {
        return 0;
    }
    struct pp_out_field *fields = PyMem_New(struct pp_out_field, count);
    if (fields == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < count; i++) {
        PyObject *pair = PyTuple_GET_ITEM(req->headers, (Py_ssize_t)i);
        PyObject *name = PyTuple_GET_ITEM(pair, 0), *value = PyTuple_GET_ITEM(pair, 1);
        fields[i].name = (const uint8_t *)PyBytes_AS_STRING(name);
        fields[i].name_len = (size_t)PyBytes_GET_SIZE(name);
        fields[i].value = (const uint8_t *)PyBytes_AS_STRING(value);
        fields[i].value_len = (size_t)PyBytes_GET_SIZE(value);
    }
    r->fields = *many = fields;
    return 0;
}

/* Head and first body bytes. */
static int write_head(PpRequest *req, PyObject *body, const uint8_t *data, size_t len, bool more)
{
    struct pp_out_field *many;
    struct pp_response r = {.status = req->status, .complete = !more, .body_bytes = len};
    if (head_fields(req, &r, &many) < 0) {
        return -1;
    }
    int result = -1;
    bool borrowed = false;
    PyObject *owner = body != NULL && PyBytes_CheckExact(body) ? Py_NewRef(body) : NULL;
    int rc = pp_exchange_respond(req->ex, &r, data, len, owner, &borrowed);
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
    PyMem_Free(many);
    return result;
}

static int write_more(PpRequest *req, PyObject *body, const uint8_t *data, size_t len, bool more)
{
    bool borrowed = false;
    PyObject *owner = body != NULL && PyBytes_CheckExact(body) ? Py_NewRef(body) : NULL;
    int rc = pp_exchange_send(req->ex, data, len, more, owner, &borrowed);
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
        pp_request_release(req);
        /* A receive() that waits for a disconnect learns that nothing more comes. */
        pp_wake_waiters(core, &req->receive_waiters);
    } else if (pp_exchange_out_full(req->ex)) {
        if (pp_attached_output_queued(core) < 0) {
            return NULL;
        }
        return wait_new(req, &wait_drain, 0);
    }
    if (pp_attached_output_queued(core) < 0) {
        return NULL;
    }
    return Py_NewRef(core->done);
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
    int rc = req->state != state || req->ex == NULL ? meanwhile()
             : state == REQ_HEAD                    ? write_head(req, body, data, len, more != 0)
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

/* By the message's type. */
static PyObject *send_typed(PpRequest *req, struct pp_message *message, PyObject *type)
{
    enum message_kind kind = kind_of(req->core, type);
    bool start = kind == MESSAGE_START, body = kind == MESSAGE_BODY;
    bool gone = req->ex == NULL || pp_exchange_closed(req->ex) || pp_request_body_failed(req);
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

PyObject *pp_asgi_send(PyObject *op, PyObject *const *args, size_t nargsf, PyObject *kwnames)
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

void pp_asgi_send_head(PpRequest *req)
{
    if (req->ex != NULL && req->state == REQ_HEAD && write_head(req, NULL, NULL, 0, true) < 0) {
        pp_core_report_error(req->core, NULL); /* its next message will be out of order: a 500 */
    }
}
