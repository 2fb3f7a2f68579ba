/* What the trace and the phones' journals say about a run. */
#include "scenario/evidence.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "report/export.h"

static void judge_nets(const struct trace_summary *s, struct judge_facts *facts)
{
    for (int net = 0; net < NET_COUNT; net++) {
        uint64_t pairs = 0;
        for (int v = 0; v < VERDICT_COUNT; v++)
            pairs += s->verdict[net][v];
        struct judge_scope *scope = pairs ? judge_scope_of(facts, SCOPE_NET, net_name(net)) : NULL;
        for (int v = 0; scope && v < VERDICT_COUNT; v++) {
            enum metric m = judge_metric(verdict_name(v));
            if (m != METRIC_COUNT && judge_metric_scope(m) == SCOPE_NET)
                judge_set(scope, m, (double)s->verdict[net][v]);
        }
    }
}

int evidence_trace(struct evidence *ev, struct judge_facts *facts, struct err_ctx *ctx)
{
    char path[600];
    const char *dirs[] = {path};
    static struct trace_run run;
    struct trace_summary s = {0};
    memset(&run, 0, sizeof run);
    snprintf(path, sizeof path, "%s/trace", ev->dir);
    int rc = trace_run_load(&run, dirs, 1, ctx);
    rc = rc ? rc : trace_join(&run, ctx);
    rc = rc ? rc : trace_summarize(&s, &run, ctx);
    if (!rc) {
        judge_nets(&s, facts);
        judge_set(&facts->run, METRIC_TRACE_DROPPED, (double)(s.dropped + s.missing));
        if (run.problems && !ev->note[0])
            snprintf(ev->note, EVIDENCE_TEXT, "trace: %" PRIu64 " problems, the first: %.200s", run.problems,
                     run.problem[0].text);
        rc = report_add_trace(ev->out, &run, &s, ctx);
    }
    trace_summary_release(&s);
    trace_run_release(&run);
    return rc;
}

/* ---- invariants ---- */

bool evidence_promises_durability(const struct scenario *s)
{
    return strcmp(s->server_delivery, "reliable") == 0 || strstr(s->server_delivery, "durable");
}

int evidence_journal(struct evidence *ev, struct judge_facts *facts,
                     int (*feed)(void *arg, struct audit *a, struct err_ctx *ctx), void *arg,
                     struct err_ctx *ctx)
{
    char path[600];
    struct audit *a;
    struct audit_result r;
    struct report_run *out = ev->out;
    snprintf(path, sizeof path, "%s/journal", ev->dir);
    int rc = audit_new(&a, ctx);
    if (rc)
        return rc;
    rc = audit_add_journal(a, path, ctx);
    if (!rc && feed && evidence_promises_durability(ev->s)) {
        audit_expect_store(a);
        rc = feed(arg, a, ctx);
    }
    rc = rc ? rc : audit_finish(a, ev->drained, &r, ctx);
    if (!rc) {
        judge_set(&facts->run, METRIC_AUDIT_VIOLATIONS, (double)r.violations);
        out->audit_known = true;
        out->audit_violations = r.violations;
        for (int k = 0; k < AUDIT_KIND_COUNT && out->audit_n < 16; k++) {
            struct report_count *n = &out->audit[out->audit_n++];
            snprintf(n->name, sizeof n->name, "%s", audit_kind_name((enum audit_kind)k));
            n->n = r.count[k];
        }
        for (uint32_t i = 0; i < r.findings_n && out->findings_n < REPORT_FINDINGS_MAX; i++)
            snprintf(out->findings[out->findings_n++], sizeof out->findings[0], "%s", r.findings[i].text);
    }
    audit_free(a);
    return rc;
}
