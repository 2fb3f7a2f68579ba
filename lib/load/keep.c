/* What phones keep, offer and forge, and what people say when the server has lost something. */
#include <stdlib.h>
#include <string.h>

#include "load/load_impl.h"

static bool find_copy(void *arg, const struct client *c, uint64_t chat, uint64_t from, uint64_t to, bool last,
                      struct msg *out)
{
    struct load_phone *p = CONTAINER_OF(c, struct load_phone, client);
    const struct membership *ms = phone_membership(p, chat);
    (void)arg;
    return ms && copies_find(&ms->copies, from, to, last, out);
}

static bool is_held(void *arg, const struct client *c, const struct id *id)
{
    const struct load *l = arg;
    return copies_held(&l->copies, c->user, id);
}

void keep_init(struct load *l)
{
    if (!l->cfg.keep_copies)
        return;
    copies_init(&l->copies);
    l->io.copy = find_copy;
    l->io.held = is_held;
}

void keep_release(struct load *l)
{
    for (uint32_t i = 0; i < l->phones_n && l->phones && l->cfg.keep_copies; i++)
        for (uint32_t k = 0; k < l->phones[i].chats_n; k++)
            free(l->phones[i].chats[k].copies.at);
    copies_release(&l->copies);
}

void keep_copy(struct load_phone *p, const struct msg *m)
{
    struct membership *ms = p->load->cfg.keep_copies && m->tag_len ? phone_membership(p, m->chat) : NULL;
    if (ms)
        copies_keep(&p->load->copies, &ms->copies, p->client.user, m);
}

void keep_accepted(struct load_phone *p, const struct client_effect *e)
{
    struct msg m = *e->m;
    m.from = p->client.user;
    if (!m.body.n) {
        m.kind = e->kind;
        m.body = e->body;
    }
    keep_copy(p, &m);
}

void keep_forget(struct load_phone *p)
{
    for (uint32_t k = 0; k < p->chats_n && p->load->cfg.keep_copies; k++)
        copies_forget(&p->load->copies, &p->chats[k].copies, p->client.user);
}

/* ---- forgers ---- */

/* A true tag on something else: another body, another sender, another seq, or another chat (whose number is
 * the offer's, so there the tag is a neighbour's). */
static void forge(struct load_phone *p, struct msg_entry *e, uint32_t how)
{
    static const char lie[] = "I owe you a thousand";
    if (how == 0)
        e->body = SLICE(lie);
    else if (how == 1)
        e->from++;
    else if (how == 2)
        e->seq += 1000;
    else
        for (uint32_t k = 0; k < p->chats_n; k++) { /* a true entry of another chat, offered in this one */
            struct msg other;
            if (copies_find(&p->chats[k].copies, 0, UINT64_MAX, true, &other) && other.tag_len) {
                *e = (struct msg_entry){.epoch = other.epoch,
                                        .seq = e->seq,
                                        .from = other.from,
                                        .ts = other.ts,
                                        .id = other.id,
                                        .kind = other.kind,
                                        .body = other.body,
                                        .tag_len = other.tag_len};
                e->seq += 2000;
                memcpy(e->tag, other.tag, sizeof e->tag);
                break;
            }
        }
}

void keep_forge(struct load_phone *p, struct msg *m, struct msg_entry *room)
{
    struct load *l = p->load;
    l->recovery.forged_unanswered += p->forged;
    p->forged = 0;
    uint32_t share = l->populations_cfg[p->population].forge_ppm, n = m->entries_n;
    memcpy(room, m->entries, n * sizeof *room);
    m->entries = room;
    for (uint32_t i = 0; i < n && share && m->entries_n < PROTO_ENTRIES_MAX; i++) {
        if (!rng_hit(&p->rng, RNG_SHARE(share)))
            continue;
        struct msg_entry *e = &room[m->entries_n++];
        *e = room[i];
        forge(p, e, (uint32_t)rng_below(&p->rng, 4));
        l->recovery.forged++;
        p->forged++;
    }
    l->recovery.offered += n;
}

/* ---- people ---- */

static void said_yes(struct load_phone *p, const struct client_effect *e)
{
    struct load *l = p->load;
    const struct press *before = p->waiting;
    l->recovery.asked++;
    press_later(p, &e->id, e->chat, 0, e->body);
    if (p->waiting == before)
        return;
    p->waiting->asked = true;
    l->recovery.said_yes++;
}

void keep_effect(struct load_phone *p, const struct client_effect *e)
{
    struct load_recovery *r = &p->load->recovery;
    switch (e->type) {
    case CLIENT_COPY: {
        struct msg m = *e->m;
        m.t = MSG_MSG;
        keep_copy(p, &m);
        break;
    }
    case CLIENT_NOTICE:
        r->notices++;
        break;
    case CLIENT_UNCONFIRMED:
        r->unconfirmed++;
        break;
    case CLIENT_OFFERED:
        p->forged = 0;
        r->ok += e->m->ok;
        r->refused += e->m->refused_n;
        for (uint32_t i = 0; i < e->m->refused_n; i++)
            r->forged_refused += slice_is(e->m->refused[i].code, "forged");
        break;
    case CLIENT_SEND_AGAIN:
        said_yes(p, e);
        break;
    case CLIENT_MARKED:
        r->marked++;
        break;
    case CLIENT_DISCARDED:
        r->discarded++;
        break;
    default:
        break;
    }
}

void load_recovery(const struct load *l, struct load_recovery *out)
{
    *out = l->recovery;
    for (uint32_t i = 0; i < l->phones_n; i++)
        out->forged_unanswered += l->phones[i].forged;
}
