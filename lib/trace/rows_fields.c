/* From fields to records and sources; and the fields of a JSON row. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "trace/rows.h"
#include "trace/rows_impl.h"

#define DEPTH_MAX 16

static const struct {
    const char *key;
    uint16_t at, size;
} numbers[] = {
#define N(key, member)                                                                                       \
    {                                                                                                        \
        key, offsetof(struct row, member), sizeof((struct row *)0)->member                                   \
    }
    N("ts_ns", e.ts_ns),     N("node", e.node),       N("chat", e.chat),         N("user", e.user),
    N("arg", e.arg),         N("conn", e.conn),       N("lane_seq", e.lane_seq), N("device", e.device),
    N("attempt", e.attempt), N("flags", e.flags),     N("source", source),       N("ts_us", ts_us),
    N("pid", s.pid),         N("process", s.process), N("writer", s.writer),     N("writers", s.writers),
    N("seed", s.seed),       N("emitted", s.emitted), N("dropped", s.dropped),
#undef N
};

static const char sides[HOP_COUNT] = {
#define HOP(name, text, side, arg) [HOP_##name] = #side[0],
#include "trace/events.def"
#undef HOP
};

static void fault(struct row *r, const char *what)
{
    if (!r->wrong)
        r->wrong = what;
}

static bool decimal(const char *s, uint64_t max, uint64_t *v)
{
    char *end;
    errno = 0;
    *v = isdigit((unsigned char)*s) ? strtoull(s, &end, 10) : (end = (char *)s, 0);
    return end != s && !*end && !errno && *v <= max;
}

static bool parse_flow(struct id *id, const char *s)
{
    unsigned v[12], n = 0;
    int end = 0;
    struct trace_flow f;
    if (sscanf(s, "%u.%u.%u.%u:%u>%u.%u.%u.%u:%u seq %u%n", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6],
               &v[7], &v[8], &v[9], &v[10], &end) != 11 ||
        s[end])
        return false;
    for (n = 0; n < 10; n++)
        if (v[n] > (n % 5 == 4 ? 65535u : 255u))
            return false;
    f = (struct trace_flow){.src = v[0] << 24 | v[1] << 16 | v[2] << 8 | v[3],
                            .dst = v[5] << 24 | v[6] << 16 | v[7] << 8 | v[8],
                            .sport = (uint16_t)v[4],
                            .dport = (uint16_t)v[9],
                            .tcp_seq = v[10]};
    memcpy(id, &f, sizeof *id);
    return true;
}

static bool set_number(struct row *r, const char *key, const char *value)
{
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        uint64_t v, max = UINT64_MAX >> (64 - 8 * numbers[i].size);
        if (strcmp(key, numbers[i].key))
            continue;
        if (!decimal(value, max, &v))
            fault(r, "a number is none, or too large");
        else
            memcpy((char *)r + numbers[i].at, &v, numbers[i].size); /* little-endian, see format_impl.h */
        r->has_source |= !strcmp(key, "source");
        r->has_node |= !strcmp(key, "node");
        r->timed |= !strcmp(key, "ts_ns") || !strcmp(key, "ts_us");
        return true;
    }
    return false;
}

static void set_hop(struct row *r, const char *value)
{
    for (int h = 0; h < HOP_COUNT; h++)
        if (!strcmp(value, hop_name(h)) || !strcmp(value, hop_text(h))) {
            r->e.hop = (uint8_t)h;
            return;
        }
    fault(r, "the hop is unknown");
}

void row_set(struct row *r, const char *key, const char *value)
{
    if (set_number(r, key, value))
        return;
    if (!strcmp(key, "hop")) {
        set_hop(r, value);
    } else if (!strcmp(key, "id")) {
        if (id_parse(&r->e.id, value, strlen(value)))
            fault(r, "the id is none");
    } else if (!strcmp(key, "flow")) {
        if (!parse_flow(&r->e.id, value))
            fault(r, "the flow is none");
    } else if (!strcmp(key, "reason")) {
        snprintf(r->reason, sizeof r->reason, "%s", value);
    } else if (!strcmp(key, "complete")) {
        r->complete = !strcmp(value, "true");
    } else if (!strcmp(key, "virtual_time")) {
        r->s.virtual_time = !strcmp(value, "true");
    } else if (!strcmp(key, "utc_offset_ns")) {
        r->s.utc_offset_ns = strtoll(value, NULL, 10);
    } else if (!strcmp(key, "name")) {
        snprintf(r->s.name, sizeof r->s.name, "%s", value);
    } else if (!strcmp(key, "host")) {
        snprintf(r->s.host, sizeof r->s.host, "%s", value);
    } else if (!strcmp(key, "path")) {
        snprintf(r->s.path, sizeof r->s.path, "%s", value);
    }
}

static void find_reason(struct row *r)
{
    uint64_t v;
    bool net = r->e.hop == HOP_SOCKET_OPEN;
    for (int i = 0; i < (net ? NET_COUNT : REASON_COUNT); i++)
        if (!strcmp(r->reason, net ? net_name(i) : reason_text(i))) {
            r->e.reason = (uint8_t)i;
            return;
        }
    if (net && !*r->reason)
        r->e.reason = NET_UNKNOWN;
    else if (decimal(r->reason, REASON_COUNT - 1, &v))
        r->e.reason = (uint8_t)v;
    else
        fault(r, "the reason is unknown");
}

void row_finish(struct row *r)
{
    if (r->wrong)
        return;
    if (r->e.hop == HOP_NONE) {
        r->s.node = r->e.node;
        return;
    }
    find_reason(r);
    if (!r->timed)
        fault(r, "it has no time");
    if (!r->e.ts_ns && r->ts_us <= UINT64_MAX / 1000)
        r->e.ts_ns = r->ts_us * 1000;
    if (!r->has_node) {
        char side = sides[r->e.hop];
        r->e.node = side == 'S'   ? TRACE_NODE_SERVER
                    : side == 'L' ? TRACE_NODE_LINK
                    : side == 'R' ? TRACE_NODE_RUN
                                  : TRACE_NODE_LOAD;
    }
}

/* ---- JSON ---- */

static char *blank(char *p)
{
    while (*p == ' ' || *p == '\t' || *p == '\r')
        p++;
    return p;
}

static char *put_utf8(char *o, unsigned c)
{
    if (c >= 0xd800 && c < 0xe000)
        c = '?'; /* names and ids have none of these */
    if (c < 0x80) {
        *o++ = (char)c;
    } else if (c < 0x800) {
        *o++ = (char)(0xc0 | c >> 6);
        *o++ = (char)(0x80 | (c & 63));
    } else {
        *o++ = (char)(0xe0 | c >> 12);
        *o++ = (char)(0x80 | (c >> 6 & 63));
        *o++ = (char)(0x80 | (c & 63));
    }
    return o;
}

/* At a quote: the text without escapes, in place; *end: behind the closing quote. NULL: no string. */
static char *string(char *p, char **end)
{
    static const char plain[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    if (*p++ != '"')
        return NULL;
    char *start = p, *o = p;
    while (*p && *p != '"') {
        const char *at;
        if (*p != '\\') {
            *o++ = *p++;
            continue;
        }
        if (*++p == 'u') {
            char hex[5] = {0}, *stop;
            memcpy(hex, p + 1, strnlen(p + 1, 4));
            unsigned long c = strtoul(hex, &stop, 16);
            if (stop != hex + 4 || !c)
                return NULL;
            o = put_utf8(o, (unsigned)c);
            p += 5;
        } else if (*p && (at = strchr(plain, *p))) {
            *o++ = meant[at - plain];
            p++;
        } else {
            return NULL;
        }
    }
    if (*p != '"')
        return NULL;
    *o = 0;
    *end = p + 1;
    return start;
}

/* Behind a value that is an object or an array; NULL: it has no end. */
static char *skip_nested(char *p)
{
    char open[DEPTH_MAX];
    int depth = 0;
    do {
        if (*p == '"') {
            char *end;
            if (!string(p, &end))
                return NULL;
            p = end;
            continue;
        }
        if (*p == '{' || *p == '[') {
            if (depth == DEPTH_MAX)
                return NULL;
            open[depth++] = *p == '{' ? '}' : ']';
        } else if (*p == '}' || *p == ']') {
            if (open[--depth] != *p)
                return NULL;
        } else if (!*p) {
            return NULL;
        }
        p++;
    } while (depth);
    return p;
}

/* A value as text; nested ones give "". *end: behind it, and what stood there is kept in *kept. */
static char *value(char *p, char **end, char *kept)
{
    if (*p == '"') {
        char *s = string(p, end);
        if (s)
            *kept = **end;
        return s;
    }
    if (*p == '{' || *p == '[') {
        *end = skip_nested(p);
        *kept = *end ? **end : 0;
        return *end ? p + strlen(p) : NULL;
    }
    char *s = p;
    while (*p && !strchr(",} \t\r", *p))
        p++;
    *end = p;
    *kept = *p;
    *p = 0;
    return p > s ? s : NULL;
}

void row_from_json(struct row *r, char *line)
{
    char *p = blank(line), *end, kept;
    if (*p != '{') {
        fault(r, "it is no JSON object");
        return;
    }
    p = blank(p + 1);
    while (*p != '}') {
        char *key = string(p, &end), *v;
        p = key ? blank(end) : p;
        if (!key || *p != ':' || !(v = value(blank(p + 1), &end, &kept))) {
            fault(r, "it is no JSON object");
            return;
        }
        if (strcmp(v, "null"))
            row_set(r, key, v);
        *end = kept;
        p = blank(end);
        if (*p == ',' && *(p = blank(p + 1)) != '"')
            p = ""; /* no key follows */
        if (!*p) {
            fault(r, "it is no JSON object");
            return;
        }
    }
    if (*blank(p + 1))
        fault(r, "something follows the JSON object");
}
