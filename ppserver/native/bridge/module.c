/* The module `ppserver._native`: slots, exec, traverse, clear; nothing else.
 *
 * Multi-phase initialisation (PEP 489) with all state in the module (PEP 3121), heap types, no
 * process-wide Python objects: it may be loaded in any number of interpreters, with one GIL each
 * (PEP 684) or with none at all (PEP 703). */
#include "bridge/asgi.h"
#include "bridge/asgi_receive.h"
#include "bridge/attached.h"
#include "bridge/awaitable.h"
#include "bridge/board.h"
#include "bridge/core.h"
#include "bridge/core_settings.h"
#include "bridge/freeze.h"
#include "bridge/interpreters.h"
#include "bridge/lead_manager.h"
#include "bridge/lead_word.h"
#include "bridge/own_task.h"
#include "bridge/parallel.h"
#include "bridge/request.h"
#include "bridge/runner.h"
#include "bridge/selector.h"
#include "bridge/shared.h"
#include "bridge/transport_type.h"
#include "bridge/wsgi.h"
#include "bridge/wsgi_file.h"
#include "bridge/wsgi_input.h"
#include "bridge/wsgi_start.h"

#include "proto/h1_scan.h"

#ifndef PP_VERSION
#define PP_VERSION "0"
#endif
#ifndef PP_BUILD_TYPE
#define PP_BUILD_TYPE "unknown"
#endif

static PyObject *simd_level(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return PyUnicode_FromString(pp_h1_scan->name);
}

static PyObject *memory(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return Py_BuildValue("{s:K,s:K}", "bytes", (unsigned long long)pp_mem_bytes(), "blocks",
                         (unsigned long long)pp_mem_blocks());
}

static PyObject *runs_callbacks(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    const struct pp_lead_worker *worker = pp_lead_self();
    return PyBool_FromLong(worker != NULL && !worker->manager);
}

static PyObject *shared_seal(PyObject *module, PyObject *arg)
{
    int sealed = PyObject_IsTrue(arg);
    if (sealed < 0) {
        return NULL;
    }
    PpState *st = PyModule_GetState(module);
    __atomic_store_n(&st->shared_sealed, sealed != 0, __ATOMIC_RELAXED);
    Py_RETURN_NONE;
}

static PyMethodDef module_methods[] = {
    {"simd_level", simd_level, METH_NOARGS,
     PyDoc_STR("simd_level() -> str\n\nThe byte scanner chosen at start-up: "
               "'scalar', 'sse42', 'avx2' or 'neon'.")},
    {"memory", memory, METH_NOARGS,
     PyDoc_STR("memory() -> dict[str, int]\n\nBytes and blocks the C core has allocated in this "
               "process now (connections, buffers; not Python objects).")},
    {"runs_callbacks", runs_callbacks, METH_NOARGS,
     PyDoc_STR("runs_callbacks() -> bool\n\nWhether the calling thread is one on which a core "
               "runs WSGI applications or callbacks of protocols.")},
    {"shared_seal", shared_seal, METH_O,
     PyDoc_STR("shared_seal(sealed)\n\nWhether making a shared object is an error from now on, "
               "because contexts have started.")},
    {"thread_frame", pp_interpreters_thread_frame, METH_O,
     PyDoc_STR("thread_frame(ident) -> the innermost frame of this interpreter's thread, or None")},
    {"run_interpreter", pp_interpreters_run, METH_O,
     PyDoc_STR("run_interpreter(program: str) -> None\n\nRun a program in a new subinterpreter "
               "with a GIL of its own, on this thread; the interpreter is never destroyed.")},
    {NULL, NULL, 0, NULL},
};

static PyObject *import_from(const char *module_name, const char *attr)
{
    PyObject *module = PyImport_ImportModule(module_name);
    if (module == NULL) {
        return NULL;
    }
    PyObject *value = PyObject_GetAttrString(module, attr);
    Py_DECREF(module);
    return value;
}

static int add_type(PyObject *module, PyTypeObject **slot, PyType_Spec *spec)
{
    *slot = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *slot == NULL ? -1 : 0;
}

/* Core's methods live beside what they do; those outside of core.c are added here. */
static int add_methods(PyTypeObject *type, PyMethodDef *methods)
{
    for (PyMethodDef *m = methods; m->ml_name != NULL; m++) {
        PyObject *descr = PyDescr_NewMethod(type, m);
        if (descr == NULL) {
            return -1;
        }
        int rc = PyObject_SetAttrString((PyObject *)type, m->ml_name, descr);
        Py_DECREF(descr);
        if (rc < 0) {
            return -1;
        }
    }
    return 0;
}

static int add_types(PyObject *module, PpState *st)
{
    if (add_type(module, &st->core_type, &pp_core_spec) < 0 ||
        add_type(module, &st->board_type, &pp_board_spec) < 0 ||
        add_type(module, &st->request_type, &pp_request_spec) < 0 ||
        add_type(module, &st->receive_type, &pp_receive_spec) < 0 ||
        add_type(module, &st->done_type, &pp_done_spec) < 0 ||
        add_type(module, &st->wait_type, &pp_wait_spec) < 0 ||
        add_type(module, &st->runner_type, &pp_runner_spec) < 0 ||
        add_type(module, &st->own_task_type, &pp_own_task_spec) < 0 ||
        add_type(module, &st->wsgi_input_type, &pp_wsgi_input_spec) < 0 ||
        add_type(module, &st->wsgi_start_type, &pp_wsgi_start_spec) < 0 ||
        add_type(module, &st->file_wrapper_type, &pp_file_wrapper_spec) < 0 ||
        add_type(module, &st->shared_counter_type, &pp_shared_counter_spec) < 0 ||
        add_type(module, &st->shared_array_type, &pp_shared_array_spec) < 0 ||
        add_type(module, &st->transport_type, &pp_transport_spec) < 0 ||
        add_methods(st->core_type, pp_selector_methods) < 0 ||
        add_methods(st->core_type, pp_attached_methods) < 0 ||
        add_methods(st->core_type, pp_asgi_methods) < 0 ||
        add_methods(st->core_type, pp_lead_methods) < 0 ||
        add_methods(st->core_type, pp_wsgi_methods) < 0 ||
        add_methods(st->core_type, pp_par_methods) < 0) {
        return -1;
    }
    if (PyModule_AddObjectRef(module, "Core", (PyObject *)st->core_type) < 0 ||
        PyModule_AddObjectRef(module, "Board", (PyObject *)st->board_type) < 0 ||
        PyModule_AddObjectRef(module, "Counter", (PyObject *)st->shared_counter_type) < 0 ||
        PyModule_AddObjectRef(module, "Array", (PyObject *)st->shared_array_type) < 0 ||
        PyModule_AddObjectRef(module, "Transport", (PyObject *)st->transport_type) < 0) {
        return -1;
    }
    return 0;
}

static int add_imports(PpState *st)
{
    st->cancelled_error = import_from("asyncio", "CancelledError");
    st->task_class = import_from("asyncio", "Task");
    st->future_class = import_from("asyncio", "Future");
    st->enter_task = import_from("asyncio.tasks", "_enter_task");
    st->leave_task = import_from("asyncio.tasks", "_leave_task");
    st->get_weakref_count = import_from("weakref", "getweakrefcount");
    st->request_coroutine = import_from("ppserver.request", "ppserver_request");
    if (st->cancelled_error == NULL || st->task_class == NULL || st->future_class == NULL ||
        st->enter_task == NULL || st->leave_task == NULL || st->get_weakref_count == NULL ||
        st->request_coroutine == NULL) {
        return -1;
    }
    return 0;
}

static int module_exec(PyObject *module)
{
    PpState *st = PyModule_GetState(module);
    pp_h1_scan_init();
    if (add_types(module, st) < 0 || add_imports(st) < 0 || pp_freeze_init(st) < 0 ||
        PyModule_AddFunctions(module, pp_freeze_methods) < 0) {
        return -1;
    }
    st->client_disconnected = PyErr_NewExceptionWithDoc(
        "ppserver._native.ClientDisconnected",
        "The peer is gone: what was sent can not reach it (ASGI: send() after a disconnect).",
        PyExc_OSError, NULL);
    if (st->client_disconnected == NULL ||
        PyModule_AddObjectRef(module, "ClientDisconnected", st->client_disconnected) < 0) {
        return -1;
    }
    PyObject *bounds = pp_core_settings_bounds();
    if (bounds == NULL) {
        return -1;
    }
    int rc = PyModule_AddObjectRef(module, "CORE_SETTINGS", bounds);
    Py_DECREF(bounds);
    if (rc < 0) {
        return -1;
    }
    PyObject *build = Py_BuildValue("{s:s,s:s,s:s,s:O,s:i}", "version", PP_VERSION, "compiler",
                                    __VERSION__, "type", PP_BUILD_TYPE, "assertions",
#ifdef PP_DEBUG
                                    Py_True,
#else
                                    Py_False,
#endif
                                    "python", PY_VERSION_HEX);
    if (build == NULL) {
        return -1;
    }
    rc = PyModule_AddObjectRef(module, "BUILD", build);
    Py_DECREF(build);
    return rc;
}

/* X(field): every owned reference of PpState. */
#define PP_STATE_FIELDS(X) \
    X(core_type) \
    X(board_type) \
    X(request_type) \
    X(receive_type) \
    X(done_type) \
    X(wait_type) \
    X(runner_type) \
    X(own_task_type) \
    X(wsgi_input_type) \
    X(wsgi_start_type) \
    X(file_wrapper_type) \
    X(shared_counter_type) \
    X(shared_array_type) \
    X(transport_type) \
    X(client_disconnected) \
    X(cancelled_error) \
    X(task_class) \
    X(future_class) \
    X(enter_task) \
    X(leave_task) \
    X(get_weakref_count) \
    X(request_coroutine)

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    PpState *st = PyModule_GetState(module);
    if (st == NULL) {
        return 0;
    }
#define PP_VISIT_(field) Py_VISIT(st->field);
    PP_STATE_FIELDS(PP_VISIT_)
#undef PP_VISIT_
    return 0;
}

static int module_clear(PyObject *module)
{
    PpState *st = PyModule_GetState(module);
    if (st == NULL) {
        return 0;
    }
#define PP_CLEAR_(field) Py_CLEAR(st->field);
    PP_STATE_FIELDS(PP_CLEAR_)
#undef PP_CLEAR_
    return 0;
}

static void module_free(void *module)
{
    module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "ppserver._native",
    .m_doc = "The native core of ppserver: event loop, HTTP/1.1, ASGI and WSGI bridges.",
    .m_size = sizeof(PpState),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__native(void); /* the one exported name */

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&module_def);
}
