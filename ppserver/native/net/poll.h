/* The kernel's event queue of a loop: who is registered, and how an event tells its owner. Nothing
 * outside of poll_epoll.c knows that it is epoll.
 *
 * The data word of an event is a tagged pointer (connections, listeners), a descriptor number
 * (foreign ones) or nothing (the wake-up, the inbox). Connections are registered once,
 * edge-triggered, for everything, so that no request costs a system call of its own here; the
 * others are level-triggered. */
#ifndef PP_NET_POLL_H
#define PP_NET_POLL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/err.h"
#include "base/limits.h"

/* What an event says. */
#define PP_POLL_READ 1u  /* there is something to receive, or to accept */
#define PP_POLL_WRITE 2u /* there is room to send */
#define PP_POLL_ERROR 4u
#define PP_POLL_HANG_UP 8u    /* both directions are shut */
#define PP_POLL_PEER_SHUT 16u /* the peer sends no more; always with HANG_UP */
#define PP_POLL_OTHER 32u     /* what the kernel may say beside; of foreign descriptors */

struct pp_poll_event {
    uint64_t data;
    uint32_t events; /* PP_POLL_* */
};

enum pp_poll_tag { PP_POLL_CONN, PP_POLL_LISTENER, PP_POLL_WAKE, PP_POLL_FOREIGN };
#define PP_POLL_INBOX (UINT64_C(4) | PP_POLL_WAKE) /* a whole data word: the tag has two bits */

static inline enum pp_poll_tag pp_poll_tag(const struct pp_poll_event *ev)
{
    return (enum pp_poll_tag)(ev->data & 3);
}
static inline void *pp_poll_ptr(const struct pp_poll_event *ev)
{
    return (void *)(uintptr_t)(ev->data & ~(uint64_t)3);
}
static inline int pp_poll_fd(const struct pp_poll_event *ev)
{
    return (int)(ev->data >> 2);
}

/* All: PP_OK or SYSTEM with errno. poll_fd: a descriptor that becomes readable with an event. */
int pp_poll_open(int *poll_fd) PP_MUST_USE;
int pp_poll_add_conn(int poll_fd, int fd, void *conn) PP_MUST_USE;
int pp_poll_add_listener(int poll_fd, int fd, void *listener, bool exclusive) PP_MUST_USE;
int pp_poll_add_wake(int poll_fd, int fd) PP_MUST_USE;
int pp_poll_add_inbox(int poll_fd, int fd) PP_MUST_USE;
int pp_poll_add_foreign(int poll_fd, int fd, uint32_t events) PP_MUST_USE;
int pp_poll_mod_foreign(int poll_fd, int fd, uint32_t events) PP_MUST_USE;
int pp_poll_del(int poll_fd, int fd);
/* *count events; 0 of them also when a signal came. */
/* max <= PP_POLL_EVENTS. */
int pp_poll_wait(int poll_fd, struct pp_poll_event *events, int max, int timeout_ms,
                 int *count) PP_MUST_USE;

#endif
