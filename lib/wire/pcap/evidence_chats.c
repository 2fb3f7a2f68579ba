/* Chats: their members, what the server read, and to whom it pushed. */
#include <stdlib.h>
#include <string.h>

#include "util/clock.h"
#include "wire/pcap/evidence_impl.h"

#define READ_NS (100 * NS_PER_MS) /* a program that waits for its sockets has read by then */

static int by_id(const void *a, const void *b)
{
    return memcmp(a, b, offsetof(struct ev_push, ts_ns));
}

/* When the server pushed this message to the first of its recipients. */
uint64_t ev_first_push(const struct ev_sides *s, const struct id *id)
{
    uint32_t lo = 0, hi = s->pushes;
    uint64_t first = UINT64_MAX;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (memcmp(&s->push[mid].id, id, sizeof *id) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    for (; lo < s->pushes && id_equal(&s->push[lo].id, id); lo++)
        first = s->push[lo].ts_ns < first ? s->push[lo].ts_ns : first;
    return first;
}

int ev_find_pushes(const struct evidence *e, struct ev_sides *s, struct err_ctx *ctx)
{
    s->push = calloc((size_t)e->message.n + 1, sizeof *s->push);
    if (!s->push)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    for (uint32_t i = 0; i < e->message.n; i++) {
        const struct ev_message *m = ev_message(e, i);
        if (m->what == EV_MSG && ev_speaks_for(e, s, m->conn, TRACE_SIDE_SERVER))
            s->push[s->pushes++] = (struct ev_push){m->id, ev_user_of(ev_conn(e, m->conn)), m->ts_ns};
    }
    qsort(s->push, s->pushes, sizeof *s->push, by_id);
    for (uint32_t i = 0; i < e->message.n; i++) {
        const struct ev_message *m = ev_message(e, i);
        struct ev_conn *c = ev_conn(e, m->conn);
        uint64_t first = m->what == EV_SEND && m->dir == 0 ? ev_first_push(s, &m->id) : UINT64_MAX;
        if (first < UINT64_MAX && first >= m->ts_ns && m->end > c->read_to)
            c->read_to = m->end;
    }
    return 0;
}

/* The device opened another connection meanwhile: the server may have closed this one, its FIN behind bytes
 * that are stuck. */
static bool superseded(const struct evidence *e, const struct ev_sides *s, const struct ev_conn *c,
                       uint64_t ns)
{
    for (uint32_t i = 0; i < e->conn.n; i++) {
        const struct ev_conn *o = ev_conn(e, i);
        if (o->websocket && o->user == c->user && o->device == c->device && o->open_ns > c->open_ns &&
            o->open_ns <= ns && ev_speaks_for(e, s, i, TRACE_SIDE_SERVER))
            return true;
    }
    return false;
}

/* The server left this connection, or the phone threw it away, so soon after that the server's program may
 * not have come to it. A FIN of the phone's stands behind all it said: what the server closed after that FIN
 * it had read to the end. */
static bool ends_soon(const struct ev_conn *c, uint64_t ns)
{
    uint64_t server = c->may_end_ns[1], phone = c->end_seen_ns[0];
    bool orderly = phone && !c->reset_by_client && server >= phone;
    return (server && !orderly && server < ns + READ_NS) ||
           (phone && c->reset_by_client && phone < ns + READ_NS);
}

/* What the server's TCP took and nobody was sent, on a connection that the server could not write to or was
 * about to close: its program may never have read it. What it passed on of later bytes says that it did. */
bool ev_maybe_unread(const struct evidence *e, const struct ev_sides *s, const struct ev_message *m)
{
    const struct ev_conn *c = ev_conn(e, m->conn);
    return s->legacy && ev_first_push(s, &m->id) == UINT64_MAX && m->end > c->read_to &&
           ((c->stalled_ns && c->stalled_ns < m->ts_ns) || superseded(e, s, c, m->ts_ns + READ_NS) ||
            ends_soon(c, m->ts_ns));
}

struct pair_key {
    uint64_t chat, user;
};

struct members {
    struct map known; /* pair_key -> 1 */
    struct map count; /* chat -> members */
    uint64_t first_ns;
};

static void add_member(struct evidence *e, struct members *k, uint64_t chat, uint64_t user, uint64_t ns,
                       bool left)
{
    struct pair_key key = {chat, user};
    bool fresh = false;
    uint64_t *known = map_put(&k->known, &key, &fresh);
    if (!known || !chat || (*known && !left) || (!*known && left)) {
        e->no_memory |= !known;
        return;
    }
    *known = !left;
    uint64_t *n = map_put_u64(&k->count, chat, NULL);
    if (n)
        *n += left ? UINT64_MAX : 1;
    ev_emit(e, TRACE_SIDE_SERVER,
            (struct trace_event){.ts_ns = ns,
                                 .chat = chat,
                                 .user = user,
                                 .hop = HOP_SERVER_MEMBER,
                                 .flags = left ? TRACE_FLAG_LEFT : 0});
}

static void find_members(struct evidence *e, struct members *k)
{
    for (uint32_t i = 0; i < e->message.n; i++) {
        const struct ev_message *m = ev_message(e, i);
        if (m->what == EV_MEMBER)
            add_member(e, k, m->chat, m->user, m->ts_ns, m->left);
    }
    for (uint32_t i = 0; i < e->message.n; i++) { /* those whom nobody named */
        const struct ev_message *m = ev_message(e, i);
        if (m->what == EV_SEND || m->what == EV_MSG)
            add_member(e, k, m->chat, ev_user_of(ev_conn(e, m->conn)), k->first_ns, false);
    }
}

static bool was_pushed(const struct ev_sides *s, const struct id *id, uint64_t user)
{
    struct ev_push key = {*id, user, 0};
    return s->pushes && bsearch(&key, s->push, s->pushes, sizeof key, by_id);
}

/* A server that pushes to whatever socket it knows wrote also to those whose stream was stuck just then: the
 * bytes stayed in its own buffer and are in no capture. */
static void stuck_pushes(struct evidence *e, const struct ev_sides *s, const struct members *k,
                         const struct ev_message *m)
{
    for (uint32_t i = 0; i < e->conn.n; i++) {
        const struct ev_conn *c = ev_conn(e, i);
        struct pair_key key = {m->chat, ev_user_of(c)};
        const uint64_t *known = NULL;
        if (!c->stalled_ns || !c->websocket || !ev_speaks_for(e, s, i, TRACE_SIDE_SERVER) ||
            c->open_ns > m->ts_ns || c->end_ns < m->ts_ns || (c->left_ns && c->left_ns <= m->ts_ns) ||
            c->stuck[1].since_ns > m->ts_ns) /* what it wrote then came out and would be seen */
            continue;
        known = map_get(&k->known, &key);
        if (!known || !*known || key.user == ev_user_of(ev_conn(e, m->conn)) ||
            was_pushed(s, &m->id, key.user) || superseded(e, s, c, m->ts_ns))
            continue;
        ev_emit(e, TRACE_SIDE_SERVER,
                (struct trace_event){.ts_ns = m->ts_ns + 1,
                                     .id = m->id,
                                     .chat = m->chat,
                                     .user = key.user,
                                     .conn = c->number,
                                     .hop = HOP_SERVER_PUSH,
                                     .flags = TRACE_FLAG_INFERRED,
                                     .arg = c->captured_end[1] + 1});
    }
}

static void each_send(struct evidence *e, const struct ev_sides *s, const struct members *k)
{
    for (uint32_t i = 0; i < e->message.n; i++) {
        const struct ev_message *m = ev_message(e, i);
        const struct ev_conn *c = ev_conn(e, m->conn);
        const uint64_t *members = map_get_u64(&k->count, m->chat);
        if (m->what != EV_SEND || !m->complete || m->end > c->acked[0] || !members ||
            !ev_speaks_for(e, s, m->conn, TRACE_SIDE_SERVER) || ev_maybe_unread(e, s, m))
            continue;
        ev_emit(e, TRACE_SIDE_SERVER,
                (struct trace_event){.ts_ns = m->ts_ns,
                                     .id = m->id,
                                     .chat = m->chat,
                                     .user = ev_user_of(c),
                                     .arg = *members - 1,
                                     .hop = HOP_SERVER_FANOUT,
                                     .flags = TRACE_FLAG_INFERRED | (s->legacy ? TRACE_FLAG_ONE_PUSH : 0)});
        if (s->legacy)
            stuck_pushes(e, s, k, m);
    }
}

void ev_fan_out(struct evidence *e, const struct ev_sides *s)
{
    struct members k = {.first_ns = UINT64_MAX};
    map_init(&k.known, sizeof(struct pair_key), 8, UINT32_MAX, 5);
    map_init(&k.count, 8, 8, UINT32_MAX, 6);
    for (uint32_t i = 0; i < e->points; i++)
        if (e->point[i].first_ns && e->point[i].first_ns < k.first_ns)
            k.first_ns = e->point[i].first_ns;
    find_members(e, &k);
    each_send(e, s, &k);
    map_release(&k.known);
    map_release(&k.count);
}
