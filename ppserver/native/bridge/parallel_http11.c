/* Requests of http11 protocols of the parallel API: a method by the path's first segment gets the
 * body, and gives the answer's. */
#include "bridge/parallel_http11.h"
#include "bridge/access.h"
#include "bridge/lead_word.h"
#include "bridge/parallel_callbacks.h"
#include "bridge/parallel_protocols.h"
#include "bridge/parallel_run.h"
#include "bridge/queue.h"
#include "bridge/transport.h"

#include <string.h>

/* ---- the leader's part ---- */

static void settle(PpTransport *t, struct pp_par_turn *turn)
{
    struct pp_exchange *ex = t->ex;
    if (turn->stays) {
        pp_exchange_stay(ex);
    }
    struct pp_par_out *out = turn->count > 0 ? &turn->outs[0] : NULL;
    struct pp_out_field fields[2];
    size_t count = 0, len = out != NULL ? (size_t)PyBytes_GET_SIZE(out->owner) : 0;
    if (out != NULL) {
        fields[count++] = (struct pp_out_field){.name = (const uint8_t *)"content-type",
                                                .name_len = strlen("content-type"),
                                                .value = (const uint8_t *)turn->media,
                                                .value_len = strlen(turn->media)};
    }
    if (t->closing) {
        fields[count++] = (struct pp_out_field){.name = (const uint8_t *)"connection",
                                                .name_len = strlen("connection"),
                                                .value = (const uint8_t *)"close",
                                                .value_len = strlen("close")};
    }
    t->closing = false;
    struct pp_response r = {.status = turn->status,
                            .complete = true,
                            .body_bytes = len,
                            .fields = fields,
                            .field_count = count};
    const uint8_t *body = out != NULL ? (const uint8_t *)PyBytes_AS_STRING(out->owner) : NULL;
    if (turn->status == 0 || pp_exchange_respond(ex, &r, body, 0, out != NULL ? out->owner : NULL,
                                                 out != NULL ? &out->borrowed : NULL) != PP_OK) {
        pp_exchange_fail(ex, 500);
    }
    pp_par_let_go(t);
}

uint8_t *pp_par_head(PpTransport *t, size_t *len)
{
    const uint8_t *base;
    *len = 0;
    if (t->ex == NULL || t->protocol->raw) {
        return NULL;
    }
    *len = pp_exchange_head(t->ex, &base)->head_bytes;
    uint8_t *copy = pp_mem_alloc(*len);
    if (copy != NULL) {
        memcpy(copy, base, *len);
    }
    return copy;
}

/* ---- runs ---- */

static void call_method(PpTransport *t, PyObject *name, PyObject *data)
{
    struct pp_par_turn *turn = t->turn;
    turn->status = 0;
    if (t->handler == NULL && !pp_par_make_handler(t)) {
        return;
    }
    PyObject *args[] = {t->handler, (PyObject *)t, data};
    PyObject *given =
        PyObject_VectorcallMethod(name, args, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    turn->media =
        given != NULL && PyUnicode_Check(given) ? "text/plain; charset=utf-8" : "text/plain";
    if (given != NULL && PyDict_Check(given)) {
        PyObject *object = given;
        given = PyObject_CallOneArg(t->par->dumps, object);
        Py_DECREF(object);
        turn->media = "application/json";
    }
    bool nothing = given == Py_None;
    if (pp_transport_take(t, given) == 0) {
        turn->status = nothing ? 204 : 200;
        return;
    }
    turn->media = "text/plain";
    pp_par_failed(t);
    t->closing = false;
    turn->status = turn->count > 0 ? 500 : 0;
}

void pp_par_request(struct pp_lead_worker *self, struct pp_exchange *ex, struct pp_queue_body *body)
{
    PpCore *core = self->lead->core;
    const uint8_t *base;
    const struct pp_head *head = pp_exchange_head(ex, &base);
    struct pp_par_turn turn;
    struct pp_lead_trip trip;
    PpTransport *t = pp_exchange_user(ex);
    PyObject *name = NULL, *data = NULL, *access = NULL;
    if (t == NULL && (t = pp_par_transport_of(self, ex)) != NULL) {
        pp_exchange_set_user(ex, t); /* the reference is the connection's */
    }
    if (t != NULL) {
        name = pp_par_route(t->protocol, (const char *)base + head->path.off, head->path.len);
        data = body != NULL && body->len > 0
                   ? PyBytes_FromStringAndSize((const char *)body->data, (Py_ssize_t)body->len)
                   : Py_NewRef(core->k.empty_bytes);
        access = data != NULL ? pp_access_of(core, ex) : NULL;
    }
    if (body != NULL) {
        pp_queue_body_drop(body);
    }
    if (t == NULL) {
        return;
    }
    if (name == NULL || data == NULL) {
        int status = data == NULL ? 500 : 404;
        if (data == NULL) {
            pp_par_refuse(self, ex);
        } else {
            pp_queue_answer(ex, status);
        }
        Py_XDECREF(data);
        if (access != NULL && self->word != 0) {
            pp_lead_leave(self);
            pp_access_log(core, access, status);
            (void)pp_lead_enter(self);
        } else {
            pp_access_log(core, access, status);
        }
        return;
    }
    t->ex = ex;
    pp_exchange_set_app(ex, &t->slot);
    turn.settle = settle;
    pp_par_begin(t, self, &turn, &trip);
    __atomic_store_n(&t->recv_id, t->recv_id + 1, __ATOMIC_RELAXED);
    call_method(t, name, data);
    Py_DECREF(data);
    pp_access_log(core, access, turn.status != 0 ? turn.status : 500);
    pp_par_end(t, self, &turn, &trip);
}
