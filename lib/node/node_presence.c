/* Presence: sessions come and go, people type and watch. Whoever becomes ready is told what holds now; no
 * event is ever kept for somebody who is away (but in the legacy mode, which is how incident 3 came about).
 */
#include "node/node_bus.h"
#include "node/node_impl.h"
#include "util/mutant.h"

#include <stdlib.h>
#include <string.h>

#define EXPIRES_A_TICK 10000u

void node_presence_init(struct node *n, uint64_t seed)
{
    presence_init(&n->presence.states, seed);
    typing_init(&n->presence.typing, seed);
    node_shared_init(n, seed);
    n->presence.typing.keeps = n->config.presence_legacy || MUTANT(TYPING_REPLAYED);
}

void node_presence_release(struct node *n)
{
    struct node_presence *p = &n->presence;
    node_shared_release(n);
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
    uint32_t early = NODE_PRESENCE_EARLY_MS + (n->config.presence_shared ? NODE_PRESENCE_SHARED_MS : 0);
    return three > 2 * early ? three - early : three;
}

/* ---- a user is what their best session is ---- */

enum presence_state node_presence_best(const struct node *n, const struct user *u)
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

/* Who is not here may be at another node, and nothing is shared that would tell. */
static bool is_guess(const struct node *n)
{
    return n->bus && !n->config.presence_shared;
}

/* What this node knows by itself; others are told through the shared copy. */
static void set_state(struct node *n, uint32_t user, enum presence_state state, uint64_t at_s)
{
    struct presence *p = &n->presence.states;
    if (state == PRESENCE_OFFLINE && is_guess(n))
        state = PRESENCE_UNKNOWN;
    bool news = presence_get(p, user, NULL) != state || node_shared_is_foreign(n, user);
    presence_set(p, user, state, at_s);
    if (news)
        node_shared_changed(n, user, state, at_s);
}

/* True: somebody is there. */
static bool update(struct node *n, const struct user *u)
{
    enum presence_state state = node_presence_best(n, u);
    if (state == PRESENCE_OFFLINE)
        return false;
    set_state(n, slab_number(&n->registry.users, u), state, n->io.now.wall_us / 1000000);
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
        if (node_presence_best(n, slab_at(&n->registry.users, l->user)) == PRESENCE_OFFLINE)
            set_state(n, l->user, PRESENCE_OFFLINE, l->seen_s);
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
        set_state(n, s->user, PRESENCE_OFFLINE, heard_s(n, s));
}

void node_presence_silent(struct node *n, struct session *s)
{
    uint8_t *flags = s->state == SESSION_READY ? flags_of(n, s) : NULL;
    if (!flags || !(*flags & NODE_PRESENCE_HERE) || MUTANT(SILENCE_UNSEEN))
        return;
    *flags = (uint8_t)((*flags & ~NODE_PRESENCE_HERE) | NODE_PRESENCE_SILENT);
    if (!update(n, session_user(&n->registry, s)))
        set_state(n, s->user, PRESENCE_OFFLINE, heard_s(n, s));
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
                   n->io.now.mono_ns / NS_PER_MS) == TYPING_TOLD) {
        tell_chat(n, c, user, until_us);
        node_shared_typed(n, chat, user, until_us, false);
    }
    return PROTO_ERROR_COUNT;
}

void node_presence_heard_typing(struct node *n, const struct shared_typing *t)
{
    const struct chat *c = registry_chat(&n->registry, t->chat);
    uint64_t now_us = n->io.now.wall_us;
    if (!c || (t->unchecked && !t->quiet)) {
        if (c && t->until_us > TYPING_FOR_US && node_owns(n, t->chat)) /* it has all members: it may speak */
            types(n, t->user, t->chat, t->until_us - TYPING_FOR_US);
        return;
    }
    const struct user *u =
        t->quiet ? registry_user(&n->registry, t->user) : registry_user_make(&n->registry, t->user);
    if (!u)
        return;
    uint32_t chat = slab_number(&n->registry.chats, c), user = slab_number(&n->registry.users, u);
    uint64_t until_us = typing_until(&n->presence.typing, chat, user, 0), most = now_us + TYPING_FOR_US;
    if (t->quiet) {
        if (until_us && until_us <= t->until_us)
            typing_clear(&n->presence.typing, chat, user);
        return;
    }
    until_us = t->until_us < most ? t->until_us : most; /* whatever the clock is where it was said */
    if (until_us > now_us &&
        typing_set(&n->presence.typing, chat, user, until_us, n->io.now.mono_ns / NS_PER_MS) == TYPING_TOLD)
        tell_chat(n, c, t->user, until_us);
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
    if (!until_us || until_us - TYPING_FOR_US > ts_us) /* they may type on while it was being committed */
        return;
    typing_clear(&n->presence.typing, chat, number);
    node_shared_quiet(n, c->id, user, until_us);
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

/* What other nodes were told before this one knew the chat. */
static void ask_typing(struct node *n, const struct session *s)
{
    const struct user *u = session_user(&n->registry, s);
    for (uint32_t i = 0; n->presence.shared.up && i < u->chats_n; i++) {
        const struct chat *c = registry_user_chat(&n->registry, u, i);
        if (chat_is_member(c, u->id))
            node_shared_ask_typists(n, c);
    }
}

void node_presence_ready(struct node *n, struct session *s)
{
    uint8_t *flags = flags_of(n, s);
    if (flags)
        *flags = NODE_PRESENCE_HERE;
    update(n, session_user(&n->registry, s));
    tell_typing(n, s);
    ask_typing(n, s);
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
    bool shared = n->config.presence_shared;
    if (shared && node_shared_is_foreign(n, slab_number(&n->registry.users, u)) && !node_shared_trusted(n))
        state = PRESENCE_UNKNOWN;
    if (state == PRESENCE_UNKNOWN && n->presence.settled && !shared && !is_guess(n))
        state = PRESENCE_OFFLINE;
    if (state != PRESENCE_OFFLINE)
        *seen_s = 0;
    return state;
}

/* What the shared copy said of somebody whom nobody watched since may have been true then. */
static enum presence_state stale(struct node *n, uint32_t user, enum presence_state state)
{
    struct presence *p = &n->presence.states;
    if (!node_shared_is_foreign(n, user) || presence_is_watched(p, user))
        return state;
    presence_set(p, user, PRESENCE_UNKNOWN, 0);
    return PRESENCE_UNKNOWN;
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
            if (n->presence.shared.on && node_presence_best(n, u) == PRESENCE_OFFLINE) {
                state = stale(n, user, state);
                node_shared_ask(n, u->id); /* who is not here may be elsewhere: the answer follows */
            }
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
    bool may = may_see(n, session_user(&n->registry, s), u);
    if (s->state == SESSION_READY) /* who shares no chat any more is not left with what was true once */
        tell_state(n, s, u->id, may ? state : PRESENCE_UNKNOWN, may ? at_s : 0);
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
        if (!p->shared.on && !is_guess(n)) /* else it is the shared copy that knows who never came */
            presence_settle(&p->states);
    }
    bool flush = now - p->flushed_ns >= NODE_PRESENCE_FLUSH_NS;
    node_shared_tick(n, flush);
    if (!flush)
        return;
    p->flushed_ns = now;
    presence_flush(&p->states, NODE_PRESENCE_BUDGET, tell_watcher, n);
}

/* ---- HTTP ---- */

struct asking {
    uint64_t me;
    bool all; /* an operator */
    const struct shared_news *answer;
    bool best_effort;
};

static bool may_ask(const struct node *n, const struct asking *a, uint64_t user)
{
    const struct user *u = registry_user(&n->registry, user), *me = registry_user(&n->registry, a->me);
    if (a->all || n->config.presence_only)
        return a->all || user == a->me; /* without chats nobody knows who shares one */
    return u && me && may_see(n, me, u);
}

/* Does this node know, without asking? */
static bool is_known(const struct node *n, uint64_t user)
{
    const struct user *u = registry_user(&n->registry, user);
    return !n->config.presence_shared || (u && node_presence_best(n, u) != PRESENCE_OFFLINE);
}

static enum presence_state answered(struct node *n, struct asking *a, uint64_t user, uint64_t *seen_s)
{
    const struct user *u = registry_user(&n->registry, user);
    if (is_known(n, user))
        return u ? state_of(n, u, seen_s) : PRESENCE_UNKNOWN;
    const struct shared_state *found = NULL;
    for (uint32_t i = 0; a->answer && i < a->answer->n && !found; i++)
        if (a->answer->states[i].user == user)
            found = &a->answer->states[i];
    a->best_effort |= !found || found->doubted;
    if (found && (found->state != PRESENCE_UNKNOWN || found->doubted)) {
        *seen_s = found->state == PRESENCE_OFFLINE ? found->at_s : 0;
        return found->state;
    }
    if (u) /* what we know ourselves, which may not have been written yet */
        return state_of(n, u, seen_s);
    return PRESENCE_UNKNOWN;
}

static void add_state(struct node *n, struct buf *b, struct asking *a, uint64_t user)
{
    uint64_t seen_s = 0;
    enum presence_state state = may_ask(n, a, user) ? answered(n, a, user, &seen_s) : PRESENCE_UNKNOWN;
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

void node_presence_reply(struct node *n, uint64_t http, uint64_t me, bool all, const uint64_t *users,
                         uint32_t users_n, const struct shared_news *answer)
{
    struct buf b = BUF_INIT(1u << 16);
    struct asking a = {.me = me, .all = all, .answer = answer};
    buf_str(&b, "{\"users\":[");
    for (uint32_t i = 0; i < users_n; i++) {
        if (i)
            buf_char(&b, ',');
        add_state(n, &b, &a, users[i]);
    }
    buf_str(&b, a.best_effort ? "],\"best_effort\":true}\n" : "]}\n");
    n->counters.presence_best_effort += a.best_effort;
    reply(n, http, &b);
}

/* True: the shared copy is asked about those whom this node does not know. */
static bool ask_shared(struct node *n, const struct node_event *e, const struct asking *a)
{
    uint64_t ids[NODE_PRESENCE_USERS];
    uint32_t count = 0;
    for (uint32_t i = 0; n->presence.shared.up && i < e->users_n && i < NODE_PRESENCE_USERS; i++)
        if (may_ask(n, a, e->users[i]) && !is_known(n, e->users[i]))
            ids[count++] = e->users[i];
    return count && node_shared_wait(n, e->request, a->me, a->all, e->users, e->users_n, ids, count);
}

static void typing_http(struct node *n, const struct node_event *e, uint64_t who)
{
    struct buf b = BUF_INIT(256);
    bool only = n->config.presence_only;
    enum proto_error error = who != e->user                   ? PROTO_NOT_ALLOWED
                             : only && !n->presence.shared.up ? PROTO_OVERLOADED
                             : only                           ? PROTO_ERROR_COUNT
                                                              : types(n, e->user, e->chat, 0);
    if (error != PROTO_ERROR_COUNT) {
        node_http_error(n, e->request,
                        error == PROTO_NO_SUCH_CHAT ? 404
                        : error == PROTO_OVERLOADED ? 503
                                                    : 403,
                        error);
        return;
    }
    if (only) { /* the chat's node looks whether they are in it */
        n->counters.typing++;
        node_shared_typed(n, e->chat, e->user, until(n, 0), true);
    }
    buf_printf(&b, "{\"chat\":\"%llu\",\"until\":%llu%s}\n", (unsigned long long)e->chat,
               (unsigned long long)until(n, 0), only ? ",\"best_effort\":true" : "");
    reply(n, e->request, &b);
}

void node_presence_http(struct node *n, const struct node_event *e)
{
    struct token token;
    int rc = token_verify(n->config.keys, e->data, e->len, e->now.wall_us / 1000000, &token, NULL);
    struct asking a = {.me = token.user, .all = !rc && token.role == ROLE_OPERATOR};
    if (rc)
        node_http_error(n, e->request, 401, rc == ERR_TIMEOUT ? PROTO_TOKEN_EXPIRED : PROTO_UNAUTHENTICATED);
    else if (e->kind == NODE_TYPING)
        typing_http(n, e, token.user);
    else if (!ask_shared(n, e, &a))
        node_presence_reply(n, e->request, a.me, a.all, e->users, e->users_n, NULL);
}
