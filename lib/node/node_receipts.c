#include "node/node_receipts.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "node/node_bus.h"
#include "util/mutant.h"

#define SWEEP_NS NS_PER_S
#define ASK_NS   (10 * NS_PER_S)
#define PERIOD_NS                                                                                            \
    (15 * NS_PER_S) /* a node that did not ask in one whole period, and a part, serves nobody there */

void node_receipts_init(struct node *n, uint64_t seed)
{
    receipts_init(&n->receipts, seed);
}

void node_receipts_release(struct node *n)
{
    receipts_release(&n->receipts);
}

/* ---- what is watched ---- */

static void drop_chat(struct node *n, struct receipt_chat *k)
{
    struct chat *c = registry_chat(&n->registry, k->chat);
    if (c)
        c->watched = false;
    receipts_chat_drop(&n->receipts, k);
}

/* NULL: a limit, or no memory. At the owner the members are in it from the start. */
static struct receipt_chat *open_chat(struct node *n, struct chat *c)
{
    struct receipt_chat *k = receipts_chat(&n->receipts, c->id);
    if (k)
        return k;
    if (!(k = receipts_chat_make(&n->receipts, c->id)))
        return NULL;
    c->watched = true;
    if (!node_owns(n, c->id))
        return k;
    k->version = rng_u64(&n->io.rng) | 1;
    for (uint32_t i = 0; i < c->members_n; i++)
        if (c->members[i].role != MEMBER_INVITED &&
            receipts_member_set(&n->receipts, k, c->members[i].user, c->members[i].from)) {
            drop_chat(n, k);
            return NULL;
        }
    return k;
}

static bool is_large(const struct node *n, uint32_t members)
{
    uint32_t each = n->config.limits.receipts_each; /* their receipts fit into one frame */
    return members > (each < PROTO_BATCH_MAX ? each : PROTO_BATCH_MAX);
}

/* ---- asking ---- */

/* A follower's question about the chat; the owner's answer makes it known. */
struct asked {
    uint64_t chat, conn;
};

static void ask_owner(struct node *n, struct receipt_chat *k, uint64_t conn, uint64_t user,
                      const uint64_t *seqs, uint32_t seqs_n)
{
    struct buf *b = &n->bus->body;
    struct asked *about = malloc(sizeof *about);
    buf_reset(b);
    put_u64(b, k->chat);
    put_u64(b, k->known ? k->version : 0);
    put_u64(b, user);
    put_u32(b, seqs_n);
    for (uint32_t i = 0; i < seqs_n; i++)
        put_u64(b, seqs[i]);
    struct bus_call *call = about ? bus_ask(n, node_owner(n, k->chat), CALL_RECEIPTS, 3 * NS_PER_S) : NULL;
    if (!call) {
        free(about);
        k->ask_ns = n->io.now.mono_ns + SWEEP_NS;
        return;
    }
    *about = (struct asked){k->chat, conn};
    call->about = about;
    k->ask_ns = n->io.now.mono_ns + ASK_NS;
    k->reading |= conn == 0;
}

static bool read_rows(struct node *n, uint64_t chat, uint64_t owner, uint64_t user, const uint64_t *seqs,
                      uint32_t seqs_n)
{
    struct read_job *job = calloc(1, sizeof *job);
    if (!job || (seqs_n && !(job->own = malloc(seqs_n * sizeof *job->own)))) {
        free(job);
        return false;
    }
    *job = (struct read_job){
        .kind = READ_RECEIPTS, .owner = owner, .chat = chat, .user = user, .own = job->own, .own_n = seqs_n};
    if (seqs_n)
        memcpy(job->own, seqs, seqs_n * sizeof *seqs);
    struct effect e = {.kind = EFFECT_READ, .read = job};
    n->io.emit(n->io.arg, &e);
    return true;
}

static void ask(struct node *n, struct receipt_chat *k, uint64_t conn, uint64_t user, const uint64_t *seqs,
                uint32_t seqs_n)
{
    if (!seqs_n && (k->known || k->reading))
        return;
    if (!node_owns(n, k->chat))
        ask_owner(n, k, seqs_n ? conn : 0, user, seqs, seqs_n);
    else if (read_rows(n, k->chat, seqs_n ? conn : 0, user, seqs, seqs_n))
        k->reading = true;
}

/* The seqs that the ranges name; more than RECEIPTS_OWN_MAX is an error. */
static bool list_seqs(const struct msg *m, uint64_t *out, uint32_t *n)
{
    *n = 0;
    for (uint32_t i = 0; i < m->ranges_n; i++)
        for (uint64_t seq = m->ranges[i].from; seq <= m->ranges[i].to; seq++) {
            if (*n == RECEIPTS_OWN_MAX)
                return false;
            out[(*n)++] = seq;
        }
    return true;
}

void node_receipts(struct node *n, struct session *s, const struct msg *m)
{
    uint64_t user = session_user(&n->registry, s)->id, conn = session_conn(&n->registry, s);
    uint64_t seqs[RECEIPTS_OWN_MAX];
    uint32_t seqs_n;
    struct chat *c = registry_chat(&n->registry, m->chat);
    struct receipt_chat *k = receipts_chat(&n->receipts, m->chat);
    struct receipt_watch *w = k ? receipts_watch(k, conn) : NULL;
    if (!m->away) {
        if (w)
            receipts_watch_drop(k, w);
        return;
    }
    if (!(n->config.features & DELIVERY_ACK) || !n->accept.log) {
        session_error(n, s, PROTO_UNKNOWN_TYPE, m, 0, "receipts are not kept in this delivery mode");
    } else if (!c || !chat_is_member(c, user)) {
        session_error(n, s, c ? PROTO_NOT_MEMBER : PROTO_NO_SUCH_CHAT, m, 0, NULL); /* or not yet heard of */
    } else if (!list_seqs(m, seqs, &seqs_n)) {
        session_error(n, s, PROTO_LIMIT, m, 0, "counts are told of at most 32 messages");
    } else if (!(k = open_chat(n, c)) || receipts_watch_add(k, conn, &w)) {
        session_error(n, s, PROTO_OVERLOADED, m, 1000, NULL);
    } else {
        w->untold = !MUTANT(RECEIPTS_NOT_REPEATED);
        receipts_queue(&n->receipts, k);
        ask(n, k, conn, user, seqs, seqs_n);
        delivery_send(&n->delivery, s, &(struct msg){.t = MSG_DONE, .re = SLICE("receipts"), .chat = c->id});
    }
}

/* ---- telling ---- */

/* A cursor from before the membership is no news of it. */
static bool says_something(const struct receipt_member *m)
{
    return m->delivered && m->delivered >= m->from;
}

/* One message a frame, as everywhere: the transport puts what is queued at a time into one of the socket's.
 */
struct frames {
    struct shared_frame *list[PROTO_BATCH_MAX];
    uint32_t n;
    bool made;
};

static void encode_members(struct frames *f, const struct receipt_chat *k, enum proto_codec codec, bool all)
{
    struct buf b = BUF_INIT(4096);
    f->made = true;
    for (uint32_t i = 0; i < k->members_n && f->n < PROTO_BATCH_MAX; i++) {
        const struct receipt_member *r = &k->members[i];
        struct msg m = {.t = MSG_RECEIPT,
                        .has = MSG_HAS(delivered) | MSG_HAS(read),
                        .chat = k->chat,
                        .user = r->user,
                        .delivered = r->delivered,
                        .read = r->read};
        if ((!all && !r->changed) || !says_something(r))
            continue;
        buf_reset(&b);
        proto_encode_as(&b, codec, &m);
        struct shared_frame *frame = b.failed ? NULL : shared_frame_new(b.data, b.len);
        if (frame)
            f->list[f->n++] = frame;
    }
    buf_release(&b);
}

/* Who is told now: ready, a member (still, or again), and with room. Else they are told everything later. */
static struct session *listener(struct node *n, const struct chat *c, struct receipt_chat *k,
                                struct receipt_watch *w)
{
    struct session *s = node_session(n, w->conn);
    bool member = s && s->state == SESSION_READY && chat_is_member(c, session_user(&n->registry, s)->id);
    if (member && s->queued_bytes < n->delivery.config.queue_bytes_max)
        return s;
    w->untold = true;
    k->behind |= member;
    return NULL;
}

/* Frames by codec, and by whether they hold all; made when the first one needs them. */
static uint32_t tell_each(struct node *n, const struct chat *c, struct receipt_chat *k)
{
    struct frames frames[2][PROTO_CODECS] = {0};
    uint32_t told = 0;
    for (uint32_t i = 0; i < k->watches_n; i++) {
        struct receipt_watch *w = &k->watches[i];
        struct session *s = listener(n, c, k, w);
        if (!s)
            continue;
        struct frames *f = &frames[w->untold][s->codec];
        if (!f->made)
            encode_members(f, k, s->codec, w->untold);
        w->untold = false;
        for (uint32_t j = 0; j < f->n; j++)
            delivery_queue(&n->delivery, s, f->list[j]);
        told += f->n;
    }
    n->counters.receipts_told += told;
    for (int i = 0; i < 2 * PROTO_CODECS; i++)
        for (uint32_t j = 0; j < frames[i / PROTO_CODECS][i % PROTO_CODECS].n; j++)
            shared_frame_unref(frames[i / PROTO_CODECS][i % PROTO_CODECS].list[j]);
    return told;
}

static uint32_t tell_counts(struct node *n, const struct chat *c, struct receipt_chat *k)
{
    struct receipt_counts counts;
    struct msg_count rows[RECEIPTS_OWN_MAX];
    uint32_t told = 0;
    if (receipts_count_begin(&counts, k))
        return 0;
    for (uint32_t i = 0; i < k->watches_n; i++) {
        struct receipt_watch *w = &k->watches[i];
        struct session *s = w->own_n ? listener(n, c, k, w) : NULL;
        if (!s)
            continue;
        const struct receipt_member *self = receipts_member(k, session_user(&n->registry, s)->id);
        struct msg m = {.t = MSG_RECEIPT, .chat = k->chat, .counts = rows};
        m.counts_n = receipts_count_own(&counts, self, w, w->untold, rows);
        w->untold = false;
        if (!m.counts_n)
            continue;
        delivery_send(&n->delivery, s, &m);
        n->counters.receipts_told++;
        told++;
    }
    receipts_count_end(&counts);
    k->counted_ns = n->io.now.mono_ns;
    return told;
}

/* What changed goes to the nodes that serve watchers of this chat. */
static void publish(struct node *n, struct receipt_chat *k)
{
    uint32_t some = 0;
    if (!n->bus || !node_owns(n, k->chat))
        return;
    for (uint32_t i = 0; i < k->members_n; i++)
        some += k->members[i].changed;
    if (!some)
        return;
    for (uint16_t to = 0; to < n->bus->nodes; to++) {
        size_t mark;
        if (!(k->nodes & bus_bit(to)))
            continue;
        struct buf *out = bus_begin(n->bus, to, WIRE_RECEIPTS, &mark);
        put_u64(out, k->chat);
        put_u64(out, k->version);
        put_u32(out, some);
        for (uint32_t i = 0; i < k->members_n; i++)
            if (k->members[i].changed)
                put_receipt(out, &k->members[i]);
        bus_end(n, to, mark);
    }
    k->version++; /* also when nobody is told: who asks later has missed it */
}

static uint32_t flush_chat(struct node *n, struct receipt_chat *k)
{
    const struct chat *c = registry_chat(&n->registry, k->chat);
    bool large = is_large(n, k->members_n);
    if (!k->known || !c)
        return 0; /* queued again when it is */
    publish(n, k);
    for (uint32_t i = 0; large != k->large && i < k->watches_n; i++)
        k->watches[i].untold = true; /* grown, or shrunk, over the limit */
    k->large = large;
    k->behind = false;
    uint32_t told = 0;
    bool early = large && n->io.now.mono_ns - k->counted_ns < NODE_RECEIPTS_COUNT_NS;
    if (!large)
        told = tell_each(n, c, k);
    else if (!early)
        told = tell_counts(n, c, k);
    for (uint32_t i = 0; i < k->members_n; i++)
        k->members[i].changed = false;
    if (early || k->behind)
        receipts_queue(&n->receipts, k);
    return told;
}

static void flush(struct node *n)
{
    struct receipts *r = &n->receipts;
    uint32_t some = r->queue_n, at = 0, told = 0;
    while (at < some && told < NODE_RECEIPTS_BUDGET) {
        struct receipt_chat *k = receipts_chat(r, r->queue[at++]);
        if (!k)
            continue;
        k->queued = false;
        told += flush_chat(n, k);
    }
    memmove(r->queue, r->queue + at, (r->queue_n - at) * sizeof *r->queue);
    r->queue_n -= at;
}

/* ---- what is learnt ---- */

/* Rows of the store, the maximum of each user's devices. */
static void take_rows(struct node *n, struct receipt_chat *k, const struct read_job *job)
{
    for (size_t i = 0; i < job->cursors_n; i++)
        receipts_note(&n->receipts, k, job->cursors[i].user, job->cursors[i].delivered, job->cursors[i].read);
    k->known = true;
    k->reading = false;
    receipts_queue(&n->receipts, k);
}

static void take_own(struct node *n, struct receipt_chat *k, uint64_t conn, const uint64_t *seqs,
                     size_t seqs_n)
{
    struct receipt_watch *w = conn ? receipts_watch(k, conn) : NULL;
    for (size_t i = 0; w && i < seqs_n; i++)
        receipts_own_add(w, seqs[i]);
    if (w)
        w->untold = true;
    receipts_queue(&n->receipts, k);
}

void node_receipts_saved(struct node *n, const struct cursor *list, size_t count)
{
    for (size_t i = 0; n->receipts.chats.count && i < count; i++) {
        struct receipt_chat *k = receipts_chat(&n->receipts, list[i].chat);
        if (k && node_owns(n, list[i].chat))
            receipts_note(&n->receipts, k, list[i].user, list[i].delivered, list[i].read);
    }
}

void node_receipts_entry(struct node *n, const struct chat *c, const struct entry *e)
{
    struct receipt_chat *k = c->watched && e->op == ENTRY_MESSAGE ? receipts_chat(&n->receipts, c->id) : NULL;
    if (!k || (k->known && !is_large(n, k->members_n)))
        return;
    for (uint32_t i = 0; i < k->watches_n; i++) {
        const struct session *s = node_session(n, k->watches[i].conn);
        if (!s || !s->user || session_user(&n->registry, s)->id != e->sender)
            continue;
        receipts_own_add(&k->watches[i], e->seq);
        receipts_queue(&n->receipts, k);
    }
}

void node_receipts_joined(struct node *n, const struct chat *c, uint64_t user, uint64_t from)
{
    struct receipt_chat *k = c->watched ? receipts_chat(&n->receipts, c->id) : NULL;
    if (!k)
        return;
    k->version += node_owns(n, c->id);
    if (receipts_member_set(&n->receipts, k, user, from))
        k->known = false; /* no memory: read anew, when there is */
    if (node_owns(n, c->id) && k->known) {
        k->known = k->reading = false; /* they may have been here before: their rows are */
        ask(n, k, 0, 0, NULL, 0);
    }
    receipts_queue(&n->receipts, k);
}

void node_receipts_left(struct node *n, const struct chat *c, uint64_t user)
{
    struct receipt_chat *k = c->watched ? receipts_chat(&n->receipts, c->id) : NULL;
    if (!k)
        return;
    k->version += node_owns(n, c->id);
    receipts_member_drop(&n->receipts, k, user);
    receipts_queue(&n->receipts, k);
}

/* ---- GET /receipts/CHAT?seq=N ---- */

static bool may_ask(const struct node *n, const struct chat *c, const struct read_job *job, uint32_t members)
{
    const struct member *m = job->user ? chat_member(c, job->user) : NULL;
    if (!job->user)
        return true; /* an operator */
    return m->from <= job->upto && (!is_large(n, members) || job->own_n);
}

static const struct cursor *cursor_of(const struct read_job *job, uint64_t user)
{
    size_t lo = 0, hi = job->cursors_n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (job->cursors[mid].user < user)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < job->cursors_n && job->cursors[lo].user == user ? &job->cursors[lo] : NULL;
}

static void add_readers(struct buf *b, const struct chat *c, const struct read_job *job)
{
    uint64_t seq = job->upto, next = 0;
    uint32_t of = 0, delivered = 0, read = 0, listed = 0;
    buf_str(b, "\"users\":[");
    for (uint32_t i = 0; i < c->members_n; i++) {
        const struct member *m = &c->members[i];
        if (m->role == MEMBER_INVITED || m->from > seq || m->user == job->sender)
            continue;
        const struct cursor *at = cursor_of(job, m->user);
        of++;
        if (!at || at->delivered < seq)
            continue;
        delivered++;
        read += at->read >= seq;
        if (m->user <= job->after)
            continue;
        if (listed == job->limit) {
            next = next ? next : c->members[i - 1].user;
            continue;
        }
        buf_printf(b, "%s{\"user\":\"%" PRIu64 "\",\"read\":%s}", listed++ ? "," : "", m->user,
                   at->read >= seq ? "true" : "false");
    }
    buf_printf(b, "],\"of\":%u,\"delivered\":%u,\"read\":%u,\"next\":\"%" PRIu64 "\"}\n", of, delivered, read,
               next);
}

/* The answer's status; its text, or the error's code. */
static int readers_page(struct node *n, const struct read_job *job, struct buf *b, enum proto_error *code)
{
    const struct chat *c = registry_chat(&n->registry, job->chat);
    const struct member *m = c && job->user ? chat_member(c, job->user) : NULL;
    uint32_t members = 0;
    *code = PROTO_OVERLOADED;
    if (job->rc)
        return 503;
    *code = PROTO_NO_SUCH_CHAT;
    if (!c || !c->epoch || (job->user && (!m || m->role == MEMBER_INVITED)))
        return 404;
    *code = PROTO_NOT_ALLOWED;
    for (uint32_t i = 0; i < c->members_n; i++)
        members += c->members[i].role != MEMBER_INVITED;
    if (!may_ask(n, c, job, members))
        return 403;
    *code = PROTO_INVALID;
    if (!job->sender)
        return 404; /* no message stands there */
    buf_printf(b, "{\"chat\":\"%" PRIu64 "\",\"seq\":%" PRIu64 ",", c->id, job->upto);
    add_readers(b, c, job);
    *code = PROTO_OVERLOADED;
    return b->failed ? 503 : 200;
}

/* user 0: an operator; owner: whom node_bus_read_done answers, or 0 and `request`. */
static bool read_readers(struct node *n, const struct read_job *like)
{
    struct read_job *job = malloc(sizeof *job);
    uint64_t *own = malloc(sizeof *own);
    if (!job || !own) {
        free(job);
        free(own);
        return false;
    }
    *own = like->upto;
    *job = *like;
    job->kind = READ_RECEIPTS;
    job->own = own;
    job->own_n = 1;
    struct effect e = {.kind = EFFECT_READ, .read = job};
    n->io.emit(n->io.arg, &e);
    return true;
}

static void answer_http(struct node *n, uint64_t request, int status, enum proto_error code,
                        struct slice text)
{
    struct shared_frame *f = status == 200 ? shared_frame_new(text.p, text.n) : NULL;
    if (!f) {
        node_http_error(n, request, status == 200 ? 503 : status, status == 200 ? PROTO_OVERLOADED : code);
        return;
    }
    struct effect e = {.kind = EFFECT_HTTP_REPLY, .request = request, .code = 200, .frame = f};
    n->io.emit(n->io.arg, &e);
    shared_frame_unref(f);
}

static bool ask_readers(struct node *n, const struct read_job *job)
{
    struct buf *b = &n->bus->body;
    uint64_t *about = malloc(sizeof *about);
    buf_reset(b);
    put_u64(b, job->chat);
    put_u64(b, job->user);
    put_u64(b, job->upto);
    put_u64(b, job->after);
    put_u32(b, job->limit);
    struct bus_call *call = about ? bus_ask(n, node_owner(n, job->chat), CALL_READERS, 5 * NS_PER_S) : NULL;
    if (!call) {
        free(about);
        return false;
    }
    *about = job->since_us;
    call->about = about;
    return true;
}

void node_receipts_http(struct node *n, const struct node_event *e)
{
    struct token token;
    int rc = token_verify(n->config.keys, e->data, e->len, e->now.wall_us / 1000000, &token, NULL);
    if (rc) {
        node_http_error(n, e->request, 401, rc == ERR_TIMEOUT ? PROTO_TOKEN_EXPIRED : PROTO_UNAUTHENTICATED);
        return;
    }
    struct read_job job = {.chat = e->chat,
                           .user = token.role == ROLE_OPERATOR ? 0 : token.user,
                           .upto = e->seq,
                           .after = e->after,
                           .limit = e->limit < NODE_RECEIPTS_PAGE ? e->limit : NODE_RECEIPTS_PAGE,
                           .since_us = e->request};
    if (node_owns(n, e->chat) ? !read_readers(n, &job) : !ask_readers(n, &job))
        node_http_error(n, e->request, 503,
                        node_owns(n, e->chat) ? PROTO_OVERLOADED : PROTO_SHARD_UNAVAILABLE);
}

void node_receipts_read_done(struct node *n, struct read_job *job)
{
    struct receipt_chat *k = receipts_chat(&n->receipts, job->chat);
    n->counters.read_failures += job->rc != 0;
    if (job->limit) {
        struct buf b = BUF_INIT(16u << 20);
        enum proto_error code;
        int status = readers_page(n, job, &b, &code);
        answer_http(n, job->since_us, status, code, (struct slice){b.data, b.len});
        buf_release(&b);
    } else if (k && job->rc) {
        k->reading = false; /* the sweep asks again */
    } else if (k) {
        take_rows(n, k, job);
        take_own(n, k, job->owner, job->own, job->own_n);
    }
}

/* ---- time ---- */

static bool is_over(struct node *n, const struct receipt_watch *w)
{
    const struct session *s = node_session(n, w->conn);
    return !s || s->state == SESSION_CLOSING;
}

static void sweep_chat(struct node *n, struct receipt_chat *k)
{
    uint64_t now = n->io.now.mono_ns;
    for (uint32_t i = k->watches_n; i-- > 0;)
        if (is_over(n, &k->watches[i]))
            receipts_watch_drop(k, &k->watches[i]);
    if (k->nodes && now - k->period_ns >= PERIOD_NS) {
        k->period_ns = now;
        k->nodes = k->fresh;
        k->fresh = 0;
    }
    for (uint32_t i = 0; i < k->watches_n; i++)
        if (k->watches[i].untold)
            receipts_queue(&n->receipts, k); /* a member again, perhaps */
    if (!k->watches_n)
        return;
    if (!node_owns(n, k->chat)) {
        if (now >= k->ask_ns)
            ask_owner(n, k, 0, 0, NULL, 0);
        return;
    }
    ask(n, k, 0, 0, NULL, 0); /* again, if it failed */
}

#define DROPS_MAX 256u
static void sweep(struct node *n)
{
    struct receipt_chat *gone[DROPS_MAX];
    size_t at = 0, gone_n = 0;
    void *v;
    while (map_next(&n->receipts.chats, &at, NULL, &v)) {
        struct receipt_chat *k = *(struct receipt_chat **)v;
        sweep_chat(n, k);
        if (!k->watches_n && !k->nodes && !k->reading && gone_n < DROPS_MAX)
            gone[gone_n++] = k;
    }
    while (gone_n)
        drop_chat(n, gone[--gone_n]);
}

void node_receipts_tick(struct node *n)
{
    uint64_t now = n->io.now.mono_ns;
    if (!n->receipts.chats.count)
        return;
    if (n->receipts.queue_n && now - n->receipts_flushed_ns >= NODE_RECEIPTS_FLUSH_NS) {
        n->receipts_flushed_ns = now;
        flush(n);
    }
    if (now - n->receipts_swept_ns >= SWEEP_NS) {
        n->receipts_swept_ns = now;
        sweep(n);
    }
}

/* ---- several nodes: at the owner ---- */

/* The lines of the chat, unless the asker has them already, and of the seqs those that are the user's. */
static void reply_receipts(struct node *n, uint16_t to, uint64_t id, const struct receipt_chat *k,
                           uint64_t version, const uint64_t *own, size_t own_n)
{
    struct buf *b = &n->bus->reply;
    bool same = k && version == k->version;
    buf_reset(b);
    put_u8(b, !k ? 2 : same);
    put_u64(b, k ? k->version : 0);
    put_u32(b, k && !same ? k->members_n : 0);
    for (uint32_t i = 0; k && !same && i < k->members_n; i++)
        put_receipt(b, &k->members[i]);
    put_u32(b, (uint32_t)own_n);
    for (size_t i = 0; i < own_n; i++)
        put_u64(b, own[i]);
    owner_reply(n, to, id, b);
}

void node_receipts_called(struct node *n, uint16_t from, uint64_t id, struct wire_reader *r)
{
    uint64_t chat = wire_u64(r), version = wire_u64(r), user = wire_u64(r), seqs[RECEIPTS_OWN_MAX];
    uint32_t seqs_n = wire_count(r, 8);
    for (uint32_t i = 0; i < seqs_n; i++) {
        uint64_t seq = wire_u64(r);
        if (i < RECEIPTS_OWN_MAX)
            seqs[i] = seq;
    }
    struct chat *c = node_owns(n, chat) ? registry_chat(&n->registry, chat) : NULL;
    if (r->failed || seqs_n > RECEIPTS_OWN_MAX) {
        r->failed = true;
        return;
    }
    struct receipt_chat *k = c && c->epoch ? open_chat(n, c) : NULL;
    if (!k) {
        reply_receipts(n, from, id, NULL, 0, NULL, 0);
        return;
    }
    k->nodes |= bus_bit(from);
    k->fresh |= bus_bit(from);
    if (k->known && !seqs_n) {
        reply_receipts(n, from, id, k, version, NULL, 0);
        return;
    }
    uint64_t as = owner_answer(n, from, id, CALL_RECEIPTS, version);
    if (as && read_rows(n, chat, as, user, seqs, seqs_n))
        k->reading = true;
}

void node_readers_called(struct node *n, uint16_t from, uint64_t id, struct wire_reader *r)
{
    struct read_job job = {.chat = wire_u64(r)};
    job.user = wire_u64(r);
    job.upto = wire_u64(r);
    job.after = wire_u64(r);
    job.limit = wire_u32(r);
    if (r->failed || !job.limit || job.limit > NODE_RECEIPTS_PAGE || !node_owns(n, job.chat)) {
        r->failed = true;
        return;
    }
    job.owner = owner_answer(n, from, id, CALL_READERS, 0);
    if (job.owner)
        read_readers(n, &job);
}

void node_receipts_answer(struct node *n, uint16_t to, uint64_t id, uint64_t version, struct read_job *job)
{
    struct receipt_chat *k = receipts_chat(&n->receipts, job->chat);
    if (job->limit) {
        struct buf b = BUF_INIT(1u << 20);
        enum proto_error code;
        int status = readers_page(n, job, &b, &code);
        buf_reset(&n->bus->reply);
        put_u32(&n->bus->reply, (uint32_t)status);
        put_u8(&n->bus->reply, (uint8_t)code);
        put_text(&n->bus->reply, status == 200 ? b.data : "", status == 200 ? b.len : 0);
        owner_reply(n, to, id, &n->bus->reply);
        buf_release(&b);
        return;
    }
    if (k && job->rc)
        k->reading = false;
    if (!k || job->rc)
        return; /* asked again */
    take_rows(n, k, job);
    reply_receipts(n, to, id, k, version, job->own, job->own_n);
}

/* ---- several nodes: at a follower ---- */

static bool take_line(struct node *n, struct receipt_chat *k, const struct receipt_member *m)
{
    if (receipts_member_set(&n->receipts, k, m->user, m->from))
        return false;
    receipts_note(&n->receipts, k, m->user, m->delivered, m->read);
    return true;
}

/* All lines, by user: who is not among them is no member. */
static void take_lines(struct node *n, struct receipt_chat *k, struct wire_reader *r)
{
    bool whole = true;
    uint64_t last = 0;
    for (uint32_t left = wire_count(r, WIRE_RECEIPT_BYTES); left && !r->failed; left--) {
        struct receipt_member m;
        wire_receipt(r, &m);
        const struct receipt_member *old;
        while (!r->failed && (old = receipts_member_above(k, last)) && old->user < m.user)
            receipts_member_drop(&n->receipts, k, old->user);
        if (!r->failed)
            whole &= take_line(n, k, &m);
        last = m.user;
    }
    const struct receipt_member *old;
    while (!r->failed && (old = receipts_member_above(k, last)))
        receipts_member_drop(&n->receipts, k, old->user);
    k->known = !r->failed && whole;
}

void node_receipts_replied(struct node *n, void *about, struct wire_reader *r)
{
    struct asked a = *(struct asked *)about;
    struct receipt_chat *k = receipts_chat(&n->receipts, a.chat);
    free(about);
    if (!k)
        return;
    k->reading = false;
    uint8_t what = r ? wire_u8(r) : 2;
    uint64_t version = what < 2 ? wire_u64(r) : 0;
    if (what == 0)
        take_lines(n, k, r);
    else if (what == 1)
        wire_u32(r);
    uint64_t own[RECEIPTS_OWN_MAX];
    uint32_t own_n = what < 2 ? wire_count(r, 8) : 0;
    for (uint32_t i = 0; i < own_n && i < RECEIPTS_OWN_MAX; i++)
        own[i] = wire_u64(r);
    if (what > 1 || r->failed) {
        struct session *s = a.conn ? node_session(n, a.conn) : NULL;
        if (s && s->state == SESSION_READY) /* what it named is not known here */
            session_error(n, s, PROTO_SHARD_UNAVAILABLE, &(struct msg){.t = MSG_RECEIPTS, .chat = a.chat},
                          1000, NULL);
        k->ask_ns = n->io.now.mono_ns + SWEEP_NS;
        return;
    }
    k->version = version;
    take_own(n, k, a.conn, own, own_n < RECEIPTS_OWN_MAX ? own_n : RECEIPTS_OWN_MAX);
}

void node_readers_replied(struct node *n, void *about, struct wire_reader *r)
{
    uint64_t request = *(uint64_t *)about;
    uint32_t status = r ? wire_u32(r) : 503;
    uint8_t code = r ? wire_u8(r) : PROTO_SHARD_UNAVAILABLE;
    struct slice text = r ? wire_text(r) : (struct slice){0};
    free(about);
    if ((r && r->failed) || code >= PROTO_ERROR_COUNT)
        node_http_error(n, request, 503, PROTO_SHARD_UNAVAILABLE);
    else
        answer_http(n, request, (int)status, (enum proto_error)code, text);
}

void node_receipts_told(struct node *n, uint16_t from, struct wire_reader *r)
{
    uint64_t chat = wire_u64(r), version = wire_u64(r);
    struct receipt_chat *k = receipts_chat(&n->receipts, chat);
    if (r->failed || node_owner(n, chat) != from || !k)
        return;
    bool next = k->known && version == k->version;
    for (uint32_t left = wire_count(r, WIRE_RECEIPT_BYTES); left && !r->failed; left--) {
        struct receipt_member m;
        wire_receipt(r, &m);
        const struct receipt_member *old = r->failed ? NULL : receipts_member(k, m.user);
        if (old) /* who is not known here joined, or has left: the owner's whole answer tells */
            receipts_note(&n->receipts, k, m.user, m.delivered, m.read);
        else
            next = false;
    }
    if (next && !r->failed)
        k->version++;
    else if (!k->reading)
        ask_owner(n, k, 0, 0, NULL, 0);
}

void node_receipts_owner_up(struct node *n, uint16_t owner)
{
    size_t at = 0;
    void *v;
    while (map_next(&n->receipts.chats, &at, NULL, &v)) {
        struct receipt_chat *k = *(struct receipt_chat **)v;
        if (node_owner(n, k->chat) == owner)
            k->ask_ns = 0;
    }
}
