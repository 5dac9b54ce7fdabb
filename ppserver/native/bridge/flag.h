/* Asking objects of Python yes or no. */
#ifndef PP_BRIDGE_FLAG_H
#define PP_BRIDGE_FLAG_H

#include "bridge/compat.h"

/* Whether an attribute is true; -1 with an exception. */
int pp_flag_of(PyObject *object, PyObject *attr);
/* Calls a method without arguments; whether what it returns is true, -1 with an exception. */
int pp_flag_call(PyObject *object, PyObject *method);

#endif
