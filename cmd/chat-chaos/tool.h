/* The parts of chat-chaos. Each command prints its results on stdout and returns an exit status or, negative,
 * an error with a sentence in ctx. */
#ifndef CHAT_CHAOS_TOOL_H
#define CHAT_CHAOS_TOOL_H

#include <signal.h>
#include <stdbool.h>

#include "util/err.h"
#include "util/opt.h"

#define STATUS_PASS    0
#define STATUS_FAIL    1
#define STATUS_UNKNOWN 2

extern volatile sig_atomic_t interrupted;

int tool_run(const struct opt_set *set, struct err_ctx *ctx);
int tool_compare(const struct opt_set *set, struct err_ctx *ctx);
int tool_explore(const struct opt_set *set, struct err_ctx *ctx);
int tool_list(const struct opt_set *set, struct err_ctx *ctx);
int tool_show(const struct opt_set *set, struct err_ctx *ctx);
int tool_new(const struct opt_set *set, struct err_ctx *ctx);

/* A scenario by path, folder or name ("mobile-loss", "01-mobile-loss") to the path of its file. */
int tool_find(char *out, size_t size, const char *what, struct err_ctx *ctx);

#endif
