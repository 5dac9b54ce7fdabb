/* What a Core is made with: keyword arguments, checked, as the loop's settings. */
#include "bridge/core_settings.h"
#include "bridge/board.h"

#include <errno.h>
#include <math.h>
#include <string.h>

static int seconds_to_ms(double seconds, const char *name, uint32_t *ms)
{
    if (!isfinite(seconds) || seconds < 0.0 || seconds > 4000000.0) {
        PyErr_Format(PyExc_ValueError, "%s: expected 0 to 4000000 seconds", name);
        return -1;
    }
    *ms = (uint32_t)ceil(seconds * 1000.0);
    return 0;
}

static int bounded(unsigned long long value, unsigned long long low, unsigned long long high,
                   const char *name)
{
    if (value < low || value > high) {
        PyErr_Format(PyExc_ValueError, "%s: expected %llu to %llu, got %llu", name, low, high,
                     value);
        return -1;
    }
    return 0;
}

/* Fills fields from a sequence of (bytes, bytes); the bytes stay owned by `headers`. */
static struct pp_h1_out_field *extra_fields(PyObject *headers, size_t *count)
{
    Py_ssize_t n = PyTuple_GET_SIZE(headers);
    struct pp_h1_out_field *fields = PyMem_Calloc((size_t)n + 1, sizeof(*fields));
    if (fields == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *pair = PyTuple_GET_ITEM(headers, i);
        if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2 ||
            !PyBytes_Check(PyTuple_GET_ITEM(pair, 0)) ||
            !PyBytes_Check(PyTuple_GET_ITEM(pair, 1))) {
            PyErr_SetString(PyExc_TypeError, "headers: expected (bytes, bytes) tuples");
            PyMem_Free(fields);
            return NULL;
        }
        PyObject *name = PyTuple_GET_ITEM(pair, 0), *value = PyTuple_GET_ITEM(pair, 1);
        fields[i].name = (const uint8_t *)PyBytes_AS_STRING(name);
        fields[i].name_len = (size_t)PyBytes_GET_SIZE(name);
        fields[i].value = (const uint8_t *)PyBytes_AS_STRING(value);
        fields[i].value_len = (size_t)PyBytes_GET_SIZE(value);
    }
    *count = (size_t)n;
    return fields;
}

/* (everybody, Unix sockets' peers, networks: 16 bytes of address and 1 of prefix length each) as a
 * new struct (PyMem); NULL for None. */
static int trusted_proxies(PyObject *given, struct pp_trusted **trusted)
{
    int everybody, unix_peers;
    const char *networks;
    Py_ssize_t bytes;
    static_assert(sizeof(struct pp_network) == 17, "as it comes from Python");
    if (given == Py_None) {
        return 0;
    }
    if (!PyTuple_Check(given)) {
        PyErr_SetString(PyExc_TypeError, "trusted_proxies: expected a tuple or None");
        return -1;
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
    t->everybody = everybody != 0;
    t->unix_peers = unix_peers != 0;
    t->count = (uint32_t)(bytes / 17);
    memcpy(t->networks, networks, (size_t)bytes);
    for (uint32_t i = 0; i < t->count; i++) {
        if (t->networks[i].bits > 128) {
            PyErr_SetString(PyExc_ValueError, "trusted_proxies: a prefix is longer than 128 bits");
            PyMem_Free(t);
            return -1;
        }
    }
    *trusted = t;
    return 0;
}

int pp_core_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"limit_request_line",
                               "limit_request_fields",
                               "limit_request_head",
                               "limit_pipeline",
                               "limit_concurrency",
                               "max_request_body_size",
                               "timeout_keep_alive",
                               "timeout_request_header",
                               "timeout_body_idle",
                               "timeout_write",
                               "disconnect_grace",
                               "tcp_keep_alive",
                               "server_header",
                               "date_header",
                               "headers",
                               "access_log_fd",
                               "access_log_prefix",
                               "access_log",
                               "board",
                               "slot",
                               "trusted_proxies",
                               NULL};
    PpCore *core = (PpCore *)self;
    struct pp_settings s = {.access_log_fd = -1};
    unsigned long long line = 8192, fields = 100, head = 32768, pipeline = 64, concurrency = 0,
                       body = 0;
    double keep_alive = 75.0, header = 10.0, body_idle = 30.0, write = 30.0;
    double grace = 1.0, silent = 60.0;
    int server_header = 1, date_header = 1;
    unsigned long slot = 0;
    PyObject *headers = NULL, *access_log = Py_None, *board = Py_None, *proxies = Py_None;
    const char *prefix = "INFO:     ";
    if (core->loop != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Core.__init__ called twice");
        return -1;
    }
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$KKKKKKddddddppOiyOOkO:Core", keywords, &line,
                                     &fields, &head, &pipeline, &concurrency, &body, &keep_alive,
                                     &header, &body_idle, &write, &grace, &silent, &server_header,
                                     &date_header, &headers, &s.access_log_fd, &prefix, &access_log,
                                     &board, &slot, &proxies)) {
        return -1;
    }
    PpState *state = pp_state_of_type(Py_TYPE(self));
    if (board != Py_None && !Py_IS_TYPE(board, state->board_type)) {
        PyErr_SetString(PyExc_TypeError, "board: expected Board or None");
        return -1;
    }
    if (board != Py_None && (s.slot = pp_board_checked_slot((PpBoard *)board, slot)) == NULL) {
        return -1;
    }
    if (bounded(line, 64, PP_HEAD_BYTES_MAX, "limit_request_line") < 0 ||
        bounded(fields, 1, PP_FIELDS_MAX, "limit_request_fields") < 0 ||
        bounded(head, 128, PP_HEAD_BYTES_MAX, "limit_request_head") < 0 ||
        bounded(pipeline, 1, 1000000, "limit_pipeline") < 0 ||
        bounded(concurrency, 0, 100000000, "limit_concurrency") < 0 ||
        seconds_to_ms(keep_alive, "timeout_keep_alive", &s.keep_alive_ms) < 0 ||
        seconds_to_ms(header, "timeout_request_header", &s.request_header_ms) < 0 ||
        seconds_to_ms(body_idle, "timeout_body_idle", &s.body_idle_ms) < 0 ||
        seconds_to_ms(write, "timeout_write", &s.write_ms) < 0 ||
        seconds_to_ms(grace, "disconnect_grace", &s.disconnect_grace_ms) < 0 ||
        seconds_to_ms(silent, "tcp_keep_alive", &s.silent_ms) < 0) {
        return -1;
    }
    PyObject *pairs = headers != NULL ? PySequence_Tuple(headers) : PyTuple_New(0);
    if (pairs == NULL) {
        return -1;
    }
    struct pp_h1_out_field *extra = extra_fields(pairs, &s.extra_count);
    if (extra == NULL) {
        Py_DECREF(pairs);
        return -1;
    }
    struct pp_trusted *trusted = NULL;
    if (trusted_proxies(proxies, &trusted) < 0) {
        PyMem_Free(extra);
        Py_DECREF(pairs);
        return -1;
    }
    s.trusted = trusted;
    s.http.request_line_bytes = (uint32_t)line;
    s.http.head_bytes = (uint32_t)head;
    s.http.field_count = (uint32_t)fields;
    s.http.body_bytes = body;
    s.limit_pipeline = (uint32_t)pipeline;
    s.limit_concurrency = (uint32_t)concurrency;
    s.server_header = server_header != 0;
    s.date_header = date_header != 0;
    s.extra_fields = extra;
    s.access_log_prefix = prefix;
    s.report_finished = access_log != Py_None;
    errno = 0;
    core->mode = &pp_mode_none;
    core->loop = pp_loop_new(&s);
    PyMem_Free(trusted);
    PyMem_Free(extra);
    Py_DECREF(pairs);
    if (core->loop == NULL) {
        if (errno != 0) {
            PyErr_SetFromErrno(PyExc_OSError);
        } else {
            PyErr_NoMemory();
        }
        return -1;
    }
    core->state = state;
    core->board = board != Py_None ? Py_NewRef(board) : NULL;
    core->slot = (unsigned)slot;
    if (access_log != Py_None) {
        core->access_log = Py_NewRef(access_log);
    }
    return pp_constants_init(&core->k);
}
