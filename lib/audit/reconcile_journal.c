/* Clients' journals as a witness: thousands of files, one open at a time. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "audit/journal.h"
#include "audit/reconcile.h"

#define DEPTH_MAX 8
#define PATH_SIZE 4096

struct journals {
    struct reconcile_source source;
    reconcile_place *place;
    struct journal *open;
    char **paths;
    size_t n, cap, at;
    char *name;
};

static int add_path(struct journals *j, const char *path, struct err_ctx *ctx)
{
    if (j->n == j->cap) {
        size_t cap = j->cap ? j->cap * 2 : 64;
        char **paths = realloc(j->paths, cap * sizeof *paths);
        if (!paths)
            return err_set(ctx, ERR_NOMEM, "%s: out of memory", path);
        j->paths = paths;
        j->cap = cap;
    }
    j->paths[j->n] = strdup(path);
    return j->paths[j->n++] ? 0 : err_set(ctx, ERR_NOMEM, "%s: out of memory", path);
}

static int find(struct journals *j, const char *path, int depth, struct err_ctx *ctx)
{
    struct stat st;
    struct dirent *e;
    int rc = 0;
    if (stat(path, &st) < 0)
        return err_errno(ctx, "%s", path);
    if (S_ISREG(st.st_mode)) {
        size_t n = strlen(path);
        return depth == 0 || (n > 6 && !strcmp(path + n - 6, ".jsonl")) ? add_path(j, path, ctx) : 0;
    }
    if (!S_ISDIR(st.st_mode) || depth == DEPTH_MAX)
        return 0;
    DIR *d = opendir(path);
    if (!d)
        return err_errno(ctx, "%s", path);
    while (!rc && (e = readdir(d))) {
        char sub[PATH_SIZE];
        if (e->d_name[0] == '.')
            continue;
        if ((size_t)snprintf(sub, sizeof sub, "%s/%s", path, e->d_name) >= sizeof sub)
            rc = err_set(ctx, ERR_LIMIT, "%s: path too long", path);
        else
            rc = find(j, sub, depth + 1, ctx);
    }
    closedir(d);
    return rc;
}

/* False: this row says nothing about a message. */
static bool claim(struct reconcile_row *r, const struct journal_row *row, int *bad)
{
    static const uint8_t flag[JOURNAL_OP_COUNT] = {[JOURNAL_SENT] = RECONCILE_SENT,
                                                   [JOURNAL_ACCEPTED] = RECONCILE_ACCEPTED,
                                                   [JOURNAL_SURFACED] = RECONCILE_SURFACED,
                                                   [JOURNAL_GAVE_UP] = RECONCILE_GAVE_UP};
    memset(r, 0, sizeof *r);
    if (!flag[row->op])
        return false;
    r->flags = flag[row->op];
    r->id = row->id;
    r->chat = row->chat;
    r->from = row->op == JOURNAL_SURFACED ? row->from : row->user;
    r->has = RECONCILE_HAS_FROM;
    if (row->op == JOURNAL_ACCEPTED || row->op == JOURNAL_SURFACED) {
        r->seq = row->seq;
        r->epoch = row->epoch;
        r->has |= RECONCILE_HAS_SEQ | RECONCILE_HAS_EPOCH;
    }
    if (row->op == JOURNAL_SENT && row->hash.n) {
        r->has |= RECONCILE_HAS_HASH;
        *bad = base64url_decode(r->hash, sizeof r->hash, row->hash.p, row->hash.n) != (long)sizeof r->hash;
    }
    return true;
}

static long journals_read(struct reconcile_source *s, struct reconcile_row *rows, size_t max,
                          struct err_ctx *ctx)
{
    struct journals *j = (struct journals *)s;
    struct journal_row row;
    size_t got = 0;
    while (got < max) {
        int bad = 0, rc = 0;
        if (!j->open) {
            if (j->at == j->n)
                break;
            rc = journal_open(&j->open, j->paths[j->at++], ctx);
            if (rc)
                return rc;
        }
        rc = journal_next(j->open, &row, ctx);
        if (rc < 0)
            return rc;
        if (rc == 0) {
            journal_close(j->open);
            j->open = NULL;
        } else if (claim(&rows[got], &row, &bad)) {
            if (bad)
                return err_set(ctx, ERR_CORRUPT, "%s:%llu: the hash is none", journal_path(j->open),
                               (unsigned long long)row.line);
            rows[got].place = j->place && row.chat ? j->place(row.chat) : 0;
            got++;
        }
    }
    return (long)got;
}

static int journals_rewind(struct reconcile_source *s, struct err_ctx *ctx)
{
    struct journals *j = (struct journals *)s;
    (void)ctx;
    journal_close(j->open);
    j->open = NULL;
    j->at = 0;
    return 0;
}

static void journals_close(struct reconcile_source *s)
{
    struct journals *j = (struct journals *)s;
    journal_close(j->open);
    for (size_t i = 0; i < j->n; i++)
        free(j->paths[i]);
    free(j->paths);
    free(j->name);
    free(j);
}

int reconcile_journal_open(struct reconcile_source **out, const char *path, reconcile_place *place,
                           struct err_ctx *ctx)
{
    struct journals *j = calloc(1, sizeof *j);
    if (!j || !(j->name = strdup(path))) {
        free(j);
        return err_set(ctx, ERR_NOMEM, "%s: out of memory", path);
    }
    j->source = (struct reconcile_source){.name = j->name,
                                          .witness = true,
                                          .read = journals_read,
                                          .rewind = journals_rewind,
                                          .close = journals_close};
    j->place = place;
    int rc = find(j, path, 0, ctx);
    if (!rc && !j->n)
        rc = err_set(ctx, ERR_NOTFOUND, "%s: no journals (*.jsonl) there", path);
    if (rc) {
        journals_close(&j->source);
        return rc;
    }
    *out = &j->source;
    return 0;
}
