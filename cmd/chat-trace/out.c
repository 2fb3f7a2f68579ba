#include "cmd/chat-trace/out.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#define BLOCK     (512u << 10)
#define BLOCK_MAX (16u << 20)

struct block {
    char *p;
    size_t n, cap;
};

struct out {
    struct block fill, full; /* full: in the thread's hands while n > 0 */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int fd, error; /* errno */
    bool stop;
};

static int write_all(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t k = write(fd, p, n);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return errno;
        p += k;
        n -= (size_t)k;
    }
    return 0;
}

static void *write_blocks(void *arg)
{
    struct out *o = arg;
    pthread_mutex_lock(&o->lock);
    for (;;) {
        while (!o->full.n && !o->stop)
            pthread_cond_wait(&o->changed, &o->lock);
        if (!o->full.n)
            break;
        bool dead = o->error;
        pthread_mutex_unlock(&o->lock);
        int error = dead ? 0 : write_all(o->fd, o->full.p, o->full.n);
        pthread_mutex_lock(&o->lock);
        o->error = o->error ? o->error : error;
        o->full.n = 0;
        pthread_cond_signal(&o->changed);
    }
    pthread_mutex_unlock(&o->lock);
    return NULL;
}

int out_open(struct out **out, int fd, struct err_ctx *err)
{
    struct out *o = calloc(1, sizeof *o);
    *out = NULL;
    if (!o)
        return err_set(err, ERR_NOMEM, "out of memory");
    o->fd = fd;
    pthread_mutex_init(&o->lock, NULL);
    pthread_cond_init(&o->changed, NULL);
    if (pthread_create(&o->thread, NULL, write_blocks, o) != 0) {
        free(o);
        return err_set(err, ERR_NOMEM, "no thread to write with");
    }
    *out = o;
    return 0;
}

void out_flush(struct out *o)
{
    if (!o->fill.n)
        return;
    pthread_mutex_lock(&o->lock);
    while (o->full.n)
        pthread_cond_wait(&o->changed, &o->lock);
    struct block b = o->full;
    o->full = o->fill;
    o->fill = b;
    pthread_cond_signal(&o->changed);
    pthread_mutex_unlock(&o->lock);
    if (o->fill.cap > BLOCK) { /* one long row is no reason to keep so much */
        free(o->fill.p);
        o->fill = (struct block){0};
    }
}

char *out_room(struct out *o, size_t n)
{
    if (n > BLOCK_MAX)
        return NULL;
    if (o->fill.n && o->fill.cap - o->fill.n < n)
        out_flush(o);
    if (o->fill.cap - o->fill.n < n) {
        size_t cap = n > BLOCK ? n : BLOCK;
        char *p = malloc(cap);
        if (!p)
            return NULL;
        free(o->fill.p);
        o->fill = (struct block){.p = p, .cap = cap};
    }
    return o->fill.p + o->fill.n;
}

void out_took(struct out *o, size_t n)
{
    o->fill.n += n;
}

int out_failed(struct out *o)
{
    pthread_mutex_lock(&o->lock);
    int error = o->error;
    pthread_mutex_unlock(&o->lock);
    return error;
}

int out_close(struct out *o, struct err_ctx *err)
{
    out_flush(o);
    pthread_mutex_lock(&o->lock);
    while (o->full.n)
        pthread_cond_wait(&o->changed, &o->lock);
    o->stop = true;
    pthread_cond_signal(&o->changed);
    pthread_mutex_unlock(&o->lock);
    pthread_join(o->thread, NULL);
    int error = o->error;
    free(o->fill.p);
    free(o->full.p);
    free(o);
    errno = error;
    return error ? err_errno(err, "writing the rows") : 0;
}
