#include <stdlib.h>

#include "store/store_impl.h"

/* How many rows of one chat store_load reads past before it jumps to the chat's last: a new scan costs about
 * as much as this many rows. */
#define LOAD_JUMP 48u

static const struct kv_bytes all = {NULL, 0};

static int scan(struct store *s, enum kv_family f, const struct row_key *from, const struct row_key *to,
                bool reverse, kv_scan_fn *fn, void *arg, struct err_ctx *ctx)
{
    return s->kv->ops->scan(s->kv, f, key_bytes(from), key_bytes(to), reverse, fn, arg, ctx);
}

int store_dedup(struct store *s, uint64_t sender, const struct id *id, struct dedup *out, struct err_ctx *ctx)
{
    struct row_key k;
    struct buf b = BUF_INIT(4096);
    key_dedup(&k, sender, id);
    int rc = s->kv->ops->get(s->kv, KV_DEDUP, key_bytes(&k), &b, ctx);
    if (rc == 0)
        rc = row_dedup_read(out, key_bytes(&k), (struct kv_bytes){b.data, b.len}, ctx);
    buf_release(&b);
    return rc;
}

static void take_cursor(struct cursor *c, const uint8_t *p)
{
    c->epoch = get_u64(p);
    c->delivered = get_u64(p + 8);
    c->read = get_u64(p + 16);
}

int store_cursor(struct store *s, uint64_t chat, uint64_t user, uint32_t device, struct cursor *out,
                 struct err_ctx *ctx)
{
    struct row_key k;
    struct buf b = BUF_INIT(4096);
    key_cursor(&k, chat, user, device);
    int rc = s->kv->ops->get(s->kv, KV_CURSOR, key_bytes(&k), &b, ctx);
    if (rc == 0 && b.len != KV_CURSOR_BYTES)
        rc = row_corrupt(ctx, "cursor", key_bytes(&k), "wrong length");
    if (rc == 0) {
        *out = (struct cursor){.chat = chat, .user = user, .device = device};
        take_cursor(out, (const uint8_t *)b.data);
    }
    buf_release(&b);
    return rc;
}

struct reading_cursors {
    store_cursor_fn *fn;
    void *arg;
    struct err_ctx *ctx;
    int rc;
};

static bool read_cursor(void *arg, struct kv_bytes key, struct kv_bytes val)
{
    struct reading_cursors *r = arg;
    const uint8_t *k = key.p;
    if (key.n != KEY_CHAT_BYTES + 12 || val.n != KV_CURSOR_BYTES) {
        r->rc = row_corrupt(r->ctx, "cursor", key, "wrong length");
        return false;
    }
    struct cursor c = {.chat = get_u64(k + 2), .user = get_u64(k + 10), .device = get_u32(k + 18)};
    take_cursor(&c, val.p);
    return r->fn(r->arg, &c);
}

int store_cursors(struct store *s, uint64_t chat, store_cursor_fn *fn, void *arg, struct err_ctx *ctx)
{
    struct reading_cursors r = {.fn = fn, .arg = arg, .ctx = ctx};
    struct row_key from, to;
    key_cursor(&from, chat, 0, 0);
    key_cursor(&to, chat, UINT64_MAX, UINT32_MAX);
    key_after(&to);
    int rc = scan(s, KV_CURSOR, &from, &to, false, read_cursor, &r, ctx);
    return rc ? rc : r.rc;
}

/* --- messages of one chat --- */

struct reading {
    store_entry_fn *fn;
    void *arg;
    struct err_ctx *ctx;
    uint32_t left;
    size_t bytes_left;
    bool any;
    int rc;
};

static bool read_row(void *arg, struct kv_bytes key, struct kv_bytes val)
{
    struct reading *r = arg;
    struct entry e;
    r->rc = row_msg_read(&e, key, val, r->ctx);
    if (r->rc || (r->any && e.body_len > r->bytes_left))
        return false;
    r->any = true;
    r->bytes_left -= e.body_len < r->bytes_left ? e.body_len : r->bytes_left;
    return r->fn(r->arg, &e) && --r->left > 0;
}

static void msg_range(struct row_key *from, struct row_key *to, uint64_t chat, uint64_t first, uint64_t last)
{
    key_msg(from, chat, first);
    key_msg(to, chat, last);
    key_after(to);
}

int store_read(struct store *s, uint64_t chat, uint64_t after, uint64_t upto, uint32_t limit,
               size_t max_bytes, store_entry_fn *fn, void *arg, struct err_ctx *ctx)
{
    struct reading r = {.fn = fn, .arg = arg, .ctx = ctx, .left = limit, .bytes_left = max_bytes};
    struct row_key from, to;
    if (limit == 0 || (after >= upto && (after != UINT64_MAX || upto == UINT64_MAX)))
        return 0;
    msg_range(&from, &to, chat, after + 1, upto);
    int rc = scan(s, KV_MSG, &from, &to, false, read_row, &r, ctx);
    return rc ? rc : r.rc;
}

struct reading_members {
    store_member_fn *fn;
    void *arg;
    struct err_ctx *ctx;
    int rc;
};

static bool read_member(void *arg, struct kv_bytes key, struct kv_bytes val)
{
    struct reading_members *r = arg;
    struct member_row m;
    r->rc = row_member_read(&m, key, val, r->ctx);
    return r->rc == 0 && r->fn(r->arg, &m);
}

int store_members(struct store *s, uint64_t chat, store_member_fn *fn, void *arg, struct err_ctx *ctx)
{
    struct reading_members r = {.fn = fn, .arg = arg, .ctx = ctx};
    struct row_key from, to;
    key_member(&from, chat, 0, 0);
    key_member(&to, chat, UINT64_MAX, UINT64_MAX);
    key_after(&to);
    int rc = scan(s, KV_MEMBER, &from, &to, false, read_member, &r, ctx);
    return rc ? rc : r.rc;
}

int store_id_at(struct store *s, uint64_t chat, uint64_t seq, struct id *id, struct err_ctx *ctx)
{
    struct row_key k;
    struct entry e;
    struct buf b = BUF_INIT(2 * STORE_BATCH_BYTES);
    key_msg(&k, chat, seq);
    int rc = s->kv->ops->get(s->kv, KV_MSG, key_bytes(&k), &b, ctx);
    if (rc == 0)
        rc = row_msg_read(&e, key_bytes(&k), (struct kv_bytes){b.data, b.len}, ctx);
    if (rc == 0)
        *id = e.id;
    buf_release(&b);
    return rc;
}

struct probe {
    struct err_ctx *ctx;
    bool found;
    uint64_t chat, seq, epoch, ts_us;
    int rc;
};

static bool probe_row(void *arg, struct kv_bytes key, struct kv_bytes val)
{
    struct probe *p = arg;
    struct entry e;
    p->rc = row_msg_read(&e, key, val, p->ctx);
    p->found = p->rc == 0;
    if (p->found) {
        p->chat = e.chat;
        p->seq = e.seq;
        p->epoch = e.epoch;
        p->ts_us = e.ts_us;
    }
    return false;
}

/* The first (or last) row of a chat within [lo, hi]. */
static int probe(struct store *s, struct probe *p, uint64_t chat, uint64_t lo, uint64_t hi, bool last,
                 struct err_ctx *ctx)
{
    struct row_key from, to;
    *p = (struct probe){.ctx = ctx};
    msg_range(&from, &to, chat, lo, hi);
    int rc = scan(s, KV_MSG, &from, &to, last, probe_row, p, ctx);
    return rc ? rc : p->rc;
}

/* Binary search over seq; a probe into a hole (epochs leave some of 2^32) sees the next row behind it. */
int store_seq_since(struct store *s, uint64_t chat, uint64_t since_us, uint64_t *seq, struct err_ctx *ctx)
{
    struct probe p;
    int rc = probe(s, &p, chat, 1, UINT64_MAX, true, ctx);
    if (rc)
        return rc;
    uint64_t lo = 1, hi = p.found ? p.seq : 0;
    *seq = hi + 1;
    while (lo <= hi) {
        uint64_t mid = lo + (hi - lo) / 2;
        rc = probe(s, &p, chat, mid, hi, false, ctx);
        if (rc)
            return rc;
        if (p.found && p.ts_us < since_us) {
            lo = p.seq + 1;
        } else {
            if (p.found)
                *seq = p.seq;
            hi = mid - 1;
        }
    }
    return 0;
}

/* --- everything --- */

struct loading {
    const struct store_load *l;
    struct err_ctx *ctx;
    struct chat_head head;
    uint32_t run; /* rows of this chat seen in this scan */
    bool open, jump;
    int rc;
};

static void give_head(struct loading *d)
{
    if (d->open && d->l->head)
        d->l->head(d->l->arg, &d->head);
    d->open = false;
}

static bool load_msg(void *arg, struct kv_bytes key, struct kv_bytes val)
{
    struct loading *d = arg;
    struct entry e;
    d->rc = row_msg_read(&e, key, val, d->ctx);
    if (d->rc)
        return false;
    if (!d->open || e.chat != d->head.chat) {
        give_head(d);
        d->run = 0;
    }
    d->head = (struct chat_head){e.chat, e.epoch, e.seq, e.ts_us};
    d->open = true;
    d->jump = ++d->run >= LOAD_JUMP;
    return !d->jump;
}

static int load_heads(struct store *s, struct loading *d, struct err_ctx *ctx)
{
    struct row_key from = {0}, end = {0};
    do {
        struct probe p;
        d->jump = false;
        int rc = scan(s, KV_MSG, &from, &end, false, load_msg, d, ctx);
        if (rc || d->rc)
            return rc ? rc : d->rc;
        if (d->jump) {
            rc = probe(s, &p, d->head.chat, d->head.seq, UINT64_MAX, true, ctx);
            if (rc)
                return rc;
            d->head = (struct chat_head){p.chat, p.epoch, p.seq, p.ts_us};
            key_msg(&from, p.chat, UINT64_MAX);
            key_after(&from);
        }
        give_head(d);
    } while (d->jump && from.n);
    return 0;
}

static bool load_member(void *arg, struct kv_bytes key, struct kv_bytes val)
{
    struct loading *d = arg;
    struct member_row m;
    d->rc = row_member_read(&m, key, val, d->ctx);
    if (d->rc == 0)
        d->l->member(d->l->arg, &m);
    return d->rc == 0;
}

int store_load(struct store *s, const struct store_load *l, struct err_ctx *ctx)
{
    struct loading d = {.l = l, .ctx = ctx};
    int rc = l->head ? load_heads(s, &d, ctx) : 0;
    if (rc == 0 && l->member)
        rc = s->kv->ops->scan(s->kv, KV_MEMBER, all, all, false, load_member, &d, ctx);
    return rc ? rc : d.rc;
}

struct log_scan {
    struct store *s;
    struct reading r;
    struct buf row;
    uint64_t last;
};

static bool log_row(void *arg, struct kv_bytes key, struct kv_bytes val)
{
    struct log_scan *l = arg;
    const uint8_t *k = key.p;
    struct entry e;
    l->r.rc = 0;
    if (key.n != 8 || val.n != ROW_LOG_BYTES || get_u64(k) != l->last + 1) {
        l->r.rc = row_corrupt(l->r.ctx, "log", key, "wrong length, or a row is missing before it");
        return false;
    }
    l->last = get_u64(k);
    buf_reset(&l->row);
    int rc = l->s->kv->ops->get(l->s->kv, KV_MSG, val, &l->row, l->r.ctx);
    if (rc == 0)
        rc = row_msg_read(&e, val, (struct kv_bytes){l->row.data, l->row.len}, l->r.ctx);
    else if (rc == ERR_NOTFOUND)
        rc = row_corrupt(l->r.ctx, "log", key, "its message is missing");
    l->r.rc = rc;
    return rc == 0 && l->r.fn(l->r.arg, &e);
}

int store_scan(struct store *s, store_entry_fn *fn, void *arg, struct err_ctx *ctx)
{
    struct log_scan l = {
        .s = s, .r = {.fn = fn, .arg = arg, .ctx = ctx}, .row = BUF_INIT(2 * STORE_BATCH_BYTES)};
    int rc = s->kv->ops->scan(s->kv, KV_LOG, all, all, false, log_row, &l, ctx);
    buf_release(&l.row);
    return rc ? rc : l.r.rc;
}

static bool chats_row(void *arg, struct kv_bytes key, struct kv_bytes val)
{
    struct reading *r = arg;
    struct entry e;
    r->rc = row_msg_read(&e, key, val, r->ctx);
    return r->rc == 0 && r->fn(r->arg, &e);
}

int store_scan_chats(struct store *s, store_entry_fn *fn, void *arg, struct err_ctx *ctx)
{
    struct reading r = {.fn = fn, .arg = arg, .ctx = ctx};
    int rc = s->kv->ops->scan(s->kv, KV_MSG, all, all, false, chats_row, &r, ctx);
    return rc ? rc : r.rc;
}

/* --- the dedup window --- */

#define SWEEP_SCANS 256u /* senders looked at in one call */

struct sweep {
    struct store *s;
    uint64_t before_ms;
    uint32_t found, limit;
    bool young;
    struct row_key last;
};

static bool sweep_row(void *arg, struct kv_bytes key, struct kv_bytes val)
{
    struct sweep *w = arg;
    struct id id;
    (void)val;
    w->last.n = (uint8_t)key.n;
    memcpy(w->last.b, key.p, key.n);
    if (key.n != KEY_CHAT_BYTES + ID_BYTES)
        return true; /* not ours to judge; reading it says corrupt */
    memcpy(id.b, w->last.b + KEY_CHAT_BYTES, ID_BYTES);
    w->young = id_unix_ms(&id) >= w->before_ms;
    if (w->young)
        return false;
    w->s->kv->ops->del(w->s->batch, KV_DEDUP, key);
    return ++w->found < w->limit;
}

/* Ids of a sender sort by their time: after the first young one comes the next sender. */
long store_dedup_sweep(struct store *s, uint64_t now_us, uint32_t limit, struct err_ctx *ctx)
{
    const uint64_t window_ms = STORE_DEDUP_DAYS * 86400000ull + 3600000;
    struct sweep w = {.s = s, .limit = limit};
    w.before_ms = now_us / 1000 > window_ms ? now_us / 1000 - window_ms : 0;
    s->kv->ops->batch_reset(s->batch);
    for (uint32_t i = 0; i < SWEEP_SCANS && w.found < limit; i++) {
        struct row_key end = {0};
        w.young = false;
        int rc = scan(s, KV_DEDUP, &s->sweep, &end, false, sweep_row, &w, ctx);
        if (rc)
            return rc;
        if (!w.young && w.found < limit) { /* the end of the family: round again next time */
            s->sweep.n = 0;
            break;
        }
        s->sweep = w.last;
        if (w.young) {
            s->sweep.n = KEY_CHAT_BYTES;
            key_after(&s->sweep);
        }
    }
    if (w.found == 0)
        return 0;
    int rc = s->kv->ops->write(s->kv, s->batch, KV_LAZY, ctx);
    return rc ? rc : (long)w.found;
}
