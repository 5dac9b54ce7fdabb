/* Connections: their life, states, deadlines and what the application may ask of them.
 *
 *   IDLE --bytes--> HEAD --head whole--> SERVE --answered--> IDLE
 *                     |                    |
 *                     +------refused-------+--last answer--> CLOSE --written--> LINGER --> DEAD
 *
 * (every state goes to DEAD when the peer is gone). The table is PP_CONN_STATES in conn_impl.h.
 * Whether the application holds the connection is a flag beside the state: a socket may die under a
 * slow application, and an application may go on (background work) after its response was sent and
 * the socket closed. Memory is given back by the loop at the start of a turn, once a connection is
 * both DEAD and let go of.
 *
 * One timer node per connection, which is moved only when a deadline comes closer; when it fires
 * early it is set again for the rest. Input is in conn_in.c, output in conn_out.c. */
#include "net/conn_impl.h"

#include <string.h>

/* ---- states ---- */

const uint8_t pp_conn_next[PP_CONN_NO][PP_CONN_STEPS] = {
#define PP_CONN_ROW_(state, bytes, request, reuse, last, shut, gone) \
    [PP_CONN_##state] = {PP_CONN_##bytes, PP_CONN_##request, PP_CONN_##reuse, \
                         PP_CONN_##last,  PP_CONN_##shut,    PP_CONN_##gone},
    PP_CONN_STATES(PP_CONN_ROW_)
#undef PP_CONN_ROW_
};

void pp_conn_step(struct pp_conn *conn, enum pp_conn_step step)
{
    PP_CHECK(conn->state < PP_CONN_NO && pp_conn_next[conn->state][step] != PP_CONN_NO);
    conn->state = pp_conn_next[conn->state][step];
}

void pp_conn_raise(struct pp_conn *conn, unsigned events)
{
    PP_ASSERT(conn->held);
    conn->events |= (uint8_t)events;
    if (!pp_list_linked(&conn->ready)) {
        pp_list_push(&conn->loop->ready, &conn->ready);
        conn->loop->ready_count++;
    }
}

static void not_ready(struct pp_conn *conn)
{
    conn->events = 0;
    if (pp_list_linked(&conn->ready)) {
        pp_list_remove(&conn->ready);
        conn->loop->ready_count--;
    }
}

void pp_conn_resume_later(struct pp_conn *conn)
{
    if (!pp_list_linked(&conn->resume)) {
        pp_list_push(&conn->loop->resume, &conn->resume);
    }
}

/* ---- deadlines ---- */

static uint64_t due_first(const struct pp_conn *conn)
{
    uint64_t r = conn->read_due_ms, w = conn->write_due_ms, rate = conn->rate_due_ms;
    uint64_t first = r == 0 ? w : w == 0 ? r : r < w ? r : w;
    first = first == 0 ? rate : rate == 0 || first < rate ? first : rate;
    if (PP_LIKELY(conn->head_due_ms == 0)) {
        return first;
    }
    return first == 0 || conn->head_due_ms < first ? conn->head_due_ms : first;
}

static void due_arm(struct pp_conn *conn)
{
    uint64_t due = due_first(conn);
    if (due != 0 && (!pp_timer_armed(&conn->timer) || due < conn->timer.due_ms)) {
        pp_timer_set(&conn->loop->wheel, &conn->timer, due);
    }
}

void pp_conn_read_due(struct pp_conn *conn, uint32_t after_ms)
{
    conn->read_due_ms = after_ms == 0 ? 0 : pp_loop_time(conn->loop) + after_ms;
    due_arm(conn);
}

void pp_conn_write_due(struct pp_conn *conn, uint32_t after_ms)
{
    conn->write_due_ms = after_ms == 0 ? 0 : pp_loop_time(conn->loop) + after_ms;
    due_arm(conn);
}

void pp_conn_rate_due(struct pp_conn *conn, uint32_t after_ms)
{
    conn->rate_due_ms = after_ms == 0 ? 0 : pp_loop_time(conn->loop) + after_ms;
    due_arm(conn);
}

void pp_conn_head_wait(struct pp_conn *conn)
{
    PP_CONN_ENTER(conn);
    if (conn->held && !conn->closed && conn->state == PP_CONN_SERVE) {
        conn->head_due_ms = pp_loop_time(conn->loop) + PP_HEAD_WAIT_MS;
        due_arm(conn);
    }
}

static uint32_t idle_ms(const struct pp_conn *conn)
{
    return conn->h1.draining ? PP_DRAIN_IDLE_MS : conn->loop->settings.keep_alive_ms;
}

/* A deadline may pass because the loop could not look: the application kept it, the process was
 * stopped, the turn's events were too many. What has arrived meanwhile is read first. False: there
 * is nothing. */
static bool look(struct pp_conn *conn)
{
    if (!pp_sock_waiting(conn->fd)) {
        return false;
    }
    pp_conn_on_event(conn, EPOLLIN);
    return true;
}

static void head_late(struct pp_conn *conn)
{
    pp_conn_refuse(conn, PP_ERR_HEADER_TIMEOUT, pp_err_status(PP_ERR_HEADER_TIMEOUT));
}

static void on_read_due(struct pp_conn *conn)
{
    struct pp_counters *counters = &conn->loop->slot->counters;

    conn->read_due_ms = 0;
    switch ((enum pp_conn_state)conn->state) {
    case PP_CONN_IDLE: {
        if (conn->out_bytes > 0) { /* still answering: the write deadline rules */
            pp_conn_read_due(conn, idle_ms(conn));
            break;
        }
        bool first = conn->requests == 0;
        if (look(conn)) {
            if (first && conn->state == PP_CONN_HEAD && !conn->readable) {
                head_late(conn); /* its time began with the connection */
            }
            break;
        }
        int code = first ? PP_ERR_HEADER_TIMEOUT : PP_ERR_IDLE_TIMEOUT;
        pp_stats_error(counters, code);
        pp_conn_kill(conn, code, false);
        break;
    }
    case PP_CONN_HEAD:
        if (!look(conn) || (conn->state == PP_CONN_HEAD && !conn->readable)) {
            head_late(conn);
        }
        break;
    case PP_CONN_SERVE:
        if (conn->h1.req == PP_H1_REQ_DONE) { /* the grace of a peer that has shut its side */
            conn->eof_told = true;
            pp_conn_raise(conn, PP_EV_EOF);
            break;
        }
        /* Else armed while the application waits for body bytes. It may still answer; if it does
         * not, pp_conn_fail answers 408. */
        if (conn->want && look(conn)) {
            break;
        }
        pp_stats_error(counters, PP_ERR_BODY_TIMEOUT);
        conn->error = PP_ERR_BODY_TIMEOUT;
        conn->h1.keep_alive = false;
        if (conn->h1.res != PP_H1_RES_WAIT) {
            pp_conn_kill(conn, PP_ERR_BODY_TIMEOUT, true);
        } else if (conn->want) {
            conn->want = false;
            pp_conn_raise(conn, PP_EV_BODY);
        }
        break;
    case PP_CONN_LINGER: {
        /* Input that was not read makes close() a reset: not while the answer still arrives. */
        uint32_t unsent = pp_sock_unsent(conn->fd);
        bool progress = unsent != 0 && unsent < conn->unsent;
        conn->unsent = unsent;
        if (progress) {
            pp_conn_read_due(conn, PP_LINGER_MS);
        } else {
            pp_conn_kill(conn, PP_ERR_DISCONNECTED, false);
        }
        break;
    }
    case PP_CONN_RAW:
        /* What it has not come to read (memory, too much output) leaves the deadline unset. */
        if (!look(conn) || (conn->state == PP_CONN_RAW && conn->read_due_ms == 0)) {
            pp_conn_raw_due(conn);
        }
        break;
    case PP_CONN_CLOSE: /* the write deadline rules here */
    case PP_CONN_DEAD:
    case PP_CONN_NO:
        break;
    }
}

void pp_conn_on_timer(struct pp_timer *timer, struct pp_loop *loop)
{
    struct pp_conn *conn = PP_CONTAINER(timer, struct pp_conn, timer);

    PP_CHECK(conn->magic == PP_CONN_MAGIC && conn->loop == loop);
    if (conn->head_due_ms != 0 && loop->now_ms >= conn->head_due_ms) {
        conn->head_due_ms = 0;
        if (conn->held && conn->state == PP_CONN_SERVE && conn->h1.res == PP_H1_RES_WAIT) {
            pp_conn_raise(conn, PP_EV_HEAD);
        }
    }
    if (conn->rate_due_ms != 0 && loop->now_ms >= conn->rate_due_ms) {
        conn->rate_due_ms = 0;
        pp_conn_mark_dirty(conn);
    }
    if (conn->write_due_ms != 0 && loop->now_ms >= conn->write_due_ms) {
        /* The kernel says "writable" only when a good part of its buffer is free, which can take a
         * slow but honest reader longer than the time-out: what it has acknowledged counts. */
        uint32_t unsent = pp_sock_unsent(conn->fd);
        bool progress = unsent < conn->unsent;
        conn->unsent = unsent;
        if (progress) {
            pp_conn_write_due(conn, loop->settings.write_ms);
        }
    }
    if (conn->write_due_ms != 0 && loop->now_ms >= conn->write_due_ms) {
        pp_stats_error(&loop->slot->counters, PP_ERR_WRITE_TIMEOUT);
        pp_conn_kill(conn, PP_ERR_WRITE_TIMEOUT, true);
        return;
    }
    if (conn->read_due_ms != 0 && loop->now_ms >= conn->read_due_ms) {
        on_read_due(conn);
    }
    if (conn->state != PP_CONN_DEAD) {
        due_arm(conn);
    }
}

/* ---- birth and death ---- */

/* Whether a receive right after accept is likely to pay: with clients that send at once it saves a
 * wake-up, with slow ones it is a system call for nothing. A few are made all the time, to learn.
 */
static bool try_now(struct pp_loop *loop)
{
    if (loop->try_credit > 0 || ++loop->try_skipped >= PP_TRY_MAX) {
        loop->try_skipped = 0;
        return true;
    }
    return false;
}

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
    conn->id = loop->next_id++;
    conn->state = tag & PP_TAG_RAW ? PP_CONN_RAW : PP_CONN_IDLE;
    conn->tag = tag;
    conn->readable = conn->writable = true;
    conn->peer = *peer;
    conn->local = *local;
    pp_list_init(&conn->all);
    pp_list_init(&conn->life);
    pp_list_init(&conn->ready);
    pp_list_init(&conn->dirty);
    pp_list_init(&conn->resume);
    pp_timer_init(&conn->timer);
    pp_h1_conn_init(&conn->h1);
    pp_list_push(&loop->conns, &conn->all);
    pp_list_push(&loop->fresh, &conn->life);
    struct pp_tag_counters *tagged = pp_loop_tagged(loop, tag);
    pp_stats_set32(&loop->slot->connections, loop->slot->connections + 1);
    pp_stats_set32(&tagged->connections, tagged->connections + 1);
    conn->requests = requests;
    conn->h1.draining = loop->draining;
    conn->active_round = loop->balance.round - 1;
    if (conn->state == PP_CONN_RAW) {
        pp_conn_raw_open(conn);
        return;
    }
    pp_conn_read_due(conn, requests > 0     ? idle_ms(conn)
                           : loop->draining ? PP_LINGER_MS / 2
                                            : loop->settings.request_header_ms);
    if (!try_now(loop)) {
        return; /* epoll tells when there is something */
    }
    pp_stats_add(&loop->slot->counters.tried, 1);
    pp_conn_read(conn); /* the request is often here already */
    if (conn->state == PP_CONN_IDLE) {
        loop->try_credit -= loop->try_credit > 0;
    } else {
        pp_stats_add(&loop->slot->counters.tried_well, 1);
        loop->try_credit += loop->try_credit < PP_TRY_MAX;
    }
}

bool pp_conn_may_leave(const struct pp_conn *conn)
{
    return conn->state == PP_CONN_IDLE && conn->requests > 0 && conn->out_bytes == 0 &&
           conn->in == NULL && !conn->held && !conn->eof && !conn->peer_shut && !conn->readable &&
           !conn->h1.draining && !conn->stays;
}

bool pp_conn_active(const struct pp_conn *conn)
{
    return conn->active_round == conn->loop->balance.round;
}

/* Registration with epoll waits until after the first answer: a peer that wants one answer and
 * closes costs no epoll_ctl at all. Nothing is lost, adding reports what is there by then. */
void pp_conn_register_fresh(struct pp_loop *loop)
{
    struct pp_list *n;
    while ((n = pp_list_pop(&loop->fresh)) != NULL) {
        struct pp_conn *conn = PP_CONTAINER(n, struct pp_conn, life);
        PP_CHECK(conn->magic == PP_CONN_MAGIC && conn->state != PP_CONN_DEAD);
        pp_loop_foreign_reused(loop, conn->fd);
        if (pp_poll_add_conn(loop->epoll_fd, conn->fd, conn) == PP_OK) {
            conn->registered = true;
        } else {
            pp_stats_error(&loop->slot->counters, PP_ERR_SYSTEM);
            pp_conn_kill(conn, PP_ERR_SYSTEM, true);
        }
    }
}

/* The application hears that it is over, unless it has never heard of the request; of a raw
 * connection it hears if the peer has said anything. */
static void app_end(struct pp_conn *conn, int code)
{
    if (!conn->held) {
        return;
    }
    bool said = pp_conn_is_raw(conn) && conn->body_start < conn->body_end;
    if ((conn->events & PP_EV_REQUEST) && !said) {
        not_ready(conn);
        conn->held = false;
        pp_stats_set32(&conn->loop->slot->in_flight, conn->loop->slot->in_flight - 1);
        return;
    }
    if (!conn->closed) {
        conn->closed = true;
        if (conn->error == PP_OK) {
            conn->error = code;
        }
        unsigned events = PP_EV_CLOSED | (conn->want ? PP_EV_BODY : 0u);
        conn->want = conn->full_told = false;
        pp_conn_raise(conn, events);
    }
}

/* Dead and let go of: the loop frees it when its turn begins. */
static void bury(struct pp_conn *conn)
{
    PP_ASSERT(conn->state == PP_CONN_DEAD && !conn->held);
    pp_conn_block_drop(conn);
    pp_list_remove(&conn->life);
    pp_list_push(&conn->loop->dead, &conn->life);
}

/* One less here. */
static void count_gone(struct pp_conn *conn)
{
    struct pp_loop *loop = conn->loop;
    struct pp_tag_counters *tagged = pp_loop_tagged(loop, conn->tag);
    pp_stats_set32(&loop->slot->connections, loop->slot->connections - 1);
    pp_stats_set32(&tagged->connections, tagged->connections - 1);
}

void pp_conn_kill(struct pp_conn *conn, int code, bool reset)
{
    struct pp_loop *loop = conn->loop;

    if (conn->state == PP_CONN_DEAD) {
        return;
    }
    pp_conn_out_drop(conn);
    pp_timer_cancel(&loop->wheel, &conn->timer);
    conn->read_due_ms = conn->write_due_ms = conn->rate_due_ms = 0;
    pp_list_remove(&conn->dirty);
    pp_list_remove(&conn->resume);
    pp_list_remove(&conn->life);
    if (conn->registered) {
        /* close() alone would leave it registered while a forked child shares the socket. */
        (void)pp_poll_del(loop->epoll_fd, conn->fd);
        conn->registered = false;
    }
    pp_sock_end(conn->fd, reset);
    conn->fd = -1;
    conn->readable = conn->writable = false;
    pp_conn_step(conn, PP_CONN_ON_GONE);
    pp_stats_add(&loop->slot->counters.closed, 1);
    count_gone(conn);
    app_end(conn, code);
    if (!conn->held) {
        bury(conn);
    }
}

bool pp_conn_hand_over(struct pp_conn *conn, unsigned slot)
{
    struct pp_loop *loop = conn->loop;

    PP_ASSERT(pp_conn_may_leave(conn));
    if (conn->registered) { /* while the descriptor is still surely ours */
        (void)pp_poll_del(loop->epoll_fd, conn->fd);
        conn->registered = false;
        pp_list_push(&loop->fresh, &conn->life);
    }
    if (!pp_balance_give(loop, slot, conn->fd, &conn->peer, &conn->local, conn->tag,
                         conn->requests)) {
        return false;
    }
    pp_timer_cancel(&loop->wheel, &conn->timer);
    conn->read_due_ms = conn->write_due_ms = conn->rate_due_ms = 0;
    pp_list_remove(&conn->dirty);
    pp_list_remove(&conn->resume);
    pp_list_remove(&conn->life);
    conn->fd = -1;
    conn->writable = false;
    pp_conn_step(conn, PP_CONN_ON_GONE);
    count_gone(conn);
    bury(conn);
    return true;
}

static void conn_free(struct pp_conn *conn)
{
    PP_ASSERT(conn->in == NULL && conn->out_head == NULL);
    PP_ASSERT(!pp_list_linked(&conn->ready) && !pp_timer_armed(&conn->timer));
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

/* The last output is written. Closing while unread input is there or on its way would make the
 * kernel send a reset, which can destroy the answer on the peer's side before it was read: so only
 * our direction is shut, and what comes is dropped for a bounded time (RFC 9112 section 9.6). */
void pp_conn_flushed(struct pp_conn *conn)
{
    if (conn->state == PP_CONN_IDLE && conn->read_due_ms == 0) {
        pp_conn_read_due(conn, idle_ms(conn)); /* from the answer, not from before its handler */
    }
    if (conn->state != PP_CONN_CLOSE &&
        !(conn->state == PP_CONN_SERVE && conn->h1.res == PP_H1_RES_DONE && !conn->h1.keep_alive)) {
        return;
    }
    bool linger = conn->linger || !conn->peer_last || conn->h1.req != PP_H1_REQ_DONE ||
                  pp_conn_leftover(conn) > 0 || conn->readable;
    if (conn->reset || conn->eof || !linger) {
        pp_conn_kill(conn, PP_ERR_DISCONNECTED, conn->reset);
        return;
    }
    pp_sock_shut_write(conn->fd);
    conn->unsent = UINT32_MAX;
    pp_conn_step(conn, PP_CONN_ON_SHUT);
    if (conn->held) {
        app_end(conn, PP_ERR_DISCONNECTED);
    }
    if (!conn->held) {
        pp_conn_block_drop(conn);
    }
    pp_conn_read_due(conn, PP_LINGER_MS);
    if (conn->readable) {
        pp_conn_resume_later(conn);
    }
}

/* ---- events of the loop ---- */

void pp_conn_lost(struct pp_conn *conn)
{
    if (conn->held && conn->h1.res != PP_H1_RES_DONE) {
        pp_stats_error(&conn->loop->slot->counters, PP_ERR_DISCONNECTED);
    }
    pp_conn_kill(conn, PP_ERR_DISCONNECTED, false);
}

/* Once per request, when nothing more can come from the peer and all of the request is here. A peer
 * that has shut its side before the response began may have left, or wait for it: it gets a grace,
 * which ends when it is over, however far the response is by then. */
static void eof_tell(struct pp_conn *conn)
{
    if (conn->state != PP_CONN_SERVE || !conn->peer_shut || !conn->held || conn->eof_told ||
        conn->h1.req != PP_H1_REQ_DONE || conn->read_due_ms != 0) {
        return;
    }
    uint32_t grace_ms = conn->loop->settings.disconnect_grace_ms;
    if (conn->h1.res == PP_H1_RES_WAIT && grace_ms > 0) {
        pp_conn_read_due(conn, grace_ms);
        return;
    }
    conn->eof_told = true;
    pp_conn_raise(conn, PP_EV_EOF);
}

void pp_conn_on_event(struct pp_conn *conn, uint32_t events)
{
    PP_CHECK(conn->magic == PP_CONN_MAGIC);
    if (conn->state == PP_CONN_DEAD) {
        return; /* died earlier in the same batch */
    }
    if ((events & EPOLLERR) ||
        ((events & EPOLLHUP) && (conn->state == PP_CONN_SERVE || conn->state == PP_CONN_CLOSE))) {
        pp_conn_lost(conn);
        return;
    }
    if (events & (EPOLLRDHUP | EPOLLHUP)) {
        conn->peer_shut = conn->readable = true;
    }
    if (events & EPOLLIN) {
        conn->readable = true;
    }
    if (events & EPOLLOUT) {
        conn->writable = true;
        if (conn->out_bytes > 0) {
            pp_conn_mark_dirty(conn);
        }
    }
    if (conn->readable) {
        pp_conn_read(conn);
    }
    eof_tell(conn);
}

static void resume_one(struct pp_conn *conn)
{
    if (conn->state == PP_CONN_HEAD && pp_conn_leftover(conn) > 0) {
        pp_conn_read_next(conn);
    }
    if (conn->readable) {
        pp_conn_read(conn);
    }
    eof_tell(conn);
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
        resume_one(conn);
    }
}

void pp_conn_drain(struct pp_conn *conn)
{
    conn->h1.draining = true;
    if (conn->state == PP_CONN_RAW) {
        pp_conn_read_due(conn, PP_DRAIN_IDLE_MS);
    }
    if (conn->state != PP_CONN_IDLE) {
        return;
    }
    conn->readable = true; /* a request may have arrived after the last look */
    pp_conn_read(conn);
    if (conn->state != PP_CONN_IDLE) {
        return;
    }
    /* Its next request may be under way, and would be lost; the answer then says "close". A new
     * peer is about to ask something. */
    pp_conn_read_due(conn, conn->requests > 0 ? PP_DRAIN_IDLE_MS : PP_LINGER_MS / 2);
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
        pp_conn_kill(conn, PP_ERR_DISCONNECTED, conn->out_bytes > 0);
    }
}

void pp_conn_orphan_all(struct pp_loop *loop)
{
    for (struct pp_list *n = loop->conns.next; n != &loop->conns; n = n->next) {
        struct pp_conn *conn = PP_CONTAINER(n, struct pp_conn, all);
        if (conn->held) {
            conn->app = NULL;
            pp_conn_finish(conn);
        }
    }
}

struct pp_conn *pp_loop_take_event(struct pp_loop *loop, unsigned *events)
{
    PP_LOOP_ENTER(loop);
    if (loop->batch_left == 0 || pp_list_empty(&loop->ready)) {
        return NULL;
    }
    /* Nobody waits for the handler of an event that is alone: no look at the clock. */
    bool alone = loop->batch_left == PP_BATCH_REQUESTS && loop->ready_count == 1;
    if (!alone && !pp_loop_batch_goes_on(loop)) {
        return NULL;
    }
    struct pp_conn *conn = PP_CONTAINER(pp_list_pop(&loop->ready), struct pp_conn, ready);
    PP_CHECK(conn->magic == PP_CONN_MAGIC);
    loop->batch_left--;
    loop->ready_count--;
    *events = conn->events;
    conn->events = 0;
    return conn;
}

struct pp_conn *pp_loop_next_conn(struct pp_loop *loop, struct pp_conn *conn)
{
    PP_LOOP_ENTER(loop);
    struct pp_list *n = conn == NULL ? loop->conns.next : conn->all.next;
    return n == &loop->conns ? NULL : PP_CONTAINER(n, struct pp_conn, all);
}

/* ---- the application's side ---- */

void pp_conn_fail(struct pp_conn *conn, int status)
{
    PP_CONN_ENTER(conn);
    if (!conn->held || conn->closed || conn->state != PP_CONN_SERVE) {
        return;
    }
    if (conn->h1.res == PP_H1_RES_WAIT) {
        int cause = pp_err_status(conn->error);
        PP_ASSERT(status >= 500 && status <= 599);
        if (cause == 0) {
            pp_stats_error(&conn->loop->slot->counters, PP_ERR_APP_FAILED);
        }
        pp_conn_out_error(conn, cause != 0 ? cause : status);
    } else if (conn->h1.res == PP_H1_RES_BODY) {
        /* A missing last chunk or missing bytes tell the peer. A body that ends with the connection
         * (HTTP/1.0) looks the same whole and cut: only a reset tells. */
        conn->reset = conn->h1.framing == PP_H1_FRAME_CLOSE;
        conn->h1.keep_alive = false;
        conn->h1.res = PP_H1_RES_DONE;
        conn->linger = true;
        pp_conn_mark_dirty(conn);
    }
}

void pp_conn_abandon(struct pp_conn *conn)
{
    PP_CONN_ENTER(conn);
    if (conn->held && !conn->closed && conn->state == PP_CONN_SERVE) {
        pp_conn_lost(conn);
    }
}

static void finish_last(struct pp_conn *conn)
{
    if (conn->h1.req != PP_H1_REQ_DONE || pp_conn_leftover(conn) > 0) {
        conn->linger = true;
    }
    pp_conn_block_drop(conn);
    pp_conn_read_due(conn, 0);
    pp_conn_step(conn, PP_CONN_ON_LAST);
    pp_conn_mark_dirty(conn); /* the flush finds out what is next, also when nothing is queued */
}

static void finish_reuse(struct pp_conn *conn)
{
    struct pp_loop *loop = conn->loop;

    pp_h1_conn_next(&conn->h1);
    conn->status = 0;
    conn->eof_told = false;
    pp_conn_step(conn, PP_CONN_ON_REUSE);
    if (pp_conn_leftover(conn) == 0) {
        pp_conn_block_drop(conn);
        if (conn->out_bytes == 0) { /* else when they are written */
            pp_conn_read_due(conn, idle_ms(conn));
        }
        if (conn->readable) {
            pp_conn_resume_later(conn);
        }
        return;
    }
    pp_conn_step(conn, PP_CONN_ON_BYTES);
    conn->in_start = conn->raw_start;
    if (conn->batch_turn != loop->turn) {
        conn->batch_turn = loop->turn;
        conn->batch_requests = 0;
    }
    if (++conn->batch_requests >= loop->settings.limit_pipeline) {
        pp_conn_resume_later(conn);
        return;
    }
    pp_conn_read_next(conn);
    if (conn->readable) {
        pp_conn_resume_later(conn); /* receiving is for the turn */
    }
    eof_tell(conn);
}

void pp_conn_finish(struct pp_conn *conn)
{
    struct pp_loop *loop = conn->loop;

    PP_CONN_ENTER(conn);
    PP_CHECK(conn->held);
    PP_ASSERT(conn->app == NULL);
    bool raw = pp_conn_is_raw(conn);
    pp_conn_body_settle(conn);
    if (!raw && !conn->closed && conn->h1.res != PP_H1_RES_DONE) {
        pp_conn_fail(conn, 500);
    }
    if (conn->status != 0 && conn->in != NULL) {
        pp_accesslog_line(&loop->log, (const union pp_sock_addr *)pp_conn_client(conn),
                          &conn->in->head, conn->in->data + conn->in_start, conn->status);
    }
    conn->held = conn->want = conn->full_told = conn->finish_due = false;
    not_ready(conn);
    pp_stats_set32(&loop->slot->in_flight, loop->slot->in_flight - 1);
    switch ((enum pp_conn_state)conn->state) {
    case PP_CONN_SERVE:
        /* Draining makes a response head say "close"; where it was too late for that, the
         * client may go on, for a while. */
        if (pp_h1_conn_reusable(&conn->h1) && !(conn->eof && pp_conn_leftover(conn) == 0)) {
            finish_reuse(conn);
        } else {
            finish_last(conn);
        }
        break;
    case PP_CONN_CLOSE:
    case PP_CONN_LINGER:
        pp_conn_block_drop(conn);
        break;
    case PP_CONN_DEAD:
        bury(conn);
        break;
    case PP_CONN_RAW:
        finish_last(conn);
        break;
    case PP_CONN_IDLE:
    case PP_CONN_HEAD:
    case PP_CONN_NO:
        PP_CHECK(!"finished twice");
    }
}
