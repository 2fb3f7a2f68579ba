/* A bus between threads of one process: a ring of pointers from each node to each other one, written by one
 * thread and read by one, without locks. Who puts the first datagram into an empty inbox rings the receiver's
 * bell, which may be called on any thread and only wakes the receiver's loop; that then takes what has come.
 * A full ring loses the datagram, as any bus may. */
#ifndef BUS_RING_H
#define BUS_RING_H

#include "bus/bus.h"

#define BUS_RING_SLOTS 8192u       /* datagrams on their way from one node to one other */
#define BUS_RING_BYTES (64u << 20) /* and their bytes */

struct bus_rings;

int bus_rings_new(struct bus_rings **out, uint16_t nodes, struct err_ctx *ctx);
/* After all its threads have ended. */
void bus_rings_free(struct bus_rings *r);
/* The bus as one of them sees it. All are opened before any thread starts. */
struct bus *bus_ring_open(struct bus_rings *r, uint16_t self, const struct bus_sink *sink,
                          void (*bell)(void *arg), void *bell_arg);
/* On the node's thread, when its bell rang: hand in what has come. Returns how many. */
uint32_t bus_ring_take(struct bus *b);
uint64_t bus_ring_lost(const struct bus *b); /* datagrams of ours */

#endif
