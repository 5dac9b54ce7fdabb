/* WSGI (PEP 3333): serve_wsgi, run_wsgi, and the way of one request.
 *
 *   wsgi_lead.c      which thread leads the loop
 *   wsgi_threads.c   threads, the manager, shutting down
 *   wsgi_op.c        what a call does to its connection, directly or by message
 *   wsgi_environ.c   the environ
 *   wsgi_response.c  start_response, write, the result
 *   wsgi_fail.c      an exception that ends the call
 *   wsgi_head.c      a head that waits for its first piece
 *   wsgi_input.c     wsgi.input
 *   wsgi_file.c      wsgi.file_wrapper
 *
 * A request runs on the leader's thread: head, environ, application, answer, without a hand-off.
 * Only a call that takes long loses the leadership, and then goes on through messages. The Core's
 * fields are set before the threads start and only read by them. */
#include "bridge/parallel.h"
#include "bridge/scope.h"

/* ---- life ---- */

void pp_wsgi_ref(struct pp_wsgi *w)
{
    (void)__atomic_add_fetch(&w->refs, 1, __ATOMIC_RELAXED);
}

void pp_wsgi_unref(struct pp_wsgi *w)
{
    if (__atomic_sub_fetch(&w->refs, 1, __ATOMIC_ACQ_REL) > 0) {
        return;
    }
    PP_ASSERT(w->live_count == 0);
    for (uint32_t i = 0; i < w->worker_count; i++) {
        pp_park_fini(&w->workers[i]->park);
        Py_CLEAR(w->workers[i]->thread);
        PyMem_Free(w->workers[i]);
    }
    PyMem_Free(w->workers);
    PyMem_Free(w->heads_op);
    if (w->spool != NULL) {
        pp_spool_file_free(w->spool);
    }
    pp_park_fini(&w->manager.park);
    (void)pthread_mutex_destroy(&w->mutex);
    pp_wsgi_drop_left(w);
    if (w->par != NULL) {
        pp_par_free(w->par);
    }
    pp_wsgi_environ_fini(&w->k);
    Py_CLEAR(w->interruption);
    PyMem_Free(w);
}

void pp_wsgi_body_drop(struct pp_wsgi_body *body)
{
    if (body->spooled) {
        pp_spool_free(body->spool);
    } else if (body->data != NULL) {
        pp_mem_free(body->data, body->cap);
    }
    body->data = NULL;
    body->spooled = false;
}

void pp_wsgi_drop_left(struct pp_wsgi *w)
{
    struct pp_list *n;
    while ((n = pp_list_pop(&w->transports_left)) != NULL) {
        Py_DECREF((PyObject *)PP_CONTAINER(n, PpTransport, link));
    }
    PyObject *transport;
    while ((transport = pp_wsgi_op_take_spent(w)) != NULL) {
        Py_DECREF(transport);
    }
}

static struct pp_wsgi *wsgi_new(PpCore *core, int threads)
{
    struct pp_wsgi *w = PyMem_Calloc(1, sizeof(*w));
    struct pp_wsgi_worker **workers = PyMem_Calloc((size_t)threads, sizeof(*workers));
    struct pp_wsgi_op *heads_op = PyMem_Calloc(1, sizeof(*heads_op));
    if (w == NULL || workers == NULL || heads_op == NULL) {
        PyMem_Free(w);
        PyMem_Free(workers);
        PyMem_Free(heads_op);
        PyErr_NoMemory();
        return NULL;
    }
    w->refs = 1;
    w->core = core;
    w->loop = core->loop;
    w->threads_max = (uint32_t)threads;
    w->streams_max = threads > 1 ? (uint32_t)threads / 2 : 1;
    w->workers = workers;
    heads_op->kind = PP_WSGI_OP_HEADS;
    heads_op->w = w;
    w->heads_op = heads_op;
    w->manager.w = w;
    w->manager.manager = true;
    pp_park_init(&w->manager.park);
    (void)pthread_mutex_init(&w->mutex, NULL);
    pp_list_init(&w->waiting);
    pp_list_init(&w->ready);
    pp_list_init(&w->streams_waiting);
    pp_list_init(&w->transports_ready);
    pp_list_init(&w->transports_left);
    return w;
}

static int traverse_wsgi(PpCore *core, visitproc visit, void *arg)
{
    return core->wsgi != NULL ? pp_wsgi_environ_visit(&core->wsgi->k, visit, arg) : 0;
}

static int traverse_parallel(PpCore *core, visitproc visit, void *arg)
{
    return core->wsgi != NULL ? pp_par_visit(core->wsgi->par, visit, arg) : 0;
}

static void clear(PpCore *core)
{
    struct pp_wsgi *w = core->wsgi;
    if (w == NULL) {
        return;
    }
    PP_CHECK(!w->running || w->ended);
    core->wsgi = NULL;
    if (core->loop != NULL) {
        pp_loop_adopt(core->loop); /* whoever closes it */
    }
    pp_wsgi_unref(w); /* calls that never end keep the rest */
}

static uint64_t waiting_ms(const PpCore *core)
{
    const struct pp_wsgi *w = core->wsgi;
    uint64_t since = w == NULL ? 0 : __atomic_load_n(&w->ready_since_ms, __ATOMIC_RELAXED);
    uint64_t now = pp_loop_clock_ms();
    return since == 0 || now < since ? 0 : now - since;
}

static void wake(PpCore *core)
{
    if (core->wsgi != NULL) {
        pp_park_wake(&core->wsgi->manager.park);
    }
}

static void stop(PpCore *core)
{
    if (core->wsgi != NULL) {
        __atomic_store_n(&core->wsgi->stop_requested, true, __ATOMIC_RELEASE);
        pp_park_wake(&core->wsgi->manager.park);
        pp_loop_wake(core->loop);
    }
}

/* ---- one request ---- */

/* Arguments of the access log callback, taken before the application can change the environ. */
static PyObject *access_args(PpCore *core, struct pp_wsgi *w, PyObject *env)
{
    PyObject *keys[] = {w->k.remote_addr, w->k.remote_port, w->k.request_method, w->k.raw_uri};
    PyObject *values[4] = {NULL};
    PyObject *args = NULL;
    for (int i = 0; i < 4; i++) {
        if (PyDict_GetItemRef(env, keys[i], &values[i]) != 1) {
            goto out;
        }
    }
    PyObject *protocol;
    if (PyDict_GetItemRef(env, w->k.server_protocol, &protocol) == 1) {
        bool old = protocol == w->k.http_1_0;
        args = Py_BuildValue("(NOOO)",
                             PyUnicode_GET_LENGTH(values[0]) > 0
                                 ? PyUnicode_FromFormat("%U:%U", values[0], values[1])
                                 : Py_NewRef(core->k.empty_str),
                             values[2], values[3], old ? core->k.v1_0 : core->k.v1_1);
        Py_DECREF(protocol);
    }
out:
    for (int i = 0; i < 4; i++) {
        Py_XDECREF(values[i]);
    }
    return args;
}

static void log_access(PpCore *core, PyObject *args, int status)
{
    PyObject *r = NULL;
    if (args != NULL) {
        r = PyObject_CallFunction(core->access_log, "OOOOi", PyTuple_GET_ITEM(args, 0),
                                  PyTuple_GET_ITEM(args, 1), PyTuple_GET_ITEM(args, 2),
                                  PyTuple_GET_ITEM(args, 3), status);
        Py_DECREF(args);
    }
    if (r == NULL) {
        PyErr_WriteUnraisable(core->access_log);
    }
    Py_XDECREF(r);
}

/* Nothing of the application ran: the raised exception is ours. The thread leads. */
static void refuse(struct pp_wsgi_worker *self, struct pp_conn *conn)
{
    pp_conn_fail(conn, 500);
    pp_conn_finish(conn);
    pp_wsgi_lead_report(self);
}

/* The environ for call with its wsgi.input; NULL with an exception. body is taken over. */
static PyObject *make_environ(PpWsgiCall *call, struct pp_wsgi_body body)
{
    PpCore *core = call->core;
    PyObject *input;
    if (body.data != NULL || body.streams) {
        input = pp_wsgi_input_new(call->w, body.streams ? call : NULL, core->state, body);
    } else {
        input = Py_NewRef(call->w->k.empty_input);
    }
    if (input == NULL) {
        return NULL;
    }
    PyObject *env = pp_wsgi_environ_new(core, call->w, call->conn, input, &body);
    Py_DECREF(input);
    return env;
}

/* Inside the application, or after a hand-over: everything that may run Python. */
static void run_call(PpWsgiCall *call, PyObject *env)
{
    PpCore *core = call->core;
    PyObject *args = core->access_log != NULL ? access_args(core, call->w, env) : NULL;
    pp_wsgi_respond(call, env);
    Py_DECREF(env);
    if (core->access_log != NULL) {
        log_access(core, args, call->failed && !pp_wsgi_head_sent(call) ? 500 : call->status);
    }
    pp_wsgi_call_spent(call);
}

void pp_wsgi_run(struct pp_wsgi *w, struct pp_wsgi_worker *self, struct pp_conn *conn,
                 struct pp_wsgi_body body)
{
    int gc = pp_compat_gc_pause();
    PpWsgiCall *call = pp_wsgi_call_new(w->core, w, self, conn);
    PyObject *env = call != NULL ? make_environ(call, body) : NULL;
    pp_compat_gc_resume(gc);
    if (env == NULL) {
        if (call != NULL) {
            call->conn = NULL;
            call->ended = true;
            Py_DECREF((PyObject *)call);
        } else {
            pp_wsgi_body_drop(&body);
        }
        if (body.streams) {
            pp_wsgi_op_stream_ended(w);
        }
        refuse(self, conn);
        return;
    }
    call->streams = body.streams;
    pp_conn_set_app(conn, &call->slot);
    struct pp_wsgi_trip trip;
    pp_wsgi_lead_go(self, false, &trip);
    run_call(call, env);
    pp_wsgi_lead_called(self, &trip);
    bool leads = pp_wsgi_op_finish(call);
    pp_wsgi_lead_back(self, &trip, leads);
    if (PP_UNLIKELY(leads && call->headers != NULL)) { /* the application held on to the call */
        pp_wsgi_lead_drop(self, (PyObject *)call);
    } else {
        Py_DECREF((PyObject *)call);
    }
}

/* ---- methods of Core ---- */

static const struct pp_mode wsgi_mode = {
    .wake = wake,
    .stop = stop,
    .clear = clear,
    .traverse = traverse_wsgi,
    .waiting_ms = waiting_ms,
};

static const struct pp_mode parallel_mode = {
    .wake = wake,
    .stop = stop,
    .clear = clear,
    .traverse = traverse_parallel,
    .waiting_ms = waiting_ms,
};

/* For a core that serves nothing yet; NULL with an exception. */
static struct pp_wsgi *wsgi_ready(PpCore *core, int threads)
{
    if (pp_core_check_open(core) < 0) {
        return NULL;
    }
    if (core->mode != &pp_mode_none) {
        PyErr_SetString(PyExc_RuntimeError, "the core already serves an application");
        return NULL;
    }
    if (threads < 1 || threads > PP_WSGI_THREADS_MAX) {
        PyErr_Format(PyExc_ValueError, "threads: expected 1 to %d, got %d", PP_WSGI_THREADS_MAX,
                     threads);
        return NULL;
    }
    return wsgi_new(core, threads);
}

/* -1 with an exception. */
static int set_spool(struct pp_wsgi *w, const char *dir, unsigned long long size)
{
    if (size > 0 && dir[0] != '\0' && (w->spool = pp_spool_file_new(dir, size)) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

static PyObject *serve_wsgi(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"app",          "root_path",  "threads",
                               "multiprocess", "on_error",   "root_path_mode",
                               "spool_dir",    "spool_size", NULL};
    PpCore *core = (PpCore *)self;
    PyObject *app, *root_path = NULL, *on_error = Py_None;
    int threads = 1, multiprocess = 0;
    const char *root_path_mode = NULL, *spool_dir = "";
    unsigned long long spool_size = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$UipOssK:serve_wsgi", keywords, &app,
                                     &root_path, &threads, &multiprocess, &on_error,
                                     &root_path_mode, &spool_dir, &spool_size) ||
        pp_scope_set_root_path_mode(core, root_path_mode) < 0) {
        return NULL;
    }
    struct pp_wsgi *w = wsgi_ready(core, threads);
    if (w == NULL) {
        return NULL;
    }
    Py_XSETREF(core->app, Py_NewRef(app));
    Py_XSETREF(core->root_path, Py_NewRef(root_path != NULL ? root_path : core->k.empty_str));
    Py_XSETREF(core->on_error, on_error == Py_None ? NULL : Py_NewRef(on_error));
    if (set_spool(w, spool_dir, spool_size) < 0 ||
        pp_wsgi_environ_setup(core, w, multiprocess) < 0) {
        pp_wsgi_unref(w);
        return NULL;
    }
    core->wsgi = w;
    core->mode = &wsgi_mode;
    Py_RETURN_NONE;
}

static PyObject *serve_parallel(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"protocols", "threads", "on_error", NULL};
    PpCore *core = (PpCore *)self;
    PyObject *protocols, *on_error = Py_None;
    int threads = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!|$iO:serve_parallel", keywords, &PyTuple_Type,
                                     &protocols, &threads, &on_error)) {
        return NULL;
    }
    struct pp_wsgi *w = wsgi_ready(core, threads);
    if (w == NULL) {
        return NULL;
    }
    if ((w->par = pp_par_new(protocols)) == NULL) {
        pp_wsgi_unref(w);
        return NULL;
    }
    Py_XSETREF(core->app, Py_NewRef(protocols));
    Py_XSETREF(core->on_error, on_error == Py_None ? NULL : Py_NewRef(on_error));
    core->wsgi = w;
    core->protocols = w->par->count;
    core->mode = &parallel_mode;
    Py_RETURN_NONE;
}

static PyObject *bring(PyObject *self, PyObject *args)
{
    PpCore *core = (PpCore *)self;
    struct pp_wsgi_op op = {.kind = PP_WSGI_OP_BRING};
    unsigned int tag;
    if (!PyArg_ParseTuple(args, "iI:bring", &op.fd, &tag)) {
        return NULL;
    }
    bool open = false;
    Py_BEGIN_CRITICAL_SECTION(self); /* close() in another thread lets go of it */
    open = pp_core_check_open(core) == 0;
    if (open && (op.w = core->wsgi) != NULL) {
        pp_wsgi_ref(op.w);
    }
    Py_END_CRITICAL_SECTION();
    if (!open) {
        return NULL;
    }
    if (op.w == NULL || op.w->par == NULL || tag >= op.w->par->count ||
        !op.w->par->protocols[tag].raw) {
        PyErr_SetString(PyExc_ValueError, "bring: a raw protocol must be served by that tag");
        if (op.w != NULL) {
            pp_wsgi_unref(op.w);
        }
        return NULL;
    }
    op.tag = (uint16_t)(tag | PP_TAG_RAW);
    struct pp_wsgi_worker *worker = pp_wsgi_lead_self();
    bool posted = true;
    if (worker != NULL && worker->w == op.w && pp_wsgi_lead_enter(worker)) {
        op.rc = pp_loop_bring(op.w->loop, op.fd, op.tag);
        pp_wsgi_lead_exit(worker);
    } else {
        posted = pp_wsgi_op_ask(op.w, &op);
    }
    pp_wsgi_unref(op.w);
    if (!posted) {
        PyErr_SetString(PyExc_RuntimeError, "bring: the core does not run");
        return NULL;
    }
    if (op.rc != PP_OK) {
        PyErr_SetString(PyExc_OSError, "bring: the socket is not connected");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *run_wsgi(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PpCore *core = (PpCore *)self;
    if (pp_core_check_open(core) < 0) {
        return NULL;
    }
    struct pp_wsgi *w = core->wsgi;
    bool first = false;
    if (w != NULL) {
        (void)pthread_mutex_lock(&w->mutex);
        first = !w->running;
        w->running = true;
        (void)pthread_mutex_unlock(&w->mutex);
    }
    if (!first) {
        PyErr_SetString(PyExc_RuntimeError,
                        w == NULL ? "serve_wsgi() comes first" : "run_wsgi() was already called");
        return NULL;
    }
    pp_wsgi_ref(w);
    int rc = pp_wsgi_threads_run(w);
    pp_wsgi_unref(w);
    if (rc < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyMethodDef pp_wsgi_methods[] = {
    {"serve_wsgi", (PyCFunction)(void (*)(void))serve_wsgi, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("serve_wsgi(app, *, root_path='', threads=1, multiprocess=False, on_error=None, "
               "root_path_mode='auto', spool_dir='', spool_size=0)\n\n"
               "Serve a WSGI application; run_wsgi() does the work. threads: how many requests may "
               "be with the application at a time. spool_size: bytes of a temporary file in "
               "spool_dir for large request bodies, which are awaited before the application is "
               "called.")},
    {"serve_parallel", (PyCFunction)(void (*)(void))serve_parallel, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR(
         "serve_parallel(protocols, *, threads=1, on_error=None)\n\nServe protocols of the "
         "parallel "
         "API; run_wsgi() does the work. protocols: tuple of (class or instance, parent); its "
         "position is the tag of its listeners. threads: how many callbacks may run at a time.")},
    {"bring", bring, METH_VARARGS,
     PyDoc_STR("bring(fd, tag)\n\nServe a connected, non-blocking stream socket by the raw "
               "protocol of that tag; the descriptor is the core's from then on. From any thread. "
               "Raises OSError if it is not connected, RuntimeError if "
               "run_wsgi() does not run (any more): then it stays the caller's.")},
    {"run_wsgi", run_wsgi, METH_NOARGS,
     PyDoc_STR("run_wsgi()\n\nRun the loop until drain() has come to its end or stop() was called. "
               "Requests run on threads of their own, signal handlers on this one.")},
    {NULL, NULL, 0, NULL},
};
