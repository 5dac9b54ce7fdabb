/* Shared by the bridge's files: the module's state, the Core object and the seams between them.
 *
 * Threads and interpreters: all Python state is in the module state or in a Core. A Core and its
 * loop belong to one thread at a time, so its fields need no lock on any build; what other threads
 * may call (wake, drain, counters) goes through atomics of the net layer. */
#ifndef PP_BRIDGE_BRIDGE_H
#define PP_BRIDGE_BRIDGE_H

#include "bridge/compat.h"

#include "net/board.h"
#include "net/conn.h"
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
    bool shared_sealed;                /* shared objects made now would be shared with nobody */
    const char *freeze_refusal;        /* static text: why nothing can be made immortal; or NULL */
    bool freeze_broken;                /* the self-test failed */
} PpState;

extern struct PyModuleDef pp_module_def;
PpState *pp_state_of_type(PyTypeObject *type); /* of one of our types; never NULL, no exception */

/* Constants of one context: its own objects, so that contexts never share a reference count.
 * Interned text keys are X(field, "text"). */
#define PP_TEXT_CONSTANTS(X) \
    X(type, "type") \
    X(asgi, "asgi") \
    X(http, "http") \
    X(http_version, "http_version") \
    X(server, "server") \
    X(client, "client") \
    X(scheme, "scheme") \
    X(https, "https") \
    X(method, "method") \
    X(root_path, "root_path") \
    X(path, "path") \
    X(raw_path, "raw_path") \
    X(query_string, "query_string") \
    X(headers, "headers") \
    X(state, "state") \
    X(version, "version") \
    X(spec_version, "spec_version") \
    X(v3_0, "3.0") \
    X(v2_3, "2.3") \
    X(v1_0, "1.0") \
    X(v1_1, "1.1") \
    X(body, "body") \
    X(more_body, "more_body") \
    X(status, "status") \
    X(trailers, "trailers") \
    X(http_request, "http.request") \
    X(http_disconnect, "http.disconnect") \
    X(create_future, "create_future") \
    X(set_result, "set_result") \
    X(done, "done") \
    X(append, "append") \
    X(stopping, "_stopping") \
    X(debug, "_debug") \
    X(scheduled, "_scheduled") \
    X(args, "args") \
    X(cancel, "cancel") \
    X(exceptions, "exceptions") \
    X(msg, "msg") \
    X(create_task, "create_task") \
    X(get_name, "get_name") \
    X(cancelling, "cancelling") \
    X(callbacks, "_callbacks") \
    X(must_cancel, "_must_cancel") \
    X(cancel_message, "_cancel_message") \
    X(log_destroy_pending, "_log_destroy_pending") \
    X(fut_waiter, "_fut_waiter") \
    X(awaited_by, "_asyncio_awaited_by") \
    X(get_coro, "get_coro") \
    X(get_context, "get_context") \
    X(get_task_factory, "get_task_factory") \
    X(future_blocking, "_asyncio_future_blocking") \
    X(call_soon, "call_soon") \
    X(call_later, "call_later") \
    X(context, "context") \
    X(loop, "loop") \
    X(eager_start, "eager_start") \
    X(close, "close") \
    X(throw_, "throw")

/* Whether the proxy in front has taken the root path off a request's target. */
enum pp_root_path_mode {
    PP_ROOT_PATH_AUTO, /* it has not where the path begins with it, up to the end of a segment */
    PP_ROOT_PATH_STRIPPED,
    PP_ROOT_PATH_UNSTRIPPED,
    PP_ROOT_PATH_MODES
};

struct pp_constants {
#define PP_FIELD_(field, text) PyObject *field;
    PP_TEXT_CONSTANTS(PP_FIELD_)
#undef PP_FIELD_
    PyObject *methods[PP_METHOD_COUNT]; /* str; [PP_METHOD_OTHER] is NULL */
    PyObject *names[PP_H1_NAME_COUNT];  /* bytes, lower-case; [PP_H1_NAME_OTHER] is NULL */
    PyObject *empty_bytes, *empty_str;
};
int pp_constants_init(struct pp_constants *k); /* -1 with an exception; fini is then still right */
void pp_constants_fini(struct pp_constants *k);

/* Recently seen header fields: (name, value) tuples that are handed out again when a client repeats
 * itself. Direct-mapped, bounded, per context. */
#define PP_HEADER_CACHE_SLOTS 256
#define PP_HEADER_CACHE_VALUE_MAX 256

enum pp_core_mode { PP_MODE_NONE, PP_MODE_ASGI, PP_MODE_WSGI };
enum pp_task_mode { PP_TASK_WORKER, PP_TASK_EAGER, PP_TASK_PLAIN };

struct pp_wsgi; /* bridge/wsgi.c */

/* Memory of dead objects of one type, for new ones: see kept.c. */
#define PP_KEPT_MAX 32
struct pp_kept {
    PyTypeObject *type;           /* owned or NULL: the type they had */
    PyObject *items[PP_KEPT_MAX]; /* owned memory, no objects */
    unsigned count;
};

/* What a new worker Task looks like, beside its name: see pristine.c. */
struct pp_untouched {
    Py_ssize_t weakrefs;              /* the registry of tasks has one */
    Py_ssize_t task, runner, context; /* references */
};

/* A worker Task as it was when it was last looked over: see imprint.c. */
struct pp_imprint {
    const PyObject *task_object, *parking_object, *weakrefs; /* borrowed, only compared */
    size_t task_bytes, parking_bytes;                        /* task_bytes 0: nothing was taken */
    char task[256], parking[192];
};

typedef struct {
    PyObject_HEAD
    struct pp_loop *loop; /* owned; NULL after close() */
    PpState *state;       /* borrowed from the module, which the type keeps alive */
    struct pp_constants k;
    enum pp_core_mode mode;
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
    struct pp_kept kept_requests, kept_receives, kept_waits;
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
    /* WSGI */
    struct pp_wsgi *wsgi; /* owned or NULL */
    /* Its place among the contexts of a server */
    PyObject *board; /* owned PpBoard or NULL */
    unsigned slot;
    pid_t process; /* which serves */
    PyObject *weakrefs;
} PpCore;

/* board.c */
typedef struct {
    PyObject_HEAD
    struct pp_board *board; /* owned; NULL until __init__ */
} PpBoard;
extern PyType_Spec pp_board_spec;
/* NULL with IndexError. */
struct pp_slot *pp_board_checked_slot(PpBoard *board, unsigned long index);
/* Gauges, counters and quantiles; NULL with an exception. */
PyObject *pp_slot_as_dict(const struct pp_slot *slot);
PyObject *pp_slot_tags_as_tuple(const struct pp_slot *slot);

/* forked.c */
/* Whether this is not the process that serves, but one that the application has forked. Takes a
 * system call. */
bool pp_forked(const PpCore *core);
/* _forked() of Core, which is called in each forked child. */
PyObject *pp_core_forked(PyObject *self, PyObject *ignored);
/* Where an ASGI core has no loop: ends the process if that is why. Attached. */
void pp_forked_back(PpCore *core);
/* There: ends it, by the raised exception if there is one. Attached. */
_Noreturn void pp_forked_end(PpCore *core, PyObject *scope_or_environ);

/* core.c */
/* Reports an application's exception (consumes the raised one) to on_error; never raises. */
void pp_core_report_error(PpCore *core, PyObject *scope_or_environ);
/* Drops what the net layer no longer needs: borrowed response bodies, users of dead connections. */
void pp_core_release(PpCore *core);
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
/* Before pp_conn_finish: the access line by way of Python, where core->access_log is set. */
void pp_core_log_access(PpCore *core, struct pp_conn *conn);
/* "Cannot ... after close()": NULL loop check; -1 with an exception. */
int pp_core_check_open(PpCore *core);
/* Core.__init__ (core_settings.c). */
int pp_core_init(PyObject *self, PyObject *args, PyObject *kwargs);

/* kept.c */
/* A new object of a type with a GC head, tracked, its fields zero; NULL with an exception. */
PyObject *pp_kept_take(struct pp_kept *kept, PyTypeObject *type);
/* The end of tp_dealloc of an untracked object that has let go of everything: instead of tp_free,
 * and of giving back its reference to its type. */
void pp_kept_give(struct pp_kept *kept, PyObject *op);
void pp_kept_fini(struct pp_kept *kept);

/* selector.c: the asyncio-facing side (methods of Core). */
extern PyMethodDef pp_selector_methods[]; /* merged into Core's */
int pp_selector_output_late(PpCore *core);
/* Output was queued: outside of a batch makes sure that somebody flushes, at once if it has been
 * long since the last time. -1 with an exception. */
static inline int pp_selector_output_queued(PpCore *core)
{
    return PP_LIKELY(core->in_batch) ? 0 : pp_selector_output_late(core);
}

/* scope.c */
/* A new scope dict for the request that begins on conn; NULL with an exception. */
PyObject *pp_scope_new(PpCore *core, struct pp_conn *conn);
int pp_scope_setup(PpCore *core); /* the templates; -1 with an exception */
/* The peer as (host, port) tuple or None (new reference), cached on the connection. */
PyObject *pp_scope_client(PpCore *core, struct pp_conn *conn);
/* The local address as (host, port) or (path, None). New reference. */
PyObject *pp_scope_server(PpCore *core, struct pp_conn *conn);
/* Percent-decoded, then UTF-8 with U+FFFD for what is malformed. New str. */
/* Takes "auto", "stripped" or "unstripped"; NULL is "auto". -1 with an exception. */
int pp_scope_set_root_path_mode(PpCore *core, const char *name);
int pp_scope_under_root(PyObject *root_path, PyObject *path);
PyObject *pp_scope_decode_path(const uint8_t *data, size_t len, bool encoded);

/* asgi.c */
void pp_asgi_run_batch(PpCore *core); /* never raises */
extern PyType_Spec pp_request_spec, pp_receive_spec;
typedef struct PpRequest PpRequest;
/* The application's coroutine ended, failed: with the raised exception set (it is consumed, except
 * that CancelledError is left raised). Answers what the application left unanswered. Returns -1
 * when an exception is left raised. */
int pp_request_app_ended(PpRequest *req, PyObject *scope, bool failed);
void pp_request_forked(PpRequest *req); /* in a forked child: its connection is the parent's */
/* What receive() has now: 1 and a message, 0 when it has to wait, -1 with an exception. */
int pp_request_try_receive(PpRequest *req, PyObject **message);
/* The same for a send() that waits for the output to drain. */
int pp_request_try_drain(PpRequest *req, PyObject **none);
/* Where the futures of waiting receive() and send() calls are kept: pointer to a list or NULL. */
enum pp_wait_kind {
    PP_WAIT_RECEIVE,
    PP_WAIT_DRAIN,    /* a send() that waits for the peer to read */
    PP_WAIT_NOWHERE,  /* a send() after a disconnect: others go first, then it is done... */
    PP_WAIT_FAREWELL, /* ...or raises ClientDisconnected */
};
PyObject **pp_request_waiters(PpRequest *req, enum pp_wait_kind kind);
void pp_request_raise_disconnected(PpRequest *req);
/* How many turns of the loop a send() after a disconnect leaves to others. */
int pp_request_farewell_turns(PpRequest *req);
PpCore *pp_request_core(PpRequest *req);
/* -1 with an exception unless this is the loop's thread, the only one that may touch a connection.
 */
int pp_request_check_thread(PpRequest *req);

/* awaitable.c: what receive() and send() return. */
extern PyType_Spec pp_done_spec, pp_wait_spec;
PyObject *pp_done_new(PpCore *core);
PyObject *pp_wait_new(PpRequest *req, enum pp_wait_kind kind);
void pp_wake_waiters(PpCore *core, PyObject **waiters); /* never raises */
/* send()/tp_iternext()/throw() of our awaitables, in terms of am_send. */
PyObject *pp_awaitable_next(PyObject *self);
PyObject *pp_awaitable_send(PyObject *self, PyObject *value);
/* throw(type_or_exc[, value[, tb]]) arguments -> raised exception; always returns NULL. */
PyObject *pp_raise_thrown(PyObject *const *args, Py_ssize_t nargs);

/* worker.c */
extern PyType_Spec pp_runner_spec;
/* Runs the application for one request by core->task_mode; never raises. */
void pp_worker_run(PpCore *core, PpRequest *req, PyObject *scope, PyObject *receive);
/* Whether an attribute is true; -1 with an exception. */
int pp_flag_of(PyObject *object, PyObject *attr);
void pp_worker_batch_end(PpCore *core); /* leaves the worker Task if one was entered */
void pp_worker_drop(PpCore *core);      /* at close */

/* wsgi.c: everything of section WSGI; see the head of that file. */
extern PyType_Spec pp_wsgi_input_spec, pp_wsgi_start_spec, pp_file_wrapper_spec;
extern PyMethodDef pp_wsgi_methods[]; /* serve_wsgi, serve_parallel, run_wsgi: Core's, too */
int pp_wsgi_traverse(PpCore *core, visitproc visit, void *arg);
void pp_wsgi_clear(PpCore *core);
/* How many protocols of the parallel API it serves; 0: none, it serves something else. */
unsigned pp_wsgi_protocols(const PpCore *core);
/* For how long requests have waited for a thread without a break; 0: none waits. Any thread. */
uint64_t pp_wsgi_waiting_ms(const PpCore *core);
void pp_wsgi_wake(PpCore *core); /* drain() was requested; any thread */
void pp_wsgi_stop(PpCore *core); /* stop() was requested; any thread */

/* transport.c: a connection as protocols of the parallel API see it. */
extern PyType_Spec pp_transport_spec;

/* shared.c, shared_array.c: the types of ppserver.shared. */
extern PyType_Spec pp_shared_counter_spec, pp_shared_array_spec;

#endif
