/* A process that the application has forked (os.fork), and that comes back to the server.
 *
 * It has a copy of one thread, inside its call, and none of the others. What that call does there
 * is its own affair; but the loop, the connection and the answer are the parent's, which shares
 * every socket and the epoll instance with it. So the child ends where it comes back: by SystemExit
 * with that code, otherwise with 1. Like os._exit(), this runs no exit functions: they are the
 * parent's, too.
 *
 * An ASGI context asks for it nowhere that requests pass. After a fork its core has no loop in the
 * child, and no request has a connection (pp_core_forked), as after close(): whatever meets that
 * looks whether it was a fork. So it is where a mode has the function `forked`. */
#include "bridge/forked.h"

#include "net/thread.h"

#include <stdlib.h>

bool pp_forked(const PpCore *core)
{
    return core->process != pp_thread_process();
}

PyObject *pp_core_forked(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PpCore *core = (PpCore *)self;
    struct pp_loop *loop = core->loop;
    if (loop == NULL || core->mode->forked == NULL || !pp_loop_owned(loop) || !pp_forked(core)) {
        Py_RETURN_NONE;
    }
    core->loop = NULL; /* and it is left as it is: to free it would reach what the parent has */
    struct pp_exchange *ex = NULL;
    while ((ex = pp_loop_next_exchange(loop, ex)) != NULL) {
        if (pp_exchange_app(ex) != NULL) {
            core->mode->forked(pp_exchange_app(ex));
        }
    }
    Py_RETURN_NONE;
}

void pp_forked_back(PpCore *core)
{
    if (core->loop == NULL && core->mode != NULL && core->mode->forked != NULL && pp_forked(core)) {
        PyErr_Clear(); /* that there is no loop */
        pp_forked_end(core, NULL);
    }
}

static void flush(const char *name)
{
    PyObject *stream = PySys_GetObject(name);
    if (stream != NULL && stream != Py_None) {
        Py_XDECREF(PyObject_CallMethod(stream, "flush", NULL));
        PyErr_Clear();
    }
}

/* The exit code of the raised SystemExit, as the interpreter takes it. */
static int exit_code(void)
{
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *code = PyObject_GetAttrString(exc, "code");
    int result = 1;
    PyErr_Clear();
    if (code == Py_None) {
        result = 0;
    } else if (code != NULL && PyLong_Check(code)) {
        int overflow;
        long value = PyLong_AsLongAndOverflow(code, &overflow);
        result = overflow != 0 ? 255 : (int)(value & 255);
    } else if (code != NULL) {
        PySys_FormatStderr("%S\n", code);
        PyErr_Clear();
    }
    Py_XDECREF(code);
    Py_DECREF(exc);
    return result;
}

_Noreturn void pp_forked_end(PpCore *core, PyObject *scope)
{
    int code = 1;
    if (PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_SystemExit)) {
        code = exit_code();
    } else {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_RuntimeError,
                            "a process that the application forked came back to the server, which "
                            "ended it: leave it by os._exit() or sys.exit()");
        }
        pp_core_report_error(core, scope);
    }
    flush("stdout");
    flush("stderr");
    _Exit(code);
}
