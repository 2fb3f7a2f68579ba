/* serve: options to configuration, then lib/run does the work. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cmd/chatd-server/commands.h"
#include "run/server.h"
#include "util/clock.h"
#include "util/log.h"

static const struct opt_set *set; /* as started; SIGHUP compares with it */

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
    c->limits.receipts_each = (uint32_t)opt_u64(o, "receipts-each");
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

static uint16_t small(const char *name)
{
    uint64_t n = opt_u64(set, name);
    return n < UINT16_MAX ? (uint16_t)n : UINT16_MAX;
}

int command_serve(const struct opt_set *o, struct err_ctx *err)
{
    static struct server_config c;
    char url[4096];
    set = o;
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
    if (opt_string(set, "only"))
        c.store_url = "mem:"; /* it keeps nothing */
    c.listen = opt_string(set, "listen");
    c.keys_dir = opt_string(set, "keys");
    c.trace_dir = opt_string(set, "trace");
    c.trace_sample = (uint32_t)opt_u64(set, "trace-sample");
    c.bus_url = opt_string(set, "bus");
    const char *only = opt_string(set, "only"), *shared = opt_string(set, "presence-store");
    c.presence_url = !shared ? c.bus_url : strcmp(shared, "memory") ? shared : NULL;
    c.presence_only = only != NULL;
    if (only && strcmp(only, "presence") != 0)
        return err_set(err, ERR_USAGE, "--only '%s': only presence can run alone", only);
    c.self = small("node");
    c.nodes = small("nodes");
    c.threads = small("threads");
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
    rc = rc ? rc : server_shared_check(&c, err);
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
