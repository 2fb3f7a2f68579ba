#include "presence/typing.h"

#include "util/err.h"

struct entry {
    uint32_t chat, user;
    uint32_t next; /* of the chat */
    uint32_t older, newer;
    uint32_t told_ms;
    uint64_t until_us;
};
_Static_assert(sizeof(struct entry) == 32, "somebody who types");

void typing_init(struct typing *t, uint64_t seed)
{
    *t = (struct typing){0};
    slab_init(&t->entries, sizeof(struct entry), TYPING_MAX);
    map_init(&t->chats, 8, 8, TYPING_MAX, seed);
}

void typing_release(struct typing *t)
{
    slab_release(&t->entries);
    map_release(&t->chats);
    *t = (struct typing){0};
}

static struct entry *at(const struct typing *t, uint32_t number)
{
    return number ? slab_at(&t->entries, number) : NULL;
}

static uint32_t first(const struct typing *t, uint32_t chat)
{
    const uint64_t *v = t->entries.live ? map_get_u64(&t->chats, chat) : NULL;
    return v ? (uint32_t)*v : 0;
}

static struct entry *find(const struct typing *t, uint32_t chat, uint32_t user, uint32_t *count)
{
    struct entry *found = NULL;
    *count = 0;
    for (struct entry *e = at(t, first(t, chat)); e; e = at(t, e->next)) {
        ++*count;
        if (e->user == user)
            found = e;
    }
    return found;
}

static void age_unlink(struct typing *t, struct entry *e)
{
    *(e->older ? &at(t, e->older)->newer : &t->oldest) = e->newer;
    *(e->newer ? &at(t, e->newer)->older : &t->newest) = e->older;
}

static void age_append(struct typing *t, struct entry *e)
{
    uint32_t number = slab_number(&t->entries, e);
    e->older = t->newest;
    e->newer = 0;
    *(t->newest ? &at(t, t->newest)->newer : &t->oldest) = number;
    t->newest = number;
}

static void drop(struct typing *t, struct entry *e)
{
    uint64_t *head = map_get_u64(&t->chats, e->chat);
    uint32_t number = slab_number(&t->entries, e), top = (uint32_t)*head, *link = &top;
    while (*link != number)
        link = &at(t, *link)->next;
    *link = e->next;
    *head = top;
    if (!top)
        map_del_u64(&t->chats, e->chat);
    age_unlink(t, e);
    slab_give(&t->entries, e);
}

enum typing_result typing_set(struct typing *t, uint32_t chat, uint32_t user, uint64_t until_us,
                              uint64_t now_ms)
{
    uint32_t count, now = (uint32_t)now_ms;
    struct entry *e = find(t, chat, user, &count);
    if (e) {
        if (until_us > e->until_us)
            e->until_us = until_us;
        age_unlink(t, e);
        age_append(t, e);
        if (now - e->told_ms < TYPING_AGAIN_MS)
            return TYPING_SOON;
        e->told_ms = now;
        return TYPING_TOLD;
    }
    if (count >= TYPING_CHAT_MAX)
        return TYPING_DROPPED;
    if (t->entries.live >= TYPING_MAX)
        drop(t, at(t, t->oldest));
    uint64_t *head = map_put_u64(&t->chats, chat, NULL);
    e = head ? slab_take(&t->entries) : NULL;
    if (!e) {
        if (head && !*head)
            map_del_u64(&t->chats, chat);
        return TYPING_DROPPED;
    }
    *e = (struct entry){
        .chat = chat, .user = user, .next = (uint32_t)*head, .told_ms = now, .until_us = until_us};
    *head = slab_number(&t->entries, e);
    age_append(t, e);
    return TYPING_TOLD;
}

bool typing_clear(struct typing *t, uint32_t chat, uint32_t user)
{
    uint32_t count;
    struct entry *e = find(t, chat, user, &count);
    if (e)
        drop(t, e);
    return e != NULL;
}

uint64_t typing_until(const struct typing *t, uint32_t chat, uint32_t user, uint64_t now_us)
{
    uint32_t count;
    const struct entry *e = find(t, chat, user, &count);
    return e && (t->keeps || e->until_us > now_us) ? e->until_us : 0;
}

uint32_t typing_in(const struct typing *t, uint32_t chat, uint64_t now_us, struct typist out[TYPING_CHAT_MAX])
{
    uint32_t n = 0;
    for (const struct entry *e = at(t, first(t, chat)); e && n < TYPING_CHAT_MAX; e = at(t, e->next))
        if (t->keeps || e->until_us > now_us)
            out[n++] = (struct typist){e->user, e->until_us};
    return n;
}

uint32_t typing_expire(struct typing *t, uint64_t now_us, uint32_t some)
{
    uint32_t n = 0;
    while (!t->keeps && n < some && t->oldest && at(t, t->oldest)->until_us <= now_us) {
        drop(t, at(t, t->oldest));
        n++;
    }
    return n;
}
