/* The sorted binary form. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audit/reconcile.h"
#include "util/map.h"

#define MAGIC      "CHATROW1"
#define HEAD       16u
#define PLACE_END  0xffffu
#define ROWS_AHEAD 4096u

struct bin {
    struct reconcile_source source;
    int fd;
    uint64_t rows, check;
    bool done;
    size_t at, n; /* of ahead */
    char *path;
    struct reconcile_row ahead[ROWS_AHEAD];
};

static int bad(const struct bin *b, int code, const char *what, struct err_ctx *ctx)
{
    return err_set(ctx, code, "%s: offset %llu: %s", b->path,
                   (unsigned long long)(HEAD + b->rows * sizeof(struct reconcile_row)), what);
}

static ssize_t read_whole(int fd, void *to, size_t n)
{
    size_t got = 0;
    while (got < n) {
        ssize_t k = read(fd, (char *)to + got, n - got);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return -1;
        if (k == 0)
            break;
        got += (size_t)k;
    }
    return (ssize_t)got;
}

static int bin_rewind(struct reconcile_source *s, struct err_ctx *ctx)
{
    struct bin *b = (struct bin *)s;
    uint8_t head[HEAD];
    b->rows = b->check = 0;
    b->at = b->n = 0;
    b->done = false;
    if (lseek(b->fd, 0, SEEK_SET) < 0)
        return err_errno(ctx, "%s: must be a file, it is read twice", b->path);
    ssize_t n = read_whole(b->fd, head, sizeof head);
    if (n < 0)
        return err_errno(ctx, "%s", b->path);
    if ((size_t)n < sizeof head)
        return err_set(ctx, ERR_TRUNCATED, "%s: offset %zd: cut off in its head", b->path, n);
    if (memcmp(head, MAGIC, 8) != 0 || head[8] & ~31u)
        return err_set(ctx, ERR_CORRUPT, "%s: offset 0: is no file of rows (bin:)", b->path);
    s->has = head[8];
    return 0;
}

static int fill(struct bin *b, struct err_ctx *ctx)
{
    ssize_t n = read_whole(b->fd, b->ahead, sizeof b->ahead);
    if (n < 0)
        return err_errno(ctx, "%s", b->path);
    b->at = 0;
    b->n = (size_t)n / sizeof *b->ahead;
    return b->n ? 0 : bad(b, ERR_TRUNCATED, "cut off: its last row is missing", ctx);
}

static int at_end(struct bin *b, const struct reconcile_row *row, struct err_ctx *ctx)
{
    if (row->chat != UINT64_MAX || row->seq != b->rows || row->epoch != b->check)
        return bad(b, ERR_CORRUPT, "the last row does not fit those before", ctx);
    b->done = true;
    char more;
    if (b->at < b->n || read(b->fd, &more, 1) != 0)
        return bad(b, ERR_CORRUPT, "something follows the last row", ctx);
    return 0;
}

static long bin_read(struct reconcile_source *s, struct reconcile_row *rows, size_t max, struct err_ctx *ctx)
{
    struct bin *b = (struct bin *)s;
    size_t got = 0;
    while (got < max && !b->done) {
        int rc = b->at == b->n ? fill(b, ctx) : 0;
        if (rc)
            return rc;
        const struct reconcile_row *row = &b->ahead[b->at++];
        if (row->place == PLACE_END) {
            rc = at_end(b, row, ctx);
            if (rc)
                return rc;
            break;
        }
        if ((row->has & s->has) != s->has || row->source || row->has & ~31u || row->flags & ~3u)
            return bad(b, ERR_CORRUPT, "a row is damaged", ctx);
        b->check = hash_bytes(row, sizeof *row, b->check);
        b->rows++;
        rows[got++] = *row;
    }
    return (long)got;
}

static void bin_close(struct reconcile_source *s)
{
    struct bin *b = (struct bin *)s;
    if (b->fd >= 0)
        close(b->fd);
    free(b->path);
    free(b);
}

int reconcile_bin_open(struct reconcile_source **out, const char *path, struct err_ctx *ctx)
{
    struct bin *b = malloc(sizeof *b);
    if (!b)
        return err_set(ctx, ERR_NOMEM, "%s: out of memory", path);
    memset(b, 0, offsetof(struct bin, ahead));
    b->source =
        (struct reconcile_source){.sorted = true, .read = bin_read, .rewind = bin_rewind, .close = bin_close};
    b->path = strdup(path);
    b->source.name = b->path;
    b->fd = open(path, O_RDONLY | O_CLOEXEC);
    int rc = !b->path ? err_set(ctx, ERR_NOMEM, "out of memory") : b->fd < 0 ? err_errno(ctx, "%s", path) : 0;
    rc = rc ? rc : bin_rewind(&b->source, ctx);
    struct stat st;
    if (!rc && fstat(b->fd, &st) == 0)
        b->source.rows = (uint64_t)st.st_size / sizeof(struct reconcile_row);
    if (rc) {
        bin_close(&b->source);
        return rc;
    }
    *out = &b->source;
    return 0;
}

/* ---- writing ---- */

struct reconcile_bin {
    FILE *f;
    uint64_t rows, check;
    uint8_t has;
    struct reconcile_row last;
    char path[4096];
};

int reconcile_bin_new(struct reconcile_bin **out, const char *path, uint8_t has, struct err_ctx *ctx)
{
    struct reconcile_bin *b = calloc(1, sizeof *b);
    uint8_t head[HEAD] = MAGIC;
    if (!b)
        return err_set(ctx, ERR_NOMEM, "%s: out of memory", path);
    snprintf(b->path, sizeof b->path, "%s", path);
    b->has = head[8] = has & 31u;
    b->f = fopen(path, "we");
    if (!b->f || fwrite(head, sizeof head, 1, b->f) != 1) {
        int rc = err_errno(ctx, "%s", path);
        if (b->f)
            fclose(b->f);
        free(b);
        return rc;
    }
    *out = b;
    return 0;
}

int reconcile_bin_add(struct reconcile_bin *b, const struct reconcile_row *row, struct err_ctx *ctx)
{
    struct reconcile_row r = *row;
    if ((r.has & b->has) != b->has || r.place == PLACE_END || (b->rows && reconcile_order(&b->last, row) > 0))
        return err_set(ctx, ERR_INVALID, "%s: row %llu is out of order, or lacks a field", b->path,
                       (unsigned long long)b->rows + 1);
    r.source = 0;
    r.flags &= 3u;
    b->last = *row;
    b->check = hash_bytes(&r, sizeof r, b->check);
    b->rows++;
    return fwrite(&r, sizeof r, 1, b->f) == 1 ? 0 : err_errno(ctx, "%s", b->path);
}

int reconcile_bin_close(struct reconcile_bin *b, struct err_ctx *ctx)
{
    struct reconcile_row end = {.place = PLACE_END, .chat = UINT64_MAX, .seq = b->rows, .epoch = b->check};
    int rc = fwrite(&end, sizeof end, 1, b->f) == 1 ? 0 : err_errno(ctx, "%s", b->path);
    if (fclose(b->f) && !rc)
        rc = err_errno(ctx, "%s", b->path);
    free(b);
    return rc;
}
