/* What suspended frames hold, for the versions whose frames count without looking (3.14 and later,
 * with a GIL: freeze_header_314.c says why).
 *
 * A generator or coroutine that was suspended when its local variables were made immortal would go
 * on counting them, each time it hands one out, in contexts that may resume it for months. These
 * objects stay mortal; what they refer to need not. A frame that is running at that moment is the
 * supervisor's, the host's, or of whoever called freeze(): it does not loop over what it holds.
 *
 * Found by the collector's own list, since a generator may be out of reach of any module. Code
 * objects are not kept: a frame counts its own once, at its end. */
#include "bridge/freeze_held.h"

#include "base/mem.h"

#if PY_VERSION_HEX >= 0x030E0000 && !defined(Py_GIL_DISABLED)

#define FIRST_SLOTS 64 /* a power of two */

static size_t slot_of(const struct pp_freeze_held *held, const void *op)
{
    uint64_t mixed = (uint64_t)(uintptr_t)op * UINT64_C(0x9E3779B97F4A7C15);
    size_t slot = (size_t)(mixed >> 20) & (held->slot_count - 1);
    while (held->slots[slot] != NULL && held->slots[slot] != op) {
        slot = (slot + 1) & (held->slot_count - 1);
    }
    return slot;
}

static bool grow(struct pp_freeze_held *held)
{
    size_t wanted = held->slot_count == 0 ? FIRST_SLOTS : held->slot_count * 2;
    if (wanted > SIZE_MAX / sizeof(*held->slots) / 2) {
        return false;
    }
    struct pp_freeze_held bigger = {.slots = pp_mem_zalloc(wanted * sizeof(*held->slots)),
                                    .slot_count = wanted,
                                    .count = held->count};
    if (bigger.slots == NULL) {
        return false;
    }
    for (size_t i = 0; i < held->slot_count; i++) {
        if (held->slots[i] != NULL) {
            bigger.slots[slot_of(&bigger, held->slots[i])] = held->slots[i];
        }
    }
    pp_freeze_held_fini(held);
    *held = bigger;
    return true;
}

static int hold(PyObject *op, void *arg)
{
    struct pp_freeze_held *held = arg;
    if (PyCode_Check(op) || pp_freeze_held_has(held, op)) {
        return 0;
    }
    if (held->count >= held->slot_count / 2 && !grow(held)) {
        held->out_of_memory = true;
        return -1;
    }
    held->slots[slot_of(held, op)] = op;
    held->count++;
    return 0;
}

static bool is_running(PyObject *op, const char *attribute)
{
    PyObject *running = PyObject_GetAttrString(op, attribute);
    bool is = running == Py_True;
    Py_XDECREF(running);
    PyErr_Clear(); /* out of memory: then it is taken for suspended */
    return is;
}

static int on_object(PyObject *op, void *arg)
{
    struct pp_freeze_held *held = arg;
    const char *attribute = PyGen_CheckExact(op)        ? "gi_running"
                            : PyCoro_CheckExact(op)     ? "cr_running"
                            : PyAsyncGen_CheckExact(op) ? "ag_running"
                                                        : NULL;
    if (attribute != NULL && !is_running(op, attribute)) {
        (void)Py_TYPE(op)->tp_traverse(op, hold, held);
    }
    return !held->out_of_memory;
}

bool pp_freeze_held_find(struct pp_freeze_held *held)
{
    PyUnstable_GC_VisitObjects(on_object, held);
    return !held->out_of_memory;
}

bool pp_freeze_held_has(const struct pp_freeze_held *held, PyObject *op)
{
    return held->count > 0 && held->slots[slot_of(held, op)] == op;
}

void pp_freeze_held_fini(struct pp_freeze_held *held)
{
    pp_mem_free(held->slots, held->slot_count * sizeof(*held->slots));
    *held = (struct pp_freeze_held){0};
}

#else

bool pp_freeze_held_find(struct pp_freeze_held *Py_UNUSED(held))
{
    return true;
}

bool pp_freeze_held_has(const struct pp_freeze_held *Py_UNUSED(held), PyObject *Py_UNUSED(op))
{
    return false;
}

void pp_freeze_held_fini(struct pp_freeze_held *Py_UNUSED(held)) {}

#endif
