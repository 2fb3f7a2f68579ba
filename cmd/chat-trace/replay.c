/* replay: the clients of an incident once more, against a server. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/chat-trace/tool.h"
#include "core/client.h"
#include "run/replay.h"

struct replaying {
    const struct opt_set *o;
    bool same;
    int status;
};

static void about(void *arg, const struct replay_facts *f)
{
    const struct replaying *p = arg;
    const struct replay *r = f->replay;
    if (opt_verbosity(p->o) < 0)
        return;
    fprintf(stderr,
            "chat-trace: from the %s: %u phones in %u chats, %u messages, %u sent again by hand, %u "
            "connections lost, "
            "%u of them dead before they ended; %.1f s\n",
            f->kind, r->script.phones, r->script.chats, r->says, r->presses, r->leaves, r->freezes,
            (double)r->duration_ns / 1e9);
    if (r->bodies_unknown)
        fprintf(stderr, "chat-trace: %u messages are said with a placeholder: the %s keeps no texts\n",
                r->bodies_unknown, f->kind);
    if (r->connections_skipped)
        fprintf(stderr, "chat-trace: %u connections of people's further devices are left out\n",
                r->connections_skipped);
    if (f->problems)
        fprintf(stderr,
                "chat-trace: the %s is not whole (%" PRIu64 " problems): what it lacks is not replayed\n",
                f->kind, f->problems);
    if (p->same && f->too_old)
        fprintf(stderr,
                "chat-trace: %u of %u ids are older than the server's window of 30 days, or no UUIDv7 of our "
                "time: it will "
                "refuse them; --ids fresh replays them\n",
                f->too_old, f->messages);
}

static void report(void *arg, const struct load *l, bool interrupted)
{
    struct replaying *p = arg;
    struct buf out = BUF_INIT(1u << 20);
    const char *doubt = load_doubt(l);
    struct load_status s;
    load_status(l, &s);
    if (load_result(l, NULL) && !interrupted && !s.began)
        return; /* the error says it all */
    (opt_json(p->o) ? load_report_json : load_report_text)(l, &out);
    fputs(buf_cstr(&out), stdout);
    if (out.len && out.data[out.len - 1] != '\n')
        putchar('\n');
    if (doubt)
        fprintf(stderr, "chat-trace: inconclusive: %s\n", doubt);
    p->status = interrupted ? err_exit_status(ERR_INTERRUPTED) : s.delivered < s.expected ? 1 : doubt ? 2 : 0;
    buf_release(&out);
}

/* "0.5", "2x", "max" */
static int read_speed(uint64_t *ppm, const char *text, struct err_ctx *err)
{
    char *end;
    double x = strtod(text, &end);
    *ppm = 0;
    if (!strcmp(text, "max"))
        return 0;
    if (end == text || (*end && strcmp(end, "x")) || !(x >= 0.001 && x <= 1000))
        return err_set(err, ERR_USAGE, "--speed '%s': 0.5, 2x (0.001 to 1000) or max is wanted", text);
    *ppm = (uint64_t)(x * 1e6 + 0.5);
    return 0;
}

static int read_options(struct replay_config *c, const struct opt_set *o, struct err_ctx *err)
{
    const char *client = opt_string(o, "client"), *url = opt_string(o, "to");
    uint8_t features = 0;
    int rc = read_speed(&c->options.speed_ppm, opt_string(o, "speed"), err);
    c->options.features = -1;
    c->options.same_ids = !strcmp(opt_string(o, "ids"), "same");
    c->users_file = opt_string(o, "map-users");
    if (!rc && strcmp(client, "as-recorded")) {
        if (client_features_parse(&features, client, err))
            rc = err_set(err, ERR_USAGE,
                         "--client '%s': reliable, legacy, or legacy+retry+ack+resync is wanted", client);
        c->options.features = features;
    }
    if (!rc && !url)
        rc = err_set(err, ERR_USAGE, "replay: --to ws://IP:PORT/ is missing");
    c->loadgen = (struct loadgen_config){.keys_dir = opt_string(o, "keys"),
                                         .trace_dir = opt_string(o, "trace"),
                                         .progress = opt_verbosity(o) >= 0 && isatty(2),
                                         .load = {.seed = opt_seed(o), .drain_ns = opt_u64(o, "drain")}};
    return rc ? rc : loadgen_parse_url(&c->loadgen, url, err);
}

int tool_replay(const struct opt_set *o, int *status, struct err_ctx *err)
{
    const char *sources[256];
    char ids[4096];
    struct replay_config c = {.sources = sources};
    struct replaying p = {.o = o};
    const struct replay_ops ops = {.about = about, .report = report, .arg = &p};
    for (int i = 0; i < opt_operands(o) && i < 256; i++)
        sources[c.sources_n++] = opt_operand(o, i);
    int rc = read_options(&c, o, err);
    p.same = c.options.same_ids;
    if (!rc && c.loadgen.trace_dir) {
        mkdir(c.loadgen.trace_dir, 0755); /* trace_open says what is wrong with it */
        if (snprintf(ids, sizeof ids, "%s/" TOOL_REPLAY_IDS, c.loadgen.trace_dir) >= (int)sizeof ids)
            return err_set(err, ERR_USAGE, "--trace: the path is too long");
        c.ids_file = ids;
    }
    rc = rc ? rc : replay_run(&c, &ops, err);
    *status = p.status;
    return rc;
}
