/* A binary heap of connections by the time they want to be woken. */
#include <stdlib.h>

#include "netem/proxy/driver_impl.h"

static void put(struct heap *h, uint32_t i, struct conn *c)
{
    h->at[i] = c;
    c->heap_at = i;
}

static void up(struct heap *h, uint32_t i, struct conn *c)
{
    for (; i && h->at[(i - 1) / 2]->wake_ns > c->wake_ns; i = (i - 1) / 2)
        put(h, i, h->at[(i - 1) / 2]);
    put(h, i, c);
}

static void down(struct heap *h, uint32_t i, struct conn *c)
{
    for (;;) {
        uint32_t k = 2 * i + 1;
        if (k + 1 < h->n && h->at[k + 1]->wake_ns < h->at[k]->wake_ns)
            k++;
        if (k >= h->n || h->at[k]->wake_ns >= c->wake_ns)
            break;
        put(h, i, h->at[k]);
        i = k;
    }
    put(h, i, c);
}

bool heap_reserve(struct heap *h)
{
    if (h->n < h->cap)
        return true;
    uint32_t cap = h->cap ? h->cap * 2 : 64;
    struct conn **at = realloc(h->at, cap * sizeof(struct conn *));
    if (!at)
        return false;
    h->at = at;
    h->cap = cap;
    return true;
}

static void take_out(struct heap *h, struct conn *c)
{
    uint32_t i = c->heap_at;
    struct conn *last = h->at[--h->n];
    c->heap_at = UINT32_MAX;
    if (last == c)
        return;
    if (i && h->at[(i - 1) / 2]->wake_ns > last->wake_ns)
        up(h, i, last);
    else
        down(h, i, last);
}

void heap_set(struct heap *h, struct conn *c, uint64_t wake_ns)
{
    if (c->heap_at != UINT32_MAX && c->wake_ns == wake_ns)
        return;
    if (c->heap_at != UINT32_MAX)
        take_out(h, c);
    c->wake_ns = wake_ns;
    if (wake_ns != UINT64_MAX)
        up(h, h->n++, c); /* room was reserved when the connection came */
}

struct conn *heap_first(const struct heap *h)
{
    return h->n ? h->at[0] : NULL;
}

void heap_release(struct heap *h)
{
    free(h->at);
    h->at = NULL;
    h->n = h->cap = 0;
}
