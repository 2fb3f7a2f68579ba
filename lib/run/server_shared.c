/* The server's part in what processes share of presence. */
#include "presence/redis/redis.h"

#include "bus/bus.h"
#include "run/server_impl.h"

static void heard(void *arg, const struct shared_news *n)
{
    struct server *s = arg;
    if (s->node)
        server_step(s, &(struct node_event){.kind = NODE_SHARED, .news = n});
}

int server_shared_check(const struct server_config *c, struct err_ctx *ctx)
{
    if (c->presence_only && !c->presence_url)
        return err_set(ctx, ERR_USAGE,
                       "--only presence: --presence-store says where the others share theirs");
    if (c->presence_only && (c->bus_url || c->nodes > 1 || c->threads > 1))
        return err_set(ctx, ERR_USAGE,
                       "--only presence: it is no node of the cluster (--bus, --nodes, --threads)");
    if (!c->presence_url)
        return 0;
    if (c->presence_legacy)
        return err_set(ctx, ERR_USAGE, "--presence legacy shares nothing: leave --presence-store out");
    return shared_redis_check(c->presence_url, ctx) ? err_set(ctx, ERR_USAGE, "%s", ctx->text) : 0;
}

int server_shared_open(struct server *s)
{
    const struct server_config *c = &s->config;
    struct shared_sink sink = {heard, s};
    uint16_t slot = c->presence_only ? SHARED_NOBODY : s->first->all_n > 1 ? s->index : c->self;
    return c->presence_url ? shared_redis_new(&s->shared, s->loop, c->presence_url, slot, &sink, s->err) : 0;
}

void server_shared_close(struct server *s)
{
    shared_close(s->shared);
    s->shared = NULL;
}

void server_shared_stats(const struct server *s, struct shared_redis_stats *out)
{
    shared_redis_stats(s->shared, out);
    for (uint16_t i = 0; i < s->first->all_n; i++) {
        struct server *o = s->first->all[i];
        if (o == s)
            continue;
        pthread_mutex_lock(&o->shown_lock);
        const struct shared_redis_stats *one = &o->shown_shared;
        out->connects += one->connects;
        out->stalls += one->stalls;
        out->orders += one->orders;
        out->refused += one->refused;
        out->failed += one->failed;
        out->answer_us = one->answer_us > out->answer_us ? one->answer_us : out->answer_us;
        pthread_mutex_unlock(&o->shown_lock);
    }
}
