#include "load/timers.h"

#include <stdlib.h>

void timers_release(struct timers *ts)
{
    free(ts->heap);
    *ts = (struct timers){0};
}

static void place(struct timers *ts, uint32_t i, struct timer *t)
{
    ts->heap[i] = t;
    t->pos = i + 1;
}

static void up(struct timers *ts, uint32_t i, struct timer *t)
{
    for (; i && ts->heap[(i - 1) / 2]->at_ns > t->at_ns; i = (i - 1) / 2)
        place(ts, i, ts->heap[(i - 1) / 2]);
    place(ts, i, t);
}

static void down(struct timers *ts, uint32_t i, struct timer *t)
{
    for (uint32_t child; (child = 2 * i + 1) < ts->n; i = child) {
        if (child + 1 < ts->n && ts->heap[child + 1]->at_ns < ts->heap[child]->at_ns)
            child++;
        if (ts->heap[child]->at_ns >= t->at_ns)
            break;
        place(ts, i, ts->heap[child]);
    }
    place(ts, i, t);
}

static void take(struct timers *ts, struct timer *t)
{
    uint32_t i = t->pos - 1;
    struct timer *last = ts->heap[--ts->n];
    t->pos = 0;
    if (last == t)
        return;
    if (i && ts->heap[(i - 1) / 2]->at_ns > last->at_ns)
        up(ts, i, last);
    else
        down(ts, i, last);
}

int timers_set(struct timers *ts, struct timer *t, uint64_t at_ns)
{
    if (t->pos)
        take(ts, t);
    t->at_ns = at_ns;
    if (!at_ns)
        return 0;
    if (ts->n == ts->cap) {
        uint32_t cap = ts->cap ? ts->cap * 2 : 64;
        struct timer **heap = realloc(ts->heap, cap * sizeof *heap);
        if (!heap)
            return ERR_NOMEM;
        ts->heap = heap;
        ts->cap = cap;
    }
    up(ts, ts->n++, t);
    return 0;
}

uint64_t timers_next(const struct timers *ts)
{
    return ts->n ? ts->heap[0]->at_ns : 0;
}

struct timer *timers_pop(struct timers *ts, uint64_t now_ns)
{
    if (!ts->n || ts->heap[0]->at_ns > now_ns)
        return NULL;
    struct timer *t = ts->heap[0];
    take(ts, t);
    return t;
}
