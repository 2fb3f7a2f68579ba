/* Sleep, cells, blackouts by the clock, new addresses, and changes of profile. */
#include "tests/unit/netem/link_try.h"

#include <math.h>

static uint64_t wait_of(struct link *l, enum netem_dir dir, uint64_t now)
{
    struct link_verdict v = link_offer(l, dir, now, 100);
    assert_int_equal(v.reason, REASON_NONE);
    return v.deliver_ns - now;
}

static void test_a_dozing_phone_hears_at_its_next_cycle_and_speaks_at_once(void **state)
{
    (void)state;
    struct netem_profile p = profile("drx_after=100ms,drx_short=20ms,drx_short_for=60ms,drx_long=40ms");
    struct link l;
    link_init(&l, &p, 1, 1, 0);
    assert_int_equal(wait_of(&l, NETEM_DOWN, S), 0);
    assert_int_equal(wait_of(&l, NETEM_DOWN, S + 90 * MS), 0); /* not dozing yet */
    /* last heard at 1.090: dozes from 1.190, listens at 1.210, 1.230, 1.250, then 1.290, 1.330 */
    struct link at = l;
    assert_int_equal(wait_of(&at, NETEM_DOWN, S + 195 * MS), 15 * MS);
    at = l;
    assert_int_equal(wait_of(&at, NETEM_DOWN, S + 230 * MS), 0);
    at = l;
    assert_int_equal(wait_of(&at, NETEM_DOWN, S + 260 * MS), 30 * MS);
    at = l;
    assert_int_equal(wait_of(&at, NETEM_DOWN, S + 300 * MS), 30 * MS);
    assert_int_equal(wait_of(&l, NETEM_UP, S + 300 * MS), 0);
    assert_int_equal(wait_of(&l, NETEM_DOWN, S + 310 * MS), 0); /* what it said woke it */
}

static void test_what_follows_into_a_doze_waits_with_the_first_but_not_what_the_phone_sends(void **state)
{
    (void)state;
    struct netem_profile p = profile("rate=8mbit,queue=2kB,drx_after=100ms,drx_long=320ms");
    struct link l;
    link_init(&l, &p, 1, 1, 0);
    wait_of(&l, NETEM_DOWN, S);
    struct link_verdict first = link_offer(&l, NETEM_DOWN, S + 150 * MS, 1000);
    struct link_verdict second = link_offer(&l, NETEM_DOWN, S + 160 * MS, 1000);
    assert_int_equal(first.reason, REASON_NONE);
    assert_int_equal(first.deliver_ns, S + 421 * MS); /* 1 s + 100 ms + 320 ms, and 1 ms on the air */
    assert_int_equal(second.deliver_ns, S + 422 * MS);
    assert_int_equal(wait_of(&l, NETEM_UP, S + 170 * MS), 100000);
    assert_int_equal(link_offer(&l, NETEM_DOWN, S + 180 * MS, 1000).reason, REASON_QUEUE_FULL);
}

static void test_fach_and_idle_cost_their_promotions(void **state)
{
    (void)state;
    struct netem_profile p = profile("rrc_fach=5s,rrc_fach_promotion=1.5s,rrc_idle=17s,rrc_promotion=2s");
    struct link l;
    link_init(&l, &p, 1, 1, 0);
    assert_int_equal(wait_of(&l, NETEM_UP, 10 * S), 2 * S); /* it was idle */
    assert_int_equal(wait_of(&l, NETEM_DOWN, 11 * S), S);   /* waits with it */
    assert_int_equal(wait_of(&l, NETEM_UP, 16 * S), 0);
    assert_int_equal(wait_of(&l, NETEM_UP, 22 * S), 1500 * MS); /* FACH since 21 s */
    assert_int_equal(wait_of(&l, NETEM_DOWN, 41 * S), 2 * S);   /* idle since 40.5 s */
}

static void test_an_idle_phone_is_paged_at_its_cycle(void **state)
{
    (void)state;
    struct netem_profile p = profile("rrc_idle=10s,rrc_promotion=260ms,paging=1.28s");
    struct link l;
    double sum = 0;
    link_init(&l, &p, 1, 1, 0);
    for (uint64_t i = 1; i <= 2000; i++) {
        uint64_t wait = wait_of(&l, NETEM_DOWN, i * 20 * S + i * 7777777);
        assert_true(wait >= 260 * MS && wait < 1540 * MS);
        sum += (double)wait / 1e6;
    }
    assert_true(fabs(sum / 2000 - 900) < 30);
    assert_int_equal(wait_of(&l, NETEM_UP, 100000 * S), 260 * MS); /* who speaks first is not paged */
}

static void test_handed_from_cell_to_cell_packets_wait_and_none_is_lost(void **state)
{
    (void)state;
    struct netem_profile p = profile("cell_every=2s,cell_for=37ms,stall_every=3s,stall_for=20ms");
    struct link l;
    uint64_t longest = 0, held = 0;
    link_init(&l, &p, 2, 1, 0);
    for (uint64_t t = 0; t < 4000 * S; t += 5 * MS) {
        enum link_state is = link_state(&l, t);
        uint64_t wait = wait_of(&l, NETEM_DOWN, t);
        assert_true((is == LINK_UP) == (wait == 0));
        held += is == LINK_CELL;
        longest = wait > longest ? wait : longest;
    }
    assert_true(longest > 32 * MS && longest < 95 * MS); /* stalls may meet them */
    assert_true(fabs((double)held - 800000 * 37 / 2037.0) < 1500);
}

static void test_a_list_of_blackouts_is_kept_to_the_millisecond(void **state)
{
    (void)state;
    struct netem_profile p = profile("blackout_at=2s+500ms/10s+1s/11.5s+1ms");
    struct link l;
    link_init(&l, &p, 1, 1, 100 * S);
    for (uint64_t ms = 0; ms < 20000; ms++) {
        bool dark = (ms >= 2000 && ms < 2500) || (ms >= 10000 && ms < 11000) || ms == 11500;
        enum reason why = link_offer(&l, NETEM_UP, 100 * S + ms * MS, 100).reason;
        assert_int_equal(why, dark ? REASON_BLACKOUT : REASON_NONE);
        assert_int_equal(link_state(&l, 100 * S + ms * MS), dark ? LINK_BLACKOUT : LINK_UP);
    }
    assert_true(link_state_until(&l, 200 * S) == UINT64_MAX);
}

static void test_periodic_blackouts_keep_their_period(void **state)
{
    (void)state;
    struct netem_profile p = profile("blackout_period=30s,blackout_for=1s..3s");
    struct link l;
    link_init(&l, &p, 1, 1, S);
    uint64_t t = S, shortest = UINT64_MAX, longest = 0;
    for (uint64_t i = 1; i <= 500; i++) {
        uint64_t start = link_state_until(&l, t);
        assert_int_equal(start, S + i * 30 * S);
        uint64_t end = link_state_until(&l, start);
        shortest = end - start < shortest ? end - start : shortest;
        longest = end - start > longest ? end - start : longest;
        t = end;
    }
    assert_true(shortest >= S && shortest < S + 50 * MS && longest <= 3 * S && longest > 2950 * MS);
}

static void test_the_phone_learns_that_it_has_a_new_address(void **state)
{
    (void)state;
    struct netem_profile p = profile("blackout_period=10s,blackout_for=1s,blackout_loses=100%,nat_idle=1h");
    struct link l;
    struct link_nat nat;
    struct link_flow f = {.phone = 1, .peer = 2, .phone_port = 3, .peer_port = 4, .protocol = 17};
    link_init(&l, &p, 1, 1, 0);
    assert_int_equal(link_nat_init(&nat, 64), 0);
    assert_int_equal(link_nat_pass(&l, &nat, NETEM_UP, S, &f), REASON_NONE);
    uint32_t era = link_address_era(&l, 9 * S);
    assert_int_equal(link_state(&l, 10 * S), LINK_BLACKOUT_LOSES);
    assert_int_equal(link_address_era(&l, 10 * S), era);
    assert_int_equal(link_address_era(&l, 11 * S), era + 1);
    assert_int_equal(link_nat_pass(&l, &nat, NETEM_DOWN, 12 * S, &f), REASON_NAT_EXPIRED);
    assert_int_equal(link_address_era(&l, 41 * S), era + 4);
    link_nat_release(&nat);
}

static void test_another_profile_takes_over_and_what_is_in_flight_keeps_its_order(void **state)
{
    (void)state;
    struct netem_profile slow = profile("delay=100ms,rate=1mbit"), quick = profile("delay=10ms"),
                         dark = profile("blackout_at=1s+1s");
    struct link l;
    link_init(&l, &slow, 1, 1, 0);
    assert_int_equal(link_offer(&l, NETEM_UP, S, 1250).deliver_ns, S + 110 * MS);
    link_change(&l, &quick, S + 20 * MS);
    assert_int_equal(link_offer(&l, NETEM_UP, S + 20 * MS, 1250).deliver_ns,
                     S + 110 * MS); /* not before it */
    assert_int_equal(link_offer(&l, NETEM_UP, S + 200 * MS, 1250).deliver_ns, S + 210 * MS);
    link_blackout(&l, 2 * S, 3 * S);
    link_change(&l, &dark, 2 * S + 500 * MS);
    assert_int_equal(link_state(&l, 2 * S + 600 * MS), LINK_BLACKOUT); /* ordered from outside: it stays */
    assert_int_equal(link_state(&l, 3 * S + 400 * MS), LINK_UP);
    assert_int_equal(link_state(&l, 3 * S + 500 * MS), LINK_BLACKOUT); /* the list counts from the change */
}

static void test_a_change_keeps_the_weather_that_it_does_not_name(void **state)
{
    (void)state;
    struct netem_profile base = profile("blackout_every=20s,blackout_for=2s,stall_every=5s,stall_for=300ms"),
                         lossy = profile(
                             "blackout_every=20s,blackout_for=2s,stall_every=5s,stall_for=300ms,loss=5%"),
                         calm = profile("blackout_every=20s,blackout_for=2s,loss=5%");
    struct link a, b;
    link_init(&a, &base, 1, 1, 0);
    link_init(&b, &base, 1, 1, 0);
    for (uint64_t t = 0; t < 2000 * S; t += 10 * MS) {
        if (t % (7 * S) == 0) /* more often than blackouts come */
            link_change(&b, t / (7 * S) % 2 ? &lossy : &base, t);
        assert_int_equal(link_state(&a, t), link_state(&b, t));
    }
    link_change(&b, &calm, 2000 * S);
    for (uint64_t t = 2000 * S; t < 2500 * S; t += 10 * MS) {
        enum link_state is = link_state(&a, t);
        assert_int_equal(is == LINK_BLACKOUT ? is : LINK_UP, link_state(&b, t));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_dozing_phone_hears_at_its_next_cycle_and_speaks_at_once),
        cmocka_unit_test(test_what_follows_into_a_doze_waits_with_the_first_but_not_what_the_phone_sends),
        cmocka_unit_test(test_fach_and_idle_cost_their_promotions),
        cmocka_unit_test(test_an_idle_phone_is_paged_at_its_cycle),
        cmocka_unit_test(test_handed_from_cell_to_cell_packets_wait_and_none_is_lost),
        cmocka_unit_test(test_a_list_of_blackouts_is_kept_to_the_millisecond),
        cmocka_unit_test(test_periodic_blackouts_keep_their_period),
        cmocka_unit_test(test_the_phone_learns_that_it_has_a_new_address),
        cmocka_unit_test(test_a_change_keeps_the_weather_that_it_does_not_name),
        cmocka_unit_test(test_another_profile_takes_over_and_what_is_in_flight_keeps_its_order),
    };
    return cmocka_run_group_tests_name("link_radio", tests, NULL, NULL);
}
