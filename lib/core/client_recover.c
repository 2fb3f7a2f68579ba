/* What a client does when the server has lost something: reports, offers, and syncs of what came back. */
#include <stdlib.h>
#include <string.h>

#include "core/client_impl.h"
#include "store/store.h"

#define OFFER_ENTRIES 50u
#define OFFER_BYTES   (128u << 10)
#define RANGES_MAX    4096u /* waiting; of more the first are forgotten, and history still has them */
#define RETRY_NS      (3 * NS_PER_S)

/* An ask that is being answered. */
struct client_ask {
    struct client_ask *next;
    uint64_t chat, from; /* from: where the next copy is looked for, in ranges[at] */
    uint32_t n, at;
    uint8_t pass; /* 0: what removes, 1: all else */
    bool flying;
    struct msg_range ranges[];
};
/* Entries that came back and that this device may lack. */
struct client_range {
    struct client_range *next;
    uint64_t chat, after, to;
    bool flying;
};
struct client_recover {
    struct client_ask *asks;
    struct client_range *ranges;
    uint32_t ranges_n;
};

int client_on_gap_parse(uint8_t *on_gap, const char *text, struct err_ctx *ctx)
{
    static const char *const words[] = {"offer", "discard", "ask", "keep"};
    for (uint8_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!*text || strcmp(text, words[i]) == 0) {
            *on_gap = i;
            return 0;
        }
    return err_set(ctx, ERR_INVALID, "'%s' is none of offer, discard, ask, keep", text);
}

static struct client_recover *get(struct client *c)
{
    if (!c->recover)
        c->recover = calloc(1, sizeof *c->recover);
    return c->recover;
}

static void free_asks(struct client *c)
{
    while (c->recover && c->recover->asks) {
        struct client_ask *next = c->recover->asks->next;
        free(c->recover->asks);
        c->recover->asks = next;
    }
}

static void drop_range(struct client *c)
{
    struct client_range *r = c->recover->ranges;
    c->recover->ranges = r->next;
    c->recover->ranges_n--;
    free(r);
}

static void trim(struct client *c)
{
    if (c->recover && !c->recover->asks && !c->recover->ranges) {
        free(c->recover);
        c->recover = NULL;
    }
}

void recover_forget(struct client *c)
{
    free_asks(c);
    while (c->recover && c->recover->ranges)
        drop_range(c);
    trim(c);
}

void recover_on_disconnect(struct client *c)
{
    free_asks(c); /* the server asks again */
    for (struct client_range *r = c->recover ? c->recover->ranges : NULL; r; r = r->next)
        r->flying = false;
    trim(c);
}

bool recover_waits(const struct client *c)
{
    return c->recover && ((c->recover->asks && c->recover->asks->flying) ||
                          (c->recover->ranges && c->recover->ranges->flying));
}

/* ---- reports ---- */

/* The last copy of an epoch before the current one. Seqs of one epoch lie in one block of 2^32. */
static bool last_old_copy(const struct client *c, uint64_t chat, const struct client_io *io, struct msg *out)
{
    uint64_t to = PROTO_SEQ_MAX;
    while (io->copy(io->arg, c, chat, 0, to, true, out)) {
        if (out->epoch != c->epoch)
            return true;
        uint64_t start = out->seq & ~(uint64_t)UINT32_MAX;
        if (!start)
            return false;
        to = start - 1;
    }
    return false;
}

void recover_on_report(struct client *c, const struct client_io *io)
{
    struct msg m = {.t = MSG_REPORT, .has = MSG_HAS(reports)}, copy;
    uint32_t n = 0;
    for (const struct client_chat *ch = c->chats; ch; ch = ch->next)
        n++;
    n = n < PROTO_CLAIMS_MAX ? n : PROTO_CLAIMS_MAX;
    m.reports = n && io->copy ? calloc(n, sizeof *m.reports) : NULL;
    for (const struct client_chat *ch = c->chats; ch && m.reports && m.reports_n < n; ch = ch->next) {
        if (!last_old_copy(c, ch->chat, io, &copy))
            continue;
        struct msg_report *r = &m.reports[m.reports_n++];
        *r = (struct msg_report){
            .chat = ch->chat, .epoch = copy.epoch, .head = copy.seq, .hash_len = copy.tag_len};
        memcpy(r->hash, copy.tag, copy.tag_len);
    }
    client_send(c, io, &m, 0);
    free(m.reports);
}

/* ---- offers ---- */

static bool removes(const struct msg *m)
{
    enum entry_op op = entry_op_of(m->kind.p, m->kind.n);
    return op == ENTRY_LEAVE || op == ENTRY_REMOVE || op == ENTRY_DELETE;
}

/* The next copy to offer; false: that was all. */
static bool next_copy(const struct client *c, struct client_ask *a, const struct client_io *io,
                      struct msg *out)
{
    while (io->copy && c->config->on_gap == ON_GAP_OFFER && a->pass < 2) {
        if (a->at == a->n) {
            a->pass++;
            a->at = 0;
            a->from = a->ranges[0].from;
            continue;
        }
        if (a->from > a->ranges[a->at].to ||
            !io->copy(io->arg, c, a->chat, a->from, a->ranges[a->at].to, false, out)) {
            if (++a->at < a->n)
                a->from = a->ranges[a->at].from;
            continue;
        }
        a->from = out->seq + 1;
        if (out->tag_len == PROTO_TAG_BYTES && removes(out) == (a->pass == 0))
            return true;
    }
    return false;
}

static void offer_next(struct client *c, const struct client_io *io)
{
    struct client_ask *a = c->recover ? c->recover->asks : NULL;
    struct msg_entry entries[OFFER_ENTRIES];
    size_t bytes = 0;
    struct msg m = {.t = MSG_OFFER, .entries = entries, .has = MSG_HAS(entries)}, copy;
    if (!a || a->flying || c->state != CLIENT_READY)
        return;
    m.chat = a->chat;
    m.more = true;
    while (m.entries_n < OFFER_ENTRIES && bytes < OFFER_BYTES) {
        if (!next_copy(c, a, io, &copy)) {
            m.more = false;
            break;
        }
        struct msg_entry *e = &entries[m.entries_n++];
        *e = (struct msg_entry){.epoch = copy.epoch,
                                .seq = copy.seq,
                                .from = copy.from,
                                .ts = copy.ts,
                                .id = copy.id,
                                .kind = copy.kind,
                                .body = copy.body,
                                .tag_len = copy.tag_len};
        memcpy(e->tag, copy.tag, copy.tag_len);
        bytes += copy.body.n;
    }
    a->flying = true;
    client_send(c, io, &m, 0);
    client_expect_answer(c, io);
    if (m.more)
        return;
    a->pass = 2; /* only the answer is awaited */
}

/* Other policies than to offer: each own message in the ranges is the person's business. */
static void judge_own(struct client *c, const struct msg *ask, const struct client_io *io)
{
    static const enum client_effect_type as[] = {
        [ON_GAP_DISCARD] = CLIENT_DISCARDED, [ON_GAP_ASK] = CLIENT_SEND_AGAIN, [ON_GAP_KEEP] = CLIENT_MARKED};
    struct msg copy;
    for (uint32_t i = 0; i < ask->ranges_n && io->copy; i++)
        for (uint64_t from = ask->ranges[i].from;
             io->copy(io->arg, c, ask->chat, from, ask->ranges[i].to, false, &copy); from = copy.seq + 1)
            if (copy.from == c->user && entry_op_of(copy.kind.p, copy.kind.n) == ENTRY_MESSAGE)
                client_emit(c, io,
                            &(struct client_effect){.type = as[c->config->on_gap],
                                                    .id = copy.id,
                                                    .chat = copy.chat,
                                                    .kind = copy.kind,
                                                    .body = copy.body});
}

void recover_on_ask(struct client *c, const struct msg *m, const struct client_io *io)
{
    struct client_recover *r = get(c);
    struct client_ask *a = r ? malloc(sizeof *a + m->ranges_n * sizeof m->ranges[0]) : NULL;
    if (!a || !m->ranges_n) {
        free(a);
        trim(c);
        return;
    }
    *a = (struct client_ask){.chat = m->chat, .n = m->ranges_n, .from = m->ranges[0].from};
    memcpy(a->ranges, m->ranges, m->ranges_n * sizeof m->ranges[0]);
    struct client_ask **at = &r->asks;
    while (*at)
        at = &(*at)->next;
    *at = a;
    client_emit(c, io, &(struct client_effect){.type = CLIENT_UNCONFIRMED, .m = m});
    if (c->config->on_gap != ON_GAP_OFFER)
        judge_own(c, m, io);
    offer_next(c, io);
}

void recover_on_offered(struct client *c, const struct msg *m, const struct client_io *io)
{
    client_emit(c, io, &(struct client_effect){.type = CLIENT_OFFERED, .m = m});
    struct client_ask *a = c->recover ? c->recover->asks : NULL;
    if (!a || !a->flying || a->chat != m->chat)
        return;
    a->flying = false;
    if (a->pass == 2) {
        c->recover->asks = a->next;
        free(a);
    }
    offer_next(c, io);
    trim(c);
}

void recover_on_notice(struct client *c, const struct msg *m, const struct client_io *io)
{
    client_emit(c, io, &(struct client_effect){.type = CLIENT_NOTICE, .m = m});
    if (slice_is(m->code, "restored") && c->config->on_gap == ON_GAP_DISCARD)
        send_discard_before(c, m->to, io);
}

/* ---- what came back ---- */

/* The next [from,to] of {"ranges":[[1,2],[4,4]]}. */
static bool next_range(const char **p, const char *end, uint64_t *from, uint64_t *to)
{
    uint64_t v[2] = {0};
    for (int i = 0; i < 2; i++) {
        while (*p < end && (**p < '0' || **p > '9'))
            ++*p;
        if (*p == end)
            return false;
        for (; *p < end && **p >= '0' && **p <= '9' && v[i] < PROTO_SEQ_MAX; ++*p)
            v[i] = v[i] * 10 + (uint64_t)(**p - '0');
    }
    *from = v[0] ? v[0] : 1;
    *to = v[1];
    return true;
}

/* Does the device hold every entry of it? */
static bool holds_all(const struct client *c, const struct client_range *r, const struct client_io *io)
{
    struct msg copy;
    for (uint64_t seq = r->after + 1; seq <= r->to; seq++)
        if (!io->copy || !io->copy(io->arg, c, r->chat, seq, seq, false, &copy))
            return false;
    return true;
}

static void sync_next(struct client *c, const struct client_io *io)
{
    struct client_range *r;
    if (c->state != CLIENT_READY)
        return;
    while (c->recover && (r = c->recover->ranges) && !r->flying) {
        if (holds_all(c, r, io)) {
            drop_range(c);
            continue;
        }
        r->flying = chat_sync_range(c, r->chat, r->after, r->to, io);
        if (!r->flying)
            chat_wake(c, io->now.mono_ns + CLIENT_ACK_NS); /* another sync of it is on its way */
        return;
    }
    trim(c);
}

void recover_on_entry(struct client *c, const struct msg *m, const struct client_io *io)
{
    const char *p = m->body.p, *end = p + m->body.n;
    uint64_t from, to;
    struct client_recover *r = client_may_sync(c) ? get(c) : NULL;
    while (r && next_range(&p, end, &from, &to)) {
        struct client_range *x = from <= to ? malloc(sizeof *x) : NULL, **at = &r->ranges;
        if (!x)
            continue;
        *x = (struct client_range){.chat = m->chat, .after = from - 1, .to = to};
        while (*at)
            at = &(*at)->next;
        *at = x;
        if (++r->ranges_n > RANGES_MAX)
            drop_range(c);
    }
    sync_next(c, io);
}

/* The range that is being asked for is no longer; NULL: `m` is about another sync. */
static struct client_range *landed(struct client *c, const struct msg *m, const struct client_io *io)
{
    struct client_range *r = c->recover ? c->recover->ranges : NULL;
    if (!r || !r->flying || r->chat != m->chat || m->to > r->to)
        return NULL;
    r->flying = false;
    chat_range_done(c, r->chat, io);
    return r;
}

/* The first range is tried again later, after those of other chats. */
static void put_off(struct client *c, const struct client_io *io)
{
    struct client_range *r = c->recover->ranges, **at = &c->recover->ranges;
    *at = r->next;
    r->next = NULL;
    while (*at)
        at = &(*at)->next;
    *at = r;
    chat_wake(c, io->now.mono_ns + RETRY_NS);
}

bool recover_on_sync_done(struct client *c, const struct msg *m, const struct client_io *io)
{
    struct client_range *r = landed(c, m, io);
    if (!r)
        return false;
    if (m->more && m->to <= r->after) { /* the server could not read */
        put_off(c, io);
        return true;
    }
    r->after = m->to;
    if (!m->more)
        drop_range(c);
    sync_next(c, io);
    return true;
}

bool recover_on_sync_refused(struct client *c, const struct msg *m, const struct client_io *io)
{
    struct msg nothing = {.chat = m->chat};
    if (!landed(c, &nothing, io))
        return false;
    bool outside = slice_is(m->code, proto_error_code(PROTO_NOT_MEMBER)) ||
                   slice_is(m->code, proto_error_code(PROTO_NO_SUCH_CHAT));
    if (!outside) {
        put_off(c, io);
        return true;
    }
    drop_range(c); /* who becomes a member again is sent everything from then on */
    sync_next(c, io);
    return true;
}

void recover_go_on(struct client *c, const struct client_io *io)
{
    if (!c->recover)
        return;
    offer_next(c, io);
    sync_next(c, io);
}
