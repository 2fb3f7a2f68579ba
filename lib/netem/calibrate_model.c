/* The model as a driver of its own calibration, in virtual time. */
#include <stdlib.h>

#include "netem/calibrate.h"
#include "netem/link.h"
#include "util/clock.h"

#define BEGIN_NS  NS_PER_S
#define EDGE_NS   (10 * NS_PER_MS) /* probes are dense this far around the edges of a window */
#define WINDOWS   8000u            /* enough of them */
#define HEAD_RING 65536u

struct run {
    struct calibrate *c;
    unsigned i;
    const struct calibrate_phase *phase;
    struct link link;
    /* drop-head directions: packets whose fate is open */
    struct link_head head[2];
    struct link_waiting *ring[2];
    uint64_t *offered[2];
};

static void tell(struct run *r, enum netem_dir dir, uint64_t offered_ns, uint32_t bytes,
                 const struct link_verdict *v)
{
    struct calibrate_packet p = {.offered_ns = offered_ns,
                                 .delivered_ns = v->deliver_ns,
                                 .copy_ns = v->copy_ns,
                                 .bytes = bytes,
                                 .dir = (uint8_t)dir,
                                 .reason = (uint8_t)v->reason,
                                 .corrupt = v->corrupt};
    calibrate_see(r->c, r->i, &p);
}

static void settle(struct run *r, enum netem_dir dir, uint64_t now_ns)
{
    struct link_head *h = &r->head[dir];
    struct link_verdict v;
    for (uint32_t first = h->first; link_head_next(h, now_ns, &v); first = h->first)
        tell(r, dir, r->offered[dir][first & (HEAD_RING - 1)], r->phase->way[dir].bytes, &v);
}

static void offer(struct run *r, enum netem_dir dir, uint64_t now_ns, uint32_t bytes)
{
    if (r->ring[dir]) {
        /* each at its own time, not when the next packet happens to come */
        while (link_head_due(&r->head[dir]) <= now_ns)
            settle(r, dir, link_head_due(&r->head[dir]));
        r->offered[dir][r->head[dir].next & (HEAD_RING - 1)] = now_ns;
        link_head_offer(&r->head[dir], now_ns, bytes);
        settle(r, dir, now_ns);
        return;
    }
    struct link_verdict v = link_offer(&r->link, dir, now_ns, bytes);
    tell(r, dir, now_ns, bytes, &v);
}

/* Both directions on one clock. */
static void run_steady(struct run *r)
{
    uint64_t sent[2] = {0, 0};
    for (;;) {
        int d = -1;
        uint64_t at[2];
        for (int k = 0; k < 2; k++) {
            at[k] = BEGIN_NS + sent[k] * r->phase->way[k].gap_ns;
            if (sent[k] < r->phase->way[k].packets && (d < 0 || at[k] < at[d]))
                d = k;
        }
        if (d < 0)
            break;
        offer(r, d, at[d], r->phase->way[d].bytes);
        sent[d]++;
    }
    for (int d = 0; d < 2; d++)
        while (r->ring[d] && link_head_due(&r->head[d]) != UINT64_MAX)
            settle(r, d, link_head_due(&r->head[d]));
}

/* A phase has windows of one kind. */
static const struct link_window *window_at(const struct link *l, uint64_t now)
{
    return l->blackout.start_ns <= now   ? &l->blackout
           : l->handover.start_ns <= now ? &l->handover
           : l->stall.start_ns <= now    ? &l->stall
                                         : &l->cell;
}

/* Windows are rare, so probes are dense at their edges and sparse between them; the link says where they are,
 * the probes whether that is so. */
static void run_windows(struct run *r)
{
    enum netem_dir dir = r->phase->way[NETEM_UP].packets ? NETEM_UP : NETEM_DOWN;
    uint64_t gap = r->phase->way[dir].gap_ns, n = r->phase->way[dir].packets, edge_ns = BEGIN_NS;
    enum link_state was = LINK_UP;
    struct link watch = r->link;
    struct link_window told = {0};
    unsigned windows = 0;
    for (uint64_t now = BEGIN_NS; n && (windows < WINDOWS || was != LINK_UP); n--) {
        offer(r, dir, now, r->phase->way[dir].bytes);
        enum link_state is = link_state(&watch, now);
        uint64_t next = link_state_until(&watch, now);
        const struct link_window *w = is == LINK_UP ? NULL : window_at(&watch, now);
        if (w && (w->start_ns != told.start_ns || w->length_us != told.length_us)) {
            told = *w;
            calibrate_see_window(r->c, r->i, w->start_ns, w->length_us * NS_PER_US);
            windows++;
        }
        if (is != was)
            edge_ns = now;
        was = is;
        /* one probe in the quiet between two edges, then on to the next one */
        if (now > edge_ns + EDGE_NS && next > now + 4 * EDGE_NS)
            now = next == UINT64_MAX ? now + NS_PER_S : now + (next - EDGE_NS - now) / 2 + 1;
        else
            now += gap;
    }
}

static void run_turns(struct run *r)
{
    uint64_t now = BEGIN_NS;
    for (uint64_t i = 0; i < r->phase->turns; i++) {
        now += calibrate_silence(r->phase, i);
        offer(r, calibrate_turn(r->phase, i), now, 64);
    }
}

static int run_nat(struct run *r, struct err_ctx *ctx)
{
    struct link_nat nat;
    struct link_flow f = {.phone = 1, .peer = 2, .phone_port = 3, .peer_port = 4, .protocol = 17};
    if (link_nat_init(&nat, 64))
        return err_set(ctx, ERR_NOMEM, "calibrate: out of memory");
    uint64_t now = BEGIN_NS;
    link_nat_pass(&r->link, &nat, NETEM_UP, now, &f);
    for (uint64_t i = 0; i < r->phase->turns; i++) {
        now += calibrate_silence(r->phase, i);
        struct link_verdict v = {.reason = link_nat_pass(&r->link, &nat, NETEM_DOWN, now, &f),
                                 .deliver_ns = now};
        tell(r, NETEM_DOWN, now, 64, &v);
        if (v.reason)
            link_nat_pass(&r->link, &nat, NETEM_UP, now, &f);
    }
    link_nat_release(&nat);
    return 0;
}

static int start(struct run *r, uint64_t seed, struct err_ctx *ctx)
{
    link_init(&r->link, &r->phase->profile, seed, r->i, BEGIN_NS);
    for (int d = 0; d < 2; d++) {
        if (!r->phase->profile.dir[d].queue_head)
            continue;
        r->ring[d] = calloc(HEAD_RING, sizeof *r->ring[d]);
        r->offered[d] = calloc(HEAD_RING, sizeof *r->offered[d]);
        if (!r->ring[d] || !r->offered[d])
            return err_set(ctx, ERR_NOMEM, "calibrate: out of memory");
        link_head_init(&r->head[d], &r->link, d, r->ring[d], HEAD_RING);
    }
    return 0;
}

int calibrate_run_model(struct calibrate *c, unsigned i, const struct calibrate_phase *phase, uint64_t seed,
                        struct err_ctx *ctx)
{
    struct run r = {.c = c, .i = i, .phase = phase};
    int rc = start(&r, seed, ctx);
    if (!rc && phase->kind == CALIBRATE_NAT)
        rc = run_nat(&r, ctx);
    else if (!rc && phase->kind == CALIBRATE_SLEEP)
        run_turns(&r);
    else if (!rc && (phase->kind == CALIBRATE_OUTAGE || phase->kind == CALIBRATE_HOLD))
        run_windows(&r);
    else if (!rc)
        run_steady(&r);
    for (int d = 0; d < 2; d++) {
        free(r.ring[d]);
        free(r.offered[d]);
    }
    return rc;
}
