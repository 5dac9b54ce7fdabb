/* What the freezing walk does with an instance of which type. */
#ifndef PP_BRIDGE_FREEZE_TYPES_H
#define PP_BRIDGE_FREEZE_TYPES_H

#include "bridge/compat.h"

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

#endif
