/* wsgi.input: a blocking reader of the request body.
 *
 * A body that was awaited before the application ran is here as a whole, in memory or in a
 * temporary file. Otherwise bytes, or those behind what was awaited, are read from the connection
 * when they are asked for (the first read sends 100 Continue if the client waits for it): many
 * straight into the result, few and lines through a buffer. read(n) returns less than n
 * bytes only at the end of the body. A body that fails (peer gone, time-out, malformed, too large)
 * raises ClientDisconnected, an OSError. */
#include "bridge/wsgi_input.h"
#include "bridge/lead.h"
#include "bridge/queue.h"
#include "bridge/wsgi_op.h"

#include <string.h>

#define BUFFER_BYTES 65536
#define DIRECT_BYTES 16384 /* so many are not worth a way through the buffer */
#define FIRST_BYTES 65536
#define GROW_BYTES_MAX (64 * 1024 * 1024)

typedef struct {
    PyObject_HEAD
    PpWsgiCall *call;          /* owned, or NULL when everything is in the buffer or the file */
    PpState *state;            /* borrowed from the module */
    struct pp_wsgi *w;         /* counted if file is set, else NULL */
    struct pp_queue_body file; /* owned, if spooled; its bytes come before those of the call */
    uint64_t file_at;          /* what of it has been read */
    uint8_t *rest;             /* owned (pp_mem) or NULL: what comes behind buffer or file... */
    size_t rest_at, rest_len, rest_cap; /* ...and how much of it has been read */
    uint8_t *buf;                       /* owned (pp_mem) or NULL */
    size_t start, end, cap;
    bool eof;  /* nothing behind the buffer */
    bool busy; /* atomic: a method is at work */
} PpWsgiInput;

PyObject *pp_wsgi_input_new(struct pp_wsgi *w, PpWsgiCall *call, PpState *state,
                            struct pp_queue_body body)
{
    PpWsgiInput *in = PyObject_GC_New(PpWsgiInput, state->wsgi_input_type);
    if (in == NULL) {
        pp_queue_body_drop(&body);
        return NULL;
    }
    in->call = (PpWsgiCall *)Py_XNewRef((PyObject *)call);
    in->state = state;
    in->w = NULL;
    in->file = (struct pp_queue_body){0};
    in->file_at = 0;
    in->rest = body.rest;
    in->rest_at = 0;
    in->rest_len = body.rest_len;
    in->rest_cap = body.rest_cap;
    body.rest = NULL;
    in->buf = NULL;
    in->start = in->end = in->cap = 0;
    if (body.spooled) {
        pp_lead_ref(&w->lead);
        in->w = w;
        in->file = body;
    } else {
        in->buf = body.data;
        in->end = body.len;
        in->cap = body.cap;
    }
    in->eof = call == NULL && !body.spooled;
    in->busy = false;
    PyObject_GC_Track((PyObject *)in);
    return (PyObject *)in;
}

static int input_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((PpWsgiInput *)self)->call);
    return 0;
}

static int input_clear(PyObject *self)
{
    PpWsgiInput *in = (PpWsgiInput *)self;
    in->eof = true;
    Py_CLEAR(in->call);
    return 0;
}

static void input_dealloc(PyObject *self)
{
    PpWsgiInput *in = (PpWsgiInput *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_CLEAR(in->call);
    if (in->buf != NULL) {
        pp_mem_free(in->buf, in->cap);
    }
    if (in->rest != NULL) {
        pp_mem_free(in->rest, in->rest_cap);
    }
    if (in->w != NULL) {
        pp_queue_body_drop(&in->file);
        pp_lead_unref(&in->w->lead);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- bytes ---- */

/* The input of requests without a body is one object for all of them; nothing in it changes. */
static bool is_empty(const PpWsgiInput *in)
{
    return in->call == NULL && in->buf == NULL && in->w == NULL;
}

static int enter(PpWsgiInput *in)
{
    if (!is_empty(in) && __atomic_exchange_n(&in->busy, true, __ATOMIC_ACQUIRE)) {
        PyErr_SetString(PyExc_RuntimeError, "wsgi.input is being read by another thread");
        return -1;
    }
    return 0;
}

static PyObject *leave(PpWsgiInput *in, PyObject *result)
{
    if (!is_empty(in)) {
        __atomic_store_n(&in->busy, false, __ATOMIC_RELEASE);
    }
    return result;
}

static size_t take_buffered(PpWsgiInput *in, uint8_t *dst, size_t max)
{
    size_t n = in->end - in->start;
    n = n < max ? n : max;
    if (n > 0) {
        memcpy(dst, in->buf + in->start, n);
        in->start += n;
    }
    return n;
}

/* What is left of the file. */
static uint64_t file_left(const PpWsgiInput *in)
{
    return in->w != NULL ? in->file.spool->len - in->file_at : 0;
}

static Py_ssize_t fetch_file(PpWsgiInput *in, uint8_t *dst, size_t max)
{
    size_t got = 0;
    int rc;
    Py_BEGIN_ALLOW_THREADS;
    rc = pp_spool_read(in->file.spool, in->file_at, dst, max, &got);
    Py_END_ALLOW_THREADS;
    if (rc != PP_OK) {
        PyErr_SetString(PyExc_OSError, "reading the request body: its temporary file cannot be "
                                       "read, or this is a forked process");
        return -1;
    }
    in->file_at += got;
    in->eof = in->call == NULL && file_left(in) == 0;
    return (Py_ssize_t)got;
}

/* At least one byte into dst, or none at the end; -1 with an exception. */
static Py_ssize_t fetch(PpWsgiInput *in, uint8_t *dst, size_t max)
{
    if (in->eof || max == 0) {
        return 0;
    }
    if (file_left(in) > 0) {
        return fetch_file(in, dst, max);
    }
    if (in->rest_at < in->rest_len) {
        size_t left = in->rest_len - in->rest_at, n = left < max ? left : max;
        memcpy(dst, in->rest + in->rest_at, n);
        in->rest_at += n;
        return (Py_ssize_t)n;
    }
    struct pp_wsgi_op op = {.call = in->call, .kind = PP_WSGI_OP_READ, .dst = dst, .cap = max};
    pp_wsgi_op_run(&op);
    if (op.rc != PP_OK) {
        PyErr_Format(in->state->client_disconnected, "reading the request body: %s",
                     pp_err_text(op.rc));
        return -1;
    }
    in->eof = op.eof;
    return (Py_ssize_t)op.got;
}

/* More bytes into the empty buffer: 1, 0 at the end, -1 with an exception. */
static int refill(PpWsgiInput *in)
{
    if (in->eof) {
        return 0;
    }
    if (in->buf == NULL) {
        if ((in->buf = pp_mem_alloc(BUFFER_BYTES)) == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        in->cap = BUFFER_BYTES;
    }
    PP_ASSERT(in->start == in->end);
    in->start = in->end = 0;
    Py_ssize_t got = fetch(in, in->buf, in->cap);
    if (got > 0) {
        in->end = (size_t)got;
    }
    return got < 0 ? -1 : got > 0;
}

/* Up to max bytes into out, fewer only at the end. -1 with an exception. */
static Py_ssize_t fill(PpWsgiInput *in, uint8_t *out, size_t max)
{
    size_t n = take_buffered(in, out, max);
    while (n < max) {
        bool direct = max - n >= DIRECT_BYTES;
        Py_ssize_t got = direct ? fetch(in, out + n, max - n) : refill(in);
        if (got < 0) {
            return -1;
        }
        if (got == 0) {
            break;
        }
        n += direct ? (size_t)got : take_buffered(in, out + n, max - n);
    }
    return (Py_ssize_t)n;
}

/* Reads `size` bytes, or everything when it is negative. */
static PyObject *read_bytes(PpWsgiInput *in, Py_ssize_t size)
{
    size_t buffered = in->end - in->start;
    if (in->eof && buffered == 0) {
        return PyBytes_FromStringAndSize(NULL, 0);
    }
    if (in->eof) {
        size_t n = size < 0 || (size_t)size > buffered ? buffered : (size_t)size;
        PyObject *all = PyBytes_FromStringAndSize((char *)in->buf + in->start, (Py_ssize_t)n);
        in->start += all != NULL ? n : 0;
        return all;
    }
    /* A size may be a wild guess of the application: the result grows as bytes come. */
    Py_ssize_t room = (Py_ssize_t)(buffered + FIRST_BYTES), len = 0;
    if (in->call == NULL && file_left(in) < PY_SSIZE_T_MAX / 2) { /* all of it is here */
        room = (Py_ssize_t)(buffered + file_left(in));
    }
    if (size >= 0 && size < room) {
        room = size;
    }
    PyObject *result = PyBytes_FromStringAndSize(NULL, room);
    while (result != NULL) {
        Py_ssize_t got = fill(in, (uint8_t *)PyBytes_AS_STRING(result) + len, (size_t)(room - len));
        if (got < 0) {
            Py_CLEAR(result);
            break;
        }
        len += got;
        if (len < room || len == size || (in->eof && in->start == in->end)) {
            (void)_PyBytes_Resize(&result, len);
            break;
        }
        Py_ssize_t grow = room < GROW_BYTES_MAX ? room : GROW_BYTES_MAX;
        if (room > PY_SSIZE_T_MAX - grow) {
            Py_CLEAR(result);
            return PyErr_NoMemory();
        }
        room += grow;
        if (size >= 0 && room > size) {
            room = size;
        }
        (void)_PyBytes_Resize(&result, room);
    }
    return result;
}

/* A line with its end, at most `max` bytes of it. */
static PyObject *read_line(PpWsgiInput *in, size_t max)
{
    PyObject *line = NULL;
    Py_ssize_t len = 0, room = 0;
    bool whole = max == 0;
    while (!whole) {
        if (in->start == in->end) {
            int rc = refill(in);
            if (rc < 0) {
                Py_XDECREF(line);
                return NULL;
            }
            if (rc == 0) {
                break;
            }
        }
        size_t n = in->end - in->start;
        n = n < max - (size_t)len ? n : max - (size_t)len;
        const uint8_t *from = in->buf + in->start, *newline = memchr(from, '\n', n);
        if (newline != NULL) {
            n = (size_t)(newline - from) + 1;
        }
        if (room - len < (Py_ssize_t)n) {
            Py_ssize_t grown = len == 0 ? (Py_ssize_t)n : len * 2 + (Py_ssize_t)n;
            if (line == NULL) {
                line = PyBytes_FromStringAndSize(NULL, grown);
            } else {
                (void)_PyBytes_Resize(&line, grown);
            }
            if (line == NULL) {
                return NULL;
            }
            room = grown;
        }
        memcpy(PyBytes_AS_STRING(line) + len, from, n);
        in->start += n;
        len += (Py_ssize_t)n;
        whole = newline != NULL || (size_t)len == max;
    }
    if (line == NULL) {
        return PyBytes_FromStringAndSize(NULL, 0);
    }
    if (len < room) {
        (void)_PyBytes_Resize(&line, len);
    }
    return line;
}

/* ---- methods ---- */

/* The optional size argument; None and negative mean no limit: -1. -2 with an exception. */
static Py_ssize_t size_arg(const char *name, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs > 1) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most 1 argument (%zd given)", name, nargs);
        return -2;
    }
    if (nargs == 0 || args[0] == Py_None) {
        return -1;
    }
    Py_ssize_t size = PyNumber_AsSsize_t(args[0], PyExc_OverflowError);
    if (size == -1 && PyErr_Occurred()) {
        return -2;
    }
    return size < 0 ? -1 : size;
}

static PyObject *input_read(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    PpWsgiInput *in = (PpWsgiInput *)self;
    Py_ssize_t size = size_arg("read", args, nargs);
    if (size < -1 || enter(in) < 0) {
        return NULL;
    }
    return leave(in, read_bytes(in, size));
}

static PyObject *input_readline(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    PpWsgiInput *in = (PpWsgiInput *)self;
    Py_ssize_t size = size_arg("readline", args, nargs);
    if (size < -1 || enter(in) < 0) {
        return NULL;
    }
    return leave(in, read_line(in, size < 0 ? (size_t)PY_SSIZE_T_MAX : (size_t)size));
}

static PyObject *input_readlines(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    PpWsgiInput *in = (PpWsgiInput *)self;
    Py_ssize_t hint = size_arg("readlines", args, nargs), total = 0;
    if (hint < -1 || enter(in) < 0) {
        return NULL;
    }
    PyObject *lines = PyList_New(0);
    while (lines != NULL) {
        PyObject *line = read_line(in, (size_t)PY_SSIZE_T_MAX);
        Py_ssize_t len = line != NULL ? PyBytes_GET_SIZE(line) : 0;
        if (line == NULL || (len > 0 && PyList_Append(lines, line) < 0)) {
            Py_XDECREF(line);
            Py_CLEAR(lines);
            break;
        }
        Py_DECREF(line);
        total += len;
        if (len == 0 || (hint > 0 && total >= hint)) {
            break;
        }
    }
    return leave(in, lines);
}

static PyObject *input_next(PyObject *self)
{
    PpWsgiInput *in = (PpWsgiInput *)self;
    if (enter(in) < 0) {
        return NULL;
    }
    PyObject *line = read_line(in, (size_t)PY_SSIZE_T_MAX);
    if (line != NULL && PyBytes_GET_SIZE(line) == 0) {
        Py_CLEAR(line);
    }
    return leave(in, line);
}

static PyMethodDef input_methods[] = {
    {"read", (PyCFunction)(void (*)(void))input_read, METH_FASTCALL,
     PyDoc_STR("read(size=-1, /) -> bytes\n\nsize bytes of the request body, fewer only at its "
               "end; everything if size is negative.")},
    {"readline", (PyCFunction)(void (*)(void))input_readline, METH_FASTCALL,
     PyDoc_STR("readline(size=-1, /) -> bytes\n\nThe next line with its end.")},
    {"readlines", (PyCFunction)(void (*)(void))input_readlines, METH_FASTCALL,
     PyDoc_STR("readlines(hint=-1, /) -> list[bytes]\n\nThe remaining lines; not many more than "
               "hint bytes if it is positive.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot input_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("wsgi.input: the request body.")},
    {Py_tp_dealloc, input_dealloc},
    {Py_tp_traverse, input_traverse},
    {Py_tp_clear, input_clear},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, input_next},
    {Py_tp_methods, input_methods},
    {0, NULL},
};

PyType_Spec pp_wsgi_input_spec = {
    .name = "ppserver._native.WSGIInput",
    .basicsize = sizeof(PpWsgiInput),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = input_slots,
};
