/* Exchanges (contract: exchange.h): their events, and the way to the protocol each came by. */
#include "net/exchange.h"

#include "net/conn.h"

#define ENTER(ex) PP_CONN_ENTER((ex)->conn)

/* ---- for protocols ---- */

void pp_exchange_init(struct pp_exchange *ex, const struct pp_exchange_ops *ops,
                      struct pp_conn *conn)
{
    ex->ops = ops;
    ex->conn = conn;
    pp_list_init(&ex->ready);
}

void pp_exchange_opened(struct pp_exchange *ex)
{
    struct pp_slot *slot = ex->conn->loop->slot;

    PP_ASSERT(!ex->held && ex->app == NULL);
    ex->error = PP_OK;
    ex->status = 0;
    ex->want = ex->full_told = ex->closed = ex->eof_told = false;
    ex->held = true;
    ex->conn->holds++;
    pp_stats_set32(&slot->in_flight, slot->in_flight + 1);
}

void pp_exchange_raise(struct pp_exchange *ex, unsigned events)
{
    PP_ASSERT(ex->held);
    ex->events |= (uint8_t)events;
    if (!pp_list_linked(&ex->ready)) {
        struct pp_loop *loop = ex->conn->loop;
        pp_list_push(&loop->ready, &ex->ready);
        loop->ready_count++;
    }
}

static void not_ready(struct pp_exchange *ex)
{
    ex->events = 0;
    if (pp_list_linked(&ex->ready)) {
        pp_list_remove(&ex->ready);
        ex->conn->loop->ready_count--;
    }
}

void pp_exchange_flushed(struct pp_exchange *ex, uint64_t left)
{
    if (ex->full_told && left <= PP_OUT_LOW_BYTES) {
        ex->full_told = false;
        pp_exchange_raise(ex, PP_EV_DRAINED);
    }
}

void pp_exchange_released(struct pp_exchange *ex)
{
    struct pp_conn *conn = ex->conn;
    struct pp_slot *slot = conn->loop->slot;

    ex->held = ex->want = ex->full_told = false;
    not_ready(ex);
    PP_ASSERT(conn->holds > 0);
    conn->holds--;
    pp_stats_set32(&slot->in_flight, slot->in_flight - 1);
}

void pp_exchange_gone(struct pp_exchange *ex, int code, bool said)
{
    if (!ex->held) {
        return;
    }
    if ((ex->events & PP_EV_REQUEST) && !said) {
        pp_exchange_released(ex);
        return;
    }
    if (!ex->closed) {
        ex->closed = true;
        if (ex->error == PP_OK) {
            ex->error = code;
        }
        unsigned events = PP_EV_CLOSED | (ex->want ? PP_EV_BODY : 0u);
        ex->want = ex->full_told = false;
        pp_exchange_raise(ex, events);
    }
}

/* ---- for the application side: events ---- */

struct pp_exchange *pp_loop_take_event(struct pp_loop *loop, unsigned *events)
{
    PP_LOOP_ENTER(loop);
    if (loop->batch_left == 0 || pp_list_empty(&loop->ready)) {
        return NULL;
    }
    /* Nobody waits for the handler of an event that is alone: no look at the clock. */
    bool alone = loop->batch_left == PP_BATCH_REQUESTS && loop->ready_count == 1;
    if (!alone && !pp_loop_batch_goes_on(loop)) {
        return NULL;
    }
    struct pp_exchange *ex = PP_CONTAINER(pp_list_pop(&loop->ready), struct pp_exchange, ready);
    PP_CHECK(ex->conn->magic == PP_CONN_MAGIC);
    loop->batch_left--;
    loop->ready_count--;
    *events = ex->events;
    ex->events = 0;
    return ex;
}

struct pp_exchange *pp_loop_next_exchange(struct pp_loop *loop, struct pp_exchange *ex)
{
    struct pp_list *n = ex == NULL ? loop->conns.next : &ex->conn->all;

    PP_LOOP_ENTER(loop);
    while (n != &loop->conns) {
        struct pp_conn *conn = PP_CONTAINER(n, struct pp_conn, all);
        ex = conn->holds == 0 ? NULL : conn->proto->next(conn, ex);
        if (ex != NULL) {
            return ex;
        }
        n = n->next;
    }
    return NULL;
}

void *pp_loop_take_user(struct pp_loop *loop)
{
    PP_LOOP_ENTER(loop);
    for (struct pp_list *n = loop->conns.next; n != &loop->conns; n = n->next) {
        struct pp_conn *conn = PP_CONTAINER(n, struct pp_conn, all);
        if (conn->user != NULL) {
            void *user = conn->user;
            conn->user = NULL;
            return user;
        }
    }
    return NULL;
}

void pp_loop_end_user(struct pp_loop *loop, const void *user)
{
    PP_LOOP_ENTER(loop);
    for (struct pp_list *n = loop->conns.next; n != &loop->conns; n = n->next) {
        struct pp_conn *conn = PP_CONTAINER(n, struct pp_conn, all);
        if (conn->user == user) {
            pp_conn_end(conn);
            return;
        }
    }
}

/* ---- for the application side: facts ---- */

const struct pp_head *pp_exchange_head(const struct pp_exchange *ex, const uint8_t **base)
{
    ENTER(ex);
    PP_CHECK(ex->held && ex->ops->head != NULL);
    return ex->ops->head(ex, base);
}

const struct sockaddr *pp_exchange_peer(const struct pp_exchange *ex)
{
    ENTER(ex);
    return &ex->conn->peer.sa;
}

const struct sockaddr *pp_exchange_client(const struct pp_exchange *ex)
{
    ENTER(ex);
    return ex->ops->client == NULL ? &ex->conn->peer.sa : &ex->ops->client(ex)->sa;
}

bool pp_exchange_client_https(const struct pp_exchange *ex)
{
    ENTER(ex);
    return ex->ops->client_https != NULL && ex->ops->client_https(ex);
}

bool pp_exchange_client_varies(const struct pp_exchange *ex)
{
    return ex->ops->client_varies != NULL && ex->ops->client_varies(ex);
}

const struct sockaddr *pp_exchange_local(struct pp_exchange *ex)
{
    struct pp_conn *conn = ex->conn;
    ENTER(ex);
    if (conn->local.family == AF_UNSPEC && conn->fd >= 0) {
        /* Behind a wildcard listener each connection has its own: asked for once, on demand. */
        pp_sock_local(conn->fd, &conn->local);
    }
    return &conn->local.sa;
}

size_t pp_exchange_local_path(const struct pp_exchange *ex, char *buf, size_t cap)
{
    ENTER(ex);
    return ex->conn->fd >= 0 ? pp_sock_local_path(ex->conn->fd, buf, cap) : 0;
}

uint64_t pp_exchange_requests(const struct pp_exchange *ex)
{
    return ex->conn->requests;
}

uint16_t pp_exchange_tag(const struct pp_exchange *ex)
{
    return ex->conn->tag & PP_TAG_MAX;
}

void *pp_exchange_app(const struct pp_exchange *ex)
{
    ENTER(ex);
    return ex->app;
}

void pp_exchange_set_app(struct pp_exchange *ex, void *app)
{
    ENTER(ex);
    PP_ASSERT(ex->held);
    ex->app = app;
}

void *pp_exchange_user(const struct pp_exchange *ex)
{
    ENTER(ex);
    return ex->conn->user;
}

void pp_exchange_set_user(struct pp_exchange *ex, void *user)
{
    ENTER(ex);
    ex->conn->user = user;
}

void pp_exchange_stay(struct pp_exchange *ex)
{
    ENTER(ex);
    pp_conn_stay(ex->conn);
}

void pp_exchange_end(struct pp_exchange *ex)
{
    ENTER(ex);
    pp_conn_end(ex->conn);
}

int pp_exchange_error(const struct pp_exchange *ex)
{
    ENTER(ex);
    return ex->error;
}

bool pp_exchange_closed(const struct pp_exchange *ex)
{
    ENTER(ex);
    return ex->closed;
}

int pp_exchange_status(const struct pp_exchange *ex)
{
    ENTER(ex);
    return ex->status;
}

/* ---- for the application side: what the protocol does ---- */

enum pp_body_status pp_exchange_peek(struct pp_exchange *ex, const uint8_t **data, size_t *len)
{
    ENTER(ex);
    PP_ASSERT(ex->held);
    return ex->ops->peek(ex, data, len);
}

void pp_exchange_consume(struct pp_exchange *ex, size_t len)
{
    ENTER(ex);
    ex->ops->consume(ex, len);
}

size_t pp_exchange_ahead(const struct pp_exchange *ex)
{
    ENTER(ex);
    return ex->ops->ahead == NULL ? 0 : ex->ops->ahead(ex);
}

enum pp_body_status pp_exchange_take(struct pp_exchange *ex, uint8_t *to, size_t room, size_t *len)
{
    ENTER(ex);
    PP_CHECK(ex->held && ex->ops->take != NULL); /* which pp_exchange_ahead says */
    return ex->ops->take(ex, to, room, len);
}

void pp_exchange_want(struct pp_exchange *ex)
{
    ENTER(ex);
    PP_ASSERT(ex->held);
    if (ex->ops->want != NULL) {
        ex->ops->want(ex);
    }
}

int pp_exchange_respond(struct pp_exchange *ex, struct pp_response *r, const uint8_t *data,
                        size_t len, void *owner, bool *borrowed)
{
    ENTER(ex);
    PP_ASSERT(ex->held);
    if (borrowed != NULL) {
        *borrowed = false;
    }
    return ex->ops->respond(ex, r, data, len, owner, borrowed);
}

int pp_exchange_send(struct pp_exchange *ex, const uint8_t *data, size_t len, bool more,
                     void *owner, bool *borrowed)
{
    ENTER(ex);
    PP_ASSERT(ex->held);
    if (borrowed != NULL) {
        *borrowed = false;
    }
    return ex->ops->send(ex, data, len, more, owner, borrowed);
}

int pp_exchange_send_file(struct pp_exchange *ex, struct pp_file *file, uint64_t at, uint64_t len)
{
    ENTER(ex);
    PP_CHECK(ex->ops->send_file != NULL);
    return ex->ops->send_file(ex, file, at, len);
}

int pp_exchange_informational(struct pp_exchange *ex, int status, const struct pp_out_field *fields,
                              size_t count)
{
    ENTER(ex);
    PP_ASSERT(ex->held);
    return ex->ops->informational(ex, status, fields, count);
}

int pp_exchange_tunnel(struct pp_exchange *ex, const char *protocol,
                       const struct pp_out_field *fields, size_t count)
{
    ENTER(ex);
    PP_ASSERT(ex->held);
    return ex->ops->tunnel == NULL ? PP_ERR_APP_FAILED
                                   : ex->ops->tunnel(ex, protocol, fields, count);
}

void pp_exchange_head_wait(struct pp_exchange *ex)
{
    ENTER(ex);
    if (ex->ops->head_wait != NULL) {
        ex->ops->head_wait(ex);
    }
}

enum pp_progress pp_exchange_progress(const struct pp_exchange *ex)
{
    ENTER(ex);
    return ex->ops->progress(ex);
}

bool pp_exchange_out_full(struct pp_exchange *ex)
{
    ENTER(ex);
    if (ex->closed || !ex->ops->out_full(ex)) {
        return false;
    }
    ex->full_told = true;
    return true;
}

void pp_exchange_flush(struct pp_exchange *ex)
{
    struct pp_conn *conn = ex->conn;

    ENTER(ex);
    if (conn->state == PP_CONN_OPEN && conn->out.bytes > 0) {
        pp_conn_flush(conn);
    }
}

void pp_exchange_fail(struct pp_exchange *ex, int status)
{
    ENTER(ex);
    if (ex->held && !ex->closed && ex->ops->fail != NULL) {
        ex->ops->fail(ex, status);
    }
}

void pp_exchange_abandon(struct pp_exchange *ex)
{
    ENTER(ex);
    if (ex->held && !ex->closed && ex->ops->abandon != NULL) {
        ex->ops->abandon(ex);
    }
}

void pp_exchange_finish(struct pp_exchange *ex)
{
    ENTER(ex);
    PP_CHECK(ex->held);
    PP_ASSERT(ex->app == NULL);
    ex->ops->finish(ex);
}
