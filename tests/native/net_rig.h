/* A server in the test's own process and thread: a loop, a listener on port 0, a small application
 * that is chosen by path, plain client sockets, and a clock that only the test moves. */
#ifndef PP_TESTS_NATIVE_NET_RIG_H
#define PP_TESTS_NATIVE_NET_RIG_H

#include "harness.h"
#include "net/conn.h"
#include "net/raw.h"

#define GET(path) "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"
#define RIG_BIG_BYTES 200000 /* of /big, and of the answer to "big" on a raw connection */

struct rig_request {
    struct pp_exchange *ex; /* NULL: the loop has been told that we let go */
    char path[64];
    uint64_t body_bytes, body_sum;
    uint64_t to_send; /* of /stream */
    bool responded, wanted, failed_body, closed, eof;
    int body_error;
    struct rig_request *next;
};

struct rig {
    struct pp_loop *loop;
    int listen_fd;
    unsigned port;
    struct rig_request *requests; /* being served */
    unsigned requests_seen, closed_seen, eof_seen, drained_seen, body_seen, finished_seen,
        idle_seen;
    unsigned owners_lent, owners_back;
    bool hold_body;   /* /count and raw connections do not take what came until this is false */
    const char *file; /* what "file" on a raw connection asks for, and... */
    uint64_t file_at, file_len; /* ...which part of it; sent between "<" and ">" */
    bool close_raw;             /* a raw connection is closed after its first answer */
    uint64_t sink_bytes;
    uint64_t bytes_taken; /* of bodies, by pp_exchange_take */
    bool beside_another;  /* which will look for what is lost: this one's is among it */
    uint64_t blocks_before;
    unsigned fds_before;
};

/* Defaults of the command line; a test changes what it is about before rig_start. */
struct pp_settings rig_settings(void);
void rig_start(struct rig *rig, const struct pp_settings *settings);
/* Lets go of all requests, frees the loop and checks that no byte and no descriptor is lost. */
void rig_stop(struct rig *rig);
/* The loop only, for allocation failures: NULL loop when it could not be made. */
bool rig_try_start(struct rig *rig, const struct pp_settings *settings);

int rig_turn(struct rig *rig, int timeout_ms); /* one turn and the application's batch */
void rig_settle(struct rig *rig);              /* turns until nothing happens any more */
void rig_clock(uint64_t now_ms);               /* failure injection builds only */
extern uint64_t rig_now_ms;

/* Iteration over the connections: NULL starts and ends. */
struct pp_conn *rig_next_conn(struct pp_loop *loop, struct pp_conn *conn);
/* What is there of a raw connection and was not consumed. */
size_t rig_raw_peek(struct pp_exchange *ex, const uint8_t **data);

/* ---- the application's hand ---- */
struct rig_request *rig_held(struct rig *rig, const char *path); /* NULL when there is none */
void rig_answer(struct rig *rig, struct rig_request *req, const char *body);
void rig_finish(struct rig *rig, struct rig_request *req);
void rig_forget(struct rig_request *req); /* its connection is gone already */

/* ---- clients ---- */
int rig_connect(struct rig *rig);
int rig_connect_small(struct rig *rig, int rcvbuf);                    /* a small receive buffer */
void rig_write(struct rig *rig, int fd, const void *data, size_t len); /* with turns in between */
void rig_say(struct rig *rig, int fd, const char *text);
/* Reads what comes until nothing more does; true in *ended at the end of the stream (or reset). */
size_t rig_read(struct rig *rig, int fd, char *buf, size_t cap, bool *ended);
/* Says text and checks that the whole answer begins with `start` and (if not NULL) has `part`. */
void rig_expect(struct rig *rig, int fd, const char *text, const char *start, const char *part);
bool rig_is_reset(int fd); /* the next read gives ECONNRESET */
/* snprintf into at[0, room) that must fit; returns the length. */
size_t rig_put(char *at, size_t room, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
unsigned rig_count(const char *text, const char *part);

#endif
