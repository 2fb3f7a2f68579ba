#include "trace/trace.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "trace/files_impl.h"
#include "trace/format_impl.h"
#include "trace/tsc_impl.h"
#include "util/clock.h"

#define WRITERS_MAX    64
#define RING_DEFAULT   65536u
#define FLUSH_EVERY_MS 10 /* a default ring then holds bursts of 6 M events/s */

struct trace_writer {
    /* the emitting thread's own */
    struct trace_event *slots;
    struct trace_ring *ring;
    const struct tsc *tsc;
    uint64_t head, mask, tail_seen, last_ns, virtual_ns;
    uint16_t node;
    uint32_t sample;
    /* the flusher's own */
    _Alignas(64) int ctr_fd, ring_fd;
    uint64_t header_emitted, header_dropped;
    size_t map_bytes;
    char ring_path[PATH_MAX];
};

struct trace {
    struct tsc tsc;
    char dir[PATH_MAX - 128], name[32];
    uint64_t seed, process;
    uint32_t capacity, sample;
    uint16_t node;
    pthread_t flusher;
    pthread_mutex_t lock; /* writers_n, writer[], stop */
    pthread_cond_t wake;
    bool stop;
    int failed; /* the first flush error */
    _Atomic uint32_t writers_n;
    struct trace_writer *writer[WRITERS_MAX];
};

/* ---- hot path: no allocation, no lock, no system call ---- */

static inline void put(struct trace_writer *w, const struct trace_event *e, uint32_t conn, uint16_t lane_seq)
{
    uint64_t head = w->head;
    if (__builtin_expect(head - w->tail_seen > w->mask, 0)) {
        w->tail_seen = atomic_load_explicit(&w->ring->tail, memory_order_acquire);
        if (head - w->tail_seen > w->mask) {
            uint64_t d = atomic_load_explicit(&w->ring->dropped, memory_order_relaxed);
            atomic_store_explicit(&w->ring->dropped, d + 1, memory_order_relaxed);
            return;
        }
    }
    struct trace_event *s = &w->slots[head & w->mask];
    *s = *e;
    s->conn = conn;
    s->lane_seq = lane_seq;
    s->node = w->node;
    if (!e->ts_ns) {
        uint64_t ns = w->virtual_ns ? w->virtual_ns : tsc_now(w->tsc);
        /* a recalibration may step back by some ns; a thread's own records never do */
        w->last_ns = ns > w->last_ns ? ns : w->last_ns;
        s->ts_ns = w->last_ns;
    }
    w->head = head + 1;
    atomic_store_explicit(&w->ring->head, head + 1, memory_order_release);
}

void trace_emit(struct trace_writer *w, const struct trace_event *e)
{
    if (w && (!e->user || trace_wants(w, e->user)))
        put(w, e, e->conn, e->lane_seq);
}

bool trace_wants(const struct trace_writer *w, uint64_t user)
{
    return w && (w->sample < 2 || user / TRACE_BLOCK % w->sample == 0);
}

void trace_lane_emit(struct trace_writer *w, struct trace_lane *lane, const struct trace_event *e)
{
    if (w && !lane->quiet)
        put(w, e, lane->conn, lane->next++);
}

void trace_set_virtual(struct trace_writer *w, uint64_t now_ns)
{
    if (!w)
        return;
    if (!w->virtual_ns)
        w->ring->h.flags = TRACE_FILE_VIRTUAL;
    w->virtual_ns = now_ns;
}

/* ---- the flusher ---- */

static int write_header(struct trace_writer *w, const struct tsc *tsc, uint64_t emitted, uint64_t dropped,
                        uint16_t closed)
{
    struct trace_header h = w->ring->h;
    memcpy(h.magic, TRACE_MAGIC_CTR, sizeof h.magic);
    const struct tsc_line *l = &tsc->line[atomic_load(&tsc->current) % TSC_LINES];
    h.tsc_base = atomic_load(&l->base);
    h.tsc_base_ns = atomic_load(&l->base_ns);
    h.tsc_mult = atomic_load(&l->mult);
    h.emitted = emitted;
    h.dropped = dropped;
    h.flags |= closed;
    return files_write_at(w->ctr_fd, &h, sizeof h, 0);
}

/* Bring what the ring holds into the .ctr. 0 or a negative enum err (the rest stays in the ring). */
static int flush(struct trace_writer *w, const struct tsc *tsc, bool closing)
{
    uint64_t dropped = atomic_load_explicit(&w->ring->dropped, memory_order_relaxed);
    uint64_t head = atomic_load_explicit(&w->ring->head, memory_order_acquire);
    uint64_t tail = atomic_load_explicit(&w->ring->tail, memory_order_relaxed);
    while (tail < head) {
        uint64_t n = head - tail, at = tail & w->mask;
        if (n > w->mask + 1 - at)
            n = w->mask + 1 - at;
        int rc = files_write_at(w->ctr_fd, &w->slots[at], n * sizeof w->slots[0],
                                TRACE_HEADER_BYTES + tail * sizeof w->slots[0]);
        if (rc < 0)
            return rc;
        tail += n;
        atomic_store_explicit(&w->ring->tail, tail, memory_order_release);
    }
    if (!closing && head == w->header_emitted && dropped == w->header_dropped)
        return 0;
    w->header_emitted = head;
    w->header_dropped = dropped;
    return write_header(w, tsc, head, dropped, closing ? TRACE_FILE_CLOSED : 0);
}

static void flush_all(struct trace *t, bool closing)
{
    uint32_t n = atomic_load_explicit(&t->writers_n, memory_order_acquire);
    for (uint32_t i = 0; i < n; i++) {
        int rc = flush(t->writer[i], &t->tsc, closing);
        if (rc < 0 && !t->failed)
            t->failed = rc;
    }
}

static void *flusher_main(void *arg)
{
    struct trace *t = arg;
    struct timespec until;
    pthread_mutex_lock(&t->lock);
    while (!t->stop) {
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += FLUSH_EVERY_MS * 1000000L;
        if (until.tv_nsec >= 1000000000L) {
            until.tv_nsec -= 1000000000L;
            until.tv_sec++;
        }
        pthread_cond_timedwait(&t->wake, &t->lock, &until);
        pthread_mutex_unlock(&t->lock);
        tsc_recalibrate(&t->tsc);
        flush_all(t, false);
        pthread_mutex_lock(&t->lock);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

/* ---- opening and closing ---- */

static uint64_t random_u64(void)
{
    uint64_t v;
    if (getrandom(&v, sizeof v, 0) != sizeof v)
        v = clock_mono_ns() ^ clock_wall_us() << 20;
    return v;
}

static bool good_name(const char *s)
{
    size_t n = s ? strlen(s) : 0;
    return n > 0 && n < sizeof((struct trace *)0)->name &&
           strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == n;
}

static int start_flusher(struct trace *t, struct err_ctx *ctx)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&t->wake, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&t->lock, NULL);
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* signals belong to the program's own threads */
    int rc = pthread_create(&t->flusher, NULL, flusher_main, t);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc) {
        pthread_cond_destroy(&t->wake);
        pthread_mutex_destroy(&t->lock);
        return err_set(ctx, ERR_NOMEM, "the trace's flusher thread: %s", strerror(rc));
    }
    return 0;
}

int trace_open(struct trace **out, const struct trace_config *c, struct err_ctx *ctx)
{
    *out = NULL;
    uint32_t cap = c->ring_events ? c->ring_events : RING_DEFAULT;
    if (!good_name(c->name))
        return err_set(ctx, ERR_INVALID, "trace name '%s': want 1-31 letters, digits, - or _",
                       c->name ? c->name : "");
    if (cap > TRACE_RING_MAX || (cap & (cap - 1)))
        return err_set(ctx, ERR_INVALID, "trace ring of %u events: want a power of two up to %u", cap,
                       TRACE_RING_MAX);
    if (!c->dir || strlen(c->dir) >= sizeof((struct trace *)0)->dir)
        return err_set(ctx, ERR_INVALID, "trace folder: missing or too long");
    int rc = files_make_dirs(c->dir, ctx);
    if (rc < 0)
        return rc;
    rc = files_sweep(c->dir, c->name, ctx);
    if (rc < 0)
        return rc;
    struct trace *t = calloc(1, sizeof *t);
    if (!t)
        return err_set(ctx, ERR_NOMEM, "tracing: out of memory");
    snprintf(t->dir, sizeof t->dir, "%s", c->dir);
    snprintf(t->name, sizeof t->name, "%s", c->name);
    t->seed = c->seed;
    t->capacity = cap;
    t->node = c->node;
    t->sample = c->sample;
    t->process = random_u64();
    tsc_init(&t->tsc);
    rc = start_flusher(t, ctx);
    if (rc < 0) {
        free(t);
        return rc;
    }
    *out = t;
    return 0;
}

static void writer_free(struct trace_writer *w, bool keep_ring)
{
    if (w->ring)
        munmap(w->ring, w->map_bytes);
    if (w->ring_fd >= 0) {
        if (!keep_ring)
            unlink(w->ring_path);
        close(w->ring_fd);
    }
    if (w->ctr_fd >= 0)
        close(w->ctr_fd);
    free(w);
}

int trace_close(struct trace *t)
{
    if (!t)
        return 0;
    pthread_mutex_lock(&t->lock);
    t->stop = true;
    pthread_cond_signal(&t->wake);
    pthread_mutex_unlock(&t->lock);
    pthread_join(t->flusher, NULL);
    flush_all(t, true);
    for (uint32_t i = 0; i < t->writers_n; i++) {
        struct trace_writer *w = t->writer[i];
        bool rest = atomic_load(&w->ring->tail) != atomic_load(&w->ring->head) || t->failed;
        writer_free(w, rest);
    }
    pthread_cond_destroy(&t->wake);
    pthread_mutex_destroy(&t->lock);
    int rc = t->failed;
    free(t);
    return rc;
}

static void fill_header(struct trace_header *h, const struct trace *t, uint32_t number)
{
    struct now now = clock_now();
    memcpy(h->magic, TRACE_MAGIC_RING, sizeof h->magic);
    h->version = TRACE_VERSION;
    h->header_bytes = TRACE_HEADER_BYTES;
    h->record_bytes = sizeof(struct trace_event);
    h->capacity = t->capacity;
    h->pid = (uint32_t)getpid();
    h->number = number;
    h->node = t->node;
    h->flags = atomic_load(&t->tsc.usable) ? TRACE_FILE_TSC : 0;
    h->seed = t->seed;
    h->sample = t->sample;
    h->process = t->process;
    h->writers = t->writers_n + 1;
    h->writer = random_u64();
    h->utc_offset_ns = (int64_t)(now.wall_us * NS_PER_US) - (int64_t)now.mono_ns;
    h->opened_ns = now.mono_ns;
    memcpy(h->name, t->name, sizeof h->name);
    gethostname(h->host, sizeof h->host - 1);
}

/* Both files, the ring allocated on disk (a full disk must not become a SIGBUS) and mapped with its pages in.
 */
static int open_files(struct trace_writer *w, const struct trace *t, uint32_t first, struct err_ctx *ctx)
{
    char ctr[PATH_MAX];
    uint32_t number = first;
    for (;; number++) {
        snprintf(ctr, sizeof ctr, "%s/%s.%d.%u.ctr", t->dir, t->name, (int)getpid(), number);
        snprintf(w->ring_path, sizeof w->ring_path, "%s/%s.%d.%u.ring", t->dir, t->name, (int)getpid(),
                 number);
        w->ctr_fd = open(ctr, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (w->ctr_fd >= 0)
            break;
        if (errno != EEXIST || number == UINT32_MAX)
            return err_errno(ctx, "%s", ctr);
    }
    w->ring_fd = open(w->ring_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (w->ring_fd < 0)
        return err_errno(ctx, "%s", w->ring_path);
    while (flock(w->ring_fd, LOCK_EX) < 0 && errno == EINTR)
        ; /* a sweep may hold it for a moment */
    w->map_bytes = TRACE_RING_PAGE + (size_t)t->capacity * sizeof(struct trace_event);
    errno = posix_fallocate(w->ring_fd, 0, (off_t)w->map_bytes);
    if (errno)
        return err_errno(ctx, "%s", w->ring_path);
    void *map = mmap(NULL, w->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, w->ring_fd, 0);
    if (map == MAP_FAILED)
        return err_errno(ctx, "%s", w->ring_path);
    w->ring = map;
    w->slots = (struct trace_event *)((char *)map + TRACE_RING_PAGE);
    w->mask = t->capacity - 1;
    fill_header(&w->ring->h, t, number);
    int rc = write_header(w, &t->tsc, 0, 0, 0);
    return rc < 0 ? err_set(ctx, rc, "%s: %s", ctr, err_text(rc)) : 0;
}

int trace_writer_new(struct trace_writer **out, struct trace *t, struct err_ctx *ctx)
{
    *out = NULL;
    struct trace_writer *w = aligned_alloc(64, (sizeof *w + 63) / 64 * 64);
    if (!w)
        return err_set(ctx, ERR_NOMEM, "tracing: out of memory");
    memset(w, 0, sizeof *w);
    w->ctr_fd = w->ring_fd = -1;
    w->node = t->node;
    w->sample = t->sample;
    w->tsc = &t->tsc;
    pthread_mutex_lock(&t->lock);
    uint32_t n = t->writers_n;
    int rc = n < WRITERS_MAX ? open_files(w, t, n, ctx)
                             : err_set(ctx, ERR_LIMIT, "a process has at most %d trace writers", WRITERS_MAX);
    if (rc == 0) {
        t->writer[n] = w;
        for (uint32_t i = 0; i < n; i++)
            __atomic_store_n(&t->writer[i]->ring->h.writers, n + 1, __ATOMIC_RELAXED);
        atomic_store_explicit(&t->writers_n, n + 1, memory_order_release);
        *out = w;
    }
    pthread_mutex_unlock(&t->lock);
    if (rc < 0)
        writer_free(w, false);
    return rc;
}

static bool all_taken(const struct trace *t)
{
    uint32_t n = atomic_load_explicit(&t->writers_n, memory_order_acquire);
    for (uint32_t i = 0; i < n; i++) {
        const struct trace_ring *r = t->writer[i]->ring;
        if (atomic_load_explicit(&r->tail, memory_order_acquire) != atomic_load(&r->head))
            return false;
    }
    return true;
}

void trace_sync(struct trace *t)
{
    while (t && !t->failed && !all_taken(t)) {
        pthread_mutex_lock(&t->lock);
        pthread_cond_signal(&t->wake);
        pthread_mutex_unlock(&t->lock);
        nanosleep(&(struct timespec){0, 20000}, NULL);
    }
}

uint64_t trace_dropped(const struct trace *t)
{
    uint64_t sum = 0;
    uint32_t n = t ? atomic_load_explicit(&t->writers_n, memory_order_acquire) : 0;
    for (uint32_t i = 0; i < n; i++)
        sum += atomic_load_explicit(&t->writer[i]->ring->dropped, memory_order_relaxed);
    return sum;
}

uint64_t trace_emitted(const struct trace *t)
{
    uint64_t sum = 0;
    uint32_t n = t ? atomic_load_explicit(&t->writers_n, memory_order_acquire) : 0;
    for (uint32_t i = 0; i < n; i++)
        sum += atomic_load_explicit(&t->writer[i]->ring->head, memory_order_relaxed);
    return sum;
}
