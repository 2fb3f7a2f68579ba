#include "scenario/judge.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "scenario/scenario_impl.h"

static const struct {
    const char *name, *help;
    enum metric_kind kind;
    enum metric_scope scope;
} metrics[METRIC_COUNT] = {
#define COUNT(ID, name, scope, help)           [METRIC_##ID] = {name, help, METRIC_IS_COUNT, SCOPE_##scope},
#define SHARE(ID, name, scope, num, den, help) [METRIC_##ID] = {name, help, METRIC_IS_SHARE, SCOPE_##scope},
#define MS(ID, name, scope, help)              [METRIC_##ID] = {name, help, METRIC_IS_MS, SCOPE_##scope},
#include "scenario/metrics.def"
#undef COUNT
#undef SHARE
#undef MS
};
static const char *const quantiles[QUANTILE_COUNT] = {"p50", "p95", "p99", "max"};

enum metric judge_metric(const char *name)
{
    int m = 0;
    while (m < METRIC_COUNT && strcmp(metrics[m].name, name) != 0)
        m++;
    return (enum metric)m;
}

const char *judge_metric_name(enum metric m)
{
    return metrics[m].name;
}

const char *judge_metric_help(enum metric m)
{
    return metrics[m].help;
}

enum metric_kind judge_metric_kind(enum metric m)
{
    return metrics[m].kind;
}

enum metric_scope judge_metric_scope(enum metric m)
{
    return metrics[m].scope;
}

struct parser {
    const char *text, *p;
    const struct scenario *s;
    struct err_ctx *ctx;
};

static void skip(struct parser *in)
{
    while (isspace((unsigned char)*in->p))
        in->p++;
}

static bool take(struct parser *in, char c)
{
    skip(in);
    if (*in->p != c)
        return false;
    in->p++;
    return true;
}

static int bad(struct parser *in, const char *what)
{
    return err_set(in->ctx, ERR_INVALID, "'%s': %s at character %zu", in->text, what,
                   (size_t)(in->p - in->text) + 1);
}

static int word(struct parser *in, char *out, size_t size, bool dashes)
{
    size_t n = 0;
    skip(in);
    while (isalnum((unsigned char)in->p[n]) || in->p[n] == '_' || (dashes && in->p[n] == '-'))
        n++;
    if (n == 0 || n >= size)
        return bad(in, n ? "too long a name" : "a name is missing");
    memcpy(out, in->p, n);
    out[n] = 0;
    in->p += n;
    return 0;
}

static int metric_named(struct parser *in, const char *name, enum metric *m)
{
    *m = judge_metric(name);
    if (*m < METRIC_COUNT)
        return 0;
    const char *names[METRIC_COUNT];
    for (int i = 0; i < METRIC_COUNT; i++)
        names[i] = metrics[i].name;
    const char *near = scenario_nearest(name, names, METRIC_COUNT);
    return err_set(in->ctx, ERR_INVALID, "'%s': unknown metric %s%s%s%s", in->text, name,
                   near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

static const char *net_of(const struct scenario *s, const struct scenario_population *p)
{
    const struct scenario_link *l = p->link[0] ? scenario_find_link(s, p->link) : NULL;
    return l ? l->net : "unknown";
}

static int unknown_place(struct parser *in, const char *where, const char *what, const char *const *names,
                         size_t n)
{
    const char *near = scenario_nearest(where, names, n);
    return err_set(in->ctx, ERR_INVALID, "'%s': there is no %s named %s%s%s%s", in->text, what, where,
                   near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

/* A verdict is counted by network. A population stands for its network when nobody else is on it. */
static int resolve_net(struct parser *in, struct expectation_term *t)
{
    const struct scenario *s = in->s;
    const struct scenario_population *named = scenario_find_load(s, t->where);
    const char *names[2 * SCENARIO_POPULATIONS_MAX];
    size_t n = 0;
    for (uint32_t i = 0; i < s->load_n; i++) {
        const char *net = net_of(s, &s->load[i]);
        if (strcmp(net, t->where) == 0)
            return 0;
        names[n++] = net;
        names[n++] = s->load[i].name;
    }
    if (!named)
        return unknown_place(in, t->where, "network or population", names, n);
    for (uint32_t i = 0; i < s->load_n; i++) {
        if (&s->load[i] != named && strcmp(net_of(s, &s->load[i]), net_of(s, named)) == 0)
            return err_set(in->ctx, ERR_INVALID,
                           "'%s': %s is counted by network, and %s shares %s with %s; write %s(%s)", in->text,
                           metrics[t->metric].name, named->name, net_of(s, named), s->load[i].name,
                           metrics[t->metric].name, net_of(s, named));
    }
    snprintf(t->where, sizeof t->where, "%s", net_of(s, named));
    return 0;
}

static int resolve(struct parser *in, struct expectation_term *t)
{
    if (!t->where[0])
        return 0;
    switch (metrics[t->metric].scope) {
    case SCOPE_RUN:
        return err_set(in->ctx, ERR_INVALID, "'%s': %s is of the whole run, not of %s", in->text,
                       metrics[t->metric].name, t->where);
    case SCOPE_NET:
        return resolve_net(in, t);
    case SCOPE_LOAD:
        break;
    }
    const char *names[SCENARIO_POPULATIONS_MAX];
    for (uint32_t i = 0; i < in->s->load_n; i++)
        names[i] = in->s->load[i].name;
    if (!scenario_find_load(in->s, t->where))
        return unknown_place(in, t->where, "population", names, in->s->load_n);
    return 0;
}

static int quantile_term(struct parser *in, struct expectation_term *t)
{
    char name[SCENARIO_NAME];
    int rc = word(in, name, sizeof name, false);
    rc = rc ? rc : metric_named(in, name, &t->metric);
    if (rc)
        return rc;
    if (metrics[t->metric].kind != METRIC_IS_MS)
        return err_set(in->ctx, ERR_INVALID, "'%s': %s has no quantiles", in->text, name);
    if (t->metric == METRIC_SEND_LAG_MS && t->quantile != QUANTILE_P99)
        return err_set(in->ctx, ERR_INVALID, "'%s': of send_lag_ms only p99 is kept", in->text);
    if (take(in, '{')) {
        rc = word(in, t->where, sizeof t->where, true);
        if (rc)
            return rc;
        if (!take(in, '}'))
            return bad(in, "} is missing");
    }
    return take(in, ')') ? resolve(in, t) : bad(in, ") is missing");
}

static int term(struct parser *in, struct expectation_term *t)
{
    char name[SCENARIO_NAME];
    *t = (struct expectation_term){0};
    int rc = word(in, name, sizeof name, false);
    if (rc)
        return rc;
    for (int q = 0; q < QUANTILE_COUNT; q++) {
        if (strcmp(name, quantiles[q]) == 0) {
            t->quantile = (enum quantile)q;
            return take(in, '(') ? quantile_term(in, t) : bad(in, "( is missing");
        }
    }
    if (name[0] == 'p' && isdigit((unsigned char)name[1]))
        return err_set(in->ctx, ERR_INVALID, "'%s': %s is not kept; p50, p95, p99 and max are", in->text,
                       name);
    rc = metric_named(in, name, &t->metric);
    if (rc)
        return rc;
    if (metrics[t->metric].kind == METRIC_IS_MS)
        return err_set(in->ctx, ERR_INVALID, "'%s': write p50, p95, p99 or max of %s", in->text, name);
    if (take(in, '(')) {
        rc = word(in, t->where, sizeof t->where, true);
        if (rc)
            return rc;
        if (!take(in, ')'))
            return bad(in, ") is missing");
    }
    return resolve(in, t);
}

static int operator(struct parser *in, enum expectation_op *op)
{
    static const char *const ops[] = {">=", "<=", "==", "!=", "<", ">"};
    skip(in);
    for (int i = 0; i < 6; i++) {
        if (strncmp(in->p, ops[i], strlen(ops[i])) == 0) {
            in->p += strlen(ops[i]);
            *op = (enum expectation_op)i;
            return 0;
        }
    }
    return bad(in, "one of >= <= == != < > is missing");
}

static int number(struct parser *in, struct expectation *e)
{
    enum metric_kind kind = metrics[e->a.metric].kind;
    skip(in);
    if (!isdigit((unsigned char)*in->p) && *in->p != '-' && *in->p != '.')
        return bad(in, "a number is missing");
    char *end;
    e->number = strtod(in->p, &end);
    in->p = end;
    skip(in);
    const char *unit = in->p;
    size_t n = strlen(unit);
    while (n && isspace((unsigned char)unit[n - 1]))
        n--;
    if (n == 0) {
        if (kind == METRIC_IS_SHARE && (e->number > 1 || e->number < -1))
            return bad(in, "a share lies in 0..1, or write %");
        return 0;
    }
    if (n == 1 && *unit == '%' && kind == METRIC_IS_SHARE)
        e->number /= 100;
    else if (n == 1 && *unit == 's' && kind == METRIC_IS_MS)
        e->number *= 1000;
    else if (!(n == 2 && strncmp(unit, "ms", 2) == 0 && kind == METRIC_IS_MS))
        return bad(in, kind == METRIC_IS_SHARE ? "a share takes %"
                       : kind == METRIC_IS_MS  ? "a time takes ms or s"
                                               : "a count takes no unit");
    return 0;
}

int judge_parse(struct expectation *e, const char *text, const struct scenario *s, struct err_ctx *ctx)
{
    struct parser in = {.text = text, .p = text, .s = s, .ctx = ctx};
    *e = (struct expectation){0};
    int rc = term(&in, &e->a);
    if (!rc && take(&in, '-')) {
        e->difference = true;
        rc = term(&in, &e->b);
        if (!rc && metrics[e->a.metric].kind != metrics[e->b.metric].kind)
            rc = err_set(ctx, ERR_INVALID, "'%s': %s and %s are of different kinds", text,
                         metrics[e->a.metric].name, metrics[e->b.metric].name);
    }
    rc = rc ? rc : operator(&in, &e->op);
    return rc ? rc : number(&in, e);
}
