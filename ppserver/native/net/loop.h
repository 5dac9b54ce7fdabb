/* One context's loop: poller, timers, listeners, connections, counters. Owned by one thread at a
 * time; nothing here knows Python. The application side (bridge) drives it:
 *
 *   pp_loop_turn(loop, timeout)          detached: flush, wait, accept, receive, parse, time out
 *   while ((ex = pp_loop_take_event(loop, &events)))      attached: run the application
 *   while ((owner = pp_loop_take_released(loop)))           attached: drop borrowed buffers
 *
 * A turn does bounded work under one `now`: 1. flush the connections with fresh output; 2. free
 * what was marked for closing; 3. wait; 4. accept, receive, parse; 5. timers.
 * Sockets of connections are edge-triggered and registered once; other descriptors (asyncio's) are
 * level-triggered and reported by pp_loop_take_foreign. */
#ifndef PP_NET_LOOP_H
#define PP_NET_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/timer.h"
#include "net/board.h"
#include "net/forwarded.h"
#include "net/sys.h"
#include "proto/h1_conn.h"

struct pp_settings {
    struct pp_h1_limits http;
    uint32_t limit_pipeline;    /* answered on one connection per batch before others go on */
    uint32_t limit_concurrency; /* with the application at once; 0 = unlimited; beyond: 503 */
    uint32_t keep_alive_ms, request_header_ms, body_idle_ms, write_ms; /* 0 = off */
    uint32_t disconnect_grace_ms; /* how long a peer that shut its side may still be waiting */
    uint32_t silent_ms; /* when TCP gives up a peer that answers nothing; 0 = its affair */
    bool server_header, date_header;
    const struct pp_out_field *extra_fields; /* owned copy made by pp_loop_new */
    size_t extra_count;
    int access_log_fd;                /* -1 = off */
    const char *access_log_prefix;    /* owned copy made by pp_loop_new; NULL = "" */
    bool report_finished;             /* keep head spans until the end and raise PP_EV_FINISHED */
    const struct pp_trusted *trusted; /* whose forwarded fields count; NULL = nobody asks; copied */
    struct pp_slot *slot;             /* where to count, borrowed; NULL = in the loop itself */
};

struct pp_loop;
struct pp_exchange;

/* NULL: errno says why. */
struct pp_loop *pp_loop_new(const struct pp_settings *settings) PP_MUST_USE;
/* Closes every connection without a word and frees all. The bridge must have detached each app
 * pointer before (pp_loop_next_exchange helps), and drained pp_loop_take_released. */
void pp_loop_free(struct pp_loop *loop);

int pp_loop_fd(const struct pp_loop *loop); /* becomes readable when a turn has something to do */
/* Who else accepts from a listening socket. All but the first are registered EPOLLEXCLUSIVE: the
 * kernel wakes the first in line that waits. */
enum pp_listen_kind {
    PP_LISTEN_ALONE,
    PP_LISTEN_SHARED,   /* every context alike */
    PP_LISTEN_OWN,      /* this context; others only while it does not wait */
    PP_LISTEN_NEIGHBOUR /* another context's, for the time it is busy or stuck */
};
/* What comes by a listener: a number of the application's, and with PP_TAG_RAW bytes instead of
 * HTTP (net/raw.h). */
#define PP_TAG_RAW 0x8000u
#define PP_TAG_MAX 0x3fffu
/* The number of the protocol that a connection with that tag begins with. */
#define PP_TAG_PROTO(tag) ((tag) >> 14)
#define PP_TAG_PROTOS 4
/* Starts accepting from a listening, non-blocking socket that stays the caller's. */
int pp_loop_listen(struct pp_loop *loop, int fd, enum pp_listen_kind kind,
                   uint16_t tag) PP_MUST_USE;
void pp_loop_unlisten(struct pp_loop *loop); /* all listeners */
/* Takes a connected, non-blocking stream socket as if it had been accepted. PP_OK: it is the loop's
 * now. SYSTEM (errno): it is not connected, and stays the caller's. */
int pp_loop_bring(struct pp_loop *loop, int fd, uint16_t tag) PP_MUST_USE;

/* One turn. timeout_ms < 0: until something happens; the wait is cut short by our own timers, by a
 * wake-up and by work that is already there. Returns how much there is to take: each foreign
 * descriptor counts, and once each events, messages, released owners and dead users; 0 = nothing
 * (also after a signal). Or a PP_ERR code when the poller itself failed. */
int pp_loop_turn(struct pp_loop *loop, int timeout_ms) PP_MUST_USE;
/* The same, but not beyond a time of pp_loop_clock_ms; UINT64_MAX: no such time. */
int pp_loop_turn_until(struct pp_loop *loop, int timeout_ms, uint64_t until_ms) PP_MUST_USE;
/* Sends what is queued now, without waiting: for event loops that are not driven by our turn. */
void pp_loop_flush(struct pp_loop *loop);
/* True when output waits for pp_loop_flush or the next turn. */
bool pp_loop_dirty(const struct pp_loop *loop);
/* The last flush is longer ago than a batch may take. */
bool pp_loop_late(struct pp_loop *loop);
/* Milliseconds until the loop needs a turn for its timers; -1: not before I/O. For add_reader. */
int pp_loop_wait_ms(struct pp_loop *loop);

#define PP_EV_REQUEST 1u /* a request head is there: pp_exchange_head; exactly one per request */
#define PP_EV_BODY 2u    /* what pp_exchange_want asked for: bytes, the end, or the failure */
#define PP_EV_DRAINED \
    4u /* output fell to PP_OUT_LOW_BYTES or less (after pp_exchange_out_full) \
        */
#define PP_EV_CLOSED \
    8u /* the peer is gone or was timed out: no more input, output is dropped. \
          The exchange stays valid until pp_exchange_finish. Comes once. */
#define PP_EV_EOF \
    16u /* the peer shut its side, its request is all here, and either the response \
           has begun or the grace is over; answers can still be sent */
#define PP_EV_FINISHED 32u /* only with report_finished: the response is complete (access log) */
#define PP_EV_HEAD \
    128u               /* what pp_exchange_head_wait asked for: no response has begun meanwhile \
                        */
#define PP_EV_IDLE 64u /* raw: as long as pp_raw_idle says, nothing came and all is sent */

/* The next exchange with something for the application, FIFO, and what it is; NULL when the batch
 * is over: after PP_BATCH_REQUESTS, or PP_BATCH_US. The rest comes with the next turn, which then
 * does not block, and begins with sending what was answered. Events of one exchange come merged.
 */
struct pp_exchange *pp_loop_take_event(struct pp_loop *loop, unsigned *events);
/* Whether there is time for one more, for who takes its work from elsewhere. */
bool pp_loop_batch_goes_on(struct pp_loop *loop);
/* True when pp_loop_take_event would give something, now or after the next turn (left over from a
 * bounded batch, or a pipelined request that begins). */
bool pp_loop_pending(const struct pp_loop *loop);
/* Another batch without a turn: what is ready can be taken, nothing new comes. */
void pp_loop_batch(struct pp_loop *loop);
bool pp_loop_pending_events(const struct pp_loop *loop); /* a batch would have something */
/* Owners (see pp_exchange_respond) whose bytes are not needed any more. */
void *pp_loop_take_released(struct pp_loop *loop);

/* Foreign descriptors: level-triggered, `events` as PP_POLL_READ and
 * PP_POLL_WRITE of net/poll.h. */
int pp_loop_foreign_add(struct pp_loop *loop, int fd, uint32_t events) PP_MUST_USE;
int pp_loop_foreign_mod(struct pp_loop *loop, int fd, uint32_t events) PP_MUST_USE;
int pp_loop_foreign_del(struct pp_loop *loop, int fd) PP_MUST_USE;
bool pp_loop_take_foreign(struct pp_loop *loop, int *fd, uint32_t *events);

/* Large bodies wait for pp_exchange_take from now on; before, and otherwise, none does. */
void pp_loop_take_bodies(struct pp_loop *loop);
/* From any thread, and from a signal handler: makes the running or next turn return soon. */
void pp_loop_wake(struct pp_loop *loop);
/* Joins the contexts of `board` in slot `self`, which must be the slot of the settings: new
 * connections go to the least loaded one. inbox: the reading end of its own door; doors: the
 * writing ends by slot, -1 where there is none (net/balance.h). local: all of them are in this
 * process. Board and descriptors stay the caller's and must outlive the loop. */
int pp_loop_join(struct pp_loop *loop, struct pp_board *board, unsigned self, int inbox,
                 const int *doors, unsigned count, bool local) PP_MUST_USE;
/* The event loop that drives this one goes to wait, or to do what is not ours: time stops counting
 * as busy until the next turn. For loops that are not driven by our turn's own waiting. */
void pp_loop_rest(struct pp_loop *loop);
/* Graceful end: stop listening; idle connections close; others close after their response. */
void pp_loop_drain(struct pp_loop *loop);
bool pp_loop_drained(const struct pp_loop *loop); /* draining and no connection left */
/* Every connection gets PP_EV_CLOSED and its socket is closed (reset when output was left). */
void pp_loop_abort(struct pp_loop *loop);

/* Relaxed reads from any thread. */
uint32_t pp_loop_connections(const struct pp_loop *loop);
uint32_t pp_loop_in_flight(const struct pp_loop *loop); /* REQUEST raised, not yet finished */
const struct pp_counters *pp_loop_counters(const struct pp_loop *loop);
const struct pp_slot *pp_loop_slot(const struct pp_loop *loop);
void pp_loop_stuck(struct pp_loop *loop, bool stuck); /* says so in the slot; any thread */
/* As of the last look at the clock: in a turn, or between two events of a batch. */
uint64_t pp_loop_now_ms(const struct pp_loop *loop);
/* The same clock, read now. */
uint64_t pp_loop_clock_ms(void);
uint64_t pp_loop_clock_us(void);

/* Messages from other threads (net/mailbox.c): an intrusive stack, taken in the order posted. */
struct pp_msg {
    struct pp_msg *next;
};
void pp_loop_post(struct pp_loop *loop, struct pp_msg *msg); /* any thread; wakes the loop */
struct pp_msg *pp_loop_take_msg(struct pp_loop *loop);

/* Ownership: the loop asserts (PP_ASSERT) that the calling thread is its owner. A new owner, after
 * the old one stopped calling, takes it over (leader/follower). */
void pp_loop_adopt(struct pp_loop *loop);
/* Whether the calling thread is the owner. */
bool pp_loop_owned(const struct pp_loop *loop);

#endif
