/* The server's process: node, store, disk, and what run/server.c and run/store_threads.c do around them. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "sim/sim_impl.h"
#include "sim/watch.h"

#define CLOSE_NS    (5 * NS_PER_S)
#define OBJECTS_MAX 50u /* of one frame, and 64 KiB (transport/ws_server.h) */
#define FRAME_MAX   65536u

uint64_t server_step(struct sim_server *v, struct node_event *e)
{
    e->now = sim_now(v->sim, v->sim->server_skew_us);
    if (v->sim->bus)
        bus_mem_now(v->sim->bus, v->sim->now_ns);
    return node_step(v->node, e);
}

/* ---- effects ---- */

static void mark_dirty(struct load_socket *c)
{
    if (c->dirty)
        return;
    c->dirty = true;
    c->next_dirty = c->sim->dirty;
    c->sim->dirty = c;
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

static void plan_read(struct sim_server *v, struct read_job *job)
{
    struct sim *s = v->sim;
    uint64_t from = v->reads_until_ns > s->now_ns ? v->reads_until_ns : s->now_ns;
    v->reads_until_ns = from + 30 * NS_PER_US + rng_exp(&s->rng, 70 * NS_PER_US);
    sim_plan(s, v->reads_until_ns, SIM_READ, job, server_mark(v));
}

void server_effect(void *arg, const struct effect *e)
{
    struct sim_server *v = arg;
    struct sim *s = v->sim;
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
        v->flying = e->commit;
        sim_plan(s, s->now_ns + s->disk_ns / 3 + rng_exp(&s->rng, s->disk_ns * 2 / 3), SIM_COMMIT, e->commit,
                 server_mark(v));
        break;
    case EFFECT_READ:
        plan_read(v, e->read);
        break;
    case EFFECT_HTTP_REPLY:
        break; /* nobody asks over HTTP here */
    case EFFECT_BUS:
        sim_mix(s, hash_bytes(e->data, e->len, e->to));
        if (v->bus)
            bus_send(v->bus, e->to, e->data, e->len);
        break;
    case EFFECT_SHARED:
        sim_mix(s, (uint64_t)e->order->op << 32 | e->order->n);
        nodes_order(v, e->order);
        break;
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
    f->sent_ns = s->now_ns;
    for (uint32_t i = 0; i < n; i++) {
        shared_frame_ref(f->object[i]); /* until it was reported as written */
        sim_mix(s, hash_bytes(f->object[i]->data, f->object[i]->len, f->end));
    }
    queue_push(&c->down, f);
    stream_write(&c->stream, STREAM_SERVER, framed(bytes), s->now_ns);
    for (uint32_t i = 0; i < n; i++) {
        struct shared_frame *o = f->object[i];
        if (c->number)
            server_step(
                c->server,
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
        server_step(c->server, &(struct node_event){.kind = NODE_WRITTEN, .conn = c->number, .frame = f});
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

void server_flush(struct sim *s)
{
    struct load_socket *c;
    while ((c = s->dirty)) {
        s->dirty = c->next_dirty;
        c->dirty = false;
        c->refs++;
        flush_one(c);
        conn_unref(c);
    }
}

/* ---- connections ---- */

bool server_listens(const struct sim_server *v)
{
    return v->up && !v->draining;
}

bool server_all_up(const struct sim *s)
{
    for (uint16_t i = 0; i < s->nodes; i++)
        if (!s->servers[i].up)
            return false;
    return true;
}

struct sim_server *server_some(struct sim *s)
{
    return &s->servers[s->nodes > 1 ? rng_below(&s->rng, s->nodes) : 0];
}

static void closed(struct load_socket *c, int code, enum reason reason)
{
    if (!c->number)
        return;
    server_step(c->server,
                &(struct node_event){.kind = NODE_CLOSED, .conn = c->number, .code = code, .reason = reason});
    conn_drop_server(c);
    c->served = false;
    c->server->conns--;
}

bool server_console(struct load_socket *c)
{
    stream_vanish(&c->stream, STREAM_PHONE);
    stream_vanish(&c->stream, STREAM_SERVER);
    if (!server_listens(c->server) || c->server->stopped)
        return false;
    c->served = true;
    c->number = server_step(c->server, &(struct node_event){.kind = NODE_OPEN, .link = c});
    c->server->conns++;
    return true;
}

void server_frame(struct sim *s, struct load_socket *c, const char *p, size_t n)
{
    watch_arrived(s, c->user); /* by another device of theirs, which the phone knows nothing of */
    if (c->number && !c->closing)
        server_step(c->server,
                    &(struct node_event){.kind = NODE_FRAME, .conn = c->number, .data = p, .len = n});
    server_flush(s);
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
    c->number = server_step(c->server, &e);
    BUG_ON(!c->number);
    c->server->conns++;
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
            server_step(
                c->server,
                &(struct node_event){
                    .kind = NODE_FRAME, .conn = c->number, .data = f->data, .len = f->n, .offset = f->end});
        frame_free(f, false);
        server_flush(s);
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
    server_flush(s);
}

void server_event(struct load_socket *c, enum stream_event e)
{
    struct sim *s = c->sim;
    if (e == STREAM_DATA)
        watch_arrived(s, c->user);
    if (c->server->stopped) {
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
        server_flush(s);
        break;
    case STREAM_ROOM:
        mark_dirty(c);
        server_flush(s);
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
    server_flush(c->sim);
}

/* ---- the store's threads ---- */

/* The process ends by itself, as after any failed write; its supervisor starts it again. */
static void die(struct sim_server *v)
{
    v->sync_fails = false;
    server_kill(v, SIGKILL, v->sim->now_ns + NS_PER_S);
    kv_mem_crash_some(v->kv, rng_u64(&v->sim->rng));
}

/* The next write or the one after it fails, with its rows on the disk or not. */
void server_fail_a_write(struct sim_server *v)
{
    struct sim *s = v->sim;
    uint64_t after = rng_below(&s->rng, 2);
    bool applied = rng_hit(&s->rng, RNG_SHARE(500000));
    kv_mem_fail(v->kv, after, ERR_IO, applied);
}

static void commit_done(struct sim_server *v, struct commit_job *job)
{
    struct sim *s = v->sim;
    v->flying = NULL;
    v->armed |= v->sync_fails;
    if (v->sync_fails)
        server_fail_a_write(v);
    else if (s->now_ns < v->full_until_ns)
        kv_mem_fail(v->kv, 0, ERR_FULL, false);
    job_run_commit(v->store, job);
    v->unmarked = true;
    if (job->rc && job->rc != ERR_FULL) { /* the process exits: the reopened store decides */
        die(v);
        return;
    }
    if (!job->rc)
        watch_committed(s, v->store, &job->batch);
    server_step(v, &(struct node_event){.kind = NODE_COMMITTED, .commit = job});
    server_flush(s);
}

void server_done(struct sim *s, const struct sim_event *e)
{
    struct sim_server *v = server_of_mark(s, e->a);
    if (e->a != server_mark(v)) { /* whoever asked is dead; a commit's memory went with the node */
        if (e->kind == SIM_READ)
            read_job_free(e->p);
        return;
    }
    if (v->stopped) { /* nobody looks; in order all the same */
        sim_plan(s, s->now_ns + SIM_TICK_NS, e->kind, e->p, e->a);
        return;
    }
    if (e->kind == SIM_COMMIT) {
        commit_done(v, e->p);
        return;
    }
    job_run_read(v->store, e->p);
    server_step(v, &(struct node_event){.kind = NODE_READ_DONE, .read = e->p});
    server_flush(s);
}

/* Each second after commits: the mark, so that a copy of the data can be told from the original. */
static void keep_mark(struct sim_server *v)
{
    struct sim *s = v->sim;
    if (!v->unmarked || s->now_ns - v->marked_ns < NS_PER_S)
        return;
    v->unmarked = false;
    v->marked_ns = s->now_ns;
    if (store_mark(v->store, NULL))
        die(v);
}

static void stop_politely(struct sim_server *v)
{
    struct sim *s = v->sim;
    if (!v->closing && (node_idle(v->node) || s->now_ns >= v->drain_until_ns)) {
        v->closing = true;
        server_step(v, &(struct node_event){.kind = NODE_DRAIN, .code = 1});
        server_flush(s);
    }
    if (v->closing && (!v->conns || s->now_ns >= v->drain_until_ns))
        server_kill(v, SIGKILL, v->restart_ns);
}

void server_plan_tick(struct sim_server *v, uint64_t at_ns)
{
    v->tick_ns = at_ns;
    sim_plan(v->sim, at_ns, SIM_TICK, v, v->incarnation);
}

void server_tick(struct sim_server *v)
{
    struct sim *s = v->sim;
    if (v->stopped || !v->up || v->tick_ns != s->now_ns)
        return;
    server_plan_tick(v, s->now_ns + SIM_TICK_NS);
    server_step(v, &(struct node_event){.kind = NODE_TICK});
    server_flush(s);
    keep_mark(v);
    if (v->up && v->draining)
        stop_politely(v);
}

void server_wake(struct load_socket *c)
{
    enum stream_event e = c->ended[STREAM_SERVER];
    c->unheard = false;
    c->ended[STREAM_SERVER] = 0;
    read_conn(c);
    mark_dirty(c);
    server_flush(c->sim);
    if (e)
        end_conn(c, e);
    conn_arm(c);
}
