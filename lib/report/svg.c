#include "report/html_impl.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define WIDTH    460
#define LABEL    124 /* where bars begin */
#define BAR      200 /* a full bar; the value stands behind it */
#define ROW      24
#define TIMES_LO 1.0 /* ms: exponents of ten of the time axis */
#define TIMES_HI 5.0

const char *verdict_class(const char *verdict)
{
    if (strcmp(verdict, "pass") == 0 || strcmp(verdict, "delivered") == 0)
        return "good";
    if (strcmp(verdict, "fail") == 0 || strncmp(verdict, "lost_", 5) == 0)
        return "bad";
    return "dim";
}

static bool is_loss(const char *verdict)
{
    return strncmp(verdict, "lost_", 5) == 0 || strcmp(verdict, "not_observed") == 0;
}

static double share_of(const struct report_net *n, uint32_t v)
{
    uint64_t total = report_net_total(n);
    return total ? (double)n->verdict[v].n / (double)total : 0;
}

double svg_loss_scale(const struct report_run *const *runs, uint32_t n)
{
    double most = 0.001;
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t k = 0; k < runs[i]->nets_n; k++) {
            const struct report_net *net = &runs[i]->nets[k];
            for (uint32_t v = 0; v < net->verdicts_n; v++) {
                if (is_loss(net->verdict[v].name))
                    most = fmax(most, share_of(net, v));
            }
        }
    }
    return most;
}

static void begin(struct buf *out, int height, const char *label)
{
    buf_printf(out, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", WIDTH, height);
    buf_html(out, label);
    buf_str(out, "\">\n");
}

static void label(struct buf *out, double x, double y, const char *cls, const char *anchor, const char *text)
{
    buf_printf(out, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\" text-anchor=\"%s\">", x, y, cls, anchor);
    buf_html(out, text);
    buf_str(out, "</text>\n");
}

static void bar(struct buf *out, int y, const char *name, const char *cls, double part, const char *value)
{
    double w = BAR * fmin(1, fmax(0, part));
    label(out, LABEL - 8, y + 15, "name", "end", name);
    buf_printf(out, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"14\" rx=\"3\" class=\"rail\"></rect>\n",
               LABEL, y + 4, BAR);
    if (w > 0)
        buf_printf(out,
                   "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"14\" rx=\"3\" class=\"%s\"></rect>\n",
                   LABEL, y + 4, fmax(w, 1.5), cls);
    label(out, LABEL + BAR + 8, y + 15, "value", "start", value);
}

static void readable(char *out, size_t size, const char *verdict)
{
    snprintf(out, size, "%s", verdict);
    for (char *p = out; *p; p++) {
        if (*p == '_')
            *p = ' ';
    }
}

void svg_funnel(struct buf *out, const struct report_run *r, double loss_scale)
{
    int rows = 0, y = 0;
    char value[64], name[64];
    for (uint32_t i = 0; i < r->nets_n; i++) {
        rows++;
        for (uint32_t v = 0; v < r->nets[i].verdicts_n; v++)
            rows += r->nets[i].verdict[v].n != 0;
    }
    begin(out, rows * ROW + 8, "verdicts by network");
    for (uint32_t i = 0; i < r->nets_n; i++) {
        const struct report_net *n = &r->nets[i];
        snprintf(value, sizeof value, "%" PRIu64 " pairs", report_net_total(n));
        label(out, 0, y + 16, "head", "start", n->name);
        label(out, WIDTH, y + 16, "note", "end", value);
        y += ROW;
        for (uint32_t v = 0; v < n->verdicts_n; v++) {
            if (!n->verdict[v].n)
                continue;
            double share = share_of(n, v);
            bool loss = is_loss(n->verdict[v].name);
            readable(name, sizeof name, n->verdict[v].name);
            snprintf(value, sizeof value, "%.*f %% (%" PRIu64 ")", share >= 0.1 ? 2 : 3, share * 100,
                     n->verdict[v].n);
            bar(out, y, name, verdict_class(n->verdict[v].name), loss ? share / loss_scale : share, value);
            y += ROW;
        }
    }
    buf_str(out, "</svg>\n");
}

/* Plot area of the curves. */
#define LEFT   44
#define RIGHT  (WIDTH - 8)
#define TOP    10
#define BOTTOM 230

static double x_of(double ms)
{
    double e = log10(fmax(ms, 1));
    return LEFT + (RIGHT - LEFT) * fmin(1, fmax(0, (e - TIMES_LO) / (TIMES_HI - TIMES_LO)));
}

static double y_of(double share, double low)
{
    return BOTTOM - (BOTTOM - TOP) * fmin(1, fmax(0, (share - low) / (1 - low)));
}

static void axes(struct buf *out, double low)
{
    static const char *const marks[] = {"10 ms", "100 ms", "1 s", "10 s", "100 s"};
    char text[32];
    for (int i = 0; i < 5; i++) {
        double x = x_of(pow(10, TIMES_LO + i));
        buf_printf(out, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" class=\"grid\"></line>\n", x, TOP,
                   x, BOTTOM);
        label(out, x, BOTTOM + 18, "note", i == 4 ? "end" : i ? "middle" : "start", marks[i]);
    }
    for (int i = 0; i <= 4; i++) {
        double share = low + (1 - low) * i / 4, y = y_of(share, low);
        buf_printf(out, "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" class=\"grid\"></line>\n", LEFT, y,
                   RIGHT, y);
        snprintf(text, sizeof text, "%.4g%%", share * 100);
        label(out, LEFT - 5, y + 4, "note", "end", text);
    }
}

static void curve(struct buf *out, const struct report_curve *c, double low, const char *cls)
{
    double y = y_of(0, low), last = 0;
    buf_printf(out, "<path class=\"curve %s\" d=\"M%.1f %.1f", cls, x_of(1), y);
    for (uint32_t i = 0; i < c->points_n; i++) {
        double x = x_of(c->points[i].ms);
        y = y_of(c->points[i].share, low);
        buf_printf(out, " L%.1f %.1f", x, y);
        last = c->points[i].share;
    }
    buf_printf(out, " L%d %.1f\"></path>\n", RIGHT, y_of(last, low));
}

/* A network keeps its colour in every run. */
static unsigned color_of(const struct report_run *const *runs, uint32_t n, const char *net)
{
    unsigned color = 0;
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t k = 0; k < runs[i]->curves_n; k++, color++) {
            if (strcmp(runs[i]->curves[k].name, net) == 0)
                return color % 6;
        }
    }
    return 0;
}

void svg_curves(struct buf *out, const struct report_run *const *runs, uint32_t n, double low)
{
    uint32_t rows = 0;
    for (uint32_t i = 0; i < n; i++)
        rows += runs[i]->curves_n;
    begin(out, BOTTOM + 30 + (int)rows * 20, "share of expected pairs that had arrived, over time");
    axes(out, low);
    int y = BOTTOM + 42;
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t k = 0; k < runs[i]->curves_n; k++) {
            const struct report_curve *c = &runs[i]->curves[k];
            char cls[32], text[160];
            snprintf(cls, sizeof cls, "c%u%s", color_of(runs, n, c->name), n > 1 && i == 0 ? " dash" : "");
            curve(out, c, low, cls);
            buf_printf(out, "<line x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\" class=\"curve %s\"></line>\n",
                       LEFT, y - 4, LEFT + 30, y - 4, cls);
            snprintf(text, sizeof text, "%s%s%s: %.3f %% arrived", n > 1 ? runs[i]->variant : "",
                     n > 1 && *runs[i]->variant ? ", " : "", c->name,
                     c->points_n ? c->points[c->points_n - 1].share * 100 : 0);
            label(out, LEFT + 38, y, "name", "start", text);
            y += 20;
        }
    }
    buf_str(out, "</svg>\n");
}

static double per_hour(const struct report_net *n)
{
    return n->connected_hours > 0 ? (double)n->disconnects / n->connected_hours : 0;
}

void svg_disconnects(struct buf *out, const struct report_run *r)
{
    double most = 0, wifi = 0;
    for (uint32_t i = 0; i < r->nets_n; i++) {
        most = fmax(most, per_hour(&r->nets[i]));
        if (strcmp(r->nets[i].name, "wifi") == 0)
            wifi = per_hour(&r->nets[i]);
    }
    begin(out, (int)r->nets_n * ROW + 8, "disconnects per connected hour by network");
    for (uint32_t i = 0; i < r->nets_n; i++) {
        char value[64];
        double d = per_hour(&r->nets[i]);
        if (wifi > 0 && strcmp(r->nets[i].name, "wifi") != 0)
            snprintf(value, sizeof value, "%.1f/h (%.1f x wifi)", d, d / wifi);
        else
            snprintf(value, sizeof value, "%.1f/h", d);
        bar(out, (int)i * ROW, r->nets[i].name, "c1", most > 0 ? d / most : 0, value);
    }
    buf_str(out, "</svg>\n");
}
