#include "core/outbox.h"

#include <stdlib.h>
#include <string.h>

#include "util/err.h"
#include "util/map.h"

struct outbox_entry *outbox_add(struct outbox *o, const struct id *id, uint64_t chat, uint64_t intent,
                                struct slice kind, struct slice body)
{
    if (kind.n > PROTO_KIND_MAX || body.n > PROTO_BODY_MAX)
        return NULL;
    struct outbox_entry *e = calloc(1, sizeof *e + kind.n + body.n);
    if (!e)
        return NULL;
    e->id = *id;
    e->chat = chat;
    e->intent = intent;
    e->kind_len = (uint8_t)kind.n;
    e->body_len = (uint32_t)body.n;
    if (kind.n)
        memcpy(e->text, kind.p, kind.n);
    if (body.n)
        memcpy(e->text + kind.n, body.p, body.n);
    struct outbox_entry **at = &o->first;
    while (*at)
        at = &(*at)->next;
    *at = e;
    o->count++;
    o->bytes += e->body_len;
    return e;
}

struct outbox_entry *outbox_find(const struct outbox *o, const struct id *id)
{
    for (struct outbox_entry *e = o->first; e; e = e->next)
        if (id_equal(&e->id, id))
            return e;
    return NULL;
}

void outbox_remove(struct outbox *o, struct outbox_entry *e)
{
    struct outbox_entry **at = &o->first;
    while (*at && *at != e)
        at = &(*at)->next;
    BUG_ON(!*at);
    *at = e->next;
    o->count--;
    o->bytes -= e->body_len;
    free(e);
}

void outbox_clear(struct outbox *o)
{
    while (o->first)
        outbox_remove(o, o->first);
}

/* A row, little-endian: u32 magic, u32 length of all, u8 op, u8 kind length, u16 zero, u32 device, u64 user,
 * u64 chat, u64 intent, id, kind, body, u64 check (a hash of what precedes). */
#define ROW_MAGIC 0x786f626fu /* "obox" */
#define ROW_HEAD  56u
#define ROW_CHECK 8u
#define ROW_SEED  0x6f7574626f78ull

static void put(char *p, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        p[i] = (char)(v >> (8 * i));
}

static uint64_t get(const char *p, int bytes)
{
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++)
        v |= (uint64_t)(uint8_t)p[i] << (8 * i);
    return v;
}

void outbox_row_encode(struct buf *out, const struct outbox_row *row)
{
    size_t n = ROW_HEAD + row->kind.n + row->body.n + ROW_CHECK;
    char *p = buf_reserve(out, n);
    if (!p)
        return;
    memset(p, 0, ROW_HEAD);
    put(p, ROW_MAGIC, 4);
    put(p + 4, n, 4);
    put(p + 8, row->op, 1);
    put(p + 9, row->kind.n, 1);
    put(p + 12, row->device, 4);
    put(p + 16, row->user, 8);
    put(p + 24, row->chat, 8);
    put(p + 32, row->intent, 8);
    memcpy(p + 40, &row->id, ID_BYTES);
    if (row->kind.n)
        memcpy(p + ROW_HEAD, row->kind.p, row->kind.n);
    if (row->body.n)
        memcpy(p + ROW_HEAD + row->kind.n, row->body.p, row->body.n);
    put(p + n - ROW_CHECK, hash_bytes(p, n - ROW_CHECK, ROW_SEED), 8);
    out->len += n;
}

long outbox_row_decode(const char *p, size_t n, struct outbox_row *row)
{
    if (n < ROW_HEAD + ROW_CHECK)
        return ERR_TRUNCATED;
    size_t len = (size_t)get(p + 4, 4), kind = (uint8_t)p[9];
    if (get(p, 4) != ROW_MAGIC || len < ROW_HEAD + ROW_CHECK + kind || kind > PROTO_KIND_MAX ||
        len > ROW_HEAD + ROW_CHECK + PROTO_KIND_MAX + PROTO_BODY_MAX)
        return ERR_CORRUPT;
    if (len > n)
        return ERR_TRUNCATED;
    uint64_t op = get(p + 8, 1);
    if (get(p + len - ROW_CHECK, 8) != hash_bytes(p, len - ROW_CHECK, ROW_SEED) ||
        (op != OUTBOX_PUT && op != OUTBOX_FORGET))
        return ERR_CORRUPT;
    *row = (struct outbox_row){.op = (enum outbox_op)op,
                               .device = (uint32_t)get(p + 12, 4),
                               .user = get(p + 16, 8),
                               .chat = get(p + 24, 8),
                               .intent = get(p + 32, 8),
                               .kind = {p + ROW_HEAD, kind},
                               .body = {p + ROW_HEAD + kind, len - ROW_HEAD - ROW_CHECK - kind}};
    memcpy(&row->id, p + 40, ID_BYTES);
    return (long)len;
}
