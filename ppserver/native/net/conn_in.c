/* Input of a connection: receiving, heads, bodies, back-pressure (contract: conn.h).
 *
 * One block holds a request:
 *
 *   in_start     body_floor     body_start          body_end     raw_start             in_end
 *      | its head    |   consumed   | body, to consume   |   gap     | the next request   |
 *
 * A body is decoded in place as soon as it is received, so raw bytes are left over only behind the
 * end of a request: they are the next one's, which starts where they lie. The head stays put until
 * the application has finished. When the block is full of bytes that were not consumed, nothing is
 * received (`readable` stays set and reading goes on after the next consume).
 *
 * A body of known length that does not fit into the block stays in the socket until the application
 * asks for it, and is then received into the application's own memory (pp_conn_body_take), if the
 * application side does that (pp_loop_take_bodies).
 *
 * A head that does not come at once leaves its block (`aside`), which is twenty times as large as
 * most heads: ten thousand slow ones are to cost what they sent.
 *
 * A recv that brings less than was asked for has emptied the socket: no second one is made to hear
 * EAGAIN. Only after the peer has shut its side reading goes on until 0. */
#include "net/conn_impl.h"

#include <string.h>

#define BODY_ROOM_MIN (PP_BLOCK_BYTES / 4) /* a recv for less is not worth it */

/* ---- blocks ---- */

struct pp_block *pp_conn_block_new(struct pp_loop *loop, size_t cap)
{
    struct pp_block *block = cap == PP_BLOCK_BYTES        ? pp_pool_take(&loop->block_pool)
                             : cap == PP_BODY_BLOCK_BYTES ? pp_pool_take(&loop->body_pool)
                                                          : pp_mem_alloc(sizeof *block + cap);
    if (block != NULL) {
        block->cap = cap;
    }
    return block;
}

static void aside_drop(struct pp_conn *conn)
{
    pp_mem_free(conn->aside, conn->aside_bytes);
    conn->aside = NULL;
    conn->aside_bytes = 0;
}

void pp_conn_block_drop(struct pp_conn *conn)
{
    struct pp_block *block = conn->in;
    struct pp_loop *loop = conn->loop;

    if (block == NULL) {
        aside_drop(conn);
        return;
    }
    conn->in = NULL;
    conn->in_start = conn->body_floor = conn->body_start = conn->body_end = 0;
    conn->raw_start = conn->in_end = 0;
    if (block->cap == PP_BLOCK_BYTES) {
        pp_pool_give(&loop->block_pool, block);
    } else if (block->cap == PP_BODY_BLOCK_BYTES) {
        pp_pool_give(&loop->body_pool, block);
    } else {
        pp_mem_free(block, sizeof *block + block->cap);
    }
}

/* The parser keeps a half-read head there, too. */
static bool block_grow(struct pp_conn *conn, size_t cap)
{
    struct pp_block *old = conn->in;
    PP_ASSERT(cap > old->cap);
    struct pp_block *grown = pp_conn_block_new(conn->loop, cap);
    if (grown == NULL) {
        return false;
    }
    grown->forwarded = old->forwarded;
    memcpy(&grown->head, &old->head, sizeof old->head);
    memcpy(grown->data, old->data, conn->in_end);
    uint32_t in_start = conn->in_start, body_floor = conn->body_floor;
    uint32_t body_start = conn->body_start, body_end = conn->body_end;
    uint32_t raw_start = conn->raw_start, in_end = conn->in_end;
    pp_conn_block_drop(conn);
    conn->in = grown;
    conn->in_start = in_start;
    conn->body_floor = body_floor;
    conn->body_start = body_start;
    conn->body_end = body_end;
    conn->raw_start = raw_start;
    conn->in_end = in_end;
    return true;
}

void pp_conn_no_memory(struct pp_conn *conn)
{
    pp_stats_error(&conn->loop->slot->counters, PP_ERR_NO_MEMORY);
    pp_conn_kill(conn, PP_ERR_NO_MEMORY, true);
}

/* ---- what recv brings ---- */

int pp_conn_receive(struct pp_conn *conn, uint8_t *to, size_t room, size_t *got)
{
    size_t n = 0;
    int rc = pp_sock_recv(conn->fd, to, room, &n);

    if (rc == PP_AGAIN) {
        conn->readable = false;
        return PP_AGAIN;
    }
    if (rc != PP_OK || n == 0) {
        conn->eof = rc == PP_OK;
        conn->readable = false;
        return PP_ERR_DISCONNECTED;
    }
    if (n < room && !conn->peer_shut) {
        conn->readable = false;
    }
    pp_stats_add(&conn->loop->slot->counters.bytes_in, n);
    pp_stats_add(&pp_loop_tagged(conn->loop, conn->tag)->bytes_in, n);
    *got = n;
    return PP_OK;
}

/* ---- heads ---- */

void pp_conn_refuse(struct pp_conn *conn, int code, int status)
{
    PP_ASSERT(conn->state == PP_CONN_HEAD && !conn->held);
    pp_stats_error(&conn->loop->slot->counters, code);
    if (status == 0) {
        pp_conn_kill(conn, code, false);
        return;
    }
    conn->error = code;
    conn->linger = true;
    pp_conn_block_drop(conn);
    pp_conn_read_due(conn, 0);
    pp_conn_step(conn, PP_CONN_ON_LAST);
    pp_conn_out_error(conn, status);
}

/* The next pieces of a body at raw_start: decoded in place. */
static void body_decode(struct pp_conn *conn)
{
    size_t consumed = 0, produced = 0;
    uint8_t *data = conn->in->data;

    if (conn->raw_start == conn->in_end) {
        return;
    }
    int rc = pp_h1_conn_body(&conn->h1, data + conn->raw_start, conn->in_end - conn->raw_start,
                             data + conn->body_end, &consumed, &produced);
    PP_CHECK(consumed <= conn->in_end - conn->raw_start && produced <= consumed);
    conn->raw_start += (uint32_t)consumed;
    conn->body_end += (uint32_t)produced;
    if (rc == PP_AGAIN) {
        conn->raw_start = conn->in_end = conn->body_end;
    } else if (rc != PP_OK) {
        pp_stats_error(&conn->loop->slot->counters, rc);
        conn->error = rc;
        conn->h1.keep_alive = false;
    }
}

/* Who the client is, and whether the forwarded fields stay. */
static void forwarded_read(struct pp_conn *conn)
{
    const struct pp_trusted *trusted = conn->loop->settings.trusted;
    struct pp_block *in = conn->in;
    const uint8_t *base = in->data + conn->in_start;
    if (!conn->trust_known) {
        conn->trust_known = true;
        conn->trusted = pp_trusted_has(trusted, &conn->peer);
    }
    if (conn->trusted) {
        pp_forwarded_read(trusted, &in->head, base, &in->forwarded);
    } else {
        memset(&in->forwarded, 0, sizeof in->forwarded);
        in->forwarded.client.family = AF_UNSPEC;
    }
    pp_forwarded_strip(&in->head, base, !conn->trusted);
}

static void request_begin(struct pp_conn *conn)
{
    struct pp_loop *loop = conn->loop;
    const struct pp_h1_head *head = &conn->in->head;

    conn->requests++;
    conn->active_round = loop->balance.round;
    pp_stats_add(&loop->slot->counters.requests, 1);
    if (head->method_id == PP_METHOD_CONNECT) {
        /* Not a proxy. 405 would have to name what is allowed on a target that is no resource. */
        pp_conn_refuse(conn, PP_ERR_BAD_METHOD, 501);
        return;
    }
    if (loop->settings.limit_concurrency != 0 &&
        loop->slot->in_flight >= loop->settings.limit_concurrency) {
        pp_conn_refuse(conn, PP_ERR_OVERLOADED, pp_err_status(PP_ERR_OVERLOADED));
        return;
    }
    conn->body_floor = conn->body_start = conn->body_end = conn->raw_start =
        conn->in_start + head->head_bytes;
    PP_CHECK(conn->raw_start <= conn->in_end);
    if (PP_UNLIKELY(head->upgrade)) {
        pp_stats_add(&loop->slot->counters.upgrades, 1);
    }
    if (PP_UNLIKELY(loop->settings.trusted != NULL)) {
        forwarded_read(conn);
    }
    conn->peer_last = !head->keep_alive;
    conn->error = PP_OK;
    conn->status = 0;
    conn->app = NULL;
    conn->want = conn->full_told = conn->closed = conn->eof_told = conn->settled = false;
    conn->read_due_ms = conn->head_due_ms = 0;
    pp_conn_step(conn, PP_CONN_ON_REQUEST);
    conn->held = true;
    pp_stats_set32(&loop->slot->in_flight, loop->slot->in_flight + 1);
    if (conn->h1.req == PP_H1_REQ_BODY) {
        body_decode(conn);
    }
    pp_conn_raise(conn, PP_EV_REQUEST);
}

static void head_parse(struct pp_conn *conn)
{
    conn->h1.draining = conn->loop->draining || conn->ends;
    int rc =
        pp_h1_conn_head(&conn->h1, conn->in->data + conn->in_start, conn->in_end - conn->in_start,
                        &conn->loop->settings.http, &conn->in->head);
    if (rc == PP_OK) {
        request_begin(conn);
    } else if (rc == PP_AGAIN) {
        /* One deadline for the whole head; that of a new connection runs since accept. */
        if (conn->read_due_ms == 0) {
            pp_conn_read_due(conn, conn->loop->settings.request_header_ms);
        }
    } else {
        pp_conn_refuse(conn, rc, pp_err_status(rc));
    }
}

/* Room behind in_end for more of a head; false: the connection is gone. */
static bool head_room(struct pp_conn *conn)
{
    struct pp_block *block = conn->in;

    if (block == NULL) {
        conn->in = pp_conn_block_new(conn->loop, PP_BLOCK_BYTES);
        if (conn->in == NULL) {
            pp_conn_no_memory(conn);
            return false;
        }
        return true;
    }
    if (conn->in_end < block->cap) {
        return true;
    }
    if (conn->in_start > 0) {
        memmove(block->data, block->data + conn->in_start, conn->in_end - conn->in_start);
        conn->in_end -= conn->in_start;
        conn->in_start = conn->raw_start = 0;
        return true;
    }
    /* The parser refuses what is longer than its limit: a step beyond it is all that is needed. */
    size_t most = (size_t)conn->loop->settings.http.head_bytes + 1024;
    size_t cap = block->cap * 2 < most ? block->cap * 2 : most;
    if (cap <= block->cap) {
        pp_conn_refuse(conn, PP_ERR_HEAD_TOO_LARGE, pp_err_status(PP_ERR_HEAD_TOO_LARGE));
        return false;
    }
    if (!block_grow(conn, cap)) {
        pp_conn_no_memory(conn);
        return false;
    }
    return true;
}

/* A peer may take its time over a head: while it does, the few bytes of it are all that is kept.
 * They are looked at again from the first when more come. */
static void head_aside(struct pp_conn *conn)
{
    size_t bytes = conn->in_end - conn->in_start;

    PP_ASSERT(conn->state == PP_CONN_HEAD && bytes > 0 && conn->aside == NULL);
    if (conn->readable || bytes > PP_HEAD_ASIDE_BYTES) {
        return;
    }
    uint8_t *aside = pp_mem_alloc(bytes);
    if (aside == NULL) {
        return; /* it stays where it is */
    }
    memcpy(aside, conn->in->data + conn->in_start, bytes);
    pp_h1_parser_init(&conn->h1.parser);
    pp_conn_block_drop(conn);
    conn->aside = aside;
    conn->aside_bytes = bytes;
}

/* The reverse; false: the connection is gone. */
static bool head_back(struct pp_conn *conn)
{
    PP_ASSERT(conn->aside != NULL && conn->aside_bytes <= PP_BLOCK_BYTES);
    conn->in = pp_conn_block_new(conn->loop, PP_BLOCK_BYTES);
    if (conn->in == NULL) {
        pp_conn_no_memory(conn);
        return false;
    }
    memcpy(conn->in->data, conn->aside, conn->aside_bytes);
    conn->in_end = (uint32_t)conn->aside_bytes;
    aside_drop(conn);
    return true;
}

/* Nothing more can come, and no request is being answered. */
static void head_eof(struct pp_conn *conn)
{
    if (conn->out_bytes > 0 && conn->eof) {
        pp_conn_block_drop(conn); /* the answers of before are still on their way */
        pp_conn_read_due(conn, 0);
        pp_conn_step(conn, PP_CONN_ON_LAST);
        return;
    }
    pp_conn_kill(conn, PP_ERR_DISCONNECTED, false);
}

static void body_read(struct pp_conn *conn);

static void head_read(struct pp_conn *conn)
{
    for (int i = 0; i < PP_CONN_READS_MAX && conn->readable; i++) {
        size_t got = 0;
        if (!head_room(conn)) {
            return;
        }
        int rc = pp_conn_receive(conn, conn->in->data + conn->in_end, conn->in->cap - conn->in_end,
                                 &got);
        if (rc == PP_AGAIN) {
            break;
        }
        if (rc != PP_OK) {
            head_eof(conn);
            return;
        }
        conn->in_end += (uint32_t)got;
        if (conn->state == PP_CONN_IDLE) {
            if (conn->requests > 0) {
                conn->read_due_ms = 0; /* the keep-alive time is over, the head's begins */
            }
            pp_conn_step(conn, PP_CONN_ON_BYTES);
        }
        head_parse(conn);
        if (conn->state == PP_CONN_SERVE && conn->h1.req == PP_H1_REQ_BODY && conn->readable) {
            body_read(conn);
        }
        if (conn->state != PP_CONN_HEAD) {
            return;
        }
    }
    if (conn->state == PP_CONN_IDLE) {
        pp_conn_block_drop(conn); /* a look for nothing */
    } else if (conn->readable) {
        pp_conn_resume_later(conn);
    } else {
        head_aside(conn);
    }
}

/* A peer that pipelines and does not read its answers gets no further request started. */
static bool output_blocks(struct pp_conn *conn)
{
    if (conn->out_bytes <= PP_OUT_HIGH_BYTES) {
        return false;
    }
    if (conn->state == PP_CONN_HEAD) {
        conn->read_due_ms = 0; /* it is not the peer's head that is late; the flush resumes */
    }
    return true; /* an idle one keeps its deadline: nobody would set another */
}

void pp_conn_read_next(struct pp_conn *conn)
{
    PP_ASSERT(conn->state == PP_CONN_HEAD && conn->in != NULL);
    if (output_blocks(conn)) {
        return;
    }
    conn->read_due_ms = 0;
    head_parse(conn);
    if (conn->state == PP_CONN_HEAD) {
        head_aside(conn);
    }
}

/* ---- bodies ---- */

/* Room for more body behind in_end; 0: paused until the application consumes. */
static size_t body_room(struct pp_conn *conn)
{
    struct pp_block *block = conn->in;

    PP_ASSERT(conn->raw_start == conn->in_end && conn->in_end == conn->body_end);
    if (conn->body_start == conn->body_end) {
        conn->body_start = conn->body_end = conn->raw_start = conn->in_end = conn->body_floor;
    }
    size_t room = block->cap - conn->in_end;
    bool short_of = conn->h1.body.kind == PP_H1_BODY_LENGTH ? conn->h1.body.remaining > room
                                                            : room < BODY_ROOM_MIN;
    if (!short_of) {
        return room;
    }
    size_t cap = conn->body_floor <= PP_BODY_BLOCK_BYTES / 4
                     ? PP_BODY_BLOCK_BYTES
                     : (size_t)conn->body_floor + PP_BODY_BLOCK_BYTES;
    if (block->cap < cap && block_grow(conn, cap)) {
        return conn->in->cap - conn->in_end;
    }
    /* Moving a full block down for the few bytes that were consumed would cost more than it brings:
     * below a quarter of a block of room, what was consumed has to add up first. */
    size_t gain = conn->body_start - conn->body_floor;
    if (room >= BODY_ROOM_MIN || room + gain < BODY_ROOM_MIN) {
        return room >= BODY_ROOM_MIN ? room : 0;
    }
    size_t len = conn->body_end - conn->body_start;
    memmove(block->data + conn->body_floor, block->data + conn->body_start, len);
    conn->body_start = conn->body_floor;
    conn->body_end = conn->raw_start = conn->in_end = conn->body_floor + (uint32_t)len;
    return room + gain;
}

static bool body_news(const struct pp_conn *conn)
{
    return conn->body_start < conn->body_end || conn->h1.req != PP_H1_REQ_BODY ||
           conn->error != PP_OK;
}

/* Whether what is still to come is left to pp_conn_body_take. Not once the peer has shut its side:
 * then reading goes on to find out whether it is all there. */
static bool body_to_take(const struct pp_conn *conn)
{
    const struct pp_h1_body *body = &conn->h1.body;

    return conn->h1.req == PP_H1_REQ_BODY && body->kind == PP_H1_BODY_LENGTH &&
           body->total + body->remaining >= PP_BODY_TAKE_MIN && !conn->peer_shut &&
           !conn->settled && conn->loop->take_bodies;
}

/* Tells the application that waits, and sets the deadline for what it waits for. */
static void body_told(struct pp_conn *conn, bool news)
{
    if (conn->want && news) {
        conn->want = false;
        pp_conn_raise(conn, PP_EV_BODY);
    }
    /* The peer is late only while the application waits and the socket is empty. */
    pp_conn_read_due(conn, conn->want && !conn->readable ? conn->loop->settings.body_idle_ms : 0);
}

static void body_read(struct pp_conn *conn)
{
    int left = PP_CONN_READS_MAX;

    if (body_to_take(conn)) {
        body_told(conn, conn->readable || body_news(conn));
        return;
    }
    while (conn->readable && conn->h1.req == PP_H1_REQ_BODY && conn->error == PP_OK) {
        size_t got = 0, room = body_room(conn);
        if (room == 0 && conn->body_start == conn->body_end) {
            pp_conn_no_memory(conn); /* the head fills the block and it could not grow */
            return;
        }
        if (room == 0) {
            break;
        }
        if (left-- == 0) {
            pp_conn_resume_later(conn);
            break;
        }
        int rc = pp_conn_receive(conn, conn->in->data + conn->in_end, room, &got);
        if (rc == PP_AGAIN) {
            break;
        }
        if (rc != PP_OK) {
            pp_stats_error(&conn->loop->slot->counters, PP_ERR_DISCONNECTED);
            pp_conn_kill(conn, PP_ERR_DISCONNECTED, false);
            return;
        }
        conn->in_end += (uint32_t)got;
        body_decode(conn);
    }
    body_told(conn, body_news(conn));
}

void pp_conn_body_settle(struct pp_conn *conn)
{
    if (conn->state != PP_CONN_SERVE || !body_to_take(conn)) {
        return;
    }
    conn->settled = true;
    if (conn->readable && conn->h1.body.remaining <= PP_BODY_BLOCK_BYTES) {
        body_read(conn);
    }
}

enum pp_body_status pp_conn_body_peek(struct pp_conn *conn, const uint8_t **data, size_t *len)
{
    PP_CONN_ENTER(conn);
    PP_ASSERT(conn->held && conn->in != NULL);
    *len = 0;
    *data = conn->in->data + conn->body_start;
    if (conn->h1.req != PP_H1_REQ_DONE && (conn->error != PP_OK || conn->closed)) {
        return PP_BODY_FAILED;
    }
    *len = conn->body_end - conn->body_start;
    return conn->h1.req == PP_H1_REQ_DONE ? PP_BODY_END : PP_BODY_MORE;
}

size_t pp_conn_body_ahead(const struct pp_conn *conn)
{
    PP_CONN_ENTER(conn);
    uint64_t remaining = conn->h1.body.remaining;
    if (!conn->readable || conn->closed || conn->error != PP_OK || !body_to_take(conn)) {
        return 0;
    }
    return remaining < PP_BODY_TAKE_MAX ? (size_t)remaining : PP_BODY_TAKE_MAX;
}

enum pp_body_status pp_conn_body_take(struct pp_conn *conn, uint8_t *to, size_t room, size_t *len)
{
    const uint8_t *data;
    size_t have;
    enum pp_body_status status = pp_conn_body_peek(conn, &data, &have);

    PP_CHECK(have <= room);
    *len = 0;
    if (status == PP_BODY_FAILED) {
        return status;
    }
    if (have > 0) {
        memcpy(to, data, have);
        conn->body_start += (uint32_t)have;
    }
    for (int i = 0; i < PP_CONN_READS_MAX && have < room && pp_conn_body_ahead(conn) > 0; i++) {
        uint64_t most = conn->h1.body.remaining;
        size_t got = 0, consumed = 0, produced = 0;
        int rc =
            pp_conn_receive(conn, to + have, room - have < most ? room - have : (size_t)most, &got);
        if (rc == PP_AGAIN) {
            break;
        }
        if (rc != PP_OK) {
            pp_stats_error(&conn->loop->slot->counters, PP_ERR_DISCONNECTED);
            pp_conn_kill(conn, PP_ERR_DISCONNECTED, false);
            return PP_BODY_FAILED;
        }
        rc = pp_h1_conn_body(&conn->h1, to + have, got, to + have, &consumed, &produced);
        PP_CHECK((rc == PP_OK || rc == PP_AGAIN) && consumed == got && produced == got);
        have += got;
    }
    *len = have;
    return conn->h1.req == PP_H1_REQ_DONE ? PP_BODY_END : PP_BODY_MORE;
}

void pp_conn_body_consume(struct pp_conn *conn, size_t len)
{
    PP_CONN_ENTER(conn);
    PP_CHECK(len <= conn->body_end - conn->body_start);
    conn->body_start += (uint32_t)len;
    if (conn->readable && conn->state == PP_CONN_SERVE && conn->h1.req == PP_H1_REQ_BODY &&
        conn->error == PP_OK && !body_to_take(conn)) {
        pp_conn_resume_later(conn);
    }
}

void pp_conn_body_want(struct pp_conn *conn)
{
    PP_CONN_ENTER(conn);
    PP_ASSERT(conn->held);
    if (conn->closed || body_news(conn)) {
        conn->want = false;
        pp_conn_raise(conn, PP_EV_BODY);
        return;
    }
    conn->want = true;
    if (conn->state != PP_CONN_SERVE) {
        return;
    }
    if (pp_h1_conn_take_continue(&conn->h1)) {
        static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
        pp_stats_response(&conn->loop->slot->counters, 100);
        if (pp_conn_out_copy(conn, text, sizeof text - 1) != PP_OK) {
            return; /* killed: CLOSED and BODY are raised */
        }
        pp_conn_mark_dirty(conn);
    }
    if (conn->readable) {
        pp_conn_resume_later(conn);
    } else {
        pp_conn_read_due(conn, conn->loop->settings.body_idle_ms);
    }
}

/* ---- lingering ---- */

static void linger_read(struct pp_conn *conn)
{
    for (int i = 0; i < PP_CONN_READS_MAX && conn->readable; i++) {
        size_t got = 0;
        if (conn->linger_bytes > PP_LINGER_BYTES_MAX && !conn->peer_shut) {
            /* Closing resets the connection, and takes what the kernel still has of the answer
             * along. While there is some, the input just stays where it is, until time is over. */
            if (pp_sock_unsent(conn->fd) == 0) {
                pp_conn_kill(conn, PP_ERR_DISCONNECTED, false);
            }
            return;
        }
        int rc = pp_conn_receive(conn, conn->loop->scratch, sizeof conn->loop->scratch, &got);
        if (rc == PP_AGAIN) {
            return;
        }
        if (rc != PP_OK) {
            pp_conn_kill(conn, PP_ERR_DISCONNECTED, false);
            return;
        }
        conn->linger_bytes += (uint32_t)got;
    }
    if (conn->readable) {
        pp_conn_resume_later(conn);
    }
}

void pp_conn_read(struct pp_conn *conn)
{
    switch ((enum pp_conn_state)conn->state) {
    case PP_CONN_IDLE:
        if (!output_blocks(conn)) {
            head_read(conn);
        }
        break;
    case PP_CONN_HEAD:
        if (!output_blocks(conn) && (conn->in != NULL || head_back(conn))) {
            head_read(conn);
        }
        break;
    case PP_CONN_SERVE:
        if (conn->h1.req == PP_H1_REQ_BODY) {
            body_read(conn);
        }
        break;
    case PP_CONN_LINGER:
        linger_read(conn);
        break;
    case PP_CONN_RAW:
        pp_conn_raw_read(conn);
        break;
    case PP_CONN_CLOSE: /* what comes is dropped after the output is written */
    case PP_CONN_DEAD:
    case PP_CONN_NO:
        break;
    }
}
