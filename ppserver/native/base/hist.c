/* Log-bucketed histogram: values below 4 have a bucket each, then four buckets per power of two.
 *
 * Written by one loop's thread, read by anybody; a reader that races with the writer sees counts a
 * moment old. Leaves out: units, and resetting (readers subtract two snapshots). */
#include "base/hist.h"

#include <string.h>

#include "base/assert.h"

#define SUB_COUNT (1u << PP_HIST_SUB_BITS)

unsigned pp_hist_bucket(uint64_t value)
{
    if (value < SUB_COUNT) {
        return (unsigned)value;
    }
    unsigned top = 63u - (unsigned)__builtin_clzll(value);
    unsigned shift = top - PP_HIST_SUB_BITS;
    unsigned sub = (unsigned)(value >> shift) & (SUB_COUNT - 1);
    return ((shift + 1) << PP_HIST_SUB_BITS) + sub;
}

uint64_t pp_hist_bucket_last(unsigned bucket)
{
    PP_ASSERT(bucket < PP_HIST_BUCKETS);
    if (bucket < SUB_COUNT) {
        return bucket;
    }
    unsigned shift = (bucket >> PP_HIST_SUB_BITS) - 1;
    uint64_t first = (uint64_t)(SUB_COUNT + (bucket & (SUB_COUNT - 1))) << shift;
    return first + (((uint64_t)1 << shift) - 1);
}

void pp_hist_init(struct pp_hist *hist)
{
    memset(hist, 0, sizeof *hist);
}

/* One writer; a reader in another thread or process never sees half a number. */
static void add(uint64_t *counter, uint64_t n)
{
    __atomic_store_n(counter, __atomic_load_n(counter, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}

void pp_hist_add(struct pp_hist *hist, uint64_t value)
{
    add(&hist->count, 1);
    add(&hist->sum, value);
    add(&hist->buckets[pp_hist_bucket(value)], 1);
}

void pp_hist_merge(struct pp_hist *into, const struct pp_hist *from)
{
    into->count += __atomic_load_n(&from->count, __ATOMIC_RELAXED);
    into->sum += __atomic_load_n(&from->sum, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < PP_HIST_BUCKETS; i++) {
        into->buckets[i] += __atomic_load_n(&from->buckets[i], __ATOMIC_RELAXED);
    }
}

uint64_t pp_hist_quantile(const struct pp_hist *hist, unsigned permille)
{
    PP_ASSERT(permille <= 1000);
    uint64_t total = 0, seen = 0;
    for (unsigned i = 0; i < PP_HIST_BUCKETS; i++) {
        total += hist->buckets[i];
    }
    if (total == 0) {
        return 0;
    }
    /* Rounded up, without the overflow that total * permille could have. */
    uint64_t wanted = total / 1000 * permille + (total % 1000 * permille + 999) / 1000;
    if (wanted == 0) {
        wanted = 1;
    }
    for (unsigned i = 0; i < PP_HIST_BUCKETS; i++) {
        seen += hist->buckets[i];
        if (seen >= wanted) {
            return pp_hist_bucket_last(i);
        }
    }
    return UINT64_MAX;
}
