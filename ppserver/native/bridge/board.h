/* The Board object, and what a slot of it holds as a dict. */
#ifndef PP_BRIDGE_BOARD_H
#define PP_BRIDGE_BOARD_H

#include "bridge/compat.h"

#include "net/board.h"

typedef struct {
    PyObject_HEAD
    struct pp_board *board; /* owned; NULL until __init__ */
} PpBoard;
extern PyType_Spec pp_board_spec;
/* NULL with IndexError. */
struct pp_slot *pp_board_checked_slot(PpBoard *board, unsigned long index);
/* Gauges, counters and quantiles; NULL with an exception. */
PyObject *pp_slot_as_dict(const struct pp_slot *slot);
PyObject *pp_slot_tags_as_tuple(const struct pp_slot *slot);

#endif
