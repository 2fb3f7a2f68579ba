/* The server's process: node, store, disk, and what run/server.c and run/store_threads.c do around them. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/sim_impl.h"
#include "sim/watch.h"
#include "util/units.h"

#define TICK_NS     (20 * NS_PER_MS)
#define DRAIN_NS    (10 * NS_PER_S)
#define CLOSE_NS    (5 * NS_PER_S)
#define OBJECTS_MAX 50u /* of one frame, and 64 KiB (transport/ws_server.h) */
#define FRAME_MAX   65536u
#define DISK_NS     NS_PER_MS /* mean time of a commit with its fsync, on an SSD */

static void flush_dirty(struct sim *s);

static uint64_t step(struct sim *s, struct node_event *e)
{
    e->now = sim_now(s, s->server_skew_us);
    return node_step(s->server.node, e);
}

/* ---- effects ---- */

static void mark_dirty(struct load_socket *c)
{
    if (c->dirty)
        return;
    c->dirty = true;
    c->next_dirty = c->sim->server.dirty;
    c->sim->server.dirty = c;
}

static void queue_object(struct load_socket *c, struct shared_frame *f)
{
    if (c->pending_first + c->pending_n == c->pending_cap) {
        uint32_t cap = c->pending_n * 2 < 8 ? 8 : c->pending_n * 2;
        struct shared_frame **at = malloc(cap * sizeof *at);
        BUG_ON(!at);
        if (c->pending_n)
            memcpy(at, c->pending + c->pending_first, c->pending_n * sizeof *at);
        free(c->pending);
        c->pending = at;
        c->pending_first = 0;
        c->pending_cap = cap;
    }
    shared_frame_ref(f);
    c->pending[c->pending_first + c->pending_n++] = f;
    mark_dirty(c);
}

static void plan_read(struct sim *s, struct read_job *job)
{
    struct sim_server *v = &s->server;
    uint64_t from = v->reads_until_ns > s->now_ns ? v->reads_until_ns : s->now_ns;
    v->reads_until_ns = from + 30 * NS_PER_US + rng_exp(&s->rng, 70 * NS_PER_US);
    sim_plan(s, v->reads_until_ns, SIM_READ, job, v->incarnation);
}

static void carry_out(void *arg, const struct effect *e)
{
    struct sim *s = arg;
    struct load_socket *c = e->link;
    switch (e->kind) {
    case EFFECT_SEND:
        if (!c->number && !c->served)
            return;
        watch_sent(s, c, e->frame);
        queue_object(c, e->frame);
        break;
    case EFFECT_CLOSE:
        c->closing = true;
        c->close_code = e->code;
        snprintf(c->close_text, sizeof c->close_text, "%s", e->text ? e->text : "");
        mark_dirty(c);
        c->refs++;
        sim_plan(s, s->now_ns + CLOSE_NS, SIM_LATE, c, STREAM_SERVER);
        break;
    case EFFECT_COMMIT:
        s->server.flying = e->commit;
        sim_plan(s, s->now_ns + s->server.disk_ns / 3 + rng_exp(&s->rng, s->server.disk_ns * 2 / 3),
                 SIM_COMMIT, e->commit, s->server.incarnation);
        break;
    case EFFECT_READ:
        plan_read(s, e->read);
        break;
    case EFFECT_HTTP_REPLY:
        break; /* nobody asks over HTTP here */
    }
}

/* ---- frames to phones ---- */

static uint32_t framed(uint64_t n)
{
    return (uint32_t)(n + 2 + (n > 125 ? n > 65535 ? 8 : 2 : 0)); /* RFC 6455 section 5.2, unmasked */
}

/* As many of the pending objects as go into one frame. */
static void send_frame(struct load_socket *c)
{
    struct sim *s = c->sim;
    uint32_t n = 0;
    uint64_t bytes = 0;
    while (n < c->pending_n && n < OBJECTS_MAX) {
        uint32_t len = c->pending[c->pending_first + n]->len;
        if (n && bytes + len + 2 > FRAME_MAX)
            break;
        bytes += len + (n ? 1 : 0);
        n++;
    }
    if (n > 1)
        bytes += 2;
    struct sim_frame *f = frame_new(n * sizeof f->object[0]);
    memcpy(f->object, c->pending + c->pending_first, n * sizeof f->object[0]);
    c->pending_first += n;
    c->pending_n -= n;
    c->down_end += framed(bytes);
    f->n = n;
    f->end = c->down_end;
    for (uint32_t i = 0; i < n; i++) {
        shared_frame_ref(f->object[i]); /* until it was reported as written */
        sim_mix(s, hash_bytes(f->object[i]->data, f->object[i]->len, f->end));
    }
    queue_push(&c->down, f);
    stream_write(&c->stream, STREAM_SERVER, framed(bytes), s->now_ns);
    for (uint32_t i = 0; i < n; i++) {
        struct shared_frame *o = f->object[i];
        if (c->number)
            step(s,
                 &(struct node_event){.kind = NODE_WRITTEN, .conn = c->number, .frame = o, .offset = f->end});
    }
    for (uint32_t i = 0; i < n; i++)
        shared_frame_unref(f->object[i]);
}

static void send_close(struct load_socket *c)
{
    struct sim_frame *f = frame_new(1);
    uint32_t bytes = framed(2 + strlen(c->close_text));
    c->down_end += bytes;
    f->n = 0;
    f->end = c->down_end;
    f->code = c->close_code;
    queue_push(&c->down, f);
    stream_write(&c->stream, STREAM_SERVER, bytes, c->sim->now_ns);
    stream_fin(&c->stream, STREAM_SERVER, false, c->sim->now_ns);
}

/* An administrator's session takes everything at once and reads nothing of it. */
static void flush_console(struct load_socket *c)
{
    while (c->number && c->pending_n) {
        struct shared_frame *f = c->pending[c->pending_first++];
        c->pending_n--;
        step(c->sim, &(struct node_event){.kind = NODE_WRITTEN, .conn = c->number, .frame = f});
        shared_frame_unref(f);
    }
}

static void flush_one(struct load_socket *c)
{
    if (c->console) {
        flush_console(c);
        return;
    }
    while (c->number && c->pending_n && stream_room(&c->stream, STREAM_SERVER))
        send_frame(c);
    if (c->number && c->closing && c->close_code >= 0 && !c->pending_n &&
        stream_room(&c->stream, STREAM_SERVER)) {
        send_close(c);
        c->close_code = -c->close_code;
    }
    conn_arm(c);
}

static void flush_dirty(struct sim *s)
{
    struct load_socket *c;
    while ((c = s->server.dirty)) {
        s->server.dirty = c->next_dirty;
        c->dirty = false;
        c->refs++;
        flush_one(c);
        conn_unref(c);
    }
}

/* ---- connections ---- */

bool server_listens(const struct sim *s)
{
    return s->server.up && !s->server.draining;
}

static void closed(struct load_socket *c, int code, enum reason reason)
{
    struct sim *s = c->sim;
    if (!c->number)
        return;
    step(s, &(struct node_event){.kind = NODE_CLOSED, .conn = c->number, .code = code, .reason = reason});
    conn_drop_server(c);
    c->served = false;
    s->server.conns--;
}

bool server_console(struct sim *s, struct load_socket *c)
{
    stream_vanish(&c->stream, STREAM_PHONE);
    stream_vanish(&c->stream, STREAM_SERVER);
    if (!server_listens(s) || s->server.stopped)
        return false;
    c->served = true;
    c->number = step(s, &(struct node_event){.kind = NODE_OPEN, .link = c});
    s->server.conns++;
    return true;
}

void server_frame(struct sim *s, struct load_socket *c, const char *p, size_t n)
{
    if (c->number && !c->closing)
        step(s, &(struct node_event){.kind = NODE_FRAME, .conn = c->number, .data = p, .len = n});
    flush_dirty(s);
}

static void open_conn(struct load_socket *c)
{
    struct sim *s = c->sim;
    struct node_event e = {.kind = NODE_OPEN,
                           .link = c,
                           .offset = SIM_ANSWER_BYTES,
                           .flow = {.src = c->source ? c->source : 0x7F000001u,
                                    .dst = SIM_SERVER_ADDR,
                                    .sport = c->port,
                                    .dport = SIM_SERVER_PORT}};
    c->served = true;
    c->number = step(s, &e);
    BUG_ON(!c->number);
    s->server.conns++;
    c->down_end = SIM_ANSWER_BYTES;
    stream_write(&c->stream, STREAM_SERVER, SIM_ANSWER_BYTES, s->now_ns);
}

/* Everything that has come; called also for what came while the server was stopped. */
static void read_conn(struct load_socket *c)
{
    struct sim *s = c->sim;
    uint64_t received = stream_received(&c->stream, STREAM_SERVER);
    if (!c->served && received >= SIM_REQUEST_BYTES && !c->ended[STREAM_SERVER])
        open_conn(c);
    struct sim_frame *f;
    while (c->number && (f = queue_pop(&c->up, received))) {
        sim_mix(s, hash_bytes(f->data, f->n, f->end));
        if (!c->closing)
            step(s,
                 &(struct node_event){
                     .kind = NODE_FRAME, .conn = c->number, .data = f->data, .len = f->n, .offset = f->end});
        frame_free(f, false);
        flush_dirty(s);
    }
    stream_read(&c->stream, STREAM_SERVER, received, s->now_ns);
}

static void end_conn(struct load_socket *c, enum stream_event e)
{
    struct sim *s = c->sim;
    bool ours = c->close_code != 0;
    int code = c->close_code < 0 ? -c->close_code : c->close_code;
    if (e == STREAM_ENDED)
        stream_fin(&c->stream, STREAM_SERVER, true, s->now_ns);
    closed(c, code,
           ours                    ? REASON_CLOSED_BY_US
           : e == STREAM_ENDED     ? REASON_CLOSED_BY_PEER
           : e == STREAM_TIMED_OUT ? REASON_TIMED_OUT
                                   : REASON_RESET);
    flush_dirty(s);
}

void server_event(struct load_socket *c, enum stream_event e)
{
    struct sim *s = c->sim;
    if (s->server.stopped) {
        c->unheard = true;
        if (e != STREAM_DATA && e != STREAM_ROOM && e != STREAM_CONNECTED)
            c->ended[STREAM_SERVER] = (uint8_t)e;
        return;
    }
    switch (e) {
    case STREAM_CONNECTED:
        break;
    case STREAM_DATA:
        read_conn(c);
        flush_dirty(s);
        break;
    case STREAM_ROOM:
        mark_dirty(c);
        flush_dirty(s);
        break;
    default:
        end_conn(c, e);
    }
}

void server_late(struct load_socket *c)
{
    if (!c->number)
        return;
    stream_abort(&c->stream, STREAM_SERVER, c->sim->now_ns);
    closed(c, c->close_code < 0 ? -c->close_code : 0, REASON_CLOSED_BY_US);
    flush_dirty(c->sim);
}

/* ---- the store's threads ---- */

/* The process ends by itself, as after any failed write; its supervisor starts it again. */
static void die(struct sim *s)
{
    s->server.sync_fails = false;
    server_kill(s, SIGKILL, s->now_ns + NS_PER_S);
    kv_mem_crash_some(s->server.kv, rng_u64(&s->rng));
}

/* The next write or the one after it fails, with its rows on the disk or not. */
static void fail_a_write(struct sim *s)
{
    uint64_t after = rng_below(&s->rng, 2);
    bool applied = rng_hit(&s->rng, RNG_SHARE(500000));
    kv_mem_fail(s->server.kv, after, ERR_IO, applied);
}

static void commit_done(struct sim *s, struct commit_job *job)
{
    struct sim_server *v = &s->server;
    v->flying = NULL;
    v->armed |= v->sync_fails;
    if (v->sync_fails)
        fail_a_write(s);
    else if (s->now_ns < v->full_until_ns)
        kv_mem_fail(v->kv, 0, ERR_FULL, false);
    job_run_commit(v->store, job);
    v->unmarked = true;
    if (job->rc && job->rc != ERR_FULL) { /* the process exits: the reopened store decides */
        die(s);
        return;
    }
    if (!job->rc)
        watch_committed(s, &job->batch);
    step(s, &(struct node_event){.kind = NODE_COMMITTED, .commit = job});
    flush_dirty(s);
}

void server_done(struct sim *s, const struct sim_event *e)
{
    struct sim_server *v = &s->server;
    if (e->a != v->incarnation) { /* whoever asked is dead; a commit's memory went with the node */
        if (e->kind == SIM_READ)
            read_job_free(e->p);
        return;
    }
    if (v->stopped) { /* nobody looks; in order all the same */
        sim_plan(s, s->now_ns + TICK_NS, e->kind, e->p, e->a);
        return;
    }
    if (e->kind == SIM_COMMIT) {
        commit_done(s, e->p);
        return;
    }
    job_run_read(v->store, e->p);
    step(s, &(struct node_event){.kind = NODE_READ_DONE, .read = e->p});
    flush_dirty(s);
}

/* Each second after commits: the mark, so that a copy of the data can be told from the original. */
static void keep_mark(struct sim *s)
{
    struct sim_server *v = &s->server;
    if (!v->unmarked || s->now_ns - v->marked_ns < NS_PER_S)
        return;
    v->unmarked = false;
    v->marked_ns = s->now_ns;
    if (store_mark(v->store, NULL))
        die(s);
}

static void stop_politely(struct sim *s)
{
    struct sim_server *v = &s->server;
    if (!v->closing && (node_idle(v->node) || s->now_ns >= v->drain_until_ns)) {
        v->closing = true;
        step(s, &(struct node_event){.kind = NODE_DRAIN, .code = 1});
        flush_dirty(s);
    }
    if (v->closing && (!v->conns || s->now_ns >= v->drain_until_ns))
        server_kill(s, SIGKILL, v->restart_ns);
}

static void plan_tick(struct sim *s, uint64_t at_ns)
{
    s->server.tick_ns = at_ns;
    sim_plan(s, at_ns, SIM_TICK, NULL, s->server.incarnation);
}

void server_tick(struct sim *s)
{
    struct sim_server *v = &s->server;
    if (v->stopped || !v->up || v->tick_ns != s->now_ns)
        return;
    plan_tick(s, s->now_ns + TICK_NS);
    step(s, &(struct node_event){.kind = NODE_TICK});
    flush_dirty(s);
    keep_mark(s);
    if (v->up && v->draining)
        stop_politely(s);
}

/* ---- life and death ---- */

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
        else
            rc = 1;
        if (rc)
            return err_set(
                ctx, ERR_UNSUPPORTED,
                "%s: server.args: '%s' means nothing in the simulated world, which knows --backlog N, "
                "--queue SIZE, --rate N, --burst N and, for the time of an fsync, --disk TIME",
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
        wanted |= s->s->faults[i].what == FAULT_RESTORE;
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
    if (v->up)
        return 0;
    int rc = store_open_on(&v->store, v->kv, &sc, ctx);
    if (rc)
        return rc;
    v->incarnation++;
    v->starts++;
    trace_emit(s->server_trace, &(struct trace_event){.hop = HOP_SERVER_START, .arg = v->incarnation});
    struct node_config nc = {.features = v->features,
                             .limits = v->limits,
                             .ack_timeout_ns = v->features & DELIVERY_ACK ? 10 * NS_PER_S : 0,
                             .idle_timeout_ns = v->features & DELIVERY_ACK ? 30 * NS_PER_S : 0,
                             .hello_timeout_ns = 10 * NS_PER_S,
                             .beat_s = 10,
                             .keys = &s->keys,
                             .seed = random,
                             .epoch = store_epoch(v->store),
                             .conn_base = (uint64_t)(v->incarnation % 4095 + 1) << 20,
                             .trace = s->server_trace,
                             .emit = carry_out,
                             .arg = s};
    rc = node_new(&v->node, &nc, ctx);
    rc = rc ? rc : node_load(v->node, v->store, ctx);
    if (rc)
        return rc;
    v->up = true;
    v->dark = v->draining = v->closing = v->unmarked = false;
    v->reads_until_ns = v->restart_ns = 0;
    v->marked_ns = s->now_ns;
    plan_tick(s, s->now_ns + TICK_NS);
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
    step(s, &(struct node_event){.kind = NODE_DRAIN});
    flush_dirty(s);
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
        fail_a_write(s);
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
    plan_tick(s, s->now_ns);
    if (v->told_to_stop)
        begin_drain(s);
    for (struct load_socket *c = s->conns, *next; c; c = next) {
        next = c->next;
        if (!c->unheard)
            continue;
        c->unheard = false;
        c->refs++;
        enum stream_event e = c->ended[STREAM_SERVER];
        c->ended[STREAM_SERVER] = 0;
        read_conn(c);
        mark_dirty(c);
        flush_dirty(s);
        if (e)
            end_conn(c, e);
        conn_arm(c);
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
