/* What can be saved of a damaged store. Both change the folder: give them a copy. */
#ifndef STORE_REPAIR_H
#define STORE_REPAIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/err.h"

#define REPAIR_RANGES_MAX 100000u

struct repair_range {
    uint64_t chat, from, to; /* seqs, both lost */
};

struct repair_result {
    uint64_t entries, lost, members; /* lost: holes, and what the log names and no chat has */
    bool log_rebuilt;                /* the order across chats is not the one of old; within a chat it is */
    struct repair_range *ranges;     /* free() */
    size_t ranges_n, ranges_cap;
    uint64_t ranges_more; /* counted, not listed */
};

/* A database of all tables and logs that can be read: a table with a damaged block is moved to `lost`. */
int kv_rocksdb_repair(const char *dir, struct err_ctx *ctx);
/* Makes the rows agree: log rows of lost entries go, log and dedup rows of entries are made where they are
 * missing, meta too; so `verify` passes it. */
int store_repair(struct repair_result *out, const char *dir, struct err_ctx *ctx);

#endif
