/* What a profile becomes in the kernel, and what is said about the rest. Pure: no kernel is asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "netem/kernel/kernel_impl.h"

static struct kernel_plan plan;
static const struct kernel_device eth = {.name = "eth0", .index = 2, .mtu = 1500, .header = 14};

static void make(const char *description, unsigned lacks)
{
    struct netem_profile p;
    assert_int_equal(netem_profile_parse(&p, description, NULL), 0);
    kernel_plan_make(&plan, &p, description, &eth, false, lacks);
}

static const struct kernel_step *find(enum kernel_op op, const char *dev, uint32_t handle)
{
    for (unsigned i = 0; i < plan.steps; i++)
        if (plan.step[i].op == op && strcmp(plan.step[i].dev, dev) == 0 && plan.step[i].handle == handle)
            return &plan.step[i];
    return NULL;
}

static bool says(char (*list)[160], unsigned n, const char *word)
{
    for (unsigned i = 0; i < n; i++)
        if (strstr(list[i], word))
            return true;
    return false;
}

static void test_the_rate_stands_before_the_loss_both_ways(void **state)
{
    (void)state;
    make("up.rate=1mbit,down.rate=8mbit,delay=40ms,loss=5%,queue=64kB", 0);
    const struct kernel_step *gate = find(KERNEL_NETEM, "netem-u2", KERNEL_GATE);
    const struct kernel_step *queue = find(KERNEL_TBF, "netem-u2", KERNEL_QUEUE);
    const struct kernel_step *air = find(KERNEL_NETEM, "eth0", KERNEL_AIR);
    assert_non_null(gate);
    assert_int_equal(gate->overhead, -14);
    assert_int_equal(queue->tbf.rate, 125000);
    assert_in_range(queue->tbf.limit, 64000 - 800, 64000);
    assert_int_equal(air->netem.delay_ns, 40000000);
    assert_int_equal(air->netem.rate, 125000);
    assert_int_equal(air->netem.overhead, -14);
    const struct kernel_step *last = &plan.step[plan.steps - 1];
    assert_int_equal(last->op, KERNEL_REDIRECT);
    assert_true(last->redirect.ingress);
    assert_int_equal(last->redirect.police_rate, 1000000);
    assert_int_equal(last->redirect.police_burst, 64000);
    assert_int_equal(find(KERNEL_NETEM, "netem-d2", KERNEL_AIR)->netem.rate, 1000000);
    assert_int_equal(plan.refused_n, 0);
}

static void test_swap_turns_the_directions(void **state)
{
    struct netem_profile p;
    (void)state;
    assert_int_equal(netem_profile_parse(&p, "up.delay=1ms,down.delay=2ms", NULL), 0);
    kernel_plan_make(&plan, &p, "", &eth, true, 0);
    assert_int_equal(find(KERNEL_NETEM, "eth0", KERNEL_AIR)->netem.delay_ns, 2000000);
    assert_int_equal(find(KERNEL_NETEM, "netem-d2", KERNEL_AIR)->netem.delay_ns, 1000000);
}

static void test_jitter_keeps_the_order_without_a_rate(void **state)
{
    (void)state;
    make("delay=40ms,jitter=20ms", 0);
    assert_int_equal(find(KERNEL_NETEM, "eth0", KERNEL_AIR)->netem.rate, 12500000000ull);
}

static void test_bursts_are_a_gilbert_elliott_chain(void **state)
{
    (void)state;
    make("loss=2%,burst=4", 0);
    const struct kernel_netem *n = &find(KERNEL_NETEM, "eth0", KERNEL_AIR)->netem;
    assert_true(n->gemodel);
    assert_in_range(n->r, 1073741823, 1073741824);     /* 1/4 */
    assert_in_range(n->p, 21913098 - 1, 21913098 + 1); /* 0.02 / 0.98 / 4 */
    assert_int_equal(n->h, 0);
    make("loss=2%", 0);
    n = &find(KERNEL_NETEM, "eth0", KERNEL_AIR)->netem;
    assert_false(n->gemodel);
    assert_in_range(n->loss, 85899345, 85899346);
}

static void test_the_limit_is_never_netems_own(void **state)
{
    const char *name, *summary;
    (void)state;
    for (unsigned i = 0; netem_profile_list(i, &name, &summary); i++) {
        make(name, 0);
        for (unsigned k = 0; k < plan.steps; k++)
            if (plan.step[k].op == KERNEL_NETEM)
                assert_true(plan.step[k].netem.limit > 1000);
        /* a rate's air holds what is under way and what waits, in the smallest of packets */
    }
    make("rate=8mbit,delay=1s,queue=100kB", 0);
    assert_true(find(KERNEL_NETEM, "eth0", KERNEL_AIR)->netem.limit >= (1000000 + 100000) / 28);
}

static void test_what_cannot_be_is_said(void **state)
{
    static const struct {
        const char *description, *word;
    } of[] = {
        {"delay=1ms,nat_idle=60s", "nat_idle"},
        {"delay=1ms,rrc_idle=10s,rrc_promotion=260ms", "rrc"},
        {"rate=1mbit,queue_drop=head", "queue_drop"},
        {"rate=1kbit,queue=64kB", "queue"},
        {"delay=10s,jitter=5s", "jitter"},
        {"delay=1ms,handover_every=10s,handover_for=1s,handover_loses=50%,nat_idle=60s", "handover_loses"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof of / sizeof of[0]; i++) {
        make(of[i].description, 0);
        if (!says(plan.refused, plan.refused_n, of[i].word))
            fail_msg("%s: nothing is said", of[i].description);
    }
}

static void test_weather_needs_a_player(void **state)
{
    (void)state;
    make("delay=1ms,blackout_every=10s,blackout_for=1s", 0);
    assert_int_equal(plan.refused_n, 0);
    assert_true(plan.has_weather);
    make("delay=1ms,blackout_every=10s,blackout_for=1s", KERNEL_NO_WEATHER);
    assert_true(says(plan.refused, plan.refused_n, "--for"));
    assert_false(plan.has_weather);
    make("blackout_every=10s,blackout_for=1s", 0); /* nothing else: still two netems to go dark */
    assert_non_null(find(KERNEL_NETEM, "eth0", KERNEL_AIR));
    assert_non_null(find(KERNEL_NETEM, "netem-d2", KERNEL_AIR));
}

static void test_a_kernel_without_netem_keeps_the_rate(void **state)
{
    (void)state;
    make("rate=8mbit,delay=40ms,loss=1%", KERNEL_NO_NETEM);
    assert_true(says(plan.refused, plan.refused_n, "sch_netem"));
    for (unsigned i = 0; i < plan.steps; i++)
        assert_int_not_equal(plan.step[i].op, KERNEL_NETEM);
    assert_int_equal(find(KERNEL_TBF, "netem-u2", KERNEL_QUEUE)->tbf.rate, 1000000);
    assert_int_equal(find(KERNEL_TBF, "netem-d2", KERNEL_QUEUE)->tbf.rate, 1000000);
    make("delay=40ms", KERNEL_NO_NETEM);
    assert_int_equal(plan.steps, 0);
}

static void test_a_kernel_without_police_says_what_the_queue_loses(void **state)
{
    (void)state;
    make("rate=8mbit,delay=40ms", KERNEL_NO_POLICE);
    assert_true(says(plan.refused, plan.refused_n, "act_police"));
    assert_int_equal(plan.step[plan.steps - 1].redirect.police_rate, 0);
}

static void test_nothing_becomes_nothing(void **state)
{
    (void)state;
    make("none", 0);
    assert_int_equal(plan.steps, 0);
    assert_int_equal(plan.refused_n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_rate_stands_before_the_loss_both_ways),
        cmocka_unit_test(test_swap_turns_the_directions),
        cmocka_unit_test(test_jitter_keeps_the_order_without_a_rate),
        cmocka_unit_test(test_bursts_are_a_gilbert_elliott_chain),
        cmocka_unit_test(test_the_limit_is_never_netems_own),
        cmocka_unit_test(test_what_cannot_be_is_said),
        cmocka_unit_test(test_weather_needs_a_player),
        cmocka_unit_test(test_a_kernel_without_netem_keeps_the_rate),
        cmocka_unit_test(test_a_kernel_without_police_says_what_the_queue_loses),
        cmocka_unit_test(test_nothing_becomes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
