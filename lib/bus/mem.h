/* A bus in memory, on one thread and in virtual time: it loses, delays and cuts by seed. The world asks when
 * the next datagram is due, and delivers it then. */
#ifndef BUS_MEM_H
#define BUS_MEM_H

#include "bus/bus.h"

struct bus_mem;

struct bus_mem_config {
    uint16_t nodes;
    uint64_t seed;
    uint64_t delay_ns;   /* mean; exponentially distributed, order between two nodes is kept */
    uint64_t drop_share; /* RNG_SHARE of parts per million */
    size_t bytes_max;    /* on their way, all together; beyond it they are lost. 0: 256 MiB */
};

int bus_mem_new(struct bus_mem **out, const struct bus_mem_config *c, struct err_ctx *ctx);
void bus_mem_free(struct bus_mem *m);
/* The bus as node `self` sees it; closing it forgets what is on its way there, as a crash does. A node may be
 * opened again. */
struct bus *bus_mem_open(struct bus_mem *m, uint16_t self, const struct bus_sink *sink);
void bus_mem_share(struct bus_mem *m, uint64_t drop_share);
/* Between these two, and back, nothing arrives any more; BUS_ALL: between `a` and everybody. */
void bus_mem_cut(struct bus_mem *m, uint16_t a, uint16_t b, bool cut);
/* Lose the next n datagrams from `from` to `to`. */
void bus_mem_drop_next(struct bus_mem *m, uint16_t from, uint16_t to, uint32_t n);
/* Keep everything that is on its way to a node back (it was stopped), or let it go on. */
void bus_mem_hold(struct bus_mem *m, uint16_t to, bool hold);

/* When the next datagram is due; UINT64_MAX: none. */
uint64_t bus_mem_next(const struct bus_mem *m);
/* Time as the senders see it from now on; set before steps that may send. */
void bus_mem_now(struct bus_mem *m, uint64_t now_ns);
/* Deliver what is due, in order of time, then of sending. Returns how many; *to (may be NULL) the last one's.
 */
uint32_t bus_mem_deliver(struct bus_mem *m, uint64_t now_ns);

struct bus_mem_stats {
    uint64_t sent, lost, delivered, bytes;
};
void bus_mem_stats(const struct bus_mem *m, struct bus_mem_stats *out);

#endif
