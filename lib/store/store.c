/* Opening, committing, closing. Reads are in read.c. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/store_impl.h"
#include "util/mutant.h"

/* "rocksdb:DIR" or "mem:"; takes the lock on the folder. */
static int open_url(struct store *s, const struct store_config *c, struct err_ctx *ctx)
{
    static const char rocksdb[] = "rocksdb:";
    if (strcmp(c->url, "mem:") == 0)
        return kv_mem_open(&s->kv, ctx);
    if (strncmp(c->url, rocksdb, sizeof rocksdb - 1) != 0 || !c->url[sizeof rocksdb - 1])
        return err_set(ctx, ERR_INVALID, "store '%s': is neither rocksdb:DIR nor mem:", c->url);
    struct kv_rocksdb_config k = {.dir = c->url + sizeof rocksdb - 1,
                                  .reserve_bytes = c->reserve_bytes,
                                  .create = !c->read_only,
                                  .read_only = c->read_only};
    if (c->read_only)
        return kv_rocksdb_open(&s->kv, &k, ctx);
    int rc = make_dir(k.dir, ctx);
    if (rc)
        return rc;
    s->lock_fd = lock_take(k.dir, ctx);
    return s->lock_fd < 0 ? s->lock_fd : kv_rocksdb_open(&s->kv, &k, ctx);
}

static int start(struct store *s, const struct store_config *c, struct err_ctx *ctx)
{
    if (c->keys_dir && !c->read_only && !(s->keys_dir = strdup(c->keys_dir)))
        return err_set(ctx, ERR_NOMEM, "store: out of memory");
    if (!s->kv) {
        s->owns_kv = true;
        int rc = open_url(s, c, ctx);
        if (rc)
            return rc;
    }
    s->read_only = c->read_only;
    s->batch = s->kv->ops->batch_new(s->kv);
    if (!s->batch)
        return err_set(ctx, ERR_NOMEM, "store: out of memory");
    int rc = lineage_load(s, ctx);
    if (rc || !s->read_only)
        return rc ? rc : lineage_open(s, c, ctx);
    return s->empty ? err_set(ctx, ERR_NOTFOUND, "%s: no store is there", c->url) : 0;
}

int store_open_on(struct store **out, struct kv *kv, const struct store_config *c, struct err_ctx *ctx)
{
    struct store *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(ctx, ERR_NOMEM, "store: out of memory");
    s->magic = STORE_MAGIC;
    s->kv = kv;
    s->lock_fd = -1;
    buf_init(&s->row, STORE_BATCH_BYTES + 4096);
    int rc = start(s, c, ctx);
    if (rc) {
        store_drop(s);
        return rc;
    }
    *out = s;
    return 0;
}

int store_open(struct store **out, const struct store_config *c, struct err_ctx *ctx)
{
    return store_open_on(out, NULL, c, ctx);
}

void store_drop(struct store *s)
{
    if (!s)
        return;
    BUG_ON(s->magic != STORE_MAGIC);
    if (s->batch)
        s->kv->ops->batch_free(s->batch);
    if (s->kv && s->owns_kv)
        s->kv->ops->close(s->kv);
    if (s->lock_fd >= 0)
        close(s->lock_fd);
    buf_release(&s->row);
    free(s->keys_dir);
    free(s->lineage);
    s->magic = 0;
    free(s);
}

int store_close(struct store *s, struct err_ctx *ctx)
{
    int rc = s->read_only ? 0 : store_mark(s, ctx);
    store_drop(s);
    return rc;
}

uint64_t store_epoch(const struct store *s)
{
    return s->lineage_n ? s->lineage[s->lineage_n - 1].epoch : 0;
}

bool store_epoch_is_new(const struct store *s)
{
    return s->epoch_is_new;
}

size_t store_lineage(const struct store *s, const struct lineage_entry **list)
{
    *list = s->lineage;
    return s->lineage_n;
}

uint64_t store_commit_index(const struct store *s)
{
    return s->commit_index;
}

uint64_t store_disk_bytes(const struct store *s)
{
    return s->kv->ops->disk_bytes(s->kv);
}

void store_pressure(const struct store *s, struct kv_pressure *p)
{
    *p = (struct kv_pressure){0};
    if (s->kv->ops->pressure)
        s->kv->ops->pressure(s->kv, p);
}

uint64_t store_first_seq(uint64_t head)
{
    return (head | UINT32_MAX) + 1;
}

/* Generation g, counted over every epoch that the store or the mark ever knew, has the seqs from g * 2^32 up:
 * also an epoch whose rows are lost, and whose heads nobody knows, shares none with it. */
uint64_t store_next_seq(const struct store *s, const struct chat_head *h)
{
    uint64_t floor = s->generation << 32;
    if (!h)
        return floor;
    if (h->epoch == store_epoch(s))
        return h->seq + 1;
    uint64_t first = store_first_seq(h->seq);
    return first > floor ? first : floor;
}

static int check_limits(const struct store_batch *b, struct err_ctx *ctx)
{
    size_t bytes = 0;
    if (b->entries_n > STORE_BATCH_MAX)
        return err_set(ctx, ERR_LIMIT, "commit: %zu entries, the limit is %u", b->entries_n, STORE_BATCH_MAX);
    for (size_t i = 0; i < b->entries_n; i++)
        bytes += b->entries[i].body_len;
    if (bytes > STORE_BATCH_BYTES)
        return err_set(ctx, ERR_LIMIT, "commit: bodies of %zu bytes, the limit is %u", bytes,
                       STORE_BATCH_BYTES);
    return 0;
}

static void put(struct store *s, enum kv_family f, const struct row_key *k, const void *val, size_t n)
{
    s->kv->ops->put(s->batch, f, key_bytes(k), (struct kv_bytes){val, n});
}

/* Hot path: per entry three rows, built on the stack or in one reused buffer. */
static bool put_entry(struct store *s, const struct entry *e, uint64_t index)
{
    struct row_key msg, k;
    uint8_t dedup[ROW_DEDUP_BYTES];
    key_msg(&msg, e->chat, e->seq);
    buf_reset(&s->row);
    row_msg(&s->row, &msg, e);
    if (s->row.failed)
        return false;
    put(s, KV_MSG, &msg, s->row.data, s->row.len);
    if (MUTANT(BATCH_HALF_APPLIED)) {
        s->kv->ops->write(s->kv, s->batch, KV_SYNC, NULL);
        s->kv->ops->batch_reset(s->batch);
    }
    key_dedup(&k, e->sender, &e->id);
    row_dedup(dedup, &k, e);
    put(s, KV_DEDUP, &k, dedup, sizeof dedup);
    /* the log's value is the message's key */
    key_log(&k, index);
    put(s, KV_LOG, &k, msg.b, msg.n);
    return true;
}

static void put_member(struct store *s, const struct member_row *m)
{
    static const uint8_t version = 1;
    struct row_key k;
    uint8_t v[9];
    key_member(&k, m->chat, m->user, m->from);
    put_u64(v, m->to);
    v[8] = m->role;
    put(s, KV_MEMBER, &k, v, sizeof v);
    /* kept also after leaving: what was said until then stays readable */
    key_userchat(&k, m->user, m->chat);
    put(s, KV_USERCHAT, &k, &version, 1);
}

static void merge_cursor(struct store *s, const struct cursor *c)
{
    struct row_key k;
    uint8_t v[KV_CURSOR_BYTES];
    key_cursor(&k, c->chat, c->user, c->device);
    put_u64(v, c->epoch);
    put_u64(v + 8, c->delivered);
    put_u64(v + 16, c->read);
    s->kv->ops->merge(s->batch, KV_CURSOR, key_bytes(&k), (struct kv_bytes){v, sizeof v});
}

uint64_t store_ids_before(const struct store *s)
{
    return s->ids_before_ms;
}

/* The bound moves in the batch that needs it moved, so neither can be without the other. */
static uint64_t bound_ids(struct store *s, const struct store_batch *b)
{
    uint64_t newest = 0;
    for (size_t i = 0; i < b->entries_n; i++) {
        uint64_t ms = id_unix_ms(&b->entries[i].id);
        newest = ms > newest ? ms : newest;
    }
    if (newest < s->ids_before_ms || !b->entries_n)
        return s->ids_before_ms;
    put_meta(s, "ids_before", newest + STORE_IDS_AHEAD_MS);
    return newest + STORE_IDS_AHEAD_MS;
}

int store_commit(struct store *s, const struct store_batch *b, struct err_ctx *ctx)
{
    int rc = check_limits(b, ctx);
    if (rc)
        return rc;
    uint64_t index = s->commit_index;
    s->kv->ops->batch_reset(s->batch);
    for (size_t i = 0; i < b->entries_n; i++)
        if (!put_entry(s, &b->entries[i], index + 1 + i))
            return err_set(ctx, ERR_NOMEM, "commit: out of memory");
    for (size_t i = 0; i < b->members_n; i++)
        put_member(s, &b->members[i]);
    for (size_t i = 0; i < b->cursors_n; i++)
        merge_cursor(s, &b->cursors[i]);
    uint64_t ids_before_ms = bound_ids(s, b);
    if (b->whole_epoch)
        put_meta(s, "whole", b->whole_epoch);
    bool vital = (b->entries_n + b->members_n > 0 || b->whole_epoch) && !MUTANT(ACK_BEFORE_FSYNC);
    rc = s->kv->ops->write(s->kv, s->batch, vital ? KV_SYNC : KV_LAZY, ctx);
    if (rc)
        return rc;
    s->commit_index = index + b->entries_n;
    s->ids_before_ms = ids_before_ms;
    return 0;
}

int store_begin_epoch(struct store *s, uint64_t now_us, uint64_t random, uint64_t above, struct err_ctx *ctx)
{
    return lineage_begin(s, now_us, random, above, ctx);
}

bool store_is_whole(const struct store *s)
{
    return s->lineage_n < 2 || s->whole_epoch == store_epoch(s);
}

int store_mark(struct store *s, struct err_ctx *ctx)
{
    struct mark m = {
        .epoch = store_epoch(s), .generation = s->generation, .opens = s->opens, .commit = s->commit_index};
    int rc = s->kv->ops->sync(s->kv, ctx);
    return rc || !s->keys_dir ? rc : mark_write(&m, s->keys_dir, ctx);
}

int store_has_room(struct store *s)
{
    return s->kv->ops->room(s->kv, NULL);
}

int store_backup(struct store *s, const char *dir, struct err_ctx *ctx)
{
    return s->kv->ops->checkpoint(s->kv, dir, ctx);
}
