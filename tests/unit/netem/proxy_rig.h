/* A connection of the proxy without sockets, in virtual time: bytes in, bytes out with their times, what was
 * said. */
#ifndef TESTS_PROXY_RIG_H
#define TESTS_PROXY_RIG_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "netem/proxy/core.h"
#include "util/clock.h"
#include "util/rng.h"
#include "wire/ws.h"

#define ID_A "0193a1c2-7b1e-7c4a-9d55-0a1b2c3d4e5f"
#define ID_B "0193a1c2-7b1e-7c4a-9d55-0a1b2c3d4e60"

struct rig {
    struct proxy_rules rules;
    struct proxy_conn *c;
    uint64_t now;
    struct buf out[2], said;
    uint64_t last_ns[2], first_ns[2], fin_ns[2], writes[2], largest[2];
    enum proxy_end end;
};

static void rig_note(void *arg, const struct proxy_event *e)
{
    struct rig *g = arg;
    char id[ID_TEXT + 1];
    buf_printf(&g->said, "%s@%" PRIu64, e->what, e->offset);
    if (e->frame)
        buf_printf(&g->said, "#%" PRIu64, e->frame);
    if (e->has_id)
        buf_printf(&g->said, "=%.4s", id_str(&e->id, id) + 32);
    buf_char(&g->said, ' ');
}

static void rig_rules(struct rig *g, uint64_t seed, const char *const *specs)
{
    struct err_ctx ctx = {0};
    memset(g, 0, sizeof *g);
    proxy_rules_init(&g->rules, seed, 1 << 20);
    for (; specs && *specs; specs++) {
        if (proxy_rules_add(&g->rules, *specs, 0, &ctx))
            fail_msg("%s", ctx.text);
    }
    for (int d = 0; d < 2; d++)
        buf_init(&g->out[d], 64 << 20);
    buf_init(&g->said, 1 << 20);
    g->now = NS_PER_S;
}

static void rig_connect(struct rig *g, uint64_t number)
{
    proxy_conn_free(g->c);
    buf_reset(&g->out[0]);
    buf_reset(&g->out[1]);
    memset(g->last_ns, 0, sizeof g->last_ns);
    memset(g->first_ns, 0, sizeof g->first_ns);
    memset(g->fin_ns, 0, sizeof g->fin_ns);
    g->end = PROXY_GOES_ON;
    g->c = proxy_conn_new(&g->rules, number, g->now, rig_note, g);
    assert_non_null(g->c);
}

static void rig_end(struct rig *g)
{
    proxy_conn_free(g->c);
    proxy_rules_release(&g->rules);
    buf_release(&g->out[0]);
    buf_release(&g->out[1]);
    buf_release(&g->said);
}

#define RIG(name, seed, ...)                                                                                 \
    struct rig name;                                                                                         \
    rig_rules(&name, seed, (const char *const[]){__VA_ARGS__, NULL});                                        \
    rig_connect(&name, 1)

/* What may be written is written. */
static void rig_flush(struct rig *g)
{
    bool moved = true;
    proxy_conn_tick(g->c, g->now);
    while (moved && !(g->end = proxy_conn_verdict(g->c, g->now))) {
        moved = false;
        for (int d = 0; d < 2; d++) {
            const char *p;
            size_t n = proxy_conn_ready(g->c, (enum netem_dir)d, g->now, &p);
            if (n) {
                buf_add(&g->out[d], p, n);
                proxy_conn_took(g->c, (enum netem_dir)d, g->now, n);
                g->first_ns[d] = g->first_ns[d] ? g->first_ns[d] : g->now;
                g->last_ns[d] = g->now;
                g->writes[d]++;
                g->largest[d] = n > g->largest[d] ? n : g->largest[d];
                moved = true;
            }
            if (proxy_conn_fin(g->c, (enum netem_dir)d, g->now))
                g->fin_ns[d] = g->now;
        }
    }
}

/* Time goes on to `at`, stopping wherever the connection asks. */
__attribute__((unused)) static void rig_until(struct rig *g, uint64_t at)
{
    for (rig_flush(g); g->now < at; rig_flush(g)) {
        uint64_t wake = proxy_conn_wake(g->c, g->now);
        assert_true(wake > g->now);
        g->now = wake < at ? wake : at;
    }
}

/* Until nothing more happens by itself. */
__attribute__((unused)) static void rig_settle(struct rig *g)
{
    rig_flush(g);
    for (uint64_t wake; !g->end && (wake = proxy_conn_wake(g->c, g->now)) != UINT64_MAX; rig_flush(g)) {
        assert_true(wake > g->now);
        g->now = wake;
    }
}

static void rig_put(struct rig *g, enum netem_dir d, const void *p, size_t n, size_t step)
{
    for (size_t at = 0; at < n; at += step) {
        size_t k = n - at < step ? n - at : step;
        char *exact = malloc(k);
        memcpy(exact, (const char *)p + at, k);
        for (size_t done = 0; done < k;) {
            size_t room = proxy_conn_room(g->c, d);
            if (!room) {
                rig_flush(g);
                room = proxy_conn_room(g->c, d);
                if (!room) {
                    g->now = proxy_conn_wake(g->c, g->now);
                    continue;
                }
            }
            room = room < k - done ? room : k - done;
            proxy_conn_put(g->c, d, g->now, exact + done, room);
            done += room;
        }
        free(exact);
        rig_flush(g);
    }
}

/* --- WebSocket streams --- */

__attribute__((unused)) static void rig_upgrade(struct rig *g, const char *extension)
{
    struct buf b = BUF_INIT(4096);
    ws_upgrade_request(&b, "x", "/", "dGhlIHNhbXBsZSBub25jZQ==", "chat.v1",
                       "Sec-WebSocket-Extensions: permessage-deflate\r\n");
    rig_put(g, NETEM_UP, b.data, b.len, b.len);
    buf_reset(&b);
    ws_upgrade_response(&b, "dGhlIHNhbXBsZSBub25jZQ==", 24, "chat.v1");
    if (extension) {
        b.len -= 2;
        buf_printf(&b, "Sec-WebSocket-Extensions: %s\r\n\r\n", extension);
    }
    rig_put(g, NETEM_DOWN, b.data, b.len, b.len);
    buf_release(&b);
    rig_flush(g);
    for (int d = 0; d < 2; d++) {
        buf_reset(&g->out[d]);
        g->first_ns[d] = g->writes[d] = g->largest[d] = 0;
    }
    buf_reset(&g->said);
}

static void frame(struct buf *b, bool fin, bool rsv1, int opcode, const void *p, size_t n, bool masked)
{
    struct ws_header h = {
        .fin = fin, .rsv = rsv1 ? 4 : 0, .opcode = (uint8_t)opcode, .masked = masked, .len = n};
    uint8_t head[WS_HEADER_MAX];
    memcpy(h.mask, "\x37\xfa\x21\x3d", 4);
    buf_add(b, head, ws_header_encode(head, &h));
    size_t at = b->len;
    buf_add(b, p, n);
    if (masked)
        ws_mask(b->data + at, n, h.mask, 0);
}

__attribute__((unused)) static void text_frame(struct buf *b, const char *text, bool masked)
{
    frame(b, true, false, WS_TEXT, text, strlen(text), masked);
}

/* What permessage-deflate makes of a message. */
__attribute__((unused)) static size_t deflated(z_stream *z, uint8_t *out, size_t cap, const void *p, size_t n)
{
    z->next_in = (Bytef *)p;
    z->avail_in = (uInt)n;
    z->next_out = out;
    z->avail_out = (uInt)cap;
    assert_int_equal(deflate(z, Z_SYNC_FLUSH), Z_OK);
    return cap - z->avail_out - 4;
}

#endif
