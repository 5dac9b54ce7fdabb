/* What the files of the parallel bridge share (see parallel.c for how they work together). */
#ifndef PP_BRIDGE_PARALLEL_H
#define PP_BRIDGE_PARALLEL_H

#include "bridge/wsgi.h"

#define PP_PAR_OUTS_INLINE 4
#define PP_PAR_PROTOCOLS_MAX 1024
#define PP_PAR_BODY_MAX (1u << 20) /* bytes of a request's body; beyond: 413 */

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
    PyObject *names[PP_PAR_CALLBACK_COUNT]; /* owned str */
    PyObject *initial, *next;               /* owned str */
    PyObject *recv, *close;                 /* owned str: what connection_closed is told */
    PyObject *dumps;                        /* owned: json.dumps */
    struct pp_par_protocol *protocols;      /* owned */
    uint32_t count;
};

/* A piece of output: bytes, whose reference is the turn's until the loop borrows it, or a range of
 * a file, whose reference the loop takes over. */
struct pp_par_out {
    PyObject *owner; /* owned bytes or NULL */
    bool borrowed;
    struct pp_file *file; /* counted, or NULL */
    uint64_t at, len;     /* of the file */
};

/* One run of callbacks, on the stack of the thread that makes it: what they left to do. */
struct pp_par_turn {
    struct pp_par_out inline_outs[PP_PAR_OUTS_INLINE];
    struct pp_par_out *outs; /* inline_outs or PyMem */
    uint32_t count, cap;
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
    struct pp_wsgi *w;                      /* counted */
    const struct pp_par_protocol *protocol; /* borrowed from w */
    PyObject *handler;                      /* owned: the protocol's instance; NULL until made */
    PyObject *kept; /* owned: its dict, if it is of this connection alone and
                       has one; http11 */
    PyObject *ip;   /* owned str */
    int port, family;
    uint64_t began_us;

    /* Leader only. */
    struct pp_wsgi_slot slot; /* pp_conn_app points here */
    struct pp_list link;      /* pp_wsgi.transports_ready or .transports_left */
    struct pp_conn *conn;     /* borrowed; raw: until let go; http11: during a request */
    unsigned events;          /* not yet told */
    bool busy;                /* a thread runs callbacks */

    /* The thread that runs callbacks, one at a time; the leader while that one waits for it. */
    struct pp_wsgi_worker *worker; /* borrowed from w; NULL: no callback runs. Atomic. */
    struct pp_par_turn *turn;      /* borrowed; of that run */
    PyObject *partial;             /* owned bytes or NULL: a line that has no end yet */
    PyObject *last_sent;           /* owned bytes or NULL: not yet known to be sent */
    bool closing;                  /* by us, once what the callbacks gave is sent */
    bool peer_ended;               /* it had said before that nothing more will come */
    bool timed_out;                /* it has said nothing for too long */

    /* Written by that thread, read by any: atomic. */
    uint64_t send_id, recv_id, sent, received, just_sent, just_received;
} PpTransport;

/* parallel_protocols.c */
struct pp_par *pp_par_new(PyObject *protocols); /* NULL with an exception */
void pp_par_free(struct pp_par *par);           /* attached */
int pp_par_visit(struct pp_par *par, visitproc visit, void *arg);
/* The method for a path's first segment, borrowed; NULL: there is none. */
PyObject *pp_par_route(const struct pp_par_protocol *p, const char *path, size_t len);

/* parallel.c */
/* A raw connection's events. Leader; may attach. False: leadership lost. */
bool pp_par_on_event(struct pp_wsgi_worker *self, struct pp_conn *conn, unsigned events);
/* Runs what waits in w->transports_ready; leader, not the manager. False: leadership lost. */
bool pp_par_serve(struct pp_wsgi_worker *self);
/* Runs the method for the request on conn (http11). body is taken over. Attached; never raises. */
void pp_par_request(struct pp_wsgi *w, struct pp_wsgi_worker *self, struct pp_conn *conn,
                    struct pp_wsgi_body body);
/* Leader: carries out what the callbacks of a transport left to do. No Python. */
void pp_par_settle(PpTransport *t, struct pp_par_turn *turn);
/* bytes for what is to be sent, or NULL with an exception. Steals given. */
PyObject *pp_par_bytes_of(PyObject *given);
/* Leader: a copy of the head of the request whose method runs (pp_mem, *len bytes); NULL: there is
 * none, with *len 0, or no memory. */
uint8_t *pp_par_head(PpTransport *t, size_t *len);
void pp_par_close(PpTransport *t);   /* leader: as transport.close() */
void pp_par_abandon(PpTransport *t); /* leader, the end: lets go of the connection */

/* transport.c */
extern PyType_Spec pp_transport_spec;
PpTransport *pp_transport_new(struct pp_wsgi *w, struct pp_conn *conn); /* NULL with an exception */
/* Adds to the turn's output. Steals bytes. -1 with an exception. */
int pp_transport_push(PpTransport *t, PyObject *bytes);

#endif
