/* Protocols of the parallel API: callbacks of raw connections, methods of `http11` ones.
 *
 *   parallel_protocols.c   what is served
 *   transport.c            a connection as protocols see it: its life, and its output
 *   parallel_callbacks.c   what a raw connection's protocol is told
 *   parallel_run.c         runs of callbacks
 *   parallel_raw.c         events of raw connections
 *   parallel_http11.c      requests
 *   transport_type.c       the type Transport
 *
 * They run on the leader and its followers (lead.h) as WSGI applications do: on the leader's own
 * thread, without a hand-off, and a callback that takes long loses the leadership. What a
 * transport's callbacks give is collected in it and carried out by the leader when they are over:
 * by the same thread while it still leads, else by message.
 *
 * A connection's events come merged, and its callbacks run one at a time; what happens meanwhile
 * waits in t->events. So one connection never runs in two threads, and its output is in order.
 *
 *   raw      the transport has the connection from its beginning to its end
 *   http11   the transport is the connection's user (ex.h) and has it during each request */
#include "bridge/parallel.h"
#include "bridge/lead.h"
#include "bridge/lead_word.h"
#include "bridge/parallel_base.h"
#include "bridge/parallel_http11.h"
#include "bridge/parallel_protocols.h"
#include "bridge/parallel_raw.h"
#include "bridge/parallel_run.h"
#include "bridge/queue.h"

#include "net/raw.h"

/* ---- what the executor asks ---- */

static bool run_waiting(struct pp_lead_worker *self)
{
    return pp_queue_run_ready(&pp_par_of(self->lead)->queue, self) && pp_par_run_ready(self);
}

static bool waits(const struct pp_lead *lead)
{
    const struct pp_par *par = PP_CONTAINER(lead, struct pp_par, lead);
    return pp_queue_has_ready(&par->queue) || !pp_list_empty(&par->ready);
}

static bool on_event(struct pp_lead_worker *self, struct pp_exchange *ex, unsigned events)
{
    struct pp_queue_slot *slot = pp_exchange_app(ex);
    if (pp_exchange_is_raw(ex)) {
        return pp_par_raw_event(self, ex, events);
    }
    if (events & PP_EV_REQUEST) {
        PP_ASSERT(slot == NULL);
        return pp_queue_request(&pp_par_of(self->lead)->queue, self, ex);
    }
    /* The answer to a request that runs finds out what happened meanwhile. */
    return slot == NULL || !slot->queued || pp_queue_event(self, slot, events);
}

static void abandon(struct pp_lead *Py_UNUSED(lead), struct pp_exchange *ex)
{
    struct pp_queue_slot *slot = pp_exchange_app(ex);
    if (slot->queued) {
        pp_queue_abandon(slot);
    } else {
        pp_par_abandon(PP_CONTAINER(slot, PpTransport, slot));
    }
}

static void ended(struct pp_lead *lead)
{
    struct pp_list *n;
    while ((n = pp_list_pop(&pp_par_of(lead)->left)) != NULL) {
        Py_DECREF((PyObject *)PP_CONTAINER(n, PpTransport, link));
    }
}

static int traverse(struct pp_lead *lead, visitproc visit, void *arg)
{
    return pp_par_protocols_visit(pp_par_of(lead), visit, arg);
}

static void fini(struct pp_lead *lead)
{
    struct pp_par *par = pp_par_of(lead);
    PP_ASSERT(pp_list_empty(&par->left)); /* each of them counts its context */
    pp_queue_fini(&par->queue);
    pp_par_protocols_fini(par);
}

static const struct pp_lead_ops par_ops = {
    .thread_name = "ppserver-wsgi",
    .run_waiting = run_waiting,
    .on_event = on_event,
    .waits = waits,
    .abandon = abandon,
    .ended = ended,
    .traverse = traverse,
    .fini = fini,
};

/* ---- methods of Core ---- */

/* What the core serves, if that is protocols; else NULL. */
static struct pp_par *par_of_core(const PpCore *core)
{
    return core->lead != NULL && core->lead->ops == &par_ops ? pp_par_of(core->lead) : NULL;
}

static PyObject *serve_parallel(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"protocols", "threads", "on_error", NULL};
    PpCore *core = (PpCore *)self;
    PyObject *protocols, *on_error = Py_None;
    int threads = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!|$iO:serve_parallel", keywords, &PyTuple_Type,
                                     &protocols, &threads, &on_error)) {
        return NULL;
    }
    struct pp_lead *lead = pp_lead_new(core, sizeof(struct pp_par), threads, &par_ops);
    if (lead == NULL) {
        return NULL;
    }
    struct pp_par *par = pp_par_of(lead);
    pp_queue_init(&par->queue, lead, true, pp_par_request);
    pp_list_init(&par->ready);
    pp_list_init(&par->left);
    if (pp_par_protocols_init(par, protocols) < 0) {
        pp_lead_unref(lead);
        return NULL;
    }
    Py_XSETREF(core->app, Py_NewRef(protocols));
    Py_XSETREF(core->on_error, on_error == Py_None ? NULL : Py_NewRef(on_error));
    core->lead = lead;
    core->protocols = par->count;
    core->mode = &pp_lead_mode;
    Py_RETURN_NONE;
}

struct bring_op {
    struct pp_lead_op op; /* first */
    struct pp_loop *loop;
    int fd;       /* the loop's from now on, if rc is PP_OK... */
    uint16_t tag; /* ...as one of that listener */
    int rc;       /* out */
};

static bool apply_bring(struct pp_lead_op *asked)
{
    struct bring_op *op = PP_CONTAINER(asked, struct bring_op, op);
    op->rc = pp_loop_bring(op->loop, op->fd, op->tag);
    return true;
}

/* What the core serves, counted; NULL with an exception. close() in another thread lets go of it.
 */
static struct pp_par *par_counted(PpCore *core)
{
    struct pp_par *par = NULL;
    Py_BEGIN_CRITICAL_SECTION(core);
    if (pp_core_check_open(core) == 0) {
        par = par_of_core(core);
        if (par != NULL) {
            pp_lead_ref(&par->lead);
        } else {
            PyErr_SetString(PyExc_ValueError, "bring: a raw protocol must be served by that tag");
        }
    }
    Py_END_CRITICAL_SECTION();
    return par;
}

static PyObject *bring(PyObject *self, PyObject *args)
{
    struct bring_op op = {.op.apply = apply_bring};
    unsigned int tag;
    if (!PyArg_ParseTuple(args, "iI:bring", &op.fd, &tag)) {
        return NULL;
    }
    struct pp_par *par = par_counted((PpCore *)self);
    if (par == NULL) {
        return NULL;
    }
    if (tag >= par->count || !par->protocols[tag].raw) {
        PyErr_SetString(PyExc_ValueError, "bring: a raw protocol must be served by that tag");
        pp_lead_unref(&par->lead);
        return NULL;
    }
    op.loop = par->lead.loop;
    op.tag = (uint16_t)(tag | PP_TAG_RAW);
    struct pp_lead_worker *worker = pp_lead_self();
    bool posted = true;
    if (worker != NULL && worker->lead == &par->lead && pp_lead_enter(worker)) {
        (void)apply_bring(&op.op);
        pp_lead_exit(worker);
    } else {
        posted = pp_lead_ask(&par->lead, &op.op);
    }
    pp_lead_unref(&par->lead);
    if (!posted) {
        PyErr_SetString(PyExc_RuntimeError, "bring: the core does not run");
        return NULL;
    }
    if (op.rc != PP_OK) {
        PyErr_SetString(PyExc_OSError, "bring: the socket is not connected");
        return NULL;
    }
    Py_RETURN_NONE;
}

PyMethodDef pp_par_methods[] = {
    {"serve_parallel", (PyCFunction)(void (*)(void))serve_parallel, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR(
         "serve_parallel(protocols, *, threads=1, on_error=None)\n\nServe protocols of the "
         "parallel API; run_wsgi() does the work. protocols: tuple of dicts, each what a protocol "
         "is by name; its position is the tag of its listeners. threads: how many callbacks may "
         "run at a time.")},
    {"bring", bring, METH_VARARGS,
     PyDoc_STR("bring(fd, tag)\n\nServe a connected, non-blocking stream socket by the raw "
               "protocol of that tag; the descriptor is the core's from then on. From any thread. "
               "Raises OSError if it is not connected, RuntimeError if "
               "run_wsgi() does not run (any more): then it stays the caller's.")},
    {NULL, NULL, 0, NULL},
};
