/* What a membership costs in memory: 100,000 people, 10,000 chats of 1,000 each, so 10 million memberships,
 * as a node holds them; and one chat of 100,000. At the chat 15 bytes and the chat's own share by
 * design, at the user the chat's number. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/registry.h"
#include "util/clock.h"
#include "util/rng.h"

#define USERS 100000u
#define CHATS 10000u
#define EACH  1000u

static size_t in_use(void)
{
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

static void die(const char *what)
{
    fprintf(stderr, "bench_members: %s\n", what);
    exit(1);
}

/* Chat c has every (USERS / EACH)-th user from c on; in random order as people come. */
static void fill(struct registry *r, struct rng *rng)
{
    static uint32_t order[EACH];
    for (uint32_t c = 0; c < CHATS; c++) {
        struct chat *chat = registry_chat_make(r, c + 1);
        for (uint32_t i = 0; i < EACH; i++) {
            uint32_t j = (uint32_t)rng_below(rng, i + 1);
            order[i] = order[j];
            order[j] = i;
        }
        registry_members_reserve(chat, EACH);
        for (uint32_t i = 0; i < EACH; i++)
            if (registry_member_set(r, chat, (order[i] * (USERS / EACH) + c) % USERS + 1, 1, MEMBER_PLAIN))
                die("no memory");
    }
}

int main(void)
{
    struct registry r;
    struct rng rng;
    rng_seed(&rng, 1);
    registry_init(&r, 1);
    size_t before = in_use();
    for (uint32_t u = 1; u <= USERS; u++)
        if (!registry_user_make(&r, u))
            die("no memory");
    size_t users = in_use();
    uint64_t began = clock_mono_ns();
    fill(&r, &rng);
    double s = (double)(clock_mono_ns() - began) * 1e-9, n = (double)CHATS * EACH, at_users = 0;
    size_t all = in_use();
    for (uint32_t u = 1; u <= USERS; u++)
        at_users += (double)malloc_usable_size(registry_user(&r, u)->chats.many) + 8;
    printf("%u users (%.1f B each), %u chats of %u: %.0f memberships in %.1f s\n", USERS,
           (double)(users - before) / USERS, CHATS, EACH, n, s);
    double chat_side = ((double)(all - users) - at_users) / n;
    printf("BENCH member_bytes_at_chat %.2f B budget 16 %s\n", chat_side, chat_side <= 16 ? "ok" : "MISSED");
    printf("BENCH member_bytes_at_user %.2f B budget 16 %s\n", at_users / n,
           at_users / n <= 16 ? "ok" : "MISSED");

    struct chat *big = registry_chat_make(&r, CHATS + 1);
    began = clock_mono_ns();
    for (uint32_t u = 1; u <= USERS; u++)
        if (registry_member_set(&r, big, (uint64_t)u * 7919 % USERS + 1, 1, MEMBER_PLAIN))
            die("a chat of 100,000 does not fit");
    printf("one chat of %u members: %.2f s to fill one by one in random order\n", big->members_n,
           (double)(clock_mono_ns() - began) * 1e-9);
    bool whole = big->members_n == USERS;
    registry_release(&r);
    return whole ? 0 : 1;
}
