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
    struct sim_server *v = &s->server;
    char args[sizeof s->s->server_args], *save = NULL;
    memcpy(args, s->s->server_args, sizeof args);
    for (char *w = strtok_r(args, " \t", &save); w; w = strtok_r(NULL, " \t", &save)) {
        char *value = strtok_r(NULL, " \t", &save);
        uint64_t n = value ? strtoull(value, NULL, 10) : 0;
        int rc = !value;
        if (strcmp(w, "--backlog") == 0)
            v->limits.backlog_max = n;
        else if (strcmp(w, "--queue") == 0 && !(rc = rc ? rc : units_size(&n, value, ctx)))
            v->limits.queue_bytes = (uint32_t)n;
        else if (strcmp(w, "--disk") == 0)
            rc = rc ? rc : units_duration(&v->disk_ns, value, ctx);
        else if (strcmp(w, "--rate") == 0)
            v->limits.rate_per_s = (uint32_t)n;
        else if (strcmp(w, "--burst") == 0)
            v->limits.rate_burst = (uint32_t)n;
        else if (strcmp(w, "--fanout") == 0)
            rc = rc ? rc : delivery_fanout_parse(&v->sequential_ns, value, ctx);
        else if (strcmp(w, "--presence") == 0 && value)
            v->presence_legacy = !strcmp(value, "legacy");
        else
            rc = 1;
        if (rc)
            return err_set(
                ctx, ERR_UNSUPPORTED,
                "%s: server.args: '%s' means nothing in the simulated world, which knows --backlog N, "
                "--queue SIZE, --rate N, --burst N, --fanout MODE, --presence current|legacy and, for the time of "
                "an fsync, --disk TIME",
                s->s->path, w);
    }
    return 0;
}

/* Only a store that may be put back needs its mark, and with it a folder. */
static int make_keys_dir(struct sim *s, struct err_ctx *ctx)
{
    static const char *const bases[] = {"/dev/shm", "/tmp"};
    struct sim_server *v = &s->server;
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
    struct sim_server *v = &s->server;
    v->limits = node_limits_default();
    v->disk_ns = DISK_NS;
    int rc = delivery_parse(&v->features, s->s->server_delivery, ctx);
    rc = rc ? rc : take_args(s, ctx);
    rc = rc ? rc : make_keys_dir(s, ctx);
    return rc ? rc : kv_mem_open(&v->kv, ctx);
}

int server_start(struct sim *s, struct err_ctx *ctx)
{
    struct sim_server *v = &s->server;
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
    struct node_config nc = {.features = v->features,
                             .sequential_ns = v->sequential_ns,
                             .limits = v->limits,
                             .ack_timeout_ns = v->features & DELIVERY_ACK ? 10 * NS_PER_S : 0,
                             .idle_timeout_ns = v->features & DELIVERY_ACK ? 30 * NS_PER_S : 0,
                             .hello_timeout_ns = 10 * NS_PER_S,
                             .beat_s = 10,
                             .presence_legacy = v->presence_legacy,
                             .keys = &s->keys,
                             .seed = random,
                             .epoch = store_epoch(v->store),
                             .conn_base = (uint64_t)(v->incarnation % 4095 + 1) << 20,
                             .trace = s->server_trace,
                             .emit = server_effect,
                             .arg = s};
    rc = node_new(&v->node, &nc, ctx);
    rc = rc ? rc : node_load(v->node, v->store, ctx);
    if (rc)
        return rc;
    v->up = true;
    v->dark = v->draining = v->closing = v->unmarked = false;
    v->reads_until_ns = v->restart_ns = 0;
    v->marked_ns = s->now_ns;
    server_plan_tick(s, s->now_ns + SIM_TICK_NS);
    return watch_opened(s, ctx);
}

void server_counts(const struct sim *s, uint64_t *commits, uint64_t *messages, uint64_t *sessions_max)
{
    const struct sim_server *v = &s->server;
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

/* The process is gone, its sockets with it; `off`: the machine, too. */
static void process_ends(struct sim *s, bool off)
{
    struct sim_server *v = &s->server;
    if (v->closing && !off)
        store_mark(v->store, NULL); /* it ends in peace */
    server_counts(s, &v->commits, &v->messages, &v->sessions_max);
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
    for (struct load_socket *c = v->dirty; c; c = c->next_dirty)
        c->dirty = false;
    v->dirty = NULL;
    for (struct load_socket *c = s->conns, *next; c; c = next) {
        next = c->next;
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

static void begin_drain(struct sim *s)
{
    struct sim_server *v = &s->server;
    if (v->draining)
        return;
    v->draining = true;
    v->drain_until_ns = s->now_ns + DRAIN_NS;
    server_step(s, &(struct node_event){.kind = NODE_DRAIN});
    server_flush(s);
}

void server_kill(struct sim *s, int signal, uint64_t again_ns)
{
    struct sim_server *v = &s->server;
    if (!v->up) {
        if (again_ns) {
            v->restart_ns = again_ns;
            sim_plan(s, again_ns, SIM_START, NULL, v->incarnation);
        }
        return;
    }
    if (signal == SIGSTOP) {
        v->stopped = true;
        if (again_ns)
            sim_plan(s, again_ns, SIM_CONTINUE, NULL, v->incarnation);
        return;
    }
    v->restart_ns = again_ns;
    if (signal == SIGTERM || signal == SIGINT) {
        v->told_to_stop = true;
        if (!v->stopped)
            begin_drain(s);
        return;
    }
    watch_note(s, "server killed by signal", (uint64_t)signal);
    process_ends(s, false);
    if (again_ns)
        sim_plan(s, again_ns > s->now_ns ? again_ns : s->now_ns, SIM_START, NULL, v->incarnation);
}

void server_stop(struct sim *s, uint64_t again_ns)
{
    s->server.closing = s->server.up;
    server_kill(s, SIGKILL, again_ns);
}

void server_power_cut(struct sim *s, uint64_t again_ns)
{
    struct sim_server *v = &s->server;
    if (v->up && v->flying && rng_hit(&s->rng, RNG_SHARE(500000)))
        server_fail_a_write(s);
    if (v->up)
        process_ends(s, true);
    kv_mem_crash_some(v->kv, rng_u64(&s->rng));
    v->dark = true;
    v->restart_ns = again_ns;
    if (again_ns)
        sim_plan(s, again_ns, SIM_START, NULL, v->incarnation);
}

void server_continue(struct sim *s)
{
    struct sim_server *v = &s->server;
    if (!v->stopped)
        return;
    v->stopped = false;
    server_plan_tick(s, s->now_ns);
    if (v->told_to_stop)
        begin_drain(s);
    for (struct load_socket *c = s->conns, *next; c; c = next) {
        next = c->next;
        if (!c->unheard)
            continue;
        c->refs++;
        server_wake(c);
        conn_unref(c);
    }
}

void server_release(struct sim *s)
{
    struct sim_server *v = &s->server;
    if (v->up)
        process_ends(s, true);
    if (v->kv)
        v->kv->ops->close(v->kv);
    v->kv = NULL;
    if (v->keys_dir[0]) {
        char path[96];
        snprintf(path, sizeof path, "%s/mark", v->keys_dir);
        unlink(path);
        rmdir(v->keys_dir);
    }
}
