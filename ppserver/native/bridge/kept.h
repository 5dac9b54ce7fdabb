/* Memory of dead objects, for new ones. */
#ifndef PP_BRIDGE_KEPT_H
#define PP_BRIDGE_KEPT_H

#include "bridge/compat.h"

/* Memory of dead objects of one type, for new ones. */
#define PP_KEPT_MAX 32
struct pp_kept {
    PyTypeObject *type;           /* owned or NULL: the type they had */
    PyObject *items[PP_KEPT_MAX]; /* owned memory, no objects */
    unsigned count;
};

/* A new object of a type with a GC head, tracked, its fields zero; NULL with an exception. */
PyObject *pp_kept_take(struct pp_kept *kept, PyTypeObject *type);
/* The end of tp_dealloc of an untracked object that has let go of everything: instead of tp_free,
 * and of giving back its reference to its type. */
void pp_kept_give(struct pp_kept *kept, PyObject *op);
void pp_kept_fini(struct pp_kept *kept);

#endif
