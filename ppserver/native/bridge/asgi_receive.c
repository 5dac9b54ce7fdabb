/* receive() of an ASGI request: http.request messages with its body, then http.disconnect.
 *
 * What pp_exchange_peek shows is copied into a bytes object; a large body that is still in the
 * socket is received into it (pp_exchange_take). */
#include "bridge/asgi_receive.h"
#include "bridge/attached.h"
#include "bridge/awaitable.h"

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PpRequest *req; /* owned */
} PpReceive;

static PyObject *disconnect_message(PpRequest *req)
{
    struct pp_constants *k = &req->core->k;
    PyObject *message = PyDict_New();
    if (message != NULL && PyDict_SetItem(message, k->type, k->http_disconnect) < 0) {
        Py_CLEAR(message);
    }
    req->disconnect_told = message != NULL;
    return message;
}

static PyObject *request_message(PpRequest *req, PyObject *body, bool more)
{
    struct pp_constants *k = &req->core->k;
    PyObject *message = PyDict_New();
    if (message == NULL || PyDict_SetItem(message, k->type, k->http_request) < 0 ||
        PyDict_SetItem(message, k->body, body) < 0 ||
        PyDict_SetItem(message, k->more_body, more ? Py_True : Py_False) < 0) {
        Py_CLEAR(message);
    }
    return message;
}

/* The body could not be handed on: what would follow it must not pass for the whole. */
static int body_lost(PpRequest *req)
{
    req->body_read = req->peer_eof = true;
    return -1;
}

/* Hands a piece on that was taken from the connection: making the message may collect garbage, and
 * so run anything, which must find the request without that piece. Takes over body. */
static int hand_on(PpRequest *req, PyObject *body, enum pp_body_status status, PyObject **message)
{
    req->body_read = status == PP_BODY_END;
    *message = request_message(req, body, status == PP_BODY_MORE);
    Py_DECREF(body);
    return *message != NULL ? 1 : body_lost(req);
}

/* A piece of a large body, received into the bytes object that the application gets. 0: nothing was
 * there after all. */
static int receive_into(PpRequest *req, size_t room, PyObject **message)
{
    PyObject *body = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)room);
    size_t len;
    if (body == NULL) {
        return -1;
    }
    enum pp_body_status status =
        pp_exchange_take(req->ex, (uint8_t *)PyBytes_AS_STRING(body), room, &len);
    if (status == PP_BODY_FAILED) {
        Py_DECREF(body);
        req->body_read = true;
        *message = disconnect_message(req);
        return *message != NULL ? 1 : -1;
    }
    if (len == 0) {
        Py_DECREF(body);
        return 0;
    }
    if (len < room && _PyBytes_Resize(&body, (Py_ssize_t)len) < 0) {
        return body_lost(req);
    }
    return hand_on(req, body, status, message);
}

static int body_wanted(PpRequest *req)
{
    pp_exchange_want(req->ex);
    return pp_attached_output_queued(req->core) < 0 ? -1 : 0; /* 100 Continue may be due */
}

static int look_receive(PyObject *op, PyObject **message)
{
    PpRequest *req = (PpRequest *)op;
    if (req->ex == NULL || (req->body_read && req->peer_eof)) {
        *message = disconnect_message(req);
        return *message != NULL ? 1 : -1;
    }
    if (req->body_read) {
        return 0; /* until the peer goes, or the response is complete */
    }
    const uint8_t *data;
    size_t len, ahead = pp_exchange_ahead(req->ex);
    enum pp_body_status status = pp_exchange_peek(req->ex, &data, &len);
    if (status == PP_BODY_FAILED) {
        req->body_read = true;
        *message = disconnect_message(req);
        return *message != NULL ? 1 : -1;
    }
    if (ahead > 0) {
        int taken = receive_into(req, len + ahead, message);
        return taken != 0 ? taken : body_wanted(req);
    }
    if (status == PP_BODY_MORE && len == 0) {
        return body_wanted(req);
    }
    PyObject *body = len == 0 ? Py_NewRef(req->core->k.empty_bytes)
                              : PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)len);
    if (body == NULL) {
        return -1;
    }
    pp_exchange_consume(req->ex, len);
    return hand_on(req, body, status, message);
}

static const struct pp_wait_kind wait_receive = {look_receive,
                                                 offsetof(PpRequest, receive_waiters)};

static PyObject *receive_call(PyObject *op, PyObject *const *Py_UNUSED(args), size_t nargsf,
                              PyObject *kwnames)
{
    if (PyVectorcall_NARGS(nargsf) != 0 || (kwnames != NULL && PyTuple_GET_SIZE(kwnames) != 0)) {
        PyErr_SetString(PyExc_TypeError, "receive() takes no arguments");
        return NULL;
    }
    PpRequest *req = ((PpReceive *)op)->req;
    return pp_wait_new(req->core, (PyObject *)req, &wait_receive, 0);
}

PyObject *pp_receive_new(PpCore *core, PpRequest *req)
{
    PyTypeObject *type = core->state->receive_type;
    PpReceive *receive = (PpReceive *)pp_kept_take(&core->kept_receives, type);
    if (receive != NULL) {
        receive->vectorcall = receive_call;
        receive->req = (PpRequest *)Py_NewRef((PyObject *)req);
    }
    return (PyObject *)receive;
}

/* ---- its type ---- */

static int receive_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT((PyObject *)((PpReceive *)op)->req);
    return 0;
}

static void receive_dealloc(PyObject *op)
{
    PpRequest *req = ((PpReceive *)op)->req;
    PyObject_GC_UnTrack(op);
    pp_kept_give(&req->core->kept_receives, op);
    Py_DECREF((PyObject *)req);
}

static PyMemberDef receive_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(PpReceive, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot receive_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("receive(): the ASGI receive callable of one request.")},
    {Py_tp_dealloc, receive_dealloc},
    {Py_tp_traverse, receive_traverse},
    {Py_tp_members, receive_members},
    {Py_tp_call, PyVectorcall_Call},
    {0, NULL},
};

PyType_Spec pp_receive_spec = {
    .name = "ppserver._native.Receive",
    .basicsize = sizeof(PpReceive),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = receive_slots,
};
