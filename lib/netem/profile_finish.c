/* What follows from the values given, and what cannot be. */
#include "netem/profile_impl.h"

#include <string.h>

/* Scale by 2^32, `num` <= `den`. */
static uint64_t share_p32(uint64_t num, uint64_t den)
{
    return (uint64_t)(((unsigned __int128)num << 32) / den);
}

static int finish_loss(struct netem_direction *d, const char *way, struct err_ctx *ctx)
{
    const uint64_t all = 1000000;
    uint64_t lost = d->loss_ppm, kept = all - lost;
    d->bad_p32 = share_p32(lost, all);
    if (!d->burst_milli || !lost || !kept) {
        d->enter_p32 = share_p32(lost, all);
        d->leave_p32 = share_p32(kept, all);
        return 0;
    }
    /* p = L / (B (1-L)) <= 1 */
    if (lost * 1000 > d->burst_milli * kept)
        return err_set(ctx, ERR_INVALID, "%s.burst is too short for a loss that large", way);
    d->leave_p32 = share_p32(1000, d->burst_milli);
    d->enter_p32 = share_p32(lost * 1000, d->burst_milli * kept);
    return 0;
}

static void finish_queue(struct netem_direction *d)
{
    uint64_t bps = d->trace ? netem_trace_mean_bps(d->trace) : d->rate_bps;
    if (!bps)
        return;
    if (d->queue_ns) {
        d->queue_bytes = (uint64_t)((unsigned __int128)bps * d->queue_ns / 8000000000ull);
        if (!d->queue_bytes)
            d->queue_bytes = 1;
    }
    if (d->queue_bytes)
        return;
    d->queue_bytes = bps / 8 / 4;
    if (d->queue_bytes < 32000)
        d->queue_bytes = 32000;
}

static int finish_direction(struct netem_direction *d, const char *way, struct err_ctx *ctx)
{
    if (d->rate_bps && d->rate_bps < 1000)
        return err_set(ctx, ERR_RANGE, "%s.rate is below 1kbit", way);
    if (d->delay_ns > 60000000000ull)
        return err_set(ctx, ERR_RANGE, "%s.delay is above 60s", way);
    if (!d->dist && d->jitter_ns > d->delay_ns)
        return err_set(ctx, ERR_INVALID, "%s.jitter is above the delay", way);
    if (d->jitter_ns > 60000000000ull)
        return err_set(ctx, ERR_RANGE, "%s.jitter is above 60s", way);
    if (d->jitter_corr_ppm == 1000000 || d->reorder_corr_ppm == 1000000)
        return err_set(ctx, ERR_INVALID, "%s.%s_corr: at 100%% nothing would ever change", way,
                       d->jitter_corr_ppm == 1000000 ? "jitter" : "reorder");
    if (d->reorder_ppm && !d->delay_ns)
        return err_set(ctx, ERR_INVALID, "%s.reorder needs a delay to jump over", way);
    if (d->queue_head && !d->rate_bps && !d->trace)
        return err_set(ctx, ERR_INVALID, "%s.queue_drop needs a rate or a trace", way);
    finish_queue(d);
    return finish_loss(d, way, ctx);
}

static int finish_windows(const struct netem_windows *w, const char *what, struct err_ctx *ctx)
{
    if (w->every_ns && w->every_ns < NETEM_WINDOW_MIN_NS)
        return err_set(ctx, ERR_RANGE, "%s_every is below 100ms", what);
    if (w->every_ns && !w->length.max_ns)
        return err_set(ctx, ERR_INVALID, "%s_every needs %s_for", what, what);
    if (w->length.max_ns > 3600 * 1000000000ull)
        return err_set(ctx, ERR_RANGE, "%s_for is above 1h", what);
    return 0;
}

static int finish_period(const struct netem_profile *p, struct err_ctx *ctx)
{
    if (!p->blackout_period_ns)
        return 0;
    if (!p->blackout.length.max_ns)
        return err_set(ctx, ERR_INVALID, "blackout_period needs blackout_for");
    if (p->blackout.length.max_ns + NETEM_WINDOW_MIN_NS > p->blackout_period_ns)
        return err_set(ctx, ERR_INVALID, "blackout_period must be at least 100ms above blackout_for");
    return 0;
}

static int finish_radio(const struct netem_profile *p, struct err_ctx *ctx)
{
    bool loses = p->handover_loses_ppm || p->blackout_loses_ppm;
    if (loses && !p->nat_idle_ns)
        return err_set(ctx, ERR_INVALID, "%s_loses needs nat_idle",
                       p->handover_loses_ppm ? "handover" : "blackout");
    if (p->rrc_fach_ns && p->rrc_idle_ns && p->rrc_fach_ns >= p->rrc_idle_ns)
        return err_set(ctx, ERR_INVALID, "rrc_fach must be below rrc_idle");
    if (p->drx_after_ns && !p->drx_short_ns && !p->drx_long_ns)
        return err_set(ctx, ERR_INVALID, "drx_after needs drx_short or drx_long");
    const uint64_t waits[] = {p->rrc_promotion_ns, p->rrc_fach_promotion_ns, p->drx_short_ns,
                              p->drx_short_for_ns, p->drx_long_ns,           p->paging_ns};
    for (size_t i = 0; i < sizeof waits / sizeof *waits; i++)
        if (waits[i] > 60000000000ull)
            return err_set(ctx, ERR_RANGE, "a wait of the radio is above 60s");
    return 0;
}

int netem_finish(struct netem_profile *p, struct err_ctx *ctx)
{
    int rc = finish_direction(&p->dir[NETEM_UP], "up", ctx);
    rc = rc ? rc : finish_direction(&p->dir[NETEM_DOWN], "down", ctx);
    rc = rc ? rc : finish_windows(&p->blackout, "blackout", ctx);
    rc = rc ? rc : finish_windows(&p->handover, "handover", ctx);
    rc = rc ? rc : finish_windows(&p->cell, "cell", ctx);
    rc = rc ? rc : finish_windows(&p->stall, "stall", ctx);
    rc = rc ? rc : finish_period(p, ctx);
    return rc ? rc : finish_radio(p, ctx);
}
