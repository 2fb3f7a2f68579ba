#include "run/replay.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "store/store.h"
#include "trace/join.h"
#include "wire/pcap/capture.h"

#define FUTURE_MS 60000 /* an id from further ahead than clocks differ */

struct running {
    const struct replay_config *c;
    const struct replay_ops *ops;
    struct map users;
    FILE *ids;
    bool ids_failed;
};

/* "OLD NEW" */
static int read_users(struct running *run, const char *path, struct err_ctx *ctx)
{
    char line[256], rest[2];
    uint64_t from, to;
    int n = 0, rc = 0;
    FILE *f = path ? fopen(path, "re") : NULL;
    if (!path)
        return 0;
    if (!f)
        return err_errno(ctx, "%s", path);
    while (!rc && fgets(line, sizeof line, f)) {
        char *p = line + strspn(line, " \t\r\n");
        uint64_t *as;
        n++;
        if (!*p || *p == '#')
            continue;
        if (!isdigit((unsigned char)*p) || sscanf(p, "%" SCNu64 " %" SCNu64 " %1s", &from, &to, rest) != 2)
            rc = err_set(ctx, ERR_INVALID, "%s: line %d: 'OLD NEW', two user numbers, is wanted", path, n);
        else if (!(as = map_put_u64(&run->users, from, NULL)))
            rc = err_set(ctx, ERR_NOMEM, "%s: out of memory", path);
        else
            *as = to;
    }
    if (!rc && ferror(f))
        rc = err_errno(ctx, "%s", path);
    fclose(f);
    return rc;
}

static void named(void *arg, const struct id *source, const struct id *here)
{
    struct running *run = arg;
    char a[ID_TEXT + 1], b[ID_TEXT + 1];
    if (run->ids &&
        fprintf(run->ids, "{\"id\":\"%s\",\"as\":\"%s\"}\n", id_str(source, a), id_str(here, b)) < 0)
        run->ids_failed = true;
}

static int open_ids(struct running *run, struct err_ctx *ctx)
{
    const void *key;
    void *val;
    if (!run->c->ids_file)
        return 0;
    run->ids = fopen(run->c->ids_file, "we");
    if (!run->ids)
        return err_errno(ctx, "%s", run->c->ids_file);
    for (size_t at = 0; map_next(&run->users, &at, &key, &val);)
        if (fprintf(run->ids, "{\"user\":\"%" PRIu64 "\",\"as\":\"%" PRIu64 "\"}\n", *(const uint64_t *)key,
                    *(uint64_t *)val) < 0)
            run->ids_failed = true;
    return 0;
}

static int read_trace(struct replay *r, const struct replay_config *c, const struct replay_options *o,
                      uint64_t *problems, struct err_ctx *ctx)
{
    struct trace_run run = {0};
    int rc = trace_run_load(&run, c->sources, c->sources_n, ctx);
    rc = rc ? rc : trace_join(&run, ctx);
    rc = rc ? rc : replay_from_trace(r, &run, o, ctx);
    *problems = run.problems;
    trace_run_release(&run);
    return rc;
}

static void tell(const struct running *run, const struct replay *r, uint64_t problems, const char *kind)
{
    struct replay_facts f = {
        .replay = r, .problems = problems, .kind = kind, .messages = r->says + r->presses};
    uint64_t now = clock_wall_us() / 1000;
    for (uint32_t i = 0; i < r->script.steps; i++) {
        const struct load_step *s = &r->script.step[i];
        uint64_t ms = id_unix_ms(&s->id);
        if (s->act <= LOAD_PRESS &&
            (!id_is_v7(&s->id) || ms + STORE_DEDUP_DAYS * 86400000ull < now || ms > now + FUTURE_MS))
            f.too_old++;
    }
    run->ops->about(run->ops->arg, &f);
}

static int act_out(struct running *run, struct replay *r, struct err_ctx *ctx)
{
    struct loadgen_config lg = run->c->loadgen;
    r->script.named = named;
    r->script.arg = run;
    lg.load.script = &r->script;
    lg.load.populations = r->population;
    lg.load.populations_n = r->populations;
    lg.load.duration_ns = r->duration_ns;
    if (!run->c->options.speed_ppm) /* who asks for as fast as it goes asks for no punctuality */
        lg.load.lag_max_ns = UINT64_MAX;
    int rc = loadgen_raise_files(r->script.phones, ctx);
    return rc ? rc : loadgen_run(&lg, run->ops->report, run->ops->arg, ctx);
}

int replay_run(const struct replay_config *c, const struct replay_ops *ops, struct err_ctx *ctx)
{
    struct running run = {.c = c, .ops = ops};
    struct replay r;
    struct replay_options o = c->options;
    uint64_t problems = 0;
    bool capture = c->sources_n && capture_looks_like(c->sources[0]);
    map_init(&run.users, 8, 8, UINT32_MAX, 1);
    replay_init(&r);
    o.users = &run.users;
    int rc = read_users(&run, c->users_file, ctx);
    if (!rc)
        rc = capture ? replay_from_captures(&r, c->sources, c->sources_n, &o, &problems, ctx)
                     : read_trace(&r, c, &o, &problems, ctx);
    rc = rc ? rc : open_ids(&run, ctx);
    if (!rc) {
        tell(&run, &r, problems, capture ? "capture" : "trace");
        rc = act_out(&run, &r, ctx);
    }
    if (run.ids && (fclose(run.ids) || run.ids_failed) && !rc)
        rc = err_set(ctx, ERR_IO, "%s: cannot be written whole", c->ids_file);
    replay_release(&r);
    map_release(&run.users);
    return rc;
}
