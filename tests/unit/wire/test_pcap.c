/* Generated captures, as hard as they come, and what must come out of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/bench/pcap_gen.h"
#include "wire/chat.h"
#include "wire/pcap/capture.h"
#include "wire/tap.h"

struct world {
    struct buf file;
    struct tap tap;
    struct gen_truth truth;
    uint64_t found, sum, incomplete, unreadable, closes, ends[TCP_ENDS], gaps[2];
};

static bool to_buf(void *arg, const void *p, size_t n)
{
    struct buf *b = arg;
    buf_add(b, p, n);
    return !b->failed;
}

static void count(void *arg, const struct tap_message *m)
{
    struct world *w = arg;
    if (m->opcode != WS_TEXT)
        return;
    if (m->complete) {
        w->found++;
        w->sum += gen_hash(m->p, m->n);
    }
    w->incomplete += !m->complete;
    w->unreadable += m->unreadable;
}

static void count_close(void *arg, struct tcp_flow *f)
{
    struct world *w = arg;
    w->closes++;
    w->ends[f->end]++;
}

static void count_gap(void *arg, struct tcp_flow *f, int dir, uint64_t from, uint64_t to, enum tcp_gap why)
{
    struct world *w = arg;
    (void)f;
    (void)why;
    w->gaps[dir] += to - from;
}

static void generate(struct world *w, struct gen_config c, uint64_t bytes)
{
    struct gen g = {.c = c, .sink = to_buf, .arg = &w->file};
    buf_init(&w->file, 64 << 20);
    assert_true(gen_run(&g, bytes));
    w->truth = g.truth;
}

static int read_capture(struct world *w, size_t memory, bool marks)
{
    struct capture_file *f;
    struct capture_packet k;
    struct packet p;
    struct tcp_config c = {.memory = memory, .marks = marks};
    struct tap_events on = {.arg = w, .message = count, .close = count_close, .gap = count_gap};
    assert_int_equal(tap_init(&w->tap, &c, &on, NULL), 0);
    int rc = capture_open_bytes(&f, w->file.data, w->file.len, "memory", NULL);
    while (rc >= 0 && (rc = capture_next(f, &k, NULL)) > 0)
        if (packet_read(&p, k.link, k.p, k.n, k.wire) == PACKET_TCP)
            tap_packet(&w->tap, &p, k.iface, k.ts_ns, k.number);
    capture_close_file(f);
    tap_finish(&w->tap);
    assert_int_equal(w->tap.tcp.live, 0);
    return rc;
}

static void done(struct world *w)
{
    tap_release(&w->tap);
    assert_int_equal(w->tap.tcp.used, w->tap.tcp.buckets * sizeof(void *));
    buf_release(&w->file);
}

static const struct gen_config hard = {.flows = 20,
                                       .again_ppm = 50000,
                                       .swap_ppm = 50000,
                                       .overlap_ppm = 500000,
                                       .split_ppm = 300000,
                                       .body_min = 0,
                                       .body_max = 5000,
                                       .close_ppm = 20000};

static void all_is_found(struct gen_config c)
{
    struct world w = {0};
    generate(&w, c, 4 << 20);
    assert_true(w.truth.messages > 500);
    assert_int_equal(read_capture(&w, 64 << 20, true), 0);
    assert_int_equal(w.found, w.truth.messages);
    assert_int_equal(w.sum, w.truth.sum);
    assert_int_equal(w.incomplete, 0);
    assert_int_equal(w.tap.tcp.count.missed_bytes, 0);
    assert_int_equal(w.tap.count.bad_frames, 0);
    done(&w);
}

static void test_reordered_retransmitted_overlapped_and_reused_ports_give_every_message_once(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        struct gen_config c = hard;
        c.seed = seed;
        all_is_found(c);
    }
}

static void test_sequence_numbers_wrap(void **state)
{
    (void)state;
    struct gen_config c = hard;
    c.near_wrap = true;
    all_is_found(c);
}

static void test_ipv6_and_vlan(void **state)
{
    (void)state;
    struct gen_config c = hard;
    c.ipv6 = c.vlan = true;
    all_is_found(c);
}

/* What the capture missed is said, and nothing else is lost: each hole spoils the messages it touches. */
static void test_missed_segments_spoil_only_their_own_messages(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        struct world w = {0};
        struct gen_config c = hard;
        c.missed_ppm = 20000;
        c.close_ppm = 0;
        c.body_max = 400;
        c.seed = seed;
        generate(&w, c, 4 << 20);
        read_capture(&w, 64 << 20, false);
        assert_true(w.truth.missed > 50);
        assert_true(w.tap.tcp.count.missed_bytes > 0);
        assert_true(w.found <= w.truth.messages);
        /* a message behind a hole that swallowed a header can go unread until the next segment fits */
        assert_true(w.found + 2 * w.truth.missed >= w.truth.messages);
        assert_true(w.found * 100 >= w.truth.messages * 97);
        done(&w);
    }
}

static void test_snapped_packets_are_incomplete_messages_and_the_stream_goes_on(void **state)
{
    (void)state;
    struct world w = {0};
    struct gen_config c = {.flows = 5, .body_min = 0, .body_max = 300, .snap = 200, .seed = 3};
    generate(&w, c, 2 << 20);
    read_capture(&w, 64 << 20, false);
    assert_true(w.incomplete > 100);
    assert_true(w.tap.tcp.count.snapped_bytes > 0);
    assert_int_equal(w.found + w.incomplete, w.truth.messages);
    assert_int_equal(w.tap.count.bad_frames, 0);
    done(&w);
}

static void test_missing_start_is_found_by_its_frames(void **state)
{
    (void)state;
    struct world w = {0}, cut = {0};
    struct gen_config c = {.flows = 5, .body_min = 10, .body_max = 300, .seed = 4};
    generate(&w, c, 1 << 20);
    /* behind the handshakes of all five */
    size_t at = 24, skipped = 0;
    for (; skipped < 300; skipped++) {
        uint32_t n;
        memcpy(&n, w.file.data + at + 8, 4);
        at += 16 + n;
    }
    buf_init(&cut.file, 64 << 20);
    buf_add(&cut.file, w.file.data, 24);
    buf_add(&cut.file, w.file.data + at, w.file.len - at);
    read_capture(&w, 64 << 20, false);
    read_capture(&cut, 64 << 20, false);
    assert_int_equal(cut.tap.count.guesses, 5);
    assert_int_equal(cut.incomplete, 0);
    assert_true(cut.found > w.found - 300 && cut.found < w.found);
    done(&w);
    done(&cut);
}

static void test_one_direction_alone_is_read(void **state)
{
    (void)state;
    struct gen_config c = hard;
    c.close_ppm = 0;
    c.body_max = 400;
    struct world w = {0};
    struct capture_file *f;
    struct capture_packet k;
    struct packet p;
    uint64_t up = 0;
    generate(&w, c, 2 << 20);
    struct tcp_config tc = {.memory = 64 << 20};
    struct tap_events on = {.arg = &w, .message = count, .close = count_close, .gap = count_gap};
    assert_int_equal(tap_init(&w.tap, &tc, &on, NULL), 0);
    assert_int_equal(capture_open_bytes(&f, w.file.data, w.file.len, "memory", NULL), 0);
    while (capture_next(f, &k, NULL) > 0)
        if (packet_read(&p, k.link, k.p, k.n, k.wire) == PACKET_TCP && p.port[1] == 8080) {
            tap_packet(&w.tap, &p, 0, k.ts_ns, k.number);
            up++;
        }
    capture_close_file(f);
    tap_finish(&w.tap);
    assert_true(up > 1000);
    assert_int_equal(w.incomplete, 0);
    assert_true(w.found * 10 > w.truth.messages * 4 && w.found * 10 < w.truth.messages * 6);
    assert_int_equal(w.gaps[0], 0);
    assert_true(w.gaps[1] > 0); /* acknowledged, so it was there */
    done(&w);
}

static void test_memory_has_a_ceiling_and_what_it_costs_is_counted(void **state)
{
    (void)state;
    struct world w = {0};
    struct gen_config c = hard;
    c.flows = 2000;
    c.body_max = 3000;
    generate(&w, c, 16 << 20);
    size_t ceiling = 1 << 20;
    read_capture(&w, ceiling, false);
    assert_true(w.tap.tcp.count.evicted > 0);
    assert_true(w.ends[TCP_END_EVICTED] == w.tap.tcp.count.evicted);
    assert_true(w.found < w.truth.messages);
    assert_true(w.tap.tcp.used_max < ceiling + (8 << 10) + TAP_MESSAGE_MAX / 64);
    done(&w);
}

/* ---- files ---- */

static void test_truncation_at_every_byte_gives_what_is_whole_and_then_the_offset(void **state)
{
    (void)state;
    struct world w = {0};
    struct gen_config c = {.flows = 1, .body_min = 10, .body_max = 30, .seed = 5};
    generate(&w, c, 4000);
    for (size_t n = 0; n <= w.file.len; n++) {
        struct capture_file *f;
        struct capture_packet k;
        struct err_ctx err = {0};
        uint64_t packets = 0;
        int rc = capture_open_bytes(&f, w.file.data, n, "cut.pcap", &err);
        if (rc == 0)
            while ((rc = capture_next(f, &k, &err)) > 0)
                packets++;
        size_t at = 24;
        uint64_t whole = 0;
        uint32_t len;
        while (at + 16 <= n && (memcpy(&len, w.file.data + at + 8, 4), at + 16 + len <= n)) {
            at += 16 + len;
            whole++;
        }
        assert_int_equal(packets, whole);
        if (n >= 24 && at == n) {
            assert_int_equal(rc, 0);
        } else {
            char want[64];
            assert_int_equal(rc, ERR_TRUNCATED);
            snprintf(want, sizeof want, "cut.pcap: offset %zu: ", n < 24 ? 0 : at);
            assert_true(!strncmp(err.text, want, strlen(want)));
            assert_null(strchr(err.text, '\n'));
        }
        if (f)
            capture_close_file(f);
    }
    buf_release(&w.file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reordered_retransmitted_overlapped_and_reused_ports_give_every_message_once),
        cmocka_unit_test(test_sequence_numbers_wrap),
        cmocka_unit_test(test_ipv6_and_vlan),
        cmocka_unit_test(test_missed_segments_spoil_only_their_own_messages),
        cmocka_unit_test(test_snapped_packets_are_incomplete_messages_and_the_stream_goes_on),
        cmocka_unit_test(test_missing_start_is_found_by_its_frames),
        cmocka_unit_test(test_one_direction_alone_is_read),
        cmocka_unit_test(test_memory_has_a_ceiling_and_what_it_costs_is_counted),
        cmocka_unit_test(test_truncation_at_every_byte_gives_what_is_whole_and_then_the_offset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
