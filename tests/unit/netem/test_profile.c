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

#include "netem/profile.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_named_profile_reads_and_has_a_source_for_each_number),
        cmocka_unit_test(test_shown_values_are_a_description),
        cmocka_unit_test(test_bursts_become_a_chain),
        cmocka_unit_test(test_a_file_builds_on_a_name_and_words_build_on_a_file),
        cmocka_unit_test(test_bad_files_are_named_with_the_place),
        cmocka_unit_test(test_the_offending_word_is_named),
    };
    return cmocka_run_group_tests_name("profile", tests, NULL, NULL);
}
