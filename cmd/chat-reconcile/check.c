/* check: what differs. */
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "cmd/chat-reconcile/tool.h"
#include "report/report.h"
#include "util/clock.h"

volatile int tool_interrupted;

static void on_signal(int sig)
{
    (void)sig;
    tool_interrupted = 1;
}

void tool_watch_signals(void)
{
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
}

/* ---- progress ---- */

struct told {
    uint64_t began, last, rows, phase_rows, phase_began;
    enum reconcile_phase phase;
    bool on;
};
static struct told told;
static const char *const phase_names[] = {"sorting", "comparing", "collecting", "judging"};

/* How long the second pass takes is known: it reads what the first one read. */
static void progress(void *arg, enum reconcile_phase phase, uint64_t rows)
{
    uint64_t now = clock_mono_ns();
    (void)arg;
    if (phase != told.phase) {
        if (told.phase == RECONCILE_COMPARING)
            told.phase_rows = rows;
        told.phase = phase;
        told.phase_began = now;
    }
    told.rows = rows;
    if (!told.on || now - told.last < 200 * NS_PER_MS)
        return;
    told.last = now;
    double s = (double)(now - told.phase_began) / 1e9;
    uint64_t done = phase == RECONCILE_COLLECTING ? rows - told.phase_rows : rows;
    double rate = s > 0 ? (double)done / s : 0;
    fprintf(stderr, "\r\033[K%s: %" PRIu64 " rows, %.0f/s", phase_names[phase], done, rate);
    if (phase == RECONCILE_COLLECTING && told.phase_rows && rate > 0) {
        double share = (double)done / (double)told.phase_rows;
        int bar = (int)(20 * (share > 1 ? 1 : share));
        fprintf(stderr, " [%.*s%.*s] %.0f s left", bar, "####################", 20 - bar,
                "....................", share < 1 ? (1 - share) * (double)told.phase_rows / rate : 0);
    }
    fflush(stderr);
}

/* ---- running ---- */

int tool_check_run(struct tool_checked *out, const struct opt_set *o, reconcile_found *found, void *arg,
                   struct err_ctx *err)
{
    struct reconcile_source *sources[RECONCILE_SOURCES_MAX];
    struct reconcile_config c = {.mem = opt_u64(o, "mem"),
                                 .tmp = opt_string(o, "tmp"),
                                 .seed = opt_seed(o),
                                 .found = found,
                                 .progress = progress,
                                 .interrupted = &tool_interrupted,
                                 .arg = arg};
    int n = 0, rc = 0, want = opt_operands(o);
    if (want > RECONCILE_SOURCES_MAX)
        return err_set(err, ERR_USAGE, "at most %d sources", RECONCILE_SOURCES_MAX);
    tool_watch_signals();
    told = (struct told){.began = clock_mono_ns(), .on = opt_verbosity(o) >= 0 && isatty(STDERR_FILENO)};
    told.phase_began = told.began;
    while (n < want && !rc) {
        rc = tool_source(&sources[n], opt_operand(o, n), o, opt_flag(o, "sorted"), err);
        n += !rc;
    }
    rc = rc ? rc : reconcile_check(sources, n, &c, &out->result, err);
    if (rc == ERR_INTERRUPTED)
        err_set(err, rc, "interrupted after %" PRIu64 " rows, while %s: nothing is known yet", told.rows,
                phase_names[told.phase]);
    out->sources = n;
    while (n-- > 0)
        sources[n]->close(sources[n]);
    if (told.on)
        fputs("\r\033[K", stderr);
    return rc;
}

/* ---- what it says ---- */

struct shown {
    const struct opt_set *o;
    uint64_t left, more;
    struct buf lines; /* for people, and for the page */
};

static void say_row(struct buf *b, const struct reconcile_row *r)
{
    char id[ID_TEXT + 1];
    buf_printf(b, "%s of chat %" PRIu64, id_str(&r->id, id), r->chat);
    if (r->has & RECONCILE_HAS_SEQ)
        buf_printf(b, " seq %" PRIu64, r->seq);
    if (r->has & RECONCILE_HAS_FROM)
        buf_printf(b, " from %" PRIu64, r->from);
}

static int show(void *arg, const struct reconcile_finding *f, struct err_ctx *err)
{
    struct shown *s = arg;
    (void)err;
    if (!s->left) {
        s->more++;
        return 0;
    }
    s->left--;
    buf_printf(&s->lines, "%-14s %s: ", reconcile_kind_name(f->kind), opt_operand(s->o, f->source));
    say_row(&s->lines, f->want ? f->want : f->have);
    if (f->want && f->have && (f->want->chat != f->have->chat || f->want->seq != f->have->seq))
        buf_printf(&s->lines, ", there at chat %" PRIu64 " seq %" PRIu64, f->have->chat, f->have->seq);
    if (f->witness >= 0)
        buf_printf(&s->lines, " (%s says so)", opt_operand(s->o, f->witness));
    if (f->accepted && f->kind == RECONCILE_LOST)
        buf_str(&s->lines, " (the server had promised it)");
    buf_char(&s->lines, '\n');
    return 0;
}

static void counts_json(struct buf *b, const uint64_t *count, uint64_t accepted_lost)
{
    for (int k = 0; k < RECONCILE_KIND_COUNT; k++)
        buf_printf(b, "\"%s\":%" PRIu64 ",", reconcile_kind_name(k), count[k]);
    buf_printf(b, "\"accepted_lost\":%" PRIu64, accepted_lost);
}

static void print_json(const struct tool_checked *c, const struct opt_set *o, double seconds)
{
    const struct reconcile_result *r = &c->result;
    struct buf b = BUF_INIT(1u << 20);
    buf_printf(&b, "{\"rows\":%" PRIu64 ",", r->rows);
    counts_json(&b, r->total, r->accepted_lost);
    buf_printf(&b,
               ",\"skipped\":%" PRIu64 ",\"segments\":%" PRIu64 ",\"segments_differing\":%" PRIu64
               ",\"collected\":%" PRIu64 ",\"seconds\":%.3f,\"ok\":%s,\"sources\":[",
               r->skipped, r->segments, r->segments_differing, r->collected, seconds,
               r->differences || r->skipped ? "false" : "true");
    for (int i = 0; i < c->sources; i++) {
        buf_printf(&b, "%s{\"source\":", i ? "," : "");
        buf_json_str(&b, opt_operand(o, i), strlen(opt_operand(o, i)));
        buf_printf(&b, ",\"rows\":%" PRIu64 ",\"skipped\":%" PRIu64 ",", r->source[i].rows,
                   r->source[i].skipped);
        counts_json(&b, r->source[i].count, r->source[i].accepted_lost);
        buf_char(&b, '}');
    }
    buf_str(&b, "]}");
    puts(buf_cstr(&b));
    buf_release(&b);
}

static void print_text(const struct tool_checked *c, const struct opt_set *o, struct shown *s, double seconds)
{
    const struct reconcile_result *r = &c->result;
    fputs(buf_cstr(&s->lines), stdout);
    if (s->more)
        printf("... and %" PRIu64 " more (-n)\n", s->more);
    for (int i = 0; i < c->sources; i++) {
        const struct reconcile_counts *n = &r->source[i];
        printf("%s%s: %" PRIu64 " rows", opt_operand(o, i), i ? "" : " (the truth)", n->rows);
        for (int k = 0; k < RECONCILE_KIND_COUNT; k++)
            if (n->count[k])
                printf(", %" PRIu64 " %s", n->count[k], reconcile_kind_name(k));
        if (n->accepted_lost)
            printf(", of the lost %" PRIu64 " had been promised", n->accepted_lost);
        if (n->skipped)
            printf(", %" PRIu64 " skipped", n->skipped);
        putchar('\n');
    }
    printf("%s; %" PRIu64 " rows in %.2f s, %" PRIu64 " of %" PRIu64 " segments differ\n",
           r->differences ? "they differ"
           : r->skipped   ? "no difference, but not everything could be read"
                          : "no difference",
           r->rows, seconds, r->segments_differing, r->segments);
}

static int write_page(const struct tool_checked *c, const struct opt_set *o, struct shown *s,
                      struct err_ctx *err)
{
    struct buf b = BUF_INIT(REPORT_HTML_MAX);
    buf_str(
        &b,
        "<!doctype html><meta charset=utf-8><meta name=viewport content=\"width=device-width\">"
        "<title>chat-reconcile</title><style>:root{color-scheme:light dark}body{font:15px/1.5 system-ui;"
        "max-width:1080px;margin:0 auto;padding:16px}table{border-collapse:collapse}td,th{padding:4px 10px;"
        "text-align:right;border-top:1px solid #8884}td:first-child,th:first-child{text-align:left}"
        "pre{overflow-x:auto}</style><h1>chat-reconcile</h1><table><tr><th>source<th>rows");
    for (int k = 0; k < RECONCILE_KIND_COUNT; k++)
        buf_printf(&b, "<th title=\"%s\">%s", reconcile_kind_text(k), reconcile_kind_name(k));
    for (int i = 0; i < c->sources; i++) {
        buf_str(&b, "<tr><td>");
        buf_html(&b, opt_operand(o, i));
        buf_printf(&b, "<td>%" PRIu64, c->result.source[i].rows);
        for (int k = 0; k < RECONCILE_KIND_COUNT; k++)
            buf_printf(&b, "<td>%" PRIu64, c->result.source[i].count[k]);
    }
    buf_printf(&b, "</table><p>%s, %" PRIu64 " rows skipped.<pre>",
               c->result.differences ? "They differ" : "No difference", c->result.skipped);
    buf_html(&b, buf_cstr(&s->lines));
    buf_str(&b, "</pre>\n");
    int rc = report_write(opt_string(o, "report"), &b, err);
    buf_release(&b);
    return rc;
}

int tool_check(const struct opt_set *o, int *status, struct err_ctx *err)
{
    struct tool_checked c = {0};
    struct shown s = {.o = o, .left = opt_u64(o, "number"), .lines = BUF_INIT(64u << 20)};
    uint64_t began = clock_mono_ns();
    int rc = tool_check_run(&c, o, show, &s, err);
    double seconds = (double)(clock_mono_ns() - began) / 1e9;
    if (!rc && opt_json(o))
        print_json(&c, o, seconds);
    else if (!rc)
        print_text(&c, o, &s, seconds);
    if (!rc && opt_string(o, "report"))
        rc = write_page(&c, o, &s, err);
    buf_release(&s.lines);
    *status = c.result.differences ? 1 : c.result.skipped ? 2 : 0;
    return rc;
}
