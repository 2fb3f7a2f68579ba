/* The two ends of a link: their clocks, and which packets went in and never came out. */
#include <stdlib.h>
#include <string.h>

#include "wire/pcap/evidence_impl.h"

#define WAY_MAX_NS 120000000000ull /* nothing is under way longer */

/* Packets by hash, then time. */
static int by_hash(const void *a, const void *b, void *arg)
{
    const struct evidence *e = arg;
    const struct ev_packet *x = ev_packet(e, *(const uint32_t *)a), *y = ev_packet(e, *(const uint32_t *)b);
    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    return x->ts_ns < y->ts_ns ? -1 : x->ts_ns > y->ts_ns;
}

static bool at_sender(const struct evidence *e, const struct ev_packet *p)
{
    return (ev_role(e, p->conn) == EVIDENCE_PHONES) == (p->dir == 0);
}

struct delays {
    int64_t least[2]; /* by direction: at the receiving end minus at the sending one */
    bool seen[2];
};

/* Packets of one hash: those that left, those that came. Once each is the usual case. */
static void measure(const struct evidence *e, const uint32_t *at, uint32_t n, struct delays *d)
{
    if (n != 2)
        return;
    const struct ev_packet *x = ev_packet(e, at[0]), *y = ev_packet(e, at[1]);
    if (x->dir != y->dir || at_sender(e, x) == at_sender(e, y))
        return;
    const struct ev_packet *from = at_sender(e, x) ? x : y, *to = from == x ? y : x;
    int64_t delay = (int64_t)(to->ts_ns - from->ts_ns);
    if (!d->seen[x->dir] || delay < d->least[x->dir])
        d->least[x->dir] = delay;
    d->seen[x->dir] = true;
}

/* The server's point is moved by as little as causality demands. */
static void align(struct evidence *e, const struct delays *d)
{
    /* up = way + offset >= offset; down = way - offset */
    int64_t hi = d->least[0], lo = -d->least[1];
    if (!d->seen[0] || !d->seen[1])
        return;
    int64_t offset = lo > 0 || hi < 0 ? lo / 2 + hi / 2 : 0;
    uint64_t wide = (uint64_t)(hi - offset > offset - lo ? hi - offset : offset - lo);
    for (uint32_t i = 0; i < e->points; i++) {
        e->point[i].clock_err = wide;
        if (e->point[i].role == EVIDENCE_SERVER)
            e->point[i].clock_ns = -offset;
    }
    for (uint32_t i = 0; offset && i < e->packet.n; i++)
        if (ev_role(e, ev_packet(e, i)->conn) == EVIDENCE_SERVER)
            ev_packet(e, i)->ts_ns -= (uint64_t)offset;
    for (uint32_t i = 0; offset && i < e->message.n; i++)
        if (ev_role(e, ev_message(e, i)->conn) == EVIDENCE_SERVER) {
            ev_message(e, i)->ts_ns -= (uint64_t)offset;
            ev_message(e, i)->first_ns -= (uint64_t)offset;
        }
    for (uint32_t i = 0; offset && i < e->conn.n; i++) {
        struct ev_conn *c = ev_conn(e, i);
        if (e->point[c->point].role != EVIDENCE_SERVER)
            continue;
        uint64_t *t[] = {&c->open_ns,
                         &c->close_ns,
                         &c->end_ns,
                         &c->stalled_ns,
                         &c->left_ns,
                         &c->spoke_ns,
                         &c->syn_ns,
                         &c->heard_ns,
                         &c->took_ns,
                         &c->stuck[0].since_ns,
                         &c->stuck[1].since_ns,
                         &c->end_seen_ns[0],
                         &c->end_seen_ns[1],
                         &c->may_end_ns[0],
                         &c->may_end_ns[1]};
        for (size_t k = 0; k < sizeof t / sizeof *t; k++)
            *t[k] -= *t[k] ? (uint64_t)offset : 0;
    }
}

/* Each arrival belongs to the latest departure before it that is not taken. */
static void pair(const struct evidence *e, const uint32_t *at, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        struct ev_packet *to = ev_packet(e, at[i]);
        if (at_sender(e, to))
            continue;
        for (uint32_t k = n; k-- > 0;) {
            struct ev_packet *from = ev_packet(e, at[k]);
            if (!at_sender(e, from) || from->paired || from->dir != to->dir ||
                from->ts_ns > to->ts_ns + 1000000 || to->ts_ns > from->ts_ns + WAY_MAX_NS)
                continue;
            from->paired = to->paired = true;
            break;
        }
    }
}

int ev_match(struct evidence *e, struct err_ctx *ctx)
{
    struct delays d = {0};
    uint32_t n = e->packet.n, *order = malloc(((size_t)n + 1) * sizeof *order);
    if (!order)
        return err_set(ctx, ERR_NOMEM, "%u packets: out of memory", n);
    for (uint32_t i = 0; i < n; i++)
        order[i] = i;
    qsort_r(order, n, sizeof *order, by_hash, e);
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t from = 0, to; from < n; from = to) {
            for (to = from + 1; to < n && ev_packet(e, order[to])->hash == ev_packet(e, order[from])->hash;
                 to++)
                ;
            if (pass == 0)
                measure(e, order + from, to - from, &d);
            else
                pair(e, order + from, to - from);
        }
        if (pass == 0)
            align(e, &d);
    }
    free(order);
    return 0;
}
