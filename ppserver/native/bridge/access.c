/* The access log by way of Python's logging, which is slower than the loop's own: one call with
 * (client, method, target, version, status) for each request. */
#include "bridge/access.h"
#include "bridge/scope.h"

void pp_access_log(PpCore *core, struct pp_conn *conn)
{
    if (PP_LIKELY(core->access_log == NULL)) {
        return;
    }
    const uint8_t *base;
    const struct pp_h1_head *head = pp_conn_head(conn, &base);
    PyObject *client = pp_scope_client(core, conn), *r = NULL;
    if (client != NULL) {
        /* Latin-1: an access line shows bytes, not characters; the logger escapes controls. */
        PyObject *text = client == Py_None
                             ? Py_NewRef(core->k.empty_str)
                             : PyUnicode_FromFormat("%S:%S", PyTuple_GET_ITEM(client, 0),
                                                    PyTuple_GET_ITEM(client, 1));
        if (text != NULL) {
            PyObject *method = PyUnicode_DecodeLatin1((const char *)base + head->method.off,
                                                      (Py_ssize_t)head->method.len, NULL);
            PyObject *target = PyUnicode_DecodeLatin1((const char *)base + head->target.off,
                                                      (Py_ssize_t)head->target.len, NULL);
            if (method != NULL && target != NULL) {
                r = PyObject_CallFunction(core->access_log, "OOOOi", text, method, target,
                                          head->minor == 0 ? core->k.v1_0 : core->k.v1_1,
                                          pp_conn_status(conn));
            }
            Py_XDECREF(method);
            Py_XDECREF(target);
            Py_DECREF(text);
        }
        Py_DECREF(client);
    }
    if (r == NULL) {
        PyErr_WriteUnraisable(core->access_log);
    }
    Py_XDECREF(r);
}
