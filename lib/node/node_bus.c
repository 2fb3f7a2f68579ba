/* What comes from other nodes and goes to them: records, peers, calls. */
#include "node/node_bus.h"

#include <stdlib.h>
#include <string.h>

#define FOLLOWED_MAX  (64u << 20)
#define GREETINGS_MAX (16u << 20)
#define OUT_MAX       (16u << 20) /* in one step for one node; beyond it is lost */

/* Reads of other owners' chats go to them; everything else is the world's. */
static void emit(void *arg, const struct effect *e)
{
    struct node *n = arg;
    struct node_bus *b = n->bus;
    if (e->kind != EFFECT_READ || e->read->kind != READ_LOG || e->read->owner & BUS_CONN ||
        node_owns(n, e->read->chat)) {
        n->config.emit(n->config.arg, e);
        return;
    }
    struct read_job *job = e->read;
    buf_reset(&b->body);
    put_u64(&b->body, job->chat);
    put_u64(&b->body, 0);
    put_u64(&b->body, job->after);
    put_u64(&b->body, job->upto);
    put_u64(&b->body, job->since_us);
    put_u32(&b->body, job->limit);
    put_u32(&b->body, (uint32_t)job->bytes_max);
    struct bus_call *call = bus_ask(n, node_owner(n, job->chat), CALL_LOG, 3 * NS_PER_S);
    if (call) {
        call->about = job;
        return;
    }
    job->rc = ERR_TIMEOUT; /* answered when this step is over */
    if (b->failed_n == b->failed_cap) {
        b->failed_cap = b->failed_cap ? b->failed_cap * 2 : 16;
        b->failed = realloc(b->failed, b->failed_cap * sizeof *b->failed);
        BUG_ON(!b->failed);
    }
    b->failed[b->failed_n++] = job;
}

int node_bus_new(struct node *n, struct err_ctx *ctx)
{
    const struct node_place *place = &n->config.place;
    if (place->nodes < 2)
        return 0;
    if (place->nodes > BUS_NODES_MAX || place->self >= place->nodes)
        return err_set(ctx, ERR_INVALID, "node %u of %u: there can be 1 to %u, numbered from 0", place->self,
                       place->nodes, BUS_NODES_MAX);
    if (n->config.features != DELIVERY_RELIABLE)
        return err_set(ctx, ERR_UNSUPPORTED, "several nodes deliver reliably or not at all");
    struct node_bus *b = calloc(1, sizeof *b);
    if (!b)
        return err_set(ctx, ERR_NOMEM, "no memory for a node among others");
    b->self = place->self;
    b->nodes = place->nodes;
    b->incarnation = rng_u64(&n->io.rng) | 1;
    bus_calls_init(&b->calls, rng_u64(&n->io.rng));
    map_init(&b->interest, 8, sizeof(struct interest), FOLLOWED_MAX, rng_u64(&n->io.rng));
    map_init(&b->followed, 8, sizeof(struct follow), FOLLOWED_MAX, rng_u64(&n->io.rng));
    map_init(&b->greetings, 8, 8, GREETINGS_MAX, rng_u64(&n->io.rng));
    slab_init(&b->answers, sizeof(struct answer), BUS_CALLS_MAX * BUS_NODES_MAX);
    for (uint16_t i = 0; i < b->nodes; i++)
        buf_init(&b->out[i], OUT_MAX);
    buf_init(&b->body, BUS_DATAGRAM_MAX);
    buf_init(&b->reply, BUS_DATAGRAM_MAX);
    n->bus = b;
    n->io.emit = emit;
    n->io.arg = n;
    return 0;
}

static void forget_call(void *arg, struct bus_call *call)
{
    (void)arg;
    if (call->what == CALL_LOG || call->what == CALL_FILL || call->what == CALL_HISTORY)
        read_job_free(call->about);
    else
        free(call->about);
}

static void greeting_free(struct greeting *g)
{
    free(g->claims);
    free(g->cursors);
    free(g->said);
    free(g);
}

void node_bus_free(struct node *n)
{
    struct node_bus *b = n->bus;
    if (!b)
        return;
    bus_calls_release(&b->calls, forget_call, NULL);
    size_t at = 0;
    void *v;
    while (map_next(&b->greetings, &at, NULL, &v))
        greeting_free(*(struct greeting **)v);
    map_release(&b->greetings);
    map_release(&b->interest);
    map_release(&b->followed);
    slab_release(&b->answers);
    for (uint16_t i = 0; i < b->nodes; i++) {
        buf_release(&b->out[i]);
        free(b->peers[i].epochs);
    }
    for (size_t i = 0; i < b->failed_n; i++)
        read_job_free(b->failed[i]);
    free(b->failed);
    buf_release(&b->body);
    buf_release(&b->reply);
    free(b->again);
    free(b);
    n->bus = NULL;
}

/* ---- sending ---- */

static void send_out(struct node *n, uint16_t to)
{
    struct node_bus *b = n->bus;
    struct buf *out = &b->out[to];
    if (!out->failed && out->len > WIRE_HEADER) {
        struct effect e = {.kind = EFFECT_BUS, .to = to, .data = out->data, .len = out->len};
        n->counters.bus_sent++;
        n->config.emit(n->config.arg, &e);
    }
    buf_reset(out);
    if (out->cap > BUS_DATAGRAM_FIT * 4) /* a burst is over */
        buf_release(out);
}

/* Begin a record for `to`; its body follows, then bus_end with the same mark. */
struct buf *bus_begin(struct node_bus *b, uint16_t to, enum wire_record type, size_t *mark)
{
    struct buf *out = &b->out[to];
    if (!out->len) {
        put_u8(out, WIRE_VERSION);
        put_number(out, b->self, 2);
        put_u64(out, b->incarnation);
    }
    put_u8(out, (uint8_t)type);
    *mark = out->len;
    put_u32(out, 0);
    return out;
}

void bus_end(struct node *n, uint16_t to, size_t mark)
{
    struct buf *out = &n->bus->out[to];
    if (!out->failed) {
        uint32_t len = (uint32_t)(out->len - mark - 4);
        for (int i = 0; i < 4; i++)
            out->data[mark + (size_t)i] = (char)(len >> (8 * i));
    }
    if (out->failed || out->len > BUS_DATAGRAM_FIT)
        send_out(n, to);
}

void node_bus_flush(struct node *n)
{
    if (!n->bus)
        return;
    follow_step_over(n);
    owner_step_over(n);
    for (uint16_t i = 0; i < n->bus->nodes; i++)
        if (n->bus->out[i].len)
            send_out(n, i);
}

/* One that was never heard may only be slower to start than we are. */
bool bus_reachable(const struct node *n, uint16_t node)
{
    const struct node_bus *b = n->bus;
    const struct bus_peer *p = &b->peers[node].seen;
    return p->up || (!p->incarnation && n->io.now.mono_ns - b->began_ns < BUS_SILENT_NS);
}

static void say_call(struct node *n, const struct bus_call *call)
{
    size_t mark;
    struct buf *out = bus_begin(n->bus, call->to, WIRE_CALL, &mark);
    put_u64(out, call->id);
    put_u8(out, call->attempt);
    put_u8(out, call->what);
    buf_add(out, call->data, call->len);
    bus_end(n, call->to, mark);
}

struct bus_call *bus_ask(struct node *n, uint16_t to, enum wire_call what, uint64_t patience_ns)
{
    struct node_bus *b = n->bus;
    struct bus_call *call = NULL;
    if (bus_reachable(n, to) && !b->body.failed)
        call = bus_call_new(&b->calls, to, (uint8_t)what, b->body.data, b->body.len, n->io.now.mono_ns,
                            patience_ns);
    if (!call)
        return NULL;
    n->counters.bus_calls++;
    say_call(n, call);
    return call;
}

/* ---- receiving ---- */

static void replied(struct node *n, uint16_t from, struct wire_reader *r)
{
    struct bus_call *call = bus_call_take(&n->bus->calls, wire_u64(r));
    if (!call)
        return; /* answered already, or too late */
    if (call->to == from && !r->failed)
        follow_replied(n, call, r);
    else
        follow_unanswered(n, call);
    free(call);
}

static void record(struct node *n, uint16_t from, uint8_t type, struct wire_reader *r)
{
    switch (type) {
    case WIRE_BEAT:
        follow_beat(n, from, r);
        break;
    case WIRE_ENTRY:
        follow_entry(n, from, r);
        break;
    case WIRE_MEMBERS:
        follow_members(n, from, r);
        break;
    case WIRE_HEAD:
        follow_head(n, r);
        break;
    case WIRE_INTEREST:
        owner_interest(n, from, r);
        break;
    case WIRE_DROP:
        owner_drop(n, from, r);
        break;
    case WIRE_RECEIPTS:
        node_receipts_told(n, from, r);
        break;
    case WIRE_CALL:
        owner_called(n, from, r);
        break;
    case WIRE_REPLY:
        replied(n, from, r);
        break;
    default:
        r->failed = true;
    }
}

static void give_up_calls(struct node *n, uint16_t to)
{
    for (struct bus_call *call; (call = bus_call_to(&n->bus->calls, to)); free(call)) {
        n->counters.bus_calls_failed++;
        follow_unanswered(n, call);
    }
}

static void say_beat(struct node *n, uint16_t to)
{
    size_t mark;
    struct buf *out = bus_begin(n->bus, to, WIRE_BEAT, &mark);
    put_u64(out, n->bus->version);
    put_u64(out, n->config.epoch);
    bus_end(n, to, mark);
}

static void heard(struct node *n, uint16_t from, uint64_t incarnation)
{
    switch (bus_peer_heard(&n->bus->peers[from].seen, incarnation, n->io.now.mono_ns)) {
    case BUS_HEARD_AGAIN:
        break;
    case BUS_HEARD_UP:
        say_beat(n, from);
        follow_peer_up(n, from, false);
        break;
    case BUS_HEARD_NEW:
        say_beat(n, from);
        follow_peer_up(n, from, true);
        break;
    }
}

void node_bus_event(struct node *n, const struct node_event *e)
{
    struct node_bus *b = n->bus;
    struct wire_reader r = {.p = e->data, .left = e->len};
    if (!b)
        return;
    n->counters.bus_received++;
    uint8_t version = wire_u8(&r);
    uint16_t from = (uint16_t)wire_number(&r, 2);
    uint64_t incarnation = wire_u64(&r);
    if (r.failed || version != WIRE_VERSION || from >= b->nodes || from == b->self || !incarnation) {
        n->counters.bus_bad++;
        return;
    }
    heard(n, from, incarnation);
    while (r.left) {
        uint8_t type = wire_u8(&r);
        uint32_t len = wire_u32(&r);
        struct wire_reader body = {.p = wire_bytes(&r, len), .left = len};
        if (r.failed) {
            n->counters.bus_bad++;
            return;
        }
        record(n, from, type, &body);
        n->counters.bus_bad += body.failed;
    }
}

/* ---- time ---- */

void node_bus_tick(struct node *n)
{
    struct node_bus *b = n->bus;
    if (!b)
        return;
    uint64_t now = n->io.now.mono_ns;
    if (!b->began_ns)
        b->began_ns = now;
    for (uint16_t i = 0; i < b->nodes; i++)
        if (i != b->self && bus_peer_silent(&b->peers[i].seen, now))
            give_up_calls(n, i);
    bool over;
    for (struct bus_call *call; (call = bus_call_due(&b->calls, now, &over));) {
        if (!over) {
            say_call(n, call);
            continue;
        }
        n->counters.bus_calls_failed++;
        follow_unanswered(n, call);
        free(call);
    }
    if (!b->beat_ns || now - b->beat_ns >= BUS_BEAT_NS) {
        b->beat_ns = now;
        for (uint16_t i = 0; i < b->nodes; i++)
            if (i != b->self)
                say_beat(n, i);
    }
    owner_tick(n);
    follow_tick(n);
}

void node_bus_stats(const struct node *n, struct node_stats *out)
{
    const struct node_bus *b = n->bus;
    if (!b)
        return;
    out->nodes = b->nodes - 1u;
    for (uint16_t i = 0; i < b->nodes; i++)
        out->nodes_up += b->peers[i].seen.up;
    out->followed = b->followed.count;
    out->interests = b->interest.count;
    out->calls = b->calls.by_id.count;
}
