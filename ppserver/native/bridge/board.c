/* The Board object: the shared block of a server's contexts, seen from Python, and what a slot of
 * it holds as a dict. Every thread and process may read it; a Core writes the slot it sits in. */
#include "bridge/board.h"
#include "bridge/core_base.h"

#include <errno.h>

/* ---- a slot as a dict ---- */

static int put(PyObject *dict, const char *name, uint64_t value)
{
    /* Not PyDict_SetItemString, which interns: these keys need no place in a table of all threads.
     */
    PyObject *number = PyLong_FromUnsignedLongLong(value), *key = PyUnicode_FromString(name);
    int rc = number != NULL && key != NULL ? PyDict_SetItem(dict, key, number) : -1;
    Py_XDECREF(number);
    Py_XDECREF(key);
    return rc;
}

/* The owner goes on counting meanwhile; each value is whole. */
static void read_counters(const struct pp_counters *from, struct pp_counters *to)
{
    static_assert(sizeof(*to) % sizeof(uint64_t) == 0, "nothing but 64-bit counters");
    const uint64_t *source = (const uint64_t *)from;
    uint64_t *target = (uint64_t *)to;
    for (size_t i = 0; i < sizeof(*to) / sizeof(*target); i++) {
        target[i] = __atomic_load_n(&source[i], __ATOMIC_RELAXED);
    }
}

static int put_counters(PyObject *d, const struct pp_counters *c)
{
    static const char *const classes[6] = {"responses_none", "responses_1xx", "responses_2xx",
                                           "responses_3xx",  "responses_4xx", "responses_5xx"};
    if (put(d, "accepted", c->accepted) < 0 || put(d, "closed", c->closed) < 0 ||
        put(d, "handed_in", c->handed_in) < 0 || put(d, "handed_out", c->handed_out) < 0 ||
        put(d, "accept_errors", c->accept_errors) < 0 || put(d, "requests", c->requests) < 0 ||
        put(d, "bytes_in", c->bytes_in) < 0 || put(d, "bytes_out", c->bytes_out) < 0 ||
        put(d, "turns", c->turns) < 0 || put(d, "batches", c->batches) < 0 ||
        put(d, "tried", c->tried) < 0 || put(d, "tried_well", c->tried_well) < 0 ||
        put(d, "upgrades", c->upgrades) < 0 ||
        put(d, "log_lines_dropped", c->log_lines_dropped) < 0) {
        return -1;
    }
    for (int i = 0; i < 6; i++) {
        if (put(d, classes[i], c->responses[i]) < 0) {
            return -1;
        }
    }
    for (int i = 0; i < PP_ERR_COUNT; i++) {
        char name[64];
        PyOS_snprintf(name, sizeof(name), "errors_%s", pp_err_name(pp_err_at(i)));
        if (put(d, name, c->errors[i]) < 0) {
            return -1;
        }
    }
    return 0;
}

static int put_histogram(PyObject *d, const char *name, const struct pp_hist *live)
{
    static const struct {
        const char *suffix;
        unsigned permille;
    } quantiles[] = {{"p50", 500}, {"p99", 990}, {"max", 1000}};
    struct pp_hist hist;
    char key[64];
    pp_hist_init(&hist);
    pp_hist_merge(&hist, live);
    PyOS_snprintf(key, sizeof(key), "%s_count", name);
    if (put(d, key, hist.count) < 0) {
        return -1;
    }
    PyOS_snprintf(key, sizeof(key), "%s_sum", name);
    if (put(d, key, hist.sum) < 0) {
        return -1;
    }
    for (size_t i = 0; i < sizeof(quantiles) / sizeof(*quantiles); i++) {
        PyOS_snprintf(key, sizeof(key), "%s_%s", name, quantiles[i].suffix);
        if (put(d, key, pp_hist_quantile(&hist, quantiles[i].permille)) < 0) {
            return -1;
        }
    }
    return 0;
}

PyObject *pp_slot_as_dict(const struct pp_slot *slot)
{
    struct pp_counters counters;
    read_counters(&slot->counters, &counters);
    PyObject *d = PyDict_New();
    if (d == NULL) {
        return NULL;
    }
    if (put_counters(d, &counters) < 0 ||
        put(d, "connections", __atomic_load_n(&slot->connections, __ATOMIC_RELAXED)) < 0 ||
        put(d, "in_flight", __atomic_load_n(&slot->in_flight, __ATOMIC_RELAXED)) < 0 ||
        put(d, "suspended", __atomic_load_n(&slot->suspended, __ATOMIC_RELAXED)) < 0 ||
        put(d, "blocked", __atomic_load_n(&slot->blocked, __ATOMIC_RELAXED)) < 0 ||
        put(d, "promised", __atomic_load_n(&slot->promised, __ATOMIC_RELAXED)) < 0 ||
        put(d, "busy_permille", pp_slot_busy(slot, pp_loop_clock_ms() * 1000)) < 0 ||
        put(d, "stuck", __atomic_load_n(&slot->stuck, __ATOMIC_RELAXED)) < 0 ||
        put(d, "depth16", __atomic_load_n(&slot->depth16, __ATOMIC_RELAXED)) < 0 ||
        put(d, "busy_us", __atomic_load_n(&slot->busy_us, __ATOMIC_RELAXED)) < 0 ||
        put(d, "busy_since_us", __atomic_load_n(&slot->busy_since_us, __ATOMIC_RELAXED)) < 0 ||
        put(d, "heartbeat_us", __atomic_load_n(&slot->heartbeat_us, __ATOMIC_RELAXED)) < 0 ||
        put_histogram(d, "batch", &slot->batch) < 0 ||
        put_histogram(d, "busy_span_us", &slot->busy) < 0) {
        Py_DECREF(d);
        return NULL;
    }
    return d;
}

PyObject *pp_slot_tags_as_tuple(const struct pp_slot *slot)
{
    PyObject *tags = PyTuple_New(PP_SLOT_TAGS);
    for (int i = 0; tags != NULL && i < PP_SLOT_TAGS; i++) {
        const struct pp_tag_counters *c = &slot->tags[i];
        PyObject *one =
            Py_BuildValue("(IKKK)", __atomic_load_n(&c->connections, __ATOMIC_RELAXED),
                          (unsigned long long)__atomic_load_n(&c->accepted, __ATOMIC_RELAXED),
                          (unsigned long long)__atomic_load_n(&c->bytes_in, __ATOMIC_RELAXED),
                          (unsigned long long)__atomic_load_n(&c->bytes_out, __ATOMIC_RELAXED));
        if (one == NULL) {
            Py_CLEAR(tags);
        } else {
            PyTuple_SET_ITEM(tags, i, one);
        }
    }
    return tags;
}

/* ---- the type ---- */

static int board_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"slots", "fd", NULL};
    PpBoard *board = (PpBoard *)self;
    unsigned int slots = 0;
    int fd = -1;
    if (board->board != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Board.__init__ called twice");
        return -1;
    }
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|I$i:Board", keywords, &slots, &fd)) {
        return -1;
    }
    if (fd < 0 && (slots < 1 || slots > PP_BOARD_SLOTS_MAX)) {
        PyErr_Format(PyExc_ValueError, "slots: expected 1 to %d, got %u", PP_BOARD_SLOTS_MAX,
                     slots);
        return -1;
    }
    int rc = fd >= 0 ? pp_board_attach(fd, &board->board) : pp_board_new(slots, &board->board);
    if (rc != PP_OK) {
        pp_raise_code(NULL, rc);
        return -1;
    }
    return 0;
}

static void board_dealloc(PyObject *self)
{
    PpBoard *board = (PpBoard *)self;
    PyTypeObject *type = Py_TYPE(self);
    if (board->board != NULL) {
        pp_board_free(board->board);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

struct pp_slot *pp_board_checked_slot(PpBoard *board, unsigned long index)
{
    if (board->board == NULL || index >= pp_board_slots(board->board)) {
        PyErr_SetString(PyExc_IndexError, "the board has no such slot");
        return NULL;
    }
    return pp_board_slot(board->board, (unsigned)index);
}

static struct pp_slot *slot_of(PyObject *self, PyObject *arg)
{
    unsigned long index = PyLong_AsUnsignedLong(arg);
    if (index == (unsigned long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    return pp_board_checked_slot((PpBoard *)self, index);
}

static PyObject *board_vacate(PyObject *self, PyObject *arg)
{
    struct pp_slot *slot = slot_of(self, arg);
    if (slot == NULL) {
        return NULL;
    }
    pp_slot_leave(slot);
    Py_RETURN_NONE;
}

static PyObject *board_read(PyObject *self, PyObject *arg)
{
    const struct pp_slot *slot = slot_of(self, arg);
    if (slot == NULL) {
        return NULL;
    }
    PyObject *d = pp_slot_as_dict(slot);
    if (d != NULL && (put(d, "pid", (uint64_t)__atomic_load_n(&slot->pid, __ATOMIC_RELAXED)) < 0 ||
                      put(d, "life", __atomic_load_n(&slot->life, __ATOMIC_ACQUIRE)) < 0)) {
        Py_CLEAR(d);
    }
    return d;
}

static PyObject *board_read_tags(PyObject *self, PyObject *arg)
{
    const struct pp_slot *slot = slot_of(self, arg);
    return slot == NULL ? NULL : pp_slot_tags_as_tuple(slot);
}

static PyObject *get_fd(PyObject *self, void *Py_UNUSED(closure))
{
    PpBoard *board = (PpBoard *)self;
    return PyLong_FromLong(board->board == NULL ? -1 : pp_board_fd(board->board));
}

static PyObject *get_slots(PyObject *self, void *Py_UNUSED(closure))
{
    PpBoard *board = (PpBoard *)self;
    return PyLong_FromUnsignedLong(board->board == NULL ? 0 : pp_board_slots(board->board));
}

static PyMethodDef board_methods[] = {
    {"read", board_read, METH_O,
     PyDoc_STR("read(slot) -> dict[str, int]\n\nWhat the context in that slot has written: "
               "gauges, counters, and quantiles of its histograms. IndexError if there is no such "
               "slot.")},
    {"read_tags", board_read_tags, METH_O,
     PyDoc_STR("read_tags(slot) -> tuple[tuple[int, int, int, int], ...]\n\nWhat "
               "Core.tag_stats() of the context in that slot gives.")},
    {"vacate", board_vacate, METH_O,
     PyDoc_STR("vacate(slot)\n\nNobody sits there: for one who saw its context end without a "
               "word.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef board_getset[] = {
    {"fd", get_fd, NULL, PyDoc_STR("The descriptor by which it can be mapped again."), NULL},
    {"slots", get_slots, NULL, PyDoc_STR("How many contexts it has room for."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot board_slots[] = {
    {Py_tp_doc,
     (void *)PyDoc_STR("Board(slots) or Board(fd=...)\n\nShared memory in which every context of a "
                       "server writes its load; inherited by forked processes.")},
    {Py_tp_init, board_init},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_dealloc, board_dealloc},
    {Py_tp_methods, board_methods},
    {Py_tp_getset, board_getset},
    {0, NULL},
};

PyType_Spec pp_board_spec = {
    .name = "ppserver._native.Board",
    .basicsize = sizeof(PpBoard),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = board_slots,
};
