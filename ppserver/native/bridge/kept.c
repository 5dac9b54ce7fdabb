/* Memory of objects that every request makes and drops: kept for the next request.
 *
 * Like the interpreter's own free lists: what is kept is memory of the right size and no object any
 * more. A list belongs to a Core and serves one type, which it holds, because freeing the memory
 * reads the type, and the module may have let go of it by then. A Core's objects hold the Core, so
 * they can give their memory back. Not without a GIL, where an object can die on any thread. */
#include "bridge/kept.h"

#include <string.h>

PyObject *pp_kept_take(struct pp_kept *kept, PyTypeObject *type)
{
    if (kept->count == 0) {
        return type->tp_alloc(type, 0);
    }
    PyObject *op = kept->items[--kept->count];
    memset((char *)op + sizeof(PyObject), 0, (size_t)type->tp_basicsize - sizeof(PyObject));
    PyObject_Init(op, type); /* with a reference to the type */
    PyObject_GC_Track(op);
    return op;
}

void pp_kept_give(struct pp_kept *kept, PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
#ifndef Py_GIL_DISABLED
    if (PP_LIKELY(kept->count < PP_KEPT_MAX)) {
        kept->items[kept->count++] = op;
        if (PP_UNLIKELY(kept->type == NULL)) {
            kept->type = type; /* the object's reference */
        } else {
            Py_DECREF(type);
        }
        return;
    }
#endif
    (void)kept;
    type->tp_free(op);
    Py_DECREF(type);
}

void pp_kept_fini(struct pp_kept *kept)
{
    while (kept->count > 0) {
        PyObject_GC_Del(kept->items[--kept->count]);
    }
    Py_CLEAR(kept->type);
}
