/* ppserver.shared.Array: numbers of one kind in memory that contexts share (see shared.c).
 *
 * An element is read, written and added to by one sequentially consistent atomic of its own size;
 * floating point adds by compare-and-exchange on its bits. The buffer protocol lends the memory
 * itself: what a view does is as atomic as the machine's plain loads and stores. A view refers to
 * the object, so the mapping lasts as long as any of them. */
#include "bridge/shared.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/limits.h"
#include "net/shm.h"

/* One kind of element. Values are checked before memory is touched. */
struct kind {
    char code[2];     /* as in `struct` and `array`; also the buffer's format */
    const char *name; /* as NumPy has it */
    size_t bytes;
    bool is_float;
    PyObject *(*load)(const void *at);
    int (*store)(void *at, PyObject *value);                        /* -1 with an exception */
    PyObject *(*add)(void *at, PyObject *n);                        /* the new value, or NULL */
    int (*compare_exchange)(void *at, PyObject *old, PyObject *to); /* 1, 0, or -1 */
};

typedef struct {
    PyObject_HEAD
    uint8_t *memory; /* owned: a mapping of its own */
    const struct kind *kind;
    Py_ssize_t count;
} PpSharedArray;

static size_t bytes_of(const PpSharedArray *self)
{
    return (size_t)self->count * self->kind->bytes;
}

/* Integers: an element's value, between low and high. */

static int as_signed(PyObject *value, long long low, long long high, long long *result)
{
    long long n = PyLong_AsLongLong(value);
    if (n == -1 && PyErr_Occurred()) {
        return -1;
    }
    if (n < low || n > high) {
        PyErr_Format(PyExc_OverflowError, "%lld is not within %lld and %lld", n, low, high);
        return -1;
    }
    *result = n;
    return 0;
}

static int as_unsigned(PyObject *value, unsigned long long high, unsigned long long *result)
{
    PyObject *index = PyNumber_Index(value);
    if (index == NULL) {
        return -1;
    }
    unsigned long long n = PyLong_AsUnsignedLongLong(index);
    Py_DECREF(index);
    if (n == (unsigned long long)-1 && PyErr_Occurred()) {
        return -1;
    }
    if (n > high) {
        PyErr_Format(PyExc_OverflowError, "%llu is not within 0 and %llu", n, high);
        return -1;
    }
    *result = n;
    return 0;
}

/* What to add to an unsigned element: from -high to high; negative ones as their complement. */
static int as_change(PyObject *value, unsigned long long high, unsigned long long *result)
{
    PyObject *zero = PyLong_FromLong(0);
    if (zero == NULL) {
        return -1;
    }
    int rc = PyObject_RichCompareBool(value, zero, Py_LT);
    Py_DECREF(zero);
    if (rc <= 0) {
        return rc < 0 ? -1 : as_unsigned(value, high, result);
    }
    PyObject *positive = PyNumber_Negative(value);
    if (positive == NULL) {
        return -1;
    }
    rc = as_unsigned(positive, high, result);
    Py_DECREF(positive);
    *result = rc < 0 ? 0 : 0 - *result;
    return rc;
}

#define SIGNED_KIND_(tag, type, low, high) \
    static PyObject *load_##tag(const void *at) \
    { \
        return PyLong_FromLongLong(__atomic_load_n((const type *)at, __ATOMIC_SEQ_CST)); \
    } \
    static int store_##tag(void *at, PyObject *value) \
    { \
        long long n; \
        if (as_signed(value, low, high, &n) < 0) { \
            return -1; \
        } \
        __atomic_store_n((type *)at, (type)n, __ATOMIC_SEQ_CST); \
        return 0; \
    } \
    static PyObject *add_##tag(void *at, PyObject *value) \
    { \
        long long n; \
        if (as_signed(value, low, high, &n) < 0) { \
            return NULL; \
        } \
        return PyLong_FromLongLong(__atomic_add_fetch((type *)at, (type)n, __ATOMIC_SEQ_CST)); \
    } \
    static int compare_exchange_##tag(void *at, PyObject *old, PyObject *to) \
    { \
        long long expected, n; \
        if (as_signed(old, low, high, &expected) < 0 || as_signed(to, low, high, &n) < 0) { \
            return -1; \
        } \
        type was = (type)expected; \
        return __atomic_compare_exchange_n((type *)at, &was, (type)n, false, __ATOMIC_SEQ_CST, \
                                           __ATOMIC_SEQ_CST); \
    }

#define UNSIGNED_KIND_(tag, type, high) \
    static PyObject *load_##tag(const void *at) \
    { \
        return PyLong_FromUnsignedLongLong(__atomic_load_n((const type *)at, __ATOMIC_SEQ_CST)); \
    } \
    static int store_##tag(void *at, PyObject *value) \
    { \
        unsigned long long n; \
        if (as_unsigned(value, high, &n) < 0) { \
            return -1; \
        } \
        __atomic_store_n((type *)at, (type)n, __ATOMIC_SEQ_CST); \
        return 0; \
    } \
    static PyObject *add_##tag(void *at, PyObject *value) \
    { \
        unsigned long long n; \
        if (as_change(value, high, &n) < 0) { \
            return NULL; \
        } \
        return PyLong_FromUnsignedLongLong( \
            __atomic_add_fetch((type *)at, (type)n, __ATOMIC_SEQ_CST)); \
    } \
    static int compare_exchange_##tag(void *at, PyObject *old, PyObject *to) \
    { \
        unsigned long long expected, n; \
        if (as_unsigned(old, high, &expected) < 0 || as_unsigned(to, high, &n) < 0) { \
            return -1; \
        } \
        type was = (type)expected; \
        return __atomic_compare_exchange_n((type *)at, &was, (type)n, false, __ATOMIC_SEQ_CST, \
                                           __ATOMIC_SEQ_CST); \
    }

/* Floating point, by its bits. convert is (double, type *) -> -1 with an exception. */
#define FLOAT_KIND_(tag, type, bits_type, convert) \
    static PyObject *load_##tag(const void *at) \
    { \
        bits_type bits = __atomic_load_n((const bits_type *)at, __ATOMIC_SEQ_CST); \
        type number; \
        memcpy(&number, &bits, sizeof(number)); \
        return PyFloat_FromDouble((double)number); \
    } \
    static int store_##tag(void *at, PyObject *value) \
    { \
        type number; \
        bits_type bits; \
        if (convert(value, &number) < 0) { \
            return -1; \
        } \
        memcpy(&bits, &number, sizeof(bits)); \
        __atomic_store_n((bits_type *)at, bits, __ATOMIC_SEQ_CST); \
        return 0; \
    } \
    static PyObject *add_##tag(void *at, PyObject *value) \
    { \
        type n, number; \
        if (convert(value, &n) < 0) { \
            return NULL; \
        } \
        bits_type before = __atomic_load_n((bits_type *)at, __ATOMIC_SEQ_CST), after; \
        do { \
            memcpy(&number, &before, sizeof(number)); \
            number += n; \
            memcpy(&after, &number, sizeof(after)); \
        } while (!__atomic_compare_exchange_n((bits_type *)at, &before, after, true, \
                                              __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)); \
        return PyFloat_FromDouble((double)number); \
    }

static int as_double(PyObject *value, double *result)
{
    *result = PyFloat_AsDouble(value);
    return *result == -1.0 && PyErr_Occurred() ? -1 : 0;
}

static int as_float(PyObject *value, float *result)
{
    double number;
    if (as_double(value, &number) < 0) {
        return -1;
    }
    if (isfinite(number) && fabs(number) > (double)FLT_MAX) {
        PyErr_SetString(PyExc_OverflowError, "number too large for 32 bits of floating point");
        return -1;
    }
    *result = (float)number;
    return 0;
}

SIGNED_KIND_(b, int8_t, INT8_MIN, INT8_MAX)
SIGNED_KIND_(h, int16_t, INT16_MIN, INT16_MAX)
SIGNED_KIND_(i, int32_t, INT32_MIN, INT32_MAX)
SIGNED_KIND_(q, int64_t, INT64_MIN, INT64_MAX)
UNSIGNED_KIND_(B, uint8_t, UINT8_MAX)
UNSIGNED_KIND_(H, uint16_t, UINT16_MAX)
UNSIGNED_KIND_(I, uint32_t, UINT32_MAX)
UNSIGNED_KIND_(Q, uint64_t, UINT64_MAX)
FLOAT_KIND_(f, float, uint32_t, as_float)
FLOAT_KIND_(d, double, uint64_t, as_double)

static_assert(sizeof(float) == 4 && sizeof(double) == 8, "IEEE 754");

#define INTEGER_ROW_(tag, name, type) \
    {#tag, name, sizeof(type), false, load_##tag, store_##tag, add_##tag, compare_exchange_##tag}
#define FLOAT_ROW_(tag, name, type) \
    {#tag, name, sizeof(type), true, load_##tag, store_##tag, add_##tag, NULL}

static const struct kind kinds[] = {
    INTEGER_ROW_(b, "int8", int8_t),   INTEGER_ROW_(B, "uint8", uint8_t),
    INTEGER_ROW_(h, "int16", int16_t), INTEGER_ROW_(H, "uint16", uint16_t),
    INTEGER_ROW_(i, "int32", int32_t), INTEGER_ROW_(I, "uint32", uint32_t),
    INTEGER_ROW_(q, "int64", int64_t), INTEGER_ROW_(Q, "uint64", uint64_t),
    FLOAT_ROW_(f, "float32", float),   FLOAT_ROW_(d, "float64", double),
};

/* The kind that a letter, a name, a NumPy scalar type or a NumPy dtype stands for. */
static const struct kind *kind_of(PyObject *wanted)
{
    PyObject *text =
        PyType_Check(wanted) ? PyObject_GetAttrString(wanted, "__name__") : PyObject_Str(wanted);
    if (text == NULL) {
        return NULL;
    }
    Py_ssize_t len = 0;
    const char *word = PyUnicode_AsUTF8AndSize(text, &len);
    const struct kind *found = NULL;
    for (size_t i = 0; word != NULL && i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strlen(word) == (size_t)len &&
            (strcmp(word, kinds[i].code) == 0 || strcmp(word, kinds[i].name) == 0)) {
            found = &kinds[i];
        }
    }
    Py_DECREF(text);
    if (word != NULL && found == NULL) {
        PyErr_Format(PyExc_ValueError,
                     "Array: %R is none of b B h H i I q Q f d, nor the name of such a type",
                     wanted);
    }
    return found;
}

static PyObject *array_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"typecode", "length", "private", NULL};
    PyObject *wanted;
    Py_ssize_t count;
    int private = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "On|$p:Array", keywords, &wanted, &count,
                                     &private)) {
        return NULL;
    }
    const struct kind *kind = kind_of(wanted);
    if (kind == NULL) {
        return NULL;
    }
    if (count < 1 || (uint64_t)count > PP_SHARED_BYTES_MAX / kind->bytes) {
        return PyErr_Format(PyExc_ValueError, "Array: a length of %zd is not within 1 and %llu",
                            count, (unsigned long long)(PP_SHARED_BYTES_MAX / kind->bytes));
    }
    size_t bytes = (size_t)count * kind->bytes;
    void *memory = pp_shared_map(type, bytes, private);
    if (memory == NULL) {
        return NULL;
    }
    PpSharedArray *self = (PpSharedArray *)type->tp_alloc(type, 0);
    if (self == NULL) {
        pp_shm_unmap(memory, bytes);
        return NULL;
    }
    self->memory = memory;
    self->kind = kind;
    self->count = count;
    return (PyObject *)self;
}

static void array_dealloc(PyObject *op)
{
    PpSharedArray *self = (PpSharedArray *)op;
    PyTypeObject *type = Py_TYPE(op);
    pp_shm_unmap(self->memory, bytes_of(self));
    type->tp_free(op);
    Py_DECREF(type);
}

static Py_ssize_t array_length(PyObject *self)
{
    return ((PpSharedArray *)self)->count;
}

/* The element's place; NULL with IndexError. The abstract layer has added the length already. */
static void *place(PpSharedArray *self, Py_ssize_t index)
{
    if (index < 0 || index >= self->count) {
        PyErr_SetString(PyExc_IndexError, "Array index out of range");
        return NULL;
    }
    return self->memory + (size_t)index * self->kind->bytes;
}

static void *place_of(PpSharedArray *self, PyObject *index_object)
{
    Py_ssize_t index = PyNumber_AsSsize_t(index_object, PyExc_IndexError);
    if (index == -1 && PyErr_Occurred()) {
        return NULL;
    }
    return place(self, index < 0 ? index + self->count : index);
}

static PyObject *array_item(PyObject *op, Py_ssize_t index)
{
    PpSharedArray *self = (PpSharedArray *)op;
    const void *at = place(self, index);
    return at == NULL ? NULL : self->kind->load(at);
}

static int array_set_item(PyObject *op, Py_ssize_t index, PyObject *value)
{
    PpSharedArray *self = (PpSharedArray *)op;
    if (value == NULL) {
        PyErr_SetString(PyExc_TypeError, "elements of an Array cannot be deleted");
        return -1;
    }
    void *at = place(self, index);
    return at == NULL ? -1 : self->kind->store(at, value);
}

static PyObject *array_add(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    PpSharedArray *self = (PpSharedArray *)op;
    if (nargs < 1 || nargs > 2) {
        return PyErr_Format(PyExc_TypeError, "add() takes 1 or 2 arguments (%zd given)", nargs);
    }
    void *at = place_of(self, args[0]);
    if (at == NULL) {
        return NULL;
    }
    PyObject *n = nargs == 2 ? Py_NewRef(args[1]) : PyLong_FromLong(1);
    if (n == NULL) {
        return NULL;
    }
    PyObject *result = self->kind->add(at, n);
    Py_DECREF(n);
    return result;
}

static PyObject *array_compare_exchange(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    PpSharedArray *self = (PpSharedArray *)op;
    if (nargs != 3) {
        return PyErr_Format(PyExc_TypeError,
                            "compare_exchange() takes exactly 3 arguments (%zd given)", nargs);
    }
    if (self->kind->is_float) {
        PyErr_SetString(PyExc_TypeError, "compare_exchange() is for whole numbers");
        return NULL;
    }
    void *at = place_of(self, args[0]);
    if (at == NULL) {
        return NULL;
    }
    int done = self->kind->compare_exchange(at, args[1], args[2]);
    return done < 0 ? NULL : PyBool_FromLong(done);
}

static PyObject *array_numpy(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *numpy = PyImport_ImportModule("numpy");
    if (numpy == NULL) {
        return NULL;
    }
    PyObject *view =
        PyObject_CallMethod(numpy, "frombuffer", "Os", self, ((PpSharedArray *)self)->kind->name);
    Py_DECREF(numpy);
    return view;
}

static PyObject *array_repr(PyObject *op)
{
    PpSharedArray *self = (PpSharedArray *)op;
    return PyUnicode_FromFormat("<%s of %zd %s>", Py_TYPE(op)->tp_name, self->count,
                                self->kind->name);
}

static PyObject *array_get_typecode(PyObject *self, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(((PpSharedArray *)self)->kind->code);
}

static PyObject *array_get_itemsize(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(((PpSharedArray *)self)->kind->bytes);
}

static PyObject *array_get_nbytes(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(bytes_of((PpSharedArray *)self));
}

static int array_get_buffer(PyObject *op, Py_buffer *view, int flags)
{
    PpSharedArray *self = (PpSharedArray *)op;
    if (view == NULL) {
        PyErr_SetString(PyExc_BufferError, "Array: no view to fill in");
        return -1;
    }
    *view = (Py_buffer){
        .buf = self->memory,
        .obj = Py_NewRef(op),
        .len = (Py_ssize_t)bytes_of(self),
        .itemsize = (Py_ssize_t)self->kind->bytes,
        .ndim = 1,
        .format = (flags & PyBUF_FORMAT) ? (char *)self->kind->code : NULL,
        .shape = (flags & PyBUF_ND) ? &self->count : NULL,
    };
    if ((flags & PyBUF_STRIDES) == PyBUF_STRIDES) {
        view->strides = &view->itemsize;
    }
    return 0;
}

static PyMethodDef array_methods[] = {
    {"add", (PyCFunction)(void (*)(void))array_add, METH_FASTCALL,
     PyDoc_STR("add($self, index, n=1, /)\n--\n\nAdd n to an element, atomically, and return the "
               "new value. Past an integer's bits it goes round.")},
    {"compare_exchange", (PyCFunction)(void (*)(void))array_compare_exchange, METH_FASTCALL,
     PyDoc_STR("compare_exchange($self, index, expected, value, /)\n--\n\nMake an element value "
               "if it is expected; whether it was. Integers only.")},
    {"numpy", array_numpy, METH_NOARGS,
     PyDoc_STR("numpy($self, /)\n--\n\nA NumPy array of the same memory, writable. What it does "
               "is not atomic.")},
    {"__reduce__", pp_shared_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef array_getset[] = {
    {"typecode", array_get_typecode, NULL, PyDoc_STR("The letter of the elements' type."), NULL},
    {"itemsize", array_get_itemsize, NULL, PyDoc_STR("Bytes of an element."), NULL},
    {"nbytes", array_get_nbytes, NULL, PyDoc_STR("Bytes of all elements."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot array_slots[] = {
    {Py_tp_doc,
     (void *)PyDoc_STR("Array(typecode, length, *, private=False)\n--\n\n"
                       "Numbers of one type in memory that contexts share, all 0 at first. "
                       "Reading, writing and adding to one element is atomic; nothing is across "
                       "several.")},
    {Py_tp_new, array_new},
    {Py_tp_dealloc, array_dealloc},
    {Py_tp_repr, array_repr},
    {Py_sq_length, array_length},
    {Py_sq_item, array_item},
    {Py_sq_ass_item, array_set_item},
    {Py_bf_getbuffer, array_get_buffer},
    {Py_tp_methods, array_methods},
    {Py_tp_getset, array_getset},
    {0, NULL},
};

PyType_Spec pp_shared_array_spec = {
    .name = "ppserver.shared.Array",
    .basicsize = sizeof(PpSharedArray),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_SEQUENCE,
    .slots = array_slots,
};
