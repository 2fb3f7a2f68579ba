#include "audit/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#define CHUNK (256u << 10)

struct journal {
    int fd, failed;
    bool ended;
    uint64_t line;
    size_t at, len; /* unread bytes are data[at .. len) */
    char path[512];
    char data[CHUNK + JOURNAL_LINE_MAX + 1];
};

enum key {
    KEY_OP,
    KEY_TS_US,
    KEY_USER,
    KEY_DEVICE,
    KEY_CHAT,
    KEY_ID,
    KEY_INTENT,
    KEY_KIND,
    KEY_HASH,
    KEY_EPOCH,
    KEY_SEQ,
    KEY_FROM,
    KEY_NET,
    KEY_POP,
    KEY_COUNT,
};
#define HAS(k) (1u << KEY_##k)

static const struct {
    const char *name;
    uint8_t n;
} keys[KEY_COUNT] = {{"op", 2},  {"ts_us", 5},  {"user", 4}, {"device", 6}, {"chat", 4},
                     {"id", 2},  {"intent", 6}, {"kind", 4}, {"hash", 4},   {"epoch", 5},
                     {"seq", 3}, {"from", 4},   {"net", 3},  {"pop", 3}};

static const struct {
    const char *name;
    unsigned needs;
} ops[JOURNAL_OP_COUNT] = {
    [JOURNAL_MEMBER] = {"member", HAS(CHAT) | HAS(USER)},
    [JOURNAL_SENT] = {"sent", HAS(USER) | HAS(CHAT) | HAS(ID)},
    [JOURNAL_ACCEPTED] = {"accepted", HAS(USER) | HAS(ID) | HAS(CHAT) | HAS(EPOCH) | HAS(SEQ)},
    [JOURNAL_SURFACED] = {"surfaced",
                          HAS(USER) | HAS(DEVICE) | HAS(CHAT) | HAS(EPOCH) | HAS(SEQ) | HAS(ID) | HAS(FROM)},
    [JOURNAL_GAVE_UP] = {"gave_up", HAS(USER) | HAS(ID)},
    [JOURNAL_FORGOT] = {"forgot", HAS(USER) | HAS(DEVICE)},
};

int journal_open(struct journal **out, const char *path, struct err_ctx *ctx)
{
    struct journal *j = malloc(sizeof *j);
    if (!j)
        return err_set(ctx, ERR_NOMEM, "%s: out of memory", path);
    j->failed = 0;
    j->ended = false;
    j->line = j->at = j->len = 0;
    snprintf(j->path, sizeof j->path, "%s", path);
    j->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (j->fd < 0) {
        free(j);
        return err_errno(ctx, "%s", path);
    }
    *out = j;
    return 0;
}

const char *journal_path(const struct journal *j)
{
    return j->path;
}

void journal_close(struct journal *j)
{
    if (!j)
        return;
    close(j->fd);
    free(j);
}

static int fail(struct journal *j, struct err_ctx *ctx, int code, const char *what)
{
    j->failed = code;
    return err_set(ctx, code, "%s:%llu: %s", j->path, (unsigned long long)j->line, what);
}

/* Move what is unread to the front and fill up behind it. */
static int refill(struct journal *j, struct err_ctx *ctx)
{
    memmove(j->data, j->data + j->at, j->len - j->at);
    j->len -= j->at;
    j->at = 0;
    while (j->len < CHUNK) {
        ssize_t n = read(j->fd, j->data + j->len, CHUNK - j->len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            j->failed = err_errno(ctx, "%s", j->path);
            return j->failed;
        }
        j->ended = n == 0;
        j->len += (size_t)n;
        break;
    }
    return 0;
}

/* The next line without its end, NUL-terminated in place; 1, 0 or an error. */
static int next_line(struct journal *j, char **line, size_t *n, struct err_ctx *ctx)
{
    for (;;) {
        char *start = j->data + j->at, *end = memchr(start, '\n', j->len - j->at);
        if (end) {
            j->line++;
            *line = start;
            *n = (size_t)(end - start);
            *end = 0;
            j->at += *n + 1;
            return *n > JOURNAL_LINE_MAX ? fail(j, ctx, ERR_CORRUPT, "the line is too long") : 1;
        }
        if (j->len - j->at > JOURNAL_LINE_MAX) {
            j->line++;
            return fail(j, ctx, ERR_CORRUPT, "the line is too long");
        }
        if (j->ended) {
            if (j->at == j->len)
                return 0;
            j->line++;
            return fail(j, ctx, ERR_TRUNCATED, "the last line is cut off");
        }
        int rc = refill(j, ctx);
        if (rc)
            return rc;
    }
}

static const char *space(const char *p)
{
    while (*p == ' ' || *p == '\t' || *p == '\r')
        p++;
    return p;
}

/* Past a string's closing quote; its inside goes to *t. Escapes are stepped over, not undone: none of the
 * fields we use may hold one. NULL when it has no end. */
static const char *string(const char *p, struct journal_text *t)
{
    t->p = ++p;
    for (; *p != '"'; p++) {
        if (*p == '\\')
            p++;
        if ((unsigned char)*p < 0x20)
            return NULL;
    }
    t->n = (size_t)(p - t->p);
    return p + 1;
}

/* A scalar: string, number, true, false or null. */
static const char *scalar(const char *p, struct journal_text *t)
{
    if (*p == '"')
        return string(p, t);
    t->p = p;
    while ((*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'z') || *p == '-' || *p == '+' || *p == '.' ||
           *p == 'E')
        p++;
    t->n = (size_t)(p - t->p);
    return t->n ? p : NULL;
}

static bool number(struct journal_text t, uint64_t *v)
{
    uint64_t n = 0;
    if (t.n == 0 || t.n > 20)
        return false;
    for (size_t i = 0; i < t.n; i++) {
        unsigned d = (unsigned)(t.p[i] - '0');
        if (d > 9 || __builtin_mul_overflow(n, 10u, &n) || __builtin_add_overflow(n, d, &n))
            return false;
    }
    *v = n;
    return true;
}

static bool set_op(struct journal_row *row, struct journal_text t)
{
    for (int i = 0; i < JOURNAL_OP_COUNT; i++) {
        if (strlen(ops[i].name) == t.n && memcmp(ops[i].name, t.p, t.n) == 0) {
            row->op = (enum journal_op)i;
            return true;
        }
    }
    return false;
}

static bool set_field(struct journal_row *row, enum key k, struct journal_text t)
{
    uint64_t v = 0;
    switch (k) {
    case KEY_OP:
        return set_op(row, t);
    case KEY_ID:
        return id_parse(&row->id, t.p, t.n) == 0;
    case KEY_NET:
        row->net = t;
        return true;
    case KEY_POP:
        row->pop = t;
        return true;
    case KEY_KIND:
        row->kind = t;
        return true;
    case KEY_HASH:
        row->hash = t;
        return true;
    case KEY_DEVICE:
        if (!number(t, &v) || v > UINT32_MAX)
            return false;
        row->device = (uint32_t)v;
        return true;
    case KEY_TS_US:
        return number(t, &row->ts_us);
    case KEY_USER:
        return number(t, &row->user);
    case KEY_CHAT:
        return number(t, &row->chat);
    case KEY_INTENT:
        return number(t, &row->intent);
    case KEY_EPOCH:
        return number(t, &row->epoch);
    case KEY_SEQ:
        return number(t, &row->seq);
    case KEY_FROM:
        return number(t, &row->from);
    case KEY_COUNT:
        break;
    }
    return true;
}

static enum key key_of(struct journal_text t)
{
    int k = 0;
    while (k < KEY_COUNT && (keys[k].n != t.n || memcmp(keys[k].name, t.p, t.n) != 0))
        k++;
    return (enum key)k;
}

/* One flat object. NULL when it is good, else what is wrong. */
static const char *scan(const char *p, struct journal_row *row)
{
    unsigned has = 0;
    struct journal_text name, value;
    p = space(p);
    if (*p++ != '{')
        return "is no JSON object";
    for (;;) {
        p = space(p);
        if (*p != '"' || !(p = string(p, &name)))
            return "a key is missing";
        p = space(p);
        if (*p++ != ':')
            return "a colon is missing";
        p = scalar(space(p), &value);
        if (!p)
            return "a value is cut off or nested";
        enum key k = key_of(name);
        if (k != KEY_COUNT) {
            if (has & 1u << k)
                return "a key stands twice";
            if (!set_field(row, k, value))
                return k == KEY_OP ? "unknown op" : "a value makes no sense";
            has |= 1u << k;
        }
        p = space(p);
        if (*p == '}')
            break;
        if (*p++ != ',')
            return "a comma is missing";
    }
    if (*space(p + 1))
        return "something follows the object";
    if (!(has & HAS(OP)))
        return "lacks op";
    return (has & ops[row->op].needs) == ops[row->op].needs ? NULL : "lacks a key";
}

int journal_next(struct journal *j, struct journal_row *row, struct err_ctx *ctx)
{
    char *line = NULL;
    size_t n = 0;
    if (j->failed)
        return err_set(ctx, j->failed, "%s: an earlier error", j->path);
    int rc = next_line(j, &line, &n, ctx);
    if (rc != 1)
        return rc;
    *row = (struct journal_row){.line = j->line};
    if (memchr(line, 0, n))
        return fail(j, ctx, ERR_CORRUPT, "holds a zero byte");
    const char *wrong = scan(line, row);
    return wrong ? fail(j, ctx, ERR_CORRUPT, wrong) : 1;
}
