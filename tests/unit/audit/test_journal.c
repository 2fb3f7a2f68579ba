#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "audit/journal.h"

#define ID "0193a1c2-7b1e-7c4a-9d55-0a1b2c3d4e5f"
static char path[64];
static struct err_ctx ctx;

static void put(const void *p, size_t n)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    fclose(f);
}

/* Reads everything: the number of good rows, *rc is how it ended. */
static int read_all(int *rc)
{
    struct journal *j;
    struct journal_row row;
    int rows = 0;
    ctx = (struct err_ctx){0};
    assert_int_equal(journal_open(&j, path, &ctx), 0);
    while ((*rc = journal_next(j, &row, &ctx)) == 1)
        rows++;
    journal_close(j);
    return rows;
}

static void test_each_row_is_read(void **state)
{
    (void)state;
    static const char text[] =
        "{\"op\":\"member\",\"chat\":\"17\",\"user\":\"7\",\"net\":\"lte\",\"pop\":\"mobile\"}\n"
        " { \"op\" : \"sent\", "
        "\"ts_us\":1764000000000000,\"user\":7,\"device\":1,\"chat\":\"17\",\"id\":\"" ID
        "\",\"intent\":5,\"kind\":\"te\\\"xt\",\"hash\":\"q3\",\"later\":null} \r\n"
        "{\"op\":\"surfaced\",\"user\":\"8\",\"device\":2,\"chat\":\"17\",\"epoch\":\"18446744073709551615\","
        "\"seq\":12,"
        "\"id\":\"" ID "\",\"from\":\"7\"}\n";
    put(text, sizeof text - 1);
    struct journal *j;
    struct journal_row r;
    assert_int_equal(journal_open(&j, path, &ctx), 0);
    assert_int_equal(journal_next(j, &r, &ctx), 1);
    assert_int_equal(r.op, JOURNAL_MEMBER);
    assert_memory_equal(r.pop.p, "mobile", 6);
    assert_int_equal(journal_next(j, &r, &ctx), 1);
    assert_int_equal(r.op, JOURNAL_SENT);
    assert_int_equal(r.ts_us, 1764000000000000);
    assert_int_equal(r.user, 7);
    assert_int_equal(r.intent, 5);
    assert_int_equal(r.kind.n, 6);
    assert_int_equal(journal_next(j, &r, &ctx), 1);
    assert_true(r.epoch == UINT64_MAX);
    assert_int_equal(r.line, 3);
    assert_int_equal(journal_next(j, &r, &ctx), 0);
    journal_close(j);
}

static void test_bad_rows_are_refused_by_line(void **state)
{
    (void)state;
    static const char good[] = "{\"op\":\"gave_up\",\"user\":1,\"id\":\"" ID "\"}\n";
    static const char *const bad[] = {
        "{\"op\":\"gave_up\",\"user\":1}\n",
        "{\"op\":\"nonsense\",\"user\":1}\n",
        "{\"user\":1}\n",
        "{\"op\":\"gave_up\",\"user\":\"x\",\"id\":\"" ID "\"}\n",
        "{\"op\":\"gave_up\",\"user\":\"18446744073709551616\",\"id\":\"" ID "\"}\n",
        "{\"op\":\"gave_up\",\"user\":1,\"id\":\"0193\"}\n",
        "{\"op\":\"gave_up\",\"user\":1,\"user\":1,\"id\":\"" ID "\"}\n",
        "{\"op\":\"gave_up\",\"user\":[1],\"id\":\"" ID "\"}\n",
        "{\"op\":\"gave_up\",\"user\":1,\"id\":\"" ID "\n",
        "{\"op\":\"gave_up\",\"user\":1,\"id\":\"" ID "\"} x\n",
        "{\"op\":\"gave_up\" \"user\":1}\n",
        "{\"op\"\n",
        "{\"op\":\"x\\\n",
        "\n",
        "null\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[512], where[128];
        int rc, n = snprintf(text, sizeof text, "%s%s%s", good, bad[i], good);
        put(text, (size_t)n);
        int rows = read_all(&rc);
        snprintf(where, sizeof where, "%s:2: ", path);
        if (rows != 1 || rc != ERR_CORRUPT || !strstr(ctx.text, where))
            fail_msg("%s gave %d after %d rows: %s", bad[i], rc, rows, ctx.text);
    }
}

static void test_a_cut_off_last_row_is_truncated_not_skipped(void **state)
{
    (void)state;
    static const char text[] =
        "{\"op\":\"forgot\",\"user\":1,\"device\":1}\n{\"op\":\"forgot\",\"user\":1,\"device\":1}";
    int rc;
    for (size_t cut = 38; cut < sizeof text - 1; cut++) {
        put(text, cut);
        assert_int_equal(read_all(&rc), 1);
        assert_int_equal(rc, ERR_TRUNCATED);
        assert_non_null(strstr(ctx.text, ":2: the last line is cut off"));
    }
    put("", 0);
    assert_int_equal(read_all(&rc), 0);
    assert_int_equal(rc, 0);
}

static void test_a_line_without_end_is_bounded(void **state)
{
    (void)state;
    static char text[1 << 20];
    memset(text, 'x', sizeof text);
    int rc;
    put(text, sizeof text);
    assert_int_equal(read_all(&rc), 0);
    assert_int_equal(rc, ERR_CORRUPT);
    text[JOURNAL_LINE_MAX + 1] = '\n';
    put(text, JOURNAL_LINE_MAX + 2);
    read_all(&rc);
    assert_int_equal(rc, ERR_CORRUPT);
    memset(text, 0, 100);
    put(text, 100);
    read_all(&rc);
    assert_int_equal(rc, ERR_TRUNCATED);
    text[50] = '\n';
    put(text, 100);
    read_all(&rc);
    assert_int_equal(rc, ERR_CORRUPT);
}

static void test_rows_across_chunks_are_whole(void **state)
{
    (void)state;
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (int i = 0; i < 20000; i++)
        fprintf(f, "{\"op\":\"gave_up\",\"user\":%d,\"id\":\"" ID "\"}\n", i);
    fclose(f);
    int rc;
    assert_int_equal(read_all(&rc), 20000);
    assert_int_equal(rc, 0);
}

static int setup(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "/tmp/test_journal.%d.jsonl", (int)getpid());
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_row_is_read),
        cmocka_unit_test(test_bad_rows_are_refused_by_line),
        cmocka_unit_test(test_a_cut_off_last_row_is_truncated_not_skipped),
        cmocka_unit_test(test_a_line_without_end_is_bounded),
        cmocka_unit_test(test_rows_across_chunks_are_whole),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
