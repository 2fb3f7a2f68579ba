/* A node among others. Each chat has one owner, the node of its shard, which alone writes its log; the others
 * forward to it and *follow* the chats whose members are online with them: they hold the members they serve,
 * and the log's head as far as they have applied it.
 *
 *   request   client -> its node -> call -> owner -> accept path -> reply -> client
 *   message   owner: commit -> one hint for each node that follows, however many members it serves
 *   hole      a hint that is not the next seq, or a head ahead of what was applied -> call for the pages
 *   head      owners publish the heads of chats again, 0.5 and 1.5 s after the last entry: what was lost at
 * the end of a conversation leaves no hole interest  a node follows what hello's answer names, says so again
 * every 10 s, and is forgotten after 30 members   who was added to a chat is told to all, with a number; who
 * misses a number asks about everybody
 *
 * Memory beside the node's own, at a follower: 40 bytes and the map's share a followed chat; at an owner: as
 * much for a chat that is followed. A node alone has none of it. */
#ifndef NODE_NODE_BUS_H
#define NODE_NODE_BUS_H

#include "bus/calls.h"
#include "bus/peers.h"
#include "node/node_impl.h"
#include "node/node_wire.h"

#define BUS_CONN (1ull << 63) /* of a connection number: somebody at another node */

/* Another node, as this one knows it. */
struct node_peer {
    struct bus_peer seen;
    uint64_t store_epoch;
    uint64_t *epochs; /* of its store's lineage */
    uint32_t epochs_n;
    uint64_t version, version_said; /* additions of members: applied, and heard of */
    uint64_t resync_version;        /* of the answers so far */
    uint32_t resyncs;               /* calls on their way */
    bool resync_failed, astray;     /* astray: something was missed */
};

/* Who of the others wants a chat's entries: asked for in this period, or in the last. */
struct interest {
    uint64_t nodes, fresh;
    uint64_t again; /* is in the queue of heads to be published again */
};

struct follow {
    uint64_t known;     /* the highest seq heard of */
    uint64_t wanted_ns; /* when it was last named to us */
    uint64_t filling;
};

/* A head to be published again. */
struct again {
    uint64_t chat, due_ns, durable;
    uint32_t left;
};

/* A call that this node answers when accept path or store are done. */
struct answer {
    uint64_t id, conn, user;
    uint64_t wanted; /* CALL_RECEIPTS: what the asker knows */
    uint16_t node;
    uint8_t what, op;
    bool again; /* it was said before */
    uint32_t next;
};

/* A session whose hello is not yet answered by all owners. */
struct greeting {
    uint64_t conn;
    uint64_t waiting, missing; /* owners: asked, and silent */
    bool welcomed;
    struct claim *claims;
    uint32_t claims_n;
    struct cursor *cursors;
    uint32_t cursors_n;
    struct cursor *said; /* acknowledged and read meanwhile, in chats of owners that are missing */
    uint32_t said_n;
};

struct node_bus {
    uint16_t self, nodes;
    uint64_t incarnation, began_ns, beat_ns, turn_ns, period_ns, period_greet_ns;
    struct bus_calls calls;
    struct node_peer peers[BUS_NODES_MAX];
    struct buf out[BUS_NODES_MAX];
    struct buf body, reply; /* scratch: of a question; of an answer */
    /* as an owner */
    struct map interest;
    struct again *again;
    size_t again_first, again_n, again_cap;
    struct slab answers;
    uint32_t answered; /* given back when the step is over: the entry's origin is still asked for */
    uint64_t version;
    /* as a follower */
    struct map followed, greetings;
    struct read_job **failed;
    size_t failed_n, failed_cap;
};

static inline uint16_t node_owner(const struct node *n, uint64_t chat)
{
    return n->bus ? (uint16_t)(shard_of_chat(chat) % n->bus->nodes) : 0;
}
static inline bool node_owns(const struct node *n, uint64_t chat)
{
    return !n->bus || node_owner(n, chat) == n->bus->self;
}
static inline uint64_t bus_bit(uint16_t node)
{
    return 1ull << node;
}

/* node_bus.c */
struct buf *bus_begin(struct node_bus *b, uint16_t to, enum wire_record type, size_t *mark);
void bus_end(struct node *n, uint16_t to, size_t mark);
bool bus_reachable(const struct node *n, uint16_t node);
/* Ask `to`; NULL: not reachable, or too much is asked already. The question is in b->body. */
struct bus_call *bus_ask(struct node *n, uint16_t to, enum wire_call what, uint64_t patience_ns);

/* node_owner.c: what others ask of this node, and what it tells them. */
void owner_called(struct node *n, uint16_t from, struct wire_reader *r);
void owner_interest(struct node *n, uint16_t from, struct wire_reader *r);
void owner_drop(struct node *n, uint16_t from, struct wire_reader *r);
void owner_cursors(struct node *n, uint16_t from, uint64_t id, struct wire_reader *r);
/* A question that is answered when a read is done: what stands for its asker then; 0: no memory. */
uint64_t owner_answer(struct node *n, uint16_t from, uint64_t id, enum wire_call what, uint64_t wanted);
void owner_reply(struct node *n, uint16_t to, uint64_t id, const struct buf *body);
void owner_tick(struct node *n);
void owner_step_over(struct node *n);

/* node_follow.c: what this node asks of owners, and makes of what they tell. */
void follow_entry(struct node *n, uint16_t from, struct wire_reader *r);
void follow_members(struct node *n, uint16_t from, struct wire_reader *r);
void follow_head(struct node *n, struct wire_reader *r);
void follow_beat(struct node *n, uint16_t from, struct wire_reader *r);
void follow_peer_up(struct node *n, uint16_t peer, bool fresh);
void follow_replied(struct node *n, struct bus_call *call, struct wire_reader *r);
/* No reply came: its deadline, or its node is down. */
void follow_unanswered(struct node *n, struct bus_call *call);
void follow_tick(struct node *n);
void follow_step_over(struct node *n);
struct follow *follow_chat(const struct node *n, uint64_t chat);
void follow_page(struct node *n, struct read_job *job, struct wire_reader *r);
void follow_filled(struct node *n, struct read_job *job);
void follow_note_head(struct node *n, struct chat *c, struct follow *f, uint64_t seq);
/* Make what an owner said of a chat our own, unless we know more already. */
struct follow *follow_begin(struct node *n, struct chat *c, uint64_t epoch, uint64_t durable, uint64_t first);

/* node_greet.c: hello at a node that owns only some of the chats. */
void greet_replied(struct node *n, uint16_t owner, uint64_t conn, struct wire_reader *r);
void greet_unanswered(struct node *n, uint16_t owner, uint64_t conn);
void greet_again(struct node *n, uint16_t owner);
void greet_resync(struct node *n, uint16_t owner);

/* node_receipts.c: the read for an answer is done. */
void node_receipts_answer(struct node *n, uint16_t to, uint64_t id, uint64_t version, struct read_job *job);

#endif
