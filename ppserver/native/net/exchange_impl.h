/* Exchanges as protocols see them; the application side knows exchange.h alone. */
#ifndef PP_NET_EXCHANGE_IMPL_H
#define PP_NET_EXCHANGE_IMPL_H

#include "base/list.h"
#include "net/exchange.h"

struct pp_conn;

/* What a protocol does for the functions of exchange.h with the same names (contracts: there).
 * Those that may be NULL have no meaning for it; then the function does what its comment here says.
 */
struct pp_exchange_ops {
    const struct pp_head *(*head)(const struct pp_exchange *ex, const uint8_t **base); /* or NULL */
    const union pp_sock_addr *(*client)(const struct pp_exchange *ex); /* NULL: the peer */
    bool (*client_https)(const struct pp_exchange *ex);                /* NULL: false */
    bool (*client_varies)(const struct pp_exchange *ex);               /* NULL: false */
    enum pp_body_status (*peek)(struct pp_exchange *ex, const uint8_t **data, size_t *len);
    void (*consume)(struct pp_exchange *ex, size_t len);
    size_t (*ahead)(const struct pp_exchange *ex); /* NULL: 0, and then no take either */
    enum pp_body_status (*take)(struct pp_exchange *ex, uint8_t *to, size_t room, size_t *len);
    void (*want)(struct pp_exchange *ex); /* NULL: BODY comes unasked */
    int (*respond)(struct pp_exchange *ex, struct pp_response *r, const uint8_t *data, size_t len,
                   void *owner, bool *borrowed);
    int (*send)(struct pp_exchange *ex, const uint8_t *data, size_t len, bool more, void *owner,
                bool *borrowed);
    int (*send_file)(struct pp_exchange *ex, struct pp_file *file, uint64_t at, uint64_t len);
    int (*informational)(struct pp_exchange *ex, int status, const struct pp_out_field *fields,
                         size_t count);
    int (*tunnel)(struct pp_exchange *ex, const char *protocol, const struct pp_out_field *fields,
                  size_t count); /* NULL: it cannot */
    enum pp_progress (*progress)(const struct pp_exchange *ex);
    bool (*out_full)(const struct pp_exchange *ex);
    void (*head_wait)(struct pp_exchange *ex);        /* NULL: nothing */
    void (*fail)(struct pp_exchange *ex, int status); /* NULL: nothing */
    void (*abandon)(struct pp_exchange *ex);          /* NULL: nothing */
    void (*finish)(struct pp_exchange *ex);
};

struct pp_exchange {
    const struct pp_exchange_ops *ops;
    struct pp_conn *conn; /* borrowed: by which it comes */
    struct pp_list ready; /* pp_loop.ready: events waits to be taken */
    void *app;            /* borrowed; the application side's */
    int error;            /* PP_OK, or why the request failed */
    uint16_t status;      /* of the response that has begun; 0: none */
    uint8_t events;       /* PP_EV_* not yet taken */
    bool held : 1;        /* by the application: from REQUEST to finish */
    bool want : 1;        /* the application waits for body */
    bool full_told : 1;   /* pp_exchange_out_full was true: DRAINED is owed */
    bool closed : 1;      /* CLOSED was raised */
    bool eof_told : 1;    /* EOF was raised for this request */
};

void pp_exchange_init(struct pp_exchange *ex, const struct pp_exchange_ops *ops,
                      struct pp_conn *conn);
/* The application gets it: counted, nothing of an earlier request is left. REQUEST is yet to be
 * raised. */
void pp_exchange_opened(struct pp_exchange *ex);
void pp_exchange_raise(struct pp_exchange *ex, unsigned events); /* to the application */
/* Queued output has gone down to `left` bytes. */
void pp_exchange_flushed(struct pp_exchange *ex, uint64_t left);
/* The application, if it has it, hears that it is over, unless it has never heard of the request;
 * or all the same when `said`: the peer has said something that it should get. */
void pp_exchange_gone(struct pp_exchange *ex, int code, bool said);
/* The application has let go; the protocol calls pp_conn_let_go when it is done, too. */
void pp_exchange_released(struct pp_exchange *ex);

#endif
