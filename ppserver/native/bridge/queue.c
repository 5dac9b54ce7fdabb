/* Requests that are not with the application yet (contract: queue.h). */
#include "bridge/queue.h"
#include "bridge/lead_word.h"

#include <string.h>

struct pp_queued {
    struct pp_queue_slot slot; /* first */
    struct pp_list link;
    struct pp_exchange *ex; /* borrowed */
    struct pp_queue *queue; /* borrowed */
    struct pp_queue_body body;
    size_t body_max; /* up to which it grows in memory */
    bool whole;      /* nothing more is awaited */
    bool admitted;   /* counts among queue->streams */
};

void pp_queue_init(struct pp_queue *q, struct pp_lead *lead, bool whole,
                   void (*run)(struct pp_lead_worker *self, struct pp_exchange *ex,
                               struct pp_queue_body *body))
{
    q->lead = lead;
    q->run = run;
    q->whole = whole;
    q->streams_max = lead->threads_max > 1 ? lead->threads_max / 2 : 1;
    pp_list_init(&q->waiting);
    pp_list_init(&q->ready);
    pp_list_init(&q->streams_waiting);
    pp_loop_take_bodies(lead->loop);
}

void pp_queue_fini(struct pp_queue *q)
{
    if (q->spool != NULL) {
        pp_spool_file_free(q->spool);
    }
}

void pp_queue_body_drop(struct pp_queue_body *body)
{
    if (body->spooled) {
        pp_spool_free(body->spool);
    } else if (body->data != NULL) {
        pp_mem_free(body->data, body->cap);
    }
    if (body->rest != NULL) {
        pp_mem_free(body->rest, body->rest_cap);
    }
    body->data = body->rest = NULL;
    body->spooled = false;
}

/* ---- one that waits ---- */

/* body_max: how long the body may become; it takes memory as it comes, body_first bytes at once. */
static struct pp_queued *queued_new(struct pp_queue *q, struct pp_exchange *ex, size_t body_max,
                                    size_t body_first)
{
    struct pp_queued *p = pp_mem_zalloc(sizeof(*p));
    if (p == NULL) {
        return NULL;
    }
    p->slot.queued = true;
    p->ex = ex;
    p->queue = q;
    pp_list_init(&p->link);
    if (body_first > 0) {
        p->body.data = pp_mem_alloc(body_first);
        if (p->body.data == NULL) {
            pp_mem_free(p, sizeof(*p));
            return NULL;
        }
        p->body.cap = body_first;
        q->gathered_bytes += body_first;
    }
    p->body_max = body_max;
    pp_exchange_set_app(ex, &p->slot);
    return p;
}

/* Takes the request out of every list; its body is the caller's. */
static struct pp_queue_body queued_take(struct pp_queued *p)
{
    struct pp_queue_body body = p->body;
    struct pp_queue *q = p->queue;
    q->gathered_bytes -= body.cap + body.rest_cap;
    pp_list_remove(&p->link);
    if (q->lead->waiting_since_ms != 0 && pp_list_empty(&q->ready)) {
        __atomic_store_n(&q->lead->waiting_since_ms, 0, __ATOMIC_RELAXED);
    }
    pp_exchange_set_app(p->ex, NULL);
    pp_mem_free(p, sizeof(*p));
    return body;
}

/* The same without the body, and without its place among streams. */
static void queued_drop(struct pp_queued *p)
{
    struct pp_queue *q = p->queue;
    bool admitted = p->admitted;
    struct pp_queue_body body = queued_take(p);
    pp_queue_body_drop(&body);
    if (admitted) {
        pp_queue_stream_ended(q);
    }
}

static void queued_refuse(struct pp_queued *p)
{
    struct pp_exchange *ex = p->ex;
    queued_drop(p);
    pp_exchange_fail(ex, 503);
    pp_exchange_finish(ex);
}

/* Room for len more bytes: PP_OK, BODY_TOO_LARGE (also of all bodies together) or NO_MEMORY. */
static int make_room(struct pp_queued *p, size_t len)
{
    size_t cap = p->body.cap, before = cap;
    if (len > p->body_max - p->body.len) {
        return PP_ERR_BODY_TOO_LARGE;
    }
    while (cap < p->body.len + len) {
        cap = cap * 2 < p->body_max ? cap * 2 : p->body_max;
    }
    if (cap > before) {
        if (!p->queue->whole && p->queue->gathered_bytes + (cap - before) > PP_QUEUE_GATHER_TOTAL) {
            return PP_ERR_BODY_TOO_LARGE;
        }
        uint8_t *grown = pp_mem_realloc(p->body.data, before, cap);
        if (grown == NULL) {
            return PP_ERR_NO_MEMORY;
        }
        p->body.data = grown;
        p->body.cap = cap;
        p->queue->gathered_bytes += cap - before;
    }
    return PP_OK;
}

/* What has come of the body goes to a file, and what comes: PP_OK, or BODY_TOO_LARGE if it cannot:
 * then all is as before. */
static int spool_begin(struct pp_queued *p)
{
    struct pp_queue *q = p->queue;
    struct pp_spool *spool = pp_spool_new(q->spool);
    if (spool == NULL || pp_spool_append(spool, p->body.data, p->body.len) != PP_OK) {
        if (spool != NULL) {
            pp_spool_free(spool);
        }
        return PP_ERR_BODY_TOO_LARGE;
    }
    if (p->body.data != NULL) {
        pp_mem_free(p->body.data, p->body.cap);
    }
    q->gathered_bytes -= p->body.cap;
    p->body.cap = 0;
    p->body.spool = spool;
    p->body.spooled = true;
    return PP_OK;
}

/* Keeps len more bytes of an awaited body, in a file from now on if memory has no room for them:
 * PP_OK, BODY_TOO_LARGE if there is none, or NO_MEMORY. */
static int keep(struct pp_queued *p, const uint8_t *data, size_t len)
{
    if (!p->body.spooled) {
        int rc = make_room(p, len);
        if (rc == PP_OK) {
            if (len > 0) {
                memcpy(p->body.data + p->body.len, data, len);
            }
            p->body.len += len;
            return PP_OK;
        }
        if (rc != PP_ERR_BODY_TOO_LARGE || p->queue->spool == NULL || spool_begin(p) != PP_OK) {
            return rc;
        }
    }
    if (pp_spool_append(p->body.spool, data, len) != PP_OK) {
        return PP_ERR_BODY_TOO_LARGE;
    }
    p->body.len += len;
    return PP_OK;
}

/* Receives up to `room` bytes for a file. What that does not take is the rest of the body, and the
 * result BODY_TOO_LARGE. */
static int take_for_file(struct pp_queued *p, size_t room, enum pp_body_status *status)
{
    struct pp_queue_body *body = &p->body;
    size_t len;
    uint8_t *to = pp_mem_alloc(room);
    if (to == NULL) {
        return PP_ERR_NO_MEMORY;
    }
    *status = pp_exchange_take(p->ex, to, room, &len);
    int rc = len > 0 ? keep(p, to, len) : PP_OK;
    if (rc == PP_ERR_BODY_TOO_LARGE) {
        PP_ASSERT(body->rest == NULL);
        body->rest = to;
        body->rest_len = len;
        body->rest_cap = room;
        p->queue->gathered_bytes += room;
        return rc;
    }
    pp_mem_free(to, room);
    return rc;
}

/* Receives a large body where it is kept: what is here, and what is ahead. PP_OK, BODY_TOO_LARGE or
 * NO_MEMORY. */
static int take(struct pp_queued *p, size_t here, size_t ahead, enum pp_body_status *status)
{
    size_t len, room = here + ahead, left = p->body_max - p->body.len;
    int rc = PP_ERR_BODY_TOO_LARGE;
    if (!p->body.spooled && left > here) {
        room = left < room ? left : room;
        rc = make_room(p, room);
    }
    if (rc == PP_ERR_BODY_TOO_LARGE && p->queue->spool != NULL) {
        return take_for_file(p, room, status);
    }
    if (rc == PP_OK) {
        *status = pp_exchange_take(p->ex, p->body.data + p->body.len, room, &len);
        p->body.len += len;
    }
    return rc;
}

/* Takes what has come of an awaited body: PP_OK when it is whole, PP_AGAIN, or PP_ERR_*. */
static int gather(struct pp_queued *p)
{
    bool taken = false; /* once: a peer that sends fast leaves time to the others */
    for (;;) {
        const uint8_t *data;
        size_t len, ahead = taken ? 0 : pp_exchange_ahead(p->ex);
        enum pp_body_status status = pp_exchange_peek(p->ex, &data, &len);
        if (status == PP_BODY_FAILED) {
            return PP_ERR_DISCONNECTED;
        }
        int rc = ahead > 0 ? take(p, len, ahead, &status) : keep(p, data, len);
        if (rc != PP_OK || status == PP_BODY_FAILED) {
            return rc != PP_OK ? rc : PP_ERR_DISCONNECTED;
        }
        if (ahead > 0) {
            taken = true;
        } else if (len > 0) {
            pp_exchange_consume(p->ex, len);
        }
        if (status == PP_BODY_END) {
            p->whole = true;
            return PP_OK;
        }
        if (ahead == 0 && len == 0) {
            pp_exchange_want(p->ex);
            return PP_AGAIN;
        }
    }
}

static void run_queued(struct pp_lead_worker *self, struct pp_queued *p)
{
    struct pp_queue *q = p->queue;
    struct pp_exchange *ex = p->ex;
    struct pp_queue_body body = queued_take(p);
    pp_lead_attach(self);
    q->run(self, ex, &body);
}

/* The request waits for a thread from now on. */
static void push_ready(struct pp_queue *q, struct pp_queued *p)
{
    if (pp_list_empty(&q->ready)) {
        __atomic_store_n(&q->lead->waiting_since_ms, pp_loop_clock_ms(), __ATOMIC_RELAXED);
    }
    pp_list_remove(&p->link);
    pp_list_push(&q->ready, &p->link);
}

/* Runs the application, or puts the request behind those that wait. False: leadership lost. */
static bool start(struct pp_queue *q, struct pp_lead_worker *self, struct pp_exchange *ex,
                  struct pp_queued *p)
{
    if (!self->manager && pp_list_empty(&q->ready)) {
        if (p != NULL) {
            run_queued(self, p);
        } else {
            pp_lead_attach(self);
            q->run(self, ex, NULL);
        }
        return self->word != 0;
    }
    if (p == NULL && (p = queued_new(q, ex, 0, 0)) == NULL) {
        pp_exchange_fail(ex, 503);
        pp_exchange_finish(ex);
        return true;
    }
    push_ready(q, p);
    return true;
}

/* ---- bodies that the application reads as they come ----
 * A client that sends its body byte by byte holds the thread of such a call for as long as it
 * likes, so they have half of the threads at most; further ones wait, and nothing of them is
 * received. */

static bool start_stream(struct pp_lead_worker *self, struct pp_queued *p)
{
    struct pp_queue *q = p->queue;
    p->body.streams = p->whole = true;
    if (q->streams >= q->streams_max) {
        pp_list_remove(&p->link);
        pp_list_push(&q->streams_waiting, &p->link);
        return true;
    }
    q->streams++;
    p->admitted = true;
    return start(p->queue, self, p->ex, p);
}

void pp_queue_stream_ended(struct pp_queue *q)
{
    PP_ASSERT(q->streams > 0);
    q->streams--;
    struct pp_list *n = pp_list_pop(&q->streams_waiting);
    if (n != NULL) {
        struct pp_queued *p = PP_CONTAINER(n, struct pp_queued, link);
        p->admitted = true;
        q->streams++;
        push_ready(q, p);
    }
}

static bool gather_or_start(struct pp_lead_worker *self, struct pp_queued *p)
{
    int rc = gather(p);
    if (rc == PP_OK) {
        return start(p->queue, self, p->ex, p);
    }
    if (rc == PP_ERR_BODY_TOO_LARGE && !p->queue->whole) {
        return start_stream(self, p);
    }
    if (rc == PP_ERR_BODY_TOO_LARGE) {
        struct pp_exchange *ex = p->ex;
        queued_drop(p);
        pp_queue_answer(ex, 413);
    } else if (rc != PP_AGAIN) {
        queued_refuse(p); /* pp_exchange_fail knows the status that fits */
    }
    return true;
}

void pp_queue_answer(struct pp_exchange *ex, int status)
{
    const char *text = pp_h1_reason(status);
    struct pp_response r = {.status = status, .complete = true, .body_bytes = strlen(text)};
    if (pp_exchange_respond(ex, &r, (const uint8_t *)text, 0, NULL, NULL) != PP_OK) {
        pp_exchange_fail(ex, 500);
    }
    pp_exchange_finish(ex);
}

bool pp_queue_request(struct pp_queue *q, struct pp_lead_worker *self, struct pp_exchange *ex)
{
    const uint8_t *base;
    const struct pp_head *head = pp_exchange_head(ex, &base);
    uint64_t length = head->has_content_length ? head->content_length : 0;
    if (length == 0 && !head->chunked) {
        return start(q, self, ex, NULL);
    }
    if (q->whole && length > PP_QUEUE_GATHER_MAX) {
        pp_queue_answer(ex, 413);
        return true;
    }
    size_t first = head->chunked                    ? PP_QUEUE_GATHER_FIRST
                   : length < PP_QUEUE_GATHER_BYTES ? (size_t)length
                                                    : PP_QUEUE_GATHER_BYTES;
    bool crowded = !q->whole && q->gathered_bytes + first > PP_QUEUE_GATHER_TOTAL;
    bool streams = false;
    if (!q->whole && q->spool == NULL) {
        streams = crowded || length > PP_QUEUE_GATHER_MAX || head->expect_continue;
    } else if (!q->whole) {
        streams = length > PP_QUEUE_GATHER_MAX && length > pp_spool_file_room(q->spool);
    }
    /* Beyond the limit: a file, or the call. */
    size_t most =
        head->chunked || length > PP_QUEUE_GATHER_MAX ? PP_QUEUE_GATHER_MAX : (size_t)length;
    most = streams || crowded ? 0 : most;
    struct pp_queued *p = queued_new(q, ex, most, first < most ? first : most);
    if (p == NULL) {
        pp_exchange_fail(ex, 503);
        pp_exchange_finish(ex);
        return true;
    }
    if (streams) {
        return start_stream(self, p);
    }
    pp_list_push(&q->waiting, &p->link);
    return gather_or_start(self, p);
}

bool pp_queue_event(struct pp_lead_worker *self, struct pp_queue_slot *slot, unsigned events)
{
    struct pp_queued *p = PP_CONTAINER(slot, struct pp_queued, slot);
    if (events & PP_EV_CLOSED) {
        queued_refuse(p);
        return true;
    }
    return (events & PP_EV_BODY) && !p->whole ? gather_or_start(self, p) : true;
}

bool pp_queue_has_ready(const struct pp_queue *q)
{
    return !pp_list_empty(&q->ready);
}

bool pp_queue_run_ready(struct pp_queue *q, struct pp_lead_worker *self)
{
    struct pp_loop *loop = q->lead->loop;
    for (int i = 0; i < PP_BATCH_REQUESTS && !pp_list_empty(&q->ready); i++) {
        if (i > 0 && !pp_loop_batch_goes_on(loop)) {
            pp_loop_batch(loop); /* events have their own time: a long queue hides none */
            break;
        }
        run_queued(self, PP_CONTAINER(q->ready.next, struct pp_queued, link));
        if (self->word == 0) {
            return false;
        }
    }
    return true;
}

void pp_queue_abandon(struct pp_queue_slot *slot)
{
    queued_refuse(PP_CONTAINER(slot, struct pp_queued, slot));
}
