/* What this device shows of who has got and read what. Two cursors a user, merged by maximum: a server that
 * lost its last second says less than it said before, until the readers have said it again; what is shown
 * doesn't go back. */
#include <stdlib.h>
#include <string.h>

#include "core/client_impl.h"
#include "util/mutant.h"

struct shown {
    uint64_t chat, user, delivered, read;
};

struct client_receipts {
    uint64_t watch[CLIENT_RECEIPT_CHATS];
    /* bits: asked for in vain, and so again with the chat's next message; without an answer, which at a beat
     * means that the words were lost */
    uint8_t refused, unanswered;
    uint32_t watch_n, shown_n, shown_cap;
    struct shown *shown;
};

static struct client_receipts *receipts_of(const struct client *c)
{
    struct client_receipts **at =
        c->presence ? presence_receipts((struct client *)(uintptr_t)c, false) : NULL;
    return at ? *at : NULL;
}

static bool watches(const struct client *c, uint64_t chat)
{
    const struct client_receipts *r = receipts_of(c);
    for (uint32_t i = 0; r && i < r->watch_n; i++)
        if (r->watch[i] == chat)
            return true;
    return false;
}

static void say(struct client *c, uint64_t chat, bool on, const struct client_io *io)
{
    if (c->state == CLIENT_READY)
        client_send(c, io, &(struct msg){.t = MSG_RECEIPTS, .chat = chat, .away = on}, 0);
}

static void drop_shown(struct client_receipts *r, uint64_t chat)
{
    for (uint32_t i = r->shown_n; i-- > 0;)
        if (r->shown[i].chat == chat)
            r->shown[i] = r->shown[--r->shown_n];
}

void client_receipts_watch(struct client *c, uint64_t chat, bool on, const struct client_io *io)
{
    if (watches(c, chat) == on)
        return;
    struct client_receipts **at = presence_receipts(c, true);
    if (!at || (!*at && !(*at = calloc(1, sizeof **at))))
        return;
    struct client_receipts *r = *at;
    if (on && r->watch_n == CLIENT_RECEIPT_CHATS)
        return;
    if (on) {
        r->unanswered |= (uint8_t)(1u << r->watch_n);
        r->watch[r->watch_n++] = chat;
    } else {
        for (uint32_t i = r->watch_n; i-- > 0;)
            if (r->watch[i] == chat)
                r->watch[i] = r->watch[--r->watch_n];
        r->refused = 0xff; /* whichever they were */
        drop_shown(r, chat);
    }
    say(c, chat, on, io);
}

void client_receipts_on_welcome(struct client *c, const struct client_io *io)
{
    struct client_receipts *r = receipts_of(c);
    if (r) {
        r->refused = 0;
        r->unanswered = 0xff;
    }
    for (uint32_t i = 0; r && i < r->watch_n; i++)
        say(c, r->watch[i], true, io);
}

void client_receipts_forget(struct client *c, bool all)
{
    struct client_receipts *r = receipts_of(c);
    if (!r)
        return;
    free(r->shown);
    r->shown = NULL;
    r->shown_n = r->shown_cap = 0;
    if (!all)
        return;
    free(r);
    *presence_receipts(c, false) = NULL;
}

_Static_assert(CLIENT_RECEIPT_CHATS <= 8, "bits of `refused`");

void client_receipts_refused(struct client *c, uint64_t chat)
{
    struct client_receipts *r = receipts_of(c);
    for (uint32_t i = 0; r && i < r->watch_n; i++)
        if (r->watch[i] == chat)
            r->refused |= (uint8_t)(1u << i);
}

void client_receipts_answered(struct client *c, uint64_t chat)
{
    struct client_receipts *r = receipts_of(c);
    for (uint32_t i = 0; r && i < r->watch_n; i++)
        if (r->watch[i] == chat)
            r->unanswered &= (uint8_t) ~(1u << i);
}

void client_receipts_again(struct client *c, uint64_t chat, const struct client_io *io)
{
    struct client_receipts *r = receipts_of(c);
    uint8_t which = r ? (uint8_t)(r->refused | (chat ? 0 : r->unanswered)) : 0;
    if (!which || c->state != CLIENT_READY)
        return;
    for (uint32_t i = 0; i < r->watch_n; i++) {
        if (!(which >> i & 1) || (chat && r->watch[i] != chat))
            continue;
        r->refused &= (uint8_t) ~(1u << i);
        r->unanswered |= (uint8_t)(1u << i);
        say(c, r->watch[i], true, io);
    }
}

static struct shown *find(const struct client *c, uint64_t chat, uint64_t user)
{
    struct client_receipts *r = receipts_of(c);
    for (uint32_t i = 0; r && i < r->shown_n; i++)
        if (r->shown[i].chat == chat && r->shown[i].user == user)
            return &r->shown[i];
    return NULL;
}

/* NULL: no memory, or too many; it is not shown. */
static struct shown *get(struct client *c, uint64_t chat, uint64_t user)
{
    struct client_receipts *r = receipts_of(c);
    struct shown *s = find(c, chat, user);
    if (s || r->shown_n == CLIENT_RECEIPTS_MAX)
        return s;
    if (r->shown_n == r->shown_cap) {
        uint32_t cap = r->shown_cap ? r->shown_cap * 2 : 8;
        struct shown *p = realloc(r->shown, cap * sizeof *p);
        if (!p)
            return NULL;
        r->shown = p;
        r->shown_cap = cap;
    }
    s = &r->shown[r->shown_n++];
    *s = (struct shown){.chat = chat, .user = user};
    return s;
}

void client_receipts_on(struct client *c, const struct msg *m, const struct client_io *io)
{
    if (!watches(c, m->chat))
        return;
    if (m->counts_n) {
        client_emit(c, io, &(struct client_effect){.type = CLIENT_COUNTS, .m = m, .chat = m->chat});
        return;
    }
    struct shown *s = m->user ? get(c, m->chat, m->user) : NULL;
    if (!s || (m->delivered <= s->delivered && m->read <= s->read && !MUTANT(RECEIPT_GOES_BACK)))
        return;
    bool keep = !MUTANT(RECEIPT_GOES_BACK), same = m->read <= s->read;
    s->delivered = keep && s->delivered > m->delivered ? s->delivered : m->delivered;
    s->read = keep && s->read > m->read ? s->read : m->read;
    client_emit(c, io,
                &(struct client_effect){.type = CLIENT_RECEIPT,
                                        .chat = s->chat,
                                        .user = s->user,
                                        .delivered = s->delivered,
                                        .seq = s->read,
                                        .dup = same});
}

bool client_receipt(const struct client *c, uint64_t chat, uint64_t user, uint64_t *delivered, uint64_t *read)
{
    const struct shown *s = find(c, chat, user);
    *delivered = s ? s->delivered : 0;
    *read = s ? s->read : 0;
    return s != NULL;
}
