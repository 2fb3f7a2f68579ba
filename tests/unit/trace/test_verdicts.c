/* The rarer ends: on the bus, in a restore, in a dying server, in a queue; and what is not lost at all. */
#include "tests/unit/trace/story.h"

struct world {
    struct tale *t;
    struct wire a, b;
    struct id id;
};

static struct world begin(bool reliable)
{
    struct world o = {.t = tale_new(3)};
    struct tale *t = o.t;
    t->one_push = t->one_send = !reliable;
    t->outbox = t->durable = reliable;
    tell(t, SERVER, (struct trace_event){.hop = HOP_SERVER_START});
    member(t, 17, 7);
    member(t, 17, 8);
    o.a = wire_open(t, 7, NET_LTE);
    o.b = wire_open(t, 8, NET_WIFI);
    o.id = submit(t, 7, 17);
    return o;
}

static void server_tells(struct world *o, enum hop hop, uint64_t user, uint64_t arg, enum reason reason)
{
    tell(o->t, SERVER,
         (struct trace_event){
             .id = o->id, .chat = 17, .user = user, .arg = arg, .hop = hop, .reason = reason});
}

static void end(struct world *o)
{
    o->t->now += 20000 * MS;
    client_close(o->t, &o->a, REASON_RUN_END);
    client_close(o->t, &o->b, REASON_RUN_END);
    server_close(o->t, &o->a, REASON_CLOSED_BY_PEER);
    server_close(o->t, &o->b, REASON_CLOSED_BY_PEER);
    tell(o->t, SERVER, (struct trace_event){.hop = HOP_SERVER_STOP});
}

static bool on_pair(void *arg, const struct trace_pair *p)
{
    struct trace_pair *out = arg;
    assert_int_equal(p->recipient, 8);
    assert_int_equal(out->recipient, 0); /* exactly one verdict */
    *out = *p;
    return true;
}

/* Judge, check the verdict, free. */
static struct trace_pair expect(struct world *o, enum verdict verdict)
{
    struct trace_run r;
    struct trace_pair p = {.recipient = 0};
    tale_load(o->t, 1000000, 0, &r);
    assert_int_equal(trace_pairs_of(&r, &o->id, on_pair, &p), 0);
    if (p.verdict != verdict)
        print_error("%s: %s\n", verdict_name(p.verdict), p.why);
    assert_int_equal(p.verdict, verdict);
    for (uint8_t i = 0; i < p.evidence_n; i++)
        assert_true(p.evidence[i] < r.events);
    trace_run_release(&r);
    tale_free(o->t);
    return p;
}

static void test_a_hole_on_the_bus_is_lost_on_bus(void **state)
{
    (void)state;
    struct world o = begin(false);
    send_up(o.t, &o.a, o.id, 17, 1, 0);
    server_has(o.t, &o.a, o.id, 17, 4, 1);
    server_tells(&o, HOP_BUS_PUBLISH, 7, 4, 0);
    tell(o.t, SERVER, (struct trace_event){.chat = 17, .arg = 4, .hop = HOP_BUS_HOLE});
    struct trace_event *hole = &o.t->part[SERVER].event[o.t->part[SERVER].n - 1];
    hole->node = 2; /* another node of the cluster saw it */
    end(&o);
    expect(&o, VERDICT_LOST_ON_BUS);
}

static void test_a_store_restored_without_it_is_lost_in_restore(void **state)
{
    (void)state;
    struct world o = begin(true);
    client_close(o.t, &o.b, REASON_RESET);
    server_close(o.t, &o.b, REASON_RESET);
    send_up(o.t, &o.a, o.id, 17, 1, 0);
    server_has(o.t, &o.a, o.id, 17, 9, 1);
    tell(o.t, SERVER, (struct trace_event){.hop = HOP_SERVER_START});
    tell(o.t, SERVER, (struct trace_event){.chat = 17, .user = 8, .arg = 77, .hop = HOP_SERVER_EPOCH});
    end(&o);
    expect(&o, VERDICT_LOST_IN_RESTORE);
}

static void test_a_store_restored_with_it_keeps_it_pending(void **state)
{
    (void)state;
    struct world o = begin(true);
    send_up(o.t, &o.a, o.id, 17, 1, 0);
    server_has(o.t, &o.a, o.id, 17, 8, 1);
    tell(o.t, SERVER, (struct trace_event){.chat = 17, .user = 8, .arg = 77, .hop = HOP_SERVER_EPOCH});
    end(&o);
    expect(&o, VERDICT_PENDING);
}

static void test_a_server_killed_between_receive_and_fan_out_is_lost_at_server(void **state)
{
    (void)state;
    struct world o = begin(false);
    send_up(o.t, &o.a, o.id, 17, 1, 0);
    tell_server(o.t, &o.a,
                (struct trace_event){.id = o.id, .chat = 17, .user = 7, .hop = HOP_SERVER_RECEIVE});
    o.t->now += 3000 * MS;
    tell(o.t, SERVER, (struct trace_event){.hop = HOP_SERVER_START});
    o.a.server_open = o.b.server_open = false;
    end(&o);
    struct trace_pair p = expect(&o, VERDICT_LOST_AT_SERVER);
    assert_int_equal(p.reason, REASON_KILLED);
    assert_int_equal(p.net, NET_WIFI); /* the recipient's, from the server on */
}

static void test_a_store_that_failed_is_lost_before_commit(void **state)
{
    (void)state;
    struct world o = begin(true);
    o.t->part[LOAD].event[o.t->part[LOAD].n - 1].flags =
        TRACE_FLAG_ONE_SEND; /* a legacy phone, a durable server */
    send_up(o.t, &o.a, o.id, 17, 1, 0);
    tell_server(
        o.t, &o.a,
        (struct trace_event){
            .id = o.id, .chat = 17, .user = 7, .hop = HOP_SERVER_RECEIVE, .flags = TRACE_FLAG_DURABLE});
    server_tells(&o, HOP_SERVER_STORE_FAILURE, 7, 0, REASON_STORAGE_FULL);
    end(&o);
    struct trace_pair p = expect(&o, VERDICT_LOST_BEFORE_COMMIT);
    assert_int_equal(p.reason, REASON_STORAGE_FULL);
}

static void test_what_was_queued_and_never_written_died_with_its_socket(void **state)
{
    (void)state;
    struct world o = begin(false);
    send_up(o.t, &o.a, o.id, 17, 1, 0);
    server_has(o.t, &o.a, o.id, 17, 1, 1);
    client_close(o.t, &o.b, REASON_TIMED_OUT);
    server_close(o.t, &o.b, REASON_TIMED_OUT);
    end(&o);
    struct trace_pair p = expect(&o, VERDICT_LOST_DEAD_SOCKET);
    assert_int_equal(p.reason, REASON_TIMED_OUT);
}

static void test_a_recipient_whom_the_fan_out_forgot_is_lost_in_fanout(void **state)
{
    (void)state;
    struct world o = begin(false);
    client_close(o.t, &o.b, REASON_TIMED_OUT);
    server_close(o.t, &o.b, REASON_TIMED_OUT);
    send_up(o.t, &o.a, o.id, 17, 1, 0);
    server_has(o.t, &o.a, o.id, 17, 1, 1);
    end(&o);
    expect(&o, VERDICT_LOST_IN_FANOUT);
}

static void test_what_the_outbox_holds_is_pending_however_often_it_failed(void **state)
{
    (void)state;
    struct world o = begin(true);
    for (uint8_t attempt = 1; attempt <= 3; attempt++) {
        send_up(o.t, &o.a, o.id, 17, attempt, REASON_LOSS);
        client_close(o.t, &o.a, REASON_TIMED_OUT);
        server_close(o.t, &o.a, REASON_TIMED_OUT);
        o.a = wire_open(o.t, 7, NET_LTE);
    }
    end(&o);
    expect(&o, VERDICT_PENDING);
}

static void test_what_a_person_gave_up_after_three_attempts_is_lost_uplink(void **state)
{
    (void)state;
    struct world o = begin(true);
    for (uint8_t attempt = 1; attempt <= 3; attempt++) {
        send_up(o.t, &o.a, o.id, 17, attempt, REASON_LOSS);
        client_close(o.t, &o.a, REASON_TIMED_OUT);
        server_close(o.t, &o.a, REASON_TIMED_OUT);
        o.a = wire_open(o.t, 7, NET_LTE);
    }
    give_up(o.t, o.id, 7, 17, REASON_PERSON_GAVE_UP, 3);
    end(&o);
    expect(&o, VERDICT_LOST_UPLINK);
}

static void test_a_retry_that_arrived_is_delivered(void **state)
{
    (void)state;
    struct world o = begin(true);
    send_up(o.t, &o.a, o.id, 17, 1, REASON_LOSS);
    client_close(o.t, &o.a, REASON_TIMED_OUT);
    server_close(o.t, &o.a, REASON_TIMED_OUT);
    o.a = wire_open(o.t, 7, NET_LTE);
    send_up(o.t, &o.a, o.id, 17, 2, 0);
    server_has(o.t, &o.a, o.id, 17, 1, 1);
    push(o.t, &o.b, o.id, 17, 0, true);
    shown(o.t, &o.b, o.id, 17, 1);
    end(&o);
    expect(&o, VERDICT_DELIVERED);
}

static void test_received_by_an_app_that_never_showed_it_is_lost_in_client(void **state)
{
    (void)state;
    struct world o = begin(false);
    send_up(o.t, &o.a, o.id, 17, 1, 0);
    server_has(o.t, &o.a, o.id, 17, 1, 1);
    push(o.t, &o.b, o.id, 17, 0, true);
    tell_client(o.t, &o.b,
                (struct trace_event){.id = o.id, .chat = 17, .user = 8, .hop = HOP_CLIENT_RECEIVE});
    client_close(o.t, &o.b, REASON_APP_KILLED);
    end(&o);
    expect(&o, VERDICT_LOST_IN_CLIENT);
}

static void test_one_deleted_surface_makes_it_not_observed(void **state)
{
    (void)state;
    struct world o = begin(false);
    send_up(o.t, &o.a, o.id, 17, 1, 0);
    server_has(o.t, &o.a, o.id, 17, 1, 1);
    push(o.t, &o.b, o.id, 17, 0, true);
    shown(o.t, &o.b, o.id, 17, 1);
    end(&o);
    struct writer *w = &o.t->part[LOAD];
    for (uint32_t i = 0; i < w->n; i++)
        if (w->event[i].hop == HOP_CLIENT_SURFACE)
            w->event[i].hop = HOP_NONE; /* the reader refuses it, the header still counts it */
    expect(&o, VERDICT_NOT_OBSERVED);
}

static void test_of_a_sample_only_what_its_users_said_is_judged(void **state)
{
    (void)state;
    struct world o = begin(false);
    struct trace_run r;
    struct trace_summary s;
    struct err_ctx ctx = {0};
    struct id other = id_new(o.t->now / MS, &o.t->rng); /* of somebody who is not in it */
    push(o.t, &o.b, other, 17, 0, true);
    shown(o.t, &o.b, other, 17, 1);
    send_up(o.t, &o.a, o.id, 17, 1, 0);
    server_has(o.t, &o.a, o.id, 17, 2, 1);
    push(o.t, &o.b, o.id, 17, 0, true);
    shown(o.t, &o.b, o.id, 17, 2);
    end(&o);
    for (uint32_t sample = 0; sample <= 500; sample += 500)
        for (int whole = 0; whole < 2; whole++) {
            /* the load's last record refused by the reader: its records have a hole */
            struct trace_event *last = &o.t->part[LOAD].event[o.t->part[LOAD].n - 1], kept = *last;
            last->hop = whole ? last->hop : HOP_NONE;
            tale_load(o.t, 1000000, 0, &r);
            r.sample = sample;
            assert_int_equal(trace_summarize(&s, &r, &ctx), 0);
            bool outside = sample && whole;
            assert_int_equal(s.outside, outside);
            assert_int_equal(s.total[VERDICT_NOT_OBSERVED], !outside);
            assert_int_equal(s.total[VERDICT_DELIVERED], 1);
            trace_summary_release(&s);
            trace_run_release(&r);
            *last = kept;
        }
    tale_free(o.t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_hole_on_the_bus_is_lost_on_bus),
        cmocka_unit_test(test_a_store_restored_without_it_is_lost_in_restore),
        cmocka_unit_test(test_a_store_restored_with_it_keeps_it_pending),
        cmocka_unit_test(test_a_server_killed_between_receive_and_fan_out_is_lost_at_server),
        cmocka_unit_test(test_a_store_that_failed_is_lost_before_commit),
        cmocka_unit_test(test_what_was_queued_and_never_written_died_with_its_socket),
        cmocka_unit_test(test_a_recipient_whom_the_fan_out_forgot_is_lost_in_fanout),
        cmocka_unit_test(test_what_the_outbox_holds_is_pending_however_often_it_failed),
        cmocka_unit_test(test_what_a_person_gave_up_after_three_attempts_is_lost_uplink),
        cmocka_unit_test(test_a_retry_that_arrived_is_delivered),
        cmocka_unit_test(test_received_by_an_app_that_never_showed_it_is_lost_in_client),
        cmocka_unit_test(test_one_deleted_surface_makes_it_not_observed),
        cmocka_unit_test(test_of_a_sample_only_what_its_users_said_is_judged),
    };
    return cmocka_run_group_tests_name("verdicts", tests, NULL, NULL);
}
