/* What an untouched worker looks like, byte for byte (contract for pristine.c alone). */
#ifndef PP_BRIDGE_IMPRINT_H
#define PP_BRIDGE_IMPRINT_H

#include "bridge/compat.h"

/* A worker Task as it was when it was last looked over. */
struct pp_imprint {
    const PyObject *task_object, *parking_object, *weakrefs; /* borrowed, only compared */
    size_t task_bytes, parking_bytes;                        /* task_bytes 0: nothing was taken */
    char task[256], parking[192];
};

/* Nothing was taken: nothing matches. */
void pp_imprint_forget(struct pp_imprint *im);
/* Takes the imprint of a worker Task that was just found untouched, and of the future it is parked
 * on (NULL: on none). Raises nothing; where it is not possible to tell, nothing is taken. Keeps no
 * reference: both must outlive the imprint, or it be forgotten. */
void pp_imprint_take(struct pp_imprint *im, PyObject *task, PyObject *parking);
/* True only if the Task is, but for its reference count, what it was. */
bool pp_imprint_matches_task(const struct pp_imprint *im, PyObject *task);
/* True only if Task and future are, but for their reference counts, what they were. */
bool pp_imprint_matches(const struct pp_imprint *im, PyObject *task, PyObject *parking);
/* Whether attributes were set on an object that has room for such, or had been; also if that cannot
 * be told. */
bool pp_imprint_has_dict(PyObject *op);
/* True only if the two contexts have the very same variables. */
bool pp_imprint_same_context(PyObject *one, PyObject *other);

#endif
