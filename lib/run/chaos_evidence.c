/* The store of each server, for the audit; everything else a run leaves is read by scenario/evidence.h. */
#include "run/chaos_impl.h"
#include "store/store.h"
#include "util/clock.h"

static int feed_one(const struct chaos *c, uint32_t node, struct audit *a, struct err_ctx *ctx)
{
    char data[600], url[640], keys[600], of[16];
    struct store *store;
    struct store_config config = {
        .url = url, .keys_dir = keys, .now_us = clock_wall_us(), .random = clock_mono_ns() | 1};
    struct audit_feed f = {.audit = a, .ctx = ctx};
    chaos_server_path(c, node, data, sizeof data, "data", "");
    snprintf(url, sizeof url, "rocksdb:%s/store", data);
    snprintf(of, sizeof of, "keys/node%u", node); /* each of several has its mark there */
    chaos_path(c, keys, sizeof keys, c->s.server_nodes > 1 ? of : "keys");
    int rc = store_open(&store, &config, ctx);
    if (rc)
        return rc;
    rc = store_scan(store, audit_feed_entry, &f, ctx);
    store_close(store, NULL);
    return rc ? rc : f.rc;
}

static int feed_stores(void *arg, struct audit *a, struct err_ctx *ctx)
{
    const struct chaos *c = arg;
    int rc = 0;
    for (uint32_t i = 0; i < c->s.server_nodes && !rc; i++)
        rc = feed_one(c, i, a, ctx);
    return rc;
}

struct evidence chaos_evidence(struct chaos *c)
{
    return (struct evidence){
        .s = &c->s, .dir = c->dir, .out = c->out, .doubt = c->doubt, .note = c->note, .drained = c->drained};
}

int chaos_read_journal(struct chaos *c, struct judge_facts *facts, struct err_ctx *ctx)
{
    struct evidence e = chaos_evidence(c);
    return evidence_journal(&e, facts, feed_stores, c, ctx);
}
