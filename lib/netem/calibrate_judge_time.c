/* Rows about time: outages, holds, sleep, silence. */
#include <math.h>

#include "netem/calibrate_judge_impl.h"

/* --- outages and holds --- */

struct weather {
    const char *name;
    const struct netem_windows *of;
};

static struct weather weather_of(const struct phase_seen *f)
{
    const struct netem_profile *p = &f->plan.profile;
    if (f->plan.kind == CALIBRATE_HOLD)
        return p->stall.every_ns ? (struct weather){"stall", &p->stall} : (struct weather){"cell", &p->cell};
    return p->handover.every_ns ? (struct weather){"handover", &p->handover}
                                : (struct weather){"blackout", &p->blackout};
}

/* Each one that the link told against the one that packets saw. Those too close for a packet between them are
 * one. */
static void judge_lengths(struct calibrate *c, const struct phase_seen *f, int d, const char *name)
{
    const struct spans *told = &f->told, *seen = &f->way[d].dark;
    uint64_t gap = f->plan.way[d].gap_ns, k = 0, matched = 0, of = 0;
    double worst = 0;
    char what[40];
    for (uint64_t i = 0; i < told->n; i++) {
        uint64_t start = told->at[i].start_ns, end = start + told->at[i].length_ns;
        for (; i + 1 < told->n && told->at[i + 1].start_ns < end + 8 * gap; i++)
            end = told->at[i + 1].start_ns + told->at[i + 1].length_ns;
        if (end - start < 8 * gap || end + gap >= f->way[d].offered_ns)
            continue;
        of++;
        while (k < seen->n && seen->at[k].start_ns + seen->at[k].length_ns < start)
            k++;
        if (k == seen->n || seen->at[k].start_ns > end)
            continue;
        uint64_t first = seen->at[k].start_ns, last = first;
        for (; k < seen->n && seen->at[k].start_ns <= end; k++)
            last = seen->at[k].start_ns + seen->at[k].length_ns;
        matched++;
        worst = fmax(worst, fabs((double)(last - first) - (double)(end - start)) / MS);
    }
    snprintf(what, sizeof what, "%ss seen", name);
    calibrate_claim(c, &(struct claim){.f = f,
                                       .dir = 2,
                                       .what = what,
                                       .unit = "",
                                       .asked = (double)of,
                                       .achieved = (double)matched,
                                       .p = -1,
                                       .packets = of ? f->way[d].offered : 0});
    snprintf(what, sizeof what, "%s length, worst error", name);
    calibrate_claim(c, &(struct claim){.f = f,
                                       .dir = 2,
                                       .what = what,
                                       .unit = "ms",
                                       .achieved = worst,
                                       .tolerance = OUTAGE_MS,
                                       .p = -1,
                                       .packets = matched ? f->way[d].offered : 0});
}

/* By the clock: each start against the plan. */
static void judge_clock(struct calibrate *c, const struct phase_seen *f, int d)
{
    const struct netem_profile *p = &f->plan.profile;
    const struct spans *seen = &f->way[d].dark;
    double worst_start = 0, worst_length = 0;
    uint64_t n = 0;
    for (uint64_t i = 0; i < seen->n; i++, n++) {
        uint64_t at = p->blackout_period_ns * (i + 1);
        if (p->blackout_at.n && i >= p->blackout_at.n)
            break;
        if (p->blackout_at.n) {
            at = p->blackout_at.of[i].at_ns;
            worst_length =
                fmax(worst_length,
                     fabs((double)seen->at[i].length_ns - (double)p->blackout_at.of[i].length_ns) / MS);
        }
        worst_start = fmax(worst_start, fabs((double)(seen->at[i].start_ns - f->began_ns) - (double)at) / MS);
    }
    uint64_t packets = n ? f->way[d].offered : 0;
    calibrate_claim(c, &(struct claim){.f = f,
                                       .dir = 2,
                                       .what = "blackout start, off the clock",
                                       .unit = "ms",
                                       .achieved = worst_start,
                                       .tolerance = OUTAGE_MS,
                                       .p = -1,
                                       .packets = packets});
    if (p->blackout_at.n)
        calibrate_claim(c, &(struct claim){.f = f,
                                           .dir = 2,
                                           .what = "blackout length, off the list",
                                           .unit = "ms",
                                           .achieved = worst_length,
                                           .tolerance = OUTAGE_MS,
                                           .p = -1,
                                           .packets = packets});
}

/* Lengths and the times between them against their distributions. */
static void judge_distribution(struct calibrate *c, const struct phase_seen *f, int d,
                               const struct weather *k)
{
    const struct spans *seen = &f->way[d].dark;
    struct series lengths = {0}, between = {0};
    char what[40];
    for (uint64_t i = 0; i < seen->n; i++) {
        series_add(c, &lengths, seen->at[i].length_ns);
        if (i)
            series_add(c, &between,
                       seen->at[i].start_ns - seen->at[i - 1].start_ns - seen->at[i - 1].length_ns);
    }
    double asked = stats_span_mean(&k->of->length) / MS, n = lengths.n ? (double)lengths.n : 1;
    bool varies = k->of->length.min_ns != k->of->length.max_ns;
    snprintf(what, sizeof what, "%s length, mean", k->name);
    calibrate_claim(
        c, &(struct claim){.f = f,
                           .dir = 2,
                           .what = what,
                           .unit = "ms",
                           .test = varies ? "Kolmogorov-Smirnov" : "",
                           .asked = asked,
                           .achieved = stats_mean(&lengths) / MS,
                           .tolerance = fmax(asked * DELAY_SHARE, OUTAGE_MS),
                           .error = stats_span_deviation(&k->of->length) / MS / sqrt(n),
                           .p = varies && lengths.n
                                    ? stats_ks_p(stats_ks(&lengths, stats_span_cdf, &k->of->length), n)
                                    : -1,
                           .packets = lengths.n ? f->way[d].offered : 0});
    if (k->of->every_ns) {
        double m = between.n ? (double)between.n : 1, mean = (double)k->of->every_ns / S;
        snprintf(what, sizeof what, "time between %ss, mean", k->name);
        calibrate_claim(
            c, &(struct claim){
                   .f = f,
                   .dir = 2,
                   .what = what,
                   .unit = "s",
                   .test = "Kolmogorov-Smirnov",
                   .asked = mean,
                   .achieved = stats_mean(&between) / S,
                   .tolerance = mean * LOSS_TOLERANCE,
                   .error = mean / sqrt(m),
                   .p = between.n ? stats_ks_p(stats_ks(&between, stats_exp_cdf, &k->of->every_ns), m) : -1,
                   .p_counts = true,
                   .packets = between.n ? f->way[d].offered : 0});
    }
    free(lengths.at);
    free(between.at);
}

void calibrate_judge_weather(struct calibrate *c, const struct phase_seen *f)
{
    int d = f->plan.way[NETEM_UP].packets ? NETEM_UP : NETEM_DOWN;
    struct weather k = weather_of(f);
    const struct netem_profile *p = &f->plan.profile;
    bool clocked = p->blackout_period_ns || p->blackout_at.n;
    if (f->told.n)
        judge_lengths(c, f, d, k.name);
    if (clocked)
        judge_clock(c, f, d);
    if (!p->blackout_at.n)
        judge_distribution(c, f, d, &k);
}

/* --- the radio's sleep and the NAT --- */

/* A wait that is always the same. */
static void constant(struct calibrate *c, const struct phase_seen *f, int dir, const char *what,
                     struct series *s, uint64_t asked_ns)
{
    double asked = (double)asked_ns / MS, worst = asked;
    for (uint64_t i = 0; i < s->n; i++)
        if (fabs((double)s->at[i] / MS - asked) > fabs(worst - asked))
            worst = (double)s->at[i] / MS;
    calibrate_claim(c, &(struct claim){.f = f,
                                       .dir = dir,
                                       .what = what,
                                       .unit = "ms",
                                       .asked = asked,
                                       .achieved = c->o.exact ? worst : stats_mean(s) / MS,
                                       .tolerance = fmax(asked * DELAY_SHARE, DELAY_MS),
                                       .p = -1,
                                       .packets = s->n});
}

/* A wait for the next of many moments, `after` more each time. */
static void cyclic(struct calibrate *c, const struct phase_seen *f, const char *what, struct series *s,
                   uint64_t cycle_ns, uint64_t after_ns)
{
    double asked = ((double)cycle_ns / 2 + (double)after_ns) / MS, n = s->n ? (double)s->n : 1;
    double achieved = stats_mean(s) / MS;
    for (uint64_t i = 0; i < s->n; i++)
        s->at[i] = s->at[i] > after_ns ? s->at[i] - after_ns : 0;
    calibrate_claim(c, &(struct claim){.f = f,
                                       .dir = NETEM_DOWN,
                                       .what = what,
                                       .unit = "ms",
                                       .test = "Kolmogorov-Smirnov",
                                       .asked = asked,
                                       .achieved = achieved,
                                       .tolerance = fmax(asked * DELAY_SHARE, DELAY_MS),
                                       .error = (double)cycle_ns / MS / sqrt(12 * n),
                                       .p = s->n ? stats_ks_p(stats_ks(s, stats_even_cdf, &cycle_ns), n) : -1,
                                       .p_counts = c->o.exact,
                                       .packets = s->n});
}

void calibrate_judge_sleep(struct calibrate *c, struct phase_seen *f)
{
    const struct netem_profile *p = &f->plan.profile;
    constant(c, f, 2, "awake", &f->flat, 0);
    if (p->rrc_idle_ns)
        constant(c, f, p->paging_ns ? NETEM_UP : 2, "promotion from idle", &f->idle, p->rrc_promotion_ns);
    if (p->rrc_fach_ns)
        constant(c, f, 2, "promotion from FACH", &f->fach, p->rrc_fach_promotion_ns);
    if (p->rrc_idle_ns && p->paging_ns)
        cyclic(c, f, "paging and promotion", &f->paging, p->paging_ns, p->rrc_promotion_ns);
    if (p->drx_after_ns && p->drx_short_ns)
        cyclic(c, f, "short DRX", &f->drx_short, p->drx_short_ns, 0);
    if (p->drx_after_ns && p->drx_long_ns)
        cyclic(c, f, "long DRX", &f->drx_long, p->drx_long_ns, 0);
}

void calibrate_judge_nat(struct calibrate *c, const struct phase_seen *f)
{
    double kept_of = f->kept_of ? (double)f->kept_of : 1, gone_of = f->gone_of ? (double)f->gone_of : 1;
    calibrate_claim(c, &(struct claim){.f = f,
                                       .dir = NETEM_DOWN,
                                       .what = "kept below nat_idle",
                                       .unit = "%",
                                       .asked = 100,
                                       .achieved = 100 * (double)f->kept / kept_of,
                                       .p = -1,
                                       .packets = f->kept_of});
    calibrate_claim(c, &(struct claim){.f = f,
                                       .dir = NETEM_DOWN,
                                       .what = "expired above nat_idle",
                                       .unit = "%",
                                       .asked = 100,
                                       .achieved = 100 * (double)f->gone / gone_of,
                                       .p = -1,
                                       .packets = f->gone_of});
}
