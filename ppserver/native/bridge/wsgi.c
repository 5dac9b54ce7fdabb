/* WSGI (PEP 3333): serve_wsgi, and the way of one request.
 *
 *   wsgi_op.c        what a call does to its connection, directly or by message
 *   wsgi_environ.c   the environ
 *   wsgi_start.c     start_response and its checks
 *   wsgi_response.c  write, the result
 *   wsgi_fail.c      an exception that ends the call
 *   wsgi_head.c      a head that waits for its first piece
 *   wsgi_input.c     wsgi.input
 *   wsgi_file.c      wsgi.file_wrapper
 *
 * A request runs on the leader's thread (lead.h): head, environ, application, answer, without a
 * hand-off. Only a call that takes long loses the leadership, and then goes on through messages.
 * The Core's fields are set before the threads start and only read by them. */
#include "bridge/wsgi.h"
#include "bridge/access.h"
#include "bridge/lead.h"
#include "bridge/lead_word.h"
#include "bridge/queue.h"
#include "bridge/scope.h"
#include "bridge/wsgi_call.h"
#include "bridge/wsgi_environ.h"
#include "bridge/wsgi_head.h"
#include "bridge/wsgi_input.h"
#include "bridge/wsgi_op.h"
#include "bridge/wsgi_response.h"
#include "bridge/wsgi_start.h"

/* ---- one request ---- */

/* Nothing of the application ran: the raised exception is ours. The thread leads. */
static void refuse(struct pp_lead_worker *self, struct pp_exchange *ex)
{
    pp_exchange_fail(ex, 500);
    pp_exchange_finish(ex);
    pp_lead_report(self);
}

/* The environ for call with its wsgi.input; NULL with an exception. What body has is taken over. */
static PyObject *make_environ(PpWsgiCall *call, struct pp_queue_body *body)
{
    PpCore *core = call->core;
    PyObject *input;
    if (body != NULL && (body->data != NULL || body->streams)) {
        input = pp_wsgi_input_new(call->w, body->streams ? call : NULL, core->state, *body);
    } else {
        input = Py_NewRef(call->w->k.empty_input);
    }
    if (input == NULL) {
        return NULL;
    }
    PyObject *env = pp_wsgi_environ_new(core, call->w, call->ex, input, body);
    Py_DECREF(input);
    return env;
}

/* Inside the application, or after a hand-over: everything that may run Python. */
static void run_call(PpWsgiCall *call, PyObject *env, PyObject *access)
{
    pp_wsgi_respond(call, env);
    Py_DECREF(env);
    if (PP_UNLIKELY(access != NULL)) {
        pp_access_log(call->core, access,
                      call->failed && !pp_wsgi_head_sent(call) ? 500 : call->status);
    }
    pp_wsgi_call_spent(call);
}

/* What the queue runs. */
static void run_request(struct pp_lead_worker *self, struct pp_exchange *ex,
                        struct pp_queue_body *body)
{
    struct pp_wsgi *w = pp_wsgi_of(self->lead);
    bool streams = body != NULL && body->streams;
    int gc = pp_compat_gc_pause();
    PpWsgiCall *call = pp_wsgi_call_new(self->lead->core, w, self, ex);
    PyObject *env = call != NULL ? make_environ(call, body) : NULL;
    pp_compat_gc_resume(gc);
    if (env == NULL) {
        if (call != NULL) {
            call->ex = NULL;
            call->ended = true;
            Py_DECREF((PyObject *)call);
        } else if (body != NULL) {
            pp_queue_body_drop(body);
        }
        if (streams) {
            pp_queue_stream_ended(&w->queue);
        }
        refuse(self, ex);
        return;
    }
    PyObject *access = pp_access_of(call->core, ex);
    call->streams = streams;
    pp_exchange_set_app(ex, &call->slot);
    struct pp_lead_trip trip;
    pp_lead_go(self, false, &trip);
    run_call(call, env, access);
    pp_lead_called(self, &trip);
    bool leads = pp_wsgi_op_finish(call);
    pp_lead_back(self, &trip, leads);
    if (PP_UNLIKELY(leads && call->headers != NULL)) { /* the application held on to the call */
        pp_lead_drop(self, (PyObject *)call);
    } else {
        Py_DECREF((PyObject *)call);
    }
}

/* ---- what the executor asks ---- */

static bool run_waiting(struct pp_lead_worker *self)
{
    return pp_queue_run_ready(&pp_wsgi_of(self->lead)->queue, self);
}

static bool waits(const struct pp_lead *lead)
{
    return pp_queue_has_ready(&PP_CONTAINER(lead, struct pp_wsgi, lead)->queue);
}

static bool on_event(struct pp_lead_worker *self, struct pp_exchange *ex, unsigned events)
{
    struct pp_queue_slot *slot = pp_exchange_app(ex);
    if (events & PP_EV_REQUEST) {
        PP_ASSERT(slot == NULL);
        return pp_queue_request(&pp_wsgi_of(self->lead)->queue, self, ex);
    }
    if (slot == NULL) {
        return true;
    }
    if (slot->queued) {
        return pp_queue_event(self, slot, events);
    }
    pp_wsgi_op_event(PP_CONTAINER(slot, PpWsgiCall, slot), events);
    return true;
}

static void abandon(struct pp_lead *Py_UNUSED(lead), struct pp_exchange *ex)
{
    struct pp_queue_slot *slot = pp_exchange_app(ex);
    if (slot->queued) {
        pp_queue_abandon(slot);
    } else {
        pp_wsgi_op_let_go(PP_CONTAINER(slot, PpWsgiCall, slot));
    }
}

static int traverse(struct pp_lead *lead, visitproc visit, void *arg)
{
    return pp_wsgi_environ_visit(&pp_wsgi_of(lead)->k, visit, arg);
}

static void fini(struct pp_lead *lead)
{
    struct pp_wsgi *w = pp_wsgi_of(lead);
    pp_queue_fini(&w->queue);
    pp_wsgi_environ_fini(&w->k);
}

static const struct pp_lead_ops wsgi_ops = {
    .thread_name = "ppserver-wsgi",
    .run_waiting = run_waiting,
    .on_event = on_event,
    .waits = waits,
    .has_chores = pp_wsgi_head_any,
    .do_chores = pp_wsgi_head_send_due,
    .abandon = abandon,
    .traverse = traverse,
    .fini = fini,
};

/* ---- methods of Core ---- */

/* -1 with an exception. */
static int set_spool(struct pp_wsgi *w, const char *dir, unsigned long long size)
{
    if (size > 0 && dir[0] != '\0' && (w->queue.spool = pp_spool_file_new(dir, size)) == NULL) {
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
    struct pp_lead *lead = pp_lead_new(core, sizeof(struct pp_wsgi), threads, &wsgi_ops);
    if (lead == NULL) {
        return NULL;
    }
    struct pp_wsgi *w = pp_wsgi_of(lead);
    pp_queue_init(&w->queue, lead, false, run_request);
    Py_XSETREF(core->app, Py_NewRef(app));
    Py_XSETREF(core->root_path, Py_NewRef(root_path != NULL ? root_path : core->k.empty_str));
    Py_XSETREF(core->on_error, on_error == Py_None ? NULL : Py_NewRef(on_error));
    if (set_spool(w, spool_dir, spool_size) < 0 ||
        pp_wsgi_environ_setup(core, w, multiprocess) < 0) {
        pp_lead_unref(lead);
        return NULL;
    }
    core->lead = lead;
    core->mode = &pp_lead_mode;
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
    {NULL, NULL, 0, NULL},
};
