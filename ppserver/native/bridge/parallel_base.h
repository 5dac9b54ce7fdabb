/* What the files of the parallel bridge share (see parallel.c for how they work together). */
#ifndef PP_BRIDGE_PARALLEL_BASE_H
#define PP_BRIDGE_PARALLEL_BASE_H

#include "bridge/lead_base.h"
#include "bridge/queue.h"

#define PP_PAR_OUTS_INLINE 4
#define PP_PAR_PROTOCOLS_MAX 1024

/* Callbacks of a protocol: X(field). */
#define PP_PAR_CALLBACKS(X) \
    X(connection_made) \
    X(data_received) \
    X(line_received) \
    X(data_sent) \
    X(send_complete) \
    X(send_failed) \
    X(connection_closed) \
    X(connection_lost) \
    X(connection_timeout) \
    X(connection_error) \
    X(exception_handler)

enum pp_par_callback {
#define PP_PAR_ENUM_(name) PP_PAR_##name,
    PP_PAR_CALLBACKS(PP_PAR_ENUM_)
#undef PP_PAR_ENUM_
        PP_PAR_CALLBACK_COUNT
};

/* Bytes that a protocol wants to be sent: a constant, or what its method gives. */
struct pp_par_bytes {
    PyObject *constant; /* owned bytes or NULL */
    int args;           /* of the method, beside self: 0 or 1 (the transport); -1: there is none */
};

/* One registered protocol; its number is the tag of its listeners. Constant once served. */
struct pp_par_protocol {
    PyObject *maker;  /* owned: the class, or the one instance */
    PyObject *parent; /* owned: what `parent` of its transports is */
    int is_class, raw, line_mode, wait_for_eol, low_latency, concurrency; /* booleans */
    bool has[PP_PAR_CALLBACK_COUNT];
    unsigned line_max;   /* bytes */
    unsigned rate_limit; /* bytes of output a second; 0 = none */
    unsigned idle_ms;    /* silence after which the connection ends; 0 = none */
    unsigned char receive_again, send_again;
    struct pp_par_bytes initial, next;
    PyObject **routes; /* owned str or NULL; open addressing by the name's hash. http11 */
    size_t route_mask;
};

struct pp_par {
    struct pp_lead lead;   /* first */
    struct pp_queue queue; /* of requests; a body that is too large for it is a 413 */
    struct pp_list ready;  /* PpTransport with events, which nobody runs yet; leader only */
    struct pp_list left;   /* those the end found; a reference each, dropped attached */
    PyObject *names[PP_PAR_CALLBACK_COUNT]; /* owned str */
    PyObject *initial, *next;               /* owned str */
    PyObject *recv, *close;                 /* owned str: what connection_closed is told */
    PyObject *dumps;                        /* owned: json.dumps */
    struct pp_par_protocol *protocols;      /* owned */
    uint32_t count;
};

static inline struct pp_par *pp_par_of(struct pp_lead *lead)
{
    return PP_CONTAINER(lead, struct pp_par, lead);
}

/* A piece of output: bytes, whose reference is the turn's until the loop borrows it, or a range of
 * a file, whose reference the loop takes over. */
struct pp_par_out {
    PyObject *owner; /* owned bytes or NULL */
    bool borrowed;
    struct pp_file *file; /* counted, or NULL */
    uint64_t at, len;     /* of the file */
};

struct PpTransport;

/* One run of callbacks, on the stack of the thread that makes it: what they left to do. */
struct pp_par_turn {
    struct pp_par_out inline_outs[PP_PAR_OUTS_INLINE];
    struct pp_par_out *outs; /* inline_outs or PyMem */
    uint32_t count, cap;
    /* Leader: carries out what is here. Set by who begins the run. */
    void (*settle)(struct PpTransport *t, struct pp_par_turn *turn);
    bool ended;        /* raw: the last callback of the connection was among them */
    bool stays;        /* http11: the application keeps something with the connection */
    int status;        /* http11: of the answer; 0: it failed */
    const char *media; /* http11: Content-Type, static text */
};

typedef struct PpTransport {
    PyObject_HEAD
    PyObject *dict; /* owned or NULL: what the application puts there */
    PyObject *weakrefs;
    PpCore *core;                           /* owned */
    struct pp_par *par;                     /* counted */
    const struct pp_par_protocol *protocol; /* borrowed from par */
    PyObject *handler;                      /* owned: the protocol's instance; NULL until made */
    PyObject *kept; /* owned: its dict, if it is of this connection alone and
                       has one; http11 */
    PyObject *ip;   /* owned str */
    int port, family;
    uint64_t began_us;

    /* Leader only. */
    struct pp_queue_slot slot; /* pp_exchange_app points here */
    struct pp_list link;       /* pp_par.ready or .left */
    struct pp_exchange *ex;    /* borrowed; raw: until let go; http11: during a request */
    unsigned events;           /* not yet told */
    bool busy;                 /* a thread runs callbacks */

    /* The thread that runs callbacks, one at a time; the leader while that one waits for it. */
    struct pp_lead_worker *worker; /* borrowed from par; NULL: no callback runs. Atomic. */
    struct pp_par_turn *turn;      /* borrowed; of that run */
    PyObject *partial;             /* owned bytes or NULL: a line that has no end yet */
    PyObject *last_sent;           /* owned bytes or NULL: not yet known to be sent */
    bool closing;                  /* by us, once what the callbacks gave is sent */
    bool peer_ended;               /* it had said before that nothing more will come */
    bool timed_out;                /* it has said nothing for too long */

    /* Written by that thread, read by any: atomic. */
    uint64_t send_id, recv_id, sent, received, just_sent, just_received;
} PpTransport;

/* Whether there are other contexts that its connection may be handed to. */
static inline bool pp_par_may_leave(const PpTransport *t)
{
    return t->core->board != NULL && !t->protocol->raw;
}

/* What a run tells a raw connection's protocol. */
struct pp_par_news {
    unsigned events;
    PyObject *data; /* owned or NULL */
    int code;       /* with CLOSED: why */
    bool ours;      /* with CLOSED: by our side */
};

#endif
