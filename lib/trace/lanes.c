#include "trace/index_impl.h"

#include <stdlib.h>
#include <string.h>

#include "util/clock.h"

/* A phone writes SOCKET_OPEN after the HTTP handshake, a server there or when it knows the user:
 * retransmissions may lie between. What a phone sent before it left its connection may still open the
 * server's end. */
#define HANDSHAKE_NS   (120 * NS_PER_S)
#define AFTER_CLOSE_NS (10 * NS_PER_S)

static struct id lane_id(const struct trace_event *e)
{
    uint64_t v[2] = {e->conn, e->node};
    struct id key;
    memcpy(&key, v, sizeof key);
    return key;
}

bool lane_key(const struct trace_event *e, struct id *key)
{
    enum trace_side side = trace_side(e->node);
    *key = lane_id(e);
    return e->conn && (side == TRACE_SIDE_SERVER || side == TRACE_SIDE_LOAD);
}

void lane_read(const struct trace_run *r, uint32_t number, struct lane *l)
{
    const struct groups *g = &r->index->lanes;
    *l = (struct lane){.open = TRACE_NONE, .close = TRACE_NONE, .peer = TRACE_NONE, .flow = TRACE_NONE};
    for (uint32_t k = g->first[number]; k < g->first[number + 1]; k++) {
        const struct trace_event *e = &r->event[g->rec[k]];
        bool opens = e->hop == HOP_SOCKET_OPEN && e->lane_seq == 0 && !l->begun;
        if (!l->begun) {
            l->start_ns = e->ts_ns;
            l->node = e->node;
        }
        /* a number missing before this record, or a record after the end */
        if (e->lane_seq != l->next || (!l->begun && !opens) || l->close != TRACE_NONE)
            l->hole_ns = e->ts_ns ? e->ts_ns : 1;
        l->begun = true;
        l->next = (uint16_t)(e->lane_seq + 1);
        l->end_ns = e->ts_ns;
        if (opens) {
            l->open = g->rec[k];
            l->user = e->user;
            l->device = e->device;
            l->net = e->reason < NET_COUNT ? e->reason : NET_UNKNOWN;
        } else if (e->hop == HOP_SOCKET_CLOSE) {
            l->close = g->rec[k];
        }
    }
}

struct lane *lane_of(const struct trace_run *r, const struct trace_event *e)
{
    struct id key;
    if (!lane_key(e, &key))
        return NULL;
    uint32_t n = groups_find(&r->index->lanes, &key);
    return n == TRACE_NONE ? NULL : &r->index->lane[n];
}

bool lane_complete_since(const struct lane *l, uint64_t ns)
{
    return l->close != TRACE_NONE && (l->hole_ns == 0 || l->hole_ns + SKEW_NS < ns);
}

uint32_t lane_read_at(const struct trace_run *r, const struct lane *l, uint64_t offset, uint64_t since_ns)
{
    const struct groups *g = &r->index->lanes;
    uint32_t number = (uint32_t)(l - r->index->lane), n = g->first[number + 1] - g->first[number];
    const uint32_t *rec = &g->rec[g->first[number]];
    for (uint32_t k = first_since(r, rec, n, since_ns); k < n; k++) {
        const struct trace_event *e = &r->event[rec[k]];
        if (e->hop == HOP_SOCKET_READ && e->arg >= offset)
            return rec[k];
    }
    return TRACE_NONE;
}

/* A phone's records mean the phone's own user, whatever the message says. */
uint64_t event_user(const struct trace_run *r, const struct trace_event *e)
{
    const struct lane *l = trace_side(e->node) == TRACE_SIDE_LOAD || !e->user ? lane_of(r, e) : NULL;
    return l && l->user ? l->user : e->user;
}

/* ---- the two ends of a connection: same 4-tuple, nearest in time, each other's nearest ---- */

struct end {
    struct id key;
    uint64_t ns;
    uint32_t lane;
    bool server;
};

static int compare_ends(const void *a, const void *b)
{
    const struct end *x = a, *y = b;
    int c = memcmp(&x->key, &y->key, sizeof x->key);
    if (c)
        return c;
    if (x->ns != y->ns)
        return x->ns < y->ns ? -1 : 1;
    return x->lane < y->lane ? -1 : x->lane > y->lane;
}

/* A distance, or UINT64_MAX where the two can't be one connection. */
static uint64_t distance(const struct trace_run *r, const struct end *a, const struct end *b)
{
    const struct end *c = a->server ? b : a, *s = a->server ? a : b;
    if (a->server == b->server)
        return UINT64_MAX;
    const struct lane *cl = &r->index->lane[c->lane], *sl = &r->index->lane[s->lane];
    if (s->ns > c->ns + HANDSHAKE_NS || c->ns > s->ns + HANDSHAKE_NS)
        return UINT64_MAX;
    /* where phones' records are missing, a later connection of the same 4-tuple may be the one that opened it
     */
    uint64_t after = r->complete[TRACE_SIDE_LOAD] ? AFTER_CLOSE_NS : 0;
    if ((cl->close != TRACE_NONE && s->ns > cl->end_ns + after) ||
        (sl->close != TRACE_NONE && c->ns > sl->end_ns))
        return UINT64_MAX;
    if (cl->user && sl->user && cl->user != sl->user)
        return UINT64_MAX;
    return s->ns > c->ns ? s->ns - c->ns : c->ns - s->ns;
}

#define NEIGHBOURS 8 /* of one 4-tuple, to either side in time */

static uint32_t nearest(const struct trace_run *r, const struct end *e, uint32_t n, uint32_t at)
{
    uint64_t best = UINT64_MAX;
    uint32_t found = TRACE_NONE;
    uint32_t lo = at > NEIGHBOURS ? at - NEIGHBOURS : 0, hi = at + NEIGHBOURS < n ? at + NEIGHBOURS : n - 1;
    for (uint32_t i = lo; i <= hi; i++) {
        if (i == at || !id_equal(&e[i].key, &e[at].key))
            continue;
        uint64_t d = distance(r, &e[i], &e[at]);
        if (d < best) {
            best = d;
            found = i;
        }
    }
    return found;
}

int match_lanes(const struct trace_run *r)
{
    struct trace_index *x = r->index;
    struct end *e = malloc(((size_t)x->lanes.n + 1) * sizeof *e);
    uint32_t n = 0;
    if (!e)
        return ERR_NOMEM;
    for (uint32_t i = 0; i < x->lanes.n; i++) {
        struct lane *l = &x->lane[i];
        if (l->open == TRACE_NONE)
            continue;
        const struct trace_event *open = &r->event[l->open];
        memset(&e[n], 0, sizeof e[n]);
        e[n].key = flow_key(&open->id, false);
        e[n].ns = open->ts_ns;
        e[n].lane = i;
        e[n].server = trace_side(open->node) == TRACE_SIDE_SERVER;
        l->flow = groups_find(&x->flows, &e[n].key);
        n++;
    }
    qsort(e, n, sizeof *e, compare_ends);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t other = nearest(r, e, n, i);
        if (other != TRACE_NONE && nearest(r, e, n, other) == i)
            x->lane[e[i].lane].peer = e[other].lane;
    }
    free(e);
    return 0;
}
