/* Captures at both ends of a link, and what follows from them: who lost what, with no other trace. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <unistd.h>

#include "tests/bench/pcap_gen.h"
#include "trace/join.h"
#include "wire/pcap/evidence.h"

#define MS 1000000ull
enum { PHONE, SERVER };

/* Two files, written packet by packet. delay: to the other end. */
struct link {
    struct gen gen[2];
    FILE *file[2];
    char path[2][64];
    uint64_t now, delay;
    int64_t skew; /* of the server's clock */
    uint32_t seq[8][2];
};

static bool to_file(void *arg, const void *p, size_t n)
{
    return fwrite(p, 1, n, arg) == n;
}

static void open_link(struct link *l)
{
    const uint32_t head[6] = {0xa1b2c3d4, 2 | 4 << 16, 0, 0, 262144, 1};
    *l = (struct link){.now = 1764000000ull * 1000 * MS, .delay = 20 * MS};
    for (int e = 0; e < 2; e++) {
        snprintf(l->path[e], sizeof l->path[e], "/tmp/test-evidence-%d-%d.pcap", (int)getpid(), e);
        l->file[e] = fopen(l->path[e], "we");
        assert_non_null(l->file[e]);
        l->gen[e] = (struct gen){.c = {.flows = 8}, .sink = to_file, .arg = l->file[e]};
        rng_seed(&l->gen[e].rng, 1);
        l->gen[e].flow = calloc(8, sizeof *l->gen[e].flow);
        for (int i = 0; i < 8; i++)
            l->gen[e].flow[i].port = (uint16_t)(5000 + i);
        buf_init(&l->gen[e].out, 4 << 20);
        buf_add(&l->gen[e].out, head, sizeof head);
    }
}

/* lost: it never comes out at the other end. */
static void packet(struct link *l, uint32_t flow, int dir, unsigned flags, const void *p, size_t n, bool lost)
{
    int from = dir ? SERVER : PHONE, to = !from;
    uint32_t *seq = l->seq[flow];
    for (int k = 0; k < (lost ? 1 : 2); k++) {
        int e = k ? to : from;
        l->gen[e].ts_ns = l->now + (k ? l->delay : 0) + (e == SERVER ? (uint64_t)l->skew : 0);
        l->gen[e].truth.packets = l->now / MS; /* the IP id: the same at both ends */
        gen_packet(&l->gen[e], flow, dir, seq[dir], seq[!dir], flags, p, (uint32_t)n);
    }
    if (!lost)
        seq[dir] += (uint32_t)n + !!(flags & (GEN_SYN | GEN_FIN));
    l->now += l->delay + 5 * MS;
}

static void say(struct link *l, uint32_t flow, int dir, bool lost, const char *text)
{
    static const uint8_t mask[4] = {1, 2, 3, 4};
    struct buf b = BUF_INIT(1 << 16);
    ws_frame(&b, WS_TEXT, text, strlen(text), dir ? NULL : mask);
    packet(l, flow, dir, GEN_ACK | GEN_PSH, b.data, b.len, lost);
    buf_release(&b);
    if (!lost)
        packet(l, flow, !dir, GEN_ACK, NULL, 0, false);
}

static void phone_opens(struct link *l, uint32_t flow, unsigned user)
{
    static const char key[] = "dGhlIHNhbXBsZSBub25jZQ==";
    char claims[64], token[128], hello[300];
    struct buf b = BUF_INIT(1 << 16);
    l->seq[flow][0] = 1000 * flow;
    l->seq[flow][1] = 5000 * flow;
    /* a handshake in its true times: that is how the ends are told apart */
    packet(l, flow, 0, GEN_SYN, NULL, 0, false);
    packet(l, flow, 1, GEN_SYN | GEN_ACK, NULL, 0, false);
    packet(l, flow, 0, GEN_ACK, NULL, 0, false);
    ws_upgrade_request(&b, "x", "/", key, "chat.v1", NULL);
    packet(l, flow, 0, GEN_ACK | GEN_PSH, b.data, b.len, false);
    buf_reset(&b);
    ws_upgrade_response(&b, key, strlen(key), "chat.v1");
    packet(l, flow, 1, GEN_ACK | GEN_PSH, b.data, b.len, false);
    buf_release(&b);
    snprintf(claims, sizeof claims, "{\"sub\":\"%u\"}", user);
    token[base64url_encode(token, claims, strlen(claims))] = 0;
    snprintf(hello, sizeof hello,
             "{\"t\":\"hello\",\"token\":\"e.%s.s\",\"device\":1,\"net\":\"lte\",\"resume\":[]}", token);
    say(l, flow, 0, false, hello);
}

static const char *message(const char *t, int n)
{
    static char text[300];
    snprintf(text, sizeof text,
             !strcmp(t, "send") ? "{\"t\":\"send\",\"id\":\"0193a1c2-7b1e-7c4a-9d55-0000000000%02d\","
                                  "\"chat\":\"17\",\"kind\":\"text\",\"body\":\"x\"}"
                                : "{\"t\":\"msg\",\"chat\":\"17\",\"epoch\":\"1\",\"seq\":1,\"id\":"
                                  "\"0193a1c2-7b1e-7c4a-9d55-0000000000%02d\","
                                  "\"from\":\"7\",\"ts\":1,\"kind\":\"text\",\"body\":\"x\"}",
             n);
    return text;
}

static bool note(void *arg, const struct trace_pair *p)
{
    enum verdict *v = arg;
    v[p->id.b[15] & 15] = p->verdict;
    return true;
}

/* verdicts by the message's number; ends: which captures are read. */
static void judge(struct link *l, bool phone, bool server, enum verdict v[16], struct evidence_point point[2])
{
    const bool want[TRACE_SIDES] = {
        [TRACE_SIDE_SERVER] = true, [TRACE_SIDE_LINK] = true, [TRACE_SIDE_LOAD] = true};
    const bool read[2] = {phone, server};
    struct evidence *e;
    struct trace_run r;
    const struct trace_memory *part;
    const struct evidence_point *pts;
    assert_int_equal(evidence_new(&e, NULL, 16 << 20, NULL), 0);
    for (int k = 0; k < 2; k++) {
        gen_flush(&l->gen[k]);
        fflush(l->file[k]);
        if (read[k])
            assert_int_equal(evidence_read(e, l->path[k], NULL), 0);
    }
    assert_int_equal(evidence_finish(e, want, NULL), 0);
    int n = evidence_points(e, &pts);
    memcpy(point, pts, (size_t)n * sizeof *point);
    n = evidence_parts(e, &part);
    assert_int_equal(trace_run_load_with(&r, NULL, 0, part, n, NULL), 0);
    assert_int_equal(trace_join(&r, NULL), 0);
    for (int i = 0; i < 16; i++)
        v[i] = VERDICT_COUNT;
    assert_int_equal(trace_pairs(&r, note, v), 0);
    trace_run_release(&r);
    evidence_free(e);
}

static void close_link(struct link *l)
{
    for (int e = 0; e < 2; e++) {
        fclose(l->file[e]);
        unlink(l->path[e]);
        free(l->gen[e].flow);
        buf_release(&l->gen[e].out);
    }
}

/* Users 7 (flow 1) and 8 (flow 2) in chat 17; fire and forget. */
static void story(struct link *l)
{
    phone_opens(l, 1, 7);
    phone_opens(l, 2, 8);
    say(l, 1, 0, false, "{\"t\":\"create\",\"chat\":\"17\",\"users\":[\"8\"]}");
    say(l, 1, 0, false, message("send", 1)); /* arrives */
    say(l, 2, 1, false, message("msg", 1));
    say(l, 1, 0, false, message("send", 2)); /* lost on the way down */
    say(l, 2, 1, true, message("msg", 2));
    l->now += 200 * MS;
    say(l, 2, 1, true, message("msg", 2)); /* once more */
    l->now += 2000 * MS;
    packet(l, 2, 0, GEN_FIN | GEN_ACK, NULL, 0, false); /* 8 leaves */
    say(l, 1, 0, false, message("send", 3)); /* the server has not noticed: pushes to the dead socket */
    packet(l, 2, 1, GEN_RST | GEN_ACK, NULL, 0, false);
    l->now += 3000 * MS;
    say(l, 1, 0, false, message("send", 4)); /* nobody to push to */
    say(l, 1, 0, true, message("send", 5));  /* lost on the way up */
    l->now += 300 * MS;
    packet(l, 1, 0, GEN_RST | GEN_ACK, NULL, 0, false);
    phone_opens(l, 3, 7);
    l->now += 5000 * MS;
    say(l, 3, 0, false, "{\"t\":\"beat\"}");
    packet(l, 3, 0, GEN_FIN | GEN_ACK, NULL, 0, false);
    packet(l, 3, 1, GEN_FIN | GEN_ACK, NULL, 0, false);
}

static void test_both_ends_tell_each_loss(void **state)
{
    struct link l;
    enum verdict v[16];
    struct evidence_point p[2] = {0};
    (void)state;
    open_link(&l);
    story(&l);
    judge(&l, true, true, v, p);
    assert_int_equal(p[0].role, EVIDENCE_PHONES);
    assert_int_equal(p[1].role, EVIDENCE_SERVER);
    assert_int_equal(p[0].missed + p[1].missed, 0);
    assert_int_equal(v[1], VERDICT_DELIVERED);
    assert_int_equal(v[2], VERDICT_LOST_DOWNLINK);
    assert_int_equal(v[4], VERDICT_LOST_IN_FANOUT);
    assert_int_equal(v[5], VERDICT_LOST_UPLINK);
    close_link(&l);
}

static void test_one_end_alone_calls_nothing_lost_that_it_can_not_see(void **state)
{
    struct link l;
    enum verdict v[16];
    struct evidence_point p[2] = {0};
    (void)state;
    open_link(&l);
    story(&l);
    judge(&l, true, false, v, p); /* the phones' end: the server may have had it */
    for (int i = 1; i <= 5; i++)
        assert_true(v[i] == VERDICT_NOT_OBSERVED || v[i] == VERDICT_COUNT ||
                    (i == 1 && v[i] == VERDICT_DELIVERED));
    judge(&l, false, true, v, p); /* the server's end */
    assert_int_equal(v[1], VERDICT_DELIVERED);
    assert_int_equal(v[2], VERDICT_LOST_DOWNLINK);
    assert_int_equal(v[5], VERDICT_COUNT); /* never came there */
    close_link(&l);
}

static void test_a_clock_that_is_off_is_moved_by_what_causality_demands(void **state)
{
    struct link l;
    enum verdict v[16];
    struct evidence_point p[2] = {0};
    (void)state;
    open_link(&l);
    l.skew = 3600ll * 1000 * (int64_t)MS; /* an hour */
    story(&l);
    judge(&l, true, true, v, p);
    assert_true(p[1].clock_ns + l.skew < 21 * (int64_t)MS && p[1].clock_ns + l.skew > -21 * (int64_t)MS);
    assert_true(p[1].clock_err >= 19 * MS && p[1].clock_err <= 21 * MS);
    assert_int_equal(p[0].clock_ns, 0);
    assert_int_equal(v[1], VERDICT_DELIVERED);
    assert_int_equal(v[2], VERDICT_LOST_DOWNLINK);
    assert_int_equal(v[5], VERDICT_LOST_UPLINK);
    close_link(&l);
}

#define BEAT "{\"t\":\"beat\"}"

/* Users 7 (flow 1) and 8 (flow 2) in chat 17. */
static void both_open(struct link *l)
{
    open_link(l);
    phone_opens(l, 1, 7);
    phone_opens(l, 2, 8);
    say(l, 1, 0, false, "{\"t\":\"create\",\"chat\":\"17\",\"users\":[\"8\"]}");
    l->now += 100 * MS;
}

/* What was under way when the captures end is not judged: 7 stays for a while. */
static void goes_on(struct link *l)
{
    phone_opens(l, 4, 7);
    l->now += 5000 * MS;
    say(l, 4, 0, false, BEAT);
    packet(l, 4, 0, GEN_FIN | GEN_ACK, NULL, 0, false);
    packet(l, 4, 1, GEN_FIN | GEN_ACK, NULL, 0, false);
}

static enum verdict verdict_on(struct link *l, int n)
{
    enum verdict v[16];
    struct evidence_point p[2] = {0};
    goes_on(l);
    judge(l, true, true, v, p);
    assert_int_equal(p[0].missed + p[1].missed, 0);
    close_link(l);
    return v[n];
}

/* 8 has said something (waiting: so many frames) that does not come through, and leaves before or after
 * message 1 is pushed: its FIN goes out when the bytes before it do. took: its TCP took message 3 after the
 * push of message 1. */
static enum verdict push_before_late_fin(int waiting, bool took)
{
    struct link l;
    both_open(&l);
    if (took) {
        say(&l, 1, 0, false, message("send", 3));
        say(&l, 2, 1, true, message("msg", 3));
    }
    say(&l, 2, 0, waiting > 0, BEAT);
    l.now += 500 * MS;
    say(&l, 1, 0, false, message("send", 1));
    uint32_t behind = took ? (uint32_t)strlen(message("msg", 3)) + 4 : 0; /* a header of 4 bytes */
    l.seq[2][1] += behind;
    say(&l, 2, 1, true, message("msg", 1));
    l.seq[2][1] -= behind;
    l.now += 500 * MS;
    if (took)
        say(&l, 2, 1, false, message("msg", 3));
    while (waiting-- > 0)
        say(&l, 2, 0, false, BEAT);
    packet(&l, 2, 0, GEN_FIN | GEN_ACK, NULL, 0, false);
    packet(&l, 2, 1, GEN_RST | GEN_ACK, NULL, 0, false);
    return verdict_on(&l, 1);
}

static void test_a_fin_behind_bytes_that_waited_does_not_say_when_the_phone_left(void **state)
{
    (void)state;
    assert_int_equal(push_before_late_fin(0, false), VERDICT_LOST_DOWNLINK);
    assert_int_equal(push_before_late_fin(1, false), VERDICT_NOT_OBSERVED);
    assert_int_equal(push_before_late_fin(2, false), VERDICT_NOT_OBSERVED);
}

/* 8's bytes are stuck when it leaves; it opens another connection, message 1 is pushed to the old one, and
 * only then what 8 had said there comes out, a message of its own behind it. */
static void test_what_comes_out_of_a_connection_long_left_does_not_show_that_it_was_open(void **state)
{
    struct link l;
    (void)state;
    both_open(&l);
    say(&l, 2, 0, true, BEAT);
    l.now += 500 * MS;
    phone_opens(&l, 3, 8);
    l.now += 500 * MS;
    say(&l, 1, 0, false, message("send", 1));
    say(&l, 2, 1, true, message("msg", 1));
    l.now += 500 * MS;
    say(&l, 2, 0, false, BEAT);
    say(&l, 2, 0, false, message("send", 2));
    packet(&l, 2, 0, GEN_FIN | GEN_ACK, NULL, 0, false);
    packet(&l, 2, 1, GEN_RST | GEN_ACK, NULL, 0, false);
    assert_int_equal(verdict_on(&l, 1), VERDICT_LOST_DEAD_SOCKET);
}

/* 8's bytes are stuck, message 1 is pushed and lost, then 8's host resets: by itself, or as an answer. */
static enum verdict push_before_reset(bool answers)
{
    struct link l;
    both_open(&l);
    say(&l, 2, 0, true, BEAT);
    l.now += 500 * MS;
    say(&l, 1, 0, false, message("send", 1));
    say(&l, 2, 1, true, message("msg", 1));
    l.now += 500 * MS;
    if (answers)
        packet(&l, 2, 1, GEN_ACK, NULL, 0, false);
    packet(&l, 2, 0, GEN_RST | GEN_ACK, NULL, 0, false);
    return verdict_on(&l, 1);
}

static void test_a_reset_that_answers_may_speak_for_an_app_that_left_before(void **state)
{
    (void)state;
    assert_int_equal(push_before_reset(false), VERDICT_LOST_DOWNLINK);
    assert_int_equal(push_before_reset(true), VERDICT_NOT_OBSERVED);
}

static void test_a_phone_that_takes_new_bytes_has_not_left(void **state)
{
    (void)state;
    assert_int_equal(push_before_late_fin(1, true), VERDICT_LOST_DOWNLINK);
}

/* 8 gets message 1, then its own bytes come, and then it resets the connection. */
static enum verdict bytes_after_receipt(bool stuck)
{
    struct link l;
    both_open(&l);
    say(&l, 2, 0, stuck, BEAT);
    l.now += 100 * MS;
    say(&l, 1, 0, false, message("send", 1));
    say(&l, 2, 1, false, message("msg", 1));
    l.now += 500 * MS;
    if (stuck)
        say(&l, 2, 0, false, BEAT);
    say(&l, 2, 0, false, "{\"t\":\"beat\",\"n\":2}");
    l.now += 500 * MS;
    packet(&l, 2, 0, GEN_RST | GEN_ACK, NULL, 0, false);
    return verdict_on(&l, 1);
}

static void test_bytes_that_an_acknowledgement_set_free_do_not_show_that_the_app_reads(void **state)
{
    (void)state;
    assert_int_equal(bytes_after_receipt(false), VERDICT_DELIVERED);
    assert_int_equal(bytes_after_receipt(true), VERDICT_NOT_OBSERVED);
}

/* 8 has gone, 7 sends message 1, and so much later that connection ends: by whom, and how? */
static enum verdict nobody_to_push_to(uint64_t wait, int by, unsigned flags)
{
    struct link l;
    both_open(&l);
    packet(&l, 2, 0, GEN_FIN | GEN_ACK, NULL, 0, false);
    packet(&l, 2, 1, GEN_FIN | GEN_ACK, NULL, 0, false);
    l.now += 500 * MS;
    say(&l, 1, 0, false, message("send", 1));
    l.now += wait;
    packet(&l, 1, by, flags | GEN_ACK, NULL, 0, false);
    if (flags & GEN_FIN)
        packet(&l, 1, !by, GEN_FIN | GEN_ACK, NULL, 0, false);
    return verdict_on(&l, 1);
}

static void test_what_came_right_before_the_server_left_was_perhaps_not_read(void **state)
{
    (void)state;
    assert_int_equal(nobody_to_push_to(0, 1, GEN_FIN), VERDICT_NOT_OBSERVED);
    assert_int_equal(nobody_to_push_to(0, 1, GEN_RST), VERDICT_NOT_OBSERVED);
    assert_int_equal(nobody_to_push_to(0, 0, GEN_RST), VERDICT_NOT_OBSERVED); /* thrown away with the rest */
    assert_int_equal(nobody_to_push_to(0, 0, GEN_FIN), VERDICT_LOST_IN_FANOUT); /* read up to its FIN */
    assert_int_equal(nobody_to_push_to(300 * MS, 1, GEN_FIN), VERDICT_LOST_IN_FANOUT);
    assert_int_equal(nobody_to_push_to(300 * MS, 1, GEN_RST), VERDICT_LOST_IN_FANOUT);
}

/* The server can not write to 7 while message 1 comes from there. more: it passes on what 7 says later. */
static enum verdict from_a_stuck_connection(bool more)
{
    struct link l;
    both_open(&l);
    packet(&l, 2, 0, GEN_FIN | GEN_ACK, NULL, 0, false);
    packet(&l, 2, 1, GEN_FIN | GEN_ACK, NULL, 0, false);
    say(&l, 1, 1, true, BEAT);
    l.now += 500 * MS;
    say(&l, 1, 0, false, message("send", 1));
    l.now += 500 * MS;
    phone_opens(&l, 3, 8);
    say(&l, 1, 0, false, message("send", 2));
    if (more)
        say(&l, 3, 1, false, message("msg", 2));
    l.now += 500 * MS;
    packet(&l, 1, 0, GEN_RST | GEN_ACK, NULL, 0, false);
    return verdict_on(&l, 1);
}

static void test_a_server_that_passes_on_later_bytes_had_read_those_before(void **state)
{
    (void)state;
    assert_int_equal(from_a_stuck_connection(false), VERDICT_NOT_OBSERVED);
    assert_int_equal(from_a_stuck_connection(true), VERDICT_LOST_IN_FANOUT);
}

/* Message 1 is pushed to nobody, and the server's bytes to 8 lie unacknowledged to the end: since when? */
static enum verdict not_pushed(bool stuck_before)
{
    struct link l;
    both_open(&l);
    for (int turn = 0; turn < 2; turn++) {
        bool stuck = (turn == 0) == stuck_before;
        say(&l, 1, 0, false, message("send", stuck ? 2 : 1));
        if (stuck)
            say(&l, 2, 1, true, message("msg", 2));
        l.now += 500 * MS;
    }
    packet(&l, 2, 0, GEN_RST | GEN_ACK, NULL, 0, false);
    return verdict_on(&l, 1);
}

static void test_a_push_that_nobody_saw_is_inferred_only_where_the_stream_was_stuck_by_then(void **state)
{
    (void)state;
    assert_int_equal(not_pushed(true), VERDICT_LOST_DOWNLINK);
    assert_int_equal(not_pushed(false), VERDICT_NOT_OBSERVED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ends_tell_each_loss),
        cmocka_unit_test(test_one_end_alone_calls_nothing_lost_that_it_can_not_see),
        cmocka_unit_test(test_a_clock_that_is_off_is_moved_by_what_causality_demands),
        cmocka_unit_test(test_a_fin_behind_bytes_that_waited_does_not_say_when_the_phone_left),
        cmocka_unit_test(test_what_comes_out_of_a_connection_long_left_does_not_show_that_it_was_open),
        cmocka_unit_test(test_a_reset_that_answers_may_speak_for_an_app_that_left_before),
        cmocka_unit_test(test_a_phone_that_takes_new_bytes_has_not_left),
        cmocka_unit_test(test_bytes_that_an_acknowledgement_set_free_do_not_show_that_the_app_reads),
        cmocka_unit_test(test_what_came_right_before_the_server_left_was_perhaps_not_read),
        cmocka_unit_test(test_a_server_that_passes_on_later_bytes_had_read_those_before),
        cmocka_unit_test(test_a_push_that_nobody_saw_is_inferred_only_where_the_stream_was_stuck_by_then),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
