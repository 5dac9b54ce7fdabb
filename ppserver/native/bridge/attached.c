/* Core driven by an event loop that is not asyncio's own: by its add_reader (uvloop, a loop that
 * runs already).
 *
 * The epoll descriptor becomes readable, _on_readable makes a turn without waiting and runs the
 * batch; time-outs need a tick by call_later, and output that a task queues later needs a flush by
 * call_soon. */
#include "bridge/attached.h"
#include "bridge/forked.h"

#define TICK_SECONDS 0.1

/* In the context of attach(), not in that of the request which happens to be running. */
static int schedule(PpCore *core, PyObject *how, PyObject *delay, const char *method)
{
    PyObject *callback = PyObject_GetAttrString((PyObject *)core, method), *handle = NULL;
    PyObject *kwnames = PyTuple_Pack(1, core->k.context);
    if (callback != NULL && kwnames != NULL) {
        PyObject *args[4] = {core->event_loop}, **next = args + 1;
        if (delay != NULL) {
            *next++ = delay;
        }
        *next++ = callback;
        *next = core->context;
        handle = PyObject_VectorcallMethod(how, args, (size_t)(next - args), kwnames);
    }
    Py_XDECREF(callback);
    Py_XDECREF(kwnames);
    if (handle == NULL) {
        return -1;
    }
    Py_DECREF(handle);
    return 0;
}

static int schedule_tick(PpCore *core)
{
    if (core->tick_scheduled ||
        (pp_loop_connections(core->loop) == 0 && pp_loop_wait_ms(core->loop) < 0)) {
        return 0;
    }
    PyObject *delay = PyFloat_FromDouble(TICK_SECONDS);
    if (delay == NULL) {
        return -1;
    }
    int rc = schedule(core, core->k.call_later, delay, "_tick");
    Py_DECREF(delay);
    core->tick_scheduled = rc == 0;
    return rc;
}

int pp_attached_output_late(PpCore *core)
{
    struct pp_loop *loop = core->loop;
    if (loop == NULL) {
        return 0;
    }
    if (pp_loop_late(loop)) { /* the answer would wait for all other tasks that can go on */
        Py_BEGIN_ALLOW_THREADS pp_loop_flush(loop);
        Py_END_ALLOW_THREADS
    }
    if (!core->attached || core->flush_scheduled) {
        return 0;
    }
    if (schedule(core, core->k.call_soon, NULL, "_flush") < 0) {
        return -1;
    }
    core->flush_scheduled = true;
    return 0;
}

static PyObject *turn_attached(PpCore *core)
{
    struct pp_loop *loop = core->loop;
    pp_core_apply_requests(core);
    int count;
    Py_BEGIN_ALLOW_THREADS count = pp_loop_turn(loop, 0);
    Py_END_ALLOW_THREADS if (count < 0)
    {
        pp_raise_code(core, count);
        return NULL;
    }
    pp_core_release(core);
    if (pp_loop_pending(loop)) {
        pp_core_run_batch(core);
        if (core->loop != loop) {
            Py_RETURN_NONE;
        }
    }
    if (pp_loop_dirty(loop)) {
        Py_BEGIN_ALLOW_THREADS pp_loop_flush(loop);
        Py_END_ALLOW_THREADS pp_core_release(core);
    }
    /* What a bounded batch left over, and pipelined requests, have no descriptor to wake us. */
    if (pp_loop_pending(loop) && !core->batch_scheduled) {
        if (schedule(core, core->k.call_soon, NULL, "_on_readable") < 0) {
            return NULL;
        }
        core->batch_scheduled = true;
    }
    if (!core->batch_scheduled) {
        pp_loop_rest(loop); /* the other loop waits, or does what is not ours to count */
    }
    if (schedule_tick(core) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *core_on_readable(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PpCore *core = (PpCore *)self;
    core->batch_scheduled = false;
    if (core->loop == NULL || !core->attached) {
        pp_forked_back(core);
        Py_RETURN_NONE;
    }
    return turn_attached(core);
}

static PyObject *core_tick(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PpCore *core = (PpCore *)self;
    core->tick_scheduled = false;
    if (core->loop == NULL || !core->attached) {
        pp_forked_back(core);
        Py_RETURN_NONE;
    }
    return turn_attached(core);
}

static PyObject *core_flush(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PpCore *core = (PpCore *)self;
    core->flush_scheduled = false;
    if (core->loop == NULL) {
        Py_RETURN_NONE;
    }
    if (core->attached) {
        return turn_attached(core); /* a finished response may have its successor in the buffer */
    }
    struct pp_loop *loop = core->loop;
    Py_BEGIN_ALLOW_THREADS pp_loop_flush(loop);
    Py_END_ALLOW_THREADS pp_core_release(core);
    Py_RETURN_NONE;
}

static PyObject *core_attach(PyObject *self, PyObject *loop)
{
    PpCore *core = (PpCore *)self;
    if (pp_core_check_open(core) < 0) {
        return NULL;
    }
    if (core->attached) {
        PyErr_SetString(PyExc_RuntimeError, "the core is attached to a loop already");
        return NULL;
    }
    Py_XSETREF(core->context, PyContext_CopyCurrent());
    PyObject *callback =
        core->context != NULL ? PyObject_GetAttrString(self, "_on_readable") : NULL;
    if (callback == NULL) {
        return NULL;
    }
    PyObject *r = PyObject_CallMethod(loop, "add_reader", "iO", pp_loop_fd(core->loop), callback);
    Py_DECREF(callback);
    if (r == NULL) {
        return NULL;
    }
    Py_DECREF(r);
    pp_loop_adopt(core->loop);
    Py_XSETREF(core->event_loop, Py_NewRef(loop));
    core->attached = true;
    Py_RETURN_NONE;
}

static PyObject *core_detach(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PpCore *core = (PpCore *)self;
    if (!core->attached || core->loop == NULL) {
        core->attached = false;
        Py_RETURN_NONE;
    }
    core->attached = false;
    PyObject *r =
        PyObject_CallMethod(core->event_loop, "remove_reader", "i", pp_loop_fd(core->loop));
    if (r == NULL) {
        return NULL;
    }
    Py_DECREF(r);
    Py_RETURN_NONE;
}

PyMethodDef pp_attached_methods[] = {
    {"_on_readable", core_on_readable, METH_NOARGS, NULL},
    {"_tick", core_tick, METH_NOARGS, NULL},
    {"_flush", core_flush, METH_NOARGS, NULL},
    {"attach", core_attach, METH_O,
     PyDoc_STR("attach(loop)\n\nBe driven by another event loop, through its add_reader.")},
    {"detach", core_detach, METH_NOARGS, PyDoc_STR("detach()\n\nThe reverse of attach().")},
    {NULL, NULL, 0, NULL},
};
