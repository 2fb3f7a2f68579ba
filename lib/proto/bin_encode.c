#include "proto/bin.h"
#include "proto/table_impl.h"

#include <string.h>

#define VARINT_MAX 10

static size_t varint(char *o, uint64_t v)
{
    size_t n = 0;
    while (v >= 0x80) {
        o[n++] = (char)(v | 0x80);
        v >>= 7;
    }
    o[n++] = (char)v;
    return n;
}

static void put_varint(struct buf *out, uint64_t v)
{
    char o[VARINT_MAX];
    buf_add(out, o, varint(o, v));
}

static void put_bytes(struct buf *out, const void *p, size_t n)
{
    put_varint(out, n);
    if (n)
        buf_add(out, p, n);
}

/* What lies in the buffer from `start` on gets its length in front. */
static void put_length_before(struct buf *out, size_t start)
{
    char o[VARINT_MAX];
    if (out->failed)
        return;
    size_t len = out->len - start, n = varint(o, len);
    if (!buf_reserve(out, n))
        return;
    memmove(out->data + start + n, out->data + start, len);
    memcpy(out->data + start, o, n);
    out->len += n;
}

static void put_entry(struct buf *out, const struct msg_entry *e)
{
    put_varint(out, e->epoch);
    put_varint(out, e->seq);
    buf_add(out, &e->id, ID_BYTES);
    put_varint(out, e->from);
    put_varint(out, e->ts);
    put_bytes(out, e->kind.p, e->kind.n);
    put_bytes(out, e->body.p, e->body.n);
    put_bytes(out, e->tag, e->tag_len);
}

static void put_list(struct buf *out, const struct field *f, const struct msg *m)
{
    size_t start = out->len;
    uint64_t epoch = 0;
    switch ((enum field_type)f->type) {
    case TYPE_U64S_LIST:
        for (uint32_t i = 0; i < m->users_n; i++)
            put_varint(out, m->users[i]);
        break;
    case TYPE_CLAIMS:
        for (uint32_t i = 0; i < m->resume_n; i++) {
            put_varint(out, m->resume[i].chat);
            put_varint(out, m->resume[i].epoch ^ epoch);
            put_varint(out, m->resume[i].seq);
            epoch = m->resume[i].epoch;
        }
        break;
    case TYPE_RANGES:
        for (uint32_t i = 0; i < m->ranges_n; i++) {
            put_varint(out, m->ranges[i].from);
            put_varint(out, m->ranges[i].to);
        }
        break;
    case TYPE_REPORTS:
        for (uint32_t i = 0; i < m->reports_n; i++) {
            put_varint(out, m->reports[i].chat);
            put_varint(out, m->reports[i].epoch);
            put_varint(out, m->reports[i].head);
            put_bytes(out, m->reports[i].hash, m->reports[i].hash_len);
        }
        break;
    case TYPE_REFUSED:
        for (uint32_t i = 0; i < m->refused_n; i++) {
            buf_add(out, &m->refused[i].id, ID_BYTES);
            put_bytes(out, m->refused[i].code.p, m->refused[i].code.n);
        }
        break;
    case TYPE_ENTRIES:
        for (uint32_t i = 0; i < m->entries_n; i++)
            put_entry(out, &m->entries[i]);
        break;
    case TYPE_COUNTS:
        for (uint32_t i = 0; i < m->counts_n; i++) {
            put_varint(out, m->counts[i].from);
            put_varint(out, m->counts[i].to);
            put_varint(out, m->counts[i].delivered);
            put_varint(out, m->counts[i].read);
            put_varint(out, m->counts[i].of);
        }
        break;
    case TYPE_STR_LIST:
        for (uint32_t i = 0; i < m->notices_n; i++)
            put_bytes(out, m->notices[i].p, m->notices[i].n);
        break;
    default:
#define X(field) put_varint(out, m->limits.field);
        LIMITS_FIELDS(X)
#undef X
    }
    put_length_before(out, start);
}

static void put_field(struct buf *out, const struct field *f, unsigned number, const struct msg *m)
{
    const void *from = (const char *)m + f->at;
    put_varint(out, number << 2 | field_shape((enum field_type)f->type));
    switch ((enum field_type)f->type) {
    case TYPE_U64S:
    case TYPE_INT:
        put_varint(out, *(const uint64_t *)from);
        break;
    case TYPE_U32:
        put_varint(out, *(const uint32_t *)from);
        break;
    case TYPE_BOOL:
        put_varint(out, *(const bool *)from);
        break;
    case TYPE_ID:
        buf_add(out, from, ID_BYTES);
        break;
    case TYPE_STR:
        put_bytes(out, ((const struct slice *)from)->p, ((const struct slice *)from)->n);
        break;
    case TYPE_BYTES:
        BUG_ON(m->tag_len > PROTO_TAG_BYTES);
        put_bytes(out, m->tag, m->tag_len);
        break;
    default:
        put_list(out, f, m);
    }
}

void proto_bin_encode(struct buf *out, const struct msg *m)
{
    size_t start = out->len;
    unsigned number = 0;
    BUG_ON(m->t <= MSG_NONE || m->t >= MSG_TYPE_COUNT);
    put_varint(out, (uint64_t)m->t);
    for (const struct field *f = proto_messages[m->t].fields; f->name; f++) {
        number++;
        if (field_wanted(f, m))
            put_field(out, f, number, m);
    }
    put_length_before(out, start);
    if (out->failed)
        out->len = start; /* nothing of it, rather than half of it */
}
