/* chat-netem apply: a profile as rules on a device of this machine, for as long as a command runs, for a
 * time, or until clear. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd/chat-netem/device.h"
#include "netem/kernel/kernel.h"
#include "util/clock.h"

struct bound {
    struct kernel_hold *hold;
    sigset_t signals, before;
    int signal_fd, command_fd;
    pid_t command;
    uint64_t end_ns; /* 0: until the command ends */
};

/* Signals become readable, so that none is lost between two calls. */
static int catch_signals(struct bound *b, struct err_ctx *err)
{
    sigemptyset(&b->signals);
    sigaddset(&b->signals, SIGINT);
    sigaddset(&b->signals, SIGTERM);
    sigaddset(&b->signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &b->signals, &b->before);
    b->signal_fd = signalfd(-1, &b->signals, SFD_CLOEXEC);
    return b->signal_fd < 0 ? err_errno(err, "signalfd") : 0;
}

static int start_command(struct bound *b, char **argv, struct err_ctx *err)
{
    pid_t parent = getpid();
    b->command = fork();
    if (b->command < 0)
        return err_errno(err, "fork");
    if (b->command == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(137);
        sigprocmask(SIG_SETMASK, &b->before, NULL);
        execvp(argv[0], argv);
        fprintf(stderr, "chat-netem: %s: %s\n", argv[0], strerror(errno));
        _exit(errno == ENOENT ? 127 : 126);
    }
    b->command_fd = pidfd_open(b->command, 0);
    return b->command_fd < 0 ? err_errno(err, "pidfd_open") : 0;
}

static int status_of(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* A keeper that was killed is replaced; one that was sent away ends us and the command. */
static int renew(struct bound *b, struct err_ctx *err)
{
    int rc = kernel_hold_renew(b->hold, err);
    if (rc && b->command > 0) {
        kill(b->command, SIGTERM);
        status_of(b->command);
    }
    return rc;
}

static int wait_left_ms(const struct bound *b)
{
    uint64_t now = clock_mono_ns();
    if (!b->end_ns)
        return -1;
    return now >= b->end_ns ? 0 : (int)((b->end_ns - now) / NS_PER_MS % 3600000 + 1);
}

/* Until the command has ended, the time is over, or we are interrupted (by *status then). */
static int wait_end(struct bound *b, int *status, struct err_ctx *err)
{
    for (;;) {
        struct pollfd f[3] = {
            {b->signal_fd, POLLIN, 0}, {kernel_hold_fd(b->hold), POLLIN, 0}, {b->command_fd, POLLIN, 0}};
        int n = poll(f, b->command > 0 ? 3 : 2, wait_left_ms(b));
        if (n < 0 && errno != EINTR)
            return err_errno(err, "poll");
        if (f[1].revents) {
            int rc = renew(b, err);
            if (rc)
                return rc;
        }
        if (f[0].revents) {
            struct signalfd_siginfo si;
            if (read(b->signal_fd, &si, sizeof si) != sizeof si)
                continue;
            if (b->command <= 0) {
                *status = 130;
                return 0;
            }
            kill(b->command, (int)si.ssi_signo); /* its end ends us */
        }
        if (b->command > 0 && f[2].revents) {
            *status = status_of(b->command);
            return 0;
        }
        if (n == 0 && b->end_ns && clock_mono_ns() >= b->end_ns) {
            if (b->command > 0) { /* --for beside a command: its time is over */
                kill(b->command, SIGTERM);
                *status = status_of(b->command);
            }
            return 0;
        }
    }
}

static void sentences(const char *mark, char (*list)[160], unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        fprintf(stderr, "chat-netem: %s%s\n", mark, list[i]);
}

/* What the kernel cannot do is said, and refused unless --partial leaves it out. */
static int consent(struct kernel_plan *plan, const struct opt_set *o, struct err_ctx *err)
{
    bool partial = opt_flag(o, "partial");
    sentences(partial ? "left out: " : "", plan->refused, plan->refused_n);
    if (opt_verbosity(o) > 0)
        sentences("note: ", plan->note, plan->notes);
    if (plan->refused_n && !partial)
        return err_set(err, ERR_UNSUPPORTED,
                       "the kernel can't do all of '%s'; --partial leaves that out, `chat-netem run` does it",
                       opt_operand(o, 1));
    if (!plan->steps)
        return err_set(err, plan->refused_n ? ERR_UNSUPPORTED : ERR_INVALID,
                       "nothing of '%s' is left to apply", opt_operand(o, 1));
    return 0;
}

/* A kernel that lacks a module makes another plan, if that is wanted. */
static int put_on(struct kernel_plan *plan, const struct netem_profile *p, const struct opt_set *o,
                  unsigned lacks, struct err_ctx *err)
{
    unsigned more;
    for (;;) {
        int rc = kernel_apply(plan, &more, err);
        if (rc != ERR_UNAVAILABLE || !more || lacks & more || !opt_flag(o, "partial"))
            return rc;
        lacks |= more;
        kernel_plan_make(plan, p, opt_operand(o, 1), &plan->dev, opt_flag(o, "swap"), lacks);
        rc = consent(plan, o, err);
        if (rc)
            return rc;
    }
}

/* Distributions by the names that the printed lines use. */
static int write_tables(const struct kernel_plan *plan, const char *dir, struct err_ctx *err)
{
    for (unsigned i = 0; i < plan->steps; i++) {
        const struct kernel_netem *n = &plan->step[i].netem;
        char path[4096];
        if (plan->step[i].op != KERNEL_NETEM || !n->table)
            continue;
        snprintf(path, sizeof path, "%s/%s.dist", dir, n->distribution);
        FILE *f = fopen(path, "we");
        if (!f)
            return err_errno(err, "%s", path);
        for (uint32_t v = 0; v < n->table_n; v++)
            fprintf(f, "%d\n", n->table[v]);
        if (fclose(f) != 0)
            return err_errno(err, "%s", path);
    }
    return 0;
}

static int dry_run(struct kernel_plan *plan, const struct opt_set *o, struct err_ctx *err)
{
    struct buf out = BUF_INIT(1u << 16);
    const char *tables = opt_string(o, "tables");
    int rc = consent(plan, o, err);
    rc = !rc && tables ? write_tables(plan, tables, err) : rc;
    if (rc)
        return rc;
    if (tables)
        printf("export TC_LIB_DIR='%s'\n", tables);
    kernel_plan_tc(&out, plan);
    fputs(buf_cstr(&out), stdout);
    buf_release(&out);
    return 0;
}

/* Somebody cleared the device while the rules were still being put on: those that came after are ours to take
 * off. */
static int sent_away(const struct bound *b, const struct kernel_device *dev, struct err_ctx *err)
{
    struct pollfd keeper = {kernel_hold_fd(b->hold), POLLIN, 0};
    if (poll(&keeper, 1, 0) <= 0)
        return 0;
    int rc = kernel_hold_renew(b->hold, err);
    if (rc)
        kernel_clear(dev, NULL, NULL);
    return rc;
}

/* With a command or a time: the rules end with us. */
static int apply_bound(struct kernel_plan *plan, const struct netem_profile *p, const struct opt_set *o,
                       int *status, struct err_ctx *err)
{
    struct bound b = {.signal_fd = -1, .command_fd = -1};
    char **argv = opt_rest(o);
    int rc = catch_signals(&b, err);
    rc = rc ? rc : kernel_hold(&b.hold, &plan->dev, err);
    rc = rc ? rc : put_on(plan, p, o, 0, err);
    rc = rc ? rc : sent_away(&b, &plan->dev, err);
    rc = rc ? rc : kernel_hold_weather(b.hold, plan, opt_seed(o), err);
    if (!rc && plan->has_weather && opt_verbosity(o) >= 0 && !opt_given(o, "seed"))
        fprintf(stderr, "chat-netem: seed %" PRIu64 " of the blackouts, handovers and stalls\n", opt_seed(o));
    if (!rc && opt_u64(o, "for"))
        b.end_ns = clock_mono_ns() + opt_u64(o, "for");
    if (!rc && argv)
        rc = start_command(&b, argv, err);
    rc = rc ? rc : wait_end(&b, status, err);
    struct err_ctx late = {0};
    int end = kernel_release(b.hold, &late);
    if (end && !rc) {
        *err = late;
        rc = end;
    }
    return rc;
}

int tool_apply(const struct opt_set *o, int *status, struct err_ctx *err)
{
    struct kernel_device dev;
    struct netem_profile p;
    struct kernel_plan *plan = calloc(1, sizeof *plan);
    bool bound = opt_rest(o) || opt_u64(o, "for");
    unsigned lacks = bound ? 0 : KERNEL_NO_WEATHER; /* nobody stays to play it */
    if (!plan)
        return err_set(err, ERR_NOMEM, "memory");
    int rc = netem_profile_parse(&p, opt_operand(o, 1), err);
    rc = rc ? rc : kernel_device_find(&dev, opt_operand(o, 0), err);
    if (rc)
        goto out;
    kernel_plan_make(plan, &p, opt_operand(o, 1), &dev, opt_flag(o, "swap"), lacks);
    if (opt_flag(o, "dry-run")) {
        rc = dry_run(plan, o, err);
        goto out;
    }
    rc = consent(plan, o, err);
    if (!rc && bound) {
        rc = apply_bound(plan, &p, o, status, err);
    } else if (!rc) {
        kernel_clear(&dev, NULL, NULL); /* a keeper of older rules ends with them */
        rc = put_on(plan, &p, o, lacks, err);
        if (!rc && opt_verbosity(o) >= 0)
            fprintf(stderr, "chat-netem: %s has the rules until `chat-netem clear %s`\n", dev.name, dev.name);
    }
out:
    free(plan);
    return rc;
}
