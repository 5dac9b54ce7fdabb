/* The parallel API: methods of Core. */
#ifndef PP_BRIDGE_PARALLEL_H
#define PP_BRIDGE_PARALLEL_H

#include "bridge/core_base.h"

extern PyMethodDef pp_par_methods[]; /* serve_parallel, bring */

#endif
