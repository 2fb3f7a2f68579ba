/* chatd-server: options to configuration, then lib/run does the work. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cmd/chatd-server/commands.h"
#include "run/server.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/opt.h"

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

static struct opt_set *set;

/* The parts of the configuration that SIGHUP may change. */
static void fill_limits(struct server_config *c, const struct opt_set *o)
{
    c->limits = node_limits_default();
    c->limits.sessions_per_user = (uint32_t)opt_u64(o, "sessions-per-user");
    c->limits.rate_per_s = (uint32_t)opt_u64(o, "rate");
    c->limits.rate_burst = (uint32_t)opt_u64(o, "burst");
    c->limits.sending_per_conn = (uint32_t)opt_u64(o, "in-flight");
    c->limits.body_max = (uint32_t)opt_u64(o, "body-max");
    c->limits.queue_bytes = (uint32_t)opt_u64(o, "queue");
    c->limits.backlog_max = opt_u64(o, "backlog");
    c->limits.chats_max = (uint32_t)opt_u64(o, "chats-per-user");
    c->ack_timeout_ns = opt_u64(o, "ack-timeout");
    c->limits.slow_ms =
        (uint32_t)((opt_given(o, "slow") ? opt_u64(o, "slow") : c->ack_timeout_ns / 2) / NS_PER_MS);
    c->idle_timeout_ns = opt_u64(o, "idle-timeout");
}

static int reload(void *arg, struct server_config *fresh)
{
    (void)arg;
    struct opt_set *next;
    struct err_ctx err = {0};
    struct buf ignored = BUF_INIT(4096);
    int rc = opt_reload(&next, set, &ignored, &err);
    if (rc) {
        log_error("reload: %s; nothing was changed", err.text);
    } else {
        if (ignored.len)
            log_warn("reload: needs a restart: %s", buf_cstr(&ignored));
        fill_limits(fresh, next);
        opt_free(next);
    }
    buf_release(&ignored);
    return rc;
}

static void ready(void *arg, int port)
{
    const struct server_config *c = arg;
    log_info("listening on %s (port %d), store %s, keys %s", c->listen, port, c->store_url, c->keys_dir);
}

static int serve(struct err_ctx *err)
{
    static struct server_config c;
    char url[4096];
    struct err_ctx why = {0};
    if (delivery_parse(&c.features, opt_string(set, "delivery"), &why) ||
        delivery_fanout_parse(&c.sequential_ns, opt_string(set, "fanout"), &why))
        return err_set(err, ERR_USAGE, "%s", why.text);
    const char *presence = opt_string(set, "presence");
    c.presence_legacy = !strcmp(presence, "legacy");
    if (!c.presence_legacy && strcmp(presence, "current") != 0)
        return err_set(err, ERR_USAGE, "--presence '%s' is neither current nor legacy", presence);
    snprintf(url, sizeof url, "rocksdb:%s/store", opt_string(set, "data"));
    c.store_url = opt_string(set, "store")        ? opt_string(set, "store")
                  : c.features & DELIVERY_DURABLE ? url
                                                  : "mem:";
    c.listen = opt_string(set, "listen");
    c.keys_dir = opt_string(set, "keys");
    c.trace_dir = opt_string(set, "trace");
    c.trace_sample = (uint32_t)opt_u64(set, "trace-sample");
    c.bus_url = opt_string(set, "bus");
    c.self = (uint16_t)(opt_u64(set, "node") < UINT16_MAX ? opt_u64(set, "node") : UINT16_MAX);
    c.nodes = (uint16_t)(opt_u64(set, "nodes") < UINT16_MAX ? opt_u64(set, "nodes") : UINT16_MAX);
    c.threads = (uint16_t)(opt_u64(set, "threads") < UINT16_MAX ? opt_u64(set, "threads") : UINT16_MAX);
    c.conns_max = (uint32_t)opt_u64(set, "connections");
    c.beat_s = (uint32_t)(opt_u64(set, "beat") / NS_PER_S);
    c.coalesce_max = (uint32_t)opt_u64(set, "coalesce");
    c.drain_ns = opt_u64(set, "drain-timeout");
    c.recover_for_ns = opt_u64(set, "recover-for");
    c.reserve_bytes = opt_u64(set, "reserve");
    c.clock_shift_us = (int64_t)(opt_u64(set, "clock-shift") / NS_PER_US);
    c.seed = opt_given(set, "seed") ? opt_seed(set) : 0;
    c.reload = reload;
    c.ready = ready;
    c.arg = &c;
    fill_limits(&c, set);
    int rc = server_bus_check(&c, err);
    if (rc)
        return rc;
    if (opt_flag(set, "check-config"))
        return 0;
    if (opt_flag(set, "print-config")) {
        struct buf out = BUF_INIT(1u << 16);
        opt_print_config(set, &out);
        fputs(buf_cstr(&out), stdout);
        buf_release(&out);
        return 0;
    }
    if (c.store_url == url && mkdir(opt_string(set, "data"), 0750) && errno != EEXIST)
        return err_errno(err, "%s: cannot make the folder", opt_string(set, "data"));
    return damage_remedy(server_run(&c, err), opt_string(set, "data"), err);
}

static int run(const char *command, struct err_ctx *err)
{
    static const struct {
        const char *name;
        int (*run)(const struct opt_set *o, struct err_ctx *err);
    } beside[] = {{"token", command_token},     {"backup", command_backup}, {"verify", command_verify},
                  {"restore", command_restore}, {"repair", command_repair}, {"lb-config", command_lb_config}};
    for (size_t i = 0; i < sizeof beside / sizeof *beside; i++)
        if (!strcmp(command, beside[i].name))
            return beside[i].run(set, err);
    return serve(err);
}

int main(int argc, char **argv)
{
    struct err_ctx err = {0};
    struct buf answer = BUF_INIT(1u << 20);
    int rc = opt_parse(&set, &tool, argc, argv, "config", &answer, &err);
    if (!rc && answer.len) {
        fputs(buf_cstr(&answer), stdout);
    } else if (!rc) {
        int v = opt_verbosity(set);
        log_set(log_to_stderr, NULL, v < 0 ? LOG_ERROR : v > 0 ? LOG_DEBUG : LOG_INFO);
        rc = run(opt_command(set), &err);
    }
    if (rc)
        fprintf(stderr, "chatd-server: %s\n", err.text[0] ? err.text : err_text(rc));
    buf_release(&answer);
    opt_free(set);
    return err_exit_status(rc);
}
