/* The Transport type: a connection as protocols of the parallel API see it.
 *
 * Its methods may be called from any thread: from its own callbacks they note down what is to be
 * done once these are over, from elsewhere they ask the leader. What it does not know itself it has
 * from its parent, the transport of the server. */
#include "bridge/transport_type.h"
#include "bridge/lead.h"
#include "bridge/lead_word.h"
#include "bridge/parallel_base.h"
#include "bridge/parallel_http11.h"
#include "bridge/parallel_run.h"
#include "bridge/transport.h"

#include <string.h>

/* ---- methods ---- */

/* Whether the calling thread is the one that runs its callbacks. */
static bool in_callback(PpTransport *t)
{
    struct pp_lead_worker *worker = __atomic_load_n(&t->worker, __ATOMIC_RELAXED);
    return worker != NULL && worker == pp_lead_self();
}

static bool apply_close(struct pp_lead_op *op)
{
    pp_par_close((PpTransport *)PP_CONTAINER(op, struct pp_lead_errand, op)->object);
    return true;
}

static PyObject *transport_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PpTransport *t = (PpTransport *)self;
    struct pp_lead_worker *worker = pp_lead_self();
    if (in_callback(t)) {
        t->closing = true;
    } else if (worker != NULL && worker->lead == &t->par->lead && pp_lead_enter(worker)) {
        pp_par_close(t);
        pp_lead_exit(worker);
    } else {
        if (pp_lead_send(&t->par->lead, self, apply_close) < 0) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

/* before and after of sendfile: bytes-like, str or None. */
static int push_around(PpTransport *t, PyObject *given)
{
    if (given == Py_None) {
        return 0;
    }
    PyObject *bytes = pp_transport_bytes_of(Py_NewRef(given));
    return bytes == NULL ? -1 : pp_transport_push(t, bytes);
}

/* Opens the file, without the GIL; NULL with an OSError that names it. */
static struct pp_file *open_file(PyObject *path, uint64_t *size)
{
    const char *name = PyBytes_AS_STRING(path);
    struct pp_file *file;
    int problem;
    Py_BEGIN_ALLOW_THREADS;
    file = pp_file_open(name, size);
    problem = errno;
    Py_END_ALLOW_THREADS;
    if (file == NULL) {
        errno = problem;
        PyErr_SetFromErrnoWithFilename(PyExc_OSError, name);
    }
    return file;
}

/* count < 0: up to the end of the file. */
static PyObject *send_range(PpTransport *t, PyObject *before, PyObject *path, PyObject *after,
                            uint64_t at, long long count)
{
    uint64_t size = 0;
    if (!in_callback(t) || !t->protocol->raw) {
        PyErr_SetString(PyExc_RuntimeError,
                        "sendfile: only within a callback of the transport's own protocol, and "
                        "not of an http11 one");
        return NULL;
    }
    struct pp_file *file = open_file(path, &size);
    if (file == NULL) {
        return NULL;
    }
    uint64_t len = count < 0 ? (at < size ? size - at : 0) : (uint64_t)count;
    if (at > size || len > size - at) {
        PyErr_Format(PyExc_ValueError, "sendfile: the file has %llu bytes",
                     (unsigned long long)size);
        pp_file_unref(file);
        return NULL;
    }
    if (push_around(t, before) < 0) {
        pp_file_unref(file);
        return NULL;
    }
    if (len == 0) {
        pp_file_unref(file);
    } else if (pp_transport_push_file(t, file, at, len) < 0) {
        pp_file_unref(file);
        return NULL;
    }
    if (push_around(t, after) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *transport_sendfile(PyObject *self, PyObject *args)
{
    PyObject *before, *path = NULL, *after;
    if (!PyArg_ParseTuple(args, "OO&O:sendfile", &before, PyUnicode_FSConverter, &path, &after)) {
        return NULL;
    }
    PyObject *r = send_range((PpTransport *)self, before, path, after, 0, -1);
    Py_DECREF(path);
    return r;
}

static PyObject *transport_sendfile_ranged(PyObject *self, PyObject *args)
{
    PyObject *before, *path = NULL, *after;
    long long offset, count;
    if (!PyArg_ParseTuple(args, "OO&OLL:sendfile_ranged", &before, PyUnicode_FSConverter, &path,
                          &after, &offset, &count)) {
        return NULL;
    }
    PyObject *r = NULL;
    if (offset < 0 || count < 0) {
        PyErr_SetString(PyExc_ValueError, "sendfile_ranged: offset and num_bytes are not negative");
    } else {
        r = send_range((PpTransport *)self, before, path, after, (uint64_t)offset, count);
    }
    Py_DECREF(path);
    return r;
}

static PyObject *transport_elapsed(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PpTransport *t = (PpTransport *)self;
    return PyFloat_FromDouble((double)(pp_loop_clock_us() - t->began_us) / 1e6);
}

static PyObject *transport_next_send_id(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PpTransport *t = (PpTransport *)self;
    return PyLong_FromUnsignedLongLong(__atomic_load_n(&t->send_id, __ATOMIC_RELAXED) + 1);
}

static PyObject *transport_shutdown_server(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PpTransport *t = (PpTransport *)self;
    return PyObject_CallMethod(t->protocol->parent, "shutdown_server", NULL);
}

static PyObject *transport_getattro(PyObject *self, PyObject *name)
{
    PyObject *found = PyObject_GenericGetAttr(self, name);
    PyObject *parent = ((PpTransport *)self)->protocol->parent;
    if (found == NULL && parent != Py_None && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyObject *exc = PyErr_GetRaisedException();
        Py_ssize_t len = PyUnicode_Check(name) ? PyUnicode_GET_LENGTH(name) : 0;
        if (len == 0 || PyUnicode_READ_CHAR(name, 0) == '_') {
            PyErr_SetRaisedException(exc);
            return NULL;
        }
        found = PyObject_GetAttr(parent, name);
        Py_DECREF(exc);
    }
    return found;
}

static PyObject *transport_repr(PyObject *self)
{
    PpTransport *t = (PpTransport *)self;
    return PyUnicode_FromFormat("<parallel transport of %U:%d>", t->ip, t->port);
}

/* ---- attributes ---- */

/* X(attribute, field, text): counters. */
#define PP_TRANSPORT_COUNTERS(X) \
    X(send_id, send_id, "Number of the last piece that was given to be sent; 0 before.") \
    X(recv_id, recv_id, "Number of the last piece, or request, that came; 0 before.") \
    X(total_bytes_sent, sent, "Bytes given to be sent.") \
    X(total_bytes_received, received, "Bytes that came, without those of HTTP requests.") \
    X(num_bytes_just_sent, just_sent, "Bytes of the last piece given to be sent.") \
    X(num_bytes_just_received, just_received, "Bytes of the last piece that came.")

#define PP_COUNTER_(name, field, text) \
    static PyObject *get_##name(PyObject *self, void *Py_UNUSED(closure)) \
    { \
        return PyLong_FromUnsignedLongLong( \
            __atomic_load_n(&((PpTransport *)self)->field, __ATOMIC_RELAXED)); \
    }
PP_TRANSPORT_COUNTERS(PP_COUNTER_)
#undef PP_COUNTER_

static PyObject *get_ip(PyObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(((PpTransport *)self)->ip);
}

static PyObject *get_port(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(((PpTransport *)self)->port);
}

static PyObject *get_sock_family(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(((PpTransport *)self)->family);
}

struct head_op {
    struct pp_lead_op op;   /* first */
    PpTransport *transport; /* borrowed from who waits */
    uint8_t *copy;          /* out: pp_par_head */
    size_t len;
};

static bool apply_head(struct pp_lead_op *asked)
{
    struct head_op *op = PP_CONTAINER(asked, struct head_op, op);
    op->copy = pp_par_head(op->transport, &op->len);
    return true;
}

/* Only its own callbacks can ask: elsewhere the request may be over at any moment. */
static PyObject *get_http_header(PyObject *self, void *Py_UNUSED(closure))
{
    PpTransport *t = (PpTransport *)self;
    struct head_op op = {.op.apply = apply_head, .transport = t};
    if (t->protocol->raw || !in_callback(t)) {
        return Py_NewRef(Py_None);
    }
    struct pp_lead_worker *worker = pp_lead_self();
    if (pp_lead_enter(worker)) {
        (void)apply_head(&op.op);
        pp_lead_exit(worker);
    } else {
        (void)pp_lead_ask(&t->par->lead, &op.op);
    }
    if (op.copy == NULL) {
        return op.len > 0 ? PyErr_NoMemory() : Py_NewRef(Py_None);
    }
    PyObject *head = PyBytes_FromStringAndSize((const char *)op.copy, (Py_ssize_t)op.len);
    pp_mem_free(op.copy, op.len);
    return head;
}

static PyObject *get_stopwatch_frequency(PyObject *Py_UNUSED(self), void *Py_UNUSED(closure))
{
    return PyLong_FromLong(1000000);
}

static PyObject *get_stopwatch_start(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(((PpTransport *)self)->began_us);
}

static PyObject *get_stopwatch_stop(PyObject *Py_UNUSED(self), void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(pp_loop_clock_us());
}

static PyObject *get_stopwatch_elapsed(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(pp_loop_clock_us() - ((PpTransport *)self)->began_us);
}

static PyObject *get_sock_type(PyObject *Py_UNUSED(self), void *Py_UNUSED(closure))
{
    return PyLong_FromLong(SOCK_STREAM);
}

static PyObject *get_sock_proto(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(((PpTransport *)self)->family == AF_UNIX ? 0 : IPPROTO_TCP);
}

static PyObject *get_parent(PyObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(((PpTransport *)self)->protocol->parent);
}

static PyObject *get_protocol(PyObject *self, void *Py_UNUSED(closure))
{
    PpTransport *t = (PpTransport *)self;
    return Py_NewRef(t->handler != NULL ? t->handler : Py_None);
}

static PyMethodDef transport_methods[] = {
    {"close", transport_close, METH_NOARGS,
     PyDoc_STR("close()\n\nClose the connection once everything given to be sent is sent. From "
               "any thread.")},
    {"shutdown", transport_close, METH_NOARGS, PyDoc_STR("shutdown()\n\nAs close().")},
    {"sendfile", transport_sendfile, METH_VARARGS,
     PyDoc_STR("sendfile(before, path, after)\n\nSend bytes (or None), a whole file, and bytes (or "
               "None), after what was given to be sent before. The file goes from the page cache "
               "to the socket; what of it is not there is read by other threads first. Only within "
               "a callback. Raises OSError if it cannot be opened or is no regular file.")},
    {"sendfile_ranged", transport_sendfile_ranged, METH_VARARGS,
     PyDoc_STR("sendfile_ranged(before, path, after, offset, num_bytes)\n\nAs sendfile(), "
               "num_bytes of the file from offset on. Raises ValueError if it has fewer.")},
    {"elapsed", transport_elapsed, METH_NOARGS,
     PyDoc_STR("elapsed() -> float\n\nSeconds since the connection began.")},
    {"next_send_id", transport_next_send_id, METH_NOARGS,
     PyDoc_STR("next_send_id() -> int\n\nNumber of the next piece to be sent.")},
    {"shutdown_server", transport_shutdown_server, METH_NOARGS,
     PyDoc_STR("shutdown_server()\n\nEnd the whole server gracefully, as SIGTERM does.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef transport_getset[] = {
#define PP_GETSET_(name, field, text) {#name, get_##name, NULL, PyDoc_STR(text), NULL},
    PP_TRANSPORT_COUNTERS(PP_GETSET_)
#undef PP_GETSET_
        {"ip", get_ip, NULL, PyDoc_STR("The peer's address as text; \"\" for a Unix socket."),
         NULL},
    {"host", get_ip, NULL, PyDoc_STR("As ip: no name is looked up."), NULL},
    {"port", get_port, NULL, PyDoc_STR("The peer's port; 0 for a Unix socket."), NULL},
    {"sock_family", get_sock_family, NULL, PyDoc_STR("Address family, as in module socket."), NULL},
    {"sock_type", get_sock_type, NULL, PyDoc_STR("Socket type: SOCK_STREAM."), NULL},
    {"sock_proto", get_sock_proto, NULL, PyDoc_STR("Protocol number of the socket."), NULL},
    {"http_header", get_http_header, NULL,
     PyDoc_STR("Within a method of an http11 protocol: the request's head, bytes, its names in "
               "lower case. Elsewhere None."),
     NULL},
    {"stopwatch_frequency", get_stopwatch_frequency, NULL,
     PyDoc_STR("1,000,000: the stopwatch counts microseconds."), NULL},
    {"stopwatch_start", get_stopwatch_start, NULL, PyDoc_STR("When the connection began."), NULL},
    {"stopwatch_stop", get_stopwatch_stop, NULL, PyDoc_STR("Now."), NULL},
    {"stopwatch_elapsed", get_stopwatch_elapsed, NULL, PyDoc_STR("Since the connection began."),
     NULL},
    {"parent", get_parent, NULL, PyDoc_STR("The server's transport."), NULL},
    {"protocol", get_protocol, NULL, PyDoc_STR("The protocol object that serves it."), NULL},
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef transport_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(PpTransport, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(PpTransport, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot transport_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("One connection of a protocol of the parallel API.")},
    {Py_tp_dealloc, pp_transport_dealloc},
    {Py_tp_traverse, pp_transport_traverse},
    {Py_tp_clear, pp_transport_clear},
    {Py_tp_getattro, transport_getattro},
    {Py_tp_setattro, PyObject_GenericSetAttr},
    {Py_tp_repr, transport_repr},
    {Py_tp_methods, transport_methods},
    {Py_tp_getset, transport_getset},
    {Py_tp_members, transport_members},
    {0, NULL},
};

PyType_Spec pp_transport_spec = {
    .name = "ppserver._native.Transport",
    .basicsize = sizeof(PpTransport),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = transport_slots,
};
