#include <stdlib.h>
#include <string.h>

#include "store/rocksdb/options_impl.h"

#define MIB (1ull << 20)

#define READ_ONLY_CACHE (24 * MIB)

static const struct {
    const char *name;
    uint64_t write_buffer;
    uint64_t block;
    int compression;
    bool bloom, merge;
} families[ROCKSDB_FAMILIES] = {
    [KV_MSG] = {"msg", 64 * MIB, 16 << 10, rocksdb_lz4_compression, false, false},
    /* ids are random: nothing to compress, and nearly every lookup is for a key that is not there */
    [KV_DEDUP] = {"dedup", 32 * MIB, 4 << 10, rocksdb_no_compression, true, false},
    [KV_CURSOR] = {"cursor", 8 * MIB, 4 << 10, rocksdb_lz4_compression, true, true},
    [KV_MEMBER] = {"member", 8 * MIB, 16 << 10, rocksdb_lz4_compression, false, false},
    [KV_USERCHAT] = {"userchat", 8 * MIB, 16 << 10, rocksdb_lz4_compression, false, false},
    [KV_LOG] = {"log", 16 * MIB, 16 << 10, rocksdb_lz4_compression, false, false},
    [KV_META] = {"meta", 1 * MIB, 4 << 10, rocksdb_no_compression, false, false},
    [KV_FAMILIES] = {"default", 1 * MIB, 4 << 10, rocksdb_no_compression, false, false},
};

static void no_state(void *state)
{
    (void)state;
}

static const char *merge_name(void *state)
{
    (void)state;
    return "chatd.cursor.v1";
}

static void merge_free(void *state, const char *value, size_t n)
{
    (void)state;
    (void)n;
    free((void *)value);
}

/* The C wrapper copies *out_n bytes also after a refusal. */
static char *refuse(unsigned char *ok, size_t *out_n)
{
    *ok = 0;
    *out_n = 0;
    return NULL;
}

/* A row of another length fails the merge, which RocksDB reports as corruption to whoever reads it. */
static char *merge_full(void *state, const char *key, size_t key_n, const char *old, size_t old_n,
                        const char *const *v, const size_t *v_n, int n, unsigned char *ok, size_t *out_n)
{
    (void)state;
    (void)key;
    (void)key_n;
    if ((old && old_n != KV_CURSOR_BYTES) || (!old && n == 0))
        return refuse(ok, out_n);
    char *out = malloc(KV_CURSOR_BYTES);
    if (!out)
        return refuse(ok, out_n);
    if (old)
        memcpy(out, old, KV_CURSOR_BYTES);
    for (int i = 0; i < n; i++) {
        if (v_n[i] != KV_CURSOR_BYTES) {
            free(out);
            return refuse(ok, out_n);
        }
        if (i == 0 && !old)
            memcpy(out, v[0], KV_CURSOR_BYTES);
        else
            kv_cursor_merge((uint8_t *)out, (const uint8_t *)v[i]);
    }
    *ok = 1;
    *out_n = KV_CURSOR_BYTES;
    return out;
}

/* Merging some operands before the others is sound only within one epoch (A, then B, then A again is not
 * associative); RocksDB keeps the operands apart when we refuse. */
static char *merge_partial(void *state, const char *key, size_t key_n, const char *const *v,
                           const size_t *v_n, int n, unsigned char *ok, size_t *out_n)
{
    for (int i = 0; i < n; i++)
        if (v_n[i] != KV_CURSOR_BYTES || memcmp(v[i], v[0], 8) != 0)
            return refuse(ok, out_n);
    return merge_full(state, key, key_n, NULL, 0, v, v_n, n, ok, out_n);
}

static void set_table(rocksdb_options_t *o, int f, rocksdb_cache_t *cache, bool index_in_cache)
{
    rocksdb_block_based_table_options_t *t = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_block_size(t, families[f].block);
    rocksdb_block_based_options_set_block_cache(t, cache);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(t, index_in_cache);
    rocksdb_block_based_options_set_format_version(t, 5);
    rocksdb_block_based_options_set_checksum(t, 1); /* crc32c: inspect_table.c computes it too */
    if (families[f].bloom)
        rocksdb_block_based_options_set_filter_policy(t, rocksdb_filterpolicy_create_bloom_full(10));
    rocksdb_options_set_block_based_table_factory(o, t);
    rocksdb_block_based_options_destroy(t);
}

static rocksdb_options_t *family_options(int f, rocksdb_cache_t *cache)
{
    rocksdb_options_t *o = rocksdb_options_create();
    set_table(o, f, cache, false);
    rocksdb_options_set_write_buffer_size(o, families[f].write_buffer);
    rocksdb_options_set_max_write_buffer_number(o, 3);
    rocksdb_options_set_target_file_size_base(o, 64 * MIB);
    rocksdb_options_set_level_compaction_dynamic_level_bytes(o, 1);
    rocksdb_options_set_compression(o, families[f].compression);
    if (families[f].merge)
        rocksdb_options_set_merge_operator(
            o,
            rocksdb_mergeoperator_create(NULL, no_state, merge_full, merge_partial, merge_free, merge_name));
    return o;
}

void rocksdb_tuning_init(struct rocksdb_tuning *t, bool create)
{
    /* Opening keeps the logs instead of writing tables from them: it must work on a full disk. The manifest
     * knows which logs there must be and how long each was when synced: a manifest that lost its end would
     * otherwise hide that a log is gone. */
    char *err = NULL;
    rocksdb_options_t *plain = rocksdb_options_create(), *db = rocksdb_options_create();
    rocksdb_get_options_from_string(
        plain, "avoid_flush_during_recovery=true;track_and_verify_wals_in_manifest=true", db, &err);
    BUG_ON(err);
    rocksdb_options_destroy(plain);
    t->db = db;
    t->cache = rocksdb_cache_create_lru(64 * MIB);
    for (int f = 0; f < ROCKSDB_FAMILIES; f++) {
        t->names[f] = families[f].name;
        t->family[f] = family_options(f, t->cache);
    }
    rocksdb_options_set_create_if_missing(db, create);
    rocksdb_options_set_create_missing_column_families(db, create);
    /* kTolerateCorruptedTailRecords: a torn last record is dropped, damage before it is an error. The default
     * (point in time) silently drops everything behind a flipped bit. */
    rocksdb_options_set_wal_recovery_mode(db, 0);
    rocksdb_options_set_paranoid_checks(db, 1);
    /* Only headers are logged: on a full disk, logging an error aborts the process (asserts are on in
     * Debian's build). Errors reach us through the calls. */
    rocksdb_options_set_info_log_level(db, 5);
    rocksdb_options_set_keep_log_file_num(db, 2);
    rocksdb_options_set_stats_dump_period_sec(db, 0);
    /* Memory, and the disk space a flush may take: bounded. */
    rocksdb_options_set_db_write_buffer_size(db, ROCKSDB_MEMTABLES_MAX);
    rocksdb_options_set_max_total_wal_size(db, 256 * MIB);
    rocksdb_options_set_max_open_files(db, 512);
    rocksdb_options_set_max_background_jobs(db, 2);
    /* Compaction is never urgent before 20 tables wait for it; what people wait for is. On a busy machine it
     * would otherwise have the share of a whole thread, for as long as it takes. */
    rocksdb_env_t *env = rocksdb_create_default_env();
    rocksdb_env_lower_thread_pool_cpu_priority(env);
    rocksdb_options_set_env(db, env);
    rocksdb_env_destroy(env);
    /* Table files go out as they are written, instead of all at once in front of a commit's fsync. */
    rocksdb_options_set_bytes_per_sync(db, 1 * MIB);
}

void rocksdb_tuning_read_only(struct rocksdb_tuning *t)
{
    rocksdb_lru_cache_options_t *c = rocksdb_lru_cache_options_create();
    rocksdb_lru_cache_options_set_capacity(c, READ_ONLY_CACHE);
    rocksdb_lru_cache_options_set_num_shard_bits(c, 0); /* an index is as large as a shard would be */
    rocksdb_cache_destroy(t->cache);
    t->cache = rocksdb_cache_create_lru_opts(c);
    rocksdb_lru_cache_options_destroy(c);
    for (int f = 0; f < ROCKSDB_FAMILIES; f++)
        set_table(t->family[f], f, t->cache, !families[f].bloom);
}

void rocksdb_tuning_release(struct rocksdb_tuning *t)
{
    rocksdb_options_destroy(t->db);
    for (int f = 0; f < ROCKSDB_FAMILIES; f++)
        rocksdb_options_destroy(t->family[f]);
    rocksdb_cache_destroy(t->cache);
}
