/* Mahimahi traces: opportunities of 1500 bytes at their milliseconds, as mm-link uses them. */
#include "tests/unit/netem/link_try.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TRACES "../shared/data/traces/mahimahi"

/* A profile whose trace is `lines`, both ways. */
static struct netem_profile traced(const char *lines, const char *more)
{
    char path[] = "/tmp/test-trace-XXXXXX", text[200];
    int fd = mkstemp(path);
    assert_int_equal(write(fd, lines, strlen(lines)), strlen(lines));
    close(fd);
    snprintf(text, sizeof text, "trace=%s%s", path, more);
    struct netem_profile p = profile(text);
    unlink(path);
    return p;
}

static void test_a_packet_leaves_at_the_next_opportunity(void **state)
{
    (void)state;
    struct netem_profile p = traced("10\n20\n20\n100\n", "");
    struct link l;
    link_init(&l, &p, 1, 1, S);
    assert_int_equal(link_offer(&l, NETEM_UP, S + 5 * MS, 1500).deliver_ns, S + 10 * MS);
    assert_int_equal(link_offer(&l, NETEM_UP, S + 10 * MS, 1500).deliver_ns, S + 20 * MS); /* 10 has passed */
    assert_int_equal(link_offer(&l, NETEM_UP, S + 11 * MS, 1500).deliver_ns, S + 20 * MS);
    assert_int_equal(link_offer(&l, NETEM_UP, S + 12 * MS, 1500).deliver_ns, S + 100 * MS);
    assert_int_equal(link_offer(&l, NETEM_UP, S + 13 * MS, 1500).deliver_ns,
                     S + 110 * MS); /* again from 100 ms on */
    assert_int_equal(link_offer(&l, NETEM_DOWN, S + 13 * MS, 1500).deliver_ns,
                     S + 20 * MS); /* its own queue */
}

static void test_small_packets_share_an_opportunity_and_big_ones_take_several(void **state)
{
    (void)state;
    struct netem_profile p = traced("10\n20\n30\n40\n", "");
    struct link l;
    link_init(&l, &p, 1, 1, S);
    for (int i = 0; i < 3; i++)
        assert_int_equal(link_offer(&l, NETEM_UP, S, 500).deliver_ns, S + 10 * MS);
    assert_int_equal(link_offer(&l, NETEM_UP, S, 1000).deliver_ns, S + 20 * MS);
    assert_int_equal(link_offer(&l, NETEM_UP, S, 1000).deliver_ns, S + 30 * MS); /* half in 20, half in 30 */
    assert_int_equal(link_offer(&l, NETEM_UP, S, 4000).deliver_ns, S + 50 * MS);
    /* what nobody waits for is gone: no rest of an opportunity is kept */
    assert_int_equal(link_offer(&l, NETEM_UP, S + 75 * MS, 100).deliver_ns, S + 80 * MS);
    assert_int_equal(link_offer(&l, NETEM_UP, S + 80 * MS, 100).deliver_ns, S + 90 * MS);
}

static void test_the_queue_of_a_trace_overflows_in_bytes_or_in_time(void **state)
{
    (void)state;
    struct netem_profile p = traced("10\n20\n30\n40\n50\n60\n70\n80\n90\n100\n", ",queue=4500B");
    struct link l;
    link_init(&l, &p, 1, 1, S);
    for (int i = 0; i < 3; i++)
        assert_int_equal(link_offer(&l, NETEM_UP, S, 1500).reason, REASON_NONE);
    assert_int_equal(link_offer(&l, NETEM_UP, S, 1500).reason, REASON_QUEUE_FULL);
    assert_int_equal(link_offer(&l, NETEM_UP, S + 10 * MS, 1500).reason, REASON_NONE);
    p = traced("10\n20\n30\n1040\n", ",queue=100ms");
    link_init(&l, &p, 1, 1, S);
    for (int i = 0; i < 3; i++)
        assert_int_equal(link_offer(&l, NETEM_UP, S, 1500).reason, REASON_NONE);
    assert_int_equal(link_offer(&l, NETEM_UP, S, 1500).reason,
                     REASON_QUEUE_FULL); /* it would leave after 1.04 s */
}

static void test_no_opportunity_is_used_while_packets_are_held(void **state)
{
    (void)state;
    struct netem_profile p =
        traced("1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n", ",queue=1MB,stall_every=1s,stall_for=200ms");
    struct link l, watch;
    link_init(&l, &p, 3, 1, 0);
    watch = l;
    uint64_t t = 0;
    while (link_state(&watch, t) != LINK_STALLED)
        t += MS;
    uint64_t over = link_state_until(&watch, t);
    uint64_t first = (over + MS - 1) / MS * MS;
    for (uint64_t i = 0; i < 10; i++)
        assert_int_equal(link_offer(&l, NETEM_UP, t, 1500).deliver_ns, first + i * MS);
}

/* What is delivered per second is the trace's, at full load. */
static void follow(const char *path)
{
    char text[500];
    snprintf(text, sizeof text, "trace=%s,queue=1MB", path);
    struct netem_profile p = profile(text);
    const struct netem_trace *t = p.dir[0].trace;
    uint64_t seconds = t->period_ms / 1000 + 10;     /* beyond its end, where it begins again */
    uint32_t a_ms = 2 + 5 * t->count / t->period_ms; /* packets: more than it can carry */
    uint64_t *got = calloc(seconds + 10, sizeof *got), *asked = calloc(seconds + 10, sizeof *asked);
    struct link l;
    link_init(&l, &p, 1, 1, S);
    for (uint64_t now = 0; now < seconds * S; now += MS)
        for (uint32_t i = 0; i < a_ms; i++) {
            struct link_verdict v = link_offer(&l, NETEM_UP, S + now, 1500);
            uint64_t second = v.reason ? 0 : (v.deliver_ns - S) / S;
            if (!v.reason && second < seconds)
                got[second] += 1500;
        }
    /* by the lines themselves, not by the functions under test */
    for (uint64_t round = 0; round * t->period_ms < seconds * 1000; round++)
        for (uint32_t i = 0; i < t->count; i++)
            if ((round * t->period_ms + t->at_ms[i]) / 1000 < seconds)
                asked[(round * t->period_ms + t->at_ms[i]) / 1000] += 1500;
    for (uint64_t i = 1; i + 1 < seconds; i++)
        if (fabs((double)got[i] - (double)asked[i]) > 0.02 * (double)asked[i])
            fail_msg("%s: second %d: %d bytes, not %d", path, (int)i, (int)got[i], (int)asked[i]);
    free(got);
    free(asked);
}

static void test_delivered_bytes_follow_real_traces_second_by_second(void **state)
{
    (void)state;
    DIR *d = opendir(TRACES);
    unsigned n = 0;
    if (!d)
        skip();
    for (struct dirent *e; (e = readdir(d));) {
        char path[400];
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", TRACES, e->d_name);
        follow(path);
        n++;
    }
    closedir(d);
    assert_true(n > 0);
}

static void test_a_trace_is_read_once_and_shared(void **state)
{
    (void)state;
    struct netem_profile p = traced("10\n20\n", "");
    assert_ptr_equal(p.dir[0].trace, p.dir[1].trace);
    assert_int_equal(netem_trace_mean_bps(p.dir[0].trace), 1200000);
}

static void test_broken_traces_are_refused_with_their_line(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"10\n5\n", "line 2"}, {"10\nx\n", "line 2"},    {"0\n0\n", "millisecond"},  {"", "millisecond"},
        {"-3\n", "line 1"},    {"10\n\n20\n", "line 2"}, {"99999999999\n", "line 1"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char path[] = "/tmp/test-trace-XXXXXX", text[100];
        int fd = mkstemp(path);
        assert_int_equal(write(fd, bad[i][0], strlen(bad[i][0])), strlen(bad[i][0]));
        close(fd);
        snprintf(text, sizeof text, "down.trace=%s", path);
        struct netem_profile p;
        struct err_ctx err = {0};
        assert_int_equal(netem_profile_parse(&p, text, &err), ERR_INVALID);
        unlink(path);
        if (!strstr(err.text, bad[i][1]) || !strstr(err.text, path))
            fail_msg("%s", err.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_packet_leaves_at_the_next_opportunity),
        cmocka_unit_test(test_small_packets_share_an_opportunity_and_big_ones_take_several),
        cmocka_unit_test(test_the_queue_of_a_trace_overflows_in_bytes_or_in_time),
        cmocka_unit_test(test_no_opportunity_is_used_while_packets_are_held),
        cmocka_unit_test(test_delivered_bytes_follow_real_traces_second_by_second),
        cmocka_unit_test(test_a_trace_is_read_once_and_shared),
        cmocka_unit_test(test_broken_traces_are_refused_with_their_line),
    };
    return cmocka_run_group_tests_name("link_trace", tests, NULL, NULL);
}
