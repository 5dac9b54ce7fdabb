/* ppserver.shared.Counter: a 64-bit number that processes and threads change together.
 *
 * The number is in an anonymous shared mapping of its own. Forked contexts inherit the mapping,
 * threads have the object itself; nothing but the number is ever written after the object is made,
 * so no lock exists on any build. Every operation is one sequentially consistent atomic.
 *
 * Once contexts have been started an object made in one of them would be shared with no other. The
 * module's state says so (shared_seal), and making one is then an error unless it is asked for.
 * Left out: names to find an object by, and passing one to an unrelated process. */
#include "bridge/shared.h"
#include "bridge/core_base.h"

#include <errno.h>

#include "net/shm.h"

typedef struct {
    PyObject_HEAD
    int64_t *number; /* owned: a mapping of its own */
} PpSharedCounter;

/* Common. */

void *pp_shared_map(PyTypeObject *type, size_t bytes, int private)
{
    PpState *state = pp_state_of_type(type);
    if (!private && __atomic_load_n(&state->shared_sealed, __ATOMIC_RELAXED)) {
        PyErr_Format(PyExc_RuntimeError,
                     "%s: contexts have started, so only this one would see it; make it while the "
                     "application is imported, or pass private=True",
                     type->tp_name);
        return NULL;
    }
    void *memory = pp_shm_map(bytes);
    if (memory == NULL) {
        if (errno == ENOMEM) {
            PyErr_NoMemory();
        } else {
            PyErr_SetFromErrno(PyExc_OSError);
        }
    }
    return memory;
}

PyObject *pp_shared_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyErr_Format(PyExc_TypeError,
                 "%s cannot be pickled or copied: processes share it by being forked after it was "
                 "made, and a copy would count by itself",
                 Py_TYPE(self)->tp_name);
    return NULL;
}

/* Counter. */

static PyObject *counter_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"initial", "private", NULL};
    long long initial = 0;
    int private = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|L$p:Counter", keywords, &initial, &private)) {
        return NULL;
    }
    int64_t *number = pp_shared_map(type, sizeof(*number), private);
    if (number == NULL) {
        return NULL;
    }
    PpSharedCounter *self = (PpSharedCounter *)type->tp_alloc(type, 0);
    if (self == NULL) {
        pp_shm_unmap(number, sizeof(*number));
        return NULL;
    }
    __atomic_store_n(number, (int64_t)initial, __ATOMIC_SEQ_CST);
    self->number = number;
    return (PyObject *)self;
}

static void counter_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    pp_shm_unmap(((PpSharedCounter *)self)->number, sizeof(int64_t));
    type->tp_free(self);
    Py_DECREF(type);
}

static int64_t *number_of(PyObject *self)
{
    int64_t *number = ((PpSharedCounter *)self)->number;
    PP_ASSERT(number != NULL);
    return number;
}

/* A Python int as int64_t; -1 with an exception, which the caller tells by PyErr_Occurred. */
static int64_t as_int64(PyObject *value)
{
    static_assert(sizeof(long long) == sizeof(int64_t), "long long is 64 bit");
    return PyLong_AsLongLong(value);
}

static PyObject *counter_add(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    int64_t n = 1;
    if (nargs > 1) {
        return PyErr_Format(PyExc_TypeError, "add() takes at most 1 argument (%zd given)", nargs);
    }
    if (nargs == 1 && (n = as_int64(args[0])) == -1 && PyErr_Occurred()) {
        return NULL;
    }
    return PyLong_FromLongLong(__atomic_add_fetch(number_of(self), n, __ATOMIC_SEQ_CST));
}

static PyObject *counter_set(PyObject *self, PyObject *value)
{
    int64_t n = as_int64(value);
    if (n == -1 && PyErr_Occurred()) {
        return NULL;
    }
    __atomic_store_n(number_of(self), n, __ATOMIC_SEQ_CST);
    Py_RETURN_NONE;
}

static PyObject *counter_exchange(PyObject *self, PyObject *value)
{
    int64_t n = as_int64(value);
    if (n == -1 && PyErr_Occurred()) {
        return NULL;
    }
    return PyLong_FromLongLong(__atomic_exchange_n(number_of(self), n, __ATOMIC_SEQ_CST));
}

static PyObject *counter_compare_exchange(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2) {
        return PyErr_Format(PyExc_TypeError,
                            "compare_exchange() takes exactly 2 arguments (%zd given)", nargs);
    }
    int64_t expected = as_int64(args[0]);
    if (expected == -1 && PyErr_Occurred()) {
        return NULL;
    }
    int64_t n = as_int64(args[1]);
    if (n == -1 && PyErr_Occurred()) {
        return NULL;
    }
    bool done = __atomic_compare_exchange_n(number_of(self), &expected, n, false, __ATOMIC_SEQ_CST,
                                            __ATOMIC_SEQ_CST);
    return PyBool_FromLong(done);
}

static PyObject *counter_int(PyObject *self)
{
    return PyLong_FromLongLong(__atomic_load_n(number_of(self), __ATOMIC_SEQ_CST));
}

static PyObject *counter_get_value(PyObject *self, void *Py_UNUSED(closure))
{
    return counter_int(self);
}

static PyObject *counter_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<%s %lld>", Py_TYPE(self)->tp_name,
                                (long long)__atomic_load_n(number_of(self), __ATOMIC_SEQ_CST));
}

static PyMethodDef counter_methods[] = {
    {"add", (PyCFunction)(void (*)(void))counter_add, METH_FASTCALL,
     PyDoc_STR("add($self, n=1, /)\n--\n\nAdd n, which may be negative, and return the new "
               "value. Past 64 bits it goes round.")},
    {"set", counter_set, METH_O,
     PyDoc_STR("set($self, value, /)\n--\n\nMake it value, whatever it was.")},
    {"exchange", counter_exchange, METH_O,
     PyDoc_STR("exchange($self, value, /)\n--\n\nMake it value and return what it was.")},
    {"compare_exchange", (PyCFunction)(void (*)(void))counter_compare_exchange, METH_FASTCALL,
     PyDoc_STR("compare_exchange($self, expected, value, /)\n--\n\nMake it value if it is "
               "expected; whether it was.")},
    {"__reduce__", pp_shared_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef counter_getset[] = {
    {"value", counter_get_value, NULL, PyDoc_STR("The number now."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot counter_slots[] = {
    {Py_tp_doc,
     (void *)PyDoc_STR("Counter(initial=0, *, private=False)\n--\n\n"
                       "A signed 64-bit number in memory that contexts share. Every operation is "
                       "atomic, between threads as between processes.")},
    {Py_tp_new, counter_new},
    {Py_tp_dealloc, counter_dealloc},
    {Py_tp_repr, counter_repr},
    {Py_nb_int, counter_int},
    {Py_tp_methods, counter_methods},
    {Py_tp_getset, counter_getset},
    {0, NULL},
};

PyType_Spec pp_shared_counter_spec = {
    .name = "ppserver.shared.Counter",
    .basicsize = sizeof(PpSharedCounter),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = counter_slots,
};
