/* From writers' streams to one array in the order of time. */
#ifndef TRACE_MERGE_IMPL_H
#define TRACE_MERGE_IMPL_H

#include "trace/reader.h"

/* One writer: `in_file` records from byte TRACE_HEADER_BYTES of a file, then `rest` ones from memory. */
struct stream {
    uint32_t source; /* index into trace_run.source */
    char *path;      /* NULL: nothing in a file */
    uint64_t in_file;
    const struct trace_event *rest;
    uint64_t rest_n;
    struct trace_event *owned; /* freed with the stream; rest may point here */
    /* while merging */
    struct trace_event *buf;
    uint64_t next; /* number of the record after buf's last */
    uint32_t at, have;
    bool bad;
};

/* Fills r->event and each source's `present`; records that make no sense are left out and told of. */
int merge_streams(struct trace_run *r, struct stream *s, uint32_t n, struct err_ctx *ctx);
void run_problem(struct trace_run *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
