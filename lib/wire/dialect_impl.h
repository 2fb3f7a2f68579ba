/* Inside the room: a dialect as it was read. */
#ifndef WIRE_DIALECT_IMPL_H
#define WIRE_DIALECT_IMPL_H

#include "wire/dialect.h"

enum dialect_framing { DIALECT_JSON = 1, DIALECT_LINES, DIALECT_SOCKET_IO }; /* 0: json */

struct dialect_when {
    char pointer[DIALECT_POINTER_MAX + 1], value[DIALECT_POINTER_MAX + 1];
    bool any;
};
struct dialect_entry {
    uint8_t from; /* 0 either, 1 client, 2 server */
    uint8_t role; /* enum chat_role */
    uint8_t whens;
    struct dialect_when when[DIALECT_WHEN_MAX];
    char t[DIALECT_POINTER_MAX + 1], id[DIALECT_POINTER_MAX + 1], chat[DIALECT_POINTER_MAX + 1],
        seq[DIALECT_POINTER_MAX + 1], sender[DIALECT_POINTER_MAX + 1], ack[DIALECT_POINTER_MAX + 1];
};

#define DIALECT_ROOM (256u << 10) /* for strings inside strings, of one call */

struct dialect {
    char name[64];
    uint8_t framing;
    uint32_t entries, room_used;
    struct dialect_entry entry[DIALECT_MESSAGES_MAX];
    char room[DIALECT_ROOM];
};

#endif
