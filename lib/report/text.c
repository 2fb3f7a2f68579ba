#include "report/report.h"

#include <inttypes.h>
#include <string.h>

#define BOLD  "\033[1m"
#define GREEN "\033[32m"
#define RED   "\033[31m"
#define AMBER "\033[33m"
#define PLAIN "\033[0m"

uint64_t report_net_total(const struct report_net *n)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < n->verdicts_n; i++)
        sum += n->verdict[i].n;
    return sum;
}

uint64_t report_net_count(const struct report_net *n, const char *verdict)
{
    for (uint32_t i = 0; i < n->verdicts_n; i++) {
        if (strcmp(n->verdict[i].name, verdict) == 0)
            return n->verdict[i].n;
    }
    return 0;
}

static const char *paint(const char *verdict)
{
    return strcmp(verdict, "pass") == 0 ? GREEN : strcmp(verdict, "fail") == 0 ? RED : AMBER;
}

static void verdict(struct buf *out, const char *v, bool color)
{
    buf_printf(out, "%s%-7s%s", color ? paint(v) : "", v, color ? PLAIN : "");
}

static void share(struct buf *out, uint64_t n, uint64_t of)
{
    if (of)
        buf_printf(out, "%9.4f%%", 100.0 * (double)n / (double)of);
    else
        buf_printf(out, "%10s", "-");
}

static void load_table(struct buf *out, const struct report_run *r)
{
    buf_printf(out, "  %-12s %7s %8s %9s %9s %10s %4s %6s %7s %8s %8s %8s\n", "population", "sent",
               "accepted", "expected", "delivered", "ratio", "dup", "reord", "resends", "p50 ms", "p95 ms",
               "p99 ms");
    for (uint32_t i = 0; i < r->load_n; i++) {
        const struct report_population *p = &r->load[i];
        buf_printf(out, "  %-12s %7" PRIu64 " %8" PRIu64 " %9" PRIu64 " %9" PRIu64 " ", p->name, p->sent,
                   p->accepted, p->expected, p->delivered);
        share(out, p->delivered, p->expected);
        buf_printf(out, " %4" PRIu64 " %6" PRIu64 " %7" PRIu64 " %8.0f %8.0f %8.0f\n", p->duplicates,
                   p->reordered, p->resends, p->latency.p50, p->latency.p95, p->latency.p99);
    }
}

/* One row a verdict that occurs, one column a network. */
static void funnel_table(struct buf *out, const struct report_run *r)
{
    if (!r->nets_n)
        return;
    buf_printf(out, "  %-20s", "verdict");
    for (uint32_t i = 0; i < r->nets_n; i++)
        buf_printf(out, " %20s", r->nets[i].name);
    buf_char(out, '\n');
    for (uint32_t v = 0; v < r->nets[0].verdicts_n; v++) {
        const char *name = r->nets[0].verdict[v].name;
        uint64_t any = 0;
        for (uint32_t i = 0; i < r->nets_n; i++)
            any += report_net_count(&r->nets[i], name);
        if (!any)
            continue;
        buf_printf(out, "  %-20s", name);
        for (uint32_t i = 0; i < r->nets_n; i++) {
            buf_printf(out, " %9" PRIu64 " ", report_net_count(&r->nets[i], name));
            share(out, report_net_count(&r->nets[i], name), report_net_total(&r->nets[i]));
        }
        buf_char(out, '\n');
    }
}

void report_text(struct buf *out, const struct report_run *r, bool color)
{
    buf_printf(out, "%s%s%s%s%s  seed %" PRIu64 ", %s world, %.0f s: ", color ? BOLD : "", r->scenario,
               *r->variant ? " / " : "", r->variant, color ? PLAIN : "", r->seed, r->world, r->seconds);
    verdict(out, r->verdict, color);
    buf_char(out, '\n');
    if (*r->note)
        buf_printf(out, "  %s\n", r->note);
    load_table(out, r);
    for (uint32_t i = 0; i < r->load_n; i++) {
        if (*r->load[i].doubt)
            buf_printf(out, "  %s: %s\n", r->load[i].name, r->load[i].doubt);
    }
    funnel_table(out, r);
    if (r->trace_dropped)
        buf_printf(out, "  %" PRIu64 " trace events were not recorded\n", r->trace_dropped);
    if (r->audit_known && r->audit_violations) {
        buf_printf(out, "  audit: %" PRIu64 " violations", r->audit_violations);
        for (uint32_t i = 0; i < r->audit_n; i++) {
            if (r->audit[i].n)
                buf_printf(out, ", %" PRIu64 " %s", r->audit[i].n, r->audit[i].name);
        }
        buf_char(out, '\n');
    }
    for (uint32_t i = 0; i < r->expect_n; i++) {
        const struct report_expect *e = &r->expect[i];
        buf_str(out, "  ");
        verdict(out, e->verdict, color);
        buf_printf(out, " %-44s %s", e->text, e->value);
        if (*e->why && strcmp(e->verdict, "unknown") == 0)
            buf_printf(out, "  (%s)", e->why);
        buf_char(out, '\n');
    }
}
