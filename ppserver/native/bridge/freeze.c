/* The walk: from some roots to everything reachable, then one write to each header.
 *
 * It keeps the objects it finds in the order of discovery, which serves as the queue of what is
 * still to be walked (so nothing recurses, however deep the data), beside a hash set of their
 * addresses. It holds a reference to each, so whatever happens between two slices nothing goes away
 * beneath it. Headers are written when the whole walk has succeeded; until then an error gives all
 * references back and leaves everything as it was.
 *
 * A slice runs while no other Python code does: the GIL is held, or on a free-threaded build the
 * world is stopped. Between slices it asks Python what is in arrays and reports progress.
 *
 * Live resources (see freeze_types.c) are in the queue, too, but marked: they are counted, not
 * walked through and not written to. Memory is the native layers' own. */
#include "bridge/freeze.h"
#include "bridge/freeze_header.h"
#include "bridge/freeze_held.h"
#include "bridge/freeze_types.h"

#include <string.h>

#include "base/mem.h"

#define SLICE_OBJECTS 262144
#define FIRST_SLOTS 4096 /* a power of two */
#define TYPE_SLOTS_FIRST 1024
#define LIVE_TAG ((uintptr_t)1)

struct type_entry {
    PyTypeObject *type; /* borrowed: the type is itself among the objects; NULL is free */
    enum pp_freeze_kind kind;
    size_t live_count;
};

struct walk {
    uintptr_t *objects; /* owned references, LIVE_TAG in bit 0 */
    size_t count, room, walked, room_max;
    uintptr_t *slots; /* hash set of addresses; 0 is free */
    size_t slot_count;
    struct type_entry *types; /* hash map by address */
    size_t type_count, type_slot_count;
    size_t *asking; /* indices of objects to ask Python about */
    size_t asking_count, asking_room;
    size_t visited; /* references seen in the object being walked */
    uint64_t bytes, frozen;
    bool out_of_memory;
    struct pp_freeze_held held;    /* what suspended frames hold, once headers are written */
    PyObject *live, *expand_types; /* borrowed tuples of types */
    PyObject *expand, *progress;   /* borrowed callables; progress may be None */
};

static size_t hash_of(const void *ptr, size_t slot_count)
{
    uint64_t mixed = (uint64_t)(uintptr_t)ptr * UINT64_C(0x9E3779B97F4A7C15);
    return (size_t)(mixed >> 20) & (slot_count - 1);
}

/* ---- growing tables ---- */

static bool grow_slots(struct walk *w)
{
    size_t wanted = w->slot_count == 0 ? FIRST_SLOTS : w->slot_count * 2;
    if (wanted > SIZE_MAX / sizeof(*w->slots) / 2) {
        return false;
    }
    uintptr_t *slots = pp_mem_zalloc(wanted * sizeof(*slots));
    if (slots == NULL) {
        return false;
    }
    for (size_t i = 0; i < w->count; i++) {
        uintptr_t address = w->objects[i] & ~LIVE_TAG;
        size_t slot = hash_of((void *)address, wanted);
        while (slots[slot] != 0) {
            slot = (slot + 1) & (wanted - 1);
        }
        slots[slot] = address;
    }
    pp_mem_free(w->slots, w->slot_count * sizeof(*w->slots));
    w->slots = slots;
    w->slot_count = wanted;
    return true;
}

/* Doubles an array of `item` bytes; false when memory is out, and nothing has changed. */
static bool grow_array(void **array, size_t *room, size_t item)
{
    size_t wanted = *room == 0 ? FIRST_SLOTS : *room * 2;
    if (wanted > SIZE_MAX / item / 2) {
        return false;
    }
    void *bigger = pp_mem_realloc(*array, *room * item, wanted * item);
    if (bigger == NULL) {
        return false;
    }
    *array = bigger;
    *room = wanted;
    return true;
}

static bool grow_types(struct walk *w)
{
    size_t wanted = w->type_slot_count == 0 ? TYPE_SLOTS_FIRST : w->type_slot_count * 2;
    if (wanted > SIZE_MAX / sizeof(*w->types) / 2) {
        return false;
    }
    struct type_entry *types = pp_mem_zalloc(wanted * sizeof(*types));
    if (types == NULL) {
        return false;
    }
    for (size_t i = 0; i < w->type_slot_count; i++) {
        if (w->types[i].type != NULL) {
            size_t slot = hash_of(w->types[i].type, wanted);
            while (types[slot].type != NULL) {
                slot = (slot + 1) & (wanted - 1);
            }
            types[slot] = w->types[i];
        }
    }
    pp_mem_free(w->types, w->type_slot_count * sizeof(*w->types));
    w->types = types;
    w->type_slot_count = wanted;
    return true;
}

/* ---- one slice ---- */

/* Puts op into the queue unless it was there. A visitproc: not 0 ends the traversal. */
static int add(PyObject *op, void *arg)
{
    struct walk *w = arg;
    w->visited++;
    if (w->slot_count == 0) {
        w->out_of_memory = true;
        return -1;
    }
    size_t slot = hash_of(op, w->slot_count);
    while (w->slots[slot] != 0) {
        if (w->slots[slot] == (uintptr_t)op) {
            return 0;
        }
        slot = (slot + 1) & (w->slot_count - 1);
    }
    PP_ASSERT(((uintptr_t)op & LIVE_TAG) == 0);
    if (w->count == w->room && !grow_array((void **)&w->objects, &w->room, sizeof(*w->objects))) {
        w->out_of_memory = true;
        return -1;
    }
    w->objects[w->count++] = (uintptr_t)Py_NewRef(op);
    w->slots[slot] = (uintptr_t)op;
    /* At most two thirds full, and room for the next one before it is needed. */
    if (w->count >= w->slot_count / 3 * 2 && !grow_slots(w)) {
        w->out_of_memory = true;
        return -1;
    }
    return 0;
}

/* The entry of a type, made (and the type queued) when it is first met; NULL when memory is out. */
static struct type_entry *entry_of(struct walk *w, PyTypeObject *type)
{
    size_t slot = hash_of(type, w->type_slot_count);
    while (w->types[slot].type != NULL) {
        if (w->types[slot].type == type) {
            return &w->types[slot];
        }
        slot = (slot + 1) & (w->type_slot_count - 1);
    }
    if (add((PyObject *)type, w) != 0) {
        return NULL;
    }
    if (w->type_count >= w->type_slot_count / 2) {
        if (!grow_types(w)) {
            w->out_of_memory = true;
            return NULL;
        }
        slot = hash_of(type, w->type_slot_count);
        while (w->types[slot].type != NULL) {
            slot = (slot + 1) & (w->type_slot_count - 1);
        }
    }
    w->types[slot] =
        (struct type_entry){type, pp_freeze_kind_of(type, w->live, w->expand_types), 0};
    w->type_count++;
    return &w->types[slot];
}

static bool walk_one(struct walk *w, size_t index)
{
    PyObject *op = (PyObject *)w->objects[index];
    struct type_entry *entry = entry_of(w, Py_TYPE(op));
    if (entry == NULL) {
        return false;
    }
    enum pp_freeze_kind kind = entry->kind;
    if (kind == PP_FREEZE_LIVE) {
        entry->live_count++;
        w->objects[index] |= LIVE_TAG;
        return true;
    }
    if (kind == PP_FREEZE_EXPAND) {
        if (w->asking_count == w->asking_room &&
            !grow_array((void **)&w->asking, &w->asking_room, sizeof(*w->asking))) {
            w->out_of_memory = true;
            return false;
        }
        w->asking[w->asking_count++] = index;
    }
    w->visited = 0;
    if (pp_freeze_visit(op, kind, add, w) != 0) {
        return false;
    }
    if (!pp_freeze_header_get(op)) {
        w->bytes += pp_freeze_bytes(op, kind, w->visited);
        w->frozen++;
    }
    return true;
}

static void walk_slice(struct walk *w)
{
    for (size_t left = SLICE_OBJECTS; left > 0 && w->walked < w->count; left--) {
        if (!walk_one(w, w->walked)) {
            PP_ASSERT(w->out_of_memory);
            return;
        }
        w->walked++;
    }
}

/* ---- the header writes ---- */

/* A string that is interned but mortal is not counted by the table of interned strings; one that is
 * interned for good says so, and the table lets go of it in another way at the end. */
static void make_immortal(uintptr_t *object)
{
    PyObject *op = (PyObject *)*object;
    bool mortal = !pp_freeze_header_get(op);
    if (!pp_freeze_header_set(op)) {
        *object |= LIVE_TAG; /* keeps its count: ours is given back */
        return;
    }
#if PY_VERSION_HEX >= 0x030C0000
    if (mortal && PyUnicode_CheckExact(op) && PyUnicode_CHECK_INTERNED(op) == 1) {
        ((PyASCIIObject *)op)->state.interned = 2; /* SSTATE_INTERNED_IMMORTAL */
    }
#else
    (void)mortal;
#endif
}

static void make_all_immortal(struct walk *w)
{
    if (!pp_freeze_held_find(&w->held)) {
        w->out_of_memory = true;
        return;
    }
    for (size_t i = 0; i < w->count; i++) {
        if (pp_freeze_held_has(&w->held, (PyObject *)(w->objects[i] & ~LIVE_TAG))) {
            w->objects[i] |= LIVE_TAG;
        }
        if ((w->objects[i] & LIVE_TAG) == 0) {
            make_immortal(&w->objects[i]);
        }
    }
    /* A weak reference to what never dies is as constant as that: isinstance() with an abstract
     * class, for one, counts references to it. */
    for (size_t i = 0; i < w->count; i++) {
        if ((w->objects[i] & LIVE_TAG) != 0 &&
            pp_freeze_is_settled_weakref((PyObject *)(w->objects[i] & ~LIVE_TAG))) {
            w->objects[i] &= ~LIVE_TAG;
            make_immortal(&w->objects[i]);
        }
    }
}

/* Types get the number by which caches know them when they are first used, which is a write, too.
 * Here, while others may run: it takes a lock of the interpreter. */
static void number_types(struct walk *w)
{
#if PY_VERSION_HEX >= 0x030C0000
    for (size_t i = 0; i < w->count; i++) {
        PyObject *op = (PyObject *)w->objects[i];
        if ((w->objects[i] & LIVE_TAG) == 0 && PyType_Check(op)) {
            (void)PyUnstable_Type_AssignVersionTag((PyTypeObject *)op); /* or it has run out */
        }
    }
#else
    (void)w;
#endif
}

/* ---- while nobody else runs ---- */

#ifdef Py_GIL_DISABLED
struct stopped {
    void (*run)(struct walk *);
    struct walk *walk;
    bool done;
};

static int on_first_object(PyObject *Py_UNUSED(op), void *arg)
{
    struct stopped *stopped = arg;
    if (!stopped->done) {
        stopped->done = true;
        stopped->run(stopped->walk);
    }
    return 0;
}
#endif

/* Runs `run` while no other thread runs Python code. The one documented way to stop the world is to
 * have the collector's objects visited: at the first of them it stands still. */
static int run_alone(void (*run)(struct walk *), struct walk *w)
{
#ifdef Py_GIL_DISABLED
    struct stopped stopped = {.run = run, .walk = w};
    PyObject *visible = PyList_New(0); /* what is frozen already would not be visited */
    if (visible == NULL) {
        return -1;
    }
    PyUnstable_GC_VisitObjects(on_first_object, &stopped);
    Py_DECREF(visible);
    if (!stopped.done) {
        PyErr_SetString(PyExc_RuntimeError, "freeze: the interpreter cannot be stopped");
        return -1;
    }
#else
    run(w);
#endif
    if (w->out_of_memory) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

/* ---- between slices ---- */

/* Asks `expand` what one array holds: (list of objects, bytes of its buffer). */
static int ask_about(struct walk *w, PyObject *op)
{
    PyObject *answer = PyObject_CallOneArg(w->expand, op);
    if (answer == NULL) {
        return -1;
    }
    PyObject *found;
    Py_ssize_t bytes;
    int rc = -1;
    if (!PyTuple_Check(answer)) {
        PyErr_SetString(PyExc_TypeError, "expand must return a tuple (objects, bytes)");
        goto done;
    }
    if (!PyArg_ParseTuple(answer, "O!n", &PyList_Type, &found, &bytes)) {
        goto done;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(found); i++) {
        if (add(PyList_GET_ITEM(found, i), w) != 0) {
            PyErr_NoMemory();
            goto done;
        }
    }
    if (!pp_freeze_header_get(op) && bytes > 0) {
        w->bytes += (uint64_t)bytes;
    }
    rc = 0;
done:
    Py_DECREF(answer);
    return rc;
}

static int between_slices(struct walk *w)
{
    for (size_t i = 0; i < w->asking_count; i++) {
        if (ask_about(w, (PyObject *)w->objects[w->asking[i]]) < 0) {
            return -1;
        }
    }
    w->asking_count = 0;
    if (PyErr_CheckSignals() < 0) {
        return -1;
    }
    if (w->progress == Py_None) {
        return 0;
    }
    PyObject *nothing = PyObject_CallFunction(w->progress, "KK", (unsigned long long)w->count,
                                              (unsigned long long)w->bytes);
    Py_XDECREF(nothing);
    return nothing == NULL ? -1 : 0;
}

/* ---- the whole ---- */

static int walk_all(struct walk *w, PyObject *roots)
{
    if (!grow_slots(w) || !grow_types(w)) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(roots); i++) {
        if (add(PyTuple_GET_ITEM(roots, i), w) != 0) {
            PyErr_NoMemory();
            return -1;
        }
    }
    while (w->walked < w->count) {
        if (run_alone(walk_slice, w) < 0 || between_slices(w) < 0) {
            return -1;
        }
    }
    return 0;
}

static PyObject *count_live(struct walk *w)
{
    PyObject *counts = PyDict_New();
    if (counts == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < w->type_slot_count; i++) {
        if (w->types[i].type == NULL || w->types[i].live_count == 0) {
            continue;
        }
        PyObject *number = PyLong_FromSize_t(w->types[i].live_count);
        if (number == NULL || PyDict_SetItem(counts, (PyObject *)w->types[i].type, number) < 0) {
            Py_XDECREF(number);
            Py_DECREF(counts);
            return NULL;
        }
        Py_DECREF(number);
    }
    return counts;
}

static PyObject *freeze(struct walk *w, PyObject *roots)
{
    if (walk_all(w, roots) < 0) {
        return NULL;
    }
    PyObject *live = count_live(w);
    if (live == NULL) {
        return NULL;
    }
    number_types(w);
    PyObject *result =
        Py_BuildValue("(KKO)", (unsigned long long)w->frozen, (unsigned long long)w->bytes, live);
    Py_DECREF(live);
    if (result != NULL && run_alone(make_all_immortal, w) < 0) {
        Py_CLEAR(result);
    }
    return result;
}

/* Gives back every reference; those to what is immortal by now are used up, and this changes
 * nothing. May run finalisers, so it must not hold anything else. */
static void fini(struct walk *w)
{
    uintptr_t *objects = w->objects;
    size_t count = w->count, room = w->room;
    pp_freeze_held_fini(&w->held);
    pp_mem_free(w->slots, w->slot_count * sizeof(*w->slots));
    pp_mem_free(w->types, w->type_slot_count * sizeof(*w->types));
    pp_mem_free(w->asking, w->asking_room * sizeof(*w->asking));
    for (size_t i = 0; i < count; i++) {
        Py_DECREF((PyObject *)(objects[i] & ~LIVE_TAG));
    }
    pp_mem_free(objects, room * sizeof(*objects));
}

static int check_types(PyObject *types)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(types); i++) {
        if (!PyType_Check(PyTuple_GET_ITEM(types, i))) {
            PyErr_SetString(PyExc_TypeError, "live and expand_types must be tuples of types");
            return -1;
        }
    }
    return 0;
}

static PyObject *freeze_objects(PyObject *module, PyObject *args)
{
    PpState *st = PyModule_GetState(module);
    struct walk w = {0};
    PyObject *roots;
    if (!PyArg_ParseTuple(args, "O!O!O!OO", &PyTuple_Type, &roots, &PyTuple_Type, &w.live,
                          &PyTuple_Type, &w.expand_types, &w.expand, &w.progress)) {
        return NULL;
    }
    if (st->freeze_refusal != NULL) {
        PyErr_Format(PyExc_RuntimeError, "freeze: %s", st->freeze_refusal);
        return NULL;
    }
    if (check_types(w.live) < 0 || check_types(w.expand_types) < 0) {
        return NULL;
    }
    PyObject *result = freeze(&w, roots);
    PyObject *error = PyErr_GetRaisedException();
    fini(&w);
    if (error != NULL) {
        PyErr_SetRaisedException(error);
    }
    return result;
}

static PyObject *is_immortal(PyObject *Py_UNUSED(module), PyObject *op)
{
    return PyBool_FromLong(pp_freeze_header_get(op));
}

static PyObject *freeze_support(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    PpState *st = PyModule_GetState(module);
    return Py_BuildValue("(ss)",
                         st->freeze_refusal == NULL ? "on"
                         : st->freeze_broken        ? "broken"
                                                    : "off",
                         st->freeze_refusal == NULL ? "" : st->freeze_refusal);
}

int pp_freeze_init(PpState *st)
{
    st->freeze_refusal = pp_freeze_header_refusal();
    if (st->freeze_refusal == NULL && PyInterpreterState_Get() != PyInterpreterState_Main()) {
        st->freeze_refusal = "only the main interpreter's objects are made immortal";
    }
    if (st->freeze_refusal != NULL) {
        return 0;
    }
    int works = pp_freeze_header_self_test();
    if (works == 0) {
        st->freeze_broken = true;
        st->freeze_refusal = "this Python does not lay objects out as expected";
    }
    return works < 0 ? -1 : 0;
}

#if defined(PP_FAILURE_INJECTION) && PP_FAILURE_INJECTION
static PyObject *fail_allocation(PyObject *Py_UNUSED(module), PyObject *arg)
{
    unsigned long long nth = PyLong_AsUnsignedLongLong(arg);
    if (nth == (unsigned long long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    pp_mem_fail_at(nth);
    Py_RETURN_NONE;
}
#endif

PyMethodDef pp_freeze_methods[] = {
    {"freeze_objects", freeze_objects, METH_VARARGS,
     PyDoc_STR("freeze_objects(roots, live, expand_types, expand, progress) -> "
               "(objects, bytes, {type: count left mortal})\n\n"
               "Makes what is reachable from the roots immortal. `expand` is called with each "
               "instance of `expand_types` and says what is in it: (objects, bytes).")},
    {"is_immortal", is_immortal, METH_O,
     PyDoc_STR("is_immortal(obj) -> bool\n\nWhether nobody counts references to obj.")},
    {"freeze_support", freeze_support, METH_NOARGS,
     PyDoc_STR("freeze_support() -> (state, reason)\n\n'on'; 'off' or 'broken' with the reason.")},
#if defined(PP_FAILURE_INJECTION) && PP_FAILURE_INJECTION
    {"_fail_allocation", fail_allocation, METH_O,
     PyDoc_STR("_fail_allocation(n)\n\nThe nth native allocation from now fails; 0: none.")},
#endif
    {NULL, NULL, 0, NULL},
};
