#include "util/hist.h"

#include <string.h>

void hist_reset(struct hist *h)
{
    memset(h, 0, sizeof *h);
}

static unsigned bucket_of(uint64_t v)
{
    if (v < HIST_SUB)
        return (unsigned)v;
    unsigned shift = 63u - (unsigned)__builtin_clzll(v) - 7;
    unsigned b = (shift + 1) * HIST_SUB + (unsigned)(v >> shift) - HIST_SUB;
    return b < HIST_BUCKETS ? b : HIST_BUCKETS - 1;
}

static uint64_t bucket_top(unsigned b)
{
    if (b < HIST_SUB)
        return b;
    unsigned shift = b / HIST_SUB - 1;
    return ((uint64_t)(b % HIST_SUB + HIST_SUB + 1) << shift) - 1;
}

void hist_add(struct hist *h, uint64_t value)
{
    if (!h->count || value < h->min)
        h->min = value;
    if (value > h->max)
        h->max = value;
    h->count++;
    h->sum += value;
    h->at[bucket_of(value)]++;
}

void hist_merge(struct hist *into, const struct hist *from)
{
    if (!from->count)
        return;
    if (!into->count || from->min < into->min)
        into->min = from->min;
    if (from->max > into->max)
        into->max = from->max;
    into->count += from->count;
    into->sum += from->sum;
    for (unsigned i = 0; i < HIST_BUCKETS; i++)
        into->at[i] += from->at[i];
}

uint64_t hist_quantile(const struct hist *h, unsigned permyriad)
{
    if (!h->count)
        return 0;
    uint64_t want = (uint64_t)(((unsigned __int128)h->count * permyriad + 9999) / 10000), seen = 0;
    if (!want)
        return h->min;
    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        seen += h->at[i];
        if (seen >= want)
            return bucket_top(i) < h->max ? bucket_top(i) : h->max;
    }
    return h->max;
}
