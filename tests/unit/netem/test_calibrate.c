/* Calibration: true links pass, links that lie are caught by the row that it is about, and few packets prove
 * nothing.
 */
#include "tests/unit/netem/link_try.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

#include "netem/calibrate_impl.h"

/* What was asked is calibrated against links that are given something else (NULL: the same). */
static struct calibrate *tried(const char *asked, const char *given, uint64_t packets)
{
    struct calibrate_options o = {
        .driver = NETEM_DRIVER_MODEL, .packets = packets, .tells_reasons = true, .exact = true};
    struct netem_profile p = profile(asked), q = profile(given ? given : asked);
    struct calibrate *c, *other;
    assert_int_equal(calibrate_new(&c, &p, &o, NULL), 0);
    assert_int_equal(calibrate_new(&other, &q, &o, NULL), 0);
    const struct calibrate_phase *phase, *lie;
    for (unsigned i = 0; (phase = calibrate_phase(c, i)); i++) {
        struct calibrate_phase sent = *phase;
        lie = calibrate_phase(other, i);
        assert_non_null(lie);
        assert_int_equal(lie->kind, phase->kind);
        sent.profile = lie->profile;
        assert_int_equal(calibrate_run_model(c, i, &sent, 3, NULL), 0);
    }
    calibrate_free(other);
    calibrate_judge(c);
    return c;
}

static const struct calibrate_row *row_of(const struct calibrate *c, const char *what)
{
    const struct calibrate_row *r;
    for (unsigned i = 0; (r = calibrate_row(c, i)); i++)
        if (strcmp(r->what, what) == 0)
            return r;
    fail_msg("no row '%s'", what);
    return NULL;
}

static void expect_all(const char *text, uint64_t packets)
{
    struct calibrate *c = tried(text, NULL, packets);
    const struct calibrate_row *r;
    for (unsigned i = 0; (r = calibrate_row(c, i)); i++)
        if (r->verdict != CALIBRATE_PASS)
            fail_msg("%s: %s: asked %g, achieved %g %s, p %g: %s", text, r->what, r->asked, r->achieved,
                     r->unit, r->p, r->why);
    calibrate_free(c);
}

static void test_a_true_link_passes_in_every_respect(void **state)
{
    (void)state;
    expect_all("rate=10mbit,delay=40ms,jitter=5ms,jitter_corr=40%,loss=2%,burst=4,queue=64kB,duplicate=2%,"
               "corrupt=1%,"
               "loss_good=0.5%",
               400000);
    expect_all("delay=80ms,jitter=10ms,dist=normal,reorder=25%,reorder_corr=50%,reorder_gap=5,loss=5%",
               400000);
    expect_all("rate=1mbit,queue=200ms,queue_drop=head,delay=30ms,jitter=20ms,dist=pareto,jitter_corr=30%",
               200000);
    expect_all("blackout_every=20s,blackout_for=1s..3s,stall_every=10s,stall_for=100ms/159ms/704ms/1015ms/4s,"
               "handover_every=15s,handover_for=500ms,cell_every=8s,cell_for=37ms",
               500000);
    expect_all(
        "blackout_at=3s+500ms/10s+1s,rrc_idle=17s,rrc_promotion=2s,rrc_fach=5s,rrc_fach_promotion=1.5s",
        100000);
    expect_all("blackout_period=30s,blackout_for=1s..2s,nat_idle=60s,rrc_idle=10s,rrc_promotion=260ms,drx_"
               "after=100ms,"
               "drx_short=20ms,drx_short_for=60ms,drx_long=320ms,paging=1.28s",
               500000);
}

static void test_a_lie_is_caught_by_the_row_that_it_is_about(void **state)
{
    (void)state;
    static const struct {
        const char *asked, *given, *row;
    } lies[] = {
        {"loss=2%,burst=4", "loss=2.3%,burst=4", "loss"},
        {"loss=2%,burst=4", "loss=2%,burst=4.4", "burst"},
        {"loss=2%,burst=4,loss_good=1%", "loss=2.98%,burst=2.041", "burst"}, /* by its p */
        {"delay=40ms,jitter=5ms", "delay=43ms,jitter=5ms", "delay p50"},
        {"delay=40ms,jitter=5ms", "delay=40ms,jitter=5.1ms", "delay p50"}, /* by its p */
        {"delay=40ms,jitter=20ms", "delay=40ms,jitter=26ms", "delay p99"},
        {"delay=90ms,jitter=9ms,dist=normal", "delay=90ms,jitter=9ms", "delay p99"},
        {"delay=40ms,jitter=5ms,jitter_corr=50%", "delay=40ms,jitter=5ms,jitter_corr=45%",
         "jitter correlation"},
        {"rate=10mbit,queue=64kB", "rate=9.6mbit,queue=64kB", "rate"},
        {"rate=10mbit,queue=64kB", "rate=10mbit,queue=80kB", "queue"},
        {"rate=10mbit,queue=64kB", "rate=10mbit,queue=50kB", "queue"},
        {"duplicate=2%", "duplicate=2.3%", "duplicates"},
        {"corrupt=2%", "corrupt=1.7%", "corrupt"},
        {"delay=40ms,reorder=10%", "delay=40ms,reorder=12%", "reordered"},
        {"blackout_every=20s,blackout_for=1s", "blackout_every=20s,blackout_for=1.2s",
         "blackout length, mean"},
        {"blackout_every=20s,blackout_for=1s", "blackout_every=24s,blackout_for=1s",
         "time between blackouts, mean"},
        {"blackout_every=9s,blackout_for=1s..2s", "blackout_every=9s,blackout_for=1.2s..1.5s",
         "blackout length, mean"},
        {"blackout_at=3s+1s", "blackout_at=3.1s+1s", "blackout start, off the clock"},
        {"blackout_at=3s+1s", "blackout_at=3s+1.1s", "blackout length, off the list"},
        {"stall_every=9s,stall_for=100ms", "stall_every=9s,stall_for=130ms", "stall length, mean"},
        {"rrc_idle=10s,rrc_promotion=260ms", "rrc_idle=10s,rrc_promotion=300ms", "promotion from idle"},
        {"rrc_idle=10s,rrc_promotion=260ms", "rrc_idle=12s,rrc_promotion=260ms", "promotion from idle"},
        {"drx_after=100ms,drx_long=320ms", "drx_after=100ms,drx_long=250ms", "long DRX"},
        {"nat_idle=60s", "nat_idle=80s", "expired above nat_idle"},
        {"nat_idle=60s", "nat_idle=50s", "kept below nat_idle"},
    };
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct calibrate *c = tried(lies[i].asked, lies[i].given, 400000);
        const struct calibrate_row *r = row_of(c, lies[i].row);
        if (r->verdict != CALIBRATE_FAIL || !r->why[0])
            fail_msg("'%s' passed for '%s': %s %g for %g", lies[i].given, lies[i].asked, r->what, r->achieved,
                     r->asked);
        assert_int_equal(calibrate_judge(c), CALIBRATE_FAIL);
        calibrate_free(c);
    }
}

static void test_few_packets_prove_nothing(void **state)
{
    (void)state;
    struct calibrate *c = tried("loss=2%,burst=4", NULL, 2000);
    assert_int_equal(row_of(c, "loss")->verdict, CALIBRATE_UNKNOWN);
    assert_non_null(strstr(row_of(c, "loss")->why, "too few packets"));
    assert_int_equal(calibrate_judge(c), CALIBRATE_UNKNOWN);
    calibrate_free(c);
    c = tried("loss=2%,burst=4", "loss=20%,burst=4", 5000); /* but a gross lie shows at once */
    assert_int_equal(row_of(c, "loss")->verdict, CALIBRATE_FAIL);
    calibrate_free(c);
}

static void test_what_a_driver_leaves_out_is_unknown_not_passed(void **state)
{
    (void)state;
    struct calibrate_options o = {.driver = NETEM_DRIVER_KERNEL, .packets = 1000};
    struct netem_profile p = profile("lte-lossy");
    struct calibrate *c;
    assert_int_equal(calibrate_new(&c, &p, &o, NULL), 0);
    for (unsigned i = 0; calibrate_phase(c, i); i++)
        assert_true(calibrate_phase(c, i)->kind != CALIBRATE_WHOLE); /* it tells no reasons */
    calibrate_lacks(c, CALIBRATE_OUTAGE, "netem knows no blackouts");
    assert_int_equal(calibrate_judge(c), CALIBRATE_UNKNOWN);
    const struct calibrate_row *r = row_of(c, "left out");
    assert_int_equal(r->kind, CALIBRATE_OUTAGE);
    assert_string_equal(r->why, "netem knows no blackouts");
    calibrate_free(c);
}

static void test_a_phase_shows_one_thing_and_hides_the_others(void **state)
{
    (void)state;
    struct calibrate_options o = {.driver = NETEM_DRIVER_TUN, .packets = 100000, .time_ns = 10 * S};
    struct netem_profile p = profile("lte-driving");
    struct calibrate *c;
    const struct calibrate_phase *f;
    assert_int_equal(calibrate_new(&c, &p, &o, NULL), 0);
    for (unsigned i = 0; (f = calibrate_phase(c, i)); i++) {
        const struct netem_direction *d = &f->profile.dir[NETEM_UP];
        assert_true((d->loss_ppm != 0) == (f->kind == CALIBRATE_LOSS));
        assert_true((d->jitter_ns != 0) == (f->kind == CALIBRATE_DELAY));
        assert_true((f->profile.stall.every_ns || f->profile.cell.every_ns) == (f->kind == CALIBRATE_HOLD));
        assert_true((f->profile.handover.every_ns != 0) == (f->kind == CALIBRATE_OUTAGE));
        assert_true((f->profile.rrc_idle_ns != 0) == (f->kind == CALIBRATE_SLEEP));
        assert_true((f->profile.nat_idle_ns != 0) == (f->kind == CALIBRATE_NAT));
        for (int way = 0; way < 2; way++) /* within its time */
            assert_true(f->way[way].packets * f->way[way].gap_ns <= 10 * S);
    }
    calibrate_free(c);
}

static void test_p_values_are_those_of_the_tables(void **state)
{
    (void)state;
    assert_true(fabs(stats_chi2_p(3.841, 1) - 0.05) < 0.0001);
    assert_true(fabs(stats_chi2_p(18.307, 10) - 0.05) < 0.0001);
    assert_true(fabs(stats_chi2_p(124.342, 100) - 0.05) < 0.0001);
    assert_true(stats_chi2_p(0, 5) == 1);
    assert_true(fabs(stats_ks_p(1.3581 / 1000, 1e6) - 0.05) < 0.001);
    assert_true(fabs(stats_ks_p(1.6276 / 1000, 1e6) - 0.01) < 0.001);
}

static void test_runs_of_a_chain_follow_their_law(void **state)
{
    (void)state;
    struct netem_profile p = profile("loss=2%,burst=4"), q = profile("loss=2%,burst=4,loss_good=1%");
    double run[RUNS_MAX], sum = 0, mean = 0;
    stats_chain_runs(&p.dir[0], run, RUNS_MAX);
    assert_true(fabs(run[0] - 0.25) < 1e-6 && fabs(run[1] - 0.1875) < 1e-6);
    stats_chain_runs(&q.dir[0], run, RUNS_MAX);
    for (int i = 0; i < RUNS_MAX; i++) {
        sum += run[i];
        mean += (i + 1) * run[i];
    }
    assert_true(fabs(sum - 1) < 1e-9);
    assert_true(fabs(mean - stats_chain(&q.dir[0]).run) < 1e-6); /* two ways to the same mean */
}

static void test_the_report_is_one_json_object_or_a_table(void **state)
{
    (void)state;
    struct calibrate *c = tried("lte-lossy", NULL, 20000);
    struct buf out = BUF_INIT(1u << 20);
    calibrate_show(c, &out, true);
    json_t *root = json_loads(buf_cstr(&out), 0, NULL), *row;
    size_t i;
    assert_non_null(root);
    assert_string_equal(json_string_value(json_object_get(root, "profile")), "lte-lossy");
    assert_true(json_array_size(json_object_get(root, "rows")) > 20);
    json_array_foreach(json_object_get(root, "rows"), i, row)
    {
        assert_true(json_is_number(json_object_get(row, "asked")));
        assert_true(json_is_number(json_object_get(row, "achieved")));
        assert_true(json_is_integer(json_object_get(row, "packets")));
        assert_true(json_is_string(json_object_get(row, "verdict")));
    }
    json_decref(root);
    buf_reset(&out);
    calibrate_show(c, &out, false);
    assert_non_null(strstr(buf_cstr(&out), "delay p99"));
    buf_release(&out);
    calibrate_free(c);
}

/* The whole table with 2,000,000 packets each is tests/slow/test_netem_calibrate. */
/* Its own deviation would be none, and every length far from the mean a failure. */
static void test_one_stall_says_little_of_their_mean_length(void **state)
{
    (void)state;
    struct calibrate_options o = {.driver = NETEM_DRIVER_PROXY, .packets = 20000, .time_ns = 4000000000};
    struct netem_profile p = profile("delay=1ms,stall_every=3.5s,stall_for=100ms/250ms/1105ms/4183ms/5.75s");
    struct calibrate *c;
    const struct calibrate_phase *phase;
    unsigned i = 0;
    assert_int_equal(calibrate_new(&c, &p, &o, NULL), 0);
    while ((phase = calibrate_phase(c, i))->kind != CALIBRATE_HOLD)
        i++;
    unsigned d = phase->way[NETEM_UP].packets ? NETEM_UP : NETEM_DOWN;
    for (uint64_t at = 1; at < 4000000000; at += 1000000) { /* held from 1 s to 3 s */
        uint64_t late = at > 1000000000 && at < 3000000000 ? 3000000000 - at : 0;
        struct calibrate_packet seen = {
            .offered_ns = at, .delivered_ns = at + 1000000 + late, .bytes = 64, .dir = (uint8_t)d};
        calibrate_see(c, i, &seen);
    }
    calibrate_judge(c);
    const struct calibrate_row *r = row_of(c, "stall length, mean");
    assert_true(r->achieved > 1900 && r->achieved < 2100);
    assert_int_equal(r->verdict, CALIBRATE_UNKNOWN);
    assert_non_null(strstr(r->why, "too few packets"));
    calibrate_free(c);
}

/* One packet in a thousand 20 ms late says nothing of how long the queue is. */
static void test_a_pause_of_the_machine_is_not_the_queues(void **state)
{
    (void)state;
    struct calibrate_options o = {.driver = NETEM_DRIVER_TUN, .packets = 20000, .time_ns = 4000000000};
    struct netem_profile p = profile("wifi-good");
    struct calibrate *c;
    const struct calibrate_phase *phase;
    struct link l;
    unsigned i = 0;
    assert_int_equal(calibrate_new(&c, &p, &o, NULL), 0);
    while ((phase = calibrate_phase(c, i))->kind != CALIBRATE_FULL)
        i++;
    link_init(&l, &phase->profile, 1, 1, 0);
    for (uint64_t k = 0; k < phase->way[NETEM_DOWN].packets; k++) {
        uint64_t at = 1 + k * phase->way[NETEM_DOWN].gap_ns;
        struct link_verdict v = link_offer(&l, NETEM_DOWN, at, phase->way[NETEM_DOWN].bytes);
        struct calibrate_packet seen = {.offered_ns = at,
                                        .delivered_ns = v.deliver_ns + (k % 1000 == 500) * 20000000,
                                        .bytes = phase->way[NETEM_DOWN].bytes,
                                        .dir = NETEM_DOWN,
                                        .reason = (uint8_t)(v.reason ? CALIBRATE_UNTOLD : REASON_NONE)};
        calibrate_see(c, i, &seen);
    }
    calibrate_judge(c);
    const struct calibrate_row *r;
    for (i = 0; (r = calibrate_row(c, i)) && (r->dir != NETEM_DOWN || strcmp(r->what, "queue") != 0);)
        i++;
    assert_non_null(r);
    assert_int_equal(r->verdict, CALIBRATE_PASS);
    assert_true(r->achieved > 187.5 - 2 * 1.5 && r->achieved < 187.5 + 1.5); /* within two packets */
    calibrate_free(c);
}

static void test_no_named_profile_fails(void **state)
{
    (void)state;
    const char *name, *summary;
    for (unsigned n = 0; netem_profile_list(n, &name, &summary); n++) {
        struct calibrate *c = tried(name, NULL, 20000);
        const struct calibrate_row *r;
        for (unsigned i = 0; (r = calibrate_row(c, i)); i++)
            if (r->verdict == CALIBRATE_FAIL)
                fail_msg("%s: %s: asked %g, achieved %g %s: %s", name, r->what, r->asked, r->achieved,
                         r->unit, r->why);
        calibrate_free(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_true_link_passes_in_every_respect),
        cmocka_unit_test(test_a_lie_is_caught_by_the_row_that_it_is_about),
        cmocka_unit_test(test_few_packets_prove_nothing),
        cmocka_unit_test(test_what_a_driver_leaves_out_is_unknown_not_passed),
        cmocka_unit_test(test_a_phase_shows_one_thing_and_hides_the_others),
        cmocka_unit_test(test_p_values_are_those_of_the_tables),
        cmocka_unit_test(test_runs_of_a_chain_follow_their_law),
        cmocka_unit_test(test_the_report_is_one_json_object_or_a_table),
        cmocka_unit_test(test_one_stall_says_little_of_their_mean_length),
        cmocka_unit_test(test_a_pause_of_the_machine_is_not_the_queues),
        cmocka_unit_test(test_no_named_profile_fails),
    };
    return cmocka_run_group_tests_name("calibrate", tests, NULL, NULL);
}
