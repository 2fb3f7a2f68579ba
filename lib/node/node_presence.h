/* Inside of the node: presence, over the pure room (presence/). Sessions, which must not grow, have a byte
 * each in pages beside them. */
#ifndef NODE_NODE_PRESENCE_H
#define NODE_NODE_PRESENCE_H

#include "core/session.h"
#include "node/node_shared.h"
#include "presence/presence.h"
#include "presence/typing.h"

struct node;
struct node_event;
struct msg;

/* How long before the third beat is due somebody silent counts as gone, so that a round of the clocks (1 s),
 * a flush and a network that was away for 3 s on either side fit into the 30 s; two beats were missed by
 * then. */
#define NODE_PRESENCE_EARLY_MS 7000u
/* So much earlier still where others must hear of it through a shared copy. */
#define NODE_PRESENCE_SHARED_MS 1000u
/* Who closed a connection may be back in a moment: watchers needn't hear of that. */
#define NODE_PRESENCE_LINGER_MS 5000u
#define NODE_PRESENCE_FLUSH_NS  (200 * NS_PER_MS)
/* Words to watchers a flush: 50,000 a second. */
#define NODE_PRESENCE_BUDGET 10000u

enum node_presence_flag {
    NODE_PRESENCE_HERE = 1,   /* ready, and heard in time */
    NODE_PRESENCE_AWAY = 2,   /* its person is */
    NODE_PRESENCE_SILENT = 4, /* not heard in time; may still come back */
    NODE_PRESENCE_WATCHES = 8,
};

struct node_linger {
    uint32_t user, at_ms;
    uint64_t seen_s;
};

struct node_presence {
    struct presence states;
    struct typing typing;
    uint8_t **flags; /* of sessions, by number: pages of CLOCKS_PAGE */
    uint32_t flags_n;
    struct node_linger *linger; /* a ring, the next one first */
    uint32_t linger_first, linger_n, linger_cap;
    uint64_t began_ns, flushed_ns;
    struct node_shared shared;
    bool settled; /* who has not come since the start is offline */
};

void node_presence_init(struct node *n, uint64_t seed);
void node_presence_release(struct node *n);
void node_presence_tick(struct node *n);
/* A session is ready: it is told what holds now, and counts. */
void node_presence_ready(struct node *n, struct session *s);
/* It is about to be taken out of everything. */
void node_presence_leave(struct node *n, struct session *s);
/* The sweep found that it has not been heard for node_presence_silence_ms. */
void node_presence_silent(struct node *n, struct session *s);
uint32_t node_presence_silence_ms(const struct node *n);
/* A member's message, made at that time by their own word, is there, or they left (UINT64_MAX): they don't
 * type any more. */
void node_presence_said(struct node *n, const struct chat *c, uint64_t user, uint64_t ts_us);

void node_presence_heard_anew(struct node *n, struct session *s, bool beat);
static inline uint8_t node_presence_flags(const struct node_presence *p, uint32_t session)
{
    uint32_t page = session / CLOCKS_PAGE;
    return page < p->flags_n && p->flags[page] ? p->flags[page][session % CLOCKS_PAGE] : 0;
}

void node_beat(struct node *n, struct session *s, const struct msg *m);
void node_typing(struct node *n, struct session *s, const struct msg *m);
void node_watch(struct node *n, struct session *s, const struct msg *m);
void node_presence_http(struct node *n, const struct node_event *e);

/* For node_shared.c: what the user's sessions here make them; OFFLINE without any. */
enum presence_state node_presence_best(const struct node *n, const struct user *u);
/* Somebody types (or has ceased to), at another node. */
void node_presence_heard_typing(struct node *n, const struct shared_typing *t);
/* Answer GET /presence; `answer`: of the shared copy, about users in this order, those that are not known
 * here; NULL: it has none. `all`: an operator asks. */
void node_presence_reply(struct node *n, uint64_t http, uint64_t me, bool all, const uint64_t *users,
                         uint32_t users_n, const struct shared_news *answer);

#endif
