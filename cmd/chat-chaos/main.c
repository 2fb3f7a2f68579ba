/* chat-chaos: plays scenario files and judges them. */
#include <stdio.h>
#include <string.h>

#include "cmd/chat-chaos/tool.h"
#include "util/log.h"

static const struct opt options[] = {
#include "cmd/chat-chaos/options.def"
    OPT_END};

static const struct opt_command commands[] = {
    {"run", "FILE", "play a scenario and judge its expectations", 1, 1},
    {"explore", "", "draw scenarios from seeds and hold them against the invariants, simulated", 0, 0},
    {"list", "", "the scenarios that are found", 0, 0},
    {"show", "FILE", "say what a scenario would do", 1, 1},
    {"new", "NAME", "write a scenario to start from into ./NAME.json", 1, 1},
    {"compare", "DIR DIR", "one page of two runs, the first being before", 2, 2},
    {0}};

static const struct opt_tool tool = {
    .name = "chat-chaos",
    .summary = "break a chat service on purpose, and judge what came of it",
    .description =
        "A scenario file says who chats over which networks, what breaks when, and what is "
        "expected all the same. "
        "run plays it with real processes in network namespaces of its own, in two phases: "
        "faults, then heal and "
        "drain. Each expectation is judged as pass, fail or unknown - the latter when the run "
        "proves neither, for "
        "example because the load generator itself could not keep its rate. Scenarios with links "
        "need root and "
        "/dev/net/tun.\n\n"
        "--world sim plays the same file in one process and virtual time, a hundred times faster, and "
        "checks the "
        "invariants at every step; explore does so with scenarios of its own. A seed gives the same "
        "events each "
        "time.\n\n"
        "Results: summary.json, report.html (one self-contained page), junit.xml and the traces. "
        "With several "
        "--variant, a page that compares the first two; before+3g is one run with both variants' "
        "changes.\n\n"
        "Exit status: 0 all expectations hold, 1 one failed, 2 unknown; 64 wrong usage, 65 a bad "
        "scenario file, 69 "
        "something needed is missing, 77 not permitted, 130 interrupted.",
    .commands = commands,
    .options = options,
    .examples = "chat-chaos list\n"
                "chat-chaos show mobile-loss\n"
                "sudo chat-chaos run mobile-loss --variant before --variant after\n"
                "chat-chaos run mobile-loss --world sim --seed 7\n"
                "chat-chaos explore --seeds 1..1000\n"
                "chat-chaos compare reports/out/mobile-loss/before reports/out/mobile-loss/after"};

volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

static int dispatch(const struct opt_set *set, struct err_ctx *ctx)
{
    static const struct {
        const char *name;
        int (*run)(const struct opt_set *set, struct err_ctx *ctx);
    } table[] = {{"run", tool_run},   {"explore", tool_explore}, {"list", tool_list},
                 {"show", tool_show}, {"new", tool_new},         {"compare", tool_compare}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (strcmp(opt_command(set), table[i].name) == 0)
            return table[i].run(set, ctx);
    }
    return err_set(ctx, ERR_USAGE, "which command?");
}

int main(int argc, char **argv)
{
    struct err_ctx ctx = {0};
    struct buf answer = BUF_INIT(1u << 20);
    struct opt_set *set = NULL;
    struct sigaction sa = {.sa_handler = on_signal};
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGHUP, &sa, NULL);
    signal(SIGPIPE, SIG_IGN);
    int rc = opt_parse(&set, &tool, argc, argv, NULL, &answer, &ctx);
    if (!rc && answer.len) {
        fputs(buf_cstr(&answer), stdout);
    } else if (!rc) {
        log_set(log_to_stderr, NULL, opt_verbosity(set) > 0 ? LOG_DEBUG : LOG_WARN);
        rc = dispatch(set, &ctx);
    }
    if (rc < 0)
        fprintf(stderr, "chat-chaos: %s\n", ctx.text[0] ? ctx.text : err_text(rc));
    if (fflush(stdout) && rc == 0) {
        perror("chat-chaos: stdout");
        rc = ERR_IO;
    }
    buf_release(&answer);
    opt_free(set);
    return rc < 0 ? err_exit_status(rc) : rc;
}
