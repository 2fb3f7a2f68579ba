#include "trace/reader.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "trace/format_impl.h"
#include "trace/index_impl.h"
#include "trace/merge_impl.h"
#include "trace/rows_impl.h"

/* The files of a load: paths without their ending, sorted, each once. */
struct stems {
    char **stem;
    uint32_t n, cap;
};

struct load {
    struct trace_run *r;
    struct stems stems; /* of files of rows: the whole path */
    struct stream *stream;
    uint32_t cap; /* of stream and r->source */
};

enum trace_side trace_side(uint16_t node)
{
    return node < 100   ? TRACE_SIDE_SERVER
           : node < 200 ? TRACE_SIDE_LINK
           : node < 300 ? TRACE_SIDE_LOAD
                        : TRACE_SIDE_RUN;
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n > m && strcmp(s + n - m, end) == 0;
}

static int add_stem(struct stems *t, const char *path)
{
    if (t->n == t->cap) {
        uint32_t cap = t->cap ? t->cap * 2 : 16;
        char **more = realloc(t->stem, cap * sizeof *more);
        if (!more)
            return ERR_NOMEM;
        t->stem = more;
        t->cap = cap;
    }
    size_t n = strlen(path) - (rows_are_in(path) ? 0 : ends_with(path, ".ring") ? 5 : 4);
    char *s = strndup(path, n);
    if (!s)
        return ERR_NOMEM;
    t->stem[t->n++] = s;
    return 0;
}

static int compare_stems(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int list_dir(struct stems *t, const char *dir, struct err_ctx *ctx)
{
    struct stat st;
    if (stat(dir, &st) < 0)
        return err_errno(ctx, "%s", dir);
    if (!S_ISDIR(st.st_mode)) {
        if (!ends_with(dir, ".ctr") && !ends_with(dir, ".ring") && !rows_are_in(dir))
            return err_set(ctx, ERR_INVALID,
                           "%s: offset 0: neither a folder nor a .ctr, .ring, .jsonl or .csv file", dir);
        return add_stem(t, dir);
    }
    DIR *d = opendir(dir);
    if (!d)
        return err_errno(ctx, "%s", dir);
    int rc = 0;
    for (struct dirent *e; rc == 0 && (e = readdir(d));) {
        char path[PATH_MAX];
        if ((ends_with(e->d_name, ".ctr") || ends_with(e->d_name, ".ring")) &&
            (size_t)snprintf(path, sizeof path, "%s/%s", dir, e->d_name) < sizeof path)
            rc = add_stem(t, path);
    }
    closedir(d);
    return rc < 0 ? err_set(ctx, rc, "%s: out of memory", dir) : 0;
}

static ssize_t read_full(int fd, void *p, size_t n, uint64_t offset)
{
    size_t got = 0;
    while (got < n) {
        ssize_t k = pread(fd, (char *)p + got, n - got, (off_t)(offset + got));
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            break;
        got += (size_t)k;
    }
    return (ssize_t)got;
}

/* A copy of the ring's last records: numbers [from, to), of which those from `trusted` on were not
 * overwritten while they were copied. */
struct ring_part {
    struct trace_ring page;
    struct trace_event *copy;
    uint64_t from, trusted, to;
};

/* False (and a problem) when the file makes no sense. The .ctr is read after this: whatever a live flusher
 * moves meanwhile is then seen there. */
static bool read_ring(struct load *l, const char *path, struct ring_part *p)
{
    struct trace_ring *page = &p->page;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false; /* none, or swept since it was listed */
    bool ok = false;
    const char *wrong = NULL;
    ssize_t got = read_full(fd, page, sizeof *page, 0);
    if (got < (ssize_t)sizeof *page || fstat(fd, &st) < 0) {
        run_problem(l->r, "%s: offset %zd: truncated ring header", path, got);
        goto out;
    }
    uint64_t head = atomic_load(&page->head), tail = atomic_load(&page->tail), cap = page->h.capacity;
    wrong = trace_header_wrong(&page->h, TRACE_MAGIC_RING);
    if (!wrong && (tail > head || head - tail > cap))
        wrong = "head and tail disagree";
    if (!wrong && (uint64_t)st.st_size < TRACE_RING_PAGE + cap * sizeof *p->copy)
        wrong = "shorter than its capacity says";
    if (wrong) {
        run_problem(l->r, "%s: offset 0: %s", path, wrong);
        goto out;
    }
    /* the last `cap` records, so that a .ctr that lost its end is made whole as far as possible */
    p->from = head > cap ? head - cap : 0;
    p->to = head;
    p->copy = malloc((size_t)(head - p->from + 1) * sizeof *p->copy);
    if (!p->copy)
        goto out;
    for (uint64_t k = p->from; k < head;) {
        uint64_t n = cap - k % cap < head - k ? cap - k % cap : head - k;
        uint64_t at = TRACE_RING_PAGE + k % cap * sizeof *p->copy;
        if (read_full(fd, p->copy + (k - p->from), n * sizeof *p->copy, at) !=
            (ssize_t)(n * sizeof *p->copy)) {
            run_problem(l->r, "%s: offset %llu: can't be read", path, (unsigned long long)at);
            goto out;
        }
        k += n;
    }
    /* what the live owner overwrote during the copy has reached the .ctr before */
    struct trace_ring now;
    if (read_full(fd, &now, sizeof now, 0) == (ssize_t)sizeof now && atomic_load(&now.head) >= head) {
        uint64_t over = atomic_load(&now.head) > cap ? atomic_load(&now.head) - cap : 0;
        p->trusted = over > p->from ? over : p->from;
        ok = true;
    }
out:
    close(fd);
    if (!ok) {
        free(p->copy);
        p->copy = NULL;
    }
    return ok;
}

static bool read_ctr_header(struct load *l, const char *path, struct trace_header *h, uint64_t *records,
                            bool *cut)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        if (errno != ENOENT)
            run_problem(l->r, "%s: offset 0: %s", path, strerror(errno));
        return false;
    }
    bool ok = false;
    const char *wrong;
    ssize_t got = read_full(fd, h, sizeof *h, 0);
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        run_problem(l->r, "%s: offset 0: no regular file", path);
    } else if (got < (ssize_t)sizeof *h) {
        run_problem(l->r, "%s: offset %zd: truncated header", path, got);
    } else if ((wrong = trace_header_wrong(h, TRACE_MAGIC_CTR))) {
        run_problem(l->r, "%s: offset 0: %s", path, wrong);
    } else {
        *records = ((uint64_t)st.st_size - TRACE_HEADER_BYTES) / sizeof(struct trace_event);
        *cut = ((uint64_t)st.st_size - TRACE_HEADER_BYTES) % sizeof(struct trace_event);
        ok = true;
    }
    close(fd);
    return ok;
}

static struct trace_source *add_source(struct load *l, const char *path, const struct trace_header *h)
{
    struct trace_run *r = l->r;
    struct trace_source *s = &r->source[r->sources];
    size_t n = strlen(path), keep = n < sizeof s->path ? n : sizeof s->path - 1;
    memcpy(s->path, path + n - keep, keep + 1);
    memcpy(s->name, h->name, sizeof s->name);
    memcpy(s->host, h->host, sizeof s->host);
    s->node = h->node;
    s->virtual_time = h->flags & TRACE_FILE_VIRTUAL;
    s->pid = h->pid;
    s->writers = h->writers;
    s->process = h->process;
    s->writer = h->writer;
    s->seed = h->seed;
    s->utc_offset_ns = h->utc_offset_ns;
    s->dropped = h->dropped;
    s->emitted = h->emitted;
    r->sample = h->sample > r->sample ? h->sample : r->sample;
    l->stream[r->sources] = (struct stream){.source = r->sources};
    return s;
}

static bool known_writer(const struct trace_run *r, uint64_t writer)
{
    for (uint32_t i = 0; i < r->sources; i++)
        if (r->source[i].writer == writer)
            return true;
    return false;
}

static int make_room(struct load *l, uint32_t more, struct err_ctx *ctx)
{
    uint32_t want = l->r->sources + more, cap = l->cap;
    if (want > TRACE_SOURCES_MAX)
        return err_set(ctx, ERR_LIMIT, "more than %u trace files", TRACE_SOURCES_MAX);
    while (cap < want)
        cap = cap ? cap * 2 : 16;
    if (cap == l->cap)
        return 0;
    struct trace_source *source = realloc(l->r->source, cap * sizeof *source);
    l->r->source = source ? source : l->r->source;
    struct stream *stream = realloc(l->stream, cap * sizeof *stream);
    l->stream = stream ? stream : l->stream;
    if (!source || !stream)
        return err_set(ctx, ERR_NOMEM, "%u trace files: out of memory", want);
    memset(source + l->cap, 0, (cap - l->cap) * sizeof *source);
    memset(stream + l->cap, 0, (cap - l->cap) * sizeof *stream);
    l->cap = cap;
    return 0;
}

static int load_rows(struct load *l, const char *path, struct err_ctx *ctx)
{
    struct rows_file f = {0};
    int rc = rows_read(&f, path, l->r, ctx);
    rc = rc ? rc : make_room(l, f.n, ctx);
    for (uint32_t i = 0; !rc && i < f.n; i++) {
        struct rows_part *p = &f.part[i];
        if (p->source.writer && known_writer(l->r, p->source.writer))
            continue;
        l->r->source[l->r->sources] = p->source;
        l->stream[l->r->sources] = (struct stream){
            .source = l->r->sources, .owned = p->event, .rest = p->event, .rest_n = p->event ? p->n : 0};
        l->r->sources++;
        p->event = NULL;
    }
    rows_release(&f);
    return rc;
}

/* One writer: its .ctr, and what only its .ring still holds. */
static int load_writer(struct load *l, const char *stem, struct err_ctx *ctx)
{
    char ctr[PATH_MAX + 8], ring[PATH_MAX + 8];
    struct ring_part ring_part = {.copy = NULL}, *p = &ring_part;
    struct trace_header h;
    uint64_t have = 0;
    bool cut = false;
    snprintf(ctr, sizeof ctr, "%s.ctr", stem);
    snprintf(ring, sizeof ring, "%s.ring", stem);
    uint64_t before = l->r->problems;
    bool has_ring = read_ring(l, ring, p);
    bool has_ctr = read_ctr_header(l, ctr, &h, &have, &cut);
    if (has_ring && has_ctr && h.writer != p->page.h.writer) {
        run_problem(l->r, "%s: offset 0: belongs to another writer than %s", ring, ctr);
        has_ring = false;
    }
    const struct trace_header *head = has_ctr ? &h : &p->page.h;
    if ((!has_ring && !has_ctr) || known_writer(l->r, head->writer)) {
        free(p->copy);
        return 0; /* the same file under two names counts once */
    }
    struct trace_source *s = add_source(l, has_ctr ? ctr : ring, head);
    struct stream *st = &l->stream[l->r->sources++];
    st->owned = p->copy;
    st->path = has_ctr ? strdup(ctr) : NULL;
    st->in_file = has_ctr ? have : 0;
    if (has_ctr && !st->path)
        return err_set(ctx, ERR_NOMEM, "%s: out of memory", ctr);
    bool whole = has_ctr && (h.flags & TRACE_FILE_CLOSED) && !has_ring && have == h.emitted;
    if (has_ring) {
        s->emitted = p->to;
        s->dropped = atomic_load(&p->page.dropped);
        s->writers = p->page.h.writers;
        whole = true;
        if (have < p->to) {
            uint64_t first = have > p->trusted ? have : p->trusted;
            st->rest = p->copy + (first - p->from);
            st->rest_n = p->to - first;
            whole = first == have;
        } else {
            st->in_file = p->to; /* the live flusher is ahead of our look at the ring */
        }
    } else if (have < h.emitted || cut) {
        run_problem(l->r, "%s: offset %llu: truncated: %llu of %llu records", ctr,
                    (unsigned long long)(TRACE_HEADER_BYTES + have * sizeof(struct trace_event)),
                    (unsigned long long)have, (unsigned long long)h.emitted);
    }
    s->complete = whole && !s->dropped && l->r->problems == before;
    return 0;
}

/* A side is complete when every process of it has all its writers here, each complete. */
static void judge_completeness(struct trace_run *r)
{
    for (int side = 0; side < TRACE_SIDES; side++)
        r->exists[side] = false;
    for (uint32_t i = 0; i < r->sources; i++) {
        const struct trace_source *s = &r->source[i];
        enum trace_side side = trace_side(s->node);
        uint32_t files = 0, writers = 0;
        if (!r->exists[side])
            r->complete[side] = r->exists[side] = true;
        for (uint32_t k = 0; k < r->sources; k++)
            if (r->source[k].process == s->process) {
                files++;
                writers = r->source[k].writers > writers ? r->source[k].writers : writers;
            }
        if (!s->complete || s->present != s->emitted || files < writers)
            r->complete[side] = false;
    }
    r->utc_offset_ns = r->sources ? r->source[0].utc_offset_ns : 0;
}

/* A copy of the records, since their times become those of the files' clock. */
static int add_part(struct load *l, const struct trace_memory *part, int number, struct err_ctx *ctx)
{
    struct trace_run *r = l->r;
    int rc = make_room(l, 1, ctx);
    struct trace_event *copy = malloc(((size_t)part->n + 1) * sizeof *copy);
    if (rc < 0 || !copy) {
        free(copy);
        return rc < 0 ? rc : err_set(ctx, ERR_NOMEM, "%u records: out of memory", part->n);
    }
    struct trace_source *src = &r->source[r->sources];
    memset(src, 0, sizeof *src);
    if (part->name)
        snprintf(src->path, sizeof src->path, "%s", part->name);
    else
        snprintf(src->path, sizeof src->path, "memory-%d", number);
    snprintf(src->name, sizeof src->name, "capture");
    src->node = part->node;
    src->complete = true;
    src->writers = 1;
    src->process = src->writer = UINT64_MAX - (uint64_t)number;
    src->emitted = part->emitted;
    src->utc_offset_ns = part->utc && number != (int)r->sources ? r->source[0].utc_offset_ns : 0;
    for (uint32_t i = 0; i < part->n; i++) {
        copy[i] = part->event[i];
        copy[i].ts_ns -= (uint64_t)src->utc_offset_ns;
    }
    l->stream[r->sources] =
        (struct stream){.source = r->sources, .rest = copy, .rest_n = part->n, .owned = copy};
    r->sources++;
    return 0;
}

static int load_all(struct load *l, const char *const *dirs, int dirs_n, const struct trace_memory *part,
                    int parts, struct err_ctx *ctx)
{
    int rc = 0;
    struct stems *t = &l->stems;
    for (int i = 0; rc == 0 && i < dirs_n; i++)
        rc = list_dir(t, dirs[i], ctx);
    if (rc < 0)
        return rc;
    if (t->n)
        qsort(t->stem, t->n, sizeof *t->stem, compare_stems);
    rc = make_room(l, 1, ctx);
    for (uint32_t i = 0; rc == 0 && i < t->n; i++) {
        if (i && !strcmp(t->stem[i], t->stem[i - 1]))
            continue;
        rc = make_room(l, 1, ctx);
        if (rc == 0)
            rc = (rows_are_in(t->stem[i]) ? load_rows : load_writer)(l, t->stem[i], ctx);
    }
    for (int i = 0; rc == 0 && i < parts; i++)
        rc = add_part(l, &part[i], i, ctx);
    if (rc == 0 && !l->r->sources && !l->r->problems)
        rc = err_set(ctx, ERR_NOTFOUND, "%s: no trace files (*.ctr, *.ring)", dirs_n ? dirs[0] : "no folder");
    if (rc == 0)
        rc = merge_streams(l->r, l->stream, l->r->sources, ctx);
    judge_completeness(l->r);
    return rc;
}

int trace_run_load(struct trace_run *r, const char *const *dirs, int dirs_n, struct err_ctx *ctx)
{
    return trace_run_load_with(r, dirs, dirs_n, NULL, 0, ctx);
}

int trace_run_load_with(struct trace_run *r, const char *const *dirs, int dirs_n,
                        const struct trace_memory *part, int parts, struct err_ctx *ctx)
{
    memset(r, 0, sizeof *r);
    struct load l = {.r = r};
    int rc = load_all(&l, dirs, dirs_n, part, parts, ctx);
    for (uint32_t i = 0; l.stream && i < r->sources; i++) {
        free(l.stream[i].path);
        free(l.stream[i].owned);
    }
    for (uint32_t i = 0; i < l.stems.n; i++)
        free(l.stems.stem[i]);
    free(l.stems.stem);
    free(l.stream);
    return rc;
}

int trace_run_from_memory(struct trace_run *r, const struct trace_memory *part, int parts,
                          struct err_ctx *ctx)
{
    memset(r, 0, sizeof *r);
    size_t n = parts > 0 ? (size_t)parts : 0;
    r->source = calloc(n + 1, sizeof *r->source);
    struct stream *s = calloc(n + 1, sizeof *s);
    int rc = r->source && s ? 0 : err_set(ctx, ERR_NOMEM, "out of memory");
    for (size_t i = 0; rc == 0 && i < n; i++) {
        struct trace_source *src = &r->source[r->sources];
        snprintf(src->path, sizeof src->path, "memory-%zu", i);
        src->node = part[i].node;
        src->complete = true;
        src->writers = 1;
        src->process = src->writer = i + 1;
        src->emitted = part[i].emitted;
        s[i] = (struct stream){.source = r->sources++, .rest = part[i].event, .rest_n = part[i].n};
    }
    if (rc == 0)
        rc = merge_streams(r, s, r->sources, ctx);
    judge_completeness(r);
    free(s);
    return rc;
}

void trace_run_release(struct trace_run *r)
{
    index_free(r->index);
    free(r->event);
    free(r->from);
    free(r->source);
    memset(r, 0, sizeof *r);
}
