/* messages.def as data, for decoder and encoder. Inside of proto only. */
#ifndef PROTO_TABLE_IMPL_H
#define PROTO_TABLE_IMPL_H

#include "proto/proto.h"

enum field_type {
    TYPE_U64S,
    TYPE_INT,
    TYPE_U32,
    TYPE_ID,
    TYPE_STR,
    TYPE_BYTES,
    TYPE_BOOL,
    TYPE_U64S_LIST,
    TYPE_CLAIMS,
    TYPE_STR_LIST,
    TYPE_LIMITS,
    TYPE_RANGES,
    TYPE_REPORTS,
    TYPE_REFUSED,
    TYPE_ENTRIES,
    TYPE_COUNTS
};

struct field {
    const char *name, *prefix; /* prefix: ,"name": */
    uint8_t name_n, type, required;
    uint16_t at; /* offset in struct msg */
    uint64_t has;
};

struct message {
    const char *name;
    const struct field *fields; /* ends with .name = NULL */
    bool from_client;
    uint8_t fields_n;
};

extern const struct message proto_messages[MSG_TYPE_COUNT];

/* Is it written? Required, asked for by `has`, or not empty. */
bool field_wanted(const struct field *f, const struct msg *m);

/* How the binary codec lays a value down (bin.h). */
static inline unsigned field_shape(enum field_type t)
{
    return t == TYPE_ID ? 1 : t == TYPE_U64S || t == TYPE_INT || t == TYPE_U32 || t == TYPE_BOOL ? 0 : 2;
}

/* The members of a LIMITS object. Only ever appended to: their order is the binary codec's. */
#define LIMITS_FIELDS(X)                                                                                     \
    X(body)                                                                                                  \
    X(batch)                                                                                                 \
    X(rate_per_s)                                                                                            \
    X(chats)

#endif
