/* Inside of the node: its state and the calls between its files. */
#ifndef NODE_NODE_IMPL_H
#define NODE_NODE_IMPL_H

#include "node/node.h"
#include "node/node_presence.h"

struct node {
    struct node_config config;
    struct io io;
    struct registry registry;
    struct counters counters;
    struct delivery delivery;
    struct accept accept;
    struct recover recover;
    struct node_presence presence;
    uint64_t loaded_us; /* time of the last entry that the store held */
    struct session_clocks clocks;
    uint32_t swept; /* clocks looked at in this round */
    struct lineage_entry *lineage;
    size_t lineage_n;
    uint32_t conn_last;
    uint64_t cursors_saved_ns;
    uint64_t sessions_n, sessions_max, by_net[NET_COUNT];
    uint64_t disconnects[NET_COUNT][REASON_COUNT];
    uint64_t failures_seen; /* read failures after which waiting sessions were pumped again */
    bool draining;
    struct proto_scratch scratch;
};

struct session *node_session(const struct node *n, uint64_t conn);
/* Detach from user and chats, then close with a code after what is queued was sent. */
void session_end(struct node *n, struct session *s, int code, enum reason reason);
void session_error(struct node *n, struct session *s, enum proto_error code, const struct msg *about,
                   uint32_t retry_ms, const char *text);

/* node_hello.c */
void node_hello(struct node *n, struct session *s, const struct msg *m);
void node_resumed(struct node *n, struct session *s, const struct read_job *job);
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

#endif
