/* What a node needs kept: chat logs, dedup rows, cursors, memberships, epochs. Row logic over kv.h (design.md
 * section 4 has the row layout); all calls are synchronous and made by the store's two threads (one commits,
 * one reads), never by an event loop.
 *
 * Durability: when store_commit returns 0, every entry has survived a power cut. ERR_FULL: nothing of it was
 * written. ERR_IO: outcome unknown (a failed fsync); the process must exit and reopen.
 *
 * Must not know: sessions, wire protocol, threads. */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "crypto/keys.h"
#include "store/kv.h"
#include "util/err.h"
#include "util/id.h"

#define STORE_BATCH_MAX    2000u      /* entries in one commit */
#define STORE_BATCH_BYTES  (4u << 20) /* and their bodies */
#define STORE_DEDUP_DAYS   30u
#define STORE_IDS_AHEAD_MS 10000u

/* What an entry does to its chat. Kinds below KIND_SYSTEM_COUNT are the server's; user kinds are text in
 * `kind`. */
enum entry_op {
    ENTRY_MESSAGE,
    ENTRY_CREATE,
    ENTRY_JOIN,
    ENTRY_LEAVE,
    ENTRY_INVITE,
    ENTRY_REMOVE,
    ENTRY_DELETE,
    ENTRY_RECOVERED /* body {"ranges":[[from,to]...]}: entries that were lost stand there again; sender 0 */
};
/* The op of an entry whose kind is this text; ENTRY_MESSAGE for a kind that people may use. */
enum entry_op entry_op_of(const char *kind, size_t n);

/* One entry of a chat's log. `kind` is "text" and the like for ENTRY_MESSAGE, else "create", "join", ...
 * Bodies of membership entries are JSON: {"users":["7","8"]} for create, {"user":"8"} for the others. */
struct entry {
    uint64_t chat, epoch, seq, sender, ts_us;
    struct id id;
    uint64_t key_id; /* 0: not encrypted */
    uint8_t op;
    uint8_t kind_len;
    uint32_t body_len;
    const char *kind; /* not NUL-terminated */
    const char *body;
    uint8_t tag[16];
    uint8_t content[16]; /* hash of kind and body, for dedup (entry_content_hash) */
};

struct dedup {
    uint64_t chat, epoch, seq, ts_us;
    uint8_t content[16];
    uint8_t tag[16];
};

struct cursor {
    uint64_t chat, user;
    uint32_t device;
    uint64_t epoch, delivered, read; /* seqs, cumulative */
};

/* Membership is a list of [from, to) ranges of seq; to = UINT64_MAX while it lasts. */
struct member_row {
    uint64_t chat, user, from, to;
    uint8_t role; /* 0 member, 1 admin, 2 invited (not yet a member) */
};

struct chat_head {
    uint64_t chat, epoch, seq; /* seq 0: nothing yet */
    uint64_t ts_us;            /* of that entry */
};

/* Epoch lineage, oldest first; the last is the current one (ended_commit UINT64_MAX). An epoch that is known
 * only from KEYS/mark, since its data is lost, stands in it with started_us 0. */
struct lineage_entry {
    uint64_t epoch, started_us, ended_commit; /* the commit index it ended with */
};

struct store_batch {
    struct entry *entries;
    size_t entries_n;
    struct member_row *members; /* rows to upsert with these entries */
    size_t members_n;
    struct cursor *cursors; /* merged by maximum, not synced for their own sake */
    size_t cursors_n;
    uint64_t whole_epoch; /* not 0: nothing more is awaited of what was lost before it began */
};

struct store;

struct store_config {
    const char *url;      /* "rocksdb:DIR" or "mem:" */
    const char *keys_dir; /* where `mark` lives; NULL: no mark is kept and none is asked for (mem:, tools) */
    uint64_t now_us, random; /* for a new epoch's name (63 bits, never 0) */
    uint64_t reserve_bytes;  /* 0: default */
    bool restored;           /* opened by `restore`: always a new epoch */
    bool read_only;          /* tools: no lock, no mark, no new epoch; ERR_NOTFOUND when nothing is there */
};

/* Opens (the folder is made if missing, its parent must exist), takes the lock on the folder (ERR_BUSY with
 * the holder's pid when another server has it), checks KEYS/mark. The sentence names file and remedy.
 *
 * The rule of the mark. The store itself keeps its lineage, a count of its opens and its commit index; the
 * mark is a copy of the last (epoch, open count, commit index) outside the data, always written after the
 * store's fsync. So in a store that lost nothing the mark never says more than the store, whatever crashed
 * when. A new epoch starts when
 *   - the mark's epoch is not in the store's lineage,
 *   - it is the store's current epoch, and the mark's open count or commit index is above the store's,
 *   - there is no readable mark although the store has entries (a warning is logged),
 *   - `restored` is set.
 * A mark of an earlier epoch of the lineage is passed over: the store has begun a newer one since. */
int store_open(struct store **out, const struct store_config *c, struct err_ctx *ctx);
/* Over a kv that stays the caller's (the simulated world, which crashes it); c->url is not read. */
int store_open_on(struct store **out, struct kv *kv, const struct store_config *c, struct err_ctx *ctx);
/* Syncs, writes the mark, closes; the store is gone also when it returns an error. */
int store_close(struct store *s, struct err_ctx *ctx);
/* Frees as a crash would: no sync, no mark. */
void store_drop(struct store *s);

uint64_t store_epoch(const struct store *s);
bool store_epoch_is_new(const struct store *s); /* this open began a new epoch over old data */
size_t store_lineage(const struct store *s, const struct lineage_entry **list);
uint64_t store_commit_index(const struct store *s); /* entries committed so far; any thread */
uint64_t store_disk_bytes(const struct store *s);
void store_pressure(const struct store *s, struct kv_pressure *p); /* zeros: nothing is held up */

/* Everything a node keeps in memory, in one pass at start. Heads: the last entry of each chat, in its own
 * epoch (not the store's: store_next_seq tells them apart). Any callback may be NULL. */
struct store_load {
    void (*head)(void *arg, const struct chat_head *h);
    void (*member)(void *arg, const struct member_row *m);
    void *arg;
};
int store_load(struct store *s, const struct store_load *l, struct err_ctx *ctx);
/* The first seq of a new epoch after `head`: (head | 2^32-1) + 1; also 2^32 after head 0, since a chat whose
 * create survived may have lost entries. */
uint64_t store_first_seq(uint64_t head);
/* The seq of a chat's next entry: head + 1 inside the head's epoch, else the first of this epoch (which also
 * lies above every range that epochs before it could have used, known here or not). h NULL: a chat that the
 * store does not know; its create gets 0 in the first epoch of all, else the first seq of this one. */
uint64_t store_next_seq(const struct store *s, const struct chat_head *h);

/* Commit thread only. Rows: msg, dedup, log per entry, member and userchat rows, cursors; one atomic batch,
 * then fsync if it has entries or members (a batch of cursors only is written without). Entries need seq,
 * epoch, tag and content set. A member row replaces the one with the same (chat, user, from); others stay.
 * ERR_LIMIT (beyond STORE_BATCH_*): nothing was written. */
int store_commit(struct store *s, const struct store_batch *b, struct err_ctx *ctx);
/* Begin a new epoch over the open store, durably, the mark included: somebody has proven that the store lacks
 * what was committed once. Its generation lies above the store's and `above`. Commit thread only. */
int store_begin_epoch(struct store *s, uint64_t now_us, uint64_t random, uint64_t above, struct err_ctx *ctx);
/* Is nothing awaited any more of what was lost before the current epoch? True in a store's first epoch.
 * Before the threads begin. */
bool store_is_whole(const struct store *s);
/* fsync the store, then KEYS/mark; called each second by the commit thread when commits happened. */
int store_mark(struct store *s, struct err_ctx *ctx);
/* Every id in the store carries a time (Unix ms) before this one, so a later id need not be looked up. It
 * runs up to STORE_IDS_AHEAD_MS ahead, so that commits seldom have to move it; UINT64_MAX: nothing is known
 * (a store from before this was kept). Commit thread, or before it begins. */
uint64_t store_ids_before(const struct store *s);
/* Room to write again? 0, ERR_FULL, or ERR_IO after a failed write. Cheap (statvfs). */
int store_has_room(struct store *s);

/* Reads; any thread. */
int store_dedup(struct store *s, uint64_t sender, const struct id *id, struct dedup *out,
                struct err_ctx *ctx); /* ERR_NOTFOUND */
int store_cursor(struct store *s, uint64_t chat, uint64_t user, uint32_t device, struct cursor *out,
                 struct err_ctx *ctx);
/* The cursors of all devices in one chat, in the order (user, device); fn returning false stops. */
typedef bool store_cursor_fn(void *arg, const struct cursor *c);
int store_cursors(struct store *s, uint64_t chat, store_cursor_fn *fn, void *arg, struct err_ctx *ctx);
/* Entries with seq > after and seq <= upto, rising, until limit entries or max_bytes of bodies (one entry
 * comes in any case); fn returning false stops. Pointers in the entry are good during the call only. Entry 0
 * (create) is among them only if after is UINT64_MAX. ERR_CORRUPT names the row; entries before it were
 * given. */
typedef bool store_entry_fn(void *arg, const struct entry *e);
int store_read(struct store *s, uint64_t chat, uint64_t after, uint64_t upto, uint32_t limit,
               size_t max_bytes, store_entry_fn *fn, void *arg, struct err_ctx *ctx);
/* The member rows of one chat, in the order (user, from); fn returning false stops. */
typedef bool store_member_fn(void *arg, const struct member_row *m);
int store_members(struct store *s, uint64_t chat, store_member_fn *fn, void *arg, struct err_ctx *ctx);
/* The entry at (chat, seq), 0 included: its id. ERR_NOTFOUND. */
int store_id_at(struct store *s, uint64_t chat, uint64_t seq, struct id *id, struct err_ctx *ctx);
/* The smallest seq whose ts_us >= since (server time is not decreasing in a chat), or head + 1. */
int store_seq_since(struct store *s, uint64_t chat, uint64_t since_us, uint64_t *seq, struct err_ctx *ctx);
/* All entries in commit order (audit, search, pipeline): one lookup an entry. */
int store_scan(struct store *s, store_entry_fn *fn, void *arg, struct err_ctx *ctx);
/* All entries by (shard, chat, seq): sequential, several times faster than store_scan. */
int store_scan_chats(struct store *s, store_entry_fn *fn, void *arg, struct err_ctx *ctx);
/* Delete dedup rows older than the window, at most `limit`; returns the count (0 also while it only walked
 * past young ones) or an error. Goes on where the last call stopped, round and round. A row is old when its
 * id's own time is an hour more than STORE_DEDUP_DAYS ago: such an id is refused as id_too_old before dedup
 * is asked. Commit thread only. */
long store_dedup_sweep(struct store *s, uint64_t now_us, uint32_t limit, struct err_ctx *ctx);
/* A checkpoint in `dir` (must not exist). */
int store_backup(struct store *s, const char *dir, struct err_ctx *ctx);

/* What its tag stands for. Points into the entry. */
struct tag_input entry_tag_input(const struct entry *e);
void entry_content_hash(uint8_t out[16], const char *kind, size_t kind_len, const char *body,
                        size_t body_len);

#endif
