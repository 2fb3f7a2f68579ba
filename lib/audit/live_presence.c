/* Invariant 6, presence: what is shown of who is there, against who is. */
#include <inttypes.h>

#include "audit/live_impl.h"
#include "util/clock.h"

#define PRESENCE_NS (30 * NS_PER_S)

struct here {
    uint64_t since_ns, there, heard_ns, arrived_ns;
};
struct seen {
    uint64_t since_ns, shown; /* enum live_shown */
};

static void judge(struct live *l, const uint64_t key[2], const struct seen *s, uint64_t now_ns)
{
    const struct here *who = map_get_u64(&l->here, key[1]), *by = map_get_u64(&l->here, key[0]);
    if (!who || !by || !by->there || s->shown == LIVE_SHOWN_NOTHING ||
        (s->shown == LIVE_SHOWN_THERE) == (who->there != 0))
        return; /* it is so, or nobody looks */
    uint64_t since = who->since_ns > by->since_ns ? who->since_ns : by->since_ns;
    if (s->shown == LIVE_SHOWN_THERE && who->arrived_ns > since)
        since = who->arrived_ns;
    if (s->shown == LIVE_SHOWN_GONE && s->since_ns > since)
        since = s->since_ns;
    uint64_t until = by->heard_ns < now_ns ? by->heard_ns : now_ns;
    if (until < since || until - since <= PRESENCE_NS)
        return;
    live_fail(l, LIVE_STALE_PRESENCE, 0, NULL,
              "user %" PRIu64 " shows user %" PRIu64 " as %s, which is wrong for %" PRIu64 " ms", key[0],
              key[1], s->shown == LIVE_SHOWN_THERE ? "there" : "offline",
              (uint64_t)((until - since) / NS_PER_MS));
}

void live_here(struct live *l, uint64_t user, bool there, uint64_t now_ns)
{
    struct here *h = map_put_u64(&l->here, user, NULL);
    BUG_ON(!h);
    live_presence_time(l, now_ns); /* before it changes */
    h->since_ns = now_ns;
    h->there = there;
}

void live_heard(struct live *l, uint64_t user, uint64_t now_ns)
{
    struct here *h = map_get_u64(&l->here, user);
    if (h)
        h->heard_ns = now_ns;
}

void live_arrived(struct live *l, uint64_t user, uint64_t now_ns)
{
    struct here *h = map_get_u64(&l->here, user);
    if (h)
        h->arrived_ns = now_ns;
}

void live_presence(struct live *l, uint64_t user, uint64_t about, enum live_shown shown, uint64_t now_ns)
{
    uint64_t key[] = {user, about};
    if (l->failed || !l->promises.presence)
        return;
    struct seen *s = map_put(&l->seen, key, NULL);
    BUG_ON(!s);
    judge(l, key, s, now_ns);
    if (s->shown != shown)
        *s = (struct seen){now_ns, shown};
}

void live_presence_lost(struct live *l, uint64_t user)
{
    size_t at = 0;
    const void *key;
    void *s;
    while (map_next(&l->seen, &at, &key, &s))
        if (*(const uint64_t *)key == user)
            ((struct seen *)s)->shown = LIVE_SHOWN_NOTHING;
}

void live_presence_time(struct live *l, uint64_t now_ns)
{
    size_t at = 0;
    const void *key;
    void *s;
    while (!l->failed && map_next(&l->seen, &at, &key, &s))
        judge(l, key, s, now_ns);
}
