/* Many objects of one size, named by 32-bit numbers that never change: 4 bytes instead of a pointer, 8 bytes
 * fewer than malloc takes for itself, and no gaps. Number 0 is nobody.
 *
 * Objects live in chunks of 64 KiB, aligned to their size, so that a pointer tells its number. Memory of
 * objects given back is reused, never returned before slab_release. A walk from 1 to slab_top also meets
 * objects that were given back: they are zero, except for their first 4 bytes. */
#ifndef UTIL_SLAB_H
#define UTIL_SLAB_H

#include <stddef.h>
#include <stdint.h>

#define SLAB_CHUNK 65536u
#define SLAB_HEAD  64u /* of a chunk; objects begin on a cache line */

struct slab {
    char **chunks;
    void **groups; /* what was allocated: chunks come by the dozen */
    uint32_t chunks_n, chunks_cap, groups_n, per_chunk, size;
    uint32_t top, free, live, max;
};

/* size: 8 to 4096, a multiple of 4 (8 for objects with 64-bit members); at most `max` objects. */
void slab_init(struct slab *p, uint32_t size, uint32_t max);
void slab_release(struct slab *p);
/* A zeroed object; NULL: no memory, or max reached. */
void *slab_take(struct slab *p);
void slab_give(struct slab *p, void *object);

static inline void *slab_at(const struct slab *p, uint32_t number)
{
    uint32_t chunk = (number - 1) / p->per_chunk, at = (number - 1) % p->per_chunk;
    return p->chunks[chunk] + SLAB_HEAD + (size_t)at * p->size;
}
static inline uint32_t slab_number(const struct slab *p, const void *object)
{
    const char *chunk = (const char *)((uintptr_t)object & ~(uintptr_t)(SLAB_CHUNK - 1));
    return *(const uint32_t *)(const void *)chunk +
           (uint32_t)((const char *)object - chunk - SLAB_HEAD) / p->size;
}
/* For who will need an object soon. */
static inline void slab_fetch(const struct slab *p, uint32_t number)
{
    __builtin_prefetch(slab_at(p, number), 1);
}
/* The highest number ever given out. */
static inline uint32_t slab_top(const struct slab *p)
{
    return p->top;
}

#endif
