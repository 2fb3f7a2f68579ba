/* WebSocket frames and messages from a byte stream, in pieces of any size. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/clock.h"
#include "util/rng.h"
#include "wire/ws.h"

#define MESSAGE_MAX (1u << 20)

/* What came out of a stream, as text: "text:abc ping: close:1000:bye error:1002". */
static struct buf log_;
static struct err_ctx ctx;

/* Spaces part events, NUL ends strings: both are written in hex. */
static void add_plain(struct buf *b, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if ((uint8_t)p[i] <= 0x20)
            buf_printf(b, "\\%02x", (unsigned)p[i]);
        else
            buf_char(b, p[i]);
    }
}

static void note(const struct ws_message *m)
{
    static const char *const names[] = {[WS_TEXT] = "text",
                                        [WS_BINARY] = "binary",
                                        [WS_CLOSE] = "close",
                                        [WS_PING] = "ping",
                                        [WS_PONG] = "pong"};
    buf_printf(&log_, "%s%s:", log_.len ? " " : "", names[m->opcode]);
    if (m->opcode == WS_CLOSE)
        buf_printf(&log_, "%d:", m->close_code);
    add_plain(&log_, m->p, m->n);
}

/* Feed pieces of `step` bytes, each in memory of its own exact size. */
static const char *run_with(struct ws_parser *w, const void *data, size_t n, size_t step)
{
    buf_reset(&log_);
    for (size_t at = 0; at < n; at += step) {
        size_t len = n - at < step ? n - at : step;
        char *piece = malloc(len), *p = piece;
        struct ws_message m;
        int rc;
        memcpy(piece, (const char *)data + at, len);
        memset(&ctx, 0, sizeof ctx);
        while ((rc = ws_parser_next(w, &p, &len, &m, &ctx)) == 1) {
            note(&m);
            assert_true(m.end <= w->offset && m.start < m.end);
        }
        free(piece);
        if (rc < 0) {
            assert_int_equal(rc, ctx.code);
            assert_non_null(strstr(ctx.text, "WebSocket stream, byte "));
            buf_printf(&log_, "%serror:%d", log_.len ? " " : "", w->close_code);
            assert_true(ws_parser_next(w, &p, &len, &m, NULL) < 0);
            break;
        }
    }
    return buf_cstr(&log_);
}

static const char *run(enum ws_peer_role role, const void *data, size_t n, size_t step)
{
    static char copy[1 << 16];
    struct ws_parser w;
    ws_parser_init(&w, role, MESSAGE_MAX);
    snprintf(copy, sizeof copy, "%s", run_with(&w, data, n, step));
    ws_parser_release(&w);
    return copy;
}

#define EXPECT(role, bytes, want)                                                                            \
    do {                                                                                                     \
        for (size_t step_ = 1; step_ <= sizeof(bytes); step_++)                                              \
            assert_string_equal(run(role, bytes, sizeof(bytes) - 1, step_), want);                           \
    } while (0)

/* RFC 6455 section 5.7 */
static void test_examples_of_the_rfc(void **state)
{
    (void)state;
    EXPECT(WS_FROM_SERVER, "\x81\x05Hello", "text:Hello");
    EXPECT(WS_FROM_CLIENT, "\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", "text:Hello");
    EXPECT(WS_FROM_SERVER, "\x01\x03Hel\x80\x02lo", "text:Hello");
    EXPECT(WS_FROM_SERVER, "\x89\x05Hello\x8a\x00", "ping:Hello pong:");
    EXPECT(WS_FROM_CLIENT, "\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", "pong:Hello");
}

static void test_control_frames_come_out_between_fragments(void **state)
{
    (void)state;
    EXPECT(WS_FROM_SERVER, "\x01\x02\xce\xba\x89\x01x\x00\x00\x00\x01\xe1\x8a\x02yz\x80\x02\xbd\xb9\x82\x01q",
           "ping:x pong:yz text:\xce\xba\xe1\xbd\xb9 binary:q");
    EXPECT(WS_FROM_SERVER,
           "\x01\x03one\x88\x05\x03\xe9"
           "bye\x80\x03two",
           "close:1001:bye");
    EXPECT(WS_FROM_SERVER, "\x88\x00\x81\x01x", "close:1005:");
    EXPECT(WS_FROM_SERVER, "\x01\x00\x80\x00\x81\x00", "text: text:");
}

static void test_violations_close_with_the_right_code(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *want;
        size_t n;
    } cases[] = {
#define CASE(bytes, want) {bytes, want, sizeof(bytes) - 1}
        CASE("\x81\x80\x00\x00\x00\x00", "error:1002"), /* masked */
        CASE("\xc1\x00", "error:1002"),
        CASE("\xa1\x00", "error:1002"),
        CASE("\x91\x00", "error:1002"),
        CASE("\x83\x00", "error:1002"),
        CASE("\x8b\x00", "error:1002"),
        CASE("\x8f\x00", "error:1002"),
        CASE("\x09\x00", "error:1002"),
        CASE("\x89\x7e\x00\x7e", "error:1002"),
        CASE("\x80\x00", "error:1002"),
        CASE("\x00\x01x", "error:1002"),
        CASE("\x01\x01x\x81\x01y", "error:1002"),
        CASE("\x81\x7e\x00\x7d", "error:1002"),                         /* 125 in two bytes */
        CASE("\x81\x7f\x00\x00\x00\x00\x00\x00\xff\xff", "error:1002"), /* 65535 in eight */
        CASE("\x81\x7f\x80\x00\x00\x00\x00\x00\x00\x00", "error:1002"),
        CASE("\x81\x7f\x00\x00\x00\x00\x00\x10\x00\x01", "error:1009"), /* 1 MiB + 1 */
        CASE("\x88\x01\x03", "error:1002"),
        CASE("\x88\x02\x03\xed", "error:1002"), /* 1005 */
        CASE("\x88\x02\x00\x00", "error:1002"),
        CASE("\x88\x02\x0b\xb7", "error:1002"), /* 2999 */
        CASE("\x88\x03\x03\xe8\xff", "error:1007"),
        CASE("\x88\x04\x03\xe8\xe2\x82", "error:1007"),
        CASE("\x81\x01\xff", "error:1007"),
        CASE("\x81\x02\xe2\x82", "error:1007"),
        CASE("\x01\x01\xf4\x80\x01\x90", "error:1007"),
        CASE("\x01\x02\xf4\x90", "error:1007"), /* at once, not at the end */
        CASE("\x81\x03\xed\xa0\x80", "error:1007"),
        CASE("\x81\x02\xc0\x80", "error:1007"),
        CASE("\x81\x01x\x81\x01\xff\x81\x01y", "text:x error:1007"),
        CASE("\x82\x01\xff", "binary:\xff"),
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (size_t step = 1; step <= cases[i].n; step++) {
            if (strcmp(run(WS_FROM_SERVER, cases[i].bytes, cases[i].n, step), cases[i].want) != 0)
                fail_msg("case %zu in steps of %zu: %s, not %s", i, step, buf_cstr(&log_), cases[i].want);
        }
    }
    EXPECT(WS_FROM_CLIENT, "\x81\x00", "error:1002");
    EXPECT(WS_FROM_ANYONE, "\x81\x00\x81\x80zzzz", "text: text:");
}

static void test_fragments_together_obey_the_limit(void **state)
{
    (void)state;
    struct ws_parser w;
    ws_parser_init(&w, WS_FROM_SERVER, 5);
    assert_string_equal(run_with(&w,
                                 "\x01\x03"
                                 "abc"
                                 "\x80\x02"
                                 "de"
                                 "\x89\x06"
                                 "123456",
                                 17, 100),
                        "text:abcde ping:123456");
    assert_string_equal(run_with(&w,
                                 "\x01\x03"
                                 "abc"
                                 "\x80\x03",
                                 7, 2),
                        "error:1009");
    ws_parser_release(&w);
}

static void test_whole_messages_are_not_copied_and_idle_holds_no_memory(void **state)
{
    (void)state;
    struct ws_parser w;
    struct ws_message m;
    char bytes[] = "\x81\x03"
                   "abc"
                   "\x81\x04"
                   "de",
         *p = bytes;
    size_t n = 9;
    ws_parser_init(&w, WS_FROM_SERVER, MESSAGE_MAX);
    assert_int_equal(ws_parser_next(&w, &p, &n, &m, NULL), 1);
    assert_ptr_equal(m.p, bytes + 2);
    assert_null(w.held.data);
    assert_false(ws_parser_midway(&w));
    assert_int_equal(ws_parser_next(&w, &p, &n, &m, NULL), 0);
    assert_non_null(w.held.data);
    assert_true(ws_parser_midway(&w));
    char rest[] = "fg";
    p = rest;
    n = 2;
    assert_int_equal(ws_parser_next(&w, &p, &n, &m, NULL), 1);
    assert_memory_equal(m.p, "defg", 4);
    assert_int_equal(m.start, 5);
    assert_int_equal(m.end, 11);
    assert_int_equal(ws_parser_next(&w, &p, &n, &m, NULL), 0);
    assert_null(w.held.data);
    ws_parser_release(&w);
}

static void test_lengths_round_trip_through_header_and_mask(void **state)
{
    (void)state;
    static const uint64_t lens[] = {0, 1, 125, 126, 127, 65535, 65536, 1ull << 40, INT64_MAX};
    struct rng r;
    rng_seed(&r, 3);
    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) {
        struct ws_header h = {.fin = i & 1,
                              .masked = i & 2,
                              .rsv = (uint8_t)(i & 7),
                              .opcode = 2,
                              .len = lens[i]},
                         back;
        uint8_t out[WS_HEADER_MAX];
        if (h.masked)
            memcpy(h.mask, "\x01\x02\x03\x04", 4);
        size_t n = ws_header_encode(out, &h);
        for (size_t cut = 0; cut < n; cut++)
            assert_int_equal(ws_header_parse(&back, out, cut), 0);
        assert_int_equal(ws_header_parse(&back, out, n), n);
        assert_memory_equal(&back, &h, sizeof h);
    }
    for (int k = 0; k < 1000; k++) { /* any cut of a payload is masked as the whole */
        uint8_t a[100], b[100], mask[4] = {9, 200, 7, 0x80};
        size_t n = rng_below(&r, 100), cut = rng_below(&r, n + 1);
        for (size_t i = 0; i < n; i++)
            a[i] = b[i] = (uint8_t)rng_u64(&r);
        ws_mask(a, cut, mask, 0);
        ws_mask(a + cut, n - cut, mask, cut);
        for (size_t i = 0; i < n; i++)
            b[i] ^= mask[i & 3];
        assert_memory_equal(a, b, n);
    }
}

static void test_random_streams_come_out_the_same_in_any_pieces(void **state)
{
    (void)state;
    struct rng r;
    struct buf stream = BUF_INIT(1 << 20), want = BUF_INIT(1 << 20);
    rng_seed(&r, 11);
    for (int k = 0; k < 300; k++) {
        buf_reset(&stream);
        buf_reset(&want);
        for (uint64_t i = 1 + rng_below(&r, 8); i; i--) {
            char text[300];
            uint8_t mask[4] = {(uint8_t)rng_u64(&r), 2, 3, 4};
            size_t n = rng_below(&r, rng_below(&r, 3) ? 20 : sizeof text);
            bool ping = n <= WS_CONTROL_MAX && rng_below(&r, 3) == 0;
            for (size_t c = 0; c < n; c++)
                text[c] = (char)('a' + rng_below(&r, 26));
            ws_frame(&stream, ping ? WS_PING : WS_TEXT, text, n, mask);
            buf_printf(&want, "%s%s:%.*s", want.len ? " " : "", ping ? "ping" : "text", (int)n, text);
        }
        for (int t = 0; t < 3; t++)
            assert_string_equal(run(WS_FROM_CLIENT, stream.data, stream.len, 1 + rng_below(&r, stream.len)),
                                buf_cstr(&want));
    }
    buf_release(&stream);
    buf_release(&want);
}

static void test_close_payload(void **state)
{
    (void)state;
    uint8_t out[WS_CONTROL_MAX];
    assert_int_equal(ws_close_payload(out, 4103, "no"), 4);
    assert_memory_equal(out, "\x10\x07no", 4);
    char text[200];
    memset(text, 'a', sizeof text);
    memcpy(text + 121, "\xe2\x82\xac\0", 4); /* would be cut in the middle of a character */
    assert_int_equal(ws_close_payload(out, 1000, text), 2 + 121);
    assert_int_equal(ws_close_payload(out, 1000, NULL), 2);
    for (int code = 0; code < 6000; code++) {
        bool want =
            (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code < 5000);
        assert_int_equal(ws_close_code_ok(code), want);
    }
}

/* --- Autobahn's cases ------------------------------------------------------------------------------- */

static bool hex_append(struct buf *b, const char *hex)
{
    for (; *hex; hex += 2) {
        unsigned v;
        if (sscanf(hex, "%2x", &v) != 1)
            return false; /* cut by the suite itself: " ..." */
        buf_char(b, (char)v);
    }
    return true;
}

/* The octets that the fuzzing side sent after the handshake; false if some of them were cut or not logged. */
static bool sent_octets(const json_t *report, struct buf *b)
{
    size_t i;
    json_t *e, *log = json_object_get(report, "wirelog");
    bool first = true;
    buf_reset(b);
    json_array_foreach(log, i, e)
    {
        const char *kind = json_string_value(json_array_get(e, 0));
        if (strcmp(kind, "WLM") == 0)
            return false;
        if (strcmp(kind, "TO") != 0)
            continue;
        if (first) { /* the handshake */
            first = false;
            continue;
        }
        if (!hex_append(b, json_string_value(json_array_get(json_array_get(e, 1), 1))))
            return false;
    }
    return true;
}

/* One list of events that Autobahn takes for right, in the words of note(). NULL when a text was cut. */
static const char *expected(const json_t *list, struct buf *b)
{
    size_t i;
    json_t *e;
    buf_reset(b);
    json_array_foreach(list, i, e)
    {
        const char *kind = json_string_value(json_array_get(e, 0)),
                   *text = json_string_value(json_array_get(e, 1));
        bool binary = json_is_true(json_array_get(e, 2));
        size_t n = json_string_length(json_array_get(e, 1));
        struct buf raw = BUF_INIT(1 << 20);
        if (strcmp(kind, "timeout") == 0)
            continue;
        if (n > 4 && strcmp(text + n - 4, " ...") == 0)
            return NULL;
        buf_printf(b, "%s%s:", b->len ? " " : "",
                   strcmp(kind, "message") != 0 ? "ping"
                   : binary                     ? "binary"
                                                : "text");
        if (strncmp(text, "0x", 2) != 0)
            add_plain(b, text, n);
        else if (hex_append(&raw, text + 2))
            add_plain(b, raw.data, raw.len);
        buf_release(&raw);
    }
    return buf_cstr(b);
}

/* Take out what an answer is not expected to: pongs, and pings after the case ended (the report's own). */
static bool fits(const char *got, const char *want)
{
    char clean[1 << 16], *o = clean;
    for (const char *p = got; *p;) {
        size_t n = strcspn(p, " ");
        bool pong =
            strncmp(p, "pong:", 5) == 0 || strncmp(p, "close:", 6) == 0 || strncmp(p, "error:", 6) == 0;
        if (pong) { /* up to the next event */
            p += n + (p[n] == ' ');
            continue;
        }
        if (o > clean)
            *o++ = ' ';
        memcpy(o, p, n);
        o += n;
        p += n + (p[n] == ' ');
    }
    *o = 0;
    return strcmp(clean, want) == 0;
}

static bool close_fits(const json_t *report, const char *got)
{
    const json_t *want = json_object_get(json_object_get(report, "expectedClose"), "closeCode");
    const char *at = strstr(got, "error:");
    at = at ? at : strstr(got, "close:");
    if (!at)
        return false;
    json_int_t code = atoi(at + strlen("error:"));
    if (code == 1014)
        return true; /* in IANA's registry since; this edition of the suite did not know it yet */
    code = code == WS_CLOSE_NONE ? WS_CLOSE_NORMAL : code;
    size_t i;
    json_t *v;
    if (!json_is_array(want))
        return true;
    json_array_foreach(want, i, v)
    {
        if (json_integer_value(v) == code)
            return true;
    }
    return json_array_size(want) == 0;
}

static void autobahn(const char *path, enum ws_peer_role role)
{
    FILE *f = fopen(path, "r");
    char *line = NULL;
    size_t cap = 0, judged = 0, left_out = 0;
    struct buf sent = BUF_INIT(1 << 22), want = BUF_INIT(1 << 22);
    if (!f) {
        print_message("# %s is absent\n", path);
        skip();
    }
    while (getline(&line, &cap, f) > 0) {
        json_t *report = json_loads(line, JSON_ALLOW_NUL, NULL);
        for (char *p = line; !report && (p = strstr(p, "\\ud"));) /* halves of surrogate pairs, in prose */
            memcpy(p, "??????", 6);
        report = report ? report : json_loads(line, JSON_ALLOW_NUL, NULL);
        assert_non_null(report);
        const char *id = json_string_value(json_object_get(report, "id"));
        bool good = false, cut = false;
        const char *key;
        json_t *list;
        const char *behavior = json_string_value(json_object_get(report, "behavior"));
        /* a tested peer that failed a case broke it off: not all octets were sent */
        if (!strcmp(behavior, "FAILED") || !strncmp(id, "12.", 3) || !strncmp(id, "13.", 3) ||
            !sent_octets(report, &sent) || !sent.len) {
            left_out++;
            json_decref(report);
            continue;
        }
        json_object_foreach(json_object_get(report, "expected"), key, list)
        {
            const char *text = expected(list, &want);
            cut |= !text;
            for (size_t step = 1; text && step < sent.len + 7 && !good; step = step * 3 + 1)
                good |=
                    fits(run(role, sent.data, sent.len, step), text) && close_fits(report, buf_cstr(&log_));
        }
        bool none = json_object_size(json_object_get(report, "expected")) == 0;
        if (!good && !cut && !none)
            fail_msg("%s case %s: got '%s', want '%s', close %s", path, id,
                     run(role, sent.data, sent.len, sent.len), buf_cstr(&want),
                     json_dumps(json_object_get(json_object_get(report, "expectedClose"), "closeCode"),
                                JSON_ENCODE_ANY));
        judged += good;
        left_out += !good;
        json_decref(report);
    }
    print_message("# %s: %zu cases judged, %zu left out (cut octets, broken off, compression)\n", path,
                  judged, left_out);
    assert_true(judged > 150);
    free(line);
    fclose(f);
    buf_release(&sent);
    buf_release(&want);
}

static void test_autobahn_client_frames(void **state)
{
    (void)state;
    autobahn("../shared/data/ws-vectors/autobahn-server-cases.jsonl", WS_FROM_CLIENT);
}

static void test_autobahn_server_frames(void **state)
{
    (void)state;
    autobahn("../shared/data/ws-vectors/autobahn-client-cases.jsonl", WS_FROM_SERVER);
}

static void test_foreign_fuzz_corpus_ends_the_same_in_any_pieces(void **state)
{
    (void)state;
    FILE *f = fopen("../shared/data/ws-vectors/frame-fuzz-corpus.jsonl", "r");
    char *line = NULL;
    size_t cap = 0, count = 0;
    struct buf b = BUF_INIT(1 << 20);
    if (!f) {
        print_message("# ../shared/data/ws-vectors is absent\n");
        skip();
    }
    while (getline(&line, &cap, f) > 0) {
        json_t *o = json_loads(line, 0, NULL);
        char whole[1 << 12];
        buf_reset(&b);
        assert_true(hex_append(&b, json_string_value(json_object_get(o, "hex"))));
        for (int role = 0; b.len && role < 3; role++) {
            snprintf(whole, sizeof whole, "%s", run((enum ws_peer_role)role, b.data, b.len, b.len));
            for (size_t step = 1; step < b.len; step += 1 + b.len / 8)
                assert_string_equal(run((enum ws_peer_role)role, b.data, b.len, step), whole);
        }
        json_decref(o);
        count++;
    }
    free(line);
    fclose(f);
    buf_release(&b);
    assert_true(count > 600);
}

static void test_unmasking_is_fast(void **state)
{
    (void)state;
    static uint8_t big[1 << 20];
    const uint8_t mask[4] = {1, 2, 3, 4};
    uint64_t best = UINT64_MAX;
    for (int k = 0; k < 10; k++) {
        uint64_t t = clock_mono_ns();
        ws_mask(big, sizeof big, mask, (size_t)k);
        t = clock_mono_ns() - t;
        best = t < best ? t : best;
    }
    print_message("# unmask %.1f GB/s\n", (double)sizeof big / (double)best);
    assert_true(best < 20000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_examples_of_the_rfc),
        cmocka_unit_test(test_control_frames_come_out_between_fragments),
        cmocka_unit_test(test_violations_close_with_the_right_code),
        cmocka_unit_test(test_fragments_together_obey_the_limit),
        cmocka_unit_test(test_whole_messages_are_not_copied_and_idle_holds_no_memory),
        cmocka_unit_test(test_lengths_round_trip_through_header_and_mask),
        cmocka_unit_test(test_random_streams_come_out_the_same_in_any_pieces),
        cmocka_unit_test(test_close_payload),
        cmocka_unit_test(test_autobahn_client_frames),
        cmocka_unit_test(test_autobahn_server_frames),
        cmocka_unit_test(test_foreign_fuzz_corpus_ends_the_same_in_any_pieces),
        cmocka_unit_test(test_unmasking_is_fast),
    };
    buf_init(&log_, 1 << 24);
    int rc = cmocka_run_group_tests_name("ws", tests, NULL, NULL);
    buf_release(&log_);
    return rc;
}
