#include "util/id.h"

#include "util/err.h"

struct id id_new(uint64_t unix_ms, struct rng *r)
{
    struct id id;
    uint64_t a = rng_u64(r), b = rng_u64(r);
    for (int i = 0; i < 6; i++)
        id.b[i] = (uint8_t)(unix_ms >> (40 - 8 * i));
    id.b[6] = (uint8_t)(0x70 | (a & 0x0f));
    id.b[7] = (uint8_t)(a >> 8);
    id.b[8] = (uint8_t)(0x80 | (b & 0x3f));
    for (int i = 9; i < 16; i++)
        id.b[i] = (uint8_t)(b >> (8 * (i - 8)));
    return id;
}

uint64_t id_unix_ms(const struct id *id)
{
    uint64_t ms = 0;
    for (int i = 0; i < 6; i++)
        ms = ms << 8 | id->b[i];
    return ms;
}

bool id_is_v7(const struct id *id)
{
    return (id->b[6] >> 4) == 7 && (id->b[8] >> 6) == 2;
}

/* One more than the digit's value; 0: it is none. */
static const uint8_t hex_of[256] = {
    ['0'] = 1,  ['1'] = 2,  ['2'] = 3,  ['3'] = 4,  ['4'] = 5,  ['5'] = 6,  ['6'] = 7,  ['7'] = 8,
    ['8'] = 9,  ['9'] = 10, ['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
    ['A'] = 11, ['B'] = 12, ['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16};

int id_parse(struct id *id, const char *s, size_t n)
{
    if (n != ID_TEXT)
        return ERR_INVALID;
    size_t at = 0;
    for (size_t i = 0; i < ID_TEXT;) {
        if (i == 8 || i == 13 || i == 18 || i == 23) {
            if (s[i++] != '-')
                return ERR_INVALID;
            continue;
        }
        unsigned hi = hex_of[(uint8_t)s[i]], lo = hex_of[(uint8_t)s[i + 1]];
        if (!hi || !lo)
            return ERR_INVALID;
        id->b[at++] = (uint8_t)((hi - 1) << 4 | (lo - 1));
        i += 2;
    }
    return 0;
}

void id_format(const struct id *id, char out[ID_TEXT])
{
    static const char hex[] = "0123456789abcdef";
    char *p = out;
    for (int i = 0; i < ID_BYTES; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *p++ = '-';
        *p++ = hex[id->b[i] >> 4];
        *p++ = hex[id->b[i] & 15];
    }
}

char *id_str(const struct id *id, char out[ID_TEXT + 1])
{
    id_format(id, out);
    out[ID_TEXT] = 0;
    return out;
}

static const char b64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

size_t base64url_encode(char *out, const void *in, size_t n)
{
    const uint8_t *p = in;
    char *o = out;
    for (; n >= 3; n -= 3, p += 3) {
        uint32_t v = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
        *o++ = b64[v >> 18];
        *o++ = b64[v >> 12 & 63];
        *o++ = b64[v >> 6 & 63];
        *o++ = b64[v & 63];
    }
    if (n) {
        uint32_t v = (uint32_t)p[0] << 16 | (n == 2 ? (uint32_t)p[1] << 8 : 0);
        *o++ = b64[v >> 18];
        *o++ = b64[v >> 12 & 63];
        if (n == 2)
            *o++ = b64[v >> 6 & 63];
    }
    return (size_t)(o - out);
}

/* One more than the value; 0: not of the alphabet. */
static const uint8_t b64_of[256] = {
    ['A'] = 1,  ['B'] = 2,  ['C'] = 3,  ['D'] = 4,  ['E'] = 5,  ['F'] = 6,  ['G'] = 7,  ['H'] = 8,
    ['I'] = 9,  ['J'] = 10, ['K'] = 11, ['L'] = 12, ['M'] = 13, ['N'] = 14, ['O'] = 15, ['P'] = 16,
    ['Q'] = 17, ['R'] = 18, ['S'] = 19, ['T'] = 20, ['U'] = 21, ['V'] = 22, ['W'] = 23, ['X'] = 24,
    ['Y'] = 25, ['Z'] = 26, ['a'] = 27, ['b'] = 28, ['c'] = 29, ['d'] = 30, ['e'] = 31, ['f'] = 32,
    ['g'] = 33, ['h'] = 34, ['i'] = 35, ['j'] = 36, ['k'] = 37, ['l'] = 38, ['m'] = 39, ['n'] = 40,
    ['o'] = 41, ['p'] = 42, ['q'] = 43, ['r'] = 44, ['s'] = 45, ['t'] = 46, ['u'] = 47, ['v'] = 48,
    ['w'] = 49, ['x'] = 50, ['y'] = 51, ['z'] = 52, ['0'] = 53, ['1'] = 54, ['2'] = 55, ['3'] = 56,
    ['4'] = 57, ['5'] = 58, ['6'] = 59, ['7'] = 60, ['8'] = 61, ['9'] = 62, ['-'] = 63, ['_'] = 64};

long base64url_decode(void *out, size_t cap, const char *in, size_t n)
{
    uint8_t *o = out;
    size_t len = 0;
    uint32_t acc = 0;
    int bits = 0;
    if (n % 4 == 1)
        return ERR_INVALID;
    for (size_t i = 0; i < n; i++) {
        uint32_t v = b64_of[(uint8_t)in[i]];
        if (!v)
            return ERR_INVALID;
        acc = (acc << 6 | (v - 1)) & 0xffffff;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            if (len == cap)
                return ERR_INVALID;
            o[len++] = (uint8_t)(acc >> bits);
        }
    }
    if (acc & ((1u << bits) - 1))
        return ERR_INVALID;
    return (long)len;
}
