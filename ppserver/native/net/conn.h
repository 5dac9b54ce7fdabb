/* One connection: socket + HTTP/1.1 machine + time-outs + output queue, seen from the application
 * side. Only the owning loop's thread calls these (attached or not: they never touch Python).
 *
 * Memory: an idle keep-alive connection is this struct alone (well under 1 KB, from a pool). An
 * input block (head + PP_BLOCK_BYTES, pooled) is held from the first byte of a request until its
 * end, but not while more of a head is waited for that is small until now; it grows for heads up to
 * the limit and once to PP_BODY_BLOCK_BYTES for bodies. Head bytes stay in place until
 * pp_conn_finish; body bytes are decoded in place behind them.
 * Back-pressure: when the block is full of bytes that the application has not consumed, the socket
 * is not read; consuming starts it again.
 * Output: small pieces are copied to a pooled block, pieces above PP_COPY_BYTES_MAX are borrowed
 * (`owner`) until written. Nothing is written before the flush of the next turn or pp_loop_flush,
 * so that head, body and pipelined responses leave in one writev. */
#ifndef PP_NET_CONN_H
#define PP_NET_CONN_H

#include "net/file.h"
#include "net/loop.h"

/* Valid from PP_EV_REQUEST to pp_conn_finish. *base: what the spans count from (it may move when
 * more input is read: ask again after each turn). */
const struct pp_h1_head *pp_conn_head(const struct pp_conn *conn, const uint8_t **base);
/* Peer and local address; for AF_UNIX nothing but the family may be read. */
const struct sockaddr *pp_conn_peer(const struct pp_conn *conn);
const struct sockaddr *pp_conn_local(const struct pp_conn *conn);
/* Of a request: the client that a trusted proxy names, else the peer; and whether the proxy says
 * that the client speaks TLS. Valid as pp_conn_head. */
const struct sockaddr *pp_conn_client(const struct pp_conn *conn);
bool pp_conn_client_https(const struct pp_conn *conn);
/* Whether pp_conn_client may be another one for each request. */
bool pp_conn_client_varies(const struct pp_conn *conn);
/* The path of the Unix socket it came in by: its length in buf, not NUL-terminated; 0 for none. */
size_t pp_conn_local_path(const struct pp_conn *conn, char *buf, size_t cap);
uint64_t pp_conn_id(const struct pp_conn *conn); /* unique per loop, never reused */
/* Requests seen on this connection so far, this one included. */
uint64_t pp_conn_requests(const struct pp_conn *conn);

/* The application side's own pointer for the request being served; NULL at PP_EV_REQUEST. */
void *pp_conn_app(const struct pp_conn *conn);
void pp_conn_set_app(struct pp_conn *conn, void *app);
/* The application side's pointer for the whole connection (survives requests; NULL at first).
 * Before freeing a connection that has one, the loop hands it out by pp_loop_take_dead_user. */
void *pp_conn_user(const struct pp_conn *conn);
void pp_conn_set_user(struct pp_conn *conn, void *user);
void *pp_loop_take_dead_user(struct pp_loop *loop);
/* HTTP: no further request: the answer to one that runs, or is under way, says "close"; a
 * connection that is idle ends after PP_DRAIN_IDLE_MS. */
void pp_conn_end(struct pp_conn *conn);
/* The connection is never given to another context: it means something to the application here. */
void pp_conn_stay(struct pp_conn *conn);

/* ---- request body ---- */
enum pp_body_status {
    PP_BODY_MORE,  /* more may come (len may be 0: nothing here now) */
    PP_BODY_END,   /* these bytes are the last ones (len may be 0) */
    PP_BODY_FAILED /* parse error, limit, time-out or disconnect: see pp_conn_error */
};
/* Decoded body bytes that are here now; valid until consume or the next turn. */
enum pp_body_status pp_conn_body_peek(struct pp_conn *conn, const uint8_t **data, size_t *len);
void pp_conn_body_consume(struct pp_conn *conn, size_t len);
/* How much more than what peek shows pp_conn_body_take may bring now; 0 with bodies that are small
 * or of unknown length, without pp_loop_take_bodies, and when the socket is empty. */
size_t pp_conn_body_ahead(const struct pp_conn *conn);
/* As peek and consume: moves what is here to `to`, and receives more behind it. room: at least what
 * peek shows. Not FAILED and *len == 0: nothing was here after all. */
enum pp_body_status pp_conn_body_take(struct pp_conn *conn, uint8_t *to, size_t room, size_t *len);
/* The application waits: reading goes on if it was paused, 100 Continue is sent if due, and
 * PP_EV_BODY comes once as soon as peek has something new (also if it has already now: then by the
 * next take_event). */
void pp_conn_body_want(struct pp_conn *conn);
int pp_conn_error(const struct pp_conn *conn);   /* PP_OK or why the request failed */
bool pp_conn_closed(const struct pp_conn *conn); /* PP_EV_CLOSED was or will be raised */

/* ---- response ---- */
/* Status, reason, reason_len, fields, field_count, complete, body_bytes of r are the caller's; the
 * rest is filled in. With r->complete, data[0, body_bytes) is the whole body. Otherwise
 * data[0, len) may be a first piece (len may be 0), body_bytes is its length. `owner`: NULL = data
 * is copied; else it is kept if data is borrowed (*borrowed = true) and handed out by
 * pp_loop_take_released later; borrowed may be NULL when owner is, and NULL with an owner means
 * copying. PP_OK, also when the peer is gone (bytes are dropped: check pp_conn_closed). APP_*:
 * nothing was written. NO_MEMORY: the connection is marked for closing. */
int pp_conn_respond(struct pp_conn *conn, struct pp_h1_response *r, const uint8_t *data, size_t len,
                    void *owner, bool *borrowed) PP_MUST_USE;
/* Further body bytes; more = false ends the response. Same ownership rules. */
int pp_conn_send(struct pp_conn *conn, const uint8_t *data, size_t len, bool more, void *owner,
                 bool *borrowed) PP_MUST_USE;
int pp_conn_informational(struct pp_conn *conn, int status, const struct pp_h1_out_field *fields,
                          size_t count) PP_MUST_USE;
/* The application has given its head and not yet a piece of the body: PP_EV_HEAD comes after
 * PP_HEAD_WAIT_MS unless the response begins before. */
void pp_conn_head_wait(struct pp_conn *conn);
bool pp_conn_response_started(const struct pp_conn *conn);
bool pp_conn_response_done(const struct pp_conn *conn);
int pp_conn_status(const struct pp_conn *conn); /* of the started response, 0 before */
/* True when more than PP_OUT_HIGH_BYTES wait; then PP_EV_DRAINED will come (or PP_EV_CLOSED). */
bool pp_conn_out_full(struct pp_conn *conn);
/* The application failed: before the response start a 500 is sent (status or other 5xx), after it
 * the connection is closed in a way the peer can tell from a complete response. */
void pp_conn_fail(struct pp_conn *conn, int status);
/* The application has heard that the peer left, and answers nothing: closed without a word. */
void pp_conn_abandon(struct pp_conn *conn);
/* The application side has let go of this request (app pointer must be NULL). When the response is
 * complete, the next request on the connection may begin (at once if it is already in the buffer:
 * a further PP_EV_REQUEST in this batch, within limit_pipeline); when it is not, as pp_conn_fail.
 * A closed
 * connection may be freed from here on. Writes the access line. */
void pp_conn_finish(struct pp_conn *conn);

/* ---- raw connections: those that came by a listener with PP_TAG_RAW ----
 * The application has such a connection from its beginning to its end: REQUEST comes once, at the
 * beginning; BODY whenever bytes came; EOF when the peer will send no more; FINISHED when all that
 * was queued is written; IDLE when neither has happened for long; CLOSED at the end, after which
 * pp_conn_finish lets go of it. Input is not received while a block is full of bytes that were not
 * consumed, or output is above its high water mark. Of the functions above only those without
 * request or response in their names apply. */
uint16_t pp_conn_tag(const struct pp_conn *conn); /* of its listener, without PP_TAG_RAW */
bool pp_conn_is_raw(const struct pp_conn *conn);
/* What is here and was not consumed; valid until consume or the next turn. */
size_t pp_conn_raw_peek(const struct pp_conn *conn, const uint8_t **data);
void pp_conn_raw_consume(struct pp_conn *conn, size_t len);
/* Queues bytes; ownership as in pp_conn_respond. PP_OK, also when the peer is gone (they are
 * dropped), or NO_MEMORY: the connection is marked for closing. */
int pp_conn_raw_send(struct pp_conn *conn, const uint8_t *data, size_t len, void *owner,
                     bool *borrowed) PP_MUST_USE;
/* Queues [at, at + len) of a file, whose reference it takes over in any case. A file that turns out
 * to be shorter resets the connection. */
int pp_conn_raw_send_file(struct pp_conn *conn, struct pp_file *file, uint64_t at,
                          uint64_t len) PP_MUST_USE;
void pp_conn_raw_flush(struct pp_conn *conn); /* now, instead of with the next turn */
void pp_conn_raw_close(struct pp_conn *conn); /* once what is queued is written */
/* Whether it was our side that closed: at the application's word, or because the loop drains. */
bool pp_conn_raw_ours(const struct pp_conn *conn);
/* How often to try again at once when the socket has nothing, or takes nothing, before waiting for
 * it to become ready; at first neither is tried again. */
void pp_conn_raw_attempts(struct pp_conn *conn, uint8_t receive, uint8_t send);
/* At most so many bytes a second are sent, a quarter of a second's at once; 0 = no limit. */
void pp_conn_raw_rate(struct pp_conn *conn, uint32_t bytes_per_second);
/* IDLE is raised whenever, for so long, nothing came and all that was queued is written; 0 = never.
 * What to do then is the application's affair: it knows whether it is about to say something. */
void pp_conn_raw_idle(struct pp_conn *conn, uint32_t after_ms);
uint64_t pp_conn_out_bytes(const struct pp_conn *conn); /* queued and not yet written */

/* Iteration over all connections, for shutting down: NULL starts and ends. */
struct pp_conn *pp_loop_next_conn(struct pp_loop *loop, struct pp_conn *conn);

#endif
