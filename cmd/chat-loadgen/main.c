/* chat-loadgen: phones with their habits, against a server. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cmd/chat-loadgen/tool.h"
#include "util/log.h"

#define THRESHOLDS_MAX 32

static const struct opt options[] = {
#include "cmd/chat-loadgen/options.def"
    OPT_END};

static const struct opt_command commands[] = {{"run", "FILE", "the populations of a scenario file", 1, 1},
                                              {"flood", "", "one population of plain phones", 0, 0},
                                              {0}};

static const struct opt_tool tool = {
    .name = "chat-loadgen",
    .summary = "phones that chat, with the habits of people and networks",
    .description =
        "Real WebSocket clients, thousands in one process, each bound to a source address of its own when "
        "the "
        "scenario gives it a link. Arrivals are open loop: latency counts from the time a message was meant "
        "to be sent, so a stalled generator cannot hide it; a run in which the generator itself lagged is "
        "inconclusive (status 2).\n\n"
        "flood --transport mux runs up to 12 million phones, each a session of chat.mux.v1 behind a link of "
        "its "
        "own: ramp, plateau with heartbeats, churn and planted silent phones, a mass reconnect, drain. "
        "Counts "
        "and order-independent sums of ids take the place of a ledger, and --store compares them with the "
        "server's store.\n\n"
        "Status 1: a threshold (--expect) did not hold. Lines '@phase NAME' on standard error tell a "
        "conductor where the run is.",
    .commands = commands,
    .options = options,
    .examples = "chat-loadgen flood --sockets 1000 --rate 200/s --for 30s\n"
                "chat-loadgen flood --sockets 500 --expect 'p(95)<500' --expect 'lost==0'\n"
                "chat-loadgen flood --transport mux --sockets 1000000 --rate 5000/s \\\n"
                "  --link lte-lossy --churn 1000/s --silent 1000 --mass 10% \\\n"
                "  --store rocksdb:./chatd-data --expect 'lost==0'\n"
                "chat-loadgen run scenarios/01-mobile-loss/scenario.json --variant before"};

struct judge {
    const struct opt_set *options;
    struct load_threshold list[THRESHOLDS_MAX];
    int n, status;
};

static int read_thresholds(struct judge *j, const struct load_config *c, struct err_ctx *err)
{
    const char *const *texts;
    int n = opt_list(j->options, "expect", &texts), rc = 0;
    if (n > THRESHOLDS_MAX)
        return err_set(err, ERR_USAGE, "at most %d thresholds", THRESHOLDS_MAX);
    for (j->n = 0; j->n < n && !rc; j->n++) {
        rc = load_threshold_parse(&j->list[j->n], texts[j->n], err);
        rc = rc ? rc : load_threshold_check(&j->list[j->n], c->populations, c->populations_n, err);
    }
    return rc;
}

static void report(void *arg, const struct load *l, bool interrupted)
{
    struct judge *j = arg;
    struct buf out = BUF_INIT(1u << 20);
    const char *doubt = load_doubt(l);
    struct load_status st;
    load_status(l, &st);
    if (load_result(l, NULL) && !interrupted && !st.began) /* the error says it all */
        return;
    if (opt_json(j->options))
        load_report_json(l, &out);
    else
        load_report_text(l, &out);
    fputs(buf_cstr(&out), stdout);
    if (out.len && out.data[out.len - 1] != '\n')
        putchar('\n');
    for (int i = 0; i < j->n; i++) {
        buf_reset(&out);
        bool holds = load_threshold_holds(l, &j->list[i], &out);
        fprintf(stderr, "%s %s (%s)\n", holds ? "holds " : "FAILED", j->list[i].text, buf_cstr(&out));
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

static int run(const struct opt_set *o, int *status, struct err_ctx *err)
{
    static struct plan plan;
    if (flood_wanted(o))
        return flood_command(o, status, err);
    struct judge j = {.options = o};
    struct loadgen_config c = {.keys_dir = opt_string(o, "keys"),
                               .trace_dir = opt_string(o, "trace"),
                               .progress = opt_verbosity(o) >= 0 && isatty(2),
                               .load = {.diary = opt_string(o, "journal")}};
    uint64_t phones = 0;
    int rc = loadgen_parse_url(&c, opt_string(o, "url"), err);
    if (!rc)
        rc = strcmp(opt_command(o), "flood") ? plan_scenario(&plan, &c.load, o, err)
                                             : plan_flood(&plan, &c.load, o, err);
    for (uint32_t i = 0; i < c.load.populations_n; i++)
        phones += c.load.populations[i].clients;
    rc = rc ? rc : read_thresholds(&j, &c.load, err);
    rc = rc ? rc : loadgen_raise_files(phones, err);
    rc = rc ? rc : loadgen_run(&c, report, &j, err);
    scenario_release(&plan.scenario);
    *status = j.status;
    return rc;
}

int main(int argc, char **argv)
{
    struct opt_set *set = NULL;
    struct err_ctx err = {0};
    struct buf answer = BUF_INIT(1u << 20);
    int status = 0, rc = opt_parse(&set, &tool, argc, argv, NULL, &answer, &err);
    if (!rc && answer.len) {
        fputs(buf_cstr(&answer), stdout);
    } else if (!rc) {
        log_set(log_to_stderr, NULL, opt_verbosity(set) > 0 ? LOG_DEBUG : LOG_WARN);
        rc = run(set, &status, &err);
    }
    if (rc)
        fprintf(stderr, "chat-loadgen: %s\n", err.text[0] ? err.text : err_text(rc));
    buf_release(&answer);
    opt_free(set);
    return rc ? err_exit_status(rc) : status;
}
