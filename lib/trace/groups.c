#include "trace/index_impl.h"

#include <stdlib.h>
#include <string.h>

void groups_release(struct groups *g)
{
    free(g->key);
    free(g->first);
    free(g->rec);
    free(g->slot);
}

static uint32_t *slot_of(const struct groups *g, const struct id *key)
{
    uint32_t mask = g->slots - 1, i = (uint32_t)hash_bytes(key, sizeof *key, g->seed) & mask;
    while (g->slot[i] && !id_equal(&g->key[g->slot[i] - 1], key))
        i = (i + 1) & mask;
    return &g->slot[i];
}

uint32_t groups_find(const struct groups *g, const struct id *key)
{
    return g->slots ? *slot_of(g, key) - 1 : TRACE_NONE;
}

static bool groups_grow(struct groups *g)
{
    uint32_t cap = g->cap ? g->cap * 2 : 1024;
    struct id *key = realloc(g->key, (size_t)cap * sizeof *key);
    if (!key)
        return false;
    g->key = key;
    uint32_t *slot = calloc((size_t)cap * 2, sizeof *slot);
    if (!slot || cap > UINT32_MAX / 4) {
        free(slot);
        return false;
    }
    free(g->slot);
    g->slot = slot;
    g->slots = cap * 2;
    g->cap = cap;
    for (uint32_t i = 0; i < g->n; i++)
        *slot_of(g, &g->key[i]) = i + 1;
    return true;
}

static uint32_t groups_put(struct groups *g, const struct id *key)
{
    if (g->n == g->cap && !groups_grow(g))
        return TRACE_NONE;
    uint32_t *s = slot_of(g, key);
    if (!*s) {
        g->key[g->n] = *key;
        *s = ++g->n;
    }
    return *s - 1;
}

int groups_build(struct groups *g, const struct trace_run *r, key_fn *key_of, uint32_t *of)
{
    struct id key;
    uint32_t used = 0;
    for (uint32_t i = 0; i < r->events; i++) {
        of[i] = TRACE_NONE;
        if (!key_of(&r->event[i], &key))
            continue;
        of[i] = groups_put(g, &key);
        if (of[i] == TRACE_NONE)
            return ERR_NOMEM;
        used++;
    }
    g->first = calloc((size_t)g->n + 2, sizeof *g->first);
    g->rec = malloc(((size_t)used + 1) * sizeof *g->rec);
    if (!g->first || !g->rec)
        return ERR_NOMEM;
    for (uint32_t i = 0; i < r->events; i++)
        if (of[i] != TRACE_NONE)
            g->first[of[i] + 2]++;
    for (uint32_t i = 2; i < g->n + 2; i++)
        g->first[i] += g->first[i - 1];
    for (uint32_t i = 0; i < r->events; i++)
        if (of[i] != TRACE_NONE)
            g->rec[g->first[of[i] + 1]++] = i;
    return 0;
}
