#include "bus/redis/redis.h"

#include <ev.h>
#include <hiredis/async.h>
#include <stdlib.h>
#include <string.h>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#include <hiredis/adapters/libev.h>
#pragma GCC diagnostic pop

#include "util/clock.h"
#include "util/log.h"
#include "util/redis_url.h"

#define WATCH_S     0.5
#define STALLED_NS  (3 * NS_PER_S)
#define AGAIN_S     0.1
#define AGAIN_MAX_S 2.0
#define CHANNEL_MAX 160u

struct bus_redis {
    struct bus bus;
    struct bus_sink sink;
    struct ev_loop *loop;
    struct redis_url url;
    uint16_t self, nodes;
    redisAsyncContext *in, *out; /* NULL: not connected */
    ev_timer watch, again;
    double again_s;
    uint64_t fed_ns; /* when something last came through */
    bool subscribed, closing;
    struct bus_redis_stats stats;
};

int bus_redis_check(const char *url, struct err_ctx *ctx)
{
    struct redis_url u;
    return redis_url_parse(&u, url, "bus", ctx);
}

/* ---- connections ---- */

static void channel(const struct bus_redis *r, char out[CHANNEL_MAX], uint16_t node)
{
    snprintf(out, CHANNEL_MAX, "chatd:%s:%u", r->url.cluster, node);
}

static void plan_again(struct bus_redis *r)
{
    if (r->closing || ev_is_active(&r->again))
        return;
    ev_timer_set(&r->again, r->again_s, 0);
    ev_timer_start(r->loop, &r->again);
    r->again_s = r->again_s * 2 < AGAIN_MAX_S ? r->again_s * 2 : AGAIN_MAX_S;
}

static void drop(redisAsyncContext **c)
{
    redisAsyncContext *gone = *c;
    *c = NULL; /* first: its callbacks come now */
    if (gone)
        redisAsyncFree(gone);
}

static void hang_up(struct bus_redis *r)
{
    r->subscribed = false;
    drop(&r->in);
    drop(&r->out);
}

/* hiredis frees the context itself after these two. */
static void gone(const redisAsyncContext *c, int status)
{
    struct bus_redis *r = c->data;
    bool ours = c == r->in || c == r->out;
    if (status != REDIS_OK && ours)
        log_warn("bus: redis at %s:%d: %s", r->url.host, r->url.port, c->errstr);
    if (c == r->in) {
        r->in = NULL;
        r->subscribed = false;
    } else if (c == r->out) {
        r->out = NULL;
    }
    if (ours)
        plan_again(r);
}

static void come(const redisAsyncContext *c, int status)
{
    if (status != REDIS_OK)
        gone(c, status);
}

static void on_message(redisAsyncContext *c, void *reply, void *arg)
{
    struct bus_redis *r = arg;
    redisReply *m = reply;
    if (c != r->in || !m)
        return;
    if (m->type == REDIS_REPLY_ERROR) {
        log_warn("bus: redis at %s:%d: %s", r->url.host, r->url.port, m->str);
        return;
    }
    if (m->type != REDIS_REPLY_ARRAY || m->elements != 3)
        return;
    r->fed_ns = clock_mono_ns();
    if (m->element[2]->type == REDIS_REPLY_INTEGER) { /* subscribed */
        if (!r->subscribed)
            log_info("bus: node %u of %u, redis at %s:%d", r->self, r->nodes, r->url.host, r->url.port);
        r->subscribed = true;
        r->again_s = AGAIN_S;
        r->stats.connects++;
    } else if (m->element[2]->type == REDIS_REPLY_STRING && m->element[2]->len > 0) {
        r->stats.received++;
        r->sink.datagram(r->sink.arg, m->element[2]->str, (size_t)m->element[2]->len);
    }
}

static redisAsyncContext *dial(struct bus_redis *r)
{
    redisAsyncContext *c = redisAsyncConnect(r->url.host, r->url.port);
    if (!c || c->err) {
        log_warn("bus: redis at %s:%d: %s", r->url.host, r->url.port, c ? c->errstr : "no memory");
        if (c)
            redisAsyncFree(c);
        return NULL;
    }
    c->data = r;
    if (redisLibevAttach(r->loop, c) != REDIS_OK) {
        redisAsyncFree(c);
        return NULL;
    }
    redisAsyncSetConnectCallback(c, come);
    redisAsyncSetDisconnectCallback(c, gone);
    if (r->url.password[0])
        redisAsyncCommand(c, NULL, NULL, "AUTH %s", r->url.password);
    return c;
}

static void connect_both(struct bus_redis *r)
{
    char inbox[CHANNEL_MAX];
    hang_up(r);
    r->fed_ns = clock_mono_ns();
    r->in = dial(r);
    r->out = r->in ? dial(r) : NULL;
    channel(r, inbox, r->self);
    if (!r->out || redisAsyncCommand(r->in, on_message, r, "SUBSCRIBE %s", inbox) != REDIS_OK) {
        hang_up(r);
        plan_again(r);
    }
}

static void on_again(struct ev_loop *loop, ev_timer *w, int events)
{
    (void)loop;
    (void)events;
    connect_both(w->data);
}

static int publish(struct bus_redis *r, uint16_t to, const char *p, size_t n)
{
    char name[CHANNEL_MAX];
    if (!r->out || (r->out->c.obuf && sdslen(r->out->c.obuf) + n > BUS_REDIS_QUEUE_MAX)) {
        r->stats.lost++;
        return r->out ? ERR_FULL : ERR_UNAVAILABLE;
    }
    channel(r, name, to);
    const char *words[] = {"PUBLISH", name, p};
    size_t lens[] = {7, strlen(name), n};
    if (redisAsyncCommandArgv(r->out, NULL, NULL, 3, words, lens) != REDIS_OK) {
        r->stats.lost++;
        return ERR_UNAVAILABLE;
    }
    r->stats.sent++;
    return 0;
}

static void on_watch(struct ev_loop *loop, ev_timer *w, int events)
{
    struct bus_redis *r = w->data;
    (void)loop;
    (void)events;
    if (ev_is_active(&r->again))
        return;
    if (clock_mono_ns() - r->fed_ns >= STALLED_NS) {
        log_warn("bus: redis at %s:%d does not answer: connecting anew", r->url.host, r->url.port);
        r->stats.stalls++;
        hang_up(r);
        plan_again(r);
        return;
    }
    publish(r, r->self, "", 0);
}

/* ---- the vtable ---- */

static int redis_send(struct bus *b, uint16_t to, const char *p, size_t n)
{
    struct bus_redis *r = (struct bus_redis *)b;
    int rc = 0;
    if (n > BUS_DATAGRAM_MAX)
        return ERR_LIMIT;
    if (to != BUS_ALL)
        return to < r->nodes && to != r->self ? publish(r, to, p, n) : ERR_UNAVAILABLE;
    for (uint16_t i = 0; i < r->nodes; i++) {
        int one = i == r->self ? 0 : publish(r, i, p, n);
        rc = rc ? rc : one;
    }
    return rc;
}

static bool redis_connected(const struct bus *b)
{
    return ((const struct bus_redis *)b)->subscribed;
}

static void redis_close(struct bus *b)
{
    struct bus_redis *r = (struct bus_redis *)b;
    r->closing = true;
    ev_timer_stop(r->loop, &r->watch);
    ev_timer_stop(r->loop, &r->again);
    hang_up(r);
    free(r);
}

static const struct bus_ops ops = {redis_send, redis_connected, redis_close};

int bus_redis_new(struct bus **out, struct ev_loop *loop, const char *url, uint16_t self, uint16_t nodes,
                  const struct bus_sink *sink, struct err_ctx *ctx)
{
    struct bus_redis *r = calloc(1, sizeof *r);
    if (!r)
        return err_set(ctx, ERR_NOMEM, "no memory for a bus");
    int rc = redis_url_parse(&r->url, url, "bus", ctx);
    if (rc) {
        free(r);
        return rc;
    }
    r->bus.ops = &ops;
    r->sink = *sink;
    r->loop = loop;
    r->self = self;
    r->nodes = nodes;
    r->again_s = AGAIN_S;
    ev_init(&r->again, on_again);
    ev_timer_init(&r->watch, on_watch, WATCH_S, WATCH_S);
    r->again.data = r->watch.data = r;
    ev_timer_start(loop, &r->watch);
    connect_both(r);
    *out = &r->bus;
    return 0;
}

void bus_redis_stats(const struct bus *b, struct bus_redis_stats *out)
{
    *out = ((const struct bus_redis *)b)->stats;
}
