/* The chaos proxy in front of the server, when a scenario has faults that need one: phones speak to it, it
 * speaks to the server, and each such fault is a toxic that is added and taken away. The server then sees the
 * proxy's address and not the phone's, so that the link's records can't be brought together with the
 * server's: some losses behind a proxy are not_observed. */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "netem/proxy/toxic.h"
#include "run/chaos_impl.h"
#include "util/clock.h"

#define ANSWER_NS (5 * NS_PER_S)
#define STOP_NS   (3 * NS_PER_S)
#define LOOPBACK  0x7F000001u

static bool wanted(const struct chaos *c)
{
    for (uint32_t i = 0; i < c->s.faults_n; i++) {
        if (c->s.faults[i].what == FAULT_TOXIC)
            return true;
    }
    return false;
}

static int check_toxics(const struct chaos *c, struct err_ctx *ctx)
{
    struct proxy_toxic t;
    for (uint32_t i = 0; i < c->s.faults_n; i++) {
        int rc = c->s.faults[i].what == FAULT_TOXIC ? proxy_toxic_parse(&t, c->s.faults[i].set, ctx) : 0;
        if (rc) {
            err_prefix(ctx, "%s: faults.%s.set: ", c->s.path, c->s.faults[i].name);
            return rc;
        }
        if (c->s.faults[i].what == FAULT_TOXIC)
            proxy_toxic_release(&t);
    }
    return 0;
}

/* `name` for one process of the conductor: a path that a socket's address has room for. */
static void control_path(char *out, size_t size)
{
    snprintf(out, size, "/tmp/chat-chaos-%d.proxy", (int)getpid());
}

/* Run chat-netem once; what it prints goes into `out`. */
static int ask(const struct chaos *c, const char *what, char *out, size_t size, struct err_ctx *ctx)
{
    char program[600], control[64];
    char *argv[] = {program, "set", control, (char *)what, NULL};
    int ends[2], status = 0,
                 rc = child_program(program, sizeof program, c->config->programs, "chat-netem", ctx);
    pid_t pid;
    control_path(control, sizeof control);
    *out = 0;
    if (rc)
        return rc;
    if (pipe2(ends, O_CLOEXEC))
        return err_errno(ctx, "pipe");
    rc = child_spawn(argv, ends[1], ends[1], &pid, ctx);
    close(ends[1]);
    rc = rc ? rc : child_wait(pid, ANSWER_NS, &status, ctx);
    ssize_t n = rc ? 0 : read(ends[0], out, size - 1);
    out[n > 0 ? n : 0] = 0;
    out[strcspn(out, "\n")] = 0;
    close(ends[0]);
    if (!rc && status)
        rc = err_set(ctx, ERR_UNAVAILABLE, "the proxy refused '%s': %s", what, out);
    return rc;
}

static int wait_ready(struct chaos *c, const char *log, struct err_ctx *ctx)
{
    char control[64], line[200] = "";
    int status;
    control_path(control, sizeof control);
    for (uint64_t end = clock_mono_ns() + ANSWER_NS; clock_mono_ns() < end; usleep(5000)) {
        if (access(control, F_OK) == 0)
            return 0;
        if (!child_ended(c->proxy, &status))
            continue;
        FILE *f = fopen(log, "re");
        if (f && !fgets(line, sizeof line, f))
            *line = 0;
        if (f)
            fclose(f);
        c->proxy = 0;
        return err_set(ctx, ERR_UNAVAILABLE, "chat-netem proxy: %.180s", line);
    }
    return err_set(ctx, ERR_TIMEOUT, "chat-netem proxy was not ready within 5 s (%s)", log);
}

int chaos_proxy_start(struct chaos *c, struct err_ctx *ctx)
{
    char program[600], listen[40], to[40], control[64], log[600], faults[600], trace[600], seed[24];
    char *argv[] = {program,    "proxy", "--listen", listen,   "--to", to,        "--control", control,
                    "--follow", "--log", faults,     "--seed", seed,   "--trace", trace,       NULL};
    c->server_addr = c->addr;
    c->server_port = c->port;
    if (!wanted(c))
        return 0;
    int rc = check_toxics(c, ctx);
    c->server_addr = LOOPBACK;
    if (!rc && c->linked)
        c->server_port = (uint16_t)(c->port + 1);
    else if (!rc)
        rc = chaos_free_port(&c->server_port, ctx);
    rc = rc ? rc : child_program(program, sizeof program, c->config->programs, "chat-netem", ctx);
    if (rc)
        return rc;
    chaos_address(listen, sizeof listen, c->addr, c->port);
    chaos_address(to, sizeof to, c->server_addr, c->server_port);
    control_path(control, sizeof control);
    unlink(control);
    snprintf(seed, sizeof seed, "%" PRIu64, c->s.seed);
    chaos_path(c, log, sizeof log, "proxy.log");
    chaos_path(c, faults, sizeof faults, "proxy.jsonl");
    chaos_path(c, trace, sizeof trace, "trace");
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0)
        return err_errno(ctx, "%s", log);
    rc = c->tun ? tun_world_spawn(c->tun, false, argv, fd, fd, false, &c->proxy, ctx)
                : child_spawn(argv, fd, fd, &c->proxy, ctx);
    close(fd);
    return rc ? rc : wait_ready(c, log, ctx);
}

int chaos_toxic_begins(struct chaos *c, uint32_t index, struct err_ctx *ctx)
{
    char what[200], answer[200];
    snprintf(what, sizeof what, "add %s", c->s.faults[index].set);
    int rc = ask(c, what, answer, sizeof answer, ctx);
    c->toxic[index] = (uint32_t)strtoul(answer, NULL, 10);
    return rc;
}

int chaos_toxic_ends(struct chaos *c, uint32_t index, struct err_ctx *ctx)
{
    char what[40], answer[200];
    snprintf(what, sizeof what, "remove %" PRIu32, c->toxic[index]);
    return ask(c, what, answer, sizeof answer, ctx);
}

int chaos_proxy_tend(struct chaos *c, struct err_ctx *ctx)
{
    int status;
    char text[64];
    if (!c->proxy || !child_ended(c->proxy, &status))
        return 0;
    c->proxy = 0;
    child_status_text(text, sizeof text, status);
    return err_set(ctx, ERR_UNAVAILABLE, "chat-netem proxy %s in the middle of the run (%s/proxy.log)", text,
                   c->dir);
}

void chaos_proxy_stop(struct chaos *c)
{
    char control[64];
    int status;
    if (c->proxy)
        child_stop(c->proxy, STOP_NS, &status, NULL);
    c->proxy = 0;
    control_path(control, sizeof control);
    unlink(control);
}
