/* Invariant 6, typing: what is shown against what was last said. */
#include <inttypes.h>

#include "audit/live_impl.h"
#include "util/clock.h"

#define TYPING_NS (10 * NS_PER_S)

void live_typed(struct live *l, uint64_t user, uint64_t chat, uint64_t now_ns)
{
    uint64_t *at = map_put(&l->typed, (uint64_t[]){chat, user}, NULL);
    BUG_ON(!at);
    *at = now_ns;
}

static void judge(struct live *l, const uint64_t *key, uint64_t now_ns)
{
    const uint64_t *said = map_get(&l->typed, key); /* a key begins with (chat, typist) */
    if (said && now_ns - *said <= TYPING_NS)
        return;
    live_fail(l, LIVE_STALE_TYPING, key[0], NULL,
              "user %" PRIu64 " device %" PRIu64 " shows user %" PRIu64 " typing in chat %" PRIu64
              ", who %s%" PRIu64 " ms ago",
              key[2], key[3], key[1], key[0], said ? "said so last " : "never did; ",
              (uint64_t)(said ? (now_ns - *said) / NS_PER_MS : 0));
}

void live_typing(struct live *l, uint64_t user, uint32_t device, uint64_t chat, uint64_t typist, bool shown,
                 uint64_t now_ns)
{
    uint64_t key[] = {chat, typist, user, device};
    if (l->failed || !l->promises.typing)
        return;
    judge(l, key, now_ns);
    if (!shown)
        map_del(&l->typing, key);
    else
        BUG_ON(!map_put(&l->typing, key, NULL));
}

void live_time(struct live *l, uint64_t now_ns)
{
    size_t at = 0;
    const void *key;
    while (!l->failed && map_next(&l->typing, &at, &key, NULL))
        judge(l, key, now_ns);
    live_presence_time(l, now_ns);
}
