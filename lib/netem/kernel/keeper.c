#include "netem/kernel/keeper_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define GUEST_MS 1000 /* how long a guest may take to say what it wants */
#define TRIES    20
#define PAUSE_NS 50000000

struct kernel_hold {
    struct kernel_device dev;
    int life_fd, pid_fd;
    pid_t pid;
};

static socklen_t name_of(struct sockaddr_un *a, const struct kernel_device *dev)
{
    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    int n = snprintf(a->sun_path + 1, sizeof a->sun_path - 1, "chat-netem.dev.%d", dev->index);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

static int visit(const struct kernel_device *dev)
{
    struct sockaddr_un a;
    socklen_t n = name_of(&a, dev);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&a, n) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

pid_t keeper_pid(const struct kernel_device *dev)
{
    struct ucred who = {0};
    socklen_t n = sizeof who;
    int fd = visit(dev);
    if (fd < 0)
        return 0;
    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n); /* who called listen */
    close(fd);
    return who.pid;
}

unsigned keeper_knock(const struct kernel_device *dev)
{
    uint32_t removed = 0;
    int fd = visit(dev);
    if (fd < 0)
        return 0;
    if (send(fd, "clear", 5, MSG_NOSIGNAL) == 5 && recv(fd, &removed, sizeof removed, 0) < 0)
        removed = 0;
    /* its end closes the socket, and with it the name is free */
    for (char c; recv(fd, &c, 1, 0) > 0;)
        ;
    close(fd);
    return removed;
}

static unsigned take_off(const struct kernel_device *dev)
{
    unsigned removed = 0;
    for (int try = 0; try < TRIES && kernel_take_off(dev, &removed, NULL); try++)
        nanosleep(&(struct timespec){0, PAUSE_NS}, NULL);
    return removed;
}

/* Somebody at the door. True: the rules are off, and we are done. */
static bool serve(const struct kernel_device *dev, int door)
{
    char word[8];
    struct ucred who = {.uid = (uid_t)-1};
    socklen_t n = sizeof who;
    int fd = accept4(door, NULL, NULL, SOCK_CLOEXEC);
    struct pollfd p = {fd, POLLIN, 0};
    bool done = fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) == 0 &&
                (who.uid == 0 || who.uid == geteuid()) && poll(&p, 1, GUEST_MS) == 1 &&
                recv(fd, word, sizeof word, 0) == 5 && memcmp(word, "clear", 5) == 0;
    if (done) {
        uint32_t removed = take_off(dev);
        close(door);
        send(fd, &removed, sizeof removed, MSG_NOSIGNAL);
    }
    if (fd >= 0)
        close(fd);
    return done;
}

static void detach(int keep[2])
{
    static const int ignored[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGUSR1, SIGUSR2, SIGALRM};
    for (size_t i = 0; i < sizeof ignored / sizeof ignored[0]; i++)
        signal(ignored[i], SIG_IGN);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    prctl(PR_SET_NAME, "netem-keeper");
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd < 3 && null >= 0; fd++)
        dup2(null, fd);
    /* descriptors of ours would keep other things alive: pipes, namespaces, sockets */
    int low = keep[0] < keep[1] ? keep[0] : keep[1], high = keep[0] < keep[1] ? keep[1] : keep[0];
    if (low > 3)
        close_range(3, (unsigned)low - 1, 0);
    if (high > low + 1)
        close_range((unsigned)low + 1, (unsigned)high - 1, 0);
    close_range((unsigned)high + 1, ~0u, 0);
    if (chdir("/") != 0)
        return;
}

/* The keeper's life. `life` ends with the tool; `ready` is told once. */
static void keep(const struct kernel_device *dev, int life, int ready)
{
    struct sockaddr_un a;
    socklen_t n = name_of(&a, dev);
    detach((int[2]){life, ready});
    int door = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), answer = 0;
    if (door < 0 || bind(door, (struct sockaddr *)&a, n) < 0 || listen(door, 8) < 0)
        answer = errno;
    if (write(ready, &answer, sizeof answer) != sizeof answer || answer)
        _exit(1);
    close(ready);
    for (;;) {
        struct pollfd p[2] = {{life, POLLIN, 0}, {door, POLLIN, 0}};
        if (poll(p, 2, -1) < 0)
            continue;
        if (p[0].revents) { /* nobody writes: it is the end of the tool */
            take_off(dev);
            _exit(0);
        }
        if (p[1].revents && serve(dev, door))
            _exit(0);
    }
}

static int start(struct kernel_hold *h, struct err_ctx *ctx)
{
    int life[2], ready[2], answer = -1;
    if (pipe2(life, O_CLOEXEC) < 0)
        return err_errno(ctx, "pipe");
    if (pipe2(ready, O_CLOEXEC) < 0) {
        close(life[0]);
        close(life[1]);
        return err_errno(ctx, "pipe");
    }
    h->pid = fork();
    if (h->pid == 0) {
        close(life[1]);
        keep(&h->dev, life[0], ready[1]);
    }
    close(life[0]);
    close(ready[1]);
    ssize_t n = h->pid < 0 ? -1 : read(ready[0], &answer, sizeof answer);
    close(ready[0]);
    h->life_fd = life[1];
    h->pid_fd = n == sizeof answer && !answer ? pidfd_open(h->pid, 0) : -1;
    if (h->pid_fd >= 0)
        return 0;
    close(life[1]);
    if (h->pid > 0)
        waitpid(h->pid, NULL, 0);
    errno = answer > 0 ? answer : errno;
    return err_errno(ctx, "starting the keeper of %s's rules", h->dev.name);
}

int kernel_hold(struct kernel_hold **out, const struct kernel_device *dev, struct err_ctx *ctx)
{
    struct kernel_hold *h = calloc(1, sizeof *h);
    if (!h)
        return err_set(ctx, ERR_NOMEM, "memory");
    h->dev = *dev;
    keeper_knock(dev);
    int rc = start(h, ctx);
    if (rc)
        free(h);
    else
        *out = h;
    return rc;
}

int kernel_hold_fd(const struct kernel_hold *h)
{
    return h->pid_fd;
}

static int reap(struct kernel_hold *h)
{
    int status = 0;
    while (waitpid(h->pid, &status, 0) < 0 && errno == EINTR)
        ;
    close(h->pid_fd);
    h->pid_fd = -1;
    return status;
}

int kernel_hold_renew(struct kernel_hold *h, struct err_ctx *ctx)
{
    int status = reap(h);
    close(h->life_fd);
    h->life_fd = -1;
    if (WIFSIGNALED(status))
        return start(h, ctx);
    return err_set(ctx, ERR_INTERRUPTED, "another process took the rules off %s", h->dev.name);
}

int kernel_release(struct kernel_hold *h, struct err_ctx *ctx)
{
    int status = -1, rc = 0;
    if (!h)
        return 0;
    if (h->life_fd >= 0)
        close(h->life_fd);
    if (h->pid_fd >= 0)
        status = reap(h);
    if (status) /* it did not do its work */
        rc = kernel_take_off(&h->dev, NULL, ctx);
    free(h);
    return rc;
}
