/* The transport: life, deadlines, receiving (contract: conn.h). Output is in conn_out.c.
 *
 * One timer node per connection, which is moved only when a deadline comes closer; when it fires
 * early it is set again for the rest.
 *
 * A recv that brings less than was asked for has emptied the socket: no second one is made to hear
 * EAGAIN. Only after the peer has shut its side reading goes on until 0. */
#include "net/conn.h"

#include <string.h>

/* ---- states ---- */

const uint8_t pp_conn_next[PP_CONN_NO][PP_CONN_STEPS] = {
#define PP_CONN_ROW_(state, last, shut, gone) \
    [PP_CONN_##state] = {PP_CONN_##last, PP_CONN_##shut, PP_CONN_##gone},
    PP_CONN_STATES(PP_CONN_ROW_)
#undef PP_CONN_ROW_
};

static void pp_conn_step(struct pp_conn *conn, enum pp_conn_step step)
{
    PP_CHECK(conn->state < PP_CONN_NO && pp_conn_next[conn->state][step] != PP_CONN_NO);
    conn->state = pp_conn_next[conn->state][step];
}

void pp_conn_resume_later(struct pp_conn *conn)
{
    if (!pp_list_linked(&conn->resume)) {
        pp_list_push(&conn->loop->resume, &conn->resume);
    }
}

void pp_conn_mark_dirty(struct pp_conn *conn)
{
    if (conn->state != PP_CONN_DEAD && !pp_list_linked(&conn->dirty)) {
        pp_list_push(&conn->loop->dirty, &conn->dirty);
    }
}

/* ---- deadlines ---- */

static uint64_t due_first(const struct pp_conn *conn)
{
    uint64_t r = conn->read_due_ms, w = conn->write_due_ms, rate = conn->rate_due_ms;
    uint64_t first = r == 0 ? w : w == 0 ? r : r < w ? r : w;
    first = first == 0 ? rate : rate == 0 || first < rate ? first : rate;
    if (PP_LIKELY(conn->call_due_ms == 0)) {
        return first;
    }
    return first == 0 || conn->call_due_ms < first ? conn->call_due_ms : first;
}

static void due_arm(struct pp_conn *conn)
{
    uint64_t due = due_first(conn);
    if (due != 0 && (!pp_timer_armed(&conn->timer) || due < conn->timer.due_ms)) {
        pp_timer_set(&conn->loop->wheel, &conn->timer, due);
    }
}

void pp_conn_due_set(struct pp_conn *conn, uint64_t *due_ms, uint32_t after_ms)
{
    *due_ms = after_ms == 0 ? 0 : pp_loop_time(conn->loop) + after_ms;
    due_arm(conn);
}

void pp_conn_read_due(struct pp_conn *conn, uint32_t after_ms)
{
    pp_conn_due_set(conn, &conn->read_due_ms, after_ms);
}

void pp_conn_write_due(struct pp_conn *conn, uint32_t after_ms)
{
    pp_conn_due_set(conn, &conn->write_due_ms, after_ms);
}

void pp_conn_call_due(struct pp_conn *conn, uint32_t after_ms)
{
    pp_conn_due_set(conn, &conn->call_due_ms, after_ms);
}

static void dues_drop(struct pp_conn *conn)
{
    pp_timer_cancel(&conn->loop->wheel, &conn->timer);
    conn->read_due_ms = conn->write_due_ms = conn->call_due_ms = conn->rate_due_ms = 0;
}

bool pp_conn_look(struct pp_conn *conn)
{
    if (!pp_sock_waiting(conn->fd)) {
        return false;
    }
    pp_conn_on_event(conn, PP_POLL_READ);
    return true;
}

static void linger_late(struct pp_conn *conn)
{
    /* Input that was not read makes close() a reset: not while the answer still arrives. */
    uint32_t unsent = pp_sock_unsent(conn->fd);
    bool progress = unsent != 0 && unsent < conn->unsent;
    conn->unsent = unsent;
    if (progress) {
        pp_conn_read_due(conn, PP_LINGER_MS);
    } else {
        pp_conn_kill(conn, PP_ERR_DISCONNECTED, false);
    }
}

static void write_late(struct pp_conn *conn)
{
    /* The kernel says "writable" only when a good part of its buffer is free, which can take a slow
     * but honest reader longer than the time-out: what it has acknowledged counts. */
    uint32_t unsent = pp_sock_unsent(conn->fd), write_ms = conn->loop->settings.write_ms;
    bool progress = unsent < conn->unsent;
    conn->unsent = unsent;
    if (progress) {
        pp_conn_write_due(conn, write_ms);
        return;
    }
    pp_stats_error(&conn->loop->slot->counters, PP_ERR_WRITE_TIMEOUT);
    pp_conn_kill(conn, PP_ERR_WRITE_TIMEOUT, true);
}

static void on_timer(struct pp_timer *timer, void *context)
{
    struct pp_conn *conn = PP_CONTAINER(timer, struct pp_conn, timer);
    const struct pp_loop *loop = context;

    PP_CHECK(conn->magic == PP_CONN_MAGIC && conn->loop == loop);
    if (conn->call_due_ms != 0 && loop->now_ms >= conn->call_due_ms) {
        conn->call_due_ms = 0;
        if (conn->state == PP_CONN_OPEN) {
            conn->proto->called(conn);
        }
    }
    if (conn->rate_due_ms != 0 && loop->now_ms >= conn->rate_due_ms) {
        conn->rate_due_ms = 0;
        pp_conn_mark_dirty(conn);
    }
    if (conn->write_due_ms != 0 && loop->now_ms >= conn->write_due_ms) {
        write_late(conn);
    }
    if (conn->read_due_ms != 0 && loop->now_ms >= conn->read_due_ms) {
        conn->read_due_ms = 0;
        if (conn->state == PP_CONN_OPEN) {
            conn->proto->late(conn);
        } else if (conn->state == PP_CONN_LINGER) {
            linger_late(conn);
        } /* CLOSE: the write deadline rules */
    }
    if (conn->state != PP_CONN_DEAD) {
        due_arm(conn);
    }
}

/* ---- birth and death ---- */

void pp_conn_open(struct pp_loop *loop, int fd, const union pp_sock_addr *peer,
                  const union pp_sock_addr *local, uint16_t tag, uint64_t requests)
{
    struct pp_conn *conn = pp_pool_take(&loop->conn_pool);
    if (conn == NULL) {
        pp_stats_error(&loop->slot->counters, PP_ERR_NO_MEMORY);
        pp_stats_add(&loop->slot->counters.closed, 1);
        pp_sock_end(fd, true);
        return;
    }
    memset(conn, 0, sizeof *conn);
    conn->magic = PP_CONN_MAGIC;
    conn->fd = fd;
    conn->loop = loop;
    conn->state = PP_CONN_OPEN;
    conn->tag = tag;
    conn->readable = conn->writable = true;
    conn->peer = *peer;
    conn->local = *local;
    pp_list_init(&conn->all);
    pp_list_init(&conn->life);
    pp_list_init(&conn->dirty);
    pp_list_init(&conn->resume);
    pp_timer_init(&conn->timer, on_timer);
    pp_list_push(&loop->conns, &conn->all);
    pp_list_push(&loop->fresh, &conn->life);
    struct pp_tag_counters *tagged = pp_loop_tagged(loop, tag);
    pp_stats_set32(&loop->slot->connections, loop->slot->connections + 1);
    pp_stats_set32(&tagged->connections, tagged->connections + 1);
    conn->requests = requests;
    conn->draining = loop->draining;
    conn->active_round = loop->balance.round - 1;
    conn->proto = loop->protos[PP_TAG_PROTO(tag)];
    PP_CHECK(conn->proto != NULL);
    conn->proto->begin(conn, NULL, 0);
}

void pp_conn_become(struct pp_conn *conn, const struct pp_proto *proto, const uint8_t *carry,
                    size_t len)
{
    PP_CHECK(conn->state == PP_CONN_OPEN && conn->holds == 0);
    conn->read_due_ms = conn->call_due_ms = 0;
    conn->proto = proto;
    proto->begin(conn, carry, len);
}

bool pp_conn_may_leave(const struct pp_conn *conn)
{
    return conn->state == PP_CONN_OPEN && conn->requests > 0 && conn->out.bytes == 0 &&
           conn->holds == 0 && !conn->eof && !conn->peer_shut && !conn->readable &&
           !conn->draining && !conn->stays && conn->proto->may_leave(conn);
}

bool pp_conn_active(const struct pp_conn *conn)
{
    return conn->active_round == conn->loop->balance.round;
}

/* Registration with the poller waits until after the first answer: a peer that wants one answer and
 * closes costs no system call for it at all. Nothing is lost, adding reports what is there by then.
 */
void pp_conn_register_fresh(struct pp_loop *loop)
{
    struct pp_list *n;
    while ((n = pp_list_pop(&loop->fresh)) != NULL) {
        struct pp_conn *conn = PP_CONTAINER(n, struct pp_conn, life);
        PP_CHECK(conn->magic == PP_CONN_MAGIC && conn->state != PP_CONN_DEAD);
        pp_loop_foreign_reused(loop, conn->fd);
        if (pp_poll_add_conn(loop->poll_fd, conn->fd, conn) == PP_OK) {
            conn->registered = true;
        } else {
            pp_stats_error(&loop->slot->counters, PP_ERR_SYSTEM);
            pp_conn_kill(conn, PP_ERR_SYSTEM, true);
        }
    }
}

/* Dead and let go of: the loop frees it when its turn begins. */
static void bury(struct pp_conn *conn)
{
    PP_ASSERT(conn->state == PP_CONN_DEAD && conn->holds == 0);
    pp_list_remove(&conn->life);
    pp_list_push(&conn->loop->dead, &conn->life);
}

void pp_conn_let_go(struct pp_conn *conn)
{
    if (conn->state == PP_CONN_DEAD && conn->holds == 0) {
        bury(conn);
    }
}

/* No longer one of ours: out of every list but that of all, and counted. */
static void strike(struct pp_conn *conn)
{
    struct pp_loop *loop = conn->loop;
    struct pp_tag_counters *tagged = pp_loop_tagged(loop, conn->tag);

    dues_drop(conn);
    pp_list_remove(&conn->dirty);
    pp_list_remove(&conn->resume);
    pp_list_remove(&conn->life);
    conn->fd = -1;
    conn->readable = conn->writable = false;
    pp_conn_step(conn, PP_CONN_ON_GONE);
    pp_stats_set32(&loop->slot->connections, loop->slot->connections - 1);
    pp_stats_set32(&tagged->connections, tagged->connections - 1);
}

static void unregister(struct pp_conn *conn)
{
    if (conn->registered) {
        /* close() alone would leave it registered while a forked child shares the socket. */
        (void)pp_poll_del(conn->loop->poll_fd, conn->fd);
        conn->registered = false;
    }
}

void pp_conn_kill(struct pp_conn *conn, int code, bool reset)
{
    if (conn->state == PP_CONN_DEAD) {
        return;
    }
    pp_conn_out_drop(conn);
    unregister(conn);
    pp_sock_end(conn->fd, reset);
    strike(conn);
    pp_stats_add(&conn->loop->slot->counters.closed, 1);
    conn->proto->gone(conn, code);
    if (conn->holds == 0) {
        bury(conn);
    }
}

void pp_conn_lost(struct pp_conn *conn)
{
    if (conn->holds > 0 && conn->proto->busy(conn)) {
        pp_stats_error(&conn->loop->slot->counters, PP_ERR_DISCONNECTED);
    }
    pp_conn_kill(conn, PP_ERR_DISCONNECTED, false);
}

int pp_conn_no_memory(struct pp_conn *conn)
{
    pp_stats_error(&conn->loop->slot->counters, PP_ERR_NO_MEMORY);
    pp_conn_kill(conn, PP_ERR_NO_MEMORY, true);
    return PP_ERR_NO_MEMORY;
}

void pp_conn_detach(struct pp_conn *conn)
{
    PP_ASSERT(pp_conn_may_leave(conn));
    if (conn->registered) { /* while the descriptor is still surely ours */
        unregister(conn);
        pp_list_push(&conn->loop->fresh, &conn->life);
    }
}

void pp_conn_left(struct pp_conn *conn)
{
    strike(conn);
    bury(conn);
}

static void conn_free(struct pp_conn *conn)
{
    PP_ASSERT(conn->holds == 0 && conn->out.head == NULL && !pp_timer_armed(&conn->timer));
    pp_list_remove(&conn->all);
    conn->magic = 0;
    pp_pool_give(&conn->loop->conn_pool, conn);
}

void pp_conn_free_dead(struct pp_loop *loop)
{
    struct pp_list *n;
    while ((n = pp_list_pop(&loop->dead)) != NULL) {
        struct pp_conn *conn = PP_CONTAINER(n, struct pp_conn, life);
        PP_CHECK(conn->magic == PP_CONN_MAGIC);
        if (conn->user != NULL) {
            pp_list_push(&loop->users, n);
        } else {
            conn_free(conn);
        }
    }
}

void *pp_loop_take_dead_user(struct pp_loop *loop)
{
    struct pp_list *n;
    PP_LOOP_ENTER(loop);
    while ((n = pp_list_pop(&loop->users)) != NULL) {
        struct pp_conn *conn = PP_CONTAINER(n, struct pp_conn, life);
        void *user = conn->user;
        conn_free(conn);
        if (user != NULL) { /* else it was taken from the connection while it waited here */
            return user;
        }
    }
    return NULL;
}

/* ---- the end of a connection ---- */

void pp_conn_last(struct pp_conn *conn)
{
    pp_conn_read_due(conn, 0);
    pp_conn_step(conn, PP_CONN_ON_LAST);
    pp_conn_mark_dirty(conn); /* the flush finds out what is next, also when nothing is queued */
}

/* Closing while unread input is there or on its way would make the kernel send a reset, which can
 * destroy the answer on the peer's side before it was read: so only our direction is shut, and what
 * comes is dropped for a bounded time (RFC 9112 section 9.6). */
void pp_conn_shut(struct pp_conn *conn)
{
    if (conn->reset || conn->eof || !(conn->linger || conn->readable)) {
        pp_conn_kill(conn, PP_ERR_DISCONNECTED, conn->reset);
        return;
    }
    pp_sock_shut_write(conn->fd);
    conn->unsent = UINT32_MAX;
    pp_conn_step(conn, PP_CONN_ON_SHUT);
    conn->proto->gone(conn, PP_ERR_DISCONNECTED);
    pp_conn_read_due(conn, PP_LINGER_MS);
    if (conn->readable) {
        pp_conn_resume_later(conn);
    }
}

static void linger_read(struct pp_conn *conn)
{
    for (int i = 0; i < PP_CONN_READS_MAX && conn->readable; i++) {
        size_t got = 0;
        if (conn->linger_bytes > PP_LINGER_BYTES_MAX && !conn->peer_shut) {
            /* Closing resets the connection, and takes what the kernel still has of the answer
             * along. While there is some, the input just stays where it is, until time is over. */
            if (pp_sock_unsent(conn->fd) == 0) {
                pp_conn_kill(conn, PP_ERR_DISCONNECTED, false);
            }
            return;
        }
        int rc = pp_conn_receive(conn, conn->loop->scratch, sizeof conn->loop->scratch, &got);
        if (rc == PP_AGAIN) {
            return;
        }
        if (rc != PP_OK) {
            pp_conn_kill(conn, PP_ERR_DISCONNECTED, false);
            return;
        }
        conn->linger_bytes += (uint32_t)got;
    }
    if (conn->readable) {
        pp_conn_resume_later(conn);
    }
}

/* ---- events of the loop ---- */

void pp_conn_on_event(struct pp_conn *conn, uint32_t events)
{
    PP_CHECK(conn->magic == PP_CONN_MAGIC);
    if (conn->state == PP_CONN_DEAD) {
        return; /* died earlier in the same batch */
    }
    if ((events & PP_POLL_ERROR) || ((events & PP_POLL_HANG_UP) && conn->state == PP_CONN_CLOSE)) {
        pp_conn_lost(conn);
        return;
    }
    if (events & PP_POLL_PEER_SHUT) {
        conn->peer_shut = conn->readable = true;
    }
    conn->hung_up = (events & PP_POLL_HANG_UP) != 0;
    if (events & PP_POLL_READ) {
        conn->readable = true;
    }
    if (events & PP_POLL_WRITE) {
        conn->writable = true;
        if (conn->out.bytes > 0) {
            pp_conn_mark_dirty(conn);
        }
    }
    if (PP_LIKELY(conn->state == PP_CONN_OPEN)) {
        conn->proto->ready(conn);
    } else if (conn->state == PP_CONN_LINGER && conn->readable) {
        linger_read(conn);
    }
}

void pp_conn_resume_all(struct pp_loop *loop)
{
    struct pp_list now, *n;

    /* Those that put themselves on the list again wait for the next turn. */
    pp_list_init(&now);
    while ((n = pp_list_pop(&loop->resume)) != NULL) {
        pp_list_push(&now, n);
    }
    while ((n = pp_list_pop(&now)) != NULL) {
        struct pp_conn *conn = PP_CONTAINER(n, struct pp_conn, resume);
        PP_CHECK(conn->magic == PP_CONN_MAGIC);
        if (PP_LIKELY(conn->state == PP_CONN_OPEN)) {
            conn->proto->resume(conn);
        } else if (conn->state == PP_CONN_LINGER && conn->readable) {
            linger_read(conn);
        }
    }
}

void pp_conn_drain(struct pp_conn *conn)
{
    conn->draining = true;
    if (conn->state == PP_CONN_OPEN) {
        conn->proto->drain(conn);
    }
}

void pp_conn_end(struct pp_conn *conn)
{
    conn->ends = true;
    pp_conn_drain(conn);
}

void pp_conn_stay(struct pp_conn *conn)
{
    conn->stays = true;
}

void pp_conn_drain_all(struct pp_loop *loop)
{
    struct pp_list *n = loop->conns.next;
    while (n != &loop->conns) {
        struct pp_conn *conn = PP_CONTAINER(n, struct pp_conn, all);
        n = n->next; /* nothing is freed here, but a dead one may leave the lists */
        pp_conn_drain(conn);
    }
}

void pp_conn_abort_all(struct pp_loop *loop)
{
    struct pp_list *n = loop->conns.next;
    while (n != &loop->conns) {
        struct pp_conn *conn = PP_CONTAINER(n, struct pp_conn, all);
        n = n->next;
        pp_conn_kill(conn, PP_ERR_DISCONNECTED, conn->out.bytes > 0);
    }
}

void pp_conn_orphan_all(struct pp_loop *loop)
{
    for (struct pp_list *n = loop->conns.next; n != &loop->conns; n = n->next) {
        struct pp_conn *conn = PP_CONTAINER(n, struct pp_conn, all);
        while (conn->holds > 0) {
            struct pp_exchange *ex = conn->proto->next(conn, NULL);
            PP_CHECK(ex != NULL);
            ex->app = NULL;
            ex->ops->finish(ex);
        }
    }
}

/* ---- receiving ---- */

int pp_conn_receive(struct pp_conn *conn, uint8_t *to, size_t room, size_t *got)
{
    size_t n = 0;
    int rc = pp_sock_recv(conn->fd, to, room, &n);

    if (rc == PP_AGAIN) {
        conn->readable = false;
        return PP_AGAIN;
    }
    if (rc != PP_OK || n == 0) {
        conn->eof = rc == PP_OK;
        conn->readable = false;
        return PP_ERR_DISCONNECTED;
    }
    if (n < room && !conn->peer_shut) {
        conn->readable = false;
    }
    pp_stats_add(&conn->loop->slot->counters.bytes_in, n);
    pp_stats_add(&pp_loop_tagged(conn->loop, conn->tag)->bytes_in, n);
    *got = n;
    return PP_OK;
}
