/* Descriptions of networks: names, words, files, and where each number comes from. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "netem/profile_impl.h"

static json_t *shown(const char *description)
{
    struct buf out = BUF_INIT(1u << 16);
    assert_int_equal(netem_profile_show(&out, description, true, NULL), 0);
    json_t *root = json_loads(buf_cstr(&out), 0, NULL);
    buf_release(&out);
    assert_non_null(root);
    return root;
}

static void test_every_named_profile_reads_and_has_a_source_for_each_number(void **state)
{
    (void)state;
    const char *name, *summary, *word;
    unsigned n = 0;
    for (; netem_profile_list(n, &name, &summary); n++) {
        struct netem_profile p;
        json_t *root, *value;
        assert_int_equal(netem_profile_parse(&p, name, NULL), 0);
        assert_string_equal(p.name, name);
        root = shown(name);
        json_object_foreach(root, word, value)
        {
            const char *source = json_string_value(json_object_get(value, "source"));
            if (strcmp(word, "profile") != 0)
                assert_true(source && strlen(source) > 3);
        }
        json_decref(root);
    }
    assert_true(n >= 3);
}

/* What show prints, read as a description again, is the same network. */
static void test_shown_values_are_a_description(void **state)
{
    (void)state;
    const char *name, *summary, *word;
    for (unsigned i = 0; netem_profile_list(i, &name, &summary); i++) {
        struct netem_profile p, again;
        struct err_ctx err = {0};
        struct buf text = BUF_INIT(1u << 16);
        json_t *root = shown(name), *value;
        assert_int_equal(netem_profile_parse(&p, name, NULL), 0);
        buf_str(&text, "none");
        json_object_foreach(root, word, value)
        {
            if (strcmp(word, "profile") != 0)
                buf_printf(&text, ",%s=%s", word, json_string_value(json_object_get(value, "value")));
        }
        json_decref(root);
        int rc = netem_profile_parse(&again, buf_cstr(&text), &err);
        buf_release(&text);
        if (rc)
            fail_msg("%s", err.text);
        memcpy(again.name, p.name, sizeof p.name);
        assert_memory_equal(&p, &again, sizeof p);
    }
}

static void test_bursts_become_a_chain(void **state)
{
    (void)state;
    struct netem_profile p;
    assert_int_equal(netem_profile_parse(&p, "loss=2%,burst=4", NULL), 0);
    /* p 0.510 %, r 25 % */
    assert_int_equal(p.dir[NETEM_UP].enter_p32 * 100000 >> 32, 510);
    assert_int_equal(p.dir[NETEM_UP].leave_p32 * 100 >> 32, 25);
    assert_int_equal(netem_profile_parse(&p, "loss=100%", NULL), 0);
    assert_true(p.dir[NETEM_UP].bad_p32 == 1ull << 32 && p.dir[NETEM_UP].leave_p32 == 0);
}

static int from_file(const char *json, const char *more, struct netem_profile *p, struct err_ctx *err)
{
    char path[] = "/tmp/test-profile-XXXXXX", text[128];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, json, strlen(json)), strlen(json));
    close(fd);
    snprintf(text, sizeof text, "%s%s", path, more);
    int rc = netem_profile_parse(p, text, err);
    unlink(path);
    return rc;
}

static void test_a_file_builds_on_a_name_and_words_build_on_a_file(void **state)
{
    (void)state;
    struct netem_profile p;
    struct err_ctx err = {0};
    const char *json = "{\"profile\": \"lte-lossy\", \"rate\": \"10mbit\", \"up\": {\"loss\": \"1%\"}}";
    assert_int_equal(from_file(json, ",down.delay=99ms", &p, &err), 0);
    assert_int_equal(p.dir[NETEM_UP].loss_ppm, 10000);
    assert_int_equal(p.dir[NETEM_DOWN].loss_ppm, 20000);
    assert_int_equal(p.dir[NETEM_DOWN].rate_bps, 10000000);
    assert_int_equal(p.dir[NETEM_DOWN].delay_ns, 99000000);
}

static void test_bad_files_are_named_with_the_place(void **state)
{
    (void)state;
    static const char *const bad[][2] = {{"{\"rate\": 5}", "rate"},
                                         {"{\"rate\":", "offset"},
                                         {"[]", "object"},
                                         {"{\"up\":{\"lossy\":\"1%\"}}", "up.lossy"},
                                         {"{\"profile\":\"6g\"}", "6g"},
                                         {"", "offset"},
                                         {"{\"up\":{\"up\":{}}}", "up.up"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct netem_profile p = {.name = "untouched"};
        struct err_ctx err = {0};
        assert_int_equal(from_file(bad[i][0], "", &p, &err), ERR_INVALID);
        if (!strstr(err.text, bad[i][1]) || !strstr(err.text, "test-profile"))
            fail_msg("%s", err.text);
        assert_string_equal(p.name, "untouched");
    }
    struct netem_profile p;
    assert_int_equal(netem_profile_parse(&p, "./no-such-file.json", NULL), ERR_NOTFOUND);
}

static void test_the_offending_word_is_named(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"wifi,los=2%", "'los'"},
        {"wifi,loss=200%", "200%"},
        {"wifi,6g", "'6g'"},
        {"jitter=50ms,delay=40ms", "jitter"},
        {"loss=60%,burst=1", "burst"},
        {"burst=0.5", "0.5"},
        {"blackout_every=5s", "blackout_for"},
        {"stall_every=1s,stall_for=3s..1s", "3s"},
        {"stall_every=1s,stall_for=1s/2s", "1s/2s"},
        {"handover_every=9s,handover_for=1s,handover_loses=1%", "nat_idle"},
        {"up.nat_idle=1s", "up.nat_idle"},
        {"rate=1bit", "rate"},
        {"dist=cauchy", "cauchy"},
        {"jitter_corr=100%,jitter=1ms,delay=1ms", "jitter_corr"},
        {"reorder=5%", "reorder"},
        {"queue_drop=head", "queue_drop"},
        {"queue_drop=middle", "middle"},
        {"queue=5parsec", "5parsec"},
        {"reorder_gap=256", "256"},
        {"blackout_at=5s", "5s"},
        {"blackout_at=5s+3s/7s+1s", "7s"},
        {"blackout_period=5s", "blackout_for"},
        {"blackout_period=5s,blackout_for=5s", "blackout_period"},
        {"cell_every=5s", "cell_for"},
        {"rrc_fach=9s,rrc_idle=5s", "rrc_fach"},
        {"drx_after=1s", "drx_after"},
        {"blackout_at=1s+1s,blackout_loses=5%", "nat_idle"},
        {"lte-good+handover+foo", "foo"},
        {"delay=61s", "delay"},
        {"", "empty"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct netem_profile p;
        struct err_ctx err = {0};
        int rc = netem_profile_parse(&p, bad[i][0], &err);
        assert_true(rc == ERR_INVALID || rc == ERR_RANGE);
        if (!strstr(err.text, bad[i][1]))
            fail_msg("%s: %s", bad[i][0], err.text);
    }
}

static void test_a_word_without_a_value_is_refused_by_name(void **state)
{
    (void)state;
    char text[80];
    for (unsigned k = 0; k < KEY_COUNT; k++) {
        for (unsigned way = 0; way < (netem_keys[k].each_way ? 3 : 1); way++) {
            struct netem_profile p;
            struct err_ctx err = {0};
            snprintf(text, sizeof text, "%s%s",
                     way == 0   ? ""
                     : way == 1 ? "up."
                                : "down.",
                     netem_keys[k].word);
            char whole[120], want[120];
            snprintf(whole, sizeof whole, "lte-good,%s=", text);
            snprintf(want, sizeof want, "%s: the value is missing", text);
            assert_int_equal(netem_profile_parse(&p, whole, &err), ERR_INVALID);
            assert_non_null(strstr(err.text, want));
            snprintf(whole, sizeof whole, "{\"%s\": \"\"}", text);
            err = (struct err_ctx){0};
            assert_int_equal(from_file(whole, "", &p, &err), ERR_INVALID);
            assert_non_null(strstr(err.text, want));
        }
    }
}

static void test_profiles_are_put_on_each_other(void **state)
{
    (void)state;
    struct netem_profile p, base, over;
    assert_int_equal(netem_profile_parse(&base, "lte-good", NULL), 0);
    assert_int_equal(netem_profile_parse(&over, "handover", NULL), 0);
    assert_int_equal(netem_profile_parse(&p, "lte-good+handover+loss=1%,up.rate=1mbit", NULL), 0);
    assert_string_equal(p.name, "lte-good+handover");
    assert_memory_equal(&p.handover, &over.handover, sizeof p.handover);
    assert_int_equal(p.dir[NETEM_DOWN].rate_bps, base.dir[NETEM_DOWN].rate_bps); /* the overlay has no rate */
    assert_int_equal(p.dir[NETEM_UP].rate_bps, 1000000);
    assert_int_equal(p.dir[NETEM_UP].loss_ppm, 10000);
    assert_int_equal(p.drx_long_ns, base.drx_long_ns);
    assert_int_equal(netem_profile_parse(&p, "3g+loss=10%", NULL), 0);
    assert_int_equal(p.dir[NETEM_DOWN].loss_ppm, 100000);
    /* the '+' of a list is none that joins */
    assert_int_equal(netem_profile_parse(&p, "wifi,blackout_at=12.4s+800ms/30s+2s+airplane", NULL), 0);
    assert_int_equal(p.blackout_at.n, 0); /* airplane's period set the list aside */
    assert_int_equal(p.blackout_period_ns, 120000000000ull);
    assert_int_equal(netem_profile_parse(&p, "wifi,blackout_at=12.4s+800ms/30s+2s", NULL), 0);
    assert_int_equal(p.blackout_at.n, 2);
    assert_int_equal(p.blackout_at.of[1].length_ns, 2000000000ull);
}

static void test_a_file_can_compose_and_be_composed(void **state)
{
    (void)state;
    struct netem_profile p;
    struct err_ctx err = {0};
    assert_int_equal(from_file("{\"profile\": \"lte-good+cells\", \"loss\": \"1%\"}", "+handover", &p, &err),
                     0);
    assert_true(p.cell.every_ns && p.handover.every_ns);
    assert_int_equal(p.dir[NETEM_UP].loss_ppm, 10000);
}

static void test_files_that_a_file_names_stand_beside_it(void **state)
{
    (void)state;
    char dir[] = "/tmp/test-profile-XXXXXX", path[100];
    struct netem_profile p;
    struct err_ctx err = {0};
    assert_non_null(mkdtemp(dir));
    const char *const files[][2] = {{"a.up", "1\n2\n"},
                                    {"d.dist", "-8192 0 8192\n"},
                                    {"p.json", "{\"up\": {\"trace\": \"a.up\"}, \"delay\": \"9ms\", "
                                               "\"jitter\": \"1ms\", \"dist\": \"table:d.dist\"}"}};
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i][0]);
        FILE *f = fopen(path, "w");
        fputs(files[i][1], f);
        fclose(f);
    }
    int rc = netem_profile_parse(&p, path, &err);
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i][0]);
        unlink(path);
    }
    rmdir(dir);
    if (rc)
        fail_msg("%s", err.text);
    assert_int_equal(p.dir[NETEM_UP].trace->count, 2);
    assert_null(p.dir[NETEM_DOWN].trace);
    assert_int_equal(p.dir[NETEM_DOWN].dist->n, 3);
}

static void test_of_words_that_exclude_each_other_the_last_counts(void **state)
{
    (void)state;
    struct netem_profile p;
    assert_int_equal(netem_profile_parse(&p, "lte-lossy,blackout_at=1s+1s", NULL), 0);
    assert_true(p.blackout_at.n == 1 && !p.blackout.every_ns);
    assert_int_equal(netem_profile_parse(&p, "blackout_at=1s+1s,blackout_period=9s,blackout_for=1s", NULL),
                     0);
    assert_true(!p.blackout_at.n && p.blackout_period_ns);
    assert_int_equal(netem_profile_parse(&p, "queue=64kB,queue=200ms,rate=8mbit", NULL), 0);
    assert_int_equal(p.dir[0].queue_bytes, 200000);
}

static void test_what_a_driver_cannot_do_is_said_in_sentences(void **state)
{
    (void)state;
    struct netem_profile p;
    struct buf out = BUF_INIT(1u << 16);
    const char *name, *summary;
    for (unsigned i = 0; netem_profile_list(i, &name, &summary); i++) {
        assert_int_equal(netem_profile_parse(&p, name, NULL), 0);
        assert_int_equal(netem_profile_lacks(&p, NETEM_DRIVER_MODEL, &out), 0);
        assert_int_equal(netem_profile_lacks(&p, NETEM_DRIVER_TUN, &out), 0);
    }
    assert_int_equal(out.len, 0);
    assert_int_equal(netem_profile_parse(&p, "rate=1mbit,delay=5ms,loss=1%,burst=3", NULL), 0);
    assert_int_equal(netem_profile_lacks(&p, NETEM_DRIVER_KERNEL, &out), 0);
    assert_int_equal(netem_profile_parse(&p, "lte-lossy", NULL), 0);
    unsigned n = netem_profile_lacks(&p, NETEM_DRIVER_KERNEL, &out), lines = 0;
    for (const char *at = buf_cstr(&out); (at = strchr(at, '\n')); at++)
        lines++;
    assert_true(n >= 4 && n == lines);
    assert_non_null(strstr(buf_cstr(&out), "nat_idle"));
    assert_non_null(strstr(buf_cstr(&out), "rrc"));
    buf_reset(&out);
    assert_true(netem_profile_lacks(&p, NETEM_DRIVER_PROXY, &out) > 0);
    assert_non_null(strstr(buf_cstr(&out), "proxy driver: loss"));
    buf_release(&out);
    enum netem_driver driver;
    assert_int_equal(netem_driver_parse(&driver, "kernel", NULL), 0);
    assert_int_equal(driver, NETEM_DRIVER_KERNEL);
    assert_int_equal(netem_driver_parse(&driver, "magic", NULL), ERR_INVALID);
}

/* The table of the network profiles: all that people ask for by name is there. */
static void test_the_whole_table_is_there(void **state)
{
    (void)state;
    static const char *const names[] = {"wifi-good",    "wifi-poor",      "lte-good",    "lte-lossy",
                                        "lte-driving",  "lte-subway",     "5g",          "3g",
                                        "edge",         "2g-rural",       "handover",    "captive-portal",
                                        "airplane",     "satellite",      "carrier-nat", "wpt-lte",
                                        "wpt-4g",       "wpt-3g",         "wpt-3g-fast", "wpt-3g-slow",
                                        "wpt-edge",     "wpt-2g",         "firefox-4g",  "firefox-3g-good",
                                        "firefox-wifi", "atc-3g-average", "atc-3g-good", "atc-edge-lossy",
                                        "atc-2g-rural", "comcast-edge",   "comcast-3g",  "comcast-wifi",
                                        "loadero-4g",   "loadero-3g"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct netem_profile p;
        if (netem_profile_parse(&p, names[i], NULL))
            fail_msg("%s", names[i]);
    }
    struct netem_profile p;
    assert_int_equal(netem_profile_parse(&p, "atc-edge-lossy", NULL), 0);
    assert_int_equal(p.dir[NETEM_DOWN].delay_ns, 400000000);
    assert_int_equal(p.dir[NETEM_UP].delay_ns, 440000000);
    assert_int_equal(p.dir[NETEM_UP].rate_bps, 200000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_named_profile_reads_and_has_a_source_for_each_number),
        cmocka_unit_test(test_shown_values_are_a_description),
        cmocka_unit_test(test_bursts_become_a_chain),
        cmocka_unit_test(test_a_file_builds_on_a_name_and_words_build_on_a_file),
        cmocka_unit_test(test_bad_files_are_named_with_the_place),
        cmocka_unit_test(test_the_offending_word_is_named),
        cmocka_unit_test(test_a_word_without_a_value_is_refused_by_name),
        cmocka_unit_test(test_profiles_are_put_on_each_other),
        cmocka_unit_test(test_a_file_can_compose_and_be_composed),
        cmocka_unit_test(test_files_that_a_file_names_stand_beside_it),
        cmocka_unit_test(test_of_words_that_exclude_each_other_the_last_counts),
        cmocka_unit_test(test_what_a_driver_cannot_do_is_said_in_sentences),
        cmocka_unit_test(test_the_whole_table_is_there),
    };
    return cmocka_run_group_tests_name("profile", tests, NULL, NULL);
}
