/* What is on a device: dumps of qdiscs and filters, read back into steps. */
#include "netem/kernel/kernel_impl.h"

#include <linux/gen_stats.h>
#include <linux/pkt_cls.h>
#include <linux/rtnetlink.h>
#include <linux/tc_act/tc_mirred.h>
#include <math.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/route/link.h>
#include <stdio.h>
#include <string.h>

static bool get(void *to, size_t n, const struct nlattr *a)
{
    if (!a || nla_len(a) < (int)n)
        return false;
    memcpy(to, nla_data(a), n);
    return true;
}

static void loss_decode(struct kernel_netem *n, struct nlattr *loss)
{
    struct nlattr *t[NETEM_LOSS_MAX + 1];
    struct tc_netem_gemodel ge;
    if (nla_parse_nested(t, NETEM_LOSS_MAX, loss, NULL) < 0 || !get(&ge, sizeof ge, t[NETEM_LOSS_GE]))
        return;
    n->gemodel = true;
    n->p = ge.p;
    n->r = ge.r;
    n->h = ge.h;
    n->k1 = ge.k1;
}

static void rate_decode(struct kernel_netem *n, struct nlattr *const *t)
{
    struct tc_netem_rate r;
    if (!get(&r, sizeof r, t[TCA_NETEM_RATE]))
        return;
    n->rate = r.rate;
    n->overhead = r.packet_overhead;
    n->cell_size = r.cell_size;
    n->cell_overhead = r.cell_overhead;
    get(&n->rate, sizeof n->rate, t[TCA_NETEM_RATE64]);
}

int kernel_netem_decode(struct kernel_netem *n, const void *opts, int bytes)
{
    struct nlattr *t[TCA_NETEM_MAX + 1];
    struct tc_netem_qopt q;
    struct tc_netem_corr cor = {0};
    struct tc_netem_reorder reorder = {0};
    struct tc_netem_corrupt corrupt = {0};
    struct tc_netem_slot slot;
    *n = (struct kernel_netem){0};
    if (bytes < (int)sizeof q)
        return ERR_CORRUPT;
    memcpy(&q, opts, sizeof q);
    if (nla_parse(t, TCA_NETEM_MAX, (struct nlattr *)(void *)((char *)(uintptr_t)opts + NLA_ALIGN(sizeof q)),
                  bytes - (int)NLA_ALIGN(sizeof q), NULL) < 0)
        return ERR_CORRUPT;
    n->limit = q.limit;
    n->loss = q.loss;
    n->gap = q.gap;
    n->duplicate = q.duplicate;
    n->delay_ns = (uint64_t)q.latency * 64;
    n->jitter_ns = (uint64_t)q.jitter * 64;
    get(&n->delay_ns, sizeof n->delay_ns, t[TCA_NETEM_LATENCY64]);
    get(&n->jitter_ns, sizeof n->jitter_ns, t[TCA_NETEM_JITTER64]);
    n->delay_ns = (n->delay_ns + 500) / 1000 * 1000; /* ticks of 64 ns */
    n->jitter_ns = (n->jitter_ns + 500) / 1000 * 1000;
    get(&cor, sizeof cor, t[TCA_NETEM_CORR]);
    get(&reorder, sizeof reorder, t[TCA_NETEM_REORDER]);
    get(&corrupt, sizeof corrupt, t[TCA_NETEM_CORRUPT]);
    n->delay_cor = cor.delay_corr;
    n->loss_cor = cor.loss_corr;
    n->duplicate_cor = cor.dup_corr;
    n->reorder = reorder.probability;
    n->reorder_cor = reorder.correlation;
    n->corrupt = corrupt.probability;
    n->corrupt_cor = corrupt.correlation;
    n->ecn = t[TCA_NETEM_ECN] && nla_len(t[TCA_NETEM_ECN]) >= 4 && nla_get_u32(t[TCA_NETEM_ECN]);
    if (get(&slot, sizeof slot, t[TCA_NETEM_SLOT])) {
        n->slot = true;
        n->slot_min_ns = slot.min_delay;
        n->slot_max_ns = slot.max_delay;
        n->slot_packets = slot.max_packets;
        n->slot_bytes = slot.max_bytes;
    }
    if (t[TCA_NETEM_LOSS])
        loss_decode(n, t[TCA_NETEM_LOSS]);
    rate_decode(n, t);
    return 0;
}

static bool tbf_decode(struct kernel_tbf *b, struct nlattr *opts)
{
    struct nlattr *t[TCA_TBF_MAX + 1];
    struct tc_tbf_qopt q;
    if (!opts || nla_parse_nested(t, TCA_TBF_MAX, opts, NULL) < 0 || !get(&q, sizeof q, t[TCA_TBF_PARMS]))
        return false;
    b->rate = q.rate.rate;
    get(&b->rate, sizeof b->rate, t[TCA_TBF_RATE64]);
    b->limit = q.limit;
    /* the kernel tells the burst as ticks of 64 ns */
    b->burst = (uint32_t)rint((double)q.buffer * 64e-9 * (double)b->rate);
    return true;
}

struct reading {
    struct kernel_found *f;
    int index; /* of the device whose qdiscs are read */
    const char *name;
    bool main, ingress;
    uint32_t frame; /* what the splitting tbf lets pass whole */
};

static void stats_decode(struct kernel_found *f, unsigned i, struct nlattr *stats)
{
    struct nlattr *t[TCA_STATS_MAX + 1];
    struct gnet_stats_basic b = {0};
    struct gnet_stats_queue q = {0};
    uint64_t packets = 0;
    if (!stats || nla_parse_nested(t, TCA_STATS_MAX, stats, NULL) < 0)
        return;
    /* the kernel pads the struct to 16 bytes, older headers end at 12 */
    if (t[TCA_STATS_BASIC] && nla_len(t[TCA_STATS_BASIC]) >= 12)
        memcpy(&b, nla_data(t[TCA_STATS_BASIC]), 12);
    get(&q, sizeof q, t[TCA_STATS_QUEUE]);
    packets = b.packets;
    f->stat[i].bytes = b.bytes;
    f->stat[i].packets = packets;
    f->stat[i].drops = q.drops;
    f->stat[i].backlog = q.backlog;
}

/* One of ours, with its options. */
static void take_qdisc(struct reading *r, const struct tcmsg *t, const char *kind, struct nlattr *const *attr)
{
    struct kernel_found *f = r->f;
    struct kernel_step s = {.parent = t->tcm_parent, .handle = t->tcm_handle};
    struct nlattr *opts = attr[TCA_OPTIONS];
    bool good = false;
    if (f->steps == KERNEL_STEPS_MAX)
        return;
    snprintf(s.dev, sizeof s.dev, "%s", r->name);
    if (strcmp(kind, "netem") == 0) {
        s.op = KERNEL_NETEM;
        good = opts && kernel_netem_decode(&s.netem, nla_data(opts), nla_len(opts)) == 0;
    } else if (strcmp(kind, "tbf") == 0) {
        s.op = KERNEL_TBF;
        good = tbf_decode(&s.tbf, opts);
        if (t->tcm_handle == KERNEL_ROOT) /* too short a time for ticks */
            s.tbf.burst = r->frame;
    }
    if (!good)
        return;
    stats_decode(f, f->steps, attr[TCA_STATS2]);
    f->step[f->steps++] = s;
}

static bool is_ours(uint32_t handle, const char *kind)
{
    switch (handle) {
    case KERNEL_ROOT:
    case KERNEL_QUEUE:
        return strcmp(kind, "tbf") == 0;
    case KERNEL_AIR:
    case KERNEL_GATE:
        return strcmp(kind, "netem") == 0;
    }
    return false;
}

static int on_qdisc(struct nl_msg *m, void *arg)
{
    struct reading *r = arg;
    struct kernel_found *f = r->f;
    struct nlmsghdr *h = nlmsg_hdr(m);
    struct nlattr *attr[TCA_MAX + 1];
    const struct tcmsg *t = nlmsg_data(h);
    if (h->nlmsg_type != RTM_NEWQDISC || nlmsg_parse(h, sizeof *t, attr, TCA_MAX, NULL) < 0 ||
        t->tcm_ifindex != r->index || !attr[TCA_KIND])
        return NL_OK;
    const char *kind = nla_get_string(attr[TCA_KIND]);
    bool ours = is_ours(t->tcm_handle, kind);
    if (ours)
        take_qdisc(r, t, kind, attr);
    if (!r->main)
        return NL_OK;
    if (t->tcm_parent == TC_H_ROOT) {
        f->root_ours = ours;
        f->root_foreign = !ours && TC_H_MAJ(t->tcm_handle); /* the kernel's defaults have handle 0: */
        f->root_handle = t->tcm_handle;
        snprintf(f->root_kind, sizeof f->root_kind, "%s", kind);
    } else if (t->tcm_parent == TC_H_INGRESS) { /* clsact's, too */
        f->clsact = strcmp(kind, "clsact") == 0;
        f->ingress_foreign = !f->clsact;
    }
    return NL_OK;
}

static uint64_t drops_of(struct nlattr *stats)
{
    struct nlattr *t[TCA_STATS_MAX + 1];
    struct gnet_stats_queue q = {0};
    if (stats && nla_parse_nested(t, TCA_STATS_MAX, stats, NULL) >= 0)
        get(&q, sizeof q, t[TCA_STATS_QUEUE]);
    return q.drops;
}

/* Actions of a u32 filter: the redirection with our cookie, and maybe a policer before it. */
static bool take_actions(struct kernel_step *s, struct nlattr *actions, int *to_index, uint64_t *drops)
{
    struct nlattr *of, *a[TCA_ACT_MAX + 1], *p[TCA_POLICE_MAX + 1];
    bool ours = false;
    int left;
    nla_for_each_nested(of, actions, left)
    {
        if (nla_parse_nested(a, TCA_ACT_MAX, of, NULL) < 0 || !a[TCA_ACT_KIND])
            continue;
        const char *kind = nla_get_string(a[TCA_ACT_KIND]);
        struct tc_police police;
        if (strcmp(kind, "mirred") == 0) {
            struct tc_mirred to = {0};
            struct nlattr *of_mirred[TCA_MIRRED_MAX + 1];
            if (a[TCA_ACT_OPTIONS] &&
                nla_parse_nested(of_mirred, TCA_MIRRED_MAX, a[TCA_ACT_OPTIONS], NULL) >= 0)
                get(&to, sizeof to, of_mirred[TCA_MIRRED_PARMS]);
            *to_index = (int)to.ifindex;
            ours |= a[TCA_ACT_COOKIE] && nla_len(a[TCA_ACT_COOKIE]) == sizeof KERNEL_COOKIE - 1 &&
                    memcmp(nla_data(a[TCA_ACT_COOKIE]), KERNEL_COOKIE, sizeof KERNEL_COOKIE - 1) == 0;
        } else if (strcmp(kind, "police") == 0 && a[TCA_ACT_OPTIONS] &&
                   nla_parse_nested(p, TCA_POLICE_MAX, a[TCA_ACT_OPTIONS], NULL) >= 0 &&
                   get(&police, sizeof police, p[TCA_POLICE_TBF])) {
            s->redirect.police_rate = police.rate.rate;
            get(&s->redirect.police_rate, sizeof s->redirect.police_rate, p[TCA_POLICE_RATE64]);
            s->redirect.police_burst =
                (uint32_t)rint((double)police.burst * 64e-9 * (double)s->redirect.police_rate);
            s->redirect.police_mtu = police.mtu;
            *drops = drops_of(a[TCA_ACT_STATS]);
        }
    }
    return ours;
}

static int on_filter(struct nl_msg *m, void *arg)
{
    struct reading *r = arg;
    struct kernel_found *f = r->f;
    struct nlmsghdr *h = nlmsg_hdr(m);
    struct nlattr *attr[TCA_MAX + 1], *u[TCA_U32_MAX + 1] = {0};
    const struct tcmsg *t = nlmsg_data(h);
    if (h->nlmsg_type != RTM_NEWTFILTER || nlmsg_parse(h, sizeof *t, attr, TCA_MAX, NULL) < 0 ||
        t->tcm_ifindex != r->index || !attr[TCA_KIND])
        return NL_OK;
    bool place =
        strcmp(nla_get_string(attr[TCA_KIND]), "u32") == 0 && TC_H_MAJ(t->tcm_info) >> 16 == KERNEL_PREF;
    if (place && attr[TCA_OPTIONS])
        nla_parse_nested(u, TCA_U32_MAX, attr[TCA_OPTIONS], NULL);
    if (place && !u[TCA_U32_SEL])
        return NL_OK; /* the table that a u32 filter stands in */
    struct kernel_step s = {
        .op = KERNEL_REDIRECT, .handle = t->tcm_handle, .redirect = {.ingress = r->ingress}};
    uint64_t drops = 0;
    int to = 0;
    if (!place || !u[TCA_U32_ACT] || !take_actions(&s, u[TCA_U32_ACT], &to, &drops)) {
        f->filters_foreign++;
        return NL_OK;
    }
    /* a dump of one hook shows the u32 filters of both: the target tells them apart */
    if (to && to != f->ifb[r->ingress])
        return NL_OK;
    f->filters_ours++;
    snprintf(s.dev, sizeof s.dev, "%s", r->name);
    kernel_ifb_name(s.to, &(struct kernel_device){.index = r->index}, !r->ingress);
    if (f->steps < KERNEL_STEPS_MAX) {
        f->stat[f->steps].drops = drops;
        f->step[f->steps++] = s;
    }
    return NL_OK;
}

static int dump(struct nl_sock *s, int type, struct tcmsg *t, nl_recvmsg_msg_cb_t callback, struct reading *r)
{
    nl_socket_modify_cb(s, NL_CB_VALID, NL_CB_CUSTOM, callback, r);
    int rc = nl_send_simple(s, type, NLM_F_DUMP, t, sizeof *t);
    rc = rc < 0 ? rc : nl_recvmsgs_default(s);
    nl_socket_modify_cb(s, NL_CB_VALID, NL_CB_DEFAULT, NULL, NULL);
    return rc < 0 ? rc : 0;
}

/* -NLE_OBJ_NOTFOUND and no such device are the same here: nothing is there. */
static int dump_filters(struct nl_sock *s, struct kernel_found *f, const struct kernel_device *dev,
                        bool ingress)
{
    struct reading r = {.f = f, .index = dev->index, .name = dev->name, .ingress = ingress};
    struct tcmsg t = {.tcm_ifindex = dev->index,
                      .tcm_parent = TC_H_MAKE(TC_H_CLSACT, ingress ? TC_H_MIN_INGRESS : TC_H_MIN_EGRESS)};
    int rc = dump(s, RTM_GETTFILTER, &t, on_filter, &r);
    return rc == -NLE_INVAL || rc == -NLE_OBJ_NOTFOUND || rc == -NLE_NODEV ? 0 : rc;
}

/* Our IFB's index, if it is one, and its alias. */
static int find_ifb(struct nl_sock *s, struct kernel_found *f, const char *name)
{
    struct rtnl_link *l = NULL;
    int index = 0;
    if (rtnl_link_get_kernel(s, 0, name, &l) != 0)
        return 0;
    const char *type = rtnl_link_get_type(l), *alias = rtnl_link_get_ifalias(l);
    if (type && strcmp(type, "ifb") == 0)
        index = rtnl_link_get_ifindex(l);
    if (index && alias)
        snprintf(f->alias, sizeof f->alias, "%s", alias);
    rtnl_link_put(l);
    return index;
}

int kernel_look(struct nl_sock *s, struct kernel_found *f, const struct kernel_device *dev,
                struct err_ctx *ctx)
{
    struct tcmsg t = {.tcm_ifindex = dev->index};
    struct reading r = {
        .f = f, .index = dev->index, .name = dev->name, .main = true, .frame = kernel_frame(dev)};
    *f = (struct kernel_found){0};
    int rc = dump(s, RTM_GETQDISC, &t, on_qdisc, &r);
    for (int up = 1; up >= 0 && !rc; up--) {
        char name[16];
        kernel_ifb_name(name, dev, up);
        int index = f->ifb[!up] = find_ifb(s, f, name);
        r = (struct reading){.f = f, .index = index, .name = name, .frame = kernel_frame(dev)};
        t.tcm_ifindex = index;
        rc = index ? dump(s, RTM_GETQDISC, &t, on_qdisc, &r) : 0;
    }
    for (int ingress = 0; f->clsact && ingress < 2 && !rc; ingress++)
        rc = dump_filters(s, f, dev, ingress);
    if (rc)
        return kernel_nl_failed(rc, "reading the rules", ctx);
    f->clsact_foreign = f->clsact && !f->filters_ours && !f->ifb[0] && !f->ifb[1];
    return 0;
}
