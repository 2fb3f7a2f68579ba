/* What a profile becomes, and what it cannot become. Pure. */
#include "netem/kernel/kernel_impl.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define WIRE_RATE     12500000000ull /* 100 Gbit/s: as good as at once */
#define JITTER_MAX_NS 2147483000ull  /* netem keeps it in 31 bits of nanoseconds */
#define TABLE_MAX     16384          /* NETEM_DIST_MAX */
#define QUEUE_S_MAX   270            /* the kernel takes it as 2^32 ticks of 64 ns at most */
#define AIR_MIN       1000u
#define AIR_MAX       1000000u
#define AIR_UNLIMITED 100000u
#define PACKET_MIN    28u        /* bytes of an empty UDP packet */
#define POLICE_MTU    (1u << 20) /* larger than what any offload joins */

uint32_t kernel_frame(const struct kernel_device *dev)
{
    return dev->mtu + dev->header + 8;
}

void kernel_ifb_name(char name[16], const struct kernel_device *dev, bool up)
{
    snprintf(name, 16, "netem-%c%u", up ? 'u' : 'd', (unsigned)dev->index % 100000000u);
}

static void __attribute__((format(printf, 3, 4))) say(char (*list)[160], unsigned *n, const char *fmt, ...)
{
    va_list ap;
    if (*n == KERNEL_SENTENCES_MAX)
        return;
    va_start(ap, fmt);
    vsnprintf(list[(*n)++], 160, fmt, ap);
    va_end(ap);
}
#define REFUSE(plan, ...) say((plan)->refused, &(plan)->refused_n, __VA_ARGS__)
#define NOTE(plan, ...)   say((plan)->note, &(plan)->notes, __VA_ARGS__)

static uint32_t share_ppm(uint32_t ppm)
{
    return (uint32_t)rint(ppm / 1e6 * UINT32_MAX);
}

static uint32_t share_p32(uint64_t p32)
{
    return p32 > UINT32_MAX ? UINT32_MAX : (uint32_t)p32;
}

static uint64_t whole_us(uint64_t ns)
{
    return (ns + 500) / 1000 * 1000;
}

static uint32_t queue_bytes(const struct netem_direction *d)
{
    uint64_t bytes =
        d->queue_ns ? (uint64_t)((double)d->queue_ns * (double)d->rate_bps / 8e9) : d->queue_bytes;
    uint64_t most = d->rate_bps / 8 * QUEUE_S_MAX;
    most = most > INT32_MAX ? INT32_MAX : most;
    return bytes > most ? (uint32_t)most : (uint32_t)bytes;
}

/* Packets that may be in the air and in the queue before it: never the limit, unless there is no rate. */
static uint32_t air_limit(const struct netem_direction *d)
{
    if (!d->rate_bps)
        return AIR_UNLIMITED;
    double bytes = queue_bytes(d) + (double)(d->delay_ns + 4 * d->jitter_ns) * (double)d->rate_bps / 8e9;
    double packets = bytes / PACKET_MIN + AIR_MIN;
    return packets > AIR_MAX ? AIR_MAX : (uint32_t)packets;
}

static void loss_of(struct kernel_netem *n, const struct netem_direction *d)
{
    if (!d->burst_milli && !d->loss_good_ppm) {
        n->loss = share_ppm(d->loss_ppm);
        return;
    }
    n->gemodel = d->loss_ppm || d->loss_good_ppm;
    n->p = share_p32(d->enter_p32);
    n->r = share_p32(d->leave_p32);
    n->k1 = share_ppm(d->loss_good_ppm);
}

static struct kernel_netem air_of(const struct netem_direction *d, const struct kernel_device *dev,
                                  bool holds)
{
    struct kernel_netem n = {.limit = air_limit(d),
                             .delay_ns = whole_us(d->delay_ns),
                             .jitter_ns = whole_us(d->jitter_ns),
                             .duplicate = share_ppm(d->duplicate_ppm),
                             .corrupt = share_ppm(d->corrupt_ppm),
                             .rate = d->rate_bps / 8,
                             .overhead = -(int32_t)dev->header};
    loss_of(&n, d);
    if (n.jitter_ns) {
        n.delay_cor = share_ppm(d->jitter_corr_ppm);
        if (d->dist && d->dist->n) {
            n.distribution = d->dist->name;
            n.table = d->dist->at;
            n.table_n = d->dist->n;
        }
    }
    if (d->reorder_ppm && n.delay_ns) {
        n.reorder = share_ppm(d->reorder_ppm);
        n.reorder_cor = share_ppm(d->reorder_corr_ppm);
        n.gap = d->reorder_gap ? d->reorder_gap : 1;
    }
    if (!n.rate && (n.jitter_ns || holds))
        n.rate = WIRE_RATE; /* keeps the order: no packet is sent before its predecessor */
    if (!n.rate)
        n.overhead = 0;
    return n;
}

/* Whether a direction asks for anything. */
static bool asks(const struct netem_direction *d)
{
    return d->rate_bps || d->delay_ns || d->jitter_ns || d->loss_ppm || d->loss_good_ppm || d->corrupt_ppm ||
           d->duplicate_ppm || d->reorder_ppm;
}

static struct kernel_step *add(struct kernel_plan *plan, enum kernel_op op, const char *dev)
{
    struct kernel_step s = {.op = op, .parent = TC_H_ROOT};
    snprintf(s.dev, sizeof s.dev, "%s", dev);
    plan->step[plan->steps] = s;
    return &plan->step[plan->steps++];
}

static struct kernel_step *add_tbf(struct kernel_plan *plan, const char *dev, uint32_t handle,
                                   uint32_t parent, uint64_t rate)
{
    struct kernel_step *s = add(plan, KERNEL_TBF, dev);
    s->handle = handle;
    s->parent = parent;
    s->tbf = (struct kernel_tbf){.rate = rate, .burst = kernel_frame(&plan->dev), .limit = 1u << 24};
    return s;
}

/* The first tbf and netem below it. */
static void add_air(struct kernel_plan *plan, const char *dev, const struct netem_direction *d)
{
    add_tbf(plan, dev, KERNEL_ROOT, TC_H_ROOT, WIRE_RATE);
    struct kernel_step *s = add(plan, KERNEL_NETEM, dev);
    s->handle = KERNEL_AIR;
    s->parent = KERNEL_ROOT | 1;
    s->netem = air_of(d, &plan->dev, plan->has_weather);
}

/* A bucket of 10 ms outlasts a late timer; netem, which takes the rate once more, smooths what it lets
 * through at once. What is in the bucket is not in the queue, all but half a frame of it on average. */
static void add_queue(struct kernel_plan *plan, const char *dev, uint32_t parent,
                      const struct netem_direction *d)
{
    uint32_t frame = kernel_frame(&plan->dev), bytes = queue_bytes(d);
    uint64_t bucket = d->rate_bps / 8 / 100;
    bucket = bucket > bytes / 2 ? bytes / 2 : bucket;
    bucket = bucket < frame ? frame : bucket;
    struct kernel_step *s = add_tbf(plan, dev, KERNEL_QUEUE, parent, d->rate_bps / 8);
    s->tbf.burst = (uint32_t)bucket;
    s->tbf.limit = bytes + frame / 2 > bucket + frame ? bytes + frame / 2 - (uint32_t)bucket : frame;
    if (parent == TC_H_ROOT)
        s->overhead = -(int32_t)plan->dev.header;
}

/* Below a netem of 1 us, which takes the packets from their sockets' accounts. */
static void add_gate(struct kernel_plan *plan, const char *dev, const struct netem_direction *d)
{
    struct kernel_step *s = add(plan, KERNEL_NETEM, dev);
    s->handle = KERNEL_GATE;
    s->overhead = -(int32_t)plan->dev.header;
    s->netem = (struct kernel_netem){.limit = AIR_UNLIMITED, .delay_ns = 1000};
    add_queue(plan, dev, KERNEL_GATE | 1, d);
}

static void add_up(struct kernel_plan *plan, const struct netem_direction *d, unsigned lacks)
{
    char ifb[16];
    kernel_ifb_name(ifb, &plan->dev, true);
    if (d->rate_bps) {
        add(plan, KERNEL_IFB, ifb);
        if (lacks & KERNEL_NO_NETEM)
            add_queue(plan, ifb, TC_H_ROOT, d);
        else
            add_gate(plan, ifb, d);
    }
    if ((asks(d) || plan->has_weather) && !(lacks & KERNEL_NO_NETEM))
        add_air(plan, plan->dev.name, d);
}

static void add_down(struct kernel_plan *plan, const struct netem_direction *d, unsigned lacks)
{
    char ifb[16];
    kernel_ifb_name(ifb, &plan->dev, false);
    if ((!asks(d) && !plan->has_weather) || (lacks & KERNEL_NO_NETEM && !d->rate_bps))
        return;
    add(plan, KERNEL_IFB, ifb);
    if (lacks & KERNEL_NO_NETEM)
        add_queue(plan, ifb, TC_H_ROOT, d);
    else
        add_air(plan, ifb, d);
}

/* Last, since they turn the traffic in. */
static void add_redirects(struct kernel_plan *plan, const struct netem_direction *down, unsigned lacks)
{
    unsigned n = plan->steps;
    char name[16];
    bool any = false;
    for (int up = 1; up >= 0; up--) {
        kernel_ifb_name(name, &plan->dev, up);
        bool there = false;
        for (unsigned i = 0; i < n; i++)
            there |= plan->step[i].op == KERNEL_IFB && strcmp(plan->step[i].dev, name) == 0;
        if (!there)
            continue;
        if (!any) {
            struct kernel_step *c = add(plan, KERNEL_CLSACT, plan->dev.name);
            c->handle = TC_H_MAKE(TC_H_CLSACT, 0);
            c->parent = TC_H_CLSACT;
        }
        any = true;
        struct kernel_step *s = add(plan, KERNEL_REDIRECT, plan->dev.name);
        snprintf(s->to, sizeof s->to, "%s", name);
        s->parent = 0;
        s->redirect.ingress = !up;
        if (!up && down->rate_bps && !(lacks & (KERNEL_NO_NETEM | KERNEL_NO_POLICE)))
            s->redirect = (struct kernel_redirect){true, down->rate_bps / 8, queue_bytes(down), POLICE_MTU};
    }
}

static void judge_direction(struct kernel_plan *plan, const char *way, struct netem_direction *d)
{
    if (d->trace) {
        REFUSE(plan, "%s.trace: the kernel has rates, not delivery times", way);
        d->rate_bps = 0;
    }
    if (d->rate_bps && (d->queue_ns > QUEUE_S_MAX * 1000000000ull ||
                        d->queue_bytes > d->rate_bps / 8 * QUEUE_S_MAX || d->queue_bytes > INT32_MAX))
        REFUSE(plan, "%s.queue: the kernel takes no more than %d s of the rate and 2 GiB", way, QUEUE_S_MAX);
    if (d->queue_head)
        REFUSE(plan, "%s.queue_drop=head: the kernel's queue drops the packet that comes", way);
    if (d->jitter_ns > JITTER_MAX_NS) {
        REFUSE(plan, "%s.jitter: netem takes no more than 2.147 s", way);
        d->jitter_ns = 0;
    }
    if (d->jitter_ns && d->dist && d->dist->n > TABLE_MAX) {
        REFUSE(plan, "%s.jitter_dist: netem takes tables of %u values", way, TABLE_MAX);
        d->dist = NULL;
    }
    if (d->reorder_ppm && whole_us(d->delay_ns) == 0)
        REFUSE(plan, "%s.reorder: without a delay there is nothing to overtake", way);
    if (d->jitter_ns && d->jitter_corr_ppm)
        NOTE(plan, "%s.jitter_corr is netem's own kind, which narrows the distribution", way);
    if (d->corrupt_ppm)
        NOTE(plan, "%s.corrupt flips a bit anywhere in the frame, in the link-layer header too", way);
    if (!d->rate_bps && asks(d))
        NOTE(plan, "%s without a rate: at most %u packets are under way, more are dropped", way,
             AIR_UNLIMITED);
}

static void judge_radio(struct kernel_plan *plan, const struct netem_profile *p, unsigned lacks)
{
    bool dark = p->blackout.every_ns || p->blackout_period_ns || p->blackout_at.n || p->handover.every_ns;
    bool held = p->stall.every_ns || p->cell.every_ns;
    plan->has_weather = (dark || held) && !(lacks & (KERNEL_NO_WEATHER | KERNEL_NO_NETEM));
    plan->weather = *p;
    if ((dark || held) && !plan->has_weather)
        REFUSE(plan, "blackout, handover, cell, stall: netem knows no time%s",
               lacks & KERNEL_NO_NETEM ? "" : "; with -- CMD or --for they are played");
    if (plan->has_weather && dark)
        NOTE(plan,
             "down: a packet that waits for the rate when it gets dark is not lost: netem has counted it");
    if (plan->has_weather && held)
        NOTE(plan, "what waits while packets are held (stall, cell) is not limited by the queue");
    if (p->handover_loses_ppm || p->blackout_loses_ppm)
        REFUSE(plan, "handover_loses, blackout_loses: the device keeps its address");
    if (p->nat_idle_ns)
        REFUSE(plan, "nat_idle: netem knows no flows");
    if (p->rrc_idle_ns || p->rrc_fach_ns || p->drx_after_ns)
        REFUSE(plan, "rrc, drx, paging: netem does not know when the radio sleeps");
}

static void judge_lacks(struct kernel_plan *plan, const struct netem_profile *p, unsigned lacks)
{
    bool rate = false, more = false;
    for (int d = 0; d < 2; d++) {
        struct netem_direction without = p->dir[d];
        without.rate_bps = 0;
        rate |= p->dir[d].rate_bps > 0;
        more |= asks(&without);
    }
    if (lacks & KERNEL_NO_NETEM && more)
        REFUSE(plan, "delay, jitter, loss, corrupt, duplicate, reorder: this kernel has no sch_netem");
    if (lacks & KERNEL_NO_NETEM && rate)
        NOTE(plan,
             "rate without sch_netem: a packet that finds the link idle is not delayed by its own length");
    if (lacks & KERNEL_NO_POLICE && !(lacks & KERNEL_NO_NETEM) && rate)
        REFUSE(plan,
               "queue: this kernel has no act_police, so what waits for the rate has no limit in bytes");
}

void kernel_plan_make(struct kernel_plan *plan, const struct netem_profile *p, const char *description,
                      const struct kernel_device *dev, bool swap, unsigned lacks)
{
    struct netem_profile fit = *p;
    struct netem_direction *up = &fit.dir[swap ? NETEM_DOWN : NETEM_UP];
    struct netem_direction *down = &fit.dir[swap ? NETEM_UP : NETEM_DOWN];
    *plan = (struct kernel_plan){.dev = *dev};
    snprintf(plan->profile, sizeof plan->profile, "%s", description);
    judge_direction(plan, "up", &fit.dir[NETEM_UP]);
    judge_direction(plan, "down", &fit.dir[NETEM_DOWN]);
    judge_radio(plan, p, lacks);
    judge_lacks(plan, &fit, lacks);
    if (asks(up) || asks(down) || plan->has_weather)
        NOTE(plan, "the kernel draws its own random numbers: no seed repeats a run");
    add_up(plan, up, lacks);
    add_down(plan, down, lacks);
    add_redirects(plan, down, lacks);
    BUG_ON(plan->steps > KERNEL_STEPS_MAX);
}
