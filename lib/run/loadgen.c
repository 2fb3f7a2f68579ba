#include "run/loadgen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ev.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netem/control.h"
#include "transport/ws_client.h"
#include "util/units.h"

#define SPARE_FILES 64 /* journal, trace, loop, standard streams */

struct loadgen {
    const struct loadgen_config *cfg;
    struct ev_loop *loop;
    struct load *load;
    struct keys keys;
    struct rng rng;
    ev_timer tick, progress;
    ev_prepare before;
    ev_signal on_int, on_term;
    bool interrupted;
    uint64_t phones, connects;
};

struct load_socket {
    struct loadgen *g;
    struct load_phone *phone;
    struct ws_client *ws;
};

/* ---- what the phones ask of the world ---- */

static struct now world_now(void *arg)
{
    (void)arg;
    return clock_now();
}

static int world_token(void *arg, uint64_t user, uint32_t device, struct buf *out)
{
    struct loadgen *g = arg;
    uint64_t now = clock_wall_us() / 1000000;
    struct token t = {.user = user, .device = device, .issued_s = now, .expires_s = now + 86400};
    return token_mint(&g->keys, &t, out);
}

static void on_open(void *arg)
{
    load_opened(((struct load_socket *)arg)->phone);
}

static void on_frame(void *arg, const char *p, size_t n)
{
    load_frame(((struct load_socket *)arg)->phone, p, n);
}

static void on_close(void *arg, int code, enum reason reason, int sys_errno)
{
    struct load_socket *s = arg;
    struct load_phone *phone = s->phone;
    (void)sys_errno;
    load_closed(phone, code, reason);
    free(s); /* the phone has let go of it */
}

static const struct loadgen_server *next_server(struct loadgen *g)
{
    uint64_t turn = g->connects++, n = g->cfg->servers_n;
    return &g->cfg->servers[n == 1 ? 0 : turn < g->phones ? turn % n : rng_below(&g->rng, n)];
}

static int world_connect(void *arg, uint32_t source, struct load_phone *p, struct load_socket **out,
                         struct err_ctx *ctx)
{
    static const struct ws_client_ops ops = {on_open, on_frame, on_close};
    struct loadgen *g = arg;
    struct load_socket *s = malloc(sizeof *s);
    if (!s)
        return err_set(ctx, ERR_NOMEM, "no memory for a socket");
    *s = (struct load_socket){.g = g, .phone = p};
    const struct loadgen_server *to = next_server(g);
    struct ws_client_config c = {.loop = g->loop,
                                 .server_ip = to->ip,
                                 .server_port = to->port,
                                 .source_ip = source,
                                 .path = g->cfg->path,
                                 .subprotocol = "chat.v1",
                                 .connect_timeout_ns = 10 * NS_PER_S,
                                 .queue_bytes_max = 1u << 20,
                                 .frame_max = 4u << 20,
                                 .rng = &g->rng,
                                 .ops = &ops,
                                 .arg = s};
    int rc = ws_client_new(&s->ws, &c, ctx);
    if (rc) {
        free(s);
        return rc;
    }
    *out = s;
    return 0;
}

static int world_send(struct load_socket *s, const char *p, size_t n, uint64_t *end_offset)
{
    return ws_client_send(s->ws, p, n, end_offset);
}

static void world_free(struct load_socket *s)
{
    ws_client_free(s->ws);
    free(s);
}

static int world_vanish(struct load_socket *s)
{
    int rc = ws_client_vanish(s->ws);
    free(s);
    return rc;
}

static int world_cut(struct load_socket *s, const char *p, size_t n, size_t bytes, uint64_t *end_offset)
{
    int rc = ws_client_cut_mid_frame(s->ws, p, n, bytes, end_offset);
    free(s);
    return rc;
}

static void world_freeze(struct load_socket *s, bool frozen)
{
    ws_client_freeze(s->ws, frozen);
}

static uint64_t world_written(const struct load_socket *s)
{
    return ws_client_written(s->ws);
}

static uint64_t world_read(const struct load_socket *s)
{
    return ws_client_read(s->ws);
}

static uint64_t world_acked(const struct load_socket *s)
{
    return ws_client_acked(s->ws);
}

static void world_flow(const struct load_socket *s, struct trace_flow *out)
{
    ws_client_flow(s->ws, out);
}

static void world_radio(void *arg, uint32_t address, int op)
{
    struct netem_control order = {.magic = "nctl", .op = (uint8_t)op};
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(NETEM_CONTROL_PORT),
                             .sin_addr.s_addr = htonl(NETEM_CONTROL_ADDR)};
    (void)arg;
    int fd = address ? socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0) : -1;
    if (fd < 0)
        return;
    /* outside of a link nobody listens there: the kernel says unreachable, and that is fine */
    if (!bind(fd, (struct sockaddr *)&from, sizeof from))
        sendto(fd, &order, sizeof order, MSG_DONTWAIT, (struct sockaddr *)&to, sizeof to);
    close(fd);
}

static void world_phase(void *arg, const char *name)
{
    struct loadgen *g = arg;
    fprintf(stderr, "%s@phase %s\n", g->cfg->progress ? "\r\033[K" : "", name);
    fflush(stderr);
}

/* ---- the loop ---- */

static void on_tick(struct ev_loop *loop, ev_timer *w, int events)
{
    struct loadgen *g = w->data;
    (void)loop;
    (void)events;
    load_tick(g->load);
}

/* Before the loop sleeps: until when? */
static void before_sleep(struct ev_loop *loop, ev_prepare *w, int events)
{
    struct loadgen *g = w->data;
    (void)events;
    if (load_ended(g->load)) {
        ev_break(loop, EVBREAK_ALL);
        return;
    }
    uint64_t next = load_next(g->load), now = clock_mono_ns();
    ev_timer_stop(loop, &g->tick);
    if (!next)
        return;
    ev_now_update(loop);
    ev_timer_set(&g->tick, next > now ? (double)(next - now) / 1e9 : 0.0, 0.0);
    ev_timer_start(loop, &g->tick);
}

static void on_signal(struct ev_loop *loop, ev_signal *w, int events)
{
    struct loadgen *g = w->data;
    (void)events;
    if (g->interrupted)
        ev_break(loop, EVBREAK_ALL);
    g->interrupted = true;
    load_interrupt(g->load);
}

static void on_progress(struct ev_loop *loop, ev_timer *w, int events)
{
    struct loadgen *g = w->data;
    struct load_status s;
    (void)loop;
    (void)events;
    load_status(g->load, &s);
    fprintf(stderr,
            "\r\033[K%s %.0f s: %" PRIu64 " of %" PRIu64 " phones connected, %" PRIu64 " sent, %" PRIu64
            " of %" PRIu64 " delivered, %" PRIu64 " in outboxes",
            s.phase, (double)s.elapsed_ns / 1e9, s.connected, s.phones, s.sent, s.delivered, s.expected,
            s.outboxes);
}

static void watch(struct loadgen *g)
{
    ev_timer_init(&g->tick, on_tick, 0, 0);
    ev_timer_init(&g->progress, on_progress, 0.5, 0.5);
    ev_prepare_init(&g->before, before_sleep);
    ev_signal_init(&g->on_int, on_signal, SIGINT);
    ev_signal_init(&g->on_term, on_signal, SIGTERM);
    g->tick.data = g->progress.data = g->before.data = g->on_int.data = g->on_term.data = g;
    ev_prepare_start(g->loop, &g->before);
    ev_signal_start(g->loop, &g->on_int);
    ev_signal_start(g->loop, &g->on_term);
    if (g->cfg->progress)
        ev_timer_start(g->loop, &g->progress);
}

/* "IP:PORT", up to a comma, a slash or the end, which is returned; NULL: it is none. */
static const char *take_server(struct loadgen_server *out, const char *text)
{
    char host[64] = "";
    unsigned port = 0;
    int n = 0;
    struct in_addr a;
    if (sscanf(text, "%63[^:/,]:%5u%n", host, &port, &n) != 2 || !port || port > 65535 ||
        !strchr(",/", text[n]) || inet_pton(AF_INET, strcmp(host, "localhost") ? host : "127.0.0.1", &a) != 1)
        return NULL;
    *out = (struct loadgen_server){ntohl(a.s_addr), (uint16_t)port};
    return text + n;
}

int loadgen_parse_url(struct loadgen_config *c, const char *url, struct err_ctx *ctx)
{
    const char *at = strncmp(url, "ws://", 5) ? NULL : url + 5;
    bool good = at != NULL;
    c->servers_n = 0;
    do {
        good =
            good && c->servers_n < LOADGEN_SERVERS_MAX && (at = take_server(&c->servers[c->servers_n++], at));
    } while (good && *at++ == ',');
    if (!good)
        return err_set(ctx, ERR_USAGE,
                       "--url '%s': ws://IP:PORT/ is wanted, or ws://IP:PORT,IP:PORT/ for at most %d nodes",
                       url, LOADGEN_SERVERS_MAX);
    c->path = at[-1] == '/' ? at - 1 : "/";
    return 0;
}

int loadgen_raise_files(uint64_t sockets, struct err_ctx *ctx)
{
    struct rlimit l;
    if (getrlimit(RLIMIT_NOFILE, &l))
        return err_errno(ctx, "getrlimit");
    l.rlim_cur = l.rlim_max;
    setrlimit(RLIMIT_NOFILE, &l);
    if (sockets + SPARE_FILES > l.rlim_cur)
        return err_set(ctx, ERR_UNAVAILABLE,
                       "%" PRIu64
                       " sockets need as many open files; the hard limit of a process here is %" PRIu64
                       " (RLIMIT_NOFILE)",
                       sockets, (uint64_t)l.rlim_cur);
    return 0;
}

static int start(struct loadgen *g, struct trace **trace, struct err_ctx *ctx)
{
    const struct loadgen_config *c = g->cfg;
    struct load_config lc = c->load;
    struct trace_config tc = {.dir = c->trace_dir,
                              .name = "load",
                              .node = TRACE_NODE_LOAD,
                              .seed = c->load.seed,
                              .ring_events = 1u << 18};
    int rc = keys_open(&g->keys, c->keys_dir, false, ctx);
    if (!rc && c->trace_dir && !(rc = trace_open(trace, &tc, ctx)))
        rc = trace_writer_new(&lc.trace, *trace, ctx);
    lc.world = (struct load_world){.now = world_now,
                                   .token = world_token,
                                   .connect = world_connect,
                                   .send = world_send,
                                   .free = world_free,
                                   .vanish = world_vanish,
                                   .cut = world_cut,
                                   .freeze = world_freeze,
                                   .written = world_written,
                                   .read = world_read,
                                   .acked = world_acked,
                                   .flow = world_flow,
                                   .radio = world_radio,
                                   .phase = world_phase,
                                   .arg = g};
    return rc ? rc : load_new(&g->load, &lc, ctx);
}

int loadgen_run(const struct loadgen_config *c,
                void (*report)(void *arg, const struct load *l, bool interrupted), void *arg,
                struct err_ctx *ctx)
{
    struct loadgen g = {.cfg = c, .loop = ev_loop_new(EVFLAG_AUTO)};
    struct trace *trace = NULL;
    if (!g.loop)
        return err_set(ctx, ERR_LIMIT, "cannot make an event loop: %s", strerror(errno));
    signal(SIGPIPE, SIG_IGN);
    rng_seed_stream(&g.rng, c->load.seed, UINT64_MAX); /* masks and keys: apart from all phones */
    for (uint32_t i = 0; i < c->load.populations_n; i++)
        g.phones += c->load.populations[i].clients;
    int rc = start(&g, &trace, ctx);
    if (!rc) {
        watch(&g);
        load_start(g.load);
        ev_run(g.loop, 0);
        if (c->progress)
            fputs("\r\033[K", stderr);
        rc = load_result(g.load, ctx);
        report(arg, g.load, g.interrupted);
    }
    load_free(g.load);
    keys_wipe(&g.keys);
    if (trace_close(trace) && !rc)
        rc = err_set(ctx, ERR_IO, "%s: the trace could not be written whole", c->trace_dir);
    ev_loop_destroy(g.loop);
    return rc;
}
