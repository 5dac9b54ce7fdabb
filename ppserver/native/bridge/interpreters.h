/* Running a program in a subinterpreter of its own. */
#ifndef PP_BRIDGE_INTERPRETERS_H
#define PP_BRIDGE_INTERPRETERS_H

#include "bridge/compat.h"

/* run_interpreter(program): makes a subinterpreter with a GIL of its own, runs the text there on
 * the calling thread and returns when it has ended; the interpreter itself stays until the process
 * ends. None, or NULL with RuntimeError: not possible here, or the exception that escaped. */
PyObject *pp_interpreters_run(PyObject *module, PyObject *program);
/* thread_frame(ident): the innermost frame of a thread in the interpreter that asks, or None. Not
 * without a GIL, where the thread may be running. */
PyObject *pp_interpreters_thread_frame(PyObject *module, PyObject *ident);

#endif
