/* ASGI: what a Core gets of it. */
#ifndef PP_BRIDGE_ASGI_H
#define PP_BRIDGE_ASGI_H

#include "bridge/core_base.h"

extern PyMethodDef pp_asgi_methods[]; /* serve_asgi: Core's */

#endif
