#include "trace/files_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

int files_write_at(int fd, const void *p, size_t n, uint64_t offset)
{
    const char *s = p;
    while (n) {
        ssize_t w = pwrite(fd, s, n, (off_t)offset);
        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            return w < 0 && (errno == ENOSPC || errno == EDQUOT) ? ERR_FULL : ERR_IO;
        s += w;
        offset += (uint64_t)w;
        n -= (size_t)w;
    }
    return 0;
}

int files_make_dirs(const char *dir, struct err_ctx *ctx)
{
    char path[PATH_MAX];
    size_t n = strlen(dir);
    if (n == 0 || n >= sizeof path)
        return err_set(ctx, ERR_INVALID, "folder name: empty or too long");
    memcpy(path, dir, n + 1);
    for (size_t i = 1; i <= n; i++) {
        if (path[i] && path[i] != '/')
            continue;
        char c = path[i];
        path[i] = 0;
        if (mkdir(path, 0755) < 0 && errno != EEXIST)
            return err_errno(ctx, "%s", path);
        path[i] = c;
    }
    return 0;
}

const char *trace_header_wrong(const struct trace_header *h, const char *magic)
{
    if (memcmp(h->magic, magic, sizeof h->magic))
        return "no trace file (wrong magic)";
    if (h->version != TRACE_VERSION)
        return "a version this program does not know";
    if (h->header_bytes != TRACE_HEADER_BYTES || h->record_bytes != sizeof(struct trace_event))
        return "header or record size is wrong";
    if (!h->capacity || h->capacity > TRACE_RING_MAX || (h->capacity & (h->capacity - 1)))
        return "ring capacity is wrong";
    if (memchr(h->name, 0, sizeof h->name) == NULL || memchr(h->host, 0, sizeof h->host) == NULL)
        return "name or host is not terminated";
    return NULL;
}

static int read_at(int fd, void *p, size_t n, uint64_t offset)
{
    ssize_t r;
    do
        r = pread(fd, p, n, (off_t)offset);
    while (r < 0 && errno == EINTR);
    return r == (ssize_t)n ? 0 : r < 0 ? ERR_IO : ERR_TRUNCATED;
}

/* The ring is locked by us and its owner gone. 0: its records are in the .ctr now. */
static int drain(int ring_fd, int ctr_fd)
{
    struct trace_ring r;
    struct trace_header h;
    struct stat st;
    if (read_at(ring_fd, &r, sizeof r, 0) || read_at(ctr_fd, &h, sizeof h, 0) || fstat(ctr_fd, &st) < 0)
        return ERR_CORRUPT;
    if (trace_header_wrong(&r.h, TRACE_MAGIC_RING) || trace_header_wrong(&h, TRACE_MAGIC_CTR) ||
        h.writer != r.h.writer)
        return ERR_CORRUPT;
    uint64_t have = ((uint64_t)st.st_size - TRACE_HEADER_BYTES) / sizeof(struct trace_event);
    uint64_t head = atomic_load(&r.head), cap = r.h.capacity;
    if (have > head || head - have > cap)
        return ERR_CORRUPT;
    for (struct trace_event e; have < head; have++) {
        int rc = read_at(ring_fd, &e, sizeof e, TRACE_RING_PAGE + have % cap * sizeof e);
        if (rc == 0)
            rc = files_write_at(ctr_fd, &e, sizeof e, TRACE_HEADER_BYTES + have * sizeof e);
        if (rc < 0)
            return rc;
    }
    h.emitted = head;
    h.dropped = atomic_load(&r.dropped);
    h.flags = r.h.flags | TRACE_FILE_CLOSED;
    return files_write_at(ctr_fd, &h, sizeof h, 0);
}

static int sweep_one(const char *ring_path, const char *ctr_path)
{
    int rc = ERR_BUSY, ctr_fd = -1;
    int ring_fd = open(ring_path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (ring_fd < 0)
        return ERR_IO;
    if (flock(ring_fd, LOCK_EX | LOCK_NB) == 0) {
        ctr_fd = open(ctr_path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        rc = ctr_fd < 0 ? ERR_CORRUPT : drain(ring_fd, ctr_fd);
        if (rc == 0)
            unlink(ring_path);
    }
    if (ctr_fd >= 0)
        close(ctr_fd);
    close(ring_fd);
    return rc;
}

int files_sweep(const char *dir, const char *name, struct err_ctx *ctx)
{
    DIR *d = opendir(dir);
    if (!d)
        return err_errno(ctx, "%s", dir);
    size_t n = strlen(name);
    int worst = 0;
    for (struct dirent *e; (e = readdir(d));) {
        size_t len = strlen(e->d_name);
        if (len < n + 6 || memcmp(e->d_name, name, n) || e->d_name[n] != '.' ||
            strcmp(e->d_name + len - 5, ".ring"))
            continue;
        char ring[PATH_MAX], ctr[PATH_MAX];
        if ((size_t)snprintf(ring, sizeof ring, "%s/%s", dir, e->d_name) >= sizeof ring)
            continue;
        snprintf(ctr, sizeof ctr, "%.*s.ctr", (int)(strlen(ring) - 5), ring);
        int rc = sweep_one(ring, ctr);
        if (rc == ERR_FULL)
            worst = err_set(ctx, rc, "%s: %s", ctr, err_text(rc));
    }
    closedir(d);
    return worst;
}
