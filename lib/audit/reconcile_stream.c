/* What the two passes rest on: filters, and sources as ordered streams. */
#include <stdlib.h>
#include <string.h>

#include "audit/reconcile_impl.h"
#include "util/map.h"

int bloom_init(struct bloom *b, uint64_t bytes, struct err_ctx *ctx)
{
    b->lines = bytes / 64 ? bytes / 64 : 1;
    b->bits = calloc(b->lines, 64);
    return b->bits
               ? 0
               : err_set(ctx, ERR_NOMEM, "no memory for a filter of %llu bytes", (unsigned long long)bytes);
}

void bloom_release(struct bloom *b)
{
    free(b->bits);
    b->bits = NULL;
}

static uint64_t *line_of(const struct bloom *b, uint64_t hash)
{
    return b->bits + 8 * (uint64_t)(((unsigned __int128)hash * b->lines) >> 64);
}

void bloom_prefetch(const struct bloom *b, uint64_t hash)
{
    __builtin_prefetch(line_of(b, hash), 1);
}

/* Six 9-bit numbers out of the hash; the line came from its upper end, so they are mixed once more. */
static uint64_t spread(uint64_t hash)
{
    hash ^= hash >> 29;
    return hash * 0xbf58476d1ce4e5b9ull;
}

bool bloom_put(struct bloom *b, uint64_t hash)
{
    uint64_t *line = line_of(b, hash), bits = spread(hash) >> 10;
    bool all = true;
    for (int i = 0; i < 6; i++, bits >>= 9) {
        uint64_t mask = 1ull << (bits & 63), *word = &line[(bits >> 6) & 7];
        all = all && (*word & mask);
        *word |= mask;
    }
    return all;
}

bool bloom_has(const struct bloom *b, uint64_t hash)
{
    const uint64_t *line = line_of(b, hash);
    uint64_t bits = spread(hash) >> 10;
    for (int i = 0; i < 6; i++, bits >>= 9)
        if (!(line[(bits >> 6) & 7] & 1ull << (bits & 63)))
            return false;
    return true;
}

#define BY(field)                                                                                            \
    if (a->field != b->field)                                                                                \
    return a->field < b->field ? -1 : 1

int reconcile_order(const struct reconcile_row *a, const struct reconcile_row *b)
{
    BY(place);
    BY(chat);
    BY(seq);
    int c = memcmp(&a->id, &b->id, sizeof a->id);
    if (c)
        return c;
    BY(epoch);
    BY(from);
    return 0;
}

/* Claims of a witness: those of one id side by side, the most telling last. */
static int by_claim(const struct reconcile_row *a, const struct reconcile_row *b)
{
    int c = memcmp(&a->id, &b->id, sizeof a->id);
    if (c)
        return c;
    BY(chat);
    BY(flags);
    BY(seq);
    BY(epoch);
    return 0;
}

static long read_checked(struct stream *s, struct err_ctx *ctx)
{
    long n = s->sort ? reconcile_sort_read(s->sort, s->rows, STREAM_ROWS, ctx)
                     : s->source->read(s->source, s->rows, STREAM_ROWS, ctx);
    for (long i = 0; i < n && !s->sort; i++) {
        const struct reconcile_row *before = i ? &s->rows[i - 1] : s->any ? &s->last : NULL;
        if (before && reconcile_order(before, &s->rows[i]) > 0)
            return err_set(ctx, ERR_CORRUPT, "%s: row %llu is out of order", s->source->name,
                           (unsigned long long)(s->count + (uint64_t)i + 1));
    }
    if (n > 0) {
        s->last = s->rows[n - 1];
        s->any = true;
        s->count += (uint64_t)n;
    }
    return n;
}

const struct reconcile_row *stream_peek(struct stream *s, int *rc, struct err_ctx *ctx)
{
    if (s->at < s->n)
        return &s->rows[s->at];
    if (s->ended)
        return NULL;
    long n = read_checked(s, ctx);
    s->at = 0;
    s->n = n > 0 ? (size_t)n : 0;
    s->ended = n <= 0;
    if (n < 0)
        *rc = (int)n;
    return n > 0 ? &s->rows[0] : NULL;
}

int stream_rewind(struct stream *s, struct err_ctx *ctx)
{
    s->at = s->n = 0;
    s->count = 0;
    s->ended = s->any = false;
    return s->sort ? reconcile_sort_rewind(s->sort, ctx) : s->source->rewind(s->source, ctx);
}

void stream_free(struct stream *s)
{
    if (s)
        reconcile_sort_free(s->sort);
    free(s);
}

static int read_all(struct reconcile *r, struct reconcile_source *source, struct reconcile_sort *into,
                    struct err_ctx *ctx)
{
    struct reconcile_row *rows = malloc(STREAM_ROWS * sizeof *rows);
    long n = rows ? 0 : err_set(ctx, ERR_NOMEM, "%s: out of memory", source->name);
    int rc = 0;
    while (rows && !rc && (n = source->read(source, rows, STREAM_ROWS, ctx)) > 0) {
        for (long i = 0; i < n && !rc; i++)
            rc = reconcile_sort_add(into, &rows[i], ctx);
        r->read += (uint64_t)n;
        rc = rc ? rc : reconcile_tell(r, RECONCILE_SORTING, ctx);
    }
    free(rows);
    rc = n < 0 ? (int)n : rc;
    return rc ? rc : reconcile_sort_rewind(into, ctx);
}

/* One row of what all claims of an id say together. */
static void join_claim(struct reconcile_row *all, const struct reconcile_row *c)
{
    if (c->has & RECONCILE_HAS_SEQ && (!(all->has & RECONCILE_HAS_SEQ) || c->flags & RECONCILE_ACCEPTED)) {
        all->seq = c->seq;
        all->epoch = c->epoch;
    }
    if (c->has & RECONCILE_HAS_FROM)
        all->from = c->from;
    if (c->has & RECONCILE_HAS_HASH)
        memcpy(all->hash, c->hash, sizeof all->hash);
    if (c->has & RECONCILE_HAS_TS && !(all->has & RECONCILE_HAS_TS))
        all->ts_us = c->ts_us;
    all->has |= c->has;
    all->flags |= c->flags;
}

/* What has no seq stands behind its chat, as UINT64_MAX. */
static int put_joined(struct reconcile_sort *into, struct reconcile_row *all, struct err_ctx *ctx)
{
    if (!(all->has & RECONCILE_HAS_SEQ))
        all->seq = UINT64_MAX;
    return reconcile_sort_add(into, all, ctx);
}

static int join_claims(struct reconcile_sort *claims, struct reconcile_sort *into, struct err_ctx *ctx)
{
    struct reconcile_row row, all;
    bool any = false;
    long n;
    int rc = 0;
    while (!rc && (n = reconcile_sort_read(claims, &row, 1, ctx)) != 0) {
        if (n < 0)
            return (int)n;
        if (any && id_equal(&all.id, &row.id) && (!row.chat || all.chat == row.chat || !all.chat)) {
            if (!all.chat) { /* a claim that does not name the chat (gave up) */
                all.chat = row.chat;
                all.place = row.place;
            }
            join_claim(&all, &row);
            continue;
        }
        rc = any ? put_joined(into, &all, ctx) : 0;
        all = row;
        any = true;
    }
    return rc || !any ? rc : put_joined(into, &all, ctx);
}

int stream_begin(struct reconcile *r, int i, struct reconcile_source *source, struct err_ctx *ctx)
{
    struct stream *s = r->stream[i] = calloc(1, sizeof *s);
    if (!s)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    s->source = source;
    int rc = source->rewind(source, ctx);
    if (rc)
        return rc;
    if (source->sorted && !source->witness)
        return 0;
    size_t mem =
        (size_t)(r->mem / 4 / (uint64_t)r->n); /* sorting itself may double it, before the filters fill */
    rc = reconcile_sort_new(&s->sort, mem, r->config->tmp, reconcile_order, ctx);
    if (rc || !source->witness)
        return rc ? rc : read_all(r, source, s->sort, ctx);
    struct reconcile_sort *claims = NULL;
    rc = reconcile_sort_new(&claims, mem, r->config->tmp, by_claim, ctx);
    rc = rc ? rc : read_all(r, source, claims, ctx);
    rc = rc ? rc : join_claims(claims, s->sort, ctx);
    reconcile_sort_free(claims);
    return rc ? rc : reconcile_sort_rewind(s->sort, ctx);
}
