/* A tiny world for node tests: a node over a memory store, everything on one thread, jobs run when the test
 * says so. */
#ifndef TESTS_NODE_WORLD_H
#define TESTS_NODE_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bus/bus.h"
#include "node/node.h"

#ifndef PEERS_MAX
#define PEERS_MAX 64
#endif
#define JOBS_MAX 4096

/* One connection of the test: what it was sent, as JSON objects in order. */
struct peer {
    uint64_t conn, user;
    json_t *got; /* array of objects not yet taken */
    int closed_code;
    bool hold; /* do not report frames as written: a socket that takes nothing */
    struct shared_frame *held[4096];
    size_t held_n;
};

struct world {
    struct node *node;
    struct kv *kv;
    struct store *store;
    struct keys keys;
    struct peer peers[PEERS_MAX];
    size_t peers_n;
    struct commit_job *commits[JOBS_MAX];
    struct read_job *reads[JOBS_MAX];
    size_t commits_n, reads_n;
    bool auto_run; /* run jobs as soon as they are asked for */
    bool store_full;
    struct now now;
    struct rng rng;
    int http_status;
    char http_body[65536];
    unsigned features;
    uint64_t sequential_ns; /* of the next start */
    struct node_place place;
    struct bus *bus;
};

static void world_emit(void *arg, const struct effect *e)
{
    struct world *w = arg;
    struct peer *p = e->link;
    switch (e->kind) {
    case EFFECT_SEND: {
        json_error_t err;
        json_t *o = json_loadb(e->frame->data, e->frame->len, 0, &err);
        assert_non_null(o);
        json_array_append_new(p->got, o);
        shared_frame_ref(e->frame);
        assert_true(p->held_n < 4096);
        p->held[p->held_n++] = e->frame;
        break;
    }
    case EFFECT_CLOSE:
        p->closed_code = e->code;
        break;
    case EFFECT_COMMIT:
        w->commits[w->commits_n++] = e->commit;
        break;
    case EFFECT_READ:
        w->reads[w->reads_n++] = e->read;
        break;
    case EFFECT_HTTP_REPLY:
        w->http_status = e->code;
        snprintf(w->http_body, sizeof w->http_body, "%.*s", (int)e->frame->len, e->frame->data);
        break;
    case EFFECT_SHARED:
        break;
    case EFFECT_BUS:
        if (w->bus)
            bus_send(w->bus, e->to, e->data, e->len);
        break;
    }
}

static uint64_t world_step(struct world *w, struct node_event e)
{
    e.now = w->now;
    return node_step(w->node, &e);
}

static bool world_run_read(struct world *w)
{
    if (!w->reads_n)
        return false;
    struct read_job *job = w->reads[0];
    memmove(w->reads, w->reads + 1, --w->reads_n * sizeof *w->reads);
    job_run_read(w->store, job);
    world_step(w, (struct node_event){.kind = NODE_READ_DONE, .read = job});
    return true;
}

static bool world_run_commit(struct world *w)
{
    if (!w->commits_n)
        return false;
    struct commit_job *job = w->commits[0];
    memmove(w->commits, w->commits + 1, --w->commits_n * sizeof *w->commits);
    if (w->store_full)
        job->rc = ERR_FULL;
    else
        job_run_commit(w->store, job);
    world_step(w, (struct node_event){.kind = NODE_COMMITTED, .commit = job});
    return true;
}

static void world_written(struct world *w)
{
    for (size_t i = 0; i < w->peers_n; i++) {
        struct peer *p = &w->peers[i];
        while (!p->hold && p->held_n) {
            struct shared_frame *f = p->held[0];
            memmove(p->held, p->held + 1, --p->held_n * sizeof *p->held);
            world_step(w, (struct node_event){.kind = NODE_WRITTEN, .conn = p->conn, .frame = f});
            shared_frame_unref(f);
        }
    }
}

/* Until nothing is left to do. */
static void world_settle(struct world *w)
{
    bool more = true;
    while (more) {
        more = world_run_read(w) | world_run_commit(w);
        size_t held = 0;
        for (size_t i = 0; i < w->peers_n; i++)
            held += w->peers[i].hold ? 0 : w->peers[i].held_n;
        more |= held != 0;
        world_written(w);
    }
}

static inline void world_pass(struct world *w, uint64_t ms)
{
    w->now.mono_ns += ms * NS_PER_MS;
    w->now.wall_us += ms * 1000;
    world_step(w, (struct node_event){.kind = NODE_TICK});
}

static void world_boot(struct world *w)
{
    struct err_ctx err = {0};
    struct node_config c = {.features = w->features,
                            .sequential_ns = w->sequential_ns,
                            .limits = node_limits_default(),
                            .ack_timeout_ns =
                                w->place.nodes ? 0 : 10 * NS_PER_S, /* nobody acknowledges there */
                            .idle_timeout_ns = 30 * NS_PER_S,
                            .hello_timeout_ns = 10 * NS_PER_S,
                            .beat_s = 10,
                            .keys = &w->keys,
                            .seed = w->place.nodes ? rng_u64(&w->rng) : 1,
                            .place = w->place,
                            .epoch = store_epoch(w->store),
                            .emit = world_emit,
                            .arg = w};
    c.limits.rate_per_s = 0;
    if (w->place.nodes)
        c.limits.slow_ms = 0;
    assert_int_equal(node_new(&w->node, &c, &err), 0);
    assert_int_equal(node_load(w->node, w->store, &err), 0);
}

static struct world *world_new_at(unsigned features, const struct node_place *place,
                                  const struct keys *shared)
{
    struct world *w = calloc(1, sizeof *w);
    struct err_ctx err = {0};
    w->features = features;
    w->place = *place;
    w->now = (struct now){NS_PER_S, 1764000000000000ull};
    rng_seed(&w->rng, 7 + place->self);
    char dir[] = "/tmp/chatd-node-XXXXXX";
    assert_non_null(mkdtemp(dir));
    char cmd[128], keys[64];
    snprintf(keys, sizeof keys, "%s/keys", dir);
    assert_int_equal(keys_open(&w->keys, keys, true, &err), 0);
    snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    assert_int_equal(system(cmd), 0);
    if (shared)
        w->keys = *shared;
    assert_int_equal(kv_mem_open(&w->kv, &err), 0);
    struct store_config sc = {.now_us = w->now.wall_us, .random = 99 + place->self};
    assert_int_equal(store_open_on(&w->store, w->kv, &sc, &err), 0);
    world_boot(w);
    return w;
}

static inline struct world *world_new(unsigned features)
{
    return world_new_at(features, &(struct node_place){0}, NULL);
}

static void peer_gone(struct world *w, struct peer *p)
{
    for (size_t i = 0; i < p->held_n; i++)
        shared_frame_unref(p->held[i]);
    p->held_n = 0;
    if (p->conn)
        world_step(w, (struct node_event){.kind = NODE_CLOSED, .conn = p->conn, .reason = REASON_RESET});
    p->conn = 0;
}

/* All connections and the node's memory are gone; the store stays. */
static inline void world_restart(struct world *w)
{
    for (size_t i = 0; i < w->peers_n; i++) {
        peer_gone(w, &w->peers[i]);
        json_decref(w->peers[i].got);
    }
    w->peers_n = 0;
    world_settle(w);
    node_free(w->node);
    world_boot(w);
}

static void world_free(struct world *w)
{
    for (size_t i = 0; i < w->peers_n; i++) {
        peer_gone(w, &w->peers[i]);
        json_decref(w->peers[i].got);
    }
    world_settle(w);
    node_free(w->node);
    store_close(w->store, NULL);
    w->kv->ops->close(w->kv);
    free(w);
}

static void peer_say(struct world *w, struct peer *p, const char *fmt, ...)
{
    char text[70000];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    world_step(w, (struct node_event){.kind = NODE_FRAME, .conn = p->conn, .data = text, .len = (size_t)n});
}

/* A connection that has not said hello. */
static struct peer *peer_open(struct world *w, uint64_t user)
{
    struct peer *p = &w->peers[w->peers_n++];
    *p = (struct peer){.user = user, .got = json_array()};
    p->conn = world_step(w, (struct node_event){.kind = NODE_OPEN, .link = p});
    assert_true(p->conn != 0);
    return p;
}

static void world_token(struct world *w, uint64_t user, struct buf *out)
{
    uint64_t now = w->now.wall_us / 1000000;
    struct token t = {.user = user, .issued_s = now, .expires_s = now + 86400 * 100};
    assert_int_equal(token_mint(&w->keys, &t, out), 0);
}

static struct peer *peer_hello(struct world *w, uint64_t user, uint32_t device, const char *resume)
{
    struct peer *p = peer_open(w, user);
    struct buf token = BUF_INIT(4096);
    world_token(w, user, &token);
    peer_say(w, p, "{\"t\":\"hello\",\"token\":\"%s\",\"device\":%u,\"net\":\"lte\"%s%s}", buf_cstr(&token),
             device, resume ? ",\"resume\":" : "", resume ? resume : "");
    buf_release(&token);
    world_settle(w);
    return p;
}

/* Take the next object of type t, dropping those before it; NULL: none. Borrowed until the next take. */
static json_t *peer_take(struct peer *p, const char *t)
{
    static json_t *last;
    json_decref(last);
    last = NULL;
    while (json_array_size(p->got)) {
        json_t *o = json_incref(json_array_get(p->got, 0));
        json_array_remove(p->got, 0);
        if (!strcmp(json_string_value(json_object_get(o, "t")), t)) {
            last = o;
            return o;
        }
        json_decref(o);
    }
    return NULL;
}

static inline size_t peer_count(const struct peer *p, const char *t)
{
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(p->got); i++)
        n += !strcmp(json_string_value(json_object_get(json_array_get(p->got, i), "t")), t);
    return n;
}

static const char *text_of(json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static inline long long number_of(json_t *o, const char *key)
{
    return json_integer_value(json_object_get(o, key));
}

static char *world_id(struct world *w, char out[ID_TEXT + 1])
{
    struct id id = id_new(w->now.wall_us / 1000, &w->rng);
    return id_str(&id, out);
}

static void peer_send(struct world *w, struct peer *p, const char *id, uint64_t chat, const char *body)
{
    peer_say(w, p, "{\"t\":\"send\",\"id\":\"%s\",\"chat\":\"%llu\",\"kind\":\"text\",\"body\":\"%s\"}", id,
             (unsigned long long)chat, body);
}

/* Chat 17 of users 7 and 8, created by 7. */
static inline void world_chat(struct world *w, struct peer *seven)
{
    peer_say(w, seven, "{\"t\":\"create\",\"chat\":\"17\",\"users\":[\"7\",\"8\"]}");
    world_settle(w);
    assert_non_null(peer_take(seven, "done"));
}

#endif
