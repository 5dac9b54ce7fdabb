/* Histogram with logarithmic buckets: four per power of two, so a quantile is off by at most 25 %.
 *
 * One writer, any number of readers: buckets are plain aligned counters that only grow. */
#ifndef PP_BASE_HIST_H
#define PP_BASE_HIST_H

#include <stdint.h>

#define PP_HIST_SUB_BITS 2
#define PP_HIST_BUCKETS ((64 - PP_HIST_SUB_BITS + 1) << PP_HIST_SUB_BITS)

struct pp_hist {
    uint64_t count, sum; /* sum wraps */
    uint64_t buckets[PP_HIST_BUCKETS];
};

void pp_hist_init(struct pp_hist *hist);
void pp_hist_add(struct pp_hist *hist, uint64_t value);
void pp_hist_merge(struct pp_hist *into, const struct pp_hist *from);
/* The upper end of the bucket that holds the given share (in thousandths, 0..1000) of all values;
 * 0 for an empty histogram. */
uint64_t pp_hist_quantile(const struct pp_hist *hist, unsigned permille);
unsigned pp_hist_bucket(uint64_t value);       /* the bucket a value falls in */
uint64_t pp_hist_bucket_last(unsigned bucket); /* the greatest value of that bucket */

#endif
