/* Timer wheel: three levels of 256 slots, a tick of 64 ms.
 *
 * Level 0 has a slot per tick (16 s), level 1 one per 256 ticks (70 min), level 2 one per 65536
 * (12 days). When the tick counter crosses a multiple of 256, the level 1 slot that begins there is
 * dealt out to level 0, and likewise level 2 to level 1; so a timer moves at most twice. Arming and
 * cancelling are O(1). The owner tells the time and pops what expired; no callbacks.
 * One loop's thread only. Leaves out: clocks, and precision below a tick. */
#include "base/timer.h"

#include <assert.h>

#include "base/assert.h"

#define SLOT_MASK ((uint64_t)PP_TIMER_SLOTS - 1)
#define LEVEL_BITS 8
#define REACH_TICKS ((uint64_t)1 << (LEVEL_BITS * PP_TIMER_LEVELS))
#define WAIT_MS_MAX 60000

static_assert(PP_TIMER_SLOTS == 1 << LEVEL_BITS, "slot numbers are bit fields of the tick");

/* No timer fires early: deadlines are rounded up. */
static uint64_t due_tick(uint64_t due_ms)
{
    return due_ms / PP_TIMER_TICK_MS + (due_ms % PP_TIMER_TICK_MS != 0);
}

static void mark(struct pp_wheel *wheel, uint64_t slot)
{
    wheel->occupied[slot / 64] |= (uint64_t)1 << (slot % 64);
}

static void place(struct pp_wheel *wheel, struct pp_timer *timer, uint64_t tick)
{
    PP_ASSERT(tick >= wheel->now_tick);
    uint64_t ahead = tick - wheel->now_tick;
    if (ahead >= REACH_TICKS) {
        tick = wheel->now_tick + REACH_TICKS - 1; /* sorted again when its slot comes down */
        ahead = REACH_TICKS - 1;
    }
    unsigned level = 0;
    while (ahead >> (LEVEL_BITS * (level + 1)) != 0) {
        level++;
    }
    uint64_t slot = (tick >> (LEVEL_BITS * level)) & SLOT_MASK;
    if (level == 0) {
        mark(wheel, slot);
    }
    pp_list_push(&wheel->slots[level][slot], &timer->link);
}

void pp_wheel_init(struct pp_wheel *wheel, uint64_t now_ms)
{
    wheel->now_tick = now_ms / PP_TIMER_TICK_MS;
    wheel->count = 0;
    for (unsigned i = 0; i < PP_TIMER_SLOTS / 64; i++) {
        wheel->occupied[i] = 0;
    }
    for (unsigned level = 0; level < PP_TIMER_LEVELS; level++) {
        for (unsigned slot = 0; slot < PP_TIMER_SLOTS; slot++) {
            pp_list_init(&wheel->slots[level][slot]);
        }
    }
    pp_list_init(&wheel->expired);
}

void pp_timer_init(struct pp_timer *timer, pp_timer_fn *fire)
{
    pp_list_init(&timer->link);
    timer->due_ms = 0;
    timer->fire = fire;
}

void pp_timer_set(struct pp_wheel *wheel, struct pp_timer *timer, uint64_t due_ms)
{
    pp_timer_cancel(wheel, timer);
    timer->due_ms = due_ms;
    uint64_t tick = due_tick(due_ms);
    /* The current tick's slot has been emptied already; and a timer armed again with a deadline in
     * the past while expired ones are popped must not keep that loop going for ever. */
    if (tick <= wheel->now_tick) {
        tick = wheel->now_tick + 1;
    }
    place(wheel, timer, tick);
    wheel->count++;
}

void pp_timer_cancel(struct pp_wheel *wheel, struct pp_timer *timer)
{
    if (pp_timer_armed(timer)) {
        PP_ASSERT(wheel->count > 0);
        pp_list_remove(&timer->link);
        wheel->count--;
    }
}

/* Deals a slot of a higher level out to the levels below it. */
static void cascade(struct pp_wheel *wheel, unsigned level, uint64_t slot)
{
    struct pp_list *list = &wheel->slots[level][slot];
    struct pp_list moved;
    pp_list_init(&moved);
    /* Taken out first: a timer beyond the reach may go back to the very slot it came from. */
    for (struct pp_list *n; (n = pp_list_pop(list)) != NULL;) {
        pp_list_push(&moved, n);
    }
    for (struct pp_list *n; (n = pp_list_pop(&moved)) != NULL;) {
        struct pp_timer *timer = PP_CONTAINER(n, struct pp_timer, link);
        uint64_t tick = due_tick(timer->due_ms);
        place(wheel, timer, tick < wheel->now_tick ? wheel->now_tick : tick);
    }
}

static void expire_tick(struct pp_wheel *wheel)
{
    uint64_t tick = wheel->now_tick;
    if ((tick & SLOT_MASK) == 0) {
        uint64_t second = (tick >> LEVEL_BITS) & SLOT_MASK;
        if (second == 0) {
            cascade(wheel, 2, (tick >> (2 * LEVEL_BITS)) & SLOT_MASK);
        }
        cascade(wheel, 1, second);
    }
    uint64_t slot = tick & SLOT_MASK;
    for (struct pp_list *n; (n = pp_list_pop(&wheel->slots[0][slot])) != NULL;) {
        pp_list_push(&wheel->expired, n);
    }
    wheel->occupied[slot / 64] &= ~((uint64_t)1 << (slot % 64));
}

void pp_wheel_advance(struct pp_wheel *wheel, uint64_t now_ms)
{
    uint64_t target = now_ms / PP_TIMER_TICK_MS;
    if (wheel->count == 0 && target > wheel->now_tick) {
        wheel->now_tick = target; /* nothing to deal out on the way; stale hints do no harm */
        return;
    }
    while (wheel->now_tick < target) {
        wheel->now_tick++;
        expire_tick(wheel);
    }
}

struct pp_timer *pp_wheel_pop(struct pp_wheel *wheel)
{
    struct pp_list *n = pp_list_pop(&wheel->expired);
    if (n == NULL) {
        return NULL;
    }
    PP_ASSERT(wheel->count > 0);
    wheel->count--;
    return PP_CONTAINER(n, struct pp_timer, link);
}

/* Ticks from now to the first occupied slot of level 0, at most `most`. */
static uint64_t first_occupied(const struct pp_wheel *wheel, uint64_t most)
{
    uint64_t ahead = 1;
    while (ahead < most) {
        uint64_t slot = (wheel->now_tick + ahead) & SLOT_MASK;
        uint64_t bits = wheel->occupied[slot / 64] >> (slot % 64);
        if (bits == 0) {
            ahead += 64 - slot % 64;
            continue;
        }
        unsigned skip = (unsigned)__builtin_ctzll(bits);
        ahead += skip;
        if (ahead < most && !pp_list_empty(&wheel->slots[0][slot + skip])) {
            return ahead;
        }
        ahead++;
    }
    return most;
}

int pp_wheel_wait_ms(const struct pp_wheel *wheel, uint64_t now_ms)
{
    if (wheel->count == 0) {
        return -1;
    }
    if (!pp_list_empty(&wheel->expired)) {
        return 0;
    }
    /* The next multiple of 256 ticks may deal out more: look no further than that. */
    uint64_t border = PP_TIMER_SLOTS - (wheel->now_tick & SLOT_MASK);
    uint64_t due_ms = (wheel->now_tick + first_occupied(wheel, border)) * PP_TIMER_TICK_MS;
    uint64_t wait_ms = due_ms > now_ms ? due_ms - now_ms : 0;
    return wait_ms > WAIT_MS_MAX ? WAIT_MS_MAX : (int)wait_ms;
}
