/* The server as one node of several: its bus. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bus/redis/redis.h"
#include "run/server_impl.h"

static void arrived(void *arg, const char *p, size_t n)
{
    struct server *s = arg;
    if (s->node)
        server_step(s, &(struct node_event){.kind = NODE_BUS, .data = p, .len = n});
}

int server_bus_check(const struct server_config *c, struct err_ctx *ctx)
{
    if (c->threads > STORE_NODES_MAX)
        return err_set(ctx, ERR_USAGE, "--threads %u: at most %u", c->threads, STORE_NODES_MAX);
    if (c->threads > 1 && (c->nodes > 1 || c->bus_url))
        return err_set(ctx, ERR_USAGE,
                       "--threads and --nodes do not go together yet: start one process a core");
    if (c->threads > 1 && c->features != DELIVERY_RELIABLE)
        return err_set(ctx, ERR_USAGE, "--threads: several nodes deliver reliably only");
    if (c->nodes < 2 && !c->bus_url)
        return 0;
    if (c->nodes < 2 || !c->bus_url)
        return err_set(ctx, ERR_USAGE, "--bus and --nodes go together: a bus joins at least two nodes");
    if (c->nodes > BUS_NODES_MAX || c->self >= c->nodes)
        return err_set(ctx, ERR_USAGE, "--node %u --nodes %u: there can be 2 to %u nodes, numbered from 0",
                       c->self, c->nodes, BUS_NODES_MAX);
    if (c->features != DELIVERY_RELIABLE)
        return err_set(ctx, ERR_USAGE, "--nodes: several nodes deliver reliably only");
    if (bus_redis_check(c->bus_url, ctx))
        return err_set(ctx, ERR_USAGE, "%s", ctx->text);
    return 0;
}

/* Nodes may share the folder of keys, but each store has a mark of its own. */
int server_mark_dir(const struct server *s, char *out, size_t size, struct err_ctx *ctx)
{
    const struct server_config *c = &s->config;
    snprintf(out, size, "%s", c->keys_dir);
    if (c->nodes < 2)
        return 0;
    snprintf(out, size, "%s/node%u", c->keys_dir, c->self);
    return mkdir(out, 0700) && errno != EEXIST ? err_errno(ctx, "%s: cannot make the folder", out) : 0;
}

static void ring_bell(void *arg)
{
    struct server *s = arg;
    ev_async_send(s->loop, &s->bell);
}

int server_bus_open(struct server *s)
{
    const struct server_config *c = &s->config;
    struct bus_sink sink = {arrived, s};
    if (s->first->rings) {
        s->bus = bus_ring_open(s->first->rings, s->index, &sink, ring_bell, s);
        return 0;
    }
    return c->nodes < 2 ? 0 : bus_redis_new(&s->bus, s->loop, c->bus_url, c->self, c->nodes, &sink, s->err);
}

void server_bus_close(struct server *s)
{
    bus_close(s->bus);
    s->bus = NULL;
}

void server_bus_metrics(const struct server *s, struct bus_redis_stats *out)
{
    *out = (struct bus_redis_stats){0};
    if (s->bus && !s->first->rings)
        bus_redis_stats(s->bus, out);
    for (uint16_t i = 0; s->bus && s->first->rings && i < s->first->all_n; i++)
        out->lost += bus_ring_lost(s->first->all[i]->bus);
}
