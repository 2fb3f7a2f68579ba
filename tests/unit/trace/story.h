/* Builds runs record by record, the way server, link and phones write them. */
#ifndef TESTS_TRACE_STORY_H
#define TESTS_TRACE_STORY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "trace/join.h"
#include "util/rng.h"

#define PART_MAX  40000
#define SERVER_IP 0xC6130001u
#define MS        1000000ull

enum part { SERVER, LINK, LOAD, PARTS };

struct writer {
    struct trace_event *event;
    uint32_t n;
};

struct tale {
    struct writer part[PARTS];
    uint64_t now;
    struct rng rng;
    uint32_t next_conn;
    bool durable, one_push, one_send, outbox;
    bool reuse_ports; /* a user's connections all have the same 4-tuple */
};

/* One connection: a lane at each end and a flow on the link. */
struct wire {
    uint64_t user, written_up, written_down;
    uint32_t ip, conn;
    uint16_t port;
    uint16_t client_seq, server_seq;
    bool client_open, server_open;
};

static struct tale *tale_new(uint64_t seed)
{
    struct tale *t = calloc(1, sizeof *t);
    for (int p = 0; p < PARTS; p++)
        t->part[p].event = calloc(PART_MAX, sizeof *t->part[p].event);
    rng_seed(&t->rng, seed);
    t->now = 1000 * MS;
    return t;
}

static void tale_free(struct tale *t)
{
    for (int p = 0; p < PARTS; p++)
        free(t->part[p].event);
    free(t);
}

static void tell(struct tale *t, enum part p, struct trace_event e)
{
    static const uint16_t nodes[] = {TRACE_NODE_SERVER, TRACE_NODE_LINK, TRACE_NODE_LOAD};
    struct writer *w = &t->part[p];
    assert_true(w->n < PART_MAX);
    e.node = nodes[p];
    e.ts_ns = t->now;
    t->now += MS / 10;
    w->event[w->n++] = e;
}

static void tell_server(struct tale *t, struct wire *w, struct trace_event e)
{
    e.conn = w->conn;
    e.lane_seq = w->server_seq++;
    tell(t, SERVER, e);
}

static void tell_client(struct tale *t, struct wire *w, struct trace_event e)
{
    e.conn = w->conn;
    e.lane_seq = w->client_seq++;
    tell(t, LOAD, e);
}

static void packet(struct tale *t, struct wire *w, bool down, uint64_t offset, uint64_t bytes, uint8_t flags,
                   enum reason drop)
{
    struct trace_flow f = {w->ip, SERVER_IP, w->port, 8080, 1000 + w->conn * 100000 + (uint32_t)offset};
    if (down)
        f = (struct trace_flow){SERVER_IP, w->ip, 8080, w->port, 5000 + w->conn * 100000 + (uint32_t)offset};
    struct trace_event e = {.user = w->ip,
                            .arg = bytes,
                            .hop = drop ? HOP_LINK_DROP : HOP_LINK_DELIVER,
                            .reason = drop,
                            .flags = flags | (down ? TRACE_FLAG_DOWN : 0)};
    memcpy(&e.id, &f, sizeof f);
    tell(t, LINK, e);
}

static struct wire wire_open(struct tale *t, uint64_t user, enum net net)
{
    struct wire w = {.user = user, .ip = 0xC6120000u + (uint32_t)user, .conn = ++t->next_conn};
    w.port = (uint16_t)(2000 + (t->reuse_ports ? user % 1000 : w.conn));
    w.client_open = w.server_open = true;
    packet(t, &w, false, 0, 0, TRACE_FLAG_SYN, 0);
    packet(t, &w, true, 0, 0, TRACE_FLAG_SYN, 0);
    packet(t, &w, false, 1, 100, 0, 0);
    packet(t, &w, true, 1, 90, 0, 0);
    struct trace_flow f = {w.ip, SERVER_IP, w.port, 8080, 0};
    struct trace_event e = {.user = user, .device = 1, .hop = HOP_SOCKET_OPEN, .reason = net};
    memcpy(&e.id, &f, sizeof f);
    w.written_up = 100;
    w.written_down = 90;
    e.arg = 90;
    tell_client(t, &w, e);
    tell_server(t, &w, e);
    return w;
}

static void client_close(struct tale *t, struct wire *w, enum reason reason)
{
    if (w->client_open)
        tell_client(t, w, (struct trace_event){.user = w->user, .hop = HOP_SOCKET_CLOSE, .reason = reason});
    w->client_open = false;
}

static void server_close(struct tale *t, struct wire *w, enum reason reason)
{
    if (w->server_open)
        tell_server(t, w, (struct trace_event){.user = w->user, .hop = HOP_SOCKET_CLOSE, .reason = reason});
    w->server_open = false;
}

static void member(struct tale *t, uint64_t chat, uint64_t user)
{
    tell(t, SERVER, (struct trace_event){.chat = chat, .user = user, .hop = HOP_SERVER_MEMBER});
}

static struct id submit(struct tale *t, uint64_t user, uint64_t chat)
{
    struct id id = id_new(t->now / MS, &t->rng);
    tell(t, LOAD,
         (struct trace_event){.id = id,
                              .chat = chat,
                              .user = user,
                              .hop = HOP_CLIENT_SUBMIT,
                              .flags = (t->one_send ? TRACE_FLAG_ONE_SEND : 0) |
                                       (t->outbox ? TRACE_FLAG_OUTBOX : 0)});
    return id;
}

static void give_up(struct tale *t, struct id id, uint64_t user, uint64_t chat, enum reason reason,
                    uint64_t attempts)
{
    tell(t, LOAD,
         (struct trace_event){.id = id,
                              .chat = chat,
                              .user = user,
                              .arg = attempts,
                              .hop = HOP_CLIENT_GIVE_UP,
                              .reason = reason});
}

/* The phone writes it; the link delivers or drops its packet. */
static void send_up(struct tale *t, struct wire *w, struct id id, uint64_t chat, uint8_t attempt,
                    enum reason drop)
{
    uint64_t begin = w->written_up + 1;
    w->written_up += 200;
    tell_client(t, w,
                (struct trace_event){.id = id,
                                     .chat = chat,
                                     .user = w->user,
                                     .attempt = attempt,
                                     .arg = w->written_up,
                                     .hop = HOP_CLIENT_SEND});
    packet(t, w, false, begin, 200, 0, drop);
}

static void server_has(struct tale *t, struct wire *w, struct id id, uint64_t chat, uint64_t seq,
                       uint64_t recipients)
{
    tell_server(t, w,
                (struct trace_event){.id = id,
                                     .chat = chat,
                                     .user = w->user,
                                     .arg = w->written_up,
                                     .hop = HOP_SERVER_RECEIVE,
                                     .flags = t->durable ? TRACE_FLAG_DURABLE : 0});
    if (t->durable)
        tell(t, SERVER,
             (struct trace_event){
                 .id = id, .chat = chat, .user = w->user, .arg = seq, .hop = HOP_SERVER_COMMIT});
    tell(t, SERVER,
         (struct trace_event){.id = id,
                              .chat = chat,
                              .user = w->user,
                              .arg = recipients,
                              .hop = HOP_SERVER_FANOUT,
                              .flags = t->one_push ? TRACE_FLAG_ONE_PUSH : 0});
}

/* Push to a connection; returns the end offset. */
static uint64_t push(struct tale *t, struct wire *w, struct id id, uint64_t chat, enum reason drop,
                     bool arrives)
{
    uint64_t begin = w->written_down + 1;
    w->written_down += 150;
    tell_server(t, w,
                (struct trace_event){.id = id,
                                     .chat = chat,
                                     .user = w->user,
                                     .device = 1,
                                     .arg = w->written_down,
                                     .hop = HOP_SERVER_PUSH});
    if (arrives || drop)
        packet(t, w, true, begin, 150, 0, drop);
    return w->written_down;
}

static void shown(struct tale *t, struct wire *w, struct id id, uint64_t chat, uint64_t seq)
{
    tell_client(t, w, (struct trace_event){.user = w->user, .arg = w->written_down, .hop = HOP_SOCKET_READ});
    tell_client(
        t, w,
        (struct trace_event){.id = id, .chat = chat, .user = w->user, .arg = seq, .hop = HOP_CLIENT_RECEIVE});
    tell_client(
        t, w,
        (struct trace_event){.id = id, .chat = chat, .user = w->user, .arg = seq, .hop = HOP_CLIENT_SURFACE});
}

/* `keep`: 0..1,000,000 ppm of the records are kept; the headers still count all of them. */
static inline void tale_load(struct tale *t, uint32_t keep_ppm, uint64_t seed, struct trace_run *r)
{
    struct trace_memory parts[PARTS];
    struct trace_event *left[PARTS];
    struct rng rng;
    struct err_ctx err = {0};
    static const uint16_t nodes[] = {TRACE_NODE_SERVER, TRACE_NODE_LINK, TRACE_NODE_LOAD};
    rng_seed(&rng, seed);
    for (int p = 0; p < PARTS; p++) {
        left[p] = calloc(t->part[p].n + 1, sizeof *left[p]);
        uint32_t n = 0;
        for (uint32_t i = 0; i < t->part[p].n; i++)
            if (keep_ppm >= 1000000 || rng_hit(&rng, RNG_SHARE(keep_ppm)))
                left[p][n++] = t->part[p].event[i];
        parts[p] = (struct trace_memory){.node = nodes[p], .event = left[p], .n = n, .emitted = t->part[p].n};
    }
    assert_int_equal(trace_run_from_memory(r, parts, PARTS, &err), 0);
    assert_int_equal(trace_join(r, &err), 0);
    for (int p = 0; p < PARTS; p++)
        free(left[p]);
}

#endif
