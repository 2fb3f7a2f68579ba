/* Which traffic shows what. */
#include <string.h>

#include "netem/calibrate_impl.h"
#include "netem/profile_impl.h"

#define MS          1000000ull
#define S           1000000000ull
#define PROBE_BYTES 64
#define LOSS_GAP_NS MS
#define FULL_BYTES  1400
/* a link is full when half as much again is offered; a trace, when its best tenth of a second is */
#define FULL_NUM 3
#define FULL_DEN 2

uint64_t calibrate_silence(const struct calibrate_phase *phase, uint64_t i)
{
    uint64_t k = i % phase->silences;
    /* anywhere in the spread, whatever the silences before were (splitmix64's mixer) */
    uint64_t z = (i + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    uint64_t share = (z ^ (z >> 31)) >> 32;
    return phase->silence_ns[k] + (uint64_t)(((unsigned __int128)phase->spread_ns[k] * share) >> 32);
}

enum netem_dir calibrate_turn(const struct calibrate_phase *phase, uint64_t i)
{
    bool up = phase->kind == CALIBRATE_SLEEP && (i % 2 == 0 || i / phase->silences % 2 == 0);
    return up ? NETEM_UP : NETEM_DOWN;
}

uint64_t calibrate_service_ns(const struct netem_direction *d, uint32_t bytes)
{
    return d->rate_bps ? (bytes * 8 * S + d->rate_bps / 2) / d->rate_bps : 0;
}

void calibrate_delay_bounds(const struct netem_direction *d, uint64_t *low_ns, uint64_t *high_ns)
{
    *low_ns = (uint64_t)stats_delay_quantile(d, 0);
    *high_ns = (uint64_t)stats_delay_quantile(d, 1);
}

/* --- what is switched off --- */

static void no_windows(struct netem_profile *p)
{
    p->blackout = p->handover = p->cell = p->stall = (struct netem_windows){0};
    p->blackout_period_ns = 0;
    memset(&p->blackout_at, 0, sizeof p->blackout_at);
    p->blackout_loses_ppm = p->handover_loses_ppm = 0;
}

static void no_radio(struct netem_profile *p)
{
    p->rrc_idle_ns = p->rrc_promotion_ns = p->rrc_fach_ns = p->rrc_fach_promotion_ns = 0;
    p->drx_after_ns = p->drx_short_ns = p->drx_short_for_ns = p->drx_long_ns = p->paging_ns = 0;
}

static void no_loss(struct netem_direction *d)
{
    d->loss_ppm = d->burst_milli = d->loss_good_ppm = d->corrupt_ppm = d->duplicate_ppm = 0;
    d->enter_p32 = d->bad_p32 = 0;
    d->leave_p32 = 1ull << 32;
}

static void no_delay(struct netem_direction *d)
{
    d->jitter_ns = d->jitter_corr_ppm = 0;
    d->dist = NULL;
}

static void no_rate(struct netem_direction *d)
{
    d->rate_bps = d->queue_bytes = d->queue_ns = d->queue_head = 0;
    d->trace = NULL;
}

static void no_reorder(struct netem_direction *d)
{
    d->reorder_ppm = d->reorder_corr_ppm = d->reorder_gap = 0;
}

static void quiet(struct netem_profile *p, bool loss, bool delay, bool rate, bool reorder)
{
    no_windows(p);
    no_radio(p);
    p->nat_idle_ns = 0;
    for (int d = 0; d < 2; d++) {
        if (!loss)
            no_loss(&p->dir[d]);
        if (!delay)
            no_delay(&p->dir[d]);
        if (!rate)
            no_rate(&p->dir[d]);
        if (!reorder)
            no_reorder(&p->dir[d]);
    }
}

/* --- the phases --- */

static struct calibrate_phase *add(struct calibrate *c, enum calibrate_kind kind)
{
    struct calibrate_phase *p = &c->phase[c->phases++].plan;
    p->kind = kind;
    p->profile = c->profile;
    return p;
}

/* As many packets as were wanted, or as the time allows. */
static void traffic(const struct calibrate *c, struct calibrate_phase *p, int d, uint32_t bytes,
                    uint64_t gap_ns)
{
    uint64_t n = c->o.packets;
    gap_ns = gap_ns ? gap_ns : 1;
    if (c->o.time_ns && n > c->o.time_ns / gap_ns)
        n = c->o.time_ns / gap_ns;
    p->way[d].packets = n;
    p->way[d].gap_ns = gap_ns;
    p->way[d].bytes = bytes;
}

/* Rare losses in long bursts need more packets, so that the standard error is a third of what is allowed. */
static void enough_for_loss(const struct calibrate *c, struct calibrate_phase *p, int d)
{
    struct chain k = stats_chain(&p->profile.dir[d]);
    if (!c->may_add || k.loss <= 0 || k.loss >= 1)
        return;
    double alike = p->profile.dir[d].burst_milli ? (1 + k.correlation) / (1 - k.correlation) : 1;
    double allowed = LOSS_TOLERANCE / 3,
           n = (1 - k.loss) / k.loss * (alike > 1 ? alike : 1) / (allowed * allowed);
    n = n < CALIBRATE_PACKETS_MAX ? n : CALIBRATE_PACKETS_MAX;
    if (n > (double)p->way[d].packets)
        p->way[d].packets = (uint64_t)n;
}

static void plan_loss(struct calibrate *c)
{
    struct calibrate_phase *p = add(c, CALIBRATE_LOSS);
    uint64_t gap = LOSS_GAP_NS;
    if (c->o.time_ns && c->o.packets && c->o.time_ns / c->o.packets < gap)
        gap = c->o.time_ns / c->o.packets;
    gap = gap < 50000 ? 50000 : gap; /* 20,000 a second is what any driver carries */
    quiet(&p->profile, true, false, false, false);
    for (int d = 0; d < 2; d++)
        traffic(c, p, d, PROBE_BYTES, gap);
    for (int d = 0; d < 2; d++)
        enough_for_loss(c, p, d);
}

static void plan_delay(struct calibrate *c)
{
    struct calibrate_phase *p = add(c, CALIBRATE_DELAY);
    quiet(&p->profile, false, true, true, false);
    for (int d = 0; d < 2; d++) {
        struct netem_direction *w = &p->profile.dir[d];
        uint64_t low, high;
        w->trace = NULL; /* its opportunities would add their own waits */
        w->queue_head = 0;
        calibrate_delay_bounds(w, &low, &high);
        /* no packet may catch up with its predecessor */
        traffic(c, p, d, PROBE_BYTES, high - low + 2 * calibrate_service_ns(w, PROBE_BYTES) + MS);
    }
}

static void plan_reorder(struct calibrate *c)
{
    const struct netem_direction *w = c->profile.dir;
    if (!w[0].reorder_ppm && !w[1].reorder_ppm)
        return;
    struct calibrate_phase *p = add(c, CALIBRATE_REORDER);
    quiet(&p->profile, false, false, false, true);
    for (int d = 0; d < 2; d++)
        if (w[d].reorder_ppm)
            traffic(c, p, d, PROBE_BYTES, w[d].delay_ns / 8 + 1);
}

/* Opportunities in the best tenth of a second of the endless trace. */
static uint64_t trace_peak(const struct netem_trace *t)
{
    uint64_t best = 1;
    for (uint64_t i = 0; i < t->count; i++) {
        uint64_t in = netem_trace_rank(t, t->at_ms[i] + 99) - i;
        best = in > best ? in : best;
    }
    return best;
}

static void plan_full(struct calibrate *c)
{
    const struct netem_direction *w = c->profile.dir;
    if (!w[0].rate_bps && !w[1].rate_bps && !w[0].trace && !w[1].trace)
        return;
    struct calibrate_phase *p = add(c, CALIBRATE_FULL);
    quiet(&p->profile, false, false, true, false);
    for (int d = 0; d < 2; d++) {
        if (w[d].trace) {
            traffic(c, p, d, NETEM_OPPORTUNITY, 100 * MS / trace_peak(w[d].trace) * FULL_DEN / FULL_NUM);
        } else if (w[d].rate_bps) {
            uint64_t bytes = w[d].queue_bytes / 20; /* the queue is measured in steps of a packet */
            bytes = bytes > FULL_BYTES ? FULL_BYTES : bytes < PROBE_BYTES ? PROBE_BYTES : bytes;
            traffic(c, p, d, (uint32_t)bytes,
                    calibrate_service_ns(&w[d], (uint32_t)bytes) * FULL_DEN / FULL_NUM);
        }
    }
}

static void probes(struct calibrate *c, struct calibrate_phase *p)
{
    /* one direction: the weather is both's */
    int d = c->profile.dir[NETEM_DOWN].rate_bps < c->profile.dir[NETEM_UP].rate_bps ? NETEM_UP : NETEM_DOWN;
    traffic(c, p, d, PROBE_BYTES, MS);
}

static void plan_windows(struct calibrate *c)
{
    const struct netem_profile *p = &c->profile;
    if (p->blackout.every_ns || p->blackout_period_ns || p->blackout_at.n) {
        struct calibrate_phase *f = add(c, CALIBRATE_OUTAGE);
        quiet(&f->profile, false, false, false, false);
        f->profile.blackout = p->blackout;
        f->profile.blackout_period_ns = p->blackout_period_ns;
        f->profile.blackout_at = p->blackout_at;
        probes(c, f);
    }
    if (p->handover.every_ns) {
        struct calibrate_phase *f = add(c, CALIBRATE_OUTAGE);
        quiet(&f->profile, false, false, false, false);
        f->profile.handover = p->handover;
        probes(c, f);
    }
    if (p->stall.every_ns) {
        struct calibrate_phase *f = add(c, CALIBRATE_HOLD);
        quiet(&f->profile, false, false, false, false);
        f->profile.stall = p->stall;
        probes(c, f);
    }
    if (p->cell.every_ns) {
        struct calibrate_phase *f = add(c, CALIBRATE_HOLD);
        quiet(&f->profile, false, false, false, false);
        f->profile.cell = p->cell;
        probes(c, f);
    }
}

static void silence(struct calibrate_phase *p, uint64_t ns, uint64_t spread_ns)
{
    p->silence_ns[p->silences] = ns;
    p->spread_ns[p->silences++] = spread_ns;
}

static void pair(struct calibrate_phase *p, uint64_t settle_ns, uint64_t ns, uint64_t spread_ns)
{
    silence(p, settle_ns, 0);
    silence(p, ns, spread_ns);
}

static void turns(struct calibrate *c, struct calibrate_phase *p)
{
    uint64_t round = 0;
    for (unsigned i = 0; i < p->silences; i++)
        round += p->silence_ns[i] + p->spread_ns[i];
    /* silences are long: a hundredth of the packets shows as much */
    p->turns = c->o.packets / 50 < 4000 ? c->o.packets : c->o.packets / 50;
    if (p->turns > 40000)
        p->turns = 40000;
    if (c->o.time_ns && p->turns > c->o.time_ns / (round / p->silences + 1))
        p->turns = c->o.time_ns / (round / p->silences + 1);
}

static void plan_sleep(struct calibrate *c)
{
    const struct netem_profile *a = &c->profile;
    if (!a->rrc_idle_ns && !a->rrc_fach_ns && !a->drx_after_ns)
        return;
    struct calibrate_phase *p = add(c, CALIBRATE_SLEEP);
    quiet(&p->profile, false, false, false, false);
    p->profile.rrc_idle_ns = a->rrc_idle_ns;
    p->profile.rrc_promotion_ns = a->rrc_promotion_ns;
    p->profile.rrc_fach_ns = a->rrc_fach_ns;
    p->profile.rrc_fach_promotion_ns = a->rrc_fach_promotion_ns;
    p->profile.drx_after_ns = a->drx_after_ns;
    p->profile.drx_short_ns = a->drx_short_ns;
    p->profile.drx_short_for_ns = a->drx_short_for_ns;
    p->profile.drx_long_ns = a->drx_long_ns;
    p->profile.paging_ns = a->paging_ns;
    /* Pairs: a packet up that lets the wait of the one before pass, and is not looked at, then the one that
     * is. */
    uint64_t settle =
        a->rrc_promotion_ns + a->rrc_fach_promotion_ns + a->paging_ns + a->drx_short_ns + a->drx_long_ns + MS;
    uint64_t first = a->drx_after_ns ? a->drx_after_ns : a->rrc_fach_ns ? a->rrc_fach_ns : a->rrc_idle_ns;
    pair(p, settle, first / 2, 0); /* still awake */
    if (a->drx_after_ns && a->drx_short_ns)
        pair(p, settle, a->drx_after_ns + 1, a->drx_short_for_ns > 2 ? a->drx_short_for_ns - 2 : 1);
    if (a->drx_after_ns && a->drx_long_ns)
        pair(p, settle, a->drx_after_ns + (a->drx_short_ns ? a->drx_short_for_ns : 0) + MS,
             a->drx_long_ns * 5);
    if (a->rrc_fach_ns)
        pair(p, settle, a->rrc_fach_ns + MS, a->rrc_fach_ns / 10);
    if (a->rrc_idle_ns)
        pair(p, settle, a->rrc_idle_ns + MS, a->paging_ns ? 3 * a->paging_ns : MS);
    turns(c, p);
}

static void plan_nat(struct calibrate *c)
{
    if (!c->profile.nat_idle_ns)
        return;
    struct calibrate_phase *p = add(c, CALIBRATE_NAT);
    quiet(&p->profile, false, false, false, false);
    p->profile.nat_idle_ns = c->profile.nat_idle_ns;
    silence(p, c->profile.nat_idle_ns / 10, c->profile.nat_idle_ns * 8 / 10);
    silence(p, c->profile.nat_idle_ns * 11 / 10, c->profile.nat_idle_ns);
    turns(c, p);
}

static void plan_whole(struct calibrate *c)
{
    if (!c->o.tells_reasons)
        return;
    struct calibrate_phase *p = add(c, CALIBRATE_WHOLE);
    p->profile.nat_idle_ns = 0;
    p->profile.blackout_loses_ppm = p->profile.handover_loses_ppm = 0;
    for (int d = 0; d < 2; d++) {
        const struct netem_direction *w = &p->profile.dir[d];
        uint64_t bps = w->trace ? netem_trace_mean_bps(w->trace) : w->rate_bps;
        uint64_t service = bps ? PROBE_BYTES * 8 * S / bps : 0;
        traffic(c, p, d, PROBE_BYTES, service * 3 > 5 * MS ? service * 3 : 5 * MS);
        enough_for_loss(c, p, d);
    }
}

void calibrate_plan(struct calibrate *c)
{
    plan_loss(c);
    plan_delay(c);
    plan_reorder(c);
    plan_full(c);
    plan_windows(c);
    plan_sleep(c);
    plan_nat(c);
    plan_whole(c);
}
