/* A trace as text, one row a line: to be kept, searched with anybody's tools, and read back.
 *
 * JSON lines: rows with "hop":"none" tell of a source (a writer, with what it ever emitted, so that a missing
 * row shows), one each, first; then a row per record in the order of time:
 *   {"source":0,"ts_ns":1,"node":200,"hop":"client_submit","id":"0193...","chat":"17","user":"7","arg":3,
 *    "conn":0,"lane_seq":0,"device":1,"attempt":0,"flags":1,"reason":""}
 * Records of packets and of opened sockets have "flow":"10.0.0.1:5000>10.0.0.2:80 seq 7" in place of "id".
 * chat and user are decimal strings, arg too when it is 2^53 or more. CSV (RFC 4180) has the same names as
 * columns, both id and flow, and "about": the source's JSON row.
 *
 * trace_run_load (trace/reader.h) reads files whose names end in .jsonl or .csv. There a row needs no
 * "source", "node" or anything but a time ("ts_ns", or "ts_us" since 1970) and a hop: a log that somebody
 * else's program wrote is evidence too, but proves nothing by what it does not say. */
#ifndef TRACE_ROWS_H
#define TRACE_ROWS_H

#include "trace/reader.h"
#include "util/buf.h"

#define TRACE_ROW_MAX 65536u /* bytes of a line that is read; longer ones are problems */

/* Append a row without the newline. source: its place in run.source, or < 0 to leave it out. */
void trace_row_source(struct buf *out, const struct trace_source *s, int source);
void trace_row_record(struct buf *out, const struct trace_event *e, int source);
/* The same for CSV; the header names the columns. */
void trace_csv_header(struct buf *out);
void trace_csv_source(struct buf *out, const struct trace_source *s, int source);
void trace_csv_record(struct buf *out, const struct trace_event *e, int source);

/* Is `id` a flow in records of this hop? */
bool trace_hop_has_flow(int hop);
/* "10.0.0.1:5000>10.0.0.2:80 seq 7"; at most 63 characters. */
void trace_flow_text(char out[64], const struct id *flow);

#endif
