/* export: a trace in the forms that others read. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cmd/chat-trace/tool.h"
#include "report/export.h"

struct output {
    FILE *file;
    const char *name;
};

static int put(void *arg, const void *p, size_t n, struct err_ctx *err)
{
    struct output *o = arg;
    return fwrite(p, 1, n, o->file) == n ? 0 : err_errno(err, "%s", o->name);
}

static int finish(struct output *o, int rc, struct err_ctx *err)
{
    bool failed = o->file == stdout ? fflush(stdout) : fclose(o->file);
    return failed && !rc ? err_errno(err, "%s", o->name) : rc;
}

/* A result that is not whole must not stand under its name. */
static int to_file(const char *path, enum export_format f, const struct trace_run *r, const char *title,
                   struct export_counts *counts, struct err_ctx *err)
{
    char tmp[4096];
    if (snprintf(tmp, sizeof tmp, "%s.tmp", path) >= (int)sizeof tmp)
        return err_set(err, ERR_USAGE, "%.100s...: the path is too long", path);
    struct output o = {.file = fopen(tmp, "we"), .name = tmp};
    if (!o.file)
        return err_errno(err, "%s", tmp);
    int rc = export_trace(f, r, title, &(struct export_sink){put, &o}, counts, err);
    rc = finish(&o, rc, err);
    if (!rc && rename(tmp, path))
        rc = err_errno(err, "%s", path);
    if (rc)
        remove(tmp);
    return rc;
}

int tool_export(const struct trace_run *r, const struct opt_set *o, struct err_ctx *err)
{
    const char *format = opt_string(o, "format"), *path = opt_string(o, "output");
    const char *title = opt_operand(o, 0);
    struct export_counts counts = {0};
    int rc;
    if (!format)
        return err_set(err, ERR_USAGE, "export: --format is missing");
    enum export_format f = export_format_parse(format);
    if (path) {
        rc = to_file(path, f, r, title, &counts, err);
    } else {
        struct output out = {.file = stdout, .name = "standard output"};
        rc = export_trace(f, r, title, &(struct export_sink){put, &out}, &counts, err);
        rc = finish(&out, rc, err);
    }
    if (!rc && counts.skipped)
        fprintf(stderr, "chat-trace: skipped %llu of %llu records: %s\n", (unsigned long long)counts.skipped,
                (unsigned long long)counts.records, counts.why);
    return rc;
}
