/* Rules onto a device and off it. */
#include "netem/kernel/kernel_impl.h"

#include <linux/if.h>
#include <net/if_arp.h>
#include <linux/pkt_cls.h>
#include <linux/rtnetlink.h>
#include <net/ethernet.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/route/link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "netem/kernel/keeper_impl.h"

int kernel_nl_failed(int nlerr, const char *what, struct err_ctx *ctx)
{
    if (nlerr == -NLE_PERM || nlerr == -NLE_NOACCESS)
        return err_set(ctx, ERR_PERM, "%s needs root (CAP_NET_ADMIN)", what);
    return err_set(ctx, nlerr == -NLE_NOMEM ? ERR_NOMEM : ERR_IO, "%s: %s", what, nl_geterror(nlerr));
}

int kernel_connect(struct nl_sock **s, struct err_ctx *ctx)
{
    *s = nl_socket_alloc();
    int rc = *s ? nl_connect(*s, NETLINK_ROUTE) : -NLE_NOMEM;
    if (!rc)
        return 0;
    nl_socket_free(*s);
    return kernel_nl_failed(rc, "netlink", ctx);
}

int kernel_device_find(struct kernel_device *d, const char *name, struct err_ctx *ctx)
{
    struct nl_sock *s = NULL;
    struct rtnl_link *l = NULL;
    int rc = strlen(name) < sizeof d->name ? kernel_connect(&s, ctx) : 0;
    if (rc)
        return rc;
    if (strlen(name) >= sizeof d->name)
        return err_set(ctx, ERR_NOTFOUND, "there is no device '%s'", name);
    rc = rtnl_link_get_kernel(s, 0, name, &l);
    nl_socket_free(s);
    if (rc)
        return err_set(ctx, ERR_NOTFOUND, "there is no device '%s'", name);
    unsigned type = rtnl_link_get_arptype(l);
    *d = (struct kernel_device){.index = rtnl_link_get_ifindex(l), .mtu = rtnl_link_get_mtu(l)};
    strcpy(d->name, name);
    d->header = type == ARPHRD_ETHER || type == ARPHRD_LOOPBACK ? ETHER_HDR_LEN : 0;
    rtnl_link_put(l);
    return 0;
}

int kernel_ask(struct nl_sock *s, struct nl_msg *m)
{
    int rc = nl_send_auto(s, m);
    nlmsg_free(m);
    return rc < 0 ? rc : nl_wait_for_ack(s);
}

int kernel_index_of(struct nl_sock *s, const char *name)
{
    struct rtnl_link *l = NULL;
    if (rtnl_link_get_kernel(s, 0, name, &l) != 0)
        return 0;
    int index = rtnl_link_get_ifindex(l);
    rtnl_link_put(l);
    return index;
}

/* A new IFB comes up, and its alias remembers what was asked for. */
static int wake_ifb(struct nl_sock *s, const struct kernel_plan *plan, const char *name)
{
    struct rtnl_link *which = rtnl_link_alloc(), *wanted = rtnl_link_alloc();
    char alias[256];
    int rc = -NLE_NOMEM;
    snprintf(alias, sizeof alias, KERNEL_ALIAS "%s", plan->profile);
    if (which && wanted) {
        rtnl_link_set_ifindex(which, kernel_index_of(s, name));
        rtnl_link_set_ifalias(wanted, alias);
        rtnl_link_set_flags(wanted, IFF_UP);
        rc = rtnl_link_change(s, which, wanted, 0);
    }
    rtnl_link_put(which);
    rtnl_link_put(wanted);
    return rc;
}

/* What it means that the kernel does not know what a step needs. */
static int missing(const struct kernel_step *s, unsigned *lacks, struct err_ctx *ctx)
{
    const char *module = "act_mirred, cls_u32";
    unsigned lack = 0;
    switch (s->op) {
    case KERNEL_NETEM:
        module = "sch_netem";
        lack = KERNEL_NO_NETEM;
        break;
    case KERNEL_TBF:
        module = "sch_tbf";
        break;
    case KERNEL_CLSACT:
        module = "sch_ingress";
        break;
    case KERNEL_IFB:
        module = "ifb";
        break;
    case KERNEL_REDIRECT:
        if (s->redirect.police_rate) {
            module = "act_police (or act_mirred, cls_u32)";
            lack = KERNEL_NO_POLICE;
        }
    }
    if (lacks)
        *lacks = lack;
    return err_set(
        ctx, ERR_UNAVAILABLE,
        "this kernel has no %s: `modprobe` it, install the distribution's extra modules "
        "(linux-modules-extra, kernel-modules-extra), or boot a kernel that has it; `chat-netem run` "
        "makes the same links in user space%s",
        module, lack ? ", --partial leaves out what needs it" : "");
}

static int do_step(struct nl_sock *s, const struct kernel_plan *plan, const struct kernel_step *step,
                   unsigned *lacks, struct err_ctx *ctx)
{
    struct nl_msg *m;
    bool ifb = step->op == KERNEL_IFB;
    int index = ifb                                 ? kernel_index_of(s, step->dev)
                : strcmp(step->dev, plan->dev.name) ? kernel_index_of(s, step->dev)
                                                    : plan->dev.index;
    int to = step->op == KERNEL_REDIRECT ? kernel_index_of(s, step->to) : 0, rc = 0;
    if (!ifb || !index) {
        if (kernel_message(&m, step, index, to))
            return err_set(ctx, ERR_NOMEM, "a netlink message");
        rc = kernel_ask(s, m);
    }
    if (!rc && ifb)
        rc = wake_ifb(s, plan, step->dev);
    if (rc == -NLE_OBJ_NOTFOUND || rc == -NLE_OPNOTSUPP)
        return missing(step, lacks, ctx);
    if (!rc)
        return 0;
    struct buf line = BUF_INIT(1024);
    kernel_step_tc(&line, step);
    rc = kernel_nl_failed(rc, buf_cstr(&line), ctx);
    buf_release(&line);
    return rc;
}

static int refuse_foreign(const struct kernel_found *f, const struct kernel_device *dev, struct err_ctx *ctx)
{
    if (f->root_foreign)
        return err_set(
            ctx, ERR_BUSY,
            "%s has a root qdisc that is not ours (%s %x:), nothing was changed; see `tc qdisc show dev %s`",
            dev->name, f->root_kind, TC_H_MAJ(f->root_handle) >> 16, dev->name);
    if (f->ingress_foreign || f->clsact_foreign || f->filters_foreign)
        return err_set(
            ctx, ERR_BUSY,
            "%s has %s of somebody else, nothing was changed; see `tc qdisc show dev %s` and `tc filter "
            "show dev %s ingress`",
            dev->name, f->filters_foreign ? "filters" : "an ingress or clsact qdisc", dev->name, dev->name);
    return 0;
}

static int delete_qdisc(struct nl_sock *s, int index, uint32_t handle, uint32_t parent)
{
    struct tcmsg t = {.tcm_ifindex = index, .tcm_handle = handle, .tcm_parent = parent};
    struct nl_msg *m = nlmsg_alloc_simple(RTM_DELQDISC, 0);
    if (!m || nlmsg_append(m, &t, sizeof t, NLMSG_ALIGNTO)) {
        nlmsg_free(m);
        return -NLE_NOMEM;
    }
    return kernel_ask(s, m);
}

static int delete_filter(struct nl_sock *s, int index, bool ingress, uint32_t handle)
{
    struct tcmsg t = {.tcm_ifindex = index,
                      .tcm_handle = handle,
                      .tcm_parent = TC_H_MAKE(TC_H_CLSACT, ingress ? TC_H_MIN_INGRESS : TC_H_MIN_EGRESS),
                      .tcm_info = TC_H_MAKE((uint32_t)KERNEL_PREF << 16, htons(ETH_P_ALL))};
    struct nl_msg *m = nlmsg_alloc_simple(RTM_DELTFILTER, 0);
    if (!m || nlmsg_append(m, &t, sizeof t, NLMSG_ALIGNTO) || nla_put_string(m, TCA_KIND, "u32")) {
        nlmsg_free(m);
        return -NLE_NOMEM;
    }
    return kernel_ask(s, m);
}

static int delete_ifb(struct nl_sock *s, int index)
{
    struct rtnl_link *l = rtnl_link_alloc();
    if (!l)
        return -NLE_NOMEM;
    rtnl_link_set_ifindex(l, index);
    int rc = rtnl_link_delete(s, l);
    rtnl_link_put(l);
    return rc;
}

/* Gone already is as good as taken off. */
static int gone(int rc)
{
    return rc == -NLE_OBJ_NOTFOUND || rc == -NLE_NODEV || rc == -NLE_INVAL ? 0 : rc;
}

/* The filters first: traffic then passes by the IFBs. */
static int take_off(struct nl_sock *s, const struct kernel_found *f, const struct kernel_device *dev)
{
    int rc = 0;
    for (unsigned i = 0; i < f->steps && !rc; i++)
        if (f->step[i].op == KERNEL_REDIRECT)
            rc = gone(delete_filter(s, dev->index, f->step[i].redirect.ingress, f->step[i].handle));
    if (!rc && f->clsact && !f->clsact_foreign && !f->filters_foreign)
        rc = gone(delete_qdisc(s, dev->index, TC_H_MAKE(TC_H_CLSACT, 0), TC_H_CLSACT));
    if (!rc && f->root_ours)
        rc = gone(delete_qdisc(s, dev->index, 0, TC_H_ROOT));
    for (int i = 0; i < 2 && !rc; i++)
        rc = f->ifb[i] ? gone(delete_ifb(s, f->ifb[i])) : 0;
    return rc;
}

int kernel_take_off(const struct kernel_device *dev, unsigned *removed, struct err_ctx *ctx)
{
    struct nl_sock *s = NULL;
    struct kernel_found *f = calloc(1, sizeof *f);
    int rc = f ? kernel_connect(&s, ctx) : err_set(ctx, ERR_NOMEM, "memory");
    if (rc) {
        free(f);
        return rc;
    }
    rc = kernel_look(s, f, dev, ctx);
    if (!rc) {
        int nlerr = take_off(s, f, dev);
        rc = nlerr ? kernel_nl_failed(nlerr, "taking the rules off", ctx) : 0;
    }
    if (!rc && removed)
        *removed = f->steps + (f->ifb[0] > 0) + (f->ifb[1] > 0);
    nl_socket_free(s);
    free(f);
    return rc;
}

int kernel_clear(const struct kernel_device *dev, unsigned *removed, struct err_ctx *ctx)
{
    unsigned kept = keeper_knock(dev), own = 0;
    int rc = kernel_take_off(dev, &own, ctx);
    if (removed)
        *removed = own + kept;
    return rc;
}

int kernel_apply(const struct kernel_plan *plan, unsigned *lacks, struct err_ctx *ctx)
{
    struct nl_sock *s = NULL;
    struct kernel_found *f = calloc(1, sizeof *f);
    if (lacks)
        *lacks = 0;
    int rc = f ? kernel_connect(&s, ctx) : err_set(ctx, ERR_NOMEM, "memory");
    if (rc) {
        free(f);
        return rc;
    }
    rc = kernel_look(s, f, &plan->dev, ctx);
    rc = rc ? rc : refuse_foreign(f, &plan->dev, ctx);
    if (!rc) {
        int nlerr = take_off(s, f, &plan->dev);
        rc = nlerr ? kernel_nl_failed(nlerr, "taking the rules off", ctx) : 0;
        for (unsigned i = 0; i < plan->steps && !rc; i++)
            rc = do_step(s, plan, &plan->step[i], lacks, ctx);
        if (rc)
            kernel_take_off(&plan->dev, NULL, NULL);
    }
    nl_socket_free(s);
    free(f);
    return rc;
}
