/* Output of a connection: queueing, rates, the flush (contract: conn.h). */
#include "net/conn.h"

void pp_conn_out_drop(struct pp_conn *conn)
{
    if (conn->reading != NULL) {
        conn->reading->conn = NULL;
        conn->reading = NULL;
    }
    conn->chunk_read = false;
    pp_out_drop(conn->loop, &conn->out);
}

static int killed_unless(struct pp_conn *conn, int rc)
{
    return PP_LIKELY(rc == PP_OK) ? PP_OK : pp_conn_no_memory(conn);
}

struct pp_out *pp_conn_room(struct pp_conn *conn, size_t need)
{
    struct pp_out *out = pp_out_room(conn->loop, &conn->out, need);
    if (out == NULL) {
        (void)pp_conn_no_memory(conn);
    }
    return out;
}

int pp_conn_copy(struct pp_conn *conn, const void *data, size_t len)
{
    return killed_unless(conn, pp_out_copy(conn->loop, &conn->out, data, len));
}

int pp_conn_bytes_of(struct pp_conn *conn, const uint8_t *data, size_t len, void *owner,
                     bool *borrowed)
{
    return killed_unless(conn, pp_out_bytes_of(conn->loop, &conn->out, data, len, owner, borrowed));
}

int pp_conn_file(struct pp_conn *conn, struct pp_file *file, uint64_t at, uint64_t len)
{
    return killed_unless(conn, pp_out_file(conn->loop, &conn->out, file, at, len));
}

void pp_conn_rate(struct pp_conn *conn, uint32_t bytes_per_second)
{
    conn->rate = bytes_per_second;
    conn->rate_ms = pp_loop_time(conn->loop);
    conn->rate_left = bytes_per_second / PP_RATE_PARTS + 1;
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
        pp_conn_due_set(conn, &conn->rate_due_ms, 1000 / PP_RATE_PARTS / 2);
        conn->write_due_ms = 0; /* it is not the peer that is slow */
    }
    return conn->rate_left;
}

/* The next chunk of the file that is due. PP_AGAIN also while it is being read. */
static int send_file(struct pp_conn *conn, size_t budget, size_t *put)
{
    struct pp_out *out = conn->out.head;
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
    if (conn->out.bytes == 0) {
        conn->write_due_ms = 0;
        pp_conn_out_drop(conn); /* a piece that a refused head has left empty */
    }
    if (PP_LIKELY(conn->state == PP_CONN_OPEN)) {
        conn->proto->flushed(conn);
    } else if (conn->state == PP_CONN_CLOSE && conn->out.bytes == 0) {
        pp_conn_shut(conn);
    }
}

/* What a send has led to; false: no further one now. */
static bool go_on(struct pp_conn *conn, int rc)
{
    if (rc == PP_OK) {
        return true;
    }
    if (rc == PP_AGAIN && conn->reading != NULL) {
        return false;
    }
    if (rc == PP_AGAIN && conn->send_again_left > 0) {
        conn->send_again_left--;
        return true;
    }
    if (rc == PP_AGAIN) {
        conn->writable = false;
        conn->unsent = pp_sock_unsent(conn->fd);
        return false;
    }
    if (rc == PP_ERR_APP_BODY_TOO_SHORT) {
        pp_stats_error(&conn->loop->slot->counters, rc);
        pp_conn_kill(conn, rc, true);
        return false;
    }
    pp_conn_lost(conn);
    return false;
}

void pp_conn_flush(struct pp_conn *conn)
{
    struct iovec iov[PP_OUT_IOVS_MAX];
    size_t budget = PP_CONN_WRITE_BYTES;

    PP_ASSERT(conn->state != PP_CONN_DEAD);
    while (conn->out.bytes > 0 && conn->writable) {
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
        int count = pp_out_gather(&conn->out, iov, room, &more);
        bool from_file = count == 0;
        int rc = from_file ? send_file(conn, budget < room ? budget : room, &put)
                           : pp_sock_send(conn->fd, iov, count, more, &put);
        if (!go_on(conn, rc)) {
            break;
        }
        if (rc == PP_AGAIN) {
            continue;
        }
        pp_stats_add(&conn->loop->slot->counters.bytes_out, put);
        pp_stats_add(&pp_loop_tagged(conn->loop, conn->tag)->bytes_out, put);
        pp_out_advance(conn->loop, &conn->out, put, from_file);
        conn->send_again_left = conn->send_again;
        conn->rate_left -= conn->rate != 0 ? (uint32_t)put : 0;
        conn->write_due_ms = 0;
        budget -= put < budget ? put : budget;
    }
    if (conn->state == PP_CONN_DEAD) {
        return;
    }
    if (conn->out.bytes > 0 && conn->write_due_ms == 0 && conn->reading == NULL &&
        conn->rate_due_ms == 0) {
        pp_conn_write_due(conn, conn->loop->settings.write_ms);
    }
    flush_done(conn);
}
