/* The answer of a WSGI application: write, and what it returns (PEP 3333).
 *
 * The head goes out with the first non-empty piece or at the end, so that an application may
 * replace it (exc_info) until then, or before, when the first piece does not come (wsgi_head.c). A
 * body that is known as a whole (a list or tuple, or anything whose len() is 1) gets a
 * Content-Length; other bodies are chunked, or end with the connection on HTTP/1.0. close() of the
 * result is called exactly once, whatever happened.
 *
 * Errors: an exception before the head was sent makes a 500; afterwards the connection is closed so
 * that the peer can tell. It is reported once, with the environ. That the peer is gone is not an
 * error: the rest of the body is not asked for. */
#include "bridge/wsgi_response.h"
#include "bridge/wsgi_fail.h"
#include "bridge/wsgi_file.h"
#include "bridge/wsgi_head.h"
#include "bridge/wsgi_op.h"

#include <string.h>

bool pp_wsgi_busy_enter(PpWsgiCall *call)
{
    if (!__atomic_exchange_n(&call->output_busy, true, __ATOMIC_ACQUIRE)) {
        return true;
    }
    PyErr_SetString(PyExc_RuntimeError, "two threads answer the same request");
    return false;
}

void pp_wsgi_busy_leave(PpWsgiCall *call)
{
    __atomic_store_n(&call->output_busy, false, __ATOMIC_RELEASE);
}

/* ---- pieces ---- */

enum emitted { EMIT_FAILED = -1, EMIT_OK, EMIT_CLOSED };

static enum emitted emit_busy(PpWsgiCall *call, struct pp_wsgi_op *op)
{
    struct pp_response response = {0};
    if (call->headers == NULL) {
        PyErr_SetString(PyExc_AssertionError, "the application has not called start_response()");
        return EMIT_FAILED;
    }
    if (call->has_length && call->head_sent && op->len > call->length - call->sent) {
        call->surplus = true; /* not a byte of it goes out: it would be the next response's */
        op->len = (size_t)(call->length - call->sent);
    }
    if (call->head_sent) {
        op->kind = PP_WSGI_OP_SEND;
    } else {
        op->kind = PP_WSGI_OP_RESPOND;
        pp_wsgi_head_fill(call, &response, op->len, op->more);
        op->response = &response;
    }
    pp_wsgi_op_run(op);
    if (op->rc != PP_OK && op->rc != PP_ERR_DISCONNECTED) {
        if (!call->head_sent && pp_wsgi_head_sent(call)) { /* just before, by the leader */
            op->rc = PP_OK;
            op->closed = false;
            return emit_busy(call, op);
        }
        pp_raise_code(call->core, op->rc);
        return EMIT_FAILED;
    }
    call->head_sent = true;
    call->sent += op->len;
    return op->closed ? EMIT_CLOSED : EMIT_OK;
}

/* Sends a piece; owner (a bytes object that holds data) may be NULL when there is none. */
static enum emitted emit(PpWsgiCall *call, PyObject *owner, bool more)
{
    struct pp_wsgi_op op = {.call = call, .owner = owner, .more = more};
    if (owner != NULL) {
        op.data = (const uint8_t *)PyBytes_AS_STRING(owner);
        op.len = (size_t)PyBytes_GET_SIZE(owner);
    }
    if (!pp_wsgi_busy_enter(call)) {
        return EMIT_FAILED;
    }
    enum emitted result = emit_busy(call, &op);
    pp_wsgi_busy_leave(call);
    return result;
}

static int check_piece(PyObject *piece)
{
    if (PyBytes_Check(piece)) {
        return 0;
    }
    PyErr_Format(PyExc_TypeError, "the body of a response is made of bytes, not %.100s",
                 Py_TYPE(piece)->tp_name);
    return -1;
}

/* Instead of emit for a piece of no bytes: whether anybody is left to send to. */
static enum emitted look(PpWsgiCall *call)
{
    return __atomic_load_n(&call->gone, __ATOMIC_ACQUIRE) ? EMIT_CLOSED : EMIT_OK;
}

PyObject *pp_wsgi_write(PpWsgiCall *call, PyObject *data)
{
    if (!PyBytes_Check(data)) {
        PyErr_Format(PyExc_TypeError,
                     "write() takes bytes, not %.100s; start_response() takes a status and headers",
                     Py_TYPE(data)->tp_name);
        return NULL;
    }
    switch (PyBytes_GET_SIZE(data) > 0 || __atomic_load_n(&call->ended, __ATOMIC_ACQUIRE)
                ? emit(call, data, true)
                : look(call)) {
    case EMIT_OK:
        Py_RETURN_NONE;
    case EMIT_CLOSED:
        PyErr_SetString(call->core->state->client_disconnected, "write(): the peer is gone");
        return NULL;
    case EMIT_FAILED:
        break;
    }
    return NULL;
}

/* ---- what the application returns ---- */

/* The pieces of a list or tuple as one bytes object, or NULL without an exception when they are not
 * all bytes or too many. */
static PyObject *join(PyObject *pieces)
{
    Py_ssize_t count = PyTuple_GET_SIZE(pieces), total = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *piece = PyTuple_GET_ITEM(pieces, i);
        if (!PyBytes_Check(piece) || PyBytes_GET_SIZE(piece) > PP_WSGI_JOIN_BYTES - total) {
            return NULL;
        }
        total += PyBytes_GET_SIZE(piece);
    }
    PyObject *joined = PyBytes_FromStringAndSize(NULL, total);
    if (joined != NULL) {
        char *out = PyBytes_AS_STRING(joined);
        for (Py_ssize_t i = 0; i < count; i++) {
            PyObject *piece = PyTuple_GET_ITEM(pieces, i);
            memcpy(out, PyBytes_AS_STRING(piece), (size_t)PyBytes_GET_SIZE(piece));
            out += PyBytes_GET_SIZE(piece);
        }
    }
    return joined;
}

static enum emitted send_end(PpWsgiCall *call)
{
    return emit(call, NULL, false);
}

static enum emitted send_iterable(PpWsgiCall *call, PyObject *iterable, bool single)
{
    PyObject *iterator = PyObject_GetIter(iterable), *piece;
    enum emitted result = EMIT_OK;
    if (iterator == NULL) {
        return EMIT_FAILED;
    }
    while (result == EMIT_OK && !call->surplus && (piece = PyIter_Next(iterator)) != NULL) {
        if (check_piece(piece) < 0) {
            result = EMIT_FAILED;
        } else if (PyBytes_GET_SIZE(piece) == 0) {
            result = look(call);
        } else {
            result = emit(call, piece, !single);
            if (single && result == EMIT_OK) {
                Py_DECREF(piece);
                Py_DECREF(iterator);
                return EMIT_OK;
            }
        }
        Py_DECREF(piece);
    }
    Py_DECREF(iterator);
    if (result == EMIT_OK && PyErr_Occurred()) {
        result = EMIT_FAILED;
    }
    return result == EMIT_OK ? send_end(call) : result;
}

/* A list or tuple itself, not of a subclass: nothing of it runs code of the application. */
static enum emitted send_sequence(PpWsgiCall *call, PyObject *sequence)
{
    PyObject *pieces = PyList_CheckExact(sequence) ? PyList_AsTuple(sequence) : Py_NewRef(sequence);
    enum emitted result;
    if (pieces == NULL) {
        return EMIT_FAILED;
    }
    if (call->head_sent) { /* write() was used */
        result = send_iterable(call, pieces, false);
    } else if (PyTuple_GET_SIZE(pieces) == 1) {
        PyObject *piece = PyTuple_GET_ITEM(pieces, 0);
        result = check_piece(piece) < 0 ? EMIT_FAILED : emit(call, piece, false);
    } else {
        PyObject *body = join(pieces);
        if (body != NULL) {
            result = emit(call, body, false);
            Py_DECREF(body);
        } else if (PyErr_Occurred()) {
            result = EMIT_FAILED;
        } else {
            result = send_iterable(call, pieces, false);
        }
    }
    Py_DECREF(pieces);
    return result;
}

/* The file of a file_wrapper, in blocks of our own size, no further than Content-Length. */
static enum emitted send_file(PpWsgiCall *call, PyObject *filelike, Py_ssize_t block_bytes)
{
    PyObject *read = PyObject_GetAttr(filelike, call->w->k.read);
    enum emitted result = EMIT_OK;
    if (read == NULL) {
        return EMIT_FAILED;
    }
    if (block_bytes < PP_WSGI_FILE_BYTES) {
        block_bytes = PP_WSGI_FILE_BYTES;
    }
    while (result == EMIT_OK) {
        Py_ssize_t size = block_bytes;
        if (call->has_length && call->length - call->sent < (uint64_t)size) {
            size = (Py_ssize_t)(call->length - call->sent);
        }
        if (size == 0) {
            break;
        }
        PyObject *block = PyObject_CallFunction(read, "n", size);
        if (block == NULL || check_piece(block) < 0) {
            result = EMIT_FAILED;
        } else if (PyBytes_GET_SIZE(block) == 0) {
            Py_DECREF(block);
            break;
        } else {
            result = emit(call, block, true);
        }
        Py_XDECREF(block);
    }
    Py_DECREF(read);
    return result == EMIT_OK ? send_end(call) : result;
}

/* len(result) == 1, as far as it has one. */
static bool has_len_one(PyObject *result)
{
    PySequenceMethods *methods = Py_TYPE(result)->tp_as_sequence;
    if (methods == NULL || methods->sq_length == NULL) {
        return false;
    }
    Py_ssize_t len = PyObject_Size(result);
    if (len < 0) {
        PyErr_Clear();
    }
    return len == 1;
}

static enum emitted send_lazy(PpWsgiCall *call, PyObject *result)
{
    Py_ssize_t block_bytes;
    PyObject *filelike = pp_wsgi_file_of(call->core->state, result, &block_bytes);
    if (filelike != NULL) {
        Py_INCREF(filelike);
        enum emitted sent = send_file(call, filelike, block_bytes);
        Py_DECREF(filelike);
        return sent;
    }
    return send_iterable(call, result, !call->head_sent && has_len_one(result));
}

static enum emitted send_result(PpWsgiCall *call, PyObject *result)
{
    if (PyList_CheckExact(result) || PyTuple_CheckExact(result)) {
        return send_sequence(call, result);
    }
    pp_wsgi_head_begin(call);
    enum emitted sent = send_lazy(call, result);
    pp_wsgi_head_end(call);
    return sent;
}

static void close_result(PpWsgiCall *call, PyObject *result, PyObject *env)
{
    if (PyList_CheckExact(result) || PyTuple_CheckExact(result)) {
        return;
    }
    PyObject *method = PyObject_GetAttr(result, call->w->k.close);
    if (method == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        return;
    }
    PyObject *r = method != NULL ? PyObject_CallNoArgs(method) : NULL;
    if (r == NULL) {
        pp_core_report_error(call->core, env);
    }
    Py_XDECREF(r);
    Py_XDECREF(method);
}

void pp_wsgi_respond(PpWsgiCall *call, PyObject *env)
{
    PyObject *args[] = {env, (PyObject *)call};
    PyObject *result = PyObject_Vectorcall(call->core->app, args, 2, NULL);
    if (result == NULL) {
        pp_wsgi_fail(call, env);
        return;
    }
    if (send_result(call, result) == EMIT_FAILED) {
        pp_wsgi_fail(call, env);
    }
    close_result(call, result, env);
    Py_DECREF(result);
    if (call->surplus) {
        PyErr_Format(PyExc_ValueError,
                     "the response is longer than its Content-Length, %llu: the "
                     "rest was not sent",
                     (unsigned long long)call->length);
        pp_core_report_error(call->core, env);
    }
}
