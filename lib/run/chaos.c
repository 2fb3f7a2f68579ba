#include "run/chaos.h"

#include <string.h>
#include <unistd.h>

#include "run/chaos_impl.h"
#include "util/clock.h"

#define LOOPBACK 0x7F000001u

/* Play, judge, write. */
static int run_it(struct chaos *c, struct judge_facts *facts, struct err_ctx *ctx)
{
    struct report_run *out = c->out;
    result_head(out, &c->s, chaos_world_ops.name);
    int rc = world_play(&c->world, &c->s, facts, ctx);
    chaos_stop_all(c);
    if (rc && rc != ERR_INTERRUPTED)
        return rc;
    out->seconds = (double)(c->ended - c->began) / 1e9;
    if (rc && !c->note[0])
        snprintf(c->note, sizeof c->note, "interrupted after %.0f s", out->seconds);
    if (rc && !facts->doubt[0])
        snprintf(facts->doubt, sizeof facts->doubt, "the run was interrupted");
    snprintf(out->note, sizeof out->note, "%s", *c->note ? c->note : c->doubt);
    int judged = result_judge(out, &c->s, facts, ctx);
    judged = judged ? judged : result_write(c->out, c->dir, ctx);
    return judged ? judged : rc;
}

/* What this scenario needs of the machine. */
static int check_machine(struct chaos *c, struct err_ctx *ctx)
{
    c->flood = c->s.load[0].flood.on;
    for (uint32_t i = 0; i < c->s.load_n && !c->flood; i++)
        c->linked |= c->s.load[i].link[0] != 0;
    for (uint32_t i = 0; i < c->s.faults_n; i++) {
        if (fault_only_simulated(c->s.faults[i].what))
            return err_set(ctx, ERR_UNSUPPORTED,
                           "%s: faults.%s: %s exists in the simulated world only (--world sim)", c->s.path,
                           c->s.faults[i].name, fault_name(c->s.faults[i].what));
    }
    if (c->config->capture && !c->linked)
        return err_set(ctx, ERR_USAGE, "%s: no population has a link, so there is nothing to capture",
                       c->s.path);
    for (uint32_t i = 0; i < c->s.faults_n; i++)
        if (c->s.faults[i].what == FAULT_RESTORE && c->s.faults[i].duration)
            return err_set(
                ctx, ERR_UNSUPPORTED,
                "%s: faults.%s: `for` exists in the simulated world only; make a backup by a fault `backup`",
                c->s.path, c->s.faults[i].name);
    c->addr = c->linked ? NETEM_FAR_ADDR : LOOPBACK;
    if (c->linked && geteuid() != 0)
        return err_set(ctx, ERR_PERM,
                       "links need network namespaces: run as root (sudo), or use a scenario without links");
    if (c->linked && access("/dev/net/tun", R_OK | W_OK))
        return err_set(
            ctx, ERR_UNAVAILABLE,
            "links need /dev/net/tun: load the module (modprobe tun), or pass the device into the container");
    return 0;
}

int chaos_run(struct report_run *out, const struct chaos_config *config, struct err_ctx *ctx)
{
    memset(out, 0, sizeof *out);
    struct judge_facts *facts = calloc(1, sizeof *facts);
    if (!facts)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    struct chaos *c = calloc(1, sizeof *c);
    if (!c) {
        free(facts);
        return err_set(ctx, ERR_NOMEM, "out of memory");
    }
    c->world.ops = &chaos_world_ops;
    c->config = config;
    c->out = out;
    c->load_err = -1;
    c->phase = -1;
    snprintf(c->dir, sizeof c->dir, "%s", config->dir);
    int rc = scenario_load(&c->s, config->file, config->variant, ctx);
    if (!rc && config->seed)
        c->s.seed = config->seed;
    rc = rc ? rc : check_machine(c, ctx);
    rc = rc ? rc : result_folder(config->dir, ctx);
    rc = rc ? rc : run_it(c, facts, ctx);
    scenario_release(&c->s);
    free(facts);
    free(c);
    return rc;
}
