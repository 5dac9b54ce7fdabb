/* WSGI: methods of Core. */
#ifndef PP_BRIDGE_WSGI_H
#define PP_BRIDGE_WSGI_H

#include "bridge/core_base.h"

extern PyMethodDef pp_wsgi_methods[]; /* serve_wsgi */

#endif
