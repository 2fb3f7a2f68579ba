/* Thresholds: a misspelt one is an error, never a pass (k6 issue 1526). */
#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "load/load_impl.h"

enum metric_kind { METRIC_QUANTILE, METRIC_ACCEPT_QUANTILE, METRIC_MAX, METRIC_RATIO, METRIC_COUNT };

static uint64_t sent(const struct ledger_counts *c)
{
    return c->sent;
}
static uint64_t accepted(const struct ledger_counts *c)
{
    return c->accepted;
}
static uint64_t expected(const struct ledger_counts *c)
{
    return c->expected;
}
static uint64_t delivered(const struct ledger_counts *c)
{
    return c->delivered;
}
static uint64_t lost(const struct ledger_counts *c)
{
    return c->expected - c->delivered;
}
static uint64_t duplicates(const struct ledger_counts *c)
{
    return c->duplicates;
}
static uint64_t duplicates_seen(const struct ledger_counts *c)
{
    return c->duplicates_seen;
}
static uint64_t reordered(const struct ledger_counts *c)
{
    return c->reordered;
}
static uint64_t gave_up(const struct ledger_counts *c)
{
    return c->gave_up;
}
static uint64_t resends(const struct ledger_counts *c)
{
    return c->resends;
}

static const struct {
    const char *name;
    enum metric_kind kind;
    uint64_t (*count)(const struct ledger_counts *c);
} metrics[] = {{"p(", METRIC_QUANTILE, NULL},
               {"accept_p(", METRIC_ACCEPT_QUANTILE, NULL},
               {"max", METRIC_MAX, NULL},
               {"ratio", METRIC_RATIO, NULL},
               {"sent", METRIC_COUNT, sent},
               {"accepted", METRIC_COUNT, accepted},
               {"expected", METRIC_COUNT, expected},
               {"delivered", METRIC_COUNT, delivered},
               {"lost", METRIC_COUNT, lost},
               {"duplicates", METRIC_COUNT, duplicates},
               {"duplicates_seen", METRIC_COUNT, duplicates_seen},
               {"reordered", METRIC_COUNT, reordered},
               {"gave_up", METRIC_COUNT, gave_up},
               {"resends", METRIC_COUNT, resends}};
static const char *const ops[] = {"<=", ">=", "==", "!=", "<", ">"};

static int parse_metric(struct load_threshold *t, const char **at, struct err_ctx *ctx)
{
    const char *p = *at;
    size_t n = 0;
    while (isalpha((unsigned char)p[n]) || p[n] == '_')
        n++;
    n += p[n] == '(';
    for (size_t i = 0; i < sizeof metrics / sizeof *metrics; i++) {
        if (strlen(metrics[i].name) != n || memcmp(metrics[i].name, p, n) != 0)
            continue;
        t->metric = (uint8_t)i;
        p += n;
        if (metrics[i].kind > METRIC_ACCEPT_QUANTILE) {
            *at = p;
            return 0;
        }
        char *end;
        double q = isdigit((unsigned char)*p) ? strtod(p, &end) : -1;
        if (q < 0 || q > 100 || *end != ')')
            return err_set(ctx, ERR_USAGE, "threshold '%s': a percentile is a number from 0 to 100: p(95)",
                           t->text);
        t->permyriad = (uint32_t)(q * 100 + 0.5);
        *at = end + 1;
        return 0;
    }
    return err_set(
        ctx, ERR_USAGE,
        "threshold '%s': '%.*s' is no metric; there are p(Q), accept_p(Q), max, ratio, sent, accepted, "
        "expected, delivered, lost, duplicates, duplicates_seen, reordered, gave_up, resends",
        t->text, (int)(n ? n : strcspn(p, " ")), p);
}

static int parse_number(struct load_threshold *t, const char *p, struct err_ctx *ctx)
{
    char *end;
    enum metric_kind kind = metrics[t->metric].kind;
    t->number = isdigit((unsigned char)*p) ? strtod(p, &end) : -1;
    if (t->number < 0)
        return err_set(ctx, ERR_USAGE, "threshold '%s': '%s' is no number", t->text, p);
    if (kind == METRIC_RATIO && strcmp(end, "%") == 0)
        t->number /= 100;
    else if (kind <= METRIC_MAX && strcmp(end, "s") == 0)
        t->number *= 1000;
    else if (*end && !(kind <= METRIC_MAX && strcmp(end, "ms") == 0))
        return err_set(ctx, ERR_USAGE, "threshold '%s': '%s' does not fit behind the number", t->text, end);
    return 0;
}

int load_threshold_parse(struct load_threshold *t, const char *text, struct err_ctx *ctx)
{
    *t = (struct load_threshold){0};
    size_t n = 0;
    for (const char *p = text; *p && n < sizeof t->text - 1; p++)
        if (*p != ' ')
            t->text[n++] = *p;
    const char *p = t->text;
    int rc = parse_metric(t, &p, ctx);
    if (rc)
        return rc;
    if (*p == '{') {
        size_t len = strcspn(++p, "}");
        if (!p[len] || !len || len >= sizeof t->population)
            return err_set(ctx, ERR_USAGE, "threshold '%s': {population} has no name or end", t->text);
        memcpy(t->population, p, len);
        p += len + 1;
    }
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (strncmp(p, ops[i], strlen(ops[i])) == 0) {
            t->op = (uint8_t)i;
            return parse_number(t, p + strlen(ops[i]), ctx);
        }
    return err_set(ctx, ERR_USAGE, "threshold '%s': one of < <= > >= == != is missing at '%s'", t->text, p);
}

int load_threshold_check(const struct load_threshold *t, const struct load_population *list, uint32_t n,
                         struct err_ctx *ctx)
{
    if (!t->population[0])
        return 0;
    for (uint32_t i = 0; i < n; i++)
        if (strcmp(list[i].name, t->population) == 0)
            return 0;
    return err_set(ctx, ERR_USAGE, "threshold '%s': there is no population '%s'", t->text, t->population);
}

static bool compare(double v, uint8_t op, double limit)
{
    switch (op) {
    case 0:
        return v <= limit;
    case 1:
        return v >= limit;
    case 2:
        return v == limit;
    case 3:
        return v != limit;
    case 4:
        return v < limit;
    default:
        return v > limit;
    }
}

/* The measured value over the populations meant; false: there is none. */
static bool measure(const struct load *l, const struct load_threshold *t, double *v)
{
    static struct hist all;
    enum metric_kind kind = metrics[t->metric].kind;
    uint64_t count = 0, owed = 0, got = 0;
    hist_reset(&all);
    for (uint32_t i = 0; i < l->cfg.populations_n; i++) {
        const struct ledger_counts *c = &l->ledger.counts[i];
        if (t->population[0] && strcmp(t->population, l->populations_cfg[i].name) != 0)
            continue;
        if (kind == METRIC_COUNT)
            count += metrics[t->metric].count(c);
        hist_merge(&all, kind == METRIC_ACCEPT_QUANTILE ? &c->accept_us : &c->latency_us);
        owed += c->expected;
        got += c->delivered;
    }
    switch (kind) {
    case METRIC_COUNT:
        *v = (double)count;
        return true;
    case METRIC_RATIO:
        *v = owed ? (double)got / (double)owed : 0;
        return owed > 0;
    case METRIC_MAX:
        *v = (double)all.max / 1000;
        return all.count > 0;
    default:
        *v = (double)hist_quantile(&all, t->permyriad) / 1000;
        return all.count > 0;
    }
}

bool load_threshold_holds(const struct load *l, const struct load_threshold *t, struct buf *value)
{
    double v;
    if (!measure(l, t, &v)) {
        buf_str(value, "nothing was measured");
        return false;
    }
    if (metrics[t->metric].kind == METRIC_RATIO)
        buf_printf(value, "%.6f", v);
    else if (metrics[t->metric].kind == METRIC_COUNT)
        buf_printf(value, "%.0f", v);
    else
        buf_printf(value, "%.3f ms", v);
    return compare(v, t->op, t->number);
}
