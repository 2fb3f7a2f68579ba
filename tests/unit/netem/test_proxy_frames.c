/* The proxy follows WebSocket streams: faults at the n-th frame and at the frame that holds an id. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/netem/proxy_rig.h"

static const size_t steps[] = {1, 2, 7, 100, 1 << 20};
#define STEPS (sizeof steps / sizeof *steps)

#define MESSAGE(id) "{\"t\":\"send\",\"id\":\"" id "\",\"chat\":\"17\",\"kind\":\"text\",\"body\":\"hello\"}"

/* The stream goes in by steps; exactly its first `want` bytes come out, and the connection ends. */
static void cut_at(struct rig *g, enum netem_dir d, const struct buf *stream, size_t want, const char *said)
{
    rig_settle(g);
    if (g->out[d].len != want)
        fail_msg("%zu bytes came out, not %zu; said '%s'", g->out[d].len, want, buf_cstr(&g->said));
    assert_true(!want || memcmp(g->out[d].data, stream->data, want) == 0);
    assert_int_equal(g->end, PROXY_ENDS_CLOSE);
    if (said && strcmp(buf_cstr(&g->said), said))
        fail_msg("said '%s', not '%s'", buf_cstr(&g->said), said);
}

static size_t handshake_bytes(const struct rig *g, enum netem_dir d)
{
    return (size_t)proxy_conn_bytes(g->c, d);
}

static void test_cut_in_the_middle_of_the_nth_frame_whatever_the_pieces(void **state)
{
    (void)state;
    for (size_t i = 0; i < STEPS; i++) {
        for (int d = 0; d < 2; d++) {
            RIG(g, 1, d == NETEM_UP ? "cut:nth=2,dir=up,at=50%" : "cut:nth=2,dir=down,at=50%");
            rig_upgrade(&g, NULL);
            struct buf b = BUF_INIT(4096);
            text_frame(&b, "one", d == NETEM_UP);
            frame(&b, true, false, WS_PING, "x", 1, d == NETEM_UP); /* control frames do not count */
            size_t first = b.len;
            text_frame(&b, "0123456789", d == NETEM_UP);
            size_t second = b.len - first;
            text_frame(&b, "three", d == NETEM_UP);
            rig_put(&g, (enum netem_dir)d, b.data, b.len, steps[i]);
            cut_at(&g, (enum netem_dir)d, &b, first + second / 2, NULL);
            buf_release(&b);
            rig_end(&g);
        }
    }
}

static void test_places_in_a_frame(void **state)
{
    (void)state;
    static const struct {
        const char *spec;
        size_t want; /* of a frame of 12 bytes */
    } cases[] = {{"cut:nth=1,at=0%", 0},     {"cut:nth=1,at=0.01%", 1}, {"cut:nth=1,at=25%", 3},
                 {"cut:nth=1,at=99.9%", 11}, {"cut:nth=1,at=100%", 12}, {"cut:nth=1,at=1B", 1},
                 {"cut:nth=1,at=5", 5},      {"cut:nth=1,at=1kB", 12}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        for (size_t i = 0; i < STEPS; i++) {
            RIG(g, 1, cases[k].spec);
            rig_upgrade(&g, NULL);
            struct buf b = BUF_INIT(4096);
            text_frame(&b, "0123456789", false);
            text_frame(&b, "more", false);
            rig_put(&g, NETEM_DOWN, b.data, b.len, steps[i]);
            cut_at(&g, NETEM_DOWN, &b, cases[k].want, NULL);
            buf_release(&b);
            rig_end(&g);
        }
    }
}

static void test_cut_by_id_in_text(void **state)
{
    (void)state;
    for (size_t i = 0; i < STEPS; i++) {
        for (int d = 0; d < 2; d++) {
            RIG(g, 1, "cut:id=" ID_A ",at=50%");
            rig_upgrade(&g, NULL);
            struct buf b = BUF_INIT(4096);
            text_frame(&b, MESSAGE(ID_B), d == NETEM_UP);
            size_t first = b.len;
            text_frame(&b, MESSAGE("0193A1C2-7B1E-7C4A-9D55-0A1B2C3D4E5F"), d == NETEM_UP);
            size_t second = b.len - first;
            text_frame(&b, "more", d == NETEM_UP);
            size_t before = handshake_bytes(&g, (enum netem_dir)d);
            char said[64];
            snprintf(said, sizeof said, "cut@%zu#2=4e5f ", before + first + second / 2);
            rig_put(&g, (enum netem_dir)d, b.data, b.len, steps[i]);
            cut_at(&g, (enum netem_dir)d, &b, first + second / 2, said);
            buf_release(&b);
            rig_end(&g);
        }
    }
}

static void test_cut_by_id_in_binary_frames_finds_the_raw_bytes(void **state)
{
    (void)state;
    for (size_t i = 0; i < STEPS; i++) {
        RIG(g, 1, "cut:id=" ID_A ",dir=up,at=70%");
        rig_upgrade(&g, NULL);
        struct buf b = BUF_INIT(4096);
        struct id id;
        uint8_t body[100] = {1, 2, 3};
        assert_int_equal(id_parse(&id, ID_B, ID_TEXT), 0);
        memcpy(body + 30, id.b, ID_BYTES);
        frame(&b, true, false, WS_BINARY, body, sizeof body, true);
        size_t first = b.len;
        assert_int_equal(id_parse(&id, ID_A, ID_TEXT), 0);
        body[29] = id.b[0]; /* a false start */
        memcpy(body + 30, id.b, ID_BYTES);
        frame(&b, true, false, WS_BINARY, body, sizeof body, true);
        size_t second = b.len - first;
        rig_put(&g, NETEM_UP, b.data, b.len, steps[i]);
        cut_at(&g, NETEM_UP, &b, first + second * 7 / 10, NULL);
        buf_release(&b);
        rig_end(&g);
    }
}

/* The id begins in one fragment, and ends, behind a ping, in another one: that one is cut. */
static void test_cut_by_id_that_straddles_fragments(void **state)
{
    (void)state;
    const char *m = MESSAGE(ID_A);
    for (size_t split = 15; split < 60; split += 5) {
        for (size_t i = 0; i < STEPS; i++) {
            RIG(g, 1, "cut:id=" ID_A ",dir=down,at=50%");
            rig_upgrade(&g, NULL);
            struct buf b = BUF_INIT(4096);
            size_t n = strlen(m), id_end = 19 + ID_TEXT - 1, start[3], len[3];
            start[0] = b.len;
            frame(&b, false, false, WS_TEXT, m, split, false);
            len[0] = b.len - start[0];
            frame(&b, true, false, WS_PING, ID_A, ID_TEXT, false); /* not in a control frame */
            start[1] = b.len;
            frame(&b, false, false, WS_CONTINUATION, m + split, 10, false);
            len[1] = b.len - start[1];
            start[2] = b.len;
            frame(&b, true, false, WS_CONTINUATION, m + split + 10, n - split - 10, false);
            len[2] = b.len - start[2];
            const char *at = strstr(m, ID_A);
            id_end = (size_t)(at - m) + ID_TEXT; /* behind its last byte */
            int which = id_end <= split ? 0 : id_end <= split + 10 ? 1 : 2;
            rig_put(&g, NETEM_DOWN, b.data, b.len, steps[i]);
            cut_at(&g, NETEM_DOWN, &b, start[which] + len[which] / 2, NULL);
            buf_release(&b);
            rig_end(&g);
        }
    }
}

static void test_an_id_that_repeats_itself_is_found_behind_a_false_start(void **state)
{
    (void)state;
    for (size_t i = 0; i < STEPS; i++) {
        RIG(g, 1, "cut:id=aaaaaaaa-aaaa-7aaa-8aaa-aaaaaaaaaaaa,at=100%");
        rig_upgrade(&g, NULL);
        struct buf b = BUF_INIT(4096);
        text_frame(&b, "aaaaaaaa-aaaa-aaaaaaaaaa-aaaa-7aaa-8aaa-aaaaaaaaaaaa", false);
        size_t first = b.len;
        text_frame(&b, "more", false);
        rig_put(&g, NETEM_DOWN, b.data, b.len, steps[i]);
        cut_at(&g, NETEM_DOWN, &b, first, NULL);
        buf_release(&b);
        rig_end(&g);
    }
}

static void test_two_messages_do_not_make_an_id(void **state)
{
    (void)state;
    RIG(g, 1, "cut:id=" ID_A);
    rig_upgrade(&g, NULL);
    struct buf b = BUF_INIT(4096);
    for (size_t split = 1; split < ID_TEXT; split++) {
        frame(&b, true, false, WS_TEXT, ID_A, split, false);
        frame(&b, true, false, WS_TEXT, ID_A + split, ID_TEXT - split, false);
    }
    rig_put(&g, NETEM_DOWN, b.data, b.len, 50);
    assert_int_equal(g.end, PROXY_GOES_ON);
    assert_int_equal(g.out[NETEM_DOWN].len, b.len);
    buf_release(&b);
    rig_end(&g);
}

static void compressed(bool takeover, bool fragmented, size_t step)
{
    static uint8_t z_out[65536];
    z_stream z = {0};
    struct buf b = BUF_INIT(1 << 20);
    size_t start = 0, len = 0;
    RIG(g, 1, "cut:id=" ID_A ",dir=up,at=50%");
    rig_upgrade(&g, takeover ? "permessage-deflate" : "permessage-deflate; client_no_context_takeover");
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY), Z_OK);
    for (int i = 0; i < 6; i++) {
        const char *m = i == 4 ? MESSAGE(ID_A) : MESSAGE(ID_B);
        size_t n = deflated(&z, z_out, sizeof z_out, m, strlen(m));
        if (!takeover)
            deflateReset(&z);
        if (takeover && i == 4)
            assert_true(n < 30); /* the id is hardly there: most of it lies in the window */
        start = i == 4 ? b.len : start;
        if (fragmented) {
            frame(&b, false, true, WS_TEXT, z_out, n / 3, true);
            frame(&b, true, false, WS_PING, "", 0, true);
            start = i == 4 ? b.len : start;
            frame(&b, true, false, WS_CONTINUATION, z_out + n / 3, n - n / 3, true);
        } else {
            frame(&b, true, true, WS_TEXT, z_out, n, true);
        }
        len = i == 4 ? b.len - start : len;
    }
    rig_put(&g, NETEM_UP, b.data, b.len, step);
    cut_at(&g, NETEM_UP, &b, start + len / 2, NULL);
    deflateEnd(&z);
    buf_release(&b);
    rig_end(&g);
}

static void test_cut_by_id_in_compressed_frames(void **state)
{
    (void)state;
    for (size_t i = 0; i < STEPS; i++) {
        compressed(false, false, steps[i]);
        compressed(true, false, steps[i]);
        compressed(false, true, steps[i]);
        compressed(true, true, steps[i]);
    }
}

static void test_an_id_is_cut_once_so_that_its_resend_passes(void **state)
{
    (void)state;
    RIG(g, 1, "cut:id=" ID_A ",dir=up");
    struct buf b = BUF_INIT(4096);
    text_frame(&b, MESSAGE(ID_A), true);
    rig_upgrade(&g, NULL);
    rig_put(&g, NETEM_UP, b.data, b.len, 10);
    cut_at(&g, NETEM_UP, &b, b.len / 2, NULL);
    rig_connect(&g, 2);
    rig_upgrade(&g, NULL);
    rig_put(&g, NETEM_UP, b.data, b.len, 10);
    assert_int_equal(g.out[NETEM_UP].len, b.len);
    assert_int_equal(g.end, PROXY_GOES_ON);
    buf_release(&b);
    rig_end(&g);
}

static void test_a_frame_is_said_again(void **state)
{
    (void)state;
    static const char *const specs[] = {"duplicate:nth=2,dir=down,copies=2",
                                        "duplicate:id=" ID_A ",copies=2"};
    for (int k = 0; k < 2; k++) {
        for (size_t i = 0; i < STEPS; i++) {
            RIG(g, 1, specs[k]);
            rig_upgrade(&g, NULL);
            struct buf in = BUF_INIT(4096), want = BUF_INIT(4096);
            text_frame(&in, "one", false);
            text_frame(&in, MESSAGE(ID_A), false);
            text_frame(&in, "three", false);
            text_frame(&want, "one", false);
            for (int c = 0; c < 3; c++)
                text_frame(&want, MESSAGE(ID_A), false);
            text_frame(&want, "three", false);
            rig_put(&g, NETEM_DOWN, in.data, in.len, steps[i]);
            assert_int_equal(g.out[NETEM_DOWN].len, want.len);
            assert_memory_equal(g.out[NETEM_DOWN].data, want.data, want.len);
            buf_release(&in);
            buf_release(&want);
            rig_end(&g);
        }
    }
}

/* Each frame's fate hangs on the seed and its number, not on how the bytes came. */
static void test_the_seed_decides_which_frames(void **state)
{
    (void)state;
    struct buf b = BUF_INIT(1 << 20), first = BUF_INIT(1 << 20);
    for (int i = 0; i < 2000; i++)
        text_frame(&b, "0123456789", false);
    for (size_t i = 0; i < 4; i++) {
        RIG(g, i == 3 ? 8 : 7, "duplicate:prob=10%,dir=down");
        rig_upgrade(&g, NULL);
        rig_put(&g, NETEM_DOWN, b.data, b.len, steps[i + 1]);
        size_t more = (g.out[NETEM_DOWN].len - b.len) / 12;
        assert_in_range(more, 150, 250);
        if (i == 0)
            buf_add(&first, g.said.data, g.said.len);
        bool same = first.len == g.said.len && !memcmp(first.data, g.said.data, first.len);
        assert_true(same == (i != 3));
        rig_end(&g);
    }
    buf_release(&b);
    buf_release(&first);
}

static void test_a_large_frame_is_not_held_whole_and_still_cut(void **state)
{
    (void)state;
    size_t n = 5 << 20;
    char *body = malloc(n);
    struct buf b = BUF_INIT(8 << 20);
    memset(body, 'x', n);
    memcpy(body + n - 100, ID_A, ID_TEXT);
    frame(&b, true, false, WS_TEXT, body, n, false);
    free(body);
    RIG(g, 1, "cut:id=" ID_A ",at=10%");
    rig_upgrade(&g, NULL);
    for (size_t at = 0; at < b.len; at += 65536) {
        size_t k = b.len - at < 65536 ? b.len - at : 65536;
        rig_put(&g, NETEM_DOWN, b.data + at, k, k);
        if (at + k < b.len)
            assert_true(g.out[NETEM_DOWN].len >= b.len / 10 || g.out[NETEM_DOWN].len == at + k);
        assert_true(at + k <= g.out[NETEM_DOWN].len + (1 << 19) + 65536);
    }
    assert_true(g.out[NETEM_DOWN].len < b.len && g.out[NETEM_DOWN].len > b.len - (1 << 20));
    assert_int_equal(g.end, PROXY_ENDS_CLOSE);
    buf_release(&b);
    rig_end(&g);
}

static void pass_through(const void *up, size_t up_n, const void *down, size_t down_n)
{
    for (size_t i = 0; i < STEPS; i++) {
        RIG(g, 1, "cut:id=" ID_A, "cut:nth=1000");
        rig_put(&g, NETEM_UP, up, up_n, steps[i]);
        rig_put(&g, NETEM_DOWN, down, down_n, steps[i]);
        rig_put(&g, NETEM_UP, up, up_n, steps[i]);
        rig_settle(&g);
        assert_int_equal(g.out[NETEM_UP].len, 2 * up_n);
        assert_memory_equal(g.out[NETEM_UP].data, up, up_n);
        assert_memory_equal(g.out[NETEM_UP].data + up_n, up, up_n);
        assert_int_equal(g.out[NETEM_DOWN].len, down_n);
        assert_memory_equal(g.out[NETEM_DOWN].data, down, down_n);
        assert_false(proxy_conn_followed(g.c));
        rig_end(&g);
    }
}

static void test_what_is_no_websocket_passes_as_it_is(void **state)
{
    (void)state;
    static const char get[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n", ok[] = "HTTP/1.1 200 OK\r\n\r\n" ID_A;
    static const char ask[] = "GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
                      no[] = "HTTP/1.1 403 Forbidden\r\n\r\n";
    char long_head[20000];
    memset(long_head, 'G', sizeof long_head);
    pass_through("\x16\x03\x01" ID_A, 3 + ID_TEXT, "\x16\x03" ID_A, 2 + ID_TEXT);
    pass_through(get, sizeof get - 1, ok, sizeof ok - 1);
    pass_through(ask, sizeof ask - 1, no, sizeof no - 1);
    pass_through(long_head, sizeof long_head, "x", 1);
    pass_through("G", 1, "220 mail server\r\n", 17);
}

static void test_broken_framing_is_passed_and_followed_no_more(void **state)
{
    (void)state;
    RIG(g, 1, "cut:nth=3");
    rig_upgrade(&g, NULL);
    struct buf b = BUF_INIT(4096);
    text_frame(&b, "one", false);
    buf_add(&b, "\x81\x7e\x00\x05", 4); /* 5 in two bytes */
    for (int i = 0; i < 10; i++)
        text_frame(&b, "more", false);
    rig_put(&g, NETEM_DOWN, b.data, b.len, 3);
    assert_int_equal(g.out[NETEM_DOWN].len, b.len);
    assert_memory_equal(g.out[NETEM_DOWN].data, b.data, b.len);
    assert_false(proxy_conn_followed(g.c));
    buf_release(&b);
    rig_end(&g);
}

static void test_a_held_frame_passes_when_the_stream_ends_in_it(void **state)
{
    (void)state;
    RIG(g, 1, "cut:id=" ID_A ",at=0%");
    rig_upgrade(&g, NULL);
    struct buf b = BUF_INIT(4096);
    text_frame(&b, MESSAGE(ID_B), false);
    rig_put(&g, NETEM_DOWN, b.data, b.len - 1, 5);
    assert_int_equal(g.out[NETEM_DOWN].len, 0);
    proxy_conn_put_fin(g.c, NETEM_DOWN, g.now);
    rig_settle(&g);
    assert_int_equal(g.out[NETEM_DOWN].len, b.len - 1);
    assert_true(g.fin_ns[NETEM_DOWN] != 0);
    buf_release(&b);
    rig_end(&g);
}

static void test_a_bomb_passes_and_costs_only_the_ids(void **state)
{
    (void)state;
    size_t n = 80 << 20;
    uint8_t *zeros = calloc(1, n), *out = malloc(1 << 20);
    z_stream z = {0};
    struct buf b = BUF_INIT(4 << 20);
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, -15, 9, Z_DEFAULT_STRATEGY), Z_OK);
    frame(&b, true, true, WS_TEXT, out, deflated(&z, out, 1 << 20, zeros, n), true);
    text_frame(&b, "plain", true);
    RIG(g, 1, "cut:id=" ID_A, "duplicate:nth=2,dir=up");
    rig_upgrade(&g, "permessage-deflate");
    rig_put(&g, NETEM_UP, b.data, b.len, 4096);
    assert_int_equal(g.out[NETEM_UP].len, b.len + 5 + 6); /* frames are followed all the same */
    assert_memory_equal(g.out[NETEM_UP].data, b.data, b.len);
    deflateEnd(&z);
    free(zeros);
    free(out);
    buf_release(&b);
    rig_end(&g);
}

static void test_a_stall_in_mid_frame(void **state)
{
    (void)state;
    RIG(g, 1, "stall:nth=1,at=50%,for=3s,dir=down");
    rig_upgrade(&g, NULL);
    struct buf b = BUF_INIT(4096);
    text_frame(&b, "0123456789", false);
    uint64_t began = g.now;
    rig_put(&g, NETEM_DOWN, b.data, b.len, b.len);
    assert_int_equal(g.out[NETEM_DOWN].len, 6);
    rig_settle(&g);
    assert_int_equal(g.out[NETEM_DOWN].len, 12);
    assert_int_equal(g.last_ns[NETEM_DOWN] - began, 3 * NS_PER_S);
    buf_release(&b);
    rig_end(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut_in_the_middle_of_the_nth_frame_whatever_the_pieces),
        cmocka_unit_test(test_places_in_a_frame),
        cmocka_unit_test(test_cut_by_id_in_text),
        cmocka_unit_test(test_cut_by_id_in_binary_frames_finds_the_raw_bytes),
        cmocka_unit_test(test_cut_by_id_that_straddles_fragments),
        cmocka_unit_test(test_an_id_that_repeats_itself_is_found_behind_a_false_start),
        cmocka_unit_test(test_two_messages_do_not_make_an_id),
        cmocka_unit_test(test_cut_by_id_in_compressed_frames),
        cmocka_unit_test(test_an_id_is_cut_once_so_that_its_resend_passes),
        cmocka_unit_test(test_a_frame_is_said_again),
        cmocka_unit_test(test_the_seed_decides_which_frames),
        cmocka_unit_test(test_a_large_frame_is_not_held_whole_and_still_cut),
        cmocka_unit_test(test_what_is_no_websocket_passes_as_it_is),
        cmocka_unit_test(test_broken_framing_is_passed_and_followed_no_more),
        cmocka_unit_test(test_a_held_frame_passes_when_the_stream_ends_in_it),
        cmocka_unit_test(test_a_bomb_passes_and_costs_only_the_ids),
        cmocka_unit_test(test_a_stall_in_mid_frame),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
