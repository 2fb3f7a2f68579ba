/* The fault of incident 2: one member after the other. A server that writes to a member and waits until that
 * has gone through before it turns to the next needs 45 s for 1,000 members at 45 ms each, and whoever is
 * slow or dead delays all who come after him. */
#include <stdlib.h>
#include <string.h>

#include "core/delivery_impl.h"
#include "util/units.h"

#define WAIT_NS    (45 * NS_PER_MS)
#define ROUNDS_MAX 10000u

/* One entry on its way. */
struct round {
    struct round *next;
    uint32_t chat, at; /* at: place in the chat's list of positions */
    uint64_t seq;
    struct id id;
    uint64_t conn; /* whose write is waited for; 0: nobody's */
    uint64_t due_ns;
    struct shared_frame *frames[PROTO_CODECS];
};

int delivery_fanout_parse(uint64_t *wait_ns, const char *text, struct err_ctx *ctx)
{
    *wait_ns = 0;
    if (!strcmp(text, "shared"))
        return 0;
    *wait_ns = WAIT_NS;
    if (!strcmp(text, "sequential"))
        return 0;
    if (strncmp(text, "sequential:", 11) != 0)
        return err_set(ctx, ERR_INVALID, "fanout '%s' is none of shared, sequential, sequential:TIME", text);
    int rc = units_duration(wait_ns, text + 11, ctx);
    return !rc && !*wait_ns ? err_set(ctx, ERR_INVALID, "fanout '%s': the time must not be 0", text) : rc;
}

static void round_free(struct round *r)
{
    for (int i = 0; i < PROTO_CODECS; i++)
        shared_frame_unref(r->frames[i]);
    free(r);
}

/* Positions that the round did not reach: those that changed places when somebody left. */
static void round_end(struct delivery *d)
{
    struct round *r = d->rounds;
    const struct chat *c = slab_at(&d->registry->chats, r->chat);
    for (uint32_t i = 0; i < c->subs_n && (d->config.features & DELIVERY_ACK); i++) {
        struct sub *sub = registry_sub(d->registry, c->subs[i]);
        if (!sub->live || sub->passive || sub->pushed >= r->seq)
            continue;
        session_behind_push(d->registry, delivery_session(d, sub), sub);
        delivery_pump(d, delivery_session(d, sub));
    }
    d->rounds = r->next;
    if (!d->rounds)
        d->rounds_last = NULL;
    d->rounds_n--;
    round_free(r);
}

void sequential_add(struct delivery *d, const struct chat *c, const struct entry *e)
{
    struct round *r = d->rounds_n < ROUNDS_MAX ? calloc(1, sizeof *r) : NULL;
    if (!r)
        return; /* reliable: a later round finds the hole; legacy: lost */
    *r = (struct round){.chat = slab_number(&d->registry->chats, c), .seq = e->seq, .id = e->id};
    for (int i = 0; i < PROTO_CODECS; i++)
        r->frames[i] = delivery_encode_entry(d, (enum proto_codec)i, e);
    if (d->rounds_last)
        d->rounds_last->next = r;
    else
        d->rounds = r;
    d->rounds_last = r;
    d->rounds_n++;
    sequential_go_on(d);
}

static bool still_writing(const struct delivery *d, const struct round *r)
{
    const struct session *s = registry_session(d->registry, (uint32_t)(r->conn >> 32));
    return r->conn && s->state == SESSION_READY && s->lane.conn == (uint32_t)r->conn && s->queued_bytes;
}

/* The next member of the round; false when there is none. */
static bool push_next(struct delivery *d, struct round *r)
{
    const struct chat *c = slab_at(&d->registry->chats, r->chat);
    while (r->at < c->subs_n) {
        struct sub *sub = registry_sub(d->registry, c->subs[r->at++]);
        if (!sub->live || sub->passive || sub->pushed >= r->seq)
            continue;
        struct session *s = delivery_session(d, sub);
        if (!r->frames[s->codec] || !delivery_keeps_up(d, sub, c, r->seq, &r->id))
            continue;
        r->conn = session_conn(d->registry, s);
        delivery_push(d, sub, r->seq, r->frames[s->codec]);
        return true;
    }
    return false;
}

void sequential_go_on(struct delivery *d)
{
    uint64_t now = d->io->now.mono_ns;
    for (struct round *r; (r = d->rounds) && !still_writing(d, r) && r->due_ns <= now;) {
        uint64_t from = r->due_ns && now - r->due_ns < d->config.sequential_ns ? r->due_ns : now;
        if (push_next(d, r)) {
            r->due_ns = from + d->config.sequential_ns;
            continue;
        }
        if (r->next)
            r->next->due_ns = from;
        round_end(d);
    }
}

void sequential_release(struct delivery *d)
{
    while (d->rounds) {
        struct round *next = d->rounds->next;
        round_free(d->rounds);
        d->rounds = next;
    }
}
