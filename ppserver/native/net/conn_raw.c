/* Raw connections: bytes both ways between a peer and the application (contract: conn.h).
 *
 * The block holds what was received and not consumed: data[body_start, body_end). It is dropped
 * when all is consumed, so an idle connection is its struct alone. The end is that of every
 * connection: CLOSE until the output is written, then LINGER. */
#include "net/conn_impl.h"

void pp_conn_raw_open(struct pp_conn *conn)
{
    conn->held = true;
    pp_stats_set32(&conn->loop->slot->in_flight, conn->loop->slot->in_flight + 1);
    if (conn->loop->draining) {
        pp_conn_read_due(conn, PP_DRAIN_IDLE_MS);
    }
    pp_conn_raise(conn, PP_EV_REQUEST);
    pp_conn_raw_read(conn); /* what the peer says first is often here already */
}

/* Room behind what is here; 0: full until the application consumes, or out of memory and killed. */
static size_t room(struct pp_conn *conn)
{
    if (conn->in == NULL) {
        conn->in = pp_conn_block_new(conn->loop, PP_BLOCK_BYTES);
        if (conn->in == NULL) {
            pp_conn_no_memory(conn);
            return 0;
        }
    }
    if (conn->body_start == conn->body_end) {
        conn->body_start = conn->body_end = 0;
    }
    return conn->in->cap - conn->body_end;
}

/* The peer has sent its last byte, or is gone: true if it is gone. */
static bool ended(struct pp_conn *conn)
{
    if (!conn->eof) {
        pp_conn_lost(conn);
        return true;
    }
    if (!conn->eof_told && conn->held) {
        conn->eof_told = true;
        pp_conn_raise(conn, PP_EV_EOF);
    }
    return false;
}

/* Something happened: it is idle from now on. */
static void await_more(struct pp_conn *conn)
{
    if (conn->h1.draining) {
        pp_conn_read_due(conn, PP_DRAIN_IDLE_MS);
    } else if (conn->idle_ms != 0) {
        pp_conn_read_due(conn, conn->idle_ms);
    }
}

void pp_conn_raw_read(struct pp_conn *conn)
{
    bool came = false;

    for (int i = 0; i < PP_CONN_READS_MAX && conn->readable; i++) {
        size_t got = 0, space = conn->out_bytes > PP_OUT_HIGH_BYTES ? 0 : room(conn);
        if (space == 0) {
            break; /* consuming, or the flush, goes on */
        }
        int rc = pp_conn_receive(conn, conn->in->data + conn->body_end, space, &got);
        if (rc == PP_AGAIN) {
            break;
        }
        if (rc != PP_OK) {
            if (ended(conn)) {
                return;
            }
            break;
        }
        conn->body_end += (uint32_t)got;
        came = true;
    }
    if (conn->state != PP_CONN_RAW) {
        return;
    }
    if (conn->body_start == conn->body_end) {
        pp_conn_block_drop(conn);
    }
    if (came) {
        conn->receive_again_left = conn->receive_again;
        conn->requests++;
        conn->active_round = conn->loop->balance.round;
        await_more(conn);
        if (conn->readable) {
            pp_conn_resume_later(conn);
        }
        pp_conn_raise(conn, PP_EV_BODY);
    }
}

void pp_conn_raw_flushed(struct pp_conn *conn)
{
    if (conn->out_bytes == 0 && conn->finish_due) {
        conn->finish_due = false;
        if (!conn->h1.draining) {
            await_more(conn);
        }
        pp_conn_raise(conn, PP_EV_FINISHED);
        if (!conn->readable && !conn->eof && conn->receive_again_left > 0) {
            conn->receive_again_left--; /* its answer to what it has just got may be quick */
            conn->readable = true;
        }
    }
    if (conn->readable && conn->out_bytes <= PP_OUT_LOW_BYTES) {
        pp_conn_resume_later(conn);
    }
}

void pp_conn_raw_due(struct pp_conn *conn)
{
    bool quiet = conn->out_bytes == 0 && conn->events == 0 && conn->in == NULL;
    if (quiet && conn->h1.draining) {
        pp_conn_raw_close(conn);
        return;
    }
    await_more(conn);
    if (quiet) {
        pp_conn_raise(conn, PP_EV_IDLE);
    }
}

/* ---- the application's side ---- */

uint16_t pp_conn_tag(const struct pp_conn *conn)
{
    return conn->tag & PP_TAG_MAX;
}

bool pp_conn_is_raw(const struct pp_conn *conn)
{
    return (conn->tag & PP_TAG_RAW) != 0;
}

size_t pp_conn_raw_peek(const struct pp_conn *conn, const uint8_t **data)
{
    PP_CONN_ENTER(conn);
    PP_ASSERT(pp_conn_is_raw(conn));
    *data = conn->in == NULL ? NULL : conn->in->data + conn->body_start;
    return conn->body_end - conn->body_start;
}

void pp_conn_raw_consume(struct pp_conn *conn, size_t len)
{
    PP_CONN_ENTER(conn);
    PP_CHECK(len <= conn->body_end - conn->body_start);
    conn->body_start += (uint32_t)len;
    if (conn->body_start < conn->body_end) {
        return;
    }
    pp_conn_block_drop(conn);
    if (conn->state == PP_CONN_RAW && conn->readable) {
        pp_conn_resume_later(conn);
    }
}

int pp_conn_raw_send(struct pp_conn *conn, const uint8_t *data, size_t len, void *owner,
                     bool *borrowed)
{
    PP_CONN_ENTER(conn);
    if (borrowed != NULL) {
        *borrowed = false;
    }
    if (conn->state != PP_CONN_RAW || len == 0) {
        return PP_OK;
    }
    int rc = pp_conn_out_bytes_of(conn, data, len, owner, borrowed);
    if (rc == PP_OK) {
        conn->finish_due = true;
        pp_conn_mark_dirty(conn);
    }
    return rc;
}

int pp_conn_raw_send_file(struct pp_conn *conn, struct pp_file *file, uint64_t at, uint64_t len)
{
    PP_CONN_ENTER(conn);
    if (conn->state != PP_CONN_RAW || len == 0) {
        pp_file_unref(file);
        return PP_OK;
    }
    int rc = pp_conn_out_file(conn, file, at, len);
    if (rc == PP_OK) {
        conn->finish_due = true;
        pp_conn_mark_dirty(conn);
    }
    return rc;
}

void pp_conn_raw_flush(struct pp_conn *conn)
{
    PP_CONN_ENTER(conn);
    if (conn->state == PP_CONN_RAW && conn->out_bytes > 0) {
        pp_conn_flush(conn);
    }
}

void pp_conn_raw_close(struct pp_conn *conn)
{
    PP_CONN_ENTER(conn);
    if (conn->state != PP_CONN_RAW) {
        return;
    }
    conn->linger = conn->ours = true;
    pp_conn_read_due(conn, 0);
    pp_conn_step(conn, PP_CONN_ON_LAST);
    pp_conn_mark_dirty(conn); /* the flush finds out what is next, also when nothing is queued */
}

bool pp_conn_raw_ours(const struct pp_conn *conn)
{
    PP_CONN_ENTER(conn);
    return conn->ours;
}

void pp_conn_raw_attempts(struct pp_conn *conn, uint8_t receive, uint8_t send)
{
    PP_CONN_ENTER(conn);
    conn->receive_again = conn->receive_again_left = receive;
    conn->send_again = conn->send_again_left = send;
}

void pp_conn_raw_rate(struct pp_conn *conn, uint32_t bytes_per_second)
{
    PP_CONN_ENTER(conn);
    conn->rate = bytes_per_second;
    conn->rate_ms = pp_loop_time(conn->loop);
    conn->rate_left = bytes_per_second / PP_RATE_PARTS + 1;
}

void pp_conn_raw_idle(struct pp_conn *conn, uint32_t after_ms)
{
    PP_CONN_ENTER(conn);
    conn->idle_ms = after_ms;
    if (conn->state == PP_CONN_RAW && !conn->h1.draining) {
        pp_conn_read_due(conn, after_ms);
    }
}

uint64_t pp_conn_out_bytes(const struct pp_conn *conn)
{
    PP_CONN_ENTER(conn);
    return conn->out_bytes;
}
