/* A script: who says what, loses which connection and comes back when, in place of arrivals, habits and
 * faults. It is how an incident is re-enacted (load/replay.h makes one of a trace).
 *
 * Before it begins all phones connect and the chats are made; a chat that the server has already is taken as
 * it is. Behind its last step all who are away come back, and it is drained as ever. Must not know: where it
 * came from. */
#ifndef LOAD_SCRIPT_H
#define LOAD_SCRIPT_H

#include "proto/proto.h"
#include "trace/trace.h"

enum load_act {
    LOAD_SAY,    /* a person says `body`; a connection or none, their phone sees to it */
    LOAD_PRESS,  /* they press "send again" on what they said as `intent`, unless it has its tick */
    LOAD_FREEZE, /* from here on nothing passes on this connection, though nobody knows yet */
    LOAD_LEAVE,  /* it ends for `reason`; the phone stays without until LOAD_RETURN */
    LOAD_RETURN,
};

struct load_step {
    uint64_t at_ns; /* since the load began */
    uint32_t phone, chat;
    uint8_t act, reason;
    uint64_t intent; /* > 0; the same number: the same thing said */
    struct id id;    /* in the source */
    struct slice body;
};

struct load_script_phone {
    uint64_t user;
    uint32_t device;
    uint16_t population;
};
struct load_script_chat {
    uint64_t number;
    uint32_t first, members; /* places in `member` */
};

/* All of it is the owner's and outlives the load. */
struct load_script {
    const struct load_script_phone *phone; /* those of a population stand together, in their order */
    const struct load_script_chat *chat;   /* rising numbers */
    const uint32_t *member;                /* phones; each at most once in a chat */
    const struct load_step *step;          /* rising in time */
    uint32_t phones, chats, members, steps;
    bool same_ids; /* say it under the id of the source */
    /* May be NULL: what the source called `source` goes by `here` in this run; may come more than once. */
    void (*named)(void *arg, const struct id *source, const struct id *here);
    void *arg;
};

#endif
