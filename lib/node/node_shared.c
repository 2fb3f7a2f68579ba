/* What this node shares of presence: batches out, answers in. */
#include <stdlib.h>
#include <string.h>

#include "node/node_impl.h"

#define BITS_PAGE 4096u /* users in a page of bits */
#define ALSO_MAX  (1u << 20)

void node_shared_init(struct node *n, uint64_t seed)
{
    struct node_shared *s = &n->presence.shared;
    s->on = n->config.presence_shared;
    map_init(&s->also, 8, 8, ALSO_MAX, seed);
}

void node_shared_release(struct node *n)
{
    struct node_shared *s = &n->presence.shared;
    for (uint32_t i = 0; i < s->foreign_n; i++)
        free(s->foreign[i]);
    for (uint32_t i = 0; i < s->waiting_n; i++)
        free(s->waiting[i]);
    free(s->foreign);
    free(s->waiting);
    free(s->put);
    free(s->typing);
    free(s->asked);
    free(s->chats);
    map_release(&s->also);
}

/* ---- orders ---- */

static void order(struct node *n, struct shared_order *o)
{
    struct node_shared *s = &n->presence.shared;
    o->request = ++s->request;
    if (!s->up) {
        n->counters.presence_lost++;
        return;
    }
    n->config.emit(n->config.arg, &(struct effect){.kind = EFFECT_SHARED, .order = o});
}

/* Room for one more; false: no memory, and it is not said. */
static bool grow(void **at, uint32_t n, uint32_t *cap, size_t size)
{
    if (n < *cap)
        return true;
    uint32_t more = *cap ? *cap * 2 : 64;
    void *p = realloc(*at, more * size);
    if (p) {
        *at = p;
        *cap = more;
    }
    return p != NULL;
}

static void flush_puts(struct node *n)
{
    struct node_shared *s = &n->presence.shared;
    for (uint32_t i = 0; i < s->put_n; i += SHARED_ORDER_MAX) {
        uint32_t some = s->put_n - i < SHARED_ORDER_MAX ? s->put_n - i : SHARED_ORDER_MAX;
        order(n, &(struct shared_order){.op = SHARED_PUT, .n = some, .states = s->put + i});
        n->counters.presence_shared += some;
    }
    s->put_n = 0;
}

static void flush_typing(struct node *n)
{
    struct node_shared *s = &n->presence.shared;
    for (uint32_t i = 0; i < s->typing_n; i += SHARED_ORDER_MAX) {
        uint32_t some = s->typing_n - i < SHARED_ORDER_MAX ? s->typing_n - i : SHARED_ORDER_MAX;
        order(n, &(struct shared_order){.op = SHARED_TYPE, .n = some, .typing = s->typing + i});
    }
    s->typing_n = 0;
}

static void flush_ids(struct node *n, enum shared_op op, const uint64_t *ids, uint32_t *count)
{
    for (uint32_t i = 0; i < *count; i += SHARED_ORDER_MAX) {
        uint32_t some = *count - i < SHARED_ORDER_MAX ? *count - i : SHARED_ORDER_MAX;
        order(n, &(struct shared_order){.op = op, .n = some, .ids = ids + i});
    }
    *count = 0;
}

/* ---- what is foreign ---- */

static void mark_foreign(struct node *n, uint32_t user, bool foreign)
{
    struct node_shared *s = &n->presence.shared;
    uint32_t page = user / BITS_PAGE, at = user % BITS_PAGE;
    if (page >= s->foreign_n) {
        uint64_t **pages = foreign ? realloc(s->foreign, (page + 1) * sizeof *pages) : NULL;
        if (!pages)
            return;
        memset(pages + s->foreign_n, 0, (page + 1 - s->foreign_n) * sizeof *pages);
        s->foreign = pages;
        s->foreign_n = page + 1;
    }
    if (!s->foreign[page] && (!foreign || !(s->foreign[page] = calloc(BITS_PAGE / 64, 8))))
        return;
    uint64_t bit = 1ull << at % 64;
    s->foreign[page][at / 64] = foreign ? s->foreign[page][at / 64] | bit : s->foreign[page][at / 64] & ~bit;
}

static bool is_foreign(const struct node *n, uint32_t user)
{
    const struct node_shared *s = &n->presence.shared;
    uint32_t page = user / BITS_PAGE, at = user % BITS_PAGE;
    return page < s->foreign_n && s->foreign[page] && s->foreign[page][at / 64] >> at % 64 & 1;
}

bool node_shared_is_foreign(const struct node *n, uint32_t user)
{
    return is_foreign(n, user) || presence_get(&n->presence.states, user, NULL) == PRESENCE_UNKNOWN;
}

bool node_shared_trusted(const struct node *n)
{
    const struct node_shared *s = &n->presence.shared;
    return s->up && n->io.now.mono_ns - s->answered_ns < NODE_SHARED_TRUST_NS;
}

/* ---- what is said ---- */

static void put(struct node *n, const struct shared_state *state)
{
    struct node_shared *s = &n->presence.shared;
    if (!s->up) /* all are written when it is back */
        return;
    if (grow((void **)&s->put, s->put_n, &s->put_cap, sizeof *s->put))
        s->put[s->put_n++] = *state;
}

void node_shared_changed(struct node *n, uint32_t user, enum presence_state state, uint64_t at_s)
{
    if (!n->presence.shared.on)
        return;
    mark_foreign(n, user, false);
    const struct user *u = slab_at(&n->registry.users, user);
    put(n, &(struct shared_state){.user = u->id, .state = state, .at_s = at_s});
}

static void say_typing(struct node *n, const struct shared_typing *t)
{
    struct node_shared *s = &n->presence.shared;
    if (s->on && s->up && grow((void **)&s->typing, s->typing_n, &s->typing_cap, sizeof *s->typing))
        s->typing[s->typing_n++] = *t;
}

void node_shared_typed(struct node *n, uint64_t chat, uint64_t user, uint64_t until_us, bool unchecked)
{
    say_typing(
        n, &(struct shared_typing){.chat = chat, .user = user, .until_us = until_us, .unchecked = unchecked});
}

void node_shared_quiet(struct node *n, uint64_t chat, uint64_t user, uint64_t until_us)
{
    say_typing(n, &(struct shared_typing){.chat = chat, .user = user, .until_us = until_us, .quiet = true});
}

void node_shared_ask_typists(struct node *n, const struct chat *c)
{
    struct node_shared *s = &n->presence.shared;
    /* everybody who types says so again every 3 s, and all nodes that know the chat hear it */
    if (!s->on || !s->up || (c->subs_n > 1 && n->io.now.mono_ns - s->up_ns >= NODE_SHARED_SETTLE_NS))
        return;
    if (s->chats_n < NODE_SHARED_CHATS_MAX &&
        grow((void **)&s->chats, s->chats_n, &s->chats_cap, sizeof *s->chats))
        s->chats[s->chats_n++] = c->id;
}

void node_shared_ask(struct node *n, uint64_t user)
{
    struct node_shared *s = &n->presence.shared;
    if (s->on && s->up && grow((void **)&s->asked, s->asked_n, &s->asked_cap, sizeof *s->asked)) {
        s->asked[s->asked_n++] = user;
        n->counters.presence_asked++;
    }
}

bool node_shared_wait(struct node *n, uint64_t http, uint64_t me, bool all, const uint64_t *users,
                      uint32_t users_n, const uint64_t *ids, uint32_t ids_n)
{
    struct node_shared *s = &n->presence.shared;
    struct node_waiting *w = NULL;
    if (s->waiting_n < NODE_SHARED_HTTP_MAX &&
        grow((void **)&s->waiting, s->waiting_n, &s->waiting_cap, sizeof *s->waiting))
        w = malloc(sizeof *w + users_n * sizeof *users);
    if (!w)
        return false;
    *w = (struct node_waiting){.http = http,
                               .request = s->request + 1,
                               .due_ns = n->io.now.mono_ns + NODE_SHARED_HTTP_NS,
                               .me = me,
                               .all = all,
                               .users_n = users_n};
    memcpy(w->users, users, users_n * sizeof *users);
    s->waiting[s->waiting_n++] = w;
    order(n, &(struct shared_order){.op = SHARED_ASK, .n = ids_n, .ids = ids});
    n->counters.presence_asked += ids_n;
    return true;
}

/* ---- answers ---- */

static void believe(struct node *n, const struct shared_state *a)
{
    struct user *u = registry_user(&n->registry, a->user);
    struct shared_state s = *a;
    if (!u)
        return;
    uint32_t number = slab_number(&n->registry.users, u);
    enum presence_state here = node_presence_best(n, u);
    if (here == PRESENCE_ONLINE || here == PRESENCE_AWAY) {
        if (s.state != PRESENCE_ONLINE && s.state != here) /* another node has said something else */
            put(n, &(struct shared_state){.user = u->id, .state = here});
        return;
    }
    if (s.slot == n->config.place.self && s.slot != SHARED_NOBODY && !n->config.presence_only) {
        /* by our own word, which is older than what we know */
        uint64_t at_s;
        enum presence_state known = presence_get(&n->presence.states, number, &at_s);
        bool ours = !is_foreign(n, number) && known == PRESENCE_OFFLINE;
        if (!ours && !is_foreign(n, number) && known != PRESENCE_UNKNOWN)
            return; /* they left a moment ago */
        put(n, &(struct shared_state){.user = u->id,
                                      .state = PRESENCE_OFFLINE,
                                      .at_s = ours && at_s ? at_s : n->io.now.wall_us / 1000000});
        return;
    }
    if (s.doubted && n->io.now.mono_ns - n->presence.shared.up_ns < NODE_SHARED_SETTLE_NS)
        return; /* whoever vouches for them may be coming back, as we do */
    n->counters.presence_doubted += s.doubted;
    if (s.state == PRESENCE_UNKNOWN && !s.doubted) {
        if (!is_foreign(n, number))
            return; /* what we know ourselves was lost there, or never was there */
        if (n->presence.settled)
            s.state = PRESENCE_OFFLINE;
    }
    mark_foreign(n, number, true);
    presence_set(&n->presence.states, number, s.state, s.at_s);
}

static void forget_foreign(struct node *n)
{
    struct presence *p = &n->presence.states;
    uint32_t user;
    for (size_t at = 0; presence_next_watched(p, &at, &user);) {
        /* among others, who is not here may have come to another node meanwhile */
        bool guess = is_foreign(n, user) ||
                     (n->bus && node_presence_best(n, slab_at(&n->registry.users, user)) == PRESENCE_OFFLINE);
        if (!guess || presence_get(p, user, NULL) == PRESENCE_UNKNOWN)
            continue;
        n->counters.presence_doubted++;
        presence_set(p, user, PRESENCE_UNKNOWN, 0);
    }
}

static void waiting_done(struct node *n, uint32_t i, const struct shared_news *answer)
{
    struct node_shared *s = &n->presence.shared;
    struct node_waiting *w = s->waiting[i];
    s->waiting[i] = s->waiting[--s->waiting_n];
    node_presence_reply(n, w->http, w->me, w->all, w->users, w->users_n, answer);
    free(w);
}

static void on_states(struct node *n, const struct shared_news *news)
{
    struct node_shared *s = &n->presence.shared;
    s->answered_ns = n->io.now.mono_ns;
    s->forgotten = false;
    for (uint32_t i = 0; i < s->waiting_n; i++)
        if (s->waiting[i]->request == news->request) {
            waiting_done(n, i, news);
            return;
        }
    for (uint32_t i = 0; i < news->n; i++)
        believe(n, &news->states[i]);
}

static void on_also(struct node *n, const struct shared_news *news)
{
    for (uint32_t i = 0; i < news->n; i++) {
        const struct user *u = registry_user(&n->registry, news->ids[i]);
        if (u && u->sessions)
            map_put_u64(&n->presence.shared.also, news->ids[i], NULL);
    }
}

void node_shared_news(struct node *n, const struct shared_news *news)
{
    struct node_shared *s = &n->presence.shared;
    uint64_t now = n->io.now.mono_ns;
    switch (news->kind) {
    case SHARED_UP:
        s->up = true;
        s->up_ns = s->answered_ns = now;
        s->resync = s->resync_chat = 1;
        s->beat_ns = s->poll_ns = 0;
        break;
    case SHARED_DOWN:
        s->up = false;
        s->put_n = s->typing_n = s->asked_n = s->chats_n = 0;
        while (s->waiting_n)
            waiting_done(n, 0, NULL);
        break;
    case SHARED_STATES:
        on_states(n, news);
        break;
    case SHARED_TYPES:
        for (uint32_t i = 0; i < news->n; i++)
            node_presence_heard_typing(n, &news->typing[i]);
        break;
    case SHARED_ALSO:
        on_also(n, news);
        break;
    case SHARED_SWEPT:
        n->counters.presence_swept += news->n;
        break;
    }
}

/* ---- time ---- */

/* Some of what this node knows itself: who is here, and who was here last. */
static void resync(struct node *n)
{
    struct node_shared *s = &n->presence.shared;
    uint32_t top = slab_top(&n->registry.users);
    for (uint32_t k = 0; k < NODE_SHARED_RESYNC && s->resync; k++) {
        uint32_t number = s->resync;
        if (number > top) {
            s->resync = 0;
            break;
        }
        s->resync++;
        const struct user *u = slab_at(&n->registry.users, number);
        struct shared_state state = {.user = u->id};
        state.state = presence_get(&n->presence.states, number, &state.at_s);
        if (state.state != PRESENCE_UNKNOWN && !is_foreign(n, number))
            put(n, &state);
    }
}

/* Who typed while this node did not hear of it, in the chats that it serves. */
static void resync_typing(struct node *n)
{
    struct node_shared *s = &n->presence.shared;
    uint32_t top = slab_top(&n->registry.chats);
    for (uint32_t k = 0; k < NODE_SHARED_RESYNC && s->resync_chat; k++) {
        const struct chat *c = s->resync_chat <= top ? slab_at(&n->registry.chats, s->resync_chat) : NULL;
        s->resync_chat = c ? s->resync_chat + 1 : 0;
        if (c && c->id && c->subs_n)
            node_shared_ask_typists(n, c);
    }
}

/* What sessions here watch of users who are not here; and users who are at two nodes. */
static void poll(struct node *n)
{
    struct node_shared *s = &n->presence.shared;
    uint32_t number;
    for (size_t at = 0; presence_next_watched(&n->presence.states, &at, &number);) {
        const struct user *u = slab_at(&n->registry.users, number);
        if (node_presence_best(n, u) == PRESENCE_OFFLINE)
            node_shared_ask(n, u->id);
    }
    const void *id;
    uint64_t gone = 0;
    for (size_t at = 0; map_next(&s->also, &at, &id, NULL);) {
        const struct user *u = registry_user(&n->registry, *(const uint64_t *)id);
        if (u && u->sessions)
            node_shared_ask(n, u->id);
        else
            gone = *(const uint64_t *)id;
    }
    if (gone)
        map_del_u64(&s->also, gone);
    if (!s->asked_n) /* so that we know whether it answers */
        node_shared_ask(n, 0);
}

static void end_waiting(struct node *n)
{
    struct node_shared *s = &n->presence.shared;
    for (uint32_t i = s->waiting_n; i-- > 0;)
        if (n->io.now.mono_ns >= s->waiting[i]->due_ns) {
            n->counters.presence_doubted++;
            waiting_done(n, i, NULL);
        }
}

void node_shared_tick(struct node *n, bool flush)
{
    struct node_shared *s = &n->presence.shared;
    uint64_t now = n->io.now.mono_ns;
    if (!s->on)
        return;
    if (!s->sweep_ns)
        s->sweep_ns = now;
    end_waiting(n);
    if (!node_shared_trusted(n) && !s->forgotten) {
        s->forgotten = true;
        forget_foreign(n);
    }
    if (!s->up)
        return;
    if (!s->beat_ns || now - s->beat_ns >= NS_PER_S) {
        s->beat_ns = now;
        order(n, &(struct shared_order){.op = SHARED_BEAT});
    }
    if (now - s->sweep_ns >= NODE_SHARED_SWEEP_NS) {
        s->sweep_ns = now;
        order(n, &(struct shared_order){.op = SHARED_SWEEP});
    }
    flush_typing(n);
    if (flush) {
        resync(n);
        resync_typing(n);
    }
    if (flush || s->put_n >= SHARED_ORDER_MAX)
        flush_puts(n);
    if (!s->poll_ns || now - s->poll_ns >= NODE_SHARED_POLL_NS) {
        s->poll_ns = now;
        flush_puts(n); /* what is asked then knows of it */
        poll(n);
    }
    flush_ids(n, SHARED_ASK, s->asked, &s->asked_n);
    flush_ids(n, SHARED_TYPISTS, s->chats, &s->chats_n);
}
