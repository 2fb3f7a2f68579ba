#include "node/node_wire.h"

#include "core/receipts.h"

void put_entry(struct buf *b, const struct entry *e)
{
    put_u64(b, e->chat);
    put_u64(b, e->epoch);
    put_u64(b, e->seq);
    put_u64(b, e->sender);
    put_u64(b, e->ts_us);
    put_u64(b, e->key_id);
    buf_add(b, &e->id, sizeof e->id);
    put_u8(b, e->op);
    buf_add(b, e->tag, sizeof e->tag);
    buf_add(b, e->content, sizeof e->content);
    put_text(b, e->kind, e->kind_len);
    put_text(b, e->body, e->body_len);
}

void wire_entry(struct wire_reader *r, struct entry *e)
{
    *e = (struct entry){0};
    e->chat = wire_u64(r);
    e->epoch = wire_u64(r);
    e->seq = wire_u64(r);
    e->sender = wire_u64(r);
    e->ts_us = wire_u64(r);
    e->key_id = wire_u64(r);
    wire_copy(r, &e->id, sizeof e->id);
    e->op = wire_u8(r);
    wire_copy(r, e->tag, sizeof e->tag);
    wire_copy(r, e->content, sizeof e->content);
    struct slice kind = wire_text(r), body = wire_text(r);
    if (kind.n > UINT8_MAX || e->op > ENTRY_DELETE)
        r->failed = true;
    e->kind = kind.p;
    e->kind_len = (uint8_t)kind.n;
    e->body = body.p;
    e->body_len = (uint32_t)body.n;
}

void put_cursor(struct buf *b, const struct cursor *c)
{
    put_u64(b, c->chat);
    put_u64(b, c->user);
    put_u32(b, c->device);
    put_u64(b, c->epoch);
    put_u64(b, c->delivered);
    put_u64(b, c->read);
}

void wire_cursor(struct wire_reader *r, struct cursor *c)
{
    *c = (struct cursor){0};
    c->chat = wire_u64(r);
    c->user = wire_u64(r);
    c->device = (uint32_t)wire_u32(r);
    c->epoch = wire_u64(r);
    c->delivered = wire_u64(r);
    c->read = wire_u64(r);
}

void put_receipt(struct buf *b, const struct receipt_member *m)
{
    put_u64(b, m->user);
    put_u64(b, m->from);
    put_u64(b, m->delivered);
    put_u64(b, m->read);
}

void wire_receipt(struct wire_reader *r, struct receipt_member *m)
{
    *m = (struct receipt_member){.user = wire_u64(r)};
    m->from = wire_u64(r) & (UINT64_MAX >> 1);
    m->delivered = wire_u64(r);
    m->read = wire_u64(r);
}
