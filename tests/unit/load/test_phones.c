/* Whole populations in virtual time: what they send, lose and find again, and what the ledger says of it. */
#include <jansson.h>

#include "tests/unit/load/world.h"
#include "util/log.h"

static struct load_population people(const char *features)
{
    struct load_population p = {.name = "people",
                                .net = NET_LTE,
                                .clients = 12,
                                .rate_per_1000s = 20000,
                                .chat_size = 4,
                                .chats_per_client = 2,
                                .body_min = 1,
                                .body_max = 200,
                                .retries = 3,
                                .resync_window_ns = 1800 * NS_PER_S};
    assert_int_equal(client_features_parse(&p.features, features, NULL), 0);
    return p;
}

static struct load_config config_of(const struct load_population *p)
{
    return (struct load_config){.populations = p,
                                .populations_n = 1,
                                .seed = 5,
                                .duration_ns = 20 * NS_PER_S,
                                .drain_ns = 60 * NS_PER_S};
}

static json_t *summary(const struct load *l)
{
    struct buf b = BUF_INIT(1 << 20);
    load_report_json(l, &b);
    json_t *o = json_loadb(b.data, b.len, JSON_REJECT_DUPLICATES, NULL);
    buf_release(&b);
    assert_non_null(o);
    return o;
}

static json_int_t count(const struct load *l, const char *key)
{
    json_t *o = summary(l);
    json_t *v = json_object_get(json_object_get(json_object_get(o, "load"), "people"), key);
    if (!v)
        v = json_object_get(json_object_get(o, "phones"), key);
    assert_true(json_is_integer(v));
    json_int_t n = json_integer_value(v);
    json_decref(o);
    return n;
}

static void assert_nothing_lost(const struct world *w)
{
    assert_int_equal(load_result(w->load, NULL), 0);
    assert_true(count(w->load, "sent") > 200);
    assert_int_equal(count(w->load, "accepted"), count(w->load, "sent"));
    assert_int_equal(count(w->load, "delivered"), count(w->load, "expected"));
    assert_int_equal(count(w->load, "duplicates"), 0);
    assert_int_equal(count(w->load, "reordered"), 0);
    assert_int_equal(count(w->load, "gave_up"), 0);
}

static void play(struct world *w, struct load_config *c)
{
    world_init(w, c);
    assert_int_equal(load_new(&w->load, c, NULL), 0);
    run(w);
}

static void test_quiet_population_sends_at_its_rate_and_everything_arrives(void **state)
{
    (void)state;
    static struct world w;
    struct load_population p = people("reliable");
    struct load_config c = config_of(&p);
    play(&w, &c);
    assert_nothing_lost(&w);
    assert_string_equal(w.phases, "setup load drain end ");
    assert_in_range(count(w.load, "sent"), 340, 460); /* 20/s for 20 s: 3 standard deviations of Poisson */
    assert_int_equal(count(w.load, "expected"), 3 * count(w.load, "sent"));
    assert_int_equal(w.chats_n, 6);
    assert_null(load_doubt(w.load));
    struct load_threshold t;
    struct buf value = BUF_INIT(100);
    load_threshold_parse(&t, "p(99)<20", NULL);
    assert_true(load_threshold_holds(w.load, &t, &value));
    load_threshold_parse(&t, "p(1)>=10", NULL); /* two ways of 5 ms */
    assert_true(load_threshold_holds(w.load, &t, &value));
    buf_release(&value);
    world_release(&w);
}

static void test_same_seed_plays_the_same(void **state)
{
    (void)state;
    static struct world w;
    struct load_population p = people("reliable");
    struct load_config c = config_of(&p);
    struct buf reports[3] = {BUF_INIT(1 << 20), BUF_INIT(1 << 20), BUF_INIT(1 << 20)};
    p.habits.background_every = 5 * NS_PER_S;
    for (int i = 0; i < 3; i++) {
        c.seed = i < 2 ? 5 : 6;
        play(&w, &c);
        load_report_json(w.load, &reports[i]);
        world_release(&w);
    }
    assert_string_equal(buf_cstr(&reports[0]), buf_cstr(&reports[1]));
    assert_string_not_equal(strstr(buf_cstr(&reports[0]), "sent"), strstr(buf_cstr(&reports[2]), "sent"));
    for (int i = 0; i < 3; i++)
        buf_release(&reports[i]);
}

static void test_reliable_phones_lose_nothing_whatever_happens_to_them(void **state)
{
    (void)state;
    static struct world w;
    struct load_population p = people("reliable");
    struct load_config c = config_of(&p);
    struct load_fault faults[] = {
        {.at_ns = 3 * NS_PER_S, .what = LOAD_KILL_SOCKET, .share_ppm = 500000, .mid_frame = true},
        {.at_ns = 6 * NS_PER_S, .what = LOAD_KILL_SOCKET, .share_ppm = 1000000},
        {.at_ns = 9 * NS_PER_S, .what = LOAD_NETWORK_CHANGE, .share_ppm = 700000}};
    p.habits = (struct load_habits){.background_every = 4 * NS_PER_S,
                                    .background_for = NS_PER_S,
                                    .kill_after = 500 * NS_PER_MS,
                                    .network_change_every = 6 * NS_PER_S,
                                    .network_change_gap = 100 * NS_PER_MS,
                                    .resend_after = NS_PER_S,
                                    .resend_share_ppm = 500000,
                                    .storage_loss_ppm = 200000};
    p.first_address = 0xC6120100u;
    p.addresses = 12 * LOAD_ADDRESS_STRIDE;
    c.faults = faults;
    c.faults_n = 3;
    play(&w, &c);
    assert_nothing_lost(&w);
    assert_true(count(w.load, "kills") >= 12);
    assert_true(count(w.load, "network_changes") > 10);
    assert_int_equal(w.detached, count(w.load, "network_changes"));
    assert_true(count(w.load, "storage_losses") > 3);
    /* a phone moves within its own addresses */
    for (size_t i = 0; i < w.sockets_n; i++)
        if (w.sockets[i]->user)
            assert_int_equal((w.sockets[i]->source - p.first_address) / LOAD_ADDRESS_STRIDE,
                             w.sockets[i]->user - LOAD_FIRST_USER);
    world_release(&w);
}

static void test_lost_answers_are_asked_for_again_and_double_nothing(void **state)
{
    (void)state;
    static struct world w;
    struct load_population p = people("reliable");
    struct load_config c = config_of(&p);
    world_init(&w, &c);
    w.drop_accepted = 10;
    assert_int_equal(load_new(&w.load, &c, NULL), 0);
    run(&w);
    assert_nothing_lost(&w);
    world_release(&w);
}

static void test_legacy_phones_lose_what_the_same_life_brings(void **state)
{
    (void)state;
    static struct world w;
    struct load_population p = people("legacy");
    struct load_config c = config_of(&p);
    p.habits = (struct load_habits){.background_every = 4 * NS_PER_S,
                                    .background_for = NS_PER_S,
                                    .kill_after = 500 * NS_PER_MS,
                                    .network_change_every = 6 * NS_PER_S,
                                    .network_change_gap = 300 * NS_PER_MS,
                                    .resend_after = NS_PER_S,
                                    .resend_share_ppm = 1000000};
    world_init(&w, &c);
    w.forgetful = true;
    assert_int_equal(load_new(&w.load, &c, NULL), 0);
    run(&w);
    assert_int_equal(load_result(w.load, NULL), 0);
    assert_true(count(w.load, "lost") > 20);
    assert_true(count(w.load, "gave_up") > 0);
    assert_true(count(w.load, "resends") > 0);
    assert_int_equal(count(w.load, "duplicates"), 0);
    assert_true(w.now.mono_ns < (1000 + 20 + 20) * NS_PER_S); /* it knows when nothing comes any more */
    world_release(&w);
}

static void test_legacy_person_watches_the_youngest_ticks_and_the_others_are_counted(void **state)
{
    (void)state;
    static struct world w;
    struct load_population p = people("legacy");
    struct load_config c = config_of(&p);
    p.rate_per_1000s = 200000;
    p.habits = (struct load_habits){.resend_after = NS_PER_S, .resend_share_ppm = 1000000};
    c.duration_ns = 15 * NS_PER_S;
    world_init(&w, &c);
    w.deaf_to_tcp = true; /* given up after 10 s: by then each phone has written 170 messages */
    assert_int_equal(load_new(&w.load, &c, NULL), 0);
    run(&w);
    json_int_t forgotten = count(w.load, "ticks_unwatched"), resends = count(w.load, "resends");
    assert_in_range(forgotten, 12 * 80, 12 * 250);
    assert_in_range(resends, 12 * 60, 12 * 130);
    world_release(&w);
}

static void test_legacy_person_sends_again_what_they_said_without_a_connection(void **state)
{
    (void)state;
    static struct world w;
    struct load_population p = people("legacy");
    struct load_config c = config_of(&p);
    struct load_fault fault = {.at_ns = 5 * NS_PER_S, .what = LOAD_KILL_SOCKET, .share_ppm = 1000000};
    p.rate_per_1000s = 200000;
    p.habits = (struct load_habits){.resend_after = NS_PER_S, .resend_share_ppm = 1000000};
    c.faults = &fault;
    c.faults_n = 1;
    play(&w, &c);
    assert_true(count(w.load, "gave_up") > 0);
    assert_true(count(w.load, "resends") >= count(w.load, "gave_up"));
    world_release(&w);
}

static void play_with_amnesia(struct world *w, struct load_config *c)
{
    world_init(w, c);
    w->amnesia_at = w->now.mono_ns + 10 * NS_PER_S;
    assert_int_equal(load_new(&w->load, c, NULL), 0);
    run(w);
    assert_int_equal(load_result(w->load, NULL), 0);
    assert_true(w->refusals > 0);
    assert_true(count(w->load, "chats_remade") > 0);
    assert_true(count(w->load, "chats_remade") <= 6);
    assert_int_equal(count(w->load, "duplicates"), 0);
    assert_int_equal(count(w->load, "reordered"), 0);
}

static void test_chats_that_the_server_forgot_are_made_again_and_what_waits_arrives(void **state)
{
    (void)state;
    static struct world w;
    struct load_population p = people("reliable");
    struct load_config c = config_of(&p);
    play_with_amnesia(&w, &c);
    assert_int_equal(count(w.load, "accepted"), count(w.load, "sent"));
    assert_int_equal(count(w.load, "gave_up"), 0);
    /* only what the dying server had accepted and not yet pushed is gone */
    assert_true(count(w.load, "lost") <= 3);
    world_release(&w);
}

static void test_legacy_phones_lose_what_they_say_to_a_server_that_forgot(void **state)
{
    (void)state;
    static struct world w;
    struct load_population p = people("legacy");
    struct load_config c = config_of(&p);
    play_with_amnesia(&w, &c);
    assert_true(count(w.load, "gave_up") >= (json_int_t)w.refusals);
    assert_true(count(w.load, "lost") >= 3 * (json_int_t)w.refusals);
    assert_true(count(w.load, "delivered") > 2 * count(w.load, "expected") / 3); /* then they talk again */
    world_release(&w);
}

static void test_stalled_generator_shows_in_the_latency_and_casts_doubt(void **state)
{
    (void)state;
    static struct world w;
    struct load_population p = people("reliable");
    struct load_config c = config_of(&p);
    world_init(&w, &c);
    w.stall_at = w.now.mono_ns + 5 * NS_PER_S;
    w.stall_ns = 3 * NS_PER_S;
    assert_int_equal(load_new(&w.load, &c, NULL), 0);
    run(&w);
    assert_nothing_lost(&w);
    assert_non_null(load_doubt(w.load));
    struct load_threshold t;
    struct buf value = BUF_INIT(100);
    load_threshold_parse(&t, "p(99)>1s", NULL);
    assert_true(load_threshold_holds(w.load, &t, &value));
    buf_release(&value);
    world_release(&w);
}

static void heard(void *arg, enum log_level level, const char *line)
{
    (void)level;
    *(int *)arg += strstr(line, "CAP_NET_ADMIN") != NULL;
}

static void test_phone_that_cannot_vanish_says_goodbye_and_it_is_said_once(void **state)
{
    (void)state;
    static struct world w;
    int told = 0;
    struct load_population p = people("reliable");
    struct load_config c = config_of(&p);
    p.habits = (struct load_habits){.network_change_every = 3 * NS_PER_S, .network_change_gap = NS_PER_MS};
    log_set(heard, &told, LOG_WARN);
    world_init(&w, &c);
    w.no_right_to_vanish = true;
    assert_int_equal(load_new(&w.load, &c, NULL), 0);
    run(&w);
    log_set(NULL, NULL, LOG_ERROR);
    assert_nothing_lost(&w);
    assert_true(count(w.load, "network_changes") > 10);
    assert_int_equal(told, 1);
    world_release(&w);
}

static void test_chats_of_another_load_end_the_setup(void **state)
{
    (void)state;
    static struct world w;
    struct err_ctx ctx = {0};
    struct load_population p = people("reliable");
    struct load_config c = config_of(&p);
    world_init(&w, &c);
    w.chats[w.chats_n++] = (struct chat_kept){.number = 1000002, .users_n = 1, .users = {1}};
    assert_int_equal(load_new(&w.load, &c, NULL), 0);
    run(&w);
    assert_int_equal(load_result(w.load, &ctx), ERR_UNAVAILABLE);
    assert_non_null(strstr(ctx.text, "1000002"));
    assert_non_null(strstr(ctx.text, "another load"));
    world_release(&w);
}

static void test_setup_without_addresses_fails_with_a_sentence(void **state)
{
    (void)state;
    static struct world w;
    struct err_ctx ctx = {0};
    struct load_population p = people("reliable");
    struct load_config c = config_of(&p);
    world_init(&w, &c);
    w.connects_failing = 1;
    assert_int_equal(load_new(&w.load, &c, NULL), 0);
    run(&w);
    assert_int_equal(load_result(w.load, &ctx), ERR_UNAVAILABLE);
    assert_non_null(strstr(ctx.text, "no such address"));
    assert_string_equal(w.phases, "setup ");
    world_release(&w);
}

static void test_interrupt_sums_up_what_was_done(void **state)
{
    (void)state;
    static struct world w;
    struct load_population p = people("reliable");
    struct load_config c = config_of(&p);
    world_init(&w, &c);
    assert_int_equal(load_new(&w.load, &c, NULL), 0);
    load_start(w.load);
    load_interrupt(w.load);
    assert_true(load_ended(w.load));
    assert_int_equal(load_result(w.load, NULL), ERR_INTERRUPTED);
    assert_int_equal(count(w.load, "sent"), 0);
    world_release(&w);
}

static void test_impossible_populations_are_refused(void **state)
{
    (void)state;
    static struct world w;
    struct load *l;
    struct err_ctx ctx;
    struct load_population good = people("reliable"), bad[] = {good, good, good, good, good};
    bad[0].clients = 0;
    bad[1].chat_size = 1;
    bad[2].body_min = 300;
    bad[3].addresses = 12;
    bad[4].texts = "/no/such/file";
    for (int i = 0; i < 5; i++) {
        struct load_config c = config_of(&bad[i]);
        world_init(&w, &c);
        ctx.text[0] = 0;
        assert_true(load_new(&l, &c, &ctx) < 0);
        assert_true(ctx.text[0]);
        world_release(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quiet_population_sends_at_its_rate_and_everything_arrives),
        cmocka_unit_test(test_same_seed_plays_the_same),
        cmocka_unit_test(test_reliable_phones_lose_nothing_whatever_happens_to_them),
        cmocka_unit_test(test_lost_answers_are_asked_for_again_and_double_nothing),
        cmocka_unit_test(test_legacy_phones_lose_what_the_same_life_brings),
        cmocka_unit_test(test_legacy_person_watches_the_youngest_ticks_and_the_others_are_counted),
        cmocka_unit_test(test_legacy_person_sends_again_what_they_said_without_a_connection),
        cmocka_unit_test(test_chats_that_the_server_forgot_are_made_again_and_what_waits_arrives),
        cmocka_unit_test(test_legacy_phones_lose_what_they_say_to_a_server_that_forgot),
        cmocka_unit_test(test_stalled_generator_shows_in_the_latency_and_casts_doubt),
        cmocka_unit_test(test_phone_that_cannot_vanish_says_goodbye_and_it_is_said_once),
        cmocka_unit_test(test_chats_of_another_load_end_the_setup),
        cmocka_unit_test(test_setup_without_addresses_fails_with_a_sentence),
        cmocka_unit_test(test_interrupt_sums_up_what_was_done),
        cmocka_unit_test(test_impossible_populations_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
