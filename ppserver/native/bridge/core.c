/* The type of the Core object: one context's loop and its place to run Python.
 *
 * It owns the native loop, the application and the settings, and offers what the Python side needs:
 * listening, draining, counters; what it serves is added by the files below it (core->mode).
 * Everything runs on the thread that drives the loop, except wake(), drain() and the counters,
 * which any thread and any signal handler may call. */
#include "bridge/core.h"
#include "bridge/board.h"
#include "bridge/core_settings.h"
#include "bridge/forked.h"

#include <string.h>

/* ---- listening and shutting down ---- */

static PyObject *core_add_listener(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"fd", "kind", "tag", "raw", NULL};
    static const char *const kinds[] = {[PP_LISTEN_ALONE] = "alone",
                                        [PP_LISTEN_SHARED] = "shared",
                                        [PP_LISTEN_OWN] = "own",
                                        [PP_LISTEN_NEIGHBOUR] = "neighbour"};
    PpCore *core = (PpCore *)self;
    const char *name = "alone";
    size_t kind = 0;
    int fd, raw = 0;
    unsigned tag = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "i|$sIp:add_listener", keywords, &fd, &name,
                                     &tag, &raw) ||
        pp_core_check_open(core) < 0) {
        return NULL;
    }
    if ((raw && core->protocols == 0) || tag >= (core->protocols != 0 ? core->protocols : 1)) {
        PyErr_SetString(PyExc_ValueError, "tag: there is no such protocol in serve_parallel()");
        return NULL;
    }
    while (kind < sizeof(kinds) / sizeof(*kinds) && strcmp(kinds[kind], name) != 0) {
        kind++;
    }
    if (kind == sizeof(kinds) / sizeof(*kinds)) {
        PyErr_Format(PyExc_ValueError, "kind: '%s' is none", name);
        return NULL;
    }
    int rc = pp_loop_listen(core->loop, fd, (enum pp_listen_kind)kind,
                            (uint16_t)(tag | (raw ? PP_TAG_RAW : 0u)));
    if (rc != PP_OK) {
        pp_raise_code(core, rc);
        return NULL;
    }
    Py_RETURN_NONE;
}

/* The doors as a new array (PyMem); NULL with an exception. */
static int *doors_of(PyObject *sequence, Py_ssize_t *count)
{
    PyObject *items = PySequence_Fast(sequence, "doors: expected a sequence of descriptors");
    if (items == NULL) {
        return NULL;
    }
    *count = PySequence_Fast_GET_SIZE(items);
    int *doors = NULL;
    if (*count > PP_DOORS_MAX) {
        PyErr_SetString(PyExc_ValueError, "doors: too many");
    } else if ((doors = PyMem_Calloc((size_t)*count + 1, sizeof(*doors))) == NULL) {
        PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; doors != NULL && i < *count; i++) {
        long fd = PyLong_AsLong(PySequence_Fast_GET_ITEM(items, i));
        if (fd < -1 || fd > INT32_MAX || (fd == -1 && PyErr_Occurred())) {
            if (!PyErr_Occurred()) {
                PyErr_SetString(PyExc_ValueError, "doors: no descriptor, nor -1");
            }
            PyMem_Free(doors);
            doors = NULL;
        } else {
            doors[i] = (int)fd;
        }
    }
    Py_DECREF(items);
    return doors;
}

static PyObject *core_join(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"inbox", "doors", "local", NULL};
    PpCore *core = (PpCore *)self;
    PyObject *sequence;
    Py_ssize_t count = 0;
    int inbox, local = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "iO|$p:join", keywords, &inbox, &sequence,
                                     &local) ||
        pp_core_check_open(core) < 0) {
        return NULL;
    }
    if (core->board == NULL) {
        PyErr_SetString(PyExc_ValueError, "join() needs a core with a board");
        return NULL;
    }
    int *doors = doors_of(sequence, &count);
    if (doors == NULL) {
        return NULL;
    }
    int rc = pp_loop_join(core->loop, ((PpBoard *)core->board)->board, core->slot, inbox, doors,
                          (unsigned)count, local != 0);
    PyMem_Free(doors);
    if (rc != PP_OK) {
        pp_raise_code(core, rc);
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *core_stop_listening(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PpCore *core = (PpCore *)self;
    if (pp_core_check_open(core) < 0) {
        return NULL;
    }
    pp_loop_unlisten(core->loop);
    Py_RETURN_NONE;
}

/* wake, drain, stop and the getters come from any thread, close() from the core's own: what they
 * reach through core->loop and core->lead must not go away under them. */
static PyObject *core_wake(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PpCore *core = (PpCore *)self;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (core->loop != NULL) {
        pp_loop_wake(core->loop);
    }
    Py_END_CRITICAL_SECTION();
    Py_RETURN_NONE;
}

static PyObject *core_drain(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PpCore *core = (PpCore *)self;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (core->loop != NULL) {
        __atomic_store_n(&core->drain_requested, true, __ATOMIC_RELEASE);
        pp_loop_wake(core->loop);
        if (core->mode->wake != NULL) {
            core->mode->wake(core);
        }
    }
    Py_END_CRITICAL_SECTION();
    Py_RETURN_NONE;
}

static PyObject *core_drained(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PpCore *core = (PpCore *)self;
    return PyBool_FromLong(core->loop == NULL ||
                           (!__atomic_load_n(&core->drain_requested, __ATOMIC_ACQUIRE) &&
                            pp_loop_drained(core->loop) &&
                            (core->tasks == NULL || PySet_GET_SIZE(core->tasks) == 0)));
}

/* Closes every connection, and tells the application of each request of it. A batch is bounded, and
 * no turn is made between them: it might bring new connections. */
static void abort_all(PpCore *core)
{
    pp_loop_abort(core->loop);
    do {
        pp_loop_batch(core->loop);
        core->mode->run_batch(core);
    } while (core->loop != NULL && !core->in_batch && pp_loop_pending_events(core->loop));
    if (core->loop != NULL) {
        pp_core_release(core);
    }
}

static PyObject *core_stop(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PpCore *core = (PpCore *)self;
    bool here = false;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (core->loop != NULL && core->mode->stop != NULL) {
        core->mode->stop(core);
    } else if (core->loop != NULL) {
        here = pp_loop_owned(core->loop);
        if (!here) {
            __atomic_store_n(&core->stop_requested, true, __ATOMIC_RELEASE);
            pp_loop_wake(core->loop);
        }
    }
    Py_END_CRITICAL_SECTION();
    if (here) {
        pp_loop_unlisten(core->loop);
        abort_all(core);
    }
    Py_RETURN_NONE;
}

static void clear_mode(PpCore *core)
{
    if (core->mode != NULL && core->mode->clear != NULL) {
        core->mode->clear(core);
    }
}

/* Aborts what is left, so that the loop gives back what it borrowed. Nobody reaches the loop by the
 * core any more when the references go, which may run anything. */
static void close_loop(PpCore *core)
{
    struct pp_loop *loop = NULL;
    Py_BEGIN_CRITICAL_SECTION((PyObject *)core);
    loop = core->loop;
    core->loop = NULL;
    Py_END_CRITICAL_SECTION();
    if (loop == NULL) {
        return;
    }
    pp_loop_adopt(loop); /* the last reference may go on any thread */
    pp_loop_abort(loop);
    pp_core_release_of(loop);
    struct pp_exchange *ex = NULL;
    while ((ex = pp_loop_next_exchange(loop, ex)) != NULL) {
        PP_CHECK(pp_exchange_app(ex) == NULL);
    }
    PyObject *user;
    while ((user = pp_loop_take_user(loop)) != NULL) {
        Py_DECREF(user);
    }
    pp_loop_free(loop);
}

static PyObject *core_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PpCore *core = (PpCore *)self;
    if (core->loop == NULL) {
        Py_RETURN_NONE;
    }
    if (core->in_batch) {
        PyErr_SetString(PyExc_RuntimeError, "close() called from inside a request");
        return NULL;
    }
    if (core->mode->run_batch != NULL) {
        pp_loop_adopt(core->loop);
        abort_all(core);
    }
    if (core->mode->end != NULL) {
        core->mode->end(core);
    }
    Py_BEGIN_CRITICAL_SECTION(self);
    clear_mode(core);
    Py_END_CRITICAL_SECTION();
    close_loop(core);
    Py_RETURN_NONE;
}

/* ---- counters ---- */

static PyObject *core_stats(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PpCore *core = (PpCore *)self;
    PyObject *stats = NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (pp_core_check_open(core) == 0) {
        stats = pp_slot_as_dict(pp_loop_slot(core->loop));
    }
    Py_END_CRITICAL_SECTION();
    return stats;
}

static PyObject *core_tag_stats(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PpCore *core = (PpCore *)self;
    PyObject *stats = NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (pp_core_check_open(core) == 0) {
        stats = pp_slot_tags_as_tuple(pp_loop_slot(core->loop));
    }
    Py_END_CRITICAL_SECTION();
    return stats;
}

/* Any thread may say so. */
static PyObject *core_stuck(PyObject *self, PyObject *stuck)
{
    PpCore *core = (PpCore *)self;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (core->loop != NULL) {
        pp_loop_stuck(core->loop, stuck == Py_True);
    }
    Py_END_CRITICAL_SECTION();
    Py_RETURN_NONE;
}

static PyObject *core_waiting(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PpCore *core = (PpCore *)self;
    uint64_t ms = 0;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (core->loop != NULL && core->mode->waiting_ms != NULL) {
        ms = core->mode->waiting_ms(core);
    }
    Py_END_CRITICAL_SECTION();
    return PyFloat_FromDouble((double)ms / 1000.0);
}

static PyObject *get_epoll_fd(PyObject *self, void *Py_UNUSED(closure))
{
    PpCore *core = (PpCore *)self;
    return PyLong_FromLong(core->loop == NULL ? -1 : pp_loop_fd(core->loop));
}

static PyObject *get_connections(PyObject *self, void *Py_UNUSED(closure))
{
    PpCore *core = (PpCore *)self;
    uint32_t count = 0;
    Py_BEGIN_CRITICAL_SECTION(self);
    count = core->loop == NULL ? 0 : pp_loop_connections(core->loop);
    Py_END_CRITICAL_SECTION();
    return PyLong_FromUnsignedLong(count);
}

static PyObject *get_in_flight(PyObject *self, void *Py_UNUSED(closure))
{
    PpCore *core = (PpCore *)self;
    uint32_t count = 0;
    Py_BEGIN_CRITICAL_SECTION(self);
    count = core->loop == NULL ? 0 : pp_loop_in_flight(core->loop);
    Py_END_CRITICAL_SECTION();
    return PyLong_FromUnsignedLong(count);
}

static PyObject *get_draining(PyObject *self, void *Py_UNUSED(closure))
{
    PpCore *core = (PpCore *)self;
    bool draining = true;
    Py_BEGIN_CRITICAL_SECTION(self);
    draining = core->loop == NULL || __atomic_load_n(&core->draining, __ATOMIC_ACQUIRE);
    Py_END_CRITICAL_SECTION();
    return PyBool_FromLong(draining);
}

/* ---- the type ---- */

/* X(field): every owned reference of PpCore outside its constants. */
#define PP_CORE_FIELDS(X) \
    X(app) \
    X(on_error) \
    X(access_log) \
    X(lifespan_state) \
    X(root_path) \
    X(root_path_bytes) \
    X(event_loop) \
    X(scope_template) \
    X(template_target) \
    X(template_client) \
    X(asgi_template) \
    X(asgi_given) \
    X(done) \
    X(worker) \
    X(runner) \
    X(seen_start) \
    X(seen_body) \
    X(server_cache) \
    X(context) \
    X(worker_context) \
    X(worker_base) \
    X(worker_name) \
    X(tasks) \
    X(board) \
    X(selector) \
    X(selector_keys) \
    X(ready) \
    X(ready_handle) \
    X(ready_context) \
    X(ready_loop) \
    X(ready_key) \
    X(alarm)

static int core_traverse(PyObject *self, visitproc visit, void *arg)
{
    PpCore *core = (PpCore *)self;
    Py_VISIT(Py_TYPE(self));
#define PP_VISIT_(field) Py_VISIT(core->field);
    PP_CORE_FIELDS(PP_VISIT_)
#undef PP_VISIT_
    /* Before __init__ there is none. */
    return core->mode != NULL && core->mode->traverse != NULL
               ? core->mode->traverse(core, visit, arg)
               : 0;
}

static int core_clear(PyObject *self)
{
    PpCore *core = (PpCore *)self;
#define PP_CLEAR_(field) Py_CLEAR(core->field);
    PP_CORE_FIELDS(PP_CLEAR_)
#undef PP_CLEAR_
    for (size_t i = 0; i < PP_HEADER_CACHE_SLOTS; i++) {
        Py_CLEAR(core->header_cache[i]);
    }
    return 0;
}

static void core_dealloc(PyObject *self)
{
    PpCore *core = (PpCore *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (core->weakrefs != NULL) {
        PyObject_ClearWeakRefs(self);
    }
    /* Requests hold their Core, so none can be in flight here. */
    clear_mode(core);
    close_loop(core);
    core_clear(self);
    pp_kept_fini(&core->kept_requests);
    pp_kept_fini(&core->kept_receives);
    pp_kept_fini(&core->kept_waits);
    pp_kept_fini(&core->kept_calls);
    pp_constants_fini(&core->k);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef core_own_methods[] = {
    {"add_listener", (PyCFunction)(void (*)(void))core_add_listener, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR(
         "add_listener(fd, *, kind='alone', tag=0, raw=False)\n\nAccept from a listening socket, "
         "which stays the caller's. kind says who else does: nobody, all contexts alike "
         "('shared'), "
         "others while this one is busy ('own'), or it is another's that may be busy "
         "('neighbour'). "
         "tag: which protocol of serve_parallel() it is for; raw: its connections are not HTTP.")},
    {"join", (PyCFunction)(void (*)(void))core_join, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("join(inbox, doors, *, local=False)\n\nShare connections with the other contexts "
               "of the board: inbox is the reading end of this one's door, doors are the writing "
               "ends by slot (-1: none). local: all of them are in this process. The descriptors "
               "stay the caller's and must outlive the core.")},
    {"stop_listening", core_stop_listening, METH_NOARGS,
     PyDoc_STR("stop_listening()\n\nAccept no more connections.")},
    {"drain", core_drain, METH_NOARGS,
     PyDoc_STR("drain()\n\nGraceful end: stop listening, close idle connections, finish the rest. "
               "May be called from any thread and from signal handlers.")},
    {"drained", core_drained, METH_NOARGS,
     PyDoc_STR("drained() -> bool\n\nTrue when drain() has come to its end: no connection "
               "and no application call is left.")},
    {"stop", core_stop, METH_NOARGS,
     PyDoc_STR("stop()\n\nClose every connection now; from another thread, with the loop's next "
               "turn.")},
    {"wake", core_wake, METH_NOARGS, PyDoc_STR("wake()\n\nMake the loop turn; from any thread.")},
    {"close", core_close, METH_NOARGS,
     PyDoc_STR("close()\n\nClose all connections and free the loop.")},
    {"stats", core_stats, METH_NOARGS,
     PyDoc_STR("stats() -> dict[str, int]\n\nCounters since the start, and the connections and "
               "requests of now.")},
    {"_stuck", core_stuck, METH_O, NULL},
    {"_waiting", core_waiting, METH_NOARGS, NULL},
    {"_forked", pp_core_forked, METH_NOARGS, NULL},
    {"tag_stats", core_tag_stats, METH_NOARGS,
     PyDoc_STR("tag_stats() -> tuple[tuple[int, int, int, int], ...]\n\nBy tag of listeners, of "
               "which the last stands for all higher ones: connections now, accepted, bytes "
               "received, bytes sent.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef core_getset[] = {
    {"epoll_fd", get_epoll_fd, NULL, PyDoc_STR("The epoll descriptor; -1 after close()."), NULL},
    {"connections", get_connections, NULL, PyDoc_STR("Open connections now."), NULL},
    {"draining", get_draining, NULL,
     PyDoc_STR("Whether the loop has carried out drain(): it uses no listener any more."), NULL},
    {"in_flight", get_in_flight, NULL, PyDoc_STR("Requests with the application now."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef core_members[] = {
    {"request_tasks", T_OBJECT, offsetof(PpCore, tasks), READONLY,
     PyDoc_STR("The Tasks of ASGI requests that have suspended, or None.")},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(PpCore, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot core_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("One parallel context: event loop, connections, application.")},
    {Py_tp_init, pp_core_init},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_dealloc, core_dealloc},
    {Py_tp_traverse, core_traverse},
    {Py_tp_clear, core_clear},
    {Py_tp_methods, core_own_methods},
    {Py_tp_getset, core_getset},
    {Py_tp_members, core_members},
    {0, NULL},
};

PyType_Spec pp_core_spec = {
    .name = "ppserver._native.Core",
    .basicsize = sizeof(PpCore),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = core_slots,
};
