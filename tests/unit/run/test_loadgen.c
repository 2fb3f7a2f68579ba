/* Where the generator's phones connect to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "run/loadgen.h"

static struct loadgen_config c;
static struct err_ctx ctx;

static void test_a_url_names_one_server_or_several(void **state)
{
    (void)state;
    assert_int_equal(loadgen_parse_url(&c, "ws://127.0.0.1:8080/", &ctx), 0);
    assert_int_equal(c.servers_n, 1);
    assert_int_equal(c.servers[0].ip, 0x7f000001);
    assert_int_equal(c.servers[0].port, 8080);
    assert_string_equal(c.path, "/");
    assert_int_equal(loadgen_parse_url(&c, "ws://localhost:1,10.0.0.2:65535,10.0.0.3:3/chat/x", &ctx), 0);
    assert_int_equal(c.servers_n, 3);
    assert_int_equal(c.servers[0].ip, 0x7f000001);
    assert_int_equal(c.servers[1].ip, 0x0a000002);
    assert_int_equal(c.servers[1].port, 65535);
    assert_int_equal(c.servers[2].port, 3);
    assert_string_equal(c.path, "/chat/x");
    assert_int_equal(loadgen_parse_url(&c, "ws://127.0.0.1:8080", &ctx), 0);
    assert_string_equal(c.path, "/");
}

static void test_what_names_no_server_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "ws://",
                                      "http://127.0.0.1:8080/",
                                      "ws://127.0.0.1/",
                                      "ws://127.0.0.1:0/",
                                      "ws://127.0.0.1:65536/",
                                      "ws://127.0.0.1:80x/",
                                      "ws://some.where:80/",
                                      "ws://127.0.0.1:80,/",
                                      "ws://127.0.0.1:80,127.0.0.2/"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (loadgen_parse_url(&c, bad[i], &ctx) != ERR_USAGE)
            fail_msg("'%s' was taken", bad[i]);
    }
}

static void test_more_servers_than_fit_are_refused(void **state)
{
    (void)state;
    char url[1024] = "ws://";
    for (int i = 0; i < LOADGEN_SERVERS_MAX; i++) {
        size_t n = strlen(url);
        snprintf(url + n, sizeof url - n, "%s127.0.0.1:%d", i ? "," : "", i + 1);
    }
    assert_int_equal(loadgen_parse_url(&c, url, &ctx), 0);
    assert_int_equal(c.servers_n, LOADGEN_SERVERS_MAX);
    strcat(url, ",127.0.0.1:9");
    assert_int_equal(loadgen_parse_url(&c, url, &ctx), ERR_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_url_names_one_server_or_several),
        cmocka_unit_test(test_what_names_no_server_is_refused),
        cmocka_unit_test(test_more_servers_than_fit_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
