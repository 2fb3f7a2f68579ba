/* A server starts over a store that may have lost something: read it whole. */
#include <inttypes.h>
#include <string.h>

#include "audit/live_impl.h"

void live_restored(struct live *l)
{
    l->may_lose = true;
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
    live_member_row(((struct reading *)arg)->l, m);
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

static bool take_row(void *arg, const struct entry *e)
{
    struct reading *r = arg;
    struct live *l = r->l;
    struct live_chat *c = live_chat_make(l, e->chat);
    struct live_entry *known = live_entry_at(c, e->seq);
    r->rows++;
    if (!known) {
        take_unknown(r, e);
        return !r->rc;
    }
    known->found = true;
    if (!id_equal(&l->messages[known->message].id, &e->id))
        live_fail(l, LIVE_NOT_DURABLE, e->chat, &e->id,
                  "chat %" PRIu64 " seq %" PRIu64 " is another message than before", e->chat, e->seq);
    return true;
}

static bool count_row(void *arg, const struct entry *e)
{
    (void)e;
    ((struct reading *)arg)->logged++;
    return true;
}

static void each_chat(struct live *l, void (*fn)(struct live *l, struct live_chat *c))
{
    size_t at = 0;
    void *v;
    while (map_next(&l->chats, &at, NULL, &v))
        fn(l, *(struct live_chat **)v);
}

static void unfind(struct live *l, struct live_chat *c)
{
    (void)l;
    c->members_n = 0;
    for (uint32_t i = 0; i < c->log_n; i++)
        c->log[i].found = false;
}

/* What is not there any more was promised, unless a restore took it. */
static void settle(struct live *l, struct live_chat *c)
{
    uint32_t keep = 0;
    for (uint32_t i = 0; i < c->log_n; i++) {
        struct live_entry *e = &c->log[i];
        if (e->found) {
            c->log[keep++] = *e;
            continue;
        }
        struct live_message *m = &l->messages[e->message];
        if (!l->may_lose)
            live_fail(l, LIVE_NOT_DURABLE, c->id, &m->id,
                      "chat %" PRIu64 " seq %" PRIu64 " was durable, and is gone after the restart", c->id,
                      e->seq);
        m->flags = (uint8_t)((m->flags | MESSAGE_LOST) & ~MESSAGE_STORED);
    }
    c->log_n = keep;
}

int live_reopened(struct live *l, struct store *s, struct err_ctx *ctx)
{
    struct reading r = {.l = l, .s = s, .ctx = ctx};
    struct store_load load = {.member = take_member, .arg = &r};
    each_chat(l, unfind);
    map_clear(&l->cursors);
    int rc = store_load(s, &load, ctx);
    rc = rc ? rc : store_scan_chats(s, take_row, &r, ctx);
    rc = rc ? rc : r.rc;
    rc = rc ? rc : store_scan(s, count_row, &r, ctx);
    if (rc)
        return rc;
    each_chat(l, settle);
    if (r.rows != r.logged)
        live_fail(l, LIVE_TORN, 0, NULL,
                  "%" PRIu64 " messages are in the store, %" PRIu64 " in its commit order", r.rows, r.logged);
    l->may_lose = false;
    return 0;
}
