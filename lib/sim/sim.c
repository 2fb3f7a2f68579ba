/* The virtual clock: events in a heap, and what each one does. */
#include "sim/sim.h"

#include <stdlib.h>
#include <string.h>

#include "sim/sim_impl.h"
#include "sim/watch.h"

#define START_NS (1000 * NS_PER_S) /* no time is 0 */

/* ---- the heap: four children a node, earliest first, ties in the order of planning ---- */

static bool before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

void sim_plan(struct sim *s, uint64_t at_ns, enum sim_kind kind, void *p, uint32_t a)
{
    if (s->heap_n == s->heap_cap) {
        size_t cap = s->heap_cap ? s->heap_cap * 2 : 1024;
        struct sim_event *heap = realloc(s->heap, cap * sizeof *heap);
        BUG_ON(!heap);
        s->heap = heap;
        s->heap_cap = cap;
    }
    struct sim_event e = {.at_ns = at_ns, .order = ++s->order, .p = p, .a = a, .kind = kind};
    size_t i = s->heap_n++;
    for (; i && before(&e, &s->heap[(i - 1) / 4]); i = (i - 1) / 4)
        s->heap[i] = s->heap[(i - 1) / 4];
    s->heap[i] = e;
}

static struct sim_event take(struct sim *s)
{
    struct sim_event top = s->heap[0], last = s->heap[--s->heap_n];
    size_t i = 0;
    for (;;) {
        size_t first = 4 * i + 1, best = first;
        if (first >= s->heap_n)
            break;
        for (size_t k = first + 1; k < first + 4 && k < s->heap_n; k++)
            if (before(&s->heap[k], &s->heap[best]))
                best = k;
        if (!before(&s->heap[best], &last))
            break;
        s->heap[i] = s->heap[best];
        i = best;
    }
    s->heap[i] = last;
    return top;
}

/* FNV-1a over words: order counts. */
void sim_mix(struct sim *s, uint64_t v)
{
    s->hash = (s->hash ^ v) * 0x100000001b3ull;
    s->hash ^= s->hash >> 29;
}

/* ---- dispatch ---- */

static void at_connection(const struct sim_event *e)
{
    struct load_socket *c = e->p;
    if (e->kind == SIM_TIMER)
        conn_timer(c, e->a, e->at_ns);
    else if (e->kind == SIM_LOOK)
        phones_look(c);
    else if (e->a == STREAM_PHONE)
        phones_late(c);
    else
        server_late(c);
    conn_unref(c);
}

static int dispatch(struct sim *s, const struct sim_event *e, struct err_ctx *ctx)
{
    switch (e->kind) {
    case SIM_PACKET:
        net_arrive(s, e->p);
        break;
    case SIM_TIMER:
    case SIM_LOOK:
    case SIM_LATE:
        at_connection(e);
        break;
    case SIM_LOAD:
        if (s->load_ns != e->at_ns)
            break; /* an earlier one was planned since */
        s->load_ns = 0;
        load_tick(s->load);
        break;
    case SIM_TICK:
        if (e->a == ((struct sim_server *)e->p)->incarnation)
            server_tick(e->p);
        break;
    case SIM_COMMIT:
    case SIM_READ:
        server_done(s, e);
        break;
    case SIM_START:
        return server_start(e->p, ctx);
    case SIM_CONTINUE:
        if (e->a == ((struct sim_server *)e->p)->incarnation)
            server_continue(e->p);
        break;
    case SIM_WEATHER:
        net_weather(s, e->p);
        break;
    case SIM_FAULT_ENDS:
        return faults_end(s, e->a, ctx);
    case SIM_IMAGE:
        faults_image(s, e->a);
        break;
    case SIM_MEMBERS:
        members_change(s, e->p);
        break;
    case SIM_BUS:
        nodes_due(s, e->at_ns);
        break;
    case SIM_SHARED:
        nodes_shared_due(s, e->at_ns);
        break;
    case SIM_BUS_CUT:
        nodes_cut(e->p, e->a != 0);
        break;
    case SIM_KINDS:
        BUG_ON("no event");
    }
    return 0;
}

static void move_to(struct sim *s, uint64_t at_ns)
{
    s->now_ns = at_ns;
    if (!s->run_trace)
        return;
    trace_set_virtual(s->server_trace, at_ns);
    trace_set_virtual(s->link_trace, at_ns);
    trace_set_virtual(s->load_trace, at_ns);
    trace_set_virtual(s->run_trace, at_ns);
    if (s->events % SIM_TRACE_EVERY == 0)
        for (size_t i = 0; i < sizeof s->trace / sizeof *s->trace; i++)
            trace_sync(s->trace[i]);
}

int sim_run(struct sim *s, uint64_t until_ns, bool (*enough)(struct sim *s), struct err_ctx *ctx)
{
    while (s->heap_n && s->heap[0].at_ns <= until_ns) {
        struct sim_event e = take(s);
        s->events++;
        move_to(s, e.at_ns);
        sim_mix(s, e.at_ns << 4 | e.kind);
        int rc = dispatch(s, &e, ctx);
        if (rc)
            return rc;
        phones_plan(s);
        watch_time(s);
        nodes_plan(s);
        if (sim_failed(s) || (enough && enough(s)))
            return 0;
        if (s->events % 65536 == 0 && s->config.interrupted && *s->config.interrupted)
            return err_set(ctx, ERR_INTERRUPTED, "interrupted");
    }
    if (s->now_ns < until_ns)
        move_to(s, until_ns);
    return 0;
}

/* ---- making and freeing ---- */

static int open_traces(struct sim *s, struct err_ctx *ctx)
{
    static const struct {
        const char *name;
        uint16_t node;
    } of[] = {{"server", TRACE_NODE_SERVER},
              {"link", TRACE_NODE_LINK},
              {"load", TRACE_NODE_LOAD},
              {"run", TRACE_NODE_RUN}};
    struct trace_writer **writers[] = {&s->server_trace, &s->link_trace, &s->load_trace, &s->run_trace};
    char dir[600];
    snprintf(dir, sizeof dir, "%s/trace", s->config.dir);
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        struct trace_config tc = {
            .dir = dir, .name = of[i].name, .node = of[i].node, .seed = s->s->seed, .ring_events = 1u << 18};
        int rc = trace_open(&s->trace[i], &tc, ctx);
        rc = rc ? rc : trace_writer_new(writers[i], s->trace[i], ctx);
        if (rc)
            return rc;
    }
    move_to(s, s->now_ns);
    return 0;
}

int sim_new(struct sim **out, const struct sim_config *c, struct err_ctx *ctx)
{
    struct sim *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    s->world.ops = &sim_world_ops;
    s->config = *c;
    s->s = c->scenario;
    s->now_ns = s->began_ns = s->t0_ns = START_NS;
    s->phase = -1;
    s->hash = 0xcbf29ce484222325ull;
    rng_seed_stream(&s->rng, s->s->seed, SIM_STREAM);
    keys_from_seed(&s->keys, s->s->seed);
    buf_init(&s->text, 1u << 24);
    int rc = net_init(s, ctx);
    rc = rc ? rc : faults_check(s, ctx);
    rc = rc ? rc : server_init(s, ctx);
    rc = rc ? rc : watch_new(s, ctx); /* what the server promises is in its arguments */
    if (!rc && c->dir)
        rc = open_traces(s, ctx);
    rc = rc ? rc : phones_new(s, ctx);
    if (rc) {
        sim_free(s);
        return rc;
    }
    *out = s;
    return 0;
}

/* What is planned holds memory: let go of it. */
static void drop_events(struct sim *s)
{
    for (size_t i = 0; i < s->heap_n; i++) {
        struct sim_event *e = &s->heap[i];
        if (e->kind == SIM_READ)
            read_job_free(e->p);
        else if (e->kind == SIM_PACKET)
            free(e->p);
    }
    s->heap_n = 0;
}

int sim_close_traces(struct sim *s)
{
    int rc = 0;
    for (size_t i = 0; i < sizeof s->trace / sizeof *s->trace; i++) {
        int one = trace_close(s->trace[i]);
        rc = rc ? rc : one;
        s->trace[i] = NULL;
    }
    s->server_trace = s->link_trace = s->load_trace = s->run_trace = NULL;
    return rc;
}

void sim_free(struct sim *s)
{
    if (!s)
        return;
    load_free(s->load);
    server_release(s);
    drop_events(s);
    conn_free_all(s);
    net_release(s);
    faults_release(s);
    members_release(s);
    watch_free(s);
    sim_close_traces(s);
    keys_wipe(&s->keys);
    buf_release(&s->text);
    free(s->heap);
    free(s);
}

struct world *sim_world(struct sim *s)
{
    return &s->world;
}
