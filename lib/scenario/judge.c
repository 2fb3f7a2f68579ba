#include "scenario/judge.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

#define EPSILON 1e-12 /* 9999/10000 and 99.99% must compare equal */

static const struct {
    enum metric num, den;
} shares[METRIC_COUNT] = {
#define COUNT(ID, name, scope, help)
#define SHARE(ID, name, scope, num, den, help) [METRIC_##ID] = {METRIC_##num, METRIC_##den},
#define MS(ID, name, scope, help)
#include "scenario/metrics.def"
#undef COUNT
#undef SHARE
#undef MS
};

/* A measured value lies in [lo, hi]: where the evidence has holes, a count of losses may be larger. */
struct range {
    bool known;
    double lo, hi;
    char why[160];
};

struct judge_scope *judge_scope_of(struct judge_facts *f, enum metric_scope kind, const char *name)
{
    if (kind == SCOPE_RUN)
        return &f->run;
    struct judge_scope *list = kind == SCOPE_LOAD ? f->load : f->net;
    unsigned *n = kind == SCOPE_LOAD ? &f->load_n : &f->net_n;
    unsigned max = kind == SCOPE_LOAD ? SCENARIO_POPULATIONS_MAX : SCENARIO_LINKS_MAX;
    for (unsigned i = 0; i < *n; i++) {
        if (strcmp(list[i].name, name) == 0)
            return &list[i];
    }
    if (*n == max)
        return NULL;
    list[*n] = (struct judge_scope){0};
    snprintf(list[*n].name, sizeof list[*n].name, "%s", name);
    return &list[(*n)++];
}

void judge_set(struct judge_scope *s, enum metric m, double v)
{
    if (s)
        s->v[m] = (struct judge_value){.known = true, .q = {v}};
}

static struct range unknown(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static struct range unknown(const char *fmt, ...)
{
    struct range r = {0};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(r.why, sizeof r.why, fmt, ap);
    va_end(ap);
    return r;
}

static struct range exactly(double v)
{
    return (struct range){.known = true, .lo = v, .hi = v};
}

static bool is_loss(enum metric m)
{
    return strncmp(judge_metric_name(m), "lost_", 5) == 0;
}

/* A count or time of one scope. */
static struct range in_scope(const struct judge_scope *s, enum metric m, enum quantile q)
{
    if (m == METRIC_LOST) {
        double sum = 0;
        bool any = false;
        for (int i = 0; i < METRIC_COUNT; i++) {
            if (is_loss((enum metric)i) && s->v[i].known) {
                sum += s->v[i].q[0];
                any = true;
            }
        }
        return any ? exactly(sum) : unknown("no verdicts about %s", s->name);
    }
    if (!s->v[m].known)
        return unknown("%s was not reported%s%s", judge_metric_name(m), s->name[0] ? " for " : "", s->name);
    return exactly(s->v[m].q[judge_metric_kind(m) == METRIC_IS_MS ? q : 0]);
}

/* Of one scope, or over all of its kind: counts add up, of times the worst is taken. */
static struct range over(const struct judge_facts *f, enum metric m, enum quantile q, const char *where)
{
    enum metric_scope kind = judge_metric_scope(m);
    if (kind == SCOPE_RUN)
        return in_scope(&f->run, m, q);
    const struct judge_scope *list = kind == SCOPE_LOAD ? f->load : f->net;
    unsigned n = kind == SCOPE_LOAD ? f->load_n : f->net_n, seen = 0;
    struct range sum = exactly(0);
    for (unsigned i = 0; i < n; i++) {
        if (*where && strcmp(list[i].name, where) != 0)
            continue;
        struct range one = in_scope(&list[i], m, q);
        if (!one.known)
            return one;
        double v = one.lo;
        sum.lo = judge_metric_kind(m) == METRIC_IS_MS ? fmax(sum.lo, v) : sum.lo + v;
        seen++;
    }
    sum.hi = sum.lo;
    return seen ? sum : unknown("nothing is known about %s", *where ? where : "any population");
}

static struct range term_value(const struct judge_facts *f, const struct expectation_term *t)
{
    enum metric m = t->metric;
    if (judge_metric_kind(m) == METRIC_IS_SHARE) {
        struct range num = over(f, shares[m].num, 0, t->where), den = over(f, shares[m].den, 0, t->where);
        if (!num.known || !den.known)
            return num.known ? den : num;
        if (den.lo == 0)
            return unknown("%s is 0%s%s", judge_metric_name(shares[m].den), *t->where ? " for " : "",
                           t->where);
        return exactly(num.lo / den.lo);
    }
    struct range r = over(f, m, t->quantile, t->where);
    if (!r.known)
        return r;
    if (judge_metric_scope(m) == SCOPE_LOAD && m != METRIC_SENT && m != METRIC_EXPECTED) {
        enum metric base = m == METRIC_DELIVERY_MS ? METRIC_DELIVERED_COUNT
                           : m == METRIC_ACCEPT_MS ? METRIC_ACCEPTED_COUNT
                                                   : METRIC_EXPECTED;
        struct range of = over(f, base, 0, t->where);
        if (!of.known || of.lo == 0)
            return unknown("%s is 0%s%s: nothing was tried", judge_metric_name(base),
                           *t->where ? " for " : "", t->where);
    }
    if (m == METRIC_LOST || is_loss(m) || m == METRIC_PENDING) {
        struct range hole = over(f, METRIC_NOT_OBSERVED, 0, t->where);
        if (!hole.known)
            return hole;
        r.hi += hole.lo;
        if (hole.lo > 0)
            snprintf(r.why, sizeof r.why, "%.0f pairs were not observed", hole.lo);
    }
    return r;
}

static bool holds(enum expectation_op op, double v, double n)
{
    double e = EPSILON * fmax(1, fabs(n));
    switch (op) {
    case OP_GE:
        return v >= n - e;
    case OP_LE:
        return v <= n + e;
    case OP_EQ:
        return fabs(v - n) <= e;
    case OP_NE:
        return fabs(v - n) > e;
    case OP_LT:
        return v < n - e;
    case OP_GT:
        return v > n + e;
    }
    return false;
}

static void show(char *out, size_t size, enum metric_kind kind, struct range r)
{
    if (kind == METRIC_IS_SHARE)
        snprintf(out, size, "%.4f%%", r.lo * 100);
    else if (kind == METRIC_IS_MS)
        snprintf(out, size, "%.0f ms", r.lo);
    else if (r.lo != r.hi)
        snprintf(out, size, "%.0f..%.0f", r.lo, r.hi);
    else
        snprintf(out, size, "%.0f", r.lo);
}

/* Over a range of possible values: 1 holds for all, 0 for none, -1 for some. */
static int holds_over(const struct expectation *e, struct range r)
{
    bool lo = holds(e->op, r.lo, e->number), hi = holds(e->op, r.hi, e->number);
    if (lo != hi)
        return -1;
    bool inside = r.lo < e->number && e->number < r.hi;
    if (inside && (e->op == OP_EQ || e->op == OP_NE))
        return -1;
    return lo;
}

void judge(const struct expectation *e, const struct judge_facts *facts, struct judgement *out)
{
    enum metric_kind kind = judge_metric_kind(e->a.metric);
    *out = (struct judgement){.verdict = JUDGED_UNKNOWN, .value = "unknown"};
    struct range r = term_value(facts, &e->a);
    if (r.known && e->difference) {
        struct range b = term_value(facts, &e->b);
        if (!b.known) {
            r = b;
        } else {
            r.lo -= b.hi;
            r.hi -= b.lo;
        }
    }
    if (!r.known) {
        snprintf(out->why, sizeof out->why, "%s", r.why);
        return;
    }
    show(out->value, sizeof out->value, kind, r);
    int answer = holds_over(e, r);
    if (answer < 0) {
        snprintf(out->why, sizeof out->why, "%s", r.why);
        return;
    }
    /* A load that was not what it claims to be proves no pass, and its times prove nothing; a count that is
     * too high already stays a failure. */
    bool timed = kind == METRIC_IS_MS && e->a.metric != METRIC_SEND_LAG_MS;
    if (facts->doubt[0] && (answer || timed) && e->a.metric != METRIC_SEND_LAG_MS) {
        snprintf(out->why, sizeof out->why, "%s", facts->doubt);
        return;
    }
    out->verdict = answer ? JUDGED_PASS : JUDGED_FAIL;
    if (!answer)
        snprintf(out->why, sizeof out->why, "measured %s", out->value);
}

enum verdict_of_run judge_all(const struct judgement *list, unsigned n)
{
    enum verdict_of_run all = n ? JUDGED_PASS : JUDGED_UNKNOWN;
    for (unsigned i = 0; i < n; i++) {
        if (list[i].verdict == JUDGED_FAIL)
            return JUDGED_FAIL;
        if (list[i].verdict == JUDGED_UNKNOWN)
            all = JUDGED_UNKNOWN;
    }
    return all;
}

const char *judge_verdict_name(enum verdict_of_run v)
{
    return v == JUDGED_PASS ? "pass" : v == JUDGED_FAIL ? "fail" : "unknown";
}
