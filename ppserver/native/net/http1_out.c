/* Output of HTTP/1.1: response heads and body framing into the connection's queue (contract:
 * exchange.h). */
#include "net/http1.h"

#include <string.h>

#include "net/raw.h"

void pp_http1_error(struct pp_conn *conn, int status)
{
    struct pp_loop *loop = conn->loop;
    struct pp_http1 *h = &conn->http1;
    const size_t cap = 1024;
    struct pp_out *out = pp_conn_room(conn, cap);

    if (out == NULL) {
        return;
    }
    size_t n = pp_h1_write_error(status, h->h1.head_request, pp_loop_date(loop),
                                 loop->settings.server_header, pp_out_at(out), cap);
    PP_CHECK(n <= cap);
    pp_out_commit(&conn->out, out, n);
    h->ex.status = (uint16_t)status;
    h->h1.res = PP_H1_RES_DONE;
    h->h1.keep_alive = false;
    pp_stats_response(&loop->slot->counters, status);
    pp_conn_mark_dirty(conn);
}

/* Something was queued, or dropped because there is nobody to send it to. */
static void queued(struct pp_http1 *h)
{
    struct pp_conn *conn = h->ex.conn;

    if (h->ex.closed || h->state != PP_HTTP1_SERVE) {
        pp_conn_out_drop(conn);
        return;
    }
    pp_conn_mark_dirty(conn);
    if (h->h1.res == PP_H1_RES_DONE && conn->loop->settings.report_finished) {
        pp_exchange_raise(&h->ex, PP_EV_FINISHED);
    }
}

static int send_framed(struct pp_http1 *h, const uint8_t *data, size_t len, bool more, void *owner,
                       bool *borrowed)
{
    struct pp_conn *conn = h->ex.conn;
    uint8_t prefix[18];
    size_t prefix_len = 0, suffix_len = 0;
    bool send_data = false;
    const char *suffix = "";

    int framed =
        pp_h1_conn_frame(&h->h1, len, more, prefix, &prefix_len, &send_data, &suffix, &suffix_len);
    if (framed == PP_ERR_APP_BODY_TOO_SHORT) {
        h->h1.keep_alive = false;
        h->h1.res = PP_H1_RES_DONE;
        conn->linger = true;
    } else if (framed != PP_OK) {
        h->h1.keep_alive = false; /* nothing may follow: what was sent is the end */
        conn->linger = true;
        pp_conn_mark_dirty(conn);
        return framed;
    }
    if (h->ex.closed || h->state != PP_HTTP1_SERVE) {
        return framed;
    }
    int rc = pp_conn_copy(conn, prefix, prefix_len);
    if (rc == PP_OK && send_data && len > 0) {
        rc = pp_conn_bytes_of(conn, data, len, owner, borrowed);
    }
    if (rc == PP_OK) {
        rc = pp_conn_copy(conn, suffix, suffix_len);
    }
    return rc != PP_OK ? rc : framed;
}

int pp_http1_respond(struct pp_exchange *ex, struct pp_response *r, const uint8_t *data, size_t len,
                     void *owner, bool *borrowed)
{
    struct pp_http1 *h = pp_http1_of(ex);
    struct pp_conn *conn = ex->conn;
    struct pp_loop *loop = conn->loop;
    size_t written = 0;

    if (h->h1.res != PP_H1_RES_WAIT) {
        return PP_ERR_APP_FAILED;
    }
    if (r->complete) {
        pp_http1_body_settle(h);
    }
    r->extra_fields = loop->settings.extra_fields;
    r->extra_count = loop->settings.extra_count;
    r->date = pp_loop_date(loop);
    r->server = loop->settings.server_header;
    struct pp_out *out = pp_conn_room(conn, pp_h1_write_bound(r));
    if (out == NULL) {
        return PP_ERR_NO_MEMORY;
    }
    int rc = pp_h1_conn_respond(&h->h1, r, pp_out_at(out), pp_out_left(out), &written);
    if (rc != PP_OK) {
        return rc;
    }
    pp_out_commit(&conn->out, out, written);
    ex->status = (uint16_t)r->status;
    pp_stats_response(&loop->slot->counters, r->status);
    if (ex->closed || h->state != PP_HTTP1_SERVE) {
        rc = PP_OK;
    } else if (r->complete) {
        if (h->h1.framing != PP_H1_FRAME_NONE && r->body_bytes > 0) {
            rc = pp_conn_bytes_of(conn, data, (size_t)r->body_bytes, owner, borrowed);
        }
    } else if (len > 0) {
        rc = send_framed(h, data, len, true, owner, borrowed);
    }
    if (rc != PP_ERR_NO_MEMORY) {
        queued(h);
    }
    return rc;
}

int pp_http1_send(struct pp_exchange *ex, const uint8_t *data, size_t len, bool more, void *owner,
                  bool *borrowed)
{
    struct pp_http1 *h = pp_http1_of(ex);

    if (h->h1.res != PP_H1_RES_BODY) {
        return ex->closed || h->state != PP_HTTP1_SERVE ? PP_OK : PP_ERR_APP_FAILED;
    }
    int rc = send_framed(h, data, len, more, owner, borrowed);
    if (rc == PP_OK || rc == PP_ERR_APP_BODY_TOO_SHORT) {
        queued(h);
    }
    return rc;
}

/* What the fields of a head with such a first line need at most. */
static size_t bound_of(size_t line, const struct pp_out_field *fields, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        line += pp_out_field_bytes(&fields[i]);
    }
    return line;
}

int pp_http1_informational(struct pp_exchange *ex, int status, const struct pp_out_field *fields,
                           size_t count)
{
    const struct pp_http1 *h = pp_http1_of(ex);
    struct pp_conn *conn = ex->conn;
    size_t written = 0;

    if (h->h1.res != PP_H1_RES_WAIT) {
        return PP_ERR_APP_FAILED;
    }
    if (ex->closed || h->state != PP_HTTP1_SERVE || h->h1.minor == 0) {
        return PP_OK; /* RFC 9110 15.2: HTTP/1.0 has no 1xx */
    }
    struct pp_out *out = pp_conn_room(conn, bound_of(64, fields, count));
    if (out == NULL) {
        return PP_ERR_NO_MEMORY;
    }
    int rc = pp_h1_write_informational(status, fields, count, pp_out_at(out), pp_out_left(out),
                                       &written);
    if (rc != PP_OK) {
        return rc;
    }
    pp_out_commit(&conn->out, out, written);
    pp_stats_response(&conn->loop->slot->counters, status);
    pp_conn_mark_dirty(conn);
    return PP_OK;
}

int pp_http1_tunnel(struct pp_exchange *ex, const char *protocol, const struct pp_out_field *fields,
                    size_t count)
{
    struct pp_http1 *h = pp_http1_of(ex);
    struct pp_conn *conn = ex->conn;
    size_t written = 0;

    if (h->h1.res != PP_H1_RES_WAIT) {
        return PP_ERR_APP_FAILED;
    }
    if (ex->closed || h->state != PP_HTTP1_SERVE) {
        return PP_OK;
    }
    if (!h->in->head.upgrade || h->h1.req != PP_H1_REQ_DONE || h->h1.minor == 0) {
        return PP_ERR_APP_FAILED;
    }
    struct pp_out *out = pp_conn_room(conn, bound_of(128 + strlen(protocol), fields, count));
    if (out == NULL) {
        return PP_ERR_NO_MEMORY;
    }
    int rc =
        pp_h1_write_upgrade(protocol, fields, count, pp_out_at(out), pp_out_left(out), &written);
    if (rc != PP_OK) {
        return rc;
    }
    pp_out_commit(&conn->out, out, written);
    ex->status = 101;
    pp_stats_response(&conn->loop->slot->counters, 101);
    pp_http1_log(h);
    /* The head goes, and what the peer has said behind it is the tunnel's. */
    struct pp_block *in = h->in;
    uint32_t start = h->raw_start, end = h->in_end;
    h->in = NULL;
    pp_raw_take_over(conn, in, start, end);
    return PP_OK;
}
