/* Writing, and what to do when the disk is full.
 *
 * Three lines of defence. (1) statvfs before each write: below the reserve nothing is tried, ERR_FULL. (2) A
 * flush or compaction in the background ran out of space meanwhile: RocksDB then refuses writes and stays so
 * long after there is room again; the next write sees its count of background errors, waits for room, and
 * opens the database again. (3) The write itself ran out of space: open again at once, which settles whether
 * the batch is in (it is then made durable) or not. If opening is impossible too, the outcome is unknown:
 * ERR_IO, and the kv is dead. */
#include <errno.h>
#include <sys/statvfs.h>

#include "store/rocksdb/kv_rocksdb_impl.h"

/* What the rows still in memory need when they become tables. Asked only when space is short: it takes locks.
 */
static uint64_t unflushed(struct kv_rocksdb *r)
{
    uint64_t sum = 0, one;
    for (int f = 0; f < ROCKSDB_FAMILIES; f++)
        if (rocksdb_property_int_cf(r->db, r->family[f], "rocksdb.cur-size-all-mem-tables", &one) == 0)
            sum += one;
    return sum;
}

static int room_for(struct kv_rocksdb *r, bool vital, struct err_ctx *ctx)
{
    struct statvfs v;
    if (r->read_only)
        return err_set(ctx, ERR_PERM, "%s: is open for reading only", r->dir);
    if (r->dead)
        return err_set(ctx, ERR_IO, "%s: a write failed earlier; open the store again", r->dir);
    if (vital)
        return 0;
    if (statvfs(r->dir, &v) < 0) {
        err_errno(ctx, "%s: statvfs", r->dir);
        return ctx ? ctx->code = ERR_IO : ERR_IO;
    }
    uint64_t room = (uint64_t)v.f_bavail * v.f_frsize, need = r->reserve;
    if (room >= need && room - need < 2 * ROCKSDB_MEMTABLES_MAX)
        need += unflushed(r);
    if (room < need)
        return err_set(ctx, ERR_FULL, "%s: %llu MiB free, %llu MiB are needed in reserve; free some space",
                       r->dir, (unsigned long long)room >> 20, (unsigned long long)need >> 20);
    return 0;
}

/* Any thread: the lock keeps the database from being closed meanwhile. */
int kv_rocksdb_room(struct kv *kv, struct err_ctx *ctx)
{
    struct kv_rocksdb *r = kv_rocksdb_of(kv);
    pthread_rwlock_rdlock(&r->lock);
    int rc = room_for(r, false, ctx);
    pthread_rwlock_unlock(&r->lock);
    return rc;
}

static int kill_it(struct kv_rocksdb *r)
{
    r->dead = true;
    return ERR_IO;
}

/* Only the writing thread comes here; readers wait. */
static int reopen(struct kv_rocksdb *r, struct err_ctx *ctx)
{
    pthread_rwlock_wrlock(&r->lock);
    kv_rocksdb_stop(r);
    int rc = kv_rocksdb_start(r, false, ctx);
    pthread_rwlock_unlock(&r->lock);
    return rc ? kill_it(r) : 0;
}

static bool background_error(struct kv_rocksdb *r)
{
    uint64_t n = 0;
    return rocksdb_property_int(r->db, "rocksdb.background-errors", &n) == 0 && n > 0;
}

/* The write ran out of space. Its sequence numbers tell whether the reopened database has it. */
static int settle(struct kv_rocksdb *r, uint64_t before, struct err_ctx *ctx)
{
    struct err_ctx why = {0};
    if (reopen(r, &why) != 0) {
        if (ctx)
            *ctx = why;
        return ctx ? ctx->code = ERR_IO : ERR_IO;
    }
    if (rocksdb_get_latest_sequence_number(r->db) > before)
        return 0; /* opening has synced the log */
    return err_set(ctx, ERR_FULL, "%s: no space left; nothing was written", r->dir);
}

int kv_rocksdb_write(struct kv *kv, struct kv_batch *b, unsigned how, struct err_ctx *ctx)
{
    struct kv_rocksdb *r = kv_rocksdb_of(kv);
    char *err = NULL;
    int rc = room_for(r, how & KV_VITAL, ctx);
    if (rc)
        return rc;
    if (background_error(r)) {
        /* opening may have to flush what is in memory */
        rc = room_for(r, false, ctx);
        if (rc == 0)
            rc = reopen(r, ctx);
        if (rc)
            return rc;
    }
    uint64_t before = rocksdb_get_latest_sequence_number(r->db);
    rocksdb_write(r->db, how & KV_SYNC ? r->write_sync : r->write_lazy, b->wb, &err);
    if (!err)
        return 0;
    /* an error about another file than the log is that of a flush: the write was turned away before the log
     */
    bool in_log = strstr(err, ".log") != NULL;
    if (kv_rocksdb_error(r, err, "write", ctx) == ERR_FULL)
        return in_log ? settle(r, before, ctx) : ERR_FULL;
    if (ctx)
        ctx->code = ERR_IO;
    return kill_it(r);
}

int kv_rocksdb_sync(struct kv *kv, struct err_ctx *ctx)
{
    struct kv_rocksdb *r = kv_rocksdb_of(kv);
    char *err = NULL;
    if (r->read_only)
        return 0;
    if (r->dead)
        return err_set(ctx, ERR_IO, "%s: a write failed earlier; open the store again", r->dir);
    rocksdb_flush_wal(r->db, 1, &err);
    if (!err)
        return 0;
    /* what commits had synced is safe; opening again says whether we can go on */
    if (kv_rocksdb_error(r, err, "fsync", ctx) == ERR_FULL && reopen(r, ctx) == 0)
        return ERR_FULL;
    if (ctx)
        ctx->code = ERR_IO;
    return kill_it(r);
}
