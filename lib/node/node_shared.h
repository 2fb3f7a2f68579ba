/* Inside of the node: what it shares of presence with other nodes (presence/shared.h). What it knows itself
 * it writes, in batches; of others it asks what its sessions watch, once a second; who types is told by all
 * to all. Without an answer for NODE_SHARED_TRUST_NS what others said is unknown, and said to be. A chat
 * never waits for any of this. */
#ifndef NODE_NODE_SHARED_H
#define NODE_NODE_SHARED_H

#include "presence/shared.h"
#include "util/clock.h"
#include "util/map.h"

struct node;
struct chat;
struct session;
struct user;

#define NODE_SHARED_POLL_NS  NS_PER_S
#define NODE_SHARED_TRUST_NS (8 * NS_PER_S)
#define NODE_SHARED_SETTLE_NS                                                                                \
    (4 * NS_PER_S) /* after SHARED_UP others may not have renewed their slots yet                            \
                    */
#define NODE_SHARED_HTTP_NS   (500 * NS_PER_MS)
#define NODE_SHARED_SWEEP_NS  (3600 * NS_PER_S)
#define NODE_SHARED_HTTP_MAX  1024u  /* questions over HTTP that wait; more are answered with what is known */
#define NODE_SHARED_RESYNC    20000u /* users written again in one flush (200 ms) */
#define NODE_SHARED_CHATS_MAX 16384u /* chats whose typists are to be asked for; more are not */

/* GET /presence that waits for the shared copy. */
struct node_waiting {
    uint64_t http, request, due_ns, me;
    uint32_t users_n;
    bool all;
    uint64_t users[];
};

struct node_shared {
    bool on, up;
    uint64_t request; /* of the last order */
    uint64_t up_ns, answered_ns, beat_ns, poll_ns, sweep_ns;
    bool forgotten;     /* nothing of what others said is believed any more */
    uint64_t **foreign; /* a bit a user: what is known of them comes from the shared copy */
    uint32_t foreign_n;
    uint32_t resync;      /* the next user to be written again; 0: all are */
    uint32_t resync_chat; /* the next chat whose typists are to be asked for; 0: all were */
    struct shared_state *put;
    struct shared_typing *typing;
    uint64_t *asked, *chats;
    uint32_t put_n, put_cap, typing_n, typing_cap, asked_n, asked_cap, chats_n, chats_cap;
    struct map also; /* users who are at another node too */
    struct node_waiting **waiting;
    uint32_t waiting_n, waiting_cap;
};

void node_shared_init(struct node *n, uint64_t seed);
void node_shared_release(struct node *n);
void node_shared_news(struct node *n, const struct shared_news *news);
void node_shared_tick(struct node *n, bool flush); /* flush: each NODE_PRESENCE_FLUSH_NS */
/* A user of this node is (no longer) there. */
void node_shared_changed(struct node *n, uint32_t user, enum presence_state state, uint64_t at_s);
void node_shared_typed(struct node *n, uint64_t chat, uint64_t user, uint64_t until_us, bool unchecked);
/* What was said to last until then is over. */
void node_shared_quiet(struct node *n, uint64_t chat, uint64_t user, uint64_t until_us);
/* A session has come: who types in this chat, if we can't know yet? */
void node_shared_ask_typists(struct node *n, const struct chat *c);
/* Somebody watches a user who is not here. */
void node_shared_ask(struct node *n, uint64_t user);
/* Does what is known of the user come from the shared copy, or from nowhere? */
bool node_shared_is_foreign(const struct node *n, uint32_t user);
/* GET /presence: ask about `ids` of the `users` and answer later; false: too many wait. */
bool node_shared_wait(struct node *n, uint64_t http, uint64_t me, bool all, const uint64_t *users,
                      uint32_t users_n, const uint64_t *ids, uint32_t ids_n);
/* Is what others said to be believed? */
bool node_shared_trusted(const struct node *n);

#endif
