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
    if (out->file != NULL) {
        pp_file_unref(out->file);
        out->file = NULL;
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
    if (conn->reading != NULL) {
        conn->reading->conn = NULL;
        conn->reading = NULL;
    }
    conn->chunk_read = false;
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

/* Nothing may be copied behind what it ends with. */
static bool full(const struct pp_out *out)
{
    return out->owner != NULL || out->file != NULL;
}

/* The tail block with `need` contiguous bytes free behind its copied ones; NULL: no memory. */
static struct pp_out *out_room(struct pp_conn *conn, size_t need)
{
    struct pp_out *out = conn->out_tail;
    if (out != NULL && !full(out) && out->cap - out->end >= need) {
        return out;
    }
    return out_push(conn, need);
}

static int no_memory(struct pp_conn *conn)
{
    pp_stats_error(&conn->loop->slot->counters, PP_ERR_NO_MEMORY);
    pp_conn_kill(conn, PP_ERR_NO_MEMORY, true);
    return PP_ERR_NO_MEMORY;
}

int pp_conn_out_copy(struct pp_conn *conn, const void *data, size_t len)
{
    const uint8_t *from = data;

    while (len > 0) {
        struct pp_out *out = conn->out_tail;
        size_t room = out == NULL || full(out) ? 0 : out->cap - out->end;
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

int pp_conn_out_bytes_of(struct pp_conn *conn, const uint8_t *data, size_t len, void *owner,
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

int pp_conn_out_file(struct pp_conn *conn, struct pp_file *file, uint64_t at, uint64_t len)
{
    struct pp_out *out = out_room(conn, 0);
    if (out == NULL) {
        pp_file_unref(file);
        return no_memory(conn);
    }
    out->file = file;
    out->file_at = at;
    out->file_len = len;
    conn->out_bytes += len;
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
                                 loop->settings.server_header, out->data + out->end, cap);
    PP_CHECK(n <= cap);
    out->end += n;
    conn->out_bytes += n;
    conn->status = (uint16_t)status;
    conn->h1.res = PP_H1_RES_DONE;
    conn->h1.keep_alive = false;
    pp_stats_response(&loop->slot->counters, status);
    pp_conn_mark_dirty(conn);
}

/* ---- writing ---- */

static void piece(struct iovec *iov, int *count, const uint8_t *data, size_t len, size_t *room)
{
    len = len < *room ? len : *room;
    if (len > 0) {
        iov[*count].iov_base = (void *)(uintptr_t)data;
        iov[(*count)++].iov_len = len;
        *room -= len;
    }
}

/* What is in memory, up to a file and up to `room` bytes; *more: a file follows. */
static int out_gather(const struct pp_conn *conn, struct iovec *iov, size_t room, bool *more)
{
    int count = 0;
    *more = false;
    for (const struct pp_out *out = conn->out_head;
         out != NULL && count < IOVS_MAX - 1 && room > 0 && !*more; out = out->next) {
        piece(iov, &count, out->data + out->start, out->end - out->start, &room);
        piece(iov, &count, out->borrowed, out->borrowed_len, &room);
        *more = out->file_len > 0 && room > 0;
    }
    return count;
}

/* How many bytes the connection's rate lets go now; none: its timer tells when. */
static size_t rate_room(struct pp_conn *conn)
{
    uint64_t most = conn->rate / PP_RATE_PARTS + 1;
    if (conn->rate == 0) {
        return SIZE_MAX;
    }
    uint64_t more = (conn->loop->now_ms - conn->rate_ms) * conn->rate / 1000;
    if (more > 0) { /* what a low rate gives in a millisecond must add up */
        uint64_t left = conn->rate_left + more;
        conn->rate_left = (uint32_t)(left < most ? left : most);
        conn->rate_ms = conn->loop->now_ms;
    }
    if (conn->rate_left == 0) {
        /* Timers are late by up to a tick: what has become due by then fits into `most`. */
        pp_conn_rate_due(conn, 1000 / PP_RATE_PARTS / 2);
        conn->write_due_ms = 0; /* it is not the peer that is slow */
    }
    return conn->rate_left;
}

static void out_advance(struct pp_conn *conn, size_t n, bool from_file)
{
    PP_CHECK(n <= conn->out_bytes);
    conn->out_bytes -= n;
    n = from_file ? 0 : n; /* send_file has moved on there */
    while (conn->out_head != NULL) {
        struct pp_out *out = conn->out_head;
        size_t copied = out->end - out->start < n ? out->end - out->start : n;
        out->start += copied;
        n -= copied;
        size_t lent = out->borrowed_len < n ? out->borrowed_len : n;
        out->borrowed_len -= lent;
        out->borrowed = out->borrowed == NULL ? NULL : out->borrowed + lent;
        n -= lent;
        if (out->start < out->end || out->borrowed_len > 0 || out->file_len > 0) {
            break;
        }
        out_pop(conn);
    }
}

/* The next chunk of the file that is due. PP_AGAIN also while it is being read. */
static int send_file(struct pp_conn *conn, size_t budget, size_t *put)
{
    struct pp_out *out = conn->out_head;
    size_t most = budget < PP_FILE_CHUNK ? budget : PP_FILE_CHUNK;
    size_t len = out->file_len < most ? (size_t)out->file_len : most;
    if (conn->reading != NULL) {
        return PP_AGAIN;
    }
    if (!conn->chunk_read && pp_file_cold(out->file, out->file_at, len)) {
        conn->reading = pp_filer_read(conn->loop, conn, out->file, out->file_at, len);
        if (conn->reading != NULL) {
            conn->write_due_ms = 0; /* it is not the peer that is slow */
            return PP_AGAIN;
        }
    }
    int rc = pp_sock_sendfile(conn->fd, out->file->fd, out->file_at, len, put);
    if (rc == PP_AGAIN) {
        conn->writable = false;
    } else if (rc == PP_OK) {
        conn->chunk_read = false;
        out->file_at += *put;
        out->file_len -= *put;
    }
    return rc;
}

void pp_conn_files_read(struct pp_loop *loop)
{
    struct pp_file_job *job = pp_filer_done(loop);
    while (job != NULL) {
        struct pp_file_job *next = job->next;
        if (job->conn != NULL) {
            PP_CHECK(job->conn->reading == job);
            job->conn->reading = NULL;
            job->conn->chunk_read = true;
            pp_conn_mark_dirty(job->conn);
        }
        pp_filer_give(job);
        job = next;
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
    if (conn->state == PP_CONN_RAW) {
        pp_conn_raw_flushed(conn);
    }
    if (PP_UNLIKELY(conn->loop->balance.owed > 0) && conn->state == PP_CONN_IDLE) {
        pp_balance_answered(conn);
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
        bool more;
        size_t room = rate_room(conn);
        if (room == 0) {
            break;
        }
        int count = out_gather(conn, iov, room, &more);
        bool from_file = count == 0;
        int rc = from_file ? send_file(conn, budget < room ? budget : room, &put)
                           : pp_sock_send(conn->fd, iov, count, more, &put);
        if (rc == PP_AGAIN && conn->reading != NULL) {
            break;
        }
        if (rc == PP_AGAIN && conn->send_again_left > 0) {
            conn->send_again_left--;
            continue;
        }
        if (rc == PP_AGAIN) {
            conn->writable = false;
            conn->unsent = pp_sock_unsent(conn->fd);
            break;
        }
        if (rc == PP_ERR_APP_BODY_TOO_SHORT) {
            pp_stats_error(&conn->loop->slot->counters, rc);
            pp_conn_kill(conn, rc, true);
            return;
        }
        if (rc != PP_OK) {
            pp_conn_lost(conn);
            return;
        }
        pp_stats_add(&conn->loop->slot->counters.bytes_out, put);
        pp_stats_add(&pp_loop_tagged(conn->loop, conn->tag)->bytes_out, put);
        out_advance(conn, put, from_file);
        conn->send_again_left = conn->send_again;
        conn->rate_left -= conn->rate != 0 ? (uint32_t)put : 0;
        conn->write_due_ms = 0;
        budget -= put < budget ? put : budget;
    }
    if (conn->out_bytes > 0 && conn->write_due_ms == 0 && conn->reading == NULL &&
        conn->rate_due_ms == 0) {
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
        rc = pp_conn_out_bytes_of(conn, data, len, owner, borrowed);
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
    if (r->complete) {
        pp_conn_body_settle(conn);
    }
    r->extra_fields = loop->settings.extra_fields;
    r->extra_count = loop->settings.extra_count;
    r->date = pp_loop_date(loop);
    r->server = loop->settings.server_header;
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
    pp_stats_response(&loop->slot->counters, r->status);
    if (conn->closed || conn->state != PP_CONN_SERVE) {
        rc = PP_OK;
    } else if (r->complete) {
        if (conn->h1.framing != PP_H1_FRAME_NONE && r->body_bytes > 0) {
            rc = pp_conn_out_bytes_of(conn, data, (size_t)r->body_bytes, owner, borrowed);
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
    pp_stats_response(&conn->loop->slot->counters, status);
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
