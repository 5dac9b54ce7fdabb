/* wsgi.file_wrapper: FileWrapper(filelike, block_bytes=8192), an iterable of blocks.
 *
 * Returned by an application as it is, the response reads the file itself in large blocks, through
 * its read() method: so the position that the object has is honoured, whatever it buffers, and it
 * need not be a real file. Wrapped by middleware, it is an iterator like any other. sendfile()
 * would save a copy per block; it is left out because it needs a descriptor whose offset is the
 * object's position, which Python's buffered files do not promise. */
#include "bridge/wsgi_file.h"
#include "bridge/wsgi_call.h"

typedef struct {
    PyObject_HEAD
    PyObject *filelike; /* owned */
    Py_ssize_t block_bytes;
} PpFileWrapper;

PyObject *pp_wsgi_file_of(PpState *state, PyObject *wrapper, Py_ssize_t *block_bytes)
{
    if (!Py_IS_TYPE(wrapper, state->file_wrapper_type)) {
        return NULL;
    }
    PpFileWrapper *file = (PpFileWrapper *)wrapper;
    *block_bytes = file->block_bytes;
    return file->filelike;
}

static PyObject *wrapper_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"", "blksize", NULL};
    PyObject *filelike;
    Py_ssize_t block_bytes = 8192;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|n:file_wrapper", keywords, &filelike,
                                     &block_bytes)) {
        return NULL;
    }
    if (block_bytes <= 0) {
        PyErr_SetString(PyExc_ValueError, "file_wrapper: the block size must be positive");
        return NULL;
    }
    PpFileWrapper *self = (PpFileWrapper *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->filelike = Py_NewRef(filelike);
        self->block_bytes = block_bytes;
    }
    return (PyObject *)self;
}

static int wrapper_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((PpFileWrapper *)self)->filelike);
    return 0;
}

static int wrapper_clear(PyObject *self)
{
    Py_CLEAR(((PpFileWrapper *)self)->filelike);
    return 0;
}

static void wrapper_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)wrapper_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *wrapper_next(PyObject *self)
{
    PpFileWrapper *file = (PpFileWrapper *)self;
    PyObject *block = PyObject_CallMethod(file->filelike, "read", "n", file->block_bytes);
    if (block == NULL) {
        return NULL;
    }
    int more = PyObject_IsTrue(block);
    if (more <= 0) {
        Py_DECREF(block);
        return NULL;
    }
    return block;
}

static PyObject *wrapper_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *filelike = Py_NewRef(((PpFileWrapper *)self)->filelike);
    PyObject *close_method = PyObject_GetAttrString(filelike, "close");
    PyObject *result = NULL;
    if (close_method != NULL) {
        result = PyObject_CallNoArgs(close_method);
        Py_DECREF(close_method);
    } else if (PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        result = Py_NewRef(Py_None);
    }
    Py_DECREF(filelike);
    return result;
}

static PyMethodDef wrapper_methods[] = {
    {"close", wrapper_close, METH_NOARGS,
     PyDoc_STR("close()\n\nClose the file, if it can be closed.")},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef wrapper_members[] = {
    {"filelike", T_OBJECT, offsetof(PpFileWrapper, filelike), READONLY,
     PyDoc_STR("The wrapped file.")},
    {"blksize", T_PYSSIZET, offsetof(PpFileWrapper, block_bytes), READONLY,
     PyDoc_STR("Bytes of a block.")},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot wrapper_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("FileWrapper(filelike, blksize=8192)\n\n"
                                  "wsgi.file_wrapper: a file as the body of a response.")},
    {Py_tp_new, wrapper_new},
    {Py_tp_dealloc, wrapper_dealloc},
    {Py_tp_traverse, wrapper_traverse},
    {Py_tp_clear, wrapper_clear},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, wrapper_next},
    {Py_tp_methods, wrapper_methods},
    {Py_tp_members, wrapper_members},
    {0, NULL},
};

PyType_Spec pp_file_wrapper_spec = {
    .name = "ppserver._native.FileWrapper",
    .basicsize = sizeof(PpFileWrapper),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = wrapper_slots,
};
