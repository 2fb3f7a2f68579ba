/* A file of rows from a stranger: read, join, judge, and written again, which must read back to the same. The
 * first byte chooses JSON lines or CSV. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "report/export.h"
#include "trace/join.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int put(void *arg, const void *p, size_t n, struct err_ctx *ctx)
{
    (void)ctx;
    buf_add(arg, p, n);
    return 0;
}

static int load(struct trace_run *r, const char *path, const void *data, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    close(fd);
    int rc = trace_run_load(r, &path, 1, NULL);
    unlink(path);
    return rc ? rc : trace_join(r, NULL);
}

static void export_all(const struct trace_run *r, struct buf *jsonl)
{
    struct buf out = BUF_INIT(16u << 20);
    struct export_counts counts;
    for (int f = 0; f < EXPORT_FORMATS; f++) {
        buf_reset(&out);
        struct export_sink sink = {put, f == EXPORT_jsonl ? jsonl : &out};
        export_trace((enum export_format)f, r, "fuzz", &sink, &counts, NULL);
    }
    buf_release(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char path[2][64];
    for (int i = 0; i < 2; i++)
        snprintf(path[i], sizeof path[i], "/tmp/fuzz-rows.%d.%s", (int)getpid(), i ? "csv" : "jsonl");
    int csv = size && data[0] == 's'; /* "source,ts_ns,..." */
    struct trace_run r, again = {0};
    struct trace_summary a = {0}, b = {0};
    struct buf jsonl = BUF_INIT(16u << 20);
    if (load(&r, path[csv], data, size) == 0) {
        export_all(&r, &jsonl);
        if (trace_summarize(&a, &r, NULL) || jsonl.failed)
            abort();
        if (!r.problems && r.sources) {
            if (load(&again, path[0], jsonl.data, jsonl.len) || again.problems ||
                trace_summarize(&b, &again, NULL) || memcmp(a.total, b.total, sizeof a.total))
                abort();
        }
    }
    trace_summary_release(&a);
    trace_summary_release(&b);
    trace_run_release(&r);
    trace_run_release(&again);
    buf_release(&jsonl);
    return 0;
}
