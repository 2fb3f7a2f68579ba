/* A calibration's rows for people and for programs. */
#include <inttypes.h>
#include <string.h>

#include "netem/calibrate_impl.h"

const char *calibrate_kind_name(enum calibrate_kind kind)
{
    static const char *const names[] = {"loss", "delay", "reorder", "full", "outage",
                                        "hold", "sleep", "nat",     "whole"};
    return kind < CALIBRATE_KINDS ? names[kind] : "";
}

const char *calibrate_verdict_name(enum calibrate_verdict v)
{
    return v == CALIBRATE_PASS ? "pass" : v == CALIBRATE_FAIL ? "fail" : "unknown";
}

const struct calibrate_row *calibrate_row(const struct calibrate *c, unsigned i)
{
    return i < c->rows_n ? &c->rows[i] : NULL;
}

static const char *way_name(unsigned dir)
{
    return dir == NETEM_UP ? "up" : dir == NETEM_DOWN ? "down" : "both";
}

static enum calibrate_verdict verdict_of(const struct calibrate *c)
{
    enum calibrate_verdict all = c->no_memory ? CALIBRATE_UNKNOWN : CALIBRATE_PASS;
    for (unsigned i = 0; i < c->rows_n; i++) {
        if (c->rows[i].verdict == CALIBRATE_FAIL)
            return CALIBRATE_FAIL;
        if (c->rows[i].verdict == CALIBRATE_UNKNOWN)
            all = CALIBRATE_UNKNOWN;
    }
    return all;
}

static uint64_t packets_of(const struct calibrate *c)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < c->phases; i++)
        n += c->phase[i].way[NETEM_UP].offered + c->phase[i].way[NETEM_DOWN].offered;
    return n;
}

static void json_text(struct buf *out, const char *key, const char *value)
{
    buf_printf(out, "\"%s\":", key);
    buf_json_str(out, value, strlen(value));
}

static void show_row_json(struct buf *out, const struct calibrate_row *r)
{
    buf_char(out, '{');
    json_text(out, "phase", calibrate_kind_name(r->kind));
    buf_printf(out, ",\"direction\":\"%s\",", way_name(r->dir));
    json_text(out, "what", r->what);
    buf_char(out, ',');
    json_text(out, "unit", r->unit);
    buf_printf(out, ",\"asked\":%.6g,\"achieved\":%.6g,\"tolerance\":%.4g,\"standard_error\":%.4g,", r->asked,
               r->achieved, r->tolerance, r->error);
    if (r->p >= 0)
        buf_printf(out, "\"p\":%.4g,", r->p);
    else
        buf_str(out, "\"p\":null,");
    json_text(out, "test", r->test);
    buf_printf(out, ",\"packets\":%" PRIu64 ",\"verdict\":\"%s\",", r->packets,
               calibrate_verdict_name(r->verdict));
    json_text(out, "why", r->why);
    buf_char(out, '}');
}

static void show_json(const struct calibrate *c, struct buf *out)
{
    struct buf lacks = BUF_INIT(1u << 16);
    netem_profile_lacks(&c->profile, c->o.driver, &lacks);
    buf_char(out, '{');
    json_text(out, "profile", c->profile.name);
    buf_printf(out, ",\"driver\":\"%s\",\"verdict\":\"%s\",\"packets\":%" PRIu64 ",\"rows\":[",
               netem_driver_name(c->o.driver), calibrate_verdict_name(verdict_of(c)), packets_of(c));
    for (unsigned i = 0; i < c->rows_n; i++) {
        buf_str(out, i ? "," : "");
        show_row_json(out, &c->rows[i]);
    }
    buf_str(out, "],\"lacks\":[");
    const char *text = buf_cstr(&lacks);
    for (bool first = true; *text; first = false) {
        size_t n = strcspn(text, "\n");
        buf_str(out, first ? "" : ",");
        buf_json_str(out, text, n);
        text += n + (text[n] == '\n');
    }
    buf_str(out, "]}");
    buf_release(&lacks);
}

static void show_text(const struct calibrate *c, struct buf *out)
{
    buf_printf(out, "%s by %s: %s (%" PRIu64 " packets)\n", c->profile.name, netem_driver_name(c->o.driver),
               calibrate_verdict_name(verdict_of(c)), packets_of(c));
    buf_printf(out, "  %-7s %-4s %-32s %12s %12s %-8s %10s %9s %9s\n", "", "", "", "asked", "achieved", "",
               "+-", "p", "packets");
    for (unsigned i = 0; i < c->rows_n; i++) {
        const struct calibrate_row *r = &c->rows[i];
        char p[16] = "-";
        if (r->p >= 0)
            snprintf(p, sizeof p, "%.3g", r->p);
        buf_printf(out, "  %-7s %-4s %-32s %12.5g %12.5g %-8s %10.3g %9s %9" PRIu64 " %s%s%s\n",
                   calibrate_verdict_name(r->verdict), way_name(r->dir), r->what, r->asked, r->achieved,
                   r->unit, r->tolerance, p, r->packets, r->test, r->why[0] && r->test[0] ? "; " : "",
                   r->why);
    }
    netem_profile_lacks(&c->profile, c->o.driver, out);
}

void calibrate_show(const struct calibrate *c, struct buf *out, bool json)
{
    if (json)
        show_json(c, out);
    else
        show_text(c, out);
}
