/* One context's loop (contract: loop.h): what happens in a turn, and in which order.
 *
 *   flush what the application produced -> free what died -> register what is new -> go on with
 *   what was left over -> wait -> accept, receive, parse -> time out -> answer what needs no
 *   application
 *
 * Every step is bounded: events by PP_POLL_EVENTS, accepts by PP_ACCEPT_BATCH, reads and writes of
 * one connection by a budget; what is left over makes the next turn not wait. Connections are freed
 * only at the start of a turn, so that neither an event of the same batch nor the application can
 * meet a freed one. Runs on the owning thread; only pp_loop_wake, pp_loop_post and the readers of
 * counters may be called from others. Knows no protocol but by name: which one is behind which tag.
 */
#include <errno.h>

#include "net/conn.h"
#include "net/http1.h"
#include "net/listen.h"
#include "net/sys.h"

/* ---- life ---- */

static void lists_init(struct pp_loop *loop)
{
    pp_list_init(&loop->conns);
    pp_list_init(&loop->ready);
    pp_list_init(&loop->dirty);
    pp_list_init(&loop->resume);
    pp_list_init(&loop->fresh);
    pp_list_init(&loop->dead);
    pp_list_init(&loop->users);
    pp_list_init(&loop->listeners);
}

static void pools_fini(struct pp_loop *loop)
{
    pp_pool_fini(&loop->conn_pool);
    pp_pool_fini(&loop->small_pool);
    pp_pool_fini(&loop->block_pool);
    pp_pool_fini(&loop->body_pool);
    pp_pool_fini(&loop->out_pool);
}

static void descriptors_close(struct pp_loop *loop)
{
    pp_mailbox_fini(&loop->mailbox);
    if (loop->poll_fd >= 0) {
        (void)pp_sys_close(loop->poll_fd);
    }
    if (loop->reserve_fd >= 0) {
        (void)pp_sys_close(loop->reserve_fd);
    }
}

static void pools_init(struct pp_loop *loop)
{
    pp_pool_init(&loop->conn_pool, sizeof(struct pp_conn), PP_CONNS_KEPT);
    pp_pool_init(&loop->small_pool, pp_block_bytes(PP_SMALL_BLOCK_BYTES), PP_SMALL_BLOCKS_KEPT);
    pp_pool_init(&loop->block_pool, pp_block_bytes(PP_BLOCK_BYTES), PP_BLOCKS_KEPT);
    pp_pool_init(&loop->body_pool, pp_block_bytes(PP_BODY_BLOCK_BYTES), PP_BODY_BLOCKS_KEPT);
    pp_pool_init(&loop->out_pool, sizeof(struct pp_out) + PP_COPY_BYTES_MAX, PP_BLOCKS_KEPT);
}

static void slot_fini(struct pp_loop *loop)
{
    if (loop->slot != NULL) {
        pp_slot_leave(loop->slot);
    }
    if (loop->own_slot != NULL) {
        pp_mem_free(loop->own_slot, sizeof *loop->own_slot);
    }
    loop->slot = loop->own_slot = NULL;
}

struct pp_loop *pp_loop_new(const struct pp_settings *settings)
{
    PP_ASSERT(settings->http.field_count <= PP_FIELDS_MAX);
    PP_ASSERT(settings->http.head_bytes <= PP_HEAD_BYTES_MAX);
    struct pp_loop *loop = pp_mem_zalloc(sizeof *loop);
    if (loop == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    loop->magic = PP_LOOP_MAGIC;
    loop->owner = pp_sys_pthread_self();
    loop->poll_fd = loop->reserve_fd = loop->mailbox.wake_fd = -1;
    loop->log.fd = loop->log.write_fd = -1;
    loop->next_id = 1;
    loop->batch_left = PP_BATCH_REQUESTS;
    loop->balance.inbox = -1;
    loop->protos[PP_TAG_PROTO(0)] = &pp_http1_proto;
    loop->protos[PP_TAG_PROTO(PP_TAG_RAW)] = &pp_raw_proto;
    loop->slot = settings->slot;
    pp_loop_set_now(loop);
    loop->balance.window_us = loop->now_us;
    lists_init(loop);
    pp_wheel_init(&loop->wheel, loop->now_ms);
    pools_init(loop);
    loop->settings = *settings;
    loop->settings.access_log_prefix = NULL; /* the log has its own copy */
    loop->settings.extra_fields = NULL;      /* and so will the loop of these */
    loop->settings.extra_count = 0;
    loop->settings.trusted = NULL;

    if (loop->slot == NULL) {
        loop->slot = loop->own_slot = pp_mem_zalloc(sizeof *loop->own_slot);
        if (loop->slot == NULL) {
            errno = ENOMEM;
            goto failed;
        }
    }
    pp_slot_sit(loop->slot);
    loop->balance.window_busy_us = loop->slot->busy_us;
    loop->try_credit = PP_TRY_MAX;
    if (pp_settings_copy(&loop->settings, settings) != PP_OK ||
        pp_accesslog_init(&loop->log, settings->access_log_fd, settings->access_log_prefix,
                          &loop->slot->counters.log_lines_dropped) != PP_OK) {
        errno = ENOMEM;
        goto failed;
    }
    if (settings->trusted != NULL &&
        (loop->settings.trusted = pp_trusted_copy(settings->trusted)) == NULL) {
        errno = ENOMEM;
        goto failed;
    }
    if (pp_poll_open(&loop->poll_fd) != PP_OK || pp_mailbox_init(&loop->mailbox) != PP_OK ||
        pp_poll_add_wake(loop->poll_fd, loop->mailbox.wake_fd) != PP_OK) {
        goto failed;
    }
    loop->reserve_fd = pp_sys_open("/dev/null", O_RDONLY | O_CLOEXEC); /* -1 is survivable */
    return loop;

failed:;
    int saved = errno;
    descriptors_close(loop);
    pp_accesslog_fini(&loop->log);
    pp_settings_free(&loop->settings);
    pools_fini(loop);
    slot_fini(loop);
    loop->magic = 0;
    pp_mem_free(loop, sizeof *loop);
    errno = saved;
    return NULL;
}

void pp_loop_free(struct pp_loop *loop)
{
    PP_LOOP_ENTER(loop);
    pp_loop_unlisten(loop);
    pp_conn_abort_all(loop);
    pp_conn_orphan_all(loop);
    pp_conn_free_dead(loop);
    while (pp_loop_take_dead_user(loop) != NULL) {}
    while (pp_loop_take_released(loop) != NULL) {}
    pp_filer_fini(loop);
    PP_CHECK(pp_list_empty(&loop->conns));
    pp_accesslog_fini(&loop->log);
    pp_balance_fini(loop);
    descriptors_close(loop);
    pp_settings_free(&loop->settings);
    pp_foreign_free(loop);
    pools_fini(loop);
    slot_fini(loop);
    loop->magic = 0;
    pp_mem_free(loop, sizeof *loop);
}

/* ---- the turn ---- */

/* Something can be done without waiting for an event. */
static bool work_left(const struct pp_loop *loop)
{
    return !pp_list_empty(&loop->ready) || !pp_list_empty(&loop->dirty) ||
           !pp_list_empty(&loop->resume) || !pp_list_empty(&loop->users) ||
           loop->released != NULL || !pp_mailbox_empty(&loop->mailbox);
}

static int earlier(int a, int b) /* of two waits in ms, -1 = for ever */
{
    if (a < 0 || b < 0) {
        return a < 0 ? b : a;
    }
    return a < b ? a : b;
}

/* How long the loop may sleep as far as its own affairs go. */
static int wait_own(const struct pp_loop *loop)
{
    if (work_left(loop)) {
        return 0;
    }
    int wait = pp_wheel_wait_ms(&loop->wheel, loop->now_ms);
    if (loop->accept_resume_ms != 0) {
        wait = earlier(wait, loop->accept_resume_ms > loop->now_ms
                                 ? (int)(loop->accept_resume_ms - loop->now_ms)
                                 : 0);
    }
    if (loop->balance.retry_ms != 0) {
        uint64_t retry = loop->balance.retry_ms;
        wait = earlier(wait, retry > loop->now_ms ? (int)(retry - loop->now_ms) : 0);
    }
    if (pp_accesslog_pending(&loop->log)) {
        wait = earlier(wait, PP_LOG_RETRY_MS);
    }
    if (loop->draining && loop->balance.board != NULL && loop->slot->connections == 0) {
        wait = earlier(wait, loop->now_ms < loop->drain_ms + PP_DRAIN_DOOR_MS ? 5 : 0);
    }
    return wait;
}

int pp_loop_wait_ms(struct pp_loop *loop)
{
    PP_LOOP_ENTER(loop);
    return pp_list_empty(&loop->fresh) && pp_list_empty(&loop->dead) ? wait_own(loop) : 0;
}

static void dispatch(struct pp_loop *loop, int count)
{
    for (int i = 0; i < count; i++) {
        const struct pp_poll_event *ev = &loop->events[i];
        switch (pp_poll_tag(ev)) {
        case PP_POLL_CONN:
            pp_conn_on_event(pp_poll_ptr(ev), ev->events);
            break;
        case PP_POLL_LISTENER:
            pp_listen_accept(loop, pp_poll_ptr(ev));
            break;
        case PP_POLL_WAKE:
            if (ev->data == PP_POLL_INBOX) {
                pp_balance_take(loop);
            } else {
                pp_mailbox_woken(&loop->mailbox);
            }
            break;
        case PP_POLL_FOREIGN:
            pp_foreign_event(loop, pp_poll_fd(ev), ev->events);
            break;
        }
    }
}

static void run_timers(struct pp_loop *loop)
{
    struct pp_timer *timer;
    pp_wheel_advance(&loop->wheel, loop->now_ms);
    while ((timer = pp_wheel_pop(&loop->wheel)) != NULL) {
        timer->fire(timer, loop);
    }
    if (loop->accept_resume_ms != 0 && loop->now_ms >= loop->accept_resume_ms) {
        loop->accept_resume_ms = 0;
        pp_listen_resume(loop);
    }
}

static int things_to_take(const struct pp_loop *loop)
{
    return (int)loop->foreign_ready_count + !pp_list_empty(&loop->ready) +
           (loop->released != NULL) + !pp_list_empty(&loop->users) +
           !pp_mailbox_empty(&loop->mailbox);
}

/* ---- busy and waiting ---- */

/* Up to now the loop was busy: with its own work, or with the application's. */
static void busy_until(struct pp_loop *loop, uint64_t now_us)
{
    struct pp_slot *slot = loop->slot;
    if (slot->busy_since_us != 0 && now_us > slot->busy_since_us) {
        uint64_t spent = now_us - slot->busy_since_us;
        pp_stats_add(&slot->busy_us, spent);
        pp_hist_add(&slot->busy, spent);
    }
}

void pp_loop_rest(struct pp_loop *loop)
{
    PP_LOOP_ENTER(loop);
    busy_until(loop, pp_loop_clock_us());
    pp_stats_set32(&loop->slot->suspended, loop->slot->in_flight);
    pp_stats_set64(&loop->slot->busy_since_us, 0);
}

static void busy_from(struct pp_loop *loop)
{
    pp_stats_set64(&loop->slot->heartbeat_us, loop->now_us);
    pp_stats_set64(&loop->slot->busy_since_us, loop->now_us);
}

/* What is left of a batch that had no more time counts as much as what was taken. */
static void batch_was(struct pp_loop *loop)
{
    struct pp_slot *slot = loop->slot;
    uint32_t due = PP_BATCH_REQUESTS - loop->batch_left + loop->ready_count;
    pp_hist_add(&slot->batch, due);
    pp_stats_set32(&slot->depth16, (slot->depth16 * 7 + due * 16) / 8);
}

static int time_left(const struct pp_loop *loop, uint64_t until_ms)
{
    uint64_t left = until_ms > loop->now_ms ? until_ms - loop->now_ms : 0;
    return left < INT32_MAX ? (int)left : INT32_MAX;
}

/* Writes what was produced. Who is owed to another context leaves once it is answered. */
static void flush_dirty(struct pp_loop *loop)
{
    struct pp_list now, *n;

    pp_list_init(&now);
    while ((n = pp_list_pop(&loop->dirty)) != NULL) {
        pp_list_push(&now, n);
    }
    while ((n = pp_list_pop(&now)) != NULL) {
        struct pp_conn *conn = PP_CONTAINER(n, struct pp_conn, dirty);
        PP_CHECK(conn->magic == PP_CONN_MAGIC);
        pp_conn_flush(conn);
        if (PP_UNLIKELY(loop->balance.owed > 0)) {
            pp_balance_answered(conn);
        }
    }
}

int pp_loop_turn(struct pp_loop *loop, int timeout_ms)
{
    return pp_loop_turn_until(loop, timeout_ms, UINT64_MAX);
}

int pp_loop_turn_until(struct pp_loop *loop, int timeout_ms, uint64_t until_ms)
{
    int count = 0;

    PP_LOOP_ENTER(loop);
    PP_CHECK(!loop->turning);
    loop->turning = loop->current = true;
    pp_stats_add(&loop->slot->counters.turns, 1);
    loop->turn++;
    if (loop->batch_left < PP_BATCH_REQUESTS) {
        batch_was(loop);
    }
    pp_loop_batch(loop);
    pp_loop_set_now(loop); /* the application may have taken its time */
    busy_until(loop, loop->now_us);
    busy_from(loop);
    pp_foreign_reset(loop);

    bool drained = pp_loop_drained(loop);
    loop->flushed_us = loop->now_us;
    flush_dirty(loop);
    pp_accesslog_flush(&loop->log);
    pp_balance_turn(loop, loop->now_us); /* who has just been answered may leave */
    pp_conn_free_dead(loop);
    pp_conn_register_fresh(loop);
    pp_conn_resume_all(loop);

    int wait = earlier(wait_own(loop), timeout_ms);
    if (until_ms != UINT64_MAX) {
        wait = earlier(wait, time_left(loop, until_ms));
    }
    if (!drained && pp_loop_drained(loop)) {
        wait = 0; /* the last connection has just gone: nothing would end the wait */
    }
    if (wait != 0) {
        pp_loop_rest(loop);
    }
    int rc = pp_poll_wait(loop->poll_fd, loop->events, PP_POLL_EVENTS, wait, &count);
    if (rc != PP_OK) {
        loop->turning = loop->current = false;
        return rc;
    }
    if (wait != 0) {
        pp_loop_set_now(loop);
        busy_from(loop);
    }
    dispatch(loop, count);
    pp_conn_files_read(loop);
    run_timers(loop);
    flush_dirty(loop); /* error answers and 100 Continue need no application */
    if (!pp_list_empty(&loop->ready)) {
        pp_stats_add(&loop->slot->counters.batches, 1);
    }
    loop->turning = loop->current = false;
    return things_to_take(loop);
}

void pp_loop_flush(struct pp_loop *loop)
{
    PP_LOOP_ENTER(loop);
    pp_loop_set_now(loop);
    loop->current = true;
    loop->flushed_us = loop->now_us;
    flush_dirty(loop);
    pp_conn_register_fresh(loop);
    pp_accesslog_flush(&loop->log);
    loop->current = false;
}

bool pp_loop_late(struct pp_loop *loop)
{
    PP_LOOP_ENTER(loop);
    pp_loop_set_now(loop);
    return loop->now_us - loop->flushed_us >= PP_BATCH_US;
}

bool pp_loop_dirty(const struct pp_loop *loop)
{
    return !pp_list_empty(&loop->dirty) || !pp_list_empty(&loop->fresh);
}

bool pp_loop_pending(const struct pp_loop *loop)
{
    /* Output that went over its budget counts too: only another turn goes on with it. */
    return !pp_list_empty(&loop->ready) || !pp_list_empty(&loop->resume) ||
           !pp_list_empty(&loop->dirty);
}

bool pp_loop_pending_events(const struct pp_loop *loop)
{
    return !pp_list_empty(&loop->ready);
}

/* ---- the end ---- */

/* Who waits in the queue of a listener was told that the connection stands: serve them. Not those
 * that go on coming meanwhile: that might not end. */
static void accept_queue(struct pp_loop *loop, struct pp_listener *listener)
{
    uint64_t begin = loop->slot->counters.accepted, before;
    uint32_t most = pp_sock_queued(listener->fd);
    if (most > PP_DRAIN_ACCEPTS_MAX) {
        most = PP_DRAIN_ACCEPTS_MAX;
    }
    do {
        before = loop->slot->counters.accepted;
        pp_listen_accept(loop, listener);
    } while (loop->slot->counters.accepted != before && /* a batch may be small */
             loop->slot->counters.accepted - begin < most);
}

void pp_loop_drain(struct pp_loop *loop)
{
    PP_LOOP_ENTER(loop);
    if (loop->draining) {
        return;
    }
    pp_loop_set_now(loop); /* the last turn may be long ago */
    loop->current = true;
    if (loop->slot->life == PP_SLOT_OPEN) {
        __atomic_store_n(&loop->slot->life, PP_SLOT_CLOSED, __ATOMIC_RELEASE);
    }
    for (struct pp_list *n = loop->listeners.next; n != &loop->listeners; n = n->next) {
        struct pp_listener *listener = PP_CONTAINER(n, struct pp_listener, link);
        if (listener->kind != PP_LISTEN_NEIGHBOUR) {
            accept_queue(loop, listener);
        }
    }
    loop->draining = true;
    loop->drain_ms = loop->now_ms;
    pp_loop_unlisten(loop);
    pp_conn_drain_all(loop);
    loop->current = false;
}

bool pp_loop_drained(const struct pp_loop *loop)
{
    /* A context that chose this one just before it closed may still be sending a connection. */
    return loop->draining && loop->slot->connections == 0 && loop->slot->in_flight == 0 &&
           (loop->balance.board == NULL || loop->now_ms >= loop->drain_ms + PP_DRAIN_DOOR_MS);
}

void pp_loop_abort(struct pp_loop *loop)
{
    PP_LOOP_ENTER(loop);
    pp_conn_abort_all(loop);
}
