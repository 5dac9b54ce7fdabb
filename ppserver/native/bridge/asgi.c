/* The ASGI HTTP bridge: a batch of connection events in, applications run, responses out.
 *
 *   request.c        one request's state, and its connection
 *   asgi_send.c      send()
 *   asgi_receive.c   receive()
 *   asgi_end.c       the end of the application's call
 *
 * A request's `ex` is NULL from the end of its response on, and after a disconnect. */
#include "bridge/asgi.h"
#include "bridge/asgi_end.h"
#include "bridge/asgi_receive.h"
#include "bridge/asgi_send.h"
#include "bridge/awaitable.h"
#include "bridge/forked.h"
#include "bridge/scope.h"
#include "bridge/worker.h"

#include <string.h>

#include "net/thread.h"

static void start_request(PpCore *core, struct pp_exchange *ex)
{
    PyObject *scope = core->app != NULL ? pp_scope_new(core, ex) : NULL;
    PpRequest *req = scope != NULL ? pp_request_new(core, ex, pp_asgi_send) : NULL;
    PyObject *receive = req != NULL ? pp_receive_new(core, req) : NULL;
    if (receive != NULL) {
        pp_worker_run(core,
                      &(struct pp_app_call){scope, receive, (PyObject *)req, pp_request_app_ended});
        if (req->state == REQ_HEAD && req->ex != NULL) {
            pp_exchange_head_wait(ex);
        }
    } else {
        pp_core_report_error(core, scope);
        pp_exchange_fail(ex, 503);
        if (req != NULL) {
            pp_request_release(req);
        } else {
            pp_exchange_finish(ex);
        }
    }
    Py_XDECREF(receive);
    Py_XDECREF((PyObject *)req);
    Py_XDECREF(scope);
}

static void handle_event(PpCore *core, struct pp_exchange *ex, unsigned events)
{
    if (events & PP_EV_REQUEST) {
        if (events & PP_EV_CLOSED) {
            pp_exchange_finish(ex); /* gone before anybody looked at it */
        } else {
            start_request(core, ex);
            if (!(events & PP_EV_EOF)) {
                return;
            }
        }
    }
    PpRequest *req = pp_exchange_app(ex);
    if (req == NULL) {
        return;
    }
    Py_INCREF((PyObject *)req);
    if (events & PP_EV_HEAD) {
        pp_asgi_send_head(req);
    }
    if (events & PP_EV_EOF) {
        req->peer_eof = true;
    }
    if (events & PP_EV_CLOSED) {
        pp_request_release(req);
    }
    if (events & (PP_EV_EOF | PP_EV_CLOSED)) {
        req->listened |= req->receive_waiters != NULL;
    }
    if (events & (PP_EV_BODY | PP_EV_EOF | PP_EV_CLOSED)) {
        pp_wake_waiters(core, &req->receive_waiters);
    }
    if (events & (PP_EV_DRAINED | PP_EV_CLOSED)) {
        pp_wake_waiters(core, &req->drain_waiters);
    }
    Py_DECREF((PyObject *)req);
}

static void run_batch(PpCore *core)
{
    struct pp_exchange *ex;
    unsigned events;
    if (core->in_batch) {
        return; /* a nested event loop inside an application */
    }
    core->in_batch = true;
    for (;;) {
        if (PP_UNLIKELY(core->loop == NULL)) {
            pp_forked_back(core);
            break;
        }
        if ((ex = pp_loop_take_event(core->loop, &events)) == NULL) {
            break;
        }
        handle_event(core, ex, events);
    }
    pp_worker_batch_end(core);
    core->in_batch = false;
}

/* ---- serving ---- */

static void on_forked(void *app)
{
    PpRequest *req = app;
    req->ex = NULL;
}

static const struct pp_mode asgi_mode = {
    .run_batch = run_batch,
    .end = pp_worker_drop,
    .forked = on_forked,
};

static int set_task_mode(PpCore *core, const char *task)
{
    if (strcmp(task, "worker") == 0) {
        core->task_mode = PP_TASK_WORKER;
    } else if (strcmp(task, "plain") == 0) {
        core->task_mode = PP_TASK_PLAIN;
    } else if (strcmp(task, "eager") == 0) {
#if PY_VERSION_HEX < 0x030C0000
        PyErr_SetString(PyExc_ValueError, "task 'eager' needs CPython 3.12 or later");
        return -1;
#else
        core->task_mode = PP_TASK_EAGER;
#endif
    } else {
        PyErr_Format(PyExc_ValueError, "task: expected 'worker', 'eager' or 'plain', got '%s'",
                     task);
        return -1;
    }
    return 0;
}

static PyObject *serve_asgi(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"app",  "loop",     "state",          "root_path",
                               "task", "on_error", "root_path_mode", NULL};
    PpCore *core = (PpCore *)self;
    PyObject *app, *loop, *state = Py_None, *root_path = NULL, *on_error = Py_None;
    const char *task = "worker", *root_path_mode = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|$OUsOs:serve_asgi", keywords, &app, &loop,
                                     &state, &root_path, &task, &on_error, &root_path_mode) ||
        pp_core_check_open(core) < 0) {
        return NULL;
    }
    if (core->mode != &pp_mode_none) {
        PyErr_SetString(PyExc_RuntimeError, "the core already serves an application");
        return NULL;
    }
    if (state != Py_None && !PyDict_Check(state)) {
        PyErr_SetString(PyExc_TypeError, "state: expected dict or None");
        return NULL;
    }
    if (set_task_mode(core, task) < 0 || pp_scope_set_root_path_mode(core, root_path_mode) < 0) {
        return NULL;
    }
    Py_XSETREF(core->app, Py_NewRef(app));
    Py_XSETREF(core->event_loop, Py_NewRef(loop));
    Py_XSETREF(core->lifespan_state, state == Py_None ? NULL : Py_NewRef(state));
    Py_XSETREF(core->root_path, Py_NewRef(root_path != NULL ? root_path : core->k.empty_str));
    Py_XSETREF(core->root_path_bytes, PyUnicode_AsUTF8String(core->root_path));
    Py_XSETREF(core->on_error, on_error == Py_None ? NULL : Py_NewRef(on_error));
    if (core->root_path_bytes == NULL || pp_scope_setup(core) < 0) {
        return NULL;
    }
    if ((core->done == NULL && (core->done = pp_done_new(core)) == NULL) ||
        (core->tasks == NULL && (core->tasks = PySet_New(NULL)) == NULL)) {
        return NULL;
    }
    if (core->selector != NULL && !core->attached) {
        PyObject *r = PyObject_CallMethod(core->selector, "bind", "O", loop);
        if (r == NULL) {
            return NULL;
        }
        Py_DECREF(r);
    }
    pp_loop_adopt(core->loop);
    pp_loop_take_bodies(core->loop);
    core->mode = &asgi_mode;
    core->process = pp_thread_process();
    Py_RETURN_NONE;
}

PyMethodDef pp_asgi_methods[] = {
    {"serve_asgi", (PyCFunction)(void (*)(void))serve_asgi, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("serve_asgi(app, loop, *, state=None, root_path='', task='worker', on_error=None, "
               "root_path_mode='auto')"
               "\n\nServe an ASGI 3 application on the given event loop.")},
    {NULL, NULL, 0, NULL},
};
