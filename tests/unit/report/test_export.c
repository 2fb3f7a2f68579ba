/* What every form owes: each write may fail, and then it ends; text from outside stays text; blocks of pcapng
 * are closed. (Whole forms are read back in tests/e2e/test_trace_export.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "report/export.h"
#include "trace/rows.h"
#include "util/text.h"
#include "wire/pcapng.h"

struct sink {
    struct buf all;
    int writes, fail_at; /* the write of this number fails; 0: none */
};

static int put(void *arg, const void *p, size_t n, struct err_ctx *ctx)
{
    struct sink *s = arg;
    if (++s->writes == s->fail_at)
        return err_set(ctx, ERR_FULL, "the disk is full");
    assert_true(s->fail_at == 0 || s->writes < s->fail_at); /* nothing comes after a failure */
    buf_add(&s->all, p, n);
    return 0;
}

/* 7 tells 8 something `n` times; it arrives. */
static void make_run(struct trace_run *r, struct trace_event *e, uint32_t n)
{
    uint32_t at = 0;
    e[at++] = (struct trace_event){.ts_ns = 1, .hop = HOP_SERVER_MEMBER, .chat = 17, .user = 8, .node = 1};
    for (uint32_t i = 0; i < n; i++) {
        struct id id = {{0x01, 0x9a, (uint8_t)(i >> 8), (uint8_t)i, 0, 1, 0x70, 0, 0x80, 1}};
        uint8_t hop[] = {HOP_CLIENT_SUBMIT, HOP_SERVER_RECEIVE, HOP_SERVER_FANOUT, HOP_SERVER_PUSH,
                         HOP_CLIENT_SURFACE};
        for (uint32_t k = 0; k < 5; k++)
            e[at++] = (struct trace_event){.ts_ns = 1000 + i * 100 + k,
                                           .id = id,
                                           .hop = hop[k],
                                           .chat = 17,
                                           .user = k < 3 ? 7 : 8,
                                           .arg = 1,
                                           .node = k == 0 || k == 4 ? TRACE_NODE_LOAD : TRACE_NODE_SERVER};
    }
    struct trace_memory part = {.node = 1, .event = e, .n = at, .emitted = at};
    assert_int_equal(trace_run_from_memory(r, &part, 1, NULL), 0);
    assert_int_equal(trace_join(r, NULL), 0);
}

static void test_a_write_that_fails_ends_the_export_whichever_it_is(void **state)
{
    (void)state;
    static struct trace_event e[5 * 3000 + 1];
    struct trace_run r;
    struct export_counts counts;
    make_run(&r, e, 3000);
    for (int f = 0; f < EXPORT_FORMATS; f++) {
        struct sink whole = {.all = BUF_INIT(64u << 20)};
        struct export_sink sink = {put, &whole};
        assert_int_equal(export_trace((enum export_format)f, &r, "t", &sink, &counts, NULL), 0);
        assert_true(whole.writes >= 1 && whole.all.len > 100);
        for (int at = 1; at <= whole.writes; at++) {
            struct sink broken = {.all = BUF_INIT(64u << 20), .fail_at = at};
            struct err_ctx err = {0};
            sink.arg = &broken;
            assert_int_equal(export_trace((enum export_format)f, &r, "t", &sink, &counts, &err), ERR_FULL);
            assert_non_null(strstr(err.text, "disk"));
            buf_release(&broken.all);
        }
        buf_release(&whole.all);
    }
    trace_run_release(&r);
}

static void test_an_empty_run_has_every_form(void **state)
{
    (void)state;
    struct trace_run r;
    struct export_counts counts;
    assert_int_equal(trace_run_from_memory(&r, NULL, 0, NULL), 0);
    assert_int_equal(trace_join(&r, NULL), 0);
    for (int f = 0; f < EXPORT_FORMATS; f++) {
        struct sink s = {.all = BUF_INIT(1u << 20)};
        struct export_sink sink = {put, &s};
        assert_int_equal(export_trace((enum export_format)f, &r, "", &sink, &counts, NULL), 0);
        buf_release(&s.all);
    }
    trace_run_release(&r);
}

static void test_large_numbers_are_strings_in_rows(void **state)
{
    (void)state;
    struct buf b = BUF_INIT(4096);
    struct trace_event e = {.hop = HOP_SERVER_EPOCH, .arg = (1ull << 53) - 1};
    trace_row_record(&b, &e, -1);
    assert_non_null(strstr(buf_cstr(&b), "\"arg\":9007199254740991,"));
    buf_reset(&b);
    e.arg++;
    trace_row_record(&b, &e, 3);
    assert_non_null(strstr(buf_cstr(&b), "\"arg\":\"9007199254740992\","));
    assert_int_equal(strncmp(b.data, "{\"source\":3,\"ts_ns\":0,", 22), 0);
    buf_release(&b);
}

static void test_text_from_outside_is_valid_on_one_line(void **state)
{
    (void)state;
    char out[32];
    assert_string_equal(text_clean(out, sizeof out, "a\nb\x01\x7f"), "a b  ");
    assert_string_equal(text_clean(out, sizeof out, "\xff\xc3(\xc3\xa4\xed\xa0\x80"), "?\?(\xc3\xa4???");
    assert_string_equal(text_clean(out, sizeof out, "\xf0\x9f\x98\x80\xf4\x90\x80\x80\xc0\x80"),
                        "\xf0\x9f\x98\x80??????");
    assert_string_equal(text_clean(out, 4, "ab\xc3\xa4"), "ab"); /* no half character */
    assert_string_equal(text_clean(out, 1, "ab"), "");
}

static void test_pcapng_blocks_are_closed_and_texts_have_an_end(void **state)
{
    (void)state;
    static char longer[70000];
    struct buf b = BUF_INIT(1u << 20);
    memset(longer, 'x', sizeof longer - 1);
    memcpy(longer + PCAPNG_TEXT_MAX - 1, "\xc3\xa4", 2); /* a character across the end */
    pcapng_section(&b, longer, "t");
    pcapng_interface(&b, PCAPNG_RAW_IP, "a", NULL);
    pcapng_packet(
        &b, &(struct pcapng_packet){.data = "abcde", .len = 5, .comment = longer, .comment_len = 69999});
    pcapng_statistics(&b, 0, 1, 2, 3);
    size_t at = 0, blocks = 0;
    for (uint32_t n; at < b.len; at += n, blocks++) {
        uint32_t tail;
        memcpy(&n, b.data + at + 4, 4);
        assert_true(n % 4 == 0 && at + n <= b.len);
        memcpy(&tail, b.data + at + n - 4, 4);
        assert_int_equal(n, tail);
    }
    assert_int_equal(blocks, 4);
    uint16_t length;
    memcpy(&length, b.data + 24 + 2, 2);
    assert_int_equal(length, PCAPNG_TEXT_MAX - 1);
    buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_write_that_fails_ends_the_export_whichever_it_is),
        cmocka_unit_test(test_an_empty_run_has_every_form),
        cmocka_unit_test(test_large_numbers_are_strings_in_rows),
        cmocka_unit_test(test_text_from_outside_is_valid_on_one_line),
        cmocka_unit_test(test_pcapng_blocks_are_closed_and_texts_have_an_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
