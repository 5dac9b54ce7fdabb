/* Immortal objects of CPython 3.14 and 3.15 with a GIL.
 *
 * The count is 32 bits wide now, with 16 bits of flags in the same word. An object is immortal when
 * its count is negative as a signed number: from then on a decrement leaves it alone. An increment
 * does so from three quarters of the range on, and writes below.
 *
 * The interpreter's own stack does not ask: a reference on it says in its lowest bit whether it is
 * counted. That bit is copied from the flags when the reference is put there, so the flag is what
 * keeps frames from counting. A reference that was on a stack before keeps counting, without
 * looking: so the value is a million above where increments stop, where the end of such references
 * does not bring it down to where increments write again. They could bring it up as well, by a
 * thousand million, where it would wrap around; what a suspended frame holds, which may be resumed
 * that often, is therefore not made immortal (freeze_held.c). */
#include "bridge/freeze_header.h"

#if PY_VERSION_HEX >= 0x030E0000 && PY_VERSION_HEX < 0x03100000 && !defined(Py_GIL_DISABLED) && \
    SIZEOF_VOID_P == 8 && !defined(Py_TRACE_REFS)

#include <stddef.h>

#define IMMORTAL_COUNT (UINT32_C(0xC0000000) + (UINT32_C(1) << 20))
#define IMMORTAL_FLAG 1

static_assert(offsetof(PyObject, ob_refcnt_full) == 0, "count and flags come first");
static_assert(sizeof(((PyObject *)NULL)->ob_refcnt_full) == 8, "and are one word");
static_assert(sizeof(((PyObject *)NULL)->ob_refcnt) == 4, "the count is 32 bits wide");
static_assert(sizeof(((PyObject *)NULL)->ob_flags) == 2, "the flags are 16 bits wide");
static_assert(_Py_IMMORTAL_INITIAL_REFCNT == UINT32_C(0xC0000000), "increments stop here");
static_assert(_Py_IMMORTAL_FLAGS == IMMORTAL_FLAG, "the interpreter's own flag");

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
        op->ob_refcnt = IMMORTAL_COUNT;
    }
    /* An extension that knows of older versions may have set the count alone. */
    if ((op->ob_flags & IMMORTAL_FLAG) == 0) {
        op->ob_flags |= IMMORTAL_FLAG;
    }
    return true;
}

#endif
