/* What receive() and send() return. */
#ifndef PP_BRIDGE_AWAITABLE_H
#define PP_BRIDGE_AWAITABLE_H

#include "bridge/request.h"

extern PyType_Spec pp_done_spec, pp_wait_spec;
PyObject *pp_done_new(PpCore *core);
PyObject *pp_wait_new(PpRequest *req, enum pp_wait_kind kind);
void pp_wake_waiters(PpCore *core, PyObject **waiters); /* never raises */
/* send()/tp_iternext()/throw() of our awaitables, in terms of am_send. */
PyObject *pp_awaitable_next(PyObject *self);
PyObject *pp_awaitable_send(PyObject *self, PyObject *value);
/* throw(type_or_exc[, value[, tb]]) arguments -> raised exception; always returns NULL. */
PyObject *pp_raise_thrown(PyObject *const *args, Py_ssize_t nargs);

#endif
