#include "netem/tun/fates.h"

#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "netem/link.h"
#include "netem/tun/tun.h"

#define RADIOS    65536u
#define NAT_FLOWS 131072
#define WAITING   8192 /* as the shuttle's */

struct tun_fates *tun_fates_new(uint64_t max)
{
    size_t bytes = sizeof(struct tun_fates) + max * sizeof(struct tun_fate);
    struct tun_fates *f =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (f == MAP_FAILED)
        return NULL;
    f->max = max;
    return f;
}

void tun_fates_free(struct tun_fates *f)
{
    if (f)
        munmap(f, sizeof *f + f->max * sizeof *f->at);
}

/* A drop-head queue, asked once more: indices of records that have no answer yet. */
struct asked {
    struct link_head head;
    struct link_waiting ring[WAITING];
    uint64_t record[2 * WAITING];
    uint32_t first, next;
};

struct again { /* a radio, asked once more */
    struct link link;
    struct asked *asked[2];
    bool live, unknown;
};

struct replay {
    const struct tun_fates *f;
    struct again *radios;
    struct link_nat nat;
    struct tun_replay *out;
};

static const struct tun_group *group_of(const struct tun_group *groups, uint32_t n, uint32_t phone)
{
    for (uint32_t i = 0; i < n; i++)
        if (phone >= groups[i].first && phone - groups[i].first < groups[i].count)
            return &groups[i];
    return NULL;
}

static enum reason ask_nat(struct replay *r, struct again *a, const struct tun_fate *f, uint64_t now_ns)
{
    struct link_flow flow = {.phone = f->phone,
                             .peer = f->peer,
                             .phone_port = f->phone_port,
                             .peer_port = f->peer_port,
                             .protocol = f->protocol,
                             .syn = f->flags & TUN_FATE_SYN};
    return f->flags & TUN_FATE_FRAGMENT ? REASON_NONE
                                        : link_nat_pass(&a->link, &r->nat, f->dir, now_ns, &flow);
}

static void compare(struct replay *r, uint64_t index, const struct link_verdict *v)
{
    const struct tun_fate *f = &r->f->at[index];
    if (f->reason == TUN_FATE_OPEN || f->reason == REASON_RUN_END) {
        r->out->unknown++; /* still waited when the log, or the run, ended */
        return;
    }
    if (v->reason == (enum reason)f->reason && v->depart_ns == f->depart_ns &&
        v->deliver_ns == f->deliver_ns && v->copy_ns == f->copy_ns &&
        v->corrupt == !!(f->flags & TUN_FATE_CORRUPT) && v->reordered == !!(f->flags & TUN_FATE_REORDERED))
        return;
    if (!r->out->differ++)
        r->out->first = index;
}

/* The verdicts of a drop-head queue that are due. */
static void decide(struct replay *r, struct again *a, struct asked *q, uint64_t now_ns)
{
    struct link_verdict v;
    while (link_head_next(&q->head, now_ns, &v)) {
        uint64_t index = q->record[q->first++ % (2 * WAITING)];
        const struct tun_fate *f = &r->f->at[index];
        if (f->dir == NETEM_UP && !v.reason)
            v.reason = ask_nat(r, a, f, now_ns);
        compare(r, index, &v);
    }
}

static void decide_both(struct replay *r, struct again *a, uint64_t now_ns)
{
    for (int dir = 0; dir < 2; dir++)
        if (a->asked[dir])
            decide(r, a, a->asked[dir], now_ns);
}

static void ask_head(struct replay *r, struct again *a, uint64_t index)
{
    const struct tun_fate *f = &r->f->at[index];
    struct asked *q = a->asked[f->dir];
    if (!q) {
        q = a->asked[f->dir] = malloc(sizeof *q);
        if (!q) {
            r->out->unknown++;
            return;
        }
        link_head_init(&q->head, &a->link, f->dir, q->ring, WAITING);
        q->first = q->next = 0;
    }
    link_head_offer(&q->head, f->at_ns, f->bytes);
    q->record[q->next++ % (2 * WAITING)] = index;
    decide(r, a, q, f->at_ns);
}

static void ask_packet(struct replay *r, struct again *a, uint64_t index)
{
    const struct tun_fate *f = &r->f->at[index];
    struct link_verdict v = {0};
    r->out->packets++;
    if (a->unknown) {
        r->out->unknown++;
        return;
    }
    if (f->dir == NETEM_DOWN)
        v.reason = ask_nat(r, a, f, f->at_ns);
    if (!v.reason && a->link.profile->dir[f->dir].queue_head) {
        ask_head(r, a, index);
        return;
    }
    if (!v.reason)
        v = link_offer(&a->link, f->dir, f->at_ns, f->bytes);
    if (f->dir == NETEM_UP && !v.reason)
        v.reason = ask_nat(r, a, f, f->at_ns);
    compare(r, index, &v);
}

static void ask(struct replay *r, struct again *a, uint64_t index)
{
    const struct tun_fate *f = &r->f->at[index];
    decide_both(r, a, f->at_ns);
    switch ((enum tun_fate_kind)f->kind) {
    case TUN_FATE_DETACH:
        link_detach(&a->link, f->at_ns);
        break;
    case TUN_FATE_ATTACH:
        link_attach(&a->link, f->at_ns);
        break;
    case TUN_FATE_BLACKOUT:
        link_blackout(&a->link, f->at_ns, f->deliver_ns);
        break;
    case TUN_FATE_PROFILE:
        a->unknown = true;
        break;
    case TUN_FATE_PACKET:
        ask_packet(r, a, index);
        return;
    }
    decide_both(r, a, f->at_ns);
}

static int ask_all(struct replay *r, const struct tun_group *groups, uint32_t groups_n, uint64_t seed,
                   struct err_ctx *ctx)
{
    uint64_t n = __atomic_load_n(&r->f->n, __ATOMIC_ACQUIRE);
    for (uint64_t i = 0; i < n; i++) {
        const struct tun_fate *one = &r->f->at[i];
        struct again *a = &r->radios[one->phone & 0xFFFF];
        const struct tun_group *g = a->live ? NULL : group_of(groups, groups_n, one->phone);
        if (!a->live && !g)
            return err_set(ctx, ERR_NOTFOUND, "record %" PRIu64 ": its address is in no group", i);
        if (!a->live)
            link_init(&a->link, &g->profile, seed, one->phone, one->at_ns);
        a->live = true;
        ask(r, a, i);
    }
    for (uint32_t i = 0; i < RADIOS; i++)
        decide_both(r, &r->radios[i], UINT64_MAX / 4);
    return 0;
}

int tun_fates_replay(const struct tun_fates *f, const struct tun_group *groups, uint32_t groups_n,
                     uint64_t seed, struct tun_replay *out, struct err_ctx *ctx)
{
    struct replay r = {.f = f, .radios = calloc(RADIOS, sizeof *r.radios), .out = out};
    *out = (struct tun_replay){0};
    int rc = !r.radios || link_nat_init(&r.nat, NAT_FLOWS) ? err_set(ctx, ERR_NOMEM, "out of memory") : 0;
    rc = rc ? rc : ask_all(&r, groups, groups_n, seed, ctx);
    for (uint32_t i = 0; r.radios && i < RADIOS; i++) {
        free(r.radios[i].asked[0]);
        free(r.radios[i].asked[1]);
    }
    link_nat_release(&r.nat);
    free(r.radios);
    return rc;
}
