/* What a Core is made with. */
#ifndef PP_BRIDGE_CORE_SETTINGS_H
#define PP_BRIDGE_CORE_SETTINGS_H

#include "bridge/core_base.h"

int pp_core_init(PyObject *self, PyObject *args, PyObject *kwargs); /* Core.__init__ */

#endif
