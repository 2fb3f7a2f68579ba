#include "trace/merge_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "trace/format_impl.h"

#define BUF_RECORDS 1024 /* a file is opened for each refill: any number of files, few descriptors */

void run_problem(struct trace_run *r, const char *fmt, ...)
{
    if (r->problems++ >= TRACE_PROBLEMS_MAX)
        return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(r->problem[r->problems - 1].text, sizeof r->problem[0].text, fmt, ap);
    va_end(ap);
}

static void refill_from_file(struct trace_run *r, struct stream *s)
{
    uint64_t want = s->in_file - s->next, got = 0, size = sizeof(struct trace_event);
    if (want > BUF_RECORDS)
        want = BUF_RECORDS;
    int fd = open(s->path, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && got < want * size) {
        ssize_t n = pread(fd, (char *)s->buf + got, want * size - got,
                          (off_t)(TRACE_HEADER_BYTES + s->next * size + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        got += (uint64_t)n;
    }
    if (fd >= 0)
        close(fd);
    s->have = (uint32_t)(got / size);
    if (s->have < want) {
        run_problem(r, "%s: offset %llu: can't be read", s->path,
                    (unsigned long long)(TRACE_HEADER_BYTES + s->next * size + got));
        s->bad = true;
        s->in_file = s->next + s->have; /* goes on with `rest`, if any */
    }
    s->next += s->have;
}

static bool sane(struct trace_run *r, struct stream *s, const struct trace_event *e)
{
    const char *what = e->hop == HOP_NONE || e->hop >= HOP_COUNT ? "hop"
                       : e->reason >= REASON_COUNT               ? "reason"
                                                                 : NULL;
    if (!what)
        return true;
    if (!s->bad) {
        uint64_t number = s->next - s->have + (uint64_t)(e - s->buf);
        run_problem(r, "%s: offset %llu: %s %u is unknown", r->source[s->source].path,
                    (unsigned long long)(TRACE_HEADER_BYTES + number * sizeof *e), what,
                    what[0] == 'h' ? e->hop : e->reason);
    }
    s->bad = true;
    return false;
}

/* The stream's current record, or NULL at its end. */
static const struct trace_event *peek(struct trace_run *r, struct stream *s)
{
    for (;; s->at++) {
        while (s->at == s->have) {
            s->at = s->have = 0;
            if (s->next < s->in_file) {
                refill_from_file(r, s);
                continue;
            }
            uint64_t from = s->next - s->in_file;
            if (from >= s->rest_n)
                return NULL;
            s->have = (uint32_t)(s->rest_n - from < BUF_RECORDS ? s->rest_n - from : BUF_RECORDS);
            memcpy(s->buf, s->rest + from, s->have * sizeof *s->buf);
            s->next += s->have;
        }
        if (sane(r, s, &s->buf[s->at]))
            return &s->buf[s->at];
    }
}

/* ---- a binary heap of streams by (time of the current record, number of the stream) ---- */

struct heap {
    struct {
        uint64_t ts;
        uint32_t stream;
    } * node;
    uint32_t n;
};

static bool before(const struct heap *h, uint32_t a, uint32_t b)
{
    return h->node[a].ts != h->node[b].ts ? h->node[a].ts < h->node[b].ts
                                          : h->node[a].stream < h->node[b].stream;
}

static void sift_down(struct heap *h, uint32_t at)
{
    for (;;) {
        uint32_t least = at;
        for (uint32_t c = 2 * at + 1; c <= 2 * at + 2; c++)
            if (c < h->n && before(h, c, least))
                least = c;
        if (least == at)
            return;
        __typeof__(h->node[0]) t = h->node[at];
        h->node[at] = h->node[least];
        h->node[least] = t;
        at = least;
    }
}

/* ---- records with a time of their own may be out of order within a writer: stable sort of what came out
 * ---- */

struct sort_key {
    uint64_t ts;
    uint64_t at;
};

static int compare_keys(const void *a, const void *b)
{
    const struct sort_key *x = a, *y = b;
    if (x->ts != y->ts)
        return x->ts < y->ts ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

static int sort_stable(struct trace_event *e, uint16_t *from, uint32_t n, struct err_ctx *ctx)
{
    struct sort_key *k = malloc((size_t)n * sizeof *k);
    if (!k)
        return err_set(ctx, ERR_NOMEM, "sorting %u records: out of memory", n);
    for (uint32_t i = 0; i < n; i++)
        k[i] = (struct sort_key){e[i].ts_ns, i};
    qsort(k, n, sizeof *k, compare_keys);
    /* apply the permutation in place, cycle by cycle */
    for (uint32_t i = 0; i < n; i++) {
        if (k[i].at == i)
            continue;
        struct trace_event held = e[i];
        uint16_t held_from = from[i];
        uint32_t to = i;
        while (k[to].at != i) {
            uint32_t next = (uint32_t)k[to].at;
            e[to] = e[next];
            from[to] = from[next];
            k[to].at = to;
            to = next;
        }
        e[to] = held;
        from[to] = held_from;
        k[to].at = to;
    }
    free(k);
    return 0;
}

static int run_heap(struct trace_run *r, struct stream *s, struct heap *h, uint64_t cap, struct err_ctx *ctx)
{
    bool sorted = true;
    uint64_t last = 0;
    while (h->n) {
        struct stream *from = &s[h->node[0].stream];
        const struct trace_event *e = &from->buf[from->at];
        if (r->events >= cap)
            return err_set(ctx, ERR_LIMIT, "the trace grew while it was read");
        sorted &= e->ts_ns >= last;
        last = e->ts_ns;
        r->from[r->events] = (uint16_t)from->source;
        r->event[r->events++] = *e;
        r->source[from->source].present++;
        from->at++;
        e = peek(r, from);
        if (e)
            h->node[0].ts = e->ts_ns;
        else
            h->node[0] = h->node[--h->n];
        sift_down(h, 0);
    }
    return sorted ? 0 : sort_stable(r->event, r->from, r->events, ctx);
}

int merge_streams(struct trace_run *r, struct stream *s, uint32_t n, struct err_ctx *ctx)
{
    uint64_t cap = 0;
    int rc = 0;
    struct heap h = {.node = calloc(n ? n : 1, sizeof *h.node)};
    for (uint32_t i = 0; i < n; i++)
        cap += s[i].in_file + s[i].rest_n;
    if (cap >= TRACE_NONE) {
        free(h.node);
        return err_set(ctx, ERR_LIMIT, "%llu records: at most %u can be joined", (unsigned long long)cap,
                       TRACE_NONE - 1);
    }
    r->event = malloc((cap ? cap : 1) * sizeof *r->event);
    r->from = malloc((cap ? cap : 1) * sizeof *r->from);
    if (!r->event || !r->from || !h.node)
        rc = err_set(ctx, ERR_NOMEM, "%llu records: out of memory", (unsigned long long)cap);
    for (uint32_t i = 0; rc == 0 && i < n; i++) {
        s[i].buf = malloc(BUF_RECORDS * sizeof *s[i].buf);
        if (!s[i].buf)
            rc = err_set(ctx, ERR_NOMEM, "%u files: out of memory", n);
        const struct trace_event *e = rc == 0 ? peek(r, &s[i]) : NULL;
        if (e) {
            h.node[h.n].ts = e->ts_ns;
            h.node[h.n++].stream = i;
        }
    }
    for (uint32_t i = h.n / 2; i-- > 0;)
        sift_down(&h, i);
    if (rc == 0)
        rc = run_heap(r, s, &h, cap, ctx);
    for (uint32_t i = 0; i < n; i++) {
        free(s[i].buf);
        s[i].buf = NULL;
        if (s[i].bad)
            r->source[s[i].source].complete = false;
    }
    free(h.node);
    return rc;
}
