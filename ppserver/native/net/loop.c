/* What every file of net/ may use of a loop: its clock, its batch, its owner, its figures
 * (contract: loop.h). The turn is in turn.c. */
#include "net/loop.h"
#include "net/sys.h"

#include <string.h>

#include "net/loop_impl.h"

#ifdef PP_TEST_CLOCK
uint64_t (*pp_loop_test_clock)(void);
int64_t (*pp_loop_test_wall_ms)(void);
#endif

uint64_t pp_loop_clock_us(void)
{
    struct timespec ts;
#ifdef PP_TEST_CLOCK
    if (pp_loop_test_clock != NULL) {
        return pp_loop_test_clock() * 1000;
    }
#endif
    (void)pp_sys_clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

void pp_loop_set_now(struct pp_loop *loop)
{
    loop->now_us = pp_loop_clock_us();
    loop->now_ms = loop->now_us / 1000;
}

static int64_t wall_ms(void)
{
    struct timespec ts;
#ifdef PP_TEST_CLOCK
    if (pp_loop_test_wall_ms != NULL) {
        return pp_loop_test_wall_ms();
    }
#endif
    (void)pp_sys_clock_gettime(CLOCK_REALTIME_COARSE, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

const char *pp_loop_date(struct pp_loop *loop)
{
    if (!loop->settings.date_header) {
        return NULL;
    }
    if (loop->now_ms >= loop->date_next_ms) {
        int64_t wall = wall_ms();
        pp_h1_write_date(wall / 1000, loop->date);
        loop->date_next_ms = loop->now_ms + (uint64_t)(1000 - wall % 1000);
    }
    return loop->date;
}

/* ---- batches ---- */

void pp_loop_batch(struct pp_loop *loop)
{
    PP_LOOP_ENTER(loop);
    loop->batch_left = PP_BATCH_REQUESTS;
    loop->batch_us = 0;
}

bool pp_loop_batch_goes_on(struct pp_loop *loop)
{
    pp_loop_set_now(loop);
    if (loop->batch_us == 0) {
        loop->batch_us = loop->now_us;
    }
    return loop->now_us - loop->batch_us < PP_BATCH_US;
}

/* ---- owners, other threads, figures ---- */

void pp_loop_adopt(struct pp_loop *loop)
{
    PP_CHECK(loop->magic == PP_LOOP_MAGIC);
    loop->owner = pp_sys_pthread_self();
}

bool pp_loop_owned(const struct pp_loop *loop)
{
    return pp_sys_pthread_equal(loop->owner, pp_sys_pthread_self()) != 0;
}

int pp_loop_fd(const struct pp_loop *loop)
{
    return loop->poll_fd;
}

void pp_loop_wake(struct pp_loop *loop)
{
    pp_mailbox_wake(&loop->mailbox);
}

void pp_loop_post(struct pp_loop *loop, struct pp_msg *msg)
{
    pp_mailbox_post(&loop->mailbox, msg);
}

struct pp_msg *pp_loop_take_msg(struct pp_loop *loop)
{
    PP_LOOP_ENTER(loop);
    return pp_mailbox_take(&loop->mailbox);
}

uint32_t pp_loop_connections(const struct pp_loop *loop)
{
    return __atomic_load_n(&loop->slot->connections, __ATOMIC_RELAXED);
}

uint32_t pp_loop_in_flight(const struct pp_loop *loop)
{
    return __atomic_load_n(&loop->slot->in_flight, __ATOMIC_RELAXED);
}

const struct pp_counters *pp_loop_counters(const struct pp_loop *loop)
{
    return &loop->slot->counters;
}

void pp_loop_stuck(struct pp_loop *loop, bool stuck)
{
    pp_stats_set32(&loop->slot->stuck, stuck);
}

const struct pp_slot *pp_loop_slot(const struct pp_loop *loop)
{
    return loop->slot;
}

void pp_loop_take_bodies(struct pp_loop *loop)
{
    loop->take_bodies = true;
}

uint64_t pp_loop_clock_ms(void)
{
    return pp_loop_clock_us() / 1000;
}

uint64_t pp_loop_now_ms(const struct pp_loop *loop)
{
    return loop->now_ms;
}
