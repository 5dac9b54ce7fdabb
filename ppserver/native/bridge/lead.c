/* The executor: its life, and what is asked of the leader (contract: lead.h; lead_word.c has who
 * leads). */
#include "bridge/lead.h"
#include "bridge/forked.h"
#include "bridge/lead_word.h"

/* ---- life ---- */

static bool apply_chores(struct pp_lead_op *op);

struct pp_lead *pp_lead_new(PpCore *core, size_t bytes, int threads, const struct pp_lead_ops *ops)
{
    PP_ASSERT(bytes >= sizeof(struct pp_lead));
    if (pp_core_check_open(core) < 0) {
        return NULL;
    }
    if (core->mode != &pp_mode_none) {
        PyErr_SetString(PyExc_RuntimeError, "the core already serves an application");
        return NULL;
    }
    if (threads < 1 || threads > PP_LEAD_THREADS_MAX) {
        PyErr_Format(PyExc_ValueError, "threads: expected 1 to %d, got %d", PP_LEAD_THREADS_MAX,
                     threads);
        return NULL;
    }
    struct pp_lead *lead = PyMem_Calloc(1, bytes);
    struct pp_lead_worker **workers = PyMem_Calloc((size_t)threads, sizeof(*workers));
    if (lead == NULL || workers == NULL) {
        PyMem_Free(lead);
        PyMem_Free(workers);
        PyErr_NoMemory();
        return NULL;
    }
    lead->ops = ops;
    lead->refs = 1;
    lead->core = core;
    lead->loop = core->loop;
    lead->threads_max = (uint32_t)threads;
    lead->workers = workers;
    lead->chores_op.apply = apply_chores;
    lead->manager.lead = lead;
    lead->manager.manager = true;
    pp_park_init(&lead->manager.park);
    pp_park_init(&lead->manager.answered);
    (void)pthread_mutex_init(&lead->mutex, NULL);
    return lead;
}

void pp_lead_ref(struct pp_lead *lead)
{
    (void)__atomic_add_fetch(&lead->refs, 1, __ATOMIC_RELAXED);
}

static void worker_fini(struct pp_lead_worker *worker)
{
    pp_park_fini(&worker->park);
    pp_park_fini(&worker->answered);
    Py_CLEAR(worker->thread);
}

void pp_lead_unref(struct pp_lead *lead)
{
    if (__atomic_sub_fetch(&lead->refs, 1, __ATOMIC_ACQ_REL) > 0) {
        return;
    }
    PP_ASSERT(lead->live_count == 0);
    for (uint32_t i = 0; i < lead->worker_count; i++) {
        worker_fini(lead->workers[i]);
        PyMem_Free(lead->workers[i]);
    }
    PyMem_Free(lead->workers);
    worker_fini(&lead->manager);
    (void)pthread_mutex_destroy(&lead->mutex);
    pp_lead_drop_spent(lead);
    lead->ops->fini(lead);
    Py_CLEAR(lead->interruption);
    PyMem_Free(lead);
}

static int traverse(PpCore *core, visitproc visit, void *arg)
{
    struct pp_lead *lead = core->lead;
    return lead != NULL ? lead->ops->traverse(lead, visit, arg) : 0;
}

static void clear(PpCore *core)
{
    struct pp_lead *lead = core->lead;
    if (lead == NULL) {
        return;
    }
    PP_CHECK(!lead->running || lead->ended);
    core->lead = NULL;
    if (core->loop != NULL) {
        pp_loop_adopt(core->loop); /* whoever closes it */
    }
    pp_lead_unref(lead); /* calls that never end keep the rest */
}

static uint64_t waiting_ms(const PpCore *core)
{
    const struct pp_lead *lead = core->lead;
    uint64_t since = lead == NULL ? 0 : __atomic_load_n(&lead->waiting_since_ms, __ATOMIC_RELAXED);
    uint64_t now = pp_loop_clock_ms();
    return since == 0 || now < since ? 0 : now - since;
}

static void wake(PpCore *core)
{
    if (core->lead != NULL) {
        pp_park_wake(&core->lead->manager.park);
    }
}

static void stop(PpCore *core)
{
    if (core->lead != NULL) {
        __atomic_store_n(&core->lead->stop_requested, true, __ATOMIC_RELEASE);
        pp_park_wake(&core->lead->manager.park);
        pp_loop_wake(core->loop);
    }
}

const struct pp_mode pp_lead_mode = {
    .wake = wake,
    .stop = stop,
    .clear = clear,
    .traverse = traverse,
    .waiting_ms = waiting_ms,
};

/* ---- what is asked of the leader ---- */

/* False when nobody leads, any more or yet. */
static bool post(struct pp_lead *lead, struct pp_lead_op *op)
{
    (void)pthread_mutex_lock(&lead->mutex);
    bool leads = lead->running && !lead->ended;
    if (leads) {
        pp_loop_post(lead->loop, &op->msg);
    }
    (void)pthread_mutex_unlock(&lead->mutex);
    return leads;
}

void pp_lead_op_done(struct pp_lead_op *op)
{
    pp_park_wake(op->park);
}

void pp_lead_messages(struct pp_lead *lead)
{
    struct pp_msg *msg;
    while ((msg = pp_loop_take_msg(lead->loop)) != NULL) {
        struct pp_lead_op *op = PP_CONTAINER(msg, struct pp_lead_op, msg);
        struct pp_park *park = op->park;
        if (!op->apply(op)) {
            continue;
        }
        if (park != NULL) {
            pp_park_wake(park);
        } else {
            msg->next = lead->spent;
            lead->spent = msg;
        }
    }
}

/* Until the op is done. The thread that runs run_wsgi may be asked to lead meanwhile, when every
 * other one is busy, and then does what it waits for itself. Detached. */
static void wait_done(struct pp_lead_worker *self, struct pp_park *park)
{
    if (PP_LIKELY(self == NULL || !self->manager)) {
        pp_park_wait_woken(park);
        return;
    }
    while (pp_park_wait(park, PP_LEAD_TICK_US) != PP_PARK_WOKEN) {
        if (pp_lead_take(self)) {
            pp_loop_adopt(self->lead->loop);
            pp_lead_messages(self->lead);
            pp_lead_leave(self);
        }
    }
}

bool pp_lead_ask(struct pp_lead *lead, struct pp_lead_op *op)
{
    struct pp_lead_worker *self = pp_lead_self();
    struct pp_park own; /* of a thread of the application */
    bool posted;
    if (PP_UNLIKELY(lead->forked)) {
        pp_forked_end(lead->core, NULL);
    }
    if (self == NULL) {
        pp_park_init(&own);
    }
    op->park = self != NULL ? &self->answered : &own;
    Py_BEGIN_ALLOW_THREADS;
    posted = post(lead, op);
    if (posted) {
        wait_done(self, op->park);
    }
    Py_END_ALLOW_THREADS;
    if (self == NULL) {
        pp_park_fini(&own);
    }
    return posted;
}

void pp_lead_await(struct pp_lead_worker *self, struct pp_lead_op *op)
{
    op->park = &self->answered;
    pp_lead_hand_over(self);
    Py_BEGIN_ALLOW_THREADS;
    pp_park_wait_woken(&self->answered);
    Py_END_ALLOW_THREADS;
}

int pp_lead_send(struct pp_lead *lead, PyObject *object, bool (*apply)(struct pp_lead_op *op))
{
    if (PP_UNLIKELY(lead->forked)) {
        pp_forked_end(lead->core, NULL);
    }
    struct pp_lead_errand *errand = pp_mem_zalloc(sizeof(*errand));
    if (errand == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    errand->op.apply = apply;
    errand->object = Py_NewRef(object);
    if (!post(lead, &errand->op)) {
        pp_mem_free(errand, sizeof(*errand));
        Py_DECREF(object);
    }
    return 0;
}

/* The object of an errand that is done, the reference is the caller's; or NULL. */
static PyObject *take_spent(struct pp_lead *lead)
{
    struct pp_msg *msg = lead->spent;
    if (PP_LIKELY(msg == NULL)) {
        return NULL;
    }
    struct pp_lead_errand *errand = PP_CONTAINER(msg, struct pp_lead_errand, op.msg);
    PyObject *object = errand->object;
    lead->spent = msg->next;
    pp_mem_free(errand, sizeof(*errand));
    return object;
}

void pp_lead_drop_spent(struct pp_lead *lead)
{
    PyObject *object;
    while ((object = take_spent(lead)) != NULL) {
        Py_DECREF(object);
    }
}

static bool apply_chores(struct pp_lead_op *op)
{
    struct pp_lead *lead = PP_CONTAINER(op, struct pp_lead, chores_op);
    lead->ops->do_chores(lead);
    __atomic_store_n(&lead->chores_asked, false, __ATOMIC_RELEASE);
    return false; /* it may be posted again already */
}

void pp_lead_ask_chores(struct pp_lead *lead)
{
    if (!__atomic_exchange_n(&lead->chores_asked, true, __ATOMIC_ACQ_REL)) {
        (void)post(lead, &lead->chores_op); /* at the end, nothing needs any */
    }
}

/* ---- leading ---- */

bool pp_lead_serve(struct pp_lead_worker *self)
{
    struct pp_lead *lead = self->lead;
    const struct pp_lead_ops *ops = lead->ops;
    struct pp_exchange *ex;
    unsigned events;
    if (!self->manager && !ops->run_waiting(self)) {
        return false;
    }
    while ((ex = pp_loop_take_event(lead->loop, &events)) != NULL) {
        if (!ops->on_event(self, ex, events)) {
            return false;
        }
        if (__atomic_load_n(&lead->stop_requested, __ATOMIC_RELAXED) && !self->manager) {
            break;
        }
    }
    return true;
}

/* Signal handlers, on the thread that runs run_wsgi (a no-op where it is not the main thread). */
void pp_lead_signals(struct pp_lead_worker *manager)
{
    struct pp_lead *lead = manager->lead;
    pp_lead_attach(manager);
    int rc = PyErr_CheckSignals();
    if (PP_UNLIKELY(lead->forked)) {
        pp_forked_end(lead->core, NULL);
    }
    if (rc < 0) {
        PyObject *exc = PyErr_GetRaisedException();
        if (lead->interruption == NULL) {
            lead->interruption = exc;
        } else {
            Py_XDECREF(exc);
        }
        __atomic_store_n(&lead->stop_requested, true, __ATOMIC_RELEASE);
    }
    pp_lead_detach(manager);
}

/* Up to `count` references that the loop has no more use for. */
static int take_released(struct pp_lead *lead, void **owners, int count)
{
    int taken = 0;
    while (taken < count && ((owners[taken] = pp_loop_take_released(lead->loop)) != NULL ||
                             (owners[taken] = pp_loop_take_dead_user(lead->loop)) != NULL ||
                             (owners[taken] = take_spent(lead)) != NULL)) {
        taken++;
    }
    return taken;
}

bool pp_lead_release(struct pp_lead_worker *self)
{
    struct pp_lead *lead = self->lead;
    void *owners[64];
    int count;
    while ((count = take_released(lead, owners, 64)) > 0) {
        pp_lead_attach(self);
        pp_lead_leave(self);
        for (int i = 0; i < count; i++) {
            Py_DECREF((PyObject *)owners[i]);
        }
        if (!pp_lead_enter(self)) {
            return false;
        }
    }
    if (__atomic_load_n(&lead->core->drain_requested, __ATOMIC_ACQUIRE)) {
        pp_core_apply_requests(lead->core);
    }
    return true;
}
