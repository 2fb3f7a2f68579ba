/* Who is in which chat, and who is connected: users, chats, memberships, sessions and their positions. Plain
 * data in memory, derived from the chat logs; no behaviour of the protocol.
 *
 * Memory is designed here, since ten million of them fit into one machine: objects lie in pools (util/slab.h)
 * and name each other by 32-bit numbers. Sizes are asserted below; lib/README.md adds them up. Pointers stay
 * good until the object is dropped. */
#ifndef CORE_REGISTRY_H
#define CORE_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/store.h"
#include "trace/trace.h"
#include "util/slab.h"

#define REGISTRY_MAX 100000000u /* users, chats, sessions, positions: each */

enum member_role { MEMBER_PLAIN, MEMBER_ADMIN, MEMBER_INVITED };

/* Packed: a node of many groups consists of these, and with the chat's own share they are to stay under 16
 * bytes. A seq has 53 bits (PROTO_SEQ_MAX). */
struct __attribute__((packed)) member {
    uint64_t user;
    uint64_t from : 53; /* seq from which it holds */
    uint64_t role : 3;
};
_Static_assert(sizeof(struct member) == 15, "a membership is 15 bytes");

struct chat {
    uint64_t id;
    uint64_t epoch;         /* of the last entry given a seq; 0: the chat does not exist (yet) */
    uint64_t epoch_durable; /* of the last entry committed */
    uint64_t head;          /* last seq given out */
    uint64_t durable;       /* last seq committed */
    uint64_t epoch_first;   /* first seq of the current epoch */
    struct member *members; /* sorted by user */
    uint32_t *subs;         /* positions of the sessions online, by number */
    uint32_t members_n, members_cap, subs_n, subs_cap;
    bool barrier; /* a membership entry is in the open or flying batch: later entries wait for the next */
    bool watched; /* somebody is told its receipts (receipts.h) */
};
_Static_assert(sizeof(struct chat) <= 88, "a chat");

struct user {
    uint64_t id;
    union {
        uint32_t *many; /* chats_cap > 0 */
        uint32_t one;   /* numbers of the chats where the user is a member or invited */
    } chats;
    uint16_t chats_n, chats_cap;
    uint32_t sessions; /* the first, 0: none */
    /* token bucket for sends: thousandths of a message, refilled by time (ms, 0: never used) */
    uint32_t bucket_milli, bucket_ms;
};
_Static_assert(sizeof(struct user) == 32, "a user");

/* A session's position in a chat. `pushed`: everything up to here was handed to the connection; `acked`:
 * acknowledged. */
struct sub {
    uint64_t pushed : 55;
    uint64_t confirmed : 1; /* `acked` was said on this connection: it goes into the store */
    uint64_t passive : 1;   /* is told the head only: its device does not show the chat */
    uint64_t live : 1;      /* pushed everything durable: new entries go straight out */
    uint64_t behind : 1;    /* is in the session's queue of chats that need reading */
    uint64_t unsaved : 1;   /* its cursor stands in the list of those to be saved (delivery.h) */
    uint64_t acked, read;
    uint32_t session, chat;
    uint32_t next;        /* of the session's positions */
    uint32_t next_behind; /* in that queue, a circle */
    uint32_t at;          /* index in chat->subs */
};
_Static_assert(sizeof(struct sub) == 48, "a position");

struct session;

/* Numbers by id: open addressing over a pool whose objects begin with their id. */
struct id_index {
    uint32_t *at;
    uint32_t cap, count;
    uint64_t seed;
};

struct registry {
    struct slab users, chats, subs, sessions, extras;
    struct id_index user_index, chat_index;
    uint32_t members_max; /* per chat */
    uint32_t chats_max;   /* per user; at most 65,535 */
};

void registry_init(struct registry *r, uint64_t seed);
void registry_release(struct registry *r);
struct chat *registry_chat(const struct registry *r, uint64_t id); /* NULL: none */
struct user *registry_user(const struct registry *r, uint64_t id);
/* Found or made; NULL: no memory. */
struct chat *registry_chat_make(struct registry *r, uint64_t id);
struct user *registry_user_make(struct registry *r, uint64_t id);
static inline struct chat *registry_user_chat(const struct registry *r, const struct user *u, uint32_t i)
{
    return slab_at(&r->chats, u->chats_cap ? u->chats.many[i] : u->chats.one);
}

struct member *chat_member(const struct chat *c, uint64_t user); /* NULL: none; invited ones are found too */
bool chat_is_member(const struct chat *c, uint64_t user);        /* a member, not just invited */
/* Room for so many without a spare byte; also trims. It is only a hint. */
void registry_members_reserve(struct chat *c, uint32_t n);
/* After loading: give back what the lists have to spare. */
void registry_trim(struct registry *r);
/* Set or add. ERR_LIMIT past members_max or chats_max, ERR_NOMEM. */
int registry_member_set(struct registry *r, struct chat *c, uint64_t user, uint64_t from,
                        enum member_role role);
void registry_member_drop(struct registry *r, struct chat *c, uint64_t user);

/* Put a position into its chat's list of those online, or take it out. */
int chat_sub_add(struct registry *r, struct chat *c, struct sub *s);
void chat_sub_drop(struct registry *r, struct chat *c, struct sub *s);

#endif
