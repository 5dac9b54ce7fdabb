/* Where objects are not made immortal: CPython 3.11 has no such thing; free-threaded builds
 * from 3.14 on and any version after 3.15 have headers that this has not been tested with, and
 * builds that trace references keep books of their own.
 *
 * PyUnstable_SetImmortal (3.15) is no way out: it takes only objects that nobody else holds yet,
 * and no strings; it is meant for whoever creates an object, not for one who finds it. */
#include "bridge/freeze_header.h"

#if PY_VERSION_HEX < 0x030C0000 || PY_VERSION_HEX >= 0x03100000 || SIZEOF_VOID_P != 8 || \
    defined(Py_TRACE_REFS) || (PY_VERSION_HEX < 0x030D0000 && defined(Py_GIL_DISABLED)) || \
    (PY_VERSION_HEX >= 0x030E0000 && defined(Py_GIL_DISABLED))

const char *pp_freeze_header_refusal(void)
{
#if PY_VERSION_HEX < 0x030C0000
    return "objects can be made immortal from Python 3.12 on";
#elif PY_VERSION_HEX >= 0x03100000
    return "this version of Python lays objects out in a way not supported yet";
#elif PY_VERSION_HEX >= 0x030E0000 && defined(Py_GIL_DISABLED)
    return "free-threaded Python lays objects out in a way not supported yet from 3.14 on";
#else
    return "this build of Python lays objects out in a way that is not supported";
#endif
}

bool pp_freeze_header_get(PyObject *op)
{
#if PY_VERSION_HEX >= 0x030E0000
    return PyUnstable_IsImmortal(op) != 0;
#elif PY_VERSION_HEX >= 0x030C0000
    return _Py_IsImmortal(op);
#else
    (void)op;
    return false;
#endif
}

bool pp_freeze_header_set(PyObject *op)
{
    (void)op;
    PP_CHECK(!"objects of this build cannot be made immortal");
    return false;
}

#endif
