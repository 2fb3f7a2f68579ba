/* chat-netem: links that lose, delay and disappear, for any command. */
#include <stdio.h>
#include <string.h>

#include "cmd/chat-netem/calibrate.h"
#include "cmd/chat-netem/device.h"
#include "cmd/chat-netem/proxy.h"
#include "cmd/chat-netem/tool.h"
#include "util/log.h"

static const struct opt options[] = {
#include "cmd/chat-netem/options.def"
    OPT_END};

static const struct opt_command commands[] = {
    {"list", "", "the link profiles, a line each", 0, 0},
    {"show", "PROFILE", "a profile's numbers, each with its source", 1, 1},
    {"run", "PROFILE -- CMD...", "run a command behind a link", 1, 1},
    {"up", "FILE", "start the links of a file and leave them running", 1, 1},
    {"exec", "LINK -- CMD...", "run a command inside a link that is up", 1, 1},
    {"set", "LINK[/ADDRESS] CHANGE",
     "change a link that is up: 'blackout=5s', 'loss=5%,rate=1mbit', detach, attach; a proxy: add, remove, "
     "clear",
     2, 2},
    {"status", "[PROXY]", "the links that are up: networks, states, what they lost and why", 0, 1},
    {"down", "[LINK]", "end a link, or all of them", 0, 1},
    {"apply", "DEV PROFILE [-- CMD...]",
     "put a profile on a device by the kernel's sch_netem: until clear, for a time, or while CMD runs", 2, 2},
    {"show-dev", "DEV", "our rules on a device, read back from the kernel", 1, 1},
    {"clear", "DEV", "take our rules off a device", 1, 1},
    {"calibrate", "PROFILE|all", "are the links true? what was asked against what packets see, with tests", 1,
     1},
    {"proxy", "", "a TCP relay that injects faults, also by WebSocket frame; needs no root", 0, 0},
    {0}};

static const struct opt_tool tool = {
    .name = "chat-netem",
    .summary = "network links as phones have them, in user space",
    .description =
        "PROFILE is a name (chat-netem list), a JSON file, or inline, or a name with overrides: "
        "'rate=10mbit,delay=40ms,jitter=5ms,loss=2%,burst=4,queue=64kB', 'lte-good+handover+loss=1%'. "
        "Each value holds for "
        "each direction, delay is one-way; up.rate=, down.loss= set one direction.\n\n"
        "run makes two network namespaces, near (where CMD runs, every address of 198.18.0.0/16 a "
        "phone of its own with "
        "a radio of its own) and far (198.19.0.1, answers ping; --far starts a server there). CMD "
        "finds its addresses in "
        "CHAT_NETEM_LOCAL and CHAT_NETEM_PEER. Nothing is left behind, however it ends. Needs "
        "root and /dev/net/tun; "
        "no sch_netem.\n\n"
        "The exit status of run is CMD's own.\n\n"
        "up starts links that stay until down, all of one FILE: {\"links\": {\"lte\": {\"profile\": "
        "\"lte-lossy\", \"addresses\": 1000}, \"wifi\": {\"profile\": \"wifi\"}}, \"expose\": "
        "[\"80=127.0.0.1:8080\"], \"seed\": 42, \"trace\": DIR, \"capture\": DIR}. Each link has a near side "
        "of its own and a block of addresses (a number of phones, default 255, or "
        "\"198.18.4.0/22\"); they share the far side. Paths are relative to FILE. Links end with their "
        "keeper, however it dies, and with them what was started inside; status and down say when "
        "that happened, with status 1.\n\n"
        "CHANGE is a list of blackout=DURATION, detach, attach (these also for one ADDRESS alone), and "
        "words of a PROFILE, which are put into the link's own; a name or a file at the "
        "beginning replaces it whole.\n\n"
        "apply puts a PROFILE on DEV, a device of this machine, as rules of the kernel's sch_netem: until "
        "clear or, with CMD or --for, for that long, however the tool ends. DEV is the phone's: what it "
        "sends "
        "is the profile's up. What the kernel can't do is refused; blackouts, handovers and stalls are "
        "played "
        "while the tool runs. No rules but our own are touched. Packets that the device joins when it "
        "receives them (GRO) count as one in the downward queue: ethtool -K DEV gro off.\n\n"
        "proxy carries TCP connections and injects faults. Those by frame or message id follow WebSocket: "
        "text, "
        "binary, fragments, permessage-deflate. Same seed, bytes and order of connections, same faults.",
    .commands = commands,
    .options = options,
    .examples = "chat-netem show lte-lossy\n"
                "chat-netem run 'delay=40ms,loss=5%,burst=3' -- ping -c 100 -i 0.01 198.19.0.1\n"
                "chat-netem run lte-lossy --far 'iperf3 -s -1' -- iperf3 -c 198.19.0.1\n"
                "chat-netem run wifi --expose 8080=127.0.0.1:8080 -- ./my-client\n"
                "chat-netem up links.json --capture out && chat-netem status\n"
                "chat-netem exec lte --side far -- ./my-server &\n"
                "chat-netem exec lte -- ./my-client & chat-netem set lte blackout=5s\n"
                "chat-netem down\n"
                "chat-netem apply eth0 lte-good --partial -- ./my-client; chat-netem show-dev eth0\n"
                "chat-netem proxy -l 127.0.0.1:9000 --to 127.0.0.1:8080 --name px\n"
                "chat-netem set px 'add cut:id=UUID,dir=down' && chat-netem status px"};

static int list(void)
{
    const char *name, *summary;
    for (unsigned i = 0; netem_profile_list(i, &name, &summary); i++)
        printf("%-16s %s\n", name, summary);
    return 0;
}

static int show(const struct opt_set *o, struct err_ctx *err)
{
    struct buf out = BUF_INIT(1u << 20);
    int rc = netem_profile_show(&out, opt_operand(o, 0), opt_json(o), err);
    if (!rc)
        fputs(buf_cstr(&out), stdout);
    buf_release(&out);
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
        const char *command = opt_command(set);
        log_set(log_to_stderr, NULL, opt_verbosity(set) > 0 ? LOG_DEBUG : LOG_WARN);
        if (!strcmp(command, "list"))
            rc = list();
        else if (!strcmp(command, "show"))
            rc = show(set, &err);
        else if (!strcmp(command, "up"))
            rc = tool_up(set, &err);
        else if (!strcmp(command, "exec"))
            rc = tool_exec(set, &err);
        else if (!strcmp(command, "proxy"))
            rc = tool_proxy(set, &err);
        else if (!strcmp(command, "set"))
            rc = tool_proxy_has(opt_operand(set, 0)) ? tool_set_proxy(set, &err) : tool_set(set, &err);
        else if (!strcmp(command, "status") && opt_operands(set))
            rc = tool_status_proxy(set, &err);
        else if (!strcmp(command, "status"))
            rc = tool_status(set, &status, &err);
        else if (!strcmp(command, "down"))
            rc = tool_down(set, &status, &err);
        else if (!strcmp(command, "apply"))
            rc = tool_apply(set, &status, &err);
        else if (!strcmp(command, "show-dev"))
            rc = tool_show_dev(set, &err);
        else if (!strcmp(command, "calibrate"))
            rc = tool_calibrate(set, &status, &err);
        else if (!strcmp(command, "clear"))
            rc = tool_clear(set, &err);
        else
            rc = tool_run(set, &status, &err);
    }
    if (rc)
        fprintf(stderr, "chat-netem: %s\n", err.text[0] ? err.text : err_text(rc));
    buf_release(&answer);
    opt_free(set);
    return rc ? err_exit_status(rc) : status;
}
