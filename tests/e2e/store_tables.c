/* Writes a store's rows that are still in logs to tables: store_tables DIR. A small store has none otherwise.
 */
#include <stdio.h>
#include <string.h>

#include "store/rocksdb/options_impl.h"

int main(int argc, char **argv)
{
    struct rocksdb_tuning t;
    rocksdb_column_family_handle_t *family[ROCKSDB_FAMILIES];
    char *err = NULL;
    if (argc != 2)
        return 64;
    rocksdb_tuning_init(&t, false);
    rocksdb_t *db = rocksdb_open_column_families(t.db, argv[1], ROCKSDB_FAMILIES, t.names,
                                                 (const rocksdb_options_t *const *)t.family, family, &err);
    rocksdb_flushoptions_t *how = rocksdb_flushoptions_create();
    rocksdb_flushoptions_set_wait(how, 1);
    for (int f = 0; f < ROCKSDB_FAMILIES && !err; f++)
        rocksdb_flush_cf(db, how, family[f], &err);
    if (err) {
        fprintf(stderr, "store_tables: %s\n", err);
        return 1;
    }
    for (int f = 0; f < ROCKSDB_FAMILIES; f++)
        rocksdb_column_family_handle_destroy(family[f]);
    rocksdb_flushoptions_destroy(how);
    rocksdb_close(db);
    rocksdb_tuning_release(&t);
    return 0;
}
