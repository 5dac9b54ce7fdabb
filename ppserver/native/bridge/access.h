/* The access log by way of Python. */
#ifndef PP_BRIDGE_ACCESS_H
#define PP_BRIDGE_ACCESS_H

#include "bridge/core_base.h"

/* The line of a request, before pp_conn_finish, where core->access_log is set. Never raises. */
void pp_access_log(PpCore *core, struct pp_conn *conn);

#endif
