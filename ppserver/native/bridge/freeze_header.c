/* The self-test of the header write: before it is used on anybody's data it has to do on scratch
 * objects exactly what is expected of it, on the interpreter that is running.
 *
 * The layout files know the fields; this one knows only that they come before ob_type. */
#include "bridge/freeze_header.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define COUNT_BYTES offsetof(PyObject, ob_type) /* the part of a header a count may change */

/* Keeps the compiler from pairing counts up and away. */
#define SETTLE() atomic_signal_fence(memory_order_seq_cst)

/* Counts up and down, by the macros as compiled here and by the interpreter's own functions, more
 * often down than up, and tells whether not one byte moved. */
static bool counts_are_still(PyObject *op)
{
    unsigned char before[sizeof(PyObject)];
    memcpy(before, op, sizeof(before));
    for (int i = 0; i < 3; i++) {
        Py_INCREF(op);
        SETTLE();
        if (memcmp(before, op, sizeof(before)) != 0) {
            return false;
        }
        Py_IncRef(op);
        SETTLE();
        if (memcmp(before, op, sizeof(before)) != 0) {
            return false;
        }
    }
    for (int i = 0; i < 5; i++) {
        Py_DECREF(op);
        SETTLE();
        if (memcmp(before, op, sizeof(before)) != 0) {
            return false;
        }
        Py_DecRef(op);
        SETTLE();
        if (memcmp(before, op, sizeof(before)) != 0) {
            return false;
        }
    }
    return true;
}

/* A mortal object's count is where it is expected: counting moves that part and only that. */
static bool counts_move(PyObject *op)
{
    unsigned char before[sizeof(PyObject)];
    memcpy(before, op, sizeof(before));
    Py_INCREF(op);
    SETTLE();
    bool moved = memcmp(before, op, COUNT_BYTES) != 0;
    bool kept =
        memcmp(before + COUNT_BYTES, (char *)op + COUNT_BYTES, sizeof(before) - COUNT_BYTES) == 0;
    Py_DECREF(op);
    SETTLE();
    return moved && kept && memcmp(before, op, sizeof(before)) == 0;
}

/* The same of what the interpreter does with a reference on its own stack. 1 or 0, -1 with an
 * exception. */
static int stack_is_still(PyObject *op)
{
    unsigned char before[sizeof(PyObject)];
    memcpy(before, op, sizeof(before));
    PyObject *code =
        Py_CompileString("op is None, [op, op][0] is op, (op,)[-1]", "<ppserver>", Py_eval_input);
    PyObject *globals = code != NULL ? Py_BuildValue("{s:O,s:{}}", "op", op, "__builtins__") : NULL;
    PyObject *result = globals != NULL ? PyEval_EvalCode(code, globals, globals) : NULL;
    int still = result == NULL ? -1 : 1;
    Py_XDECREF(result);
    Py_XDECREF(globals);
    Py_XDECREF(code);
    SETTLE();
    return still == 1 && memcmp(before, op, sizeof(before)) != 0 ? 0 : still;
}

/* Tests let the write go wrong, in builds with assertions only. */
static bool told_to_fail(void)
{
#ifdef PP_DEBUG
    const char *wanted = getenv("TEST_FREEZE_LAYOUT");
    return wanted != NULL && strcmp(wanted, "wrong") == 0;
#else
    return false;
#endif
}

/* Takes over the reference to scratch, which must be the only one. 1 or 0, -1 with an exception. */
static int test_one(PyObject *scratch, size_t bytes)
{
    unsigned char saved[128];
    PP_CHECK(bytes >= sizeof(PyObject) && bytes <= sizeof(saved));
    if (pp_freeze_header_get(scratch) || !counts_move(scratch)) {
        Py_DECREF(scratch);
        return 0;
    }
    memcpy(saved, scratch, bytes);
    bool good = pp_freeze_header_set(scratch);
    if (told_to_fail()) {
        memcpy(scratch, saved, COUNT_BYTES);
    }
    int works = good && pp_freeze_header_get(scratch) && counts_are_still(scratch);
    if (works == 1) {
        works = stack_is_still(scratch);
    }
    if (memcmp(saved + COUNT_BYTES, (char *)scratch + COUNT_BYTES, bytes - COUNT_BYTES) != 0) {
        works = works < 0 ? works : 0;
    }
    memcpy(scratch, saved, COUNT_BYTES);
    Py_DECREF(scratch);
    return works;
}

int pp_freeze_header_self_test(void)
{
    /* What the interpreter has made immortal itself must look so to us. */
    if (!pp_freeze_header_get(Py_None) || !counts_are_still(Py_None) ||
        !pp_freeze_header_get((PyObject *)&PyList_Type)) {
        return 0;
    }
    PyObject *collected = PyList_New(3);
    PyObject *plain = PyBytes_FromStringAndSize(NULL, 40);
    if (collected == NULL || plain == NULL) {
        Py_XDECREF(collected);
        Py_XDECREF(plain);
        return -1;
    }
    memset(PyBytes_AS_STRING(plain), 'x', 40);
    int works = test_one(collected, sizeof(PyListObject));
    if (works != 1) {
        Py_DECREF(plain);
        return works;
    }
    return test_one(plain, sizeof(PyBytesObject));
}
