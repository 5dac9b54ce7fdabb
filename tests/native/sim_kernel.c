/* The kernel of sim_kernel.h. Edges are those of epoll: something arrives, room comes after a send
 * that found none, an end; what is reported is the state at the time of the wait. An edge that is
 * not followed up by reading to the end does not come again. */
#include "sim_kernel.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>

#include "net/sys.h"

#define EPOLL_FD 4
#define EVENT_FD 5
#define NULL_FD 6

struct sim sim;
static bool listening, event_woken;
static uint64_t listen_data, event_data;

void sim_reset(void)
{
    for (int i = 0; i < SIM_CONNS; i++) {
        struct sim_conn *c = &sim.conns[i];
        memset(c, 0, offsetof(struct sim_conn, in));
        c->in_len = c->out_len = 0;
    }
    sim.now_us = 1000000000;
    sim.open_count = 0;
    listening = event_woken = false;
}

static struct sim_conn *conn_of(int fd)
{
    CHECK(fd >= SIM_CONN_FD && fd < SIM_CONN_FD + SIM_CONNS);
    struct sim_conn *c = &sim.conns[fd - SIM_CONN_FD];
    CHECK(c->accepted && !c->closed);
    return c;
}

static int fail(int error)
{
    errno = error;
    return -1;
}

/* ---- the client's side ---- */

size_t sim_client_send(struct sim_conn *c, const void *data, size_t len, bool beyond)
{
    size_t cap = beyond ? SIM_BYTES : c->in_cap;
    size_t n = c->in_len >= cap ? 0 : len < cap - c->in_len ? len : cap - c->in_len;
    if (c->closed || c->reset || n == 0) {
        return 0;
    }
    memcpy(c->in + c->in_len, data, n);
    c->in_len += n;
    c->woken = true;
    return n;
}

size_t sim_client_recv(struct sim_conn *c, void *to, size_t room)
{
    size_t n = c->out_len < room ? c->out_len : room;
    memcpy(to, c->out, n);
    memmove(c->out, c->out + n, c->out_len - n);
    c->out_len -= n;
    if (n > 0 && c->no_space && c->out_len <= c->out_cap * 2 / 3) {
        c->no_space = false;
        c->woken = true;
    }
    return n;
}

void sim_client_shut(struct sim_conn *c)
{
    c->fin = c->woken = true;
}

void sim_client_reset(struct sim_conn *c)
{
    c->reset = c->woken = true;
    c->in_len = c->out_len = 0;
}

/* ---- what net/ asks ---- */

ssize_t pp_sys_recv(int fd, void *buf, size_t len, int flags)
{
    struct sim_conn *c = conn_of(fd);
    if (c->reset) {
        return fail(ECONNRESET);
    }
    size_t n = c->in_len < len ? c->in_len : len;
    if (n == 0) {
        return c->fin ? 0 : fail(EAGAIN);
    }
    memcpy(buf, c->in, n);
    memmove(c->in, c->in + n, c->in_len - n);
    c->in_len -= n;
    return (ssize_t)n;
}

ssize_t pp_sys_send(int fd, const void *buf, size_t len, int flags)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    return pp_sys_sendmsg(fd, &msg, flags);
}

ssize_t pp_sys_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    struct sim_conn *c = conn_of(fd);
    size_t put = 0;
    CHECK(!c->shut);
    if (c->reset) {
        return fail(EPIPE);
    }
    for (size_t i = 0; i < msg->msg_iovlen; i++) {
        size_t room = c->out_cap - c->out_len, len = msg->msg_iov[i].iov_len;
        size_t n = len < room ? len : room;
        memcpy(c->out + c->out_len, msg->msg_iov[i].iov_base, n);
        c->out_len += n;
        put += n;
        if (n < len) {
            c->no_space = true;
            break;
        }
    }
    return put > 0 ? (ssize_t)put : fail(EAGAIN);
}

ssize_t pp_sys_sendfile(int fd, int file, off_t *offset, size_t len)
{
    return fail(ENOSYS);
}

ssize_t pp_sys_read(int fd, void *buf, size_t len)
{
    return fail(ENOSYS);
}

ssize_t pp_sys_write(int fd, const void *buf, size_t len)
{
    CHECK_EQ(fd, EVENT_FD);
    event_woken = true;
    return (ssize_t)len;
}

int pp_sys_open(const char *path, int flags, ...)
{
    CHECK(strcmp(path, "/dev/null") == 0);
    sim.open_count++;
    return NULL_FD;
}

int pp_sys_close(int fd)
{
    if (fd >= SIM_CONN_FD) {
        struct sim_conn *c = conn_of(fd);
        c->closed = true;
        c->registered = false;
    }
    CHECK(sim.open_count > 0);
    sim.open_count--;
    return 0;
}

int pp_sys_fcntl(int fd, int cmd, ...)
{
    return cmd == F_GETFL ? O_NONBLOCK : 0;
}

int pp_sys_ioctl(int fd, unsigned long what, ...)
{
    const struct sim_conn *c = conn_of(fd);
    va_list args;
    va_start(args, what);
    *va_arg(args, int *) = (int)(what == SIOCOUTQ ? c->out_len : sim.deaf ? 0 : c->in_len);
    va_end(args);
    return 0;
}

int pp_sys_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
    for (int i = 0; i < SIM_CONNS; i++) {
        struct sim_conn *c = &sim.conns[i];
        if (c->waits) {
            c->waits = false;
            c->accepted = true;
            sim.open_count++;
            (void)pp_sys_getsockname(fd, addr, len);
            return SIM_CONN_FD + i;
        }
    }
    return fail(EAGAIN);
}

int pp_sys_connect(int fd, const struct sockaddr *addr, socklen_t len)
{
    return 0; /* AF_UNSPEC: a reset */
}

int pp_sys_shutdown(int fd, int how)
{
    conn_of(fd)->shut = true;
    return 0;
}

int pp_sys_getsockname(int fd, struct sockaddr *addr, socklen_t *len)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    memcpy(addr, &here, sizeof here);
    *len = sizeof here;
    return 0;
}

int pp_sys_getpeername(int fd, struct sockaddr *addr, socklen_t *len)
{
    return pp_sys_getsockname(fd, addr, len);
}

int pp_sys_getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
    memset(value, 0, *len);
    if (level == SOL_SOCKET && name == SO_TYPE) {
        *(int *)value = SOCK_STREAM;
    }
    return 0;
}

int pp_sys_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    return 0;
}

int pp_sys_eventfd(unsigned value, int flags)
{
    sim.open_count++;
    return EVENT_FD;
}

int pp_sys_clock_gettime(clockid_t clock, struct timespec *now)
{
    now->tv_sec = (time_t)(sim.now_us / 1000000);
    now->tv_nsec = (long)(sim.now_us % 1000000) * 1000;
    return 0;
}

/* ---- epoll ---- */

static uint32_t state_of(const struct sim_conn *c)
{
    return (c->in_len > 0 || c->fin || c->reset ? (uint32_t)EPOLLIN : 0) |
           (c->out_len <= c->out_cap * 2 / 3 || c->reset ? (uint32_t)EPOLLOUT : 0) |
           (c->fin || c->reset ? (uint32_t)EPOLLRDHUP : 0) |
           ((c->fin && c->shut) || c->reset ? (uint32_t)EPOLLHUP : 0) |
           (c->reset ? (uint32_t)EPOLLERR : 0);
}

int pp_sys_epoll_create1(int flags)
{
    sim.open_count++;
    return EPOLL_FD;
}

int pp_sys_epoll_ctl(int fd, int op, int target, struct epoll_event *event)
{
    if (target == SIM_LISTENER) {
        listening = op != EPOLL_CTL_DEL;
        listen_data = event->data.u64;
    } else if (target == EVENT_FD) {
        event_data = event->data.u64;
    } else {
        struct sim_conn *c = conn_of(target);
        c->registered = op != EPOLL_CTL_DEL;
        c->woken = true;
        c->data = event->data.u64;
    }
    return 0;
}

int pp_sys_epoll_wait(int fd, struct epoll_event *events, int max, int timeout_ms)
{
    int count = 0;
    bool waits = false;
    for (int i = 0; i < SIM_CONNS; i++) {
        struct sim_conn *c = &sim.conns[i];
        waits |= c->waits;
        if (c->registered && c->woken && state_of(c) != 0) {
            c->woken = false;
            events[count++] = (struct epoll_event){.events = state_of(c), .data.u64 = c->data};
        }
    }
    if (listening && waits) {
        events[count++] = (struct epoll_event){.events = EPOLLIN, .data.u64 = listen_data};
    }
    if (event_woken) {
        event_woken = false;
        events[count++] = (struct epoll_event){.events = EPOLLIN, .data.u64 = event_data};
    }
    CHECK(count <= max);
    if (sim.idle != NULL) {
        sim.idle();
    }
    return count;
}
