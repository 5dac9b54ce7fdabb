/* start_response (PEP 3333): the call object, and the checks of what it is given.
 *
 * start_response and the write() that it returns are one object: none is made for each answer. */
#include "bridge/wsgi_start.h"
#include "bridge/lead.h"
#include "bridge/wsgi_head.h"
#include "bridge/wsgi_response.h"

#include <string.h>

#include "base/text.h"
#include "proto/h1_class.h"
#include "proto/h1_names.h"
#include "proto/h1_scan.h"

/* ---- the call object, which is start_response ---- */

static PyObject *start_response(PyObject *self, PyObject *const *args, size_t nargsf,
                                PyObject *kwnames);

PpWsgiCall *pp_wsgi_call_new(PpCore *core, struct pp_wsgi *w, struct pp_lead_worker *self,
                             struct pp_exchange *ex)
{
    PpWsgiCall *call = PyObject_GC_New(PpWsgiCall, core->state->wsgi_start_type);
    if (call == NULL) {
        return NULL;
    }
    /* Everything behind the object header but the inline fields, which come last. */
    memset(&call->vectorcall, 0,
           offsetof(PpWsgiCall, inline_fields) - offsetof(PpWsgiCall, vectorcall));
    call->vectorcall = start_response;
    call->core = (PpCore *)Py_NewRef((PyObject *)core);
    pp_lead_ref(&w->lead);
    call->w = w;
    call->worker = self;
    call->ex = ex;
    PyObject_GC_Track((PyObject *)call);
    return call;
}

static void drop_fields(PpWsgiCall *call)
{
    if (call->fields != NULL && call->fields != call->inline_fields) {
        PyMem_Free(call->fields);
    }
    call->fields = NULL;
    call->field_count = 0;
    PyObject *headers = call->headers;
    if (headers != NULL) { /* the leader may look whether there are any */
        __atomic_store_n(&call->headers, NULL, __ATOMIC_RELAXED);
        Py_DECREF(headers);
    }
    Py_CLEAR(call->status_text);
}

void pp_wsgi_call_spent(PpWsgiCall *call)
{
    if (Py_REFCNT((PyObject *)call) == 1) {
        drop_fields(call);
    }
}

static int call_traverse(PyObject *self, visitproc visit, void *arg)
{
    PpWsgiCall *call = (PpWsgiCall *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(call->core);
    Py_VISIT(call->headers);
    return 0;
}

static int call_clear(PyObject *self)
{
    drop_fields((PpWsgiCall *)self);
    return 0;
}

static void call_dealloc(PyObject *self)
{
    PpWsgiCall *call = (PpWsgiCall *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    PP_CHECK(call->ex == NULL);
    drop_fields(call);
    pp_lead_unref(&call->w->lead);
    Py_CLEAR(call->core);
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- checks ---- */

/* The bytes of a latin-1 text, borrowed from it; NULL with an exception. */
static const uint8_t *latin1_text(PyObject *text, const char *what, size_t *len)
{
    if (!PyUnicode_Check(text)) {
        PyErr_Format(PyExc_TypeError, "start_response: %s must be str, not %.100s", what,
                     Py_TYPE(text)->tp_name);
        return NULL;
    }
#if PY_VERSION_HEX < 0x030C0000
    if (PyUnicode_READY(text) < 0) {
        return NULL;
    }
#endif
    if (PyUnicode_KIND(text) != PyUnicode_1BYTE_KIND) {
        PyErr_Format(PyExc_ValueError, "start_response: %s has characters beyond latin-1: %.200R",
                     what, text);
        return NULL;
    }
    *len = (size_t)PyUnicode_GET_LENGTH(text);
    return PyUnicode_1BYTE_DATA(text);
}

static bool has_controls(const uint8_t *text, size_t len)
{
    return pp_h1_scan->value(text, len) != len;
}

static int check_status(PyObject *text, int *status)
{
    size_t len;
    const uint8_t *s = latin1_text(text, "status", &len);
    if (s == NULL) {
        return -1;
    }
    if (len < 3 || s[0] < '2' || s[0] > '9' || s[1] < '0' || s[1] > '9' || s[2] < '0' ||
        s[2] > '9' || (len > 3 && s[3] != ' ') || has_controls(s, len)) {
        PyErr_Format(PyExc_ValueError, "start_response: status must look like '200 OK', not %.200R",
                     text);
        return -1;
    }
    *status = (s[0] - '0') * 100 + (s[1] - '0') * 10 + (s[2] - '0');
    return 0;
}

/* What PEP 3333 forbids; but "Connection: close" is a wish that the server heeds. */
static bool is_hop_by_hop(const struct pp_out_field *f)
{
    enum pp_h1_hop hop = pp_h1_hop_of(f->name, f->name_len);
    return hop != PP_H1_HOP_NONE &&
           !(hop == PP_H1_HOP_CONNECTION && PP_H1_IS_WORD(f->value, f->value_len, "close"));
}

static int parse_length(const uint8_t *text, size_t len, uint64_t *length)
{
    if (!pp_text_decimal(text, len, length)) {
        PyErr_SetString(PyExc_ValueError, "start_response: Content-Length is not a number");
        return -1;
    }
    return 0;
}

static int check_field(PyObject *pair, struct pp_out_field *f)
{
    if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) {
        PyErr_Format(PyExc_TypeError,
                     "start_response: a header must be a (name, value) tuple, "
                     "not %.200R",
                     pair);
        return -1;
    }
    PyObject *name = PyTuple_GET_ITEM(pair, 0), *value = PyTuple_GET_ITEM(pair, 1);
    if ((f->name = latin1_text(name, "a header name", &f->name_len)) == NULL ||
        (f->value = latin1_text(value, "a header value", &f->value_len)) == NULL) {
        return -1;
    }
    if (f->name_len == 0 || pp_h1_scan->token(f->name, f->name_len) != f->name_len) {
        PyErr_Format(PyExc_ValueError, "start_response: not a header name: %.200R", name);
        return -1;
    }
    if (has_controls(f->value, f->value_len)) {
        PyErr_Format(PyExc_ValueError, "start_response: control characters in the value of %.200R",
                     name);
        return -1;
    }
    return 0;
}

/* A header that belongs to the server (PEP 3333) is left out, and told once for each application.
 * -1 with an exception. */
static int drop_field(PpWsgiCall *call, PyObject *pair)
{
    if (__atomic_exchange_n(&call->w->hop_by_hop_told, true, __ATOMIC_RELAXED)) {
        return 0;
    }
    PyObject *logging = PyImport_ImportModule("logging");
    PyObject *logger =
        logging != NULL ? PyObject_CallMethod(logging, "getLogger", "s", "ppserver.error") : NULL;
    PyObject *r = logger != NULL
                      ? PyObject_CallMethod(logger, "warning", "sO",
                                            "the application sets %s, a header that belongs to the "
                                            "server (PEP 3333): dropped, here and from now on",
                                            PyTuple_GET_ITEM(pair, 0))
                      : NULL;
    Py_XDECREF(logger);
    Py_XDECREF(logging);
    Py_XDECREF(r);
    return r != NULL ? 0 : -1;
}

/* ---- start_response ---- */

struct head {
    PyObject *headers; /* owned */
    struct pp_out_field *fields;
    size_t count;
    uint64_t length;
    int status;
    bool has_length;
};

static int check_headers(PpWsgiCall *call, PyObject *given, struct head *head)
{
    if (PyList_Check(given)) {
        head->headers = PyList_AsTuple(given);
    } else if (PyTuple_Check(given)) {
        head->headers = PyTuple_GetSlice(given, 0, PyTuple_GET_SIZE(given));
    } else {
        PyErr_Format(PyExc_TypeError, "start_response: headers must be a list, not %.100s",
                     Py_TYPE(given)->tp_name);
    }
    if (head->headers == NULL) {
        return -1;
    }
    size_t count = (size_t)PyTuple_GET_SIZE(head->headers);
    head->fields = call->inline_fields;
    if (count > PP_WSGI_FIELDS_INLINE) {
        head->fields = PyMem_Calloc(count, sizeof(*head->fields));
        if (head->fields == NULL) {
            PyErr_NoMemory();
            return -1;
        }
    }
    for (size_t i = 0; i < count; i++) {
        struct pp_out_field *f = &head->fields[head->count];
        PyObject *pair = PyTuple_GET_ITEM(head->headers, (Py_ssize_t)i);
        if (check_field(pair, f) < 0) {
            return -1;
        }
        if (is_hop_by_hop(f)) {
            if (drop_field(call, pair) < 0) {
                return -1;
            }
            continue;
        }
        head->count++;
        if (PP_H1_IS_WORD(f->name, f->name_len, "content-length")) {
            if (head->has_length) {
                PyErr_SetString(PyExc_ValueError, "start_response: Content-Length twice");
                return -1;
            }
            head->has_length = true;
            if (parse_length(f->value, f->value_len, &head->length) < 0) {
                return -1;
            }
        }
    }
    return 0;
}

/* The application has an exception to answer with: raises it if it is too late for that. */
static int check_exc_info(PpWsgiCall *call, PyObject *exc_info)
{
    if (!PyTuple_Check(exc_info) || PyTuple_GET_SIZE(exc_info) != 3) {
        PyErr_SetString(PyExc_TypeError, "start_response: exc_info must be a tuple of three");
        return -1;
    }
    if (pp_wsgi_head_keep(call)) {
        return 0;
    }
    PyObject *type = PyTuple_GET_ITEM(exc_info, 0), *value = PyTuple_GET_ITEM(exc_info, 1);
    PyObject *traceback = PyTuple_GET_ITEM(exc_info, 2);
    if (!PyExceptionClass_Check(type)) {
        PyErr_SetString(PyExc_TypeError, "start_response: exc_info has no exception");
        return -1;
    }
    PyErr_Restore(Py_NewRef(type), Py_NewRef(value),
                  PyTraceBack_Check(traceback) ? Py_NewRef(traceback) : NULL);
    return -1;
}

static int start(PpWsgiCall *call, PyObject *status, PyObject *headers, PyObject *exc_info)
{
    struct head head = {0};
    bool again = exc_info != NULL && exc_info != Py_None;
    if (__atomic_load_n(&call->ended, __ATOMIC_ACQUIRE)) {
        PyErr_SetString(PyExc_RuntimeError, "start_response() called after the request ended");
        return -1;
    }
    if (again) {
        if (check_exc_info(call, exc_info) < 0) {
            return -1;
        }
    } else if (call->headers != NULL) {
        if (PyBytes_Check(status)) {
            PyErr_SetString(PyExc_TypeError, "write() takes one argument");
        } else {
            PyErr_SetString(PyExc_AssertionError, "start_response() called twice without exc_info");
        }
        return -1;
    }
    drop_fields(call); /* from here on, a failure leaves no head: the answer is a 500 */
    if (check_status(status, &head.status) < 0 || check_headers(call, headers, &head) < 0) {
        if (head.fields != call->inline_fields) {
            PyMem_Free(head.fields);
        }
        Py_XDECREF(head.headers);
        return -1;
    }
    call->status_text = Py_NewRef(status);
    call->status = head.status;
    call->fields = head.fields;
    call->field_count = head.count;
    call->has_length = head.has_length;
    call->length = head.length;
    __atomic_store_n(&call->headers, head.headers, __ATOMIC_RELEASE);
    if (again) {
        pp_wsgi_head_reopen(call);
    }
    return 0;
}

/* exc_info: NULL if not given. -1 with an exception. */
static int start_args(PpWsgiCall *call, Py_ssize_t nargs, PyObject *const *args, PyObject *kwnames,
                      PyObject **exc_info)
{
    Py_ssize_t named = kwnames != NULL ? PyTuple_GET_SIZE(kwnames) : 0;
    bool fits = (nargs == 2 && named <= 1) || (nargs == 3 && named == 0);
    if (fits && named == 1) {
        int same = PyUnicode_Compare(PyTuple_GET_ITEM(kwnames, 0), call->w->k.exc_info);
        fits = same == 0 && !PyErr_Occurred();
    }
    if (!fits && !PyErr_Occurred()) {
        PyErr_SetString(PyExc_TypeError, "expected start_response(status, headers[, exc_info])");
    }
    *exc_info = fits && nargs + named == 3 ? args[2] : NULL;
    return fits ? 0 : -1;
}

static PyObject *start_response(PyObject *self, PyObject *const *args, size_t nargsf,
                                PyObject *kwnames)
{
    PpWsgiCall *call = (PpWsgiCall *)self;
    Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);
    PyObject *exc_info;
    if (nargs == 1 && kwnames == NULL) {
        return pp_wsgi_write(call, args[0]);
    }
    if (start_args(call, nargs, args, kwnames, &exc_info) < 0 || !pp_wsgi_busy_enter(call)) {
        return NULL;
    }
    int rc = start(call, args[0], args[1], exc_info);
    pp_wsgi_busy_leave(call);
    return rc < 0 ? NULL : Py_NewRef(self);
}

/* ---- type ---- */

static PyMemberDef call_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(PpWsgiCall, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot call_slots[] = {
    {Py_tp_doc,
     (void *)PyDoc_STR("start_response(status, headers, exc_info=None) -> write; write(data)")},
    {Py_tp_dealloc, call_dealloc},
    {Py_tp_traverse, call_traverse},
    {Py_tp_clear, call_clear},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, call_members},
    {0, NULL},
};

PyType_Spec pp_wsgi_start_spec = {
    .name = "ppserver._native.StartResponse",
    .basicsize = sizeof(PpWsgiCall),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
             Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = call_slots,
};
