/* What becomes of single segments: small stories, packet by packet. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "wire/tcp.h"

#define MS 1000000ull

struct story {
    struct tcp tcp;
    char got[2][8192]; /* bytes; a gap is "<why:bytes>" */
    int opens, closes;
    enum tcp_end end;
    struct tcp_half half[2];
    uint64_t now, number;
    char marks[2][8192];
};

static void on_open(void *arg, struct tcp_flow *f)
{
    (void)f;
    ((struct story *)arg)->opens++;
}

static void on_data(void *arg, struct tcp_flow *f, int dir, uint64_t at, uint8_t *p, size_t n, uint64_t ts)
{
    struct story *s = arg;
    (void)f;
    (void)at;
    (void)ts;
    strncat(s->got[dir], (const char *)p, n);
}

static void on_gap(void *arg, struct tcp_flow *f, int dir, uint64_t from, uint64_t to, enum tcp_gap why,
                   uint64_t ts)
{
    static const char *const names[] = {"missed", "unacked", "snapped", "limit"};
    struct story *s = arg;
    char text[64];
    (void)f;
    (void)ts;
    snprintf(text, sizeof text, "<%s:%llu>", names[why], (unsigned long long)(to - from));
    strcat(s->got[dir], text);
}

static void on_close(void *arg, struct tcp_flow *f)
{
    static const char names[] = "DALCzoFRr";
    struct story *s = arg;
    s->closes++;
    s->end = f->end;
    for (int d = 0; d < 2; d++) {
        s->half[d] = f->half[d];
        for (uint32_t i = 0; i < f->half[d].mark_n; i++)
            strncat(s->marks[d], &names[tcp_mark(&f->half[d], i)->kind], 1);
    }
}

static void begin(struct story *s)
{
    struct tcp_config c = {
        .memory = 8 << 20,
        .marks = true,
        .on = {.arg = s, .open = on_open, .data = on_data, .gap = on_gap, .close = on_close}};
    memset(s, 0, sizeof *s);
    assert_int_equal(tcp_init(&s->tcp, &c, NULL), 0);
    s->now = 1000 * MS;
}

struct seg {
    int dir;
    uint32_t seq, ack;
    unsigned flags;
    const char *text;
    uint32_t captured; /* 0: all */
    uint16_t window;   /* 0: 1000 */
};

static void offer(struct story *s, struct seg g)
{
    char copy[512] = "";
    struct packet k = {.port = {g.dir ? 80 : 5000, g.dir ? 5000 : 80},
                       .seq = g.seq,
                       .ack = g.ack,
                       .flags = (uint8_t)g.flags,
                       .window = g.window == 1 ? 0 : 1000,
                       .wscale = 0xff,
                       .payload = (uint8_t *)copy};
    if (g.text) {
        strcpy(copy, g.text);
        k.payload_len = (uint32_t)strlen(g.text);
        k.captured = g.captured ? g.captured : k.payload_len;
    }
    k.addr[0][15] = g.dir ? 2 : 1;
    k.addr[1][15] = g.dir ? 1 : 2;
    s->now += MS;
    tcp_packet(&s->tcp, &k, 0, s->now, ++s->number);
}
#define UP(seq, ack, text)          offer(&s, (struct seg){0, seq, ack, PACKET_ACK, text, 0, 0})
#define DOWN(seq, ack, text)        offer(&s, (struct seg){1, seq, ack, PACKET_ACK, text, 0, 0})
#define FLAGS(dir, seq, ack, flags) offer(&s, (struct seg){dir, seq, ack, flags, NULL, 0, 0})

static void handshake(struct story *s, uint32_t up, uint32_t down)
{
    offer(s, (struct seg){0, up - 1, 0, PACKET_SYN, NULL, 0, 0});
    offer(s, (struct seg){1, down - 1, up, PACKET_SYN | PACKET_ACK, NULL, 0, 0});
    offer(s, (struct seg){0, up, down, PACKET_ACK, NULL, 0, 0});
}

static void finish(struct story *s)
{
    tcp_finish(&s->tcp);
    tcp_release(&s->tcp);
}

static void test_a_hole_is_filled_by_the_retransmission(void **state)
{
    struct story s;
    (void)state;
    begin(&s);
    handshake(&s, 101, 501);
    UP(101, 501, "ab");
    UP(105, 501, "ef");
    DOWN(501, 103, NULL);
    DOWN(501, 103, NULL);
    assert_string_equal(s.got[0], "ab");
    UP(103, 501, "cd");
    assert_string_equal(s.got[0], "abcdef");
    finish(&s);
    assert_string_equal(s.marks[0], "DDL");
    assert_int_equal(s.half[0].late_packets, 1);
}

static void test_a_hole_that_was_acknowledged_is_the_captures_own(void **state)
{
    struct story s;
    (void)state;
    begin(&s);
    handshake(&s, 101, 501);
    UP(101, 501, "ab");
    UP(105, 501, "ef");
    for (uint32_t i = 0; i < TCP_CONFIRM_PACKETS; i++) {
        assert_string_equal(s.got[0], "ab");
        DOWN(501, 107, NULL);
    }
    DOWN(501, 107, NULL);
    assert_string_equal(s.got[0], "ab<missed:2>ef");
    UP(103, 501, "cd"); /* too late to be told */
    finish(&s);
    assert_string_equal(s.got[0], "ab<missed:2>ef");
    assert_int_equal(s.half[0].missed_bytes, 2);
}

static void test_a_hole_that_nobody_acknowledged_waits_for_the_end(void **state)
{
    struct story s;
    (void)state;
    begin(&s);
    handshake(&s, 101, 501);
    UP(101, 501, "ab");
    UP(105, 501, "ef");
    for (int i = 0; i < 100; i++)
        DOWN(501, 103, NULL);
    assert_string_equal(s.got[0], "ab");
    finish(&s);
    assert_string_equal(s.got[0], "ab<unacked:2>ef");
    assert_int_equal(s.end, TCP_END_OPEN);
}

static void test_overlaps_give_each_byte_once_and_the_first_wins(void **state)
{
    struct story s;
    (void)state;
    begin(&s);
    handshake(&s, 101, 501);
    UP(105, 501, "ef");
    UP(103, 501, "CDEFGH"); /* says E, F otherwise */
    UP(101, 501, "abcd");
    finish(&s);
    assert_string_equal(s.got[0], "abcdefGH"); /* "cd" came before what was held is asked for */
    assert_int_equal(s.tcp.count.conflicts, 1);
}

static void test_numbers_wrap_at_two_to_the_32(void **state)
{
    struct story s;
    (void)state;
    begin(&s);
    handshake(&s, 0xfffffffeu, 0xffffffffu);
    UP(0xfffffffeu, 0xffffffffu, "abcd");
    DOWN(0xffffffffu, 2, "xyz");
    UP(4, 2, "gh");
    UP(2, 2, "ef");
    finish(&s);
    assert_string_equal(s.got[0], "abcdefgh");
    assert_string_equal(s.got[1], "xyz");
}

static void test_a_new_syn_on_the_same_ports_is_another_connection(void **state)
{
    struct story s;
    (void)state;
    begin(&s);
    handshake(&s, 101, 501);
    UP(101, 501, "old");
    handshake(&s, 9001, 7001);
    assert_int_equal(s.closes, 1);
    assert_int_equal(s.end, TCP_END_REUSED);
    UP(9001, 7001, "new");
    FLAGS(0, 9000, 0, PACKET_SYN); /* its own SYN, once more */
    assert_int_equal(s.opens, 2);
    finish(&s);
    assert_string_equal(s.got[0], "oldnew");
}

static void test_a_missing_start_begins_at_the_first_byte_seen(void **state)
{
    struct story s;
    (void)state;
    begin(&s);
    UP(5000, 800, "ab");
    DOWN(800, 5002, "xy");
    UP(5002, 802, "cd");
    finish(&s);
    assert_string_equal(s.got[0], "abcd");
    assert_string_equal(s.got[1], "xy");
    assert_false(s.half[0].origin_known);
}

static void test_an_acknowledgement_captured_before_its_data_does_not_hide_it(void **state)
{
    struct story s;
    (void)state;
    begin(&s);
    DOWN(800, 5004, NULL); /* the capture begins here */
    UP(5000, 800, "abcd");
    UP(5004, 800, "ef");
    finish(&s);
    assert_string_equal(s.got[0], "abcdef");
}

static void test_fin_and_reset_that_come_early_end_nothing_early(void **state)
{
    struct story s;
    (void)state;
    begin(&s);
    handshake(&s, 101, 501);
    FLAGS(0, 105, 501, PACKET_FIN | PACKET_ACK); /* overtook its data */
    UP(101, 501, "abcd");
    FLAGS(1, 501, 106, PACKET_FIN | PACKET_ACK);
    assert_string_equal(s.got[0], "abcd");
    finish(&s);
    assert_int_equal(s.end, TCP_END_FIN);

    begin(&s);
    handshake(&s, 101, 501);
    FLAGS(1, 501, 0, PACKET_RST);
    UP(101, 501, "abcd"); /* was on its way */
    finish(&s);
    assert_string_equal(s.got[0], "abcd");
    assert_int_equal(s.end, TCP_END_RST);
    assert_string_equal(s.marks[0], "rD");
}

static void test_a_blind_reset_is_ignored(void **state)
{
    struct story s;
    (void)state;
    begin(&s);
    handshake(&s, 101, 501);
    FLAGS(1, 501 + (1u << 30), 0, PACKET_RST);
    UP(101, 501, "ab");
    finish(&s);
    assert_int_equal(s.end, TCP_END_OPEN);
    assert_int_equal(s.tcp.count.out_of_window, 1);
}

static void test_a_snapped_packet_leaves_a_gap_of_its_size(void **state)
{
    struct story s;
    (void)state;
    begin(&s);
    handshake(&s, 101, 501);
    offer(&s, (struct seg){0, 101, 501, PACKET_ACK, "abcdef", 2, 0});
    UP(107, 501, "gh");
    finish(&s);
    assert_string_equal(s.got[0], "ab<snapped:4>gh");
}

static void test_retransmissions_zero_windows_and_probes_are_marked(void **state)
{
    struct story s;
    (void)state;
    begin(&s);
    handshake(&s, 101, 501);
    UP(101, 501, "ab");
    UP(101, 501, "ab");
    offer(&s, (struct seg){1, 501, 103, PACKET_ACK, NULL, 0, 1});
    UP(102, 501, "b"); /* a probe with a byte that was sent */
    offer(&s, (struct seg){1, 501, 103, PACKET_ACK, NULL, 0, 0});
    finish(&s);
    assert_string_equal(s.got[0], "ab");
    assert_string_equal(s.marks[0], "DAzAo");
    assert_int_equal(s.half[0].zero_windows, 1);
    assert_int_equal(s.half[0].zero_ns, 2 * MS);
}

static void test_a_hole_without_end_is_let_go_at_the_limit(void **state)
{
    struct story s;
    (void)state;
    begin(&s);
    handshake(&s, 101, 501);
    for (uint32_t i = 0; i < TCP_HOLD_SEGMENTS + 2; i++) { /* one direction, nothing acknowledged */
        struct packet k = {.port = {5000, 80}, .seq = 1000 + i, .flags = 0, .window = 9, .wscale = 0xff};
        uint8_t byte = 'x';
        k.payload = &byte;
        k.payload_len = k.captured = 1;
        k.addr[0][15] = 1;
        k.addr[1][15] = 2;
        s.got[0][0] = 0;
        tcp_packet(&s.tcp, &k, 0, s.now, ++s.number);
    }
    assert_int_equal(s.tcp.count.limit_bytes, 1000 - 101);
    finish(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_hole_is_filled_by_the_retransmission),
        cmocka_unit_test(test_a_hole_that_was_acknowledged_is_the_captures_own),
        cmocka_unit_test(test_a_hole_that_nobody_acknowledged_waits_for_the_end),
        cmocka_unit_test(test_overlaps_give_each_byte_once_and_the_first_wins),
        cmocka_unit_test(test_numbers_wrap_at_two_to_the_32),
        cmocka_unit_test(test_a_new_syn_on_the_same_ports_is_another_connection),
        cmocka_unit_test(test_a_missing_start_begins_at_the_first_byte_seen),
        cmocka_unit_test(test_an_acknowledgement_captured_before_its_data_does_not_hide_it),
        cmocka_unit_test(test_fin_and_reset_that_come_early_end_nothing_early),
        cmocka_unit_test(test_a_blind_reset_is_ignored),
        cmocka_unit_test(test_a_snapped_packet_leaves_a_gap_of_its_size),
        cmocka_unit_test(test_retransmissions_zero_windows_and_probes_are_marked),
        cmocka_unit_test(test_a_hole_without_end_is_let_go_at_the_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
