/* One ASGI request: its state, which is at the same time its `send` callable, and its connection.
 */
#include "bridge/request.h"
#include "bridge/access.h"

PpRequest *pp_request_new(PpCore *core, struct pp_exchange *ex, vectorcallfunc send)
{
    PyTypeObject *type = core->state->request_type;
    PpRequest *req = (PpRequest *)pp_kept_take(&core->kept_requests, type);
    if (req != NULL) {
        req->vectorcall = send;
        req->core = (PpCore *)Py_NewRef((PyObject *)core);
        req->ex = ex;
        pp_exchange_set_app(ex, Py_NewRef((PyObject *)req)); /* dropped by pp_request_release */
    }
    return req;
}

void pp_request_release(PpRequest *req)
{
    struct pp_exchange *ex = req->ex;
    if (ex == NULL) {
        return;
    }
    req->ex = NULL;
    pp_access_log(req->core, pp_access_of(req->core, ex), pp_exchange_status(ex));
    pp_exchange_set_app(ex, NULL);
    pp_exchange_finish(ex);
    Py_DECREF((PyObject *)req); /* the connection's reference; the caller has its own */
}

bool pp_request_body_failed(const PpRequest *req)
{
    return req->disconnect_told && pp_exchange_error(req->ex) != PP_OK;
}

/* ---- its type ---- */

static int request_traverse(PyObject *op, visitproc visit, void *arg)
{
    PpRequest *req = (PpRequest *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT((PyObject *)req->core);
    Py_VISIT(req->headers);
    Py_VISIT(req->receive_waiters);
    Py_VISIT(req->drain_waiters);
    return 0;
}

static int request_clear(PyObject *op)
{
    PpRequest *req = (PpRequest *)op;
    Py_CLEAR(req->headers);
    Py_CLEAR(req->receive_waiters);
    Py_CLEAR(req->drain_waiters);
    return 0; /* core is needed as long as the object can be called: dropped in dealloc */
}

static void request_dealloc(PyObject *op)
{
    PpRequest *req = (PpRequest *)op;
    PpCore *core = req->core;
    PyObject_GC_UnTrack(op);
    PP_ASSERT(req->ex == NULL);
    request_clear(op);
    pp_kept_give(&core->kept_requests, op);
    Py_DECREF((PyObject *)core);
}

static PyMemberDef request_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(PpRequest, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot request_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("send(message): the ASGI send callable of one request.")},
    {Py_tp_dealloc, request_dealloc},
    {Py_tp_traverse, request_traverse},
    {Py_tp_clear, request_clear},
    {Py_tp_members, request_members},
    {Py_tp_call, PyVectorcall_Call},
    {0, NULL},
};

PyType_Spec pp_request_spec = {
    .name = "ppserver._native.Send",
    .basicsize = sizeof(PpRequest),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = request_slots,
};
