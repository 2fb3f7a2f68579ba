#include "netem/tun/tun.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "netem/tun/netns_impl.h"
#include "netem/tun/shuttle_impl.h"
#include "netem/tun/sweep_impl.h"
#include "util/log.h"

#define ANSWER_S 10 /* the shuttle answers orders at once; a stopped machine may take longer */

extern char **environ;

/* A far side and who uses it: within one process. */
struct far_side {
    uint32_t users, devices;
};

struct tun_world {
    struct netns near, far;
    struct far_side *side;
    struct tun_stats *stats; /* shared with the shuttle: groups_n + 1 */
    struct tun_group *groups;
    uint32_t groups_n;
    pid_t shuttle;
    int shuttle_fd, control_fd;
    bool failed; /* to start */
};

static size_t stats_bytes(const struct tun_world *w)
{
    return (w->groups_n + 1) * sizeof *w->stats;
}

static int check_groups(const struct tun_config *c, struct err_ctx *ctx)
{
    if (!c->groups_n || c->groups_n > TUN_GROUPS_MAX)
        return err_set(ctx, ERR_LIMIT, "%u groups of addresses; 1..%d are possible", c->groups_n,
                       TUN_GROUPS_MAX);
    for (uint32_t i = 0; i < c->groups_n; i++) {
        const struct tun_group *g = &c->groups[i];
        if ((g->first & 0xFFFF0000u) != NETEM_NEAR_NET || g->count > NETEM_NEAR_NET + 0x10000 - g->first)
            return err_set(ctx, ERR_RANGE, "group %s: %u addresses do not fit into 198.18.0.0/16", g->name,
                           g->count);
    }
    return 0;
}

static int await_answer(struct tun_world *w, struct err_ctx *ctx)
{
    struct shuttle_answer a;
    ssize_t n = recv(w->control_fd, &a, sizeof a, 0);
    if (n == sizeof a)
        return a.rc ? err_set(ctx, a.rc, "link: %s", a.text) : 0;
    return err_set(ctx, n < 0 ? ERR_TIMEOUT : ERR_IO, "the link's process %s",
                   n < 0 ? "does not answer" : "died");
}

/* The owner's sockets and pipes must not live on here: whoever waits for their end would wait for ours. */
static void close_others(const int *keep, int n)
{
    int first = 3, next;
    do {
        next = INT_MAX; /* the lowest that is kept, from `first` on */
        for (int i = 0; i < n; i++)
            if (keep[i] >= first && keep[i] < next)
                next = keep[i];
        if (next > first)
            close_range((unsigned)first, next == INT_MAX ? ~0u : (unsigned)next - 1, 0);
        first = next + (next != INT_MAX);
    } while (next != INT_MAX);
}

static void become_shuttle(struct tun_world *w, const struct tun_config *c, int control_fd, pid_t owner)
{
    struct shuttle_config sc = {.groups = w->groups,
                                .groups_n = w->groups_n,
                                .seed = c->seed,
                                .trace_dir = c->trace_dir,
                                .capture_dir = c->capture_dir,
                                .fates = c->fates,
                                .calm = c->calm,
                                .stats = w->stats,
                                .tun_fd = {w->near.tun_fd, w->far.tun_fd},
                                .ns_fd = {w->near.ns_fd, w->far.ns_fd},
                                .control_fd = control_fd};
    int keep[] = {w->near.tun_fd, w->far.tun_fd, w->near.ns_fd, w->far.ns_fd, control_fd};
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    close_others(keep, sizeof keep / sizeof *keep);
    setpgid(0, 0); /* a terminal's signals go to the command, not to its network */
    if (getppid() == owner)
        shuttle_run(&sc);
    _exit(0);
}

static int start_shuttle(struct tun_world *w, const struct tun_config *c, struct err_ctx *ctx)
{
    int pair[2];
    struct timeval limit = {ANSWER_S, 0};
    pid_t owner = getpid();
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return err_errno(ctx, "socketpair");
    w->control_fd = pair[0];
    setsockopt(w->control_fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    fflush(NULL);
    w->shuttle = fork();
    if (w->shuttle == 0)
        become_shuttle(w, c, pair[1], owner);
    int rc = w->shuttle < 0 ? err_errno(ctx, "fork") : 0;
    close(pair[1]);
    if (!rc && (w->shuttle_fd = pidfd_open(w->shuttle, 0)) < 0)
        rc = err_errno(ctx, "pidfd_open");
    return rc ? rc : await_answer(w, ctx);
}

/* The far side: of its own, or another world's, which gets one more device. */
static int make_far(struct tun_world *w, const struct tun_config *c, struct err_ctx *ctx)
{
    char device[NETNS_DEVICE_SIZE];
    struct netns_plan plan = {.local = NETEM_FAR_ADDR,
                              .phones = c->block ? c->block : NETEM_NEAR_NET,
                              .phones_prefix = c->block ? c->block_prefix : 16,
                              .join_fd = c->beside ? c->beside->far.ns_fd : -1,
                              .device = device};
    w->side = c->beside ? c->beside->side : calloc(1, sizeof *w->side);
    if (!w->side)
        return err_set(ctx, ERR_NOMEM, "no memory for a link");
    w->side->users++;
    snprintf(device, sizeof device, "tun%u", w->side->devices++);
    return netns_make(&w->far, &plan, ctx);
}

static int start(struct tun_world *w, const struct tun_config *c, struct err_ctx *ctx)
{
    struct netns_plan near = {.near = true, .local = c->groups[0].first, .join_fd = -1, .device = "tun0"};
    w->groups = malloc(c->groups_n * sizeof *w->groups);
    w->stats = mmap(NULL, stats_bytes(w), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (w->stats == MAP_FAILED)
        w->stats = NULL;
    if (!w->groups || !w->stats)
        return err_set(ctx, ERR_NOMEM, "no memory for a link");
    memcpy(w->groups, c->groups, c->groups_n * sizeof *w->groups);
    int rc = netns_make(&w->near, &near, ctx);
    rc = rc ? rc : make_far(w, c, ctx);
    return rc ? rc : start_shuttle(w, c, ctx);
}

int tun_world_start(struct tun_world **out, const struct tun_config *c, struct err_ctx *ctx)
{
    int rc = check_groups(c, ctx);
    if (rc)
        return rc;
    struct tun_world *w = calloc(1, sizeof *w);
    if (!w)
        return err_set(ctx, ERR_NOMEM, "no memory for a link");
    w->near.ns_fd = w->far.ns_fd = w->near.tun_fd = w->far.tun_fd = w->control_fd = w->shuttle_fd = -1;
    w->shuttle = -1;
    w->groups_n = c->groups_n;
    rc = start(w, c, ctx);
    if (rc) {
        w->failed = true;
        tun_world_stop(w);
        return rc;
    }
    /* the devices live as long as the shuttle holds them */
    close(w->near.tun_fd);
    close(w->far.tun_fd);
    w->near.tun_fd = w->far.tun_fd = -1;
    *out = w;
    return 0;
}

/* The environment with the two addresses in it; one allocation, NULL: no memory. */
static char **environment(const struct tun_world *w, bool near)
{
    size_t n = 0;
    while (environ[n])
        n++;
    char **env = calloc(1, (n + 3) * sizeof *env + 128);
    if (!env)
        return NULL;
    char *text = (char *)(env + n + 3);
    uint32_t addr[2] = {near ? w->near.local : w->far.local, near ? w->far.local : w->near.local};
    static const char *const names[] = {"CHAT_NETEM_LOCAL", "CHAT_NETEM_PEER"};
    size_t at = 0;
    for (size_t i = 0; i < n; i++)
        if (strncmp(environ[i], "CHAT_NETEM_LOCAL=", 17) && strncmp(environ[i], "CHAT_NETEM_PEER=", 16))
            env[at++] = environ[i];
    for (int i = 0; i < 2; i++) {
        env[at++] = text;
        text += 1 + sprintf(text, "%s=%u.%u.%u.%u", names[i], addr[i] >> 24, addr[i] >> 16 & 255,
                            addr[i] >> 8 & 255, addr[i] & 255);
    }
    return env;
}

struct launch {
    int ns_fd, in_fd, out_fd, err_fd, told_fd;
    char *const *argv;
    char **env;
    pid_t parent;
};

static void launch(const struct launch *l)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != l->parent)
        _exit(1);
    bool ready = setns(l->ns_fd, CLONE_NEWNET) == 0 && (l->in_fd < 0 || dup2(l->in_fd, 0) >= 0) &&
                 (l->out_fd < 0 || dup2(l->out_fd, 1) >= 0) && (l->err_fd < 0 || dup2(l->err_fd, 2) >= 0);
    if (ready) {
        environ = l->env;
        execvp(l->argv[0], l->argv);
    }
    int e = errno;
    if (write(l->told_fd, &e, sizeof e) < 0)
        _exit(126);
    _exit(127);
}

int tun_world_spawn(struct tun_world *w, bool near, char *const argv[], int out_fd, int err_fd,
                    bool inherit_stdin, pid_t *pid, struct err_ctx *ctx)
{
    int told[2], e = 0;
    if (pipe2(told, O_CLOEXEC))
        return err_errno(ctx, "pipe");
    struct launch l = {.ns_fd = near ? w->near.ns_fd : w->far.ns_fd,
                       .in_fd = inherit_stdin ? -1 : open("/dev/null", O_RDONLY | O_CLOEXEC),
                       .out_fd = out_fd,
                       .err_fd = err_fd,
                       .told_fd = told[1],
                       .argv = argv,
                       .env = environment(w, near),
                       .parent = getpid()};
    int rc = l.env ? 0 : err_set(ctx, ERR_NOMEM, "no memory to start %s", argv[0]);
    if (!rc) {
        fflush(NULL);
        *pid = fork();
        if (*pid == 0)
            launch(&l);
        rc = *pid < 0 ? err_errno(ctx, "fork") : 0;
    }
    close(told[1]);
    if (!rc && read(told[0], &e, sizeof e) == sizeof e) {
        waitpid(*pid, NULL, 0);
        errno = e;
        rc = err_errno(ctx, "%s", argv[0]);
    }
    close(told[0]);
    if (l.in_fd >= 0)
        close(l.in_fd);
    free(l.env);
    return rc;
}

static int find_group(const struct tun_world *w, const char *name, uint32_t *index)
{
    *index = UINT32_MAX;
    if (!strcmp(name, "*"))
        return 0;
    for (uint32_t i = 0; i < w->groups_n; i++)
        if (!strcmp(w->groups[i].name, name)) {
            *index = i;
            return 0;
        }
    return ERR_NOTFOUND;
}

static int order(struct tun_world *w, const struct shuttle_order *o, struct err_ctx *ctx)
{
    if (send(w->control_fd, o, sizeof *o, MSG_NOSIGNAL) < 0)
        return err_set(ctx, ERR_IO, "the link's process died");
    return await_answer(w, ctx);
}

int tun_world_begin(struct tun_world *w, struct err_ctx *ctx)
{
    struct shuttle_order o = {.op = SHUTTLE_BEGIN};
    return order(w, &o, ctx);
}

static int order_group(struct tun_world *w, const char *group, struct shuttle_order *o, struct err_ctx *ctx)
{
    if (find_group(w, group, &o->group))
        return err_set(ctx, ERR_NOTFOUND, "the link has no group '%s'", group);
    return order(w, o, ctx);
}

int tun_world_blackout(struct tun_world *w, const char *group, uint64_t ns, struct err_ctx *ctx)
{
    return tun_world_blackout_of(w, group, 0, ns, ctx);
}

int tun_world_blackout_of(struct tun_world *w, const char *group, uint32_t phone, uint64_t ns,
                          struct err_ctx *ctx)
{
    struct shuttle_order o = {.op = SHUTTLE_BLACKOUT, .ns = ns, .phone = phone};
    return order_group(w, group, &o, ctx);
}

int tun_world_attach(struct tun_world *w, const char *group, uint32_t phone, bool attached,
                     struct err_ctx *ctx)
{
    struct shuttle_order o = {.op = attached ? SHUTTLE_ATTACH : SHUTTLE_DETACH, .phone = phone};
    return order_group(w, group, &o, ctx);
}

int tun_world_profile(struct tun_world *w, const char *group, const char *description, struct err_ctx *ctx)
{
    struct shuttle_order o = {.op = SHUTTLE_PROFILE};
    if (!getcwd(o.cwd, sizeof o.cwd))
        return err_errno(ctx, "the working directory");
    if (snprintf(o.text, sizeof o.text, "%s", description) >= (int)sizeof o.text)
        return err_set(ctx, ERR_RANGE, "a network's description is longer than %zu bytes", sizeof o.text - 1);
    return order_group(w, group, &o, ctx);
}

static void add_stats(struct tun_stats *sum, const struct tun_stats *s)
{
    /* all of it is counters */
    const uint64_t *from = (const uint64_t *)s;
    uint64_t *to = (uint64_t *)sum;
    for (size_t i = 0; i < sizeof *s / sizeof *from; i++)
        to[i] += __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}

int tun_world_stats(struct tun_world *w, const char *group, struct tun_stats *out)
{
    uint32_t index;
    *out = (struct tun_stats){0};
    if (find_group(w, group, &index))
        return ERR_NOTFOUND;
    for (uint32_t i = 0; i <= w->groups_n; i++)
        if (index == UINT32_MAX || index == i)
            add_stats(out, &w->stats[i]);
    if (index == UINT32_MAX)
        out->overrun = netns_overrun(&w->near) + netns_overrun(&w->far);
    return 0;
}

int tun_world_look(struct tun_world *w, const char *group, struct tun_stats *out, struct err_ctx *ctx)
{
    struct shuttle_order o = {.op = SHUTTLE_LOOK};
    int rc = order_group(w, group, &o, ctx);
    return rc ? rc : tun_world_stats(w, group, out);
}

int tun_world_fd(const struct tun_world *w)
{
    return w->shuttle_fd;
}

pid_t tun_world_pid(const struct tun_world *w)
{
    return w->shuttle;
}

int tun_world_namespace(const struct tun_world *w, bool near, uint32_t *local)
{
    const struct netns *n = near ? &w->near : &w->far;
    if (local)
        *local = n->local;
    return n->ns_fd;
}

int tun_world_socket(struct tun_world *w, bool near, int domain, int type, int *fd, struct err_ctx *ctx)
{
    return netns_socket(near ? &w->near : &w->far, domain, type, fd, ctx);
}

static int stop_shuttle(struct tun_world *w)
{
    struct shuttle_order o = {.op = SHUTTLE_STOP};
    struct err_ctx err = {0};
    /* one that could not start has said why, and hears no orders */
    int rc = w->failed ? 0 : order(w, &o, &err);
    if (rc)
        log_warn("%s", err.text);
    close(w->control_fd); /* end of file: stop, if the order was not heard */
    for (int i = 0; i < 500 && waitpid(w->shuttle, NULL, WNOHANG) == 0; i++) {
        if (i == 499) {
            kill(w->shuttle, SIGKILL);
            waitpid(w->shuttle, NULL, 0);
            break;
        }
        nanosleep(&(struct timespec){0, 10000000}, NULL);
    }
    return rc;
}

/* What still runs on the far side ends with the last world that leads there. */
static void leave_namespaces(struct tun_world *w)
{
    int ns[2] = {w->near.ns_fd, w->far.ns_fd};
    bool last = w->side && --w->side->users == 0;
    if (ns[0] >= 0)
        sweep_namespaces(ns, last && ns[1] >= 0 ? 2 : 1, 0);
    if (last)
        free(w->side);
    if (w->near.ns_fd >= 0)
        netns_release(&w->near);
    if (w->far.ns_fd >= 0)
        netns_release(&w->far);
}

int tun_world_stop(struct tun_world *w)
{
    if (!w)
        return 0;
    int rc = w->shuttle > 0 ? stop_shuttle(w) : 0;
    leave_namespaces(w);
    if (w->shuttle_fd >= 0)
        close(w->shuttle_fd);
    if (w->stats)
        munmap(w->stats, stats_bytes(w));
    free(w->groups);
    free(w);
    return rc;
}
