#include "audit/live.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audit/live_impl.h"

#define MANY (1u << 28)

static const struct {
    const char *name, *text;
    int number;
} kinds[] = {
#define LIVE(ID, name, number, text) {name, text, number},
#include "audit/live.def"
#undef LIVE
};

const char *live_kind_name(enum live_kind k)
{
    return kinds[k].name;
}

const char *live_kind_text(enum live_kind k)
{
    return kinds[k].text;
}

int live_kind_number(enum live_kind k)
{
    return kinds[k].number;
}

struct place {
    struct id id;
    uint64_t epoch, seq;
};

struct live *live_new(const struct live_promises *p)
{
    struct live *l = calloc(1, sizeof *l);
    BUG_ON(!l);
    l->promises = *p;
    map_init(&l->chats, 8, 8, MANY, 1);
    map_init(&l->by_id, sizeof(struct id), 8, MANY, 2);
    map_init(&l->cursors, 24, 24, MANY, 3);
    map_init(&l->devices, 16, 8, MANY, 4);
    map_init(&l->typed, 16, 8, MANY, 7);
    map_init(&l->typing, 32, 8, MANY, 8);
    map_init(&l->here, 8, 32, MANY, 8);
    map_init(&l->seen, 16, 16, MANY, 8);
    map_init(&l->said, 16, 32, MANY, 9);
    map_init(&l->receipts, 32, 16, MANY, 10);
    map_init(&l->watches, 24, 8, MANY, 11);
    map_init(&l->shown, 32, 8, MANY, 5);
    map_init(&l->places, sizeof(struct place), 8, MANY, 6);
    return l;
}

static void chat_free(struct live_chat *c)
{
    free(c->log);
    free(c->seats);
    free(c->members);
    free(c->tops);
    free(c->late);
    free(c);
}

void live_free(struct live *l)
{
    size_t at = 0;
    void *v;
    if (!l)
        return;
    while (map_next(&l->chats, &at, NULL, &v))
        chat_free(*(struct live_chat **)v);
    map_release(&l->chats);
    map_release(&l->by_id);
    map_release(&l->cursors);
    map_release(&l->devices);
    map_release(&l->shown);
    map_release(&l->typed);
    map_release(&l->typing);
    map_release(&l->here);
    map_release(&l->seen);
    map_release(&l->said);
    map_release(&l->receipts);
    map_release(&l->watches);
    map_release(&l->places);
    free(l->messages);
    free(l);
}

void live_fail(struct live *l, enum live_kind kind, uint64_t chat, const struct id *id, const char *fmt, ...)
{
    va_list ap;
    if (l->failed)
        return;
    l->failed = true;
    l->violation = (struct live_violation){.kind = kind, .chat = chat};
    if (id)
        l->violation.id = *id;
    va_start(ap, fmt);
    vsnprintf(l->violation.text, sizeof l->violation.text, fmt, ap);
    va_end(ap);
}

const struct live_violation *live_violation(const struct live *l)
{
    return l->failed && !l->blinded ? &l->violation : NULL;
}

void live_counts(const struct live *l, struct live_counts *out)
{
    *out = l->counts;
    out->messages = l->messages_n;
}

void live_grow(void **at, uint32_t n, uint32_t *cap, size_t size)
{
    if (n < *cap)
        return;
    *cap = *cap ? *cap * 2 : 8;
    *at = realloc(*at, *cap * size);
    BUG_ON(!*at);
}

/* ---- what is known ---- */

struct live_chat *live_chat(const struct live *l, uint64_t id)
{
    return map_get_ptr(&l->chats, id);
}

struct live_chat *live_chat_make(struct live *l, uint64_t id)
{
    struct live_chat **slot = map_put_u64(&l->chats, id, NULL);
    BUG_ON(!slot);
    if (!*slot) {
        *slot = calloc(1, sizeof **slot);
        BUG_ON(!*slot);
        (*slot)->id = id;
    }
    return *slot;
}

struct live_message *live_message(const struct live *l, const struct id *id)
{
    const uint64_t *at = map_get(&l->by_id, id);
    return at ? &l->messages[*at - 1] : NULL;
}

struct live_message *live_message_make(struct live *l, const struct id *id)
{
    uint64_t *at = map_put(&l->by_id, id, NULL);
    BUG_ON(!at);
    if (!*at) {
        live_grow((void **)&l->messages, l->messages_n, &l->messages_cap, sizeof *l->messages);
        l->messages[l->messages_n] = (struct live_message){.id = *id};
        *at = ++l->messages_n;
    }
    return &l->messages[*at - 1];
}

uint32_t live_find(const struct live_chat *c, uint64_t seq)
{
    uint32_t lo = 0, hi = c->log_n;
    if (hi && c->log[hi - 1].seq < seq)
        return hi;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (c->log[mid].seq < seq)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

struct live_entry *live_entry_at(const struct live_chat *c, uint64_t seq)
{
    uint32_t i = live_find(c, seq);
    return i < c->log_n && c->log[i].seq == seq ? &c->log[i] : NULL;
}

/* The first range of a user, or where it would be. */
static uint32_t first_range(const struct live_chat *c, uint64_t user)
{
    uint32_t lo = 0, hi = c->members_n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (c->members[mid].user < user)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

bool live_was_member(const struct live_chat *c, uint64_t user, uint64_t seq)
{
    for (uint32_t i = first_range(c, user); i < c->members_n && c->members[i].user == user; i++) {
        const struct live_member *m = &c->members[i];
        if (m->role < 2 && m->from <= seq && seq < m->to) /* 2: invited */
            return true;
    }
    return false;
}

bool live_is_member_since(const struct live_chat *c, uint64_t user, uint64_t seq)
{
    for (uint32_t i = first_range(c, user); i < c->members_n && c->members[i].user == user; i++) {
        const struct live_member *m = &c->members[i];
        if (m->role < 2 && m->from <= seq && m->to == UINT64_MAX)
            return true;
    }
    return false;
}

bool live_was_served(const struct live_chat *c, uint64_t user, uint64_t seq)
{
    for (uint32_t i = first_range(c, user); i < c->members_n && c->members[i].user == user; i++) {
        const struct live_member *m = &c->members[i];
        if (m->role != 2 && m->from <= seq && seq < m->to)
            return true;
    }
    return false;
}

bool live_ever_member(const struct live_chat *c, uint64_t user)
{
    uint32_t i = first_range(c, user);
    return i < c->members_n && c->members[i].user == user;
}

/* The first seq that the chat's members of now have not been sent: whom `b` removes by an entry that came
 * back from before is still told of it, by the last entry of `b`. */
static uint64_t served_to(const struct live_chat *c, const struct store_batch *b)
{
    uint64_t to = c->log_n ? c->log[c->log_n - 1].seq + 1 : 0;
    for (size_t i = 0; b && i < b->entries_n; i++)
        if (b->entries[i].chat == c->id && b->entries[i].op == ENTRY_RECOVERED)
            to = b->entries[i].seq + 1;
    return to;
}

void live_member_row(struct live *l, const struct member_row *m, const struct store_batch *b)
{
    struct live_chat *c = live_chat_make(l, m->chat);
    uint32_t i = first_range(c, m->user);
    while (i < c->members_n && c->members[i].user == m->user && c->members[i].from < m->from)
        i++;
    struct live_member row = {m->user, m->from, m->to, m->role};
    bool there = i < c->members_n && c->members[i].user == m->user && c->members[i].from == m->from &&
                 c->members[i].role != LIVE_SERVED;
    uint64_t served = served_to(c, b);
    if (there) {
        uint64_t was = c->members[i].to;
        served = was < served ? was : served;
        bool shrinks = m->to < was && m->to < served && c->members[i].role < 2;
        c->members[i] = row;
        if (!shrinks)
            return;
        row = (struct live_member){m->user, m->from, served, LIVE_SERVED};
        i++;
    }
    live_grow((void **)&c->members, c->members_n, &c->members_cap, sizeof *c->members);
    memmove(&c->members[i + 1], &c->members[i], (c->members_n - i) * sizeof row);
    c->members[i] = row;
    c->members_n++;
}

uint32_t live_members(const struct live *l, uint64_t chat, struct live_now *out, uint32_t max)
{
    const struct live_chat *c = live_chat(l, chat);
    uint32_t n = 0;
    for (uint32_t i = 0; c && i < c->members_n && n < max; i++)
        if (c->members[i].to == UINT64_MAX)
            out[n++] = (struct live_now){c->members[i].user, c->members[i].role};
    return n;
}

bool live_knows(const struct live *l, uint64_t chat)
{
    return live_chat(l, chat) != NULL;
}

struct live_seat *live_seat(struct live_chat *c, uint64_t user, uint32_t device)
{
    uint32_t lo = 0, hi = c->seats_n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        const struct live_seat *s = &c->seats[mid];
        if (s->user < user || (s->user == user && s->device < device))
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo < c->seats_n && c->seats[lo].user == user && c->seats[lo].device == device)
        return &c->seats[lo];
    live_grow((void **)&c->seats, c->seats_n, &c->seats_cap, sizeof *c->seats);
    memmove(&c->seats[lo + 1], &c->seats[lo], (c->seats_n - lo) * sizeof *c->seats);
    c->seats_n++;
    c->seats[lo] = (struct live_seat){.user = user, .device = device};
    return &c->seats[lo];
}

/* ---- commits ---- */

static struct live_top *top_of(struct live_chat *c, uint64_t epoch)
{
    for (uint32_t i = c->tops_n; i-- > 0;)
        if (c->tops[i].epoch == epoch)
            return &c->tops[i];
    return NULL;
}

bool live_given_out(struct live_chat *c, uint64_t epoch, uint64_t seq)
{
    const struct live_top *top = top_of(c, epoch);
    return top && seq <= top->seq;
}

static void keep_place(struct live *l, const struct entry *e)
{
    struct place key = {e->id, e->epoch, e->seq};
    void *v = l->promises.recovers ? map_put(&l->places, &key, NULL) : &key;
    BUG_ON(!v);
}

static bool stood_there(const struct live *l, const struct entry *e)
{
    struct place key = {e->id, e->epoch, e->seq};
    return map_get(&l->places, &key) != NULL;
}

/* A message that a restore took, back at its place: what lies above it was shown before. */
static bool insert_back(struct live *l, struct live_chat *c, struct live_message *m, const struct entry *e)
{
    if (!l->promises.recovers || !(m->flags & MESSAGE_LOST) || !stood_there(l, e) || m->chat != e->chat ||
        m->sender != e->sender)
        return false;
    if (m->stored_once && memcmp(m->content, e->content, 16) != 0)
        live_fail(l, LIVE_PHANTOM, c->id, &e->id,
                  "chat %" PRIu64 " seq %" PRIu64 " came back with another content", c->id, e->seq);
    uint32_t i = live_find(c, e->seq);
    if (i < c->log_n && c->log[i].seq == e->seq) {
        live_fail(l, LIVE_SEQ, c->id, &e->id, "chat %" PRIu64 " seq %" PRIu64 " came back onto another entry",
                  c->id, e->seq);
        return true;
    }
    live_keep_receipts(l);
    live_grow((void **)&c->log, c->log_n, &c->log_cap, sizeof *c->log);
    memmove(&c->log[i + 1], &c->log[i], (c->log_n - i) * sizeof *c->log);
    c->log_n++;
    c->log[i] = (struct live_entry){.epoch = e->epoch,
                                    .seq = e->seq,
                                    .sender = e->sender,
                                    .message = (uint32_t)(m - l->messages),
                                    .op = e->op};
    live_grow((void **)&c->late, c->late_n, &c->late_cap, sizeof *c->late);
    c->late[c->late_n++] = e->seq;
    m->epoch = e->epoch;
    m->seq = e->seq;
    m->flags = (uint8_t)((m->flags | MESSAGE_STORED | MESSAGE_WAS_LOST) & ~MESSAGE_LOST);
    l->counts.recovered++;
    return true;
}

static void check_seq(struct live *l, struct live_chat *c, const struct entry *e)
{
    struct live_top *top = top_of(c, e->epoch);
    const struct live_entry *last = c->log_n ? &c->log[c->log_n - 1] : NULL;
    if (top && e->seq <= top->seq)
        live_fail(l, LIVE_SEQ, c->id, &e->id,
                  "chat %" PRIu64 " seq %" PRIu64 " was given out before in this epoch", c->id, e->seq);
    else if (last && last->epoch == e->epoch && e->seq != last->seq + 1)
        live_fail(l, LIVE_SEQ, c->id, &e->id, "chat %" PRIu64 ": seq %" PRIu64 " follows %" PRIu64, c->id,
                  e->seq, last->seq);
    else if (last && e->seq <= last->seq)
        live_fail(l, LIVE_SEQ, c->id, &e->id,
                  "chat %" PRIu64 ": seq %" PRIu64 " of a new epoch follows %" PRIu64, c->id, e->seq,
                  last->seq);
    if (top) {
        top->seq = e->seq;
        return;
    }
    live_grow((void **)&c->tops, c->tops_n, &c->tops_cap, sizeof *c->tops);
    c->tops[c->tops_n++] = (struct live_top){e->epoch, e->seq};
}

static void check_message(struct live *l, const struct live_chat *c, const struct live_message *m,
                          const struct entry *e)
{
    if (l->promises.dedup && m->flags & MESSAGE_STORED)
        live_fail(l, LIVE_STORED_TWICE, c->id, &e->id,
                  "a message of user %" PRIu64 " stands in chat %" PRIu64 " at seq %" PRIu64 " and %" PRIu64,
                  e->sender, c->id, m->seq, e->seq);
    if (e->op != ENTRY_MESSAGE)
        return;
    if (!(m->flags & MESSAGE_SUBMITTED) || m->sender != e->sender || m->chat != e->chat)
        live_fail(l, LIVE_PHANTOM, c->id, &e->id,
                  "chat %" PRIu64 " seq %" PRIu64 ": user %" PRIu64 " never said this there", c->id, e->seq,
                  e->sender);
    if (!live_was_member(c, e->sender, e->seq))
        live_fail(l, LIVE_OUTSIDER, c->id, &e->id,
                  "chat %" PRIu64 " took seq %" PRIu64 " from user %" PRIu64 ", who is not a member", c->id,
                  e->seq, e->sender);
}

void live_append(struct live *l, const struct entry *e)
{
    struct live_chat *c = live_chat_make(l, e->chat);
    struct live_message *m = live_message_make(l, &e->id);
    if (insert_back(l, c, m, e))
        return;
    if (l->promises.recovers && m->flags & MESSAGE_LOST && m->flags & MESSAGE_ACCEPTED &&
        m->flags & MESSAGE_KEPT)
        live_fail(l, LIVE_RENUMBERED, c->id, &e->id,
                  "chat %" PRIu64 " seq %" PRIu64
                  " was accepted and lost, and is stored again at seq %" PRIu64,
                  c->id, m->seq, e->seq);
    memcpy(m->content, e->content, 16);
    m->stored_once = true;
    check_seq(l, c, e);
    check_message(l, c, m, e);
    keep_place(l, e);
    m->flags = (uint8_t)((m->flags | MESSAGE_STORED) & ~MESSAGE_LOST);
    m->epoch = e->epoch;
    m->seq = e->seq;
    if (e->op != ENTRY_MESSAGE) {
        m->sender = e->sender;
        m->chat = e->chat;
    }
    struct live_entry kept = {.epoch = e->epoch,
                              .seq = e->seq,
                              .sender = e->sender,
                              .message = (uint32_t)(m - l->messages),
                              .op = e->op};
    live_append_quietly(l, c, &kept);
    l->counts.entries++;
}

void live_append_quietly(struct live *l, struct live_chat *c, const struct live_entry *e)
{
    (void)l;
    live_grow((void **)&c->log, c->log_n, &c->log_cap, sizeof *c->log);
    c->log[c->log_n++] = *e;
}

void live_committed(struct live *l, const struct store_batch *b)
{
    if (l->failed)
        return;
    for (size_t i = 0; i < b->members_n; i++)
        live_member_row(l, &b->members[i], b);
    for (size_t i = 0; i < b->entries_n; i++)
        live_append(l, &b->entries[i]);
}

void live_cursor(struct live *l, const struct cursor *c)
{
    uint64_t key[3] = {c->chat, c->user, c->device}, *v = map_put(&l->cursors, key, NULL);
    BUG_ON(!v);
    if ((v[0] == c->epoch && c->delivered < v[1]) || c->read < v[2]) /* nobody unreads, whatever the epoch */
        live_fail(l, LIVE_CURSOR, c->chat, NULL,
                  "chat %" PRIu64 ": the cursor of user %" PRIu64 " device %u went from %" PRIu64 "/%" PRIu64
                  " to %" PRIu64 "/%" PRIu64,
                  c->chat, c->user, c->device, v[1], v[2], c->delivered, c->read);
    v[0] = c->epoch;
    v[1] = c->delivered;
    v[2] = c->read;
}

/* ---- what the server sends ---- */

void live_pushed(struct live *l, uint64_t user, uint64_t chat, uint64_t seq, const struct id *id)
{
    l->counts.pushed++;
    if (!l->promises.log || l->failed)
        return;
    const struct live_chat *c = live_chat(l, chat);
    const struct live_entry *e = c ? live_entry_at(c, seq) : NULL;
    if (!e || !id_equal(&l->messages[e->message].id, id))
        live_fail(l, LIVE_NOT_DURABLE, chat, id,
                  "chat %" PRIu64 " seq %" PRIu64 " was pushed to user %" PRIu64 " before it was durable",
                  chat, seq, user);
    else if (!live_was_served(c, user, seq))
        live_fail(l, LIVE_OUTSIDER, chat, id,
                  "chat %" PRIu64 " seq %" PRIu64 " was pushed to user %" PRIu64
                  ", who was not a member then",
                  chat, seq, user);
}

void live_acknowledged(struct live *l, uint64_t user, uint64_t chat, const struct id *id)
{
    if (!l->promises.log || l->failed)
        return;
    const struct live_message *m = live_message(l, id);
    if (!m || !(m->flags & MESSAGE_STORED))
        live_fail(l, LIVE_NOT_DURABLE, chat, id, "user %" PRIu64 " was told accepted before it was durable",
                  user);
}
