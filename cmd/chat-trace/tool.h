/* chat-trace's parts. Each command prints its result and sets *status (0, 1 found, 2 inconclusive). */
#ifndef CHAT_TRACE_TOOL_H
#define CHAT_TRACE_TOOL_H

#include "trace/join.h"
#include "util/opt.h"

enum tool_load_how { TOOL_JOIN = 1, TOOL_QUIETLY = 2 /* say nothing of captures */ };
/* Read, complain on stderr about what could not be read, join. Release in any case. Captures among the inputs
 * are read in this dialect (wire/dialect.h), NULL: chat.v1. */
int tool_load(struct trace_run *r, const char *dialect, const char *const *inputs, int n, unsigned how,
              struct err_ctx *err);
int tool_funnel(const struct trace_run *r, const struct opt_set *o, int *status, struct err_ctx *err);
/* Each (message, recipient) of the chosen verdicts. ERR_USAGE: no such verdict. */
int tool_pairs(const struct trace_run *r, const struct opt_set *o, int *status, struct err_ctx *err);
int tool_status(const struct trace_summary *s);
int tool_slow(const struct trace_run *r, const struct opt_set *o, struct err_ctx *err);
int tool_dump(const struct trace_run *r, const struct opt_set *o, struct err_ctx *err);
int tool_export(const struct trace_run *r, const struct opt_set *o, struct err_ctx *err);
/* Its operands are captures, not folders. */
int tool_pcap(const struct opt_set *o, int *status, struct err_ctx *err);
/* Its operands are a trace or captures, which it reads itself. */
int tool_replay(const struct opt_set *o, int *status, struct err_ctx *err);
int tool_top(const struct opt_set *o, int *status, struct err_ctx *err);
#define TOOL_REPLAY_IDS "replay.jsonl" /* in a replay's trace folder: {"id":"old","as":"new"} rows */
int tool_diff(const struct trace_run *before, const struct trace_run *after, const struct opt_set *o,
              int *status, struct err_ctx *err);

#endif
