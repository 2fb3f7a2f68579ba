/* Values as people write them: durations 10ms 5s 3m 1d, sizes 64kB 128MiB, rates 100/s 10mbit, shares 2%
 * 0.02. Each takes a NUL-terminated string, returns 0, or ERR_INVALID / ERR_RANGE with "'5x' is no duration"
 * in ctx. */
#ifndef UTIL_UNITS_H
#define UTIL_UNITS_H

#include <stddef.h>
#include <stdint.h>

#include "util/err.h"

/* ns us ms s m h d; a bare 0 is allowed; decimals too (0.5s). Result in nanoseconds. */
int units_duration(uint64_t *ns, const char *s, struct err_ctx *ctx);
/* B kB MB GB (powers of 1000), KiB MiB GiB (powers of 1024); a bare number is bytes. */
int units_size(uint64_t *bytes, const char *s, struct err_ctx *ctx);
/* 100/s 30/m 5/h; a bare number is per second. Result in events per 1000 s, so that 0.5/s is exact. */
int units_rate(uint64_t *per_1000s, const char *s, struct err_ctx *ctx);
/* bit kbit mbit gbit. Result in bits per second. */
int units_bitrate(uint64_t *bit_per_s, const char *s, struct err_ctx *ctx);
/* 2% or 0.02. Result in parts per million, 0 .. 1,000,000. */
int units_share(uint32_t *ppm, const char *s, struct err_ctx *ctx);
/* Decimal digits only, whole string. */
int units_u64(uint64_t *v, const char *s, struct err_ctx *ctx);

/* The way back: "1.5s", "40ms", "64kB", "10mbit"; at most 31 characters. */
void units_show_duration(char out[32], uint64_t ns);
void units_show_size(char out[32], uint64_t bytes);
void units_show_bitrate(char out[32], uint64_t bit_per_s);

#endif
