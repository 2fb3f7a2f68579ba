/* explore: many seeds in the simulated world, over several processes; the first failure is made small. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd/chat-chaos/tool.h"
#include "report/report.h"
#include "sim/explore.h"
#include "util/clock.h"
#include "util/log.h"

#define JOBS_MAX    64u
#define TWICE_EVERY 16u /* so many seeds are run again: the event hash must be the same */
#define SHRINK_RUNS 400u
#define PROGRESS_NS (500 * NS_PER_MS)

struct outcome {
    uint64_t seed;
    struct sim_result r;
    bool twice, differs; /* run again; with another hash */
};

struct explore {
    const struct opt_set *set;
    uint64_t first, last;
    uint32_t jobs;
    uint64_t until_ns; /* 0: no limit */
    int pipe[JOBS_MAX];
    pid_t pid[JOBS_MAX];
    /* sums */
    uint64_t hash; /* of all runs, whatever their order */
    uint64_t began_ns, progress_ns, seeds, twice, virtual_ns, events, messages, shown, starts;
    struct outcome failed;
    bool any_failed, line;
};

static int parse_seeds(struct explore *x, struct err_ctx *ctx)
{
    const char *text = opt_string(x->set, "seeds");
    int n = 0;
    if (!text)
        return err_set(ctx, ERR_USAGE, "--seeds A..B: which?");
    if (sscanf(text, "%" SCNu64 "..%" SCNu64 "%n", &x->first, &x->last, &n) != 2 || text[n] ||
        x->last < x->first) {
        if (sscanf(text, "%" SCNu64 "%n", &x->first, &n) != 1 || text[n])
            return err_set(ctx, ERR_USAGE, "--seeds '%s': A..B is wanted, with A <= B", text);
        x->last = x->first;
    }
    return 0;
}

/* ---- in a process of its own ---- */

static int one_seed(uint64_t seed, bool twice, struct outcome *out, struct err_ctx *ctx)
{
    struct scenario *s = malloc(sizeof *s);
    struct sim_result again;
    if (!s)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    *out = (struct outcome){.seed = seed, .twice = twice};
    sim_draw(s, seed);
    int rc = sim_trial(s, &interrupted, &out->r, NULL, ctx);
    if (!rc && twice && !(rc = sim_trial(s, &interrupted, &again, NULL, ctx)))
        out->differs = again.hash != out->r.hash;
    scenario_release(s);
    free(s);
    return rc;
}

static void job(const struct explore *x, uint32_t number, int fd)
{
    struct err_ctx ctx = {0};
    log_set(log_to_stderr, NULL, LOG_ERROR); /* a restored store says so, each time */
    for (uint64_t seed = x->first + number; seed <= x->last && seed >= x->first; seed += x->jobs) {
        struct outcome o;
        if (interrupted || (x->until_ns && clock_mono_ns() >= x->until_ns))
            break;
        int rc = one_seed(seed, seed % TWICE_EVERY == 0, &o, &ctx);
        if (rc && !interrupted)
            fprintf(stderr, "chat-chaos: seed %" PRIu64 ": %s\n", seed, ctx.text);
        if (rc || write(fd, &o, sizeof o) != sizeof o)
            _exit(interrupted ? 0 : 1);
    }
    _exit(0);
}

static int start_jobs(struct explore *x, struct err_ctx *ctx)
{
    pid_t parent = getpid();
    fflush(NULL);
    for (uint32_t i = 0; i < x->jobs; i++) {
        int ends[2];
        if (pipe(ends))
            return err_errno(ctx, "pipe");
        x->pid[i] = fork();
        if (x->pid[i] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            close(ends[0]);
            if (getppid() == parent)
                job(x, i, ends[1]);
            _exit(1);
        }
        close(ends[1]);
        x->pipe[i] = ends[0];
        if (x->pid[i] < 0)
            return err_errno(ctx, "fork");
    }
    return 0;
}

/* ---- together ---- */

static void take(struct explore *x, const struct outcome *o)
{
    x->seeds++;
    x->twice += o->twice;
    x->hash += o->r.hash * (2 * o->seed + 1);
    x->virtual_ns += o->r.virtual_ns;
    x->events += o->r.events;
    x->messages += o->r.messages;
    x->shown += o->r.surfaced;
    x->starts += o->r.server_starts;
    if (!x->any_failed && (o->r.failed || o->differs)) {
        x->any_failed = true;
        x->failed = *o;
    }
}

static void progress(struct explore *x)
{
    uint64_t now = clock_mono_ns();
    if (now < x->progress_ns || opt_verbosity(x->set) < 0 || !isatty(2))
        return;
    x->progress_ns = now + PROGRESS_NS;
    x->line = true;
    fprintf(stderr, "\r\033[K%" PRIu64 " of %" PRIu64 " seeds, %.1f h of virtual time in %.0f s", x->seeds,
            x->last - x->first + 1, (double)x->virtual_ns / 3.6e12, (double)(now - x->began_ns) / 1e9);
}

/* 1: something came; 0: it has ended; negative: it broke off in the middle. */
static int read_one(struct explore *x, uint32_t i)
{
    struct outcome o;
    ssize_t n;
    do
        n = read(x->pipe[i], &o, sizeof o); /* less than PIPE_BUF: whole or not at all */
    while (n < 0 && errno == EINTR);
    if (n == sizeof o)
        take(x, &o);
    return n == sizeof o ? 1 : n == 0 ? 0 : -1;
}

static int stop_job(struct explore *x, uint32_t i, bool now)
{
    int status = 0;
    if (x->pid[i] <= 0)
        return 0;
    if (now)
        kill(x->pid[i], SIGKILL);
    waitpid(x->pid[i], &status, 0);
    x->pid[i] = 0;
    close(x->pipe[i]);
    x->pipe[i] = -1;
    return now || status == 0 ? 0 : -1;
}

static int listen(struct explore *x, struct err_ctx *ctx)
{
    struct pollfd fds[JOBS_MAX];
    uint32_t left = x->jobs;
    int rc = 0;
    while (left && !x->any_failed && !interrupted && !rc) {
        for (uint32_t i = 0; i < x->jobs; i++)
            fds[i] = (struct pollfd){.fd = x->pipe[i], .events = POLLIN};
        if (poll(fds, x->jobs, 500) < 0 && errno != EINTR)
            return err_errno(ctx, "poll");
        for (uint32_t i = 0; i < x->jobs && !rc; i++) {
            if (!(fds[i].revents & (POLLIN | POLLHUP)) || x->pipe[i] < 0)
                continue;
            int more = read_one(x, i);
            if (more > 0)
                continue;
            left--;
            if (stop_job(x, i, more < 0))
                rc = err_set(ctx, ERR_IO, "a process that explored seeds %" PRIu64 "+%u died", x->first, i);
        }
        progress(x);
    }
    for (uint32_t i = 0; i < x->jobs; i++)
        stop_job(x, i, true);
    if (x->line)
        fputs("\r\033[K", stderr);
    return rc;
}

/* ---- a failure ---- */

static int write_small(const struct explore *x, const struct scenario *s, char *path, size_t size,
                       struct err_ctx *ctx)
{
    const char *dir = opt_string(x->set, "report");
    struct buf b = BUF_INIT(1u << 20);
    char base[400];
    snprintf(base, sizeof base, "%s", dir ? dir : "reports/out");
    for (char *p = base + 1;; p++) {
        if (*p && *p != '/')
            continue;
        char old = *p;
        *p = 0;
        mkdir(base, 0755);
        *p = old;
        if (!old)
            break;
    }
    snprintf(path, size, "%s/explore-%" PRIu64 ".json", base, s->seed);
    scenario_write(&b, s);
    int rc = report_write(path, &b, ctx);
    buf_release(&b);
    return rc;
}

static void describe(const struct scenario *s, char *out, size_t size)
{
    uint32_t phones = 0;
    for (uint32_t i = 0; i < s->load_n; i++)
        phones += s->load[i].clients;
    snprintf(out, size, "%u phones, %u faults, %.3f s", phones, s->faults_n, (double)s->duration / 1e9);
}

static void print_story(const struct scenario *s)
{
    struct sim_result r;
    struct err_ctx ctx = {0};
    struct buf story = BUF_INIT(1u << 20);
    if (!sim_trial(s, &interrupted, &r, &story, &ctx) && r.failed)
        printf("\n%s\n%s", r.text, story.len ? buf_cstr(&story) : "");
    buf_release(&story);
}

static int explain(struct explore *x, struct err_ctx *ctx)
{
    const struct outcome *o = &x->failed;
    char path[600], before[100], after[100];
    log_set(log_to_stderr, NULL, LOG_ERROR);
    printf("seed %" PRIu64 " fails: %s: %s\n", o->seed, o->differs ? "two runs differ" : o->r.what,
           o->differs ? "the same seed gave other events the second time" : o->r.text);
    printf("  replay: chat-chaos explore --seeds %" PRIu64 "..%" PRIu64 "\n", o->seed, o->seed);
    if (o->differs)
        return STATUS_FAIL;
    fflush(stdout);
    struct scenario *s = malloc(sizeof *s);
    if (!s)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    struct sim_result last = o->r;
    sim_draw(s, o->seed);
    describe(s, before, sizeof before);
    int rc = opt_flag(x->set, "shrink") ? sim_shrink(s, SHRINK_RUNS, &interrupted, &last, ctx) : 0;
    describe(s, after, sizeof after);
    if (rc >= 0) {
        int runs = rc;
        rc = write_small(x, s, path, sizeof path, ctx);
        if (!rc)
            printf("  shrunk in %d runs from %s to %s: %s\n  replay: chat-chaos run %s --world sim\n", runs,
                   before, after, path, path);
    }
    if (rc >= 0)
        print_story(s);
    scenario_release(s);
    free(s);
    return rc < 0 ? rc : STATUS_FAIL;
}

static void sum_up(const struct explore *x, int status)
{
    double took = (double)(clock_mono_ns() - x->began_ns) / 1e9, virtually = (double)x->virtual_ns / 1e9;
    if (opt_json(x->set)) {
        printf("{\"seeds\":%" PRIu64 ",\"first\":%" PRIu64 ",\"last\":%" PRIu64 ",\"twice\":%" PRIu64
               ",\"seconds\":%.3f,\"virtual_s\":%.3f,\"events\":%" PRIu64 ",\"messages\":%" PRIu64
               ",\"shown\":%" PRIu64 ",\"server_starts\":%" PRIu64 ",\"hash\":\"%016" PRIx64
               "\",\"failed\":%s",
               x->seeds, x->first, x->last, x->twice, took, virtually, x->events, x->messages, x->shown,
               x->starts, x->hash, status == STATUS_FAIL ? "true" : "false");
        if (x->any_failed)
            printf(",\"seed\":%" PRIu64 ",\"what\":\"%s\"", x->failed.seed,
                   x->failed.differs ? "two_runs_differ" : x->failed.r.what);
        printf("}\n");
        return;
    }
    printf("%" PRIu64 " seeds (%" PRIu64 "..%" PRIu64 "), %.2f h of virtual time in %.1f s (x %.0f), %" PRIu64
           " events, %" PRIu64 " messages shown %" PRIu64 " times, %" PRIu64 " server starts; %" PRIu64
           " seeds run twice, event hash %016" PRIx64 "%s\n",
           x->seeds, x->first, x->last, virtually / 3600, took, took > 0 ? virtually / took : 0, x->events,
           x->messages, x->shown, x->starts, x->twice, x->hash, status == STATUS_PASS ? ": all well" : "");
}

int tool_explore(const struct opt_set *set, struct err_ctx *ctx)
{
    struct explore *x = calloc(1, sizeof *x);
    if (!x)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    x->set = set;
    x->began_ns = clock_mono_ns();
    uint64_t jobs = opt_u64(set, "jobs"), minutes = opt_u64(set, "minutes");
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    x->jobs = (uint32_t)(jobs ? jobs : cores > 0 ? (uint64_t)cores : 1);
    x->jobs = x->jobs < JOBS_MAX ? x->jobs : JOBS_MAX;
    x->until_ns = minutes ? x->began_ns + minutes * 60 * NS_PER_S : 0;
    int rc = parse_seeds(x, ctx);
    if (!rc && x->last - x->first < x->jobs)
        x->jobs = (uint32_t)(x->last - x->first + 1);
    if (!rc && (rc = start_jobs(x, ctx)))
        for (uint32_t i = 0; i < x->jobs; i++)
            stop_job(x, i, true);
    rc = rc ? rc : listen(x, ctx);
    if (!rc && x->any_failed)
        rc = opt_json(set) ? STATUS_FAIL : explain(x, ctx);
    else if (!rc && interrupted)
        rc = err_set(ctx, ERR_INTERRUPTED, "interrupted after %" PRIu64 " seeds", x->seeds);
    else if (!rc && x->seeds < x->last - x->first + 1 && !x->until_ns)
        rc = STATUS_UNKNOWN;
    if (rc >= 0)
        sum_up(x, rc);
    free(x);
    return rc;
}
