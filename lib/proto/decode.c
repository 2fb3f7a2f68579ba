#include "proto/bin.h"
#include "proto/json_impl.h"
#include "proto/table_impl.h"

#include <string.h>

/* Hot path: one message. No allocation, no lock, no system call. */

static void take_id(struct json *j, struct id *id)
{
    struct slice s;
    size_t mark = j->scratch->len;
    json_space(j);
    const char *at = j->p;
    if (proto_json_string(j, &s) && id_parse(id, s.p, s.n))
        json_fail(j, ERR_INVALID, at, "must be a UUID of 36 characters");
    j->scratch->len = mark;
}

static void take_hash(struct json *j, uint8_t hash[PROTO_TAG_BYTES], uint8_t *len)
{
    struct slice s;
    size_t mark = j->scratch->len;
    json_space(j);
    const char *at = j->p;
    if (!proto_json_string(j, &s))
        return;
    long n = base64url_decode(hash, PROTO_TAG_BYTES, s.p, s.n);
    if (n < 0)
        json_fail(j, ERR_INVALID, at, "must be base64url of at most 16 bytes");
    else
        *len = (uint8_t)n;
    j->scratch->len = mark;
}

/* A text of at most so many bytes. */
static void take_upto(struct json *j, size_t max, const char *else_say, struct slice *s)
{
    json_space(j);
    const char *at = j->p;
    if (proto_json_string(j, s) && s->n > max)
        json_fail(j, ERR_LIMIT, at, else_say);
}

static void take_body(struct json *j, struct slice *s)
{
    take_upto(j, PROTO_BODY_MAX, "longer than 65536 bytes", s);
}

static void take_kind(struct json *j, struct slice *s)
{
    take_upto(j, PROTO_KIND_MAX, "longer than 31 bytes", s);
}

static void take_text(struct json *j, const struct field *f, struct slice *s)
{
    if (f->has == MSG_HAS(body))
        take_body(j, s);
    else if (f->has == MSG_HAS(kind))
        take_kind(j, s);
    else
        proto_json_string(j, s);
}

static void take_users(struct json *j, struct msg *m)
{
    bool first = true;
    for (json_open(j, '['); !j->err && json_more(j, ']', &first);) {
        uint64_t user;
        const char *at = j->p;
        if (!json_u64s(j, &user))
            return;
        if (m->users_n == PROTO_USERS_MAX) {
            json_fail(j, ERR_LIMIT, at, "more than 1024 users");
            return;
        }
        uint64_t *to = json_room(j, sizeof *to); /* neighbours: nothing else takes room meanwhile */
        if (!to)
            return;
        *to = user;
        if (!m->users_n++)
            m->users = to;
    }
}

static bool claim(struct json *j, struct claim *c)
{
    const char *missing = "a claim is [chat, epoch, seq]";
    json_open(j, '[');
    if (!json_u64s(j, &c->chat))
        return false;
    if (!json_take(j, ',')) {
        json_expected(j, missing);
        return false;
    }
    if (!json_u64s(j, &c->epoch))
        return false;
    if (!json_take(j, ',')) {
        json_expected(j, missing);
        return false;
    }
    if (!json_uint(j, PROTO_SEQ_MAX, &c->seq))
        return false;
    if (!json_take(j, ']')) {
        json_expected(j, missing);
        return false;
    }
    j->depth--;
    return true;
}

static void take_claims(struct json *j, struct msg *m)
{
    bool first = true;
    for (json_open(j, '['); !j->err && json_more(j, ']', &first);) {
        struct claim c;
        const char *at = j->p;
        if (!claim(j, &c))
            return;
        if (m->resume_n == PROTO_CLAIMS_MAX) {
            json_fail(j, ERR_LIMIT, at, "more than 4096 chats");
            return;
        }
        struct claim *to = json_room(j, sizeof *to);
        if (!to)
            return;
        *to = c;
        if (!m->resume_n++)
            m->resume = to;
    }
}

static void take_notices(struct json *j, struct msg *m)
{
    struct slice list[PROTO_NOTICES_MAX];
    uint32_t n = 0;
    bool first = true;
    for (json_open(j, '['); !j->err && json_more(j, ']', &first); n++) {
        if (n == PROTO_NOTICES_MAX) {
            json_fail(j, ERR_LIMIT, j->p, "more than 64 notices");
            return;
        }
        if (!proto_json_string(j, &list[n]))
            return;
    }
    struct slice *to = n ? json_room(j, n * sizeof *to) : NULL;
    if (!to)
        return;
    memcpy(to, list, n * sizeof *to);
    m->notices = to;
    m->notices_n = n;
}

/* ---- lists of rows ---- */

static void row_begins(struct json *j)
{
    json_open(j, '[');
}
static void row_goes_on(struct json *j)
{
    if (!json_take(j, ','))
        json_expected(j, "a row is too short");
}
static void row_ends(struct json *j)
{
    if (json_take(j, ']'))
        j->depth--;
    else
        json_expected(j, "a row is too long");
}

static void take_range(struct json *j, struct msg_range *r)
{
    row_begins(j);
    json_uint(j, PROTO_SEQ_MAX, &r->from);
    row_goes_on(j);
    json_uint(j, PROTO_SEQ_MAX, &r->to);
    row_ends(j);
}

static void take_report(struct json *j, struct msg_report *r)
{
    row_begins(j);
    json_u64s(j, &r->chat);
    row_goes_on(j);
    json_u64s(j, &r->epoch);
    row_goes_on(j);
    json_uint(j, PROTO_SEQ_MAX, &r->head);
    row_goes_on(j);
    take_hash(j, r->hash, &r->hash_len);
    row_ends(j);
}

static void take_refused_row(struct json *j, struct msg_refused *r)
{
    row_begins(j);
    take_id(j, &r->id);
    row_goes_on(j);
    proto_json_string(j, &r->code);
    row_ends(j);
}

static void take_entry(struct json *j, struct msg_entry *e)
{
    row_begins(j);
    json_u64s(j, &e->epoch);
    row_goes_on(j);
    json_uint(j, PROTO_SEQ_MAX, &e->seq);
    row_goes_on(j);
    take_id(j, &e->id);
    row_goes_on(j);
    json_u64s(j, &e->from);
    row_goes_on(j);
    json_uint(j, PROTO_SEQ_MAX, &e->ts);
    row_goes_on(j);
    take_kind(j, &e->kind);
    row_goes_on(j);
    take_body(j, &e->body);
    row_goes_on(j);
    take_hash(j, e->tag, &e->tag_len);
    row_ends(j);
}

static void take_number(struct json *j, uint32_t *to)
{
    uint64_t v = 0;
    row_goes_on(j);
    json_uint(j, UINT32_MAX, &v);
    *to = (uint32_t)v;
}

static void take_count(struct json *j, struct msg_count *c)
{
    row_begins(j);
    json_uint(j, PROTO_SEQ_MAX, &c->from);
    row_goes_on(j);
    json_uint(j, PROTO_SEQ_MAX, &c->to);
    take_number(j, &c->delivered);
    take_number(j, &c->read);
    take_number(j, &c->of);
    row_ends(j);
}

/* Texts of a row may need the scratch, so rows gather on the stack. */
#define TAKE_ROWS(name, type, take, max, else_say)                                                           \
    static void name(struct json *j, struct type **out, uint32_t *out_n)                                     \
    {                                                                                                        \
        struct type list[max];                                                                               \
        uint32_t n = 0;                                                                                      \
        bool first = true;                                                                                   \
        for (json_open(j, '['); !j->err && json_more(j, ']', &first); n++) {                                 \
            if (n == (max)) {                                                                                \
                json_fail(j, ERR_LIMIT, j->p, else_say);                                                     \
                return;                                                                                      \
            }                                                                                                \
            memset(&list[n], 0, sizeof list[n]);                                                             \
            take(j, &list[n]);                                                                               \
        }                                                                                                    \
        struct type *to = n && !j->err ? json_room(j, n * sizeof *to) : NULL;                                \
        if (!to)                                                                                             \
            return;                                                                                          \
        memcpy(to, list, n * sizeof *to);                                                                    \
        *out = to;                                                                                           \
        *out_n = n;                                                                                          \
    }
TAKE_ROWS(take_ranges, msg_range, take_range, PROTO_RANGES_MAX, "more than 1024 ranges")
TAKE_ROWS(take_reports, msg_report, take_report, PROTO_CLAIMS_MAX, "more than 4096 chats")
TAKE_ROWS(take_refused, msg_refused, take_refused_row, PROTO_ENTRIES_MAX, "more than 100 are refused")
TAKE_ROWS(take_entries, msg_entry, take_entry, PROTO_ENTRIES_MAX, "more than 100 entries")
TAKE_ROWS(take_counts, msg_count, take_count, PROTO_COUNTS_MAX, "more than 64 counts")

static void take_limits(struct json *j, struct msg_limits *l)
{
    static const struct {
        const char *name;
        size_t at;
    } names[] = {
#define X(field) {#field, offsetof(struct msg_limits, field)},
        LIMITS_FIELDS(X)
#undef X
    };
    unsigned seen = 0, i;
    bool first = true;
    struct slice key;
    for (json_open(j, '{'); !j->err && json_more(j, '}', &first);) {
        if (!json_key(j, &key))
            return;
        for (i = 0; i < sizeof names / sizeof *names && !slice_is(key, names[i].name); i++)
            ;
        if (i == sizeof names / sizeof *names) {
            json_skip(j);
            continue;
        }
        uint64_t v = 0;
        if (seen >> i & 1)
            json_fail(j, ERR_INVALID, j->p, "a limit stands twice");
        seen |= 1u << i;
        if (json_uint(j, UINT32_MAX, &v))
            *(uint32_t *)(void *)((char *)l + names[i].at) = (uint32_t)v;
    }
}

static void take_field(struct json *j, const struct field *f, struct msg *m)
{
    void *to = (char *)m + f->at;
    uint64_t v = 0;
    switch ((enum field_type)f->type) {
    case TYPE_U64S:
        json_u64s(j, to);
        break;
    case TYPE_INT:
        json_uint(j, PROTO_SEQ_MAX, to);
        break;
    case TYPE_U32:
        if (json_uint(j, UINT32_MAX, &v))
            *(uint32_t *)to = (uint32_t)v;
        break;
    case TYPE_ID:
        take_id(j, to);
        break;
    case TYPE_STR:
        take_text(j, f, to);
        break;
    case TYPE_BYTES:
        take_hash(j, m->tag, &m->tag_len);
        break;
    case TYPE_BOOL:
        json_bool(j, to);
        break;
    case TYPE_U64S_LIST:
        take_users(j, m);
        break;
    case TYPE_CLAIMS:
        take_claims(j, m);
        break;
    case TYPE_STR_LIST:
        take_notices(j, m);
        break;
    case TYPE_LIMITS:
        take_limits(j, to);
        break;
    case TYPE_RANGES:
        take_ranges(j, &m->ranges, &m->ranges_n);
        break;
    case TYPE_REPORTS:
        take_reports(j, &m->reports, &m->reports_n);
        break;
    case TYPE_REFUSED:
        take_refused(j, &m->refused, &m->refused_n);
        break;
    case TYPE_ENTRIES:
        take_entries(j, &m->entries, &m->entries_n);
        break;
    case TYPE_COUNTS:
        take_counts(j, &m->counts, &m->counts_n);
        break;
    }
}

static enum msg_type type_of(struct slice t)
{
    for (int i = 1; i < MSG_TYPE_COUNT; i++) {
        if (slice_is(t, proto_messages[i].name))
            return (enum msg_type)i;
    }
    return MSG_NONE;
}

static bool key_is(struct slice key, const struct field *f)
{
    return key.n == f->name_n && memcmp(key.p, f->name, key.n) == 0;
}

/* The row of a key; senders mostly write the fields in the table's order, so `hint` is tried first. */
static const struct field *field_of(const struct field *fields, const struct field *hint, struct slice key)
{
    if (hint->name && key_is(key, hint))
        return hint;
    for (const struct field *f = fields; f->name; f++) {
        if (key_is(key, f))
            return f;
    }
    return NULL;
}

/* Find "t" of the object at j->p without moving: needed when it does not come first. */
static bool find_type(const struct json *at, struct slice *t)
{
    struct json j = *at;
    struct slice key;
    bool first = true, found = false;
    j.ctx = NULL;
    for (json_open(&j, '{'); !j.err && json_more(&j, '}', &first);) {
        size_t mark = j.scratch->len;
        if (!json_key(&j, &key))
            break;
        bool is_t = slice_is(key, "t") && !found;
        j.scratch->len = mark;
        if (is_t)
            found = proto_json_string(&j, t);
        else
            json_skip(&j);
    }
    return found && !j.err;
}

/* The members of one object, whose type is known already. */
static void take_members(struct json *j, struct msg *m, const struct field *fields)
{
    static const struct field none = {0};
    const struct field *hint = fields ? fields : &none, *f;
    bool first = true, seen_t = false;
    struct slice key, t;
    uint64_t seen = 0;
    while (!j->err && (j->key = (struct slice){0}, json_more(j, '}', &first))) {
        size_t mark = j->scratch->len;
        json_space(j);
        const char *at = j->p;
        if (!json_key(j, &key))
            return;
        if (key.n == 1 && *key.p == 't') {
            j->scratch->len = mark;
            if (seen_t)
                json_fail(j, ERR_INVALID, at, "the key t stands twice");
            seen_t = true;
            j->key = key;
            proto_json_string(j, &t);
            j->scratch->len = mark;
            continue;
        }
        f = fields ? field_of(fields, hint, key) : NULL;
        j->scratch->len = mark;
        if (!f) {
            json_skip(j); /* a newer peer may send it */
            continue;
        }
        j->key = (struct slice){f->name, f->name_n};
        if (seen & f->has)
            json_fail(j, ERR_INVALID, at, "stands twice");
        seen |= f->has;
        if (!j->err)
            take_field(j, f, m);
        hint = f + 1;
    }
    m->has = seen;
}

/* Most senders put "t" first. */
static bool type_comes_first(const struct json *at, struct slice *t)
{
    struct json j = *at;
    struct slice key;
    j.ctx = NULL;
    json_open(&j, '{');
    return json_peek(&j) == '"' && json_key(&j, &key) && key.n == 1 && *key.p == 't' &&
           proto_json_string(&j, t);
}

static void take_message(struct json *j, struct msg *m)
{
    const char *start = j->p;
    struct slice t = {0};
    memset(m, 0, sizeof *m);
    bool typed = type_comes_first(j, &t) || find_type(j, &t);
    if (typed)
        m->t = type_of(t);
    const struct field *fields = proto_messages[m->t].fields;
    json_open(j, '{');
    take_members(j, m, fields);
    if (!typed) { /* unless a fault showed itself on the way */
        j->key = (struct slice){0};
        json_fail(j, ERR_INVALID, start, "the key t is missing");
    }
    if (m->t == MSG_NONE)
        m->code = t;
    for (const struct field *f = fields; f && f->name && !j->err; f++) {
        j->key = (struct slice){f->name, f->name_n};
        if (f->required && !(m->has & f->has))
            json_fail(j, ERR_INVALID, start, "is missing");
    }
}

int proto_frame_begin(struct proto_frame *f, const char *p, size_t n, struct proto_scratch *s,
                      struct err_ctx *ctx)
{
    struct json j = {.p = p, .end = p + n, .start = p, .scratch = s, .ctx = ctx};
    s->len = 0;
    *f = (struct proto_frame){.p = p, .end = p + n, .start = p, .scratch = s, .done = true};
    if (n > PROTO_FRAME_MAX)
        return err_set(ctx, ERR_LIMIT, "a frame of more than 4 MiB");
    char c = json_peek(&j);
    if (c != '{' && c != '[')
        return json_expected(&j, "a frame is an object or an array of objects");
    f->array = c == '[';
    if (f->array) {
        json_open(&j, '[');
        if (json_peek(&j) == ']')
            return json_expected(&j, "an empty array");
    }
    f->p = j.p;
    f->done = false;
    return 0;
}

/* What follows an object: a comma, or the end of array and frame. */
static void after_message(struct json *j, struct proto_frame *f)
{
    if (f->array && json_take(j, ','))
        return;
    if (f->array && !json_take(j, ']'))
        json_expected(j, "expected ',' or ']'");
    json_space(j);
    if (!j->err && j->p < j->end)
        json_fail(j, ERR_INVALID, j->p, "text after the end of the frame");
    f->done = true;
}

int proto_frame_next(struct proto_frame *f, struct msg *m, struct err_ctx *ctx)
{
    if (f->codec == PROTO_BIN)
        return proto_bin_next(f, m, ctx);
    struct json j = {.p = f->p, .end = f->end, .start = f->start, .scratch = f->scratch, .ctx = ctx};
    if (f->done)
        return f->p == f->end ? 0 : err_set(ctx, ERR_INVALID, "the frame was given up");
    j.depth = f->array;
    if (json_peek(&j) != '{')
        json_expected(&j, "a frame holds objects");
    else if (f->count++ == PROTO_BATCH_MAX)
        json_fail(&j, ERR_LIMIT, j.p, "more than 50 objects in a frame");
    else
        take_message(&j, m);
    j.key = (struct slice){0};
    if (!j.err)
        after_message(&j, f);
    if (j.err) {
        f->done = true;
        f->p = f->start;
        return j.err;
    }
    f->p = j.p;
    return 1;
}
