/* What the two types of ppserver.shared have in common. */
#ifndef PP_BRIDGE_SHARED_H
#define PP_BRIDGE_SHARED_H

#include "bridge/compat.h"

extern PyType_Spec pp_shared_counter_spec, pp_shared_array_spec; /* the types of ppserver.shared */

/* The memory is shared between processes, so an atomic that is really a lock would be none. */
static_assert(__atomic_always_lock_free(8, 0), "64-bit atomics without a lock");

/* New shared memory for an object of `type`, or NULL with an exception: RuntimeError when contexts
 * have started and `private` is false, MemoryError or OSError from the kernel. */
void *pp_shared_map(PyTypeObject *type, size_t bytes, int private);
/* __reduce__ of both: always TypeError. */
PyObject *pp_shared_reduce(PyObject *self, PyObject *ignored);

#endif
