/* One ASGI request. */
#ifndef PP_BRIDGE_REQUEST_H
#define PP_BRIDGE_REQUEST_H

#include "bridge/core_base.h"

enum req_state { REQ_START, REQ_HEAD, REQ_BODY, REQ_COMPLETE };

typedef struct PpRequest {
    PyObject_HEAD
    vectorcallfunc vectorcall; /* send(message) */
    PpCore *core;              /* owned */
    struct pp_exchange *ex;    /* borrowed; NULL when the connection is not ours any more */
    PyObject *headers;         /* owned in REQ_HEAD (settle_headers), else NULL */
    PyObject *receive_waiters; /* owned list or NULL */
    PyObject *drain_waiters;   /* owned list or NULL */
    size_t sent_nowhere;       /* bytes given to send() after the disconnect */
    int status;
    uint8_t state;          /* enum req_state */
    bool body_read;         /* the last http.request message was given out */
    bool peer_eof;          /* the peer has shut down its sending side */
    bool disconnect_told;   /* receive() gave http.disconnect */
    bool disconnect_raised; /* send() raised ClientDisconnected */
    bool listened;          /* a receive() was waiting when the peer went */
    bool farewell;          /* a send() has left its turns to it */
} PpRequest;

extern PyType_Spec pp_request_spec;
/* The request that begins on ex, which holds a reference until pp_request_release; send: what
 * calls of the object do. NULL with an exception. */
PpRequest *pp_request_new(PpCore *core, struct pp_exchange *ex, vectorcallfunc send);
/* Lets go of the connection: it may begin its next request, or be freed. */
void pp_request_release(PpRequest *req);
/* The body broke a rule or a limit, and the application has heard of it as of a disconnect: the
 * answer is the server's. */
bool pp_request_body_failed(const PpRequest *req);

#endif
