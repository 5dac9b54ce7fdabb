/* The coroutine of a worker Task: forwards the Task's steps into an application's coroutine and
 * answers for it when it ends.
 *
 * It has its Task's context and runs where the Task runs; who gives it work is worker.c, with the
 * diagram of its states. It shows the application's frame, code and awaited object as its own, so
 * that stack dumps and debuggers see the application. */
#include "bridge/runner.h"
#include "bridge/awaitable.h"
#include "bridge/flag.h"

/* ---- the coroutine ---- */

void pp_runner_forget(PpRunner *self)
{
    pp_app_call_let_go(self->core, &self->task);
    Py_CLEAR(self->first);
    Py_CLEAR(self->parking);
    Py_CLEAR(self->coro);
    Py_CLEAR(self->scope);
    Py_CLEAR(self->send);
}

void pp_runner_set_request(PpRunner *self, const struct pp_app_call *call)
{
    self->send = Py_NewRef(call->send);
    self->scope = Py_NewRef(call->scope);
    self->ended = call->ended;
}

/* The application ended; an exception is set when failed. PYGEN_ERROR only for cancellation. */
static PySendResult runner_finish(PpRunner *self, bool failed, PyObject **result)
{
    PyObject *send = self->send, *scope = self->scope;
    self->send = NULL;
    self->scope = NULL;
    self->state = DONE;
    int rc = self->ended(send, scope, failed);
    Py_XDECREF(scope);
    Py_DECREF(send);
    PyObject *exc = rc < 0 ? PyErr_GetRaisedException() : NULL;
    pp_runner_forget(self); /* may run destructors: nothing of ours is half-done here */
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
        return PYGEN_ERROR;
    }
    *result = Py_NewRef(Py_None);
    return PYGEN_RETURN;
}

static PySendResult runner_step(PpRunner *self, PyObject *value, PyObject **result)
{
    *result = NULL;
    self->running = true;
    PySendResult sent = PyIter_Send(self->coro, value, result);
    self->running = false;
    if (sent == PYGEN_NEXT) {
        return PYGEN_NEXT;
    }
    Py_CLEAR(*result);
    return runner_finish(self, sent == PYGEN_ERROR, result);
}

static PySendResult runner_park(PpRunner *self, PyObject **result)
{
    PpCore *core = self->core;
    PyObject *loop = core->event_loop;
    PyObject *future = PyObject_VectorcallMethod(core->k.create_future, &loop, 1, NULL);
    if (future == NULL) {
        return PYGEN_ERROR;
    }
    /* What Future.__await__ does before it yields the future. */
    if (PyObject_SetAttr(future, core->k.future_blocking, Py_True) < 0) {
        Py_DECREF(future);
        return PYGEN_ERROR;
    }
    self->parking = Py_NewRef(future);
    self->state = PARKED;
    *result = future;
    return PYGEN_NEXT;
}

/* Ends the Task's wait: it gets a step. */
void pp_runner_unpark(PpRunner *self)
{
    PpCore *core = self->core;
    PyObject *future = self->parking;
    if (future == NULL) {
        return; /* its first step is still to come */
    }
    Py_INCREF(future);
    if (pp_flag_call(future, core->k.done) == 0) {
        PyObject *args[] = {future, Py_None};
        Py_XDECREF(PyObject_VectorcallMethod(core->k.set_result, args, 2, NULL));
    }
    if (PyErr_Occurred()) {
        PyErr_WriteUnraisable(future);
    }
    Py_DECREF(future);
}

/* As of any coroutine that is sent into, or closed, by what it runs. */
static void already_running(void)
{
    PyErr_SetString(PyExc_ValueError, "coroutine already executing");
}

/* What the application waits for, on its way to the Task: taken out, and marked as it came. */
static PyObject *take_first(PpRunner *self)
{
    PyObject *first = self->first;
    self->first = NULL;
    if (self->first_blocks && PyObject_SetAttr(first, self->core->k.future_blocking, Py_True) < 0) {
        PyErr_Clear(); /* the Task will say what is wrong with it */
    }
    return first;
}

/* A step of a parked runner that nobody has given work. Either its Task was woken by somebody who
 * got hold of the future, or the step is not its Task's: then the Task still waits for that future,
 * or is yet to be told to (its first step was taken away from it). -1 with an exception. */
static int parked_step(PpRunner *self, PyObject **result)
{
    PyObject *future = Py_NewRef(self->parking);
    int woken = pp_flag_call(future, self->core->k.done);
    if (woken == 0) {
        woken = PyObject_SetAttr(future, self->core->k.future_blocking, Py_True);
    }
    if (woken == 0) {
        *result = future;
        return 0;
    }
    Py_DECREF(future);
    return woken;
}

static PySendResult runner_am_send(PyObject *op, PyObject *value, PyObject **result)
{
    PpRunner *self = (PpRunner *)op;
    *result = NULL;
    if (self->running) {
        already_running();
        return PYGEN_ERROR;
    }
    switch ((enum pp_runner_state)self->state) {
    case IDLE:
        return runner_park(self, result);
    case ADOPTED:
        self->state = RUNNING;
        self->running = true; /* as what follows may run code of the application */
        Py_CLEAR(self->parking);
        *result = take_first(self);
        self->running = false;
        return PYGEN_NEXT;
    case RUNNING:
        return runner_step(self, value, result);
    case PARKED: {
        int woken = parked_step(self, result);
        if (woken <= 0) {
            return woken == 0 ? PYGEN_NEXT : PYGEN_ERROR;
        }
        self->retire(self);
        PP_FALLTHROUGH;
    }
    case DISCARDED:
        self->state = DONE;
        pp_runner_forget(self);
        *result = Py_NewRef(Py_None);
        return PYGEN_RETURN;
    case DONE:
        break;
    }
    PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
    return PYGEN_ERROR;
}

/* Ends a runner that has no application, at somebody's throw() or close(). If that was not its
 * Task's, then the Task is woken and ends as well. */
static void end_idle(PpRunner *self)
{
    self->state = DISCARDED;
    self->retire(self);
    pp_runner_unpark(self);
    pp_runner_forget(self);
}

static PyObject *throw_into_app(PpRunner *self, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *call[4] = {self->coro}, *result = NULL, *yielded;
    for (Py_ssize_t i = 0; i < nargs; i++) {
        call[i + 1] = args[i];
    }
    self->running = true;
    yielded = PyObject_VectorcallMethod(self->core->k.throw_, call, (size_t)nargs + 1, NULL);
    self->running = false;
    if (yielded != NULL) {
        return yielded;
    }
    bool returned = PyErr_ExceptionMatches(PyExc_StopIteration);
    if (returned) {
        PyErr_Clear();
    }
    if (runner_finish(self, !returned, &result) == PYGEN_RETURN) {
        Py_DECREF(result);
        PyErr_SetNone(PyExc_StopIteration);
    }
    return NULL;
}

/* future.cancel(), with the message that the thrown CancelledError has: it tells anyio which of its
 * scopes it comes from. NULL with an exception. */
static PyObject *cancel_like(PpRunner *self, PyObject *future, PyObject *thrown)
{
    PyObject *args[] = {future, NULL};
    PyObject *said = PyExceptionInstance_Check(thrown)
                         ? PyObject_GetAttr(thrown, self->core->k.args)
                         : PyTuple_New(0);
    if (said == NULL) {
        return NULL;
    }
    PyObject *kwnames = NULL, *r = NULL;
    if (PyTuple_Check(said) && PyTuple_GET_SIZE(said) > 0) {
        args[1] = PyTuple_GET_ITEM(said, 0);
        kwnames = PyTuple_Pack(1, self->core->k.msg);
    }
    if (args[1] == NULL || kwnames != NULL) {
        r = PyObject_VectorcallMethod(self->core->k.cancel, args, 1, kwnames);
    }
    Py_XDECREF(kwnames);
    Py_DECREF(said);
    return r;
}

/* A cancellation that came between adoption and the Task's next step: what the application waits
 * for is cancelled, as Task does it, and its outcome wakes the application. True when that worked.
 */
static bool cancel_first(PpRunner *self, PyObject *thrown)
{
    PyObject *type = PyExceptionInstance_Check(thrown) ? (PyObject *)Py_TYPE(thrown) : thrown;
    if (self->first == NULL || self->first == Py_None ||
        !PyErr_GivenExceptionMatches(type, self->core->state->cancelled_error)) {
        return false;
    }
    PyObject *r = cancel_like(self, self->first, thrown);
    if (r == NULL) {
        PyErr_Clear();
        return false;
    }
    int cancelled = PyObject_IsTrue(r);
    Py_DECREF(r);
    if (cancelled < 0) {
        PyErr_Clear();
    }
    return cancelled > 0;
}

/* Whether a cancellation before the Task's next step has been taken back: from Python 3.13 on the
 * last uncancel() does that, but cannot know that it had reached the future the Task was parked on.
 */
static bool taken_back(PpRunner *self, PyObject *thrown)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *type = PyExceptionInstance_Check(thrown) ? (PyObject *)Py_TYPE(thrown) : thrown;
    if (self->task == NULL ||
        !PyErr_GivenExceptionMatches(type, self->core->state->cancelled_error)) {
        return false;
    }
    PyObject *args[] = {self->task};
    PyObject *count = PyObject_VectorcallMethod(self->core->k.cancelling, args, 1, NULL);
    int none = count != NULL ? PyObject_Not(count) : -1;
    Py_XDECREF(count);
    if (none < 0) {
        PyErr_Clear(); /* a Task of another kind: it means what it throws */
    }
    return none > 0;
#else
    (void)self;
    (void)thrown;
    return false;
#endif
}

static PyObject *runner_throw(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    PpRunner *self = (PpRunner *)op;
    if (nargs < 1 || nargs > 3) {
        return pp_raise_thrown(args, nargs);
    }
    if (self->running) {
        already_running();
        return NULL;
    }
    switch ((enum pp_runner_state)self->state) {
    case ADOPTED: {
        PyObject *first = NULL;
        self->state = RUNNING;
        self->running = true; /* all of this may run code of the application */
        Py_CLEAR(self->parking);
        if (taken_back(self, args[0]) || cancel_first(self, args[0])) {
            first = take_first(self);
        }
        Py_CLEAR(self->first);
        self->running = false;
        return first != NULL ? first : throw_into_app(self, args, nargs);
    }
    case RUNNING:
        return throw_into_app(self, args, nargs);
    case DISCARDED:
        if (taken_back(self, args[0])) {
            self->state = DONE;
            pp_runner_forget(self);
            PyErr_SetNone(PyExc_StopIteration);
            return NULL;
        }
        PP_FALLTHROUGH;
    case IDLE:
    case PARKED:
        end_idle(self);
        return pp_raise_thrown(args, nargs);
    case DONE:
        break;
    }
    return pp_raise_thrown(args, nargs);
}

static PyObject *runner_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    PpRunner *self = (PpRunner *)op;
    if (self->running) {
        already_running();
        return NULL;
    }
    if (self->state == DONE) {
        Py_RETURN_NONE;
    }
    if (self->send == NULL) {
        end_idle(self);
        Py_RETURN_NONE;
    }
    self->state = RUNNING;
    PyObject *coro = self->coro, *none;
    self->running = true;
    PyObject *r = PyObject_VectorcallMethod(self->core->k.close, &coro, 1, NULL);
    self->running = false;
    PyObject *exc = r == NULL ? PyErr_GetRaisedException() : NULL;
    Py_XDECREF(r);
    PyErr_SetString(PyExc_RuntimeError, "the coroutine of an ASGI request was closed");
    if (runner_finish(self, true, &none) == PYGEN_RETURN) {
        Py_DECREF(none);
    }
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
        return NULL;
    }
    Py_RETURN_NONE;
}

PpRunner *pp_runner_new(PpCore *core, void (*retire)(PpRunner *self))
{
    PyTypeObject *type = core->state->runner_type;
    PpRunner *self = (PpRunner *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->core = (PpCore *)Py_NewRef((PyObject *)core);
        self->seen_as = PP_RUNNER_SEEN_AS;
        self->retire = retire;
    }
    return self;
}

/* ---- the type ---- */

/* Debuggers and stack dumps look through the runner at the application. */
static PyObject *forward(PyObject *op, void *closure)
{
    PpRunner *self = (PpRunner *)op;
    if (self->coro == NULL) {
        Py_RETURN_NONE;
    }
    PyObject *coro = Py_NewRef(self->coro); /* an awaitable's attributes may run code */
    PyObject *value = PyObject_GetAttrString(coro, closure);
    Py_DECREF(coro);
    return value;
}

static PyObject *get_running(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((PpRunner *)op)->running);
}

static PyObject *get_suspended(PyObject *op, void *Py_UNUSED(closure))
{
    PpRunner *self = (PpRunner *)op;
    return PyBool_FromLong(!self->running && (self->state == PARKED || self->state == ADOPTED ||
                                              self->state == RUNNING));
}

#if PY_VERSION_HEX >= 0x030F0000
/* What inspect.getcoroutinestate() looks at. */
static PyObject *get_state(PyObject *op, void *Py_UNUSED(closure))
{
    PpRunner *self = (PpRunner *)op;
    if (self->running) {
        return PyUnicode_FromString("CORO_RUNNING");
    }
    switch ((enum pp_runner_state)self->state) {
    case IDLE:
        return PyUnicode_FromString("CORO_CREATED");
    case RUNNING:
    case PARKED:
    case ADOPTED:
    case DISCARDED:
        break;
    case DONE:
        return PyUnicode_FromString("CORO_CLOSED");
    }
    return PyUnicode_FromString("CORO_SUSPENDED");
}
#endif

static PyObject *get_name(PyObject *op, void *closure)
{
    PpRunner *self = (PpRunner *)op;
    if (self->coro != NULL) {
        PyObject *name = forward(op, closure);
        if (name != NULL) {
            return name;
        }
        PyErr_Clear();
    }
    return PyUnicode_FromString("ppserver_worker");
}

static PyObject *runner_repr(PyObject *op)
{
    PpRunner *self = (PpRunner *)op;
    if (self->coro != NULL) {
        PyObject *coro = Py_NewRef(self->coro);
        PyObject *text = PyUnicode_FromFormat("<ppserver request running %R>", coro);
        Py_DECREF(coro);
        return text;
    }
    return PyUnicode_FromFormat("<ppserver worker at %p>", op);
}

static PyObject *runner_self(PyObject *self)
{
    return Py_NewRef(self);
}

static PyObject *runner_await(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(self);
}

static int runner_traverse(PyObject *op, visitproc visit, void *arg)
{
    PpRunner *self = (PpRunner *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT((PyObject *)self->core);
    Py_VISIT(self->send);
    Py_VISIT(self->scope);
    Py_VISIT(self->coro);
    Py_VISIT(self->first);
    Py_VISIT(self->parking);
    Py_VISIT(self->task);
    return 0;
}

static int runner_clear(PyObject *op)
{
    PpRunner *self = (PpRunner *)op;
    if (!self->running) {
        self->state = DONE;
        pp_runner_forget(self);
    }
    return 0;
}

static void runner_dealloc(PyObject *op)
{
    PpRunner *self = (PpRunner *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    pp_runner_forget(self);
    Py_XDECREF((PyObject *)self->core);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef runner_methods[] = {
    {"send", pp_awaitable_send, METH_O, NULL},
    {"throw", (PyCFunction)(void (*)(void))runner_throw, METH_FASTCALL, NULL},
    {"close", runner_close, METH_NOARGS, NULL},
    {"__await__", runner_await, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef runner_getset[] = {
    {"cr_frame", forward, NULL, NULL, "cr_frame"},
    {"cr_await", forward, NULL, NULL, "cr_await"},
    {"cr_running", get_running, NULL, NULL, NULL},
    {"cr_suspended", get_suspended, NULL, NULL, NULL},
    {"cr_code", forward, NULL, NULL, "cr_code"},
    {"cr_origin", forward, NULL, NULL, "cr_origin"},
#if PY_VERSION_HEX >= 0x030F0000
    {"cr_state", get_state, NULL, NULL, NULL},
#endif
    {"__name__", get_name, NULL, NULL, "__name__"},
    {"__qualname__", get_name, NULL, NULL, "__qualname__"},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot runner_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("The coroutine of a worker Task.")},
    {Py_tp_dealloc, runner_dealloc},
    {Py_tp_traverse, runner_traverse},
    {Py_tp_clear, runner_clear},
    {Py_tp_methods, runner_methods},
    {Py_tp_getset, runner_getset},
    {Py_tp_repr, runner_repr},
    {Py_am_await, runner_self},
    {Py_am_send, runner_am_send},
    {Py_tp_iter, runner_self},
    {Py_tp_iternext, pp_awaitable_next},
    {0, NULL},
};

PyType_Spec pp_runner_spec = {
    .name = "ppserver._native.Runner",
    .basicsize = sizeof(PpRunner),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = runner_slots,
};
