/* The first pass: segments are compared by digest, differing ones row by row; suspects are noted. */
#include "audit/reconcile.h"

#include <stdlib.h>
#include <string.h>

#include "audit/reconcile_impl.h"
#include "util/map.h"

#define MEM_DEFAULT (256ull << 20)
#define GROW_FIRST  2048u

static const struct {
    const char *name, *text;
    bool differs;
} kinds[RECONCILE_KIND_COUNT] = {
#define RECONCILE(ID, name, differs, text) [RECONCILE_##ID] = {name, text, differs},
#include "audit/reconcile.def"
#undef RECONCILE
};

const char *reconcile_kind_name(enum reconcile_kind k)
{
    return kinds[k].name;
}

const char *reconcile_kind_text(enum reconcile_kind k)
{
    return kinds[k].text;
}

bool reconcile_kind_differs(enum reconcile_kind k)
{
    return kinds[k].differs;
}

uint64_t reconcile_id_hash(const struct reconcile *r, const struct id *id)
{
    return hash_bytes(id, sizeof *id, r->config->seed ^ 0x6964);
}

bool reconcile_same(const struct reconcile_row *a, const struct reconcile_row *b, uint8_t has)
{
    has &= a->has & b->has;
    if (a->chat != b->chat || (has & RECONCILE_HAS_SEQ && a->seq != b->seq) || !id_equal(&a->id, &b->id))
        return false;
    if ((has & RECONCILE_HAS_EPOCH && a->epoch != b->epoch) ||
        (has & RECONCILE_HAS_FROM && a->from != b->from))
        return false;
    if ((a->flags ^ b->flags) & RECONCILE_DELETED)
        return false;
    return a->flags & RECONCILE_DELETED || !(has & RECONCILE_HAS_HASH) ||
           !memcmp(a->hash, b->hash, sizeof a->hash);
}

int reconcile_tell(struct reconcile *r, enum reconcile_phase phase, struct err_ctx *ctx)
{
    const struct reconcile_config *c = r->config;
    if (c->progress)
        c->progress(c->arg, phase, r->read);
    return c->interrupted && *c->interrupted ? err_set(ctx, ERR_INTERRUPTED, "interrupted") : 0;
}

static uint64_t digest(const struct segment *g, uint8_t has, uint64_t seed)
{
    uint64_t sum = g->n;
    for (size_t i = 0; i < g->n; i++) {
        const struct reconcile_row *r = &g->rows[i];
        struct {
            uint64_t chat, seq, epoch, from, deleted;
            struct id id;
            uint8_t hash[16];
        } k = {.chat = r->chat, .seq = r->seq, .deleted = r->flags & RECONCILE_DELETED, .id = r->id};
        if (has & RECONCILE_HAS_EPOCH)
            k.epoch = r->epoch;
        if (has & RECONCILE_HAS_FROM)
            k.from = r->from;
        if (has & RECONCILE_HAS_HASH && !k.deleted)
            memcpy(k.hash, r->hash, sizeof k.hash);
        sum += hash_bytes(&k, sizeof k, seed);
    }
    return sum;
}

static int add_row(struct segment *g, const struct reconcile_row *row, struct err_ctx *ctx)
{
    if (g->n == g->cap) {
        size_t cap = g->cap ? g->cap * 2 : GROW_FIRST;
        struct reconcile_row *rows =
            cap > (64u << 20) / sizeof *rows ? NULL : realloc(g->rows, cap * sizeof *rows);
        if (!rows)
            return err_set(ctx, ERR_LIMIT, "chat %llu: more rows at seq %llu than fit in memory",
                           (unsigned long long)row->chat, (unsigned long long)row->seq);
        g->rows = rows;
        g->cap = cap;
    }
    g->rows[g->n++] = *row;
    return 0;
}

static void suspect(struct reconcile *r, const struct reconcile_row *row)
{
    r->suspects_n++;
    bloom_put(&r->suspects, reconcile_id_hash(r, &row->id));
}

static int by_position(const struct reconcile_row *a, const struct reconcile_row *b)
{
    if (a->seq != b->seq)
        return a->seq < b->seq ? -1 : 1;
    return memcmp(&a->id, &b->id, sizeof a->id);
}

/* `a` holds what should be; extra rows of b are of interest when `both`. */
static void merge(struct reconcile *r, const struct segment *a, const struct segment *b, bool both)
{
    size_t i = 0, j = 0;
    while (i < a->n || j < b->n) {
        int c = i == a->n ? 1 : j == b->n ? -1 : by_position(&a->rows[i], &b->rows[j]);
        if (c == 0 && !reconcile_same(&a->rows[i], &b->rows[j], 0xff)) {
            suspect(r, &a->rows[i]);
        } else if (c < 0) {
            suspect(r, &a->rows[i]);
        } else if (c > 0 && both) {
            suspect(r, &b->rows[j]);
        }
        i += c <= 0;
        j += c >= 0;
    }
}

/* An id that was there before, or seems so, is suspect. */
static void note_seen(struct reconcile *r, const struct segment *g)
{
    uint64_t hashes[BLOOM_AHEAD];
    for (size_t i = 0; i < g->n + BLOOM_AHEAD; i++) {
        uint64_t *hash = &hashes[i % BLOOM_AHEAD];
        if (i >= BLOOM_AHEAD && bloom_put(&r->seen, *hash))
            suspect(r, &g->rows[i - BLOOM_AHEAD]);
        if (i < g->n) {
            *hash = reconcile_id_hash(r, &g->rows[i].id);
            bloom_prefetch(&r->seen, *hash);
        }
    }
}

static void compare_segment(struct reconcile *r)
{
    const struct segment *truth = &r->segment[0];
    const struct reconcile_source *first = r->stream[0]->source;
    bool differs = false;
    uint64_t sum = 0;
    int mask = -1;
    if (!first->witness)
        note_seen(r, truth);
    for (int i = 1; i < r->n; i++) {
        const struct reconcile_source *s = r->stream[i]->source;
        if (!first->witness && !s->witness) {
            int has = first->has & s->has;
            if (has != mask)
                sum = digest(truth, (uint8_t)has, r->config->seed);
            mask = has;
            if (sum == digest(&r->segment[i], (uint8_t)has, r->config->seed))
                continue;
            merge(r, truth, &r->segment[i], true);
            differs = true;
        } else if (first->witness && !s->witness) {
            merge(r, truth, &r->segment[i], true);
        }
        for (int k = 0; s->witness && k < r->n; k++)
            if (!r->stream[k]->source->witness)
                merge(r, &r->segment[i], &r->segment[k], false);
    }
    r->out->segments++;
    r->out->segments_differing += differs;
}

static bool same_segment(const struct reconcile_row *a, const struct reconcile_row *b)
{
    return a->place == b->place && a->chat == b->chat &&
           a->seq / RECONCILE_SEGMENT == b->seq / RECONCILE_SEGMENT;
}

/* The rows of the least segment that any source stands at; false at the end. */
static bool next_segment(struct reconcile *r, int *rc, struct err_ctx *ctx)
{
    struct reconcile_row least;
    bool any = false;
    for (int i = 0; i < r->n && !*rc; i++) {
        const struct reconcile_row *row = stream_peek(r->stream[i], rc, ctx);
        if (row && (!any || reconcile_order(row, &least) < 0)) {
            least = *row;
            any = true;
        }
    }
    for (int i = 0; i < r->n && any && !*rc; i++) {
        struct stream *s = r->stream[i];
        const struct reconcile_row *row;
        r->segment[i].n = 0;
        while (!*rc && (row = stream_peek(s, rc, ctx)) && same_segment(row, &least)) {
            *rc = add_row(&r->segment[i], row, ctx);
            s->at++;
            r->out->source[i].rows++;
            r->read++;
        }
    }
    return any && !*rc;
}

static int first_pass(struct reconcile *r, struct err_ctx *ctx)
{
    int rc = 0;
    uint64_t told = 0;
    r->read = 0;
    while (next_segment(r, &rc, ctx)) {
        compare_segment(r);
        if (r->read - told >= STREAM_ROWS * 16) {
            told = r->read;
            rc = reconcile_tell(r, RECONCILE_COMPARING, ctx);
        }
    }
    r->out->rows = r->read;
    return rc;
}

static int check_sources(struct reconcile_source *const *sources, int n, struct err_ctx *ctx)
{
    int logs = 0;
    for (int i = 0; i < n; i++)
        logs += !sources[i]->witness;
    if (n < 2 || n > RECONCILE_SOURCES_MAX)
        return err_set(ctx, ERR_USAGE, "check compares 2 to %d sources", RECONCILE_SOURCES_MAX);
    return logs ? 0
                : err_set(ctx, ERR_USAGE,
                          "journals and traces say what was seen, not what is there: name a store, a backup, "
                          "a server or "
                          "an export too");
}

static void finish(struct reconcile *r)
{
    for (int i = 0; i < r->n; i++) {
        struct reconcile_counts *c = &r->out->source[i];
        c->skipped = r->stream[i]->source->skipped;
        r->out->skipped += c->skipped;
        r->out->accepted_lost += c->accepted_lost;
        for (int k = 0; k < RECONCILE_KIND_COUNT; k++) {
            r->out->total[k] += c->count[k];
            r->out->differences += kinds[k].differs ? c->count[k] : 0;
        }
    }
}

int reconcile_check(struct reconcile_source *const *sources, int n, const struct reconcile_config *c,
                    struct reconcile_result *out, struct err_ctx *ctx)
{
    struct reconcile r = {.config = c, .out = out, .n = n, .mem = c->mem ? c->mem : MEM_DEFAULT};
    memset(out, 0, sizeof *out);
    int rc = check_sources(sources, n, ctx);
    if (rc)
        return rc;
    if (r.mem < RECONCILE_MEM_MIN)
        return err_set(ctx, ERR_USAGE, "--mem: at least %u MiB", RECONCILE_MEM_MIN >> 20);
    /* two bytes a row keep false alarms below 1 in 1000 */
    uint64_t rows = sources[0]->rows, seen = rows && rows < r.mem ? rows * 2 + 4096 : r.mem / 2;
    seen = seen > r.mem / 2 ? r.mem / 2 : seen;
    rc = bloom_init(&r.seen, seen, ctx);
    rc = rc ? rc : bloom_init(&r.suspects, r.mem / 16, ctx);
    for (int i = 0; i < n && !rc; i++)
        rc = stream_begin(&r, i, sources[i], ctx);
    rc = rc ? rc : first_pass(&r, ctx);
    bloom_release(&r.seen);
    rc = rc ? rc : reconcile_judge(&r, ctx);
    if (!rc)
        finish(&r);
    for (int i = 0; i < n; i++) {
        stream_free(r.stream[i]);
        free(r.segment[i].rows);
    }
    bloom_release(&r.suspects);
    return rc;
}
