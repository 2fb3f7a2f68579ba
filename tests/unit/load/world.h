/* A world for phones in virtual time: sockets with a delay, and a server of a few lines that keeps chats in
 * memory, answers hello, create, send and sync, and pushes to whoever it believes to be connected. */
#ifndef TESTS_LOAD_WORLD_H
#define TESTS_LOAD_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/client.h"
#include "load/load.h"
#include "proto/proto.h"

#define DELAY_NS  (5 * NS_PER_MS)
#define USERS_MAX 64
#define CHATS_MAX 64
#define LOG_MAX   8192
#define EPOCH     77

struct load_socket {
    struct load_phone *phone;
    uint64_t user, written, read;
    uint32_t source;
    bool dead, frozen, cut; /* dead: the phone's end is gone; cut: the server's */
};

enum what { OPENS, UP, DOWN, ENDS };
struct happening {
    uint64_t at_ns;
    enum what what;
    struct load_socket *s;
    char *data;
    size_t n;
};

struct entry_kept {
    struct id id;
    uint64_t from, ts;
    char body[256];
    uint32_t n;
};
struct chat_kept {
    uint64_t number, users[USERS_MAX];
    uint32_t users_n, head;
    struct entry_kept *log;
};

struct world {
    struct load *load;
    struct now now;
    struct happening *queue;
    size_t queue_n, queue_cap;
    struct load_socket *sockets[4096];
    size_t sockets_n;
    struct load_socket *session[USERS_MAX]; /* by user - LOAD_FIRST_USER: what the server pushes to */
    struct chat_kept chats[CHATS_MAX];
    size_t chats_n;
    bool forgetful;         /* a legacy server: pushes to whom it believes connected, and no more */
    unsigned drop_accepted; /* 1 in so many answers is lost; 0: none */
    unsigned answers, connects_failing, detached, refusals;
    uint64_t stall_at, stall_ns; /* the generator gets no turn for so long */
    uint64_t amnesia_at;         /* the server dies and comes back with nothing */
    uint64_t epoch;
    bool no_right_to_vanish;
    bool deaf_to_tcp; /* nothing that phones write is ever acknowledged */
    char phases[128];
    struct proto_scratch scratch;
};

static void happen(struct world *w, uint64_t in_ns, enum what what, struct load_socket *s, const char *p,
                   size_t n)
{
    if (w->queue_n == w->queue_cap) {
        w->queue_cap = w->queue_cap ? w->queue_cap * 2 : 256;
        w->queue = realloc(w->queue, w->queue_cap * sizeof *w->queue);
    }
    struct happening *h = &w->queue[w->queue_n++];
    *h = (struct happening){w->now.mono_ns + in_ns, what, s, NULL, n};
    if (n) {
        h->data = malloc(n);
        memcpy(h->data, p, n);
    }
}

static struct now w_now(void *arg)
{
    return ((struct world *)arg)->now;
}
static int w_token(void *arg, uint64_t user, uint32_t device, struct buf *out)
{
    (void)arg;
    (void)device;
    buf_u64(out, user);
    return 0;
}
static int w_connect(void *arg, uint32_t source, struct load_phone *p, struct load_socket **out,
                     struct err_ctx *ctx)
{
    struct world *w = arg;
    if (w->connects_failing)
        return err_set(ctx, ERR_IO, "no such address");
    struct load_socket *s = calloc(1, sizeof *s);
    s->phone = p;
    s->source = source;
    s->written = s->read = 100;
    assert_true(w->sockets_n < 4096);
    w->sockets[w->sockets_n++] = s;
    happen(w, 2 * DELAY_NS, OPENS, s, NULL, 0);
    *out = s;
    return 0;
}
static struct world *the_world; /* the calls that get a socket only */

static int w_send(struct load_socket *s, const char *p, size_t n, uint64_t *end_offset)
{
    assert_false(s->dead);
    s->written += n;
    *end_offset = s->written;
    happen(the_world, DELAY_NS, UP, s, p, n);
    return 0;
}
static void leave(struct load_socket *s, bool told)
{
    assert_false(s->dead);
    s->dead = true;
    if (told)
        happen(the_world, DELAY_NS, ENDS, s, NULL, 0);
}
static void w_free(struct load_socket *s)
{
    leave(s, true);
}
static int w_vanish(struct load_socket *s)
{
    leave(s, the_world->no_right_to_vanish);
    return the_world->no_right_to_vanish ? ERR_PERM : 0;
}
static int w_cut(struct load_socket *s, const char *p, size_t n, size_t bytes, uint64_t *end_offset)
{
    (void)p;
    assert_true(bytes >= 1 && bytes < n + 14);
    *end_offset = s->written + bytes;
    leave(s, true);
    return 0;
}
static void w_freeze(struct load_socket *s, bool frozen)
{
    s->frozen = frozen;
}
static uint64_t w_written(const struct load_socket *s)
{
    return s->written;
}
static uint64_t w_acked(const struct load_socket *s)
{
    return the_world->deaf_to_tcp ? 0 : s->written;
}
static uint64_t w_read(const struct load_socket *s)
{
    return s->read;
}
static void w_flow(const struct load_socket *s, struct trace_flow *f)
{
    *f = (struct trace_flow){.src = s->source};
}
static void w_radio(void *arg, uint32_t address, int op)
{
    struct world *w = arg;
    assert_true(address != 0);
    w->detached += op == 1;
}
static void w_phase(void *arg, const char *name)
{
    struct world *w = arg;
    snprintf(w->phases + strlen(w->phases), sizeof w->phases - strlen(w->phases), "%s ", name);
}

/* ---- the server ---- */

static void answer(struct world *w, struct load_socket *s, const struct msg *m)
{
    struct buf b = BUF_INIT(1 << 20);
    proto_encode(&b, m);
    happen(w, DELAY_NS, DOWN, s, b.data, b.len);
    buf_release(&b);
}
static struct chat_kept *kept(struct world *w, uint64_t number)
{
    for (size_t i = 0; i < w->chats_n; i++)
        if (w->chats[i].number == number)
            return &w->chats[i];
    return NULL;
}
static void push(struct world *w, struct load_socket *s, const struct chat_kept *c, uint32_t seq)
{
    const struct entry_kept *e = &c->log[seq];
    answer(w, s,
           &(struct msg){.t = MSG_MSG,
                         .chat = c->number,
                         .epoch = w->epoch,
                         .seq = seq,
                         .id = e->id,
                         .from = e->from,
                         .ts = e->ts,
                         .kind = SLICE("text"),
                         .body = {e->body, e->n}});
}
static bool member(const struct chat_kept *c, uint64_t user)
{
    for (uint32_t i = 0; i < c->users_n; i++)
        if (c->users[i] == user)
            return true;
    return false;
}

static void on_hello(struct world *w, struct load_socket *s, const struct msg *m)
{
    struct claim heads[CHATS_MAX];
    uint32_t n = 0;
    s->user = strtoull(m->token.p, NULL, 10);
    w->session[s->user - LOAD_FIRST_USER] = s;
    for (size_t i = 0; i < w->chats_n; i++)
        if (member(&w->chats[i], s->user))
            heads[n++] = (struct claim){w->chats[i].number, w->epoch, w->chats[i].head};
    answer(w, s,
           &(struct msg){.t = MSG_WELCOME,
                         .session = SLICE("s"),
                         .epoch = w->epoch,
                         .ts = w->now.wall_us,
                         .beat_s = 10,
                         .resume = heads,
                         .resume_n = n});
    if (w->forgetful)
        return;
    for (size_t i = 0; i < w->chats_n; i++) {
        if (!member(&w->chats[i], s->user))
            continue;
        uint64_t from = 0;
        for (uint32_t k = 0; k < m->resume_n; k++)
            if (m->resume[k].chat == w->chats[i].number && m->resume[k].epoch == w->epoch)
                from = m->resume[k].seq;
        for (uint32_t q = (uint32_t)from + 1; q <= w->chats[i].head; q++)
            push(w, s, &w->chats[i], q);
    }
}

static void on_create(struct world *w, struct load_socket *s, const struct msg *m)
{
    if (kept(w, m->chat)) {
        answer(w, s,
               &(struct msg){
                   .t = MSG_ERROR, .code = SLICE("chat_exists"), .re = SLICE("create"), .chat = m->chat});
        return;
    }
    assert_true(w->chats_n < CHATS_MAX && m->users_n <= USERS_MAX);
    struct chat_kept *c = &w->chats[w->chats_n++];
    c->number = m->chat;
    c->users_n = m->users_n;
    memcpy(c->users, m->users, m->users_n * sizeof *m->users);
    c->log = calloc(LOG_MAX, sizeof *c->log);
    answer(w, s, &(struct msg){.t = MSG_DONE, .re = SLICE("create"), .chat = m->chat});
}

static void on_send(struct world *w, struct load_socket *s, const struct msg *m)
{
    struct chat_kept *c = kept(w, m->chat);
    if (!c) {
        w->refusals++;
        answer(w, s,
               &(struct msg){.t = MSG_ERROR,
                             .code = SLICE("no_such_chat"),
                             .re = SLICE("send"),
                             .id = m->id,
                             .chat = m->chat});
        return;
    }
    assert_true(member(c, s->user));
    uint32_t seq = 0;
    for (uint32_t q = 1; q <= c->head; q++)
        if (id_equal(&c->log[q].id, &m->id))
            seq = q;
    bool dup = seq != 0;
    if (!dup) {
        seq = ++c->head;
        assert_true(seq < LOG_MAX && m->body.n <= 256);
        c->log[seq] =
            (struct entry_kept){.id = m->id, .from = s->user, .ts = w->now.wall_us, .n = (uint32_t)m->body.n};
        memcpy(c->log[seq].body, m->body.p, m->body.n);
        for (uint32_t i = 0; i < c->users_n; i++) {
            struct load_socket *to = w->session[c->users[i] - LOAD_FIRST_USER];
            if (to && c->users[i] != s->user)
                push(w, to, c, seq);
        }
    }
    if (w->drop_accepted && ++w->answers % w->drop_accepted == 0)
        return;
    answer(w, s,
           &(struct msg){
               .t = MSG_ACCEPTED, .id = m->id, .chat = m->chat, .epoch = w->epoch, .seq = seq, .dup = dup});
}

static void on_sync(struct world *w, struct load_socket *s, const struct msg *m)
{
    for (size_t i = 0; i < w->chats_n; i++) {
        struct chat_kept *c = &w->chats[i];
        if ((m->chat && c->number != m->chat) || !member(c, s->user))
            continue;
        for (uint32_t q = (uint32_t)m->after + 1; q <= c->head; q++)
            if (c->log[q].ts >= m->since)
                push(w, s, c, q);
        answer(w, s, &(struct msg){.t = MSG_DONE, .re = SLICE("sync"), .chat = c->number, .to = c->head});
    }
}

static void server_reads(struct world *w, struct load_socket *s, const char *p, size_t n)
{
    struct proto_frame f;
    struct msg m;
    assert_int_equal(proto_frame_begin(&f, p, n, &w->scratch, NULL), 0);
    while (proto_frame_next(&f, &m, NULL) == 1) {
        switch (m.t) {
        case MSG_HELLO:
            on_hello(w, s, &m);
            break;
        case MSG_CREATE:
            on_create(w, s, &m);
            break;
        case MSG_SEND:
            on_send(w, s, &m);
            break;
        case MSG_SYNC:
            on_sync(w, s, &m);
            break;
        default:
            break;
        }
    }
}

/* ---- time ---- */

static void deliver(struct world *w, struct happening *h)
{
    struct load_socket *s = h->s;
    switch (h->what) {
    case OPENS:
        if (!s->dead)
            load_opened(s->phone);
        break;
    case UP:
        if (!s->cut)
            server_reads(w, s, h->data, h->n);
        break;
    case DOWN:
        if (!s->dead && s->frozen) {
            happen(w, 10 * NS_PER_MS, DOWN, s, h->data, h->n);
        } else if (!s->dead) {
            s->read += h->n;
            load_frame(s->phone, h->data, h->n);
        }
        break;
    case ENDS:
        for (int i = 0; i < USERS_MAX; i++)
            if (w->session[i] == s)
                w->session[i] = NULL;
        break;
    }
}

/* The earliest, first come first served. */
static bool next_happening(struct world *w, struct happening *out, uint64_t until)
{
    size_t best = w->queue_n;
    for (size_t i = 0; i < w->queue_n; i++)
        if (w->queue[i].at_ns <= until && (best == w->queue_n || w->queue[i].at_ns < w->queue[best].at_ns))
            best = i;
    if (best == w->queue_n)
        return false;
    *out = w->queue[best];
    memmove(&w->queue[best], &w->queue[best + 1], (w->queue_n - best - 1) * sizeof *w->queue);
    w->queue_n--;
    return true;
}

static void forget_all(struct world *w)
{
    w->amnesia_at = 0;
    w->epoch++;
    memset(w->session, 0, sizeof w->session);
    for (; w->chats_n; w->chats_n--)
        free(w->chats[w->chats_n - 1].log);
    for (size_t i = 0, n = w->sockets_n; i < n; i++) {
        struct load_socket *s = w->sockets[i];
        s->cut = true;
        if (!s->dead) {
            s->dead = true;
            load_closed(s->phone, 0, REASON_RESET);
        }
    }
}

static void move_to(struct world *w, uint64_t ns)
{
    if (ns > w->now.mono_ns) {
        w->now.wall_us += (ns - w->now.mono_ns) / 1000;
        w->now.mono_ns = ns;
    }
}

static void run(struct world *w)
{
    load_start(w->load);
    for (uint64_t guard = 0; !load_ended(w->load); guard++) {
        assert_true(guard < 5000000);
        uint64_t at = load_next(w->load);
        struct happening h;
        if (next_happening(w, &h, at ? at : UINT64_MAX)) {
            move_to(w, h.at_ns);
            deliver(w, &h);
            free(h.data);
            continue;
        }
        assert_true(at != 0);
        if (w->amnesia_at && at >= w->amnesia_at) {
            move_to(w, w->amnesia_at);
            forget_all(w);
            continue;
        }
        if (w->stall_at && at >= w->stall_at) {
            at += w->stall_ns;
            w->stall_at = 0;
        }
        move_to(w, at);
        load_tick(w->load);
    }
}

static void world_init(struct world *w, struct load_config *c)
{
    memset(w, 0, sizeof *w);
    the_world = w;
    w->epoch = EPOCH;
    w->now = (struct now){1000 * NS_PER_S, 1764000000000000ull};
    w->scratch = (struct proto_scratch){.data = malloc(PROTO_SCRATCH), .cap = PROTO_SCRATCH};
    c->world = (struct load_world){.now = w_now,
                                   .token = w_token,
                                   .connect = w_connect,
                                   .send = w_send,
                                   .free = w_free,
                                   .vanish = w_vanish,
                                   .cut = w_cut,
                                   .freeze = w_freeze,
                                   .written = w_written,
                                   .read = w_read,
                                   .acked = w_acked,
                                   .flow = w_flow,
                                   .radio = w_radio,
                                   .phase = w_phase,
                                   .arg = w};
}

static void world_release(struct world *w)
{
    load_free(w->load);
    for (size_t i = 0; i < w->queue_n; i++)
        free(w->queue[i].data);
    for (size_t i = 0; i < w->sockets_n; i++)
        free(w->sockets[i]);
    for (size_t i = 0; i < w->chats_n; i++)
        free(w->chats[i].log);
    free(w->queue);
    free(w->scratch.data);
}

#endif
