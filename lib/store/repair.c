#include "store/repair.h"

#include <stdlib.h>
#include <string.h>

#include "store/store_impl.h"

#define PAGE 1000u /* rows in a batch */

struct repairing {
    struct repair_result *out;
    struct kv *kv;
    struct kv_batch *batch;
    struct err_ctx *ctx;
    struct row_key from; /* of the next page */
    bool more, rebuild;
    uint32_t in_page;
    uint64_t index, named;       /* log rows written; log rows whose entry is there */
    uint64_t chat, epoch, seq;   /* the entry before */
    uint64_t generation, newest; /* the highest of any entry, and its epoch */
    size_t holes;                /* ranges found in chats */
    int rc;
};

static int lost(struct repairing *r, uint64_t chat, uint64_t from, uint64_t to)
{
    struct repair_result *o = r->out;
    struct repair_range *last = o->ranges_n ? &o->ranges[o->ranges_n - 1] : NULL;
    o->lost += to - from + 1;
    if (last && last->chat == chat && last->to + 1 == from) {
        last->to = to;
        return 0;
    }
    if (o->ranges_n == REPAIR_RANGES_MAX) {
        o->ranges_more++;
        return 0;
    }
    if (o->ranges_n == o->ranges_cap) {
        size_t cap = o->ranges_cap ? o->ranges_cap * 2 : 64;
        struct repair_range *p = realloc(o->ranges, cap * sizeof *p);
        if (!p)
            return err_set(r->ctx, ERR_NOMEM, "repair: out of memory");
        o->ranges = p;
        o->ranges_cap = cap;
    }
    o->ranges[o->ranges_n++] = (struct repair_range){chat, from, to};
    return 0;
}

static bool page_full(struct repairing *r, struct kv_bytes key)
{
    if (r->in_page++ < PAGE)
        return false;
    r->from.n = (uint8_t)key.n;
    memcpy(r->from.b, key.p, key.n);
    r->more = true;
    return true;
}

/* An entry: a hole before it is a loss; its dedup row, and maybe its log row, are written. */
static bool each_msg(void *arg, struct kv_bytes key, struct kv_bytes val)
{
    struct repairing *r = arg;
    struct entry e;
    struct row_key k;
    uint8_t dedup[ROW_DEDUP_BYTES];
    if (page_full(r, key))
        return false;
    if (row_msg_read(&e, key, val, NULL)) {
        r->kv->ops->del(r->batch, KV_MSG, key);
        return true;
    }
    if (r->rebuild) {
        key_log(&k, ++r->index);
        r->kv->ops->put(r->batch, KV_LOG, key_bytes(&k), key);
        return true;
    }
    bool same = r->out->entries && e.chat == r->chat && e.epoch == r->epoch;
    if (same && e.seq > r->seq + 1)
        r->rc = lost(r, e.chat, r->seq + 1, e.seq - 1);
    else if (!same && e.chat != r->chat && e.seq > 1 && e.seq < 1ull << 32)
        r->rc = lost(r, e.chat, 1, e.seq - 1);
    r->chat = e.chat;
    r->epoch = e.epoch;
    r->seq = e.seq;
    r->out->entries++;
    if (e.seq >> 32 >= r->generation) {
        r->generation = e.seq >> 32;
        r->newest = e.epoch;
    }
    key_dedup(&k, e.sender, &e.id);
    row_dedup(dedup, &k, &e);
    r->kv->ops->put(r->batch, KV_DEDUP, key_bytes(&k), (struct kv_bytes){dedup, sizeof dedup});
    return r->rc == 0;
}

static int overlap(const void *a, const void *b)
{
    const struct repair_range *x = a, *y = b;
    if (x->chat != y->chat)
        return x->chat < y->chat ? -1 : 1;
    return x->to < y->from ? -1 : x->from > y->to;
}

/* By chat; what touches becomes one. */
static void sort_ranges(struct repair_result *o)
{
    size_t n = 0;
    if (!o->ranges_n)
        return;
    qsort(o->ranges, o->ranges_n, sizeof *o->ranges, overlap);
    for (size_t i = 1; i < o->ranges_n; i++)
        if (o->ranges[i].chat == o->ranges[n].chat && o->ranges[i].from == o->ranges[n].to + 1)
            o->ranges[n].to = o->ranges[i].to;
        else
            o->ranges[++n] = o->ranges[i];
    o->ranges_n = n + 1;
}

/* A log row: moves down over the rows of lost entries, or goes. */
static bool each_log(void *arg, struct kv_bytes key, struct kv_bytes val)
{
    struct repairing *r = arg;
    struct row_key k;
    struct entry e;
    struct buf row = BUF_INIT(2 * STORE_BATCH_BYTES);
    if (page_full(r, key))
        return false;
    int rc = val.n == ROW_LOG_BYTES ? r->kv->ops->get(r->kv, KV_MSG, val, &row, NULL) : ERR_CORRUPT;
    rc = rc ? rc : row_msg_read(&e, val, (struct kv_bytes){row.data, row.len}, NULL);
    r->named += rc == 0;
    if (rc && val.n == ROW_LOG_BYTES) {
        const uint8_t *p = val.p;
        struct repair_range want = {get_u64(p + 2), get_u64(p + 10), get_u64(p + 10)};
        if (!r->holes || !bsearch(&want, r->out->ranges, r->holes, sizeof want, overlap))
            r->rc = lost(r, want.chat, want.from, want.to);
    }
    r->kv->ops->del(r->batch, KV_LOG, key);
    if (rc == 0) {
        key_log(&k, ++r->index);
        r->kv->ops->put(r->batch, KV_LOG, key_bytes(&k), val);
    }
    buf_release(&row);
    return r->rc == 0;
}

static bool drop_log(void *arg, struct kv_bytes key, struct kv_bytes val)
{
    struct repairing *r = arg;
    (void)val;
    if (page_full(r, key))
        return false;
    r->kv->ops->del(r->batch, KV_LOG, key);
    return true;
}

static bool count_member(void *arg, struct kv_bytes key, struct kv_bytes val)
{
    (void)key;
    (void)val;
    ++*(uint64_t *)arg;
    return true;
}

/* Page by page: a batch is written after each. */
static int pages(struct repairing *r, enum kv_family f, kv_scan_fn *fn)
{
    r->from.n = 0;
    do {
        r->more = false;
        r->in_page = 0;
        r->kv->ops->batch_reset(r->batch);
        int rc =
            r->kv->ops->scan(r->kv, f, key_bytes(&r->from), (struct kv_bytes){NULL, 0}, false, fn, r, r->ctx);
        rc = rc ? rc : r->rc;
        rc = rc ? rc : r->kv->ops->write(r->kv, r->batch, KV_LAZY, r->ctx);
        if (rc)
            return rc;
    } while (r->more);
    return 0;
}

static void put_number(struct repairing *r, const char *name, uint64_t v)
{
    uint8_t b[8];
    put_u64(b, v);
    r->kv->ops->put(r->batch, KV_META, (struct kv_bytes){name, strlen(name)}, (struct kv_bytes){b, 8});
}

/* One epoch stands for all: `restore` begins a new one above every seq that was seen. Form: lineage.c. */
static int meta(struct repairing *r)
{
    struct row_key k = {.n = 12};
    struct buf have = BUF_INIT(64);
    uint8_t b[36];
    memcpy(k.b, "lineage/", 8);
    put_u32(k.b + 8, 0);
    int rc = r->kv->ops->get(r->kv, KV_META, key_bytes(&k), &have, NULL);
    buf_release(&have);
    if (rc != ERR_NOTFOUND)
        return rc;
    put_u64(b, r->newest ? r->newest : 1);
    put_u64(b + 8, 0);
    put_u64(b + 16, UINT64_MAX);
    put_u64(b + 24, r->generation);
    put_u32(b + 32, row_check(key_bytes(&k), b, 32));
    r->kv->ops->batch_reset(r->batch);
    put_number(r, "format", STORE_FORMAT);
    put_number(r, "opens", 1);
    r->kv->ops->put(r->batch, KV_META, key_bytes(&k), (struct kv_bytes){b, sizeof b});
    return r->kv->ops->write(r->kv, r->batch, KV_LAZY, r->ctx);
}

static int agree(struct repairing *r)
{
    struct kv_bytes all = {NULL, 0};
    int rc = pages(r, KV_MSG, each_msg);
    sort_ranges(r->out);
    r->holes = r->out->ranges_n;
    rc = rc ? rc : pages(r, KV_LOG, each_log);
    sort_ranges(r->out);
    if (!rc && r->named < r->out->entries) {
        /* log rows are lost: all are made anew, chat by chat */
        r->out->log_rebuilt = r->rebuild = true;
        r->index = 0;
        rc = pages(r, KV_LOG, drop_log);
        rc = rc ? rc : pages(r, KV_MSG, each_msg);
    }
    rc = rc ? rc : meta(r);
    rc =
        rc ? rc : r->kv->ops->scan(r->kv, KV_MEMBER, all, all, false, count_member, &r->out->members, r->ctx);
    return rc ? rc : r->kv->ops->sync(r->kv, r->ctx);
}

int store_repair(struct repair_result *out, const char *dir, struct err_ctx *ctx)
{
    struct repairing r = {.out = out, .ctx = ctx};
    struct kv_rocksdb_config c = {.dir = dir, .create = true};
    *out = (struct repair_result){0};
    int rc = kv_rocksdb_open(&r.kv, &c, ctx);
    if (rc)
        return rc;
    r.batch = r.kv->ops->batch_new(r.kv);
    rc = r.batch ? agree(&r) : err_set(ctx, ERR_NOMEM, "repair: out of memory");
    r.kv->ops->batch_free(r.batch);
    r.kv->ops->close(r.kv);
    return rc;
}
