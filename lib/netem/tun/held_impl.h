/* Inside the room: packets that wait for their time. A pool of fixed size and a heap over it; the order of
 * equal times is the order of arrival. All memory is mapped at init and touched only as it is used. */
#ifndef NETEM_TUN_HELD_IMPL_H
#define NETEM_TUN_HELD_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#define HELD_MAX         65536 /* packets in the air and in queues, all links together */
#define HELD_PACKET_SIZE 2048  /* MTU 1500 and room */

struct held {
    uint64_t at_ns, depart_ns, deliver_ns;
    uint64_t fate;   /* its record in the log of fates; UINT64_MAX: none */
    uint32_t phone;  /* host order */
    uint32_t record; /* in the capture, CAPTURE_NONE: none */
    uint16_t len;
    uint8_t dir, state;
    bool copy, corrupted, reordered;
};

struct due {
    uint64_t at_ns;
    uint32_t order, index;
};

struct heap {
    struct due *at;
    uint32_t count, max, order;
};

struct pool {
    uint8_t (*packet)[HELD_PACKET_SIZE];
    struct held *held;
    uint32_t *free;
    uint32_t free_n;
};

int pool_init(struct pool *p);
/* An index, or -1 when all are taken. */
int64_t pool_take(struct pool *p);
void pool_give(struct pool *p, uint32_t index);

int heap_init(struct heap *h, uint32_t max);
/* False when full. */
bool heap_push(struct heap *h, uint64_t at_ns, uint32_t index);
uint32_t heap_pop(struct heap *h);
/* UINT64_MAX when empty. */
static inline uint64_t heap_first_ns(const struct heap *h)
{
    return h->count ? h->at[0].at_ns : UINT64_MAX;
}

/* Zeroed memory that takes none until it is touched; NULL on failure. Never given back: it ends with the
 * process. */
void *map_zeroed(uint64_t bytes);

#endif
