/* The environ of a request. */
#ifndef PP_BRIDGE_WSGI_ENVIRON_H
#define PP_BRIDGE_WSGI_ENVIRON_H

#include "bridge/wsgi_call.h"

int pp_wsgi_environ_setup(PpCore *core, struct pp_wsgi *w, int multiprocess);
/* body: as far as it has been awaited; NULL: there is none. */
PyObject *pp_wsgi_environ_new(PpCore *core, struct pp_wsgi *w, struct pp_exchange *ex,
                              PyObject *input, const struct pp_queue_body *body);
void pp_wsgi_environ_fini(struct pp_wsgi_consts *k);
int pp_wsgi_environ_visit(struct pp_wsgi_consts *k, visitproc visit, void *arg);

#endif
