/* The transport: a socket with its output queue, deadlines, addresses and life; for the files of
 * net/ alone. What the bytes mean is its protocol's affair (proto.h).
 *
 * Only the owning loop's thread calls these. An idle connection is this struct alone, from a pool.
 * Nothing is written when it is queued: the connection goes on the loop's dirty list, and the flush
 * of the next turn (or pp_loop_flush) writes head, body and pipelined answers with one system call.
 *
 *   OPEN --the last output is queued--> CLOSE --written--> LINGER --> DEAD
 *
 * (every state goes to DEAD when the peer is gone). Whether the application holds exchanges of it
 * (`holds`) is beside the state: a socket may die under a slow application. Memory is given back at
 * the start of a turn, once a connection is both DEAD and let go of. */
#ifndef PP_NET_CONN_H
#define PP_NET_CONN_H

#include "net/http1_impl.h"
#include "net/loop_impl.h"
#include "net/out.h"
#include "net/proto.h"
#include "net/raw_impl.h"
#include "net/sys.h"

#define PP_CONN_MAGIC 0x9e11c044u
#define PP_CONN_READS_MAX 8         /* recv calls for one connection per turn */
#define PP_CONN_WRITE_BYTES 1048576 /* and bytes written */
#define PP_RATE_PARTS 4             /* of a second: the most that a rate lets go at once */

/* clang-format off */
/* X(state, LAST, SHUT, GONE): what each event leads to; NO = must not be. */
#define PP_CONN_STATES(X)                                                                          \
    X(OPEN, CLOSE, LINGER, DEAD)   /* its protocol has it */                                       \
    X(CLOSE, CLOSE, LINGER, DEAD)  /* the last output is on its way; what comes stays unread */    \
    X(LINGER, NO, NO, DEAD)        /* our side is shut; input is dropped */                        \
    X(DEAD, NO, NO, NO)            /* no socket any more */
/* clang-format on */

enum pp_conn_state {
#define PP_CONN_ENUM_(state, ...) PP_CONN_##state,
    PP_CONN_STATES(PP_CONN_ENUM_)
#undef PP_CONN_ENUM_
        PP_CONN_NO
};
enum pp_conn_step {
    PP_CONN_ON_LAST, /* nothing will follow the output that is queued */
    PP_CONN_ON_SHUT, /* that output is written, but unread input may be on its way */
    PP_CONN_ON_GONE, /* the socket is closed */
    PP_CONN_STEPS
};
extern const uint8_t pp_conn_next[PP_CONN_NO][PP_CONN_STEPS]; /* enum pp_conn_state */

struct pp_conn {
    uint32_t magic;
    int fd;
    struct pp_loop *loop; /* borrowed */
    const struct pp_proto *proto;
    struct pp_list all;    /* pp_loop.conns */
    struct pp_list life;   /* pp_loop.fresh, .dead or .users */
    struct pp_list dirty;  /* pp_loop.dirty: output waits to be written */
    struct pp_list resume; /* pp_loop.resume: input can be gone on with */
    struct pp_timer timer; /* fires at or before the earliest of the deadlines */
    uint64_t read_due_ms;  /* 0 = none; what it means is the protocol's affair */
    uint64_t write_due_ms; /* 0 = none; moves with every progress of queued output */
    uint64_t call_due_ms;  /* 0 = none; the protocol's own */
    uint64_t rate_due_ms;  /* 0 = none; when the rate lets more output go */
    uint64_t rate_ms;      /* when rate_left was reckoned */
    uint32_t rate;         /* bytes of output a second; 0 = no limit */
    uint32_t rate_left;    /* bytes that may go now */
    uint64_t requests;     /* or whatever its protocol counts */
    struct pp_out_queue out;
    struct pp_file_job *reading; /* borrowed; output waits for this chunk of a file */
    void *user;                  /* borrowed; the application side's, for the whole connection */
    uint32_t holds;              /* exchanges that the application has */
    uint32_t linger_bytes;
    uint32_t unsent;         /* what the kernel held when the socket was last found full */
    uint32_t active_round;   /* pp_balance.round when it last had a request */
    uint16_t tag;            /* of its listener */
    uint8_t state;           /* enum pp_conn_state; written by pp_conn_step only */
    uint8_t send_again;      /* attempts when the socket takes nothing, as set... */
    uint8_t send_again_left; /* ...and left until something moves */

    bool readable : 1; /* no recv has said "empty" since the last edge */
    bool writable : 1;
    bool peer_shut : 1;  /* the poller says so: read until 0 */
    bool hung_up : 1;    /* its last event said that both sides are shut */
    bool eof : 1;        /* recv gave 0 */
    bool registered : 1; /* with the poller */
    bool linger : 1;     /* unread input may be there when we close */
    bool reset : 1;      /* the end must not look orderly */
    bool draining : 1;   /* after the next answer it ends */
    bool ends : 1;       /* pp_conn_end */
    bool stays : 1;      /* pp_conn_stay */
    bool chunk_read : 1; /* the next chunk of the file has been read: send it without a look */

    union pp_sock_addr peer, local;

    union { /* of the protocol */
        struct pp_http1 http1;
        struct pp_raw raw;
    };
};

static_assert(sizeof(struct pp_conn) <= 512, "an idle connection is this struct alone");

#define PP_CONN_ENTER(conn) \
    do { \
        PP_CHECK((conn)->magic == PP_CONN_MAGIC); \
        PP_ASSERT(pp_sys_pthread_equal((conn)->loop->owner, pp_sys_pthread_self())); \
    } while (0)

/* The time that a deadline counts from. Between two turns the application runs, and may have taken
 * any time. */
static inline uint64_t pp_loop_time(struct pp_loop *loop)
{
    if (!loop->current) {
        pp_loop_set_now(loop);
    }
    return loop->now_ms;
}

/* ---- for the loop and for who brings sockets ---- */
/* Takes the socket over in any case. tag: its listener's, which says the protocol. requests: how
 * many it has had elsewhere. */
void pp_conn_open(struct pp_loop *loop, int fd, const union pp_sock_addr *peer,
                  const union pp_sock_addr *local, uint16_t tag, uint64_t requests);
void pp_conn_on_event(struct pp_conn *conn, uint32_t events); /* PP_POLL_* */
void pp_conn_register_fresh(struct pp_loop *loop);
void pp_conn_free_dead(struct pp_loop *loop);
void pp_conn_resume_all(struct pp_loop *loop);
void pp_conn_drain_all(struct pp_loop *loop);
void pp_conn_abort_all(struct pp_loop *loop);
void pp_conn_orphan_all(struct pp_loop *loop); /* dead ones that the application still holds */
void pp_conn_files_read(struct pp_loop *loop); /* chunks that are in memory now */
void pp_conn_flush(struct pp_conn *conn);
/* For another context: the poller forgets it; the socket is still ours, and if it stays so the next
 * turn registers it again. */
void pp_conn_detach(struct pp_conn *conn);
void pp_conn_left(struct pp_conn *conn); /* detached, and its socket is another context's now */
/* As proto.h, and that nothing is queued or was said by the peer. */
bool pp_conn_may_leave(const struct pp_conn *conn);
bool pp_conn_active(const struct pp_conn *conn); /* it had a request since the last look */

/* ---- for protocols ---- */
/* Changes what lives on it. carry: as pp_proto.begin. */
void pp_conn_become(struct pp_conn *conn, const struct pp_proto *proto, const uint8_t *carry,
                    size_t len);
void pp_conn_resume_later(struct pp_conn *conn); /* `resume` is called with the next turn */
/* Deadlines; 0 = none. */
void pp_conn_read_due(struct pp_conn *conn, uint32_t after_ms);
void pp_conn_write_due(struct pp_conn *conn, uint32_t after_ms);
void pp_conn_call_due(struct pp_conn *conn, uint32_t after_ms);
/* Sets one of the fields that end in due_ms. */
void pp_conn_due_set(struct pp_conn *conn, uint64_t *due_ms, uint32_t after_ms);
/* A deadline may pass because the loop could not look: the application kept it, the process was
 * stopped, the turn's events were too many. What has arrived meanwhile is read first, by `ready`.
 * False: there is nothing. */
bool pp_conn_look(struct pp_conn *conn);
/* Receives up to `room` bytes to `to`. PP_OK: *got > 0. PP_AGAIN: nothing more now. DISCONNECTED:
 * also at the peer's end of stream, then with conn->eof. */
int pp_conn_receive(struct pp_conn *conn, uint8_t *to, size_t room, size_t *got) PP_MUST_USE;
/* Output: PP_OK, or NO_MEMORY and the connection is killed. */
int pp_conn_copy(struct pp_conn *conn, const void *data, size_t len) PP_MUST_USE;
int pp_conn_bytes_of(struct pp_conn *conn, const uint8_t *data, size_t len, void *owner,
                     bool *borrowed) PP_MUST_USE;
int pp_conn_file(struct pp_conn *conn, struct pp_file *file, uint64_t at, uint64_t len) PP_MUST_USE;
struct pp_out *pp_conn_room(struct pp_conn *conn, size_t need); /* NULL: killed */
void pp_conn_mark_dirty(struct pp_conn *conn);
void pp_conn_out_drop(struct pp_conn *conn);
/* Nothing follows the output that is queued: its protocol is done with it (`gone` still comes).
 * When all is written the connection closes, after lingering where unread input may be there. */
void pp_conn_last(struct pp_conn *conn);
/* All output is written: shuts our side and lingers, or closes. */
void pp_conn_shut(struct pp_conn *conn);
/* Closes the socket now; reset as in pp_sock_end. Exchanges that the application has hear of it
 * with `code` as the reason; the struct lives on until it lets go. */
void pp_conn_kill(struct pp_conn *conn, int code, bool reset);
/* The peer has gone: killed, and counted if an answer was due. */
void pp_conn_lost(struct pp_conn *conn);
/* Killed and counted; returns NO_MEMORY. */
int pp_conn_no_memory(struct pp_conn *conn);
void pp_conn_let_go(struct pp_conn *conn); /* an exchange has ended: pp_exchange_end */

/* ---- for both ---- */
void pp_conn_drain(struct pp_conn *conn);
void pp_conn_end(struct pp_conn *conn);
void pp_conn_stay(struct pp_conn *conn);
void pp_conn_rate(struct pp_conn *conn, uint32_t bytes_per_second);

#endif
