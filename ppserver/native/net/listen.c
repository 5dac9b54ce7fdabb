/* Accepting connections. Loop's thread only.
 *
 * A listener is level-triggered and gives at most PP_ACCEPT_BATCH connections per turn, so that a
 * storm of new peers does not starve the old ones. Out of descriptors or memory: the listener
 * leaves epoll for PP_ACCEPT_PAUSE_MS (or the level-triggered event would spin); peers wait in the
 * kernel's queue meanwhile. When a whole pause has brought nothing, the reserve descriptor is given
 * up to take waiting connections and close them, which tells those peers at once, and is then
 * opened again. */
#include <errno.h>
#include <limits.h>

#include "net/conn.h"
#include "net/listen.h"
#include "net/sys.h"

#define SHED_BATCH 16
#define SHARED_BATCH 4 /* of a socket that is others' as much, when nothing else spreads them */
#define REQUEUE_BATCHES 16

int pp_loop_listen(struct pp_loop *loop, int fd, enum pp_listen_kind kind, uint16_t tag)
{
    PP_LOOP_ENTER(loop);
    int rc = pp_sock_prepare_listen(fd, loop->settings.silent_ms, loop->settings.write_ms);
    if (rc != PP_OK) {
        return rc;
    }
    struct pp_listener *listener = pp_mem_zalloc(sizeof *listener);
    if (listener == NULL) {
        errno = ENOMEM;
        return PP_ERR_NO_MEMORY;
    }
    listener->magic = PP_LISTENER_MAGIC;
    listener->fd = fd;
    listener->kind = kind;
    listener->tag = tag;
    pp_list_init(&listener->link);
    pp_sock_local(fd, &listener->local);
    if (pp_sock_wildcard(&listener->local)) {
        listener->local.family = AF_UNSPEC;
    }
    pp_loop_foreign_reused(loop, fd);
    rc = pp_poll_add_listener(loop->poll_fd, fd, listener, kind != PP_LISTEN_ALONE);
    if (rc != PP_OK) {
        listener->magic = 0;
        pp_mem_free(listener, sizeof *listener);
        return rc;
    }
    pp_list_push(&loop->listeners, &listener->link);
    return PP_OK;
}

void pp_loop_unlisten(struct pp_loop *loop)
{
    struct pp_list *n;
    PP_LOOP_ENTER(loop);
    PP_CHECK(!loop->turning); /* an event of the turn may still point to a listener */
    while ((n = pp_list_pop(&loop->listeners)) != NULL) {
        struct pp_listener *listener = PP_CONTAINER(n, struct pp_listener, link);
        if (!listener->paused) {
            (void)pp_poll_del(loop->poll_fd, listener->fd);
        }
        listener->magic = 0;
        pp_mem_free(listener, sizeof *listener);
    }
    loop->accept_resume_ms = 0;
}

/* Takes waiting connections only to hand them to another context, or to close them. True when at
 * least one was. */
static bool shed(struct pp_loop *loop, struct pp_listener *listener)
{
    union pp_sock_addr peer;
    bool any = false, gone = false;
    int fd = -1;

    for (int i = 0; i < SHED_BATCH && loop->reserve_fd >= 0; i++) {
        (void)pp_sys_close(loop->reserve_fd);
        loop->reserve_fd = -1;
        int rc = pp_sock_accept(listener->fd, &fd, &peer, &gone);
        any |= rc == PP_OK;
        if (rc == PP_OK &&
            pp_balance_pass_on(loop, fd, &peer, &listener->local, listener->tag, 0)) {
            pp_stats_add(&loop->slot->counters.accepted, 1);
            pp_stats_add(&pp_loop_tagged(loop, listener->tag)->accepted, 1);
        } else if (rc == PP_OK) {
            pp_stats_error(&loop->slot->counters, PP_ERR_NO_DESCRIPTORS);
            pp_sock_close(fd);
        }
        loop->reserve_fd = pp_sys_open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (rc != PP_OK) {
            break;
        }
    }
    return any;
}

static void accept_pause(struct pp_loop *loop, struct pp_listener *listener)
{
    if (listener->paused) {
        return;
    }
    (void)pp_poll_del(loop->poll_fd, listener->fd);
    listener->paused = true;
    pp_stats_add(&loop->slot->counters.accept_pauses, 1);
    if (loop->accept_resume_ms == 0) {
        loop->accept_resume_ms = loop->now_ms + PP_ACCEPT_PAUSE_MS;
    }
}

/* One failure of accept; false: stop this batch. */
static bool accept_failed(struct pp_loop *loop, struct pp_listener *listener, int rc)
{
    if (rc != PP_ERR_SYSTEM || listener->kind != PP_LISTEN_NEIGHBOUR) {
        pp_stats_add(&loop->slot->counters.accept_errors, 1);
    }
    if (rc == PP_ERR_SYSTEM) {
        listener->broken = true; /* closed under us: nothing will come of it again */
        (void)pp_poll_del(loop->poll_fd, listener->fd);
        listener->paused = true;
        if (listener->kind != PP_LISTEN_NEIGHBOUR) { /* whose context may be gone for good */
            pp_stats_error(&loop->slot->counters, PP_ERR_SYSTEM);
        }
        return false;
    }
    if (rc == PP_ERR_NO_DESCRIPTORS && listener->starved) {
        (void)shed(loop, listener);
    }
    listener->starved = true;
    if (rc == PP_ERR_NO_DESCRIPTORS) {
        pp_balance_block(loop, PP_SLOT_NO_DESCRIPTORS);
    }
    accept_pause(loop, listener);
    return false;
}

/* To the least loaded context, which mostly is the one that came to accept. */
static void accepted(struct pp_loop *loop, const struct pp_listener *listener, int fd,
                     const union pp_sock_addr *peer)
{
    pp_stats_add(&loop->slot->counters.accepted, 1);
    pp_stats_add(&pp_loop_tagged(loop, listener->tag)->accepted, 1);
    loop->balance.accepts++;
    int target = pp_balance_choose(loop, loop->now_us);
    if (target < 0 ||
        !pp_balance_give(loop, (unsigned)target, fd, peer, &listener->local, listener->tag, 0)) {
        pp_conn_open(loop, fd, peer, &listener->local, listener->tag, 0);
    }
}

int pp_loop_bring(struct pp_loop *loop, int fd, uint16_t tag)
{
    union pp_sock_addr peer, local;
    PP_LOOP_ENTER(loop);
    int rc = pp_sock_peer(fd, &peer);
    if (rc != PP_OK) {
        return rc;
    }
    pp_sock_local(fd, &local);
    pp_stats_add(&loop->slot->counters.accepted, 1);
    pp_stats_add(&pp_loop_tagged(loop, tag)->accepted, 1);
    pp_conn_open(loop, fd, &peer, &local, tag, 0);
    return PP_OK;
}

/* Of those in line for a listener the kernel wakes the first that waits. From a neighbour's we go
 * to the end at once, so that its own context is first again; from one that all share now and then,
 * which spreads the work of accepting. */
static void requeue(struct pp_loop *loop, struct pp_listener *listener)
{
    unsigned after = listener->kind == PP_LISTEN_SHARED      ? REQUEUE_BATCHES
                     : listener->kind == PP_LISTEN_NEIGHBOUR ? 1
                                                             : UINT_MAX;
    if (++listener->batches < after || listener->paused) {
        return;
    }
    listener->batches = 0;
    (void)pp_poll_del(loop->poll_fd, listener->fd);
    if (pp_poll_add_listener(loop->poll_fd, listener->fd, listener, true) != PP_OK) {
        listener->paused = true; /* pp_listen_resume tries again */
        loop->accept_resume_ms = loop->now_ms + PP_ACCEPT_PAUSE_MS;
    }
}

void pp_listen_accept(struct pp_loop *loop, struct pp_listener *listener)
{
    union pp_sock_addr peer;
    bool gone = false;
    int fd = -1;

    PP_CHECK(listener->magic == PP_LISTENER_MAGIC);
    if (listener->paused) {
        return;
    }
    if (loop->reserve_fd < 0) {
        loop->reserve_fd = pp_sys_open("/dev/null", O_RDONLY | O_CLOEXEC);
    }
    bool few = listener->kind == PP_LISTEN_NEIGHBOUR ||
               (listener->kind == PP_LISTEN_SHARED && loop->balance.board == NULL);
    int batch = few && !loop->draining ? SHARED_BATCH : PP_ACCEPT_BATCH;
    for (int i = 0; i < batch; i++) {
        int rc = pp_sock_accept(listener->fd, &fd, &peer, &gone);
        if (rc == PP_OK) {
            listener->starved = false;
            accepted(loop, listener, fd, &peer);
        } else if (rc == PP_AGAIN) {
            if (!gone) {
                break;
            }
            pp_stats_add(&loop->slot->counters.accept_errors, 1);
        } else if (!accept_failed(loop, listener, rc)) {
            break;
        }
    }
    requeue(loop, listener);
}

void pp_listen_resume(struct pp_loop *loop)
{
    for (struct pp_list *n = loop->listeners.next; n != &loop->listeners; n = n->next) {
        struct pp_listener *listener = PP_CONTAINER(n, struct pp_listener, link);
        if (!listener->paused || listener->broken) {
            continue;
        }
        if (pp_poll_add_listener(loop->poll_fd, listener->fd, listener,
                                 listener->kind != PP_LISTEN_ALONE) == PP_OK) {
            listener->paused = false;
        } else {
            loop->accept_resume_ms = loop->now_ms + PP_ACCEPT_PAUSE_MS;
        }
    }
}
