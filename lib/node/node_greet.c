/* hello at a node that owns only some of the chats: the other owners are asked in which of theirs the user
 * is. Who does not answer in time is left out of the welcome, and its positions come when it is heard again.
 */
#include "node/node_bus.h"

#include <stdlib.h>
#include <string.h>

#define HELLO_NS         (3 * NS_PER_S / 2)
#define LATE_NS          (3 * NS_PER_S)
#define RESYNC_USERS     512u
#define EPOCHS_MAX       1024u
#define MEMBERSHIP_BYTES 57u

static struct greeting *greeting_of(const struct node *n, uint64_t conn)
{
    return n->bus ? map_get_ptr(&n->bus->greetings, conn) : NULL;
}

const struct greeting *node_bus_greeting(const struct node *n, const struct session *s)
{
    return n->bus ? greeting_of(n, session_conn(&n->registry, s)) : NULL;
}

static void greeting_drop(struct node *n, struct greeting *g)
{
    map_del_u64(&n->bus->greetings, g->conn);
    free(g->claims);
    free(g->cursors);
    free(g->said);
    free(g);
}

void node_bus_forget(struct node *n, const struct session *s)
{
    struct greeting *g = n->bus ? greeting_of(n, session_conn(&n->registry, s)) : NULL;
    if (g)
        greeting_drop(n, g);
}

static bool ask(struct node *n, uint16_t owner, uint64_t conn, uint64_t device, const uint64_t *users,
                uint32_t count, uint64_t patience_ns)
{
    struct buf *b = &n->bus->body;
    buf_reset(b);
    put_u64(b, device);
    put_u32(b, count);
    for (uint32_t i = 0; i < count; i++)
        put_u64(b, users[i]);
    uint64_t *about = malloc(sizeof *about);
    struct bus_call *call = about ? bus_ask(n, owner, CALL_MEMBERS, patience_ns) : NULL;
    if (!call) {
        free(about);
        return false;
    }
    *about = conn;
    call->about = about;
    return true;
}

static void ask_owner(struct node *n, struct greeting *g, uint16_t owner, uint64_t patience_ns)
{
    struct session *s = node_session(n, g->conn);
    uint64_t user = s && s->user ? session_user(&n->registry, s)->id : 0;
    if (s && ask(n, owner, g->conn, s->device, &user, 1, patience_ns))
        g->waiting |= bus_bit(owner);
    else
        g->missing |= bus_bit(owner);
}

bool node_bus_greet(struct node *n, struct session *s)
{
    const struct session_extra *x = session_extra(&n->registry, s, false);
    struct greeting *g = n->bus ? calloc(1, sizeof *g) : NULL, **slot;
    if (!g)
        return false;
    g->conn = session_conn(&n->registry, s);
    if (x && x->claims_n && (g->claims = malloc(x->claims_n * sizeof *g->claims))) {
        memcpy(g->claims, x->claims, x->claims_n * sizeof *g->claims);
        g->claims_n = x->claims_n;
    }
    if (!(slot = map_put_u64(&n->bus->greetings, g->conn, NULL))) {
        free(g->claims);
        free(g);
        return false;
    }
    *slot = g;
    for (uint16_t i = 0; i < n->bus->nodes; i++)
        if (i != n->bus->self)
            ask_owner(n, g, i, HELLO_NS);
    return g->waiting != 0;
}

/* Welcome when nobody is waited for; afterwards kept only for those who are missing. */
static void go_on(struct node *n, struct greeting *g)
{
    struct session *s = node_session(n, g->conn);
    if (!s || g->waiting)
        return;
    if (!g->welcomed)
        node_greeted(n, s); /* says node_bus_welcomed, when our own store has answered */
    else if (!g->missing)
        greeting_drop(n, g);
}

void node_bus_welcomed(struct node *n, const struct session *s)
{
    struct greeting *g = n->bus ? greeting_of(n, session_conn(&n->registry, s)) : NULL;
    if (!g)
        return;
    g->welcomed = true;
    if (!g->missing && !g->waiting)
        greeting_drop(n, g);
}

/* ---- what an owner says of members ---- */

static void learn_epochs(struct node_peer *p, struct wire_reader *r)
{
    uint32_t count = wire_count(r, 8);
    uint64_t *list = count && count <= EPOCHS_MAX ? malloc(count * sizeof *list) : NULL;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t epoch = wire_u64(r);
        if (list)
            list[i] = epoch;
    }
    if (!list)
        return;
    free(p->epochs);
    p->epochs = list;
    p->epochs_n = count;
}

static void keep_cursor(struct greeting *g, uint64_t chat, uint64_t epoch, uint64_t delivered)
{
    if (!g || delivered == UINT64_MAX)
        return;
    struct cursor *list = realloc(g->cursors, (g->cursors_n + 1) * sizeof *list);
    if (!list)
        return; /* costs a redelivery */
    g->cursors = list;
    list[g->cursors_n++] = (struct cursor){.chat = chat, .epoch = epoch, .delivered = delivered};
}

void node_bus_said(struct node *n, const struct session *s, uint64_t chat, uint64_t seq, bool read)
{
    struct greeting *g = n->bus ? greeting_of(n, session_conn(&n->registry, s)) : NULL;
    uint32_t i = 0;
    if (!g || node_owns(n, chat) || !((g->missing | g->waiting) & bus_bit(node_owner(n, chat))))
        return;
    while (i < g->said_n && g->said[i].chat != chat)
        i++;
    if (i == g->said_n) {
        struct cursor *list = i < PROTO_CLAIMS_MAX ? realloc(g->said, (i + 1) * sizeof *list) : NULL;
        if (!list)
            return; /* said again with the next connection */
        g->said = list;
        list[g->said_n++] = (struct cursor){.chat = chat};
    }
    uint64_t *at = read ? &g->said[i].read : &g->said[i].delivered;
    *at = seq > *at ? seq : *at;
}

/* Sessions that were there before the owner told us that their user is in this chat. */
static void join_sessions(struct node *n, struct chat *c, const struct user *u, uint64_t after,
                          uint16_t owner)
{
    struct session *s = registry_session(&n->registry, u->sessions);
    for (; s; s = registry_session(&n->registry, s->next_of_user)) {
        const struct greeting *g = node_bus_greeting(n, s);
        if (s->state == SESSION_READY && !(g && (g->missing | g->waiting) & bus_bit(owner)) &&
            !session_sub(&n->registry, s, c) && !delivery_subscribe(&n->delivery, s, c, after, true))
            delivery_pump(&n->delivery, s);
    }
}

static void one_membership(struct node *n, struct user *u, uint16_t owner, struct wire_reader *r,
                           struct greeting *g, uint64_t *chat)
{
    *chat = wire_u64(r);
    uint64_t epoch = wire_u64(r), durable = wire_u64(r), first = wire_u64(r), from = wire_u64(r);
    uint8_t role = wire_u8(r);
    uint64_t cursor_epoch = wire_u64(r), delivered = wire_u64(r);
    if (r->failed || node_owner(n, *chat) != owner)
        return;
    struct chat *c = registry_chat_make(&n->registry, *chat);
    if (!c || !follow_begin(n, c, epoch, durable, first) ||
        registry_member_set(&n->registry, c, u->id, from, role))
        return;
    keep_cursor(g, *chat, cursor_epoch, delivered);
    if (!g)
        join_sessions(n, c, u, from ? from - 1 : 0, owner);
}

/* The user is in these chats of the owner, and in no others. */
static void one_user(struct node *n, uint16_t owner, struct wire_reader *r, struct greeting *g)
{
    struct user *u = registry_user(&n->registry, wire_u64(r));
    uint32_t count = wire_count(r, MEMBERSHIP_BYTES);
    uint64_t *chats = malloc((count + 1) * sizeof *chats);
    if (!u || !chats) {
        wire_bytes(r, (size_t)count * MEMBERSHIP_BYTES);
        free(chats);
        return;
    }
    for (uint32_t i = 0; i < count; i++)
        one_membership(n, u, owner, r, g, &chats[i]);
    for (uint32_t i = u->chats_n; !r->failed && i--;) {
        struct chat *c = registry_user_chat(&n->registry, u, i);
        bool still = node_owner(n, c->id) != owner;
        for (uint32_t k = 0; k < count && !still; k++)
            still = chats[k] == c->id;
        if (!still)
            node_drop_member_quietly(n, c, u->id);
    }
    free(chats);
}

static uint64_t members_reply(struct node *n, uint16_t owner, struct wire_reader *r, struct greeting *g)
{
    uint64_t version = wire_u64(r);
    learn_epochs(&n->bus->peers[owner], r);
    for (uint32_t k = wire_count(r, 12); k && !r->failed; k--)
        one_user(n, owner, r, g);
    return version;
}

static void resync_over(struct node *n, uint16_t owner, bool failed)
{
    struct node_peer *p = &n->bus->peers[owner];
    p->resync_failed |= failed;
    if (!p->resyncs || --p->resyncs)
        return;
    if (p->resync_failed)
        p->astray = true;
    else if (p->resync_version > p->version)
        p->version = p->resync_version;
}

void greet_replied(struct node *n, uint16_t owner, uint64_t conn, struct wire_reader *r)
{
    struct greeting *g = greeting_of(n, conn);
    if (!conn) {
        struct node_peer *p = &n->bus->peers[owner];
        uint64_t version = members_reply(n, owner, r, NULL);
        if (version < p->resync_version)
            p->resync_version = version;
        resync_over(n, owner, r->failed);
        return;
    }
    if (!g)
        return; /* the session is gone */
    members_reply(n, owner, r, g);
    g->waiting &= ~bus_bit(owner);
    g->missing &= ~bus_bit(owner);
    struct session *s = node_session(n, conn);
    if (g->welcomed && s && s->state == SESSION_READY)
        node_resumed_late(n, s, owner, g);
    g = greeting_of(n, conn);
    if (g)
        go_on(n, g);
}

void greet_unanswered(struct node *n, uint16_t owner, uint64_t conn)
{
    struct greeting *g = greeting_of(n, conn);
    if (!conn) {
        resync_over(n, owner, true);
        return;
    }
    if (!g)
        return;
    g->waiting &= ~bus_bit(owner);
    g->missing |= bus_bit(owner);
    go_on(n, g);
}

void greet_again(struct node *n, uint16_t owner)
{
    size_t at = 0;
    void *v;
    while (map_next(&n->bus->greetings, &at, NULL, &v)) {
        struct greeting *g = *(struct greeting **)v;
        if (g->welcomed && g->missing & bus_bit(owner) && !(g->waiting & bus_bit(owner)))
            ask_owner(n, g, owner, LATE_NS);
    }
}

/* Something that this owner told everybody was missed: ask about all who are online here. */
void greet_resync(struct node *n, uint16_t owner)
{
    struct node_peer *p = &n->bus->peers[owner];
    uint64_t users[RESYNC_USERS];
    uint32_t count = 0, top = slab_top(&n->registry.users);
    p->resync_version = UINT64_MAX;
    p->resync_failed = p->astray = false;
    p->resyncs = 1; /* held until all are asked */
    n->counters.bus_resyncs++;
    for (uint32_t i = 1; i <= top + 1; i++) {
        const struct user *u = i <= top ? slab_at(&n->registry.users, i) : NULL;
        if (u && u->sessions)
            users[count++] = u->id;
        if (count == RESYNC_USERS || (count && i > top)) {
            if (ask(n, owner, 0, UINT64_MAX, users, count, LATE_NS))
                p->resyncs++;
            else
                p->resync_failed = true;
            count = 0;
        }
    }
    if (p->resyncs == 1)
        p->resync_version = p->version_said; /* nobody is here */
    resync_over(n, owner, false);
}
