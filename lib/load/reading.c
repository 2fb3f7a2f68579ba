/* People who read what they are shown, and see who has read what they said: the generator knows both, so what
 * is shown is measured against the truth. */
#include "core/receipts.h"
#include "load/load_impl.h"

static bool reads(const struct load_phone *p)
{
    return habits_of(p)->read_after && p->client.config->features == CLIENT_RELIABLE;
}

static struct load_phone *phone_of(struct load *l, const struct load_chat *c, uint64_t user)
{
    for (uint32_t i = 0; i < c->members; i++)
        if (l->phones[l->members[c->first + i]].client.user == user)
            return &l->phones[l->members[c->first + i]];
    return NULL;
}

static void on_read(struct timer *t)
{
    struct load_phone *p = CONTAINER_OF(t, struct load_phone, reads);
    if (p->background)
        return; /* what is there then is read when they are back */
    load_now(p->load);
    for (uint32_t i = 0; i < p->chats_n; i++) {
        struct membership *ms = &p->chats[i];
        if (ms->top <= ms->read)
            continue;
        ms->read = ms->top;
        ms->read_ns = p->load->io.now.mono_ns;
        uint64_t chat = chat_number(p->load, ms->chat);
        phone_trace(p, false, (struct trace_event){.hop = HOP_CLIENT_READ, .chat = chat, .arg = ms->read});
        phone_step(p, &(struct client_event){.type = CLIENT_READ, .chat = chat, .seq = ms->read});
    }
}

void reading_init(struct load_phone *p)
{
    p->reads.fire = on_read;
}

void reading_start(struct load_phone *p)
{
    for (uint32_t i = 0; reads(p) && i < p->chats_n && i < CLIENT_RECEIPT_CHATS; i++)
        phone_step(p, &(struct client_event){.type = CLIENT_RECEIPTS,
                                             .chat = chat_number(p->load, p->chats[i].chat),
                                             .on = true});
}

/* From now on what was read stays so, and everybody should come to see it. */
void reading_stop(struct load_phone *p)
{
    timers_set(&p->load->timers, &p->reads, 0);
}

void reading_shown(struct load_phone *p)
{
    struct load *l = p->load;
    if (!reads(p) || p->background || l->phase != PHASE_LOAD || p->reads.at_ns > l->io.now.mono_ns)
        return;
    timers_set(&l->timers, &p->reads, l->io.now.mono_ns + 1 + rng_exp(&p->rng, habits_of(p)->read_after));
}

void reading_forgot(struct load_phone *p)
{
    for (uint32_t i = 0; i < p->chats_n; i++)
        p->chats[i].read = p->chats[i].read_said = 0;
}

void reading_said(struct load_phone *p, uint64_t chat, uint64_t seq)
{
    struct membership *ms = phone_membership(p, chat);
    if (!ms)
        return;
    ms->read_said = seq;
    ms->read_max = seq > ms->read_max ? seq : ms->read_max;
}

void reading_effect(struct load_phone *p, const struct client_effect *e)
{
    struct load *l = p->load;
    struct population *pop = &l->populations[p->population];
    uint64_t place = chat_place(l, e->chat);
    struct load_phone *o = place < l->chats_n ? phone_of(l, &l->chats[place], e->user) : NULL;
    const struct membership *ms = o ? phone_membership(o, e->chat) : NULL;
    if (e->type == CLIENT_COUNTS && place < l->chats_n) {
        l->chats[place].counted = true;
        pop->receipts_counted++;
    }
    if (e->type != CLIENT_RECEIPT || !ms)
        return;
    pop->receipts_shown++;
    pop->receipts_false += e->seq > ms->read_max;
    if (e->seq && e->seq == ms->read && !e->dup && o != p)
        hist_add(&pop->receipt_us, (l->io.now.mono_ns - ms->read_ns) / NS_PER_US);
}

/* How much of what others said they read this phone does not show. */
static uint32_t missing(struct load *l, struct load_phone *p)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->chats_n && i < CLIENT_RECEIPT_CHATS; i++) {
        const struct load_chat *c = &l->chats[p->chats[i].chat];
        uint64_t chat = chat_number(l, p->chats[i].chat), delivered, read;
        for (uint32_t k = 0; c->members <= RECEIPTS_EACH_MAX && !c->counted && k < c->members; k++) {
            struct load_phone *o = &l->phones[l->members[c->first + k]];
            const struct membership *ms = o == p ? NULL : phone_membership(o, chat);
            client_receipt(&p->client, chat, o->client.user, &delivered, &read);
            n += ms && read < ms->read_said;
        }
    }
    return n;
}

uint64_t reading_missing(struct load *l, uint32_t population)
{
    const struct population *pop = &l->populations[population];
    uint64_t n = 0;
    for (uint32_t i = 0; i < pop->n; i++)
        if (reads(&l->phones[pop->first + i]))
            n += missing(l, &l->phones[pop->first + i]);
    return n;
}
