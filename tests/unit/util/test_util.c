/* The utilities everything stands on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "util/buf.h"
#include "util/err.h"
#include "util/hist.h"
#include "util/id.h"
#include "util/map.h"
#include "util/rng.h"
#include "util/units.h"

static void test_map_agrees_with_a_plain_array_under_any_mix(void **state)
{
    (void)state;
    enum { KEYS = 997 };
    static uint64_t truth[KEYS];
    struct map m;
    struct rng r;
    size_t count = 0;
    rng_seed(&r, 1);
    map_init(&m, 8, 8, 100000, 3);
    memset(truth, 0, sizeof truth);
    for (int i = 0; i < 200000; i++) {
        uint64_t k = rng_below(&r, KEYS);
        if (rng_below(&r, 3)) {
            bool fresh;
            uint64_t *v = map_put_u64(&m, k, &fresh);
            assert_non_null(v);
            assert_true(fresh == !truth[k]);
            count += fresh;
            *v = truth[k] = rng_u64(&r) | 1;
        } else {
            assert_true(map_del_u64(&m, k) == (truth[k] != 0));
            count -= truth[k] != 0;
            truth[k] = 0;
        }
        uint64_t probe = rng_below(&r, KEYS), *v = map_get_u64(&m, probe);
        assert_true(v ? *v == truth[probe] : !truth[probe]);
    }
    assert_int_equal(m.count, count);
    size_t at = 0, seen = 0;
    const void *key;
    void *val;
    while (map_next(&m, &at, &key, &val)) {
        assert_true(truth[*(const uint64_t *)key] == *(uint64_t *)val);
        seen++;
    }
    assert_int_equal(seen, count);
    map_release(&m);
}

static void test_map_keeps_its_maximum(void **state)
{
    (void)state;
    struct map m;
    map_init(&m, 8, 8, 3, 0);
    for (uint64_t k = 0; k < 3; k++)
        assert_non_null(map_put_u64(&m, k, NULL));
    assert_null(map_put_u64(&m, 99, NULL));
    assert_non_null(map_put_u64(&m, 2, NULL)); /* what is there can still be set */
    assert_true(map_del_u64(&m, 0));
    assert_non_null(map_put_u64(&m, 99, NULL));
    map_release(&m);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void test_histogram_is_never_below_and_at_most_a_percent_above(void **state)
{
    (void)state;
    static struct hist h, half;
    static uint64_t values[100000];
    struct rng r;
    rng_seed(&r, 5);
    hist_reset(&h);
    hist_reset(&half);
    for (size_t i = 0; i < 100000; i++) {
        values[i] = rng_u64(&r) >> (10 + rng_below(&r, 50));
        hist_add(i % 2 ? &h : &half, values[i]);
    }
    hist_merge(&h, &half);
    qsort(values, 100000, sizeof *values, compare);
    static const unsigned quantiles[] = {1, 100, 5000, 9000, 9900, 9999, 10000};
    for (size_t i = 0; i < 7; i++) {
        uint64_t exact = values[(100000ull * quantiles[i] + 9999) / 10000 - 1],
                 got = hist_quantile(&h, quantiles[i]);
        assert_true(got >= exact);
        assert_true((double)got <= (double)exact * 1.008 + 1);
    }
    assert_int_equal(h.count, 100000);
    assert_true(h.max == values[99999] && h.min == values[0]);
}

static void test_random_numbers_are_the_published_ones(void **state)
{
    (void)state;
    /* xoshiro256** with the state 1, 2, 3, 4: first outputs of the authors' reference code */
    struct rng r = {{1, 2, 3, 4}};
    assert_true(rng_u64(&r) == 11520);
    assert_true(rng_u64(&r) == 0);
    assert_true(rng_u64(&r) == 1509978240);
    assert_true(rng_u64(&r) == 1215971899390074240ull);
}

static void test_random_shapes(void **state)
{
    (void)state;
    struct rng r, a, b;
    rng_seed(&r, 9);
    uint64_t n = 200000, below[7] = {0}, hits = 0;
    double sum = 0, sum2 = 0;
    for (uint64_t i = 0; i < n; i++) {
        below[rng_below(&r, 7)]++;
        hits += rng_hit(&r, RNG_SHARE(20000));
        double x = (double)rng_exp(&r, 1000000);
        sum += x;
        sum2 += x * x;
    }
    for (int i = 0; i < 7; i++)
        assert_true(fabs((double)below[i] - (double)n / 7) < 4 * sqrt((double)n / 7));
    assert_true(fabs((double)hits - 0.02 * (double)n) < 4 * sqrt(0.02 * (double)n));
    double mean = sum / (double)n, sd = sqrt(sum2 / (double)n - mean * mean);
    assert_true(fabs(mean / 1e6 - 1) < 4 / sqrt((double)n));
    assert_true(fabs(sd / mean - 1) < 0.02); /* of an exponential distribution they are equal */
    rng_seed_stream(&a, 1, 1);
    rng_seed_stream(&b, 1, 2);
    assert_true(rng_u64(&a) != rng_u64(&b));
    assert_true(fixed_log2(1) == 0 && fixed_log2(8) == 3ull << 32);
    assert_true(fabs((double)fixed_log2(1000) / 4294967296.0 - log2(1000)) < 1e-8);
}

static void test_ids(void **state)
{
    (void)state;
    struct rng r;
    struct id id, back;
    char text[ID_TEXT + 1];
    rng_seed(&r, 1);
    id = id_new(0x0193a1c27b1eull, &r);
    assert_true(id_is_v7(&id));
    assert_true(id_unix_ms(&id) == 0x0193a1c27b1eull);
    id_str(&id, text);
    assert_memory_equal(text, "0193a1c2-7b1e-7", 15);
    assert_int_equal(id_parse(&back, text, ID_TEXT), 0);
    assert_true(id_equal(&id, &back));
    assert_int_equal(id_parse(&back, text, ID_TEXT - 1), ERR_INVALID);
    text[8] = '0';
    assert_int_equal(id_parse(&back, text, ID_TEXT), ERR_INVALID);
    text[8] = '-';
    text[0] = 'g';
    assert_int_equal(id_parse(&back, text, ID_TEXT), ERR_INVALID);
}

static void test_base64url_has_one_form_for_each_value(void **state)
{
    (void)state;
    static const struct {
        const char *plain, *coded;
    } rfc4648[] = {{"", ""},        {"f", "Zg"},        {"fo", "Zm8"},
                   {"foo", "Zm9v"}, {"foob", "Zm9vYg"}, {"foobar", "Zm9vYmFy"}};
    char out[64];
    for (size_t i = 0; i < 6; i++) {
        size_t n = base64url_encode(out, rfc4648[i].plain, strlen(rfc4648[i].plain));
        assert_int_equal(n, strlen(rfc4648[i].coded));
        assert_memory_equal(out, rfc4648[i].coded, n);
        assert_int_equal(base64url_decode(out, sizeof out, rfc4648[i].coded, n), strlen(rfc4648[i].plain));
    }
    assert_int_equal(base64url_decode(out, sizeof out, "Zh", 2), ERR_INVALID);   /* bits left over */
    assert_int_equal(base64url_decode(out, sizeof out, "Z", 1), ERR_INVALID);    /* no length makes this */
    assert_int_equal(base64url_decode(out, sizeof out, "Zm+v", 4), ERR_INVALID); /* the other alphabet */
    assert_int_equal(base64url_decode(out, 2, "Zm9v", 4), ERR_INVALID);          /* no room */
    assert_int_equal(base64url_encode(out, "\xfb\xff", 2), 3);
    assert_memory_equal(out, "-_8", 3);
}

static void test_units_read_what_people_write(void **state)
{
    (void)state;
    struct err_ctx err = {0};
    uint64_t v;
    uint32_t ppm;
    static const struct {
        const char *text;
        uint64_t ns;
    } durations[] = {
        {"10ms", 10000000}, {"5s", 5000000000ull}, {"0.5s", 500000000}, {"3m", 180000000000ull}, {"0", 0}};
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(units_duration(&v, durations[i].text, &err), 0);
        assert_true(v == durations[i].ns);
    }
    static const char *const bad[] = {"5x", "", "s", "-1s", "1 s", "1s ", "1.2.3s", "9999999999999999999s",
                                      "5"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_true(units_duration(&v, bad[i], &err) < 0);
    assert_string_equal(err.text, "'5' is no duration (10ms, 5s, 3m, 1d)");
    assert_int_equal(units_size(&v, "64kB", &err), 0);
    assert_int_equal(v, 64000);
    assert_int_equal(units_size(&v, "128MiB", &err), 0);
    assert_int_equal(v, 128 << 20);
    assert_int_equal(units_rate(&v, "30/m", &err), 0);
    assert_int_equal(v, 500);
    assert_int_equal(units_rate(&v, "100/s", &err), 0);
    assert_int_equal(v, 100000);
    assert_int_equal(units_bitrate(&v, "1.5mbit", &err), 0);
    assert_int_equal(v, 1500000);
    assert_int_equal(units_share(&ppm, "2%", &err), 0);
    assert_int_equal(ppm, 20000);
    assert_int_equal(units_share(&ppm, "0.02", &err), 0);
    assert_int_equal(ppm, 20000);
    assert_true(units_share(&ppm, "101%", &err) < 0);
    assert_true(units_u64(&v, "18446744073709551616", &err) < 0);
    char text[32];
    units_show_duration(text, 1500000000);
    assert_string_equal(text, "1.5s");
    units_show_size(text, 64000);
    assert_string_equal(text, "64kB");
    units_show_bitrate(text, 12000000);
    assert_string_equal(text, "12mbit");
}

static void test_buffer_fails_once_and_stays_as_it_was(void **state)
{
    (void)state;
    struct buf b = BUF_INIT(10);
    buf_str(&b, "12345678");
    buf_str(&b, "too long");
    assert_true(b.failed);
    buf_char(&b, 'x'); /* would fit, but the failure sticks */
    assert_string_equal(buf_cstr(&b), "12345678");
    buf_reset(&b);
    buf_i64(&b, INT64_MIN + 0);
    assert_true(b.failed); /* 20 characters */
    buf_release(&b);
    buf_init(&b, 1000);
    buf_json_str(&b, "a\"\\\n\x01\xc3\xa9", 7);
    assert_string_equal(buf_cstr(&b), "\"a\\\"\\\\\\n\\u0001\xc3\xa9\"");
    buf_reset(&b);
    buf_html(&b, "<a href='x'>&");
    assert_string_equal(buf_cstr(&b), "&lt;a href=&#39;x&#39;&gt;&amp;");
    buf_consume(&b, 4);
    assert_memory_equal(b.data, "a href", 6);
    buf_release(&b);
}

static void test_errors_climb_with_their_context(void **state)
{
    (void)state;
    struct err_ctx err = {0};
    assert_int_equal(err_set(&err, ERR_INVALID, "'%s' is no duration", "5x"), ERR_INVALID);
    assert_int_equal(err_prefix(&err, "%s: faults[%d].at: ", "scenario.json", 2), ERR_INVALID);
    assert_string_equal(err.text, "scenario.json: faults[2].at: '5x' is no duration");
    errno = ENOSPC;
    assert_int_equal(err_errno(&err, "writing %s", "x"), ERR_FULL);
    assert_int_equal(err_exit_status(ERR_FULL), 74);
    assert_int_equal(err_exit_status(ERR_PERM), 77);
    assert_int_equal(err_exit_status(-12345), 70);
    char lots[600];
    memset(lots, 'y', sizeof lots - 1);
    lots[599] = 0;
    err_set(&err, ERR_IO, "end");
    err_prefix(&err, "%s", lots); /* cut, not overrun */
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_map_agrees_with_a_plain_array_under_any_mix),
        cmocka_unit_test(test_map_keeps_its_maximum),
        cmocka_unit_test(test_histogram_is_never_below_and_at_most_a_percent_above),
        cmocka_unit_test(test_random_numbers_are_the_published_ones),
        cmocka_unit_test(test_random_shapes),
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_base64url_has_one_form_for_each_value),
        cmocka_unit_test(test_units_read_what_people_write),
        cmocka_unit_test(test_buffer_fails_once_and_stays_as_it_was),
        cmocka_unit_test(test_errors_climb_with_their_context),
    };
    return cmocka_run_group_tests_name("util", tests, NULL, NULL);
}
