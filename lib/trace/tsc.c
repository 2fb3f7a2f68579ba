#include "trace/tsc_impl.h"

#if defined __x86_64__
#include <cpuid.h>
#endif

#define FIRST_SPAN_NS   (2 * NS_PER_MS) /* a reading is good to ~50 ns: 25 ppm over the first 10 ms */
#define RATE_SPAN_NS    (10 * NS_PER_S) /* the slope follows NTP's slewing within this */
#define DISAGREEMENT_NS (1 * NS_PER_MS)

static bool counter_is_invariant(void)
{
#if defined __x86_64__
    unsigned a, b, c, d;
    return __get_cpuid(0x80000007, &a, &b, &c, &d) && (d >> 8 & 1);
#else
    return false;
#endif
}

/* Counter and clock at one instant: the narrowest of five bracketed readings. */
static void read_both(uint64_t *tsc, uint64_t *ns)
{
    uint64_t best = UINT64_MAX;
    *tsc = *ns = 0;
    for (int i = 0; i < 5; i++) {
        uint64_t a = tsc_read(), t = clock_mono_ns(), b = tsc_read();
        if (b - a < best) {
            best = b - a;
            *tsc = a + (b - a) / 2;
            *ns = t;
        }
    }
}

static void set_line(struct tsc *t, uint64_t tsc, uint64_t ns)
{
    uint64_t ticks = tsc - t->rate_base, span = ns - t->rate_base_ns;
    uint32_t next = atomic_load_explicit(&t->current, memory_order_relaxed) + 1;
    struct tsc_line *l = &t->line[next % TSC_LINES];
    atomic_store_explicit(&l->base, tsc, memory_order_relaxed);
    atomic_store_explicit(&l->base_ns, ns, memory_order_relaxed);
    atomic_store_explicit(&l->mult, (uint64_t)(((unsigned __int128)span << 32) / ticks),
                          memory_order_relaxed);
    atomic_store_explicit(&t->current, next, memory_order_release);
}

void tsc_init(struct tsc *t)
{
    uint64_t tsc = 0, ns = 0;
    atomic_store(&t->usable, false);
    if (!counter_is_invariant())
        return;
    read_both(&t->rate_base, &t->rate_base_ns);
    do
        read_both(&tsc, &ns);
    while (ns - t->rate_base_ns < FIRST_SPAN_NS);
    if (tsc <= t->rate_base)
        return;
    set_line(t, tsc, ns);
    atomic_store(&t->usable, true);
}

void tsc_recalibrate(struct tsc *t)
{
    uint64_t tsc, ns;
    if (!atomic_load_explicit(&t->usable, memory_order_relaxed))
        return;
    read_both(&tsc, &ns);
    uint32_t at = atomic_load_explicit(&t->current, memory_order_relaxed);
    int64_t off = (int64_t)(tsc_line_at(&t->line[at % TSC_LINES], tsc) - ns);
    if (tsc <= t->rate_base || off > (int64_t)DISAGREEMENT_NS || off < -(int64_t)DISAGREEMENT_NS) {
        atomic_store(&t->usable, false);
        return;
    }
    set_line(t, tsc, ns);
    if (ns - t->rate_base_ns > RATE_SPAN_NS) {
        /* half way: the next slope is measured over at least half the span */
        t->rate_base += (tsc - t->rate_base) / 2;
        t->rate_base_ns += (ns - t->rate_base_ns) / 2;
    }
}
