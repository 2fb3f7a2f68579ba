#include "core/session.h"

#include <stdlib.h>

void session_timer_stop(struct session_list *l, struct session *s, enum session_timer t)
{
    if (!s->timer_on[t])
        return;
    struct session_link *k = &s->timers[t];
    if (k->prev)
        k->prev->timers[t].next = k->next;
    else
        l->first = k->next;
    if (k->next)
        k->next->timers[t].prev = k->prev;
    else
        l->last = k->prev;
    s->timer_on[t] = false;
}

void session_timer_set(struct session_list *l, struct session *s, enum session_timer t, uint64_t now_ns)
{
    session_timer_stop(l, s, t);
    s->timers[t] = (struct session_link){l->last, NULL};
    if (l->last)
        l->last->timers[t].next = s;
    else
        l->first = s;
    l->last = s;
    s->timer_ns[t] = now_ns;
    s->timer_on[t] = true;
}

struct sub *session_sub(const struct session *s, const struct chat *c)
{
    /* the shorter of the two lists */
    if (s->subs_n <= c->subs_n) {
        for (uint32_t i = 0; i < s->subs_n; i++)
            if (s->subs[i]->chat == c)
                return s->subs[i];
        return NULL;
    }
    for (uint32_t i = 0; i < c->subs_n; i++)
        if (c->subs[i]->session == s)
            return c->subs[i];
    return NULL;
}

int session_sub_add(struct session *s, struct chat *c, uint64_t pushed, struct sub **out)
{
    if (s->subs_n == s->subs_cap) {
        uint32_t cap = s->subs_cap ? s->subs_cap * 2 : 4;
        struct sub **p = realloc(s->subs, cap * sizeof *p);
        if (!p)
            return ERR_NOMEM;
        s->subs = p;
        s->subs_cap = cap;
    }
    struct sub *sub = calloc(1, sizeof *sub);
    if (!sub)
        return ERR_NOMEM;
    *sub = (struct sub){.session = s, .chat = c, .pushed = pushed, .acked = pushed};
    if (chat_sub_add(c, sub)) {
        free(sub);
        return ERR_NOMEM;
    }
    s->subs[s->subs_n++] = sub;
    *out = sub;
    return 0;
}

static void behind_remove(struct session *s, struct sub *sub)
{
    struct sub **at = &s->behind_first, *prev = NULL;
    while (*at && *at != sub) {
        prev = *at;
        at = &(*at)->next_behind;
    }
    if (!*at)
        return;
    *at = sub->next_behind;
    if (s->behind_last == sub)
        s->behind_last = prev;
    sub->behind = false;
}

void session_sub_drop(struct session *s, struct sub *sub)
{
    if (sub->behind)
        behind_remove(s, sub);
    chat_sub_drop(sub->chat, sub);
    for (uint32_t i = 0; i < s->subs_n; i++)
        if (s->subs[i] == sub) {
            s->subs[i] = s->subs[--s->subs_n];
            break;
        }
    free(sub);
}

void session_behind_push(struct session *s, struct sub *sub)
{
    sub->live = false;
    if (sub->behind)
        return;
    sub->behind = true;
    sub->next_behind = NULL;
    if (s->behind_last)
        s->behind_last->next_behind = sub;
    else
        s->behind_first = sub;
    s->behind_last = sub;
}

struct sub *session_behind_pop(struct session *s)
{
    struct sub *sub = s->behind_first;
    if (!sub)
        return NULL;
    s->behind_first = sub->next_behind;
    if (!s->behind_first)
        s->behind_last = NULL;
    sub->behind = false;
    return sub;
}
