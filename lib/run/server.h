/* chatd-server in the real world: an event loop (libwebsockets on libev) around a node, or several of them
 * that share address and store, signals, HTTP. The program fills server_config and calls server_run. */
#ifndef RUN_SERVER_H
#define RUN_SERVER_H

#include "node/node.h"

struct server_config {
    const char *listen;    /* ADDR:PORT */
    const char *store_url; /* rocksdb:DIR or mem: */
    const char *keys_dir;
    const char *trace_dir;    /* NULL: off */
    uint32_t trace_sample;    /* of so many users one; 0, 1: all */
    unsigned features;        /* enum delivery_features */
    uint64_t sequential_ns;   /* delivery_fanout_parse */
    bool presence_legacy;     /* old typing is replayed to who comes back */
    const char *bus_url;      /* redis://...; NULL: alone */
    const char *presence_url; /* redis://...: what it knows of presence is shared; NULL: kept in memory */
    bool presence_only;       /* it has no chats: answers what is shared */
    uint16_t self, nodes;     /* this node, of so many; nodes 0 or 1: alone */
    uint16_t threads;         /* loops, with a node each, joined by rings; 0: one */
    struct node_limits limits;
    uint64_t ack_timeout_ns, idle_timeout_ns, drain_ns, reserve_bytes, seed;
    uint64_t recover_for_ns;                  /* node.h */
    uint32_t conns_max, beat_s, coalesce_max; /* coalesce_max: messages in one frame; 0: 50 */
    int64_t clock_shift_us;
    /* Called on SIGHUP; fills the parts that may change. Non-zero: keep what there is. */
    int (*reload)(void *arg, struct server_config *fresh);
    void *arg;
    /* Called once when clients can connect. */
    void (*ready)(void *arg, int port);
};

/* Do bus, node and nodes fit together? ERR_USAGE says what does not. */
int server_bus_check(const struct server_config *c, struct err_ctx *ctx);
/* Do they fit with --presence-store and --only? */
int server_shared_check(const struct server_config *c, struct err_ctx *ctx);
/* Runs until SIGTERM or SIGINT was obeyed (0) or something broke: ERR_BUSY (folder or address in use), ERR_IO
 * (a failed fsync: outcome unknown, start again), ... */
int server_run(const struct server_config *c, struct err_ctx *ctx);

#endif
