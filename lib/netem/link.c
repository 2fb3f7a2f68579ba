#include "netem/link.h"

#include "util/clock.h"
#include "util/rng.h"

enum which { BLACKOUT = 1, HANDOVER = 2, STALL = 3 };

/* splitmix64 (Steele, Lea & Flood 2014): 8 bytes of state per direction instead of the 32 of util/rng.h. */
static uint32_t draw(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (uint32_t)((z ^ (z >> 31)) >> 32);
}

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

static const struct netem_windows *windows_of(const struct netem_profile *p, enum which which)
{
    return which == BLACKOUT ? &p->blackout : which == HANDOVER ? &p->handover : &p->stall;
}

/* Random numbers of one window, by its name alone. */
static void window_rng(const struct link *l, enum which which, uint32_t number, struct rng *r)
{
    rng_seed_stream(r, l->seed, (uint64_t)which << 32 | number);
}

static uint64_t window_end(const struct link_window *w)
{
    return w->start_ns + w->length_us * NS_PER_US;
}

/* The window that follows; `end_ns` is the end of the one before. */
static void window_draw(const struct link *l, enum which which, struct link_window *w, uint64_t end_ns)
{
    const struct netem_windows *of = windows_of(l->profile, which);
    struct rng r;
    window_rng(l, which, w->number, &r);
    w->start_ns = end_ns + rng_exp(&r, of->every_ns);
    w->length_us = (uint32_t)(span_at(&of->length, (uint32_t)(rng_u64(&r) >> 32)) / NS_PER_US);
}

static void window_next(const struct link *l, enum which which, struct link_window *w)
{
    uint64_t end_ns = window_end(w);
    w->number++;
    window_draw(l, which, w, end_ns);
}

static void window_init(struct link *l, enum which which, struct link_window *w, uint64_t now_ns)
{
    *w = (struct link_window){.start_ns = UINT64_MAX};
    if (windows_of(l->profile, which)->every_ns)
        window_draw(l, which, w, now_ns);
}

/* Handover `number` loses the address. */
static bool handover_loses(const struct link *l, uint32_t number)
{
    struct rng r;
    window_rng(l, HANDOVER, number, &r);
    rng_u64(&r); /* the two that window_draw takes */
    rng_u64(&r);
    return rng_hit(&r, RNG_SHARE(l->profile->handover_loses_ppm));
}

static bool window_holds(const struct link_window *w, uint64_t t_ns)
{
    return t_ns >= w->start_ns && t_ns < window_end(w);
}

/* Bring the windows up to `now`: each becomes the first that ends after it. */
void link_advance(struct link *l, uint64_t now_ns)
{
    while (window_end(&l->blackout) <= now_ns)
        window_next(l, BLACKOUT, &l->blackout);
    while (window_end(&l->stall) <= now_ns)
        window_next(l, STALL, &l->stall);
    while (window_end(&l->handover) <= now_ns) {
        l->nat_era += handover_loses(l, l->handover.number);
        window_next(l, HANDOVER, &l->handover);
    }
}

/* Whether `t`, which may lie ahead of `now` by the wait in the queue, is inside a window. */
static bool inside(const struct link *l, enum which which, const struct link_window *w, uint64_t t_ns)
{
    if (t_ns < w->start_ns)
        return false;
    struct link_window ahead = *w;
    while (t_ns >= window_end(&ahead))
        window_next(l, which, &ahead);
    return window_holds(&ahead, t_ns);
}

/* How much of [from, to) is stalled. */
static uint64_t stalled(const struct link *l, uint64_t from_ns, uint64_t to_ns)
{
    uint64_t sum = 0;
    for (struct link_window w = l->stall; w.start_ns < to_ns; window_next(l, STALL, &w)) {
        uint64_t start = w.start_ns > from_ns ? w.start_ns : from_ns, end = window_end(&w);
        end = end < to_ns ? end : to_ns;
        sum += end > start ? end - start : 0;
    }
    return sum;
}

/* When a service of `need_ns` that starts at `start` is done, if stalls interrupt it. */
static uint64_t serve(const struct link *l, uint64_t start_ns, uint64_t need_ns)
{
    uint64_t done = start_ns + need_ns;
    for (struct link_window w = l->stall; w.start_ns <= done; window_next(l, STALL, &w)) {
        uint64_t start = w.start_ns > start_ns ? w.start_ns : start_ns, end = window_end(&w);
        done += end > start ? end - start : 0;
    }
    return done;
}

/* When the radio can send: at once, or after its promotion from idle. active_ns lies ahead of now while
 * waking. */
static uint64_t radio_ready(struct link *l, uint64_t now_ns)
{
    const struct netem_profile *p = l->profile;
    if (!p->rrc_idle_ns)
        return now_ns;
    if (!l->woken || now_ns > l->active_ns + p->rrc_idle_ns) {
        l->woken = true;
        l->active_ns = now_ns + p->rrc_promotion_ns;
    } else if (now_ns > l->active_ns) {
        l->active_ns = now_ns;
    }
    return l->active_ns;
}

void link_init(struct link *l, const struct netem_profile *p, uint64_t seed, uint64_t stream, uint64_t now_ns)
{
    struct rng r;
    rng_seed_stream(&r, seed, stream);
    *l = (struct link){.profile = p, .seed = rng_u64(&r)};
    for (int d = 0; d < 2; d++) {
        l->way[d].rng = rng_u64(&r);
        l->way[d].free_ns = now_ns;
        /* the chain starts in its stationary distribution */
        l->bad[d] = draw(&l->way[d].rng) < p->dir[d].bad_p32;
    }
    window_init(l, BLACKOUT, &l->blackout, now_ns);
    window_init(l, HANDOVER, &l->handover, now_ns);
    window_init(l, STALL, &l->stall, now_ns);
}

/* The chain decides on this packet, then moves. */
static bool lost(struct link *l, enum netem_dir dir)
{
    const struct netem_direction *p = &l->profile->dir[dir];
    bool bad = l->bad[dir];
    if (draw(&l->way[dir].rng) < (bad ? p->leave_p32 : p->enter_p32))
        l->bad[dir] = !bad;
    return bad;
}

static uint64_t arrival(struct link *l, enum netem_dir dir, uint64_t depart_ns)
{
    const struct netem_direction *p = &l->profile->dir[dir];
    uint64_t at = depart_ns + p->delay_ns;
    if (p->jitter_ns) {
        uint64_t wide = 2 * p->jitter_ns + 1;
        at = at - p->jitter_ns + (uint64_t)(((unsigned __int128)wide * draw(&l->way[dir].rng)) >> 32);
    }
    if (at < l->way[dir].deliver_ns)
        at = l->way[dir].deliver_ns;
    return l->way[dir].deliver_ns = at;
}

static bool queue_full(const struct link *l, enum netem_dir dir, uint64_t now_ns, uint32_t bytes)
{
    const struct netem_direction *p = &l->profile->dir[dir];
    uint64_t free_ns = l->way[dir].free_ns, from_ns = l->active_ns > now_ns ? l->active_ns : now_ns;
    if (!p->queue_bytes || free_ns <= from_ns)
        return false;
    /* only the time in which the rate really serves holds bytes */
    uint64_t wait_ns = free_ns - from_ns - stalled(l, from_ns, free_ns);
    /* wait_ns * rate / 8e9; a wait of less than a byte still counts as an empty queue */
    uint64_t backlog = (uint64_t)((unsigned __int128)wait_ns * p->rate_bps / (8 * NS_PER_S));
    return backlog && backlog + bytes > p->queue_bytes;
}

struct link_verdict link_offer(struct link *l, enum netem_dir dir, uint64_t now_ns, uint32_t bytes)
{
    const struct netem_direction *p = &l->profile->dir[dir];
    link_advance(l, now_ns);
    if (l->detached)
        return (struct link_verdict){.reason = REASON_DETACHED};
    if (p->rate_bps && queue_full(l, dir, now_ns, bytes))
        return (struct link_verdict){.reason = REASON_QUEUE_FULL};

    uint64_t start = radio_ready(l, now_ns);
    if (start < l->way[dir].free_ns)
        start = l->way[dir].free_ns;
    uint64_t need = p->rate_bps ? (bytes * 8 * NS_PER_S + p->rate_bps / 2) / p->rate_bps : 0;
    struct link_verdict v = {.depart_ns = serve(l, start, need)};
    l->way[dir].free_ns = v.depart_ns;

    if (v.depart_ns < l->forced_until_ns || inside(l, BLACKOUT, &l->blackout, v.depart_ns))
        v.reason = REASON_BLACKOUT;
    else if (inside(l, HANDOVER, &l->handover, v.depart_ns))
        v.reason = REASON_HANDOVER;
    else if (lost(l, dir))
        v.reason = REASON_LOSS;
    else
        v.deliver_ns = arrival(l, dir, v.depart_ns);
    return v;
}

enum reason link_recheck(const struct link *l, enum netem_dir dir, uint64_t depart_ns)
{
    /* what is on its way to the phone finds nobody; what the phone had sent is out */
    bool left = l->detached || depart_ns < l->attached_ns;
    if (left && (dir == NETEM_DOWN || depart_ns > l->detached_ns))
        return REASON_DETACHED;
    if (depart_ns >= l->forced_from_ns && depart_ns < l->forced_until_ns)
        return REASON_BLACKOUT;
    return REASON_NONE;
}

void link_detach(struct link *l, uint64_t now_ns)
{
    link_advance(l, now_ns);
    if (!l->detached)
        l->detached_ns = now_ns;
    l->detached = true;
}

void link_attach(struct link *l, uint64_t now_ns)
{
    link_advance(l, now_ns);
    if (!l->detached)
        return;
    l->detached = false;
    l->attached_ns = now_ns;
    l->nat_era++;
    for (int d = 0; d < 2; d++)
        l->way[d].free_ns = l->way[d].deliver_ns = now_ns;
}

void link_blackout(struct link *l, uint64_t now_ns, uint64_t until_ns)
{
    link_advance(l, now_ns);
    if (l->forced_until_ns <= now_ns)
        l->forced_from_ns = now_ns;
    if (until_ns > l->forced_until_ns)
        l->forced_until_ns = until_ns;
}

enum link_state link_state(struct link *l, uint64_t now_ns)
{
    link_advance(l, now_ns);
    if (l->detached)
        return LINK_DETACHED;
    if (now_ns < l->forced_until_ns || window_holds(&l->blackout, now_ns))
        return LINK_BLACKOUT;
    if (window_holds(&l->handover, now_ns))
        return handover_loses(l, l->handover.number) ? LINK_HANDOVER_LOSES : LINK_HANDOVER;
    return window_holds(&l->stall, now_ns) ? LINK_STALLED : LINK_UP;
}

static uint64_t change_of(const struct link_window *w, uint64_t now_ns)
{
    return now_ns < w->start_ns ? w->start_ns : window_end(w);
}

uint64_t link_state_until(struct link *l, uint64_t now_ns)
{
    link_advance(l, now_ns);
    uint64_t next = change_of(&l->blackout, now_ns), other = change_of(&l->handover, now_ns);
    next = other < next ? other : next;
    other = change_of(&l->stall, now_ns);
    next = other < next ? other : next;
    if (now_ns < l->forced_until_ns && l->forced_until_ns < next)
        next = l->forced_until_ns;
    return next;
}
