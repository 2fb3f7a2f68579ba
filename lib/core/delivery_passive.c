/* Sessions that do not show a chat: most of a large group's. They are told how far the chat has come, once a
 * second and by one shared frame, and read the entries when they open it. */
#include <stdlib.h>

#include "core/delivery_impl.h"

#define COUNT_NS NS_PER_S

int delivery_passive(struct delivery *d, struct session *s, struct chat *c, bool passive)
{
    struct sub *sub = session_sub(d->registry, s, c);
    if (!sub)
        return ERR_NOTFOUND;
    if (sub->passive == passive)
        return 0;
    sub->passive = passive;
    if (passive || sub->behind)
        return 0;
    sub->live = sub->pushed >= c->durable;
    if (sub->live)
        return 0;
    session_behind_push(d->registry, s, sub);
    delivery_pump(d, s);
    return 0;
}

/* Without memory this head is not told; the next one is. */
void passive_note(struct delivery *d, const struct chat *c)
{
    uint32_t number = slab_number(&d->registry->chats, c);
    for (size_t i = 0; i < d->uncounted_n; i++)
        if (d->uncounted[i] == number)
            return;
    if (d->uncounted_n == d->uncounted_cap) {
        size_t cap = d->uncounted_cap ? d->uncounted_cap * 2 : 16;
        uint32_t *p = realloc(d->uncounted, cap * sizeof *p);
        if (!p)
            return;
        d->uncounted = p;
        d->uncounted_cap = cap;
    }
    d->uncounted[d->uncounted_n++] = number;
}

static void tell_chat(struct delivery *d, const struct chat *c)
{
    struct shared_frame *frames[PROTO_CODECS] = {0};
    struct msg m = {.t = MSG_UNREAD, .chat = c->id, .epoch = c->epoch_durable, .seq = c->durable};
    for (uint32_t i = 0; i < c->subs_n; i++) {
        struct sub *sub = registry_sub(d->registry, c->subs[i]);
        struct session *s = delivery_session(d, sub);
        if (!sub->passive || s->queued_bytes >= d->config.queue_bytes_max)
            continue;
        if (frames[s->codec] || (frames[s->codec] = delivery_encode(d, s->codec, &m)))
            delivery_queue(d, s, frames[s->codec]);
    }
    for (int i = 0; i < PROTO_CODECS; i++)
        shared_frame_unref(frames[i]);
}

void passive_tell(struct delivery *d)
{
    if (!d->uncounted_n || d->io->now.mono_ns - d->counted_ns < COUNT_NS)
        return;
    d->counted_ns = d->io->now.mono_ns;
    for (size_t i = 0; i < d->uncounted_n; i++)
        tell_chat(d, slab_at(&d->registry->chats, d->uncounted[i]));
    d->uncounted_n = 0;
}
