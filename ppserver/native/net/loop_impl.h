/* What the files of net/ share about a loop; nobody else includes this. */
#ifndef PP_NET_LOOP_IMPL_H
#define PP_NET_LOOP_IMPL_H

#include "net/accesslog.h"
#include "net/balance.h"
#include "net/block.h"
#include "net/file.h"
#include "net/loop.h"
#include "net/mailbox.h"
#include "net/out.h"
#include "net/poll.h"
#include "net/proto.h"
#include "net/sock.h"
#include "net/stats.h"
#include "net/sys.h"

#define PP_LOOP_MAGIC 0x9e11100bu
#define PP_LISTENER_MAGIC 0x9e1115edu

#define PP_SMALL_BLOCKS_KEPT 1024
#define PP_BLOCKS_KEPT 256 /* input and output blocks that stay in their pools */
#define PP_BODY_BLOCKS_KEPT 32
#define PP_CONNS_KEPT 1024
#define PP_ACCEPT_PAUSE_MS 50 /* after running out of descriptors or memory */
#define PP_LOG_RETRY_MS 100
#define PP_SCRATCH_BYTES 65536

struct pp_listener {
    uint32_t magic;
    int fd; /* borrowed */
    enum pp_listen_kind kind;
    uint16_t tag;
    bool paused, broken, starved;
    unsigned batches;         /* accepted since it was registered */
    union pp_sock_addr local; /* AF_UNSPEC when each connection has to be asked */
    struct pp_list link;
};

struct pp_foreign {
    uint32_t ready; /* events of this turn that nobody has taken yet */
    bool registered;
};

struct pp_loop {
    uint32_t magic;
    bool draining;
    bool turning; /* inside pp_loop_turn */
    bool current; /* now_ms is of this moment: inside a turn, or a flush */
    bool take_bodies;
    pthread_t owner;
    int poll_fd;
    int reserve_fd;  /* given up to shed one waiting connection; -1 = none */
    uint64_t now_ms; /* now_us, in whole milliseconds */
    uint64_t now_us;
    uint64_t turn; /* number of this turn */
    uint32_t batch_left;
    uint32_t ready_count; /* of .ready */
    uint64_t batch_us;    /* when the batch began; 0: nobody has had to know */
    uint64_t flushed_us;
    uint64_t next_id;

    struct pp_list conns;  /* all, by pp_conn.all */
    struct pp_list ready;  /* exchanges with events for the application, by .ready */
    struct pp_list dirty;  /* fresh output, by .dirty */
    struct pp_list resume; /* to be read on without an event, by .resume */
    struct pp_list fresh;  /* accepted, not yet registered with the poller, by .life */
    struct pp_list dead;   /* closed and let go of by the application, by .life */
    struct pp_list users;  /* dead, but their user pointer has not been taken, by .life */
    struct pp_out *released, *released_tail;

    const struct pp_proto *protos[PP_TAG_PROTOS]; /* by PP_TAG_PROTO of a tag */
    struct pp_wheel wheel;
    struct pp_list listeners;
    uint64_t accept_resume_ms; /* 0: none is paused */
    struct pp_mailbox mailbox;
    struct pp_accesslog log;
    struct pp_settings settings;
    struct pp_slot *slot;     /* gauges, counters and histograms: in the board, or own_slot */
    struct pp_slot *own_slot; /* owned or NULL */
    struct pp_balance balance;
    struct pp_filer filer;
    uint64_t drain_ms;   /* when draining began */
    uint32_t try_credit; /* how well receives right after accept went, up to PP_TRY_MAX */
    uint32_t try_skipped;

    struct pp_pool conn_pool, small_pool, block_pool, body_pool, out_pool;

    struct pp_foreign *foreign; /* owned, by descriptor number */
    size_t foreign_count;
    int foreign_ready[PP_POLL_EVENTS];
    unsigned foreign_ready_count, foreign_next;

    uint64_t date_next_ms; /* when the cached Date has to be made anew */
    char date[30];
    uint8_t scratch[PP_SCRATCH_BYTES];
    struct pp_poll_event events[PP_POLL_EVENTS];
};

#define PP_LOOP_ENTER(loop) \
    do { \
        PP_CHECK((loop)->magic == PP_LOOP_MAGIC); \
        PP_ASSERT(pp_sys_pthread_equal((loop)->owner, pp_sys_pthread_self())); \
    } while (0)

/* Where connections of a tag are counted beside the context's own counters. */
static inline struct pp_tag_counters *pp_loop_tagged(struct pp_loop *loop, uint16_t tag)
{
    unsigned index = tag & PP_TAG_MAX;
    return &loop->slot->tags[index < PP_SLOT_TAGS ? index : PP_SLOT_TAGS - 1];
}

void pp_loop_set_now(struct pp_loop *loop);
/* This number is a descriptor of ours now, whatever the application registered it for. */
void pp_loop_foreign_reused(struct pp_loop *loop, int fd);

/* The current Date value, or NULL when the setting says so. */
const char *pp_loop_date(struct pp_loop *loop);

/* listen.c */
void pp_listen_accept(struct pp_loop *loop, struct pp_listener *listener);
void pp_listen_resume(struct pp_loop *loop); /* after a pause */

/* foreign.c */
void pp_foreign_reset(struct pp_loop *loop); /* a turn begins */
void pp_foreign_event(struct pp_loop *loop, int fd, uint32_t events);
void pp_foreign_free(struct pp_loop *loop);

/* settings.c */
int pp_settings_copy(struct pp_settings *to, const struct pp_settings *from) PP_MUST_USE;
void pp_settings_free(struct pp_settings *settings);

#ifdef PP_FAILURE_INJECTION
#define PP_TEST_CLOCK 1
/* Test builds: both clocks, in milliseconds; NULL = the real ones. */
extern uint64_t (*pp_loop_test_clock)(void);
extern int64_t (*pp_loop_test_wall_ms)(void);
#endif

#endif
