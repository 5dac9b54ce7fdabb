/* A place for one thread to wait until another wakes it, with a time-out if wanted.
 *
 * Wake-ups are counted, none is lost, and some may be stale: the waiter looks at the shared state
 * again after each. pp_park_wake may be called from any thread and from a signal handler. */
#ifndef PP_NET_PARK_H
#define PP_NET_PARK_H

#include <stdint.h>

#include "base/assert.h"
#include "net/sys.h"

struct pp_park {
    sem_t sem;
};

enum pp_park_end {
    PP_PARK_WOKEN,
    PP_PARK_TIMEOUT,
    PP_PARK_SIGNAL /* a signal handler ran on this thread */
};

void pp_park_init(struct pp_park *park);
/* Nobody may wait; a waker may still be on its way out of pp_park_wake. */
void pp_park_fini(struct pp_park *park);
void pp_park_wake(struct pp_park *park);
/* timeout_us < 0: for ever. */
enum pp_park_end pp_park_wait(struct pp_park *park, int64_t timeout_us);
/* Waits for a wake-up whatever signals come. */
void pp_park_wait_woken(struct pp_park *park);

#endif
