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

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

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
        int hi = hex_digit(s[i]), lo = hex_digit(s[i + 1]);
        if (hi < 0 || lo < 0)
            return ERR_INVALID;
        id->b[at++] = (uint8_t)(hi << 4 | lo);
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

static int b64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '-' ? 62 : c == '_' ? 63 : -1;
}

long base64url_decode(void *out, size_t cap, const char *in, size_t n)
{
    uint8_t *o = out;
    size_t len = 0;
    uint32_t acc = 0;
    int bits = 0;
    if (n % 4 == 1)
        return ERR_INVALID;
    for (size_t i = 0; i < n; i++) {
        int v = b64_value(in[i]);
        if (v < 0)
            return ERR_INVALID;
        acc = (acc << 6 | (uint32_t)v) & 0xffffff;
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
