/* The server's process and its machine: started, stopped, killed, switched off. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/sim_impl.h"
#include "sim/watch.h"
#include "util/units.h"

#define DRAIN_NS (10 * NS_PER_S)
#define DISK_NS  NS_PER_MS /* mean time of a commit with its fsync, on an SSD */

/* The words of server.args that mean something here. */
static int take_args(struct sim *s, struct err_ctx *ctx)
{
    char args[sizeof s->s->server_args], *save = NULL;
    memcpy(args, s->s->server_args, sizeof args);
    for (char *w = strtok_r(args, " \t", &save); w; w = strtok_r(NULL, " \t", &save)) {
        char *value = strtok_r(NULL, " \t", &save);
        uint64_t n = value ? strtoull(value, NULL, 10) : 0;
        int rc = !value;
        if (strcmp(w, "--backlog") == 0)
            s->limits.backlog_max = n;
        else if (strcmp(w, "--receipts-each") == 0)
            s->limits.receipts_each = (uint32_t)n;
        else if (strcmp(w, "--queue") == 0 && !(rc = rc ? rc : units_size(&n, value, ctx)))
            s->limits.queue_bytes = (uint32_t)n;
        else if (strcmp(w, "--disk") == 0)
            rc = rc ? rc : units_duration(&s->disk_ns, value, ctx);
        else if (strcmp(w, "--rate") == 0)
            s->limits.rate_per_s = (uint32_t)n;
        else if (strcmp(w, "--burst") == 0)
            s->limits.rate_burst = (uint32_t)n;
        else if (strcmp(w, "--fanout") == 0)
            rc = rc ? rc : delivery_fanout_parse(&s->sequential_ns, value, ctx);
        else if (strcmp(w, "--presence") == 0 && value)
            s->presence_legacy = !strcmp(value, "legacy");
        else if (strcmp(w, "--nodes") == 0)
            s->nodes = (uint16_t)n;
        else if (strcmp(w, "--bus-drop") == 0)
            s->bus_drop = RNG_SHARE(n);
        else if (strcmp(w, "--cut-every") == 0)
            rc = rc ? rc : units_duration(&s->cut_every_ns, value, ctx);
        else if (strcmp(w, "--cut-for") == 0)
            rc = rc ? rc : units_duration(&s->cut_for_ns, value, ctx);
        else
            rc = 1;
        if (rc || !s->nodes || s->nodes > SIM_NODES_MAX)
            return err_set(
                ctx, ERR_UNSUPPORTED,
                "%s: server.args: '%s' means nothing in the simulated world, which knows --backlog N, "
                "--receipts-each N, "
                "--queue SIZE, --rate N, --burst N, --fanout MODE, --presence current|legacy, for the time "
                "of an "
                "fsync --disk TIME, and for up to 16 nodes --nodes N, --bus-drop PARTS-PER-MILLION, "
                "--cut-every TIME, "
                "--cut-for TIME",
                s->s->path, w);
    }
    return 0;
}

/* Only a store that may be put back needs its mark, and with it a folder. */
static int make_keys_dir(struct sim *s, struct err_ctx *ctx)
{
    static const char *const bases[] = {"/dev/shm", "/tmp"};
    struct sim_server *v = &s->servers[0];
    bool wanted = false;
    for (uint32_t i = 0; i < s->s->faults_n; i++)
        wanted |= s->s->faults[i].what == FAULT_RESTORE || s->s->faults[i].what == FAULT_CORRUPT;
    for (size_t i = 0; wanted && i < 2; i++) {
        snprintf(v->keys_dir, sizeof v->keys_dir, "%s/chat-sim-XXXXXX", bases[i]);
        if (mkdtemp(v->keys_dir))
            return 0;
        v->keys_dir[0] = 0;
    }
    return wanted ? err_errno(ctx, "a folder for the mark in /tmp") : 0;
}

int server_init(struct sim *s, struct err_ctx *ctx)
{
    s->limits = node_limits_default();
    s->disk_ns = DISK_NS;
    s->nodes = s->s->server_nodes > 1 ? (uint16_t)s->s->server_nodes : 1;
    int rc = delivery_parse(&s->features, s->s->server_delivery, ctx);
    rc = rc ? rc : take_args(s, ctx);
    if (!rc && s->nodes > 1 && s->features != DELIVERY_RELIABLE)
        rc = err_set(ctx, ERR_UNSUPPORTED, "%s: several nodes deliver reliably only", s->s->path);
    for (uint32_t i = 0; i < s->s->faults_n && !rc; i++)
        if (s->nodes > 1 && (s->s->faults[i].what == FAULT_RESTORE || s->s->faults[i].what == FAULT_CORRUPT))
            rc = err_set(ctx, ERR_UNSUPPORTED, "%s: a restore is simulated for one node only", s->s->path);
    rc = rc ? rc : make_keys_dir(s, ctx);
    for (uint16_t i = 0; i < s->nodes && !rc; i++) {
        s->servers[i].sim = s;
        s->servers[i].index = i;
        rc = kv_mem_open(&s->servers[i].kv, ctx);
    }
    return rc ? rc : nodes_init(s, ctx);
}

int server_start(struct sim_server *v, struct err_ctx *ctx)
{
    struct sim *s = v->sim;
    uint64_t random = rng_u64(&s->rng);
    struct store_config sc = {.now_us = sim_now(s, s->server_skew_us).wall_us,
                              .random = random,
                              .keys_dir = v->keys_dir[0] ? v->keys_dir : NULL};
    if (v->up || v->broken)
        return 0;
    int rc = store_open_on(&v->store, v->kv, &sc, ctx);
    if (rc)
        return rc;
    v->incarnation++;
    v->starts++;
    trace_emit(s->server_trace, &(struct trace_event){.hop = HOP_SERVER_START, .arg = v->incarnation});
    struct node_config nc = {.place = {.self = v->index, .nodes = s->nodes},
                             .features = s->features,
                             .sequential_ns = s->sequential_ns,
                             .limits = s->limits,
                             .ack_timeout_ns = s->features & DELIVERY_ACK ? 10 * NS_PER_S : 0,
                             .idle_timeout_ns = s->features & DELIVERY_ACK ? 30 * NS_PER_S : 0,
                             .hello_timeout_ns = 10 * NS_PER_S,
                             .beat_s = 10,
                             .presence_legacy = s->presence_legacy,
                             .presence_shared = s->shared != NULL,
                             .keys = &s->keys,
                             .seed = random,
                             .epoch = store_epoch(v->store),
                             .conn_base = (uint64_t)((v->incarnation * s->nodes + v->index) % 4095 + 1) << 20,
                             .trace = s->server_trace,
                             .emit = server_effect,
                             .arg = v};
    rc = node_new(&v->node, &nc, ctx);
    rc = rc ? rc : node_load(v->node, v->store, ctx);
    if (rc)
        return rc;
    v->up = true;
    v->dark = v->draining = v->closing = v->unmarked = false;
    v->reads_until_ns = v->restart_ns = 0;
    v->marked_ns = s->now_ns;
    nodes_plug(v);
    server_plan_tick(v, s->now_ns + SIM_TICK_NS);
    return watch_opened(s, v, ctx);
}

static void count(const struct sim_server *v, uint64_t *commits, uint64_t *messages, uint64_t *sessions_max)
{
    *commits = v->commits;
    *messages = v->messages;
    *sessions_max = v->sessions_max;
    if (!v->node)
        return;
    struct node_stats stats;
    node_stats(v->node, &stats);
    *commits += stats.counters.commits;
    *messages += stats.counters.messages;
    if (stats.sessions_max > *sessions_max)
        *sessions_max = stats.sessions_max;
}

void server_counts(const struct sim *s, uint64_t *commits, uint64_t *messages, uint64_t *sessions_max)
{
    *commits = *messages = *sessions_max = 0;
    for (uint16_t i = 0; i < s->nodes; i++) {
        uint64_t c, m, most;
        count(&s->servers[i], &c, &m, &most);
        *commits += c;
        *messages += m;
        *sessions_max += most;
    }
}

/* The process is gone, its sockets with it; `off`: the machine, too. */
static void process_ends(struct sim_server *v, bool off)
{
    struct sim *s = v->sim;
    if (v->closing && !off)
        store_mark(v->store, NULL); /* it ends in peace */
    count(v, &v->commits, &v->messages, &v->sessions_max);
    bus_close(v->bus);
    v->bus = NULL;
    nodes_unplug(v);
    /* what was being written when the process died is on the disk, or is not */
    if (v->flying && rng_hit(&s->rng, RNG_SHARE(500000)))
        job_run_commit(v->store, v->flying);
    v->flying = NULL;
    node_free(v->node);
    store_drop(v->store);
    if (v->armed) /* a failure that was still to come dies with the process */
        kv_mem_crash_some(v->kv, UINT64_MAX);
    v->armed = false;
    v->node = NULL;
    v->store = NULL;
    v->up = v->stopped = v->draining = v->told_to_stop = false;
    v->incarnation++;
    v->conns = 0;
    for (struct load_socket **at = &s->dirty, *c; (c = *at);) {
        if (c->server != v) {
            at = &c->next_dirty;
            continue;
        }
        *at = c->next_dirty;
        c->dirty = false;
    }
    for (struct load_socket *c = s->conns, *next; c; c = next) {
        next = c->next;
        if (c->server != v)
            continue;
        c->refs++;
        conn_drop_server(c);
        if (off)
            stream_vanish(&c->stream, STREAM_SERVER);
        else if (c->unheard)
            stream_abort(&c->stream, STREAM_SERVER, s->now_ns);
        else
            stream_fin(&c->stream, STREAM_SERVER, true, s->now_ns);
        c->unheard = false;
        conn_arm(c);
        conn_unref(c);
    }
}

static void begin_drain(struct sim_server *v)
{
    struct sim *s = v->sim;
    if (v->draining)
        return;
    v->draining = true;
    v->drain_until_ns = s->now_ns + DRAIN_NS;
    server_step(v, &(struct node_event){.kind = NODE_DRAIN});
    server_flush(s);
}

void server_kill(struct sim_server *v, int signal, uint64_t again_ns)
{
    struct sim *s = v->sim;
    if (!v->up) {
        if (again_ns) {
            v->restart_ns = again_ns;
            sim_plan(s, again_ns, SIM_START, v, v->incarnation);
        }
        return;
    }
    if (signal == SIGSTOP) {
        v->stopped = true;
        nodes_freeze(v, true);
        if (again_ns)
            sim_plan(s, again_ns, SIM_CONTINUE, v, v->incarnation);
        return;
    }
    v->restart_ns = again_ns;
    if (signal == SIGTERM || signal == SIGINT) {
        v->told_to_stop = true;
        if (!v->stopped)
            begin_drain(v);
        return;
    }
    watch_note(s, "server killed by signal", (uint64_t)signal);
    process_ends(v, false);
    if (again_ns)
        sim_plan(s, again_ns > s->now_ns ? again_ns : s->now_ns, SIM_START, v, v->incarnation);
}

void server_stop(struct sim_server *v, uint64_t again_ns)
{
    v->closing = v->up;
    server_kill(v, SIGKILL, again_ns);
}

void server_power_cut(struct sim_server *v, uint64_t again_ns)
{
    struct sim *s = v->sim;
    if (v->up && v->flying && rng_hit(&s->rng, RNG_SHARE(500000)))
        server_fail_a_write(v);
    if (v->up)
        process_ends(v, true);
    kv_mem_crash_some(v->kv, rng_u64(&s->rng));
    v->dark = true;
    v->restart_ns = again_ns;
    if (again_ns)
        sim_plan(s, again_ns, SIM_START, v, v->incarnation);
}

void server_continue(struct sim_server *v)
{
    struct sim *s = v->sim;
    if (!v->stopped)
        return;
    v->stopped = false;
    s->stood_ns = s->now_ns;
    nodes_freeze(v, false);
    server_plan_tick(v, s->now_ns);
    if (v->told_to_stop)
        begin_drain(v);
    for (struct load_socket *c = s->conns, *next; c; c = next) {
        next = c->next;
        if (!c->unheard || c->server != v)
            continue;
        c->refs++;
        server_wake(c);
        conn_unref(c);
    }
}

void server_release(struct sim *s)
{
    struct sim_server *v = &s->servers[0];
    for (uint16_t i = 0; i < s->nodes; i++) {
        if (s->servers[i].up)
            process_ends(&s->servers[i], true);
        if (s->servers[i].kv)
            s->servers[i].kv->ops->close(s->servers[i].kv);
        s->servers[i].kv = NULL;
    }
    nodes_release(s);
    if (v->keys_dir[0]) {
        char path[96];
        snprintf(path, sizeof path, "%s/mark", v->keys_dir);
        unlink(path);
        rmdir(v->keys_dir);
    }
}
