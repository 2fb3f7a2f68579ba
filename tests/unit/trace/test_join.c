/* Each verdict from records like those a run leaves; and what happens when records are taken away. */
#include "tests/unit/trace/story.h"

struct ask {
    uint64_t recipient;
    struct trace_pair pair;
    int n;
};

static bool on_pair(void *arg, const struct trace_pair *p)
{
    struct ask *a = arg;
    if (p->recipient == a->recipient) {
        a->pair = *p;
        a->n++;
    }
    return true;
}

static struct trace_pair verdict_of(struct tale *t, struct id id, uint64_t recipient)
{
    struct trace_run r;
    struct ask a = {.recipient = recipient};
    tale_load(t, 1000000, 0, &r);
    assert_int_equal(trace_pairs_of(&r, &id, on_pair, &a), 0);
    assert_int_equal(a.n, 1);
    /* a verdict other than not_observed cites records that are really there */
    if (a.pair.verdict != VERDICT_NOT_OBSERVED)
        assert_true(a.pair.evidence_n > 0);
    for (int i = 0; i < a.pair.evidence_n; i++)
        assert_true(a.pair.evidence[i] < r.events);
    trace_run_release(&r);
    return a.pair;
}

static struct tale *legacy(struct wire *a, struct wire *b)
{
    struct tale *t = tale_new(1);
    t->one_push = t->one_send = true;
    tell(t, SERVER, (struct trace_event){.hop = HOP_SERVER_START});
    member(t, 17, 7);
    member(t, 17, 8);
    *a = wire_open(t, 7, NET_LTE);
    *b = wire_open(t, 8, NET_WIFI);
    return t;
}

static void finish(struct tale *t, struct wire *a, struct wire *b)
{
    t->now += 20000 * MS;
    client_close(t, a, REASON_RUN_END);
    client_close(t, b, REASON_RUN_END);
    server_close(t, a, REASON_CLOSED_BY_PEER);
    server_close(t, b, REASON_CLOSED_BY_PEER);
    tell(t, SERVER, (struct trace_event){.hop = HOP_SERVER_STOP});
}

static void test_shown_is_delivered(void **state)
{
    (void)state;
    struct wire a, b;
    struct tale *t = legacy(&a, &b);
    struct id id = submit(t, 7, 17);
    send_up(t, &a, id, 17, 1, 0);
    server_has(t, &a, id, 17, 1, 1);
    push(t, &b, id, 17, 0, true);
    shown(t, &b, id, 17, 1);
    finish(t, &a, &b);
    struct trace_pair p = verdict_of(t, id, 8);
    assert_int_equal(p.verdict, VERDICT_DELIVERED);
    assert_int_equal(p.net, NET_WIFI);
    assert_true(p.surface_ns > p.submit_ns);
    tale_free(t);
}

static void test_never_left_the_phone_is_lost_uplink(void **state)
{
    (void)state;
    struct wire a, b;
    struct tale *t = legacy(&a, &b);
    client_close(t, &a, REASON_RESET);
    struct id id = submit(t, 7, 17);
    give_up(t, id, 7, 17, REASON_NOT_CONNECTED, 0);
    finish(t, &a, &b);
    struct trace_pair p = verdict_of(t, id, 8);
    assert_int_equal(p.verdict, VERDICT_LOST_UPLINK);
    assert_int_equal(p.reason, REASON_NOT_CONNECTED);
    assert_int_equal(p.net, NET_LTE);
    tale_free(t);
}

static void test_sent_into_a_dying_connection_is_lost_uplink_with_the_packet(void **state)
{
    (void)state;
    struct wire a, b;
    struct tale *t = legacy(&a, &b);
    struct id id = submit(t, 7, 17);
    send_up(t, &a, id, 17, 1, REASON_HANDOVER);
    client_close(t, &a, REASON_NETWORK_CHANGED);
    t->now += 5000 * MS;
    server_close(t, &a, REASON_TIMED_OUT);
    finish(t, &a, &b);
    struct trace_pair p = verdict_of(t, id, 8);
    assert_int_equal(p.verdict, VERDICT_LOST_UPLINK);
    assert_int_equal(p.reason, REASON_HANDOVER);
    tale_free(t);
}

static void test_no_session_is_lost_in_fanout(void **state)
{
    (void)state;
    struct wire a, b;
    struct tale *t = legacy(&a, &b);
    client_close(t, &b, REASON_APP_KILLED);
    server_close(t, &b, REASON_RESET);
    struct id id = submit(t, 7, 17);
    send_up(t, &a, id, 17, 1, 0);
    server_has(t, &a, id, 17, 1, 1);
    tell(t, SERVER,
         (struct trace_event){
             .id = id, .chat = 17, .user = 8, .hop = HOP_SERVER_PUSH_DROP, .reason = REASON_NO_SESSION});
    finish(t, &a, &b);
    struct trace_pair p = verdict_of(t, id, 8);
    assert_int_equal(p.verdict, VERDICT_LOST_IN_FANOUT);
    assert_int_equal(p.reason, REASON_NO_SESSION);
    tale_free(t);
}

static void test_push_after_the_phone_left_is_lost_dead_socket(void **state)
{
    (void)state;
    struct wire a, b;
    struct tale *t = legacy(&a, &b);
    client_close(t, &b, REASON_NETWORK_CHANGED);
    struct id id = submit(t, 7, 17);
    send_up(t, &a, id, 17, 1, 0);
    server_has(t, &a, id, 17, 1, 1);
    push(t, &b, id, 17, REASON_DETACHED, false);
    t->now += 5000 * MS;
    server_close(t, &b, REASON_TIMED_OUT);
    finish(t, &a, &b);
    struct trace_pair p = verdict_of(t, id, 8);
    assert_int_equal(p.verdict, VERDICT_LOST_DEAD_SOCKET);
    assert_int_equal(p.reason, REASON_NETWORK_CHANGED);
    tale_free(t);
}

static void test_dropped_on_a_live_connection_that_then_died_is_lost_downlink(void **state)
{
    (void)state;
    struct wire a, b;
    struct tale *t = legacy(&a, &b);
    struct id id = submit(t, 7, 17);
    send_up(t, &a, id, 17, 1, 0);
    server_has(t, &a, id, 17, 1, 1);
    push(t, &b, id, 17, REASON_BLACKOUT, false);
    t->now += 8000 * MS;
    client_close(t, &b, REASON_TIMED_OUT);
    server_close(t, &b, REASON_TIMED_OUT);
    finish(t, &a, &b);
    struct trace_pair p = verdict_of(t, id, 8);
    assert_int_equal(p.verdict, VERDICT_LOST_DOWNLINK);
    assert_int_equal(p.reason, REASON_BLACKOUT);
    tale_free(t);
}

static void test_delivered_to_a_sleeping_app_that_was_killed_is_lost_in_client(void **state)
{
    (void)state;
    struct wire a, b;
    struct tale *t = legacy(&a, &b);
    struct id id = submit(t, 7, 17);
    send_up(t, &a, id, 17, 1, 0);
    server_has(t, &a, id, 17, 1, 1);
    push(t, &b, id, 17, 0, true);
    t->now += 3000 * MS;
    client_close(t, &b, REASON_APP_KILLED);
    server_close(t, &b, REASON_RESET);
    finish(t, &a, &b);
    struct trace_pair p = verdict_of(t, id, 8);
    assert_int_equal(p.verdict, VERDICT_LOST_IN_CLIENT);
    assert_int_equal(p.reason, REASON_APP_KILLED);
    tale_free(t);
}

static void test_refused_is_lost_at_server(void **state)
{
    (void)state;
    struct wire a, b;
    struct tale *t = legacy(&a, &b);
    struct id id = submit(t, 7, 17);
    send_up(t, &a, id, 17, 1, 0);
    tell_server(
        t, &a,
        (struct trace_event){
            .id = id, .chat = 17, .user = 7, .hop = HOP_SERVER_REJECT, .reason = REASON_RATE_LIMITED});
    finish(t, &a, &b);
    struct trace_pair p = verdict_of(t, id, 8);
    assert_int_equal(p.verdict, VERDICT_LOST_AT_SERVER);
    assert_int_equal(p.reason, REASON_RATE_LIMITED);
    tale_free(t);
}

static void test_received_but_the_server_died_is_lost_before_commit(void **state)
{
    (void)state;
    struct wire a, b;
    struct tale *t = legacy(&a, &b);
    t->durable = true;
    struct id id = submit(t, 7, 17);
    send_up(t, &a, id, 17, 1, 0);
    tell_server(t, &a,
                (struct trace_event){
                    .id = id, .chat = 17, .user = 7, .hop = HOP_SERVER_RECEIVE, .flags = TRACE_FLAG_DURABLE});
    t->now += 500 * MS;
    tell(t, SERVER, (struct trace_event){.hop = HOP_SERVER_START});
    a.server_open = b.server_open = false; /* killed: no closes */
    finish(t, &a, &b);
    assert_int_equal(verdict_of(t, id, 8).verdict, VERDICT_LOST_BEFORE_COMMIT);
    tale_free(t);
}

static void test_durable_for_an_offline_member_is_pending(void **state)
{
    (void)state;
    struct wire a, b;
    struct tale *t = legacy(&a, &b);
    t->one_push = t->one_send = false;
    t->outbox = t->durable = true;
    client_close(t, &b, REASON_NETWORK_CHANGED);
    server_close(t, &b, REASON_IDLE);
    struct id id = submit(t, 7, 17);
    send_up(t, &a, id, 17, 1, 0);
    server_has(t, &a, id, 17, 1, 1);
    finish(t, &a, &b);
    assert_int_equal(verdict_of(t, id, 8).verdict, VERDICT_PENDING);
    tale_free(t);
}

static void test_open_end_is_not_observed(void **state)
{
    (void)state;
    struct wire a, b;
    struct tale *t = legacy(&a, &b);
    struct id id = submit(t, 7, 17);
    send_up(t, &a, id, 17, 1, 0);
    server_has(t, &a, id, 17, 1, 1);
    push(t, &b, id, 17, 0, false); /* and the run stops right here */
    client_close(t, &a, REASON_RUN_END);
    client_close(t, &b, REASON_RUN_END);
    assert_int_equal(verdict_of(t, id, 8).verdict, VERDICT_NOT_OBSERVED);
    tale_free(t);
}

/* ---- taking records away ---- */

#define PHONES 6

/* A long legacy run with every kind of end, drawn from the seed. */
static struct tale *long_tale(uint64_t seed, int messages, bool reliable)
{
    struct tale *t = tale_new(seed);
    struct wire w[PHONES];
    t->one_push = t->one_send = !reliable;
    t->outbox = t->durable = reliable;
    tell(t, SERVER, (struct trace_event){.hop = HOP_SERVER_START});
    for (uint64_t u = 0; u < PHONES; u++)
        member(t, 17, 100 + u);
    for (uint64_t u = 0; u < PHONES; u++)
        w[u] = wire_open(t, 100 + u, u % 2 ? NET_LTE : NET_WIFI);
    for (int m = 0; m < messages; m++) {
        uint64_t from = rng_below(&t->rng, PHONES);
        t->now += rng_below(&t->rng, 300) * MS;
        struct id id = submit(t, 100 + from, 17);
        if (!w[from].client_open || rng_below(&t->rng, 40) == 0) {
            if (reliable)
                continue;
            give_up(t, id, 100 + from, 17, REASON_NOT_CONNECTED, 0);
            continue;
        }
        if (rng_below(&t->rng, 30) == 0 && !reliable) { /* the way up breaks */
            send_up(t, &w[from], id, 17, 1, REASON_BLACKOUT);
            client_close(t, &w[from], REASON_TIMED_OUT);
            server_close(t, &w[from], REASON_TIMED_OUT);
            w[from] = wire_open(t, 100 + from, NET_LTE);
            continue;
        }
        send_up(t, &w[from], id, 17, 1, 0);
        server_has(t, &w[from], id, 17, (uint64_t)m + 1, PHONES - 1);
        for (uint64_t u = 0; u < PHONES; u++) {
            if (u == from)
                continue;
            uint64_t dice = rng_below(&t->rng, 100);
            if (dice < 2) { /* left silently, then pushed to */
                client_close(t, &w[u], REASON_NETWORK_CHANGED);
                push(t, &w[u], id, 17, REASON_DETACHED, false);
                server_close(t, &w[u], REASON_REPLACED);
                w[u] = wire_open(t, 100 + u, NET_LTE);
            } else if (dice < 4) { /* killed with unread bytes */
                push(t, &w[u], id, 17, 0, true);
                client_close(t, &w[u], REASON_APP_KILLED);
                server_close(t, &w[u], REASON_RESET);
                w[u] = wire_open(t, 100 + u, NET_LTE);
            } else if (dice < 6) { /* its packets are lost, the connection dies */
                push(t, &w[u], id, 17, REASON_LOSS, false);
                t->now += 4000 * MS;
                client_close(t, &w[u], REASON_TIMED_OUT);
                server_close(t, &w[u], REASON_TIMED_OUT);
                w[u] = wire_open(t, 100 + u, NET_LTE);
            } else if (dice < 8 && !reliable) {
                server_close(t, &w[u], REASON_RESET);
                client_close(t, &w[u], REASON_RESET);
                tell(t, SERVER,
                     (struct trace_event){.id = id,
                                          .chat = 17,
                                          .user = 100 + u,
                                          .hop = HOP_SERVER_PUSH_DROP,
                                          .reason = REASON_NO_SESSION});
                w[u] = wire_open(t, 100 + u, NET_LTE);
            } else {
                push(t, &w[u], id, 17, 0, true);
                shown(t, &w[u], id, 17, (uint64_t)m + 1);
            }
            /* what was not shown comes again on the new connection, when delivery is reliable */
            if (reliable && dice < 6 && rng_below(&t->rng, 10)) {
                push(t, &w[u], id, 17, 0, true);
                shown(t, &w[u], id, 17, (uint64_t)m + 1);
            }
        }
    }
    t->now += 20000 * MS;
    for (uint64_t u = 0; u < PHONES; u++) {
        client_close(t, &w[u], REASON_RUN_END);
        server_close(t, &w[u], REASON_CLOSED_BY_PEER);
    }
    tell(t, SERVER, (struct trace_event){.hop = HOP_SERVER_STOP});
    return t;
}

struct verdicts {
    struct trace_pair *list;
    size_t n, cap;
};

static bool keep_pair(void *arg, const struct trace_pair *p)
{
    struct verdicts *v = arg;
    if (v->n == v->cap) {
        v->cap = v->cap ? v->cap * 2 : 1024;
        v->list = realloc(v->list, v->cap * sizeof *v->list);
        assert_non_null(v->list);
    }
    v->list[v->n++] = *p;
    return true;
}

static int compare_pairs(const void *a, const void *b)
{
    const struct trace_pair *x = a, *y = b;
    int c = memcmp(&x->id, &y->id, sizeof x->id);
    return c ? c : x->recipient < y->recipient ? -1 : x->recipient > y->recipient;
}

static struct verdicts all_verdicts(struct tale *t, uint32_t keep, uint64_t seed)
{
    struct trace_run r;
    struct verdicts v = {0};
    tale_load(t, keep, seed, &r);
    assert_int_equal(trace_pairs(&r, keep_pair, &v), 0);
    trace_run_release(&r);
    qsort(v.list, v.n, sizeof *v.list, compare_pairs);
    return v;
}

static size_t check_only_to_not_observed(struct tale *t, const struct verdicts *whole, uint32_t keep,
                                         uint64_t seed)
{
    struct verdicts less = all_verdicts(t, keep, seed);
    size_t moved = 0;
    for (size_t i = 0; i < less.n; i++) {
        const struct trace_pair *was =
            bsearch(&less.list[i], whole->list, whole->n, sizeof *whole->list, compare_pairs);
        if (less.list[i].verdict == VERDICT_NOT_OBSERVED) {
            moved++;
            continue;
        }
        assert_non_null(was); /* no pair is invented with a verdict */
        if (was->verdict != less.list[i].verdict)
            print_error("%s became %s\n", verdict_name(was->verdict), verdict_name(less.list[i].verdict));
        assert_int_equal(was->verdict, less.list[i].verdict);
    }
    free(less.list);
    return moved;
}

static void test_taking_records_away_moves_pairs_to_not_observed_only(void **state)
{
    (void)state;
    static const uint32_t keeps[] = {990000, 700000};
    for (int reliable = 0; reliable < 2; reliable++) {
        struct tale *t = long_tale(5 + (uint64_t)reliable, 400, reliable);
        struct verdicts whole = all_verdicts(t, 1000000, 0);
        size_t unseen = 0, losses = 0, kept = 0;
        for (size_t i = 0; i < whole.n; i++) {
            unseen += whole.list[i].verdict == VERDICT_NOT_OBSERVED;
            losses += verdict_is_loss(whole.list[i].verdict);
        }
        assert_int_equal(unseen, 0);
        if (!reliable)
            assert_true(losses > 100);
        for (uint64_t seed = 1; seed <= 50; seed++) {
            size_t moved = check_only_to_not_observed(t, &whole, keeps[0], seed);
            kept += whole.n - moved;
            check_only_to_not_observed(t, &whole, keeps[1], seed);
        }
        assert_true(kept > 50 * whole.n / 2); /* and a few holes do not blind it */
        free(whole.list);
        tale_free(t);
    }
}

static void test_figures_add_up(void **state)
{
    (void)state;
    struct tale *t = long_tale(9, 300, false);
    struct trace_run r;
    struct trace_summary s;
    struct err_ctx err = {0};
    tale_load(t, 1000000, 0, &r);
    assert_int_equal(trace_summarize(&s, &r, &err), 0);
    uint64_t sum = 0;
    for (int n = 0; n < NET_COUNT; n++)
        for (int v = 0; v < VERDICT_COUNT; v++)
            sum += s.verdict[n][v];
    assert_int_equal(sum, s.pairs);
    assert_int_equal(s.messages, 300);
    assert_int_equal(s.pairs, 300 * (PHONES - 1));
    assert_int_equal(s.hop[HOP_CLIENT_SUBMIT], 300);
    assert_int_equal(s.hop[HOP_CLIENT_SURFACE], s.total[VERDICT_DELIVERED]);
    assert_true(s.latency[NET_LTE] && s.latency[NET_LTE]->count > 0);
    struct trace_latency slow[5];
    int n = 0;
    assert_int_equal(trace_slowest(&r, slow, 5, &n, &err), 0);
    assert_int_equal(n, 5);
    for (int i = 0; i < n; i++) {
        uint64_t legs = 0;
        for (int k = 0; k < LEG_COUNT; k++)
            legs += slow[i].leg_ns[k];
        assert_int_equal(legs, slow[i].total_ns);
        assert_true(!i || slow[i].total_ns <= slow[i - 1].total_ns);
    }
    trace_summary_release(&s);
    trace_run_release(&r);
    tale_free(t);
}

static void test_explain_tells_the_dropped_packet_and_the_verdict(void **state)
{
    (void)state;
    struct wire a, b;
    struct tale *t = legacy(&a, &b);
    struct id id = submit(t, 7, 17);
    send_up(t, &a, id, 17, 1, 0);
    server_has(t, &a, id, 17, 1, 1);
    push(t, &b, id, 17, REASON_BLACKOUT, false);
    t->now += 8000 * MS;
    client_close(t, &b, REASON_TIMED_OUT);
    server_close(t, &b, REASON_TIMED_OUT);
    finish(t, &a, &b);
    struct trace_run r;
    struct buf out = BUF_INIT(1 << 20);
    struct err_ctx err = {0};
    tale_load(t, 1000000, 0, &r);
    assert_int_equal(trace_explain(&r, &id, &out, &err), 0);
    const char *text = buf_cstr(&out);
    assert_non_null(strstr(text, "blackout"));
    assert_non_null(strstr(text, "lost on the way down"));
    struct id other = id_new(5, &t->rng);
    assert_int_equal(trace_explain(&r, &other, &out, &err), ERR_NOTFOUND);
    buf_release(&out);
    trace_run_release(&r);
    tale_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shown_is_delivered),
        cmocka_unit_test(test_never_left_the_phone_is_lost_uplink),
        cmocka_unit_test(test_sent_into_a_dying_connection_is_lost_uplink_with_the_packet),
        cmocka_unit_test(test_no_session_is_lost_in_fanout),
        cmocka_unit_test(test_push_after_the_phone_left_is_lost_dead_socket),
        cmocka_unit_test(test_dropped_on_a_live_connection_that_then_died_is_lost_downlink),
        cmocka_unit_test(test_delivered_to_a_sleeping_app_that_was_killed_is_lost_in_client),
        cmocka_unit_test(test_refused_is_lost_at_server),
        cmocka_unit_test(test_received_but_the_server_died_is_lost_before_commit),
        cmocka_unit_test(test_durable_for_an_offline_member_is_pending),
        cmocka_unit_test(test_open_end_is_not_observed),
        cmocka_unit_test(test_taking_records_away_moves_pairs_to_not_observed_only),
        cmocka_unit_test(test_figures_add_up),
        cmocka_unit_test(test_explain_tells_the_dropped_packet_and_the_verdict),
    };
    return cmocka_run_group_tests_name("join", tests, NULL, NULL);
}
