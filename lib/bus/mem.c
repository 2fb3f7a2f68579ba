#include "bus/mem.h"

#include <stdlib.h>
#include <string.h>

#include "util/rng.h"

#define BYTES_MAX (256u << 20)

struct datagram {
    struct datagram *next;
    uint64_t at_ns, order;
    uint16_t from, to;
    size_t n;
    char data[];
};

struct port {
    struct bus bus;
    struct bus_mem *mem;
    struct bus_sink sink;
    uint16_t self;
    bool open, held;
};

struct bus_mem {
    struct bus_mem_config config;
    struct rng rng;
    uint64_t now_ns, order;
    struct datagram *first; /* by time, then by order */
    size_t bytes;
    uint64_t latest_ns[BUS_NODES_MAX][BUS_NODES_MAX]; /* what was sent earlier arrives earlier */
    uint32_t drop[BUS_NODES_MAX][BUS_NODES_MAX];
    bool cut[BUS_NODES_MAX][BUS_NODES_MAX];
    struct bus_mem_stats stats;
    struct port ports[BUS_NODES_MAX];
};

static void put_in_order(struct bus_mem *m, struct datagram *d)
{
    struct datagram **at = &m->first;
    while (*at && (*at)->at_ns <= d->at_ns)
        at = &(*at)->next;
    d->next = *at;
    *at = d;
}

static bool is_lost(struct bus_mem *m, uint16_t from, uint16_t to, size_t n)
{
    if (m->drop[from][to]) {
        m->drop[from][to]--;
        return true;
    }
    return m->cut[from][to] || !m->ports[to].open || m->bytes + n > m->config.bytes_max ||
           n > BUS_DATAGRAM_MAX || rng_hit(&m->rng, m->config.drop_share);
}

static int send_one(struct bus_mem *m, uint16_t from, uint16_t to, const char *p, size_t n)
{
    m->stats.sent++;
    if (is_lost(m, from, to, n)) {
        m->stats.lost++;
        return 0;
    }
    struct datagram *d = malloc(sizeof *d + n);
    if (!d)
        return ERR_FULL;
    uint64_t at = m->now_ns + rng_exp(&m->rng, m->config.delay_ns);
    if (at < m->latest_ns[from][to])
        at = m->latest_ns[from][to];
    m->latest_ns[from][to] = at;
    *d = (struct datagram){.at_ns = at, .order = m->order++, .from = from, .to = to, .n = n};
    memcpy(d->data, p, n);
    m->bytes += n;
    m->stats.bytes += n;
    put_in_order(m, d);
    return 0;
}

static int mem_send(struct bus *b, uint16_t to, const char *p, size_t n)
{
    struct port *port = (struct port *)b;
    struct bus_mem *m = port->mem;
    int rc = 0;
    if (to != BUS_ALL)
        return to < m->config.nodes ? send_one(m, port->self, to, p, n) : ERR_UNAVAILABLE;
    for (uint16_t i = 0; i < m->config.nodes; i++)
        if (i != port->self && send_one(m, port->self, i, p, n))
            rc = ERR_FULL;
    return rc;
}

static bool mem_connected(const struct bus *b)
{
    return ((const struct port *)b)->open;
}

static void mem_close(struct bus *b)
{
    struct port *port = (struct port *)b;
    struct bus_mem *m = port->mem;
    port->open = port->held = false;
    for (struct datagram **at = &m->first; *at;) {
        struct datagram *d = *at;
        if (d->to != port->self) {
            at = &d->next;
            continue;
        }
        *at = d->next;
        m->bytes -= d->n;
        m->stats.lost++;
        free(d);
    }
}

static const struct bus_ops mem_ops = {mem_send, mem_connected, mem_close};

int bus_mem_new(struct bus_mem **out, const struct bus_mem_config *c, struct err_ctx *ctx)
{
    if (!c->nodes || c->nodes > BUS_NODES_MAX)
        return err_set(ctx, ERR_INVALID, "a bus has 1 to %u nodes, not %u", BUS_NODES_MAX, c->nodes);
    struct bus_mem *m = calloc(1, sizeof *m);
    if (!m)
        return err_set(ctx, ERR_NOMEM, "no memory for a bus");
    m->config = *c;
    if (!m->config.bytes_max)
        m->config.bytes_max = BYTES_MAX;
    rng_seed(&m->rng, c->seed);
    *out = m;
    return 0;
}

void bus_mem_free(struct bus_mem *m)
{
    while (m && m->first) {
        struct datagram *next = m->first->next;
        free(m->first);
        m->first = next;
    }
    free(m);
}

struct bus *bus_mem_open(struct bus_mem *m, uint16_t self, const struct bus_sink *sink)
{
    BUG_ON(self >= m->config.nodes || m->ports[self].open);
    struct port *port = &m->ports[self];
    *port = (struct port){.bus = {&mem_ops}, .mem = m, .sink = *sink, .self = self, .open = true};
    return &port->bus;
}

void bus_mem_share(struct bus_mem *m, uint64_t drop_share)
{
    m->config.drop_share = drop_share;
}

void bus_mem_cut(struct bus_mem *m, uint16_t a, uint16_t b, bool cut)
{
    for (uint16_t i = 0; i < m->config.nodes; i++)
        if (i != a && (b == BUS_ALL || i == b))
            m->cut[a][i] = m->cut[i][a] = cut;
}

void bus_mem_drop_next(struct bus_mem *m, uint16_t from, uint16_t to, uint32_t n)
{
    m->drop[from][to] = n;
}

void bus_mem_hold(struct bus_mem *m, uint16_t to, bool hold)
{
    m->ports[to].held = hold;
}

static struct datagram **next_of(struct bus_mem *m)
{
    struct datagram **at = &m->first;
    while (*at && m->ports[(*at)->to].held)
        at = &(*at)->next;
    return at;
}

uint64_t bus_mem_next(const struct bus_mem *m)
{
    for (const struct datagram *d = m->first; d; d = d->next)
        if (!m->ports[d->to].held)
            return d->at_ns;
    return UINT64_MAX;
}

void bus_mem_now(struct bus_mem *m, uint64_t now_ns)
{
    m->now_ns = now_ns;
}

uint32_t bus_mem_deliver(struct bus_mem *m, uint64_t now_ns)
{
    uint32_t count = 0;
    m->now_ns = now_ns;
    for (;;) {
        struct datagram **at = next_of(m), *d = *at;
        if (!d || d->at_ns > now_ns)
            return count;
        *at = d->next;
        m->bytes -= d->n;
        m->stats.delivered++;
        struct port *port = &m->ports[d->to];
        port->sink.datagram(port->sink.arg, d->data, d->n);
        free(d);
        count++;
    }
}

void bus_mem_stats(const struct bus_mem *m, struct bus_mem_stats *out)
{
    *out = m->stats;
}
