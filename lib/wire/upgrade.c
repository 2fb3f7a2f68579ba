#include "wire/ws.h"

#include <string.h>
#include <strings.h>

#include "wire/sha1.h"

/* base64 with padding (RFC 4648 section 4) of less than 32 bytes. */
static void base64(char *out, const uint8_t *p, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v =
            (uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0) | (i + 2 < n ? p[i + 2] : 0);
        *out++ = digits[v >> 18];
        *out++ = digits[v >> 12 & 63];
        *out++ = i + 1 < n ? digits[v >> 6 & 63] : '=';
        *out++ = i + 2 < n ? digits[v & 63] : '=';
    }
    *out = 0;
}

void ws_accept(char out[WS_ACCEPT_TEXT + 1], const char *key, size_t n)
{
    static const char magic[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    char text[64 + sizeof magic];
    uint8_t hash[20];
    n = n > 64 ? 64 : n;
    memcpy(text, key, n);
    memcpy(text + n, magic, sizeof magic - 1);
    sha1(hash, text, n + sizeof magic - 1);
    base64(out, hash, sizeof hash);
}

void ws_key(char out[WS_KEY_TEXT + 1], const uint8_t random[16])
{
    base64(out, random, 16);
}

void ws_upgrade_request(struct buf *out, const char *host, const char *path, const char *key,
                        const char *subprotocol, const char *extra)
{
    buf_printf(out,
               "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
               "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n",
               path, host, key);
    if (subprotocol)
        buf_printf(out, "Sec-WebSocket-Protocol: %s\r\n", subprotocol);
    if (extra)
        buf_str(out, extra);
    buf_str(out, "\r\n");
}

void ws_upgrade_response(struct buf *out, const char *key, size_t key_n, const char *subprotocol)
{
    char accept[WS_ACCEPT_TEXT + 1];
    ws_accept(accept, key, key_n);
    buf_printf(out,
               "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
               "Sec-WebSocket-Accept: %s\r\n",
               accept);
    if (subprotocol)
        buf_printf(out, "Sec-WebSocket-Protocol: %s\r\n", subprotocol);
    buf_str(out, "\r\n");
}

/* A piece of the head; p is NULL when absent. */
struct part {
    const char *p;
    size_t n;
};

static struct part trim(struct part s)
{
    while (s.n && (*s.p == ' ' || *s.p == '\t')) {
        s.p++;
        s.n--;
    }
    while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
        s.n--;
    return s;
}

static bool part_is(struct part s, const char *text)
{
    return s.n == strlen(text) && strncasecmp(s.p, text, s.n) == 0;
}

bool ws_list_has(const char *list, size_t n, const char *name)
{
    const char *p = list, *end = n ? list + n : list; /* an absent list is NULL */
    while (p && p < end) {
        const char *comma = memchr(p, ',', (size_t)(end - p));
        const char *stop = comma ? comma : end;
        if (part_is(trim((struct part){p, (size_t)(stop - p)}), name))
            return true;
        p = comma ? comma + 1 : end;
    }
    return false;
}

enum header {
    H_HOST,
    H_UPGRADE,
    H_CONNECTION,
    H_KEY,
    H_VERSION,
    H_PROTOCOL,
    H_EXTENSIONS,
    H_ACCEPT,
    H_COUNT
};
static const char *const header_names[H_COUNT] = {"Host",
                                                  "Upgrade",
                                                  "Connection",
                                                  "Sec-WebSocket-Key",
                                                  "Sec-WebSocket-Version",
                                                  "Sec-WebSocket-Protocol",
                                                  "Sec-WebSocket-Extensions",
                                                  "Sec-WebSocket-Accept"};

/* Split the head. Returns its length, 0 when it is not whole yet, or an error; `line` is its first line. */
static int split_head(const char *p, size_t n, struct part *line, struct part h[H_COUNT], struct err_ctx *ctx)
{
    size_t seen = n < WS_UPGRADE_MAX ? n : WS_UPGRADE_MAX;
    const char *end = seen ? memmem(p, seen, "\r\n\r\n", 4) : NULL, *at = p;
    memset(h, 0, H_COUNT * sizeof *h);
    if (!end)
        return n >= WS_UPGRADE_MAX ? err_set(ctx, ERR_LIMIT, "an HTTP head of more than 8 KiB") : 0;
    for (bool first = true; at < end + 2; first = false) {
        const char *stop = memmem(at, (size_t)(end + 2 - at), "\r\n", 2);
        struct part text = {at, (size_t)(stop - at)};
        at = stop + 2;
        if (first) {
            *line = text;
            continue;
        }
        const char *colon = text.n ? memchr(text.p, ':', text.n) : NULL;
        if (!colon || colon == text.p || memchr(text.p, ' ', (size_t)(colon - text.p)))
            return err_set(ctx, ERR_INVALID, "an HTTP header line without a name");
        struct part name = {text.p, (size_t)(colon - text.p)};
        struct part value = trim((struct part){colon + 1, text.n - name.n - 1});
        for (int i = 0; i < H_COUNT; i++) {
            if (!part_is(name, header_names[i]))
                continue;
            if (h[i].p && i != H_CONNECTION && i != H_PROTOCOL && i != H_EXTENSIONS)
                return err_set(ctx, ERR_INVALID, "the HTTP header %s stands twice", header_names[i]);
            if (!h[i].p || !ws_list_has(h[i].p, h[i].n, "upgrade"))
                h[i] = value;
        }
    }
    return (int)(end + 4 - p);
}

static int check_common(const struct part h[H_COUNT], struct err_ctx *ctx)
{
    if (!ws_list_has(h[H_UPGRADE].p, h[H_UPGRADE].n, "websocket"))
        return err_set(ctx, ERR_INVALID, "no 'Upgrade: websocket'");
    if (!ws_list_has(h[H_CONNECTION].p, h[H_CONNECTION].n, "upgrade"))
        return err_set(ctx, ERR_INVALID, "no 'Connection: Upgrade'");
    return 0;
}

int ws_upgrade_check(const char *p, size_t n, const char *key, const char *subprotocol, int *status,
                     struct err_ctx *ctx)
{
    struct part line, h[H_COUNT];
    char accept[WS_ACCEPT_TEXT + 1];
    *status = 0;
    int head = split_head(p, n, &line, h, ctx);
    if (head <= 0)
        return head;
    if (line.n < 12 || memcmp(line.p, "HTTP/1.1 ", 9) != 0 || (line.n > 12 && line.p[12] != ' '))
        return err_set(ctx, ERR_INVALID, "the answer is not HTTP/1.1");
    for (int i = 9; i < 12; i++) {
        if (line.p[i] < '0' || line.p[i] > '9')
            return err_set(ctx, ERR_INVALID, "the answer has no status");
        *status = *status * 10 + (line.p[i] - '0');
    }
    if (*status != 101)
        return err_set(ctx, ERR_UNAVAILABLE, "the server answered %.*s",
                       (int)(line.n - 9 > 60 ? 60 : line.n - 9), line.p + 9);
    int rc = check_common(h, ctx);
    if (rc)
        return rc;
    ws_accept(accept, key, strlen(key));
    if (h[H_ACCEPT].n != WS_ACCEPT_TEXT || memcmp(h[H_ACCEPT].p, accept, WS_ACCEPT_TEXT) != 0)
        return err_set(ctx, ERR_INVALID, "Sec-WebSocket-Accept does not fit the key");
    if (h[H_EXTENSIONS].n)
        return err_set(ctx, ERR_INVALID, "the server uses an extension that was not offered");
    if (h[H_PROTOCOL].p && !subprotocol)
        return err_set(ctx, ERR_INVALID, "the server chose a subprotocol, but none was offered");
    if (subprotocol && !(h[H_PROTOCOL].p && part_is(h[H_PROTOCOL], subprotocol)))
        return err_set(ctx, ERR_INVALID, "the server does not speak %s", subprotocol);
    return head;
}

int ws_upgrade_parse(struct ws_request *r, const char *p, size_t n, struct err_ctx *ctx)
{
    struct part line, h[H_COUNT];
    *r = (struct ws_request){0};
    int head = split_head(p, n, &line, h, ctx);
    if (head <= 0)
        return head;
    const char *space = line.n > 4 ? memchr(line.p + 4, ' ', line.n - 4) : NULL;
    if (!space || memcmp(line.p, "GET ", 4) != 0 ||
        !part_is((struct part){space + 1, line.n - (size_t)(space + 1 - line.p)}, "HTTP/1.1"))
        return err_set(ctx, ERR_INVALID, "the request is no HTTP/1.1 GET");
    int rc = check_common(h, ctx);
    if (rc)
        return rc;
    if (!h[H_HOST].p)
        return err_set(ctx, ERR_INVALID, "no Host header");
    if (!h[H_VERSION].p || !part_is(h[H_VERSION], "13"))
        return err_set(ctx, ERR_INVALID, "Sec-WebSocket-Version is not 13");
    if (h[H_KEY].n != WS_KEY_TEXT || memcmp(h[H_KEY].p + 22, "==", 2) != 0)
        return err_set(ctx, ERR_INVALID, "Sec-WebSocket-Key is not base64 of 16 bytes");
    *r = (struct ws_request){.path = line.p + 4,
                             .path_n = (size_t)(space - line.p - 4),
                             .host = h[H_HOST].p,
                             .host_n = h[H_HOST].n,
                             .key = h[H_KEY].p,
                             .key_n = h[H_KEY].n,
                             .protocols = h[H_PROTOCOL].p,
                             .protocols_n = h[H_PROTOCOL].n};
    return head;
}
