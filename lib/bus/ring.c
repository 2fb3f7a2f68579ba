#include "bus/ring.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct parcel {
    size_t n;
    char data[];
};

/* head: written by the sender; tail: by the receiver. On lines of their own. */
struct ring {
    _Alignas(64) _Atomic uint32_t head;
    _Alignas(64) _Atomic uint32_t tail;
    _Alignas(64) _Atomic size_t bytes;
    struct parcel *slot[BUS_RING_SLOTS];
};

struct port {
    struct bus bus;
    struct bus_rings *rings;
    struct bus_sink sink;
    void (*bell)(void *arg);
    void *bell_arg;
    _Atomic bool rung;
    uint16_t self;
    bool open;
    uint64_t lost;
};

struct bus_rings {
    uint16_t nodes;
    struct port *ports;
    struct ring **ring; /* [from * nodes + to], NULL from a node to itself */
};

static struct ring *ring_of(const struct bus_rings *r, uint16_t from, uint16_t to)
{
    return r->ring[(size_t)from * r->nodes + to];
}

static int put(struct port *from, uint16_t to, const char *p, size_t n)
{
    struct ring *g = ring_of(from->rings, from->self, to);
    struct port *port = &from->rings->ports[to];
    uint32_t head = atomic_load_explicit(&g->head, memory_order_relaxed);
    uint32_t tail = atomic_load_explicit(&g->tail, memory_order_acquire);
    struct parcel *parcel = NULL;
    if (head - tail < BUS_RING_SLOTS &&
        atomic_load_explicit(&g->bytes, memory_order_relaxed) + n <= BUS_RING_BYTES)
        parcel = malloc(sizeof *parcel + n);
    if (!parcel) {
        from->lost++;
        return ERR_FULL;
    }
    parcel->n = n;
    memcpy(parcel->data, p, n);
    g->slot[head % BUS_RING_SLOTS] = parcel;
    atomic_fetch_add_explicit(&g->bytes, n, memory_order_relaxed);
    atomic_store_explicit(&g->head, head + 1, memory_order_release);
    if (!atomic_exchange(&port->rung, true))
        port->bell(port->bell_arg);
    return 0;
}

static int ring_send(struct bus *b, uint16_t to, const char *p, size_t n)
{
    struct port *port = (struct port *)b;
    int rc = 0;
    if (to != BUS_ALL)
        return to < port->rings->nodes && to != port->self ? put(port, to, p, n) : ERR_UNAVAILABLE;
    for (uint16_t i = 0; i < port->rings->nodes; i++) {
        int one = i == port->self ? 0 : put(port, i, p, n);
        rc = rc ? rc : one;
    }
    return rc;
}

static bool ring_connected(const struct bus *b)
{
    return ((const struct port *)b)->open;
}

static void ring_close(struct bus *b)
{
    ((struct port *)b)->open = false;
}

static const struct bus_ops ops = {ring_send, ring_connected, ring_close};

int bus_rings_new(struct bus_rings **out, uint16_t nodes, struct err_ctx *ctx)
{
    struct bus_rings *r = calloc(1, sizeof *r);
    if (r) {
        r->nodes = nodes;
        r->ports = calloc(nodes, sizeof *r->ports);
        r->ring = calloc((size_t)nodes * nodes, sizeof(struct ring *));
    }
    bool whole = r && r->ports && r->ring;
    for (size_t i = 0; whole && i < (size_t)nodes * nodes; i++)
        if (i / nodes != i % nodes) {
            r->ring[i] = aligned_alloc(64, sizeof(struct ring));
            whole = r->ring[i] != NULL;
            if (whole)
                memset(r->ring[i], 0, sizeof(struct ring));
        }
    if (!whole) {
        bus_rings_free(r);
        return err_set(ctx, ERR_NOMEM, "no memory for the rings of %u nodes", nodes);
    }
    *out = r;
    return 0;
}

void bus_rings_free(struct bus_rings *r)
{
    if (!r)
        return;
    for (size_t i = 0; r->ring && i < (size_t)r->nodes * r->nodes; i++) {
        struct ring *g = r->ring[i];
        for (uint32_t k = g ? g->tail : 0; g && k != g->head; k++)
            free(g->slot[k % BUS_RING_SLOTS]);
        free(g);
    }
    free(r->ring);
    free(r->ports);
    free(r);
}

struct bus *bus_ring_open(struct bus_rings *r, uint16_t self, const struct bus_sink *sink,
                          void (*bell)(void *arg), void *bell_arg)
{
    struct port *port = &r->ports[self];
    port->bus.ops = &ops;
    port->rings = r;
    port->sink = *sink;
    port->bell = bell;
    port->bell_arg = bell_arg;
    port->self = self;
    port->open = true;
    return &port->bus;
}

uint32_t bus_ring_take(struct bus *b)
{
    struct port *port = (struct port *)b;
    uint32_t count = 0;
    atomic_store(&port->rung, false); /* first: what comes from now on rings again */
    for (uint16_t from = 0; from < port->rings->nodes; from++) {
        struct ring *g = from == port->self ? NULL : ring_of(port->rings, from, port->self);
        uint32_t tail = g ? atomic_load_explicit(&g->tail, memory_order_relaxed) : 0;
        uint32_t head = g ? atomic_load_explicit(&g->head, memory_order_acquire) : 0;
        for (; tail != head; count++) {
            struct parcel *p = g->slot[tail % BUS_RING_SLOTS];
            atomic_store_explicit(&g->tail, ++tail, memory_order_release);
            atomic_fetch_sub_explicit(&g->bytes, p->n, memory_order_relaxed);
            port->sink.datagram(port->sink.arg, p->data, p->n);
            free(p);
        }
    }
    return count;
}

uint64_t bus_ring_lost(const struct bus *b)
{
    return ((const struct port *)b)->lost;
}
