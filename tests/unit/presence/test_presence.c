#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "presence/presence.h"

#define DAY 1764000000ull

struct heard {
    uint32_t session[64], user[64];
    enum presence_state state[64];
    uint32_t n;
};

static void hear(void *arg, uint32_t session, uint32_t user, enum presence_state s, uint64_t at_s)
{
    struct heard *h = arg;
    assert_true(at_s >= DAY || s == PRESENCE_UNKNOWN);
    h->session[h->n % 64] = session;
    h->user[h->n % 64] = user;
    h->state[h->n++ % 64] = s;
}

static void test_a_state_and_its_second_are_kept_in_four_bytes(void **state)
{
    struct presence p;
    uint64_t at;
    (void)state;
    presence_init(&p, 1);
    assert_int_equal(presence_get(&p, 7, &at), PRESENCE_UNKNOWN);
    assert_int_equal(at, 0);
    for (uint32_t u = 1; u <= 5000; u++)
        assert_int_equal(presence_set(&p, u, 1 + u % 3, DAY + u), 0);
    for (uint32_t u = 1; u <= 5000; u++) {
        assert_int_equal(presence_get(&p, u, &at), 1 + u % 3);
        assert_int_equal(at, DAY + u);
    }
    assert_int_equal(p.pages_n, 5);
    presence_release(&p);
}

static void test_watchers_are_told_the_last_state_once(void **state)
{
    struct presence p;
    struct heard h = {0};
    uint32_t users[] = {1, 2};
    (void)state;
    presence_init(&p, 1);
    presence_watch(&p, 10, users, 2);
    presence_watch(&p, 11, users, 1);
    presence_set(&p, 1, PRESENCE_ONLINE, DAY);
    presence_set(&p, 1, PRESENCE_AWAY, DAY);
    presence_set(&p, 3, PRESENCE_ONLINE, DAY); /* nobody watches */
    assert_int_equal(presence_flush(&p, 100, hear, &h), 2);
    assert_int_equal(h.state[0], PRESENCE_AWAY);
    assert_int_equal(h.state[1], PRESENCE_AWAY);
    assert_int_equal(h.session[0] + h.session[1], 21);
    assert_int_equal(presence_flush(&p, 100, hear, &h), 0);
    presence_release(&p);
}

static void test_a_state_that_came_back_before_the_flush_is_not_told(void **state)
{
    struct presence p;
    struct heard h = {0};
    (void)state;
    presence_init(&p, 1);
    presence_set(&p, 1, PRESENCE_ONLINE, DAY);
    presence_watch(&p, 10, &(uint32_t){1}, 1);
    presence_set(&p, 1, PRESENCE_OFFLINE, DAY);
    presence_set(&p, 1, PRESENCE_ONLINE, DAY + 1);
    assert_int_equal(presence_flush(&p, 100, hear, &h), 0);
    assert_int_equal(p.smoothed, 1);
    presence_release(&p);
}

static void test_a_storm_is_spread_over_flushes_by_the_budget(void **state)
{
    struct presence p;
    struct heard h = {0};
    uint32_t users[PRESENCE_WATCH_MAX], flushes = 0;
    (void)state;
    presence_init(&p, 1);
    for (uint32_t i = 0; i < PRESENCE_WATCH_MAX; i++)
        users[i] = i + 1;
    for (uint32_t s = 1; s <= 4; s++)
        assert_int_equal(presence_watch(&p, s, users, PRESENCE_WATCH_MAX), 0);
    for (uint32_t i = 0; i < PRESENCE_WATCH_MAX; i++)
        presence_set(&p, users[i], PRESENCE_ONLINE, DAY);
    while (p.dirty_n) {
        assert_in_range(presence_flush(&p, 50, hear, &h), 1, 53);
        flushes++;
    }
    assert_int_equal(h.n, 4 * PRESENCE_WATCH_MAX);
    assert_in_range(flushes, 19, 21);
    presence_release(&p);
}

static void test_watch_replaces_and_ending_leaves_nothing(void **state)
{
    struct presence p;
    struct heard h = {0};
    uint32_t users[] = {1, 2, 3}, many[PRESENCE_WATCH_MAX + 1] = {0};
    (void)state;
    presence_init(&p, 1);
    assert_int_equal(presence_watch(&p, 10, users, 3), 0);
    assert_int_equal(presence_watch(&p, 10, many, PRESENCE_WATCH_MAX + 1), ERR_LIMIT);
    assert_int_equal(presence_watching(&p, 10), 3);
    presence_set(&p, 1, PRESENCE_ONLINE, DAY);
    assert_int_equal(presence_watch(&p, 10, users + 1, 1), 0);
    presence_set(&p, 2, PRESENCE_ONLINE, DAY);
    presence_set(&p, 3, PRESENCE_ONLINE, DAY);
    assert_int_equal(presence_flush(&p, 100, hear, &h), 1);
    assert_int_equal(h.user[0], 2);
    presence_unwatch(&p, 10);
    presence_unwatch(&p, 10);
    assert_int_equal(p.watches.live + p.watched.count + p.watchers.count, 0);
    presence_release(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_state_and_its_second_are_kept_in_four_bytes),
        cmocka_unit_test(test_watchers_are_told_the_last_state_once),
        cmocka_unit_test(test_a_state_that_came_back_before_the_flush_is_not_told),
        cmocka_unit_test(test_a_storm_is_spread_over_flushes_by_the_budget),
        cmocka_unit_test(test_watch_replaces_and_ending_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
