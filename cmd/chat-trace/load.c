/* The input of most commands: folders of traces, files of rows, captures, in any mixture. */
#include <stdio.h>
#include <sys/stat.h>

#include "cmd/chat-trace/tool.h"
#include "wire/dialect.h"
#include "wire/pcap/capture.h"
#include "wire/pcap/evidence.h"

#define INPUTS_MAX 256
#define TAP_MEMORY (256u << 20)

static bool is_capture(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && capture_looks_like(path);
}

static void complain(const struct trace_run *r)
{
    for (uint64_t i = 0; i < r->problems && i < TRACE_PROBLEMS_MAX && r->problem[i].text[0]; i++)
        fprintf(stderr, "chat-trace: %s\n", r->problem[i].text);
    if (r->problems > TRACE_PROBLEMS_MAX)
        fprintf(stderr, "chat-trace: and %llu more problems\n",
                (unsigned long long)(r->problems - TRACE_PROBLEMS_MAX));
}

static void tell_points(const struct evidence *e)
{
    const struct evidence_point *p;
    int n = evidence_points(e, &p);
    for (int i = 0; i < n; i++) {
        fprintf(stderr, "chat-trace: %s: the %s end, %llu connections, %llu messages%s", p[i].path,
                p[i].role == EVIDENCE_PHONES ? "phones'" : "server's", (unsigned long long)p[i].connections,
                (unsigned long long)p[i].messages, p[i].missed ? ", not complete" : "");
        if (p[i].clock_err)
            fprintf(stderr, "; clock %+.3f ms, +-%.3f ms", (double)p[i].clock_ns / 1e6,
                    (double)p[i].clock_err / 1e6);
        fputc('\n', stderr);
    }
}

/* Captures stand in for the sides that no trace tells of. */
static int load_captures(struct trace_run *r, struct dialect *dialect, const char *const *dirs, int n,
                         const char *const *captures, int captures_n, bool talk, struct err_ctx *err)
{
    struct evidence *e = NULL;
    const struct trace_memory *part;
    struct err_ctx first = {0};
    bool want[TRACE_SIDES] = {[TRACE_SIDE_SERVER] = true, [TRACE_SIDE_LINK] = true, [TRACE_SIDE_LOAD] = true};
    int rc = n ? trace_run_load(r, dirs, n, err) : 0, bad = 0;
    for (int side = 0; n && side < TRACE_SIDES; side++)
        want[side] &= !r->exists[side];
    trace_run_release(r);
    rc = rc ? rc : evidence_new(&e, dialect, TAP_MEMORY, err);
    for (int i = 0; !rc && i < captures_n; i++) {
        int one = evidence_read(e, captures[i], &first);
        if (one == ERR_NOMEM || one == ERR_LIMIT)
            rc = err_set(err, one, "%s", first.text);
        else if (one)
            fprintf(stderr, "chat-trace: %s\n", first.text);
        bad += one < 0;
    }
    rc = rc ? rc : evidence_finish(e, want, err);
    if (!rc) {
        if (talk)
            tell_points(e);
        int parts = evidence_parts(e, &part);
        if (!n && !parts)
            rc = err_set(err, bad ? ERR_CORRUPT : ERR_NOTFOUND, "%s: %s", captures[0],
                         captures_n > 1 ? "no WebSocket message in it, nor in the other captures"
                                        : "no WebSocket message in it");
        else
            rc = trace_run_load_with(r, dirs, n, part, parts, err);
        r->problems += (uint64_t)bad;
    }
    evidence_free(e);
    return rc;
}

int tool_load(struct trace_run *r, const char *dialect, const char *const *inputs, int n, unsigned how,
              struct err_ctx *err)
{
    const char *dirs[INPUTS_MAX], *captures[INPUTS_MAX];
    struct dialect *d = NULL;
    int dirs_n = 0, captures_n = 0, rc = dialect ? dialect_load(&d, dialect, err) : 0;
    for (int i = 0; i < n && i < INPUTS_MAX; i++)
        *(is_capture(inputs[i]) ? &captures[captures_n++] : &dirs[dirs_n++]) = inputs[i];
    if (!rc)
        rc = captures_n ? load_captures(r, d, dirs, dirs_n, captures, captures_n, !(how & TOOL_QUIETLY), err)
                        : trace_run_load(r, dirs, dirs_n, err);
    if (!rc)
        complain(r);
    dialect_free(d);
    return rc || !(how & TOOL_JOIN) ? rc : trace_join(r, err);
}
