/* Inside of the node: its state and the calls between its files. */
#ifndef NODE_NODE_IMPL_H
#define NODE_NODE_IMPL_H

#include "node/node.h"
#include "node/node_presence.h"
#include "node/node_receipts.h"
#include "shard/shard.h"

struct node_bus;
struct greeting;

struct node {
    struct node_config config;
    struct io io;
    struct registry registry;
    struct counters counters;
    struct delivery delivery;
    struct accept accept;
    struct recover recover;
    struct node_presence presence;
    struct receipts receipts;
    uint64_t receipts_flushed_ns, receipts_swept_ns;
    uint64_t loaded_us; /* time of the last entry that the store held */
    struct session_clocks clocks;
    uint64_t ticked_ns, stood_until_ns; /* the last tick; until when what is read may have been said before */
    uint32_t stood_ms;                  /* the tick before this process stood still */
    uint32_t swept;                     /* clocks looked at in this round */
    uint64_t swept_ns;
    struct lineage_entry *lineage;
    size_t lineage_n;
    uint32_t conn_last;
    uint64_t cursors_saved_ns;
    uint64_t sessions_n, sessions_max, by_net[NET_COUNT];
    uint64_t disconnects[NET_COUNT][REASON_COUNT];
    uint64_t failures_seen; /* read failures after which waiting sessions were pumped again */
    bool draining;
    struct proto_scratch scratch;
    struct node_bus *bus; /* NULL: it is alone */
};

/* false: its rows are lost, and only KEYS/mark knew of it. */
static inline bool node_had_epoch(const struct lineage_entry *l)
{
    return l->started_us != 0;
}

struct session *node_session(const struct node *n, uint64_t conn);
/* Detach from user and chats, then close with a code after what is queued was sent. */
void session_end(struct node *n, struct session *s, int code, enum reason reason);
void session_error(struct node *n, struct session *s, enum proto_error code, const struct msg *about,
                   uint32_t retry_ms, const char *text);

/* node_hello.c */
void node_hello(struct node *n, struct session *s, const struct msg *m);
void node_resumed(struct node *n, struct session *s, const struct read_job *job);
/* Positions in the chats of one owner, whose answer came after the welcome. */
void node_resumed_late(struct node *n, struct session *s, uint16_t owner, const struct greeting *g);
/* Every owner has answered, or will not: read what stands in our own store, then welcome. */
void node_greeted(struct node *n, struct session *s);
/* A member was added to a chat while connected. */
void node_joined(struct node *n, struct chat *c, uint64_t user, uint64_t after);

/* node_request.c */
void node_request(struct node *n, struct session *s, const struct msg *m, uint64_t offset);
void node_history(struct node *n, const struct node_event *e);
void node_history_done(struct node *n, struct read_job *job);
extern const struct accept_ops node_accept_ops;
/* Push what a committed entry means to who is connected. */
void node_add_member(struct node *n, struct chat *c, uint64_t user, const struct entry *e, uint64_t from,
                     enum member_role role, uint64_t knows);
void node_drop_member(struct node *n, struct chat *c, uint64_t user, const struct entry *e);
void node_http_error(struct node *n, uint64_t request, int status, enum proto_error code);

/* node_recover.c */
extern const struct recover_ops node_recover_ops;
/* After loading: does the store lack anything? */
int node_recover_load(struct node *n, struct store *s, struct err_ctx *ctx);
bool node_recovers(const struct node *n); /* this kind of delivery takes offers */
void node_recover_hello(struct node *n, struct session *s);
/* The device claims seqs of the current epoch that this store never gave out. */
void node_recover_ahead(struct node *n, struct session *s, uint64_t chat, uint64_t from, uint64_t to);
void node_recover_missing(struct node *n, struct session *s, struct read_job *job);
void node_report(struct node *n, struct session *s, const struct msg *m);
void node_offer(struct node *n, struct session *s, const struct msg *m);
void node_recover_done(struct node *n, struct commit_job *job);
void node_recover_tick(struct node *n);
void node_reconcile(struct node *n, const struct node_event *e);
bool node_chat_is_whole(const struct node *n, const struct chat *c);

/* node.c: every session, the next one from number *at on; NULL at the end. */
struct session *node_next_session(struct node *n, uint32_t *at);
/* The same, for another node's chat: it has told the trace. */
void node_drop_member_quietly(struct node *n, struct chat *c, uint64_t user);
void node_read_done(struct node *n, struct read_job *job);

/* ---- more nodes than one: node_bus.h; each of these does nothing, or says "ours", when there is none ----
 */
int node_bus_new(struct node *n, struct err_ctx *ctx);
void node_bus_free(struct node *n);
void node_bus_event(struct node *n, const struct node_event *e);
void node_bus_tick(struct node *n);
void node_bus_stats(const struct node *n, struct node_stats *out);
/* What this step has queued for other nodes leaves. */
void node_bus_flush(struct node *n);
/* True when the request went to the chat's owner (or was refused, since that is gone). */
bool node_bus_request(struct node *n, struct session *s, const struct msg *m);
/* True when another node is asked; user 0: an operator, who may read every chat. */
bool node_bus_history(struct node *n, const struct node_event *e, uint64_t user);
/* Answers to who asked from another node; false: it is one of our own connections. */
bool node_bus_accepted(struct node *n, uint64_t conn, const struct known *k, bool dup);
bool node_bus_done(struct node *n, uint64_t conn, const struct pending *p);
bool node_bus_refused(struct node *n, uint64_t conn, enum proto_error code, uint32_t retry_ms);
bool node_bus_read_done(struct node *n, struct read_job *job);
void node_bus_publish(struct node *n, const struct chat *c, const struct pending *p);
/* The log has grown by what is not published as entries: its head is. */
void node_bus_head(struct node *n, const struct chat *c);
/* Takes those of other owners out of the list and sends them there; returns how many are left. */
size_t node_bus_cursors(struct node *n, struct cursor *list, size_t count);
/* Ask the other owners about this session's user; false: there are none. */
bool node_bus_greet(struct node *n, struct session *s);
void node_bus_welcomed(struct node *n, const struct session *s);
void node_bus_forget(struct node *n, const struct session *s);
/* An acknowledgement (or that it was read) in a chat whose owner has not answered yet: kept until it does. */
void node_bus_said(struct node *n, const struct session *s, uint64_t chat, uint64_t seq, bool read);
const struct greeting *node_bus_greeting(const struct node *n, const struct session *s);
bool node_bus_known_epoch(const struct node *n, uint64_t chat, uint64_t epoch);
/* The highest seq that the owner named; 0: the chat is ours. */
uint64_t node_bus_known_head(const struct node *n, uint64_t chat);

#endif
