/* Presence: sessions come and go, people type and watch. Whoever becomes ready is told what holds now; no
 * event is ever kept for somebody who is away (but in the legacy mode, which is how incident 3 came about).
 */
#include "node/node_impl.h"
#include "util/mutant.h"

#include <stdlib.h>
#include <string.h>

#define EXPIRES_A_TICK 10000u

void node_presence_init(struct node *n, uint64_t seed)
{
    presence_init(&n->presence.states, seed);
    typing_init(&n->presence.typing, seed);
    n->presence.typing.keeps = n->config.presence_legacy || MUTANT(TYPING_REPLAYED);
}

void node_presence_release(struct node *n)
{
    struct node_presence *p = &n->presence;
    presence_release(&p->states);
    typing_release(&p->typing);
    for (uint32_t i = 0; i < p->flags_n; i++)
        free(p->flags[i]);
    free(p->flags);
    free(p->linger);
}

/* NULL: no memory; the session then does not count. */
static uint8_t *flags_make(struct node_presence *p, uint32_t session)
{
    uint32_t page = session / CLOCKS_PAGE;
    if (page >= p->flags_n) {
        uint8_t **pages = realloc(p->flags, (page + 1) * sizeof *pages);
        if (!pages)
            return NULL;
        memset(pages + p->flags_n, 0, (page + 1 - p->flags_n) * sizeof *pages);
        p->flags = pages;
        p->flags_n = page + 1;
    }
    if (!p->flags[page] && !(p->flags[page] = calloc(CLOCKS_PAGE, 1)))
        return NULL;
    return &p->flags[page][session % CLOCKS_PAGE];
}

static uint8_t *flags_of(struct node *n, const struct session *s)
{
    return flags_make(&n->presence, session_number(&n->registry, s));
}

uint32_t node_presence_silence_ms(const struct node *n)
{
    uint32_t three = n->config.beat_s * 3000;
    if (!three)
        return UINT32_MAX;
    return three > 2 * NODE_PRESENCE_EARLY_MS ? three - NODE_PRESENCE_EARLY_MS : three;
}

/* ---- a user is what their best session is ---- */

static enum presence_state best(const struct node *n, const struct user *u)
{
    enum presence_state state = PRESENCE_OFFLINE;
    for (uint32_t at = u->sessions; at; at = registry_session(&n->registry, at)->next_of_user) {
        uint8_t flags = node_presence_flags(&n->presence, at);
        if (!(flags & NODE_PRESENCE_HERE))
            continue;
        if (!(flags & NODE_PRESENCE_AWAY))
            return PRESENCE_ONLINE;
        state = PRESENCE_AWAY;
    }
    return state;
}

/* True: somebody is there. */
static bool update(struct node *n, const struct user *u)
{
    enum presence_state state = best(n, u);
    if (state == PRESENCE_OFFLINE)
        return false;
    presence_set(&n->presence.states, slab_number(&n->registry.users, u), state, n->io.now.wall_us / 1000000);
    return true;
}

static uint64_t heard_s(const struct node *n, const struct session *s)
{
    uint32_t heard = session_clock(&n->clocks, session_number(&n->registry, s))->heard_ms;
    uint32_t ago = heard ? clock_ms(n->io.now.mono_ns) - heard : 0;
    return (n->io.now.wall_us - (uint64_t)ago * 1000) / 1000000;
}

/* Until it is over, the user counts as there. */
static bool linger(struct node *n, uint32_t user, uint64_t seen_s)
{
    struct node_presence *p = &n->presence;
    if (p->linger_n == p->linger_cap) {
        uint32_t cap = p->linger_cap ? p->linger_cap * 2 : 64;
        struct node_linger *ring = malloc(cap * sizeof *ring);
        if (!ring)
            return false;
        for (uint32_t i = 0; i < p->linger_n; i++)
            ring[i] = p->linger[(p->linger_first + i) % p->linger_cap];
        free(p->linger);
        p->linger = ring;
        p->linger_cap = cap;
        p->linger_first = 0;
    }
    p->linger[(p->linger_first + p->linger_n++) % p->linger_cap] = (struct node_linger){
        .user = user, .at_ms = clock_ms(n->io.now.mono_ns) + NODE_PRESENCE_LINGER_MS, .seen_s = seen_s};
    return true;
}

static void end_lingering(struct node *n)
{
    struct node_presence *p = &n->presence;
    uint32_t now = clock_ms(n->io.now.mono_ns);
    for (uint32_t k = 0; p->linger_n && k < EXPIRES_A_TICK; k++) {
        const struct node_linger *l = &p->linger[p->linger_first];
        if ((int32_t)(now - l->at_ms) < 0)
            return;
        if (best(n, slab_at(&n->registry.users, l->user)) == PRESENCE_OFFLINE)
            presence_set(&p->states, l->user, PRESENCE_OFFLINE, l->seen_s);
        p->linger_first = (p->linger_first + 1) % p->linger_cap;
        p->linger_n--;
    }
}

void node_presence_leave(struct node *n, struct session *s)
{
    uint8_t *flags = flags_of(n, s);
    uint8_t was = flags ? *flags : 0;
    if (!was)
        return;
    *flags = 0;
    if (was & NODE_PRESENCE_WATCHES)
        presence_unwatch(&n->presence.states, session_number(&n->registry, s));
    const struct user *u = session_user(&n->registry, s);
    if (!(was & NODE_PRESENCE_HERE) || update(n, u))
        return;
    if (!linger(n, s->user, heard_s(n, s)))
        presence_set(&n->presence.states, s->user, PRESENCE_OFFLINE, heard_s(n, s));
}

void node_presence_silent(struct node *n, struct session *s)
{
    uint8_t *flags = s->state == SESSION_READY ? flags_of(n, s) : NULL;
    if (!flags || !(*flags & NODE_PRESENCE_HERE))
        return;
    *flags = (uint8_t)((*flags & ~NODE_PRESENCE_HERE) | NODE_PRESENCE_SILENT);
    if (!update(n, session_user(&n->registry, s)))
        presence_set(&n->presence.states, s->user, PRESENCE_OFFLINE, heard_s(n, s));
}

/* Hot path when `beat`: called only for those of which something is to be changed, or who want an answer. */
void node_presence_heard_anew(struct node *n, struct session *s, bool beat)
{
    uint8_t *flags = flags_of(n, s);
    if (!flags || !(*flags & (NODE_PRESENCE_HERE | NODE_PRESENCE_SILENT)))
        return;
    uint8_t was = *flags;
    *flags =
        (uint8_t)((was & ~(NODE_PRESENCE_SILENT | (beat ? NODE_PRESENCE_AWAY : 0))) | NODE_PRESENCE_HERE);
    if (*flags != was)
        update(n, session_user(&n->registry, s));
    if (beat && (*flags & NODE_PRESENCE_WATCHES)) /* so that it can tell a dead connection from a quiet one */
        delivery_send(&n->delivery, s, &(struct msg){.t = MSG_BEAT});
}

void node_beat(struct node *n, struct session *s, const struct msg *m)
{
    uint8_t *flags = m->away ? flags_of(n, s) : NULL;
    if (!m->away) {
        node_presence_heard_anew(n, s, true);
    } else if (flags && (*flags & NODE_PRESENCE_HERE) && !(*flags & NODE_PRESENCE_AWAY)) {
        *flags |= NODE_PRESENCE_AWAY;
        update(n, session_user(&n->registry, s));
    }
    if (flags && (*flags & NODE_PRESENCE_WATCHES))
        delivery_send(&n->delivery, s, &(struct msg){.t = MSG_BEAT});
}

/* ---- typing ---- */

static struct msg typing_msg(const struct node *n, const struct chat *c, uint64_t user, uint64_t until_us)
{
    struct msg m = {.t = MSG_TYPING, .chat = c->id, .user = user};
    if (!n->presence.typing.keeps) {
        m.to = until_us;
        m.ts = until_us - TYPING_FOR_US;
    }
    return m;
}

static void tell_chat(struct node *n, const struct chat *c, uint64_t user, uint64_t until_us)
{
    struct msg m = typing_msg(n, c, user, until_us);
    delivery_tell(&n->delivery, c, &m, user);
    n->counters.typing_told++;
}

/* It holds from the last key on, wherever the word of it was held up. */
static uint64_t until(const struct node *n, uint64_t ts_us)
{
    uint64_t now = n->io.now.wall_us;
    return (ts_us && ts_us < now && !n->config.presence_legacy ? ts_us : now) + TYPING_FOR_US;
}

/* 0, or why not. */
static enum proto_error types(struct node *n, uint64_t user, uint64_t chat, uint64_t ts_us)
{
    const struct chat *c = registry_chat(&n->registry, chat);
    const struct user *u = registry_user(&n->registry, user);
    if (!c || !u || !chat_is_member(c, user))
        return c ? PROTO_NOT_MEMBER : PROTO_NO_SUCH_CHAT;
    uint64_t until_us = until(n, ts_us);
    n->counters.typing++;
    if (until_us <= n->io.now.wall_us)
        return PROTO_ERROR_COUNT; /* over before it came */
    if (typing_set(&n->presence.typing, slab_number(&n->registry.chats, c),
                   slab_number(&n->registry.users, u), until_us,
                   n->io.now.mono_ns / NS_PER_MS) == TYPING_TOLD)
        tell_chat(n, c, user, until_us);
    return PROTO_ERROR_COUNT;
}

void node_typing(struct node *n, struct session *s, const struct msg *m)
{
    enum proto_error e = types(n, session_user(&n->registry, s)->id, m->chat, m->ts);
    if (e != PROTO_ERROR_COUNT)
        session_error(n, s, e, m, 0, NULL);
}

void node_presence_said(struct node *n, const struct chat *c, uint64_t user, uint64_t ts_us)
{
    const struct user *u = n->presence.typing.entries.live ? registry_user(&n->registry, user) : NULL;
    if (!u)
        return;
    uint32_t chat = slab_number(&n->registry.chats, c), number = slab_number(&n->registry.users, u);
    uint64_t until_us = typing_until(&n->presence.typing, chat, number, 0);
    if (until_us && until_us - TYPING_FOR_US <= ts_us) /* they may type on while it was being committed */
        typing_clear(&n->presence.typing, chat, number);
}

/* Who types now in the session's chats. */
static void tell_typing(struct node *n, struct session *s)
{
    const struct user *u = session_user(&n->registry, s);
    struct typist who[TYPING_CHAT_MAX];
    for (uint32_t i = 0; n->presence.typing.entries.live && i < u->chats_n; i++) {
        const struct chat *c = registry_user_chat(&n->registry, u, i);
        if (!chat_is_member(c, u->id))
            continue;
        uint32_t k =
            typing_in(&n->presence.typing, slab_number(&n->registry.chats, c), n->io.now.wall_us, who);
        while (k--) {
            const struct user *by = slab_at(&n->registry.users, who[k].user);
            struct msg m = typing_msg(n, c, by->id, who[k].until_us);
            if (by != u)
                delivery_send(&n->delivery, s, &m);
        }
    }
}

void node_presence_ready(struct node *n, struct session *s)
{
    uint8_t *flags = flags_of(n, s);
    if (flags)
        *flags = NODE_PRESENCE_HERE;
    update(n, session_user(&n->registry, s));
    tell_typing(n, s);
}

/* ---- watching ---- */

/* Whoever shares a chat with somebody may see whether they are there. */
static bool may_see(const struct node *n, const struct user *a, const struct user *b)
{
    const struct user *few = a->chats_n <= b->chats_n ? a : b;
    for (uint32_t i = 0; a != b && i < few->chats_n; i++) {
        const struct chat *c = registry_user_chat(&n->registry, few, i);
        if (chat_is_member(c, a->id) && chat_is_member(c, b->id))
            return true;
    }
    return a == b;
}

static enum presence_state state_of(struct node *n, const struct user *u, uint64_t *seen_s)
{
    enum presence_state state = presence_get(&n->presence.states, slab_number(&n->registry.users, u), seen_s);
    if (state == PRESENCE_UNKNOWN && n->presence.settled)
        state = PRESENCE_OFFLINE;
    if (state != PRESENCE_OFFLINE)
        *seen_s = 0;
    return state;
}

static void tell_state(struct node *n, struct session *s, uint64_t user, enum presence_state state,
                       uint64_t seen_s)
{
    struct msg m = {.t = MSG_PRESENCE,
                    .user = user,
                    .code = slice_of(presence_state_name(state)),
                    .since = state == PRESENCE_OFFLINE ? seen_s : 0};
    delivery_send(&n->delivery, s, &m);
    n->counters.presence_told++;
}

void node_watch(struct node *n, struct session *s, const struct msg *m)
{
    uint32_t number = session_number(&n->registry, s), list[PRESENCE_WATCH_MAX], count = 0;
    uint8_t *flags = flags_of(n, s);
    const struct user *me = session_user(&n->registry, s);
    if (m->users_n > PRESENCE_WATCH_MAX || !flags) {
        session_error(n, s, flags ? PROTO_LIMIT : PROTO_OVERLOADED, m, 1000,
                      flags ? "a session may watch 256 users" : NULL);
        return;
    }
    for (uint32_t i = 0; i < m->users_n; i++) {
        const struct user *u = registry_user(&n->registry, m->users[i]);
        uint32_t user = u ? slab_number(&n->registry.users, u) : 0, k = 0;
        while (k < count && list[k] != user)
            k++;
        uint64_t seen_s = 0;
        enum presence_state state = PRESENCE_UNKNOWN;
        if (u && may_see(n, me, u)) {
            state = state_of(n, u, &seen_s);
            if (state == PRESENCE_OFFLINE && !seen_s) /* never came: what a flush compares with */
                presence_set(&n->presence.states, user, state, 0);
            if (k == count)
                list[count++] = user;
        }
        tell_state(n, s, m->users[i], state, seen_s);
    }
    if (presence_watch(&n->presence.states, number, list, count))
        session_error(n, s, PROTO_OVERLOADED, m, 1000, NULL);
    *flags = (uint8_t)((*flags & ~NODE_PRESENCE_WATCHES) |
                       (presence_watching(&n->presence.states, number) ? NODE_PRESENCE_WATCHES : 0));
}

static void tell_watcher(void *arg, uint32_t session, uint32_t user, enum presence_state state, uint64_t at_s)
{
    struct node *n = arg;
    struct session *s = registry_session(&n->registry, session);
    const struct user *u = slab_at(&n->registry.users, user);
    if (s->state == SESSION_READY && may_see(n, session_user(&n->registry, s), u))
        tell_state(n, s, u->id, state, at_s);
}

void node_presence_tick(struct node *n)
{
    struct node_presence *p = &n->presence;
    uint64_t now = n->io.now.mono_ns;
    if (!p->began_ns)
        p->began_ns = now;
    end_lingering(n);
    typing_expire(&p->typing, n->io.now.wall_us, EXPIRES_A_TICK);
    if (!p->settled && now - p->began_ns >= 3ull * n->config.beat_s * NS_PER_S) {
        p->settled = true;
        presence_settle(&p->states);
    }
    if (now - p->flushed_ns < NODE_PRESENCE_FLUSH_NS)
        return;
    p->flushed_ns = now;
    presence_flush(&p->states, NODE_PRESENCE_BUDGET, tell_watcher, n);
}

/* ---- HTTP ---- */

static void add_state(struct node *n, struct buf *b, uint64_t user, const struct user *me)
{
    const struct user *u = registry_user(&n->registry, user);
    uint64_t seen_s = 0;
    enum presence_state state = PRESENCE_UNKNOWN;
    if (u && (!me || may_see(n, me, u)))
        state = state_of(n, u, &seen_s);
    buf_printf(b, "{\"user\":\"%llu\",\"state\":\"%s\"", (unsigned long long)user,
               presence_state_name(state));
    if (seen_s)
        buf_printf(b, ",\"seen\":%llu", (unsigned long long)seen_s);
    buf_char(b, '}');
}

static void reply(struct node *n, uint64_t request, struct buf *b)
{
    struct shared_frame *f = b->failed ? NULL : shared_frame_new(b->data, b->len);
    buf_release(b);
    if (!f) {
        node_http_error(n, request, 503, PROTO_OVERLOADED);
        return;
    }
    struct effect e = {.kind = EFFECT_HTTP_REPLY, .request = request, .code = 200, .frame = f};
    n->io.emit(n->io.arg, &e);
    shared_frame_unref(f);
}

void node_presence_http(struct node *n, const struct node_event *e)
{
    struct token token;
    struct buf b = BUF_INIT(1u << 16);
    int rc = token_verify(n->config.keys, e->data, e->len, e->now.wall_us / 1000000, &token, NULL);
    if (rc) {
        node_http_error(n, e->request, 401, rc == ERR_TIMEOUT ? PROTO_TOKEN_EXPIRED : PROTO_UNAUTHENTICATED);
    } else if (e->kind == NODE_TYPING) {
        enum proto_error error = token.user == e->user ? types(n, e->user, e->chat, 0) : PROTO_NOT_ALLOWED;
        if (error != PROTO_ERROR_COUNT) {
            node_http_error(n, e->request, error == PROTO_NO_SUCH_CHAT ? 404 : 403, error);
            return;
        }
        buf_printf(&b, "{\"chat\":\"%llu\",\"until\":%llu}\n", (unsigned long long)e->chat,
                   (unsigned long long)until(n, 0));
        reply(n, e->request, &b);
    } else {
        const struct user *me = registry_user(&n->registry, token.user);
        bool all = token.role == ROLE_OPERATOR;
        buf_str(&b, "{\"users\":[");
        for (uint32_t i = 0; i < e->users_n; i++) {
            if (i)
                buf_char(&b, ',');
            add_state(n, &b, me || all ? e->users[i] : 0, all ? NULL : me);
        }
        buf_str(&b, "]}\n");
        reply(n, e->request, &b);
    }
}
