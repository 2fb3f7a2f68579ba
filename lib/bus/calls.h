/* Questions that wait for their reply. Each has an id and a deadline; until one of them comes it is said
 * again at even times, so a call must mean the same when it is heard twice. Pure: the owner sends, and tells
 * the time. */
#ifndef BUS_CALLS_H
#define BUS_CALLS_H

#include "bus/bus.h"
#include "util/clock.h"
#include "util/map.h"

#define BUS_CALLS_MAX 50000u            /* unanswered at a time; then ERR_LIMIT */
#define BUS_AGAIN_NS  (300 * NS_PER_MS) /* between two sayings */

struct bus_call {
    struct bus_call *next, *prev;
    uint64_t id, deadline_ns, again_ns;
    uint16_t to;
    uint8_t what;    /* of the asker */
    uint8_t attempt; /* how often it was said, less one */
    void *about;     /* of the asker, who frees it */
    uint32_t len;
    char data[]; /* the question */
};

struct bus_calls {
    struct map by_id;
    uint64_t last_id;
    struct bus_call *first, *last; /* by again_ns */
};

void bus_calls_init(struct bus_calls *c, uint64_t seed);
/* `forget` is called for each that is left. */
void bus_calls_release(struct bus_calls *c, void (*forget)(void *arg, struct bus_call *call), void *arg);
/* A question to be said now. NULL: too many, or no memory. */
struct bus_call *bus_call_new(struct bus_calls *c, uint16_t to, uint8_t what, const char *p, size_t n,
                              uint64_t now_ns, uint64_t patience_ns);
/* The call a reply is for, taken out; the caller frees it. NULL: answered already, or given up. */
struct bus_call *bus_call_take(struct bus_calls *c, uint64_t id);
/* The next that is due: *over says that its deadline has come, and then it is taken out and the caller's;
 * else it is to be said again. NULL: none. */
struct bus_call *bus_call_due(struct bus_calls *c, uint64_t now_ns, bool *over);
/* Any call to this node, taken out (it is down); NULL: none. Linear: for rare events. */
struct bus_call *bus_call_to(struct bus_calls *c, uint16_t to);

#endif
