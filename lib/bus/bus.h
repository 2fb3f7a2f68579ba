/* How nodes reach each other: numbered nodes, datagrams between them. Three drivers carry them, and a node
 * cannot tell which: mem (simulated worlds and tests), ring (threads of one process), redis/ (processes).
 *
 * A datagram may be lost, never torn, never doubled by a driver, and those of one node to one other keep
 * their order. That is all a driver promises; everything else is made of it once, above, for all drivers:
 *
 * - a *hint* is a record in a datagram. Who misses one finds out by a hole in a chat's seqs, or by a head
 * that is published again, and asks the owner (node/node_bus.c);
 * - a *call* has an id, is said again until its reply or its deadline comes, and so must be idempotent
 *   (bus/calls.h);
 * - *peers* are up while they are heard, and new when their incarnation is (bus/peers.h).
 *
 * Must not know: chats, sessions, what the datagrams say. */
#ifndef BUS_BUS_H
#define BUS_BUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/err.h"

#define BUS_NODES_MAX    64u
#define BUS_ALL          UINT16_MAX   /* to everybody but the sender */
#define BUS_DATAGRAM_MAX (4u << 20)   /* a driver may drop larger ones */
#define BUS_DATAGRAM_FIT (256u << 10) /* senders begin a new one beyond this */

struct bus;

/* Where a driver hands in what arrives. On the node's own thread. */
struct bus_sink {
    void (*datagram)(void *arg, const char *p, size_t n); /* p is good during the call */
    void *arg;
};

struct bus_ops {
    /* Never blocks. 0, or ERR_FULL, ERR_LIMIT, ERR_UNAVAILABLE: it is lost, as it may be anyway. The bytes
     * stay the caller's. */
    int (*send)(struct bus *b, uint16_t to, const char *p, size_t n);
    /* Is there a way to others at all? What is sent meanwhile is lost. */
    bool (*connected)(const struct bus *b);
    void (*close)(struct bus *b);
};

/* Drivers begin their struct with it. */
struct bus {
    const struct bus_ops *ops;
};

static inline int bus_send(struct bus *b, uint16_t to, const char *p, size_t n)
{
    return b->ops->send(b, to, p, n);
}
static inline bool bus_connected(const struct bus *b)
{
    return b->ops->connected(b);
}
static inline void bus_close(struct bus *b)
{
    if (b)
        b->ops->close(b);
}

#endif
