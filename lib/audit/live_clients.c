/* What devices say and show, and whether all of it has arrived. */
#include <inttypes.h>
#include <string.h>

#include "audit/live_impl.h"

static uint64_t *device_of(const struct live *l, uint64_t user, uint32_t device)
{
    uint64_t key[2] = {user, device};
    return map_get(&l->devices, key);
}

void live_device(struct live *l, uint64_t user, uint32_t device, bool strict)
{
    uint64_t key[2] = {user, device}, *v = map_put(&l->devices, key, NULL);
    BUG_ON(!v);
    *v = 1 + strict;
}

bool live_is_strict(const struct live *l, uint64_t user, uint32_t device)
{
    const uint64_t *v = device_of(l, user, device);
    return v && *v == 2 && l->promises.resumes;
}

void live_submitted(struct live *l, uint64_t user, uint64_t chat, const struct id *id, bool keeps)
{
    struct live_message *m = live_message_make(l, id);
    if (m->flags & MESSAGE_SUBMITTED) {
        live_fail(l, LIVE_PHANTOM, chat, id, "user %" PRIu64 " says something new under an id that exists",
                  user);
        return;
    }
    m->flags |= MESSAGE_SUBMITTED;
    m->sender = user;
    m->chat = chat;
    if (keeps) {
        m->flags |= MESSAGE_KEPT;
        l->waiting++;
    }
}

static void answered(struct live *l, struct live_message *m, enum message_flag how)
{
    if (m->flags & MESSAGE_KEPT && !(m->flags & (MESSAGE_ACCEPTED | MESSAGE_GAVE_UP)))
        l->waiting--;
    m->flags |= how;
}

void live_accepted(struct live *l, uint64_t user, uint64_t chat, uint64_t epoch, uint64_t seq,
                   const struct id *id)
{
    struct live_message *m = live_message(l, id);
    if (!m || m->sender != user || m->chat != chat) {
        live_fail(l, LIVE_PHANTOM, chat, id, "user %" PRIu64 " was told accepted for what it never said",
                  user);
        return;
    }
    if (l->promises.log && !(m->flags & (MESSAGE_STORED | MESSAGE_LOST)))
        live_fail(l, LIVE_NOT_DURABLE, chat, id, "user %" PRIu64 " saw accepted for what is not in the store",
                  user);
    if (l->promises.log && l->promises.dedup && m->flags & MESSAGE_STORED && m->epoch == epoch &&
        m->seq != seq)
        live_fail(l, LIVE_STORED_TWICE, chat, id,
                  "user %" PRIu64 " was told seq %" PRIu64 ", the store has it at %" PRIu64, user, seq,
                  m->seq);
    answered(l, m, MESSAGE_ACCEPTED);
}

void live_gave_up(struct live *l, const struct id *id)
{
    struct live_message *m = live_message(l, id);
    if (m)
        answered(l, m, MESSAGE_GAVE_UP);
}

/* ---- shown ---- */

static bool in_gap(const struct live_seat *s, uint64_t seq)
{
    for (uint8_t i = 0; i < s->gaps; i++)
        if (s->gap[i].from <= seq && seq <= s->gap[i].to)
            return true;
    return false;
}

/* Something that this device should have shown by now. */
static bool owed(const struct live_chat *c, const struct live_seat *s, const struct live_entry *e)
{
    return e->sender != s->user && e->op != ENTRY_CREATE && !in_gap(s, e->seq) &&
           live_was_member(c, s->user, e->seq);
}

static void check_holes(struct live *l, const struct live_chat *c, const struct live_seat *s, uint64_t seq)
{
    for (uint32_t i = live_find(c, s->seq + 1); i < c->log_n && c->log[i].seq < seq; i++) {
        if (!owed(c, s, &c->log[i]))
            continue;
        live_fail(l, LIVE_HOLE, c->id, &l->messages[c->log[i].message].id,
                  "user %" PRIu64 " device %u showed seq %" PRIu64 " of chat %" PRIu64 " after %" PRIu64
                  ", without %" PRIu64,
                  s->user, s->device, seq, c->id, s->seq, c->log[i].seq);
        return;
    }
}

static void drop_passed_gaps(struct live_seat *s)
{
    uint8_t keep = 0;
    for (uint8_t i = 0; i < s->gaps; i++)
        if (s->gap[i].to > s->seq)
            s->gap[keep++] = s->gap[i];
    s->gaps = keep;
}

static void check_source(struct live *l, const struct live_chat *c, uint64_t user, uint64_t seq,
                         uint64_t from, const struct id *id)
{
    const struct live_entry *e = c ? live_entry_at(c, seq) : NULL;
    const struct live_message *m = live_message(l, id);
    if (!m || m->sender != from || (c && m->chat != c->id)) {
        live_fail(l, LIVE_PHANTOM, c ? c->id : 0, id,
                  "user %" PRIu64 " was shown what user %" PRIu64 " never said", user, from);
        return;
    }
    if (!l->promises.log || m->flags & MESSAGE_WAS_LOST)
        return;
    if (!e || !id_equal(&l->messages[e->message].id, id))
        live_fail(l, LIVE_NOT_DURABLE, m->chat, id,
                  "user %" PRIu64 " was shown seq %" PRIu64 ", which is not in the store", user, seq);
    else if (!live_was_served(c, user, seq))
        live_fail(l, LIVE_OUTSIDER, m->chat, id,
                  "user %" PRIu64 " was shown seq %" PRIu64 " of a chat it is not in", user, seq);
}

struct showing {
    uint64_t user, device;
    struct id id;
};

static struct showing showing_of(const struct live_seat *s, const struct id *id)
{
    return (struct showing){s->user, (uint64_t)s->forgets << 32 | s->device, *id};
}

/* Whatever its seq: a message is shown once on a device. */
static void check_once(struct live *l, const struct live_chat *c, const struct live_seat *s, uint64_t seq,
                       const struct id *id)
{
    struct showing key = showing_of(s, id);
    uint64_t *before = map_put(&l->shown, &key, NULL);
    BUG_ON(!before);
    if (*before && l->promises.recovers)
        live_fail(l, LIVE_SHOWN_TWICE, c->id, id,
                  "user %" PRIu64 " device %u showed a message of chat %" PRIu64 " at seq %" PRIu64
                  " and again at %" PRIu64,
                  s->user, s->device, c->id, *before - 1, seq);
    *before = seq + 1;
}

void live_shown(struct live *l, uint64_t user, uint32_t device, uint64_t chat, uint64_t epoch, uint64_t seq,
                uint64_t from, const struct id *id)
{
    struct live_chat *c = live_chat(l, chat);
    l->counts.shown++;
    if (l->failed)
        return;
    check_source(l, c, user, seq, from, id);
    if (c && seq > live_seat(c, user, device)->top)
        live_seat(c, user, device)->top = seq;
    if (!c || !live_is_strict(l, user, device))
        return;
    struct live_seat *s = live_seat(c, user, device);
    if (l->promises.copies)
        check_once(l, c, s, seq, id);
    if (s->known && seq <= s->seq && epoch == s->epoch && (!l->promises.recovers || epoch == l->epoch))
        live_fail(l, LIVE_SHOWN_TWICE, chat, id,
                  "user %" PRIu64 " device %u showed seq %" PRIu64 " of chat %" PRIu64 " after %" PRIu64,
                  user, device, seq, chat, s->seq);
    else if (seq > s->seq && (s->known || !s->forgot))
        check_holes(l, c, s, seq);
    if (s->known && seq <= s->seq)
        return; /* what a gap passed over, and what a restore had lost: back at its own place */
    if (!s->known && s->forgot && l->promises.recovers && epoch != l->epoch)
        return; /* where it begins may lie above what came back */
    s->known = true;
    s->epoch = epoch;
    s->seq = seq;
    drop_passed_gaps(s);
}

void live_passed(struct live *l, uint64_t user, uint32_t device, uint64_t chat, uint64_t epoch, uint64_t seq,
                 uint64_t from, const struct id *id)
{
    struct live_chat *c = live_chat(l, chat);
    if (!c || l->failed || !l->promises.copies || !live_is_strict(l, user, device))
        return;
    struct live_seat *s = live_seat(c, user, device);
    struct showing key = showing_of(s, id);
    if ((!s->known && s->forgot) || (s->known && seq <= s->seq) ||
        (from != user && !map_get(&l->shown, &key)))
        return; /* who forgot begins where its first message stands, and calls what lies before it known */
    check_holes(l, c, s, seq);
    s->known = true;
    s->epoch = epoch;
    s->seq = seq;
    drop_passed_gaps(s);
}

static void check_empty(struct live *l, const struct live_chat *c, const struct live_seat *s, uint64_t from,
                        uint64_t to)
{
    for (uint32_t i = live_find(c, from); i < c->log_n && c->log[i].seq <= to; i++) {
        const struct live_message *m = &l->messages[c->log[i].message];
        if (!owed(c, s, &c->log[i]) || m->flags & MESSAGE_WAS_LOST)
            continue;
        live_fail(l, LIVE_HOLE, c->id, &m->id,
                  "user %" PRIu64 " was told that nothing stands in chat %" PRIu64 " from %" PRIu64
                  " to %" PRIu64 ", and seq %" PRIu64 " does",
                  s->user, c->id, from, to, c->log[i].seq);
        return;
    }
}

void live_gap(struct live *l, uint64_t user, uint32_t device, uint64_t chat, uint64_t from, uint64_t to,
              bool empty)
{
    struct live_chat *c = live_chat(l, chat);
    if (!c || from > to)
        return;
    struct live_seat *s = live_seat(c, user, device);
    if (empty && l->promises.log)
        check_empty(l, c, s, from, to);
    s->skipped |= !empty;
    for (uint8_t i = 0; i < s->gaps; i++) {
        struct live_range *g = &s->gap[i];
        if (from > g->to + 1 || to + 1 < g->from)
            continue;
        g->from = from < g->from ? from : g->from;
        g->to = to > g->to ? to : g->to;
        return;
    }
    if (s->gaps == LIVE_GAPS) {
        memmove(&s->gap[0], &s->gap[1], (LIVE_GAPS - 1) * sizeof s->gap[0]);
        s->gaps--;
    }
    s->gap[s->gaps++] = (struct live_range){from, to};
}

void live_forgot(struct live *l, uint64_t user, uint32_t device)
{
    size_t at = 0;
    void *v;
    live_forgot_receipts(l, user);
    while (map_next(&l->chats, &at, NULL, &v)) {
        struct live_chat *c = *(struct live_chat **)v;
        if (!live_ever_member(c, user)) /* one who was removed forgets, too, and may come back */
            continue;
        struct live_seat *s = live_seat(c, user, device);
        *s = (struct live_seat){.user = user, .device = device, .forgot = true, .forgets = s->forgets + 1};
    }
}

/* ---- the end ---- */

/* The first entry that this device still owes its person; NULL: none. */
static const struct live_entry *lacks(const struct live_chat *c, const struct live_seat *s)
{
    if (s->forgot && !s->known)
        return NULL;
    for (uint32_t i = live_find(c, s->seq + 1); i < c->log_n; i++)
        if (owed(c, s, &c->log[i]))
            return &c->log[i];
    return NULL;
}

/* What came back, further back than this device stands. */
static const struct live_entry *lacks_late(const struct live *l, const struct live_chat *c,
                                           const struct live_seat *s)
{
    if (!s->known || s->forgot || s->skipped)
        return NULL; /* where it begins, and what it is sent, is its own matter */
    for (uint32_t i = 0; i < c->late_n; i++) {
        const struct live_entry *e = live_entry_at(c, c->late[i]);
        if (!e || e->seq > s->seq || e->sender == s->user || e->op == ENTRY_CREATE ||
            !live_is_member_since(c, s->user, e->seq))
            continue; /* a sync reaches back to where the membership of now begins */
        struct showing key = showing_of(s, &l->messages[e->message].id);
        if (!map_get(&l->shown, &key))
            return e;
    }
    return NULL;
}

/* Every member's devices have a seat, also those that never showed anything. */
static void take_seats(struct live *l)
{
    size_t at = 0;
    const void *key;
    void *v;
    while (map_next(&l->chats, &at, NULL, &v)) {
        struct live_chat *c = *(struct live_chat **)v;
        size_t d = 0;
        while (map_next(&l->devices, &d, &key, NULL)) {
            const uint64_t *k = key;
            if (live_was_member(c, k[0], UINT64_MAX - 1))
                live_seat(c, k[0], (uint32_t)k[1]);
        }
    }
}

static bool all_have_all(const struct live *l, const struct live_chat **chat, const struct live_seat **seat,
                         const struct live_entry **entry)
{
    size_t at = 0;
    void *v;
    while (map_next(&l->chats, &at, NULL, &v)) {
        const struct live_chat *c = *(struct live_chat **)v;
        for (uint32_t i = 0; i < c->seats_n; i++) {
            const struct live_seat *s = &c->seats[i];
            if (!live_is_strict(l, s->user, s->device) || !live_was_member(c, s->user, UINT64_MAX - 1))
                continue;
            *entry = lacks(c, s);
            if (!*entry && l->promises.recovers)
                *entry = lacks_late(l, c, s);
            *chat = c;
            *seat = s;
            if (*entry)
                return false;
        }
    }
    return true;
}

bool live_converged(struct live *l)
{
    const struct live_chat *c;
    const struct live_seat *s;
    const struct live_entry *e;
    take_seats(l);
    return !l->waiting && all_have_all(l, &c, &s, &e) && live_receipts_converged(l, false);
}

static const struct live_message *first_waiting(const struct live *l)
{
    for (uint32_t i = 0; i < l->messages_n; i++) {
        const struct live_message *m = &l->messages[i];
        if (m->flags & MESSAGE_KEPT && !(m->flags & (MESSAGE_ACCEPTED | MESSAGE_GAVE_UP)))
            return m;
    }
    return NULL;
}

void live_finish(struct live *l)
{
    if (l->blinded)
        return;
    const struct live_chat *c;
    const struct live_seat *s;
    const struct live_entry *e;
    take_seats(l);
    const struct live_message *m = l->waiting ? first_waiting(l) : NULL;
    if (m)
        live_fail(l, LIVE_NOT_CONVERGED, m->chat, &m->id,
                  "what user %" PRIu64 " said in chat %" PRIu64 " was neither accepted nor given up",
                  m->sender, m->chat);
    else if (!all_have_all(l, &c, &s, &e))
        live_fail(l, LIVE_NOT_CONVERGED, c->id, &l->messages[e->message].id,
                  "user %" PRIu64 " device %u never showed seq %" PRIu64 " of chat %" PRIu64
                  "; it stands at %" PRIu64,
                  s->user, s->device, e->seq, c->id, s->seq);
    else
        live_receipts_converged(l, true);
}
