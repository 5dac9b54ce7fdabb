/* Which thread leads (contract: lead.h).
 *
 * One thread at a time leads: it turns the loop and calls the application itself, so a quick
 * request costs no hand-off. The others are parked. The thread inside run_wsgi is the manager: it
 * never calls the application, so it can always run signal handlers and always return.
 *
 *            turn the loop ---- a request ----> inside the application
 *   leader:  (bit 0 clear) <--- it ended ------ (bit 0 set)
 *
 * lead->word is a generation and that bit. Only the leader changes it while the bit is clear. While
 * it is set, the manager may take the leadership away by compare-and-swap, and does when it sees
 * the same call at two ticks of about a millisecond and the call waits for something, or when it
 * has computed for long: a parked thread (or the manager itself, when all are busy) leads from then
 * on. The old leader notices when it wants to touch the loop (pp_lead_enter); from then on it asks
 * the new one by messages (pp_lead_ask) and parks when its call is over.
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
 * goes inside (pp_lead_leave) for it and has to expect that it has lost the lead when it comes
 * back; and it makes its own objects with the collector paused.
 *
 * When the manager leads, requests wait in a queue: it takes care of connections, time-outs, bodies
 * and what running calls send, and hands over to the first thread that parks. */
#include "bridge/lead_word.h"

static _Thread_local struct pp_lead_worker *this_worker;
static pthread_once_t prepared = PTHREAD_ONCE_INIT;

/* In a child that this thread has forked: nothing of its context is left but this thread. */
static void after_fork(void)
{
    if (this_worker != NULL) {
        this_worker->word = 0;
        this_worker->lead->forked = true;
    }
}

static void prepare(void)
{
    (void)pthread_atfork(NULL, NULL, after_fork);
}

void pp_lead_prepare(void)
{
    (void)pthread_once(&prepared, prepare);
}

struct pp_lead_worker *pp_lead_self(void)
{
    return this_worker;
}

struct pp_lead_worker *pp_lead_bind(struct pp_lead_worker *self)
{
    struct pp_lead_worker *before = this_worker;
    this_worker = self;
    return before;
}

/* ---- attached or not ---- */

void pp_lead_attach(struct pp_lead_worker *self)
{
    if (self->detached != NULL) {
        PyThreadState *state = self->detached;
        self->detached = NULL;
        PyEval_RestoreThread(state);
    }
}

void pp_lead_detach(struct pp_lead_worker *self)
{
    if (self->detached == NULL) {
        self->detached = PyEval_SaveThread();
    }
}

/* ---- the leadership word ---- */

void pp_lead_wake_watch(struct pp_lead *lead)
{
    if (!lead->forked && __atomic_exchange_n(&lead->watch_asleep, false, __ATOMIC_SEQ_CST)) {
        pp_park_wake(&lead->manager.park);
    }
}

/* The store and the load are in this order for everybody; the manager does the opposite before it
 * sleeps. So either it sees the call or we see it asleep. */
static void publish(struct pp_lead_worker *self)
{
    struct pp_lead *lead = self->lead;
    __atomic_store_n(&lead->word, self->word, __ATOMIC_SEQ_CST);
    if (PP_UNLIKELY(__atomic_load_n(&lead->watch_asleep, __ATOMIC_SEQ_CST))) {
        pp_lead_wake_watch(lead);
    }
}

void pp_lead_leave(struct pp_lead_worker *self)
{
    PP_ASSERT(self->word != 0 && (self->word & 1) == 0);
    self->word += 3; /* the next generation, inside */
    publish(self);
}

bool pp_lead_enter(struct pp_lead_worker *self)
{
    if (self->word == 0) {
        return false;
    }
    PP_CHECK(self->word & 1); /* else there would be two leaders after pp_lead_exit */
    uint64_t seen = self->word;
    if (__atomic_compare_exchange_n(&self->lead->word, &seen, self->word & ~UINT64_C(1), false,
                                    __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        self->word &= ~UINT64_C(1);
        return true;
    }
    self->word = 0;
    return false;
}

void pp_lead_exit(struct pp_lead_worker *self)
{
    PP_ASSERT(self->word != 0 && (self->word & 1) == 0);
    self->word |= 1;
    publish(self);
}

/* ---- who leads ---- */

struct pp_lead_worker *pp_lead_pop_locked(struct pp_lead *lead)
{
    struct pp_lead_worker *worker = lead->parked;
    if (worker != NULL) {
        lead->parked = worker->next_parked;
        worker->next_parked = NULL;
    }
    return worker;
}

void pp_lead_appoint_locked(struct pp_lead *lead, struct pp_lead_worker *target)
{
    target->appointed = true;
    lead->manager_leads = target->manager;
    __atomic_store_n(&lead->leader, target, __ATOMIC_RELEASE);
}

static void give_locked(struct pp_lead *lead, struct pp_lead_worker *self,
                        struct pp_lead_worker *target)
{
    PP_ASSERT(self->word != 0 && (self->word & 1) == 0);
    pp_lead_appoint_locked(lead, target);
    __atomic_store_n(&lead->word, self->word + 2, __ATOMIC_SEQ_CST);
    self->word = 0;
}

void pp_lead_to_manager(struct pp_lead_worker *self)
{
    struct pp_lead *lead = self->lead;
    (void)pthread_mutex_lock(&lead->mutex);
    give_locked(lead, self, &lead->manager);
    (void)pthread_mutex_unlock(&lead->mutex);
    pp_park_wake(&lead->manager.park);
}

void pp_lead_hand_over(struct pp_lead_worker *self)
{
    struct pp_lead *lead = self->lead;
    (void)pthread_mutex_lock(&lead->mutex);
    struct pp_lead_worker *target = pp_lead_pop_locked(lead);
    if (target == NULL) {
        target = &lead->manager;
    }
    PP_CHECK(target != self);
    give_locked(lead, self, target);
    (void)pthread_mutex_unlock(&lead->mutex);
    pp_park_wake(&target->park);
}

bool pp_lead_spare(struct pp_lead *lead)
{
    (void)pthread_mutex_lock(&lead->mutex);
    bool spare = lead->parked != NULL;
    (void)pthread_mutex_unlock(&lead->mutex);
    return spare;
}

/* The manager: takes the leadership from a leader that is inside the application since `word`. */
bool pp_lead_steal(struct pp_lead *lead, uint64_t word, bool for_manager)
{
    uint64_t seen = word;
    (void)pthread_mutex_lock(&lead->mutex);
    struct pp_lead_worker *target = for_manager ? NULL : pp_lead_pop_locked(lead);
    if (target == NULL) {
        target = &lead->manager;
    }
    bool taken = __atomic_compare_exchange_n(&lead->word, &seen, (word & ~UINT64_C(1)) + 2, false,
                                             __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    if (taken) {
        pp_lead_appoint_locked(lead, target);
    } else if (!target->manager) {
        target->next_parked = lead->parked;
        lead->parked = target;
    }
    (void)pthread_mutex_unlock(&lead->mutex);
    if (taken && !target->manager) {
        pp_park_wake(&target->park);
    }
    return taken;
}

bool pp_lead_take_locked(struct pp_lead_worker *self)
{
    if (!self->appointed) {
        return false;
    }
    self->appointed = false;
    self->word = __atomic_load_n(&self->lead->word, __ATOMIC_SEQ_CST);
    PP_CHECK((self->word & 1) == 0);
    return true;
}

bool pp_lead_take(struct pp_lead_worker *self)
{
    (void)pthread_mutex_lock(&self->lead->mutex);
    bool taken = pp_lead_take_locked(self);
    (void)pthread_mutex_unlock(&self->lead->mutex);
    return taken;
}

/* A call waited, or did not: decides whether the next ones are taken to wait. Any thread. */
void pp_lead_learn(struct pp_lead *lead, bool waits)
{
    /* Two threads may overwrite each other's vote; it is a tendency, not a count. */
    int eager = __atomic_load_n(&lead->eager, __ATOMIC_RELAXED);
    int next = waits ? eager + PP_LEAD_WAIT_WEIGHT : eager - 1;
    if (next < 0 || next > PP_LEAD_EAGER_MAX) {
        next = next < 0 ? 0 : PP_LEAD_EAGER_MAX;
    }
    if (next != eager) {
        __atomic_store_n(&lead->eager, next, __ATOMIC_RELAXED);
    }
}

/* ---- into the application, and back ---- */

void pp_lead_go(struct pp_lead_worker *self, bool always, struct pp_lead_trip *trip)
{
    struct pp_lead *lead = self->lead;
    trip->eager = (always || __atomic_load_n(&lead->eager, __ATOMIC_RELAXED) >= PP_LEAD_EAGER_AT) &&
                  pp_lead_spare(lead);
    if (trip->eager) {
        trip->begin_us = pp_loop_clock_us();
        trip->begin_cpu_us = pp_thread_cpu_us(&self->os_thread);
        pp_lead_hand_over(self);
    } else {
        pp_lead_leave(self);
    }
}

void pp_lead_called(struct pp_lead_worker *self, struct pp_lead_trip *trip)
{
    if (trip->eager) {
        uint64_t cpu_us = pp_thread_cpu_us(&self->os_thread) - trip->begin_cpu_us;
        uint64_t us = pp_loop_clock_us() - trip->begin_us;
        /* One that computes for longer has had to wait for the GIL for that alone. */
        trip->waited = us >= cpu_us + PP_LEAD_TICK_US && cpu_us < PP_LEAD_SWITCH_US;
    }
}

void pp_lead_back(struct pp_lead_worker *self, const struct pp_lead_trip *trip, bool leads)
{
    /* What became of a call that lost the lead, the manager has learnt when it took it. */
    if (trip->eager || leads) {
        pp_lead_learn(self->lead, trip->eager && trip->waited);
    }
}

void pp_lead_drop(struct pp_lead_worker *self, PyObject *object)
{
    pp_lead_leave(self);
    Py_DECREF(object);
    (void)pp_lead_enter(self);
}

void pp_lead_report(struct pp_lead_worker *self)
{
    pp_lead_leave(self);
    pp_core_report_error(self->lead->core, NULL);
    (void)pp_lead_enter(self);
}
