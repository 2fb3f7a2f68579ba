#include "run/chaos.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "run/chaos_impl.h"
#include "util/clock.h"

#define LOOPBACK 0x7F000001u
#define MARK     ".chat-chaos" /* a folder with it is ours to clear */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

static int make_path(const char *dir, struct err_ctx *ctx)
{
    char part[512];
    if (snprintf(part, sizeof part, "%s", dir) >= (int)sizeof part - 64 || !*dir)
        return err_set(ctx, ERR_LIMIT, "%s: the path is too long", dir);
    for (char *p = part + 1;; p++) {
        if (*p && *p != '/')
            continue;
        char old = *p;
        *p = 0;
        if (mkdir(part, 0755) && errno != EEXIST)
            return err_errno(ctx, "%s", part);
        *p = old;
        if (!old)
            return 0;
    }
}

static bool is_empty(const char *dir)
{
    DIR *d = opendir(dir);
    int names = 0;
    while (d && readdir(d))
        names++;
    if (d)
        closedir(d);
    return names <= 2;
}

/* A new or empty folder, or one of our own, whose old results are removed. Anybody else's is refused. */
static int prepare(const char *dir, struct err_ctx *ctx)
{
    static const char *const ours[] = {"data",     "keys",       "trace",        "journal",     "load.json",
                                       "load.log", "server.log", "summary.json", "report.html", "junit.xml"};
    char path[600];
    int rc = make_path(dir, ctx);
    if (rc)
        return rc;
    snprintf(path, sizeof path, "%s/" MARK, dir);
    if (access(path, F_OK) && !is_empty(dir))
        return err_set(ctx, ERR_EXISTS, "%s: is no folder of chat-chaos and not empty; name another --report",
                       dir);
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
        char old[600];
        snprintf(old, sizeof old, "%s/%s", dir, ours[i]);
        if (nftw(old, remove_one, 16, FTW_DEPTH | FTW_PHYS) && errno != ENOENT)
            return err_errno(ctx, "%s", old);
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return err_errno(ctx, "%s", path);
    close(fd);
    return 0;
}

static void fill_head(struct report_run *out, const struct scenario *s)
{
    snprintf(out->scenario, sizeof out->scenario, "%s", s->name);
    snprintf(out->variant, sizeof out->variant, "%s", s->variant);
    snprintf(out->world, sizeof out->world, "%s", chaos_world_ops.name);
    snprintf(out->commit, sizeof out->commit, "%s", CHAT_VERSION);
    snprintf(out->why, sizeof out->why, "%s", s->why);
    out->seed = s->seed;
    snprintf(out->variant_why, sizeof out->variant_why, "%s", s->variant_why);
    for (uint32_t i = 0; i < s->faults_n && i < REPORT_FAULTS_MAX; i++) {
        struct report_fault *f = &out->faults[out->faults_n++];
        snprintf(f->name, sizeof f->name, "%s", s->faults[i].name);
        f->at_s = (double)s->faults[i].at / 1e9;
        fault_describe(f->text, sizeof f->text, &s->faults[i]);
    }
}

static int judge_run(struct report_run *out, const struct scenario *s, const struct judge_facts *facts,
                     struct err_ctx *ctx)
{
    struct judgement all[SCENARIO_EXPECT_MAX];
    for (uint32_t i = 0; i < s->expect_n; i++) {
        struct expectation e;
        int rc = judge_parse(&e, s->expect[i], s, ctx);
        if (rc)
            return rc;
        judge(&e, facts, &all[i]);
        struct report_expect *r = &out->expect[out->expect_n++];
        snprintf(r->text, sizeof r->text, "%s", s->expect[i]);
        snprintf(r->value, sizeof r->value, "%s", all[i].value);
        snprintf(r->verdict, sizeof r->verdict, "%s", judge_verdict_name(all[i].verdict));
        snprintf(r->why, sizeof r->why, "%s", all[i].why);
    }
    snprintf(out->verdict, sizeof out->verdict, "%s", judge_verdict_name(judge_all(all, s->expect_n)));
    return 0;
}

static int write_files(const struct chaos *c, struct err_ctx *ctx)
{
    static const char *const names[] = {"summary.json", "report.html", "junit.xml"};
    const struct report_run *runs[] = {c->out};
    struct buf b = BUF_INIT(REPORT_HTML_MAX);
    int rc = 0;
    for (int i = 0; i < 3 && !rc; i++) {
        char path[600];
        chaos_path(c, path, sizeof path, names[i]);
        buf_reset(&b);
        if (i == 0)
            report_json(&b, c->out);
        else if (i == 1)
            report_html(&b, runs, 1);
        else
            report_junit(&b, runs, 1);
        rc = report_write(path, &b, ctx);
    }
    buf_release(&b);
    return rc;
}

/* Play, judge, write. */
static int run_it(struct chaos *c, struct judge_facts *facts, struct err_ctx *ctx)
{
    struct report_run *out = c->out;
    fill_head(out, &c->s);
    int rc = world_play(&c->world, &c->s, facts, ctx);
    chaos_stop_all(c);
    if (rc && rc != ERR_INTERRUPTED)
        return rc;
    out->seconds = (double)(c->ended - c->began) / 1e9;
    if (rc && !c->note[0])
        snprintf(c->note, sizeof c->note, "interrupted after %.0f s", out->seconds);
    if (rc && !facts->doubt[0])
        snprintf(facts->doubt, sizeof facts->doubt, "the run was interrupted");
    snprintf(out->note, sizeof out->note, "%s", *c->note ? c->note : c->doubt);
    int judged = judge_run(out, &c->s, facts, ctx);
    judged = judged ? judged : write_files(c, ctx);
    return judged ? judged : rc;
}

/* What this scenario needs of the machine. */
static int check_machine(struct chaos *c, struct err_ctx *ctx)
{
    for (uint32_t i = 0; i < c->s.load_n; i++)
        c->linked |= c->s.load[i].link[0] != 0;
    c->addr = c->linked ? NETEM_FAR_ADDR : LOOPBACK;
    if (c->linked && geteuid() != 0)
        return err_set(ctx, ERR_PERM,
                       "links need network namespaces: run as root (sudo), or use a scenario without links");
    if (c->linked && access("/dev/net/tun", R_OK | W_OK))
        return err_set(
            ctx, ERR_UNAVAILABLE,
            "links need /dev/net/tun: load the module (modprobe tun), or pass the device into the container");
    return 0;
}

int chaos_run(struct report_run *out, const struct chaos_config *config, struct err_ctx *ctx)
{
    memset(out, 0, sizeof *out);
    struct judge_facts *facts = calloc(1, sizeof *facts);
    if (!facts)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    struct chaos *c = calloc(1, sizeof *c);
    if (!c) {
        free(facts);
        return err_set(ctx, ERR_NOMEM, "out of memory");
    }
    c->world.ops = &chaos_world_ops;
    c->config = config;
    c->out = out;
    c->load_err = -1;
    c->phase = -1;
    snprintf(c->dir, sizeof c->dir, "%s", config->dir);
    int rc = scenario_load(&c->s, config->file, config->variant, ctx);
    if (!rc && config->seed)
        c->s.seed = config->seed;
    rc = rc ? rc : check_machine(c, ctx);
    rc = rc ? rc : prepare(config->dir, ctx);
    rc = rc ? rc : run_it(c, facts, ctx);
    scenario_release(&c->s);
    free(facts);
    free(c);
    return rc;
}
