/* bare.c: the least a server can do, as the floor that the other figures are compared with.
 *
 * One thread a worker, one epoll descriptor, HTTP/1.1 keep-alive and pipelining, three fixed
 * answers (/plain, /json, /big) with the Date, Server, Content-Type and Content-Length fields that
 * a real server sends. Requests are recognised by their empty line and their first line alone; a
 * request that announces a body is refused with 501 and the connection closed. No timeouts, no
 * logging, no limits but the buffer: this is a measuring instrument and must never face a network.
 *
 * Usage: bare PORT [WORKERS], the workers forked, each with a socket of its own (SO_REUSEPORT).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/epoll.h>
#include <sys/uio.h>

#include "bare.h"

static int epoll_fd;

static void drop(struct conn *conn)
{
    close(conn->fd);
    free(conn);
}

/* Sends what is queued. False when the connection is gone. */
static bool flush(struct conn *conn)
{
    while (conn->out_sent < conn->out_bytes || conn->tail_bytes > 0) {
        struct iovec iov[2] = {
            {conn->out + conn->out_sent, conn->out_bytes - conn->out_sent},
            {(char *)conn->tail, conn->tail_bytes},
        };
        struct msghdr msg = {.msg_iov = iov, .msg_iovlen = conn->tail_bytes > 0 ? 2 : 1};
        ssize_t sent = sendmsg(conn->fd, &msg, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0) {
            if (errno == EAGAIN)
                return true;
            drop(conn);
            return false;
        }
        size_t from_out = conn->out_bytes - conn->out_sent;
        if ((size_t)sent < from_out)
            from_out = (size_t)sent;
        conn->out_sent += from_out;
        conn->tail += (size_t)sent - from_out;
        conn->tail_bytes -= (size_t)sent - from_out;
    }
    conn->out_sent = conn->out_bytes = 0;
    conn->tail = NULL;
    if (conn->closing) {
        drop(conn);
        return false;
    }
    return true;
}

static void arm(struct conn *conn)
{
    bool pending = conn->out_bytes > 0 || conn->tail_bytes > 0;
    if (pending == conn->writing)
        return;
    struct epoll_event event = {.events = pending ? EPOLLOUT : EPOLLIN, .data.ptr = conn};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, conn->fd, &event) < 0)
        fail("epoll_ctl");
    conn->writing = pending;
}

static void on_ready(struct conn *conn)
{
    if (!conn->writing) {
        ssize_t got = recv(conn->fd, conn->in + conn->in_bytes, IN_BYTES - conn->in_bytes, 0);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (got <= 0) {
            drop(conn);
            return;
        }
        conn->in_bytes += (size_t)got;
        consume(conn);
    }
    if (!flush(conn))
        return;
    while (conn->in_bytes > 0 && conn->out_bytes == 0 && conn->tail_bytes == 0) {
        consume(conn);
        if (conn->out_bytes == 0)
            break;
        if (!flush(conn))
            return;
    }
    arm(conn);
}

static void on_accept(int listen_fd)
{
    for (;;) {
        int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        struct conn *conn = conn_new(fd);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = conn};
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
            fail("epoll_ctl");
    }
}

int main(int argc, char **argv)
{
    int listen_fd = serve(argc, argv);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &event) < 0)
        fail("epoll");

    for (;;) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(epoll_fd, events, EVENTS, -1);
        if (count < 0 && errno != EINTR)
            fail("epoll_wait");
        refresh_answers();
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr == NULL)
                on_accept(listen_fd);
            else
                on_ready(events[i].data.ptr);
        }
    }
}
