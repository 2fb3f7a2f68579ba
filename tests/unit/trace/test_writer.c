/* Writing and reading back: rings, kills, and files that are not what they should be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "trace/reader.h"
#include "util/rng.h"

struct folder {
    char path[64];
};

static void folder_make(struct folder *f)
{
    strcpy(f->path, "/tmp/chatd-trace-XXXXXX");
    assert_non_null(mkdtemp(f->path));
}

static void folder_remove(struct folder *f)
{
    char cmd[128];
    snprintf(cmd, sizeof cmd, "rm -rf %s", f->path);
    assert_int_equal(system(cmd), 0);
}

static struct trace *open_trace(const struct folder *f, uint32_t ring, struct trace_writer **w)
{
    struct trace *t;
    struct err_ctx err = {0};
    struct trace_config c = {.dir = f->path, .name = "test", .node = 5, .seed = 42, .ring_events = ring};
    assert_int_equal(trace_open(&t, &c, &err), 0);
    assert_int_equal(trace_writer_new(w, t, &err), 0);
    return t;
}

static int load(const struct folder *f, struct trace_run *r)
{
    const char *dirs[] = {f->path};
    struct err_ctx err = {0};
    return trace_run_load(r, dirs, 1, &err);
}

static void test_everything_written_is_read_in_order(void **state)
{
    (void)state;
    struct folder f;
    struct trace_writer *w;
    struct trace_run r;
    folder_make(&f);
    struct trace *t = open_trace(&f, 1024, &w);
    uint64_t sent = 0;
    for (uint64_t i = 0; i < 200000; i++) { /* many times around the ring */
        trace_emit(w, &(struct trace_event){.arg = i, .hop = HOP_CLIENT_SUBMIT});
        sent++;
    }
    uint64_t dropped = trace_dropped(t);
    assert_int_equal(trace_emitted(t) + dropped, sent);
    assert_int_equal(trace_close(t), 0);
    assert_int_equal(load(&f, &r), 0);
    assert_int_equal(r.problems, 0);
    assert_int_equal(r.events + dropped, sent);
    for (uint32_t i = 1; i < r.events; i++) {
        assert_true(r.event[i].arg > r.event[i - 1].arg);
        assert_true(r.event[i].ts_ns >= r.event[i - 1].ts_ns);
    }
    assert_int_equal(r.source[0].node, 5);
    assert_int_equal(r.source[0].seed, 42);
    assert_int_equal(r.source[0].dropped, dropped);
    assert_true(r.source[0].complete == (dropped == 0));
    trace_run_release(&r);
    folder_remove(&f);
}

static void test_times_agree_with_the_clock(void **state)
{
    (void)state;
    struct folder f;
    struct trace_writer *w;
    struct trace_run r;
    struct timespec a, b;
    folder_make(&f);
    struct trace *t = open_trace(&f, 1024, &w);
    clock_gettime(CLOCK_MONOTONIC, &a);
    trace_emit(w, &(struct trace_event){.hop = HOP_CLIENT_SUBMIT});
    clock_gettime(CLOCK_MONOTONIC, &b);
    trace_close(t);
    assert_int_equal(load(&f, &r), 0);
    int64_t ts = (int64_t)r.event[0].ts_ns, lo = a.tv_sec * 1000000000ll + a.tv_nsec,
            hi = b.tv_sec * 1000000000ll + b.tv_nsec;
    assert_true(ts > lo - 1000000 && ts < hi + 1000000); /* within 1 ms of the calls around it */
    trace_run_release(&r);
    folder_remove(&f);
}

static void test_killed_writer_leaves_all_it_emitted(void **state)
{
    (void)state;
    struct folder f;
    struct trace_run r;
    int p[2];
    folder_make(&f);
    assert_int_equal(pipe(p), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct trace_writer *w;
        open_trace(&f, 4096, &w);
        for (uint64_t i = 0; i < 1000; i++)
            trace_emit(w, &(struct trace_event){.arg = i, .hop = HOP_CLIENT_SUBMIT});
        if (write(p[1], "x", 1) != 1)
            _exit(1);
        pause();
    }
    char c;
    assert_int_equal(read(p[0], &c, 1), 1);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_int_equal(load(&f, &r), 0);
    assert_int_equal(r.events, 1000);
    assert_true(r.source[0].complete);
    trace_run_release(&r);
    struct trace_writer *w; /* the next process of that name sweeps the ring up: still each record once */
    struct trace *t = open_trace(&f, 4096, &w);
    trace_emit(w, &(struct trace_event){.arg = 1000, .hop = HOP_CLIENT_SUBMIT});
    trace_close(t);
    assert_int_equal(load(&f, &r), 0);
    assert_int_equal(r.events, 1001);
    trace_run_release(&r);
    folder_remove(&f);
}

static void test_lanes_number_their_records(void **state)
{
    (void)state;
    struct folder f;
    struct trace_writer *w;
    struct trace_run r;
    folder_make(&f);
    struct trace *t = open_trace(&f, 1024, &w);
    struct trace_lane lane = {.conn = 9};
    for (int i = 0; i < 3; i++)
        trace_lane_emit(w, &lane, &(struct trace_event){.hop = HOP_SOCKET_READ});
    trace_close(t);
    assert_int_equal(load(&f, &r), 0);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(r.event[i].conn, 9);
        assert_int_equal(r.event[i].lane_seq, i);
    }
    trace_run_release(&r);
    folder_remove(&f);
}

/* The one file of the folder. */
static void only_file(const struct folder *f, char out[256])
{
    DIR *d = opendir(f->path);
    *out = 0;
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.')
            snprintf(out, 256, "%.60s/%.180s", f->path, e->d_name);
    closedir(d);
    assert_true(*out != 0);
}

/* One user in three, by blocks of neighbours: the others leave nothing, and no hole in anybody's lane. */
static void test_a_sample_holds_whole_lanes_of_some_users(void **state)
{
    (void)state;
    struct folder f;
    struct trace_writer *w;
    struct trace *t;
    struct trace_run r;
    struct err_ctx err = {0};
    folder_make(&f);
    struct trace_config c = {.dir = f.path, .name = "test", .node = 5, .sample = 3};
    assert_int_equal(trace_open(&t, &c, &err), 0);
    assert_int_equal(trace_writer_new(&w, t, &err), 0);
    uint32_t wanted = 0;
    for (uint64_t block = 0; block < 9; block++) {
        uint64_t user = block * TRACE_BLOCK + 17;
        bool in = trace_wants(w, user);
        wanted += in;
        assert_int_equal(in, trace_wants(w, user + TRACE_BLOCK - 18)); /* its neighbours too */
        struct trace_lane lane = {.conn = (uint32_t)block + 1, .quiet = !in};
        trace_lane_emit(w, &lane, &(struct trace_event){.user = user, .hop = HOP_SOCKET_OPEN});
        trace_emit(w, &(struct trace_event){.user = user, .hop = HOP_SERVER_COMMIT});
        trace_lane_emit(w, &lane, &(struct trace_event){.user = user, .hop = HOP_SOCKET_CLOSE});
        assert_int_equal(lane.next, in ? 2 : 0);
    }
    trace_emit(w, &(struct trace_event){.hop = HOP_SERVER_START});
    assert_int_equal(wanted, 3);
    assert_int_equal(trace_close(t), 0);
    assert_int_equal(load(&f, &r), 0);
    assert_int_equal(r.events, 3 * wanted + 1);
    assert_int_equal(r.sample, 3);
    assert_int_equal(r.source[0].dropped, 0);
    assert_true(r.source[0].complete);
    for (uint32_t i = 0; i < r.events; i++)
        assert_true(!r.event[i].user || r.event[i].user / TRACE_BLOCK % 3 == 0);
    assert_false(trace_wants(NULL, 1));
    trace_run_release(&r);
    folder_remove(&f);
}

static void test_bad_files_are_named_with_their_offset_and_never_crash(void **state)
{
    (void)state;
    struct folder f;
    struct trace_writer *w;
    struct trace_run r;
    struct rng rng;
    char path[256], whole[1 << 16];
    folder_make(&f);
    struct trace *t = open_trace(&f, 1024, &w);
    for (uint64_t i = 0; i < 100; i++)
        trace_emit(w, &(struct trace_event){.arg = i, .hop = HOP_CLIENT_SUBMIT});
    trace_close(t);
    only_file(&f, path);
    int fd = open(path, O_RDONLY);
    ssize_t n = read(fd, whole, sizeof whole);
    close(fd);
    assert_true(n > 6400);
    rng_seed(&rng, 1);
    for (int round = 0; round < 400; round++) {
        char bad[sizeof whole];
        size_t len = (size_t)n;
        memcpy(bad, whole, len);
        if (round % 2)
            len = rng_below(&rng, len);
        else
            bad[rng_below(&rng, len)] ^= (char)(1 + rng_below(&rng, 255));
        fd = open(path, O_WRONLY | O_TRUNC);
        assert_int_equal(write(fd, bad, len), (ssize_t)len);
        close(fd);
        int rc = load(&f, &r);
        if (rc == 0) {
            assert_true(r.events <= 100);
            if (round % 2 && r.events < 100) /* cut: incomplete is said one way or the other */
                assert_true(r.problems > 0 || !r.source[0].complete);
            for (uint64_t i = 0; i < r.problems && i < TRACE_PROBLEMS_MAX; i++)
                assert_non_null(strstr(r.problem[i].text, f.path));
        }
        trace_run_release(&r);
    }
    folder_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything_written_is_read_in_order),
        cmocka_unit_test(test_times_agree_with_the_clock),
        cmocka_unit_test(test_killed_writer_leaves_all_it_emitted),
        cmocka_unit_test(test_lanes_number_their_records),
        cmocka_unit_test(test_a_sample_holds_whole_lanes_of_some_users),
        cmocka_unit_test(test_bad_files_are_named_with_their_offset_and_never_crash),
    };
    return cmocka_run_group_tests_name("writer", tests, NULL, NULL);
}
