/* wsgi.input. */
#ifndef PP_BRIDGE_WSGI_INPUT_H
#define PP_BRIDGE_WSGI_INPUT_H

#include "bridge/wsgi_call.h"

extern PyType_Spec pp_wsgi_input_spec;
/* A wsgi.input of `body` (which is taken over, also on failure), and with a call of what comes on
 * its connection behind that. */
PyObject *pp_wsgi_input_new(struct pp_wsgi *w, PpWsgiCall *call, PpState *state,
                            struct pp_queue_body body);

#endif
