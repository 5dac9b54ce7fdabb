/* epoll behind poll.h. Called by the loop's owning thread only. */
#include "net/poll.h"
#include "net/quick.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

static int ctl(int epoll_fd, int op, int fd, uint32_t events, uint64_t data)
{
    struct epoll_event ev = {.events = events, .data.u64 = data};
    return epoll_ctl(epoll_fd, op, fd, &ev) == 0 ? PP_OK : PP_ERR_SYSTEM;
}

int pp_poll_open(int *epoll_fd)
{
    int fd = epoll_create1(EPOLL_CLOEXEC);
    if (fd < 0) {
        return PP_ERR_SYSTEM;
    }
    *epoll_fd = fd;
    return PP_OK;
}

int pp_poll_add_conn(int epoll_fd, int fd, void *conn)
{
    PP_ASSERT(((uintptr_t)conn & 3) == 0);
    return ctl(epoll_fd, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
               (uint64_t)(uintptr_t)conn | PP_POLL_CONN);
}

int pp_poll_add_listener(int epoll_fd, int fd, void *listener, bool exclusive)
{
    PP_ASSERT(((uintptr_t)listener & 3) == 0);
    return ctl(epoll_fd, EPOLL_CTL_ADD, fd, EPOLLIN | (exclusive ? EPOLLEXCLUSIVE : 0u),
               (uint64_t)(uintptr_t)listener | PP_POLL_LISTENER);
}

int pp_poll_add_wake(int epoll_fd, int fd)
{
    /* Edge-triggered: every write to the eventfd is an edge, so it never has to be read. */
    return ctl(epoll_fd, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLET, PP_POLL_WAKE);
}

int pp_poll_add_inbox(int epoll_fd, int fd)
{
    return ctl(epoll_fd, EPOLL_CTL_ADD, fd, EPOLLIN, PP_POLL_INBOX);
}

int pp_poll_add_foreign(int epoll_fd, int fd, uint32_t events)
{
    return ctl(epoll_fd, EPOLL_CTL_ADD, fd, events, (uint64_t)(uint32_t)fd << 2 | PP_POLL_FOREIGN);
}

int pp_poll_mod_foreign(int epoll_fd, int fd, uint32_t events)
{
    return ctl(epoll_fd, EPOLL_CTL_MOD, fd, events, (uint64_t)(uint32_t)fd << 2 | PP_POLL_FOREIGN);
}

int pp_poll_del(int epoll_fd, int fd)
{
    return ctl(epoll_fd, EPOLL_CTL_DEL, fd, 0, 0);
}

int pp_poll_wait(int epoll_fd, struct epoll_event *events, int max, int timeout_ms, int *count)
{
    int n = pp_quick_epoll_wait(epoll_fd, events, max, timeout_ms);
    if (n < 0) {
        if (errno != EINTR) {
            return PP_ERR_SYSTEM;
        }
        n = 0; /* the caller has signal handlers to run */
    }
    *count = n;
    return PP_OK;
}
