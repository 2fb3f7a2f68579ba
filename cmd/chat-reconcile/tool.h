/* chat-reconcile's parts. */
#ifndef CHAT_RECONCILE_TOOL_H
#define CHAT_RECONCILE_TOOL_H

#include "audit/reconcile.h"
#include "util/opt.h"

/* A SRC of the command line. ERR_USAGE for an unknown kind; ERR_UNSUPPORTED, saying so, for kinds to come.
 * sorted: JSONL files are in order. */
int tool_source(struct reconcile_source **out, const char *url, const struct opt_set *o, bool sorted,
                struct err_ctx *err);
/* source_store.c: rows of a store or of a backup of one, as they are now. */
int source_store_open(struct reconcile_source **out, const char *url, const char *dir, struct err_ctx *err);
/* source_trace.c */
int source_trace_open(struct reconcile_source **out, const char *dir, struct err_ctx *err);

/* source_server.c: base is "http://HOST:PORT". */
int source_server_open(struct reconcile_source **out, const char *url, const char *base,
                       const struct opt_set *o, struct err_ctx *err);

/* SIGINT or SIGTERM came, since tool_watch_signals. */
extern volatile int tool_interrupted;
void tool_watch_signals(void);

/* Both operands and options of check and plan. */
struct tool_checked {
    struct reconcile_result result;
    int sources;
};
int tool_check_run(struct tool_checked *out, const struct opt_set *o, reconcile_found *found, void *arg,
                   struct err_ctx *err);

int tool_check(const struct opt_set *o, int *status, struct err_ctx *err);
int tool_export(const struct opt_set *o, int *status, struct err_ctx *err);
int tool_plan(const struct opt_set *o, int *status, struct err_ctx *err);
int tool_apply(const struct opt_set *o, int *status, struct err_ctx *err);
int tool_undo(const struct opt_set *o, int *status, struct err_ctx *err);
int tool_status(const struct opt_set *o, int *status, struct err_ctx *err);
int tool_verify(const struct opt_set *o, int *status, struct err_ctx *err);

#endif
