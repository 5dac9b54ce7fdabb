/* Which thread of a WSGI context leads: leader and followers.
 *
 * One thread at a time leads: it turns the loop and calls the application itself, so a quick
 * request costs no hand-off. The others are parked. The thread inside run_wsgi is the manager: it
 * never calls the application, so it can always run signal handlers and always return.
 *
 *            turn the loop ---- a request ----> inside the application
 *   leader:  (bit 0 clear) <--- it ended ------ (bit 0 set)
 *
 * w->lead is a generation and that bit. Only the leader changes it while the bit is clear. While it
 * is set, the manager may take the leadership away by compare-and-swap, and does when it sees the
 * same call at two ticks of about a millisecond and the call waits for something, or when it has
 * computed for long: a parked thread (or the manager itself, when all are busy) leads from then on.
 * The old leader notices when it wants to touch the loop (pp_wsgi_lead_enter); from then on it asks
 * the new one by messages (wsgi_op.c) and parks when its call is over.
 *
 * A call that is seen twice need not be slow: on a core that others use as well the leader may only
 * have lost the processor, and whoever takes its place gets no more of it. So the manager asks the
 * kernel what the thread does (net/thread.h).
 *
 * The manager ticks only while calls come; then it sleeps, and the next call wakes it. When most
 * calls have waited lately, the leader hands over before a call instead of waiting to be found
 * slow, if a thread is parked.
 *
 * Code of the application runs wherever a reference is dropped or Python is called: finalisers,
 * weakref callbacks, signal handlers, loggers. All of that happens with bit 0 set, as part of the
 * application: it may close a connection, which needs the loop, and it may block. So the leader
 * goes inside (pp_wsgi_lead_leave) for it and has to expect that it has lost the lead when it comes
 * back; and it makes its own objects with the collector paused.
 *
 * When the manager leads, requests wait in a queue: it takes care of connections, time-outs, bodies
 * and what running calls send, and hands over to the first thread that parks. */
#include "bridge/forked.h"
#include "bridge/wsgi.h"

#include <string.h>

static _Thread_local struct pp_wsgi_worker *this_worker;
static pthread_once_t prepared = PTHREAD_ONCE_INIT;

/* In a child that this thread has forked: nothing of its context is left but this thread. */
static void after_fork(void)
{
    if (this_worker != NULL) {
        this_worker->word = 0;
        this_worker->w->forked = true;
    }
}

static void prepare(void)
{
    (void)pthread_atfork(NULL, NULL, after_fork);
}

void pp_wsgi_lead_prepare(void)
{
    (void)pthread_once(&prepared, prepare);
}

struct pp_wsgi_worker *pp_wsgi_lead_self(void)
{
    return this_worker;
}

struct pp_wsgi_worker *pp_wsgi_lead_bind(struct pp_wsgi_worker *self)
{
    struct pp_wsgi_worker *before = this_worker;
    this_worker = self;
    return before;
}

void pp_wsgi_lead_attach(struct pp_wsgi_worker *self)
{
    if (self->detached != NULL) {
        PyThreadState *state = self->detached;
        self->detached = NULL;
        PyEval_RestoreThread(state);
    }
}

void pp_wsgi_lead_detach(struct pp_wsgi_worker *self)
{
    if (self->detached == NULL) {
        self->detached = PyEval_SaveThread();
    }
}

/* ---- the leadership word ---- */

void pp_wsgi_lead_wake_watch(struct pp_wsgi *w)
{
    if (!w->forked && __atomic_exchange_n(&w->watch_asleep, false, __ATOMIC_SEQ_CST)) {
        pp_park_wake(&w->manager.park);
    }
}

/* The store and the load are in this order for everybody; the manager does the opposite before it
 * sleeps. So either it sees the call or we see it asleep. */
static void publish(struct pp_wsgi_worker *self)
{
    struct pp_wsgi *w = self->w;
    __atomic_store_n(&w->lead, self->word, __ATOMIC_SEQ_CST);
    if (PP_UNLIKELY(__atomic_load_n(&w->watch_asleep, __ATOMIC_SEQ_CST))) {
        pp_wsgi_lead_wake_watch(w);
    }
}

void pp_wsgi_lead_leave(struct pp_wsgi_worker *self)
{
    PP_ASSERT(self->word != 0 && (self->word & 1) == 0);
    self->word += 3; /* the next generation, inside */
    publish(self);
}

bool pp_wsgi_lead_enter(struct pp_wsgi_worker *self)
{
    if (self->word == 0) {
        return false;
    }
    PP_CHECK(self->word & 1); /* else there would be two leaders after pp_wsgi_lead_exit */
    uint64_t seen = self->word;
    if (__atomic_compare_exchange_n(&self->w->lead, &seen, self->word & ~UINT64_C(1), false,
                                    __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        self->word &= ~UINT64_C(1);
        return true;
    }
    self->word = 0;
    return false;
}

void pp_wsgi_lead_exit(struct pp_wsgi_worker *self)
{
    PP_ASSERT(self->word != 0 && (self->word & 1) == 0);
    self->word |= 1;
    publish(self);
}

/* ---- who leads ---- */

struct pp_wsgi_worker *pp_wsgi_lead_pop_locked(struct pp_wsgi *w)
{
    struct pp_wsgi_worker *worker = w->parked;
    if (worker != NULL) {
        w->parked = worker->next_parked;
        worker->next_parked = NULL;
    }
    return worker;
}

void pp_wsgi_lead_appoint_locked(struct pp_wsgi *w, struct pp_wsgi_worker *target)
{
    target->appointed = true;
    w->manager_leads = target->manager;
    __atomic_store_n(&w->leader, target, __ATOMIC_RELEASE);
}

static void give_locked(struct pp_wsgi *w, struct pp_wsgi_worker *self,
                        struct pp_wsgi_worker *target)
{
    PP_ASSERT(self->word != 0 && (self->word & 1) == 0);
    pp_wsgi_lead_appoint_locked(w, target);
    __atomic_store_n(&w->lead, self->word + 2, __ATOMIC_SEQ_CST);
    self->word = 0;
}

static void give_to_manager(struct pp_wsgi_worker *self)
{
    struct pp_wsgi *w = self->w;
    (void)pthread_mutex_lock(&w->mutex);
    give_locked(w, self, &w->manager);
    (void)pthread_mutex_unlock(&w->mutex);
    pp_park_wake(&w->manager.park);
}

void pp_wsgi_lead_hand_over(struct pp_wsgi_worker *self)
{
    struct pp_wsgi *w = self->w;
    (void)pthread_mutex_lock(&w->mutex);
    struct pp_wsgi_worker *target = pp_wsgi_lead_pop_locked(w);
    if (target == NULL) {
        target = &w->manager;
    }
    PP_CHECK(target != self);
    give_locked(w, self, target);
    (void)pthread_mutex_unlock(&w->mutex);
    pp_park_wake(&target->park);
}

bool pp_wsgi_lead_spare(struct pp_wsgi *w)
{
    (void)pthread_mutex_lock(&w->mutex);
    bool spare = w->parked != NULL;
    (void)pthread_mutex_unlock(&w->mutex);
    return spare;
}

/* The manager: takes the leadership from a leader that is inside the application since `word`. */
bool pp_wsgi_lead_steal(struct pp_wsgi *w, uint64_t word, bool for_manager)
{
    uint64_t seen = word;
    (void)pthread_mutex_lock(&w->mutex);
    struct pp_wsgi_worker *target = for_manager ? NULL : pp_wsgi_lead_pop_locked(w);
    if (target == NULL) {
        target = &w->manager;
    }
    bool taken = __atomic_compare_exchange_n(&w->lead, &seen, (word & ~UINT64_C(1)) + 2, false,
                                             __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    if (taken) {
        pp_wsgi_lead_appoint_locked(w, target);
    } else if (!target->manager) {
        target->next_parked = w->parked;
        w->parked = target;
    }
    (void)pthread_mutex_unlock(&w->mutex);
    if (taken && !target->manager) {
        pp_park_wake(&target->park);
    }
    return taken;
}

bool pp_wsgi_lead_take_locked(struct pp_wsgi_worker *self)
{
    if (!self->appointed) {
        return false;
    }
    self->appointed = false;
    self->word = __atomic_load_n(&self->w->lead, __ATOMIC_SEQ_CST);
    PP_CHECK((self->word & 1) == 0);
    return true;
}

bool pp_wsgi_lead_take(struct pp_wsgi_worker *self)
{
    (void)pthread_mutex_lock(&self->w->mutex);
    bool taken = pp_wsgi_lead_take_locked(self);
    (void)pthread_mutex_unlock(&self->w->mutex);
    return taken;
}

/* A call waited, or did not: decides whether the next ones are taken to wait. Any thread. */
void pp_wsgi_lead_learn(struct pp_wsgi *w, bool waits)
{
    /* Two threads may overwrite each other's vote; it is a tendency, not a count. */
    int eager = __atomic_load_n(&w->eager, __ATOMIC_RELAXED);
    int next = waits ? eager + PP_WSGI_WAIT_WEIGHT : eager - 1;
    if (next < 0 || next > PP_WSGI_EAGER_MAX) {
        next = next < 0 ? 0 : PP_WSGI_EAGER_MAX;
    }
    if (next != eager) {
        __atomic_store_n(&w->eager, next, __ATOMIC_RELAXED);
    }
}

/* ---- into the application, and back ---- */

void pp_wsgi_lead_go(struct pp_wsgi_worker *self, bool always, struct pp_wsgi_trip *trip)
{
    struct pp_wsgi *w = self->w;
    trip->eager = (always || __atomic_load_n(&w->eager, __ATOMIC_RELAXED) >= PP_WSGI_EAGER_AT) &&
                  pp_wsgi_lead_spare(w);
    if (trip->eager) {
        trip->begin_us = pp_park_now_us();
        trip->begin_cpu_us = pp_thread_cpu_us(&self->os_thread);
        pp_wsgi_lead_hand_over(self);
    } else {
        pp_wsgi_lead_leave(self);
    }
}

void pp_wsgi_lead_called(struct pp_wsgi_worker *self, struct pp_wsgi_trip *trip)
{
    if (trip->eager) {
        uint64_t cpu_us = pp_thread_cpu_us(&self->os_thread) - trip->begin_cpu_us;
        uint64_t us = pp_park_now_us() - trip->begin_us;
        /* One that computes for longer has had to wait for the GIL for that alone. */
        trip->waited = us >= cpu_us + PP_WSGI_TICK_US && cpu_us < PP_WSGI_SWITCH_US;
    }
}

void pp_wsgi_lead_back(struct pp_wsgi_worker *self, const struct pp_wsgi_trip *trip, bool leads)
{
    /* What became of a call that lost the lead, the manager has learnt when it took it. */
    if (trip->eager || leads) {
        pp_wsgi_lead_learn(self->w, trip->eager && trip->waited);
    }
}

void pp_wsgi_lead_drop(struct pp_wsgi_worker *self, PyObject *object)
{
    pp_wsgi_lead_leave(self);
    Py_DECREF(object);
    (void)pp_wsgi_lead_enter(self);
}

void pp_wsgi_lead_report(struct pp_wsgi_worker *self)
{
    pp_wsgi_lead_leave(self);
    pp_core_report_error(self->w->core, NULL);
    (void)pp_wsgi_lead_enter(self);
}

/* ---- leading ---- */

static bool must_end(struct pp_wsgi *w)
{
    if (__atomic_load_n(&w->stop_requested, __ATOMIC_ACQUIRE)) {
        return true;
    }
    if (w->failure != PP_OK || pp_loop_drained(w->loop)) {
        __atomic_store_n(&w->done, true, __ATOMIC_RELEASE);
        return true;
    }
    return false;
}

/* Signal handlers, on the thread that runs run_wsgi (a no-op where it is not the main thread). */
void pp_wsgi_lead_signals(struct pp_wsgi_worker *manager)
{
    struct pp_wsgi *w = manager->w;
    pp_wsgi_lead_attach(manager);
    int rc = PyErr_CheckSignals();
    if (PP_UNLIKELY(w->forked)) {
        pp_forked_end(w->core, NULL);
    }
    if (rc < 0) {
        PyObject *exc = PyErr_GetRaisedException();
        if (w->interruption == NULL) {
            w->interruption = exc;
        } else {
            Py_XDECREF(exc);
        }
        __atomic_store_n(&w->stop_requested, true, __ATOMIC_RELEASE);
    }
    pp_wsgi_lead_detach(manager);
}

/* Up to `count` references that the loop has no more use for. */
static int take_released(struct pp_wsgi *w, void **owners, int count)
{
    int taken = 0;
    while (taken < count && ((owners[taken] = pp_loop_take_released(w->loop)) != NULL ||
                             (owners[taken] = pp_loop_take_dead_user(w->loop)) != NULL ||
                             (owners[taken] = pp_wsgi_op_take_spent(w)) != NULL)) {
        taken++;
    }
    return taken;
}

bool pp_wsgi_lead_release(struct pp_wsgi_worker *self)
{
    struct pp_wsgi *w = self->w;
    void *owners[64];
    int count;
    while ((count = take_released(w, owners, 64)) > 0) {
        pp_wsgi_lead_attach(self);
        pp_wsgi_lead_leave(self);
        for (int i = 0; i < count; i++) {
            Py_DECREF((PyObject *)owners[i]);
        }
        if (!pp_wsgi_lead_enter(self)) {
            return false;
        }
    }
    if (__atomic_load_n(&w->core->drain_requested, __ATOMIC_ACQUIRE)) {
        pp_core_apply_requests(w->core);
    }
    return true;
}

void pp_wsgi_lead_turn(struct pp_wsgi_worker *self)
{
    struct pp_wsgi *w = self->w;
    pp_loop_adopt(w->loop);
    for (;;) {
        pp_wsgi_op_messages(w);
        if (!pp_wsgi_op_serve(self)) {
            pp_wsgi_lead_detach(self);
            return;
        }
        bool leads = pp_wsgi_lead_release(self);
        pp_wsgi_lead_detach(self);
        if (!leads) {
            return;
        }
        if (must_end(w)) {
            if (!self->manager) {
                give_to_manager(self);
            }
            return;
        }
        if (self->manager) {
            pp_wsgi_lead_leave(self);
            pp_wsgi_lead_signals(self);
            pp_wsgi_threads_keep_spare(w);  /* it parks, and wakes the loop */
            (void)pp_wsgi_lead_enter(self); /* only the manager itself takes the lead away */
            if (pp_wsgi_lead_spare(w)) {
                pp_wsgi_lead_hand_over(self);
                return;
            }
        }
        bool more =
            !self->manager && (!pp_list_empty(&w->ready) || !pp_list_empty(&w->transports_ready));
        int wait_ms = more ? 0 : -1;
        if (self->manager) {
            pp_wsgi_head_send_due(w);
            wait_ms = w->spawn_after_us != 0 ? PP_WSGI_SPAWN_RETRY_US / 1000
                      : pp_wsgi_head_any(w)  ? PP_WSGI_HEAD_MS
                                             : -1;
        }
        int rc = pp_loop_turn(w->loop, wait_ms);
        if (rc < 0) {
            w->failure = rc;
        }
    }
}
