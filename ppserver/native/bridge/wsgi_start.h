/* start_response. */
#ifndef PP_BRIDGE_WSGI_START_H
#define PP_BRIDGE_WSGI_START_H

#include "bridge/wsgi_call.h"

extern PyType_Spec pp_wsgi_start_spec;
PpWsgiCall *pp_wsgi_call_new(PpCore *core, struct pp_wsgi *w, struct pp_lead_worker *self,
                             struct pp_exchange *ex);
/* Nothing more is sent: drops what the application gave, unless it holds the call itself. */
void pp_wsgi_call_spent(PpWsgiCall *call);

#endif
