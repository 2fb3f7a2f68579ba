/* flood --transport mux: from the options to what run/flood runs, and the judgement. */
#include <stdio.h>
#include <unistd.h>

#include "cmd/chat-loadgen/tool.h"
#include "proto/proto.h"
#include "run/flood.h"

#define TIME_MAX_NS (365 * 86400 * NS_PER_S)

struct judge {
    const struct opt_set *options;
    int status, rc;
    struct err_ctx *err;
};

static void report(void *arg, const struct flood *f, bool interrupted)
{
    struct judge *j = arg;
    struct buf out = BUF_INIT(1u << 20);
    const char *const *texts, *doubt = flood_doubt(f);
    int n = opt_list(j->options, "expect", &texts);
    if (opt_json(j->options))
        flood_report_json(f, &out);
    else
        flood_report_text(f, &out);
    printf("%s%s", buf_cstr(&out), opt_json(j->options) ? "\n" : "");
    for (int i = 0; i < n; i++) {
        buf_reset(&out);
        int holds = flood_expect(f, texts[i], &out, j->err);
        if (holds < 0) {
            j->rc = holds;
            break;
        }
        fprintf(stderr, "%s %s (%s)\n", holds ? "holds " : "FAILED", texts[i], buf_cstr(&out));
        j->status = holds ? j->status : 1;
    }
    if (doubt && !j->status)
        j->status = 2;
    if (doubt)
        fprintf(stderr, "chat-loadgen: inconclusive: %s\n", doubt);
    if (interrupted)
        j->status = err_exit_status(ERR_INTERRUPTED);
    buf_release(&out);
}

static int check(const struct opt_set *o, const struct flood_config *c, struct err_ctx *err)
{
    static const char *const times[] = {"for", "setup", "drain", "ramp", "dark"};
    if (opt_u64(o, "sockets") < 2 || opt_u64(o, "sockets") > FLOOD_PHONES_MAX)
        return err_set(err, ERR_USAGE, "--sockets: 2 to %u phones are possible", FLOOD_PHONES_MAX);
    if (c->chat_max < 2 || opt_u64(o, "chat-size") > PROTO_USERS_MAX)
        return err_set(err, ERR_USAGE, "--chat-size: 2 to %u members are possible", PROTO_USERS_MAX);
    if (opt_u64(o, "body") < 16 || opt_u64(o, "body") > PROTO_BODY_MAX)
        return err_set(err, ERR_USAGE, "--body: 16 to %u bytes are possible (the time stands in them)",
                       PROTO_BODY_MAX);
    if (opt_u64(o, "silent") > c->phones / 2)
        return err_set(err, ERR_USAGE, "--silent: at most half of the phones");
    for (size_t i = 0; i < sizeof times / sizeof *times; i++)
        if (opt_u64(o, times[i]) > TIME_MAX_NS)
            return err_set(err, ERR_USAGE, "--%s: at most 365d", times[i]);
    return 0;
}

int flood_command(const struct opt_set *o, int *status, struct err_ctx *err)
{
    struct judge j = {.options = o, .err = err};
    struct netem_profile link;
    struct loadgen_config at = {0};
    struct flood_run_config c = {.keys_dir = opt_string(o, "keys"),
                                 .store_url = opt_string(o, "store"),
                                 .progress = opt_verbosity(o) >= 0 && isatty(2),
                                 .flood = {.phones = (uint32_t)opt_u64(o, "sockets"),
                                           .silent = (uint32_t)opt_u64(o, "silent"),
                                           .chat_max = (uint32_t)opt_u64(o, "chat-size"),
                                           .body_max = (uint32_t)opt_u64(o, "body"),
                                           .rate_per_1000s = opt_u64(o, "rate"),
                                           .churn_per_1000s = opt_u64(o, "churn"),
                                           .mass_ppm = (uint32_t)opt_u64(o, "mass"),
                                           .ramp_ns = opt_u64(o, "ramp"),
                                           .setup_ns = opt_u64(o, "setup"),
                                           .for_ns = opt_u64(o, "for"),
                                           .dark_ns = opt_u64(o, "dark"),
                                           .drain_ns = opt_u64(o, "drain"),
                                           .lag_max_ns = 500 * NS_PER_MS,
                                           .seed = opt_seed(o),
                                           .first_chat = clock_wall_us(),
                                           .first_user = clock_wall_us()}};
    int rc = check(o, &c.flood, err);
    rc = rc ? rc : loadgen_parse_url(&at, opt_string(o, "url"), err);
    if (!rc && opt_given(o, "link")) {
        rc = netem_profile_parse(&link, opt_string(o, "link"), err);
        c.flood.link = &link;
    }
    if (rc)
        return rc;
    c.server_ip = at.server_ip;
    c.server_port = at.server_port;
    c.path = at.path;
    rc = flood_run(&c, report, &j, err);
    *status = j.status;
    return rc ? rc : j.rc;
}
