/* Core as the selector of an asyncio loop: how it drives the native one.
 *
 * select() detaches from the interpreter once, lets the native loop flush, wait, receive and parse,
 * and returns the ready descriptors of asyncio. When requests are due and asyncio has nothing else
 * to do, it runs them as a batch and goes on waiting. Else it appends a handle whose callback is
 * _batch to those that asyncio is going to run (or returns one synthetic key whose reader that is,
 * where it does not know how a loop keeps them): timers, callbacks, stop() and debugging go by
 * asyncio's rules. Other loops: attached.c. */
#include "bridge/selector.h"

#include "bridge/flag.h"
#include "bridge/forked.h"
#include "net/poll.h"

#include <math.h>
#include <sys/epoll.h>

static int timeout_ms(PyObject *timeout, int *ms)
{
    if (timeout == Py_None) {
        *ms = -1;
        return 0;
    }
    double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    if (seconds <= 0.0) {
        *ms = 0;
    } else if (!(seconds < 86400.0)) {
        *ms = 86400000;
    } else {
        *ms = (int)ceil(seconds * 1000.0); /* never wake up before a timer is due */
    }
    return 0;
}

static int append_ready(PyObject *ready, PyObject *key, long mask)
{
    PyObject *number = PyLong_FromLong(mask);
    if (number == NULL) {
        return -1;
    }
    PyObject *pair = PyTuple_Pack(2, key, number);
    Py_DECREF(number);
    if (pair == NULL) {
        return -1;
    }
    int rc = PyList_Append(ready, pair);
    Py_DECREF(pair);
    return rc;
}

static int append_foreign(PpCore *core, PyObject *ready, PyObject *keys)
{
    int fd;
    uint32_t events;
    while (pp_loop_take_foreign(core->loop, &fd, &events)) {
        long mask = 0;
        if (events & ~PP_POLL_READ) {
            mask |= 2; /* EVENT_WRITE; errors wake both sides, as selectors.EpollSelector has it */
        }
        if (events & ~PP_POLL_WRITE) {
            mask |= 1; /* EVENT_READ */
        }
        PyObject *number = PyLong_FromLong(fd), *key;
        if (number == NULL) {
            return -1;
        }
        int found = PyDict_GetItemRef(keys, number, &key);
        Py_DECREF(number);
        if (found < 0) {
            return -1;
        }
        if (found == 0) {
            continue; /* unregistered meanwhile */
        }
        /* key is selectors.SelectorKey(fileobj, fd, events, data) */
        if (PyTuple_Check(key) && PyTuple_GET_SIZE(key) >= 3) {
            long wanted = PyLong_AsLong(PyTuple_GET_ITEM(key, 2));
            if (wanted == -1 && PyErr_Occurred()) {
                Py_DECREF(key);
                return -1;
            }
            mask &= wanted;
        }
        int rc = mask != 0 ? append_ready(ready, key, mask) : 0;
        Py_DECREF(key);
        if (rc < 0) {
            return -1;
        }
    }
    return 0;
}

/* A batch is due: its handle goes where asyncio keeps those that are ready, or, where that is not
 * known, its key to what select() returns. */
static int append_batch(PpCore *core, PyObject *ready)
{
    if (core->ready != NULL) {
        PyObject *args[] = {Py_NewRef(core->ready), Py_NewRef(core->ready_handle)};
        PyObject *r = PyObject_VectorcallMethod(core->k.append, args, 2, NULL);
        Py_DECREF(args[0]);
        Py_DECREF(args[1]);
        Py_XDECREF(r);
        return r != NULL ? 0 : -1;
    }
    return core->ready_key != NULL ? append_ready(ready, core->ready_key, 1) : 0;
}

/* When the turn must end at the latest. */
static uint64_t until_alarm(const PpCore *core, uint64_t until)
{
    return core->alarm != NULL && core->alarm_ms < until ? core->alarm_ms : until;
}

/* Once; it only schedules what it is for. 1: it rang. */
static int ring_alarm(PpCore *core)
{
    if (PP_LIKELY(core->alarm == NULL || pp_loop_now_ms(core->loop) < core->alarm_ms)) {
        return 0;
    }
    PyObject *alarm = core->alarm;
    core->alarm = NULL;
    PyObject *r = PyObject_CallNoArgs(alarm);
    Py_XDECREF(r);
    Py_DECREF(alarm);
    return r != NULL ? 1 : -1;
}

/* asyncio's timers, of which one call of select() was told the next. */
struct timers {
    PyObject *scheduled; /* owned; asyncio takes another list only between two calls */
    Py_ssize_t count;    /* -1: not looked at yet */
};

/* 1: nothing has become ready in asyncio. */
static int none_ready(PpCore *core)
{
    Py_ssize_t ready = PyObject_Size(core->ready);
    return ready < 0 ? -1 : ready == 0;
}

/* Before the first batch. 1: batches may be served here; 0: asyncio wants to time every callback.
 */
static int may_serve(PpCore *core, struct timers *timers)
{
    if (PP_LIKELY(timers->count >= 0)) {
        return 1;
    }
    PyObject *loop = Py_NewRef(core->ready_loop);
    int debug = pp_flag_of(loop, core->k.debug), may = debug < 0 ? -1 : !debug;
    if (may > 0) {
        Py_XSETREF(timers->scheduled, PyObject_GetAttr(loop, core->k.scheduled));
        timers->count = timers->scheduled != NULL ? PyObject_Size(timers->scheduled) : -1;
        may = timers->count >= 0 ? 1 : -1;
    }
    Py_DECREF(loop);
    return may;
}

/* 1: asyncio has nothing to do but for our requests. 0: it has, or is to stop, or wants to time
 * every callback, or there is a timer that may be due before the time that select() was given. */
static int event_loop_idle(PpCore *core, const struct timers *timers)
{
    int idle = none_ready(core);
    if (idle > 0) {
        Py_ssize_t count = PyObject_Size(timers->scheduled);
        idle = count < 0 ? -1 : count == timers->count;
    }
    if (idle <= 0) {
        return idle;
    }
    PyObject *loop = Py_NewRef(core->ready_loop);
    int busy = pp_flag_of(loop, core->k.stopping);
    if (busy == 0) {
        busy = pp_flag_of(loop, core->k.debug);
    }
    Py_DECREF(loop);
    return busy < 0 ? -1 : !busy;
}

/* Runs a batch in the context in which its handle would run. 1: asyncio has nothing to do after it,
 * as before. */
static int serve_here(PpCore *core, const struct timers *timers)
{
    PyObject *context = Py_NewRef(core->ready_context);
    int rc = PyContext_Enter(context);
    if (rc == 0) {
        pp_core_run_batch(core);
        rc = PyContext_Exit(context);
    }
    Py_DECREF(context);
    if (rc < 0 || PyErr_CheckSignals() < 0) {
        return -1;
    }
    if (core->loop == NULL || core->ready == NULL) {
        return 0; /* closed by the application */
    }
    return event_loop_idle(core, timers);
}

/* Requests are due. Where asyncio has nothing else to do they are served at once, and select() goes
 * on waiting: a turn of asyncio's costs as much as a request. 1: so it was. */
static int serve_or_append(PpCore *core, struct timers *timers, PyObject *ready)
{
    if (core->ready != NULL && !core->in_batch && PyList_GET_SIZE(ready) == 0) {
        int idle = none_ready(core);
        if (idle > 0) {
            idle = may_serve(core, timers);
        }
        if (idle != 0) {
            return idle > 0 ? serve_here(core, timers) : -1;
        }
    }
    return append_batch(core, ready);
}

/* One turn, to be over at `until`; what is ready of keys goes to `ready`. 1: another one can
 * follow, as there was only a batch, it has been served, and it is not yet time. */
static int turn_once(PpCore *core, uint64_t until, struct timers *timers, PyObject *keys,
                     PyObject *ready)
{
    struct pp_loop *loop = core->loop;
    pp_core_apply_requests(core);
    uint64_t end = until_alarm(core, until);
    int count;
    Py_BEGIN_ALLOW_THREADS count = pp_loop_turn_until(loop, -1, end);
    Py_END_ALLOW_THREADS if (count < 0)
    {
        pp_raise_code(core, count);
        return -1;
    }
    pp_core_release(core);
    int again = 0;
    if (count > 0) {
        if (append_foreign(core, ready, keys) < 0) {
            return -1;
        }
        again = pp_loop_pending(loop) ? serve_or_append(core, timers, ready) : 0;
    }
    if (again < 0 || core->loop == NULL) {
        return again < 0 ? -1 : 0;
    }
    int rang = ring_alarm(core);
    /* Where requests are always due no turn waits, and none would end at `until`. */
    return rang < 0 ? -1 : again && !rang && pp_loop_now_ms(core->loop) < until;
}

/* [(key, mask)] of what is ready of keys. */
static PyObject *turn_polled(PpCore *core, PyObject *timeout, PyObject *keys)
{
    int ms, again;
    if (pp_core_check_open(core) < 0 || timeout_ms(timeout, &ms) < 0) {
        pp_forked_back(core);
        return NULL;
    }
    uint64_t until = ms > 0 ? pp_loop_clock_ms() + (uint64_t)ms : ms == 0 ? 0 : UINT64_MAX;
    PyObject *ready = PyList_New(0);
    if (ready == NULL) {
        return NULL;
    }
    struct timers timers = {.count = -1};
    do {
        again = turn_once(core, until, &timers, keys, ready);
    } while (again > 0);
    Py_XDECREF(timers.scheduled);
    if (again < 0) {
        Py_CLEAR(ready);
    }
    return ready;
}

static PyObject *core_poll(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2 || !PyDict_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "poll(timeout, keys)");
        return NULL;
    }
    return turn_polled((PpCore *)self, args[0], args[1]);
}

static PyObject *core_select(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames)
{
    PpCore *core = (PpCore *)self;
    Py_ssize_t named = kwnames != NULL ? PyTuple_GET_SIZE(kwnames) : 0;
    if (nargs + named > 1 || (named == 1 && PyUnicode_CompareWithASCIIString(
                                                PyTuple_GET_ITEM(kwnames, 0), "timeout") != 0)) {
        PyErr_SetString(PyExc_TypeError, "select(timeout=None)");
        return NULL;
    }
    if (core->selector_keys == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the selector is closed");
        return NULL;
    }
    PyObject *keys = Py_NewRef(core->selector_keys);
    PyObject *ready = turn_polled(core, nargs + named == 1 ? args[0] : Py_None, keys);
    Py_DECREF(keys);
    return ready;
}

/* None for what is not there. */
static void assign(PyObject **field, PyObject *value)
{
    Py_XSETREF(*field, value == Py_None ? NULL : Py_NewRef(value));
}

static PyObject *core_wire(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    PpCore *core = (PpCore *)self;
    if (nargs != 5 || (args[0] != Py_None && !PyDict_Check(args[0]))) {
        PyErr_SetString(PyExc_TypeError, "_wire(keys, ready, handle, context, loop)");
        return NULL;
    }
    assign(&core->selector_keys, args[0]);
    assign(&core->ready_handle, args[2]);
    assign(&core->ready_context, args[3]);
    assign(&core->ready_loop, args[4]);
    assign(&core->ready, args[1]); /* the others are there if it is */
    Py_RETURN_NONE;
}

static PyObject *core_alarm(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    PpCore *core = (PpCore *)self;
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "_alarm(seconds, callback)");
        return NULL;
    }
    if (args[1] == Py_None) {
        Py_CLEAR(core->alarm);
        Py_RETURN_NONE;
    }
    double seconds = PyFloat_AsDouble(args[0]);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return NULL;
    }
    if (!(seconds >= 0.0 && seconds <= 86400.0)) {
        PyErr_SetString(PyExc_ValueError, "seconds: expected 0 to 86400");
        return NULL;
    }
    if (pp_core_check_open(core) < 0) {
        return NULL;
    }
    /* Not from the loop's own time, which is that of its last turn: Python may have run for long
     * since. And the clock is cut to whole milliseconds. */
    core->alarm_ms = pp_loop_clock_ms() + (uint64_t)(ceil(seconds * 1000.0) + (seconds > 0.0));
    assign(&core->alarm, args[1]);
    Py_RETURN_NONE;
}

static int check_rc(PpCore *core, int rc)
{
    if (rc != PP_OK) {
        pp_raise_code(core, rc);
        return -1;
    }
    return 0;
}

static int watch_args(PpCore *core, PyObject *const *args, Py_ssize_t nargs, int *fd,
                      uint32_t *events)
{
    if (nargs != (events != NULL ? 2 : 1)) {
        PyErr_SetString(PyExc_TypeError, "expected a descriptor, and an event mask to watch");
        return -1;
    }
    if (pp_core_check_open(core) < 0) {
        return -1;
    }
    long number = PyLong_AsLong(args[0]);
    if (number == -1 && PyErr_Occurred()) {
        return -1;
    }
    if (number < 0 || number > INT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "file descriptor out of range");
        return -1;
    }
    *fd = (int)number;
    if (events != NULL) {
        long mask = PyLong_AsLong(args[1]);
        if (mask == -1 && PyErr_Occurred()) {
            return -1;
        }
        *events = (mask & 1 ? PP_POLL_READ : 0) | (mask & 2 ? PP_POLL_WRITE : 0);
    }
    return 0;
}

static PyObject *core_watch(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    PpCore *core = (PpCore *)self;
    int fd;
    uint32_t events;
    if (watch_args(core, args, nargs, &fd, &events) < 0 ||
        check_rc(core, pp_loop_foreign_add(core->loop, fd, events)) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *core_rewatch(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    PpCore *core = (PpCore *)self;
    int fd;
    uint32_t events;
    if (watch_args(core, args, nargs, &fd, &events) < 0 ||
        check_rc(core, pp_loop_foreign_mod(core->loop, fd, events)) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *core_unwatch(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    PpCore *core = (PpCore *)self;
    int fd;
    if (core->loop == NULL) {
        Py_RETURN_NONE; /* asyncio closes its self-pipe after the selector's owner may be gone */
    }
    if (watch_args(core, args, nargs, &fd, NULL) < 0) {
        return NULL;
    }
    /* A descriptor that was closed before it was unregistered has left epoll by itself. */
    (void)!pp_loop_foreign_del(core->loop, fd);
    Py_RETURN_NONE;
}

static PyObject *core_set_ready_key(PyObject *self, PyObject *key)
{
    PpCore *core = (PpCore *)self;
    Py_XSETREF(core->ready_key, key == Py_None ? NULL : Py_NewRef(key));
    Py_RETURN_NONE;
}

static PyObject *core_selector(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PpCore *core = (PpCore *)self;
    if (core->selector != NULL) {
        return Py_NewRef(core->selector);
    }
    PyObject *module = PyImport_ImportModule("ppserver.selector");
    if (module == NULL) {
        return NULL;
    }
    PyObject *selector = PyObject_CallMethod(module, "CoreSelector", "O", self);
    Py_DECREF(module);
    if (selector == NULL) {
        return NULL;
    }
    core->selector = Py_NewRef(selector);
    return selector;
}

/* The reader callback of the synthetic key: one batch of requests. */
static PyObject *core_batch(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PpCore *core = (PpCore *)self;
    if (core->loop != NULL) {
        pp_core_run_batch(core);
    }
    Py_RETURN_NONE;
}

#define FAST(f) (PyCFunction)(void (*)(void))(f), METH_FASTCALL

PyMethodDef pp_selector_methods[] = {
    {"poll", FAST(core_poll),
     PyDoc_STR("poll(timeout, keys) -> list[tuple[SelectorKey, int]]\n\nOne turn of the loop, "
               "detached from the interpreter; what select() of a selector returns.")},
    {"_select", (PyCFunction)(void (*)(void))core_select, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"_wire", FAST(core_wire), NULL},
    {"_alarm", FAST(core_alarm), NULL},
    {"watch", FAST(core_watch), PyDoc_STR("watch(fd, mask)\n\nReport readiness of fd in poll().")},
    {"rewatch", FAST(core_rewatch), PyDoc_STR("rewatch(fd, mask)\n\nChange the mask of fd.")},
    {"unwatch", FAST(core_unwatch), PyDoc_STR("unwatch(fd)\n\nForget fd.")},
    {"set_ready_key", core_set_ready_key, METH_O,
     PyDoc_STR("set_ready_key(key)\n\nThe key that poll() returns when requests are due.")},
    {"selector", core_selector, METH_NOARGS,
     PyDoc_STR("selector() -> CoreSelector\n\nFor asyncio.SelectorEventLoop(core.selector()).")},
    {"_batch", core_batch, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};
