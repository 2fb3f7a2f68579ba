#include "proto/bin.h"
#include "proto/json_impl.h"
#include "proto/table_impl.h"

#include <stdio.h>
#include <string.h>

/* Hot path: one message. No allocation, no lock, no system call. After the first fault every call returns at
 * once. */

struct reader {
    const char *p, *end, *start;
    struct proto_scratch *scratch;
    const char *name; /* of the field at hand, for errors */
    struct err_ctx *ctx;
    int err;
};

static void fail(struct reader *r, int code, const char *at, const char *what)
{
    if (r->err)
        return;
    r->err = code;
    r->p = r->end;
    err_set(r->ctx, code, "%s%s%s at byte %zu", r->name ? r->name : "", r->name ? ": " : "", what,
            (size_t)(at - r->start));
}

static uint64_t varint_long(struct reader *r)
{
    const char *at = r->p;
    uint64_t v = 0;
    for (unsigned shift = 0; r->p < r->end; shift += 7) {
        uint64_t b = (uint8_t)*r->p++;
        if (shift == 63 && b > 1) {
            fail(r, ERR_RANGE, at, "is larger than 2^64-1");
            return 0;
        }
        v |= (b & 0x7f) << shift;
        if (b & 0x80)
            continue;
        if (!b && shift)
            fail(r, ERR_INVALID, at, "a number not in its shortest form");
        return v;
    }
    fail(r, ERR_TRUNCATED, r->end, "ends too early");
    return 0;
}

static inline uint64_t varint(struct reader *r)
{
    if (r->p < r->end && !(*r->p & 0x80))
        return (uint8_t)*r->p++;
    return varint_long(r);
}

static uint64_t varint_upto(struct reader *r, uint64_t max)
{
    const char *at = r->p;
    uint64_t v = varint(r);
    if (v <= max)
        return v;
    fail(r, ERR_RANGE, at,
         max == 1            ? "must be 0 or 1"
         : max == UINT32_MAX ? "is larger than 2^32-1"
                             : "is larger than 2^53-1");
    return 0;
}

static const char *bytes(struct reader *r, size_t n)
{
    const char *p = r->p;
    if (n > (size_t)(r->end - p)) {
        fail(r, ERR_TRUNCATED, r->end, "ends too early");
        return NULL;
    }
    r->p += n;
    return p;
}

/* A reader of the value of shape 2 that follows. */
static struct reader inner(struct reader *r)
{
    struct reader in = *r;
    size_t n = (size_t)varint(r);
    in.p = bytes(r, n);
    in.end = in.p ? in.p + n : NULL;
    if (!in.p)
        in.p = in.end = r->end;
    in.err = r->err;
    return in;
}

static struct slice text(struct reader *r)
{
    const char *at = r->p;
    size_t n = (size_t)varint(r);
    const char *p = bytes(r, n);
    if (!p)
        return (struct slice){0};
    if (!json_is_utf8(p, n))
        fail(r, ERR_INVALID, at, "text that is no UTF-8");
    return (struct slice){p, n};
}

static void take_body(struct reader *r, struct slice *to)
{
    const char *at = r->p;
    *to = text(r);
    if (to->n > PROTO_BODY_MAX)
        fail(r, ERR_LIMIT, at, "longer than 65536 bytes");
}

static void take_kind(struct reader *r, struct slice *to)
{
    const char *at = r->p;
    *to = text(r);
    if (to->n > PROTO_KIND_MAX)
        fail(r, ERR_LIMIT, at, "longer than 31 bytes");
}

static void take_text(struct reader *r, const struct field *f, struct slice *to)
{
    if (f->has == MSG_HAS(body))
        take_body(r, to);
    else if (f->has == MSG_HAS(kind))
        take_kind(r, to);
    else
        *to = text(r);
}

static void take_hash(struct reader *r, uint8_t hash[PROTO_TAG_BYTES], uint8_t *len)
{
    const char *at = r->p;
    size_t n = (size_t)varint(r);
    const char *p = n <= PROTO_TAG_BYTES ? bytes(r, n) : NULL;
    if (!p) {
        fail(r, ERR_INVALID, at, "must be at most 16 bytes");
        return;
    }
    memcpy(hash, p, n);
    *len = (uint8_t)n;
}

static void *room(struct reader *r, size_t n)
{
    struct proto_scratch *s = r->scratch;
    size_t at = (s->len + 7) & ~(size_t)7;
    if (r->err || at > s->cap || n > s->cap - at) {
        fail(r, ERR_LIMIT, r->p, "more than the scratch holds");
        return NULL;
    }
    s->len = at + n;
    return s->data + at;
}

static void take_users(struct reader *r, struct msg *m)
{
    for (uint64_t *to; !r->err && r->p < r->end; m->users_n++) {
        if (m->users_n == PROTO_USERS_MAX) {
            fail(r, ERR_LIMIT, r->p, "more than 1024 users");
            return;
        }
        uint64_t user = varint(r);
        if (r->err || !(to = room(r, sizeof *to)))
            return;
        *to = user;
        if (!m->users_n)
            m->users = to;
    }
}

static void take_claims(struct reader *r, struct msg *m)
{
    uint64_t epoch = 0;
    for (struct claim *to; !r->err && r->p < r->end; m->resume_n++) {
        if (m->resume_n == PROTO_CLAIMS_MAX) {
            fail(r, ERR_LIMIT, r->p, "more than 4096 chats");
            return;
        }
        struct claim c = {.chat = varint(r)};
        c.epoch = epoch ^= varint(r);
        c.seq = varint_upto(r, PROTO_SEQ_MAX);
        if (r->err || !(to = room(r, sizeof *to)))
            return;
        *to = c;
        if (!m->resume_n)
            m->resume = to;
    }
}

static void take_notices(struct reader *r, struct msg *m)
{
    for (struct slice *to; !r->err && r->p < r->end; m->notices_n++) {
        if (m->notices_n == PROTO_NOTICES_MAX) {
            fail(r, ERR_LIMIT, r->p, "more than 64 notices");
            return;
        }
        struct slice s = text(r);
        if (r->err || !(to = room(r, sizeof *to)))
            return;
        *to = s;
        if (!m->notices_n)
            m->notices = to;
    }
}

static void take_limits(struct reader *r, struct msg_limits *l)
{
    uint32_t *const at[] = {
#define X(field) &l->field,
        LIMITS_FIELDS(X)
#undef X
    };
    for (size_t i = 0; !r->err && r->p < r->end; i++) {
        if (i < sizeof at / sizeof *at)
            *at[i] = (uint32_t)varint_upto(r, UINT32_MAX);
        else
            varint(r); /* a newer peer may send it */
    }
}

static void take_id(struct reader *r, struct id *id)
{
    const char *p = bytes(r, ID_BYTES);
    if (p)
        memcpy(id, p, ID_BYTES);
}

static void take_range(struct reader *r, struct msg_range *o)
{
    o->from = varint_upto(r, PROTO_SEQ_MAX);
    o->to = varint_upto(r, PROTO_SEQ_MAX);
}

static void take_report(struct reader *r, struct msg_report *o)
{
    o->chat = varint(r);
    o->epoch = varint(r);
    o->head = varint_upto(r, PROTO_SEQ_MAX);
    take_hash(r, o->hash, &o->hash_len);
}

static void take_refused_row(struct reader *r, struct msg_refused *o)
{
    take_id(r, &o->id);
    o->code = text(r);
}

static void take_entry(struct reader *r, struct msg_entry *e)
{
    e->epoch = varint(r);
    e->seq = varint_upto(r, PROTO_SEQ_MAX);
    take_id(r, &e->id);
    e->from = varint(r);
    e->ts = varint_upto(r, PROTO_SEQ_MAX);
    take_kind(r, &e->kind);
    take_body(r, &e->body);
    take_hash(r, e->tag, &e->tag_len);
}

static void take_count(struct reader *r, struct msg_count *c)
{
    c->from = varint_upto(r, PROTO_SEQ_MAX);
    c->to = varint_upto(r, PROTO_SEQ_MAX);
    c->delivered = (uint32_t)varint_upto(r, UINT32_MAX);
    c->read = (uint32_t)varint_upto(r, UINT32_MAX);
    c->of = (uint32_t)varint_upto(r, UINT32_MAX);
}

/* Rows are neighbours: nothing else takes room meanwhile. */
#define TAKE_ROWS(name, type, take, max, else_say)                                                           \
    static void name(struct reader *r, struct type **out, uint32_t *n)                                       \
    {                                                                                                        \
        for (struct type * to; !r->err && r->p < r->end; ++*n) {                                             \
            struct type row = {0};                                                                           \
            if (*n == (max)) {                                                                               \
                fail(r, ERR_LIMIT, r->p, else_say);                                                          \
                return;                                                                                      \
            }                                                                                                \
            take(r, &row);                                                                                   \
            if (r->err || !(to = room(r, sizeof *to)))                                                       \
                return;                                                                                      \
            *to = row;                                                                                       \
            if (!*n)                                                                                         \
                *out = to;                                                                                   \
        }                                                                                                    \
    }
TAKE_ROWS(take_ranges, msg_range, take_range, PROTO_RANGES_MAX, "more than 1024 ranges")
TAKE_ROWS(take_reports, msg_report, take_report, PROTO_CLAIMS_MAX, "more than 4096 chats")
TAKE_ROWS(take_refused, msg_refused, take_refused_row, PROTO_ENTRIES_MAX, "more than 100 are refused")
TAKE_ROWS(take_entries, msg_entry, take_entry, PROTO_ENTRIES_MAX, "more than 100 entries")
TAKE_ROWS(take_counts, msg_count, take_count, PROTO_COUNTS_MAX, "more than 64 counts")

static void take_list(struct reader *r, const struct field *f, struct msg *m)
{
    struct reader in = inner(r);
    switch ((enum field_type)f->type) {
    case TYPE_U64S_LIST:
        take_users(&in, m);
        break;
    case TYPE_CLAIMS:
        take_claims(&in, m);
        break;
    case TYPE_STR_LIST:
        take_notices(&in, m);
        break;
    case TYPE_RANGES:
        take_ranges(&in, &m->ranges, &m->ranges_n);
        break;
    case TYPE_REPORTS:
        take_reports(&in, &m->reports, &m->reports_n);
        break;
    case TYPE_REFUSED:
        take_refused(&in, &m->refused, &m->refused_n);
        break;
    case TYPE_ENTRIES:
        take_entries(&in, &m->entries, &m->entries_n);
        break;
    case TYPE_COUNTS:
        take_counts(&in, &m->counts, &m->counts_n);
        break;
    default:
        take_limits(&in, &m->limits);
    }
    if (in.err && !r->err) {
        r->err = in.err;
        r->p = r->end;
    }
}

static void take_field(struct reader *r, const struct field *f, struct msg *m)
{
    void *to = (char *)m + f->at;
    switch ((enum field_type)f->type) {
    case TYPE_U64S:
        *(uint64_t *)to = varint(r);
        break;
    case TYPE_INT:
        *(uint64_t *)to = varint_upto(r, PROTO_SEQ_MAX);
        break;
    case TYPE_U32:
        *(uint32_t *)to = (uint32_t)varint_upto(r, UINT32_MAX);
        break;
    case TYPE_BOOL:
        *(bool *)to = varint_upto(r, 1) != 0;
        break;
    case TYPE_ID:
        take_id(r, to);
        break;
    case TYPE_STR:
        take_text(r, f, to);
        break;
    case TYPE_BYTES:
        take_hash(r, m->tag, &m->tag_len);
        break;
    default:
        take_list(r, f, m);
    }
}

static void skip(struct reader *r, unsigned shape)
{
    if (shape == 0)
        varint(r);
    else if (shape == 1)
        bytes(r, ID_BYTES);
    else if (shape == 2)
        inner(r);
    else
        fail(r, ERR_INVALID, r->p, "a field of unknown shape");
}

static void take_fields(struct reader *r, struct msg *m, const struct message *of)
{
    while (!r->err && r->p < r->end) {
        const char *at = r->p;
        uint64_t key = varint(r), number = key >> 2;
        unsigned shape = (unsigned)(key & 3);
        const struct field *f = number && number <= of->fields_n ? &of->fields[number - 1] : NULL;
        if (r->err)
            return;
        if (!number)
            fail(r, ERR_INVALID, at, "field 0 is no field");
        if (!f) {
            skip(r, shape);
            continue;
        }
        r->name = f->name;
        if (m->has & f->has)
            fail(r, ERR_INVALID, at, "stands twice");
        if (shape != field_shape((enum field_type)f->type))
            fail(r, ERR_INVALID, at, "has the wrong shape");
        m->has |= f->has;
        if (!r->err)
            take_field(r, f, m);
        r->name = NULL;
    }
}

static void take_message(struct reader *r, struct msg *m)
{
    const char *start = r->p;
    memset(m, 0, sizeof *m);
    uint64_t type = varint(r);
    if (type > MSG_NONE && type < MSG_TYPE_COUNT) {
        m->t = (enum msg_type)type;
    } else if (!r->err) {
        char *name = room(r, 24);
        if (name)
            m->code = (struct slice){name, (size_t)snprintf(name, 24, "#%llu", (unsigned long long)type)};
    }
    const struct message *of = &proto_messages[m->t];
    take_fields(r, m, of);
    for (unsigned i = 0; i < of->fields_n && !r->err; i++) {
        r->name = of->fields[i].name;
        if (of->fields[i].required && !(m->has & of->fields[i].has))
            fail(r, ERR_INVALID, start, "is missing");
    }
    r->name = NULL;
}

int proto_bin_begin(struct proto_frame *f, const char *p, size_t n, struct proto_scratch *s,
                    struct err_ctx *ctx)
{
    s->len = 0;
    *f = (struct proto_frame){
        .p = p, .end = p + n, .start = p, .scratch = s, .codec = PROTO_BIN, .done = true};
    if (n > PROTO_FRAME_MAX)
        return err_set(ctx, ERR_LIMIT, "a frame of more than 4 MiB");
    if (!n) {
        f->start = NULL; /* so that the frame counts as given up */
        return err_set(ctx, ERR_TRUNCATED, "an empty frame");
    }
    f->done = false;
    return 0;
}

int proto_bin_next(struct proto_frame *f, struct msg *m, struct err_ctx *ctx)
{
    struct reader r = {.p = f->p, .end = f->end, .start = f->start, .scratch = f->scratch, .ctx = ctx};
    if (f->done)
        return f->p == f->end && f->start ? 0 : err_set(ctx, ERR_INVALID, "the frame was given up");
    if (f->count++ == PROTO_BATCH_MAX)
        fail(&r, ERR_LIMIT, r.p, "more than 50 messages in a frame");
    struct reader in = inner(&r);
    if (!in.err)
        take_message(&in, m);
    if (in.err || r.err) {
        f->done = true;
        f->p = f->start;
        return in.err ? in.err : r.err;
    }
    f->p = r.p;
    f->done = f->p == f->end;
    return 1;
}
