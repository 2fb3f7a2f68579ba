/* From records to a script: who is there, what is said, and when a connection dies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "core/client.h"
#include "load/replay.h"
#include "trace/join.h"

#define S NS_PER_S

static struct trace_event record[64];
static uint32_t records;

static struct id name(uint8_t n)
{
    return (struct id){{0x01, 0x9a, 0, 0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, n}};
}

static void add(struct trace_event e)
{
    record[records++] = e;
}

static void opens(uint64_t at, uint64_t user, uint32_t conn, uint16_t port)
{
    struct trace_flow f = {.src = 0x7f000001, .dst = 0x7f000001, .sport = port, .dport = 80};
    for (int server = 0; server < 2; server++) {
        struct trace_event e = {.ts_ns = at,
                                .hop = HOP_SOCKET_OPEN,
                                .user = user,
                                .conn = conn,
                                .device = 3,
                                .reason = NET_LTE,
                                .node = server ? TRACE_NODE_SERVER : TRACE_NODE_LOAD};
        memcpy(&e.id, &f, sizeof f);
        add(e);
    }
}

static void closes(uint64_t at, uint64_t user, uint32_t conn, enum reason why)
{
    add((struct trace_event){.ts_ns = at,
                             .hop = HOP_SOCKET_CLOSE,
                             .user = user,
                             .conn = conn,
                             .lane_seq = 1,
                             .reason = (uint8_t)why,
                             .node = TRACE_NODE_LOAD});
}

static void says(uint64_t at, uint64_t user, uint8_t id, uint64_t intent, enum hop hop)
{
    add((struct trace_event){.ts_ns = at,
                             .hop = (uint8_t)hop,
                             .id = name(id),
                             .chat = 17,
                             .user = user,
                             .arg = intent,
                             .node = TRACE_NODE_LOAD});
}

static void server(uint64_t at, enum hop hop, uint8_t id, uint64_t user, uint32_t conn)
{
    add((struct trace_event){.ts_ns = at,
                             .hop = (uint8_t)hop,
                             .id = name(id),
                             .chat = 17,
                             .user = user,
                             .conn = conn,
                             .node = TRACE_NODE_SERVER});
}

static int read_it(struct replay *r, const struct replay_options *o, struct err_ctx *err)
{
    struct trace_run run;
    const struct trace_memory part[] = {{.node = 1, .event = record, .n = records, .emitted = records},
                                        {.node = TRACE_NODE_LOAD}};
    assert_int_equal(trace_run_from_memory(&run, part, 2, NULL), 0);
    assert_int_equal(trace_join(&run, NULL), 0);
    replay_init(r);
    int rc = replay_from_trace(r, &run, o, err);
    trace_run_release(&run);
    records = 0;
    return rc;
}

static const struct replay_options as_recorded = {.speed_ppm = 1000000, .features = -1};

/* 7 tells 8 three things: the first arrives; the second is pushed, and the connection of 8 turns out to be
 * dead; the third 7 says without a connection and presses again later. */
static void incident(void)
{
    opens(1 * S, 7, 1, 1001);
    opens(1 * S, 8, 2, 1002);
    says(2 * S, 7, 1, 1, HOP_CLIENT_SUBMIT);
    server(2 * S + 1, HOP_SERVER_RECEIVE, 1, 7, 1);
    server(2 * S + 2, HOP_SERVER_PUSH, 1, 8, 2);
    add((struct trace_event){.ts_ns = 2 * S + 3,
                             .hop = HOP_CLIENT_RECEIVE,
                             .id = name(1),
                             .chat = 17,
                             .user = 8,
                             .conn = 2,
                             .node = TRACE_NODE_LOAD});
    says(4 * S, 7, 2, 2, HOP_CLIENT_SUBMIT);
    server(4 * S + 1, HOP_SERVER_RECEIVE, 2, 7, 1);
    server(4 * S + 2, HOP_SERVER_PUSH, 2, 8, 2);
    closes(5 * S, 7, 1, REASON_NETWORK_CHANGED);
    says(6 * S, 7, 3, 3, HOP_CLIENT_SUBMIT);
    opens(7 * S, 7, 3, 1003);
    says(8 * S, 7, 4, 3, HOP_CLIENT_RESEND);
    closes(9 * S, 8, 2, REASON_TIMED_OUT);
    closes(10 * S, 7, 3, REASON_RUN_END);
}

static void step(const struct replay *r, uint32_t i, enum load_act act, uint64_t user, uint64_t at_ns)
{
    const struct load_step *s = &r->script.step[i];
    assert_int_equal(s->act, act);
    assert_int_equal(r->script.phone[s->phone].user, user);
    assert_int_equal(s->at_ns, REPLAY_LEAD_NS + at_ns);
}

static void test_connections_die_right_before_the_first_message_that_was_lost(void **state)
{
    (void)state;
    struct replay r;
    incident();
    assert_int_equal(read_it(&r, &as_recorded, NULL), 0);
    assert_int_equal(r.script.phones, 2);
    assert_int_equal(r.script.chats, 1);
    assert_int_equal(r.script.members, 2);
    assert_int_equal(r.script.chat[0].number, 17);
    assert_int_equal(r.script.phone[0].device, 3);
    assert_int_equal(r.population[0].net, NET_LTE);
    assert_int_equal(r.population[0].features, CLIENT_LEGACY);
    assert_int_equal(r.script.steps, 8);
    step(&r, 0, LOAD_SAY, 7, 0);
    step(&r, 1, LOAD_FREEZE, 8, 2 * S - NS_PER_MS); /* before the second is said, since it never came */
    step(&r, 2, LOAD_SAY, 7, 2 * S);
    step(&r, 3, LOAD_LEAVE, 7, 3 * S);
    step(&r, 4, LOAD_SAY, 7, 4 * S);
    step(&r, 5, LOAD_RETURN, 7, 5 * S);
    step(&r, 6, LOAD_PRESS, 7, 6 * S);
    step(&r, 7, LOAD_LEAVE, 8, 7 * S); /* the end of the run is no loss */
    assert_int_equal(r.script.step[3].reason, REASON_NETWORK_CHANGED);
    assert_int_equal(r.script.step[6].intent, 3);
    assert_int_equal(r.bodies_unknown, 4);
    replay_release(&r);
}

static void test_time_is_scaled_and_pauses_are_cut(void **state)
{
    (void)state;
    struct replay r;
    struct replay_options o = as_recorded;
    o.speed_ppm = 4000000;
    incident();
    assert_int_equal(read_it(&r, &o, NULL), 0);
    step(&r, 3, LOAD_LEAVE, 7, 3 * S / 4);
    step(&r, 7, LOAD_LEAVE, 8, 7 * S / 4);
    replay_release(&r);
    o.speed_ppm = 0;
    incident();
    assert_int_equal(read_it(&r, &o, NULL), 0);
    for (uint32_t i = 1; i < r.script.steps; i++)
        assert_true(r.script.step[i].at_ns - r.script.step[i - 1].at_ns <= REPLAY_PAUSE_NS);
    replay_release(&r);
}

static void test_who_comes_late_is_away_at_first_and_others_devices_stay_out(void **state)
{
    (void)state;
    struct replay r;
    opens(1 * S, 7, 1, 1001);
    says(2 * S, 7, 1, 1, HOP_CLIENT_SUBMIT);
    opens(3 * S, 8, 2, 1002);
    opens(4 * S, 7, 3, 1003);
    record[records - 1].device = record[records - 2].device = 9; /* 7 has a tablet, too */
    closes(5 * S, 7, 3, REASON_TIMED_OUT);
    server(6 * S, HOP_SERVER_MEMBER, 0, 8, 0);
    assert_int_equal(read_it(&r, &as_recorded, NULL), 0);
    assert_true(r.connections_skipped > 0);
    assert_int_equal(r.script.steps, 3);
    assert_int_equal(r.leaves, 1);
    bool away = false, back = false;
    for (uint32_t i = 0; i < r.script.steps; i++) {
        const struct load_step *s = &r.script.step[i];
        if (s->act == LOAD_SAY)
            continue;
        assert_int_equal(r.script.phone[s->phone].user, 8);
        away |= s->act == LOAD_LEAVE && s->at_ns == REPLAY_LEAD_NS;
        back |= s->act == LOAD_RETURN && s->at_ns == REPLAY_LEAD_NS + S;
    }
    assert_true(away && back);
    replay_release(&r);
}

static void test_silence_and_two_as_one_are_refused(void **state)
{
    (void)state;
    struct replay r;
    struct err_ctx err = {0};
    struct map users;
    struct replay_options o = as_recorded;
    opens(1 * S, 7, 1, 1001);
    assert_int_equal(read_it(&r, &as_recorded, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "nobody"));
    replay_release(&r);
    map_init(&users, 8, 8, 10, 1);
    *(uint64_t *)map_put_u64(&users, 7, NULL) = 8;
    o.users = &users;
    incident();
    assert_int_equal(read_it(&r, &o, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "user 8"));
    replay_release(&r);
    map_release(&users);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_connections_die_right_before_the_first_message_that_was_lost),
        cmocka_unit_test(test_time_is_scaled_and_pauses_are_cut),
        cmocka_unit_test(test_who_comes_late_is_away_at_first_and_others_devices_stay_out),
        cmocka_unit_test(test_silence_and_two_as_one_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
