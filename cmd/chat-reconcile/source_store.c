/* Rows of a RocksDB store, read beside its writer: a scan in pages, since kv scans push and we pull. */
#include <stdlib.h>
#include <string.h>

#include "cmd/chat-reconcile/plan.h"
#include "store/store_impl.h"

struct store_rows {
    struct reconcile_source source;
    struct kv *kv;
    char *url;
    struct row_key from; /* of the next page */
    bool ended;
    /* of the page being read */
    struct reconcile_row *to;
    size_t got, max;
    int rc;
    struct err_ctx *err;
};

static bool take(void *arg, struct kv_bytes key, struct kv_bytes val)
{
    struct store_rows *s = arg;
    struct entry e;
    if (s->got == s->max) {
        s->from.n = (uint8_t)key.n;
        memcpy(s->from.b, key.p, key.n);
        s->ended = false;
        return false;
    }
    s->rc = row_msg_read(&e, key, val, s->err);
    if (s->rc)
        return false;
    struct reconcile_row *r = &s->to[s->got++];
    *r = (struct reconcile_row){.chat = e.chat,
                                .seq = e.seq,
                                .epoch = e.epoch,
                                .from = e.sender,
                                .ts_us = e.ts_us,
                                .id = e.id,
                                .place = get_u16(key.p),
                                .has = s->source.has,
                                .flags = e.op == ENTRY_MESSAGE ? 0 : RECONCILE_SYSTEM};
    memcpy(r->hash, e.content, sizeof r->hash);
    return true;
}

static long store_read_rows(struct reconcile_source *source, struct reconcile_row *rows, size_t max,
                            struct err_ctx *err)
{
    struct store_rows *s = (struct store_rows *)source;
    if (s->ended)
        return 0;
    s->to = rows;
    s->got = s->rc = 0;
    s->max = max;
    s->err = err;
    s->ended = true;
    int rc =
        s->kv->ops->scan(s->kv, KV_MSG, key_bytes(&s->from), (struct kv_bytes){NULL, 0}, false, take, s, err);
    rc = rc ? rc : s->rc;
    if (rc) {
        err_prefix(err, "%s: ", s->url);
        return rc;
    }
    return (long)s->got;
}

static int store_rewind(struct reconcile_source *source, struct err_ctx *err)
{
    struct store_rows *s = (struct store_rows *)source;
    (void)err;
    s->from.n = 0;
    s->ended = false;
    return 0;
}

static void store_close_rows(struct reconcile_source *source)
{
    struct store_rows *s = (struct store_rows *)source;
    if (s->kv)
        s->kv->ops->close(s->kv);
    free(s->url);
    free(s);
}

/* The last number of the log counts the entries. */
static bool take_count(void *arg, struct kv_bytes key, struct kv_bytes val)
{
    (void)val;
    *(uint64_t *)arg = key.n == 8 ? get_u64(key.p) : 0;
    return false;
}

int source_store_open(struct reconcile_source **out, const char *url, const char *dir, struct err_ctx *err)
{
    struct store_rows *s = calloc(1, sizeof *s);
    if (!s || !(s->url = strdup(url))) {
        free(s);
        return err_set(err, ERR_NOMEM, "%s: out of memory", url);
    }
    s->source = (struct reconcile_source){.name = s->url,
                                          .sorted = true,
                                          .has = RECONCILE_HAS_SEQ | RECONCILE_HAS_EPOCH |
                                                 RECONCILE_HAS_FROM | RECONCILE_HAS_HASH | RECONCILE_HAS_TS,
                                          .read = store_read_rows,
                                          .rewind = store_rewind,
                                          .close = store_close_rows};
    struct kv_rocksdb_config c = {.dir = dir, .read_only = true};
    struct kv_bytes all = {NULL, 0};
    int rc = kv_rocksdb_open(&s->kv, &c, err);
    rc = rc ? rc : s->kv->ops->scan(s->kv, KV_LOG, all, all, true, take_count, &s->source.rows, err);
    if (rc) {
        store_close_rows(&s->source);
        return rc;
    }
    *out = &s->source;
    return 0;
}

static void add_base64(struct buf *b, const char *name, const void *p, size_t n)
{
    buf_printf(b, ",\"%s\":\"", name);
    char *to = buf_reserve(b, BASE64_LEN(n) + 1);
    if (to)
        b->len += base64url_encode(to, p, n);
    buf_char(b, '"');
}

void plan_entry_json(struct buf *out, const struct reconcile_row *row, const struct entry *e)
{
    reconcile_jsonl_write(out, row);
    out->len--; /* the brace */
    buf_printf(out, ",\"op\":%u", e->op);
    add_base64(out, "kind_b64", e->kind, e->kind_len);
    add_base64(out, "body_b64", e->body, e->body_len);
    add_base64(out, "tag", e->tag, sizeof e->tag);
    buf_printf(out, ",\"key\":\"%llu\"}", (unsigned long long)e->key_id);
}

int store_entry_json(struct buf *out, struct kv *kv, const struct reconcile_row *row, struct err_ctx *err)
{
    struct row_key k;
    struct entry e;
    struct buf val = BUF_INIT(2 * STORE_BATCH_BYTES);
    key_msg(&k, row->chat, row->seq);
    int rc = kv->ops->get(kv, KV_MSG, key_bytes(&k), &val, err);
    if (rc == ERR_NOTFOUND)
        err_set(err, rc, "chat %llu seq %llu: gone meanwhile", (unsigned long long)row->chat,
                (unsigned long long)row->seq);
    rc = rc ? rc : row_msg_read(&e, key_bytes(&k), (struct kv_bytes){val.data, val.len}, err);
    if (!rc)
        plan_entry_json(out, row, &e);
    buf_release(&val);
    return rc;
}
