/* One ASGI request: its state, and what the awaitables and the worker need of it. */
#ifndef PP_BRIDGE_ASGI_H
#define PP_BRIDGE_ASGI_H

#include "bridge/core_base.h"

enum req_state { REQ_START, REQ_HEAD, REQ_BODY, REQ_COMPLETE };

typedef struct PpRequest {
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
} PpRequest;

/* What a wait is for. */
enum pp_wait_kind {
    PP_WAIT_RECEIVE,
    PP_WAIT_DRAIN,    /* a send() that waits for the peer to read */
    PP_WAIT_NOWHERE,  /* a send() after a disconnect: others go first, then it is done... */
    PP_WAIT_FAREWELL, /* ...or raises ClientDisconnected */
};
extern PyMethodDef pp_asgi_methods[]; /* serve_asgi: Core's */
extern PyType_Spec pp_request_spec, pp_receive_spec;
/* The application's coroutine ended, failed: with the raised exception set (it is consumed, except
 * that CancelledError is left raised). Answers what the application left unanswered. Returns -1
 * when an exception is left raised. */
int pp_request_app_ended(PpRequest *req, PyObject *scope, bool failed);
/* What receive() has now: 1 and a message, 0 when it has to wait, -1 with an exception. */
int pp_request_try_receive(PpRequest *req, PyObject **message);
/* The same for a send() that waits for the output to drain. */
int pp_request_try_drain(PpRequest *req, PyObject **none);
/* Where the futures of waiting receive() and send() calls are kept: pointer to a list or NULL. */
PyObject **pp_request_waiters(PpRequest *req, enum pp_wait_kind kind);
void pp_request_raise_disconnected(PpRequest *req);
/* How many turns of the loop a send() after a disconnect leaves to others. */
int pp_request_farewell_turns(PpRequest *req);
PpCore *pp_request_core(PpRequest *req);

/* The receive callable of a request; NULL with an exception. */
PyObject *pp_receive_new(PpCore *core, PpRequest *req);

#endif
