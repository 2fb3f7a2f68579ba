#include "proto/json_impl.h"

#include <inttypes.h>
#include <string.h>

#define ONES  0x0101010101010101ull
#define HIGHS 0x8080808080808080ull

int json_fail(struct json *j, int code, const char *at, const char *what)
{
    if (j->err)
        return j->err;
    j->err = code;
    return err_set(j->ctx, code, "%.*s%s%s at byte %zu", (int)(j->key.n > 40 ? 40 : j->key.n),
                   j->key.p ? j->key.p : "", j->key.n ? ": " : "", what, (size_t)(at - j->start));
}

int json_expected(struct json *j, const char *what)
{
    if (j->p >= j->end)
        return json_fail(j, ERR_TRUNCATED, j->p, "the text ends too early");
    return json_fail(j, ERR_INVALID, j->p, what);
}

void *json_room(struct json *j, size_t n)
{
    struct proto_scratch *s = j->scratch;
    size_t at = (s->len + 7) & ~(size_t)7;
    if (j->err || at > s->cap || n > s->cap - at) {
        json_fail(j, ERR_LIMIT, j->p, "more than the scratch holds");
        return NULL;
    }
    s->len = at + n;
    return s->data + at;
}

bool json_open(struct json *j, char c)
{
    if (!json_take(j, c)) {
        json_expected(j, c == '{' ? "must be an object" : "must be an array");
        return false;
    }
    if (++j->depth > JSON_DEPTH_MAX) {
        json_fail(j, ERR_LIMIT, j->p - 1, "nested more than 8 deep");
        return false;
    }
    return true;
}

bool json_more(struct json *j, char close, bool *first)
{
    if (json_take(j, close)) {
        j->depth--;
        return false;
    }
    if (!*first && !json_take(j, ',')) {
        json_expected(j, close == '}' ? "expected ',' or '}'" : "expected ',' or ']'");
        return false;
    }
    *first = false;
    return !j->err;
}

bool json_key(struct json *j, struct slice *key)
{
    if (json_peek(j) != '"') {
        json_expected(j, "expected a key");
        return false;
    }
    if (!proto_json_string(j, key))
        return false;
    if (!json_take(j, ':')) {
        json_expected(j, "expected ':'");
        return false;
    }
    return true;
}

/* Length of the UTF-8 sequence at p (first byte >= 0x80), or 0 if it is none (RFC 3629 section 4). */
static size_t utf8(const unsigned char *p, size_t left)
{
    if (p[0] < 0xc2 || p[0] > 0xf4)
        return 0;
    size_t n = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (left < n)
        return 0;
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return n;
}

bool json_is_utf8(const char *p, size_t n)
{
    const char *end = p + n;
    for (uint64_t w; end - p >= 8; p += 8) {
        memcpy(&w, p, 8);
        if (w & HIGHS)
            break;
    }
    while (p < end) {
        size_t step = (unsigned char)*p < 0x80 ? 1 : utf8((const unsigned char *)p, (size_t)(end - p));
        if (!step)
            return false;
        p += step;
    }
    return true;
}

/* The first byte from p on that is no plain printable ASCII: a quote, a backslash, a control, >= 0x80, or the
 * end. Eight at a time; borrows can only mark bytes above the first true one, so the lowest mark is right. */
static const char *plain_run(const char *p, const char *end)
{
    while (end - p >= 8) {
        uint64_t w, q, b;
        memcpy(&w, p, 8);
        if (__BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__)
            w = __builtin_bswap64(w);
        q = w ^ ONES * '"';
        b = w ^ ONES * '\\';
        uint64_t marks = (((w - ONES * 0x20) & ~w) | ((q - ONES) & ~q) | ((b - ONES) & ~b) | w) & HIGHS;
        if (marks)
            return p + (__builtin_ctzll(marks) >> 3);
        p += 8;
    }
    while (p < end && (unsigned char)*p >= 0x20 && (unsigned char)*p < 0x80 && *p != '"' && *p != '\\')
        p++;
    return p;
}

/* From p over text without escapes to the quote, backslash or end; NULL after a fault. */
static const char *text_run(struct json *j, const char *p)
{
    for (;;) {
        p = plain_run(p, j->end);
        if (p == j->end || *p == '"' || *p == '\\')
            return p;
        size_t n = (unsigned char)*p < 0x20 ? 0 : utf8((const unsigned char *)p, (size_t)(j->end - p));
        if (!n) {
            json_fail(j, ERR_INVALID, p,
                      (unsigned char)*p < 0x20 ? "a control character in a string" : "text that is no UTF-8");
            return NULL;
        }
        p += n;
    }
}

static int hex4(const char *p)
{
    int v = 0;
    for (int i = 0; i < 4; i++) {
        int c = p[i], d = c >= '0' && c <= '9'                 ? c - '0'
                          : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                               : -1;
        if (d < 0)
            return -1;
        v = v << 4 | d;
    }
    return v;
}

static char *put_utf8(char *o, uint32_t c)
{
    if (c < 0x80) {
        *o++ = (char)c;
    } else if (c < 0x800) {
        *o++ = (char)(0xc0 | c >> 6);
        *o++ = (char)(0x80 | (c & 63));
    } else if (c < 0x10000) {
        *o++ = (char)(0xe0 | c >> 12);
        *o++ = (char)(0x80 | (c >> 6 & 63));
        *o++ = (char)(0x80 | (c & 63));
    } else {
        *o++ = (char)(0xf0 | c >> 18);
        *o++ = (char)(0x80 | (c >> 12 & 63));
        *o++ = (char)(0x80 | (c >> 6 & 63));
        *o++ = (char)(0x80 | (c & 63));
    }
    return o;
}

/* \uXXXX at p (after the 'u'); surrogates come in pairs. Returns the place behind it, NULL after a fault. */
static const char *unicode_escape(struct json *j, const char *p, char **o)
{
    int hi = j->end - p >= 4 ? hex4(p) : -1;
    if (hi < 0) {
        json_fail(j, j->end - p < 4 ? ERR_TRUNCATED : ERR_INVALID, p, "\\u needs four hexadecimal digits");
        return NULL;
    }
    p += 4;
    if (hi < 0xd800 || hi > 0xdfff) {
        *o = put_utf8(*o, (uint32_t)hi);
        return p;
    }
    int lo = hi < 0xdc00 && j->end - p >= 6 && p[0] == '\\' && p[1] == 'u' ? hex4(p + 2) : -1;
    if (lo < 0xdc00 || lo > 0xdfff) {
        json_fail(j, ERR_INVALID, p - 6, "half of a surrogate pair");
        return NULL;
    }
    *o = put_utf8(*o, 0x10000 + ((uint32_t)(hi - 0xd800) << 10) + (uint32_t)(lo - 0xdc00));
    return p + 6;
}

/* The escape behind the backslash at p - 1. */
static const char *escape(struct json *j, const char *p, char **o)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (p == j->end) {
        json_fail(j, ERR_TRUNCATED, p, "the text ends inside a string");
        return NULL;
    }
    if (*p == 'u')
        return unicode_escape(j, p + 1, o);
    const char *hit = *p ? strchr(from, *p) : NULL;
    if (!hit) {
        json_fail(j, ERR_INVALID, p - 1, "an unknown escape");
        return NULL;
    }
    *(*o)++ = to[hit - from];
    return p + 1;
}

/* A string with escapes: unescaped into the scratch. An escape is never shorter than what it stands for. */
static bool escaped_string(struct json *j, const char *from, const char *p, struct slice *s)
{
    struct proto_scratch *sc = j->scratch;
    char *o = sc->data + sc->len, *out = o, *limit = sc->data + sc->cap;
    for (;;) {
        if ((size_t)(limit - o) < (size_t)(p - from) + 4) {
            json_fail(j, ERR_LIMIT, p, "more than the scratch holds");
            return false;
        }
        memcpy(o, from, (size_t)(p - from));
        o += p - from;
        if (p == j->end || *p == '"')
            break;
        from = escape(j, p + 1, &o);
        if (!from || !(p = text_run(j, from)))
            return false;
    }
    *s = (struct slice){out, (size_t)(o - out)};
    sc->len = (size_t)(o - sc->data);
    j->p = p;
    return true;
}

bool proto_json_string(struct json *j, struct slice *s)
{
    if (json_peek(j) != '"') {
        json_expected(j, "must be a string");
        return false;
    }
    const char *from = j->p + 1, *p = text_run(j, from);
    if (!p)
        return false;
    if (p < j->end && *p == '\\') {
        if (!escaped_string(j, from, p, s))
            return false;
    } else {
        *s = (struct slice){from, (size_t)(p - from)};
        j->p = p;
    }
    if (j->p == j->end) {
        json_fail(j, ERR_TRUNCATED, j->p, "the text ends inside a string");
        return false;
    }
    j->p++;
    return true;
}

/* Digits without sign and leading zero; 0 when fine. */
static int digits(const char **p, const char *end, uint64_t *v)
{
    const char *q = *p;
    uint64_t n = 0;
    bool over = false;
    if (q == end || *q < '0' || *q > '9')
        return ERR_INVALID;
    if (*q == '0') {
        q++;
        if (q < end && *q >= '0' && *q <= '9')
            return ERR_INVALID;
    }
    for (; q < end && *q >= '0' && *q <= '9'; q++)
        over |= __builtin_mul_overflow(n, 10u, &n) || __builtin_add_overflow(n, (uint64_t)(*q - '0'), &n);
    *p = q;
    *v = n;
    return over ? ERR_RANGE : 0;
}

bool json_uint(struct json *j, uint64_t max, uint64_t *v)
{
    char c = json_peek(j);
    const char *at = j->p;
    if (j->err || c < '0' || c > '9') {
        json_expected(j, c == '-' ? "must not be negative" : "must be an integer");
        return false;
    }
    int rc = digits(&j->p, j->end, v);
    if (rc == ERR_INVALID || (j->p < j->end && (*j->p == '.' || *j->p == 'e' || *j->p == 'E'))) {
        json_fail(j, ERR_INVALID, at, "must be an integer, without fraction, exponent or leading zero");
        return false;
    }
    if (rc || *v > max) {
        json_fail(j, ERR_RANGE, at, max == UINT32_MAX ? "is larger than 2^32-1" : "is larger than 2^53-1");
        return false;
    }
    return true;
}

bool json_u64s(struct json *j, uint64_t *v)
{
    struct slice s;
    size_t mark = j->scratch->len;
    json_space(j);
    const char *at = j->p;
    if (!proto_json_string(j, &s))
        return false;
    const char *p = s.p;
    int rc = digits(&p, s.p + s.n, v);
    j->scratch->len = mark;
    if (rc == ERR_RANGE)
        json_fail(j, rc, at, "is larger than 2^64-1");
    else if (rc || p != s.p + s.n)
        json_fail(j, ERR_INVALID, at, "must be a decimal number in quotes");
    return !j->err;
}

static bool word(struct json *j, const char *w)
{
    size_t n = strlen(w), left = (size_t)(j->end - j->p);
    if (memcmp(j->p, w, left < n ? left : n) != 0)
        json_fail(j, ERR_INVALID, j->p, "expected a value");
    else if (left < n)
        json_fail(j, ERR_TRUNCATED, j->end, "the text ends too early");
    j->p += left < n ? left : n;
    return !j->err;
}

bool json_bool(struct json *j, bool *v)
{
    char c = json_peek(j);
    if (c != 't' && c != 'f') {
        json_expected(j, "must be true or false");
        return false;
    }
    *v = c == 't';
    return word(j, *v ? "true" : "false");
}

static bool skip_digits(struct json *j)
{
    const char *from = j->p;
    while (j->p < j->end && *j->p >= '0' && *j->p <= '9')
        j->p++;
    if (j->p == from)
        json_expected(j, "expected a digit");
    return !j->err;
}

/* Any number of RFC 8259 section 6. */
static bool skip_number(struct json *j)
{
    if (*j->p == '-')
        j->p++;
    if (j->p < j->end && *j->p == '0')
        j->p++;
    else if (!skip_digits(j))
        return false;
    if (j->p < j->end && *j->p == '.') {
        j->p++;
        if (!skip_digits(j))
            return false;
    }
    if (j->p < j->end && (*j->p | 32) == 'e') {
        j->p++;
        if (j->p < j->end && (*j->p == '+' || *j->p == '-'))
            j->p++;
        return skip_digits(j);
    }
    return true;
}

bool json_skip(struct json *j)
{
    struct slice s;
    size_t mark = j->scratch->len;
    bool first = true;
    char c = json_peek(j);
    switch (c) {
    case '{':
        json_open(j, '{');
        while (!j->err && json_more(j, '}', &first)) { /* depth is bounded by json_open */
            if (json_key(j, &s))
                json_skip(j);
        }
        break;
    case '[':
        json_open(j, '[');
        while (!j->err && json_more(j, ']', &first))
            json_skip(j);
        break;
    case '"':
        proto_json_string(j, &s);
        break;
    case 't':
        return word(j, "true");
    case 'f':
        return word(j, "false");
    case 'n':
        return word(j, "null");
    default:
        if (c == '-' || (c >= '0' && c <= '9'))
            return skip_number(j);
        json_expected(j, "expected a value");
    }
    j->scratch->len = mark;
    return !j->err;
}
