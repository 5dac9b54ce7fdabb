/* What every call of an ASGI application has in common: its arguments, what it must return, and
 * that its Task lives as long as it does. Which Task that is: worker.c and own_task.c. */
#include "bridge/app_call.h"

PyObject *pp_app_call(PpCore *core, PyObject *scope, PyObject *receive, PyObject *send)
{
    PyObject *args[] = {NULL, scope, receive, send};
    PyObject *awaitable =
        PyObject_Vectorcall(core->app, args + 1, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    if (awaitable == NULL || PyCoro_CheckExact(awaitable)) {
        return awaitable;
    }
    PyAsyncMethods *async = Py_TYPE(awaitable)->tp_as_async;
    if (async == NULL || async->am_await == NULL) {
        PyErr_Format(PyExc_TypeError,
                     "the ASGI application returned %.100s, expected an awaitable (an ASGI 3 "
                     "application is `async def app(scope, receive, send)`)",
                     Py_TYPE(awaitable)->tp_name);
        Py_CLEAR(awaitable);
    }
    return awaitable;
}

void pp_app_call_fail(const struct pp_app_call *call)
{
    if (call->ended(call->send, call->scope, true) < 0) {
        PyErr_Clear(); /* a CancelledError that no Task stands for */
    }
}

void pp_app_call_hold(PpCore *core, PyObject **held, PyObject *task)
{
    if (PySet_Add(core->tasks, task) < 0) {
        PyErr_Clear(); /* out of memory: then it lives as long as others hold it */
        return;
    }
    *held = Py_NewRef(task);
}

void pp_app_call_let_go(PpCore *core, PyObject **held)
{
    PyObject *task = *held;
    if (task == NULL) {
        return;
    }
    *held = NULL;
    if (core->tasks != NULL && PySet_Discard(core->tasks, task) < 0) {
        PyErr_Clear();
    }
    Py_DECREF(task);
}
