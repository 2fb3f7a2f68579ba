/* A calibration's life, and what it keeps of each packet. */
#include "netem/calibrate_impl.h"

#include <stdlib.h>
#include <string.h>

#define NEVER       UINT64_MAX
#define HOLD_MIN_NS 5000000ull /* a shorter wait may be the machine's own */

int calibrate_new(struct calibrate **out, const struct netem_profile *p, const struct calibrate_options *o,
                  struct err_ctx *ctx)
{
    struct calibrate *c = calloc(1, sizeof *c);
    if (!c)
        return err_set(ctx, ERR_NOMEM, "calibrate: out of memory");
    c->profile = *p;
    c->o = *o;
    c->may_add = !o->packets && !o->time_ns;
    c->o.packets = o->packets ? o->packets : 2000000;
    if (c->o.packets > CALIBRATE_PACKETS_MAX)
        c->o.packets = CALIBRATE_PACKETS_MAX;
    calibrate_plan(c);
    for (unsigned i = 0; i < c->phases; i++)
        c->phase[i].began_ns = NEVER;
    *out = c;
    return 0;
}

void calibrate_free(struct calibrate *c)
{
    if (!c)
        return;
    for (unsigned i = 0; i < c->phases; i++) {
        struct phase_seen *f = &c->phase[i];
        struct series *const all[] = {&f->idle, &f->fach, &f->paging, &f->drx_short, &f->drx_long, &f->flat};
        for (size_t s = 0; s < sizeof all / sizeof *all; s++)
            free(all[s]->at);
        for (int d = 0; d < 2; d++) {
            free(f->way[d].delays.at);
            free(f->way[d].seconds.at);
            free(f->way[d].waits.at);
            free(f->way[d].dark.at);
        }
        free(f->told.at);
    }
    free(c);
}

const struct calibrate_phase *calibrate_phase(const struct calibrate *c, unsigned i)
{
    return i < c->phases ? &c->phase[i].plan : NULL;
}

void calibrate_lacks(struct calibrate *c, enum calibrate_kind kind, const char *why)
{
    c->lacks[kind] = why;
}

void series_add(struct calibrate *c, struct series *s, uint64_t v)
{
    if (s->n == s->cap) {
        uint64_t cap = s->cap ? s->cap * 2 : 1024;
        uint64_t *more = realloc(s->at, cap * sizeof *more);
        if (!more) {
            c->no_memory = true;
            return;
        }
        s->at = more;
        s->cap = cap;
    }
    s->at[s->n++] = v;
}

void spans_add(struct calibrate *c, struct spans *s, uint64_t start_ns, uint64_t length_ns)
{
    if (s->n == s->cap) {
        uint64_t cap = s->cap ? s->cap * 2 : 256;
        struct span_seen *more = realloc(s->at, cap * sizeof *more);
        if (!more) {
            c->no_memory = true;
            return;
        }
        s->at = more;
        s->cap = cap;
    }
    s->at[s->n++] = (struct span_seen){start_ns, length_ns};
}

void calibrate_began(struct calibrate *c, unsigned i, uint64_t ns)
{
    c->phase[i].began_ns = ns;
}

void calibrate_see_window(struct calibrate *c, unsigned i, uint64_t start_ns, uint64_t length_ns)
{
    spans_add(c, &c->phase[i].told, start_ns, length_ns);
}

/* --- one packet --- */

static void see_run(struct way_seen *w, bool lost)
{
    if (lost) {
        w->run++;
        return;
    }
    if (w->run && w->any_before) {
        w->runs[(w->run < RUNS_MAX ? w->run : RUNS_MAX) - 1]++;
        w->runs_n++;
    }
    w->run = 0;
    w->any_before = true;
}

static void see_delay(struct calibrate *c, struct way_seen *w, uint64_t delay_ns)
{
    double ms = (double)delay_ns / 1e6;
    series_add(c, &w->delays, delay_ns);
    if (w->before) {
        w->pair_n++;
        w->pair_x += w->before_ms;
        w->pair_y += ms;
        w->pair_xx += w->before_ms * w->before_ms;
        w->pair_yy += ms * ms;
        w->pair_xy += w->before_ms * ms;
    }
    w->before = true;
    w->before_ms = ms;
}

/* A trace's packets by the second in which they left. */
static void see_second(struct calibrate *c, const struct phase_seen *f, struct way_seen *w, int d,
                       const struct calibrate_packet *p)
{
    uint64_t left_ns = p->delivered_ns - f->plan.profile.dir[d].delay_ns;
    uint64_t second = left_ns < f->began_ns ? 0 : (left_ns - f->began_ns) / 1000000000ull;
    if (!f->plan.profile.dir[d].trace || second > 1u << 24)
        return;
    while (w->seconds.n <= second && !c->no_memory)
        series_add(c, &w->seconds, 0);
    if (second < w->seconds.n)
        w->seconds.at[second] += p->bytes;
}

/* An outage lasts from the first packet that was lost to the first that was not. */
static void see_dark(struct calibrate *c, struct way_seen *w, const struct calibrate_packet *p, bool lost)
{
    if (lost && !w->dark_since_ns) {
        w->dark_since_ns = p->offered_ns;
    } else if (!lost && w->dark_since_ns) {
        spans_add(c, &w->dark, w->dark_since_ns, p->offered_ns - w->dark_since_ns);
        w->dark_since_ns = 0;
    }
}

/* A hold is as long as its first packet waits. */
static void see_held(struct calibrate *c, const struct phase_seen *f, struct way_seen *w,
                     const struct calibrate_packet *p)
{
    const struct netem_direction *d = &f->plan.profile.dir[p->dir];
    uint64_t base = d->delay_ns + calibrate_service_ns(d, p->bytes);
    uint64_t waited = p->delivered_ns - p->offered_ns > base ? p->delivered_ns - p->offered_ns - base : 0;
    uint64_t own = 2 * c->o.late_ns > HOLD_MIN_NS ? 2 * c->o.late_ns : HOLD_MIN_NS;
    if (waited > own && p->offered_ns >= w->dark_since_ns) {
        spans_add(c, &w->dark, p->offered_ns, waited);
        w->dark_since_ns = p->offered_ns + waited;
    }
}

/* What the radio's state says that this packet waits, into the series that its rule is judged by. */
static void see_sleep(struct calibrate *c, struct phase_seen *f, const struct calibrate_packet *p)
{
    const struct netem_profile *a = &f->plan.profile;
    uint64_t delay_ns = a->dir[p->dir].delay_ns;
    uint64_t waited =
        p->delivered_ns - p->offered_ns > delay_ns ? p->delivered_ns - p->offered_ns - delay_ns : 0;
    uint64_t silent = p->offered_ns > f->awake_ns ? p->offered_ns - f->awake_ns : 0;
    uint64_t dozing = silent > a->drx_after_ns ? silent - a->drx_after_ns : 0;
    bool settles = f->turns % 2 == 0, first = !f->turns++, down = p->dir == NETEM_DOWN;
    bool waking = !first && p->offered_ns < f->awake_ns; /* behind the packet that woke the radio */
    struct series *s = &f->flat;
    if (first || (a->rrc_idle_ns && silent > a->rrc_idle_ns))
        s = down && a->paging_ns ? &f->paging : &f->idle;
    else if (a->rrc_fach_ns && silent > a->rrc_fach_ns)
        s = &f->fach;
    else if (down && a->drx_after_ns && dozing)
        s = a->drx_short_ns && dozing < a->drx_short_for_ns ? &f->drx_short : &f->drx_long;
    f->awake_ns = p->offered_ns + waited;
    if (!first && !waking && !settles)
        series_add(c, s, waited);
}

/* A queue that turns a packet away has just been filled by the one before. */
static void see_full(struct calibrate *c, struct way_seen *w, const struct calibrate_packet *p, bool lost)
{
    if (lost && w->before_full_ns)
        series_add(c, &w->waits, w->before_full_ns);
    w->before_full_ns = lost ? 0 : p->delivered_ns - p->offered_ns;
}

static void see_nat(struct phase_seen *f, bool lost)
{
    bool gone = calibrate_silence(&f->plan, f->turns++) > f->plan.profile.nat_idle_ns;
    if (gone) {
        f->gone_of++;
        f->gone += lost;
    } else {
        f->kept_of++;
        f->kept += !lost;
    }
}

static void see_arrival(struct calibrate *c, struct phase_seen *f, struct way_seen *w,
                        const struct calibrate_packet *p)
{
    uint64_t delay_ns = p->delivered_ns - p->offered_ns;
    if (!w->delivered++) {
        w->first_ns = p->delivered_ns;
        w->first_bytes = p->bytes;
    }
    w->bytes += p->bytes;
    w->last_ns = p->delivered_ns > w->last_ns ? p->delivered_ns : w->last_ns;
    w->copies += p->copy_ns != 0;
    w->corrupt += p->corrupt;
    w->reordered += p->delivered_ns < w->newest_ns;
    w->newest_ns = p->delivered_ns > w->newest_ns ? p->delivered_ns : w->newest_ns;
    w->delay_max_ns = delay_ns > w->delay_max_ns ? delay_ns : w->delay_max_ns;
    switch (f->plan.kind) {
    case CALIBRATE_DELAY:
        see_delay(c, w, delay_ns);
        break;
    case CALIBRATE_FULL:
        see_second(c, f, w, p->dir, p);
        break;
    case CALIBRATE_HOLD:
        see_held(c, f, w, p);
        break;
    case CALIBRATE_SLEEP:
        see_sleep(c, f, p);
        break;
    case CALIBRATE_LOSS:
    case CALIBRATE_REORDER:
    case CALIBRATE_OUTAGE:
    case CALIBRATE_NAT:
    case CALIBRATE_WHOLE:
    case CALIBRATE_KINDS:
        break;
    }
}

void calibrate_see(struct calibrate *c, unsigned i, const struct calibrate_packet *p)
{
    struct phase_seen *f = &c->phase[i];
    struct way_seen *w = &f->way[p->dir];
    bool lost = p->reason != REASON_NONE;
    if (w->offered >= CALIBRATE_PACKETS_MAX)
        return;
    if (f->began_ns == NEVER)
        f->began_ns = p->offered_ns;
    if (f->plan.kind == CALIBRATE_WHOLE && lost && p->reason != REASON_LOSS)
        return; /* outages have their own phases */
    w->offered++;
    w->offered_ns = p->offered_ns;
    w->lost += lost;
    if (f->plan.kind == CALIBRATE_LOSS)
        see_run(w, lost);
    else if (f->plan.kind == CALIBRATE_OUTAGE)
        see_dark(c, w, p, lost);
    else if (f->plan.kind == CALIBRATE_NAT)
        see_nat(f, lost);
    else if (f->plan.kind == CALIBRATE_FULL)
        see_full(c, w, p, lost);
    if (!lost)
        see_arrival(c, f, w, p);
    else
        w->before = false;
}
