/* Requests that are not with the application yet: those whose body is awaited, and those that wait
 * for a thread (lead.h).
 *
 * Most requests never wait here: a thread that leads runs them at once. Only the leader calls these
 * functions, attached or not, unless they say so. */
#ifndef PP_BRIDGE_QUEUE_H
#define PP_BRIDGE_QUEUE_H

#include "bridge/lead_base.h"
#include "net/spool.h"

#define PP_QUEUE_GATHER_MAX \
    (1u << 20) /* a body up to this is awaited in memory before the application runs... */
#define PP_QUEUE_GATHER_BYTES \
    65536 /* ...and takes memory by and by, this much of a known one first... */
#define PP_QUEUE_GATHER_FIRST 4096 /* ...and this much of a chunked one */
#define PP_QUEUE_GATHER_TOTAL \
    (64u << 20) /* bytes of awaited bodies in a context; beyond none is awaited */

/* A request's body as far as it has been awaited: in memory, or in the queue's file (`spooled`). */
struct pp_queue_body {
    union {
        uint8_t *data;          /* owned (pp_mem) or NULL */
        struct pp_spool *spool; /* owned */
    };
    size_t len, cap; /* cap: allocated for data */
    /* What came behind the bytes of a file that took no more: owned (pp_mem) or NULL. */
    uint8_t *rest;
    size_t rest_len, rest_cap;
    bool streams; /* more follows: the application reads it from the connection */
    bool spooled;
};

/* What pp_exchange_app points to starts with this: a request of the queue, or something of the
 * user. */
struct pp_queue_slot {
    bool queued;
};

struct pp_queue {
    struct pp_lead *lead; /* borrowed */
    /* Runs the application for the request on ex. What body has is taken over; NULL: there is
     * none. Attached; never raises. May lose the lead: self->word tells. */
    void (*run)(struct pp_lead_worker *self, struct pp_exchange *ex, struct pp_queue_body *body);
    bool whole;                  /* it gets whole bodies; one beyond PP_QUEUE_GATHER_MAX is a 413 */
    struct pp_spool_file *spool; /* owned: for large bodies, or NULL. Constant. */
    uint32_t streams_max;        /* threads that may be with requests whose body is on its way */
    struct pp_list waiting;      /* pp_queued whose body is on its way */
    struct pp_list ready;        /* pp_queued that may run */
    struct pp_list streams_waiting; /* pp_queued whose body is read by the application, once not too
                                       many do */
    uint32_t streams;               /* with the application, or about to be */
    size_t gathered_bytes;          /* allocated for bodies in the lists */
};

/* For the threads of lead. whole: see above. */
void pp_queue_init(struct pp_queue *q, struct pp_lead *lead, bool whole,
                   void (*run)(struct pp_lead_worker *self, struct pp_exchange *ex,
                               struct pp_queue_body *body));
void pp_queue_fini(struct pp_queue *q);
/* ex has a new request: runs the application, or awaits its body, or a thread. May attach. False:
 * leadership lost. */
bool pp_queue_request(struct pp_queue *q, struct pp_lead_worker *self, struct pp_exchange *ex);
/* Events of a queued request. Same result. */
bool pp_queue_event(struct pp_lead_worker *self, struct pp_queue_slot *slot, unsigned events);
/* Runs what is ready, as long as a batch goes on; not on the manager. Same result. */
bool pp_queue_run_ready(struct pp_queue *q, struct pp_lead_worker *self);
bool pp_queue_has_ready(const struct pp_queue *q);
/* A request whose body was on its way has ended, and another may begin. */
void pp_queue_stream_ended(struct pp_queue *q);
/* The end: refuses a queued request. */
void pp_queue_abandon(struct pp_queue_slot *slot);
/* An answer of our own for a request that is not with the application. */
void pp_queue_answer(struct pp_exchange *ex, int status);
/* Gives back what body holds, once nobody reads it. Any thread. */
void pp_queue_body_drop(struct pp_queue_body *body);

#endif
