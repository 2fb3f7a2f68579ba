/* When phones left their connections, where nobody said so. */
#include <stdlib.h>

#include "wire/pcap/evidence_impl.h"

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
static void find_presence(const struct evidence *e, struct map *presence)
{
    for (uint32_t i = 0; i < e->packet.n; i++) {
        const struct ev_packet *p = ev_packet(e, i);
        struct trace_flow f = client_first(p);
        struct presence *at = map_put(presence, &f, NULL);
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
static int close_replaced(struct evidence *e, const struct ev_sides *s, const struct map *presence,
                          struct err_ctx *ctx)
{
    for (uint32_t i = 0; i < e->conn.n; i++) {
        struct ev_conn *c = ev_conn(e, i);
        const struct presence *at = map_get(presence, &c->flow);
        c->there_ns = at && at->there_ns > c->heard_ns ? at->there_ns : c->heard_ns;
    }
    struct by_device *d = calloc((size_t)e->conn.n + 1, sizeof *d);
    uint32_t n = 0;
    if (!d)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    for (uint32_t i = 0; i < e->conn.n; i++) {
        const struct ev_conn *c = ev_conn(e, i);
        if (c->websocket && c->user && c->syn_ns && ev_speaks_for(e, s, i, TRACE_SIDE_LOAD))
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
        const struct presence *at = map_get(presence, &c->flow);
        if (at && at->gone_ns && at->gone_ns < next) {
            c->close_ns = at->gone_ns - 1; /* what was offered then came too late */
            c->close_reason = REASON_NETWORK_CHANGED;
            c->spoke_ns = c->heard_ns; /* it left its address with its app still alive */
        }
    }
    free(d);
    return 0;
}

int ev_find_replaced(struct evidence *e, const struct ev_sides *s, struct err_ctx *ctx)
{
    struct map presence;
    map_init(&presence, sizeof(struct trace_flow), sizeof(struct presence), UINT32_MAX, 4);
    find_presence(e, &presence);
    int rc = close_replaced(e, s, &presence, ctx);
    map_release(&presence);
    return rc;
}
