/* Core as the selector of an asyncio loop. */
#ifndef PP_BRIDGE_SELECTOR_H
#define PP_BRIDGE_SELECTOR_H

#include "bridge/core_base.h"

extern PyMethodDef pp_selector_methods[]; /* Core's */

#endif
