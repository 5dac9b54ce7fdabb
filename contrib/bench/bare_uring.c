/* bare_uring.c: bare.c with io_uring in the place of epoll, to tell what a back end on it could
 * win.
 *
 * One ring a worker. Connections come from one multishot accept. The first request of a connection
 * is received by a single shot, so that a connection which ends with it has nothing to be taken
 * back; then a multishot receive stays. Both take buffers from a ring of them. Sends go out with
 * the next wait: a turn of the loop is one system call, however many requests it has.
 *
 * Usage: bare_uring PORT [WORKERS]
 */
#define _GNU_SOURCE
#include <errno.h>
#include <liburing.h>
#include <stdint.h>
#include <sys/mman.h>

#include "bare.h"

enum { ENTRIES = 4096, BUFFERS = 2048, BUFFER_BYTES = 4096, GROUP = 0 };

/* What a completion is of: the low bits of its user_data. The connection is above them. */
enum { ACCEPT, RECEIVE, SEND, IGNORE, KINDS };

static struct io_uring ring;
static struct io_uring_buf_ring *buffers;
static char *memory;
static int listen_fd;

static struct io_uring_sqe *entry(void)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
    if (sqe == NULL) { /* The queue is full. */
        if (io_uring_submit(&ring) < 0 || (sqe = io_uring_get_sqe(&ring)) == NULL)
            fail("io_uring_submit");
    }
    return sqe;
}

static void tag(struct io_uring_sqe *sqe, const struct conn *conn, unsigned kind)
{
    io_uring_sqe_set_data64(sqe, (uint64_t)(uintptr_t)conn | kind);
}

static void accept_all(void)
{
    struct io_uring_sqe *sqe = entry();
    io_uring_prep_multishot_accept(sqe, listen_fd, NULL, NULL, SOCK_CLOEXEC);
    tag(sqe, NULL, ACCEPT);
}

static void receive(struct conn *conn, bool multishot)
{
    struct io_uring_sqe *sqe = entry();
    if (multishot)
        io_uring_prep_recv_multishot(sqe, conn->fd, NULL, 0, 0);
    else
        io_uring_prep_recv(sqe, conn->fd, NULL, BUFFER_BYTES, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = GROUP;
    tag(sqe, conn, RECEIVE);
    conn->receiving = true;
}

/* Nothing of it is in the ring when it is freed. */
static void drop(struct conn *conn)
{
    conn->closing = true;
    if (conn->receiving && !conn->cancelled) {
        struct io_uring_sqe *sqe = entry();
        io_uring_prep_cancel64(sqe, (uint64_t)(uintptr_t)conn | RECEIVE, 0);
        tag(sqe, NULL, IGNORE);
        conn->cancelled = true;
    }
    if (conn->receiving || conn->writing)
        return;
    struct io_uring_sqe *sqe = entry();
    io_uring_prep_close(sqe, conn->fd);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    tag(sqe, NULL, IGNORE);
    free(conn);
}

/* Sends what is queued: first out, then the tail, one at a time. False if there is nothing. */
static bool flush(struct conn *conn)
{
    const char *data = conn->out + conn->out_sent;
    size_t bytes = conn->out_bytes - conn->out_sent;
    if (bytes == 0) {
        data = conn->tail;
        bytes = conn->tail_bytes;
    }
    if (bytes == 0)
        return false;
    struct io_uring_sqe *sqe = entry();
    io_uring_prep_send(sqe, conn->fd, data, bytes, MSG_NOSIGNAL);
    tag(sqe, conn, SEND);
    conn->writing = true;
    return true;
}

static void on_accept(const struct io_uring_cqe *cqe)
{
    if (cqe->res >= 0)
        receive(conn_new(cqe->res), false);
    if (!(cqe->flags & IORING_CQE_F_MORE))
        accept_all();
}

static void give_back(unsigned id)
{
    io_uring_buf_ring_add(buffers, memory + (size_t)id * BUFFER_BYTES, BUFFER_BYTES,
                          (unsigned short)id, io_uring_buf_ring_mask(BUFFERS), 0);
    io_uring_buf_ring_advance(buffers, 1);
}

static void on_received(struct conn *conn, const struct io_uring_cqe *cqe)
{
    bool fits = true;
    if (cqe->flags & IORING_CQE_F_BUFFER) {
        unsigned id = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
        fits = cqe->res <= (int)(IN_BYTES - conn->in_bytes);
        if (cqe->res > 0 && fits) {
            memcpy(conn->in + conn->in_bytes, memory + (size_t)id * BUFFER_BYTES, (size_t)cqe->res);
            conn->in_bytes += (size_t)cqe->res;
        }
        give_back(id);
    }
    conn->receiving = cqe->flags & IORING_CQE_F_MORE;
    if (!fits || (cqe->res <= 0 && cqe->res != -ENOBUFS)) {
        drop(conn);
        return;
    }
    if (!conn->closing)
        consume(conn);
    if (!conn->receiving && !conn->closing)
        receive(conn, true);
    if (!conn->writing && !flush(conn) && conn->closing)
        drop(conn);
}

static void on_sent(struct conn *conn, const struct io_uring_cqe *cqe)
{
    conn->writing = false;
    if (cqe->res < 0) {
        drop(conn);
        return;
    }
    if (conn->out_sent < conn->out_bytes) {
        conn->out_sent += (size_t)cqe->res;
    } else {
        conn->tail += cqe->res;
        conn->tail_bytes -= (size_t)cqe->res;
    }
    if (flush(conn))
        return;
    conn->out_sent = conn->out_bytes = 0;
    conn->tail = NULL;
    if (!conn->closing)
        consume(conn);
    if (!flush(conn) && conn->closing)
        drop(conn);
}

static void set_up(void)
{
    struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER |
                                              IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE,
                                     .cq_entries = 4 * ENTRIES};
    int rc = io_uring_queue_init_params(ENTRIES, &ring, &params);
    if (rc < 0) {
        errno = -rc;
        fail("io_uring_queue_init_params");
    }
    size_t bytes = BUFFERS * sizeof(struct io_uring_buf);
    buffers = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memory = malloc((size_t)BUFFERS * BUFFER_BYTES);
    if (buffers == MAP_FAILED || memory == NULL)
        fail("buffers");
    struct io_uring_buf_reg reg = {
        .ring_addr = (uintptr_t)buffers, .ring_entries = BUFFERS, .bgid = GROUP};
    if (io_uring_register_buf_ring(&ring, &reg, 0) != 0)
        fail("io_uring_register_buf_ring");
    io_uring_buf_ring_init(buffers);
    for (unsigned id = 0; id < BUFFERS; id++)
        give_back(id);
}

int main(int argc, char **argv)
{
    listen_fd = serve(argc, argv);
    set_up();
    accept_all();
    for (;;) {
        struct io_uring_cqe *cqe;
        unsigned head, seen = 0;
        int rc = io_uring_submit_and_wait(&ring, 1);
        if (rc < 0 && rc != -EINTR) {
            errno = -rc;
            fail("io_uring_submit_and_wait");
        }
        refresh_answers();
        io_uring_for_each_cqe(&ring, head, cqe)
        {
            struct conn *conn = (struct conn *)(uintptr_t)(cqe->user_data & ~(uint64_t)(KINDS - 1));
            seen++;
            switch (cqe->user_data & (KINDS - 1)) {
            case ACCEPT:
                on_accept(cqe);
                break;
            case RECEIVE:
                on_received(conn, cqe);
                break;
            case SEND:
                on_sent(conn, cqe);
                break;
            default:
                break;
            }
        }
        io_uring_cq_advance(&ring, seen);
    }
}
