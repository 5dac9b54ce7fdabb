/* The table of protocols that parallel.c serves, made once from what contrib/parallel/protocol.py
 * has found out about them. */
#include "bridge/parallel.h"

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

static int add_protocol(struct pp_par *par, struct pp_par_protocol *p, PyObject *entry)
{
    PyObject *maker, *parent, *initial, *next, *callbacks, *routes;
    if (!PyTuple_Check(entry)) {
        PyErr_SetString(PyExc_TypeError, "protocols: expected tuples");
        return -1;
    }
    if (!PyArg_ParseTuple(entry, "OOppppppIIIbbOiOiO!O!:protocol", &maker, &parent, &p->is_class,
                          &p->raw, &p->line_mode, &p->wait_for_eol, &p->low_latency,
                          &p->concurrency, &p->line_max, &p->rate_limit, &p->idle_ms,
                          &p->receive_again, &p->send_again, &initial, &p->initial.args, &next,
                          &p->next.args, &PyTuple_Type, &callbacks, &PyTuple_Type, &routes)) {
        return -1;
    }
    p->maker = Py_NewRef(maker);
    p->parent = Py_NewRef(parent);
    p->initial.constant = PyBytes_Check(initial) ? Py_NewRef(initial) : NULL;
    p->next.constant = PyBytes_Check(next) ? Py_NewRef(next) : NULL;
    for (int i = 0; i < PP_PAR_CALLBACK_COUNT; i++) {
        int has = PySequence_Contains(callbacks, par->names[i]);
        if (has < 0) {
            return -1;
        }
        p->has[i] = has;
    }
    return add_routes(p, routes);
}

struct pp_par *pp_par_new(PyObject *protocols)
{
    Py_ssize_t count = PyTuple_GET_SIZE(protocols);
    if (count < 1 || count > PP_PAR_PROTOCOLS_MAX) {
        PyErr_Format(PyExc_ValueError, "protocols: expected 1 to %d", PP_PAR_PROTOCOLS_MAX);
        return NULL;
    }
    struct pp_par *par = PyMem_Calloc(1, sizeof(*par));
    if (par == NULL ||
        (par->protocols = PyMem_Calloc((size_t)count, sizeof(*par->protocols))) == NULL) {
        PyMem_Free(par);
        PyErr_NoMemory();
        return NULL;
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
    if (!whole) {
        pp_par_free(par);
        return NULL;
    }
    return par;
}

void pp_par_free(struct pp_par *par)
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
    PyMem_Free(par);
}

int pp_par_visit(struct pp_par *par, visitproc visit, void *arg)
{
    for (uint32_t i = 0; i < par->count; i++) {
        Py_VISIT(par->protocols[i].maker);
        Py_VISIT(par->protocols[i].parent);
    }
    Py_VISIT(par->dumps);
    return 0;
}
