/* A run's folder, and what is written there for people and machines. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "scenario/evidence.h"

#define MARK ".chat-chaos" /* a folder with it is ours to clear */

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

static int remove_old(const char *dir, const char *name, struct err_ctx *ctx)
{
    char old[600];
    snprintf(old, sizeof old, "%s/%s", dir, name);
    return nftw(old, remove_one, 16, FTW_DEPTH | FTW_PHYS) && errno != ENOENT ? err_errno(ctx, "%s", old) : 0;
}

/* A new or empty folder, or one of our own, whose old results are removed. Anybody else's is refused. */
int result_folder(const char *dir, struct err_ctx *ctx)
{
    static const char *const ours[] = {"data",         "keys",        "trace",       "journal",  "capture",
                                       "load.json",    "proxy.log",   "proxy.jsonl", "load.log", "server.log",
                                       "summary.json", "report.html", "junit.xml"};
    char path[600];
    int rc = make_path(dir, ctx);
    if (rc)
        return rc;
    snprintf(path, sizeof path, "%s/" MARK, dir);
    if (access(path, F_OK) && !is_empty(dir))
        return err_set(ctx, ERR_EXISTS, "%s: is no folder of chat-chaos and not empty; name another --report",
                       dir);
    for (size_t i = 0; i < sizeof ours / sizeof *ours && !rc; i++)
        rc = remove_old(dir, ours[i], ctx);
    for (int node = 1; node <= SCENARIO_NODES_MAX && !rc; node++) {
        char data[16], log[24];
        snprintf(data, sizeof data, "data-%d", node);
        snprintf(log, sizeof log, "server-%d.log", node);
        rc = remove_old(dir, data, ctx);
        rc = rc ? rc : remove_old(dir, log, ctx);
    }
    if (rc)
        return rc;
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return err_errno(ctx, "%s", path);
    close(fd);
    return 0;
}

void result_head(struct report_run *out, const struct scenario *s, const char *world)
{
    snprintf(out->scenario, sizeof out->scenario, "%s", s->name);
    snprintf(out->variant, sizeof out->variant, "%s", s->variant);
    snprintf(out->world, sizeof out->world, "%s", world);
    snprintf(out->commit, sizeof out->commit, "%s", CHAT_VERSION);
    snprintf(out->why, sizeof out->why, "%s", s->why);
    out->seed = s->seed;
    for (uint32_t i = 0; i < s->variants_n; i++) {
        if (strcmp(s->variants[i].name, s->variant) == 0)
            snprintf(out->variant_why, sizeof out->variant_why, "%s", s->variants[i].why);
    }
    for (uint32_t i = 0; i < s->faults_n && i < REPORT_FAULTS_MAX; i++) {
        struct report_fault *f = &out->faults[out->faults_n++];
        snprintf(f->name, sizeof f->name, "%s", s->faults[i].name);
        f->at_s = (double)s->faults[i].at / 1e9;
        fault_describe(f->text, sizeof f->text, &s->faults[i]);
    }
}

int result_judge(struct report_run *out, const struct scenario *s, const struct judge_facts *facts,
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

int result_write(const struct report_run *out, const char *dir, struct err_ctx *ctx)
{
    static const char *const names[] = {"summary.json", "report.html", "junit.xml"};
    const struct report_run *runs[] = {out};
    struct buf b = BUF_INIT(REPORT_HTML_MAX);
    int rc = 0;
    for (int i = 0; i < 3 && !rc; i++) {
        char path[600];
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        buf_reset(&b);
        if (i == 0)
            report_json(&b, out);
        else if (i == 1)
            report_html(&b, runs, 1);
        else
            report_junit(&b, runs, 1);
        rc = report_write(path, &b, ctx);
    }
    buf_release(&b);
    return rc;
}
