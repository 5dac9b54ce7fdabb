/* The manager: the thread inside run_wsgi (contract: lead.h). It watches the leader by ticks, takes
 * the lead from a call that is slow, leads itself when every thread is busy, and ends them all. */
#include "bridge/lead_manager.h"
#include "bridge/lead.h"
#include "bridge/lead_threads.h"
#include "bridge/lead_word.h"

/* Waits for the next tick, or sleeps when no call has come for a while. */
static enum pp_park_end wait_tick(struct pp_lead *lead, uint64_t word, int *quiet, bool *slept)
{
    struct pp_park *park = &lead->manager.park;
    *slept = false;
    if (*quiet < PP_LEAD_QUIET_TICKS) {
        return pp_park_wait(park, PP_LEAD_TICK_US);
    }
    __atomic_store_n(&lead->watch_asleep, true, __ATOMIC_SEQ_CST);
    enum pp_park_end end = PP_PARK_WOKEN;
    if (__atomic_load_n(&lead->word, __ATOMIC_SEQ_CST) == word) {
        end = pp_park_wait(park,
                           pp_lead_has_chores(lead) ? PP_LEAD_CHORE_MS * 1000 : PP_LEAD_SLEEP_US);
        *slept = true;
    }
    __atomic_store_n(&lead->watch_asleep, false, __ATOMIC_SEQ_CST);
    *quiet = 0;
    return end;
}

/* The call that the watch saw last. */
struct sight {
    uint64_t word;   /* of lead->word; 0 = none yet */
    uint64_t cpu_us; /* the leader's processor time when it was first seen */
};

static const struct pp_thread *leading_thread(struct pp_lead *lead)
{
    return &__atomic_load_n(&lead->leader, __ATOMIC_ACQUIRE)->os_thread;
}

static void first_sight(struct pp_lead *lead, uint64_t word, struct sight *sight)
{
    sight->word = word;
    if (word & 1) {
        sight->cpu_us = pp_thread_cpu_us(leading_thread(lead));
    }
}

enum pace { PACE_FINE, PACE_COMPUTES, PACE_WAITS };

/* Why a call that is seen again should go on without the lead, if it should. */
static enum pace pace_of(struct pp_lead *lead, const struct sight *sight)
{
    const struct pp_thread *thread = leading_thread(lead);
    if (pp_thread_cpu_us(thread) - sight->cpu_us >= PP_LEAD_COMPUTE_US) {
        return PACE_COMPUTES;
    }
    return pp_thread_runs(thread) ? PACE_FINE : PACE_WAITS;
}

/* Somebody else leads while the call goes on. Detached. */
static void relieve(struct pp_lead *lead, uint64_t word, enum pace pace)
{
    pp_lead_threads_keep_spare(lead);
    if (pp_lead_steal(lead, word, false)) {
        if (pace == PACE_WAITS) {
            pp_lead_learn(lead, true);
        }
        pp_lead_threads_keep_spare(lead);
    }
}

/* Until the manager leads and it is time to end. Detached. */
static void watch(struct pp_lead *lead)
{
    struct pp_lead_worker *manager = &lead->manager;
    struct sight sight = {.word = 0};
    int quiet = 0;
    uint32_t ticks = 0;
    for (;;) {
        /* It may have taken the lead already, while it waited for something (pp_lead_ask). */
        if (pp_lead_take(manager) || (manager->word != 0 && pp_lead_enter(manager))) {
            pp_lead_threads_turn(manager);
            if (manager->word != 0) {
                return;
            }
        }
        uint64_t word = __atomic_load_n(&lead->word, __ATOMIC_SEQ_CST);
        bool stop = __atomic_load_n(&lead->stop_requested, __ATOMIC_ACQUIRE);
        if (stop) {
            if ((word & 1) && pp_lead_steal(lead, word, true)) {
                continue;
            }
            pp_loop_wake(lead->loop); /* the leader gives its place to the manager */
        } else if ((word & 1) && word == sight.word) {
            enum pace pace = pace_of(lead, &sight);
            if (pace != PACE_FINE) {
                relieve(lead, word, pace);
                sight.word = 0;
                continue;
            }
        }
        quiet = (word & 1) || word != sight.word ? 0 : quiet + 1;
        if (word != sight.word) {
            first_sight(lead, word, &sight);
        }
        bool slept;
        enum pp_park_end end = wait_tick(lead, word, &quiet, &slept);
        if ((slept || ++ticks % PP_LEAD_CHORE_TICKS == 0) && pp_lead_has_chores(lead)) {
            pp_lead_ask_chores(lead);
        }
        if (end == PP_PARK_SIGNAL || slept) {
            pp_lead_signals(manager);
        }
    }
}

/* stop(): everybody hears that the peer is gone, and calls get a moment to end. Leader, detached.
 */
static void abort_all(struct pp_lead *lead)
{
    uint64_t until = pp_loop_clock_us() + PP_LEAD_HANG_US;
    pp_loop_unlisten(lead->loop);
    pp_loop_abort(lead->loop);
    do {
        pp_lead_messages(lead);
        (void)pp_lead_serve(&lead->manager);
        (void)pp_lead_release(&lead->manager);
        pp_lead_detach(&lead->manager);
        if (pp_loop_in_flight(lead->loop) == 0) {
            break;
        }
    } while (pp_loop_turn(lead->loop, 20) >= 0 && pp_loop_clock_us() < until);
}

/* Nobody leads from now on; what was asked before that is done. Leader or before the first. */
static void end_lead(struct pp_lead *lead)
{
    (void)pthread_mutex_lock(&lead->mutex);
    lead->ended = true;
    (void)pthread_mutex_unlock(&lead->mutex);
    pp_loop_adopt(lead->loop);
    pp_lead_messages(lead);
}

/* Lets go of every connection. Leader. */
static void abandon(struct pp_lead *lead)
{
    struct pp_exchange *ex = NULL;
    while ((ex = pp_loop_next_exchange(lead->loop, ex)) != NULL) {
        if (pp_exchange_app(ex) != NULL) {
            lead->ops->abandon(lead, ex);
        }
    }
}

/* Ends parked threads; those inside a call end by themselves, or never. Leader, detached. */
static void end_threads(struct pp_lead *lead)
{
    struct pp_lead_worker *worker;
    uint32_t left;
    (void)pthread_mutex_lock(&lead->mutex);
    lead->stopping = true;
    lead->manager_leads = false;
    left = lead->live_count;
    while ((worker = pp_lead_pop_locked(lead)) != NULL) {
        left--;
        pp_park_wake(&worker->park);
    }
    (void)pthread_mutex_unlock(&lead->mutex);
    end_lead(lead);
    abandon(lead);
    for (;;) {
        (void)pthread_mutex_lock(&lead->mutex);
        bool gone = lead->live_count <= left;
        (void)pthread_mutex_unlock(&lead->mutex);
        if (gone) {
            break;
        }
        (void)pp_park_wait(&lead->manager.park, PP_LEAD_SLEEP_US);
    }
}

/* Everything between the first thread and the last. Attached; -1 with an exception. */
static int manage(struct pp_lead *lead)
{
    /* Before the first thread is there to read them. */
    pp_thread_init(&lead->manager.os_thread);
    pp_lead_appoint_locked(lead, &lead->manager);
    __atomic_store_n(&lead->word, 2, __ATOMIC_SEQ_CST);
    if (pp_lead_threads_spawn(lead) < 0) {
        end_lead(lead);
        return -1;
    }
    pp_lead_detach(&lead->manager);
    watch(lead);
    if (__atomic_load_n(&lead->stop_requested, __ATOMIC_ACQUIRE)) {
        abort_all(lead);
    }
    end_threads(lead);
    lead->manager.word = 0;
    pp_lead_attach(&lead->manager);
    if (lead->ops->ended != NULL) {
        lead->ops->ended(lead);
    }
    pp_lead_drop_spent(lead);
    pp_lead_threads_join(lead);
    if (lead->interruption != NULL) {
        PyObject *exc = lead->interruption;
        lead->interruption = NULL;
        PyErr_SetRaisedException(exc);
        return -1;
    }
    if (lead->failure != PP_OK) {
        pp_raise_code(lead->core, lead->failure);
        return -1;
    }
    return 0;
}

static PyObject *run_wsgi(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PpCore *core = (PpCore *)self;
    if (pp_core_check_open(core) < 0) {
        return NULL;
    }
    struct pp_lead *lead = core->lead;
    bool first = false;
    if (lead != NULL) {
        (void)pthread_mutex_lock(&lead->mutex);
        first = !lead->running;
        lead->running = true;
        (void)pthread_mutex_unlock(&lead->mutex);
    }
    if (!first) {
        PyErr_SetString(PyExc_RuntimeError, lead == NULL ? "serve_wsgi() comes first"
                                                         : "run_wsgi() was already called");
        return NULL;
    }
    pp_lead_ref(lead);
    pp_lead_prepare();
    struct pp_lead_worker *before = pp_lead_bind(&lead->manager);
    int rc = manage(lead);
    (void)pp_lead_bind(before);
    pp_lead_unref(lead);
    if (rc < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyMethodDef pp_lead_methods[] = {
    {"run_wsgi", run_wsgi, METH_NOARGS,
     PyDoc_STR("run_wsgi()\n\nRun the loop until drain() has come to its end or stop() was called. "
               "Requests run on threads of their own, signal handlers on this one.")},
    {NULL, NULL, 0, NULL},
};
