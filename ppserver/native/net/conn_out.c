/* Output of a connection: response framing, the queue, writing (contract: conn.h).
 *
 * The queue is a chain of blocks, each with copied bytes and behind them at most one range that is
 * borrowed from the application. Nothing is written when it is produced: the connection goes on the
 * loop's dirty list, and the flush writes head, body and pipelined answers with one system call. A
 * block whose borrowed range is written carries its owner to pp_loop_take_released, so that letting
 * go of memory never needs memory. */
#include "net/conn_impl.h"

#include <string.h>

#define IOVS_MAX 32
#define SERVER_NAME "ppserver"

/* ---- the queue ---- */

void pp_out_give(struct pp_loop *loop, struct pp_out *out)
{
    if (out->cap == PP_COPY_BYTES_MAX) {
        pp_pool_give(&loop->out_pool, out);
    } else {
        pp_mem_free(out, sizeof *out + out->cap);
    }
}

static void out_pop(struct pp_conn *conn)
{
    struct pp_loop *loop = conn->loop;
    struct pp_out *out = conn->out_head;

    conn->out_head = out->next;
    if (conn->out_head == NULL) {
        conn->out_tail = NULL;
    }
    if (out->owner == NULL) {
        pp_out_give(loop, out);
        return;
    }
    out->next = NULL;
    if (loop->released_tail == NULL) {
        loop->released = out;
    } else {
        loop->released_tail->next = out;
    }
    loop->released_tail = out;
}

void pp_conn_out_drop(struct pp_conn *conn)
{
    while (conn->out_head != NULL) {
        out_pop(conn);
    }
    conn->out_bytes = 0;
}

static struct pp_out *out_push(struct pp_conn *conn, size_t cap)
{
    struct pp_loop *loop = conn->loop;
    if (cap < PP_COPY_BYTES_MAX) {
        cap = PP_COPY_BYTES_MAX;
    }
    struct pp_out *out =
        cap == PP_COPY_BYTES_MAX ? pp_pool_take(&loop->out_pool) : pp_mem_alloc(sizeof *out + cap);
    if (out == NULL) {
        return NULL;
    }
    memset(out, 0, sizeof *out);
    out->cap = cap;
    if (conn->out_tail == NULL) {
        conn->out_head = out;
    } else {
        conn->out_tail->next = out;
    }
    conn->out_tail = out;
    return out;
}

/* The tail block with `need` contiguous bytes free behind its copied ones; NULL: no memory. */
static struct pp_out *out_room(struct pp_conn *conn, size_t need)
{
    struct pp_out *out = conn->out_tail;
    if (out != NULL && out->owner == NULL && out->cap - out->end >= need) {
        return out;
    }
    return out_push(conn, need);
}

static int no_memory(struct pp_conn *conn)
{
    pp_stats_error(&conn->loop->counters, PP_ERR_NO_MEMORY);
    pp_conn_kill(conn, PP_ERR_NO_MEMORY, true);
    return PP_ERR_NO_MEMORY;
}

int pp_conn_out_copy(struct pp_conn *conn, const void *data, size_t len)
{
    const uint8_t *from = data;

    while (len > 0) {
        struct pp_out *out = conn->out_tail;
        size_t room = out == NULL || out->owner != NULL ? 0 : out->cap - out->end;
        if (room == 0) {
            out = out_push(conn, 0);
            if (out == NULL) {
                return no_memory(conn);
            }
            room = out->cap;
        }
        size_t n = len < room ? len : room;
        memcpy(out->data + out->end, from, n);
        out->end += n;
        conn->out_bytes += n;
        from += n;
        len -= n;
    }
    return PP_OK;
}

void pp_conn_mark_dirty(struct pp_conn *conn)
{
    if (conn->state != PP_CONN_DEAD && !pp_list_linked(&conn->dirty)) {
        pp_list_push(&conn->loop->dirty, &conn->dirty);
    }
}

/* Body bytes: borrowed when they are many and have an owner, else copied. */
static int out_body(struct pp_conn *conn, const uint8_t *data, size_t len, void *owner,
                    bool *borrowed)
{
    if (owner == NULL || borrowed == NULL || len <= PP_COPY_BYTES_MAX) {
        return pp_conn_out_copy(conn, data, len);
    }
    struct pp_out *out = out_room(conn, 0);
    if (out == NULL) {
        return no_memory(conn);
    }
    out->borrowed = data;
    out->borrowed_len = len;
    out->owner = owner;
    conn->out_bytes += len;
    *borrowed = true;
    return PP_OK;
}

void pp_conn_out_error(struct pp_conn *conn, int status)
{
    struct pp_loop *loop = conn->loop;
    const size_t cap = 1024;
    struct pp_out *out = out_room(conn, cap);

    if (out == NULL) {
        (void)no_memory(conn);
        return;
    }
    size_t n = pp_h1_write_error(status, conn->h1.head_request, pp_loop_date(loop),
                                 loop->settings.server_header ? SERVER_NAME : NULL,
                                 out->data + out->end, cap);
    PP_CHECK(n <= cap);
    out->end += n;
    conn->out_bytes += n;
    conn->status = (uint16_t)status;
    conn->h1.res = PP_H1_RES_DONE;
    conn->h1.keep_alive = false;
    pp_stats_response(&loop->counters, status);
    pp_conn_mark_dirty(conn);
}

/* ---- writing ---- */

static int out_gather(const struct pp_conn *conn, struct iovec *iov)
{
    int count = 0;
    for (const struct pp_out *out = conn->out_head; out != NULL && count < IOVS_MAX - 1;
         out = out->next) {
        if (out->end > out->start) {
            iov[count].iov_base = (void *)(uintptr_t)(out->data + out->start);
            iov[count++].iov_len = out->end - out->start;
        }
        if (out->borrowed_len > 0) {
            iov[count].iov_base = (void *)(uintptr_t)out->borrowed;
            iov[count++].iov_len = out->borrowed_len;
        }
    }
    return count;
}

static void out_advance(struct pp_conn *conn, size_t n)
{
    PP_CHECK(n <= conn->out_bytes);
    conn->out_bytes -= n;
    while (conn->out_head != NULL) {
        struct pp_out *out = conn->out_head;
        size_t copied = out->end - out->start < n ? out->end - out->start : n;
        out->start += copied;
        n -= copied;
        size_t lent = out->borrowed_len < n ? out->borrowed_len : n;
        out->borrowed_len -= lent;
        out->borrowed = out->borrowed == NULL ? NULL : out->borrowed + lent;
        n -= lent;
        if (out->start < out->end || out->borrowed_len > 0) {
            break;
        }
        out_pop(conn);
    }
}

static void flush_done(struct pp_conn *conn)
{
    if (conn->full_told && conn->out_bytes <= PP_OUT_LOW_BYTES) {
        conn->full_told = false;
        pp_conn_raise(conn, PP_EV_DRAINED);
    }
    if (conn->out_bytes == 0) {
        conn->write_due_ms = 0;
        pp_conn_out_drop(conn); /* a block that a refused head has left empty */
        pp_conn_flushed(conn);
    }
    if ((conn->state == PP_CONN_IDLE || conn->state == PP_CONN_HEAD) &&
        conn->out_bytes <= PP_OUT_LOW_BYTES &&
        (conn->readable || (conn->state == PP_CONN_HEAD && pp_conn_leftover(conn) > 0))) {
        pp_conn_resume_later(conn); /* if it was the output that stopped the input */
    }
}

void pp_conn_flush(struct pp_conn *conn)
{
    struct iovec iov[IOVS_MAX];
    size_t budget = PP_CONN_WRITE_BYTES;

    PP_ASSERT(conn->state != PP_CONN_DEAD);
    while (conn->out_bytes > 0 && conn->writable) {
        size_t put = 0;
        if (budget == 0) {
            pp_conn_mark_dirty(conn); /* others first */
            break;
        }
        int count = out_gather(conn, iov);
        int rc = pp_sock_send(conn->fd, iov, count, &put);
        if (rc == PP_AGAIN) {
            conn->writable = false;
            conn->unsent = pp_sock_unsent(conn->fd);
            break;
        }
        if (rc != PP_OK) {
            pp_conn_lost(conn);
            return;
        }
        pp_stats_add(&conn->loop->counters.bytes_out, put);
        out_advance(conn, put);
        conn->write_due_ms = 0;
        budget -= put < budget ? put : budget;
    }
    if (conn->out_bytes > 0 && conn->write_due_ms == 0) {
        pp_conn_write_due(conn, conn->loop->settings.write_ms);
    }
    flush_done(conn);
}

void pp_conn_flush_dirty(struct pp_loop *loop)
{
    struct pp_list now, *n;

    pp_list_init(&now);
    while ((n = pp_list_pop(&loop->dirty)) != NULL) {
        pp_list_push(&now, n);
    }
    while ((n = pp_list_pop(&now)) != NULL) {
        struct pp_conn *conn = PP_CONTAINER(n, struct pp_conn, dirty);
        PP_CHECK(conn->magic == PP_CONN_MAGIC);
        pp_conn_flush(conn);
    }
}

/* ---- the application's side ---- */

/* Something was queued, or dropped because there is nobody to send it to. */
static void queued(struct pp_conn *conn)
{
    if (conn->closed || conn->state != PP_CONN_SERVE) {
        pp_conn_out_drop(conn);
        return;
    }
    pp_conn_mark_dirty(conn);
    if (conn->h1.res == PP_H1_RES_DONE && conn->loop->settings.report_finished) {
        pp_conn_raise(conn, PP_EV_FINISHED);
    }
}

static int send_framed(struct pp_conn *conn, const uint8_t *data, size_t len, bool more,
                       void *owner, bool *borrowed)
{
    uint8_t prefix[18];
    size_t prefix_len = 0, suffix_len = 0;
    bool send_data = false;
    const char *suffix = "";

    int framed = pp_h1_conn_frame(&conn->h1, len, more, prefix, &prefix_len, &send_data, &suffix,
                                  &suffix_len);
    if (framed == PP_ERR_APP_BODY_TOO_SHORT) {
        conn->h1.keep_alive = false;
        conn->h1.res = PP_H1_RES_DONE;
        conn->linger = true;
    } else if (framed != PP_OK) {
        conn->h1.keep_alive = false; /* nothing may follow: what was sent is the end */
        conn->linger = true;
        pp_conn_mark_dirty(conn);
        return framed;
    }
    if (conn->closed || conn->state != PP_CONN_SERVE) {
        return framed;
    }
    int rc = pp_conn_out_copy(conn, prefix, prefix_len);
    if (rc == PP_OK && send_data && len > 0) {
        rc = out_body(conn, data, len, owner, borrowed);
    }
    if (rc == PP_OK) {
        rc = pp_conn_out_copy(conn, suffix, suffix_len);
    }
    return rc != PP_OK ? rc : framed;
}

int pp_conn_respond(struct pp_conn *conn, struct pp_h1_response *r, const uint8_t *data, size_t len,
                    void *owner, bool *borrowed)
{
    struct pp_loop *loop = conn->loop;
    size_t written = 0;

    PP_CONN_ENTER(conn);
    PP_ASSERT(conn->held);
    if (borrowed != NULL) {
        *borrowed = false;
    }
    if (conn->h1.res != PP_H1_RES_WAIT) {
        return PP_ERR_APP_FAILED;
    }
    r->extra_fields = loop->settings.extra_fields;
    r->extra_count = loop->settings.extra_count;
    r->date = pp_loop_date(loop);
    r->server = loop->settings.server_header ? SERVER_NAME : NULL;
    struct pp_out *out = out_room(conn, pp_h1_write_bound(r));
    if (out == NULL) {
        return no_memory(conn);
    }
    int rc = pp_h1_conn_respond(&conn->h1, r, out->data + out->end, out->cap - out->end, &written);
    if (rc != PP_OK) {
        return rc;
    }
    PP_CHECK(written <= out->cap - out->end);
    out->end += written;
    conn->out_bytes += written;
    conn->status = (uint16_t)r->status;
    pp_stats_response(&loop->counters, r->status);
    if (conn->closed || conn->state != PP_CONN_SERVE) {
        rc = PP_OK;
    } else if (r->complete) {
        if (conn->h1.framing != PP_H1_FRAME_NONE && r->body_bytes > 0) {
            rc = out_body(conn, data, (size_t)r->body_bytes, owner, borrowed);
        }
    } else if (len > 0) {
        rc = send_framed(conn, data, len, true, owner, borrowed);
    }
    if (rc != PP_ERR_NO_MEMORY) {
        queued(conn);
    }
    return rc;
}

int pp_conn_send(struct pp_conn *conn, const uint8_t *data, size_t len, bool more, void *owner,
                 bool *borrowed)
{
    PP_CONN_ENTER(conn);
    PP_ASSERT(conn->held);
    if (borrowed != NULL) {
        *borrowed = false;
    }
    if (conn->h1.res != PP_H1_RES_BODY) {
        return conn->closed || conn->state != PP_CONN_SERVE ? PP_OK : PP_ERR_APP_FAILED;
    }
    int rc = send_framed(conn, data, len, more, owner, borrowed);
    if (rc == PP_OK || rc == PP_ERR_APP_BODY_TOO_SHORT) {
        queued(conn);
    }
    return rc;
}

int pp_conn_informational(struct pp_conn *conn, int status, const struct pp_h1_out_field *fields,
                          size_t count)
{
    size_t bound = 64, written = 0;

    PP_CONN_ENTER(conn);
    PP_ASSERT(conn->held);
    if (conn->h1.res != PP_H1_RES_WAIT) {
        return PP_ERR_APP_FAILED;
    }
    if (conn->closed || conn->state != PP_CONN_SERVE || conn->h1.minor == 0) {
        return PP_OK; /* RFC 9110 15.2: HTTP/1.0 has no 1xx */
    }
    for (size_t i = 0; i < count; i++) {
        bound += fields[i].name_len + fields[i].value_len + 4;
    }
    struct pp_out *out = out_room(conn, bound);
    if (out == NULL) {
        return no_memory(conn);
    }
    int rc = pp_h1_write_informational(status, fields, count, out->data + out->end,
                                       out->cap - out->end, &written);
    if (rc != PP_OK) {
        return rc;
    }
    PP_CHECK(written <= out->cap - out->end);
    out->end += written;
    conn->out_bytes += written;
    pp_stats_response(&conn->loop->counters, status);
    pp_conn_mark_dirty(conn);
    return PP_OK;
}

bool pp_conn_out_full(struct pp_conn *conn)
{
    PP_CONN_ENTER(conn);
    if (conn->closed || conn->state != PP_CONN_SERVE || conn->out_bytes <= PP_OUT_HIGH_BYTES) {
        return false;
    }
    conn->full_told = true;
    return true;
}
