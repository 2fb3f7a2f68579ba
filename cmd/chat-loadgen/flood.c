/* flood --transport mux: from the options to what run/flood runs, and the judgement. */
#include <stdio.h>
#include <string.h>
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

static int check(const struct flood_config *c, struct err_ctx *err)
{
    const uint64_t times[] = {c->for_ns, c->setup_ns, c->drain_ns, c->ramp_ns, c->dark_ns};
    if (c->phones < 2 || c->phones > FLOOD_PHONES_MAX)
        return err_set(err, ERR_USAGE, "--sockets: 2 to %u phones are possible", FLOOD_PHONES_MAX);
    if (c->chat_max < 2 || c->chat_max > PROTO_USERS_MAX)
        return err_set(err, ERR_USAGE, "--chat-size: 2 to %u members are possible", PROTO_USERS_MAX);
    if (c->body_max < 16 || c->body_max > PROTO_BODY_MAX)
        return err_set(err, ERR_USAGE, "--body: 16 to %u bytes are possible (the time stands in them)",
                       PROTO_BODY_MAX);
    if (c->silent > c->phones / 2)
        return err_set(err, ERR_USAGE, "--silent: at most half of the phones");
    for (size_t i = 0; i < sizeof times / sizeof *times; i++)
        if (times[i] > TIME_MAX_NS)
            return err_set(err, ERR_USAGE, "no time may be longer than 365d");
    return 0;
}

/* More than the field holds is too much in any case. */
static uint32_t narrow(uint64_t v)
{
    return v < UINT32_MAX ? (uint32_t)v : UINT32_MAX;
}

static void from_options(struct flood_config *c, const char **link, const struct opt_set *o)
{
    *link = opt_given(o, "link") ? opt_string(o, "link") : NULL;
    *c = (struct flood_config){.phones = narrow(opt_u64(o, "sockets")),
                               .silent = narrow(opt_u64(o, "silent")),
                               .chat_max = narrow(opt_u64(o, "chat-size")),
                               .body_max = narrow(opt_u64(o, "body")),
                               .rate_per_1000s = opt_u64(o, "rate"),
                               .churn_per_1000s = opt_u64(o, "churn"),
                               .mass_ppm = narrow(opt_u64(o, "mass")),
                               .ramp_ns = opt_u64(o, "ramp"),
                               .setup_ns = opt_u64(o, "setup"),
                               .for_ns = opt_u64(o, "for"),
                               .dark_ns = opt_u64(o, "dark"),
                               .drain_ns = opt_u64(o, "drain"),
                               .lag_max_ns = 500 * NS_PER_MS,
                               .seed = opt_seed(o)};
}

static int from_scenario(struct flood_config *c, const char **link, struct scenario *s,
                         const struct opt_set *o, struct err_ctx *err)
{
    int rc = scenario_load(s, opt_operand(o, 0), opt_string(o, "variant"), err);
    if (rc)
        return rc;
    const struct scenario_population *p = &s->load[0];
    *link = p->link[0] ? scenario_find_link(s, p->link)->profile : NULL;
    *c = (struct flood_config){.name = p->name,
                               .phones = p->clients,
                               .silent = p->flood.silent,
                               .chat_max = p->chat_size,
                               .body_max = p->body_max,
                               .rate_per_1000s = p->rate_per_1000s,
                               .churn_per_1000s = p->flood.churn_per_1000s,
                               .mass_ppm = p->flood.mass_ppm,
                               .ramp_ns = p->flood.ramp,
                               .settle_ns = p->flood.settle,
                               .setup_ns = p->flood.setup,
                               .for_ns = s->duration,
                               .dark_ns = p->flood.dark,
                               .drain_ns = opt_given(o, "drain") ? opt_u64(o, "drain") : s->drain,
                               .lag_max_ns = s->send_lag_max,
                               .seed = opt_given(o, "seed") ? opt_seed(o) : s->seed};
    return 0;
}

bool flood_wanted(const struct opt_set *o)
{
    if (!strcmp(opt_command(o), "flood"))
        return !strcmp(opt_string(o, "transport"), "mux");
    struct scenario s;
    if (strcmp(opt_command(o), "run") || scenario_load(&s, opt_operand(o, 0), opt_string(o, "variant"), NULL))
        return false; /* what is wrong with it is said later */
    bool on = s.load[0].flood.on;
    scenario_release(&s);
    return on;
}

int flood_command(const struct opt_set *o, int *status, struct err_ctx *err)
{
    static struct scenario s;
    struct judge j = {.options = o, .err = err};
    struct netem_profile profile;
    struct loadgen_config at = {0};
    struct flood_run_config c = {.keys_dir = opt_string(o, "keys"),
                                 .store_url = opt_string(o, "store"),
                                 .trace_dir = opt_string(o, "trace"),
                                 .trace_sample = narrow(opt_u64(o, "trace-sample")),
                                 .progress = opt_verbosity(o) >= 0 && isatty(2)};
    const char *link = NULL;
    int rc = 0;
    if (strcmp(opt_command(o), "flood"))
        rc = from_scenario(&c.flood, &link, &s, o, err);
    else
        from_options(&c.flood, &link, o);
    rc = rc ? rc : check(&c.flood, err);
    rc = rc ? rc : loadgen_parse_url(&at, opt_string(o, "url"), err);
    if (!rc && at.servers_n > 1)
        rc = err_set(err, ERR_USAGE, "--url: a flood of sessions speaks to one server");
    if (!rc && link && !(rc = netem_profile_parse(&profile, link, err)))
        c.flood.link = &profile;
    if (!rc) {
        c.server_ip = at.servers[0].ip;
        c.server_port = at.servers[0].port;
        c.path = at.path;
        c.flood.first_chat = c.flood.first_user = clock_wall_us();
        rc = flood_run(&c, report, &j, err);
    }
    scenario_release(&s);
    *status = j.status;
    return rc ? rc : j.rc;
}
