/* The type Transport. */
#ifndef PP_BRIDGE_TRANSPORT_TYPE_H
#define PP_BRIDGE_TRANSPORT_TYPE_H

#include "bridge/core_base.h"

extern PyType_Spec pp_transport_spec;

#endif
