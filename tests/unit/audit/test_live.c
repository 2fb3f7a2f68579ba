/* Each thing that the running checker may find, told as the shortest story that has it; and none in the story
 * without it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "audit/live.h"
#include "store/store.h"

#define CHAT  17u
#define EPOCH 5u

struct story {
    struct live *live;
    struct kv *kv;
    struct store *store;
};

static struct id id_of(uint8_t n)
{
    struct id id = {{0x01, 0x9a, 0xb6, 0xa7, 0x2b, n, 0x70, n}};
    id.b[8] = 0x80;
    id.b[15] = n;
    return id;
}

static struct entry entry(uint64_t seq, uint8_t n, uint64_t sender)
{
    struct entry e = {.chat = CHAT,
                      .epoch = EPOCH,
                      .seq = seq,
                      .sender = sender,
                      .ts_us = 1000 + seq,
                      .id = id_of(n),
                      .op = ENTRY_MESSAGE,
                      .kind = "text",
                      .kind_len = 4,
                      .body = "x",
                      .body_len = 1};
    entry_content_hash(e.content, e.kind, e.kind_len, e.body, e.body_len);
    return e;
}

static void commit(struct story *t, struct entry *e, const struct member_row *rows, size_t n)
{
    struct store_batch b = {
        .entries = e, .entries_n = 1, .members = (struct member_row *)rows, .members_n = n};
    assert_int_equal(store_commit(t->store, &b, NULL), 0);
    live_committed(t->live, &b);
}

static void open_store(struct story *t)
{
    struct store_config c = {.now_us = 1, .random = EPOCH};
    assert_int_equal(store_open_on(&t->store, t->kv, &c, NULL), 0);
}

/* Users 7 and 8 in a chat that 7 made. */
static struct story *begin(void)
{
    struct story *t = calloc(1, sizeof *t);
    const struct live_promises all = {
        .log = true, .dedup = true, .resumes = true, .typing = true, .receipts_each = 32};
    const struct member_row rows[] = {{CHAT, 7, 0, UINT64_MAX, 1}, {CHAT, 8, 0, UINT64_MAX, 0}};
    t->live = live_new(&all);
    assert_int_equal(kv_mem_open(&t->kv, NULL), 0);
    open_store(t);
    live_device(t->live, 7, 1, true);
    live_device(t->live, 8, 1, true);
    struct entry e = entry(0, 1, 7);
    e.op = ENTRY_CREATE;
    commit(t, &e, rows, 2);
    return t;
}

static void finds(struct story *t, enum live_kind kind)
{
    const struct live_violation *v = live_violation(t->live);
    assert_non_null(v);
    assert_string_equal(live_kind_name(v->kind), live_kind_name(kind));
    assert_true(v->text[0] != 0);
}

static void end(struct story *t)
{
    live_free(t->live);
    store_drop(t->store);
    t->kv->ops->close(t->kv);
    free(t);
}

/* 7 says message n, which becomes seq; the server's part of it. */
static void said(struct story *t, uint8_t n, uint64_t seq)
{
    struct id id = id_of(n);
    struct entry e = entry(seq, n, 7);
    live_submitted(t->live, 7, CHAT, &id, true);
    commit(t, &e, NULL, 0);
    live_acknowledged(t->live, 7, CHAT, &id);
    live_accepted(t->live, 7, CHAT, EPOCH, seq, &id);
    live_pushed(t->live, 8, CHAT, seq, &id);
}

static void shown(struct story *t, uint8_t n, uint64_t seq)
{
    struct id id = id_of(n);
    live_shown(t->live, 8, 1, CHAT, EPOCH, seq, 7, &id);
}

static void test_a_good_run_is_good(void **state)
{
    (void)state;
    struct story *t = begin();
    for (uint8_t n = 2; n < 20; n++) {
        said(t, n, n - 1u);
        assert_false(live_converged(t->live));
        shown(t, n, n - 1u);
    }
    assert_true(live_converged(t->live));
    live_finish(t->live);
    store_drop(t->store);
    open_store(t);
    assert_int_equal(live_reopened(t->live, t->store, NULL, NULL, NULL), 0);
    assert_null(live_violation(t->live));
    end(t);
}

static void test_pushed_before_it_is_durable(void **state)
{
    (void)state;
    struct story *t = begin();
    struct id id = id_of(2);
    live_submitted(t->live, 7, CHAT, &id, true);
    live_pushed(t->live, 8, CHAT, 1, &id);
    finds(t, LIVE_NOT_DURABLE);
    end(t);
}

static void test_acknowledged_before_it_is_durable(void **state)
{
    (void)state;
    struct story *t = begin();
    struct id id = id_of(2);
    live_submitted(t->live, 7, CHAT, &id, true);
    live_acknowledged(t->live, 7, CHAT, &id);
    finds(t, LIVE_NOT_DURABLE);
    end(t);
}

static void test_gone_after_a_restart_unless_it_was_restored(void **state)
{
    (void)state;
    for (int restored = 0; restored < 2; restored++) {
        struct story *t = begin();
        struct kv *image;
        assert_int_equal(kv_mem_copy(&image, t->kv, NULL), 0);
        said(t, 2, 1);
        store_drop(t->store);
        t->kv->ops->close(t->kv);
        t->kv = image;
        open_store(t);
        if (restored)
            live_restored(t->live);
        assert_int_equal(live_reopened(t->live, t->store, NULL, NULL, NULL), 0);
        if (restored)
            assert_null(live_violation(t->live));
        else
            finds(t, LIVE_NOT_DURABLE);
        end(t);
    }
}

static bool keep_key(void *arg, struct kv_bytes key, struct kv_bytes val)
{
    struct kv_bytes *last = arg;
    (void)val;
    memcpy((void *)last->p, key.p, key.n);
    last->n = key.n;
    return true;
}

/* The last row of the family of ids: that of the greatest id of the greatest sender. */
static void drop_youngest_id(struct kv *kv)
{
    uint8_t bytes[64];
    struct kv_bytes key = {bytes, 0}, all = {NULL, 0};
    assert_int_equal(kv->ops->scan(kv, KV_DEDUP, all, all, false, keep_key, &key, NULL), 0);
    struct kv_batch *b = kv->ops->batch_new(kv);
    kv->ops->del(b, KV_DEDUP, key);
    assert_int_equal(kv->ops->write(kv, b, KV_SYNC, NULL), 0);
    kv->ops->batch_free(b);
}

static void test_what_was_being_written_may_be_there_but_only_whole(void **state)
{
    (void)state;
    for (int torn = 0; torn < 2; torn++) {
        struct story *t = begin();
        struct id id = id_of(2);
        struct entry e = entry(1, 2, 7);
        struct store_batch b = {.entries = &e, .entries_n = 1};
        live_submitted(t->live, 7, CHAT, &id, true);
        assert_int_equal(store_commit(t->store, &b, NULL), 0); /* and then the lights go out */
        if (torn)
            drop_youngest_id(t->kv);
        store_drop(t->store);
        open_store(t);
        assert_int_equal(live_reopened(t->live, t->store, NULL, NULL, NULL), 0);
        if (torn) {
            finds(t, LIVE_TORN);
        } else {
            live_accepted(t->live, 7, CHAT, EPOCH, 1, &id);
            assert_null(live_violation(t->live));
        }
        end(t);
    }
}

static void test_stored_twice(void **state)
{
    (void)state;
    struct story *t = begin();
    said(t, 2, 1);
    struct entry e = entry(2, 2, 7);
    commit(t, &e, NULL, 0);
    finds(t, LIVE_STORED_TWICE);
    end(t);
}

static void test_a_seq_passed_over_or_given_out_again(void **state)
{
    (void)state;
    for (uint64_t seq = 1; seq <= 3; seq += 2) {
        struct story *t = begin();
        struct id id = id_of(3);
        said(t, 2, 1);
        live_submitted(t->live, 7, CHAT, &id, true);
        struct entry e = entry(seq, 3, 7);
        struct store_batch b = {.entries = &e, .entries_n = 1};
        live_committed(t->live, &b);
        finds(t, LIVE_SEQ);
        end(t);
    }
}

static void test_stored_but_never_said(void **state)
{
    (void)state;
    struct story *t = begin();
    struct entry e = entry(1, 2, 7);
    commit(t, &e, NULL, 0);
    finds(t, LIVE_PHANTOM);
    end(t);
}

static void test_shown_twice(void **state)
{
    (void)state;
    struct story *t = begin();
    said(t, 2, 1);
    shown(t, 2, 1);
    shown(t, 2, 1);
    finds(t, LIVE_SHOWN_TWICE);
    end(t);
}

static void test_a_hole_needs_a_gap_that_says_so(void **state)
{
    (void)state;
    for (int announced = 0; announced < 2; announced++) {
        struct story *t = begin();
        for (uint8_t n = 2; n < 6; n++)
            said(t, n, n - 1u);
        shown(t, 2, 1);
        if (announced)
            live_gap(t->live, 8, 1, CHAT, 2, 3, false);
        shown(t, 5, 4);
        if (announced)
            assert_null(live_violation(t->live));
        else
            finds(t, LIVE_HOLE);
        end(t);
    }
}

static void test_a_gap_that_hides_something_is_a_lie(void **state)
{
    (void)state;
    struct story *t = begin();
    said(t, 2, 1);
    live_gap(t->live, 8, 1, CHAT, 2, 1000, true);
    assert_null(live_violation(t->live));
    live_gap(t->live, 8, 1, CHAT, 1, 1000, true);
    finds(t, LIVE_HOLE);
    end(t);
}

static void test_a_device_that_forgot_may_show_again_what_it_was_sent(void **state)
{
    (void)state;
    struct story *t = begin();
    for (uint8_t n = 2; n < 6; n++) {
        said(t, n, n - 1u);
        shown(t, n, n - 1u);
    }
    live_forgot(t->live, 8, 1);
    shown(t, 4, 3);
    shown(t, 5, 4);
    assert_null(live_violation(t->live));
    shown(t, 4, 3);
    finds(t, LIVE_SHOWN_TWICE);
    end(t);
}

static void test_a_cursor_that_goes_back(void **state)
{
    (void)state;
    struct story *t = begin();
    live_cursor(t->live,
                &(struct cursor){.chat = CHAT, .user = 8, .device = 1, .epoch = EPOCH, .delivered = 5});
    live_cursor(t->live,
                &(struct cursor){.chat = CHAT, .user = 8, .device = 1, .epoch = EPOCH, .delivered = 6});
    live_cursor(t->live, &(struct cursor){.chat = CHAT, .user = 8, .device = 1, .epoch = 6, .delivered = 1});
    assert_null(live_violation(t->live));
    live_cursor(t->live, &(struct cursor){.chat = CHAT, .user = 8, .device = 1, .epoch = 6, .delivered = 0});
    finds(t, LIVE_CURSOR);
    end(t);
}

static void test_read_does_not_go_back_with_a_new_epoch(void **state)
{
    (void)state;
    struct story *t = begin();
    live_cursor(t->live, &(struct cursor){.chat = CHAT, .user = 8, .device = 1, .epoch = EPOCH, .read = 5});
    live_cursor(t->live, &(struct cursor){.chat = CHAT, .user = 8, .device = 1, .epoch = 6, .read = 4});
    finds(t, LIVE_CURSOR);
    end(t);
}

/* 7 watches what 8 has got and read of two messages. */
static struct story *watched(void)
{
    struct story *t = begin();
    live_watches(t->live, 7, 1, CHAT, true);
    said(t, 2, 1);
    said(t, 3, 2);
    shown(t, 2, 1);
    shown(t, 3, 2);
    live_acks(t->live, 8, CHAT, 2);
    live_reads(t->live, 8, 1, CHAT, 1);
    return t;
}

static void test_receipts_that_are_true_and_come(void **state)
{
    (void)state;
    struct story *t = watched();
    assert_false(live_converged(t->live));
    live_receipt(t->live, 7, 1, CHAT, 8, 1, 0);
    live_receipt(t->live, 7, 1, CHAT, 8, 2, 1);
    live_receipt(t->live, 7, 1, CHAT, 7, 2, 0); /* the author has both, and need not say so */
    live_counted(t->live, 7, CHAT, 2, 1, 0);
    assert_true(live_converged(t->live));
    live_finish(t->live);
    assert_null(live_violation(t->live));
    end(t);
}

static void test_receipts_that_lie_go_back_or_never_come(void **state)
{
    (void)state;
    struct story *t = watched();
    live_receipt(t->live, 7, 1, CHAT, 8, 2, 2);
    finds(t, LIVE_RECEIPT);
    end(t);
    t = watched();
    live_receipt(t->live, 7, 1, CHAT, 8, 2, 1);
    live_receipt(t->live, 7, 1, CHAT, 8, 2, 0);
    finds(t, LIVE_RECEIPT);
    end(t);
    t = watched();
    live_receipt(t->live, 7, 1, CHAT, 8, 2, 0);
    live_finish(t->live);
    finds(t, LIVE_RECEIPT);
    end(t);
    t = watched();
    live_counted(t->live, 7, CHAT, 2, 1, 1);
    finds(t, LIVE_RECEIPT);
    end(t);
    t = watched();
    live_reads(t->live, 8, 1, CHAT, 3); /* never shown */
    finds(t, LIVE_RECEIPT);
    end(t);
    t = watched();
    live_receipt(t->live, 99, 1, CHAT, 8, 1, 1);
    finds(t, LIVE_OUTSIDER);
    end(t);
}

static void test_who_was_removed_is_sent_that_and_nothing_after(void **state)
{
    (void)state;
    struct story *t = begin();
    const struct member_row over = {CHAT, 8, 0, 2, 0};
    struct entry e = entry(1, 2, 7);
    struct id id = id_of(2);
    e.op = ENTRY_REMOVE;
    commit(t, &e, &over, 1);
    live_pushed(t->live, 8, CHAT, 1, &id);
    assert_null(live_violation(t->live));
    said(t, 3, 2);
    finds(t, LIVE_OUTSIDER);
    end(t);
}

static struct story *begin_recovering(void)
{
    const struct live_promises all = {
        .log = true, .dedup = true, .resumes = true, .recovers = true, .receipts_each = 32};
    struct story *t = begin();
    live_free(t->live);
    t->live = live_new(&all);
    live_device(t->live, 7, 1, true);
    live_device(t->live, 8, 1, true);
    assert_int_equal(live_reopened(t->live, t->store, NULL, NULL, NULL), 0);
    return t;
}

static void test_whose_removal_came_back_is_told_and_sent_nothing_after(void **state)
{
    (void)state;
    struct story *t = begin_recovering();
    struct member_row over = {CHAT, 8, 0, 2, 0};
    struct entry two[] = {entry(1, 2, 7), entry(2, 3, 0)};
    struct store_batch b = {.entries = two, .entries_n = 2, .members = &over, .members_n = 1};
    two[0].op = ENTRY_REMOVE;
    two[1].op = ENTRY_RECOVERED;
    assert_int_equal(store_commit(t->store, &b, NULL), 0);
    live_committed(t->live, &b);
    live_pushed(t->live, 8, CHAT, 2, &two[1].id);
    assert_null(live_violation(t->live));
    said(t, 4, 3);
    finds(t, LIVE_OUTSIDER);
    end(t);
}

static void put_back(struct story *t, struct kv *image)
{
    store_drop(t->store);
    t->kv->ops->close(t->kv);
    assert_int_equal(kv_mem_copy(&t->kv, image, NULL), 0);
    open_store(t);
    live_restored(t->live);
    assert_int_equal(live_reopened(t->live, t->store, NULL, NULL, NULL), 0);
}

/* Stored at 1, lost, stored at 2^32 of the next epoch, lost again: either place may come back, and no third.
 */
static void test_what_two_restores_took_may_come_back_at_either_place(void **state)
{
    (void)state;
    for (uint64_t back = 1; back <= 2; back++) {
        struct story *t = begin_recovering();
        struct id id = id_of(2);
        struct kv *image;
        assert_int_equal(kv_mem_copy(&image, t->kv, NULL), 0);
        live_submitted(t->live, 7, CHAT, &id, true);
        struct entry first = entry(1, 2, 7), second = entry(1ull << 32, 2, 7), again = entry(back, 2, 7);
        second.epoch = EPOCH + 1;
        commit(t, &first, NULL, 0);
        put_back(t, image);
        commit(t, &second, NULL, 0);
        live_accepted(t->live, 7, CHAT, second.epoch, second.seq, &id);
        put_back(t, image);
        assert_null(live_violation(t->live));
        commit(t, &again, NULL, 0);
        if (back == 1)
            assert_null(live_violation(t->live));
        else
            finds(t, LIVE_RENUMBERED);
        image->ops->close(image);
        end(t);
    }
}

/* 8 speaks in the new epoch while what a restore took is still away, and has therefore got all up to its own
 * message. What comes back below that does not make a lie of who was told so. */
static void test_what_comes_back_below_an_own_message_takes_no_receipt_back(void **state)
{
    (void)state;
    for (unsigned lies = 0; lies < 2; lies++) {
        struct story *t = begin_recovering();
        struct kv *image;
        assert_int_equal(kv_mem_copy(&image, t->kv, NULL), 0);
        struct id taken = id_of(2), own = id_of(3);
        struct entry first = entry(1, 2, 7), second = entry(1ull << 32, 3, 8);
        live_watches(t->live, 7, 1, CHAT, true);
        live_acks(t->live, 8, CHAT, 0);
        live_submitted(t->live, 7, CHAT, &taken, true);
        commit(t, &first, NULL, 0);
        put_back(t, image);
        live_submitted(t->live, 8, CHAT, &own, true);
        second.epoch = EPOCH + 1;
        commit(t, &second, NULL, 0);
        commit(t, &first, NULL, 0); /* it is back */
        assert_null(live_violation(t->live));
        live_receipt(t->live, 7, 1, CHAT, 8, second.seq + lies, 0);
        if (lies)
            finds(t, LIVE_RECEIPT);
        else
            assert_null(live_violation(t->live));
        image->ops->close(image);
        end(t);
    }
}

static void test_what_is_owed_at_the_end(void **state)
{
    (void)state;
    struct story *t = begin();
    said(t, 2, 1);
    assert_false(live_converged(t->live));
    live_finish(t->live);
    finds(t, LIVE_NOT_CONVERGED);
    end(t);
    t = begin();
    struct id id = id_of(2);
    live_submitted(t->live, 7, CHAT, &id, true);
    assert_false(live_converged(t->live));
    live_gave_up(t->live, &id);
    assert_true(live_converged(t->live));
    end(t);
}

static void test_typing_is_not_shown_more_than_ten_seconds_after_the_last_word(void **state)
{
    const uint64_t s = 1000000000ull;
    (void)state;
    struct story *t = begin();
    live_typed(t->live, 7, CHAT, 1 * s);
    live_typing(t->live, 8, 1, CHAT, 7, true, 2 * s);
    live_typed(t->live, 7, CHAT, 4 * s);
    live_time(t->live, 14 * s);
    assert_null(live_violation(t->live));
    live_typing(t->live, 8, 1, CHAT, 7, false, 14 * s);
    live_time(t->live, 20 * s);
    assert_null(live_violation(t->live));
    live_typing(t->live, 8, 1, CHAT, 7, true, 20 * s); /* an old event, replayed */
    finds(t, LIVE_STALE_TYPING);
    end(t);
    t = begin();
    live_typed(t->live, 7, CHAT, 1 * s);
    live_typing(t->live, 8, 1, CHAT, 7, true, 2 * s); /* never cleared */
    live_time(t->live, 11 * s + 1);
    finds(t, LIVE_STALE_TYPING);
    end(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_typing_is_not_shown_more_than_ten_seconds_after_the_last_word),
        cmocka_unit_test(test_a_good_run_is_good),
        cmocka_unit_test(test_pushed_before_it_is_durable),
        cmocka_unit_test(test_acknowledged_before_it_is_durable),
        cmocka_unit_test(test_gone_after_a_restart_unless_it_was_restored),
        cmocka_unit_test(test_what_was_being_written_may_be_there_but_only_whole),
        cmocka_unit_test(test_stored_twice),
        cmocka_unit_test(test_a_seq_passed_over_or_given_out_again),
        cmocka_unit_test(test_stored_but_never_said),
        cmocka_unit_test(test_shown_twice),
        cmocka_unit_test(test_a_hole_needs_a_gap_that_says_so),
        cmocka_unit_test(test_a_gap_that_hides_something_is_a_lie),
        cmocka_unit_test(test_a_device_that_forgot_may_show_again_what_it_was_sent),
        cmocka_unit_test(test_a_cursor_that_goes_back),
        cmocka_unit_test(test_read_does_not_go_back_with_a_new_epoch),
        cmocka_unit_test(test_receipts_that_are_true_and_come),
        cmocka_unit_test(test_receipts_that_lie_go_back_or_never_come),
        cmocka_unit_test(test_who_was_removed_is_sent_that_and_nothing_after),
        cmocka_unit_test(test_whose_removal_came_back_is_told_and_sent_nothing_after),
        cmocka_unit_test(test_what_two_restores_took_may_come_back_at_either_place),
        cmocka_unit_test(test_what_comes_back_below_an_own_message_takes_no_receipt_back),
        cmocka_unit_test(test_what_is_owed_at_the_end),
    };
    return cmocka_run_group_tests_name("live", tests, NULL, NULL);
}
