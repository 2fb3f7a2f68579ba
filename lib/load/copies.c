#include "load/copies.h"

#include <stdlib.h>
#include <string.h>

#define COPIES_MAX (1u << 28)

struct copy {
    struct msg m; /* kind and body point into text */
    char text[];
};
struct owned {
    uint64_t owner;
    struct id id;
};

void copies_init(struct copies *c)
{
    map_init(&c->entries, 24, 8, COPIES_MAX, 5);
    map_init(&c->ids, sizeof(struct owned), 8, COPIES_MAX, 6);
}

void copies_release(struct copies *c)
{
    size_t at = 0;
    void *v;
    if (!c->entries.key_size)
        return;
    while (map_next(&c->entries, &at, NULL, &v))
        free(*(struct copy **)v);
    map_release(&c->entries);
    map_release(&c->ids);
}

/* The shared copy, made if need be. */
static struct copy *shared(struct copies *c, const struct msg *m)
{
    uint64_t key[3] = {m->chat, m->epoch, m->seq};
    struct copy **slot = map_put(&c->entries, key, NULL);
    if (!slot || *slot)
        return slot ? *slot : NULL;
    struct copy *e = malloc(sizeof *e + m->kind.n + m->body.n);
    if (!e) {
        map_del(&c->entries, key);
        return NULL;
    }
    e->m = (struct msg){.t = MSG_MSG,
                        .chat = m->chat,
                        .epoch = m->epoch,
                        .seq = m->seq,
                        .id = m->id,
                        .from = m->from,
                        .ts = m->ts,
                        .kind = {e->text, m->kind.n},
                        .body = {e->text + m->kind.n, m->body.n},
                        .tag_len = m->tag_len};
    memcpy(e->m.tag, m->tag, sizeof e->m.tag);
    if (m->kind.n)
        memcpy(e->text, m->kind.p, m->kind.n);
    if (m->body.n)
        memcpy(e->text + m->kind.n, m->body.p, m->body.n);
    *slot = e;
    return e;
}

/* The first place with seq >= this. */
static uint32_t place(const struct copy_list *l, uint64_t seq)
{
    uint32_t lo = 0, hi = l->n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (l->at[mid]->m.seq < seq)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

void copies_keep(struct copies *c, struct copy_list *l, uint64_t owner, const struct msg *m)
{
    struct copy *e = shared(c, m);
    struct owned key = {owner, m->id};
    uint64_t *held = e ? map_put(&c->ids, &key, NULL) : NULL;
    if (!held)
        return;
    *held = 1;
    uint32_t i = place(l, m->seq);
    if (i < l->n && l->at[i]->m.seq == m->seq) {
        l->at[i] = e;
        return;
    }
    if (l->n == l->cap) {
        uint32_t cap = l->cap ? l->cap * 2 : 16;
        struct copy **p = realloc(l->at, cap * sizeof *p);
        if (!p)
            return;
        l->at = p;
        l->cap = cap;
    }
    memmove(&l->at[i + 1], &l->at[i], (l->n - i) * sizeof *l->at);
    l->at[i] = e;
    l->n++;
}

bool copies_find(const struct copy_list *l, uint64_t from, uint64_t to, bool last, struct msg *out)
{
    uint32_t i = last ? (to == UINT64_MAX ? l->n : place(l, to + 1)) : place(l, from);
    if (last && i-- == 0)
        return false;
    if (i >= l->n || l->at[i]->m.seq < from || l->at[i]->m.seq > to)
        return false;
    *out = l->at[i]->m;
    return true;
}

bool copies_held(const struct copies *c, uint64_t owner, const struct id *id)
{
    struct owned key = {owner, *id};
    return map_get(&c->ids, &key) != NULL;
}

void copies_forget(struct copies *c, struct copy_list *l, uint64_t owner)
{
    for (uint32_t i = 0; i < l->n; i++) {
        struct owned key = {owner, l->at[i]->m.id};
        map_del(&c->ids, &key);
    }
    free(l->at);
    *l = (struct copy_list){0};
}
