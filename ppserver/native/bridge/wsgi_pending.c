/* Stand-in until the WSGI bridge lands: the module links, serve_wsgi says what is missing. */
#include "bridge/bridge.h"

static PyObject *pending(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(args),
                         PyObject *Py_UNUSED(kwargs))
{
    PyErr_SetString(PyExc_NotImplementedError, "WSGI is not part of this build yet");
    return NULL;
}

PyMethodDef pp_wsgi_methods[] = {
    {"serve_wsgi", (PyCFunction)(void (*)(void))pending, METH_VARARGS | METH_KEYWORDS, NULL},
    {"run_wsgi", (PyCFunction)(void (*)(void))pending, METH_VARARGS | METH_KEYWORDS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot no_slots[] = {{Py_tp_doc, NULL}, {0, NULL}};
#define SPEC(id, text)                                                                             \
    PyType_Spec id = {.name = "ppserver._native." text,                                            \
                      .basicsize = sizeof(PyObject),                                               \
                      .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,             \
                      .slots = no_slots + 1}
SPEC(pp_wsgi_input_spec, "Input");
SPEC(pp_wsgi_start_spec, "StartResponse");
SPEC(pp_wsgi_write_spec, "Write");
SPEC(pp_file_wrapper_spec, "FileWrapper");

int pp_wsgi_traverse(PpCore *Py_UNUSED(core), visitproc Py_UNUSED(visit), void *Py_UNUSED(arg))
{
    return 0;
}
void pp_wsgi_clear(PpCore *Py_UNUSED(core)) {}
void pp_wsgi_wake(PpCore *Py_UNUSED(core)) {}
