/* How the database is tuned; also for the bench's bare writer, so that both sides have the same engine. */
#ifndef STORE_ROCKSDB_OPTIONS_IMPL_H
#define STORE_ROCKSDB_OPTIONS_IMPL_H

#include <rocksdb/c.h>
#include <stdbool.h>

#include "store/kv.h"

#define ROCKSDB_MEMTABLES_MAX (128ull << 20)
#define ROCKSDB_FAMILIES      (KV_FAMILIES + 1) /* and "default", which stays empty */

struct rocksdb_tuning {
    rocksdb_options_t *db, *family[ROCKSDB_FAMILIES];
    const char *names[ROCKSDB_FAMILIES];
    rocksdb_cache_t *cache;
};

/* Families in the order of enum kv_family, "default" last. */
void rocksdb_tuning_init(struct rocksdb_tuning *t, bool create);
/* For who reads nearly everything once: little memory, however large the store. What is open of a table
 * holds its index, half a MiB a 64 MiB table; these share the cache then, which is smaller. Families with
 * filters, which only single keys are asked of, keep them open: read again for each key they cost too much.
 */
void rocksdb_tuning_read_only(struct rocksdb_tuning *t);
void rocksdb_tuning_release(struct rocksdb_tuning *t);

#endif
