#include "report/report.h"

#include <jansson.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

/* Numbers as JSON has them: no NaN, no infinity. */
static void number(struct buf *b, double v)
{
    buf_printf(b, "%.10g", isfinite(v) ? v : 0.0);
}

static void key(struct buf *b, bool *first, const char *name)
{
    if (!*first)
        buf_char(b, ',');
    *first = false;
    buf_json_str(b, name, strlen(name));
    buf_char(b, ':');
}

static void text(struct buf *b, bool *first, const char *name, const char *v)
{
    key(b, first, name);
    buf_json_str(b, v, strlen(v));
}

static void count(struct buf *b, bool *first, const char *name, uint64_t v)
{
    key(b, first, name);
    buf_u64(b, v);
}

static void real(struct buf *b, bool *first, const char *name, double v)
{
    key(b, first, name);
    number(b, v);
}

static void times(struct buf *b, bool *first, const char *name, const struct report_times *t)
{
    bool inner = true;
    key(b, first, name);
    buf_char(b, '{');
    real(b, &inner, "p50", t->p50);
    real(b, &inner, "p95", t->p95);
    real(b, &inner, "p99", t->p99);
    real(b, &inner, "max", t->max);
    buf_char(b, '}');
}

static void population(struct buf *b, const struct report_population *p)
{
    bool f = true;
    buf_char(b, '{');
    text(b, &f, "net", p->net);
    count(b, &f, "sent", p->sent);
    count(b, &f, "accepted", p->accepted);
    count(b, &f, "expected", p->expected);
    count(b, &f, "delivered", p->delivered);
    real(b, &f, "ratio", p->expected ? (double)p->delivered / (double)p->expected : 0);
    count(b, &f, "duplicates", p->duplicates);
    count(b, &f, "reordered", p->reordered);
    count(b, &f, "resends", p->resends);
    count(b, &f, "duplicates_seen", p->duplicates_seen);
    count(b, &f, "gave_up", p->gave_up);
    times(b, &f, "latency_ms", &p->latency);
    times(b, &f, "accept_ms", &p->accept);
    real(b, &f, "send_lag_ms_p99", p->send_lag_p99_ms);
    text(b, &f, "doubt", p->doubt);
    buf_char(b, '}');
}

static void verdicts(struct buf *b, const struct report_net *n)
{
    bool f = true;
    buf_char(b, '{');
    for (uint32_t i = 0; i < n->verdicts_n; i++)
        count(b, &f, n->verdict[i].name, n->verdict[i].n);
    buf_char(b, '}');
}

static void life(struct buf *b, const struct report_life *l)
{
    bool f = true;
    buf_char(b, '{');
    text(b, &f, "id", l->id);
    text(b, &f, "net", l->net);
    text(b, &f, "verdict", l->verdict);
    text(b, &f, "why", l->why);
    count(b, &f, "cut", l->cut);
    key(b, &f, "steps");
    buf_char(b, '[');
    for (uint32_t i = 0; i < l->steps_n; i++) {
        bool s = true;
        buf_str(b, i ? ",{" : "{");
        real(b, &s, "ms", l->steps[i].ms);
        text(b, &s, "who", l->steps[i].who);
        text(b, &s, "what", l->steps[i].what);
        count(b, &s, "bad", l->steps[i].bad);
        buf_char(b, '}');
    }
    buf_str(b, "]}");
}

static void expectations(struct buf *b, const struct report_run *r)
{
    buf_char(b, '[');
    for (uint32_t i = 0; i < r->expect_n; i++) {
        bool f = true;
        buf_str(b, i ? ",\n  {" : "\n  {");
        text(b, &f, "text", r->expect[i].text);
        text(b, &f, "value", r->expect[i].value);
        text(b, &f, "verdict", r->expect[i].verdict);
        text(b, &f, "why", r->expect[i].why);
        buf_char(b, '}');
    }
    buf_char(b, ']');
}

static void evidence(struct buf *b, bool *f, const struct report_run *r)
{
    key(b, f, "curves");
    buf_char(b, '{');
    for (uint32_t i = 0; i < r->curves_n; i++) {
        bool first = i == 0;
        key(b, &first, r->curves[i].name);
        buf_char(b, '[');
        for (uint32_t k = 0; k < r->curves[i].points_n; k++) {
            buf_str(b, k ? ",[" : "[");
            number(b, r->curves[i].points[k].ms);
            buf_char(b, ',');
            number(b, r->curves[i].points[k].share);
            buf_char(b, ']');
        }
        buf_char(b, ']');
    }
    buf_char(b, '}');
    key(b, f, "disconnects");
    buf_char(b, '{');
    for (uint32_t i = 0; i < r->nets_n; i++) {
        bool first = i == 0, inner = true;
        key(b, &first, r->nets[i].name);
        buf_char(b, '{');
        count(b, &inner, "count", r->nets[i].disconnects);
        real(b, &inner, "connected_hours", r->nets[i].connected_hours);
        buf_char(b, '}');
    }
    buf_char(b, '}');
    key(b, f, "lives");
    buf_char(b, '[');
    for (uint32_t i = 0; i < r->lives_n; i++) {
        buf_str(b, i ? ",\n  " : "\n  ");
        life(b, &r->lives[i]);
    }
    buf_char(b, ']');
    key(b, f, "faults");
    buf_char(b, '[');
    for (uint32_t i = 0; i < r->faults_n; i++) {
        bool s = true;
        buf_str(b, i ? ",{" : "{");
        text(b, &s, "name", r->faults[i].name);
        text(b, &s, "text", r->faults[i].text);
        real(b, &s, "at_s", r->faults[i].at_s);
        buf_char(b, '}');
    }
    buf_char(b, ']');
}

static void audit(struct buf *b, const struct report_run *r)
{
    bool f = true;
    buf_char(b, '{');
    count(b, &f, "violations", r->audit_violations);
    for (uint32_t i = 0; i < r->audit_n; i++)
        count(b, &f, r->audit[i].name, r->audit[i].n);
    key(b, &f, "findings");
    buf_char(b, '[');
    for (uint32_t i = 0; i < r->findings_n; i++) {
        if (i)
            buf_char(b, ',');
        buf_json_str(b, r->findings[i], strlen(r->findings[i]));
    }
    buf_str(b, "]}");
}

static void server(struct buf *b, const struct report_server *s)
{
    bool f = true;
    buf_char(b, '{');
    count(b, &f, "rss_bytes_max", s->rss_bytes_max);
    real(b, &f, "cpu_s", s->cpu_s);
    count(b, &f, "sessions_max", s->sessions_max);
    count(b, &f, "commits", s->commits);
    count(b, &f, "messages", s->messages);
    count(b, &f, "starts", s->starts);
    buf_char(b, '}');
}

void report_json(struct buf *b, const struct report_run *r)
{
    bool f = true;
    buf_char(b, '{');
    text(b, &f, "scenario", r->scenario);
    text(b, &f, "variant", r->variant);
    text(b, &f, "world", r->world);
    count(b, &f, "seed", r->seed);
    text(b, &f, "commit", r->commit);
    text(b, &f, "verdict", r->verdict);
    text(b, &f, "note", r->note);
    real(b, &f, "seconds", r->seconds);
    text(b, &f, "why", r->why);
    text(b, &f, "variant_why", r->variant_why);
    buf_char(b, '\n');
    key(b, &f, "expect");
    expectations(b, r);
    buf_char(b, '\n');
    key(b, &f, "load");
    buf_char(b, '{');
    for (uint32_t i = 0; i < r->load_n; i++) {
        bool first = i == 0;
        key(b, &first, r->load[i].name);
        population(b, &r->load[i]);
    }
    buf_str(b, "}\n");
    key(b, &f, "verdicts");
    buf_char(b, '{');
    for (uint32_t i = 0; i < r->nets_n; i++) {
        bool first = i == 0;
        key(b, &first, r->nets[i].name);
        verdicts(b, &r->nets[i]);
    }
    buf_str(b, "}\n");
    if (r->server_known) {
        key(b, &f, "server");
        server(b, &r->server);
    }
    if (r->audit_known) {
        key(b, &f, "audit");
        audit(b, r);
    }
    count(b, &f, "trace_records", r->trace_records);
    count(b, &f, "trace_dropped", r->trace_dropped);
    buf_char(b, '\n');
    evidence(b, &f, r);
    buf_str(b, "}\n");
}

int report_write(const char *path, const struct buf *b, struct err_ctx *ctx)
{
    char tmp[1024];
    if (b->failed)
        return err_set(ctx, ERR_NOMEM, "%s: out of memory", path);
    if (snprintf(tmp, sizeof tmp, "%s.tmp", path) >= (int)sizeof tmp)
        return err_set(ctx, ERR_LIMIT, "%s: the path is too long", path);
    FILE *f = fopen(tmp, "w");
    if (!f)
        return err_errno(ctx, "%s", tmp);
    bool ok = fwrite(b->data, 1, b->len, f) == b->len;
    ok = fclose(f) == 0 && ok;
    if (!ok || rename(tmp, path)) {
        int rc = err_errno(ctx, "%s", path);
        unlink(tmp);
        return rc;
    }
    return 0;
}
