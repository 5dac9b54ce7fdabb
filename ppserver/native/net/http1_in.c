/* Input of HTTP/1.1: blocks and heads (contract: exchange.h). Bodies are in http1_body.c.
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
 * asks for it, and is then received into the application's own memory (pp_exchange_take), if the
 * application side does that (pp_loop_take_bodies).
 *
 * The first bytes are received into the loop's scratch and copied to a block that they fit into,
 * mostly a small one. A head that does not come at once leaves its block (`aside`): ten thousand
 * slow ones are to cost what they sent. */
#include "net/http1.h"

#include <string.h>

/* ---- blocks ---- */

static void aside_drop(struct pp_http1 *h)
{
    if (h->aside != NULL) {
        pp_mem_free(h->aside, h->in_end);
        h->aside = NULL;
        h->in_end = 0;
    }
}

void pp_http1_block_drop(struct pp_http1 *h)
{
    struct pp_block *block = h->in;

    if (block == NULL) {
        aside_drop(h);
        return;
    }
    h->in = NULL;
    h->in_start = h->body_floor = h->body_start = h->body_end = 0;
    h->raw_start = h->in_end = 0;
    pp_block_give(h->ex.conn->loop, block);
}

/* The parser keeps a half-read head there, too. */
bool pp_http1_block_grow(struct pp_http1 *h, size_t cap)
{
    struct pp_loop *loop = h->ex.conn->loop;
    struct pp_block *old = h->in;

    PP_ASSERT(cap > old->cap);
    struct pp_block *grown = pp_block_new(loop, cap);
    if (grown == NULL) {
        return false;
    }
    struct pp_field *fields = grown->head.fields;
    uint16_t room = grown->head.field_room;
    PP_CHECK(old->head.field_count <= room && h->in_end <= grown->cap);
    grown->forwarded = old->forwarded;
    grown->head = old->head;
    grown->head.fields = fields;
    grown->head.field_room = room;
    memcpy(fields, old->head.fields, old->head.field_count * sizeof *fields);
    memcpy(grown->data, old->data, h->in_end);
    h->in = grown;
    pp_block_give(loop, old);
    return true;
}

/* ---- heads ---- */

void pp_http1_refuse(struct pp_conn *conn, int code, int status)
{
    struct pp_http1 *h = &conn->http1;

    PP_ASSERT(h->state == PP_HTTP1_HEAD && !h->ex.held);
    pp_stats_error(&conn->loop->slot->counters, code);
    if (status == 0) {
        pp_conn_kill(conn, code, false);
        return;
    }
    h->ex.error = code;
    conn->linger = true;
    pp_http1_over(conn);
    pp_http1_error(conn, status);
}

/* Who the client is, and whether the forwarded fields stay. */
static void forwarded_read(struct pp_conn *conn)
{
    struct pp_http1 *h = &conn->http1;
    const struct pp_trusted *trusted = conn->loop->settings.trusted;
    struct pp_block *in = h->in;
    const uint8_t *base = in->data + h->in_start;
    if (!h->trust_known) {
        h->trust_known = true;
        h->trusted = pp_trusted_has(trusted, &conn->peer);
    }
    if (h->trusted) {
        pp_forwarded_read(trusted, &in->head, base, &in->forwarded);
    } else {
        memset(&in->forwarded, 0, sizeof in->forwarded);
        in->forwarded.client.family = AF_UNSPEC;
    }
    pp_forwarded_strip(&in->head, base, !h->trusted);
}

static void request_begin(struct pp_conn *conn)
{
    struct pp_http1 *h = &conn->http1;
    struct pp_loop *loop = conn->loop;
    const struct pp_head *head = &h->in->head;

    conn->requests++;
    conn->active_round = loop->balance.round;
    pp_stats_add(&loop->slot->counters.requests, 1);
    if (head->method_id == PP_METHOD_CONNECT) {
        /* Not a proxy. 405 would have to name what is allowed on a target that is no resource. */
        pp_http1_refuse(conn, PP_ERR_BAD_METHOD, 501);
        return;
    }
    if (loop->settings.limit_concurrency != 0 &&
        loop->slot->in_flight >= loop->settings.limit_concurrency) {
        pp_http1_refuse(conn, PP_ERR_OVERLOADED, pp_err_status(PP_ERR_OVERLOADED));
        return;
    }
    h->body_floor = h->body_start = h->body_end = h->raw_start = h->in_start + head->head_bytes;
    PP_CHECK(h->raw_start <= h->in_end);
    if (PP_UNLIKELY(head->upgrade)) {
        pp_stats_add(&loop->slot->counters.upgrades, 1);
    }
    if (PP_UNLIKELY(loop->settings.trusted != NULL)) {
        forwarded_read(conn);
    }
    h->peer_last = !head->keep_alive;
    h->settled = false;
    conn->read_due_ms = conn->call_due_ms = 0;
    pp_http1_step(h, PP_HTTP1_ON_REQUEST);
    pp_exchange_opened(&h->ex);
    if (h->h1.req == PP_H1_REQ_BODY) {
        pp_http1_body_decode(h);
    }
    pp_exchange_raise(&h->ex, PP_EV_REQUEST);
}

static void head_parse(struct pp_conn *conn);

/* Its fields are many: a larger block has room for all that are allowed. */
static void head_fields_grow(struct pp_conn *conn)
{
    PP_ASSERT(conn->http1.in->head.field_room < PP_FIELDS_MAX);
    if (pp_http1_block_grow(&conn->http1, PP_BLOCK_BYTES)) {
        head_parse(conn);
    } else {
        (void)pp_conn_no_memory(conn);
    }
}

static void head_parse(struct pp_conn *conn)
{
    struct pp_http1 *h = &conn->http1;

    h->h1.draining = conn->draining;
    int rc = pp_h1_conn_head(&h->h1, h->in->data + h->in_start, h->in_end - h->in_start,
                             &conn->loop->settings.http, &h->in->head);
    if (rc == PP_OK) {
        request_begin(conn);
    } else if (rc == PP_NO_ROOM) {
        head_fields_grow(conn);
    } else if (rc == PP_AGAIN) {
        /* One deadline for the whole head; that of a new connection runs since accept. */
        if (conn->read_due_ms == 0) {
            pp_conn_read_due(conn, conn->loop->settings.request_header_ms);
        }
    } else {
        pp_http1_refuse(conn, rc, pp_err_status(rc));
    }
}

/* Room behind in_end for more of a head. NO_MEMORY: the connection is gone; HEAD_TOO_LARGE: it was
 * refused. */
static int head_room(struct pp_conn *conn)
{
    struct pp_http1 *h = &conn->http1;
    struct pp_block *block = h->in;

    if (h->in_end < block->cap) {
        return PP_OK;
    }
    if (h->in_start > 0) {
        memmove(block->data, block->data + h->in_start, h->in_end - h->in_start);
        h->in_end -= h->in_start;
        h->in_start = h->raw_start = 0;
        return PP_OK;
    }
    size_t cap = PP_BLOCK_BYTES;
    if (block->cap >= PP_BLOCK_BYTES) {
        /* The parser refuses what is longer than its limit: a step beyond it is all that is
         * needed. */
        size_t most = (size_t)conn->loop->settings.http.head_bytes + 1024;
        cap = block->cap * 2 < most ? block->cap * 2 : most;
    }
    if (cap <= block->cap) {
        pp_http1_refuse(conn, PP_ERR_HEAD_TOO_LARGE, pp_err_status(PP_ERR_HEAD_TOO_LARGE));
        return PP_ERR_HEAD_TOO_LARGE;
    }
    return pp_http1_block_grow(h, cap) ? PP_OK : pp_conn_no_memory(conn);
}

/* A peer may take its time over a head: while it does, the few bytes of it are all that is kept.
 * They are looked at again from the first when more come. */
static void head_aside(struct pp_conn *conn)
{
    struct pp_http1 *h = &conn->http1;
    size_t bytes = h->in_end - h->in_start;

    PP_ASSERT(h->state == PP_HTTP1_HEAD && bytes > 0 && h->aside == NULL);
    if (conn->readable || bytes > PP_HEAD_ASIDE_BYTES) {
        return;
    }
    uint8_t *aside = pp_mem_alloc(bytes);
    if (aside == NULL) {
        return; /* it stays where it is */
    }
    memcpy(aside, h->in->data + h->in_start, bytes);
    pp_h1_parser_init(&h->h1.parser);
    pp_http1_block_drop(h);
    h->aside = aside;
    h->in_end = (uint32_t)bytes;
}

/* The reverse; false: the connection is gone. */
static bool head_back(struct pp_conn *conn)
{
    struct pp_http1 *h = &conn->http1;

    PP_ASSERT(h->aside != NULL && h->in_end <= PP_BLOCK_BYTES);
    h->in = pp_block_new(conn->loop, PP_BLOCK_BYTES);
    if (h->in == NULL) {
        (void)pp_conn_no_memory(conn);
        return false;
    }
    memcpy(h->in->data, h->aside, h->in_end);
    pp_mem_free(h->aside, h->in_end);
    h->aside = NULL;
    return true;
}

/* Nothing more can come, and no request is being answered. */
static void head_eof(struct pp_conn *conn)
{
    if (conn->out.bytes > 0 && conn->eof) {
        pp_http1_over(conn); /* the answers of before are still on their way */
        return;
    }
    pp_conn_kill(conn, PP_ERR_DISCONNECTED, false);
}

/* The first bytes of a request get a block that they fit into. Results as pp_conn_receive;
 * NO_MEMORY: the connection is gone. */
static int head_receive_first(struct pp_conn *conn)
{
    struct pp_http1 *h = &conn->http1;
    uint8_t *scratch = conn->loop->scratch;
    size_t got = 0;

    static_assert(PP_BLOCK_BYTES <= PP_SCRATCH_BYTES, "what comes at once fits into a block");
    int rc = pp_conn_receive(conn, scratch, PP_BLOCK_BYTES, &got);
    if (rc != PP_OK) {
        return rc;
    }
    size_t cap = got <= PP_SMALL_BLOCK_BYTES ? PP_SMALL_BLOCK_BYTES : PP_BLOCK_BYTES;
    h->in = pp_block_new(conn->loop, cap);
    if (h->in == NULL) {
        return pp_conn_no_memory(conn);
    }
    memcpy(h->in->data, scratch, got);
    h->in_end = (uint32_t)got;
    return PP_OK;
}

/* The same for what follows; also HEAD_TOO_LARGE: it was refused. */
static int head_receive_more(struct pp_conn *conn)
{
    struct pp_http1 *h = &conn->http1;
    size_t got = 0;

    int rc = head_room(conn);
    if (rc == PP_OK) {
        rc = pp_conn_receive(conn, h->in->data + h->in_end, h->in->cap - h->in_end, &got);
        h->in_end += (uint32_t)got;
    }
    return rc;
}

static void head_read(struct pp_conn *conn)
{
    struct pp_http1 *h = &conn->http1;

    for (int i = 0; i < PP_CONN_READS_MAX && conn->readable; i++) {
        int rc = h->in == NULL ? head_receive_first(conn) : head_receive_more(conn);
        if (rc == PP_AGAIN) {
            break;
        }
        if (rc == PP_ERR_DISCONNECTED && conn->eof && pp_http1_leftover(h) > 0) {
            /* The output may have stopped this one before anybody looked whether it is whole. */
            conn->readable = true; /* the end is to be met again */
            head_parse(conn);
            if (h->state != PP_HTTP1_HEAD) {
                return;
            }
        }
        if (rc == PP_ERR_DISCONNECTED) {
            head_eof(conn);
        }
        if (rc != PP_OK) {
            return;
        }
        if (h->state == PP_HTTP1_IDLE) {
            if (conn->requests > 0) {
                conn->read_due_ms = 0; /* the keep-alive time is over, the head's begins */
            }
            pp_http1_step(h, PP_HTTP1_ON_BYTES);
        }
        head_parse(conn);
        if (h->state == PP_HTTP1_SERVE && h->h1.req == PP_H1_REQ_BODY && conn->readable) {
            pp_http1_body_read(conn);
        }
        if (h->state != PP_HTTP1_HEAD) {
            return;
        }
    }
    if (h->state == PP_HTTP1_IDLE) {
        return; /* a look for nothing */
    }
    if (conn->readable) {
        pp_conn_resume_later(conn);
    } else {
        head_aside(conn);
    }
}

void pp_http1_carry(struct pp_conn *conn, const uint8_t *data, size_t len)
{
    struct pp_http1 *h = &conn->http1;

    PP_ASSERT(h->state == PP_HTTP1_IDLE && h->in == NULL && len <= PP_SCRATCH_BYTES);
    h->in = pp_block_new(conn->loop, len < PP_BLOCK_BYTES ? PP_BLOCK_BYTES : len + 1024);
    if (h->in == NULL) {
        (void)pp_conn_no_memory(conn);
        return;
    }
    memcpy(h->in->data, data, len);
    h->in_end = (uint32_t)len;
    pp_http1_step(h, PP_HTTP1_ON_BYTES);
    pp_conn_resume_later(conn); /* the requests begin with the turn */
}

/* A peer that pipelines and does not read its answers gets no further request started. */
static bool output_blocks(struct pp_conn *conn)
{
    const struct pp_http1 *h = &conn->http1;

    if (conn->out.bytes <= PP_OUT_HIGH_BYTES) {
        return false;
    }
    if (h->state == PP_HTTP1_HEAD) {
        conn->read_due_ms = 0; /* it is not the peer's head that is late; the flush resumes */
    }
    return true; /* an idle one keeps its deadline: nobody would set another */
}

void pp_http1_read_next(struct pp_conn *conn)
{
    const struct pp_http1 *h = &conn->http1;

    PP_ASSERT(h->state == PP_HTTP1_HEAD && h->in != NULL);
    if (output_blocks(conn)) {
        return;
    }
    conn->read_due_ms = 0;
    head_parse(conn);
    if (h->state == PP_HTTP1_HEAD) {
        head_aside(conn);
    }
}

/* ---- by state ---- */

void pp_http1_read(struct pp_conn *conn)
{
    const struct pp_http1 *h = &conn->http1;

    switch ((enum pp_http1_state)h->state) {
    case PP_HTTP1_IDLE:
        if (!output_blocks(conn)) {
            head_read(conn);
        }
        break;
    case PP_HTTP1_HEAD:
        if (!output_blocks(conn) && (h->in != NULL || head_back(conn))) {
            head_read(conn);
        }
        break;
    case PP_HTTP1_SERVE:
        if (h->h1.req == PP_H1_REQ_BODY) {
            pp_http1_body_read(conn);
        }
        break;
    case PP_HTTP1_OVER:
    case PP_HTTP1_NO:
        break;
    }
}
