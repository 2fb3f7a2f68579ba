/* What people and their phones do by themselves, and what faults do to them. */
#include <stdlib.h>
#include <string.h>

#include "load/load_impl.h"
#include "netem/control.h"
#include "util/log.h"

static void after(struct load_phone *p, struct timer *t, uint64_t ns)
{
    timers_set(&p->load->timers, t, ns ? p->load->io.now.mono_ns + ns : 0);
}

static void after_about(struct load_phone *p, struct timer *t, uint64_t mean)
{
    after(p, t, mean ? rng_exp(&p->rng, mean) + 1 : 0);
}

/* Only people in the foreground type; which phones those are is kept as an array to draw from. */
static void set_awake(struct load_phone *p, bool awake)
{
    struct load *l = p->load;
    struct population *pop = &l->populations[p->population];
    uint32_t self = (uint32_t)(p - l->phones);
    if (awake) {
        p->awake_place = pop->awake_n;
        pop->awake[pop->awake_n++] = self;
    } else {
        uint32_t last = pop->awake[--pop->awake_n];
        pop->awake[p->awake_place] = last;
        l->phones[last].awake_place = p->awake_place;
    }
}

/* ---- background ---- */

static void to_background(struct load_phone *p)
{
    const struct load_habits *h = habits_of(p);
    p->background = true;
    set_awake(p, false);
    phone_simple(p, CLIENT_BACKGROUND);
    if (p->sock)
        p->load->cfg.world.freeze(p->sock, true);
    after(p, &p->kill, h->kill_after);
    after_about(p, &p->habit, h->background_for ? h->background_for : NS_PER_S);
}

static void forget(struct load_phone *p)
{
    struct load *l = p->load;
    l->storage_losses++;
    keep_forget(p);
    diary_forgot(l->diary, p->client.user, p->client.device);
    if (l->cfg.world.forgot)
        l->cfg.world.forgot(l->cfg.world.arg, p->client.user, p->client.device);
    if (!p->shown && (p->shown = malloc(sizeof *p->shown)))
        map_init(p->shown, sizeof(struct id), 8, 1u << 20, 0);
    else if (p->shown)
        map_clear(p->shown);
    for (uint32_t i = 0; i < p->chats_n; i++)
        p->chats[i].top = 0;
    reading_forgot(p);
    phone_simple(p, CLIENT_STORAGE_LOST);
}

static void to_foreground(struct load_phone *p)
{
    const struct load_habits *h = habits_of(p);
    p->background = false;
    set_awake(p, true);
    after(p, &p->kill, 0);
    if (p->sock)
        p->load->cfg.world.freeze(p->sock, false);
    if (h->storage_loss_ppm && rng_hit(&p->rng, RNG_SHARE(h->storage_loss_ppm)))
        forget(p);
    phone_simple(p, CLIENT_FOREGROUND);
    reading_shown(p);
    if (p->load->phase == PHASE_LOAD)
        after_about(p, &p->habit, h->background_every);
}

static void on_habit(struct timer *t)
{
    struct load_phone *p = CONTAINER_OF(t, struct load_phone, habit);
    load_now(p->load);
    if (p->background)
        to_foreground(p);
    else
        to_background(p);
}

static void on_kill(struct timer *t)
{
    struct load_phone *p = CONTAINER_OF(t, struct load_phone, kill);
    if (p->sock)
        phone_drop(p, REASON_APP_KILLED);
}

/* ---- network ---- */

static void online(struct load_phone *p)
{
    struct load *l = p->load;
    if (!p->offline)
        return;
    p->offline = false;
    if (l->populations_cfg[p->population].addresses) {
        p->address = (uint8_t)((p->address + 1) % LOAD_ADDRESS_STRIDE);
        l->cfg.world.radio(l->cfg.world.arg, phone_address(p), NETEM_ATTACH);
    }
    phone_simple(p, CLIENT_ONLINE);
    if (l->phase == PHASE_LOAD)
        after_about(p, &p->network, habits_of(p)->network_change_every);
}

/* Off the air; a phone that changed its network leaves without a word. */
void habit_leave(struct load_phone *p, enum reason reason)
{
    struct load *l = p->load;
    if (p->offline)
        return;
    load_now(l);
    p->offline = true;
    phone_simple(p, CLIENT_OFFLINE);
    if (p->sock && reason == REASON_NETWORK_CHANGED) {
        phone_sample_acked(p);
        int rc = l->cfg.world.vanish(p->sock);
        if (rc && !l->rude_ends_told) {
            l->rude_ends_told = true;
            log_warn("phones that change their network leave their sockets with a FIN, not silently: %s",
                     rc == ERR_PERM ? "that takes CAP_NET_ADMIN" : err_text(rc));
        }
        phone_socket_over(p, REASON_NETWORK_CHANGED, 0);
    }
    if (l->populations_cfg[p->population].addresses)
        l->cfg.world.radio(l->cfg.world.arg, phone_address(p), NETEM_DETACH);
    phone_drop(p, reason);
}

void habit_return(struct load_phone *p)
{
    load_now(p->load);
    online(p);
}

void habit_network_change(struct load_phone *p)
{
    if (p->offline)
        return;
    p->load->network_changes++;
    habit_leave(p, REASON_NETWORK_CHANGED);
    uint64_t gap = habits_of(p)->network_change_gap;
    after(p, &p->network, gap ? gap : 1);
}

static void on_network(struct timer *t)
{
    struct load_phone *p = CONTAINER_OF(t, struct load_phone, network);
    if (p->offline)
        online(p);
    else
        habit_network_change(p);
}

/* ---- the fault ---- */

void habit_kill(struct load_phone *p, bool mid_frame)
{
    struct load *l = p->load;
    if (mid_frame) {
        p->cut_next = true;
        return;
    }
    if (!p->sock)
        return;
    l->kills++;
    phone_trace(p, true,
                (struct trace_event){
                    .hop = HOP_SOCKET_KILL, .reason = REASON_KILLED, .arg = l->cfg.world.written(p->sock)});
    phone_drop(p, REASON_KILLED);
}

void habit_init(struct load_phone *p)
{
    p->habit.fire = on_habit;
    p->network.fire = on_network;
    p->kill.fire = on_kill;
    typing_habit_init(p);
    reading_init(p);
}

void habits_start(struct load_phone *p)
{
    const struct load_habits *h = habits_of(p);
    after_about(p, &p->habit, h->background_every);
    after_about(p, &p->network, h->network_change_every);
    typing_habit_start(p);
    watch_start(p);
    reading_start(p);
}

/* Healing: nobody leaves any more, and those who are away come back now. */
void habits_stop(struct load_phone *p)
{
    after(p, &p->habit, 0);
    after(p, &p->network, 0);
    typing_habit_stop(p);
    watch_stop(p);
    reading_stop(p);
    p->cut_next = false;
    press_clear(p);
    online(p);
    if (p->background)
        to_foreground(p);
}

/* ---- "send again" ---- */

static void unlink_press(struct press **list, struct press *x)
{
    while (*list != x)
        list = &(*list)->next;
    *list = x->next;
}

static struct press *press_new(struct load_phone *p, const struct id *id, uint64_t chat, uint64_t intent,
                               struct slice body)
{
    struct press *x = malloc(sizeof *x + body.n);
    if (!x)
        return NULL;
    *x = (struct press){.phone = p, .id = *id, .chat = chat, .intent = intent, .body_len = (uint32_t)body.n};
    if (body.n)
        memcpy(x->body, body.p, body.n);
    return x;
}

static void on_press(struct timer *t)
{
    struct press *x = CONTAINER_OF(t, struct press, timer);
    struct load_phone *p = x->phone;
    struct load *l = p->load;
    load_now(l);
    bool ticked = client_has_outbox(&p->client) && !x->asked && !outbox_find(&p->client.outbox, &x->id);
    if (!ticked && p->background) { /* the person will see it when they are back */
        after(p, &x->timer, habits_of(p)->resend_after);
        return;
    }
    unlink_press(&p->waiting, x);
    if (!ticked && l->phase == PHASE_LOAD) {
        memcpy(l->body, x->body, x->body_len);
        l->body_len = x->body_len;
        l->intended_ns = l->io.now.mono_ns;
        l->intent = x->intent;
        l->pressed = x;
        struct slice body = {l->body, l->body_len};
        phone_step(p, &(struct client_event){.type = CLIENT_PRESS,
                                             .id = x->id,
                                             .chat = x->chat,
                                             .intent = x->intent,
                                             .kind = SLICE("text"),
                                             .body = body});
        l->pressed = NULL;
        if (client_has_outbox(&p->client))
            press_later(p, &x->id, x->chat, x->intent, body);
    }
    free(x);
}

/* No tick: some people will press, after a while. */
static void start_press(struct load_phone *p, struct press *x)
{
    const struct load_habits *h = habits_of(p);
    if (p->load->phase != PHASE_LOAD || !h->resend_after ||
        !rng_hit(&p->rng, RNG_SHARE(h->resend_share_ppm))) {
        free(x);
        return;
    }
    x->timer = (struct timer){.fire = on_press};
    x->next = p->waiting;
    p->waiting = x;
    after(p, &x->timer, h->resend_after);
}

void press_later(struct load_phone *p, const struct id *id, uint64_t chat, uint64_t intent, struct slice body)
{
    if (!habits_of(p)->resend_after || !habits_of(p)->resend_share_ppm)
        return;
    struct press *x = press_new(p, id, chat, intent, body);
    if (x)
        start_press(p, x);
}

/* A person watches no more than so many ticks. */
static void forget_oldest_untick(struct load_phone *p)
{
    struct press **at = &p->unticked;
    while ((*at)->next)
        at = &(*at)->next;
    free(*at);
    *at = NULL;
    p->unticked_n--;
    p->load->ticks_unwatched++;
}

void press_untick(struct load_phone *p, const struct id *id, uint64_t chat, uint64_t intent,
                  struct slice body, uint64_t end_offset)
{
    if (!habits_of(p)->resend_after || !habits_of(p)->resend_share_ppm)
        return;
    if (p->unticked_n >= UNTICKED_MAX)
        forget_oldest_untick(p);
    struct press *x = press_new(p, id, chat, intent, body);
    if (!x) {
        p->load->ticks_unwatched++;
        return;
    }
    x->end_offset = end_offset;
    x->next = p->unticked;
    p->unticked = x;
    p->unticked_n++;
}

void press_tick(struct load_phone *p, bool broken)
{
    if (!p->unticked)
        return;
    if (!broken)
        phone_sample_acked(p);
    for (struct press **at = &p->unticked, *x; (x = *at);) {
        if (!broken && x->end_offset > p->acked) {
            at = &x->next;
            continue;
        }
        *at = x->next;
        p->unticked_n--;
        if (x->end_offset <= p->acked)
            free(x);
        else
            start_press(p, x);
    }
}

void press_clear(struct load_phone *p)
{
    struct press *x;
    while ((x = p->waiting)) {
        p->waiting = x->next;
        timers_set(&p->load->timers, &x->timer, 0);
        free(x);
    }
    while ((x = p->unticked)) {
        p->unticked = x->next;
        free(x);
    }
    p->unticked_n = 0;
}
