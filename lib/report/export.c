#include "report/export_impl.h"

#include <stdlib.h>
#include <string.h>

#include "trace/rows.h"
#include "util/text.h"

#define PIECE_MAX (64u << 20) /* of one row: a message with a million records */

enum export_format export_format_parse(const char *text)
{
    static const char *const names[] = {
#define FORMAT(name) [EXPORT_##name] = #name,
#include "report/formats.def"
#undef FORMAT
    };
    int f = 0;
    while (f < EXPORT_FORMATS && strcmp(names[f], text))
        f++;
    return (enum export_format)f;
}

void export_fail(struct exporting *x, int rc, const char *what)
{
    if (!x->rc)
        x->rc = err_set(x->ctx, rc, "%s: %s", what, err_text(rc));
}

static bool flush(struct exporting *x)
{
    if (!x->rc && x->out.failed)
        export_fail(x, ERR_NOMEM, "export");
    if (!x->rc && x->out.len)
        x->rc = x->sink->write(x->sink->arg, x->out.data, x->out.len, x->ctx);
    buf_reset(&x->out);
    return !x->rc;
}

bool export_spill(struct exporting *x)
{
    return x->out.len >= EXPORT_PIECE || x->out.failed ? flush(x) : !x->rc;
}

void export_skip(struct exporting *x, const char *why)
{
    x->counts->skipped++;
    x->counts->why = why;
}

uint64_t export_wall_ns(const struct exporting *x, uint32_t record)
{
    return x->r->event[record].ts_ns + (uint64_t)x->offset_ns[x->r->from[record]];
}

static bool read_clocks(struct exporting *x)
{
    const struct trace_source *s = x->r->source;
    x->offset_ns = calloc(x->r->sources + 1, sizeof *x->offset_ns);
    for (uint32_t i = 0, k; x->offset_ns && i < x->r->sources; i++) {
        for (k = 0; k < i && strcmp(s[k].host, s[i].host);)
            k++;
        x->offset_ns[i] = s[k].utc_offset_ns;
    }
    return x->offset_ns;
}

void export_json_text(struct buf *b, const char *s)
{
    char clean[512];
    text_clean(clean, sizeof clean, s);
    buf_json_str(b, clean, strlen(clean));
}

void export_rows(struct exporting *x, bool csv)
{
    const struct trace_run *r = x->r;
    if (csv) {
        trace_csv_header(&x->out);
        buf_char(&x->out, '\n');
    }
    for (uint32_t i = 0; i < r->sources; i++) {
        (csv ? trace_csv_source : trace_row_source)(&x->out, &r->source[i], (int)i);
        buf_char(&x->out, '\n');
    }
    for (uint32_t i = 0; i < r->events && export_spill(x); i++) {
        (csv ? trace_csv_record : trace_row_record)(&x->out, &r->event[i], r->from[i]);
        buf_char(&x->out, '\n');
        x->counts->rows++;
    }
}

static void export_report(struct exporting *x, bool junit)
{
    struct report_run *run = calloc(1, sizeof *run);
    const struct report_run *const runs[] = {run};
    if (!run) {
        export_fail(x, ERR_NOMEM, "export");
        return;
    }
    char clean[sizeof run->scenario];
    memcpy(run->scenario, text_clean(clean, sizeof clean, x->name), sizeof clean);
    snprintf(run->world, sizeof run->world, "trace");
    x->rc = report_from_trace(run, x->r, x->ctx);
    if (!x->rc && junit)
        report_junit(&x->out, runs, 1);
    else if (!x->rc)
        report_html(&x->out, runs, 1);
    x->counts->rows = run->expect_n;
    free(run);
}

int export_trace(enum export_format format, const struct trace_run *r, const char *name,
                 const struct export_sink *sink, struct export_counts *counts, struct err_ctx *ctx)
{
    struct exporting x = {
        .r = r, .name = name, .sink = sink, .counts = counts, .ctx = ctx, .out = BUF_INIT(PIECE_MAX)};
    *counts = (struct export_counts){.records = r->events};
    if (!read_clocks(&x)) {
        export_fail(&x, ERR_NOMEM, "export");
        format = EXPORT_FORMATS;
    }
    switch (format) {
    case EXPORT_perfetto:
        export_perfetto(&x);
        break;
    case EXPORT_otlp:
        export_otlp(&x);
        break;
    case EXPORT_pcapng:
        export_pcapng(&x);
        break;
    case EXPORT_jsonl:
    case EXPORT_csv:
        export_rows(&x, format == EXPORT_csv);
        break;
    case EXPORT_junit:
    case EXPORT_html:
        export_report(&x, format == EXPORT_junit);
        break;
    case EXPORT_FORMATS:
        export_fail(&x, ERR_INVALID, "export");
    }
    flush(&x);
    buf_release(&x.out);
    free(x.offset_ns);
    return x.rc;
}
