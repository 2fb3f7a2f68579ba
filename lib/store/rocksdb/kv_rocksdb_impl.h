#ifndef STORE_ROCKSDB_KV_ROCKSDB_IMPL_H
#define STORE_ROCKSDB_KV_ROCKSDB_IMPL_H

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>

#include "store/rocksdb/options_impl.h"

#define KV_ROCKSDB_MAGIC 0x6b76726f636b0001ull

struct kv_rocksdb {
    struct kv kv;
    uint64_t magic, reserve;
    char *dir;
    rocksdb_t *db; /* NULL: an error closed it for good */
    rocksdb_column_family_handle_t *family[ROCKSDB_FAMILIES];
    rocksdb_readoptions_t *read;
    rocksdb_writeoptions_t *write_sync, *write_lazy;
    bool read_only;
    atomic_bool dead;      /* a write or fsync failed with unknown outcome */
    pthread_rwlock_t lock; /* shared: uses db; exclusive: closes and opens it */
};

struct kv_batch {
    rocksdb_writebatch_t *wb;
    struct kv_rocksdb *owner;
};

struct kv_rocksdb *kv_rocksdb_of(struct kv *kv);
/* Takes err (rocksdb_free); returns its code, with the sentence set. */
int kv_rocksdb_error(const struct kv_rocksdb *r, char *err, const char *doing, struct err_ctx *ctx);
int kv_rocksdb_start(struct kv_rocksdb *r, bool create, struct err_ctx *ctx);
void kv_rocksdb_stop(struct kv_rocksdb *r);

/* inspect.c: ERR_CORRUPT names the file, and the byte, for damage that RocksDB itself would take for the end
 * of a log, or for no database at all. */
int kv_rocksdb_inspect(const char *dir, struct err_ctx *ctx);

int kv_rocksdb_write(struct kv *kv, struct kv_batch *b, unsigned how, struct err_ctx *ctx);
int kv_rocksdb_sync(struct kv *kv, struct err_ctx *ctx);
int kv_rocksdb_room(struct kv *kv, struct err_ctx *ctx);

#endif
