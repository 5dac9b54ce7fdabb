/* Immortal objects of CPython 3.12 and 3.13 with a GIL (PEP 683).
 *
 * The count is 64 bits wide and an object is immortal when its lower half is negative as a signed
 * number. The value is the one the interpreter uses itself: all ones in the lower half, at which an
 * increment stops because the carry would leave it zero, and a decrement stops for the sign. */
#include "bridge/freeze_header.h"

#if PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x030E0000 && !defined(Py_GIL_DISABLED) && \
    SIZEOF_VOID_P == 8 && !defined(Py_TRACE_REFS)

#include <stddef.h>

static_assert(offsetof(PyObject, ob_refcnt) == 0, "the count comes first");
static_assert(sizeof(((PyObject *)NULL)->ob_refcnt) == 8, "and is 64 bits wide");
static_assert(_Py_IMMORTAL_REFCNT == 0xFFFFFFFF, "the interpreter's own value");

const char *pp_freeze_header_refusal(void)
{
    return NULL;
}

bool pp_freeze_header_get(PyObject *op)
{
    return (int32_t)op->ob_refcnt < 0;
}

bool pp_freeze_header_set(PyObject *op)
{
    if ((int32_t)op->ob_refcnt >= 0) {
        op->ob_refcnt = _Py_IMMORTAL_REFCNT;
    }
    return true;
}

#endif
