/* Rows as JSONL: a key scanner, since a tree for each line costs more than the whole comparison. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audit/reconcile.h"
#include "store/store.h"

#define CHUNK (256u << 10)

enum key {
    KEY_CHAT,
    KEY_EPOCH,
    KEY_SEQ,
    KEY_ID,
    KEY_FROM,
    KEY_TS,
    KEY_HASH,
    KEY_BODY,
    KEY_KIND,
    KEY_DELETED,
    KEY_SYSTEM,
    KEY_COUNT
};
static const struct {
    const char *name;
    uint8_t n;
} keys[KEY_COUNT] = {{"chat", 4}, {"epoch", 5}, {"seq", 3},  {"id", 2},      {"from", 4},  {"ts", 2},
                     {"hash", 4}, {"body", 4},  {"kind", 4}, {"deleted", 7}, {"system", 6}};

struct text {
    const char *p;
    size_t n;
    bool quoted, escaped;
};

static const char *space(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\r'))
        p++;
    return p;
}

/* p stands on the quote; the place behind the closing one, or NULL. */
static const char *string(const char *p, const char *end, struct text *t)
{
    p++;
    *t = (struct text){.p = p, .quoted = true};
    for (; p < end && *p != '"'; p++) {
        if ((unsigned char)*p < 0x20)
            return NULL;
        if (*p == '\\') {
            t->escaped = true;
            p++;
        }
    }
    if (p >= end)
        return NULL;
    t->n = (size_t)(p - t->p);
    return p + 1;
}

static const char *scalar(const char *p, const char *end, struct text *t)
{
    if (p < end && *p == '"')
        return string(p, end, t);
    *t = (struct text){.p = p};
    while (p < end && ((*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'z') || *p == '-' || *p == '+' ||
                       *p == '.' || *p == 'E'))
        p++;
    t->n = (size_t)(p - t->p);
    return t->n ? p : NULL;
}

static bool number(const struct text *t, uint64_t *v)
{
    uint64_t n = 0;
    if (t->n == 0 || t->n > 20)
        return false;
    for (size_t i = 0; i < t->n; i++) {
        unsigned d = (unsigned)(t->p[i] - '0');
        if (d > 9 || __builtin_mul_overflow(n, 10u, &n) || __builtin_add_overflow(n, d, &n))
            return false;
    }
    *v = n;
    return true;
}

static int hex4(const char *p)
{
    int v = 0;
    for (int i = 0; i < 4; i++) {
        int c = p[i] | 0x20;
        int d = p[i] >= '0' && p[i] <= '9' ? p[i] - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (d < 0)
            return -1;
        v = v * 16 + d;
    }
    return v;
}

static size_t utf8(char *out, unsigned c)
{
    if (c < 0x80)
        return out[0] = (char)c, 1;
    if (c < 0x800)
        return out[0] = (char)(0xc0 | c >> 6), out[1] = (char)(0x80 | (c & 63)), 2;
    if (c < 0x10000)
        return out[0] = (char)(0xe0 | c >> 12), out[1] = (char)(0x80 | (c >> 6 & 63)),
               out[2] = (char)(0x80 | (c & 63)), 3;
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 63));
    out[2] = (char)(0x80 | (c >> 6 & 63));
    out[3] = (char)(0x80 | (c & 63));
    return 4;
}

/* Undoes JSON's escapes (RFC 8259 section 7) into out, which is as long as the text; the length, or -1. */
static long unescape(char *out, const struct text *t)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    size_t n = 0;
    for (size_t i = 0; i < t->n; i++) {
        if (t->p[i] != '\\') {
            out[n++] = t->p[i];
            continue;
        }
        const char *at = ++i < t->n ? memchr(from, t->p[i], sizeof from - 1) : NULL;
        if (at) {
            out[n++] = to[at - from];
            continue;
        }
        int c = i + 4 < t->n && t->p[i] == 'u' ? hex4(t->p + i + 1) : -1;
        if (c < 0 || (c >= 0xdc00 && c < 0xe000))
            return -1;
        i += 4;
        if (c >= 0xd800 && c < 0xdc00) {
            int low = i + 6 < t->n && t->p[i + 1] == '\\' && t->p[i + 2] == 'u' ? hex4(t->p + i + 3) : -1;
            if (low < 0xdc00 || low > 0xdfff)
                return -1;
            c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
            i += 6;
        }
        n += utf8(out + n, (unsigned)c);
    }
    return (long)n;
}

static const char *hash_body(struct reconcile_row *row, const struct text *kind, const struct text *body)
{
    char small[4096], *buffer = body->n + kind->n > sizeof small ? malloc(body->n + kind->n) : small;
    const char *why = NULL;
    if (!buffer)
        return "has a body that memory does not hold";
    long kn = unescape(buffer, kind), bn = kn < 0 ? -1 : unescape(buffer + kn, body);
    if (bn < 0)
        why = "has an escape that means nothing";
    else
        entry_content_hash(row->hash, buffer, (size_t)kn, buffer + kn, (size_t)bn);
    if (buffer != small)
        free(buffer);
    return why;
}

/* NULL, or what is wrong. */
static const char *set_field(struct reconcile_row *row, enum key k, const struct text *t)
{
    bool good = true;
    switch (k) {
    case KEY_CHAT:
        good = number(t, &row->chat);
        break;
    case KEY_EPOCH:
        good = number(t, &row->epoch);
        row->has |= RECONCILE_HAS_EPOCH;
        break;
    case KEY_SEQ:
        good = number(t, &row->seq) && row->seq < 1ull << 53;
        row->has |= RECONCILE_HAS_SEQ;
        break;
    case KEY_ID:
        good = id_parse(&row->id, t->p, t->n) == 0;
        break;
    case KEY_FROM:
        good = number(t, &row->from);
        row->has |= RECONCILE_HAS_FROM;
        break;
    case KEY_TS:
        good = number(t, &row->ts_us);
        row->has |= RECONCILE_HAS_TS;
        break;
    case KEY_HASH:
        good = base64url_decode(row->hash, sizeof row->hash, t->p, t->n) == (long)sizeof row->hash;
        row->has |= RECONCILE_HAS_HASH;
        break;
    case KEY_DELETED:
    case KEY_SYSTEM:
        good = !t->quoted &&
               ((t->n == 4 && !memcmp(t->p, "true", 4)) || (t->n == 5 && !memcmp(t->p, "false", 5)));
        if (good && t->n == 4)
            row->flags |= k == KEY_DELETED ? RECONCILE_DELETED : RECONCILE_SYSTEM;
        break;
    case KEY_BODY:
    case KEY_KIND:
        good = t->quoted;
        break;
    case KEY_COUNT:
        break;
    }
    return good ? NULL : "a value makes no sense";
}

int reconcile_jsonl_row(struct reconcile_row *row, const char *line, size_t n, const char **why)
{
    const char *p = line, *end = line + n, *wrong = NULL;
    unsigned seen = 0;
    struct text name, value, body = {0}, kind = {.p = "text", .n = 4};
    memset(row, 0, sizeof *row);
    *why = "is no flat JSON object";
    p = space(p, end);
    if (p == end || *p++ != '{')
        return ERR_CORRUPT;
    for (;;) {
        p = space(p, end);
        if (p == end || *p != '"' || !(p = string(p, end, &name)) || (p = space(p, end)) == end ||
            *p++ != ':' || !(p = scalar(space(p, end), end, &value)))
            return ERR_CORRUPT;
        int k = 0;
        while (k < KEY_COUNT && (keys[k].n != name.n || keys[k].name[0] != *name.p ||
                                 memcmp(keys[k].name, name.p, name.n) != 0))
            k++;
        if (k < KEY_COUNT) {
            wrong = seen & 1u << k ? "a key stands twice" : set_field(row, (enum key)k, &value);
            seen |= 1u << k;
            body = k == KEY_BODY ? value : body;
            kind = k == KEY_KIND ? value : kind;
        }
        if (wrong) {
            *why = wrong;
            return ERR_CORRUPT;
        }
        p = space(p, end);
        if (p == end)
            return ERR_CORRUPT;
        if (*p == '}')
            break;
        if (*p++ != ',')
            return ERR_CORRUPT;
    }
    if (space(p + 1, end) != end)
        *why = "something follows the object";
    else if ((seen & 13u) != 13u) /* chat, seq, id */
        *why = "lacks chat, seq or id";
    else if (seen & 1u << KEY_BODY && !(row->has & RECONCILE_HAS_HASH) &&
             (wrong = hash_body(row, &kind, &body)))
        *why = wrong;
    else
        *why = NULL;
    if (seen & 1u << KEY_BODY)
        row->has |= RECONCILE_HAS_HASH;
    return *why ? ERR_CORRUPT : 0;
}

void reconcile_jsonl_write(struct buf *out, const struct reconcile_row *r)
{
    char id[ID_TEXT + 1], hash[BASE64_LEN(16) + 1] = "";
    buf_printf(out, "{\"chat\":\"%llu\"", (unsigned long long)r->chat);
    if (r->has & RECONCILE_HAS_EPOCH)
        buf_printf(out, ",\"epoch\":\"%llu\"", (unsigned long long)r->epoch);
    if (r->has & RECONCILE_HAS_SEQ)
        buf_printf(out, ",\"seq\":%llu", (unsigned long long)r->seq);
    buf_printf(out, ",\"id\":\"%s\"", id_str(&r->id, id));
    if (r->has & RECONCILE_HAS_FROM)
        buf_printf(out, ",\"from\":\"%llu\"", (unsigned long long)r->from);
    if (r->has & RECONCILE_HAS_TS)
        buf_printf(out, ",\"ts\":%llu", (unsigned long long)r->ts_us);
    if (r->has & RECONCILE_HAS_HASH) {
        base64url_encode(hash, r->hash, sizeof r->hash);
        buf_printf(out, ",\"hash\":\"%s\"", hash);
    }
    if (r->flags & RECONCILE_DELETED)
        buf_str(out, ",\"deleted\":true");
    if (r->flags & RECONCILE_SYSTEM)
        buf_str(out, ",\"system\":true");
    buf_char(out, '}');
}

/* ---- the file ---- */

struct jsonl {
    struct reconcile_source source;
    reconcile_place *place;
    int fd;
    bool ended;
    uint64_t line, offset; /* of the file where data[at] is */
    size_t at, len;
    char *path;
    char data[CHUNK + RECONCILE_LINE_MAX];
};

static int bad(const struct jsonl *j, int code, const char *what, struct err_ctx *ctx)
{
    return err_set(ctx, code, "%s:%llu: offset %llu: %s", j->path, (unsigned long long)j->line + 1,
                   (unsigned long long)j->offset, what);
}

static int refill(struct jsonl *j, struct err_ctx *ctx)
{
    memmove(j->data, j->data + j->at, j->len - j->at);
    j->len -= j->at;
    j->at = 0;
    for (;;) {
        ssize_t n = read(j->fd, j->data + j->len, sizeof j->data - j->len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(ctx, "%s", j->path);
        j->ended = n == 0;
        j->len += (size_t)n;
        return 0;
    }
}

/* 1, 0 at the end, or an error. Empty lines are passed over. */
static int next_line(struct jsonl *j, const char **line, size_t *n, struct err_ctx *ctx)
{
    for (;;) {
        char *start = j->data + j->at, *end = memchr(start, '\n', j->len - j->at);
        if (end) {
            *line = start;
            *n = (size_t)(end - start);
            if (*n > RECONCILE_LINE_MAX)
                return bad(j, ERR_CORRUPT, "the line is too long", ctx);
            return 1;
        }
        if (j->len - j->at > RECONCILE_LINE_MAX)
            return bad(j, ERR_CORRUPT, "the line is too long", ctx);
        if (j->ended)
            return j->at == j->len ? 0 : bad(j, ERR_TRUNCATED, "the last line is cut off", ctx);
        int rc = refill(j, ctx);
        if (rc)
            return rc;
    }
}

static long jsonl_read(struct reconcile_source *s, struct reconcile_row *rows, size_t max,
                       struct err_ctx *ctx)
{
    struct jsonl *j = (struct jsonl *)s;
    size_t got = 0, n = 0;
    const char *line = NULL, *why;
    int rc = 0;
    while (got < max && (rc = next_line(j, &line, &n, ctx)) == 1) {
        struct reconcile_row *row = &rows[got];
        if (n) {
            rc = reconcile_jsonl_row(row, line, n, &why);
            if (rc)
                return bad(j, rc, why, ctx);
            s->has = j->line ? s->has : row->has;
            if ((s->has & ~row->has & ~(row->flags & RECONCILE_DELETED ? RECONCILE_HAS_HASH : 0)))
                return bad(j, ERR_CORRUPT, "lacks a key that the first row has", ctx);
            row->has &= s->has;
            row->place = j->place ? j->place(row->chat) : 0;
            got++;
        }
        j->at += n + 1;
        j->offset += n + 1;
        j->line++;
    }
    return rc < 0 ? rc : (long)got;
}

static int jsonl_rewind(struct reconcile_source *s, struct err_ctx *ctx)
{
    struct jsonl *j = (struct jsonl *)s;
    j->at = j->len = 0;
    j->line = j->offset = 0;
    j->ended = false;
    return lseek(j->fd, 0, SEEK_SET) < 0 ? err_errno(ctx, "%s: must be a file, it is read twice", j->path)
                                         : 0;
}

static void jsonl_close(struct reconcile_source *s)
{
    struct jsonl *j = (struct jsonl *)s;
    if (j->fd >= 0)
        close(j->fd);
    free(j->path);
    free(j);
}

int reconcile_jsonl_open(struct reconcile_source **out, const char *path, reconcile_place *place, bool sorted,
                         struct err_ctx *ctx)
{
    struct jsonl *j = malloc(sizeof *j);
    if (!j)
        return err_set(ctx, ERR_NOMEM, "%s: out of memory", path);
    memset(j, 0, offsetof(struct jsonl, data));
    j->source = (struct reconcile_source){
        .sorted = sorted, .read = jsonl_read, .rewind = jsonl_rewind, .close = jsonl_close};
    j->place = place;
    j->path = strdup(path);
    j->source.name = j->path;
    j->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (!j->path || j->fd < 0) {
        int rc = j->path ? err_errno(ctx, "%s", path) : err_set(ctx, ERR_NOMEM, "out of memory");
        jsonl_close(&j->source);
        return rc;
    }
    struct stat st; /* a row is longer than 64 bytes */
    if (fstat(j->fd, &st) == 0)
        j->source.rows = (uint64_t)st.st_size / 64;
    *out = &j->source;
    return 0;
}
