/* Subinterpreters with a GIL of their own: make one, run a program in it, leave it standing.
 *
 * Runs on an ordinary thread of the main interpreter, which it lends to the new one for as long as
 * the program runs. Each interpreter has one thread state per thread; here the thread has two and
 * is attached to at most one of them. No object crosses: the program comes as UTF-8 owned by the
 * caller's str, and what went wrong goes back as bytes in a fixed buffer.
 * Leaves out: destroying an interpreter. Threads that the application started may still be in it,
 * and on 3.13 that crashes; whoever made one ends the process without finalising. */
#include "bridge/interpreters.h"

#include <stdio.h>
#include <string.h>

#if PY_VERSION_HEX >= 0x030D0000

#define FAILURE_BYTES_MAX 1024

/* What ended a program: "" or "Type: text", NUL-terminated, cut where the room ends. */
struct failure {
    char text[FAILURE_BYTES_MAX];
};

static void describe_raised(struct failure *failure)
{
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *text = PyObject_Str(exc);
    const char *utf8 = text == NULL ? NULL : PyUnicode_AsUTF8(text);
    if (utf8 == NULL) {
        PyErr_Clear();
        utf8 = "(it has no text)";
    }
    (void)snprintf(failure->text, sizeof failure->text, "%s: %s", Py_TYPE(exc)->tp_name, utf8);
    Py_XDECREF(text);
    Py_DECREF(exc);
}

/* Attached to the new interpreter: runs program in its __main__. */
static void run_program(const char *program, struct failure *failure)
{
    failure->text[0] = '\0';
    PyObject *main_module = PyImport_AddModuleRef("__main__");
    PyObject *result = NULL;
    if (main_module != NULL) {
        PyObject *names = PyModule_GetDict(main_module); /* borrowed from the module we hold */
        result = PyRun_String(program, Py_file_input, names, names);
    }
    if (result == NULL) {
        describe_raised(failure);
    }
    Py_XDECREF(result);
    Py_XDECREF(main_module);
}

PyObject *pp_interpreters_run(PyObject *module, PyObject *program)
{
    if (!PyUnicode_Check(program)) {
        PyErr_SetString(PyExc_TypeError, "program must be a str");
        return NULL;
    }
    Py_ssize_t len;
    const char *text = PyUnicode_AsUTF8AndSize(program, &len);
    if (text == NULL) {
        return NULL;
    }
    if (strlen(text) != (size_t)len) {
        PyErr_SetString(PyExc_ValueError, "program contains a NUL character");
        return NULL;
    }
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_RuntimeError, "only the main interpreter makes others");
        return NULL;
    }
    const PyInterpreterConfig config = {
        .use_main_obmalloc = 0,
        .allow_fork = 0,
        .allow_exec = 0,
        .allow_threads = 1,
        .allow_daemon_threads = 1,
        .check_multi_interp_extensions = 1,
        .gil = PyInterpreterConfig_OWN_GIL,
    };
    PyThreadState *ours = PyThreadState_Get();
    PyThreadState *theirs = NULL;
    PyStatus status = Py_NewInterpreterFromConfig(&theirs, &config);
    if (PyStatus_Exception(status)) {
        PP_CHECK(PyThreadState_Get() == ours); /* a failure leaves us where we were */
        PyErr_Format(PyExc_RuntimeError, "cannot make an interpreter: %s",
                     status.err_msg == NULL ? "no reason given" : status.err_msg);
        return NULL;
    }
    PP_CHECK(PyThreadState_Get() == theirs);
    struct failure failure;
    run_program(text, &failure);
    (void)PyEval_SaveThread(); /* theirs stays: threads may be left in that interpreter */
    PyEval_RestoreThread(ours);
    if (failure.text[0] == '\0') {
        Py_RETURN_NONE;
    }
    PyObject *message =
        PyUnicode_DecodeUTF8(failure.text, (Py_ssize_t)strlen(failure.text), "replace");
    if (message != NULL) {
        PyErr_SetObject(PyExc_RuntimeError, message);
        Py_DECREF(message);
    }
    return NULL;
}

#else

PyObject *pp_interpreters_run(PyObject *module, PyObject *program)
{
    PyErr_SetString(PyExc_RuntimeError,
                    "interpreters with a GIL of their own need CPython 3.13 or later");
    return NULL;
}

#endif

/* sys._current_frames() is no help here: it goes through all interpreters, whose threads run
 * meanwhile, and a thread that was lent has a frame in each, of which it gives the main one's. */
PyObject *pp_interpreters_thread_frame(PyObject *Py_UNUSED(module), PyObject *ident)
{
#ifdef Py_GIL_DISABLED
    (void)ident;
    PyErr_SetString(PyExc_RuntimeError, "thread_frame() needs a GIL");
    return NULL;
#else
    unsigned long wanted = PyLong_AsUnsignedLong(ident);
    if (wanted == (unsigned long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    PyThreadState *state = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
    while (state != NULL && state->thread_id != wanted) {
        state = PyThreadState_Next(state);
    }
    PyFrameObject *frame = state != NULL ? PyThreadState_GetFrame(state) : NULL;
    if (frame == NULL) {
        Py_RETURN_NONE;
    }
    return (PyObject *)frame;
#endif
}
