/* What the shuttle reads of a packet: never more than is there. And how it keeps packets until their time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "netem/tun/held_impl.h"
#include "netem/tun/packet_impl.h"
#include "trace/trace.h"
#include "util/rng.h"

/* 198.18.0.1:5000 -> 198.19.0.1:80, SYN, seq 0x01020304, 3 bytes of payload */
static const uint8_t syn[] = {0x45, 0,   0,    43,   0, 0,    0x40, 0, 64, 6, 0,   0,   198, 18, 0,
                              1,    198, 19,   0,    1, 0x13, 0x88, 0, 80, 1, 2,   3,   4,   0,  0,
                              0,    0,   0x50, 0x02, 0, 0,    0,    0, 0,  0, 'a', 'b', 'c'};

static void test_tcp_is_read_to_its_payload(void **state)
{
    (void)state;
    struct packet p;
    assert_true(packet_parse(&p, syn, sizeof syn));
    assert_int_equal(p.src, 0xC6120001u);
    assert_int_equal(p.dst, 0xC6130001u);
    assert_int_equal(p.sport, 5000);
    assert_int_equal(p.dport, 80);
    assert_int_equal(p.tcp_seq, 0x01020304);
    assert_int_equal(p.payload, 3);
    assert_int_equal(p.payload_at, 40);
    assert_int_equal(p.flags, TRACE_FLAG_SYN);
    assert_false(p.ack);
}

static void test_a_later_fragment_has_no_ports(void **state)
{
    (void)state;
    uint8_t copy[sizeof syn];
    struct packet p;
    memcpy(copy, syn, sizeof syn);
    copy[7] = 1;
    assert_true(packet_parse(&p, copy, sizeof copy));
    assert_true(p.later_fragment);
    assert_int_equal(p.sport | p.dport | p.payload | p.flags, 0);
}

static void test_truncated_and_foreign_packets_are_refused(void **state)
{
    (void)state;
    uint8_t copy[sizeof syn];
    struct packet p;
    for (uint32_t n = 0; n < sizeof syn; n++)
        assert_false(packet_parse(&p, syn, n)); /* its length field says more */
    memcpy(copy, syn, sizeof syn);
    copy[0] = 0x65;
    assert_false(packet_parse(&p, copy, sizeof copy)); /* IPv6 */
    copy[0] = 0x44;
    assert_false(packet_parse(&p, copy, sizeof copy)); /* a header of 16 bytes */
    memcpy(copy, syn, sizeof syn);
    copy[32] = 0xF0; /* a TCP header longer than the packet: no ports, no payload */
    assert_true(packet_parse(&p, copy, sizeof copy));
    assert_int_equal(p.sport | p.payload, 0);
}

/* Random bytes in a buffer of exactly their size: a sanitizer sees each byte read beyond it. */
static void test_noise_never_claims_more_than_it_has(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 3);
    for (int i = 0; i < 200000; i++) {
        uint32_t n = (uint32_t)rng_below(&r, 80);
        uint8_t *at = malloc(n ? n : 1);
        struct packet p;
        for (uint32_t k = 0; k < n; k++)
            at[k] = (uint8_t)rng_u64(&r);
        if (n >= 20) {
            static const uint8_t protocols[] = {1, 6, 17, 47};
            at[0] = (uint8_t)(0x45 + rng_below(&r, 3));
            at[2] = 0;
            at[3] = (uint8_t)n;
            at[6] = at[7] = 0;
            at[9] = protocols[rng_below(&r, 4)];
        }
        if (packet_parse(&p, at, n))
            assert_true((uint32_t)p.payload_at + p.payload <= n);
        free(at);
    }
}

static void test_held_packets_come_out_by_time_then_by_arrival(void **state)
{
    (void)state;
    struct heap h;
    struct rng r;
    uint64_t at[4096], last_ns = 0;
    uint32_t last = 0;
    rng_seed(&r, 1);
    assert_int_equal(heap_init(&h, 4096), 0);
    h.order = UINT32_MAX - 100; /* the order wraps */
    for (uint32_t i = 0; i < 4096; i++) {
        at[i] = rng_below(&r, 64);
        assert_true(heap_push(&h, at[i], i));
    }
    assert_false(heap_push(&h, 0, 0)); /* full */
    for (uint32_t i = 0; i < 4096; i++) {
        uint64_t first_ns = heap_first_ns(&h);
        uint32_t index = heap_pop(&h);
        assert_int_equal(at[index], first_ns);
        assert_true(first_ns > last_ns || !i || (first_ns == last_ns && index > last));
        last_ns = first_ns;
        last = index;
    }
    assert_true(heap_first_ns(&h) == UINT64_MAX);
}

static void test_the_pool_ends_where_it_says(void **state)
{
    (void)state;
    struct pool p;
    assert_int_equal(pool_init(&p), 0);
    for (uint32_t i = 0; i < HELD_MAX; i++)
        assert_true(pool_take(&p) >= 0);
    assert_true(pool_take(&p) < 0);
    pool_give(&p, 7);
    assert_int_equal(pool_take(&p), 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tcp_is_read_to_its_payload),
        cmocka_unit_test(test_a_later_fragment_has_no_ports),
        cmocka_unit_test(test_truncated_and_foreign_packets_are_refused),
        cmocka_unit_test(test_noise_never_claims_more_than_it_has),
        cmocka_unit_test(test_held_packets_come_out_by_time_then_by_arrival),
        cmocka_unit_test(test_the_pool_ends_where_it_says),
    };
    return cmocka_run_group_tests_name("packet", tests, NULL, NULL);
}
