/* Deadlines of a world: a binary heap of timers that live inside their owners. Ties fire in no stated order,
 * but in the same one for the same calls. Must not know: clocks. */
#ifndef LOAD_TIMERS_H
#define LOAD_TIMERS_H

#include <stddef.h>
#include <stdint.h>

#include "util/err.h"

/* The struct that holds `member` at `ptr`. */
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

struct timer {
    uint64_t at_ns;
    uint32_t pos; /* place in the heap + 1; 0: not set */
    void (*fire)(struct timer *t);
};

struct timers {
    struct timer **heap;
    uint32_t n, cap;
};

void timers_release(struct timers *ts);
/* Set or move; at_ns 0 takes it out. ERR_NOMEM: as it was. */
int timers_set(struct timers *ts, struct timer *t, uint64_t at_ns);
/* When the next one is due; 0: none. */
uint64_t timers_next(const struct timers *ts);
/* Take the next one out if it is due, else NULL. The caller fires it. */
struct timer *timers_pop(struct timers *ts, uint64_t now_ns);

#endif
