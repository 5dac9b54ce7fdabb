/* The Core type. */
#ifndef PP_BRIDGE_CORE_H
#define PP_BRIDGE_CORE_H

#include "bridge/core_base.h"

extern PyType_Spec pp_core_spec;

#endif
