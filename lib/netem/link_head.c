/* Drop-head queues: the ring of packets whose fate is open. */
#include "netem/link_impl.h"

void link_head_init(struct link_head *h, struct link *l, enum netem_dir dir, struct link_waiting *ring,
                    uint32_t size)
{
    BUG_ON(!size || size & (size - 1));
    *h = (struct link_head){.link = l, .dir = dir, .ring = ring, .mask = size - 1, .due_ns = UINT64_MAX};
}

static void head_due(struct link_head *h)
{
    uint32_t first = h->first + h->dropped;
    h->due_ns = h->dropped         ? 0
                : first == h->next ? UINT64_MAX
                                   : link_service_start(h->link, h->dir, h->ring[first & h->mask].ready_ns);
}

static void give_up_oldest(struct link_head *h)
{
    h->bytes -= h->ring[(h->first + h->dropped++) & h->mask].bytes;
}

void link_head_offer(struct link_head *h, uint64_t now_ns, uint32_t bytes)
{
    const struct netem_direction *p = &h->link->profile->dir[h->dir];
    struct link *l = h->link;
    BUG_ON(h->due_ns <= now_ns);
    link_advance(l, now_ns);
    uint64_t ready_ns = l->detached ? now_ns : link_radio_ready(l, h->dir, now_ns);
    /* a given-up packet needs its place in the ring no longer, only its turn */
    while (h->first + h->dropped != h->next &&
           (h->bytes + bytes > p->queue_bytes || h->next - h->first - h->dropped > h->mask))
        give_up_oldest(h);
    h->ring[h->next++ & h->mask] = (struct link_waiting){ready_ns, bytes};
    h->bytes += bytes;
    head_due(h);
}

bool link_head_next(struct link_head *h, uint64_t now_ns, struct link_verdict *v)
{
    struct link *l = h->link;
    link_advance(l, now_ns);
    if (h->first == h->next)
        return false;
    struct link_waiting w = h->ring[h->first & h->mask];
    *v = (struct link_verdict){.reason = REASON_QUEUE_FULL};
    if (h->dropped) {
        h->dropped--;
    } else if (l->detached || w.ready_ns < l->attached_ns) {
        v->reason = REASON_DETACHED;
        h->bytes -= w.bytes;
    } else if (h->due_ns <= now_ns) {
        h->bytes -= w.bytes;
        *v = link_on_air(l, h->dir, link_service(l, h->dir, w.ready_ns, w.bytes), w.bytes);
    } else {
        return false;
    }
    h->first++;
    head_due(h);
    return true;
}

uint64_t link_head_due(const struct link_head *h)
{
    return h->due_ns;
}
