/* The shuttle's life: set up, wait and carry, end. */
#include "netem/tun/shuttle_impl.h"

#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "netem/tun/sweep_impl.h"
#include "util/clock.h"

static int start_capture(struct shuttle *s, struct err_ctx *ctx)
{
    char about[512];
    int n = snprintf(about, sizeof about, "chat-netem link, seed %" PRIu64, s->c->seed);
    for (uint32_t g = 0; g < s->c->groups_n && n < (int)sizeof about; g++)
        n += snprintf(about + n, sizeof about - (size_t)n, "%s%s: %s", g ? ", " : "; ", s->c->groups[g].name,
                      s->c->groups[g].profile.name);
    return capture_open(&s->capture, s->c->capture_dir, about, &stats_of(s, NO_GROUP)->capture_missed, ctx);
}

static int start(struct shuttle *s, struct err_ctx *ctx)
{
    s->radios = map_zeroed(RADIOS * sizeof *s->radios);
    s->group_of = map_zeroed(RADIOS * sizeof *s->group_of);
    if (!s->radios || !s->group_of || pool_init(&s->pool) || heap_init(&s->due, HELD_MAX) ||
        heap_init(&s->heads, RADIOS * 4) || heap_init(&s->states, RADIOS * 2) ||
        link_nat_init(&s->nat, NAT_FLOWS))
        return err_set(ctx, ERR_NOMEM, "out of memory");
    memset(s->group_of, 0xFF, RADIOS * sizeof *s->group_of);
    s->watches = s->c->trace_dir;
    for (uint32_t g = 0; g < s->c->groups_n; g++) {
        const struct tun_group *of = &s->c->groups[g];
        s->groups[g].profile = &of->profile;
        s->watches = s->watches || radio_tells(&of->profile);
        for (uint32_t i = 0; i < of->count; i++)
            s->group_of[(of->first + i) & 0xFFFF] = (uint16_t)g;
    }
    int rc = s->c->capture_dir ? start_capture(s, ctx) : 0;
    if (rc || !s->c->trace_dir)
        return rc;
    struct trace_config tc = {.dir = s->c->trace_dir,
                              .name = "link",
                              .node = TRACE_NODE_LINK,
                              .seed = s->c->seed,
                              .ring_events = 1 << 18};
    rc = trace_open(&s->trace, &tc, ctx);
    return rc ? rc : trace_writer_new(&s->writer, s->trace, ctx);
}

static void loop(struct shuttle *s)
{
    struct pollfd fds[] = {
        {s->c->tun_fd[0], POLLIN, 0}, {s->c->tun_fd[1], POLLIN, 0}, {s->c->control_fd, POLLIN, 0}};
    pid_t owner = getppid();
    sigset_t none;
    sigemptyset(&none);
    while (!s->stop) {
        uint64_t now_ns = clock_mono_ns(), next_ns = heap_first_ns(&s->due);
        if (heap_first_ns(&s->states) < next_ns)
            next_ns = heap_first_ns(&s->states);
        if (heap_first_ns(&s->heads) < next_ns)
            next_ns = heap_first_ns(&s->heads);
        uint64_t left = next_ns > now_ns ? next_ns - now_ns : 0;
        struct timespec wait = {(time_t)(left / NS_PER_S), (long)(left % NS_PER_S)};
        int n = ppoll(fds, 3, next_ns == UINT64_MAX ? NULL : &wait, &none);
        if (getppid() != owner && n < 0)
            s->stop = s->orphaned = true;
        now_ns = clock_mono_ns();
        waiting_run(s, now_ns);
        while (heap_first_ns(&s->due) <= now_ns)
            carry_release(s, now_ns, REASON_NONE);
        radio_run_states(s, now_ns);
        if (n <= 0)
            continue;
        if (fds[2].revents)
            orders_take(s);
        if (fds[0].revents)
            carry_batch(s, NETEM_UP);
        if (fds[1].revents)
            carry_batch(s, NETEM_DOWN);
    }
    for (uint32_t i = 0; i < RADIOS; i++)
        if (s->radios[i].live)
            waiting_flush(s, &s->radios[i], clock_mono_ns(), REASON_RUN_END);
    while (s->due.count)
        carry_release(s, clock_mono_ns(), REASON_RUN_END);
}

/* A busy machine must not make the links slow: this thread, which never works for long, goes first. The
 * threads that write are as others, and children, if ever, too. Where that is not allowed it is as it is. */
static void go_first(void)
{
    struct sched_param p = {.sched_priority = 1};
    sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &p);
    prctl(PR_SET_TIMERSLACK, 1000ul); /* 1 us instead of 50: packets arrive on time */
}

static void nothing(int sig)
{
    (void)sig;
}

/* The terminal's signals are the owner's to interpret. SIGTERM is also how the kernel says that the owner
 * died; it is let through only while waiting. */
static void set_signals(void)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN}, wake = {.sa_handler = nothing};
    static const int ignored[] = {SIGINT, SIGHUP, SIGQUIT, SIGPIPE, SIGTSTP, SIGUSR1, SIGUSR2};
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
        sigaction(ignored[i], &ignore, NULL);
    sigset_t term;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_SETMASK, &term, NULL);
    sigaction(SIGTERM, &wake, NULL);
}

void shuttle_run(const struct shuttle_config *c)
{
    static struct shuttle s; /* the group table alone is 8 kB; one per process */
    struct err_ctx ctx = {0};
    s.c = c;
    s.calm = c->calm;
    set_signals();
    prctl(PR_SET_NAME, "netem-shuttle");
    int rc = start(&s, &ctx);
    go_first();
    orders_answer(&s, rc, ctx.text);
    if (!rc)
        loop(&s);
    int trace_rc = trace_close(s.trace), capture_rc = capture_close(s.capture);
    if (s.orphaned)
        sweep_namespaces(c->ns_fd, 2, 0);
    else if (!rc)
        orders_answer(&s, trace_rc ? trace_rc : capture_rc,
                      trace_rc ? "the link's trace could not be written whole"
                               : "the link's capture could not be written whole");
}
