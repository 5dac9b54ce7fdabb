/* The answer of a WSGI application. */
#ifndef PP_BRIDGE_WSGI_RESPONSE_H
#define PP_BRIDGE_WSGI_RESPONSE_H

#include "bridge/wsgi_call.h"

/* Calls the application and answers with what it gives. Never raises. */
void pp_wsgi_respond(PpWsgiCall *call, PyObject *env);
/* write(): None, or NULL with an exception. */
PyObject *pp_wsgi_write(PpWsgiCall *call, PyObject *data);
/* The call's answer is one thread's at a time; false with an exception. */
bool pp_wsgi_busy_enter(PpWsgiCall *call);
void pp_wsgi_busy_leave(PpWsgiCall *call);

#endif
