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
    TYPE_LIMITS
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
};

extern const struct message proto_messages[MSG_TYPE_COUNT];

/* The members of a LIMITS object. */
#define LIMITS_FIELDS(X)                                                                                     \
    X(body)                                                                                                  \
    X(batch)                                                                                                 \
    X(rate_per_s)                                                                                            \
    X(chats)

#endif
