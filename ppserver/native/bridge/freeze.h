/* Making what is loaded immortal, so that no context ever writes to it.
 *
 * Three parts: the walk (freeze.c), what it knows of each type (freeze_types.c), and the write to
 * an object's header (freeze_header*.c), the one place that knows how CPython lays it out. */
#ifndef PP_BRIDGE_FREEZE_H
#define PP_BRIDGE_FREEZE_H

#include "bridge/core_base.h"

/* ---- freeze.c ---- */

extern PyMethodDef pp_freeze_methods[]; /* functions of the module */
/* Tries the header write on scratch objects and remembers the answer in the module's state. -1 with
 * an exception when memory is out; a layout that is not the expected one is no error. */
int pp_freeze_init(PpState *st);

/* ---- freeze_types.c ---- */

/* What the walk does with an instance. */
enum pp_freeze_kind {
    PP_FREEZE_LEAF,   /* no references within */
    PP_FREEZE_STR,    /* no references, but a hash to fill in */
    PP_FREEZE_GC,     /* tp_traverse says it all */
    PP_FREEZE_DICT,   /* tp_traverse leaves out keys that are strings */
    PP_FREEZE_TYPE,   /* neither the names nor anything of a static type */
    PP_FREEZE_CODE,   /* not traversable at all */
    PP_FREEZE_EXPAND, /* asks Python: NumPy arrays and other buffers */
    PP_FREEZE_LIVE    /* left mortal, and not walked through */
};

/* The kind of a type's instances. `live` and `expand` are tuples of types (subclasses count). Calls
 * no Python code and allocates nothing. */
enum pp_freeze_kind pp_freeze_kind_of(PyTypeObject *type, PyObject *live, PyObject *expand);
/* Calls visit for every reference op holds that is worth freezing; its first result that is not 0,
 * or 0. Calls no Python code and allocates nothing from the interpreter. */
int pp_freeze_visit(PyObject *op, enum pp_freeze_kind kind, visitproc visit, void *arg);
/* Whether op is a weak reference to an immortal object. */
bool pp_freeze_is_settled_weakref(PyObject *op);
/* An estimate of the memory op itself takes; `visited` is how many references it holds. */
size_t pp_freeze_bytes(PyObject *op, enum pp_freeze_kind kind, size_t visited);

/* ---- freeze_held.c ---- */

struct pp_freeze_held {
    PyObject **slots; /* owned: a hash set of borrowed references; NULL is free */
    size_t slot_count, count;
    bool out_of_memory;
};

/* Finds the objects that suspended frames hold and that must stay mortal for it; none where that
 * does not matter. Nobody else may be running Python code, from here to the last question. Starts
 * from zeroes; false when memory is out. Calls no Python code. */
bool pp_freeze_held_find(struct pp_freeze_held *held);
bool pp_freeze_held_has(const struct pp_freeze_held *held, PyObject *op);
void pp_freeze_held_fini(struct pp_freeze_held *held);

/* ---- freeze_header.c, and one of freeze_header_{312,313t,314,none}.c ---- */

/* Why objects of this build cannot be made immortal, or NULL. Says nothing of a self-test. */
const char *pp_freeze_header_refusal(void);
bool pp_freeze_header_get(PyObject *op); /* whether it is immortal */
/* Makes op immortal; the caller's reference is used up by that. False if it must stay mortal.
 * Nobody else may be running Python code: the GIL is held, or the world is stopped. */
bool pp_freeze_header_set(PyObject *op);
/* Makes a scratch object immortal and mortal again, and looks whether the interpreter and this file
 * mean the same. 1 they do, 0 they do not, -1 with an exception. */
int pp_freeze_header_self_test(void);

#endif
