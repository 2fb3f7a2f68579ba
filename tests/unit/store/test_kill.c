/* kill -9 at random moments: whatever was acknowledged is there, batches are whole, the epoch stays. The
 * writer is this program again (RocksDB's threads do not survive a fork without exec). */
#include <signal.h>
#include <sys/wait.h>

#include "helper.h"

#include "../../engines/store_batches.h"
#include "util/rng.h"

#define KILLS 20

static FILE *start_writer(const struct place *p, pid_t *pid)
{
    int fd[2];
    assert_int_equal(pipe(fd), 0);
    *pid = fork();
    assert_true(*pid >= 0);
    if (*pid == 0) {
        dup2(fd[1], 1);
        close(fd[0]);
        close(fd[1]);
        execl("/proc/self/exe", "test_kill", "--writer", p->url, p->keys, (char *)NULL);
        _exit(127);
    }
    close(fd[1]);
    FILE *f = fdopen(fd[0], "r");
    assert_non_null(f);
    return f;
}

/* Reads until `acks` acknowledgements came, kills, reads the rest; the last one acknowledged. */
static uint64_t run_and_kill(const struct place *p, uint64_t acks, uint64_t last, uint64_t *epoch)
{
    char line[600];
    uint64_t have, e;
    pid_t pid;
    FILE *f = start_writer(p, &pid);
    for (uint64_t seen = 0; fgets(line, sizeof line, f);) {
        if (sscanf(line, "open %" SCNu64 " %" SCNu64, &e, &have) == 2) {
            assert_true(have >= last); /* nothing acknowledged is missing */
            assert_true(*epoch == 0 || *epoch == e);
            *epoch = e;
        } else if (sscanf(line, "ack %" SCNu64, &last) != 1) {
            fail_msg("%s", line);
        }
        if (seen++ == acks) /* 0: while it is still opening */
            kill(pid, SIGKILL);
    }
    fclose(f);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    return last;
}

static void test_kill_9_loses_nothing_and_keeps_the_epoch(void **state)
{
    (void)state;
    struct place p;
    struct rng r;
    uint64_t last = 0, epoch = 0, seq[BATCH_CHATS + 1];
    const char *wrong = NULL;
    place_make(&p);
    rng_seed(&r, 11);
    for (int i = 0; i < KILLS; i++)
        last = run_and_kill(&p, rng_below(&r, 60), last, &epoch);
    assert_true(last > KILLS);
    struct store *s = open_place(&p, 1);
    assert_true(store_epoch(s) == epoch);
    int64_t have = batches_in(s, seq, &wrong);
    if (wrong)
        fail_msg("%s", wrong);
    assert_true(have >= (int64_t)last);
    assert_int_equal(store_close(s, NULL), 0);
    place_remove(&p);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--writer") == 0)
        return batches_write(argv[2], argv[3], 0, 1) ? 1 : 0;
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_kill_9_loses_nothing_and_keeps_the_epoch)};
    return cmocka_run_group_tests_name("kill", tests, NULL, NULL);
}
