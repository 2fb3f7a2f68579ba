/* What nodes say to each other, byte by byte. A datagram: version u8, from u16, incarnation u64, then records
 * {type u8, length u32, body}. Numbers are little-endian and of fixed size, texts have a u32 before them; all
 * nodes of a cluster run one version of it. The reader's error is sticky: read all, check once. */
#ifndef NODE_NODE_WIRE_H
#define NODE_NODE_WIRE_H

#include "proto/proto.h"
#include "store/store.h"
#include "util/buf.h"

#define WIRE_VERSION 2u
#define WIRE_HEADER  11u

enum wire_record {
    WIRE_BEAT = 1, /* member version, store epoch */
    WIRE_ENTRY,    /* origin node and connection, entry: a chat's next entry */
    WIRE_MEMBERS,  /* version, chat, its head, users added: to everybody */
    WIRE_HEAD,     /* chat, epoch, seq */
    WIRE_INTEREST, /* n, {chat, applied seq}: members of these are online here */
    WIRE_DROP,     /* chat: none are any more */
    WIRE_RECEIPTS, /* chat, version, n, lines that changed: to who asked within the last half minute */
    WIRE_CALL,     /* id, attempt, what, body */
    WIRE_REPLY,    /* id, body */
};

enum wire_call {
    CALL_REQUEST = 1, /* connection, user, message: what a client asked about a chat */
    CALL_MEMBERS,     /* device (UINT64_MAX: no cursors), n, users: in which of your chats are they? */
    CALL_LOG,         /* a page of a chat, for a position or a `sync` */
    CALL_FILL,        /* the same, for the node itself, which has seen a hole */
    CALL_HISTORY,     /* the same, if this user is a member */
    CALL_CURSORS,     /* n, cursors: of your chats' members, to be kept */
    CALL_RECEIPTS, /* chat, version, user, n, seqs: who has got and read how much, and which are the user's */
    CALL_READERS,  /* chat, user, seq, after, limit: a page of GET /receipts */
};

enum wire_answer { ANSWER_ACCEPTED = 1, ANSWER_DONE, ANSWER_REFUSED };

struct wire_reader {
    const char *p;
    size_t left;
    bool failed;
};

static inline const char *wire_bytes(struct wire_reader *r, size_t n)
{
    if (r->failed || r->left < n) {
        r->failed = true;
        r->left = 0;
        return NULL;
    }
    const char *p = r->p;
    r->p += n;
    r->left -= n;
    return p;
}
static inline uint64_t wire_number(struct wire_reader *r, size_t n)
{
    const char *p = wire_bytes(r, n);
    uint64_t v = 0;
    for (size_t i = n; p && i--;)
        v = v << 8 | (uint8_t)p[i];
    return v;
}
static inline uint64_t wire_u64(struct wire_reader *r)
{
    return wire_number(r, 8);
}
static inline uint32_t wire_u32(struct wire_reader *r)
{
    return (uint32_t)wire_number(r, 4);
}
static inline uint8_t wire_u8(struct wire_reader *r)
{
    return (uint8_t)wire_number(r, 1);
}
/* A count of things of at least `size` bytes each: never more than there can be. */
static inline uint32_t wire_count(struct wire_reader *r, size_t size)
{
    uint32_t n = wire_u32(r);
    if ((uint64_t)n * size > r->left) {
        r->failed = true;
        r->left = 0;
        return 0;
    }
    return n;
}
static inline void wire_copy(struct wire_reader *r, void *out, size_t n)
{
    const char *p = wire_bytes(r, n);
    if (p)
        memcpy(out, p, n);
    else
        memset(out, 0, n);
}
static inline struct slice wire_text(struct wire_reader *r)
{
    uint32_t n = wire_u32(r);
    const char *p = wire_bytes(r, n);
    return (struct slice){p, p ? n : 0};
}

static inline void put_number(struct buf *b, uint64_t v, size_t n)
{
    char bytes[8];
    for (size_t i = 0; i < n; i++)
        bytes[i] = (char)(v >> (8 * i));
    buf_add(b, bytes, n);
}
static inline void put_u64(struct buf *b, uint64_t v)
{
    put_number(b, v, 8);
}
static inline void put_u32(struct buf *b, uint32_t v)
{
    put_number(b, v, 4);
}
static inline void put_u8(struct buf *b, uint8_t v)
{
    buf_char(b, (char)v);
}
static inline void put_text(struct buf *b, const char *p, size_t n)
{
    put_u32(b, (uint32_t)n);
    buf_add(b, p, n);
}

void put_entry(struct buf *b, const struct entry *e);
/* Kind and body point into the datagram. */
void wire_entry(struct wire_reader *r, struct entry *e);
#define WIRE_ENTRY_LEAST 113u
void put_cursor(struct buf *b, const struct cursor *c);
void wire_cursor(struct wire_reader *r, struct cursor *c);
#define WIRE_CURSOR_BYTES 44u
struct receipt_member;
void put_receipt(struct buf *b, const struct receipt_member *m);
void wire_receipt(struct wire_reader *r, struct receipt_member *m);
#define WIRE_RECEIPT_BYTES 32u

#endif
