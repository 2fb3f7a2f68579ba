/* What others ask of the chats that this node owns, and what it tells them. */
#include "node/node_bus.h"
#include "util/mutant.h"

#include <stdlib.h>
#include <string.h>

#define PERIOD_NS                                                                                            \
    (15 * NS_PER_S) /* interest that was not heard of in one whole period, and a part, is over */
#define AGAIN_NS   (NS_PER_S / 2) /* heads are published again after it, and after twice more */
#define PAGE_MAX   1000u
#define PAGE_BYTES (1u << 20)
#define USERS_MAX  1024u /* asked about in one call */

/* ---- answers ---- */

static struct answer *answer_of(struct node *n, uint64_t conn)
{
    uint32_t number = (uint32_t)conn;
    if (!n->bus || !(conn & BUS_CONN) || !number || number > slab_top(&n->bus->answers))
        return NULL;
    struct answer *a = slab_at(&n->bus->answers, number);
    return a->what ? a : NULL;
}

static struct answer *answer_new(struct node *n, uint16_t from, uint64_t id, enum wire_call what)
{
    struct answer *a = slab_take(&n->bus->answers);
    if (!a)
        return NULL;
    a->id = id;
    a->node = from;
    a->what = (uint8_t)what;
    return a;
}

static uint64_t answer_conn(struct node *n, const struct answer *a)
{
    return BUS_CONN | slab_number(&n->bus->answers, a);
}

/* Its number is free again when the step is over. */
static void answer_over(struct node *n, struct answer *a)
{
    a->next = n->bus->answered;
    n->bus->answered = slab_number(&n->bus->answers, a);
    a->what = 0;
}

void owner_reply(struct node *n, uint16_t to, uint64_t id, const struct buf *body)
{
    size_t mark;
    if (body->failed)
        return; /* asked again, and in the end given up */
    struct buf *out = bus_begin(n->bus, to, WIRE_REPLY, &mark);
    put_u64(out, id);
    buf_add(out, body->data, body->len);
    bus_end(n, to, mark);
}

bool node_bus_accepted(struct node *n, uint64_t conn, const struct known *k, bool dup)
{
    if (!(conn & BUS_CONN))
        return false;
    struct answer *a = answer_of(n, conn);
    if (!a)
        return true;
    struct buf *b = &n->bus->reply;
    buf_reset(b);
    put_u8(b, ANSWER_ACCEPTED);
    put_u8(b, dup);
    put_u64(b, k->epoch);
    put_u64(b, k->seq);
    put_u64(b, k->ts_us);
    buf_add(b, k->tag, sizeof k->tag);
    owner_reply(n, a->node, a->id, b);
    answer_over(n, a);
    return true;
}

bool node_bus_done(struct node *n, uint64_t conn, const struct pending *p)
{
    (void)p;
    if (!(conn & BUS_CONN))
        return false;
    struct answer *a = answer_of(n, conn);
    if (!a)
        return true;
    buf_reset(&n->bus->reply);
    put_u8(&n->bus->reply, ANSWER_DONE);
    owner_reply(n, a->node, a->id, &n->bus->reply);
    answer_over(n, a);
    return true;
}

bool node_bus_refused(struct node *n, uint64_t conn, enum proto_error code, uint32_t retry_ms)
{
    if (!(conn & BUS_CONN))
        return false;
    struct answer *a = answer_of(n, conn);
    if (!a)
        return true;
    struct buf *b = &n->bus->reply;
    buf_reset(b);
    if (a->again && a->op == MSG_LEAVE && code == PROTO_NOT_MEMBER) {
        put_u8(b, ANSWER_DONE); /* said before, and the first reply was lost: it has left */
    } else {
        put_u8(b, ANSWER_REFUSED);
        put_u8(b, (uint8_t)code);
        put_u32(b, retry_ms);
    }
    owner_reply(n, a->node, a->id, b);
    answer_over(n, a);
    return true;
}

void owner_step_over(struct node *n)
{
    struct node_bus *b = n->bus;
    while (b->answered) {
        struct answer *a = slab_at(&b->answers, b->answered);
        b->answered = a->next;
        slab_give(&b->answers, a);
    }
}

/* ---- interest ---- */

static struct interest *interest_in(struct node_bus *b, uint64_t chat)
{
    return map_get_u64(&b->interest, chat);
}

static void interest_add(struct node *n, uint64_t chat, uint16_t node)
{
    struct interest *i = map_put_u64(&n->bus->interest, chat, NULL);
    if (!i)
        return; /* no memory: it is named again */
    i->nodes |= bus_bit(node);
    i->fresh |= bus_bit(node);
}

static void say_head(struct node *n, uint16_t to, const struct chat *c)
{
    size_t mark;
    if (MUTANT(HEAD_NOT_REPUBLISHED))
        return;
    struct buf *out = bus_begin(n->bus, to, WIRE_HEAD, &mark);
    put_u64(out, c->id);
    put_u64(out, c->epoch_durable);
    put_u64(out, c->durable);
    bus_end(n, to, mark);
    n->counters.bus_heads++;
}

void owner_interest(struct node *n, uint16_t from, struct wire_reader *r)
{
    for (uint32_t k = wire_count(r, 16); k && !r->failed; k--) {
        uint64_t chat = wire_u64(r), seq = wire_u64(r);
        const struct chat *c = node_owns(n, chat) ? registry_chat(&n->registry, chat) : NULL;
        if (r->failed || !c || !c->epoch)
            continue;
        interest_add(n, chat, from);
        if (c->durable > seq)
            say_head(n, from, c);
    }
}

void owner_drop(struct node *n, uint16_t from, struct wire_reader *r)
{
    struct interest *i = interest_in(n->bus, wire_u64(r));
    if (!i || r->failed)
        return;
    i->nodes &= ~bus_bit(from);
    i->fresh &= ~bus_bit(from);
}

/* Chats that nobody has named for a while. */
static void forget_old_interest(struct node *n)
{
    struct node_bus *b = n->bus;
    size_t at = 0, gone_n = 0, cap = 1024;
    const void *key;
    void *v;
    uint64_t *gone = malloc(cap * sizeof *gone);
    while (map_next(&b->interest, &at, &key, &v)) {
        struct interest *i = v;
        i->nodes = i->fresh;
        i->fresh = 0;
        if (!i->nodes && !i->again && gone && gone_n < cap)
            memcpy(&gone[gone_n++], key, sizeof *gone);
    }
    for (size_t k = 0; k < gone_n; k++)
        map_del_u64(&b->interest, gone[k]);
    free(gone);
}

/* ---- publishing ---- */

static void publish_again(struct node_bus *b, struct interest *i, const struct again *a)
{
    if (b->again_first + b->again_n == b->again_cap) {
        size_t cap = b->again_n * 2 < 256 ? 256 : b->again_n * 2;
        struct again *list = malloc(cap * sizeof *list);
        if (!list)
            return; /* named again by those who are interested, every 10 s */
        if (b->again_n)
            memcpy(list, b->again + b->again_first, b->again_n * sizeof *list);
        free(b->again);
        b->again = list;
        b->again_first = 0;
        b->again_cap = cap;
    }
    b->again[b->again_first + b->again_n++] = *a;
    i->again = 1;
}

static void say_entry(struct node *n, uint16_t to, const struct entry *e, const struct answer *origin)
{
    size_t mark;
    struct buf *out = bus_begin(n->bus, to, WIRE_ENTRY, &mark);
    put_u64(out, origin && origin->node == to ? origin->conn : 0);
    put_entry(out, e);
    bus_end(n, to, mark);
    n->counters.bus_hints++;
}

/* Who was added: to everybody, since a user may be online where nobody follows the chat yet. */
static void say_members(struct node *n, const struct chat *c, const struct pending *p)
{
    struct node_bus *b = n->bus;
    bool create = p->e.op == ENTRY_CREATE;
    b->version++;
    for (uint16_t to = 0; to < b->nodes; to++) {
        size_t mark;
        if (to == b->self)
            continue;
        struct buf *out = bus_begin(b, to, WIRE_MEMBERS, &mark);
        put_u64(out, b->version);
        put_u64(out, c->id);
        put_u64(out, c->epoch_durable);
        put_u64(out, p->e.seq);
        put_u64(out, c->epoch_first);
        put_u64(out, create ? p->e.seq : p->e.seq - 1); /* what they know already */
        put_u64(out, create ? p->e.sender : 0);
        put_u32(out, create ? p->users_n : 1);
        for (uint32_t i = 0; i < (create ? p->users_n : 1); i++)
            put_u64(out, create ? p->users[i] : p->target);
        bus_end(n, to, mark);
    }
}

void node_bus_publish(struct node *n, const struct chat *c, const struct pending *p)
{
    struct node_bus *b = n->bus;
    if (!b)
        return;
    struct interest *i = interest_in(b, c->id);
    const struct answer *origin = NULL;
    if (p->conn & BUS_CONN && (uint32_t)p->conn && (uint32_t)p->conn <= slab_top(&b->answers))
        origin = slab_at(&b->answers, (uint32_t)p->conn); /* answered in this step */
    if (i && i->nodes && p->e.op != ENTRY_CREATE) {
        trace_emit(
            n->io.trace,
            &(struct trace_event){
                .id = p->e.id, .chat = c->id, .user = p->e.sender, .arg = p->e.seq, .hop = HOP_BUS_PUBLISH});
        for (uint16_t to = 0; to < b->nodes; to++)
            if (i->nodes & bus_bit(to))
                say_entry(n, to, &p->e, origin);
        if (!i->again)
            publish_again(
                b, i,
                &(struct again){
                    .chat = c->id, .due_ns = n->io.now.mono_ns + AGAIN_NS, .durable = p->e.seq, .left = 2});
    }
    if (p->e.op == ENTRY_CREATE || p->e.op == ENTRY_JOIN)
        say_members(n, c, p);
}

void node_bus_head(struct node *n, const struct chat *c)
{
    struct interest *i = n->bus ? interest_in(n->bus, c->id) : NULL;
    for (uint16_t to = 0; i && to < n->bus->nodes; to++)
        if (i->nodes & bus_bit(to))
            say_head(n, to, c);
    if (i && i->nodes && !i->again)
        publish_again(
            n->bus, i,
            &(struct again){
                .chat = c->id, .due_ns = n->io.now.mono_ns + AGAIN_NS, .durable = c->durable, .left = 2});
}

/* A head is published again half a second after it was found, and again; one that moves stays in the queue.
 */
static void heads_again(struct node *n)
{
    struct node_bus *b = n->bus;
    while (b->again_n && b->again[b->again_first].due_ns <= n->io.now.mono_ns) {
        struct again a = b->again[b->again_first++];
        b->again_n--;
        const struct chat *c = registry_chat(&n->registry, a.chat);
        struct interest *i = interest_in(b, a.chat);
        if (!i || !c)
            continue;
        i->again = 0;
        for (uint16_t to = 0; to < b->nodes; to++)
            if (i->nodes & bus_bit(to))
                say_head(n, to, c);
        if (c->durable != a.durable)
            a.left = 2;
        else
            a.left--;
        a.durable = c->durable;
        a.due_ns = n->io.now.mono_ns + AGAIN_NS;
        if (a.left)
            publish_again(b, i, &a);
    }
}

void owner_tick(struct node *n)
{
    struct node_bus *b = n->bus;
    uint64_t now = n->io.now.mono_ns;
    heads_again(n);
    if (now - b->period_ns >= PERIOD_NS) {
        b->period_ns = now;
        forget_old_interest(n);
    }
}

/* ---- calls ---- */

static void called_request(struct node *n, uint16_t from, uint64_t id, bool again, struct wire_reader *r)
{
    uint64_t conn = wire_u64(r), user = wire_u64(r);
    struct proto_frame f;
    struct msg m;
    if (r->failed || proto_frame_begin_as(&f, PROTO_BIN, r->p, r->left, &n->scratch, NULL) ||
        proto_frame_next(&f, &m, NULL) != 1 || !node_owns(n, m.chat)) {
        r->failed = true;
        return;
    }
    struct answer *a = answer_new(n, from, id, CALL_REQUEST);
    if (!a)
        return;
    a->conn = conn;
    a->op = (uint8_t)m.t;
    a->again = again;
    uint64_t as = answer_conn(n, a);
    if (n->draining)
        node_bus_refused(n, as, PROTO_SHARD_UNAVAILABLE, 1000);
    else if (m.t == MSG_SEND)
        accept_send(&n->accept, as, user, &m);
    else if (m.t >= MSG_CREATE && m.t <= MSG_REMOVE)
        accept_member(&n->accept, as, user, &m);
    else
        node_bus_refused(n, as, PROTO_INVALID, 0);
}

static void put_lineage(struct buf *b, const struct node *n)
{
    uint32_t had = 0;
    for (size_t i = 0; i < n->lineage_n; i++)
        had += node_had_epoch(&n->lineage[i]);
    put_u64(b, n->bus->version);
    put_u32(b, had + 1);
    put_u64(b, n->config.epoch);
    for (size_t i = 0; i < n->lineage_n; i++)
        if (node_had_epoch(&n->lineage[i]))
            put_u64(b, n->lineage[i].epoch);
}

/* The user's memberships in our chats; the asker follows these from this moment on. */
static void put_memberships(struct node *n, struct buf *b, uint64_t user, uint16_t from,
                            const struct read_job *cursors)
{
    const struct user *u = registry_user(&n->registry, user);
    uint32_t count = 0;
    put_u64(b, user);
    size_t mark = b->len;
    put_u32(b, 0);
    for (uint32_t i = 0; u && i < u->chats_n; i++) {
        const struct chat *c = registry_user_chat(&n->registry, u, i);
        const struct member *m = node_owns(n, c->id) ? chat_member(c, user) : NULL;
        if (!m || m->role == MEMBER_INVITED)
            continue;
        const struct cursor *at = NULL;
        for (size_t k = 0; cursors && !cursors->rc && k < cursors->cursors_n; k++)
            if (cursors->cursors[k].chat == c->id)
                at = &cursors->cursors[k];
        put_u64(b, c->id);
        put_u64(b, c->epoch_durable);
        put_u64(b, c->durable);
        put_u64(b, c->epoch_first);
        put_u64(b, m->from);
        put_u8(b, (uint8_t)m->role);
        put_u64(b, at ? at->epoch : 0);
        put_u64(b, at ? at->delivered : UINT64_MAX);
        interest_add(n, c->id, from);
        count++;
    }
    for (int i = 0; !b->failed && i < 4; i++)
        b->data[mark + (size_t)i] = (char)(count >> (8 * i));
}

/* What a hello without memory of these chats may begin at stands in the store. */
static bool read_cursors(struct node *n, struct answer *a, uint32_t device)
{
    const struct user *u = registry_user(&n->registry, a->user);
    struct read_job *job = u && u->chats_n ? calloc(1, sizeof *job) : NULL;
    struct cursor *list = job ? calloc(u->chats_n, sizeof *list) : NULL;
    if (!list) {
        free(job);
        return false;
    }
    for (uint32_t i = 0; i < u->chats_n; i++) {
        const struct chat *c = registry_user_chat(&n->registry, u, i);
        if (c->durable && node_owns(n, c->id))
            list[job->cursors_n++].chat = c->id;
    }
    job->kind = READ_CURSORS;
    job->owner = answer_conn(n, a);
    job->user = a->user;
    job->device = device;
    job->cursors = list;
    struct effect e = {.kind = EFFECT_READ, .read = job};
    n->io.emit(n->io.arg, &e);
    return true;
}

static void called_members(struct node *n, uint16_t from, uint64_t id, struct wire_reader *r)
{
    struct buf *b = &n->bus->reply;
    uint64_t device = wire_u64(r);
    uint32_t count = wire_count(r, 8);
    if (r->failed || !count || count > USERS_MAX || (device != UINT64_MAX && count != 1)) {
        r->failed = true;
        return;
    }
    struct answer *a = device != UINT64_MAX ? answer_new(n, from, id, CALL_MEMBERS) : NULL;
    if (a) {
        struct wire_reader peek = *r;
        a->user = wire_u64(&peek);
        if (read_cursors(n, a, (uint32_t)device))
            return;
        answer_over(n, a);
    }
    buf_reset(b);
    put_lineage(b, n);
    put_u32(b, count);
    for (uint32_t i = 0; i < count; i++)
        put_memberships(n, b, wire_u64(r), from, NULL);
    owner_reply(n, from, id, b);
}

static void reply_page(struct node *n, uint16_t to, uint64_t id, int rc, const struct read_job *job)
{
    struct buf *b = &n->bus->reply;
    buf_reset(b);
    put_u8(b, rc == ERR_NOTFOUND ? 2 : rc ? 1 : 0);
    put_u64(b, job ? job->after : 0);
    put_u64(b, job ? job->upto : 0);
    put_u32(b, job && !rc ? (uint32_t)job->entries.n : 0);
    for (size_t i = 0; job && !rc && i < job->entries.n; i++)
        put_entry(b, &job->entries.list[i]);
    owner_reply(n, to, id, b);
}

static void called_log(struct node *n, uint16_t from, uint64_t id, enum wire_call what, struct wire_reader *r)
{
    uint64_t chat = wire_u64(r), user = wire_u64(r);
    struct read_job in = {.kind = READ_LOG, .chat = chat, .after = wire_u64(r)};
    in.upto = wire_u64(r);
    in.since_us = wire_u64(r);
    in.limit = wire_u32(r);
    in.bytes_max = wire_u32(r);
    const struct chat *c = node_owns(n, chat) ? registry_chat(&n->registry, chat) : NULL;
    bool checked = what == CALL_HISTORY && user; /* no user: an operator reads it */
    const struct member *m = c && checked ? chat_member(c, user) : NULL;
    if (r->failed)
        return;
    if (!c || !c->epoch || (checked && (!m || m->role == MEMBER_INVITED))) {
        reply_page(n, from, id, ERR_NOTFOUND, NULL);
        return;
    }
    struct answer *a = answer_new(n, from, id, what);
    struct read_job *job = a ? malloc(sizeof *job) : NULL;
    if (!job) {
        if (a)
            answer_over(n, a);
        return;
    }
    *job = in;
    if (m && job->after + 1 < m->from)
        job->after = m->from - 1;
    job->upto = job->upto < c->durable ? job->upto : c->durable;
    job->limit = job->limit && job->limit < PAGE_MAX ? job->limit : PAGE_MAX;
    job->bytes_max = job->bytes_max && job->bytes_max < PAGE_BYTES ? job->bytes_max : PAGE_BYTES;
    job->owner = answer_conn(n, a);
    struct effect e = {.kind = EFFECT_READ, .read = job};
    n->io.emit(n->io.arg, &e);
}

void owner_called(struct node *n, uint16_t from, struct wire_reader *r)
{
    uint64_t id = wire_u64(r);
    bool again = wire_u8(r) != 0;
    uint8_t what = wire_u8(r);
    switch (what) {
    case CALL_REQUEST:
        called_request(n, from, id, again, r);
        break;
    case CALL_MEMBERS:
        called_members(n, from, id, r);
        break;
    case CALL_LOG:
    case CALL_FILL:
    case CALL_HISTORY:
        called_log(n, from, id, what, r);
        break;
    case CALL_CURSORS:
        owner_cursors(n, from, id, r);
        break;
    case CALL_RECEIPTS:
        node_receipts_called(n, from, id, r);
        break;
    case CALL_READERS:
        node_readers_called(n, from, id, r);
        break;
    default:
        r->failed = true;
    }
}

bool node_bus_read_done(struct node *n, struct read_job *job)
{
    if (!(job->owner & BUS_CONN))
        return false;
    struct answer *a = answer_of(n, job->owner);
    if (!a)
        return true;
    n->counters.read_failures += job->rc != 0;
    if (job->kind == READ_RECEIPTS) {
        node_receipts_answer(n, a->node, a->id, a->wanted, job);
    } else if (job->kind == READ_CURSORS) {
        struct buf *b = &n->bus->reply;
        buf_reset(b);
        put_lineage(b, n);
        put_u32(b, 1);
        put_memberships(n, b, a->user, a->node, job);
        owner_reply(n, a->node, a->id, b);
    } else {
        reply_page(n, a->node, a->id, job->rc ? ERR_IO : 0, job);
    }
    answer_over(n, a);
    return true;
}

void owner_cursors(struct node *n, uint16_t from, uint64_t id, struct wire_reader *r)
{
    for (uint32_t k = wire_count(r, WIRE_CURSOR_BYTES); k && !r->failed; k--) {
        struct cursor c;
        wire_cursor(r, &c);
        if (!r->failed && node_owns(n, c.chat))
            delivery_add_cursor(&n->delivery, &c);
    }
    buf_reset(&n->bus->reply);
    owner_reply(n, from, id, &n->bus->reply);
}

uint64_t owner_answer(struct node *n, uint16_t from, uint64_t id, enum wire_call what, uint64_t wanted)
{
    struct answer *a = answer_new(n, from, id, what);
    if (!a)
        return 0;
    a->wanted = wanted;
    return answer_conn(n, a);
}
