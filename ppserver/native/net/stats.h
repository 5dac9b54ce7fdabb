/* Counters of one loop: written by its owner, read by anyone (relaxed, each value whole). */
#ifndef PP_NET_STATS_H
#define PP_NET_STATS_H

#include "net/loop.h"

static inline void pp_stats_add(uint64_t *counter, uint64_t n)
{
    /* One writer: a plain add that a reader in another thread never sees half of. */
    __atomic_store_n(counter, __atomic_load_n(counter, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}
static inline void pp_stats_set32(uint32_t *gauge, uint32_t n)
{
    __atomic_store_n(gauge, n, __ATOMIC_RELAXED);
}
void pp_stats_error(struct pp_counters *counters, int code);
void pp_stats_response(struct pp_counters *counters, int status);

#endif
