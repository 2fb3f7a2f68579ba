/* Pure placement: which of the SHARD_COUNT shards a chat or a user lives on. The functions are part of the
 * format on disk (every row key of a chat begins with its shard): they never change, golden values in
 * tests/unit/shard hold them still.
 *
 * Must not know: nodes, stores, processes. */
#ifndef SHARD_SHARD_H
#define SHARD_SHARD_H

#include <stdint.h>

#define SHARD_COUNT 256u

/* A chat's log, members and cursors. */
uint16_t shard_of_chat(uint64_t chat);
/* A user's home: the dedup rows and the list of chats. */
uint16_t shard_of_user(uint64_t user);

#endif
