/* One HTTP/1.1 connection as a pure state machine: joins head parser, body decoder and response
 * framing, and decides what may follow what. No I/O, no clock, no memory of its own.
 *
 * Request side:  HEAD -> BODY -> DONE            (DONE at once when there is no body)
 * Response side: WAIT -> BODY -> DONE
 * Both DONE -> pp_h1_conn_next starts the next request, if the connection may be reused.
 * ERROR: a parse error; nothing more is read, one error answer may be written, then close. */
#ifndef PP_PROTO_H1_CONN_H
#define PP_PROTO_H1_CONN_H

#include "proto/h1_body.h"
#include "proto/h1_parse.h"
#include "proto/h1_write.h"

enum pp_h1_req_state { PP_H1_REQ_HEAD, PP_H1_REQ_BODY, PP_H1_REQ_DONE, PP_H1_REQ_ERROR };
enum pp_h1_res_state { PP_H1_RES_WAIT, PP_H1_RES_BODY, PP_H1_RES_DONE };

/* What moves the two sides; the tables (h1_conn.c) are data for the tests and the diagram. */
enum pp_h1_req_event {
    PP_H1_REQ_EV_HEAD,      /* a head without a body */
    PP_H1_REQ_EV_HEAD_BODY, /* a head, and a body follows */
    PP_H1_REQ_EV_BODY_END,
    PP_H1_REQ_EV_FAIL, /* a parse error or a limit */
    PP_H1_REQ_EV_NEXT,
    PP_H1_REQ_EV_COUNT
};
enum pp_h1_res_event {
    PP_H1_RES_EV_START, /* a head was written, body bytes may follow */
    PP_H1_RES_EV_WHOLE, /* a head was written and the response is complete with what comes with it
                         */
    PP_H1_RES_EV_END,
    PP_H1_RES_EV_NEXT,
    PP_H1_RES_EV_COUNT
};
#define PP_H1_ILLEGAL 0xffu /* our own mistake: asserted against */
extern const uint8_t pp_h1_req_table[PP_H1_REQ_ERROR + 1][PP_H1_REQ_EV_COUNT];
extern const uint8_t pp_h1_res_table[PP_H1_RES_DONE + 1][PP_H1_RES_EV_COUNT];

struct pp_h1_conn {
    struct pp_h1_parser parser;
    struct pp_h1_body body;
    uint64_t out_remaining; /* body bytes still due (FRAME_LENGTH) */
    uint8_t req;            /* enum pp_h1_req_state */
    uint8_t res;            /* enum pp_h1_res_state */
    uint8_t framing;        /* enum pp_h1_framing */
    uint8_t minor;
    bool keep_alive; /* the connection may carry another request after this one */
    bool head_request;
    bool expect_continue; /* the peer waits for 100 Continue and has not got it */
    bool draining;        /* set by the owner: answer with Connection: close */
};

void pp_h1_conn_init(struct pp_h1_conn *c);
/* In HEAD: as pp_h1_parse_head; at PP_OK the machine is in BODY or DONE. */
int pp_h1_conn_head(struct pp_h1_conn *c, uint8_t *buf, size_t len,
                    const struct pp_h1_limits *limits, struct pp_head *head) PP_MUST_USE;
/* In BODY: as pp_h1_body_decode; at PP_OK the machine is in DONE. */
int pp_h1_conn_body(struct pp_h1_conn *c, const uint8_t *in, size_t in_len, uint8_t *out,
                    size_t *consumed, size_t *produced) PP_MUST_USE;
/* True once, when "HTTP/1.1 100 Continue\r\n\r\n" is due because the application wants the body
 * (RFC 9110 10.1.1): not after body bytes arrived or the response started. */
bool pp_h1_conn_take_continue(struct pp_h1_conn *c);
/* In WAIT: fills the request-dependent fields of r, writes the head (see pp_h1_write_head), goes to
 * BODY, or to DONE when r->complete or no body may follow and r->complete. If the request body has
 * not been read to its end, or `draining`, keep_alive becomes false first when r->complete. On an
 * APP_* error nothing changed and another head (500) may be written. */
int pp_h1_conn_respond(struct pp_h1_conn *c, struct pp_response *r, uint8_t *out, size_t cap,
                       size_t *written) PP_MUST_USE;
/* In BODY: accounts for len body bytes (0 allowed); more = false ends the response. Tells what to
 * put around the bytes: prefix[0,*prefix_len) (room for 18), then the data if *send_data, then
 * suffix (static string, its length in *suffix_len: "\r\n", "\r\n0\r\n\r\n", "0\r\n\r\n" or "").
 * APP_BODY_TOO_LONG: nothing may be sent, the connection has to be closed. APP_BODY_TOO_SHORT at
 * more == false: the data may be sent, then the connection has to be closed (keep_alive is false).
 */
int pp_h1_conn_frame(struct pp_h1_conn *c, size_t len, bool more, uint8_t prefix[18],
                     size_t *prefix_len, bool *send_data, const char **suffix,
                     size_t *suffix_len) PP_MUST_USE;
/* Both sides DONE and keep_alive: the connection may be used again. */
bool pp_h1_conn_reusable(const struct pp_h1_conn *c);
void pp_h1_conn_next(struct pp_h1_conn *c); /* requires pp_h1_conn_reusable */

#endif
