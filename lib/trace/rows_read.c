/* Files of rows. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "trace/merge_impl.h"
#include "trace/rows.h"
#include "trace/rows_impl.h"

#define PARTS_MAX   65535u
#define COLUMNS_MAX 64

struct reading {
    struct rows_file *f;
    struct trace_run *r;
    const char *path;
    uint64_t line;
    bool bad;
    char *column[COLUMNS_MAX]; /* CSV: names, owned */
    uint32_t columns;
};

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n > m && !strcmp(s + n - m, end);
}

bool rows_are_in(const char *path)
{
    return ends_with(path, ".jsonl") || ends_with(path, ".csv");
}

static void complain(struct reading *rd, const char *what)
{
    run_problem(rd->r, "%s: line %llu: %s", rd->path, (unsigned long long)rd->line, what);
    rd->bad = true;
}

static struct rows_part *add_part(struct rows_file *f, int64_t number)
{
    if (f->n == f->cap) {
        uint32_t cap = f->cap ? f->cap * 2 : 8;
        struct rows_part *more = f->n < PARTS_MAX ? realloc(f->part, cap * sizeof *more) : NULL;
        if (!more)
            return NULL;
        f->part = more;
        f->cap = cap;
    }
    struct rows_part *p = &f->part[f->n++];
    *p = (struct rows_part){.number = number, .source.writers = 1};
    return p;
}

/* The latest of that number: files may have been put one behind the other. */
static struct rows_part *part_of(struct reading *rd, const struct row *row)
{
    int64_t number = row->has_source ? (int64_t)(row->source & INT64_MAX) : -1 - (int64_t)row->e.node;
    for (uint32_t i = rd->f->n; i-- > 0;)
        if (rd->f->part[i].number == number)
            return &rd->f->part[i];
    struct rows_part *p = add_part(rd->f, number);
    if (p) {
        p->source.node = row->e.node;
        snprintf(p->source.name, sizeof p->source.name, "rows");
    }
    return p;
}

static int take_source(struct reading *rd, const struct row *row)
{
    struct rows_part *p = add_part(rd->f, row->has_source ? (int64_t)(row->source & INT64_MAX) : INT64_MIN);
    if (!p)
        return rd->f->n < PARTS_MAX ? ERR_NOMEM : ERR_LIMIT;
    p->source = row->s;
    p->source.complete = row->complete;
    p->told = true;
    return 0;
}

static int take(struct reading *rd, struct row *row)
{
    row_finish(row);
    if (row->wrong) {
        complain(rd, row->wrong);
        return 0;
    }
    if (row->e.hop == HOP_NONE)
        return take_source(rd, row);
    struct rows_part *p = part_of(rd, row);
    if (!p)
        return rd->f->n < PARTS_MAX ? ERR_NOMEM : ERR_LIMIT;
    if (p->n == p->cap) {
        uint64_t cap = p->cap ? p->cap * 2 : 256;
        struct trace_event *more = realloc(p->event, cap * sizeof *more);
        if (!more)
            return ERR_NOMEM;
        p->event = more;
        p->cap = cap;
    }
    p->event[p->n++] = row->e;
    return 0;
}

/* ---- CSV ---- */

/* Split in place; the number of fields, or -1. */
static int split(char *line, char **field, int max)
{
    int n = 0;
    for (char *p = line;;) {
        if (n == max)
            return -1;
        char *o = field[n++] = p;
        if (*p == '"') {
            o = field[n - 1] = ++p;
            while (*p && (*p != '"' || p[1] == '"')) {
                p += *p == '"';
                *o++ = *p++;
            }
            if (*p++ != '"' || (*p && *p != ','))
                return -1;
        } else {
            while (*p && *p != ',')
                p++;
            o = p;
        }
        bool more = *p == ',';
        *o = 0;
        if (!more)
            return n;
        p++;
    }
}

static int take_csv(struct reading *rd, char *line)
{
    char *field[COLUMNS_MAX];
    int n = split(line, field, COLUMNS_MAX);
    if (!rd->columns) {
        for (int i = 0; i < n; i++) {
            if (!(rd->column[i] = strdup(field[i])))
                return ERR_NOMEM;
            rd->columns++;
        }
        if (n < 0)
            complain(rd, "it names no columns");
        return 0;
    }
    struct row row = {.s.writers = 1};
    if (n != (int)rd->columns) {
        complain(rd, "it has other columns than the first line");
        return 0;
    }
    for (int i = 0; i < n; i++)
        if (*field[i] && !strcmp(rd->column[i], "about"))
            row_from_json(&row, field[i]);
        else if (*field[i])
            row_set(&row, rd->column[i], field[i]);
    return take(rd, &row);
}

/* ---- the file ---- */

static int take_line(struct reading *rd, char *line, bool csv)
{
    struct row row = {.s.writers = 1};
    if (!*line)
        return 0;
    if (csv)
        return take_csv(rd, line);
    row_from_json(&row, line);
    return take(rd, &row);
}

static int read_lines(struct reading *rd, FILE *file, char *line)
{
    bool csv = ends_with(rd->path, ".csv");
    int rc = 0;
    while (!rc && fgets(line, TRACE_ROW_MAX, file)) {
        size_t n = strcspn(line, "\r\n");
        bool whole = line[n] || feof(file);
        rd->line++;
        line[n] = 0;
        if (!whole) {
            complain(rd, "the line is too long, or holds a zero byte");
            for (int c = 0; c != '\n' && c != EOF;)
                c = getc(file);
            continue;
        }
        rc = take_line(rd, line, csv);
    }
    if (ferror(file))
        complain(rd, strerror(errno));
    return rc;
}

int rows_read(struct rows_file *f, const char *path, struct trace_run *r, struct err_ctx *ctx)
{
    struct reading rd = {.f = f, .r = r, .path = path};
    FILE *file = fopen(path, "re");
    char *line = file ? malloc(TRACE_ROW_MAX) : NULL;
    int rc = 0;
    if (!file) {
        run_problem(r, "%s: offset 0: %s", path, strerror(errno));
        return 0;
    }
    rc = line ? read_lines(&rd, file, line) : ERR_NOMEM;
    for (uint32_t i = 0; i < f->n; i++) {
        struct trace_source *s = &f->part[i].source;
        size_t n = strlen(path), keep = n < sizeof s->path ? n : sizeof s->path - 1;
        if (!*s->path) /* a row may tell where it came from first */
            memcpy(s->path, path + n - keep, keep + 1);
        s->complete &= f->part[i].told && !rd.bad;
        if (!f->part[i].told)
            s->emitted = f->part[i].n;
    }
    for (uint32_t i = 0; i < rd.columns; i++)
        free(rd.column[i]);
    free(line);
    fclose(file);
    return rc ? err_set(ctx, rc, "%s: line %llu: %s", path, (unsigned long long)rd.line, err_text(rc)) : 0;
}

void rows_release(struct rows_file *f)
{
    for (uint32_t i = 0; i < f->n; i++)
        free(f->part[i].event);
    free(f->part);
    *f = (struct rows_file){0};
}
