/* The load generator: started beside the phones' end of the links, listened to, and its summary read. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "run/chaos_impl.h"
#include "util/clock.h"

#define EXIT_INCONCLUSIVE 2

int chaos_load_start(struct chaos *c, struct err_ctx *ctx)
{
    char program[600], url[64], keys[600], trace[600], journal[600], json[600], log[600], seed[32];
    int rc = child_program(program, sizeof program, c->config->programs, "chat-loadgen", ctx), err_pipe[2];
    if (rc)
        return rc;
    struct in_addr a = {.s_addr = htonl(c->addr)};
    snprintf(url, sizeof url, "ws://%s:%u/", inet_ntoa(a), c->port);
    snprintf(seed, sizeof seed, "%" PRIu64, c->s.seed);
    chaos_path(c, keys, sizeof keys, "keys");
    chaos_path(c, trace, sizeof trace, "trace");
    chaos_path(c, journal, sizeof journal, "journal");
    chaos_path(c, json, sizeof json, "load.json");
    chaos_path(c, log, sizeof log, "load.log");
    char *argv[24] = {program,  "run", c->s.path, "--seed", seed,        "--url", url,
                      "--keys", keys,  "--trace", trace,    "--journal", journal, "--json"};
    int n = 14;
    if (*c->s.variant) {
        argv[n++] = "--variant";
        argv[n++] = c->s.variant;
    }
    c->load_log = fopen(log, "we");
    if (!c->load_log)
        return err_errno(ctx, "%s", log);
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

static double quantile(const json_t *o, const char *key, bool *known)
{
    const json_t *v = json_object_get(o, key);
    *known = *known && json_is_number(v);
    return json_number_value(v);
}

static void read_times(const json_t *o, const char *key, struct judge_scope *scope, enum metric m,
                       struct report_times *t)
{
    const json_t *v = json_object_get(o, key);
    bool known = json_is_object(v);
    *t = (struct report_times){quantile(v, "p50", &known), quantile(v, "p95", &known),
                               quantile(v, "p99", &known), quantile(v, "max", &known)};
    scope->v[m] = (struct judge_value){known, {t->p50, t->p95, t->p99, t->max}};
}

static void read_counts(const json_t *o, struct judge_scope *scope, struct report_population *p)
{
    const struct {
        const char *key;
        enum metric m;
        uint64_t *to;
    } counts[] = {{"sent", METRIC_SENT, &p->sent},
                  {"accepted", METRIC_ACCEPTED_COUNT, &p->accepted},
                  {"expected", METRIC_EXPECTED, &p->expected},
                  {"delivered", METRIC_DELIVERED_COUNT, &p->delivered},
                  {"duplicates", METRIC_DUPLICATES, &p->duplicates},
                  {"reordered", METRIC_REORDERED, &p->reordered},
                  {"resends", METRIC_RESENDS, &p->resends},
                  {"duplicates_seen", METRIC_DUPLICATES_SEEN, &p->duplicates_seen},
                  {"gave_up", METRIC_GAVE_UP, &p->gave_up}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        const json_t *v = json_object_get(o, counts[i].key);
        if (!json_is_integer(v) || json_integer_value(v) < 0)
            continue;
        *counts[i].to = (uint64_t)json_integer_value(v);
        judge_set(scope, counts[i].m, (double)*counts[i].to);
    }
}

static void doubt(struct chaos *c, const char *name, const char *text)
{
    if (!c->doubt[0])
        snprintf(c->doubt, sizeof c->doubt, "%s%s%s", name, *name ? ": " : "", text);
}

/* "inconclusive": true, or a sentence. */
static void read_health(struct chaos *c, const json_t *o, const char *name, char *out, size_t size)
{
    const json_t *v = json_object_get(o, "inconclusive");
    const char *text = json_string_value(v);
    if ((text && *text) || json_is_true(v)) {
        snprintf(out, size, "%s", text ? text : "the generator calls its result inconclusive");
        doubt(c, name, out);
    }
}

static void read_population(struct chaos *c, const json_t *o, const struct scenario_population *from,
                            struct judge_facts *facts)
{
    struct report_population *p = &c->out->load[c->out->load_n++];
    struct judge_scope *scope = judge_scope_of(facts, SCOPE_LOAD, from->name);
    const struct scenario_link *l = scenario_find_link(&c->s, from->link);
    snprintf(p->name, sizeof p->name, "%s", from->name);
    snprintf(p->net, sizeof p->net, "%s", l ? l->net : "unknown");
    read_counts(o, scope, p);
    read_times(o, "latency_ms", scope, METRIC_DELIVERY_MS, &p->latency);
    read_times(o, "accept_ms", scope, METRIC_ACCEPT_MS, &p->accept);
    const json_t *lag = json_object_get(o, "send_lag_ms_p99");
    if (json_is_number(lag)) {
        double limit = (double)c->s.send_lag_max / 1e6;
        p->send_lag_p99_ms = json_number_value(lag);
        scope->v[METRIC_SEND_LAG_MS] = (struct judge_value){true, {0, 0, p->send_lag_p99_ms, 0}};
        if (p->send_lag_p99_ms > limit) {
            snprintf(p->doubt, sizeof p->doubt,
                     "the generator sent up to %.0f ms late (p99; limit %.0f ms): this machine was too slow "
                     "for the load",
                     p->send_lag_p99_ms, limit);
            doubt(c, p->name, p->doubt);
        }
    }
    read_health(c, o, from->name, p->doubt, sizeof p->doubt);
}

int chaos_load_read(struct chaos *c, struct judge_facts *facts, struct err_ctx *ctx)
{
    char path[600], sentence[200];
    json_error_t e;
    chaos_path(c, path, sizeof path, "load.json");
    json_t *o = json_load_file(path, JSON_REJECT_DUPLICATES, &e);
    if (!o && *c->config->interrupted) {
        snprintf(c->note, sizeof c->note, "interrupted before the generator could sum up");
        return 0;
    }
    if (!o)
        return err_set(ctx, ERR_INVALID, "chat-loadgen left no summary: %s:%d: %s; %s", path, e.line, e.text,
                       c->last_line);
    const json_t *load = json_object_get(o, "load"), *drained = json_object_get(o, "drained");
    c->drained = drained ? json_is_true(drained) : !c->doubt[0];
    for (uint32_t i = 0; i < c->s.load_n; i++)
        read_population(c, json_object_get(load, c->s.load[i].name), &c->s.load[i], facts);
    read_health(c, o, "", sentence, sizeof sentence);
    json_decref(o);
    return 0;
}
