#include "report/html_impl.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

static const char style[] =
    ":root{color-scheme:light "
    "dark;--bg:#f6f7f9;--card:#fff;--ink:#1b2430;--dim:#64707d;--line:#e3e7ec;--good:#1a8f5a;"
    "--bad:#c8362f;--unknown:#b57a00;--c0:#2f6fde;--c1:#e0782a;--c2:#7a4fd0;--c3:#1796a6;--c4:#b8417f;--c5:#"
    "6b8e23}"
    "@media(prefers-color-scheme:dark){:root{--bg:#12161c;--card:#1b212a;--ink:#e6eaf0;--dim:#93a0ae;--line:#"
    "2c3540;"
    "--good:#3fc586;--bad:#ff6b61;--unknown:#f0b840;--c0:#6ea0ff;--c1:#ffa35c;--c2:#b394ff;--c3:#4fd0e0;--c4:"
    "#f07fb8;"
    "--c5:#a9d04f}}"
    "*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 "
    "system-ui,sans-serif}"
    "main{max-width:1080px;margin:0 auto;padding:20px 16px 48px}h1{font-size:24px;margin:8px 0 4px}"
    "h2{font-size:17px;margin:0 0 10px}h3{font-size:14px;margin:14px 0 6px}p{margin:4px 0 10px}"
    ".dim,.note{color:var(--dim)}.card{background:var(--card);border:1px solid "
    "var(--line);border-radius:10px;"
    "padding:16px;margin:14px 0;min-width:0}.pair{display:grid;gap:14px;"
    "grid-template-columns:repeat(auto-fit,minmax(min(100%,340px),1fr))}.pair>.card{margin:0}"
    ".scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}"
    "th,td{padding:6px 10px 6px 0;text-align:right;border-top:1px solid var(--line);white-space:nowrap}"
    "th{color:var(--dim);font-weight:500;border-top:0}td:first-child,th:first-child,td.l,th.l{text-align:"
    "left}"
    "td.wrap{white-space:normal;min-width:9em}td.wrap:empty{min-width:0}code{font:13px "
    "ui-monospace,monospace}"
    ".badge{display:inline-block;padding:1px "
    "9px;border-radius:99px;font-size:13px;font-weight:600;color:#fff;"
    "background:var(--unknown)}.badge.pass{background:var(--good)}.badge.fail{background:var(--bad)}"
    "@media(prefers-color-scheme:dark){.badge{color:#12161c}}"
    ".big{font-size:26px;font-weight:650;font-variant-numeric:tabular-nums}.arrow{color:var(--dim);padding:0 "
    "8px}"
    "svg{display:block;width:100%;max-width:620px;height:auto}svg text{font:13px "
    "system-ui,sans-serif;fill:var(--ink)}"
    "svg .note,svg .value{font-size:12px;fill:var(--dim)}svg .head{font-weight:650}"
    "svg rect.rail{fill:var(--line)}svg rect.good{fill:var(--good)}svg rect.bad{fill:var(--bad)}"
    "svg rect.dim{fill:var(--dim)}svg .grid{stroke:var(--line)}.curve{fill:none;stroke-width:2.2}"
    ".dash{stroke-dasharray:6 "
    "4}.c0{stroke:var(--c0)}.c1{stroke:var(--c1)}.c2{stroke:var(--c2)}.c3{stroke:var(--c3)}"
    ".c4{stroke:var(--c4)}.c5{stroke:var(--c5)}svg rect.c1{fill:var(--c1);stroke:none}"
    "ol.life{list-style:none;margin:8px 0 0;padding:0 0 0 6px}ol.life li{border-left:2px solid var(--line);"
    "padding:2px 0 8px 14px;position:relative}ol.life "
    "li::before{content:\"\";position:absolute;left:-6px;top:8px;"
    "width:10px;height:10px;border-radius:50%;background:var(--dim)}ol.life "
    "li.bad::before{background:var(--bad)}"
    "ol.life li.bad{color:var(--bad)}ol.life b{font-weight:600}ol.life "
    ".t{display:inline-block;min-width:5.5em;"
    "color:var(--dim);font-variant-numeric:tabular-nums}";

static void cell(struct buf *out, const char *cls, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void cell(struct buf *out, const char *cls, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    buf_printf(out, "<td%s%s%s>", *cls ? " class=\"" : "", cls, *cls ? "\"" : "");
    buf_html(out, text);
    buf_str(out, "</td>");
}

static void element(struct buf *out, const char *tag, const char *text)
{
    buf_printf(out, "<%s>", tag);
    buf_html(out, text);
    buf_printf(out, "</%s>\n", tag);
}

static void badge(struct buf *out, const char *verdict)
{
    buf_str(out, "<span class=\"badge ");
    buf_html(out, verdict);
    buf_str(out, "\">");
    buf_html(out, verdict);
    buf_str(out, "</span>");
}

/* "mobile-loss / before" */
static void title(struct buf *out, const struct report_run *r)
{
    buf_html(out, r->scenario);
    if (*r->variant) {
        buf_str(out, " / ");
        buf_html(out, r->variant);
    }
}

static void about(struct buf *out, const struct report_run *r)
{
    buf_str(out, "<div class=\"card\"><h2>");
    title(out, r);
    buf_char(out, ' ');
    badge(out, r->verdict);
    buf_str(out, "</h2>\n");
    if (*r->variant_why)
        element(out, "p", r->variant_why);
    if (*r->note)
        element(out, "p", r->note);
    buf_printf(out, "<p class=\"dim\">seed %" PRIu64 ", %.0f s, ", r->seed, r->seconds);
    buf_html(out, r->world);
    buf_str(out, " world, build ");
    buf_html(out, r->commit);
    if (r->server_known)
        buf_printf(out,
                   "; server: %.0f MB, %.1f s CPU, %u start%s, %" PRIu64 " commits of %" PRIu64 " messages",
                   (double)r->server.rss_bytes_max / 1e6, r->server.cpu_s, r->server.starts,
                   r->server.starts == 1 ? "" : "s", r->server.commits, r->server.messages);
    buf_printf(out, "; %" PRIu64 " trace records, %" PRIu64 " not recorded</p>\n</div>\n", r->trace_records,
               r->trace_dropped);
}

static double ratio(const struct report_population *p)
{
    return p->expected ? 100.0 * (double)p->delivered / (double)p->expected : 0;
}

static void headline(struct buf *out, const struct report_run *a, const struct report_run *b)
{
    buf_str(out, "<div class=\"pair\">\n");
    for (uint32_t i = 0; i < b->load_n; i++) {
        const struct report_population *q = &b->load[i], *p = NULL;
        for (uint32_t k = 0; k < a->load_n; k++) {
            if (strcmp(a->load[k].name, q->name) == 0)
                p = &a->load[k];
        }
        if (!p)
            continue;
        buf_str(out, "<div class=\"card\"><h2>");
        buf_html(out, q->name);
        buf_str(out, " <span class=\"dim\">");
        buf_html(out, q->net);
        buf_printf(
            out, "</span></h2>\n<div class=\"big\">%.3f %%<span class=\"arrow\">&rarr;</span>%.3f %%</div>\n",
            ratio(p), ratio(q));
        buf_printf(out,
                   "<p class=\"dim\">of the messages arrived. Sent again by hand: %" PRIu64 " &rarr; %" PRIu64
                   "; the same message seen twice: %" PRIu64 " &rarr; %" PRIu64 "</p></div>\n",
                   p->resends, q->resends, p->duplicates_seen + p->duplicates,
                   q->duplicates_seen + q->duplicates);
    }
    buf_str(out, "</div>\n");
}

static void expectations(struct buf *out, const struct report_run *r)
{
    buf_str(out, "<div class=\"card\"><h2>Expectations</h2>\n<div "
                 "class=\"scroll\"><table><tr><th>expected</th><th>measured</th>"
                 "<th class=\"l\">verdict</th></tr>\n");
    for (uint32_t i = 0; i < r->expect_n; i++) {
        const struct report_expect *e = &r->expect[i];
        buf_str(out, "<tr><td class=\"wrap\"><code>");
        buf_html(out, e->text);
        buf_str(out, "</code></td>");
        cell(out, "", "%s", e->value);
        buf_str(out, "<td class=\"l wrap\">");
        badge(out, e->verdict);
        if (*e->why && strcmp(e->verdict, "unknown") == 0) {
            buf_char(out, ' ');
            buf_html(out, e->why);
        }
        buf_str(out, "</td></tr>\n");
    }
    buf_str(out, "</table></div></div>\n");
}

static void load_table(struct buf *out, const struct report_run *r)
{
    static const char *const heads[] = {
        "network", "sent",       "accepted",  "pairs",      "arrived",
        "share",   "duplicates", "reordered", "sent again", "gave up",
        "p50 ms",  "p95 ms",     "p99 ms",    "max ms",     "generator lag p99 ms"};
    buf_str(out, "<div class=\"card\"><h2>People and their messages</h2>\n<div "
                 "class=\"scroll\"><table><tr><th>population</th>");
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        buf_printf(out, "<th>%s</th>", heads[i]);
    buf_str(out, "</tr>\n");
    for (uint32_t i = 0; i < r->load_n; i++) {
        const struct report_population *p = &r->load[i];
        const uint64_t counts[] = {p->sent, p->accepted, p->expected, p->delivered};
        const uint64_t more[] = {p->duplicates, p->reordered, p->resends, p->gave_up};
        const double times[] = {p->latency.p50, p->latency.p95, p->latency.p99, p->latency.max};
        buf_str(out, "<tr>");
        cell(out, "", "%s", p->name);
        cell(out, "", "%s", p->net);
        for (int k = 0; k < 4; k++)
            cell(out, "", "%" PRIu64, counts[k]);
        cell(out, "", "%.4f %%", ratio(p));
        for (int k = 0; k < 4; k++)
            cell(out, "", "%" PRIu64, more[k]);
        for (int k = 0; k < 4; k++)
            cell(out, "", "%.0f", isfinite(times[k]) ? times[k] : 0);
        cell(out, "", "%.1f", p->send_lag_p99_ms);
        buf_str(out, "</tr>\n");
    }
    buf_str(out, "</table></div>\n");
    for (uint32_t i = 0; i < r->load_n; i++) {
        if (*r->load[i].doubt)
            element(out, "p", r->load[i].doubt);
    }
    buf_str(out, "</div>\n");
}

static void life(struct buf *out, const struct report_life *l)
{
    buf_str(out, "<div class=\"card\"><h3>");
    buf_html(out, l->net);
    buf_str(out, ": ");
    buf_html(out, l->verdict);
    buf_str(out, "</h3><p class=\"dim\"><code>");
    buf_html(out, l->id);
    buf_str(out, "</code></p>\n");
    if (*l->why)
        element(out, "p", l->why);
    buf_str(out, "<ol class=\"life\">\n");
    for (uint32_t i = 0; i < l->steps_n; i++) {
        const struct report_step *s = &l->steps[i];
        if (l->cut && i == l->steps_n / 2)
            buf_printf(out, "<li class=\"note\">%u steps left out</li>\n", l->cut);
        buf_printf(out, "<li%s><span class=\"t\">%.1f ms</span> <b>", s->bad ? " class=\"bad\"" : "", s->ms);
        buf_html(out, s->who);
        buf_str(out, "</b> ");
        buf_html(out, s->what);
        buf_str(out, "</li>\n");
    }
    buf_str(out, "</ol></div>\n");
}

static void lives(struct buf *out, const struct report_run *r)
{
    if (!r->lives_n)
        return;
    bool arrived = strcmp(r->lives[0].verdict, "delivered") == 0;
    buf_str(out, arrived ? "<h2>The messages that took longest, " : "<h2>The life of lost messages, ");
    title(out, r);
    buf_str(out, "</h2>\n<div class=\"pair\">\n");
    for (uint32_t i = 0; i < r->lives_n; i++)
        life(out, &r->lives[i]);
    buf_str(out, "</div>\n");
}

static void faults(struct buf *out, const struct report_run *r)
{
    buf_str(out, "<div class=\"card\"><h2>Faults injected</h2>\n");
    if (!r->faults_n)
        element(out, "p", "none beyond the links and the people's habits");
    else
        buf_str(
            out,
            "<div class=\"scroll\"><table><tr><th>name</th><th>after</th><th class=\"l\">what</th></tr>\n");
    for (uint32_t i = 0; i < r->faults_n; i++) {
        buf_str(out, "<tr>");
        cell(out, "", "%s", r->faults[i].name);
        cell(out, "", "%.1f s", r->faults[i].at_s);
        cell(out, "l wrap", "%s", r->faults[i].text);
        buf_str(out, "</tr>\n");
    }
    buf_str(out, r->faults_n ? "</table></div></div>\n" : "</div>\n");
}

static void audit(struct buf *out, const struct report_run *r)
{
    if (!r->audit_known)
        return;
    buf_printf(out,
               "<div class=\"card\"><h2>Invariants</h2>\n<p>%" PRIu64
               " violation%s in the phones' own journals and the store.</p>\n",
               r->audit_violations, r->audit_violations == 1 ? "" : "s");
    if (r->audit_violations) {
        buf_str(out, "<p>");
        for (uint32_t i = 0, n = 0; i < r->audit_n; i++) {
            if (!r->audit[i].n)
                continue;
            buf_printf(out, "%s%" PRIu64 " ", n++ ? ", " : "", r->audit[i].n);
            buf_html(out, r->audit[i].name);
        }
        buf_str(out, "</p>\n<details><summary>examples</summary><ul>\n");
        for (uint32_t i = 0; i < r->findings_n; i++)
            element(out, "li", r->findings[i]);
        buf_str(out, "</ul></details>\n");
    }
    buf_str(out, "</div>\n");
}

typedef void section(struct buf *out, const struct report_run *r);

/* The same section of each run, side by side where there is room. */
static void each(struct buf *out, const struct report_run *const *runs, uint32_t n, section *one)
{
    for (uint32_t i = 0; i < n; i++) {
        if (n > 1) {
            buf_str(out, i == 0 ? "<div class=\"pair\">\n<div>\n<h3>" : "<div>\n<h3>");
            title(out, runs[i]);
            buf_str(out, "</h3>\n");
        }
        one(out, runs[i]);
        if (n > 1)
            buf_str(out, i + 1 == n ? "</div>\n</div>\n" : "</div>\n");
    }
}

static void charts(struct buf *out, const struct report_run *const *runs, uint32_t n)
{
    double scale = svg_loss_scale(runs, n);
    buf_printf(out,
               "<div class=\"card\"><h2>Where each message went</h2>\n<p class=\"dim\">One verdict for each "
               "message and recipient. "
               "Bars of losses are enlarged: a full red bar is %.3g %%.</p>\n<div class=\"pair\">\n",
               scale * 100);
    for (uint32_t i = 0; i < n; i++) {
        buf_str(out, "<div><h3>");
        title(out, runs[i]);
        buf_str(out, "</h3>\n");
        svg_funnel(out, runs[i], scale);
        buf_str(out, "</div>\n");
    }
    buf_str(out, "</div></div>\n<div class=\"card\"><h2>How soon they arrived</h2>\n<p class=\"dim\">Share "
                 "of the expected pairs that had "
                 "arrived, from the moment the person pressed send. A curve that stays below 100 % has lost "
                 "the rest.</p>\n"
                 "<div class=\"pair\"><div>\n");
    svg_curves(out, runs, n, 0);
    buf_str(out, "</div><div>\n");
    svg_curves(out, runs, n, 0.9);
    buf_str(out, "</div></div></div>\n<div class=\"card\"><h2>Disconnects per connected hour</h2>\n<div "
                 "class=\"pair\">\n");
    for (uint32_t i = 0; i < n; i++) {
        buf_str(out, "<div><h3>");
        title(out, runs[i]);
        buf_str(out, "</h3>\n");
        svg_disconnects(out, runs[i]);
        buf_str(out, "</div>\n");
    }
    buf_str(out, "</div></div>\n");
}

void report_html(struct buf *out, const struct report_run *const *runs, uint32_t n)
{
    buf_str(out, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
                 "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>");
    buf_html(out, runs[0]->scenario);
    buf_str(out, n > 1 ? ": before and after" : "");
    buf_str(out, "</title>\n<style>");
    buf_str(out, style);
    buf_str(out, "</style></head>\n<body><main>\n<h1>");
    buf_html(out, runs[0]->scenario);
    for (uint32_t i = 0; n > 1 && i < n; i++) {
        buf_str(out, i ? " against " : ": ");
        buf_html(out, *runs[i]->variant ? runs[i]->variant : "as it stands");
    }
    buf_str(out, "</h1>\n");
    if (*runs[0]->why)
        element(out, "p", runs[0]->why);
    if (n > 1)
        headline(out, runs[0], runs[1]);
    for (uint32_t i = 0; i < n; i++)
        about(out, runs[i]);
    each(out, runs, n, expectations);
    charts(out, runs, n);
    for (uint32_t i = 0; i < n; i++)
        lives(out, runs[i]);
    each(out, runs, n, load_table);
    each(out, runs, n, faults);
    each(out, runs, n, audit);
    buf_str(out, "</main></body></html>\n");
}
