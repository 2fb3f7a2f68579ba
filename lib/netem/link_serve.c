/* How packets get on the air: the radio's sleep, the rate or the trace, the queue. */
#include "netem/link_impl.h"

/* --- the radio --- */

/* To the next of the radio's ears-open moments, which come each `cycle` ns. */
static uint64_t to_next(uint64_t since_ns, uint64_t cycle_ns)
{
    uint64_t into = cycle_ns ? since_ns % cycle_ns : 0;
    return into ? cycle_ns - into : 0;
}

/* What the network waits until a dozing phone listens, `silence` after the last packet. */
static uint64_t drx_wait(const struct netem_profile *p, uint64_t silence_ns)
{
    if (!p->drx_after_ns || silence_ns <= p->drx_after_ns)
        return 0;
    uint64_t dozing = silence_ns - p->drx_after_ns;
    if (p->drx_short_ns && dozing < p->drx_short_for_ns)
        return to_next(dozing, p->drx_short_ns);
    return to_next(dozing - (p->drx_short_ns ? p->drx_short_for_ns : 0), p->drx_long_ns);
}

uint64_t link_radio_awake(const struct link *l, enum netem_dir dir, uint64_t now_ns)
{
    bool waits = l->active_ns > now_ns && !(l->dozing && dir == NETEM_UP);
    return waits ? l->active_ns : now_ns;
}

/* active_ns lies ahead of now while waking. */
uint64_t link_radio_ready(struct link *l, enum netem_dir dir, uint64_t now_ns)
{
    const struct netem_profile *p = l->profile;
    if (!p->rrc_idle_ns && !p->rrc_fach_ns && !p->drx_after_ns)
        return now_ns;
    bool idle = p->rrc_idle_ns && (!l->woken || now_ns > l->active_ns + p->rrc_idle_ns);
    if (!idle && now_ns <= l->active_ns)
        return link_radio_awake(l, dir, now_ns);
    uint64_t silence = l->woken ? now_ns - l->active_ns : 0, wait = 0;
    l->dozing = false;
    if (idle) {
        wait = p->rrc_promotion_ns;
        if (dir == NETEM_DOWN && p->paging_ns)
            wait += to_next(now_ns - l->begun_ns + l->seed % p->paging_ns, p->paging_ns);
    } else if (p->rrc_fach_ns && silence > p->rrc_fach_ns) {
        wait = p->rrc_fach_promotion_ns;
    } else if (dir == NETEM_DOWN) {
        wait = drx_wait(p, silence);
        l->dozing = wait > 0;
    }
    l->woken = true;
    l->active_ns = now_ns + wait;
    return l->active_ns;
}

/* --- a Mahimahi trace: a position is bytes since its beginning, as if every opportunity was full --- */

static uint64_t trace_passed(const struct link *l, const struct netem_trace *t, uint64_t at_ns)
{
    return at_ns < l->begun_ns ? 0
                               : netem_trace_rank(t, (at_ns - l->begun_ns) / NS_PER_MS) * NETEM_OPPORTUNITY;
}

static uint64_t trace_time(const struct link *l, const struct netem_trace *t, uint64_t position)
{
    return l->begun_ns + netem_trace_ms(t, position / NETEM_OPPORTUNITY) * NS_PER_MS;
}

/* The first position at or behind `position` whose time is not held; *at_ns is its time. */
static uint64_t trace_next(const struct link *l, const struct netem_trace *t, uint64_t position,
                           uint64_t *at_ns)
{
    for (;;) {
        *at_ns = trace_time(l, t, position);
        uint64_t until_ns = link_held_until(l, *at_ns);
        if (until_ns == *at_ns)
            return position;
        position = trace_passed(l, t, until_ns - 1);
    }
}

static uint64_t trace_position(const struct link *l, enum netem_dir dir, uint64_t ready_ns)
{
    uint64_t passed = trace_passed(l, l->profile->dir[dir].trace, ready_ns);
    return passed > l->way[dir].free_ns ? passed : l->way[dir].free_ns;
}

static uint64_t trace_serve(const struct link *l, enum netem_dir dir, uint64_t ready_ns, uint32_t bytes,
                            uint64_t *end)
{
    const struct netem_trace *t = l->profile->dir[dir].trace;
    uint64_t at_ns, position = trace_position(l, dir, ready_ns), left = bytes ? bytes : 1;
    for (;;) {
        position = trace_next(l, t, position, &at_ns);
        uint64_t room = NETEM_OPPORTUNITY - position % NETEM_OPPORTUNITY;
        uint64_t part = left < room ? left : room;
        position += part;
        left -= part;
        if (!left)
            break;
    }
    *end = position;
    return at_ns;
}

/* --- the queue --- */

uint64_t link_service_start(const struct link *l, enum netem_dir dir, uint64_t ready_ns)
{
    const struct netem_trace *t = l->profile->dir[dir].trace;
    uint64_t at_ns;
    if (t) {
        trace_next(l, t, trace_position(l, dir, ready_ns), &at_ns);
        return at_ns;
    }
    uint64_t free_ns = l->way[dir].free_ns;
    return link_held_until(l, free_ns > ready_ns ? free_ns : ready_ns);
}

uint64_t link_service(struct link *l, enum netem_dir dir, uint64_t ready_ns, uint32_t bytes)
{
    const struct netem_direction *p = &l->profile->dir[dir];
    uint64_t *free_ns = &l->way[dir].free_ns;
    if (p->trace)
        return trace_serve(l, dir, ready_ns, bytes, free_ns);
    uint64_t start = ready_ns > *free_ns ? ready_ns : *free_ns;
    uint64_t need = p->rate_bps ? (bytes * 8 * NS_PER_S + p->rate_bps / 2) / p->rate_bps : 0;
    return *free_ns = link_held_serve(l, start, need);
}

static bool trace_full(const struct link *l, enum netem_dir dir, uint64_t from_ns, uint32_t bytes)
{
    const struct netem_direction *p = &l->profile->dir[dir];
    uint64_t next = trace_passed(l, p->trace, from_ns), taken = l->way[dir].free_ns, end;
    if (taken <= next)
        return false;
    if (p->queue_ns)
        return trace_serve(l, dir, from_ns, bytes, &end) - from_ns > p->queue_ns;
    /* opportunities that pass while packets are held carry nothing */
    uint64_t last_ns = trace_time(l, p->trace, taken - 1), at_ns = from_ns, wasted = 0;
    while (link_held_time(l, at_ns, last_ns)) {
        uint64_t until_ns = link_held_until(l, at_ns);
        if (until_ns > at_ns)
            wasted += trace_passed(l, p->trace, until_ns - 1) - trace_passed(l, p->trace, at_ns);
        at_ns = until_ns > at_ns ? until_ns : link_hold_after(l, at_ns);
    }
    return taken - next - wasted + bytes > p->queue_bytes;
}

bool link_queue_full(const struct link *l, enum netem_dir dir, uint64_t now_ns, uint32_t bytes)
{
    const struct netem_direction *p = &l->profile->dir[dir];
    uint64_t free_ns = l->way[dir].free_ns, from_ns = link_radio_awake(l, dir, now_ns);
    if (p->trace)
        return trace_full(l, dir, from_ns, bytes);
    if (!p->rate_bps || !p->queue_bytes || free_ns <= from_ns)
        return false;
    /* only the time in which the rate really serves holds bytes */
    uint64_t wait_ns = free_ns - from_ns - link_held_time(l, from_ns, free_ns);
    /* wait_ns * rate / 8e9; a wait of less than a byte still counts as an empty queue */
    uint64_t backlog = (uint64_t)((unsigned __int128)wait_ns * p->rate_bps / (8 * NS_PER_S));
    return backlog && backlog + bytes > p->queue_bytes;
}

void link_service_reset(struct link *l, uint64_t now_ns)
{
    for (int d = 0; d < 2; d++)
        l->way[d].free_ns = l->profile->dir[d].trace ? 0 : now_ns;
}
