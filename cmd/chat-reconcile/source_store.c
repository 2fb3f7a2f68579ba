/* Rows of a RocksDB store, read beside its writer: a scan in pages, since kv scans push and we pull. */
#include <stdlib.h>
#include <string.h>

#include "cmd/chat-reconcile/tool.h"
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
    int rc = kv_rocksdb_open(&s->kv, &c, err);
    if (rc) {
        store_close_rows(&s->source);
        return rc;
    }
    *out = &s->source;
    return 0;
}
