/* The epoll descriptor of a loop: who is registered and how an event tells its owner.
 *
 * The data word of an event is a tagged pointer (connections, listeners), a descriptor number
 * (foreign ones) or nothing (the wake-up, the inbox). Connections are registered once,
 * edge-triggered, for everything, so that no request costs an epoll_ctl; the others are
 * level-triggered. */
#ifndef PP_NET_POLL_H
#define PP_NET_POLL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "base/assert.h"
#include "base/err.h"

enum pp_poll_tag { PP_POLL_CONN, PP_POLL_LISTENER, PP_POLL_WAKE, PP_POLL_FOREIGN };
#define PP_POLL_INBOX (UINT64_C(4) | PP_POLL_WAKE) /* a whole data word: the tag has two bits */

static inline enum pp_poll_tag pp_poll_tag(const struct epoll_event *ev)
{
    return (enum pp_poll_tag)(ev->data.u64 & 3);
}
static inline void *pp_poll_ptr(const struct epoll_event *ev)
{
    return (void *)(uintptr_t)(ev->data.u64 & ~(uint64_t)3);
}
static inline int pp_poll_fd(const struct epoll_event *ev)
{
    return (int)(ev->data.u64 >> 2);
}

/* All: PP_OK or SYSTEM with errno. */
int pp_poll_open(int *epoll_fd) PP_MUST_USE;
int pp_poll_add_conn(int epoll_fd, int fd, void *conn) PP_MUST_USE;
int pp_poll_add_listener(int epoll_fd, int fd, void *listener, bool exclusive) PP_MUST_USE;
int pp_poll_add_wake(int epoll_fd, int fd) PP_MUST_USE;
int pp_poll_add_inbox(int epoll_fd, int fd) PP_MUST_USE;
int pp_poll_add_foreign(int epoll_fd, int fd, uint32_t events) PP_MUST_USE;
int pp_poll_mod_foreign(int epoll_fd, int fd, uint32_t events) PP_MUST_USE;
int pp_poll_del(int epoll_fd, int fd);
/* *count events; 0 of them also when a signal came. */
int pp_poll_wait(int epoll_fd, struct epoll_event *events, int max, int timeout_ms,
                 int *count) PP_MUST_USE;

#endif
