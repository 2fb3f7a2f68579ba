#include "netem/tun/held_impl.h"

#include <stddef.h>
#include <sys/mman.h>

#include "util/err.h"

void *map_zeroed(uint64_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

int pool_init(struct pool *p)
{
    p->packet = map_zeroed((uint64_t)HELD_MAX * HELD_PACKET_SIZE);
    p->held = map_zeroed(HELD_MAX * sizeof *p->held);
    p->free = map_zeroed(HELD_MAX * sizeof *p->free);
    if (!p->packet || !p->held || !p->free)
        return ERR_NOMEM;
    /* last in, first out: the packet that is cached is taken again */
    for (uint32_t i = 0; i < HELD_MAX; i++)
        p->free[i] = HELD_MAX - 1 - i;
    p->free_n = HELD_MAX;
    return 0;
}

int64_t pool_take(struct pool *p)
{
    return p->free_n ? (int64_t)p->free[--p->free_n] : -1;
}

void pool_give(struct pool *p, uint32_t index)
{
    p->free[p->free_n++] = index;
}

int heap_init(struct heap *h, uint32_t max)
{
    *h = (struct heap){.at = map_zeroed(max * sizeof(struct due)), .max = max};
    return h->at ? 0 : ERR_NOMEM;
}

static bool before(const struct due *a, const struct due *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : (int32_t)(a->order - b->order) < 0;
}

bool heap_push(struct heap *h, uint64_t at_ns, uint32_t index)
{
    if (h->count == h->max)
        return false;
    struct due d = {at_ns, h->order++, index};
    uint32_t i = h->count++;
    for (; i && before(&d, &h->at[(i - 1) / 2]); i = (i - 1) / 2)
        h->at[i] = h->at[(i - 1) / 2];
    h->at[i] = d;
    return true;
}

uint32_t heap_pop(struct heap *h)
{
    BUG_ON(!h->count);
    uint32_t top = h->at[0].index, i = 0, n = --h->count;
    struct due last = h->at[n];
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= n)
            break;
        if (child + 1 < n && before(&h->at[child + 1], &h->at[child]))
            child++;
        if (!before(&h->at[child], &last))
            break;
        h->at[i] = h->at[child];
        i = child;
    }
    h->at[i] = last;
    return top;
}
