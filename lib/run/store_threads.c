#include "run/store_threads.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "util/clock.h"
#include "util/log.h"

#define READ_TURN 64
/* More would weigh so much that the kernel gives it a core, and all others together the other one. */
#define COMMIT_NICE (-3)
/* When several requests come during one commit, the next one waits until this long after the last one began:
 * otherwise a fast disk makes thousands of tiny commits a second, each with its own fsync and wake-up, which
 * is what a busy machine lacks. Full batches don't wait, and neither does who comes alone. */
#define GATHER_NS    (5 * NS_PER_MS)
#define GATHER_LEAST 4u
#define GATHER_MOST  512u
#define SWEEP_MARKS  60 /* old ids go once a minute of commits */

/* A ring of pointers that grows. */
struct queue {
    void **at;
    size_t first, n, cap;
};

/* One node's side of it. */
struct store_threads {
    struct store_core *core;
    void (*wake)(void *arg);
    void *arg;
    struct commit_job *commit, *committed;
    struct queue reads, reads_done;
};

struct store_core {
    struct store *store;
    pthread_t committer, reader;
    pthread_mutex_t lock;
    pthread_cond_t commit_ready, read_ready;
    struct store_threads *of[STORE_NODES_MAX];
    unsigned n, next_commit, next_read; /* whose turn it is */
    struct hist commit_us;
    bool stopping, reader_waits;
};

static int queue_push(struct queue *q, void *p)
{
    if (q->n == q->cap) {
        size_t cap = q->cap ? q->cap * 2 : 64;
        void **at = malloc(cap * sizeof *at);
        if (!at)
            return ERR_NOMEM;
        for (size_t i = 0; i < q->n; i++)
            at[i] = q->at[(q->first + i) % q->cap];
        free(q->at);
        *q = (struct queue){at, 0, q->n, cap};
    }
    q->at[(q->first + q->n++) % q->cap] = p;
    return 0;
}

static void *queue_pop(struct queue *q)
{
    if (!q->n)
        return NULL;
    void *p = q->at[q->first];
    q->first = (q->first + 1) % q->cap;
    q->n--;
    return p;
}

/* Each second after commits: the mark, so that a copy of the folder can be told from the original. */
static void mark(struct store_core *t)
{
    struct err_ctx err = {0};
    if (store_mark(t->store, &err))
        log_warn("%s", err.text);
}

static void wait_until(uint64_t ns)
{
    uint64_t now = clock_mono_ns();
    if (now < ns)
        nanosleep(&(struct timespec){.tv_nsec = (long)(ns - now)}, NULL);
}

/* The next node with a batch; NULL: none has. */
static struct store_threads *next_commit(struct store_core *t)
{
    for (unsigned k = 0; k < t->n; k++) {
        struct store_threads *of = t->of[t->next_commit++ % t->n];
        if (of->commit)
            return of;
    }
    return NULL;
}

static void *commit_main(void *arg)
{
    struct store_core *t = arg;
    struct store_threads *of = NULL;
    /* Everybody waits for it and it runs for a moment: it goes first, where we may say so. */
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), COMMIT_NICE);
    uint64_t marked = clock_mono_ns();
    bool unmarked = false;
    uint64_t marks = 0, last = 0;
    bool gather = false;
    pthread_mutex_lock(&t->lock);
    for (;;) {
        while (!(of = next_commit(t)) && !t->stopping) {
            struct timespec until;
            clock_gettime(CLOCK_MONOTONIC, &until);
            until.tv_sec++;
            pthread_cond_timedwait(&t->commit_ready, &t->lock, &until);
            if (unmarked && clock_mono_ns() - marked >= NS_PER_S)
                break;
        }
        struct commit_job *job = of ? of->commit : NULL;
        if (of)
            of->commit = NULL;
        if (!job && t->stopping)
            break;
        pthread_mutex_unlock(&t->lock);
        if (job && gather)
            wait_until(last + GATHER_NS);
        uint64_t began = clock_mono_ns(), took = 0;
        if (job) {
            last = began;
            gather = job->batch.entries_n >= GATHER_LEAST && job->batch.entries_n < GATHER_MOST;
        }
        if (job) {
            job_run_commit(t->store, job);
            took = (clock_mono_ns() - began) / NS_PER_US;
            unmarked = true;
            pthread_mutex_lock(&t->lock);
            if (job->batch.entries_n)
                hist_add(&t->commit_us, took);
            of->committed = job;
            pthread_mutex_unlock(&t->lock);
            of->wake(of->arg);
        }
        if (unmarked && clock_mono_ns() - marked >= NS_PER_S) {
            mark(t);
            if (++marks % SWEEP_MARKS == 0 && store_dedup_sweep(t->store, clock_wall_us(), 1000, NULL) < 0)
                log_warn("ids older than the window could not be swept");
            marked = clock_mono_ns();
            unmarked = false;
        }
        pthread_mutex_lock(&t->lock);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

/* A result must not be lost: wait for memory. The lock is held before and after. */
static void hand_back(struct store_threads *t, struct read_job *job)
{
    while (queue_push(&t->reads_done, job)) {
        pthread_mutex_unlock(&t->core->lock);
        nanosleep(&(struct timespec){0, 1000000}, NULL);
        pthread_mutex_lock(&t->core->lock);
    }
}

static struct store_threads *next_read(struct store_core *t)
{
    for (unsigned k = 0; k < t->n; k++) {
        struct store_threads *of = t->of[t->next_read++ % t->n];
        if (of->reads.n)
            return of;
    }
    return NULL;
}

/* Reads are short and many: a whole turn of them is taken, and handed back, under one lock each. */
static void *read_main(void *arg)
{
    struct store_core *t = arg;
    struct store_threads *of;
    struct read_job *turn[READ_TURN];
    pthread_mutex_lock(&t->lock);
    for (;;) {
        while (!(of = next_read(t)) && !t->stopping) {
            t->reader_waits = true;
            pthread_cond_wait(&t->read_ready, &t->lock);
        }
        t->reader_waits = false;
        if (!of)
            break;
        size_t n = 0;
        while (n < READ_TURN && of->reads.n)
            turn[n++] = queue_pop(&of->reads);
        pthread_mutex_unlock(&t->lock);
        for (size_t i = 0; i < n; i++)
            job_run_read(t->store, turn[i]);
        pthread_mutex_lock(&t->lock);
        bool ring = !of->reads_done.n;
        for (size_t i = 0; i < n; i++)
            hand_back(of, turn[i]);
        if (ring)
            of->wake(of->arg);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

int store_threads_start(struct store_threads **out, struct store *s, void (*wake)(void *arg), void *arg,
                        struct err_ctx *ctx)
{
    struct store_core *t = calloc(1, sizeof *t);
    struct store_threads *first = calloc(1, sizeof *first);
    if (!t || !first) {
        free(t);
        free(first);
        return err_set(ctx, ERR_NOMEM, "no memory for the store's threads");
    }
    *first = (struct store_threads){.core = t, .wake = wake, .arg = arg};
    t->store = s;
    t->of[t->n++] = first;
    pthread_mutex_init(&t->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&t->commit_ready, &attr);
    pthread_cond_init(&t->read_ready, NULL);
    pthread_condattr_destroy(&attr);
    if (pthread_create(&t->committer, NULL, commit_main, t)) {
        free(t);
        free(first);
        return err_set(ctx, ERR_LIMIT, "cannot start the commit thread");
    }
    if (pthread_create(&t->reader, NULL, read_main, t)) {
        pthread_mutex_lock(&t->lock);
        t->stopping = true;
        pthread_cond_signal(&t->commit_ready);
        pthread_mutex_unlock(&t->lock);
        pthread_join(t->committer, NULL);
        free(t);
        free(first);
        return err_set(ctx, ERR_LIMIT, "cannot start the reader thread");
    }
    *out = first;
    return 0;
}

int store_threads_join(struct store_threads **out, struct store_threads *first, void (*wake)(void *arg),
                       void *arg, struct err_ctx *ctx)
{
    struct store_core *t = first->core;
    struct store_threads *of = t->n < STORE_NODES_MAX ? calloc(1, sizeof *of) : NULL;
    if (!of)
        return err_set(ctx, ERR_LIMIT, "no memory for one more node, or more than %u", STORE_NODES_MAX);
    *of = (struct store_threads){.core = t, .wake = wake, .arg = arg};
    pthread_mutex_lock(&t->lock);
    t->of[t->n++] = of;
    pthread_mutex_unlock(&t->lock);
    *out = of;
    return 0;
}

void store_threads_commit(struct store_threads *t, struct commit_job *job)
{
    pthread_mutex_lock(&t->core->lock);
    BUG_ON(t->commit);
    t->commit = job;
    pthread_cond_signal(&t->core->commit_ready);
    pthread_mutex_unlock(&t->core->lock);
}

int store_threads_read(struct store_threads *t, struct read_job *job)
{
    pthread_mutex_lock(&t->core->lock);
    int rc = queue_push(&t->reads, job);
    if (!rc && t->core->reader_waits) {
        t->core->reader_waits = false; /* one signal wakes it for all that comes meanwhile */
        pthread_cond_signal(&t->core->read_ready);
    }
    pthread_mutex_unlock(&t->core->lock);
    return rc;
}

struct commit_job *store_threads_committed(struct store_threads *t)
{
    pthread_mutex_lock(&t->core->lock);
    struct commit_job *job = t->committed;
    t->committed = NULL;
    pthread_mutex_unlock(&t->core->lock);
    return job;
}

struct read_job *store_threads_read_done(struct store_threads *t)
{
    pthread_mutex_lock(&t->core->lock);
    struct read_job *job = queue_pop(&t->reads_done);
    pthread_mutex_unlock(&t->core->lock);
    return job;
}

void store_threads_hist(struct store_threads *t, struct hist *commit_us)
{
    pthread_mutex_lock(&t->core->lock);
    *commit_us = t->core->commit_us;
    pthread_mutex_unlock(&t->core->lock);
}

void store_threads_stop(struct store_threads *any)
{
    if (!any)
        return;
    struct store_core *t = any->core;
    pthread_mutex_lock(&t->lock);
    t->stopping = true;
    pthread_cond_signal(&t->commit_ready);
    pthread_cond_signal(&t->read_ready);
    pthread_mutex_unlock(&t->lock);
    pthread_join(t->committer, NULL);
    pthread_join(t->reader, NULL);
    for (unsigned i = 0; i < t->n; i++) {
        struct read_job *job;
        while ((job = queue_pop(&t->of[i]->reads_done)))
            read_job_free(job);
        free(t->of[i]->reads.at);
        free(t->of[i]->reads_done.at);
        free(t->of[i]);
    }
    pthread_mutex_destroy(&t->lock);
    pthread_cond_destroy(&t->commit_ready);
    pthread_cond_destroy(&t->read_ready);
    free(t);
}
