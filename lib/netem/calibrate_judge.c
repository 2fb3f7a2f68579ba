/* The rows: asked against achieved. */
#include <math.h>
#include <string.h>

#include "netem/calibrate_judge_impl.h"

static void judge_row(struct calibrate_row *r, const struct claim *k)
{
    double off = fabs(r->achieved - r->asked);
    bool far = off > 3 * k->error, near = off <= r->tolerance;
    r->verdict = CALIBRATE_PASS;
    if (!k->packets) {
        r->verdict = CALIBRATE_UNKNOWN;
        snprintf(r->why, sizeof r->why, "nothing was seen that shows it");
    } else if (near && k->p_counts && k->p >= 0 && k->p < CALIBRATE_P_MIN) {
        r->verdict = CALIBRATE_FAIL;
        snprintf(r->why, sizeof r->why, "another distribution: p = %.2g", k->p);
    } else if (!near && far) {
        r->verdict = CALIBRATE_FAIL;
        snprintf(r->why, sizeof r->why, "off by %.4g %s, %.4g is allowed", off, r->unit, r->tolerance);
    } else if (!near || k->error > r->tolerance) {
        r->verdict = CALIBRATE_UNKNOWN;
        snprintf(r->why, sizeof r->why, "too few packets: the standard error is %.3g %s, %.3g is allowed",
                 k->error, r->unit, r->tolerance);
    }
}

void calibrate_claim(struct calibrate *c, const struct claim *k)
{
    if (c->rows_n == CALIBRATE_ROWS_MAX || c->lacks[k->f->plan.kind])
        return;
    struct calibrate_row *r = &c->rows[c->rows_n++];
    *r = (struct calibrate_row){.kind = k->f->plan.kind,
                                .dir = (uint8_t)k->dir,
                                .unit = k->unit,
                                .asked = k->asked,
                                .achieved = k->achieved,
                                .tolerance = k->tolerance,
                                .error = k->error,
                                .p = k->p,
                                .test = k->test ? k->test : "",
                                .packets = k->packets};
    snprintf(r->what, sizeof r->what, "%s", k->what);
    judge_row(r, k);
}

/* --- loss --- */

/* A share of packets, each on its own. */
static void share(struct calibrate *c, const struct phase_seen *f, int d, const char *what, double asked,
                  uint64_t hits, uint64_t of)
{
    double n = of ? (double)of : 1;
    calibrate_claim(c, &(struct claim){.f = f,
                                       .dir = d,
                                       .what = what,
                                       .unit = "%",
                                       .asked = 100 * asked,
                                       .achieved = 100 * (double)hits / n,
                                       .tolerance = 100 * asked * LOSS_TOLERANCE,
                                       .error = 100 * sqrt(asked * (1 - asked) / n),
                                       .p = -1,
                                       .packets = of});
}

static void judge_loss(struct calibrate *c, const struct phase_seen *f, int d)
{
    const struct netem_direction *a = &f->plan.profile.dir[d];
    const struct way_seen *w = &f->way[d];
    struct chain chain = stats_chain(a);
    double n = w->offered ? (double)w->offered : 1, whole = f->plan.kind == CALIBRATE_WHOLE;
    /* neighbours are alike, so there are fewer independent packets */
    double alike = (1 + chain.correlation) / (1 - (chain.correlation < 1 ? chain.correlation : 0));
    double error = sqrt(chain.loss * (1 - chain.loss) / n * (a->burst_milli && alike > 1 ? alike : 1));
    calibrate_claim(c, &(struct claim){.f = f,
                                       .dir = d,
                                       .what = whole ? "loss outside of outages" : "loss",
                                       .unit = "%",
                                       .asked = 100 * chain.loss,
                                       .achieved = 100 * (double)w->lost / n,
                                       .tolerance = 100 * chain.loss * LOSS_TOLERANCE,
                                       .error = 100 * error,
                                       .p = -1,
                                       .packets = w->offered});
    if (whole)
        return;
    if (chain.loss > 0 && chain.loss < 1) {
        unsigned bins;
        double runs = 0, lost = 0, p = stats_runs_p(a, w->runs, w->runs_n, &bins);
        for (unsigned i = 0; i < RUNS_MAX; i++)
            lost += (i + 1.0) * (double)w->runs[i];
        runs = w->runs_n ? (double)w->runs_n : 1;
        calibrate_claim(c,
                        &(struct claim){.f = f,
                                        .dir = d,
                                        .what = "burst",
                                        .unit = "packets",
                                        .test = "chi-square of run lengths",
                                        .asked = chain.run,
                                        .achieved = lost / runs,
                                        .tolerance = chain.run * LOSS_TOLERANCE,
                                        .error = sqrt(chain.run * (chain.run > 1 ? chain.run - 1 : 0) / runs),
                                        .p = p,
                                        .p_counts = true,
                                        .packets = w->runs_n ? w->offered : 0});
    }
    if (c->profile.dir[d].duplicate_ppm)
        share(c, f, d, "duplicates", c->profile.dir[d].duplicate_ppm / 1e6, w->copies, w->delivered);
    if (c->profile.dir[d].corrupt_ppm)
        share(c, f, d, "corrupt", c->profile.dir[d].corrupt_ppm / 1e6, w->corrupt, w->delivered);
}

/* --- delay --- */

static void judge_correlation(struct calibrate *c, const struct phase_seen *f, int d)
{
    const struct way_seen *w = &f->way[d];
    double asked = f->plan.profile.dir[d].jitter_corr_ppm / 1e6, n = w->pair_n > 1 ? w->pair_n : 1;
    double cov = w->pair_xy / n - w->pair_x / n * (w->pair_y / n);
    double x = w->pair_xx / n - w->pair_x / n * (w->pair_x / n),
           y = w->pair_yy / n - w->pair_y / n * (w->pair_y / n);
    calibrate_claim(c, &(struct claim){.f = f,
                                       .dir = d,
                                       .what = "jitter correlation",
                                       .unit = "",
                                       .asked = asked,
                                       .achieved = x > 0 && y > 0 ? cov / sqrt(x * y) : 0,
                                       .tolerance = 0.02,
                                       .error = sqrt((1 - asked * asked) / n),
                                       .p = -1,
                                       .packets = w->pair_n > 1 ? (uint64_t)w->pair_n : 0});
}

static void judge_delay(struct calibrate *c, struct phase_seen *f, int d)
{
    static const struct {
        double q;
        const char *what;
    } at[] = {{0.01, "delay p1"}, {0.5, "delay p50"}, {0.9, "delay p90"}, {0.99, "delay p99"}};
    const struct netem_direction *a = &f->plan.profile.dir[d];
    struct series *s = &f->way[d].delays;
    uint64_t service = calibrate_service_ns(a, f->plan.way[d].bytes);
    double corr = a->jitter_corr_ppm / 1e6, n = (double)s->n * (1 - corr) / (1 + corr), p = -1;
    for (uint64_t i = 0; i < s->n; i++)
        s->at[i] -= s->at[i] > service ? service : s->at[i];
    double far = stats_ks(s, stats_delay_cdf, a); /* sorts */
    if (a->jitter_ns && s->n)
        p = stats_ks_p(far, n);
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        double asked = stats_delay_quantile(a, at[i].q) / MS, tolerance = asked * DELAY_SHARE,
               least = c->o.late_ns ? (double)c->o.late_ns / MS : DELAY_MS;
        /* a quantile's error is that of its share, over the density around it */
        double h = 0.005, slope = (stats_delay_quantile(a, fmin(at[i].q + h, 1)) -
                                   stats_delay_quantile(a, fmax(at[i].q - h, 0))) /
                                  (2 * h) / MS;
        /* and nobody knows the hundredth part of fewer than a hundred packets */
        double blind = n * fmin(at[i].q, 1 - at[i].q) < 1
                           ? (stats_delay_quantile(a, 1) - stats_delay_quantile(a, 0)) / MS
                           : 0;
        calibrate_claim(
            c, &(struct claim){.f = f,
                               .dir = d,
                               .what = at[i].what,
                               .unit = "ms",
                               .test = a->jitter_ns ? "Kolmogorov-Smirnov" : "",
                               .asked = asked,
                               .achieved = stats_quantile(s, at[i].q) / MS,
                               .tolerance = fmax(tolerance, least),
                               .error = n > 1 ? slope * sqrt(at[i].q * (1 - at[i].q) / n) + blind : 0,
                               .p = p,
                               .p_counts = c->o.exact,
                               .packets = s->n});
    }
    if (a->jitter_ns)
        judge_correlation(c, f, d);
}

/* --- reordering: the share that netem's rule comes to, with its gap and its correlation --- */

static void judge_reorder(struct calibrate *c, const struct phase_seen *f, int d)
{
    const struct netem_direction *a = &f->plan.profile.dir[d];
    if (!f->plan.way[d].packets)
        return;
    double p = a->reorder_ppm / 1e6, again = a->reorder_corr_ppm / 1e6,
           gap = a->reorder_gap > 1 ? a->reorder_gap : 1;
    double first = again + (1 - again) * p, later = (1 - again) * p;
    double trials = 1 + (1 - first) / later;
    share(c, f, d, "reordered", 1 / (gap - 1 + trials), f->way[d].reordered, f->way[d].delivered);
}

/* --- rate and queue --- */

static void judge_trace(struct calibrate *c, const struct phase_seen *f, int d)
{
    const struct netem_trace *t = f->plan.profile.dir[d].trace;
    const struct series *s = &f->way[d].seconds;
    double worst = 0, seconds = 0;
    for (uint64_t i = 1; i + 1 < s->n; i++) {
        double asked = (double)(netem_trace_rank(t, 1000 * i + 999) - netem_trace_rank(t, 1000 * i - 1)) *
                       NETEM_OPPORTUNITY;
        double off = fabs((double)s->at[i] - asked);
        if (off > NETEM_OPPORTUNITY) /* one packet on the border of a second is no deviation */
            worst = fmax(worst, asked > 0 ? off / asked : 1);
        seconds++;
    }
    calibrate_claim(c, &(struct claim){.f = f,
                                       .dir = d,
                                       .what = "trace, worst second",
                                       .unit = "%",
                                       .asked = 0,
                                       .achieved = 100 * worst,
                                       .tolerance = 100 * TRACE_TOLERANCE,
                                       .p = -1,
                                       .packets = seconds > 0 ? f->way[d].delivered : 0});
}

/* How long a full queue makes a packet wait: the median of those that took its last room. The longest wait of
 * all is that of the longest pause of the machine that carries them. In a drop-head queue all move up faster
 * while others come; only the very last waits for all of it. */
static double full_wait_ns(const struct netem_direction *a, struct way_seen *w)
{
    stats_sort(&w->waits);
    double ns = a->queue_head ? (double)w->delay_max_ns : stats_quantile(&w->waits, 0.5);
    return ns > (double)a->delay_ns ? ns - (double)a->delay_ns : 0;
}

static void judge_full(struct calibrate *c, struct phase_seen *f, int d)
{
    const struct netem_direction *a = &f->plan.profile.dir[d];
    struct way_seen *w = &f->way[d];
    if (!f->plan.way[d].packets)
        return;
    if (a->trace) {
        judge_trace(c, f, d);
        return;
    }
    double seconds = (double)(w->last_ns - w->first_ns) / S, asked = (double)a->rate_bps / 1e6;
    calibrate_claim(
        c,
        &(struct claim){.f = f,
                        .dir = d,
                        .what = "rate",
                        .unit = "Mbit/s",
                        .asked = asked,
                        .achieved = seconds > 0 ? (double)(w->bytes - w->first_bytes) * 8 / seconds / 1e6 : 0,
                        .tolerance = asked * RATE_TOLERANCE,
                        .p = -1,
                        .packets = seconds > 0 ? w->delivered : 0});
    double bytes = f->plan.way[d].bytes, queue = (double)a->queue_bytes;
    calibrate_claim(c, &(struct claim){.f = f,
                                       .dir = d,
                                       .what = "queue",
                                       .unit = "kB",
                                       .asked = queue / 1000,
                                       .achieved = full_wait_ns(a, w) / S * (double)a->rate_bps / 8 / 1000,
                                       .tolerance = fmax(queue * DELAY_SHARE, 2 * bytes) / 1000,
                                       .p = -1,
                                       .packets = w->waits.n ? w->delivered : 0});
}

/* --- all --- */

static void judge_phase(struct calibrate *c, struct phase_seen *f)
{
    for (int d = 0; d < 2; d++) {
        if (f->plan.kind == CALIBRATE_LOSS || f->plan.kind == CALIBRATE_WHOLE)
            judge_loss(c, f, d);
        else if (f->plan.kind == CALIBRATE_DELAY)
            judge_delay(c, f, d);
        else if (f->plan.kind == CALIBRATE_REORDER)
            judge_reorder(c, f, d);
        else if (f->plan.kind == CALIBRATE_FULL)
            judge_full(c, f, d);
    }
    if (f->plan.kind == CALIBRATE_OUTAGE || f->plan.kind == CALIBRATE_HOLD)
        calibrate_judge_weather(c, f);
    else if (f->plan.kind == CALIBRATE_SLEEP)
        calibrate_judge_sleep(c, f);
    else if (f->plan.kind == CALIBRATE_NAT)
        calibrate_judge_nat(c, f);
}

/* What a driver leaves out is a row of its own, once for each kind. */
static void claim_lacks(struct calibrate *c)
{
    bool said[CALIBRATE_KINDS] = {false};
    for (unsigned i = 0; i < c->phases; i++) {
        enum calibrate_kind kind = c->phase[i].plan.kind;
        if (!c->lacks[kind] || said[kind] || c->rows_n == CALIBRATE_ROWS_MAX)
            continue;
        said[kind] = true;
        struct calibrate_row *r = &c->rows[c->rows_n++];
        *r = (struct calibrate_row){
            .kind = kind, .dir = 2, .unit = "", .test = "", .p = -1, .verdict = CALIBRATE_UNKNOWN};
        snprintf(r->what, sizeof r->what, "left out");
        snprintf(r->why, sizeof r->why, "%s", c->lacks[kind]);
    }
}

enum calibrate_verdict calibrate_judge(struct calibrate *c)
{
    enum calibrate_verdict all = CALIBRATE_PASS;
    c->rows_n = 0;
    for (unsigned i = 0; i < c->phases; i++)
        judge_phase(c, &c->phase[i]);
    claim_lacks(c);
    for (unsigned i = 0; i < c->rows_n; i++) {
        if (c->rows[i].verdict == CALIBRATE_FAIL)
            all = CALIBRATE_FAIL;
        else if (c->rows[i].verdict == CALIBRATE_UNKNOWN && all == CALIBRATE_PASS)
            all = CALIBRATE_UNKNOWN;
    }
    return c->no_memory && all == CALIBRATE_PASS ? CALIBRATE_UNKNOWN : all;
}
