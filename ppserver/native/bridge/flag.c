/* Asking objects of Python yes or no. */
#include "bridge/flag.h"

int pp_flag_of(PyObject *object, PyObject *attr)
{
    PyObject *value = PyObject_GetAttr(object, attr);
    if (value == NULL) {
        return -1;
    }
    int truth = value == Py_None ? 0 : PyObject_IsTrue(value);
    Py_DECREF(value);
    return truth;
}

int pp_flag_call(PyObject *object, PyObject *method)
{
    PyObject *value = PyObject_VectorcallMethod(method, &object, 1, NULL);
    if (value == NULL) {
        return -1;
    }
    int truth = PyObject_IsTrue(value);
    Py_DECREF(value);
    return truth;
}
