#include "run/flood.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ev.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "crypto/keys.h"
#include "proto/proto.h"
#include "transport/mux_client.h"
#include "util/units.h"

#define CONNS_MAX       16u
#define PHONES_PER_CONN 250000u
#define BEATS_BYTES     1024u             /* of one bitmap: 8192 sessions */
#define BEATS_ROUND_NS  (500 * NS_PER_MS) /* in which each phone's beat goes out, a share at a time */
#define BEATS_EVERY_NS  (10 * NS_PER_MS)
#define QUEUE_MAX       (32u << 20) /* unsent bytes of a connection beyond which phones wait */

struct flood_conn {
    struct flood_run *r;
    struct mux_client *mux;
    uint32_t first, n; /* phones; session 1 is the first */
    uint8_t *beats;    /* bit i: session 1 + i */
    bool ready;
};

struct flood_run {
    const struct flood_run_config *cfg;
    struct ev_loop *loop;
    struct flood *flood;
    struct keys keys;
    struct rng rng;
    struct flood_conn conns[CONNS_MAX];
    uint32_t conns_n, per_conn, ready, beats_at;
    struct flood_outside outside;
    struct trace *trace;
    ev_timer tick, progress;
    ev_prepare flush;
    ev_signal on_int, on_term;
    uint64_t beats_ns, stopped_ns;
    int measured; /* times */
    bool interrupted;
};

/* ---- what the phones ask ---- */

static struct flood_conn *conn_of(struct flood_run *r, uint32_t phone)
{
    return &r->conns[phone / r->per_conn];
}

static uint32_t session_of(const struct flood_conn *c, uint32_t phone)
{
    return phone - c->first + 1;
}

static struct now world_now(void *arg)
{
    (void)arg;
    return clock_now();
}

static void world_open(void *arg, uint32_t phone, uint64_t user)
{
    struct flood_conn *c = conn_of(arg, phone);
    mux_client_open(c->mux, session_of(c, phone), user);
}

static void world_data(void *arg, uint32_t phone, const char *p, size_t n)
{
    struct flood_conn *c = conn_of(arg, phone);
    mux_client_data(c->mux, session_of(c, phone), p, n);
}

static void world_beat(void *arg, uint32_t phone)
{
    struct flood_conn *c = conn_of(arg, phone);
    uint32_t i = phone - c->first;
    c->beats[i / 8] |= (uint8_t)(1u << i % 8);
}

static void world_credit(void *arg, uint32_t phone, uint32_t bytes)
{
    struct flood_conn *c = conn_of(arg, phone);
    mux_client_credit(c->mux, session_of(c, phone), bytes);
}

static void world_cut(void *arg, uint32_t phone, uint64_t bytes)
{
    struct flood_conn *c = conn_of(arg, phone);
    uint32_t i = phone - c->first;
    c->beats[i / 8] &= (uint8_t) ~(1u << i % 8); /* it was the old session's */
    mux_client_cut(c->mux, session_of(c, phone), bytes);
}

static bool world_room(void *arg)
{
    struct flood_run *r = arg;
    for (uint32_t i = 0; i < r->conns_n; i++)
        if (mux_client_queued(r->conns[i].mux) > QUEUE_MAX)
            return false;
    return true;
}

static void world_flow(void *arg, uint32_t phone, struct trace_flow *out)
{
    struct flood_conn *c = conn_of(arg, phone);
    *out = mux_flow(session_of(c, phone), mux_client_opens(c->mux), mux_client_port(c->mux));
}

static void world_phase(void *arg, const char *name)
{
    struct flood_run *r = arg;
    fprintf(stderr, "%s@phase %s\n", r->cfg->progress ? "\r\033[K" : "", name);
    fflush(stderr);
}

/* ---- what the server says ---- */

static void on_ready(void *arg, uint32_t credit)
{
    struct flood_conn *c = arg;
    struct flood_run *r = c->r;
    if (!c->ready && ++r->ready == r->conns_n)
        flood_start(r->flood, credit);
    c->ready = true;
}

static void on_data(void *arg, uint32_t session, const char *p, size_t n)
{
    struct flood_conn *c = arg;
    if (session && session <= c->n)
        flood_data(c->r->flood, c->first + session - 1, p, n);
}

static void on_soon(void *arg, uint32_t session)
{
    struct flood_conn *c = arg;
    if (session && session <= c->n)
        flood_soon(c->r->flood, c->first + session - 1);
}

static void on_closed(void *arg, uint32_t session, int code)
{
    struct flood_conn *c = arg;
    if (session && session <= c->n)
        flood_closed(c->r->flood, c->first + session - 1, code);
}

static void on_over(void *arg, int code, enum reason reason)
{
    struct flood_conn *c = arg;
    char text[200];
    snprintf(text, sizeof text, "the connection that carries the sessions ended: %s, code %d%s%s",
             reason_text(reason), code, *close_code_text(code) ? ": " : "", close_code_text(code));
    flood_fail(c->r->flood, ERR_IO, text);
}

static int connect_all(struct flood_run *r, struct err_ctx *ctx)
{
    static const struct mux_client_ops ops = {
        .ready = on_ready, .data = on_data, .soon = on_soon, .closed = on_closed, .over = on_over};
    const struct flood_run_config *c = r->cfg;
    uint64_t now = clock_wall_us() / 1000000;
    struct token t = {.user = 1, .role = ROLE_OPERATOR, .issued_s = now, .expires_s = now + 7 * 86400};
    struct buf token = BUF_INIT(4096);
    int rc = token_mint(&r->keys, &t, &token);
    r->conns_n = (c->flood.phones + PHONES_PER_CONN - 1) / PHONES_PER_CONN;
    r->conns_n = r->conns_n > CONNS_MAX ? CONNS_MAX : r->conns_n;
    r->per_conn = (c->flood.phones + r->conns_n - 1) / r->conns_n;
    for (uint32_t i = 0; i < r->conns_n && !rc; i++) {
        struct flood_conn *conn = &r->conns[i];
        *conn = (struct flood_conn){.r = r, .first = i * r->per_conn, .n = r->per_conn};
        if (conn->first + conn->n > c->flood.phones)
            conn->n = c->flood.phones - conn->first;
        conn->beats = calloc(1, conn->n / 8 + BEATS_BYTES);
        struct mux_client_config mc = {.loop = r->loop,
                                       .server_ip = c->server_ip,
                                       .server_port = c->server_port,
                                       .path = c->path,
                                       .token = buf_cstr(&token),
                                       .rng = &r->rng,
                                       .ops = &ops,
                                       .arg = conn};
        rc = conn->beats ? mux_client_new(&conn->mux, &mc, ctx) : err_set(ctx, ERR_NOMEM, "out of memory");
    }
    buf_release(&token);
    return rc;
}

/* ---- memory, as the kernel and the server count it ---- */

static uint64_t own_rss(void)
{
    unsigned long long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f) {
        if (fscanf(f, "%*u %llu", &pages) != 1)
            pages = 0;
        fclose(f);
    }
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* One blocking GET /metrics: between phases only. */
static uint64_t server_rss(const struct flood_run_config *c)
{
    static const char name[] = "\nprocess_resident_memory_bytes ";
    static char text[256 << 10];
    size_t n = 0;
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(c->server_ip), .sin_port = htons(c->server_port)};
    struct timeval limit = {.tv_sec = 5};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const char *ask = "GET /metrics HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n";
    if (fd < 0)
        return 0;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (!connect(fd, (struct sockaddr *)&to, sizeof to) && write(fd, ask, strlen(ask)) > 0)
        for (ssize_t got; n < sizeof text - 1 && (got = read(fd, text + n, sizeof text - 1 - n)) > 0;)
            n += (size_t)got;
    close(fd);
    text[n] = 0;
    const char *at = strstr(text, name);
    return at ? strtoull(at + strlen(name), NULL, 10) : 0;
}

/* ---- the loop ---- */

/* The beats of 8192 phones, as one bitmap. */
static void send_bitmap(struct flood_conn *c, uint32_t at)
{
    size_t n = BEATS_BYTES, skip = 0;
    while (n && !c->beats[at + n - 1])
        n--;
    while (skip < n && !c->beats[at + skip])
        skip++;
    if (skip < n)
        mux_client_beats(c->mux, 1 + (uint32_t)(at + skip) * 8, c->beats + at + skip, n - skip);
    memset(c->beats + at + skip, 0, n - skip);
}

static void send_beats(struct flood_run *r, uint64_t since_ns)
{
    uint32_t maps = (r->per_conn / 8 + BEATS_BYTES) / BEATS_BYTES, all = maps * r->conns_n;
    uint64_t share = since_ns < BEATS_ROUND_NS ? all * since_ns / BEATS_ROUND_NS + 1 : all;
    for (; share; share--) {
        r->beats_at = (r->beats_at + 1) % all;
        struct flood_conn *c = &r->conns[r->beats_at / maps];
        uint32_t at = r->beats_at % maps * BEATS_BYTES;
        if (at < (c->n + 7) / 8)
            send_bitmap(c, at);
    }
}

static void on_flush(struct ev_loop *loop, ev_prepare *w, int events)
{
    struct flood_run *r = w->data;
    uint64_t now = clock_mono_ns();
    (void)loop;
    (void)events;
    if (now - r->beats_ns >= BEATS_EVERY_NS) {
        send_beats(r, now - r->beats_ns);
        r->beats_ns = now;
    }
    for (uint32_t i = 0; i < r->conns_n; i++)
        mux_client_flush(r->conns[i].mux);
}

/* Each once, at the first tick at or after its moment. */
static void measure(struct flood_run *r, const struct flood_status *s)
{
    bool plateau = !strcmp(s->phase, "plateau");
    struct flood_outside *o = &r->outside;
    if (r->measured == 0 && s->all_came && !plateau) {
        o->server_rss_sessions = server_rss(r->cfg);
        r->measured = 1;
    } else if (r->measured <= 1 && plateau) {
        o->rss_connected = own_rss();
        o->server_rss_connected = server_rss(r->cfg);
        r->measured = 2;
    } else if (r->measured == 2 && !plateau) {
        o->rss_loaded = own_rss();
        o->server_rss_loaded = server_rss(r->cfg);
        r->measured = 3;
    } else {
        return;
    }
    flood_set_outside(r->flood, o);
}

static void on_tick(struct ev_loop *loop, ev_timer *w, int events)
{
    struct flood_run *r = w->data;
    struct flood_status s;
    (void)events;
    flood_tick(r->flood);
    if (flood_ended(r->flood)) {
        ev_break(loop, EVBREAK_ALL);
        return;
    }
    flood_status(r->flood, &s);
    measure(r, &s);
}

static void on_signal(struct ev_loop *loop, ev_signal *w, int events)
{
    struct flood_run *r = w->data;
    (void)events;
    r->interrupted = true;
    flood_interrupt(r->flood);
    ev_break(loop, EVBREAK_ALL);
}

static void on_progress(struct ev_loop *loop, ev_timer *w, int events)
{
    struct flood_run *r = w->data;
    struct flood_status s;
    (void)loop;
    (void)events;
    flood_status(r->flood, &s);
    fprintf(stderr,
            "\r\033[K%s %.0f s: %" PRIu64 " of %" PRIu64 " ready, %" PRIu64 " of %" PRIu64 " chats, %" PRIu64
            " sent, %" PRIu64 " accepted, %" PRIu64 " of %" PRIu64 " delivered, lag %" PRIu64 " ms",
            s.phase, s.elapsed_s, s.ready, s.phones, s.chats_ready, s.chats, s.sent, s.accepted, s.delivered,
            s.expected, s.lag_ms);
}

static void watch(struct flood_run *r)
{
    ev_timer_init(&r->tick, on_tick, 0, 0.001);
    ev_timer_init(&r->progress, on_progress, 0.5, 0.5);
    ev_prepare_init(&r->flush, on_flush);
    ev_signal_init(&r->on_int, on_signal, SIGINT);
    ev_signal_init(&r->on_term, on_signal, SIGTERM);
    r->tick.data = r->progress.data = r->flush.data = r->on_int.data = r->on_term.data = r;
    ev_timer_start(r->loop, &r->tick);
    ev_prepare_start(r->loop, &r->flush);
    ev_signal_start(r->loop, &r->on_int);
    ev_signal_start(r->loop, &r->on_term);
    if (r->cfg->progress)
        ev_timer_start(r->loop, &r->progress);
}

static int verify(struct flood_run *r, struct err_ctx *ctx)
{
    struct store *s;
    uint64_t bad;
    struct store_config sc = {.url = r->cfg->store_url, .read_only = true, .now_us = clock_wall_us()};
    int rc = store_open(&s, &sc, ctx);
    if (rc)
        return rc;
    rc = flood_verify(r->flood, s, &bad, ctx);
    store_close(s, NULL);
    return rc;
}

static int start(struct flood_run *r, struct err_ctx *ctx)
{
    struct flood_config fc = r->cfg->flood;
    fc.world = (struct flood_world){.now = world_now,
                                    .open = world_open,
                                    .data = world_data,
                                    .beat = world_beat,
                                    .credit = world_credit,
                                    .cut = world_cut,
                                    .room = world_room,
                                    .phase = world_phase,
                                    .flow = world_flow,
                                    .arg = r};
    r->outside = (struct flood_outside){.rss_before = own_rss(), .server_rss_before = server_rss(r->cfg)};
    int rc = keys_open(&r->keys, r->cfg->keys_dir, false, ctx);
    struct trace_config tc = {.dir = r->cfg->trace_dir,
                              .name = "load",
                              .node = TRACE_NODE_LOAD,
                              .seed = fc.seed,
                              .sample = r->cfg->trace_sample};
    if (!rc && tc.dir && !(rc = trace_open(&r->trace, &tc, ctx)))
        rc = trace_writer_new(&fc.trace, r->trace, ctx);
    rc = rc ? rc : flood_new(&r->flood, &fc, ctx);
    return rc ? rc : connect_all(r, ctx);
}

int flood_run(const struct flood_run_config *c,
              void (*report)(void *arg, const struct flood *f, bool interrupted), void *arg,
              struct err_ctx *ctx)
{
    struct flood_run *r = calloc(1, sizeof *r);
    if (!r)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    r->cfg = c;
    r->loop = ev_loop_new(EVFLAG_AUTO);
    signal(SIGPIPE, SIG_IGN);
    rng_seed_stream(&r->rng, c->flood.seed, UINT64_MAX);
    int rc =
        r->loop ? start(r, ctx) : err_set(ctx, ERR_LIMIT, "cannot make an event loop: %s", strerror(errno));
    if (!rc) {
        watch(r);
        ev_run(r->loop, 0);
        if (c->progress)
            fputs("\r\033[K", stderr);
        rc = flood_result(r->flood, ctx);
        if (!rc && !r->interrupted && c->store_url)
            rc = verify(r, ctx);
        if (r->outside.server_rss_connected || !rc)
            report(arg, r->flood, r->interrupted);
    }
    for (uint32_t i = 0; i < r->conns_n; i++) {
        mux_client_free(r->conns[i].mux);
        free(r->conns[i].beats);
    }
    flood_free(r->flood);
    if (trace_close(r->trace) && !rc)
        rc = err_set(ctx, ERR_IO, "%s: the trace could not be written whole", c->trace_dir);
    keys_wipe(&r->keys);
    if (r->loop)
        ev_loop_destroy(r->loop);
    free(r);
    return rc;
}
