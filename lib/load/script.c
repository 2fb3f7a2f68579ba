/* Acting out a script. */
#include "load/script.h"

#include <stdlib.h>
#include <string.h>

#include "load/load_impl.h"

#define STEPS_ROUND 500 /* steps in one tick, then sockets get their turn */

static int compare_numbers(const void *key, const void *item)
{
    uint64_t number = *(const uint64_t *)key, at = ((const struct load_script_chat *)item)->number;
    return number < at ? -1 : number > at;
}

uint32_t script_chat(const struct load_script *s, uint64_t number)
{
    const struct load_script_chat *c = bsearch(&number, s->chat, s->chats, sizeof *c, compare_numbers);
    return c ? (uint32_t)(c - s->chat) : UINT32_MAX;
}

int script_build(struct load *l, struct err_ctx *ctx)
{
    const struct load_script *s = l->cfg.script;
    uint32_t seat = 0, *taken = calloc(s->phones + 1, sizeof *taken);
    if (!taken)
        return err_set(ctx, ERR_NOMEM, "out of memory for %u phones", s->phones);
    for (uint32_t i = 0; i < s->members; i++)
        taken[s->member[i]]++;
    for (uint32_t i = 0; i < s->phones; i++) {
        l->phones[i].chats = l->memberships + seat;
        seat += taken[i];
    }
    free(taken);
    for (uint32_t i = 0; i < s->chats; i++) {
        const struct load_script_chat *c = &s->chat[i];
        l->chats[i] = (struct load_chat){.first = c->first, .members = c->members};
        for (uint32_t k = 0; k < c->members; k++) {
            struct load_phone *p = &l->phones[s->member[c->first + k]];
            l->members[c->first + k] = s->member[c->first + k];
            p->chats[p->chats_n++] = (struct membership){.chat = i, .place = k};
        }
    }
    l->chats_n = s->chats;
    map_init(&l->said, 8, sizeof(struct id), UINT32_MAX, l->cfg.seed);
    return 0;
}

void script_named(struct load *l, const struct id *here)
{
    const struct load_script *s = l->cfg.script;
    if (!l->acting)
        return;
    struct id *latest = map_put_u64(&l->said, l->acting->intent, NULL);
    if (latest)
        *latest = *here;
    else
        load_fail(l, ERR_NOMEM, "out of memory for what was said");
    if (s->named)
        s->named(s->arg, &l->acting->id, here);
}

static void say(struct load *l, const struct load_step *step, enum client_event_type type,
                const struct id *pressed)
{
    struct load_phone *p = &l->phones[step->phone];
    memcpy(l->body, step->body.p, step->body.n);
    l->body_len = step->body.n;
    struct client_event e = {.type = type,
                             .chat = l->cfg.script->chat[step->chat].number,
                             .intent = step->intent,
                             .kind = SLICE("text"),
                             .body = {l->body, l->body_len}};
    if (pressed)
        e.id = *pressed;
    if (l->cfg.script->same_ids)
        e.as = step->id;
    phone_step(p, &e);
}

static void press(struct load *l, const struct load_step *step)
{
    struct load_phone *p = &l->phones[step->phone];
    const struct id *latest = map_get_u64(&l->said, step->intent);
    if (!latest) { /* what they pressed on was said before the script begins */
        say(l, step, CLIENT_SUBMIT, NULL);
        return;
    }
    struct press pressed = {.id = *latest};
    if (client_has_outbox(&p->client)) {
        script_named(l, &pressed.id);
        if (!outbox_find(&p->client.outbox, &pressed.id))
            return; /* it has its tick */
    }
    l->pressed = &pressed;
    say(l, step, CLIENT_PRESS, &pressed.id);
    l->pressed = NULL;
}

static void act(struct load *l, const struct load_step *step)
{
    struct load_phone *p = &l->phones[step->phone];
    uint64_t intended = l->t0_ns + step->at_ns, now = load_now(l).mono_ns;
    l->intended_ns = intended;
    l->intent = step->intent;
    l->acting = step;
    if (step->act <= LOAD_PRESS)
        hist_add(&l->ledger.counts[p->population].lag_us, (now - intended) / NS_PER_US);
    switch ((enum load_act)step->act) {
    case LOAD_SAY:
        say(l, step, CLIENT_SUBMIT, NULL);
        break;
    case LOAD_PRESS:
        press(l, step);
        break;
    case LOAD_FREEZE:
        p->held = p->sock != NULL;
        if (p->sock)
            l->cfg.world.freeze(p->sock, true);
        break;
    case LOAD_LEAVE:
        habit_leave(p, (enum reason)step->reason);
        break;
    case LOAD_RETURN:
        habit_return(p);
        break;
    }
    l->acting = NULL;
}

static void on_script(struct timer *t)
{
    struct load *l = CONTAINER_OF(t, struct load, script);
    const struct load_script *s = l->cfg.script;
    uint64_t now = load_now(l).mono_ns;
    for (int n = 0; l->next_step < s->steps; l->next_step++, n++) {
        uint64_t at = l->t0_ns + s->step[l->next_step].at_ns;
        if (at > now || n == STEPS_ROUND || l->phase != PHASE_LOAD) {
            timers_set(&l->timers, t, at > now ? at : now + 1);
            return;
        }
        act(l, &s->step[l->next_step]);
    }
}

void script_begin(struct load *l)
{
    l->script.fire = on_script;
    timers_set(&l->timers, &l->script, l->t0_ns + 1);
}
