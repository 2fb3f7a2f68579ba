/* The load generator: started beside the phones' end of the links, listened to, and its summary read. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "run/chaos_impl.h"
#include "util/clock.h"

#define EXIT_INCONCLUSIVE 2

/* ws://ADDR:PORT/, of several nodes ws://ADDR:PORT,ADDR:PORT/ */
static void server_url(const struct chaos *c, char *out, size_t size)
{
    char at[32];
    chaos_address(at, sizeof at, c->addr, c->port);
    size_t n = (size_t)snprintf(out, size, "ws://%s", at);
    for (uint32_t i = 1; i < c->s.server_nodes; i++) {
        chaos_address(at, sizeof at, c->addr, c->server[i].port);
        n += (size_t)snprintf(out + n, size - n, ",%s", at);
    }
    snprintf(out + n, size - n, "/");
}

int chaos_load_start(struct chaos *c, struct err_ctx *ctx)
{
    char program[600], url[32 * SCENARIO_NODES_MAX], keys[600], trace[600], journal[600], json[600], log[600],
        seed[32], store[640], sample[16];
    int rc = child_program(program, sizeof program, c->config->programs, "chat-loadgen", ctx), err_pipe[2];
    if (rc)
        return rc;
    server_url(c, url, sizeof url);
    snprintf(seed, sizeof seed, "%" PRIu64, c->s.seed);
    chaos_path(c, keys, sizeof keys, "keys");
    chaos_path(c, trace, sizeof trace, "trace");
    chaos_path(c, journal, sizeof journal, "journal");
    chaos_path(c, json, sizeof json, "load.json");
    chaos_path(c, log, sizeof log, "load.log");
    char *argv[24] = {program,  "run", c->s.path, "--seed", seed,        "--url", url,
                      "--keys", keys,  "--trace", trace,    "--journal", journal, "--json"};
    int n = 14;
    if (c->flood) { /* instead of the journal the store that its sums are compared with; a sample is traced */
        uint32_t one_in = c->s.load[0].flood.trace_sample;
        snprintf(store, sizeof store, "rocksdb:%.500s/data/store", c->dir);
        snprintf(sample, sizeof sample, "%u", one_in);
        argv[11] = "--store";
        argv[12] = store;
        n = 13;
        if (one_in) {
            argv[n++] = "--trace-sample";
            argv[n++] = sample;
        } else {
            argv[9] = "--store";
            argv[10] = store;
            n = 11;
        }
        argv[n++] = "--json";
        argv[n] = NULL;
    }
    if (*c->s.variant) {
        argv[n++] = "--variant";
        argv[n++] = c->s.variant;
    }
    c->load_log = fopen(log, "we");
    if (!c->load_log)
        return err_errno(ctx, "%s", log);
    setvbuf(c->load_log, NULL, _IOLBF, 0); /* for who looks on */
    int out = open(json, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (out < 0)
        return err_errno(ctx, "%s", json);
    if (pipe2(err_pipe, O_CLOEXEC)) {
        rc = err_errno(ctx, "pipe");
        close(out);
        return rc;
    }
    if (c->tun)
        rc = tun_world_spawn(c->tun, true, argv, out, err_pipe[1], false, &c->load, ctx);
    else
        rc = child_spawn(argv, out, err_pipe[1], &c->load, ctx);
    close(out);
    close(err_pipe[1]);
    if (rc) {
        c->load = 0;
        close(err_pipe[0]);
        return rc;
    }
    fcntl(err_pipe[0], F_SETFL, O_NONBLOCK);
    c->load_err = err_pipe[0];
    return 0;
}

/* "@phase load" and the like are for us, the rest is talk. */
static void hear(struct chaos *c, const char *line)
{
    static const struct {
        const char *text;
        enum world_phase phase;
    } phases[] = {{"@phase load", PHASE_LOAD}, {"@phase drain", PHASE_DRAIN}, {"@phase end", PHASE_END}};
    for (size_t i = 0; i < sizeof phases / sizeof *phases; i++) {
        if (strcmp(line, phases[i].text) == 0)
            c->phase = phases[i].phase;
    }
    if (line[0] != '@' && line[0])
        snprintf(c->last_line, sizeof c->last_line, "%s", line);
    fprintf(c->load_log, "%8.3f %s\n", (double)(clock_mono_ns() - c->began) / 1e9, line);
}

static void take(struct chaos *c, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] != '\n') {
            if (c->line_n < sizeof c->line - 1)
                c->line[c->line_n++] = p[i];
            continue;
        }
        c->line[c->line_n] = 0;
        c->line_n = 0;
        hear(c, c->line);
    }
}

static void listen_once(struct chaos *c, uint64_t ns)
{
    struct pollfd p = {.fd = c->load_err, .events = POLLIN};
    char data[4096];
    if (poll(&p, 1, (int)(ns / NS_PER_MS)) <= 0)
        return;
    ssize_t n = read(c->load_err, data, sizeof data);
    if (n > 0) {
        take(c, data, (size_t)n);
    } else if (n == 0) {
        close(c->load_err);
        c->load_err = -1;
    }
}

/* Its end is what it says at last: an error, unless it had announced the end of its work. */
static int judge_end(struct chaos *c, struct err_ctx *ctx)
{
    char text[64];
    int status = c->load_status;
    c->load_ended = true;
    c->load = 0;
    while (c->load_err >= 0)
        listen_once(c, 100 * NS_PER_MS);
    if (WIFEXITED(status) &&
        (WEXITSTATUS(status) == 0 || (c->phase == PHASE_END && WEXITSTATUS(status) <= EXIT_INCONCLUSIVE)))
        return 0;
    child_status_text(text, sizeof text, status);
    int rc = WIFEXITED(status) && WEXITSTATUS(status) == 77 ? ERR_PERM : ERR_UNAVAILABLE;
    return err_set(ctx, rc, "chat-loadgen %s: %s (%s/load.log)", text, c->last_line, c->dir);
}

int chaos_load_tend(struct chaos *c, uint64_t ns, struct err_ctx *ctx)
{
    if (!c->load)
        return 0;
    if (c->load_err >= 0)
        listen_once(c, ns);
    else
        usleep((unsigned)(ns / 1000));
    return child_ended(c->load, &c->load_status) ? judge_end(c, ctx) : 0;
}

void chaos_load_stop(struct chaos *c, int signal, uint64_t ns)
{
    uint64_t end = clock_mono_ns() + ns;
    if (c->load && c->phase != PHASE_END)
        kill(c->load, signal);
    while (c->load && clock_mono_ns() < end)
        chaos_load_tend(c, 20 * NS_PER_MS, NULL);
    if (c->load) {
        kill(c->load, SIGKILL);
        child_wait(c->load, 5 * NS_PER_S, &c->load_status, NULL);
        c->load = 0;
        c->load_ended = true;
    }
    if (c->load_err >= 0)
        close(c->load_err);
    c->load_err = -1;
    if (c->load_log)
        fclose(c->load_log);
    c->load_log = NULL;
}

int chaos_load_read(struct chaos *c, struct judge_facts *facts, struct err_ctx *ctx)
{
    struct evidence e = chaos_evidence(c);
    int rc = evidence_load(&e, facts, ctx);
    c->drained = e.drained;
    if (rc && *c->config->interrupted) {
        snprintf(c->note, sizeof c->note, "interrupted before the generator could sum up");
        return 0;
    }
    if (rc)
        err_prefix(ctx, "chat-loadgen left no summary (%.200s): ", c->last_line);
    return rc;
}
