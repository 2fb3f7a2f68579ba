/* chat-trace: which messages were lost, where, and why. */
#include <stdio.h>
#include <string.h>

#include "cmd/chat-trace/tool.h"

static const struct opt options[] = {
#include "cmd/chat-trace/options.def"
    OPT_END};

static const struct opt_command commands[] = {
    {"funnel", "DIR...", "a verdict for every (message, recipient), by network", 1, -1},
    {"pairs", "DIR...", "the pairs that were not delivered, or of a verdict, and why", 1, -1},
    {"explain", "ID DIR...", "one message's life on one screen", 2, -1},
    {"slow", "DIR...", "the slowest messages and what they waited for", 1, -1},
    {"dump", "DIR...", "the records themselves", 1, -1},
    {"diff", "DIR DIR", "verdicts before and after", 2, 2},
    {"pcap", "[FILE...]", "the WebSocket messages in captures, or on an interface", 0, -1},
    {"replay", "DIR...|FILE...", "the clients of an incident once more, against a server", 1, -1},
    {"top", "[DIR...]", "what happens now, in traces or on an interface: the funnel per second", 0, -1},
    {"export", "DIR...", "the trace in a form that others read: Perfetto, Wireshark, OTLP, CI", 1, -1},
    {0}};

static const struct opt_tool tool = {
    .name = "chat-trace",
    .summary = "finds the hop and the packet where a message was lost",
    .description =
        "Reads the folders that chatd-server --trace, chat-loadgen --trace, chat-netem --trace and "
        "chat-chaos "
        "write, joins them by message id, and gives each (message, recipient) one verdict that cites its "
        "records. What the records do not prove is not_observed, never a loss. Captures (pcap, pcapng) among "
        "the folders stand in for the sides that wrote no trace: the phones' end, the server's end, or "
        "both.\n\n"
        "TLS in captures is recognised and not decrypted. With its key log, Wireshark's tshark writes the "
        "plain "
        "bytes, which are read here: tshark -r tls.pcap -o tls.keylog_file:KEYS -U 'OSI layer 7' -w "
        "plain.pcapng; "
        "chat-trace pcap -r plain.pcapng\n\n"
        "Exit status of funnel: 0 nothing lost, 1 something lost, 2 nothing lost but some pairs not "
        "observed; 65 when a file could not be read whole.",
    .commands = commands,
    .options = options,
    .examples = "chat-trace funnel reports/out/mobile-loss-before/trace\n"
                "chat-trace explain 0193a1c2-7b1e-7c4a-9d55-0a1b2c3d4e5f trace\n"
                "chat-trace pairs --verdict lost_uplink,not_observed trace\n"
                "chat-trace slow -n 5 trace\n"
                "chat-trace dump --hop link_drop --json trace\n"
                "chat-trace export --format perfetto -o trace.json trace\n"
                "chat-trace replay before/trace --to ws://127.0.0.1:8080/ --client reliable --trace after\n"
                "chat-trace diff before/trace after"};

static int explain(const struct trace_run *r, const char *text, struct err_ctx *err)
{
    struct id id;
    struct buf out = BUF_INIT(16u << 20);
    if (id_parse(&id, text, strlen(text)))
        return err_set(err, ERR_USAGE, "explain: '%s' is no message id (36 characters, 0193a1c2-...)", text);
    int rc = trace_explain(r, &id, &out, err);
    if (!rc)
        fputs(buf_cstr(&out), stdout);
    buf_release(&out);
    return rc;
}

static int run(const struct opt_set *o, int *status, struct err_ctx *err)
{
    const char *command = opt_command(o), *dirs[256];
    if (!strcmp(command, "pcap"))
        return tool_pcap(o, status, err);
    if (!strcmp(command, "replay"))
        return tool_replay(o, status, err);
    if (!strcmp(command, "top"))
        return tool_top(o, status, err);
    bool explaining = !strcmp(command, "explain"), diffing = !strcmp(command, "diff");
    struct trace_run r = {0}, second = {0};
    int n = 0;
    for (int i = explaining; i < opt_operands(o) && n < 256; i++)
        dirs[n++] = opt_operand(o, i);
    int rc = tool_load(&r, opt_string(o, "dialect"), dirs, diffing ? 1 : n,
                       strcmp(command, "dump") ? TOOL_JOIN : 0, err);
    if (!rc && diffing)
        rc = tool_load(&second, opt_string(o, "dialect"), dirs + 1, 1, TOOL_JOIN, err);
    if (rc)
        ;
    else if (explaining)
        rc = explain(&r, opt_operand(o, 0), err);
    else if (diffing)
        rc = tool_diff(&r, &second, o, status, err);
    else if (!strcmp(command, "funnel"))
        rc = tool_funnel(&r, o, status, err);
    else if (!strcmp(command, "pairs"))
        rc = tool_pairs(&r, o, status, err);
    else if (!strcmp(command, "slow"))
        rc = tool_slow(&r, o, err);
    else if (!strcmp(command, "export"))
        rc = tool_export(&r, o, err);
    else
        rc = tool_dump(&r, o, err);
    if (!rc && (r.problems || second.problems))
        *status = err_exit_status(ERR_CORRUPT); /* what was printed rests on a part of the input */
    trace_run_release(&r);
    trace_run_release(&second);
    return rc;
}

int main(int argc, char **argv)
{
    struct opt_set *set = NULL;
    struct err_ctx err = {0};
    struct buf answer = BUF_INIT(1u << 20);
    int status = 0, rc = opt_parse(&set, &tool, argc, argv, NULL, &answer, &err);
    if (!rc && answer.len)
        fputs(buf_cstr(&answer), stdout);
    else if (!rc)
        rc = run(set, &status, &err);
    if (rc)
        fprintf(stderr, "chat-trace: %s\n", err.text[0] ? err.text : err_text(rc));
    buf_release(&answer);
    opt_free(set);
    return rc ? err_exit_status(rc) : status;
}
