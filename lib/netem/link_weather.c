/* Windows of time: blackouts, handovers, stalls. Each is drawn from (seed, kind, number) alone. */
#include "netem/link_impl.h"

#include <string.h>

#include "util/rng.h"

/* The value at the quantile u / 2^32, by straight lines between the five that are given. */
static uint64_t span_at(const struct netem_span *s, uint32_t u)
{
    static const uint64_t at[5] = {0, 2147483648ull, 3865470566ull, 4252017623ull, 4294967296ull};
    const uint64_t value[5] = {s->min_ns, s->p50_ns, s->p90_ns, s->p99_ns, s->max_ns};
    unsigned i = 0;
    while (u >= at[i + 1])
        i++;
    uint64_t wide = value[i + 1] - value[i];
    return value[i] + (uint64_t)((unsigned __int128)wide * (u - at[i]) / (at[i + 1] - at[i]));
}

static const struct netem_windows *windows_of(const struct netem_profile *p, enum link_which which)
{
    switch (which) {
    case LINK_WINDOW_BLACKOUT:
        return &p->blackout;
    case LINK_WINDOW_HANDOVER:
        return &p->handover;
    case LINK_WINDOW_STALL:
        return &p->stall;
    case LINK_WINDOW_CELL:
        break;
    }
    return &p->cell;
}

/* Random numbers of one window, by its name alone. */
static void window_rng(const struct link *l, enum link_which which, uint32_t number, struct rng *r)
{
    rng_seed_stream(r, l->seed, (uint64_t)which << 32 | number);
}

/* The window that follows; `end_ns` is the end of the one before. */
static void window_draw(const struct link *l, enum link_which which, struct link_window *w, uint64_t end_ns)
{
    const struct netem_profile *p = l->profile;
    const struct netem_windows *of = windows_of(p, which);
    struct rng r;
    if (which == LINK_WINDOW_BLACKOUT && p->blackout_at.n) {
        *w = (struct link_window){.start_ns = UINT64_MAX, .number = w->number};
        if (w->number >= p->blackout_at.n)
            return;
        w->start_ns = l->begun_ns + p->blackout_at.of[w->number].at_ns;
        w->length_us = (uint32_t)(p->blackout_at.of[w->number].length_ns / NS_PER_US);
        return;
    }
    window_rng(l, which, w->number, &r);
    w->start_ns = end_ns + rng_exp(&r, of->every_ns);
    if (which == LINK_WINDOW_BLACKOUT && p->blackout_period_ns)
        w->start_ns = l->begun_ns + (w->number + 1ull) * p->blackout_period_ns;
    w->length_us = (uint32_t)(span_at(&of->length, (uint32_t)(rng_u64(&r) >> 32)) / NS_PER_US);
}

static void window_next(const struct link *l, enum link_which which, struct link_window *w)
{
    uint64_t end_ns = link_window_end(w);
    w->number++;
    window_draw(l, which, w, end_ns);
}

static void window_init(struct link *l, enum link_which which, struct link_window *w, uint64_t now_ns)
{
    const struct netem_profile *p = l->profile;
    bool clocked = which == LINK_WINDOW_BLACKOUT && (p->blackout_at.n || p->blackout_period_ns);
    *w = (struct link_window){.start_ns = UINT64_MAX};
    if (clocked || windows_of(p, which)->every_ns)
        window_draw(l, which, w, now_ns);
}

void link_weather_init(struct link *l, uint64_t now_ns)
{
    l->begun_ns = now_ns;
    window_init(l, LINK_WINDOW_BLACKOUT, &l->blackout, now_ns);
    window_init(l, LINK_WINDOW_HANDOVER, &l->handover, now_ns);
    window_init(l, LINK_WINDOW_STALL, &l->stall, now_ns);
    window_init(l, LINK_WINDOW_CELL, &l->cell, now_ns);
}

static bool same_windows(const struct netem_windows *a, const struct netem_windows *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

/* Whether what goes by the link's own clock goes on by it. */
static bool same_clock(const struct netem_profile *a, const struct netem_profile *b)
{
    return a->blackout_period_ns == b->blackout_period_ns && same_windows(&a->blackout, &b->blackout) &&
           memcmp(&a->blackout_at, &b->blackout_at, sizeof a->blackout_at) == 0 &&
           a->dir[NETEM_UP].trace == b->dir[NETEM_UP].trace &&
           a->dir[NETEM_DOWN].trace == b->dir[NETEM_DOWN].trace;
}

void link_weather_change(struct link *l, const struct netem_profile *before, uint64_t now_ns)
{
    static const enum link_which poisson[] = {LINK_WINDOW_HANDOVER, LINK_WINDOW_STALL, LINK_WINDOW_CELL};
    struct link_window *const at[] = {&l->handover, &l->stall, &l->cell};
    if (!same_clock(before, l->profile)) {
        l->begun_ns = now_ns;
        window_init(l, LINK_WINDOW_BLACKOUT, &l->blackout, now_ns);
    }
    for (int i = 0; i < 3; i++)
        if (!same_windows(windows_of(before, poisson[i]), windows_of(l->profile, poisson[i])))
            window_init(l, poisson[i], at[i], now_ns);
}

bool link_window_loses(const struct link *l, enum link_which which, uint32_t number)
{
    const struct netem_profile *p = l->profile;
    uint32_t ppm = which == LINK_WINDOW_BLACKOUT ? p->blackout_loses_ppm : p->handover_loses_ppm;
    struct rng r;
    if (!ppm)
        return false;
    window_rng(l, which, number, &r);
    rng_u64(&r); /* the two that window_draw takes */
    rng_u64(&r);
    return rng_hit(&r, RNG_SHARE(ppm));
}

/* Bring the windows up to `now`: each becomes the first that ends after it. */
void link_advance(struct link *l, uint64_t now_ns)
{
    while (link_window_end(&l->stall) <= now_ns)
        window_next(l, LINK_WINDOW_STALL, &l->stall);
    while (link_window_end(&l->cell) <= now_ns)
        window_next(l, LINK_WINDOW_CELL, &l->cell);
    while (link_window_end(&l->blackout) <= now_ns) {
        l->nat_era += link_window_loses(l, LINK_WINDOW_BLACKOUT, l->blackout.number);
        window_next(l, LINK_WINDOW_BLACKOUT, &l->blackout);
    }
    while (link_window_end(&l->handover) <= now_ns) {
        l->nat_era += link_window_loses(l, LINK_WINDOW_HANDOVER, l->handover.number);
        window_next(l, LINK_WINDOW_HANDOVER, &l->handover);
    }
}

bool link_inside(const struct link *l, enum link_which which, uint64_t t_ns)
{
    const struct link_window *w = which == LINK_WINDOW_BLACKOUT ? &l->blackout : &l->handover;
    if (t_ns < w->start_ns)
        return false;
    struct link_window ahead = *w;
    while (t_ns >= link_window_end(&ahead))
        window_next(l, which, &ahead);
    return link_window_holds(&ahead, t_ns);
}

/* --- what packets wait for: stalls and handovers between cells, which may overlap --- */

struct hold {
    const struct link *l;
    struct link_window stall, cell;
};

/* The end of the hold that `t` is in, or `t`. */
static uint64_t hold_over(struct hold *h, uint64_t t_ns)
{
    for (;;) {
        while (link_window_end(&h->stall) <= t_ns)
            window_next(h->l, LINK_WINDOW_STALL, &h->stall);
        while (link_window_end(&h->cell) <= t_ns)
            window_next(h->l, LINK_WINDOW_CELL, &h->cell);
        if (h->stall.start_ns <= t_ns)
            t_ns = link_window_end(&h->stall);
        else if (h->cell.start_ns <= t_ns)
            t_ns = link_window_end(&h->cell);
        else
            return t_ns;
    }
}

static uint64_t hold_starts(const struct hold *h)
{
    return h->stall.start_ns < h->cell.start_ns ? h->stall.start_ns : h->cell.start_ns;
}

uint64_t link_held_until(const struct link *l, uint64_t t_ns)
{
    struct hold h = {l, l->stall, l->cell};
    return hold_starts(&h) > t_ns ? t_ns : hold_over(&h, t_ns);
}

uint64_t link_held_time(const struct link *l, uint64_t from_ns, uint64_t to_ns)
{
    struct hold h = {l, l->stall, l->cell};
    uint64_t sum = 0, t_ns = from_ns;
    if (hold_starts(&h) >= to_ns)
        return 0;
    while (t_ns < to_ns) {
        uint64_t over_ns = hold_over(&h, t_ns);
        sum += (over_ns < to_ns ? over_ns : to_ns) - t_ns;
        t_ns = hold_starts(&h);
        if (over_ns >= to_ns)
            break;
    }
    return sum;
}

uint64_t link_hold_after(const struct link *l, uint64_t t_ns)
{
    struct hold h = {l, l->stall, l->cell};
    hold_over(&h, t_ns);
    return hold_starts(&h);
}

uint64_t link_held_serve(const struct link *l, uint64_t start_ns, uint64_t need_ns)
{
    struct hold h = {l, l->stall, l->cell};
    uint64_t t_ns = start_ns;
    while (hold_starts(&h) <= t_ns + need_ns) {
        uint64_t over_ns = hold_over(&h, t_ns), next_ns = hold_starts(&h);
        t_ns = over_ns;
        if (next_ns > t_ns + need_ns)
            break;
        need_ns -= next_ns - t_ns;
        t_ns = next_ns;
    }
    return t_ns + need_ns;
}
