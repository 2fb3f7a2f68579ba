#include "wire/chat.h"

#include <string.h>

void scan_blank(struct scan_at *j)
{
    while (j->p < j->end && (*j->p == ' ' || *j->p == '\n' || *j->p == '\t' || *j->p == '\r'))
        j->p++;
}

bool scan_string(struct scan_at *j, struct chat_text *s)
{
    const char *p = j->p;
    if (p >= j->end || *p != '"')
        return false;
    const char *from = ++p;
    for (;;) {
        const char *q = memchr(p, '"', (size_t)(j->end - p));
        if (!q)
            return false;
        const char *b = q;
        while (b > from && b[-1] == '\\')
            b--;
        p = q + 1;
        if ((q - b) % 2 == 0) {
            *s = (struct chat_text){from, (uint32_t)(q - from)};
            j->p = p;
            return true;
        }
    }
}

/* Past an object or array, whatever it holds. */
static bool skip_nested(struct scan_at *j)
{
    struct chat_text s;
    int depth = 0;
    while (j->p < j->end) {
        char c = *j->p;
        if (c == '"') {
            if (!scan_string(j, &s))
                return false;
            continue;
        }
        depth += (c == '{' || c == '[') - (c == '}' || c == ']');
        j->p++;
        if (depth == 0)
            return true;
    }
    return false;
}

bool scan_value(struct scan_at *j, struct chat_text *s, char *type)
{
    scan_blank(j);
    if (j->p >= j->end)
        return false;
    const char *from = j->p;
    *type = *from;
    if (*from == '"')
        return scan_string(j, s);
    if (*from == '{' || *from == '[') {
        bool whole = skip_nested(j);
        *s = (struct chat_text){from, (uint32_t)(j->p - from)};
        return whole;
    }
    while (j->p < j->end && *j->p != ',' && *j->p != '}' && *j->p != ']' && (uint8_t)*j->p > ' ')
        j->p++;
    *s = (struct chat_text){from, (uint32_t)(j->p - from)};
    return j->p > from && j->p < j->end;
}

bool scan_u64(struct chat_text s, uint64_t *v)
{
    *v = 0;
    if (!s.n || s.n > 19)
        return false;
    for (uint32_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        *v = *v * 10 + (unsigned)(s.p[i] - '0');
    }
    return true;
}

static bool is(struct chat_text s, const char *text, uint32_t n)
{
    return s.n == n && memcmp(s.p, text, n) == 0;
}

static enum chat_role role_of(struct chat_text t)
{
    return is(t, "send", 4)       ? CHAT_SEND
           : is(t, "msg", 3)      ? CHAT_PUSH
           : is(t, "accepted", 8) ? CHAT_ACCEPT
           : is(t, "ack", 3)      ? CHAT_ACK
                                  : CHAT_OTHER;
}

static void note(struct chat_item *m, struct chat_text key, struct chat_text v, char type)
{
    bool string = type == '"', number = type >= '0' && type <= '9';
    switch (key.n) {
    case 1:
        if (key.p[0] == 't' && string)
            m->t = v;
        break;
    case 2:
        if (is(key, "id", 2) && string)
            m->id = v;
        break;
    case 3:
        if (is(key, "seq", 3) && number)
            m->has_seq = scan_u64(v, &m->seq);
        break;
    case 4:
        if (is(key, "chat", 4) && (string || number))
            m->chat = v;
        else if (is(key, "from", 4) && string)
            m->from = v;
        break;
    default:
        break;
    }
}

/* An object; what was read of a cut one stays. False: it is cut, or none. */
static bool scan_object(struct scan_at *j, struct chat_item *m)
{
    struct chat_text key, v;
    char type;
    *m = (struct chat_item){.at = {j->p, 0}};
    j->p++;
    for (;;) {
        scan_blank(j);
        if (j->p < j->end && *j->p == '}') {
            j->p++;
            m->at.n = (uint32_t)(j->p - m->at.p);
            return true;
        }
        if (!scan_string(j, &key))
            return false;
        scan_blank(j);
        if (j->p >= j->end || *j->p++ != ':' || !scan_value(j, &v, &type))
            return false;
        note(m, key, v, type);
        scan_blank(j);
        if (j->p < j->end && *j->p == ',')
            j->p++;
        else if (j->p >= j->end || *j->p != '}')
            return false;
    }
}

int chat_scan_json(const char *p, size_t n, struct chat_item *out, int max)
{
    struct scan_at j = {p, p + n};
    int k = 0;
    scan_blank(&j);
    bool array = j.p < j.end && *j.p == '[';
    if (array)
        j.p++;
    while (k < max) {
        scan_blank(&j);
        if (j.p >= j.end || *j.p != '{')
            break;
        const char *from = j.p;
        bool whole = scan_object(&j, &out[k]);
        if (!whole)
            out[k].at = (struct chat_text){from, (uint32_t)(j.end - from)};
        out[k].role = (uint8_t)role_of(out[k].t);
        k++;
        scan_blank(&j);
        if (!whole || !array || j.p >= j.end || *j.p != ',')
            break;
        j.p++;
    }
    return k;
}
