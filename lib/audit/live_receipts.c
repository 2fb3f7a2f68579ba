/* Invariant 5, receipts: what is shown of who has got and read what, against what their devices said. */
#include <inttypes.h>

#include "audit/live_impl.h"

/* Of a user in a chat: the highest ever said, and what was said last (and is still known to the device). */
struct said {
    uint64_t ack, read, last_ack, last_read;
};

struct shown {
    uint64_t delivered, read;
};

static struct said *said_by(struct live *l, uint64_t chat, uint64_t user)
{
    struct said *s = map_put(&l->said, (uint64_t[]){chat, user}, NULL);
    BUG_ON(!s);
    return s;
}

void live_claims(struct live *l, uint64_t user, uint64_t chat, uint64_t seq)
{
    struct said *s = said_by(l, chat, user);
    s->ack = seq > s->ack ? seq : s->ack;
}

void live_acks(struct live *l, uint64_t user, uint64_t chat, uint64_t seq)
{
    live_claims(l, user, chat, seq);
    said_by(l, chat, user)->last_ack = seq;
}

void live_reads(struct live *l, uint64_t user, uint32_t device, uint64_t chat, uint64_t seq)
{
    struct live_chat *c = live_chat(l, chat);
    const struct live_seat *seat = c ? live_seat(c, user, device) : NULL;
    struct said *s = said_by(l, chat, user);
    live_claims(l, user, chat, seq);
    s->read = seq > s->read ? seq : s->read;
    s->last_read = seq;
    s->last_ack = seq > s->last_ack ? seq : s->last_ack;
    if (!l->failed && l->promises.receipts_each && (!seat || seq > seat->top))
        live_fail(l, LIVE_RECEIPT, chat, NULL,
                  "user %" PRIu64 " device %u says that seq %" PRIu64 " of chat %" PRIu64
                  " was read, and has shown no more than %" PRIu64,
                  user, device, seq, chat, seat ? seat->top : 0);
}

void live_forgot_receipts(struct live *l, uint64_t user)
{
    size_t at = 0;
    const void *key;
    void *v;
    while (map_next(&l->said, &at, &key, &v))
        if (((const uint64_t *)key)[1] == user)
            ((struct said *)v)->last_ack = ((struct said *)v)->last_read = 0;
}

void live_watches(struct live *l, uint64_t user, uint32_t device, uint64_t chat, bool on)
{
    uint64_t key[] = {chat, user, device};
    if (on)
        BUG_ON(!map_put(&l->watches, key, NULL));
    else
        map_del(&l->watches, key);
}

/* What a device shows of somebody, since it forgot last. */
static struct shown *shown_of(struct live *l, struct live_chat *c, uint64_t user, uint32_t device,
                              uint64_t of)
{
    const struct live_seat *seat = live_seat(c, user, device);
    struct shown *s =
        map_put(&l->receipts, (uint64_t[]){c->id, of, user, (uint64_t)seat->forgets << 32 | device}, NULL);
    BUG_ON(!s);
    return s;
}

/* Who has everything before an own message has that, too: nobody need say so. */
static uint64_t got(const struct live_chat *c, uint64_t user, uint64_t ack)
{
    for (uint32_t i = live_find(c, ack + 1); i < c->log_n && c->log[i].sender == user; i++)
        ack = c->log[i].seq;
    return ack;
}

void live_keep_receipts(struct live *l)
{
    size_t at = 0;
    const void *key;
    void *v;
    while (map_next(&l->said, &at, &key, &v)) {
        const uint64_t *who = key;
        const struct live_chat *c = live_chat(l, who[0]);
        struct said *s = v;
        s->ack = c ? got(c, who[1], s->ack) : s->ack;
    }
}

void live_receipt(struct live *l, uint64_t user, uint32_t device, uint64_t chat, uint64_t of,
                  uint64_t delivered, uint64_t read)
{
    struct live_chat *c = live_chat(l, chat);
    const struct said *truth = said_by(l, chat, of);
    if (l->failed || !l->promises.receipts_each)
        return;
    if (!c || !live_ever_member(c, user) || !live_ever_member(c, of)) {
        live_fail(l, LIVE_OUTSIDER, chat, NULL,
                  "user %" PRIu64 " was told a receipt of user %" PRIu64 " in chat %" PRIu64
                  ", where not both ever were",
                  user, of, chat);
        return;
    }
    struct shown *s = shown_of(l, c, user, device, of);
    if (delivered < s->delivered || read < s->read)
        live_fail(l, LIVE_RECEIPT, chat, NULL,
                  "chat %" PRIu64 ": what user %" PRIu64 " is shown of user %" PRIu64 " went from %" PRIu64
                  "/%" PRIu64 " to %" PRIu64 "/%" PRIu64,
                  chat, user, of, s->delivered, s->read, delivered, read);
    else if (delivered > got(c, of, truth->ack) || read > truth->read)
        live_fail(l, LIVE_RECEIPT, chat, NULL,
                  "chat %" PRIu64 ": user %" PRIu64 " is shown that user %" PRIu64 " got %" PRIu64
                  " and read %" PRIu64 ", who said %" PRIu64 " and %" PRIu64,
                  chat, user, of, delivered, read, truth->ack, truth->read);
    *s = (struct shown){delivered, read};
}

void live_counted(struct live *l, uint64_t user, uint64_t chat, uint64_t seq, uint32_t delivered,
                  uint32_t read)
{
    size_t at = 0;
    const void *key;
    void *v;
    uint32_t have = 0, has_read = 0;
    const struct live_chat *c = live_chat(l, chat);
    while (map_next(&l->said, &at, &key, &v)) {
        const uint64_t *who = key;
        const struct said *s = v;
        if (who[0] != chat || who[1] == user)
            continue;
        have += (c ? got(c, who[1], s->ack) : s->ack) >= seq;
        has_read += s->read >= seq;
    }
    if (!l->failed && l->promises.receipts_each && (delivered > have || read > has_read))
        live_fail(l, LIVE_RECEIPT, chat, NULL,
                  "chat %" PRIu64 ": user %" PRIu64 " is told that %u got and %u read seq %" PRIu64
                  "; %u and %u said so",
                  chat, user, delivered, read, seq, have, has_read);
}

/* ---- the end ---- */

static uint32_t members_now(const struct live_chat *c)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->members_n; i++)
        n += c->members[i].to == UINT64_MAX && c->members[i].role < 2;
    return n;
}

/* The last entry up to `seq` that a member since `from` was sent; 0: none. */
static uint64_t last_sent(const struct live_chat *c, const struct live_member *m, uint64_t seq)
{
    for (uint32_t i = live_find(c, seq + 1); i-- > 0 && c->log[i].seq >= m->from;)
        if (c->log[i].sender != m->user && c->log[i].op != ENTRY_CREATE)
            return c->log[i].seq;
    return 0;
}

/* Whose receipt is behind what they said, as this device shows it; NULL: nobody's. */
static const struct live_member *behind(struct live *l, struct live_chat *c, uint64_t user, uint32_t device,
                                        uint64_t lacks[2])
{
    for (uint32_t i = 0; i < c->members_n; i++) {
        const struct live_member *m = &c->members[i];
        if (m->to != UINT64_MAX || m->role >= 2 || !live_is_strict(l, m->user, 1))
            continue;
        const struct said *truth = said_by(l, c->id, m->user);
        const struct shown *s = shown_of(l, c, user, device, m->user);
        lacks[0] = last_sent(c, m, truth->last_ack);
        lacks[1] = last_sent(c, m, truth->last_read);
        if (s->delivered < lacks[0] || s->read < lacks[1])
            return m;
    }
    return NULL;
}

bool live_receipts_converged(struct live *l, bool fail)
{
    size_t at = 0;
    const void *key;
    while (l->promises.receipts_each && map_next(&l->watches, &at, &key, NULL)) {
        const uint64_t *k = key;
        uint64_t lacks[2];
        struct live_chat *c = live_chat(l, k[0]);
        if (!c || !live_is_strict(l, k[1], (uint32_t)k[2]) || !live_was_member(c, k[1], UINT64_MAX - 1) ||
            members_now(c) > l->promises.receipts_each)
            continue;
        const struct live_member *m = behind(l, c, k[1], (uint32_t)k[2], lacks);
        if (m && fail)
            live_fail(l, LIVE_RECEIPT, c->id, NULL,
                      "user %" PRIu64 " is not shown that user %" PRIu64 " got %" PRIu64 " and read %" PRIu64
                      " of chat %" PRIu64,
                      k[1], m->user, lacks[0], lacks[1], c->id);
        if (m)
            return false;
    }
    return true;
}

bool live_receipts_settled(struct live *l)
{
    return live_receipts_converged(l, false);
}
