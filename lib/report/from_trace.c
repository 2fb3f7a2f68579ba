/* A trace as a report: networks, curves, lives, test cases. */
#include <inttypes.h>
#include <string.h>

#include "report/export.h"

/* Shares of the delivered pairs at which the curve is drawn, in 1/10,000; denser where the tail is. */
static const uint16_t curve_at[] = {1,    100,  300,  600,  1000, 1500, 2000, 2500, 3000, 3500,
                                    4000, 4500, 5000, 5500, 6000, 6500, 7000, 7500, 8000, 8300,
                                    8600, 8900, 9100, 9200, 9300, 9400, 9500, 9600, 9700, 9800,
                                    9850, 9900, 9930, 9950, 9970, 9980, 9990, 9995, 9998, 10000};

static void fill_curve(struct report_run *out, const struct trace_summary *s, int net, uint64_t pairs)
{
    const struct hist *h = s->latency[net];
    if (!h || !h->count || out->curves_n == REPORT_NETS_MAX)
        return;
    struct report_curve *c = &out->curves[out->curves_n++];
    double arrived = (double)s->verdict[net][VERDICT_DELIVERED] / (double)pairs;
    snprintf(c->name, sizeof c->name, "%s", net_name(net));
    for (size_t i = 0; i < sizeof curve_at / sizeof *curve_at; i++)
        c->points[c->points_n++] =
            (struct report_point){(double)hist_quantile(h, curve_at[i]) / 1e6, arrived * curve_at[i] / 10000};
}

static void fill_net(struct report_run *out, const struct trace_summary *s, int net)
{
    uint64_t pairs = 0;
    for (int v = 0; v < VERDICT_COUNT; v++)
        pairs += s->verdict[net][v];
    if (!pairs || out->nets_n == REPORT_NETS_MAX)
        return;
    struct report_net *n = &out->nets[out->nets_n++];
    snprintf(n->name, sizeof n->name, "%s", net_name(net));
    n->connected_hours = (double)s->connected_ns[net] / 3.6e12;
    n->disconnects = s->disconnects[net];
    for (int v = 0; v < VERDICT_COUNT && n->verdicts_n < REPORT_VERDICTS_MAX; v++) {
        struct report_count *count = &n->verdict[n->verdicts_n++];
        snprintf(count->name, sizeof count->name, "%s", verdict_name(v));
        count->n = s->verdict[net][v];
    }
    fill_curve(out, s, net, pairs);
}

/* ---- the life of a message ---- */

/* Losses to be shown: one of each of the most frequent verdicts, as different as there are. */
struct picks {
    enum verdict want[REPORT_LIVES_MAX];
    struct trace_pair pair[REPORT_LIVES_MAX];
    bool have[REPORT_LIVES_MAX];
    uint32_t n, missing;
};

static void choose_verdicts(struct picks *p, const struct trace_summary *s)
{
    bool used[VERDICT_COUNT] = {false};
    uint32_t kinds = 0;
    while (p->n < REPORT_LIVES_MAX) {
        int best = -1;
        for (int v = 0; v < VERDICT_COUNT; v++) {
            if (verdict_is_loss(v) && !used[v] && s->total[v] && (best < 0 || s->total[v] > s->total[best]))
                best = v;
        }
        if (best < 0)
            break;
        used[best] = true;
        p->want[p->n++] = (enum verdict)best;
        kinds++;
    }
    for (uint32_t i = 0; kinds && p->n < REPORT_LIVES_MAX && i < kinds; i++) {
        if (s->total[p->want[i]] > 1)
            p->want[p->n++] = p->want[i];
    }
    p->missing = p->n;
}

static bool pick(void *arg, const struct trace_pair *pair)
{
    struct picks *p = arg;
    if (!verdict_is_loss(pair->verdict) || !pair->submit_ns)
        return true;
    for (uint32_t i = 0; i < p->n; i++) {
        if (!p->have[i] && p->want[i] == pair->verdict) {
            p->have[i] = true;
            p->pair[i] = *pair;
            p->missing--;
            break;
        }
        /* not the same message twice */
        if (p->have[i] && id_equal(&p->pair[i].id, &pair->id))
            break;
    }
    return p->missing > 0;
}

static bool cited(const struct trace_pair *pair, uint32_t index)
{
    for (uint32_t i = 0; i < pair->evidence_n; i++) {
        if (pair->evidence[i] == index)
            return true;
    }
    return false;
}

/* Records about this message at its sender, its recipient and the server, and those the verdict rests on. */
static bool tells(const struct trace_pair *pair, const struct trace_event *e, uint32_t index)
{
    if (cited(pair, index))
        return true;
    if (!id_equal(&e->id, &pair->id) || trace_side(e->node) == TRACE_SIDE_LINK || e->hop == HOP_SOCKET_OPEN)
        return false;
    bool broad = e->hop == HOP_SERVER_RECEIVE || e->hop == HOP_SERVER_COMMIT || e->hop == HOP_SERVER_FANOUT;
    return broad || e->user == pair->sender || e->user == pair->recipient;
}

static void who(char *out, size_t size, const struct trace_event *e)
{
    switch (trace_side(e->node)) {
    case TRACE_SIDE_SERVER:
        snprintf(out, size, "server");
        break;
    case TRACE_SIDE_LINK:
        snprintf(out, size, "link");
        break;
    case TRACE_SIDE_LOAD:
        snprintf(out, size, "phone %" PRIu64, e->user);
        break;
    default:
        snprintf(out, size, "conductor");
    }
}

static void fill_step(struct report_step *s, const struct trace_event *e, const struct trace_pair *pair,
                      bool evidence)
{
    s->ms = ((double)e->ts_ns - (double)pair->submit_ns) / 1e6;
    who(s->who, sizeof s->who, e);
    bool to = e->hop == HOP_SERVER_PUSH || e->hop == HOP_SERVER_PUSH_DROP || e->hop == HOP_SERVER_REDELIVER;
    char extra[64] = "";
    if (to)
        snprintf(extra, sizeof extra, " to phone %" PRIu64, e->user);
    else if (e->attempt > 1)
        snprintf(extra, sizeof extra, ", attempt %u", e->attempt);
    snprintf(s->what, sizeof s->what, "%s%s%s%s", hop_text(e->hop), extra, e->reason ? ": " : "",
             e->reason ? reason_text(e->reason) : "");
    bool drop = e->hop == HOP_LINK_DROP || e->hop == HOP_SOCKET_CLOSE || e->hop == HOP_SOCKET_KILL ||
                e->hop == HOP_SERVER_PUSH_DROP || e->hop == HOP_CLIENT_GIVE_UP ||
                e->hop == HOP_SERVER_REJECT || e->hop == HOP_SERVER_STORE_FAILURE ||
                e->hop == HOP_SERVER_STOP;
    s->bad = evidence && drop && pair->verdict != VERDICT_DELIVERED;
}

static void fill_life(struct report_run *out, const struct trace_run *run, const struct trace_pair *pair)
{
    struct report_life *l = &out->lives[out->lives_n++];
    uint32_t total = 0, at = 0;
    id_str(&pair->id, l->id);
    snprintf(l->net, sizeof l->net, "%s", net_name(pair->net));
    snprintf(l->verdict, sizeof l->verdict, "%s", verdict_name(pair->verdict));
    snprintf(l->why, sizeof l->why, "From phone %" PRIu64 " to phone %" PRIu64 ": %s%s%s%s%s", pair->sender,
             pair->recipient, verdict_text(pair->verdict), pair->why ? "; " : "", pair->why ? pair->why : "",
             pair->reason ? ": " : "", pair->reason ? reason_text(pair->reason) : "");
    for (uint32_t i = 0; i < run->events; i++)
        total += tells(pair, &run->event[i], i);
    uint32_t keep = REPORT_STEPS_MAX / 2;
    l->cut = total > REPORT_STEPS_MAX ? total - REPORT_STEPS_MAX : 0;
    for (uint32_t i = 0; i < run->events; i++) {
        if (!tells(pair, &run->event[i], i))
            continue;
        bool left_out = l->cut && at >= keep && at < keep + l->cut;
        at++;
        if (!left_out && l->steps_n < REPORT_STEPS_MAX)
            fill_step(&l->steps[l->steps_n++], &run->event[i], pair, cited(pair, i));
    }
}

static int fill_lives(struct report_run *out, const struct trace_run *run, const struct trace_summary *s,
                      struct err_ctx *ctx)
{
    struct picks p = {0};
    choose_verdicts(&p, s);
    if (p.n) {
        int rc = trace_pairs(run, pick, &p);
        if (rc)
            return err_set(ctx, rc, "the trace's pairs: %s", err_text(rc));
        for (uint32_t i = 0; i < p.n; i++) {
            if (p.have[i])
                fill_life(out, run, &p.pair[i]);
        }
        return 0;
    }
    struct trace_latency slow[REPORT_LIVES_MAX];
    int n = 0, rc = trace_slowest(run, slow, REPORT_LIVES_MAX, &n, ctx);
    for (int i = 0; !rc && i < n; i++)
        fill_life(out, run, &slow[i].pair);
    return rc;
}

int report_add_trace(struct report_run *out, const struct trace_run *r, const struct trace_summary *s,
                     struct err_ctx *ctx)
{
    for (int net = 0; net < NET_COUNT; net++)
        fill_net(out, s, net);
    out->trace_records = s->records;
    out->trace_dropped = s->dropped + s->missing;
    return fill_lives(out, r, s, ctx);
}

/* ---- test cases ---- */

/* What is not observed is an error, not a pass: nobody knows. */
static void add_case(struct report_run *out, const struct trace_summary *s, int net, int v, uint64_t pairs)
{
    uint64_t n = s->verdict[net][v];
    bool unknown = v == VERDICT_NOT_OBSERVED;
    struct report_expect *e = &out->expect[out->expect_n++];
    snprintf(e->text, sizeof e->text, unknown ? "%s: all is observed" : "%s: nothing is %s", net_name(net),
             verdict_text(v));
    snprintf(e->value, sizeof e->value, "%" PRIu64 " of %" PRIu64 " pairs", n, pairs);
    snprintf(e->verdict, sizeof e->verdict, "%s", !n ? "pass" : unknown ? "unknown" : "fail");
    if (n)
        snprintf(e->why, sizeof e->why, "%" PRIu64 " of %" PRIu64 " pairs (%.3f %%)", n, pairs,
                 100.0 * (double)n / (double)pairs);
}

/* The most frequent causes of that verdict. */
static void tell_causes(struct report_expect *e, const struct trace_summary *s, int v)
{
    struct trace_cause cause[64];
    int n = trace_top_causes(s, cause, 64);
    const char *before = "; causes, all networks together: ";
    for (int i = 0; i < n; i++) {
        size_t at = strlen(e->why);
        if ((int)cause[i].verdict != v || !cause[i].reason)
            continue;
        snprintf(e->why + at, sizeof e->why - at, "%s%s %" PRIu64, before, reason_text(cause[i].reason),
                 cause[i].count);
        before = ", ";
    }
}

/* Those that do not pass come first: what is cut at the maximum passes. */
static void add_cases(struct report_run *out, const struct trace_summary *s, int net, bool passing)
{
    uint64_t pairs = 0;
    for (int v = 0; v < VERDICT_COUNT; v++)
        pairs += s->verdict[net][v];
    for (int v = 0; pairs && v < VERDICT_COUNT; v++) {
        if ((!verdict_is_loss(v) && v != VERDICT_NOT_OBSERVED) || !s->verdict[net][v] != passing ||
            out->expect_n == REPORT_EXPECT_MAX)
            continue;
        add_case(out, s, net, v, pairs);
        if (s->verdict[net][v])
            tell_causes(&out->expect[out->expect_n - 1], s, v);
    }
}

int report_from_trace(struct report_run *out, const struct trace_run *r, struct err_ctx *ctx)
{
    struct trace_summary s;
    int rc = trace_summarize(&s, r, ctx);
    rc = rc ? rc : report_add_trace(out, r, &s, ctx);
    if (!rc) {
        bool blind = s.total[VERDICT_NOT_OBSERVED] || !s.pairs;
        for (int net = 0; net < 2 * NET_COUNT; net++)
            add_cases(out, &s, net % NET_COUNT, net >= NET_COUNT);
        snprintf(out->verdict, sizeof out->verdict, "%s", s.losses ? "fail" : blind ? "unknown" : "pass");
        if (r->events)
            out->seconds = (double)(r->event[r->events - 1].ts_ns - r->event[0].ts_ns) / 1e9;
        out->seed = r->sources ? r->source[0].seed : 0;
        if (r->problems)
            snprintf(out->note, sizeof out->note, "trace: %" PRIu64 " problems", r->problems);
    }
    trace_summary_release(&s);
    return rc;
}
