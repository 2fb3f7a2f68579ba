/* chat.v1 messages: one flat struct, its two codecs, and frames that hold up to 50 messages. JSON (chat.v1):
 * one object or an array of them; the compact binary form (chat.v1.bin) is described in bin.h.
 *
 * Everything comes from messages.def. Decoding allocates nothing: strings point into the frame, or, when they
 * held escapes, into a scratch area that the caller gives. Limits: frame PROTO_FRAME_MAX, body
 * PROTO_BODY_MAX, claims PROTO_CLAIMS_MAX, users PROTO_USERS_MAX; beyond them ERR_LIMIT. Text must be valid
 * UTF-8 (RFC 3629), JSON is RFC 8259 (nesting <= 8). Errors are ERR_INVALID, ERR_TRUNCATED, ERR_LIMIT,
 * ERR_RANGE with a sentence naming key and offset.
 *
 * Must not know: sockets, sessions, stores. */
#ifndef PROTO_PROTO_H
#define PROTO_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/buf.h"
#include "util/err.h"
#include "util/id.h"

#define PROTO_SUBPROTOCOL     "chat.v1"
#define PROTO_SUBPROTOCOL_BIN "chat.v1.bin"
#define PROTO_FRAME_MAX       (4u << 20)
#define PROTO_BODY_MAX        (64u << 10)
#define PROTO_KIND_MAX        31u
#define PROTO_BATCH_MAX       50u   /* messages in one frame */
#define PROTO_CLAIMS_MAX      4096u /* chats in hello.resume / welcome.chats */
#define PROTO_USERS_MAX       1024u
#define PROTO_NOTICES_MAX     64u
#define PROTO_RANGES_MAX      1024u /* in one ask */
#define PROTO_ENTRIES_MAX     100u  /* copies in one offer, and what is refused of it */
#define PROTO_COUNTS_MAX      64u   /* in one receipt */
#define PROTO_TAG_BYTES       16u
#define PROTO_SEQ_MAX         ((1ull << 53) - 1)

enum msg_type {
    MSG_NONE,
#define M(NAME, text, dir) MSG_##NAME,
#define F(...)
#define END
#include "proto/messages.def"
#undef M
#undef F
#undef END
    MSG_TYPE_COUNT
};

/* A length and a pointer into someone else's memory; p may be NULL when n is 0. */
struct slice {
    const char *p;
    size_t n;
};
#define SLICE(literal) ((struct slice){(literal), sizeof(literal) - 1})
struct slice slice_of(const char *s); /* from a NUL-terminated string; NULL gives an empty slice */
bool slice_is(struct slice s, const char *text);

struct claim {
    uint64_t chat, epoch, seq;
};

struct msg_range {
    uint64_t from, to; /* both included */
};
struct msg_count {
    uint64_t from, to; /* both included */
    uint32_t delivered, read, of;
};
struct msg_report {
    uint64_t chat, epoch, head;
    uint8_t hash_len;
    uint8_t hash[PROTO_TAG_BYTES]; /* the tag of that entry */
};
struct msg_refused {
    struct id id;
    struct slice code;
};
/* A copy of one entry of a chat. */
struct msg_entry {
    uint64_t epoch, seq, from, ts;
    struct id id;
    struct slice kind, body;
    uint8_t tag_len;
    uint8_t tag[PROTO_TAG_BYTES];
};

struct msg_limits {
    uint32_t body, batch, rate_per_s, chats;
};

/* The members that messages.def may name; a field there without an entry here does not compile. */
#define MSG_FIELDS(X)                                                                                        \
    X(token)                                                                                                 \
    X(device)                                                                                                \
    X(net)                                                                                                   \
    X(resume)                                                                                                \
    X(id)                                                                                                    \
    X(chat)                                                                                                  \
    X(kind)                                                                                                  \
    X(body)                                                                                                  \
    X(seq)                                                                                                   \
    X(away)                                                                                                  \
    X(after)                                                                                                 \
    X(limit)                                                                                                 \
    X(since)                                                                                                 \
    X(users)                                                                                                 \
    X(user)                                                                                                  \
    X(session)                                                                                               \
    X(epoch)                                                                                                 \
    X(ts)                                                                                                    \
    X(beat_s)                                                                                                \
    X(limits)                                                                                                \
    X(notices)                                                                                               \
    X(tag)                                                                                                   \
    X(dup)                                                                                                   \
    X(from)                                                                                                  \
    X(re)                                                                                                    \
    X(to)                                                                                                    \
    X(more)                                                                                                  \
    X(gap_from)                                                                                              \
    X(reason)                                                                                                \
    X(code)                                                                                                  \
    X(text)                                                                                                  \
    X(retry_ms)                                                                                              \
    X(reconnect)                                                                                             \
    X(ranges)                                                                                                \
    X(reports)                                                                                               \
    X(refused)                                                                                               \
    X(entries)                                                                                               \
    X(ok)                                                                                                    \
    X(delivered)                                                                                             \
    X(read)                                                                                                  \
    X(counts)
enum msg_field {
#define X(field) MSG_FIELD_##field,
    MSG_FIELDS(X)
#undef X
};
#define MSG_HAS(field) (1ull << MSG_FIELD_##field)

/* All fields of all messages. Those a type does not have are zero. `has` has bit MSG_HAS(x) set for fields
 * that were present (decode), or that shall be written though they are zero (encode). */
struct msg {
    enum msg_type t;
    uint64_t has; /* MSG_HAS(chat) | ... */
    uint64_t chat, user, epoch, from;
    uint64_t seq, after, since, ts, to, gap_from, delivered, read;
    struct id id;
    uint32_t device, limit, beat_s, retry_ms, ok;
    bool dup, away, reconnect, more;
    uint8_t tag_len;
    uint8_t tag[PROTO_TAG_BYTES];
    struct slice token, net, kind, body, session, reason, code, text, re;
    struct msg_limits limits;
    /* lists: on decode they live in the scratch; on encode they are the caller's */
    struct claim *resume;
    uint64_t *users;
    struct slice *notices;
    struct msg_range *ranges;
    struct msg_report *reports;
    struct msg_refused *refused;
    struct msg_entry *entries;
    struct msg_count *counts;
    uint32_t resume_n, users_n, notices_n, ranges_n, reports_n, refused_n, entries_n, counts_n;
};

const char *msg_type_name(enum msg_type t); /* "hello"; "" for MSG_NONE */
bool msg_from_client(enum msg_type t);      /* a client may send it */

/* Scratch for one frame: give it once, reset by proto_frame_begin. PROTO_SCRATCH suffices for every frame
 * that holds one list; a frame of many full lists may get ERR_LIMIT. A smaller scratch only makes that come
 * earlier.
 */
#define PROTO_SCRATCH (PROTO_FRAME_MAX + PROTO_CLAIMS_MAX * sizeof(struct claim) + PROTO_USERS_MAX * 8)
struct proto_scratch {
    char *data;
    size_t cap, len;
};

/* Walk a text frame. begin checks size and that it starts as one object or a non-empty array; next returns 1
 * with *m filled, 0 at the end, or an error (after which the frame is spent: it goes on returning an error).
 * The 51st object of an array is ERR_LIMIT. Slices stay good until the frame or scratch is reused. A message
 * whose "t" is unknown yields t = MSG_NONE with m->code = the text of t, so that the caller can answer
 * unknown_type. Numbers in decimal strings have no sign and no leading zero; null stands for no field. */
enum proto_codec { PROTO_JSON, PROTO_BIN, PROTO_CODECS };
struct proto_frame {
    const char *p, *end, *start;
    struct proto_scratch *scratch;
    uint32_t count;
    uint8_t codec;
    bool array, done;
};
int proto_frame_begin(struct proto_frame *f, const char *p, size_t n, struct proto_scratch *s,
                      struct err_ctx *ctx);
int proto_frame_begin_as(struct proto_frame *f, enum proto_codec codec, const char *p, size_t n,
                         struct proto_scratch *s, struct err_ctx *ctx);
int proto_frame_next(struct proto_frame *f, struct msg *m, struct err_ctx *ctx);

/* Append one JSON object. Optional fields are written when non-zero / non-empty, or when `has` asks for it
 * (dup and the lists of claims always). Strings must be valid UTF-8. No limit but the buffer's own is
 * checked. */
void proto_encode(struct buf *out, const struct msg *m);
void proto_encode_as(struct buf *out, enum proto_codec codec, const struct msg *m);

/* Error and close codes (errors.def). */
enum proto_error {
#define P(NAME, code, retry, text) PROTO_##NAME,
#include "proto/errors.def"
#undef P
    PROTO_ERROR_COUNT
};
enum close_code {
#define CLOSE(NAME, number, text) CLOSE_##NAME = number,
#include "proto/errors.def"
#undef CLOSE
};
const char *proto_error_code(enum proto_error e); /* "not_member" */
const char *proto_error_text(enum proto_error e);
bool proto_error_retryable(enum proto_error e);
const char *close_code_text(int code); /* "" for codes not ours */
static inline bool close_code_terminal(int code)
{
    return code >= 4100 && code < 4200;
}

#endif
