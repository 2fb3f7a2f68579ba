#include <stdlib.h>

#include "core/client_impl.h"
#include "util/mutant.h"

#define SLAB_CHATS 512
struct client_slab {
    struct client_slab *next;
    struct client_chat chats[SLAB_CHATS];
};

void client_pool_init(struct client_pool *p, uint32_t chats_max)
{
    *p = (struct client_pool){.max = chats_max};
}

void client_pool_release(struct client_pool *p)
{
    while (p->slabs) {
        struct client_slab *next = p->slabs->next;
        free(p->slabs);
        p->slabs = next;
    }
    *p = (struct client_pool){0};
}

static struct client_chat *pool_take(struct client_pool *p)
{
    if (p->used >= p->max)
        return NULL;
    if (!p->free) {
        struct client_slab *slab = malloc(sizeof *slab);
        if (!slab)
            return NULL;
        slab->next = p->slabs;
        p->slabs = slab;
        for (int i = SLAB_CHATS - 1; i >= 0; i--) {
            slab->chats[i].next = p->free;
            p->free = &slab->chats[i];
        }
    }
    struct client_chat *ch = p->free;
    p->free = ch->next;
    p->used++;
    *ch = (struct client_chat){0};
    return ch;
}

void chat_forget_all(struct client *c, struct client_pool *pool)
{
    while (c->chats) {
        struct client_chat *ch = c->chats;
        c->chats = ch->next;
        ch->next = pool->free;
        pool->free = ch;
        pool->used--;
    }
    c->syncs = 0;
    c->ack_ns = c->sync_ns = 0;
}

static struct client_chat *find(const struct client *c, uint64_t chat)
{
    for (struct client_chat *ch = c->chats; ch; ch = ch->next)
        if (ch->chat == chat)
            return ch;
    return NULL;
}

bool client_cursor(const struct client *c, uint64_t chat, struct claim *out)
{
    const struct client_chat *ch = find(c, chat);
    if (!ch || ch->base_unknown)
        return false;
    *out = (struct claim){.chat = chat, .epoch = ch->epoch, .seq = ch->seq};
    return true;
}

static void wake_sync(struct client *c, struct client_chat *ch, uint64_t at_ns)
{
    if (!client_may_sync(c) || ch->sync_flying)
        return;
    earlier(&ch->sync_ns, at_ns);
    earlier(&c->sync_ns, at_ns);
}

static void unknown_base(struct client *c, struct client_chat *ch, const struct client_io *io)
{
    ch->base_unknown = true;
    if (c->rebuild) /* should the answer to `sync {since}` pass this chat over, we don't wait for ever */
        wake_sync(c, ch, io->now.mono_ns + CLIENT_ANSWER_NS);
}

static struct client_chat *get(struct client *c, uint64_t chat, const struct client_io *io)
{
    struct client_chat **at = &c->chats;
    unsigned depth = 0;
    while (*at && (*at)->chat != chat) {
        at = &(*at)->next;
        depth++;
    }
    struct client_chat *ch = *at;
    if (ch && depth < 4)
        return ch;
    if (ch) {
        *at = ch->next;
    } else {
        ch = pool_take(io->pool);
        if (!ch)
            return NULL;
        ch->chat = chat;
        if (c->rebuild)
            unknown_base(c, ch, io);
    }
    ch->next = c->chats;
    c->chats = ch;
    return ch;
}

uint32_t chat_claims(const struct client *c, struct claim *out, uint32_t max)
{
    uint32_t n = 0;
    for (const struct client_chat *ch = c->chats; ch && n < max; ch = ch->next)
        if (!ch->base_unknown)
            out[n++] = (struct claim){.chat = ch->chat, .epoch = ch->epoch, .seq = ch->seq};
    return n;
}

/* ---- what was read ---- */

static uint64_t read_of(const struct client_chat *ch)
{
    uint64_t read = (ch->seq >> 32) - (uint64_t)(int64_t)ch->read_back;
    read = read << 32 | ch->read_low;
    return ch->read_known ? read : 0;
}

static void set_read(struct client_chat *ch, uint64_t read)
{
    int64_t back = (int64_t)(ch->seq >> 32) - (int64_t)(read >> 32);
    /* so many restores later it may be said anew */
    ch->read_known = read != 0 && back >= INT8_MIN && back <= INT8_MAX;
    ch->read_low = (uint32_t)read;
    ch->read_back = (int8_t)back;
}

/* The place moves; what was read stays. */
static void set_seq(struct client_chat *ch, uint64_t seq)
{
    uint64_t read = read_of(ch);
    ch->seq = seq;
    if (read)
        set_read(ch, read);
}

void chat_on_disconnect(struct client *c)
{
    c->syncs = 0;
    c->since_flying = false;
    c->ack_ns = c->sync_ns = 0;
    c->ack_doublings = 0;
    for (struct client_chat *ch = c->chats; ch; ch = ch->next) {
        ch->sync_flying = false;
        ch->sync_ns = 0;
        /* hello carries the cursor, and is only where the server goes on: who waits to be told that it
         * arrived, or was read, waits for these words */
        ch->ack_due |= ch->said;
        ch->read_due |= ch->said && ch->read_known;
        ch->said = false;
        set_seq(ch, ch->seq - (MUTANT(CURSOR_GOES_BACK) && ch->seq));
    }
}

/* Own messages that lie right behind the cursor are passed with it. */
static void advance(struct client_chat *ch, uint64_t to)
{
    uint64_t by = to - ch->seq;
    ch->ahead = by < 64 ? ch->ahead >> by : 0;
    while (ch->ahead & 1) {
        ch->ahead >>= 1;
        to++;
    }
    set_seq(ch, to);
    if (ch->seen < ch->seq)
        ch->seen = ch->seq;
    if (ch->seen == ch->seq)
        ch->sync_ns = 0;
}

/* Everything up to `base` is behind us, and so are own messages that were accepted before we knew that. */
static void base_at(struct client_chat *ch, uint64_t base)
{
    uint64_t above = ch->seq - base, below = base - ch->seq;
    if (ch->seq >= base)
        ch->ahead = above < 64 ? ch->ahead << above : 0;
    else
        ch->ahead = below < 64 ? ch->ahead >> below : 0;
    ch->base_unknown = false;
    set_seq(ch, base);
    advance(ch, base);
}

/* The first of them stands for the place that we don't know yet. */
static void own_before_base(struct client_chat *ch, uint64_t seq)
{
    if (!ch->ahead)
        set_seq(ch, seq - 1);
    if (seq > ch->seq && seq - ch->seq <= 64)
        ch->ahead |= 1ull << (seq - ch->seq - 1);
    if (ch->seen < seq)
        ch->seen = seq;
}

static void enter_epoch(struct client_chat *ch, uint64_t epoch)
{
    if (ch->epoch == epoch)
        return;
    if (ch->epoch) {
        ch->prev_epoch = ch->epoch;
        ch->prev_seq = ch->seq;
    }
    ch->epoch = epoch;
}

/* The server counts this chat from below our cursor: its word holds. Of its current epoch we have seen
 * nothing yet, so that is read from its start; an older one is a copy's, and we know it. */
static void restart_at(struct client_chat *ch, uint64_t epoch, uint64_t seq)
{
    enter_epoch(ch, epoch);
    set_seq(ch, seq);
    ch->seen = seq;
    ch->ahead = 0;
}

/* The first seq of the epoch that `seq` is of: 1 in a new store, a multiple of 2^32 in a copy (design.md,
 * section 4). */
static uint64_t epoch_start(uint64_t seq)
{
    uint64_t start = seq & ~(uint64_t)UINT32_MAX;
    return start ? start : 1;
}

static bool contradicts(const struct client *c, const struct client_chat *ch, uint64_t epoch, uint64_t seq)
{
    return ch->epoch && epoch != ch->epoch && epoch == c->epoch && seq <= ch->seq;
}

#define ACKED_SHIFT 24 /* of client.acked_at */

/* Each device has its own place within the wait, or all of a group would acknowledge at one time. */
static uint64_t ack_wait(const struct client *c)
{
    uint64_t wait = CLIENT_ACK_NS << c->ack_doublings, mixed = (c->user ^ c->device) * 0x9e3779b97f4a7c15;
    return wait + (wait >> 8) * (mixed >> 56);
}

/* Acks and readings go out together. */
static void say_later(struct client *c, const struct client_io *io)
{
    if (c->ack_ns)
        return;
    uint16_t since = (uint16_t)((io->now.mono_ns >> ACKED_SHIFT) - c->acked_at);
    if (since > ack_wait(c) >> ACKED_SHIFT) /* it was quiet */
        c->ack_doublings = 0;
    else if (c->ack_doublings < CLIENT_ACK_DOUBLINGS)
        c->ack_doublings++;
    c->ack_ns = io->now.mono_ns + ack_wait(c);
}

static void ack_later(struct client *c, struct client_chat *ch, const struct client_io *io)
{
    if (!client_has(c, CLIENT_ACK))
        return;
    ch->ack_due = true;
    say_later(c, io);
}

void chat_read(struct client *c, uint64_t chat, uint64_t seq, const struct client_io *io)
{
    struct client_chat *ch = client_has(c, CLIENT_ACK) ? find(c, chat) : NULL;
    if (!ch || ch->base_unknown)
        return;
    if (seq > ch->seq)
        seq = ch->seq;
    if (seq <= read_of(ch))
        return;
    set_read(ch, seq);
    ch->read_due = ch->read_known;
    say_later(c, io);
}

/* An ack that is lost on its way the server misses; what was read nobody would. */
void chat_repeat_reads(struct client *c, const struct client_io *io)
{
    if (!c->reads_said)
        return;
    c->reads_said = false;
    for (struct client_chat *ch = c->chats; ch; ch = ch->next) {
        if (!ch->read_said)
            continue;
        ch->read_said = false;
        ch->read_due = ch->repeating = true;
        say_later(c, io);
    }
}

static void ask(struct client *c, struct client_chat *ch, const struct client_io *io)
{
    if (!client_may_sync(c) || c->state != CLIENT_READY || ch->sync_flying)
        return;
    ch->sync_flying = true;
    c->syncs++;
    ch->sync_from = ch->seq;
    ch->sync_ns = 0;
    struct msg m = {.t = MSG_SYNC, .chat = ch->chat, .after = ch->seq, .limit = CLIENT_SYNC_PAGE};
    client_send(c, io, &m, 0);
    client_expect_answer(c, io);
}

bool chat_sync_range(struct client *c, uint64_t chat, uint64_t after, uint64_t to, const struct client_io *io)
{
    struct client_chat *ch = find(c, chat);
    if (!client_may_sync(c) || !ch || ch->sync_flying || c->since_flying || c->rebuild)
        return false;
    ch->sync_flying = true;
    c->syncs++;
    struct msg m = {.t = MSG_SYNC, .chat = chat, .after = after, .limit = CLIENT_SYNC_PAGE, .to = to};
    client_send(c, io, &m, 0);
    client_expect_answer(c, io);
    return true;
}

void chat_range_done(struct client *c, uint64_t chat, const struct client_io *io)
{
    struct client_chat *ch = find(c, chat);
    if (!ch || !ch->sync_flying)
        return;
    ch->sync_flying = false;
    c->syncs--;
    if (!ch->base_unknown && ch->seen > ch->seq)
        wake_sync(c, ch, io->now.mono_ns);
}

void chat_wake(struct client *c, uint64_t at_ns)
{
    earlier(&c->sync_ns, at_ns);
}

void chat_on_welcome(struct client *c, const struct msg *m, const struct client_io *io)
{
    if (!client_orderly(c))
        return;
    for (struct client_chat *ch = c->chats; ch; ch = ch->next)
        if (ch->ack_due || ch->read_due)
            say_later(c, io);
    for (uint32_t i = 0; i < m->resume_n; i++) {
        const struct claim *claim = &m->resume[i];
        bool fresh = !find(c, claim->chat);
        struct client_chat *ch = get(c, claim->chat, io);
        if (!ch)
            break;
        if (fresh && claim->seq)
            unknown_base(c, ch, io);
        else if (fresh)
            ch->base_unknown = false;
        if (!ch->base_unknown && ch->epoch && claim->epoch != ch->epoch && claim->seq < ch->seq)
            restart_at(ch, claim->epoch, claim->epoch == c->epoch ? epoch_start(claim->seq) - 1 : claim->seq);
        if (ch->seen < claim->seq)
            ch->seen = claim->seq;
        if (ch->base_unknown && c->rebuild)
            unknown_base(c, ch, io);
        if (!ch->base_unknown && ch->seen > ch->seq)
            wake_sync(c, ch, io->now.mono_ns + CLIENT_CATCH_UP_NS);
    }
}

static void surface(struct client *c, struct client_chat *ch, const struct msg *m, const struct client_io *io)
{
    /* since the chat's epoch changed, the same id may stand elsewhere: sent again by who never saw `accepted`
     */
    bool doubted = ch->prev_epoch || m->epoch != ch->epoch || m->from == c->user;
    bool again = doubted && io->held && io->held(io->arg, c, &m->id);
    client_emit(c, io, &(struct client_effect){.type = again ? CLIENT_DUPLICATE : CLIENT_SURFACE, .m = m});
    if (m->seq > ch->seq) {
        if (!again && m->seq <= read_of(ch))
            set_read(ch, m->seq - 1); /* a server of another past: this was never read */
        enter_epoch(ch, m->epoch);
        advance(ch, m->seq);
        ack_later(c, ch, io);
    }
    if (!m->from && slice_is(m->kind, "recovered")) {
        ch->read_due = ch->read_known; /* said before, of what the server did not have then */
        recover_on_entry(c, m, io);
    }
}

static bool holds(const struct client *c, const struct msg *m, const struct client_io *io)
{
    struct msg copy;
    return io->copy(io->arg, c, m->chat, m->seq, m->seq, false, &copy);
}

static void received(struct client *c, const struct msg *m, enum reason reason, const struct client_io *io)
{
    client_emit(c, io, &(struct client_effect){.type = CLIENT_RECEIVED, .m = m, .reason = reason});
}

static void duplicate(struct client *c, struct client_chat *ch, const struct msg *m,
                      const struct client_io *io)
{
    received(c, m, REASON_NONE, io);
    client_emit(c, io, &(struct client_effect){.type = CLIENT_DUPLICATE, .m = m});
    ack_later(c, ch, io); /* the server has not seen the first one */
    ch->read_due = ch->read_known && client_has(c, CLIENT_ACK);
}

/* A device without memory takes what the server sends as its beginning. While it rebuilds from `sync
 * {since}`, live messages and old ones come mixed: only the lowest and highest seq are noted, then all is
 * asked for in order. */
static bool find_base(struct client *c, struct client_chat *ch, const struct msg *m,
                      const struct client_io *io)
{
    if (!c->rebuild) {
        base_at(ch, m->seq ? m->seq - 1 : 0);
        return true;
    }
    if (!ch->sync_from || m->seq < ch->sync_from)
        ch->sync_from = m->seq;
    if (ch->seen < m->seq)
        ch->seen = m->seq;
    received(c, m, REASON_RESYNC, io);
    return false;
}

static void in_order(struct client *c, struct client_chat *ch, const struct msg *m,
                     const struct client_io *io)
{
    if (io->copy && m->seq <= ch->seq && m->epoch != c->epoch) {
        if (holds(c, m, io)) {
            duplicate(c, ch, m, io);
            return;
        }
        received(c, m, REASON_NONE, io); /* an entry that was lost and came back */
        surface(c, ch, m, io);
        return;
    }
    if (ch->prev_epoch && m->epoch == ch->prev_epoch && m->seq <= ch->prev_seq &&
        (!io->copy || holds(c, m, io))) {
        duplicate(c, ch, m, io);
        if (m->seq == ch->seq + 1)
            advance(ch, m->seq);
        return;
    }
    if (contradicts(c, ch, m->epoch, m->seq))
        restart_at(ch, m->epoch, m->seq - 1);
    if (m->seq <= ch->seq) {
        if (ch->prev_epoch && m->epoch == ch->prev_epoch) { /* an entry that was lost and came back */
            ch->prev_seq = m->seq;
            received(c, m, REASON_NONE, io);
            surface(c, ch, m, io);
            return;
        }
        if (MUTANT(DUPLICATE_SHOWN) && !(ch->prev_epoch && m->epoch == ch->prev_epoch))
            client_emit(c, io, &(struct client_effect){.type = CLIENT_SURFACE, .m = m});
        if (!ch->epoch)
            enter_epoch(ch, m->epoch);
        duplicate(c, ch, m, io);
        return;
    }
    uint64_t by = m->seq - ch->seq;
    if (by > 1 && client_may_sync(c) && !MUTANT(HOLE_PASSED_OVER)) {
        if (by <= 64 && (ch->ahead >> (by - 1) & 1)) {
            duplicate(c, ch, m, io);
            return;
        }
        received(c, m, REASON_RESYNC, io);
        if (ch->seen < m->seq)
            ch->seen = m->seq;
        ask(c, ch, io);
        return;
    }
    received(c, m, REASON_NONE, io);
    surface(c, ch, m, io);
}

/* What is pushed comes in order, own messages too: on a device without memory the first one is the beginning.
 * If it did not count, it would never be acknowledged, come again, and be shown. */
static void own_pushed(struct client *c, const struct msg *m, const struct client_io *io)
{
    struct client_chat *ch = client_orderly(c) ? get(c, m->chat, io) : NULL;
    if (!ch || !ch->base_unknown || c->rebuild)
        return;
    base_at(ch, m->seq ? m->seq - 1 : 0);
}

void chat_on_msg(struct client *c, const struct msg *m, const struct client_io *io)
{
    c->last_ts_us = m->ts;
    if (m->from == c->user && client_has(c, CLIENT_RETRY) && outbox_find(&c->outbox, &m->id)) {
        received(c, m, REASON_NONE, io);
        send_on_accepted(c, m, io);
        own_pushed(c, m, io);
        chat_on_own(c, m->chat, m->epoch, m->seq, io);
        return;
    }
    struct client_chat *ch = client_orderly(c) ? get(c, m->chat, io) : NULL;
    if (!ch) {
        received(c, m, REASON_NONE, io);
        client_emit(c, io, &(struct client_effect){.type = CLIENT_SURFACE, .m = m});
        return;
    }
    if (!ch->base_unknown || find_base(c, ch, m, io))
        in_order(c, ch, m, io);
}

void chat_on_own(struct client *c, uint64_t chat, uint64_t epoch, uint64_t seq, const struct client_io *io)
{
    struct client_chat *ch = client_orderly(c) && seq ? get(c, chat, io) : NULL;
    if (!ch)
        return;
    if (ch->base_unknown) {
        own_before_base(ch, seq);
        return;
    }
    if (contradicts(c, ch, epoch, seq))
        restart_at(ch, epoch, seq - 1);
    if (seq <= ch->seq)
        return;
    uint64_t by = seq - ch->seq;
    if (by == 1) {
        enter_epoch(ch, epoch);
        advance(ch, seq);
        ack_later(c, ch, io);
    } else {
        if (by <= 64)
            ch->ahead |= 1ull << (by - 1);
        if (ch->seen < seq)
            ch->seen = seq;
    }
    if (ch->seen > ch->seq) /* what lies between is usually on its way */
        wake_sync(c, ch, io->now.mono_ns + CLIENT_HOLE_OWN_NS);
}

void chat_on_gap(struct client *c, const struct msg *m, const struct client_io *io)
{
    client_emit(c, io, &(struct client_effect){.type = CLIENT_GAP, .m = m});
    struct client_chat *ch = client_orderly(c) ? get(c, m->chat, io) : NULL;
    if (!ch)
        return;
    if (ch->base_unknown && !c->rebuild)
        base_at(ch, m->to);
    if (ch->base_unknown || m->to <= ch->seq)
        return;
    if (m->gap_from <= ch->seq + 1) {
        advance(ch, m->to);
        ack_later(c, ch, io);
        return;
    }
    if (ch->seen < m->to)
        ch->seen = m->to;
    ask(c, ch, io);
}

static void base_found(struct client *c, struct client_chat *ch, const struct client_io *io)
{
    base_at(ch, ch->sync_from ? ch->sync_from - 1 : ch->seen);
    ch->sync_ns = 0;
    if (ch->seen > ch->seq)
        ask(c, ch, io);
}

static void sync_done_chat(struct client *c, struct client_chat *ch, const struct msg *m,
                           const struct client_io *io)
{
    if (ch->base_unknown) {
        if (c->rebuild && !m->more)
            base_found(c, ch, io);
        else if (c->rebuild)
            wake_sync(c, ch, io->now.mono_ns);
        return;
    }
    bool was_flying = ch->sync_flying;
    if (was_flying) {
        ch->sync_flying = false;
        c->syncs--;
    }
    if (m->more && m->to <= ch->seq)
        ask(c, ch, io);
    else if (ch->seen > ch->seq && was_flying && (ch->seq > ch->sync_from || m->more))
        ask(c, ch, io);
    else if (ch->seen > ch->seq && was_flying)
        wake_sync(c, ch,
                  io->now.mono_ns + rng_between(io->rng, CLIENT_SYNC_RETRY_NS / 2, CLIENT_SYNC_RETRY_NS));
}

void chat_on_no_sync(struct client *c)
{
    c->no_sync = true;
    c->rebuild = c->since_flying = false;
    c->syncs = 0;
    c->sync_ns = 0;
    recover_forget(c);
    for (struct client_chat *ch = c->chats; ch; ch = ch->next) {
        ch->sync_flying = false;
        ch->sync_ns = 0;
    }
}

void chat_on_sync_done(struct client *c, const struct msg *m, const struct client_io *io)
{
    c->since_flying = false;
    bool rebuilding = false;
    for (struct client_chat *ch = c->chats; ch; ch = ch->next) {
        if (!m->chat || ch->chat == m->chat)
            sync_done_chat(c, ch, m, io);
        rebuilding |= ch->base_unknown;
    }
    if (!rebuilding)
        c->rebuild = false;
    if (!m->more) {
        send_not_found(c, m->chat, io);
        return;
    }
    for (struct outbox_entry *e = c->outbox.first; e; e = e->next)
        if (e->checking && e->chat == m->chat) {
            struct msg next = {.t = MSG_SYNC, .chat = m->chat, .after = m->to, .limit = CLIENT_SYNC_PAGE};
            client_send(c, io, &next, 0);
            client_expect_answer(c, io);
            return;
        }
}

void chat_sync_since(struct client *c, const struct client_io *io)
{
    c->since_wanted = false;
    if (!client_may_sync(c) || !c->chats) { /* the answer is one `done` a chat: without chats there is none */
        c->rebuild = false;
        return;
    }
    uint64_t wall = io->now.wall_us, window = c->config->resync_window_ns / NS_PER_US;
    uint64_t since = wall > window ? wall - window : 1;
    /* what was heard before the app slept is known by its seqs */
    if (!c->rebuild && c->heard_us > since + CLIENT_SINCE_MARGIN_US)
        since = c->heard_us - CLIENT_SINCE_MARGIN_US;
    int64_t at_server = (int64_t)since + c->clock_offset_us;
    struct msg m = {.t = MSG_SYNC, .since = at_server > 0 ? (uint64_t)at_server : 1};
    c->since_flying = true;
    client_send(c, io, &m, 0);
    client_expect_answer(c, io);
}

void chat_send_acks(struct client *c, const struct client_io *io)
{
    c->ack_ns = 0;
    if (c->state != CLIENT_READY)
        return;
    for (struct client_chat *ch = c->chats; ch; ch = ch->next) {
        if (ch->base_unknown || (!ch->ack_due && !ch->read_due))
            continue;
        struct msg ack = {.t = MSG_ACK, .chat = ch->chat, .seq = ch->seq};
        struct msg read = {.t = MSG_READ, .chat = ch->chat, .seq = read_of(ch)};
        if (read.seq > ch->seq) /* what the server has not sent again it doesn't have */
            read.seq = ch->seq;
        if (ch->ack_due && !(ch->read_due && read.seq == ack.seq)) /* who has read it has it */
            client_send(c, io, &ack, 0);
        if (ch->read_due && read.seq)
            client_send(c, io, &read, 0);
        ch->read_said |= ch->read_due && read.seq && !ch->repeating;
        c->reads_said |= ch->read_said;
        ch->repeating = false;
        ch->read_due &= read.seq < read_of(ch);
        ch->ack_due = false;
        ch->said = true;
        c->acked_at = (uint16_t)(io->now.mono_ns >> ACKED_SHIFT);
    }
}

void chat_send_syncs(struct client *c, const struct client_io *io)
{
    c->sync_ns = 0;
    for (struct client_chat *ch = c->chats; ch; ch = ch->next) {
        if (!ch->sync_ns)
            continue;
        if (ch->sync_ns > io->now.mono_ns)
            earlier(&c->sync_ns, ch->sync_ns);
        else if (ch->base_unknown)
            base_found(c, ch, io);
        else if (ch->seen > ch->seq)
            ask(c, ch, io);
        else
            ch->sync_ns = 0;
    }
}
