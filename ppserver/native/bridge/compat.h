/* What differs between CPython 3.11 and 3.15, in one place. Documented C API only. */
#ifndef PP_BRIDGE_COMPAT_H
#define PP_BRIDGE_COMPAT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"

/* PEP 670: strong-reference look-up, 3.13. 1 found, 0 missing, -1 error. */
#if PY_VERSION_HEX < 0x030D0000
static inline int PyDict_GetItemRef(PyObject *dict, PyObject *key, PyObject **result)
{
    PyObject *item = PyDict_GetItemWithError(dict, key);
    if (item != NULL) {
        *result = Py_NewRef(item);
        return 1;
    }
    *result = NULL;
    return PyErr_Occurred() ? -1 : 0;
}
#endif

/* Keeps other threads off an object on free-threaded builds; elsewhere the GIL does, 3.13. */
#ifndef Py_BEGIN_CRITICAL_SECTION
#define Py_BEGIN_CRITICAL_SECTION(op) {
#define Py_END_CRITICAL_SECTION() }
#endif

/* Up to 3.11 a collection, and with it any finaliser, may run where an object is allocated; later
 * only between two steps of bytecode. Pauses it for a stretch that must not run foreign code; what
 * was the state before is handed back at its end. */
#if PY_VERSION_HEX < 0x030C0000
static inline int pp_compat_gc_pause(void)
{
    return PyGC_Disable();
}
static inline void pp_compat_gc_resume(int was)
{
    if (was) {
        (void)PyGC_Enable();
    }
}
#else
static inline int pp_compat_gc_pause(void)
{
    return 0;
}
static inline void pp_compat_gc_resume(int was)
{
    (void)was;
}
#endif

#if PY_VERSION_HEX < 0x030C0000
static inline PyObject *PyErr_GetRaisedException(void)
{
    PyObject *type, *value, *tb;
    PyErr_Fetch(&type, &value, &tb);
    if (type == NULL) {
        return NULL;
    }
    PyErr_NormalizeException(&type, &value, &tb);
    if (tb != NULL) {
        PyException_SetTraceback(value, tb);
        Py_DECREF(tb);
    }
    Py_DECREF(type);
    return value;
}
static inline void PyErr_SetRaisedException(PyObject *exc)
{
    PyErr_Restore(Py_NewRef((PyObject *)Py_TYPE(exc)), exc, PyException_GetTraceback(exc));
}
#endif

#endif
