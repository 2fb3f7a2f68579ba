#include "util/map.h"

#include <stdlib.h>
#include <string.h>

#include "util/err.h"

#define HEADER 8 /* one byte of "used", padded so that keys stay aligned */

static uint64_t mix(uint64_t a, uint64_t b)
{
    unsigned __int128 m = (unsigned __int128)a * b;
    return (uint64_t)m ^ (uint64_t)(m >> 64);
}

uint64_t hash_bytes(const void *p, size_t n, uint64_t seed)
{
    const uint8_t *s = p;
    uint64_t h = seed ^ 0xa0761d6478bd642full, w;
    size_t left = n;
    for (; left >= 8; left -= 8, s += 8) {
        memcpy(&w, s, 8);
        h = mix(h ^ w, 0xe7037ed1a0b428dbull);
    }
    if (left) {
        w = 0;
        memcpy(&w, s, left);
        h = mix(h ^ w, 0x8ebc6af09c88c6e3ull);
    }
    return mix(h ^ n, 0x589965cc75374cc3ull);
}

void map_init(struct map *m, size_t key_size, size_t val_size, size_t max, uint64_t seed)
{
    BUG_ON(key_size % 8 || val_size % 8 || key_size > 64 || val_size > 64 || !key_size);
    *m = (struct map){.key_size = (uint32_t)key_size,
                      .val_size = (uint32_t)val_size,
                      .slot_size = (uint32_t)(HEADER + key_size + val_size),
                      .max = max,
                      .seed = seed};
}

void map_release(struct map *m)
{
    free(m->slots);
    m->slots = NULL;
    m->count = m->cap = 0;
}

void map_clear(struct map *m)
{
    if (m->slots)
        memset(m->slots, 0, m->cap * m->slot_size);
    m->count = 0;
}

static uint8_t *slot(const struct map *m, size_t i)
{
    return m->slots + i * m->slot_size;
}

static size_t home(const struct map *m, const void *key)
{
    return hash_bytes(key, m->key_size, m->seed) & (m->cap - 1);
}

/* The slot that holds the key, or the free slot where it would go. */
static size_t find(const struct map *m, const void *key)
{
    size_t i = home(m, key);
    for (;; i = (i + 1) & (m->cap - 1)) {
        uint8_t *s = slot(m, i);
        if (!s[0] || memcmp(s + HEADER, key, m->key_size) == 0)
            return i;
    }
}

void *map_get(const struct map *m, const void *key)
{
    if (!m->count)
        return NULL;
    uint8_t *s = slot(m, find(m, key));
    return s[0] ? s + HEADER + m->key_size : NULL;
}

static bool grow(struct map *m)
{
    size_t old_cap = m->cap;
    uint8_t *old = m->slots;
    size_t cap = old_cap ? old_cap * 2 : 16;
    uint8_t *fresh = calloc(cap, m->slot_size);
    if (!fresh)
        return false;
    m->slots = fresh;
    m->cap = cap;
    for (size_t i = 0; i < old_cap; i++) {
        uint8_t *s = old + i * m->slot_size;
        if (s[0])
            memcpy(slot(m, find(m, s + HEADER)), s, m->slot_size);
    }
    free(old);
    return true;
}

void *map_put(struct map *m, const void *key, bool *fresh)
{
    void *found = map_get(m, key);
    if (fresh)
        *fresh = !found;
    if (found)
        return found;
    if (m->count >= m->max)
        return NULL;
    if ((m->count + 1) * 4 > m->cap * 3 && !grow(m))
        return NULL;
    uint8_t *s = slot(m, find(m, key));
    s[0] = 1;
    memcpy(s + HEADER, key, m->key_size);
    memset(s + HEADER + m->key_size, 0, m->val_size);
    m->count++;
    return s + HEADER + m->key_size;
}

bool map_del(struct map *m, const void *key)
{
    if (!m->count)
        return false;
    size_t hole = find(m, key);
    if (!slot(m, hole)[0])
        return false;
    size_t mask = m->cap - 1;
    for (size_t i = (hole + 1) & mask; slot(m, i)[0]; i = (i + 1) & mask) {
        size_t h = home(m, slot(m, i) + HEADER);
        if (((i - h) & mask) >= ((i - hole) & mask)) {
            memcpy(slot(m, hole), slot(m, i), m->slot_size);
            hole = i;
        }
    }
    memset(slot(m, hole), 0, m->slot_size);
    m->count--;
    return true;
}

bool map_next(const struct map *m, size_t *at, const void **key, void **val)
{
    for (; *at < m->cap; ++*at) {
        uint8_t *s = slot(m, *at);
        if (!s[0])
            continue;
        if (key)
            *key = s + HEADER;
        if (val)
            *val = s + HEADER + m->key_size;
        ++*at;
        return true;
    }
    return false;
}
