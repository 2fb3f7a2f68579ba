/* A flood against a real node in one thread of virtual time: what is said arrives, whatever the links do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "load/flood.h"
#include "node/node.h"

#define PHONES 400

struct note {
    uint32_t phone;
    int close; /* -1: a frame */
    struct shared_frame *frame;
};

struct world {
    struct flood *flood;
    struct node *node;
    struct kv *kv;
    struct store *store;
    struct keys keys;
    struct now now;
    uint64_t conn[PHONES];
    uint32_t session[PHONES]; /* counts; the link is its address */
    struct note *notes;
    size_t notes_n, notes_cap;
    struct commit_job *commit;
    struct read_job *reads[4096];
    size_t reads_n;
    uint64_t opens, cuts, credits, ended;
    bool stuck; /* the transport takes nothing */
    bool deaf;  /* it loses heartbeats */
};

static void step(struct world *w, struct node_event e)
{
    e.now = w->now;
    node_step(w->node, &e);
}

static void note(struct world *w, uint32_t phone, int close, struct shared_frame *f)
{
    if (w->notes_n == w->notes_cap) {
        w->notes_cap = w->notes_cap ? w->notes_cap * 2 : 1024;
        w->notes = realloc(w->notes, w->notes_cap * sizeof *w->notes);
    }
    if (f)
        shared_frame_ref(f);
    w->notes[w->notes_n++] = (struct note){phone, close, f};
}

static void emit(void *arg, const struct effect *e)
{
    struct world *w = arg;
    uint32_t phone = (uint32_t)((uint32_t *)e->link - w->session);
    switch (e->kind) {
    case EFFECT_SEND:
        note(w, phone, -1, e->frame);
        break;
    case EFFECT_CLOSE:
        note(w, phone, e->code, NULL);
        break;
    case EFFECT_COMMIT:
        assert_null(w->commit);
        w->commit = e->commit;
        break;
    case EFFECT_READ:
        assert_true(w->reads_n < 4096);
        w->reads[w->reads_n++] = e->read;
        break;
    default:
        fail();
    }
}

static struct now world_now(void *arg)
{
    return ((struct world *)arg)->now;
}
static void world_open(void *arg, uint32_t phone, uint64_t user)
{
    struct world *w = arg;
    assert_int_equal(w->conn[phone], 0); /* the old session's end was told first */
    w->opens++;
    w->conn[phone] = node_step(w->node, &(struct node_event){.kind = NODE_OPEN,
                                                             .now = w->now,
                                                             .link = &w->session[phone],
                                                             .codec = PROTO_BIN,
                                                             .user = user,
                                                             .expires_s = UINT32_MAX});
}
static void world_data(void *arg, uint32_t phone, const char *p, size_t n)
{
    struct world *w = arg;
    step(w, (struct node_event){.kind = NODE_FRAME, .conn = w->conn[phone], .data = p, .len = n});
}
static void world_beat(void *arg, uint32_t phone)
{
    struct world *w = arg;
    if (!w->deaf)
        step(w, (struct node_event){.kind = NODE_BEATS, .conns = &w->conn[phone], .len = 1});
}
static void world_credit(void *arg, uint32_t phone, uint32_t bytes)
{
    (void)phone;
    assert_true(bytes >= 4096 / 2);
    ((struct world *)arg)->credits++;
}
static void over(struct world *w, uint32_t phone, enum reason why)
{
    step(w, (struct node_event){.kind = NODE_CLOSED, .conn = w->conn[phone], .reason = why});
    w->conn[phone] = 0;
    w->ended++;
}
static void world_cut(void *arg, uint32_t phone, uint64_t bytes)
{
    struct world *w = arg;
    (void)bytes;
    w->cuts++;
    over(w, phone, REASON_RESET);
    note(w, phone, 0, NULL);
}
static bool world_room(void *arg)
{
    return !((struct world *)arg)->stuck;
}

static struct world *begin(struct flood_config c, const char *link)
{
    struct world *w = calloc(1, sizeof *w);
    static struct netem_profile profile;
    struct err_ctx err = {0};
    w->now = (struct now){1000 * NS_PER_S, 1764000000ull * 1000000};
    if (link) {
        assert_int_equal(netem_profile_parse(&profile, link, NULL), 0);
        c.link = &profile;
    }
    assert_int_equal(kv_mem_open(&w->kv, NULL), 0);
    struct store_config sc = {.url = "mem:", .now_us = w->now.wall_us, .random = 7};
    if (store_open_on(&w->store, w->kv, &sc, &err))
        fail_msg("%s", err.text);
    struct node_config nc = {.features = DELIVERY_RELIABLE,
                             .limits = node_limits_default(),
                             .ack_timeout_ns = 20 * NS_PER_S,
                             .idle_timeout_ns = 27 * NS_PER_S,
                             .hello_timeout_ns = 10 * NS_PER_S,
                             .beat_s = 10,
                             .keys = &w->keys,
                             .seed = 1,
                             .epoch = store_epoch(w->store),
                             .conn_base = 1,
                             .emit = emit,
                             .arg = w};
    assert_int_equal(node_new(&w->node, &nc, NULL), 0);
    assert_int_equal(node_load(w->node, w->store, NULL), 0);
    c.phones = PHONES;
    c.chat_max = c.chat_max ? c.chat_max : 20;
    c.body_max = 60;
    c.setup_ns = 60 * NS_PER_S;
    c.drain_ns = 120 * NS_PER_S;
    c.lag_max_ns = NS_PER_S;
    c.first_chat = c.first_user = 1000;
    c.seed = c.seed ? c.seed : 5;
    c.world = (struct flood_world){.now = world_now,
                                   .open = world_open,
                                   .data = world_data,
                                   .beat = world_beat,
                                   .credit = world_credit,
                                   .cut = world_cut,
                                   .room = world_room,
                                   .arg = w};
    if (flood_new(&w->flood, &c, &err))
        fail_msg("%s", err.text);
    return w;
}

/* All that lies between node and phones is carried over, then time moves by a millisecond. */
static void turn(struct world *w)
{
    struct commit_job *job = w->commit;
    w->commit = NULL;
    if (job) {
        job_run_commit(w->store, job);
        step(w, (struct node_event){.kind = NODE_COMMITTED, .commit = job});
    }
    for (size_t i = 0; i < w->reads_n; i++)
        job_run_read(w->store, w->reads[i]);
    size_t reads = w->reads_n;
    struct read_job *done[4096];
    memcpy(done, w->reads, reads * sizeof *done);
    w->reads_n = 0;
    for (size_t i = 0; i < reads; i++)
        step(w, (struct node_event){.kind = NODE_READ_DONE, .read = done[i]});
    for (size_t i = 0; i < w->notes_n; i++) {
        struct note n = w->notes[i];
        if (n.close < 0) {
            if (w->conn[n.phone])
                step(w,
                     (struct node_event){.kind = NODE_WRITTEN, .conn = w->conn[n.phone], .frame = n.frame});
            flood_data(w->flood, n.phone, n.frame->data, n.frame->len);
            shared_frame_unref(n.frame);
        } else {
            if (n.close)
                over(w, n.phone, REASON_CLOSED_BY_US);
            flood_closed(w->flood, n.phone, n.close);
        }
    }
    w->notes_n = 0;
    flood_tick(w->flood);
    w->now.mono_ns += NS_PER_MS;
    w->now.wall_us += 1000;
    if (w->now.mono_ns / NS_PER_MS % 20 == 0)
        step(w, (struct node_event){.kind = NODE_TICK});
}

static void play(struct world *w)
{
    flood_start(w->flood, 4096);
    for (int i = 0; i < 400000 && !flood_ended(w->flood); i++)
        turn(w);
    assert_true(flood_ended(w->flood));
}

static void holds(struct world *w, const char *expectation)
{
    struct buf value = BUF_INIT(100);
    if (flood_expect(w->flood, expectation, &value, NULL) != 1)
        fail_msg("%s: %s", expectation, buf_cstr(&value));
    buf_release(&value);
}

static void end(struct world *w)
{
    uint64_t bad = 1;
    assert_int_equal(flood_result(w->flood, NULL), 0);
    assert_int_equal(flood_verify(w->flood, w->store, &bad, NULL), 0);
    assert_int_equal(bad, 0);
    flood_free(w->flood);
    node_free(w->node);
    store_close(w->store, NULL);
    w->kv->ops->close(w->kv);
    for (size_t i = 0; i < w->notes_n; i++)
        shared_frame_unref(w->notes[i].frame);
    free(w->notes);
    free(w);
}

static void test_without_links_everything_arrives_once(void **state)
{
    (void)state;
    struct world *w = begin((struct flood_config){.rate_per_1000s = 200000, .for_ns = 3 * NS_PER_S}, NULL);
    play(w);
    holds(w, "drained==1");
    holds(w, "sent>500");
    holds(w, "lost==0");
    holds(w, "duplicates==0");
    holds(w, "fan_out>2");
    holds(w, "max<50");
    holds(w, "connects==400");
    holds(w, "mass_served_p(99)==0");
    assert_true(w->credits > 10);
    assert_null(flood_doubt(w->flood));
    end(w);
}

static void test_lossy_links_churn_and_a_mass_reconnect_lose_and_double_nothing(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct world *w = begin((struct flood_config){.rate_per_1000s = 100000,
                                                      .churn_per_1000s = 20000,
                                                      .mass_ppm = 500000,
                                                      .dark_ns = 2 * NS_PER_S,
                                                      .ramp_ns = NS_PER_S,
                                                      .for_ns = 10 * NS_PER_S,
                                                      .seed = seed},
                                "lte-lossy");
        play(w);
        holds(w, "drained==1");
        holds(w, "lost==0");
        holds(w, "duplicates==0");
        holds(w, "gave_up==0");
        holds(w, "packets_lost>30");
        holds(w, "cuts>300");
        holds(w, "mass_s<60");
        end(w);
    }
}

static void test_silent_phones_are_found_and_nobody_else(void **state)
{
    (void)state;
    struct world *w = begin(
        (struct flood_config){.rate_per_1000s = 20000, .silent = 25, .for_ns = 35 * NS_PER_S}, "delay=30ms");
    play(w);
    holds(w, "silent_gone==25");
    holds(w, "silent_s_max<=30");
    holds(w, "wrong_closes==0");
    holds(w, "lost==0");
    end(w);
}

static void test_who_was_ended_for_a_silence_that_its_link_made_was_not_ended_wrongly(void **state)
{
    (void)state;
    struct world *w = begin((struct flood_config){.for_ns = 60 * NS_PER_S}, "delay=30ms,blackout_at=10s+40s");
    play(w);
    holds(w, "idle_closes>100");
    holds(w, "wrong_idle_closes==0");
    end(w);
    w = begin((struct flood_config){.for_ns = 40 * NS_PER_S}, "delay=30ms");
    w->deaf = true;
    play(w);
    holds(w, "idle_closes>100");
    holds(w, "wrong_idle_closes>100");
    end(w);
}

static void test_what_is_said_during_the_mass_reconnect_is_measured_apart(void **state)
{
    (void)state;
    struct world *w = begin(
        (struct flood_config){
            .rate_per_1000s = 20000, .mass_ppm = 500000, .dark_ns = 5 * NS_PER_S, .for_ns = 20 * NS_PER_S},
        NULL);
    play(w);
    holds(w, "served_p(99)<200");
    holds(w, "mass_served_p(99)>0");
    holds(w, "mass_s_99>0");
    holds(w, "lost==0");
    end(w);
}

static void test_a_transport_that_takes_nothing_is_lag_and_makes_a_doubt(void **state)
{
    (void)state;
    struct world *w = begin((struct flood_config){.rate_per_1000s = 50000, .for_ns = 12 * NS_PER_S}, NULL);
    flood_start(w->flood, 4096);
    for (int i = 0; i < 400000 && !flood_ended(w->flood); i++) {
        w->stuck = i > 3000 && i < 9000;
        turn(w);
    }
    assert_non_null(flood_doubt(w->flood));
    holds(w, "lost==0");
    end(w);
}

static void test_one_seed_one_flood(void **state)
{
    (void)state;
    struct buf out[2] = {BUF_INIT(1 << 20), BUF_INIT(1 << 20)};
    for (int i = 0; i < 2; i++) {
        struct world *w = begin(
            (struct flood_config){
                .rate_per_1000s = 100000, .churn_per_1000s = 10000, .for_ns = 3 * NS_PER_S, .seed = 77},
            "lte-lossy");
        play(w);
        flood_report_json(w->flood, &out[i]);
        end(w);
    }
    assert_string_equal(buf_cstr(&out[0]), buf_cstr(&out[1]));
    buf_release(&out[0]);
    buf_release(&out[1]);
}

static void test_expectations_that_are_none_are_refused(void **state)
{
    (void)state;
    struct world *w = begin((struct flood_config){.for_ns = NS_PER_S}, NULL);
    static const char *const bad[] = {"",         "lost",    "lost==",   "lost==x",
                                      "lost==1x", "speed>1", "p(99)<<1", "=1"};
    struct buf value = BUF_INIT(100);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err_ctx err = {0};
        assert_int_equal(flood_expect(w->flood, bad[i], &value, &err), ERR_USAGE);
        assert_true(err.text[0]);
    }
    buf_release(&value);
    flood_interrupt(w->flood);
    end(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_links_everything_arrives_once),
        cmocka_unit_test(test_lossy_links_churn_and_a_mass_reconnect_lose_and_double_nothing),
        cmocka_unit_test(test_silent_phones_are_found_and_nobody_else),
        cmocka_unit_test(test_who_was_ended_for_a_silence_that_its_link_made_was_not_ended_wrongly),
        cmocka_unit_test(test_what_is_said_during_the_mass_reconnect_is_measured_apart),
        cmocka_unit_test(test_a_transport_that_takes_nothing_is_lag_and_makes_a_doubt),
        cmocka_unit_test(test_one_seed_one_flood),
        cmocka_unit_test(test_expectations_that_are_none_are_refused),
    };
    return cmocka_run_group_tests_name("flood", tests, NULL, NULL);
}
