/* Writes captures of chat over WebSocket that are as hard as asked for, and knows what must come out of them.
 *
 * A world of `flows` connections; each step one of them sends a message (client: send, masked; server: msg,
 * accepted) as one or more segments. Of the segments some are seen again later (retransmitted), some come
 * after the one that follows them (out of order), some carry a part of the one before (overlap). The receiver
 * acknowledges what lies without a hole. Everything is drawn from a seed. */
#ifndef TESTS_BENCH_PCAP_GEN_H
#define TESTS_BENCH_PCAP_GEN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/buf.h"
#include "util/id.h"
#include "util/map.h"
#include "util/rng.h"
#include "wire/ws.h"

#define GEN_LATER 256 /* segments that wait for their turn */

struct gen_config {
    uint32_t flows;
    uint32_t again_ppm, swap_ppm, overlap_ppm, split_ppm; /* of segments, messages */
    uint32_t body_min, body_max;
    uint32_t close_ppm;  /* of messages: the connection closes after it and its ports are used anew */
    uint32_t missed_ppm; /* of segments: acknowledged, but not captured */
    uint32_t snap;       /* bytes of a packet that are kept; 0: all */
    bool near_wrap;      /* sequence numbers begin shortly before 2^32 */
    bool ipv6, vlan;
    uint64_t seed;
};

struct gen_truth {          /* of messages whose bytes are all in the capture */
    uint64_t messages, sum; /* sum of gen_hash over them: the order does not matter */
    uint64_t packets, bytes, again, swapped, missed;
};

/* What a message is known by: its text and its direction. */
static inline uint64_t gen_hash(const void *text, size_t n)
{
    return hash_bytes(text, n, 0x9e3779b97f4a7c15ull);
}

struct gen_flow {
    uint32_t seq[2], acked[2]; /* next to send; what the other side has without a hole */
    uint16_t port;
    uint64_t number;
    uint64_t chat_seq;
    struct {
        uint8_t *p; /* swapped out: is emitted after the next one */
        uint32_t n, seq;
    } held[2];
    uint8_t unacked[2];
    bool open;
};

struct gen {
    struct gen_config c;
    struct gen_truth truth;
    struct rng rng;
    struct gen_flow *flow;
    struct {
        uint64_t due;
        uint32_t flow, seq, n;
        int dir;
        uint8_t *p;
    } later[GEN_LATER];
    uint32_t laters;
    uint64_t ts_ns, step;
    struct buf frame, text, out;
    bool (*sink)(void *arg, const void *p, size_t n); /* takes bytes of the file */
    void *arg;
    bool failed, missing; /* missing: a segment of the message at hand was not captured */
};

static inline void gen_be(uint8_t *p, uint64_t v, int n)
{
    for (int i = n; i-- > 0; v >>= 8)
        p[i] = (uint8_t)v;
}

static inline void gen_flush(struct gen *g)
{
    if (g->out.len && !g->failed)
        g->failed = !g->sink(g->arg, g->out.data, g->out.len);
    g->truth.bytes += g->out.len;
    buf_reset(&g->out);
}

#define GEN_SYN 2u
#define GEN_FIN 1u
#define GEN_RST 4u
#define GEN_PSH 8u
#define GEN_ACK 16u

static inline void gen_packet(struct gen *g, uint32_t flow, int dir, uint32_t seq, uint32_t ack,
                              unsigned flags, const void *p, uint32_t n)
{
    const struct gen_flow *f = &g->flow[flow];
    uint8_t h[16 + 18 + 40 + 20 + 12] = {0};
    uint32_t link = g->c.vlan ? 18 : 14, ip = g->c.ipv6 ? 40 : 20, tcp = 20, at = 16;
    uint32_t len = link + ip + tcp + n, kept = g->c.snap && g->c.snap < len ? g->c.snap : len;
    uint32_t sec = (uint32_t)(g->ts_ns / 1000000000), us = (uint32_t)(g->ts_ns % 1000000000 / 1000);
    memcpy(h, &sec, 4);
    memcpy(h + 4, &us, 4);
    memcpy(h + 8, &kept, 4);
    memcpy(h + 12, &len, 4);
    memset(h + at, 2, 12);
    if (g->c.vlan) {
        gen_be(h + at + 12, 0x8100, 2);
        gen_be(h + at + 14, 42, 2);
    }
    gen_be(h + at + link - 2, g->c.ipv6 ? 0x86dd : 0x0800, 2);
    at += link;
    uint8_t *client = NULL, *server = NULL;
    if (g->c.ipv6) {
        h[at] = 0x60;
        gen_be(h + at + 4, tcp + n, 2);
        h[at + 6] = 6;
        h[at + 7] = 64;
        uint8_t *src = h + at + 8, *dst = h + at + 24;
        client = dir ? dst : src;
        server = dir ? src : dst;
        gen_be(client, 0x20010db8, 4);
        gen_be(client + 12, flow + 1, 4);
        gen_be(server, 0x20010db8, 4);
        server[15] = 0xff;
    } else {
        h[at] = 0x45;
        gen_be(h + at + 2, ip + tcp + n, 2);
        gen_be(h + at + 4, g->truth.packets & 0xffff, 2);
        h[at + 8] = 64;
        h[at + 9] = 6;
        uint8_t *src = h + at + 12, *dst = h + at + 16;
        client = dir ? dst : src;
        server = dir ? src : dst;
        gen_be(client, 0xc6120000 + 256 + flow, 4); /* 198.18.1.0... */
        gen_be(server, 0xc6120001, 4);
    }
    at += ip;
    gen_be(h + at + (dir ? 2 : 0), f->port, 2);
    gen_be(h + at + (dir ? 0 : 2), 8080, 2);
    gen_be(h + at + 4, seq, 4);
    gen_be(h + at + 8, ack, 4);
    h[at + 12] = 0x50;
    h[at + 13] = (uint8_t)flags;
    gen_be(h + at + 14, 0xffff, 2);
    at += tcp;
    uint32_t head = at - 16;
    buf_add(&g->out, h, 16 + (kept < head ? kept : head));
    if (kept > head)
        buf_add(&g->out, p, kept - head);
    g->truth.packets++;
    g->ts_ns += 1000 + rng_below(&g->rng, 20000);
    if (g->out.len > 1u << 20)
        gen_flush(g);
}

static inline void gen_ack(struct gen *g, uint32_t flow, int dir)
{
    struct gen_flow *f = &g->flow[flow]; /* dir: who acknowledges */
    gen_packet(g, flow, dir, f->held[dir].p ? f->acked[dir] : f->seq[dir], f->acked[!dir], GEN_ACK, NULL, 0);
}

static inline bool gen_chance(struct gen *g, uint32_t ppm)
{
    return ppm && rng_below(&g->rng, 1000000) < ppm;
}

/* A data segment as it passes the tap. */
static inline void gen_emit(struct gen *g, uint32_t flow, int dir, uint32_t seq, const uint8_t *p, uint32_t n)
{
    struct gen_flow *f = &g->flow[flow];
    gen_packet(g, flow, dir, seq, f->acked[!dir], GEN_ACK | GEN_PSH, p, n);
    if (gen_chance(g, g->c.again_ppm) && g->laters < GEN_LATER) {
        uint32_t i = g->laters++;
        g->later[i].due = g->step + 1 + rng_below(&g->rng, 200);
        g->later[i].flow = flow;
        g->later[i].dir = dir;
        g->later[i].seq = seq;
        g->later[i].n = n;
        g->later[i].p = malloc(n);
        memcpy(g->later[i].p, p, n);
        g->truth.again++;
    }
    if (!f->held[dir].p && (int32_t)(seq + n - f->acked[dir]) > 0)
        f->acked[dir] = seq + n;
    if (++f->unacked[dir] >= 2) {
        f->unacked[dir] = 0;
        gen_ack(g, flow, !dir);
    }
}

static inline void gen_release(struct gen *g, uint32_t flow, int dir)
{
    struct gen_flow *f = &g->flow[flow];
    uint8_t *p = f->held[dir].p;
    if (!p)
        return;
    f->held[dir].p = NULL;
    f->acked[dir] = f->seq[dir];
    gen_packet(g, flow, dir, f->held[dir].seq, f->acked[!dir], GEN_ACK | GEN_PSH, p, f->held[dir].n);
    gen_ack(g, flow, !dir);
    free(p);
}

static inline void gen_segment(struct gen *g, uint32_t flow, int dir, const uint8_t *p, uint32_t n)
{
    struct gen_flow *f = &g->flow[flow];
    uint32_t seq = f->seq[dir];
    f->seq[dir] += n;
    if (gen_chance(g, g->c.missed_ppm)) {
        if (!f->held[dir].p)
            f->acked[dir] = f->seq[dir];
        g->missing = true;
        g->truth.missed++;
        return;
    }
    if (!f->held[dir].p && gen_chance(g, g->c.swap_ppm)) {
        f->acked[dir] = seq; /* the receiver waits for it */
        f->held[dir].p = malloc(n);
        memcpy(f->held[dir].p, p, n);
        f->held[dir].n = n;
        f->held[dir].seq = seq;
        g->truth.swapped++;
        return;
    }
    gen_emit(g, flow, dir, seq, p, n);
    gen_release(g, flow, dir);
}

/* Bytes in segments of at most 1448, cut at a random place when split. */
static inline void gen_stream(struct gen *g, uint32_t flow, int dir, const void *data, size_t n)
{
    const uint8_t *p = data;
    size_t first = n > 2 && gen_chance(g, g->c.split_ppm) ? 1 + rng_below(&g->rng, n - 1) : n;
    size_t overlap = n - first > 8 && gen_chance(g, g->c.overlap_ppm) && first > 4 ? 4 : 0;
    for (size_t at = 0; at < n;) {
        size_t take = at < first ? first - at : n - at;
        take = take > 1448 ? 1448 : take;
        if (at == first && overlap && !g->flow[flow].held[dir].p) {
            /* what was sent last is sent again together with what follows */
            uint32_t seq = g->flow[flow].seq[dir] - (uint32_t)overlap;
            g->flow[flow].seq[dir] += (uint32_t)take;
            gen_emit(g, flow, dir, seq, p + at - overlap, (uint32_t)(take + overlap));
        } else {
            gen_segment(g, flow, dir, p + at, (uint32_t)take);
        }
        at += take;
    }
}

static inline void gen_open(struct gen *g, uint32_t flow)
{
    struct gen_flow *f = &g->flow[flow];
    static const char key[] = "dGhlIHNhbXBsZSBub25jZQ==";
    for (int d = 0; d < 2; d++)
        f->seq[d] = f->acked[d] =
            g->c.near_wrap ? 0xffffff00u - (uint32_t)rng_below(&g->rng, 2000) : (uint32_t)rng_u64(&g->rng);
    f->port = (uint16_t)(20000 + g->truth.packets % 40000);
    f->open = true;
    gen_packet(g, flow, 0, f->seq[0]++, 0, GEN_SYN, NULL, 0);
    gen_packet(g, flow, 1, f->seq[1]++, f->seq[0], GEN_SYN | GEN_ACK, NULL, 0);
    for (int d = 0; d < 2; d++)
        f->acked[d] = f->seq[d];
    gen_packet(g, flow, 0, f->seq[0], f->seq[1], GEN_ACK, NULL, 0);
    buf_reset(&g->frame);
    ws_upgrade_request(&g->frame, "198.18.0.1:8080", "/chat", key, "chat.v1", NULL);
    gen_packet(g, flow, 0, f->seq[0], f->seq[1], GEN_ACK | GEN_PSH, g->frame.data, (uint32_t)g->frame.len);
    f->acked[0] = f->seq[0] += (uint32_t)g->frame.len;
    buf_reset(&g->frame);
    ws_upgrade_response(&g->frame, key, strlen(key), "chat.v1");
    gen_packet(g, flow, 1, f->seq[1], f->seq[0], GEN_ACK | GEN_PSH, g->frame.data, (uint32_t)g->frame.len);
    f->acked[1] = f->seq[1] += (uint32_t)g->frame.len;
}

static inline void gen_close(struct gen *g, uint32_t flow)
{
    struct gen_flow *f = &g->flow[flow];
    for (int d = 0; d < 2; d++)
        gen_release(g, flow, d);
    for (uint32_t i = g->laters; i-- > 0;)
        if (g->later[i].flow == flow) { /* nothing of it comes after its end */
            free(g->later[i].p);
            g->later[i] = g->later[--g->laters];
        }
    if (rng_below(&g->rng, 2)) {
        gen_packet(g, flow, 0, f->seq[0], f->acked[1], GEN_FIN | GEN_ACK, NULL, 0);
        gen_packet(g, flow, 1, f->seq[1], f->seq[0] + 1, GEN_FIN | GEN_ACK, NULL, 0);
        gen_packet(g, flow, 0, f->seq[0] + 1, f->seq[1] + 1, GEN_ACK, NULL, 0);
    } else {
        gen_packet(g, flow, 0, f->seq[0], f->acked[1], GEN_RST | GEN_ACK, NULL, 0);
    }
    f->open = false;
}

static inline void gen_message(struct gen *g, uint32_t flow)
{
    struct gen_flow *f = &g->flow[flow];
    char id[ID_TEXT + 1];
    struct id i = id_new(g->ts_ns / 1000000, &g->rng);
    int dir = (int)rng_below(&g->rng, 2);
    uint32_t body = g->c.body_min + (uint32_t)rng_below(&g->rng, g->c.body_max - g->c.body_min + 1);
    uint8_t mask[4];
    uint32_t m = (uint32_t)rng_u64(&g->rng);
    memcpy(mask, &m, 4);
    id_str(&i, id);
    buf_reset(&g->text);
    if (dir)
        buf_printf(&g->text,
                   "{\"t\":\"msg\",\"chat\":\"%u\",\"epoch\":\"48121\",\"seq\":%llu,\"id\":\"%s\",\"from\":"
                   "\"%u\",\"ts\":%llu,"
                   "\"kind\":\"text\",\"body\":\"",
                   flow + 17, (unsigned long long)++f->chat_seq, id, flow + 7,
                   (unsigned long long)(g->ts_ns / 1000));
    else
        buf_printf(&g->text, "{\"t\":\"send\",\"id\":\"%s\",\"chat\":\"%u\",\"kind\":\"text\",\"body\":\"",
                   id, flow + 17);
    char *p = buf_reserve(&g->text, body + 2);
    for (uint32_t k = 0; k < body; k++)
        p[k] = (char)('a' + (k * 7 + m) % 26);
    if (body > 8)
        memcpy(p, "\\\"caf\xc3\xa9", 7);
    memcpy(p + body, "\"}", 2);
    g->text.len += body + 2;
    buf_reset(&g->frame);
    ws_frame(&g->frame, WS_TEXT, g->text.data, g->text.len, dir ? NULL : mask);
    g->missing = false;
    gen_stream(g, flow, dir, g->frame.data, g->frame.len);
    if (g->missing)
        return;
    g->truth.messages++;
    g->truth.sum += gen_hash(g->text.data, g->text.len);
}

static inline void gen_later(struct gen *g)
{
    for (uint32_t i = 0; i < g->laters;) {
        if (g->later[i].due > g->step) {
            i++;
            continue;
        }
        const struct gen_flow *f = &g->flow[g->later[i].flow];
        gen_packet(g, g->later[i].flow, g->later[i].dir, g->later[i].seq, f->acked[!g->later[i].dir],
                   GEN_ACK | GEN_PSH, g->later[i].p, g->later[i].n);
        free(g->later[i].p);
        g->later[i] = g->later[--g->laters];
    }
}

/* Bytes of a pcap file to the sink until `bytes` of it are there. False: the sink refused. */
static inline bool gen_run(struct gen *g, uint64_t bytes)
{
    const uint32_t head[6] = {0xa1b2c3d4, 2 | 4 << 16, 0, 0, 262144, 1};
    rng_seed(&g->rng, g->c.seed);
    g->flow = calloc(g->c.flows, sizeof *g->flow);
    buf_init(&g->frame, 1 << 20);
    buf_init(&g->text, 1 << 20);
    buf_init(&g->out, 4 << 20);
    g->ts_ns = 1764000000000000000ull;
    buf_add(&g->out, head, sizeof head);
    while (g->truth.bytes + g->out.len < bytes && !g->failed) {
        uint32_t flow = (uint32_t)rng_below(&g->rng, g->c.flows);
        g->step++;
        if (!g->flow[flow].open)
            gen_open(g, flow);
        gen_message(g, flow);
        if (gen_chance(g, g->c.close_ppm))
            gen_close(g, flow);
        if (g->laters)
            gen_later(g);
    }
    for (uint32_t flow = 0; flow < g->c.flows; flow++)
        for (int d = 0; d < 2; d++)
            gen_release(g, flow, d);
    gen_flush(g);
    for (uint32_t i = 0; i < g->laters; i++)
        free(g->later[i].p);
    buf_release(&g->frame);
    buf_release(&g->text);
    buf_release(&g->out);
    free(g->flow);
    return !g->failed;
}

#endif
