#include "run/child.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util/clock.h"

#define POLL_NS (5 * NS_PER_MS)

/* Runs in the child between fork and exec: async-signal-safe calls only. */
static void become(char *const argv[], int out_fd, int err_fd, int failed_fd, pid_t parent)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);
    int null = open("/dev/null", O_RDWR);
    if (null < 0 || dup2(null, 0) < 0 || (out_fd >= 0 && dup2(out_fd, 1) < 0) ||
        (err_fd >= 0 && dup2(err_fd, 2) < 0))
        goto failed;
    int kept = fcntl(failed_fd, F_DUPFD_CLOEXEC, 3);
    if (kept > 3) {
        dup2(kept, 3);
        fcntl(3, F_SETFD, FD_CLOEXEC);
        close(kept);
    }
    failed_fd = 3;
    syscall(SYS_close_range, 4u, ~0u, 0u);
    execv(argv[0], argv);
failed:;
    int e = errno;
    if (write(failed_fd, &e, sizeof e) < 0)
        _exit(126);
    _exit(127);
}

int child_spawn(char *const argv[], int out_fd, int err_fd, pid_t *pid, struct err_ctx *ctx)
{
    int failed[2], e = 0;
    pid_t parent = getpid();
    if (pipe2(failed, O_CLOEXEC))
        return err_errno(ctx, "pipe");
    *pid = fork();
    if (*pid == 0)
        become(argv, out_fd, err_fd, failed[1], parent);
    close(failed[1]);
    int rc = 0;
    if (*pid < 0) {
        rc = err_errno(ctx, "fork");
    } else if (read(failed[0], &e, sizeof e) == sizeof e) {
        errno = e;
        rc = err_errno(ctx, "%s", argv[0]);
        waitpid(*pid, NULL, 0);
    }
    close(failed[0]);
    return rc;
}

bool child_ended(pid_t pid, int *status)
{
    pid_t got;
    do
        got = waitpid(pid, status, WNOHANG);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        *status = 0; /* somebody else reaped it */
    return got != 0;
}

int child_wait(pid_t pid, uint64_t ns, int *status, struct err_ctx *ctx)
{
    uint64_t end = clock_mono_ns() + ns;
    while (!child_ended(pid, status)) {
        if (clock_mono_ns() >= end)
            return err_set(ctx, ERR_TIMEOUT, "process %d did not end within %.1f s", (int)pid,
                           (double)ns / 1e9);
        usleep(POLL_NS / 1000);
    }
    return 0;
}

int child_stop(pid_t pid, uint64_t ns, int *status, struct err_ctx *ctx)
{
    kill(pid, SIGTERM);
    kill(pid, SIGCONT);
    int rc = child_wait(pid, ns, status, ctx);
    if (rc) {
        kill(pid, SIGKILL);
        child_wait(pid, 5 * NS_PER_S, status, NULL);
    }
    return rc;
}

void child_status_text(char *out, size_t size, int status)
{
    if (WIFSIGNALED(status))
        snprintf(out, size, "was killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(out, size, "exited with status %d", WEXITSTATUS(status));
}

bool child_usage(pid_t pid, struct child_usage *u)
{
    char path[64], line[1024];
    unsigned long long utime = 0, stime = 0, pages = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    size_t n = fread(line, 1, sizeof line - 1, f);
    fclose(f);
    line[n] = 0;
    const char *after = strrchr(line, ')'); /* the name may hold anything */
    if (!after ||
        sscanf(after + 1,
               " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %*d %*d %*u %*u %llu",
               &utime, &stime, &pages) != 3)
        return false;
    u->cpu_s = (double)(utime + stime) / (double)sysconf(_SC_CLK_TCK);
    u->rss_bytes = pages * (uint64_t)sysconf(_SC_PAGESIZE);
    return true;
}

static bool differ(int a, int b)
{
    struct stat x, y;
    return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_ino != y.st_ino;
}

int child_socket(pid_t pid, struct err_ctx *ctx)
{
    char path[64];
    int fd, ours, theirs;
    if (!pid) {
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        return fd < 0 ? err_errno(ctx, "socket") : fd;
    }
    snprintf(path, sizeof path, "/proc/%d/ns/net", (int)pid);
    theirs = open(path, O_RDONLY | O_CLOEXEC);
    if (theirs < 0)
        return err_errno(ctx, "%s", path);
    ours = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    bool apart = ours >= 0 && differ(ours, theirs);
    if (!apart || setns(theirs, CLONE_NEWNET)) {
        /* a child that has not entered its namespace yet: nothing may be sent from ours */
        int rc = ours >= 0 && !apart
                     ? err_set(ctx, ERR_UNAVAILABLE, "process %d is in our own network namespace", (int)pid)
                     : err_errno(ctx, "network namespace of process %d", (int)pid);
        if (ours >= 0)
            close(ours);
        close(theirs);
        return rc;
    }
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int rc = fd < 0 ? err_errno(ctx, "socket") : fd;
    BUG_ON(setns(ours, CLONE_NEWNET) != 0); /* a thread that can't come home must not go on */
    close(ours);
    close(theirs);
    return rc;
}

/* Wait for the socket until the deadline. */
static int ready(int fd, short events, uint64_t end, struct err_ctx *ctx)
{
    for (;;) {
        uint64_t now = clock_mono_ns();
        struct pollfd p = {.fd = fd, .events = events};
        int n = now < end ? poll(&p, 1, (int)((end - now) / NS_PER_MS) + 1) : 0;
        if (n > 0)
            return 0;
        if (n == 0)
            return err_set(ctx, ERR_TIMEOUT, "no answer in time");
        if (errno != EINTR)
            return err_errno(ctx, "poll");
    }
}

static int exchange(int fd, uint32_t addr, uint16_t port, const char *path, uint64_t end, struct buf *answer,
                    struct err_ctx *ctx)
{
    char request[256];
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(addr)};
    if (connect(fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS)
        return err_set(ctx, ERR_UNAVAILABLE, "connect: %s", strerror(errno));
    int rc = ready(fd, POLLOUT, end, ctx), e = 0;
    socklen_t len = sizeof e;
    if (rc)
        return rc;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len) || e)
        return err_set(ctx, ERR_UNAVAILABLE, "connect: %s", strerror(e));
    int n = snprintf(request, sizeof request, "GET %s HTTP/1.0\r\nHost: chatd\r\nConnection: close\r\n\r\n",
                     path);
    if (send(fd, request, (size_t)n, MSG_NOSIGNAL) != n)
        return err_set(ctx, ERR_UNAVAILABLE, "send: %s", strerror(errno));
    for (;;) {
        rc = ready(fd, POLLIN, end, ctx);
        char *room = rc ? NULL : buf_reserve(answer, 16384);
        if (!room)
            return rc ? rc : err_set(ctx, ERR_LIMIT, "the answer is too long");
        ssize_t got = recv(fd, room, 16384, 0);
        if (got > 0)
            answer->len += (size_t)got;
        else if (got == 0)
            return 0;
        else if (errno != EINTR && errno != EAGAIN)
            return err_set(ctx, ERR_UNAVAILABLE, "recv: %s", strerror(errno));
    }
}

int child_http_get(pid_t pid, uint32_t addr, uint16_t port, const char *path, uint64_t ns, int *status,
                   struct buf *body, struct err_ctx *ctx)
{
    struct buf answer = BUF_INIT(1 << 20);
    int fd = child_socket(pid, ctx);
    if (fd < 0)
        return fd;
    int rc = exchange(fd, addr, port, path, clock_mono_ns() + ns, &answer, ctx);
    close(fd);
    if (!rc) {
        const char *text = buf_cstr(&answer), *head = strstr(text, "\r\n\r\n");
        if (!head || sscanf(text, "HTTP/1.%*c %d", status) != 1)
            rc = err_set(ctx, ERR_INVALID, "the answer is no HTTP");
        else if (body)
            buf_str(body, head + 4);
    }
    buf_release(&answer);
    return rc;
}

int child_program(char *out, size_t size, const char *folder, const char *name, struct err_ctx *ctx)
{
    char self[512];
    if (!folder) {
        ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
        if (n <= 0)
            return err_errno(ctx, "/proc/self/exe");
        self[n] = 0;
        char *slash = strrchr(self, '/');
        if (slash)
            *slash = 0;
        folder = self;
    }
    if (snprintf(out, size, "%s/%s", folder, name) >= (int)size)
        return err_set(ctx, ERR_LIMIT, "%s: the path is too long", folder);
    if (access(out, X_OK))
        return err_set(ctx, ERR_UNAVAILABLE, "%s is missing; build or install it beside chat-chaos", out);
    return 0;
}
