/* What happens on the air: how delays are distributed, who jumps them, what is doubled or damaged. */
#include "tests/unit/netem/link_try.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define N 200000

/* Delays of N packets that are too far apart to meet. */
static void delays(const char *text, uint64_t *at, uint64_t gap)
{
    struct netem_profile p = profile(text);
    struct link l;
    link_init(&l, &p, 11, 3, 0);
    for (uint64_t i = 0; i < N; i++) {
        struct link_verdict v = link_offer(&l, NETEM_UP, S + i * gap, 100);
        assert_int_equal(v.reason, REASON_NONE);
        at[i] = v.deliver_ns - (S + i * gap);
    }
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static double correlation(const uint64_t *at, unsigned lag)
{
    double mean = 0, top = 0, bottom = 0;
    for (unsigned i = 0; i < N; i++)
        mean += (double)at[i] / N;
    for (unsigned i = 0; i < N; i++) {
        bottom += ((double)at[i] - mean) * ((double)at[i] - mean);
        if (i + lag < N)
            top += ((double)at[i] - mean) * ((double)at[i + lag] - mean);
    }
    return top / bottom;
}

static void test_jitter_is_distributed_as_asked(void **state)
{
    (void)state;
    /* quantiles 1, 10, 50, 90, 99 % in ms, of delay 200 ms and jitter 20 ms */
    static const struct {
        const char *dist;
        double at[5];
    } cases[] = {
        {"uniform", {180.4, 184, 200, 216, 219.6}},
        {"normal", {153.47, 174.37, 200, 225.63, 246.53}},
        /* (1 - q) ^ (-1/3) - 1.5, times 4/3 */
        {"pareto", {186.76, 187.62, 193.60, 217.45, 280}},
        {"paretonormal", {178.43, 184.31, 195.20, 219.50, 271.6}},
    };
    static uint64_t at[N];
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        char text[100];
        snprintf(text, sizeof text, "delay=200ms,jitter=20ms,dist=%s", cases[c].dist);
        delays(text, at, S);
        qsort(at, N, sizeof *at, by_size);
        const double q[5] = {0.01, 0.1, 0.5, 0.9, 0.99};
        for (int i = 0; i < 5; i++) {
            double ms = (double)at[(int)(q[i] * N)] / 1e6;
            if (fabs(ms - cases[c].at[i]) > (q[i] > 0.95 ? 3.5 : 0.7))
                fail_msg("%s: quantile %g is %g ms, not %g", cases[c].dist, q[i], ms, cases[c].at[i]);
        }
    }
}

static void test_correlation_keeps_the_distribution_and_fades_by_its_power(void **state)
{
    (void)state;
    static uint64_t plain[N], kept[N];
    delays("delay=40ms,jitter=10ms", plain, S);
    delays("delay=40ms,jitter=10ms,jitter_corr=60%", kept, S);
    assert_true(fabs(correlation(plain, 1)) < 0.01);
    assert_true(fabs(correlation(kept, 1) - 0.6) < 0.01);
    assert_true(fabs(correlation(kept, 2) - 0.36) < 0.015);
    qsort(kept, N, sizeof *kept, by_size);
    for (int i = 1; i < 10; i++) /* netem's own correlation would draw these together */
        assert_true(fabs((double)kept[i * N / 10] / 1e6 - (30 + 2 * i)) < 0.2);
}

static void test_a_table_of_a_file_is_used_as_tc_uses_it(void **state)
{
    (void)state;
    char path[] = "/tmp/test-dist-XXXXXX", text[100];
    const char *table = "# three values\n-8192 0\n16384\n";
    int fd = mkstemp(path);
    assert_int_equal(write(fd, table, strlen(table)), strlen(table));
    close(fd);
    static uint64_t at[N];
    snprintf(text, sizeof text, "delay=40ms,jitter=10ms,dist=table:%s", path);
    delays(text, at, S);
    unlink(path);
    unsigned n[3] = {0};
    for (int i = 0; i < N; i++) {
        assert_true(at[i] == 30 * MS || at[i] == 40 * MS || at[i] == 60 * MS);
        n[at[i] == 30 * MS ? 0 : at[i] == 40 * MS ? 1 : 2]++;
    }
    for (int i = 0; i < 3; i++)
        assert_true(abs((int)n[i] - N / 3) < 1000);
}

static void test_a_delay_below_zero_is_none(void **state)
{
    (void)state;
    static uint64_t at[N];
    delays("delay=5ms,jitter=20ms,dist=normal", at, S);
    unsigned none = 0;
    for (int i = 0; i < N; i++)
        none += at[i] == 0;
    assert_true(fabs((double)none / N - 0.4013) < 0.005); /* P(Z < -1/4) */
}

static void test_reordered_packets_overtake_and_no_others(void **state)
{
    (void)state;
    struct netem_profile p = profile("delay=50ms,reorder=10%,reorder_gap=3");
    struct link l;
    link_init(&l, &p, 5, 1, 0);
    uint64_t newest = 0, jumped = 0, since = 2;
    for (uint64_t i = 0; i < N; i++, since++) {
        struct link_verdict v = link_offer(&l, NETEM_UP, S + i * MS, 100);
        if (v.reordered) {
            assert_int_equal(v.deliver_ns, v.depart_ns);
            assert_true(since >= 2); /* at most one of three */
            since = -1ull;
            jumped++;
        } else {
            assert_int_equal(v.deliver_ns, v.depart_ns + 50 * MS);
            assert_true(v.deliver_ns >= newest);
            newest = v.deliver_ns;
        }
    }
    /* two in order, then 10 until one jumps */
    assert_true(fabs((double)jumped - N / 12.0) < 4 * sqrt(N / 12.0));
}

static void test_correlated_reordering_comes_in_runs_and_keeps_its_share(void **state)
{
    (void)state;
    struct netem_profile p = profile("delay=50ms,reorder=10%,reorder_corr=50%");
    struct link l;
    link_init(&l, &p, 5, 1, 0);
    double jumped = 0, again = 0, was = 0;
    for (uint64_t i = 0; i < N; i++) {
        bool jumps = link_offer(&l, NETEM_UP, S + i * MS, 100).reordered;
        jumped += jumps;
        again += was && jumps;
        was = jumps;
    }
    assert_true(fabs(jumped / N - 0.1) < 0.005);
    assert_true(fabs(again / jumped - 0.55) < 0.02); /* half of the time the same, else one in ten */
}

static void test_copies_and_damage_have_their_shares(void **state)
{
    (void)state;
    struct netem_profile p = profile("delay=5ms,jitter=2ms,duplicate=3%,corrupt=2%");
    struct link l;
    link_init(&l, &p, 6, 1, 0);
    double copies = 0, corrupt = 0, halves[2] = {0};
    for (uint64_t i = 0; i < N; i++) {
        struct link_verdict v = link_offer(&l, NETEM_UP, S + i * 10 * MS, 100);
        copies += v.copy_ns != 0;
        corrupt += v.corrupt;
        if (v.copy_ns)
            assert_true(v.copy_ns >= v.deliver_ns && v.copy_ns <= v.depart_ns + 7 * MS);
        if (v.corrupt) {
            assert_true(v.corrupt_bit < 800);
            halves[v.corrupt_bit >= 400]++;
        }
    }
    assert_true(fabs(copies / N - 0.03) < 0.0015);
    assert_true(fabs(corrupt / N - 0.02) < 0.0013);
    assert_true(fabs(halves[0] - halves[1]) < 4 * sqrt(corrupt)); /* anywhere in the packet */
}

static void test_loss_in_the_good_state_adds_to_bursts(void **state)
{
    (void)state;
    struct netem_profile p = profile("loss=2%,burst=4,loss_good=1%");
    struct link l;
    link_init(&l, &p, 7, 1, 0);
    double lost = 0;
    for (uint64_t i = 0; i < N; i++)
        lost += link_offer(&l, NETEM_UP, S + i * MS, 100).reason == REASON_LOSS;
    assert_true(fabs(lost / N - (0.02 + 0.98 * 0.01)) < 0.003);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_jitter_is_distributed_as_asked),
        cmocka_unit_test(test_correlation_keeps_the_distribution_and_fades_by_its_power),
        cmocka_unit_test(test_a_table_of_a_file_is_used_as_tc_uses_it),
        cmocka_unit_test(test_a_delay_below_zero_is_none),
        cmocka_unit_test(test_reordered_packets_overtake_and_no_others),
        cmocka_unit_test(test_correlated_reordering_comes_in_runs_and_keeps_its_share),
        cmocka_unit_test(test_copies_and_damage_have_their_shares),
        cmocka_unit_test(test_loss_in_the_good_state_adds_to_bursts),
    };
    return cmocka_run_group_tests_name("link_air", tests, NULL, NULL);
}
