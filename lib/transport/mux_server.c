#include "transport/mux_server.h"

#include <stdlib.h>
#include <string.h>

#include "util/huge.h"
#include "util/log.h"

#define BLOCK_BYTES   (64u * 1024)
#define PAGE_BYTES    4096u
#define TURN_ROUNDS   4 /* of written -> more to send -> written; the rest has the next turn */
#define BEATS_AT_ONCE 64
#define REGION_BYTES  (4u << 20) /* pages are allocated so many at once */

enum session_state { STATE_FREE, STATE_OPEN, STATE_CLOSING };

struct mux_session {
    uint64_t handle;
    int32_t credit;
    uint32_t held;        /* the last of a circle of held frames, 0: none */
    uint32_t up, down;    /* bytes of DATA so far, modulo 2^32 */
    uint8_t state, waits; /* waits: is in the list of those that the socket keeps waiting */
    uint16_t code;
};
_Static_assert(sizeof(struct mux_session) == 32, "a session is 32 bytes here");

/* Aligned to its size, so that a session finds its connection and its number. */
struct mux_page {
    struct mux_conn *conn;
    uint32_t first, used;
    uint64_t spare[2];
    struct mux_session at[(PAGE_BYTES - 32) / sizeof(struct mux_session)];
};
#define PAGE_SESSIONS ((PAGE_BYTES - 32) / (uint32_t)sizeof(struct mux_session))
_Static_assert(sizeof(struct mux_page) == PAGE_BYTES, "a page is a page");

struct held {
    struct shared_frame *frame;
    uint32_t next;
};

/* Something that was done, and is told in the turn: a frame was written, or else the session is over. */
struct told {
    uint64_t handle, down;
    struct shared_frame *frame;
    struct mux_session *session;
};

struct mux_conn {
    struct mux_server *m;
    struct ws_conn *ws;
    struct mux_conn *prev, *next;
    struct mux_page **pages;
    uint32_t pages_n, opens;
    struct shared_frame *block;
    uint64_t expires_s;
    struct mux_session **waiting; /* have frames that only the socket holds back */
    size_t waiting_n, waiting_cap;
    bool trusted, failed, blocked;
};

/* Where pages come from: the first page of a region is kept for the list of regions. */
struct region {
    struct region *next;
};

struct mux_server {
    struct mux_server_config cfg;
    struct region *regions;
    struct mux_page *pages_free; /* linked through `conn` */
    uint32_t region_used;        /* pages of the first region that were given out */
    struct mux_conn *conns;
    uint32_t sessions, held_used, held_cap, held_free;
    struct held *held; /* [0] is not used */
    struct told *told;
    size_t told_n, told_cap;
};

int mux_server_new(struct mux_server **out, const struct mux_server_config *c, struct err_ctx *ctx)
{
    struct mux_server *m = calloc(1, sizeof *m);
    *out = m;
    if (!m)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    m->cfg = *c;
    m->held_used = 1;
    return 0;
}

void mux_server_free(struct mux_server *m)
{
    if (!m)
        return;
    BUG_ON(m->conns);
    for (size_t i = 0; i < m->told_n; i++)
        shared_frame_unref(m->told[i].frame);
    while (m->regions) {
        struct region *next = m->regions->next;
        free(m->regions);
        m->regions = next;
    }
    free(m->told);
    free(m->held);
    free(m);
}

uint32_t mux_server_sessions(const struct mux_server *m)
{
    return m->sessions;
}

/* ---- sessions and their numbers ---- */

static struct mux_page *page_of(const struct mux_session *s)
{
    return (struct mux_page *)((uintptr_t)s & ~(uintptr_t)(PAGE_BYTES - 1));
}

static uint32_t number_of(const struct mux_session *s)
{
    const struct mux_page *p = page_of(s);
    return p->first + (uint32_t)(s - p->at);
}

static struct mux_session *session_at(const struct mux_conn *c, uint32_t number)
{
    uint32_t page = number / PAGE_SESSIONS;
    if (page >= c->pages_n || !c->pages[page])
        return NULL;
    return &c->pages[page]->at[number % PAGE_SESSIONS];
}

/* Zeroed. From the second region on in huge pages: a server with few sessions doesn't pay for them. */
static struct mux_page *page_take(struct mux_server *m)
{
    struct mux_page *p = m->pages_free;
    if (p) {
        m->pages_free = (struct mux_page *)(void *)p->conn;
    } else {
        if (!m->regions || m->region_used == REGION_BYTES / PAGE_BYTES) {
            struct region *r = aligned_alloc(HUGE_PAGE, REGION_BYTES);
            if (!r)
                return NULL;
            if (m->regions)
                huge_hint(r, REGION_BYTES);
            r->next = m->regions;
            m->regions = r;
            m->region_used = 1;
        }
        p = (struct mux_page *)(void *)((char *)m->regions + (size_t)m->region_used++ * PAGE_BYTES);
    }
    memset(p, 0, sizeof *p);
    return p;
}

static void page_give(struct mux_server *m, struct mux_page *p)
{
    p->conn = (struct mux_conn *)(void *)m->pages_free;
    m->pages_free = p;
}

static struct mux_session *session_make(struct mux_conn *c, uint32_t number)
{
    uint32_t page = number / PAGE_SESSIONS;
    if (page >= c->pages_n) {
        uint32_t n = page + 1 + page / 2;
        struct mux_page **p = realloc(c->pages, n * sizeof(void *));
        if (!p)
            return NULL;
        memset(p + c->pages_n, 0, (n - c->pages_n) * sizeof(void *));
        c->pages = p;
        c->pages_n = n;
    }
    if (!c->pages[page]) {
        struct mux_page *p = page_take(c->m);
        if (!p)
            return NULL;
        p->conn = c;
        p->first = page * PAGE_SESSIONS;
        c->pages[page] = p;
    }
    c->pages[page]->used++;
    return &c->pages[page]->at[number % PAGE_SESSIONS];
}

static void session_free(struct mux_session *s)
{
    struct mux_page *p = page_of(s);
    struct mux_conn *c = p->conn;
    *s = (struct mux_session){0};
    c->m->sessions--;
    if (--p->used)
        return;
    c->pages[p->first / PAGE_SESSIONS] = NULL;
    page_give(c->m, p);
}

/* ---- frames that wait ---- */

static bool hold(struct mux_server *m, struct mux_session *s, struct shared_frame *f)
{
    uint32_t at = m->held_free;
    if (at) {
        m->held_free = m->held[at].next;
    } else {
        if (m->held_used == m->held_cap || !m->held_cap) {
            uint32_t cap = m->held_cap ? m->held_cap * 2 : 1024;
            struct held *p = m->held_cap < MUX_HELD_MAX ? realloc(m->held, cap * sizeof *p) : NULL;
            if (!p)
                return false;
            m->held = p;
            m->held_cap = cap;
        }
        at = m->held_used++;
    }
    shared_frame_ref(f);
    m->held[at] = (struct held){f, at};
    if (s->held) {
        m->held[at].next = m->held[s->held].next;
        m->held[s->held].next = at;
    }
    s->held = at;
    return true;
}

/* The first of those that wait; the reference is the caller's. */
static struct shared_frame *unhold(struct mux_server *m, struct mux_session *s)
{
    uint32_t at = m->held[s->held].next;
    struct shared_frame *f = m->held[at].frame;
    if (at == s->held)
        s->held = 0;
    else
        m->held[s->held].next = m->held[at].next;
    m->held[at] = (struct held){NULL, m->held_free};
    m->held_free = at;
    return f;
}

/* ---- what goes out ---- */

static void tell(struct mux_server *m, struct mux_session *s, struct shared_frame *f)
{
    if (m->told_n == m->told_cap) {
        size_t cap = m->told_cap ? m->told_cap * 2 : 256;
        struct told *p = realloc(m->told, cap * sizeof *p);
        BUG_ON(!p); /* a session that ends untold would never be freed */
        m->told = p;
        m->told_cap = cap;
    }
    if (f)
        shared_frame_ref(f);
    m->told[m->told_n++] = (struct told){s->handle, s->down, f, f ? NULL : s};
}

static void fail(struct mux_conn *c, int code, const char *text)
{
    if (c->failed)
        return;
    c->failed = true;
    if (code != 4002)
        log_warn("a chat.mux.v1 connection of %s is closed with %d: %s", ws_peer_text(c->ws), code, text);
    ws_close(c->ws, code, text);
}

static void give_up(struct mux_conn *c, int why)
{
    c->failed = true;
    log_warn("a chat.mux.v1 connection of %s is cut: %s, %llu bytes are queued", ws_peer_text(c->ws),
             err_text(why), (unsigned long long)ws_queued_bytes(c->ws));
    ws_abort(c->ws);
}

static void send_block(struct mux_conn *c)
{
    struct shared_frame *b = c->block;
    if (!b || !b->len)
        return;
    c->block = NULL;
    int rc = c->failed ? 0 : ws_send(c->ws, b, 0);
    if (rc == ERR_LIMIT || rc == ERR_NOMEM) /* far beyond our own limit */
        give_up(c, rc);
    shared_frame_unref(b);
    if (ws_queued_bytes(c->ws) > MUX_SOCKET_BYTES)
        c->blocked = true;
}

/* Room for a record in the block; NULL: the connection is of no use any more. */
static char *record(struct mux_conn *c, uint32_t number, enum mux_op op, size_t len)
{
    if (c->block && c->block->len + MUX_HEADER + len > BLOCK_BYTES)
        send_block(c);
    if (c->failed)
        return NULL;
    if (!c->block) {
        size_t room = MUX_HEADER + len > BLOCK_BYTES ? MUX_HEADER + len : BLOCK_BYTES;
        c->block = malloc(sizeof *c->block + room);
        if (!c->block) {
            give_up(c, ERR_NOMEM);
            return NULL;
        }
        *c->block = (struct shared_frame){.refs = 1};
    }
    char *to = c->block->data + c->block->len;
    mux_header(to, number, op, len);
    c->block->len += MUX_HEADER + (uint32_t)len;
    return to + MUX_HEADER;
}

static void put_data(struct mux_conn *c, struct mux_session *s, struct shared_frame *f)
{
    char *to = record(c, number_of(s), MUX_DATA, f->len);
    if (!to)
        return;
    memcpy(to, f->data, f->len);
    s->credit -= (int32_t)f->len;
    s->down += f->len;
    tell(c->m, s, f);
}

static void put_close(struct mux_conn *c, uint32_t number, int code, const char *text)
{
    size_t n = text ? strnlen(text, 120) : 0;
    char *to = record(c, number, MUX_CLOSE, 2 + n);
    if (!to)
        return;
    mux_set(to, (uint64_t)code, 2);
    if (n)
        memcpy(to + 2, text, n);
}

/* Remember that the socket keeps this one waiting. */
static void wait_for_socket(struct mux_conn *c, struct mux_session *s)
{
    if (s->waits)
        return;
    if (c->waiting_n == c->waiting_cap) {
        size_t cap = c->waiting_cap ? c->waiting_cap * 2 : 64;
        struct mux_session **p = realloc(c->waiting, cap * sizeof(void *));
        if (!p)
            return; /* its next CREDIT or frame finds it */
        c->waiting = p;
        c->waiting_cap = cap;
    }
    s->waits = 1;
    c->waiting[c->waiting_n++] = s;
}

static void send_held(struct mux_conn *c, struct mux_session *s)
{
    while (s->state == STATE_OPEN && s->held && s->credit > 0 && !c->failed) {
        if (c->blocked) {
            wait_for_socket(c, s);
            return;
        }
        struct shared_frame *f = unhold(c->m, s);
        put_data(c, s, f);
        shared_frame_unref(f);
    }
}

void mux_send(struct mux_session *s, struct shared_frame *f)
{
    /* hot path: one copy, nothing allocated but a block now and then */
    struct mux_conn *c = page_of(s)->conn;
    if (s->state != STATE_OPEN || c->failed)
        return;
    if (s->held || s->credit <= 0 || c->blocked) {
        if (!hold(c->m, s, f))
            mux_close(s, 4003, "too much unsent data is queued");
        else
            send_held(c, s);
        return;
    }
    put_data(c, s, f);
}

void mux_close(struct mux_session *s, int code, const char *text)
{
    struct mux_conn *c = page_of(s)->conn;
    if (s->state != STATE_OPEN)
        return;
    while (s->held)
        shared_frame_unref(unhold(c->m, s));
    s->state = STATE_CLOSING;
    s->code = (uint16_t)code;
    put_close(c, number_of(s), code, text);
    tell(c->m, s, NULL);
}

/* ---- what comes in ---- */

static void end_session(struct mux_conn *c, struct mux_session *s, int code, enum reason reason)
{
    uint64_t handle = s->handle;
    while (s->held)
        shared_frame_unref(unhold(c->m, s));
    s->state = STATE_CLOSING;
    c->m->cfg.ops->closed(c->m->cfg.arg, handle, code, reason);
}

static void drop_waiting(struct mux_conn *c, const struct mux_session *s)
{
    if (!s->waits)
        return;
    for (size_t i = 0; i < c->waiting_n; i++)
        if (c->waiting[i] == s) {
            c->waiting[i] = c->waiting[--c->waiting_n];
            return;
        }
}

static void on_open(struct mux_conn *c, const struct mux_record *r)
{
    struct mux_server *m = c->m;
    if (r->session == 0) {
        int code =
            c->trusted ? 4103 : m->cfg.ops->authenticate(m->cfg.arg, r->payload, r->len, &c->expires_s);
        if (code) {
            fail(c, code, code == 4103 ? "session 0 is open already" : "not a token for a whole connection");
            return;
        }
        c->trusted = true;
        char *to = record(c, 0, MUX_OPEN, 4);
        if (to)
            mux_set(to, MUX_CREDIT_START, 4);
        return;
    }
    struct mux_session *s = session_at(c, r->session);
    if (r->len != 8 || (s && s->state != STATE_FREE)) {
        fail(c, 4103, "this session is open already");
        return;
    }
    c->opens++;
    if (m->sessions >= m->cfg.sessions_max || !(s = session_make(c, r->session))) {
        put_close(c, r->session, 4004, "too many sessions");
        return;
    }
    m->sessions++;
    s->state = STATE_OPEN;
    s->credit = MUX_CREDIT_START;
    struct trace_flow peer, flow;
    ws_peer(c->ws, &peer);
    flow = mux_flow(r->session, c->opens, peer.sport);
    s->handle = m->cfg.ops->open(m->cfg.arg, s, mux_get(r->payload, 8), c->expires_s, &flow);
    if (!s->handle) {
        put_close(c, r->session, 4004, "refused");
        session_free(s);
    }
}

/* First all sessions are fetched, then their handles taken: one waits for memory once, not 64 times. */
static void tell_beats(struct mux_server *m, struct mux_session *const *sessions, size_t n)
{
    uint64_t handles[BEATS_AT_ONCE];
    size_t open = 0;
    for (size_t i = 0; i < n; i++)
        if (sessions[i]->state == STATE_OPEN)
            handles[open++] = sessions[i]->handle;
    if (open)
        m->cfg.ops->beats(m->cfg.arg, handles, open);
}

static void on_beats(struct mux_conn *c, const struct mux_record *r)
{
    struct mux_session *sessions[BEATS_AT_ONCE];
    size_t n = 0;
    for (uint32_t i = 0; i < r->len; i++)
        for (unsigned bits = (uint8_t)r->payload[i]; bits; bits &= bits - 1) {
            uint64_t number = (uint64_t)r->session + i * 8u + (unsigned)__builtin_ctz(bits);
            struct mux_session *s = number < MUX_SESSIONS_MAX ? session_at(c, (uint32_t)number) : NULL;
            if (!s)
                continue;
            __builtin_prefetch(s);
            sessions[n++] = s;
            if (n == BEATS_AT_ONCE) {
                tell_beats(c->m, sessions, n);
                n = 0;
            }
        }
    tell_beats(c->m, sessions, n);
}

static void on_end(struct mux_conn *c, struct mux_session *s, int code, enum reason reason)
{
    uint32_t number = number_of(s);
    drop_waiting(c, s);
    end_session(c, s, code, reason);
    session_free(s);
    put_close(c, number, code, "");
}

static void on_record(struct mux_conn *c, const struct mux_record *r)
{
    if (r->op == MUX_OPEN) {
        on_open(c, r);
        return;
    }
    if (r->op == MUX_BEATS) {
        on_beats(c, r);
        return;
    }
    struct mux_session *s = session_at(c, r->session);
    if (!s || s->state != STATE_OPEN)
        return;
    switch (r->op) {
    case MUX_DATA:
        s->up += r->len;
        c->m->cfg.ops->data(c->m->cfg.arg, s->handle, r->payload, r->len, s->up);
        break;
    case MUX_CREDIT: {
        int64_t credit = (int64_t)s->credit + (int64_t)mux_get(r->payload, 4);
        s->credit = credit < MUX_CREDIT_MAX ? (int32_t)credit : (int32_t)MUX_CREDIT_MAX;
        send_held(c, s);
        break;
    }
    case MUX_CUT:
        on_end(c, s, 0, REASON_RESET);
        break;
    default:
        on_end(c, s, (int)mux_get(r->payload, 2), REASON_CLOSED_BY_PEER);
    }
}

/* Two steps ahead of the records: the session first, then what hangs on it. */
struct ahead {
    const char *p;
    struct mux_session *ring[MUX_AHEAD];
    unsigned at;
};

static void look_ahead(struct mux_conn *c, struct ahead *a, const char *end)
{
    struct mux_record r;
    struct mux_session *s = NULL;
    if (mux_next(&a->p, end, &r) == 1 && r.op == MUX_DATA && (s = session_at(c, r.session)))
        __builtin_prefetch(s, 1);
    unsigned before = (a->at + MUX_AHEAD / 2) % MUX_AHEAD;
    if (a->ring[before] && a->ring[before]->state == STATE_OPEN)
        c->m->cfg.ops->soon(c->m->cfg.arg, a->ring[before]->handle);
    a->ring[a->at] = s;
    a->at = (a->at + 1) % MUX_AHEAD;
}

void mux_conn_frame(struct mux_conn *c, const char *p, size_t n)
{
    struct mux_record r;
    struct ahead ahead = {.p = p};
    const char *end = p + n;
    bool look = c->m->cfg.ops->soon != NULL;
    int rc;
    for (int i = 0; look && i < MUX_AHEAD; i++)
        look_ahead(c, &ahead, end);
    while (!c->failed && (rc = mux_next(&p, end, &r))) {
        if (look)
            look_ahead(c, &ahead, end);
        if (rc < 0)
            fail(c, 4103, "no record of chat.mux.v1");
        else if (!c->trusted && (r.op != MUX_OPEN || r.session))
            fail(c, 4101, "OPEN of session 0 with a token comes first");
        else
            on_record(c, &r);
    }
}

/* ---- the life of a connection ---- */

struct mux_conn *mux_conn_new(struct mux_server *m, struct ws_conn *ws)
{
    struct mux_conn *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    *c = (struct mux_conn){.m = m, .ws = ws, .next = m->conns};
    if (m->conns)
        m->conns->prev = c;
    m->conns = c;
    return c;
}

static void still_waiting(struct mux_conn *c)
{
    c->blocked = false;
    size_t n = c->waiting_n;
    for (size_t i = 0; i < n && !c->blocked; i++) {
        struct mux_session *s = c->waiting[--c->waiting_n];
        s->waits = 0;
        send_held(c, s);
    }
}

void mux_conn_drained(struct mux_conn *c)
{
    if (ws_queued_bytes(c->ws) <= MUX_SOCKET_BYTES / 2)
        still_waiting(c);
}

void mux_conn_closed(struct mux_conn *c, int code, enum reason reason)
{
    struct mux_server *m = c->m;
    c->failed = true;
    for (size_t i = 0; i < m->told_n; i++) /* told now, below */
        if (m->told[i].session && page_of(m->told[i].session)->conn == c)
            m->told[i].session = NULL;
    for (uint32_t p = 0; p < c->pages_n; p++)
        for (uint32_t i = 0; c->pages[p] && i < PAGE_SESSIONS; i++) {
            struct mux_session *s = &c->pages[p]->at[i];
            if (s->state == STATE_FREE)
                continue;
            bool ours = s->state == STATE_CLOSING;
            end_session(c, s, ours ? s->code : code, ours ? REASON_CLOSED_BY_US : reason);
            session_free(s);
        }
    if (c->prev)
        c->prev->next = c->next;
    else
        m->conns = c->next;
    if (c->next)
        c->next->prev = c->prev;
    shared_frame_unref(c->block);
    free(c->pages);
    free(c->waiting);
    free(c);
}

void mux_server_close(struct mux_server *m, int code, const char *text)
{
    mux_turn(m);
    for (struct mux_conn *c = m->conns; c; c = c->next)
        fail(c, code, text);
}

/* What was told when the loop began; more may be added meanwhile. */
static void tell_all(struct mux_server *m)
{
    for (size_t i = 0; i < m->told_n; i++) {
        struct told t = m->told[i];
        if (i + MUX_AHEAD < m->told_n && m->cfg.ops->soon)
            m->cfg.ops->soon(m->cfg.arg, m->told[i + MUX_AHEAD].handle);
        if (t.frame) {
            m->cfg.ops->written(m->cfg.arg, t.handle, t.frame, t.down);
            shared_frame_unref(t.frame);
        } else if (t.session) {
            drop_waiting(page_of(t.session)->conn, t.session);
            m->cfg.ops->closed(m->cfg.arg, t.handle, t.session->code, REASON_CLOSED_BY_US);
            session_free(t.session);
        }
    }
    m->told_n = 0;
}

void mux_turn(struct mux_server *m)
{
    for (int round = 0; round < TURN_ROUNDS; round++) {
        tell_all(m);
        for (struct mux_conn *c = m->conns; c; c = c->next) {
            if (c->blocked && ws_queued_bytes(c->ws) <= MUX_SOCKET_BYTES / 2)
                still_waiting(c);
            send_block(c);
        }
        if (!m->told_n)
            return;
    }
}
