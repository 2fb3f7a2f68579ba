/* The statistics of a calibration: floating point is fine here, links never see it. */
#include <math.h>
#include <stdlib.h>

#include "netem/calibrate_impl.h"

/* Upper incomplete gamma Q(a, x), by its series or its continued fraction (Numerical Recipes 6.2). */
static double gamma_q(double a, double x)
{
    double log_front = -x + a * log(x) - lgamma(a);
    if (x <= 0)
        return 1;
    if (x < a + 1) {
        double sum = 1 / a, term = sum;
        for (double n = a + 1; term > sum * 1e-12; n++) {
            term *= x / n;
            sum += term;
        }
        return 1 - sum * exp(log_front);
    }
    double b = x + 1 - a, c = 1e300, d = 1 / b, h = d;
    for (int i = 1; i < 500; i++) {
        double an = -i * (i - a), change;
        b += 2;
        d = an * d + b;
        d = 1 / (fabs(d) < 1e-300 ? 1e-300 : d);
        c = b + an / c;
        c = fabs(c) < 1e-300 ? 1e-300 : c;
        change = d * c;
        h *= change;
        if (fabs(change - 1) < 1e-12)
            break;
    }
    return h * exp(log_front);
}

double stats_chi2_p(double x, double df)
{
    return df > 0 && x > 0 ? gamma_q(df / 2, x / 2) : 1;
}

/* The asymptotic series with Stephens' correction for small n. */
double stats_ks_p(double d, double n)
{
    double root = sqrt(n), l = (root + 0.12 + 0.11 / root) * d, sum = 0, sign = 1;
    if (l < 0.2)
        return 1;
    for (int k = 1; k < 100; k++, sign = -sign) {
        double term = exp(-2 * k * k * l * l);
        sum += sign * term;
        if (term < 1e-14)
            break;
    }
    sum *= 2;
    return sum < 0 ? 0 : sum > 1 ? 1 : sum;
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

void stats_sort(struct series *s)
{
    if (s->n)
        qsort(s->at, s->n, sizeof *s->at, by_size);
}

double stats_ks(struct series *s, stats_cdf *cdf, const void *of)
{
    double worst = 0, n = (double)s->n;
    if (s->n)
        qsort(s->at, s->n, sizeof *s->at, by_size);
    for (uint64_t i = 0, next; i < s->n; i = next) {
        for (next = i + 1; next < s->n && s->at[next] == s->at[i];)
            next++;
        /* times are whole nanoseconds: what is below this one is at or below the one before */
        double below = fabs((double)i / n - cdf(of, (double)s->at[i] - 1));
        double upto = fabs((double)next / n - cdf(of, (double)s->at[i]));
        worst = below > worst ? below : worst;
        worst = upto > worst ? upto : worst;
    }
    return worst;
}

double stats_delay_cdf(const void *direction, double x_ns)
{
    const struct netem_direction *d = direction;
    double delay = (double)d->delay_ns, jitter = (double)d->jitter_ns;
    if (!d->jitter_ns)
        return x_ns >= delay;
    if (!d->dist) {
        double share = (x_ns + 1 - (delay - jitter)) / (2 * jitter + 1);
        return share < 0 ? 0 : share > 1 ? 1 : share;
    }
    if (x_ns < 0)
        return 0;
    /* tables rise */
    uint32_t low = 0, high = d->dist->n;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (trunc(jitter * d->dist->at[middle] / 8192) + delay <= x_ns)
            low = middle + 1;
        else
            high = middle;
    }
    return (double)low / d->dist->n;
}

double stats_delay_quantile(const struct netem_direction *d, double q)
{
    double delay = (double)d->delay_ns, jitter = (double)d->jitter_ns, x;
    if (!d->dist) {
        x = delay + (2 * q - 1) * jitter;
    } else {
        uint32_t i = (uint32_t)(q * d->dist->n);
        x = delay + jitter * d->dist->at[i < d->dist->n ? i : d->dist->n - 1] / 8192;
    }
    return x < 0 ? 0 : x;
}

static const double span_share[5] = {0, 0.5, 0.9, 0.99, 1};

double stats_span_cdf(const void *span, double x_ns)
{
    const struct netem_span *s = span;
    const double at[5] = {(double)s->min_ns, (double)s->p50_ns, (double)s->p90_ns, (double)s->p99_ns,
                          (double)s->max_ns};
    double share = x_ns >= at[0] ? 0 : -1;
    for (int i = 0; i < 4; i++) {
        if (x_ns >= at[i + 1])
            share = span_share[i + 1];
        else if (x_ns >= at[i])
            return span_share[i] + (span_share[i + 1] - span_share[i]) * (x_ns - at[i]) / (at[i + 1] - at[i]);
    }
    return share < 0 ? 0 : share;
}

double stats_span_deviation(const struct netem_span *s)
{
    const double at[5] = {(double)s->min_ns, (double)s->p50_ns, (double)s->p90_ns, (double)s->p99_ns,
                          (double)s->max_ns};
    double mean = stats_span_mean(s), square = 0;
    for (int i = 0; i < 4; i++) {
        double a = at[i] - mean, b = at[i + 1] - mean;
        square += (span_share[i + 1] - span_share[i]) * (a * a + a * b + b * b) / 3;
    }
    return sqrt(square);
}

double stats_span_mean(const struct netem_span *s)
{
    const double at[5] = {(double)s->min_ns, (double)s->p50_ns, (double)s->p90_ns, (double)s->p99_ns,
                          (double)s->max_ns};
    double mean = 0;
    for (int i = 0; i < 4; i++)
        mean += (span_share[i + 1] - span_share[i]) * (at[i] + at[i + 1]) / 2;
    return mean;
}

double stats_exp_cdf(const void *mean_ns, double x_ns)
{
    return x_ns > 0 ? 1 - exp(-x_ns / (double)*(const uint64_t *)mean_ns) : 0;
}

double stats_even_cdf(const void *cycle_ns, double x_ns)
{
    double share = x_ns / (double)*(const uint64_t *)cycle_ns;
    return share < 0 ? 0 : share > 1 ? 1 : share;
}

double stats_quantile(const struct series *s, double q)
{
    if (!s->n)
        return 0;
    uint64_t i = (uint64_t)(q * (double)s->n);
    return (double)s->at[i < s->n ? i : s->n - 1];
}

double stats_mean(const struct series *s)
{
    double sum = 0;
    for (uint64_t i = 0; i < s->n; i++)
        sum += (double)s->at[i];
    return s->n ? sum / (double)s->n : 0;
}

/* --- losses --- */

static double p32(uint64_t share)
{
    return (double)share / 4294967296.0;
}

struct chain stats_chain(const struct netem_direction *d)
{
    double enter = p32(d->enter_p32), leave = p32(d->leave_p32), bad = p32(d->bad_p32),
           good = (double)d->loss_good_ppm / 1e6;
    struct chain c = {.loss = bad + (1 - bad) * good, .correlation = 1 - enter - leave};
    /* a run begins when a packet that arrived (so in the good state) is followed by a lost one */
    double begins = (1 - bad) * (1 - good) * (enter + (1 - enter) * good);
    c.run = begins > 0 ? c.loss / begins : 0;
    return c;
}

void stats_chain_runs(const struct netem_direction *d, double *p, unsigned n)
{
    double enter = p32(d->enter_p32), leave = p32(d->leave_p32), good = (double)d->loss_good_ppm / 1e6;
    double begins = enter + (1 - enter) * good;
    double in_bad = begins > 0 ? enter / begins : 0, in_good = 1 - in_bad; /* the run goes on, by its state */
    for (unsigned k = 1; k < n; k++) {
        double next_bad = in_bad * (1 - leave) + in_good * enter;
        double next_good = (in_bad * leave + in_good * (1 - enter)) * good;
        p[k - 1] = in_bad + in_good - next_bad - next_good;
        in_bad = next_bad;
        in_good = next_good;
    }
    p[n - 1] = in_bad + in_good;
}

double stats_runs_p(const struct netem_direction *d, const uint64_t *runs, uint64_t runs_n, unsigned *bins)
{
    double p[RUNS_MAX], x = 0, asked = 0, seen = 0, left = 1;
    stats_chain_runs(d, p, RUNS_MAX);
    *bins = 0;
    for (unsigned k = 0; k < RUNS_MAX; k++) {
        asked += p[k] * (double)runs_n;
        seen += (double)runs[k];
        left -= p[k];
        bool last = k == RUNS_MAX - 1 || left * (double)runs_n < 20;
        if (last) { /* and all that is longer */
            for (k++; k < RUNS_MAX; k++)
                seen += (double)runs[k];
            asked += left > 0 ? left * (double)runs_n : 0;
        }
        if (asked < 20 && !last)
            continue;
        x += asked > 0 ? (seen - asked) * (seen - asked) / asked : 0;
        ++*bins;
        asked = seen = 0;
    }
    return *bins > 1 ? stats_chi2_p(x, *bins - 1) : -1;
}
