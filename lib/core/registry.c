#include "core/registry.h"

#include <stdlib.h>
#include <string.h>

void registry_init(struct registry *r, uint64_t seed)
{
    *r = (struct registry){.members_max = 100000, .chats_max = 4096};
    map_init(&r->users, 8, 8, 100000000, seed);
    map_init(&r->chats, 8, 8, 100000000, seed + 1);
}

void registry_release(struct registry *r)
{
    size_t at = 0;
    void *v;
    while (map_next(&r->users, &at, NULL, &v)) {
        struct user *u = *(void **)v;
        free(u->chats);
        free(u);
    }
    at = 0;
    while (map_next(&r->chats, &at, NULL, &v)) {
        struct chat *c = *(void **)v;
        free(c->members);
        free(c->subs);
        free(c);
    }
    map_release(&r->users);
    map_release(&r->chats);
}

struct chat *registry_chat(const struct registry *r, uint64_t id)
{
    return map_get_ptr(&r->chats, id);
}

struct user *registry_user(const struct registry *r, uint64_t id)
{
    return map_get_ptr(&r->users, id);
}

static void *make(struct map *m, uint64_t id, size_t size)
{
    bool fresh;
    void **slot = map_put_u64(m, id, &fresh);
    if (!slot)
        return NULL;
    if (fresh) {
        *slot = calloc(1, size);
        if (!*slot) {
            map_del_u64(m, id);
            return NULL;
        }
        memcpy(*slot, &id, sizeof id); /* both structs begin with their id */
    }
    return *slot;
}

struct chat *registry_chat_make(struct registry *r, uint64_t id)
{
    return make(&r->chats, id, sizeof(struct chat));
}

struct user *registry_user_make(struct registry *r, uint64_t id)
{
    return make(&r->users, id, sizeof(struct user));
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

static int grow(void **list, uint32_t *cap, uint32_t n, size_t size)
{
    if (n < *cap)
        return 0;
    uint32_t want = *cap ? *cap * 2 : 4;
    void *p = realloc(*list, want * size);
    if (!p)
        return ERR_NOMEM;
    *list = p;
    *cap = want;
    return 0;
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
    if (c->members_n >= r->members_max || u->chats_n >= r->chats_max)
        return ERR_LIMIT;
    if (grow((void **)&c->members, &c->members_cap, c->members_n, sizeof *c->members) ||
        grow((void **)&u->chats, &u->chats_cap, u->chats_n, sizeof *u->chats))
        return ERR_NOMEM;
    memmove(c->members + i + 1, c->members + i, (c->members_n - i) * sizeof *c->members);
    c->members[i] = (struct member){.user = user, .from = from, .role = role};
    c->members_n++;
    u->chats[u->chats_n++] = c;
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
    for (uint32_t k = 0; u && k < u->chats_n; k++)
        if (u->chats[k] == c) {
            u->chats[k] = u->chats[--u->chats_n];
            break;
        }
}

int chat_sub_add(struct chat *c, struct sub *s)
{
    if (grow((void **)&c->subs, &c->subs_cap, c->subs_n, sizeof *c->subs))
        return ERR_NOMEM;
    s->at = c->subs_n;
    c->subs[c->subs_n++] = s;
    return 0;
}

void chat_sub_drop(struct chat *c, struct sub *s)
{
    struct sub *last = c->subs[--c->subs_n];
    c->subs[s->at] = last;
    last->at = s->at;
}
