/* The private part of HTTP/1.1 on a connection (http1.h), which holds it by value. */
#ifndef PP_NET_HTTP1_IMPL_H
#define PP_NET_HTTP1_IMPL_H

#include "net/exchange_impl.h"
#include "proto/h1_conn.h"

struct pp_block;

/* clang-format off */
/* X(state, BYTES, REQUEST, REUSE, OVER): what each event leads to; NO = must not be. */
#define PP_HTTP1_STATES(X)                                                                         \
    X(IDLE, HEAD, NO, NO, OVER)     /* between requests: no input block */                         \
    X(HEAD, HEAD, SERVE, NO, OVER)  /* a part of a head is here, or set aside */                   \
    X(SERVE, NO, NO, IDLE, OVER)    /* the application has the request */                          \
    X(OVER, NO, NO, NO, OVER)       /* no request will follow, and nothing more is said */
/* clang-format on */

enum pp_http1_state {
#define PP_HTTP1_ENUM_(state, ...) PP_HTTP1_##state,
    PP_HTTP1_STATES(PP_HTTP1_ENUM_)
#undef PP_HTTP1_ENUM_
        PP_HTTP1_NO
};
enum pp_http1_step {
    PP_HTTP1_ON_BYTES,   /* the first bytes of a request */
    PP_HTTP1_ON_REQUEST, /* its head is whole */
    PP_HTTP1_ON_REUSE,   /* it is answered and the connection goes on */
    PP_HTTP1_ON_OVER,
    PP_HTTP1_STEPS
};
extern const uint8_t pp_http1_next[PP_HTTP1_NO][PP_HTTP1_STEPS]; /* enum pp_http1_state */

struct pp_http1 {
    struct pp_exchange ex;
    struct pp_h1_conn h1;
    uint64_t batch_turn;           /* the turn that batch_requests counts for */
    struct pp_block *in;           /* owned; from the first byte of a request to its end */
    uint8_t *aside;                /* owned; in HEAD instead of `in`: the first bytes of a head */
    uint32_t in_start;             /* first byte of this request */
    uint32_t body_floor;           /* end of its head: body bytes are moved down to here */
    uint32_t body_start, body_end; /* decoded and not consumed */
    uint32_t raw_start, in_end; /* received and not decoded; with `aside`, in_end is its length */
    uint32_t batch_requests;
    uint8_t state;        /* enum pp_http1_state; written by pp_http1_step only */
    bool peer_last : 1;   /* the peer itself said that this is its last request */
    bool settled : 1;     /* the application takes no more of the body: pp_http1_body_settle */
    bool trust_known : 1; /* whether the peer's forwarded fields count has been found out: */
    bool trusted : 1;
};

#endif
