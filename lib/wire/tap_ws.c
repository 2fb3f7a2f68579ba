/* Frames of a direction, and the messages they make. */
#include <string.h>

#include "wire/tap_impl.h"
#include "wire/utf8.h"

static bool is_control(uint8_t opcode)
{
    return opcode & 8;
}

static bool opcode_known(uint8_t opcode)
{
    return opcode <= WS_BINARY || (opcode >= WS_CLOSE && opcode <= WS_PONG);
}

/* ---- does a frame begin here? ---- */

static bool text_fits(const struct ws_header *h, const uint8_t *p, size_t n)
{
    uint8_t part[64];
    struct utf8 u = {0};
    n = n < sizeof part ? n : sizeof part;
    n = n < h->len ? n : (size_t)h->len;
    memcpy(part, p, n);
    ws_mask(part, n, h->mask, 0);
    for (size_t i = 0; i < n; i++)
        if (part[i] < ' ' && part[i] != '\t' && part[i] != '\n' && part[i] != '\r' && part[i] != 0x1e)
            return false;
    return utf8_feed(&u, part, n);
}

bool tap_fits(const struct tap_side *s, const uint8_t *p, size_t n)
{
    bool first = true, masked = false;
    (void)s;
    while (n) {
        struct ws_header h;
        int size = ws_header_parse(&h, p, n);
        if (size < 0 || (size == 0 && first))
            return false;
        if (size == 0)
            return n < WS_HEADER_MAX && opcode_known(p[0] & 15) && !(p[0] & 0x30);
        if (!opcode_known(h.opcode) || h.rsv & 3 || (h.rsv && is_control(h.opcode)))
            return false;
        if (is_control(h.opcode) && (!h.fin || h.len > WS_CONTROL_MAX))
            return false;
        if (!first && h.masked != masked)
            return false;
        bool whole = h.len <= n - (size_t)size;
        if (h.opcode == WS_TEXT && !h.rsv && !text_fits(&h, p + size, n - (size_t)size))
            return false;
        if (!whole)
            /* goes on in the next segment: only what looks most like one */
            return !first || (h.opcode == WS_TEXT && h.len < 1u << 24 && n - (size_t)size >= 16) ||
                   (h.opcode == WS_BINARY && h.fin && h.len < 1u << 20 && h.len > n);
        masked = h.masked;
        first = false;
        p += (size_t)size + (size_t)h.len;
        n -= (size_t)size + (size_t)h.len;
    }
    return !first;
}

/* ---- messages ---- */

static void give(struct tap_at *a, struct tap_message *m)
{
    struct tap *t = a->t;
    m->flow = a->f;
    m->dir = a->dir;
    m->ts_ns = a->ts_ns;
    m->guess = a->s->guess;
    t->count.messages++;
    t->count.incomplete += !m->complete;
    t->count.cut += m->cut;
    t->count.unreadable += m->unreadable;
    a->c->messages[a->dir]++;
    if (t->on.message)
        t->on.message(t->on.arg, m);
}

void tap_lose_window(struct tap_at *a)
{
    bool lives_on = a->c->deflate.agreed
                        ? (a->dir ? a->c->deflate.server_takeover : a->c->deflate.client_takeover)
                        : true;
    if (a->s->z) {
        ws_inflate_free(a->s->z);
        a->s->z = NULL;
        tcp_charge(&a->t->tcp, -(ptrdiff_t)TAP_INFLATE_BYTES);
    }
    a->s->window_lost |= lives_on;
}

struct inflating {
    struct buf *out;
    uint64_t text;
};

static void keep_text(void *arg, const uint8_t *p, size_t n)
{
    struct inflating *i = arg;
    size_t room = i->out->max - i->out->len;
    i->text += n;
    buf_add(i->out, p, n < room ? n : room);
}

/* The text of a compressed message into t->text. */
static void inflate_message(struct tap_at *a, struct tap_message *m)
{
    struct tap_side *s = a->s;
    struct buf *out = &a->t->text;
    struct inflating i = {out, 0};
    m->compressed = true;
    buf_reset(out);
    if (!m->complete || s->window_lost) {
        m->unreadable = true;
        m->complete = false;
        m->n = 0;
        tap_lose_window(a);
        return;
    }
    if (!s->z) {
        /* the largest window reads what a smaller one wrote, and keeping it harms nobody */
        if (ws_inflate_new(&s->z, true, TAP_TEXT_MAX) < 0) {
            a->t->tcp.count.no_memory++;
            m->unreadable = true;
            m->complete = false;
            m->n = 0;
            return;
        }
        tcp_charge(&a->t->tcp, TAP_INFLATE_BYTES);
    }
    int rc = ws_inflate_feed(s->z, m->p, m->n, true, keep_text, &i, NULL);
    m->p = (const uint8_t *)out->data;
    m->n = out->len;
    m->bytes = i.text;
    if (rc < 0 || out->failed || i.text > out->len) {
        m->cut = rc == ERR_LIMIT || i.text > out->len;
        a->t->count.bombs += rc == ERR_LIMIT;
        m->complete = false;
        if (rc < 0) {
            m->unreadable = rc != ERR_LIMIT;
            tap_lose_window(a);
            s->window_lost = true;
        }
    }
    if (out->cap > 256u << 10) { /* one large message is no reason to keep room for it */
        m->complete &= !out->failed;
    }
}

/* The data message that is open ends here; `whole`: its n bytes lie there, else in `held`. */
static void end_message(struct tap_at *a, uint8_t *whole, size_t n, bool complete)
{
    struct tap_side *s = a->s;
    struct tap_message m = {.opcode = (enum ws_opcode)s->message_opcode,
                            .p = whole ? whole : (const uint8_t *)s->held.data,
                            .n = whole ? n : s->held.len,
                            .bytes = s->message_bytes,
                            .from = s->message_from,
                            .end = a->at,
                            .due = a->at + (s->in_payload && !is_control(s->h.opcode) ? s->left : 0),
                            .first_ns = s->first_ns,
                            .fragments = s->fragments,
                            .complete = complete && !s->holed && !s->cut,
                            .cut = s->cut};
    bool compressed = s->message_rsv1;
    s->message_opcode = 0;
    s->message_rsv1 = s->holed = s->cut = false;
    if (compressed)
        inflate_message(a, &m);
    give(a, &m);
    if (!whole && s->held.cap)
        tap_drop_held(a->t, s);
    if (a->t->text.cap > 256u << 10)
        buf_release(&a->t->text);
    a->t->text.max = TAP_MESSAGE_MAX;
}

void tap_abandon(struct tap_at *a)
{
    struct tap_side *s = a->s;
    if (s->message_opcode)
        end_message(a, NULL, 0, false);
    s->in_payload = false;
    s->head_n = 0;
    s->left = 0;
}

static void lost_step(struct tap_at *a)
{
    tap_abandon(a);
    tap_lose_window(a);
    a->s->state = TAP_RESYNC;
}

/* ---- frames ---- */

static void end_frame(struct tap_at *a, uint8_t *whole)
{
    struct tap_side *s = a->s;
    s->in_payload = false;
    if (!is_control(s->h.opcode)) {
        if (s->h.fin)
            end_message(a, whole, whole ? (size_t)s->frame_len : 0, true);
        return;
    }
    struct tap_message m = {.opcode = (enum ws_opcode)s->h.opcode,
                            .p = whole ? whole : s->control,
                            .n = whole ? (size_t)s->frame_len : s->control_n,
                            .bytes = s->frame_len,
                            .from = s->frame_from,
                            .end = a->at,
                            .due = a->at,
                            .first_ns = a->ts_ns,
                            .fragments = 1,
                            .complete = whole || s->control_n == s->frame_len};
    give(a, &m);
    if (m.opcode == WS_CLOSE) {
        tap_abandon(a);
        s->state = TAP_CLOSED;
    }
}

/* False: this is no frame. */
static bool begin_frame(struct tap_at *a, uint64_t from)
{
    struct tap_side *s = a->s;
    const struct ws_header *h = &s->h;
    bool control = is_control(h->opcode);
    if (!opcode_known(h->opcode) || h->rsv & 3 || (control && (h->rsv || !h->fin || h->len > WS_CONTROL_MAX)))
        return false;
    if (!control && !h->opcode && !s->message_opcode) {
        if (!s->guess)
            return false;
        s->message_opcode = WS_BINARY; /* its first fragment lies before the capture */
        s->holed = true;
        s->message_from = from;
        s->first_ns = a->ts_ns;
        s->message_bytes = 0;
        s->fragments = 0;
    }
    if (!control && h->opcode) {
        if (s->message_opcode)
            return false;
        s->message_opcode = h->opcode;
        s->message_rsv1 = h->rsv & 4;
        s->message_bytes = 0;
        s->message_from = from;
        s->first_ns = a->ts_ns;
        s->fragments = 0;
        s->holed = s->cut = false;
    }
    s->frame_from = from;
    s->left = s->frame_len = h->len;
    s->in_payload = true;
    s->control_n = 0;
    if (!control) {
        s->message_bytes += h->len;
        s->fragments++;
    }
    return true;
}

/* Collect a header; false: more bytes are needed, or it was none. */
static bool take_header(struct tap_at *a, uint8_t **p, size_t *n)
{
    struct tap_side *s = a->s;
    int size = 0;
    uint64_t from = a->at - s->head_n;
    if (!s->head_n && (size = ws_header_parse(&s->h, *p, *n)) > 0) {
        *p += size;
        *n -= (size_t)size;
        a->at += (unsigned)size;
    } else {
        while (*n && !size) {
            s->head[s->head_n++] = *(*p)++;
            --*n;
            a->at++;
            size = ws_header_parse(&s->h, s->head, s->head_n);
        }
    }
    if (size == 0)
        return false;
    s->head_n = 0;
    if (size < 0 || !begin_frame(a, from)) {
        a->t->count.bad_frames++;
        if (s->guess && a->c->messages[0] + a->c->messages[1] < 4)
            tap_ignore(a, TAP_OTHER);
        else
            lost_step(a);
        return false;
    }
    return true;
}

static void keep_payload(struct tap_at *a, const uint8_t *p, size_t n)
{
    struct tap_side *s = a->s;
    if (is_control(s->h.opcode)) {
        memcpy(s->control + s->control_n, p, n);
        s->control_n = (uint8_t)(s->control_n + n);
        return;
    }
    if (s->holed || s->cut)
        return;
    size_t room = TAP_MESSAGE_MAX - s->held.len;
    tap_hold(a, p, n < room ? n : room);
    s->cut = n > room || s->held.failed;
}

void tap_frames(struct tap_at *a, uint8_t *p, size_t n)
{
    struct tap_side *s = a->s;
    while (s->state == TAP_FRAMES && (n || (s->in_payload && !s->left))) {
        if (!s->in_payload && !take_header(a, &p, &n))
            continue;
        size_t take = s->left < n ? (size_t)s->left : n;
        bool control = is_control(s->h.opcode), whole = take == s->frame_len;
        if (s->h.masked)
            ws_mask(p, take, s->h.mask, (size_t)((s->frame_len - s->left) & 3));
        whole &= control || (s->h.fin && s->fragments == 1 && !s->holed);
        if (!whole)
            keep_payload(a, p, take);
        s->left -= take;
        a->at += take;
        if (!s->left)
            end_frame(a, whole ? p : NULL);
        p += take;
        n -= take;
    }
}

void tap_frames_gap(struct tap_at *a, uint64_t n)
{
    struct tap_side *s = a->s;
    if (s->in_payload && s->left) {
        uint64_t take = n < s->left ? n : s->left;
        if (!is_control(s->h.opcode))
            s->holed = true;
        s->left -= take;
        a->at += take;
        n -= take;
        if (!s->left) {
            end_frame(a, NULL);
            if (s->state != TAP_FRAMES)
                return;
        }
    }
    if (n)
        lost_step(a);
}
