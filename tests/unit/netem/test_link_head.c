/* Drop-head queues: the oldest makes way, in order, and the others move forward. */
#include "tests/unit/netem/link_try.h"

#include <string.h>

struct queue {
    struct link l;
    struct link_head h;
    struct link_waiting ring[64];
};

static void start(struct queue *q, const struct netem_profile *p, uint32_t size)
{
    link_init(&q->l, p, 1, 1, S);
    link_head_init(&q->h, &q->l, NETEM_UP, q->ring, size);
}

static enum reason next(struct queue *q, uint64_t now, uint64_t *depart)
{
    struct link_verdict v;
    assert_true(link_head_next(&q->h, now, &v));
    *depart = v.depart_ns;
    return v.reason;
}

static void offer(struct queue *q, uint64_t now)
{
    link_head_offer(&q->h, now, 1000);
}

static bool silent(struct queue *q, uint64_t now)
{
    struct link_verdict v;
    return !link_head_next(&q->h, now, &v);
}

static void test_a_full_queue_drops_its_oldest_and_the_others_move_forward(void **state)
{
    (void)state;
    struct netem_profile p = profile("rate=8mbit,queue=3kB,queue_drop=head"); /* 1 ms each */
    struct queue q;
    uint64_t depart;
    start(&q, &p, 64);
    offer(&q, S); /* 0: on the air at once */
    assert_int_equal(next(&q, S, &depart), REASON_NONE);
    assert_int_equal(depart, S + MS);
    for (int i = 1; i <= 3; i++) { /* 1, 2, 3 wait */
        offer(&q, S);
        assert_true(silent(&q, S));
    }
    assert_int_equal(link_head_due(&q.h), S + MS);
    offer(&q, S); /* 4: 1 goes */
    assert_int_equal(next(&q, S, &depart), REASON_QUEUE_FULL);
    assert_true(silent(&q, S));
    for (uint64_t i = 1; i <= 3; i++) { /* 2, 3, 4, each a place earlier than they would have been */
        assert_int_equal(link_head_due(&q.h), S + i * MS);
        assert_int_equal(next(&q, S + i * MS, &depart), REASON_NONE);
        assert_int_equal(depart, S + (i + 1) * MS);
        assert_true(silent(&q, S + i * MS));
    }
    assert_true(link_head_due(&q.h) == UINT64_MAX);
}

static void test_a_big_packet_takes_the_places_of_several_small_ones(void **state)
{
    (void)state;
    struct netem_profile p = profile("rate=8mbit,queue=3kB,queue_drop=head");
    struct queue q;
    uint64_t depart;
    start(&q, &p, 64);
    offer(&q, S);
    assert_int_equal(next(&q, S, &depart), REASON_NONE);
    for (int i = 0; i < 6; i++) {
        link_head_offer(&q.h, S, 500);
        assert_true(silent(&q, S));
    }
    link_head_offer(&q.h, S, 1400);
    for (int i = 0; i < 3; i++)
        assert_int_equal(next(&q, S, &depart), REASON_QUEUE_FULL);
    assert_true(silent(&q, S));
    for (uint64_t i = 0; i < 3; i++)
        assert_int_equal(next(&q, S + MS + i * MS / 2, &depart), REASON_NONE);
    assert_int_equal(next(&q, S + 2500000, &depart), REASON_NONE);
    assert_int_equal(depart, S + 3900000);
}

static void test_a_ring_that_is_full_drops_the_oldest_too(void **state)
{
    (void)state;
    struct netem_profile p = profile("rate=8mbit,queue=1MB,queue_drop=head");
    struct queue q;
    uint64_t depart;
    start(&q, &p, 4);
    offer(&q, S);
    assert_int_equal(next(&q, S, &depart), REASON_NONE);
    for (int i = 0; i < 4; i++) {
        offer(&q, S);
        assert_true(silent(&q, S));
    }
    for (int i = 0; i < 10; i++) {
        offer(&q, S);
        assert_int_equal(next(&q, S, &depart), REASON_QUEUE_FULL);
        assert_true(silent(&q, S));
    }
    for (uint64_t i = 1; i <= 4; i++)
        assert_int_equal(next(&q, S + i * MS, &depart), REASON_NONE);
    assert_true(silent(&q, S + 10 * MS));
}

static void test_a_late_driver_changes_no_time(void **state)
{
    (void)state;
    struct netem_profile p = profile("rate=8mbit,queue=9kB,queue_drop=head,loss=10%");
    struct queue prompt, late;
    uint64_t a, b;
    start(&prompt, &p, 64);
    start(&late, &p, 64);
    for (int i = 0; i < 9; i++) {
        offer(&prompt, S);
        if (!i)
            next(&prompt, S, &a);
        offer(&late, S);
        if (!i)
            next(&late, S, &b);
        assert_int_equal(a, b);
    }
    for (uint64_t i = 1; i < 9; i++) {
        enum reason x = next(&prompt, S + i * MS, &a), y = next(&late, S + 30 * MS, &b);
        assert_int_equal(x, y);
        assert_int_equal(a, b);
    }
}

static void test_what_waits_when_the_phone_leaves_is_lost(void **state)
{
    (void)state;
    struct netem_profile p = profile("rate=8mbit,queue=9kB,queue_drop=head");
    struct queue q;
    uint64_t depart;
    start(&q, &p, 64);
    for (int i = 0; i < 3; i++) {
        offer(&q, S);
        if (!i)
            next(&q, S, &depart);
    }
    link_detach(&q.l, S + MS / 2);
    assert_int_equal(next(&q, S + MS / 2, &depart), REASON_DETACHED);
    link_attach(&q.l, S + MS / 2 + 1000);
    assert_int_equal(next(&q, S + MS / 2 + 1000, &depart), REASON_DETACHED); /* offered to the old address */
    offer(&q, S + 2 * MS);
    assert_int_equal(next(&q, S + 2 * MS, &depart), REASON_NONE);
    assert_int_equal(depart, S + 3 * MS);
}

static void test_head_drop_works_on_a_trace(void **state)
{
    (void)state;
    char path[] = "/tmp/test-trace-XXXXXX", text[100];
    FILE *f = fdopen(mkstemp(path), "w");
    fputs("10\n20\n30\n40\n", f);
    fclose(f);
    snprintf(text, sizeof text, "trace=%s,queue=2kB,queue_drop=head", path);
    struct netem_profile p = profile(text);
    remove(path);
    struct queue q;
    uint64_t depart;
    start(&q, &p, 64);
    for (int i = 0; i < 2; i++) {
        offer(&q, S);
        assert_true(silent(&q, S));
    }
    offer(&q, S + MS);
    assert_int_equal(next(&q, S + MS, &depart), REASON_QUEUE_FULL);
    assert_int_equal(link_head_due(&q.h), S + 10 * MS);
    assert_int_equal(next(&q, S + 10 * MS, &depart), REASON_NONE);
    assert_int_equal(depart, S + 10 * MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_full_queue_drops_its_oldest_and_the_others_move_forward),
        cmocka_unit_test(test_a_big_packet_takes_the_places_of_several_small_ones),
        cmocka_unit_test(test_a_ring_that_is_full_drops_the_oldest_too),
        cmocka_unit_test(test_a_late_driver_changes_no_time),
        cmocka_unit_test(test_what_waits_when_the_phone_leaves_is_lost),
        cmocka_unit_test(test_head_drop_works_on_a_trace),
    };
    return cmocka_run_group_tests_name("link_head", tests, NULL, NULL);
}
