/* Sorting outside of memory: runs of what fits, written to unlinked files, merged by a heap. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "audit/reconcile.h"

#define RUN_BUFFER 256u /* rows read ahead of each run */
#define RUNS_MAX   4096u

struct run {
    int64_t from, rows, next; /* rows of the file */
    uint32_t at, have;
    struct reconcile_row *rows_ahead;
};

struct reconcile_sort {
    reconcile_compare *order;
    struct reconcile_row *rows;
    size_t n, cap, max, at;
    bool reading, in_order; /* in_order: what is in memory came sorted */
    int fd;
    int64_t written;
    struct run *runs;
    uint32_t runs_n, heap_n;
    uint32_t *heap;
    char tmp[480];
};

int reconcile_sort_new(struct reconcile_sort **out, size_t mem, const char *tmp, reconcile_compare *order,
                       struct err_ctx *ctx)
{
    struct reconcile_sort *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(ctx, ERR_NOMEM, "sort: out of memory");
    s->order = order;
    s->max = mem / sizeof *s->rows;
    s->max = s->max < 1024 ? 1024 : s->max;
    s->fd = -1;
    s->in_order = true;
    const char *dir = tmp ? tmp : getenv("TMPDIR");
    snprintf(s->tmp, sizeof s->tmp, "%s", dir && *dir ? dir : "/tmp");
    *out = s;
    return 0;
}

void reconcile_sort_free(struct reconcile_sort *s)
{
    if (!s)
        return;
    for (uint32_t i = 0; i < s->runs_n; i++)
        free(s->runs[i].rows_ahead);
    if (s->fd >= 0)
        close(s->fd);
    free(s->runs);
    free(s->heap);
    free(s->rows);
    free(s);
}

static int by_order(const void *a, const void *b, void *order)
{
    return ((reconcile_compare *)order)(a, b);
}

static void sort_rows(struct reconcile_sort *s)
{
    if (!s->in_order)
        qsort_r(s->rows, s->n, sizeof *s->rows, by_order, (void *)s->order);
    s->in_order = true;
}

static int open_file(struct reconcile_sort *s, struct err_ctx *ctx)
{
    char path[512];
    snprintf(path, sizeof path, "%s/chat-reconcile-XXXXXX", s->tmp);
    s->fd = mkstemp(path);
    if (s->fd < 0)
        return err_errno(ctx, "%s: cannot make a temporary file", s->tmp);
    unlink(path);
    return 0;
}

static int write_run(struct reconcile_sort *s, struct err_ctx *ctx)
{
    int rc = s->fd < 0 ? open_file(s, ctx) : 0;
    if (rc)
        return rc;
    if (s->runs_n == RUNS_MAX)
        return err_set(ctx, ERR_LIMIT, "sort: more than %u runs; give it more memory (--mem)", RUNS_MAX);
    struct run *runs = realloc(s->runs, (s->runs_n + 1) * sizeof *runs);
    if (!runs)
        return err_set(ctx, ERR_NOMEM, "sort: out of memory");
    s->runs = runs;
    sort_rows(s);
    const char *p = (const char *)s->rows;
    size_t left = s->n * sizeof *s->rows;
    while (left) {
        ssize_t took = write(s->fd, p, left);
        if (took < 0 && errno == EINTR)
            continue;
        if (took < 0)
            return err_errno(ctx, "%s: temporary file", s->tmp);
        p += took;
        left -= (size_t)took;
    }
    runs[s->runs_n++] = (struct run){.from = s->written, .rows = (int64_t)s->n};
    s->written += (int64_t)s->n;
    s->n = 0;
    return 0;
}

int reconcile_sort_add(struct reconcile_sort *s, const struct reconcile_row *row, struct err_ctx *ctx)
{
    BUG_ON(s->reading);
    if (s->n == s->max) {
        int rc = write_run(s, ctx);
        if (rc)
            return rc;
    }
    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 1024;
        cap = cap > s->max ? s->max : cap;
        struct reconcile_row *rows = realloc(s->rows, cap * sizeof *rows);
        if (!rows)
            return err_set(ctx, ERR_NOMEM, "sort: out of memory");
        s->rows = rows;
        s->cap = cap;
    }
    s->in_order = s->in_order && (s->n == 0 || s->order(&s->rows[s->n - 1], row) <= 0);
    s->rows[s->n++] = *row;
    return 0;
}

static const struct reconcile_row *head(const struct reconcile_sort *s, uint32_t run)
{
    return &s->runs[run].rows_ahead[s->runs[run].at];
}

static bool before(const struct reconcile_sort *s, uint32_t a, uint32_t b)
{
    int c = s->order(head(s, a), head(s, b));
    return c ? c < 0 : a < b;
}

static void sift(struct reconcile_sort *s, uint32_t i)
{
    for (;;) {
        uint32_t least = i, l = 2 * i + 1;
        if (l < s->heap_n && before(s, s->heap[l], s->heap[least]))
            least = l;
        if (l + 1 < s->heap_n && before(s, s->heap[l + 1], s->heap[least]))
            least = l + 1;
        if (least == i)
            return;
        uint32_t t = s->heap[i];
        s->heap[i] = s->heap[least];
        s->heap[least] = t;
        i = least;
    }
}

/* 1: there is a row at the run's head; 0: it is empty. */
static int fill(struct reconcile_sort *s, struct run *r, struct err_ctx *ctx)
{
    if (r->at < r->have)
        return 1;
    int64_t left = r->rows - r->next;
    uint32_t want = left < (int64_t)RUN_BUFFER ? (uint32_t)left : RUN_BUFFER;
    size_t bytes = want * sizeof(struct reconcile_row), got = 0;
    if (!want)
        return 0;
    while (got < bytes) {
        ssize_t n = pread(s->fd, (char *)r->rows_ahead + got, bytes - got,
                          (off_t)((uint64_t)(r->from + r->next) * sizeof(struct reconcile_row) + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? err_errno(ctx, "temporary file") : err_set(ctx, ERR_IO, "temporary file: cut off");
        got += (size_t)n;
    }
    r->next += want;
    r->at = 0;
    r->have = want;
    return 1;
}

int reconcile_sort_rewind(struct reconcile_sort *s, struct err_ctx *ctx)
{
    int rc = 0;
    if (!s->reading && s->runs_n && s->n)
        rc = write_run(s, ctx);
    if (rc)
        return rc;
    if (!s->reading && s->runs_n) {
        free(s->rows);
        s->rows = NULL;
        s->cap = 0;
        s->heap = calloc(s->runs_n, sizeof *s->heap);
        if (!s->heap)
            return err_set(ctx, ERR_NOMEM, "sort: out of memory");
    }
    sort_rows(s);
    s->reading = true;
    s->at = s->heap_n = 0;
    for (uint32_t i = 0; i < s->runs_n; i++) {
        struct run *r = &s->runs[i];
        r->next = r->at = r->have = 0;
        if (!r->rows_ahead && !(r->rows_ahead = malloc(RUN_BUFFER * sizeof *r->rows_ahead)))
            return err_set(ctx, ERR_NOMEM, "sort: out of memory");
        rc = fill(s, r, ctx);
        if (rc < 0)
            return rc;
        if (rc)
            s->heap[s->heap_n++] = i;
    }
    for (uint32_t i = s->heap_n; i-- > 0;)
        sift(s, i);
    return 0;
}

long reconcile_sort_read(struct reconcile_sort *s, struct reconcile_row *rows, size_t max,
                         struct err_ctx *ctx)
{
    size_t n = 0;
    if (!s->runs_n) {
        n = s->n - s->at < max ? s->n - s->at : max;
        if (n)
            memcpy(rows, s->rows + s->at, n * sizeof *rows);
        s->at += n;
        return (long)n;
    }
    while (n < max && s->heap_n) {
        struct run *r = &s->runs[s->heap[0]];
        rows[n++] = r->rows_ahead[r->at++];
        int rc = fill(s, r, ctx);
        if (rc < 0)
            return rc;
        if (!rc)
            s->heap[0] = s->heap[--s->heap_n];
        sift(s, 0);
    }
    return (long)n;
}
