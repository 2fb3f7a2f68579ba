/* Inside the room: files of rows (trace/rows.h) as sources with their records. */
#ifndef TRACE_ROWS_IMPL_H
#define TRACE_ROWS_IMPL_H

#include "trace/reader.h"

struct rows_part {
    struct trace_source source;
    struct trace_event *event;
    uint64_t n, cap;
    int64_t number; /* as the file calls it; < 0: rows without a source, -1 - node */
    bool told;      /* the file described it */
};

struct rows_file {
    struct rows_part *part;
    uint32_t n, cap;
};

bool rows_are_in(const char *path);
/* What is wrong in the file becomes problems of `r`, and its sources incomplete. ERR_NOMEM, ERR_LIMIT; errors
 * of opening are problems. Release in any case; events that were taken over are set to NULL before. */
int rows_read(struct rows_file *f, const char *path, struct trace_run *r, struct err_ctx *ctx);
void rows_release(struct rows_file *f);

/* One row's fields as text, whatever the format. */
struct row {
    struct trace_event e;
    struct trace_source s;
    uint64_t ts_us, source;
    bool timed, has_source, has_node, complete;
    char reason[48];
    const char *wrong; /* the first fault, static; NULL: none */
};
void row_set(struct row *r, const char *key, const char *value);
/* Called once after the last field. */
void row_finish(struct row *r);
/* Parse one line; it is overwritten. */
void row_from_json(struct row *r, char *line);

#endif
