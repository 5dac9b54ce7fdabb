/* Raw exchanges: bytes both ways between a peer and the application (contract: raw.h). They have a
 * connection from its beginning, or from where a request has become a tunnel.
 *
 * The block holds what was received and not consumed: data[start, end). It is dropped when all is
 * consumed, so an idle connection is its struct alone. */
#include "net/raw.h"

#include <string.h>

#include "net/conn.h"

static const struct pp_exchange_ops exchange_ops;

static struct pp_raw *raw_of(const struct pp_exchange *ex)
{
    PP_ASSERT(ex->ops == &exchange_ops);
    return PP_CONTAINER(ex, struct pp_raw, ex);
}

/* Whether the application may still say something, or be told. */
static bool is_open(const struct pp_conn *conn)
{
    return conn->state == PP_CONN_OPEN;
}

static void block_drop(struct pp_conn *conn)
{
    struct pp_raw *raw = &conn->raw;
    if (raw->in != NULL) {
        pp_block_give(conn->loop, raw->in);
        raw->in = NULL;
        raw->start = raw->end = 0;
    }
}

/* Room behind what is here; 0: full until the application consumes, or out of memory and killed. */
static size_t room(struct pp_conn *conn)
{
    struct pp_raw *raw = &conn->raw;
    if (raw->in == NULL) {
        raw->in = pp_block_new(conn->loop, PP_BLOCK_BYTES);
        if (raw->in == NULL) {
            (void)pp_conn_no_memory(conn);
            return 0;
        }
    }
    if (raw->start == raw->end) {
        raw->start = raw->end = 0;
    }
    return raw->in->cap - raw->end;
}

/* The peer has sent its last byte, or is gone: true if it is gone. */
static bool ended(struct pp_conn *conn)
{
    struct pp_exchange *ex = &conn->raw.ex;
    if (!conn->eof) {
        pp_conn_lost(conn);
        return true;
    }
    if (!ex->eof_told && ex->held) {
        ex->eof_told = true;
        pp_exchange_raise(ex, PP_EV_EOF);
    }
    return false;
}

/* Something happened: it is idle from now on. */
static void await_more(struct pp_conn *conn)
{
    if (conn->draining) {
        pp_conn_read_due(conn, PP_DRAIN_IDLE_MS);
    } else if (conn->raw.idle_ms != 0) {
        pp_conn_read_due(conn, conn->raw.idle_ms);
    }
}

static void came(struct pp_conn *conn)
{
    conn->raw.receive_again_left = conn->raw.receive_again;
    conn->requests++;
    conn->active_round = conn->loop->balance.round;
    await_more(conn);
    if (conn->readable) {
        pp_conn_resume_later(conn);
    }
    pp_exchange_raise(&conn->raw.ex, PP_EV_BODY);
}

/* ---- what the transport calls ---- */

static void ready(struct pp_conn *conn)
{
    struct pp_raw *raw = &conn->raw;
    bool any = false;

    for (int i = 0; i < PP_CONN_READS_MAX && conn->readable; i++) {
        size_t got = 0, space = conn->out.bytes > PP_OUT_HIGH_BYTES ? 0 : room(conn);
        if (space == 0) {
            break; /* consuming, or the flush, goes on */
        }
        int rc = pp_conn_receive(conn, raw->in->data + raw->end, space, &got);
        if (rc == PP_AGAIN) {
            break;
        }
        if (rc != PP_OK) {
            if (ended(conn)) {
                return;
            }
            break;
        }
        raw->end += (uint32_t)got;
        any = true;
    }
    if (!is_open(conn)) {
        return;
    }
    if (raw->start == raw->end) {
        block_drop(conn);
    }
    if (any) {
        came(conn);
    }
}

static void resume(struct pp_conn *conn)
{
    if (conn->readable) {
        ready(conn);
    }
}

static void flushed(struct pp_conn *conn)
{
    struct pp_raw *raw = &conn->raw;

    pp_exchange_flushed(&raw->ex, conn->out.bytes);
    if (conn->out.bytes == 0 && raw->finish_due) {
        raw->finish_due = false;
        if (!conn->draining) {
            await_more(conn);
        }
        pp_exchange_raise(&raw->ex, PP_EV_FINISHED);
        if (!conn->readable && !conn->eof && raw->receive_again_left > 0) {
            raw->receive_again_left--; /* its answer to what it has just got may be quick */
            conn->readable = true;
        }
    }
    if (conn->readable && conn->out.bytes <= PP_OUT_LOW_BYTES) {
        pp_conn_resume_later(conn);
    }
}

static void late(struct pp_conn *conn)
{
    struct pp_raw *raw = &conn->raw;

    /* What it has not come to read (memory, too much output) leaves the deadline unset. */
    if (pp_conn_look(conn) && (!is_open(conn) || conn->read_due_ms != 0)) {
        return;
    }
    bool quiet = conn->out.bytes == 0 && raw->ex.events == 0 && raw->in == NULL;
    if (quiet && conn->draining) {
        pp_raw_close(&raw->ex);
        return;
    }
    await_more(conn);
    if (quiet) {
        pp_exchange_raise(&raw->ex, PP_EV_IDLE);
    }
}

static void gone(struct pp_conn *conn, int code)
{
    struct pp_raw *raw = &conn->raw;

    /* Of one that ends before anybody has looked the application hears if the peer has said
     * something. */
    pp_exchange_gone(&raw->ex, code, raw->start < raw->end);
    if (!raw->ex.held) {
        block_drop(conn);
    }
}

static void drain(struct pp_conn *conn)
{
    pp_conn_read_due(conn, PP_DRAIN_IDLE_MS);
}

static bool busy(const struct pp_conn *conn)
{
    return conn->raw.ex.held;
}

static bool may_leave(const struct pp_conn *conn)
{
    (void)conn;
    return false;
}

static struct pp_exchange *next(struct pp_conn *conn, struct pp_exchange *ex)
{
    return ex == NULL && conn->raw.ex.held ? &conn->raw.ex : NULL;
}

static void begin(struct pp_conn *conn, const uint8_t *carry, size_t len);

const struct pp_proto pp_raw_proto = {
    .name = "raw",
    .begin = begin,
    .ready = ready,
    .resume = resume,
    .flushed = flushed,
    .late = late,
    .gone = gone,
    .drain = drain,
    .busy = busy,
    .may_leave = may_leave,
    .next = next,
};

static void begin(struct pp_conn *conn, const uint8_t *carry, size_t len)
{
    struct pp_raw *raw = &conn->raw;

    memset(raw, 0, sizeof *raw);
    pp_exchange_init(&raw->ex, &exchange_ops, conn);
    pp_exchange_opened(&raw->ex);
    if (conn->loop->draining) {
        pp_conn_read_due(conn, PP_DRAIN_IDLE_MS);
    }
    pp_exchange_raise(&raw->ex, PP_EV_REQUEST);
    if (len > 0) {
        size_t space = room(conn);
        if (space == 0) {
            return;
        }
        PP_CHECK(len <= space);
        memcpy(raw->in->data, carry, len);
        raw->end = (uint32_t)len;
        came(conn);
    }
    if (conn->readable) {
        ready(conn); /* what the peer says first is often here already */
    }
}

void pp_raw_take_over(struct pp_conn *conn, struct pp_block *in, uint32_t start, uint32_t end)
{
    struct pp_raw *raw = &conn->raw;

    static_assert(offsetof(struct pp_raw, ex) == 0 && offsetof(struct pp_http1, ex) == 0,
                  "an exchange stays where it is");
    PP_ASSERT(raw->ex.held);
    memset((char *)raw + sizeof raw->ex, 0, sizeof *raw - sizeof raw->ex);
    raw->ex.ops = &exchange_ops;
    raw->ex.eof_told = false;
    raw->in = in;
    raw->start = start;
    raw->end = end;
    raw->finish_due = true;
    conn->proto = &pp_raw_proto;
    conn->read_due_ms = conn->call_due_ms = 0;
    conn->linger = true;
    if (start < end) {
        came(conn);
    } else {
        block_drop(conn);
    }
    if (conn->draining) {
        drain(conn);
    }
    if (conn->readable) {
        pp_conn_resume_later(conn);
    } else if (conn->eof) {
        (void)ended(conn);
    }
    pp_conn_mark_dirty(conn);
}

/* ---- the application's side ---- */

bool pp_exchange_is_raw(const struct pp_exchange *ex)
{
    return ex->ops == &exchange_ops;
}

static enum pp_body_status peek(struct pp_exchange *ex, const uint8_t **data, size_t *len)
{
    const struct pp_raw *raw = raw_of(ex);

    *data = raw->in == NULL ? NULL : raw->in->data + raw->start;
    *len = raw->end - raw->start;
    return ex->eof_told || ex->closed ? PP_BODY_END : PP_BODY_MORE;
}

static void consume(struct pp_exchange *ex, size_t len)
{
    struct pp_raw *raw = raw_of(ex);
    struct pp_conn *conn = ex->conn;

    PP_CHECK(len <= raw->end - raw->start);
    raw->start += (uint32_t)len;
    if (raw->start < raw->end) {
        return;
    }
    block_drop(conn);
    if (is_open(conn) && conn->readable) {
        pp_conn_resume_later(conn);
    }
}

static int sent(struct pp_raw *raw, int rc)
{
    if (rc == PP_OK) {
        raw->finish_due = true;
        pp_conn_mark_dirty(raw->ex.conn);
    }
    return rc;
}

static int send_bytes(struct pp_exchange *ex, const uint8_t *data, size_t len, bool more,
                      void *owner, bool *borrowed)
{
    (void)more;
    if (!is_open(ex->conn) || len == 0) {
        return PP_OK;
    }
    return sent(raw_of(ex), pp_conn_bytes_of(ex->conn, data, len, owner, borrowed));
}

static int send_file(struct pp_exchange *ex, struct pp_file *file, uint64_t at, uint64_t len)
{
    if (!is_open(ex->conn) || len == 0) {
        pp_file_unref(file);
        return PP_OK;
    }
    return sent(raw_of(ex), pp_conn_file(ex->conn, file, at, len));
}

static int respond(struct pp_exchange *ex, struct pp_response *r, const uint8_t *data, size_t len,
                   void *owner, bool *borrowed)
{
    (void)ex, (void)r, (void)data, (void)len, (void)owner, (void)borrowed;
    return PP_ERR_APP_FAILED; /* it is no request, or answered by the tunnel */
}

static int informational(struct pp_exchange *ex, int status, const struct pp_out_field *fields,
                         size_t count)
{
    (void)ex, (void)status, (void)fields, (void)count;
    return PP_ERR_APP_FAILED;
}

static enum pp_progress progress(const struct pp_exchange *ex)
{
    return is_open(ex->conn) ? PP_RESPONSE_STARTED : PP_RESPONSE_DONE;
}

static bool out_full(const struct pp_exchange *ex)
{
    return is_open(ex->conn) && ex->conn->out.bytes > PP_OUT_HIGH_BYTES;
}

static void finish(struct pp_exchange *ex)
{
    struct pp_conn *conn = ex->conn;

    pp_exchange_released(ex);
    block_drop(conn);
    if (is_open(conn)) {
        conn->linger = true;
        pp_conn_last(conn);
    } else {
        pp_conn_let_go(conn);
    }
}

static const struct pp_exchange_ops exchange_ops = {
    .peek = peek,
    .consume = consume,
    .respond = respond,
    .send = send_bytes,
    .send_file = send_file,
    .informational = informational,
    .progress = progress,
    .out_full = out_full,
    .finish = finish,
};

void pp_raw_close(struct pp_exchange *ex)
{
    PP_CONN_ENTER(ex->conn);
    if (is_open(ex->conn)) {
        ex->conn->linger = raw_of(ex)->ours = true;
        pp_conn_last(ex->conn);
    }
}

bool pp_raw_ours(const struct pp_exchange *ex)
{
    PP_CONN_ENTER(ex->conn);
    return raw_of(ex)->ours;
}

void pp_raw_attempts(struct pp_exchange *ex, uint8_t receive, uint8_t send_again)
{
    struct pp_raw *raw = raw_of(ex);
    PP_CONN_ENTER(ex->conn);
    raw->receive_again = raw->receive_again_left = receive;
    ex->conn->send_again = ex->conn->send_again_left = send_again;
}

void pp_raw_rate(struct pp_exchange *ex, uint32_t bytes_per_second)
{
    PP_CONN_ENTER(ex->conn);
    pp_conn_rate(ex->conn, bytes_per_second);
}

void pp_raw_idle(struct pp_exchange *ex, uint32_t after_ms)
{
    PP_CONN_ENTER(ex->conn);
    raw_of(ex)->idle_ms = after_ms;
    if (is_open(ex->conn) && !ex->conn->draining) {
        pp_conn_read_due(ex->conn, after_ms);
    }
}

uint64_t pp_raw_out_bytes(const struct pp_exchange *ex)
{
    PP_CONN_ENTER(ex->conn);
    return ex->conn->out.bytes;
}
