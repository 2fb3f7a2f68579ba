#include "presence/presence.h"

#include <stdlib.h>
#include <string.h>

#define SECONDS_MASK 0x3FFFFFFFu

struct watch {
    uint32_t session, user;
    uint32_t next_of_session, next_of_user;
};
struct watched {
    uint32_t first;
    uint8_t told; /* enum presence_state */
    bool dirty;
    uint16_t unused;
};
struct watcher {
    uint32_t first, n;
};
_Static_assert(sizeof(struct watched) == 8 && sizeof(struct watcher) == 8, "a map's value");

static const char *const names[] = {"unknown", "online", "away", "offline"};

const char *presence_state_name(enum presence_state s)
{
    return names[s];
}

int presence_state_parse(enum presence_state *s, const char *p, size_t n)
{
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i]) == n && !memcmp(names[i], p, n)) {
            *s = (enum presence_state)i;
            return 0;
        }
    return ERR_INVALID;
}

void presence_init(struct presence *p, uint64_t seed)
{
    *p = (struct presence){0};
    slab_init(&p->watches, sizeof(struct watch), PRESENCE_WATCHES_MAX);
    map_init(&p->watched, 8, 8, PRESENCE_WATCHES_MAX, seed);
    map_init(&p->watchers, 8, 8, PRESENCE_WATCHES_MAX, seed);
}

void presence_release(struct presence *p)
{
    for (uint32_t i = 0; i < p->pages_n; i++)
        free(p->pages[i]);
    free(p->pages);
    free(p->dirty);
    slab_release(&p->watches);
    map_release(&p->watched);
    map_release(&p->watchers);
    *p = (struct presence){0};
}

/* ---- the table ---- */

static uint32_t *cell(struct presence *p, uint32_t user)
{
    uint32_t page = user / PRESENCE_PAGE;
    if (page >= p->pages_n) {
        uint32_t **pages = realloc(p->pages, (page + 1) * sizeof *pages);
        if (!pages)
            return NULL;
        memset(pages + p->pages_n, 0, (page + 1 - p->pages_n) * sizeof *pages);
        p->pages = pages;
        p->pages_n = page + 1;
    }
    if (!p->pages[page] && !(p->pages[page] = calloc(PRESENCE_PAGE, sizeof **p->pages)))
        return NULL;
    return &p->pages[page][user % PRESENCE_PAGE];
}

/* The ring grows to hold every watched user at most. */
static bool dirty_push(struct presence *p, uint32_t user)
{
    if (p->dirty_n == p->dirty_cap) {
        uint32_t cap = p->dirty_cap ? p->dirty_cap * 2 : 64;
        uint32_t *ring = malloc(cap * sizeof *ring);
        if (!ring)
            return false;
        for (uint32_t i = 0; i < p->dirty_n; i++)
            ring[i] = p->dirty[(p->dirty_first + i) % p->dirty_cap];
        free(p->dirty);
        p->dirty = ring;
        p->dirty_cap = cap;
        p->dirty_first = 0;
    }
    p->dirty[(p->dirty_first + p->dirty_n++) % p->dirty_cap] = user;
    return true;
}

int presence_set(struct presence *p, uint32_t user, enum presence_state s, uint64_t at_s)
{
    uint32_t *c = cell(p, user);
    if (!c)
        return ERR_NOMEM;
    enum presence_state before = (enum presence_state)(*c >> 30);
    uint32_t at = at_s > PRESENCE_BEGIN_S ? (uint32_t)(at_s - PRESENCE_BEGIN_S) & SECONDS_MASK : 0;
    *c = (uint32_t)s << 30 | at;
    if (before == s)
        return 0;
    p->changes++;
    struct watched *w = p->watched.count ? map_get_u64(&p->watched, user) : NULL;
    if (w && !w->dirty)
        w->dirty = dirty_push(p, user);
    return 0;
}

enum presence_state presence_get(const struct presence *p, uint32_t user, uint64_t *at_s)
{
    uint32_t page = user / PRESENCE_PAGE, at = user % PRESENCE_PAGE;
    uint32_t v = page < p->pages_n && p->pages[page] ? p->pages[page][at] : 0;
    if (at_s)
        *at_s = v & SECONDS_MASK ? (v & SECONDS_MASK) + (uint64_t)PRESENCE_BEGIN_S : 0;
    return (enum presence_state)(v >> 30);
}

/* ---- who watches ---- */

bool presence_is_watched(const struct presence *p, uint32_t user)
{
    const struct watched *w = p->watched.count ? map_get_u64(&p->watched, user) : NULL;
    return w && w->first;
}

bool presence_next_watched(const struct presence *p, size_t *at, uint32_t *user)
{
    const void *key;
    if (!map_next(&p->watched, at, &key, NULL))
        return false;
    *user = (uint32_t) * (const uint64_t *)key;
    return true;
}

void presence_settle(struct presence *p)
{
    size_t at = 0;
    const void *user;
    while (map_next(&p->watched, &at, &user, NULL)) {
        uint32_t u = (uint32_t) * (const uint64_t *)user;
        if (presence_get(p, u, NULL) == PRESENCE_UNKNOWN)
            presence_set(p, u, PRESENCE_OFFLINE, 0);
    }
}

static struct watch *watch_at(const struct presence *p, uint32_t number)
{
    return slab_at(&p->watches, number);
}

static void drop_watch(struct presence *p, uint32_t number)
{
    struct watch *w = watch_at(p, number);
    struct watched *d = map_get_u64(&p->watched, w->user);
    uint32_t *at = &d->first;
    while (*at != number)
        at = &watch_at(p, *at)->next_of_user;
    *at = w->next_of_user;
    if (!d->first && !d->dirty) /* a dirty one goes with its place in the ring */
        map_del_u64(&p->watched, w->user);
    slab_give(&p->watches, w);
}

static int add_watch(struct presence *p, struct watcher *r, uint32_t session, uint32_t user)
{
    bool fresh = false;
    struct watch *w = slab_take(&p->watches);
    struct watched *d = w ? map_put(&p->watched, &(uint64_t){user}, &fresh) : NULL;
    if (!d) {
        if (w)
            slab_give(&p->watches, w);
        return p->watches.live >= PRESENCE_WATCHES_MAX ? ERR_FULL : ERR_NOMEM;
    }
    uint32_t number = slab_number(&p->watches, w);
    if (fresh)
        d->told = (uint8_t)presence_get(p, user, NULL);
    *w = (struct watch){session, user, r->first, d->first};
    d->first = r->first = number;
    r->n++;
    return 0;
}

void presence_unwatch(struct presence *p, uint32_t session)
{
    struct watcher *r = p->watchers.count ? map_get_u64(&p->watchers, session) : NULL;
    if (!r)
        return;
    for (uint32_t at = r->first, next; at; at = next) {
        next = watch_at(p, at)->next_of_session;
        drop_watch(p, at);
    }
    map_del_u64(&p->watchers, session);
}

int presence_watch(struct presence *p, uint32_t session, const uint32_t *users, uint32_t n)
{
    if (n > PRESENCE_WATCH_MAX)
        return ERR_LIMIT;
    presence_unwatch(p, session);
    struct watcher *r = n ? map_put_u64(&p->watchers, session, NULL) : NULL;
    if (!r)
        return n ? ERR_NOMEM : 0;
    int rc = 0;
    for (uint32_t i = 0; i < n && !rc; i++)
        rc = add_watch(p, r, session, users[i]);
    if (!r->n)
        map_del_u64(&p->watchers, session);
    return rc;
}

uint32_t presence_watching(const struct presence *p, uint32_t session)
{
    const struct watcher *r = p->watchers.count ? map_get_u64(&p->watchers, session) : NULL;
    return r ? r->n : 0;
}

uint32_t presence_flush(struct presence *p, uint32_t budget, presence_tell *tell, void *arg)
{
    uint32_t said = 0;
    while (p->dirty_n && said < budget) {
        uint32_t user = p->dirty[p->dirty_first];
        p->dirty_first = (p->dirty_first + 1) % p->dirty_cap;
        p->dirty_n--;
        struct watched *d = map_get_u64(&p->watched, user);
        uint64_t at_s;
        enum presence_state s = presence_get(p, user, &at_s);
        d->dirty = false;
        if (!d->first) {
            map_del_u64(&p->watched, user);
            continue;
        }
        if (d->told == s) {
            p->smoothed++;
            continue;
        }
        d->told = (uint8_t)s;
        for (uint32_t at = d->first; at; at = watch_at(p, at)->next_of_user, said++)
            tell(arg, watch_at(p, at)->session, user, s, at_s);
    }
    p->told += said;
    return said;
}
