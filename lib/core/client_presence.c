/* Who types and who is there, as this device shows it. What is shown is over by itself: at the time the
 * server named, by a clock estimated so that it errs towards "over", and never later than 10 s after it was
 * heard. */
#include <stdlib.h>

#include "core/client_impl.h"
#include "util/mutant.h"

struct typist {
    uint64_t chat, user, until_ns;
    uint64_t ts_us; /* of the last key, by the server's clock; 0: not known */
};

struct client_presence {
    struct typist shown[CLIENT_TYPISTS_MAX];
    uint32_t shown_n, watch_n;
    uint64_t *watch;
    uint64_t next_ns;                 /* the first of `shown` that is over */
    uint64_t typing_chat, again_ns;   /* own: not said again before then */
    uint64_t input_ns;                /* the person's last */
    bool away;                        /* the server was told so */
    struct client_receipts *receipts; /* here, since struct client has no room for it */
};

static struct client_presence *get(struct client *c)
{
    if (!c->presence)
        c->presence = calloc(1, sizeof *c->presence);
    return c->presence; /* NULL: nothing is shown, which is never stale */
}

struct client_receipts **presence_receipts(struct client *c, bool make)
{
    struct client_presence *p = make ? get(c) : c->presence;
    return p ? &p->receipts : NULL;
}

static void over(struct client *c, uint32_t i, const struct client_io *io)
{
    struct client_presence *p = c->presence;
    struct typist was = p->shown[i];
    p->shown[i] = p->shown[--p->shown_n];
    client_emit(c, io,
                &(struct client_effect){.type = CLIENT_TYPING_OVER, .chat = was.chat, .user = was.user});
}

static void find_next(struct client_presence *p)
{
    p->next_ns = 0;
    for (uint32_t i = 0; i < p->shown_n; i++)
        earlier(&p->next_ns, p->shown[i].until_ns);
}

static struct typist *shown(const struct client *c, uint64_t chat, uint64_t user)
{
    struct client_presence *p = c->presence;
    for (uint32_t i = 0; p && i < p->shown_n; i++)
        if (p->shown[i].chat == chat && p->shown[i].user == user)
            return &p->shown[i];
    return NULL;
}

bool client_shows_typing(const struct client *c, uint64_t chat, uint64_t user)
{
    return shown(c, chat, user) != NULL;
}

static int64_t server_us(const struct client *c, const struct client_io *io)
{
    return (int64_t)io->now.wall_us + c->clock_offset_us;
}

void presence_on_typing(struct client *c, const struct msg *m, const struct client_io *io)
{
    uint64_t until_ns = io->now.mono_ns + CLIENT_TYPING_NS;
    if (m->to) { /* the welcome may have been on its way as long as its answer took */
        int64_t left_us = (int64_t)m->to - server_us(c, io) - (int64_t)c->welcome_ms * 1000;
        if (left_us <= 0)
            return;
        if ((uint64_t)left_us < CLIENT_TYPING_NS / NS_PER_US)
            until_ns = io->now.mono_ns + (uint64_t)left_us * NS_PER_US;
    }
    struct client_presence *p = c->background || m->user == c->user ? NULL : get(c);
    struct typist *t = p ? shown(c, m->chat, m->user) : NULL;
    if (!p || (!t && p->shown_n == CLIENT_TYPISTS_MAX))
        return;
    if (!t) {
        t = &p->shown[p->shown_n++];
        *t = (struct typist){.chat = m->chat, .user = m->user};
        client_emit(c, io,
                    &(struct client_effect){
                        .type = CLIENT_TYPING, .chat = m->chat, .user = m->user, .at_ns = until_ns});
    }
    t->until_ns = until_ns;
    t->ts_us = m->ts;
    find_next(p);
}

void presence_on_msg(struct client *c, const struct msg *m, const struct client_io *io)
{
    struct typist *t = shown(c, m->chat, m->from);
    if (!t || id_unix_ms(&m->id) * 1000 + 999 < t->ts_us) /* said before, and comes late, as with the log */
        return;
    over(c, (uint32_t)(t - c->presence->shown), io);
    find_next(c->presence);
}

void presence_clear(struct client *c, const struct client_io *io)
{
    struct client_presence *p = c->presence;
    while (p && p->shown_n)
        over(c, 0, io);
    if (p)
        find_next(p);
}

uint64_t presence_next(const struct client *c)
{
    return c->presence && !MUTANT(TYPING_NEVER_CLEARED) ? c->presence->next_ns : 0;
}

void presence_due(struct client *c, const struct client_io *io)
{
    struct client_presence *p = c->presence;
    if (!presence_next(c) || p->next_ns > io->now.mono_ns)
        return;
    for (uint32_t i = p->shown_n; i-- > 0;)
        if (p->shown[i].until_ns <= io->now.mono_ns)
            over(c, i, io);
    find_next(p);
}

void presence_forget(struct client *c)
{
    if (c->presence)
        free(c->presence->watch);
    free(c->presence);
    c->presence = NULL;
}

/* ---- what is said ---- */

void presence_input(struct client *c, const struct client_io *io)
{
    struct client_presence *p = c->presence;
    if (!p)
        return;
    p->input_ns = io->now.mono_ns;
    if (p->away && c->state == CLIENT_READY)
        client_send(c, io, &(struct msg){.t = MSG_BEAT}, 0);
    p->away = false;
}

void presence_type(struct client *c, uint64_t chat, const struct client_io *io)
{
    struct client_presence *p = get(c);
    presence_input(c, io);
    if (!p || c->state != CLIENT_READY || (chat == p->typing_chat && io->now.mono_ns < p->again_ns))
        return;
    p->typing_chat = chat;
    p->again_ns = io->now.mono_ns + CLIENT_TYPING_EVERY_NS;
    int64_t ts = server_us(c, io);
    client_send(c, io, &(struct msg){.t = MSG_TYPING, .chat = chat, .ts = ts > 0 ? (uint64_t)ts : 0}, 0);
}

void presence_said(struct client *c, const struct client_io *io)
{
    presence_input(c, io);
    if (c->presence)
        c->presence->again_ns = 0; /* the message ends it; the next key is news */
}

static void say_watch(struct client *c, const struct client_io *io)
{
    struct client_presence *p = c->presence;
    client_send(
        c, io, &(struct msg){.t = MSG_WATCH, .has = MSG_HAS(users), .users = p->watch, .users_n = p->watch_n},
        0);
}

void presence_watch_users(struct client *c, const uint64_t *users, uint32_t n, const struct client_io *io)
{
    struct client_presence *p = n <= CLIENT_WATCH_MAX ? get(c) : NULL;
    uint64_t *list = p ? malloc((n ? n : 1) * sizeof *list) : NULL;
    if (!list)
        return;
    if (n)
        memcpy(list, users, n * sizeof *list);
    free(p->watch);
    p->watch = list;
    p->watch_n = n;
    p->input_ns = p->input_ns ? p->input_ns : io->now.mono_ns;
    if (c->state == CLIENT_READY)
        say_watch(c, io);
}

void presence_on_welcome(struct client *c, const struct client_io *io)
{
    if (!c->presence)
        return;
    c->presence->again_ns = 0;
    c->presence->away = false;
    if (c->presence->watch_n)
        say_watch(c, io);
}

void presence_on_disconnect(struct client *c, const struct client_io *io)
{
    if (c->presence && c->presence->watch_n)
        client_emit(c, io, &(struct client_effect){.type = CLIENT_PRESENCE_LOST});
}

bool presence_watches(const struct client *c)
{
    return c->presence && c->presence->watch_n;
}

bool presence_away(struct client *c, const struct client_io *io)
{
    struct client_presence *p = c->presence;
    if (p && p->input_ns && io->now.mono_ns - p->input_ns >= CLIENT_AWAY_NS)
        p->away = true;
    return p && p->away;
}
