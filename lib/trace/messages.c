/* Messages whole: their records, their pairs, the packets that carried them. */
#include <stdlib.h>
#include <string.h>

#include "trace/story_impl.h"

int trace_messages(const struct trace_run *r, trace_message_fn *fn, void *arg)
{
    const struct groups *g = &r->index->messages;
    struct story s = {0};
    struct trace_pair *pair = NULL;
    uint32_t cap = 0;
    int rc = 0;
    bool more = true;
    for (uint32_t m = 0; rc == 0 && more && m < g->n; m++) {
        rc = story_read(&s, r, m);
        if (rc == 0 && s.recipients > cap) {
            struct trace_pair *bigger = realloc(pair, (size_t)s.recipients * 2 * sizeof *pair);
            rc = bigger ? 0 : ERR_NOMEM;
            pair = bigger ? bigger : pair;
            cap = bigger ? s.recipients * 2 : cap;
        }
        if (rc)
            break;
        for (uint32_t i = 0; i < s.recipients; i++)
            story_judge(&s, s.recipient[i], &pair[i]);
        struct trace_message message = {.id = s.id,
                                        .chat = s.chat,
                                        .sender = s.sender,
                                        .record = &g->rec[g->first[m]],
                                        .records = g->first[m + 1] - g->first[m],
                                        .pair = pair,
                                        .pairs = s.recipients};
        more = fn(arg, &message);
    }
    story_release(&s);
    free(pair);
    return rc;
}

struct carrying {
    trace_carried_fn *fn;
    void *arg;
    uint32_t record;
    bool more;
};

static void carried(void *arg, uint32_t packet)
{
    struct carrying *c = arg;
    c->more = c->more && c->fn(c->arg, packet, c->record);
}

/* What a lane wrote, record by record: each begins where the one before it ended. */
static void carried_of_lane(const struct trace_run *r, uint32_t number, struct carrying *c)
{
    const struct groups *g = &r->index->lanes;
    struct lane *l = &r->index->lane[number];
    struct lane *other = l->peer != TRACE_NONE ? &r->index->lane[l->peer] : NULL;
    bool down = trace_side(l->node) == TRACE_SIDE_SERVER;
    uint64_t from = 0;
    for (uint32_t k = g->first[number]; c->more && k < g->first[number + 1]; k++) {
        const struct trace_event *e = &r->event[g->rec[k]];
        bool message = e->hop == HOP_CLIENT_SEND || e->hop == HOP_SERVER_PUSH;
        if (!message && e->hop != HOP_SOCKET_WRITE)
            continue;
        c->record = g->rec[k];
        /* the bytes of what else was written in between are not known apart */
        if (message && e->arg > from)
            link_packets(r, down ? other : l, down ? l : other, down,
                         (struct byte_range){from, e->arg, skewed_before(e->ts_ns)}, carried, c);
        from = e->arg > from ? e->arg : from;
    }
}

void trace_carried(const struct trace_run *r, trace_carried_fn *fn, void *arg)
{
    struct carrying c = {.fn = fn, .arg = arg, .more = true};
    for (uint32_t i = 0; c.more && i < r->index->lanes.n; i++)
        carried_of_lane(r, i, &c);
}

bool trace_connection(const struct trace_run *r, uint32_t record, struct trace_flow *out)
{
    const struct lane *l = lane_of(r, &r->event[record]);
    if (!l || l->open == TRACE_NONE)
        return false;
    memcpy(out, &r->event[l->open].id, sizeof *out);
    return true;
}
