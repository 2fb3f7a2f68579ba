/* The Redis through which servers share presence and nodes are joined, when the scenario has one: a real
 * redis-server, and a forwarder in each server's way to it. Killed, it has forgotten everything; stopped, it
 * answers nothing; cut off means that forwarders are stopped: connections stay open, nothing arrives, nobody
 * is told. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "run/chaos_impl.h"
#include "util/clock.h"

#define READY_NS  (5 * NS_PER_S)
#define STOP_NS   (3 * NS_PER_S)
#define LOOPBACK  0x7F000001u
#define REDIS     6379
#define FORWARDER 6380

static int spawn(struct chaos *c, char *const argv[], pid_t *pid, struct err_ctx *ctx)
{
    char log[600];
    chaos_path(c, log, sizeof log, "redis.log");
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0)
        return err_errno(ctx, "%s", log);
    int rc = c->tun ? tun_world_spawn(c->tun, false, argv, fd, fd, false, pid, ctx)
                    : child_spawn(argv, fd, fd, pid, ctx);
    close(fd);
    if (rc)
        *pid = 0;
    return rc;
}

static bool listens(pid_t of, uint16_t port)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(LOOPBACK)};
    struct err_ctx ignored = {0};
    int fd = child_socket(of, &ignored), failed = 0;
    socklen_t n = sizeof failed;
    struct pollfd p = {fd, POLLOUT, 0};
    bool yes = fd >= 0 && (!connect(fd, (struct sockaddr *)&a, sizeof a) ||
                           (errno == EINPROGRESS && poll(&p, 1, 200) == 1 &&
                            !getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &n) && !failed));
    if (fd >= 0)
        close(fd);
    return yes;
}

static int wait_listening(struct chaos *c, pid_t *pid, uint16_t port, const char *name, struct err_ctx *ctx)
{
    int status;
    for (uint64_t end = clock_mono_ns() + READY_NS; clock_mono_ns() < end; usleep(5000)) {
        if (listens(c->tun ? *pid : 0, port))
            return 0;
        if (!child_ended(*pid, &status))
            continue;
        *pid = 0;
        return err_set(ctx, ERR_UNAVAILABLE, "%s ended while starting (%s/redis.log)", name, c->dir);
    }
    return err_set(ctx, ERR_TIMEOUT, "%s did not listen within 5 s (%s/redis.log)", name, c->dir);
}

static int start_redis(struct chaos *c, struct err_ctx *ctx)
{
    char port[8];
    char *argv[] = {"/usr/bin/env", "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "",
                    "--appendonly", "no",           NULL};
    snprintf(port, sizeof port, "%u", c->redis.port);
    return spawn(c, argv, &c->redis.pid, ctx);
}

static void control_path(char *out, size_t size, uint32_t node)
{
    snprintf(out, size, "/tmp/chat-chaos-%d.redis-%u", (int)getpid(), node);
}

static int start_forwarder(struct chaos *c, uint32_t node, struct err_ctx *ctx)
{
    struct chaos_way *way = &c->redis.way[node];
    char program[600], listen[40], to[40], control[64];
    char *argv[] = {program, "proxy", "--listen", listen, "--to", to, "--control", control, NULL};
    int rc = child_program(program, sizeof program, c->config->programs, "chat-netem", ctx);
    if (rc)
        return rc;
    control_path(control, sizeof control, node);
    unlink(control);
    way->port = (uint16_t)(FORWARDER + node);
    rc = c->linked ? 0 : chaos_free_port(&way->port, ctx);
    chaos_address(listen, sizeof listen, LOOPBACK, way->port);
    chaos_address(to, sizeof to, LOOPBACK, c->redis.port);
    rc = rc ? rc : spawn(c, argv, &way->pid, ctx);
    return rc ? rc : wait_listening(c, &way->pid, way->port, "chat-netem proxy", ctx);
}

int chaos_redis_start(struct chaos *c, struct err_ctx *ctx)
{
    struct chaos_redis *r = &c->redis;
    if (!c->s.server_redis)
        return 0;
    r->port = REDIS;
    int rc = c->linked ? 0 : chaos_free_port(&r->port, ctx);
    rc = rc ? rc : start_redis(c, ctx);
    rc = rc ? rc : wait_listening(c, &r->pid, r->port, "redis-server (is it installed?)", ctx);
    for (uint32_t i = 0; i < c->s.server_nodes && !rc; i++)
        rc = start_forwarder(c, i, ctx);
    return rc;
}

void chaos_redis_url(const struct chaos *c, uint32_t node, char *out, size_t size)
{
    snprintf(out, size, "redis://127.0.0.1:%u/run", c->redis.way[node].port);
}

static void cut(struct chaos *c, uint32_t node, uint64_t until)
{
    kill(c->redis.way[node].pid, SIGSTOP);
    c->redis.way[node].joined_at = until;
}

int chaos_redis_fault(struct chaos *c, const struct scenario_fault *f, struct err_ctx *ctx)
{
    struct chaos_redis *r = &c->redis;
    uint64_t until = clock_mono_ns() + f->duration;
    int status;
    (void)ctx;
    if (!strcmp(f->set, "cut")) {
        for (uint32_t i = 0; i < c->s.server_nodes; i++)
            if (!f->node || i == f->node - 1)
                cut(c, i, until);
    } else if (!strcmp(f->set, "stop")) {
        if (r->pid)
            kill(r->pid, SIGSTOP);
        r->continue_at = until;
    } else {
        if (r->pid)
            kill(r->pid, SIGKILL);
        while (r->pid && !child_ended(r->pid, &status))
            usleep(1000);
        r->pid = 0;
        r->continue_at = 0;
        r->restart_at = until;
    }
    return 0;
}

static bool tend_way(struct chaos_way *way, uint64_t now)
{
    int status;
    if (way->pid && child_ended(way->pid, &status))
        return false;
    if (way->joined_at && now >= way->joined_at) {
        kill(way->pid, SIGCONT);
        way->joined_at = 0;
    }
    return true;
}

int chaos_redis_tend(struct chaos *c, uint64_t now, struct err_ctx *ctx)
{
    struct chaos_redis *r = &c->redis;
    int status;
    if (!c->s.server_redis)
        return 0;
    bool there = !r->pid || !child_ended(r->pid, &status);
    for (uint32_t i = 0; i < c->s.server_nodes; i++)
        there &= tend_way(&r->way[i], now);
    if (!there)
        return err_set(ctx, ERR_UNAVAILABLE,
                       "redis-server or a forwarder ended in the middle of the run (%s)", c->dir);
    if (r->continue_at && now >= r->continue_at) {
        kill(r->pid, SIGCONT);
        r->continue_at = 0;
    }
    if (r->restart_at && now >= r->restart_at) {
        r->restart_at = 0;
        return start_redis(c, ctx);
    }
    return 0;
}

void chaos_redis_heal(struct chaos *c, uint64_t now)
{
    struct chaos_redis *r = &c->redis;
    for (uint32_t i = 0; i < c->s.server_nodes; i++)
        r->way[i].joined_at = r->way[i].joined_at ? now : 0;
    r->continue_at = r->continue_at ? now : 0;
    r->restart_at = r->restart_at ? now : 0;
}

static void stop(pid_t *pid)
{
    int status;
    if (!*pid)
        return;
    kill(*pid, SIGCONT);
    child_stop(*pid, STOP_NS, &status, NULL);
    *pid = 0;
}

void chaos_redis_stop(struct chaos *c)
{
    char control[64];
    for (uint32_t i = 0; i < c->s.server_nodes && c->s.server_redis; i++) {
        stop(&c->redis.way[i].pid);
        control_path(control, sizeof control, i);
        unlink(control);
    }
    stop(&c->redis.pid);
}
