/* The simulated world as the conductor sees it (scenario/world.h). */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "sim/sim_impl.h"
#include "sim/watch.h"

#define READY_NS    (240 * NS_PER_S) /* all connect and make their chats; virtual */
#define DRAIN_SLACK (30 * NS_PER_S)
#define LOOK_NS     NS_PER_S

static void note(struct sim *s, enum hop hop, uint64_t arg)
{
    trace_emit(s->run_trace, &(struct trace_event){.hop = (uint8_t)hop, .arg = arg});
}

static bool began(struct sim *s)
{
    return s->phase >= PHASE_LOAD || load_ended(s->load);
}

static bool ended(struct sim *s)
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
    int rc = 0;
    for (uint16_t i = 0; i < s->nodes && !rc; i++)
        rc = server_start(&s->servers[i], ctx);
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
    if (sim_failed(s) || load_ended(s->load))
        return 0;
    note(s, HOP_RUN_FAULT, index);
    return faults_do(s, index, ctx);
}

static int heal(struct world *w, struct err_ctx *ctx)
{
    struct sim *s = (struct sim *)w;
    note(s, HOP_RUN_PHASE, PHASE_HEAL);
    return faults_heal(s, ctx);
}

/* The phones' ledger knows nothing of members who left and of stores that were put back. */
static bool ledger_is_blind(const struct sim *s)
{
    for (uint32_t i = 0; i < s->s->faults_n; i++)
        if (s->s->faults[i].what == FAULT_REMOVE_MEMBER ||
            (s->s->faults[i].what == FAULT_RESTORE && strcmp(s->s->faults[i].set, "blind") != 0))
            return true;
    return false;
}

static bool settled(struct sim *s)
{
    if (load_ended(s->load))
        return true;
    if (s->now_ns < s->look_ns)
        return false;
    s->look_ns = s->now_ns + LOOK_NS;
    s->converged = server_all_up(s) && watch_converged(s);
    return s->converged;
}

static int drain(struct world *w, struct err_ctx *ctx)
{
    struct sim *s = (struct sim *)w;
    bool blind = s->config.demand || ledger_is_blind(s);
    tell(s, "drain");
    note(s, HOP_RUN_PHASE, PHASE_DRAIN);
    if (sim_failed(s))
        return 0;
    s->look_ns = s->now_ns + LOOK_NS;
    int rc = load_ended(s->load)
                 ? 0
                 : sim_run(s, s->now_ns + s->s->drain + DRAIN_SLACK, blind ? settled : ended, ctx);
    s->converged |= load_drained(s->load);
    if (!rc && !sim_failed(s) && (s->converged || s->config.demand))
        watch_finish(s);
    if (!rc && !sim_failed(s) && !s->converged && !load_ended(s->load))
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
    int rc = 0;
    for (uint16_t i = 0; i < s->nodes && !rc; i++) {
        struct sim_server *v = &s->servers[i];
        struct store *store = v->store;
        struct store_config sc = {.now_us = sim_now(s, 0).wall_us, .random = 1};
        rc = store ? 0 : store_open_on(&store, v->kv, &sc, ctx);
        rc = rc ? rc : store_scan(store, fn, arg, ctx);
        if (store && !v->store)
            store_drop(store);
    }
    return rc;
}

void sim_result(const struct sim *s, struct sim_result *out)
{
    *out = (struct sim_result){.hash = s->hash,
                               .events = s->events,
                               .virtual_ns = s->now_ns - s->began_ns,
                               .server_starts = 0,
                               .drained = s->converged};
    for (uint16_t i = 0; i < s->nodes; i++)
        out->server_starts += s->servers[i].starts;
    server_counts(s, &out->commits, &out->messages, &out->sessions_max);
    snprintf(out->doubt, sizeof out->doubt, "%s", s->doubt);
    watch_result(s, out);
}
