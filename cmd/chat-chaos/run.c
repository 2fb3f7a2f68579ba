/* run and compare. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd/chat-chaos/simulate.h"
#include "cmd/chat-chaos/tool.h"
#include "run/chaos.h"
#include "util/buf.h"
#include "util/clock.h"

#define VARIANTS_MAX SCENARIO_VARIANTS_MAX

struct job {
    const char *variant; /* NULL: the file as it stands */
    char dir[500];
    struct report_run *result;
    pid_t pid;
    bool ended; /* reaped: its number may be somebody else's by now */
    int rc;
};

struct session {
    const struct opt_set *set;
    char file[1024], base[400];
    struct job jobs[VARIANTS_MAX];
    int jobs_n;
    uint64_t began;
    bool line; /* a progress line stands on the terminal */
};

static void progress(void *arg, const char *text)
{
    struct session *s = arg;
    fprintf(stderr, "\r\033[K%.100s", text);
    fflush(stderr);
    s->line = true;
}

static void clear_line(struct session *s)
{
    if (s->line)
        fputs("\r\033[K", stderr);
    s->line = false;
}

static int run_job(struct session *s, struct job *j, bool quiet, struct err_ctx *ctx)
{
    struct chaos_config c = {
        .file = s->file, .variant = j->variant, .dir = j->dir, .interrupted = &interrupted, .arg = s};
    c.capture = opt_flag(s->set, "capture");
    if (opt_given(s->set, "seed"))
        c.seed = opt_seed(s->set);
    if (!quiet && opt_verbosity(s->set) >= 0 && isatty(2))
        c.progress = progress;
    bool sim = strcmp(opt_string(s->set, "world"), "sim") == 0;
    if (sim && c.capture)
        return err_set(ctx, ERR_USAGE, "--capture: the simulated world has no packets; take --world real");
    int rc = sim ? simulate(j->result, &c, ctx) : chaos_run(j->result, &c, ctx);
    clear_line(s);
    if (rc && j->variant && rc != ERR_INTERRUPTED)
        err_prefix(ctx, "%s: ", j->variant);
    return rc;
}

static void print_job(const struct session *s, const struct job *j)
{
    struct buf out = BUF_INIT(1u << 20);
    report_text(&out, j->result, opt_color(s->set, 1));
    buf_printf(&out, "  report %s/report.html\n", j->dir);
    fputs(buf_cstr(&out), stdout);
    fflush(stdout);
    buf_release(&out);
}

static int one_after_the_other(struct session *s, struct err_ctx *ctx)
{
    for (int i = 0; i < s->jobs_n; i++) {
        struct job *j = &s->jobs[i];
        j->rc = run_job(s, j, false, ctx);
        if (!opt_json(s->set) && (!j->rc || j->rc == ERR_INTERRUPTED) && j->result->scenario[0])
            print_job(s, j);
        if (j->rc)
            return j->rc;
    }
    return 0;
}

/* In a process of its own; what it found comes back through its summary.json. */
static void job_process(struct session *s, struct job *j, pid_t parent)
{
    struct err_ctx ctx = {0};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(70);
    int rc = run_job(s, j, true, &ctx);
    if (rc && rc != ERR_INTERRUPTED)
        fprintf(stderr, "chat-chaos: %s\n", ctx.text);
    fflush(NULL);
    _exit(err_exit_status(rc));
}

/* Wait for one of the processes, with a sign of life for whoever watches. */
static int wait_for(struct session *s, struct job *j, int *status, struct err_ctx *ctx)
{
    bool told = false, watched = opt_verbosity(s->set) >= 0 && isatty(2);
    for (;;) {
        pid_t got = waitpid(j->pid, status, WNOHANG);
        if (got == j->pid)
            break;
        if (got < 0 && errno != EINTR)
            return err_errno(ctx, "waitpid");
        if (interrupted && !told) {
            for (int i = 0; i < s->jobs_n; i++) {
                if (!s->jobs[i].ended)
                    kill(s->jobs[i].pid, SIGINT);
            }
            told = true;
        }
        char text[100];
        snprintf(text, sizeof text, "%d variants at the same time: %.0f s", s->jobs_n,
                 (double)(clock_mono_ns() - s->began) / 1e9);
        if (watched)
            progress(s, text);
        usleep(200000);
    }
    j->ended = true;
    clear_line(s);
    return 0;
}

static int collect(struct session *s, struct job *j, struct err_ctx *ctx)
{
    int status = 0, rc = wait_for(s, j, &status, ctx);
    char path[600];
    if (rc)
        return rc;
    rc = WIFEXITED(status) ? WEXITSTATUS(status) : 70;
    if (rc != 0 && rc != 130)
        return err_set(ctx,
                       rc == 77   ? ERR_PERM
                       : rc == 65 ? ERR_INVALID
                                  : ERR_UNAVAILABLE,
                       "%s: the run failed", j->variant);
    snprintf(path, sizeof path, "%s/summary.json", j->dir);
    int read = report_read(j->result, path, ctx);
    if (!read && !opt_json(s->set))
        print_job(s, j);
    return read ? read : rc == 130 ? err_set(ctx, ERR_INTERRUPTED, "interrupted") : 0;
}

static int at_the_same_time(struct session *s, struct err_ctx *ctx)
{
    pid_t parent = getpid();
    int rc = 0;
    s->began = clock_mono_ns();
    fflush(NULL);
    for (int i = 0; i < s->jobs_n; i++) {
        s->jobs[i].pid = fork();
        if (s->jobs[i].pid == 0)
            job_process(s, &s->jobs[i], parent);
        if (s->jobs[i].pid < 0) {
            s->jobs_n = i;
            rc = err_errno(ctx, "fork");
        }
    }
    for (int i = 0; i < s->jobs_n; i++) {
        struct err_ctx own = {0};
        s->jobs[i].rc = collect(s, &s->jobs[i], &own);
        if (s->jobs[i].rc && !rc) {
            *ctx = own;
            rc = s->jobs[i].rc;
        }
    }
    return rc;
}

static int write_page(const char *path, const struct report_run *const *runs, uint32_t n, struct err_ctx *ctx)
{
    struct buf page = BUF_INIT(REPORT_HTML_MAX);
    report_html(&page, runs, n);
    int rc = report_write(path, &page, ctx);
    buf_release(&page);
    return rc;
}

/* Several runs: their comparison and one JUnit file. */
static int write_together(const struct session *s, struct err_ctx *ctx)
{
    const struct report_run *runs[VARIANTS_MAX];
    char path[600];
    for (int i = 0; i < s->jobs_n; i++)
        runs[i] = s->jobs[i].result;
    snprintf(path, sizeof path, "%s/report.html", s->base);
    int rc = write_page(path, runs, 2, ctx);
    if (rc)
        return rc;
    if (!opt_json(s->set))
        printf("comparison %s\n", path);
    struct buf xml = BUF_INIT(1u << 20);
    report_junit(&xml, runs, (uint32_t)s->jobs_n);
    snprintf(path, sizeof path, "%s/junit.xml", s->base);
    rc = report_write(path, &xml, ctx);
    buf_release(&xml);
    return rc;
}

static void print_json(const struct session *s)
{
    struct buf out = BUF_INIT(REPORT_HTML_MAX);
    if (s->jobs_n > 1)
        buf_str(&out, "{\"runs\":[");
    for (int i = 0; i < s->jobs_n; i++) {
        if (i)
            buf_char(&out, ',');
        report_json(&out, s->jobs[i].result);
    }
    if (s->jobs_n > 1)
        buf_str(&out, "]}\n");
    fputs(buf_cstr(&out), stdout);
    buf_release(&out);
}

/* fail beats unknown beats pass */
static int status_of(const struct session *s)
{
    int status = STATUS_PASS;
    for (int i = 0; i < s->jobs_n; i++) {
        const char *v = s->jobs[i].result->verdict;
        if (strcmp(v, "fail") == 0)
            return STATUS_FAIL;
        if (strcmp(v, "pass") != 0)
            status = STATUS_UNKNOWN;
    }
    return status;
}

/* The variants are checked first: the second one's misspelt name should not cost a minute. */
static int plan(struct session *s, struct err_ctx *ctx)
{
    const char *const *variants;
    const char *dir = opt_string(s->set, "report");
    int n = opt_list(s->set, "variant", &variants),
        rc = tool_find(s->file, sizeof s->file, opt_operand(s->set, 0), ctx);
    if (rc)
        return rc;
    if (n > VARIANTS_MAX)
        return err_set(ctx, ERR_LIMIT, "at most %d variants", VARIANTS_MAX);
    struct scenario *sc = malloc(sizeof *sc);
    if (!sc)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    s->jobs_n = n ? n : 1;
    for (int i = 0; i < s->jobs_n && !rc; i++) {
        struct job *j = &s->jobs[i];
        j->variant = n ? variants[i] : NULL;
        for (int k = 0; k < i && !rc; k++) {
            if (strcmp(variants[k], variants[i]) == 0)
                rc = err_set(ctx, ERR_USAGE, "variant %s is named twice", variants[i]);
        }
        rc = rc ? rc : scenario_load(sc, s->file, j->variant, ctx);
        if (rc)
            break;
        if (dir)
            snprintf(s->base, sizeof s->base, "%s", dir);
        else
            snprintf(s->base, sizeof s->base, "reports/out/%s", sc->name);
        if (n > 1)
            snprintf(j->dir, sizeof j->dir, "%s/%s", s->base, j->variant);
        else
            snprintf(j->dir, sizeof j->dir, "%s%s%s", s->base, !dir && n ? "-" : "",
                     !dir && n ? j->variant : "");
        scenario_release(sc);
        j->result = calloc(1, sizeof *j->result);
        if (!j->result)
            rc = err_set(ctx, ERR_NOMEM, "out of memory");
    }
    free(sc);
    return rc;
}

int tool_run(const struct opt_set *set, struct err_ctx *ctx)
{
    struct session s = {.set = set};
    const char *world = opt_string(set, "world");
    if (strcmp(world, "real") != 0 && strcmp(world, "sim") != 0)
        return err_set(ctx, ERR_USAGE, "--world is real or sim, not %s", world);
    int rc = plan(&s, ctx);
    if (!rc)
        rc = s.jobs_n > 1 && opt_flag(set, "parallel") ? at_the_same_time(&s, ctx)
                                                       : one_after_the_other(&s, ctx);
    if (!rc && s.jobs_n > 1)
        rc = write_together(&s, ctx);
    if ((!rc || rc == ERR_INTERRUPTED) && opt_json(set) && s.jobs[0].result->scenario[0])
        print_json(&s);
    int status = rc ? rc : status_of(&s);
    for (int i = 0; i < s.jobs_n; i++)
        free(s.jobs[i].result);
    return status;
}

int tool_compare(const struct opt_set *set, struct err_ctx *ctx)
{
    struct report_run *both = calloc(2, sizeof *both);
    const struct report_run *runs[2] = {both, both + 1};
    const char *page = opt_string(set, "report");
    int rc = both ? 0 : err_set(ctx, ERR_NOMEM, "out of memory");
    for (int i = 0; i < 2 && !rc; i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/summary.json", opt_operand(set, i));
        rc = report_read(&both[i], path, ctx);
    }
    if (!rc && opt_json(set)) {
        struct buf out = BUF_INIT(REPORT_HTML_MAX);
        buf_str(&out, "{\"runs\":[");
        report_json(&out, runs[0]);
        buf_char(&out, ',');
        report_json(&out, runs[1]);
        buf_str(&out, "]}\n");
        fputs(buf_cstr(&out), stdout);
        buf_release(&out);
    } else if (!rc) {
        struct buf out = BUF_INIT(1u << 20);
        for (int i = 0; i < 2; i++)
            report_text(&out, runs[i], opt_color(set, 1));
        fputs(buf_cstr(&out), stdout);
        buf_release(&out);
    }
    if (!rc && (page || !opt_json(set))) {
        rc = write_page(page ? page : "compare.html", runs, 2, ctx);
        if (!rc && !opt_json(set))
            printf("comparison %s\n", page ? page : "compare.html");
    }
    free(both);
    return rc;
}
