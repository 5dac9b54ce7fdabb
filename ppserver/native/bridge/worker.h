/* The worker Task, which runs the applications' calls. */
#ifndef PP_BRIDGE_WORKER_H
#define PP_BRIDGE_WORKER_H

#include "bridge/request.h"

/* Runs the application for one request by core->task_mode; never raises. */
void pp_worker_run(PpCore *core, PpRequest *req, PyObject *scope, PyObject *receive);
void pp_worker_batch_end(PpCore *core); /* leaves the worker Task if one was entered */
void pp_worker_drop(PpCore *core);      /* at close */

#endif
