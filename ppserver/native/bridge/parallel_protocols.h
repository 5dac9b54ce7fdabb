/* The table of protocols that a context serves. */
#ifndef PP_BRIDGE_PARALLEL_PROTOCOLS_H
#define PP_BRIDGE_PARALLEL_PROTOCOLS_H

#include "bridge/parallel_base.h"

int pp_par_protocols_init(struct pp_par *par, PyObject *protocols); /* -1 with an exception */
void pp_par_protocols_fini(struct pp_par *par); /* attached; after a failed init, too */
int pp_par_protocols_visit(struct pp_par *par, visitproc visit, void *arg);
/* The method for a path's first segment, borrowed; NULL: there is none. */
PyObject *pp_par_route(const struct pp_par_protocol *p, const char *path, size_t len);

#endif
