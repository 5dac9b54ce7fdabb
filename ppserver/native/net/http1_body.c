/* Request bodies of HTTP/1.1: decoding in place, back-pressure, and receiving into the
 * application's own memory (contract: exchange.h; the block: http1_in.c). */
#include "net/http1.h"

#include <string.h>

#define BODY_ROOM_MIN (PP_BLOCK_BYTES / 4) /* a recv for less is not worth it */

/* The next pieces of a body at raw_start: decoded in place. */
void pp_http1_body_decode(struct pp_http1 *h)
{
    size_t consumed = 0, produced = 0;
    uint8_t *data = h->in->data;

    if (h->raw_start == h->in_end) {
        return;
    }
    int rc = pp_h1_conn_body(&h->h1, data + h->raw_start, h->in_end - h->raw_start,
                             data + h->body_end, &consumed, &produced);
    PP_CHECK(consumed <= h->in_end - h->raw_start && produced <= consumed);
    h->raw_start += (uint32_t)consumed;
    h->body_end += (uint32_t)produced;
    if (rc == PP_AGAIN) {
        h->raw_start = h->in_end = h->body_end;
    } else if (rc != PP_OK) {
        pp_stats_error(&h->ex.conn->loop->slot->counters, rc);
        h->ex.error = rc;
        h->h1.keep_alive = false;
    }
}

/* Room for more body behind in_end; 0: paused until the application consumes. */
static size_t body_room(struct pp_conn *conn)
{
    struct pp_http1 *h = &conn->http1;
    struct pp_block *block = h->in;

    PP_ASSERT(h->raw_start == h->in_end && h->in_end == h->body_end);
    if (h->body_start == h->body_end) {
        h->body_start = h->body_end = h->raw_start = h->in_end = h->body_floor;
    }
    size_t room = block->cap - h->in_end;
    bool short_of =
        h->h1.body.kind == PP_H1_BODY_LENGTH ? h->h1.body.remaining > room : room < BODY_ROOM_MIN;
    if (!short_of) {
        return room;
    }
    size_t cap = h->body_floor <= PP_BODY_BLOCK_BYTES / 4
                     ? PP_BODY_BLOCK_BYTES
                     : (size_t)h->body_floor + PP_BODY_BLOCK_BYTES;
    uint64_t wanted = h->h1.body.kind == PP_H1_BODY_LENGTH ? h->h1.body.remaining : BODY_ROOM_MIN;
    if (block->cap < PP_BLOCK_BYTES && wanted <= PP_BLOCK_BYTES - h->in_end) {
        cap = PP_BLOCK_BYTES;
    }
    if (block->cap < cap && pp_http1_block_grow(h, cap)) {
        return h->in->cap - h->in_end;
    }
    /* Moving a full block down for the few bytes that were consumed would cost more than it brings:
     * below a quarter of a block of room, what was consumed has to add up first. */
    size_t gain = h->body_start - h->body_floor;
    if (room >= BODY_ROOM_MIN || room + gain < BODY_ROOM_MIN) {
        return room >= BODY_ROOM_MIN ? room : 0;
    }
    size_t len = h->body_end - h->body_start;
    memmove(block->data + h->body_floor, block->data + h->body_start, len);
    h->body_start = h->body_floor;
    h->body_end = h->raw_start = h->in_end = h->body_floor + (uint32_t)len;
    return room + gain;
}

static bool body_news(const struct pp_http1 *h)
{
    return h->body_start < h->body_end || h->h1.req != PP_H1_REQ_BODY || h->ex.error != PP_OK;
}

/* Whether what is still to come is left to pp_http1_take. Not once the peer has shut its side:
 * then reading goes on to find out whether it is all there. */
static bool body_to_take(const struct pp_conn *conn)
{
    const struct pp_http1 *h = &conn->http1;
    const struct pp_h1_body *body = &h->h1.body;

    return h->h1.req == PP_H1_REQ_BODY && body->kind == PP_H1_BODY_LENGTH &&
           body->total + body->remaining >= PP_BODY_TAKE_MIN && !conn->peer_shut && !h->settled &&
           conn->loop->take_bodies;
}

/* Tells the application that waits, and sets the deadline for what it waits for. */
static void body_told(struct pp_conn *conn, bool news)
{
    struct pp_http1 *h = &conn->http1;

    if (h->ex.want && news) {
        h->ex.want = false;
        pp_exchange_raise(&h->ex, PP_EV_BODY);
    }
    /* The peer is late only while the application waits and the socket is empty. */
    pp_conn_read_due(conn, h->ex.want && !conn->readable ? conn->loop->settings.body_idle_ms : 0);
}

void pp_http1_body_read(struct pp_conn *conn)
{
    struct pp_http1 *h = &conn->http1;
    int left = PP_CONN_READS_MAX;

    if (body_to_take(conn)) {
        body_told(conn, conn->readable || body_news(h));
        return;
    }
    while (conn->readable && h->h1.req == PP_H1_REQ_BODY && h->ex.error == PP_OK) {
        size_t got = 0, room = body_room(conn);
        if (room == 0 && h->body_start == h->body_end) {
            (void)pp_conn_no_memory(conn); /* the head fills the block and it could not grow */
            return;
        }
        if (room == 0) {
            break;
        }
        if (left-- == 0) {
            pp_conn_resume_later(conn);
            break;
        }
        int rc = pp_conn_receive(conn, h->in->data + h->in_end, room, &got);
        if (rc == PP_AGAIN) {
            break;
        }
        if (rc != PP_OK) {
            pp_stats_error(&conn->loop->slot->counters, PP_ERR_DISCONNECTED);
            pp_conn_kill(conn, PP_ERR_DISCONNECTED, false);
            return;
        }
        h->in_end += (uint32_t)got;
        pp_http1_body_decode(h);
    }
    body_told(conn, body_news(h));
}

void pp_http1_body_settle(struct pp_http1 *h)
{
    struct pp_conn *conn = h->ex.conn;

    if (h->state != PP_HTTP1_SERVE || !body_to_take(conn)) {
        return;
    }
    h->settled = true;
    if (conn->readable && h->h1.body.remaining <= PP_BODY_BLOCK_BYTES) {
        pp_http1_body_read(conn);
    }
}

enum pp_body_status pp_http1_peek(struct pp_exchange *ex, const uint8_t **data, size_t *len)
{
    const struct pp_http1 *h = pp_http1_of(ex);

    PP_ASSERT(h->in != NULL);
    *len = 0;
    *data = h->in->data + h->body_start;
    if (h->h1.req != PP_H1_REQ_DONE && (ex->error != PP_OK || ex->closed)) {
        return PP_BODY_FAILED;
    }
    *len = h->body_end - h->body_start;
    return h->h1.req == PP_H1_REQ_DONE ? PP_BODY_END : PP_BODY_MORE;
}

size_t pp_http1_ahead(const struct pp_exchange *ex)
{
    const struct pp_conn *conn = ex->conn;
    uint64_t remaining = conn->http1.h1.body.remaining;

    if (!conn->readable || ex->closed || ex->error != PP_OK || !body_to_take(conn)) {
        return 0;
    }
    return remaining < PP_BODY_TAKE_MAX ? (size_t)remaining : PP_BODY_TAKE_MAX;
}

enum pp_body_status pp_http1_take(struct pp_exchange *ex, uint8_t *to, size_t room, size_t *len)
{
    struct pp_http1 *h = pp_http1_of(ex);
    struct pp_conn *conn = ex->conn;
    const uint8_t *data;
    size_t have;
    enum pp_body_status status = pp_http1_peek(ex, &data, &have);

    PP_CHECK(have <= room);
    *len = 0;
    if (status == PP_BODY_FAILED) {
        return status;
    }
    if (have > 0) {
        memcpy(to, data, have);
        h->body_start += (uint32_t)have;
    }
    for (int i = 0; i < PP_CONN_READS_MAX && have < room && pp_http1_ahead(ex) > 0; i++) {
        uint64_t most = h->h1.body.remaining;
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
        rc = pp_h1_conn_body(&h->h1, to + have, got, to + have, &consumed, &produced);
        PP_CHECK((rc == PP_OK || rc == PP_AGAIN) && consumed == got && produced == got);
        have += got;
    }
    *len = have;
    return h->h1.req == PP_H1_REQ_DONE ? PP_BODY_END : PP_BODY_MORE;
}

void pp_http1_consume(struct pp_exchange *ex, size_t len)
{
    struct pp_http1 *h = pp_http1_of(ex);
    struct pp_conn *conn = ex->conn;

    PP_CHECK(len <= h->body_end - h->body_start);
    h->body_start += (uint32_t)len;
    if (conn->readable && h->state == PP_HTTP1_SERVE && h->h1.req == PP_H1_REQ_BODY &&
        ex->error == PP_OK && !body_to_take(conn)) {
        pp_conn_resume_later(conn);
    }
}

void pp_http1_want(struct pp_exchange *ex)
{
    struct pp_http1 *h = pp_http1_of(ex);
    struct pp_conn *conn = ex->conn;

    if (ex->closed || body_news(h)) {
        ex->want = false;
        pp_exchange_raise(ex, PP_EV_BODY);
        return;
    }
    ex->want = true;
    if (h->state != PP_HTTP1_SERVE) {
        return;
    }
    if (pp_h1_conn_take_continue(&h->h1)) {
        static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
        pp_stats_response(&conn->loop->slot->counters, 100);
        if (pp_conn_copy(conn, text, sizeof text - 1) != PP_OK) {
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
