/* The ASGI scope of a request. */
#ifndef PP_BRIDGE_SCOPE_H
#define PP_BRIDGE_SCOPE_H

#include "bridge/core_base.h"

/* A new scope dict for the request that begins on ex; NULL with an exception. */
PyObject *pp_scope_new(PpCore *core, struct pp_exchange *ex);
int pp_scope_setup(PpCore *core); /* the templates; -1 with an exception */
/* The peer as (host, port) tuple or None (new reference), cached on the connection. */
PyObject *pp_scope_client(PpCore *core, struct pp_exchange *ex);
/* Takes "auto", "stripped" or "unstripped"; NULL is "auto". -1 with an exception. */
int pp_scope_set_root_path_mode(PpCore *core, const char *name);
/* Whether a decoded path stands under the root path already: 1, 0, or -1 with an exception. */
int pp_scope_under_root(PyObject *root_path, PyObject *path);

#endif
