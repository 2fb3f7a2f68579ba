/* The real world: namespaces, processes, the kernel's clock. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "run/chaos_impl.h"
#include "util/clock.h"

#define TICK_NS      (20 * NS_PER_MS)
#define READY_NS     (90 * NS_PER_S) /* the generator connects and makes its chats */
#define PROGRESS_NS  (500 * NS_PER_MS)
#define DRAIN_SLACK  (30 * NS_PER_S)
#define FLOOD_SLACK  (300 * NS_PER_S) /* the mass reconnect, and reading the store once */
#define LOAD_STOP_NS (15 * NS_PER_S)

void chaos_path(const struct chaos *c, char *out, size_t size, const char *name)
{
    snprintf(out, size, "%s/%s", c->dir, name);
}

void chaos_event(struct chaos *c, enum hop hop, uint64_t arg)
{
    struct trace_event e = {.ts_ns = clock_mono_ns(), .hop = (uint8_t)hop, .arg = arg};
    trace_emit(c->tw, &e);
}

static void tell(struct chaos *c, uint64_t now)
{
    static const char *const phases[] = {"load", "heal", "drain", "end"};
    char text[200];
    if (!c->config->progress || now < c->progress_at)
        return;
    c->progress_at = now + PROGRESS_NS;
    if (c->phase < 0)
        snprintf(text, sizeof text, "%s%s%s: connecting, %.0f s", c->s.name, *c->s.variant ? " / " : "",
                 c->s.variant, (double)(now - c->began) / 1e9);
    else
        snprintf(text, sizeof text, "%s%s%s: %s, %.0f of %.0f s%s", c->s.name, *c->s.variant ? " / " : "",
                 c->s.variant, phases[c->phase], (double)(now - c->t0) / 1e9, (double)c->s.duration / 1e9,
                 chaos_server_down(c) ? ", server down" : "");
    c->config->progress(c->config->arg, text);
}

/* One turn of waiting. */
static int tick(struct chaos *c, uint64_t ns, struct err_ctx *ctx)
{
    uint64_t now = clock_mono_ns();
    int rc = chaos_server_tend(c, now, ctx);
    rc = rc ? rc : chaos_links_tend(c, now, ctx);
    rc = rc ? rc : chaos_proxy_tend(c, ctx);
    rc = rc ? rc : chaos_redis_tend(c, now, ctx);
    rc = rc ? rc : chaos_load_tend(c, ns, ctx);
    tell(c, now);
    if (!rc && *c->config->interrupted)
        rc = err_set(ctx, ERR_INTERRUPTED, "interrupted");
    return rc;
}

static int make_folders(struct chaos *c, struct err_ctx *ctx)
{
    static const char *const names[] = {"trace", "journal"};
    char path[600];
    for (uint32_t i = 0; i < c->s.server_nodes; i++) {
        chaos_server_path(c, i, path, sizeof path, "data", "");
        if (mkdir(path, 0755) && errno != EEXIST)
            return err_errno(ctx, "%s", path);
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        chaos_path(c, path, sizeof path, names[i]);
        if (mkdir(path, 0755) && errno != EEXIST)
            return err_errno(ctx, "%s", path);
    }
    return 0;
}

static int start(struct world *w, const struct scenario *s, struct err_ctx *ctx)
{
    struct chaos *c = (struct chaos *)w;
    char trace_dir[600];
    struct trace_config tc = {
        .dir = trace_dir, .name = "run", .node = TRACE_NODE_RUN, .seed = s->seed, .ring_events = 1024};
    c->began = c->t0 = clock_mono_ns();
    int rc = make_folders(c, ctx);
    chaos_path(c, trace_dir, sizeof trace_dir, "trace");
    if (!rc && c->linked)
        rc = chaos_links_start(c, ctx);
    rc = rc ? rc : chaos_redis_start(c, ctx);
    rc = rc ? rc : chaos_server_start(c, ctx);
    rc = rc ? rc : chaos_load_start(c, ctx);
    rc = rc ? rc : trace_open(&c->trace, &tc, ctx);
    rc = rc ? rc : trace_writer_new(&c->tw, c->trace, ctx);
    uint64_t patience = READY_NS + (c->flood ? s->load[0].flood.setup : 0), end = clock_mono_ns() + patience;
    while (!rc && c->phase < PHASE_LOAD) {
        rc = tick(c, TICK_NS, ctx);
        if (!rc && clock_mono_ns() > end)
            rc = err_set(ctx, ERR_TIMEOUT, "chat-loadgen had not begun after %.0f s: %s",
                         (double)patience / 1e9, c->last_line);
    }
    if (rc)
        return rc;
    rc = c->tun ? tun_world_begin(c->tun, ctx) : 0;
    if (rc)
        return rc;
    c->t0 = clock_mono_ns();
    chaos_event(c, HOP_RUN_PHASE, PHASE_LOAD);
    return 0;
}

static int advance(struct world *w, uint64_t at, struct err_ctx *ctx)
{
    struct chaos *c = (struct chaos *)w;
    int rc = 0;
    for (uint64_t now; !rc && !c->doubt[0] && !c->load_ended && (now = clock_mono_ns()) < c->t0 + at;) {
        uint64_t left = c->t0 + at - now;
        rc = tick(c, left < TICK_NS ? left : TICK_NS, ctx);
    }
    return rc;
}

/* The generator executes what happens to phones, at its own t = 0 and from the same file; here it is only
 * noted. */
static int fault(struct world *w, uint32_t index, struct err_ctx *ctx)
{
    struct chaos *c = (struct chaos *)w;
    const struct scenario_fault *f = &c->s.faults[index];
    if (c->doubt[0] || c->load_ended)
        return 0;
    chaos_event(c, HOP_RUN_FAULT, index);
    switch (f->what) {
    case FAULT_KILL_SERVER:
        return chaos_server_kill(c, index, ctx);
    case FAULT_BLACKOUT:
    case FAULT_LINK:
    case FAULT_DETACH:
    case FAULT_TOXIC:
        return chaos_link_fault(c, index, ctx);
    case FAULT_REDIS:
        return chaos_redis_fault(c, f, ctx);
    case FAULT_BACKUP:
        return chaos_backup(c, ctx);
    case FAULT_CORRUPT:
        return chaos_corrupt(c, f, ctx);
    case FAULT_RESTORE:
        return chaos_restore(c, f, ctx);
    default: /* the phones' own, and those that check_machine refused */
        break;
    }
    return 0;
}

/* A server that is to come back comes back now, links are what their profiles say, phones are attached.
 * (Blackouts end by themselves; those that would last beyond the load are cut by the drain's patience, not by
 * us.) */
static int heal(struct world *w, struct err_ctx *ctx)
{
    struct chaos *c = (struct chaos *)w;
    uint64_t now = clock_mono_ns();
    chaos_event(c, HOP_RUN_PHASE, PHASE_HEAL);
    chaos_server_heal(c, now);
    for (uint32_t i = 0; i < c->s.faults_n; i++)
        c->link_until[i] = now;
    chaos_redis_heal(c, now);
    return c->load_ended ? 0 : tick(c, TICK_NS, ctx);
}

static int drain(struct world *w, struct err_ctx *ctx)
{
    struct chaos *c = (struct chaos *)w;
    uint64_t slack = c->flood ? FLOOD_SLACK : DRAIN_SLACK, end = clock_mono_ns() + c->s.drain + slack;
    int rc = 0;
    chaos_event(c, HOP_RUN_PHASE, PHASE_DRAIN);
    while (!rc && !c->load_ended && !c->doubt[0]) {
        rc = tick(c, TICK_NS, ctx);
        if (!rc && clock_mono_ns() > end) {
            snprintf(c->doubt, sizeof c->doubt, "chat-loadgen did not end its drain within %.0f s",
                     (double)(c->s.drain + slack) / 1e9);
            break;
        }
    }
    return rc;
}

void chaos_stop_all(struct chaos *c)
{
    chaos_load_stop(c, SIGINT, LOAD_STOP_NS);
    chaos_server_stop(c);
    chaos_proxy_stop(c);
    chaos_redis_stop(c);
    if (c->tun)
        tun_world_stop(c->tun);
    c->tun = NULL;
    if (c->trace)
        trace_close(c->trace);
    c->trace = NULL;
    c->tw = NULL;
}

static void doubt(struct chaos *c, const char *what, const struct err_ctx *why)
{
    if (!c->doubt[0])
        snprintf(c->doubt, sizeof c->doubt, "%s: %.180s", what, why->text);
}

static int report(struct world *w, struct judge_facts *facts, struct err_ctx *ctx)
{
    struct chaos *c = (struct chaos *)w;
    chaos_event(c, HOP_RUN_PHASE, PHASE_END);
    c->ended = clock_mono_ns();
    chaos_stop_all(c);
    if (c->config->progress)
        c->config->progress(c->config->arg, "judging");
    struct err_ctx why = {0};
    struct evidence e = chaos_evidence(c);
    int rc = chaos_load_read(c, facts, ctx);
    /* Evidence that can't be read leaves its expectations unknown and the run in doubt, but does not take
     * away what the rest says. */
    bool traced = !c->flood || c->s.load[0].flood.trace_sample;
    if (!rc && traced && evidence_trace(&e, facts, &why))
        doubt(c, "the trace can't be judged", &why);
    if (!rc && !c->flood && chaos_read_journal(c, facts, &why))
        doubt(c, "the journals can't be judged", &why);
    if (c->doubt[0])
        snprintf(facts->doubt, sizeof facts->doubt, "%s", c->doubt);
    c->out->server = chaos_server_totals(c);
    c->out->server_known = c->out->server.starts > 0;
    judge_set(&facts->run, METRIC_SERVER_RSS_BYTES, (double)c->out->server.rss_bytes_max);
    judge_set(&facts->run, METRIC_SERVER_STARTS, (double)c->out->server.starts);
    return rc;
}

const struct world_ops chaos_world_ops = {.name = "real",
                                          .start = start,
                                          .advance = advance,
                                          .fault = fault,
                                          .heal = heal,
                                          .drain = drain,
                                          .report = report};
