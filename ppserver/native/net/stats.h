/* Counters of one loop: written by its owner, read by anyone (relaxed, each value whole). */
#ifndef PP_NET_STATS_H
#define PP_NET_STATS_H

#include <stdint.h>

#include "base/err.h"

/* Monotone; nothing but 64-bit counters. */
struct pp_counters {
    uint64_t accepted, closed, accept_errors, requests, responses[6] /* [0]: none, [1]: 1xx .. */;
    uint64_t bytes_in, bytes_out, turns, batches;
    uint64_t errors[PP_ERR_COUNT];
    uint64_t accept_pauses, log_lines_dropped;
    uint64_t handed_in, handed_out; /* connections that changed their context (balance.h) */
    uint64_t upgrades; /* requests that asked for another protocol, and got an answer in this one */
    uint64_t tried, tried_well; /* receives right after accept, and those that paid */
};

static inline void pp_stats_add(uint64_t *counter, uint64_t n)
{
    /* One writer: a plain add that a reader in another thread never sees half of. */
    __atomic_store_n(counter, __atomic_load_n(counter, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}
static inline void pp_stats_set32(uint32_t *gauge, uint32_t n)
{
    __atomic_store_n(gauge, n, __ATOMIC_RELAXED);
}
static inline void pp_stats_set64(uint64_t *gauge, uint64_t n)
{
    __atomic_store_n(gauge, n, __ATOMIC_RELAXED);
}
void pp_stats_error(struct pp_counters *counters, int code);
void pp_stats_response(struct pp_counters *counters, int status);

#endif
