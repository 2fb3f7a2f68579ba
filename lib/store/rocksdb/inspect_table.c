/* Which table is it? When a table's meta blocks are damaged, RocksDB refuses to open the folder and its
 * sentence names the manifest alone. So, once it has refused, each table's own blocks are looked at: footer,
 * index, and what the meta index points to (properties, filter). Data blocks are left alone: reading them
 * names the file.
 *
 * Format: table/format.cc and block_based_table_builder.cc of RocksDB 7.8. A block: contents, type 1, masked
 * crc32c 4 over both. The last 53 bytes: kind of check sum 1, handles of meta index and index (varints),
 * zeros up to 41, version 4, magic 8. Only crc32c (options.c asks for it) is checked; of tables with another
 * one, the structure. */
#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/rocksdb/kv_rocksdb_impl.h"

#define FOOTER      53u
#define HANDLES     40u
#define TRAILER     5u
#define BLOCK_MAX   (64u << 20)
#define MAGIC       0x88e241b785f4cff7ull
#define SUM_CRC32C  1
#define SUM_KINDS   5
#define ENTRIES_MAX 64

struct handle {
    uint64_t at, n;
};

struct look {
    const char *path;
    int fd, sum;
    uint64_t size;
    struct err_ctx *ctx;
};

static int damaged(const struct look *l, uint64_t at, const char *what)
{
    return err_set(l->ctx, ERR_CORRUPT, "%s: damaged at byte %llu: %s", l->path, (unsigned long long)at,
                   what);
}

static bool varint(uint64_t *out, const uint8_t **p, const uint8_t *end)
{
    *out = 0;
    for (unsigned shift = 0; *p < end && shift < 64; shift += 7) {
        uint8_t b = *(*p)++;
        *out |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80))
            return true;
    }
    return false;
}

static bool take_handle(struct handle *h, const uint8_t **p, const uint8_t *end)
{
    return varint(&h->at, p, end) && varint(&h->n, p, end);
}

static int read_at(const struct look *l, uint8_t *to, size_t n, uint64_t at)
{
    for (size_t got = 0; got < n;) {
        ssize_t r = pread(l->fd, to + got, n - got, (off_t)(at + got));
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return r < 0 ? err_errno(l->ctx, "%s", l->path) : damaged(l, at + got, "it became shorter");
        got += (size_t)r;
    }
    return 0;
}

/* *out is the caller's, contents of h->n bytes. */
static int block(const struct look *l, const struct handle *h, const char *name, uint8_t **out)
{
    char what[80];
    *out = NULL;
    snprintf(what, sizeof what, "the %.40s block lies outside of the file", name);
    if (h->n > BLOCK_MAX || h->at > l->size || h->n + TRAILER > l->size - h->at)
        return damaged(l, l->size - FOOTER, what);
    uint8_t *b = malloc(h->n + TRAILER);
    int rc =
        b ? read_at(l, b, h->n + TRAILER, h->at) : err_set(l->ctx, ERR_NOMEM, "%s: out of memory", l->path);
    snprintf(what, sizeof what, "the check sum of its %.40s block is wrong", name);
    if (!rc && l->sum == SUM_CRC32C && !kv_rocksdb_crc_fits(b, h->n + 1, b + h->n + 1))
        rc = damaged(l, h->at, what);
    if (rc) {
        free(b);
        return rc;
    }
    *out = b;
    return 0;
}

/* Entries of the meta index: length shared with the key before (0 here), of the rest, of the value; key;
 * value: a handle. */
static int meta(const struct look *l, const struct handle *h)
{
    uint8_t *b, *inner;
    int rc = block(l, h, "meta index", &b), n = 0;
    if (rc)
        return rc;
    uint32_t restarts = h->n < 4 ? 0 : le32(b + h->n - 4);
    if (h->n < 4 || restarts > (h->n - 4) / 4) {
        free(b);
        return damaged(l, h->at, "the meta index has no end");
    }
    const uint8_t *p = b, *end = b + h->n - 4 - 4 * (size_t)restarts;
    while (p < end && !rc && n++ < ENTRIES_MAX) {
        uint64_t shared, rest, value;
        struct handle to;
        char name[41];
        if (!varint(&shared, &p, end) || !varint(&rest, &p, end) || !varint(&value, &p, end) || shared ||
            rest > (uint64_t)(end - p) || value > (uint64_t)(end - p) - rest) {
            rc = damaged(l, h->at, "the meta index cannot be read");
            break;
        }
        snprintf(name, sizeof name, "%.*s", (int)(rest < 40 ? rest : 40), (const char *)p);
        p += rest;
        const uint8_t *v = p;
        p += value;
        rc = take_handle(&to, &v, p) ? block(l, &to, name, &inner)
                                     : damaged(l, h->at, "the meta index cannot be read");
        if (!rc)
            free(inner);
    }
    free(b);
    return rc;
}

static int table(struct look *l)
{
    uint8_t f[FOOTER], *b;
    struct handle metaindex, index;
    const uint8_t *p = f + 1;
    if (l->size < FOOTER)
        return damaged(l, l->size, "it is too short for a table");
    int rc = read_at(l, f, FOOTER, l->size - FOOTER);
    if (rc)
        return rc;
    l->sum = f[0];
    if (le64(f + FOOTER - 8) != MAGIC || l->sum >= SUM_KINDS ||
        !take_handle(&metaindex, &p, f + 1 + HANDLES) || !take_handle(&index, &p, f + 1 + HANDLES))
        return damaged(l, l->size - FOOTER, "its footer is none");
    rc = meta(l, &metaindex);
    if (rc == 0 && (rc = block(l, &index, "index", &b)) == 0)
        free(b);
    return rc;
}

int kv_rocksdb_inspect_tables(const char *dir, struct err_ctx *ctx)
{
    struct dirent *e;
    DIR *d = opendir(dir);
    int rc = d ? 0 : err_errno(ctx, "%s", dir);
    while (d && rc == 0 && (e = readdir(d))) {
        char path[4300];
        struct stat st;
        size_t n = strlen(e->d_name);
        if (n < 5 || strcmp(e->d_name + n - 4, ".sst") != 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        struct look l = {.path = path, .ctx = ctx, .fd = open(path, O_RDONLY | O_CLOEXEC)};
        if (l.fd < 0 && errno == ENOENT)
            continue;
        if (l.fd < 0 || fstat(l.fd, &st) < 0)
            rc = err_errno(ctx, "%s", path);
        l.size = rc ? 0 : (uint64_t)st.st_size;
        rc = rc ? rc : table(&l);
        if (l.fd >= 0)
            close(l.fd);
    }
    if (d)
        closedir(d);
    return rc;
}
