/* Row codecs, mark and lineage behind store.h. */
#ifndef STORE_STORE_IMPL_H
#define STORE_STORE_IMPL_H

#include <stdatomic.h>

#include "store/store.h"

#define STORE_MAGIC  0x73746f7265000001ull
#define STORE_FORMAT 1

/* --- rows.c: keys and values; all numbers big-endian, so that keys sort as numbers do --- */

#define KEY_CHAT_BYTES 10 /* shard, chat: the front of msg, member and cursor keys */

struct row_key {
    uint8_t n;
    uint8_t b[63];
};
static inline struct kv_bytes key_bytes(const struct row_key *k)
{
    return (struct kv_bytes){k->b, k->n};
}

void put_u16(uint8_t *p, uint16_t v);
void put_u32(uint8_t *p, uint32_t v);
void put_u64(uint8_t *p, uint64_t v);
uint16_t get_u16(const uint8_t *p);
uint32_t get_u32(const uint8_t *p);
uint64_t get_u64(const uint8_t *p);

void key_msg(struct row_key *k, uint64_t chat, uint64_t seq);
void key_dedup(struct row_key *k, uint64_t sender, const struct id *id);
void key_cursor(struct row_key *k, uint64_t chat, uint64_t user, uint32_t device);
void key_member(struct row_key *k, uint64_t chat, uint64_t user, uint64_t from);
void key_userchat(struct row_key *k, uint64_t user, uint64_t chat);
void key_log(struct row_key *k, uint64_t commit_index);
/* The smallest key greater than all that begin with k; empty when there is none (all 0xff). */
void key_after(struct row_key *k);

#define ROW_MSG_FIXED   88 /* before kind and body */
#define ROW_CHECK       4
#define ROW_DEDUP_BYTES 68
#define ROW_LOG_BYTES   18

/* Appends. */
void row_msg(struct buf *out, const struct row_key *key, const struct entry *e);
void row_dedup(uint8_t out[ROW_DEDUP_BYTES], const struct row_key *key, const struct entry *e);

/* ERR_CORRUPT with family, key and what is wrong. Entries point into val. */
int row_msg_read(struct entry *e, struct kv_bytes key, struct kv_bytes val, struct err_ctx *ctx);
int row_dedup_read(struct dedup *d, struct kv_bytes key, struct kv_bytes val, struct err_ctx *ctx);
int row_member_read(struct member_row *m, struct kv_bytes key, struct kv_bytes val, struct err_ctx *ctx);
int row_corrupt(struct err_ctx *ctx, const char *family, struct kv_bytes key, const char *what);
/* 32 bits over key and value. */
uint32_t row_check(struct kv_bytes key, const void *val, size_t n);

/* --- mark.c: KEYS/mark --- */

struct mark {
    uint64_t epoch, generation, opens, commit;
};
/* 0, ERR_NOTFOUND, ERR_CORRUPT (no mark of ours), ERR_IO... */
int mark_read(struct mark *m, const char *keys_dir, struct err_ctx *ctx);
/* Temporary file, fsync, rename, fsync of the folder: the old or the new one, never half. */
int mark_write(const struct mark *m, const char *keys_dir, struct err_ctx *ctx);

/* --- lineage.c: meta rows; which epoch this open has --- */

struct store {
    uint64_t magic;
    struct kv *kv;
    bool owns_kv, read_only, epoch_is_new, empty;
    int lock_fd;
    char *keys_dir; /* NULL: no mark */
    struct kv_batch *batch;
    struct buf row;
    struct lineage_entry *lineage;
    size_t lineage_n;
    uint64_t generation, opens;
    uint64_t ids_before_ms; /* store_ids_before */
    uint64_t whole_epoch;
    _Atomic uint64_t commit_index;
    struct row_key sweep; /* where store_dedup_sweep goes on */
};

/* Reads meta and the commit index; s->empty when the store has never been opened. */
int lineage_load(struct store *s, struct err_ctx *ctx);
/* Applies the rule of the mark (store.h), counts this open, makes both durable, writes the mark. */
int lineage_open(struct store *s, const struct store_config *c, struct err_ctx *ctx);

/* store_begin_epoch without its checks. */
int lineage_begin(struct store *s, uint64_t now_us, uint64_t random, uint64_t above, struct err_ctx *ctx);

/* Adds a meta number to the batch. */
void put_meta(struct store *s, const char *name, uint64_t v);

/* --- lock.c --- */

/* DIR/pid under flock; the descriptor, or an error. */
int lock_take(const char *dir, struct err_ctx *ctx);
/* Make the folder if missing, durably. */
int make_dir(const char *dir, struct err_ctx *ctx);
int sync_folder(const char *dir, struct err_ctx *ctx);

#endif
