/* What calls want from their connections, and what connections have for their calls.
 *
 * An operation is carried out at once when its thread leads; otherwise it is posted to the leader,
 * and its thread waits detached. One that can not end yet (no body bytes, output full) stays with
 * its call until an event of the connection ends it; a leader that meets this in its own call hands
 * over first, so that the loop turns while it waits.
 *
 * Everything here but pp_wsgi_op_run and pp_wsgi_op_finish runs on the leading thread, attached or
 * not, without calling Python. */
#include "bridge/wsgi_op.h"
#include "bridge/lead.h"
#include "bridge/lead_word.h"
#include "bridge/queue.h"

#include <string.h>

/* ---- operations ---- */

static bool apply_output(PpWsgiCall *call, struct pp_wsgi_op *op)
{
    struct pp_exchange *ex = call->ex;
    bool *borrowed = op->owner != NULL ? &op->borrowed : NULL;
    if (op->kind == PP_WSGI_OP_RESPOND) {
        op->rc = pp_exchange_respond(ex, op->response, op->data, op->len, op->owner, borrowed);
    } else {
        op->rc = pp_exchange_send(ex, op->data, op->len, op->more, op->owner, borrowed);
    }
    op->closed = pp_exchange_closed(ex);
    if (op->rc != PP_OK || !op->more || op->closed || !pp_exchange_out_full(ex)) {
        return true;
    }
    /* Often the socket takes it at once, and nobody has to wait. */
    pp_exchange_flush(ex);
    op->closed = pp_exchange_closed(ex);
    if (op->closed || !pp_exchange_out_full(ex)) {
        return true;
    }
    call->out_op = op;
    return false;
}

static bool apply_read(PpWsgiCall *call, struct pp_wsgi_op *op)
{
    const uint8_t *data;
    size_t len, ahead = pp_exchange_ahead(call->ex);
    enum pp_body_status status = pp_exchange_peek(call->ex, &data, &len);
    if (ahead > 0 && len < op->cap) {
        status = pp_exchange_take(call->ex, op->dst, op->cap, &op->got);
        op->eof = status == PP_BODY_END;
    } else if (len > 0) {
        op->got = len < op->cap ? len : op->cap;
        memcpy(op->dst, data, op->got);
        pp_exchange_consume(call->ex, op->got);
        op->eof = status == PP_BODY_END && op->got == len;
    }
    if (op->got > 0) {
        return true;
    }
    switch (status) {
    case PP_BODY_END:
        op->eof = true;
        return true;
    case PP_BODY_FAILED:
        op->rc = pp_exchange_error(call->ex);
        if (op->rc >= 0) {
            op->rc = PP_ERR_DISCONNECTED;
        }
        return true;
    case PP_BODY_MORE:
        break;
    }
    pp_exchange_want(call->ex);
    call->in_op = op;
    return false;
}

static void fail_waiting(PpWsgiCall *call)
{
    struct pp_wsgi_op *in = call->in_op, *out = call->out_op;
    call->in_op = call->out_op = NULL;
    if (in != NULL) {
        in->rc = PP_ERR_DISCONNECTED;
        pp_lead_op_done(&in->op);
    }
    if (out != NULL) {
        out->closed = true;
        pp_lead_op_done(&out->op);
    }
}

void pp_wsgi_op_let_go(PpWsgiCall *call)
{
    struct pp_exchange *ex = call->ex;
    call->ex = NULL;
    fail_waiting(call); /* another thread of the application that still reads, say */
    if (call->streams) {
        call->streams = false;
        pp_queue_stream_ended(&call->w->queue);
    }
    pp_exchange_set_app(ex, NULL);
    pp_exchange_finish(ex);
}

/* True when op is done; false when it waits in its call. */
static bool apply(struct pp_lead_op *asked)
{
    struct pp_wsgi_op *op = PP_CONTAINER(asked, struct pp_wsgi_op, op);
    PpWsgiCall *call = op->call;
    if (call->ex == NULL) {
        op->rc = PP_ERR_DISCONNECTED;
        op->closed = true;
        return true;
    }
    switch (op->kind) {
    case PP_WSGI_OP_RESPOND:
    case PP_WSGI_OP_SEND:
        return apply_output(call, op);
    case PP_WSGI_OP_READ:
        return apply_read(call, op);
    case PP_WSGI_OP_FAIL:
        pp_exchange_fail(call->ex, 500);
        return true;
    case PP_WSGI_OP_FINISH:
        pp_wsgi_op_let_go(call);
        return true;
    }
    PP_ASSERT(false);
    return true;
}

/* What the loop is done with, a few at a time: an answer in many pieces that the socket takes at
 * once keeps its thread here, where lead() would let go of nothing until the end. */
static int take_released(struct pp_loop *loop, void **owners, int count)
{
    int taken = 0;
    while (taken < count && (owners[taken] = pp_loop_take_released(loop)) != NULL) {
        taken++;
    }
    return taken;
}

/* Another thread leads: it is asked. */
static void ask(struct pp_wsgi_op *op)
{
    PyObject *owner = op->owner;
    Py_XINCREF(owner); /* the loop may give it back before we hear that it was taken */
    if (!pp_lead_ask(&op->call->w->lead, &op->op)) {
        op->rc = PP_ERR_DISCONNECTED;
        op->closed = true;
    }
    if (!op->borrowed) {
        Py_XDECREF(owner);
    }
}

void pp_wsgi_op_run(struct pp_wsgi_op *op)
{
    PpWsgiCall *call = op->call;
    struct pp_lead_worker *self = pp_lead_self();
    if (__atomic_load_n(&call->ended, __ATOMIC_ACQUIRE)) {
        op->rc = PP_ERR_DISCONNECTED;
        op->closed = true;
        return;
    }
    op->op.apply = apply;
    if (self == NULL || self != call->worker || !pp_lead_enter(self)) {
        ask(op);
        return;
    }
    bool done = apply(&op->op);
    if (op->borrowed) {
        Py_INCREF(op->owner);
    }
    if (!done) {
        pp_lead_await(self, &op->op);
        return;
    }
    void *owners[16];
    int count = take_released(self->lead->loop, owners, 16);
    pp_lead_exit(self);
    while (count > 0) { /* may run code of the application */
        Py_DECREF((PyObject *)owners[--count]);
    }
}

bool pp_wsgi_op_finish(PpWsgiCall *call)
{
    struct pp_lead_worker *self = call->worker;
    PP_ASSERT(self == pp_lead_self());
    bool leads = pp_lead_enter(self);
    if (leads) {
        pp_wsgi_op_let_go(call);
    } else {
        struct pp_wsgi_op op = {.call = call, .kind = PP_WSGI_OP_FINISH};
        pp_wsgi_op_run(&op);
    }
    __atomic_store_n(&call->ended, true, __ATOMIC_RELEASE);
    return leads;
}

/* ---- events ---- */

void pp_wsgi_op_event(PpWsgiCall *call, unsigned events)
{
    struct pp_wsgi_op *in = call->in_op, *out = call->out_op;
    if ((events & PP_EV_CLOSED) ||
        ((events & PP_EV_EOF) && (pp_exchange_progress(call->ex) != PP_RESPONSE_NONE))) {
        __atomic_store_n(&call->gone, true, __ATOMIC_RELEASE);
    }
    if (in != NULL && (events & (PP_EV_BODY | PP_EV_CLOSED))) {
        call->in_op = NULL;
        if (apply_read(call, in)) {
            pp_lead_op_done(&in->op);
        }
    }
    if (out != NULL && (events & (PP_EV_DRAINED | PP_EV_CLOSED))) {
        call->out_op = NULL;
        out->closed = pp_exchange_closed(call->ex);
        pp_lead_op_done(&out->op);
    }
}
