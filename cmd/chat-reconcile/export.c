/* export: the rows of a source in order, as JSONL or in the binary form. */
#include <stdlib.h>
#include <string.h>

#include "cmd/chat-reconcile/tool.h"

struct writing {
    FILE *f;
    struct reconcile_bin *bin;
    struct buf line;
    const char *path;
};

static int put(struct writing *w, const struct reconcile_row *row, struct err_ctx *err)
{
    if (tool_interrupted)
        return err_set(err, ERR_INTERRUPTED, "interrupted: %s is not whole",
                       w->path ? w->path : "the output");
    if (w->bin)
        return reconcile_bin_add(w->bin, row, err);
    buf_reset(&w->line);
    reconcile_jsonl_write(&w->line, row);
    buf_char(&w->line, '\n');
    return fwrite(w->line.data, w->line.len, 1, w->f) == 1
               ? 0
               : err_errno(err, "%s", w->path ? w->path : "standard output");
}

static int copy(struct reconcile_source *s, struct writing *w, struct err_ctx *err)
{
    struct reconcile_sort *sort = NULL;
    struct reconcile_row row;
    long n = 0;
    int rc = s->sorted ? 0 : reconcile_sort_new(&sort, 64u << 20, NULL, reconcile_order, err);
    while (sort && !rc && (n = s->read(s, &row, 1, err)) > 0)
        rc = reconcile_sort_add(sort, &row, err);
    rc = n < 0 ? (int)n : rc;
    if (sort && !rc)
        rc = reconcile_sort_rewind(sort, err);
    while (!rc && (n = sort ? reconcile_sort_read(sort, &row, 1, err) : s->read(s, &row, 1, err)) > 0)
        rc = put(w, &row, err);
    reconcile_sort_free(sort);
    return n < 0 ? (int)n : rc;
}

int tool_export(const struct opt_set *o, int *status, struct err_ctx *err)
{
    struct reconcile_source *s = NULL;
    struct writing w = {.line = BUF_INIT(1u << 20), .path = opt_string(o, "output")};
    *status = 0;
    bool bin = !strcmp(opt_string(o, "format"), "bin");
    if (bin && !w.path)
        return err_set(err, ERR_USAGE, "export --format bin: -o FILE is missing");
    tool_watch_signals();
    int rc = tool_source(&s, opt_operand(o, 0), o, false, err);
    if (rc)
        return rc;
    if (s->witness)
        rc = err_set(err, ERR_USAGE, "%s: journals and traces are no rows of a log", opt_operand(o, 0));
    /* the form is decided by what the source declares; JSONL says it with its first row */
    if (!rc && bin && !s->has)
        rc = err_set(err, ERR_USAGE, "%s: only stores, backups, servers and bin: are written as bin",
                     opt_operand(o, 0));
    if (!rc && bin)
        rc = reconcile_bin_new(&w.bin, w.path, s->has, err);
    else if (!rc && !(w.f = w.path ? fopen(w.path, "we") : stdout))
        rc = err_errno(err, "%s", w.path);
    rc = rc ? rc : copy(s, &w, err);
    if (w.bin) {
        int end = reconcile_bin_close(w.bin, rc ? NULL : err);
        rc = rc ? rc : end;
    }
    int ended = !w.f ? 0 : w.path ? fclose(w.f) : fflush(stdout);
    if (ended && !rc)
        rc = err_errno(err, "%s", w.path ? w.path : "standard output");
    buf_release(&w.line);
    s->close(s);
    return rc;
}
