/* The simulated world as a whole: repeatable, and everything that was promised holds in it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/explore.h"
#include "util/clock.h"
#include "util/log.h"

#define SEEDS 30u

static struct scenario s; /* some 100 kB */

static struct sim_result trial(void)
{
    struct sim_result r;
    struct err_ctx ctx = {0};
    struct buf story = BUF_INIT(1u << 20);
    assert_int_equal(sim_trial(&s, NULL, &r, &story, &ctx), 0);
    if (r.failed)
        print_message("%s: %s: %s\n%s", s.path, r.what, r.text, story.len ? buf_cstr(&story) : "");
    buf_release(&story);
    return r;
}

static void test_thirty_seeds_hold_all_invariants(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        sim_draw(&s, seed);
        struct sim_result r = trial();
        assert_false(r.failed);
        assert_true(r.drained);
        scenario_release(&s);
    }
}

static void test_a_seed_gives_the_same_events_each_time(void **state)
{
    (void)state;
    uint64_t first = 0;
    for (int i = 0; i < 3; i++) {
        sim_draw(&s, 7);
        uint64_t hash = trial().hash;
        scenario_release(&s);
        first = i ? first : hash;
        assert_true(hash == first);
    }
    sim_draw(&s, 8);
    assert_true(trial().hash != first);
    scenario_release(&s);
}

/* What a failure is shrunk to is a file: it must mean the same when it is read back. */
static void test_a_drawn_scenario_written_and_read_back_gives_the_same_events(void **state)
{
    char path[] = "/tmp/chatd-sim-XXXXXX";
    struct err_ctx ctx = {0};
    (void)state;
    close(mkstemp(path));
    for (uint64_t seed = 100; seed < 110; seed++) {
        struct buf b = BUF_INIT(1u << 20);
        sim_draw(&s, seed);
        uint64_t hash = trial().hash;
        scenario_write(&b, &s);
        scenario_release(&s);
        FILE *f = fopen(path, "w");
        assert_int_equal(fwrite(b.data, 1, b.len, f), b.len);
        fclose(f);
        if (scenario_load(&s, path, NULL, &ctx))
            fail_msg("%s", ctx.text);
        assert_true(trial().hash == hash);
        scenario_release(&s);
        buf_release(&b);
    }
    unlink(path);
}

/* ---- one thing at a time ---- */

static void people(uint32_t clients, uint64_t seconds)
{
    s = (struct scenario){.seed = 3, .duration = seconds * NS_PER_S, .drain = 60 * NS_PER_S, .load_n = 1};
    snprintf(s.path, sizeof s.path, "test");
    snprintf(s.server_delivery, sizeof s.server_delivery, "reliable");
    s.load[0] = (struct scenario_population){.name = "people",
                                             .client = "reliable",
                                             .clients = clients,
                                             .rate_per_1000s = 5000,
                                             .chat_size = 4,
                                             .chats_per_client = 1,
                                             .body_min = 10,
                                             .body_max = 100,
                                             .retries = 3,
                                             .resync_window = 1800 * NS_PER_S};
}

static struct scenario_fault *happens(enum fault_do what, uint64_t at_s, const char *target)
{
    struct scenario_fault *f = &s.faults[s.faults_n++];
    *f =
        (struct scenario_fault){.what = what, .at = at_s * NS_PER_S, .signal = SIGKILL, .share_ppm = 1000000};
    snprintf(f->target, sizeof f->target, "%s", target);
    snprintf(f->name, sizeof f->name, "fault-%u", s.faults_n);
    return f;
}

static void test_calm_people_lose_nothing_and_nothing_is_restarted(void **state)
{
    (void)state;
    people(8, 20);
    struct sim_result r = trial();
    assert_false(r.failed);
    assert_true(r.drained);
    assert_int_equal(r.server_starts, 1);
    assert_int_equal(r.sessions_max, 8);
    assert_true(r.messages > 50);
    assert_true(r.surfaced == 3 * r.messages);
}

static void test_nothing_acknowledged_is_lost_by_power_cuts(void **state)
{
    (void)state;
    people(8, 30);
    for (uint64_t at = 2; at < 30; at += 4)
        happens(FAULT_POWER_CUT, at, "server")->restart = 500 * NS_PER_MS;
    struct sim_result r = trial();
    assert_false(r.failed);
    assert_true(r.drained);
    assert_int_equal(r.server_starts, 8);
}

static void test_a_failed_sync_ends_the_process_and_the_reopened_store_decides(void **state)
{
    (void)state;
    people(8, 20);
    happens(FAULT_SYNC_FAILS, 5, "server");
    struct sim_result r = trial();
    assert_false(r.failed);
    assert_true(r.drained);
    assert_int_equal(r.server_starts, 2);
}

static void test_members_come_and_go_and_the_store_is_put_back(void **state)
{
    (void)state;
    people(8, 30);
    happens(FAULT_REMOVE_MEMBER, 4, "people")->duration = 4 * NS_PER_S;
    happens(FAULT_RESTORE, 18, "server")->duration = 5 * NS_PER_S;
    struct sim_result r = trial();
    assert_false(r.failed);
    assert_true(r.drained);
    assert_int_equal(r.server_starts, 2);
}

static void test_a_stopped_server_goes_on_where_it_was(void **state)
{
    (void)state;
    people(8, 20);
    struct scenario_fault *f = happens(FAULT_KILL_SERVER, 5, "server");
    f->signal = SIGSTOP;
    f->restart = 4 * NS_PER_S;
    struct sim_result r = trial();
    assert_false(r.failed);
    assert_true(r.drained);
    assert_int_equal(r.server_starts, 1);
}

/* Never healed: what a legacy service loses is no violation of what it promised. */
static void test_a_legacy_service_breaks_no_promise_it_did_not_make(void **state)
{
    (void)state;
    people(8, 20);
    snprintf(s.server_delivery, sizeof s.server_delivery, "legacy");
    snprintf(s.load[0].client, sizeof s.load[0].client, "legacy");
    happens(FAULT_KILL_SOCKET, 5, "people")->mid_frame = true;
    assert_false(trial().failed);
}

/* A server that comes back to nothing has broken its promise. */
static void test_a_server_that_stays_down_is_found(void **state)
{
    struct sim_result r;
    struct err_ctx ctx = {0};
    (void)state;
    people(8, 20);
    happens(FAULT_KILL_SERVER, 5, "server"); /* no restart */
    assert_int_equal(sim_trial(&s, NULL, &r, NULL, &ctx), 0);
    assert_true(r.failed);
    assert_string_equal(r.what, "not_converged");
}

static void test_a_failure_is_shrunk_to_what_it_needs(void **state)
{
    struct sim_result r;
    struct err_ctx ctx = {0};
    (void)state;
    people(12, 20);
    happens(FAULT_CLOCK_JUMP, 2, "server")->by = (int64_t)NS_PER_S;
    happens(FAULT_POWER_CUT, 3, "server")->restart = NS_PER_S;
    happens(FAULT_KILL_SERVER, 8, "server");
    happens(FAULT_KILL_SOCKET, 9, "people");
    assert_int_equal(sim_trial(&s, NULL, &r, NULL, &ctx), 0);
    assert_true(r.failed);
    assert_true(sim_shrink(&s, 200, NULL, &r, &ctx) > 0);
    assert_int_equal(s.faults_n, 1);
    assert_int_equal(s.faults[0].what, FAULT_KILL_SERVER);
    assert_true(s.load[0].clients <= 3);
    assert_string_equal(r.what, "not_converged");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calm_people_lose_nothing_and_nothing_is_restarted),
        cmocka_unit_test(test_nothing_acknowledged_is_lost_by_power_cuts),
        cmocka_unit_test(test_a_failed_sync_ends_the_process_and_the_reopened_store_decides),
        cmocka_unit_test(test_members_come_and_go_and_the_store_is_put_back),
        cmocka_unit_test(test_a_stopped_server_goes_on_where_it_was),
        cmocka_unit_test(test_a_legacy_service_breaks_no_promise_it_did_not_make),
        cmocka_unit_test(test_a_server_that_stays_down_is_found),
        cmocka_unit_test(test_a_failure_is_shrunk_to_what_it_needs),
        cmocka_unit_test(test_a_seed_gives_the_same_events_each_time),
        cmocka_unit_test(test_a_drawn_scenario_written_and_read_back_gives_the_same_events),
        cmocka_unit_test(test_thirty_seeds_hold_all_invariants),
    };
    log_set(NULL, NULL, LOG_ERROR);
    return cmocka_run_group_tests_name("sim", tests, NULL, NULL);
}
