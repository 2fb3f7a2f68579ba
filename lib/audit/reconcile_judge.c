/* The second pass: all that any source says about a suspect id, side by side, and what follows from it. */
#include <stdlib.h>
#include <string.h>

#include "audit/reconcile_impl.h"

/* What is known of one id. */
struct group {
    struct reconcile *r;
    const struct reconcile_row *rows;
    size_t from[RECONCILE_SOURCES_MAX], n[RECONCILE_SOURCES_MAX];
    bool told_lost[RECONCILE_SOURCES_MAX], told_moved[RECONCILE_SOURCES_MAX];
    bool accepted, surfaced, in_a_log;
    uint8_t used[RECONCILE_GROUP_MAX];
};

static int by_id(const struct reconcile_row *a, const struct reconcile_row *b)
{
    int c = memcmp(&a->id, &b->id, sizeof a->id);
    if (c)
        return c;
    if (a->source != b->source)
        return a->source < b->source ? -1 : 1;
    return reconcile_order(a, b);
}

static int tell(struct group *g, enum reconcile_kind kind, int source, int witness,
                const struct reconcile_row *want, const struct reconcile_row *have, struct err_ctx *ctx)
{
    struct reconcile *r = g->r;
    struct reconcile_finding f = {kind, source, witness, g->accepted, want, have};
    r->out->source[source].count[kind]++;
    r->out->source[source].accepted_lost += kind == RECONCILE_LOST && g->accepted;
    return r->config->found ? r->config->found(r->config->arg, &f, ctx) : 0;
}

static bool is_witness(const struct group *g, int i)
{
    return g->r->stream[i]->source->witness;
}

static bool same_sender(const struct reconcile_row *a, const struct reconcile_row *b)
{
    return !(a->has & b->has & RECONCILE_HAS_FROM) || a->from == b->from;
}

static bool same_place(const struct reconcile_row *a, const struct reconcile_row *b)
{
    return a->chat == b->chat && a->seq == b->seq;
}

/* Any row of a source by the same sender. */
static const struct reconcile_row *row_of(const struct group *g, int i, const struct reconcile_row *like)
{
    for (size_t k = 0; k < g->n[i]; k++)
        if (same_sender(&g->rows[g->from[i] + k], like))
            return &g->rows[g->from[i] + k];
    return NULL;
}

/* They are about one message, and are not the same. */
static enum reconcile_kind difference(const struct reconcile_row *want, const struct reconcile_row *have)
{
    struct reconcile_row moved = *have;
    if (want->flags & RECONCILE_DELETED && !(have->flags & RECONCILE_DELETED))
        return RECONCILE_ZOMBIE;
    moved.seq = want->seq;
    moved.epoch = want->epoch;
    return !same_place(want, have) && reconcile_same(want, &moved, 0xff) ? RECONCILE_REORDERED
                                                                         : RECONCILE_DIVERGED;
}

/* Copies that are whole first, then those at the same place, then any. */
static bool fits(const struct reconcile_row *want, const struct reconcile_row *have, int round)
{
    switch (round) {
    case 0:
        return reconcile_same(want, have, 0xff);
    case 1:
        return same_place(want, have);
    default:
        return same_sender(want, have);
    }
}

static int pair_up(struct group *g, int i, struct err_ctx *ctx)
{
    int rc = 0;
    for (int round = 0; round < 3; round++)
        for (size_t t = g->from[0]; t < g->from[0] + g->n[0]; t++)
            for (size_t o = g->from[i]; o < g->from[i] + g->n[i] && !g->used[t] && !rc; o++) {
                if (g->used[o] || !fits(&g->rows[t], &g->rows[o], round))
                    continue;
                g->used[t] = g->used[o] = 1;
                if (round)
                    rc = tell(g, difference(&g->rows[t], &g->rows[o]), i, -1, &g->rows[t], &g->rows[o], ctx);
            }
    return rc;
}

/* One of several rows of a sender before `at`, in the same source. */
static bool has_earlier(const struct group *g, int i, size_t at)
{
    for (size_t k = g->from[i]; k < at; k++)
        if (same_sender(&g->rows[k], &g->rows[at]))
            return true;
    return false;
}

static int compare_logs(struct group *g, int i, struct err_ctx *ctx)
{
    memset(g->used + g->from[0], 0, g->n[0]);
    memset(g->used + g->from[i], 0, g->n[i]);
    int rc = pair_up(g, i, ctx);
    for (size_t t = g->from[0]; t < g->from[0] + g->n[0] && !rc; t++) {
        const struct reconcile_row *want = &g->rows[t];
        if (g->used[t] || row_of(g, i, want) || has_earlier(g, 0, t) || want->flags & RECONCILE_DELETED)
            continue;
        g->told_lost[i] = true;
        rc = tell(g, RECONCILE_LOST, i, -1, want, NULL, ctx);
    }
    for (size_t o = g->from[i]; o < g->from[i] + g->n[i] && !rc; o++) {
        const struct reconcile_row *have = &g->rows[o];
        if (g->used[o])
            continue;
        if (row_of(g, 0, have) || has_earlier(g, i, o))
            rc = tell(g, RECONCILE_DUPLICATE, i, -1, row_of(g, 0, have), have, ctx);
        else if (!g->accepted) /* else the truth is what lost it */
            rc = tell(g, RECONCILE_PHANTOM, i, -1, NULL, have, ctx);
    }
    return rc;
}

static int own_duplicates(struct group *g, int i, struct err_ctx *ctx)
{
    int rc = 0;
    for (size_t k = g->from[i]; k < g->from[i] + g->n[i] && !rc; k++)
        if (has_earlier(g, i, k))
            rc = tell(g, RECONCILE_DUPLICATE, i, -1, row_of(g, i, &g->rows[k]), &g->rows[k], ctx);
    return rc;
}

/* A log lacks what a witness knows. */
static int missing(struct group *g, int w, int i, const struct reconcile_row *claim, struct err_ctx *ctx)
{
    enum reconcile_kind kind = g->accepted                         ? RECONCILE_LOST
                               : claim->flags & RECONCILE_SURFACED ? RECONCILE_UNCONFIRMED
                                                                   : RECONCILE_NEVER_ACCEPTED;
    if (g->told_lost[i] || (kind == RECONCILE_NEVER_ACCEPTED && (g->in_a_log || g->surfaced)))
        return 0;
    g->told_lost[i] = true;
    return tell(g, kind, i, w, claim, NULL, ctx);
}

static int hear_claim(struct group *g, int w, int i, const struct reconcile_row *claim, struct err_ctx *ctx)
{
    const struct reconcile_row *near = NULL;
    if (!row_of(g, i, claim))
        return missing(g, w, i, claim, ctx);
    /* if the truth has it, what the others make of it was told against the truth */
    if (g->told_moved[i] || (i && !is_witness(g, 0) && g->n[0]))
        return 0;
    for (size_t k = g->from[i]; k < g->from[i] + g->n[i]; k++) {
        const struct reconcile_row *have = &g->rows[k];
        if (have->flags & RECONCILE_DELETED || reconcile_same(claim, have, 0xff))
            return 0;
        near = same_place(claim, have) || !near ? have : near;
    }
    if (!(claim->has & RECONCILE_HAS_SEQ) && reconcile_same(claim, near, 0xff))
        return 0;
    g->told_moved[i] = true;
    return tell(g, difference(claim, near), i, w, claim, near, ctx);
}

static int hear_witnesses(struct group *g, struct err_ctx *ctx)
{
    int rc = 0;
    for (int w = 0; w < g->r->n; w++)
        for (size_t k = g->from[w]; is_witness(g, w) && k < g->from[w] + g->n[w]; k++)
            for (int i = 0; i < g->r->n && !rc; i++)
                if (!is_witness(g, i))
                    rc = hear_claim(g, w, i, &g->rows[k], ctx);
    return rc;
}

/* The truth is what clients say: what none of them knows is a phantom. */
static int unheard_of(struct group *g, int i, struct err_ctx *ctx)
{
    int rc = 0;
    for (size_t k = g->from[i]; k < g->from[i] + g->n[i] && !rc; k++) {
        const struct reconcile_row *have = &g->rows[k];
        if (!(have->flags & RECONCILE_SYSTEM) && !has_earlier(g, i, k) && !row_of(g, 0, have))
            rc = tell(g, RECONCILE_PHANTOM, i, 0, NULL, have, ctx);
    }
    return rc;
}

int reconcile_judge_group(struct reconcile *r, const struct reconcile_row *rows, size_t n,
                          struct err_ctx *ctx)
{
    struct group *g = calloc(1, sizeof *g);
    if (!g)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    g->r = r;
    g->rows = rows;
    for (size_t k = n; k-- > 0;) {
        g->from[rows[k].source] = k;
        g->n[rows[k].source]++;
    }
    for (size_t k = 0; k < n; k++) {
        bool claim = is_witness(g, (int)rows[k].source);
        g->accepted |= claim && rows[k].flags & RECONCILE_ACCEPTED;
        g->surfaced |= claim && rows[k].flags & RECONCILE_SURFACED;
        g->in_a_log |= !claim;
    }
    int rc = 0;
    bool heard = is_witness(g, 0);
    for (int i = 0; i < r->n && !rc; i++) {
        if (is_witness(g, i))
            continue;
        if (i == 0 || heard)
            rc = own_duplicates(g, i, ctx);
        if (i && !heard && !rc)
            rc = compare_logs(g, i, ctx);
        else if (heard && !rc)
            rc = unheard_of(g, i, ctx);
    }
    rc = rc ? rc : hear_witnesses(g, ctx);
    free(g);
    return rc;
}

/* The suspects among the rows that a stream has at hand. */
static int collect_some(struct reconcile *r, int i, struct err_ctx *ctx)
{
    struct stream *s = r->stream[i];
    struct reconcile_row *rows = s->rows + s->at;
    size_t n = s->n - s->at;
    uint64_t hashes[BLOOM_AHEAD];
    int rc = 0;
    for (size_t k = 0; k < n + BLOOM_AHEAD && !rc; k++) {
        uint64_t *hash = &hashes[k % BLOOM_AHEAD];
        if (k >= BLOOM_AHEAD && bloom_has(&r->suspects, *hash)) {
            struct reconcile_row *row = &rows[k - BLOOM_AHEAD];
            row->source = (uint32_t)i;
            rc = reconcile_sort_add(r->by_id, row, ctx);
            r->out->collected++;
        }
        if (k < n) {
            *hash = reconcile_id_hash(r, &rows[k].id);
            bloom_prefetch(&r->suspects, *hash);
        }
    }
    s->at = s->n;
    r->read += n;
    return rc;
}

static int collect(struct reconcile *r, struct err_ctx *ctx)
{
    int rc = 0;
    for (int i = 0; i < r->n && !rc; i++) {
        rc = stream_rewind(r->stream[i], ctx);
        for (int told = 0; !rc && stream_peek(r->stream[i], &rc, ctx); told++) {
            rc = collect_some(r, i, ctx);
            if (!rc && told % 16 == 0)
                rc = reconcile_tell(r, RECONCILE_COLLECTING, ctx);
        }
    }
    return rc ? rc : reconcile_sort_rewind(r->by_id, ctx);
}

static int judge_all(struct reconcile *r, struct reconcile_row *group, struct err_ctx *ctx)
{
    struct reconcile_row row;
    size_t n = 0;
    long got = 0;
    int rc = 0;
    while (!rc && (got = reconcile_sort_read(r->by_id, &row, 1, ctx)) > 0) {
        if (n && !id_equal(&group[0].id, &row.id)) {
            rc = reconcile_judge_group(r, group, n, ctx);
            n = 0;
        }
        if (n == RECONCILE_GROUP_MAX) {
            char text[ID_TEXT + 1];
            rc = err_set(ctx, ERR_LIMIT, "id %s: more than %u rows have it", id_str(&row.id, text),
                         RECONCILE_GROUP_MAX);
        } else {
            group[n++] = row;
        }
    }
    rc = got < 0 ? (int)got : rc;
    return rc || !n ? rc : reconcile_judge_group(r, group, n, ctx);
}

int reconcile_judge(struct reconcile *r, struct err_ctx *ctx)
{
    if (!r->suspects_n)
        return 0;
    struct reconcile_row *group = malloc(RECONCILE_GROUP_MAX * sizeof *group);
    int rc = group ? 0 : err_set(ctx, ERR_NOMEM, "out of memory");
    rc = rc ? rc : reconcile_sort_new(&r->by_id, (size_t)(r->mem / 4), r->config->tmp, by_id, ctx);
    rc = rc ? rc : collect(r, ctx);
    rc = rc ? rc : judge_all(r, group, ctx);
    reconcile_sort_free(r->by_id);
    free(group);
    return rc;
}
