/* Latency histogram: log-linear buckets as in HdrHistogram, 7 bits of mantissa, so that a percentile is at
 * most 0.8 % above the true value. Values 0 .. 2^63; fixed memory (about 58 KiB), no allocation per record.
 */
#ifndef UTIL_HIST_H
#define UTIL_HIST_H

#include <stdint.h>

#define HIST_SUB     128
#define HIST_BUCKETS (HIST_SUB * 57)

struct hist {
    uint64_t count, sum, min, max;
    uint64_t at[HIST_BUCKETS];
};

void hist_reset(struct hist *h);
void hist_add(struct hist *h, uint64_t value);
void hist_merge(struct hist *into, const struct hist *from);
/* The value at or below which `permille10` / 10,000 of the records lie (9900 = p99); 0 when empty. */
uint64_t hist_quantile(const struct hist *h, unsigned permyriad);

#endif
