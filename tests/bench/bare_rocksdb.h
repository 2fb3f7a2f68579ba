/* What the benchmarks of the store share: entries with random 200-byte bodies, and a bare RocksDB batch
 * writer of the same rows (same engine options, same three rows an entry, one fsync a batch). Included by one
 * file a program. */
#ifndef TESTS_BENCH_BARE_ROCKSDB_H
#define TESTS_BENCH_BARE_ROCKSDB_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shard/shard.h"
#include "store/rocksdb/options_impl.h"
#include "store/store_impl.h"
#include "util/clock.h"
#include "util/rng.h"

#define BODY  200
#define CHATS 1000
#define SLOTS 20000u /* bodies made beforehand, used round and round with fresh ids and seqs */

struct bare_row {
    uint8_t msg_key[18], dedup_key[26], log_key[8];
};

struct side {
    uint64_t rows, ns, index;
    uint64_t seq[CHATS];
};

static char bodies[SLOTS][BODY];
static struct entry entries[STORE_BATCH_MAX];
static struct bare_row rows[STORE_BATCH_MAX];
static uint8_t msg_val[ROW_MSG_FIXED + 4 + BODY + ROW_CHECK], dedup_val[ROW_DEDUP_BYTES];

static inline void die(const char *what)
{
    fprintf(stderr, "bench: %s\n", what);
    exit(70);
}

/* The same entries for both sides: senders and chats at random, ids in the order of time. */
static inline void make_batch(struct side *s, struct rng *r, size_t n, uint64_t ms)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t chat = 1 + rng_below(r, CHATS);
        entries[i] = (struct entry){.chat = chat,
                                    .epoch = 7,
                                    .seq = ++s->seq[chat - 1],
                                    .sender = 1 + rng_below(r, 10000),
                                    .ts_us = ms * 1000,
                                    .id = id_new(ms, r),
                                    .kind = "text",
                                    .kind_len = 4,
                                    .body = bodies[rng_below(r, SLOTS)],
                                    .body_len = BODY};
        memset(entries[i].tag, (int)i, 16);
        memcpy(entries[i].content, entries[i].body, 16);
    }
}

static inline void lay_out(struct side *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct row_key k;
        key_msg(&k, entries[i].chat, entries[i].seq);
        memcpy(rows[i].msg_key, k.b, k.n);
        key_dedup(&k, entries[i].sender, &entries[i].id);
        memcpy(rows[i].dedup_key, k.b, k.n);
        key_log(&k, ++s->index);
        memcpy(rows[i].log_key, k.b, k.n);
    }
}

struct bare {
    rocksdb_t *db;
    rocksdb_column_family_handle_t *f[ROCKSDB_FAMILIES];
    rocksdb_writeoptions_t *wo;
    rocksdb_writebatch_t *wb;
};

static inline void bare_open(struct bare *b, const char *dir)
{
    struct rocksdb_tuning t;
    char *err = NULL;
    rocksdb_tuning_init(&t, true);
    b->db = rocksdb_open_column_families(t.db, dir, ROCKSDB_FAMILIES, t.names,
                                         (const rocksdb_options_t *const *)t.family, b->f, &err);
    rocksdb_tuning_release(&t);
    if (err)
        die(err);
    b->wo = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(b->wo, 1);
    b->wb = rocksdb_writebatch_create();
}

static inline void bare_close(struct bare *b)
{
    rocksdb_writebatch_destroy(b->wb);
    rocksdb_writeoptions_destroy(b->wo);
    for (int i = 0; i < ROCKSDB_FAMILIES; i++)
        rocksdb_column_family_handle_destroy(b->f[i]);
    rocksdb_close(b->db);
}

static inline void bare_commit(struct bare *b, size_t n)
{
    char *err = NULL;
    rocksdb_writebatch_clear(b->wb);
    for (size_t i = 0; i < n; i++) {
        /* bodies differ, or compression would flatter this side */
        memcpy(msg_val + ROW_MSG_FIXED + 4, entries[i].body, BODY);
        memcpy(msg_val + 40, entries[i].id.b, ID_BYTES);
        rocksdb_writebatch_put_cf(b->wb, b->f[KV_MSG], (char *)rows[i].msg_key, 18, (char *)msg_val,
                                  sizeof msg_val);
        rocksdb_writebatch_put_cf(b->wb, b->f[KV_DEDUP], (char *)rows[i].dedup_key, 26, (char *)dedup_val,
                                  sizeof dedup_val);
        rocksdb_writebatch_put_cf(b->wb, b->f[KV_LOG], (char *)rows[i].log_key, 8, (char *)rows[i].msg_key,
                                  18);
    }
    rocksdb_write(b->db, b->wo, b->wb, &err);
    if (err)
        die(err);
}

/* Bodies that do not compress; once, before anything else. */
static inline void make_bodies(void)
{
    struct rng r;
    rng_seed(&r, 1);
    for (unsigned i = 0; i < SLOTS; i++)
        for (unsigned j = 0; j < BODY; j++)
            bodies[i][j] = (char)('a' + rng_below(&r, 26));
    msg_val[0] = 1;
}

#endif
