#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "scenario/judge.h"

static struct scenario s;
static struct judge_facts facts;

/* mobile on lte: 9999 of 10000 pairs; home and cafe on wifi: 500 of 500 each. */
static void fill(void)
{
    static const char *const names[] = {"mobile", "home", "cafe"};
    memset(&s, 0, sizeof s);
    memset(&facts, 0, sizeof facts);
    strcpy(s.links[0].name, "l");
    strcpy(s.links[0].net, "lte");
    strcpy(s.links[1].name, "w");
    strcpy(s.links[1].net, "wifi");
    s.links_n = 2;
    s.load_n = 3;
    for (int i = 0; i < 3; i++) {
        strcpy(s.load[i].name, names[i]);
        strcpy(s.load[i].link, i ? "w" : "l");
        struct judge_scope *p = judge_scope_of(&facts, SCOPE_LOAD, names[i]);
        judge_set(p, METRIC_SENT, i ? 100 : 2000);
        judge_set(p, METRIC_ACCEPTED_COUNT, i ? 100 : 1000);
        judge_set(p, METRIC_EXPECTED, i ? 500 : 10000);
        judge_set(p, METRIC_DELIVERED_COUNT, i ? 500 : 9999);
        judge_set(p, METRIC_DUPLICATES, i ? 0 : 3);
        p->v[METRIC_DELIVERY_MS] = (struct judge_value){true, {10 + i, 100 + i, 200 + i, 1000 + i}};
        p->v[METRIC_SEND_LAG_MS] = (struct judge_value){true, {0, 0, 4, 0}};
    }
    struct judge_scope *n = judge_scope_of(&facts, SCOPE_NET, "lte");
    judge_set(n, METRIC_LOST_UPLINK, 1);
    judge_set(n, METRIC_LOST_DOWNLINK, 2);
    judge_set(n, METRIC_NOT_OBSERVED, 0);
    n = judge_scope_of(&facts, SCOPE_NET, "wifi");
    judge_set(n, METRIC_LOST_UPLINK, 0);
    judge_set(n, METRIC_NOT_OBSERVED, 0);
}

static struct judgement answer(const char *text)
{
    struct expectation e;
    struct err_ctx ctx = {0};
    struct judgement j;
    if (judge_parse(&e, text, &s, &ctx))
        fail_msg("%s: %s", text, ctx.text);
    judge(&e, &facts, &j);
    return j;
}

static void says(const char *text, enum verdict_of_run want)
{
    struct judgement j = answer(text);
    if (j.verdict != want)
        fail_msg("%s: %s (%s; %s)", text, judge_verdict_name(j.verdict), j.value, j.why);
}

static void refused(const char *text, const char *sentence)
{
    struct expectation e;
    struct err_ctx ctx = {0};
    int rc = judge_parse(&e, text, &s, &ctx);
    if (rc == 0 || !strstr(ctx.text, sentence))
        fail_msg("%s: gave %d '%s', wanted '%s'", text, rc, ctx.text, sentence);
}

static void test_each_operator(void **state)
{
    (void)state;
    fill();
    static const struct {
        const char *op;
        bool below, at, above; /* truth when 3 is compared with 4, 3, 2 */
    } ops[] = {{">=", false, true, true}, {"<=", true, true, false}, {"==", false, true, false},
               {"!=", true, false, true}, {"<", true, false, false}, {">", false, false, true}};
    for (size_t i = 0; i < 6; i++) {
        char text[64];
        bool want[] = {ops[i].below, ops[i].at, ops[i].above};
        for (int n = 0; n < 3; n++) {
            snprintf(text, sizeof text, "duplicates(mobile) %s %d", ops[i].op, 4 - n);
            says(text, want[n] ? JUDGED_PASS : JUDGED_FAIL);
        }
    }
}

static void test_shares_compare_exactly_at_the_bar(void **state)
{
    (void)state;
    fill();
    says("delivered(mobile) >= 99.99%", JUDGED_PASS);
    says("delivered(mobile) > 99.99%", JUDGED_FAIL);
    says("delivered(mobile) >= 0.9999", JUDGED_PASS);
    says("delivered(mobile) >= 99.991%", JUDGED_FAIL);
    says("delivered(home) == 100%", JUDGED_PASS);
    says("accepted(mobile) == 50%", JUDGED_PASS);
    assert_string_equal(answer("delivered(mobile) >= 99.99%").value, "99.9900%");
}

static void test_differences(void **state)
{
    (void)state;
    fill();
    says("delivered(home) - delivered(mobile) < 0.1%", JUDGED_PASS);
    says("delivered(home) - delivered(mobile) < 0.005%", JUDGED_FAIL);
    says("p95(delivery_ms{home}) - p50(delivery_ms{home}) == 90ms", JUDGED_PASS);
    refused("delivered(home) - duplicates(home) < 1", "of different kinds");
}

static void test_without_a_population_counts_add_up_and_times_are_the_worst(void **state)
{
    (void)state;
    fill();
    says("sent == 2200", JUDGED_PASS);
    says("duplicates == 3", JUDGED_PASS);
    says("delivered < 99.9905%", JUDGED_FAIL); /* 10999 of 11000 */
    says("p99(delivery_ms) == 202", JUDGED_PASS);
    says("max(delivery_ms{mobile}) < 1.5s", JUDGED_PASS);
    says("lost == 3", JUDGED_PASS);
}

static void test_verdicts_are_counted_by_network(void **state)
{
    (void)state;
    fill();
    says("lost_uplink(lte) == 1", JUDGED_PASS);
    says("lost_uplink(mobile) == 1", JUDGED_PASS);
    says("lost(lte) == 3", JUDGED_PASS);
    refused("lost(home) == 0", "shares wifi with cafe; write lost(wifi)");
    refused("lost(3g) == 0", "no network or population named 3g");
}

static void test_misspelt_things_are_errors_not_passes(void **state)
{
    (void)state;
    fill();
    refused("delivred >= 99%", "unknown metric delivred; did you mean delivered?");
    refused("delivered(mobil) >= 99%", "no population named mobil; did you mean mobile?");
    refused("p97(delivery_ms) < 1", "p97 is not kept");
    refused("p99(duplicates) < 1", "duplicates has no quantiles");
    refused("delivery_ms < 1", "write p50, p95, p99 or max of delivery_ms");
    refused("p50(send_lag_ms) < 1", "only p99");
    refused("delivered >= 99", "a share lies in 0..1");
    refused("duplicates == 0%", "a count takes no unit");
    refused("p99(delivery_ms) < 5%", "a time takes ms or s");
    refused("duplicates = 0", ">= <= == != < > is missing");
    refused("duplicates == ", "a number is missing");
    refused("duplicates == 0 0", "a count takes no unit");
    refused("p99(delivery_ms{mobile) < 5", "} is missing");
    refused("audit_violations(mobile) == 0", "is of the whole run");
    refused("", "a name is missing");
}

static void test_nothing_expected_is_unknown(void **state)
{
    (void)state;
    fill();
    for (int i = 0; i < 3; i++) {
        judge_set(&facts.load[i], METRIC_EXPECTED, 0);
        judge_set(&facts.load[i], METRIC_DELIVERED_COUNT, 0);
    }
    says("delivered >= 99%", JUDGED_UNKNOWN);
    says("duplicates == 3", JUDGED_UNKNOWN);
    says("p95(delivery_ms) < 2000", JUDGED_UNKNOWN);
    says("expected > 0", JUDGED_FAIL);
    facts.load[0].v[METRIC_DUPLICATES].known = false;
    judge_set(&facts.load[0], METRIC_EXPECTED, 5);
    says("duplicates == 0", JUDGED_UNKNOWN);
    says("audit_violations == 0", JUDGED_UNKNOWN);
}

static void test_a_lagging_generator_proves_no_pass(void **state)
{
    (void)state;
    fill();
    strcpy(facts.doubt, "the generator lagged");
    says("delivered(mobile) >= 99%", JUDGED_UNKNOWN);
    says("p95(delivery_ms) < 50", JUDGED_UNKNOWN); /* it may be the generator's own delay */
    says("duplicates == 0", JUDGED_FAIL);          /* but what was seen was seen */
    says("p99(send_lag_ms) < 5", JUDGED_PASS);
}

static void test_holes_in_the_evidence_widen_a_count_of_losses(void **state)
{
    (void)state;
    fill();
    judge_set(&facts.net[0], METRIC_NOT_OBSERVED, 5);
    says("lost(lte) == 3", JUDGED_UNKNOWN);
    says("lost(lte) < 9", JUDGED_PASS);
    says("lost(lte) < 3", JUDGED_FAIL);
    says("lost(lte) < 5", JUDGED_UNKNOWN);
    says("lost(lte) == 5", JUDGED_UNKNOWN);
    says("lost(lte) != 5", JUDGED_UNKNOWN);
    says("lost(lte) == 9", JUDGED_FAIL);
    says("lost(wifi) == 0", JUDGED_PASS);
    says("not_observed(lte) == 5", JUDGED_PASS);
    assert_string_equal(answer("lost(lte) < 9").value, "3..8");
}

static void test_one_failure_fails_the_run(void **state)
{
    (void)state;
    struct judgement l[3] = {{.verdict = JUDGED_PASS}, {.verdict = JUDGED_UNKNOWN}, {.verdict = JUDGED_FAIL}};
    assert_int_equal(judge_all(l, 0), JUDGED_UNKNOWN);
    assert_int_equal(judge_all(l, 1), JUDGED_PASS);
    assert_int_equal(judge_all(l, 2), JUDGED_UNKNOWN);
    assert_int_equal(judge_all(l, 3), JUDGED_FAIL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_operator),
        cmocka_unit_test(test_shares_compare_exactly_at_the_bar),
        cmocka_unit_test(test_differences),
        cmocka_unit_test(test_without_a_population_counts_add_up_and_times_are_the_worst),
        cmocka_unit_test(test_verdicts_are_counted_by_network),
        cmocka_unit_test(test_misspelt_things_are_errors_not_passes),
        cmocka_unit_test(test_nothing_expected_is_unknown),
        cmocka_unit_test(test_a_lagging_generator_proves_no_pass),
        cmocka_unit_test(test_holes_in_the_evidence_widen_a_count_of_losses),
        cmocka_unit_test(test_one_failure_fails_the_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
