#include "netem/proxy/follow_impl.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define BLOCK 4096

struct follow *follow_new(const struct proxy_rules *rules)
{
    struct follow *f = calloc(1, sizeof *f);
    if (f) {
        f->rules = rules;
        for (int d = 0; d < 2; d++)
            buf_init(&f->way[d].head, WS_UPGRADE_MAX);
    }
    return f;
}

static void way_release(struct follow_way *w)
{
    buf_release(&w->head);
    ws_inflate_free(w->inflate);
    w->inflate = NULL;
}

void follow_free(struct follow *f)
{
    if (f) {
        way_release(&f->way[0]);
        way_release(&f->way[1]);
    }
    free(f);
}

static void give_up(struct follow *f)
{
    for (int d = 0; d < 2; d++) {
        way_release(&f->way[d]);
        f->way[d].phase = FOLLOW_PLAIN;
    }
}

/* --- the handshake ------------------------------------------------------------------------------------ */

/* The next header line with this name from *at on; false: there is none. The head ends with an empty line. */
static bool header_line(const char **at, const char *end, const char *name, const char **value, size_t *n)
{
    size_t len = strlen(name);
    const char *p = *at, *stop;
    while ((stop = memmem(p, (size_t)(end - p), "\r\n", 2))) {
        const char *line = p;
        p = stop + 2;
        if ((size_t)(stop - line) <= len || line[len] != ':' || strncasecmp(line, name, len))
            continue;
        *value = line + len + 1;
        *n = (size_t)(stop - *value);
        *at = p;
        return true;
    }
    return false;
}

static bool upgrades(const char *head, const char *end)
{
    const char *at = head, *value;
    size_t n;
    while (header_line(&at, end, "Upgrade", &value, &n)) {
        if (ws_list_has(value, n, "websocket"))
            return true;
    }
    return false;
}

/* The answer: which extension was agreed on. */
static void agree(struct follow *f, const char *head, const char *end)
{
    const char *at = head, *value;
    size_t n;
    for (bool first = true; header_line(&at, end, "Sec-WebSocket-Extensions", &value, &n); first = false)
        f->other_extension |= !first || ws_deflate_agree(&f->deflate, value, n, NULL) < 0;
}

static void start_frames(struct follow *f)
{
    for (int d = 0; d < 2; d++) {
        struct follow_way *w = &f->way[d];
        w->phase = FOLLOW_FRAMES;
        buf_release(&w->head);
        if (!f->deflate.agreed || f->other_extension)
            continue;
        bool up = d == NETEM_UP;
        if (ws_inflate_new(&w->inflate, up ? f->deflate.client_takeover : f->deflate.server_takeover,
                           FOLLOW_TEXT_MAX))
            w->inflate = NULL; /* ids are not seen then */
    }
}

void follow_assume(struct follow *f, const struct ws_deflate *deflate)
{
    f->asked = true;
    f->deflate = *deflate;
    start_frames(f);
}

static size_t take_head(struct follow *f, enum netem_dir d, const char *p, size_t n)
{
    struct buf *head = &f->way[d].head;
    size_t before = head->len, room = WS_UPGRADE_MAX - before, from = before > 3 ? before - 3 : 0;
    /* a server that speaks first, or something that is no request for an upgrade, is seen at once */
    if ((d == NETEM_DOWN && !f->asked) || (d == NETEM_UP && (f->asked || (!before && *p != 'G')))) {
        give_up(f);
        return n;
    }
    buf_add(head, p, n < room ? n : room);
    const char *end = head->failed ? NULL : memmem(head->data + from, head->len - from, "\r\n\r\n", 4);
    if (!end) {
        if (head->failed || n >= room)
            give_up(f);
        return n;
    }
    size_t used = (size_t)(end + 4 - head->data) - before;
    if (d == NETEM_UP) {
        f->asked = head->len > 4 && !memcmp(head->data, "GET ", 4) && upgrades(head->data, end + 4);
        if (!f->asked)
            give_up(f);
        buf_release(head);
    } else if (head->len < 12 || memcmp(head->data, "HTTP/1.1 101", 12) || !upgrades(head->data, end + 4)) {
        give_up(f);
    } else {
        agree(f, head->data, end + 4);
        start_frames(f);
    }
    return used;
}

/* --- frames ------------------------------------------------------------------------------------------- */

static size_t take_header(struct follow *f, struct follow_way *w, const char *p, size_t n,
                          struct follow_step *s)
{
    size_t used = 0;
    int size = 0;
    while (used < n && !size) {
        w->header[w->header_n++] = (uint8_t)p[used++];
        size = ws_header_parse(&w->h, w->header, w->header_n);
    }
    if (size < 0) {
        give_up(f);
        return used;
    }
    if (!size)
        return used;
    w->header_n = 0;
    w->left = w->h.len;
    w->in_frame = true;
    w->frames++;
    bool control = w->h.opcode & 8;
    *(control ? &w->control : &w->data) += 1;
    s->begin = true;
    s->header_n = (size_t)size;
    if (!control && w->h.opcode != WS_CONTINUATION) {
        search_reset(&w->search);
        w->binary = w->h.opcode == WS_BINARY;
        w->compressed = w->h.rsv & 4;
        w->unreadable = (w->h.rsv & 3) || (w->compressed && !w->inflate);
    }
    return used;
}

struct feeding {
    struct follow *f;
    struct follow_way *w;
    uint32_t found;
};

static void take_text(void *arg, const uint8_t *p, size_t n)
{
    struct feeding *x = arg;
    x->found |= search_feed(&x->w->search, x->f->rules, x->w->binary, p, n);
}

static void read_along(struct feeding *x, const uint8_t *p, size_t n, bool end)
{
    struct follow_way *w = x->w;
    if (!w->compressed) {
        take_text(x, p, n);
    } else if (ws_inflate_feed(w->inflate, p, n, end, take_text, x, NULL)) {
        ws_inflate_free(w->inflate); /* the window is lost, for this message and all after it */
        w->inflate = NULL;
        w->unreadable = true;
    }
}

static size_t take_payload(struct follow *f, struct follow_way *w, const char *p, size_t n,
                           struct follow_step *s)
{
    uint8_t plain[BLOCK];
    struct feeding x = {f, w, 0};
    size_t take = w->left < n ? (size_t)w->left : n;
    if (take > BLOCK)
        take = BLOCK;
    bool control = w->h.opcode & 8, last = take == w->left;
    if (!control && !w->unreadable) {
        const uint8_t *at = (const uint8_t *)p;
        if (w->h.masked && take) {
            memcpy(plain, p, take);
            ws_mask(plain, take, w->h.mask, (size_t)((w->h.len - w->left) & 3));
            at = plain;
        }
        read_along(&x, at, take, last && w->h.fin);
    }
    w->left -= take;
    s->found = x.found;
    s->end = last;
    w->in_frame = !last;
    return take;
}

size_t follow_next(struct follow *f, enum netem_dir d, const char *p, size_t n, struct follow_step *s)
{
    struct follow_way *w = &f->way[d];
    size_t used = 0;
    memset(s, 0, sizeof *s);
    switch (w->phase) {
    case FOLLOW_PLAIN:
        return n;
    case FOLLOW_HEAD:
        return take_head(f, d, p, n);
    case FOLLOW_FRAMES:
        break;
    }
    if (!w->in_frame)
        used = take_header(f, w, p, n, s);
    /* the payload is a step of its own, so that a place in the frame can be named before it; an empty one is
     * over */
    if (w->in_frame && (!used || !w->left))
        used += take_payload(f, w, p + used, n - used, s);
    return used;
}
