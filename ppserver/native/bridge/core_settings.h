/* What a Core is made with. */
#ifndef PP_BRIDGE_CORE_SETTINGS_H
#define PP_BRIDGE_CORE_SETTINGS_H

#include "bridge/core_base.h"

int pp_core_init(PyObject *self, PyObject *args, PyObject *kwargs); /* Core.__init__ */
/* {name: (low, high)} of all settings that are numbers or switches, each in its own unit. New dict;
 * NULL with an exception. */
PyObject *pp_core_settings_bounds(void);

#endif
