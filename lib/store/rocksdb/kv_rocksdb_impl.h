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
/* Is the masked crc32c of these bytes the stored one? */
bool kv_rocksdb_crc_fits(const uint8_t *p, size_t n, const uint8_t stored[4]);
static inline uint32_t le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static inline uint64_t le64(const uint8_t *p)
{
    return le32(p) | (uint64_t)le32(p + 4) << 32;
}
/* inspect_table.c: ERR_CORRUPT names the first table whose footer, index or meta blocks are damaged. For a
 * folder that RocksDB refused: 0 means that the damage is elsewhere, and leaves ctx alone. */
int kv_rocksdb_inspect_tables(const char *dir, struct err_ctx *ctx);

int kv_rocksdb_write(struct kv *kv, struct kv_batch *b, unsigned how, struct err_ctx *ctx);
int kv_rocksdb_sync(struct kv *kv, struct err_ctx *ctx);
int kv_rocksdb_room(struct kv *kv, struct err_ctx *ctx);

#endif
