#include "core/session.h"

#include <stdlib.h>
#include <string.h>

int session_clocks_make(struct session_clocks *c, uint32_t number)
{
    uint32_t page = number / CLOCKS_PAGE;
    if (page >= c->pages_n) {
        struct session_clock **p = realloc(c->pages, (page + 1) * sizeof(void *));
        if (!p)
            return ERR_NOMEM;
        memset(p + c->pages_n, 0, (page + 1 - c->pages_n) * sizeof(void *));
        c->pages = p;
        c->pages_n = page + 1;
    }
    if (!c->pages[page])
        c->pages[page] = calloc(CLOCKS_PAGE, sizeof **c->pages);
    return c->pages[page] ? 0 : ERR_NOMEM;
}

void session_clocks_release(struct session_clocks *c)
{
    for (uint32_t i = 0; i < c->pages_n; i++)
        free(c->pages[i]);
    free(c->pages);
    *c = (struct session_clocks){0};
}

struct session_extra *session_extra(struct registry *r, struct session *s, bool make)
{
    if (s->extra)
        return slab_at(&r->extras, s->extra);
    struct session_extra *x = make ? slab_take(&r->extras) : NULL;
    if (x)
        s->extra = slab_number(&r->extras, x);
    return x;
}

void session_extra_trim(struct registry *r, struct session *s)
{
    struct session_extra *x = session_extra(r, s, false);
    if (!x)
        return;
    free(x->claims);
    x->claims = NULL;
    x->claims_n = 0;
    if (x->sync_first)
        return;
    slab_give(&r->extras, x);
    s->extra = 0;
}

struct sub *session_sub(const struct registry *r, const struct session *s, const struct chat *c)
{
    /* the shorter of the two lists */
    if (s->subs_n <= c->subs_n) {
        uint32_t chat = slab_number(&r->chats, c);
        for (struct sub *sub = registry_sub(r, s->subs); sub; sub = registry_sub(r, sub->next))
            if (sub->chat == chat)
                return sub;
        return NULL;
    }
    uint32_t session = session_number(r, s);
    for (uint32_t i = 0; i < c->subs_n; i++) {
        struct sub *sub = registry_sub(r, c->subs[i]);
        if (sub->session == session)
            return sub;
    }
    return NULL;
}

int session_sub_add(struct registry *r, struct session *s, struct chat *c, uint64_t pushed, struct sub **out)
{
    struct sub *sub = s->subs_n < UINT16_MAX ? slab_take(&r->subs) : NULL;
    if (!sub)
        return s->subs_n < UINT16_MAX ? ERR_NOMEM : ERR_LIMIT;
    *sub = (struct sub){.session = session_number(r, s),
                        .chat = slab_number(&r->chats, c),
                        .pushed = pushed,
                        .acked = pushed,
                        .next = s->subs};
    if (chat_sub_add(r, c, sub)) {
        slab_give(&r->subs, sub);
        return ERR_NOMEM;
    }
    s->subs = slab_number(&r->subs, sub);
    s->subs_n++;
    *out = sub;
    return 0;
}

static void behind_remove(struct registry *r, struct session *s, struct sub *sub)
{
    struct sub *before = registry_sub(r, s->behind);
    uint32_t number = slab_number(&r->subs, sub);
    while (before->next_behind != number)
        before = registry_sub(r, before->next_behind);
    before->next_behind = sub->next_behind;
    if (s->behind == number)
        s->behind = before == sub ? 0 : slab_number(&r->subs, before);
    sub->behind = false;
}

void session_sub_drop(struct registry *r, struct session *s, struct sub *sub)
{
    uint32_t number = slab_number(&r->subs, sub), *at = &s->subs;
    if (sub->behind)
        behind_remove(r, s, sub);
    chat_sub_drop(r, sub_chat(r, sub), sub);
    while (*at != number)
        at = &registry_sub(r, *at)->next;
    *at = sub->next;
    s->subs_n--;
    slab_give(&r->subs, sub);
}

void session_behind_push(struct registry *r, struct session *s, struct sub *sub)
{
    sub->live = false;
    if (sub->behind)
        return;
    uint32_t number = slab_number(&r->subs, sub);
    struct sub *last = registry_sub(r, s->behind);
    sub->behind = true;
    sub->next_behind = last ? last->next_behind : number;
    if (last)
        last->next_behind = number;
    s->behind = number;
}

struct sub *session_behind_pop(struct registry *r, struct session *s)
{
    struct sub *last = registry_sub(r, s->behind);
    if (!last)
        return NULL;
    struct sub *sub = registry_sub(r, last->next_behind);
    last->next_behind = sub->next_behind;
    if (sub == last)
        s->behind = 0;
    sub->behind = false;
    return sub;
}
