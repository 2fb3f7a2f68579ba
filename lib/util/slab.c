#include "util/slab.h"

#include <stdlib.h>
#include <string.h>

#include "util/err.h"
#include "util/huge.h"

#define GROUP_CHUNKS 16u
#define LARGE_FROM   128u /* chunks: a pool of 8 MiB grows by huge pages */
#define LARGE_CHUNKS 128u

void slab_init(struct slab *p, uint32_t size, uint32_t max)
{
    BUG_ON(size < 8 || size > 4096 || size % 4);
    *p = (struct slab){.size = size, .per_chunk = (SLAB_CHUNK - SLAB_HEAD) / size, .max = max};
}

void slab_release(struct slab *p)
{
    for (uint32_t i = 0; i < p->groups_n; i++)
        free(p->groups[i]);
    free(p->groups);
    free(p->chunks);
    *p = (struct slab){.size = p->size, .per_chunk = p->per_chunk, .max = p->max};
}

/* Untouched memory of a slab is not resident yet. */
static int add_chunks(struct slab *p)
{
    uint32_t n = p->chunks_n < LARGE_FROM ? GROUP_CHUNKS : LARGE_CHUNKS;
    if (p->chunks_n + n > p->chunks_cap) {
        uint32_t cap = p->chunks_cap ? p->chunks_cap * 2 : GROUP_CHUNKS * 4; /* >= chunks_n + n */
        char **chunks = realloc(p->chunks, cap * sizeof *chunks);
        if (!chunks)
            return ERR_NOMEM;
        p->chunks = chunks;
        void **groups = realloc(p->groups, cap / GROUP_CHUNKS * sizeof *groups);
        if (!groups)
            return ERR_NOMEM;
        p->groups = groups;
        p->chunks_cap = cap;
    }
    char *group = aligned_alloc(n == LARGE_CHUNKS ? HUGE_PAGE : SLAB_CHUNK, (size_t)SLAB_CHUNK * n);
    if (!group)
        return ERR_NOMEM;
    if (n == LARGE_CHUNKS)
        huge_hint(group, (size_t)SLAB_CHUNK * n);
    p->groups[p->groups_n++] = group;
    for (uint32_t i = 0; i < n; i++)
        p->chunks[p->chunks_n + i] = group + (size_t)i * SLAB_CHUNK;
    p->chunks_n += n;
    return 0;
}

void *slab_take(struct slab *p)
{
    uint32_t number = p->free;
    void *object;
    if (number) {
        object = slab_at(p, number);
        memcpy(&p->free, object, sizeof p->free);
    } else {
        if (p->top >= p->max || (p->top / p->per_chunk >= p->chunks_n && add_chunks(p)))
            return NULL;
        number = ++p->top;
        object = slab_at(p, number);
        if ((number - 1) % p->per_chunk == 0)
            memcpy((char *)object - SLAB_HEAD, &number, sizeof number); /* the number of its first */
    }
    memset(object, 0, p->size);
    p->live++;
    return object;
}

void slab_give(struct slab *p, void *object)
{
    uint32_t number = slab_number(p, object);
    memset(object, 0, p->size);
    memcpy(object, &p->free, sizeof p->free);
    p->free = number;
    p->live--;
}
