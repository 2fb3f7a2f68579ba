/* Inside the room: what the forms share. */
#ifndef REPORT_EXPORT_IMPL_H
#define REPORT_EXPORT_IMPL_H

#include "report/export.h"

#define EXPORT_PIECE (64u << 10) /* bytes gathered for one write */

struct exporting {
    const struct trace_run *r;
    const char *name;
    const struct export_sink *sink;
    struct export_counts *counts;
    struct err_ctx *ctx;
    struct buf out;
    int64_t *offset_ns; /* of each source: what to add for the time since 1970 */
    int rc;             /* sticky */
};

/* Hand over what has gathered, when it is much. Returns false once something failed. */
bool export_spill(struct exporting *x);
void export_fail(struct exporting *x, int rc, const char *what);
void export_skip(struct exporting *x, const char *why);

/* Nanoseconds since 1970 of a record; all sources of a host go by one reading of its clocks. */
uint64_t export_wall_ns(const struct exporting *x, uint32_t record);
/* JSON string of a name from outside. */
void export_json_text(struct buf *b, const char *s);

void export_rows(struct exporting *x, bool csv);
void export_perfetto(struct exporting *x);
void export_otlp(struct exporting *x);
void export_pcapng(struct exporting *x);

#endif
