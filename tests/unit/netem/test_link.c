/* The link model in virtual time: what was asked for is what happens, and the same seed is the same weather.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <malloc.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "netem/link.h"
#include "util/map.h"

#define MS           1000000ull
#define S            1000000000ull
#define GOLDEN_FATES 0xe5043f8fb23e4f08ull

static struct netem_profile profile(const char *text)
{
    struct netem_profile p;
    struct err_ctx err = {0};
    int rc = netem_profile_parse(&p, text, &err);
    if (rc)
        print_error("%s\n", err.text);
    assert_int_equal(rc, 0);
    return p;
}

struct outcome {
    uint64_t offered, lost[REASON_COUNT], delivered, bursts, bytes;
    uint64_t delay_min, delay_max, delay_sum, last_ns, fates;
};

/* `n` packets of `bytes`, one each `gap` ns. */
static struct outcome run(struct link *l, uint64_t n, uint32_t bytes, uint64_t gap, uint64_t start)
{
    struct outcome o = {.offered = n, .delay_min = UINT64_MAX};
    bool in_burst = false;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t now = start + i * gap;
        struct link_verdict v = link_offer(l, NETEM_UP, now, bytes);
        uint64_t fate[2] = {v.reason, v.reason ? 0 : v.deliver_ns};
        o.fates = hash_bytes(fate, sizeof fate, o.fates);
        o.bursts += v.reason == REASON_LOSS && !in_burst;
        in_burst = v.reason == REASON_LOSS;
        if (v.reason) {
            o.lost[v.reason]++;
            continue;
        }
        uint64_t delay = v.deliver_ns - now;
        assert_true(v.deliver_ns >= o.last_ns); /* one radio bearer never reorders */
        o.last_ns = v.deliver_ns;
        o.delivered++;
        o.bytes += bytes;
        o.delay_sum += delay;
        o.delay_min = delay < o.delay_min ? delay : o.delay_min;
        o.delay_max = delay > o.delay_max ? delay : o.delay_max;
    }
    return o;
}

static void test_loss_and_burst_are_what_was_asked(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double loss, burst;
    } cases[] = {{"loss=5%,burst=3", 0.05, 3}, {"loss=2%,burst=4", 0.02, 4}, {"loss=1%", 0.01, 1.0 / 0.99}};
    for (size_t i = 0; i < 3; i++) {
        struct netem_profile p = profile(cases[i].text);
        struct link l;
        link_init(&l, &p, 42 + i, 1, 0);
        uint64_t n = 400000;
        struct outcome o = run(&l, n, 100, MS, S);
        double loss = (double)o.lost[REASON_LOSS] / (double)n,
               burst = (double)o.lost[REASON_LOSS] / (double)o.bursts;
        /* losses come in bursts: the variance of their sum is about that of independent ones times 2B - 1 */
        double se = sqrt(cases[i].loss * (1 - cases[i].loss) * (2 * cases[i].burst - 1) / (double)n);
        double burst_se = cases[i].burst / sqrt((double)o.bursts);
        assert_true(fabs(loss - cases[i].loss) < 3 * se);
        assert_true(fabs(burst - cases[i].burst) < 3 * burst_se);
    }
}

static void test_delay_and_jitter_stay_within_their_bounds(void **state)
{
    (void)state;
    struct netem_profile p = profile("delay=40ms,jitter=5ms");
    struct link l;
    link_init(&l, &p, 1, 1, 0);
    struct outcome o = run(&l, 100000, 100, 20 * MS, S);
    assert_true(o.delay_min >= 35 * MS && o.delay_max <= 45 * MS);
    assert_true(o.delay_min < 36 * MS && o.delay_max > 44 * MS); /* and use them */
    assert_true(llabs((long long)(o.delay_sum / o.delivered) - 40 * (long long)MS) < (long long)MS / 10);
}

static void test_rate_is_kept_and_the_queue_overflows(void **state)
{
    (void)state;
    struct netem_profile p = profile("rate=8mbit,queue=50kB");
    struct link l;
    link_init(&l, &p, 1, 1, 0);
    uint64_t n = 100000;
    struct outcome o = run(&l, n, 1000, MS / 2, S); /* 16 Mbit/s offered */
    double seconds = (double)(o.last_ns - S) / 1e9;
    double rate = (double)o.bytes * 8 / seconds;
    assert_true(fabs(rate / 8e6 - 1) < 0.01);
    assert_true(o.lost[REASON_QUEUE_FULL] > n / 3);
    assert_true(o.delay_max <= 51 * MS); /* 50 kB at 8 Mbit/s, and the packet itself */
    assert_true(o.delay_max >= 48 * MS);
}

static void test_directions_are_apart(void **state)
{
    (void)state;
    struct netem_profile p = profile("up.loss=100%,down.delay=7ms");
    struct link l;
    link_init(&l, &p, 1, 1, 0);
    assert_int_equal(link_offer(&l, NETEM_UP, S, 100).reason, REASON_LOSS);
    struct link_verdict v = link_offer(&l, NETEM_DOWN, S, 100);
    assert_int_equal(v.reason, REASON_NONE);
    assert_int_equal(v.deliver_ns, S + 7 * MS);
}

static void test_blackouts_come_as_often_and_last_as_long_as_asked(void **state)
{
    (void)state;
    struct netem_profile p = profile("blackout_every=10s,blackout_for=1s");
    struct link l;
    link_init(&l, &p, 3, 1, 0);
    uint64_t n = 2000000; /* 20,000 s, a packet each 10 ms */
    struct outcome o = run(&l, n, 100, 10 * MS, S);
    double share = (double)o.lost[REASON_BLACKOUT] / (double)n, asked = 1.0 / 11.0;
    double windows = (double)n * 0.01 / 11.0;
    assert_true(fabs(share - asked) < 3 * asked / sqrt(windows));
}

static void test_detached_phone_and_forced_blackout_drop_with_their_reasons(void **state)
{
    (void)state;
    struct netem_profile p = profile("delay=10ms");
    struct link l;
    link_init(&l, &p, 1, 1, 0);
    struct link_verdict held = link_offer(&l, NETEM_DOWN, S, 100);
    assert_int_equal(held.reason, REASON_NONE);
    link_blackout(&l, S + MS, S + 100 * MS);
    assert_int_equal(link_offer(&l, NETEM_DOWN, S + 2 * MS, 100).reason, REASON_BLACKOUT);
    assert_int_equal(link_state(&l, S + 2 * MS), LINK_BLACKOUT);
    assert_int_equal(link_offer(&l, NETEM_DOWN, S + 101 * MS, 100).reason, REASON_NONE);
    link_detach(&l, S + 200 * MS);
    assert_int_equal(link_offer(&l, NETEM_UP, S + 201 * MS, 100).reason, REASON_DETACHED);
    assert_int_equal(link_offer(&l, NETEM_DOWN, S + 201 * MS, 100).reason, REASON_DETACHED);
    link_attach(&l, S + 300 * MS);
    assert_int_equal(link_offer(&l, NETEM_UP, S + 301 * MS, 100).reason, REASON_NONE);
}

static void test_what_was_held_when_the_phone_left_is_lost_unless_it_was_on_the_air(void **state)
{
    (void)state;
    struct netem_profile p = profile("rate=8mbit,delay=10ms");
    struct link l;
    link_init(&l, &p, 1, 1, 0);
    struct link_verdict out = link_offer(&l, NETEM_UP, S, 1000), queued = link_offer(&l, NETEM_UP, S, 1000);
    struct link_verdict in = link_offer(&l, NETEM_DOWN, S, 1000);
    assert_int_equal(out.depart_ns, S + MS);
    assert_int_equal(queued.depart_ns, S + 2 * MS);
    link_detach(&l, S + MS + MS / 2);
    assert_int_equal(link_recheck(&l, NETEM_UP, out.depart_ns), REASON_NONE);
    assert_int_equal(link_recheck(&l, NETEM_UP, queued.depart_ns), REASON_DETACHED);
    assert_int_equal(link_recheck(&l, NETEM_DOWN, in.depart_ns), REASON_DETACHED);
    link_attach(&l, S + 3 * MS); /* back before they were due: lost all the same */
    assert_int_equal(link_recheck(&l, NETEM_UP, out.depart_ns), REASON_NONE);
    assert_int_equal(link_recheck(&l, NETEM_UP, queued.depart_ns), REASON_DETACHED);
    assert_int_equal(link_recheck(&l, NETEM_DOWN, in.depart_ns), REASON_DETACHED);
    struct link_verdict fresh = link_offer(&l, NETEM_DOWN, S + 3 * MS, 1000);
    assert_int_equal(fresh.depart_ns, S + 4 * MS);
    assert_int_equal(link_recheck(&l, NETEM_DOWN, fresh.depart_ns), REASON_NONE);
    queued = link_offer(&l, NETEM_UP, S + 5 * MS, 1000);
    link_blackout(&l, S + 5 * MS, S + 9 * MS);
    assert_int_equal(link_recheck(&l, NETEM_UP, queued.depart_ns), REASON_BLACKOUT);
}

static void test_handovers_lose_packets_and_a_share_of_them_the_nat_mappings(void **state)
{
    (void)state;
    struct netem_profile p = profile("handover_every=10s,handover_for=1s..3s,handover_loses=30%,nat_idle=1h");
    struct link l;
    struct link_nat nat;
    link_init(&l, &p, 5, 1, 0);
    assert_int_equal(link_nat_init(&nat, 64), 0);
    struct link_flow f = {.phone = 1, .peer = 2, .phone_port = 3, .peer_port = 4, .protocol = 6, .syn = true};
    assert_int_equal(link_nat_pass(&l, &nat, NETEM_UP, 0, &f), REASON_NONE);
    uint64_t handovers = 0, losing = 0;
    bool lost = false;
    enum link_state was = LINK_UP;
    for (uint64_t t = 0; t < 60000 * S; t += 100 * MS) {
        enum link_state is = link_state(&l, t);
        enum reason why = link_offer(&l, NETEM_DOWN, t, 100).reason;
        assert_int_equal(why, is == LINK_UP ? REASON_NONE : REASON_HANDOVER);
        if (was == LINK_UP && is != LINK_UP) {
            handovers++;
            losing += is == LINK_HANDOVER_LOSES;
        }
        was = is;
        lost |= is == LINK_HANDOVER_LOSES;
        if (is != LINK_UP)
            continue;
        f.syn = false;
        assert_int_equal(link_nat_pass(&l, &nat, NETEM_UP, t, &f), lost ? REASON_NAT_EXPIRED : REASON_NONE);
        f.syn = true;
        assert_int_equal(link_nat_pass(&l, &nat, NETEM_UP, t, &f), REASON_NONE);
        lost = false;
    }
    double n = (double)handovers;
    assert_true(fabs(n - 5000) < 3 * sqrt(5000.0)); /* 60,000 s at one each 12 s */
    assert_true(fabs((double)losing - 0.3 * n) < 3 * sqrt(0.21 * n));
    link_nat_release(&nat);
}

static void test_packets_wait_through_a_stall_and_none_is_lost(void **state)
{
    (void)state;
    struct netem_profile p = profile("rate=8mbit,queue=1MB,stall_every=1s,stall_for=100ms..300ms");
    struct link l;
    link_init(&l, &p, 6, 1, 0);
    uint64_t n = 500000, gap = 10 * MS;
    struct outcome o = run(&l, n, 1000, gap, S);
    assert_int_equal(o.delivered, n);
    assert_true(o.delay_max > 280 * MS);
    assert_int_equal(o.delay_min, MS); /* one packet's time on the air */
    /* stalls take 0.2 of each 1.2 s and hold a packet for half of 0.2 s and the like: E[len^2] / (2 * 1.2 s)
     */
    double mean = (double)(o.delay_sum / n) / 1e6, stall_ms = 43333.0 / 2 / 1200;
    assert_true(fabs(mean - 1 - stall_ms) < 0.15 * stall_ms);
}

static void test_stalled_time_does_not_fill_the_queue(void **state)
{
    (void)state;
    struct netem_profile p = profile("rate=8mbit,queue=20kB,stall_every=1s,stall_for=1s");
    struct link l;
    link_init(&l, &p, 6, 1, 0);
    uint64_t t = 0;
    while (link_state(&l, t) != LINK_STALLED)
        t += MS;
    for (int i = 0; i < 20; i++)
        assert_int_equal(link_offer(&l, NETEM_UP, t, 1000).reason, REASON_NONE);
    assert_int_equal(link_offer(&l, NETEM_UP, t, 1000).reason, REASON_QUEUE_FULL);
}

static void test_an_idle_radio_must_wake_first(void **state)
{
    (void)state;
    struct netem_profile p = profile("delay=10ms,rate=8mbit,queue=20kB,rrc_idle=10s,rrc_promotion=260ms");
    struct link l;
    link_init(&l, &p, 1, 1, 0);
    assert_int_equal(link_offer(&l, NETEM_UP, S, 1000).deliver_ns, S + 271 * MS);
    for (int i = 1; i < 20; i++) /* waking does not fill the queue */
        assert_int_equal(link_offer(&l, NETEM_UP, S, 1000).reason, REASON_NONE);
    assert_int_equal(link_offer(&l, NETEM_UP, 10 * S, 1000).deliver_ns, 10 * S + 11 * MS);
    assert_int_equal(link_offer(&l, NETEM_DOWN, 19 * S, 1000).deliver_ns, 19 * S + 11 * MS);
    assert_int_equal(link_offer(&l, NETEM_DOWN, 30 * S, 1000).deliver_ns, 30 * S + 271 * MS);
}

static void test_state_changes_when_it_was_said_to(void **state)
{
    (void)state;
    struct netem_profile p = profile("lte-lossy");
    struct link l, probe;
    link_init(&l, &p, 8, 1, 0);
    uint64_t t = 0;
    for (int i = 0; i < 2000; i++) {
        enum link_state is = link_state(&l, t);
        uint64_t next = link_state_until(&l, t);
        assert_true(next > t);
        probe = l;
        assert_int_equal(link_state(&probe, next - 1), is);
        t = next;
    }
}

static void test_nat_forgets_silent_flows_and_a_new_syn_begins_again(void **state)
{
    (void)state;
    struct netem_profile p = profile("nat_idle=60s");
    struct link l;
    struct link_nat nat;
    link_init(&l, &p, 1, 1, 0);
    assert_int_equal(link_nat_init(&nat, 64), 0);
    struct link_flow syn = {
        .phone = 1, .peer = 2, .phone_port = 3, .peer_port = 4, .protocol = 6, .syn = true};
    struct link_flow data = syn;
    data.syn = false;
    assert_int_equal(link_nat_pass(&l, &nat, NETEM_DOWN, S, &data),
                     REASON_NAT_EXPIRED); /* nobody asked for it */
    assert_int_equal(link_nat_pass(&l, &nat, NETEM_UP, S, &syn), REASON_NONE);
    assert_int_equal(link_nat_pass(&l, &nat, NETEM_DOWN, S + 59 * S, &data), REASON_NONE); /* refreshes */
    assert_int_equal(link_nat_pass(&l, &nat, NETEM_UP, S + 118 * S, &data), REASON_NONE);
    assert_int_equal(link_nat_pass(&l, &nat, NETEM_DOWN, S + 180 * S, &data), REASON_NAT_EXPIRED);
    assert_int_equal(link_nat_pass(&l, &nat, NETEM_UP, S + 180 * S, &data), REASON_NAT_EXPIRED);
    assert_int_equal(link_nat_pass(&l, &nat, NETEM_UP, S + 181 * S, &syn), REASON_NONE);
    link_nat_release(&nat);
}

static void test_weather_does_not_depend_on_traffic(void **state)
{
    (void)state;
    struct netem_profile p = profile("blackout_every=5s,blackout_for=500ms,loss=3%,burst=2");
    struct link busy, calm;
    link_init(&busy, &p, 9, 4, 0);
    link_init(&calm, &p, 9, 4, 0);
    for (uint64_t t = 0; t < 2000 * S; t += 10 * MS) {
        link_offer(&busy, NETEM_UP, t, 1000);
        assert_int_equal(link_state(&busy, t), link_state(&calm, t));
    }
}

static void test_same_seed_same_fates_on_every_machine(void **state)
{
    (void)state;
    struct netem_profile p = profile("lte-lossy");
    struct link a, b, other;
    link_init(&a, &p, 42, 7, 0);
    link_init(&b, &p, 42, 7, 0);
    link_init(&other, &p, 43, 7, 0);
    struct outcome x = run(&a, 100000, 700, 5 * MS, S), y = run(&b, 100000, 700, 5 * MS, S),
                   z = run(&other, 100000, 700, 5 * MS, S);
    assert_true(x.fates == y.fates);
    assert_true(x.fates != z.fates);
    if (x.fates != GOLDEN_FATES)
        print_error("fates: %#llx\n", (unsigned long long)x.fates);
    /* golden: changes only when the model or a profile does, and then on purpose */
    assert_true(x.fates == GOLDEN_FATES);
}

static void test_bad_descriptions_are_refused_by_their_word(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "rate=10parsec",        "loss=101%",         "los=2%", "delay", "nonsense-profile", "wifi,queue=",
        "up.blackout_every=3s", "blackout_every=1ms"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct netem_profile p;
        struct err_ctx err = {0};
        assert_true(netem_profile_parse(&p, bad[i], &err) < 0);
        assert_true(strlen(err.text) > 5);
    }
    struct netem_profile p = profile("lte-lossy,loss=1%,up.rate=1mbit");
    assert_int_equal(p.dir[NETEM_UP].loss_ppm, 10000);
    assert_int_equal(p.dir[NETEM_UP].rate_bps, 1000000);
    assert_int_equal(p.dir[NETEM_DOWN].rate_bps, 12000000);
}

/* Counted by the allocator itself: every malloc, calloc and realloc moves uordblks or the number of mappings.
 */
static void test_a_packet_costs_no_allocation(void **state)
{
    (void)state;
    struct netem_profile p = profile("lte-lossy");
    struct link l;
    struct link_nat nat;
    link_init(&l, &p, 1, 1, 0);
    assert_int_equal(link_nat_init(&nat, 64), 0);
    struct mallinfo2 before = mallinfo2();
    for (uint64_t i = 0; i < 100000; i++) {
        struct link_flow f = {
            .phone = 1, .peer = 2, .phone_port = (uint16_t)i, .peer_port = 4, .protocol = 17};
        link_nat_pass(&l, &nat, NETEM_UP, i * MS, &f);
        link_offer(&l, i & 1, i * MS, 1000);
    }
    struct mallinfo2 after = mallinfo2();
    assert_true(before.uordblks == after.uordblks && before.hblks == after.hblks &&
                before.arena == after.arena);
    link_nat_release(&nat);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loss_and_burst_are_what_was_asked),
        cmocka_unit_test(test_delay_and_jitter_stay_within_their_bounds),
        cmocka_unit_test(test_rate_is_kept_and_the_queue_overflows),
        cmocka_unit_test(test_directions_are_apart),
        cmocka_unit_test(test_blackouts_come_as_often_and_last_as_long_as_asked),
        cmocka_unit_test(test_detached_phone_and_forced_blackout_drop_with_their_reasons),
        cmocka_unit_test(test_nat_forgets_silent_flows_and_a_new_syn_begins_again),
        cmocka_unit_test(test_weather_does_not_depend_on_traffic),
        cmocka_unit_test(test_same_seed_same_fates_on_every_machine),
        cmocka_unit_test(test_what_was_held_when_the_phone_left_is_lost_unless_it_was_on_the_air),
        cmocka_unit_test(test_handovers_lose_packets_and_a_share_of_them_the_nat_mappings),
        cmocka_unit_test(test_packets_wait_through_a_stall_and_none_is_lost),
        cmocka_unit_test(test_stalled_time_does_not_fill_the_queue),
        cmocka_unit_test(test_an_idle_radio_must_wake_first),
        cmocka_unit_test(test_state_changes_when_it_was_said_to),
        cmocka_unit_test(test_a_packet_costs_no_allocation),
        cmocka_unit_test(test_bad_descriptions_are_refused_by_their_word),
    };
    return cmocka_run_group_tests_name("link", tests, NULL, NULL);
}
