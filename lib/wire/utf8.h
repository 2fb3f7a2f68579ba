/* UTF-8 (RFC 3629) checked piece by piece: a fault is found at the first byte that cannot be part of valid
 * text, also when a character is cut between two pieces. */
#ifndef WIRE_UTF8_H
#define WIRE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct utf8 {       /* zero-initialise */
    uint8_t need;   /* continuation bytes still to come */
    uint8_t lo, hi; /* the range the next of them must lie in */
};

bool utf8_feed(struct utf8 *u, const void *p, size_t n);
static inline bool utf8_whole(const struct utf8 *u) /* no character is cut at the end */
{
    return !u->need;
}

#endif
