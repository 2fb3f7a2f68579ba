/* A JSONL file as the target: read once to see where it stands, written anew beside itself, renamed. Killed
 * at any moment it is the old file or the new one. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/chat-reconcile/plan.h"
#include "store/store_impl.h"

struct rewriting {
    struct plan *plan;
    struct plan_item **by_id;
    const char *file;
    FILE *out; /* NULL: looking only */
    bool changed;
};

static const struct id *id_of(const struct plan_item *x)
{
    return x->has_from ? &x->from.id : &x->to.id;
}

static int by_id(const void *a, const void *b)
{
    const struct plan_item *x = *(struct plan_item *const *)a, *y = *(struct plan_item *const *)b;
    int c = memcmp(id_of(x), id_of(y), sizeof(struct id));
    return c ? c : x->n < y->n ? -1 : 1;
}

/* The first item of an id, or the end. */
static size_t find(const struct rewriting *w, const struct id *id)
{
    size_t lo = 0, hi = w->plan->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (memcmp(id_of(w->by_id[mid]), id, sizeof *id) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static void look(struct rewriting *w, const struct reconcile_row *row)
{
    for (size_t i = find(w, &row->id); i < w->plan->n && id_equal(id_of(w->by_id[i]), &row->id); i++) {
        struct plan_item *x = w->by_id[i];
        bool from = x->has_from && reconcile_same(&x->from, row, 0xff),
             to = x->has_to && reconcile_same(&x->to, row, 0xff);
        x->seen_from += from;
        x->seen_to += to;
        x->seen_other += !from && !to && (x->has_from ? x->from.from : x->to.from) == row->from;
    }
}

/* What is to become of a line: kept, replaced by *text, or dropped (*text NULL). */
static bool keep(struct rewriting *w, const struct reconcile_row *row, const char **text)
{
    for (size_t i = find(w, &row->id); i < w->plan->n && id_equal(id_of(w->by_id[i]), &row->id); i++) {
        struct plan_item *x = w->by_id[i];
        if (x->state != ITEM_TO_DO || !x->has_from || !reconcile_same(&x->from, row, 0xff))
            continue;
        if (x->twin && x->seen_from == 1) /* the last copy stays */
            return true;
        x->seen_from--;
        *text = x->to_text;
        if (!x->twin)
            x->state = ITEM_DONE;
        return false;
    }
    return true;
}

static int each_line(struct rewriting *w, struct err_ctx *err)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    unsigned long at = 0;
    unsigned long long offset = 0;
    FILE *f = fopen(w->file, "re");
    int rc = f ? 0 : err_errno(err, "%s", w->file);
    while (!rc && (n = getline(&line, &cap, f)) > 0) {
        struct reconcile_row row;
        const char *why = "the last line is cut off", *text = NULL;
        at++;
        if (tool_interrupted) {
            rc = err_set(err, ERR_INTERRUPTED, "interrupted; %s is as it was", w->file);
            break;
        }
        if (n == 1 && line[0] == '\n') {
            offset++;
            continue;
        }
        if (line[n - 1] != '\n' || reconcile_jsonl_row(&row, line, (size_t)n - 1, &why))
            rc = err_set(err, ERR_CORRUPT, "%s:%lu: offset %llu: %s", w->file, at, offset, why);
        else if (!w->out)
            look(w, &row);
        else if (keep(w, &row, &text))
            fwrite(line, (size_t)n, 1, w->out);
        else if (text)
            fprintf(w->out, "%s\n", text);
        offset += (unsigned long long)n;
    }
    if (f && !rc && ferror(f))
        rc = err_errno(err, "%s", w->file);
    free(line);
    if (f)
        fclose(f);
    return rc;
}

static void conflict(struct plan_item *x, const char *why)
{
    x->state = ITEM_CONFLICT;
    snprintf(x->why, sizeof x->why, "%s", why);
}

/* Twins: from -> one copy stays (seen_from 1 is done); backwards a copy is added (to, seen_to 1 is to do). */
static void judge(struct plan_item *x)
{
    if (x->state == ITEM_CANNOT)
        return;
    x->state = ITEM_TO_DO;
    if (x->twin && x->has_from)
        x->state = x->seen_from > 1 ? ITEM_TO_DO : ITEM_DONE;
    else if (x->twin)
        x->state = x->seen_to > 1 ? ITEM_DONE : ITEM_TO_DO;
    else if (!x->has_from) {
        if (x->seen_to)
            x->state = ITEM_DONE;
        else if (x->seen_other && !x->copy)
            conflict(x, "the id is in the file with other content");
    } else if (!x->has_to)
        x->state = x->seen_from ? ITEM_TO_DO : ITEM_DONE;
    else if (x->seen_to && !x->seen_from)
        x->state = ITEM_DONE;
    else if (!x->seen_from)
        conflict(x, "neither what the plan found nor what it wants is there");
    else if (x->seen_to)
        conflict(x, "both what the plan found and what it wants are there");
}

static int append(struct rewriting *w)
{
    for (size_t i = 0; i < w->plan->n; i++) {
        struct plan_item *x = &w->plan->item[i];
        if (x->state == ITEM_TO_DO && !x->has_from)
            fprintf(w->out, "%s\n", x->to_text);
        if (x->state == ITEM_TO_DO)
            x->state = ITEM_DONE;
    }
    return ferror(w->out) || fflush(w->out) || fsync(fileno(w->out)) ? -1 : 0;
}

static int rewrite(struct rewriting *w, struct err_ctx *err)
{
    char fresh[4200], dir[4200], *slash;
    snprintf(fresh, sizeof fresh, "%s.reconcile", w->file);
    snprintf(dir, sizeof dir, "%s", w->file);
    slash = strrchr(dir, '/');
    if (slash)
        slash[slash == dir] = 0;
    struct stat st;
    w->out = fopen(fresh, "we");
    if (!w->out)
        return err_errno(err, "%s", fresh);
    int rc = stat(w->file, &st) < 0 || fchmod(fileno(w->out), st.st_mode & 07777) < 0
                 ? err_errno(err, "%s", w->file)
                 : 0;
    rc = rc ? rc : each_line(w, err);
    if (!rc && append(w))
        rc = err_errno(err, "%s", fresh);
    if (fclose(w->out) && !rc)
        rc = err_errno(err, "%s", fresh);
    if (!rc && rename(fresh, w->file) < 0)
        rc = err_errno(err, "%s", w->file);
    if (rc)
        unlink(fresh);
    return rc ? rc : sync_folder(slash ? dir : ".", err);
}

int plan_run_jsonl(struct plan *p, const char *file, bool change, struct err_ctx *err)
{
    struct rewriting w = {.plan = p, .file = file, .by_id = calloc(p->n + 1, sizeof *w.by_id)};
    size_t to_do = 0;
    if (!w.by_id)
        return err_set(err, ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < p->n; i++)
        w.by_id[i] = &p->item[i];
    qsort(w.by_id, p->n, sizeof *w.by_id, by_id);
    int rc = each_line(&w, err);
    for (size_t i = 0; i < p->n && !rc; i++) {
        judge(&p->item[i]);
        to_do += p->item[i].state == ITEM_TO_DO;
    }
    if (!rc && change && to_do)
        rc = rewrite(&w, err);
    free(w.by_id);
    return rc;
}
