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

struct trace_event *ev_emit(struct evidence *e, enum trace_side side, struct trace_event ev)
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

/* How long before this close the phone may have left its socket. Where the link still found the phone, and
 * nothing kept a FIN of its from being seen, it had not; nor while its TCP took new bytes. */
static uint64_t unsure_ns(const struct ev_conn *c, uint64_t close_ns)
{
    uint64_t since = c->end_seen_ns[0] ? c->may_end_ns[0] : c->stuck[0].since_ns;
    if (c->replaced || c->open_end)
        since = since && since < c->there_ns ? since : c->there_ns;
    since = since > c->took_ns ? since : c->took_ns;
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
    ev_emit(e, TRACE_SIDE_LOAD, ev);
}

static void open_and_close(struct evidence *e, const struct ev_sides *s, uint32_t i, enum trace_side side)
{
    const struct ev_conn *c = ev_conn(e, i);
    struct trace_event ev = {.ts_ns = c->open_ns,
                             .user = ev_user_of(c),
                             .device = c->device,
                             .conn = c->number,
                             .hop = HOP_SOCKET_OPEN,
                             .reason = c->net,
                             .arg = c->start[side == TRACE_SIDE_SERVER]};
    if (!c->websocket || !ev_speaks_for(e, s, i, side))
        return;
    memcpy(&ev.id, &c->flow, sizeof c->flow);
    if (!c->guess)
        ev_emit(e, side, ev);
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
                              .user = ev_user_of(c),
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
    if (side == TRACE_SIDE_LOAD && !c->replaced) {
        /* its FIN may have waited behind bytes; seen from afar it and a push may have crossed */
        ev.arg = c->left_ns ? unsure_ns(c, c->left_ns) : 0;
        ev.arg += told ? CROSSING_NS : 0;
        ev.flags = ev.arg ? TRACE_FLAG_UNSURE : 0;
    }
    ev_emit(e, side, ev);
}

/* What the phone's TCP took of this message, and whether its app may have read it. */
static void received(struct evidence *e, const struct ev_message *m)
{
    const struct ev_conn *c = ev_conn(e, m->conn);
    struct trace_event ev = {.ts_ns = m->ts_ns,
                             .id = m->id,
                             .chat = m->chat,
                             .arg = m->seq,
                             .user = ev_user_of(c),
                             .conn = c->number,
                             .hop = HOP_CLIENT_RECEIVE};
    bool left = (c->left_ns && m->ts_ns > c->left_ns) || (c->replaced && m->ts_ns > c->close_ns);
    if (!m->complete || m->end > c->acked[1] || left)
        return;
    if ((c->reset_by_client || c->replaced) && m->ts_ns > c->spoke_ns) {
        ev.flags = TRACE_FLAG_UNSURE;
        ev_emit(e, TRACE_SIDE_LOAD, ev);
        return;
    }
    ev_emit(e, TRACE_SIDE_LOAD, ev);
    ev.hop = HOP_CLIENT_SURFACE;
    ev.flags = TRACE_FLAG_INFERRED;
    ev_emit(e, TRACE_SIDE_LOAD, ev);
}

static void at_phone(struct evidence *e, const struct ev_sides *s, const struct ev_message *m)
{
    const struct ev_conn *c = ev_conn(e, m->conn);
    struct trace_event ev = {.id = m->id, .chat = m->chat, .user = ev_user_of(c), .conn = c->number};
    if (m->what == EV_MSG && m->dir == 1)
        received(e, m);
    if (s->phones_from_server)
        return; /* what a phone tried to send is not seen from there */
    if (m->what == EV_SEND && m->dir == 0) {
        /* bytes that waited behind others came out when the app had long left */
        bool late = c->replaced && m->first_ns > c->close_ns;
        ev.ts_ns = late ? c->close_ns : m->first_ns;
        ev.hop = HOP_CLIENT_SUBMIT;
        ev.flags = s->legacy ? TRACE_FLAG_ONE_SEND : TRACE_FLAG_OUTBOX;
        ev.conn = 0;
        ev_emit(e, TRACE_SIDE_LOAD, ev);
        ev.hop = HOP_CLIENT_SEND;
        ev.flags = late ? TRACE_FLAG_INFERRED : 0;
        ev.arg = m->end;
        ev.attempt = 1;
        ev.conn = c->number;
        ev_emit(e, TRACE_SIDE_LOAD, ev);
    } else if (m->what == EV_ACCEPTED && m->dir == 1 && m->complete && m->end <= c->acked[1]) {
        ev.ts_ns = m->ts_ns;
        ev.hop = HOP_CLIENT_ACCEPTED;
        ev.arg = m->seq;
        ev_emit(e, TRACE_SIDE_LOAD, ev);
    }
}

static void at_server(struct evidence *e, const struct ev_sides *s, const struct ev_message *m)
{
    const struct ev_conn *c = ev_conn(e, m->conn);
    struct trace_event ev = {.ts_ns = m->ts_ns,
                             .id = m->id,
                             .chat = m->chat,
                             .user = ev_user_of(c),
                             .conn = c->number,
                             .arg = m->end};
    if (m->what == EV_SEND && m->dir == 0 && m->complete && m->end <= c->acked[0]) {
        ev.hop = HOP_SERVER_RECEIVE;
        ev.flags = ev_maybe_unread(e, s, m) ? TRACE_FLAG_UNSURE : s->legacy ? 0 : TRACE_FLAG_DURABLE;
    } else if (m->what == EV_MSG && m->dir == 1) {
        /* a server that pushes once pushes to all at once: bytes that came out later waited in their stream
         */
        uint64_t first = s->legacy ? ev_first_push(s, &m->id) : UINT64_MAX;
        ev.hop = HOP_SERVER_PUSH;
        if (first < UINT64_MAX && m->ts_ns > first + PUSH_SPREAD_NS) {
            ev.ts_ns = first;
            ev.flags = TRACE_FLAG_INFERRED;
        }
    } else if (m->what == EV_ACCEPTED && m->dir == 1) { /* durable by chat.v1 */
        ev.arg = m->seq;
        ev.hop = HOP_SERVER_COMMIT;
        ev_emit(e, TRACE_SIDE_SERVER, ev);
        ev.hop = HOP_SERVER_ACCEPTED;
    } else if (m->what == EV_REJECT && m->dir == 1) {
        ev.hop = HOP_SERVER_REJECT;
        ev.reason = m->reason;
    } else {
        return;
    }
    ev_emit(e, TRACE_SIDE_SERVER, ev);
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
        ev_emit(e, TRACE_SIDE_LINK, ev);
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
        if (ev[i].conn && ev[i].hop == HOP_SOCKET_CLOSE && ev[i].ts_ns < last[ev[i].conn]) {
            if (ev[i].flags & TRACE_FLAG_UNSURE)
                ev[i].arg += last[ev[i].conn] - ev[i].ts_ns;
            ev[i].ts_ns = last[ev[i].conn];
        }
    if (n)
        qsort(ev, n, sizeof *ev, by_time);
    for (uint32_t i = 0; i < n; i++)
        if (ev[i].conn)
            ev[i].lane_seq = next[ev[i].conn]++;
    free(next);
    free(last);
    return 0;
}

static struct ev_sides look(const struct evidence *e)
{
    struct ev_sides s = {0};
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
    struct ev_sides s = look(e);
    int rc = ev_find_replaced(e, &s, ctx);
    rc = rc ? rc : ev_find_pushes(e, &s, ctx);
    for (int side = 0; rc == 0 && side < TRACE_SIDES; side++) {
        if ((side != TRACE_SIDE_LOAD && side != TRACE_SIDE_SERVER) || !want[side] ||
            (side == TRACE_SIDE_SERVER && !s.server))
            continue;
        for (uint32_t i = 0; i < e->conn.n; i++)
            open_and_close(e, &s, i, (enum trace_side)side);
        for (uint32_t i = 0; i < e->message.n; i++)
            if (ev_speaks_for(e, &s, ev_message(e, i)->conn, (enum trace_side)side))
                (side == TRACE_SIDE_LOAD ? at_phone : at_server)(e, &s, ev_message(e, i));
    }
    if (rc == 0 && want[TRACE_SIDE_SERVER] && s.server)
        ev_fan_out(e, &s);
    if (want[TRACE_SIDE_LINK] && s.phones && s.server)
        packets(e);
    for (int side = 0; rc == 0 && side < TRACE_SIDES; side++)
        rc = number_lanes(e, (enum trace_side)side, ctx);
    free(s.push);
    if (rc < 0)
        return rc;
    add_part(e, TRACE_SIDE_SERVER, missed_of(e, EVIDENCE_SERVER));
    add_part(e, TRACE_SIDE_LINK, missed_of(e, EVIDENCE_UNKNOWN));
    add_part(e, TRACE_SIDE_LOAD, missed_of(e, EVIDENCE_PHONES) + s.phones_from_server);
    return 0;
}
