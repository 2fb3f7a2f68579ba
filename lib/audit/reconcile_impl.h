/* Inside of reconcile.c and its neighbours. */
#ifndef AUDIT_RECONCILE_IMPL_H
#define AUDIT_RECONCILE_IMPL_H

#include "audit/reconcile.h"

#define STREAM_ROWS 4096u

/* Blocked Bloom filter (Putze, Sanders, Singler 2007): one cache line a key, 6 bits of it. */
struct bloom {
    uint64_t *bits;
    uint64_t lines; /* of 512 bits */
};
int bloom_init(struct bloom *b, uint64_t bytes, struct err_ctx *ctx);
void bloom_release(struct bloom *b);
/* True when it was there already (or seems so). */
bool bloom_put(struct bloom *b, uint64_t hash);
bool bloom_has(const struct bloom *b, uint64_t hash);
/* Filters are larger than caches: who asks for many keys says BLOOM_AHEAD of them ahead. */
#define BLOOM_AHEAD 16u
void bloom_prefetch(const struct bloom *b, uint64_t hash);

/* A source, in order, as often as it is wanted. */
struct stream {
    struct reconcile_source *source;
    struct reconcile_sort *sort; /* NULL: it is sorted itself */
    struct reconcile_row rows[STREAM_ROWS], last;
    size_t at, n;
    uint64_t count; /* rows given since the start */
    bool ended, any;
};
struct segment {
    struct reconcile_row *rows;
    size_t n, cap;
};

struct reconcile {
    const struct reconcile_config *config;
    struct reconcile_result *out;
    int n;
    uint64_t mem, read, suspects_n;
    struct stream *stream[RECONCILE_SOURCES_MAX];
    struct segment segment[RECONCILE_SOURCES_MAX];
    struct bloom suspects, seen;
    struct reconcile_sort *by_id;
};

/* The next row without taking it; NULL: the end, or an error in *rc. */
const struct reconcile_row *stream_peek(struct stream *s, int *rc, struct err_ctx *ctx);
int stream_begin(struct reconcile *r, int i, struct reconcile_source *source, struct err_ctx *ctx);
int stream_rewind(struct stream *s, struct err_ctx *ctx);
void stream_free(struct stream *s);

uint64_t reconcile_id_hash(const struct reconcile *r, const struct id *id);
int reconcile_tell(struct reconcile *r, enum reconcile_phase phase, struct err_ctx *ctx);

/* reconcile_judge.c: the second pass. */
int reconcile_judge(struct reconcile *r, struct err_ctx *ctx);
/* Of one id; `rows` in the order of (source, place, chat, seq). */
int reconcile_judge_group(struct reconcile *r, const struct reconcile_row *rows, size_t n,
                          struct err_ctx *ctx);

#endif
