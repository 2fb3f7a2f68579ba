/* chatd-server: its options and commands. */
#include <string.h>

#include "cmd/chatd-server/commands.h"
#include "cmd/tool_main.h"
#include "util/log.h"

static const struct opt options[] = {
#include "cmd/chatd-server/options.def"
    OPT_END};

static const struct opt_command commands[] = {
    {"serve", "", "run the server (the default)", 0, 0},
    {"token", "", "print a token that --user may log in with", 0, 0},
    {"backup", "", "copy the store, also while a server runs on it, and verify the copy", 0, 0},
    {"verify", "DIR", "is every file and every row of a backup whole?", 1, 1},
    {"restore", "", "make a backup the store, in a new epoch", 0, 0},
    {"repair", "", "save what can be read of a damaged store, and say what is lost", 0, 0},
    {"lb-config", "HOST:PORT...", "print a configuration of HAProxy for these nodes", 1, 64},
    {0}};

static const struct opt_tool tool = {
    .name = "chatd-server",
    .summary = "a chat server that loses nothing, and can be told to",
    .description =
        "With no flag at all this is the full server: clients on ws://127.0.0.1:8080/ (subprotocol chat.v1), "
        "messages in ./chatd-data, keys in ./chatd-keys. Every message is durable before it is "
        "acknowledged, and redelivered until each device has acknowledged it.\n\n"
        "SIGTERM drains within --drain-timeout and tells clients to reconnect; SIGHUP reads the "
        "configuration file again. HTTP on the same port: /healthz, /readyz, /metrics, /history/CHAT.",
    .commands = commands,
    .default_first = true,
    .options = options,
    .env_prefix = "CHATD_",
    .examples = "chatd-server\n"
                "chatd-server token --user 7 --ttl 1d\n"
                "chatd-server backup --to backups --keep 7\n"
                "chatd-server --bus redis://127.0.0.1 --node 0 --nodes 3\n"
                "chatd-server lb-config --listen :8000 10.0.0.1:8080 10.0.0.2:8080 10.0.0.3:8080\n"
                "chatd-server --config chatd.json --check-config\n"
                "curl -s 127.0.0.1:8080/metrics"};

static int run(struct opt_set *o, int *status, struct err_ctx *err)
{
    static int (*const command[])(const struct opt_set *o, struct err_ctx *err) = {
        command_serve,   command_token,  command_backup,   command_verify,
        command_restore, command_repair, command_lb_config};
    int v = opt_verbosity(o);
    size_t i = 0;
    log_set(log_to_stderr, NULL, v < 0 ? LOG_ERROR : v > 0 ? LOG_DEBUG : LOG_INFO);
    while (strcmp(commands[i].name, opt_command(o)) != 0)
        i++;
    *status = 0;
    return command[i](o, err);
}

int main(int argc, char **argv)
{
    return tool_main(&tool, "config", run, argc, argv);
}
