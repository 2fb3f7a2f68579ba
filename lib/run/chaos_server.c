/* The server under test, or the nodes of one: started, watched, killed, started again. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "run/chaos_impl.h"
#include "util/clock.h"
#include "util/rng.h"

#define HEALTHY_NS  (10 * NS_PER_S)
#define STOP_NS     (12 * NS_PER_S) /* its own drain takes at most 10 s */
#define STOP_ONE_NS 5000u           /* and the cursors of all sessions are saved */
#define USAGE_NS    (250 * NS_PER_MS)
#define METRICS_NS  (2 * NS_PER_S)
#define HTTP_NS     (200 * NS_PER_MS)
#define ARGS_MAX    64

#define VICTIM_STREAM 0x6e6f6465u /* which node a fault hits that names none */

int chaos_free_port(uint16_t *port, struct err_ctx *ctx)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int rc = 0;
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, n) || getsockname(fd, (struct sockaddr *)&a, &n))
        rc = err_errno(ctx, "a free port on loopback");
    *port = ntohs(a.sin_port);
    if (fd >= 0)
        close(fd);
    return rc;
}

void chaos_address(char *out, size_t size, uint32_t addr, uint16_t port)
{
    struct in_addr a = {.s_addr = htonl(addr)};
    snprintf(out, size, "%s:%u", inet_ntoa(a), port);
}

static int append_only(const char *path, struct err_ctx *ctx)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    return fd < 0 ? err_errno(ctx, "%s", path) : fd;
}

void chaos_server_path(const struct chaos *c, uint32_t node, char *out, size_t size, const char *name,
                       const char *end)
{
    if (c->s.server_nodes > 1)
        snprintf(out, size, "%s/%s-%u%s", c->dir, name, node + 1, end);
    else
        snprintf(out, size, "%s/%s%s", c->dir, name, end);
}

/* The flags that join it to what it shares with others. */
struct joining {
    char redis[64], node[8], nodes[8];
};

static int join_args(const struct chaos *c, uint32_t node, struct joining *j, char *argv[], int n)
{
    if (!c->s.server_redis)
        return n;
    chaos_redis_url(c, node, j->redis, sizeof j->redis);
    argv[n++] = c->s.server_nodes > 1 ? "--bus" : "--presence-store";
    argv[n++] = j->redis;
    if (c->s.server_nodes < 2)
        return n;
    snprintf(j->node, sizeof j->node, "%u", node);
    snprintf(j->nodes, sizeof j->nodes, "%u", c->s.server_nodes);
    argv[n++] = "--node";
    argv[n++] = j->node;
    argv[n++] = "--nodes";
    argv[n++] = j->nodes;
    return n;
}

static int spawn(struct chaos *c, uint32_t node, struct err_ctx *ctx)
{
    char program[600], listen[40], data[600], keys[600], trace[600], log[600], extra[sizeof c->s.server_args];
    char *argv[ARGS_MAX] = {program,      "--listen",           listen,    "--data", data, "--keys", keys,
                            "--delivery", c->s.server_delivery, "--trace", trace};
    char sample[16];
    struct joining joining;
    struct chaos_server *v = &c->server[node];
    uint32_t one_in = c->flood ? c->s.load[0].flood.trace_sample : 1;
    int n = one_in ? 11 : 9,
        rc = child_program(program, sizeof program, c->config->programs, "chatd-server", ctx);
    if (rc)
        return rc;
    chaos_address(listen, sizeof listen, c->server_addr, v->port);
    chaos_server_path(c, node, data, sizeof data, "data", "");
    chaos_path(c, keys, sizeof keys, "keys");
    chaos_path(c, trace, sizeof trace, "trace");
    chaos_server_path(c, node, log, sizeof log, "server", ".log");
    if (one_in > 1) {
        snprintf(sample, sizeof sample, "%u", one_in);
        argv[n++] = "--trace-sample";
        argv[n++] = sample;
    }
    n = join_args(c, node, &joining, argv, n);
    memcpy(extra, c->s.server_args, sizeof extra);
    char *save = NULL;
    for (char *w = strtok_r(extra, " \t", &save); w; w = strtok_r(NULL, " \t", &save)) {
        if (n == ARGS_MAX - 1)
            return err_set(ctx, ERR_LIMIT, "%s: server.args: more than %d words", c->s.path, ARGS_MAX - 20);
        argv[n++] = w;
    }
    int fd = append_only(log, ctx);
    if (fd < 0)
        return fd;
    if (c->tun)
        rc = tun_world_spawn(c->tun, false, argv, fd, fd, false, &v->pid, ctx);
    else
        rc = child_spawn(argv, fd, fd, &v->pid, ctx);
    close(fd);
    if (rc)
        v->pid = 0;
    return rc;
}

/* The last line of a log says why its server did not start. */
static void last_words(const char *log, char *out, size_t size)
{
    char line[CHAOS_LINE_MAX];
    *out = 0;
    FILE *f = fopen(log, "re");
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        if (*line)
            snprintf(out, size, "%.*s", (int)size - 1, line);
    }
    if (f)
        fclose(f);
}

static int wait_healthy(struct chaos *c, uint32_t node, struct err_ctx *ctx)
{
    struct chaos_server *v = &c->server[node];
    const char *page = c->s.server_nodes > 1 ? "/readyz" : "/healthz";
    uint64_t end = clock_mono_ns() + HEALTHY_NS;
    char words[300], log[600];
    chaos_server_path(c, node, log, sizeof log, "server", ".log");
    for (;;) {
        int status = 0, http = 0;
        int rc =
            child_http_get(c->tun ? v->pid : 0, c->server_addr, v->port, page, NS_PER_S, &http, NULL, NULL);
        if (!rc && http == 200)
            return 0;
        if (child_ended(v->pid, &status)) {
            char text[64];
            child_status_text(text, sizeof text, status);
            last_words(log, words, sizeof words);
            v->pid = 0;
            return err_set(ctx, ERR_UNAVAILABLE, "chatd-server %s while starting: %s (%s)", text, words, log);
        }
        if (*c->config->interrupted)
            return err_set(ctx, ERR_INTERRUPTED, "interrupted");
        if (clock_mono_ns() >= end) {
            last_words(log, words, sizeof words);
            return err_set(ctx, ERR_TIMEOUT, "chatd-server was not healthy within 10 s: %s (%s)", words, log);
        }
        usleep(20000);
    }
}

static int start_one(struct chaos *c, uint32_t node, struct err_ctx *ctx)
{
    struct chaos_server *v = &c->server[node];
    bool first = v->starts == 0;
    int rc = spawn(c, node, ctx);
    if (rc)
        return rc;
    v->starts++;
    v->killed_by_us = false;
    /* A restart's health is the phones' business: waiting here would delay the next fault. */
    return first ? wait_healthy(c, node, ctx) : 0;
}

static int choose_ports(struct chaos *c, struct err_ctx *ctx)
{
    int rc = c->linked ? 0 : chaos_free_port(&c->port, ctx);
    if (c->linked)
        c->port = 8080;
    rc = rc ? rc : chaos_proxy_start(c, ctx);
    c->server[0].port = c->server_port;
    for (uint32_t i = 1; i < c->s.server_nodes && !rc; i++) {
        c->server[i].port = (uint16_t)(c->server_port + i);
        rc = c->linked ? 0 : chaos_free_port(&c->server[i].port, ctx);
    }
    return rc;
}

static uint64_t metric(const char *text, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = text; (p = strstr(p, name)); p += n) {
        if ((p == text || p[-1] == '\n') && p[n] == ' ')
            return strtoull(p + n + 1, NULL, 10);
    }
    return 0;
}

static bool read_metrics(const struct chaos *c, const struct chaos_server *s, struct buf *body)
{
    int http = 0;
    return s->pid && !s->stopped &&
           child_http_get(c->tun ? s->pid : 0, c->server_addr, s->port, "/metrics", HTTP_NS, &http, body,
                          NULL) == 0 &&
           http == 200;
}

static void sample_metrics(const struct chaos *c, struct chaos_server *s)
{
    struct buf body = BUF_INIT(1 << 20);
    if (read_metrics(c, s, &body)) {
        const char *text = buf_cstr(&body);
        uint64_t peak = metric(text, "chatd_sessions_peak");
        s->commits = metric(text, "chatd_commits_total");
        s->messages = metric(text, "chatd_messages_total");
        if (peak > s->sessions_max)
            s->sessions_max = peak;
    }
    buf_release(&body);
}

static bool hears_all(const struct chaos *c, const struct chaos_server *s)
{
    struct buf body = BUF_INIT(1 << 20);
    bool all =
        read_metrics(c, s, &body) && metric(buf_cstr(&body), "chatd_bus_nodes_up") == c->s.server_nodes - 1;
    buf_release(&body);
    return all;
}

static int wait_joined(struct chaos *c, struct err_ctx *ctx)
{
    uint64_t end = clock_mono_ns() + HEALTHY_NS;
    for (uint32_t i = 0; i < c->s.server_nodes && c->s.server_nodes > 1;) {
        if (hears_all(c, &c->server[i])) {
            i++;
            continue;
        }
        if (*c->config->interrupted)
            return err_set(ctx, ERR_INTERRUPTED, "interrupted");
        if (clock_mono_ns() >= end)
            return err_set(ctx, ERR_TIMEOUT, "server-%u did not hear all %u others within 10 s (%s)", i + 1,
                           c->s.server_nodes - 1, c->dir);
        usleep(20000);
    }
    return 0;
}

int chaos_server_start(struct chaos *c, struct err_ctx *ctx)
{
    int rc = choose_ports(c, ctx);
    for (uint32_t i = 0; i < c->s.server_nodes && !rc; i++)
        rc = start_one(c, i, ctx);
    return rc ? rc : wait_joined(c, ctx);
}

static void sample_usage(struct chaos_server *s)
{
    struct child_usage u;
    if (s->pid && child_usage(s->pid, &u)) {
        s->cpu_now = u.cpu_s;
        s->rss = u.rss_bytes;
    }
}

static void sample_usages(struct chaos *c)
{
    uint64_t rss = 0;
    for (uint32_t i = 0; i < c->s.server_nodes; i++) {
        sample_usage(&c->server[i]);
        rss += c->server[i].rss;
    }
    if (rss > c->rss_max)
        c->rss_max = rss;
}

/* This incarnation is over: what it had counted is kept. */
static void settle(struct chaos_server *s)
{
    s->pid = 0;
    s->stopped = false;
    s->continue_at = 0;
    s->cpu_before += s->cpu_now;
    s->commits_before += s->commits;
    s->messages_before += s->messages;
    s->cpu_now = 0;
    s->rss = s->commits = s->messages = 0;
}

void chaos_server_gone(struct chaos *c, struct chaos_server *s)
{
    sample_metrics(c, s);
    settle(s);
}

static void reap(struct chaos *c, uint32_t node, uint64_t now)
{
    struct chaos_server *s = &c->server[node];
    int status = 0;
    if (!s->pid || !child_ended(s->pid, &status))
        return;
    if (!s->killed_by_us && !c->doubt[0]) {
        char text[64], log[600];
        child_status_text(text, sizeof text, status);
        chaos_server_path(c, node, log, sizeof log, "server", ".log");
        snprintf(c->doubt, sizeof c->doubt, "the server %s by itself after %.1f s (%s)", text,
                 (double)(now - c->t0) / 1e9, strrchr(log, '/') + 1);
    }
    settle(s);
}

static int tend_one(struct chaos *c, uint32_t node, uint64_t now, struct err_ctx *ctx)
{
    struct chaos_server *s = &c->server[node];
    reap(c, node, now);
    if (s->pid && s->continue_at && now >= s->continue_at) {
        kill(s->pid, SIGCONT);
        s->stopped = false;
        s->continue_at = 0;
    }
    if (s->pid || !s->restart_at || now < s->restart_at)
        return 0;
    s->restart_at = 0;
    return start_one(c, node, ctx);
}

int chaos_server_tend(struct chaos *c, uint64_t now, struct err_ctx *ctx)
{
    int rc = 0;
    for (uint32_t i = 0; i < c->s.server_nodes && !rc; i++)
        rc = tend_one(c, i, now, ctx);
    if (now >= c->usage_at) {
        sample_usages(c);
        c->usage_at = now + USAGE_NS;
    }
    if (now >= c->metrics_at) {
        for (uint32_t i = 0; i < c->s.server_nodes; i++)
            sample_metrics(c, &c->server[i]);
        c->metrics_at = now + METRICS_NS;
    }
    return rc;
}

/* The node that a fault names, or one by the seed. */
static struct chaos_server *victim(struct chaos *c, uint32_t fault)
{
    const struct scenario_fault *f = &c->s.faults[fault];
    struct rng rng;
    if (f->node || c->s.server_nodes < 2)
        return &c->server[f->node ? f->node - 1 : 0];
    rng_seed_stream(&rng, c->s.seed, (uint64_t)VICTIM_STREAM << 32 | fault);
    return &c->server[rng_below(&rng, c->s.server_nodes)];
}

int chaos_server_kill(struct chaos *c, uint32_t fault, struct err_ctx *ctx)
{
    const struct scenario_fault *f = &c->s.faults[fault];
    struct chaos_server *s = victim(c, fault);
    uint64_t again = f->restart ? clock_mono_ns() + f->restart : 0;
    if (!s->pid) {
        s->restart_at = again ? again : s->restart_at;
        return 0; /* it is down already */
    }
    sample_metrics(c, s);
    sample_usages(c);
    if (kill(s->pid, f->signal))
        return err_errno(ctx, "kill of the server");
    if (f->signal == SIGSTOP) {
        s->stopped = true;
        s->continue_at = again;
    } else {
        s->killed_by_us = true;
        s->restart_at = again;
    }
    return 0;
}

void chaos_server_heal(struct chaos *c, uint64_t now)
{
    for (uint32_t i = 0; i < c->s.server_nodes; i++) {
        struct chaos_server *s = &c->server[i];
        if (s->continue_at || s->stopped)
            s->continue_at = now;
        if (s->restart_at)
            s->restart_at = now;
    }
}

uint32_t chaos_server_down(const struct chaos *c)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->s.server_nodes; i++)
        n += !c->server[i].pid;
    return n;
}

static void stop_one(struct chaos *c, struct chaos_server *s)
{
    int status;
    s->restart_at = 0;
    if (!s->pid)
        return;
    if (s->stopped)
        kill(s->pid, SIGCONT);
    s->stopped = false;
    sample_metrics(c, s);
    uint64_t limit_ns = STOP_NS + s->sessions_max * STOP_ONE_NS;
    if (child_stop(s->pid, limit_ns, &status, NULL) && !c->doubt[0])
        snprintf(c->doubt, sizeof c->doubt, "the server did not end within %.0f s of SIGTERM",
                 (double)limit_ns / 1e9);
    settle(s);
}

void chaos_server_stop(struct chaos *c)
{
    sample_usages(c);
    for (uint32_t i = 0; i < c->s.server_nodes; i++)
        stop_one(c, &c->server[i]);
}

struct report_server chaos_server_totals(const struct chaos *c)
{
    struct report_server sum = {.rss_bytes_max = c->rss_max};
    for (uint32_t i = 0; i < c->s.server_nodes; i++) {
        const struct chaos_server *s = &c->server[i];
        sum.sessions_max += s->sessions_max;
        sum.commits += s->commits_before;
        sum.messages += s->messages_before;
        sum.cpu_s += s->cpu_before;
        sum.starts += s->starts;
    }
    return sum;
}
