/* Connections: what they are, and where their bytes go. */
#include "wire/tap.h"

#include <stdlib.h>
#include <string.h>

#include "wire/tap_impl.h"

#define RESYNC_TRIES 64 /* segments of an unknown connection that are looked at */

const char *tap_kind_name(enum tap_kind k)
{
    static const char *const names[TAP_KINDS] = {"unknown", "websocket", "http", "tls", "other"};
    return (unsigned)k < TAP_KINDS ? names[k] : "";
}

void tap_set_kind(struct tap_at *a, enum tap_kind kind)
{
    if (a->c->kind == kind)
        return;
    a->t->count.conns[a->c->kind]--;
    a->t->count.conns[kind]++;
    a->c->kind = kind;
}

/* Neither side's bytes are wanted any more. */
void tap_ignore(struct tap_at *a, enum tap_kind kind)
{
    tap_set_kind(a, kind);
    for (int d = 0; d < 2; d++) {
        a->c->side[d].state = TAP_IGNORED;
        a->f->half[d].skip = true;
        tap_drop_held(a->t, &a->c->side[d]);
    }
}

void tap_hold(struct tap_at *a, const void *p, size_t n)
{
    struct buf *b = &a->s->held;
    size_t before = b->cap;
    buf_add(b, p, n);
    tcp_charge(&a->t->tcp, (ptrdiff_t)b->cap - (ptrdiff_t)before);
}

void tap_drop_held(struct tap *t, struct tap_side *s)
{
    tcp_charge(&t->tcp, -(ptrdiff_t)s->held.cap);
    buf_release(&s->held);
    buf_init(&s->held, TAP_MESSAGE_MAX);
}

static void take(struct tap_at *a, uint8_t *p, size_t n);

/* Bytes of an HTTP head; what follows its end goes on to the next state. */
static void take_head(struct tap_at *a, uint8_t *p, size_t n)
{
    struct buf *b = &a->s->held;
    size_t before = b->len, from = before > 3 ? before - 3 : 0;
    size_t most = n < TAP_HEAD_MAX - before ? n : TAP_HEAD_MAX - before;
    tap_hold(a, p, most);
    if (b->failed) {
        tap_ignore(a, TAP_OTHER);
        return;
    }
    const char *end = memmem(b->data + from, b->len - from, "\r\n\r\n", 4);
    if (!end) {
        if (b->len >= TAP_HEAD_MAX)
            tap_ignore(a, TAP_OTHER);
        return;
    }
    size_t head = (size_t)(end + 4 - b->data), used = head - before;
    tap_http_head(a, b->data, head);
    tap_drop_held(a->t, a->s);
    a->at += used;
    if (n > used)
        take(a, p + used, n - used);
}

/* A TLS record may begin with anything later on: only the first bytes tell. */
static void take_start(struct tap_at *a, uint8_t *p, size_t n)
{
    uint8_t first[16];
    struct buf *b = &a->s->held;
    size_t have = b->len, more = n < sizeof first - have ? n : sizeof first - have;
    if (have)
        memcpy(first, b->data, have);
    memcpy(first + have, p, more);
    switch (tap_classify(first, have + more)) {
    case FIRST_MORE:
        tap_hold(a, p, n);
        return;
    case FIRST_TLS:
        tap_ignore(a, TAP_TLS);
        return;
    case FIRST_REQUEST:
    case FIRST_ANSWER:
        a->s->state = TAP_HEAD;
        take_head(a, p, n);
        return;
    default:
        break;
    }
    tap_drop_held(a->t, a->s);
    if (a->f->half[a->dir].origin_known && a->f->half[a->dir].next == a->at + n && !a->c->asked &&
        a->at == have) {
        tap_ignore(a, TAP_OTHER);
        return;
    }
    a->s->state = TAP_RESYNC;
    take(a, p, n);
}

static void take_idle(struct tap_at *a, uint8_t *p, size_t n)
{
    enum tap_first first = tap_classify(p, n);
    if (first == FIRST_REQUEST || first == FIRST_ANSWER) {
        a->s->state = TAP_HEAD;
        take_head(a, p, n);
    }
}

/* The upgrade was asked for; its answer was not captured (yet). */
static void take_wait(struct tap_at *a, uint8_t *p, size_t n)
{
    if (tap_classify(p, n) == FIRST_REQUEST) {
        take_idle(a, p, n);
        return;
    }
    a->s->state = TAP_FRAMES;
    tap_frames(a, p, n);
}

static void take_resync(struct tap_at *a, uint8_t *p, size_t n)
{
    enum tap_first first = tap_classify(p, n);
    if (tap_fits(a->s, p, n)) {
        if (a->c->kind != TAP_WEBSOCKET) {
            a->t->count.guesses++;
            a->s->guess = a->c->side[!a->dir].guess = true;
            tap_set_kind(a, TAP_WEBSOCKET);
        } else {
            a->t->count.resyncs++;
        }
        a->s->state = TAP_FRAMES;
        tap_frames(a, p, n);
    } else if (first == FIRST_REQUEST || first == FIRST_ANSWER) {
        a->s->state = TAP_HEAD;
        take_head(a, p, n);
    } else if (a->c->kind != TAP_WEBSOCKET && ++a->s->tries >= RESYNC_TRIES) {
        tap_ignore(a, TAP_OTHER);
    }
}

static void take(struct tap_at *a, uint8_t *p, size_t n)
{
    switch ((enum tap_state)a->s->state) {
    case TAP_START:
        take_start(a, p, n);
        break;
    case TAP_HEAD:
        take_head(a, p, n);
        break;
    case TAP_IDLE:
        take_idle(a, p, n);
        break;
    case TAP_WAIT:
        take_wait(a, p, n);
        break;
    case TAP_FRAMES:
        tap_frames(a, p, n);
        break;
    case TAP_RESYNC:
        take_resync(a, p, n);
        break;
    case TAP_IGNORED:
    case TAP_CLOSED:
        break;
    }
}

/* ---- what TCP tells ---- */

static struct tap_at place(struct tap *t, struct tcp_flow *f, int dir, uint64_t at, uint64_t ts_ns)
{
    struct tap_conn *c = f->user;
    return (struct tap_at){.t = t, .f = f, .c = c, .s = &c->side[dir], .dir = dir, .at = at, .ts_ns = ts_ns};
}

static void on_open(void *arg, struct tcp_flow *f)
{
    struct tap *t = arg;
    struct tap_conn *c = calloc(1, sizeof *c);
    if (!c) {
        t->tcp.count.no_memory++;
        f->half[0].skip = f->half[1].skip = true;
        return;
    }
    f->user = c;
    tcp_charge(&t->tcp, sizeof *c);
    t->count.conns[TAP_UNKNOWN]++;
    for (int d = 0; d < 2; d++)
        buf_init(&c->side[d].held, TAP_MESSAGE_MAX);
    if (t->on.open)
        t->on.open(t->on.arg, f);
}

static void on_data(void *arg, struct tcp_flow *f, int dir, uint64_t at, uint8_t *p, size_t n, uint64_t ts_ns)
{
    struct tap_at a;
    if (!f->user)
        return;
    a = place(arg, f, dir, at, ts_ns);
    take(&a, p, n);
}

static void on_gap(void *arg, struct tcp_flow *f, int dir, uint64_t from, uint64_t to, enum tcp_gap why,
                   uint64_t ts_ns)
{
    struct tap *t = arg;
    if (!f->user)
        return;
    struct tap_at a = place(t, f, dir, from, ts_ns);
    if (a.s->state == TAP_FRAMES) {
        tap_frames_gap(&a, to - from);
    } else if (a.s->state == TAP_WAIT) { /* in step or not: what was missed may have been frames */
        a.s->state = TAP_RESYNC;
        tap_lose_window(&a);
    } else if (a.s->state == TAP_START || a.s->state == TAP_HEAD || a.s->state == TAP_IDLE) {
        tap_drop_held(t, a.s);
        if (a.s->state != TAP_IDLE)
            a.s->state = TAP_RESYNC;
    }
    if (t->on.gap)
        t->on.gap(t->on.arg, f, dir, from, to, why);
}

static void on_acked(void *arg, struct tcp_flow *f, int dir, uint64_t ts_ns)
{
    struct tap *t = arg;
    if (f->user && t->on.acked)
        t->on.acked(t->on.arg, f, dir, ts_ns);
}

static void free_side(struct tap *t, struct tap_side *s)
{
    tap_drop_held(t, s);
    if (s->z) {
        ws_inflate_free(s->z);
        s->z = NULL;
        tcp_charge(&t->tcp, -(ptrdiff_t)TAP_INFLATE_BYTES);
    }
}

static void on_close(void *arg, struct tcp_flow *f)
{
    struct tap *t = arg;
    if (!f->user)
        return;
    for (int d = 0; d < 2; d++) {
        struct tap_at a = place(t, f, d, f->half[d].next, f->last_ns);
        if (a.s->state == TAP_FRAMES)
            tap_abandon(&a);
    }
    if (t->on.close)
        t->on.close(t->on.arg, f);
    struct tap_conn *c = f->user;
    for (int d = 0; d < 2; d++)
        free_side(t, &c->side[d]);
    tcp_charge(&t->tcp, -(ptrdiff_t)sizeof *c);
    free(c);
    f->user = NULL;
}

static void on_shed(void *arg, struct tcp_flow *f)
{
    struct tap *t = arg;
    for (int d = 0; f->user && d < 2; d++) {
        struct tap_at a = place(t, f, d, f->half[d].next, f->last_ns);
        a.s->cut |= a.s->held.len > 0;
        tap_drop_held(t, a.s);
        if (a.s->state == TAP_HEAD)
            a.s->state = TAP_RESYNC;
    }
}

int tap_init(struct tap *t, const struct tcp_config *c, const struct tap_events *on, struct err_ctx *ctx)
{
    struct tcp_config mine = *c;
    *t = (struct tap){.on = *on, .text = BUF_INIT(TAP_MESSAGE_MAX)};
    mine.on = (struct tcp_events){.arg = t,
                                  .open = on_open,
                                  .data = on_data,
                                  .gap = on_gap,
                                  .acked = on->acked ? on_acked : NULL,
                                  .close = on_close,
                                  .shed = on_shed};
    return tcp_init(&t->tcp, &mine, ctx);
}

void tap_release(struct tap *t)
{
    t->on = (struct tap_events){.arg = t->on.arg, .close = t->on.close};
    tcp_release(&t->tcp);
    buf_release(&t->text);
}
