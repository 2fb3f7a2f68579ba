/* A joined trace in the forms that others read. Each form is written piece by piece through a sink, so that
 * the output costs no memory; what a form can't hold is counted and said in a sentence.
 *
 *   jsonl     every record, a row each (trace/rows.h); reads back with the same verdicts
 *   csv       the same as columns
 *   perfetto  Chrome's trace event format (JSON): processes with a lane per phone, a slice per record,
 *             messages as flows across them, connections and what was not delivered as spans
 *   otlp      OTLP JSON lines: a line per message, its id being the trace id, a span per recipient
 *   pcapng    an interface per hop; message ids are packet comments; link records are the headers of their
 *             TCP packets, others JSON under the addresses of their connection
 *   junit     a test case per network and kind of loss, for CI
 *   html      the page of report_html
 *
 * Names that came from outside are escaped. Must not know: files, options. */
#ifndef REPORT_EXPORT_H
#define REPORT_EXPORT_H

#include "report/report.h"
#include "trace/join.h"

enum export_format {
#define FORMAT(name) EXPORT_##name,
#include "report/formats.def"
#undef FORMAT
    EXPORT_FORMATS
};

/* Takes the bytes or returns an error, which ends the export. */
struct export_sink {
    int (*write)(void *arg, const void *p, size_t n, struct err_ctx *ctx);
    void *arg;
};

struct export_counts {
    uint64_t records, rows; /* in the trace; written (slices, lines, packets, test cases) */
    uint64_t skipped;       /* records or messages that this form has no place for */
    const char *why;        /* static, NULL when nothing was skipped */
};

/* EXPORT_FORMATS when the text names none. */
enum export_format export_format_parse(const char *text);
/* `r` is joined. `name` is a title for people. ERR_NOMEM, or what the sink returned. */
int export_trace(enum export_format format, const struct trace_run *r, const char *name,
                 const struct export_sink *sink, struct export_counts *counts, struct err_ctx *ctx);

/* Add a trace's networks, curves, three lives and record counts. */
int report_add_trace(struct report_run *out, const struct trace_run *r, const struct trace_summary *s,
                     struct err_ctx *ctx);
/* The same of a run that nobody judged, with a test case per network and kind of loss. The rest of *out stays
 * as it is. */
int report_from_trace(struct report_run *out, const struct trace_run *r, struct err_ctx *ctx);

#endif
