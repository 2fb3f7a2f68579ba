/* Applying a dialect to a message. */
#include <string.h>

#include "wire/dialect_impl.h"

struct item { /* a value, and the prefix that stood before it */
    const char *p, *end;
    struct chat_text type, space, ack;
};

/* The pieces of a string's inside without its escapes, in the dialect's room. False: it does not fit. */
static bool unescape(struct dialect *d, struct chat_text s, struct chat_text *out)
{
    char *to = d->room + d->room_used, *from = to;
    if (s.n > DIALECT_ROOM - d->room_used)
        return false;
    for (uint32_t i = 0; i < s.n; i++) {
        if (s.p[i] != '\\' || i + 1 >= s.n) {
            *to++ = s.p[i];
            continue;
        }
        char c = s.p[++i];
        switch (c) {
        case 'b':
            *to++ = '\b';
            break;
        case 'f':
            *to++ = '\f';
            break;
        case 'n':
            *to++ = '\n';
            break;
        case 'r':
            *to++ = '\r';
            break;
        case 't':
            *to++ = '\t';
            break;
        case 'u': /* stays an escape: it can only stand inside a string of the inner text */
            *to++ = '\\';
            *to++ = 'u';
            break;
        default:
            *to++ = c;
        }
    }
    d->room_used += (uint32_t)(to - from);
    *out = (struct chat_text){from, (uint32_t)(to - from)};
    return true;
}

/* One step of a pointer: ~0 is ~, ~1 is /. */
static bool key_is(struct chat_text key, const char *step, size_t n)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++, k++) {
        char c = step[i];
        if (c == '~' && i + 1 < n && (step[i + 1] == '0' || step[i + 1] == '1'))
            c = step[++i] == '0' ? '~' : '/';
        if (k >= key.n || key.p[k] != c)
            return false;
    }
    return k == key.n;
}

/* From the object or array at j to the member that the step names: j stands before its value then. */
static bool enter(struct scan_at *j, const char *step, size_t n)
{
    struct chat_text key, v;
    char type;
    scan_blank(j);
    bool array = j->p < j->end && *j->p == '[';
    uint64_t want = 0;
    if (j->p >= j->end || (*j->p != '{' && !array) ||
        (array && !scan_u64((struct chat_text){step, (uint32_t)n}, &want)))
        return false;
    j->p++;
    for (uint64_t i = 0;; i++) {
        scan_blank(j);
        if (!array) {
            if (!scan_string(j, &key))
                return false;
            scan_blank(j);
            if (j->p >= j->end || *j->p++ != ':')
                return false;
        }
        if (array ? i == want : key_is(key, step, n))
            return true;
        if (!scan_value(j, &v, &type))
            return false;
        scan_blank(j);
        if (j->p >= j->end || *j->p++ != ',')
            return false;
    }
}

/* What a pointer points to; a string's inside without quotes. null is nothing. */
static bool find(struct dialect *d, const struct item *i, const char *pointer, struct chat_text *out,
                 char *type)
{
    struct scan_at j = {i->p, i->end};
    *type = '"';
    if (*pointer == '@') {
        *out = !strcmp(pointer, "@type") ? i->type : !strcmp(pointer, "@ack") ? i->ack : i->space;
        return out->n > 0;
    }
    while (*pointer) {
        if (*pointer == '#') {
            if (!scan_value(&j, out, type) || *type != '"' || !unescape(d, *out, out))
                return false;
            j = (struct scan_at){out->p, out->p + out->n};
            pointer++;
            continue;
        }
        const char *step = ++pointer;
        pointer += strcspn(pointer, "/#");
        if (!enter(&j, step, (size_t)(pointer - step)))
            return false;
    }
    /* a bare number at the very end has no delimiter behind it: prefixes only, so not here */
    return scan_value(&j, out, type) && *type != 'n';
}

static bool fits(struct dialect *d, const struct dialect_entry *e, bool from_client, const struct item *i)
{
    struct chat_text v;
    char type;
    if (e->from && (e->from == 1) != from_client)
        return false;
    for (int w = 0; w < e->whens; w++) {
        const struct dialect_when *c = &e->when[w];
        if (!find(d, i, c->pointer, &v, &type))
            return false;
        if (!c->any && (v.n != strlen(c->value) || memcmp(v.p, c->value, v.n) != 0))
            return false;
    }
    return true;
}

static void field(struct dialect *d, const struct item *i, const char *pointer, struct chat_text *out)
{
    struct chat_text v;
    char type;
    if (*pointer && find(d, i, pointer, &v, &type) && type != '{' && type != '[')
        *out = v;
}

static void take(struct dialect *d, const struct dialect_entry *e, const struct item *i,
                 struct chat_item *out)
{
    struct chat_text seq = {0};
    if (e->t[0] == '=')
        out->t = (struct chat_text){e->t + 1, (uint32_t)strlen(e->t + 1)};
    else
        field(d, i, e->t, &out->t);
    field(d, i, e->id, &out->id);
    field(d, i, e->chat, &out->chat);
    field(d, i, e->sender, &out->from);
    field(d, i, e->ack, &out->ack);
    field(d, i, e->seq, &seq);
    out->has_seq = scan_u64(seq, &out->seq);
    out->role = e->role;
}

/* 4 2 /namespace, 17 [...]: Engine.IO's type, Socket.IO's, attachments "n-", namespace, acknowledgement. */
static bool read_prefix(struct item *i)
{
    const char *p = i->p, *end = i->end, *digits;
    if (end - p < 2 || *p++ != '4')
        return false;
    i->type = (struct chat_text){p++, 1};
    for (digits = p; p < end && *p >= '0' && *p <= '9';)
        p++;
    if (p < end && *p == '-' && p > digits)
        p++;
    else
        p = digits;
    if (p < end && *p == '/') {
        const char *comma = memchr(p, ',', (size_t)(end - p));
        i->space = (struct chat_text){p, (uint32_t)((comma ? comma : end) - p)};
        p = comma ? comma + 1 : end;
    }
    for (digits = p; p < end && *p >= '0' && *p <= '9';)
        p++;
    i->ack = (struct chat_text){digits, (uint32_t)(p - digits)};
    i->p = p;
    return true;
}

int dialect_scan(struct dialect *d, bool from_client, const char *p, size_t n, struct chat_item *out, int max)
{
    const char *end = p + n;
    int k = 0;
    d->room_used = 0;
    while (p < end && k < max) {
        const char *stop = d->framing == DIALECT_LINES ? memchr(p, '\n', (size_t)(end - p)) : NULL;
        struct item i = {.p = p, .end = stop ? stop : end};
        p = stop ? stop + 1 : end;
        if (i.p == i.end || (d->framing == DIALECT_SOCKET_IO && !read_prefix(&i)))
            continue;
        out[k] = (struct chat_item){.at = {i.p, (uint32_t)(i.end - i.p)}};
        for (uint32_t e = 0; e < d->entries; e++)
            if (fits(d, &d->entry[e], from_client, &i)) {
                take(d, &d->entry[e], &i, &out[k]);
                break;
            }
        k++;
    }
    return k;
}
