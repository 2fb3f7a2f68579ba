/* The proxy's life and loop. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netem/proxy/driver_impl.h"
#include "util/clock.h"

#define EVENTS      256
#define DESCRIPTORS (CONTROLS_MAX + 32) /* not for connections */
#define PROXY_NODE  (TRACE_NODE_LINK + 50)

static int check(const struct proxy_config *c, struct err_ctx *ctx)
{
    if (c->buffer_max && (c->buffer_max < PROXY_BUFFER_MIN || c->buffer_max > PROXY_BUFFER_MAX))
        return err_set(ctx, ERR_RANGE, "--buffer: from 16KiB to 256MiB");
    return 0;
}

static void count_descriptors(struct proxy *p)
{
    struct rlimit l = {0};
    if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
        l.rlim_cur = l.rlim_max;
        setrlimit(RLIMIT_NOFILE, &l);
        getrlimit(RLIMIT_NOFILE, &l);
    }
    uint64_t most = l.rlim_cur > DESCRIPTORS + 2 ? (l.rlim_cur - DESCRIPTORS) / 2 : 1;
    p->connections_max = most > 1000000 ? 1000000 : (uint32_t)most;
    if (p->config.connections_max && p->config.connections_max < p->connections_max)
        p->connections_max = p->config.connections_max;
}

static int open_trace(struct proxy *p, struct err_ctx *ctx)
{
    struct trace_config t = {.dir = p->config.trace_dir,
                             .name = "proxy",
                             .node = PROXY_NODE,
                             .seed = p->config.seed,
                             .ring_events = 4096};
    if (!t.dir)
        return 0;
    int rc = trace_open(&p->trace, &t, ctx);
    return rc ? rc : trace_writer_new(&p->tracer, p->trace, ctx);
}

static int add_toxics(struct proxy *p, struct err_ctx *ctx)
{
    int rc = 0;
    for (int i = 0; i < p->config.toxics_n && !rc; i++)
        rc = proxy_rules_add(&p->rules, p->config.toxics[i], 0, ctx);
    if (!rc && p->config.profile)
        rc = proxy_rules_add_profile(&p->rules, p->config.profile, 0, ctx);
    return rc;
}

static int open_all(struct proxy *p, struct err_ctx *ctx)
{
    int rc = add_toxics(p, ctx);
    rc = rc ? rc : dial_resolve(&p->to, p->config.to, false, ctx);
    rc = rc ? rc : dial_listen(p, ctx);
    rc = rc ? rc : open_trace(p, ctx);
    if (rc)
        return rc;
    p->piece = malloc(PIECE);
    p->epoll = epoll_create1(EPOLL_CLOEXEC);
    p->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (!p->piece || p->epoll < 0)
        return err_errno(ctx, "epoll");
    p->stop = (struct endpoint){.kind = ON_STOP, .fd = p->config.stop_fd};
    p->listener.kind = ON_LISTENER;
    if (!watch(p, &p->listener, EPOLLIN) || (p->stop.fd >= 0 && !watch(p, &p->stop, EPOLLIN)))
        return err_errno(ctx, "epoll");
    return p->config.control ? control_open(p, ctx) : 0;
}

int proxy_open(struct proxy **out, const struct proxy_config *c, struct err_ctx *ctx)
{
    struct proxy *p = calloc(1, sizeof *p);
    *out = NULL;
    if (!p)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    p->config = *c;
    p->began_ns = clock_mono_ns();
    p->epoll = p->spare = p->listener.fd = p->control.fd = p->stop.fd = -1;
    for (int i = 0; i < CONTROLS_MAX; i++)
        p->client[i].end.fd = -1;
    count_descriptors(p);
    proxy_rules_init(&p->rules, c->seed, c->buffer_max ? c->buffer_max : PROXY_BUFFER_DEFAULT);
    p->rules.follow = c->follow;
    int rc = check(c, ctx);
    rc = rc ? rc : open_all(p, ctx);
    if (rc) {
        proxy_close(p);
        return rc;
    }
    *out = p;
    return 0;
}

uint16_t proxy_port(const struct proxy *p)
{
    return p->port;
}

static void bury(struct proxy *p)
{
    while (p->dead) {
        struct conn *c = p->dead;
        p->dead = c->next;
        proxy_conn_free(c->core);
        free(c);
    }
}

void proxy_close(struct proxy *p)
{
    if (!p)
        return;
    while (p->conns)
        relay_end(p, p->conns, true);
    bury(p);
    control_close(p);
    int fds[] = {p->listener.fd, p->epoll, p->spare};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
    if (p->to)
        freeaddrinfo(p->to);
    trace_close(p->trace);
    heap_release(&p->heap);
    proxy_rules_release(&p->rules);
    free(p->piece);
    free(p);
}

void proxy_lacks(const struct proxy *p, struct buf *out)
{
    for (unsigned i = 0; i < PROXY_TOXICS_MAX; i++) {
        if (p->rules.used >> i & 1 && p->rules.toxic[i]->profile)
            netem_profile_lacks(p->rules.toxic[i]->profile, NETEM_DRIVER_PROXY, out);
    }
}

static void take_event(struct proxy *p, struct endpoint *e, uint32_t events)
{
    switch (e->kind) {
    case ON_LISTENER:
        dial_accept(p, clock_mono_ns());
        break;
    case ON_STOP:
        p->over = true;
        break;
    case ON_CONTROL:
        control_accept(p);
        break;
    case ON_CONTROL_CLIENT:
        control_event(p, e);
        break;
    case ON_CONN:
        relay_event(p, e, events);
        break;
    }
}

/* Connections that did not finish their turn; those that want another one are in the next round. */
static void turns(struct proxy *p)
{
    struct conn *c = p->turns, *next;
    p->turns = NULL;
    for (; c; c = next) {
        next = c->turn;
        c->in_turn = false;
        relay_run(p, c, clock_mono_ns());
    }
}

static void timers(struct proxy *p)
{
    uint64_t now = clock_mono_ns();
    struct conn *c;
    /* a connection that wants to be woken at once again waits for the next round */
    for (uint32_t n = p->heap.n; n && (c = heap_first(&p->heap)) && c->wake_ns <= now; n--)
        relay_run(p, c, now);
}

int proxy_run(struct proxy *p, struct err_ctx *ctx)
{
    struct epoll_event got[EVENTS];
    while (!p->over) {
        const struct conn *first = heap_first(&p->heap);
        uint64_t now = clock_mono_ns(), wait = !first                 ? UINT64_MAX
                                               : first->wake_ns > now ? first->wake_ns - now
                                                                      : 0;
        if (p->turns)
            wait = 0;
        struct timespec limit = {(time_t)(wait / NS_PER_S), (long)(wait % NS_PER_S)};
        int n = epoll_pwait2(p->epoll, got, EVENTS, wait == UINT64_MAX ? NULL : &limit, NULL);
        if (n < 0 && errno != EINTR)
            return err_errno(ctx, "epoll_pwait2");
        for (int i = 0; i < n; i++)
            take_event(p, got[i].data.ptr, got[i].events);
        turns(p);
        timers(p);
        bury(p);
    }
    return 0;
}
