/* One context's loop (contract: loop.h): what happens in a turn, and in which order.
 *
 *   flush what the application produced -> free what died -> register what is new -> go on with
 *   what was left over -> wait -> accept, receive, parse -> time out -> answer what needs no
 *   application
 *
 * Every step is bounded: events by PP_EPOLL_EVENTS, accepts by PP_ACCEPT_BATCH, reads and writes of
 * one connection by a budget; what is left over makes the next turn not wait. Connections are freed
 * only at the start of a turn, so that neither an event of the same batch nor the application can
 * meet a freed one. Runs on the owning thread; only pp_loop_wake, pp_loop_post and the readers of
 * counters may be called from others. Knows nothing of HTTP: that is conn*.c. */
#include "net/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "net/conn_impl.h"

#ifdef PP_TEST_CLOCK
uint64_t (*pp_loop_test_clock)(void);
int64_t (*pp_loop_test_wall_ms)(void);
#endif

static uint64_t clock_us(void)
{
    struct timespec ts;
#ifdef PP_TEST_CLOCK
    if (pp_loop_test_clock != NULL) {
        return pp_loop_test_clock() * 1000;
    }
#endif
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

void pp_loop_set_now(struct pp_loop *loop)
{
    loop->now_us = clock_us();
    loop->now_ms = loop->now_us / 1000;
}

static int64_t wall_ms(void)
{
    struct timespec ts;
#ifdef PP_TEST_CLOCK
    if (pp_loop_test_wall_ms != NULL) {
        return pp_loop_test_wall_ms();
    }
#endif
    (void)clock_gettime(CLOCK_REALTIME_COARSE, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

const char *pp_loop_date(struct pp_loop *loop)
{
    if (!loop->settings.date_header) {
        return NULL;
    }
    if (loop->now_ms >= loop->date_next_ms) {
        int64_t wall = wall_ms();
        pp_h1_write_date(wall / 1000, loop->date);
        loop->date_next_ms = loop->now_ms + (uint64_t)(1000 - wall % 1000);
    }
    return loop->date;
}

/* ---- life ---- */

/* A name and its value share one allocation, the name first. */
static void field_free(struct pp_h1_out_field *field)
{
    pp_mem_free((void *)(uintptr_t)field->name, field->name_len + field->value_len + 1);
}

static void fields_free(struct pp_h1_out_field *fields, size_t count)
{
    if (fields == NULL) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        field_free(&fields[i]);
    }
    pp_mem_free(fields, count * sizeof *fields);
}

static int fields_copy(struct pp_settings *to, const struct pp_settings *from)
{
    to->extra_fields = NULL;
    to->extra_count = 0;
    if (from->extra_count == 0) {
        return PP_OK;
    }
    struct pp_h1_out_field *fields = pp_mem_zalloc(from->extra_count * sizeof *fields);
    if (fields == NULL) {
        return PP_ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < from->extra_count; i++) {
        const struct pp_h1_out_field *f = &from->extra_fields[i];
        uint8_t *text = pp_mem_alloc(f->name_len + f->value_len + 1);
        if (text == NULL) {
            for (size_t k = 0; k < i; k++) {
                field_free(&fields[k]);
            }
            pp_mem_free(fields, from->extra_count * sizeof *fields);
            return PP_ERR_NO_MEMORY;
        }
        memcpy(text, f->name, f->name_len);
        memcpy(text + f->name_len, f->value, f->value_len);
        fields[i] = (struct pp_h1_out_field){.name = text,
                                             .name_len = f->name_len,
                                             .value = text + f->name_len,
                                             .value_len = f->value_len};
    }
    to->extra_fields = fields;
    to->extra_count = from->extra_count;
    return PP_OK;
}

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

static void settings_free(struct pp_settings *settings)
{
    fields_free((struct pp_h1_out_field *)(uintptr_t)settings->extra_fields, settings->extra_count);
    pp_trusted_free((struct pp_trusted *)(uintptr_t)settings->trusted);
}

static void pools_fini(struct pp_loop *loop)
{
    pp_pool_fini(&loop->conn_pool);
    pp_pool_fini(&loop->block_pool);
    pp_pool_fini(&loop->body_pool);
    pp_pool_fini(&loop->out_pool);
}

static void descriptors_close(struct pp_loop *loop)
{
    pp_mailbox_fini(&loop->mailbox);
    if (loop->epoll_fd >= 0) {
        (void)close(loop->epoll_fd);
    }
    if (loop->reserve_fd >= 0) {
        (void)close(loop->reserve_fd);
    }
}

static void pools_init(struct pp_loop *loop)
{
    pp_pool_init(&loop->conn_pool, sizeof(struct pp_conn), PP_CONNS_KEPT);
    pp_pool_init(&loop->block_pool, sizeof(struct pp_block) + PP_BLOCK_BYTES, PP_BLOCKS_KEPT);
    pp_pool_init(&loop->body_pool, sizeof(struct pp_block) + PP_BODY_BLOCK_BYTES,
                 PP_BODY_BLOCKS_KEPT);
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
    loop->owner = pthread_self();
    loop->epoll_fd = loop->reserve_fd = loop->mailbox.wake_fd = -1;
    loop->log.fd = loop->log.write_fd = -1;
    loop->next_id = 1;
    loop->batch_left = PP_BATCH_REQUESTS;
    loop->balance.inbox = -1;
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
    if (fields_copy(&loop->settings, settings) != PP_OK ||
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
    if (pp_poll_open(&loop->epoll_fd) != PP_OK || pp_mailbox_init(&loop->mailbox) != PP_OK ||
        pp_poll_add_wake(loop->epoll_fd, loop->mailbox.wake_fd) != PP_OK) {
        goto failed;
    }
    loop->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC); /* -1 is survivable */
    return loop;

failed:;
    int saved = errno;
    descriptors_close(loop);
    pp_accesslog_fini(&loop->log);
    settings_free(&loop->settings);
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
    settings_free(&loop->settings);
    if (loop->foreign != NULL) {
        pp_mem_free(loop->foreign, loop->foreign_count * sizeof *loop->foreign);
    }
    pools_fini(loop);
    slot_fini(loop);
    loop->magic = 0;
    pp_mem_free(loop, sizeof *loop);
}

void pp_loop_adopt(struct pp_loop *loop)
{
    PP_CHECK(loop->magic == PP_LOOP_MAGIC);
    loop->owner = pthread_self();
}

bool pp_loop_owned(const struct pp_loop *loop)
{
    return pthread_equal(loop->owner, pthread_self()) != 0;
}

int pp_loop_fd(const struct pp_loop *loop)
{
    return loop->epoll_fd;
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

/* What was not taken is dropped: being level-triggered, it is reported again. */
static void foreign_reset(struct pp_loop *loop)
{
    for (unsigned i = loop->foreign_next; i < loop->foreign_ready_count; i++) {
        loop->foreign[loop->foreign_ready[i]].ready = 0;
    }
    loop->foreign_next = loop->foreign_ready_count = 0;
}

static void foreign_event(struct pp_loop *loop, int fd, uint32_t events)
{
    if ((size_t)fd >= loop->foreign_count) {
        return;
    }
    PP_ASSERT(loop->foreign_ready_count < PP_EPOLL_EVENTS);
    loop->foreign[fd].ready = events;
    loop->foreign_ready[loop->foreign_ready_count++] = fd;
}

static void dispatch(struct pp_loop *loop, int count)
{
    for (int i = 0; i < count; i++) {
        const struct epoll_event *ev = &loop->events[i];
        switch (pp_poll_tag(ev)) {
        case PP_POLL_CONN:
            pp_conn_on_event(pp_poll_ptr(ev), ev->events);
            break;
        case PP_POLL_LISTENER:
            pp_listen_accept(loop, pp_poll_ptr(ev));
            break;
        case PP_POLL_WAKE:
            if (ev->data.u64 == PP_POLL_INBOX) {
                pp_balance_take(loop);
            } else {
                pp_mailbox_woken(&loop->mailbox);
            }
            break;
        case PP_POLL_FOREIGN:
            foreign_event(loop, pp_poll_fd(ev), ev->events);
            break;
        }
    }
}

static void run_timers(struct pp_loop *loop)
{
    struct pp_timer *timer;
    pp_wheel_advance(&loop->wheel, loop->now_ms);
    while ((timer = pp_wheel_pop(&loop->wheel)) != NULL) {
        pp_conn_on_timer(timer, loop);
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
    busy_until(loop, clock_us());
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
    foreign_reset(loop);

    bool drained = pp_loop_drained(loop);
    loop->flushed_us = loop->now_us;
    pp_conn_flush_dirty(loop);
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
    int rc = pp_poll_wait(loop->epoll_fd, loop->events, PP_EPOLL_EVENTS, wait, &count);
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
    pp_conn_flush_dirty(loop); /* error answers and 100 Continue need no application */
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
    pp_conn_flush_dirty(loop);
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

void pp_loop_batch(struct pp_loop *loop)
{
    PP_LOOP_ENTER(loop);
    loop->batch_left = PP_BATCH_REQUESTS;
    loop->batch_us = 0;
}

bool pp_loop_batch_goes_on(struct pp_loop *loop)
{
    pp_loop_set_now(loop);
    if (loop->batch_us == 0) {
        loop->batch_us = loop->now_us;
    }
    return loop->now_us - loop->batch_us < PP_BATCH_US;
}

void *pp_loop_take_released(struct pp_loop *loop)
{
    PP_LOOP_ENTER(loop);
    struct pp_out *out = loop->released;
    if (out == NULL) {
        return NULL;
    }
    loop->released = out->next;
    if (loop->released == NULL) {
        loop->released_tail = NULL;
    }
    void *owner = out->owner;
    PP_ASSERT(owner != NULL);
    pp_out_give(loop, out);
    return owner;
}

/* ---- foreign descriptors ---- */

static int foreign_room(struct pp_loop *loop, int fd)
{
    size_t need = (size_t)fd + 1;
    if (need <= loop->foreign_count) {
        return PP_OK;
    }
    size_t count = loop->foreign_count == 0 ? 256 : loop->foreign_count;
    while (count < need) {
        count *= 2;
    }
    struct pp_foreign *grown =
        loop->foreign == NULL ? pp_mem_alloc(count * sizeof *grown)
                              : pp_mem_realloc(loop->foreign, loop->foreign_count * sizeof *grown,
                                               count * sizeof *grown);
    if (grown == NULL) {
        errno = ENOMEM;
        return PP_ERR_NO_MEMORY;
    }
    memset(grown + loop->foreign_count, 0, (count - loop->foreign_count) * sizeof *grown);
    loop->foreign = grown;
    loop->foreign_count = count;
    return PP_OK;
}

int pp_loop_foreign_add(struct pp_loop *loop, int fd, uint32_t events)
{
    PP_LOOP_ENTER(loop);
    if (fd < 0) {
        errno = EBADF;
        return PP_ERR_SYSTEM;
    }
    int rc = foreign_room(loop, fd);
    if (rc == PP_OK) {
        rc = pp_poll_add_foreign(loop->epoll_fd, fd, events);
    }
    if (rc == PP_OK) {
        loop->foreign[fd].registered = true;
    }
    return rc;
}

/* The application may close a descriptor that it has registered, and the number come back as one of
 * ours. */
static bool is_foreign(const struct pp_loop *loop, int fd)
{
    return fd >= 0 && (size_t)fd < loop->foreign_count && loop->foreign[fd].registered;
}

void pp_loop_foreign_reused(struct pp_loop *loop, int fd)
{
    if (is_foreign(loop, fd)) {
        loop->foreign[fd] = (struct pp_foreign){0};
    }
}

int pp_loop_foreign_mod(struct pp_loop *loop, int fd, uint32_t events)
{
    PP_LOOP_ENTER(loop);
    if (!is_foreign(loop, fd)) {
        errno = ENOENT;
        return PP_ERR_SYSTEM;
    }
    return pp_poll_mod_foreign(loop->epoll_fd, fd, events);
}

int pp_loop_foreign_del(struct pp_loop *loop, int fd)
{
    PP_LOOP_ENTER(loop);
    if (!is_foreign(loop, fd)) {
        errno = ENOENT;
        return PP_ERR_SYSTEM;
    }
    loop->foreign[fd].ready = 0; /* an event of this turn is stale now */
    loop->foreign[fd].registered = false;
    return pp_poll_del(loop->epoll_fd, fd);
}

bool pp_loop_take_foreign(struct pp_loop *loop, int *fd, uint32_t *events)
{
    PP_LOOP_ENTER(loop);
    while (loop->foreign_next < loop->foreign_ready_count) {
        int next = loop->foreign_ready[loop->foreign_next++];
        if (loop->foreign[next].ready != 0) {
            *fd = next;
            *events = loop->foreign[next].ready;
            loop->foreign[next].ready = 0;
            return true;
        }
    }
    return false;
}

/* ---- other threads, the end, figures ---- */

void pp_loop_wake(struct pp_loop *loop)
{
    pp_mailbox_wake(&loop->mailbox);
}

void pp_loop_post(struct pp_loop *loop, struct pp_msg *msg)
{
    pp_mailbox_post(&loop->mailbox, msg);
}

struct pp_msg *pp_loop_take_msg(struct pp_loop *loop)
{
    PP_LOOP_ENTER(loop);
    return pp_mailbox_take(&loop->mailbox);
}

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

uint32_t pp_loop_connections(const struct pp_loop *loop)
{
    return __atomic_load_n(&loop->slot->connections, __ATOMIC_RELAXED);
}

uint32_t pp_loop_in_flight(const struct pp_loop *loop)
{
    return __atomic_load_n(&loop->slot->in_flight, __ATOMIC_RELAXED);
}

const struct pp_counters *pp_loop_counters(const struct pp_loop *loop)
{
    return &loop->slot->counters;
}

void pp_loop_stuck(struct pp_loop *loop, bool stuck)
{
    pp_stats_set32(&loop->slot->stuck, stuck);
}

const struct pp_slot *pp_loop_slot(const struct pp_loop *loop)
{
    return loop->slot;
}

void pp_loop_take_bodies(struct pp_loop *loop)
{
    loop->take_bodies = true;
}

uint64_t pp_loop_clock_ms(void)
{
    return clock_us() / 1000;
}

uint64_t pp_loop_now_ms(const struct pp_loop *loop)
{
    return loop->now_ms;
}
