/* What the link did to the packets of a connection. */
#include "trace/index_impl.h"

#include <stdlib.h>
#include <string.h>

#define SYN_BEFORE_NS (120 * NS_PER_S) /* a handshake with lost packets may take this long */

/* Records of this connection's flow and direction, with its stream's origin. */
struct direction {
    const uint32_t *rec;
    uint32_t n;
    uint32_t origin; /* tcp seq of the first byte of the stream */
};

static uint32_t tcp_seq(const struct trace_event *e)
{
    struct trace_flow f;
    memcpy(&f, &e->id, sizeof f);
    return f.tcp_seq;
}

/* A 4-tuple may be reused: from the last SYN before the lane opened up to the next SYN with another number.
 */
static bool find_direction(const struct trace_run *r, const struct lane *client, const struct lane *server,
                           bool down, struct direction *d)
{
    const struct groups *g = &r->index->flows;
    const struct lane *l = client && client->flow != TRACE_NONE ? client : server;
    if (!l || l->flow == TRACE_NONE)
        return false;
    uint64_t opened = l->start_ns;
    uint32_t first = g->first[l->flow], end = g->first[l->flow + 1], syn = TRACE_NONE;
    for (uint32_t k = first; k < end; k++) {
        const struct trace_event *e = &r->event[g->rec[k]];
        if (!(e->flags & TRACE_FLAG_SYN) || !!(e->flags & TRACE_FLAG_DOWN) != down)
            continue;
        if (e->ts_ns > opened + SKEW_NS) {
            if (syn != TRACE_NONE && tcp_seq(e) + 1 != d->origin) {
                end = k;
                break;
            }
            continue;
        }
        if (syn == TRACE_NONE || tcp_seq(e) + 1 != d->origin) {
            syn = k;
            d->origin = tcp_seq(e) + 1;
        }
    }
    if (syn == TRACE_NONE || r->event[g->rec[syn]].ts_ns + SYN_BEFORE_NS < opened)
        return false;
    d->rec = &g->rec[syn];
    d->n = end - syn;
    return true;
}

struct span {
    uint64_t from, to;
};

static int compare_spans(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    return x->from < y->from ? -1 : x->from > y->from;
}

static bool measure(const struct trace_run *r, const struct lane *client, const struct lane *server,
                    bool down, uint64_t *end)
{
    struct direction d;
    *end = 0;
    if (!find_direction(r, client, server, down, &d))
        return false;
    struct span *s = malloc(((size_t)d.n + 1) * sizeof *s);
    uint32_t n = 0;
    if (!s)
        return false;
    for (uint32_t k = 0; k < d.n; k++) {
        const struct trace_event *e = &r->event[d.rec[k]];
        if (e->hop != HOP_LINK_DELIVER || !!(e->flags & TRACE_FLAG_DOWN) != down || !e->arg ||
            (e->flags & TRACE_FLAG_SYN))
            continue;
        uint64_t from = tcp_seq(e) - d.origin;
        s[n++] = (struct span){from, from + (e->arg & 0xffffffff)};
    }
    qsort(s, n, sizeof *s, compare_spans);
    for (uint32_t i = 0; i < n && s[i].from <= *end; i++)
        if (s[i].to > *end)
            *end = s[i].to;
    free(s);
    return true;
}

/* Asked for every message lost on a connection, measured once: 0 not yet, 1 no origin, else end + 2. */
bool link_reached(const struct trace_run *r, struct lane *client, const struct lane *server, bool down,
                  uint64_t *end)
{
    uint64_t *known = &client->reached[down];
    if (!*known)
        *known = measure(r, client, server, down, end) ? *end + 2 : 1;
    *end = *known - (*known > 1 ? 2 : 1);
    return *known > 1;
}

void link_packets(const struct trace_run *r, const struct lane *client, const struct lane *server, bool down,
                  uint64_t from, uint64_t to, link_fn *fn, void *arg)
{
    struct direction d;
    if (!find_direction(r, client, server, down, &d))
        return;
    for (uint32_t k = 0; k < d.n; k++) {
        const struct trace_event *e = &r->event[d.rec[k]];
        uint64_t at = (uint32_t)(tcp_seq(e) - d.origin);
        if (!!(e->flags & TRACE_FLAG_DOWN) == down && !(e->flags & TRACE_FLAG_SYN) && e->arg && at < to &&
            at + (e->arg & 0xffffffff) > from)
            fn(arg, d.rec[k]);
    }
}
