#include "report/report.h"

#include <jansson.h>
#include <string.h>
#include <unistd.h>

/* A document being read: the first wrong type ends it. */
struct in {
    const char *path;
    struct err_ctx *ctx;
    int rc;
};

static void wrong(struct in *in, const char *key)
{
    if (!in->rc)
        in->rc = err_set(in->ctx, ERR_INVALID, "%s: %s is of the wrong type", in->path, key);
}

static void text(struct in *in, const json_t *o, const char *key, char *out, size_t size)
{
    const json_t *v = json_object_get(o, key);
    if (!v)
        return;
    if (json_is_string(v))
        snprintf(out, size, "%s", json_string_value(v));
    else
        wrong(in, key);
}

static double real(struct in *in, const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    if (v && !json_is_number(v))
        wrong(in, key);
    return json_number_value(v);
}

static uint64_t count(struct in *in, const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    if (v && (!json_is_integer(v) || json_integer_value(v) < 0)) {
        wrong(in, key);
        return 0;
    }
    return (uint64_t)json_integer_value(v);
}

static const json_t *object(struct in *in, const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    if (v && !json_is_object(v))
        wrong(in, key);
    return json_is_object(v) ? v : NULL;
}

static void times(struct in *in, const json_t *o, const char *key, struct report_times *t)
{
    const json_t *v = object(in, o, key);
    *t =
        (struct report_times){real(in, v, "p50"), real(in, v, "p95"), real(in, v, "p99"), real(in, v, "max")};
}

#define TEXT(field) text(in, o, #field, r->field, sizeof r->field)

static void read_load(struct in *in, const json_t *all, struct report_run *run)
{
    const char *name;
    json_t *o;
    json_object_foreach((json_t *)all, name, o)
    {
        if (run->load_n == REPORT_POPULATIONS_MAX)
            return;
        struct report_population *r = &run->load[run->load_n++];
        snprintf(r->name, sizeof r->name, "%s", name);
        TEXT(net);
        TEXT(doubt);
        r->sent = count(in, o, "sent");
        r->accepted = count(in, o, "accepted");
        r->expected = count(in, o, "expected");
        r->delivered = count(in, o, "delivered");
        r->duplicates = count(in, o, "duplicates");
        r->reordered = count(in, o, "reordered");
        r->resends = count(in, o, "resends");
        r->duplicates_seen = count(in, o, "duplicates_seen");
        r->gave_up = count(in, o, "gave_up");
        times(in, o, "latency_ms", &r->latency);
        times(in, o, "accept_ms", &r->accept);
        r->send_lag_p99_ms = real(in, o, "send_lag_ms_p99");
    }
}

static void read_nets(struct in *in, const json_t *root, struct report_run *run)
{
    const json_t *gone = object(in, root, "disconnects"), *all = object(in, root, "verdicts");
    const char *name, *verdict;
    json_t *o, *n;
    json_object_foreach((json_t *)all, name, o)
    {
        if (run->nets_n == REPORT_NETS_MAX)
            return;
        struct report_net *r = &run->nets[run->nets_n++];
        snprintf(r->name, sizeof r->name, "%s", name);
        json_object_foreach(o, verdict, n)
        {
            if (r->verdicts_n == REPORT_VERDICTS_MAX)
                break;
            struct report_count *c = &r->verdict[r->verdicts_n++];
            snprintf(c->name, sizeof c->name, "%s", verdict);
            c->n = count(in, o, verdict);
        }
        const json_t *d = object(in, gone, name);
        r->disconnects = count(in, d, "count");
        r->connected_hours = real(in, d, "connected_hours");
    }
}

static void read_curves(const json_t *all, struct report_run *run)
{
    const char *name;
    json_t *o, *p;
    json_object_foreach((json_t *)all, name, o)
    {
        if (run->curves_n == REPORT_NETS_MAX)
            return;
        struct report_curve *r = &run->curves[run->curves_n++];
        snprintf(r->name, sizeof r->name, "%s", name);
        size_t i;
        json_array_foreach(o, i, p)
        {
            if (r->points_n < REPORT_POINTS_MAX)
                r->points[r->points_n++] = (struct report_point){json_number_value(json_array_get(p, 0)),
                                                                 json_number_value(json_array_get(p, 1))};
        }
    }
}

static void read_expect(struct in *in, const json_t *all, struct report_run *run)
{
    size_t i;
    json_t *o;
    json_array_foreach(all, i, o)
    {
        if (run->expect_n == REPORT_EXPECT_MAX)
            return;
        struct report_expect *r = &run->expect[run->expect_n++];
        TEXT(text);
        TEXT(value);
        TEXT(verdict);
        TEXT(why);
    }
}

static void read_lives(struct in *in, const json_t *all, struct report_run *run)
{
    size_t i, k;
    json_t *o, *s;
    json_array_foreach(all, i, o)
    {
        if (run->lives_n == REPORT_LIVES_MAX)
            return;
        struct report_life *r = &run->lives[run->lives_n++];
        TEXT(id);
        TEXT(net);
        TEXT(verdict);
        TEXT(why);
        r->cut = (uint32_t)count(in, o, "cut");
        json_array_foreach(json_object_get(o, "steps"), k, s)
        {
            if (r->steps_n == REPORT_STEPS_MAX)
                break;
            struct report_step *step = &r->steps[r->steps_n++];
            step->ms = real(in, s, "ms");
            step->bad = count(in, s, "bad") != 0;
            text(in, s, "who", step->who, sizeof step->who);
            text(in, s, "what", step->what, sizeof step->what);
        }
    }
}

static void read_faults(struct in *in, const json_t *all, struct report_run *run)
{
    size_t i;
    json_t *o;
    json_array_foreach(all, i, o)
    {
        if (run->faults_n == REPORT_FAULTS_MAX)
            return;
        struct report_fault *r = &run->faults[run->faults_n++];
        TEXT(name);
        TEXT(text);
        r->at_s = real(in, o, "at_s");
    }
}

static void read_audit(struct in *in, const json_t *o, struct report_run *r)
{
    const char *name;
    json_t *v;
    size_t i;
    r->audit_known = o != NULL;
    r->audit_violations = count(in, o, "violations");
    json_object_foreach((json_t *)o, name, v)
    {
        if (!json_is_integer(v) || strcmp(name, "violations") == 0 || r->audit_n == 16)
            continue;
        snprintf(r->audit[r->audit_n].name, sizeof r->audit[0].name, "%s", name);
        r->audit[r->audit_n++].n = count(in, o, name);
    }
    json_array_foreach(json_object_get(o, "findings"), i, v)
    {
        if (r->findings_n < REPORT_FINDINGS_MAX && json_is_string(v))
            snprintf(r->findings[r->findings_n++], sizeof r->findings[0], "%s", json_string_value(v));
    }
}

int report_read(struct report_run *r, const char *path, struct err_ctx *ctx)
{
    struct in document = {.path = path, .ctx = ctx}, *in = &document;
    json_error_t e;
    memset(r, 0, sizeof *r);
    if (access(path, R_OK))
        return err_errno(ctx, "%s", path);
    json_t *o = json_load_file(path, 0, &e);
    if (!o)
        return err_set(ctx, ERR_INVALID, "%s:%d: %s", path, e.line, e.text);
    if (!json_is_string(json_object_get(o, "scenario")) || !json_is_object(json_object_get(o, "load"))) {
        json_decref(o);
        return err_set(ctx, ERR_INVALID, "%s: is no summary of a run", path);
    }
    TEXT(scenario);
    TEXT(variant);
    TEXT(world);
    TEXT(commit);
    TEXT(verdict);
    TEXT(note);
    TEXT(why);
    TEXT(variant_why);
    r->seed = count(in, o, "seed");
    r->seconds = real(in, o, "seconds");
    r->trace_records = count(in, o, "trace_records");
    r->trace_dropped = count(in, o, "trace_dropped");
    read_expect(in, json_object_get(o, "expect"), r);
    read_load(in, object(in, o, "load"), r);
    read_nets(in, o, r);
    read_curves(object(in, o, "curves"), r);
    read_lives(in, json_object_get(o, "lives"), r);
    read_faults(in, json_object_get(o, "faults"), r);
    read_audit(in, object(in, o, "audit"), r);
    const json_t *s = object(in, o, "server");
    r->server_known = s != NULL;
    r->server = (struct report_server){count(in, s, "rss_bytes_max"), count(in, s, "sessions_max"),
                                       count(in, s, "commits"),       count(in, s, "messages"),
                                       real(in, s, "cpu_s"),          (uint32_t)count(in, s, "starts")};
    json_decref(o);
    return in->rc;
}
