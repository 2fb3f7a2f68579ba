/* A trace as the source: connections, what was said, and where a connection died before it ended. */
#include <stdlib.h>
#include <string.h>

#include "load/replay.h"
#include "trace/join.h"

#define BEFORE_NS NS_PER_MS /* frozen so long before the first message that was lost is said */

/* A connection of a phone. */
struct conn {
    uint64_t user, open_ns, close_ns; /* close_ns 0: it lasted */
    uint64_t alive_ns, lost_ns; /* when the last thing that passed, and the first that did not, was said */
    uint32_t next;              /* of the same user, or TRACE_NONE */
    uint8_t reason;
};

struct said {
    uint64_t ns, received; /* received: by a server */
};

struct reading {
    struct replay *r;
    const struct trace_run *run;
    struct map conn_of, flow, message, got; /* {node, conn}; client's address; id; {id, user} */
    struct map last;                        /* user -> latest connection */
    struct conn *conn;
    uint32_t conns, cap;
    bool phones; /* the phones' own records are there */
    uint64_t intents, first_ns;
    int rc;
};

static void must(struct reading *d, const void *p)
{
    if (!p && !d->rc)
        d->rc = ERR_NOMEM;
}

static uint64_t address(const struct trace_flow *f)
{
    return (uint64_t)f->src << 16 | f->sport;
}

static struct conn *conn_of(struct reading *d, const struct trace_event *e)
{
    uint64_t key = (uint64_t)e->node << 32 | e->conn, *place = map_get_u64(&d->conn_of, key);
    return place ? &d->conn[*place] : NULL;
}

static bool ours(const struct reading *d, const struct trace_event *e)
{
    return trace_side(e->node) == (d->phones ? TRACE_SIDE_LOAD : TRACE_SIDE_SERVER);
}

static void open_conn(struct reading *d, const struct trace_event *e)
{
    struct trace_flow f;
    uint32_t device = e->device ? e->device : 1;
    if (!e->user || !e->conn)
        return;
    d->rc = replay_person(d->r, e->user, device, (enum net)e->reason);
    if (d->rc || replay_device(d->r, e->user) != device)
        return;
    if (d->conns == d->cap) {
        uint32_t cap = d->cap ? d->cap * 2 : 256;
        struct conn *more = realloc(d->conn, cap * sizeof *more);
        must(d, more);
        if (!more)
            return;
        d->conn = more;
        d->cap = cap;
    }
    uint64_t *place = map_put_u64(&d->conn_of, (uint64_t)e->node << 32 | e->conn, NULL), *at;
    must(d, place);
    memcpy(&f, &e->id, sizeof f);
    at = map_put_u64(&d->flow, address(&f), NULL);
    must(d, at);
    if (d->rc)
        return;
    *place = *at = d->conns;
    d->conn[d->conns++] =
        (struct conn){.user = e->user, .open_ns = e->ts_ns, .lost_ns = UINT64_MAX, .next = TRACE_NONE};
}

static void say(struct reading *d, const struct trace_event *e, bool again)
{
    bool fresh;
    struct said *m = map_put(&d->message, &e->id, &fresh);
    must(d, m);
    if (!m || !e->user || !e->chat || (!fresh && m->ns && !again))
        return;
    if (!m->ns)
        m->ns = e->ts_ns;
    d->first_ns = d->first_ns && d->first_ns < e->ts_ns ? d->first_ns : e->ts_ns;
    d->r->reliable |= e->hop == HOP_CLIENT_SUBMIT && (e->flags & TRACE_FLAG_OUTBOX);
    /* a phone numbers what its person means; a server that saw it come does not know */
    uint64_t intent = d->phones && e->arg ? e->arg : (1ull << 63) + ++d->intents;
    d->rc = replay_add(d->r, &(struct replay_act){.ts_ns = e->ts_ns,
                                                  .user = e->user,
                                                  .chat = e->chat,
                                                  .intent = intent,
                                                  .act = again ? LOAD_PRESS : LOAD_SAY,
                                                  .id = e->id});
}

static void received(struct reading *d, const struct trace_event *e)
{
    uint64_t key[3];
    memcpy(key, &e->id, sizeof e->id);
    const struct conn *c = conn_of(d, e);
    key[2] = c ? c->user : e->user;
    must(d, map_put(&d->got, key, NULL));
    d->rc = d->rc ? d->rc : replay_member(d->r, e->chat, key[2]);
}

static void first_look(struct reading *d, const struct trace_event *e)
{
    struct conn *c;
    struct said *m;
    switch (e->hop) {
    case HOP_SOCKET_OPEN:
        if (ours(d, e))
            open_conn(d, e);
        break;
    case HOP_SOCKET_CLOSE:
        if (ours(d, e) && (c = conn_of(d, e))) {
            c->close_ns = e->ts_ns;
            c->reason = e->reason;
        }
        break;
    case HOP_CLIENT_SUBMIT:
    case HOP_CLIENT_RESEND:
        if (d->phones)
            say(d, e, e->hop == HOP_CLIENT_RESEND);
        break;
    case HOP_SERVER_RECEIVE:
        if (!d->phones)
            say(d, e, false);
        m = map_put(&d->message, &e->id, NULL);
        must(d, m);
        if (m)
            m->received = 1;
        break;
    case HOP_CLIENT_RECEIVE:
    case HOP_CLIENT_SURFACE:
        received(d, e);
        break;
    case HOP_SERVER_PUSH:
        d->rc = replay_member(d->r, e->chat, e->user);
        break;
    case HOP_SERVER_MEMBER:
        if (!(e->flags & TRACE_FLAG_LEFT))
            d->rc = replay_member(d->r, e->chat, e->user);
        break;
    default:
        break;
    }
}

static void passed(struct conn *c, uint64_t ns, bool arrived)
{
    if (arrived)
        c->alive_ns = ns > c->alive_ns ? ns : c->alive_ns;
    else
        c->lost_ns = ns < c->lost_ns ? ns : c->lost_ns;
}

/* What passed on each connection, and what did not. */
static void second_look(struct reading *d, uint32_t record)
{
    const struct trace_event *e = &d->run->event[record];
    const struct said *m = map_get(&d->message, &e->id);
    struct conn *c = conn_of(d, e);
    struct trace_flow f;
    uint64_t key[3], *place;
    switch (e->hop) {
    case HOP_SOCKET_OPEN: /* in the order of time: an address may be used again */
        memcpy(&f, &e->id, sizeof f);
        if (c && ours(d, e) && (place = map_get_u64(&d->flow, address(&f))))
            *place = (uint64_t)(c - d->conn);
        break;
    case HOP_CLIENT_SEND:
        if (c && m)
            passed(c, e->ts_ns, m->received);
        break;
    case HOP_CLIENT_RECEIVE:
        if (c && m)
            passed(c, m->ns, true);
        break;
    case HOP_SERVER_PUSH:
        if (!m || !m->ns || !trace_connection(d->run, record, &f) ||
            !(place = map_get_u64(&d->flow, address(&f))) || d->conn[*place].user != e->user)
            break;
        memcpy(key, &e->id, sizeof e->id);
        key[2] = e->user;
        if (!map_get(&d->got, key))
            passed(&d->conn[*place], m->ns, false);
        break;
    default:
        break;
    }
}

/* Ends that nobody suffered: they come by themselves again, or belong to the run. */
static bool suffered(const struct conn *c)
{
    return c->close_ns && c->reason != REASON_RUN_END && c->reason != REASON_REPLACED;
}

static void add(struct reading *d, const struct conn *c, enum load_act act, uint64_t ns)
{
    if (!d->rc)
        d->rc = replay_add(
            d->r,
            &(struct replay_act){.ts_ns = ns, .user = c->user, .act = act, .reason = (enum reason)c->reason});
}

static void act_out(struct reading *d, const struct conn *c)
{
    const struct conn *next = c->next != TRACE_NONE ? &d->conn[c->next] : NULL;
    if (c->open_ns <= d->first_ns && (!c->close_ns || c->close_ns > d->first_ns))
        replay_connected(d->r, c->user);
    if (c->open_ns > d->first_ns)
        add(d, c, LOAD_RETURN, c->open_ns); /* does nothing to who is there */
    if (!suffered(c) || c->close_ns < d->first_ns || (next && next->open_ns < c->close_ns))
        return;
    if (d->phones && c->lost_ns != UINT64_MAX) {
        uint64_t gap = c->lost_ns > c->alive_ns ? c->lost_ns - c->alive_ns : 0;
        uint64_t ns = !gap                  ? c->alive_ns + BEFORE_NS
                      : gap > 2 * BEFORE_NS ? c->lost_ns - BEFORE_NS
                                            : c->alive_ns + gap / 2;
        ns = ns > c->open_ns ? ns : c->open_ns + 1;
        if (ns < c->close_ns && ns > d->first_ns)
            add(d, c, LOAD_FREEZE, ns);
    }
    add(d, c, LOAD_LEAVE, c->close_ns);
}

static void read_all(struct reading *d)
{
    const struct trace_run *run = d->run;
    for (uint32_t i = 0; i < run->events && !d->rc; i++)
        first_look(d, &run->event[i]);
    for (uint32_t i = 0; i < run->events && !d->rc && d->phones; i++)
        second_look(d, i);
    for (uint32_t i = 0; i < d->conns && !d->rc; i++) {
        uint64_t *last = map_put_u64(&d->last, d->conn[i].user, NULL);
        must(d, last);
        if (last && *last)
            d->conn[*last - 1].next = i;
        if (last)
            *last = i + 1;
    }
    for (uint32_t i = 0; i < d->conns && !d->rc; i++)
        act_out(d, &d->conn[i]);
}

int replay_from_trace(struct replay *r, const struct trace_run *run, const struct replay_options *o,
                      struct err_ctx *ctx)
{
    struct reading d = {.r = r, .run = run, .phones = run->exists[TRACE_SIDE_LOAD]};
    map_init(&d.conn_of, 8, 8, UINT32_MAX, 1);
    map_init(&d.flow, 8, 8, UINT32_MAX, 1);
    map_init(&d.message, sizeof(struct id), sizeof(struct said), UINT32_MAX, 1);
    map_init(&d.got, 24, 8, UINT32_MAX, 1);
    map_init(&d.last, 8, 8, UINT32_MAX, 1);
    read_all(&d);
    map_release(&d.conn_of);
    map_release(&d.flow);
    map_release(&d.message);
    map_release(&d.got);
    map_release(&d.last);
    free(d.conn);
    if (d.rc == ERR_LIMIT)
        return err_set(ctx, d.rc, "more than %u phones, or a chat of more than %u members", LOAD_PHONES_MAX,
                       PROTO_USERS_MAX);
    return d.rc ? err_set(ctx, d.rc, "reading what to re-enact: %s", err_text(d.rc))
                : replay_finish(r, o, ctx);
}
