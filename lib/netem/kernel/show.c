/* The rules on a device in the words of a profile, as read back from the kernel. */
#include "netem/kernel/keeper_impl.h"
#include "netem/kernel/kernel_impl.h"

#include <netlink/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/units.h"

struct side {
    const struct kernel_netem *air;
    uint64_t rate, queue, packets, bytes, drops;
};

/* What the steps of one direction say. */
static struct side side_of(const struct kernel_found *f, const struct kernel_device *dev, bool up)
{
    struct side v = {0};
    char ifb[16];
    kernel_ifb_name(ifb, dev, up);
    for (unsigned i = 0; i < f->steps; i++) {
        const struct kernel_step *s = &f->step[i];
        bool mine = s->op == KERNEL_REDIRECT ? s->redirect.ingress == !up : up;
        bool here = strcmp(s->dev, ifb) == 0 || (mine && strcmp(s->dev, dev->name) == 0);
        if (here && s->op == KERNEL_REDIRECT && s->redirect.police_rate) {
            v.rate = s->redirect.police_rate;
            v.queue = s->redirect.police_burst;
        } else if (here && s->handle == KERNEL_QUEUE) {
            v.rate = s->tbf.rate;
            v.queue = (uint64_t)s->tbf.limit + s->tbf.burst - kernel_frame(dev) / 2; /* as plan.c splits it */
        } else if (here && s->handle == KERNEL_AIR) {
            v.air = &s->netem;
        }
        /* a tbf counts the drops of the netem below it once more */
        if (here && s->handle != KERNEL_ROOT && s->handle != KERNEL_GATE)
            v.drops += f->stat[i].drops;
        if (here && f->stat[i].packets > v.packets) {
            v.packets = f->stat[i].packets;
            v.bytes = f->stat[i].bytes;
        }
    }
    return v;
}

static void words(struct buf *out, const struct side *v)
{
    char text[32];
    const char *space = "";
    if (v->rate) {
        units_show_bitrate(text, v->rate * 8);
        buf_printf(out, "rate=%s", text);
        space = " ";
    }
    if (v->queue) {
        units_show_size(text, v->queue);
        buf_printf(out, "%squeue=%s", space, text);
        space = " ";
    }
    if (v->air) {
        buf_str(out, space);
        struct kernel_netem n = *v->air;
        struct buf line = BUF_INIT(1024);
        kernel_netem_tc(&line, &n);
        buf_printf(out, "netem%s", buf_cstr(&line));
        buf_release(&line);
    }
}

static double share(uint32_t v)
{
    return v / 4294967295.0;
}

static void side_json(struct buf *out, const char *way, const struct side *v)
{
    const struct kernel_netem *n = v->air;
    buf_printf(out, ",\"%s\":", way);
    if (!n && !v->rate) {
        buf_str(out, "null");
        return;
    }
    buf_printf(out, "{\"rate_bps\":%llu,\"queue_bytes\":%llu", (unsigned long long)v->rate * 8,
               (unsigned long long)v->queue);
    if (n) {
        buf_printf(out, ",\"delay_ms\":%.6g,\"jitter_ms\":%.6g,\"jitter_corr\":%.6g,\"limit\":%u",
                   (double)n->delay_ns / 1e6, (double)n->jitter_ns / 1e6, share(n->delay_cor), n->limit);
        double p = share(n->p), r = share(n->r), bad = p + r > 0 ? p / (p + r) : 0, good = share(n->k1);
        buf_printf(out, ",\"loss\":%.6g,\"burst\":%.6g,\"loss_good\":%.6g",
                   n->gemodel ? bad * (1 - share(n->h)) + (1 - bad) * good : share(n->loss),
                   n->gemodel && r > 0 ? 1 / r : 1, n->gemodel ? good : 0);
        buf_printf(out,
                   ",\"corrupt\":%.6g,\"duplicate\":%.6g,\"reorder\":%.6g,\"reorder_corr\":%.6g,\"gap\":%u",
                   share(n->corrupt), share(n->duplicate), share(n->reorder), share(n->reorder_cor), n->gap);
    }
    buf_printf(out, ",\"packets\":%llu,\"bytes\":%llu,\"dropped\":%llu}", (unsigned long long)v->packets,
               (unsigned long long)v->bytes, (unsigned long long)v->drops);
}

static bool any(const struct kernel_found *f)
{
    return f->steps || f->ifb[0] || f->ifb[1];
}

static const char *asked(const struct kernel_found *f)
{
    return strncmp(f->alias, KERNEL_ALIAS, sizeof KERNEL_ALIAS - 1) == 0 ? f->alias + sizeof KERNEL_ALIAS - 1
                                                                         : "";
}

static void show_json(struct buf *out, const struct kernel_found *f, const struct kernel_device *dev, int pid)
{
    struct side up = side_of(f, dev, true), down = side_of(f, dev, false);
    buf_str(out, "{\"dev\":");
    buf_json_str(out, dev->name, strlen(dev->name));
    buf_printf(out, ",\"rules\":%s,\"foreign\":%s,\"profile\":", any(f) ? "true" : "false",
               f->root_foreign || f->ingress_foreign || f->clsact_foreign || f->filters_foreign ? "true"
                                                                                                : "false");
    if (*asked(f))
        buf_json_str(out, asked(f), strlen(asked(f)));
    else
        buf_str(out, "null");
    buf_printf(out, ",\"keeper\":%d", pid);
    side_json(out, "up", &up);
    side_json(out, "down", &down);
    buf_str(out, ",\"tc\":[");
    for (unsigned i = 0; i < f->steps; i++) {
        struct buf line = BUF_INIT(2048);
        kernel_step_tc(&line, &f->step[i]);
        buf_str(out, i ? "," : "");
        buf_json_str(out, buf_cstr(&line), line.len);
        buf_release(&line);
    }
    buf_str(out, "]}\n");
}

static void show_text(struct buf *out, const struct kernel_found *f, const struct kernel_device *dev, int pid)
{
    if (!any(f)) {
        buf_printf(out, "%s has no rules of ours (its root qdisc: %s%s)\n", dev->name,
                   *f->root_kind ? f->root_kind : "none", f->root_foreign ? ", somebody else's" : "");
        return;
    }
    buf_printf(out, "%s", dev->name);
    if (*asked(f))
        buf_printf(out, ", asked for '%s'", asked(f));
    if (pid)
        buf_printf(out, ", until process %d ends", pid);
    buf_char(out, '\n');
    for (int up = 1; up >= 0; up--) {
        struct side v = side_of(f, dev, up);
        buf_printf(out, "  %-5s ", up ? "sends" : "gets");
        if (v.rate || v.air)
            words(out, &v);
        else
            buf_str(out, "as it comes");
        if (v.packets || v.drops)
            buf_printf(out, "; %llu packets, %llu dropped", (unsigned long long)v.packets,
                       (unsigned long long)v.drops);
        buf_char(out, '\n');
    }
}

int kernel_show(struct buf *out, const struct kernel_device *dev, bool json, struct err_ctx *ctx)
{
    struct nl_sock *s = NULL;
    struct kernel_found *f = calloc(1, sizeof *f);
    int rc = f ? kernel_connect(&s, ctx) : err_set(ctx, ERR_NOMEM, "memory");
    if (rc) {
        free(f);
        return rc;
    }
    rc = kernel_look(s, f, dev, ctx);
    nl_socket_free(s);
    if (!rc && json)
        show_json(out, f, dev, keeper_pid(dev));
    else if (!rc)
        show_text(out, f, dev, keeper_pid(dev));
    free(f);
    return rc;
}
