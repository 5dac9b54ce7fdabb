/* Runs the application for requests, in the worker Task or in Tasks of their own. */
#ifndef PP_BRIDGE_WORKER_H
#define PP_BRIDGE_WORKER_H

#include "bridge/app_call.h"

/* Runs the application for one request by core->task_mode; never raises. */
void pp_worker_run(PpCore *core, const struct pp_app_call *call);
void pp_worker_batch_end(PpCore *core); /* leaves the worker Task if one was entered */
void pp_worker_drop(PpCore *core);      /* at close */

#endif
