/* Any bytes through a connection of the proxy. First byte: which toxics; second: how it begins (plain,
 * upgraded, with compression) and the size of the pieces; the rest goes half up, half down. What comes out
 * must not hang on the pieces, and without a fault it is what went in. */
#include <stdlib.h>
#include <string.h>

#include "netem/proxy/core.h"
#include "util/map.h"
#include "wire/ws.h"

#define ID "0193a1c2-7b1e-7c4a-9d55-0a1b2c3d4e5f"

static const char *const sets[][4] = {
    {"cut:nth=100000"},
    {"cut:id=" ID},
    {"cut:nth=2,at=30%", "duplicate:each=2,of=all"},
    {"duplicate:prob=50%,copies=3", "duplicate:id=" ID},
    {"stall:nth=1", "limit:bytes=500,how=reset"},
    {"blackhole:nth=2,at=1", "reset:bytes=700,dir=up"},
    {"latency:delay=5ms,jitter=5ms", "bandwidth:rate=1mbit", "slicer:size=7,vary=6,delay=1us",
     "cut:prob=10%"},
    {"half-open:id=" ID ",at=99%,dir=down", "stall:each=3,for=1s"},
};
#define SETS (sizeof sets / sizeof *sets)

struct flow {
    struct proxy_conn *c;
    uint64_t now;
    struct buf out[2];
    bool fault;
    enum proxy_end end;
};

static void saw(void *arg, const struct proxy_event *e)
{
    ((struct flow *)arg)->fault |= e->by_place;
}

static void drain(struct flow *f)
{
    const char *p;
    proxy_conn_tick(f->c, f->now);
    while (!(f->end = proxy_conn_verdict(f->c, f->now))) {
        size_t moved = 0;
        for (int d = 0; d < 2; d++) {
            size_t n = proxy_conn_ready(f->c, (enum netem_dir)d, f->now, &p);
            buf_add(&f->out[d], p ? p : "", n);
            proxy_conn_took(f->c, (enum netem_dir)d, f->now, n);
            moved += n + proxy_conn_fin(f->c, (enum netem_dir)d, f->now);
        }
        uint64_t wake = moved ? f->now : proxy_conn_wake(f->c, f->now);
        if (wake == UINT64_MAX)
            break;
        if (!moved && wake <= f->now)
            abort(); /* it would spin */
        f->now = wake;
    }
}

static void feed(struct flow *f, enum netem_dir d, const void *data, size_t n, size_t step)
{
    for (size_t at = 0; at < n; at += step) {
        size_t k = n - at < step ? n - at : step;
        char *exact = malloc(k);
        memcpy(exact, (const char *)data + at, k);
        proxy_conn_put(f->c, d, f->now, exact, k);
        free(exact);
        drain(f);
    }
}

static uint64_t whole(const uint8_t *data, size_t size, size_t step, bool judge)
{
    struct proxy_rules rules;
    struct flow f = {.now = 1000};
    struct buf in[2] = {BUF_INIT(1u << 17), BUF_INIT(1u << 17)};
    proxy_rules_init(&rules, 1, 1u << 20);
    for (int i = 0; i < 4 && sets[data[0] % SETS][i]; i++) {
        if (proxy_rules_add(&rules, sets[data[0] % SETS][i], 0, NULL))
            abort();
    }
    buf_init(&f.out[0], 1u << 24);
    buf_init(&f.out[1], 1u << 24);
    f.c = proxy_conn_new(&rules, 1, f.now, saw, &f);
    if (data[1] & 3) {
        ws_upgrade_request(&in[0], "x", "/", "dGhlIHNhbXBsZSBub25jZQ==", NULL, NULL);
        ws_upgrade_response(&in[1], "dGhlIHNhbXBsZSBub25jZQ==", 24, NULL);
        if (data[1] & 2) {
            in[1].len -= 2;
            buf_str(&in[1], data[1] & 1
                                ? "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
                                : "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; "
                                  "server_no_context_takeover\r\n\r\n");
        }
    }
    size_t head[2] = {in[0].len, in[1].len}, half = (size - 2) / 2;
    buf_add(&in[0], data + 2, half);
    buf_add(&in[1], data + 2 + half, size - 2 - half);
    for (int d = 0; d < 2; d++)
        feed(&f, (enum netem_dir)d, in[d].data, head[d], step);
    for (int d = 0; d < 2; d++)
        feed(&f, (enum netem_dir)d, in[d].data + head[d], in[d].len - head[d], step);
    for (int d = 0; d < 2; d++)
        proxy_conn_put_fin(f.c, (enum netem_dir)d, f.now);
    drain(&f);
    uint64_t sum = (uint64_t)f.end;
    for (int d = 0; d < 2; d++) {
        if (judge && !f.fault && !f.end &&
            (f.out[d].len != in[d].len || (in[d].len && memcmp(f.out[d].data, in[d].data, in[d].len))))
            abort();
        sum = hash_bytes(f.out[d].data, f.out[d].len, sum);
        buf_release(&in[d]);
        buf_release(&f.out[d]);
    }
    proxy_conn_free(f.c);
    proxy_rules_release(&rules);
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4 || size > 1u << 16)
        return 0;
    size_t step = 1 + data[1] / 4;
    if (whole(data, size, size + 1000, true) != whole(data, size, step, true))
        abort();
    return 0;
}
