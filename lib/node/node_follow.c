/* What this node asks of other owners, and what it makes of what they tell: followed chats. */
#include "node/node_bus.h"
#include "util/mutant.h"

#include <stdlib.h>
#include <string.h>

#define REFRESH_NS   (10 * NS_PER_S)
#define REFRESH_TICK 500u /* a round of the followed chats takes so many ticks of 20 ms */
#define WANTED_NS    (10 * NS_PER_S)
#define FILL_PAGE    500u
#define FILL_BYTES   (1u << 20)

/* A client's question on its way. */
struct asked {
    uint64_t conn, user, chat;
    struct id id;
    uint8_t op; /* enum entry_op */
};

struct follow *follow_chat(const struct node *n, uint64_t chat)
{
    return n->bus ? map_get_u64(&n->bus->followed, chat) : NULL;
}

uint64_t node_bus_known_head(const struct node *n, uint64_t chat)
{
    const struct follow *f = follow_chat(n, chat);
    return f ? f->known : 0;
}

bool node_bus_known_epoch(const struct node *n, uint64_t chat, uint64_t epoch)
{
    if (node_owns(n, chat))
        return false;
    const struct node_peer *p = &n->bus->peers[node_owner(n, chat)];
    for (uint32_t i = 0; i < p->epochs_n; i++)
        if (p->epochs[i] == epoch)
            return true;
    return false;
}

static void say_interest(struct node *n, uint16_t to, const struct chat *c)
{
    size_t mark;
    struct buf *out = bus_begin(n->bus, to, WIRE_INTEREST, &mark);
    put_u32(out, 1);
    put_u64(out, c->id);
    put_u64(out, c->durable);
    bus_end(n, to, mark);
}

static void say_drop(struct node *n, uint16_t to, uint64_t chat)
{
    size_t mark;
    struct buf *out = bus_begin(n->bus, to, WIRE_DROP, &mark);
    put_u64(out, chat);
    bus_end(n, to, mark);
}

/* ---- requests of clients ---- */

static void refuse(struct node *n, const struct asked *a, enum proto_error code, uint32_t retry_ms)
{
    struct pending p = {.e = {.chat = a->chat, .sender = a->user, .id = a->id, .op = a->op}};
    node_accept_ops.refused(n, a->conn, &p, code, retry_ms);
}

static void refuse_unavailable(struct node *n, const struct asked *a)
{
    n->counters.shard_unavailable++;
    refuse(n, a, PROTO_SHARD_UNAVAILABLE, 1000);
}

bool node_bus_request(struct node *n, struct session *s, const struct msg *m)
{
    if (node_owns(n, m->chat))
        return false;
    static const struct {
        enum msg_type t;
        enum entry_op op;
    } ops[] = {{MSG_SEND, ENTRY_MESSAGE}, {MSG_CREATE, ENTRY_CREATE}, {MSG_JOIN, ENTRY_JOIN},
               {MSG_LEAVE, ENTRY_LEAVE},  {MSG_INVITE, ENTRY_INVITE}, {MSG_REMOVE, ENTRY_REMOVE}};
    struct asked a = {.conn = session_conn(&n->registry, s),
                      .user = session_user(&n->registry, s)->id,
                      .chat = m->chat,
                      .id = m->id};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (ops[i].t == m->t)
            a.op = (uint8_t)ops[i].op;
    struct buf *b = &n->bus->body;
    buf_reset(b);
    put_u64(b, a.conn);
    put_u64(b, a.user);
    proto_encode_as(b, PROTO_BIN, m);
    struct asked *about = malloc(sizeof *about);
    struct bus_call *call = about ? bus_ask(n, node_owner(n, m->chat), CALL_REQUEST, 2 * NS_PER_S) : NULL;
    if (!call) {
        free(about);
        refuse_unavailable(n, &a);
        return true;
    }
    *about = a;
    call->about = about;
    return true;
}

static void request_replied(struct node *n, const struct asked *a, struct wire_reader *r)
{
    struct known k = {.sender = a->user, .id = a->id, .chat = a->chat};
    struct pending p = {.e = {.chat = a->chat, .sender = a->user, .id = a->id, .op = a->op}};
    uint8_t what = wire_u8(r);
    if (what == ANSWER_ACCEPTED) {
        bool dup = wire_u8(r) != 0;
        k.epoch = wire_u64(r);
        k.seq = wire_u64(r);
        k.ts_us = wire_u64(r);
        wire_copy(r, k.tag, sizeof k.tag);
        if (!r->failed)
            node_accept_ops.accepted(n, a->conn, &k, dup);
    } else if (what == ANSWER_DONE) {
        node_accept_ops.done(n, a->conn, &p);
    } else {
        uint8_t code = wire_u8(r);
        uint32_t retry_ms = wire_u32(r);
        if (!r->failed && code < PROTO_ERROR_COUNT)
            refuse(n, a, (enum proto_error)code, retry_ms);
        else
            r->failed = true;
    }
    if (r->failed)
        refuse_unavailable(n, a);
}

bool node_bus_history(struct node *n, const struct node_event *e, uint64_t user)
{
    if (node_owns(n, e->chat))
        return false;
    struct read_job *job = calloc(1, sizeof *job);
    struct buf *b = &n->bus->body;
    buf_reset(b);
    put_u64(b, e->chat);
    put_u64(b, user);
    put_u64(b, e->after);
    put_u64(b, UINT64_MAX);
    put_u64(b, 0);
    put_u32(b, e->limit);
    put_u32(b, 1u << 20);
    struct bus_call *call = job ? bus_ask(n, node_owner(n, e->chat), CALL_HISTORY, 5 * NS_PER_S) : NULL;
    if (!call) {
        free(job);
        node_http_error(n, e->request, 503, PROTO_SHARD_UNAVAILABLE);
        return true;
    }
    *job = (struct read_job){.kind = READ_LOG, .chat = e->chat, .after = e->after, .user = e->request};
    call->about = job;
    return true;
}

/* ---- entries ---- */

/* The user a membership entry is about: {"user":"8"}. */
static uint64_t target_of(const struct entry *e)
{
    static const char head[] = "{\"user\":\"";
    uint64_t v = 0;
    if (e->body_len < sizeof head || memcmp(e->body, head, sizeof head - 1))
        return 0;
    for (const char *p = e->body + sizeof head - 1; p < e->body + e->body_len && *p >= '0' && *p <= '9'; p++)
        v = v * 10 + (uint64_t)(*p - '0');
    return v;
}

static bool is_here(const struct node *n, uint64_t user)
{
    const struct user *u = registry_user(&n->registry, user);
    return u && u->sessions;
}

static void added(struct node *n, struct chat *c, uint64_t user, uint64_t from, enum member_role role,
                  uint64_t knows)
{
    if (is_here(n, user) && !registry_member_set(&n->registry, c, user, from, role))
        node_joined(n, c, user, knows);
}

/* The next entry of a followed chat. What it does to members it does to those who are online here. */
static void apply(struct node *n, struct chat *c, const struct entry *e, uint64_t origin)
{
    if (e->epoch != c->epoch_durable)
        c->epoch_first = e->seq;
    c->epoch = c->epoch_durable = e->epoch;
    c->head = c->durable = e->seq;
    uint64_t target = e->op == ENTRY_MESSAGE ? 0 : target_of(e);
    if (e->op == ENTRY_JOIN) {
        node_receipts_joined(n, c, target, e->seq);
        added(n, c, target, e->seq, MEMBER_PLAIN, e->seq - 1);
    }
    delivery_fan_out_quietly(&n->delivery, c, e, origin);
    node_receipts_entry(n, c, e);
    if (e->op == ENTRY_LEAVE || e->op == ENTRY_REMOVE)
        node_drop_member_quietly(n, c, target);
}

static void fill(struct node *n, struct chat *c, struct follow *f)
{
    struct read_job *job = f->filling ? NULL : calloc(1, sizeof *job);
    if (!job)
        return;
    *job = (struct read_job){.kind = READ_LOG, .chat = c->id, .after = c->durable, .upto = f->known};
    struct buf *b = &n->bus->body;
    buf_reset(b);
    put_u64(b, c->id);
    put_u64(b, 0);
    put_u64(b, job->after);
    put_u64(b, job->upto);
    put_u64(b, 0);
    put_u32(b, FILL_PAGE);
    put_u32(b, FILL_BYTES);
    struct bus_call *call = bus_ask(n, node_owner(n, c->id), CALL_FILL, 3 * NS_PER_S);
    if (!call) {
        free(job); /* the owner is down: when it is back we tell it how far we are */
        return;
    }
    call->about = job;
    f->filling = 1;
}

void follow_note_head(struct node *n, struct chat *c, struct follow *f, uint64_t seq)
{
    if (seq > f->known)
        f->known = seq;
    if (f->known > c->durable)
        fill(n, c, f);
}

void follow_filled(struct node *n, struct read_job *job)
{
    struct follow *f = follow_chat(n, job->chat);
    struct chat *c = registry_chat(&n->registry, job->chat);
    if (!f || !c)
        return;
    f->filling = 0;
    if (job->rc)
        return; /* the next head tries again */
    for (size_t i = 0; i < job->entries.n; i++)
        if (job->entries.list[i].seq > c->durable)
            apply(n, c, &job->entries.list[i], 0);
    if (!job->entries.n && job->upto > c->durable)
        c->head = c->durable = job->upto; /* the log holds nothing up to there */
    if (f->known > c->durable && (job->entries.n || job->upto >= f->known))
        fill(n, c, f);
}

void follow_entry(struct node *n, uint16_t from, struct wire_reader *r)
{
    struct entry e;
    uint64_t origin = wire_u64(r);
    wire_entry(r, &e);
    if (r->failed || node_owner(n, e.chat) != from)
        return;
    struct follow *f = follow_chat(n, e.chat);
    struct chat *c = registry_chat(&n->registry, e.chat);
    if (!f || !c) {
        if (!n->bus->greetings.count) /* else an answer that names it may be on its way */
            say_drop(n, from, e.chat);
        return;
    }
    trace_emit(n->io.trace,
               &(struct trace_event){
                   .id = e.id, .chat = e.chat, .user = e.sender, .arg = e.seq, .hop = HOP_BUS_RECEIVE});
    if (e.seq <= c->durable)
        return;
    if (e.seq != c->durable + 1 && !MUTANT(BUS_HOLE_IGNORED)) {
        n->counters.bus_holes++;
        trace_emit(n->io.trace,
                   &(struct trace_event){.chat = e.chat, .arg = c->durable + 1, .hop = HOP_BUS_HOLE});
        follow_note_head(n, c, f, e.seq);
        return;
    }
    if (e.seq > f->known)
        f->known = e.seq;
    apply(n, c, &e, origin);
}

void follow_head(struct node *n, struct wire_reader *r)
{
    uint64_t chat = wire_u64(r), epoch = wire_u64(r), seq = wire_u64(r);
    struct follow *f = follow_chat(n, chat);
    struct chat *c = registry_chat(&n->registry, chat);
    (void)epoch;
    if (r->failed || !f || !c)
        return;
    n->counters.bus_holes += seq > c->durable && !f->filling;
    follow_note_head(n, c, f, seq);
}

struct follow *follow_begin(struct node *n, struct chat *c, uint64_t epoch, uint64_t durable, uint64_t first)
{
    bool fresh;
    struct follow *f = map_put_u64(&n->bus->followed, c->id, &fresh);
    if (!f)
        return NULL;
    f->wanted_ns = n->io.now.mono_ns;
    if (!fresh) {
        follow_note_head(n, c, f, durable);
        return f;
    }
    c->epoch = c->epoch_durable = epoch;
    c->head = c->durable = f->known = durable;
    c->epoch_first = first;
    return f;
}

void follow_members(struct node *n, uint16_t from, struct wire_reader *r)
{
    struct node_peer *p = &n->bus->peers[from];
    uint64_t version = wire_u64(r), chat = wire_u64(r), epoch = wire_u64(r), seq = wire_u64(r),
             first = wire_u64(r), knows = wire_u64(r), creator = wire_u64(r);
    uint32_t count = wire_count(r, 8);
    if (r->failed || node_owner(n, chat) != from || version <= p->version)
        return;
    if (version == p->version + 1)
        p->version = version;
    else
        p->astray = true;
    if (follow_chat(n, chat))
        return; /* its log tells */
    struct chat *c = NULL;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t user = wire_u64(r);
        if (!is_here(n, user))
            continue;
        if (!c && (!(c = registry_chat_make(&n->registry, chat)) || !follow_begin(n, c, epoch, seq, first))) {
            p->astray = true;
            return;
        }
        added(n, c, user, seq, user == creator ? MEMBER_ADMIN : MEMBER_PLAIN, knows);
    }
    if (c)
        say_interest(n, from, c);
}

/* ---- replies ---- */

static const int page_rc[] = {0, ERR_TIMEOUT, ERR_NOTFOUND};

void follow_page(struct node *n, struct read_job *job, struct wire_reader *r)
{
    uint8_t rc = wire_u8(r);
    uint64_t after = wire_u64(r), upto = wire_u64(r);
    uint32_t count = wire_count(r, WIRE_ENTRY_LEAST - 16);
    (void)n;
    job->rc = r->failed || rc > 2 ? ERR_TIMEOUT : page_rc[rc];
    for (uint32_t i = 0; i < count && !job->rc; i++) {
        struct entry e;
        wire_entry(r, &e);
        if (r->failed || !log_entries_add(&job->entries, &e))
            job->rc = ERR_TIMEOUT;
    }
    log_entries_settle(&job->entries);
    if (job->rc)
        return;
    job->after = after;
    job->upto = upto;
}

static void log_over(struct node *n, struct read_job *job, uint8_t what)
{
    if (what == CALL_LOG) {
        if (job->rc)
            job->rc = ERR_TIMEOUT; /* positions wait until the owner is heard again */
        node_read_done(n, job);
        return;
    }
    if (what == CALL_FILL)
        follow_filled(n, job);
    else if (job->rc)
        node_http_error(n, job->user, job->rc == ERR_NOTFOUND ? 404 : 503,
                        job->rc == ERR_NOTFOUND ? PROTO_NO_SUCH_CHAT : PROTO_SHARD_UNAVAILABLE);
    else
        node_history_done(n, job);
    read_job_free(job);
}

/* Cursors on their way to their owner. */
struct cursors_sent {
    uint32_t n;
    struct cursor list[];
};

/* They did not get there: they go again with the next. */
static void cursors_back(struct node *n, struct cursors_sent *sent)
{
    for (uint32_t i = 0; i < sent->n; i++)
        delivery_add_cursor(&n->delivery, &sent->list[i]);
    free(sent);
}

void follow_replied(struct node *n, struct bus_call *call, struct wire_reader *r)
{
    switch (call->what) {
    case CALL_REQUEST:
        request_replied(n, call->about, r);
        free(call->about);
        break;
    case CALL_MEMBERS: {
        uint64_t conn = *(uint64_t *)call->about;
        free(call->about);
        greet_replied(n, call->to, conn, r);
        break;
    }
    case CALL_RECEIPTS:
        node_receipts_replied(n, call->about, r);
        break;
    case CALL_READERS:
        node_readers_replied(n, call->about, r);
        break;
    case CALL_CURSORS:
        free(call->about);
        break;
    default:
        follow_page(n, call->about, r);
        log_over(n, call->about, call->what);
    }
}

void follow_unanswered(struct node *n, struct bus_call *call)
{
    switch (call->what) {
    case CALL_REQUEST:
        refuse_unavailable(n, call->about);
        free(call->about);
        break;
    case CALL_MEMBERS: {
        uint64_t conn = *(uint64_t *)call->about;
        free(call->about);
        greet_unanswered(n, call->to, conn);
        break;
    }
    case CALL_RECEIPTS:
        node_receipts_replied(n, call->about, NULL);
        break;
    case CALL_READERS:
        node_readers_replied(n, call->about, NULL);
        break;
    case CALL_CURSORS:
        cursors_back(n, call->about);
        break;
    default:
        ((struct read_job *)call->about)->rc = ERR_TIMEOUT;
        log_over(n, call->about, call->what);
    }
}

void follow_step_over(struct node *n)
{
    struct node_bus *b = n->bus;
    while (b->failed_n)
        node_read_done(n, b->failed[--b->failed_n]);
}

/* ---- peers and time ---- */

/* What this owner should know of the chats we follow; and what had to wait for it goes on. */
static void name_chat(struct node *n, struct chat *c, struct follow *f, uint16_t owner)
{
    say_interest(n, owner, c);
    if (!n->bus->peers[owner].seen.up)
        return;
    if (f->known > c->durable)
        fill(n, c, f);
    delivery_revive(&n->delivery, c);
}

void follow_peer_up(struct node *n, uint16_t peer, bool fresh)
{
    struct node_bus *b = n->bus;
    struct node_peer *p = &b->peers[peer];
    size_t at = 0;
    const void *key;
    void *v;
    if (fresh) {
        p->version = p->version_said = 0;
        p->astray = true;
        node_receipts_owner_up(n, peer);
    }
    while (map_next(&b->followed, &at, &key, &v)) {
        uint64_t chat = *(const uint64_t *)key;
        struct chat *c = node_owner(n, chat) == peer ? registry_chat(&n->registry, chat) : NULL;
        if (c)
            name_chat(n, c, v, peer);
        if (c && fresh) /* the last it was told may be lost */
            delivery_note_chat(&n->delivery, c);
    }
    greet_again(n, peer);
}

/* The owner's store began a new epoch: it may know less than we have pushed. Its members start over, with
 * what they know themselves. */
static void start_over(struct node *n, uint16_t owner)
{
    struct node_bus *b = n->bus;
    size_t at = 0;
    const void *key;
    void *v;
    while (map_next(&b->followed, &at, &key, &v)) {
        uint64_t chat = *(const uint64_t *)key;
        struct chat *c = node_owner(n, chat) == owner ? registry_chat(&n->registry, chat) : NULL;
        while (c && c->subs_n) {
            struct sub *sub = registry_sub(&n->registry, c->subs[0]);
            session_end(n, registry_session(&n->registry, sub->session), CLOSE_SHUTDOWN, REASON_SHUTDOWN);
        }
        if (c) /* nobody is here: it is forgotten, and asked for anew */
            ((struct follow *)v)->wanted_ns = 0;
    }
}

void follow_beat(struct node *n, uint16_t from, struct wire_reader *r)
{
    struct node_peer *p = &n->bus->peers[from];
    uint64_t version = wire_u64(r), epoch = wire_u64(r);
    if (r->failed)
        return;
    p->version_said = version;
    bool other = p->store_epoch && p->store_epoch != epoch;
    p->store_epoch = epoch;
    if (other)
        start_over(n, from);
    if ((p->astray || p->version_said > p->version) && !p->resyncs)
        greet_resync(n, from);
}

/* Some of the followed chats: all of them every ten seconds. Those that nobody here wants any more go. */
void follow_tick(struct node *n)
{
    struct node_bus *b = n->bus;
    uint64_t now = n->io.now.mono_ns, gone[256];
    size_t gone_n = 0, at = b->turn_ns, some = b->followed.cap / REFRESH_TICK + 64, end = at + some;
    const void *key;
    void *v;
    while (at < end && gone_n < 256 && map_next(&b->followed, &at, &key, &v)) {
        uint64_t chat = *(const uint64_t *)key;
        struct follow *f = v;
        struct chat *c = registry_chat(&n->registry, chat);
        if (now - f->wanted_ns < WANTED_NS && f->wanted_ns)
            continue;
        uint16_t owner = node_owner(n, chat);
        if (!c || !c->subs_n) {
            gone[gone_n++] = chat;
            say_drop(n, owner, chat);
            continue;
        }
        f->wanted_ns = now;
        name_chat(n, c, f, owner);
    }
    b->turn_ns = at >= end || gone_n == 256 ? at : 0;
    for (size_t i = 0; i < gone_n; i++)
        map_del_u64(&b->followed, gone[i]);
    for (uint16_t i = 0; now - b->period_greet_ns >= NS_PER_S && i < b->nodes; i++)
        if (i != b->self && b->peers[i].seen.up)
            greet_again(n, i);
    if (now - b->period_greet_ns >= NS_PER_S)
        b->period_greet_ns = now;
}

static void send_cursors(struct node *n, uint16_t to, const struct cursor *list, size_t count, uint32_t some)
{
    struct buf *b = &n->bus->body;
    struct cursors_sent *sent = malloc(sizeof *sent + some * sizeof *sent->list);
    if (!sent)
        return; /* a redelivery, and a receipt that waits for the next one */
    sent->n = 0;
    buf_reset(b);
    put_u32(b, some);
    for (size_t i = 0; i < count; i++) {
        if (node_owner(n, list[i].chat) != to)
            continue;
        put_cursor(b, &list[i]);
        sent->list[sent->n++] = list[i];
    }
    struct bus_call *call = bus_ask(n, to, CALL_CURSORS, 3 * NS_PER_S);
    if (call)
        call->about = sent;
    else
        cursors_back(n, sent);
}

size_t node_bus_cursors(struct node *n, struct cursor *list, size_t count)
{
    struct node_bus *b = n->bus;
    if (!b)
        return count;
    for (uint16_t to = 0; to < b->nodes; to++) {
        uint32_t some = 0;
        for (size_t i = 0; i < count; i++)
            some += node_owner(n, list[i].chat) == to;
        if (to == b->self || !some)
            continue;
        send_cursors(n, to, list, count, some);
    }
    size_t ours = 0;
    for (size_t i = 0; i < count; i++)
        if (node_owns(n, list[i].chat))
            list[ours++] = list[i];
    return ours;
}
