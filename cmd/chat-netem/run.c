/* chat-netem run: a link around a command. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "cmd/chat-netem/tool.h"
#include "trace/trace.h"

static volatile sig_atomic_t command_pid, interrupted;

/* The command gets what we get; its end ends us. */
static void pass_on(int sig)
{
    interrupted = sig;
    if (command_pid > 0)
        kill((pid_t)command_pid, sig);
}

static void watch_signals(void)
{
    struct sigaction a = {.sa_handler = pass_on};
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    sigaction(SIGHUP, &a, NULL);
}

/* Until the command has ended; a link that died first ends the command. */
static int wait_for(pid_t pid, const struct tun_world *w, struct err_ctx *err)
{
    struct pollfd fds[2] = {{pidfd_open(pid, 0), POLLIN, 0}, {tun_world_fd(w), POLLIN, 0}};
    if (fds[0].fd < 0)
        return err_errno(err, "pidfd_open");
    while (poll(fds, 2, -1) < 0 && errno == EINTR)
        ;
    close(fds[0].fd);
    if (fds[0].revents)
        return 0;
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return err_set(err, ERR_IO, "the link's process died, so the command was killed");
}

static int status_of(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void summary_json(const struct tun_stats *s, uint64_t seed)
{
    const char *comma = "";
    printf("{\"seed\":%" PRIu64 ",\"up\":{\"packets\":%" PRIu64 ",\"bytes\":%" PRIu64
           "},\"down\":{\"packets\":%" PRIu64 ",\"bytes\":%" PRIu64 "},\"dropped\":{",
           seed, s->packets_up, s->bytes_up, s->packets_down, s->bytes_down);
    for (int r = 0; r < REASON_COUNT; r++) {
        if (!s->dropped[r])
            continue;
        printf("%s\"%s\":%" PRIu64, comma, reason_text(r), s->dropped[r]);
        comma = ",";
    }
    printf("},\"duplicated\":%" PRIu64 ",\"corrupted\":%" PRIu64 ",\"reordered\":%" PRIu64
           ",\"moved\":%" PRIu64 ",\"overrun\":%" PRIu64 ",\"capture_missed\":%" PRIu64 "}\n",
           s->duplicated, s->corrupted, s->reordered, s->moved, s->overrun, s->capture_missed);
}

static void summary_text(const struct tun_stats *s)
{
    uint64_t all = s->packets_up + s->packets_down, dropped = 0;
    for (int r = 0; r < REASON_COUNT; r++)
        dropped += s->dropped[r];
    fprintf(stderr, "chat-netem: %" PRIu64 " packets up, %" PRIu64 " down; dropped %" PRIu64 " (%.2f %%)",
            s->packets_up, s->packets_down, dropped, all ? 100.0 * (double)dropped / (double)all : 0.0);
    const char *sep = ": ";
    for (int r = 0; r < REASON_COUNT; r++) {
        if (!s->dropped[r])
            continue;
        fprintf(stderr, "%s%s %" PRIu64, sep, reason_text(r), s->dropped[r]);
        sep = ", ";
    }
    const struct {
        const char *what;
        uint64_t n;
    } also[] = {{"came twice", s->duplicated}, {"damaged", s->corrupted}, {"out of order", s->reordered}};
    sep = "; ";
    for (size_t i = 0; i < sizeof also / sizeof *also; i++) {
        if (!also[i].n)
            continue;
        fprintf(stderr, "%s%s %" PRIu64, sep, also[i].what, also[i].n);
        sep = ", ";
    }
    fputc('\n', stderr);
    if (s->capture_missed)
        fprintf(stderr, "chat-netem: the capture lacks %" PRIu64 " packets: the disk was too slow, or full\n",
                s->capture_missed);
    if (s->overrun)
        fprintf(stderr,
                "chat-netem: this machine was too slow: %" PRIu64 " packets were lost before the link\n",
                s->overrun);
}

static int run_command(struct tun_world *w, const struct opt_set *o, int *status, struct err_ctx *err)
{
    const char *const *expose;
    const char *far = opt_string(o, "far");
    int rc = 0, n = opt_list(o, "expose", &expose);
    for (int i = 0; i < n && !rc; i++)
        rc = tool_expose(w, expose[i], err);
    pid_t pid;
    if (!rc && far) {
        char *argv[] = {"sh", "-c", (char *)far, NULL};
        rc = tun_world_spawn(w, false, argv, 2, 2, false, &pid, err);
    }
    if (rc)
        return rc;
    watch_signals();
    /* results on stdout, talk on stderr: with --json the summary is the result */
    rc = tun_world_spawn(w, true, opt_rest(o), opt_json(o) ? 2 : -1, -1, true, &pid, err);
    if (rc)
        return rc;
    command_pid = pid;
    if (interrupted)
        kill(pid, interrupted);
    rc = wait_for(pid, w, err);
    if (!rc)
        *status = status_of(pid);
    return rc;
}

int tool_run(const struct opt_set *o, int *status, struct err_ctx *err)
{
    struct tun_group all = {.name = "all", .first = NETEM_NEAR_NET + 1, .count = 0xFFFE};
    struct tun_config c = {.groups = &all,
                           .groups_n = 1,
                           .seed = opt_seed(o),
                           .trace_dir = opt_string(o, "trace"),
                           .capture_dir = opt_string(o, "capture")};
    struct tun_world *w;
    if (!opt_rest(o) || !opt_rest(o)[0])
        return err_set(err, ERR_USAGE, "run: the command is missing: chat-netem run PROFILE -- CMD...");
    int rc = netem_profile_parse(&all.profile, opt_operand(o, 0), err);
    rc = rc ? rc : tun_world_start(&w, &c, err);
    if (rc)
        return rc;
    if (opt_verbosity(o) > 0 || (opt_verbosity(o) == 0 && !opt_given(o, "seed")))
        fprintf(stderr, "chat-netem: seed %" PRIu64 "\n", c.seed);
    rc = run_command(w, o, status, err);
    struct tun_stats s;
    tun_world_stats(w, "*", &s);
    int whole = tun_world_stop(w);
    if (rc)
        return rc;
    if (!*status && (whole || s.capture_missed))
        *status = EX_IOERR;
    if (opt_json(o))
        summary_json(&s, c.seed);
    else if (opt_verbosity(o) >= 0)
        summary_text(&s);
    return 0;
}
