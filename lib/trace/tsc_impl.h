/* CLOCK_MONOTONIC without its call: a calibrated time stamp counter (11 ns instead of 27 here). */
#ifndef TRACE_TSC_IMPL_H
#define TRACE_TSC_IMPL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "util/clock.h"

/* A line through a measured point; several, so that one can be replaced while others read. A reader would
 * have to sleep through TSC_LINES - 1 recalibrations (each >= 10 ms apart) between two loads to see a torn
 * one, and `valid` tells it then. */
#define TSC_LINES 8
struct tsc_line {
    _Atomic uint64_t base, base_ns, mult;
};
struct tsc {
    _Atomic uint32_t current;
    _Atomic bool usable;
    uint64_t rate_base, rate_base_ns; /* where the slope is measured from */
    struct tsc_line line[TSC_LINES];
};

/* Takes about 2 ms where the counter can be used, nothing elsewhere. */
void tsc_init(struct tsc *t);
/* From one thread only. A counter that disagrees with the clock by more than 1 ms is abandoned for good. */
void tsc_recalibrate(struct tsc *t);

static inline uint64_t tsc_read(void)
{
#if defined __x86_64__
    return __builtin_ia32_rdtsc();
#else
    return 0;
#endif
}

static inline uint64_t tsc_line_at(const struct tsc_line *l, uint64_t tsc)
{
    uint64_t base = atomic_load_explicit(&l->base, memory_order_relaxed);
    uint64_t ns = atomic_load_explicit(&l->base_ns, memory_order_relaxed);
    uint64_t mult = atomic_load_explicit(&l->mult, memory_order_relaxed);
    /* signed: another core may have recalibrated a moment after our reading */
    return ns + (uint64_t)(((__int128)(int64_t)(tsc - base) * (int64_t)mult) >> 32);
}

/* Now, in ns of CLOCK_MONOTONIC. */
static inline uint64_t tsc_now(const struct tsc *t)
{
    if (__builtin_expect(!atomic_load_explicit(&t->usable, memory_order_relaxed), 0))
        return clock_mono_ns();
    for (;;) {
        uint32_t at = atomic_load_explicit(&t->current, memory_order_acquire);
        uint64_t ns = tsc_line_at(&t->line[at % TSC_LINES], tsc_read());
        atomic_thread_fence(memory_order_acquire);
        uint32_t end = atomic_load_explicit(&t->current, memory_order_relaxed);
        if (__builtin_expect(end - at < TSC_LINES - 1, 1))
            return ns;
    }
}

#endif
