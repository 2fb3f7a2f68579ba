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
    bool windows = p->blackout.every_ns || p->blackout_period_ns || p->blackout_at.n;
    unsigned n = 0;
    say(out, driver, KERNEL, u->trace || d->trace, "trace is left out: netem has rates, not delivery times",
        &n);
    say(out, driver, KERNEL, u->jitter_corr_ppm || d->jitter_corr_ppm,
        "jitter_corr is netem's own, which narrows the distribution of delays", &n);
    say(out, driver, KERNEL, u->jitter_ns || d->jitter_ns,
        "jitter may reorder packets unless a rate keeps them in order: netem sorts by time to send", &n);
    say(out, driver, KERNEL, u->queue_head || d->queue_head,
        "queue_drop=head is left out: netem drops the tail", &n);
    say(out, driver, KERNEL, (u->loss_good_ppm && !u->burst_milli) || (d->loss_good_ppm && !d->burst_milli),
        "loss_good without burst is left out: netem has it in its Gilbert-Elliott chain only", &n);
    say(out, driver, KERNEL, windows, "blackouts are left out: netem knows no time of day", &n);
    say(out, driver, KERNEL, p->handover.every_ns || p->cell.every_ns, "handovers are left out", &n);
    say(out, driver, KERNEL, p->stall.every_ns, "stalls are left out", &n);
    say(out, driver, KERNEL, p->nat_idle_ns, "nat_idle is left out: netem knows no flows", &n);
    say(out, driver, KERNEL, p->rrc_idle_ns || p->rrc_fach_ns || p->drx_after_ns,
        "the radio's sleep (rrc, drx, paging) is left out", &n);
    say(out, driver, PROXY, u->trace || d->trace, "trace is left out: a stream has no packets to time", &n);
    say(out, driver, PROXY, u->jitter_corr_ppm || d->jitter_corr_ppm, "jitter_corr is left out", &n);
    say(out, driver, PROXY, u->loss_ppm || d->loss_ppm || u->loss_good_ppm || d->loss_good_ppm,
        "loss is left out: TCP would repair it, what it costs can't be told from the outside", &n);
    say(out, driver, PROXY, u->queue_head || d->queue_head, "queue_drop=head is left out", &n);
    say(out, driver, PROXY, u->reorder_ppm || d->reorder_ppm, "reorder is left out: streams are in order",
        &n);
    say(out, driver, PROXY, u->duplicate_ppm || d->duplicate_ppm,
        "duplicate is left out: TCP drops copies (a frame can be doubled by a toxic)", &n);
    say(out, driver, PROXY, u->corrupt_ppm || d->corrupt_ppm,
        "corrupt is left out: TCP drops damaged packets", &n);
    say(out, driver, PROXY, p->rrc_idle_ns || p->rrc_fach_ns || p->drx_after_ns,
        "the radio's sleep (rrc, drx, paging) is left out", &n);
    return n;
}
