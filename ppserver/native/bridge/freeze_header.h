/* The write to an object's header: freeze_header.c, and one of freeze_header_{312,313t,314,none}.c.
 */
#ifndef PP_BRIDGE_FREEZE_HEADER_H
#define PP_BRIDGE_FREEZE_HEADER_H

#include "bridge/compat.h"

/* Why objects of this build cannot be made immortal, or NULL. Says nothing of a self-test. */
const char *pp_freeze_header_refusal(void);
bool pp_freeze_header_get(PyObject *op); /* whether it is immortal */
/* Makes op immortal; the caller's reference is used up by that. False if it must stay mortal.
 * Nobody else may be running Python code: the GIL is held, or the world is stopped. */
bool pp_freeze_header_set(PyObject *op);
/* Makes a scratch object immortal and mortal again, and looks whether the interpreter and this file
 * mean the same. 1 they do, 0 they do not, -1 with an exception. */
int pp_freeze_header_self_test(void);

#endif
