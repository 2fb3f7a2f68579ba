/* What the link did to the packets of a connection. */
#include "trace/index_impl.h"

#include <stdlib.h>
#include <string.h>

#define SYN_BEFORE_NS (120 * NS_PER_S) /* a handshake with lost packets may take this long */

static uint32_t tcp_seq(const struct trace_event *e)
{
    struct trace_flow f;
    memcpy(&f, &e->id, sizeof f);
    return f.tcp_seq;
}

uint32_t first_since(const struct trace_run *r, const uint32_t *rec, uint32_t n, uint64_t ns)
{
    uint32_t lo = 0, hi = n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (r->event[rec[mid]].ts_ns < ns)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* A 4-tuple may be reused: from the last SYN before the lane opened up to the next SYN with another number.
 */
static void find(const struct trace_run *r, const struct lane *l, bool down, struct direction *d)
{
    const struct groups *g = &r->index->flows;
    uint64_t opened = l->start_ns;
    uint32_t first = g->first[l->flow], end = g->first[l->flow + 1], syn = TRACE_NONE;
    for (uint32_t k = first; k < end; k++) {
        const struct trace_event *e = &r->event[g->rec[k]];
        if (!(e->flags & TRACE_FLAG_SYN) || !!(e->flags & TRACE_FLAG_DOWN) != down)
            continue;
        bool other = syn == TRACE_NONE || tcp_seq(e) + 1 != d->origin; /* else sent again */
        if (e->ts_ns > opened + SKEW_NS) {
            if (syn != TRACE_NONE && other)
                end = k;
        } else if (other) {
            syn = k;
            d->origin = tcp_seq(e) + 1;
        }
    }
    if (syn == TRACE_NONE || r->event[g->rec[syn]].ts_ns + SYN_BEFORE_NS < opened)
        return;
    d->rec = &g->rec[syn];
    d->n = end - syn;
    d->found = true;
}

/* NULL when the origin of the stream is not on record. */
static struct direction *direction_of(const struct trace_run *r, struct lane *client, struct lane *server,
                                      bool down)
{
    struct lane *l = client && client->flow != TRACE_NONE ? client : server;
    if (!l || l->flow == TRACE_NONE)
        return NULL;
    struct direction *d = &l->dir[down];
    if (!d->asked) {
        d->asked = true;
        find(r, l, down, d);
    }
    return d->found ? d : NULL;
}

struct span {
    uint64_t from, to;
};

static int compare_spans(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    return x->from < y->from ? -1 : x->from > y->from;
}

static bool measure(const struct trace_run *r, bool down, struct direction *d)
{
    struct span *s = malloc(((size_t)d->n + 1) * sizeof *s);
    uint32_t n = 0;
    if (!s)
        return false;
    for (uint32_t k = 0; k < d->n; k++) {
        const struct trace_event *e = &r->event[d->rec[k]];
        if (e->hop != HOP_LINK_DELIVER || !!(e->flags & TRACE_FLAG_DOWN) != down || !e->arg ||
            (e->flags & TRACE_FLAG_SYN))
            continue;
        uint64_t from = tcp_seq(e) - d->origin;
        s[n++] = (struct span){from, from + (e->arg & 0xffffffff)};
    }
    qsort(s, n, sizeof *s, compare_spans);
    for (uint32_t i = 0; i < n && s[i].from <= d->reached; i++)
        if (s[i].to > d->reached)
            d->reached = s[i].to;
    free(s);
    return true;
}

bool link_reached(const struct trace_run *r, struct lane *client, struct lane *server, bool down,
                  uint64_t *end)
{
    struct direction *d = direction_of(r, client, server, down);
    *end = 0;
    if (!d || (!d->measured && !(d->measured = measure(r, down, d))))
        return false;
    *end = d->reached;
    return true;
}

void link_packets(const struct trace_run *r, struct lane *client, struct lane *server, bool down,
                  struct byte_range range, link_fn *fn, void *arg)
{
    const struct direction *d = direction_of(r, client, server, down);
    if (!d)
        return;
    for (uint32_t k = first_since(r, d->rec, d->n, range.since_ns); k < d->n; k++) {
        const struct trace_event *e = &r->event[d->rec[k]];
        uint64_t at = (uint32_t)(tcp_seq(e) - d->origin);
        if (!!(e->flags & TRACE_FLAG_DOWN) == down && !(e->flags & TRACE_FLAG_SYN) && e->arg &&
            at < range.to && at + (e->arg & 0xffffffff) > range.from)
            fn(arg, d->rec[k]);
    }
}

uint32_t link_reset(const struct trace_run *r, struct lane *client, struct lane *server, uint64_t since_ns)
{
    uint32_t found = TRACE_NONE;
    for (int down = 0; down < 2; down++) {
        const struct direction *d = direction_of(r, client, server, down);
        for (uint32_t k = d ? first_since(r, d->rec, d->n, since_ns) : 0; d && k < d->n; k++)
            if (r->event[d->rec[k]].flags & TRACE_FLAG_RST) {
                found = d->rec[k] < found ? d->rec[k] : found;
                break;
            }
    }
    return found;
}
