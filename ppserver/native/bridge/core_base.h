/* The state that all of the bridge stands on: the module's, and that of a Core; and what every file
 * above it may do with a Core, whatever it serves.
 *
 * Threads and interpreters: all Python state is in the module state or in a Core. A Core and its
 * loop belong to one thread at a time, so its fields need no lock on any build; what other threads
 * may call (wake, drain, counters) goes through atomics of the net layer. */
#ifndef PP_BRIDGE_CORE_BASE_H
#define PP_BRIDGE_CORE_BASE_H

#include "bridge/compat.h"
#include "bridge/constants.h"
#include "bridge/imprint.h"
#include "bridge/kept.h"

#include "net/exchange.h"
#include "net/loop.h"

/* Types and imported names; one per module object, so one per interpreter. */
typedef struct {
    PyTypeObject *core_type;
    PyTypeObject *board_type;
    PyTypeObject *request_type; /* also the `send` callable */
    PyTypeObject *receive_type; /* the `receive` callable */
    PyTypeObject *done_type;    /* finished awaitable, shared */
    PyTypeObject *wait_type;    /* awaitable of receive() and of a send() that waits */
    PyTypeObject *runner_type;  /* coroutine of the worker Task */
    PyTypeObject *own_task_type;
    PyTypeObject *wsgi_input_type;
    PyTypeObject *wsgi_start_type; /* start_response and the `write` callable */
    PyTypeObject *file_wrapper_type;
    PyTypeObject *shared_counter_type, *shared_array_type;
    PyTypeObject *transport_type;
    PyObject *client_disconnected;     /* class ClientDisconnected(OSError) */
    PyObject *cancelled_error;         /* asyncio.CancelledError */
    PyObject *task_class;              /* asyncio.Task */
    PyObject *future_class;            /* asyncio.Future */
    PyObject *enter_task, *leave_task; /* asyncio.tasks._enter_task, _leave_task */
    PyObject *get_weakref_count;       /* weakref.getweakrefcount */
    PyObject *request_coroutine;       /* ppserver.request.ppserver_request */
    bool shared_sealed;                /* shared objects made now would be shared with nobody */
    const char *freeze_refusal;        /* static text: why nothing can be made immortal; or NULL */
    bool freeze_broken;                /* the self-test failed */
} PpState;

PpState *pp_state_of_type(PyTypeObject *type); /* of one of our types; never NULL, no exception */

/* Whether the proxy in front has taken the root path off a request's target. */
enum pp_root_path_mode {
    PP_ROOT_PATH_AUTO, /* it has not where the path begins with it, up to the end of a segment */
    PP_ROOT_PATH_STRIPPED,
    PP_ROOT_PATH_UNSTRIPPED,
    PP_ROOT_PATH_MODES
};

/* Recently seen header fields: (name, value) tuples that are handed out again when a client repeats
 * itself. Direct-mapped, bounded, per context. */
#define PP_HEADER_CACHE_SLOTS 256
#define PP_HEADER_CACHE_VALUE_MAX 256

enum pp_task_mode { PP_TASK_WORKER, PP_TASK_EAGER, PP_TASK_PLAIN };

struct pp_lead; /* bridge/lead_base.h */

/* What a new worker Task looks like, beside its name: see pristine.c. */
struct pp_untouched {
    Py_ssize_t weakrefs;              /* the registry of tasks has one */
    Py_ssize_t task, runner, context; /* references */
};

/* The fields of the ASGI response head that came last, as they are going to be written. */
#define PP_HEAD_FIELDS_KEPT 48
struct pp_head_fields {
    const void *of; /* whose they are, only compared; NULL: nobody's */
    size_t bytes;   /* pp_h1_response.field_bytes */
    struct pp_out_field fields[PP_HEAD_FIELDS_KEPT]; /* borrowed from the headers of `of` */
};

typedef struct PpCore PpCore;

/* What a core does by what it serves; set by serve_*(). A function that is NULL has nothing to do.
 */
struct pp_mode {
    /* Runs the application for the events that are there, on the loop's thread; never raises. NULL:
     * the mode drives the loop by itself, on threads of its own. */
    void (*run_batch)(PpCore *core);
    void (*wake)(PpCore *core);  /* drain() was requested; any thread */
    void (*stop)(PpCore *core);  /* stop() was requested, where run_batch is NULL; any thread */
    void (*end)(PpCore *core);   /* close(): no connection is left */
    void (*clear)(PpCore *core); /* drops what is the mode's own; harmless when it is done again */
    int (*traverse)(PpCore *core, visitproc visit, void *arg); /* what is the mode's own */
    /* For how long requests have waited for a thread without a break; 0: none waits. Any thread. */
    uint64_t (*waiting_ms)(const PpCore *core);
    /* In a forked child, of what pp_exchange_app gives: the connection is the parent's. NULL: the
     * child may keep the loop. */
    void (*forked)(void *app);
};
extern const struct pp_mode pp_mode_none; /* serves nothing yet: 503 */

struct PpCore {
    PyObject_HEAD
    struct pp_loop *loop; /* owned; NULL after close() */
    PpState *state;       /* borrowed from the module, which the type keeps alive */
    struct pp_constants k;
    const struct pp_mode *mode; /* never NULL after __init__ */
    enum pp_task_mode task_mode;
    PyObject *app;             /* owned; the ASGI or WSGI callable */
    PyObject *on_error;        /* owned; called with (exception, scope or environ) */
    PyObject *access_log;      /* owned or NULL: the slow path through Python logging */
    PyObject *lifespan_state;  /* owned dict or NULL */
    PyObject *root_path;       /* owned str */
    PyObject *root_path_bytes; /* owned bytes, for raw_path */
    enum pp_root_path_mode root_path_mode;
    /* ASGI */
    PyObject *event_loop;                        /* owned or NULL */
    PyObject *scope_template;                    /* owned dict */
    PyObject *template_target, *template_client; /* owned or NULL: what is in it of these */
    PyObject *asgi_template;                     /* owned dict */
    PyObject *asgi_given;     /* owned or NULL: the "asgi" of scope_template, and of scopes */
    PyObject *done;           /* owned: the shared finished awaitable */
    PyObject *worker;         /* owned or NULL: the idle worker Task */
    PyObject *runner;         /* owned or NULL: its coroutine */
    PyObject *worker_name;    /* owned or NULL: the name it was made with */
    PyObject *worker_context; /* owned or NULL: its contextvars context */
    PyObject *worker_base;    /* owned or NULL: what that is a copy of */
    PyObject *tasks;          /* owned set: the Tasks of requests that have suspended */
    struct pp_untouched worker_untouched;
    struct pp_imprint worker_imprint; /* of the worker, or of none */
    struct pp_kept kept_requests, kept_receives, kept_waits, kept_calls;
    struct pp_head_fields head;
    PyObject *seen_start, *seen_body;          /* owned or NULL: message types as last sent */
    PyObject *server_cache;                    /* owned tuple or NULL: the last local address... */
    struct sockaddr_storage server_cache_addr; /* ...and what it was made from */
    PyObject *header_cache[PP_HEADER_CACHE_SLOTS]; /* owned tuples or NULL */
    PyObject *selector;      /* owned or NULL: the CoreSelector of selector() */
    PyObject *ready_key;     /* owned or NULL: what poll() returns when a batch is due */
    PyObject *selector_keys; /* owned dict or NULL: of _select() */
    /* Owned, all or none (_wire), instead of ready_key: where asyncio keeps the handles that are
     * ready, the one that runs a batch, its context, and the event loop. */
    PyObject *ready, *ready_handle, *ready_context, *ready_loop;
    PyObject *alarm;   /* owned or NULL: what poll() calls... */
    uint64_t alarm_ms; /* ...from this time on */
    PyObject *context; /* owned or NULL: what attached callbacks run in */
    bool attached;     /* driven by add_reader instead of poll() */
    bool in_batch;
    bool entered; /* the worker Task is the current one */
    bool flush_scheduled, tick_scheduled, batch_scheduled;
    bool draining;        /* drain() has been carried out; read by any thread */
    bool drain_requested; /* set by drain() from any thread, carried out by the loop's thread */
    bool stop_requested;  /* likewise by stop(); ASGI */
    /* WSGI and the parallel API */
    struct pp_lead *lead; /* owned or NULL */
    unsigned protocols;   /* of the parallel API, which it serves; 0: it serves something else */
    /* Its place among the contexts of a server */
    PyObject *board; /* owned PpBoard or NULL */
    unsigned slot;
    pid_t process; /* which serves */
    PyObject *weakrefs;
};

/* Reports an application's exception (consumes the raised one) to on_error; never raises. */
void pp_core_report_error(PpCore *core, PyObject *scope_or_environ);
/* Drops what the net layer no longer needs: borrowed response bodies, users of dead connections. */
void pp_core_release_of(struct pp_loop *loop);
static inline void pp_core_release(PpCore *core)
{
    pp_core_release_of(core->loop);
}
void pp_core_apply_requested(PpCore *core);
/* Carries out drain_requested and stop_requested on the loop's thread. */
static inline void pp_core_apply_requests(PpCore *core)
{
    if (PP_UNLIKELY(__atomic_load_n(&core->drain_requested, __ATOMIC_ACQUIRE) ||
                    __atomic_load_n(&core->stop_requested, __ATOMIC_ACQUIRE))) {
        pp_core_apply_requested(core);
    }
}
/* Sets the Python exception that goes with an APP_*, SYSTEM or NO_MEMORY code. */
void pp_raise_code(PpCore *core, int code);
/* "Cannot ... after close()": NULL loop check; -1 with an exception. */
int pp_core_check_open(PpCore *core);
/* -1 with an exception unless this is the loop's thread, the only one that may touch a request's
 * connection. */
int pp_core_check_thread(PpCore *core);
static inline void pp_core_run_batch(PpCore *core)
{
    if (core->mode->run_batch != NULL) {
        core->mode->run_batch(core);
    }
}

#endif
