#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "presence/typing.h"

#define S 1000000ull /* us */

static void test_typing_holds_until_its_time_and_no_longer(void **state)
{
    struct typing t;
    struct typist who[TYPING_CHAT_MAX];
    (void)state;
    typing_init(&t, 1);
    assert_int_equal(typing_set(&t, 1, 7, 10 * S, 0), TYPING_TOLD);
    assert_int_equal(typing_set(&t, 1, 8, 12 * S, 0), TYPING_TOLD);
    assert_int_equal(typing_in(&t, 1, 9 * S, who), 2);
    assert_int_equal(typing_in(&t, 1, 10 * S, who), 1);
    assert_int_equal(who[0].user, 8);
    assert_int_equal(typing_in(&t, 2, 9 * S, who), 0);
    assert_int_equal(typing_until(&t, 1, 7, 9 * S), 10 * S);
    assert_int_equal(typing_until(&t, 1, 7, 10 * S), 0);
    assert_int_equal(typing_expire(&t, 11 * S, 10), 1);
    assert_int_equal(typing_expire(&t, 12 * S, 10), 1);
    assert_int_equal(t.entries.live + t.chats.count, 0);
    typing_release(&t);
}

static void test_a_refresh_prolongs_and_is_told_at_most_once_a_second(void **state)
{
    struct typing t;
    (void)state;
    typing_init(&t, 1);
    typing_set(&t, 1, 7, 10 * S, 0);
    assert_int_equal(typing_set(&t, 1, 7, 11 * S, 500), TYPING_SOON);
    assert_int_equal(typing_set(&t, 1, 7, 13 * S, 3000), TYPING_TOLD);
    assert_int_equal(typing_set(&t, 1, 7, 5 * S, 4000),
                     TYPING_TOLD); /* late on its way: takes nothing back */
    assert_int_equal(typing_until(&t, 1, 7, 12 * S), 13 * S);
    typing_release(&t);
}

static void test_a_message_ends_it(void **state)
{
    struct typing t;
    (void)state;
    typing_init(&t, 1);
    typing_set(&t, 1, 7, 10 * S, 0);
    typing_set(&t, 1, 8, 10 * S, 0);
    typing_set(&t, 1, 9, 10 * S, 0);
    assert_true(typing_clear(&t, 1, 8));
    assert_false(typing_clear(&t, 1, 8));
    assert_int_equal(typing_until(&t, 1, 7, 0), 10 * S);
    assert_int_equal(typing_until(&t, 1, 8, 0), 0);
    assert_true(typing_clear(&t, 1, 7));
    assert_true(typing_clear(&t, 1, 9));
    assert_int_equal(t.entries.live + t.oldest + t.newest, 0);
    typing_release(&t);
}

static void test_a_chat_and_the_whole_have_limits(void **state)
{
    struct typing t;
    (void)state;
    typing_init(&t, 1);
    for (uint32_t u = 1; u <= TYPING_CHAT_MAX; u++)
        assert_int_equal(typing_set(&t, 1, u, 10 * S, 0), TYPING_TOLD);
    assert_int_equal(typing_set(&t, 1, 99, 10 * S, 0), TYPING_DROPPED);
    for (uint32_t c = 2; c < TYPING_MAX + 100; c++)
        assert_int_equal(typing_set(&t, c, 1, 10 * S, 0), TYPING_TOLD);
    assert_int_equal(t.entries.live, TYPING_MAX);
    assert_int_equal(typing_until(&t, 1, 1, 0), 0); /* the oldest went */
    assert_int_equal(typing_until(&t, TYPING_MAX, 1, 0), 10 * S);
    typing_release(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_typing_holds_until_its_time_and_no_longer),
        cmocka_unit_test(test_a_refresh_prolongs_and_is_told_at_most_once_a_second),
        cmocka_unit_test(test_a_message_ends_it),
        cmocka_unit_test(test_a_chat_and_the_whole_have_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
