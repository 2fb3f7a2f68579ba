/* What joins the simulated nodes: a bus in memory that loses by seed, and cuts nodes off now and then. */
#include "sim/sim_impl.h"
#include "sim/watch.h"

#include <string.h>

#define BUS_DELAY_NS    (300 * NS_PER_US)
#define SHARED_DELAY_NS (300 * NS_PER_US)
#define BUS_STREAM      (10ull << 40) /* of the seed */

int nodes_init(struct sim *s, struct err_ctx *ctx)
{
    struct rng rng;
    int rc = s->s->server_redis ? shared_mem_new(&s->shared, SHARED_DELAY_NS, ctx) : 0;
    if (rc || s->nodes < 2)
        return rc;
    rng_seed_stream(&rng, s->s->seed, BUS_STREAM);
    struct bus_mem_config c = {
        .nodes = s->nodes, .seed = rng_u64(&rng), .delay_ns = BUS_DELAY_NS, .drop_share = s->bus_drop};
    return bus_mem_new(&s->bus, &c, ctx);
}

void nodes_release(struct sim *s)
{
    bus_mem_free(s->bus);
    s->bus = NULL;
    shared_mem_free(s->shared);
    s->shared = NULL;
}

static void arrived(void *arg, const char *p, size_t n)
{
    struct sim_server *v = arg;
    server_step(v, &(struct node_event){.kind = NODE_BUS, .data = p, .len = n});
    server_flush(v->sim);
}

static void shared_now(struct sim *s)
{
    shared_mem_now(s->shared, sim_now(s, s->server_skew_us));
}

static void shared_news(void *arg, const struct shared_news *n)
{
    struct sim_server *v = arg;
    server_step(v, &(struct node_event){.kind = NODE_SHARED, .news = n});
    server_flush(v->sim);
}

void nodes_order(struct sim_server *v, const struct shared_order *o)
{
    if (!v->shared)
        return;
    shared_now(v->sim);
    shared_send(v->shared, o);
}

void nodes_shared_due(struct sim *s, uint64_t at_ns)
{
    if (s->shared_ns != at_ns)
        return; /* an earlier one was planned since */
    s->shared_ns = 0;
    shared_now(s);
    shared_mem_deliver(s->shared);
}

/* Where Redis is the bus, too (server.nodes), what keeps it from a node keeps all others from it. */
static void join_who_can(struct sim *s)
{
    if (!s->bus || s->s->server_nodes < 2)
        return;
    for (uint16_t i = 0; i < s->nodes; i++)
        bus_mem_cut(s->bus, i, BUS_ALL, false);
    for (uint16_t i = 0; i < s->nodes; i++)
        if (s->shared_faults || s->servers[i].cuts)
            bus_mem_cut(s->bus, i, BUS_ALL, true);
}

static void redis_of_one(struct sim_server *v, bool begins)
{
    v->cuts += begins ? 1 : v->cuts ? -1u : 0;
    shared_mem_hold(v->sim->shared, v->index, v->cuts != 0);
    join_who_can(v->sim);
}

void nodes_redis(struct sim *s, const struct scenario_fault *f, bool begins)
{
    const char *how = f->set;
    if (!s->shared)
        return;
    if (f->node) {
        redis_of_one(&s->servers[f->node - 1], begins);
        return;
    }
    s->shared_faults += begins ? 1 : s->shared_faults ? -1u : 0;
    shared_now(s);
    if (!s->shared_faults)
        shared_mem_set(s->shared, SHARED_MEM_WELL);
    else if (begins)
        shared_mem_set(s->shared, !strcmp(how, "kill")   ? SHARED_MEM_KILLED
                                  : !strcmp(how, "stop") ? SHARED_MEM_FROZEN
                                                         : SHARED_MEM_CUT);
    join_who_can(s);
}

void nodes_unplug(struct sim_server *v)
{
    shared_close(v->shared);
    v->shared = NULL;
}

void nodes_plug(struct sim_server *v)
{
    if (v->sim->shared) {
        shared_now(v->sim);
        v->shared = shared_mem_open(v->sim->shared, v->index, &(struct shared_sink){shared_news, v});
    }
    if (v->sim->bus)
        v->bus = bus_mem_open(v->sim->bus, v->index, &(struct bus_sink){arrived, v});
}

void nodes_plan(struct sim *s)
{
    uint64_t due = s->shared ? shared_mem_next(s->shared) : UINT64_MAX;
    if (due != UINT64_MAX && (!s->shared_ns || s->shared_ns > due)) {
        s->shared_ns = due > s->now_ns ? due : s->now_ns;
        sim_plan(s, s->shared_ns, SIM_SHARED, NULL, 0);
    }
    uint64_t next = s->bus ? bus_mem_next(s->bus) : UINT64_MAX;
    if (next == UINT64_MAX || (s->bus_ns && s->bus_ns <= next))
        return;
    s->bus_ns = next > s->now_ns ? next : s->now_ns;
    sim_plan(s, s->bus_ns, SIM_BUS, NULL, 0);
}

void nodes_due(struct sim *s, uint64_t at_ns)
{
    if (s->bus_ns != at_ns)
        return; /* an earlier one was planned since */
    s->bus_ns = 0;
    bus_mem_deliver(s->bus, at_ns);
}

static void plan_cut(struct sim *s)
{
    struct sim_server *v = &s->servers[rng_below(&s->rng, s->nodes)];
    sim_plan(s, s->now_ns + rng_exp(&s->rng, s->cut_every_ns), SIM_BUS_CUT, v, 1);
}

void nodes_begin(struct sim *s)
{
    if (s->bus && s->cut_every_ns)
        plan_cut(s);
}

void nodes_cut(struct sim_server *v, bool cut)
{
    struct sim *s = v->sim;
    if (s->healed)
        return;
    watch_note(s, cut ? "node cut off" : "node joined again", v->index);
    bus_mem_cut(s->bus, v->index, BUS_ALL, cut);
    if (cut)
        sim_plan(s, s->now_ns + rng_exp(&s->rng, s->cut_for_ns ? s->cut_for_ns : NS_PER_S), SIM_BUS_CUT, v,
                 0);
    else
        plan_cut(s);
}

void nodes_heal(struct sim *s)
{
    s->healed = true;
    for (uint16_t i = 0; s->bus && i < s->nodes; i++)
        bus_mem_cut(s->bus, i, BUS_ALL, false);
    if (s->bus && s->config.demand)
        bus_mem_share(s->bus, 0);
}

void nodes_freeze(struct sim_server *v, bool frozen)
{
    if (v->sim->bus)
        bus_mem_hold(v->sim->bus, v->index, frozen);
    if (v->sim->shared)
        shared_mem_hold(v->sim->shared, v->index, frozen);
}
