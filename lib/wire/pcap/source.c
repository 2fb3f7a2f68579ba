#include "wire/pcap/source.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

enum packing { PACK_NONE, PACK_GZIP, PACK_ZSTD };

struct block {
    uint8_t *p;
    size_t n;
};

struct source {
    int fd;
    const uint8_t *memory; /* instead of fd */
    size_t memory_n;
    enum packing packing;
    bool threaded, own_fd;
    /* packed input */
    uint8_t *in;
    size_t in_at, in_n;
    bool in_end, member_open; /* inside a gzip member or zstd frame */
    z_stream z;
    ZSTD_DCtx *zstd;
    /* between the threads */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t more, less;
    struct block block[SOURCE_BLOCKS];
    unsigned first, ready; /* blocks that are filled; the first may be in the reader's hands */
    bool taken, stop, ended;
    int rc;
    struct err_ctx err;
};

static ssize_t read_some(struct source *s, uint8_t *p, size_t n)
{
    if (s->memory) {
        size_t k = n < s->memory_n ? n : s->memory_n;
        memcpy(p, s->memory, k);
        s->memory += k;
        s->memory_n -= k;
        return (ssize_t)k;
    }
    for (;;) {
        ssize_t k = read(s->fd, p, n);
        if (k >= 0 || errno != EINTR)
            return k;
    }
}

/* Fill p as far as the input goes. */
static int read_full(struct source *s, uint8_t *p, size_t n, size_t *got)
{
    *got = 0;
    while (*got < n) {
        ssize_t k = read_some(s, p + *got, n - *got);
        if (k < 0)
            return err_errno(&s->err, "reading");
        if (k == 0)
            break;
        *got += (size_t)k;
        if (!s->memory && s->fd >= 0 && *got >= n / 4 && lseek(s->fd, 0, SEEK_CUR) < 0)
            break; /* a pipe: what is there now is enough */
    }
    return 0;
}

static int refill(struct source *s)
{
    if (s->in_at < s->in_n || s->in_end)
        return 0;
    s->in_at = 0;
    int rc = read_full(s, s->in, SOURCE_BLOCK, &s->in_n);
    s->in_end = s->in_n == 0;
    return rc;
}

static int unpack_gzip(struct source *s, uint8_t *out, size_t cap, size_t *n)
{
    while (*n < cap) {
        int rc = refill(s);
        if (rc < 0)
            return rc;
        if (s->in_end)
            return s->member_open ? err_set(&s->err, ERR_TRUNCATED, "the gzip stream ends early") : 0;
        if (!s->member_open && inflateReset(&s->z) != Z_OK)
            return err_set(&s->err, ERR_NOMEM, "gzip: out of memory");
        s->member_open = true;
        s->z.next_in = s->in + s->in_at;
        s->z.avail_in = (uInt)(s->in_n - s->in_at);
        s->z.next_out = out + *n;
        s->z.avail_out = (uInt)(cap - *n);
        int z = inflate(&s->z, Z_NO_FLUSH);
        s->in_at = s->in_n - s->z.avail_in;
        *n = cap - s->z.avail_out;
        if (z == Z_STREAM_END)
            s->member_open = false;
        else if (z == Z_MEM_ERROR)
            return err_set(&s->err, ERR_NOMEM, "gzip: out of memory");
        else if (z != Z_OK && z != Z_BUF_ERROR)
            return err_set(&s->err, ERR_CORRUPT, "the gzip stream is corrupt (%s)",
                           s->z.msg ? s->z.msg : "?");
    }
    return 0;
}

static int unpack_zstd(struct source *s, uint8_t *out, size_t cap, size_t *n)
{
    while (*n < cap) {
        int rc = refill(s);
        if (rc < 0)
            return rc;
        if (s->in_end && !s->member_open)
            return 0;
        ZSTD_inBuffer in = {s->in, s->in_n, s->in_at};
        ZSTD_outBuffer o = {out, cap, *n};
        size_t z = ZSTD_decompressStream(s->zstd, &o, &in);
        if (ZSTD_isError(z))
            return err_set(&s->err, ERR_CORRUPT, "the zstd stream is corrupt (%s)", ZSTD_getErrorName(z));
        bool stuck = in.pos == s->in_at && o.pos == *n;
        s->in_at = in.pos;
        *n = o.pos;
        s->member_open = z != 0;
        if (s->in_end && stuck)
            return s->member_open ? err_set(&s->err, ERR_TRUNCATED, "the zstd stream ends early") : 0;
    }
    return 0;
}

/* One block of unpacked bytes; *n 0: the end. Bytes may come together with an error. */
static int produce(struct source *s, uint8_t *p, size_t *n)
{
    *n = 0;
    if (s->packing == PACK_GZIP)
        return unpack_gzip(s, p, SOURCE_BLOCK, n);
    if (s->packing == PACK_ZSTD)
        return unpack_zstd(s, p, SOURCE_BLOCK, n);
    if (s->in_at < s->in_n) { /* what was read to look at it */
        *n = s->in_n - s->in_at;
        memcpy(p, s->in + s->in_at, *n);
        s->in_at = s->in_n;
        return 0;
    }
    return read_full(s, p, SOURCE_BLOCK, n);
}

static void *read_ahead(void *arg)
{
    struct source *s = arg;
    pthread_mutex_lock(&s->lock);
    while (!s->stop && !s->ended) {
        if (s->ready == SOURCE_BLOCKS) {
            pthread_cond_wait(&s->less, &s->lock);
            continue;
        }
        struct block *b = &s->block[(s->first + s->ready) % SOURCE_BLOCKS];
        pthread_mutex_unlock(&s->lock);
        int rc = produce(s, b->p, &b->n);
        pthread_mutex_lock(&s->lock);
        if (b->n)
            s->ready++;
        s->ended = rc < 0 || !b->n;
        s->rc = rc;
        pthread_cond_signal(&s->more);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static int look(struct source *s)
{
    static const uint8_t gzip[2] = {0x1f, 0x8b}, zstd[4] = {0x28, 0xb5, 0x2f, 0xfd};
    s->in = malloc(SOURCE_BLOCK);
    if (!s->in)
        return err_set(&s->err, ERR_NOMEM, "out of memory");
    int rc = read_full(s, s->in, SOURCE_BLOCK, &s->in_n);
    if (rc < 0)
        return rc;
    if (s->in_n >= 2 && !memcmp(s->in, gzip, 2)) {
        s->packing = PACK_GZIP;
        if (inflateInit2(&s->z, 15 + 16) != Z_OK)
            return err_set(&s->err, ERR_NOMEM, "gzip: out of memory");
    } else if (s->in_n >= 4 && !memcmp(s->in, zstd, 4)) {
        s->packing = PACK_ZSTD;
        s->zstd = ZSTD_createDCtx();
        if (!s->zstd || ZSTD_isError(ZSTD_DCtx_setParameter(s->zstd, ZSTD_d_windowLogMax, 23)))
            return err_set(&s->err, ERR_NOMEM, "zstd: out of memory");
    }
    return 0;
}

static int start(struct source *s)
{
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->more, NULL);
    pthread_cond_init(&s->less, NULL);
    int rc = look(s);
    for (unsigned i = 0; rc == 0 && i < SOURCE_BLOCKS; i++)
        if (!(s->block[i].p = malloc(SOURCE_BLOCK)))
            rc = err_set(&s->err, ERR_NOMEM, "out of memory");
    if (rc == 0 && !s->memory)
        s->threaded = pthread_create(&s->thread, NULL, read_ahead, s) == 0;
    return rc;
}

int source_open(struct source **out, const char *path, struct err_ctx *ctx)
{
    struct source *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s)
        return err_set(ctx, ERR_NOMEM, "%s: out of memory", path);
    s->own_fd = strcmp(path, "-") != 0;
    s->fd = s->own_fd ? open(path, O_RDONLY | O_CLOEXEC) : STDIN_FILENO;
    int rc = s->fd < 0 ? err_errno(ctx, "%s", path) : start(s);
    if (rc < 0 && s->fd >= 0)
        err_set(ctx, rc, "%s: %s", path, s->err.text);
    if (rc < 0)
        source_close(s);
    else
        *out = s;
    return rc;
}

int source_open_memory(struct source **out, const void *p, size_t n, struct err_ctx *ctx)
{
    struct source *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s)
        return err_set(ctx, ERR_NOMEM, "out of memory");
    s->fd = -1;
    s->memory = p ? p : (const uint8_t *)"";
    s->memory_n = n;
    int rc = start(s);
    if (rc < 0) {
        err_set(ctx, rc, "%s", s->err.text);
        source_close(s);
        return rc;
    }
    *out = s;
    return 0;
}

bool source_packed(const struct source *s)
{
    return s->packing != PACK_NONE;
}

static int next_here(struct source *s, const uint8_t **p, size_t *n)
{
    struct block *b = &s->block[0];
    if (s->ended)
        return s->rc;
    int rc = produce(s, b->p, &b->n);
    s->ended = rc < 0 || !b->n;
    s->rc = rc;
    *p = b->p;
    *n = b->n;
    return b->n ? 1 : rc;
}

int source_next(struct source *s, const uint8_t **p, size_t *n, struct err_ctx *ctx)
{
    int rc;
    if (!s->threaded) {
        rc = next_here(s, p, n);
        return rc < 0 ? err_set(ctx, rc, "%s", s->err.text) : rc;
    }
    pthread_mutex_lock(&s->lock);
    if (s->taken) {
        s->first = (s->first + 1) % SOURCE_BLOCKS;
        s->ready--;
        s->taken = false;
        pthread_cond_signal(&s->less);
    }
    while (!s->ready && !s->ended)
        pthread_cond_wait(&s->more, &s->lock);
    rc = s->ready ? 1 : s->rc;
    if (rc > 0) {
        s->taken = true;
        *p = s->block[s->first].p;
        *n = s->block[s->first].n;
    }
    pthread_mutex_unlock(&s->lock);
    return rc < 0 ? err_set(ctx, rc, "%s", s->err.text) : rc;
}

void source_close(struct source *s)
{
    if (!s)
        return;
    if (s->threaded) {
        pthread_mutex_lock(&s->lock);
        s->stop = true;
        pthread_cond_signal(&s->less);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->thread, NULL);
    }
    if (s->packing == PACK_GZIP)
        inflateEnd(&s->z);
    ZSTD_freeDCtx(s->zstd);
    for (unsigned i = 0; i < SOURCE_BLOCKS; i++)
        free(s->block[i].p);
    free(s->in);
    if (s->own_fd && s->fd >= 0)
        close(s->fd);
    free(s);
}
