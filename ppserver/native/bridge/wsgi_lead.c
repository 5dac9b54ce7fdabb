/* Threads of a WSGI context: leader and followers.
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
 * When the manager leads, requests wait in a queue: it takes care of connections, time-outs, bodies
 * and what running calls send, and hands over to the first thread that parks. */
#include "bridge/wsgi.h"

#include <string.h>

static _Thread_local struct pp_wsgi_worker *this_worker;

struct pp_wsgi_worker *pp_wsgi_lead_self(void)
{
    return this_worker;
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

/* The store and the load are in this order for everybody; the manager does the opposite before it
 * sleeps. So either it sees the call or we see it asleep. */
static void publish(struct pp_wsgi_worker *self)
{
    struct pp_wsgi *w = self->w;
    __atomic_store_n(&w->lead, self->word, __ATOMIC_SEQ_CST);
    if (PP_UNLIKELY(__atomic_load_n(&w->watch_asleep, __ATOMIC_SEQ_CST)) &&
        __atomic_exchange_n(&w->watch_asleep, false, __ATOMIC_SEQ_CST)) {
        pp_park_wake(&w->manager.park);
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
    PP_ASSERT(self->word & 1);
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

static struct pp_wsgi_worker *pop_parked_locked(struct pp_wsgi *w)
{
    struct pp_wsgi_worker *worker = w->parked;
    if (worker != NULL) {
        w->parked = worker->next_parked;
        worker->next_parked = NULL;
    }
    return worker;
}

static void appoint_locked(struct pp_wsgi *w, struct pp_wsgi_worker *target)
{
    target->appointed = true;
    w->manager_leads = target->manager;
    __atomic_store_n(&w->leader, target, __ATOMIC_RELEASE);
}

static void give_locked(struct pp_wsgi *w, struct pp_wsgi_worker *self,
                        struct pp_wsgi_worker *target)
{
    PP_ASSERT(self->word != 0 && (self->word & 1) == 0);
    appoint_locked(w, target);
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
    struct pp_wsgi_worker *target = pop_parked_locked(w);
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
static bool steal(struct pp_wsgi *w, uint64_t word, bool for_manager)
{
    uint64_t seen = word;
    (void)pthread_mutex_lock(&w->mutex);
    struct pp_wsgi_worker *target = for_manager ? NULL : pop_parked_locked(w);
    if (target == NULL) {
        target = &w->manager;
    }
    bool taken = __atomic_compare_exchange_n(&w->lead, &seen, (word & ~UINT64_C(1)) + 2, false,
                                             __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    if (taken) {
        appoint_locked(w, target);
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

static bool take_appointment_locked(struct pp_wsgi_worker *self)
{
    if (!self->appointed) {
        return false;
    }
    self->appointed = false;
    self->word = __atomic_load_n(&self->w->lead, __ATOMIC_SEQ_CST);
    PP_CHECK((self->word & 1) == 0);
    return true;
}

static bool take_appointment(struct pp_wsgi_worker *self)
{
    (void)pthread_mutex_lock(&self->w->mutex);
    bool taken = take_appointment_locked(self);
    (void)pthread_mutex_unlock(&self->w->mutex);
    return taken;
}

/* A call waited, or did not: decides whether the next ones are taken to wait. Any thread. */
static void learn(struct pp_wsgi *w, bool waits)
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
        learn(self->w, trip->eager && trip->waited);
    }
}

/* ---- leading ---- */

static bool has_parked(struct pp_wsgi *w)
{
    return pp_wsgi_lead_spare(w);
}

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
static void run_signal_handlers(struct pp_wsgi_worker *manager)
{
    struct pp_wsgi *w = manager->w;
    pp_wsgi_lead_attach(manager);
    if (PyErr_CheckSignals() < 0) {
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

/* What the loop has no more use for. Attaches only if there is something. */
static void release(struct pp_wsgi_worker *self)
{
    struct pp_wsgi *w = self->w;
    void *owners[64];
    int count;
    do {
        count = 0;
        while (count < 64 && ((owners[count] = pp_loop_take_released(w->loop)) != NULL ||
                              (owners[count] = pp_loop_take_dead_user(w->loop)) != NULL)) {
            count++;
        }
        if (count > 0) {
            pp_wsgi_lead_attach(self);
        }
        for (int i = 0; i < count; i++) {
            Py_DECREF((PyObject *)owners[i]);
        }
    } while (count == 64);
    if (__atomic_load_n(&w->core->drain_requested, __ATOMIC_ACQUIRE)) {
        pp_core_apply_requests(w->core);
    }
}

static void keep_spare(struct pp_wsgi *w);

/* Leads until the leadership is lost or given away; the manager returns with it (word != 0) when it
 * is time to end. Begins and ends detached. */
static void lead(struct pp_wsgi_worker *self)
{
    struct pp_wsgi *w = self->w;
    pp_loop_adopt(w->loop);
    for (;;) {
        pp_wsgi_op_messages(w);
        if (!pp_wsgi_op_serve(self)) {
            pp_wsgi_lead_detach(self);
            return;
        }
        release(self);
        pp_wsgi_lead_detach(self);
        if (must_end(w)) {
            if (!self->manager) {
                give_to_manager(self);
            }
            return;
        }
        if (self->manager) {
            run_signal_handlers(self);
            keep_spare(w); /* it parks, and wakes the loop */
            if (has_parked(w)) {
                pp_wsgi_lead_hand_over(self);
                return;
            }
        }
        bool more =
            !self->manager && (!pp_list_empty(&w->ready) || !pp_list_empty(&w->transports_ready));
        int rc = pp_loop_turn(w->loop, more ? 0 : -1);
        if (rc < 0) {
            w->failure = rc;
        }
    }
}

/* ---- threads ---- */

static PyObject *thread_main(PyObject *Py_UNUSED(core), PyObject *capsule)
{
    struct pp_wsgi_worker *self = PyCapsule_GetPointer(capsule, NULL);
    if (self == NULL) {
        return NULL;
    }
    struct pp_wsgi *w = self->w;
    this_worker = self;
    pp_thread_init(&self->os_thread);
    pp_wsgi_lead_detach(self);
    (void)pthread_mutex_lock(&w->mutex);
    for (;;) {
        bool parked = false;
        while (!self->appointed && !w->stopping) {
            if (!parked) {
                self->next_parked = w->parked;
                w->parked = self;
                parked = true;
                if (w->manager_leads) {
                    pp_loop_wake(w->loop);
                }
            }
            (void)pthread_mutex_unlock(&w->mutex);
            pp_park_wait_woken(&self->park);
            (void)pthread_mutex_lock(&w->mutex);
        }
        if (!take_appointment_locked(self)) {
            break;
        }
        (void)pthread_mutex_unlock(&w->mutex);
        lead(self);
        (void)pthread_mutex_lock(&w->mutex);
    }
    w->live_count--;
    self->gone = true;
    (void)pthread_mutex_unlock(&w->mutex);
    pp_park_wake(&w->manager.park);
    pp_wsgi_lead_attach(self);
    this_worker = NULL;
    pp_wsgi_unref(w);
    Py_RETURN_NONE;
}

static PyMethodDef thread_def = {"wsgi_thread", thread_main, METH_O, NULL};

static struct pp_wsgi_worker *worker_new(struct pp_wsgi *w)
{
    struct pp_wsgi_worker *worker = PyMem_Calloc(1, sizeof(*worker));
    if (worker == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    pp_park_init(&worker->park);
    worker->w = w;
    return worker;
}

/* The running threading.Thread for worker, or NULL with an exception. Not on the main thread. */
static PyObject *thread_new(struct pp_wsgi *w, struct pp_wsgi_worker *worker)
{
    PyObject *threading = PyImport_ImportModule("threading");
    PyObject *capsule = PyCapsule_New(worker, NULL, NULL);
    PyObject *target = PyCFunction_New(&thread_def, (PyObject *)w->core);
    PyObject *thread = NULL, *started = NULL;
    if (threading != NULL && capsule != NULL && target != NULL) {
        /* A daemon thread: an application that hangs must not keep the process from ending. */
        PyObject *kwargs = Py_BuildValue(
            "{s:O,s:(O),s:N,s:O}", "target", target, "args", capsule, "name",
            PyUnicode_FromFormat("ppserver-wsgi-%u", w->worker_count + 1), "daemon", Py_True);
        PyObject *class_ = PyObject_GetAttrString(threading, "Thread");
        PyObject *args = PyTuple_New(0);
        if (kwargs != NULL && class_ != NULL && args != NULL) {
            thread = PyObject_Call(class_, args, kwargs);
        }
        Py_XDECREF(args);
        Py_XDECREF(class_);
        Py_XDECREF(kwargs);
        if (thread != NULL) {
            started = PyObject_CallMethod(thread, "start", NULL);
        }
    }
    if (started == NULL) {
        Py_CLEAR(thread);
    }
    Py_XDECREF(started);
    Py_XDECREF(target);
    Py_XDECREF(capsule);
    Py_XDECREF(threading);
    return thread;
}

struct start {
    struct pp_wsgi *w;
    struct pp_wsgi_worker *worker;
    PyObject *exc; /* owned: why there is no thread */
    struct pp_park done;
};

static PyObject *starter_main(PyObject *Py_UNUSED(core), PyObject *capsule)
{
    struct start *start = PyCapsule_GetPointer(capsule, NULL);
    if (start == NULL) {
        return NULL;
    }
    start->worker->thread = thread_new(start->w, start->worker);
    start->exc = PyErr_GetRaisedException();
    pp_park_wake(&start->done); /* start is gone from here on */
    Py_RETURN_NONE;
}

static PyMethodDef starter_def = {"wsgi_starter", starter_main, METH_O, NULL};

/* Starts worker's thread from a short-lived one: signal handlers run on the main thread between any
 * two steps of threading.Thread, and after one that raises nobody could tell whether there is a
 * thread. -1 with an exception: there is none. */
static int thread_start(struct pp_wsgi *w, struct pp_wsgi_worker *worker)
{
    struct start start = {.w = w, .worker = worker};
    pp_park_init(&start.done);
    PyObject *thread = PyImport_ImportModule("_thread");
    PyObject *capsule = PyCapsule_New(&start, NULL, NULL);
    PyObject *starter = PyCFunction_New(&starter_def, (PyObject *)w->core);
    PyObject *started = NULL;
    if (thread != NULL && capsule != NULL && starter != NULL) {
        started = PyObject_CallMethod(thread, "start_new_thread", "O(O)", starter, capsule);
    }
    if (started != NULL) {
        Py_BEGIN_ALLOW_THREADS;
        pp_park_wait_woken(&start.done);
        Py_END_ALLOW_THREADS;
    }
    pp_park_fini(&start.done);
    Py_XDECREF(starter);
    Py_XDECREF(capsule);
    Py_XDECREF(thread);
    if (started == NULL) {
        return -1;
    }
    Py_DECREF(started);
    if (start.exc != NULL) {
        PyErr_SetRaisedException(start.exc);
        return -1;
    }
    return 0;
}

/* One thread more. Manager, attached; -1 with an exception. */
static int spawn(struct pp_wsgi *w)
{
    struct pp_wsgi_worker *worker = worker_new(w);
    if (worker == NULL) {
        return -1;
    }
    pp_wsgi_ref(w); /* the thread's */
    (void)pthread_mutex_lock(&w->mutex);
    w->live_count++;
    (void)pthread_mutex_unlock(&w->mutex);
    if (thread_start(w, worker) < 0) {
        (void)pthread_mutex_lock(&w->mutex);
        w->live_count--;
        (void)pthread_mutex_unlock(&w->mutex);
        pp_park_fini(&worker->park);
        PyMem_Free(worker);
        pp_wsgi_unref(w);
        return -1;
    }
    w->workers[w->worker_count++] = worker;
    return 0;
}

/* Manager, detached: keeps one thread parked while the limit allows. */
static void keep_spare(struct pp_wsgi *w)
{
    if (w->worker_count >= w->threads_max || has_parked(w)) {
        return;
    }
    pp_wsgi_lead_attach(&w->manager);
    if (spawn(w) < 0) {
        /* Out of threads: go on with those that are there. */
        w->threads_max = w->worker_count;
        pp_core_report_error(w->core, NULL);
    }
    run_signal_handlers(&w->manager); /* for a signal that came while it waited for the thread */
}

/* ---- the manager ---- */

/* Waits for the next tick, or sleeps when no call has come for a while. */
static enum pp_park_end wait_tick(struct pp_wsgi *w, uint64_t word, int *quiet, bool *slept)
{
    struct pp_park *park = &w->manager.park;
    *slept = false;
    if (*quiet < PP_WSGI_QUIET_TICKS) {
        return pp_park_wait(park, PP_WSGI_TICK_US);
    }
    __atomic_store_n(&w->watch_asleep, true, __ATOMIC_SEQ_CST);
    enum pp_park_end end = PP_PARK_WOKEN;
    if (__atomic_load_n(&w->lead, __ATOMIC_SEQ_CST) == word) {
        end = pp_park_wait(park, PP_WSGI_SLEEP_US);
        *slept = true;
    }
    __atomic_store_n(&w->watch_asleep, false, __ATOMIC_SEQ_CST);
    *quiet = 0;
    return end;
}

/* The call that the watch saw last. */
struct sight {
    uint64_t word;   /* of w->lead; 0 = none yet */
    uint64_t cpu_us; /* the leader's processor time when it was first seen */
};

static const struct pp_thread *leading_thread(struct pp_wsgi *w)
{
    return &__atomic_load_n(&w->leader, __ATOMIC_ACQUIRE)->os_thread;
}

static void first_sight(struct pp_wsgi *w, uint64_t word, struct sight *sight)
{
    sight->word = word;
    if (word & 1) {
        sight->cpu_us = pp_thread_cpu_us(leading_thread(w));
    }
}

enum pace { PACE_FINE, PACE_COMPUTES, PACE_WAITS };

/* Why a call that is seen again should go on without the lead, if it should. */
static enum pace pace_of(struct pp_wsgi *w, const struct sight *sight)
{
    const struct pp_thread *thread = leading_thread(w);
    if (pp_thread_cpu_us(thread) - sight->cpu_us >= PP_WSGI_COMPUTE_US) {
        return PACE_COMPUTES;
    }
    return pp_thread_runs(thread) ? PACE_FINE : PACE_WAITS;
}

/* Somebody else leads while the call goes on. Detached. */
static void relieve(struct pp_wsgi *w, uint64_t word, enum pace pace)
{
    keep_spare(w);
    if (steal(w, word, false)) {
        if (pace == PACE_WAITS) {
            learn(w, true);
        }
        keep_spare(w);
    }
}

/* Until the manager leads and it is time to end. Detached. */
static void watch(struct pp_wsgi *w)
{
    struct pp_wsgi_worker *manager = &w->manager;
    struct sight sight = {.word = 0};
    int quiet = 0;
    for (;;) {
        if (take_appointment(manager)) {
            lead(manager);
            if (manager->word != 0) {
                return;
            }
        }
        uint64_t word = __atomic_load_n(&w->lead, __ATOMIC_SEQ_CST);
        bool stop = __atomic_load_n(&w->stop_requested, __ATOMIC_ACQUIRE);
        if (stop) {
            if ((word & 1) && steal(w, word, true)) {
                continue;
            }
            pp_loop_wake(w->loop); /* the leader gives its place to the manager */
        } else if ((word & 1) && word == sight.word) {
            enum pace pace = pace_of(w, &sight);
            if (pace != PACE_FINE) {
                relieve(w, word, pace);
                sight.word = 0;
                continue;
            }
        }
        quiet = (word & 1) || word != sight.word ? 0 : quiet + 1;
        if (word != sight.word) {
            first_sight(w, word, &sight);
        }
        bool slept;
        enum pp_park_end end = wait_tick(w, word, &quiet, &slept);
        if (end == PP_PARK_SIGNAL || slept) {
            run_signal_handlers(manager);
        }
    }
}

/* stop(): everybody hears that the peer is gone, and calls get a moment to end. Leader, detached.
 */
static void abort_all(struct pp_wsgi *w)
{
    uint64_t until = pp_park_now_us() + PP_WSGI_HANG_US;
    pp_loop_unlisten(w->loop);
    pp_loop_abort(w->loop);
    do {
        pp_wsgi_op_messages(w);
        (void)pp_wsgi_op_serve(&w->manager);
        release(&w->manager);
        pp_wsgi_lead_detach(&w->manager);
        if (pp_loop_in_flight(w->loop) == 0) {
            break;
        }
    } while (pp_loop_turn(w->loop, 20) >= 0 && pp_park_now_us() < until);
}

/* Ends parked threads; those inside a call end by themselves, or never. Leader, detached. */
static void end_threads(struct pp_wsgi *w)
{
    struct pp_wsgi_worker *worker;
    uint32_t left;
    (void)pthread_mutex_lock(&w->mutex);
    w->stopping = w->ended = true;
    w->manager_leads = false;
    left = w->live_count;
    while ((worker = pop_parked_locked(w)) != NULL) {
        left--;
        pp_park_wake(&worker->park);
    }
    (void)pthread_mutex_unlock(&w->mutex);
    pp_wsgi_op_messages(w); /* what was posted before `ended` */
    pp_wsgi_op_abandon(w);
    for (;;) {
        (void)pthread_mutex_lock(&w->mutex);
        bool gone = w->live_count <= left;
        (void)pthread_mutex_unlock(&w->mutex);
        if (gone) {
            break;
        }
        (void)pp_park_wait(&w->manager.park, PP_WSGI_SLEEP_US);
    }
}

/* Waits until the threads that have nothing left to do are gone. Attached. */
static void join_threads(struct pp_wsgi *w)
{
    for (uint32_t i = 0; i < w->worker_count; i++) {
        struct pp_wsgi_worker *worker = w->workers[i];
        (void)pthread_mutex_lock(&w->mutex);
        bool gone = worker->gone;
        (void)pthread_mutex_unlock(&w->mutex);
        PyObject *thread = worker->thread;
        worker->thread = NULL;
        if (gone && thread != NULL) {
            PyObject *joined = PyObject_CallMethod(thread, "join", NULL);
            if (joined == NULL && w->interruption == NULL) {
                w->interruption = PyErr_GetRaisedException();
            }
            PyErr_Clear();
            Py_XDECREF(joined);
        }
        Py_XDECREF(thread);
    }
}

int pp_wsgi_lead_manage(struct pp_wsgi *w)
{
    /* Before the first thread is there to read them. */
    pp_thread_init(&w->manager.os_thread);
    appoint_locked(w, &w->manager);
    __atomic_store_n(&w->lead, 2, __ATOMIC_SEQ_CST);
    if (spawn(w) < 0) {
        w->ended = true;
        return -1;
    }
    pp_wsgi_lead_detach(&w->manager);
    watch(w);
    if (__atomic_load_n(&w->stop_requested, __ATOMIC_ACQUIRE)) {
        abort_all(w);
    }
    end_threads(w);
    w->manager.word = 0;
    pp_wsgi_lead_attach(&w->manager);
    pp_wsgi_drop_left(w);
    join_threads(w);
    if (w->interruption != NULL) {
        PyObject *exc = w->interruption;
        w->interruption = NULL;
        PyErr_SetRaisedException(exc);
        return -1;
    }
    if (w->failure != PP_OK) {
        pp_raise_code(w->core, w->failure);
        return -1;
    }
    return 0;
}
