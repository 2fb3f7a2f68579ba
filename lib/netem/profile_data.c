/* What profiles point to: Mahimahi traces and delay tables. Each file is read once and stays for the life of
 * the process, so that profiles may be copied and links may point to them without anybody counting. */
#include "netem/profile_impl.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

#define TABLE_MAX 16384 /* values in a delay table, as tc has it */

struct file {
    char *path, *name; /* name: "table:PATH" */
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec changed;
    bool is_trace;
    struct netem_trace trace;
    struct netem_table table;
};
static struct file files[NETEM_FILES_MAX];
static unsigned files_n;
static pthread_mutex_t files_lock = PTHREAD_MUTEX_INITIALIZER;

#define TABLE(name, ...) static const int16_t name##_at[] = {__VA_ARGS__};
#include "netem/dist.def"
#undef TABLE
static const struct netem_table named_tables[] = {
    {"normal", normal_at, sizeof normal_at / sizeof *normal_at},
    {"pareto", pareto_at, sizeof pareto_at / sizeof *pareto_at},
    {"paretonormal", paretonormal_at, sizeof paretonormal_at / sizeof *paretonormal_at},
};

const struct netem_table *netem_table_named(const char *name)
{
    for (size_t i = 0; i < sizeof named_tables / sizeof *named_tables; i++)
        if (strcmp(named_tables[i].name, name) == 0)
            return &named_tables[i];
    return NULL;
}

/* --- traces --- */

/* One line: decimal digits. False at the end of the file; *bad is set when it is something else. */
static bool next_ms(FILE *f, uint64_t *ms, bool *bad)
{
    char line[32];
    if (!fgets(line, sizeof line, f))
        return false;
    size_t n = strcspn(line, "\r\n"), digits = strspn(line, "0123456789");
    *bad = !n || digits != n || n > 10 || (line[n] == 0 && !feof(f));
    *ms = *bad ? 0 : strtoull(line, NULL, 10);
    return true;
}

static int read_trace(struct file *file, FILE *f, struct err_ctx *ctx)
{
    struct netem_trace *t = &file->trace;
    uint32_t *at = NULL, cap = 0, n = 0;
    uint64_t ms;
    bool bad = false;
    int rc = 0;
    for (; next_ms(f, &ms, &bad); n++) {
        if (bad || ms > UINT32_MAX / 2 || (n && ms < at[n - 1]))
            rc = err_set(ctx, ERR_INVALID, "%s: line %u: must be milliseconds, not below the line before",
                         file->path, n + 1);
        else if (n == NETEM_TRACE_MAX)
            rc = err_set(ctx, ERR_RANGE, "%s: is longer than %u lines", file->path, NETEM_TRACE_MAX);
        if (!rc && n == cap) {
            cap = cap ? cap * 2 : 4096;
            uint32_t *more = realloc(at, cap * sizeof *at);
            at = more ? more : at;
            rc = more ? 0 : err_set(ctx, ERR_NOMEM, "%s: out of memory", file->path);
        }
        if (rc)
            goto out;
        at[n] = (uint32_t)ms;
    }
    if (ferror(f))
        rc = err_errno(ctx, "%s", file->path);
    else if (!n || !at[n - 1])
        rc = err_set(ctx, ERR_INVALID, "%s: a trace must last at least a millisecond", file->path);
    if (!rc)
        *t = (struct netem_trace){file->path, at, n, at[n - 1]};
out:
    if (rc)
        free(at);
    return rc;
}

uint64_t netem_trace_mean_bps(const struct netem_trace *t)
{
    return (uint64_t)t->count * NETEM_OPPORTUNITY * 8 * 1000 / t->period_ms;
}

uint64_t netem_trace_rank(const struct netem_trace *t, uint64_t ms)
{
    uint32_t in = (uint32_t)(ms % t->period_ms), low = 0, high = t->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (t->at_ms[middle] <= in)
            low = middle + 1;
        else
            high = middle;
    }
    return ms / t->period_ms * t->count + low;
}

uint64_t netem_trace_ms(const struct netem_trace *t, uint64_t n)
{
    return n / t->count * t->period_ms + t->at_ms[n % t->count];
}

/* --- delay tables: whole numbers, '#' begins a comment --- */

static int read_table(struct file *file, FILE *f, struct err_ctx *ctx)
{
    int16_t *at = malloc(TABLE_MAX * sizeof *at);
    char line[4096];
    unsigned n = 0, number = 0;
    int rc = at ? 0 : err_set(ctx, ERR_NOMEM, "%s: out of memory", file->path);
    while (!rc && fgets(line, sizeof line, f)) {
        number++;
        line[strcspn(line, "#")] = 0;
        for (char *save, *word = strtok_r(line, " \t\r\n", &save); word && !rc;
             word = strtok_r(NULL, " \t\r\n", &save)) {
            char *end;
            long v = strtol(word, &end, 10);
            if (*end || v < INT16_MIN || v > INT16_MAX)
                rc = err_set(ctx, ERR_INVALID, "%s: line %u: '%.20s' is no number from -32768 to 32767",
                             file->path, number, word);
            else if (n == TABLE_MAX)
                rc = err_set(ctx, ERR_RANGE, "%s: more than %d values", file->path, TABLE_MAX);
            else
                at[n++] = (int16_t)v;
        }
    }
    if (!rc && ferror(f))
        rc = err_errno(ctx, "%s", file->path);
    if (!rc && !n)
        rc = err_set(ctx, ERR_INVALID, "%s: no values", file->path);
    if (rc)
        free(at);
    else
        file->table = (struct netem_table){file->name, at, n};
    return rc;
}

/* --- one copy of each file --- */

static int read_file(struct file *file, const struct stat *st, FILE *f, const char *path, bool is_trace,
                     struct err_ctx *ctx)
{
    *file = (struct file){.dev = st->st_dev,
                          .ino = st->st_ino,
                          .size = st->st_size,
                          .changed = st->st_mtim,
                          .is_trace = is_trace};
    if (asprintf(&file->path, "%s", path) < 0 || asprintf(&file->name, "table:%s", path) < 0)
        return err_set(ctx, ERR_NOMEM, "%s: out of memory", path);
    return is_trace ? read_trace(file, f, ctx) : read_table(file, f, ctx);
}

static bool same(const struct file *file, const struct stat *st, const char *path, bool is_trace)
{
    return file->is_trace == is_trace && file->dev == st->st_dev && file->ino == st->st_ino &&
           file->size == st->st_size && file->changed.tv_sec == st->st_mtim.tv_sec &&
           file->changed.tv_nsec == st->st_mtim.tv_nsec && strcmp(file->path, path) == 0;
}

static int take(const struct file **out, const char *path, bool is_trace, struct err_ctx *ctx)
{
    struct stat st;
    int rc = 0;
    FILE *f = fopen(path, "re");
    if (!f || fstat(fileno(f), &st)) {
        rc = err_errno(ctx, "%s", path);
        goto out;
    }
    if (!S_ISREG(st.st_mode)) {
        rc = err_set(ctx, ERR_INVALID, "%s: is no regular file", path);
        goto out;
    }
    for (unsigned i = 0; i < files_n; i++) {
        *out = &files[i];
        if (same(&files[i], &st, path, is_trace))
            goto out;
    }
    if (files_n == NETEM_FILES_MAX) {
        rc = err_set(ctx, ERR_LIMIT, "%s: more than %d traces and tables", path, NETEM_FILES_MAX);
        goto out;
    }
    *out = &files[files_n];
    rc = read_file(&files[files_n], &st, f, path, is_trace, ctx);
    if (!rc) {
        files_n++;
    } else {
        free(files[files_n].path);
        free(files[files_n].name);
    }
out:
    if (f)
        fclose(f);
    return rc;
}

static int take_locked(const struct file **out, const char *path, bool is_trace, struct err_ctx *ctx)
{
    pthread_mutex_lock(&files_lock);
    int rc = take(out, path, is_trace, ctx);
    pthread_mutex_unlock(&files_lock);
    return rc;
}

int netem_trace_file(const struct netem_trace **t, const char *path, struct err_ctx *ctx)
{
    const struct file *file;
    int rc = take_locked(&file, path, true, ctx);
    if (!rc)
        *t = &file->trace;
    return rc;
}

int netem_table_file(const struct netem_table **t, const char *path, struct err_ctx *ctx)
{
    const struct file *file;
    int rc = take_locked(&file, path, false, ctx);
    if (!rc)
        *t = &file->table;
    return rc;
}
