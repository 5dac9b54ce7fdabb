/* The thread inside run_wsgi. */
#ifndef PP_BRIDGE_LEAD_MANAGER_H
#define PP_BRIDGE_LEAD_MANAGER_H

#include "bridge/core_base.h"

extern PyMethodDef pp_lead_methods[]; /* run_wsgi: Core's, too */

#endif
