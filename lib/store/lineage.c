/* Which incarnation of the store this is: meta rows, and the rule of the mark. */
#include <stdlib.h>
#include <string.h>

#include "store/store_impl.h"
#include "util/log.h"
#include "util/map.h"
#include "util/mutant.h"

#define LINEAGE_MAX   4096u /* epochs; one per restore */
#define LINEAGE_BYTES 36    /* epoch, started, ended, generation, check */

static void meta_key(struct row_key *k, const char *name)
{
    k->n = (uint8_t)strlen(name);
    memcpy(k->b, name, k->n);
}

static void lineage_key(struct row_key *k, uint32_t i)
{
    meta_key(k, "lineage/");
    put_u32(k->b + k->n, i);
    k->n += 4;
}

/* A meta number, 0 when it is missing. */
static int meta_u64(struct store *s, const char *name, uint64_t *v, bool *there, struct err_ctx *ctx)
{
    struct row_key k;
    struct buf b = BUF_INIT(64);
    meta_key(&k, name);
    int rc = s->kv->ops->get(s->kv, KV_META, key_bytes(&k), &b, ctx);
    *there = rc == 0;
    *v = 0;
    if (rc == ERR_NOTFOUND)
        rc = 0;
    else if (rc == 0 && b.len != 8)
        rc = err_set(ctx, ERR_CORRUPT, "meta row %s: wrong length", name);
    else if (rc == 0)
        *v = get_u64((const uint8_t *)b.data);
    buf_release(&b);
    return rc;
}

struct load {
    struct store *s;
    struct err_ctx *ctx;
    int rc;
};

static int add_epoch(struct store *s, struct lineage_entry e, struct err_ctx *ctx)
{
    struct lineage_entry *l = realloc(s->lineage, (s->lineage_n + 1) * sizeof *l);
    if (!l)
        return err_set(ctx, ERR_NOMEM, "lineage: out of memory");
    s->lineage = l;
    l[s->lineage_n++] = e;
    return s->lineage_n > LINEAGE_MAX ? err_set(ctx, ERR_LIMIT, "lineage: more than %u epochs", LINEAGE_MAX)
                                      : 0;
}

static bool load_epoch(void *arg, struct kv_bytes key, struct kv_bytes val)
{
    struct load *l = arg;
    const uint8_t *p = val.p;
    if (val.n != LINEAGE_BYTES || get_u32(p + 32) != row_check(key, p, 32)) {
        l->rc = row_corrupt(l->ctx, "meta lineage", key, "wrong length or check sum");
        return false;
    }
    l->s->generation = get_u64(p + 24);
    l->rc = add_epoch(l->s, (struct lineage_entry){get_u64(p), get_u64(p + 8), get_u64(p + 16)}, l->ctx);
    return l->rc == 0;
}

static bool load_last_log(void *arg, struct kv_bytes key, struct kv_bytes val)
{
    struct load *l = arg;
    if (key.n != 8 || val.n != ROW_LOG_BYTES)
        l->rc = row_corrupt(l->ctx, "log", key, "wrong length");
    else
        l->s->commit_index = get_u64(key.p);
    return false;
}

/* The commit index is the key of the last log row: no second copy that could disagree. */
int lineage_load(struct store *s, struct err_ctx *ctx)
{
    struct load l = {s, ctx, 0};
    struct row_key from, to;
    uint64_t format = 0;
    bool there = false, counted = false, bounded = false, whole = false;
    struct kv_bytes all = {NULL, 0};
    int rc = meta_u64(s, "format", &format, &there, ctx);
    if (rc == 0 && there && format != STORE_FORMAT)
        rc = err_set(ctx, ERR_UNSUPPORTED, "the store has format %llu, this program knows %d",
                     (unsigned long long)format, STORE_FORMAT);
    if (rc == 0)
        rc = meta_u64(s, "opens", &s->opens, &counted, ctx);
    if (rc == 0)
        rc = meta_u64(s, "ids_before", &s->ids_before_ms, &bounded, ctx);
    if (rc == 0)
        rc = meta_u64(s, "whole", &s->whole_epoch, &whole, ctx);
    lineage_key(&from, 0);
    lineage_key(&to, UINT32_MAX);
    if (rc == 0)
        rc = s->kv->ops->scan(s->kv, KV_META, key_bytes(&from), key_bytes(&to), false, load_epoch, &l, ctx);
    if (rc == 0 && l.rc == 0)
        rc = s->kv->ops->scan(s->kv, KV_LOG, all, all, true, load_last_log, &l, ctx);
    if (rc == 0)
        rc = l.rc;
    s->empty = !there;
    if (!bounded && s->commit_index)
        s->ids_before_ms = UINT64_MAX;
    if (rc == 0 && (there != counted || there != (s->lineage_n > 0) || (!there && s->commit_index)))
        rc = err_set(ctx, ERR_CORRUPT, "meta rows are missing (format, opens or lineage)");
    return rc;
}

static bool known(const struct store *s, uint64_t epoch)
{
    for (size_t i = 0; i < s->lineage_n; i++)
        if (s->lineage[i].epoch == epoch)
            return true;
    return false;
}

/* Why the store is a copy, or NULL. */
static const char *behind(const struct store *s, const struct mark *m)
{
    if (!known(s, m->epoch))
        return "its epoch is not one of the store's";
    if (m->epoch != store_epoch(s))
        return NULL;
    if (m->opens > s->opens)
        return "the store was opened more often than it knows";
    if (m->commit > s->commit_index)
        return "the store lacks entries that were committed";
    return NULL;
}

/* 0 with *fresh_epoch decided; *m is zero when there is no mark. */
static int decide(struct store *s, const struct store_config *c, struct mark *m, bool *fresh_epoch,
                  struct err_ctx *ctx)
{
    struct err_ctx why = {0};
    *m = (struct mark){0};
    *fresh_epoch = s->empty || c->restored;
    if (!s->keys_dir)
        return 0;
    int rc = mark_read(m, s->keys_dir, &why);
    if (rc == ERR_NOTFOUND || rc == ERR_CORRUPT) {
        *m = (struct mark){0};
        if (s->commit_index == 0) /* a crash between the first open's commit and its mark */
            return 0;
        log_warn("%s; the store may be a copy: it starts a new epoch", why.text);
        *fresh_epoch = true;
        return 0;
    }
    if (rc)
        return err_set(ctx, rc, "%s", why.text);
    const char *reason = MUTANT(EPOCH_NOT_RAISED) ? NULL : behind(s, m);
    if (reason && !(s->empty && m->commit == 0))
        log_warn("%s/mark: %s: the store is a copy and starts a new epoch", s->keys_dir, reason);
    *fresh_epoch |= reason != NULL;
    return 0;
}

static uint64_t name_epoch(const struct store *s, uint64_t random)
{
    uint64_t e = random & INT64_MAX;
    while (e == 0 || known(s, e))
        e = hash_bytes(&random, sizeof random, e + 1) & INT64_MAX;
    return e;
}

/* The current epoch ends, one that only the mark knows is noted, a new one begins. */
static int begin_epoch(struct store *s, const struct store_config *c, const struct mark *m,
                       struct err_ctx *ctx)
{
    int rc = 0;
    uint64_t at = s->commit_index, generation = s->generation > m->generation ? s->generation : m->generation;
    if (s->lineage_n)
        s->lineage[s->lineage_n - 1].ended_commit = at;
    if (m->epoch && !known(s, m->epoch))
        rc = add_epoch(s, (struct lineage_entry){m->epoch, 0, at}, ctx);
    s->generation = s->lineage_n ? generation + 1 : 0;
    s->epoch_is_new = s->lineage_n > 0;
    return rc ? rc
              : add_epoch(s, (struct lineage_entry){name_epoch(s, c->random), c->now_us, UINT64_MAX}, ctx);
}

void put_meta(struct store *s, const char *name, uint64_t v)
{
    struct row_key k;
    uint8_t b[8];
    meta_key(&k, name);
    put_u64(b, v);
    s->kv->ops->put(s->batch, KV_META, key_bytes(&k), (struct kv_bytes){b, 8});
}

static void put_lineage(struct store *s)
{
    for (size_t i = 0; i < s->lineage_n; i++) {
        struct row_key k;
        uint8_t b[LINEAGE_BYTES];
        lineage_key(&k, (uint32_t)i);
        put_u64(b, s->lineage[i].epoch);
        put_u64(b + 8, s->lineage[i].started_us);
        put_u64(b + 16, s->lineage[i].ended_commit);
        put_u64(b + 24, s->generation);
        put_u32(b + 32, row_check(key_bytes(&k), b, 32));
        s->kv->ops->put(s->batch, KV_META, key_bytes(&k), (struct kv_bytes){b, sizeof b});
    }
}

int lineage_open(struct store *s, const struct store_config *c, struct err_ctx *ctx)
{
    struct mark m;
    bool fresh_epoch;
    int rc = decide(s, c, &m, &fresh_epoch, ctx);
    if (rc == 0 && fresh_epoch)
        rc = begin_epoch(s, c, &m, ctx);
    if (rc)
        return rc;
    s->opens = (s->opens > m.opens ? s->opens : m.opens) + 1;
    s->kv->ops->batch_reset(s->batch);
    put_meta(s, "format", STORE_FORMAT);
    put_meta(s, "opens", s->opens);
    if (fresh_epoch)
        put_lineage(s);
    rc = s->kv->ops->write(s->kv, s->batch, KV_SYNC | KV_VITAL, ctx);
    return rc ? rc : store_mark(s, ctx);
}

int lineage_begin(struct store *s, uint64_t now_us, uint64_t random, uint64_t above, struct err_ctx *ctx)
{
    struct store_config c = {.now_us = now_us, .random = random};
    struct mark none = {.generation = above};
    int rc = begin_epoch(s, &c, &none, ctx);
    if (rc)
        return rc;
    s->kv->ops->batch_reset(s->batch);
    put_lineage(s);
    rc = s->kv->ops->write(s->kv, s->batch, KV_SYNC | KV_VITAL, ctx);
    return rc ? rc : store_mark(s, ctx);
}
