/* Making what is loaded immortal, so that no context ever writes to it.
 *
 * Three parts: the walk (freeze.c), what it knows of each type (freeze_types.c), and the write to
 * an object's header (freeze_header*.c), the one place that knows how CPython lays it out. */
#ifndef PP_BRIDGE_FREEZE_H
#define PP_BRIDGE_FREEZE_H

#include "bridge/core_base.h"

extern PyMethodDef pp_freeze_methods[]; /* functions of the module */
/* Tries the header write on scratch objects and remembers the answer in the module's state. -1 with
 * an exception when memory is out; a layout that is not the expected one is no error. */
int pp_freeze_init(PpState *st);

#endif
