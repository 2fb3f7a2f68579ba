/* The table of receipts: counts are what counting each would give, and memory is one line a member. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "core/receipts.h"
#include "util/err.h"
#include "util/rng.h"

static struct msg_count by_hand(const struct receipt_chat *c, uint64_t but, uint64_t seq)
{
    struct msg_count out = {.from = seq, .to = seq};
    for (uint32_t i = 0; i < c->members_n; i++) {
        const struct receipt_member *m = &c->members[i];
        if (m->user == but || m->from > seq)
            continue;
        out.of++;
        out.delivered += m->delivered >= seq;
        out.read += m->read >= seq;
    }
    return out;
}

static void test_counts_are_those_of_counting_each(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 5);
    for (int round = 0; round < 300; round++) {
        struct receipts r;
        receipts_init(&r, 1);
        struct receipt_chat *c = receipts_chat_make(&r, 17);
        uint64_t top = 1 + rng_below(&rng, 30), members = 1 + rng_below(&rng, 40);
        for (uint64_t i = 0; i < members; i++) {
            uint64_t user = rng_below(&rng, 60), read = rng_below(&rng, top + 1);
            assert_int_equal(receipts_member_set(&r, c, user, rng_below(&rng, top)), 0);
            receipts_note(&r, c, user, read + rng_below(&rng, 5), read);
            if (rng_below(&rng, 8) == 0)
                receipts_member_drop(&r, c, rng_below(&rng, 60));
        }
        assert_int_equal(r.members_n, c->members_n);
        struct receipt_counts k;
        assert_int_equal(receipts_count_begin(&k, c), 0);
        for (uint64_t seq = 1; seq <= top + 2; seq++) {
            uint64_t but = rng_below(&rng, 60);
            struct msg_count want = by_hand(c, but, seq),
                             got = receipts_count(&k, receipts_member(c, but), seq);
            assert_int_equal(got.of, want.of);
            assert_int_equal(got.delivered, want.delivered);
            assert_int_equal(got.read, want.read);
        }
        receipts_count_end(&k);
        receipts_release(&r);
    }
}

static void test_cursors_rise_and_never_fall(void **state)
{
    (void)state;
    struct receipts r;
    receipts_init(&r, 1);
    struct receipt_chat *c = receipts_chat_make(&r, 17);
    assert_false(receipts_note(&r, c, 7, 5, 5)); /* no member */
    assert_int_equal(receipts_member_set(&r, c, 7, 1), 0);
    assert_true(receipts_note(&r, c, 7, 5, 3));
    assert_false(receipts_note(&r, c, 7, 4, 3));
    assert_true(receipts_note(&r, c, 7, 1, 9)); /* what was read has arrived */
    const struct receipt_member *m = receipts_member(c, 7);
    assert_true(m->delivered == 9 && m->read == 9);
    assert_int_equal(r.queue_n, 1); /* once, however often */
    receipts_release(&r);
}

static void test_watcher_is_told_of_the_latest_own_messages_once(void **state)
{
    (void)state;
    struct receipts r;
    struct receipt_watch *w;
    struct msg_count rows[RECEIPTS_OWN_MAX];
    struct receipt_counts k;
    receipts_init(&r, 1);
    struct receipt_chat *c = receipts_chat_make(&r, 17);
    assert_int_equal(receipts_watch_add(c, 1, &w), 0);
    for (uint64_t user = 1; user <= 3; user++)
        assert_int_equal(receipts_member_set(&r, c, user, 0), 0);
    for (uint64_t i = 0; i < 3 * RECEIPTS_OWN_MAX; i++)
        assert_int_equal(receipts_own_add(w, 100 - i % 2 + 2 * (i / 2)), 0); /* in no order */
    assert_int_equal(w->own_n, RECEIPTS_OWN_MAX);
    for (uint32_t i = 1; i < w->own_n; i++)
        assert_true(w->own[i].seq > w->own[i - 1].seq);
    assert_int_equal(w->own[w->own_n - 1].seq, 100 + 3 * RECEIPTS_OWN_MAX - 2);
    uint64_t first = w->own[0].seq, last = w->own[w->own_n - 1].seq;
    receipts_note(&r, c, 2, first + 3, first + 3);
    receipts_count_begin(&k, c);
    assert_int_equal(receipts_count_own(&k, receipts_member(c, 1), w, true, rows), 2); /* two ranges */
    assert_true(rows[0].from == first && rows[0].to == first + 3 && rows[0].read == 1 && rows[0].of == 2);
    assert_true(rows[1].to == last && rows[1].read == 0);
    assert_int_equal(receipts_count_own(&k, receipts_member(c, 1), w, false, rows), 0);
    receipts_count_end(&k);
    receipts_note(&r, c, 3, first + 1, first + 1);
    receipts_count_begin(&k, c);
    assert_int_equal(receipts_count_own(&k, receipts_member(c, 1), w, false, rows), 1);
    assert_true(rows[0].from == first && rows[0].to == first + 1 && rows[0].read == 2);
    receipts_count_end(&k);
    receipts_release(&r);
}

static void test_watchers_of_a_chat_are_limited(void **state)
{
    (void)state;
    struct receipts r;
    struct receipt_watch *w;
    receipts_init(&r, 1);
    struct receipt_chat *c = receipts_chat_make(&r, 17);
    for (uint64_t i = 1; i <= RECEIPTS_WATCHERS_MAX; i++)
        assert_int_equal(receipts_watch_add(c, i, &w), 0);
    assert_int_equal(receipts_watch_add(c, 5, &w), 0); /* there already */
    assert_int_equal(receipts_watch_add(c, RECEIPTS_WATCHERS_MAX + 1, &w), ERR_LIMIT);
    receipts_watch_drop(c, receipts_watch(c, 5));
    assert_null(receipts_watch(c, 5));
    receipts_chat_drop(&r, c);
    assert_null(receipts_chat(&r, 17));
    receipts_release(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts_are_those_of_counting_each),
        cmocka_unit_test(test_cursors_rise_and_never_fall),
        cmocka_unit_test(test_watcher_is_told_of_the_latest_own_messages_once),
        cmocka_unit_test(test_watchers_of_a_chat_are_limited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
