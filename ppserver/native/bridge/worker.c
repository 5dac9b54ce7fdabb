/* The worker Task: requests run inside a real asyncio.Task without creating one each.
 *
 * The core keeps one Task whose coroutine is a PpRunner. For a batch it is entered as the current
 * task once, and with it the Task's own contextvars context; each application gets its first step
 * in there. One that ends in that step leaves the Task to the next request. One that suspends takes
 * the Task over: the runner adopts its coroutine and forwards every later step, and a new Task is
 * made for the others. So an application always sees one current task with one context, before and
 * after it suspends, and they are its own.
 *
 *   IDLE --first step--> PARKED            (waits on a future of its own)
 *   IDLE, PARKED --adopt--> ADOPTED --next step: yields what the application waits for--> RUNNING
 *   IDLE, PARKED --discard--> DISCARDED --next step--> DONE
 *   RUNNING --the application ends--> DONE
 *
 * An IDLE runner is one whose Task has not had its first step yet; it can be adopted as well, and
 * then needs no parking future. The Task is used again only if it is pristine in every way that can
 * be seen: pristine.c. With --task plain and eager, and under a task factory of the application's,
 * each request has a Task of its own: own_task.c. */
#include "bridge/worker.h"
#include "bridge/own_task.h"
#include "bridge/pristine.h"
#include "bridge/runner.h"

/* ---- running a request ---- */

static PyObject *task_new(PpCore *core, PpRunner *runner, PyObject *context)
{
    PyObject *args[] = {core->event_loop, (PyObject *)runner, context};
    PyObject *kwnames = PyTuple_Pack(1, core->k.context);
    if (kwnames == NULL) {
        return NULL;
    }
    PyObject *task = PyObject_VectorcallMethod(core->k.create_task, args, 2, kwnames);
    Py_DECREF(kwnames);
    return task;
}

static int worker_enter(PpCore *core)
{
    if (core->entered) {
        return 0;
    }
    PyObject *args[] = {core->event_loop, core->worker};
    PyObject *r = PyObject_Vectorcall(core->state->enter_task, args, 2, NULL);
    if (r == NULL) {
        return -1;
    }
    Py_DECREF(r);
    core->entered = true;
    return 0;
}

/* The current exception, if any, is kept. */
static void worker_leave(PpCore *core)
{
    if (!core->entered) {
        return;
    }
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *args[] = {core->event_loop, core->worker};
    PyObject *r = PyObject_Vectorcall(core->state->leave_task, args, 2, NULL);
    if (r == NULL) {
        PyErr_WriteUnraisable(core->worker);
    }
    Py_XDECREF(r);
    core->entered = false;
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
    }
}

/* What a request has left there may wait long for the next request, and has finalisers to run: so
 * this comes last. */
static void contexts_drop(PpCore *core)
{
    Py_CLEAR(core->worker_context);
    Py_CLEAR(core->worker_base);
}

static void worker_discard(PpCore *core)
{
    worker_leave(core);
    PpRunner *runner = (PpRunner *)core->runner;
    PyObject *task = core->worker;
    core->runner = NULL;
    core->worker = NULL;
    if (runner != NULL) {
        runner->state = DISCARDED;
        runner->task = Py_XNewRef(task); /* until it has ended */
        pp_runner_unpark(runner);
    }
    Py_XDECREF((PyObject *)runner);
    Py_XDECREF(task);
    if (core->worker == NULL) {
        contexts_drop(core);
    }
}

static void worker_retire(PpRunner *runner)
{
    PpCore *core = runner->core;
    if (core->runner == (PyObject *)runner) {
        worker_leave(core);
        PyObject *task = core->worker;
        core->worker = NULL;
        core->runner = NULL;
        Py_XDECREF(task);
        Py_DECREF((PyObject *)runner); /* the caller holds another */
        if (core->worker == NULL) {
            contexts_drop(core);
        }
    }
}

/* Only when there is none. The references that are counted must be the loop's and the core's. */
static int worker_make(PpCore *core)
{
    PyObject *base = PyContext_CopyCurrent(), *task = NULL;
    PyObject *context = base != NULL ? PyContext_Copy(base) : NULL;
    PpRunner *runner = context != NULL ? pp_runner_new(core, worker_retire) : NULL;
    if (runner != NULL) {
        task = task_new(core, runner, context);
    }
    if (task == NULL) {
        Py_XDECREF(base);
        Py_XDECREF(context);
        Py_XDECREF((PyObject *)runner);
        return -1;
    }
    core->worker = task;
    core->runner = (PyObject *)runner;
    Py_XSETREF(core->worker_context, context);
    Py_XSETREF(core->worker_base, base);
    if (pp_pristine_remember(core) < 0) {
        PyObject *exc = PyErr_GetRaisedException();
        worker_discard(core);
        PyErr_SetRaisedException(exc);
        return -1;
    }
    return 0;
}

/* A request ends where the application was called, and what it did to its Task must not be seen by
 * the next one; so it is looked at before each request, as late as can be, and at the end of a
 * batch, so that callbacks of what it has ended run soon. */
static void worker_look(PpCore *core)
{
    if (core->worker != NULL && !pp_pristine(core)) {
        worker_discard(core);
    }
}

void pp_worker_batch_end(PpCore *core)
{
    if (core->entered) {
        if (core->worker != NULL && !pp_pristine_at_end(core)) {
            worker_discard(core);
        }
        worker_leave(core);
    }
}

void pp_worker_drop(PpCore *core)
{
    if (core->worker == NULL) {
        return;
    }
    /* The loop may never run again: then the pending Task must not complain. */
    if (PyObject_SetAttrString(core->worker, "_log_destroy_pending", Py_False) < 0) {
        PyErr_Clear();
    }
    PyObject *closed = PyObject_CallMethod(core->event_loop, "is_closed", NULL);
    bool is_closed = closed == NULL || closed == Py_True;
    Py_XDECREF(closed);
    PyErr_Clear();
    if (is_closed) {
        ((PpRunner *)core->runner)->state = DONE;
        Py_CLEAR(core->runner);
        Py_CLEAR(core->worker);
        return;
    }
    worker_discard(core);
}

/* What the application returns, ready for its first step. */
static PyObject *call_app(PpCore *core, const struct pp_app_call *call)
{
    PyObject *awaitable = pp_app_call(core, call->scope, call->receive, call->send);
    if (awaitable == NULL || PyCoro_CheckExact(awaitable)) {
        return awaitable;
    }
    PyObject *iter = Py_TYPE(awaitable)->tp_as_async->am_await(awaitable);
    Py_DECREF(awaitable);
    return iter;
}

/* A future says by an attribute that it has been awaited and is on its way to a Task, which clears
 * it. Until our Task has its step others may await the same future, so it is cleared meanwhile.
 * True when it was set. */
static bool unblock(PpCore *core, PyObject *first)
{
    if (first == Py_None) {
        return false;
    }
    PyObject *blocking = PyObject_GetAttr(first, core->k.future_blocking);
    bool blocks =
        blocking == Py_True && PyObject_SetAttr(first, core->k.future_blocking, Py_False) == 0;
    Py_XDECREF(blocking);
    PyErr_Clear(); /* no future: the Task will say so */
    return blocks;
}

/* What a request's first step has come to. */
struct first_step {
    PySendResult sent;
    PyObject *coro;  /* owned or NULL */
    PyObject *value; /* owned or NULL: what the application waits for, or its result */
    PyObject *exc;   /* owned or NULL */
    bool blocks;     /* value is a future that was marked as awaited */
};

/* The worker Task becomes this request's Task. Takes over coro and value. */
static void worker_adopt(PpCore *core, const struct pp_app_call *call,
                         const struct first_step *step)
{
    worker_leave(core);
    PpRunner *runner = (PpRunner *)core->runner;
    PyObject *task = core->worker;
    core->runner = NULL;
    core->worker = NULL;
    runner->first_blocks = step->blocks;
    pp_runner_set_request(runner, call);
    runner->coro = step->coro;
    runner->first = step->value;
    runner->state = ADOPTED;
    pp_app_call_hold(core, &runner->task, task);
    pp_runner_unpark(runner);
    Py_DECREF((PyObject *)runner); /* the Task, which the loop knows, has it */
    Py_DECREF(task);
    contexts_drop(core); /* the Task has its own reference, for as long as it needs it */
}

/* The runner shows the application's coroutine as its own meanwhile (get_coro, get_stack), and
 * nobody drives it. */
static struct first_step first_step(PpCore *core, const struct pp_app_call *call)
{
    struct first_step step = {.sent = PYGEN_ERROR};
    PpRunner *runner = (PpRunner *)Py_NewRef(core->runner);
    runner->running = true;
    step.coro = call_app(core, call);
    if (step.coro != NULL) {
        runner->coro = Py_NewRef(step.coro);
        step.sent = PyIter_Send(step.coro, Py_None, &step.value);
        step.blocks = step.sent == PYGEN_NEXT && unblock(core, step.value);
        runner->coro = NULL;
        Py_DECREF(step.coro); /* not the last */
    }
    runner->running = false;
    step.exc = step.sent == PYGEN_ERROR ? PyErr_GetRaisedException() : NULL;
    Py_DECREF((PyObject *)runner);
    return step;
}

/* Whether Tasks are made by a function of the application's: what it makes, and when, is its own
 * affair, so it is asked for each request. */
static bool has_task_factory(PpCore *core)
{
    PyObject *loop = core->event_loop;
    PyObject *factory = PyObject_VectorcallMethod(core->k.get_task_factory, &loop, 1, NULL);
    bool there = factory != NULL && factory != Py_None;
    PyErr_Clear(); /* a loop that knows of no factories */
    Py_XDECREF(factory);
    return there;
}

static void run_on_worker(PpCore *core, const struct pp_app_call *call)
{
    worker_look(core);
    if (core->worker == NULL && has_task_factory(core)) {
        pp_own_task_run(core, call);
        return;
    }
    if ((core->worker == NULL && worker_make(core) < 0) || worker_enter(core) < 0) {
        pp_app_call_fail(call);
        return;
    }
    PyObject *context = Py_XNewRef(core->worker_context);
    if (context == NULL) { /* what entering has run has retired the worker */
        PyErr_SetString(PyExc_RuntimeError, "the request's Task was taken away");
        pp_app_call_fail(call);
        return;
    }
    if (PyContext_Enter(context) < 0) {
        Py_DECREF(context);
        pp_app_call_fail(call);
        return;
    }
    PyObject *worker = core->worker; /* borrowed, only compared: the application may retire it */
    struct first_step step = first_step(core, call);
    if (PyContext_Exit(context) < 0) {
        PyErr_WriteUnraisable(core->app);
    }
    if (step.sent == PYGEN_NEXT && core->worker == worker) {
        worker_adopt(core, call, &step);
        Py_DECREF(context);
        return;
    }
    Py_XDECREF(step.value);
    if (step.exc != NULL) {
        PyErr_SetRaisedException(step.exc);
        pp_app_call_fail(call);
    } else {
        (void)!call->ended(call->send, call->scope, false);
    }
    Py_XDECREF(step.coro);
    Py_DECREF(context);
}

void pp_worker_run(PpCore *core, const struct pp_app_call *call)
{
    if (core->task_mode == PP_TASK_WORKER) {
        run_on_worker(core, call);
    } else {
        pp_own_task_run(core, call);
    }
}
