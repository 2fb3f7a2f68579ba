/* Small file work that writer and reader share. */
#ifndef TRACE_FILES_IMPL_H
#define TRACE_FILES_IMPL_H

#include "trace/format_impl.h"
#include "util/err.h"

/* Write all of it or say why not: 0, ERR_FULL, ERR_IO. */
int files_write_at(int fd, const void *p, size_t n, uint64_t offset);
/* mkdir -p. */
int files_make_dirs(const char *dir, struct err_ctx *ctx);
/* Bring the ring files that dead processes called `name` left in `dir` into their .ctr files and remove them.
 * A ring that makes no sense is left where it is, for the reader to report. */
int files_sweep(const char *dir, const char *name, struct err_ctx *ctx);

#endif
