/* A server starts over a store that may have lost something: read it whole. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "audit/live_impl.h"

void live_restored(struct live *l)
{
    live_keep_receipts(l);
    l->may_lose = true;
}

void live_blinded(struct live *l)
{
    l->blinded |= !l->failed;
    l->failed = true;
}

struct reading {
    struct live *l;
    struct store *s;
    struct err_ctx *ctx;
    uint64_t rows, logged;
    int rc;
};

static void take_member(void *arg, const struct member_row *m)
{
    live_member_row(((struct reading *)arg)->l, m, NULL);
}

/* An entry that nobody had answered for: it was being written when the server died. All of its rows must be
 * there. */
static void take_unknown(struct reading *r, const struct entry *e)
{
    struct dedup d;
    live_append(r->l, e);
    int rc = store_dedup(r->s, e->sender, &e->id, &d, r->ctx);
    if (rc == ERR_NOTFOUND)
        live_fail(r->l, LIVE_TORN, e->chat, &e->id,
                  "chat %" PRIu64 " seq %" PRIu64 " is in the store, but its id is not", e->chat, e->seq);
    else if (rc)
        r->rc = rc;
}

static struct live_entry *known_before(const struct live_chat *c, uint64_t seq)
{
    uint32_t lo = 0, hi = c->old_n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (c->old[mid].seq < seq)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < c->old_n && c->old[lo].seq == seq ? &c->old[lo] : NULL;
}

/* One restore took it, a later one brings it back to where it stood once. */
static bool comes_back(struct live *l, struct live_chat *c, const struct entry *e)
{
    struct live_message *m = live_message(l, &e->id);
    bool taken = m && (m->flags & MESSAGE_WAS_LOST || (l->may_lose && m->flags & MESSAGE_STORED));
    if (!taken || !live_given_out(c, e->epoch, e->seq))
        return false;
    m->flags = (uint8_t)((m->flags | MESSAGE_STORED | MESSAGE_WAS_LOST) & ~MESSAGE_LOST);
    m->epoch = e->epoch;
    m->seq = e->seq;
    live_append_quietly(l, c,
                        &(struct live_entry){.epoch = e->epoch,
                                             .seq = e->seq,
                                             .sender = e->sender,
                                             .message = (uint32_t)(m - l->messages),
                                             .op = e->op});
    return true;
}

static bool take_row(void *arg, const struct entry *e)
{
    struct reading *r = arg;
    struct live *l = r->l;
    struct live_chat *c = live_chat_make(l, e->chat);
    struct live_entry *known = known_before(c, e->seq);
    r->rows++;
    if (known && id_equal(&l->messages[known->message].id, &e->id)) {
        known->found = true;
        live_append_quietly(l, c, known);
    } else if (known && !l->may_lose) {
        live_fail(l, LIVE_NOT_DURABLE, e->chat, &e->id,
                  "chat %" PRIu64 " seq %" PRIu64 " is another message than before", e->chat, e->seq);
    } else if (!comes_back(l, c, e)) {
        take_unknown(r, e);
    }
    return !r->rc;
}

static bool count_row(void *arg, const struct entry *e)
{
    (void)e;
    ((struct reading *)arg)->logged++;
    return true;
}

static void each_chat(struct live *l, bool (*owns)(void *arg, uint64_t chat), void *arg,
                      void (*fn)(struct live *l, struct live_chat *c))
{
    size_t at = 0;
    void *v;
    while (map_next(&l->chats, &at, NULL, &v)) {
        struct live_chat *c = *(struct live_chat **)v;
        if (!owns || owns(arg, c->id))
            fn(l, c);
    }
}

static void set_aside(struct live *l, struct live_chat *c)
{
    (void)l;
    c->members_n = 0;
    c->old = c->log;
    c->old_n = c->log_n;
    c->log = NULL;
    c->log_n = c->log_cap = 0;
    for (uint32_t i = 0; i < c->old_n; i++)
        c->old[i].found = false;
}

/* What is not there any more was promised, unless a restore took it. */
static void settle(struct live *l, struct live_chat *c)
{
    for (uint32_t i = 0; i < c->old_n; i++) {
        const struct live_entry *e = &c->old[i];
        struct live_message *m = &l->messages[e->message];
        if (e->found || (m->flags & MESSAGE_STORED && (m->epoch != e->epoch || m->seq != e->seq)))
            continue;
        if (!l->may_lose)
            live_fail(l, LIVE_NOT_DURABLE, c->id, &m->id,
                      "chat %" PRIu64 " seq %" PRIu64 " was durable, and is gone after the restart", c->id,
                      e->seq);
        m->flags = (uint8_t)((m->flags | MESSAGE_LOST | MESSAGE_WAS_LOST) & ~MESSAGE_STORED);
    }
    free(c->old);
    c->old = NULL;
    c->old_n = 0;
}

int live_reopened(struct live *l, struct store *s, bool (*owns)(void *arg, uint64_t chat), void *arg,
                  struct err_ctx *ctx)
{
    struct reading r = {.l = l, .s = s, .ctx = ctx};
    if (l->blinded)
        return 0;
    struct store_load load = {.member = take_member, .arg = &r};
    each_chat(l, owns, arg, set_aside);
    map_clear(&l->cursors);
    int rc = store_load(s, &load, ctx);
    rc = rc ? rc : store_scan_chats(s, take_row, &r, ctx);
    rc = rc ? rc : r.rc;
    rc = rc ? rc : store_scan(s, count_row, &r, ctx);
    each_chat(l, owns, arg, settle);
    if (rc)
        return rc;
    if (r.rows != r.logged)
        live_fail(l, LIVE_TORN, 0, NULL,
                  "%" PRIu64 " messages are in the store, %" PRIu64 " in its commit order", r.rows, r.logged);
    l->may_lose = false;
    l->epoch = store_epoch(s);
    return 0;
}
