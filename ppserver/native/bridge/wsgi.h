/* What the files of the WSGI bridge share (see wsgi.c for how they work together).
 *
 * Three kinds of state:
 *   struct pp_wsgi         one per context: threads, leadership, requests that wait. Counted, so
 * that a call that never ends keeps it alive after the Core is closed. PpWsgiCall             one
 * per request with the application; also the `start_response` callable. struct pp_wsgi_op something
 * a call wants from its connection; lives on the waiting stack. A connection is only ever touched
 * by the thread that leads. */
#ifndef PP_BRIDGE_WSGI_H
#define PP_BRIDGE_WSGI_H

#include "bridge/core_base.h"

#include <pthread.h>

#include "net/park.h"
#include "net/spool.h"
#include "net/thread.h"

#define PP_WSGI_TICK_US 1000   /* a call that is seen waiting after this interval is slow */
#define PP_WSGI_SWITCH_US 5000 /* after so much computing a thread has to let go of the GIL */
/* A call that only computes loses the lead after so much processor time: when it has to let others
 * run as well. */
#ifdef Py_GIL_DISABLED
#define PP_WSGI_COMPUTE_US 1000
#else
#define PP_WSGI_COMPUTE_US PP_WSGI_SWITCH_US
#endif
#define PP_WSGI_QUIET_TICKS 8    /* ticks without a call until the watch sleeps */
#define PP_WSGI_SLEEP_US 1000000 /* the sleeping watch still looks for signals */
#define PP_WSGI_WAIT_WEIGHT 4 /* how much a call that waited counts against one that did not... */
#define PP_WSGI_EAGER_AT 8    /* ...until calls are taken to wait from the start */
#define PP_WSGI_EAGER_MAX 32
#define PP_WSGI_GATHER_MAX \
    (1u << 20) /* a body up to this is awaited before the application runs... */
#define PP_WSGI_GATHER_BYTES \
    65536 /* ...and takes memory by and by, this much of a known one first... */
#define PP_WSGI_GATHER_FIRST 4096 /* ...and this much of a chunked one */
#define PP_WSGI_GATHER_TOTAL \
    (64u << 20)                  /* bytes of awaited bodies in a context; beyond none is awaited */
#define PP_WSGI_JOIN_BYTES 65536 /* a list of pieces up to this is sent as one */
#define PP_WSGI_FIELDS_INLINE 24
#define PP_WSGI_CAUSES_MAX 8     /* how far back an exception's causes are looked at */
#define PP_WSGI_FILE_BYTES 65536 /* what is read at a time from a wrapped file */
#define PP_WSGI_SPAWN_RETRY_US \
    250000                     /* after a thread that could not be made, until the next try */
#define PP_WSGI_HEAD_MS 250    /* a head that waits for its first piece is sent after once or... */
#define PP_WSGI_HEAD_TICKS 256 /* ...twice that: when it is looked for, in ticks of the manager */
#define PP_WSGI_HANG_US 500000 /* stop() waits this long for calls to end */
#define PP_WSGI_THREADS_MAX 1024

/* Environ keys and values with text of their own: X(field, "text"). */
#define PP_WSGI_TEXTS(X) \
    X(request_method, "REQUEST_METHOD") \
    X(script_name, "SCRIPT_NAME") \
    X(path_info, "PATH_INFO") \
    X(query_string, "QUERY_STRING") \
    X(raw_uri, "RAW_URI") \
    X(request_uri, "REQUEST_URI") \
    X(server_name, "SERVER_NAME") \
    X(server_port, "SERVER_PORT") \
    X(server_protocol, "SERVER_PROTOCOL") \
    X(server_software, "SERVER_SOFTWARE") \
    X(remote_addr, "REMOTE_ADDR") \
    X(remote_port, "REMOTE_PORT") \
    X(content_type, "CONTENT_TYPE") \
    X(content_length, "CONTENT_LENGTH") \
    X(http_host, "HTTP_HOST") \
    X(wsgi_version, "wsgi.version") \
    X(wsgi_url_scheme, "wsgi.url_scheme") \
    X(wsgi_input, "wsgi.input") \
    X(wsgi_errors, "wsgi.errors") \
    X(wsgi_multithread, "wsgi.multithread") \
    X(wsgi_multiprocess, "wsgi.multiprocess") \
    X(wsgi_run_once, "wsgi.run_once") \
    X(wsgi_input_terminated, "wsgi.input_terminated") \
    X(wsgi_file_wrapper, "wsgi.file_wrapper") \
    X(http_1_0, "HTTP/1.0") \
    X(http_1_1, "HTTP/1.1") \
    X(http, "http") \
    X(https, "https") \
    X(slash, "/") \
    X(port_80, "80") \
    X(localhost, "localhost") \
    X(server_value, "ppserver/" PP_VERSION) \
    X(close, "close") \
    X(read, "read") \
    X(exc_info, "exc_info")

#ifndef PP_VERSION
#define PP_VERSION "0"
#endif

struct pp_wsgi_consts {
#define PP_WSGI_FIELD_(field, text) PyObject *field;
    PP_WSGI_TEXTS(PP_WSGI_FIELD_)
#undef PP_WSGI_FIELD_
    PyObject *names[PP_H1_NAME_COUNT]; /* "HTTP_ACCEPT"; NULL for what has no key */
    PyObject *root_path;               /* owned str: SCRIPT_NAME */
    PyObject *empty_input;             /* owned: wsgi.input of requests without a body */
    PyObject *template;                /* owned dict */
    PyObject *server;                  /* owned tuple (name, port) of the address below, or NULL */
    struct sockaddr_storage server_addr;
};

/* A thread that may lead. All but `word` are under the mutex of pp_wsgi. */
struct pp_wsgi_worker {
    struct pp_park park;
    struct pp_wsgi *w;                  /* borrowed */
    struct pp_wsgi_worker *next_parked; /* borrowed */
    uint64_t word;               /* its leadership; 0 = does not lead. Its own thread only. */
    struct pp_thread os_thread;  /* what the kernel knows it by; constant once it runs */
    PyThreadState *detached;     /* its thread state while it is detached; its own thread only */
    bool appointed;              /* has been made leader and has to take over */
    bool manager;                /* leads without running the application */
    bool gone;                   /* its thread has nothing left to do but end */
    struct PpWsgiCall *iterates; /* atomic; borrowed: the call whose result it asks for pieces,
                                    while its head may be unsent; see wsgi_head.c */
    PyObject *thread;            /* owned threading.Thread or NULL; manager only */
};

/* One stay of a thread in the application. */
struct pp_wsgi_trip {
    bool eager;  /* it handed the lead over first; if so... */
    bool waited; /* ...whether that was good for anything */
    uint64_t begin_us, begin_cpu_us;
};

struct pp_par; /* bridge/parallel.h */

struct pp_wsgi {
    uint32_t refs; /* atomic */
    PpCore *core;  /* borrowed; NULL once the core is closed. Only between serve_wsgi and the end of
                      run_wsgi, or with a reference of one's own to the core. */
    struct pp_loop *loop; /* borrowed; leader only */
    struct pp_wsgi_consts k;
    uint32_t threads_max;
    uint32_t streams_max;        /* threads that may be with requests whose body is on its way */
    struct pp_spool_file *spool; /* owned: for large bodies, or NULL. Constant. */
    struct pp_par *par; /* owned: protocols of the parallel API instead of a WSGI application, or
                           NULL. Constant. */

    /* Who leads: generation << 1 | "is inside the application". Atomic; see wsgi_lead.c. */
    uint64_t lead;
    struct pp_wsgi_worker *leader; /* atomic; borrowed: whose generation it is */
    bool watch_asleep;             /* atomic */
    int eager;                     /* atomic: how much calls have waited lately */
    bool stop_requested;           /* atomic */
    bool hop_by_hop_told;          /* atomic: the application sets headers of the server's */
    bool done;                     /* atomic: the leader found everything drained, or failed */

    pthread_mutex_t mutex; /* short sections only, never while calling Python */
    struct pp_wsgi_worker *parked;
    uint32_t worker_count, live_count; /* started (atomic, too); not ended */
    bool stopping;                     /* parked threads end */
    bool ended;         /* nobody leads any more: what is asked of connections fails */
    bool manager_leads; /* a thread that parks makes the manager hand over */
    bool running;       /* run_wsgi was called; before, nothing is asked of connections */
    bool forked;        /* this process was forked by one of the threads (forked.c). Set once,
                           before there is another thread */
    struct pp_wsgi_worker manager;
    uint64_t spawn_after_us;         /* not to start a thread before, as the last could not be
                                        started; 0 = it could. Manager only. */
    struct pp_wsgi_worker **workers; /* owned; threads_max entries, filled as threads start */
    struct pp_wsgi_op *heads_op;     /* owned: HEADS */
    bool heads_asked;                /* atomic: it is posted */

    /* Leader only. */
    struct pp_list waiting;          /* pp_wsgi_pending whose body is on its way */
    struct pp_list ready;            /* pp_wsgi_pending that may run */
    uint64_t ready_since_ms;         /* when it was last empty; 0: it is. Read by any thread */
    struct pp_list streams_waiting;  /* pp_wsgi_pending whose body is read by the application, once
                                        not too many do */
    uint32_t streams;                /* with the application, or about to be */
    size_t gathered_bytes;           /* allocated for bodies in `waiting` and `ready` */
    struct pp_list transports_ready; /* PpTransport with events, which nobody runs yet */
    struct pp_list transports_left;  /* those the end found; a reference each, dropped attached */
    struct pp_msg *spent;            /* messages of CLOSE, done: their transports are dropped */
    int failure;                     /* PP_ERR code of a loop that failed */
    PyObject *interruption; /* owned exception of a signal handler, or NULL; manager only */
};

/* What pp_conn_app points to starts with this. */
struct pp_wsgi_slot {
    enum pp_wsgi_slot_kind { PP_WSGI_PENDING = 1, PP_WSGI_CALL, PP_WSGI_TRANSPORT } kind;
};

/* A request's body as far as it has been awaited: in memory, or in w->spool (`spooled`). */
struct pp_wsgi_body {
    union {
        uint8_t *data;          /* owned (pp_mem) or NULL */
        struct pp_spool *spool; /* owned */
    };
    size_t len, cap; /* cap: allocated for data */
    bool streams;    /* more follows: the application reads it from the connection */
    bool spooled;
};

/* A request that is not with the application yet. Leader only; allocated by pp_mem. */
struct pp_wsgi_pending {
    struct pp_wsgi_slot slot; /* first */
    struct pp_list link;
    struct pp_conn *conn; /* borrowed */
    struct pp_wsgi *w;    /* borrowed */
    struct pp_wsgi_body body;
    size_t body_max; /* up to which it grows */
    bool whole;      /* nothing more is awaited */
    bool admitted;   /* counts among w->streams */
};

struct pp_wsgi_op;

/* Of a call that start_response has given a head (`headers`) which no piece has followed yet. */
enum pp_wsgi_head {
    PP_WSGI_HEAD_OPEN, /* the leader may send it */
    PP_WSGI_HEAD_SENT, /* it did: its contents stay until the call is over */
    PP_WSGI_HEAD_KEPT  /* it may not: the application replaces it, or it cannot be sent */
};

typedef struct PpWsgiCall {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PpCore *core;                   /* owned */
    struct pp_wsgi *w;              /* counted */
    struct pp_wsgi_worker *worker;  /* borrowed from w: the thread it runs on */
    PyObject *headers;              /* atomic; owned tuple of what start_response was given, or
                                       NULL; set after all that describes it */
    PyObject *status_text;          /* owned str or NULL */
    struct pp_h1_out_field *fields; /* inline_fields or PyMem; text borrowed from headers */
    size_t field_count;
    uint64_t length, sent; /* Content-Length of the application, if has_length; body bytes so far */
    int status;
    bool has_length, head_sent, surplus, failed;
    bool gone;        /* atomic: the peer has left, or shut its side after the response began */
    bool output_busy; /* atomic: start_response, write or the iteration is at work */
    bool ended;       /* the request is over: what is left of it fails. Atomic. */
    uint8_t head;     /* atomic enum pp_wsgi_head: who may do what with the head */

    /* Leader only. */
    struct pp_wsgi_slot slot;  /* pp_conn_app points here */
    struct pp_conn *conn;      /* borrowed; NULL after finish */
    bool streams;              /* counts among w->streams */
    uint32_t head_ms;          /* since when its head has waited for a piece; 0 = not seen to */
    struct pp_wsgi_op *in_op;  /* waits for body bytes, or NULL */
    struct pp_wsgi_op *out_op; /* waits for the output to drain, or NULL */

    struct pp_h1_out_field inline_fields[PP_WSGI_FIELDS_INLINE];
} PpWsgiCall;

enum pp_wsgi_op_kind {
    PP_WSGI_OP_RESPOND, /* head and first or only piece */
    PP_WSGI_OP_SEND,    /* a further piece */
    PP_WSGI_OP_READ,    /* at least one byte of the body, its end, or its failure */
    PP_WSGI_OP_FAIL,    /* 500 or a visible break */
    PP_WSGI_OP_FINISH,  /* let go of the connection */
    PP_WSGI_OP_SETTLE,  /* a transport: what its callbacks left to do */
    PP_WSGI_OP_CLOSE,   /* a transport: close() from outside of its callbacks; nobody waits */
    PP_WSGI_OP_HEAD,    /* a transport: a copy of its request's head, allocated by pp_mem */
    PP_WSGI_OP_HEADS,   /* heads that have waited for long; nobody waits */
    PP_WSGI_OP_BRING    /* a connection that was made elsewhere */
};

struct pp_par_turn;

struct pp_wsgi_op {
    struct pp_msg msg; /* first: a message is an op */
    struct pp_park park;
    PpWsgiCall *call;              /* borrowed from who waits; or... */
    struct PpTransport *transport; /* ...borrowed likewise (CLOSE: owned), with... */
    struct pp_par_turn *turn;      /* ...what to settle */
    struct pp_wsgi *w;             /* BRING, HEADS: borrowed likewise */
    int fd;                        /* BRING: the loop's from now on, if rc is PP_OK... */
    uint16_t tag;                  /* ...as one of that listener */
    enum pp_wsgi_op_kind kind;
    /* RESPOND and SEND */
    struct pp_h1_response *response; /* borrowed */
    const uint8_t *data;             /* borrowed, kept alive by owner */
    size_t len;
    PyObject *owner; /* borrowed bytes object or NULL */
    bool more;       /* pieces follow: wait for room before the next */
    bool borrowed;   /* out: a reference to owner now belongs to the loop */
    bool closed;     /* out: the peer is gone */
    /* READ; HEAD: dst is allocated for it, of cap bytes, and the caller's; NULL: no memory */
    uint8_t *dst; /* borrowed */
    size_t cap, got;
    bool eof; /* out: no bytes behind these */
    int rc;   /* out: PP_OK or a code of the error table */
};

/* wsgi.c */
extern PyMethodDef pp_wsgi_methods[]; /* serve_wsgi, serve_parallel, run_wsgi: Core's, too */
void pp_wsgi_ref(struct pp_wsgi *w);
void pp_wsgi_unref(struct pp_wsgi *w); /* attached */
/* Drops the references in transports_left, and those of `spent`. Attached; may run code of the
 * application. */
void pp_wsgi_drop_left(struct pp_wsgi *w);
/* Runs the application for the request on conn. body is owned by it. Attached; never raises. */
void pp_wsgi_run(struct pp_wsgi *w, struct pp_wsgi_worker *self, struct pp_conn *conn,
                 struct pp_wsgi_body body);

/* Gives back what body holds, once nobody reads it. Any thread. */
void pp_wsgi_body_drop(struct pp_wsgi_body *body);

/* wsgi_lead.c: who leads. */
/* Leaves the loop alone and goes into the application. The thread leads. */
void pp_wsgi_lead_leave(struct pp_wsgi_worker *self);
/* Back from the application: true if the thread still leads and may touch the loop. */
bool pp_wsgi_lead_enter(struct pp_wsgi_worker *self);
/* Back into the same call after pp_wsgi_lead_enter. */
void pp_wsgi_lead_exit(struct pp_wsgi_worker *self);
/* Makes another thread the leader. The thread leads and is not inside the application. */
void pp_wsgi_lead_hand_over(struct pp_wsgi_worker *self);
/* True if a thread is parked, so that hand-over costs nobody's turn. */
bool pp_wsgi_lead_spare(struct pp_wsgi *w);
/* The calling thread if it is one of ours, or NULL. */
struct pp_wsgi_worker *pp_wsgi_lead_self(void);
/* From the loop into the application; the lead goes to a parked thread first if there is one and
 * calls have waited lately, or always. */
void pp_wsgi_lead_go(struct pp_wsgi_worker *self, bool always, struct pp_wsgi_trip *trip);
/* The application is done; what is left to be sent may take its time. */
void pp_wsgi_lead_called(struct pp_wsgi_worker *self, struct pp_wsgi_trip *trip);
/* All is done. leads: never lost the lead. */
void pp_wsgi_lead_back(struct pp_wsgi_worker *self, const struct pp_wsgi_trip *trip, bool leads);
void pp_wsgi_lead_attach(struct pp_wsgi_worker *self); /* harmless when attached */
void pp_wsgi_lead_detach(struct pp_wsgi_worker *self);
/* Once, before the first thread. */
void pp_wsgi_lead_prepare(void);
/* The calling thread is that worker from now on; who it was before. */
struct pp_wsgi_worker *pp_wsgi_lead_bind(struct pp_wsgi_worker *self);
/* A parked thread, which is not parked any more, or NULL. */
struct pp_wsgi_worker *pp_wsgi_lead_pop_locked(struct pp_wsgi *w);
/* target is to take over; `lead` is the caller's to change. */
void pp_wsgi_lead_appoint_locked(struct pp_wsgi *w, struct pp_wsgi_worker *target);
/* The manager: takes the lead from a leader that is inside the application since `word`. */
bool pp_wsgi_lead_steal(struct pp_wsgi *w, uint64_t word, bool for_manager);
/* True: the thread had been appointed, and leads now. */
bool pp_wsgi_lead_take(struct pp_wsgi_worker *self);
bool pp_wsgi_lead_take_locked(struct pp_wsgi_worker *self);
/* A call waited, or did not: decides whether the next ones are taken to wait. Any thread. */
void pp_wsgi_lead_learn(struct pp_wsgi *w, bool waits);
/* Leads until the lead is lost or given away; the manager returns with it (word != 0) when it is
 * time to end. Begins and ends detached. */
void pp_wsgi_lead_turn(struct pp_wsgi_worker *self);
/* Drops what the loop has no more use for, which may run code of the application. Leader; attaches
 * if there is something. False: leadership lost. */
bool pp_wsgi_lead_release(struct pp_wsgi_worker *self);
/* Leader, attached: drops a reference, or reports the raised exception, as above. May lose the
 * lead: self->word tells. */
void pp_wsgi_lead_drop(struct pp_wsgi_worker *self, PyObject *object);
void pp_wsgi_lead_report(struct pp_wsgi_worker *self);
/* Runs signal handlers (a no-op where run_wsgi is not on the main thread). Manager. */
void pp_wsgi_lead_signals(struct pp_wsgi_worker *manager);

/* Wakes the manager if it sleeps: there is something to watch. Any thread. */
void pp_wsgi_lead_wake_watch(struct pp_wsgi *w);

/* wsgi_head.c: heads whose first piece does not come. */
/* The call's result is asked for pieces from now on, or not any more. Its thread. */
void pp_wsgi_head_begin(PpWsgiCall *call);
void pp_wsgi_head_end(PpWsgiCall *call);
/* Whether the head is on its way to the client; then, after the first time, in call->head_sent. The
 * application's thread. */
bool pp_wsgi_head_sent(PpWsgiCall *call);
/* The application replaces the head: false if it is sent. After true the leader leaves it alone
 * until pp_wsgi_head_reopen, which comes after the new one is there. */
bool pp_wsgi_head_keep(PpWsgiCall *call);
void pp_wsgi_head_reopen(PpWsgiCall *call);
/* Whether there are calls to look after. Manager or leader. */
bool pp_wsgi_head_any(struct pp_wsgi *w);
/* Sends heads that have waited for PP_WSGI_HEAD_MS. Leader. */
void pp_wsgi_head_send_due(struct pp_wsgi *w);

/* wsgi_threads.c: threads, and the manager. */
/* The body of run_wsgi: starts threads, watches, ends. -1 with an exception. */
int pp_wsgi_threads_run(struct pp_wsgi *w);
/* Manager, detached: keeps one thread parked while the limit allows. */
void pp_wsgi_threads_keep_spare(struct pp_wsgi *w);

/* wsgi_op.c: what is done to connections. */
/* Carries out op for its call, from any thread; returns when it is done. Attached. */
void pp_wsgi_op_run(struct pp_wsgi_op *op);
/* Leader: a call whose body was on its way has ended, and another may begin. */
void pp_wsgi_op_stream_ended(struct pp_wsgi *w);
/* An answer of our own for a request that is not with the application; leader. */
void pp_wsgi_op_answer(struct pp_conn *conn, int status);
/* Posts op, which names a transport, and waits; false if nobody leads any more. Attached. */
bool pp_wsgi_op_ask(struct pp_wsgi *w, struct pp_wsgi_op *op);
/* Posts CLOSE for a transport and goes on: from any thread, wherever it is. Attached; -1 with an
 * exception. */
int pp_wsgi_op_post_close(struct pp_wsgi *w, struct PpTransport *transport);
/* Asks the leader for pp_wsgi_head_send_due, unless it has been asked already. Manager. */
void pp_wsgi_op_post_heads(struct pp_wsgi *w);
/* Leader: a transport that was closed so, the reference is the caller's; or NULL. */
void *pp_wsgi_op_take_spent(struct pp_wsgi *w);
/* FINISH for the call's own thread: true if it still leads. */
bool pp_wsgi_op_finish(PpWsgiCall *call);
/* Leader: requests and events that are there. Returns false when the leadership was lost or given
 * away on the way. May attach. */
bool pp_wsgi_op_serve(struct pp_wsgi_worker *self);
void pp_wsgi_op_messages(struct pp_wsgi *w); /* leader */
void pp_wsgi_op_abandon(struct pp_wsgi *w);  /* the end: lets go of every connection */

extern PyType_Spec pp_wsgi_input_spec, pp_wsgi_start_spec, pp_file_wrapper_spec;

/* wsgi_environ.c */
int pp_wsgi_environ_setup(PpCore *core, struct pp_wsgi *w, int multiprocess);
/* body: as far as it has been awaited. */
PyObject *pp_wsgi_environ_new(PpCore *core, struct pp_wsgi *w, struct pp_conn *conn,
                              PyObject *input, const struct pp_wsgi_body *body);
void pp_wsgi_environ_fini(struct pp_wsgi_consts *k);
int pp_wsgi_environ_visit(struct pp_wsgi_consts *k, visitproc visit, void *arg);

/* wsgi_response.c */
PpWsgiCall *pp_wsgi_call_new(PpCore *core, struct pp_wsgi *w, struct pp_wsgi_worker *self,
                             struct pp_conn *conn);
/* What the application's head says, for a body that begins with len bytes. Calls no Python; on any
 * thread that has the right to read the head. */
void pp_wsgi_fill_response(const PpWsgiCall *call, struct pp_h1_response *r, size_t len, bool more);
/* Calls the application and answers with what it gives. Never raises. */
void pp_wsgi_respond(PpWsgiCall *call, PyObject *env);
/* Nothing more is sent: drops what the application gave, unless it holds the call itself. */
void pp_wsgi_call_spent(PpWsgiCall *call);

/* wsgi_fail.c */
/* The raised exception ends the request: reports it and answers. Never raises. */
void pp_wsgi_fail(PpWsgiCall *call, PyObject *env);

/* wsgi_input.c */
/* A wsgi.input of `body` (which is taken over, also on failure), and with a call of what comes on
 * its connection behind that. */
PyObject *pp_wsgi_input_new(struct pp_wsgi *w, PpWsgiCall *call, PpState *state,
                            struct pp_wsgi_body body);

/* wsgi_file.c */
/* The wrapped file of a file_wrapper object (borrowed) and its block size; NULL if it is none. */
PyObject *pp_wsgi_file_of(PpState *state, PyObject *wrapper, Py_ssize_t *block_bytes);

#endif
