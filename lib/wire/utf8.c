#include "wire/utf8.h"

#include <string.h>

/* A first byte >= 0x80: how many follow, and which range the second byte has (RFC 3629 section 4). */
static bool lead(struct utf8 *u, uint8_t c)
{
    if (c < 0xc2 || c > 0xf4)
        return false;
    u->need = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
    u->lo = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    u->hi = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    return true;
}

bool utf8_feed(struct utf8 *u, const void *data, size_t n)
{
    const uint8_t *p = data, *end = p + n;
    while (p < end) {
        if (u->need) {
            if (*p < u->lo || *p > u->hi)
                return false;
            u->need--;
            u->lo = 0x80;
            u->hi = 0xbf;
            p++;
            continue;
        }
        uint64_t w;
        while (end - p >= 8 && (memcpy(&w, p, 8), !(w & 0x8080808080808080ull)))
            p += 8;
        while (p < end && *p < 0x80)
            p++;
        if (p < end && !lead(u, *p++))
            return false;
    }
    return true;
}
