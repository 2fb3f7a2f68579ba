#include "load/diary.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/store.h"
#include "util/buf.h"
#include "util/map.h"

struct diary {
    int journal, outbox;
    bool sync;
    int failed;
    struct err_ctx why;
    struct buf rows, row;
    char dir[480];
};

static int write_all(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t took = write(fd, p, n);
        if (took < 0 && errno == EINTR)
            continue;
        if (took < 0)
            return -1;
        p += took;
        n -= (size_t)took;
    }
    return 0;
}

static void fail(struct diary *d, const char *name)
{
    if (!d->failed)
        d->failed = err_errno(&d->why, "%s/%s", d->dir, name);
}

static void spill(struct diary *d)
{
    if (!d->failed && write_all(d->journal, d->rows.data, d->rows.len))
        fail(d, "journal.jsonl");
    buf_reset(&d->rows);
}

int diary_flush(struct diary *d, struct err_ctx *ctx)
{
    if (!d)
        return 0;
    spill(d);
    return d->failed ? err_set(ctx, d->failed, "%s", d->why.text) : 0;
}

/* Read the old outbox whole; its rows point into `file`. */
static int read_file(const char *path, struct buf *file, struct err_ctx *ctx)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : err_errno(ctx, "%s", path);
    int rc = 0;
    for (;;) {
        char *p = buf_reserve(file, DIARY_BUFFER);
        ssize_t n = p ? read(fd, p, DIARY_BUFFER) : -1;
        if (!p)
            rc = err_set(ctx, ERR_LIMIT, "%s: too large", path);
        else if (n < 0)
            rc = err_errno(ctx, "%s", path);
        if (n <= 0)
            break;
        file->len += (size_t)n;
    }
    close(fd);
    return rc;
}

static int replay(const char *path, const struct buf *file, struct buf *keep, diary_restore *restore,
                  void *arg, struct err_ctx *ctx)
{
    struct map gone;
    struct outbox_row row;
    int rc = 0;
    map_init(&gone, sizeof(struct id), 8, SIZE_MAX, 0);
    for (int pass = 0; pass < 2 && !rc; pass++) {
        for (size_t at = 0; at < file->len;) {
            long n = outbox_row_decode(file->data + at, file->len - at, &row);
            if (n == ERR_TRUNCATED)
                break;
            if (n < 0) {
                rc = err_set(ctx, ERR_CORRUPT,
                             "%s: no outbox row at byte %zu; move the file away to go on without it", path,
                             at);
                break;
            }
            if (pass == 0 && row.op == OUTBOX_FORGET && !map_put(&gone, &row.id, NULL))
                rc = err_set(ctx, ERR_NOMEM, "%s: out of memory", path);
            if (pass == 1 && row.op == OUTBOX_PUT && !map_get(&gone, &row.id)) {
                buf_add(keep, file->data + at, (size_t)n);
                restore(arg, &row);
            }
            at += (size_t)n;
        }
    }
    map_release(&gone);
    return rc;
}

static int open_outbox(struct diary *d, diary_restore *restore, void *arg, struct err_ctx *ctx)
{
    char path[512], fresh[512];
    struct buf file = BUF_INIT(1u << 30), keep = BUF_INIT(1u << 30);
    snprintf(path, sizeof path, "%s/outbox.rows", d->dir);
    snprintf(fresh, sizeof fresh, "%s/outbox.rows.new", d->dir);
    int rc = read_file(path, &file, ctx);
    if (!rc)
        rc = replay(path, &file, &keep, restore, arg, ctx);
    if (!rc) {
        d->outbox = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
        if (d->outbox < 0 || write_all(d->outbox, keep.data, keep.len) || fsync(d->outbox) ||
            rename(fresh, path))
            rc = err_errno(ctx, "%s", fresh);
    }
    buf_release(&file);
    buf_release(&keep);
    return rc;
}

int diary_open(struct diary **out, const char *dir, bool sync, diary_restore *restore, void *arg,
               struct err_ctx *ctx)
{
    char path[512];
    struct diary *d = calloc(1, sizeof *d);
    if (!d || strlen(dir) >= sizeof d->dir) {
        free(d);
        return err_set(ctx, d ? ERR_INVALID : ERR_NOMEM, "%s: no folder for a journal", dir);
    }
    *d = (struct diary){.journal = -1, .outbox = -1, .sync = sync};
    buf_init(&d->rows, DIARY_BUFFER);
    buf_init(&d->row, PROTO_BODY_MAX + 512);
    snprintf(d->dir, sizeof d->dir, "%s", dir);
    snprintf(path, sizeof path, "%s/journal.jsonl", dir);
    int rc =
        mkdir(dir, 0755) && errno != EEXIST ? err_errno(ctx, "%s", dir) : open_outbox(d, restore, arg, ctx);
    if (!rc) {
        d->journal = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        rc = d->journal < 0 ? err_errno(ctx, "%s", path) : 0;
    }
    if (rc) {
        diary_close(d, NULL);
        return rc;
    }
    *out = d;
    return 0;
}

int diary_close(struct diary *d, struct err_ctx *ctx)
{
    if (!d)
        return 0;
    int rc = d->journal >= 0 ? diary_flush(d, ctx) : 0;
    if (d->journal >= 0)
        close(d->journal);
    if (d->outbox >= 0)
        close(d->outbox);
    buf_release(&d->rows);
    buf_release(&d->row);
    free(d);
    return rc;
}

static struct buf *begin(struct diary *d)
{
    if (d->rows.len + 2048 > DIARY_BUFFER) /* a row is shorter than that */
        spill(d);
    return &d->rows;
}

static void add_id(struct buf *b, const struct id *id)
{
    char text[ID_TEXT + 1];
    buf_printf(b, "\"id\":\"%s\"", id_str(id, text));
}

#define U64(v) ((unsigned long long)(v))

void diary_member(struct diary *d, uint64_t chat, uint64_t user, const char *net, const char *population)
{
    if (!d)
        return;
    struct buf *b = begin(d);
    buf_printf(b, "{\"op\":\"member\",\"chat\":\"%llu\",\"user\":\"%llu\",\"net\":\"%s\",\"pop\":", U64(chat),
               U64(user), net);
    buf_json_str(b, population, strlen(population));
    buf_str(b, "}\n");
}

void diary_sent(struct diary *d, const struct diary_sent *s)
{
    if (!d)
        return;
    uint8_t hash[16];
    char text[BASE64_LEN(16) + 1] = "";
    entry_content_hash(hash, s->kind.p, s->kind.n, s->body.p, s->body.n);
    base64url_encode(text, hash, sizeof hash);
    struct buf *b = begin(d);
    buf_printf(b, "{\"op\":\"sent\",\"ts_us\":%llu,\"user\":\"%llu\",\"device\":%u,\"chat\":\"%llu\",",
               U64(s->ts_us), U64(s->user), s->device, U64(s->chat));
    add_id(b, &s->id);
    buf_printf(b, ",\"intent\":%llu,\"kind\":", U64(s->intent));
    buf_json_str(b, s->kind.p, s->kind.n);
    buf_printf(b, ",\"hash\":\"%s\"}\n", text);
}

void diary_accepted(struct diary *d, uint64_t ts_us, uint64_t user, const struct id *id, uint64_t chat,
                    uint64_t epoch, uint64_t seq)
{
    if (!d)
        return;
    struct buf *b = begin(d);
    buf_printf(b, "{\"op\":\"accepted\",\"ts_us\":%llu,\"user\":\"%llu\",", U64(ts_us), U64(user));
    add_id(b, id);
    buf_printf(b, ",\"chat\":\"%llu\",\"epoch\":\"%llu\",\"seq\":%llu}\n", U64(chat), U64(epoch), U64(seq));
}

void diary_surfaced(struct diary *d, uint64_t ts_us, uint64_t user, uint32_t device, const struct msg *m)
{
    if (!d)
        return;
    struct buf *b = begin(d);
    buf_printf(b,
               "{\"op\":\"surfaced\",\"ts_us\":%llu,\"user\":\"%llu\",\"device\":%u,\"chat\":\"%llu\","
               "\"epoch\":\"%llu\","
               "\"seq\":%llu,",
               U64(ts_us), U64(user), device, U64(m->chat), U64(m->epoch), U64(m->seq));
    add_id(b, &m->id);
    buf_printf(b, ",\"from\":\"%llu\"}\n", U64(m->from));
}

void diary_gave_up(struct diary *d, uint64_t user, const struct id *id, const char *why)
{
    if (!d)
        return;
    struct buf *b = begin(d);
    buf_printf(b, "{\"op\":\"gave_up\",\"user\":\"%llu\",", U64(user));
    add_id(b, id);
    buf_printf(b, ",\"why\":\"%s\"}\n", why);
}

void diary_forgot(struct diary *d, uint64_t user, uint32_t device)
{
    if (d)
        buf_printf(begin(d), "{\"op\":\"forgot\",\"user\":\"%llu\",\"device\":%u}\n", U64(user), device);
}

void diary_outbox(struct diary *d, const struct outbox_row *row)
{
    if (!d)
        return;
    buf_reset(&d->row);
    outbox_row_encode(&d->row, row);
    if (!d->failed && (write_all(d->outbox, d->row.data, d->row.len) || (d->sync && fdatasync(d->outbox))))
        fail(d, "outbox.rows");
}
