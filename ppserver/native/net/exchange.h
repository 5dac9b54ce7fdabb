/* One request and its response, seen from the application side: what the bridge holds from
 * PP_EV_REQUEST to pp_exchange_finish, whatever protocol it came by. Only the owning loop's thread
 * calls these (attached or not: they never touch Python).
 *
 * Memory: an idle keep-alive connection has no exchange and costs a struct of half a KB (conn.h).
 * An input block is held from the first byte of a request until its end, but not while more of a
 * head is waited for that is small until now; it grows for heads up to the limit and once to
 * PP_BODY_BLOCK_BYTES for bodies. Head bytes stay in place until pp_exchange_finish; body bytes are
 * decoded in place behind them.
 * Back-pressure: when the block is full of bytes that the application has not consumed, the socket
 * is not read; consuming starts it again.
 * Output: small pieces are copied to a pooled block, pieces above PP_COPY_BYTES_MAX are borrowed
 * (`owner`) until written. Nothing is written before the flush of the next turn or pp_loop_flush,
 * so that head, body and pipelined responses leave in one writev.
 *
 * A raw exchange (of a listener with PP_TAG_RAW, see raw.h) is a whole connection, and a tunnel
 * (pp_exchange_tunnel) the rest of one: bytes both ways. */
#ifndef PP_NET_EXCHANGE_H
#define PP_NET_EXCHANGE_H

#include "net/file.h"
#include "net/loop.h"

/* The request: valid from PP_EV_REQUEST to pp_exchange_finish. *base: what the spans count from (it
 * may move when more input is read: ask again after each turn). */
const struct pp_head *pp_exchange_head(const struct pp_exchange *ex, const uint8_t **base);
/* Peer and local address; for AF_UNIX nothing but the family may be read. */
const struct sockaddr *pp_exchange_peer(const struct pp_exchange *ex);
const struct sockaddr *pp_exchange_local(struct pp_exchange *ex);
/* The client that a trusted proxy names, else the peer; and whether the proxy says that the client
 * speaks TLS. Valid as pp_exchange_head. */
const struct sockaddr *pp_exchange_client(const struct pp_exchange *ex);
bool pp_exchange_client_https(const struct pp_exchange *ex);
/* Whether pp_exchange_client may be another one for each request of the connection. */
bool pp_exchange_client_varies(const struct pp_exchange *ex);
/* The path of the Unix socket it came in by: its length in buf, not NUL-terminated; 0 for none. */
size_t pp_exchange_local_path(const struct pp_exchange *ex, char *buf, size_t cap);
/* Requests seen on its connection so far, this one included. */
uint64_t pp_exchange_requests(const struct pp_exchange *ex);
uint16_t pp_exchange_tag(const struct pp_exchange *ex); /* of its listener, without PP_TAG_RAW */

/* The application side's own pointer; NULL at PP_EV_REQUEST. */
void *pp_exchange_app(const struct pp_exchange *ex);
void pp_exchange_set_app(struct pp_exchange *ex, void *app);
/* The application side's pointer for the whole connection (survives requests; NULL at first).
 * Before freeing a connection that has one, the loop hands it out by pp_loop_take_dead_user. */
void *pp_exchange_user(const struct pp_exchange *ex);
void pp_exchange_set_user(struct pp_exchange *ex, void *user);
void *pp_loop_take_dead_user(struct pp_loop *loop);
/* Of connections that live, one by one, for who closes the loop; NULL: none is left. */
void *pp_loop_take_user(struct pp_loop *loop);
/* The connection with that user pointer, if there is one still, gets no further request: the answer
 * to one that runs, or is under way, says "close"; an idle one ends after PP_DRAIN_IDLE_MS. */
void pp_loop_end_user(struct pp_loop *loop, const void *user);
/* As pp_loop_end_user, of its own connection. */
void pp_exchange_end(struct pp_exchange *ex);
/* Its connection is never given to another context: it means something to the application here. */
void pp_exchange_stay(struct pp_exchange *ex);

/* ---- request body ---- */
enum pp_body_status {
    PP_BODY_MORE,  /* more may come (len may be 0: nothing here now) */
    PP_BODY_END,   /* these bytes are the last ones (len may be 0) */
    PP_BODY_FAILED /* parse error, limit, time-out or disconnect: see pp_exchange_error */
};
/* Decoded body bytes that are here now; valid until consume or the next turn. */
enum pp_body_status pp_exchange_peek(struct pp_exchange *ex, const uint8_t **data, size_t *len);
void pp_exchange_consume(struct pp_exchange *ex, size_t len);
/* How much more than what peek shows pp_exchange_take may bring now; 0 with bodies that are small
 * or of unknown length, without pp_loop_take_bodies, and when the socket is empty. */
size_t pp_exchange_ahead(const struct pp_exchange *ex);
/* As peek and consume: moves what is here to `to`, and receives more behind it. room: at least what
 * peek shows. Not FAILED and *len == 0: nothing was here after all. */
enum pp_body_status pp_exchange_take(struct pp_exchange *ex, uint8_t *to, size_t room, size_t *len);
/* The application waits: reading goes on if it was paused, 100 Continue is sent if due, and
 * PP_EV_BODY comes once as soon as peek has something new (also if it has already now: then by the
 * next take_event). */
void pp_exchange_want(struct pp_exchange *ex);
int pp_exchange_error(const struct pp_exchange *ex);   /* PP_OK or why the request failed */
bool pp_exchange_closed(const struct pp_exchange *ex); /* PP_EV_CLOSED was or will be raised */

/* ---- response ---- */
/* Status, reason, reason_len, fields, field_count, complete, body_bytes of r are the caller's; the
 * rest is filled in. With r->complete, data[0, body_bytes) is the whole body. Otherwise
 * data[0, len) may be a first piece (len may be 0), body_bytes is its length. `owner`: NULL = data
 * is copied; else it is kept if data is borrowed (*borrowed = true) and handed out by
 * pp_loop_take_released later; borrowed may be NULL when owner is, and NULL with an owner means
 * copying. PP_OK, also when the peer is gone (bytes are dropped: check pp_exchange_closed). APP_*:
 * nothing was written. NO_MEMORY: the connection is marked for closing. */
int pp_exchange_respond(struct pp_exchange *ex, struct pp_response *r, const uint8_t *data,
                        size_t len, void *owner, bool *borrowed) PP_MUST_USE;
/* Further body bytes, or bytes of a tunnel or raw exchange; more = false ends the response (ignored
 * by a raw exchange). Same ownership rules. */
int pp_exchange_send(struct pp_exchange *ex, const uint8_t *data, size_t len, bool more,
                     void *owner, bool *borrowed) PP_MUST_USE;
/* [at, at + len) of a file, whose reference it takes over in any case. A file that turns out to be
 * shorter resets the connection. Raw exchanges only, until now. */
int pp_exchange_send_file(struct pp_exchange *ex, struct pp_file *file, uint64_t at,
                          uint64_t len) PP_MUST_USE;
int pp_exchange_informational(struct pp_exchange *ex, int status, const struct pp_out_field *fields,
                              size_t count) PP_MUST_USE;
/* Accepts an upgrade to `protocol`, a constant of the caller's (RFC 9110 section 7.8), with a 101
 * and those fields beside Upgrade and Connection; writes the access line. From then on the exchange
 * is bytes both ways, as a raw one (raw.h), beginning with what came behind the request's head;
 * pp_exchange_head must not be asked any more. PP_OK, also when the peer is gone. APP_*: nothing
 * was written; APP_FAILED: it is too late, or the request has a body, or asks for no upgrade. */
int pp_exchange_tunnel(struct pp_exchange *ex, const char *protocol,
                       const struct pp_out_field *fields, size_t count) PP_MUST_USE;
/* The application has given its head and not yet a piece of the body: PP_EV_HEAD comes after
 * PP_HEAD_WAIT_MS unless the response begins before. */
void pp_exchange_head_wait(struct pp_exchange *ex);
enum pp_progress { PP_RESPONSE_NONE, PP_RESPONSE_STARTED, PP_RESPONSE_DONE };
enum pp_progress pp_exchange_progress(const struct pp_exchange *ex); /* of the response */
int pp_exchange_status(const struct pp_exchange *ex); /* of the started response, 0 before */
/* True when more than PP_OUT_HIGH_BYTES wait; then PP_EV_DRAINED will come (or PP_EV_CLOSED). */
bool pp_exchange_out_full(struct pp_exchange *ex);
/* Writes what its connection has queued now, instead of with the next turn. */
void pp_exchange_flush(struct pp_exchange *ex);
/* The application failed: before the response start a 500 is sent (status or other 5xx), after it
 * the connection is closed in a way the peer can tell from a complete response. */
void pp_exchange_fail(struct pp_exchange *ex, int status);
/* The application has heard that the peer left, and answers nothing: closed without a word. */
void pp_exchange_abandon(struct pp_exchange *ex);
/* The application side has let go of this exchange (app pointer must be NULL). When the response is
 * complete, the next request on the connection may begin (at once if it is already in the buffer:
 * a further PP_EV_REQUEST in this batch, within limit_pipeline); when it is not, as
 * pp_exchange_fail. Its connection, if closed, may be freed from here on. Writes the access line.
 */
void pp_exchange_finish(struct pp_exchange *ex);

/* Iteration over the exchanges that the application has: NULL starts and ends. */
struct pp_exchange *pp_loop_next_exchange(struct pp_loop *loop, struct pp_exchange *ex);

#endif
