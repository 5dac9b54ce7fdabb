/* An extension module that does not say whether it can do without a GIL. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "single_phase",
    .m_doc = "Switches the GIL of a free-threaded Python on, by being imported.",
    .m_size = -1,
};

PyMODINIT_FUNC PyInit_single_phase(void);

PyMODINIT_FUNC PyInit_single_phase(void)
{
    return PyModule_Create(&definition);
}
