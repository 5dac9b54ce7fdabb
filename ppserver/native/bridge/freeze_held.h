/* What suspended frames hold, which stays mortal. */
#ifndef PP_BRIDGE_FREEZE_HELD_H
#define PP_BRIDGE_FREEZE_HELD_H

#include "bridge/compat.h"

struct pp_freeze_held {
    PyObject **slots; /* owned: a hash set of borrowed references; NULL is free */
    size_t slot_count, count;
    bool out_of_memory;
};

/* Finds the objects that suspended frames hold and that must stay mortal for it; none where that
 * does not matter. Nobody else may be running Python code, from here to the last question. Starts
 * from zeroes; false when memory is out. Calls no Python code. */
bool pp_freeze_held_find(struct pp_freeze_held *held);
bool pp_freeze_held_has(const struct pp_freeze_held *held, PyObject *op);
void pp_freeze_held_fini(struct pp_freeze_held *held);

#endif
