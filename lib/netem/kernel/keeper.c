#include "netem/kernel/keeper_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "util/clock.h"

#define GUEST_MS 1000 /* how long a guest may take to say what it wants */
#define TRIES    20
#define PAUSE_NS 50000000

/* What the keeper shares with its tool: the weather that it plays, once it is told so. */
struct shared {
    bool on;
    struct kernel_plan plan;
    uint64_t seed, began_ns;
};

struct kernel_hold {
    struct kernel_device dev;
    struct shared *shared;
    int life_fd; /* a socket whose other end the keepers have: both sides see the other's end */
    pid_t pid;   /* the first keeper, our child */
};

/* A keeper and what it holds. */
struct keeper {
    const struct kernel_device *dev;
    const struct shared *shared;
    int life, tie, door; /* tie: its spare waits for the end of this */
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

/* Wait for the tool, for a guest, or for the weather to change. */
static int wait_for(struct pollfd p[2], struct kernel_weather *w)
{
    uint64_t now = clock_mono_ns(), next;
    if (!w)
        return poll(p, 2, -1);
    kernel_weather_step(w, now, &next, NULL); /* what fails now is tried at the next edge */
    now = clock_mono_ns();
    uint64_t left = next > now ? next - now : 0;
    struct timespec t = {(time_t)(left / NS_PER_S), (long)(left % NS_PER_S)};
    return ppoll(p, 2, &t, NULL);
}

static struct kernel_weather *weather_of(const struct shared *shared)
{
    struct kernel_weather *w = NULL;
    if (shared->on && kernel_weather_new(&w, &shared->plan, shared->seed, shared->began_ns, NULL))
        return NULL;
    return w;
}

/* The rules are off. The tool and the spare are told that it was on purpose. */
static void __attribute__((noreturn)) leave(const struct keeper *k)
{
    if (k->tie >= 0 && write(k->tie, "d", 1) != 1)
        _exit(1);
    _exit(send(k->life, "done", 4, MSG_NOSIGNAL) < 0);
}

/* A keeper that was killed frees its name a moment after its end is seen. */
static int open_door(struct keeper *k)
{
    struct sockaddr_un a;
    socklen_t n = name_of(&a, k->dev);
    k->door = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    for (int try = 0; k->door >= 0 && try < TRIES; try++) {
        if (bind(k->door, (struct sockaddr *)&a, n) == 0)
            return listen(k->door, 8) < 0 ? errno : 0;
        nanosleep(&(struct timespec){0, PAUSE_NS}, NULL);
    }
    return errno;
}

static void __attribute__((noreturn)) keep(struct keeper *k)
{
    struct kernel_weather *weather = weather_of(k->shared);
    for (;;) {
        struct pollfd p[2] = {{k->life, POLLIN, 0}, {k->door, POLLIN, 0}};
        char word;
        if (wait_for(p, weather) <= 0)
            continue;
        if (p[0].revents) {
            if (recv(k->life, &word, 1, 0) == 1) {
                weather = weather ? weather : weather_of(k->shared);
                continue;
            }
            take_off(k->dev); /* it is the end of the tool */
            leave(k);
        }
        if (p[1].revents && serve(k->dev, k->door))
            leave(k);
    }
}

/* A keeper has a spare, which takes its place, with a spare of its own, when it dies. `ready` is told once.
 */
static void __attribute__((noreturn)) guard(struct keeper *k, int ready)
{
    int tie[2];
    char word;
    for (;;) {
        pid_t spare = pipe2(tie, O_CLOEXEC) == 0 ? fork() : -1;
        if (spare != 0)
            break;
        close(tie[1]);
        if (ready >= 0)
            close(ready);
        ready = -1;
        if (read(tie[0], &word, 1) == 1)
            _exit(0);
        close(tie[0]);
    }
    close(tie[0]);
    k->tie = tie[1];
    int error = open_door(k);
    if (ready >= 0) {
        if (write(ready, &error, sizeof error) != sizeof error || error)
            _exit(1);
        close(ready);
    }
    keep(k);
}

static int start(struct kernel_hold *h, struct err_ctx *ctx)
{
    int life[2], ready[2], answer = -1;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, life) < 0)
        return err_errno(ctx, "socketpair");
    if (pipe2(ready, O_CLOEXEC) < 0) {
        close(life[0]);
        close(life[1]);
        return err_errno(ctx, "pipe");
    }
    h->pid = fork();
    if (h->pid == 0) {
        struct keeper k = {.dev = &h->dev, .shared = h->shared, .life = life[1], .tie = -1, .door = -1};
        close(life[0]);
        detach((int[2]){life[1], ready[1]});
        guard(&k, ready[1]);
    }
    close(life[1]);
    close(ready[1]);
    ssize_t n = h->pid < 0 ? -1 : read(ready[0], &answer, sizeof answer);
    close(ready[0]);
    h->life_fd = life[0];
    if (n == sizeof answer && !answer)
        return 0;
    close(life[0]);
    if (h->pid > 0)
        waitpid(h->pid, NULL, 0);
    errno = answer > 0 ? answer : EIO;
    return err_errno(ctx, "starting the keeper of %s's rules", h->dev.name);
}

static void forget(struct kernel_hold *h)
{
    munmap(h->shared, sizeof *h->shared);
    free(h);
}

int kernel_hold(struct kernel_hold **out, const struct kernel_device *dev, struct err_ctx *ctx)
{
    struct kernel_hold *h = calloc(1, sizeof *h);
    if (!h)
        return err_set(ctx, ERR_NOMEM, "memory");
    h->dev = *dev;
    h->shared = mmap(NULL, sizeof *h->shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (h->shared == MAP_FAILED) {
        free(h);
        return err_set(ctx, ERR_NOMEM, "memory");
    }
    keeper_knock(dev);
    int rc = start(h, ctx);
    if (rc)
        forget(h);
    else
        *out = h;
    return rc;
}

int kernel_hold_weather(struct kernel_hold *h, const struct kernel_plan *plan, uint64_t seed,
                        struct err_ctx *ctx)
{
    if (!plan->has_weather)
        return 0;
    h->shared->plan = *plan;
    h->shared->seed = seed;
    h->shared->began_ns = clock_mono_ns();
    h->shared->on = true;
    return send(h->life_fd, "w", 1, MSG_NOSIGNAL) == 1 ? 0 : err_errno(ctx, "telling the keeper");
}

int kernel_hold_fd(const struct kernel_hold *h)
{
    return h->life_fd;
}

/* Whether the keepers ended because the rules are off. */
static bool ended_well(struct kernel_hold *h)
{
    char word[4];
    ssize_t n, got = 0;
    while ((n = recv(h->life_fd, word, sizeof word, 0)) > 0 || (n < 0 && errno == EINTR))
        got = n > 0 ? n : got;
    close(h->life_fd);
    waitpid(h->pid, NULL, 0); /* the first keeper, which has ended, killed or not */
    return got == sizeof word && memcmp(word, "done", sizeof word) == 0;
}

int kernel_hold_renew(struct kernel_hold *h, struct err_ctx *ctx)
{
    if (!ended_well(h))
        return start(h, ctx);
    h->life_fd = -1;
    return err_set(ctx, ERR_INTERRUPTED, "another process took the rules off %s", h->dev.name);
}

int kernel_release(struct kernel_hold *h, struct err_ctx *ctx)
{
    int rc = 0;
    if (!h)
        return 0;
    if (h->life_fd >= 0) {
        shutdown(h->life_fd, SHUT_WR);
        if (!ended_well(h))
            rc = kernel_take_off(&h->dev, NULL, ctx);
    }
    forget(h);
    return rc;
}
