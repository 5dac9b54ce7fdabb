/* What every file above may do with a Core, whatever it serves: errors, checks, and giving back
 * what the loop has no more use for. On the loop's thread, attached. */
#include "bridge/core_base.h"

/* ---- errors ---- */

void pp_raise_code(PpCore *core, int code)
{
    (void)core;
    switch (code) {
    case PP_ERR_NO_MEMORY:
        PyErr_NoMemory();
        return;
    case PP_ERR_SYSTEM:
        PyErr_SetFromErrno(PyExc_OSError);
        return;
    default:
        PyErr_Format(pp_err_status(code) == 500 ? PyExc_ValueError : PyExc_RuntimeError, "%s",
                     pp_err_text(code));
    }
}

void pp_core_report_error(PpCore *core, PyObject *scope)
{
    PyObject *exc = PyErr_GetRaisedException();
    if (exc == NULL) {
        return;
    }
    if (core->on_error != NULL) {
        PyObject *args[] = {exc, scope != NULL ? scope : Py_None};
        PyObject *r = PyObject_Vectorcall(core->on_error, args, 2, NULL);
        if (r == NULL) {
            PyErr_WriteUnraisable(core->on_error);
        }
        Py_XDECREF(r);
    } else {
        PyErr_SetRaisedException(Py_NewRef(exc));
        PyErr_WriteUnraisable(core->app);
    }
    Py_DECREF(exc);
}

int pp_core_check_open(PpCore *core)
{
    if (core->loop == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the core is closed");
        return -1;
    }
    return 0;
}

int pp_core_check_thread(PpCore *core)
{
    if (core->loop == NULL || pp_loop_owned(core->loop)) {
        return 0;
    }
    PyErr_SetString(PyExc_RuntimeError,
                    "receive() and send() belong to the event loop's thread: use "
                    "asyncio.run_coroutine_threadsafe()");
    return -1;
}

PpState *pp_state_of_type(PyTypeObject *type)
{
    PyObject *module = PyType_GetModule(type);
    PP_CHECK(module != NULL);
    PpState *st = PyModule_GetState(module);
    PP_CHECK(st != NULL);
    return st;
}

/* ---- the loop ---- */

void pp_core_release_of(struct pp_loop *loop)
{
    PyObject *owner;
    while ((owner = pp_loop_take_released(loop)) != NULL) {
        Py_DECREF(owner);
    }
    while ((owner = pp_loop_take_dead_user(loop)) != NULL) {
        Py_DECREF(owner);
    }
}

void pp_core_apply_requested(PpCore *core)
{
    if (__atomic_load_n(&core->drain_requested, __ATOMIC_ACQUIRE)) {
        __atomic_store_n(&core->drain_requested, false, __ATOMIC_RELEASE);
        pp_loop_drain(core->loop);
        __atomic_store_n(&core->draining, true, __ATOMIC_RELEASE);
    }
    if (__atomic_load_n(&core->stop_requested, __ATOMIC_ACQUIRE)) {
        __atomic_store_n(&core->stop_requested, false, __ATOMIC_RELEASE);
        pp_loop_unlisten(core->loop);
        pp_loop_abort(core->loop); /* the next turn tells the applications */
    }
}

/* ---- a core that serves nothing yet ---- */

static void refuse_all(PpCore *core)
{
    struct pp_exchange *ex;
    unsigned events;
    while ((ex = pp_loop_take_event(core->loop, &events)) != NULL) {
        if (events & PP_EV_REQUEST) {
            if (!(events & PP_EV_CLOSED)) {
                pp_exchange_fail(ex, 503);
            }
            pp_exchange_finish(ex);
        }
    }
}

const struct pp_mode pp_mode_none = {.run_batch = refuse_all};
