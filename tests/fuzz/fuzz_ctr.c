/* A trace file from a stranger: read, join, judge, sum up, explain. Which of the two kinds of file it is, its
 * own magic says. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "trace/join.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool explain_some(void *arg, const struct trace_pair *p)
{
    const struct trace_run *r = arg;
    struct buf out = BUF_INIT(1 << 20);
    if (p->verdict >= VERDICT_COUNT || p->net >= NET_COUNT || p->evidence_n > TRACE_EVIDENCE_MAX)
        abort();
    for (uint8_t i = 0; i < p->evidence_n; i++)
        if (p->evidence[i] >= r->events)
            abort();
    trace_explain(r, &p->id, &out, NULL);
    buf_release(&out);
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char path[2][64];
    if (!path[0][0])
        for (int i = 0; i < 2; i++)
            snprintf(path[i], sizeof path[i], "/tmp/fuzz-ctr.%d.%d.%s", (int)getpid(), i, i ? "ring" : "ctr");
    int ring = size >= 8 && memcmp(data, "chatrng1", 8) == 0;
    int fd = open(path[ring], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    close(fd);
    const char *dirs[] = {path[ring]};
    struct trace_run r;
    struct trace_summary s = {0};
    struct trace_latency slow[3];
    int n;
    int rc = trace_run_load(&r, dirs, 1, NULL);
    if (rc == 0 && trace_join(&r, NULL) == 0) {
        if (trace_summarize(&s, &r, NULL) == 0 && s.losses > s.pairs)
            abort();
        trace_summary_release(&s);
        trace_slowest(&r, slow, 3, &n, NULL);
        trace_pairs(&r, explain_some, &r);
    }
    trace_run_release(&r);
    unlink(path[ring]);
    return 0;
}
