/* The server as one pure step function: node_step(node, event) emits effects (core/io.h). It composes
 * session, chat, delivery and the accept path; it never reads a clock, a socket, a random source or a file.
 *
 * A world owns the node: it opens the store, calls node_load, feeds events in the order in which they
 * happened, carries out effects, and hands completed jobs back. One thread at a time. */
#ifndef NODE_NODE_H
#define NODE_NODE_H

#include "core/accept.h"
#include "core/delivery.h"
#include "core/recover.h"
#include "core/session.h"
#include "crypto/keys.h"

/* ---- after a restore ----
 *
 * A store that began a new epoch over old data has perhaps lost something. The node then asks its clients for
 * copies (core/recover.h). Operators read on the ordinary port, with `Authorization: Bearer` and a token of
 * role operator:
 *
 * GET /reconcile
 *   {"state":"none|asking|whole|closed",   whole: every member has answered; closed: the deadline came first
 *    "epoch":"48121","since":us,"until":us,    what may be lost was said in between (UTC); 0 when state is
 * none "opened":us,"ended":us,                   of the job; ended 0 while it is asking
 *    "chats":{"total":n,"whole":n,"incomplete":n},   incomplete: a member's device has not answered yet
 *    "users":{"total":n,"answered":n},"clients":{"asked":n,"answered":n},
 *    "offers":{"entries":n,"accepted":n,"known":n,"refused":{"forged":n,"seq_taken":n,"id_elsewhere":n,"invalid":n}},
 *    "epochs_begun":n}                         because a client proved a seq above a head
 * GET /reconcile/chats?after=N&limit=N     after: `next` of the page before; the last page has next 0
 *   {"chats":[{"chat":"17","epoch":"48121","head":n,"whole":true,"waiting":n}...],"next":n}
 * GET /history/CHAT?after=SEQ&limit=N      with an operator's token: any chat, from its first entry on; every
 * entry of the log is in the form of `msg`, tag included; "whole":false while the chat is incomplete. Entry 0
 * (a create of the first epoch) is given with after absent and "zero=1" */

/* ---- receipts ----
 *
 * GET /receipts/CHAT?seq=N&after=USER&limit=N      who has got and read message N, page by page (at most 1000
 * users)
 *   {"chat":"17","seq":5,"users":[{"user":"8","read":true}...],   those who have got it, by user, after
 * `after` "of":n,"delivered":n,"read":n,                    of those who were members then, its sender left
 * out "next":"0"}                                       `after` of the next page; "0": this was the last In a
 * chat of at most limits.receipts_each members any of them may ask; in a larger one the message's sender, or
 * an operator. The rows of the store are counted: a second behind what was said. */

#define NODE_PRESENCE_USERS 256u /* of GET /presence */

struct node_limits {
    uint32_t sessions_per_user, sending_per_conn;
    uint32_t rate_per_s, rate_burst; /* sends a user; 0: no limit */
    uint32_t body_max, chats_max;    /* chats a user may be in */
    uint32_t queue_bytes;            /* unsent bytes a connection */
    uint32_t slow_ms;                /* unacknowledged for so long: served from the log; 0: never */
    uint32_t requests_per_sync;
    uint64_t backlog_max;
    uint32_t receipts_each; /* members of a chat up to which each is told of each */
};
struct node_limits node_limits_default(void);

/* One node of several (node_bus.h). Shards are dealt to the nodes in turn: shard mod nodes. */
struct node_place {
    uint16_t self, nodes; /* nodes 0 or 1: alone */
    bool shared_store;    /* the nodes are threads of one process: what its store holds of other shards is
                             theirs.    Else such rows are an error: the number of nodes has changed */
};

struct node_config {
    struct node_place place;
    unsigned features;      /* enum delivery_features */
    uint64_t sequential_ns; /* delivery_fanout_parse; 0: shared */
    struct node_limits limits;
    uint64_t ack_timeout_ns, idle_timeout_ns, hello_timeout_ns; /* 0: never */
    uint32_t beat_s;
    uint64_t recover_for_ns; /* how long clients are waited for after a restore; 0: for ever */
    bool presence_shared;    /* its world has a shared copy (EFFECT_SHARED) */
    bool presence_only;      /* it has no chats: answers what the shared copy holds, and nobody connects */
    bool presence_legacy;    /* typing is kept as an event, replayed to who comes back, and never over */
    const struct keys *keys;
    uint64_t seed, epoch;
    uint64_t conn_base; /* connection numbers begin after this; differs between runs of one server */
    struct trace_writer *trace;
    void (*emit)(void *arg, const struct effect *e);
    void *arg;
};

enum node_event_kind {
    NODE_OPEN,      /* link, flow, codec, offset (bytes of the handshake), user -> *conn is set */
    NODE_FRAME,     /* conn, data, len, offset: one whole frame in the connection's codec */
    NODE_BEATS,     /* conns, len: all of these said beat, and nothing else */
    NODE_CLOSED,    /* conn, code, reason */
    NODE_WRITTEN,   /* conn, frame, offset: the socket took this frame */
    NODE_COMMITTED, /* commit */
    NODE_READ_DONE, /* read */
    NODE_TICK,      /* every 10..100 ms */
    NODE_DRAIN,     /* code 0: say bye, refuse what is new; code 1: close all (4002) */
    NODE_HISTORY,   /* request, token, chat, after, limit: GET /history; after UINT64_MAX: from entry 0 */
    NODE_RECONCILE, /* request, token: GET /reconcile; code 1: after, limit: GET /reconcile/chats */
    NODE_PRESENCE,  /* request, token, users: GET /presence */
    NODE_TYPING,    /* request, token, user, chat: POST /presence/USER/typing */
    NODE_RECEIPTS,  /* request, token, chat, seq, after, limit: GET /receipts/CHAT */
    NODE_BUS,       /* data, len: a datagram of another node */
    NODE_SHARED,    /* news: of what nodes share of presence */
    NODE_EVENT_KINDS
};

struct node_event {
    enum node_event_kind kind;
    struct now now;
    uint64_t conn, offset, request, chat, seq, after;
    uint32_t limit;
    enum proto_codec codec;
    /* NODE_OPEN, not 0: whoever carries this connection has proven that it speaks for this user until
     * expires_s; a hello without a token is theirs. */
    uint64_t user, expires_s;
    const uint64_t *conns;
    const uint64_t *users;
    uint32_t users_n;
    void *link;
    struct trace_flow flow;
    const char *data; /* frame text, or the token of NODE_HISTORY */
    size_t len;
    int code;
    enum reason reason;
    struct shared_frame *frame;
    struct commit_job *commit;
    struct read_job *read;
    const struct shared_news *news; /* presence/shared.h */
};

struct node;

int node_new(struct node **out, const struct node_config *c, struct err_ctx *ctx);
void node_free(struct node *n);
/* Take chats and memberships into memory. Before the first step. */
int node_load(struct node *n, struct store *s, struct err_ctx *ctx);
/* Returns the number of the connection for NODE_OPEN (0: refused, out of memory), else 0. */
/* A hint: an event of this connection comes soon. */
void node_fetch(const struct node *n, uint64_t conn);
uint64_t node_step(struct node *n, const struct node_event *e);
/* Nothing is in flight towards the store. */
bool node_idle(const struct node *n);
/* Limits and timeouts that may change while running. */
void node_reload(struct node *n, const struct node_limits *limits, uint64_t ack_timeout_ns,
                 uint64_t idle_timeout_ns);

struct node_stats {
    struct counters counters;
    uint64_t epoch;
    struct recover_counts recover;
    uint64_t recover_users, recover_users_answered;
    bool recovering;
    uint64_t sessions, sessions_by_net[NET_COUNT], sessions_max, users, chats, pending;
    uint64_t disconnects[NET_COUNT][REASON_COUNT];
    bool presence_up;                                     /* the shared copy of presence answers */
    uint64_t nodes, nodes_up, followed, interests, calls; /* other nodes; chats; questions without a reply */
};
void node_stats(const struct node *n, struct node_stats *out);
/* Of several nodes of one process: sums. */
void node_stats_add(struct node_stats *to, const struct node_stats *from);

#endif
