/* What freezing knows of types: which instances are left alone, what tp_traverse leaves out, how
 * much memory an object takes.
 *
 * tp_traverse is made for the collector, so it skips what cannot be part of a cycle: strings that
 * are keys of a dict, names of types, whatever a code object holds. The collector does not need
 * them, but every context counts references to them. All of this runs while no other Python code
 * does, calls none, and allocates nothing from the interpreter. */
#include "bridge/freeze_types.h"
#include "bridge/freeze_header.h"

#include <string.h>

#define HASH_BYTES_MAX 65536 /* longer strings are not filled in: they are seldom keys */

#ifdef Py_GIL_DISABLED
#define GC_HEAD_BYTES 0
#else
#define GC_HEAD_BYTES (2 * sizeof(void *))
#endif

/* Instances that live through their references: dropping the last one closes, ends or wakes
 * something, or they belong to one thread's running code. Whatever has a finaliser is among them:
 * files, sockets, generators, coroutines, tasks, futures, loops. */
static bool is_live(PyTypeObject *type, PyObject *live)
{
    if (type->tp_finalize != NULL || type->tp_del != NULL) {
        return true;
    }
    if (type == &PyFrame_Type || type == &PyTraceBack_Type || type == &PyContext_Type ||
        type == &PyContextToken_Type || type == &_PyWeakref_ProxyType ||
        type == &_PyWeakref_CallableProxyType || PyType_IsSubtype(type, &_PyWeakref_RefType)) {
        return true;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(live); i++) {
        if (PyType_IsSubtype(type, (PyTypeObject *)PyTuple_GET_ITEM(live, i))) {
            return true;
        }
    }
    return false;
}

enum pp_freeze_kind pp_freeze_kind_of(PyTypeObject *type, PyObject *live, PyObject *expand)
{
    if (PyType_FastSubclass(type, Py_TPFLAGS_TYPE_SUBCLASS)) {
        return PP_FREEZE_TYPE;
    }
    if (is_live(type, live)) {
        return PP_FREEZE_LIVE;
    }
    if (PyType_FastSubclass(type, Py_TPFLAGS_DICT_SUBCLASS)) {
        return PP_FREEZE_DICT;
    }
#if PY_VERSION_HEX >= 0x030F0000
    if (PyType_IsSubtype(type, &PyFrozenDict_Type)) {
        return PP_FREEZE_DICT;
    }
#endif
    if (type == &PyUnicode_Type) {
        return PP_FREEZE_STR;
    }
    if (type == &PyCode_Type) {
        return PP_FREEZE_CODE;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(expand); i++) {
        if (PyType_IsSubtype(type, (PyTypeObject *)PyTuple_GET_ITEM(expand, i))) {
            return PP_FREEZE_EXPAND;
        }
    }
    return PyType_IS_GC(type) && type->tp_traverse != NULL ? PP_FREEZE_GC : PP_FREEZE_LEAF;
}

#define VISIT(field) \
    do { \
        PyObject *field_ = (PyObject *)(field); \
        if (field_ != NULL) { \
            int visited_ = visit(field_, arg); \
            if (visited_ != 0) { \
                return visited_; \
            } \
        } \
    } while (0)

static int traverse(PyObject *op, visitproc visit, void *arg)
{
    traverseproc traverse_type = Py_TYPE(op)->tp_traverse;
    return traverse_type != NULL && PyObject_IS_GC(op) ? traverse_type(op, visit, arg) : 0;
}

static int visit_dict(PyObject *op, visitproc visit, void *arg)
{
    PyObject *key, *value;
    Py_ssize_t pos = 0;
    while (PyDict_Next(op, &pos, &key, &value)) {
        VISIT(key);
        VISIT(value);
    }
    /* A subclass may have attributes, too. */
    return PyDict_CheckExact(op) ? 0 : traverse(op, visit, arg);
}

static int visit_static_type(PyTypeObject *type, visitproc visit, void *arg)
{
#if PY_VERSION_HEX >= 0x030C0000
    PyObject *dict = PyType_GetDict(type); /* of the interpreter, for a builtin type */
    if (dict != NULL) {
        int visited = visit(dict, arg);
        Py_DECREF(dict);
        if (visited != 0) {
            return visited;
        }
    }
#else
    VISIT(type->tp_dict);
#endif
    VISIT(type->tp_bases);
    VISIT(type->tp_mro);
    VISIT(type->tp_base);
    return 0;
}

/* The collector's type_traverse insists on heap types. */
static int visit_type(PyObject *op, visitproc visit, void *arg)
{
    PyTypeObject *type = (PyTypeObject *)op;
    if ((type->tp_flags & Py_TPFLAGS_HEAPTYPE) == 0) {
        return visit_static_type(type, visit, arg);
    }
    PyHeapTypeObject *heap = (PyHeapTypeObject *)op;
    VISIT(heap->ht_name);
    VISIT(heap->ht_qualname);
    VISIT(heap->ht_slots);
    return traverse(op, visit, arg);
}

static int visit_code(PyObject *op, visitproc visit, void *arg)
{
    PyCodeObject *code = (PyCodeObject *)op;
    VISIT(code->co_consts);
    VISIT(code->co_names);
    VISIT(code->co_localsplusnames);
    VISIT(code->co_localspluskinds);
    VISIT(code->co_exceptiontable);
    VISIT(code->co_linetable);
    VISIT(code->co_filename);
    VISIT(code->co_name);
    VISIT(code->co_qualname);
    return 0;
}

static void fill_hash(PyObject *op)
{
    if (PyUnicode_GET_LENGTH(op) <= HASH_BYTES_MAX) {
        (void)PyObject_Hash(op); /* of an exact str: cannot fail, allocates nothing */
    }
}

int pp_freeze_visit(PyObject *op, enum pp_freeze_kind kind, visitproc visit, void *arg)
{
    switch (kind) {
    case PP_FREEZE_LEAF:
    case PP_FREEZE_LIVE:
        return 0;
    case PP_FREEZE_STR:
        fill_hash(op);
        return 0;
    case PP_FREEZE_DICT:
        return visit_dict(op, visit, arg);
    case PP_FREEZE_TYPE:
        return visit_type(op, visit, arg);
    case PP_FREEZE_CODE:
        return visit_code(op, visit, arg);
    case PP_FREEZE_GC:
    case PP_FREEZE_EXPAND:
        return traverse(op, visit, arg);
    }
    return 0;
}

bool pp_freeze_is_settled_weakref(PyObject *op)
{
    if (!PyWeakref_CheckRef(op)) {
        return false;
    }
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *referent;
    if (PyWeakref_GetRef(op, &referent) <= 0) { /* an error is impossible: it is a reference */
        return false;
    }
    bool settled = pp_freeze_header_get(referent);
    Py_DECREF(referent);
    return settled;
#else
    PyObject *referent = PyWeakref_GET_OBJECT(op); /* borrowed; None when it is gone */
    return referent != Py_None && pp_freeze_header_get(referent);
#endif
}

/* ---- sizes ---- */

static size_t str_bytes(PyObject *op)
{
    size_t head = PyUnicode_IS_ASCII(op) ? sizeof(PyASCIIObject) : sizeof(PyCompactUnicodeObject);
    return head + ((size_t)PyUnicode_GET_LENGTH(op) + 1) * (size_t)PyUnicode_KIND(op);
}

/* A table that is two thirds full at most, rounded up to a power of two, and its index. */
static size_t dict_bytes(PyObject *op)
{
    size_t used = (size_t)PyDict_GET_SIZE(op);
    if (used == 0) {
        return 0;
    }
    size_t slots = 8;
    while (slots / 3 * 2 < used) {
        slots *= 2;
    }
    size_t slot_bytes = slots <= 0x100 ? 1 : slots <= 0x10000 ? 2 : 4;
    PyObject *key, *value;
    Py_ssize_t pos = 0;
    bool short_entries = PyDict_Next(op, &pos, &key, &value) && PyUnicode_CheckExact(key);
    return slots * slot_bytes + slots / 3 * 2 * (short_entries ? 16 : 24);
}

static size_t var_bytes(PyObject *op, PyTypeObject *type)
{
    if (type->tp_itemsize <= 0) {
        return 0;
    }
    if (PyLong_Check(op)) {
        return 4; /* how many digits is not ours to know; most have one */
    }
    Py_ssize_t items = Py_SIZE(op);
    return (size_t)(items < 0 ? -items : items) * (size_t)type->tp_itemsize;
}

size_t pp_freeze_bytes(PyObject *op, enum pp_freeze_kind kind, size_t visited)
{
    PyTypeObject *type = Py_TYPE(op);
    size_t bytes;
    if (kind == PP_FREEZE_STR) {
        bytes = str_bytes(op);
    } else {
        bytes = (size_t)type->tp_basicsize + var_bytes(op, type);
        if (kind == PP_FREEZE_DICT) {
            bytes += dict_bytes(op);
        } else if (PyList_Check(op)) {
            bytes += (size_t)PyList_GET_SIZE(op) * sizeof(PyObject *);
        } else if (PyAnySet_Check(op)) {
            bytes += 2 * (size_t)PySet_GET_SIZE(op) * sizeof(setentry);
        } else if (PyByteArray_Check(op)) {
            bytes += (size_t)PyByteArray_GET_SIZE(op);
        }
#if PY_VERSION_HEX >= 0x030C0000
        else if (type->tp_flags & Py_TPFLAGS_MANAGED_DICT) {
            bytes += (2 + visited) * sizeof(PyObject *); /* attributes without a dict */
        }
#endif
    }
    if (PyType_IS_GC(type)) {
        bytes += GC_HEAD_BYTES;
    }
    return (bytes + 15) & ~(size_t)15;
}
