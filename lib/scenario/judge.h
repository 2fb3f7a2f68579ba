/* Expectations: "delivered(mobile) >= 99.99%", "p95(delivery_ms{mobile}) < 2000",
 * "delivered(wifi) - delivered(mobile) < 0.1%", "duplicates == 0".
 *
 *     expectation = term [ "-" term ] ( ">=" | "<=" | "==" | "!=" | "<" | ">" ) number [ "%" | "ms" | "s" ]
 *     term        = metric [ "(" population ")" ] | ( "p50" | "p95" | "p99" | "max" ) "(" metric [ "{"
 * population "}" ] ")"
 *
 * Metrics are those of metrics.def. A misspelt metric or population, a quantile of a count, a share compared
 * with milliseconds are errors when the scenario is read, never a pass. Judging has three answers: pass,
 * fail, and unknown where the run proves neither: nothing was expected, the generator lagged, the evidence
 * has a hole that could tip the comparison. */
#ifndef SCENARIO_JUDGE_H
#define SCENARIO_JUDGE_H

#include <stdbool.h>

#include "scenario/scenario.h"

enum metric {
#define COUNT(ID, name, scope, help)           METRIC_##ID,
#define SHARE(ID, name, scope, num, den, help) METRIC_##ID,
#define MS(ID, name, scope, help)              METRIC_##ID,
#include "scenario/metrics.def"
#undef COUNT
#undef SHARE
#undef MS
    METRIC_COUNT
};
enum metric_kind { METRIC_IS_COUNT, METRIC_IS_SHARE, METRIC_IS_MS };
enum metric_scope { SCOPE_LOAD, SCOPE_NET, SCOPE_RUN };
enum quantile { QUANTILE_P50, QUANTILE_P95, QUANTILE_P99, QUANTILE_MAX, QUANTILE_COUNT };
enum verdict_of_run { JUDGED_PASS, JUDGED_FAIL, JUDGED_UNKNOWN };

struct expectation_term {
    enum metric metric;
    enum quantile quantile;    /* of METRIC_IS_MS only */
    char where[SCENARIO_NAME]; /* population or network; "": all */
};
enum expectation_op { OP_GE, OP_LE, OP_EQ, OP_NE, OP_LT, OP_GT };
struct expectation {
    struct expectation_term a, b;
    bool difference; /* a - b */
    enum expectation_op op;
    double number; /* shares as 0..1, times in ms */
};

/* What a run measured. `known` is false for what nobody reported. Shares are derived, never set. */
struct judge_value {
    bool known;
    double q[QUANTILE_COUNT]; /* counts use q[0] */
};
struct judge_scope {
    char name[SCENARIO_NAME];
    struct judge_value v[METRIC_COUNT];
};
struct judge_facts {
    struct judge_scope load[SCENARIO_POPULATIONS_MAX], net[SCENARIO_LINKS_MAX], run;
    unsigned load_n, net_n;
    char doubt[256]; /* why the generator's load can't be trusted (it lagged, it ended early); "": it can */
};

struct judgement {
    enum verdict_of_run verdict;
    char value[64]; /* "99.994%", "812 ms", "unknown" */
    char why[256];  /* empty for a plain pass */
};

int judge_parse(struct expectation *e, const char *text, const struct scenario *s, struct err_ctx *ctx);
void judge(const struct expectation *e, const struct judge_facts *facts, struct judgement *out);
/* fail beats unknown beats pass; no expectation at all is unknown. */
enum verdict_of_run judge_all(const struct judgement *list, unsigned n);
const char *judge_verdict_name(enum verdict_of_run v); /* "pass" */

/* By name ("lost_uplink"): METRIC_COUNT when there is none. */
enum metric judge_metric(const char *name);
const char *judge_metric_name(enum metric m);
const char *judge_metric_help(enum metric m);
enum metric_kind judge_metric_kind(enum metric m);
enum metric_scope judge_metric_scope(enum metric m);
/* The scope of that name, made if missing (NULL past the maximum). */
struct judge_scope *judge_scope_of(struct judge_facts *f, enum metric_scope kind, const char *name);
void judge_set(struct judge_scope *s, enum metric m, double v);

#endif
