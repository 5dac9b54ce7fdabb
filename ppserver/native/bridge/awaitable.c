/* What receive() and send() return: awaitables in C, without coroutine objects.
 *
 * PpDone is finished from the start and shared by a whole context: most sends are. PpWait decides
 * when it is awaited, not when it is made, so that a receive() that is wrapped in a task and
 * cancelled before its first step loses no message; if it has to wait, it does so on an ordinary
 * future of the loop, which keeps cancellation and time-outs asyncio's business. Both offer the
 * coroutine methods, so that create_task(receive()) and wait_for(receive(), t) work. */
#include "bridge/awaitable.h"

typedef struct {
    PyObject_HEAD
} PpDone;

typedef struct {
    PyObject_HEAD
    PpCore *core;    /* borrowed: the owner keeps it alive */
    PyObject *owner; /* owned */
    const struct pp_wait_kind *kind;
    PyObject *future; /* owned or NULL: what we wait on */
    PyObject *iter;   /* owned or NULL: its iterator */
    int turns_left;
    bool used;
} PpWait;

/* ---- shared by the awaitables and the runner ---- */

PyObject *pp_awaitable_next(PyObject *self)
{
    PyObject *result = NULL;
    switch (Py_TYPE(self)->tp_as_async->am_send(self, Py_None, &result)) {
    case PYGEN_NEXT:
        return result;
    case PYGEN_RETURN:
        if (result != Py_None) {
            PyErr_SetObject(PyExc_StopIteration, result);
        }
        Py_XDECREF(result);
        return NULL;
    case PYGEN_ERROR:
        break;
    }
    return NULL;
}

PyObject *pp_awaitable_send(PyObject *self, PyObject *value)
{
    PyObject *result = NULL;
    switch (Py_TYPE(self)->tp_as_async->am_send(self, value, &result)) {
    case PYGEN_NEXT:
        return result;
    case PYGEN_RETURN:
        if (result == Py_None) {
            PyErr_SetNone(PyExc_StopIteration);
        } else {
            PyErr_SetObject(PyExc_StopIteration, result);
        }
        Py_XDECREF(result);
        return NULL;
    case PYGEN_ERROR:
        break;
    }
    return NULL;
}

PyObject *pp_raise_thrown(PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 1 || nargs > 3) {
        PyErr_SetString(PyExc_TypeError, "throw expected 1 to 3 arguments");
        return NULL;
    }
    if (PyExceptionInstance_Check(args[0])) {
        PyErr_SetObject((PyObject *)Py_TYPE(args[0]), args[0]);
    } else if (PyExceptionClass_Check(args[0])) {
        if (nargs > 1 && args[1] != Py_None) {
            PyErr_SetObject(args[0], args[1]);
        } else {
            PyErr_SetNone(args[0]);
        }
    } else {
        PyErr_SetString(PyExc_TypeError, "exceptions must be classes or instances");
    }
    return NULL;
}

static PyObject *return_self(PyObject *self)
{
    return Py_NewRef(self);
}

void pp_wake_waiters(PpCore *core, PyObject **waiters)
{
    PyObject *list = *waiters;
    if (list == NULL) {
        return;
    }
    *waiters = NULL;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        PyObject *args[] = {PyList_GET_ITEM(list, i), Py_None};
        PyObject *done = PyObject_VectorcallMethod(core->k.done, args, 1, NULL);
        int is_done = done != NULL ? PyObject_IsTrue(done) : -1;
        Py_XDECREF(done);
        if (is_done == 0) {
            Py_XDECREF(PyObject_VectorcallMethod(core->k.set_result, args, 2, NULL));
        }
        if (PyErr_Occurred()) { /* only a closed loop gets here */
            PyErr_WriteUnraisable(args[0]);
        }
    }
    Py_DECREF(list);
}

/* ---- PpDone ---- */

PyObject *pp_done_new(PpCore *core)
{
    return core->state->done_type->tp_alloc(core->state->done_type, 0);
}

static PySendResult done_am_send(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(value),
                                 PyObject **result)
{
    *result = Py_NewRef(Py_None);
    return PYGEN_RETURN;
}

static PyObject *done_next(PyObject *Py_UNUSED(self))
{
    return NULL; /* StopIteration(None) */
}

static PyObject *done_throw(PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t nargs)
{
    return pp_raise_thrown(args, nargs);
}

static PyObject *close_nothing(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_NONE;
}

static void done_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *await_method(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(self);
}

static PyMethodDef done_methods[] = {
    {"send", pp_awaitable_send, METH_O, NULL},
    {"throw", (PyCFunction)(void (*)(void))done_throw, METH_FASTCALL, NULL},
    {"close", close_nothing, METH_NOARGS, NULL},
    {"__await__", await_method, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot done_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("An awaitable that has finished.")},
    {Py_tp_dealloc, done_dealloc},
    {Py_tp_methods, done_methods},
    {Py_am_await, return_self},
    {Py_am_send, done_am_send},
    {Py_tp_iter, return_self},
    {Py_tp_iternext, done_next},
    {0, NULL},
};

PyType_Spec pp_done_spec = {
    .name = "ppserver._native.Done",
    .basicsize = sizeof(PpDone),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = done_slots,
};

/* ---- PpWait ---- */

PyObject *pp_wait_new(PpCore *core, PyObject *owner, const struct pp_wait_kind *kind, int turns)
{
    PpWait *self = (PpWait *)pp_kept_take(&core->kept_waits, core->state->wait_type);
    if (self != NULL) {
        self->core = core;
        self->owner = Py_NewRef(owner);
        self->kind = kind;
        self->turns_left = turns;
    }
    return (PyObject *)self;
}

/* Where our future is kept meanwhile. */
static PyObject **waiters_of(PpWait *self)
{
    return (PyObject **)((char *)self->owner + self->kind->waiters);
}

/* Makes the future, puts it where the batch will find it, and takes its iterator. */
static int begin_waiting(PpWait *self)
{
    PpCore *core = self->core;
    PyObject *loop = core->event_loop;
    PyObject *future = PyObject_VectorcallMethod(core->k.create_future, &loop, 1, NULL);
    if (future == NULL) {
        return -1;
    }
    PyAsyncMethods *async = Py_TYPE(future)->tp_as_async;
    PyObject *iter = NULL;
    if (async != NULL && async->am_await != NULL) {
        iter = async->am_await(future);
    } else {
        PyErr_SetString(PyExc_TypeError, "the event loop's futures are not awaitable");
    }
    if (iter == NULL) {
        Py_DECREF(future);
        return -1;
    }
    PyObject **waiters = waiters_of(self);
    if (*waiters == NULL) {
        *waiters = PyList_New(0);
    }
    if (*waiters == NULL || PyList_Append(*waiters, future) < 0) {
        Py_DECREF(iter);
        Py_DECREF(future);
        return -1;
    }
    self->future = future;
    self->iter = iter;
    return 0;
}

static void end_waiting(PpWait *self)
{
    PyObject **waiters = waiters_of(self);
    PyObject *future = self->future;
    self->future = NULL;
    Py_CLEAR(self->iter);
    if (future != NULL && *waiters != NULL) {
        for (Py_ssize_t i = 0; i < PyList_GET_SIZE(*waiters); i++) {
            if (PyList_GET_ITEM(*waiters, i) == future) {
                if (PyList_SetSlice(*waiters, i, i + 1, NULL) < 0) {
                    PyErr_Clear(); /* a stale entry is skipped: its future is done */
                }
                break;
            }
        }
    }
    Py_XDECREF(future);
}

static PySendResult wait_am_send(PyObject *op, PyObject *value, PyObject **result)
{
    PpWait *self = (PpWait *)op;
    *result = NULL;
    if (self->used) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited receive() or send()");
        return PYGEN_ERROR;
    }
    if (pp_core_check_thread(self->core) < 0) {
        return PYGEN_ERROR;
    }
    if (PP_UNLIKELY(self->turns_left > 0)) {
        self->turns_left--;
        *result = Py_NewRef(Py_None); /* as a bare yield: the task goes on in the next turn */
        return PYGEN_NEXT;
    }
    for (;;) {
        if (self->iter == NULL) {
            int rc = self->kind->look(self->owner, result);
            if (rc != 0) {
                self->used = true;
                return rc > 0 ? PYGEN_RETURN : PYGEN_ERROR;
            }
            if (begin_waiting(self) < 0) {
                self->used = true;
                return PYGEN_ERROR;
            }
            /* Making the future may have run code that ended the request: nobody would wake us. */
            if ((rc = self->kind->look(self->owner, result)) != 0) {
                self->used = true;
                PyObject *exc = rc < 0 ? PyErr_GetRaisedException() : NULL;
                end_waiting(self);
                if (exc != NULL) {
                    PyErr_SetRaisedException(exc);
                }
                return rc > 0 ? PYGEN_RETURN : PYGEN_ERROR;
            }
        }
        PyObject *iter = Py_NewRef(self->iter); /* close() may drop it meanwhile */
        PySendResult sent = PyIter_Send(iter, value, result);
        Py_DECREF(iter);
        if (sent == PYGEN_NEXT) {
            return PYGEN_NEXT;
        }
        if (sent == PYGEN_ERROR) {
            self->used = true;
            PyObject *exc = PyErr_GetRaisedException();
            end_waiting(self);
            PyErr_SetRaisedException(exc);
            return PYGEN_ERROR;
        }
        Py_CLEAR(*result);
        end_waiting(self); /* woken: look again what is there */
        value = Py_None;
    }
}

static PyObject *wait_throw(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    PpWait *self = (PpWait *)op;
    self->used = true;
    end_waiting(self);
    return pp_raise_thrown(args, nargs);
}

static PyObject *wait_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    PpWait *self = (PpWait *)op;
    self->used = true;
    end_waiting(self);
    Py_RETURN_NONE;
}

static int wait_traverse(PyObject *op, visitproc visit, void *arg)
{
    PpWait *self = (PpWait *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->owner);
    Py_VISIT(self->future);
    Py_VISIT(self->iter);
    return 0;
}

static int wait_clear(PyObject *op)
{
    PpWait *self = (PpWait *)op;
    Py_CLEAR(self->future);
    Py_CLEAR(self->iter);
    return 0; /* owner is never NULL while the object can be called: dropped in dealloc */
}

static void wait_dealloc(PyObject *op)
{
    PpWait *self = (PpWait *)op;
    PyObject *owner = self->owner;
    PpCore *core = self->core;
    PyObject_GC_UnTrack(op);
    wait_clear(op);
    pp_kept_give(&core->kept_waits, op);
    Py_DECREF(owner);
}

static PyMethodDef wait_methods[] = {
    {"send", pp_awaitable_send, METH_O, NULL},
    {"throw", (PyCFunction)(void (*)(void))wait_throw, METH_FASTCALL, NULL},
    {"close", wait_close, METH_NOARGS, NULL},
    {"__await__", await_method, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot wait_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Awaitable of receive(), and of a send() that has to wait.")},
    {Py_tp_dealloc, wait_dealloc},
    {Py_tp_traverse, wait_traverse},
    {Py_tp_clear, wait_clear},
    {Py_tp_methods, wait_methods},
    {Py_am_await, return_self},
    {Py_am_send, wait_am_send},
    {Py_tp_iter, return_self},
    {Py_tp_iternext, pp_awaitable_next},
    {0, NULL},
};

PyType_Spec pp_wait_spec = {
    .name = "ppserver._native.Wait",
    .basicsize = sizeof(PpWait),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = wait_slots,
};
