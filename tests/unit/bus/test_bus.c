/* The bus in memory, calls and peers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "bus/calls.h"
#include "bus/mem.h"
#include "bus/peers.h"
#include "util/rng.h"

struct heard {
    uint32_t n;
    uint32_t said[1000];
};

static void hear(void *arg, const char *p, size_t n)
{
    struct heard *h = arg;
    assert_int_equal(n, 4);
    memcpy(&h->said[h->n++], p, 4);
}

static struct bus_mem *mem(uint64_t drop, struct heard h[3], struct bus *b[3])
{
    struct bus_mem *m;
    struct bus_mem_config c = {.nodes = 3, .seed = 5, .delay_ns = NS_PER_MS, .drop_share = drop};
    assert_int_equal(bus_mem_new(&m, &c, NULL), 0);
    for (uint16_t i = 0; i < 3; i++)
        b[i] = bus_mem_open(m, i, &(struct bus_sink){hear, &h[i]});
    return m;
}

static void test_order_is_kept_between_two_nodes(void **state)
{
    (void)state;
    struct heard h[3] = {0};
    struct bus *b[3];
    struct bus_mem *m = mem(0, h, b);
    for (uint32_t i = 0; i < 500; i++) {
        bus_mem_now(m, i * 10000);
        assert_int_equal(bus_send(b[0], BUS_ALL, (char *)&i, 4), 0);
    }
    while (bus_mem_next(m) != UINT64_MAX)
        bus_mem_deliver(m, bus_mem_next(m));
    assert_int_equal(h[0].n, 0);
    assert_int_equal(h[1].n, 500);
    for (uint32_t i = 0; i < 500; i++)
        assert_true(h[1].said[i] == i && h[2].said[i] == i);
    bus_mem_free(m);
}

static void test_it_loses_by_seed_and_cuts_by_order(void **state)
{
    (void)state;
    struct heard h[3] = {0}, again[3] = {0};
    struct bus *b[3];
    for (int round = 0; round < 2; round++) {
        struct bus_mem *m = mem(RNG_SHARE(100000), round ? again : h, b);
        for (uint32_t i = 0; i < 1000; i++)
            bus_send(b[0], 1, (char *)&i, 4);
        bus_mem_deliver(m, UINT64_MAX - 1);
        bus_mem_cut(m, 1, BUS_ALL, true);
        uint32_t x = 1;
        bus_send(b[0], 1, (char *)&x, 4);
        bus_send(b[1], 2, (char *)&x, 4);
        bus_mem_deliver(m, UINT64_MAX - 1);
        bus_mem_free(m);
    }
    assert_in_range(h[1].n, 850, 950);
    assert_int_equal(h[2].n, 0);
    assert_memory_equal(h, again, sizeof h);
}

static void test_what_is_on_its_way_to_a_crashed_node_is_gone(void **state)
{
    (void)state;
    struct heard h[3] = {0};
    struct bus *b[3];
    struct bus_mem *m = mem(0, h, b);
    uint32_t x = 1;
    bus_send(b[0], 1, (char *)&x, 4);
    bus_close(b[1]);
    bus_send(b[0], 1, (char *)&x, 4);
    b[1] = bus_mem_open(m, 1, &(struct bus_sink){hear, &h[1]});
    bus_mem_deliver(m, NS_PER_S);
    assert_int_equal(h[1].n, 0);
    bus_mem_hold(m, 1, true); /* stopped: it gets everything later */
    bus_send(b[0], 1, (char *)&x, 4);
    bus_mem_deliver(m, 2 * NS_PER_S);
    assert_int_equal(h[1].n, 0);
    bus_mem_hold(m, 1, false);
    bus_mem_deliver(m, 2 * NS_PER_S);
    assert_int_equal(h[1].n, 1);
    bus_mem_free(m);
}

static void no_forget(void *arg, struct bus_call *call)
{
    ++*(int *)arg;
    (void)call;
}

static void test_a_call_is_said_again_until_its_reply_or_deadline(void **state)
{
    (void)state;
    struct bus_calls c;
    bus_calls_init(&c, 1);
    bool over;
    struct bus_call *a = bus_call_new(&c, 1, 7, "abc", 3, 0, NS_PER_S);
    struct bus_call *b = bus_call_new(&c, 2, 7, "", 0, 0, 10 * NS_PER_S);
    assert_null(bus_call_due(&c, BUS_AGAIN_NS - 1, &over));
    assert_ptr_equal(bus_call_due(&c, BUS_AGAIN_NS, &over), a);
    assert_false(over);
    assert_int_equal(a->attempt, 1);
    assert_ptr_equal(bus_call_due(&c, BUS_AGAIN_NS, &over), b);
    assert_null(bus_call_due(&c, BUS_AGAIN_NS, &over));
    uint64_t id = b->id;
    assert_ptr_equal(bus_call_take(&c, id), b);
    free(b);
    assert_null(bus_call_take(&c, id)); /* a second reply */
    assert_ptr_equal(bus_call_due(&c, NS_PER_S, &over), a);
    assert_true(over);
    free(a);
    assert_null(bus_call_due(&c, 100 * NS_PER_S, &over));
    bus_call_new(&c, 3, 7, "", 0, 0, NS_PER_S);
    int forgotten = 0;
    bus_calls_release(&c, no_forget, &forgotten);
    assert_int_equal(forgotten, 1);
}

static void test_calls_have_a_limit(void **state)
{
    (void)state;
    struct bus_calls c;
    bus_calls_init(&c, 1);
    for (unsigned i = 0; i < BUS_CALLS_MAX; i++)
        assert_non_null(bus_call_new(&c, 1, 7, "", 0, 0, NS_PER_S));
    assert_null(bus_call_new(&c, 1, 7, "", 0, 0, NS_PER_S));
    struct bus_call *any = bus_call_to(&c, 1);
    assert_non_null(any);
    free(any);
    assert_null(bus_call_to(&c, 2));
    int forgotten = 0;
    bus_calls_release(&c, no_forget, &forgotten);
    assert_int_equal(forgotten, BUS_CALLS_MAX - 1);
}

static void test_a_peer_is_down_when_silent_and_new_when_it_started_again(void **state)
{
    (void)state;
    struct bus_peer p = {0};
    assert_false(bus_peer_silent(&p, 100 * NS_PER_S));
    assert_int_equal(bus_peer_heard(&p, 5, NS_PER_S), BUS_HEARD_NEW);
    assert_int_equal(bus_peer_heard(&p, 5, 2 * NS_PER_S), BUS_HEARD_AGAIN);
    assert_false(bus_peer_silent(&p, 2 * NS_PER_S + BUS_SILENT_NS - 1));
    assert_true(bus_peer_silent(&p, 2 * NS_PER_S + BUS_SILENT_NS));
    assert_false(bus_peer_silent(&p, 9 * NS_PER_S));
    assert_int_equal(bus_peer_heard(&p, 5, 9 * NS_PER_S), BUS_HEARD_UP);
    assert_int_equal(bus_peer_heard(&p, 6, 9 * NS_PER_S), BUS_HEARD_NEW);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_is_kept_between_two_nodes),
        cmocka_unit_test(test_it_loses_by_seed_and_cuts_by_order),
        cmocka_unit_test(test_what_is_on_its_way_to_a_crashed_node_is_gone),
        cmocka_unit_test(test_a_call_is_said_again_until_its_reply_or_deadline),
        cmocka_unit_test(test_calls_have_a_limit),
        cmocka_unit_test(test_a_peer_is_down_when_silent_and_new_when_it_started_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
