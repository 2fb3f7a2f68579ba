/* Who is in which chat, and who is connected: users, chats, memberships, sessions and their positions. Plain
 * data in memory, derived from the chat logs; no behaviour of the protocol.
 *
 * Sizes: 16 B a membership in the chat plus 8 B at the user; a subscription (session x chat) 64 B. */
#ifndef CORE_REGISTRY_H
#define CORE_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/store.h"
#include "trace/trace.h"
#include "util/map.h"

enum member_role { MEMBER_PLAIN, MEMBER_ADMIN, MEMBER_INVITED };

struct member {
    uint64_t user;
    uint64_t from : 56; /* seq from which it holds */
    uint64_t role : 8;
};
_Static_assert(sizeof(struct member) == 16, "a membership is 16 bytes");

struct sub;
struct session;

struct chat {
    uint64_t id;
    uint64_t epoch;         /* of the last entry given a seq; 0: the chat does not exist (yet) */
    uint64_t epoch_durable; /* of the last entry committed */
    uint64_t head;          /* last seq given out */
    uint64_t durable;       /* last seq committed */
    uint64_t epoch_first;   /* first seq of the current epoch */
    struct member *members; /* sorted by user */
    struct sub **subs;      /* positions of the sessions online */
    uint32_t members_n, members_cap, subs_n, subs_cap;
    bool barrier; /* a membership entry is in the open or flying batch: later entries wait for the next */
};

struct user {
    uint64_t id;
    struct chat **chats; /* where the user is a member or invited */
    struct session *sessions;
    uint32_t chats_n, chats_cap, sessions_n;
    /* token bucket for sends: thousandths of a message, refilled by time */
    uint64_t bucket_milli, bucket_ns;
};

/* A session's position in a chat. `pushed`: everything up to here was handed to the connection; `acked`:
 * acknowledged. */
struct sub {
    struct session *session;
    struct chat *chat;
    uint64_t pushed, acked, read;
    struct sub *next_behind;                 /* in the session's queue of chats that need reading */
    uint32_t at;                             /* index in chat->subs */
    bool live;                               /* pushed everything durable: new entries go straight out */
    bool behind;                             /* is in that queue */
    uint32_t cursor_slot, cursor_generation; /* where its unsaved cursor stands (delivery.h) */
};

struct registry {
    struct map users, chats; /* id -> pointer */
    uint32_t members_max;    /* per chat */
    uint32_t chats_max;      /* per user */
};

void registry_init(struct registry *r, uint64_t seed);
void registry_release(struct registry *r);
struct chat *registry_chat(const struct registry *r, uint64_t id); /* NULL: none */
struct user *registry_user(const struct registry *r, uint64_t id);
/* Found or made; NULL: no memory. */
struct chat *registry_chat_make(struct registry *r, uint64_t id);
struct user *registry_user_make(struct registry *r, uint64_t id);

struct member *chat_member(const struct chat *c, uint64_t user); /* NULL: none; invited ones are found too */
bool chat_is_member(const struct chat *c, uint64_t user);        /* a member, not just invited */
/* Set or add. ERR_LIMIT past members_max or chats_max, ERR_NOMEM. */
int registry_member_set(struct registry *r, struct chat *c, uint64_t user, uint64_t from,
                        enum member_role role);
void registry_member_drop(struct registry *r, struct chat *c, uint64_t user);

/* Put a position into its chat's list of those online, or take it out. */
int chat_sub_add(struct chat *c, struct sub *s);
void chat_sub_drop(struct chat *c, struct sub *s);

#endif
