/* The kv over RocksDB's C API. What bites, and what is done about it, stands where it is done; a full disk is
 * handled in full.c. */
#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/repair.h"
#include "store/rocksdb/kv_rocksdb_impl.h"

struct kv_rocksdb *kv_rocksdb_of(struct kv *kv)
{
    struct kv_rocksdb *r = (struct kv_rocksdb *)kv;
    BUG_ON(r->magic != KV_ROCKSDB_MAGIC);
    return r;
}

static bool contains(const char *text, const char *what)
{
    return strstr(text, what) != NULL;
}

int kv_rocksdb_error(const struct kv_rocksdb *r, char *err, const char *doing, struct err_ctx *ctx)
{
    int code = ERR_IO;
    if (contains(err, "No space left") || contains(err, "NoSpace") || contains(err, "quota exceeded"))
        code = ERR_FULL;
    else if (strncmp(err, "Corruption", 10) == 0)
        code = ERR_CORRUPT;
    else if (contains(err, "lock ") && contains(err, "LOCK"))
        code = ERR_BUSY;
    else if (contains(err, "create_if_missing is false") || contains(err, "No such file or directory"))
        code = ERR_NOTFOUND;
    /* a missing table is looked for under its name of old, too, and that is what the message names */
    char *old = strstr(err, ".ldb");
    if (old)
        memcpy(old, ".sst", 4);
    err_set(ctx, code, "%s: %s: %s", r->dir, doing, err);
    rocksdb_free(err);
    return code;
}

/* A process that was killed leaves log records that are written but not synced. They will be read, and
 * answered for, so they are made durable first. */
static int sync_logs(const struct kv_rocksdb *r, struct err_ctx *ctx)
{
    int rc = 0;
    DIR *d = opendir(r->dir);
    struct dirent *e;
    while (d && rc == 0 && (e = readdir(d))) {
        size_t n = strlen(e->d_name);
        if (n < 4 || strcmp(e->d_name + n - 4, ".log") != 0)
            continue;
        int fd = openat(dirfd(d), e->d_name, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || fsync(fd) < 0) {
            err_errno(ctx, "%s/%s: fsync", r->dir, e->d_name);
            rc = ERR_IO;
        }
        if (fd >= 0)
            close(fd);
    }
    if (d && rc == 0 && fsync(dirfd(d)) < 0) {
        err_errno(ctx, "%s: fsync", r->dir);
        rc = ERR_IO;
    }
    if (d)
        closedir(d);
    return rc;
}

int kv_rocksdb_start(struct kv_rocksdb *r, bool create, struct err_ctx *ctx)
{
    int rc = kv_rocksdb_inspect(r->dir, ctx);
    /* beside a writer, files may have come and gone while it looked */
    for (int i = 0; i < 3 && r->read_only && rc == ERR_CORRUPT; i++)
        rc = kv_rocksdb_inspect(r->dir, ctx);
    char current[4300];
    snprintf(current, sizeof current, "%s/CURRENT", r->dir);
    if (rc == 0 && !create && access(current, F_OK) < 0 && errno == ENOENT)
        rc = err_set(ctx, ERR_NOTFOUND, "%s: no store is in this folder", r->dir);
    if (rc == 0 && !r->read_only)
        rc = sync_logs(r, ctx);
    if (rc)
        return rc;
    struct rocksdb_tuning t;
    char *err = NULL;
    rocksdb_tuning_init(&t, create);
    if (r->read_only)
        rocksdb_tuning_read_only(&t);
    const rocksdb_options_t *const *family = (const rocksdb_options_t *const *)t.family;
    r->db = r->read_only ? rocksdb_open_for_read_only_column_families(t.db, r->dir, ROCKSDB_FAMILIES, t.names,
                                                                      family, r->family, 0, &err)
                         : rocksdb_open_column_families(t.db, r->dir, ROCKSDB_FAMILIES, t.names, family,
                                                        r->family, &err);
    rocksdb_tuning_release(&t);
    if (err) {
        r->db = NULL;
        int rc_open = kv_rocksdb_error(r, err, "open", ctx);
        int rc_table = rc_open == ERR_CORRUPT ? kv_rocksdb_inspect_tables(r->dir, ctx) : 0;
        return rc_table ? rc_table : rc_open;
    }
    return 0;
}

void kv_rocksdb_stop(struct kv_rocksdb *r)
{
    if (!r->db)
        return;
    for (int f = 0; f < ROCKSDB_FAMILIES; f++)
        rocksdb_column_family_handle_destroy(r->family[f]);
    rocksdb_close(r->db);
    r->db = NULL;
}

static struct kv_batch *rdb_batch_new(struct kv *kv)
{
    struct kv_rocksdb *r = kv_rocksdb_of(kv);
    struct kv_batch *b = calloc(1, sizeof *b);
    if (!b)
        return NULL;
    b->wb = rocksdb_writebatch_create();
    b->owner = r;
    return b;
}

static void rdb_batch_reset(struct kv_batch *b)
{
    rocksdb_writebatch_clear(b->wb);
}

static void rdb_batch_free(struct kv_batch *b)
{
    if (b)
        rocksdb_writebatch_destroy(b->wb);
    free(b);
}

/* The handles may change when the database is reopened inside write; a batch is built and written by the one
 * writing thread, so they do not change under it, and the batch itself keeps only numbers of families. */
static void rdb_put(struct kv_batch *b, enum kv_family f, struct kv_bytes key, struct kv_bytes val)
{
    if (b->owner->db)
        rocksdb_writebatch_put_cf(b->wb, b->owner->family[f], key.p, key.n, val.p, val.n);
}

static void rdb_merge(struct kv_batch *b, enum kv_family f, struct kv_bytes key, struct kv_bytes val)
{
    if (b->owner->db)
        rocksdb_writebatch_merge_cf(b->wb, b->owner->family[f], key.p, key.n, val.p, val.n);
}

static void rdb_del(struct kv_batch *b, enum kv_family f, struct kv_bytes key)
{
    if (b->owner->db)
        rocksdb_writebatch_delete_cf(b->wb, b->owner->family[f], key.p, key.n);
}

/* Readers hold the lock shared, so that a reopen waits for them: an iterator that outlives its database
 * aborts. */
static int enter(struct kv_rocksdb *r, struct err_ctx *ctx)
{
    pthread_rwlock_rdlock(&r->lock);
    if (r->db && !r->dead)
        return 0;
    pthread_rwlock_unlock(&r->lock);
    return err_set(ctx, ERR_IO, "%s: a write failed earlier; open the store again", r->dir);
}

static int rdb_get(struct kv *kv, enum kv_family f, struct kv_bytes key, struct buf *out, struct err_ctx *ctx)
{
    struct kv_rocksdb *r = kv_rocksdb_of(kv);
    char *err = NULL;
    size_t n = 0;
    int rc = enter(r, ctx);
    if (rc)
        return rc;
    rocksdb_pinnableslice_t *s = rocksdb_get_pinned_cf(r->db, r->read, r->family[f], key.p, key.n, &err);
    if (err) {
        rc = kv_rocksdb_error(r, err, "read", ctx);
    } else if (!s) {
        rc = ERR_NOTFOUND;
    } else {
        const char *v = rocksdb_pinnableslice_value(s, &n);
        buf_add(out, v, n);
        if (out->failed)
            rc = err_set(ctx, ERR_LIMIT, "%s: a value of %zu bytes is larger than the buffer", r->dir, n);
    }
    if (s)
        rocksdb_pinnableslice_destroy(s);
    pthread_rwlock_unlock(&r->lock);
    return rc;
}

static int rdb_scan(struct kv *kv, enum kv_family f, struct kv_bytes from, struct kv_bytes to, bool reverse,
                    kv_scan_fn *fn, void *arg, struct err_ctx *ctx)
{
    struct kv_rocksdb *r = kv_rocksdb_of(kv);
    char *err = NULL;
    int rc = enter(r, ctx);
    if (rc)
        return rc;
    rocksdb_readoptions_t *ro = rocksdb_readoptions_create();
    if (from.n)
        rocksdb_readoptions_set_iterate_lower_bound(ro, from.p, from.n);
    if (to.n)
        rocksdb_readoptions_set_iterate_upper_bound(ro, to.p, to.n);
    rocksdb_iterator_t *it = rocksdb_create_iterator_cf(r->db, ro, r->family[f]);
    void (*first)(rocksdb_iterator_t *) = reverse ? rocksdb_iter_seek_to_last : rocksdb_iter_seek_to_first;
    void (*next)(rocksdb_iterator_t *) = reverse ? rocksdb_iter_prev : rocksdb_iter_next;
    /* the bounds of the read options keep it inside [from, to) */
    for (first(it); rocksdb_iter_valid(it); next(it)) {
        struct kv_bytes key, val;
        key.p = rocksdb_iter_key(it, &key.n);
        val.p = rocksdb_iter_value(it, &val.n);
        if (!fn(arg, key, val))
            break;
    }
    rocksdb_iter_get_error(it, &err);
    rocksdb_iter_destroy(it);
    rocksdb_readoptions_destroy(ro);
    if (err)
        rc = kv_rocksdb_error(r, err, "scan", ctx);
    pthread_rwlock_unlock(&r->lock);
    return rc;
}

static int rdb_checkpoint(struct kv *kv, const char *dir, struct err_ctx *ctx)
{
    struct kv_rocksdb *r = kv_rocksdb_of(kv);
    char *err = NULL;
    if (access(dir, F_OK) == 0)
        return err_set(ctx, ERR_EXISTS, "%s: exists already", dir);
    int rc = enter(r, ctx);
    if (rc)
        return rc;
    rocksdb_checkpoint_t *c = rocksdb_checkpoint_object_create(r->db, &err);
    if (!err)
        rocksdb_checkpoint_create(c, dir, 0, &err);
    if (err)
        rc = kv_rocksdb_error(r, err, "checkpoint", ctx);
    if (c)
        rocksdb_checkpoint_object_destroy(c);
    pthread_rwlock_unlock(&r->lock);
    return rc;
}

static uint64_t rdb_disk_bytes(struct kv *kv)
{
    struct kv_rocksdb *r = kv_rocksdb_of(kv);
    uint64_t sum = 0;
    DIR *d = opendir(r->dir);
    struct dirent *e;
    struct stat st;
    while (d && (e = readdir(d)))
        if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
            sum += (uint64_t)st.st_blocks * 512;
    if (d)
        closedir(d);
    return sum;
}

static void rdb_pressure(struct kv *kv, struct kv_pressure *p)
{
    struct kv_rocksdb *r = kv_rocksdb_of(kv);
    uint64_t stopped = 0, n;
    if (enter(r, NULL))
        return;
    rocksdb_property_int(r->db, "rocksdb.is-write-stopped", &stopped);
    p->stopped = stopped;
    rocksdb_property_int(r->db, "rocksdb.actual-delayed-write-rate", &p->delayed_rate);
    rocksdb_property_int(r->db, "rocksdb.num-running-flushes", &p->flushes);
    rocksdb_property_int(r->db, "rocksdb.num-running-compactions", &p->compactions);
    for (int f = 0; f < ROCKSDB_FAMILIES; f++) {
        char *files =
            rocksdb_property_value_cf(r->db, r->family[f], "rocksdb.num-files-at-level0"); /* text */
        n = files ? strtoull(files, NULL, 10) : 0;
        p->level0_files = n > p->level0_files ? n : p->level0_files;
        rocksdb_free(files);
        if (!rocksdb_property_int_cf(r->db, r->family[f], "rocksdb.estimate-pending-compaction-bytes", &n))
            p->owed_bytes += n;
    }
    pthread_rwlock_unlock(&r->lock);
}

static void rdb_close(struct kv *kv)
{
    struct kv_rocksdb *r = kv_rocksdb_of(kv);
    kv_rocksdb_stop(r);
    rocksdb_readoptions_destroy(r->read);
    rocksdb_writeoptions_destroy(r->write_sync);
    rocksdb_writeoptions_destroy(r->write_lazy);
    pthread_rwlock_destroy(&r->lock);
    r->magic = 0;
    free(r->dir);
    free(r);
}

static const struct kv_ops rdb_ops = {
    .name = "rocksdb",
    .batch_new = rdb_batch_new,
    .batch_reset = rdb_batch_reset,
    .batch_free = rdb_batch_free,
    .put = rdb_put,
    .merge = rdb_merge,
    .del = rdb_del,
    .write = kv_rocksdb_write,
    .get = rdb_get,
    .scan = rdb_scan,
    .sync = kv_rocksdb_sync,
    .room = kv_rocksdb_room,
    .checkpoint = rdb_checkpoint,
    .disk_bytes = rdb_disk_bytes,
    .pressure = rdb_pressure,
    .close = rdb_close,
};

int kv_rocksdb_open(struct kv **out, const struct kv_rocksdb_config *c, struct err_ctx *ctx)
{
    struct kv_rocksdb *r = calloc(1, sizeof *r);
    if (!r || !(r->dir = strdup(c->dir))) {
        free(r);
        return err_set(ctx, ERR_NOMEM, "%s: out of memory", c->dir);
    }
    r->kv.ops = &rdb_ops;
    r->magic = KV_ROCKSDB_MAGIC;
    r->read_only = c->read_only;
    r->reserve = c->reserve_bytes ? c->reserve_bytes : KV_RESERVE_DEFAULT;
    r->read = rocksdb_readoptions_create();
    r->write_sync = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(r->write_sync, 1);
    r->write_lazy = rocksdb_writeoptions_create();
    pthread_rwlock_init(&r->lock, NULL);
    int rc = kv_rocksdb_start(r, c->create, ctx);
    if (rc) {
        rdb_close(&r->kv);
        return rc;
    }
    *out = &r->kv;
    return 0;
}

int kv_rocksdb_repair(const char *dir, struct err_ctx *ctx)
{
    struct rocksdb_tuning t;
    char *err = NULL;
    rocksdb_tuning_init(&t, false);
    /* the options of the one family that needs its merge operator; no other minds */
    rocksdb_repair_db(t.family[KV_CURSOR], dir, &err);
    rocksdb_tuning_release(&t);
    if (!err)
        return 0;
    int rc = err_set(ctx, ERR_CORRUPT, "%s: cannot be repaired: %s", dir, err);
    rocksdb_free(err);
    return rc;
}
