#include "wire/ws.h"

#include <string.h>

int ws_header_parse(struct ws_header *h, const void *data, size_t n)
{
    const uint8_t *p = data;
    if (n < 2)
        return 0;
    size_t extra = (p[1] & 0x7f) == 127 ? 8 : (p[1] & 0x7f) == 126 ? 2 : 0;
    size_t size = 2 + extra + (p[1] & 0x80 ? 4 : 0);
    if (n < size)
        return 0;
    h->fin = p[0] >> 7;
    h->rsv = p[0] >> 4 & 7;
    h->opcode = p[0] & 15;
    h->masked = p[1] >> 7;
    h->len = p[1] & 0x7f;
    if (extra) {
        h->len = 0;
        for (size_t i = 0; i < extra; i++)
            h->len = h->len << 8 | p[2 + i];
        if (h->len >> 63 || h->len <= (extra == 2 ? 125 : 0xffff))
            return ERR_INVALID;
    }
    memset(h->mask, 0, 4);
    if (h->masked)
        memcpy(h->mask, p + 2 + extra, 4);
    return (int)size;
}

size_t ws_header_encode(uint8_t out[WS_HEADER_MAX], const struct ws_header *h)
{
    size_t n = 2;
    out[0] = (uint8_t)(h->fin << 7 | h->rsv << 4 | h->opcode);
    out[1] = (uint8_t)(h->masked << 7);
    if (h->len <= 125) {
        out[1] |= (uint8_t)h->len;
    } else {
        int bytes = h->len <= 0xffff ? 2 : 8;
        out[1] |= bytes == 2 ? 126 : 127;
        for (int i = bytes - 1; i >= 0; i--)
            out[n++] = (uint8_t)(h->len >> (8 * i));
    }
    if (h->masked) {
        memcpy(out + n, h->mask, 4);
        n += 4;
    }
    return n;
}

void ws_mask(void *data, size_t n, const uint8_t mask[4], size_t phase)
{
    uint8_t *p = data, turned[8];
    for (size_t i = 0; i < 8; i++)
        turned[i] = mask[(phase + i) & 3];
    uint64_t m, w;
    memcpy(&m, turned, 8);
    for (; n >= 8; n -= 8, p += 8) {
        memcpy(&w, p, 8);
        w ^= m;
        memcpy(p, &w, 8);
    }
    for (size_t i = 0; i < n; i++)
        p[i] ^= turned[i];
}

void ws_frame(struct buf *out, enum ws_opcode opcode, const void *p, size_t n, const uint8_t *mask)
{
    struct ws_header h = {.fin = true, .opcode = (uint8_t)opcode, .masked = mask != NULL, .len = n};
    if (mask)
        memcpy(h.mask, mask, 4);
    uint8_t head[WS_HEADER_MAX];
    size_t head_n = ws_header_encode(head, &h);
    char *to = buf_reserve(out, head_n + n);
    if (!to)
        return;
    memcpy(to, head, head_n);
    if (n)
        memcpy(to + head_n, p, n);
    if (mask)
        ws_mask(to + head_n, n, mask, 0);
    out->len += head_n + n;
}

size_t ws_close_payload(uint8_t out[WS_CONTROL_MAX], int code, const char *text)
{
    size_t n = text ? strlen(text) : 0;
    if (n > WS_CONTROL_MAX - 2) {
        n = WS_CONTROL_MAX - 2;
        while (n && ((uint8_t)text[n] & 0xc0) == 0x80)
            n--;
    }
    out[0] = (uint8_t)(code >> 8);
    out[1] = (uint8_t)code;
    if (n)
        memcpy(out + 2, text, n);
    return n + 2;
}

bool ws_close_code_ok(int code)
{
    return (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006) ||
           (code >= 3000 && code <= 4999);
}

/* --- parser ------------------------------------------------------------------------------------------ */

void ws_parser_init(struct ws_parser *w, enum ws_peer_role role, uint32_t message_max)
{
    memset(w, 0, sizeof *w);
    buf_init(&w->held, (size_t)message_max + WS_CONTROL_MAX);
    w->role = (uint8_t)role;
}

void ws_parser_release(struct ws_parser *w)
{
    buf_release(&w->held);
}

bool ws_parser_midway(const struct ws_parser *w)
{
    return w->head_n || w->in_payload || w->message_opcode;
}

static int refuse(struct ws_parser *w, int close_code, int code, struct err_ctx *ctx, const char *what)
{
    w->closed = true;
    w->close_code = close_code;
    buf_release(&w->held);
    return err_set(ctx, code, "WebSocket stream, byte %llu: %s", (unsigned long long)w->offset, what);
}

static bool is_control(uint8_t opcode)
{
    return opcode & 8;
}

static int check_header(struct ws_parser *w, struct err_ctx *ctx)
{
    const struct ws_header *h = &w->h;
    const char *what = NULL;
    bool data = h->opcode <= WS_BINARY;
    size_t message_max = w->held.max - WS_CONTROL_MAX;
    if (!data && (h->opcode < WS_CLOSE || h->opcode > WS_PONG))
        what = "a reserved opcode";
    else if (h->rsv & (w->rsv1_allowed && data && h->opcode ? 3 : 7))
        what = "a reserved bit is set, but no extension was agreed on";
    else if (w->role != WS_FROM_ANYONE && h->masked != (w->role == WS_FROM_CLIENT))
        what = h->masked ? "a server's frame is masked" : "a client's frame is not masked";
    else if (!data && !h->fin)
        what = "a fragmented control frame";
    else if (!data && h->len > WS_CONTROL_MAX)
        what = "a control frame of more than 125 bytes";
    else if (data && !h->opcode && !w->message_opcode)
        what = "a continuation of no message";
    else if (data && h->opcode && w->message_opcode)
        what = "a new message inside a fragmented one";
    if (what)
        return refuse(w, WS_CLOSE_PROTOCOL, ERR_INVALID, ctx, what);
    if (data && h->len > message_max - w->message_held)
        return refuse(w, WS_CLOSE_TOO_BIG, ERR_LIMIT, ctx, "a message larger than the limit");
    return 0;
}

/* Collect the header; 1 when it is whole and fine. */
static int take_header(struct ws_parser *w, char **p, size_t *n, struct err_ctx *ctx)
{
    if (!w->head_n && !w->message_opcode)
        w->message_start = w->offset;
    int size = 0;
    while (*n && !size) { /* byte by byte: at most 14, and seldom more than 6 */
        w->head[w->head_n++] = (uint8_t) * (*p)++;
        --*n;
        w->offset++;
        size = ws_header_parse(&w->h, w->head, w->head_n);
    }
    if (size < 0)
        return refuse(w, WS_CLOSE_PROTOCOL, ERR_INVALID, ctx,
                      "a frame length that is not in its shortest form");
    if (!size)
        return 0;
    int rc = check_header(w, ctx);
    if (rc)
        return rc;
    w->head_n = 0;
    w->in_payload = true;
    w->left = w->frame_len = w->h.len;
    if (!is_control(w->h.opcode) && w->h.opcode) {
        w->message_opcode = w->h.opcode;
        w->message_rsv1 = w->h.rsv & 4;
        w->utf8 = (struct utf8){0};
    }
    return 1;
}

static int give_close(struct ws_parser *w, struct ws_message *m, struct err_ctx *ctx)
{
    struct utf8 u = {0};
    w->closed = true;
    m->close_code = WS_CLOSE_NONE;
    if (!m->n)
        return 1;
    m->close_code = m->n >= 2 ? (uint8_t)m->p[0] << 8 | (uint8_t)m->p[1] : 0;
    if (!ws_close_code_ok(m->close_code))
        return refuse(w, WS_CLOSE_PROTOCOL, ERR_INVALID, ctx, "a close code that must not be sent");
    m->p += 2;
    m->n -= 2;
    if (!utf8_feed(&u, m->p, m->n) || !utf8_whole(&u))
        return refuse(w, WS_CLOSE_NOT_UTF8, ERR_INVALID, ctx, "a close reason that is no UTF-8");
    return 1;
}

/* The frame is whole: `whole` points to its payload if it needed no copy. 1: a message is out. */
static int end_frame(struct ws_parser *w, char *whole, struct ws_message *m, struct err_ctx *ctx)
{
    bool control = is_control(w->h.opcode);
    w->in_payload = false;
    if (!control && !w->h.fin)
        return 0;
    *m = (struct ws_message){.start = w->message_start, .end = w->offset};
    if (control) {
        m->opcode = (enum ws_opcode)w->h.opcode;
        m->n = (size_t)w->frame_len;
        m->p = whole ? whole : w->held.data + w->message_held;
        w->held.len = w->message_held; /* the bytes stay readable until the next call */
        m->start = m->end - m->n - (w->h.masked ? 6 : 2);
        return m->opcode == WS_CLOSE ? give_close(w, m, ctx) : 1;
    }
    m->opcode = (enum ws_opcode)w->message_opcode;
    m->rsv1 = w->message_rsv1;
    if (m->opcode == WS_TEXT && !m->rsv1 && !utf8_whole(&w->utf8))
        return refuse(w, WS_CLOSE_NOT_UTF8, ERR_INVALID, ctx, "a text message that ends inside a character");
    m->n = whole ? (size_t)w->frame_len : w->held.len;
    m->p = whole ? whole : w->held.data;
    w->message_opcode = 0;
    w->message_held = 0; /* held itself goes with the next call */
    return 1;
}

/* Payload bytes of the piece. 1: a message is out. */
static int take_payload(struct ws_parser *w, char **p, size_t *n, struct ws_message *m, struct err_ctx *ctx)
{
    size_t take = w->left < *n ? (size_t)w->left : *n;
    char *from = *p, *whole = NULL;
    bool control = is_control(w->h.opcode);
    if (w->h.masked)
        ws_mask(from, take, w->h.mask, (size_t)(w->frame_len - w->left));
    *p += take;
    *n -= take;
    w->offset += take;
    w->left -= take;
    if (!control && w->message_opcode == WS_TEXT && !w->message_rsv1 && !utf8_feed(&w->utf8, from, take))
        return refuse(w, WS_CLOSE_NOT_UTF8, ERR_INVALID, ctx, "a text message that is no UTF-8");
    if (take == w->frame_len && (control || (w->h.fin && !w->message_held))) {
        whole = from; /* nothing of it was held: give it from where it lies */
    } else {
        buf_add(&w->held, from, take);
        if (w->held.failed)
            return refuse(w, WS_CLOSE_TOO_BIG, ERR_NOMEM, ctx, "out of memory");
        if (!control)
            w->message_held = w->held.len;
    }
    return w->left ? 0 : end_frame(w, whole, m, ctx);
}

int ws_parser_next(struct ws_parser *w, char **p, size_t *n, struct ws_message *m, struct err_ctx *ctx)
{
    if (!w->message_held && !w->in_payload)
        buf_release(&w->held);
    while (!w->closed) {
        int rc = w->in_payload ? 1 : take_header(w, p, n, ctx);
        if (rc <= 0)
            return rc;
        if (w->left && !*n)
            return 0;
        rc = take_payload(w, p, n, m, ctx);
        if (rc)
            return rc;
    }
    if (w->close_code)
        return err_set(ctx, ERR_INVALID, "WebSocket stream, byte %llu: given up before",
                       (unsigned long long)w->offset);
    w->offset += *n;
    *p += *n;
    *n = 0;
    return 0;
}
