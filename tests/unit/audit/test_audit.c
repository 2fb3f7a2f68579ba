/* A small chat whose journal is clean; each test plants one violation and the audit must name it, and only
 * it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include <unistd.h>

#include "audit/audit.h"
#include "util/buf.h"

static char path[64];
static struct buf text;

/* Message n of chat 1 is seq n, sent by user 1 to members 2 and 3. */
static const char *idn(int n)
{
    static char out[4][40];
    static int turn;
    char *s = out[turn++ & 3];
    snprintf(s, 40, "0193a1c2-7b1e-7c4a-9d55-0000000000%02x", n);
    return s;
}
static void members(void)
{
    buf_reset(&text);
    for (int u = 1; u <= 3; u++)
        buf_printf(&text,
                   "{\"op\":\"member\",\"chat\":\"1\",\"user\":\"%d\",\"net\":\"lte\",\"pop\":\"m\"}\n", u);
}
static void sent(int n)
{
    buf_printf(&text,
               "{\"op\":\"sent\",\"ts_us\":1,\"user\":\"1\",\"device\":1,\"chat\":\"1\",\"id\":\"%s\","
               "\"intent\":%d}\n",
               idn(n), n);
}
static void accepted(int n, int seq)
{
    buf_printf(
        &text,
        "{\"op\":\"accepted\",\"user\":\"1\",\"id\":\"%s\",\"chat\":\"1\",\"epoch\":\"9\",\"seq\":%d}\n",
        idn(n), seq);
}
static void surfaced_in(int epoch, int user, int n, int seq, int from)
{
    buf_printf(&text,
               "{\"op\":\"surfaced\",\"user\":\"%d\",\"device\":1,\"chat\":\"1\",\"epoch\":\"%d\",\"seq\":%d,"
               "\"id\":\"%s\",\"from\":\"%d\"}\n",
               user, epoch, seq, idn(n), from);
}
static void surfaced(int user, int n, int seq, int from)
{
    surfaced_in(9, user, n, seq, from);
}
static void whole(int n)
{
    sent(n);
    accepted(n, n);
    surfaced(2, n, n, 1);
    surfaced(3, n, n, 1);
}

static struct audit *a;
static struct audit_result r;

static void run(bool drained)
{
    struct err_ctx ctx = {0};
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fwrite(text.data, 1, text.len, f);
    fclose(f);
    if (!a)
        assert_int_equal(audit_new(&a, &ctx), 0);
    if (audit_add_journal(a, path, &ctx) || audit_finish(a, drained, &r, &ctx))
        fail_msg("%s", ctx.text);
}

/* Exactly `n` violations, all of that kind, and a finding that holds `words`. */
static void found_only(enum audit_kind kind, unsigned n, const char *words)
{
    for (int k = 0; k < AUDIT_KIND_COUNT; k++) {
        if (r.count[k] != (k == (int)kind ? n : 0))
            fail_msg("%llu %s found", (unsigned long long)r.count[k], audit_kind_name((enum audit_kind)k));
    }
    assert_int_equal(r.violations, n);
    assert_true(r.findings_n > 0);
    if (!strstr(r.findings[0].text, words))
        fail_msg("'%s' lacks '%s'", r.findings[0].text, words);
}

static int fresh(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "/tmp/test_audit.%d.jsonl", (int)getpid());
    buf_init(&text, 1 << 20);
    members();
    return 0;
}
static int done(void **state)
{
    (void)state;
    audit_free(a);
    a = NULL;
    buf_release(&text);
    unlink(path);
    return 0;
}

static void test_a_clean_run_has_no_violation(void **state)
{
    (void)state;
    whole(1);
    whole(2);
    sent(3); /* never accepted, never seen: no promise was made */
    run(true);
    assert_int_equal(r.violations, 0);
    assert_int_equal(r.pairs_expected, 4);
    assert_int_equal(r.pairs_surfaced, 4);
    assert_int_equal(r.sent, 3);
    assert_int_equal(r.accepted, 2);
}

static void test_an_accepted_message_that_a_member_never_saw(void **state)
{
    (void)state;
    whole(1);
    sent(2);
    accepted(2, 2);
    surfaced(2, 2, 2, 1);
    run(true);
    found_only(AUDIT_MISSING, 1, "user 3 never saw");
}

static void test_before_the_drain_it_is_only_pending(void **state)
{
    (void)state;
    sent(1);
    accepted(1, 1);
    run(false);
    assert_int_equal(r.violations, 0);
    assert_int_equal(r.pairs_pending, 2);
}

static void test_shown_twice(void **state)
{
    (void)state;
    whole(1);
    surfaced(3, 1, 1, 1);
    run(true);
    found_only(AUDIT_DUPLICATE, 1, "user 3 device 1 showed");
    assert_non_null(strstr(r.findings[0].text, ".jsonl:8)"));
}

static void test_a_phone_that_forgot_may_show_it_again(void **state)
{
    (void)state;
    whole(1);
    whole(2);
    buf_str(&text, "{\"op\":\"forgot\",\"user\":\"3\",\"device\":1}\n");
    surfaced(3, 1, 1, 1);
    surfaced(3, 2, 2, 1);
    run(true);
    assert_int_equal(r.violations, 0);
}

static void test_shown_out_of_order(void **state)
{
    (void)state;
    whole(2);
    whole(1);
    run(true);
    found_only(AUDIT_REORDERED, 2, "seq 1 of chat 1 after 2");
}

static void test_shown_but_never_sent(void **state)
{
    (void)state;
    whole(1);
    surfaced(2, 7, 2, 1);
    run(true);
    found_only(AUDIT_PHANTOM, 1, idn(7));
}

static void test_shown_to_an_outsider(void **state)
{
    (void)state;
    whole(1);
    surfaced(5, 1, 1, 1);
    run(true);
    found_only(AUDIT_OUTSIDER, 1, "user 5");
}

static void test_shown_under_another_name(void **state)
{
    (void)state;
    sent(1);
    accepted(1, 1);
    surfaced(2, 1, 1, 1);
    surfaced(3, 1, 1, 2);
    run(true);
    found_only(AUDIT_FORGED, 1, "as from 2");
}

static void test_two_messages_at_one_seq(void **state)
{
    (void)state;
    whole(1);
    sent(2);
    accepted(2, 1);
    surfaced(2, 2, 1, 1);
    surfaced(3, 2, 1, 1);
    run(true);
    assert_true(r.count[AUDIT_CONFLICT] >= 1);
    assert_int_equal(r.violations, r.count[AUDIT_CONFLICT]);
}

static void test_one_message_at_two_seqs(void **state)
{
    (void)state;
    sent(1);
    accepted(1, 1);
    surfaced(2, 1, 1, 1);
    surfaced(3, 1, 2, 1);
    run(true);
    found_only(AUDIT_STORED_TWICE, 1, "at seq 1 and 2");
}

static void stored(int n, int epoch, int seq)
{
    struct err_ctx ctx = {0};
    struct entry e = {
        .chat = 1, .epoch = (uint64_t)epoch, .seq = (uint64_t)seq, .sender = 1, .op = ENTRY_MESSAGE};
    if (!a)
        assert_int_equal(audit_new(&a, &ctx), 0);
    assert_int_equal(id_parse(&e.id, idn(n), ID_TEXT), 0);
    assert_int_equal(audit_add_entry(a, &e, &ctx), 0);
}

/* User 2 was shown it at seq 1; a restore took it, and it was sent again. */
static void sent_again(void)
{
    sent(1);
    surfaced(2, 1, 1, 1);
    surfaced_in(5, 3, 1, 101, 1);
}

static void test_what_a_restore_took_may_be_sent_again_and_stands_where_it_went_last(void **state)
{
    (void)state;
    sent_again();
    stored(1, 5, 101);
    run(true);
    assert_int_equal(r.violations, 0);
}

static void test_what_was_sent_again_is_not_in_the_store_twice(void **state)
{
    (void)state;
    sent_again();
    stored(1, 9, 1);
    stored(1, 5, 101);
    run(true);
    found_only(AUDIT_STORED_TWICE, 1, "at seq 1 and 101");
}

static void test_what_was_sent_again_is_not_back_at_its_old_place(void **state)
{
    (void)state;
    sent_again();
    stored(1, 9, 1);
    run(true);
    found_only(AUDIT_STORED_TWICE, 1, "at seq 1 and 101");
}

static void test_two_epochs_of_one_message_are_not_believed_without_the_store(void **state)
{
    (void)state;
    sent_again();
    run(true);
    found_only(AUDIT_STORED_TWICE, 1, "at seq 1 and 101");
}

static void test_what_was_sent_again_has_one_seq_in_the_new_epoch(void **state)
{
    (void)state;
    sent_again();
    accepted(1, 1);
    surfaced_in(5, 1, 1, 102, 1);
    stored(1, 5, 101);
    run(true);
    found_only(AUDIT_STORED_TWICE, 1, "at seq 101 and 102");
}

static void test_what_was_sent_again_had_one_seq_in_the_old_epoch(void **state)
{
    (void)state;
    sent_again();
    surfaced(1, 1, 2, 1);
    stored(1, 5, 101);
    run(true);
    found_only(AUDIT_STORED_TWICE, 1, "at seq 1 and 2");
}

static void test_accepted_but_not_in_the_store(void **state)
{
    (void)state;
    struct err_ctx ctx = {0};
    struct entry e = {.chat = 1, .epoch = 9, .seq = 1, .sender = 1, .op = ENTRY_MESSAGE};
    whole(1);
    whole(2);
    assert_int_equal(audit_new(&a, &ctx), 0);
    assert_int_equal(id_parse(&e.id, idn(1), ID_TEXT), 0);
    assert_int_equal(audit_add_entry(a, &e, &ctx), 0);
    run(true);
    found_only(AUDIT_NOT_STORED, 1, idn(2));
    assert_int_equal(r.stored, 1);
}

static void test_many_violations_are_counted_beyond_those_named(void **state)
{
    (void)state;
    for (int n = 1; n <= 30; n++) {
        sent(n);
        accepted(n, n);
    }
    run(true);
    assert_int_equal(r.count[AUDIT_MISSING], 60);
    assert_int_equal(r.violations, 60);
    assert_true(r.findings_n <= AUDIT_FINDINGS_MAX);
}

static void test_an_empty_journal_proves_nothing(void **state)
{
    (void)state;
    struct err_ctx ctx = {0};
    assert_int_equal(audit_new(&a, &ctx), 0);
    assert_int_equal(audit_finish(a, true, &r, &ctx), ERR_INVALID);
}

#define T(f) cmocka_unit_test_setup_teardown(f, fresh, done)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_a_clean_run_has_no_violation),
        T(test_an_accepted_message_that_a_member_never_saw),
        T(test_before_the_drain_it_is_only_pending),
        T(test_shown_twice),
        T(test_a_phone_that_forgot_may_show_it_again),
        T(test_shown_out_of_order),
        T(test_shown_but_never_sent),
        T(test_shown_to_an_outsider),
        T(test_shown_under_another_name),
        T(test_two_messages_at_one_seq),
        T(test_one_message_at_two_seqs),
        T(test_what_a_restore_took_may_be_sent_again_and_stands_where_it_went_last),
        T(test_what_was_sent_again_is_not_in_the_store_twice),
        T(test_what_was_sent_again_is_not_back_at_its_old_place),
        T(test_two_epochs_of_one_message_are_not_believed_without_the_store),
        T(test_what_was_sent_again_has_one_seq_in_the_new_epoch),
        T(test_what_was_sent_again_had_one_seq_in_the_old_epoch),
        T(test_accepted_but_not_in_the_store),
        T(test_many_violations_are_counted_beyond_those_named),
        T(test_an_empty_journal_proves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
