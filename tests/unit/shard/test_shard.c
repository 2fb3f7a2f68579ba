#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "shard/shard.h"

/* These numbers are on people's disks. */
static void test_placement_never_changes(void **state)
{
    (void)state;
    static const struct {
        uint64_t n;
        uint16_t chat, user;
    } golden[] = {
        {0ull, 175, 20},
        {1ull, 193, 2},
        {2ull, 206, 69},
        {7ull, 215, 189},
        {17ull, 99, 165},
        {1000ull, 72, 121},
        {123456789ull, 121, 73},
        {4294967296ull, 56, 209},
        {9223372036854775808ull, 219, 106},
        {18446744073709551615ull, 32, 226},
    };
    for (size_t i = 0; i < sizeof golden / sizeof *golden; i++) {
        assert_int_equal(shard_of_chat(golden[i].n), golden[i].chat);
        assert_int_equal(shard_of_user(golden[i].n), golden[i].user);
    }
}

static void test_neighbours_spread_evenly(void **state)
{
    (void)state;
    unsigned chats[SHARD_COUNT] = {0}, users[SHARD_COUNT] = {0};
    for (uint64_t i = 1; i <= 256000; i++) {
        chats[shard_of_chat(i)]++;
        users[shard_of_user(i)]++;
    }
    for (unsigned s = 0; s < SHARD_COUNT; s++) { /* 1000 expected, 5 standard errors = 160 */
        assert_in_range(chats[s], 840, 1160);
        assert_in_range(users[s], 840, 1160);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_placement_never_changes),
        cmocka_unit_test(test_neighbours_spread_evenly),
    };
    return cmocka_run_group_tests_name("shard", tests, NULL, NULL);
}
