#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "scenario/scenario.h"
#include "util/buf.h"
#include "util/clock.h"

static char path[64];
static struct scenario s;
static struct err_ctx ctx;

static int load(const char *text, const char *variant)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    scenario_release(&s);
    ctx = (struct err_ctx){0};
    return scenario_load(&s, path, variant, &ctx);
}

#define HEAD "{\"name\": \"x\", \"duration\": \"40s\", \"links\": {\"lte\": {\"profile\": \"lte-lossy\"}}, "
#define LOAD "\"load\": [{\"name\": \"mobile\", \"link\": \"lte\", \"clients\": 200, \"rate\": \"100/s\"}]"

static void refused(const char *text, const char *sentence)
{
    int rc = load(text, NULL);
    if (rc == 0 || !strstr(ctx.text, sentence))
        fail_msg("%s\n  gave %d '%s', wanted '%s'", text, rc, ctx.text, sentence);
}

static void test_defaults_are_filled_in(void **state)
{
    (void)state;
    assert_int_equal(load(HEAD LOAD "}", NULL), 0);
    assert_string_equal(s.links[0].net, "lte");
    assert_string_equal(s.server_delivery, "reliable");
    assert_string_equal(s.load[0].client, "reliable");
    assert_int_equal(s.load[0].rate_per_1000s, 100000);
    assert_int_equal(s.load[0].chat_size, 6);
    assert_int_equal(s.load[0].body_max, 200);
    assert_int_equal(s.duration, 40 * NS_PER_S);
    assert_int_equal(s.drain, 60 * NS_PER_S);
    assert_int_equal(s.server_nodes, 1);
}

static void test_faults_of_links_lie_over_the_profile_while_they_last(void **state)
{
    (void)state;
    char text[64];
    int rc = load(HEAD LOAD
                  ", \"faults\": ["
                  "{\"at\": \"1s\", \"do\": \"link\", \"target\": \"lte\", \"set\": \"loss=9%\"},"
                  "{\"at\": \"2s\", \"do\": \"detach\", \"target\": \"*\", \"share\": 0.5, \"for\": \"3s\"},"
                  "{\"at\": \"3s\", \"do\": \"link\", \"target\": \"*\", \"set\": \"rate=1mbit\", \"for\": "
                  "\"1s\"}]}",
                  NULL);
    assert_int_equal(rc, 0);
    assert_int_equal(scenario_link_profile(&s, &s.links[0], 0, text, sizeof text), 0);
    assert_string_equal(text, "lte-lossy");
    assert_int_equal(scenario_link_profile(&s, &s.links[0], 4, text, sizeof text), 0);
    assert_string_equal(text, "lte-lossy,rate=1mbit");
    assert_int_equal(scenario_link_profile(&s, &s.links[0], 7, text, sizeof text), 0);
    assert_string_equal(text, "lte-lossy,loss=9%,rate=1mbit");
    assert_int_equal(scenario_link_profile(&s, &s.links[0], 7, text, 20), ERR_LIMIT);
    assert_true(fault_hits(&s.faults[0], &s.load[0]) && fault_hits(&s.faults[1], &s.load[0]));
    fault_describe(text, sizeof text, &s.faults[0]);
    assert_string_equal(text, "link lte set to loss=9% until the load has ended");
    fault_describe(text, sizeof text, &s.faults[1]);
    assert_string_equal(text, "detach of 50% of * for 3s");
}

static void test_everything_is_read(void **state)
{
    (void)state;
    int rc = load(
        HEAD
        "\"incident\": 1, \"why\": \"because\", \"seed\": 42, \"drain\": \"30s\", \"send_lag_max\": "
        "\"100ms\","
        "\"server\": {\"delivery\": \"legacy+retry\", \"args\": \"--threads 2\"},"
        "\"load\": [{\"name\": \"mobile\", \"link\": \"lte\", \"clients\": 20, \"rate\": 7, \"body\": [5, 9],"
        "  \"chat_size\": 4, \"chats_per_client\": 2, \"retries\": 5, \"resync\": \"10m\","
        "  \"client\": \"legacy+retry+ack\","
        "  \"habits\": {\"background_every\": \"30s\", \"background_for\": \"8s\", \"resend_after\": \"4s\","
        "  \"resend_share\": \"30%\", \"storage_loss\": 0.01}}],"
        "\"faults\": [{\"at\": \"5s\", \"do\": \"kill-socket\", \"target\": \"mobile\", \"share\": 0.2,"
        " \"when\": \"mid-frame\"}, {\"name\": \"kill-1\", \"at\": \"12s\", \"do\": \"kill-server\","
        " \"signal\": \"TERM\", \"restart\": \"1s\"},"
        " {\"at\": \"20s\", \"do\": \"blackout\", \"target\": \"lte\", \"for\": \"2s\"}],"
        "\"expect\": [\"duplicates == 0\"]}",
        NULL);
    assert_int_equal(rc, 0);
    assert_int_equal(s.seed, 42);
    assert_string_equal(s.server_args, "--threads 2");
    assert_int_equal(s.load[0].rate_per_1000s, 7000);
    assert_int_equal(s.load[0].body_min, 5);
    assert_int_equal(s.load[0].habits.resend_share_ppm, 300000);
    assert_int_equal(s.load[0].habits.storage_loss_ppm, 10000);
    assert_int_equal(s.faults_n, 3);
    assert_true(s.faults[0].mid_frame);
    assert_int_equal(s.faults[0].share_ppm, 200000);
    assert_string_equal(s.faults[0].name, "fault-0");
    assert_int_equal(s.faults[1].signal, SIGTERM);
    assert_string_equal(s.faults[1].target, "server");
    assert_int_equal(s.faults[2].duration, 2 * NS_PER_S);
    assert_string_equal(s.expect[0], "duplicates == 0");
}

#define NODES "\"server\": {\"redis\": true, \"nodes\": 3}, "

static void test_several_nodes_are_named_by_their_numbers(void **state)
{
    (void)state;
    char text[320];
    int rc = load(HEAD NODES LOAD
                  ", \"faults\": ["
                  "{\"at\": \"1s\", \"do\": \"kill-server\", \"target\": \"server-3\", \"restart\": \"1s\"},"
                  "{\"at\": \"2s\", \"do\": \"kill-server\"},"
                  "{\"at\": \"3s\", \"do\": \"redis\", \"set\": \"kill\", \"for\": \"1s\"},"
                  "{\"at\": \"4s\", \"do\": \"redis\", \"set\": \"cut\", \"for\": \"1s\", \"target\": "
                  "\"server-1\"}]}",
                  NULL);
    assert_int_equal(rc, 0);
    assert_int_equal(s.server_nodes, 3);
    assert_int_equal(s.faults[0].node, 3);
    assert_int_equal(s.faults[1].node, 0);
    assert_int_equal(s.faults[2].node, 0);
    assert_int_equal(s.faults[3].node, 1);
    fault_describe(text, sizeof text, &s.faults[0]);
    assert_string_equal(text, "kill-server server-3 with signal 9, again after 1s");
    fault_describe(text, sizeof text, &s.faults[3]);
    assert_string_equal(text, "redis: cut from server-1, for 1s");
}

static void test_written_and_read_back_nodes_stay(void **state)
{
    (void)state;
    struct buf out = BUF_INIT(1 << 16);
    assert_int_equal(
        load(HEAD NODES LOAD
             ", \"faults\": [{\"at\": \"1s\", \"do\": \"kill-server\", \"target\": \"server-2\"}]}",
             NULL),
        0);
    scenario_write(&out, &s);
    assert_int_equal(load(buf_cstr(&out), NULL), 0);
    assert_int_equal(s.server_nodes, 3);
    assert_int_equal(s.faults[0].node, 2);
    buf_release(&out);
}

static void test_nodes_that_cannot_be_are_refused(void **state)
{
    (void)state;
    static const char *const none[] = {"0", "17"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        char text[512];
        snprintf(text, sizeof text, HEAD "\"server\": {\"redis\": true, \"nodes\": %s}, " LOAD "}", none[i]);
        refused(text, "server.nodes: must lie in 1..16");
    }
    refused(HEAD "\"server\": {\"nodes\": 2}, " LOAD "}",
            "server.nodes: several nodes are joined by a Redis: server.redis must be true");
    refused(HEAD "\"server\": {\"redis\": true, \"nodes\": 2, \"delivery\": \"legacy\"}, " LOAD "}",
            "server.nodes: several nodes deliver reliably only, and server.delivery is legacy");
    refused(HEAD "\"server\": {\"redis\": true, \"nodes\": 2, \"args\": \"--nodes 3\"}, " LOAD "}",
            "server.nodes: --bus, --node and --nodes follow from it");
    refused(HEAD "\"server\": {\"redis\": true, \"nodes\": 2}, \"load\": [{\"name\": \"m\", \"clients\": 20, "
                 "\"rate\": 1, \"flood\": {}}]}",
            "server.nodes: a flood speaks to one node");
}

static void test_faults_of_nodes_that_are_not_there_are_refused(void **state)
{
    (void)state;
    refused(HEAD NODES LOAD
            ", \"faults\": [{\"at\": \"1s\", \"do\": \"kill-server\", \"target\": \"server-4\"}]}",
            "faults[0].target: must be \"server\", or \"server-1\" to \"server-3\"");
    refused(HEAD NODES LOAD
            ", \"faults\": [{\"at\": \"1s\", \"do\": \"kill-server\", \"target\": \"server-2x\"}]}",
            "faults[0].target: must be \"server\"");
    refused(HEAD LOAD ", \"faults\": [{\"at\": \"1s\", \"do\": \"kill-server\", \"target\": \"server-2\"}]}",
            "faults[0].target: must be \"server\"");
    refused(HEAD NODES LOAD ", \"faults\": [{\"at\": \"1s\", \"do\": \"redis\", \"set\": \"kill\", \"for\": "
                            "\"1s\", \"target\": \"server-2\"}]}",
            "faults[0].target: redis kill concerns all nodes, not server-2");
    refused(HEAD NODES LOAD ", \"faults\": [{\"at\": \"1s\", \"do\": \"backup\"}]}",
            "backup is for one server, and server.nodes is 3");
}

static void test_unknown_keys_are_refused_with_their_path(void **state)
{
    (void)state;
    refused(HEAD "\"load\": [{\"name\": \"m\", \"clients\": 2, \"rate\": 1, \"habbits\": {}}]}",
            "load[0].habbits: unknown key; did you mean habits?");
    refused(HEAD LOAD ", \"fautls\": []}", "fautls: unknown key; did you mean faults?");
    refused(
        HEAD
        "\"load\": [{\"name\": \"m\", \"clients\": 2, \"rate\": 1, \"habits\": {\"kil_after\": \"1s\"}}]}",
        "load[0].habits.kil_after: unknown key; did you mean kill_after?");
    refused(HEAD LOAD ", \"server\": {\"zzzzzzz\": 1}}", "server.zzzzzzz: unknown key");
    refused(HEAD LOAD ", \"seed\": 1, \"seed\": 2}", "duplicate object key");
}

static void test_values_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    refused(HEAD LOAD ", \"drain\": \"5x\"}", "drain: '5x' is no duration");
    refused(HEAD LOAD ", \"drain\": 5}", "drain: must be a duration such as \"5s\", not an integer");
    refused(HEAD "\"load\": []}", "load: needs at least one population");
    refused("{\"name\": \"x\", \"duration\": \"1s\"}", "lacks the key load");
    refused(HEAD "\"load\": [{\"name\": \"m\", \"link\": \"tle\", \"clients\": 2, \"rate\": 1}]}",
            "load[0]: link: there is no link named 'tle'");
    refused(HEAD "\"load\": [{\"name\": \"m\", \"clients\": 2, \"rate\": 1, \"client\": \"legacy+magic\"}]}",
            "load[0].client: there is no fix named 'magic'");
    refused(HEAD LOAD ", \"faults\": [{\"at\": \"41s\", \"do\": \"kill-server\"}]}",
            "faults[0]: at: lies after the load's end");
    refused(HEAD LOAD ", \"faults\": [{\"at\": \"1s\", \"do\": \"kill-server\", \"when\": \"mid-frame\"}]}",
            "faults[0]: when means nothing for kill-server");
    refused(HEAD LOAD ", \"faults\": [{\"at\": \"1s\", \"do\": \"kill-socket\", \"target\": \"mobil\"}]}",
            "faults[0].target: there is no population named 'mobil'");
    refused(HEAD LOAD ", \"faults\": [{\"at\": \"1s\", \"do\": \"blackout\", \"target\": \"lte\"}]}",
            "blackout lacks the key for");
    refused(HEAD LOAD ", \"faults\": [{\"at\": \"1s\", \"do\": \"link\", \"target\": \"lte\"}]}",
            "link lacks the key set");
    refused(HEAD LOAD ", \"faults\": [{\"at\": \"1s\", \"do\": \"detach\", \"target\": \"lte\", \"set\": "
                      "\"loss=1%\", \"for\": \"1s\"}]}",
            "set means nothing for detach");
    refused(HEAD LOAD ", \"faults\": [{\"at\": \"1s\", \"do\": \"link\", \"target\": \"mobile\", \"set\": "
                      "\"loss=1%\"}]}",
            "there is no link named 'mobile'");
    refused(HEAD "\"load\": [{\"name\": \"m\", \"link\": \"lte\", \"clients\": 5000, \"rate\": 1}]}",
            "at most 4064 clients fit on links");
    refused(HEAD LOAD ", \"expect\": [\"delivred >= 1\"]}", "expect[0]: 'delivred >= 1': unknown metric");
    refused("[1]", "must be an object, not an array");
    refused("{\"name\": ", "test_scenario");
}

#define VARIANTS                                                                                             \
    ", \"faults\": [{\"name\": \"kill-1\", \"at\": \"1s\", \"do\": \"kill-server\"}], \"variants\": {"       \
    "\"before\": {\"why\": \"as it was\", \"server.delivery\": \"legacy\", \"load.mobile.client\": "         \
    "\"legacy\","                                                                                            \
    " \"faults.kill-1\": null, \"load.*.habits.resend_share\": 0.5, \"load.*.habits.resend_after\": "        \
    "\"4s\"},"                                                                                               \
    "\"after\": {}}}"

static void test_a_variant_overrides_by_dotted_path(void **state)
{
    (void)state;
    assert_int_equal(load(HEAD LOAD VARIANTS, "before"), 0);
    assert_string_equal(s.variant, "before");
    assert_string_equal(s.server_delivery, "legacy");
    assert_string_equal(s.load[0].client, "legacy");
    assert_int_equal(s.load[0].habits.resend_share_ppm, 500000);
    assert_int_equal(s.faults_n, 0);
    assert_string_equal(s.variants[0].why, "as it was");
    assert_int_equal(load(HEAD LOAD VARIANTS, "after"), 0);
    assert_string_equal(s.load[0].client, "reliable");
    assert_int_equal(s.faults_n, 1);
    assert_int_equal(load(HEAD LOAD VARIANTS, "befor"), ERR_NOTFOUND);
}

#define TWO                                                                                                  \
    ", \"variants\": {\"before\": {\"why\": \"as it was\", \"server.delivery\": \"legacy\"}, "               \
    "\"3g\": {\"why\": \"slow\", \"links.lte.profile\": \"3g\"}}}"

static void test_variants_add_up_in_their_order(void **state)
{
    (void)state;
    assert_int_equal(load(HEAD LOAD TWO, "before+3g"), 0);
    assert_string_equal(s.variant, "before+3g");
    assert_string_equal(s.variant_why, "as it was; slow");
    assert_string_equal(s.server_delivery, "legacy");
    assert_string_equal(s.links[0].profile, "3g");
    assert_int_equal(load(HEAD LOAD TWO, "3g+before"), 0);
    assert_int_equal(load(HEAD LOAD TWO, "before+4g"), ERR_NOTFOUND);
    assert_int_equal(load(HEAD LOAD TWO, "before+3g+before+3g+before+3g+before"), ERR_LIMIT);
}

static void test_a_broken_variant_is_found_whichever_is_run(void **state)
{
    (void)state;
    refused(HEAD LOAD ", \"variants\": {\"before\": {\"load.mobil.client\": \"legacy\"}}}",
            "variants.before[\"load.mobil.client\"]: there is no element named mobil");
    refused(HEAD LOAD ", \"variants\": {\"before\": {\"load.mobile.clint\": \"legacy\"}}}",
            "load[0].clint: unknown key; did you mean client?");
    refused(HEAD LOAD ", \"variants\": {\"before\": {\"faults.x\": null}}}", "faults");
    refused(HEAD LOAD ", \"variants\": {\"before\": {\"name\": \"y\"}}}", "a variant can't change this");
}

static void test_populations_own_disjoint_addresses(void **state)
{
    (void)state;
    assert_int_equal(load(HEAD "\"load\": [{\"name\": \"a\", \"link\": \"lte\", \"clients\": 3, \"rate\": 1},"
                               "{\"name\": \"b\", \"clients\": 5, \"rate\": 1},"
                               "{\"name\": \"c\", \"link\": \"lte\", \"clients\": 2, \"rate\": 1}]}",
                          NULL),
                     0);
    uint32_t first, count, second;
    scenario_addresses(&s, 0, &first, &count);
    assert_int_equal(first, 0xC6120100u);
    assert_int_equal(count, 3 * SCENARIO_ADDRESS_STRIDE);
    scenario_addresses(&s, 1, &second, &count);
    assert_int_equal(count, 0);
    scenario_addresses(&s, 2, &second, &count);
    assert_int_equal(second, first + 3 * SCENARIO_ADDRESS_STRIDE);
}

static void test_a_profile_in_a_file_stands_beside_the_scenario(void **state)
{
    (void)state;
    char profile[80], text[512], want[128];
    snprintf(profile, sizeof profile, "%s.profile", path);
    FILE *f = fopen(profile, "w");
    assert_non_null(f);
    fclose(f);
    snprintf(text, sizeof text,
             "{\"name\": \"x\", \"duration\": \"40s\", \"links\": {\"lte\": {\"profile\": "
             "\"./%s,loss=1%%\"}}, " LOAD "}",
             strrchr(profile, '/') + 1);
    assert_int_equal(load(text, NULL), 0);
    snprintf(want, sizeof want, "/tmp/./%s,loss=1%%", strrchr(profile, '/') + 1);
    assert_string_equal(s.links[0].profile, want);
    unlink(profile);
}

static void test_a_missing_file_says_so(void **state)
{
    (void)state;
    assert_int_equal(scenario_load(&s, "/nonexistent/scenario.json", NULL, &ctx), ERR_NOTFOUND);
    assert_non_null(strstr(ctx.text, "/nonexistent/scenario.json"));
}

static int setup(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "/tmp/test_scenario.%d.json", (int)getpid());
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scenario_release(&s);
    unlink(path);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_are_filled_in),
        cmocka_unit_test(test_faults_of_links_lie_over_the_profile_while_they_last),
        cmocka_unit_test(test_everything_is_read),
        cmocka_unit_test(test_several_nodes_are_named_by_their_numbers),
        cmocka_unit_test(test_written_and_read_back_nodes_stay),
        cmocka_unit_test(test_nodes_that_cannot_be_are_refused),
        cmocka_unit_test(test_faults_of_nodes_that_are_not_there_are_refused),
        cmocka_unit_test(test_unknown_keys_are_refused_with_their_path),
        cmocka_unit_test(test_values_that_make_no_sense_are_refused),
        cmocka_unit_test(test_a_variant_overrides_by_dotted_path),
        cmocka_unit_test(test_variants_add_up_in_their_order),
        cmocka_unit_test(test_a_broken_variant_is_found_whichever_is_run),
        cmocka_unit_test(test_populations_own_disjoint_addresses),
        cmocka_unit_test(test_a_profile_in_a_file_stands_beside_the_scenario),
        cmocka_unit_test(test_a_missing_file_says_so),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
