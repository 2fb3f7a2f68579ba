/* The opening handshake, SHA-1 and UTF-8 in pieces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/sha1.h"
#include "wire/ws.h"

static struct err_ctx ctx;

static void test_sha1_vectors(void **state)
{
    (void)state;
    static const struct {
        const char *text, *hash;
        int times;
    } cases[] = {
        /* RFC 3174 section 7.3 and FIPS 180 */
        {"abc", "a9993e364706816aba3e25717850c26c9cd0d89d", 1},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "84983e441c3bd26ebaae4aa1f95129e5e54670f1", 1},
        {"a", "34aa973cd4c4daa4f61eeb2bdbad27316534016f", 1000000},
        {"0123456701234567012345670123456701234567012345670123456701234567",
         "dea356a2cddd90c7a7ecedc5ebb563934f460452", 10},
        {"", "da39a3ee5e6b4b0d3255bfef95601890afd80709", 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n = strlen(cases[i].text);
        char *all = malloc(n * (size_t)cases[i].times + 1), hex[41];
        uint8_t out[20];
        for (int k = 0; k < cases[i].times; k++)
            memcpy(all + (size_t)k * n, cases[i].text, n);
        sha1(out, all, n * (size_t)cases[i].times);
        for (int b = 0; b < 20; b++)
            snprintf(hex + 2 * b, 3, "%02x", out[b]);
        assert_string_equal(hex, cases[i].hash);
        free(all);
    }
}

static void test_accept_of_the_rfc_example(void **state)
{
    (void)state;
    char out[WS_ACCEPT_TEXT + 1], key[WS_KEY_TEXT + 1];
    ws_accept(out, "dGhlIHNhbXBsZSBub25jZQ==", WS_KEY_TEXT);
    assert_string_equal(out, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    ws_key(key, (const uint8_t *)"the sample nonce");
    assert_string_equal(key, "dGhlIHNhbXBsZSBub25jZQ==");
}

static void test_both_sides_understand_each_other(void **state)
{
    (void)state;
    struct buf q = BUF_INIT(4096), a = BUF_INIT(4096);
    struct ws_request r;
    const char *key = "dGhlIHNhbXBsZSBub25jZQ==";
    int status;
    ws_upgrade_request(&q, "localhost:80", "/x?y", key, "chat.v1", "Authorization: Bearer z\r\n");
    for (size_t n = 0; n < q.len; n++)
        assert_int_equal(ws_upgrade_parse(&r, q.data, n, &ctx), 0);
    buf_str(&q, "next");
    assert_int_equal(ws_upgrade_parse(&r, q.data, q.len, &ctx), q.len - 4);
    assert_memory_equal(r.path, "/x?y ", 5);
    assert_int_equal(r.path_n, 4);
    assert_memory_equal(r.host, "localhost:80", r.host_n);
    assert_true(ws_list_has(r.protocols, r.protocols_n, "chat.v1"));
    ws_upgrade_response(&a, r.key, r.key_n, "chat.v1");
    for (size_t n = 0; n < a.len; n++)
        assert_int_equal(ws_upgrade_check(a.data, n, key, "chat.v1", &status, &ctx), 0);
    assert_int_equal(ws_upgrade_check(a.data, a.len, key, "chat.v1", &status, &ctx), a.len);
    assert_int_equal(status, 101);
    assert_int_equal(ws_upgrade_check(a.data, a.len, key, NULL, &status, &ctx), ERR_INVALID);
    assert_int_equal(ws_upgrade_check(a.data, a.len, key, "chat.v2", &status, &ctx), ERR_INVALID);
    buf_release(&q);
    buf_release(&a);
}

#define OK_HEAD                                                                                              \
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n"          \
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"

static void test_bad_answers_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *sentence;
        int code;
    } cases[] = {
        {"HTTP/1.1 503 Service Unavailable\r\n\r\n", "the server answered 503 Service Unavailable",
         ERR_UNAVAILABLE},
        {"HTTP/1.0 101 x\r\n\r\n", "the answer is not HTTP/1.1", ERR_INVALID},
        {"HTTP/1.1 1x1 x\r\n\r\n", "the answer has no status", ERR_INVALID},
        {"SSH-2.0-x\r\n\r\n", "the answer is not HTTP/1.1", ERR_INVALID},
        {"HTTP/1.1 101 x\r\n\r\n", "no 'Upgrade: websocket'", ERR_INVALID},
        {"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: close\r\n\r\n", "no 'Connection: Upgrade'",
         ERR_INVALID},
        {"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
         "Sec-WebSocket-Accept does not fit the key", ERR_INVALID},
        {OK_HEAD "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
         "the server uses an extension that was not offered", ERR_INVALID},
        {OK_HEAD "Sec-WebSocket-Protocol: x\r\n\r\n", "the server chose a subprotocol, but none was offered",
         ERR_INVALID},
        {OK_HEAD "Upgrade: websocket\r\n\r\n", "the HTTP header Upgrade stands twice", ERR_INVALID},
        {OK_HEAD "no colon\r\n\r\n", "an HTTP header line without a name", ERR_INVALID},
        {OK_HEAD ": x\r\n\r\n", "an HTTP header line without a name", ERR_INVALID},
    };
    int status;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        memset(&ctx, 0, sizeof ctx);
        int rc = ws_upgrade_check(cases[i].text, strlen(cases[i].text), "dGhlIHNhbXBsZSBub25jZQ==", NULL,
                                  &status, &ctx);
        assert_string_equal(ctx.text, cases[i].sentence);
        assert_int_equal(rc, cases[i].code);
    }
    assert_int_equal(ws_upgrade_check(OK_HEAD "\r\n", strlen(OK_HEAD) + 2, "dGhlIHNhbXBsZSBub25jZQ==", NULL,
                                      &status, &ctx),
                     strlen(OK_HEAD) + 2);
    char *big = malloc(WS_UPGRADE_MAX);
    memset(big, 'a', WS_UPGRADE_MAX);
    assert_int_equal(ws_upgrade_check(big, WS_UPGRADE_MAX - 1, "x", NULL, &status, &ctx), 0);
    assert_int_equal(ws_upgrade_check(big, WS_UPGRADE_MAX, "x", NULL, &status, &ctx), ERR_LIMIT);
    free(big);
}

#define REQ(lines) "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" lines "\r\n"
static void test_bad_requests_are_refused(void **state)
{
    (void)state;
    static const char *const cases[] = {
        REQ("Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
        REQ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
        REQ("Sec-WebSocket-Version: 13\r\n"),
        REQ("Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short==\r\n"),
        REQ("Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nHost: y\r\n"),
        "POST / HTTP/1.1\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "\r\n\r\n",
    };
    struct ws_request r;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(ws_upgrade_parse(&r, cases[i], strlen(cases[i]), &ctx), ERR_INVALID);
}

/* Each report holds a request and the answer of an independent implementation. */
static void test_handshakes_of_others(void **state)
{
    (void)state;
    size_t count = 0, cap = 0;
    char *line = NULL;
    FILE *f = fopen("../shared/data/ws-vectors/autobahn-server-cases.jsonl", "r");
    if (!f) {
        print_message("# ../shared/data/ws-vectors is absent\n");
        skip();
    }
    while (getline(&line, &cap, f) > 0) {
        json_t *o = json_loads(line, JSON_ALLOW_NUL, NULL);
        if (!o)
            continue;
        const char *q = json_string_value(json_object_get(o, "httpRequest")),
                   *a = json_string_value(json_object_get(o, "httpResponse"));
        struct ws_request r;
        char key[WS_KEY_TEXT + 1] = "";
        int status;
        assert_int_equal(ws_upgrade_parse(&r, q, strlen(q), &ctx), strlen(q));
        memcpy(key, r.key, WS_KEY_TEXT);
        int rc = ws_upgrade_check(a, strlen(a), key, NULL, &status, &ctx);
        if (rc != (int)strlen(a) && !strstr(a, "Sec-WebSocket-Extensions"))
            fail_msg("%s: %s", a, ctx.text);
        json_decref(o);
        count++;
    }
    free(line);
    fclose(f);
    assert_true(count > 500);
}

/* Every string of up to four bytes' worth of edges: the piecewise checker agrees with the definition. */
static void test_utf8_agrees_with_the_definition(void **state)
{
    (void)state;
    for (uint32_t c = 0; c < 0x110000; c += c < 0x11000 ? 1 : 37) {
        uint8_t b[4];
        size_t n;
        if (c < 0x80) {
            b[0] = (uint8_t)c;
            n = 1;
        } else if (c < 0x800) {
            b[0] = (uint8_t)(0xc0 | c >> 6);
            n = 2;
        } else if (c < 0x10000) {
            b[0] = (uint8_t)(0xe0 | c >> 12);
            n = 3;
        } else {
            b[0] = (uint8_t)(0xf0 | c >> 18);
            n = 4;
        }
        for (size_t i = 1; i < n; i++)
            b[i] = (uint8_t)(0x80 | (c >> (6 * (n - 1 - i)) & 63));
        for (size_t cut = 0; cut <= n; cut++) {
            struct utf8 u = {0};
            bool ok = utf8_feed(&u, b, cut) && utf8_feed(&u, b + cut, n - cut) && utf8_whole(&u);
            assert_int_equal(ok, c < 0xd800 || c > 0xdfff);
        }
        struct utf8 u = {0};
        if (n > 1 && (c < 0xd800 || c > 0xdfff))
            assert_true(utf8_feed(&u, b, n - 1) && !utf8_whole(&u));
    }
    static const char *const bad[] = {"\x80",     "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf",
                                      "\xf4\x90", "\xf5",     "\xff",     "\xc3("};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct utf8 u = {0};
        assert_false(utf8_feed(&u, bad[i], strlen(bad[i])));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha1_vectors),
        cmocka_unit_test(test_accept_of_the_rfc_example),
        cmocka_unit_test(test_both_sides_understand_each_other),
        cmocka_unit_test(test_bad_answers_are_refused),
        cmocka_unit_test(test_bad_requests_are_refused),
        cmocka_unit_test(test_handshakes_of_others),
        cmocka_unit_test(test_utf8_agrees_with_the_definition),
    };
    return cmocka_run_group_tests_name("upgrade", tests, NULL, NULL);
}
