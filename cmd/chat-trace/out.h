/* Rows to standard output in large blocks; a thread writes one while the next is filled. */
#ifndef CHAT_TRACE_OUT_H
#define CHAT_TRACE_OUT_H

#include <stddef.h>
#include <stdint.h>

#include "util/err.h"

struct out;

int out_open(struct out **o, int fd, struct err_ctx *err);
/* Room for n bytes (at most 16 MiB); NULL: no memory. Say with out_took how many were used. */
char *out_room(struct out *o, size_t n);
void out_took(struct out *o, size_t n);
/* Give what there is to the thread, e.g. before waiting for more packets. */
void out_flush(struct out *o);
/* Has writing failed? (A closed pipe, a full disk.) */
int out_failed(struct out *o);
/* Writes the rest and frees. ERR_IO, ERR_FULL. */
int out_close(struct out *o, struct err_ctx *err);

#endif
