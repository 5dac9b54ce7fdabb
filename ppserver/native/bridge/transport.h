/* A connection as protocols see it: its life, and its output. */
#ifndef PP_BRIDGE_TRANSPORT_H
#define PP_BRIDGE_TRANSPORT_H

#include "bridge/parallel_base.h"

PpTransport *pp_transport_new(struct pp_par *par,
                              struct pp_exchange *ex); /* NULL with an exception */
/* For the type. */
int pp_transport_traverse(PyObject *self, visitproc visit, void *arg);
int pp_transport_clear(PyObject *self);
void pp_transport_dealloc(PyObject *self);
/* Adds to the turn's output. Steals bytes. -1 with an exception. */
int pp_transport_push(PpTransport *t, PyObject *bytes);
/* Likewise a range of a file; its reference stays the caller's when it fails. */
int pp_transport_push_file(PpTransport *t, struct pp_file *file, uint64_t at, uint64_t len);
/* Adds what a callback returned: NULL with an exception, None, or something to send. Steals given.
 * -1 with an exception. */
int pp_transport_take(PpTransport *t, PyObject *given);
/* bytes for what is to be sent, or NULL with an exception. Steals given. */
PyObject *pp_transport_bytes_of(PyObject *given);

#endif
