/* People who type and think better of it, and how well others are told: the generator knows when each key was
 * pressed, so it measures what is shown against the truth. */
#include <stdlib.h>

#include "load/load_impl.h"

#define KEY_NS  NS_PER_S /* between two keys */
#define BACK_NS NS_PER_S /* whoever is back is shown who types within this */

static struct load_phone *phone_of(struct load *l, uint64_t user)
{
    uint64_t i = user - LOAD_FIRST_USER;
    return user >= LOAD_FIRST_USER && i < l->phones_n ? &l->phones[i] : NULL;
}

static void press(struct load_phone *p)
{
    p->key_ns = p->load->io.now.mono_ns;
    phone_trace(p, false, (struct trace_event){.hop = HOP_CLIENT_TYPE, .chat = p->typing_chat});
    phone_step(p, &(struct client_event){.type = CLIENT_TYPE, .chat = p->typing_chat});
}

static void rest(struct load_phone *p)
{
    struct load *l = p->load;
    uint64_t every = habits_of(p)->typing_every;
    p->typing_until_ns = 0;
    timers_set(&l->timers, &p->type,
               every && l->phase == PHASE_LOAD ? l->io.now.mono_ns + 1 + rng_exp(&p->rng, every) : 0);
}

static void on_type(struct timer *t)
{
    struct load_phone *p = CONTAINER_OF(t, struct load_phone, type);
    uint64_t now = load_now(p->load).mono_ns;
    if (p->background || (p->typing_until_ns && now >= p->typing_until_ns)) {
        rest(p);
        return;
    }
    if (!p->typing_until_ns) {
        uint64_t about = habits_of(p)->typing_for;
        p->typing_chat = chat_number(p->load, p->chats[rng_below(&p->rng, p->chats_n)].chat);
        p->typing_since_ns = now;
        p->typing_until_ns = now + 1 + rng_exp(&p->rng, about ? about : 5 * NS_PER_S);
    }
    press(p);
    timers_set(&p->load->timers, t, now + KEY_NS);
}

static bool types_in(const struct load_phone *o, uint64_t chat, uint64_t from_ns, uint64_t to_ns)
{
    return o->typing_until_ns > to_ns && o->typing_chat == chat && o->client.state == CLIENT_READY &&
           !o->background && o->client.ready_ns + 2 * NS_PER_S < from_ns;
}

/* A second after it came back: is everybody shown who typed then and types still? */
static void on_back(struct timer *t)
{
    struct load_phone *p = CONTAINER_OF(t, struct load_phone, back);
    struct load *l = p->load;
    uint64_t now = load_now(l).mono_ns, then = now - BACK_NS;
    struct population *pop = &l->populations[p->population];
    if (p->background || p->client.state != CLIENT_READY || p->client.ready_ns > then)
        return;
    for (uint32_t i = 0; i < p->chats_n; i++) {
        const struct load_chat *c = &l->chats[p->chats[i].chat];
        uint64_t chat = chat_number(l, p->chats[i].chat);
        for (uint32_t k = 0; k < c->members; k++) {
            const struct load_phone *o = &l->phones[l->members[c->first + k]];
            /* said by then: a refresh goes out every 3 s, and had 2 s to arrive */
            if (o == p || o->said_ns + 3 * NS_PER_S > now || /* a message ends it, until the next key */
                !types_in(o, chat, then, now) || o->typing_since_ns + 2 * NS_PER_S > then)
                continue;
            pop->typing_back++;
            pop->typing_missed += !client_shows_typing(&p->client, chat, o->client.user);
        }
    }
}

void typing_habit_init(struct load_phone *p)
{
    p->type.fire = on_type;
    p->back.fire = on_back;
}

void typing_habit_start(struct load_phone *p)
{
    if (habits_of(p)->typing_every)
        rest(p);
}

void typing_habit_stop(struct load_phone *p)
{
    p->typing_until_ns = 0;
    timers_set(&p->load->timers, &p->type, 0);
    timers_set(&p->load->timers, &p->back, 0);
}

void typing_on_ready(struct load_phone *p)
{
    if (p->load->phase == PHASE_LOAD && habits_of(p)->typing_every)
        timers_set(&p->load->timers, &p->back, p->load->io.now.mono_ns + BACK_NS);
}

void typing_effect(struct load_phone *p, const struct client_effect *e)
{
    struct load *l = p->load;
    struct population *pop = &l->populations[p->population];
    const struct load_phone *o = phone_of(l, e->user);
    uint64_t since = o && o->typing_chat == e->chat ? l->io.now.mono_ns - o->key_ns : 0;
    bool over = e->type == CLIENT_TYPING_OVER;
    phone_trace(p, false,
                (struct trace_event){.hop = over ? HOP_CLIENT_TYPING_OVER : HOP_CLIENT_TYPING,
                                     .chat = e->chat,
                                     .arg = e->user});
    if (over)
        hist_add(&pop->typing_stale_us, since / NS_PER_US);
    else
        pop->typing_shown++;
}
