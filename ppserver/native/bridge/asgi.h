/* One ASGI request's state, for the two files that move it: asgi.c and asgi_receive.c. */
#ifndef PP_BRIDGE_ASGI_H
#define PP_BRIDGE_ASGI_H

#include "bridge/bridge.h"

enum req_state { REQ_START, REQ_HEAD, REQ_BODY, REQ_COMPLETE };

struct PpRequest {
    PyObject_HEAD
    vectorcallfunc vectorcall; /* send(message) */
    PpCore *core;              /* owned */
    struct pp_conn *conn;      /* borrowed; NULL when the connection is not ours any more */
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
};

/* The receive callable of a request; NULL with an exception. */
PyObject *pp_receive_new(PpCore *core, PpRequest *req);

#endif
