/* The simulated world as the conductor sees it (scenario/world.h). */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "sim/sim_impl.h"
#include "sim/watch.h"

#define READY_NS    (240 * NS_PER_S) /* all connect and make their chats; virtual */
#define DRAIN_SLACK (30 * NS_PER_S)

static void note(struct sim *s, enum hop hop, uint64_t arg)
{
    trace_emit(s->run_trace, &(struct trace_event){.hop = (uint8_t)hop, .arg = arg});
}

static bool began(const struct sim *s)
{
    return s->phase >= PHASE_LOAD || load_ended(s->load);
}

static bool ended(const struct sim *s)
{
    return load_ended(s->load);
}

static void tell(struct sim *s, const char *phase)
{
    if (s->config.progress)
        s->config.progress(s->config.arg, phase, s->now_ns - s->t0_ns, s->s->duration);
}

static int start(struct world *w, const struct scenario *scenario, struct err_ctx *ctx)
{
    struct sim *s = (struct sim *)w;
    (void)scenario;
    tell(s, "connecting");
    int rc = server_start(s, ctx);
    if (rc)
        return rc;
    load_start(s->load);
    phones_plan(s);
    rc = sim_run(s, s->now_ns + READY_NS, began, ctx);
    if (rc || sim_failed(s))
        return rc;
    rc = load_result(s->load, ctx);
    if (!rc && s->phase < PHASE_LOAD)
        rc = err_set(ctx, ERR_TIMEOUT, "the phones had not begun after %.0f virtual s",
                     (double)READY_NS / 1e9);
    note(s, HOP_RUN_PHASE, PHASE_LOAD);
    return rc;
}

static int advance(struct world *w, uint64_t at, struct err_ctx *ctx)
{
    struct sim *s = (struct sim *)w;
    tell(s, "load");
    return sim_failed(s) || load_ended(s->load) ? 0 : sim_run(s, s->t0_ns + at, ended, ctx);
}

static int fault(struct world *w, uint32_t index, struct err_ctx *ctx)
{
    struct sim *s = (struct sim *)w;
    const struct scenario_fault *f = &s->s->faults[index];
    (void)ctx;
    if (sim_failed(s) || load_ended(s->load))
        return 0;
    note(s, HOP_RUN_FAULT, index);
    switch (f->what) {
    case FAULT_KILL_SERVER:
        server_kill(s, f->signal, f->restart ? s->now_ns + f->restart : 0);
        break;
    case FAULT_BLACKOUT:
        net_blackout(s, f->target, f->duration);
        break;
    case FAULT_KILL_SOCKET: /* the phones do these to themselves, at the same time */
    case FAULT_NETWORK_CHANGE:
    default:
        break;
    }
    return 0;
}

/* A server that is to come back comes back now. */
static int heal(struct world *w, struct err_ctx *ctx)
{
    struct sim *s = (struct sim *)w;
    struct sim_server *v = &s->server;
    (void)ctx;
    note(s, HOP_RUN_PHASE, PHASE_HEAL);
    if (v->stopped)
        server_continue(s);
    if (!v->up && v->restart_ns)
        sim_plan(s, s->now_ns, SIM_START, NULL, v->incarnation);
    return 0;
}

static int drain(struct world *w, struct err_ctx *ctx)
{
    struct sim *s = (struct sim *)w;
    tell(s, "drain");
    note(s, HOP_RUN_PHASE, PHASE_DRAIN);
    int rc = sim_failed(s) || load_ended(s->load)
                 ? 0
                 : sim_run(s, s->now_ns + s->s->drain + DRAIN_SLACK, ended, ctx);
    if (!rc && !sim_failed(s) && load_drained(s->load))
        watch_finish(s);
    if (!rc && !sim_failed(s) && !load_ended(s->load))
        snprintf(s->doubt, sizeof s->doubt, "the phones did not end their drain");
    return rc;
}

static int report(struct world *w, struct judge_facts *facts, struct err_ctx *ctx)
{
    struct sim *s = (struct sim *)w;
    (void)facts;
    note(s, HOP_RUN_PHASE, PHASE_END);
    if (!load_ended(s->load))
        load_interrupt(s->load);
    s->ended_ns = s->ended_ns ? s->ended_ns : s->now_ns;
    return sim_close_traces(s) ? err_set(ctx, ERR_IO, "%s/trace could not be written whole", s->config.dir)
                               : 0;
}

const struct world_ops sim_world_ops = {.name = "sim",
                                        .start = start,
                                        .advance = advance,
                                        .fault = fault,
                                        .heal = heal,
                                        .drain = drain,
                                        .report = report};

void sim_load_json(const struct sim *s, struct buf *out)
{
    load_report_json(s->load, out);
}

int sim_store_scan(struct sim *s, bool (*fn)(void *arg, const struct entry *e), void *arg,
                   struct err_ctx *ctx)
{
    if (s->server.store)
        return store_scan(s->server.store, fn, arg, ctx);
    struct store *store;
    struct store_config sc = {.now_us = sim_now(s, 0).wall_us, .random = 1};
    int rc = store_open_on(&store, s->server.kv, &sc, ctx);
    if (rc)
        return rc;
    rc = store_scan(store, fn, arg, ctx);
    store_drop(store);
    return rc;
}

void sim_result(const struct sim *s, struct sim_result *out)
{
    *out = (struct sim_result){.hash = s->hash,
                               .events = s->events,
                               .virtual_ns = s->now_ns - s->began_ns,
                               .server_starts = s->server.starts,
                               .drained = load_drained(s->load)};
    server_counts(s, &out->commits, &out->messages, &out->sessions_max);
    snprintf(out->doubt, sizeof out->doubt, "%s", s->doubt);
    watch_result(s, out);
}
