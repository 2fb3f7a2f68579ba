/* One scenario in the simulated world: played, judged and written down as the real world's runs are. */
#include "cmd/chat-chaos/simulate.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scenario/evidence.h"
#include "sim/sim.h"
#include "util/clock.h"

struct run {
    struct scenario s;
    struct sim *sim;
    struct judge_facts facts;
    char doubt[EVIDENCE_TEXT], note[EVIDENCE_TEXT];
    const struct chaos_config *config;
};

static void progress(void *arg, const char *phase, uint64_t at_ns, uint64_t of_ns)
{
    const struct run *r = arg;
    char text[200];
    snprintf(text, sizeof text, "%s%s%s: %s, %.0f of %.0f s of virtual time", r->s.name,
             *r->s.variant ? " / " : "", r->s.variant, phase, (double)at_ns / 1e9, (double)of_ns / 1e9);
    r->config->progress(r->config->arg, text);
}

static int feed_store(void *arg, struct audit *a, struct err_ctx *ctx)
{
    struct audit_feed f = {a, ctx, 0};
    int rc = sim_store_scan(arg, audit_feed_entry, &f, ctx);
    return rc ? rc : f.rc;
}

static void doubt(struct run *r, const char *what, const struct err_ctx *why)
{
    if (!r->doubt[0])
        snprintf(r->doubt, sizeof r->doubt, "%s: %.180s", what, why->text);
}

static int write_load(struct run *r, const char *dir, struct err_ctx *ctx)
{
    char path[600];
    struct buf b = BUF_INIT(1u << 20);
    snprintf(path, sizeof path, "%s/load.json", dir);
    sim_load_json(r->sim, &b);
    int rc = report_write(path, &b, ctx);
    buf_release(&b);
    return rc;
}

/* An invariant that was broken is a violation like those of the audit, and comes first. */
static void add_violation(struct run *r, struct report_run *out, const struct sim_result *result)
{
    if (!result->failed)
        return;
    out->audit_known = true;
    out->audit_violations++;
    uint32_t n = out->findings_n < REPORT_FINDINGS_MAX ? out->findings_n : REPORT_FINDINGS_MAX - 1;
    memmove(out->findings + 1, out->findings, n * sizeof out->findings[0]);
    out->findings_n = n + 1;
    snprintf(out->findings[0], sizeof out->findings[0], "%s: %.200s", result->what, result->text);
    judge_set(&r->facts.run, METRIC_AUDIT_VIOLATIONS, (double)out->audit_violations);
    snprintf(r->note, sizeof r->note, "stopped %.3f s into the load: %.200s", (double)result->at_ns / 1e9,
             result->text);
}

static int read_evidence(struct run *r, struct report_run *out, const char *dir, struct err_ctx *ctx)
{
    struct evidence e = {.s = &r->s, .dir = dir, .out = out, .doubt = r->doubt, .note = r->note};
    struct sim_result result;
    struct err_ctx why = {0};
    sim_result(r->sim, &result);
    snprintf(r->doubt, sizeof r->doubt, "%s", result.doubt);
    int rc = write_load(r, dir, ctx);
    rc = rc ? rc : evidence_load(&e, &r->facts, ctx);
    if (!rc && evidence_trace(&e, &r->facts, &why))
        doubt(r, "the trace can't be judged", &why);
    if (!rc && evidence_journal(&e, &r->facts, feed_store, r->sim, &why))
        doubt(r, "the journals can't be judged", &why);
    add_violation(r, out, &result);
    judge_set(&r->facts.run, METRIC_SERVER_STARTS, (double)result.server_starts);
    out->server_known = true;
    out->server = (struct report_server){.sessions_max = result.sessions_max,
                                         .commits = result.commits,
                                         .messages = result.messages,
                                         .starts = (uint32_t)result.server_starts};
    out->seconds = (double)result.virtual_ns / 1e9;
    return rc;
}

static int play(struct run *r, struct report_run *out, struct err_ctx *ctx)
{
    const struct chaos_config *c = r->config;
    struct sim_config sc = {.scenario = &r->s,
                            .dir = c->dir,
                            .progress = c->progress ? progress : NULL,
                            .arg = r,
                            .interrupted = c->interrupted};
    result_head(out, &r->s, "sim");
    int rc = result_folder(c->dir, ctx);
    rc = rc ? rc : sim_new(&r->sim, &sc, ctx);
    rc = rc ? rc : world_play(sim_world(r->sim), &r->s, &r->facts, ctx);
    if (rc && rc != ERR_INTERRUPTED)
        return rc;
    int read = read_evidence(r, out, c->dir, ctx);
    if (rc)
        snprintf(r->doubt, sizeof r->doubt, "the run was interrupted");
    snprintf(r->facts.doubt, sizeof r->facts.doubt, "%s", r->doubt);
    snprintf(out->note, sizeof out->note, "%.255s", *r->note ? r->note : r->doubt);
    read = read ? read : result_judge(out, &r->s, &r->facts, ctx);
    read = read ? read : result_write(out, c->dir, ctx);
    return read ? read : rc;
}

int simulate(struct report_run *out, const struct chaos_config *config, struct err_ctx *ctx)
{
    struct run *r = calloc(1, sizeof *r);
    memset(out, 0, sizeof *out);
    if (!r)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    r->config = config;
    int rc = scenario_load(&r->s, config->file, config->variant, ctx);
    if (!rc && config->seed)
        r->s.seed = config->seed;
    rc = rc ? rc : play(r, out, ctx);
    sim_free(r->sim);
    scenario_release(&r->s);
    free(r);
    return rc;
}
