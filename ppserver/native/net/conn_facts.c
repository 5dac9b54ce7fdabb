/* What may be asked of a connection (contract: conn.h): its request, addresses, pointers of the
 * application, and how far the response is. Nothing here changes its state. */
#include "net/conn_impl.h"

const struct pp_h1_head *pp_conn_head(const struct pp_conn *conn, const uint8_t **base)
{
    PP_CONN_ENTER(conn);
    PP_CHECK(conn->held && conn->in != NULL);
    *base = conn->in->data + conn->in_start;
    return &conn->in->head;
}

const struct sockaddr *pp_conn_peer(const struct pp_conn *conn)
{
    PP_CONN_ENTER(conn);
    return &conn->peer.sa;
}

bool pp_conn_client_varies(const struct pp_conn *conn)
{
    return conn->trusted;
}

const struct sockaddr *pp_conn_client(const struct pp_conn *conn)
{
    PP_CONN_ENTER(conn);
    bool named =
        conn->trusted && conn->in != NULL && conn->in->forwarded.client.family != AF_UNSPEC;
    return named ? &conn->in->forwarded.client.sa : &conn->peer.sa;
}

bool pp_conn_client_https(const struct pp_conn *conn)
{
    PP_CONN_ENTER(conn);
    return conn->trusted && conn->in != NULL && conn->in->forwarded.scheme == PP_SCHEME_HTTPS;
}

const struct sockaddr *pp_conn_local(const struct pp_conn *conn)
{
    PP_CONN_ENTER(conn);
    if (conn->local.family == AF_UNSPEC && conn->fd >= 0) {
        /* Behind a wildcard listener each connection has its own: asked for once, on demand. */
        pp_sock_local(conn->fd, (union pp_sock_addr *)(uintptr_t)&conn->local);
    }
    return &conn->local.sa;
}

size_t pp_conn_local_path(const struct pp_conn *conn, char *buf, size_t cap)
{
    PP_CONN_ENTER(conn);
    return conn->fd >= 0 ? pp_sock_local_path(conn->fd, buf, cap) : 0;
}

uint64_t pp_conn_id(const struct pp_conn *conn)
{
    return conn->id;
}

uint64_t pp_conn_requests(const struct pp_conn *conn)
{
    return conn->requests;
}

void *pp_conn_app(const struct pp_conn *conn)
{
    PP_CONN_ENTER(conn);
    return conn->app;
}

void pp_conn_set_app(struct pp_conn *conn, void *app)
{
    PP_CONN_ENTER(conn);
    PP_ASSERT(conn->held);
    conn->app = app;
}

void *pp_conn_user(const struct pp_conn *conn)
{
    PP_CONN_ENTER(conn);
    return conn->user;
}

void pp_conn_set_user(struct pp_conn *conn, void *user)
{
    PP_CONN_ENTER(conn);
    conn->user = user;
}

int pp_conn_error(const struct pp_conn *conn)
{
    PP_CONN_ENTER(conn);
    return conn->error;
}

bool pp_conn_closed(const struct pp_conn *conn)
{
    PP_CONN_ENTER(conn);
    return conn->closed;
}

bool pp_conn_response_started(const struct pp_conn *conn)
{
    PP_CONN_ENTER(conn);
    return conn->h1.res != PP_H1_RES_WAIT;
}

bool pp_conn_response_done(const struct pp_conn *conn)
{
    PP_CONN_ENTER(conn);
    return conn->h1.res == PP_H1_RES_DONE;
}

int pp_conn_status(const struct pp_conn *conn)
{
    PP_CONN_ENTER(conn);
    return conn->status;
}

void pp_conn_end(struct pp_conn *conn)
{
    PP_CONN_ENTER(conn);
    conn->ends = true;
    pp_conn_drain(conn);
}

void pp_conn_stay(struct pp_conn *conn)
{
    PP_CONN_ENTER(conn);
    conn->stays = true;
}
