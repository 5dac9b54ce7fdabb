/* The table of protocols that a context serves, made once from what contrib/parallel/protocol.py
 * has found out about them. */
#include "bridge/parallel_protocols.h"

#include <string.h>

static const char *const callback_names[] = {
#define PP_NAME_(name) #name,
    PP_PAR_CALLBACKS(PP_NAME_)
#undef PP_NAME_
};

static uint32_t hash_of(const char *text, size_t len)
{
    uint32_t hash = 2166136261u; /* FNV-1a: the names are the application's own, not a peer's */
    for (size_t i = 0; i < len; i++) {
        hash = (hash ^ (uint8_t)text[i]) * 16777619u;
    }
    return hash;
}

static int add_routes(struct pp_par_protocol *p, PyObject *names)
{
    size_t count = (size_t)PyTuple_GET_SIZE(names), slots = 8;
    while (slots < 2 * count) {
        slots *= 2;
    }
    p->routes = PyMem_Calloc(slots, sizeof(*p->routes));
    if (p->routes == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    p->route_mask = slots - 1;
    for (size_t i = 0; i < count; i++) {
        PyObject *name = PyTuple_GET_ITEM(names, (Py_ssize_t)i);
        Py_ssize_t len;
        const char *text = PyUnicode_Check(name) ? PyUnicode_AsUTF8AndSize(name, &len) : NULL;
        if (text == NULL) {
            PyErr_SetString(PyExc_TypeError, "routes: expected str");
            return -1;
        }
        size_t at = hash_of(text, (size_t)len) & p->route_mask;
        while (p->routes[at] != NULL) {
            at = (at + 1) & p->route_mask;
        }
        p->routes[at] = Py_NewRef(name);
    }
    return 0;
}

PyObject *pp_par_route(const struct pp_par_protocol *p, const char *path, size_t len)
{
    if (len < 2 || path[0] != '/' || p->routes == NULL) {
        return NULL;
    }
    const char *end = memchr(path + 1, '/', len - 1);
    size_t n = end != NULL ? (size_t)(end - path) - 1 : len - 1;
    for (size_t at = hash_of(path + 1, n) & p->route_mask; p->routes[at] != NULL;
         at = (at + 1) & p->route_mask) {
        Py_ssize_t have;
        const char *text = PyUnicode_AsUTF8AndSize(p->routes[at], &have); /* cached: add_routes */
        if (text != NULL && (size_t)have == n && memcmp(text, path + 1, n) == 0) {
            return p->routes[at];
        }
    }
    return NULL;
}

/* ---- a description: a dict with one item for each row, `callbacks` and `routes` ---- */

enum field_kind {
    FIELD_OBJECT, /* PyObject *: any object */
    FIELD_BYTES,  /* PyObject *: bytes, else NULL */
    FIELD_TRUTH,  /* int: 0 or 1 */
    FIELD_NUMBER, /* unsigned */
    FIELD_TIMES,  /* unsigned char */
    FIELD_ARGS    /* int: from -1 on */
};

static const struct field {
    const char *name;
    enum field_kind kind;
    size_t offset; /* in struct pp_par_protocol */
} fields[] = {
#define ROW(name, kind, field) {name, FIELD_##kind, offsetof(struct pp_par_protocol, field)}
    ROW("maker", OBJECT, maker),
    ROW("parent", OBJECT, parent),
    ROW("is_class", TRUTH, is_class),
    ROW("raw", TRUTH, raw),
    ROW("line_mode", TRUTH, line_mode),
    ROW("wait_for_eol", TRUTH, wait_for_eol),
    ROW("low_latency", TRUTH, low_latency),
    ROW("concurrency", TRUTH, concurrency),
    ROW("line_max", NUMBER, line_max),
    ROW("rate_limit", NUMBER, rate_limit),
    ROW("idle_ms", NUMBER, idle_ms),
    ROW("receive_again", TIMES, receive_again),
    ROW("send_again", TIMES, send_again),
    ROW("initial", BYTES, initial.constant),
    ROW("initial_args", ARGS, initial.args),
    ROW("next", BYTES, next.constant),
    ROW("next_args", ARGS, next.args),
#undef ROW
};

/* The number of a row, from low to high; -1 with an exception is outside of them. */
static long long number_of(const char *name, PyObject *value, long long low, long long high)
{
    int overflow = 0;
    long long number = PyLong_Check(value) ? PyLong_AsLongLongAndOverflow(value, &overflow) : low;
    if (!PyLong_Check(value) || overflow != 0 || number < low || number > high) {
        PyErr_Format(PyLong_Check(value) ? PyExc_ValueError : PyExc_TypeError,
                     "protocols: %s: expected an int from %lld to %lld, got %R", name, low, high,
                     value);
        return low - 1;
    }
    return number;
}

static int take_field(const struct field *f, struct pp_par_protocol *p, PyObject *value)
{
    void *at = (char *)p + f->offset;
    long long number;
    int truth;
    switch (f->kind) {
    case FIELD_OBJECT:
        *(PyObject **)at = Py_NewRef(value);
        return 0;
    case FIELD_BYTES:
        *(PyObject **)at = PyBytes_Check(value) ? Py_NewRef(value) : NULL;
        return 0;
    case FIELD_TRUTH:
        truth = PyObject_IsTrue(value);
        *(int *)at = truth > 0;
        return truth < 0 ? -1 : 0;
    case FIELD_NUMBER:
        number = number_of(f->name, value, 0, INT32_MAX);
        *(unsigned *)at = number < 0 ? 0 : (unsigned)number;
        return number < 0 ? -1 : 0;
    case FIELD_TIMES:
        number = number_of(f->name, value, 0, UINT8_MAX);
        *(unsigned char *)at = number < 0 ? 0 : (unsigned char)number;
        return number < 0 ? -1 : 0;
    case FIELD_ARGS:
        number = number_of(f->name, value, -1, 1);
        *(int *)at = number < -1 ? -1 : (int)number;
        return number < -1 ? -1 : 0;
    }
    PP_CHECK(false);
    return -1;
}

/* New reference; NULL with an exception. */
static PyObject *item_of(PyObject *entry, const char *name)
{
    PyObject *key = PyUnicode_FromString(name), *value = NULL;
    if (key != NULL && PyDict_GetItemRef(entry, key, &value) == 0) {
        PyErr_Format(PyExc_TypeError, "protocols: a description without '%s'", name);
    }
    Py_XDECREF(key);
    return value;
}

static PyObject *tuple_of(PyObject *entry, const char *name)
{
    PyObject *value = item_of(entry, name);
    if (value != NULL && !PyTuple_Check(value)) {
        PyErr_Format(PyExc_TypeError, "protocols: %s: expected a tuple, got %.100s", name,
                     Py_TYPE(value)->tp_name);
        Py_CLEAR(value);
    }
    return value;
}

static int add_callbacks(struct pp_par *par, struct pp_par_protocol *p, PyObject *callbacks)
{
    for (int i = 0; i < PP_PAR_CALLBACK_COUNT; i++) {
        int has = PySequence_Contains(callbacks, par->names[i]);
        if (has < 0) {
            return -1;
        }
        p->has[i] = has;
    }
    return 0;
}

static int add_protocol(struct pp_par *par, struct pp_par_protocol *p, PyObject *entry)
{
    if (!PyDict_Check(entry)) {
        PyErr_SetString(PyExc_TypeError, "protocols: expected dicts");
        return -1;
    }
    for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
        PyObject *value = item_of(entry, fields[i].name);
        int rc = value != NULL ? take_field(&fields[i], p, value) : -1;
        Py_XDECREF(value);
        if (rc < 0) {
            return -1;
        }
    }
    PyObject *callbacks = tuple_of(entry, "callbacks");
    PyObject *routes = callbacks != NULL ? tuple_of(entry, "routes") : NULL;
    int rc = routes != NULL ? add_callbacks(par, p, callbacks) : -1;
    if (rc == 0) {
        rc = add_routes(p, routes);
    }
    Py_XDECREF(callbacks);
    Py_XDECREF(routes);
    return rc;
}

int pp_par_protocols_init(struct pp_par *par, PyObject *protocols)
{
    Py_ssize_t count = PyTuple_GET_SIZE(protocols);
    if (count < 1 || count > PP_PAR_PROTOCOLS_MAX) {
        PyErr_Format(PyExc_ValueError, "protocols: expected 1 to %d", PP_PAR_PROTOCOLS_MAX);
        return -1;
    }
    par->protocols = PyMem_Calloc((size_t)count, sizeof(*par->protocols));
    if (par->protocols == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    PyObject *json = NULL;
    par->count = (uint32_t)count;
    bool whole = (par->initial = PyUnicode_InternFromString("initial_bytes_to_send")) != NULL &&
                 (par->next = PyUnicode_InternFromString("next_bytes_to_send")) != NULL &&
                 (par->recv = PyUnicode_InternFromString("recv")) != NULL &&
                 (par->close = PyUnicode_InternFromString("close")) != NULL &&
                 (json = PyImport_ImportModule("json")) != NULL &&
                 (par->dumps = PyObject_GetAttrString(json, "dumps")) != NULL;
    Py_XDECREF(json);
    for (int i = 0; whole && i < PP_PAR_CALLBACK_COUNT; i++) {
        whole = (par->names[i] = PyUnicode_InternFromString(callback_names[i])) != NULL;
    }
    for (Py_ssize_t i = 0; whole && i < count; i++) {
        whole = add_protocol(par, &par->protocols[i], PyTuple_GET_ITEM(protocols, i)) == 0;
    }
    return whole ? 0 : -1;
}

void pp_par_protocols_fini(struct pp_par *par)
{
    for (uint32_t i = 0; i < par->count; i++) {
        struct pp_par_protocol *p = &par->protocols[i];
        Py_CLEAR(p->maker);
        Py_CLEAR(p->parent);
        Py_CLEAR(p->initial.constant);
        Py_CLEAR(p->next.constant);
        for (size_t at = 0; p->routes != NULL && at <= p->route_mask; at++) {
            Py_CLEAR(p->routes[at]);
        }
        PyMem_Free(p->routes);
    }
    for (int i = 0; i < PP_PAR_CALLBACK_COUNT; i++) {
        Py_CLEAR(par->names[i]);
    }
    Py_CLEAR(par->initial);
    Py_CLEAR(par->next);
    Py_CLEAR(par->recv);
    Py_CLEAR(par->close);
    Py_CLEAR(par->dumps);
    PyMem_Free(par->protocols);
}

int pp_par_protocols_visit(struct pp_par *par, visitproc visit, void *arg)
{
    for (uint32_t i = 0; i < par->count; i++) {
        Py_VISIT(par->protocols[i].maker);
        Py_VISIT(par->protocols[i].parent);
    }
    Py_VISIT(par->dumps);
    return 0;
}
