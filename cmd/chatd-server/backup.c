/* backup: a checkpoint taken from outside, so that it needs nothing from the server and works when it hangs.
 *
 * RocksDB's tables never change, its logs and its manifest only grow; a file is removed only after the
 * manifest has got an entry that makes it useless. So: list the folder, open every file, note how long logs
 * and manifest are. If the manifest is the same file and as long as before the listing, the open files are
 * one consistent store, as a crash at that moment would have left it; else begin again. What is open can be
 * copied in peace. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cmd/chatd-server/commands.h"
#include "store/store_impl.h"
#include "util/clock.h"
#include "util/map.h"

#define TRIES 100
#define CHUNK (1u << 20)

struct part {
    char name[64];
    int fd;
    uint64_t bytes;
};
struct parts {
    struct part *part;
    size_t n, cap;
};

static bool ends(const char *name, const char *with)
{
    size_t n = strlen(name), k = strlen(with);
    return n > k && !strcmp(name + n - k, with);
}

bool backup_is_store_file(const char *name)
{
    return ends(name, ".sst") || ends(name, ".log") || !strncmp(name, "MANIFEST-", 9) ||
           !strcmp(name, "CURRENT") || !strcmp(name, "IDENTITY") || !strncmp(name, "OPTIONS-", 8);
}

static void parts_close(struct parts *p)
{
    for (size_t i = 0; i < p->n; i++)
        if (p->part[i].fd >= 0)
            close(p->part[i].fd);
    free(p->part);
    *p = (struct parts){0};
}

/* CURRENT's text, and the size of the manifest that it names. */
static int manifest_state(const char *dir, char name[64], uint64_t *bytes, struct err_ctx *err)
{
    char path[4096];
    struct stat st;
    snprintf(path, sizeof path, "%s/CURRENT", dir);
    FILE *f = fopen(path, "re");
    if (!f)
        return err_errno(err, "%s: no store is there", path);
    bool got = fgets(name, 64, f) != NULL;
    fclose(f);
    name[got ? strcspn(name, "\n") : 0] = 0;
    if (strncmp(name, "MANIFEST-", 9) != 0 || strchr(name, '/'))
        return err_set(err, ERR_CORRUPT, "%s: names no manifest", path);
    snprintf(path, sizeof path, "%s/%.63s", dir, name);
    if (stat(path, &st) < 0)
        return err_errno(err, "%s", path);
    *bytes = (uint64_t)st.st_size;
    return 0;
}

static int list_files(struct parts *p, const char *dir, const char *manifest, struct err_ctx *err)
{
    struct dirent *e;
    DIR *d = opendir(dir);
    if (!d)
        return err_errno(err, "%s", dir);
    int rc = 0;
    while (!rc && (e = readdir(d))) {
        if (!backup_is_store_file(e->d_name) || strlen(e->d_name) >= sizeof p->part->name ||
            (!strncmp(e->d_name, "MANIFEST-", 9) && strcmp(e->d_name, manifest) != 0))
            continue;
        if (p->n == p->cap) {
            size_t cap = p->cap ? p->cap * 2 : 64;
            struct part *part = cap > BACKUP_FILES_MAX ? NULL : realloc(p->part, cap * sizeof *part);
            if (!part) {
                rc = err_set(err, ERR_LIMIT, "%s: too many files", dir);
                break;
            }
            p->part = part;
            p->cap = cap;
        }
        struct part *one = &p->part[p->n++];
        *one = (struct part){.fd = -1};
        strcpy(one->name, e->d_name);
    }
    closedir(d);
    return rc;
}

/* ERR_NOTFOUND: one went away meanwhile. */
static int open_files(struct parts *p, const char *dir, struct err_ctx *err)
{
    for (size_t i = 0; i < p->n; i++) {
        char path[4200];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", dir, p->part[i].name);
        p->part[i].fd = open(path, O_RDONLY | O_CLOEXEC);
        if (p->part[i].fd < 0 || fstat(p->part[i].fd, &st) < 0)
            return err_errno(err, "%s", path);
        p->part[i].bytes = (uint64_t)st.st_size;
    }
    return 0;
}

static int gather(struct parts *p, const char *dir, struct err_ctx *err)
{
    for (int i = 0; i < TRIES; i++) {
        char name[64], again[64];
        uint64_t bytes = 0, bytes_again = 0;
        int rc = manifest_state(dir, name, &bytes, err);
        rc = rc ? rc : list_files(p, dir, name, err);
        rc = rc ? rc : open_files(p, dir, err);
        if (rc && rc != ERR_NOTFOUND)
            return rc;
        if (!rc && !manifest_state(dir, again, &bytes_again, err) && !strcmp(name, again) &&
            bytes == bytes_again)
            return 0;
        parts_close(p);
        if (rc && access(dir, F_OK) < 0)
            return rc;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    return err_set(err, err && err->code == ERR_NOTFOUND ? ERR_NOTFOUND : ERR_BUSY,
                   "%s: no moment in %d without a change of its files%s%.200s", dir, TRIES,
                   err && err->text[0] ? ": " : "", err ? err->text : "");
}

int backup_hash(char out[33], int fd, uint64_t *bytes, const char *path, struct err_ctx *err)
{
    crypto_generichash_state state;
    uint8_t hash[16], *chunk = malloc(CHUNK);
    int rc = chunk ? 0 : err_set(err, ERR_NOMEM, "%s: out of memory", path);
    *bytes = 0;
    crypto_generichash_init(&state, NULL, 0, sizeof hash);
    while (!rc) {
        ssize_t n = read(fd, chunk, CHUNK);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            rc = err_errno(err, "%s", path);
        if (n <= 0)
            break;
        crypto_generichash_update(&state, chunk, (size_t)n);
        *bytes += (uint64_t)n;
    }
    crypto_generichash_final(&state, hash, sizeof hash);
    free(chunk);
    for (int i = 0; i < 16 && !rc; i++)
        snprintf(out + 2 * i, 3, "%02x", hash[i]);
    return rc;
}

/* Copies, hashes, syncs. A copy, never a hard link: a link would rot together with the store. */
static int copy_file(const struct part *p, const char *dir, char hash[33], struct err_ctx *err)
{
    char path[4200];
    crypto_generichash_state state;
    uint8_t sum[16], *chunk = malloc(CHUNK);
    uint64_t at = 0;
    snprintf(path, sizeof path, "%s/%s", dir, p->name);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), rc = 0;
    if (fd < 0 || !chunk)
        rc = fd < 0 ? err_errno(err, "%s", path) : err_set(err, ERR_NOMEM, "%s: out of memory", path);
    crypto_generichash_init(&state, NULL, 0, sizeof sum);
    while (!rc && at < p->bytes) {
        size_t want = p->bytes - at < CHUNK ? (size_t)(p->bytes - at) : CHUNK, done = 0;
        ssize_t n = pread(p->fd, chunk, want, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            rc = n < 0 ? err_errno(err, "%s: read", p->name)
                       : err_set(err, ERR_TRUNCATED, "%s: became shorter", p->name);
            break;
        }
        crypto_generichash_update(&state, chunk, (size_t)n);
        while (!rc && done < (size_t)n) {
            ssize_t k = write(fd, chunk + done, (size_t)n - done);
            if (k < 0 && errno != EINTR)
                rc = err_errno(err, "%s", path);
            done += k > 0 ? (size_t)k : 0;
        }
        at += (uint64_t)n;
    }
    if (!rc && fsync(fd) < 0)
        rc = err_errno(err, "%s: fsync", path);
    if (fd >= 0)
        close(fd);
    free(chunk);
    crypto_generichash_final(&state, sum, sizeof sum);
    for (int i = 0; i < 16; i++)
        snprintf(hash + 2 * i, 3, "%02x", sum[i]);
    return rc;
}

static int copy_all(const struct parts *p, const char *to, struct buf *list, struct err_ctx *err)
{
    int rc = mkdir(to, 0700) < 0 ? err_errno(err, "%s", to) : 0;
    for (size_t i = 0; i < p->n && !rc; i++) {
        char hash[33];
        rc = copy_file(&p->part[i], to, hash, err);
        buf_printf(list, "file %s %" PRIu64 " %s\n", p->part[i].name, p->part[i].bytes, hash);
    }
    return rc ? rc : sync_folder(to, err);
}

int backup_copy(const char *from, const char *to, struct err_ctx *err)
{
    struct parts p = {0};
    struct buf list = BUF_INIT(BACKUP_LIST_MAX);
    int rc = gather(&p, from, err);
    rc = rc ? rc : copy_all(&p, to, &list, err);
    parts_close(&p);
    buf_release(&list);
    return rc;
}

static int write_list(const char *dir, struct buf *b, struct err_ctx *err)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/" BACKUP_LIST, dir);
    buf_printf(b, "check %016" PRIx64 "\n", hash_bytes(b->data, b->len, 0));
    int fd = b->failed ? -1 : open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int rc = fd < 0 || write(fd, b->data, b->len) != (ssize_t)b->len || fsync(fd) < 0
                 ? err_errno(err, "%s", path)
                 : 0;
    if (fd >= 0)
        close(fd);
    return rc ? rc : sync_folder(dir, err);
}

int backup_make(struct backup_info *out, const char *dir, const char *to, struct err_ctx *err)
{
    struct parts p = {0};
    struct buf files = BUF_INIT(BACKUP_LIST_MAX), list = BUF_INIT(BACKUP_LIST_MAX);
    uint64_t made = clock_wall_us();
    int rc = gather(&p, dir, err);
    rc = rc ? rc : copy_all(&p, to, &files, err);
    parts_close(&p);
    /* its rows say which epoch and how many entries it has */
    rc = rc ? rc : backup_verify(out, to, NULL, err);
    if (!rc) {
        buf_printf(&list, "chatd backup 1\nmade_us %" PRIu64 "\nepoch %" PRIu64 "\ncommit %" PRIu64 "\n",
                   made, out->epoch, out->commit);
        buf_add(&list, files.data, files.len);
        rc = write_list(to, &list, err);
    }
    rc = rc ? rc : backup_verify(out, to, NULL, err);
    buf_release(&files);
    buf_release(&list);
    return rc;
}

/* ---- the command ---- */

int backup_remove(const char *dir, struct err_ctx *err)
{
    struct dirent *e;
    DIR *d = opendir(dir);
    if (!d)
        return err_errno(err, "%s", dir);
    while ((e = readdir(d)))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
    return rmdir(dir) < 0 ? err_errno(err, "%s", dir) : 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names carry the time, so the oldest sort first. Unfinished ones (.part) go too. */
static int retain(const char *dir, uint64_t keep, struct err_ctx *err)
{
    char **names = NULL, path[4200];
    size_t n = 0;
    struct dirent *e;
    DIR *d = opendir(dir);
    if (!d)
        return err_errno(err, "%s", dir);
    int rc = 0;
    while ((e = readdir(d)) && !rc) {
        if (strncmp(e->d_name, "backup-", 7) != 0)
            continue;
        char **more = realloc(names, (n + 1) * sizeof *names);
        names = more ? more : names;
        rc = more && (names[n] = strdup(e->d_name)) ? 0 : err_set(err, ERR_NOMEM, "out of memory");
        n += !rc;
    }
    closedir(d);
    if (n)
        qsort(names, n, sizeof *names, by_name);
    uint64_t whole = 0;
    for (size_t i = n; i-- > 0;) {
        bool part = ends(names[i], ".part");
        whole += !part;
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        if (!rc && (part || whole > keep))
            rc = backup_remove(path, err);
        free(names[i]);
    }
    free(names);
    return rc;
}

static int place(char *out, size_t size, const char *to, bool many, struct err_ctx *err)
{
    time_t now = (time_t)(clock_wall_us() / 1000000);
    struct tm tm;
    char name[48];
    if (!many)
        return (size_t)snprintf(out, size, "%s", to) < size
                   ? 0
                   : err_set(err, ERR_LIMIT, "%s: path too long", to);
    if (mkdir(to, 0700) < 0 && errno != EEXIST)
        return err_errno(err, "%s", to);
    gmtime_r(&now, &tm);
    strftime(name, sizeof name, "backup-%Y%m%dT%H%M%SZ", &tm);
    return (size_t)snprintf(out, size, "%s/%s", to, name) < size
               ? 0
               : err_set(err, ERR_LIMIT, "%s: path too long", to);
}

/* For whoever finds the store damaged. A note, no promise: failing to write it is no failure. */
static void note_last(const char *data, const char *to)
{
    char path[4200], *whole = realpath(to, NULL);
    snprintf(path, sizeof path, "%s/" BACKUP_LAST, data);
    FILE *f = whole ? fopen(path, "we") : NULL;
    if (f) {
        fprintf(f, "%s\n", whole);
        fclose(f);
    }
    free(whole);
}

int command_backup(const struct opt_set *o, struct err_ctx *err)
{
    char dir[4096], to[4096], part[4112];
    const char *data = opt_string(o, "data");
    struct backup_info info = {0};
    bool many = opt_given(o, "keep");
    if (!opt_string(o, "to"))
        return err_set(err, ERR_USAGE, "backup: --to is missing");
    if (many && !opt_u64(o, "keep"))
        return err_set(err, ERR_USAGE, "backup: --keep 0 would keep nothing");
    snprintf(dir, sizeof dir, "%s/store", data);
    int rc = place(to, sizeof to, opt_string(o, "to"), many, err);
    if (rc)
        return rc;
    if (access(to, F_OK) == 0)
        return err_set(err, ERR_EXISTS, "%s: exists already", to);
    snprintf(part, sizeof part, "%s.part", to);
    if (access(part, F_OK) == 0)
        backup_remove(part, NULL);
    rc = backup_make(&info, dir, part, err);
    if (!rc && rename(part, to) < 0)
        rc = err_errno(err, "%s", to);
    if (!rc && many)
        rc = sync_folder(opt_string(o, "to"), err);
    if (rc) {
        backup_remove(part, NULL);
        return rc;
    }
    note_last(data, to);
    if (opt_json(o))
        printf("{\"backup\":\"%s\",\"epoch\":\"%" PRIu64 "\",\"commit\":%" PRIu64 ",\"files\":%" PRIu64
               ",\"bytes\":%" PRIu64 "}\n",
               to, info.epoch, info.commit, info.files, info.bytes);
    else
        printf("%s: %" PRIu64 " entries, %" PRIu64 " files, %" PRIu64 " bytes, verified\n", to, info.commit,
               info.files, info.bytes);
    return many ? retain(opt_string(o, "to"), opt_u64(o, "keep"), err) : 0;
}
