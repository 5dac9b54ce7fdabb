/* A process that the application has forked, and that comes back. */
#ifndef PP_BRIDGE_FORKED_H
#define PP_BRIDGE_FORKED_H

#include "bridge/core_base.h"

/* Whether this is not the process that serves, but one that the application has forked. Takes a
 * system call. */
bool pp_forked(const PpCore *core);
/* _forked() of Core, which is called in each forked child. */
PyObject *pp_core_forked(PyObject *self, PyObject *ignored);
/* Where an ASGI core has no loop: ends the process if that is why. Attached. */
void pp_forked_back(PpCore *core);
/* There: ends it, by the raised exception if there is one. Attached. */
_Noreturn void pp_forked_end(PpCore *core, PyObject *scope_or_environ);

#endif
