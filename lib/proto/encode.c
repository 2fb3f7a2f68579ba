#include "proto/table_impl.h"

#include <string.h>

static void put_quoted_u64(struct buf *out, uint64_t v)
{
    buf_char(out, '"');
    buf_u64(out, v);
    buf_char(out, '"');
}

static void put_id(struct buf *out, const struct id *id)
{
    char text[ID_TEXT + 2];
    text[0] = text[ID_TEXT + 1] = '"';
    id_format(id, text + 1);
    buf_add(out, text, sizeof text);
}

static void put_claims(struct buf *out, const struct msg *m)
{
    buf_char(out, '[');
    for (uint32_t i = 0; i < m->resume_n; i++) {
        buf_str(out, i ? ",[\"" : "[\"");
        buf_u64(out, m->resume[i].chat);
        buf_str(out, "\",\"");
        buf_u64(out, m->resume[i].epoch);
        buf_str(out, "\",");
        buf_u64(out, m->resume[i].seq);
        buf_char(out, ']');
    }
    buf_char(out, ']');
}

static void put_users(struct buf *out, const struct msg *m)
{
    buf_char(out, '[');
    for (uint32_t i = 0; i < m->users_n; i++) {
        if (i)
            buf_char(out, ',');
        put_quoted_u64(out, m->users[i]);
    }
    buf_char(out, ']');
}

static void put_notices(struct buf *out, const struct msg *m)
{
    buf_char(out, '[');
    for (uint32_t i = 0; i < m->notices_n; i++) {
        if (i)
            buf_char(out, ',');
        buf_json_str(out, m->notices[i].p, m->notices[i].n);
    }
    buf_char(out, ']');
}

static void put_hash(struct buf *out, const uint8_t *p, uint8_t n)
{
    char text[BASE64_LEN(PROTO_TAG_BYTES) + 2];
    BUG_ON(n > PROTO_TAG_BYTES);
    text[0] = '"';
    size_t len = base64url_encode(text + 1, p, n);
    text[len + 1] = '"';
    buf_add(out, text, len + 2);
}

static void put_text(struct buf *out, struct slice s)
{
    buf_json_str(out, s.n ? s.p : "", s.n);
}

static void put_ranges(struct buf *out, const struct msg *m)
{
    for (uint32_t i = 0; i < m->ranges_n; i++) {
        buf_str(out, i ? ",[" : "[");
        buf_u64(out, m->ranges[i].from);
        buf_char(out, ',');
        buf_u64(out, m->ranges[i].to);
        buf_char(out, ']');
    }
}

static void put_reports(struct buf *out, const struct msg *m)
{
    for (uint32_t i = 0; i < m->reports_n; i++) {
        const struct msg_report *r = &m->reports[i];
        buf_str(out, i ? ",[" : "[");
        put_quoted_u64(out, r->chat);
        buf_char(out, ',');
        put_quoted_u64(out, r->epoch);
        buf_char(out, ',');
        buf_u64(out, r->head);
        buf_char(out, ',');
        put_hash(out, r->hash, r->hash_len);
        buf_char(out, ']');
    }
}

static void put_refused(struct buf *out, const struct msg *m)
{
    for (uint32_t i = 0; i < m->refused_n; i++) {
        buf_str(out, i ? ",[" : "[");
        put_id(out, &m->refused[i].id);
        buf_char(out, ',');
        put_text(out, m->refused[i].code);
        buf_char(out, ']');
    }
}

static void put_entries(struct buf *out, const struct msg *m)
{
    for (uint32_t i = 0; i < m->entries_n; i++) {
        const struct msg_entry *e = &m->entries[i];
        buf_str(out, i ? ",[" : "[");
        put_quoted_u64(out, e->epoch);
        buf_char(out, ',');
        buf_u64(out, e->seq);
        buf_char(out, ',');
        put_id(out, &e->id);
        buf_char(out, ',');
        put_quoted_u64(out, e->from);
        buf_char(out, ',');
        buf_u64(out, e->ts);
        buf_char(out, ',');
        put_text(out, e->kind);
        buf_char(out, ',');
        put_text(out, e->body);
        buf_char(out, ',');
        put_hash(out, e->tag, e->tag_len);
        buf_char(out, ']');
    }
}

static void put_counts(struct buf *out, const struct msg *m)
{
    for (uint32_t i = 0; i < m->counts_n; i++) {
        const struct msg_count *c = &m->counts[i];
        const uint64_t row[] = {c->from, c->to, c->delivered, c->read, c->of};
        for (size_t k = 0; k < sizeof row / sizeof *row; k++) {
            buf_str(out, k ? "," : i ? ",[" : "[");
            buf_u64(out, row[k]);
        }
        buf_char(out, ']');
    }
}

/* The lists of a recovery, and of receipts. */
static void put_rows(struct buf *out, enum field_type type, const struct msg *m)
{
    buf_char(out, '[');
    if (type == TYPE_RANGES)
        put_ranges(out, m);
    else if (type == TYPE_REPORTS)
        put_reports(out, m);
    else if (type == TYPE_REFUSED)
        put_refused(out, m);
    else if (type == TYPE_COUNTS)
        put_counts(out, m);
    else
        put_entries(out, m);
    buf_char(out, ']');
}

static void put_limits(struct buf *out, const struct msg_limits *l)
{
    size_t start = out->len;
    buf_char(out, '{');
#define X(field)                                                                                             \
    buf_str(out, out->len - start > 1 ? ",\"" #field "\":" : "\"" #field "\":");                             \
    buf_u64(out, l->field);
    LIMITS_FIELDS(X)
#undef X
    buf_char(out, '}');
}

static bool is_empty(const struct field *f, const struct msg *m)
{
    static const struct id no_id = {0};
    static const struct msg_limits no_limits = {0};
    const void *from = (const char *)m + f->at;
    switch ((enum field_type)f->type) {
    case TYPE_U64S:
    case TYPE_INT:
        return *(const uint64_t *)from == 0;
    case TYPE_U32:
        return *(const uint32_t *)from == 0;
    case TYPE_ID:
        return id_equal(from, &no_id);
    case TYPE_STR:
        return ((const struct slice *)from)->n == 0;
    case TYPE_BYTES:
        return m->tag_len == 0;
    case TYPE_BOOL:
        return f->has != MSG_HAS(dup) && !*(const bool *)from;
    case TYPE_U64S_LIST:
        return m->users_n == 0;
    case TYPE_CLAIMS:
        return false;
    case TYPE_STR_LIST:
        return m->notices_n == 0;
    case TYPE_RANGES:
        return m->ranges_n == 0;
    case TYPE_REPORTS:
        return m->reports_n == 0;
    case TYPE_REFUSED:
        return m->refused_n == 0;
    case TYPE_ENTRIES:
        return m->entries_n == 0;
    case TYPE_COUNTS:
        return m->counts_n == 0;
    case TYPE_LIMITS:
        return memcmp(from, &no_limits, sizeof no_limits) == 0;
    }
    return true;
}

bool field_wanted(const struct field *f, const struct msg *m)
{
    return f->required || (m->has & f->has) || !is_empty(f, m);
}

static void put_field(struct buf *out, const struct field *f, const struct msg *m)
{
    const void *from = (const char *)m + f->at;
    const struct slice *text = from;
    buf_add(out, f->prefix, (size_t)f->name_n + 4);
    switch ((enum field_type)f->type) {
    case TYPE_U64S:
        put_quoted_u64(out, *(const uint64_t *)from);
        break;
    case TYPE_INT:
        buf_u64(out, *(const uint64_t *)from);
        break;
    case TYPE_U32:
        buf_u64(out, *(const uint32_t *)from);
        break;
    case TYPE_ID:
        put_id(out, from);
        break;
    case TYPE_STR:
        buf_json_str(out, text->n ? text->p : "", text->n);
        break;
    case TYPE_BYTES:
        put_hash(out, m->tag, m->tag_len);
        break;
    case TYPE_BOOL:
        buf_str(out, *(const bool *)from ? "true" : "false");
        break;
    case TYPE_U64S_LIST:
        put_users(out, m);
        break;
    case TYPE_CLAIMS:
        put_claims(out, m);
        break;
    case TYPE_STR_LIST:
        put_notices(out, m);
        break;
    case TYPE_LIMITS:
        put_limits(out, from);
        break;
    case TYPE_RANGES:
    case TYPE_REPORTS:
    case TYPE_REFUSED:
    case TYPE_ENTRIES:
    case TYPE_COUNTS:
        put_rows(out, (enum field_type)f->type, m);
        break;
    }
}

void proto_encode(struct buf *out, const struct msg *m)
{
    size_t start = out->len;
    BUG_ON(m->t <= MSG_NONE || m->t >= MSG_TYPE_COUNT);
    buf_str(out, "{\"t\":\"");
    buf_str(out, proto_messages[m->t].name);
    buf_char(out, '"');
    for (const struct field *f = proto_messages[m->t].fields; f->name; f++) {
        if (field_wanted(f, m))
            put_field(out, f, m);
    }
    buf_char(out, '}');
    if (out->failed)
        out->len = start; /* nothing of it, rather than half of it */
}
