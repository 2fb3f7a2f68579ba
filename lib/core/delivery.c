#include "core/delivery_impl.h"
#include "util/mutant.h"

#include <stdlib.h>
#include <string.h>

void delivery_init(struct delivery *d, struct io *io, struct registry *r, struct session_clocks *clocks,
                   struct counters *c, const struct delivery_config *config)
{
    *d = (struct delivery){.io = io, .registry = r, .clocks = clocks, .counters = c, .config = *config};
    buf_init(&d->scratch, PROTO_FRAME_MAX);
}

void delivery_release(struct delivery *d)
{
    free(d->cursors);
    free(d->unsaved);
    free(d->uncounted);
    sequential_release(d);
    buf_release(&d->scratch);
}

int delivery_parse(unsigned *features, const char *text, struct err_ctx *ctx)
{
    static const struct {
        const char *word;
        unsigned bits;
    } words[] = {{"reliable", DELIVERY_RELIABLE}, {"legacy", 0},         {"retry", DELIVERY_RETRY},
                 {"durable", DELIVERY_DURABLE},   {"ack", DELIVERY_ACK}, {"resync", DELIVERY_RESYNC}};
    unsigned bits = 0;
    for (const char *p = text; *p;) {
        size_t n = strcspn(p, "+"), i = 0;
        for (; i < sizeof words / sizeof *words; i++)
            if (strlen(words[i].word) == n && !memcmp(words[i].word, p, n))
                break;
        if (i == sizeof words / sizeof *words)
            return err_set(ctx, ERR_INVALID,
                           "delivery '%s': '%.*s' is none of reliable, legacy, retry, durable, ack, resync",
                           text, (int)n, p);
        bits |= words[i].bits;
        p += n + (p[n] == '+');
    }
    *features = bits;
    return 0;
}

struct shared_frame *delivery_encode(struct delivery *d, enum proto_codec codec, const struct msg *m)
{
    buf_reset(&d->scratch);
    proto_encode_as(&d->scratch, codec, m);
    if (d->scratch.failed)
        return NULL;
    struct shared_frame *f = shared_frame_new(d->scratch.data, d->scratch.len);
    if (!f)
        return NULL;
    f->id = m->id;
    f->chat = m->chat;
    f->seq = m->seq;
    f->what = m->t == MSG_MSG ? FRAME_MSG : m->t == MSG_ACCEPTED ? FRAME_ACCEPTED : FRAME_OTHER;
    return f;
}

void delivery_queue(struct delivery *d, struct session *s, struct shared_frame *f)
{
    s->queued_bytes += f->len;
    struct effect e = {.kind = EFFECT_SEND, .link = s->link, .frame = f};
    d->io->emit(d->io->arg, &e);
}

void delivery_send(struct delivery *d, struct session *s, const struct msg *m)
{
    struct shared_frame *f = delivery_encode(d, s->codec, m);
    if (!f)
        return;
    delivery_queue(d, s, f);
    shared_frame_unref(f);
}

void delivery_entry_msg(struct msg *m, const struct entry *e)
{
    *m = (struct msg){.t = MSG_MSG,
                      .chat = e->chat,
                      .epoch = e->epoch,
                      .seq = e->seq,
                      .id = e->id,
                      .from = e->sender,
                      .ts = e->ts_us,
                      .kind = {e->kind, e->kind_len},
                      .body = {e->body, e->body_len},
                      .tag_len = sizeof e->tag};
    memcpy(m->tag, e->tag, sizeof e->tag);
}

struct shared_frame *delivery_encode_entry(struct delivery *d, enum proto_codec codec, const struct entry *e)
{
    struct msg m;
    delivery_entry_msg(&m, e);
    return delivery_encode(d, codec, &m);
}

static uint32_t *unacked_ms(const struct delivery *d, uint32_t session)
{
    return &session_clock(d->clocks, session)->unacked_ms;
}

static void tell_gap(struct delivery *d, struct session *s, uint64_t chat, uint64_t from, uint64_t to,
                     const char *reason)
{
    if (MUTANT(GAP_NOT_TOLD))
        return;
    struct msg m = {.t = MSG_GAP, .chat = chat, .gap_from = from, .to = to, .reason = slice_of(reason)};
    delivery_send(d, s, &m);
    d->counters->gaps++;
}

static void announce_gap(struct delivery *d, struct sub *sub, uint64_t from, uint64_t to, const char *reason)
{
    tell_gap(d, delivery_session(d, sub), sub_chat(d->registry, sub)->id, from, to, reason);
}

void delivery_push(struct delivery *d, struct sub *sub, uint64_t seq, struct shared_frame *f)
{
    struct session *s = delivery_session(d, sub);
    if (seq > sub->pushed + 1 && (d->config.features & DELIVERY_ACK))
        announce_gap(d, sub, sub->pushed + 1, seq - 1, "epoch");
    uint32_t *unacked = unacked_ms(d, sub->session);
    if (sub->acked == sub->pushed && (d->config.features & DELIVERY_ACK) && !*unacked)
        *unacked = clock_ms(d->io->now.mono_ns);
    sub->pushed = seq;
    delivery_queue(d, s, f);
    d->counters->pushed++;
}

static bool has_room(const struct delivery *d, const struct session *s)
{
    return s->queued_bytes < d->config.queue_bytes_max;
}

/* It was pushed something and has acknowledged nothing for too long: the link is worse than the chat is busy.
 * What is on its way goes first; the rest waits in the log and not in a socket's buffer. */
static bool lags(const struct delivery *d, const struct session *s)
{
    uint32_t since = *unacked_ms(d, session_number(d->registry, s));
    return d->config.slow_ms && since && since != CLOCK_GREETING &&
           clock_ms(d->io->now.mono_ns) - since >= d->config.slow_ms;
}

bool delivery_keeps_up(struct delivery *d, struct sub *sub, const struct chat *c, uint64_t seq,
                       const struct id *id)
{
    struct session *s = delivery_session(d, sub);
    bool one_push = !(d->config.features & DELIVERY_ACK);
    if (has_room(d, s) && !lags(d, s))
        return true;
    d->counters->slow_skips++;
    trace_lane_emit(d->io->trace, &s->lane,
                    &(struct trace_event){.id = *id,
                                          .chat = c->id,
                                          .user = session_user(d->registry, s)->id,
                                          .arg = one_push ? seq : s->queued_bytes,
                                          .hop = one_push ? HOP_SERVER_PUSH_DROP : HOP_SERVER_SLOW_SKIP,
                                          .reason = REASON_SLOW});
    if (!one_push)
        session_behind_push(d->registry, s, sub);
    return false;
}

int delivery_subscribe(struct delivery *d, struct session *s, struct chat *c, uint64_t after,
                       bool announce_start)
{
    if (session_sub(d->registry, s, c))
        return 0;
    struct sub *sub;
    int rc = session_sub_add(d->registry, s, c, after, &sub);
    if (rc)
        return rc;
    if (!(d->config.features & DELIVERY_ACK)) { /* only what comes from now on */
        sub->pushed = sub->acked = c->durable;
        sub->live = true;
        return 0;
    }
    if (announce_start && after > 0)
        announce_gap(d, sub, 1, after, "before_join");
    uint64_t backlog = c->durable > sub->pushed ? c->durable - sub->pushed : 0;
    if (backlog > d->config.backlog_max && sub->pushed >= c->epoch_first) {
        uint64_t to = c->durable - d->config.backlog_max;
        announce_gap(d, sub, sub->pushed + 1, to, "backlog");
        sub->pushed = sub->acked = to;
    }
    sub->live = sub->pushed == c->durable;
    if (!sub->live)
        session_behind_push(d->registry, s, sub);
    return 0;
}

/* Legacy keeps no queue: a member without a connection is simply missed. */
static void count_missed(struct delivery *d, struct chat *c, const struct entry *e)
{
    for (uint32_t i = 0; i < c->members_n; i++) {
        const struct member *m = &c->members[i];
        if (m->user == e->sender || m->role == MEMBER_INVITED)
            continue;
        struct user *u = registry_user(d->registry, m->user);
        if (u && u->sessions)
            continue;
        d->counters->push_dropped++;
        trace_emit(d->io->trace, &(struct trace_event){.id = e->id,
                                                       .chat = c->id,
                                                       .user = m->user,
                                                       .arg = e->seq,
                                                       .hop = HOP_SERVER_PUSH_DROP,
                                                       .reason = REASON_NO_SESSION});
    }
}

static uint64_t recipients(const struct chat *c, uint64_t sender)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < c->members_n; i++)
        n += c->members[i].role != MEMBER_INVITED && c->members[i].user != sender;
    return n;
}

/* Positions and sessions lie anywhere in gigabytes: the next ones are fetched meanwhile. */
#define AHEAD 12u

/* Its session must have come by now. */
static void fetch_link(const struct delivery *d, uint32_t sub)
{
    __builtin_prefetch(registry_session(d->registry, registry_sub(d->registry, sub)->session)->link, 1);
}

static void fetch_session(const struct delivery *d, uint32_t sub)
{
    uint32_t session = registry_sub(d->registry, sub)->session;
    slab_fetch(&d->registry->sessions, session);
    __builtin_prefetch(session_clock(d->clocks, session), 1);
}

void delivery_fan_out(struct delivery *d, struct chat *c, const struct entry *e, uint64_t origin)
{
    bool one_push = !(d->config.features & DELIVERY_ACK);
    bool only_path = one_push && !(d->config.features & DELIVERY_RESYNC); /* no `sync` brings it after all */
    if (e->op == ENTRY_MESSAGE && trace_wants(d->io->trace, e->sender))
        trace_emit(d->io->trace, &(struct trace_event){.id = e->id,
                                                       .chat = c->id,
                                                       .user = e->sender,
                                                       .arg = recipients(c, e->sender),
                                                       .hop = HOP_SERVER_FANOUT,
                                                       .flags = only_path ? TRACE_FLAG_ONE_PUSH : 0});
    if (one_push && e->op == ENTRY_MESSAGE)
        count_missed(d, c, e);
    delivery_fan_out_quietly(d, c, e, origin);
}

void delivery_fan_out_quietly(struct delivery *d, struct chat *c, const struct entry *e, uint64_t origin)
{
    /* hot path: no allocation besides the shared frames, no lock, no system call */
    bool one_push = !(d->config.features & DELIVERY_ACK);
    bool one_by_one = d->config.sequential_ns != 0, passive = false;
    uint32_t from = (uint32_t)(origin >> 32);
    struct shared_frame *frames[PROTO_CODECS] = {0}; /* encoded once for all who speak it, if anybody does */
    for (uint32_t i = 0; i < c->subs_n && i < AHEAD; i++)
        slab_fetch(&d->registry->subs, c->subs[i]);
    for (uint32_t i = 0; i < c->subs_n && i < AHEAD / 2; i++)
        fetch_session(d, c->subs[i]);
    for (uint32_t i = 0; i < c->subs_n; i++) {
        if (i + AHEAD < c->subs_n)
            slab_fetch(&d->registry->subs, c->subs[i + AHEAD]);
        if (i + AHEAD / 2 < c->subs_n)
            fetch_session(d, c->subs[i + AHEAD / 2]);
        if (i + AHEAD / 4 < c->subs_n)
            fetch_link(d, c->subs[i + AHEAD / 4]);
        struct sub *sub = registry_sub(d->registry, c->subs[i]);
        passive |= sub->passive;
        if (!sub->live || sub->passive || sub->pushed >= e->seq)
            continue;
        struct session *s = delivery_session(d, sub);
        if (sub->session == from &&
            s->lane.conn ==
                (uint32_t)origin) { /* the sender's device knows its own message: `accepted` tells the seq */
            if (one_by_one && e->seq > sub->pushed + 1)
                continue; /* what stands before it is still on its way */
            if (e->seq > sub->pushed + 1 && !one_push)
                announce_gap(d, sub, sub->pushed + 1, e->seq - 1, "epoch");
            if (sub->acked == sub->pushed)
                sub->acked = e->seq;
            sub->pushed = e->seq;
            continue;
        }
        if (one_by_one || !delivery_keeps_up(d, sub, c, e->seq, &e->id))
            continue;
        if (!frames[s->codec] && !(frames[s->codec] = delivery_encode_entry(d, s->codec, e))) {
            session_behind_push(d->registry, s, sub); /* no memory: it is read later */
            continue;
        }
        delivery_push(d, sub, e->seq, frames[s->codec]);
    }
    for (int i = 0; i < PROTO_CODECS; i++)
        shared_frame_unref(frames[i]);
    if (passive)
        passive_note(d, c);
    if (one_by_one)
        sequential_add(d, c, e);
}

void delivery_tick(struct delivery *d)
{
    sequential_go_on(d);
    passive_tell(d);
}

void delivery_tell(struct delivery *d, const struct chat *c, const struct msg *m, uint64_t but_user)
{
    struct shared_frame *frames[PROTO_CODECS] = {0};
    for (uint32_t i = 0; i < c->subs_n; i++) {
        struct session *s = delivery_session(d, registry_sub(d->registry, c->subs[i]));
        if (!has_room(d, s) || session_user(d->registry, s)->id == but_user)
            continue;
        if (frames[s->codec] || (frames[s->codec] = delivery_encode(d, s->codec, m)))
            delivery_queue(d, s, frames[s->codec]);
    }
    for (int i = 0; i < PROTO_CODECS; i++)
        shared_frame_unref(frames[i]);
}

static void ask(struct delivery *d, struct session *s, struct read_job *job)
{
    job->kind = READ_LOG;
    job->owner = session_conn(d->registry, s);
    job->limit = job->limit && job->limit < d->config.page ? job->limit : d->config.page;
    job->bytes_max = d->config.queue_bytes_max / 2;
    s->reading = true;
    struct effect e = {.kind = EFFECT_READ, .read = job};
    d->io->emit(d->io->arg, &e);
}

static void sync_finish(struct delivery *d, struct session *s, bool more)
{
    struct session_extra *x = session_extra(d->registry, s, false);
    struct sync_job *job = x->sync_first;
    struct msg m = {.t = MSG_DONE, .re = SLICE("sync"), .chat = job->chat, .to = job->after, .more = more};
    delivery_send(d, s, &m);
    x->sync_first = job->next;
    if (!x->sync_first)
        x->sync_last = NULL;
    x->sync_n--;
    free(job);
    if (!x->sync_first)
        session_extra_trim(d->registry, s);
}

/* Start the sync at the head of the queue; false when it was over at once. */
static bool sync_start(struct delivery *d, struct session *s)
{
    struct sync_job *job = session_extra(d->registry, s, false)->sync_first;
    struct chat *c = registry_chat(d->registry, job->chat);
    if (!c || !chat_is_member(c, session_user(d->registry, s)->id) || job->after >= job->upto || !job->left) {
        sync_finish(d, s, false);
        return false;
    }
    struct read_job *read = calloc(1, sizeof *read);
    if (!read)
        return true; /* tried again by the next pump */
    read->owner_ptr = job;
    read->chat = job->chat;
    read->after = job->after;
    read->upto = job->upto;
    read->since_us = job->since_us;
    read->limit = job->left;
    ask(d, s, read);
    return true;
}

/* Positions first, then what was asked for: a device that remembers nothing of a chat takes what it is sent
 * first as its beginning, and the answer to a `sync {since}` begins later than its position. */
void delivery_pump(struct delivery *d, struct session *s)
{
    while (!s->reading && s->state == SESSION_READY && has_room(d, s)) {
        struct sub *sub = lags(d, s) ? NULL : session_behind_pop(d->registry, s);
        if (!sub) {
            const struct session_extra *x = session_extra(d->registry, s, false);
            if (!x || !x->sync_first || sync_start(d, s))
                return;
            continue;
        }
        const struct chat *c = sub_chat(d->registry, sub);
        if (sub->pushed >= c->durable || sub->passive) { /* a passive one reads when it is shown again */
            sub->live = true;
            continue;
        }
        struct read_job *read = calloc(1, sizeof *read);
        if (!read) {
            session_behind_push(d->registry, s, sub);
            return;
        }
        read->chat = c->id;
        read->after = sub->pushed;
        read->upto = c->durable;
        ask(d, s, read);
    }
}

static void sync_page(struct delivery *d, struct session *s, struct read_job *job)
{
    struct sync_job *sync = job->owner_ptr;
    sync->since_us = 0;
    sync->after = job->after > sync->after ? job->after : sync->after;
    size_t i = 0;
    for (; i < job->entries.n && sync->left; i++) {
        uint64_t seq = job->entries.list[i].seq;
        struct shared_frame *f = delivery_encode_entry(d, s->codec, &job->entries.list[i]);
        if (!f)
            break;
        /* Between epochs there is nothing, and who asks may not have kept what it was told of that. */
        if (seq > sync->after + 1)
            tell_gap(d, s, sync->chat, sync->after + 1, seq - 1, "epoch");
        delivery_queue(d, s, f);
        shared_frame_unref(f);
        sync->after = job->entries.list[i].seq;
        sync->left--;
    }
    if (!job->entries.n) /* nothing stands after it */
        sync->after = sync->upto;
    if (!sync->left || sync->after >= sync->upto)
        sync_finish(d, s, sync->after < sync->upto);
}

static void catchup_page(struct delivery *d, struct session *s, struct read_job *job)
{
    struct chat *c = registry_chat(d->registry, job->chat);
    struct sub *sub = c ? session_sub(d->registry, s, c) : NULL;
    if (!sub)
        return; /* left meanwhile */
    size_t i = 0;
    for (; i < job->entries.n; i++) {
        const struct entry *e = &job->entries.list[i];
        if (e->seq <= sub->pushed)
            continue;
        if (!has_room(d, s))
            break;
        struct shared_frame *f = delivery_encode_entry(d, s->codec, e);
        if (!f)
            break;
        f->catchup = 1;
        trace_lane_emit(d->io->trace, &s->lane,
                        &(struct trace_event){.id = e->id,
                                              .chat = c->id,
                                              .user = session_user(d->registry, s)->id,
                                              .device = s->device,
                                              .arg = e->seq,
                                              .hop = HOP_SERVER_REDELIVER});
        delivery_push(d, sub, e->seq, f);
        d->counters->pushed_catchup++;
        shared_frame_unref(f);
    }
    if (!job->entries.n && job->upto > sub->pushed) {
        /* the log holds nothing up to there, which cannot be inside an epoch: say it */
        announce_gap(d, sub, sub->pushed + 1, job->upto, "missing");
        sub->pushed = job->upto;
    }
    if (sub->pushed >= c->durable || MUTANT(LIVE_TOO_EARLY))
        sub->live = true;
    else
        session_behind_push(d->registry, s, sub);
}

void delivery_read_done(struct delivery *d, struct session *s, struct read_job *job)
{
    s->reading = false;
    if (job->rc) {
        d->counters->read_failures++;
        if (job->owner_ptr)
            sync_finish(d, s, true);
        else {
            struct chat *c = registry_chat(d->registry, job->chat);
            struct sub *sub = c ? session_sub(d->registry, s, c) : NULL;
            if (sub && job->rc != ERR_TIMEOUT)            /* else the owner is away: delivery_revive */
                session_behind_push(d->registry, s, sub); /* the tick pumps again */
        }
        return;
    }
    if (job->owner_ptr)
        sync_page(d, s, job);
    else
        catchup_page(d, s, job);
    delivery_pump(d, s);
}

void delivery_revive(struct delivery *d, struct chat *c)
{
    for (uint32_t i = 0; i < c->subs_n; i++) {
        struct sub *sub = registry_sub(d->registry, c->subs[i]);
        struct session *s = delivery_session(d, sub);
        if (sub->live || sub->behind)
            continue;
        session_behind_push(d->registry, s, sub);
        delivery_pump(d, s);
    }
}

void delivery_written(struct delivery *d, struct session *s, uint32_t bytes)
{
    bool was_full = s->queued_bytes >= d->config.queue_bytes_max / 2;
    s->queued_bytes = s->queued_bytes > bytes ? s->queued_bytes - bytes : 0;
    if (was_full && s->queued_bytes < d->config.queue_bytes_max / 2)
        delivery_pump(d, s);
    if (d->rounds)
        sequential_go_on(d);
}

/* Note that (chat, user, device) has a cursor to save. Without memory it isn't: that costs a redelivery. */
static void note_cursor(struct delivery *d, struct sub *sub)
{
    if (sub->unsaved)
        return;
    if (d->unsaved_n == d->unsaved_cap) {
        size_t cap = d->unsaved_cap ? d->unsaved_cap * 2 : 256;
        uint32_t *p = realloc(d->unsaved, cap * sizeof *p);
        if (!p)
            return;
        d->unsaved = p;
        d->unsaved_cap = cap;
    }
    d->unsaved[d->unsaved_n++] = slab_number(&d->registry->subs, sub);
    sub->unsaved = true;
}

static struct cursor cursor_of(const struct delivery *d, const struct sub *sub)
{
    const struct session *s = delivery_session(d, sub);
    const struct chat *c = sub_chat(d->registry, sub);
    return (struct cursor){.chat = c->id,
                           .user = session_user(d->registry, s)->id,
                           .device = s->device,
                           .epoch = c->epoch,
                           /* where a resume begins, a backlog's gap passed over, is not the device's word */
                           .delivered = sub->confirmed ? sub->acked : sub->read,
                           .read = sub->read};
}

static int keep_cursors(struct delivery *d, size_t more)
{
    if (d->cursors_n + more <= d->cursors_cap)
        return 0;
    size_t cap = d->cursors_n + more + d->cursors_cap;
    struct cursor *p = realloc(d->cursors, cap * sizeof *p);
    if (!p)
        return ERR_NOMEM;
    d->cursors = p;
    d->cursors_cap = cap;
    return 0;
}

void delivery_add_cursor(struct delivery *d, const struct cursor *c)
{
    if (d->cursors_n < 4 * DELIVERY_CURSORS && !keep_cursors(d, 1))
        d->cursors[d->cursors_n++] = *c;
}

void delivery_note_chat(struct delivery *d, const struct chat *c)
{
    for (uint32_t i = 0; i < c->subs_n; i++) {
        struct sub *sub = registry_sub(d->registry, c->subs[i]);
        if (sub->confirmed || sub->read)
            note_cursor(d, sub);
    }
}

static bool anything_unacked(const struct delivery *d, const struct session *s)
{
    for (const struct sub *sub = registry_sub(d->registry, s->subs); sub;
         sub = registry_sub(d->registry, sub->next))
        if (sub->acked < sub->pushed)
            return true;
    return false;
}

bool delivery_ack(struct delivery *d, struct session *s, struct chat *c, uint64_t seq, bool read)
{
    struct sub *sub = session_sub(d->registry, s, c);
    if (!sub)
        return false;
    if (seq > sub->pushed)
        seq = sub->pushed;
    if (read && seq > sub->read) {
        sub->read = seq;
        note_cursor(d, sub);
    }
    if (seq < sub->acked || (seq == sub->acked && sub->confirmed))
        return true;
    sub->confirmed = true; /* what hello claimed is only where it goes on: now its word is kept */
    note_cursor(d, sub);
    if (seq == sub->acked)
        return true;
    sub->acked = seq;
    d->counters->acks++;
    if (d->io->trace && !s->lane.quiet)
        trace_lane_emit(d->io->trace, &s->lane,
                        &(struct trace_event){.chat = c->id,
                                              .user = session_user(d->registry, s)->id,
                                              .device = s->device,
                                              .arg = seq,
                                              .hop = HOP_SERVER_DELIVERED});
    *unacked_ms(d, sub->session) = anything_unacked(d, s) ? clock_ms(d->io->now.mono_ns) : 0;
    if (s->behind)
        delivery_pump(d, s);
    return true;
}

int delivery_sync(struct delivery *d, struct session *s, const struct sync_job *job)
{
    struct session_extra *x = session_extra(d->registry, s, true);
    if (x && x->sync_n >= SYNC_JOBS_MAX)
        return ERR_LIMIT;
    struct sync_job *copy = x ? malloc(sizeof *copy) : NULL;
    if (!copy)
        return ERR_NOMEM;
    *copy = *job;
    copy->next = NULL;
    if (x->sync_last)
        x->sync_last->next = copy;
    else
        x->sync_first = copy;
    x->sync_last = copy;
    x->sync_n++;
    delivery_pump(d, s);
    return 0;
}

/* The list of unsaved ones keeps the number: it is passed over there, or stands for the next position that
 * has it. */
static void drop_position(struct delivery *d, struct session *s, struct sub *sub)
{
    if (sub->unsaved && !keep_cursors(d, 1))
        d->cursors[d->cursors_n++] = cursor_of(d, sub);
    session_sub_drop(d->registry, s, sub);
}

void delivery_unsubscribe(struct delivery *d, struct session *s, struct sub *sub)
{
    uint32_t *unacked = unacked_ms(d, sub->session);
    drop_position(d, s, sub);
    if (*unacked && *unacked != CLOCK_GREETING && !anything_unacked(d, s))
        *unacked = 0; /* what was pushed there will not be acknowledged */
}

void delivery_forget(struct delivery *d, struct session *s)
{
    *unacked_ms(d, session_number(d->registry, s)) = 0;
    while (s->subs)
        drop_position(d, s, registry_sub(d->registry, s->subs));
    struct session_extra *x = session_extra(d->registry, s, false);
    if (!x)
        return;
    while (x->sync_first) {
        struct sync_job *next = x->sync_first->next;
        free(x->sync_first);
        x->sync_first = next;
    }
    session_extra_trim(d->registry, s);
}

struct cursor *delivery_take_cursors(struct delivery *d, size_t most, size_t *n)
{
    size_t left = d->unsaved_n - d->unsaved_first, take = left < most ? left : most;
    if (take && keep_cursors(d, take))
        take = 0;
    for (size_t i = 0; i < take; i++) {
        struct sub *sub = registry_sub(d->registry, d->unsaved[d->unsaved_first++]);
        if (!sub->unsaved)
            continue;
        sub->unsaved = false;
        d->cursors[d->cursors_n++] = cursor_of(d, sub);
    }
    if (d->unsaved_first == d->unsaved_n) {
        d->unsaved_first = d->unsaved_n = 0;
    } else if (d->unsaved_first > d->unsaved_n / 2) {
        d->unsaved_n -= d->unsaved_first;
        memmove(d->unsaved, d->unsaved + d->unsaved_first, d->unsaved_n * sizeof *d->unsaved);
        d->unsaved_first = 0;
    }
    struct cursor *list = d->cursors;
    *n = d->cursors_n;
    d->cursors = NULL;
    d->cursors_n = d->cursors_cap = 0;
    return list;
}
