/* What a raw connection's protocol is told. Inside the application. */
#ifndef PP_BRIDGE_PARALLEL_CALLBACKS_H
#define PP_BRIDGE_PARALLEL_CALLBACKS_H

#include "bridge/parallel_base.h"

void pp_par_run_callbacks(PpTransport *t, struct pp_par_news *news);
/* The instance of the transport's protocol; false: it failed, and that has been told. */
bool pp_par_make_handler(PpTransport *t);
/* What is raised goes to the protocol's exception_handler, or is logged and ends the connection. */
void pp_par_failed(PpTransport *t);

#endif
