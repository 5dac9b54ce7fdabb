/* Timer wheel. It is given the time, never asks for it. Coarse on purpose (a tick is
 * PP_TIMER_TICK_MS): it carries time-outs of connections and requests, not application timers.
 *
 * Owners that move their deadline with every request do not touch the wheel: they keep the true
 * deadline themselves, let the timer fire at the old one and re-arm it for the rest. */
#ifndef PP_BASE_TIMER_H
#define PP_BASE_TIMER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"

#define PP_TIMER_TICK_MS 64
#define PP_TIMER_SLOTS 256 /* per level */
#define PP_TIMER_LEVELS 3

struct pp_timer;
/* What a timer does when it has fired; context: of who pops it (the loop). It may set it again. */
typedef void pp_timer_fn(struct pp_timer *timer, void *context);

struct pp_timer {
    struct pp_list link; /* a slot's list, or unlinked */
    uint64_t due_ms;
    pp_timer_fn *fire;
};

struct pp_wheel {
    uint64_t now_tick;
    uint64_t count;                         /* armed timers, expired ones not yet popped too */
    uint64_t occupied[PP_TIMER_SLOTS / 64]; /* a hint for level 0: a clear bit is an empty slot */
    struct pp_list slots[PP_TIMER_LEVELS][PP_TIMER_SLOTS];
    struct pp_list expired;
};

void pp_wheel_init(struct pp_wheel *wheel, uint64_t now_ms);
void pp_timer_init(struct pp_timer *timer, pp_timer_fn *fire);
/* (Re-)arms; fires at the first tick at or after due_ms, never before. Deadlines beyond the
 * wheel's reach are kept in its last slot and re-sorted. */
void pp_timer_set(struct pp_wheel *wheel, struct pp_timer *timer, uint64_t due_ms);
void pp_timer_cancel(struct pp_wheel *wheel, struct pp_timer *timer); /* harmless when not armed */
static inline bool pp_timer_armed(const struct pp_timer *timer)
{
    return pp_list_linked(&timer->link);
}
/* Moves the wheel on; then pp_wheel_pop gives the expired timers one by one (NULL: none left). */
void pp_wheel_advance(struct pp_wheel *wheel, uint64_t now_ms);
struct pp_timer *pp_wheel_pop(struct pp_wheel *wheel);
/* Milliseconds until something may expire (a lower bound, 0..60000); -1 when nothing is armed. */
int pp_wheel_wait_ms(const struct pp_wheel *wheel, uint64_t now_ms);

#endif
