/* What time decides: windows, delays, rates. */
#include "netem/proxy/core_impl.h"
#include "util/clock.h"

#define CATCH_UP_NS   (200 * NS_PER_MS) /* a backlog may make up for wake-ups that came so late */
#define BURST_NS      (2 * NS_PER_MS)   /* after a pause, so much of the rate goes at once */
#define STATES_IN_ROW 64                /* blackouts and handovers that may follow one another */

bool toxic_active(const struct proxy_conn *c, unsigned i, uint64_t now_ns, uint64_t *edge)
{
    const struct proxy_toxic *t = c->rules->toxic[i];
    uint64_t start = (t->added_ns > c->opened_ns ? t->added_ns : c->opened_ns) + t->after_ns;
    *edge = UINT64_MAX;
    if (now_ns < start) {
        *edge = start;
        return false;
    }
    /* what ends the connection knows `for` as the length of the silence behind it */
    if (!t->for_ns || t->kind == PROXY_HALF_OPEN || proxy_toxic_by_place(t))
        return true;
    uint64_t gone = now_ns - start, in = t->every_ns ? gone % t->every_ns : gone;
    if (in < t->for_ns) {
        *edge = now_ns + (t->for_ns - in);
        return true;
    }
    if (t->every_ns)
        *edge = now_ns + (t->every_ns - in);
    return false;
}

uint32_t toxics_of(const struct proxy_conn *c, enum netem_dir d)
{
    uint32_t slots = 0;
    for (uint32_t left = c->on; left; left &= left - 1) {
        unsigned i = (unsigned)__builtin_ctz(left);
        if (c->rules->toxic[i]->ways >> d & 1)
            slots |= 1u << i;
    }
    return slots;
}

static bool works_on_bytes(enum proxy_kind k)
{
    return k == PROXY_LATENCY || k == PROXY_BANDWIDTH || k == PROXY_STALL || k == PROXY_BLACKHOLE ||
           k == PROXY_SLICER;
}

bool toxics_need_bytes(const struct proxy_conn *c, enum netem_dir d, uint64_t now_ns)
{
    uint64_t edge;
    for (uint32_t left = toxics_of(c, d); left; left &= left - 1) {
        unsigned i = (unsigned)__builtin_ctz(left);
        const struct proxy_toxic *t = c->rules->toxic[i];
        if (works_on_bytes(t->kind) && !proxy_toxic_by_place(t) && toxic_active(c, i, now_ns, &edge))
            return true;
    }
    return false;
}

/* --- delays ------------------------------------------------------------------------------------------- */

void profile_for_streams(struct netem_profile *p)
{
    for (int d = 0; d < 2; d++) {
        struct netem_direction *w = &p->dir[d];
        w->loss_ppm = w->loss_good_ppm = w->burst_milli = w->corrupt_ppm = w->duplicate_ppm = w->reorder_ppm =
            0;
        w->enter_p32 = w->bad_p32 = 0;
        w->leave_p32 = 1ull << 32;
        w->queue_ns = 0;
        w->queue_bytes = UINT64_MAX >> 8; /* what waits is bounded by the proxy's buffer */
        w->queue_head = 0;
    }
}

/* A packet of a link; where it would be lost it comes when the link is back. */
static uint64_t by_link(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, size_t n)
{
    if (now_ns > c->link_now_ns)
        c->link_now_ns = now_ns;
    struct link_verdict v = {0};
    for (int i = 0; i < STATES_IN_ROW; i++) {
        v = link_offer(c->link, d, c->link_now_ns, (uint32_t)n + 52);
        if (v.reason == REASON_NONE)
            return v.deliver_ns;
        uint64_t lost = v.depart_ns > c->link_now_ns ? v.depart_ns : c->link_now_ns;
        link_state(c->link, lost);
        uint64_t until = link_state_until(c->link, lost);
        c->link_now_ns = until == UINT64_MAX || until <= lost ? lost + NS_PER_MS : until;
    }
    return c->link_now_ns;
}

uint64_t leave_at(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, size_t n)
{
    struct way *w = &c->way[d];
    uint64_t edge, due = now_ns;
    for (uint32_t left = c->on ? toxics_of(c, d) : 0; left; left &= left - 1) {
        unsigned i = (unsigned)__builtin_ctz(left);
        const struct proxy_toxic *t = c->rules->toxic[i];
        if (t->kind != PROXY_LATENCY || !toxic_active(c, i, now_ns, &edge))
            continue;
        due += t->delay_ns - t->jitter_ns;
        if (t->jitter_ns)
            due += proxy_draw(c->rules, t->number, c->number, (uint64_t)d, w->key) % (2 * t->jitter_ns + 1);
        toxic_seen(c, d, now_ns, i);
    }
    if (c->link && c->rules->toxic[c->link_slot]->ways >> d & 1) {
        due += by_link(c, d, now_ns, n) - now_ns;
        toxic_seen(c, d, now_ns, c->link_slot);
    }
    return due > w->floor_ns ? due : w->floor_ns;
}

uint64_t fin_delay(struct proxy_conn *c, enum netem_dir d)
{
    uint64_t delay = 0;
    for (uint32_t left = toxics_of(c, d); left; left &= left - 1) {
        unsigned i = (unsigned)__builtin_ctz(left);
        const struct proxy_toxic *t = c->rules->toxic[i];
        delay += t->kind == PROXY_SLOW_CLOSE ? t->delay_ns : 0;
    }
    return delay;
}

/* --- stalls and blackholes ---------------------------------------------------------------------------- */

static bool by_time(struct proxy_conn *c, enum netem_dir d, enum proxy_kind kind, uint64_t now_ns,
                    uint64_t *until)
{
    bool any = false;
    uint64_t edge;
    *until = UINT64_MAX;
    for (uint32_t left = c->on ? toxics_of(c, d) : 0; left; left &= left - 1) {
        unsigned i = (unsigned)__builtin_ctz(left);
        const struct proxy_toxic *t = c->rules->toxic[i];
        if (t->kind != kind || proxy_toxic_by_place(t) || !toxic_active(c, i, now_ns, &edge))
            continue;
        any = true;
        *until = edge < *until ? edge : *until;
        toxic_seen(c, d, now_ns, i);
    }
    return any;
}

bool way_stalled(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, uint64_t *until)
{
    return by_time(c, d, PROXY_STALL, now_ns, until);
}

bool way_void(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, uint64_t *until)
{
    return by_time(c, d, PROXY_BLACKHOLE, now_ns, until);
}

/* --- rate and slices ---------------------------------------------------------------------------------- */

/* The smallest rate, 0 for none, and the first slicer. */
static uint64_t limits(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns,
                       const struct proxy_toxic **slicer)
{
    uint64_t rate = 0, edge;
    *slicer = NULL;
    for (uint32_t left = c->on ? toxics_of(c, d) : 0; left; left &= left - 1) {
        unsigned i = (unsigned)__builtin_ctz(left);
        const struct proxy_toxic *t = c->rules->toxic[i];
        bool bandwidth = t->kind == PROXY_BANDWIDTH, slices = t->kind == PROXY_SLICER;
        if (!(bandwidth || slices) || !toxic_active(c, i, now_ns, &edge))
            continue;
        if (bandwidth && (!rate || t->rate_bps < rate))
            rate = t->rate_bps;
        if (slices && !*slicer)
            *slicer = t;
        toxic_seen(c, d, now_ns, i);
    }
    return rate;
}

static uint64_t ns_of(uint64_t bytes, uint64_t rate_bps)
{
    return (uint64_t)((__uint128_t)bytes * 8 * NS_PER_S / rate_bps);
}

static uint64_t bytes_of(uint64_t ns, uint64_t rate_bps)
{
    return (uint64_t)((__uint128_t)ns * rate_bps / (8 * NS_PER_S));
}

size_t way_budget(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, size_t n, uint64_t *next)
{
    struct way *w = &c->way[d];
    const struct proxy_toxic *slicer;
    uint64_t rate = limits(c, d, now_ns, &slicer);
    *next = UINT64_MAX;
    if (slicer) {
        if (now_ns < w->slice_ns) {
            *next = w->slice_ns;
            return 0;
        }
        uint64_t size = slicer->size - slicer->vary;
        if (slicer->vary)
            size += proxy_draw(c->rules, slicer->number, c->number, (uint64_t)d, w->written) %
                    (2 * slicer->vary + 1);
        n = n > size ? (size_t)size : n;
    }
    if (!rate)
        return n;
    uint64_t slack = w->backlog ? CATCH_UP_NS : BURST_NS;
    if (w->paced_ns + slack < now_ns)
        w->paced_ns = now_ns - slack;
    w->backlog = true;
    uint64_t least = bytes_of(BURST_NS, rate),
             have = now_ns > w->paced_ns ? bytes_of(now_ns - w->paced_ns, rate) : 0;
    least = least < 1 ? 1 : least > MSS ? MSS : least;
    least = least > n ? n : least;
    if (have >= least)
        return n < have ? n : (size_t)have;
    *next = w->paced_ns + ns_of(least, rate) + 1000; /* rounded up, so that it is not asked in vain */
    return 0;
}

void way_spend(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, size_t n)
{
    struct way *w = &c->way[d];
    const struct proxy_toxic *slicer;
    uint64_t rate = limits(c, d, now_ns, &slicer);
    if (rate)
        w->paced_ns += ns_of(n, rate);
    if (slicer)
        w->slice_ns = now_ns + slicer->delay_ns;
}
