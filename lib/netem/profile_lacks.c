/* What a profile asks that a driver can't do. */
#include "netem/profile.h"

#include <string.h>

static const char *const names[] = {
    [NETEM_DRIVER_MODEL] = "model",
    [NETEM_DRIVER_TUN] = "tun",
    [NETEM_DRIVER_KERNEL] = "kernel",
    [NETEM_DRIVER_PROXY] = "proxy",
};

const char *netem_driver_name(enum netem_driver driver)
{
    return names[driver];
}

int netem_driver_parse(enum netem_driver *driver, const char *name, struct err_ctx *ctx)
{
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i], name) != 0)
            continue;
        *driver = i;
        return 0;
    }
    return err_set(ctx, ERR_INVALID, "'%s' is none of model, tun, kernel, proxy", name);
}

#define JITTER_MAX_NS 2147483647u

enum { KERNEL = 1 << NETEM_DRIVER_KERNEL, PROXY = 1 << NETEM_DRIVER_PROXY };

static void say(struct buf *out, enum netem_driver driver, unsigned which, bool asked, const char *sentence,
                unsigned *n)
{
    if (!asked || !(which & (1u << driver)))
        return;
    buf_printf(out, "%s driver: %s\n", names[driver], sentence);
    ++*n;
}

unsigned netem_profile_lacks(const struct netem_profile *p, enum netem_driver driver, struct buf *out)
{
    const struct netem_direction *u = &p->dir[NETEM_UP], *d = &p->dir[NETEM_DOWN];
    bool windows = p->blackout.every_ns || p->blackout_period_ns || p->blackout_at.n ||
                   p->handover.every_ns || p->cell.every_ns || p->stall.every_ns;
    bool loses = p->handover_loses_ppm || p->blackout_loses_ppm;
    unsigned n = 0;
    say(out, driver, KERNEL, u->trace || d->trace,
        "trace is left out: the kernel has rates, not delivery times", &n);
    say(out, driver, KERNEL, u->jitter_ns > JITTER_MAX_NS || d->jitter_ns > JITTER_MAX_NS,
        "jitter is left out: netem takes no more than 2.147 s", &n);
    say(out, driver, KERNEL, u->jitter_corr_ppm || d->jitter_corr_ppm,
        "jitter_corr is netem's own kind, which narrows the distribution of delays", &n);
    say(out, driver, KERNEL, u->queue_head || d->queue_head,
        "queue_drop=head is left out: the kernel's queue drops the packet that comes", &n);
    say(out, driver, KERNEL, windows,
        "blackout, handover, cell and stall are played only while chat-netem runs (with a command, or for a "
        "time)",
        &n);
    say(out, driver, KERNEL, loses,
        "handover_loses and blackout_loses are left out: the device keeps its address", &n);
    say(out, driver, KERNEL, p->nat_idle_ns, "nat_idle is left out: netem knows no flows", &n);
    say(out, driver, KERNEL, p->rrc_idle_ns || p->rrc_fach_ns || p->drx_after_ns,
        "rrc, drx and paging are left out: netem does not know when the radio sleeps", &n);
    say(out, driver, PROXY, u->loss_ppm || d->loss_ppm || u->loss_good_ppm || d->loss_good_ppm,
        "loss is left out: a stream has none, only the delays of its repair", &n);
    say(out, driver, PROXY, u->rate_bps || d->rate_bps || u->trace || d->trace,
        "queue is left out: what waits is bounded by the proxy's buffer, nothing of it is dropped", &n);
    say(out, driver, PROXY, u->reorder_ppm || d->reorder_ppm, "reorder is left out: streams are in order",
        &n);
    say(out, driver, PROXY, u->duplicate_ppm || d->duplicate_ppm,
        "duplicate is left out: TCP drops copies (a toxic can double a frame)", &n);
    say(out, driver, PROXY, u->corrupt_ppm || d->corrupt_ppm,
        "corrupt is left out: TCP drops damaged packets", &n);
    say(out, driver, PROXY, windows, "what a blackout or a handover would lose waits until it is over", &n);
    say(out, driver, PROXY, p->nat_idle_ns || loses,
        "nat_idle, handover_loses and blackout_loses are left out: connections keep their addresses", &n);
    return n;
}
