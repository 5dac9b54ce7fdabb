/* One HTTP/1.1 connection as a pure state machine: what may follow what.
 *
 * Two sides, each with its table below; they meet in three rules: a response may start while the
 * request body is still coming, a complete response before the end of the request body ends the
 * connection, and the next request starts only when both sides are done.
 * Whether the connection may be used again is a flag beside the states that only ever goes from
 * true to false within a request. One loop's thread; no memory, no I/O, no clock. Leaves out:
 * buffers, time-outs, lingering (net/conn.c). */
#include "proto/h1_conn.h"

#define X PP_H1_ILLEGAL

/* A peer's mistake is the event FAIL; what is illegal here would be a mistake of ours. */
const uint8_t pp_h1_req_table[PP_H1_REQ_ERROR + 1][PP_H1_REQ_EV_COUNT] = {
    /*                   HEAD             HEAD_BODY        BODY_END         FAIL            NEXT */
    [PP_H1_REQ_HEAD] = {PP_H1_REQ_DONE, PP_H1_REQ_BODY, X, PP_H1_REQ_ERROR, X},
    [PP_H1_REQ_BODY] = {X, X, PP_H1_REQ_DONE, PP_H1_REQ_ERROR, X},
    [PP_H1_REQ_DONE] = {X, X, X, X, PP_H1_REQ_HEAD},
    [PP_H1_REQ_ERROR] = {X, X, X, X, X},
};

const uint8_t pp_h1_res_table[PP_H1_RES_DONE + 1][PP_H1_RES_EV_COUNT] = {
    /*                  START            WHOLE            END              NEXT */
    [PP_H1_RES_WAIT] = {PP_H1_RES_BODY, PP_H1_RES_DONE, X, X},
    [PP_H1_RES_BODY] = {X, X, PP_H1_RES_DONE, X},
    [PP_H1_RES_DONE] = {X, X, X, PP_H1_RES_WAIT},
};

#undef X

static void req_move(struct pp_h1_conn *c, enum pp_h1_req_event event)
{
    uint8_t next = pp_h1_req_table[c->req][event];
    PP_CHECK(next != PP_H1_ILLEGAL);
    c->req = next;
    if (next == PP_H1_REQ_ERROR) {
        c->keep_alive = false;
    }
}

static void res_move(struct pp_h1_conn *c, enum pp_h1_res_event event)
{
    uint8_t next = pp_h1_res_table[c->res][event];
    PP_CHECK(next != PP_H1_ILLEGAL);
    c->res = next;
}

void pp_h1_conn_init(struct pp_h1_conn *c)
{
    *c = (struct pp_h1_conn){.req = PP_H1_REQ_HEAD, .res = PP_H1_RES_WAIT, .minor = 1};
    pp_h1_parser_init(&c->parser);
}

int pp_h1_conn_head(struct pp_h1_conn *c, uint8_t *buf, size_t len,
                    const struct pp_h1_limits *limits, struct pp_head *head)
{
    PP_ASSERT(c->req == PP_H1_REQ_HEAD);
    int rc = pp_h1_parse_head(&c->parser, buf, len, limits, head);
    if (rc == PP_AGAIN || rc == PP_NO_ROOM) {
        return rc;
    }
    if (rc == PP_OK) {
        c->minor = head->minor;
        c->head_request = head->method_id == PP_METHOD_HEAD;
        rc = pp_h1_body_init(&c->body, head, limits);
    }
    if (rc != PP_OK) {
        req_move(c, PP_H1_REQ_EV_FAIL);
        return rc;
    }
    c->keep_alive = head->keep_alive && !c->draining;
    c->expect_continue = head->expect_continue && !c->body.done;
    req_move(c, c->body.done ? PP_H1_REQ_EV_HEAD : PP_H1_REQ_EV_HEAD_BODY);
    return PP_OK;
}

int pp_h1_conn_body(struct pp_h1_conn *c, const uint8_t *in, size_t in_len, uint8_t *out,
                    size_t *consumed, size_t *produced)
{
    PP_ASSERT(c->req == PP_H1_REQ_BODY);
    int rc = pp_h1_body_decode(&c->body, in, in_len, out, consumed, produced);
    if (*consumed > 0) {
        c->expect_continue = false; /* the peer did not wait: RFC 9110 10.1.1 */
    }
    if (rc == PP_OK) {
        req_move(c, PP_H1_REQ_EV_BODY_END);
    } else if (rc != PP_AGAIN) {
        req_move(c, PP_H1_REQ_EV_FAIL);
    }
    return rc;
}

bool pp_h1_conn_take_continue(struct pp_h1_conn *c)
{
    bool due = c->expect_continue && c->req == PP_H1_REQ_BODY && c->res == PP_H1_RES_WAIT;
    c->expect_continue = false;
    return due;
}

int pp_h1_conn_respond(struct pp_h1_conn *c, struct pp_response *r, uint8_t *out, size_t cap,
                       size_t *written)
{
    PP_ASSERT(c->res == PP_H1_RES_WAIT);
    struct pp_h1_framed framed;
    bool keep_alive = c->keep_alive && !c->draining;
    /* What is left of the request body would be read as the next request (RFC 9112 9.3). */
    if (r->complete && c->req != PP_H1_REQ_DONE) {
        keep_alive = false;
    }
    r->request_head = c->head_request;
    r->request_minor = c->minor;
    r->keep_alive = keep_alive;
    int rc = pp_h1_write_head(r, out, cap, written, &framed);
    if (rc != PP_OK) {
        return rc;
    }
    c->framing = (uint8_t)framed.framing;
    c->keep_alive = framed.keep_alive;
    c->expect_continue = false;
    c->out_remaining = framed.framing == PP_H1_FRAME_LENGTH ? framed.content_length : 0;
    res_move(c, r->complete ? PP_H1_RES_EV_WHOLE : PP_H1_RES_EV_START);
    return PP_OK;
}

static void set_suffix(const char **suffix, size_t *len, const char *text, size_t text_len)
{
    *suffix = text;
    *len = text_len;
}

int pp_h1_conn_frame(struct pp_h1_conn *c, size_t len, bool more, uint8_t prefix[18],
                     size_t *prefix_len, bool *send_data, const char **suffix, size_t *suffix_len)
{
    PP_ASSERT(c->res == PP_H1_RES_BODY);
    *prefix_len = 0;
    *send_data = len > 0;
    set_suffix(suffix, suffix_len, "", 0);
    int rc = PP_OK;
    switch ((enum pp_h1_framing)c->framing) {
    case PP_H1_FRAME_NONE:
        *send_data = false;
        break;
    case PP_H1_FRAME_LENGTH:
        if (len > c->out_remaining) {
            *send_data = false;
            c->keep_alive = false;
            res_move(c, PP_H1_RES_EV_END);
            return PP_ERR_APP_BODY_TOO_LONG;
        }
        c->out_remaining -= len;
        if (!more && c->out_remaining > 0) {
            c->keep_alive = false;
            rc = PP_ERR_APP_BODY_TOO_SHORT;
        }
        break;
    case PP_H1_FRAME_CHUNKED:
        if (len > 0) {
            *prefix_len = pp_h1_write_chunk_prefix(len, prefix);
            if (more) {
                set_suffix(suffix, suffix_len, "\r\n", 2);
            } else {
                set_suffix(suffix, suffix_len, "\r\n0\r\n\r\n", 7);
            }
        } else if (!more) {
            set_suffix(suffix, suffix_len, "0\r\n\r\n", 5);
        }
        break;
    case PP_H1_FRAME_CLOSE:
        break;
    }
    if (!more) {
        res_move(c, PP_H1_RES_EV_END);
    }
    return rc;
}

bool pp_h1_conn_reusable(const struct pp_h1_conn *c)
{
    return c->req == PP_H1_REQ_DONE && c->res == PP_H1_RES_DONE && c->keep_alive;
}

void pp_h1_conn_next(struct pp_h1_conn *c)
{
    PP_CHECK(pp_h1_conn_reusable(c));
    req_move(c, PP_H1_REQ_EV_NEXT);
    res_move(c, PP_H1_RES_EV_NEXT);
    pp_h1_parser_init(&c->parser);
    c->out_remaining = 0;
    c->keep_alive = c->head_request = c->expect_continue = false;
    c->minor = 1;
}
