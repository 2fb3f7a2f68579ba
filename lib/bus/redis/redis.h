/* A bus between processes: Redis publishes and forgets. Each node subscribes to one channel, its inbox
 * "chatd:<cluster>:<node>", and publishes into those of the others; nothing is stored there.
 *
 * hiredis 0.14 knows no timeouts on asynchronous connections, and a stopped Redis keeps its sockets open: so
 * a watchdog publishes an empty message into our own inbox twice a second; when none has come back for three
 * seconds both connections are made anew. Meanwhile, and while Redis is away, what is sent is lost, as
 * everything on a bus may be; connecting is tried again after 0.1 to 2 s, for ever.
 *
 * Must not know: nodes, records. */
#ifndef BUS_REDIS_REDIS_H
#define BUS_REDIS_REDIS_H

#include "bus/bus.h"

#define BUS_REDIS_QUEUE_MAX (32u << 20) /* bytes not yet written to Redis; beyond it a datagram is lost */

struct ev_loop;

struct bus_redis_stats {
    uint64_t connects, stalls, sent, lost, received;
};

/* redis://[:PASSWORD@]HOST[:PORT][/CLUSTER]. Names are looked up with getaddrinfo, which may take a moment.
 */
int bus_redis_new(struct bus **out, struct ev_loop *loop, const char *url, uint16_t self, uint16_t nodes,
                  const struct bus_sink *sink, struct err_ctx *ctx);
/* Is the text such a URL? The sentence says what is wrong. */
int bus_redis_check(const char *url, struct err_ctx *ctx);
void bus_redis_stats(const struct bus *b, struct bus_redis_stats *out);

#endif
