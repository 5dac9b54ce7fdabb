/* A connection as protocols of the parallel API see it: its life, and the output of its turns
 * (transport_type.c has what it can do). */
#include "bridge/transport.h"
#include "bridge/lead.h"

#include <string.h>

#include "net/address.h"

/* ---- life ---- */

PpTransport *pp_transport_new(struct pp_par *par, struct pp_exchange *ex)
{
    PpCore *core = par->lead.core;
    unsigned tag = pp_exchange_tag(ex);
    if (tag >= par->count) { /* from another context, which serves something else */
        PyErr_SetString(PyExc_RuntimeError, "a connection for a protocol that is not served");
        return NULL;
    }
    PyTypeObject *type = core->state->transport_type;
    PpTransport *t = (PpTransport *)type->tp_alloc(type, 0);
    if (t == NULL) {
        return NULL;
    }
    const struct sockaddr *peer = pp_exchange_peer(ex);
    char text[PP_ADDRESS_TEXT_MAX];
    unsigned port;
    (void)pp_address_text(peer, text, &port);
    t->ip = PyUnicode_FromString(text);
    t->port = (int)port;
    t->family = peer->sa_family;
    t->core = (PpCore *)Py_NewRef((PyObject *)core);
    pp_lead_ref(&par->lead);
    t->par = par;
    t->protocol = &par->protocols[tag];
    t->began_us = pp_loop_clock_us();
    pp_list_init(&t->link);
    if (t->ip == NULL) {
        Py_DECREF((PyObject *)t);
        return NULL;
    }
    return t;
}

int pp_transport_traverse(PyObject *self, visitproc visit, void *arg)
{
    PpTransport *t = (PpTransport *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(t->core);
    Py_VISIT(t->handler);
    Py_VISIT(t->kept);
    Py_VISIT(t->dict);
    return 0;
}

int pp_transport_clear(PyObject *self)
{
    PpTransport *t = (PpTransport *)self;
    Py_CLEAR(t->handler);
    Py_CLEAR(t->kept);
    Py_CLEAR(t->dict);
    return 0;
}

void pp_transport_dealloc(PyObject *self)
{
    PpTransport *t = (PpTransport *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (t->weakrefs != NULL) {
        PyObject_ClearWeakRefs(self);
    }
    PP_CHECK(t->par == NULL || !pp_list_linked(&t->link));
    (void)pp_transport_clear(self);
    Py_CLEAR(t->ip);
    Py_CLEAR(t->partial);
    Py_CLEAR(t->last_sent);
    if (t->par != NULL) {
        pp_lead_unref(&t->par->lead);
    }
    Py_CLEAR(t->core);
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- output ---- */

static int outs_grow(struct pp_par_turn *turn)
{
    uint32_t cap = turn->cap * 2;
    struct pp_par_out *outs = turn->outs == turn->inline_outs
                                  ? PyMem_Malloc(cap * sizeof(*outs))
                                  : PyMem_Realloc(turn->outs, cap * sizeof(*outs));
    if (outs == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (turn->outs == turn->inline_outs) {
        memcpy(outs, turn->inline_outs, sizeof(turn->inline_outs));
    }
    turn->outs = outs;
    turn->cap = cap;
    return 0;
}

static int add(PpTransport *t, struct pp_par_out out)
{
    struct pp_par_turn *turn = t->turn;
    if (turn->count == turn->cap && outs_grow(turn) < 0) {
        return -1;
    }
    turn->outs[turn->count++] = out;
    __atomic_store_n(&t->send_id, t->send_id + 1, __ATOMIC_RELAXED);
    __atomic_store_n(&t->just_sent, out.len, __ATOMIC_RELAXED);
    __atomic_store_n(&t->sent, t->sent + out.len, __ATOMIC_RELAXED);
    return 0;
}

int pp_transport_push(PpTransport *t, PyObject *bytes)
{
    const bool *has = t->protocol->has;
    uint64_t len = (uint64_t)PyBytes_GET_SIZE(bytes);
    if (len == 0 && t->protocol->raw) {
        Py_DECREF(bytes);
        return 0;
    }
    if (add(t, (struct pp_par_out){.owner = bytes, .len = len}) < 0) {
        Py_DECREF(bytes);
        return -1;
    }
    if (has[PP_PAR_data_sent] || has[PP_PAR_send_failed]) {
        Py_XSETREF(t->last_sent, Py_NewRef(bytes));
    }
    return 0;
}

int pp_transport_push_file(PpTransport *t, struct pp_file *file, uint64_t at, uint64_t len)
{
    return add(t, (struct pp_par_out){.file = file, .at = at, .len = len});
}

PyObject *pp_transport_bytes_of(PyObject *given)
{
    if (PyBytes_CheckExact(given)) {
        return given;
    }
    PyObject *bytes = NULL;
    if (PyUnicode_Check(given)) {
        bytes = PyUnicode_AsUTF8String(given);
    } else if (PyObject_CheckBuffer(given)) {
        bytes = PyBytes_FromObject(given);
    } else {
        PyErr_Format(PyExc_TypeError,
                     "a callback must return bytes, bytearray, str or None, not %.100s",
                     Py_TYPE(given)->tp_name);
    }
    Py_DECREF(given);
    return bytes;
}

int pp_transport_take(PpTransport *t, PyObject *given)
{
    if (given == NULL) {
        return -1;
    }
    if (given == Py_None) {
        Py_DECREF(given);
        return 0;
    }
    PyObject *bytes = pp_transport_bytes_of(given);
    return bytes == NULL ? -1 : pp_transport_push(t, bytes);
}
