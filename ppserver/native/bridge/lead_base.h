/* Leader and followers: the threads that run one context's application.
 *
 * One thread at a time leads: it turns the loop and calls the application itself, so that a quick
 * call costs no hand-off (lead_word.c). What there is to run, and what its connections are about,
 * is its user's affair: struct pp_lead_ops. A user's own struct begins with struct pp_lead, and is
 * counted by it, so that a call that never ends keeps it alive after the Core is closed.
 *
 *   lead_word.c      which thread leads
 *   lead.c           its life, and what is asked of the leader
 *   lead_threads.c   the threads, and what one does that leads
 *   lead_manager.c   the manager, the end, and run_wsgi
 *
 * A connection is only ever touched by the thread that leads. */
#ifndef PP_BRIDGE_LEAD_BASE_H
#define PP_BRIDGE_LEAD_BASE_H

#include "bridge/core_base.h"

#include <pthread.h>

#include "net/park.h"
#include "net/thread.h"

#define PP_LEAD_TICK_US 1000   /* a call that is seen waiting after this interval is slow */
#define PP_LEAD_SWITCH_US 5000 /* after so much computing a thread has to let go of the GIL */
/* A call that only computes loses the lead after so much processor time: when it has to let others
 * run as well. */
#ifdef Py_GIL_DISABLED
#define PP_LEAD_COMPUTE_US 1000
#else
#define PP_LEAD_COMPUTE_US PP_LEAD_SWITCH_US
#endif
#define PP_LEAD_QUIET_TICKS 8    /* ticks without a call until the watch sleeps */
#define PP_LEAD_SLEEP_US 1000000 /* the sleeping watch still looks for signals */
#define PP_LEAD_WAIT_WEIGHT 4 /* how much a call that waited counts against one that did not... */
#define PP_LEAD_EAGER_AT 8    /* ...until calls are taken to wait from the start */
#define PP_LEAD_EAGER_MAX 32
#define PP_LEAD_SPAWN_RETRY_US \
    250000                      /* after a thread that could not be made, until the next try */
#define PP_LEAD_CHORE_MS 250    /* chores are done about this often, or... */
#define PP_LEAD_CHORE_TICKS 256 /* ...while there are calls, in ticks of the manager */
#define PP_LEAD_HANG_US 500000  /* stop() waits this long for calls to end */
#define PP_LEAD_THREADS_MAX 1024

struct pp_lead;

/* A thread that may lead. All but `word` are under the mutex of pp_lead. */
struct pp_lead_worker {
    struct pp_park park;
    struct pp_park answered;            /* what it asked of the leader is done; itself only */
    struct pp_lead *lead;               /* borrowed */
    struct pp_lead_worker *next_parked; /* borrowed */
    uint64_t word;              /* its leadership; 0 = does not lead. Its own thread only. */
    struct pp_thread os_thread; /* what the kernel knows it by; constant once it runs */
    PyThreadState *detached;    /* its thread state while it is detached; its own thread only */
    bool appointed;             /* has been made leader and has to take over */
    bool manager;               /* leads without running the application */
    bool gone;                  /* its thread has nothing left to do but end */
    void *tended;               /* atomic; the user's: what of this thread needs chores, or NULL */
    PyObject *thread;           /* owned threading.Thread or NULL; manager only */
};

/* One stay of a thread in the application. */
struct pp_lead_trip {
    bool eager;  /* it handed the lead over first; if so... */
    bool waited; /* ...whether that was good for anything */
    uint64_t begin_us, begin_cpu_us;
};

/* Something that is asked of the leader. Its own struct begins with it. */
struct pp_lead_op {
    struct pp_msg msg; /* first: a message is an op */
    /* Leader, attached or not, without Python. True: it is done. False: it is somebody else's until
     * pp_lead_op_done. */
    bool (*apply)(struct pp_lead_op *op);
    struct pp_park *park; /* borrowed: of who waits for it; NULL: nobody does */
};

/* An op about an object, which is dropped afterwards; nobody waits. */
struct pp_lead_errand {
    struct pp_lead_op op; /* first */
    PyObject *object;     /* owned */
};

struct pp_lead_ops {
    const char *thread_name; /* "-" and a number follow */
    /* Leader, not the manager: runs what waits for a thread. False: leadership lost. May attach. */
    bool (*run_waiting)(struct pp_lead_worker *self);
    /* Leader: ex has news; result as above. May attach, runs nothing on the manager. */
    bool (*on_event)(struct pp_lead_worker *self, struct pp_exchange *ex, unsigned events);
    /* Leader: whether run_waiting has something to do. */
    bool (*waits)(const struct pp_lead *lead);
    /* What has to be seen to while calls go on: whether there is something (manager or leader), and
     * doing it (leader, without Python). NULL: nothing. */
    bool (*has_chores)(struct pp_lead *lead);
    void (*do_chores)(struct pp_lead *lead);
    /* Leader, the end, without Python: lets go of a connection that has an app pointer. */
    void (*abandon)(struct pp_lead *lead, struct pp_exchange *ex);
    /* The end, attached: drops what abandon has left; may run code of the application. NULL. */
    void (*ended)(struct pp_lead *lead);
    int (*traverse)(struct pp_lead *lead, visitproc visit, void *arg);
    /* Attached: gives back what the user's struct owns, but not the struct. */
    void (*fini)(struct pp_lead *lead);
};

struct pp_lead {
    const struct pp_lead_ops *ops; /* constant */
    uint32_t refs;                 /* atomic */
    PpCore *core; /* borrowed. Only between pp_lead_new and the end of run_wsgi, or with a reference
                     of one's own to the core. */
    struct pp_loop *loop; /* borrowed; leader only */
    uint32_t threads_max;

    /* Who leads: generation << 1 | "is inside the application". Atomic; see lead_word.c. */
    uint64_t word;
    struct pp_lead_worker *leader; /* atomic; borrowed: whose generation it is */
    bool watch_asleep;             /* atomic */
    int eager;                     /* atomic: how much calls have waited lately */
    bool stop_requested;           /* atomic */
    bool done;                     /* atomic: the leader found everything drained, or failed */
    uint64_t waiting_since_ms;     /* since when something waits for a thread; 0: nothing does. The
                                      user's: the leader writes it, any thread reads. */

    pthread_mutex_t mutex; /* short sections only, never while calling Python */
    struct pp_lead_worker *parked;
    uint32_t worker_count, live_count; /* started (atomic, too); not ended */
    bool stopping;                     /* parked threads end */
    bool ended;         /* nobody leads any more: what is asked of connections fails */
    bool manager_leads; /* a thread that parks makes the manager hand over */
    bool running;       /* run_wsgi was called; before, nothing is asked of connections */
    bool forked;        /* this process was forked by one of the threads (forked.c). Set once,
                           before there is another thread */
    struct pp_lead_worker manager;
    uint64_t spawn_after_us;         /* not to start a thread before, as the last could not be
                                        started; 0 = it could. Manager only. */
    struct pp_lead_worker **workers; /* owned; threads_max entries, filled as threads start */
    struct pp_lead_op chores_op;     /* asks for do_chores... */
    bool chores_asked;               /* ...atomic: it is posted */

    struct pp_msg *spent;   /* errands that are done; leader only, and the end */
    int failure;            /* PP_ERR code of a loop that failed; leader only */
    PyObject *interruption; /* owned exception of a signal handler, or NULL; manager only */
};

/* Whether there are chores. Manager or leader. */
static inline bool pp_lead_has_chores(struct pp_lead *lead)
{
    return lead->ops->has_chores != NULL && lead->ops->has_chores(lead);
}

#endif
