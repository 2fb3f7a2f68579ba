/* The server under test: started, watched, killed, started again. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "run/chaos_impl.h"
#include "util/clock.h"

#define HEALTHY_NS  (10 * NS_PER_S)
#define STOP_NS     (12 * NS_PER_S) /* its own drain takes at most 10 s */
#define STOP_ONE_NS 5000u           /* and the cursors of all sessions are saved */
#define USAGE_NS    (250 * NS_PER_MS)
#define METRICS_NS  (2 * NS_PER_S)
#define HTTP_NS     (200 * NS_PER_MS)
#define ARGS_MAX    64

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

static int spawn(struct chaos *c, struct err_ctx *ctx)
{
    char program[600], listen[40], data[600], keys[600], trace[600], log[600], extra[sizeof c->s.server_args];
    char *argv[ARGS_MAX] = {program,      "--listen",           listen,    "--data", data, "--keys", keys,
                            "--delivery", c->s.server_delivery, "--trace", trace};
    char sample[16], redis[64];
    uint32_t one_in = c->flood ? c->s.load[0].flood.trace_sample : 1;
    int n = one_in ? 11 : 9,
        rc = child_program(program, sizeof program, c->config->programs, "chatd-server", ctx);
    if (rc)
        return rc;
    chaos_address(listen, sizeof listen, c->server_addr, c->server_port);
    chaos_path(c, data, sizeof data, "data");
    chaos_path(c, keys, sizeof keys, "keys");
    chaos_path(c, trace, sizeof trace, "trace");
    chaos_path(c, log, sizeof log, "server.log");
    if (one_in > 1) {
        snprintf(sample, sizeof sample, "%u", one_in);
        argv[n++] = "--trace-sample";
        argv[n++] = sample;
    }
    if (c->s.server_redis) {
        chaos_redis_url(c, redis, sizeof redis);
        argv[n++] = "--presence-store";
        argv[n++] = redis;
    }
    memcpy(extra, c->s.server_args, sizeof extra);
    char *save = NULL;
    for (char *w = strtok_r(extra, " \t", &save); w; w = strtok_r(NULL, " \t", &save)) {
        if (n == ARGS_MAX - 1)
            return err_set(ctx, ERR_LIMIT, "%s: server.args: more than %d words", c->s.path, ARGS_MAX - 12);
        argv[n++] = w;
    }
    int fd = append_only(log, ctx);
    if (fd < 0)
        return fd;
    if (c->tun)
        rc = tun_world_spawn(c->tun, false, argv, fd, fd, false, &c->server.pid, ctx);
    else
        rc = child_spawn(argv, fd, fd, &c->server.pid, ctx);
    close(fd);
    if (rc)
        c->server.pid = 0;
    return rc;
}

/* The last line of its log says why it did not start. */
static void last_words(const struct chaos *c, char *out, size_t size)
{
    char path[600], line[CHAOS_LINE_MAX];
    chaos_path(c, path, sizeof path, "server.log");
    *out = 0;
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        if (*line)
            snprintf(out, size, "%.*s", (int)size - 1, line);
    }
    if (f)
        fclose(f);
}

static int wait_healthy(struct chaos *c, struct err_ctx *ctx)
{
    uint64_t end = clock_mono_ns() + HEALTHY_NS;
    char words[300];
    for (;;) {
        int status = 0, http = 0;
        int rc = child_http_get(c->tun ? c->server.pid : 0, c->server_addr, c->server_port, "/healthz",
                                NS_PER_S, &http, NULL, NULL);
        if (!rc && http == 200)
            return 0;
        if (child_ended(c->server.pid, &status)) {
            char text[64];
            child_status_text(text, sizeof text, status);
            last_words(c, words, sizeof words);
            c->server.pid = 0;
            return err_set(ctx, ERR_UNAVAILABLE, "chatd-server %s while starting: %s (%s/server.log)", text,
                           words, c->dir);
        }
        if (*c->config->interrupted)
            return err_set(ctx, ERR_INTERRUPTED, "interrupted");
        if (clock_mono_ns() >= end) {
            last_words(c, words, sizeof words);
            return err_set(ctx, ERR_TIMEOUT, "chatd-server was not healthy within 10 s: %s (%s/server.log)",
                           words, c->dir);
        }
        usleep(20000);
    }
}

int chaos_server_start(struct chaos *c, struct err_ctx *ctx)
{
    if (!c->port) {
        int rc = c->linked ? 0 : chaos_free_port(&c->port, ctx);
        if (c->linked)
            c->port = 8080;
        rc = rc ? rc : chaos_proxy_start(c, ctx);
        if (rc)
            return rc;
    }
    bool first = c->server.starts == 0;
    int rc = spawn(c, ctx);
    if (rc)
        return rc;
    c->server.starts++;
    c->server.killed_by_us = false;
    /* A restart's health is the phones' business: waiting here would delay the next fault. */
    return first ? wait_healthy(c, ctx) : 0;
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

static void sample_metrics(struct chaos *c)
{
    struct chaos_server *s = &c->server;
    struct buf body = BUF_INIT(1 << 20);
    int http = 0;
    if (s->pid && !s->stopped &&
        child_http_get(c->tun ? s->pid : 0, c->server_addr, c->server_port, "/metrics", HTTP_NS, &http, &body,
                       NULL) == 0 &&
        http == 200) {
        const char *text = buf_cstr(&body);
        uint64_t peak = metric(text, "chatd_sessions_peak");
        s->commits = metric(text, "chatd_commits_total");
        s->messages = metric(text, "chatd_messages_total");
        if (peak > s->sessions_max)
            s->sessions_max = peak;
    }
    buf_release(&body);
}

static void sample_usage(struct chaos *c)
{
    struct child_usage u;
    if (c->server.pid && child_usage(c->server.pid, &u)) {
        c->server.cpu_now = u.cpu_s;
        if (u.rss_bytes > c->server.rss_max)
            c->server.rss_max = u.rss_bytes;
    }
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
    s->commits = s->messages = 0;
}

void chaos_server_gone(struct chaos *c)
{
    sample_metrics(c);
    settle(&c->server);
}

int chaos_server_tend(struct chaos *c, uint64_t now, struct err_ctx *ctx)
{
    struct chaos_server *s = &c->server;
    int status = 0;
    if (s->pid && child_ended(s->pid, &status)) {
        if (!s->killed_by_us && !c->doubt[0]) {
            char text[64];
            child_status_text(text, sizeof text, status);
            snprintf(c->doubt, sizeof c->doubt, "the server %s by itself after %.1f s (server.log)", text,
                     (double)(now - c->t0) / 1e9);
        }
        settle(s);
    }
    if (s->pid && s->continue_at && now >= s->continue_at) {
        kill(s->pid, SIGCONT);
        s->stopped = false;
        s->continue_at = 0;
    }
    if (!s->pid && s->restart_at && now >= s->restart_at) {
        s->restart_at = 0;
        return chaos_server_start(c, ctx);
    }
    if (now >= s->usage_at) {
        sample_usage(c);
        s->usage_at = now + USAGE_NS;
    }
    if (now >= s->metrics_at) {
        sample_metrics(c);
        s->metrics_at = now + METRICS_NS;
    }
    return 0;
}

int chaos_server_kill(struct chaos *c, const struct scenario_fault *f, struct err_ctx *ctx)
{
    struct chaos_server *s = &c->server;
    uint64_t again = f->restart ? clock_mono_ns() + f->restart : 0;
    if (!s->pid) {
        s->restart_at = again ? again : s->restart_at;
        return 0; /* it is down already */
    }
    sample_metrics(c);
    sample_usage(c);
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

void chaos_server_stop(struct chaos *c)
{
    struct chaos_server *s = &c->server;
    int status;
    s->restart_at = 0;
    if (!s->pid)
        return;
    if (s->stopped)
        kill(s->pid, SIGCONT);
    s->stopped = false;
    sample_metrics(c);
    sample_usage(c);
    uint64_t limit_ns = STOP_NS + s->sessions_max * STOP_ONE_NS;
    if (child_stop(s->pid, limit_ns, &status, NULL) && !c->doubt[0])
        snprintf(c->doubt, sizeof c->doubt, "the server did not end within %.0f s of SIGTERM",
                 (double)limit_ns / 1e9);
    settle(s);
}
