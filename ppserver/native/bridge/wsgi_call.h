/* What the files of the WSGI bridge share (see wsgi.c for how they work together).
 *
 *   struct pp_wsgi     one per context, on the executor (lead.h) and its queue of requests
 * (queue.h) PpWsgiCall         one per request with the application; also the `start_response`
 * callable struct pp_wsgi_op  something a call wants from its connection; lives on the waiting
 * stack */
#ifndef PP_BRIDGE_WSGI_CALL_H
#define PP_BRIDGE_WSGI_CALL_H

#include "bridge/lead_base.h"
#include "bridge/queue.h"

#define PP_WSGI_JOIN_BYTES 65536 /* a list of pieces up to this is sent as one */
#define PP_WSGI_FIELDS_INLINE 24
#define PP_WSGI_CAUSES_MAX 8     /* how far back an exception's causes are looked at */
#define PP_WSGI_FILE_BYTES 65536 /* what is read at a time from a wrapped file */
/* A head that waits for its first piece is sent after once or twice this: when it is looked for. */
#define PP_WSGI_HEAD_MS PP_LEAD_CHORE_MS

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

struct pp_wsgi {
    struct pp_lead lead; /* first */
    struct pp_queue queue;
    struct pp_wsgi_consts k;
    bool hop_by_hop_told; /* atomic: the application sets headers of the server's */
};

static inline struct pp_wsgi *pp_wsgi_of(struct pp_lead *lead)
{
    return PP_CONTAINER(lead, struct pp_wsgi, lead);
}

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
    PpCore *core;                  /* owned */
    struct pp_wsgi *w;             /* counted */
    struct pp_lead_worker *worker; /* borrowed from w: the thread it runs on */
    PyObject *headers;             /* atomic; owned tuple of what start_response was given, or
                                      NULL; set after all that describes it */
    PyObject *status_text;         /* owned str or NULL */
    struct pp_out_field *fields;   /* inline_fields or PyMem; text borrowed from headers */
    size_t field_count;
    uint64_t length, sent; /* Content-Length of the application, if has_length; body bytes so far */
    int status;
    bool has_length, head_sent, surplus, failed;
    bool gone;        /* atomic: the peer has left, or shut its side after the response began */
    bool output_busy; /* atomic: start_response, write or the iteration is at work */
    bool ended;       /* the request is over: what is left of it fails. Atomic. */
    uint8_t head;     /* atomic enum pp_wsgi_head: who may do what with the head */

    /* Leader only. */
    struct pp_queue_slot slot; /* pp_exchange_app points here */
    struct pp_exchange *ex;    /* borrowed; NULL after finish */
    bool streams;              /* counts among w->queue.streams */
    uint32_t head_ms;          /* since when its head has waited for a piece; 0 = not seen to */
    struct pp_wsgi_op *in_op;  /* waits for body bytes, or NULL */
    struct pp_wsgi_op *out_op; /* waits for the output to drain, or NULL */

    struct pp_out_field inline_fields[PP_WSGI_FIELDS_INLINE];
} PpWsgiCall;

enum pp_wsgi_op_kind {
    PP_WSGI_OP_RESPOND, /* head and first or only piece */
    PP_WSGI_OP_SEND,    /* a further piece */
    PP_WSGI_OP_READ,    /* at least one byte of the body, its end, or its failure */
    PP_WSGI_OP_FAIL,    /* 500 or a visible break */
    PP_WSGI_OP_FINISH   /* let go of the connection */
};

struct pp_wsgi_op {
    struct pp_lead_op op; /* first */
    PpWsgiCall *call;     /* borrowed from who waits */
    enum pp_wsgi_op_kind kind;
    bool more;     /* pieces follow: wait for room before the next */
    bool borrowed; /* out: a reference to owner now belongs to the loop */
    bool closed;   /* out: the peer is gone */
    bool eof;      /* out: no bytes behind these */
    int rc;        /* out: PP_OK or a code of the error table */
    /* RESPOND and SEND */
    struct pp_response *response; /* borrowed */
    const uint8_t *data;          /* borrowed, kept alive by owner */
    size_t len;
    PyObject *owner; /* borrowed bytes object or NULL */
    /* READ */
    uint8_t *dst; /* borrowed */
    size_t cap, got;
};

#endif
