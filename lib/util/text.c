#include "util/text.h"

#include <stdint.h>
#include <string.h>

/* Length of the character at p, 0 when it is none: no overlong form, no surrogate, nothing past U+10FFFF. */
static size_t character(const uint8_t *p)
{
    size_t n = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return n;
}

char *text_clean(char *out, size_t size, const char *in)
{
    const uint8_t *p = (const uint8_t *)in;
    size_t at = 0;
    while (*p) {
        size_t n = character(p), step = n ? n : 1;
        if (at + step >= size)
            break;
        if (!n)
            out[at] = '?';
        else if (*p < 0x20 || *p == 0x7f)
            out[at] = ' ';
        else
            memcpy(out + at, p, n);
        at += step;
        p += step;
    }
    out[at] = 0;
    return out;
}
