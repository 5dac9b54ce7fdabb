/* Threads of a WSGI context, and the manager among them (wsgi_lead.c has who leads).
 *
 * Threads are started one by one, as long as none is parked and the limit allows; each parks, leads
 * when it is appointed, and parks again. The manager is the thread inside run_wsgi: it watches the
 * leader by ticks, takes the lead from a call that is slow, leads itself when every thread is busy,
 * and ends them all. */
#include "bridge/forked.h"
#include "bridge/wsgi.h"

/* ---- threads ---- */

static PyObject *thread_main(PyObject *Py_UNUSED(core), PyObject *capsule)
{
    struct pp_wsgi_worker *self = PyCapsule_GetPointer(capsule, NULL);
    if (self == NULL) {
        return NULL;
    }
    struct pp_wsgi *w = self->w;
    (void)pp_wsgi_lead_bind(self);
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
        if (!pp_wsgi_lead_take_locked(self)) {
            break;
        }
        (void)pthread_mutex_unlock(&w->mutex);
        pp_wsgi_lead_turn(self);
        if (PP_UNLIKELY(w->forked)) { /* in a finaliser, say */
            pp_wsgi_lead_attach(self);
            pp_forked_end(w->core, NULL);
        }
        (void)pthread_mutex_lock(&w->mutex);
    }
    w->live_count--;
    self->gone = true;
    (void)pthread_mutex_unlock(&w->mutex);
    pp_park_wake(&w->manager.park);
    pp_wsgi_lead_attach(self);
    (void)pp_wsgi_lead_bind(NULL);
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
    w->workers[w->worker_count] = worker;
    __atomic_store_n(&w->worker_count, w->worker_count + 1, __ATOMIC_RELEASE); /* leaders read it */
    return 0;
}

/* Manager, detached: keeps one thread parked while the limit allows. */
void pp_wsgi_threads_keep_spare(struct pp_wsgi *w)
{
    if (w->worker_count >= w->threads_max || pp_wsgi_lead_spare(w) ||
        (w->spawn_after_us != 0 && pp_park_now_us() < w->spawn_after_us)) {
        return;
    }
    pp_wsgi_lead_attach(&w->manager);
    if (spawn(w) == 0) {
        w->spawn_after_us = 0;
    } else {
        /* Out of threads: go on with those that are there, and try again. Told once until it works.
         */
        if (w->spawn_after_us == 0) {
            pp_core_report_error(w->core, NULL);
        }
        PyErr_Clear();
        w->spawn_after_us = pp_park_now_us() + PP_WSGI_SPAWN_RETRY_US;
    }
    pp_wsgi_lead_signals(&w->manager); /* for a signal that came while it waited for the thread */
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
        end = pp_park_wait(park, pp_wsgi_head_any(w) ? PP_WSGI_HEAD_MS * 1000 : PP_WSGI_SLEEP_US);
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
    pp_wsgi_threads_keep_spare(w);
    if (pp_wsgi_lead_steal(w, word, false)) {
        if (pace == PACE_WAITS) {
            pp_wsgi_lead_learn(w, true);
        }
        pp_wsgi_threads_keep_spare(w);
    }
}

/* Until the manager leads and it is time to end. Detached. */
static void watch(struct pp_wsgi *w)
{
    struct pp_wsgi_worker *manager = &w->manager;
    struct sight sight = {.word = 0};
    int quiet = 0;
    uint32_t ticks = 0;
    for (;;) {
        /* It may have taken the lead already, while it waited for something (pp_wsgi_op_ask). */
        if (pp_wsgi_lead_take(manager) || (manager->word != 0 && pp_wsgi_lead_enter(manager))) {
            pp_wsgi_lead_turn(manager);
            if (manager->word != 0) {
                return;
            }
        }
        uint64_t word = __atomic_load_n(&w->lead, __ATOMIC_SEQ_CST);
        bool stop = __atomic_load_n(&w->stop_requested, __ATOMIC_ACQUIRE);
        if (stop) {
            if ((word & 1) && pp_wsgi_lead_steal(w, word, true)) {
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
        if ((slept || ++ticks % PP_WSGI_HEAD_TICKS == 0) && pp_wsgi_head_any(w)) {
            pp_wsgi_op_post_heads(w);
        }
        if (end == PP_PARK_SIGNAL || slept) {
            pp_wsgi_lead_signals(manager);
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
        (void)pp_wsgi_lead_release(&w->manager);
        pp_wsgi_lead_detach(&w->manager);
        if (pp_loop_in_flight(w->loop) == 0) {
            break;
        }
    } while (pp_loop_turn(w->loop, 20) >= 0 && pp_park_now_us() < until);
}

/* Nobody leads from now on; what was asked before that is done. Leader or before the first. */
static void end_lead(struct pp_wsgi *w)
{
    (void)pthread_mutex_lock(&w->mutex);
    w->ended = true;
    (void)pthread_mutex_unlock(&w->mutex);
    pp_loop_adopt(w->loop);
    pp_wsgi_op_messages(w);
}

/* Ends parked threads; those inside a call end by themselves, or never. Leader, detached. */
static void end_threads(struct pp_wsgi *w)
{
    struct pp_wsgi_worker *worker;
    uint32_t left;
    (void)pthread_mutex_lock(&w->mutex);
    w->stopping = true;
    w->manager_leads = false;
    left = w->live_count;
    while ((worker = pp_wsgi_lead_pop_locked(w)) != NULL) {
        left--;
        pp_park_wake(&worker->park);
    }
    (void)pthread_mutex_unlock(&w->mutex);
    end_lead(w);
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

/* Everything between the first thread and the last. Attached; -1 with an exception. */
static int manage(struct pp_wsgi *w)
{
    /* Before the first thread is there to read them. */
    pp_thread_init(&w->manager.os_thread);
    pp_wsgi_lead_appoint_locked(w, &w->manager);
    __atomic_store_n(&w->lead, 2, __ATOMIC_SEQ_CST);
    if (spawn(w) < 0) {
        end_lead(w);
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

int pp_wsgi_threads_run(struct pp_wsgi *w)
{
    pp_wsgi_lead_prepare();
    struct pp_wsgi_worker *before = pp_wsgi_lead_bind(&w->manager);
    int rc = manage(w);
    (void)pp_wsgi_lead_bind(before);
    return rc;
}
