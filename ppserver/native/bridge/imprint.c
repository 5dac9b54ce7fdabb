/* The quick look at a worker Task: are its bytes those that it had when it was last looked over?
 *
 * Whether a Task is pristine takes a handful of method calls to find out (worker.c). Mostly nothing
 * has happened to it since the answer was last yes, and then the memory of the Task and of the
 * future it is parked on is the same as it was then. What an application can do to a Task changes
 * a byte: a name, a callback, a cancellation, a result are values and pointers in its struct. So
 * the struct is compared as a whole, without knowledge of what is where; a byte that changed for
 * some other reason costs the method calls and nothing else.
 *
 * Equal bytes mean an equal object because what they point to can neither change nor be replaced
 * unseen: name, context, coroutine and parking future are held by the core meanwhile, and there is
 * no list of callbacks and no dict of attributes (pristine.c has looked when the imprint is taken).
 * Two things are not in the struct on some versions, and looked at beside it. A dict of attributes
 * that is there means a change. So does another head of the list of weak references: a new one
 * becomes the head, unless there is one without a callback, which would be shared (then no imprint
 * is taken). Two contexts with the same bytes have the same variables, an immutable mapping that
 * the other one keeps alive.
 *
 * Only for the types of _asyncio, whose state is all in C. Not without a GIL, where other threads
 * may be writing to those bytes. */
#include "bridge/imprint.h"

#include <string.h>

void pp_imprint_forget(struct pp_imprint *im)
{
    im->task_bytes = im->parking_bytes = 0;
}

#if PY_VERSION_HEX >= 0x030D0000
static int found(PyObject *Py_UNUSED(dict), void *Py_UNUSED(arg))
{
    return 1;
}
#endif

/* Where the dict has a place in the struct, no imprint with one is ever taken. */
static bool dict_elsewhere(PyObject *op)
{
#if PY_VERSION_HEX >= 0x030D0000
    return PyObject_VisitManagedDict(op, found, NULL) != 0;
#else
    (void)op;
    return false;
#endif
}

bool pp_imprint_has_dict(PyObject *op)
{
    Py_ssize_t offset = Py_TYPE(op)->tp_dictoffset;
    PyObject *dict = NULL;
    if (offset > 0) {
        memcpy(&dict, (const char *)op + offset, sizeof dict);
        return dict != NULL;
    }
#if PY_VERSION_HEX >= 0x030D0000
    if (PyType_HasFeature(Py_TYPE(op), Py_TPFLAGS_MANAGED_DICT)) {
        return dict_elsewhere(op);
    }
#endif
    return offset != 0; /* cannot be told */
}

#ifdef Py_GIL_DISABLED

void pp_imprint_take(struct pp_imprint *im, PyObject *Py_UNUSED(task), PyObject *Py_UNUSED(parking))
{
    pp_imprint_forget(im);
}

bool pp_imprint_matches_task(const struct pp_imprint *Py_UNUSED(im), PyObject *Py_UNUSED(task))
{
    return false;
}

bool pp_imprint_matches(const struct pp_imprint *Py_UNUSED(im), PyObject *Py_UNUSED(task),
                        PyObject *Py_UNUSED(parking))
{
    return false;
}

bool pp_imprint_same_context(PyObject *Py_UNUSED(one), PyObject *Py_UNUSED(other))
{
    return false;
}

#else

static const char *bytes_of(PyObject *op)
{
    return (const char *)op + sizeof(PyObject); /* the count changes all the time */
}

/* 0 when there is more to the object than its struct. */
static size_t bytes_count(PyObject *op, const char *type_name, size_t max)
{
    const PyTypeObject *type = Py_TYPE(op);
    if (strcmp(type->tp_name, type_name) != 0 || type->tp_itemsize != 0 ||
        type->tp_basicsize <= (Py_ssize_t)sizeof(PyObject) ||
        (size_t)type->tp_basicsize - sizeof(PyObject) > max) {
        return 0;
    }
    return (size_t)type->tp_basicsize - sizeof(PyObject);
}

/* Borrowed; NULL if there are no weak references. */
static PyObject *weakrefs_of(PyObject *op)
{
    Py_ssize_t offset = Py_TYPE(op)->tp_weaklistoffset;
    PyObject *head = NULL;
    if (offset != 0) {
        memcpy(&head, (const char *)op + offset, sizeof head);
    }
    return head;
}

/* Those without a callback come first. */
static bool all_have_callbacks(PyObject *op)
{
    PyObject *head = Py_XNewRef(weakrefs_of(op));
    if (head == NULL) {
        return true;
    }
    PyObject *callback = PyObject_GetAttrString(head, "__callback__");
    bool has_one = callback != NULL && callback != Py_None;
    PyErr_Clear();
    Py_XDECREF(callback);
    Py_DECREF(head);
    return has_one;
}

void pp_imprint_take(struct pp_imprint *im, PyObject *task, PyObject *parking)
{
    pp_imprint_forget(im);
    size_t task_bytes = bytes_count(task, "_asyncio.Task", sizeof im->task);
    size_t parking_bytes =
        parking != NULL ? bytes_count(parking, "_asyncio.Future", sizeof im->parking) : 0;
    if (task_bytes == 0 || (parking != NULL && parking_bytes == 0) || !all_have_callbacks(task)) {
        return;
    }
    memcpy(im->task, bytes_of(task), task_bytes);
    if (parking != NULL) {
        memcpy(im->parking, bytes_of(parking), parking_bytes);
    }
    im->task_object = task;
    im->parking_object = parking;
    im->weakrefs = weakrefs_of(task);
    im->task_bytes = task_bytes;
    im->parking_bytes = parking_bytes;
}

bool pp_imprint_matches_task(const struct pp_imprint *im, PyObject *task)
{
    return im->task_bytes != 0 && im->task_object == task && weakrefs_of(task) == im->weakrefs &&
           !dict_elsewhere(task) && memcmp(im->task, bytes_of(task), im->task_bytes) == 0;
}

bool pp_imprint_matches(const struct pp_imprint *im, PyObject *task, PyObject *parking)
{
    return im->parking_object == parking && pp_imprint_matches_task(im, task) &&
           (parking == NULL || (weakrefs_of(parking) == NULL && !dict_elsewhere(parking) &&
                                memcmp(im->parking, bytes_of(parking), im->parking_bytes) == 0));
}

bool pp_imprint_same_context(PyObject *one, PyObject *other)
{
    size_t bytes = (size_t)PyContext_Type.tp_basicsize - sizeof(PyObject);
    return PyContext_CheckExact(one) && PyContext_CheckExact(other) &&
           memcmp(bytes_of(one), bytes_of(other), bytes) == 0;
}

#endif
