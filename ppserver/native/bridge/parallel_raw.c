/* Raw connections of the parallel API: their events, and the runs these lead to. */
#include "bridge/parallel_raw.h"
#include "bridge/lead_word.h"
#include "bridge/parallel_callbacks.h"
#include "bridge/parallel_run.h"

#include "net/raw.h"

/* ---- the leader's part ---- */

static void later(PpTransport *t)
{
    if (!pp_list_linked(&t->link)) {
        pp_list_push(&t->par->ready, &t->link);
    }
}

static void settle_raw(PpTransport *t, struct pp_par_turn *turn)
{
    struct pp_exchange *ex = t->ex;
    for (uint32_t i = 0; i < turn->count; i++) {
        struct pp_par_out *out = &turn->outs[i];
        int rc;
        if (out->file != NULL) {
            rc = pp_exchange_send_file(ex, out->file, out->at, out->len);
            out->file = NULL;
        } else {
            rc = pp_exchange_send(ex, (const uint8_t *)PyBytes_AS_STRING(out->owner),
                                  (size_t)PyBytes_GET_SIZE(out->owner), true, out->owner,
                                  &out->borrowed);
        }
        if (rc != PP_OK) {
            break; /* it is closed, and CLOSED will say so */
        }
    }
    if (turn->ended) {
        pp_par_let_go(t);
        return;
    }
    if (t->closing) {
        pp_raw_close(ex);
    } else if (t->protocol->low_latency) {
        pp_exchange_flush(ex);
    }
    if (!t->closing && turn->count == 0 && t->protocol->idle_ms != 0) {
        pp_raw_idle(ex, t->protocol->idle_ms); /* the callback's time was no silence */
    }
    if (t->events != 0) {
        later(t);
    }
}

/* ---- runs ---- */

static void run(PpTransport *t, struct pp_lead_worker *self)
{
    struct pp_par_news news = {.events = t->events};
    struct pp_par_turn turn;
    const uint8_t *data;
    struct pp_lead_trip trip;
    t->events = 0;
    if (news.events & PP_EV_CLOSED) {
        news.code = pp_exchange_error(t->ex);
        news.ours = pp_raw_ours(t->ex);
    }
    size_t len;
    (void)pp_exchange_peek(t->ex, &data, &len);
    if (len > 0) {
        news.data = PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)len);
        pp_exchange_consume(t->ex, len);
    }
    turn.settle = settle_raw;
    pp_par_begin(t, self, &turn, &trip);
    if (len > 0 && news.data == NULL) {
        pp_par_failed(t);
        t->closing = true;
    }
    pp_par_run_callbacks(t, &news);
    Py_XDECREF(news.data);
    turn.ended = (news.events & PP_EV_CLOSED) != 0;
    pp_par_end(t, self, &turn, &trip);
}

bool pp_par_raw_event(struct pp_lead_worker *self, struct pp_exchange *ex, unsigned events)
{
    struct pp_par *par = pp_par_of(self->lead);
    struct pp_queue_slot *slot = pp_exchange_app(ex);
    PpTransport *t;
    if (events & PP_EV_REQUEST) {
        if ((t = pp_par_transport_of(self, ex)) == NULL) {
            return self->word != 0;
        }
        t->ex = ex;
        pp_exchange_set_app(ex, &t->slot); /* the reference is the connection's */
        pp_raw_attempts(ex, t->protocol->receive_again, t->protocol->send_again);
        if (t->protocol->rate_limit != 0) {
            pp_raw_rate(ex, t->protocol->rate_limit);
        }
        if (t->protocol->idle_ms != 0) {
            pp_raw_idle(ex, t->protocol->idle_ms);
        }
    } else if (slot != NULL) {
        t = PP_CONTAINER(slot, PpTransport, slot);
    } else {
        return true;
    }
    const bool *has = t->protocol->has;
    if (!has[PP_PAR_data_sent] && !has[PP_PAR_send_complete] && !has[PP_PAR_send_failed]) {
        events &= ~PP_EV_FINISHED;
    }
    if (t->busy) {
        events &= ~PP_EV_IDLE; /* it is about to say something */
    }
    t->events |= events;
    if (t->busy || t->events == 0) {
        return true;
    }
    if (self->manager && (events & PP_EV_CLOSED) &&
        __atomic_load_n(&par->lead.stop_requested, __ATOMIC_ACQUIRE)) {
        pp_par_abandon(t);
        return true;
    }
    if (self->manager || !pp_list_empty(&par->ready)) {
        later(t);
        return true;
    }
    pp_lead_attach(self);
    run(t, self);
    return self->word != 0;
}

bool pp_par_run_ready(struct pp_lead_worker *self)
{
    struct pp_par *par = pp_par_of(self->lead);
    for (int i = 0; i < PP_BATCH_REQUESTS && !pp_list_empty(&par->ready); i++) {
        if (i > 0 && !pp_loop_batch_goes_on(par->lead.loop)) {
            break;
        }
        PpTransport *t = PP_CONTAINER(pp_list_pop(&par->ready), PpTransport, link);
        if (t->busy || t->events == 0) {
            continue;
        }
        pp_lead_attach(self);
        run(t, self);
        if (self->word == 0) {
            return false;
        }
    }
    return true;
}
