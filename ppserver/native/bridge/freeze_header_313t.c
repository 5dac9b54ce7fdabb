/* Immortal objects of free-threaded CPython 3.13 (PEP 703).
 *
 * A header has the owning thread, that thread's count (32 bits) and one for all others, whose two
 * lowest bits are a state. All ones in the owner's count mean immortal, and then no thread owns the
 * object and the shared count is zero, as the interpreter leaves its own.
 *
 * An object that waits for its owner to merge the two counts (state "queued") must not be touched:
 * the merge would take the value for a count. Functions and the like have that state for good, with
 * the bit for deferred counting, and are never merged while it is set.
 *
 * A list or dict that another thread than its owner reads for the first time is marked as shared,
 * so that its old tables are freed late; without an owner every thread is another. The mark is made
 * here, else each first read would write. */
#include "bridge/freeze_header.h"

#if PY_VERSION_HEX >= 0x030D0000 && PY_VERSION_HEX < 0x030E0000 && defined(Py_GIL_DISABLED) && \
    SIZEOF_VOID_P == 8 && !defined(Py_TRACE_REFS)

#include <stddef.h>

#define GC_BITS_SHARED 0x10
#define GC_BITS_DEFERRED 0x40

static_assert(offsetof(PyObject, ob_tid) == 0, "the owner comes first");
static_assert(sizeof(((PyObject *)NULL)->ob_ref_local) == 4, "the owner's count is 32 bits wide");
static_assert(_Py_IMMORTAL_REFCNT_LOCAL == UINT32_MAX, "the interpreter's own value");

const char *pp_freeze_header_refusal(void)
{
    return NULL;
}

bool pp_freeze_header_get(PyObject *op)
{
    return _Py_atomic_load_uint32_relaxed(&op->ob_ref_local) == _Py_IMMORTAL_REFCNT_LOCAL;
}

bool pp_freeze_header_set(PyObject *op)
{
    if (pp_freeze_header_get(op)) {
        return true;
    }
    Py_ssize_t shared = _Py_atomic_load_ssize_relaxed(&op->ob_ref_shared);
    if ((shared & _Py_REF_SHARED_FLAG_MASK) == _Py_REF_QUEUED &&
        (op->ob_gc_bits & GC_BITS_DEFERRED) == 0) {
        return false;
    }
    if (PyList_Check(op) || PyDict_Check(op)) {
        op->ob_gc_bits |= GC_BITS_SHARED;
    }
    op->ob_tid = 0;
    _Py_atomic_store_ssize_relaxed(&op->ob_ref_shared, 0);
    _Py_atomic_store_uint32_relaxed(&op->ob_ref_local, _Py_IMMORTAL_REFCNT_LOCAL);
    return true;
}

#endif
