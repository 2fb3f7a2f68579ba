/* Chrome's trace event format ("Trace Event Format", chromium.org; what ui.perfetto.dev and chrome://tracing
 * open): a process per process that wrote records, a thread per phone and per stage of the server, a slice
 * per record, flows ("s", "t", "f" bound to the enclosing slice) along each message. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "report/export_impl.h"
#include "trace/rows.h"
#include "util/clock.h"
#include "util/map.h"

#define SLICE_NS   (100 * NS_PER_US) /* a record is a moment: this wide, or up to the thread's next one */
#define APART_NS   10                /* records of one moment on one thread: or they would hide each other */
#define ANSWER     (1ull << 51)      /* kinds of flows have their own numbers, all exact in a double */
#define DELIVERY   (1ull << 52)
#define FLOWS_MAX  2
#define NO_PENDING UINT32_MAX

struct flow {
    char phase;
    uint64_t id;
};

struct thread {
    uint32_t pid, tid;
    uint64_t at_ns; /* of the latest slice, since the beginning */
    uint32_t record, flows_n;
    struct flow flow[FLOWS_MAX];
};

struct message { /* value in a map: multiple of 8 bytes */
    uint32_t number;
    uint32_t begun;
};

struct perfetto {
    struct exporting *x;
    struct map threads, messages; /* {pid, what} -> place in thread; id -> struct message */
    struct thread *thread;
    uint32_t threads_n, threads_cap, verdicts;
    uint64_t zero_ns;
    bool comma;
};

static void put_ts(struct buf *b, const char *key, uint64_t ns)
{
    buf_printf(b, "\"%s\":%llu.%03u", key, ns / NS_PER_US, (unsigned)(ns % NS_PER_US));
}

static void item(struct perfetto *p)
{
    buf_str(&p->x->out, p->comma ? ",\n" : "\n");
    p->comma = true;
}

static uint32_t pid_of(const struct trace_run *r, uint32_t record)
{
    uint32_t from = r->from[record], i = 0;
    while (i < from && r->source[i].process != r->source[from].process)
        i++;
    return i + 1;
}

/* ---- threads ---- */

static uint64_t stage(const struct trace_event *e, const char **name)
{
    static const char *const server[] = {"requests", "commits", "fan out", "pushes", "connections", "life"};
    static const char *const link[] = {"up", "down", "state"};
    uint64_t k;
    switch (trace_side(e->node)) {
    case TRACE_SIDE_SERVER:
        k = e->hop >= HOP_SOCKET_OPEN && e->hop <= HOP_SOCKET_KILL           ? 4
            : e->hop >= HOP_SERVER_RECEIVE && e->hop <= HOP_SERVER_DUPLICATE ? 0
            : e->hop == HOP_SERVER_COMMIT || e->hop == HOP_SERVER_ACCEPTED   ? 1
            : e->hop == HOP_SERVER_FANOUT                                    ? 2
            : e->hop >= HOP_SERVER_PUSH && e->hop <= HOP_SERVER_RETIRE       ? 3
                                                                             : 5;
        *name = server[k];
        break;
    case TRACE_SIDE_LINK:
        k = e->hop == HOP_LINK_STATE ? 2 : !!(e->flags & TRACE_FLAG_DOWN);
        *name = link[k];
        break;
    case TRACE_SIDE_LOAD:
        *name = NULL;
        return e->user;
    default:
        k = 0;
        *name = "faults and phases";
    }
    return k;
}

static bool room_for_thread(struct perfetto *p)
{
    if (p->threads_n < p->threads_cap)
        return true;
    uint32_t cap = p->threads_cap ? p->threads_cap * 2 : 64;
    struct thread *more = realloc(p->thread, cap * sizeof *more);
    if (!more)
        return false;
    p->thread = more;
    p->threads_cap = cap;
    return true;
}

static struct thread *thread_of(struct perfetto *p, uint32_t record)
{
    const struct trace_event *e = &p->x->r->event[record];
    const char *name;
    uint64_t key[2] = {pid_of(p->x->r, record), stage(e, &name)}, *place;
    bool fresh;
    place = map_put(&p->threads, key, &fresh);
    if (place && !fresh)
        return &p->thread[*place];
    if (!place || !room_for_thread(p)) {
        export_fail(p->x, ERR_NOMEM, "export");
        return NULL;
    }
    struct buf *b = &p->x->out;
    struct thread *t = &p->thread[p->threads_n];
    *place = p->threads_n++;
    *t = (struct thread){.pid = (uint32_t)key[0], .tid = p->threads_n, .record = NO_PENDING};
    item(p);
    buf_printf(b, "{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":%u,\"tid\":%u,\"args\":{\"name\":\"",
               t->pid, t->tid);
    if (name)
        buf_str(b, name);
    else
        buf_printf(b, "user %" PRIu64, e->user);
    buf_str(b, "\"}}");
    return t;
}

/* ---- slices and flows ---- */

static void put_args(struct buf *b, const struct trace_event *e, uint32_t record)
{
    char flow[64], id[ID_TEXT + 1];
    buf_str(b, "\"args\":{");
    if (trace_hop_has_flow(e->hop)) {
        trace_flow_text(flow, &e->id);
        buf_printf(b, "\"flow\":\"%s\"", flow);
    } else {
        buf_printf(b, "\"id\":\"%s\"", id_str(&e->id, id));
    }
    buf_printf(b,
               ",\"chat\":\"%" PRIu64 "\",\"user\":\"%" PRIu64 "\",\"arg\":\"%" PRIu64
               "\",\"connection\":\"%u.%u\",\"attempt\":%u,\"record\":%u",
               e->chat, e->user, e->arg, e->node, e->conn, e->attempt, record);
    if (e->reason && e->hop != HOP_SOCKET_OPEN)
        buf_printf(b, ",\"reason\":\"%s\"", reason_text(e->reason));
    buf_char(b, '}');
}

static void emit_slice(struct perfetto *p, struct thread *t, uint64_t dur_ns)
{
    struct buf *b = &p->x->out;
    const struct trace_event *e = &p->x->r->event[t->record];
    item(p);
    buf_printf(b, "{\"ph\":\"X\",\"cat\":\"record\",\"name\":\"%s%s%s\",\"pid\":%u,\"tid\":%u,",
               hop_text(e->hop), e->reason ? ": " : "",
               e->hop == HOP_SOCKET_OPEN ? (e->reason ? net_name(e->reason) : "") : reason_text(e->reason),
               t->pid, t->tid);
    put_ts(b, "ts", t->at_ns);
    buf_char(b, ',');
    put_ts(b, "dur", dur_ns);
    buf_char(b, ',');
    put_args(b, e, t->record);
    buf_char(b, '}');
    for (uint32_t i = 0; i < t->flows_n; i++) {
        const char *kind = t->flow[i].id & DELIVERY ? "delivery"
                           : t->flow[i].id & ANSWER ? "answer"
                                                    : "message";
        item(p);
        buf_printf(b,
                   "{\"ph\":\"%c\",\"cat\":\"%s\",\"name\":\"%s\",\"id\":%" PRIu64
                   ",\"bp\":\"e\",\"pid\":%u,\"tid\":%u,",
                   t->flow[i].phase, kind, kind, t->flow[i].id, t->pid, t->tid);
        put_ts(b, "ts", t->at_ns);
        buf_char(b, '}');
    }
    t->record = NO_PENDING;
    p->x->counts->rows++;
}

static void add_flow(struct thread *t, char phase, uint64_t id)
{
    if (t->flows_n < FLOWS_MAX)
        t->flow[t->flows_n++] = (struct flow){phase, id};
}

static uint64_t delivery_id(const struct trace_event *e)
{
    uint64_t h = hash_bytes(&e->id, sizeof e->id, e->user);
    return (h & (ANSWER - 1)) | DELIVERY;
}

/* The message goes up, step by step, to the fan-out; from there an arrow to each push, and on to its phone.
 */
static void add_flows(struct perfetto *p, struct thread *t, const struct trace_event *e)
{
    static const struct id zero;
    bool fresh;
    if (trace_hop_has_flow(e->hop) || id_equal(&e->id, &zero))
        return;
    struct message *m = map_put(&p->messages, &e->id, &fresh);
    if (!m) {
        export_fail(p->x, ERR_NOMEM, "export");
        return;
    }
    if (fresh)
        m->number = (uint32_t)p->messages.count;
    switch (e->hop) {
    case HOP_SERVER_ACCEPTED:
        add_flow(t, 's', m->number | ANSWER);
        break;
    case HOP_CLIENT_ACCEPTED:
        add_flow(t, 'f', m->number | ANSWER);
        return;
    case HOP_SERVER_PUSH:
    case HOP_SERVER_REDELIVER:
        if (m->begun)
            add_flow(t, 'f', m->number);
        add_flow(t, 's', delivery_id(e));
        return;
    case HOP_SERVER_PUSH_DROP:
        if (m->begun)
            add_flow(t, 'f', m->number);
        return;
    case HOP_CLIENT_RECEIVE:
    case HOP_CLIENT_DUPLICATE:
        add_flow(t, 't', delivery_id(e));
        return;
    case HOP_CLIENT_SURFACE:
        add_flow(t, 'f', delivery_id(e));
        return;
    default:
        break;
    }
    add_flow(t, m->begun ? 't' : 's', m->number);
    m->begun = 1;
}

static void connection(struct perfetto *p, const struct thread *t, const struct trace_event *e)
{
    struct buf *b = &p->x->out;
    bool opens = e->hop == HOP_SOCKET_OPEN;
    if (!e->conn || (!opens && e->hop != HOP_SOCKET_CLOSE))
        return;
    item(p);
    buf_printf(b,
               "{\"ph\":\"%c\",\"cat\":\"connection\",\"name\":\"connection\",\"id\":%" PRIu64
               ",\"pid\":%u,\"tid\":%u,",
               opens ? 'b' : 'e', (uint64_t)e->node << 32 | e->conn, t->pid, t->tid);
    put_ts(b, "ts", t->at_ns);
    buf_printf(b, ",\"args\":{\"%s\":\"%s\"}}", opens ? "network" : "end",
               opens ? net_name(e->reason) : reason_text(e->reason));
}

static void record(struct perfetto *p, uint32_t i)
{
    const struct trace_event *e = &p->x->r->event[i];
    struct thread *t = thread_of(p, i);
    if (!t)
        return;
    uint64_t at = e->ts_ns - p->zero_ns, before = t->at_ns;
    if (t->record != NO_PENDING || before) {
        at = at < before + APART_NS ? before + APART_NS : at;
        if (t->record != NO_PENDING)
            emit_slice(p, t, at - before < SLICE_NS ? at - before : SLICE_NS);
    }
    t->at_ns = at;
    t->record = i;
    t->flows_n = 0;
    add_flows(p, t, e);
    connection(p, t, e);
}

/* ---- what was not delivered ---- */

static bool undelivered(void *arg, const struct trace_pair *v)
{
    struct perfetto *p = arg;
    struct buf *b = &p->x->out;
    const struct trace_event *event = p->x->r->event;
    char id[ID_TEXT + 1];
    if (v->verdict == VERDICT_DELIVERED)
        return true;
    uint64_t from = v->submit_ns, to = 0;
    for (uint8_t i = 0; i < v->evidence_n; i++) {
        uint64_t ts = event[v->evidence[i]].ts_ns;
        from = from && from < ts ? from : ts;
        to = to > ts ? to : ts;
    }
    if (!from) {
        export_skip(p->x, "pairs that rest on no record have no place in time");
        return export_spill(p->x);
    }
    to = to > from ? to : from;
    p->verdicts++;
    for (int end = 0; end < 2; end++) {
        item(p);
        buf_printf(b,
                   "{\"ph\":\"%c\",\"cat\":\"verdict\",\"name\":\"%s%s%s\",\"id\":%u,\"pid\":%u,\"tid\":0,",
                   end ? 'e' : 'b', verdict_text(v->verdict), v->reason ? ": " : "", reason_text(v->reason),
                   p->verdicts, p->x->r->sources + 1);
        put_ts(b, "ts", (end ? to : from) - p->zero_ns);
        if (end)
            buf_char(b, '}');
        else
            buf_printf(b,
                       ",\"args\":{\"id\":\"%s\",\"chat\":\"%" PRIu64 "\",\"sender\":\"%" PRIu64
                       "\",\"recipient\":\"%" PRIu64 "\",\"network\":\"%s\",\"why\":\"%s\"}}",
                       id_str(&v->id, id), v->chat, v->sender, v->recipient, net_name(v->net),
                       v->why ? v->why : "");
    }
    return export_spill(p->x);
}

/* ---- the file ---- */

static void name_process(struct perfetto *p, uint32_t pid, const struct trace_source *s)
{
    struct buf *b = &p->x->out;
    char name[160] = "not delivered";
    if (s)
        snprintf(name, sizeof name, "%s (%s%spid %u)", s->name, s->host, *s->host ? ", " : "", s->pid);
    item(p);
    buf_printf(b, "{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":%u,\"args\":{\"name\":", pid);
    export_json_text(b, name);
    buf_str(b, "}}");
    item(p);
    buf_printf(b, "{\"ph\":\"M\",\"name\":\"process_sort_index\",\"pid\":%u,\"args\":{\"sort_index\":%d}}",
               pid, !s ? 0 : 1 + (int)((trace_side(s->node) + 2) % TRACE_SIDES));
}

void export_perfetto(struct exporting *x)
{
    const struct trace_run *r = x->r;
    struct perfetto p = {.x = x, .zero_ns = r->events ? r->event[0].ts_ns : 0};
    map_init(&p.threads, 16, 8, UINT32_MAX, 1);
    map_init(&p.messages, sizeof(struct id), sizeof(struct message), UINT32_MAX, 1);
    buf_str(&x->out, "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"title\":");
    export_json_text(&x->out, x->name);
    buf_printf(&x->out, ",\"zero_ns\":\"%" PRIu64 "\",\"zero_unix_ns\":\"%" PRIu64 "\"},\n\"traceEvents\":[",
               p.zero_ns, r->events ? export_wall_ns(x, 0) : 0);
    for (uint32_t i = 0; i < r->sources; i++) {
        uint32_t first = 0;
        while (r->source[first].process != r->source[i].process)
            first++;
        if (first == i)
            name_process(&p, i + 1, &r->source[i]);
    }
    name_process(&p, r->sources + 1, NULL);
    for (uint32_t i = 0; i < r->events && export_spill(x); i++)
        record(&p, i);
    for (uint32_t i = 0; i < p.threads_n && export_spill(x); i++)
        if (p.thread[i].record != NO_PENDING)
            emit_slice(&p, &p.thread[i], SLICE_NS);
    if (!x->rc && trace_pairs(r, undelivered, &p))
        export_fail(x, ERR_NOMEM, "export");
    buf_str(&x->out, "\n]}\n");
    map_release(&p.threads);
    map_release(&p.messages);
    free(p.thread);
}
