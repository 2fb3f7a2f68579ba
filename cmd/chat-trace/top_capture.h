#ifndef CHAT_TRACE_TOP_CAPTURE_H
#define CHAT_TRACE_TOP_CAPTURE_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "util/err.h"

struct top_capture;

/* Errors as capture_live_open, and those of a file in $TMPDIR. `iface` must outlive it. */
int top_capture_open(struct top_capture **out, const char *iface, const char *filter, struct err_ctx *err);
/* Collect until then (monotonic ns); afterwards the file holds all. *anew: it had grown too large and was
 * begun again. */
int top_capture_until(struct top_capture *c, uint64_t ns, const volatile sig_atomic_t *interrupted,
                      bool *anew, struct err_ctx *err);
const char *top_capture_path(const struct top_capture *c);
void top_capture_close(struct top_capture *c); /* removes the file; NULL is fine */

#endif
