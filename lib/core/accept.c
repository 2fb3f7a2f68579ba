#include "core/accept.h"
#include "util/mutant.h"

#include <stdlib.h>
#include <string.h>

#define HELD_CHATS_MAX 100000u

struct key {
    uint64_t sender;
    struct id id;
};

int accept_init(struct accept *a, struct io *io, struct registry *r, struct counters *c, const struct keys *k,
                const struct accept_ops *ops, void *arg, uint64_t epoch, bool log, bool dedup)
{
    *a = (struct accept){.io = io,
                         .registry = r,
                         .counters = c,
                         .keys = k,
                         .ops = ops,
                         .arg = arg,
                         .epoch = epoch,
                         .log = log,
                         .dedup = dedup,
                         .dedup_window_ms = STORE_DEDUP_DAYS * 86400000ull};
    map_init(&a->known, sizeof(struct key), 8, ACCEPT_KNOWN_MAX + ACCEPT_PENDING_MAX + 1, rng_u64(&io->rng));
    map_init(&a->held, 8, 8, HELD_CHATS_MAX, rng_u64(&io->rng));
    return 0;
}

static void pending_free(struct pending *p)
{
    while (p->waiters) {
        struct waiter *next = p->waiters->next;
        free(p->waiters);
        p->waiters = next;
    }
    free(p->users);
    free(p);
}

static void batch_free(struct commit_job *job)
{
    if (!job)
        return;
    free(job->batch.entries);
    free(job->batch.members);
    free(job->batch.cursors);
    free(job);
}

static void list_free(struct pending *p)
{
    while (p) {
        struct pending *next = p->next;
        pending_free(p);
        p = next;
    }
}

void accept_release(struct accept *a)
{
    size_t at = 0;
    void *v;
    while (map_next(&a->known, &at, NULL, &v))
        free(*(struct known **)v);
    map_release(&a->known);
    map_release(&a->held);
    list_free(a->queue_first);
    list_free(a->flying);
    free(a->cursors);
    if (a->job && !a->job->extra)
        batch_free(a->job);
}

static struct known *known_find(struct accept *a, uint64_t sender, const struct id *id)
{
    struct key key = {sender, *id};
    struct known **k = map_get(&a->known, &key);
    return k ? *k : NULL;
}

static void known_drop(struct accept *a, struct known *k)
{
    struct key key = {k->sender, k->id};
    map_del(&a->known, &key);
    free(k);
}

static struct known *known_make(struct accept *a, uint64_t sender, const struct id *id)
{
    struct key key = {sender, *id};
    struct known **slot = map_put(&a->known, &key, NULL);
    if (!slot)
        return NULL;
    struct known *k = calloc(1, sizeof *k);
    if (!k) {
        map_del(&a->known, &key);
        return NULL;
    }
    k->sender = sender;
    k->id = *id;
    *slot = k;
    return k;
}

/* From now on answered from memory, until ACCEPT_KNOWN_MAX newer ones came. */
static void known_settle(struct accept *a, struct known *k)
{
    k->state = KNOWN_DURABLE;
    k->pending = NULL;
    k->newer = NULL;
    if (a->known_newest)
        a->known_newest->newer = k;
    else
        a->known_oldest = k;
    a->known_newest = k;
    if (++a->durable_n > (MUTANT(DEDUP_WINDOW_TOO_SHORT) ? 4 : ACCEPT_KNOWN_MAX)) {
        struct known *old = a->known_oldest;
        uint64_t ms = MUTANT(DEDUP_WINDOW_TOO_SHORT) ? 0 : id_unix_ms(&old->id);
        a->ask_before_ms = ms < a->ask_before_ms ? a->ask_before_ms : ms + 1;
        a->known_oldest = old->newer;
        a->durable_n--;
        known_drop(a, old);
    }
}

static struct pending *pending_new(struct accept *a, uint64_t conn, uint64_t user, enum entry_op op,
                                   uint64_t chat, struct slice kind, struct slice body)
{
    struct pending *p = calloc(1, sizeof *p + kind.n + body.n);
    if (!p)
        return NULL;
    if (kind.n)
        memcpy(p->text, kind.p, kind.n);
    if (body.n)
        memcpy(p->text + kind.n, body.p, body.n);
    p->conn = conn;
    p->e = (struct entry){.chat = chat,
                          .sender = user,
                          .op = (uint8_t)op,
                          .kind_len = (uint8_t)kind.n,
                          .body_len = (uint32_t)body.n,
                          .kind = p->text,
                          .body = p->text + kind.n};
    a->pending_n++;
    return p;
}

static void pending_done(struct accept *a, struct pending *p)
{
    a->pending_n--;
    pending_free(p);
}

static void enqueue(struct accept *a, struct pending *p)
{
    p->next = NULL;
    if (a->queue_last)
        a->queue_last->next = p;
    else
        a->queue_first = p;
    a->queue_last = p;
}

/* The request stays in the queue until its turn comes. */
static void refuse_queued(struct accept *a, struct pending *p, enum proto_error code, uint32_t retry_ms)
{
    a->ops->refused(a->arg, p->conn, p, code, retry_ms);
    for (struct waiter *w = p->waiters; w; w = w->next)
        a->ops->refused(a->arg, w->conn, p, code, retry_ms);
    if (p->known)
        known_drop(a, p->known);
    p->known = NULL;
    p->answered = true;
}

static void refuse(struct accept *a, struct pending *p, enum proto_error code, uint32_t retry_ms)
{
    refuse_queued(a, p, code, retry_ms);
    pending_done(a, p);
}

/* Refuse a send for which nothing was allocated yet. */
static void refuse_send(struct accept *a, uint64_t conn, uint64_t user, const struct msg *m,
                        enum proto_error code, uint32_t retry_ms)
{
    struct pending p = {.e = {.chat = m->chat, .sender = user, .id = m->id, .op = ENTRY_MESSAGE}};
    a->ops->refused(a->arg, conn, &p, code, retry_ms);
}

static bool wait_too(struct pending *p, uint64_t conn)
{
    if (p->conn == conn)
        return true;
    for (struct waiter *w = p->waiters; w; w = w->next)
        if (w->conn == conn)
            return true;
    struct waiter *w = malloc(sizeof *w);
    if (!w)
        return false;
    *w = (struct waiter){p->waiters, conn};
    p->waiters = w;
    return true;
}

/* An id we hold in memory: a conflict, a duplicate, or a retry that joins the one in flight. */
static void answer_known(struct accept *a, uint64_t conn, uint64_t user, const struct msg *m, struct known *k,
                         const uint8_t content[16])
{
    if (k->chat != m->chat || memcmp(k->content, content, 16) != 0) {
        refuse_send(a, conn, user, m, PROTO_ID_CONFLICT, 0);
        return;
    }
    if (k->state == KNOWN_DURABLE || MUTANT(RETRY_ANSWERED_IN_FLIGHT)) {
        a->counters->duplicates++;
        a->ops->accepted(a->arg, conn, k, true);
    } else if (!wait_too(k->pending, conn)) {
        refuse_send(a, conn, user, m, PROTO_OVERLOADED, 1000);
    }
}

/* 0 or the reason to refuse. */
static enum proto_error check_id(const struct accept *a, const struct id *id, bool *bad)
{
    uint64_t now_ms = a->io->now.wall_us / 1000, ms = id_unix_ms(id);
    *bad = true;
    if (!id_is_v7(id) || ms > now_ms + ACCEPT_FUTURE_MS)
        return PROTO_ID_INVALID;
    if (ms + a->dedup_window_ms < now_ms)
        return PROTO_ID_TOO_OLD;
    *bad = false;
    return PROTO_INVALID;
}

/* Remember the id as in flight, and ask the store whether it was accepted long ago if it can have been. */
static void look_up(struct accept *a, struct pending *p)
{
    if (!a->dedup) {
        enqueue(a, p);
        return;
    }
    struct known *k = known_make(a, p->e.sender, &p->e.id);
    bool ask = a->log && id_unix_ms(&p->e.id) < a->ask_before_ms;
    struct read_job *job = k && ask ? calloc(1, sizeof *job) : NULL;
    if (!k || (ask && !job)) {
        p->known = k;
        refuse(a, p, PROTO_OVERLOADED, 1000);
        return;
    }
    *k = (struct known){
        .sender = p->e.sender, .id = p->e.id, .chat = p->e.chat, .pending = p, .state = KNOWN_QUEUED};
    memcpy(k->content, p->e.content, 16);
    p->known = k;
    enqueue(a, p);
    if (!job)
        return;
    k->state = KNOWN_READING;
    job->kind = READ_DEDUP;
    job->sender = p->e.sender;
    job->id = p->e.id;
    struct effect e = {.kind = EFFECT_READ, .read = job};
    a->io->emit(a->io->arg, &e);
}

void accept_send(struct accept *a, uint64_t conn, uint64_t user, const struct msg *m)
{
    bool bad;
    enum proto_error code = check_id(a, &m->id, &bad);
    if (bad) {
        refuse_send(a, conn, user, m, code, 0);
        return;
    }
    struct chat *c = registry_chat(a->registry, m->chat);
    if (!c || !c->epoch || !chat_is_member(c, user)) { /* while it is being made nobody is a member yet */
        refuse_send(a, conn, user, m, c && c->epoch_durable ? PROTO_NOT_MEMBER : PROTO_NO_SUCH_CHAT, 0);
        return;
    }
    uint8_t content[16];
    entry_content_hash(content, m->kind.p, m->kind.n, m->body.p, m->body.n);
    struct known *k = a->dedup ? known_find(a, user, &m->id) : NULL;
    if (k) {
        answer_known(a, conn, user, m, k, content);
        return;
    }
    struct pending *p = a->pending_n < ACCEPT_PENDING_MAX
                            ? pending_new(a, conn, user, ENTRY_MESSAGE, m->chat, m->kind, m->body)
                            : NULL;
    if (!p) {
        refuse_send(a, conn, user, m, PROTO_OVERLOADED, 1000);
        return;
    }
    p->e.id = m->id;
    memcpy(p->e.content, content, 16);
    look_up(a, p);
}

/* The id stands in the log already, where `k` says. */
static void answer_duplicate(struct accept *a, struct known *k, struct pending *p)
{
    a->counters->duplicates++;
    a->ops->accepted(a->arg, p->conn, k, true);
    for (struct waiter *w = p->waiters; w; w = w->next)
        a->ops->accepted(a->arg, w->conn, k, true);
    p->known = NULL;
    p->answered = true;
    known_settle(a, k);
}

void accept_read_done(struct accept *a, struct read_job *job)
{
    struct known *k = known_find(a, job->sender, &job->id);
    if (!k || k->state != KNOWN_READING)
        return; /* answered meanwhile: it came back as somebody's copy */
    struct pending *p = k->pending;
    if (job->rc) {
        a->counters->read_failures++;
        refuse_queued(a, p, PROTO_OVERLOADED, 1000);
        return;
    }
    if (!job->found) {
        k->state = KNOWN_QUEUED;
        return;
    }
    if (job->dedup.chat != k->chat || memcmp(job->dedup.content, k->content, 16) != 0) {
        refuse_queued(a, p, PROTO_ID_CONFLICT, 0);
        return;
    }
    k->epoch = job->dedup.epoch;
    k->seq = job->dedup.seq;
    k->ts_us = job->dedup.ts_us;
    memcpy(k->tag, job->dedup.tag, 16);
    answer_duplicate(a, k, p);
}

bool accept_idle(const struct accept *a)
{
    return !a->pending_n && !a->job;
}

/* ---- membership ---- */

static void member_body(struct buf *b, const struct pending *p)
{
    if (p->e.op == ENTRY_CREATE) {
        buf_str(b, "{\"users\":[");
        for (uint32_t i = 0; i < p->users_n; i++) {
            buf_str(b, i ? ",\"" : "\"");
            buf_u64(b, p->users[i]);
            buf_char(b, '"');
        }
        buf_str(b, "]}");
        return;
    }
    buf_str(b, "{\"user\":\"");
    buf_u64(b, p->target);
    buf_str(b, "\"}");
}

static int member_users(uint64_t **out, uint32_t *n, uint64_t creator, const struct msg *m)
{
    uint64_t *users = malloc((m->users_n + 1) * sizeof *users);
    if (!users)
        return ERR_NOMEM;
    users[0] = creator;
    *n = 1;
    for (uint32_t i = 0; i < m->users_n; i++) {
        bool seen = false;
        for (uint32_t k = 0; k < *n && !seen; k++)
            seen = users[k] == m->users[i];
        if (!seen)
            users[(*n)++] = m->users[i];
    }
    *out = users;
    return 0;
}

void accept_member(struct accept *a, uint64_t conn, uint64_t user, const struct msg *m)
{
    static const struct {
        const char *kind;
        enum entry_op op;
    } ops[] = {{"create", ENTRY_CREATE},
               {"join", ENTRY_JOIN},
               {"leave", ENTRY_LEAVE},
               {"invite", ENTRY_INVITE},
               {"remove", ENTRY_REMOVE}};
    size_t which = m->t == MSG_CREATE   ? 0
                   : m->t == MSG_JOIN   ? 1
                   : m->t == MSG_LEAVE  ? 2
                   : m->t == MSG_INVITE ? 3
                                        : 4;
    struct pending shape = {.conn = conn,
                            .target = m->t == MSG_INVITE || m->t == MSG_REMOVE ? m->user : user,
                            .e = {.op = (uint8_t)ops[which].op, .chat = m->chat, .sender = user}};
    struct buf body = BUF_INIT(PROTO_BODY_MAX);
    struct pending *p = NULL;
    if (a->pending_n < ACCEPT_PENDING_MAX &&
        (m->t != MSG_CREATE || !member_users(&shape.users, &shape.users_n, user, m))) {
        member_body(&body, &shape);
        if (!body.failed)
            p = pending_new(a, conn, user, ops[which].op, m->chat, slice_of(ops[which].kind),
                            (struct slice){body.data, body.len});
    }
    buf_release(&body);
    if (!p) {
        free(shape.users);
        shape.users = NULL;
        a->ops->refused(a->arg, conn, &shape, PROTO_OVERLOADED, 1000);
        return;
    }
    p->target = shape.target;
    p->users = shape.users;
    p->users_n = shape.users_n;
    p->e.id = id_new(a->io->now.wall_us / 1000, &a->io->rng);
    entry_content_hash(p->e.content, p->e.kind, p->e.kind_len, p->e.body, p->e.body_len);
    look_up(a, p);
}

enum judgement { GO, ALREADY, REFUSED };

static bool user_has_room(const struct registry *r, uint64_t user)
{
    const struct user *u = registry_user(r, user);
    return !u || u->chats_n < r->chats_max;
}

/* Would the members fit into the chat, and the chat into their lists? */
static bool within_limits(const struct registry *r, const struct chat *c, const struct pending *p)
{
    if (p->e.op == ENTRY_CREATE) {
        for (uint32_t i = 0; i < p->users_n; i++)
            if (!user_has_room(r, p->users[i]))
                return false;
        return p->users_n <= r->members_max;
    }
    if (p->e.op == ENTRY_INVITE)
        return c->members_n < r->members_max && user_has_room(r, p->target);
    return true;
}

/* What a membership request comes to, by the membership that holds now. */
static enum judgement judge_member(const struct chat *c, const struct pending *p, enum proto_error *code)
{
    bool exists = c && c->epoch;
    const struct member *actor = exists ? chat_member(c, p->e.sender) : NULL;
    const struct member *target = exists ? chat_member(c, p->target) : NULL;
    bool actor_in = actor && actor->role != MEMBER_INVITED;
    if (p->e.op == ENTRY_CREATE) {
        *code = PROTO_CHAT_EXISTS;
        /* a retry of one's own create */
        return !exists ? GO : actor && actor->role == MEMBER_ADMIN ? ALREADY : REFUSED;
    }
    *code = PROTO_NO_SUCH_CHAT;
    if (!exists)
        return REFUSED;
    switch (p->e.op) {
    case ENTRY_JOIN:
        *code = PROTO_NOT_ALLOWED; /* only who was invited */
        return actor_in ? ALREADY : actor ? GO : REFUSED;
    case ENTRY_LEAVE:
        *code = PROTO_NOT_MEMBER;
        return actor ? GO : REFUSED;
    case ENTRY_INVITE:
        *code = PROTO_NOT_MEMBER;
        return !actor_in ? REFUSED : target ? ALREADY : GO;
    default: /* ENTRY_REMOVE */
        *code = !actor_in ? PROTO_NOT_MEMBER : PROTO_NOT_ALLOWED;
        return !actor_in || actor->role != MEMBER_ADMIN ? REFUSED : target ? GO : ALREADY;
    }
}

/* ---- sealing ---- */

struct sealing {
    struct commit_job *job;
    struct pending *last, *left_first, *left_last;
    size_t bytes, members_cap;
};

/* Room for the rows of one request, before it is given a seq. */
static int reserve_member_rows(struct sealing *s, const struct pending *p)
{
    struct store_batch *b = &s->job->batch;
    size_t need = b->members_n + (p->users_n ? p->users_n : 2);
    if (need <= s->members_cap)
        return 0;
    size_t cap = need * 2;
    struct member_row *rows = realloc(b->members, cap * sizeof *rows);
    if (!rows)
        return ERR_NOMEM;
    b->members = rows;
    s->members_cap = cap;
    return 0;
}

static void add_member_row(struct sealing *s, const struct member_row *row)
{
    s->job->batch.members[s->job->batch.members_n++] = *row;
}

static void add_member_rows(struct sealing *s, const struct chat *c, const struct pending *p)
{
    struct member_row row = {.chat = c->id, .user = p->target, .from = p->e.seq, .to = UINT64_MAX};
    if (p->e.op == ENTRY_CREATE) {
        for (uint32_t i = 0; i < p->users_n; i++) {
            row.user = p->users[i];
            row.role = row.user == p->e.sender ? MEMBER_ADMIN : MEMBER_PLAIN;
            add_member_row(s, &row);
        }
        return;
    }
    const struct member *m = chat_member(c, p->target);
    if (m) { /* join ends the invitation; leave and remove end what there is, and are themselves still seen */
        struct member_row old = {.chat = c->id,
                                 .user = p->target,
                                 .from = m->from,
                                 .to = p->e.seq + (p->e.op != ENTRY_JOIN),
                                 .role = (uint8_t)m->role};
        add_member_row(s, &old);
    }
    row.role = p->e.op == ENTRY_INVITE ? MEMBER_INVITED : MEMBER_PLAIN;
    if (p->e.op == ENTRY_JOIN || p->e.op == ENTRY_INVITE)
        add_member_row(s, &row);
}

static void leave_for_next(struct sealing *s, struct pending *p)
{
    p->next = NULL;
    if (s->left_last)
        s->left_last->next = p;
    else
        s->left_first = p;
    s->left_last = p;
}

void accept_take_back(struct chat *c)
{
    c->head = c->durable;
    c->epoch = c->epoch_durable;
}

void accept_give_seq(struct accept *a, struct chat *c, struct entry *e)
{
    if (c->epoch != a->epoch) { /* the first entry of this chat in this epoch, or of the chat at all */
        uint64_t first = c->epoch ? store_first_seq(c->head) : a->seq_floor;
        c->epoch_first = first > a->seq_floor ? first : a->seq_floor;
        c->head = c->epoch_first - 1;
        c->epoch = a->epoch;
    }
    e->seq = ++c->head; /* a create is entry 0, in the first epoch of a store */
    e->epoch = a->epoch;
    uint64_t now = a->io->now.wall_us;
    a->last_ts_us = e->ts_us = now > a->last_ts_us ? now : a->last_ts_us;
    struct tag_input in = entry_tag_input(e);
    tag_make(a->keys, &in, e->tag);
}

static bool is_held(struct accept *a, uint64_t chat)
{
    const uint64_t *until = a->held.count ? map_get_u64(&a->held, chat) : NULL;
    if (!until)
        return false;
    if (a->io->now.mono_ns < *until)
        return true;
    *(uint64_t *)map_get_u64(&a->held, chat) = 0; /* once a start: nobody can hold it for ever */
    return false;
}

void accept_hold(struct accept *a, uint64_t chat, uint64_t until_ns)
{
    bool fresh;
    uint64_t *at = map_put_u64(&a->held, chat, &fresh);
    if (at && fresh)
        *at = until_ns;
}

void accept_release_hold(struct accept *a, uint64_t chat)
{
    uint64_t *at = map_get_u64(&a->held, chat);
    if (at)
        *at = 0;
}

void accept_enter_epoch(struct accept *a, uint64_t epoch, uint64_t first_seq)
{
    a->epoch = epoch;
    a->seq_floor = first_seq;
    map_clear(&a->held);
}

const struct known *accept_known(struct accept *a, uint64_t sender, const struct id *id)
{
    return a->dedup ? known_find(a, sender, id) : NULL;
}

void accept_adopt(struct accept *a, const struct entry *e)
{
    uint64_t ms = id_unix_ms(&e->id);
    if (ms >= a->ask_before_ms)
        a->ask_before_ms = ms + 1; /* the store may know it now */
    struct known *k = a->dedup ? known_find(a, e->sender, &e->id) : NULL;
    struct pending *p = k ? k->pending : NULL;
    if (!p || k->state == KNOWN_DURABLE)
        return;
    if (k->chat != e->chat || memcmp(k->content, e->content, 16) != 0) {
        refuse_queued(a, p, PROTO_ID_CONFLICT, 0);
        return;
    }
    k->epoch = e->epoch;
    k->seq = e->seq;
    k->ts_us = e->ts_us;
    memcpy(k->tag, e->tag, 16);
    answer_duplicate(a, k, p);
}

/* Judge one request and put it into the batch, leave it for the next one, or answer it. */
static void seal_one(struct accept *a, struct sealing *s, struct pending *p)
{
    struct store_batch *b = &s->job->batch;
    if (p->answered) {
        pending_done(a, p);
        return;
    }
    struct chat *c = registry_chat(a->registry, p->e.chat);
    if ((c && c->barrier && !MUTANT(BARRIER_IGNORED)) || is_held(a, p->e.chat) ||
        b->entries_n == STORE_BATCH_MAX || s->bytes + p->e.body_len > STORE_BATCH_BYTES) {
        leave_for_next(s, p);
        return;
    }
    if (p->e.op != ENTRY_MESSAGE) {
        enum proto_error code;
        enum judgement j = judge_member(c, p, &code);
        if (j == GO && !within_limits(a->registry, c, p)) {
            j = REFUSED;
            code = PROTO_LIMIT;
        }
        if (j == ALREADY) {
            a->ops->done(a->arg, p->conn, p);
            if (p->known)
                known_drop(a, p->known);
            pending_done(a, p);
            return;
        }
        if (j == GO &&
            (reserve_member_rows(s, p) || (!c && !(c = registry_chat_make(a->registry, p->e.chat))))) {
            j = REFUSED;
            code = PROTO_OVERLOADED;
        }
        if (j == REFUSED) {
            refuse(a, p, code, 0);
            return;
        }
    } else if (!c || !chat_is_member(c, p->e.sender)) {
        refuse(a, p, PROTO_NOT_MEMBER, 0);
        return;
    }
    accept_give_seq(a, c, &p->e);
    if (p->e.op != ENTRY_MESSAGE) {
        c->barrier = true;
        add_member_rows(s, c, p);
    }
    b->entries[b->entries_n++] = p->e;
    s->bytes += p->e.body_len;
    p->next = NULL;
    if (s->last)
        s->last->next = p;
    else
        a->flying = p;
    s->last = p;
}

void accept_cursors(struct accept *a, struct cursor *list, size_t n)
{
    BUG_ON(a->cursors);
    if (n) {
        a->cursors = list;
        a->cursors_n = n;
    } else {
        free(list);
    }
}

/* The store is still asked about it. */
static bool looked_up(const struct pending *p)
{
    return p->known && p->known->state == KNOWN_READING;
}

/* Append a list to another; `last` is its last one when it has any. */
static void join(struct pending **first, struct pending **last, struct pending *more,
                 struct pending *more_last)
{
    if (!more)
        return;
    if (*last)
        (*last)->next = more;
    else
        *first = more;
    *last = more_last;
}

static bool fly_extra(struct accept *a, bool turn)
{
    if (!turn || !a->log || !a->ops->extra)
        return false;
    struct commit_job *job = a->ops->extra(a->arg);
    if (!job)
        return false;
    job->extra = a->extra_flew = true;
    a->job = job;
    struct effect e = {.kind = EFFECT_COMMIT, .commit = job};
    a->io->emit(a->io->arg, &e);
    return true;
}

static void seal(struct accept *a, bool extras)
{
    size_t n = 0;
    if (a->job || (extras && fly_extra(a, !a->extra_flew || !a->queue_first)))
        return;
    a->extra_flew = false;
    for (struct pending *p = a->queue_first; p && n < STORE_BATCH_MAX && !looked_up(p); p = p->next)
        n++;
    if (!n && !a->cursors)
        return;
    struct sealing s = {.job = calloc(1, sizeof *s.job)};
    if (!s.job || (n && !(s.job->batch.entries = malloc(n * sizeof *s.job->batch.entries)))) {
        free(s.job);
        return; /* the next event tries again */
    }
    struct pending *rest = a->queue_first, *rest_last = a->queue_last;
    a->queue_first = a->queue_last = NULL;
    for (; n; n--) {
        struct pending *next = rest->next;
        seal_one(a, &s, rest);
        rest = next;
    }
    /* what waits for the next batch, what was not looked at, and what answers given meanwhile have queued */
    struct pending *first = NULL, *last = NULL;
    join(&first, &last, s.left_first, s.left_last);
    join(&first, &last, rest, rest_last);
    join(&first, &last, a->queue_first, a->queue_last);
    a->queue_first = first;
    a->queue_last = last;
    if (!s.job->batch.entries_n && !a->cursors) {
        batch_free(s.job);
        return;
    }
    s.job->batch.cursors = a->cursors;
    s.job->batch.cursors_n = a->cursors_n;
    a->cursors = NULL;
    a->cursors_n = 0;
    a->job = s.job;
    if (!a->log) {
        accept_committed(a, s.job);
        return;
    }
    for (struct pending *p = MUTANT(PUSH_BEFORE_COMMIT) ? a->flying : NULL; p; p = p->next)
        if (p->e.op == ENTRY_MESSAGE)
            a->ops->committed(a->arg, registry_chat(a->registry, p->e.chat), p);
    struct effect e = {.kind = EFFECT_COMMIT, .commit = s.job};
    a->io->emit(a->io->arg, &e);
}

/* The batch did not become durable: its seqs were never given out. */
static void roll_back(struct accept *a, struct pending *p, enum proto_error code)
{
    for (struct pending *q = p; q; q = q->next) {
        struct chat *c = registry_chat(a->registry, q->e.chat);
        c->barrier = false;
        c->head = MUTANT(HEAD_NOT_ROLLED_BACK) ? c->head : c->durable;
        c->epoch = c->epoch_durable;
    }
    while (p) {
        struct pending *next = p->next;
        refuse(a, p, code, 1000);
        p = next;
    }
}

void accept_seal(struct accept *a)
{
    seal(a, true);
}

void accept_committed(struct accept *a, struct commit_job *job)
{
    struct pending *p = a->flying;
    a->job = NULL;
    if (job->extra) {
        a->ops->extra_done(a->arg, job);
        accept_seal(a);
        return;
    }
    a->flying = NULL;
    if (job->batch.cursors_n && a->ops->cursors && a->log)
        a->ops->cursors(a->arg, job->batch.cursors, job->batch.cursors_n, job->rc);
    if (job->rc) {
        a->counters->store_failures++;
        roll_back(a, p, job->rc == ERR_FULL ? PROTO_STORAGE_FULL : PROTO_OVERLOADED);
        batch_free(job);
        return;
    }
    if (a->log) {
        a->counters->commits += job->batch.entries_n != 0;
        /* the next batch flies while this one is answered; chats behind a barrier wait until that is applied.
         * An extra that waits is made from what holds when this one is applied. */
        if (!a->extra_waits || a->extra_flew)
            seal(a, false);
    }
    while (p) {
        struct pending *next = p->next;
        struct chat *c = registry_chat(a->registry, p->e.chat);
        c->durable = p->e.seq;
        c->epoch_durable = p->e.epoch;
        if (p->e.op !=
            ENTRY_MESSAGE) { /* a message says nothing about a barrier that the next batch has set */
            c->barrier = false;
            a->changes++;
        }
        a->counters->entries++;
        struct known *k = p->known;
        if (k) {
            k->epoch = p->e.epoch;
            k->seq = p->e.seq;
            k->ts_us = p->e.ts_us;
            memcpy(k->tag, p->e.tag, 16);
        }
        if (p->e.op != ENTRY_MESSAGE) {
            a->ops->done(a->arg, p->conn, p);
        } else if (k) {
            a->ops->accepted(a->arg, p->conn, k, false);
            for (struct waiter *w = p->waiters; w; w = w->next)
                a->ops->accepted(a->arg, w->conn, k, true);
        }
        a->ops->committed(a->arg, c, p);
        if (k)
            known_settle(a, k);
        pending_done(a, p);
        p = next;
    }
    batch_free(job);
}
