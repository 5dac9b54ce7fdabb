/* Access lines by way of Python: what the callback of Core's `access_log` is told. */
#include "bridge/access.h"

#include "net/address.h"

/* Latin-1: an access line shows bytes, not characters; the logger escapes controls. */
static PyObject *text_of(const uint8_t *base, struct pp_span span)
{
    return PyUnicode_DecodeLatin1((const char *)base + span.off, (Py_ssize_t)span.len, NULL);
}

static PyObject *client_of(PpCore *core, const struct pp_exchange *ex)
{
    char text[PP_ADDRESS_TEXT_MAX];
    unsigned port;
    return pp_address_text(pp_exchange_client(ex), text, &port) > 0
               ? PyUnicode_FromFormat("%s:%u", text, port)
               : Py_NewRef(core->k.empty_str);
}

PyObject *pp_access_of(PpCore *core, const struct pp_exchange *ex)
{
    if (PP_LIKELY(core->access_log == NULL)) {
        return NULL;
    }
    const uint8_t *base;
    const struct pp_head *head = pp_exchange_head(ex, &base);
    int gc = pp_compat_gc_pause();
    PyObject *args =
        Py_BuildValue("(NNNO)", client_of(core, ex), text_of(base, head->method),
                      text_of(base, head->target), head->minor == 0 ? core->k.v1_0 : core->k.v1_1);
    pp_compat_gc_resume(gc);
    if (args == NULL) {
        PyErr_Clear(); /* no memory; who asks may hold the loop, so nothing of Python's can be told
                        */
    }
    return args;
}

void pp_access_log(PpCore *core, PyObject *args, int status)
{
    if (PP_LIKELY(args == NULL)) {
        return;
    }
    PyObject *r = PyObject_CallFunction(core->access_log, "OOOOi", PyTuple_GET_ITEM(args, 0),
                                        PyTuple_GET_ITEM(args, 1), PyTuple_GET_ITEM(args, 2),
                                        PyTuple_GET_ITEM(args, 3), status);
    if (r == NULL) {
        PyErr_WriteUnraisable(core->access_log);
    }
    Py_XDECREF(r);
    Py_DECREF(args);
}
