/* Message ids (UUIDv7, RFC 9562 section 5.7) and their text forms, and base64url (RFC 4648 section 5, no
 * padding). */
#ifndef UTIL_ID_H
#define UTIL_ID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "util/rng.h"

#define ID_BYTES 16
#define ID_TEXT  36 /* 8-4-4-4-12, without NUL */

struct id {
    uint8_t b[ID_BYTES];
};

/* 48 bits of Unix milliseconds, version 7, 74 random bits. */
struct id id_new(uint64_t unix_ms, struct rng *r);
/* The time in the id, ms; meaningful for version 7 only (id_is_v7). */
uint64_t id_unix_ms(const struct id *id);
bool id_is_v7(const struct id *id);
/* Exactly 36 characters, hex in either case. 0 or ERR_INVALID. */
int id_parse(struct id *id, const char *s, size_t n);
/* Writes 36 characters, no NUL. */
void id_format(const struct id *id, char out[ID_TEXT]);
/* For printf: a NUL-terminated copy in `out`, which is returned. */
char *id_str(const struct id *id, char out[ID_TEXT + 1]);
static inline bool id_equal(const struct id *a, const struct id *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

/* base64url: room for BASE64_LEN(n) characters, no NUL, returns the length written. */
#define BASE64_LEN(n) (((n)*4 + 2) / 3)
size_t base64url_encode(char *out, const void *in, size_t n);
/* Decodes n characters into at most `cap` bytes; returns the length or ERR_INVALID (bad character, bits left
 * over, too long). */
long base64url_decode(void *out, size_t cap, const char *in, size_t n);

#endif
