/* Steps as netlink messages, byte for byte those of iproute2 6.1 (tests/unit/netem_kernel compares them).
 * libnl carries the message and its attributes; its own netem and tbf objects are not used for writing, since
 * they know neither 64-bit times and rates nor gemodel, slot and burst, and could not be extended from
 * outside. */
#include "netem/kernel/kernel_impl.h"

#include <errno.h>
#include <linux/if.h>
#include <linux/pkt_cls.h>
#include <linux/rtnetlink.h>
#include <linux/tc_act/tc_mirred.h>
#include <net/ethernet.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <stdio.h>
#include <string.h>

#define MESSAGE_MAX 49152 /* a delay table has up to 32 KiB */

/* Ticks of the packet scheduler per microsecond: 15.625 since Linux 2.6.31, but tc asks the kernel too. */
static double ticks_per_us(void)
{
    static double ticks;
    unsigned t2us, us2t, resolution;
    FILE *f = ticks > 0 ? NULL : fopen("/proc/net/psched", "re");
    if (!f)
        return ticks > 0 ? ticks : 15.625;
    ticks = 15.625;
    if (fscanf(f, "%08x%08x%08x", &t2us, &us2t, &resolution) == 3 && us2t && t2us)
        ticks = resolution == 1000000000 ? (double)resolution / 1e6 : (double)t2us / us2t * resolution / 1e6;
    fclose(f);
    return ticks;
}

/* What tc makes of a time that 32 bits cannot hold. */
static uint32_t to_u32(double v)
{
    return v < 4294967296.0 ? (uint32_t)v : 0;
}

/* How long `bytes` take, in ticks, by tc's arithmetic: whole microseconds first. */
static uint32_t transmit_ticks(uint64_t rate, uint32_t bytes)
{
    return to_u32(to_u32(1e6 * ((double)bytes / (double)rate)) * ticks_per_us());
}

static uint32_t time_ticks(uint64_t ns)
{
    return to_u32((double)(ns / 1000) * ticks_per_us());
}

/* libnl marks every nest; tc marks only those of later years. */
static struct nlattr *nest(struct nl_msg *m, int type)
{
    struct nlattr *a = nla_nest_start(m, type & ~NLA_F_NESTED);
    if (a)
        a->nla_type = (uint16_t)type;
    return a;
}

static uint32_t rate32(uint64_t rate)
{
    return rate >= 1ull << 32 ? UINT32_MAX : (uint32_t)rate;
}

/* The table of times by size, which kernels since 3.8 only check for being there. */
static void rate_table(uint32_t table[256], struct tc_ratespec *spec, uint64_t rate, uint32_t mtu)
{
    int cell_log = 0;
    while ((mtu ? mtu : 2047) >> cell_log > 255)
        cell_log++;
    for (unsigned i = 0; i < 256; i++)
        table[i] = transmit_ticks(rate, (i + 1) << cell_log);
    spec->cell_log = (unsigned char)cell_log;
    spec->cell_align = -1;
    spec->linklayer = TC_LINKLAYER_ETHERNET;
    spec->rate = rate32(rate);
}

static int put_loss(struct nl_msg *m, const struct kernel_netem *n)
{
    struct tc_netem_gemodel ge = {n->p, n->r, n->h, n->k1};
    struct nlattr *loss = nest(m, TCA_NETEM_LOSS | NLA_F_NESTED);
    if (!loss || nla_put(m, NETEM_LOSS_GE, sizeof ge, &ge))
        return -1;
    nla_nest_end(m, loss);
    return 0;
}

static int put_rate(struct nl_msg *m, const struct kernel_netem *n)
{
    struct tc_netem_rate r = {.rate = rate32(n->rate),
                              .packet_overhead = n->overhead,
                              .cell_size = n->cell_size,
                              .cell_overhead = n->cell_overhead};
    if (n->rate >= 1ull << 32 && nla_put(m, TCA_NETEM_RATE64, sizeof n->rate, &n->rate))
        return -1;
    return nla_put(m, TCA_NETEM_RATE, sizeof r, &r);
}

static int put_slot(struct nl_msg *m, const struct kernel_netem *n)
{
    struct tc_netem_slot s = {.min_delay = n->slot_min_ns,
                              .max_delay = n->slot_max_ns,
                              .max_packets = n->slot_packets,
                              .max_bytes = n->slot_bytes};
    return nla_put(m, TCA_NETEM_SLOT, sizeof s, &s);
}

/* In tc's order, and what tc leaves out is left out. */
static int put_netem(struct nl_msg *m, const struct kernel_netem *n)
{
    struct tc_netem_qopt opt = {
        .limit = n->limit, .loss = n->gemodel ? 0 : n->loss, .gap = n->gap, .duplicate = n->duplicate};
    struct tc_netem_corr cor = {n->delay_cor, n->gemodel ? 0 : n->loss_cor, n->duplicate_cor};
    struct tc_netem_reorder reorder = {n->reorder, n->reorder_cor};
    struct tc_netem_corrupt corrupt = {n->corrupt, n->corrupt_cor};
    struct nlattr *options = nest(m, TCA_OPTIONS);
    if (!n->times64) {
        opt.latency = time_ticks(n->delay_ns);
        opt.jitter = time_ticks(n->jitter_ns);
    }
    int bad = !options || nlmsg_append(m, &opt, sizeof opt, NLMSG_ALIGNTO);
    if (!bad && n->times64 && n->delay_ns)
        bad = nla_put(m, TCA_NETEM_LATENCY64, sizeof n->delay_ns, &n->delay_ns);
    if (!bad && n->times64 && n->jitter_ns)
        bad = nla_put(m, TCA_NETEM_JITTER64, sizeof n->jitter_ns, &n->jitter_ns);
    /* tc adds it, empty, for the other correlations too, and forgets it for duplicates alone, where we don't
     */
    if (!bad && (cor.delay_corr || cor.loss_corr || cor.dup_corr || n->reorder_cor || n->corrupt_cor))
        bad = nla_put(m, TCA_NETEM_CORR, sizeof cor, &cor);
    if (!bad && n->reorder)
        bad = nla_put(m, TCA_NETEM_REORDER, sizeof reorder, &reorder);
    if (!bad && n->ecn)
        bad = nla_put_u32(m, TCA_NETEM_ECN, 1);
    if (!bad && n->corrupt)
        bad = nla_put(m, TCA_NETEM_CORRUPT, sizeof corrupt, &corrupt);
    if (!bad && n->slot)
        bad = put_slot(m, n);
    if (!bad && n->gemodel)
        bad = put_loss(m, n);
    if (!bad && n->rate)
        bad = put_rate(m, n);
    if (!bad && n->table)
        bad = nla_put(m, TCA_NETEM_DELAY_DIST, (int)(n->table_n * sizeof n->table[0]), n->table);
    if (!bad)
        nla_nest_end(m, options);
    return bad ? -1 : 0;
}

static int put_tbf(struct nl_msg *m, const struct kernel_tbf *t)
{
    uint32_t table[256];
    struct tc_tbf_qopt opt = {.limit = t->limit, .buffer = transmit_ticks(t->rate, t->burst)};
    rate_table(table, &opt.rate, t->rate, 0);
    struct nlattr *options = nest(m, TCA_OPTIONS);
    int bad =
        !options || nla_put(m, TCA_TBF_PARMS, sizeof opt, &opt) || nla_put_u32(m, TCA_TBF_BURST, t->burst);
    if (!bad && t->rate >= 1ull << 32)
        bad = nla_put(m, TCA_TBF_RATE64, sizeof t->rate, &t->rate);
    bad = bad || nla_put(m, TCA_TBF_RTAB, sizeof table, table);
    if (!bad)
        nla_nest_end(m, options);
    return bad ? -1 : 0;
}

static int put_police(struct nl_msg *m, const struct kernel_redirect *r)
{
    uint32_t table[256];
    struct tc_police p = {.action = TC_ACT_SHOT,
                          .burst = transmit_ticks(r->police_rate, r->police_burst),
                          .mtu = r->police_mtu};
    rate_table(table, &p.rate, r->police_rate, r->police_mtu);
    int bad = nla_put(m, TCA_POLICE_TBF, sizeof p, &p) || nla_put(m, TCA_POLICE_RATE, sizeof table, table);
    if (!bad && r->police_rate >= 1ull << 32)
        bad = nla_put(m, TCA_POLICE_RATE64, sizeof r->police_rate, &r->police_rate);
    return bad || nla_put_u32(m, TCA_POLICE_RESULT, TC_ACT_PIPE) ? -1 : 0;
}

static int put_mirred(struct nl_msg *m, int to_index)
{
    struct tc_mirred p = {
        .action = TC_ACT_STOLEN, .eaction = TCA_EGRESS_REDIR, .ifindex = (uint32_t)to_index};
    return nla_put(m, TCA_MIRRED_PARMS, sizeof p, &p);
}

/* Action number `order`. The cookie goes with the redirection, which is always there. */
static int put_action(struct nl_msg *m, int order, const struct kernel_redirect *r, int to_index)
{
    struct nlattr *action = nest(m, order), *options;
    if (!action || nla_put_string(m, TCA_ACT_KIND, r ? "police" : "mirred"))
        return -1;
    options = nest(m, TCA_ACT_OPTIONS | NLA_F_NESTED);
    if (!options || (r ? put_police(m, r) : put_mirred(m, to_index)))
        return -1;
    nla_nest_end(m, options);
    if (!r && nla_put(m, TCA_ACT_COOKIE, sizeof KERNEL_COOKIE - 1, KERNEL_COOKIE))
        return -1;
    nla_nest_end(m, action);
    return 0;
}

/* u32 with one key that every packet matches. */
static int put_redirect(struct nl_msg *m, const struct kernel_redirect *r, int to_index)
{
    _Alignas(8) uint8_t match[sizeof(struct tc_u32_sel) + sizeof(struct tc_u32_key)] = {0};
    struct tc_u32_sel *sel = (void *)match;
    sel->flags = TC_U32_TERMINAL;
    sel->nkeys = 1;
    struct nlattr *options = nest(m, TCA_OPTIONS), *actions;
    if (!options || !(actions = nest(m, TCA_U32_ACT)))
        return -1;
    int bad = r->police_rate ? put_action(m, 1, r, 0) : 0;
    bad = bad || put_action(m, r->police_rate ? 2 : 1, NULL, to_index);
    if (!bad)
        nla_nest_end(m, actions);
    bad = bad || nla_put(m, TCA_U32_SEL, sizeof match, match);
    if (!bad)
        nla_nest_end(m, options);
    return bad ? -1 : 0;
}

static int put_size_table(struct nl_msg *m, int32_t overhead)
{
    struct tc_sizespec s = {.overhead = overhead, .linklayer = TC_LINKLAYER_ETHERNET};
    struct nlattr *stab = nest(m, TCA_STAB);
    if (!stab || nla_put(m, TCA_STAB_BASE, sizeof s, &s))
        return -1;
    nla_nest_end(m, stab);
    return 0;
}

static int put_step(struct nl_msg *m, const struct kernel_step *s, int to_index)
{
    switch (s->op) {
    case KERNEL_NETEM:
        return nla_put_string(m, TCA_KIND, "netem") || put_netem(m, &s->netem) ? -1 : 0;
    case KERNEL_TBF:
        return nla_put_string(m, TCA_KIND, "tbf") || put_tbf(m, &s->tbf) ? -1 : 0;
    case KERNEL_CLSACT:
        return nla_put_string(m, TCA_KIND, "clsact");
    case KERNEL_REDIRECT:
        return nla_put_string(m, TCA_KIND, "u32") || put_redirect(m, &s->redirect, to_index) ? -1 : 0;
    case KERNEL_IFB:
        break;
    }
    return -1;
}

static struct nl_msg *ifb_message(const struct kernel_step *s)
{
    struct nl_msg *m = nlmsg_alloc_size(MESSAGE_MAX);
    struct nlmsghdr *h = m ? nlmsg_put(m, 0, 0, RTM_NEWLINK, sizeof(struct ifinfomsg),
                                       NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)
                           : NULL;
    struct nlattr *info;
    if (h && !nla_put_string(m, IFLA_IFNAME, s->dev) && (info = nest(m, IFLA_LINKINFO)) &&
        !nla_put(m, IFLA_INFO_KIND, 3, "ifb")) {
        nla_nest_end(m, info);
        return m;
    }
    nlmsg_free(m);
    return NULL;
}

int kernel_message(struct nl_msg **out, const struct kernel_step *s, int index, int to_index)
{
    bool filter = s->op == KERNEL_REDIRECT, fresh = filter || s->op == KERNEL_CLSACT;
    if (s->op == KERNEL_IFB)
        return (*out = ifb_message(s)) ? 0 : ERR_NOMEM;
    struct tcmsg t = {
        .tcm_family = AF_UNSPEC, .tcm_ifindex = index, .tcm_handle = s->handle, .tcm_parent = s->parent};
    if (filter) {
        t.tcm_parent = TC_H_MAKE(TC_H_CLSACT, s->redirect.ingress ? TC_H_MIN_INGRESS : TC_H_MIN_EGRESS);
        t.tcm_info = TC_H_MAKE((uint32_t)KERNEL_PREF << 16, htons(ETH_P_ALL));
    }
    *out = nlmsg_alloc_size(MESSAGE_MAX);
    struct nlmsghdr *h =
        *out ? nlmsg_put(*out, 0, 0, filter ? RTM_NEWTFILTER : RTM_NEWQDISC, 0,
                         NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | (fresh ? NLM_F_EXCL : NLM_F_REPLACE))
             : NULL;
    if (h && !nlmsg_append(*out, &t, sizeof t, NLMSG_ALIGNTO) && !put_step(*out, s, to_index) &&
        (!s->overhead || !put_size_table(*out, s->overhead)))
        return 0;
    nlmsg_free(*out);
    *out = NULL;
    return ERR_NOMEM;
}
