/* The conductor with stand-ins for its two programs (tests/unit/run/fake): what it does when all goes well,
 * and when each of them fails. No links, so no privileges are needed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "run/chaos.h"
#include "trace/reader.h"
#include "util/clock.h"

static char home[64], file[128], dir[128], programs[4096];
static volatile sig_atomic_t interrupted;
static struct report_run *out;
static struct err_ctx ctx;

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* Long enough for stand-ins to start on a busy machine, where a test waits for that. */
static const char *duration = "400ms";

/* A scenario of half a second; `more` is further members of the file, `fake` what the generator is told. */
static void scenario(const char *more, const char *fake)
{
    char text[4096], path[160];
    snprintf(text, sizeof text,
             "{\"name\": \"x\", \"duration\": \"%s\", \"drain\": \"2s\", \"load\": [{\"name\": \"home\", "
             "\"clients\": 2, \"rate\": 1}]%s}",
             duration, more);
    write_file(file, text);
    snprintf(path, sizeof path, "%s.fake", file);
    unlink(path);
    if (fake)
        write_file(path, fake);
}

static int play(void)
{
    struct chaos_config c = {
        .file = file, .dir = dir, .programs = programs, .seed = 7, .interrupted = &interrupted};
    ctx = (struct err_ctx){0};
    return chaos_run(out, &c, &ctx);
}

static bool exists(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return access(path, F_OK) == 0;
}

/* The pids of the servers that were started, in `pids`. */
static int servers(pid_t *pids, int max)
{
    char path[256];
    int n = 0;
    snprintf(path, sizeof path, "%s/data/pids", dir);
    FILE *f = fopen(path, "r");
    while (f && n < max && fscanf(f, "%d", &pids[n]) == 1)
        n++;
    if (f)
        fclose(f);
    return n;
}

static bool gone(pid_t pid)
{
    for (int i = 0; i < 500; i++) {
        if (kill(pid, 0) && errno == ESRCH)
            return true;
        usleep(10000);
    }
    return false;
}

#define EXPECT ", \"expect\": [\"delivered(home) == 100%\", \"duplicates == 0\", \"audit_violations == 0\"]"

static void test_a_good_run_passes_and_leaves_its_files(void **state)
{
    (void)state;
    pid_t pids[4];
    scenario(", \"server\": {\"delivery\": \"legacy\"}" EXPECT, NULL);
    if (play())
        fail_msg("%s", ctx.text);
    assert_string_equal(out->verdict, "pass");
    assert_int_equal(out->seed, 7);
    assert_int_equal(out->load[0].delivered, 1);
    assert_true(out->load[0].latency.p95 == 3);
    assert_int_equal(out->server.starts, 1);
    assert_int_equal(out->server.sessions_max, 9);
    assert_int_equal(out->server.messages, 4);
    assert_true(out->server.rss_bytes_max > 1000000);
    assert_true(exists("summary.json") && exists("report.html") && exists("junit.xml") &&
                exists("server.log"));
    assert_int_equal(servers(pids, 4), 1);
    assert_true(gone(pids[0]));
    assert_int_equal(play(), 0); /* its own folder is used again, without yesterday's results */
    assert_int_equal(servers(pids, 4), 1);
}

static void test_a_killed_server_is_started_again_and_the_fault_is_traced(void **state)
{
    (void)state;
    pid_t pids[4];
    duration = "3s";
    scenario(", \"server\": {\"delivery\": \"legacy\"}, \"faults\": [{\"name\": \"kill-1\", \"at\": "
             "\"100ms\", \"do\": \"kill-server\","
             " \"restart\": \"50ms\"}], \"expect\": [\"server_starts == 2\"]",
             NULL);
    duration = "400ms";
    if (play())
        fail_msg("%s", ctx.text);
    assert_string_equal(out->expect[0].verdict, "pass");
    assert_int_equal(servers(pids, 4), 2);
    assert_true(gone(pids[0]) && gone(pids[1]));
    assert_int_equal(out->server.messages, 8); /* both incarnations' */
    char path[256];
    const char *dirs[] = {path};
    struct trace_run *run = calloc(1, sizeof *run);
    int faults = 0, phases = 0;
    snprintf(path, sizeof path, "%s/trace", dir);
    assert_int_equal(trace_run_load(run, dirs, 1, &ctx), 0);
    for (uint32_t i = 0; i < run->events; i++) {
        faults += run->event[i].hop == HOP_RUN_FAULT;
        phases += run->event[i].hop == HOP_RUN_PHASE;
    }
    assert_int_equal(faults, 1);
    assert_int_equal(phases, 4);
    trace_run_release(run);
    free(run);
}

static void test_a_server_that_dies_by_itself_is_never_a_pass(void **state)
{
    (void)state;
    scenario(", \"server\": {\"delivery\": \"legacy\", \"args\": \"--die\"}" EXPECT, "{\"load_s\": 5}");
    assert_int_equal(play(), 0);
    assert_string_equal(out->verdict, "unknown");
    assert_non_null(strstr(out->note, "was killed by signal 6"));
}

static void test_a_server_that_does_not_start_says_why(void **state)
{
    (void)state;
    scenario(", \"server\": {\"args\": \"--refuse\"}", NULL);
    assert_int_equal(play(), ERR_UNAVAILABLE);
    assert_non_null(strstr(ctx.text, "the store is locked by process 17"));
    assert_false(exists("summary.json"));
}

static void test_a_generator_that_fails_says_why(void **state)
{
    (void)state;
    pid_t pids[4];
    scenario(EXPECT, "{\"exit\": 74}");
    assert_int_equal(play(), ERR_UNAVAILABLE);
    assert_non_null(strstr(ctx.text, "no chat could be made"));
    assert_int_equal(servers(pids, 4), 1);
    assert_true(gone(pids[0]));
}

static void test_a_generator_that_lagged_proves_nothing(void **state)
{
    (void)state;
    scenario(", \"server\": {\"delivery\": \"legacy\"}" EXPECT, "{\"summary\": {\"send_lag_ms_p99\": 900}}");
    assert_int_equal(play(), 0);
    assert_string_equal(out->verdict, "unknown");
    assert_non_null(strstr(out->expect[0].why, "too slow for the load"));
}

static void test_a_loss_fails_and_a_broken_journal_is_unknown(void **state)
{
    (void)state;
    scenario(", \"server\": {\"delivery\": \"legacy\"}" EXPECT, "{\"summary\": {\"delivered\": 0}}");
    assert_int_equal(play(), 0);
    assert_string_equal(out->expect[0].verdict, "fail");
    assert_string_equal(out->verdict, "fail");
    scenario(", \"server\": {\"delivery\": \"legacy\"}" EXPECT, "{\"journal\": \"{\\\"op\\\":\"}");
    assert_int_equal(play(), 0);
    assert_string_equal(out->verdict, "unknown");
    assert_non_null(strstr(out->note, "journal.jsonl:1: the last line is cut off"));
}

/* A server that pushed message 1 to phone 2, who showed it, and had nowhere to push it for phone 3. */
static void leave_a_trace(const char *where)
{
    static const struct {
        const char *name;
        uint16_t node;
        struct trace_event e;
    } events[] = {
        {"server", TRACE_NODE_SERVER, {.hop = HOP_SERVER_MEMBER, .chat = 1, .user = 1, .arg = 1}},
        {"server", TRACE_NODE_SERVER, {.hop = HOP_SERVER_MEMBER, .chat = 1, .user = 2, .arg = 1}},
        {"server", TRACE_NODE_SERVER, {.hop = HOP_SERVER_MEMBER, .chat = 1, .user = 3, .arg = 1}},
        {"load", TRACE_NODE_LOAD, {.hop = HOP_SOCKET_OPEN, .user = 1, .conn = 1, .reason = NET_LTE}},
        {"load",
         TRACE_NODE_LOAD,
         {.hop = HOP_CLIENT_SUBMIT,
          .id = {{1}},
          .chat = 1,
          .user = 1,
          .arg = 1,
          .flags = TRACE_FLAG_ONE_SEND}},
        {"server",
         TRACE_NODE_SERVER,
         {.hop = HOP_SERVER_RECEIVE, .id = {{1}}, .chat = 1, .user = 1, .arg = 90}},
        {"server",
         TRACE_NODE_SERVER,
         {.hop = HOP_SERVER_FANOUT,
          .id = {{1}},
          .chat = 1,
          .user = 1,
          .arg = 2,
          .flags = TRACE_FLAG_ONE_PUSH}},
        {"server", TRACE_NODE_SERVER, {.hop = HOP_SERVER_PUSH, .id = {{1}}, .chat = 1, .user = 2, .arg = 50}},
        {"server",
         TRACE_NODE_SERVER,
         {.hop = HOP_SERVER_PUSH_DROP,
          .id = {{1}},
          .chat = 1,
          .user = 3,
          .arg = 1,
          .reason = REASON_NO_SESSION}},
        {"load",
         TRACE_NODE_LOAD,
         {.hop = HOP_CLIENT_RECEIVE, .id = {{1}}, .chat = 1, .user = 2, .device = 1, .arg = 1}},
        {"load",
         TRACE_NODE_LOAD,
         {.hop = HOP_CLIENT_SURFACE, .id = {{1}}, .chat = 1, .user = 2, .device = 1, .arg = 1}},
    };
    static const char *const names[] = {"server", "load"};
    for (int t = 0; t < 2; t++) {
        struct trace *trace;
        struct trace_writer *w;
        struct trace_config tc = {.dir = where,
                                  .name = names[t],
                                  .node = t ? TRACE_NODE_LOAD : TRACE_NODE_SERVER,
                                  .ring_events = 1024};
        assert_int_equal(trace_open(&trace, &tc, &ctx), 0);
        assert_int_equal(trace_writer_new(&w, trace, &ctx), 0);
        for (size_t i = 0; i < sizeof events / sizeof *events; i++) {
            struct trace_event e = events[i].e;
            e.ts_ns = (1000 + 10 * i) * NS_PER_MS;
            if (strcmp(events[i].name, names[t]) == 0)
                trace_emit(w, &e);
        }
        assert_int_equal(trace_close(trace), 0);
    }
}

static void test_the_trace_becomes_verdicts_curves_and_the_life_of_a_lost_message(void **state)
{
    (void)state;
    char where[192];
    snprintf(where, sizeof where, "%s.trace", file);
    scenario(", \"server\": {\"delivery\": \"legacy\"}, \"expect\": [\"trace_dropped == 0\"]", NULL);
    leave_a_trace(where);
    if (play())
        fail_msg("%s", ctx.text);
    assert_string_equal(out->note, "");
    assert_string_equal(out->verdict, "pass");
    uint64_t delivered = 0, lost = 0, all = 0;
    for (uint32_t i = 0; i < out->nets_n; i++) {
        delivered += report_net_count(&out->nets[i], "delivered");
        lost += report_net_count(&out->nets[i], "lost_in_fanout");
        all += report_net_total(&out->nets[i]);
    }
    assert_int_equal(delivered, 1);
    assert_int_equal(lost, 1);
    assert_int_equal(all, 2);
    assert_int_equal(out->curves_n, 1);
    const struct report_curve *c = &out->curves[0];
    assert_true(c->points_n > 10);
    for (uint32_t i = 1; i < c->points_n; i++)
        assert_true(c->points[i].ms >= c->points[i - 1].ms && c->points[i].share > c->points[i - 1].share);
    assert_int_equal(out->lives_n, 1);
    const struct report_life *l = &out->lives[0];
    assert_string_equal(l->verdict, "lost_in_fanout");
    assert_non_null(strstr(l->why, "From phone 1 to phone 3"));
    assert_true(l->steps_n >= 4);
    assert_string_equal(l->steps[0].what, "submit");
    assert_true(l->steps[0].ms == 0);
    const struct report_step *last = &l->steps[l->steps_n - 1];
    assert_true(last->bad);
    assert_string_equal(last->what, "push dropped to phone 3: recipient has no session");
}

static void test_somebody_elses_folder_is_not_touched(void **state)
{
    (void)state;
    char path[256];
    scenario(EXPECT, NULL);
    assert_int_equal(mkdir(dir, 0755), 0);
    snprintf(path, sizeof path, "%s/data", dir);
    write_file(path, "precious");
    assert_int_equal(play(), ERR_EXISTS);
    assert_true(exists("data"));
}

static void on_alarm(int n)
{
    (void)n;
    interrupted = 1;
}

static void test_an_interrupt_gives_a_summary_of_what_was_done(void **state)
{
    (void)state;
    scenario(", \"server\": {\"delivery\": \"legacy\"}" EXPECT, "{\"load_s\": 60}");
    struct sigaction sa = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &sa, NULL);
    alarm(4);
    assert_int_equal(play(), ERR_INTERRUPTED);
    interrupted = 0;
    assert_true(exists("summary.json"));
    assert_string_equal(out->verdict, "unknown");
    assert_int_equal(out->load[0].sent, 1);
}

static void test_nothing_is_left_when_the_conductor_is_killed(void **state)
{
    (void)state;
    pid_t pids[4] = {0};
    scenario(", \"server\": {\"delivery\": \"legacy\"}" EXPECT, "{\"load_s\": 60}");
    pid_t conductor = fork();
    if (conductor == 0) {
        play();
        _exit(0);
    }
    for (int i = 0; i < 1000 && !exists("trace/.") && !exists("load.json"); i++)
        usleep(10000);
    for (int i = 0; i < 1000 && servers(pids, 4) < 1; i++)
        usleep(10000);
    assert_true(pids[0] > 0);
    kill(conductor, SIGKILL);
    waitpid(conductor, NULL, 0);
    assert_true(gone(pids[0]));
}

static int setup(void **state)
{
    (void)state;
    snprintf(home, sizeof home, "/tmp/test_chaos.XXXXXX");
    assert_non_null(mkdtemp(home));
    snprintf(file, sizeof file, "%s/scenario.json", home);
    snprintf(dir, sizeof dir, "%s/out", home);
    out = calloc(1, sizeof *out);
    return out ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", home);
    free(out);
    return system(command);
}

int main(void)
{
    if (!realpath("tests/unit/run/fake", programs)) {
        puts("1..1\nok 1 - conductor # SKIP run from the project's folder");
        return 0;
    }
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_a_good_run_passes_and_leaves_its_files),
        T(test_a_killed_server_is_started_again_and_the_fault_is_traced),
        T(test_a_server_that_dies_by_itself_is_never_a_pass),
        T(test_a_server_that_does_not_start_says_why),
        T(test_a_generator_that_fails_says_why),
        T(test_a_generator_that_lagged_proves_nothing),
        T(test_a_loss_fails_and_a_broken_journal_is_unknown),
        T(test_the_trace_becomes_verdicts_curves_and_the_life_of_a_lost_message),
        T(test_somebody_elses_folder_is_not_touched),
        T(test_an_interrupt_gives_a_summary_of_what_was_done),
        T(test_nothing_is_left_when_the_conductor_is_killed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
