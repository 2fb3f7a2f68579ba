/* Drop-head queues: link_head decides, this keeps the packets. */
#include <stdlib.h>

#include "netem/tun/shuttle_impl.h"

struct waiting *waiting_of(struct shuttle *s, struct radio *r, enum netem_dir dir, bool *full)
{
    *full = false;
    if (s->calm || !s->groups[r->group].profile->dir[dir].queue_head)
        return NULL;
    struct waiting *w = r->waiting[dir];
    if (w)
        return w;
    w = r->waiting[dir] = malloc(sizeof *w); /* touched only as far as it is used */
    if (!w) {
        *full = true;
        return NULL;
    }
    link_head_init(&w->head, &r->link, dir, w->ring, WAITING_MAX);
    w->first = w->next = 0;
    w->timer_ns = UINT64_MAX;
    return w;
}

static uint32_t take_first(struct waiting *w)
{
    return w->slot[w->first++ % (2 * WAITING_MAX)];
}

/* Be back when the oldest is due. An entry of the heap that is not the latest is stale and ignored. */
static void wake_at(struct shuttle *s, struct radio *r, struct waiting *w)
{
    uint64_t due = link_head_due(&w->head);
    if (due >= w->timer_ns)
        return;
    w->timer_ns = due;
    if (!heap_push(&s->heads, due, (uint32_t)(r - s->radios) * 2 + w->head.dir))
        w->timer_ns = UINT64_MAX; /* the next packet of this queue looks again */
}

static void decide(struct shuttle *s, struct radio *r, struct waiting *w, uint64_t now_ns)
{
    struct link_verdict v;
    while (link_head_next(&w->head, now_ns, &v))
        carry_decided(s, r, take_first(w), v, now_ns);
}

void waiting_put(struct shuttle *s, struct radio *r, struct waiting *w, uint32_t slot, uint64_t now_ns)
{
    decide(s, r, w, now_ns);
    link_head_offer(&w->head, now_ns, s->pool.held[slot].len);
    w->slot[w->next++ % (2 * WAITING_MAX)] = slot;
    decide(s, r, w, now_ns);
    wake_at(s, r, w);
}

void waiting_run(struct shuttle *s, uint64_t now_ns)
{
    while (heap_first_ns(&s->heads) <= now_ns) {
        uint64_t at = heap_first_ns(&s->heads);
        uint32_t index = heap_pop(&s->heads);
        struct radio *r = &s->radios[index / 2];
        struct waiting *w = r->waiting[index % 2];
        if (!w || w->timer_ns != at)
            continue;
        w->timer_ns = UINT64_MAX;
        decide(s, r, w, now_ns);
        wake_at(s, r, w);
    }
}

void waiting_check(struct shuttle *s, struct radio *r, uint64_t now_ns)
{
    for (int dir = 0; dir < 2; dir++) {
        if (!r->waiting[dir])
            continue;
        decide(s, r, r->waiting[dir], now_ns);
        wake_at(s, r, r->waiting[dir]);
    }
}

void waiting_flush(struct shuttle *s, struct radio *r, uint64_t now_ns, enum reason forced)
{
    for (int dir = 0; dir < 2; dir++) {
        struct waiting *old = r->waiting[dir];
        bool full;
        if (!old)
            continue;
        r->waiting[dir] = NULL;
        while (old->first != old->next) {
            uint32_t slot = take_first(old);
            struct waiting *w = forced ? NULL : waiting_of(s, r, dir, &full);
            struct link_verdict v = {.reason = forced};
            if (w) {
                waiting_put(s, r, w, slot, now_ns);
                continue;
            }
            if (!forced)
                v = link_offer(&r->link, dir, now_ns, s->pool.held[slot].len);
            carry_decided(s, r, slot, v, now_ns);
        }
        free(old);
    }
}
