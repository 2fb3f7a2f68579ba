/* What the proxy does to plain streams, in virtual time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/netem/proxy_rig.h"

#define MS NS_PER_MS

static char bytes[4 << 20];

static void fill(void)
{
    struct rng r;
    rng_seed(&r, 3);
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)rng_u64(&r);
}

static void same_out(struct rig *g, enum netem_dir d, size_t n)
{
    assert_int_equal(g->out[d].len, n);
    assert_true(!n || !memcmp(g->out[d].data, bytes, n));
}

static void test_without_toxics_it_is_idle_and_passes_all(void **state)
{
    (void)state;
    RIG(g, 1, NULL);
    assert_true(proxy_conn_idle(g.c, NETEM_UP, g.now));
    rig_put(&g, NETEM_UP, bytes, 100000, 777);
    same_out(&g, NETEM_UP, 100000);
    proxy_conn_put_fin(g.c, NETEM_UP, g.now);
    rig_flush(&g);
    assert_int_equal(g.fin_ns[NETEM_UP], g.now);
    assert_false(proxy_conn_fin(g.c, NETEM_UP, g.now)); /* once */
    rig_put(&g, NETEM_DOWN, bytes, 1000, 10);           /* half-closed: the other way goes on */
    same_out(&g, NETEM_DOWN, 1000);
    assert_int_equal(proxy_conn_wake(g.c, g.now), UINT64_MAX);
    rig_end(&g);
}

static void test_latency_is_exact_and_adds_up(void **state)
{
    (void)state;
    RIG(g, 1, "latency:delay=40ms", "latency:delay=10ms,dir=down");
    uint64_t began = g.now;
    assert_false(proxy_conn_idle(g.c, NETEM_UP, g.now));
    rig_put(&g, NETEM_UP, bytes, 1000, 1000);
    rig_put(&g, NETEM_DOWN, bytes, 1000, 1000);
    proxy_conn_put_fin(g.c, NETEM_UP, g.now);
    rig_settle(&g);
    same_out(&g, NETEM_UP, 1000);
    assert_int_equal(g.first_ns[NETEM_UP] - began, 40 * MS);
    assert_int_equal(g.fin_ns[NETEM_UP] - began, 40 * MS);
    assert_int_equal(g.first_ns[NETEM_DOWN] - began, 50 * MS);
    rig_end(&g);
}

static uint64_t jitters(uint64_t seed, uint64_t *low, uint64_t *high)
{
    uint64_t sum = 0;
    RIG(g, seed, "latency:delay=40ms,jitter=10ms,dir=up");
    *low = UINT64_MAX;
    *high = 0;
    for (int i = 0; i < 2000; i++) {
        uint64_t began = g.now;
        rig_put(&g, NETEM_UP, bytes, 100, 100);
        rig_settle(&g);
        uint64_t took = g.last_ns[NETEM_UP] - began;
        *low = took < *low ? took : *low;
        *high = took > *high ? took : *high;
        sum += took;
    }
    rig_end(&g);
    return sum;
}

static void test_jitter_is_even_and_drawn_by_the_seed(void **state)
{
    (void)state;
    uint64_t low, high, sum = jitters(1, &low, &high);
    assert_in_range(low, 30 * MS, 31 * MS);
    assert_in_range(high, 49 * MS, 50 * MS);
    assert_in_range(sum / 2000, 39500 * NS_PER_US, 40500 * NS_PER_US);
    assert_true(jitters(1, &low, &high) == sum);
    assert_true(jitters(2, &low, &high) != sum);
}

static void test_jitter_keeps_the_order(void **state)
{
    (void)state;
    RIG(g, 1, "latency:delay=40ms,jitter=40ms");
    for (int i = 0; i < 1000; i++) {
        rig_put(&g, NETEM_UP, bytes + i * 10, 10, 10);
        rig_until(&g, g.now + 1 * MS);
    }
    rig_settle(&g);
    same_out(&g, NETEM_UP, 10000);
    rig_end(&g);
}

static void test_bandwidth_holds_and_the_smallest_counts(void **state)
{
    (void)state;
    static const uint64_t rates[] = {8000, 8000000, 800000000};
    static const char *const specs[] = {"bandwidth:rate=8kbit", "bandwidth:rate=8mbit",
                                        "bandwidth:rate=800mbit"};
    for (int i = 0; i < 3; i++) {
        RIG(g, 1, specs[i], "bandwidth:rate=10gbit");
        size_t n = rates[i] / 8 / 2 < 1000000 ? rates[i] / 8 / 2 : 1000000;
        uint64_t began = g.now, ideal = n * 8 * NS_PER_S / rates[i];
        rig_put(&g, NETEM_DOWN, bytes, n, 65536);
        rig_settle(&g);
        same_out(&g, NETEM_DOWN, n);
        uint64_t took = g.last_ns[NETEM_DOWN] - began;
        assert_in_range(took, ideal - 3 * MS, ideal + ideal / 100 + 3 * MS);
        rig_end(&g);
    }
}

/* A driver that wakes up late makes up for it. */
static void test_bandwidth_survives_late_wake_ups(void **state)
{
    (void)state;
    RIG(g, 1, "bandwidth:rate=8mbit");
    uint64_t began = g.now;
    rig_put(&g, NETEM_DOWN, bytes, 1000000, 1000000);
    while (g.out[NETEM_DOWN].len < 1000000) {
        uint64_t wake = proxy_conn_wake(g.c, g.now);
        g.now = wake + 13 * MS;
        rig_flush(&g);
    }
    assert_in_range(g.last_ns[NETEM_DOWN] - began, 990 * MS, 1025 * MS);
    rig_end(&g);
}

static void test_windows_of_time(void **state)
{
    (void)state;
    RIG(g, 1, "stall:after=5s,for=2s,every=10s,dir=down");
    uint64_t began = g.now;
    assert_true(proxy_conn_idle(g.c, NETEM_DOWN, g.now));
    assert_int_equal(proxy_conn_wake(g.c, g.now), began + 5 * NS_PER_S);
    for (int k = 0; k < 3; k++) {
        uint64_t start = began + (5 + 10 * (uint64_t)k) * NS_PER_S;
        rig_until(&g, start + 500 * MS);
        assert_false(proxy_conn_idle(g.c, NETEM_DOWN, g.now));
        assert_true(proxy_conn_idle(g.c, NETEM_UP, g.now));
        buf_reset(&g.out[NETEM_DOWN]);
        rig_put(&g, NETEM_DOWN, bytes, 100, 100);
        assert_int_equal(g.out[NETEM_DOWN].len, 0);
        rig_until(&g, start + 3 * NS_PER_S);
        same_out(&g, NETEM_DOWN, 100);
        assert_int_equal(g.last_ns[NETEM_DOWN], start + 2 * NS_PER_S);
        assert_true(proxy_conn_idle(g.c, NETEM_DOWN, g.now));
    }
    rig_end(&g);
}

static void test_a_stall_without_end_ends_when_it_is_removed(void **state)
{
    (void)state;
    static const char *const specs[] = {"stall", "stall:bytes=50"};
    for (int i = 0; i < 2; i++) {
        RIG(g, 1, specs[i]);
        rig_put(&g, NETEM_UP, bytes, 100, 100);
        proxy_conn_put_fin(g.c, NETEM_UP, g.now);
        rig_settle(&g);
        same_out(&g, NETEM_UP, i ? 50 : 0);
        assert_int_equal(g.fin_ns[NETEM_UP], 0);
        assert_int_equal(proxy_rules_remove(&g.rules, 1, NULL), 0);
        rig_settle(&g);
        same_out(&g, NETEM_UP, 100);
        assert_true(g.fin_ns[NETEM_UP] != 0);
        rig_end(&g);
    }
}

static void test_backpressure_holds_the_sender_back(void **state)
{
    (void)state;
    RIG(g, 1, "stall");
    size_t taken = 0;
    for (size_t room; (room = proxy_conn_room(g.c, NETEM_UP)); taken += room)
        proxy_conn_put(g.c, NETEM_UP, g.now, bytes, room);
    assert_int_equal(taken, 1 << 20);
    assert_int_equal(proxy_conn_room(g.c, NETEM_UP), 0);
    assert_true(proxy_conn_room(g.c, NETEM_DOWN) > 0);
    rig_end(&g);
}

static unsigned reset_connections(uint64_t seed, uint8_t *which)
{
    unsigned n = 0;
    struct rig g;
    rig_rules(&g, seed, (const char *const[]){"reset:share=20%", NULL});
    for (uint64_t i = 0; i < 10000; i++) {
        rig_connect(&g, i + 1);
        rig_flush(&g);
        which[i] = g.end == PROXY_ENDS_RESET;
        n += which[i];
    }
    rig_end(&g);
    return n;
}

static void test_a_share_of_the_connections_by_the_seed(void **state)
{
    (void)state;
    static uint8_t a[10000], b[10000], c[10000];
    assert_in_range(reset_connections(1, a), 1850, 2150);
    assert_true(reset_connections(1, b) && !memcmp(a, b, sizeof a));
    assert_true(reset_connections(2, c) && memcmp(a, c, sizeof a));
}

static void test_one_connection_by_number(void **state)
{
    (void)state;
    struct rig g;
    rig_rules(&g, 1, (const char *const[]){"reset:conn=3", NULL});
    for (uint64_t i = 1; i < 6; i++) {
        rig_connect(&g, i);
        rig_flush(&g);
        assert_int_equal(g.end, i == 3 ? PROXY_ENDS_RESET : PROXY_GOES_ON);
    }
    rig_end(&g);
}

static void test_reset_comes_on_time_or_behind_its_bytes(void **state)
{
    (void)state;
    RIG(g, 1, "reset:after=3s");
    uint64_t began = g.now;
    rig_until(&g, began + 3 * NS_PER_S - 1);
    assert_int_equal(g.end, PROXY_GOES_ON);
    rig_until(&g, began + 3 * NS_PER_S);
    assert_int_equal(g.end, PROXY_ENDS_RESET);
    rig_end(&g);
    RIG(h, 1, "reset:bytes=100,dir=down", "latency:delay=10ms");
    rig_put(&h, NETEM_DOWN, bytes, 1000, 30);
    assert_int_equal(h.end, PROXY_GOES_ON); /* what was before it is still under way */
    rig_settle(&h);
    same_out(&h, NETEM_DOWN, 100);
    assert_int_equal(h.end, PROXY_ENDS_RESET);
    rig_end(&h);
}

static void test_half_open_is_silent_and_then_reset(void **state)
{
    (void)state;
    RIG(g, 1, "half-open:after=1s,for=5s,side=server");
    uint64_t began = g.now;
    rig_until(&g, began + 1 * NS_PER_S);
    assert_int_equal(g.end, PROXY_ENDS_SILENT);
    assert_int_equal(proxy_conn_silent(g.c), PROXY_SIDE_SERVER);
    assert_int_equal(proxy_conn_wake(g.c, g.now), began + 6 * NS_PER_S);
    g.now = began + 6 * NS_PER_S;
    rig_flush(&g);
    assert_int_equal(g.end, PROXY_ENDS_RESET);
    rig_end(&g);
}

static void test_a_blackhole_takes_bytes_and_the_end(void **state)
{
    (void)state;
    RIG(g, 1, "blackhole:dir=up");
    rig_put(&g, NETEM_UP, bytes, 1 << 20, 65536);
    rig_put(&g, NETEM_UP, bytes, 1 << 20, 65536); /* never full */
    rig_put(&g, NETEM_DOWN, bytes, 1000, 100);
    proxy_conn_put_fin(g.c, NETEM_UP, g.now);
    rig_settle(&g);
    assert_int_equal(g.out[NETEM_UP].len, 0);
    assert_int_equal(g.fin_ns[NETEM_UP], 0);
    same_out(&g, NETEM_DOWN, 1000);
    rig_end(&g);
    RIG(h, 1, "blackhole:bytes=100,for=1s,dir=up");
    rig_put(&h, NETEM_UP, bytes, 300, 70);
    rig_until(&h, h.now + NS_PER_S);
    rig_put(&h, NETEM_UP, bytes, 50, 50);
    rig_settle(&h);
    assert_int_equal(h.out[NETEM_UP].len, 150);
    assert_memory_equal(h.out[NETEM_UP].data, bytes, 100);
    assert_memory_equal(h.out[NETEM_UP].data + 100, bytes, 50);
    rig_end(&h);
}

static void test_slow_close(void **state)
{
    (void)state;
    RIG(g, 1, "slow-close:delay=2s,dir=down");
    uint64_t began = g.now;
    rig_put(&g, NETEM_DOWN, bytes, 10, 10);
    proxy_conn_put_fin(g.c, NETEM_DOWN, g.now);
    proxy_conn_put_fin(g.c, NETEM_UP, g.now);
    rig_settle(&g);
    assert_int_equal(g.fin_ns[NETEM_UP], began);
    assert_int_equal(g.last_ns[NETEM_DOWN], began);
    assert_int_equal(g.fin_ns[NETEM_DOWN], began + 2 * NS_PER_S);
    rig_end(&g);
}

static void test_slices_are_small_and_apart(void **state)
{
    (void)state;
    RIG(g, 1, "slicer:size=100,vary=50,delay=1ms,dir=up");
    uint64_t began = g.now;
    rig_put(&g, NETEM_UP, bytes, 10000, 10000);
    rig_settle(&g);
    same_out(&g, NETEM_UP, 10000);
    assert_true(g.largest[NETEM_UP] <= 150 && g.largest[NETEM_UP] > 100);
    assert_in_range(g.writes[NETEM_UP], 85, 120);
    assert_int_equal(g.last_ns[NETEM_UP] - began, (g.writes[NETEM_UP] - 1) * MS);
    rig_end(&g);
}

static void test_limit_ends_behind_exactly_so_many_bytes(void **state)
{
    (void)state;
    static const size_t steps[] = {1, 99, 100, 101, 5000};
    for (int i = 0; i < 5; i++) {
        RIG(g, 1, "limit:bytes=100,dir=down");
        rig_put(&g, NETEM_UP, bytes, 1000, steps[i]);
        assert_int_equal(g.end, PROXY_GOES_ON);
        rig_put(&g, NETEM_DOWN, bytes, 1000, steps[i]);
        rig_settle(&g);
        same_out(&g, NETEM_DOWN, 100);
        assert_int_equal(g.end, PROXY_ENDS_CLOSE);
        rig_end(&g);
    }
}

static void test_a_peers_reset_comes_behind_its_bytes(void **state)
{
    (void)state;
    RIG(g, 1, "latency:delay=40ms");
    rig_put(&g, NETEM_DOWN, bytes, 1000, 1000);
    proxy_conn_put_reset(g.c, NETEM_DOWN, g.now);
    rig_flush(&g);
    assert_int_equal(g.end, PROXY_GOES_ON);
    rig_settle(&g);
    same_out(&g, NETEM_DOWN, 1000);
    assert_int_equal(g.end, PROXY_ENDS_RESET);
    rig_end(&g);
}

static void test_toxics_come_and_go_while_it_runs(void **state)
{
    (void)state;
    RIG(g, 1, NULL);
    g.now += 100 * NS_PER_S;
    assert_int_equal(proxy_rules_add(&g.rules, "latency:delay=10ms,after=1s", g.now, NULL), 0);
    rig_flush(&g);
    assert_true(proxy_conn_idle(g.c, NETEM_UP, g.now));
    assert_int_equal(proxy_conn_wake(g.c, g.now), g.now + NS_PER_S); /* counted from when it was added */
    rig_until(&g, g.now + NS_PER_S);
    uint64_t began = g.now;
    rig_put(&g, NETEM_UP, bytes, 10, 10);
    rig_settle(&g);
    assert_int_equal(g.last_ns[NETEM_UP] - began, 10 * MS);
    assert_int_equal(proxy_rules_remove(&g.rules, 1, NULL), 0);
    rig_flush(&g);
    assert_true(proxy_conn_idle(g.c, NETEM_UP, g.now));
    assert_int_equal(proxy_rules_remove(&g.rules, 1, NULL), ERR_NOTFOUND);
    /* the slot is used again, the number is not */
    assert_int_equal(proxy_rules_add(&g.rules, "limit:bytes=5,dir=up", g.now, NULL), 0);
    assert_int_equal(g.rules.last_number, 2);
    rig_flush(&g);
    rig_put(&g, NETEM_UP, bytes, 10, 10);
    rig_settle(&g);
    assert_int_equal(g.out[NETEM_UP].len, 15);
    assert_int_equal(g.end, PROXY_ENDS_CLOSE);
    rig_end(&g);
}

/* Delay and rate as the link model has them; where it would lose packets, the stream waits. */
static void test_a_profile_delays_and_its_blackouts_stall(void **state)
{
    (void)state;
    RIG(g, 5, "profile=rate=8mbit,delay=20ms,loss=50%,blackout_every=2s,blackout_for=500ms");
    uint64_t began = g.now;
    rig_put(&g, NETEM_UP, bytes, 1000, 1000);
    rig_settle(&g);
    assert_in_range(g.first_ns[NETEM_UP] - began, 20 * MS, 600 * MS);
    uint64_t longest = 0, last = g.now;
    for (int i = 1; i < 400; i++) {
        rig_put(&g, NETEM_UP, bytes + i * 1000, 1000, 1000);
        uint64_t until = g.now + 50 * MS;
        rig_until(&g, until);
        longest = g.last_ns[NETEM_UP] > last && g.last_ns[NETEM_UP] - last > longest
                      ? g.last_ns[NETEM_UP] - last
                      : longest;
        last = g.last_ns[NETEM_UP];
    }
    rig_settle(&g);
    same_out(&g, NETEM_UP, 400000); /* half of the packets lost, all of the bytes there */
    assert_in_range(longest, 400 * MS, 700 * MS);
    rig_end(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_toxics_it_is_idle_and_passes_all),
        cmocka_unit_test(test_latency_is_exact_and_adds_up),
        cmocka_unit_test(test_jitter_is_even_and_drawn_by_the_seed),
        cmocka_unit_test(test_jitter_keeps_the_order),
        cmocka_unit_test(test_bandwidth_holds_and_the_smallest_counts),
        cmocka_unit_test(test_bandwidth_survives_late_wake_ups),
        cmocka_unit_test(test_windows_of_time),
        cmocka_unit_test(test_a_stall_without_end_ends_when_it_is_removed),
        cmocka_unit_test(test_backpressure_holds_the_sender_back),
        cmocka_unit_test(test_a_share_of_the_connections_by_the_seed),
        cmocka_unit_test(test_one_connection_by_number),
        cmocka_unit_test(test_reset_comes_on_time_or_behind_its_bytes),
        cmocka_unit_test(test_half_open_is_silent_and_then_reset),
        cmocka_unit_test(test_a_blackhole_takes_bytes_and_the_end),
        cmocka_unit_test(test_slow_close),
        cmocka_unit_test(test_slices_are_small_and_apart),
        cmocka_unit_test(test_limit_ends_behind_exactly_so_many_bytes),
        cmocka_unit_test(test_a_peers_reset_comes_behind_its_bytes),
        cmocka_unit_test(test_toxics_come_and_go_while_it_runs),
        cmocka_unit_test(test_a_profile_delays_and_its_blackouts_stall),
    };
    fill();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
