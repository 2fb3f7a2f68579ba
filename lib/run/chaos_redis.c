/* The Redis through which the server shares presence, when the scenario has one: a real redis-server, and a
 * forwarder in the server's way to it. Killed, it has forgotten everything; stopped, it answers nothing; cut
 * off means that the forwarder is stopped: connections stay open, nothing arrives, nobody is told. */
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

static int start_forwarder(struct chaos *c, struct err_ctx *ctx)
{
    char program[600], listen[40], to[40], control[64];
    char *argv[] = {program, "proxy", "--listen", listen, "--to", to, "--control", control, NULL};
    int rc = child_program(program, sizeof program, c->config->programs, "chat-netem", ctx);
    if (rc)
        return rc;
    snprintf(control, sizeof control, "/tmp/chat-chaos-%d.redis", (int)getpid());
    unlink(control);
    chaos_address(listen, sizeof listen, LOOPBACK, c->redis.way_port);
    chaos_address(to, sizeof to, LOOPBACK, c->redis.port);
    return spawn(c, argv, &c->redis.way, ctx);
}

int chaos_redis_start(struct chaos *c, struct err_ctx *ctx)
{
    struct chaos_redis *r = &c->redis;
    if (!c->s.server_redis)
        return 0;
    r->port = REDIS;
    r->way_port = FORWARDER;
    int rc = c->linked ? 0 : chaos_free_port(&r->port, ctx);
    rc = rc || c->linked ? rc : chaos_free_port(&r->way_port, ctx);
    rc = rc ? rc : start_redis(c, ctx);
    rc = rc ? rc : wait_listening(c, &r->pid, r->port, "redis-server (is it installed?)", ctx);
    rc = rc ? rc : start_forwarder(c, ctx);
    return rc ? rc : wait_listening(c, &r->way, r->way_port, "chat-netem proxy", ctx);
}

void chaos_redis_url(const struct chaos *c, char *out, size_t size)
{
    snprintf(out, size, "redis://127.0.0.1:%u/run", c->redis.way_port);
}

int chaos_redis_fault(struct chaos *c, const struct scenario_fault *f, struct err_ctx *ctx)
{
    struct chaos_redis *r = &c->redis;
    uint64_t until = clock_mono_ns() + f->duration;
    int status;
    (void)ctx;
    if (!strcmp(f->set, "cut")) {
        kill(r->way, SIGSTOP);
        r->joined_at = until;
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

int chaos_redis_tend(struct chaos *c, uint64_t now, struct err_ctx *ctx)
{
    struct chaos_redis *r = &c->redis;
    int status;
    if (!c->s.server_redis)
        return 0;
    if ((r->pid && child_ended(r->pid, &status)) || (r->way && child_ended(r->way, &status)))
        return err_set(ctx, ERR_UNAVAILABLE,
                       "redis-server or its forwarder ended in the middle of the run (%s)", c->dir);
    if (r->joined_at && now >= r->joined_at) {
        kill(r->way, SIGCONT);
        r->joined_at = 0;
    }
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
    r->joined_at = r->joined_at ? now : 0;
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
    stop(&c->redis.way);
    stop(&c->redis.pid);
    snprintf(control, sizeof control, "/tmp/chat-chaos-%d.redis", (int)getpid());
    unlink(control);
}
