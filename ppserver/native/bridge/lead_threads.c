/* The threads of a context (contract: lead.h): started one by one, as long as none is parked and
 * the limit allows; each parks, leads when it is appointed, and parks again. */
#include "bridge/lead_threads.h"
#include "bridge/forked.h"
#include "bridge/lead.h"
#include "bridge/lead_word.h"

/* ---- leading ---- */

static bool must_end(struct pp_lead *lead)
{
    if (__atomic_load_n(&lead->stop_requested, __ATOMIC_ACQUIRE)) {
        return true;
    }
    if (lead->failure != PP_OK || pp_loop_drained(lead->loop)) {
        __atomic_store_n(&lead->done, true, __ATOMIC_RELEASE);
        return true;
    }
    return false;
}

/* The manager, before a turn: how long that may wait. */
static int manager_wait_ms(struct pp_lead *lead)
{
    if (pp_lead_has_chores(lead)) {
        lead->ops->do_chores(lead);
    }
    return lead->spawn_after_us != 0  ? PP_LEAD_SPAWN_RETRY_US / 1000
           : pp_lead_has_chores(lead) ? PP_LEAD_CHORE_MS
                                      : -1;
}

void pp_lead_threads_turn(struct pp_lead_worker *self)
{
    struct pp_lead *lead = self->lead;
    pp_loop_adopt(lead->loop);
    for (;;) {
        pp_lead_messages(lead);
        if (!pp_lead_serve(self)) {
            pp_lead_detach(self);
            return;
        }
        bool leads = pp_lead_release(self);
        pp_lead_detach(self);
        if (!leads) {
            return;
        }
        if (must_end(lead)) {
            if (!self->manager) {
                pp_lead_to_manager(self);
            }
            return;
        }
        if (self->manager) {
            pp_lead_leave(self);
            pp_lead_signals(self);
            pp_lead_threads_keep_spare(lead); /* it parks, and wakes the loop */
            (void)pp_lead_enter(self);        /* only the manager itself takes the lead away */
            if (pp_lead_spare(lead)) {
                pp_lead_hand_over(self);
                return;
            }
        }
        int wait_ms = !self->manager && lead->ops->waits(lead) ? 0 : -1;
        if (self->manager) {
            wait_ms = manager_wait_ms(lead);
        }
        int rc = pp_loop_turn(lead->loop, wait_ms);
        if (rc < 0) {
            lead->failure = rc;
        }
    }
}

/* ---- threads ---- */

static PyObject *thread_main(PyObject *Py_UNUSED(core), PyObject *capsule)
{
    struct pp_lead_worker *self = PyCapsule_GetPointer(capsule, NULL);
    if (self == NULL) {
        return NULL;
    }
    struct pp_lead *lead = self->lead;
    (void)pp_lead_bind(self);
    pp_thread_init(&self->os_thread);
    pp_lead_detach(self);
    (void)pthread_mutex_lock(&lead->mutex);
    for (;;) {
        bool parked = false;
        while (!self->appointed && !lead->stopping) {
            if (!parked) {
                self->next_parked = lead->parked;
                lead->parked = self;
                parked = true;
                if (lead->manager_leads) {
                    pp_loop_wake(lead->loop);
                }
            }
            (void)pthread_mutex_unlock(&lead->mutex);
            pp_park_wait_woken(&self->park);
            (void)pthread_mutex_lock(&lead->mutex);
        }
        if (!pp_lead_take_locked(self)) {
            break;
        }
        (void)pthread_mutex_unlock(&lead->mutex);
        pp_lead_threads_turn(self);
        if (PP_UNLIKELY(lead->forked)) { /* in a finaliser, say */
            pp_lead_attach(self);
            pp_forked_end(lead->core, NULL);
        }
        (void)pthread_mutex_lock(&lead->mutex);
    }
    lead->live_count--;
    self->gone = true;
    (void)pthread_mutex_unlock(&lead->mutex);
    pp_park_wake(&lead->manager.park);
    pp_lead_attach(self);
    (void)pp_lead_bind(NULL);
    pp_lead_unref(lead);
    Py_RETURN_NONE;
}

static PyMethodDef thread_def = {"lead_thread", thread_main, METH_O, NULL};

static struct pp_lead_worker *worker_new(struct pp_lead *lead)
{
    struct pp_lead_worker *worker = PyMem_Calloc(1, sizeof(*worker));
    if (worker == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    pp_park_init(&worker->park);
    pp_park_init(&worker->answered);
    worker->lead = lead;
    return worker;
}

/* The running threading.Thread for worker, or NULL with an exception. Not on the main thread. */
static PyObject *thread_new(struct pp_lead *lead, struct pp_lead_worker *worker)
{
    PyObject *threading = PyImport_ImportModule("threading");
    PyObject *capsule = PyCapsule_New(worker, NULL, NULL);
    PyObject *target = PyCFunction_New(&thread_def, (PyObject *)lead->core);
    PyObject *thread = NULL, *started = NULL;
    if (threading != NULL && capsule != NULL && target != NULL) {
        /* A daemon thread: an application that hangs must not keep the process from ending. */
        PyObject *kwargs = Py_BuildValue(
            "{s:O,s:(O),s:N,s:O}", "target", target, "args", capsule, "name",
            PyUnicode_FromFormat("%s-%u", lead->ops->thread_name, lead->worker_count + 1), "daemon",
            Py_True);
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
    struct pp_lead *lead;
    struct pp_lead_worker *worker;
    PyObject *exc; /* owned: why there is no thread */
    struct pp_park done;
};

static PyObject *starter_main(PyObject *Py_UNUSED(core), PyObject *capsule)
{
    struct start *start = PyCapsule_GetPointer(capsule, NULL);
    if (start == NULL) {
        return NULL;
    }
    start->worker->thread = thread_new(start->lead, start->worker);
    start->exc = PyErr_GetRaisedException();
    pp_park_wake(&start->done); /* start is gone from here on */
    Py_RETURN_NONE;
}

static PyMethodDef starter_def = {"lead_starter", starter_main, METH_O, NULL};

/* Starts worker's thread from a short-lived one: signal handlers run on the main thread between any
 * two steps of threading.Thread, and after one that raises nobody could tell whether there is a
 * thread. -1 with an exception: there is none. */
static int thread_start(struct pp_lead *lead, struct pp_lead_worker *worker)
{
    struct start start = {.lead = lead, .worker = worker};
    pp_park_init(&start.done);
    PyObject *thread = PyImport_ImportModule("_thread");
    PyObject *capsule = PyCapsule_New(&start, NULL, NULL);
    PyObject *starter = PyCFunction_New(&starter_def, (PyObject *)lead->core);
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
int pp_lead_threads_spawn(struct pp_lead *lead)
{
    struct pp_lead_worker *worker = worker_new(lead);
    if (worker == NULL) {
        return -1;
    }
    pp_lead_ref(lead); /* the thread's */
    (void)pthread_mutex_lock(&lead->mutex);
    lead->live_count++;
    (void)pthread_mutex_unlock(&lead->mutex);
    if (thread_start(lead, worker) < 0) {
        (void)pthread_mutex_lock(&lead->mutex);
        lead->live_count--;
        (void)pthread_mutex_unlock(&lead->mutex);
        pp_park_fini(&worker->park);
        pp_park_fini(&worker->answered);
        PyMem_Free(worker);
        pp_lead_unref(lead);
        return -1;
    }
    lead->workers[lead->worker_count] = worker;
    __atomic_store_n(&lead->worker_count, lead->worker_count + 1,
                     __ATOMIC_RELEASE); /* leaders read it */
    return 0;
}

/* Manager, detached: keeps one thread parked while the limit allows. */
void pp_lead_threads_keep_spare(struct pp_lead *lead)
{
    if (lead->worker_count >= lead->threads_max || pp_lead_spare(lead) ||
        (lead->spawn_after_us != 0 && pp_loop_clock_us() < lead->spawn_after_us)) {
        return;
    }
    pp_lead_attach(&lead->manager);
    if (pp_lead_threads_spawn(lead) == 0) {
        lead->spawn_after_us = 0;
    } else {
        /* Out of threads: go on with those that are there, and try again. Told once until it works.
         */
        if (lead->spawn_after_us == 0) {
            pp_core_report_error(lead->core, NULL);
        }
        PyErr_Clear();
        lead->spawn_after_us = pp_loop_clock_us() + PP_LEAD_SPAWN_RETRY_US;
    }
    pp_lead_signals(&lead->manager); /* for a signal that came while it waited for the thread */
}

/* Waits until the threads that have nothing left to do are gone. Attached. */
void pp_lead_threads_join(struct pp_lead *lead)
{
    for (uint32_t i = 0; i < lead->worker_count; i++) {
        struct pp_lead_worker *worker = lead->workers[i];
        (void)pthread_mutex_lock(&lead->mutex);
        bool gone = worker->gone;
        (void)pthread_mutex_unlock(&lead->mutex);
        PyObject *thread = worker->thread;
        worker->thread = NULL;
        if (gone && thread != NULL) {
            PyObject *joined = PyObject_CallMethod(thread, "join", NULL);
            if (joined == NULL && lead->interruption == NULL) {
                lead->interruption = PyErr_GetRaisedException();
            }
            PyErr_Clear();
            Py_XDECREF(joined);
        }
        Py_XDECREF(thread);
    }
}
