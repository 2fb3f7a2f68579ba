/* The server's store, for the audit; everything else a run leaves is read by scenario/evidence.h. */
#include "run/chaos_impl.h"
#include "store/store.h"
#include "util/clock.h"

static int feed_store(void *arg, struct audit *a, struct err_ctx *ctx)
{
    const struct chaos *c = arg;
    char url[600], keys[600];
    struct store *store;
    struct store_config config = {
        .url = url, .keys_dir = keys, .now_us = clock_wall_us(), .random = clock_mono_ns() | 1};
    struct audit_feed f = {.audit = a, .ctx = ctx};
    snprintf(url, sizeof url, "rocksdb:%s/data/store", c->dir);
    chaos_path(c, keys, sizeof keys, "keys");
    int rc = store_open(&store, &config, ctx);
    if (rc)
        return rc;
    rc = store_scan(store, audit_feed_entry, &f, ctx);
    store_close(store, NULL);
    return rc ? rc : f.rc;
}

struct evidence chaos_evidence(struct chaos *c)
{
    return (struct evidence){
        .s = &c->s, .dir = c->dir, .out = c->out, .doubt = c->doubt, .note = c->note, .drained = c->drained};
}

int chaos_read_journal(struct chaos *c, struct judge_facts *facts, struct err_ctx *ctx)
{
    struct evidence e = chaos_evidence(c);
    return evidence_journal(&e, facts, feed_store, c, ctx);
}
