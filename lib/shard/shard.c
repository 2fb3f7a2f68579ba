#include "shard/shard.h"

/* splitmix64's finaliser (Stafford's mix 13): neighbouring numbers, as people give them to chats, spread
 * evenly. */
static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

uint16_t shard_of_chat(uint64_t chat)
{
    return (uint16_t)(mix(chat) % SHARD_COUNT);
}

/* Its own constant, so that a chat numbered like its only user does not land on the same shard by rule. */
uint16_t shard_of_user(uint64_t user)
{
    return (uint16_t)(mix(user ^ 0x5bd1e995a5a5a5a5ull) % SHARD_COUNT);
}
