/* Ordered key-value store underneath the row logic of store.h: {batch, get, scan, sync}. Backends: kv_mem
 * here, rocksdb/. All calls may come from any thread, except that one thread at a time writes.
 *
 * Keys <= 64 bytes, compared as bytes. Families are separate key spaces. A batch is atomic. */
#ifndef STORE_KV_H
#define STORE_KV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/buf.h"
#include "util/err.h"

enum kv_family { KV_MSG, KV_DEDUP, KV_CURSOR, KV_MEMBER, KV_USERCHAT, KV_LOG, KV_META, KV_FAMILIES };

/* How a batch is written. */
#define KV_LAZY  0u
#define KV_SYNC  1u /* fsync before it returns */
#define KV_VITAL 2u /* small and needed on a full disk too: may use the reserve */

struct kv_bytes {
    const void *p;
    size_t n;
};

/* What stands between the next write and the disk. */
struct kv_pressure {
    bool stopped;                  /* writes wait until tables are written */
    uint64_t delayed_rate;         /* bytes a second that writes are slowed to; 0: they are not */
    uint64_t level0_files;         /* most in any family: at 20 writes are slowed, at 36 stopped */
    uint64_t owed_bytes;           /* estimate of what compaction has yet to rewrite */
    uint64_t flushes, compactions; /* running now */
};

/* A batch is built by the caller through these and lives in the backend's own form. */
struct kv_batch;
struct kv;

typedef bool kv_scan_fn(void *arg, struct kv_bytes key, struct kv_bytes val); /* false: stop */

struct kv_ops {
    const char *name;
    struct kv_batch *(*batch_new)(struct kv *);
    void (*batch_reset)(struct kv_batch *);
    void (*batch_free)(struct kv_batch *);
    void (*put)(struct kv_batch *, enum kv_family, struct kv_bytes key, struct kv_bytes val);
    void (*merge)(struct kv_batch *, enum kv_family, struct kv_bytes key,
                  struct kv_bytes val); /* cursors: maximum */
    void (*del)(struct kv_batch *, enum kv_family, struct kv_bytes key);
    /* KV_SYNC: durable when it returns 0. ERR_FULL: nothing was written (below the reserve, or out of space
     * and found absent again); the kv stays usable and writes again once there is room. ERR_IO: outcome
     * unknown, the kv refuses everything until it is closed and opened again. */
    int (*write)(struct kv *, struct kv_batch *, unsigned how, struct err_ctx *);
    /* 0 with the value appended to out, ERR_NOTFOUND (no sentence), ERR_CORRUPT, ERR_IO. */
    int (*get)(struct kv *, enum kv_family, struct kv_bytes key, struct buf *out, struct err_ctx *);
    /* Rows with from <= key < to, rising, or falling when `reverse` (from the last below `to`). An empty `to`
     * is the end of the family. fn may read the kv, never write it. */
    int (*scan)(struct kv *, enum kv_family, struct kv_bytes from, struct kv_bytes to, bool reverse,
                kv_scan_fn *fn, void *arg, struct err_ctx *);
    /* Everything written so far is durable when it returns 0; ERR_IO as in write. */
    int (*sync)(struct kv *, struct err_ctx *);
    /* Room for a write? 0, ERR_FULL or ERR_IO; cheap. */
    int (*room)(struct kv *, struct err_ctx *);
    /* A consistent copy in `dir` (which must not exist). ERR_UNSUPPORTED for memory. */
    int (*checkpoint)(struct kv *, const char *dir, struct err_ctx *);
    uint64_t (*disk_bytes)(struct kv *);
    void (*pressure)(struct kv *, struct kv_pressure *); /* NULL: it never holds up a write */
    void (*close)(struct kv *);
};

struct kv {
    const struct kv_ops *ops;
};

/* A cursor row: epoch, delivered, read, 8 bytes each, big-endian. Merging keeps the maximum of both fields.
 * Of two epochs (their names have no order) delivered is what was written later, since a device may have to
 * start over; read is the maximum still: seqs only grow over a lineage, and nobody unreads a message. */
#define KV_CURSOR_BYTES 24
void kv_cursor_merge(uint8_t into[KV_CURSOR_BYTES], const uint8_t later[KV_CURSOR_BYTES]);

struct kv_rocksdb_config {
    const char *dir;
    /* write answers ERR_FULL when less than this is free, beyond what the rows that are still in memory (at
     * most 128 MiB) will need when they are flushed to tables; 0: KV_RESERVE_DEFAULT */
    uint64_t reserve_bytes;
    bool create;    /* make it if missing */
    bool read_only; /* beside a writer, or of a backup: what is there now; write answers ERR_PERM */
};
#define KV_RESERVE_DEFAULT (64ull << 20)
/* The folder itself must exist. ERR_BUSY: another process has it; ERR_NOTFOUND: nothing there and not
 * `create`; ERR_CORRUPT: a record that had been synced is damaged (a torn last record is dropped). */
int kv_rocksdb_open(struct kv **out, const struct kv_rocksdb_config *c, struct err_ctx *ctx);

int kv_mem_open(struct kv **out, struct err_ctx *ctx);
/* Power cut: everything since the last sync is gone, and a failure that was set is over. Only while nobody
 * uses it. */
void kv_mem_crash(struct kv *kv);
/* The same, but of the batches since the last sync number i survives, whole, when bit i % 64 of `survivors`
 * is set: a disk keeps what was not synced or loses it, and in no order. */
void kv_mem_crash_some(struct kv *kv, uint64_t survivors);
/* All that is there now, synced: an image of the disk. */
int kv_mem_copy(struct kv **out, struct kv *kv, struct err_ctx *ctx);
/* The write after `after` more ones fails with `code`: ERR_FULL (that one alone, nothing is written) or
 * ERR_IO (it is applied unsynced or not, by `applied`; then everything is refused until kv_mem_crash). */
void kv_mem_fail(struct kv *kv, uint64_t after, int code, bool applied);

#endif
