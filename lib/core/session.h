/* One connection of one device, as the server sees it. Plain data plus the lists that time it; the node owns
 * it. */
#ifndef CORE_SESSION_H
#define CORE_SESSION_H

#include "core/registry.h"
#include "trace/trace.h"

enum session_state { SESSION_NEW, SESSION_RESUMING, SESSION_READY, SESSION_CLOSING };

/* An intrusive list ordered by a time that only grows: looking at its head finds all that is due. */
struct session_link {
    struct session *prev, *next;
};
struct session_list {
    struct session *first, *last;
};
enum session_timer { TIMER_HEARD, TIMER_ACK, SESSION_TIMERS };

/* A client's `sync`: pages of one chat at a time, delivered beside the positions. */
struct sync_job {
    struct sync_job *next;
    uint64_t chat, after, upto, since_us;
    uint32_t left; /* entries that may still be sent */
};

struct session {
    void *link;
    uint64_t conn;
    struct user *user; /* NULL before hello */
    struct session *next_of_user;
    uint32_t device;
    uint8_t state, net, codec;          /* enum proto_codec */
    bool reading;                       /* one read is in flight for this session */
    uint32_t subs_n, subs_cap, sending; /* sending: sends not yet answered */
    struct sub **subs;
    struct sub *behind_first, *behind_last;
    struct sync_job *sync_first, *sync_last;
    uint32_t sync_n, queued_bytes;
    uint64_t trusted_user; /* who may say hello without a token; 0: nobody */
    uint64_t expires_s;    /* of the token */
    struct claim *claims;  /* of hello, until resumed */
    uint32_t claims_n;
    struct trace_flow flow;
    struct trace_lane lane;
    struct session_link timers[SESSION_TIMERS];
    uint64_t timer_ns[SESSION_TIMERS];
    bool timer_on[SESSION_TIMERS];
};

/* Put at the end with the time `now` (moving it if it is in the list already), or take out. */
void session_timer_set(struct session_list *l, struct session *s, enum session_timer t, uint64_t now_ns);
void session_timer_stop(struct session_list *l, struct session *s, enum session_timer t);

struct sub *session_sub(const struct session *s, const struct chat *c); /* NULL: none */
/* ERR_NOMEM leaves all as it was. */
int session_sub_add(struct session *s, struct chat *c, uint64_t pushed, struct sub **out);
void session_sub_drop(struct session *s, struct sub *sub);
void session_behind_push(struct session *s, struct sub *sub);
struct sub *session_behind_pop(struct session *s);

#endif
