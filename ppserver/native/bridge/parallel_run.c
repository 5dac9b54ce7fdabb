/* Runs of the callbacks of protocols of the parallel API.
 *
 * A run begins on the leader, which goes into the application for it, and what its callbacks left
 * to do is settled by the leader when they are over: by the same thread while it still leads, else
 * by message. */
#include "bridge/parallel_run.h"
#include "bridge/lead.h"
#include "bridge/lead_word.h"
#include "bridge/transport.h"

#include "net/raw.h"

/* ---- the leader's part ---- */

void pp_par_let_go(PpTransport *t)
{
    struct pp_exchange *ex = t->ex;
    t->ex = NULL;
    pp_exchange_set_app(ex, NULL);
    pp_exchange_finish(ex);
}

void pp_par_close(PpTransport *t)
{
    if (t->protocol->raw) {
        if (t->ex != NULL) {
            pp_raw_close(t->ex);
        }
        return;
    }
    /* Between requests it does not know its connection; rare enough to look for. */
    if (t->ex != NULL) {
        pp_exchange_end(t->ex);
    } else {
        pp_loop_end_user(t->par->lead.loop, t);
    }
}

void pp_par_abandon(PpTransport *t)
{
    bool raw = t->protocol->raw;
    pp_par_let_go(t);
    pp_list_remove(&t->link);
    if (raw) {
        pp_list_push(&t->par->left, &t->link); /* with the connection's reference */
    }
}

/* Nothing of the application ran: the raised exception is ours. The thread leads. */
void pp_par_refuse(struct pp_lead_worker *self, struct pp_exchange *ex)
{
    if (!pp_exchange_is_raw(ex)) {
        pp_exchange_fail(ex, 500);
    }
    pp_exchange_finish(ex);
    pp_lead_report(self);
}

PpTransport *pp_par_transport_of(struct pp_lead_worker *self, struct pp_exchange *ex)
{
    pp_lead_attach(self);
    int gc = pp_compat_gc_pause();
    PpTransport *t = pp_transport_new(pp_par_of(self->lead), ex);
    pp_compat_gc_resume(gc);
    if (t == NULL) {
        pp_par_refuse(self, ex);
    }
    return t;
}

/* ---- runs ---- */

/* Whether another context, which makes its own transport and handler for the connection, would miss
 * something: attributes of either, or that the application holds the transport. Attached, in
 * pp_par_end().
 */
static bool keeps_something(PpTransport *t)
{
    const Py_ssize_t ours = 2; /* the connection's reference, and the run's */
    if (t->dict != NULL || t->weakrefs != NULL || Py_REFCNT((PyObject *)t) > ours) {
        return true;
    }
    return t->protocol->is_class && t->handler != NULL &&
           (t->kept != NULL ? PyDict_GET_SIZE(t->kept) > 0
                            : Py_TYPE(t->handler)->tp_basicsize > PyBaseObject_Type.tp_basicsize);
}

void pp_par_begin(PpTransport *t, struct pp_lead_worker *self, struct pp_par_turn *turn,
                  struct pp_lead_trip *trip)
{
    PP_ASSERT(turn->settle != NULL);
    Py_INCREF((PyObject *)t);
    t->busy = true;
    turn->outs = turn->inline_outs;
    turn->cap = PP_PAR_OUTS_INLINE;
    turn->count = 0;
    turn->ended = false;
    t->turn = turn;
    __atomic_store_n(&t->worker, self, __ATOMIC_RELAXED);
    pp_lead_go(self, t->protocol->concurrency, trip);
}

struct settle_op {
    struct pp_lead_op op;   /* first */
    PpTransport *transport; /* borrowed from who waits */
    struct pp_par_turn *turn;
};

/* Carries out what the callbacks of a transport left to do. */
static void settle(PpTransport *t, struct pp_par_turn *turn)
{
    t->busy = false;
    if (t->ex != NULL) {
        turn->settle(t, turn);
    }
}

static bool apply_settle(struct pp_lead_op *asked)
{
    struct settle_op *op = PP_CONTAINER(asked, struct settle_op, op);
    settle(op->transport, op->turn);
    return true;
}

void pp_par_end(PpTransport *t, struct pp_lead_worker *self, struct pp_par_turn *turn,
                struct pp_lead_trip *trip)
{
    bool settled = true;
    pp_lead_called(self, trip);
    turn->stays = pp_par_may_leave(t) && keeps_something(t);
    t->turn = NULL;
    __atomic_store_n(&t->worker, NULL, __ATOMIC_RELAXED);
    bool leads = pp_lead_enter(self);
    if (leads) {
        settle(t, turn);
    } else {
        struct settle_op op = {.op.apply = apply_settle, .transport = t, .turn = turn};
        settled = pp_lead_ask(&t->par->lead, &op.op);
    }
    pp_lead_back(self, trip, leads);
    if (leads && turn->ended) {
        pp_lead_leave(self); /* what follows may be the end of the transport */
    }
    for (uint32_t i = 0; i < turn->count; i++) {
        if (!turn->outs[i].borrowed) {
            Py_XDECREF(turn->outs[i].owner);
        }
        if (turn->outs[i].file != NULL) {
            pp_file_unref(turn->outs[i].file);
        }
    }
    if (turn->outs != turn->inline_outs) {
        PyMem_Free(turn->outs);
    }
    if (turn->ended && settled) {
        Py_DECREF((PyObject *)t); /* the connection's reference; else par->left has it */
    }
    Py_DECREF((PyObject *)t);
    if (leads && turn->ended) {
        (void)pp_lead_enter(self);
    }
}
