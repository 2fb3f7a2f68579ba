/* Classes of differences, sorting outside of memory, the binary form. End to end: tests/e2e/test_reconcile.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "audit/reconcile.h"
#include "util/rng.h"

#define FIELDS (RECONCILE_HAS_SEQ | RECONCILE_HAS_EPOCH | RECONCILE_HAS_FROM | RECONCILE_HAS_HASH)

struct memory {
    struct reconcile_source s;
    struct reconcile_row *rows;
    size_t n, at;
};

static long memory_read(struct reconcile_source *s, struct reconcile_row *rows, size_t max,
                        struct err_ctx *ctx)
{
    struct memory *m = (struct memory *)s;
    size_t n = m->n - m->at < max ? m->n - m->at : max;
    (void)ctx;
    if (n)
        memcpy(rows, m->rows + m->at, n * sizeof *rows);
    m->at += n;
    return (long)n;
}

static int memory_rewind(struct reconcile_source *s, struct err_ctx *ctx)
{
    (void)ctx;
    ((struct memory *)s)->at = 0;
    return 0;
}

static struct memory *memory(bool witness, size_t cap)
{
    struct memory *m = calloc(1, sizeof *m);
    m->s = (struct reconcile_source){
        .name = "memory", .witness = witness, .has = FIELDS, .read = memory_read, .rewind = memory_rewind};
    m->rows = calloc(cap + 1, sizeof *m->rows);
    return m;
}

/* Sources: "llw" is two logs and a witness. */
#define SOURCES_MAX 4
#define ROWS_FEW    10
static struct memory *m[SOURCES_MAX];
static int sources;
static struct reconcile_result r;

static void have(const char *kinds, size_t cap)
{
    for (sources = 0; kinds[sources]; sources++)
        m[sources] = memory(kinds[sources] == 'w', cap);
}

static int forget(void **state)
{
    (void)state;
    while (sources > 0) {
        free(m[--sources]->rows);
        free(m[sources]);
    }
    return 0;
}

static struct reconcile_row row(uint64_t chat, uint64_t seq, uint64_t id)
{
    struct reconcile_row r = {
        .chat = chat, .seq = seq, .epoch = 1, .from = 7, .has = FIELDS, .place = (uint16_t)(chat % 5)};
    memcpy(r.id.b + 8, &id, 8);
    memcpy(r.hash, &id, 8);
    return r;
}

static void put(int source, struct reconcile_row x)
{
    m[source]->rows[m[source]->n++] = x;
}

static struct reconcile_row claim(uint64_t chat, uint64_t seq, uint64_t id, uint8_t flags)
{
    struct reconcile_row r = row(chat, seq, id);
    r.flags = flags;
    r.has = RECONCILE_HAS_FROM |
            (flags == RECONCILE_SENT ? RECONCILE_HAS_HASH : RECONCILE_HAS_SEQ | RECONCILE_HAS_EPOCH);
    return r;
}

static void check(void)
{
    struct reconcile_source *s[RECONCILE_SOURCES_MAX];
    struct reconcile_config c = {.mem = RECONCILE_MEM_MIN, .seed = 3};
    struct err_ctx err = {0};
    for (int i = 0; i < sources; i++)
        s[i] = &m[i]->s;
    if (reconcile_check(s, sources, &c, &r, &err))
        fail_msg("%s", err.text);
}

static void test_each_copy_is_judged_against_the_truth_in_one_pass(void **state)
{
    have("lll", ROWS_FEW);
    (void)state;
    for (int i = 0; i < 3; i++)
        for (uint64_t seq = 1; seq <= 5; seq++)
            if (!(i == 1 && seq == 2))
                put(i, row(1, seq, seq));
    m[2]->rows[3].hash[0] ^= 1;
    put(2, row(1, 9, 99));
    check();
    assert_int_equal(r.source[1].count[RECONCILE_LOST], 1);
    assert_int_equal(r.source[2].count[RECONCILE_DIVERGED], 1);
    assert_int_equal(r.source[2].count[RECONCILE_PHANTOM], 1);
    assert_int_equal(r.differences, 3);
}

static void test_what_the_truth_lost_and_a_copy_kept_is_no_phantom(void **state)
{
    have("llw", ROWS_FEW);
    (void)state;
    put(0, row(1, 1, 1));
    put(1, row(1, 1, 1));
    put(1, row(1, 2, 2));
    put(2, claim(1, 2, 2, RECONCILE_ACCEPTED));
    check();
    assert_int_equal(r.source[0].count[RECONCILE_LOST], 1);
    assert_int_equal(r.accepted_lost, 1);
    assert_int_equal(r.differences, 1);
}

static void test_a_loss_that_many_know_of_is_one_loss(void **state)
{
    have("llww", ROWS_FEW);
    (void)state;
    put(0, row(1, 1, 1));
    put(2, claim(1, 1, 1, RECONCILE_ACCEPTED));
    put(3, claim(1, 1, 1, RECONCILE_ACCEPTED));
    check();
    assert_int_equal(r.source[1].count[RECONCILE_LOST], 1);
    assert_int_equal(r.accepted_lost, 1);
    assert_int_equal(r.differences, 1);
}

static void test_promises_and_hopes_are_told_apart(void **state)
{
    have("lw", ROWS_FEW);
    (void)state;
    put(0, row(1, 1, 1));
    put(1, claim(1, 1, 1, RECONCILE_SENT));     /* stored, its sender was never told: fine */
    put(1, claim(1, 0, 2, RECONCILE_SENT));     /* never accepted */
    put(1, claim(1, 3, 3, RECONCILE_SURFACED)); /* seen, no promise known */
    put(1, claim(1, 0, 4, RECONCILE_SENT));
    put(1, claim(1, 4, 4, RECONCILE_ACCEPTED)); /* promised and lost */
    check();
    assert_int_equal(r.total[RECONCILE_NEVER_ACCEPTED], 1);
    assert_int_equal(r.total[RECONCILE_UNCONFIRMED], 1);
    assert_int_equal(r.total[RECONCILE_LOST], 1);
    assert_int_equal(r.accepted_lost, 1);
    assert_int_equal(r.differences, 2);
}

static void test_a_promise_of_another_place_or_content_is_a_difference(void **state)
{
    have("lw", ROWS_FEW);
    (void)state;
    put(0, row(1, 1, 1));
    put(0, row(1, 2, 2));
    put(1, claim(1, 5, 1, RECONCILE_ACCEPTED));
    struct reconcile_row other = claim(1, 0, 2, RECONCILE_SENT);
    other.hash[3] ^= 1;
    put(1, other);
    check();
    assert_int_equal(r.total[RECONCILE_REORDERED], 1);
    assert_int_equal(r.total[RECONCILE_DIVERGED], 1);
    assert_int_equal(r.differences, 2);
}

static void test_two_senders_may_have_made_the_same_id(void **state)
{
    have("ll", ROWS_FEW);
    (void)state;
    for (int i = 0; i < 2; i++) {
        put(i, row(1, 1, 1));
        put(i, row(1, 2, 1));
        m[i]->rows[1].from = 8;
    }
    check();
    assert_int_equal(r.differences, 0);
    m[1]->n--;
    check();
    assert_int_equal(r.total[RECONCILE_LOST], 1);
    assert_int_equal(r.differences, 1);
}

static void test_what_all_copies_have_twice_is_said_of_the_truth(void **state)
{
    have("ll", ROWS_FEW);
    (void)state;
    for (int i = 0; i < 2; i++) {
        put(i, row(1, 1, 1));
        put(i, row(1, 2, 1));
    }
    check();
    assert_int_equal(r.source[0].count[RECONCILE_DUPLICATE], 1);
    assert_int_equal(r.differences, 1);
}

static void test_witnesses_alone_prove_nothing(void **state)
{
    have("ww", ROWS_FEW);
    struct reconcile_source *s[2] = {&m[0]->s, &m[1]->s};
    struct err_ctx err = {0};
    (void)state;
    assert_int_equal(reconcile_check(s, 2, &(struct reconcile_config){0}, &r, &err), ERR_USAGE);
    assert_int_equal(reconcile_check(s, 1, &(struct reconcile_config){0}, &r, &err), ERR_USAGE);
}

/* 400,000 rows in 8 MiB: many runs; half of them differ. */
static void test_memory_has_a_ceiling_whatever_differs(void **state)
{
    enum { N = 400000 };
    have("ll", N);
    struct rng rng;
    (void)state;
    rng_seed(&rng, 9);
    for (uint64_t i = 0; i < N; i++) {
        struct reconcile_row x = row(1 + i % 7, i / 7, i + 1);
        put(0, x);
        if (i % 2)
            put(1, x);
    }
    for (size_t i = m[1]->n; i-- > 1;) {
        size_t k = rng_below(&rng, i + 1);
        struct reconcile_row x = m[1]->rows[i];
        m[1]->rows[i] = m[1]->rows[k];
        m[1]->rows[k] = x;
    }
    check();
    assert_int_equal(r.total[RECONCILE_LOST], N / 2);
    assert_int_equal(r.differences, N / 2);
    assert_int_equal(r.rows, N + N / 2);
}

static int backwards(const struct reconcile_row *a, const struct reconcile_row *b)
{
    return reconcile_order(b, a);
}

static void test_sorting_gives_every_row_once_again_and_again(void **state)
{
    struct reconcile_sort *s;
    struct rng rng;
    (void)state;
    rng_seed(&rng, 4);
    assert_int_equal(reconcile_sort_new(&s, 1, NULL, backwards, NULL), 0);
    for (uint64_t i = 0; i < 5000; i++) {
        struct reconcile_row x = row(rng_below(&rng, 50), rng_below(&rng, 50), i);
        assert_int_equal(reconcile_sort_add(s, &x, NULL), 0);
    }
    for (int turn = 0; turn < 2; turn++) {
        struct reconcile_row x[33], last = {0};
        uint64_t sum = 0, n = 0, id;
        long got;
        assert_int_equal(reconcile_sort_rewind(s, NULL), 0);
        while ((got = reconcile_sort_read(s, x, 33, NULL)) > 0)
            for (long i = 0; i < got; i++) {
                assert_true(n == 0 || backwards(&last, &x[i]) <= 0);
                memcpy(&id, x[i].id.b + 8, 8);
                sum += id;
                last = x[i];
                n++;
            }
        assert_int_equal(n, 5000);
        assert_int_equal(sum, 5000ull * 4999 / 2);
    }
    reconcile_sort_free(s);
}

static void test_a_binary_file_that_is_not_whole_is_refused(void **state)
{
    char path[] = "/tmp/reconcile-bin-XXXXXX";
    struct reconcile_bin *b;
    struct reconcile_source *s;
    struct reconcile_row x[16];
    struct stat st;
    (void)state;
    close(mkstemp(path));
    assert_int_equal(reconcile_bin_new(&b, path, FIELDS, NULL), 0);
    for (uint64_t i = 1; i <= 3; i++) {
        struct reconcile_row r = row(5, i, i);
        assert_int_equal(reconcile_bin_add(b, &r, NULL), 0);
    }
    struct reconcile_row early = row(5, 1, 1);
    assert_int_equal(reconcile_bin_add(b, &early, NULL), ERR_INVALID);
    assert_int_equal(reconcile_bin_close(b, NULL), 0);
    assert_int_equal(reconcile_bin_open(&s, path, NULL), 0);
    assert_int_equal(s->read(s, x, 16, NULL), 3);
    assert_int_equal(s->read(s, x, 16, NULL), 0);
    s->close(s);
    assert_int_equal(stat(path, &st), 0);
    for (off_t cut = st.st_size - 1; cut >= 0; cut--) {
        struct err_ctx err = {0};
        assert_int_equal(truncate(path, cut), 0);
        long rc = reconcile_bin_open(&s, path, &err);
        if (!rc) {
            while ((rc = s->read(s, x, 2, &err)) > 0)
                ;
            s->close(s);
        }
        assert_int_equal(rc, ERR_TRUNCATED);
        assert_non_null(strstr(err.text, "offset"));
    }
    unlink(path);
}

static void test_rows_say_the_same_in_text(void **state)
{
    static const char line[] =
        "{\"chat\":\"17\",\"epoch\":\"48121\",\"seq\":1,\"id\":"
        "\"0193a1c2-7b1e-7c4a-9d55-0a1b2c3d4e5f\",\"from\":\"7\",\"ts\":5,\"body\":\"\\u0068i\"}",
                      same[] = "{\"body\":\"hi\", \"kind\":\"text\",\"chat\":17,\"seq\":1,\"id\":"
                               "\"0193A1C2-7b1e-7c4a-9d55-0a1b2c3d4e5f\"}";
    struct reconcile_row a, b;
    const char *why;
    (void)state;
    assert_int_equal(reconcile_jsonl_row(&a, line, sizeof line - 1, &why), 0);
    assert_int_equal(reconcile_jsonl_row(&b, same, sizeof same - 1, &why), 0);
    assert_true(reconcile_same(&a, &b, 0xff));
    assert_int_equal(a.epoch, 48121);
    assert_int_equal(a.ts_us, 5);
    for (size_t n = 0; n < sizeof line - 1; n++)
        assert_int_equal(reconcile_jsonl_row(&b, line, n, &why), ERR_CORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_each_copy_is_judged_against_the_truth_in_one_pass, forget),
        cmocka_unit_test_teardown(test_what_the_truth_lost_and_a_copy_kept_is_no_phantom, forget),
        cmocka_unit_test_teardown(test_a_loss_that_many_know_of_is_one_loss, forget),
        cmocka_unit_test_teardown(test_promises_and_hopes_are_told_apart, forget),
        cmocka_unit_test_teardown(test_a_promise_of_another_place_or_content_is_a_difference, forget),
        cmocka_unit_test_teardown(test_two_senders_may_have_made_the_same_id, forget),
        cmocka_unit_test_teardown(test_what_all_copies_have_twice_is_said_of_the_truth, forget),
        cmocka_unit_test_teardown(test_witnesses_alone_prove_nothing, forget),
        cmocka_unit_test_teardown(test_memory_has_a_ceiling_whatever_differs, forget),
        cmocka_unit_test(test_sorting_gives_every_row_once_again_and_again),
        cmocka_unit_test(test_a_binary_file_that_is_not_whole_is_refused),
        cmocka_unit_test(test_rows_say_the_same_in_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
