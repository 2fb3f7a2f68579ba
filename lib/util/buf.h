/* A growable byte buffer with a stated maximum and a sticky failure: append many times, check once.
 *
 * Zero-initialise and call buf_init, or use BUF_INIT(max). A failed append (maximum passed, no memory) leaves
 * the contents as they were and sets `failed`; every later append is a no-op until buf_reset. */
#ifndef UTIL_BUF_H
#define UTIL_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct buf {
    char *data;
    size_t len, cap, max;
    bool failed;
};

#define BUF_INIT(maximum)                                                                                    \
    {                                                                                                        \
        .max = (maximum)                                                                                     \
    }

void buf_init(struct buf *b, size_t max);
void buf_release(struct buf *b);
static inline void buf_reset(struct buf *b)
{
    b->len = 0;
    b->failed = false;
}

/* Make room for `n` more bytes and return where they go (then add to b->len), or NULL when failed. */
char *buf_reserve(struct buf *b, size_t n);
void buf_add(struct buf *b, const void *p, size_t n);
static inline void buf_str(struct buf *b, const char *s)
{
    buf_add(b, s, strlen(s));
}
static inline void buf_char(struct buf *b, char c)
{
    buf_add(b, &c, 1);
}
void buf_u64(struct buf *b, uint64_t v); /* decimal */
void buf_i64(struct buf *b, int64_t v);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A JSON string with its quotes; input must be valid UTF-8 (bytes >= 0x80 pass unchanged). */
void buf_json_str(struct buf *b, const char *s, size_t n);
/* Text for HTML: & < > " ' escaped. */
void buf_html(struct buf *b, const char *s);
/* Remove the first n bytes. */
void buf_consume(struct buf *b, size_t n);
/* NUL-terminate (not counted in len) and return the data; "" when empty. */
const char *buf_cstr(struct buf *b);

#endif
