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

struct kv_bytes {
    const void *p;
    size_t n;
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
    /* sync: durable when it returns 0. ERR_FULL: nothing was written, checked beforehand against the reserve.
     * ERR_IO: outcome unknown, the store is dead until reopened. */
    int (*write)(struct kv *, struct kv_batch *, bool sync, struct err_ctx *);
    /* 0 with *val appended to out, ERR_NOTFOUND, ERR_CORRUPT, ERR_IO. */
    int (*get)(struct kv *, enum kv_family, struct kv_bytes key, struct buf *out, struct err_ctx *);
    /* Rows with from <= key < to, rising, or falling when `reverse` (from the last below `to`). */
    int (*scan)(struct kv *, enum kv_family, struct kv_bytes from, struct kv_bytes to, bool reverse,
                kv_scan_fn *fn, void *arg, struct err_ctx *);
    int (*sync)(struct kv *, struct err_ctx *);
    /* A consistent copy in `dir` (which must not exist). ERR_UNSUPPORTED for memory. */
    int (*checkpoint)(struct kv *, const char *dir, struct err_ctx *);
    uint64_t (*disk_bytes)(struct kv *);
    void (*close)(struct kv *);
};

struct kv {
    const struct kv_ops *ops;
};

struct kv_rocksdb_config {
    const char *dir;
    uint64_t reserve_bytes; /* below this much free space write answers ERR_FULL; default 64 MiB */
    bool create;            /* make it if missing */
};
int kv_rocksdb_open(struct kv **out, const struct kv_rocksdb_config *c, struct err_ctx *ctx);
int kv_mem_open(struct kv **out, struct err_ctx *ctx);

#endif
