/* top: what happens now. The folders (or what was captured) are read anew for each view, rings included, so a
 * view is a whole funnel of what was put down so far; rates are the difference to the view before. Never more
 * than half the time is spent on reading: on a large trace views come more rarely than asked for. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cmd/chat-trace/tool.h"
#include "cmd/chat-trace/top_capture.h"
#include "util/clock.h"

struct view {
    struct trace_summary s;
    uint64_t at_ns, problems;
    bool there; /* something was read */
};

static volatile sig_atomic_t interrupted;
static void on_signal(int sig)
{
    (void)sig;
    interrupted = 1;
}

static int look(struct view *v, const struct opt_set *o, const struct top_capture *c, struct err_ctx *err)
{
    const char *dirs[256];
    struct trace_run r = {0};
    int n = 0;
    for (int i = 0; i < opt_operands(o) && n < 256; i++)
        dirs[n++] = opt_operand(o, i);
    if (c && n < 256)
        dirs[n++] = top_capture_path(c);
    memset(v, 0, sizeof *v);
    v->at_ns = clock_mono_ns();
    int rc = c ? tool_load(&r, opt_string(o, "dialect"), dirs, n, TOOL_JOIN | TOOL_QUIETLY, err)
               : trace_run_load(&r, dirs, n, err);
    rc = rc || c ? rc : trace_join(&r, err);
    rc = rc ? rc : trace_summarize(&v->s, &r, err);
    v->there = !rc;
    v->problems = r.problems;
    trace_run_release(&r);
    return rc == ERR_NOTFOUND ? 0 : rc; /* nobody has begun to write */
}

static double rate(uint64_t now, uint64_t before, double seconds)
{
    return seconds > 0 && now > before ? (double)(now - before) / seconds : 0;
}

static uint64_t pairs_of(const struct trace_summary *s, int net)
{
    uint64_t n = 0;
    for (int v = 0; v < VERDICT_COUNT; v++)
        n += s->verdict[net][v];
    return n;
}

static void print_text(const struct view *a, const struct view *b, double seconds)
{
    printf("%" PRIu64 " records (%.0f/s), %" PRIu64 " messages (%.1f/s), %" PRIu64 " pairs, %" PRIu64
           " lost; dropped %" PRIu64 ", problems %" PRIu64 "\n\n",
           b->s.records, rate(b->s.records, a->s.records, seconds), b->s.messages,
           rate(b->s.messages, a->s.messages, seconds), b->s.pairs, b->s.losses, b->s.dropped, b->problems);
    printf("%-26s", "verdict");
    for (int net = 0; net < NET_COUNT; net++)
        if (pairs_of(&b->s, net))
            printf(" %12s %10s", net_name(net), "per second");
    for (int v = 0; v < VERDICT_COUNT; v++) {
        if (!b->s.total[v] && !a->s.total[v])
            continue;
        printf("\n%-26s", verdict_text(v));
        for (int net = 0; net < NET_COUNT; net++)
            if (pairs_of(&b->s, net))
                printf(" %12" PRIu64 " %10.1f", b->s.verdict[net][v],
                       rate(b->s.verdict[net][v], a->s.verdict[net][v], seconds));
    }
    printf("\n\n%-26s %12s %10s\n", "hop", "records", "per second");
    for (int h = 1; h < HOP_COUNT; h++)
        if (b->s.hop[h])
            printf("%-26s %12" PRIu64 " %10.1f\n", hop_text(h), b->s.hop[h],
                   rate(b->s.hop[h], a->s.hop[h], seconds));
}

static void print_json(const struct view *a, const struct view *b, double seconds)
{
    struct buf out = BUF_INIT(1u << 20);
    const char *comma = "";
    buf_printf(&out,
               "{\"seconds\":%.3f,\"records\":%" PRIu64 ",\"messages\":%" PRIu64 ",\"losses\":%" PRIu64
               ",\"dropped\":%" PRIu64 ",\"problems\":%" PRIu64 ",\"verdicts\":",
               seconds, b->s.records, b->s.messages, b->s.losses, b->s.dropped, b->problems);
    trace_summary_verdicts_json(&b->s, &out);
    buf_str(&out, ",\"per_second\":{");
    for (int h = 1; h < HOP_COUNT; h++) {
        if (!b->s.hop[h])
            continue;
        buf_printf(&out, "%s\"%s\":%.3f", comma, hop_name(h), rate(b->s.hop[h], a->s.hop[h], seconds));
        comma = ",";
    }
    buf_str(&out, "}}");
    puts(buf_cstr(&out));
    buf_release(&out);
}

static void print_view(const struct view *a, const struct view *b, const struct opt_set *o)
{
    double seconds = a->there ? (double)(b->at_ns - a->at_ns) / 1e9 : 0;
    bool screen = !opt_json(o) && isatty(1);
    if (screen)
        fputs("\033[H\033[J", stdout);
    if (!b->there)
        puts(opt_json(o) ? "{\"records\":0}" : "no trace yet");
    else
        (opt_json(o) ? print_json : print_text)(a, b, seconds);
    if (!screen && !opt_json(o))
        putchar('\n');
    fflush(stdout);
}

/* The next view's time; what comes on the interface until then is kept. */
static int wait_until(uint64_t ns, struct top_capture *c, struct err_ctx *err)
{
    bool anew = false;
    uint64_t now = clock_mono_ns();
    int rc = c ? top_capture_until(c, ns, &interrupted, &anew, err) : 0;
    if (anew)
        fputs("chat-trace: the capture was too large; this view begins anew\n", stderr);
    if (!c && !interrupted && ns > now) {
        struct timespec t = {(time_t)((ns - now) / NS_PER_S), (long)((ns - now) % NS_PER_S)};
        nanosleep(&t, NULL); /* a signal ends it */
    }
    return rc;
}

static int views(const struct opt_set *o, struct top_capture *c, int *status, struct err_ctx *err)
{
    uint64_t interval = opt_u64(o, "interval"), limit = opt_u64(o, "for"), began = clock_mono_ns();
    struct view *before = calloc(1, sizeof *before), *now = calloc(1, sizeof *now);
    int rc = before && now ? 0 : err_set(err, ERR_NOMEM, "out of memory");
    if (!rc && c)
        rc = wait_until(began + interval, c, err);
    while (!rc && !interrupted) {
        uint64_t start = clock_mono_ns(), took;
        rc = look(now, o, c, err);
        if (rc)
            break;
        print_view(before, now, o);
        *status = now->there ? tool_status(&now->s) : 2;
        struct view *x = before;
        before = now;
        now = x;
        trace_summary_release(&now->s);
        took = clock_mono_ns() - start;
        if (ferror(stdout) || (limit && start + interval > began + limit))
            break;
        rc = wait_until(start + (took * 2 > interval ? took * 2 : interval), c, err);
    }
    if (before)
        trace_summary_release(&before->s);
    if (now)
        trace_summary_release(&now->s);
    free(before);
    free(now);
    return rc;
}

int tool_top(const struct opt_set *o, int *status, struct err_ctx *err)
{
    struct sigaction sa = {.sa_handler = on_signal};
    struct top_capture *c = NULL;
    const char *iface = opt_string(o, "interface");
    int rc = 0;
    if (opt_u64(o, "interval") < 10 * NS_PER_MS)
        rc = err_set(err, ERR_USAGE, "top: --interval is at least 10ms");
    else if (!iface && !opt_operands(o))
        rc = err_set(err, ERR_USAGE, "top: name the folder of a trace, or an --interface");
    else if (!iface && opt_string(o, "filter"))
        rc = err_set(err, ERR_USAGE, "top: --filter is for an --interface");
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    if (!rc && iface)
        rc = top_capture_open(&c, iface, opt_string(o, "filter"), err);
    rc = rc ? rc : views(o, c, status, err);
    top_capture_close(c);
    return rc;
}
