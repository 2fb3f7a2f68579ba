/* The shared copy of presence in Redis (presence/shared.h). Keys of a cluster:
 *
 *   chatd:<cluster>:p:<page>    the cells of the users whose hash names this page, packed; a string that is
 * exactly as long as they need (a script appends with SET: APPEND would leave Redis twice the room)
 *   chatd:<cluster>:p:nodes     hash: slot -> ms of its last beat, by Redis' own clock, so that clocks of
 * nodes don't matter chatd:<cluster>:p:t:<chat>  hash: user -> until when they type; the key ends 10 s after
 * the last of them chatd:<cluster>:p:swept     held for most of an hour by whoever sweeps
 *   chatd:<cluster>:presence    channel: who types, users who are at two nodes
 *
 * Everything is pipelined and asynchronous: one script call for each page that an order touches. hiredis 0.14
 * knows no timeouts, and a stopped Redis keeps its sockets open: a watchdog publishes an empty message to its
 * own inbox twice a second over one connection, and when none has come back through the other for 3 s both
 * are made anew, after 0.1 to 2 s, for ever. Orders meanwhile are refused; what is on its way then may be
 * done or not. SHARED_UP comes when the scripts are there and the inbox is.
 *
 * Must not know: nodes. Names are looked up with getaddrinfo, which may take a moment: give an address. */
#ifndef PRESENCE_REDIS_REDIS_H
#define PRESENCE_REDIS_REDIS_H

#include "presence/shared.h"

#define SHARED_REDIS_QUEUE_MAX                                                                               \
    (32u << 20) /* bytes not yet written to Redis; beyond it orders are refused                              \
                 */

struct ev_loop;

struct shared_redis_stats {
    uint64_t connects, stalls, orders, refused, failed; /* failed: answered by an error of Redis */
    uint64_t answer_us;                                 /* how long the last answer took */
};

int shared_redis_new(struct shared **out, struct ev_loop *loop, const char *url, uint16_t slot,
                     const struct shared_sink *sink, struct err_ctx *ctx);
int shared_redis_check(const char *url, struct err_ctx *ctx);
void shared_redis_stats(const struct shared *s, struct shared_redis_stats *out);

#endif
