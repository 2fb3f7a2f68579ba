#include "netem/tun/fates.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "netem/link.h"
#include "netem/tun/tun.h"

#define RADIOS    65536u
#define NAT_FLOWS 131072

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

struct again { /* a radio, asked once more */
    struct link link;
    bool live, unknown;
};

static const struct tun_group *group_of(const struct tun_group *groups, uint32_t n, uint32_t phone)
{
    for (uint32_t i = 0; i < n; i++)
        if (phone >= groups[i].first && phone - groups[i].first < groups[i].count)
            return &groups[i];
    return NULL;
}

static struct link_verdict judge(struct link *l, struct link_nat *nat, const struct tun_fate *f)
{
    struct link_flow flow = {.phone = f->phone,
                             .peer = f->peer,
                             .phone_port = f->phone_port,
                             .peer_port = f->peer_port,
                             .protocol = f->protocol,
                             .syn = f->flags & TUN_FATE_SYN};
    bool whole = !(f->flags & TUN_FATE_FRAGMENT);
    struct link_verdict v = {0};
    if (f->dir == NETEM_DOWN && whole)
        v.reason = link_nat_pass(l, nat, f->dir, f->at_ns, &flow);
    if (!v.reason)
        v = link_offer(l, f->dir, f->at_ns, f->bytes);
    if (f->dir == NETEM_UP && !v.reason && whole)
        v.reason = link_nat_pass(l, nat, f->dir, f->at_ns, &flow);
    return v;
}

static bool same(const struct link_verdict *v, const struct tun_fate *f)
{
    return v->reason == (enum reason)f->reason && v->depart_ns == f->depart_ns &&
           v->deliver_ns == f->deliver_ns;
}

static void ask(struct again *a, struct link_nat *nat, const struct tun_fate *f, struct tun_replay *out,
                uint64_t index)
{
    switch ((enum tun_fate_kind)f->kind) {
    case TUN_FATE_DETACH:
        link_detach(&a->link, f->at_ns);
        return;
    case TUN_FATE_ATTACH:
        link_attach(&a->link, f->at_ns);
        return;
    case TUN_FATE_BLACKOUT:
        link_blackout(&a->link, f->at_ns, f->deliver_ns);
        return;
    case TUN_FATE_PROFILE:
        a->unknown = true;
        return;
    case TUN_FATE_PACKET:
        break;
    }
    out->packets++;
    if (a->unknown) {
        out->unknown++;
        return;
    }
    struct link_verdict v = judge(&a->link, nat, f);
    if (same(&v, f))
        return;
    if (!out->differ++)
        out->first = index;
}

int tun_fates_replay(const struct tun_fates *f, const struct tun_group *groups, uint32_t groups_n,
                     uint64_t seed, struct tun_replay *out, struct err_ctx *ctx)
{
    struct again *radios = calloc(RADIOS, sizeof *radios);
    struct link_nat nat = {0};
    uint64_t n = __atomic_load_n(&f->n, __ATOMIC_ACQUIRE);
    int rc = !radios || link_nat_init(&nat, NAT_FLOWS) ? err_set(ctx, ERR_NOMEM, "out of memory") : 0;
    *out = (struct tun_replay){0};
    for (uint64_t i = 0; !rc && i < n; i++) {
        const struct tun_fate *one = &f->at[i];
        struct again *a = &radios[one->phone & 0xFFFF];
        const struct tun_group *g = a->live ? NULL : group_of(groups, groups_n, one->phone);
        if (!a->live && !g) {
            rc = err_set(ctx, ERR_NOTFOUND, "record %llu: its address is in no group", (unsigned long long)i);
            break;
        }
        if (!a->live)
            link_init(&a->link, &g->profile, seed, one->phone, one->at_ns);
        a->live = true;
        ask(a, &nat, one, out, i);
    }
    link_nat_release(&nat);
    free(radios);
    return rc;
}
