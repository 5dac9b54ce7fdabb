/* Awaitables without coroutine objects: what they wait for is their owner's affair. */
#ifndef PP_BRIDGE_AWAITABLE_H
#define PP_BRIDGE_AWAITABLE_H

#include "bridge/core_base.h"

/* What an awaitable of one kind waits for. */
struct pp_wait_kind {
    /* What there is now: 1 and the result, 0 when it has to wait, -1 with an exception. */
    int (*look)(PyObject *owner, PyObject **result);
    /* Where in the owner those that wait are kept, for pp_wake_waiters: the offset of a list or
     * NULL. Of no account to kinds that never wait. */
    size_t waiters;
};

extern PyType_Spec pp_done_spec, pp_wait_spec;

/* An awaitable that has finished; NULL with an exception. */
PyObject *pp_done_new(PpCore *core);
/* One that looks when it is awaited, after so many turns of the loop that it leaves to others; the
 * owner keeps the core alive. NULL with an exception. */
PyObject *pp_wait_new(PpCore *core, PyObject *owner, const struct pp_wait_kind *kind, int turns);
void pp_wake_waiters(PpCore *core, PyObject **waiters); /* never raises */

/* send()/tp_iternext()/throw() of our awaitables, in terms of am_send. */
PyObject *pp_awaitable_next(PyObject *self);
PyObject *pp_awaitable_send(PyObject *self, PyObject *value);
/* throw(type_or_exc[, value[, tb]]) arguments -> raised exception; always returns NULL. */
PyObject *pp_raise_thrown(PyObject *const *args, Py_ssize_t nargs);

#endif
