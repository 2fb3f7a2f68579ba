/* Inside the room: what a calibration keeps, and the statistics it needs. */
#ifndef NETEM_CALIBRATE_IMPL_H
#define NETEM_CALIBRATE_IMPL_H

#include "netem/calibrate.h"

#define PHASES_MAX 12
#define RUNS_MAX   256

#define LOSS_TOLERANCE 0.05 /* of what was asked; burst too */

/* A growing list of numbers. */
struct series {
    uint64_t *at;
    uint64_t n, cap;
};

struct span_seen { /* an outage or a hold, as packets saw it or as the link told it */
    uint64_t start_ns, length_ns;
};
struct spans {
    struct span_seen *at;
    uint64_t n, cap;
};

/* What one direction of one phase has seen. */
struct way_seen {
    uint64_t offered, delivered, lost, copies, corrupt, reordered;
    uint64_t bytes, first_bytes, first_ns,
        last_ns;                           /* of deliveries; the first one's bytes don't count for a rate */
    uint64_t offered_ns, newest_ns;        /* latest offer; latest delivery */
    uint64_t delay_max_ns, before_full_ns; /* the delay of the packet before this one; 0: it was lost */
    uint64_t runs[RUNS_MAX], runs_n, run;  /* of losses, by length; the last is "or longer" */
    bool any_before;                       /* a packet that arrived came before: a run's beginning was seen */
    struct series delays;                  /* DELAY */
    struct series seconds;                 /* FULL with a trace: bytes by second since it began */
    struct series waits;                   /* FULL: delays of packets that were the last to find room */
    double pair_x, pair_y, pair_xx, pair_yy, pair_xy, pair_n, before_ms; /* lag 1 */
    bool before;
    struct spans dark;
    uint64_t dark_since_ns; /* of the outage that goes on, 0: none; when the latest hold ends */
};

struct phase_seen {
    struct calibrate_phase plan;
    struct way_seen way[2];
    struct spans told;
    uint64_t began_ns, turns; /* UINT64_MAX: not yet */
    /* SLEEP and NAT */
    struct series idle, fach, paging, drx_short, drx_long, flat;
    uint64_t awake_ns, kept, kept_of, gone, gone_of;
};

struct calibrate {
    struct netem_profile profile;
    struct calibrate_options o;
    struct phase_seen phase[PHASES_MAX];
    unsigned phases;
    const char *lacks[CALIBRATE_KINDS];
    struct calibrate_row rows[CALIBRATE_ROWS_MAX];
    unsigned rows_n;
    bool no_memory, may_add; /* may_add: packets that loss needs */
};

void calibrate_plan(struct calibrate *c);
void series_add(struct calibrate *c, struct series *s, uint64_t v);
void spans_add(struct calibrate *c, struct spans *s, uint64_t start_ns, uint64_t length_ns);
/* Service time of a packet at the direction's rate; 0 without. */
uint64_t calibrate_service_ns(const struct netem_direction *d, uint32_t bytes);
/* Lowest and highest delay that the profile allows. */
void calibrate_delay_bounds(const struct netem_direction *d, uint64_t *low_ns, uint64_t *high_ns);

/* --- statistics --- */

/* P(X >= x) of chi-square with `df` degrees of freedom. */
double stats_chi2_p(double x, double df);
/* P(D >= d) of Kolmogorov-Smirnov for n samples. */
double stats_ks_p(double d, double n);
/* The distribution function F(x) of what was asked: the share at or below x nanoseconds. */
typedef double stats_cdf(const void *of, double x_ns);
/* Sorts `s`; the largest distance to the distribution. */
double stats_ks(struct series *s, stats_cdf *cdf, const void *of);
void stats_sort(struct series *s);
double stats_delay_cdf(const void *direction, double x_ns); /* struct netem_direction */
double stats_span_cdf(const void *span, double x_ns);       /* struct netem_span */
double stats_exp_cdf(const void *mean_ns, double x_ns);     /* uint64_t */
double stats_even_cdf(const void *cycle_ns, double x_ns);   /* uint64_t: evenly in [0, cycle] */
double stats_delay_quantile(const struct netem_direction *d, double q);
double stats_span_mean(const struct netem_span *s);
double stats_span_deviation(const struct netem_span *s);
/* Of a sorted series. */
double stats_quantile(const struct series *s, double q);
double stats_mean(const struct series *s);

/* What a chain with loss in its good state does: share lost, mean run, and P(run = k) for k = 1 .. n - 1, the
 * last being P(run >= n). */
struct chain {
    double loss, run, correlation; /* of the state, at lag 1 */
};
struct chain stats_chain(const struct netem_direction *d);
void stats_chain_runs(const struct netem_direction *d, double *p, unsigned n);
/* Runs against the chain: the p; *bins is how many lengths were told apart. < 0: too few. */
double stats_runs_p(const struct netem_direction *d, const uint64_t *runs, uint64_t runs_n, unsigned *bins);

#endif
