#include "util/units.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct unit {
    const char *name;
    uint64_t scale;
};

/* number [.fraction] as num / 10^digits; at most 18 digits in all, so that no step overflows. */
static bool number(const char **s, uint64_t *num, uint64_t *den)
{
    const char *p = *s;
    int digits = 0;
    bool dot = false;
    *num = 0;
    *den = 1;
    for (;; p++) {
        if (*p == '.' && !dot) {
            dot = true;
            continue;
        }
        if (*p < '0' || *p > '9')
            break;
        if (++digits > 18)
            return false;
        *num = *num * 10 + (uint64_t)(*p - '0');
        if (dot)
            *den *= 10;
    }
    if (!digits)
        return false;
    *s = p;
    return true;
}

static int parse(uint64_t *out, const char *s, const struct unit *units, uint64_t max, const char *what,
                 struct err_ctx *ctx)
{
    const char *p = s;
    uint64_t num, den;
    if (number(&p, &num, &den)) {
        for (const struct unit *u = units; u->name; u++) {
            if (strcmp(p, u->name) != 0)
                continue;
            unsigned __int128 v = (unsigned __int128)num * u->scale / den;
            if (v > max)
                return err_set(ctx, ERR_RANGE, "'%s' is too large for a %s", s, what);
            *out = (uint64_t)v;
            return 0;
        }
        if (!*p && num == 0) {
            *out = 0;
            return 0;
        }
    }
    return err_set(ctx, ERR_INVALID, "'%s' is no %s", s, what);
}

int units_duration(uint64_t *ns, const char *s, struct err_ctx *ctx)
{
    static const struct unit u[] = {{"ns", 1},
                                    {"us", 1000},
                                    {"ms", 1000000},
                                    {"s", 1000000000ull},
                                    {"m", 60000000000ull},
                                    {"h", 3600000000000ull},
                                    {"d", 86400000000000ull},
                                    {0}};
    return parse(ns, s, u, INT64_MAX, "duration (10ms, 5s, 3m, 1d)", ctx);
}

int units_size(uint64_t *bytes, const char *s, struct err_ctx *ctx)
{
    static const struct unit u[] = {{"", 1},          {"B", 1},           {"kB", 1000},
                                    {"MB", 1000000},  {"GB", 1000000000}, {"KiB", 1 << 10},
                                    {"MiB", 1 << 20}, {"GiB", 1 << 30},   {0}};
    return parse(bytes, s, u, INT64_MAX, "size (64kB, 128MiB)", ctx);
}

int units_rate(uint64_t *per_1000s, const char *s, struct err_ctx *ctx)
{
    /* per minute: x/60 per second; scaled so that the division is the last step */
    static const struct unit u[] = {{"", 3600000}, {"/s", 3600000}, {"/m", 60000}, {"/h", 1000}, {0}};
    uint64_t v = 0;
    int rc = parse(&v, s, u, INT64_MAX, "rate (100/s, 30/m)", ctx);
    *per_1000s = v / 3600;
    return rc;
}

int units_bitrate(uint64_t *bit_per_s, const char *s, struct err_ctx *ctx)
{
    static const struct unit u[] = {{"bit", 1}, {"kbit", 1000}, {"mbit", 1000000}, {"gbit", 1000000000}, {0}};
    return parse(bit_per_s, s, u, 1000000000000ull, "bit rate (750kbit, 10mbit)", ctx);
}

int units_share(uint32_t *ppm, const char *s, struct err_ctx *ctx)
{
    static const struct unit u[] = {{"%", 10000}, {"", 1000000}, {0}};
    uint64_t v = 0;
    int rc = parse(&v, s, u, 1000000, "share (2%, 0.02)", ctx);
    *ppm = (uint32_t)v;
    return rc;
}

int units_u64(uint64_t *v, const char *s, struct err_ctx *ctx)
{
    uint64_t n = 0;
    const char *p = s;
    for (; *p >= '0' && *p <= '9'; p++) {
        if (__builtin_mul_overflow(n, 10u, &n) || __builtin_add_overflow(n, (uint64_t)(*p - '0'), &n))
            return err_set(ctx, ERR_RANGE, "'%s' is too large", s);
    }
    if (p == s || *p)
        return err_set(ctx, ERR_INVALID, "'%s' is no number", s);
    *v = n;
    return 0;
}

/* The largest unit that shows the value with at most three decimals. */
static void show(char out[32], uint64_t v, const struct unit *units)
{
    const struct unit *u = units;
    while (u[1].name && v < u->scale)
        u++;
    uint64_t whole = v / u->scale, milli = (uint64_t)((unsigned __int128)(v % u->scale) * 1000 / u->scale);
    if (milli == 0)
        snprintf(out, 32, "%" PRIu64 "%s", whole, u->name);
    else if (milli % 100 == 0)
        snprintf(out, 32, "%" PRIu64 ".%" PRIu64 "%s", whole, milli / 100, u->name);
    else
        snprintf(out, 32, "%" PRIu64 ".%03" PRIu64 "%s", whole, milli, u->name);
}

void units_show_duration(char out[32], uint64_t ns)
{
    static const struct unit u[] = {{"s", 1000000000}, {"ms", 1000000}, {"us", 1000}, {"ns", 1}, {0}};
    show(out, ns, u);
}

void units_show_size(char out[32], uint64_t bytes)
{
    static const struct unit u[] = {{"GB", 1000000000}, {"MB", 1000000}, {"kB", 1000}, {"B", 1}, {0}};
    show(out, bytes, u);
}

void units_show_bitrate(char out[32], uint64_t bit_per_s)
{
    static const struct unit u[] = {{"gbit", 1000000000}, {"mbit", 1000000}, {"kbit", 1000}, {"bit", 1}, {0}};
    show(out, bit_per_s, u);
}
