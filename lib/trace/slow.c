/* Where slow messages spent their time. */
#include "trace/story_impl.h"

#include <stdlib.h>

const char *trace_leg_text(int leg)
{
    static const char *const text[LEG_COUNT] = {
        [LEG_OUTBOX] = "in the sender's outbox", [LEG_UPLINK] = "on the way up",
        [LEG_COMMIT] = "for the commit",         [LEG_FANOUT] = "for a connection to push to",
        [LEG_DOWNLINK] = "on the way down",      [LEG_CLIENT] = "in the recipient's app"};
    return leg >= 0 && leg < LEG_COUNT ? text[leg] : "unknown";
}

static uint64_t leg_end(uint64_t *from, uint64_t at)
{
    uint64_t ns = at > *from ? at - *from : 0;
    if (at > *from)
        *from = at;
    return ns;
}

static void decompose(const struct story *s, const struct trace_pair *p, struct trace_latency *l)
{
    const struct trace_event *ev = s->r->event;
    uint32_t from, to, push = TRACE_NONE, receive = TRACE_NONE;
    story_slice(s, p->recipient, &from, &to);
    *l = (struct trace_latency){.pair = *p, .sends = s->sends, .total_ns = p->surface_ns - p->submit_ns};
    for (uint32_t k = from; k < to; k++) {
        uint32_t rec = s->direct[k].rec;
        if (ev[rec].ts_ns > p->surface_ns)
            break;
        if (ev[rec].hop == HOP_SERVER_PUSH) {
            push = rec;
            l->pushes++;
        } else if (ev[rec].hop == HOP_CLIENT_RECEIVE) {
            receive = rec;
        }
    }
    uint64_t at = p->submit_ns;
    if (s->sends)
        l->leg_ns[LEG_OUTBOX] = leg_end(&at, ev[s->send[0]].ts_ns);
    if (s->first_received != TRACE_NONE)
        l->leg_ns[LEG_UPLINK] = leg_end(&at, ev[s->first_received].ts_ns);
    if (s->commit != TRACE_NONE && ev[s->commit].ts_ns <= p->surface_ns)
        l->leg_ns[LEG_COMMIT] = leg_end(&at, ev[s->commit].ts_ns);
    if (push != TRACE_NONE)
        l->leg_ns[LEG_FANOUT] = leg_end(&at, ev[push].ts_ns);
    if (receive != TRACE_NONE)
        l->leg_ns[LEG_DOWNLINK] = leg_end(&at, ev[receive].ts_ns);
    l->leg_ns[LEG_CLIENT] = leg_end(&at, p->surface_ns);
}

/* A min-heap of the slowest: the root is the first to go. */
static void keep_slow(struct trace_latency *h, int *n, int max, const struct trace_latency *l)
{
    int at;
    if (*n < max) {
        at = (*n)++;
        while (at && h[(at - 1) / 2].total_ns > l->total_ns) {
            h[at] = h[(at - 1) / 2];
            at = (at - 1) / 2;
        }
    } else {
        if (!max || h[0].total_ns >= l->total_ns)
            return;
        at = 0;
        for (int c = 1; c < max; c = 2 * at + 1) {
            if (c + 1 < max && h[c + 1].total_ns < h[c].total_ns)
                c++;
            if (h[c].total_ns >= l->total_ns)
                break;
            h[at] = h[c];
            at = c;
        }
    }
    h[at] = *l;
}

static int slower_first(const void *a, const void *b)
{
    const struct trace_latency *x = a, *y = b;
    return x->total_ns > y->total_ns ? -1 : x->total_ns < y->total_ns;
}

int trace_slowest(const struct trace_run *r, struct trace_latency *out, int max, int *n, struct err_ctx *ctx)
{
    struct story s = {0};
    struct trace_pair p;
    struct trace_latency l;
    int rc = 0;
    *n = 0;
    for (uint32_t m = 0; rc == 0 && m < r->index->messages.n; m++) {
        rc = story_read(&s, r, m);
        for (uint32_t i = 0; rc == 0 && i < s.recipients; i++) {
            story_judge(&s, s.recipient[i], &p);
            if (p.verdict != VERDICT_DELIVERED || !p.submit_ns || p.surface_ns < p.submit_ns)
                continue;
            if (*n == max && max && out[0].total_ns >= p.surface_ns - p.submit_ns)
                continue;
            decompose(&s, &p, &l);
            keep_slow(out, n, max, &l);
        }
    }
    story_release(&s);
    qsort(out, (size_t)*n, sizeof *out, slower_first);
    return rc < 0 ? err_set(ctx, rc, "%s", err_text(rc)) : 0;
}
