/* The connection as conn.c, conn_in.c and conn_out.c see it; nobody else includes this. */
#ifndef PP_NET_CONN_IMPL_H
#define PP_NET_CONN_IMPL_H

#include "net/conn.h"
#include "net/loop_impl.h"

#define PP_CONN_MAGIC 0x9e11c044u
#define PP_CONN_READS_MAX 8         /* recv calls for one connection per turn */
#define PP_CONN_WRITE_BYTES 1048576 /* and bytes written */
#define PP_RATE_PARTS 4             /* of a second: the most that a rate lets go at once */

/* clang-format off */
/* X(state, BYTES, REQUEST, REUSE, LAST, SHUT, GONE): what each event leads to; NO = must not be. */
#define PP_CONN_STATES(X)                                                                          \
    X(IDLE, HEAD, NO, NO, CLOSE, NO, DEAD)          /* between requests: no input block */         \
    X(HEAD, HEAD, SERVE, NO, CLOSE, NO, DEAD)       /* a part of a head is here, or set aside */   \
    X(SERVE, NO, NO, IDLE, CLOSE, LINGER, DEAD)     /* the application has the request */          \
    X(CLOSE, NO, NO, NO, CLOSE, LINGER, DEAD)       /* the last output is on its way */            \
    X(LINGER, NO, NO, NO, NO, NO, DEAD)             /* our side is shut; input is dropped */       \
    X(RAW, NO, NO, NO, CLOSE, NO, DEAD)             /* bytes for the application, both ways */     \
    X(DEAD, NO, NO, NO, NO, NO, NO)                 /* no socket any more */
/* clang-format on */

enum pp_conn_state {
#define PP_CONN_ENUM_(state, ...) PP_CONN_##state,
    PP_CONN_STATES(PP_CONN_ENUM_)
#undef PP_CONN_ENUM_
        PP_CONN_NO
};
enum pp_conn_step {
    PP_CONN_ON_BYTES,   /* the first bytes of a request */
    PP_CONN_ON_REQUEST, /* its head is whole */
    PP_CONN_ON_REUSE,   /* it is answered and the connection goes on */
    PP_CONN_ON_LAST,    /* nothing will follow the output that is queued */
    PP_CONN_ON_SHUT,    /* that output is written, but unread input may be on its way */
    PP_CONN_ON_GONE,    /* the socket is closed */
    PP_CONN_STEPS
};

struct pp_conn {
    uint32_t magic;
    int fd;
    struct pp_loop *loop;  /* borrowed */
    struct pp_list all;    /* pp_loop.conns */
    struct pp_list life;   /* pp_loop.fresh, .dead or .users */
    struct pp_list ready;  /* pp_loop.ready: events waits to be taken */
    struct pp_list dirty;  /* pp_loop.dirty: output waits to be written */
    struct pp_list resume; /* pp_loop.resume: input can be gone on with */
    struct pp_timer timer; /* fires at or before the earlier of the two deadlines */
    uint64_t read_due_ms;  /* 0 = none; what it means depends on the state */
    uint64_t write_due_ms; /* 0 = none; moves with every progress of queued output */
    uint64_t head_due_ms;  /* 0 = none; when HEAD is raised, if the response has not begun */
    uint64_t rate_due_ms;  /* 0 = none; when the rate lets more output go */
    uint64_t rate_ms;      /* when rate_left was reckoned */
    uint32_t rate;         /* bytes of output a second; 0 = no limit */
    uint32_t rate_left;    /* bytes that may go now */
    uint64_t id;
    uint64_t requests;
    uint64_t batch_turn; /* the turn that batch_requests counts for */

    struct pp_block *in;           /* owned; from the first byte of a request to its end */
    uint32_t in_start;             /* first byte of this request */
    uint32_t body_floor;           /* end of its head: body bytes are moved down to here */
    uint32_t body_start, body_end; /* decoded and not consumed */
    uint32_t raw_start, in_end;    /* received and not decoded */
    uint8_t *aside;                /* owned; in HEAD instead of `in`: the first bytes of a head */
    size_t aside_bytes;

    struct pp_out *out_head, *out_tail; /* owned */
    uint64_t out_bytes;
    struct pp_file_job *reading; /* borrowed; output waits for this chunk of a file */

    void *app, *user; /* borrowed */
    struct pp_h1_conn h1;
    int error;
    uint32_t linger_bytes;
    uint32_t unsent; /* what the kernel held when the socket was last found full */
    uint32_t batch_requests;
    uint32_t active_round; /* pp_balance.round when it last had a request */
    uint16_t status;
    uint8_t state;                     /* enum pp_conn_state; written by pp_conn_step only */
    uint8_t events;                    /* PP_EV_* not yet taken */
    uint16_t tag;                      /* of its listener */
    uint32_t idle_ms;                  /* raw: when IDLE is raised; 0: never */
    uint8_t receive_again, send_again; /* raw: attempts, as set... */
    uint8_t receive_again_left, send_again_left; /* ...and left until something moves */

    bool readable : 1; /* no recv has said "empty" since the last edge */
    bool writable : 1;
    bool peer_shut : 1;   /* EPOLLRDHUP or EPOLLHUP was reported: read until 0 */
    bool eof : 1;         /* recv gave 0 */
    bool registered : 1;  /* with epoll */
    bool held : 1;        /* by the application: REQUEST raised, finish not called */
    bool want : 1;        /* the application waits for body */
    bool full_told : 1;   /* pp_conn_out_full was true: DRAINED is owed */
    bool closed : 1;      /* CLOSED was raised */
    bool eof_told : 1;    /* EOF was raised for this request */
    bool peer_last : 1;   /* the peer itself said that this is its last request */
    bool settled : 1;     /* the application takes no more of the body: see pp_conn_body_settle */
    bool linger : 1;      /* unread input may be there when we close */
    bool reset : 1;       /* the end must not look orderly */
    bool ends : 1;        /* pp_conn_end: after the next answer */
    bool stays : 1;       /* pp_conn_stay */
    bool ours : 1;        /* raw: we have closed it */
    bool chunk_read : 1;  /* the next chunk of the file has been read: send it without a look */
    bool trust_known : 1; /* whether the peer's forwarded fields count has been found out: */
    bool trusted : 1;
    bool finish_due : 1; /* raw: FINISHED is owed once the output is written */

    union pp_sock_addr peer, local;
};

static_assert(sizeof(struct pp_conn) <= 512, "an idle connection is this struct alone");

#define PP_CONN_ENTER(conn) \
    do { \
        PP_CHECK((conn)->magic == PP_CONN_MAGIC); \
        PP_ASSERT(pthread_equal((conn)->loop->owner, pthread_self())); \
    } while (0)

/* ---- conn.c ---- */
extern const uint8_t pp_conn_next[PP_CONN_NO][PP_CONN_STEPS];    /* enum pp_conn_state */
void pp_conn_step(struct pp_conn *conn, enum pp_conn_step step); /* the only writer of state */
void pp_conn_raise(struct pp_conn *conn, unsigned events);       /* to the application */
void pp_conn_resume_later(struct pp_conn *conn);
/* It may change its context now: it is between requests, and nothing of it is here. */
bool pp_conn_may_leave(const struct pp_conn *conn);
bool pp_conn_active(const struct pp_conn *conn); /* it had a request since the last look */
/* Hands it to the context in that slot; false: it could not be, and is as before. */
bool pp_conn_hand_over(struct pp_conn *conn, unsigned slot);
/* Deadlines; 0 = none. */
void pp_conn_read_due(struct pp_conn *conn, uint32_t after_ms);
void pp_conn_write_due(struct pp_conn *conn, uint32_t after_ms);
void pp_conn_rate_due(struct pp_conn *conn, uint32_t after_ms);
/* Closes the socket now; reset as in pp_sock_end. The application, if it has the connection, gets
 * CLOSED with `code` as the reason; the struct lives on until it lets go. */
void pp_conn_kill(struct pp_conn *conn, int code, bool reset);
/* The peer has gone: killed, and counted if an answer was due. */
void pp_conn_lost(struct pp_conn *conn);
/* All output is written: shut down, linger or close when it was the last. */
void pp_conn_flushed(struct pp_conn *conn);

/* ---- conn_in.c ---- */
void pp_conn_read(struct pp_conn *conn);
/* Starts the request whose first bytes are in the block behind the finished one. */
void pp_conn_read_next(struct pp_conn *conn);
/* The response is complete while a body is left for pp_conn_body_take: what is here of it is read,
 * if that may be all, so that the connection can be used again. */
void pp_conn_body_settle(struct pp_conn *conn);
/* Room for input; NULL: no memory. */
struct pp_block *pp_conn_block_new(struct pp_loop *loop, size_t cap);
void pp_conn_block_drop(struct pp_conn *conn);
/* Receives up to `room` bytes to `to`. PP_OK: *got > 0. PP_AGAIN: nothing more now. DISCONNECTED:
 * also at the peer's end of stream, then with conn->eof. */
int pp_conn_receive(struct pp_conn *conn, uint8_t *to, size_t room, size_t *got) PP_MUST_USE;
/* Kills the connection, counted; what a lack of memory for its input leads to. */
void pp_conn_no_memory(struct pp_conn *conn);
/* An error of the peer between requests or in a head: answers with its status, if it has one. */
void pp_conn_refuse(struct pp_conn *conn, int code, int status);
static inline uint32_t pp_conn_leftover(const struct pp_conn *conn)
{
    return conn->in == NULL ? 0 : conn->in_end - conn->raw_start;
}

/* ---- conn_out.c ---- */
void pp_conn_flush(struct pp_conn *conn);
void pp_conn_out_drop(struct pp_conn *conn);
void pp_conn_mark_dirty(struct pp_conn *conn);
int pp_conn_out_copy(struct pp_conn *conn, const void *data, size_t len) PP_MUST_USE;
/* Bytes for the queue: borrowed when they are many and have an owner, else copied. */
int pp_conn_out_bytes_of(struct pp_conn *conn, const uint8_t *data, size_t len, void *owner,
                         bool *borrowed) PP_MUST_USE;
/* A range of a file; takes the reference over in any case. */
int pp_conn_out_file(struct pp_conn *conn, struct pp_file *file, uint64_t at,
                     uint64_t len) PP_MUST_USE;
/* A whole error answer; the response side of the machine is done afterwards. */
void pp_conn_out_error(struct pp_conn *conn, int status);

/* ---- conn_raw.c ---- */
void pp_conn_raw_open(struct pp_conn *conn);
void pp_conn_raw_read(struct pp_conn *conn);
void pp_conn_raw_flushed(struct pp_conn *conn); /* after a flush, with whatever is left */
void pp_conn_raw_due(struct pp_conn *conn);     /* its read deadline has passed */

#endif
