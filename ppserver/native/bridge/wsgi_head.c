/* A head whose first piece does not come.
 *
 * PEP 3333 wants the head to wait for the first non-empty piece, so that an application may still
 * replace it. A generator that pauses there (server-sent events, long polls) would leave its client
 * without a head, and a browser's EventSource without onopen, for as long as the pause lasts. So
 * the leader sends a head that has waited for PP_WSGI_HEAD_MS while the result was asked for
 * pieces; from then on an error can only break the response off.
 *
 * A call that pauses has lost the lead, so its connection is in the hands of another thread. What
 * the two share is the head: the application's thread publishes it (call->headers), and each claims
 * it by compare-and-swap on call->head, the leader to send it, the application to replace it.
 * Nobody waits for the other, and quick calls do nothing for it: the manager looks for calls that
 * iterate (worker->tended) when it has nothing to do, and asks the leader by message.
 *
 * The leader may follow worker->tended: that call is not over before its FINISH, which a leader
 * does, and its thread takes it out before. */
#include "bridge/wsgi_head.h"
#include "bridge/lead_word.h"

/* ---- the application's thread ---- */

void pp_wsgi_head_begin(PpWsgiCall *call)
{
    if (call->head_sent) { /* write() was used */
        return;
    }
    __atomic_store_n(&call->worker->tended, call, __ATOMIC_SEQ_CST);
    if (PP_UNLIKELY(__atomic_load_n(&call->w->lead.watch_asleep, __ATOMIC_SEQ_CST))) {
        pp_lead_wake_watch(&call->w->lead);
    }
}

void pp_wsgi_head_end(PpWsgiCall *call)
{
    __atomic_store_n(&call->worker->tended, NULL, __ATOMIC_RELEASE);
}

bool pp_wsgi_head_sent(PpWsgiCall *call)
{
    call->head_sent |= __atomic_load_n(&call->head, __ATOMIC_ACQUIRE) == PP_WSGI_HEAD_SENT;
    return call->head_sent;
}

bool pp_wsgi_head_keep(PpWsgiCall *call)
{
    uint8_t seen = PP_WSGI_HEAD_OPEN;
    (void)__atomic_compare_exchange_n(&call->head, &seen, PP_WSGI_HEAD_KEPT, false,
                                      __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    return !pp_wsgi_head_sent(call);
}

void pp_wsgi_head_reopen(PpWsgiCall *call)
{
    __atomic_store_n(&call->head, PP_WSGI_HEAD_OPEN, __ATOMIC_RELEASE);
}

/* ---- the manager and the leader ---- */

void pp_wsgi_head_fill(const PpWsgiCall *call, struct pp_response *r, size_t len, bool more)
{
    size_t status_len = (size_t)PyUnicode_GET_LENGTH(call->status_text);
    r->status = call->status;
    if (status_len > 3) { /* else the registry's */
        r->reason = PyUnicode_1BYTE_DATA(call->status_text) + 4;
        r->reason_len = status_len - 4;
    }
    r->fields = call->fields;
    r->field_count = call->field_count;
    r->complete = !more;
    r->body_bytes = len;
}

bool pp_wsgi_head_any(struct pp_lead *lead)
{
    uint32_t count = __atomic_load_n(&lead->worker_count, __ATOMIC_ACQUIRE);
    for (uint32_t i = 0; i < count; i++) {
        if (__atomic_load_n(&lead->workers[i]->tended, __ATOMIC_RELAXED) != NULL) {
            return true;
        }
    }
    return false;
}

/* True when there is nothing left to look after. */
static bool send_if_due(PpWsgiCall *call, uint32_t now_ms)
{
    struct pp_exchange *ex = call->ex;
    if (ex == NULL || pp_exchange_closed(ex) || pp_exchange_progress(ex) != PP_RESPONSE_NONE) {
        return true;
    }
    if (__atomic_load_n(&call->headers, __ATOMIC_ACQUIRE) == NULL) {
        return false; /* a generator that has not come to start_response */
    }
    if (call->head_ms == 0) {
        call->head_ms = now_ms;
        return false;
    }
    uint8_t seen = PP_WSGI_HEAD_OPEN;
    if (now_ms - call->head_ms < PP_WSGI_HEAD_MS ||
        !__atomic_compare_exchange_n(&call->head, &seen, PP_WSGI_HEAD_SENT, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE)) {
        return false;
    }
    struct pp_response response = {0};
    pp_wsgi_head_fill(call, &response, 0, true);
    if (pp_exchange_respond(ex, &response, NULL, 0, NULL, NULL) != PP_OK) {
        /* The application hears of it with its first piece, and that is a 500. */
        __atomic_store_n(&call->head, PP_WSGI_HEAD_KEPT, __ATOMIC_RELEASE);
    }
    return true;
}

void pp_wsgi_head_send_due(struct pp_lead *lead)
{
    uint32_t count = __atomic_load_n(&lead->worker_count, __ATOMIC_ACQUIRE);
    uint32_t now_ms = (uint32_t)pp_loop_clock_ms() | 1;
    for (uint32_t i = 0; i < count; i++) {
        struct pp_lead_worker *worker = lead->workers[i];
        PpWsgiCall *call = __atomic_load_n(&worker->tended, __ATOMIC_ACQUIRE);
        if (call != NULL && send_if_due(call, now_ms)) {
            __atomic_store_n(&worker->tended, NULL, __ATOMIC_RELAXED);
        }
    }
}
