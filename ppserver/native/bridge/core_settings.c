/* What a Core is made with: settings by name, each checked by its row of a table. */
#include "bridge/core_settings.h"
#include "bridge/board.h"

#include <errno.h>
#include <math.h>
#include <string.h>

/* ---- numbers and switches: rows of a table ---- */

enum setting_kind {
    SETTING_COUNT,   /* int, as uint32_t */
    SETTING_BYTES,   /* int, as uint64_t */
    SETTING_SECONDS, /* float, as uint32_t of milliseconds, rounded up */
    SETTING_SWITCH   /* truth, as bool */
};

/* Bounds are those of ppserver.config, in the setting's unit; a test compares them. */
struct setting {
    const char *name;
    enum setting_kind kind;
    size_t offset; /* in struct pp_settings */
    uint64_t low, high;
};

#define SECONDS_MAX 86400
#define ROW(name, kind, field, low, high) \
    {#name, SETTING_##kind, offsetof(struct pp_settings, field), low, high}
static const struct setting settings[] = {
    ROW(limit_request_line, COUNT, http.request_line_bytes, 64, PP_HEAD_BYTES_MAX),
    ROW(limit_request_fields, COUNT, http.field_count, 1, PP_FIELDS_MAX),
    ROW(limit_request_head, COUNT, http.head_bytes, 128, PP_HEAD_BYTES_MAX),
    ROW(limit_pipeline, COUNT, limit_pipeline, 1, 10000),
    ROW(limit_concurrency, COUNT, limit_concurrency, 0, 100000000),
    ROW(max_request_body_size, BYTES, http.body_bytes, 0, UINT64_C(1) << 62),
    ROW(timeout_keep_alive, SECONDS, keep_alive_ms, 0, SECONDS_MAX),
    ROW(timeout_request_header, SECONDS, request_header_ms, 0, SECONDS_MAX),
    ROW(timeout_body_idle, SECONDS, body_idle_ms, 0, SECONDS_MAX),
    ROW(timeout_write, SECONDS, write_ms, 0, SECONDS_MAX),
    ROW(disconnect_grace, SECONDS, disconnect_grace_ms, 0, SECONDS_MAX),
    ROW(tcp_keep_alive, SECONDS, silent_ms, 0, SECONDS_MAX),
    ROW(server_header, SWITCH, server_header, 0, 1),
    ROW(date_header, SWITCH, date_header, 0, 1),
};
#undef ROW

static const struct pp_settings defaults = {
    .http = {.request_line_bytes = 8192, .head_bytes = 32768, .field_count = 100},
    .limit_pipeline = 64,
    .keep_alive_ms = 75000,
    .request_header_ms = 10000,
    .body_idle_ms = 30000,
    .write_ms = 30000,
    .disconnect_grace_ms = 1000,
    .silent_ms = 60000,
    .server_header = true,
    .date_header = true,
    .access_log_fd = -1,
    .access_log_prefix = "INFO:     ",
};

static int out_of_bounds(const struct setting *s, PyObject *value)
{
    PyErr_Format(PyExc_ValueError, "%s: expected %llu to %llu%s, got %R", s->name,
                 (unsigned long long)s->low, (unsigned long long)s->high,
                 s->kind == SETTING_SECONDS ? " seconds" : "", value);
    return -1;
}

static int wrong_type(const char *name, const char *expected, PyObject *value)
{
    PyErr_Format(PyExc_TypeError, "%s: expected %s, got %.100s", name, expected,
                 Py_TYPE(value)->tp_name);
    return -1;
}

static int take_number(const struct setting *s, void *field, PyObject *value)
{
    if (!PyLong_Check(value)) {
        return wrong_type(s->name, "an int", value);
    }
    unsigned long long number = PyLong_AsUnsignedLongLong(value);
    if (number == (unsigned long long)-1 && PyErr_Occurred()) {
        PyErr_Clear(); /* negative, or too large */
        return out_of_bounds(s, value);
    }
    if (number < s->low || number > s->high) {
        return out_of_bounds(s, value);
    }
    if (s->kind == SETTING_COUNT) {
        *(uint32_t *)field = (uint32_t)number;
    } else {
        *(uint64_t *)field = number;
    }
    return 0;
}

static int take_seconds(const struct setting *s, uint32_t *ms, PyObject *value)
{
    double seconds = PyFloat_AsDouble(value);
    if (seconds == -1.0 && PyErr_Occurred()) {
        PyErr_Clear();
        return PyLong_Check(value) ? out_of_bounds(s, value)
                                   : wrong_type(s->name, "seconds as a number", value);
    }
    if (!(seconds >= (double)s->low && seconds <= (double)s->high)) {
        return out_of_bounds(s, value);
    }
    *ms = (uint32_t)ceil(seconds * 1000.0);
    return 0;
}

static int take_setting(const struct setting *s, struct pp_settings *to, PyObject *value)
{
    void *field = (char *)to + s->offset;
    int truth;
    switch (s->kind) {
    case SETTING_COUNT:
    case SETTING_BYTES:
        return take_number(s, field, value);
    case SETTING_SECONDS:
        return take_seconds(s, field, value);
    case SETTING_SWITCH:
        if ((truth = PyObject_IsTrue(value)) >= 0) {
            *(bool *)field = truth != 0;
        }
        return truth < 0 ? -1 : 0;
    }
    PP_CHECK(false);
    return -1;
}

PyObject *pp_core_settings_bounds(void)
{
    PyObject *bounds = PyDict_New();
    for (size_t i = 0; bounds != NULL && i < sizeof(settings) / sizeof(*settings); i++) {
        const struct setting *s = &settings[i];
        PyObject *pair =
            Py_BuildValue("(KK)", (unsigned long long)s->low, (unsigned long long)s->high);
        if (pair == NULL || PyDict_SetItemString(bounds, s->name, pair) < 0) {
            Py_CLEAR(bounds);
        }
        Py_XDECREF(pair);
    }
    return bounds;
}

/* ---- what is more than a number ---- */

/* Everything a Core is made with, as far as it has been read. */
struct making {
    struct pp_settings s;
    PyObject *headers;                 /* owned tuple or NULL: what extra_fields point into */
    struct pp_out_field *extra_fields; /* owned (PyMem) or NULL */
    struct pp_trusted *trusted;        /* owned (PyMem) or NULL */
    PyObject *access_log, *board;      /* borrowed or NULL */
    unsigned slot;
};

/* A sequence of (bytes, bytes). */
static int take_headers(struct making *m, PyObject *value)
{
    Py_XSETREF(m->headers, PySequence_Tuple(value));
    if (m->headers == NULL) {
        return -1;
    }
    Py_ssize_t n = PyTuple_GET_SIZE(m->headers);
    struct pp_out_field *fields = PyMem_Calloc((size_t)n + 1, sizeof(*fields));
    if (fields == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    m->extra_fields = fields;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *pair = PyTuple_GET_ITEM(m->headers, i);
        if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2 ||
            !PyBytes_Check(PyTuple_GET_ITEM(pair, 0)) ||
            !PyBytes_Check(PyTuple_GET_ITEM(pair, 1))) {
            PyErr_SetString(PyExc_TypeError, "headers: expected (bytes, bytes) tuples");
            return -1;
        }
        PyObject *name = PyTuple_GET_ITEM(pair, 0), *text = PyTuple_GET_ITEM(pair, 1);
        fields[i].name = (const uint8_t *)PyBytes_AS_STRING(name);
        fields[i].name_len = (size_t)PyBytes_GET_SIZE(name);
        fields[i].value = (const uint8_t *)PyBytes_AS_STRING(text);
        fields[i].value_len = (size_t)PyBytes_GET_SIZE(text);
    }
    m->s.extra_fields = fields;
    m->s.extra_count = (size_t)n;
    return 0;
}

/* (everybody, Unix sockets' peers, networks: 16 bytes of address and 1 of prefix length each), or
 * None. */
static int take_trusted_proxies(struct making *m, PyObject *given)
{
    int everybody, unix_peers;
    const char *networks;
    Py_ssize_t bytes;
    static_assert(sizeof(struct pp_network) == 17, "as it comes from Python");
    if (given == Py_None) {
        return 0;
    }
    if (!PyTuple_Check(given)) {
        return wrong_type("trusted_proxies", "a tuple or None", given);
    }
    if (!PyArg_ParseTuple(given, "ppy#:trusted_proxies", &everybody, &unix_peers, &networks,
                          &bytes)) {
        return -1;
    }
    if (bytes % 17 != 0 || bytes / 17 > PP_TRUSTED_NETWORKS_MAX) {
        PyErr_SetString(PyExc_ValueError, "trusted_proxies: too many networks, or not whole ones");
        return -1;
    }
    struct pp_trusted *t = PyMem_Malloc(sizeof(*t) + (size_t)bytes);
    if (t == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    m->s.trusted = m->trusted = t;
    t->everybody = everybody != 0;
    t->unix_peers = unix_peers != 0;
    t->count = (uint32_t)(bytes / 17);
    memcpy(t->networks, networks, (size_t)bytes);
    for (uint32_t i = 0; i < t->count; i++) {
        if (t->networks[i].bits > 128) {
            PyErr_SetString(PyExc_ValueError, "trusted_proxies: a prefix is longer than 128 bits");
            return -1;
        }
    }
    return 0;
}

static int take_access_log_fd(struct making *m, PyObject *value)
{
    if (!PyLong_Check(value)) {
        return wrong_type("access_log_fd", "an int", value);
    }
    long fd = PyLong_AsLong(value);
    if (fd < -1 || fd > INT32_MAX || (fd == -1 && PyErr_Occurred())) {
        PyErr_SetString(PyExc_ValueError, "access_log_fd: expected a descriptor, or -1");
        return -1;
    }
    m->s.access_log_fd = (int)fd;
    return 0;
}

static int take_access_log_prefix(struct making *m, PyObject *value)
{
    if (!PyBytes_Check(value)) {
        return wrong_type("access_log_prefix", "bytes", value);
    }
    char *text; /* the argument keeps it */
    if (PyBytes_AsStringAndSize(value, &text, NULL) < 0) {
        return -1;
    }
    m->s.access_log_prefix = text;
    return 0;
}

static int take_access_log(struct making *m, PyObject *value)
{
    m->access_log = value != Py_None ? value : NULL;
    m->s.report_finished = value != Py_None;
    return 0;
}

/* None is no board. */
static int take_board(struct making *m, PyObject *value)
{
    m->board = value != Py_None ? value : NULL;
    return 0;
}

static int take_slot(struct making *m, PyObject *value)
{
    if (!PyLong_Check(value)) {
        return wrong_type("slot", "an int", value);
    }
    unsigned long slot = PyLong_AsUnsignedLong(value);
    if (slot > UINT32_MAX) { /* also what could not be read */
        PyErr_Clear();
        PyErr_SetString(PyExc_IndexError, "the board has no such slot");
        return -1;
    }
    m->slot = (unsigned)slot;
    return 0;
}

static const struct {
    const char *name;
    int (*take)(struct making *m, PyObject *value);
} others[] = {
    {"headers", take_headers},
    {"trusted_proxies", take_trusted_proxies},
    {"access_log_fd", take_access_log_fd},
    {"access_log_prefix", take_access_log_prefix},
    {"access_log", take_access_log},
    {"board", take_board},
    {"slot", take_slot},
};

static int take_one(struct making *m, PyObject *name, PyObject *value)
{
    for (size_t i = 0; i < sizeof(settings) / sizeof(*settings); i++) {
        if (PyUnicode_CompareWithASCIIString(name, settings[i].name) == 0) {
            return take_setting(&settings[i], &m->s, value);
        }
    }
    for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++) {
        if (PyUnicode_CompareWithASCIIString(name, others[i].name) == 0) {
            return others[i].take(m, value);
        }
    }
    PyErr_Format(PyExc_TypeError, "Core() has no setting %R", name);
    return -1;
}

static int take_all(struct making *m, PyObject *kwargs)
{
    PyObject *name, *value;
    Py_ssize_t pos = 0;
    while (kwargs != NULL && PyDict_Next(kwargs, &pos, &name, &value)) {
        if (take_one(m, name, value) < 0) {
            return -1;
        }
    }
    return 0;
}

/* ---- Core.__init__ ---- */

static int make(PpCore *core, struct making *m)
{
    if (core->loop != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Core.__init__ called twice");
        return -1;
    }
    core->mode = &pp_mode_none;
    core->state = pp_state_of_type(Py_TYPE((PyObject *)core));
    if (m->board != NULL && !Py_IS_TYPE(m->board, core->state->board_type)) {
        return wrong_type("board", "a Board or None", m->board);
    }
    if (m->board != NULL &&
        (m->s.slot = pp_board_checked_slot((PpBoard *)m->board, m->slot)) == NULL) {
        return -1;
    }
    errno = 0;
    core->loop = pp_loop_new(&m->s);
    if (core->loop == NULL) {
        if (errno != 0) {
            PyErr_SetFromErrno(PyExc_OSError);
        } else {
            PyErr_NoMemory();
        }
        return -1;
    }
    core->board = Py_XNewRef(m->board);
    core->slot = m->slot;
    core->access_log = Py_XNewRef(m->access_log);
    return pp_constants_init(&core->k);
}

int pp_core_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    PpCore *core = (PpCore *)self;
    if (PyTuple_GET_SIZE(args) != 0) {
        PyErr_SetString(PyExc_TypeError, "Core() takes settings by name only");
        return -1;
    }
    struct making m = {.s = defaults};
    int rc = take_all(&m, kwargs);
    if (rc == 0) {
        rc = make(core, &m);
    }
    PyMem_Free(m.trusted);
    PyMem_Free(m.extra_fields);
    Py_XDECREF(m.headers);
    return rc;
}
