/* Inside of the node: receipts, over the table of core/receipts.h. The rows of the store are the truth; a
 * chat that somebody watches is read from them once, and then follows what is saved. A cursor counts when the
 * store has taken it, so that a server that is killed and comes back never says less.
 *
 *   watch    `receipts {on}` -> rows of the chat (the owner's) -> what holds now -> changes, until the
 * connection ends several nodes   a follower asks the owner for all lines of the chat (CALL_RECEIPTS, again
 * every 10 s, which is also how the owner knows who is interested), and is told what changes (WIRE_RECEIPTS,
 * numbered: who misses a number asks at once). Followers' own cursors go to the owner by call, and back into
 * the list when it does not answer. */
#ifndef NODE_NODE_RECEIPTS_H
#define NODE_NODE_RECEIPTS_H

#include "core/receipts.h"
#include "core/session.h"
#include "node/node_wire.h"

struct node;
struct node_event;
struct entry;
struct read_job;

#define NODE_RECEIPTS_FLUSH_NS (200 * NS_PER_MS)
#define NODE_RECEIPTS_COUNT_NS NS_PER_S /* large chats: between two tellings of counts */
#define NODE_RECEIPTS_BUDGET   10000u   /* receipts a flush; the rest waits for the next */
#define NODE_RECEIPTS_PAGE     1000u    /* users in one answer of GET /receipts */

void node_receipts_init(struct node *n, uint64_t seed);
void node_receipts_release(struct node *n);
void node_receipts_tick(struct node *n);
void node_receipts(struct node *n, struct session *s, const struct msg *m);
void node_receipts_http(struct node *n, const struct node_event *e);
void node_receipts_read_done(struct node *n, struct read_job *job);
/* These cursors are in the store. */
void node_receipts_saved(struct node *n, const struct cursor *list, size_t count);
/* A message of the chat is in the log. */
void node_receipts_entry(struct node *n, const struct chat *c, const struct entry *e);
void node_receipts_joined(struct node *n, const struct chat *c, uint64_t user, uint64_t from);
void node_receipts_left(struct node *n, const struct chat *c, uint64_t user);

/* ---- several nodes ---- */

/* What the owner is asked: by a node for its watchers, or for a page of GET /receipts. */
void node_receipts_called(struct node *n, uint16_t from, uint64_t id, struct wire_reader *r);
void node_readers_called(struct node *n, uint16_t from, uint64_t id, struct wire_reader *r);
void node_receipts_replied(struct node *n, void *about, struct wire_reader *r); /* r NULL: no reply came */
void node_readers_replied(struct node *n, void *about, struct wire_reader *r);
void node_receipts_told(struct node *n, uint16_t from, struct wire_reader *r);
/* An owner's node is new: what it told holds no more. */
void node_receipts_owner_up(struct node *n, uint16_t owner);

#endif
