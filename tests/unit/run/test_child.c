#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "run/child.h"
#include "util/clock.h"

static struct err_ctx ctx;

static void test_a_program_that_is_not_there_is_an_error_of_the_spawn(void **state)
{
    (void)state;
    char *argv[] = {"/nonexistent/program", NULL};
    pid_t pid;
    assert_int_equal(child_spawn(argv, -1, -1, &pid, &ctx), ERR_NOTFOUND);
    assert_non_null(strstr(ctx.text, "/nonexistent/program"));
}

static void test_output_goes_where_it_is_told_and_no_fd_leaks(void **state)
{
    (void)state;
    int out[2], status = 0, spare = open("/dev/null", O_RDONLY);
    char text[256] = "";
    char *argv[] = {"/bin/sh", "-c", "ls /proc/self/fd | tr '\\n' ' '; exit 3", NULL};
    pid_t pid;
    assert_true(spare > 2);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    assert_int_equal(child_spawn(argv, out[1], -1, &pid, &ctx), 0);
    assert_int_equal(child_wait(pid, 10 * NS_PER_S, &status, &ctx), 0);
    assert_int_equal(WEXITSTATUS(status), 3);
    assert_true(read(out[0], text, sizeof text - 1) > 0);
    assert_string_equal(text, "0 1 2 3 "); /* 3 is ls's own */
    child_status_text(text, sizeof text, status);
    assert_string_equal(text, "exited with status 3");
    close(out[0]);
    close(out[1]);
    close(spare);
}

static void test_a_child_that_ignores_term_is_killed(void **state)
{
    (void)state;
    int out[2], status = 0;
    char *argv[] = {"/bin/sh", "-c", "trap '' TERM; echo x; while :; do sleep 0.05; done", NULL}, c;
    pid_t pid;
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    assert_int_equal(child_spawn(argv, out[1], -1, &pid, &ctx), 0);
    assert_int_equal(read(out[0], &c, 1), 1);
    assert_int_equal(child_wait(pid, NS_PER_MS, &status, &ctx), ERR_TIMEOUT);
    assert_int_equal(child_stop(pid, 50 * NS_PER_MS, &status, &ctx), ERR_TIMEOUT);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    close(out[0]);
    close(out[1]);
}

static void test_usage_of_a_process(void **state)
{
    (void)state;
    struct child_usage u;
    assert_true(child_usage(getpid(), &u));
    assert_true(u.rss_bytes > 100000 && u.rss_bytes < (1ull << 40));
    assert_false(child_usage(0x3fffffff, &u));
}

static void test_http_get(void **state)
{
    (void)state;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), http = 0;
    struct buf body = BUF_INIT(4096);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, n), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    uint16_t port = ntohs(a.sin_port);
    assert_int_equal(child_http_get(0, INADDR_LOOPBACK, port, "/", NS_PER_S, &http, &body, &ctx),
                     ERR_UNAVAILABLE);
    assert_int_equal(listen(fd, 4), 0);
    /* it accepts in the backlog and never answers */
    assert_int_equal(child_http_get(0, INADDR_LOOPBACK, port, "/", 50 * NS_PER_MS, &http, &body, &ctx),
                     ERR_TIMEOUT);
    close(accept(fd, NULL, NULL));
    static const char answer[] = "HTTP/1.1 503 Busy\r\nX: y\r\n\r\nhello";
    pid_t pid = fork();
    if (pid == 0) {
        int c = accept(fd, NULL, NULL);
        char request[512];
        if (read(c, request, sizeof request) <= 0 || write(c, answer, sizeof answer - 1) < 0)
            _exit(1);
        close(c);
        c = accept(fd, NULL, NULL);
        _exit(read(c, request, sizeof request) > 0 && write(c, "nonsense", 8) == 8 ? 0 : 1);
    }
    assert_int_equal(child_http_get(0, INADDR_LOOPBACK, port, "/x", 5 * NS_PER_S, &http, &body, &ctx), 0);
    assert_int_equal(http, 503);
    assert_string_equal(buf_cstr(&body), "hello");
    assert_int_equal(child_http_get(0, INADDR_LOOPBACK, port, "/x", 5 * NS_PER_S, &http, &body, &ctx),
                     ERR_INVALID);
    waitpid(pid, NULL, 0);
    close(fd);
    buf_release(&body);
}

/* Needs root; a namespace of our own is made, with a process that stays in it. */
static void test_a_socket_in_another_namespace(void **state)
{
    (void)state;
    char *argv[] = {"/usr/bin/unshare", "-n", "/bin/sh", "-c", "echo x; exec sleep 60", NULL}, c;
    int out[2], status;
    pid_t pid;
    if (geteuid() != 0)
        skip();
    assert_int_equal(child_socket(getpid(), &ctx), ERR_UNAVAILABLE);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    assert_int_equal(child_spawn(argv, out[1], -1, &pid, &ctx), 0);
    assert_int_equal(read(out[0], &c, 1), 1);
    int fd = child_socket(pid, &ctx), own = child_socket(0, &ctx);
    assert_true(fd >= 0 && own >= 0);
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(9)};
    /* there, even loopback is down */
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), -1);
    assert_int_equal(errno, ENETUNREACH);
    /* and we are at home again */
    assert_true(connect(own, (struct sockaddr *)&a, sizeof a) == 0 || errno != ENETUNREACH);
    close(fd);
    close(own);
    child_stop(pid, NS_PER_S, &status, &ctx);
    close(out[0]);
    close(out[1]);
}

static void test_a_missing_sibling_says_what_to_do(void **state)
{
    (void)state;
    char path[512];
    assert_int_equal(child_program(path, sizeof path, NULL, "no-such-tool", &ctx), ERR_UNAVAILABLE);
    assert_non_null(strstr(ctx.text, "build or install it"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_program_that_is_not_there_is_an_error_of_the_spawn),
        cmocka_unit_test(test_output_goes_where_it_is_told_and_no_fd_leaks),
        cmocka_unit_test(test_a_child_that_ignores_term_is_killed),
        cmocka_unit_test(test_usage_of_a_process),
        cmocka_unit_test(test_http_get),
        cmocka_unit_test(test_a_socket_in_another_namespace),
        cmocka_unit_test(test_a_missing_sibling_says_what_to_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
