/* The property that makes verdicts trustworthy, on runs that are meant to mislead: connections that reuse one
 * 4-tuple, servers that are killed and come back, pushes that were never written. Whatever is taken away -
 * single records, whole lanes, all that one side wrote - a pair keeps its verdict or becomes not_observed. */
#include "tests/unit/trace/story.h"

#include "util/map.h"

#define PHONES 5

struct world {
    struct tale *t;
    struct wire w[PHONES];
    uint64_t seq;
};

static void reconnect(struct world *o, uint64_t u)
{
    o->w[u] = wire_open(o->t, 100 + u, u % 2 ? NET_LTE : NET_WIFI);
}

static void server_dies(struct world *o, struct id id, struct wire *from)
{
    struct tale *t = o->t;
    tell_server(t, from,
                (struct trace_event){.id = id, .chat = 17, .user = from->user, .hop = HOP_SERVER_RECEIVE});
    t->now += 3000 * MS;
    tell(t, SERVER, (struct trace_event){.hop = HOP_SERVER_START});
    for (uint64_t u = 0; u < PHONES; u++) {
        client_close(t, &o->w[u], REASON_RESET);
        reconnect(o, u);
    }
}

static void to_recipient(struct world *o, uint64_t u, struct id id)
{
    struct tale *t = o->t;
    struct wire *w = &o->w[u];
    uint64_t dice = rng_below(&t->rng, 100);
    if (dice < 3) { /* left, then pushed to; the same ports again at once */
        client_close(t, w, REASON_NETWORK_CHANGED);
        push(t, w, id, 17, REASON_DETACHED, false);
        server_close(t, w, REASON_REPLACED);
        reconnect(o, u);
    } else if (dice < 6) {
        push(t, w, id, 17, 0, true);
        client_close(t, w, REASON_APP_KILLED);
        server_close(t, w, REASON_RESET);
        reconnect(o, u);
    } else if (dice < 9) {
        push(t, w, id, 17, REASON_LOSS, false);
        t->now += 3000 * MS;
        client_close(t, w, REASON_TIMED_OUT);
        server_close(t, w, REASON_TIMED_OUT);
        reconnect(o, u);
    } else if (dice < 12) { /* queued, and the connection went before it was written */
        server_close(t, w, REASON_RESET);
        client_close(t, w, REASON_RESET);
        reconnect(o, u);
    } else if (dice < 15) {
        tell(t, SERVER,
             (struct trace_event){
                 .id = id, .chat = 17, .user = 100 + u, .hop = HOP_SERVER_PUSH_DROP, .reason = REASON_SLOW});
    } else {
        push(t, w, id, 17, 0, true);
        shown(t, w, id, 17, o->seq);
    }
}

static struct tale *misleading_tale(uint64_t seed, bool promise_one_send)
{
    struct world o = {.t = tale_new(seed)};
    struct tale *t = o.t;
    t->reuse_ports = t->one_push = true;
    t->one_send = promise_one_send;
    tell(t, SERVER, (struct trace_event){.hop = HOP_SERVER_START});
    for (uint64_t u = 0; u < PHONES; u++)
        member(t, 17, 100 + u);
    for (uint64_t u = 0; u < PHONES; u++)
        reconnect(&o, u);
    for (int m = 0; m < 250; m++) {
        uint64_t from = rng_below(&t->rng, PHONES), dice = rng_below(&t->rng, 40);
        struct wire *w = &o.w[from];
        t->now += rng_below(&t->rng, 200) * MS;
        struct id id = submit(t, 100 + from, 17);
        if (dice == 0) {
            give_up(t, id, 100 + from, 17, REASON_NOT_CONNECTED, 0);
            continue;
        }
        send_up(t, w, id, 17, 1, dice == 1 ? REASON_HANDOVER : 0);
        if (dice == 1) {
            client_close(t, w, REASON_RESET);
            server_close(t, w, REASON_TIMED_OUT);
            reconnect(&o, from);
            continue;
        }
        if (dice == 2) {
            server_dies(&o, id, w);
            continue;
        }
        server_has(t, w, id, 17, ++o.seq, PHONES - 1);
        for (uint64_t u = 0; u < PHONES; u++)
            if (u != from)
                to_recipient(&o, u, id);
    }
    t->now += 20000 * MS;
    for (uint64_t u = 0; u < PHONES; u++) {
        client_close(t, &o.w[u], REASON_RUN_END);
        server_close(t, &o.w[u], REASON_CLOSED_BY_PEER);
    }
    tell(t, SERVER, (struct trace_event){.hop = HOP_SERVER_STOP});
    return t;
}

/* ---- runs with something missing ---- */

typedef bool keep_fn(struct rng *rng, enum part p, const struct trace_event *e, uint64_t arg);

static bool keep_share(struct rng *rng, enum part p, const struct trace_event *e, uint64_t ppm)
{
    (void)p, (void)e;
    return rng_hit(rng, RNG_SHARE(ppm));
}

static bool keep_lanes(struct rng *rng, enum part p, const struct trace_event *e, uint64_t seed)
{
    uint64_t lane[3] = {seed, p, e->conn};
    (void)rng;
    return !e->conn || hash_bytes(lane, sizeof lane, 1) % 4 != 0;
}

static bool keep_other_parts(struct rng *rng, enum part p, const struct trace_event *e, uint64_t part)
{
    (void)e;
    return p != (enum part)part || rng_hit(rng, RNG_SHARE(900000));
}

static bool keep_other_hops(struct rng *rng, enum part p, const struct trace_event *e, uint64_t hop)
{
    (void)rng, (void)p;
    return e->hop != hop;
}

struct verdicts {
    struct trace_pair list[250 * PHONES];
    size_t n;
};

static bool keep_pair(void *arg, const struct trace_pair *p)
{
    struct verdicts *v = arg;
    assert_true(v->n < sizeof v->list / sizeof *v->list);
    v->list[v->n++] = *p;
    return true;
}

static int compare_pairs(const void *a, const void *b)
{
    const struct trace_pair *x = a, *y = b;
    int c = memcmp(&x->id, &y->id, sizeof x->id);
    return c ? c : x->recipient < y->recipient ? -1 : x->recipient > y->recipient;
}

static struct verdicts *judge(const struct tale *t, keep_fn *keep, uint64_t arg, uint64_t seed)
{
    static const uint16_t nodes[] = {TRACE_NODE_SERVER, TRACE_NODE_LINK, TRACE_NODE_LOAD};
    struct trace_memory parts[PARTS];
    struct trace_event *left[PARTS];
    struct trace_run r;
    struct rng rng;
    struct verdicts *v = calloc(1, sizeof *v);
    rng_seed(&rng, seed);
    for (int p = 0; p < PARTS; p++) {
        uint32_t n = 0;
        left[p] = calloc(t->part[p].n + 1, sizeof *left[p]);
        for (uint32_t i = 0; i < t->part[p].n; i++)
            if (!keep || keep(&rng, (enum part)p, &t->part[p].event[i], arg))
                left[p][n++] = t->part[p].event[i];
        parts[p] = (struct trace_memory){.node = nodes[p], .event = left[p], .n = n, .emitted = t->part[p].n};
    }
    assert_int_equal(trace_run_from_memory(&r, parts, PARTS, NULL), 0);
    assert_int_equal(trace_join(&r, NULL), 0);
    assert_int_equal(trace_pairs(&r, keep_pair, v), 0);
    trace_run_release(&r);
    for (int p = 0; p < PARTS; p++)
        free(left[p]);
    qsort(v->list, v->n, sizeof v->list[0], compare_pairs);
    return v;
}

/* Returns how many pairs kept their verdict. */
static size_t check(const struct tale *t, const struct verdicts *whole, keep_fn *keep, uint64_t arg,
                    uint64_t seed)
{
    struct verdicts *less = judge(t, keep, arg, seed);
    size_t kept = 0;
    for (size_t i = 0; i < less->n; i++) {
        const struct trace_pair *p = &less->list[i];
        if (p->verdict == VERDICT_NOT_OBSERVED)
            continue;
        const struct trace_pair *was = bsearch(p, whole->list, whole->n, sizeof *p, compare_pairs);
        assert_non_null(was); /* no pair is invented with a verdict */
        if (was->verdict != p->verdict)
            print_error("seed %llu: %s became %s (%s)\n", (unsigned long long)seed,
                        verdict_name(was->verdict), verdict_name(p->verdict), p->why);
        assert_int_equal(was->verdict, p->verdict);
        kept++;
    }
    free(less);
    return kept;
}

static void test_the_whole_run_shows_each_kind_of_loss(void **state)
{
    (void)state;
    static const enum verdict kinds[] = {
        VERDICT_DELIVERED,        VERDICT_LOST_UPLINK,   VERDICT_LOST_AT_SERVER, VERDICT_LOST_IN_FANOUT,
        VERDICT_LOST_DEAD_SOCKET, VERDICT_LOST_DOWNLINK, VERDICT_LOST_IN_CLIENT};
    struct tale *t = misleading_tale(1, true);
    struct verdicts *v = judge(t, NULL, 0, 0);
    size_t count[VERDICT_COUNT] = {0};
    for (size_t i = 0; i < v->n; i++)
        count[v->list[i].verdict]++;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        assert_true(count[kinds[i]] > 5);
    assert_int_equal(count[VERDICT_NOT_OBSERVED], 0);
    assert_int_equal(v->n, 250 * (PHONES - 1));
    free(v);
    tale_free(t);
}

static void deletions_of(struct tale *t, size_t *kept, size_t *pairs)
{
    struct verdicts *whole = judge(t, NULL, 0, 0);
    for (uint64_t seed = 1; seed <= 50; seed++) {
        *kept += check(t, whole, keep_share, 990000, seed);
        *pairs += whole->n;
        check(t, whole, keep_share, 700000, seed);
        check(t, whole, keep_lanes, seed, seed);
        for (uint64_t p = 0; p < PARTS; p++)
            check(t, whole, keep_other_parts, p, seed);
    }
    for (uint64_t hop = 1; hop < HOP_COUNT; hop++)
        check(t, whole, keep_other_hops, hop, hop);
    free(whole);
}

static void test_nothing_that_is_taken_away_makes_another_verdict(void **state)
{
    (void)state;
    size_t kept = 0, pairs = 0;
    const char *more = getenv("SEEDS"); /* default 3 */
    uint64_t seeds = more ? strtoull(more, NULL, 10) : 3;
    for (uint64_t seed = 1; seed <= seeds; seed++)
        for (int promise = 0; promise < 2; promise++) {
            struct tale *t = misleading_tale(seed, promise);
            deletions_of(t, &kept, &pairs);
            tale_free(t);
        }
    assert_true(kept * 2 > pairs); /* and 1 % missing does not blind it */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_whole_run_shows_each_kind_of_loss),
        cmocka_unit_test(test_nothing_that_is_taken_away_makes_another_verdict),
    };
    return cmocka_run_group_tests_name("deletion", tests, NULL, NULL);
}
