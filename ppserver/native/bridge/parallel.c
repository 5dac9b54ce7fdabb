/* Protocols of the parallel API: callbacks of raw connections, methods of `http11` ones.
 *
 * They run on the leader and its followers as WSGI applications do (wsgi_lead.c): on the leader's
 * own thread, without a hand-off, and a callback that takes long loses the leadership. What a
 * transport's callbacks give is collected in it and carried out by the leader when they are over
 * (pp_par_settle): by the same thread while it still leads, else by message.
 *
 * A connection's events come merged, and its callbacks run one at a time; what happens meanwhile
 * waits in t->events. So one connection never runs in two threads, and its output is in order.
 *
 *   raw      the transport has the connection from its beginning to its end
 *   http11   the transport is the connection's user (conn.h) and has it during each request */
#include "bridge/parallel.h"

#include <string.h>

/* ---- what callbacks give ---- */

PyObject *pp_par_bytes_of(PyObject *given)
{
    if (PyBytes_CheckExact(given)) {
        return given;
    }
    PyObject *bytes = NULL;
    if (PyUnicode_Check(given)) {
        bytes = PyUnicode_AsUTF8String(given);
    } else if (PyObject_CheckBuffer(given)) {
        bytes = PyBytes_FromObject(given);
    } else {
        PyErr_Format(PyExc_TypeError,
                     "a callback must return bytes, bytearray, str or None, not %.100s",
                     Py_TYPE(given)->tp_name);
    }
    Py_DECREF(given);
    return bytes;
}

/* Queues what a callback returned: NULL with an exception, None, or something to send. Steals
 * given. -1 with an exception. */
static int take_result(PpTransport *t, PyObject *given)
{
    if (given == NULL) {
        return -1;
    }
    if (given == Py_None) {
        Py_DECREF(given);
        return 0;
    }
    PyObject *bytes = pp_par_bytes_of(given);
    return bytes == NULL ? -1 : pp_transport_push(t, bytes);
}

static PyObject *call(PpTransport *t, enum pp_par_callback which, PyObject *argument)
{
    PyObject *args[] = {t->handler, (PyObject *)t, argument};
    return PyObject_VectorcallMethod(t->w->par->names[which], args,
                                     3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
}

/* The protocol's exception_handler gets what is raised; without one it is logged, and the
 * connection ends. */
static void failed(PpTransport *t)
{
    PyObject *exc = PyErr_GetRaisedException();
    if (exc == NULL) {
        return;
    }
    if (t->protocol->has[PP_PAR_exception_handler] && t->handler != NULL) {
        int rc = take_result(t, call(t, PP_PAR_exception_handler, exc));
        Py_DECREF(exc);
        if (rc == 0) {
            return;
        }
    } else {
        PyErr_SetRaisedException(exc);
    }
    pp_core_report_error(t->core, t->protocol->maker);
    t->closing = true;
}

/* True unless it failed. */
static bool tell(PpTransport *t, enum pp_par_callback which, PyObject *argument)
{
    if (!t->protocol->has[which]) {
        return true;
    }
    if (take_result(t, call(t, which, argument)) < 0) {
        failed(t);
        return false;
    }
    return true;
}

static void tell_number(PpTransport *t, enum pp_par_callback which, uint64_t number)
{
    if (!t->protocol->has[which]) {
        return;
    }
    PyObject *argument = PyLong_FromUnsignedLongLong(number);
    if (argument == NULL) {
        failed(t);
        return;
    }
    (void)tell(t, which, argument);
    Py_DECREF(argument);
}

static void give_bytes(PpTransport *t, const struct pp_par_bytes *what, PyObject *name)
{
    PyObject *given;
    if (what->constant != NULL) {
        given = Py_NewRef(what->constant);
    } else if (what->args >= 0) {
        PyObject *args[] = {t->handler, (PyObject *)t};
        given = PyObject_VectorcallMethod(
            name, args, (size_t)(1 + what->args) | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    } else {
        return;
    }
    if (take_result(t, given) < 0) {
        failed(t);
    }
}

/* ---- input ---- */

static void one_line(PpTransport *t, const char *text, size_t len)
{
    if (len > 0 && text[len - 1] == '\r') {
        len--;
    }
    PyObject *line = PyBytes_FromStringAndSize(text, (Py_ssize_t)len);
    if (line == NULL) {
        failed(t);
        return;
    }
    (void)tell(t, PP_PAR_line_received, line);
    Py_DECREF(line);
}

/* Whole lines to the callback, the rest is kept. */
static void lines(PpTransport *t, PyObject *data)
{
    const struct pp_par_protocol *p = t->protocol;
    if (t->partial != NULL) {
        PyObject *joined = t->partial;
        t->partial = NULL;
        PyBytes_Concat(&joined, data);
        if (joined == NULL) {
            failed(t);
            return;
        }
        data = joined;
    } else {
        Py_INCREF(data);
    }
    const char *at = PyBytes_AS_STRING(data), *end = at + PyBytes_GET_SIZE(data), *eol;
    while (!t->closing && (eol = memchr(at, '\n', (size_t)(end - at))) != NULL) {
        if ((size_t)(eol - at) > p->line_max) {
            break;
        }
        one_line(t, at, (size_t)(eol - at));
        at = eol + 1;
    }
    if (t->closing) {
        at = end;
    } else if ((size_t)(end - at) > p->line_max) {
        PyErr_Format(PyExc_ValueError, "the peer sent a line of more than %u bytes", p->line_max);
        if (p->has[PP_PAR_connection_error]) {
            PyObject *exc = PyErr_GetRaisedException();
            (void)tell(t, PP_PAR_connection_error, exc);
            Py_XDECREF(exc);
        }
        PyErr_Clear();
        t->closing = true;
        at = end;
    } else if (at < end && !p->wait_for_eol) {
        one_line(t, at, (size_t)(end - at));
        at = end;
    }
    if (at < end) {
        t->partial = PyBytes_FromStringAndSize(at, end - at);
        if (t->partial == NULL) {
            failed(t);
        }
    }
    Py_DECREF(data);
}

static void received(PpTransport *t, PyObject *data)
{
    uint64_t len = (uint64_t)PyBytes_GET_SIZE(data);
    __atomic_store_n(&t->just_received, len, __ATOMIC_RELAXED);
    __atomic_store_n(&t->received, t->received + len, __ATOMIC_RELAXED);
    __atomic_store_n(&t->recv_id, t->recv_id + 1, __ATOMIC_RELAXED);
    if (t->protocol->line_mode) {
        lines(t, data);
    } else if (t->protocol->has[PP_PAR_data_received]) {
        (void)tell(t, PP_PAR_data_received, data);
    } else {
        give_bytes(t, &t->protocol->next, t->w->par->next);
    }
}

/* ---- callbacks of a raw connection ---- */

/* Whether there are other contexts that the connection may be handed to. */
static bool may_leave(const PpTransport *t)
{
    return t->core->board != NULL && !t->protocol->raw;
}

static bool make_handler(PpTransport *t)
{
    const struct pp_par_protocol *p = t->protocol;
    t->handler = p->is_class ? PyObject_CallNoArgs(p->maker) : Py_NewRef(p->maker);
    if (t->handler == NULL) {
        failed(t);
        t->closing = true;
        return false;
    }
    if (may_leave(t) && p->is_class &&
        (t->kept = PyObject_GenericGetDict(t->handler, NULL)) == NULL) {
        PyErr_Clear(); /* has slots, or nothing */
    }
    return true;
}

/* Whether another context, which makes its own transport and handler for the connection, would miss
 * something: attributes of either, or that the application holds the transport. Attached, in end().
 */
static bool keeps_something(PpTransport *t)
{
    const Py_ssize_t ours = 2; /* the connection's reference, and the run's */
    if (t->dict != NULL || t->weakrefs != NULL || Py_REFCNT((PyObject *)t) > ours) {
        return true;
    }
    return t->protocol->is_class && t->handler != NULL &&
           (t->kept != NULL ? PyDict_GET_SIZE(t->kept) > 0
                            : Py_TYPE(t->handler)->tp_basicsize > PyBaseObject_Type.tp_basicsize);
}

static void opened(PpTransport *t)
{
    if (make_handler(t)) {
        (void)tell(t, PP_PAR_connection_made, Py_None);
        give_bytes(t, &t->protocol->initial, t->w->par->initial);
    }
}

static void all_sent(PpTransport *t)
{
    PyObject *last = t->last_sent;
    t->last_sent = NULL;
    if (last != NULL) {
        __atomic_store_n(&t->just_sent, (uint64_t)PyBytes_GET_SIZE(last), __ATOMIC_RELAXED);
        (void)tell(t, PP_PAR_data_sent, last);
        Py_DECREF(last);
    }
    tell_number(t, PP_PAR_send_complete, t->send_id);
}

/* How it ended: by the peer or by us in order, or not. */
static void closed(PpTransport *t, int code, bool ours)
{
    struct pp_par *par = t->w->par;
    if (t->last_sent != NULL) {
        tell_number(t, PP_PAR_send_failed, t->send_id);
    }
    bool timed_out = code == PP_ERR_WRITE_TIMEOUT || (t->timed_out && !t->peer_ended);
    if (timed_out && t->protocol->has[PP_PAR_connection_timeout]) {
        (void)tell(t, PP_PAR_connection_timeout, Py_None);
    } else if (!ours && !t->peer_ended && t->protocol->has[PP_PAR_connection_lost]) {
        (void)tell(t, PP_PAR_connection_lost, Py_None);
    } else {
        bool by_us = ours && !t->peer_ended;
        (void)tell(t, PP_PAR_connection_closed, by_us ? par->close : par->recv);
    }
}

struct news {
    unsigned events;
    PyObject *data; /* owned or NULL */
    int code;       /* with CLOSED: why */
    bool ours;      /* with CLOSED: by our side */
};

static void run_callbacks(PpTransport *t, struct news *news)
{
    if (news->events & PP_EV_REQUEST) {
        opened(t);
    }
    if (t->handler == NULL) {
        return;
    }
    if (news->events & PP_EV_FINISHED) {
        all_sent(t);
    }
    if (news->data != NULL && !t->closing) {
        received(t, news->data);
    }
    if ((news->events & PP_EV_EOF) && !t->closing) {
        if (t->partial != NULL) {
            PyObject *rest = t->partial;
            t->partial = NULL;
            one_line(t, PyBytes_AS_STRING(rest), (size_t)PyBytes_GET_SIZE(rest));
            Py_DECREF(rest);
        }
        t->closing = t->peer_ended = true;
    }
    if ((news->events & PP_EV_IDLE) && !(news->events & (PP_EV_BODY | PP_EV_CLOSED))) {
        t->closing = t->timed_out = true;
    }
    if (news->events & PP_EV_CLOSED) {
        closed(t, news->code, news->ours);
    }
}

/* ---- the leader's part ---- */

static void let_go(PpTransport *t)
{
    struct pp_conn *conn = t->conn;
    t->conn = NULL;
    pp_conn_set_app(conn, NULL);
    pp_conn_finish(conn);
}

static void later(PpTransport *t)
{
    if (!pp_list_linked(&t->link)) {
        pp_list_push(&t->w->transports_ready, &t->link);
    }
}

static void settle_request(PpTransport *t, struct pp_par_turn *turn)
{
    struct pp_conn *conn = t->conn;
    if (turn->stays) {
        pp_conn_stay(conn);
    }
    struct pp_par_out *out = turn->count > 0 ? &turn->outs[0] : NULL;
    struct pp_h1_out_field fields[2];
    size_t count = 0, len = out != NULL ? (size_t)PyBytes_GET_SIZE(out->owner) : 0;
    if (out != NULL) {
        fields[count++] = (struct pp_h1_out_field){.name = (const uint8_t *)"content-type",
                                                   .name_len = strlen("content-type"),
                                                   .value = (const uint8_t *)turn->media,
                                                   .value_len = strlen(turn->media)};
    }
    if (t->closing) {
        fields[count++] = (struct pp_h1_out_field){.name = (const uint8_t *)"connection",
                                                   .name_len = strlen("connection"),
                                                   .value = (const uint8_t *)"close",
                                                   .value_len = strlen("close")};
    }
    t->closing = false;
    struct pp_h1_response r = {.status = turn->status,
                               .complete = true,
                               .body_bytes = len,
                               .fields = fields,
                               .field_count = count};
    const uint8_t *body = out != NULL ? (const uint8_t *)PyBytes_AS_STRING(out->owner) : NULL;
    if (turn->status == 0 || pp_conn_respond(conn, &r, body, 0, out != NULL ? out->owner : NULL,
                                             out != NULL ? &out->borrowed : NULL) != PP_OK) {
        pp_conn_fail(conn, 500);
    }
    let_go(t);
}

static void settle_raw(PpTransport *t, struct pp_par_turn *turn)
{
    struct pp_conn *conn = t->conn;
    for (uint32_t i = 0; i < turn->count; i++) {
        struct pp_par_out *out = &turn->outs[i];
        int rc;
        if (out->file != NULL) {
            rc = pp_conn_raw_send_file(conn, out->file, out->at, out->len);
            out->file = NULL;
        } else {
            rc = pp_conn_raw_send(conn, (const uint8_t *)PyBytes_AS_STRING(out->owner),
                                  (size_t)PyBytes_GET_SIZE(out->owner), out->owner, &out->borrowed);
        }
        if (rc != PP_OK) {
            break; /* it is closed, and CLOSED will say so */
        }
    }
    if (turn->ended) {
        let_go(t);
        return;
    }
    if (t->closing) {
        pp_conn_raw_close(conn);
    } else if (t->protocol->low_latency) {
        pp_conn_raw_flush(conn);
    }
    if (!t->closing && turn->count == 0 && t->protocol->idle_ms != 0) {
        pp_conn_raw_idle(conn, t->protocol->idle_ms); /* the callback's time was no silence */
    }
    if (t->events != 0) {
        later(t);
    }
}

void pp_par_settle(PpTransport *t, struct pp_par_turn *turn)
{
    t->busy = false;
    if (t->conn == NULL) {
        return;
    }
    if (t->protocol->raw) {
        settle_raw(t, turn);
    } else {
        settle_request(t, turn);
    }
}

uint8_t *pp_par_head(PpTransport *t, size_t *len)
{
    const uint8_t *base;
    *len = 0;
    if (t->conn == NULL || t->protocol->raw) {
        return NULL;
    }
    *len = pp_conn_head(t->conn, &base)->head_bytes;
    uint8_t *copy = pp_mem_alloc(*len);
    if (copy != NULL) {
        memcpy(copy, base, *len);
    }
    return copy;
}

void pp_par_close(PpTransport *t)
{
    if (t->protocol->raw) {
        if (t->conn != NULL) {
            pp_conn_raw_close(t->conn);
        }
        return;
    }
    /* Between requests it does not know its connection; rare enough to look for. */
    struct pp_conn *conn = t->conn;
    while (conn == NULL || pp_conn_user(conn) != t) {
        if ((conn = pp_loop_next_conn(t->w->loop, conn)) == NULL) {
            return; /* it has ended */
        }
    }
    pp_conn_end(conn);
}

void pp_par_abandon(PpTransport *t)
{
    bool raw = t->protocol->raw;
    let_go(t);
    pp_list_remove(&t->link);
    if (raw) {
        pp_list_push(&t->w->transports_left, &t->link); /* with the connection's reference */
    }
}

/* ---- runs ---- */

/* Into the application. */
static void begin(PpTransport *t, struct pp_wsgi_worker *self, struct pp_par_turn *turn,
                  struct pp_wsgi_trip *trip)
{
    Py_INCREF((PyObject *)t);
    t->busy = true;
    turn->outs = turn->inline_outs;
    turn->cap = PP_PAR_OUTS_INLINE;
    turn->count = 0;
    turn->ended = false;
    t->turn = turn;
    __atomic_store_n(&t->worker, self, __ATOMIC_RELAXED);
    pp_wsgi_lead_go(self, t->protocol->concurrency, trip);
}

/* Back, and settled: from here on another thread may run the transport. */
static void end(PpTransport *t, struct pp_wsgi_worker *self, struct pp_par_turn *turn,
                struct pp_wsgi_trip *trip)
{
    bool settled = true;
    pp_wsgi_lead_called(self, trip);
    turn->stays = may_leave(t) && keeps_something(t);
    t->turn = NULL;
    __atomic_store_n(&t->worker, NULL, __ATOMIC_RELAXED);
    bool leads = pp_wsgi_lead_enter(self);
    if (leads) {
        pp_par_settle(t, turn);
    } else {
        struct pp_wsgi_op op = {.kind = PP_WSGI_OP_SETTLE, .transport = t, .turn = turn};
        settled = pp_wsgi_op_ask(t->w, &op);
    }
    pp_wsgi_lead_back(self, trip, leads);
    if (leads && turn->ended) {
        pp_wsgi_lead_leave(self); /* what follows may be the end of the transport */
    }
    for (uint32_t i = 0; i < turn->count; i++) {
        if (!turn->outs[i].borrowed) {
            Py_XDECREF(turn->outs[i].owner);
        }
        if (turn->outs[i].file != NULL) {
            pp_file_unref(turn->outs[i].file);
        }
    }
    if (turn->outs != turn->inline_outs) {
        PyMem_Free(turn->outs);
    }
    if (turn->ended && settled) {
        Py_DECREF((PyObject *)t); /* the connection's reference; else transports_left has it */
    }
    Py_DECREF((PyObject *)t);
    if (leads && turn->ended) {
        (void)pp_wsgi_lead_enter(self);
    }
}

static void run(PpTransport *t, struct pp_wsgi_worker *self)
{
    struct news news = {.events = t->events};
    struct pp_par_turn turn;
    const uint8_t *data;
    struct pp_wsgi_trip trip;
    t->events = 0;
    if (news.events & PP_EV_CLOSED) {
        news.code = pp_conn_error(t->conn);
        news.ours = pp_conn_raw_ours(t->conn);
    }
    size_t len = pp_conn_raw_peek(t->conn, &data);
    if (len > 0) {
        news.data = PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)len);
        pp_conn_raw_consume(t->conn, len);
    }
    begin(t, self, &turn, &trip);
    if (len > 0 && news.data == NULL) {
        failed(t);
        t->closing = true;
    }
    run_callbacks(t, &news);
    Py_XDECREF(news.data);
    turn.ended = (news.events & PP_EV_CLOSED) != 0;
    end(t, self, &turn, &trip);
}

/* Nothing of the application ran: the raised exception is ours. The thread leads. */
static void refuse(struct pp_wsgi_worker *self, struct pp_conn *conn)
{
    if (!pp_conn_is_raw(conn)) {
        pp_conn_fail(conn, 500);
    }
    pp_conn_finish(conn);
    pp_wsgi_lead_report(self);
}

static PpTransport *transport_of(struct pp_wsgi_worker *self, struct pp_conn *conn)
{
    pp_wsgi_lead_attach(self);
    int gc = pp_compat_gc_pause();
    PpTransport *t = pp_transport_new(self->w, conn);
    pp_compat_gc_resume(gc);
    if (t == NULL) {
        refuse(self, conn);
    }
    return t;
}

bool pp_par_on_event(struct pp_wsgi_worker *self, struct pp_conn *conn, unsigned events)
{
    struct pp_wsgi *w = self->w;
    struct pp_wsgi_slot *slot = pp_conn_app(conn);
    PpTransport *t;
    if (events & PP_EV_REQUEST) {
        if ((t = transport_of(self, conn)) == NULL) {
            return self->word != 0;
        }
        t->conn = conn;
        pp_conn_set_app(conn, &t->slot); /* the reference is the connection's */
        pp_conn_raw_attempts(conn, t->protocol->receive_again, t->protocol->send_again);
        if (t->protocol->rate_limit != 0) {
            pp_conn_raw_rate(conn, t->protocol->rate_limit);
        }
        if (t->protocol->idle_ms != 0) {
            pp_conn_raw_idle(conn, t->protocol->idle_ms);
        }
    } else if (slot != NULL) {
        t = PP_CONTAINER(slot, PpTransport, slot);
    } else {
        return true;
    }
    const bool *has = t->protocol->has;
    if (!has[PP_PAR_data_sent] && !has[PP_PAR_send_complete] && !has[PP_PAR_send_failed]) {
        events &= ~PP_EV_FINISHED;
    }
    if (t->busy) {
        events &= ~PP_EV_IDLE; /* it is about to say something */
    }
    t->events |= events;
    if (t->busy || t->events == 0) {
        return true;
    }
    if (self->manager && (events & PP_EV_CLOSED) &&
        __atomic_load_n(&w->stop_requested, __ATOMIC_ACQUIRE)) {
        pp_par_abandon(t);
        return true;
    }
    if (self->manager || !pp_list_empty(&w->transports_ready)) {
        later(t);
        return true;
    }
    pp_wsgi_lead_attach(self);
    run(t, self);
    return self->word != 0;
}

bool pp_par_serve(struct pp_wsgi_worker *self)
{
    struct pp_wsgi *w = self->w;
    for (int i = 0; i < PP_BATCH_REQUESTS && !pp_list_empty(&w->transports_ready); i++) {
        if (i > 0 && !pp_loop_batch_goes_on(w->loop)) {
            break;
        }
        PpTransport *t = PP_CONTAINER(pp_list_pop(&w->transports_ready), PpTransport, link);
        if (t->busy || t->events == 0) {
            continue;
        }
        pp_wsgi_lead_attach(self);
        run(t, self);
        if (self->word == 0) {
            return false;
        }
    }
    return true;
}

/* ---- requests of http11 protocols ---- */

/* For the access log by way of Python: client, method, target and version, taken while the head is
 * there. NULL without such a log, or without memory. */
static PyObject *access_of(PpTransport *t, const struct pp_h1_head *head, const uint8_t *base)
{
    PpCore *core = t->core;
    if (PP_LIKELY(core->access_log == NULL)) {
        return NULL;
    }
    int gc = pp_compat_gc_pause();
    PyObject *args =
        Py_BuildValue("(NNNO)",
                      t->family == AF_UNIX ? Py_NewRef(core->k.empty_str)
                                           : PyUnicode_FromFormat("%U:%d", t->ip, t->port),
                      PyUnicode_DecodeLatin1((const char *)base + head->method.off,
                                             (Py_ssize_t)head->method.len, NULL),
                      PyUnicode_DecodeLatin1((const char *)base + head->target.off,
                                             (Py_ssize_t)head->target.len, NULL),
                      head->minor == 0 ? core->k.v1_0 : core->k.v1_1);
    pp_compat_gc_resume(gc);
    if (args == NULL) {
        PyErr_Clear(); /* no memory; the thread leads, so nothing of Python's can be told */
    }
    return args;
}

/* Steals args, which may be NULL. */
static void log_access(PpCore *core, PyObject *args, int status)
{
    if (args == NULL) {
        return;
    }
    PyObject *r = PyObject_CallFunction(core->access_log, "OOOOi", PyTuple_GET_ITEM(args, 0),
                                        PyTuple_GET_ITEM(args, 1), PyTuple_GET_ITEM(args, 2),
                                        PyTuple_GET_ITEM(args, 3), status);
    if (r == NULL) {
        PyErr_WriteUnraisable(core->access_log);
    }
    Py_XDECREF(r);
    Py_DECREF(args);
}

static void call_method(PpTransport *t, PyObject *name, PyObject *data)
{
    struct pp_par_turn *turn = t->turn;
    turn->status = 0;
    if (t->handler == NULL && !make_handler(t)) {
        return;
    }
    PyObject *args[] = {t->handler, (PyObject *)t, data};
    PyObject *given =
        PyObject_VectorcallMethod(name, args, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    turn->media =
        given != NULL && PyUnicode_Check(given) ? "text/plain; charset=utf-8" : "text/plain";
    if (given != NULL && PyDict_Check(given)) {
        PyObject *object = given;
        given = PyObject_CallOneArg(t->w->par->dumps, object);
        Py_DECREF(object);
        turn->media = "application/json";
    }
    bool nothing = given == Py_None;
    if (take_result(t, given) == 0) {
        turn->status = nothing ? 204 : 200;
        return;
    }
    turn->media = "text/plain";
    failed(t);
    t->closing = false;
    turn->status = turn->count > 0 ? 500 : 0;
}

void pp_par_request(struct pp_wsgi *w, struct pp_wsgi_worker *self, struct pp_conn *conn,
                    struct pp_wsgi_body body)
{
    const uint8_t *base;
    const struct pp_h1_head *head = pp_conn_head(conn, &base);
    struct pp_par_turn turn;
    struct pp_wsgi_trip trip;
    PpTransport *t = pp_conn_user(conn);
    PyObject *name = NULL, *data = NULL, *access = NULL;
    if (t == NULL && (t = transport_of(self, conn)) != NULL) {
        pp_conn_set_user(conn, t); /* the reference is the connection's */
    }
    if (t != NULL) {
        name = pp_par_route(t->protocol, (const char *)base + head->path.off, head->path.len);
        data = body.len > 0
                   ? PyBytes_FromStringAndSize((const char *)body.data, (Py_ssize_t)body.len)
                   : Py_NewRef(w->core->k.empty_bytes);
        access = data != NULL ? access_of(t, head, base) : NULL;
    }
    if (body.data != NULL) {
        pp_mem_free(body.data, body.cap);
    }
    if (t == NULL) {
        return;
    }
    if (name == NULL || data == NULL) {
        int status = data == NULL ? 500 : 404;
        if (data == NULL) {
            refuse(self, conn);
        } else {
            pp_wsgi_op_answer(conn, status);
        }
        Py_XDECREF(data);
        if (access != NULL && self->word != 0) {
            pp_wsgi_lead_leave(self);
            log_access(w->core, access, status);
            (void)pp_wsgi_lead_enter(self);
        } else {
            log_access(w->core, access, status);
        }
        return;
    }
    t->conn = conn;
    pp_conn_set_app(conn, &t->slot);
    begin(t, self, &turn, &trip);
    __atomic_store_n(&t->recv_id, t->recv_id + 1, __ATOMIC_RELAXED);
    call_method(t, name, data);
    Py_DECREF(data);
    log_access(w->core, access, turn.status != 0 ? turn.status : 500);
    end(t, self, &turn, &trip);
}
