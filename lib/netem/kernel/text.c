/* Steps as the lines of ip and tc that ask for the same. */
#include "netem/kernel/kernel_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* The shortest percentage that tc reads back as this share of UINT32_MAX, or as its complement. */
static void percent_of(struct buf *out, uint32_t share, bool complement)
{
    char text[32];
    double whole = complement ? UINT32_MAX - (double)share : share;
    for (int digits = 0; digits <= 10; digits++) {
        snprintf(text, sizeof text, "%.*f", digits, 100.0 * whole / UINT32_MAX);
        double read = strtod(text, NULL) / 100.0;
        if (rint((complement ? 1.0 - read : read) * UINT32_MAX) == share)
            break;
    }
    buf_printf(out, " %s%%", text);
}

static void percent(struct buf *out, uint32_t share)
{
    percent_of(out, share, false);
}

static void duration(struct buf *out, uint64_t ns)
{
    static const struct {
        uint64_t ns;
        const char *unit;
    } units[] = {{1000000000, "s"}, {1000000, "ms"}, {1000, "us"}, {1, "ns"}};
    unsigned u = 0;
    while (ns % units[u].ns)
        u++;
    buf_printf(out, " %llu%s", (unsigned long long)(ns / units[u].ns), units[u].unit);
}

/* Bits per second where they fit a unit of tc's. */
static void rate(struct buf *out, uint64_t bytes_per_s)
{
    static const struct {
        uint64_t bits;
        const char *unit;
    } units[] = {{1000000000, "gbit"}, {1000000, "mbit"}, {1000, "kbit"}, {1, "bit"}};
    uint64_t bits = bytes_per_s * 8;
    unsigned u = 0;
    while (bits % units[u].bits)
        u++;
    buf_printf(out, " rate %llu%s", (unsigned long long)(bits / units[u].bits), units[u].unit);
}

static void delay_tc(struct buf *out, const struct kernel_netem *n)
{
    if (!n->delay_ns && !n->jitter_ns)
        return;
    buf_str(out, " delay");
    duration(out, n->delay_ns);
    if (n->jitter_ns)
        duration(out, n->jitter_ns);
    if (n->delay_cor)
        percent(out, n->delay_cor);
    if (n->table)
        buf_printf(out, " distribution %s", n->distribution ? n->distribution : "table");
}

static void loss_tc(struct buf *out, const struct kernel_netem *n)
{
    if (n->gemodel) {
        buf_str(out, " loss gemodel");
        percent(out, n->p);
        percent(out, n->r);
        percent_of(out, n->h, true); /* tc asks for 1-h, the loss in the bad state */
        percent(out, n->k1);
    } else if (n->loss) {
        buf_str(out, " loss");
        percent(out, n->loss);
        if (n->loss_cor)
            percent(out, n->loss_cor);
    }
    if (n->ecn)
        buf_str(out, " ecn");
}

static void share_tc(struct buf *out, const char *word, uint32_t share, uint32_t cor)
{
    if (!share)
        return;
    buf_printf(out, " %s", word);
    percent(out, share);
    if (cor)
        percent(out, cor);
}

void kernel_netem_tc(struct buf *out, const struct kernel_netem *n)
{
    buf_printf(out, " limit %u", n->limit);
    delay_tc(out, n);
    loss_tc(out, n);
    share_tc(out, "duplicate", n->duplicate, n->duplicate_cor);
    share_tc(out, "corrupt", n->corrupt, n->corrupt_cor);
    share_tc(out, "reorder", n->reorder, n->reorder_cor);
    if (n->gap)
        buf_printf(out, " gap %u", n->gap);
    if (n->rate) {
        rate(out, n->rate);
        if (n->overhead || n->cell_size)
            buf_printf(out, " %d", n->overhead);
        if (n->cell_size)
            buf_printf(out, " %u %d", n->cell_size, n->cell_overhead);
    }
    if (n->slot) {
        buf_str(out, " slot");
        duration(out, (uint64_t)n->slot_min_ns);
        duration(out, (uint64_t)n->slot_max_ns);
        buf_printf(out, " packets %d bytes %d", n->slot_packets, n->slot_bytes);
    }
}

static void place_tc(struct buf *out, const struct kernel_step *s)
{
    buf_printf(out, "tc qdisc replace dev %s ", s->dev);
    if (s->parent == TC_H_ROOT)
        buf_str(out, "root");
    else
        buf_printf(out, "parent %x:%x", TC_H_MAJ(s->parent) >> 16, TC_H_MIN(s->parent));
    buf_printf(out, " handle %x:", TC_H_MAJ(s->handle) >> 16);
    if (s->overhead)
        buf_printf(out, " stab overhead %d linklayer ethernet", s->overhead);
}

static void redirect_tc(struct buf *out, const struct kernel_step *s)
{
    const struct kernel_redirect *r = &s->redirect;
    buf_printf(out, "tc filter add dev %s %s protocol all pref %u u32 match u32 0 0", s->dev,
               r->ingress ? "ingress" : "egress", KERNEL_PREF);
    if (r->police_rate) {
        buf_str(out, " action police");
        rate(out, r->police_rate);
        buf_printf(out, " burst %u mtu %u conform-exceed drop/pipe", r->police_burst, r->police_mtu);
    }
    buf_printf(out, " action mirred egress redirect dev %s cookie " KERNEL_COOKIE_HEX, s->to);
}

void kernel_step_tc(struct buf *out, const struct kernel_step *s)
{
    switch (s->op) {
    case KERNEL_IFB:
        buf_printf(out, "ip link add %s type ifb", s->dev);
        return;
    case KERNEL_NETEM:
        place_tc(out, s);
        buf_str(out, " netem");
        kernel_netem_tc(out, &s->netem);
        return;
    case KERNEL_TBF:
        place_tc(out, s);
        buf_str(out, " tbf");
        rate(out, s->tbf.rate);
        buf_printf(out, " burst %u limit %u", s->tbf.burst, s->tbf.limit);
        return;
    case KERNEL_CLSACT:
        buf_printf(out, "tc qdisc add dev %s clsact", s->dev);
        return;
    case KERNEL_REDIRECT:
        redirect_tc(out, s);
        return;
    }
}

void kernel_plan_tc(struct buf *out, const struct kernel_plan *plan)
{
    for (unsigned i = 0; i < plan->steps; i++) {
        kernel_step_tc(out, &plan->step[i]);
        buf_char(out, '\n');
        if (plan->step[i].op == KERNEL_IFB)
            buf_printf(out, "ip link set %s up\n", plan->step[i].dev);
    }
}
