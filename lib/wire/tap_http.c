/* The opening handshake, seen from outside. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "wire/tap_impl.h"

enum tap_first tap_classify(const uint8_t *p, size_t n)
{
    static const char *const starts[] = {"GET ",    "POST ",  "PUT ",     "HEAD ",
                                         "DELETE ", "PATCH ", "OPTIONS ", "CONNECT "};
    if (n && p[0] == 0x16) {
        if (n < 3)
            return FIRST_MORE;
        return p[1] == 3 && p[2] <= 4 ? FIRST_TLS : FIRST_OTHER;
    }
    bool more = n < 7 && memcmp(p, "HTTP/1.", n) == 0;
    if (n >= 7 && memcmp(p, "HTTP/1.", 7) == 0)
        return FIRST_ANSWER;
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        size_t k = strlen(starts[i]);
        if (n >= k && memcmp(p, starts[i], k) == 0)
            return FIRST_REQUEST;
        more |= n < k && memcmp(p, starts[i], n) == 0;
    }
    return more ? FIRST_MORE : FIRST_OTHER;
}

/* The value of a header, trimmed, or NULL. */
static const char *header(const char *p, size_t n, const char *name, size_t *len)
{
    const char *end = p + n;
    size_t k = strlen(name);
    for (const char *line; (line = memchr(p, '\n', (size_t)(end - p))) != NULL;) {
        p = line + 1;
        if ((size_t)(end - p) <= k || p[k] != ':' || strncasecmp(p, name, k) != 0)
            continue;
        const char *v = p + k + 1, *stop = memchr(v, '\n', (size_t)(end - v));
        stop = stop ? stop : end;
        while (v < stop && (*v == ' ' || *v == '\t'))
            v++;
        while (stop > v && (stop[-1] == '\r' || stop[-1] == ' ' || stop[-1] == '\t'))
            stop--;
        *len = (size_t)(stop - v);
        return v;
    }
    *len = 0;
    return NULL;
}

static void copy_text(char *out, size_t cap, const char *p, size_t n)
{
    n = n < cap - 1 ? n : cap - 1;
    for (size_t i = 0; i < n; i++)
        out[i] = p[i] > ' ' && p[i] < 0x7f ? p[i] : '?';
    out[n] = 0;
}

static bool wants_websocket(const char *p, size_t n)
{
    size_t len;
    const char *v = header(p, n, "Upgrade", &len);
    return v && ws_list_has(v, len, "websocket");
}

static void take_request(struct tap_at *a, const char *p, size_t n)
{
    const char *path = memchr(p, ' ', n),
               *stop = path ? memchr(path + 1, ' ', n - (size_t)(path + 1 - p)) : NULL;
    a->s->state = TAP_IDLE;
    if (!wants_websocket(p, n))
        return;
    a->s->state = TAP_WAIT;
    a->c->asked = true;
    if (stop)
        copy_text(a->c->path, sizeof a->c->path, path + 1, (size_t)(stop - path - 1));
    tap_set_kind(a, TAP_WEBSOCKET);
}

static void take_answer(struct tap_at *a, const char *p, size_t n)
{
    size_t len;
    struct tap_side *client = &a->c->side[!a->dir];
    bool switched = n >= 12 && memcmp(p + 8, " 101", 4) == 0 && wants_websocket(p, n);
    a->s->state = switched ? TAP_FRAMES : TAP_IDLE;
    if (!switched) {
        if (n >= 10 && p[9] != '1' && client->state == TAP_WAIT)
            client->state = TAP_IDLE;
        return;
    }
    a->c->answered = true;
    a->s->guess = client->guess = false;
    tap_set_kind(a, TAP_WEBSOCKET);
    const char *v = header(p, n, "Sec-WebSocket-Protocol", &len);
    if (v)
        copy_text(a->c->subprotocol, sizeof a->c->subprotocol, v, len);
    v = header(p, n, "Sec-WebSocket-Extensions", &len);
    if (v && ws_deflate_agree(&a->c->deflate, v, len, NULL) < 0)
        /* not valid, but somebody may use it all the same */
        a->c->deflate = (struct ws_deflate){true, true, true, 15, 15};
    if (client->state == TAP_IDLE || client->state == TAP_WAIT)
        client->state = TAP_FRAMES;
}

void tap_http_head(struct tap_at *a, const char *p, size_t n)
{
    if (a->c->kind == TAP_UNKNOWN)
        tap_set_kind(a, TAP_HTTP);
    if (memcmp(p, "HTTP/", 5) == 0)
        take_answer(a, p, n);
    else
        take_request(a, p, n);
}
