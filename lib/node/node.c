#include "node/node_impl.h"
#include "util/mutant.h"

#include <stdlib.h>
#include <string.h>

#define CURSOR_SAVE_NS NS_PER_S /* about so long a cursor waits */
#define CURSORS_FEW    32u      /* not worth a batch before that */
#define CURSORS_MANY   5000u    /* beyond, one large batch is less work than many small ones */
#define STOOD_NS       NS_PER_S /* without a tick: this process stood still */
#define STOOD_MAX_MS   11000u   /* with the next beat, 10 s later, nobody who is there counts as silent */
#define SWEEP_NS       NS_PER_S /* a round of the clocks */
#define SWEEP_LEAST    64u      /* clocks a tick, beside its share of them */

static uint32_t seconds(uint64_t s)
{
    return s < UINT32_MAX ? (uint32_t)s : UINT32_MAX;
}

struct node_limits node_limits_default(void)
{
    return (struct node_limits){.sessions_per_user = 16,
                                .sending_per_conn = 256,
                                .rate_per_s = 100,
                                .rate_burst = 500,
                                .body_max = PROTO_BODY_MAX,
                                .chats_max = PROTO_CLAIMS_MAX,
                                .queue_bytes = 1u << 20,
                                .slow_ms = 5000,
                                .requests_per_sync = 1000,
                                .backlog_max = 10000,
                                .receipts_each = RECEIPTS_EACH_MAX};
}

int node_new(struct node **out, const struct node_config *c, struct err_ctx *ctx)
{
    struct node *n = calloc(1, sizeof *n);
    if (!n)
        return err_set(ctx, ERR_NOMEM, "no memory for a node");
    n->config = *c;
    n->io = (struct io){.emit = c->emit, .arg = c->arg, .trace = c->trace};
    rng_seed(&n->io.rng, c->seed);
    registry_init(&n->registry, rng_u64(&n->io.rng));
    n->registry.chats_max = c->limits.chats_max;
    struct delivery_config dc = {.features = c->features,
                                 .sequential_ns = c->sequential_ns,
                                 .slow_ms = c->features & DELIVERY_ACK ? c->limits.slow_ms : 0,
                                 .queue_bytes_max = c->limits.queue_bytes,
                                 .page = 100,
                                 .backlog_max = c->limits.backlog_max};
    delivery_init(&n->delivery, &n->io, &n->registry, &n->clocks, &n->counters, &dc);
    accept_init(&n->accept, &n->io, &n->registry, &n->counters, c->keys, &node_accept_ops, n, c->epoch,
                delivery_needs_log(c->features), (c->features & DELIVERY_RETRY) != 0);
    node_presence_init(n, c->seed);
    node_receipts_init(n, c->seed);
    recover_init(&n->recover, &n->io, &n->registry, &n->accept, &node_recover_ops, n);
    n->conn_last = (uint32_t)c->conn_base;
    n->scratch = (struct proto_scratch){.data = malloc(PROTO_SCRATCH), .cap = PROTO_SCRATCH};
    if (!n->scratch.data) {
        node_free(n);
        return err_set(ctx, ERR_NOMEM, "no memory for a node");
    }
    int rc = node_bus_new(n, ctx);
    if (rc) {
        node_free(n);
        return rc;
    }
    *out = n;
    return 0;
}

static void session_free(struct node *n, struct session *s)
{
    session_extra_trim(&n->registry, s);
    *session_clock(&n->clocks, session_number(&n->registry, s)) = (struct session_clock){0};
    slab_give(&n->registry.sessions, s);
}

/* The next session from number *at on, which moves behind it; NULL at the end. */
struct session *node_next_session(struct node *n, uint32_t *at)
{
    while (*at < slab_top(&n->registry.sessions)) {
        struct session *s = registry_session(&n->registry, ++*at);
        if (s->state != SESSION_FREE)
            return s;
    }
    return NULL;
}

void node_free(struct node *n)
{
    if (!n)
        return;
    uint32_t at = 0;
    for (struct session *s; (s = node_next_session(n, &at));) {
        delivery_forget(&n->delivery, s);
        session_free(n, s);
    }
    node_bus_free(n);
    session_clocks_release(&n->clocks);
    accept_release(&n->accept); /* looks whose job is flying */
    recover_release(&n->recover);
    node_presence_release(n);
    node_receipts_release(n);
    delivery_release(&n->delivery);
    registry_release(&n->registry);
    free(n->lineage);
    free(n->scratch.data);
    free(n);
}

/* ---- loading ---- */

struct loading {
    struct node *n;
    int rc;
    uint64_t foreign; /* a chat of another node's share; 0: none was seen */
};

/* Is this row ours to keep in memory? */
static bool is_ours(struct loading *l, uint64_t chat)
{
    const struct node_place *place = &l->n->config.place;
    if (place->nodes < 2 || shard_of_chat(chat) % place->nodes == place->self)
        return true;
    if (!place->shared_store)
        l->foreign = chat;
    return false;
}

static void load_head(void *arg, const struct chat_head *h)
{
    struct loading *l = arg;
    if (!is_ours(l, h->chat))
        return;
    struct chat *c = registry_chat_make(&l->n->registry, h->chat);
    if (!c) {
        l->rc = ERR_NOMEM;
        return;
    }
    c->epoch = c->epoch_durable = h->epoch;
    c->head = c->durable = h->seq;
    c->epoch_first = 0;
    if (h->ts_us > l->n->accept.last_ts_us) /* time goes on from there, also if the clock was set back */
        l->n->accept.last_ts_us = h->ts_us;
}

static void trace_member(struct node *n, uint64_t chat, uint64_t user, uint64_t seq, bool left)
{
    trace_emit(n->io.trace, &(struct trace_event){.chat = chat,
                                                  .user = user,
                                                  .arg = seq,
                                                  .hop = HOP_SERVER_MEMBER,
                                                  .flags = left ? TRACE_FLAG_LEFT : 0});
}

static void load_member(void *arg, const struct member_row *m)
{
    struct loading *l = arg;
    if (m->to != UINT64_MAX || !is_ours(l, m->chat))
        return; /* over, or another node's */
    struct chat *c = registry_chat_make(&l->n->registry, m->chat);
    int rc = c ? registry_member_set(&l->n->registry, c, m->user, m->from, m->role) : ERR_NOMEM;
    if (rc)
        l->rc = rc;
    else if (m->role != MEMBER_INVITED)
        trace_member(l->n, m->chat, m->user, m->from, false);
}

int node_load(struct node *n, struct store *s, struct err_ctx *ctx)
{
    const struct lineage_entry *list;
    size_t count = store_lineage(s, &list);
    n->lineage = calloc(count ? count : 1, sizeof *list);
    if (!n->lineage)
        return err_set(ctx, ERR_NOMEM, "no memory for the lineage");
    memcpy(n->lineage, list, count * sizeof *list);
    n->lineage_n = count;
    n->accept.seq_floor = store_next_seq(s, NULL);
    n->accept.ask_before_ms = MUTANT(DEDUP_LOST_ON_RESTART) ? 0 : store_ids_before(s);
    struct loading l = {.n = n};
    struct store_load load = {.head = load_head, .member = load_member, .arg = &l};
    int rc = store_load(s, &load, ctx);
    if (!rc && l.rc)
        rc = err_set(ctx, l.rc, "loading chats: %s", err_text(l.rc));
    if (!rc && l.foreign)
        rc = err_set(ctx, ERR_UNSUPPORTED,
                     "the store holds chat %llu, which is not of node %u of %u: start it with the --node and "
                     "--nodes it was written with",
                     (unsigned long long)l.foreign, n->config.place.self, n->config.place.nodes);
    registry_trim(&n->registry);
    rc = rc ? rc : node_recover_load(n, s, ctx);
    trace_emit(n->io.trace, &(struct trace_event){.arg = n->config.epoch, .hop = HOP_SERVER_EPOCH});
    return rc;
}

/* ---- sessions ---- */

struct session *node_session(const struct node *n, uint64_t conn)
{
    uint32_t number = (uint32_t)(conn >> 32);
    if (!number || number > slab_top(&n->registry.sessions))
        return NULL;
    struct session *s = registry_session(&n->registry, number);
    return s->state != SESSION_FREE && s->lane.conn == (uint32_t)conn ? s : NULL;
}

static uint64_t on_open(struct node *n, const struct node_event *e)
{
    struct session *s = n->config.presence_only ? NULL : slab_take(&n->registry.sessions);
    struct session_extra *x = s ? session_extra(&n->registry, s, true) : NULL;
    if (!x || session_clocks_make(&n->clocks, session_number(&n->registry, s))) {
        if (x)
            session_extra_trim(&n->registry, s);
        if (s)
            slab_give(&n->registry.sessions, s);
        return 0;
    }
    s->state = SESSION_NEW;
    s->link = e->link;
    s->codec = (uint8_t)e->codec;
    s->expires_s = seconds(e->expires_s);
    s->lane.conn = ++n->conn_last ? n->conn_last : ++n->conn_last;
    x->trusted_user = e->user;
    x->flow = e->flow;
    x->flow.tcp_seq = (uint32_t)e->offset; /* where frames begin in the stream; shown by SOCKET_OPEN */
    *session_clock(&n->clocks, session_number(&n->registry, s)) =
        (struct session_clock){.heard_ms = clock_ms(e->now.mono_ns), .unacked_ms = CLOCK_GREETING};
    n->counters.connections++;
    return session_conn(&n->registry, s);
}

static void leave_user(struct node *n, struct session *s)
{
    uint32_t *at = &session_user(&n->registry, s)->sessions, number = session_number(&n->registry, s);
    while (*at && *at != number)
        at = &registry_session(&n->registry, *at)->next_of_user;
    if (*at)
        *at = s->next_of_user;
}

/* Take the session out of everything but the pool: it gets nothing more and counts as gone. */
static void detach(struct node *n, struct session *s, enum reason reason)
{
    if (s->state == SESSION_CLOSING)
        return;
    if (s->user)
        node_presence_leave(n, s);
    *session_clock(&n->clocks, session_number(&n->registry, s)) = (struct session_clock){0};
    if (s->user) {
        node_bus_forget(n, s);
        delivery_forget(&n->delivery, s);
        leave_user(n, s);
        n->sessions_n--;
        n->by_net[s->lane.net]--;
        n->disconnects[s->lane.net][reason]++;
    }
    s->state = SESSION_CLOSING;
    s->lane.device_lo = (uint8_t)reason;
}

void session_end(struct node *n, struct session *s, int code, enum reason reason)
{
    if (s->state == SESSION_CLOSING)
        return;
    detach(n, s, reason);
    struct effect e = {.kind = EFFECT_CLOSE, .link = s->link, .code = code, .text = close_code_text(code)};
    n->io.emit(n->io.arg, &e);
}

static void on_closed(struct node *n, const struct node_event *e)
{
    struct session *s = node_session(n, e->conn);
    if (!s)
        return;
    recover_gone(&n->recover, e->conn);
    detach(n, s, e->reason);
    if (s->user)
        trace_lane_emit(n->io.trace, &s->lane,
                        &(struct trace_event){.user = session_user(&n->registry, s)->id,
                                              .device = s->device,
                                              .arg = (uint64_t)e->code,
                                              .hop = HOP_SOCKET_CLOSE,
                                              .reason = s->lane.device_lo});
    session_free(n, s);
}

void session_error(struct node *n, struct session *s, enum proto_error code, const struct msg *about,
                   uint32_t retry_ms, const char *text)
{
    struct msg m = {.t = MSG_ERROR,
                    .code = slice_of(proto_error_code(code)),
                    .text = slice_of(text ? text : proto_error_text(code)),
                    .retry_ms = retry_ms};
    if (about) {
        m.re = slice_of(msg_type_name(about->t));
        m.chat = about->chat;
        m.id = about->id;
    }
    n->counters.rejected++;
    delivery_send(&n->delivery, s, &m);
}

/* ---- events ---- */

/* What is read after this process stood still may have been said at the beginning of that time, by somebody
 * who has gone since: it was heard then. */
static uint32_t heard_ms(const struct node *n, uint32_t before_ms, uint64_t now_ns)
{
    uint32_t now = clock_ms(now_ns);
    if (now_ns >= n->stood_until_ns)
        return now;
    uint32_t at = now - n->stood_ms < STOOD_MAX_MS ? n->stood_ms : now - STOOD_MAX_MS;
    return (int32_t)(at - before_ms) > 0 ? at : before_ms;
}

static void hear(struct node *n, struct session_clock *clock, uint64_t now_ns)
{
    clock->heard_ms = heard_ms(n, clock->heard_ms, now_ns);
}

static void look_at_time(struct node *n, uint64_t now_ns)
{
    if (!n->ticked_ns || now_ns - n->ticked_ns < STOOD_NS || now_ns < n->stood_until_ns)
        return;
    n->stood_ms = clock_ms(n->ticked_ns);
    n->stood_until_ns = now_ns + NS_PER_S;
}

static void on_frame(struct node *n, const struct node_event *e)
{
    struct session *s = node_session(n, e->conn);
    if (!s || s->state == SESSION_CLOSING)
        return;
    n->counters.frames++;
    if (s->state != SESSION_NEW)
        hear(n, session_clock(&n->clocks, (uint32_t)(e->conn >> 32)), e->now.mono_ns);
    if (node_presence_flags(&n->presence, (uint32_t)(e->conn >> 32)) & NODE_PRESENCE_SILENT)
        node_presence_heard_anew(n, s, false);
    struct proto_frame f;
    struct err_ctx err = {0};
    struct msg m;
    int rc = proto_frame_begin_as(&f, s->codec, e->data, e->len, &n->scratch, &err);
    while (!rc && s->state != SESSION_CLOSING && (rc = proto_frame_next(&f, &m, &err)) == 1) {
        rc = 0;
        if (m.t == MSG_HELLO)
            node_hello(n, s, &m);
        else
            node_request(n, s, &m, e->offset);
        if (f.done)
            break;
    }
    if (rc < 0) {
        session_error(n, s, PROTO_INVALID, NULL, 0, err.text);
        session_end(n, s, CLOSE_PROTOCOL, REASON_PROTOCOL);
    }
}

/* Hot path: a million a second. Only clocks are read: the caller vouches for it that the connections exist,
 * and the clock of one that is being closed stands still. */
static void on_beats(struct node *n, const struct node_event *e)
{
    uint32_t now_ms = clock_ms(e->now.mono_ns);
    uint32_t top = slab_top(&n->registry.sessions);
    bool stood = e->now.mono_ns < n->stood_until_ns;
    n->counters.beats += e->len;
    for (size_t i = 0; i < e->len; i++)
        if (e->conns[i] >> 32 <= top && e->conns[i] >> 32)
            __builtin_prefetch(session_clock(&n->clocks, (uint32_t)(e->conns[i] >> 32)), 1);
    for (size_t i = 0; i < e->len; i++) {
        uint32_t number = (uint32_t)(e->conns[i] >> 32);
        if (number > top || !number)
            continue;
        struct session_clock *clock = session_clock(&n->clocks, number);
        if (!clock->heard_ms || clock->unacked_ms == CLOCK_GREETING)
            continue;
        clock->heard_ms = stood ? heard_ms(n, clock->heard_ms, e->now.mono_ns) : now_ms;
        struct session *s = node_presence_flags(&n->presence, number) & ~NODE_PRESENCE_HERE
                                ? node_session(n, e->conns[i])
                                : NULL;
        if (s)
            node_presence_heard_anew(n, s, true);
    }
}

static void on_written(struct node *n, const struct node_event *e)
{
    struct session *s = node_session(n, e->conn);
    if (!s)
        return;
    if (s->user && n->io.trace && !s->lane.quiet && e->frame->what != FRAME_OTHER)
        trace_lane_emit(n->io.trace, &s->lane,
                        &(struct trace_event){.id = e->frame->id,
                                              .chat = e->frame->chat,
                                              .user = session_user(&n->registry, s)->id,
                                              .device = s->device,
                                              .arg = e->offset,
                                              .attempt = e->frame->catchup,
                                              .hop = e->frame->what == FRAME_MSG ? HOP_SERVER_PUSH
                                                                                 : HOP_SERVER_ACCEPTED});
    if (s->state == SESSION_CLOSING)
        return;
    delivery_written(&n->delivery, s, e->frame->len);
}

void node_read_done(struct node *n, struct read_job *job)
{
    if (node_bus_read_done(n, job)) {
        /* asked by another node */
    } else if (job->kind == READ_DEDUP) {
        accept_read_done(&n->accept, job);
    } else if (job->kind == READ_RECEIPTS) {
        node_receipts_read_done(n, job);
    } else if (job->kind == READ_OFFER) {
        recover_read_done(&n->recover, job);
    } else if (job->kind == READ_LOG && !job->owner) {
        node_history_done(n, job);
    } else {
        struct session *s = node_session(n, job->owner);
        if (s && s->state != SESSION_CLOSING) {
            if (job->kind == READ_CURSORS)
                node_resumed(n, s, job);
            else if (job->kind == READ_MISSING)
                node_recover_missing(n, s, job);
            else
                delivery_read_done(&n->delivery, s, job);
        }
    }
    read_job_free(job);
}

static void expire(struct node *n, struct session *s, uint64_t silent_ms)
{
    const struct node_config *c = &n->config;
    if (s->state == SESSION_NEW) {
        if (c->hello_timeout_ns && silent_ms * NS_PER_MS >= c->hello_timeout_ns)
            session_end(n, s, CLOSE_HELLO_TIMEOUT, REASON_IDLE);
    } else if (c->idle_timeout_ns && silent_ms * NS_PER_MS >= c->idle_timeout_ns) {
        n->counters.idle_timeouts++;
        session_end(n, s, CLOSE_IDLE, REASON_IDLE);
    }
}

/* Look at some clocks: all of them once a second. */
static void sweep(struct node *n, uint64_t now_ns)
{
    const struct node_config *c = &n->config;
    uint32_t top = slab_top(&n->registry.sessions), now = clock_ms(now_ns), number;
    uint64_t soonest =
        c->hello_timeout_ns && (!c->idle_timeout_ns || c->hello_timeout_ns < c->idle_timeout_ns)
            ? c->hello_timeout_ns
            : c->idle_timeout_ns;
    uint32_t idle_ms = soonest ? (uint32_t)((soonest + NS_PER_MS - 1) / NS_PER_MS) : UINT32_MAX;
    uint32_t ack_ms =
        c->ack_timeout_ns ? (uint32_t)((c->ack_timeout_ns + NS_PER_MS - 1) / NS_PER_MS) : UINT32_MAX;
    uint32_t silence_ms = node_presence_silence_ms(n);
    uint64_t since = now_ns - n->swept_ns < SWEEP_NS ? now_ns - n->swept_ns : SWEEP_NS;
    uint32_t some = (uint32_t)(top * since / SWEEP_NS) + SWEEP_LEAST;
    n->swept_ns = now_ns;
    for (uint32_t k = 0; k < some && k < top; k++) {
        number = n->swept = n->swept < top ? n->swept + 1 : 1;
        const struct session_clock *clock = session_clock(&n->clocks, number);
        if (clock->heard_ms && now - clock->heard_ms >= silence_ms)
            node_presence_silent(n, registry_session(&n->registry, number));
        if (clock->unacked_ms && clock->unacked_ms != CLOCK_GREETING && now - clock->unacked_ms >= ack_ms) {
            n->counters.ack_timeouts++;
            session_end(n, registry_session(&n->registry, number), CLOSE_ACK_TIMEOUT, REASON_ACK_TIMEOUT);
        } else if (clock->heard_ms && now - clock->heard_ms >= idle_ms) {
            expire(n, registry_session(&n->registry, number), now - clock->heard_ms);
        }
    }
}

static void pump_all(struct node *n)
{
    uint32_t at = 0;
    for (struct session *s; (s = node_next_session(n, &at));)
        if (s->state == SESSION_READY)
            delivery_pump(&n->delivery, s);
}

/* A few with each tick: a thousand at once would make the messages of that moment wait for their commit. */
static void save_cursors(struct node *n, uint64_t now)
{
    uint64_t since = now - n->cursors_saved_ns;
    size_t waiting = n->delivery.unsaved_n - n->delivery.unsaved_first, count;
    if (!accept_wants_cursors(&n->accept))
        return;
    if (since < CURSOR_SAVE_NS && (waiting <= CURSORS_FEW || waiting > CURSORS_MANY))
        return;
    n->cursors_saved_ns = now;
    size_t most = since < CURSOR_SAVE_NS ? (size_t)(waiting * since / CURSOR_SAVE_NS) + 1 : waiting;
    most = most < CURSORS_FEW ? CURSORS_FEW : most;
    struct cursor *list =
        delivery_take_cursors(&n->delivery, most < DELIVERY_CURSORS ? most : DELIVERY_CURSORS, &count);
    accept_cursors(&n->accept, list, node_bus_cursors(n, list, count));
}

static void on_tick(struct node *n, uint64_t now)
{
    n->ticked_ns = now;
    sweep(n, now);
    node_bus_tick(n);
    delivery_tick(&n->delivery);
    save_cursors(n, now);
    node_recover_tick(n);
    node_presence_tick(n);
    node_receipts_tick(n);
    if (n->failures_seen != n->counters.read_failures) {
        n->failures_seen = n->counters.read_failures;
        pump_all(n);
    }
}

static void close_all(struct node *n)
{
    uint32_t at = 0;
    for (struct session *s; (s = node_next_session(n, &at));)
        session_end(n, s, CLOSE_SHUTDOWN, REASON_SHUTDOWN);
}

static void on_drain(struct node *n)
{
    n->draining = true;
    struct msg m = {.t = MSG_BYE,
                    .code = SLICE("shutdown"),
                    .text = SLICE("the server is going down; reconnect"),
                    .reconnect = true};
    uint32_t at = 0;
    for (struct session *s; (s = node_next_session(n, &at));)
        if (s->state == SESSION_READY)
            delivery_send(&n->delivery, s, &m);
    size_t count;
    if (accept_wants_cursors(&n->accept)) {
        struct cursor *list = delivery_take_cursors(&n->delivery, DELIVERY_CURSORS, &count);
        accept_cursors(&n->accept, list, node_bus_cursors(n, list, count));
    }
}

void node_fetch(const struct node *n, uint64_t conn)
{
    uint32_t number = (uint32_t)(conn >> 32);
    if (number && number <= slab_top(&n->registry.sessions))
        slab_fetch(&n->registry.sessions, number);
}

uint64_t node_step(struct node *n, const struct node_event *e)
{
    uint64_t conn = 0;
    n->io.now = e->now;
    look_at_time(n, e->now.mono_ns);
    switch (e->kind) {
    case NODE_OPEN:
        conn = on_open(n, e);
        break;
    case NODE_FRAME:
        on_frame(n, e);
        break;
    case NODE_BEATS:
        on_beats(n, e);
        break;
    case NODE_CLOSED:
        on_closed(n, e);
        break;
    case NODE_WRITTEN:
        on_written(n, e);
        break;
    case NODE_COMMITTED:
        accept_committed(&n->accept, e->commit);
        break;
    case NODE_READ_DONE:
        node_read_done(n, e->read);
        break;
    case NODE_TICK:
        on_tick(n, e->now.mono_ns);
        break;
    case NODE_DRAIN:
        if (e->code)
            close_all(n);
        else
            on_drain(n);
        break;
    case NODE_HISTORY:
        node_history(n, e);
        break;
    case NODE_RECONCILE:
        node_reconcile(n, e);
        break;
    case NODE_PRESENCE:
    case NODE_TYPING:
        node_presence_http(n, e);
        break;
    case NODE_RECEIPTS:
        node_receipts_http(n, e);
        break;
    case NODE_BUS:
        node_bus_event(n, e);
        break;
    case NODE_SHARED:
        node_shared_news(n, e->news);
        break;
    case NODE_EVENT_KINDS:
        BUG_ON("no event");
    }
    accept_seal(&n->accept);
    node_bus_flush(n);
    return conn;
}

bool node_idle(const struct node *n)
{
    return accept_idle(&n->accept);
}

void node_reload(struct node *n, const struct node_limits *limits, uint64_t ack_timeout_ns,
                 uint64_t idle_timeout_ns)
{
    n->config.limits = *limits;
    n->config.ack_timeout_ns = ack_timeout_ns;
    n->config.idle_timeout_ns = idle_timeout_ns;
    n->registry.chats_max = limits->chats_max;
    n->delivery.config.queue_bytes_max = limits->queue_bytes;
    n->delivery.config.backlog_max = limits->backlog_max;
    n->delivery.config.slow_ms = n->config.features & DELIVERY_ACK ? limits->slow_ms : 0;
}

void node_stats(const struct node *n, struct node_stats *out)
{
    *out = (struct node_stats){.counters = n->counters,
                               .sessions = n->sessions_n,
                               .sessions_max = n->sessions_max,
                               .users = n->registry.users.live,
                               .chats = n->registry.chats.live,
                               .pending = n->accept.pending_n,
                               .epoch = n->config.epoch,
                               .recover = n->recover.counts,
                               .recover_users = n->recover.users,
                               .recover_users_answered = n->recover.users_answered,
                               .recovering = n->recover.open};
    memcpy(out->sessions_by_net, n->by_net, sizeof out->sessions_by_net);
    memcpy(out->disconnects, n->disconnects, sizeof out->disconnects);
    out->presence_up = n->presence.shared.up;
    node_bus_stats(n, out);
}

void node_stats_add(struct node_stats *to, const struct node_stats *from)
{
#define COUNTER(name, help) to->counters.name += from->counters.name;
#include "core/counters.def"
#undef COUNTER
    to->sessions += from->sessions;
    to->sessions_max += from->sessions_max;
    to->users += from->users;
    to->chats += from->chats;
    to->pending += from->pending;
    to->followed += from->followed;
    to->interests += from->interests;
    to->calls += from->calls;
    for (int net = 0; net < NET_COUNT; net++) {
        to->sessions_by_net[net] += from->sessions_by_net[net];
        for (int r = 0; r < REASON_COUNT; r++)
            to->disconnects[net][r] += from->disconnects[net][r];
    }
}
