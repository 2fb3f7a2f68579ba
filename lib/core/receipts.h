/* Who has got and read how much of a chat, as far as somebody watches it: per chat one line a member (the
 * maximum over the devices' cursors), and who is to be told. Plain data; reading the store, asking other
 * nodes and sending are the node's.
 *
 * Nothing is kept by message: a cursor says it of every seq up to it, and a count for a seq is found among
 * the cursors. Memory, of a chat that is watched: 32 bytes a member, 24 a watcher, 768 more for a watcher who
 * is told counts of own messages. A chat nobody watches costs nothing here, and one row a (user, device) in
 * the store.
 *
 * Limits: RECEIPTS_CHATS_MAX chats, RECEIPTS_MEMBERS_MAX members in all of them, RECEIPTS_WATCHERS_MAX
 * watchers a chat: beyond them ERR_LIMIT. Must not know: sessions, stores, the bus. */
#ifndef CORE_RECEIPTS_H
#define CORE_RECEIPTS_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/proto.h"
#include "util/map.h"

#define RECEIPTS_EACH_MAX     32u /* members up to which all are told of each; beyond, counts to authors */
#define RECEIPTS_OWN_MAX      32u /* own messages that a watcher is told counts of: the latest */
#define RECEIPTS_CHATS_MAX    65536u
#define RECEIPTS_MEMBERS_MAX  4000000u
#define RECEIPTS_WATCHERS_MAX 4096u

struct receipt_member {
    uint64_t user;
    uint64_t from : 63;   /* seq from which the membership holds */
    uint64_t changed : 1; /* since it was told */
    uint64_t delivered, read;
};
_Static_assert(sizeof(struct receipt_member) == 32, "a member of a watched chat");

/* An own message of a watcher, and what was told of it last. */
struct receipt_own {
    uint64_t seq;
    uint32_t delivered, read, of;
    bool told;
};

struct receipt_watch {
    uint64_t conn;
    struct receipt_own *own; /* rising; NULL: none */
    uint8_t own_n;
    bool untold; /* is to be told everything */
};

struct receipt_chat {
    uint64_t chat;
    struct receipt_member *members; /* by user */
    struct receipt_watch *watches;
    uint32_t members_n, members_cap, watches_n, watches_cap;
    bool known;   /* what the store (or the owner) holds is in it */
    bool reading; /* it is being asked for */
    bool queued;  /* among those with something to tell */
    bool large;   /* it was told as counts last */
    bool behind;  /* somebody had no room for what was to be told */
    /* several nodes: at the owner, who else serves the chat, and until when that holds; at a follower, when
     * to ask again. `version` counts what was told to followers. */
    uint64_t nodes, fresh, period_ns, ask_ns, version;
    uint64_t counted_ns;
};

struct receipts {
    struct map chats; /* id -> struct receipt_chat * */
    uint64_t members_n;
    uint64_t *queue; /* chats with something to tell */
    uint32_t queue_n, queue_cap;
};

void receipts_init(struct receipts *r, uint64_t seed);
void receipts_release(struct receipts *r);
struct receipt_chat *receipts_chat(const struct receipts *r, uint64_t chat); /* NULL: nobody watches it */
/* Found or made; NULL: no memory, or a limit. */
struct receipt_chat *receipts_chat_make(struct receipts *r, uint64_t chat);
void receipts_chat_drop(struct receipts *r, struct receipt_chat *c);
/* It has something to tell. */
void receipts_queue(struct receipts *r, struct receipt_chat *c);

struct receipt_member *receipts_member(const struct receipt_chat *c, uint64_t user); /* NULL: none */
/* The next one by user; NULL: none. */
struct receipt_member *receipts_member_above(const struct receipt_chat *c, uint64_t user);
/* A member since `from`, of whose cursors nothing is known yet unless it was there already. ERR_NOMEM,
 * ERR_LIMIT: unchanged. */
int receipts_member_set(struct receipts *r, struct receipt_chat *c, uint64_t user, uint64_t from);
void receipts_member_drop(struct receipts *r, struct receipt_chat *c, uint64_t user);
/* The cursors are at least there. True: that is news. */
bool receipts_note(struct receipts *r, struct receipt_chat *c, uint64_t user, uint64_t delivered,
                   uint64_t read);

struct receipt_watch *receipts_watch(const struct receipt_chat *c, uint64_t conn); /* NULL: none */
int receipts_watch_add(struct receipt_chat *c, uint64_t conn,
                       struct receipt_watch **out); /* ERR_LIMIT, ERR_NOMEM */
void receipts_watch_drop(struct receipt_chat *c, struct receipt_watch *w);
/* An own message of the watcher: the lowest goes when there are too many. ERR_NOMEM. */
int receipts_own_add(struct receipt_watch *w, uint64_t seq);

/* Cursors of one moment, sorted for counting: made once for all watchers of a chat. */
struct receipt_counts {
    uint64_t *from, *delivered, *read; /* each sorted */
    uint32_t n;
};
int receipts_count_begin(struct receipt_counts *k, const struct receipt_chat *c); /* ERR_NOMEM */
void receipts_count_end(struct receipt_counts *k);
/* Of those who were members at `seq`, `but` left out: how many, and how many have got and read it. */
struct msg_count receipts_count(const struct receipt_counts *k, const struct receipt_member *but,
                                uint64_t seq);
/* What of the watcher's own messages is to be told, equal neighbours in one row; marks it as told. Room for
 * RECEIPTS_OWN_MAX rows; returns how many. `all`: also what has not changed. */
uint32_t receipts_count_own(const struct receipt_counts *k, const struct receipt_member *self,
                            struct receipt_watch *w, bool all, struct msg_count *out);

#endif
