/* HTTP/1.1 on a connection: requests one after the other, each an exchange that is part of it. The
 * files http1*.c share this; the loop knows pp_http1_proto alone. */
#ifndef PP_NET_HTTP1_H
#define PP_NET_HTTP1_H

#include "net/conn.h"

extern const struct pp_proto pp_http1_proto;

/* ---- http1.c ---- */
void pp_http1_step(struct pp_http1 *h, enum pp_http1_step step); /* the only writer of state */
/* No request follows, and nothing is said beyond what is queued. */
void pp_http1_over(struct pp_conn *conn);
void pp_http1_log(const struct pp_http1 *h); /* its access line */
static inline struct pp_http1 *pp_http1_of(const struct pp_exchange *ex)
{
    return PP_CONTAINER(ex, struct pp_http1, ex);
}

/* ---- http1_in.c ---- */
void pp_http1_read(struct pp_conn *conn); /* by its state */
/* As received: the first bytes of the first request. */
void pp_http1_carry(struct pp_conn *conn, const uint8_t *data, size_t len);
/* Starts the request whose first bytes are in the block behind the finished one. */
void pp_http1_read_next(struct pp_conn *conn);
void pp_http1_block_drop(struct pp_http1 *h);
bool pp_http1_block_grow(struct pp_http1 *h, size_t cap); /* false: no memory, nothing changed */
/* An error of the peer between requests or in a head: answers with its status, if it has one. */
void pp_http1_refuse(struct pp_conn *conn, int code, int status);
static inline uint32_t pp_http1_leftover(const struct pp_http1 *h)
{
    return h->in == NULL ? 0 : h->in_end - h->raw_start;
}

/* ---- http1_body.c ---- */
void pp_http1_body_decode(struct pp_http1 *h); /* the next pieces, at raw_start */
void pp_http1_body_read(struct pp_conn *conn);
/* The response is complete while a body is left for pp_exchange_take: what is here of it is read,
 * if that may be all, so that the connection can be used again. */
void pp_http1_body_settle(struct pp_http1 *h);
enum pp_body_status pp_http1_peek(struct pp_exchange *ex, const uint8_t **data, size_t *len);
void pp_http1_consume(struct pp_exchange *ex, size_t len);
size_t pp_http1_ahead(const struct pp_exchange *ex);
enum pp_body_status pp_http1_take(struct pp_exchange *ex, uint8_t *to, size_t room, size_t *len);
void pp_http1_want(struct pp_exchange *ex);

/* ---- http1_out.c ---- */
/* A whole error answer; the response side of the machine is done afterwards. */
void pp_http1_error(struct pp_conn *conn, int status);
int pp_http1_respond(struct pp_exchange *ex, struct pp_response *r, const uint8_t *data, size_t len,
                     void *owner, bool *borrowed);
int pp_http1_send(struct pp_exchange *ex, const uint8_t *data, size_t len, bool more, void *owner,
                  bool *borrowed);
int pp_http1_informational(struct pp_exchange *ex, int status, const struct pp_out_field *fields,
                           size_t count);
int pp_http1_tunnel(struct pp_exchange *ex, const char *protocol, const struct pp_out_field *fields,
                    size_t count);

#endif
