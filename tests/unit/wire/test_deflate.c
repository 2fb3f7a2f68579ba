/* permessage-deflate: what is agreed, and the text of compressed messages, whole or in pieces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "util/rng.h"
#include "wire/deflate.h"

static struct err_ctx ctx;

/* --- agreeing --- */

static int agree(struct ws_deflate *d, const char *value)
{
    return ws_deflate_agree(d, value, strlen(value), &ctx);
}

static void test_an_answer_says_windows_and_takeover(void **state)
{
    (void)state;
    struct ws_deflate d;
    assert_int_equal(agree(&d, "permessage-deflate"), 1);
    assert_true(d.agreed && d.client_takeover && d.server_takeover);
    assert_int_equal(d.client_bits, 15);
    assert_int_equal(agree(&d,
                           " permessage-deflate ; server_max_window_bits=\"9\";client_no_context_takeover; "
                           "client_max_window_bits = 10"),
                     1);
    assert_true(d.server_takeover && !d.client_takeover);
    assert_int_equal(d.server_bits, 9);
    assert_int_equal(d.client_bits, 10);
    assert_int_equal(agree(&d, ""), 0);
    assert_false(d.agreed);
}

static void test_answers_that_must_fail_the_connection(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "permessage-deflate; server_max_window_bits=7",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=09",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; level=9",
        "permessage-deflate;;",
        "permessage-deflate=1",
    };
    struct ws_deflate d;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        if (agree(&d, wrong[i]) != ERR_INVALID || d.agreed)
            fail_msg("'%s' was taken", wrong[i]);
    }
    assert_int_equal(agree(&d, "x-webkit-deflate-frame"), ERR_UNSUPPORTED);
    assert_int_equal(agree(&d, "permessage-deflate, permessage-deflate"), ERR_UNSUPPORTED);
}

/* --- inflating --- */

/* A sender as RFC 7692 section 7.2.1 describes it. */
static void compress_message(z_stream *z, struct buf *out, const void *p, size_t n)
{
    static uint8_t room[1 << 20];
    z->next_in = (Bytef *)p;
    z->avail_in = (uInt)n;
    z->next_out = room;
    z->avail_out = sizeof room;
    assert_int_equal(deflate(z, Z_SYNC_FLUSH), Z_OK);
    size_t got = sizeof room - z->avail_out;
    assert_true(got >= 4 && memcmp(room + got - 4, "\0\0\xff\xff", 4) == 0);
    buf_reset(out);
    buf_add(out, room, got - 4);
}

static void sender(z_stream *z, int bits)
{
    memset(z, 0, sizeof *z);
    assert_int_equal(deflateInit2(z, 6, Z_DEFLATED, -bits, 8, Z_DEFAULT_STRATEGY), Z_OK);
}

static void collect(void *arg, const uint8_t *p, size_t n)
{
    assert_true(n && n <= WS_INFLATE_PIECE);
    buf_add(arg, p, n);
}

static void messages_in_pieces(bool takeover, int bits, size_t step)
{
    z_stream z;
    struct ws_inflate *in;
    struct buf wire = BUF_INIT(1 << 20), text = BUF_INIT(1 << 20), got = BUF_INIT(1 << 20);
    struct rng r;
    rng_seed(&r, 7);
    sender(&z, bits);
    assert_int_equal(ws_inflate_new(&in, takeover, 1 << 20), 0);
    for (int i = 0; i < 40; i++) {
        buf_reset(&text);
        for (uint64_t k = rng_below(&r, 300); k; k--)
            buf_printf(&text, "{\"n\":%d,\"v\":%llu}", i, (unsigned long long)rng_below(&r, 5));
        compress_message(&z, &wire, text.data, text.len);
        if (!takeover)
            deflateReset(&z);
        buf_reset(&got);
        for (size_t at = 0; at < wire.len; at += step) {
            size_t n = wire.len - at < step ? wire.len - at : step;
            int rc = ws_inflate_feed(in, wire.data + at, n, at + n == wire.len, collect, &got, &ctx);
            assert_int_equal(rc, 0);
        }
        assert_int_equal(got.len, text.len);
        assert_true(!text.len || memcmp(got.data, text.data, text.len) == 0);
    }
    ws_inflate_free(in);
    deflateEnd(&z);
    buf_release(&wire);
    buf_release(&text);
    buf_release(&got);
}

static void test_messages_come_back_with_and_without_takeover_in_pieces_of_any_size(void **state)
{
    (void)state;
    static const size_t steps[] = {1, 3, 100, 1 << 20};
    for (size_t i = 0; i < 4; i++) {
        messages_in_pieces(true, 15, steps[i]);
        messages_in_pieces(false, 15, steps[i]);
        messages_in_pieces(true, 9, steps[i]);
    }
}

/* The examples of section 7.2.3, with "Hello". */
static void test_examples_of_the_rfc(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
    } messages[] = {
        {"\xf2\x48\xcd\xc9\xc9\x07\x00", 7},                  /* 7.2.3.1 */
        {"\xf2\x00\x11\x00\x00", 5},                          /* 7.2.3.2: with the window of the first */
        {"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", 11}, /* 7.2.3.3: not compressed */
        {"\xf3\x48\xcd\xc9\xc9\x07\x00\x00", 8},              /* 7.2.3.4: BFINAL */
        {"\xf2\x00\x11\x00\x00", 5},                          /* and the window lives on behind it */
        {"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", 13}, /* 7.2.3.5: two blocks */
    };
    struct ws_inflate *z;
    struct buf got = BUF_INIT(100);
    assert_int_equal(ws_inflate_new(&z, true, 100), 0);
    for (size_t i = 0; i < sizeof messages / sizeof *messages; i++) {
        buf_reset(&got);
        if (ws_inflate_message(z, messages[i].bytes, messages[i].n, &got, &ctx))
            fail_msg("message %zu: %s", i, ctx.text);
        assert_string_equal(buf_cstr(&got), "Hello");
    }
    buf_reset(&got);
    assert_int_equal(ws_inflate_message(z, "\0", 1, &got, &ctx), 0); /* 7.2.3.6: empty */
    assert_int_equal(got.len, 0);
    ws_inflate_free(z);
    buf_release(&got);
}

static void test_a_bomb_ends_at_the_limit(void **state)
{
    (void)state;
    z_stream d;
    struct ws_inflate *z;
    struct buf wire = BUF_INIT(1 << 20), got = BUF_INIT(2 << 20);
    size_t n = 64 << 20;
    char *zeros = calloc(1, n);
    sender(&d, 15);
    compress_message(&d, &wire, zeros, n);
    free(zeros);
    assert_true(wire.len < 1 << 17);
    assert_int_equal(ws_inflate_new(&z, true, 1 << 20), 0);
    assert_int_equal(ws_inflate_feed(z, wire.data, wire.len, true, collect, &got, &ctx), ERR_LIMIT);
    assert_true(got.len <= 1 << 20);
    assert_non_null(strstr(ctx.text, "1048576"));
    assert_int_equal(ws_inflate_feed(z, "\0", 1, true, collect, &got, &ctx), ERR_CORRUPT);
    ws_inflate_free(z);
    deflateEnd(&d);
    buf_release(&wire);
    buf_release(&got);
}

static void test_a_full_buffer_is_said(void **state)
{
    (void)state;
    struct ws_inflate *z;
    struct buf got = BUF_INIT(3);
    assert_int_equal(ws_inflate_new(&z, true, 100), 0);
    assert_int_equal(ws_inflate_message(z, "\xf2\x48\xcd\xc9\xc9\x07\x00", 7, &got, &ctx), ERR_LIMIT);
    ws_inflate_free(z);
    buf_release(&got);
}

static void test_what_is_no_deflate_or_was_cut_is_corrupt(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
    } bad[] = {
        {"\x07", 1}, {"\xff\xff\xff", 3}, {"\xf2\x48\xcd", 3}, {"", 0}, {"\x00\x09\x00\xf6\xff\x48", 6}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct ws_inflate *z;
        struct buf got = BUF_INIT(100);
        assert_int_equal(ws_inflate_new(&z, true, 100), 0);
        if (ws_inflate_message(z, bad[i].bytes, bad[i].n, &got, &ctx) != ERR_CORRUPT)
            fail_msg("case %zu passed", i);
        ws_inflate_free(z);
        buf_release(&got);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_answer_says_windows_and_takeover),
        cmocka_unit_test(test_answers_that_must_fail_the_connection),
        cmocka_unit_test(test_messages_come_back_with_and_without_takeover_in_pieces_of_any_size),
        cmocka_unit_test(test_examples_of_the_rfc),
        cmocka_unit_test(test_a_bomb_ends_at_the_limit),
        cmocka_unit_test(test_a_full_buffer_is_said),
        cmocka_unit_test(test_what_is_no_deflate_or_was_cut_is_corrupt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
