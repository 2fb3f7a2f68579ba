#include "netem/link_impl.h"
#include "util/rng.h"

#define DIST_SCALE 8192 /* of a delay table: one jitter */

static bool hit(struct link *l, enum netem_dir dir, uint32_t ppm)
{
    return link_draw(&l->way[dir].rng) < RNG_SHARE(ppm);
}

static bool bad(const struct link *l, enum netem_dir dir)
{
    return dir == NETEM_UP ? l->bad_up : l->bad_down;
}

static void set_bad(struct link *l, enum netem_dir dir, bool is)
{
    if (dir == NETEM_UP)
        l->bad_up = is;
    else
        l->bad_down = is;
}

/* The chain starts in its stationary distribution, the jitter anywhere. */
static void start_chains(struct link *l)
{
    for (int d = 0; d < 2; d++) {
        const struct netem_direction *p = &l->profile->dir[d];
        set_bad(l, d, link_draw(&l->way[d].rng) < p->bad_p32);
        l->jitter[d] = p->jitter_corr_ppm ? link_draw(&l->way[d].rng) : 0;
        l->in_order[d] = 0;
    }
    l->swaps_up = l->swaps_down = false;
}

void link_init(struct link *l, const struct netem_profile *p, uint64_t seed, uint64_t stream, uint64_t now_ns)
{
    struct rng r;
    rng_seed_stream(&r, seed, stream);
    *l = (struct link){.profile = p, .seed = rng_u64(&r)};
    l->way[NETEM_UP].rng = rng_u64(&r);
    l->way[NETEM_DOWN].rng = rng_u64(&r);
    start_chains(l);
    link_service_reset(l, now_ns);
    link_weather_init(l, now_ns);
}

void link_change(struct link *l, const struct netem_profile *p, uint64_t now_ns)
{
    const struct netem_profile *before = l->profile;
    link_advance(l, now_ns);
    l->profile = p;
    start_chains(l);
    link_service_reset(l, now_ns);
    link_weather_change(l, before, now_ns);
}

/* The chain decides on this packet, then moves. */
static bool lost(struct link *l, enum netem_dir dir)
{
    const struct netem_direction *p = &l->profile->dir[dir];
    bool was = bad(l, dir);
    if (link_draw(&l->way[dir].rng) < (was ? p->leave_p32 : p->enter_p32))
        set_bad(l, dir, !was);
    return was || (p->loss_good_ppm && hit(l, dir, p->loss_good_ppm));
}

/* One delay with its jitter. Correlation keeps the predecessor's draw, so that the distribution stays. */
static uint64_t draw_delay(struct link *l, enum netem_dir dir)
{
    const struct netem_direction *p = &l->profile->dir[dir];
    if (!p->jitter_ns)
        return p->delay_ns;
    if (!p->jitter_corr_ppm || !hit(l, dir, p->jitter_corr_ppm))
        l->jitter[dir] = link_draw(&l->way[dir].rng);
    uint32_t u = l->jitter[dir];
    if (!p->dist) {
        uint64_t wide = 2 * p->jitter_ns + 1;
        return p->delay_ns - p->jitter_ns + (uint64_t)(((unsigned __int128)wide * u) >> 32);
    }
    int64_t off = (int64_t)p->jitter_ns * p->dist->at[((uint64_t)u * p->dist->n) >> 32] / DIST_SCALE;
    return off < -(int64_t)p->delay_ns ? 0 : p->delay_ns + (uint64_t)off;
}

static uint64_t arrival(struct link *l, enum netem_dir dir, uint64_t depart_ns)
{
    uint64_t at = depart_ns + draw_delay(l, dir);
    if (at < l->way[dir].deliver_ns)
        at = l->way[dir].deliver_ns;
    return l->way[dir].deliver_ns = at;
}

/* As netem does it: after `gap` - 1 packets in order each one may jump the delay, until one has. */
static bool jumps(struct link *l, enum netem_dir dir)
{
    const struct netem_direction *p = &l->profile->dir[dir];
    if (!p->reorder_ppm)
        return false;
    if (l->in_order[dir] + 1u < p->reorder_gap) {
        l->in_order[dir]++;
        return false;
    }
    bool jump = dir == NETEM_UP ? l->swaps_up : l->swaps_down;
    if (!p->reorder_corr_ppm || !hit(l, dir, p->reorder_corr_ppm))
        jump = hit(l, dir, p->reorder_ppm);
    if (dir == NETEM_UP)
        l->swaps_up = jump;
    else
        l->swaps_down = jump;
    if (jump)
        l->in_order[dir] = 0;
    return jump;
}

static void arrive(struct link *l, enum netem_dir dir, struct link_verdict *v, uint32_t bytes)
{
    const struct netem_direction *p = &l->profile->dir[dir];
    v->reordered = jumps(l, dir);
    v->deliver_ns = v->reordered ? v->depart_ns : arrival(l, dir, v->depart_ns);
    if (p->duplicate_ppm && hit(l, dir, p->duplicate_ppm))
        v->copy_ns = arrival(l, dir, v->depart_ns);
    if (p->corrupt_ppm && hit(l, dir, p->corrupt_ppm)) {
        v->corrupt = bytes > 0;
        v->corrupt_bit = (uint32_t)((uint64_t)link_draw(&l->way[dir].rng) * bytes * 8 >> 32);
    }
}

struct link_verdict link_on_air(struct link *l, enum netem_dir dir, uint64_t depart_ns, uint32_t bytes)
{
    struct link_verdict v = {.depart_ns = depart_ns};
    if (depart_ns < l->forced_until_ns || link_inside(l, LINK_WINDOW_BLACKOUT, depart_ns))
        v.reason = REASON_BLACKOUT;
    else if (link_inside(l, LINK_WINDOW_HANDOVER, depart_ns))
        v.reason = REASON_HANDOVER;
    else if (lost(l, dir))
        v.reason = REASON_LOSS;
    else
        arrive(l, dir, &v, bytes);
    return v;
}

struct link_verdict link_offer(struct link *l, enum netem_dir dir, uint64_t now_ns, uint32_t bytes)
{
    link_advance(l, now_ns);
    if (l->detached)
        return (struct link_verdict){.reason = REASON_DETACHED};
    if (link_queue_full(l, dir, now_ns, bytes))
        return (struct link_verdict){.reason = REASON_QUEUE_FULL};
    uint64_t ready_ns = link_radio_ready(l, dir, now_ns);
    return link_on_air(l, dir, link_service(l, dir, ready_ns, bytes), bytes);
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
    l->way[NETEM_UP].deliver_ns = l->way[NETEM_DOWN].deliver_ns = now_ns;
    link_service_reset(l, now_ns);
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
    if (link_window_holds(&l->blackout, now_ns))
        return link_window_loses(l, LINK_WINDOW_BLACKOUT, l->blackout.number) ? LINK_BLACKOUT_LOSES
                                                                              : LINK_BLACKOUT;
    if (now_ns < l->forced_until_ns)
        return LINK_BLACKOUT;
    if (link_window_holds(&l->handover, now_ns))
        return link_window_loses(l, LINK_WINDOW_HANDOVER, l->handover.number) ? LINK_HANDOVER_LOSES
                                                                              : LINK_HANDOVER;
    if (link_window_holds(&l->cell, now_ns))
        return LINK_CELL;
    return link_window_holds(&l->stall, now_ns) ? LINK_STALLED : LINK_UP;
}

static uint64_t change_of(const struct link_window *w, uint64_t now_ns)
{
    return now_ns < w->start_ns ? w->start_ns : link_window_end(w);
}

uint64_t link_state_until(struct link *l, uint64_t now_ns)
{
    const struct link_window *const all[] = {&l->blackout, &l->handover, &l->cell, &l->stall};
    uint64_t next = UINT64_MAX;
    link_advance(l, now_ns);
    for (int i = 0; i < 4; i++) {
        uint64_t at = change_of(all[i], now_ns);
        next = at < next ? at : next;
    }
    if (now_ns < l->forced_until_ns && l->forced_until_ns < next)
        next = l->forced_until_ns;
    return next;
}

uint32_t link_address_era(struct link *l, uint64_t now_ns)
{
    link_advance(l, now_ns);
    return l->nat_era;
}
