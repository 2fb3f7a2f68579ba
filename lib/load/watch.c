/* What phones show of who is there, against the truth: the generator knows who is. A phone is there while it
 * is connected and its person looks at it. Shown as there (or away), and gone: wrong since it went. Shown as
 * offline, and there: wrong since it was shown so. "Unknown" is never wrong. */
#include <stdlib.h>
#include <string.h>

#include "load/load_impl.h"

enum shown { SHOWN_NOTHING, SHOWN_THERE, SHOWN_GONE };
struct watched {
    uint32_t phone;
    uint8_t shown; /* enum shown */
    uint64_t since_ns;
};

static void sample(struct load_phone *p, const struct watched *w)
{
    struct load *l = p->load;
    const struct load_phone *o = &l->phones[w->phone];
    uint64_t since = o->there_ns;
    if (w->shown == SHOWN_NOTHING || !p->there || (w->shown == SHOWN_THERE) == o->there)
        return;
    if (w->shown == SHOWN_GONE && w->since_ns > since)
        since = w->since_ns;
    if (p->there_ns > since) /* nobody looked before */
        since = p->there_ns;
    hist_add(&l->populations[p->population].presence_stale_us, (l->io.now.mono_ns - since) / NS_PER_US);
}

/* Before the truth about `o` changes: whoever shows something else of it did so until now. */
static void sample_watchers(struct load_phone *o)
{
    struct load *l = o->load;
    uint32_t number = (uint32_t)(o - l->phones);
    for (uint32_t i = 0; i < o->chats_n; i++) {
        const struct load_chat *c = &l->chats[o->chats[i].chat];
        for (uint32_t k = 0; k < c->members; k++) {
            struct load_phone *p = &l->phones[l->members[c->first + k]];
            for (uint32_t w = 0; w < p->watched_n; w++)
                if (p->watched[w].phone == number)
                    sample(p, &p->watched[w]);
        }
    }
}

void watch_truth(struct load_phone *p)
{
    bool there = p->client.state == CLIENT_READY && !p->background && !p->offline;
    struct load *l = p->load;
    if (there == p->there)
        return;
    if (habits_of(p)->watch) {
        for (uint32_t i = 0; !there && i < p->watched_n; i++)
            sample(p, &p->watched[i]);
        sample_watchers(p);
    }
    p->there = there;
    p->there_ns = l->io.now.mono_ns;
    if (l->cfg.world.here)
        l->cfg.world.here(l->cfg.world.arg, p->client.user, there);
}

static struct watched *find(struct load_phone *p, uint32_t phone)
{
    for (uint32_t i = 0; i < p->watched_n; i++)
        if (p->watched[i].phone == phone)
            return &p->watched[i];
    return NULL;
}

void watch_start(struct load_phone *p)
{
    struct load *l = p->load;
    uint32_t most = habits_of(p)->watch;
    uint64_t users[CLIENT_WATCH_MAX];
    if (most > CLIENT_WATCH_MAX)
        most = CLIENT_WATCH_MAX;
    if (most && !p->watched)
        p->watched = calloc(most, sizeof *p->watched);
    for (uint32_t i = 0; p->watched && i < p->chats_n; i++) {
        const struct load_chat *c = &l->chats[p->chats[i].chat];
        for (uint32_t k = 0; k < c->members && p->watched_n < most; k++) {
            uint32_t other = l->members[c->first + k];
            if (&l->phones[other] == p || find(p, other))
                continue;
            users[p->watched_n] = l->phones[other].client.user;
            p->watched[p->watched_n++] = (struct watched){.phone = other};
        }
    }
    if (p->watched_n)
        phone_step(p, &(struct client_event){.type = CLIENT_WATCH, .users = users, .users_n = p->watched_n});
}

void watch_stop(struct load_phone *p)
{
    for (uint32_t i = 0; i < p->watched_n; i++)
        sample(p, &p->watched[i]);
    p->watched_n = 0;
}

void watch_release(struct load_phone *p)
{
    free(p->watched);
}

void watch_effect(struct load_phone *p, const struct client_effect *e)
{
    struct load *l = p->load;
    for (uint32_t i = 0; e->type == CLIENT_PRESENCE_LOST && i < p->watched_n; i++) {
        sample(p, &p->watched[i]);
        p->watched[i].shown = SHOWN_NOTHING;
    }
    if (e->type == CLIENT_PRESENCE_LOST || !e->m || e->m->user < LOAD_FIRST_USER)
        return;
    struct watched *w = find(p, (uint32_t)(e->m->user - LOAD_FIRST_USER));
    if (!w)
        return;
    enum shown now = slice_is(e->m->code, "online") || slice_is(e->m->code, "away") ? SHOWN_THERE
                     : slice_is(e->m->code, "offline")                              ? SHOWN_GONE
                                                                                    : SHOWN_NOTHING;
    if (now == w->shown)
        return;
    sample(p, w);
    l->populations[p->population].presence_shown += now != SHOWN_NOTHING;
    *w = (struct watched){.phone = w->phone, .shown = (uint8_t)now, .since_ns = l->io.now.mono_ns};
}
