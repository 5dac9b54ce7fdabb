/* A Task for each request: --task plain and eager, and where the application makes the Tasks.
 *
 * The Task drives a coroutine of the interpreter's, ppserver_request() of ppserver/request.py: what
 * looks at Tasks, by attributes or by reading the process's memory, follows it to the frames of the
 * application. It is given a PpCall, our side of it, and does three things with that:
 *
 *   await call         at once, unless we have begun the coroutine (below)
 *   await call()       calls the application
 *   call.ended(error)  whatever the application raises, so that none of it reaches the event loop
 *
 * A Task that is cancelled before its first step throws into a coroutine that has not begun, of
 * which no code runs then, and nobody would answer the request. So the coroutine is begun by us
 * once a Task has it, and waits in `await call` for the Task's first step. Nobody can await a
 * coroutine that has begun, and a task factory may have wrapped ours into another one: so that is
 * done where the Task is asyncio's own and ours is its coroutine. Another one is watched by a done
 * callback; and a call that goes without having been made answers as well. */
#include "bridge/own_task.h"
#include "bridge/awaitable.h"

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall; /* call() */
    PpCore *core;              /* owned */
    PyObject *scope, *send;    /* owned, NULL once it has ended */
    PyObject *receive;         /* owned, NULL once the application was called */
    PyObject *task;            /* owned or NULL: while core->tasks keeps it alive */
    PyObject *coro;            /* owned or NULL: ours, while its Task is watched */
    pp_app_ended *ended;
    bool beginning; /* `await call` is to wait for the Task's first step */
    bool called;
} PpCall;

/* The application's call has ended, failed: with the raised exception set. -1 with an exception
 * only for cancellation. */
static int end(PpCall *self, bool failed)
{
    PyObject *send = self->send, *scope = self->scope;
    self->send = NULL;
    self->scope = NULL;
    int rc = self->ended(send, scope, failed);
    PyObject *exc = rc < 0 ? PyErr_GetRaisedException() : NULL;
    Py_XDECREF(scope);
    Py_DECREF(send);
    Py_CLEAR(self->coro);
    pp_app_call_let_go(self->core, &self->task); /* may run destructors, as the others may */
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
    }
    return rc;
}

/* Whether an answer could still be given, and here: the collector may come by in any thread, and
 * after the end of everything. */
static bool may_answer(PpCore *core)
{
    if (core->loop == NULL || !pp_loop_owned(core->loop)) {
        return false;
    }
    PyObject *closed = PyObject_CallMethod(core->event_loop, "is_closed", NULL);
    bool open = closed == Py_False;
    Py_XDECREF(closed);
    PyErr_Clear();
    return open;
}

/* The coroutine was closed, or never begun: nobody will call the application, or go on with it. */
static void end_closed(PpCall *self)
{
    if (self->send != NULL && may_answer(self->core)) {
        PyErr_SetString(PyExc_RuntimeError, "the coroutine of an ASGI request was closed");
        if (end(self, true) < 0) {
            PyErr_Clear();
        }
    }
}

/* ---- what the coroutine does with it ---- */

static PyObject *call_app(PyObject *op, PyObject *const *Py_UNUSED(args), size_t nargsf,
                          PyObject *kwnames)
{
    PpCall *self = (PpCall *)op;
    if (PyVectorcall_NARGS(nargsf) != 0 || kwnames != NULL) {
        PyErr_SetString(PyExc_TypeError, "it takes no arguments");
        return NULL;
    }
    if (self->called || self->send == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "this request was served before");
        return NULL;
    }
    self->called = true;
    Py_CLEAR(self->coro);
    PyObject *scope = Py_NewRef(self->scope), *send = Py_NewRef(self->send);
    PyObject *receive = self->receive;
    self->receive = NULL;
    PyObject *awaitable = pp_app_call(self->core, scope, receive, send);
    Py_DECREF(receive);
    Py_DECREF(send);
    Py_DECREF(scope);
    return awaitable;
}

static PySendResult call_am_send(PyObject *op, PyObject *Py_UNUSED(value), PyObject **result)
{
    PpCall *self = (PpCall *)op;
    bool waits = self->beginning;
    self->beginning = false;
    *result = Py_NewRef(Py_None);
    return waits ? PYGEN_NEXT : PYGEN_RETURN;
}

static PyObject *return_self(PyObject *self)
{
    return Py_NewRef(self);
}

static PyObject *call_await(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(self);
}

/* The rest of an exception's traceback after its first frame, the coroutine's: what an application
 * raises begins with the application. Whether there is such a rest; -1 with an exception. */
static int drop_our_frame(PyObject *exc)
{
    PyObject *trace = PyException_GetTraceback(exc);
    PyObject *rest = trace != NULL ? PyObject_GetAttrString(trace, "tb_next") : Py_NewRef(Py_None);
    Py_XDECREF(trace);
    int rc = rest != NULL ? PyException_SetTraceback(exc, rest) : -1;
    bool there = rest != Py_None;
    Py_XDECREF(rest);
    return rc < 0 ? -1 : there;
}

static PyObject *call_ended(PyObject *op, PyObject *exc)
{
    PpCall *self = (PpCall *)op;
    if (self->send == NULL) { /* it was closed, or is told twice */
        Py_RETURN_NONE;
    }
    if (!PyExceptionInstance_Check(exc)) {
        (void)!end(self, false);
        Py_RETURN_NONE;
    }
    int raised_below = drop_our_frame(exc);
    if (raised_below < 0) {
        PyErr_Clear();
    }
    if (raised_below == 0 && PyErr_GivenExceptionMatches(exc, PyExc_GeneratorExit)) {
        end_closed(self);
        Py_RETURN_NONE;
    }
    PyErr_SetRaisedException(Py_NewRef(exc));
    if (end(self, true) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---- the Task ---- */

/* One that has not begun would else complain that nobody has awaited it. */
static void close_coroutine(PyObject *coro)
{
    if (coro != NULL) {
        Py_XDECREF(PyObject_CallMethod(coro, "close", NULL));
        PyErr_Clear();
    }
}

/* The done callback of a Task that may have dropped our coroutine. */
static PyObject *call_task_done(PyObject *op, PyObject *task)
{
    PpCall *self = (PpCall *)op;
    if (self->called || self->send == NULL) {
        Py_RETURN_NONE; /* the coroutine tells */
    }
    PyObject *coro = self->coro, *cancelled = PyObject_CallMethod(task, "cancelled", NULL);
    self->coro = NULL;
    if (cancelled == Py_True) {
        PyErr_SetNone(self->core->state->cancelled_error);
        if (end(self, true) < 0) {
            PyErr_Clear();
        }
    } else {
        PyErr_Clear();
        end_closed(self);
    }
    Py_XDECREF(cancelled);
    close_coroutine(coro);
    Py_XDECREF(coro);
    Py_RETURN_NONE;
}

/* Whether this is a Task of asyncio's own that drives this very coroutine. */
static bool drives(PpCore *core, PyObject *task, PyObject *coro)
{
    if ((PyObject *)Py_TYPE(task) != core->state->task_class) {
        return false;
    }
    PyObject *driven = PyObject_VectorcallMethod(core->k.get_coro, &task, 1, NULL);
    PyErr_Clear();
    Py_XDECREF(driven); /* only compared */
    return driven == coro;
}

static void begin(PpCall *self, PyObject *coro)
{
    PyObject *none = NULL;
    self->beginning = true;
    (void)PyIter_Send(coro, Py_None, &none);
    Py_XDECREF(none);
    PyErr_Clear(); /* it has ended then, and told us */
}

static void watch(PpCall *self, PyObject *task, PyObject *coro)
{
    PyObject *callback = PyObject_GetAttrString((PyObject *)self, "task_done");
    PyObject *r =
        callback != NULL ? PyObject_CallMethod(task, "add_done_callback", "O", callback) : NULL;
    if (r == NULL) {
        PyErr_Clear(); /* it need not have callbacks to be a Task */
    } else if (!self->called) {
        self->coro = Py_NewRef(coro);
    }
    Py_XDECREF(r);
    Py_XDECREF(callback);
}

/* NULL with an exception. */
static PyObject *task_new(PpCore *core, PyObject *coro)
{
    if (core->task_mode != PP_TASK_EAGER) {
        PyObject *args[] = {core->event_loop, coro};
        return PyObject_VectorcallMethod(core->k.create_task, args, 2, NULL);
    }
    PyObject *args[] = {coro, core->event_loop, Py_True};
    return PyObject_Vectorcall(core->state->task_class, args, 1, core->k.eager_names);
}

/* The Task could not be made, and an exception is set: answers, unless a part of it has run. */
static void fail(PpCall *self, PyObject *coro)
{
    PyObject *exc = PyErr_GetRaisedException();
    if (!self->called && self->send != NULL) {
        PyErr_SetRaisedException(exc);
        if (end(self, true) < 0) {
            PyErr_Clear();
        }
    } else {
        Py_DECREF(exc);
    }
    close_coroutine(coro);
}

static PpCall *call_new(PpCore *core, const struct pp_app_call *call)
{
    PpCall *self = (PpCall *)pp_kept_take(&core->kept_calls, core->state->own_task_type);
    if (self != NULL) {
        self->vectorcall = call_app;
        self->core = (PpCore *)Py_NewRef((PyObject *)core);
        self->scope = Py_NewRef(call->scope);
        self->receive = Py_NewRef(call->receive);
        self->send = Py_NewRef(call->send);
        self->ended = call->ended;
    }
    return self;
}

void pp_own_task_run(PpCore *core, const struct pp_app_call *call)
{
    PpCall *self = call_new(core, call);
    if (self == NULL) {
        pp_app_call_fail(call);
        return;
    }
    PyObject *coro = PyObject_CallOneArg(core->state->request_coroutine, (PyObject *)self);
    PyObject *task = coro != NULL ? task_new(core, coro) : NULL;
    if (task == NULL) {
        fail(self, coro);
    } else if (self->send != NULL) {
        if (!self->called && drives(core, task, coro)) {
            begin(self, coro);
        } else if (!self->called) {
            watch(self, task, coro);
        }
        if (self->send != NULL) {
            pp_app_call_hold(core, &self->task, task);
        }
    }
    Py_XDECREF(task);
    Py_XDECREF(coro);
    Py_DECREF((PyObject *)self);
}

/* ---- the type ---- */

static int call_traverse(PyObject *op, visitproc visit, void *arg)
{
    PpCall *self = (PpCall *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT((PyObject *)self->core);
    Py_VISIT(self->scope);
    Py_VISIT(self->receive);
    Py_VISIT(self->send);
    Py_VISIT(self->task);
    Py_VISIT(self->coro);
    return 0;
}

static int call_clear(PyObject *op)
{
    PpCall *self = (PpCall *)op;
    Py_CLEAR(self->task);
    Py_CLEAR(self->coro);
    return 0; /* the rest is needed to answer, in dealloc, and is no part of a circle without it */
}

static void call_dealloc(PyObject *op)
{
    PpCall *self = (PpCall *)op;
    PpCore *core = self->core;
    PyObject_GC_UnTrack(op);
    if (PP_UNLIKELY(self->send != NULL)) {
        PyObject *exc = PyErr_GetRaisedException();
        end_closed(self);
        if (exc != NULL) {
            PyErr_SetRaisedException(exc);
        }
    }
    pp_app_call_let_go(core, &self->task);
    Py_XDECREF(self->coro);
    Py_XDECREF(self->scope);
    Py_XDECREF(self->receive);
    Py_XDECREF(self->send);
    pp_kept_give(&core->kept_calls, op);
    Py_DECREF((PyObject *)core);
}

static PyMethodDef call_methods[] = {
    {"ended", call_ended, METH_O, NULL},
    {"task_done", call_task_done, METH_O, NULL},
    {"__await__", call_await, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef call_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(PpCall, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot call_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("One call of the application, in a Task of its own.")},
    {Py_tp_dealloc, call_dealloc},
    {Py_tp_traverse, call_traverse},
    {Py_tp_clear, call_clear},
    {Py_tp_methods, call_methods},
    {Py_tp_members, call_members},
    {Py_tp_call, PyVectorcall_Call},
    {Py_am_await, return_self},
    {Py_am_send, call_am_send},
    {Py_tp_iter, return_self},
    {Py_tp_iternext, pp_awaitable_next},
    {0, NULL},
};

PyType_Spec pp_own_task_spec = {
    .name = "ppserver._native.Call",
    .basicsize = sizeof(PpCall),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = call_slots,
};
