#include "core/registry.h"

#include <stdlib.h>
#include <string.h>

#include "core/session.h"
#include "util/huge.h"
#include "util/map.h"

void registry_init(struct registry *r, uint64_t seed)
{
    *r = (struct registry){.members_max = 100000, .chats_max = 4096};
    slab_init(&r->users, sizeof(struct user), REGISTRY_MAX);
    slab_init(&r->chats, sizeof(struct chat), REGISTRY_MAX);
    slab_init(&r->subs, sizeof(struct sub), REGISTRY_MAX);
    slab_init(&r->sessions, sizeof(struct session), REGISTRY_MAX);
    slab_init(&r->extras, sizeof(struct session_extra), REGISTRY_MAX);
    r->user_index.seed = seed;
    r->chat_index.seed = seed + 1;
}

void registry_release(struct registry *r)
{
    for (uint32_t i = 1; i <= slab_top(&r->users); i++) {
        struct user *u = slab_at(&r->users, i);
        if (u->chats_cap)
            free(u->chats.many);
    }
    for (uint32_t i = 1; i <= slab_top(&r->chats); i++) {
        struct chat *c = slab_at(&r->chats, i);
        free(c->members);
        free(c->subs);
    }
    slab_release(&r->users);
    slab_release(&r->chats);
    slab_release(&r->subs);
    slab_release(&r->sessions);
    slab_release(&r->extras);
    free(r->user_index.at);
    free(r->chat_index.at);
}

/* Where the number of `id` stands, or would. */
static uint32_t *place(const struct id_index *x, const struct slab *p, uint64_t id)
{
    for (uint64_t i = hash_bytes(&id, sizeof id, x->seed);; i++) {
        uint32_t *at = &x->at[i & (x->cap - 1)];
        if (!*at || *(const uint64_t *)slab_at(p, *at) == id)
            return at;
    }
}

static void *find(const struct id_index *x, const struct slab *p, uint64_t id)
{
    uint32_t number = x->count ? *place(x, p, id) : 0;
    return number ? slab_at(p, number) : NULL;
}

/* At most three quarters full: 5.3 to 10.7 bytes a number. */
static int make_room(struct id_index *x, const struct slab *p)
{
    if ((uint64_t)(x->count + 1) * 4 <= (uint64_t)x->cap * 3)
        return 0;
    struct id_index more = {.cap = x->cap ? x->cap * 2 : 16, .count = x->count, .seed = x->seed};
    more.at = calloc(more.cap, sizeof *more.at);
    if (!more.at)
        return ERR_NOMEM;
    huge_hint(more.at, more.cap * sizeof *more.at);
    for (uint32_t i = 0; i < x->cap; i++)
        if (x->at[i])
            *place(&more, p, *(const uint64_t *)slab_at(p, x->at[i])) = x->at[i];
    free(x->at);
    *x = more;
    return 0;
}

static void *make(struct id_index *x, struct slab *p, uint64_t id)
{
    void *found = find(x, p, id);
    if (found)
        return found;
    if (make_room(x, p) || !(found = slab_take(p)))
        return NULL;
    memcpy(found, &id, sizeof id); /* both structs begin with their id */
    *place(x, p, id) = slab_number(p, found);
    x->count++;
    return found;
}

struct chat *registry_chat(const struct registry *r, uint64_t id)
{
    return find(&r->chat_index, &r->chats, id);
}

struct user *registry_user(const struct registry *r, uint64_t id)
{
    return find(&r->user_index, &r->users, id);
}

struct chat *registry_chat_make(struct registry *r, uint64_t id)
{
    return make(&r->chat_index, &r->chats, id);
}

struct user *registry_user_make(struct registry *r, uint64_t id)
{
    return make(&r->user_index, &r->users, id);
}

/* Index of the first member >= user. */
static uint32_t lower_bound(const struct chat *c, uint64_t user)
{
    uint32_t lo = 0, hi = c->members_n;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (c->members[mid].user < user)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

struct member *chat_member(const struct chat *c, uint64_t user)
{
    uint32_t i = lower_bound(c, user);
    return i < c->members_n && c->members[i].user == user ? &c->members[i] : NULL;
}

bool chat_is_member(const struct chat *c, uint64_t user)
{
    const struct member *m = chat_member(c, user);
    return m && m->role != MEMBER_INVITED;
}

/* Lists grow by a half: most stay at what they were given at first. */
static int grow(void **list, uint32_t *cap, uint32_t n, size_t size)
{
    if (n < *cap)
        return 0;
    uint32_t want = *cap ? *cap + *cap / 2 + 1 : 4;
    void *p = realloc(*list, want * size);
    if (!p)
        return ERR_NOMEM;
    *list = p;
    *cap = want;
    return 0;
}

void registry_members_reserve(struct chat *c, uint32_t n)
{
    n = n < c->members_n ? c->members_n : n;
    struct member *p = n && n != c->members_cap ? realloc(c->members, n * sizeof *p) : NULL;
    if (!p)
        return;
    c->members = p;
    c->members_cap = n;
}

void registry_trim(struct registry *r)
{
    for (uint32_t i = 1; i <= slab_top(&r->chats); i++)
        registry_members_reserve(slab_at(&r->chats, i), 0);
}

/* The first chat stands in the user itself. */
static int user_chat_add(struct user *u, uint32_t chat)
{
    if (!u->chats_cap && !u->chats_n) {
        u->chats.one = chat;
        u->chats_n = 1;
        return 0;
    }
    if (!u->chats_cap) {
        uint32_t one = u->chats.one, *many = malloc(4 * sizeof *many);
        if (!many)
            return ERR_NOMEM;
        many[0] = one;
        u->chats.many = many;
        u->chats_cap = 4;
    }
    if (u->chats_n == u->chats_cap) {
        uint32_t cap = u->chats_cap * 2u < UINT16_MAX ? u->chats_cap * 2u : UINT16_MAX;
        uint32_t *many = cap > u->chats_n ? realloc(u->chats.many, cap * sizeof *many) : NULL;
        if (!many)
            return ERR_NOMEM;
        u->chats.many = many;
        u->chats_cap = (uint16_t)cap;
    }
    u->chats.many[u->chats_n++] = chat;
    return 0;
}

static void user_chat_drop(struct user *u, uint32_t chat)
{
    uint32_t *list = u->chats_cap ? u->chats.many : &u->chats.one;
    for (uint32_t k = 0; k < u->chats_n; k++)
        if (list[k] == chat) {
            list[k] = list[--u->chats_n];
            return;
        }
}

int registry_member_set(struct registry *r, struct chat *c, uint64_t user, uint64_t from,
                        enum member_role role)
{
    uint32_t i = lower_bound(c, user);
    if (i < c->members_n && c->members[i].user == user) {
        c->members[i].from = from;
        c->members[i].role = role;
        return 0;
    }
    struct user *u = registry_user_make(r, user);
    if (!u)
        return ERR_NOMEM;
    if (c->members_n >= r->members_max || u->chats_n >= r->chats_max || u->chats_n == UINT16_MAX)
        return ERR_LIMIT;
    if (grow((void **)&c->members, &c->members_cap, c->members_n, sizeof *c->members) ||
        user_chat_add(u, slab_number(&r->chats, c)))
        return ERR_NOMEM;
    memmove(c->members + i + 1, c->members + i, (c->members_n - i) * sizeof *c->members);
    c->members[i] = (struct member){.user = user, .from = from, .role = role};
    c->members_n++;
    return 0;
}

void registry_member_drop(struct registry *r, struct chat *c, uint64_t user)
{
    uint32_t i = lower_bound(c, user);
    if (i >= c->members_n || c->members[i].user != user)
        return;
    memmove(c->members + i, c->members + i + 1, (c->members_n - i - 1) * sizeof *c->members);
    c->members_n--;
    struct user *u = registry_user(r, user);
    if (u)
        user_chat_drop(u, slab_number(&r->chats, c));
}

int chat_sub_add(struct registry *r, struct chat *c, struct sub *s)
{
    if (!c->subs_cap && c->members_n > 1 && c->members_n <= 1024) { /* most members are online, or none */
        c->subs = malloc(c->members_n * sizeof *c->subs);
        c->subs_cap = c->subs ? c->members_n : 0;
    }
    if (grow((void **)&c->subs, &c->subs_cap, c->subs_n, sizeof *c->subs))
        return ERR_NOMEM;
    s->at = c->subs_n;
    c->subs[c->subs_n++] = slab_number(&r->subs, s);
    return 0;
}

void chat_sub_drop(struct registry *r, struct chat *c, struct sub *s)
{
    uint32_t last = c->subs[--c->subs_n];
    c->subs[s->at] = last;
    ((struct sub *)slab_at(&r->subs, last))->at = s->at;
}
