/* wsgi.file_wrapper. */
#ifndef PP_BRIDGE_WSGI_FILE_H
#define PP_BRIDGE_WSGI_FILE_H

#include "bridge/core_base.h"

extern PyType_Spec pp_file_wrapper_spec;
/* The wrapped file of a file_wrapper object (borrowed) and its block size; NULL if it is none. */
PyObject *pp_wsgi_file_of(PpState *state, PyObject *wrapper, Py_ssize_t *block_bytes);

#endif
