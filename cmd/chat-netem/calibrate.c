/* chat-netem calibrate: are the links true? */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cmd/chat-netem/calibrate.h"
#include "cmd/chat-netem/tool.h"

const struct calibrate_driver calibrate_model = {
    .kind = NETEM_DRIVER_MODEL,
    .tells_reasons = true,
    .exact = true,
    .run = calibrate_run_model,
};

static const struct calibrate_driver *const drivers[] = {
    &calibrate_model,
    &calibrate_kernel,
    &calibrate_proxy,
    &calibrate_tun,
};

struct outcome {
    enum calibrate_verdict verdict;
    unsigned pass, fail, unknown;
};

static int find_driver(const struct calibrate_driver **out, const char *name, struct err_ctx *err)
{
    enum netem_driver kind;
    int rc = netem_driver_parse(&kind, name, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < sizeof drivers / sizeof *drivers; i++) {
        if (drivers[i]->kind != kind)
            continue;
        *out = drivers[i];
        return drivers[i]->ready ? drivers[i]->ready(err) : 0;
    }
    return err_set(err, ERR_UNSUPPORTED, "calibrate: this build has no way to try the %s driver", name);
}

static int run_phases(struct calibrate *c, const struct calibrate_driver *d, uint64_t seed, const char *name,
                      bool progress, struct err_ctx *err)
{
    const struct calibrate_phase *phase;
    int rc = 0;
    for (unsigned i = 0; !rc && (phase = calibrate_phase(c, i)); i++) {
        if (progress)
            fprintf(stderr, "\r%s: %s\033[K", name, calibrate_kind_name(phase->kind));
        rc = d->run(c, i, phase, seed, err);
    }
    if (progress)
        fprintf(stderr, "\r\033[K");
    return rc;
}

static void take_verdict(struct outcome *all, enum calibrate_verdict v)
{
    all->pass += v == CALIBRATE_PASS;
    all->fail += v == CALIBRATE_FAIL;
    all->unknown += v == CALIBRATE_UNKNOWN;
    all->verdict = all->fail ? CALIBRATE_FAIL : all->unknown ? CALIBRATE_UNKNOWN : CALIBRATE_PASS;
}

static int one(const struct opt_set *o, const struct calibrate_driver *d, const char *name,
               struct outcome *all, bool short_text, struct err_ctx *err)
{
    struct netem_profile p;
    struct calibrate *c = NULL;
    struct buf out = BUF_INIT(1u << 20);
    struct calibrate_options co = {.driver = d->kind,
                                   .packets = opt_given(o, "packets") ? opt_u64(o, "packets") : d->packets,
                                   .time_ns =
                                       d->time_ns && opt_given(o, "time") ? opt_u64(o, "time") : d->time_ns,
                                   .tells_reasons = d->tells_reasons,
                                   .exact = d->exact,
                                   .late_ns = opt_u64(o, "tolerance")};
    bool progress = isatty(2) && opt_verbosity(o) >= 0;
    int rc = netem_profile_parse(&p, name, err);
    rc = rc ? rc : calibrate_new(&c, &p, &co, err);
    rc = rc ? rc : run_phases(c, d, opt_seed(o), name, progress, err);
    if (!rc) {
        enum calibrate_verdict v = calibrate_judge(c);
        take_verdict(all, v);
        calibrate_show(c, &out, opt_json(o));
        if (opt_json(o))
            printf("%s%s", all->pass + all->fail + all->unknown > 1 ? "," : "", buf_cstr(&out));
        else if (short_text && v == CALIBRATE_PASS) /* its first line says it all */
            printf("%.*s\n", (int)strcspn(buf_cstr(&out), "\n"), buf_cstr(&out));
        else
            fputs(buf_cstr(&out), stdout);
        fflush(stdout);
    }
    buf_release(&out);
    calibrate_free(c);
    return rc;
}

int tool_calibrate(const struct opt_set *o, int *status, struct err_ctx *err)
{
    const struct calibrate_driver *d = NULL;
    struct outcome all = {.verdict = CALIBRATE_PASS};
    const char *what = opt_operand(o, 0), *name, *summary;
    bool every = strcmp(what, "all") == 0;
    int rc = find_driver(&d, opt_string(o, "driver"), err);
    if (rc)
        return rc;
    if (opt_given(o, "packets") && (!opt_u64(o, "packets") || opt_u64(o, "packets") > CALIBRATE_PACKETS_MAX))
        return err_set(err, ERR_USAGE, "--packets: from 1 to %u are wanted", CALIBRATE_PACKETS_MAX);
    if (opt_json(o))
        printf("{\"driver\":\"%s\",\"seed\":%" PRIu64 ",\"profiles\":[", netem_driver_name(d->kind),
               opt_seed(o));
    else if (opt_verbosity(o) > 0 || (opt_verbosity(o) == 0 && !opt_given(o, "seed")))
        fprintf(stderr, "chat-netem: seed %" PRIu64 "\n", opt_seed(o));
    for (unsigned i = 0; !rc && every && netem_profile_list(i, &name, &summary); i++)
        rc = one(o, d, name, &all, opt_verbosity(o) <= 0, err);
    if (!every)
        rc = one(o, d, what, &all, false, err);
    if (opt_json(o))
        printf("],\"verdict\":\"%s\"}\n", rc ? "unknown" : calibrate_verdict_name(all.verdict));
    else if (!rc && every)
        printf("%u passed, %u failed, %u unknown\n", all.pass, all.fail, all.unknown);
    *status = all.verdict == CALIBRATE_FAIL ? 1 : all.verdict == CALIBRATE_UNKNOWN ? 2 : 0;
    return rc;
}
