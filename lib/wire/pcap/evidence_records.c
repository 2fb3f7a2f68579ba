/* From what was collected to records, as the traces of phones, server and link would have them. */
#include <stdlib.h>
#include <string.h>

#include "util/clock.h"
#include "wire/pcap/evidence_impl.h"

#define CROSSING_NS    NS_PER_S
#define PUSH_SPREAD_NS (50 * NS_PER_MS)
#define PHONES_NODE    (TRACE_NODE_LOAD + 50)
#define SERVER_NODE    (TRACE_NODE_SERVER + 50)
#define LINK_NODE      (TRACE_NODE_LINK + 50)

static struct trace_event *emit(struct evidence *e, enum trace_side side, struct trace_event ev)
{
    static const uint16_t node[TRACE_SIDES] = {
        [TRACE_SIDE_SERVER] = SERVER_NODE, [TRACE_SIDE_LINK] = LINK_NODE, [TRACE_SIDE_LOAD] = PHONES_NODE};
    struct trace_event *out = ev_add(e, &e->record[side], sizeof *out);
    if (!out)
        return NULL;
    *out = ev;
    out->node = node[side];
    return out;
}

struct push { /* of a message to a user, as the server's end saw it */
    struct id id;
    uint64_t user, ts_ns;
};

static int by_id(const void *a, const void *b)
{
    return memcmp(a, b, offsetof(struct push, ts_ns));
}

/* Connections of one end; with the server's end alone it speaks for the phones too. */
struct sides {
    bool phones, server;     /* points of this kind exist */
    bool phones_from_server; /* what the phones had is told by their acknowledgements alone */
    bool legacy;             /* nothing is ever accepted or acknowledged: sent once, pushed once */
    struct map presence;     /* connection (client first) -> struct presence */
    struct push *push;       /* by id and user */
    uint32_t pushes;
};

/* When the server pushed this message to the first of its recipients. */
static uint64_t first_push(const struct sides *s, const struct id *id)
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

static bool speaks_for(const struct evidence *e, const struct sides *s, uint32_t conn, enum trace_side side)
{
    enum evidence_role role = ev_role(e, conn);
    if (side == TRACE_SIDE_LOAD)
        return role == EVIDENCE_PHONES || s->phones_from_server;
    return role == EVIDENCE_SERVER;
}

static uint64_t user_of(const struct ev_conn *c)
{
    return c->user ? c->user : 1000000000ull + c->number; /* it never said who it is */
}

/* How long before this close the phone may have left its socket. Where the link still found the phone, and
 * nothing kept a FIN of its from being seen, it had not. */
static uint64_t unsure_ns(const struct ev_conn *c, uint64_t close_ns)
{
    uint64_t since = c->stuck_ns && c->stuck_ns < c->there_ns ? c->stuck_ns : c->there_ns;
    return close_ns > since ? close_ns - since : 0;
}

/* Nobody closed it while the capture lasted; the phone may have left without a word all the same. */
static void still_open(struct evidence *e, const struct ev_conn *c, struct trace_event ev)
{
    ev.ts_ns = e->point[c->point].last_ns;
    ev.hop = HOP_SOCKET_CLOSE;
    ev.reason = REASON_RUN_END;
    ev.flags = TRACE_FLAG_UNSURE;
    ev.arg = unsure_ns(c, ev.ts_ns);
    memset(&ev.id, 0, sizeof ev.id);
    emit(e, TRACE_SIDE_LOAD, ev);
}

static void open_and_close(struct evidence *e, const struct sides *s, uint32_t i, enum trace_side side)
{
    const struct ev_conn *c = ev_conn(e, i);
    struct trace_event ev = {.ts_ns = c->open_ns,
                             .user = user_of(c),
                             .device = c->device,
                             .conn = c->number,
                             .hop = HOP_SOCKET_OPEN,
                             .reason = c->net,
                             .arg = c->start[side == TRACE_SIDE_SERVER]};
    if (!c->websocket || !speaks_for(e, s, i, side))
        return;
    memcpy(&ev.id, &c->flow, sizeof c->flow);
    if (!c->guess)
        emit(e, side, ev);
    bool told = side == TRACE_SIDE_LOAD && s->phones_from_server;
    if (c->open_end && !c->replaced && side == TRACE_SIDE_LOAD && !told) {
        still_open(e, c, ev);
        return;
    }
    if (!c->whole_end || (told && !c->left_ns && !c->replaced))
        return; /* seen from the server, a phone that falls silent may still have what it did not acknowledge
                 */
    ev = (struct trace_event){.ts_ns = side == TRACE_SIDE_LOAD ? c->close_ns : c->end_ns,
                              .conn = c->number,
                              .user = user_of(c),
                              .hop = HOP_SOCKET_CLOSE,
                              .reason = c->close_reason};
    if (side == TRACE_SIDE_SERVER && ev.reason == REASON_CLOSED_BY_US)
        ev.reason = REASON_CLOSED_BY_PEER;
    if (side == TRACE_SIDE_LOAD && c->replaced) {
        ev.flags = TRACE_FLAG_UNSURE;
        /* from the server's end alone what went before is unsure as a whole: lost on the way, or in the phone
         */
        ev.arg = told ? UINT64_MAX / 2 : unsure_ns(c, c->close_ns);
    }
    if (told && !c->replaced) { /* its FIN and a push may have crossed */
        ev.flags = TRACE_FLAG_UNSURE;
        ev.arg = CROSSING_NS;
    }
    emit(e, side, ev);
}

/* What the link says of a connection's phone (chat-netem's captures do; others only what arrived). */
struct presence {
    uint64_t there_ns; /* the last packet of its own, or 0 */
    uint64_t gone_ns;  /* the first packet offered after it had left this address, or 0 */
};

static struct trace_flow client_first(const struct ev_packet *p)
{
    const struct trace_flow *f = &p->flow;
    return p->dir ? (struct trace_flow){f->dst, f->src, f->dport, f->sport, 0}
                  : (struct trace_flow){f->src, f->dst, f->sport, f->dport, 0};
}

/* Only what the phone itself sent shows that its socket was there: a packet that the link took on its way
 * down says that the address was attached, and nothing of who listened. */
static void find_presence(const struct evidence *e, struct sides *s)
{
    for (uint32_t i = 0; i < e->packet.n; i++) {
        const struct ev_packet *p = ev_packet(e, i);
        struct trace_flow f = client_first(p);
        struct presence *at = map_put(&s->presence, &f, NULL);
        if (!at)
            continue;
        bool left = p->reason == REASON_DETACHED && !p->aired;
        bool there = !p->dir && !left && (p->reason || p->paired);
        if (left && (!at->gone_ns || p->ts_ns < at->gone_ns))
            at->gone_ns = p->ts_ns;
        if (there && p->ts_ns > at->there_ns)
            at->there_ns = p->ts_ns;
    }
}

struct by_device {
    uint64_t user, device, syn_ns;
    uint32_t conn;
};

static int compare_devices(const void *a, const void *b)
{
    const struct by_device *x = a, *y = b;
    if (x->user != y->user)
        return x->user < y->user ? -1 : 1;
    if (x->device != y->device)
        return x->device < y->device ? -1 : 1;
    return x->syn_ns < y->syn_ns ? -1 : x->syn_ns > y->syn_ns;
}

/* A device has one connection. One that it opened later says that it had left the one before, also where no
 * FIN or RST came through: at some time between its last word there and the new SYN. */
static int find_replaced(struct evidence *e, const struct sides *s, struct err_ctx *ctx)
{
    for (uint32_t i = 0; i < e->conn.n; i++) {
        struct ev_conn *c = ev_conn(e, i);
        const struct presence *at = map_get(&s->presence, &c->flow);
        c->there_ns = at && at->there_ns > c->heard_ns ? at->there_ns : c->heard_ns;
    }
    struct by_device *d = calloc((size_t)e->conn.n + 1, sizeof *d);
    uint32_t n = 0;
    if (!d)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    for (uint32_t i = 0; i < e->conn.n; i++) {
        const struct ev_conn *c = ev_conn(e, i);
        if (c->websocket && c->user && c->syn_ns && speaks_for(e, s, i, TRACE_SIDE_LOAD))
            d[n++] = (struct by_device){c->user, c->device, c->syn_ns, i};
    }
    qsort(d, n, sizeof *d, compare_devices);
    for (uint32_t i = 0; i + 1 < n; i++) {
        struct ev_conn *c = ev_conn(e, d[i].conn);
        uint64_t next = d[i + 1].syn_ns;
        if (d[i].user != d[i + 1].user || d[i].device != d[i + 1].device || (c->left_ns && c->left_ns < next))
            continue;
        c->replaced = c->whole_end = true;
        c->close_ns = next;
        c->close_reason = REASON_REPLACED;
        const struct presence *at = map_get(&s->presence, &c->flow);
        if (at && at->gone_ns && at->gone_ns < next) {
            c->close_ns = at->gone_ns - 1; /* what was offered then came too late */
            c->close_reason = REASON_NETWORK_CHANGED;
            c->spoke_ns = c->heard_ns; /* it left its address with its app still alive */
        }
    }
    free(d);
    return 0;
}

static int find_pushes(const struct evidence *e, struct sides *s, struct err_ctx *ctx)
{
    s->push = calloc((size_t)e->message.n + 1, sizeof *s->push);
    if (!s->push)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    for (uint32_t i = 0; i < e->message.n; i++) {
        const struct ev_message *m = ev_message(e, i);
        if (m->what == EV_MSG && speaks_for(e, s, m->conn, TRACE_SIDE_SERVER))
            s->push[s->pushes++] = (struct push){m->id, user_of(ev_conn(e, m->conn)), m->ts_ns};
    }
    qsort(s->push, s->pushes, sizeof *s->push, by_id);
    return 0;
}

/* What the phone's TCP took of this message, and whether its app may have read it. */
static void received(struct evidence *e, const struct ev_message *m)
{
    const struct ev_conn *c = ev_conn(e, m->conn);
    struct trace_event ev = {.ts_ns = m->ts_ns,
                             .id = m->id,
                             .chat = m->chat,
                             .arg = m->seq,
                             .user = user_of(c),
                             .conn = c->number,
                             .hop = HOP_CLIENT_RECEIVE};
    bool left = (c->left_ns && m->ts_ns > c->left_ns) || (c->replaced && m->ts_ns > c->close_ns);
    if (!m->complete || m->end > c->acked[1] || left)
        return;
    if ((c->reset_by_client || c->replaced) && m->ts_ns > c->spoke_ns) {
        ev.flags = TRACE_FLAG_UNSURE;
        emit(e, TRACE_SIDE_LOAD, ev);
        return;
    }
    emit(e, TRACE_SIDE_LOAD, ev);
    ev.hop = HOP_CLIENT_SURFACE;
    ev.flags = TRACE_FLAG_INFERRED;
    emit(e, TRACE_SIDE_LOAD, ev);
}

static void at_phone(struct evidence *e, const struct sides *s, const struct ev_message *m)
{
    const struct ev_conn *c = ev_conn(e, m->conn);
    struct trace_event ev = {.id = m->id, .chat = m->chat, .user = user_of(c), .conn = c->number};
    if (m->what == EV_MSG && m->dir == 1)
        received(e, m);
    if (s->phones_from_server)
        return; /* what a phone tried to send is not seen from there */
    if (m->what == EV_SEND && m->dir == 0) {
        ev.ts_ns = m->first_ns;
        ev.hop = HOP_CLIENT_SUBMIT;
        ev.flags = s->legacy ? TRACE_FLAG_ONE_SEND : TRACE_FLAG_OUTBOX;
        ev.conn = 0;
        emit(e, TRACE_SIDE_LOAD, ev);
        ev.hop = HOP_CLIENT_SEND;
        ev.flags = 0;
        ev.arg = m->end;
        ev.attempt = 1;
        ev.conn = c->number;
        emit(e, TRACE_SIDE_LOAD, ev);
    } else if (m->what == EV_ACCEPTED && m->dir == 1 && m->complete && m->end <= c->acked[1]) {
        ev.ts_ns = m->ts_ns;
        ev.hop = HOP_CLIENT_ACCEPTED;
        ev.arg = m->seq;
        emit(e, TRACE_SIDE_LOAD, ev);
    }
}

/* The device opened another connection meanwhile: the server may have closed this one, its FIN behind bytes
 * that are stuck. */
static bool superseded(const struct evidence *e, const struct sides *s, const struct ev_conn *c, uint64_t ns)
{
    for (uint32_t i = 0; i < e->conn.n; i++) {
        const struct ev_conn *o = ev_conn(e, i);
        if (o->websocket && o->user == c->user && o->device == c->device && o->open_ns > c->open_ns &&
            o->open_ns <= ns && speaks_for(e, s, i, TRACE_SIDE_SERVER))
            return true;
    }
    return false;
}

/* What the server's TCP took and nobody was sent, on a connection that the server could not write to or was
 * about to close: its program may never have read it. */
static bool maybe_unread(const struct evidence *e, const struct sides *s, const struct ev_message *m)
{
    const struct ev_conn *c = ev_conn(e, m->conn);
    return s->legacy && first_push(s, &m->id) == UINT64_MAX &&
           ((c->stalled_ns && c->stalled_ns < m->ts_ns) || superseded(e, s, c, m->ts_ns + 100 * NS_PER_MS));
}

static void at_server(struct evidence *e, const struct sides *s, const struct ev_message *m)
{
    const struct ev_conn *c = ev_conn(e, m->conn);
    struct trace_event ev = {.ts_ns = m->ts_ns,
                             .id = m->id,
                             .chat = m->chat,
                             .user = user_of(c),
                             .conn = c->number,
                             .arg = m->end};
    if (m->what == EV_SEND && m->dir == 0 && m->complete && m->end <= c->acked[0]) {
        ev.hop = HOP_SERVER_RECEIVE;
        ev.flags = maybe_unread(e, s, m) ? TRACE_FLAG_UNSURE : s->legacy ? 0 : TRACE_FLAG_DURABLE;
    } else if (m->what == EV_MSG && m->dir == 1) {
        /* a server that pushes once pushes to all at once: bytes that came out later waited in their stream
         */
        uint64_t first = s->legacy ? first_push(s, &m->id) : UINT64_MAX;
        ev.hop = HOP_SERVER_PUSH;
        if (first < UINT64_MAX && m->ts_ns > first + PUSH_SPREAD_NS) {
            ev.ts_ns = first;
            ev.flags = TRACE_FLAG_INFERRED;
        }
    } else if (m->what == EV_ACCEPTED && m->dir == 1) { /* durable by chat.v1 */
        ev.arg = m->seq;
        ev.hop = HOP_SERVER_COMMIT;
        emit(e, TRACE_SIDE_SERVER, ev);
        ev.hop = HOP_SERVER_ACCEPTED;
    } else if (m->what == EV_REJECT && m->dir == 1) {
        ev.hop = HOP_SERVER_REJECT;
        ev.reason = m->reason;
    } else {
        return;
    }
    emit(e, TRACE_SIDE_SERVER, ev);
}

/* ---- chats: members, fan-out ---- */

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
    emit(e, TRACE_SIDE_SERVER,
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
            add_member(e, k, m->chat, user_of(ev_conn(e, m->conn)), k->first_ns, false);
    }
}

static bool was_pushed(const struct sides *s, const struct id *id, uint64_t user)
{
    struct push key = {*id, user, 0};
    return s->pushes && bsearch(&key, s->push, s->pushes, sizeof key, by_id);
}

/* A server that pushes to whatever socket it knows wrote also to those whose stream was stuck just then: the
 * bytes stayed in its own buffer and are in no capture. */
static void stuck_pushes(struct evidence *e, const struct sides *s, const struct members *k,
                         const struct ev_message *m)
{
    for (uint32_t i = 0; i < e->conn.n; i++) {
        const struct ev_conn *c = ev_conn(e, i);
        struct pair_key key = {m->chat, user_of(c)};
        const uint64_t *known = NULL;
        if (!c->stalled_ns || !c->websocket || !speaks_for(e, s, i, TRACE_SIDE_SERVER) ||
            c->open_ns > m->ts_ns || c->end_ns < m->ts_ns || (c->left_ns && c->left_ns <= m->ts_ns) ||
            c->stalled_ns > m->ts_ns + NS_PER_S * 60)
            continue;
        known = map_get(&k->known, &key);
        if (!known || !*known || key.user == user_of(ev_conn(e, m->conn)) ||
            was_pushed(s, &m->id, key.user) || superseded(e, s, c, m->ts_ns))
            continue;
        emit(e, TRACE_SIDE_SERVER,
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

static void fan_out(struct evidence *e, const struct sides *s, const struct members *k)
{
    for (uint32_t i = 0; i < e->message.n; i++) {
        const struct ev_message *m = ev_message(e, i);
        const struct ev_conn *c = ev_conn(e, m->conn);
        const uint64_t *members = map_get_u64(&k->count, m->chat);
        if (m->what != EV_SEND || !m->complete || m->end > c->acked[0] || !members ||
            !speaks_for(e, s, m->conn, TRACE_SIDE_SERVER) || maybe_unread(e, s, m))
            continue;
        emit(e, TRACE_SIDE_SERVER,
             (struct trace_event){.ts_ns = m->ts_ns,
                                  .id = m->id,
                                  .chat = m->chat,
                                  .user = user_of(c),
                                  .arg = *members - 1,
                                  .hop = HOP_SERVER_FANOUT,
                                  .flags = TRACE_FLAG_INFERRED | (s->legacy ? TRACE_FLAG_ONE_PUSH : 0)});
        if (s->legacy)
            stuck_pushes(e, s, k, m);
    }
}

/* ---- packets ---- */

static void packets(struct evidence *e)
{
    for (uint32_t i = 0; i < e->packet.n; i++) {
        const struct ev_packet *p = ev_packet(e, i);
        bool sender = (ev_role(e, p->conn) == EVIDENCE_PHONES) == (p->dir == 0);
        bool lost = sender && (p->lost || !p->paired);
        if (!ev_conn(e, p->conn)->websocket || (sender && !lost))
            continue;
        struct trace_event ev = {.ts_ns = p->ts_ns,
                                 .user = p->dir ? p->flow.dst : p->flow.src,
                                 .arg = p->len,
                                 .hop = lost ? HOP_LINK_DROP : HOP_LINK_DELIVER,
                                 .reason = lost ? p->reason : 0,
                                 .flags = p->flags};
        memcpy(&ev.id, &p->flow, sizeof p->flow);
        emit(e, TRACE_SIDE_LINK, ev);
    }
}

/* ---- lanes ---- */

static int by_time(const void *a, const void *b)
{
    const struct trace_event *x = a, *y = b;
    if (x->ts_ns != y->ts_ns)
        return x->ts_ns < y->ts_ns ? -1 : 1;
    int open = (x->hop == HOP_SOCKET_OPEN) - (y->hop == HOP_SOCKET_OPEN);
    int close = (x->hop == HOP_SOCKET_CLOSE) - (y->hop == HOP_SOCKET_CLOSE);
    return open ? -open : close ? close : x->hop < y->hop ? -1 : x->hop > y->hop;
}

/* Numbers within each connection. Its close comes last, whatever its time was; its opening first. */
static int number_lanes(struct evidence *e, enum trace_side side, struct err_ctx *ctx)
{
    struct trace_event *ev = e->record[side].p;
    uint32_t n = e->record[side].n;
    uint16_t *next = calloc((size_t)e->conn.n + 1, sizeof *next);
    uint64_t *last = calloc((size_t)e->conn.n + 1, sizeof *last);
    if (!next || !last) {
        free(next);
        free(last);
        return err_set(ctx, ERR_NOMEM, "out of memory");
    }
    for (uint32_t i = 0; i < n; i++)
        if (ev[i].conn && ev[i].hop != HOP_SOCKET_CLOSE && ev[i].ts_ns > last[ev[i].conn])
            last[ev[i].conn] = ev[i].ts_ns;
    for (uint32_t i = 0; i < n; i++)
        if (ev[i].conn && ev[i].hop == HOP_SOCKET_CLOSE && ev[i].ts_ns < last[ev[i].conn])
            ev[i].ts_ns = last[ev[i].conn];
    if (n)
        qsort(ev, n, sizeof *ev, by_time);
    for (uint32_t i = 0; i < n; i++)
        if (ev[i].conn)
            ev[i].lane_seq = next[ev[i].conn]++;
    free(next);
    free(last);
    return 0;
}

static struct sides look(const struct evidence *e)
{
    struct sides s = {0};
    bool sends = false, answers = false;
    for (uint32_t i = 0; i < e->points; i++) {
        s.phones |= e->point[i].role == EVIDENCE_PHONES;
        s.server |= e->point[i].role == EVIDENCE_SERVER;
    }
    s.phones_from_server = !s.phones;
    for (uint32_t i = 0; i < e->message.n; i++) {
        sends |= ev_message(e, i)->what == EV_SEND;
        answers |= ev_message(e, i)->what == EV_ACCEPTED;
    }
    s.legacy = sends && !answers;
    return s;
}

static uint64_t missed_of(const struct evidence *e, enum evidence_role role)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < e->points; i++)
        if (role == EVIDENCE_UNKNOWN || e->point[i].role == role)
            n += e->point[i].missed;
    return n;
}

static void add_part(struct evidence *e, enum trace_side side, uint64_t missing)
{
    static const char *const names[TRACE_SIDES] = {
        [TRACE_SIDE_SERVER] = "server", [TRACE_SIDE_LINK] = "link", [TRACE_SIDE_LOAD] = "phones"};
    struct ev_list *l = &e->record[side];
    if (!l->n)
        return;
    snprintf(e->names[side], sizeof e->names[side], "%s, as captures show it", names[side]);
    e->part[e->parts++] = (struct trace_memory){.node = ((struct trace_event *)l->p)->node,
                                                .event = l->p,
                                                .n = l->n,
                                                .emitted = l->n + missing,
                                                .name = e->names[side],
                                                .utc = true};
}

int ev_records(struct evidence *e, const bool want[TRACE_SIDES], struct err_ctx *ctx)
{
    struct sides s = look(e);
    struct members k = {.first_ns = UINT64_MAX};
    int rc = 0;
    map_init(&s.presence, sizeof(struct trace_flow), sizeof(struct presence), UINT32_MAX, 4);
    find_presence(e, &s);
    map_init(&k.known, sizeof(struct pair_key), 8, UINT32_MAX, 5);
    map_init(&k.count, 8, 8, UINT32_MAX, 6);
    for (uint32_t i = 0; i < e->points; i++)
        if (e->point[i].first_ns && e->point[i].first_ns < k.first_ns)
            k.first_ns = e->point[i].first_ns;
    rc = find_replaced(e, &s, ctx);
    rc = rc ? rc : find_pushes(e, &s, ctx);
    for (int side = 0; rc == 0 && side < TRACE_SIDES; side++) {
        if ((side != TRACE_SIDE_LOAD && side != TRACE_SIDE_SERVER) || !want[side] ||
            (side == TRACE_SIDE_SERVER && !s.server))
            continue;
        for (uint32_t i = 0; i < e->conn.n; i++)
            open_and_close(e, &s, i, (enum trace_side)side);
        for (uint32_t i = 0; i < e->message.n; i++)
            if (speaks_for(e, &s, ev_message(e, i)->conn, (enum trace_side)side))
                (side == TRACE_SIDE_LOAD ? at_phone : at_server)(e, &s, ev_message(e, i));
    }
    if (rc == 0 && want[TRACE_SIDE_SERVER] && s.server) {
        find_members(e, &k);
        fan_out(e, &s, &k);
    }
    if (want[TRACE_SIDE_LINK] && s.phones && s.server)
        packets(e);
    for (int side = 0; rc == 0 && side < TRACE_SIDES; side++)
        rc = number_lanes(e, (enum trace_side)side, ctx);
    free(s.push);
    map_release(&s.presence);
    map_release(&k.known);
    map_release(&k.count);
    if (rc < 0)
        return rc;
    add_part(e, TRACE_SIDE_SERVER, missed_of(e, EVIDENCE_SERVER));
    add_part(e, TRACE_SIDE_LINK, missed_of(e, EVIDENCE_UNKNOWN));
    add_part(e, TRACE_SIDE_LOAD, missed_of(e, EVIDENCE_PHONES) + s.phones_from_server);
    return 0;
}
