/* HTTP/1.1 on a connection: its states, its deadlines, the end of a request (RFC 9112).
 *
 *   IDLE --bytes--> HEAD --head whole--> SERVE --answered--> IDLE
 *                     |                    |
 *                     +------refused-------+--last answer--> OVER
 *
 * The table is PP_HTTP1_STATES in http1_impl.h; OVER also comes when the transport is closing or
 * dead. Whether the application holds the request is a flag beside the state (pp_exchange.held): it
 * may go on (background work) after its response was sent and the socket closed. Input is in
 * http1_in.c, output in http1_out.c. */
#include "net/http1.h"

#include <string.h>

const uint8_t pp_http1_next[PP_HTTP1_NO][PP_HTTP1_STEPS] = {
#define PP_HTTP1_ROW_(state, bytes, request, reuse, over) \
    [PP_HTTP1_##state] = {PP_HTTP1_##bytes, PP_HTTP1_##request, PP_HTTP1_##reuse, PP_HTTP1_##over},
    PP_HTTP1_STATES(PP_HTTP1_ROW_)
#undef PP_HTTP1_ROW_
};

void pp_http1_step(struct pp_http1 *h, enum pp_http1_step step)
{
    PP_CHECK(h->state < PP_HTTP1_NO && pp_http1_next[h->state][step] != PP_HTTP1_NO);
    h->state = pp_http1_next[h->state][step];
}

void pp_http1_over(struct pp_conn *conn)
{
    struct pp_http1 *h = &conn->http1;

    pp_http1_block_drop(h);
    pp_http1_step(h, PP_HTTP1_ON_OVER);
    pp_conn_last(conn);
}

static uint32_t idle_ms(const struct pp_conn *conn)
{
    return conn->draining ? PP_DRAIN_IDLE_MS : conn->loop->settings.keep_alive_ms;
}

/* Once per request, when nothing more can come from the peer and all of the request is here. A peer
 * that has shut its side before the response began may have left, or wait for it: it gets a grace,
 * which ends when it is over, however far the response is by then. */
static void eof_tell(struct pp_conn *conn)
{
    struct pp_http1 *h = &conn->http1;

    if (h->state != PP_HTTP1_SERVE || !conn->peer_shut || !h->ex.held || h->ex.eof_told ||
        h->h1.req != PP_H1_REQ_DONE || conn->read_due_ms != 0) {
        return;
    }
    uint32_t grace_ms = conn->loop->settings.disconnect_grace_ms;
    if (h->h1.res == PP_H1_RES_WAIT && grace_ms > 0) {
        pp_conn_read_due(conn, grace_ms);
        return;
    }
    h->ex.eof_told = true;
    pp_exchange_raise(&h->ex, PP_EV_EOF);
}

/* ---- what the transport calls ---- */

/* Whether a receive right after accept is likely to pay: with clients that send at once it saves a
 * wake-up, with slow ones it is a system call for nothing. A few are made all the time, to learn.
 */
static bool try_now(struct pp_loop *loop)
{
    if (loop->try_credit > 0 || ++loop->try_skipped >= PP_TRY_MAX) {
        loop->try_skipped = 0;
        return true;
    }
    return false;
}

static void begin(struct pp_conn *conn, const uint8_t *carry, size_t len);
static const struct pp_exchange_ops exchange_ops;

static void ready(struct pp_conn *conn)
{
    struct pp_http1 *h = &conn->http1;

    if (conn->hung_up && h->state == PP_HTTP1_SERVE) {
        pp_conn_lost(conn);
        return;
    }
    if (conn->readable) {
        pp_http1_read(conn);
    }
    eof_tell(conn);
}

static void resume(struct pp_conn *conn)
{
    const struct pp_http1 *h = &conn->http1;

    if (h->state == PP_HTTP1_HEAD && pp_http1_leftover(h) > 0) {
        pp_http1_read_next(conn);
    }
    if (conn->readable) {
        pp_http1_read(conn);
    }
    eof_tell(conn);
}

static void flushed(struct pp_conn *conn)
{
    struct pp_http1 *h = &conn->http1;

    pp_exchange_flushed(&h->ex, conn->out.bytes);
    if (conn->out.bytes == 0 && h->state == PP_HTTP1_IDLE && conn->read_due_ms == 0) {
        pp_conn_read_due(conn, idle_ms(conn)); /* from the answer, not from before its handler */
    }
    if (conn->out.bytes == 0 && h->state == PP_HTTP1_SERVE && h->h1.res == PP_H1_RES_DONE &&
        !h->h1.keep_alive) {
        /* The application goes on, the peer need not wait for it. */
        conn->linger |= !h->peer_last || h->h1.req != PP_H1_REQ_DONE || pp_http1_leftover(h) > 0;
        pp_conn_shut(conn);
        return;
    }
    if ((h->state == PP_HTTP1_IDLE || h->state == PP_HTTP1_HEAD) &&
        conn->out.bytes <= PP_OUT_LOW_BYTES &&
        (conn->readable || (h->state == PP_HTTP1_HEAD && pp_http1_leftover(h) > 0))) {
        pp_conn_resume_later(conn); /* if it was the output that stopped the input */
    }
}

static void head_late(struct pp_conn *conn)
{
    pp_http1_refuse(conn, PP_ERR_HEADER_TIMEOUT, pp_err_status(PP_ERR_HEADER_TIMEOUT));
}

static void idle_late(struct pp_conn *conn)
{
    const struct pp_http1 *h = &conn->http1;

    if (conn->out.bytes > 0) { /* still answering: the write deadline rules */
        pp_conn_read_due(conn, idle_ms(conn));
        return;
    }
    bool first = conn->requests == 0;
    if (pp_conn_look(conn)) {
        if (first && h->state == PP_HTTP1_HEAD && !conn->readable) {
            head_late(conn); /* its time began with the connection */
        }
        return;
    }
    int code = first ? PP_ERR_HEADER_TIMEOUT : PP_ERR_IDLE_TIMEOUT;
    pp_stats_error(&conn->loop->slot->counters, code);
    pp_conn_kill(conn, code, false);
}

static void serve_late(struct pp_conn *conn)
{
    struct pp_http1 *h = &conn->http1;

    if (h->h1.req == PP_H1_REQ_DONE) { /* the grace of a peer that has shut its side */
        h->ex.eof_told = true;
        pp_exchange_raise(&h->ex, PP_EV_EOF);
        return;
    }
    /* Else armed while the application waits for body bytes. It may still answer; if it does not,
     * `fail` answers 408. */
    if (h->ex.want && pp_conn_look(conn)) {
        return;
    }
    pp_stats_error(&conn->loop->slot->counters, PP_ERR_BODY_TIMEOUT);
    h->ex.error = PP_ERR_BODY_TIMEOUT;
    h->h1.keep_alive = false;
    if (h->h1.res != PP_H1_RES_WAIT) {
        pp_conn_kill(conn, PP_ERR_BODY_TIMEOUT, true);
    } else if (h->ex.want) {
        h->ex.want = false;
        pp_exchange_raise(&h->ex, PP_EV_BODY);
    }
}

static void late(struct pp_conn *conn)
{
    const struct pp_http1 *h = &conn->http1;

    switch ((enum pp_http1_state)h->state) {
    case PP_HTTP1_IDLE:
        idle_late(conn);
        break;
    case PP_HTTP1_HEAD:
        if (!pp_conn_look(conn) || (h->state == PP_HTTP1_HEAD && !conn->readable)) {
            head_late(conn);
        }
        break;
    case PP_HTTP1_SERVE:
        serve_late(conn);
        break;
    case PP_HTTP1_OVER:
    case PP_HTTP1_NO:
        break;
    }
}

/* The application has been silent for long after its head: pp_exchange_head_wait. */
static void called(struct pp_conn *conn)
{
    struct pp_http1 *h = &conn->http1;

    if (h->ex.held && h->state == PP_HTTP1_SERVE && h->h1.res == PP_H1_RES_WAIT) {
        pp_exchange_raise(&h->ex, PP_EV_HEAD);
    }
}

static void gone(struct pp_conn *conn, int code)
{
    struct pp_http1 *h = &conn->http1;

    pp_http1_step(h, PP_HTTP1_ON_OVER);
    pp_exchange_gone(&h->ex, code, false);
    if (!h->ex.held) {
        pp_http1_block_drop(h);
    }
}

static void drain(struct pp_conn *conn)
{
    struct pp_http1 *h = &conn->http1;

    h->h1.draining = true;
    if (h->state != PP_HTTP1_IDLE) {
        return;
    }
    conn->readable = true; /* a request may have arrived after the last look */
    pp_http1_read(conn);
    if (h->state != PP_HTTP1_IDLE) {
        return;
    }
    /* Its next request may be under way, and would be lost; the answer then says "close". A new
     * peer is about to ask something. */
    pp_conn_read_due(conn, conn->requests > 0 ? PP_DRAIN_IDLE_MS : PP_LINGER_MS / 2);
}

static bool busy(const struct pp_conn *conn)
{
    return conn->http1.ex.held && conn->http1.h1.res != PP_H1_RES_DONE;
}

static bool may_leave(const struct pp_conn *conn)
{
    return conn->http1.state == PP_HTTP1_IDLE && conn->http1.in == NULL;
}

static struct pp_exchange *next(struct pp_conn *conn, struct pp_exchange *ex)
{
    return ex == NULL && conn->http1.ex.held ? &conn->http1.ex : NULL;
}

const struct pp_proto pp_http1_proto = {
    .name = "http/1.1",
    .begin = begin,
    .ready = ready,
    .resume = resume,
    .flushed = flushed,
    .late = late,
    .called = called,
    .gone = gone,
    .drain = drain,
    .busy = busy,
    .may_leave = may_leave,
    .next = next,
};

static void begin(struct pp_conn *conn, const uint8_t *carry, size_t len)
{
    struct pp_loop *loop = conn->loop;
    struct pp_http1 *h = &conn->http1;

    memset(h, 0, sizeof *h);
    pp_exchange_init(&h->ex, &exchange_ops, conn);
    pp_h1_conn_init(&h->h1);
    h->h1.draining = conn->draining;
    pp_conn_read_due(conn, conn->requests > 0 ? idle_ms(conn)
                           : loop->draining   ? PP_LINGER_MS / 2
                                              : loop->settings.request_header_ms);
    if (len > 0) {
        pp_http1_carry(conn, carry, len);
        return;
    }
    if (!try_now(loop)) {
        return; /* the poller tells when there is something */
    }
    pp_stats_add(&loop->slot->counters.tried, 1);
    pp_http1_read(conn); /* the request is often here already */
    if (conn->state == PP_CONN_OPEN && h->state == PP_HTTP1_IDLE) {
        loop->try_credit -= loop->try_credit > 0;
    } else {
        pp_stats_add(&loop->slot->counters.tried_well, 1);
        loop->try_credit += loop->try_credit < PP_TRY_MAX;
    }
}

/* ---- the application's side: what is asked, and the end ---- */

static const struct pp_head *head(const struct pp_exchange *ex, const uint8_t **base)
{
    const struct pp_http1 *h = pp_http1_of(ex);
    PP_CHECK(h->in != NULL);
    *base = h->in->data + h->in_start;
    return &h->in->head;
}

static const union pp_sock_addr *client(const struct pp_exchange *ex)
{
    const struct pp_http1 *h = pp_http1_of(ex);
    bool named = h->trusted && h->in != NULL && h->in->forwarded.client.family != AF_UNSPEC;
    return named ? &h->in->forwarded.client : &ex->conn->peer;
}

void pp_http1_log(const struct pp_http1 *h)
{
    pp_accesslog_line(&h->ex.conn->loop->log, client(&h->ex), &h->in->head,
                      h->in->data + h->in_start, h->ex.status);
}

static bool client_https(const struct pp_exchange *ex)
{
    const struct pp_http1 *h = pp_http1_of(ex);
    return h->trusted && h->in != NULL && h->in->forwarded.scheme == PP_SCHEME_HTTPS;
}

static bool client_varies(const struct pp_exchange *ex)
{
    return pp_http1_of(ex)->trusted;
}

static enum pp_progress progress(const struct pp_exchange *ex)
{
    static const uint8_t map[] = {[PP_H1_RES_WAIT] = PP_RESPONSE_NONE,
                                  [PP_H1_RES_BODY] = PP_RESPONSE_STARTED,
                                  [PP_H1_RES_DONE] = PP_RESPONSE_DONE};
    return (enum pp_progress)map[pp_http1_of(ex)->h1.res];
}

static bool out_full(const struct pp_exchange *ex)
{
    return pp_http1_of(ex)->state == PP_HTTP1_SERVE && ex->conn->out.bytes > PP_OUT_HIGH_BYTES;
}

static void head_wait(struct pp_exchange *ex)
{
    if (ex->held && !ex->closed && pp_http1_of(ex)->state == PP_HTTP1_SERVE) {
        pp_conn_call_due(ex->conn, PP_HEAD_WAIT_MS);
    }
}

static void fail(struct pp_exchange *ex, int status)
{
    struct pp_http1 *h = pp_http1_of(ex);
    struct pp_conn *conn = ex->conn;

    if (h->state != PP_HTTP1_SERVE) {
        return;
    }
    if (h->h1.res == PP_H1_RES_WAIT) {
        int cause = pp_err_status(ex->error);
        PP_ASSERT(status >= 500 && status <= 599);
        if (cause == 0) {
            pp_stats_error(&conn->loop->slot->counters, PP_ERR_APP_FAILED);
        }
        pp_http1_error(conn, cause != 0 ? cause : status);
    } else if (h->h1.res == PP_H1_RES_BODY) {
        /* A missing last chunk or missing bytes tell the peer. A body that ends with the connection
         * (HTTP/1.0) looks the same whole and cut: only a reset tells. */
        conn->reset = h->h1.framing == PP_H1_FRAME_CLOSE;
        h->h1.keep_alive = false;
        h->h1.res = PP_H1_RES_DONE;
        conn->linger = true;
        pp_conn_mark_dirty(conn);
    }
}

static void abandon(struct pp_exchange *ex)
{
    if (pp_http1_of(ex)->state == PP_HTTP1_SERVE) {
        pp_conn_lost(ex->conn);
    }
}

static void finish_last(struct pp_conn *conn)
{
    const struct pp_http1 *h = &conn->http1;

    conn->linger |= !h->peer_last || h->h1.req != PP_H1_REQ_DONE || pp_http1_leftover(h) > 0;
    pp_http1_over(conn);
}

static void finish_reuse(struct pp_conn *conn)
{
    struct pp_loop *loop = conn->loop;
    struct pp_http1 *h = &conn->http1;

    pp_h1_conn_next(&h->h1);
    h->ex.status = 0;
    pp_http1_step(h, PP_HTTP1_ON_REUSE);
    if (pp_http1_leftover(h) == 0) {
        pp_http1_block_drop(h);
        if (conn->out.bytes == 0) { /* else when they are written */
            pp_conn_read_due(conn, idle_ms(conn));
        }
        if (conn->readable) {
            pp_conn_resume_later(conn);
        }
        return;
    }
    pp_http1_step(h, PP_HTTP1_ON_BYTES);
    h->in_start = h->raw_start;
    if (h->batch_turn != loop->turn) {
        h->batch_turn = loop->turn;
        h->batch_requests = 0;
    }
    if (++h->batch_requests >= loop->settings.limit_pipeline) {
        pp_conn_resume_later(conn);
        return;
    }
    pp_http1_read_next(conn);
    if (conn->readable) {
        pp_conn_resume_later(conn); /* receiving is for the turn */
    }
    eof_tell(conn);
}

static void finish(struct pp_exchange *ex)
{
    struct pp_http1 *h = pp_http1_of(ex);
    struct pp_conn *conn = ex->conn;

    pp_http1_body_settle(h);
    if (!ex->closed && h->h1.res != PP_H1_RES_DONE) {
        fail(ex, 500);
    }
    if (pp_accesslog_on(&conn->loop->log) && ex->status != 0 && h->in != NULL) {
        pp_http1_log(h);
    }
    pp_exchange_released(ex);
    if (h->state != PP_HTTP1_SERVE) { /* the transport is closing, or dead */
        PP_CHECK(h->state == PP_HTTP1_OVER);
        pp_http1_block_drop(h);
        pp_conn_let_go(conn);
        return;
    }
    /* Draining makes a response head say "close"; where it was too late for that, the client may go
     * on, for a while. */
    if (pp_h1_conn_reusable(&h->h1) && !(conn->eof && pp_http1_leftover(h) == 0)) {
        finish_reuse(conn);
    } else {
        finish_last(conn);
    }
}

static const struct pp_exchange_ops exchange_ops = {
    .head = head,
    .client = client,
    .client_https = client_https,
    .client_varies = client_varies,
    .peek = pp_http1_peek,
    .consume = pp_http1_consume,
    .ahead = pp_http1_ahead,
    .take = pp_http1_take,
    .want = pp_http1_want,
    .respond = pp_http1_respond,
    .send = pp_http1_send,
    .informational = pp_http1_informational,
    .tunnel = pp_http1_tunnel,
    .progress = progress,
    .out_full = out_full,
    .head_wait = head_wait,
    .fail = fail,
    .abandon = abandon,
    .finish = finish,
};
