/* verify: files against their list, rows against their check sums. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/chatd-server/commands.h"
#include "store/store_impl.h"
#include "util/map.h"

static int read_list(struct buf *b, const char *path, struct err_ctx *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;
    if (fd < 0)
        return err_errno(err, "%s", path);
    for (;;) {
        char *p = buf_reserve(b, 65536);
        ssize_t n = p ? read(fd, p, 65536) : -1;
        if (!p)
            rc = err_set(err, ERR_LIMIT, "%s: too large", path);
        else if (n < 0)
            rc = err_errno(err, "%s", path);
        if (n <= 0)
            break;
        b->len += (size_t)n;
    }
    close(fd);
    return rc;
}

/* The check line is the last, over everything before it. */
static bool list_whole(const char *text, size_t n)
{
    char want[32];
    const size_t tail = 23; /* "check " 16 digits newline */
    if (n < tail || memchr(text, 0, n))
        return false;
    snprintf(want, sizeof want, "check %016" PRIx64 "\n", hash_bytes(text, n - tail, 0));
    return !memcmp(text + n - tail, want, tail);
}

int backup_list_read(struct backup_info *out, const char *dir,
                     int (*file)(void *arg, const char *name, uint64_t bytes, const char *hash,
                                 struct err_ctx *err),
                     void *arg, struct err_ctx *err)
{
    char path[4200], name[64], hash[33];
    struct buf b = BUF_INIT(BACKUP_LIST_MAX);
    snprintf(path, sizeof path, "%s/" BACKUP_LIST, dir);
    int rc = read_list(&b, path, err), at = 0;
    uint64_t bytes;
    const char *p = rc ? "" : buf_cstr(&b);
    if (!rc && (!list_whole(p, b.len) ||
                sscanf(p, "chatd backup 1 made_us %" SCNu64 " epoch %" SCNu64 " commit %" SCNu64 " %n",
                       &out->made_us, &out->epoch, &out->commit, &at) != 3))
        rc = err_set(err, ERR_CORRUPT, "%s: is no list of a backup, or damaged", path);
    for (p += rc ? 0 : at; !rc && sscanf(p, "file %63s %" SCNu64 " %32s %n", name, &bytes, hash, &at) == 3;
         p += at) {
        if (strchr(name, '/') || !backup_is_store_file(name))
            rc = err_set(err, ERR_CORRUPT, "%s: '%s' is no file of a store", path, name);
        else
            rc = file(arg, name, bytes, hash, err);
    }
    buf_release(&b);
    return rc;
}

struct checking {
    const char *dir;
    struct backup_info *info;
};

static int check_file(void *arg, const char *name, uint64_t bytes, const char *want, struct err_ctx *err)
{
    struct checking *c = arg;
    char path[4200], hash[33];
    uint64_t is = 0;
    snprintf(path, sizeof path, "%s/%s", c->dir, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? err_set(err, ERR_CORRUPT, "%s: is missing", path)
                               : err_errno(err, "%s", path);
    int rc = backup_hash(hash, fd, &is, path, err);
    close(fd);
    if (!rc && is != bytes)
        rc = err_set(err, ERR_CORRUPT, "%s: has %" PRIu64 " bytes, had %" PRIu64 " when it was made", path,
                     is, bytes);
    else if (!rc && strcmp(hash, want) != 0)
        rc = err_set(err, ERR_CORRUPT, "%s: its bytes are not those of when it was made", path);
    c->info->files++;
    c->info->bytes += bytes;
    return rc;
}

static bool any_entry(void *arg, const struct entry *e)
{
    (void)e;
    ++*(uint64_t *)arg;
    return true;
}

struct family_check {
    enum kv_family family;
    int rc;
    struct err_ctx *err;
};

/* Each row by itself; that its block was read at all has checked the block. */
static bool check_row(void *arg, struct kv_bytes key, struct kv_bytes val)
{
    struct family_check *c = arg;
    struct dedup d;
    struct member_row m;
    if (c->family == KV_DEDUP)
        c->rc = row_dedup_read(&d, key, val, c->err);
    else if (c->family == KV_MEMBER)
        c->rc = row_member_read(&m, key, val, c->err);
    else if (c->family == KV_CURSOR && val.n != KV_CURSOR_BYTES)
        c->rc = row_corrupt(c->err, "cursor", key, "wrong length");
    else if (c->family == KV_USERCHAT && val.n != 1)
        c->rc = row_corrupt(c->err, "userchat", key, "wrong length");
    return c->rc == 0;
}

/* msg and log are read by store_scan and store_scan_chats */
static int check_families(struct store *s, struct err_ctx *err)
{
    static const enum kv_family others[] = {KV_DEDUP, KV_CURSOR, KV_MEMBER, KV_USERCHAT, KV_META};
    struct kv_bytes all = {NULL, 0};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        struct family_check c = {.family = others[i], .err = err};
        int rc = s->kv->ops->scan(s->kv, c.family, all, all, false, check_row, &c, err);
        if (rc || c.rc)
            return rc ? rc : c.rc;
    }
    return 0;
}

/* A store that lost its newest entries is whole in itself; the mark beside the keys knows better. */
static int check_mark(const struct store *s, const char *keys_dir, struct err_ctx *err)
{
    struct mark m;
    int rc = keys_dir ? mark_read(&m, keys_dir, err) : ERR_NOTFOUND;
    if (rc)
        return keys_dir ? rc : 0;
    if (m.epoch == store_epoch(s) && (m.commit > store_commit_index(s) || m.opens > s->opens))
        return err_set(err, ERR_CORRUPT,
                       "it holds %" PRIu64 " entries; %" PRIu64
                       " were committed (%s/mark): its newest are lost",
                       store_commit_index(s), m.commit, keys_dir);
    return 0;
}

static int check_rows(struct backup_info *out, const char *dir, const char *keys_dir, struct err_ctx *err)
{
    char url[4200];
    struct store *s = NULL;
    uint64_t in_log = 0, in_chats = 0;
    snprintf(url, sizeof url, "rocksdb:%s", dir);
    int rc = store_open(&s, &(struct store_config){.url = url, .read_only = true}, err);
    if (rc)
        return rc;
    rc = store_scan(s, any_entry, &in_log, err);
    rc = rc ? rc : store_scan_chats(s, any_entry, &in_chats, err);
    rc = rc ? rc : check_families(s, err);
    rc = rc ? rc : check_mark(s, keys_dir, err);
    /* a restored store may hold two log rows of one entry, never an entry without one */
    if (!rc && in_chats > in_log)
        rc = err_set(err, ERR_CORRUPT, "%" PRIu64 " entries stand in chats, %" PRIu64 " in the log", in_chats,
                     in_log);
    if (!rc && out->listed && (out->epoch != store_epoch(s) || out->commit != store_commit_index(s)))
        rc = err_set(err, ERR_CORRUPT,
                     "it holds %" PRIu64 " entries of epoch %" PRIu64 ", its list says %" PRIu64
                     " of %" PRIu64,
                     store_commit_index(s), store_epoch(s), out->commit, out->epoch);
    out->epoch = store_epoch(s);
    out->commit = store_commit_index(s);
    store_drop(s);
    return rc ? err_prefix(err, "%s: ", dir) : 0;
}

int backup_verify(struct backup_info *out, const char *dir, const char *keys_dir, struct err_ctx *err)
{
    char path[4200];
    struct checking c = {dir, out};
    *out = (struct backup_info){0};
    snprintf(path, sizeof path, "%s/" BACKUP_LIST, dir);
    out->listed = access(path, F_OK) == 0;
    int rc = out->listed ? backup_list_read(out, dir, check_file, &c, err) : 0;
    return rc ? rc : check_rows(out, dir, keys_dir, err);
}

int command_verify(const struct opt_set *o, struct err_ctx *err)
{
    struct backup_info info = {0};
    const char *dir = opt_operand(o, 0);
    int rc = backup_verify(&info, dir, opt_given(o, "keys") ? opt_string(o, "keys") : NULL, err);
    if (rc)
        return rc;
    if (opt_json(o))
        printf("{\"ok\":true,\"listed\":%s,\"epoch\":\"%" PRIu64 "\",\"commit\":%" PRIu64
               ",\"made_us\":%" PRIu64 "}\n",
               info.listed ? "true" : "false", info.epoch, info.commit, info.made_us);
    else
        printf("%s: %" PRIu64 " entries, every row is whole%s\n", dir, info.commit,
               info.listed ? ", every file as it was written"
                           : " (no list of files: it is no backup made by this program)");
    return 0;
}
