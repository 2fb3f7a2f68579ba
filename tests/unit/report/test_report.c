#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "report/report.h"

#define NASTY "<&\"'>\x01\n"

static struct report_run run_a, run_b;
static struct buf out;

static void fill(struct report_run *r, const char *variant, const char *verdict)
{
    memset(r, 0, sizeof *r);
    strcpy(r->scenario, "mobile-loss");
    strcpy(r->variant, variant);
    strcpy(r->world, "real");
    strcpy(r->commit, "abc");
    strcpy(r->why, "why " NASTY);
    strcpy(r->verdict, verdict);
    r->seed = 42;
    r->seconds = 12.5;
    r->load_n = 1;
    r->load[0] = (struct report_population){.name = "mobile",
                                            .net = "lte",
                                            .sent = 10,
                                            .accepted = 9,
                                            .expected = 50,
                                            .delivered = 45,
                                            .duplicates = 1,
                                            .latency = {1, 2, 3, NAN},
                                            .doubt = NASTY};
    r->nets_n = 2;
    r->nets[0] = (struct report_net){.name = "lte",
                                     .verdict = {{"delivered", 45}, {"lost_uplink", 5}, {"not_observed", 0}},
                                     .verdicts_n = 3,
                                     .connected_hours = 0.5,
                                     .disconnects = 6};
    r->nets[1] = (struct report_net){.name = "wifi",
                                     .verdict = {{"delivered", 20}, {"lost_uplink", 0}, {"not_observed", 0}},
                                     .verdicts_n = 3,
                                     .connected_hours = 1,
                                     .disconnects = 2};
    r->curves_n = 1;
    r->curves[0] = (struct report_curve){.name = "lte", .points = {{10, 0.1}, {100, 0.9}}, .points_n = 2};
    r->expect_n = 3;
    r->expect[0] = (struct report_expect){"delivered(mobile) >= 99%", "90.0000%", "fail", "measured 90%"};
    r->expect[1] = (struct report_expect){"a < b & \"c\"" NASTY, "1", "pass", ""};
    r->expect[2] = (struct report_expect){"p95(delivery_ms) < 1", "unknown", "unknown", NASTY};
    r->faults_n = 1;
    r->faults[0] = (struct report_fault){"kill-1", "kill-server KILL", 12};
    r->lives_n = 1;
    r->lives[0] =
        (struct report_life){.id = "0193",
                             .net = "lte",
                             .verdict = "lost_uplink",
                             .why = NASTY,
                             .steps = {{0, "phone 7", "submit", false}, {5.5, "link", "lost <packet>", true}},
                             .steps_n = 2,
                             .cut = 3};
    r->audit_known = r->server_known = true;
    r->audit_violations = 2;
    r->audit_n = 1;
    r->audit[0] = (struct report_count){"missing", 2};
    r->findings_n = 1;
    strcpy(r->findings[0], "user 3 never saw " NASTY);
    r->server.rss_bytes_max = 1 << 20;
    r->server.starts = 2;
}

static int setup(void **state)
{
    (void)state;
    fill(&run_a, "before", "fail");
    fill(&run_b, "after", "pass");
    buf_init(&out, REPORT_HTML_MAX);
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    buf_release(&out);
    return 0;
}

static void test_summary_keeps_the_contracts_shape(void **state)
{
    (void)state;
    report_json(&out, &run_a);
    json_t *o = json_loadb(out.data, out.len, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(o);
    static const char *const top[] = {"scenario", "variant", "world", "seed",     "commit", "verdict",
                                      "seconds",  "expect",  "load",  "verdicts", "server"};
    for (size_t i = 0; i < sizeof top / sizeof *top; i++)
        assert_non_null(json_object_get(o, top[i]));
    json_t *p = json_object_get(json_object_get(o, "load"), "mobile");
    assert_int_equal(json_integer_value(json_object_get(p, "expected")), 50);
    assert_true(json_number_value(json_object_get(p, "ratio")) == 0.9);
    assert_true(json_is_number(json_object_get(json_object_get(p, "latency_ms"), "max")));
    json_t *v = json_object_get(json_object_get(o, "verdicts"), "lte");
    assert_int_equal(json_integer_value(json_object_get(v, "lost_uplink")), 5);
    json_decref(o);
}

static void test_a_summary_is_read_back_whole(void **state)
{
    (void)state;
    char path[64];
    struct err_ctx ctx = {0};
    struct report_run *back = malloc(sizeof *back);
    struct buf again = BUF_INIT(REPORT_HTML_MAX);
    snprintf(path, sizeof path, "/tmp/test_report.%d.json", (int)getpid());
    report_json(&out, &run_a);
    assert_int_equal(report_write(path, &out, &ctx), 0);
    if (report_read(back, path, &ctx))
        fail_msg("%s", ctx.text);
    report_json(&again, back);
    assert_int_equal(again.len, out.len);
    assert_memory_equal(again.data, out.data, out.len);
    buf_release(&again);
    buf_reset(&out);
    buf_str(&out, "{\"scenario\":\"x\",\"load\":{\"m\":{\"sent\":\"many\"}}}");
    assert_int_equal(report_write(path, &out, &ctx), 0);
    assert_int_equal(report_read(back, path, &ctx), ERR_INVALID);
    assert_non_null(strstr(ctx.text, "sent is of the wrong type"));
    buf_reset(&out);
    buf_str(&out, "{\"scenario\":\"x\"");
    assert_int_equal(report_write(path, &out, &ctx), 0);
    assert_int_equal(report_read(back, path, &ctx), ERR_INVALID);
    unlink(path);
    assert_int_equal(report_read(back, path, &ctx), ERR_NOTFOUND);
    free(back);
}

/* A strict enough reader for what we write: every tag but the void ones is closed in order. */
static void balanced(const char *p, bool html)
{
    const char *stack[256];
    size_t lens[256], depth = 0, tags = 0;
    for (; (p = strchr(p, '<')); p++) {
        if (p[1] == '!' || p[1] == '?')
            continue;
        bool closing = p[1] == '/';
        const char *name = p + 1 + closing, *end = strchr(p, '>');
        size_t n = strcspn(name, " \n/>");
        assert_non_null(end);
        tags++;
        if (closing) {
            if (depth == 0 || lens[depth - 1] != n || memcmp(stack[depth - 1], name, n) != 0)
                fail_msg("</%.*s> closes <%.*s>", (int)n, name, depth ? (int)lens[depth - 1] : 0,
                         depth ? stack[depth - 1] : "");
            depth--;
        } else if (end[-1] != '/' && !(html && n == 4 && memcmp(name, "meta", 4) == 0)) {
            assert_true(depth < 256);
            stack[depth] = name;
            lens[depth++] = n;
        }
        p = end - 1;
    }
    assert_int_equal(depth, 0);
    assert_true(tags > 5);
}

static void test_the_page_is_balanced_escaped_and_needs_nothing_from_outside(void **state)
{
    (void)state;
    const struct report_run *runs[] = {&run_a, &run_b};
    for (uint32_t n = 1; n <= 2; n++) {
        buf_reset(&out);
        report_html(&out, runs, n);
        assert_false(out.failed);
        const char *page = buf_cstr(&out);
        balanced(page, true);
        assert_null(strstr(page, "<packet>"));
        assert_null(strstr(page, "http"));
        assert_null(strstr(page, "src="));
        assert_null(strstr(page, "url("));
        assert_null(strstr(page, "nan"));
        assert_non_null(strstr(page, "<svg"));
        assert_non_null(strstr(page, "12.0/h (6.0 x wifi)"));
    }
}

static void test_an_empty_run_still_gives_a_page(void **state)
{
    (void)state;
    static struct report_run empty;
    const struct report_run *runs[] = {&empty, &empty};
    report_html(&out, runs, 2);
    balanced(buf_cstr(&out), true);
    assert_null(strstr(buf_cstr(&out), "nan"));
}

static void test_junit_counts_unknown_as_an_error(void **state)
{
    (void)state;
    const struct report_run *runs[] = {&run_a, &run_b};
    report_junit(&out, runs, 2);
    const char *xml = buf_cstr(&out);
    balanced(xml, false);
    assert_non_null(strstr(xml, "tests=\"3\" failures=\"1\" errors=\"1\""));
    assert_non_null(strstr(xml, "<failure message=\"measured 90%\"/>"));
    assert_null(strchr(xml, '\x01'));
}

static void test_text_shows_verdicts_that_occur_and_each_expectation(void **state)
{
    (void)state;
    report_text(&out, &run_a, false);
    const char *text = buf_cstr(&out);
    assert_non_null(strstr(text, "90.0000%"));
    assert_non_null(strstr(text, "lost_uplink"));
    assert_null(strstr(text, "not_observed"));
    assert_non_null(strstr(text, "fail    delivered(mobile) >= 99%"));
    assert_null(strstr(text, "\033["));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_summary_keeps_the_contracts_shape),
        T(test_a_summary_is_read_back_whole),
        T(test_the_page_is_balanced_escaped_and_needs_nothing_from_outside),
        T(test_an_empty_run_still_gives_a_page),
        T(test_junit_counts_unknown_as_an_error),
        T(test_text_shows_verdicts_that_occur_and_each_expectation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
