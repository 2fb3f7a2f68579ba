/* What several processes share of presence: the state of each user, and who types where. Two drivers keep it:
 * redis/ (real worlds) and shared_mem (simulated ones, tests); a node cannot tell which.
 *
 * It is best effort, and says so. An order may be lost, its answer may never come; what a node knows itself
 * it writes again after each SHARED_UP. Nothing here may hold up a chat: drivers never block.
 *
 * Whose numbers? A node's numbers for users are its registry's and mean nothing elsewhere, and a directory
 * from users to numbers would cost more than what it leads to (a Redis hash: 60 bytes a user). So a user's
 * place is computed from their id: a 64-bit hash gives the page (10 bits) and a print (40 bits) that is kept
 * in the cell. Of two users with the same 50 bits (a million users: one pair in 2300 such systems; the chance
 * that a given user has a twin is 1 in 10^9) each would be shown as the one of whom more was heard last;
 * nothing but their presence mixes.
 *
 * A cell has 8 bytes: print (40 bits), state (2), and 22 bits: of who is there, the slot of the node that
 * vouches for them; of who is not, when they were last heard (32 s units, modulo 4.2 years). Pages are
 * packed: a page is as long as its users are many, so that a million users cost 8 bytes each and what Redis'
 * allocator rounds up (8.6 together, tests/bench/bench_presence.c). Below 100,000 users the pages themselves
 * (100 bytes each) weigh more than that: 100 KB in all.
 *
 * Who vouches: a node renews its slot each second (SHARED_BEAT). A state whose node was silent for
 * SHARED_DOUBT_MS is not known; after SHARED_DEAD_MS the user is offline. So a node that dies costs nobody a
 * write for each of its users; when it is back, its driver first takes back what it once vouched for.
 *
 * Must not know: nodes, chats' members, sockets. */
#ifndef PRESENCE_SHARED_H
#define PRESENCE_SHARED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "presence/presence.h"

#define SHARED_PAGES       1024u
#define SHARED_CELL        8u /* bytes */
#define SHARED_PRINT       5u /* of them: who it is */
#define SHARED_SLOTS       64u
#define SHARED_NOBODY      UINT16_MAX /* of a slot: keeps no users (a process without chats) */
#define SHARED_UNIT_S      32u
#define SHARED_DOUBT_MS    10000u
#define SHARED_DEAD_MS     25000u
#define SHARED_ORDER_MAX   4096u /* things in one order */
#define SHARED_TYPISTS_MAX 16u   /* of a chat, in an answer */
#define SHARED_STALE_S     3600u /* swept once an hour: what nobody vouches for since then */

/* ---- orders and news ---- */

struct shared_state {
    uint64_t user;
    uint64_t at_s; /* OFFLINE: last heard; 0: not known */
    enum presence_state state;
    uint16_t slot; /* answers: who vouches for it, or SHARED_NOBODY */
    bool doubted;  /* answers: whoever vouches for it is silent */
};
struct shared_typing {
    uint64_t chat, user;
    uint64_t until_us; /* shown so long; with `quiet`: what was said to last until then is over */
    bool quiet;
    bool unchecked; /* nobody has looked yet whether the user is in the chat */
};

enum shared_op {
    SHARED_BEAT,    /* this node is there; each second */
    SHARED_PUT,     /* states: of users who are here, or were here last */
    SHARED_ASK,     /* ids: users; answered by SHARED_STATES */
    SHARED_TYPE,    /* typing: kept until its time, and told to all other nodes */
    SHARED_TYPISTS, /* ids: chats; answered by SHARED_TYPES */
    SHARED_SWEEP,   /* take out what is stale; answered by SHARED_SWEPT */
};
struct shared_order {
    enum shared_op op;
    uint64_t request; /* comes back with the answer; not 0 */
    uint32_t n;
    const struct shared_state *states;
    const struct shared_typing *typing;
    const uint64_t *ids;
};

enum shared_news_kind {
    SHARED_UP,     /* it answers (again): what this node knows is written again */
    SHARED_DOWN,   /* it does not */
    SHARED_STATES, /* an answer: all that was asked, in that order */
    SHARED_TYPES,  /* an answer (of one chat each), or, request 0, somebody at another node */
    SHARED_ALSO,   /* ids: users of whom two nodes have said that they are there */
    SHARED_SWEPT,  /* n states were stale */
};
struct shared_news {
    enum shared_news_kind kind;
    uint64_t request;
    uint32_t n;
    const struct shared_state *states;
    const struct shared_typing *typing;
    const uint64_t *ids;
};
/* Where a driver hands in what comes. On the node's own thread, never from within shared_send. */
struct shared_sink {
    void (*news)(void *arg, const struct shared_news *n);
    void *arg;
};

struct shared;
struct shared_ops {
    /* Never blocks; copies what it needs. ERR_UNAVAILABLE, ERR_FULL: nothing of it will be done. */
    int (*send)(struct shared *s, const struct shared_order *o);
    void (*close)(struct shared *s);
};
struct shared { /* drivers begin their struct with it */
    const struct shared_ops *ops;
};
static inline int shared_send(struct shared *s, const struct shared_order *o)
{
    return s->ops->send(s, o);
}
static inline void shared_close(struct shared *s)
{
    if (s)
        s->ops->close(s);
}

/* ---- the layout, which all drivers and all versions of one cluster have in common ---- */

struct shared_place {
    uint16_t page;
    uint8_t print[SHARED_PRINT];
};
struct shared_place shared_place(uint64_t user);
/* The three bytes behind the print. */
void shared_cell_put(uint8_t out[3], const struct shared_state *s, uint16_t slot);
/* `slot` is SHARED_NOBODY for who is offline. now_s dates what is kept modulo 4.2 years. */
void shared_cell_get(const uint8_t in[3], uint64_t now_s, struct shared_state *s, uint16_t *slot);
/* What a state is worth whose node was heard so long ago; UINT32_MAX: nobody knows. */
void shared_doubt(struct shared_state *s, uint64_t silent_ms, uint64_t now_s);

#endif
