/* A Task for each request. */
#ifndef PP_BRIDGE_OWN_TASK_H
#define PP_BRIDGE_OWN_TASK_H

#include "bridge/app_call.h"

extern PyType_Spec pp_own_task_spec;

/* Runs the application for one request in a Task that is made for it; never raises. */
void pp_own_task_run(PpCore *core, const struct pp_app_call *call);

#endif
