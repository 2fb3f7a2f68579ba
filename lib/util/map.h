/* Hash map with fixed-size keys and values, open addressing, linear probing, deletion by backward shift.
 *
 * Keys are compared as bytes (fill padding with zeros); values are bytes too. A pointer to a value stays good
 * only until the next insertion or deletion. The maximum number of entries is stated at init; inserting past
 * it gives NULL. Seed it per process where keys come from outside, so that nobody can build collisions. */
#ifndef UTIL_MAP_H
#define UTIL_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct map {
    uint8_t *slots; /* each: used u8 .. padded to 8, key, value */
    uint32_t key_size, val_size, slot_size;
    uint64_t seed;
    size_t count, cap, max;
};

/* key_size and val_size are in bytes and multiples of 8; at most 64 each. */
void map_init(struct map *m, size_t key_size, size_t val_size, size_t max, uint64_t seed);
void map_release(struct map *m);
void map_clear(struct map *m);
/* The value of a key, or NULL. */
void *map_get(const struct map *m, const void *key);
/* The value of a key, zeroed if it was not there (*fresh says so; fresh may be NULL). NULL: full or no
 * memory. */
void *map_put(struct map *m, const void *key, bool *fresh);
/* True when it was there. */
bool map_del(struct map *m, const void *key);
/* Walk: *at starts at 0; returns false at the end. No insertion or deletion meanwhile. */
bool map_next(const struct map *m, size_t *at, const void **key, void **val);

static inline void *map_get_u64(const struct map *m, uint64_t key)
{
    return map_get(m, &key);
}
static inline void *map_put_u64(struct map *m, uint64_t key, bool *fresh)
{
    return map_put(m, &key, fresh);
}
static inline bool map_del_u64(struct map *m, uint64_t key)
{
    return map_del(m, &key);
}
/* Pointer-valued maps (val_size 8). */
static inline void *map_get_ptr(const struct map *m, uint64_t key)
{
    void **v = map_get(m, &key);
    return v ? *v : NULL;
}

/* The hash used (a wyhash-like mix), for others that need a good 64-bit hash of few bytes. */
uint64_t hash_bytes(const void *p, size_t n, uint64_t seed);

#endif
