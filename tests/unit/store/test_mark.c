/* When an open begins a new epoch, and when it must not. */
#include "helper.h"

#include "util/log.h"

static char logged[2048];

static void on_log(void *arg, enum log_level level, const char *line)
{
    (void)arg;
    if (level == LOG_WARN)
        snprintf(logged, sizeof logged, "%s", line);
}

static int setup(void **state)
{
    struct place *p = calloc(1, sizeof *p);
    place_make(p);
    logged[0] = 0;
    log_set(on_log, NULL, LOG_WARN);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    place_remove(*state);
    free(*state);
    return 0;
}

static void commit_to(struct store *s, uint64_t head, uint64_t n)
{
    for (uint64_t i = 1; i <= n; i++)
        assert_int_equal(commit_one(s, 17, head + i), 0);
}

static void copy_data(struct place *p, const char *from, const char *to)
{
    shell("cd '%s' && rm -rf %s && cp -r %s %s && rm -f %s/LOCK", p->root, to, from, to, to);
}

static uint64_t run(struct place *p, uint64_t random, uint64_t head, uint64_t n)
{
    struct store *s = open_place(p, random);
    uint64_t epoch = store_epoch(s);
    commit_to(s, head, n);
    assert_int_equal(store_close(s, NULL), 0);
    return epoch;
}

static void test_first_open_names_an_epoch_and_keeps_it(void **state)
{
    struct place *p = *state;
    uint64_t first = run(p, 1ull << 63 | 42, 0, 5);
    assert_int_equal(first, 42); /* 63 bits */
    for (int i = 0; i < 3; i++) {
        struct store *s = open_place(p, 43);
        assert_int_equal(store_epoch(s), 42);
        assert_false(store_epoch_is_new(s));
        assert_int_equal(store_commit_index(s), 5);
        struct chat_head h = {17, 42, 5, T0}, other = {17, 41, 5, T0};
        assert_int_equal(store_next_seq(s, &h), 6);
        assert_int_equal(store_next_seq(s, NULL), 0);
        assert_true(store_next_seq(s, &other) == 1ull << 32);
        assert_int_equal(store_close(s, NULL), 0);
    }
    assert_string_equal(logged, "");
}

static void test_first_seq_of_a_new_epoch(void **state)
{
    (void)state;
    assert_true(store_first_seq(0) == 1ull << 32);
    assert_true(store_first_seq(1) == 1ull << 32);
    assert_true(store_first_seq(UINT32_MAX) == 1ull << 32);
    assert_true(store_first_seq(1ull << 32) == 2ull << 32);
}

static void test_crash_without_close_keeps_the_epoch(void **state)
{
    struct place *p = *state;
    struct store *s = open_place(p, 42);
    commit_to(s, 0, 3);
    assert_int_equal(store_mark(s, NULL), 0);
    commit_to(s, 3, 3); /* the mark is behind the store: as it should be */
    store_drop(s);
    s = open_place(p, 43);
    assert_int_equal(store_epoch(s), 42);
    assert_int_equal(store_commit_index(s), 6);
    store_drop(s);
}

static void test_crash_inside_the_first_open_keeps_the_epoch(void **state)
{
    struct place *p = *state;
    struct store *s = open_place(p, 42);
    store_drop(s);
    shell("rm '%s/mark'", p->keys);
    s = open_place(p, 43);
    assert_int_equal(store_epoch(s), 42);
    assert_string_equal(logged, "");
    store_drop(s);
}

static void test_old_backup_begins_a_new_epoch_above_all_seqs(void **state)
{
    struct place *p = *state;
    const struct lineage_entry *l;
    char backup[128];
    struct store *s = open_place(p, 42);
    commit_to(s, 0, 4);
    snprintf(backup, sizeof backup, "%s/backup", p->root);
    assert_int_equal(store_backup(s, backup, NULL), 0);
    commit_to(s, 4, 1);
    assert_int_equal(store_close(s, NULL), 0);
    copy_data(p, "backup", "data");
    s = open_place(p, 43);
    assert_true(store_epoch_is_new(s));
    assert_int_equal(store_epoch(s), 43);
    assert_int_equal(store_commit_index(s), 4);
    assert_non_null(strstr(logged, "lacks entries"));
    assert_int_equal(store_lineage(s, &l), 2);
    assert_true(l[0].epoch == 42 && l[0].ended_commit == 4 && l[1].epoch == 43 &&
                l[1].ended_commit == UINT64_MAX);
    struct chat_head h = {17, 42, 4, T0};
    assert_true(store_next_seq(s, &h) == 1ull << 32);
    assert_true(store_next_seq(s, NULL) == 1ull << 32);
    assert_int_equal(store_close(s, NULL), 0);
    s = open_place(p, 44); /* once is enough */
    assert_int_equal(store_epoch(s), 43);
    assert_false(store_epoch_is_new(s));
    assert_true(store_next_seq(s, &h) == 1ull << 32);
    assert_int_equal(store_close(s, NULL), 0);
}

static void test_backup_that_lacks_nothing_keeps_the_epoch(void **state)
{
    struct place *p = *state;
    char backup[128];
    struct store *s = open_place(p, 42);
    commit_to(s, 0, 4);
    snprintf(backup, sizeof backup, "%s/backup", p->root);
    assert_int_equal(store_backup(s, backup, NULL), 0);
    assert_int_equal(store_close(s, NULL), 0);
    copy_data(p, "backup", "data");
    s = open_place(p, 43);
    assert_int_equal(store_epoch(s), 42);
    store_drop(s);
}

/* The copy was made before the last open: it may have as many entries, yet it is not the one we served. */
static void test_copy_with_fewer_opens_begins_a_new_epoch(void **state)
{
    struct place *p = *state;
    run(p, 42, 0, 4);
    copy_data(p, "data", "old");
    run(p, 43, 4, 0);
    copy_data(p, "old", "data");
    assert_int_equal(run(p, 44, 4, 0), 44);
    assert_non_null(strstr(logged, "opened more often"));
}

/* Two restores from one backup: the second must not use the seqs that the first gave out. */
static void test_second_restore_uses_no_seq_of_the_first(void **state)
{
    struct place *p = *state;
    const struct lineage_entry *l;
    run(p, 42, 0, 4);
    copy_data(p, "data", "old");
    run(p, 43, 4, 4);
    copy_data(p, "old", "data");
    assert_int_equal(run(p, 44, 1ull << 32, 4), 44);
    copy_data(p, "old", "data");
    struct store *s = open_place(p, 45);
    struct chat_head h = {17, 42, 4, T0};
    assert_int_equal(store_epoch(s), 45);
    assert_true(store_next_seq(s, &h) == 2ull << 32);
    assert_true(store_next_seq(s, NULL) == 2ull << 32);
    assert_int_equal(store_lineage(s, &l), 3);
    assert_true(l[1].epoch == 44 && l[1].started_us == 0);
    assert_int_equal(store_close(s, NULL), 0);
}

static void test_lost_data_is_not_the_first_epoch_again(void **state)
{
    struct place *p = *state;
    run(p, 42, 0, 4);
    shell("rm -rf '%s'", p->data);
    struct store *s = open_place(p, 43);
    assert_int_equal(store_epoch(s), 43);
    assert_true(store_epoch_is_new(s));
    assert_true(store_next_seq(s, NULL) == 1ull << 32);
    assert_int_equal(store_close(s, NULL), 0);
}

static void test_lost_or_damaged_mark_begins_a_new_epoch_with_a_warning(void **state)
{
    struct place *p = *state;
    run(p, 42, 0, 4);
    shell("rm '%s/mark'", p->keys);
    assert_int_equal(run(p, 43, 4, 1), 43);
    assert_non_null(strstr(logged, "/mark"));
    assert_int_equal(run(p, 44, 5, 1), 43);
    shell("sed -i s/commit.*/commit\\ 1/ '%s/mark'", p->keys);
    assert_int_equal(run(p, 45, 6, 1), 45);
    assert_non_null(strstr(logged, "damaged"));
    shell(": > '%s/mark'", p->keys);
    assert_int_equal(run(p, 46, 7, 1), 46);
    assert_int_equal(run(p, 47, 8, 1), 46);
}

static void test_mark_of_an_earlier_epoch_is_passed_over(void **state)
{
    struct place *p = *state;
    run(p, 42, 0, 4);
    shell("cp '%s/mark' '%s/mark.old'", p->keys, p->keys);
    copy_data(p, "data", "old");
    run(p, 43, 4, 4);
    copy_data(p, "old", "data");
    assert_int_equal(run(p, 44, 4, 1), 44);
    shell("mv '%s/mark.old' '%s/mark'", p->keys, p->keys); /* as after a crash between store and mark */
    assert_int_equal(run(p, 45, 5, 1), 44);
}

static void test_restore_always_begins_a_new_epoch(void **state)
{
    struct place *p = *state;
    struct store *s;
    run(p, 42, 0, 4);
    struct store_config c = {
        .url = p->url, .keys_dir = p->keys, .now_us = T0, .random = 42, .restored = true};
    assert_int_equal(store_open(&s, &c, NULL), 0);
    assert_true(store_epoch_is_new(s));
    assert_true(store_epoch(s) != 42 && store_epoch(s) != 0); /* a random number that was used already */
    assert_int_equal(store_close(s, NULL), 0);
}

static void test_second_server_is_told_who_has_the_store(void **state)
{
    struct place *p = *state;
    struct store *s = open_place(p, 42), *second;
    struct err_ctx ctx = {0};
    char pid[32];
    struct store_config c = {.url = p->url, .keys_dir = p->keys, .now_us = T0, .random = 43};
    snprintf(pid, sizeof pid, "process %ld;", (long)getpid());
    assert_int_equal(store_open(&second, &c, &ctx), ERR_BUSY);
    assert_non_null(strstr(ctx.text, pid));
    c.read_only = true; /* tools may look */
    assert_int_equal(store_open(&second, &c, &ctx), 0);
    assert_int_equal(store_epoch(second), 42);
    assert_int_equal(commit_one(second, 17, 1), ERR_PERM);
    assert_int_equal(store_close(second, NULL), 0);
    assert_int_equal(store_close(s, NULL), 0);
    run(p, 43, 0, 1);
}

static void test_bad_places_are_named(void **state)
{
    struct place *p = *state;
    struct store *s;
    static const struct {
        const char *url;
        int code;
        bool read_only;
    } bad[] = {{"", ERR_INVALID, false},
               {"rocksdb:", ERR_INVALID, false},
               {"mongodb://x", ERR_INVALID, false},
               {"rocksdb:/nonexistent/a/b", ERR_NOTFOUND, false},
               {"rocksdb:/nonexistent", ERR_NOTFOUND, true},
               {"rocksdb:/etc/passwd", ERR_INVALID, false}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err_ctx ctx = {0};
        struct store_config c = {
            .url = bad[i].url, .keys_dir = p->keys, .random = 1, .read_only = bad[i].read_only};
        assert_int_equal(store_open(&s, &c, &ctx), bad[i].code);
        assert_true(ctx.text[0] != 0 && ctx.code == bad[i].code);
    }
}

#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_first_open_names_an_epoch_and_keeps_it),
        T(test_first_seq_of_a_new_epoch),
        T(test_crash_without_close_keeps_the_epoch),
        T(test_crash_inside_the_first_open_keeps_the_epoch),
        T(test_old_backup_begins_a_new_epoch_above_all_seqs),
        T(test_backup_that_lacks_nothing_keeps_the_epoch),
        T(test_copy_with_fewer_opens_begins_a_new_epoch),
        T(test_second_restore_uses_no_seq_of_the_first),
        T(test_lost_data_is_not_the_first_epoch_again),
        T(test_lost_or_damaged_mark_begins_a_new_epoch_with_a_warning),
        T(test_mark_of_an_earlier_epoch_is_passed_over),
        T(test_restore_always_begins_a_new_epoch),
        T(test_second_server_is_told_who_has_the_store),
        T(test_bad_places_are_named),
    };
    return cmocka_run_group_tests_name("mark", tests, NULL, NULL);
}
