/* epoll behind poll.h. Called by the loop's owning thread only. */
#include "net/poll.h"
#include "net/sys.h"

#include <errno.h>

/* What foreign descriptors may be registered for. */
static uint32_t wished(uint32_t events)
{
    return ((events & PP_POLL_READ) != 0 ? (uint32_t)EPOLLIN : 0) |
           ((events & PP_POLL_WRITE) != 0 ? (uint32_t)EPOLLOUT : 0);
}

static uint32_t neutral(uint32_t events)
{
    const uint32_t other = ~(uint32_t)(EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLRDHUP);
    return ((events & EPOLLIN) != 0 ? PP_POLL_READ : 0) |
           ((events & EPOLLOUT) != 0 ? PP_POLL_WRITE : 0) |
           ((events & EPOLLERR) != 0 ? PP_POLL_ERROR : 0) |
           ((events & EPOLLHUP) != 0 ? PP_POLL_HANG_UP | PP_POLL_PEER_SHUT : 0) |
           ((events & EPOLLRDHUP) != 0 ? PP_POLL_PEER_SHUT : 0) |
           ((events & other) != 0 ? PP_POLL_OTHER : 0);
}

static int ctl(int poll_fd, int op, int fd, uint32_t events, uint64_t data)
{
    struct epoll_event ev = {.events = events, .data.u64 = data};
    return pp_sys_epoll_ctl(poll_fd, op, fd, &ev) == 0 ? PP_OK : PP_ERR_SYSTEM;
}

int pp_poll_open(int *poll_fd)
{
    int fd = pp_sys_epoll_create1(EPOLL_CLOEXEC);
    if (fd < 0) {
        return PP_ERR_SYSTEM;
    }
    *poll_fd = fd;
    return PP_OK;
}

int pp_poll_add_conn(int poll_fd, int fd, void *conn)
{
    PP_ASSERT(((uintptr_t)conn & 3) == 0);
    return ctl(poll_fd, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
               (uint64_t)(uintptr_t)conn | PP_POLL_CONN);
}

int pp_poll_add_listener(int poll_fd, int fd, void *listener, bool exclusive)
{
    PP_ASSERT(((uintptr_t)listener & 3) == 0);
    return ctl(poll_fd, EPOLL_CTL_ADD, fd, EPOLLIN | (exclusive ? EPOLLEXCLUSIVE : 0u),
               (uint64_t)(uintptr_t)listener | PP_POLL_LISTENER);
}

int pp_poll_add_wake(int poll_fd, int fd)
{
    /* Edge-triggered: every write to the eventfd is an edge, so it never has to be read. */
    return ctl(poll_fd, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLET, PP_POLL_WAKE);
}

int pp_poll_add_inbox(int poll_fd, int fd)
{
    return ctl(poll_fd, EPOLL_CTL_ADD, fd, EPOLLIN, PP_POLL_INBOX);
}

int pp_poll_add_foreign(int poll_fd, int fd, uint32_t events)
{
    return ctl(poll_fd, EPOLL_CTL_ADD, fd, wished(events),
               (uint64_t)(uint32_t)fd << 2 | PP_POLL_FOREIGN);
}

int pp_poll_mod_foreign(int poll_fd, int fd, uint32_t events)
{
    return ctl(poll_fd, EPOLL_CTL_MOD, fd, wished(events),
               (uint64_t)(uint32_t)fd << 2 | PP_POLL_FOREIGN);
}

int pp_poll_del(int poll_fd, int fd)
{
    return ctl(poll_fd, EPOLL_CTL_DEL, fd, 0, 0);
}

int pp_poll_wait(int poll_fd, struct pp_poll_event *events, int max, int timeout_ms, int *count)
{
    struct epoll_event found[PP_POLL_EVENTS];
    PP_ASSERT(max <= PP_POLL_EVENTS);
    int n = pp_sys_epoll_wait(poll_fd, found, max, timeout_ms);
    if (n < 0) {
        if (errno != EINTR) {
            return PP_ERR_SYSTEM;
        }
        n = 0; /* the caller has signal handlers to run */
    }
    for (int i = 0; i < n; i++) {
        events[i] =
            (struct pp_poll_event){.data = found[i].data.u64, .events = neutral(found[i].events)};
    }
    *count = n;
    return PP_OK;
}
