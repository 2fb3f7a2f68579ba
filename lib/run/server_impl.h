/* Inside of the real server: state shared by its files. */
#ifndef RUN_SERVER_IMPL_H
#define RUN_SERVER_IMPL_H

#include <ev.h>
#include <pthread.h>
#include <stdatomic.h>

#include "bus/redis/redis.h"
#include "bus/ring.h"
#include "presence/redis/redis.h"
#include "run/server.h"
#include "run/store_threads.h"
#include "transport/mux_server.h"
#include "transport/ws_server.h"

enum server_order { ORDER_DRAIN = 1, ORDER_STOP = 2, ORDER_RELOAD = 4 };

/* One loop with its node. The first one owns what all share: store, keys, trace, rings. */
struct server {
    struct server_config config;
    struct server *first;
    struct server **all; /* of the first: all of them */
    uint16_t all_n, index;
    struct bus_rings *rings; /* NULL: one loop */
    pthread_t thread;
    ev_async order_bell;
    _Atomic int orders;
    pthread_mutex_t shown_lock;
    struct node_stats shown; /* as others may read it */
    struct shared_redis_stats shown_shared;
    uint32_t shown_conns, shown_mux;
    struct ev_loop *loop;
    struct ws_server *ws;
    struct mux_server *mux;
    ev_prepare mux_turn;
    struct now mux_now; /* read once for a few dozen records */
    uint32_t mux_steps;
    struct node *node;
    struct now now;        /* of the last step; a tick ago at most */
    struct bus *bus;       /* NULL: a node alone */
    struct shared *shared; /* of presence; NULL: it is in this node's memory only */
    struct store *store;
    struct store_threads *threads;
    struct keys keys;
    struct trace *trace;
    struct trace_writer *writer;
    ev_async bell;
    ev_timer tick;
    ev_signal on_term, on_int, on_hup;
    uint64_t started_us, drain_deadline_ns;
    bool draining, closing;
    int rc;
    struct err_ctx *err;
};

uint64_t server_step(struct server *s, struct node_event *e);
/* server_mux.c. The node's link of a mux session has its lowest bit set. */
int server_mux_start(struct server *s);
void server_mux_clock(struct server *s); /* before records are handed to the mux */
void server_mux_stop(struct server *s);
static inline struct mux_session *server_mux_session(const void *link)
{
    return (uintptr_t)link & 1 ? (struct mux_session *)((uintptr_t)link - 1) : NULL;
}

/* server_bus.c */
int server_mark_dir(const struct server *s, char *out, size_t size, struct err_ctx *ctx);
void server_stats(struct server *s, struct node_stats *out, uint32_t *conns,
                  uint32_t *mux);      /* of all loops */
int server_bus_open(struct server *s); /* does nothing for a node alone */
void server_bus_close(struct server *s);
void server_bus_metrics(const struct server *s, struct bus_redis_stats *out);

/* server_shared.c */
int server_shared_open(struct server *s);
void server_shared_close(struct server *s);
void server_shared_stats(const struct server *s, struct shared_redis_stats *out); /* of all loops */

void server_http(void *arg, const struct ws_http_request *r);
void server_http_reply(struct server *s, uint64_t request, int status, struct shared_frame *body);

#endif
