/* The access log by way of Python, where core->access_log is set. */
#ifndef PP_BRIDGE_ACCESS_H
#define PP_BRIDGE_ACCESS_H

#include "bridge/core_base.h"

/* The line of the request on ex but its status: client, method, target and version. The loop's
 * thread. NULL, without an exception: there is no such log, or no memory. */
PyObject *pp_access_of(PpCore *core, const struct pp_exchange *ex);
/* Writes the line; inside the application. Steals args, which may be NULL: there is no line. Never
 * raises. */
void pp_access_log(PpCore *core, PyObject *args, int status);

#endif
