/* The bytes of a capture file, unpacked: plain, gzip (also several members) or zstd, told by their first
 * bytes; "-" is standard input. A thread reads ahead, so that the kernel's copying and unpacking go on beside
 * the reader's work.
 *
 * Memory: SOURCE_BLOCK x SOURCE_BLOCKS and what the unpacker needs (zstd windows up to 8 MiB; larger ones are
 * refused). */
#ifndef WIRE_PCAP_SOURCE_H
#define WIRE_PCAP_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/err.h"

#define SOURCE_BLOCK  (256u << 10)
#define SOURCE_BLOCKS 4u

struct source;

int source_open(struct source **out, const char *path, struct err_ctx *ctx);
/* From memory, for tests; the bytes stay the caller's. */
int source_open_memory(struct source **out, const void *p, size_t n, struct err_ctx *ctx);
/* The next block, good until the next call. 1; 0 at the end; ERR_IO, ERR_CORRUPT, ERR_TRUNCATED (a packed
 * stream that ends early) after all that could be unpacked was given. */
int source_next(struct source *s, const uint8_t **p, size_t *n, struct err_ctx *ctx);
bool source_packed(const struct source *s);
void source_close(struct source *s); /* NULL is fine */

#endif
