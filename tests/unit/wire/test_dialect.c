/* What messages say: chat.v1 in its three codecs, and dialects. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <string.h>

#include "proto/bin.h"
#include "wire/decode.h"
#include "wire/dialect.h"

static bool is(struct chat_text s, const char *text)
{
    return s.p && s.n == strlen(text) && !memcmp(s.p, text, s.n);
}

static struct dialect *parse(const char *text)
{
    struct dialect *d;
    struct err_ctx err = {0};
    assert_int_equal(dialect_parse(&d, text, strlen(text), "test", &err), 0);
    return d;
}

static void test_every_built_in_dialect_is_valid(void **state)
{
    (void)state;
    for (int i = 0; dialect_builtin(i); i++) {
        struct dialect *d;
        assert_int_equal(dialect_load(&d, dialect_builtin(i), NULL), 0);
        assert_string_equal(dialect_name(d), dialect_builtin(i));
        dialect_free(d);
    }
}

static void test_pointers_reach_into_arrays_strings_and_odd_keys(void **state)
{
    struct chat_item item[4];
    struct dialect *d =
        parse("{\"messages\":[{\"when\":{\"/a~1b\":true},\"role\":\"push\",\"t\":\"=x\","
              "\"id\":\"/list/1/id\",\"chat\":\"/in#/deep/~0\",\"seq\":\"/n\",\"ack\":\"/none\"}]}");
    const char *text =
        "{\"n\":12 , \"a/b\":false,\"list\":[{\"id\":\"no\"},{\"q\":\"\\\"}\",\"id\":\"yes\"}],"
        "\"in\":\"{\\\"deep\\\":{\\\"~\\\":\\\"c\\\\u00e9\\\"}}\"}";
    (void)state;
    assert_int_equal(dialect_scan(d, true, text, strlen(text), item, 4), 1);
    assert_true(is(item[0].t, "x") && is(item[0].id, "yes") && is(item[0].chat, "c\\u00e9"));
    assert_true(item[0].has_seq && item[0].seq == 12 && !item[0].ack.p && item[0].role == CHAT_PUSH);
    /* cut anywhere: less is found, nothing worse happens */
    for (size_t n = 0; n < strlen(text); n++)
        assert_true(dialect_scan(d, true, text, n, item, 4) <= 1);
    dialect_free(d);
}

static void test_faults_name_the_place(void **state)
{
    static const struct {
        const char *text, *say;
    } bad[] = {
        {"{\"messages\":[{\"id\":\"id\"}]}", "messages[0].id"},
        {"{\"messages\":[{},{\"from\":\"phone\"}]}", "messages[1].from"},
        {"{\"messages\":[{\"when\":{\"/a\":[]}}]}", "messages[0].when"},
        {"{\"messages\":[],\"framing\":\"xml\"}", "framing"},
        {"{\"messages\":[],\"extra\":1}", "extra"},
        {"{", "line 1"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct dialect *d;
        struct err_ctx err = {0};
        assert_int_equal(dialect_parse(&d, bad[i].text, strlen(bad[i].text), "f.json", &err), ERR_INVALID);
        assert_true(strstr(err.text, bad[i].say) && strstr(err.text, "f.json"));
        assert_null(d);
    }
}

static void test_socket_io_prefixes(void **state)
{
    struct dialect *d;
    struct chat_item item[2];
    static const char *const texts[] = {"42[\"m\",{\"id\":\"a\"}]", "42/chat,7[\"m\",{\"id\":\"a\"}]",
                                        "451-/x,3[\"m\",{\"id\":\"a\"}]"};
    (void)state;
    assert_int_equal(dialect_load(&d, "socket.io", NULL), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(dialect_scan(d, true, texts[i], strlen(texts[i]), item, 2), 1);
        assert_true(is(item[0].t, "m") && is(item[0].id, "a"));
    }
    assert_int_equal(item[0].seq, 7);
    assert_int_equal(dialect_scan(d, true, texts[2], strlen(texts[2]), item, 2),
                     1); /* binary event: no entry */
    assert_null(item[0].id.p);
    assert_int_equal(dialect_scan(d, true, "2", 1, item, 2), 0); /* Engine.IO's ping */
    dialect_free(d);
}

static void test_binary_and_mux_say_the_same_as_json(void **state)
{
    struct tap_conn c = {0};
    struct tcp_flow flow = {.user = &c};
    struct chat_decoder d = {0};
    struct chat_item item[CHAT_ITEMS_MAX];
    struct buf b = BUF_INIT(1 << 16), mux = BUF_INIT(1 << 16);
    struct msg m = {.t = MSG_MSG,
                    .chat = 17,
                    .epoch = 4,
                    .seq = 9,
                    .from = 7,
                    .kind = SLICE("text"),
                    .body = SLICE("hi")};
    (void)state;
    m.has = MSG_HAS(chat) | MSG_HAS(seq) | MSG_HAS(id) | MSG_HAS(from);
    m.id.b[0] = 1;
    proto_bin_encode(&b, &m);
    for (int session = 3; session < 5; session++) {
        const uint8_t head[8] = {0, 0, 0, (uint8_t)session, 2, 0, 0, (uint8_t)b.len};
        buf_add(&mux, head, 8);
        buf_add(&mux, b.data, b.len);
    }
    for (int k = 0; k < 2; k++) {
        struct buf *from = k ? &mux : &b;
        struct tap_message t = {.flow = &flow,
                                .dir = 1,
                                .opcode = WS_BINARY,
                                .p = (const uint8_t *)from->data,
                                .n = from->len,
                                .complete = true};
        strcpy(c.subprotocol, k ? "chat.mux.v1" : "chat.v1.bin");
        assert_int_equal(chat_decode(&d, &t, item, CHAT_ITEMS_MAX), 1 + k);
        for (int i = 0; i <= k; i++) {
            assert_true(is(item[i].t, "msg") && is(item[i].chat, "17") && is(item[i].from, "7"));
            assert_true(is(item[i].id, "01000000-0000-0000-0000-000000000000"));
            assert_true(item[i].seq == 9 && item[i].role == CHAT_PUSH &&
                        item[i].session == (k ? 3u + (unsigned)i : 0));
        }
    }
    assert_int_equal(d.bad, 0);
    chat_decoder_release(&d);
    buf_release(&b);
    buf_release(&mux);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_built_in_dialect_is_valid),
        cmocka_unit_test(test_pointers_reach_into_arrays_strings_and_odd_keys),
        cmocka_unit_test(test_faults_name_the_place),
        cmocka_unit_test(test_socket_io_prefixes),
        cmocka_unit_test(test_binary_and_mux_say_the_same_as_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
