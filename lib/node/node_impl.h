/* Inside of the node: its state and the calls between its files. */
#ifndef NODE_NODE_IMPL_H
#define NODE_NODE_IMPL_H

#include "node/node.h"

struct node {
    struct node_config config;
    struct io io;
    struct registry registry;
    struct counters counters;
    struct delivery delivery;
    struct accept accept;
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

#endif
