/* What RocksDB passes over in silence, looked for before it opens a folder.
 *
 * It tolerates a torn tail of a log and of the manifest, as it must: a power cut leaves one. But what it
 * takes for a tail is whatever does not fit before the end of the file: one flipped bit of a length drops up
 * to 32 KiB of records that had been synced. And a folder without CURRENT is a new database to it, whose
 * first act is to delete the tables it does not know. So: every record's check sum is computed, nothing valid
 * may stand behind a tear, and the numbers of writes go on from log to log. What is missing at the very end
 * is for KEYS/mark to notice.
 *
 * Format: db/log_format.h and db/log_reader.cc of RocksDB 7.8: blocks of 32 KiB; records of crc32c (masked)
 * 4, length 2, type 1, and in recycled logs the log's number 4. */
#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/rocksdb/kv_rocksdb_impl.h"

#define BLOCK     32768u
#define HEADER    7u
#define FRONT     12u
#define LOGS_MAX  4096u
#define MASK      0xa282ead8u
#define TYPE_FULL 1
#define TYPE_LAST 4

static uint32_t table[8][256];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void table_make(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++)
            c = c & 1 ? c >> 1 ^ 0x82f63b78u : c >> 1;
        table[0][i] = c;
    }
    for (int t = 1; t < 8; t++)
        for (uint32_t i = 0; i < 256; i++)
            table[t][i] = table[t - 1][i] >> 8 ^ table[0][table[t - 1][i] & 0xff];
}

static uint32_t crc32c(const uint8_t *p, size_t n)
{
    uint32_t c = ~0u;
    for (; n >= 8; p += 8, n -= 8) {
        uint32_t a = c ^ le32(p), b = le32(p + 4);
        c = table[7][a & 0xff] ^ table[6][a >> 8 & 0xff] ^ table[5][a >> 16 & 0xff] ^ table[4][a >> 24] ^
            table[3][b & 0xff] ^ table[2][b >> 8 & 0xff] ^ table[1][b >> 16 & 0xff] ^ table[0][b >> 24];
    }
    for (; n; p++, n--)
        c = c >> 8 ^ table[0][(c ^ *p) & 0xff];
    return ~c;
}

bool kv_rocksdb_crc_fits(const uint8_t *p, size_t n, const uint8_t stored[4])
{
    pthread_once(&table_once, table_make);
    uint32_t crc = crc32c(p, n);
    return le32(stored) == (crc >> 15 | crc << 17) + MASK;
}

/* A record at p, whole and with its check sum right; n bytes are there. */
static bool valid(const uint8_t *p, size_t n)
{
    size_t len = n < HEADER ? 0 : (size_t)(p[4] | p[5] << 8);
    if (n < HEADER || p[6] == 0 || len > n - HEADER)
        return false;
    size_t summed = 1 + len + (p[6] >= 5 && p[6] <= 8 ? 4 : 0);
    return summed <= n - 6 && kv_rocksdb_crc_fits(p + 6, summed, p);
}

struct walk {
    const char *path;
    bool is_log;
    uint64_t next;    /* number of the write that must come; 0: any */
    bool in_fragment; /* FIRST was there, LAST was not */
    bool ended;       /* a tear was met */
    uint64_t tear;
    char before[24]; /* the log before this one */
    bool any;        /* of this log a batch was read */
    uint8_t front[FRONT];
    size_t front_n;
    struct err_ctx *ctx;
};

static int damaged(struct walk *w, uint64_t at, const char *what)
{
    return err_set(w->ctx, ERR_CORRUPT, "%s: damaged at byte %llu: %s", w->path, (unsigned long long)at,
                   what);
}

/* The front of a batch, which may lie in several fragments: number of its first write 8, count 4. */
static int numbers(struct walk *w, const uint8_t *p, size_t n, uint64_t at)
{
    size_t take = FRONT - w->front_n < n ? FRONT - w->front_n : n;
    if (!w->is_log || take == 0)
        return 0;
    memcpy(w->front + w->front_n, p, take);
    w->front_n += take;
    if (w->front_n < FRONT)
        return 0;
    uint64_t first = le64(w->front);
    if (w->next && first > w->next)
        return err_set(w->ctx, ERR_CORRUPT,
                       "%s: damaged before byte %llu: writes %llu to %llu are missing%s%.20s", w->path,
                       (unsigned long long)at, (unsigned long long)w->next, (unsigned long long)first - 1,
                       w->any ? "" : " at the end of ", w->any ? "" : w->before);
    w->any = true;
    if (first + le32(w->front + 8) > w->next)
        w->next = first + le32(w->front + 8);
    return 0;
}

static int record(struct walk *w, const uint8_t *p, uint64_t at)
{
    bool recycled = p[6] >= 5 && p[6] <= 8;
    int type = recycled ? p[6] - 4 : p[6];
    size_t len = (size_t)(p[4] | p[5] << 8);
    if (w->ended)
        return damaged(w, w->tear, "records stand behind it");
    if (type < TYPE_FULL || type > TYPE_LAST)
        return 0;
    bool begins = type == TYPE_FULL || type == 2;
    if (begins == w->in_fragment)
        return damaged(w, at, begins ? "the record before it has no end" : "a record has no beginning");
    w->in_fragment = type == 2 || type == 3;
    if (begins)
        w->front_n = 0;
    return numbers(w, p + HEADER + (recycled ? 4 : 0), len, at);
}

static void tear(struct walk *w, uint64_t at)
{
    if (!w->ended)
        w->tear = at;
    w->ended = true;
}

/* One block; `last`: the file ends in it. */
static int block(struct walk *w, const uint8_t *b, size_t n, uint64_t at, bool last)
{
    size_t i = 0;
    while (n - i >= HEADER) {
        const uint8_t *p = b + i;
        size_t len = (size_t)(p[4] | p[5] << 8);
        if (valid(p, n - i)) {
            int rc = record(w, p, at + i);
            if (rc)
                return rc;
            i += HEADER + len + (p[6] >= 5 && p[6] <= 8 ? 4 : 0);
            continue;
        }
        bool nothing = p[6] == 0 && len == 0; /* room that was set aside */
        if (!nothing && (!last || HEADER + len <= n - i))
            return damaged(w, at + i, "the check sum of a record is wrong");
        tear(w, at + i);
        for (i++; n - i >= HEADER; i++)
            if (b[i + 6] && valid(b + i, n - i))
                return damaged(w, w->tear, "records stand behind it");
        break;
    }
    return 0;
}

static int walk_file(struct walk *w)
{
    uint8_t b[BLOCK];
    struct stat st;
    int fd = open(w->path, O_RDONLY | O_CLOEXEC), rc = 0;
    if (fd < 0)
        return errno == ENOENT && w->is_log ? 0 : err_errno(w->ctx, "%s", w->path);
    if (fstat(fd, &st) < 0)
        rc = err_errno(w->ctx, "%s", w->path);
    w->in_fragment = w->ended = false;
    for (off_t at = 0; rc == 0 && at < st.st_size;) {
        size_t n = st.st_size - at < BLOCK ? (size_t)(st.st_size - at) : BLOCK;
        ssize_t got = pread(fd, b, n, at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got != (ssize_t)n) {
            rc = got < 0 ? err_errno(w->ctx, "%s", w->path) : damaged(w, (uint64_t)at, "it became shorter");
            break;
        }
        rc = block(w, b, n, (uint64_t)at, at + (off_t)n == st.st_size);
        at += (off_t)n;
    }
    close(fd);
    return rc;
}

static int read_current(char name[64], const char *dir, bool files, struct err_ctx *ctx)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/CURRENT", dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    name[0] = 0;
    if (fd < 0 && errno == ENOENT)
        return files ? err_set(ctx, ERR_CORRUPT, "%s: is missing, and other files of a store are there", path)
                     : 0;
    ssize_t n = fd < 0 ? -1 : read(fd, name, 63);
    if (n < 0)
        err_errno(ctx, "%s", path);
    if (fd >= 0)
        close(fd);
    if (n < 0)
        return ctx ? ctx->code : ERR_IO;
    name[n] = 0;
    size_t k = strspn(name + (n > 9 ? 9 : n), "0123456789");
    if (strncmp(name, "MANIFEST-", 9) != 0 || k < 6 || n != (ssize_t)(10 + k) || name[9 + k] != '\n')
        return err_set(ctx, ERR_CORRUPT, "%s: is damaged: names no manifest", path);
    name[9 + k] = 0;
    return 0;
}

static bool ends(const char *name, const char *with)
{
    size_t n = strlen(name), k = strlen(with);
    return n > k && !strcmp(name + n - k, with);
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* The numbers of the logs; whether there is any file that a store alone has. */
static int list(const char *dir, uint64_t *logs, size_t *n, bool *files, struct err_ctx *ctx)
{
    struct dirent *e;
    DIR *d = opendir(dir);
    int rc = d ? 0 : err_errno(ctx, "%s", dir);
    while (d && rc == 0 && (e = readdir(d))) {
        *files |= ends(e->d_name, ".sst") || ends(e->d_name, ".log") || !strncmp(e->d_name, "MANIFEST-", 9);
        if (!ends(e->d_name, ".log"))
            continue;
        if (*n == LOGS_MAX)
            rc = err_set(ctx, ERR_LIMIT, "%s: more than %u logs", dir, LOGS_MAX);
        else
            logs[(*n)++] = strtoull(e->d_name, NULL, 10);
    }
    if (d)
        closedir(d);
    return rc;
}

int kv_rocksdb_inspect(const char *dir, struct err_ctx *ctx)
{
    char path[4300], manifest[64];
    struct walk w = {.path = path, .ctx = ctx};
    uint64_t *logs = malloc(LOGS_MAX * sizeof *logs);
    size_t n = 0;
    bool files = false;
    int rc = logs ? list(dir, logs, &n, &files, ctx) : err_set(ctx, ERR_NOMEM, "%s: out of memory", dir);
    rc = rc ? rc : read_current(manifest, dir, files, ctx);
    if (rc == 0 && manifest[0]) {
        snprintf(path, sizeof path, "%s/%s", dir, manifest);
        if (access(path, F_OK) < 0 && errno == ENOENT)
            rc = err_set(ctx, ERR_CORRUPT, "%s: is missing, and CURRENT names it", path);
        else
            rc = walk_file(&w);
    }
    if (n)
        qsort(logs, n, sizeof *logs, by_number);
    w.is_log = true;
    for (size_t i = 0; i < n && rc == 0; i++) {
        snprintf(path, sizeof path, "%s/%06llu.log", dir, (unsigned long long)logs[i]);
        w.any = false;
        rc = walk_file(&w);
        snprintf(w.before, sizeof w.before, "%06llu.log", (unsigned long long)logs[i] % 1000000000);
    }
    free(logs);
    return rc;
}
