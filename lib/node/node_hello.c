/* hello: who is it, where did this device stop, and from where is it served on. */
#include "node/node_bus.h"
#include "util/mutant.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool known_epoch(const struct node *n, uint64_t epoch)
{
    for (size_t i = 0; i < n->lineage_n; i++)
        if (n->lineage[i].epoch == epoch)
            return node_had_epoch(&n->lineage[i]);
    return epoch == n->config.epoch;
}

/* Up to which seq the device knows the chat. Seqs only grow over the epochs of one lineage, so a position of
 * an older epoch still holds; one of an epoch we never had means nothing (the client drops by id what it
 * knows): that one branched off somewhere below our head, and stands above all that we have since. */
static uint64_t position(struct node *n, struct session *s, const struct chat *c, uint64_t epoch,
                         uint64_t seq)
{
    if (node_owns(n, c->id) ? !known_epoch(n, epoch) : !node_bus_known_epoch(n, c->id, epoch))
        return 0;
    if (seq <= node_bus_known_head(n, c->id))
        return seq; /* of another owner's chat we may have applied less than others have */
    if (seq <= c->durable)
        return seq + (MUTANT(RESUME_OFF_BY_ONE) && seq < c->durable);
    n->counters.resume_ahead++;
    if (epoch == n->config.epoch && node_owns(n, c->id))
        node_recover_ahead(n, s, c->id, c->durable + 1, seq);
    return c->durable;
}

static const struct claim *find_claim(struct node *n, struct session *s, uint64_t chat)
{
    const struct session_extra *x = session_extra(&n->registry, s, false);
    for (uint32_t i = 0; x && i < x->claims_n; i++)
        if (x->claims[i].chat == chat)
            return &x->claims[i];
    const struct greeting *g = x && x->claims_n ? NULL : node_bus_greeting(n, s);
    for (uint32_t i = 0; g && i < g->claims_n; i++)
        if (g->claims[i].chat == chat)
            return &g->claims[i];
    return NULL;
}

static void welcome(struct node *n, struct session *s)
{
    const struct node_limits *l = &n->config.limits;
    const struct user *u = session_user(&n->registry, s);
    char name[20];
    snprintf(name, sizeof name, "%llx", (unsigned long long)session_conn(&n->registry, s));
    struct msg m = {.t = MSG_WELCOME,
                    .session = slice_of(name),
                    .epoch = n->config.epoch,
                    .ts = n->io.now.wall_us,
                    .beat_s = n->config.beat_s,
                    .limits = {.body = l->body_max,
                               .batch = PROTO_BATCH_MAX,
                               .rate_per_s = l->rate_per_s,
                               .chats = l->chats_max}};
    struct slice restored = SLICE("restored");
    if (n->recover.open) {
        m.notices = &restored;
        m.notices_n = 1;
    }
    m.resume = calloc(u->chats_n ? u->chats_n : 1, sizeof *m.resume);
    for (uint32_t i = 0; m.resume && i < u->chats_n && m.resume_n < PROTO_CLAIMS_MAX; i++) {
        const struct chat *c = registry_user_chat(&n->registry, u, i);
        if (chat_is_member(c, u->id) && (node_owns(n, c->id) || follow_chat(n, c->id)))
            m.resume[m.resume_n++] = (struct claim){c->id, c->epoch_durable, c->durable};
    }
    delivery_send(&n->delivery, s, &m);
    free(m.resume);
}

static uint64_t first_known(const struct member *m)
{
    return m->from ? m->from - 1 : 0;
}

static void subscribe(struct node *n, struct session *s, struct chat *c, const struct cursor *saved)
{
    const struct member *m = chat_member(c, session_user(&n->registry, s)->id);
    if (!m || m->role == MEMBER_INVITED)
        return;
    const struct claim *claim = find_claim(n, s, c->id);
    uint64_t floor = first_known(m), after = floor;
    bool knows = true;
    if (claim)
        after = position(n, s, c, claim->epoch, claim->seq);
    else if (saved && saved->delivered != UINT64_MAX)
        after = position(n, s, c, saved->epoch, saved->delivered);
    else
        knows = false;
    delivery_subscribe(&n->delivery, s, c, after > floor ? after : floor, !knows || after < floor);
}

static const struct cursor *saved_cursor(const struct read_job *job, uint64_t chat)
{
    for (size_t i = 0; job && i < job->cursors_n; i++)
        if (job->cursors[i].chat == chat)
            return &job->cursors[i];
    return NULL;
}

static const struct cursor *told_cursor(const struct greeting *g, uint64_t chat)
{
    for (uint32_t i = 0; g && i < g->cursors_n; i++)
        if (g->cursors[i].chat == chat)
            return &g->cursors[i];
    return NULL;
}

/* Chats that this epoch is said to have, and of which the store knows nothing. */
static void claims_of_nothing(struct node *n, struct session *s)
{
    const struct session_extra *x = session_extra(&n->registry, s, false);
    for (uint32_t i = 0; x && i < x->claims_n; i++) {
        const struct claim *claim = &x->claims[i];
        const struct chat *c = registry_chat(&n->registry, claim->chat);
        if (node_owns(n, claim->chat) && claim->epoch == n->config.epoch && (!c || !c->epoch))
            node_recover_ahead(n, s, claim->chat, 0, claim->seq);
    }
}

void node_resumed(struct node *n, struct session *s, const struct read_job *job)
{
    if (job && job->rc) { /* serve from what the client claims; a cursor lost costs a redelivery */
        n->counters.read_failures++;
        job = NULL;
    }
    welcome(n, s);
    s->state = SESSION_READY;
    const struct greeting *g = node_bus_greeting(n, s);
    const struct user *u = session_user(&n->registry, s);
    for (uint32_t i = 0; i < u->chats_n; i++) {
        struct chat *c = registry_user_chat(&n->registry, u, i);
        if (node_owns(n, c->id))
            subscribe(n, s, c, saved_cursor(job, c->id));
        else if (!(g && g->missing & bus_bit(node_owner(n, c->id))))
            subscribe(n, s, c, told_cursor(g, c->id));
    }
    claims_of_nothing(n, s);
    node_recover_hello(n, s);
    node_bus_welcomed(n, s);
    session_extra_trim(&n->registry, s);
    delivery_pump(&n->delivery, s);
    node_presence_ready(n, s);
}

void node_resumed_late(struct node *n, struct session *s, uint16_t owner, const struct greeting *g)
{
    const struct user *u = session_user(&n->registry, s);
    for (uint32_t i = 0; i < u->chats_n; i++) {
        struct chat *c = registry_user_chat(&n->registry, u, i);
        if (node_owner(n, c->id) == owner)
            subscribe(n, s, c, told_cursor(g, c->id));
    }
    for (uint32_t i = 0; i < g->said_n; i++) {
        struct chat *c = registry_chat(&n->registry, g->said[i].chat);
        if (!c || node_owner(n, c->id) != owner)
            continue;
        delivery_ack(&n->delivery, s, c, g->said[i].delivered, false);
        delivery_ack(&n->delivery, s, c, g->said[i].read, true);
    }
    delivery_pump(&n->delivery, s);
}

void node_joined(struct node *n, struct chat *c, uint64_t user, uint64_t after)
{
    struct user *u = registry_user(&n->registry, user);
    struct session *s = registry_session(&n->registry, u ? u->sessions : 0);
    for (; s; s = registry_session(&n->registry, s->next_of_user))
        if (s->state == SESSION_READY && !delivery_subscribe(&n->delivery, s, c, after, true))
            delivery_pump(&n->delivery, s);
}

/* Ask the store for the cursors of the chats that hello said nothing about and that anything stands in; true
 * when there are any. */
static bool read_cursors(struct node *n, struct session *s)
{
    const struct user *u = session_user(&n->registry, s);
    uint32_t unknown = 0;
    for (uint32_t i = 0; i < u->chats_n; i++) {
        const struct chat *c = registry_user_chat(&n->registry, u, i);
        unknown += c->durable && node_owns(n, c->id) && !find_claim(n, s, c->id);
    }
    if (!unknown)
        return false;
    struct read_job *job = calloc(1, sizeof *job);
    struct cursor *list = calloc(unknown, sizeof *list);
    if (!job || !list) {
        free(job);
        free(list);
        return false;
    }
    for (uint32_t i = 0; i < u->chats_n; i++) {
        const struct chat *c = registry_user_chat(&n->registry, u, i);
        if (c->durable && node_owns(n, c->id) && !find_claim(n, s, c->id))
            list[job->cursors_n++].chat = c->id;
    }
    job->kind = READ_CURSORS;
    job->owner = session_conn(&n->registry, s);
    job->user = u->id;
    job->device = s->device;
    job->cursors = list;
    struct effect e = {.kind = EFFECT_READ, .read = job};
    n->io.emit(n->io.arg, &e);
    return true;
}

void node_greeted(struct node *n, struct session *s)
{
    if (!(n->config.features & DELIVERY_ACK) || !read_cursors(n, s))
        node_resumed(n, s, NULL);
}

/* A device says hello on a connection only when it is open, and opens the next one after it has left the
 * last: a hello that comes on an older connection than the one that is being served was late on its way, and
 * nobody waits for its answer. */
static bool is_late(const struct node *n, const struct session *s, const struct user *u)
{
    const struct session *o = registry_session(&n->registry, u->sessions);
    for (; o; o = registry_session(&n->registry, o->next_of_user))
        if (o->device == s->device && (int32_t)(o->lane.conn - s->lane.conn) > 0)
            return true;
    return false;
}

/* Join the user's sessions; an older session of the same device is replaced. False: closed. */
static bool enter(struct node *n, struct session *s, struct user *u)
{
    if (is_late(n, s, u)) {
        session_end(n, s, CLOSE_REPLACED, REASON_REPLACED);
        return false;
    }
    uint32_t others = 0;
    for (struct session *o = registry_session(&n->registry, u->sessions), *next; o; o = next) {
        next = registry_session(&n->registry, o->next_of_user);
        others += o->device != s->device;
        if (o->device == s->device)
            session_end(n, o, CLOSE_REPLACED, REASON_REPLACED);
    }
    if (others >= n->config.limits.sessions_per_user) {
        session_end(n, s, CLOSE_TOO_MANY_SESSIONS, REASON_PROTOCOL);
        return false;
    }
    s->user = slab_number(&n->registry.users, u);
    s->state = SESSION_RESUMING;
    s->next_of_user = u->sessions;
    u->sessions = session_number(&n->registry, s);
    *session_clock(&n->clocks, u->sessions) = (struct session_clock){.heard_ms = clock_ms(n->io.now.mono_ns)};
    n->by_net[s->lane.net]++;
    if (++n->sessions_n > n->sessions_max)
        n->sessions_max = n->sessions_n;
    n->counters.sessions++;
    return true;
}

void node_hello(struct node *n, struct session *s, const struct msg *m)
{
    struct token token;
    struct err_ctx err = {0};
    if (s->state != SESSION_NEW) {
        session_error(n, s, PROTO_INVALID, m, 0, "hello was said already");
        return;
    }
    if (n->draining) {
        session_end(n, s, CLOSE_SHUTDOWN, REASON_SHUTDOWN);
        return;
    }
    int rc = 0;
    struct session_extra *x = session_extra(&n->registry, s, false);
    if (x->trusted_user && !m->token.n)
        token = (struct token){.user = x->trusted_user, .expires_s = s->expires_s};
    else
        rc = token_verify(n->config.keys, m->token.p, m->token.n, n->io.now.wall_us / 1000000, &token, &err);
    if (rc || (token.device && token.device != m->device)) {
        bool expired = rc == ERR_TIMEOUT;
        session_error(n, s, expired ? PROTO_TOKEN_EXPIRED : PROTO_UNAUTHENTICATED, m, 0,
                      rc ? err.text : NULL);
        session_end(n, s, expired ? CLOSE_TOKEN_EXPIRED : CLOSE_BAD_TOKEN, REASON_PROTOCOL);
        return;
    }
    char net[16];
    snprintf(net, sizeof net, "%.*s", (int)(m->net.n < 15 ? m->net.n : 15), m->net.n ? m->net.p : "");
    s->lane.net = (uint8_t)net_parse(net);
    s->lane.quiet = !trace_wants(n->io.trace, token.user);
    s->device = m->device;
    s->expires_s = token.expires_s < UINT32_MAX ? (uint32_t)token.expires_s : UINT32_MAX;
    struct user *u = registry_user_make(&n->registry, token.user);
    if (m->resume_n && !(x->claims = malloc(m->resume_n * sizeof *x->claims)))
        u = NULL;
    if (!u) {
        session_end(n, s, CLOSE_OVERLOADED, REASON_PROTOCOL);
        return;
    }
    if (m->resume_n)
        memcpy(x->claims, m->resume, m->resume_n * sizeof *x->claims);
    x->claims_n = m->resume_n;
    if (!enter(n, s, u))
        return;
    struct trace_event open = {.user = u->id,
                               .device = s->device,
                               .arg = x->flow.tcp_seq,
                               .hop = HOP_SOCKET_OPEN,
                               .reason = s->lane.net};
    struct trace_flow flow = x->flow;
    flow.tcp_seq = 0;
    memcpy(&open.id, &flow, sizeof open.id);
    trace_lane_emit(n->io.trace, &s->lane, &open);
    if (!node_bus_greet(n, s))
        node_greeted(n, s);
}
