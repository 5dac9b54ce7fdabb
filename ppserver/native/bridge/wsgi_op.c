/* What calls want from their connections, and what connections have for their calls.
 *
 * An operation is carried out at once when its thread leads; otherwise it is posted to the leader,
 * and its thread waits detached. One that can not end yet (no body bytes, output full) stays with
 * its call until an event of the connection ends it; a leader that meets this in its own call hands
 * over first, so that the loop turns while it waits.
 *
 * Everything here but pp_wsgi_op_run and pp_wsgi_op_finish runs on the leading thread, attached or
 * not, without calling Python. */
#include "bridge/forked.h"
#include "bridge/parallel.h"

#include <string.h>

/* ---- operations ---- */

static bool apply_output(PpWsgiCall *call, struct pp_wsgi_op *op)
{
    struct pp_conn *conn = call->conn;
    bool *borrowed = op->owner != NULL ? &op->borrowed : NULL;
    if (op->kind == PP_WSGI_OP_RESPOND) {
        op->rc = pp_conn_respond(conn, op->response, op->data, op->len, op->owner, borrowed);
    } else {
        op->rc = pp_conn_send(conn, op->data, op->len, op->more, op->owner, borrowed);
    }
    op->closed = pp_conn_closed(conn);
    if (op->rc != PP_OK || !op->more || op->closed || !pp_conn_out_full(conn)) {
        return true;
    }
    /* Often the socket takes it at once, and nobody has to wait. */
    pp_loop_flush(call->w->loop);
    op->closed = pp_conn_closed(conn);
    if (op->closed || !pp_conn_out_full(conn)) {
        return true;
    }
    call->out_op = op;
    return false;
}

static bool apply_read(PpWsgiCall *call, struct pp_wsgi_op *op)
{
    const uint8_t *data;
    size_t len;
    enum pp_body_status status = pp_conn_body_peek(call->conn, &data, &len);
    if (len > 0) {
        size_t n = len < op->cap ? len : op->cap;
        memcpy(op->dst, data, n);
        pp_conn_body_consume(call->conn, n);
        op->got = n;
        op->eof = status == PP_BODY_END && n == len;
        return true;
    }
    switch (status) {
    case PP_BODY_END:
        op->eof = true;
        return true;
    case PP_BODY_FAILED:
        op->rc = pp_conn_error(call->conn);
        if (op->rc >= 0) {
            op->rc = PP_ERR_DISCONNECTED;
        }
        return true;
    case PP_BODY_MORE:
        break;
    }
    pp_conn_body_want(call->conn);
    call->in_op = op;
    return false;
}

/* The waiting thread owns op: it is gone after this. */
static void complete(struct pp_wsgi_op *op)
{
    if (op->kind == PP_WSGI_OP_CLOSE) {
        struct pp_wsgi *w = op->w;
        op->msg.next = w->spent;
        w->spent = &op->msg;
        return;
    }
    if (op->kind == PP_WSGI_OP_HEADS) {
        __atomic_store_n(&op->w->heads_asked, false, __ATOMIC_RELEASE);
        return;
    }
    pp_park_wake(&op->park);
}

void *pp_wsgi_op_take_spent(struct pp_wsgi *w)
{
    struct pp_msg *msg = w->spent;
    if (PP_LIKELY(msg == NULL)) {
        return NULL;
    }
    struct pp_wsgi_op *op = PP_CONTAINER(msg, struct pp_wsgi_op, msg);
    PpTransport *transport = op->transport;
    w->spent = msg->next;
    pp_mem_free(op, sizeof(*op));
    return transport;
}

static void fail_waiting(PpWsgiCall *call)
{
    struct pp_wsgi_op *in = call->in_op, *out = call->out_op;
    call->in_op = call->out_op = NULL;
    if (in != NULL) {
        in->rc = PP_ERR_DISCONNECTED;
        complete(in);
    }
    if (out != NULL) {
        out->closed = true;
        complete(out);
    }
}

static void let_go(PpWsgiCall *call)
{
    struct pp_conn *conn = call->conn;
    call->conn = NULL;
    fail_waiting(call); /* another thread of the application that still reads, say */
    if (call->streams) {
        call->streams = false;
        pp_wsgi_op_stream_ended(call->w);
    }
    pp_conn_set_app(conn, NULL);
    pp_conn_finish(conn);
}

/* What has no call. */
static void apply_parallel(struct pp_wsgi_op *op)
{
    switch (op->kind) {
    case PP_WSGI_OP_SETTLE:
        pp_par_settle(op->transport, op->turn);
        break;
    case PP_WSGI_OP_CLOSE:
        pp_par_close(op->transport);
        break;
    case PP_WSGI_OP_HEAD:
        op->dst = pp_par_head(op->transport, &op->cap);
        break;
    case PP_WSGI_OP_BRING:
        op->rc = pp_loop_bring(op->w->loop, op->fd, op->tag);
        break;
    case PP_WSGI_OP_HEADS:
        pp_wsgi_head_send_due(op->w);
        break;
    default:
        PP_ASSERT(false);
    }
}

/* True when op is done; false when it waits in its call. */
static bool apply(struct pp_wsgi_op *op)
{
    PpWsgiCall *call = op->call;
    if (call == NULL) {
        apply_parallel(op);
        return true;
    }
    if (call->conn == NULL) {
        op->rc = PP_ERR_DISCONNECTED;
        op->closed = true;
        return true;
    }
    switch (op->kind) {
    case PP_WSGI_OP_RESPOND:
    case PP_WSGI_OP_SEND:
        return apply_output(call, op);
    case PP_WSGI_OP_READ:
        return apply_read(call, op);
    case PP_WSGI_OP_FAIL:
        pp_conn_fail(call->conn, 500);
        return true;
    case PP_WSGI_OP_FINISH:
        let_go(call);
        return true;
    case PP_WSGI_OP_SETTLE:
    case PP_WSGI_OP_CLOSE:
    case PP_WSGI_OP_HEAD:
    case PP_WSGI_OP_BRING:
    case PP_WSGI_OP_HEADS:
        break;
    }
    PP_ASSERT(false);
    return true;
}

void pp_wsgi_op_messages(struct pp_wsgi *w)
{
    struct pp_msg *msg;
    while ((msg = pp_loop_take_msg(w->loop)) != NULL) {
        struct pp_wsgi_op *op = PP_CONTAINER(msg, struct pp_wsgi_op, msg);
        if (apply(op)) {
            complete(op);
        }
    }
}

/* False when nobody leads, any more or yet. */
static bool post(struct pp_wsgi *w, struct pp_wsgi_op *op)
{
    (void)pthread_mutex_lock(&w->mutex);
    bool ended = w->ended || !w->running;
    if (!ended) {
        pp_loop_post(w->loop, &op->msg);
    }
    (void)pthread_mutex_unlock(&w->mutex);
    if (ended) {
        op->rc = PP_ERR_DISCONNECTED;
        op->closed = true;
    }
    return !ended;
}

/* Until op is done. The thread that runs run_wsgi may be asked to lead meanwhile, when every other
 * one is busy, and then does what it waits for itself. Detached. */
static void wait_done(struct pp_wsgi_op *op)
{
    struct pp_wsgi_worker *self = pp_wsgi_lead_self();
    if (PP_LIKELY(self == NULL || !self->manager)) {
        pp_park_wait_woken(&op->park);
        return;
    }
    while (pp_park_wait(&op->park, PP_WSGI_TICK_US) != PP_PARK_WOKEN) {
        if (pp_wsgi_lead_take(self)) {
            pp_loop_adopt(self->w->loop);
            pp_wsgi_op_messages(self->w);
            pp_wsgi_lead_leave(self);
        }
    }
}

/* What the loop is done with, a few at a time: an answer in many pieces that the socket takes at
 * once keeps its thread here, where lead() would let go of nothing until the end. */
static int take_released(struct pp_wsgi *w, void **owners, int count)
{
    int taken = 0;
    while (taken < count && (owners[taken] = pp_loop_take_released(w->loop)) != NULL) {
        taken++;
    }
    return taken;
}

void pp_wsgi_op_run(struct pp_wsgi_op *op)
{
    PpWsgiCall *call = op->call;
    struct pp_wsgi_worker *self = pp_wsgi_lead_self();
    if (__atomic_load_n(&call->ended, __ATOMIC_ACQUIRE)) {
        op->rc = PP_ERR_DISCONNECTED;
        op->closed = true;
        return;
    }
    pp_park_init(&op->park);
    if (self != NULL && self == call->worker && pp_wsgi_lead_enter(self)) {
        bool done = apply(op);
        if (op->borrowed) {
            Py_INCREF(op->owner);
        }
        if (done) {
            void *owners[16];
            int count = take_released(call->w, owners, 16);
            pp_wsgi_lead_exit(self);
            while (count > 0) { /* may run code of the application */
                Py_DECREF((PyObject *)owners[--count]);
            }
            pp_park_fini(&op->park);
            return;
        }
        pp_wsgi_lead_hand_over(self);
        Py_BEGIN_ALLOW_THREADS;
        pp_park_wait_woken(&op->park);
        Py_END_ALLOW_THREADS;
    } else {
        if (PP_UNLIKELY(call->w->forked)) {
            pp_forked_end(call->core, NULL);
        }
        Py_XINCREF(op->owner); /* the loop may give it back before we hear that it was taken */
        Py_BEGIN_ALLOW_THREADS;
        if (post(call->w, op)) {
            wait_done(op);
        }
        Py_END_ALLOW_THREADS;
        if (!op->borrowed) {
            Py_XDECREF(op->owner);
        }
    }
    pp_park_fini(&op->park);
}

bool pp_wsgi_op_ask(struct pp_wsgi *w, struct pp_wsgi_op *op)
{
    bool posted;
    if (PP_UNLIKELY(w->forked)) {
        pp_forked_end(w->core, NULL);
    }
    pp_park_init(&op->park);
    Py_BEGIN_ALLOW_THREADS;
    posted = post(w, op);
    if (posted) {
        wait_done(op);
    }
    Py_END_ALLOW_THREADS;
    pp_park_fini(&op->park);
    return posted;
}

int pp_wsgi_op_post_close(struct pp_wsgi *w, struct PpTransport *transport)
{
    if (PP_UNLIKELY(w->forked)) {
        pp_forked_end(w->core, NULL);
    }
    struct pp_wsgi_op *op = pp_mem_zalloc(sizeof(*op));
    if (op == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    op->kind = PP_WSGI_OP_CLOSE;
    op->w = w;
    op->transport = (PpTransport *)Py_NewRef((PyObject *)transport);
    if (!post(w, op)) {
        pp_mem_free(op, sizeof(*op));
        Py_DECREF((PyObject *)transport);
    }
    return 0;
}

void pp_wsgi_op_post_heads(struct pp_wsgi *w)
{
    if (!__atomic_exchange_n(&w->heads_asked, true, __ATOMIC_ACQ_REL)) {
        (void)post(w, w->heads_op); /* at the end, nobody's head waits any more */
    }
}

bool pp_wsgi_op_finish(PpWsgiCall *call)
{
    struct pp_wsgi_worker *self = call->worker;
    PP_ASSERT(self == pp_wsgi_lead_self());
    bool leads = pp_wsgi_lead_enter(self);
    if (leads) {
        let_go(call);
    } else {
        struct pp_wsgi_op op = {.call = call, .kind = PP_WSGI_OP_FINISH};
        pp_wsgi_op_run(&op);
    }
    __atomic_store_n(&call->ended, true, __ATOMIC_RELEASE);
    return leads;
}

/* ---- requests that are not with the application yet ---- */

/* body_max: how long the body may become; it takes memory as it comes, body_first bytes at once. */
static struct pp_wsgi_pending *pending_new(struct pp_wsgi *w, struct pp_conn *conn, size_t body_max,
                                           size_t body_first)
{
    struct pp_wsgi_pending *p = pp_mem_zalloc(sizeof(*p));
    if (p == NULL) {
        return NULL;
    }
    p->slot.kind = PP_WSGI_PENDING;
    p->conn = conn;
    p->w = w;
    pp_list_init(&p->link);
    if (body_first > 0) {
        p->body.data = pp_mem_alloc(body_first);
        if (p->body.data == NULL) {
            pp_mem_free(p, sizeof(*p));
            return NULL;
        }
        p->body.cap = body_first;
        w->gathered_bytes += body_first;
    }
    p->body_max = body_max;
    pp_conn_set_app(conn, &p->slot);
    return p;
}

/* Takes the request out of every list; its body is the caller's. */
static struct pp_wsgi_body pending_take(struct pp_wsgi_pending *p)
{
    struct pp_wsgi_body body = p->body;
    p->w->gathered_bytes -= body.cap;
    pp_list_remove(&p->link);
    pp_conn_set_app(p->conn, NULL);
    pp_mem_free(p, sizeof(*p));
    return body;
}

/* The same without the body, and without its place among streams. */
static void pending_drop(struct pp_wsgi_pending *p)
{
    struct pp_wsgi *w = p->w;
    bool admitted = p->admitted;
    struct pp_wsgi_body body = pending_take(p);
    pp_wsgi_body_drop(&body);
    if (admitted) {
        pp_wsgi_op_stream_ended(w);
    }
}

static void pending_refuse(struct pp_wsgi_pending *p)
{
    struct pp_conn *conn = p->conn;
    pending_drop(p);
    pp_conn_fail(conn, 503);
    pp_conn_finish(conn);
}

/* Room for len more bytes: PP_OK, BODY_TOO_LARGE (also of all bodies together) or NO_MEMORY. */
static int make_room(struct pp_wsgi_pending *p, size_t len)
{
    size_t cap = p->body.cap, before = cap;
    if (len > p->body_max - p->body.len) {
        return PP_ERR_BODY_TOO_LARGE;
    }
    while (cap < p->body.len + len) {
        cap = cap * 2 < p->body_max ? cap * 2 : p->body_max;
    }
    if (cap > before) {
        if (p->w->par == NULL && p->w->gathered_bytes + (cap - before) > PP_WSGI_GATHER_TOTAL) {
            return PP_ERR_BODY_TOO_LARGE;
        }
        uint8_t *grown = pp_mem_realloc(p->body.data, before, cap);
        if (grown == NULL) {
            return PP_ERR_NO_MEMORY;
        }
        p->body.data = grown;
        p->body.cap = cap;
        p->w->gathered_bytes += cap - before;
    }
    return PP_OK;
}

/* What has come of the body goes to a file, and what comes: PP_OK, or BODY_TOO_LARGE if it cannot:
 * then all is as before. */
static int spool_begin(struct pp_wsgi_pending *p)
{
    struct pp_wsgi *w = p->w;
    struct pp_spool *spool = pp_spool_new(w->spool);
    if (spool == NULL || pp_spool_append(spool, p->body.data, p->body.len) != PP_OK) {
        if (spool != NULL) {
            pp_spool_free(spool);
        }
        return PP_ERR_BODY_TOO_LARGE;
    }
    if (p->body.data != NULL) {
        pp_mem_free(p->body.data, p->body.cap);
    }
    w->gathered_bytes -= p->body.cap;
    p->body.cap = 0;
    p->body.spool = spool;
    p->body.spooled = true;
    return PP_OK;
}

/* Keeps len more bytes of an awaited body: PP_OK, BODY_TOO_LARGE if there is no room for them, or
 * NO_MEMORY. */
static int keep(struct pp_wsgi_pending *p, const uint8_t *data, size_t len)
{
    if (!p->body.spooled) {
        int rc = make_room(p, len);
        if (rc == PP_OK) {
            if (len > 0) {
                memcpy(p->body.data + p->body.len, data, len);
            }
            p->body.len += len;
            return PP_OK;
        }
        if (rc != PP_ERR_BODY_TOO_LARGE || p->w->spool == NULL || spool_begin(p) != PP_OK) {
            return rc;
        }
    }
    if (pp_spool_append(p->body.spool, data, len) != PP_OK) {
        return PP_ERR_BODY_TOO_LARGE;
    }
    p->body.len += len;
    return PP_OK;
}

/* Takes what has come of an awaited body: PP_OK when it is whole, PP_AGAIN, or PP_ERR_*. */
static int gather(struct pp_wsgi_pending *p)
{
    for (;;) {
        const uint8_t *data;
        size_t len;
        enum pp_body_status status = pp_conn_body_peek(p->conn, &data, &len);
        if (status == PP_BODY_FAILED) {
            return PP_ERR_DISCONNECTED;
        }
        int rc = keep(p, data, len);
        if (rc != PP_OK) {
            return rc;
        }
        if (len > 0) {
            pp_conn_body_consume(p->conn, len);
        }
        if (status == PP_BODY_END) {
            p->whole = true;
            return PP_OK;
        }
        if (len == 0) {
            pp_conn_body_want(p->conn);
            return PP_AGAIN;
        }
    }
}

static void run_application(struct pp_wsgi_worker *self, struct pp_conn *conn,
                            struct pp_wsgi_body body)
{
    pp_wsgi_lead_attach(self);
    if (self->w->par != NULL) {
        pp_par_request(self->w, self, conn, body);
    } else {
        pp_wsgi_run(self->w, self, conn, body);
    }
}

/* The request waits for a thread from now on. */
static void push_ready(struct pp_wsgi *w, struct pp_wsgi_pending *p)
{
    if (pp_list_empty(&w->ready)) {
        __atomic_store_n(&w->ready_since_ms, pp_loop_clock_ms(), __ATOMIC_RELAXED);
    }
    pp_list_remove(&p->link);
    pp_list_push(&w->ready, &p->link);
}

/* Runs the application, or puts the request behind those that wait. False: leadership lost. */
static bool start(struct pp_wsgi_worker *self, struct pp_conn *conn, struct pp_wsgi_pending *p)
{
    struct pp_wsgi *w = self->w;
    if (!self->manager && pp_list_empty(&w->ready)) {
        run_application(self, conn, p != NULL ? pending_take(p) : (struct pp_wsgi_body){0});
        return self->word != 0;
    }
    if (p == NULL && (p = pending_new(w, conn, 0, 0)) == NULL) {
        pp_conn_fail(conn, 503);
        pp_conn_finish(conn);
        return true;
    }
    push_ready(w, p);
    return true;
}

/* ---- bodies that the application reads as they come ----
 * A client that sends its body byte by byte holds the thread of such a call for as long as it
 * likes, so they have half of the threads at most; further ones wait, and nothing of them is
 * received. */

static bool start_stream(struct pp_wsgi_worker *self, struct pp_wsgi_pending *p)
{
    struct pp_wsgi *w = self->w;
    p->body.streams = p->whole = true;
    if (w->streams >= w->streams_max) {
        pp_list_remove(&p->link);
        pp_list_push(&w->streams_waiting, &p->link);
        return true;
    }
    w->streams++;
    p->admitted = true;
    return start(self, p->conn, p);
}

void pp_wsgi_op_stream_ended(struct pp_wsgi *w)
{
    PP_ASSERT(w->streams > 0);
    w->streams--;
    struct pp_list *n = pp_list_pop(&w->streams_waiting);
    if (n != NULL) {
        struct pp_wsgi_pending *p = PP_CONTAINER(n, struct pp_wsgi_pending, link);
        p->admitted = true;
        w->streams++;
        push_ready(w, p);
    }
}

static bool gather_or_start(struct pp_wsgi_worker *self, struct pp_wsgi_pending *p)
{
    int rc = gather(p);
    if (rc == PP_OK) {
        return start(self, p->conn, p);
    }
    if (rc == PP_ERR_BODY_TOO_LARGE && self->w->par == NULL) {
        return start_stream(self, p);
    }
    if (rc == PP_ERR_BODY_TOO_LARGE) {
        struct pp_conn *conn = p->conn;
        pending_drop(p);
        pp_wsgi_op_answer(conn, 413);
    } else if (rc != PP_AGAIN) {
        pending_refuse(p); /* pp_conn_fail knows the status that fits */
    }
    return true;
}

void pp_wsgi_op_answer(struct pp_conn *conn, int status)
{
    const char *text = pp_h1_reason(status);
    struct pp_h1_response r = {.status = status, .complete = true, .body_bytes = strlen(text)};
    if (pp_conn_respond(conn, &r, (const uint8_t *)text, 0, NULL, NULL) != PP_OK) {
        pp_conn_fail(conn, 500);
    }
    pp_conn_finish(conn);
}

static bool on_request(struct pp_wsgi_worker *self, struct pp_conn *conn)
{
    struct pp_wsgi *w = self->w;
    const uint8_t *base;
    const struct pp_h1_head *head = pp_conn_head(conn, &base);
    bool par = w->par != NULL; /* its methods get whole bodies, an application may read */
    uint64_t length = head->has_content_length ? head->content_length : 0;
    if (length == 0 && !head->chunked) {
        return start(self, conn, NULL);
    }
    if (par && length > PP_PAR_BODY_MAX) {
        pp_wsgi_op_answer(conn, 413);
        return true;
    }
    size_t first = head->chunked                   ? PP_WSGI_GATHER_FIRST
                   : length < PP_WSGI_GATHER_BYTES ? (size_t)length
                                                   : PP_WSGI_GATHER_BYTES;
    bool crowded = !par && w->gathered_bytes + first > PP_WSGI_GATHER_TOTAL;
    bool streams = false;
    if (!par && w->spool == NULL) {
        streams = crowded || length > PP_WSGI_GATHER_MAX || head->expect_continue;
    } else if (!par) {
        streams = length > PP_WSGI_GATHER_MAX && length > pp_spool_file_room(w->spool);
    }
    size_t limit = par ? PP_PAR_BODY_MAX : PP_WSGI_GATHER_MAX; /* beyond it: a file, or the call */
    size_t most = head->chunked || length > limit ? limit : (size_t)length;
    most = streams || crowded ? 0 : most;
    struct pp_wsgi_pending *p = pending_new(w, conn, most, first < most ? first : most);
    if (p == NULL) {
        pp_conn_fail(conn, 503);
        pp_conn_finish(conn);
        return true;
    }
    if (streams) {
        return start_stream(self, p);
    }
    pp_list_push(&w->waiting, &p->link);
    return gather_or_start(self, p);
}

/* ---- events ---- */

static bool on_pending(struct pp_wsgi_worker *self, struct pp_wsgi_pending *p, unsigned events)
{
    if (events & PP_EV_CLOSED) {
        pending_refuse(p);
        return true;
    }
    return (events & PP_EV_BODY) && !p->whole ? gather_or_start(self, p) : true;
}

static void on_call(PpWsgiCall *call, unsigned events)
{
    struct pp_wsgi_op *in = call->in_op, *out = call->out_op;
    if ((events & PP_EV_CLOSED) || ((events & PP_EV_EOF) && pp_conn_response_started(call->conn))) {
        __atomic_store_n(&call->gone, true, __ATOMIC_RELEASE);
    }
    if (in != NULL && (events & (PP_EV_BODY | PP_EV_CLOSED))) {
        call->in_op = NULL;
        if (apply_read(call, in)) {
            complete(in);
        }
    }
    if (out != NULL && (events & (PP_EV_DRAINED | PP_EV_CLOSED))) {
        call->out_op = NULL;
        out->closed = pp_conn_closed(call->conn);
        complete(out);
    }
}

static bool on_event(struct pp_wsgi_worker *self, struct pp_conn *conn, unsigned events)
{
    struct pp_wsgi_slot *slot = pp_conn_app(conn);
    if (pp_conn_is_raw(conn)) {
        return pp_par_on_event(self, conn, events);
    }
    if (events & PP_EV_REQUEST) {
        PP_ASSERT(slot == NULL);
        return on_request(self, conn);
    }
    if (slot == NULL) {
        return true;
    }
    switch (slot->kind) {
    case PP_WSGI_PENDING:
        return on_pending(self, PP_CONTAINER(slot, struct pp_wsgi_pending, slot), events);
    case PP_WSGI_CALL:
        on_call(PP_CONTAINER(slot, PpWsgiCall, slot), events);
        return true;
    case PP_WSGI_TRANSPORT: /* the answer to its request finds out what happened meanwhile */
        return true;
    }
    return true;
}

static void none_waits(struct pp_wsgi *w)
{
    if (w->ready_since_ms != 0 && pp_list_empty(&w->ready)) {
        __atomic_store_n(&w->ready_since_ms, 0, __ATOMIC_RELAXED);
    }
}

bool pp_wsgi_op_serve(struct pp_wsgi_worker *self)
{
    struct pp_wsgi *w = self->w;
    struct pp_conn *conn;
    unsigned events;
    none_waits(w); /* they may have left */
    for (int i = 0; i < PP_BATCH_REQUESTS && !self->manager && !pp_list_empty(&w->ready); i++) {
        if (i > 0 && !pp_loop_batch_goes_on(w->loop)) {
            pp_loop_batch(w->loop); /* events have their own time: a long queue hides none */
            break;
        }
        struct pp_wsgi_pending *p = PP_CONTAINER(w->ready.next, struct pp_wsgi_pending, link);
        struct pp_conn *first = p->conn;
        run_application(self, first, pending_take(p));
        if (self->word == 0) {
            return false;
        }
    }
    if (!self->manager && !pp_par_serve(self)) {
        return false;
    }
    while ((conn = pp_loop_take_event(w->loop, &events)) != NULL) {
        if (!on_event(self, conn, events)) {
            return false;
        }
        if (__atomic_load_n(&w->stop_requested, __ATOMIC_RELAXED) && !self->manager) {
            break;
        }
    }
    return true;
}

void pp_wsgi_op_abandon(struct pp_wsgi *w)
{
    struct pp_conn *conn = NULL;
    while ((conn = pp_loop_next_conn(w->loop, conn)) != NULL) {
        struct pp_wsgi_slot *slot = pp_conn_app(conn);
        if (slot == NULL) {
            continue;
        }
        switch (slot->kind) {
        case PP_WSGI_PENDING:
            pending_refuse(PP_CONTAINER(slot, struct pp_wsgi_pending, slot));
            break;
        case PP_WSGI_CALL:
            let_go(PP_CONTAINER(slot, PpWsgiCall, slot));
            break;
        case PP_WSGI_TRANSPORT:
            pp_par_abandon(PP_CONTAINER(slot, PpTransport, slot));
            break;
        }
    }
}
