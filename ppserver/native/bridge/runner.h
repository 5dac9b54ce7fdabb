/* The worker Task's coroutine, for worker.c and what it uses (what it is for: worker.c). */
#ifndef PP_BRIDGE_RUNNER_H
#define PP_BRIDGE_RUNNER_H

#include "bridge/app_call.h"

/* The diagram is at the head of worker.c. */
enum pp_runner_state { IDLE, PARKED, ADOPTED, RUNNING, DISCARDED, DONE };

typedef struct PpRunner PpRunner;
struct PpRunner {
    PyObject_HEAD
    PpCore *core;    /* owned */
    PyObject *send;  /* owned or NULL: the request, for `ended` */
    PyObject *scope; /* owned or NULL */
    PyObject *coro;  /* owned or NULL: the application's coroutine or other awaitable's iterator */
    PyObject *first; /* owned or NULL: what the application waits for (ADOPTED) */
    PyObject *parking; /* owned or NULL: the future we wait on (PARKED) */
    bool first_blocks; /* first is a future that is to be marked as awaited again (ADOPTED) */
    bool running;      /* inside a step of the application */
    uint8_t state;     /* enum pp_runner_state */
    uint8_t seen_as;   /* PP_RUNNER_SEEN_AS */
    PyObject *task; /* owned or NULL: our Task, while core->tasks keeps it alive (or DISCARDED) */
    /* Hands no more requests to this runner, if it is the idle worker's; the caller holds a
     * reference to it. */
    void (*retire)(PpRunner *self);
    pp_app_ended *ended; /* with send */
};

extern PyType_Spec pp_runner_spec;

/* `python -m asyncio ps` and whatever else reads a process's Tasks from outside (3.14 and later)
 * takes each Task's coroutine for one of the interpreter's, without a look at its type. Where such
 * a one has the state of its frame, ours says that the frame is gone: the reader goes on to the
 * next Task, instead of ending with an error over what it takes for a frame. Nothing else depends
 * on it, and tests/integration/test_introspection.py sees if it is right no more. */
#if PY_VERSION_HEX >= 0x030F0000
#define PP_RUNNER_SEEN_AS 5
#else
#define PP_RUNNER_SEEN_AS 4
#endif
#ifndef Py_GIL_DISABLED /* whose objects begin with another header */
static_assert(offsetof(PpRunner, seen_as) == 67, "as in a coroutine of 3.14 and 3.15");
#endif

/* An idle runner; NULL with an exception. */
PpRunner *pp_runner_new(PpCore *core, void (*retire)(PpRunner *self));
/* It works for this request from now on. */
void pp_runner_set_request(PpRunner *self, const struct pp_app_call *call);
/* Drops everything but the core; may run destructors. */
void pp_runner_forget(PpRunner *self);
/* Gives a Task that waits on the parking future a step; one that has not begun yet has one coming.
 * Never raises. */
void pp_runner_unpark(PpRunner *self);

#endif
