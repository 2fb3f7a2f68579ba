#include "bus/calls.h"

#include <stdlib.h>
#include <string.h>

void bus_calls_init(struct bus_calls *c, uint64_t seed)
{
    *c = (struct bus_calls){0};
    map_init(&c->by_id, 8, 8, BUS_CALLS_MAX, seed);
}

static void unlink_call(struct bus_calls *c, struct bus_call *call)
{
    *(call->prev ? &call->prev->next : &c->first) = call->next;
    *(call->next ? &call->next->prev : &c->last) = call->prev;
    call->next = call->prev = NULL;
}

static void append(struct bus_calls *c, struct bus_call *call)
{
    call->prev = c->last;
    call->next = NULL;
    *(c->last ? &c->last->next : &c->first) = call;
    c->last = call;
}

void bus_calls_release(struct bus_calls *c, void (*forget)(void *arg, struct bus_call *call), void *arg)
{
    while (c->first) {
        struct bus_call *call = c->first;
        unlink_call(c, call);
        forget(arg, call);
        free(call);
    }
    map_release(&c->by_id);
}

struct bus_call *bus_call_new(struct bus_calls *c, uint16_t to, uint8_t what, const char *p, size_t n,
                              uint64_t now_ns, uint64_t patience_ns)
{
    struct bus_call *call = malloc(sizeof *call + n);
    if (!call)
        return NULL;
    *call = (struct bus_call){.id = c->last_id + 1,
                              .deadline_ns = now_ns + patience_ns,
                              .again_ns = now_ns + BUS_AGAIN_NS,
                              .to = to,
                              .what = what,
                              .len = (uint32_t)n};
    if (n)
        memcpy(call->data, p, n);
    void **slot = map_put_u64(&c->by_id, call->id, NULL);
    if (!slot) {
        free(call);
        return NULL;
    }
    *slot = call;
    c->last_id++;
    append(c, call);
    return call;
}

struct bus_call *bus_call_take(struct bus_calls *c, uint64_t id)
{
    struct bus_call *call = map_get_ptr(&c->by_id, id);
    if (!call)
        return NULL;
    map_del_u64(&c->by_id, id);
    unlink_call(c, call);
    return call;
}

struct bus_call *bus_call_due(struct bus_calls *c, uint64_t now_ns, bool *over)
{
    struct bus_call *call = c->first;
    if (!call || call->again_ns > now_ns)
        return NULL;
    *over = now_ns >= call->deadline_ns;
    if (*over)
        return bus_call_take(c, call->id);
    call->again_ns = now_ns + BUS_AGAIN_NS;
    call->attempt += call->attempt < UINT8_MAX;
    unlink_call(c, call);
    append(c, call);
    return call;
}

struct bus_call *bus_call_to(struct bus_calls *c, uint16_t to)
{
    for (struct bus_call *call = c->first; call; call = call->next)
        if (call->to == to)
            return bus_call_take(c, call->id);
    return NULL;
}
