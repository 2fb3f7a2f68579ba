/* The parts under the phones: ledger, thresholds, timers, texts, diary. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "load/diary.h"
#include "load/ledger.h"
#include "load/load.h"
#include "load/texts.h"
#include "load/timers.h"
#include "wire/utf8.h"

#define MS 1000000ull

static struct id id_no(uint8_t n)
{
    return (struct id){{[15] = n}};
}
static void sent(struct ledger *l, uint8_t n, uint8_t again, uint64_t at_ns)
{
    struct id before = id_no(again);
    struct ledger_sent s = {.id = id_no(n),
                            .again = again ? &before : NULL,
                            .intent = 1,
                            .intended_ns = at_ns,
                            .members = 70,
                            .sender = 69};
    assert_int_equal(ledger_sent(l, &s), 0);
}
static enum ledger_seen shows(struct ledger *l, uint8_t n, uint32_t member, uint64_t at_ns)
{
    struct id id = id_no(n);
    return ledger_surfaced(l, &id, member, 0, false, at_ns);
}

static void test_ledger_counts_pairs_and_latency_from_the_intent(void **state)
{
    (void)state;
    struct ledger l;
    struct id id = id_no(1);
    assert_int_equal(ledger_init(&l, 1, 10), 0);
    sent(&l, 1, 0, 1000 * MS);
    assert_int_equal(l.counts[0].expected, 69);
    ledger_accepted(&l, &id, 1003 * MS);
    ledger_accepted(&l, &id, 1009 * MS);
    assert_int_equal(l.counts[0].accepted, 1);
    assert_int_equal(l.counts[0].missing, 69);
    assert_int_equal(shows(&l, 1, 68, 1007 * MS), LEDGER_FIRST);
    assert_int_equal(shows(&l, 1, 68, 1008 * MS), LEDGER_DUPLICATE);
    assert_int_equal(shows(&l, 1, 69, 1008 * MS), LEDGER_UNKNOWN); /* the sender */
    assert_int_equal(shows(&l, 9, 0, 1008 * MS), LEDGER_UNKNOWN);
    assert_int_equal(l.counts[0].missing, 68);
    assert_int_equal(l.counts[0].delivered, 1);
    assert_int_equal(l.counts[0].duplicates, 1);
    assert_int_equal(l.counts[0].latency_us.max, 7000);
    assert_int_equal(l.counts[0].accept_us.max, 3000);
    assert_int_equal(ledger_surfaced(&l, &id, 68, 0, true, 2000 * MS), LEDGER_RESHOWN);
    assert_int_equal(l.counts[0].duplicates, 1);
    ledger_release(&l);
}

static void test_person_sees_an_intent_twice_under_two_ids(void **state)
{
    (void)state;
    struct ledger l;
    assert_int_equal(ledger_init(&l, 1, 10), 0);
    sent(&l, 1, 0, 0);
    sent(&l, 2, 1, 0);
    sent(&l, 3, 2, 0);
    shows(&l, 1, 5, MS);
    assert_int_equal(shows(&l, 3, 5, MS), LEDGER_FIRST);
    shows(&l, 2, 6, MS);
    assert_int_equal(l.counts[0].duplicates, 0);
    assert_int_equal(l.counts[0].duplicates_seen, 1);
    ledger_release(&l);
}

static void test_full_ledger_says_so(void **state)
{
    (void)state;
    struct ledger l;
    assert_int_equal(ledger_init(&l, 1, 2), 0);
    sent(&l, 1, 0, 0);
    struct ledger_sent same = {.id = id_no(1), .members = 2}, third = {.id = id_no(3), .members = 2};
    assert_int_equal(ledger_sent(&l, &same), ERR_EXISTS);
    sent(&l, 2, 0, 0);
    assert_int_equal(ledger_sent(&l, &third), ERR_LIMIT);
    assert_int_equal(l.counts[0].sent, 2);
    ledger_release(&l);
}

static void test_thresholds_accept_what_the_help_shows(void **state)
{
    (void)state;
    struct load_threshold t;
    static const char *const good[] = {"p(95)<500",       "p(99.9){lte} <= 2000ms",
                                       "p(50)<2s",        "lost==0",
                                       "duplicates == 0", "ratio>=99.99%",
                                       "ratio>=0.5",      "accept_p(95)<100",
                                       "max<5000",        "sent>10",
                                       "gave_up!=3",      "duplicates_seen<1"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct err_ctx ctx = {0};
        if (load_threshold_parse(&t, good[i], &ctx))
            fail_msg("%s: %s", good[i], ctx.text);
    }
    assert_int_equal(load_threshold_parse(&t, "p(99.9){lte}<=2s", NULL), 0);
    assert_int_equal(t.permyriad, 9990);
    assert_string_equal(t.population, "lte");
    assert_true(t.number == 2000);
}

static void test_misspelt_threshold_is_an_error_and_never_a_pass(void **state)
{
    (void)state;
    struct load_threshold t;
    static const char *const bad[] = {"",          "p(95)",     "p95<500",    "p(101)<5",  "p(-1)<5",
                                      "p(95<500",  "lots==0",   "lost=0",     "lost==",    "lost==x",
                                      "lost==0%",  "lost==0ms", "ratio>=5ms", "p(95)<5%",  "lost{}==0",
                                      "lost{a==0", "P(95)<5",   "p()<5",      "lost==0 or"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err_ctx ctx = {0};
        if (load_threshold_parse(&t, bad[i], &ctx) != ERR_USAGE || !ctx.text[0])
            fail_msg("'%s' was taken", bad[i]);
    }
    struct load_population p = {.name = "lte"};
    load_threshold_parse(&t, "lost{wifi}==0", NULL);
    assert_int_equal(load_threshold_check(&t, &p, 1, NULL), ERR_USAGE);
    load_threshold_parse(&t, "lost{lte}==0", NULL);
    assert_int_equal(load_threshold_check(&t, &p, 1, NULL), 0);
}

static void test_timers_fire_in_order_and_can_be_moved_and_taken_out(void **state)
{
    (void)state;
    struct timers ts = {0};
    struct timer t[500] = {0}, *x;
    struct rng r;
    rng_seed(&r, 3);
    for (int round = 0; round < 4; round++)
        for (int i = 0; i < 500; i++)
            timers_set(&ts, &t[i], rng_below(&r, 5) ? rng_between(&r, 1, 100000) : 0);
    uint64_t last = 0;
    unsigned n = 0, set = 0;
    for (int i = 0; i < 500; i++)
        set += t[i].at_ns != 0;
    assert_int_equal(ts.n, set);
    assert_null(timers_pop(&ts, 0));
    while ((x = timers_pop(&ts, UINT64_MAX))) {
        assert_true(x->at_ns >= last && !x->pos);
        last = x->at_ns;
        n++;
    }
    assert_int_equal(n, set);
    assert_int_equal(timers_next(&ts), 0);
    timers_release(&ts);
}

static void test_babble_is_utf8_of_the_wanted_length(void **state)
{
    (void)state;
    struct texts t;
    struct rng r;
    static char out[PROTO_BODY_MAX];
    size_t shortest = 1000, longest = 0;
    bool beyond_ascii = false;
    assert_int_equal(texts_init(&t, NULL, NULL), 0);
    rng_seed(&r, 1);
    for (int i = 0; i < 2000; i++) {
        struct slice s = texts_pick(&t, &r, 1, 200, out);
        struct utf8 u = {0};
        assert_in_range(s.n, 1, 200);
        assert_true(utf8_feed(&u, s.p, s.n) && utf8_whole(&u));
        for (size_t k = 0; k < s.n; k++)
            beyond_ascii |= (unsigned char)s.p[k] >= 0xF0;
        shortest = s.n < shortest ? s.n : shortest;
        longest = s.n > longest ? s.n : longest;
    }
    assert_true(shortest < 5 && longest > 195 && beyond_ascii);
    assert_int_equal(texts_pick(&t, &r, PROTO_BODY_MAX, PROTO_BODY_MAX, out).n, PROTO_BODY_MAX);
    texts_release(&t);
}

static char folder[] = "/tmp/test-load-XXXXXX";
static const char *path_of(const char *name)
{
    static char path[200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}
static void write_file(const char *name, const void *p, size_t n)
{
    FILE *f = fopen(path_of(name), "w");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    fclose(f);
}

static void test_texts_of_a_file_are_its_lines(void **state)
{
    (void)state;
    struct texts t;
    struct rng r;
    struct err_ctx ctx = {0};
    static char out[PROTO_BODY_MAX];
    rng_seed(&r, 1);
    write_file("good", "one\r\n\ntwo", 9);
    assert_int_equal(texts_init(&t, path_of("good"), NULL), 0);
    assert_int_equal(t.n, 2);
    assert_true(slice_is(t.lines[0], "one") && slice_is(t.lines[1], "two"));
    for (int i = 0; i < 20; i++)
        assert_int_equal(texts_pick(&t, &r, 1, 200, out).n, 3);
    texts_release(&t);
    write_file("bad", "one\n\xff\n", 6);
    assert_int_equal(texts_init(&t, path_of("bad"), &ctx), ERR_INVALID);
    assert_non_null(strstr(ctx.text, "bad:2"));
    write_file("empty", "\n\n", 2);
    assert_int_equal(texts_init(&t, path_of("empty"), &ctx), ERR_INVALID);
    unlink(path_of("good"));
    unlink(path_of("bad"));
    unlink(path_of("empty"));
}

static unsigned restored;
static struct id restored_id;
static void restore(void *arg, const struct outbox_row *row)
{
    (void)arg;
    restored++;
    restored_id = row->id;
    assert_true(slice_is(row->body, "later"));
}

static void test_diary_gives_unsent_messages_back_after_a_crash(void **state)
{
    (void)state;
    struct diary *d;
    struct outbox_row row = {OUTBOX_PUT, 1, 7, 17, 5, id_no(1), SLICE("text"), SLICE("later")};
    assert_int_equal(diary_open(&d, path_of("diary"), true, restore, NULL, NULL), 0);
    diary_outbox(d, &row);
    row.id = id_no(2);
    diary_outbox(d, &row);
    diary_outbox(d, &(struct outbox_row){.op = OUTBOX_FORGET, .device = 1, .user = 7, .id = id_no(1)});
    diary_forgot(d, 7, 1);
    assert_int_equal(diary_close(d, NULL), 0);
    /* a crash in the middle of a row */
    FILE *f = fopen(path_of("diary/outbox.rows"), "a");
    assert_non_null(f);
    fwrite("obox\x60\0\0\0torn", 1, 12, f);
    fclose(f);
    restored = 0;
    assert_int_equal(diary_open(&d, path_of("diary"), false, restore, NULL, NULL), 0);
    assert_int_equal(restored, 1);
    assert_true(id_equal(&restored_id, &(struct id){{[15] = 2}}));
    diary_outbox(d, &(struct outbox_row){.op = OUTBOX_FORGET, .device = 1, .user = 7, .id = id_no(2)});
    assert_int_equal(diary_close(d, NULL), 0);
    restored = 0;
    assert_int_equal(diary_open(&d, path_of("diary"), false, restore, NULL, NULL), 0);
    assert_int_equal(restored, 0);
    assert_int_equal(diary_close(d, NULL), 0);
    write_file("diary/outbox.rows", "this is no outbox file, but it is long enough to look like a row of one",
               72);
    struct err_ctx ctx = {0};
    assert_int_equal(diary_open(&d, path_of("diary"), false, restore, NULL, &ctx), ERR_CORRUPT);
    assert_non_null(strstr(ctx.text, "outbox.rows"));
    unlink(path_of("diary/outbox.rows"));
    unlink(path_of("diary/journal.jsonl"));
    rmdir(path_of("diary"));
}

static void test_diary_that_cannot_write_says_so(void **state)
{
    (void)state;
    struct diary *d;
    struct err_ctx ctx = {0};
    if (access("/dev/full", W_OK))
        skip();
    assert_int_equal(diary_open(&d, path_of("full"), false, restore, NULL, NULL), 0);
    assert_int_equal(diary_close(d, NULL), 0);
    unlink(path_of("full/journal.jsonl"));
    assert_int_equal(symlink("/dev/full", path_of("full/journal.jsonl")), 0);
    assert_int_equal(diary_open(&d, path_of("full"), false, restore, NULL, NULL), 0);
    diary_forgot(d, 7, 1);
    assert_int_equal(diary_flush(d, &ctx), ERR_FULL);
    assert_non_null(strstr(ctx.text, "journal.jsonl"));
    assert_int_equal(diary_close(d, NULL), ERR_FULL);
    unlink(path_of("full/journal.jsonl"));
    unlink(path_of("full/outbox.rows"));
    rmdir(path_of("full"));
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}
static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ledger_counts_pairs_and_latency_from_the_intent),
        cmocka_unit_test(test_person_sees_an_intent_twice_under_two_ids),
        cmocka_unit_test(test_full_ledger_says_so),
        cmocka_unit_test(test_thresholds_accept_what_the_help_shows),
        cmocka_unit_test(test_misspelt_threshold_is_an_error_and_never_a_pass),
        cmocka_unit_test(test_timers_fire_in_order_and_can_be_moved_and_taken_out),
        cmocka_unit_test(test_babble_is_utf8_of_the_wanted_length),
        cmocka_unit_test(test_texts_of_a_file_are_its_lines),
        cmocka_unit_test(test_diary_gives_unsent_messages_back_after_a_crash),
        cmocka_unit_test(test_diary_that_cannot_write_says_so),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
