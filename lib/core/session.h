/* One connection of one device, as the server sees it. Plain data; the registry's pools hold it, the node
 * owns it. Its times are kept apart (struct session_clocks), where a heartbeat finds them and a sweep reads
 * nothing else. */
#ifndef CORE_SESSION_H
#define CORE_SESSION_H

#include "core/registry.h"
#include "proto/proto.h"
#include "trace/trace.h"
#include "util/clock.h"

/* FREE: the object is in the pool's list of unused ones. */
enum session_state { SESSION_FREE, SESSION_NEW, SESSION_RESUMING, SESSION_READY, SESSION_CLOSING };

/* A client's `sync`: pages of one chat at a time, delivered beside the positions. */
struct sync_job {
    struct sync_job *next;
    uint64_t chat, after, upto, since_us;
    uint32_t left; /* entries that may still be sent */
};

/* What most sessions need at their beginning only, or never. */
struct session_extra {
    struct trace_flow flow;
    uint64_t trusted_user; /* who may say hello without a token; 0: nobody */
    struct claim *claims;  /* of hello, until resumed */
    struct sync_job *sync_first, *sync_last;
    uint32_t claims_n, sync_n;
};

struct session {
    void *link;
    struct trace_lane lane; /* conn: lower half of the connection's number; net */
    uint32_t user;          /* 0 before hello */
    uint32_t next_of_user;
    uint32_t device;
    uint32_t subs;   /* the first position */
    uint32_t behind; /* the last of those that need reading, 0: none */
    uint32_t extra;  /* 0: none */
    uint32_t queued_bytes;
    uint32_t expires_s;       /* of the token */
    uint16_t subs_n, sending; /* sending: sends not yet answered */
    uint8_t state, codec;     /* enum session_state, enum proto_codec */
    bool reading;             /* one read is in flight for this session */
};
_Static_assert(sizeof(struct session) == 56, "ten million of them");

/* Milliseconds of the monotonic clock, modulo 2^32; 0: not running. Before hello unacked_ms is
 * CLOCK_GREETING: a heartbeat then says nothing. */
#define CLOCK_GREETING UINT32_MAX
struct session_clock {
    uint32_t heard_ms, unacked_ms;
};
/* One phone in one chat: what lib/README.md's table begins with. */
_Static_assert(sizeof(struct session) + sizeof(struct session_clock) + sizeof(struct user) +
                       sizeof(struct member) + sizeof(struct sub) <=
                   160,
               "a phone's share of the node");
#define CLOCKS_PAGE 8192u
struct session_clocks {
    struct session_clock **pages;
    uint32_t pages_n;
};
static inline uint32_t clock_ms(uint64_t mono_ns)
{
    uint32_t ms = (uint32_t)(mono_ns / NS_PER_MS);
    return ms && ms != CLOCK_GREETING ? ms : 1;
}
static inline struct session_clock *session_clock(const struct session_clocks *c, uint32_t number)
{
    return &c->pages[number / CLOCKS_PAGE][number % CLOCKS_PAGE];
}
int session_clocks_make(struct session_clocks *c, uint32_t number); /* ERR_NOMEM */
void session_clocks_release(struct session_clocks *c);

static inline uint32_t session_number(const struct registry *r, const struct session *s)
{
    return slab_number(&r->sessions, s);
}
/* The number of its connection: place in the pool, and a count that is never used twice. */
static inline uint64_t session_conn(const struct registry *r, const struct session *s)
{
    return (uint64_t)session_number(r, s) << 32 | s->lane.conn;
}
static inline struct session *registry_session(const struct registry *r, uint32_t number)
{
    return number ? slab_at(&r->sessions, number) : NULL;
}
static inline struct user *session_user(const struct registry *r, const struct session *s)
{
    return s->user ? slab_at(&r->users, s->user) : NULL;
}
static inline struct sub *registry_sub(const struct registry *r, uint32_t number)
{
    return number ? slab_at(&r->subs, number) : NULL;
}
static inline struct chat *sub_chat(const struct registry *r, const struct sub *sub)
{
    return slab_at(&r->chats, sub->chat);
}

/* NULL: none, or with `make` no memory. */
struct session_extra *session_extra(struct registry *r, struct session *s, bool make);
/* Free its parts (not the sync jobs) and, when nothing is left, itself. */
void session_extra_trim(struct registry *r, struct session *s);

struct sub *session_sub(const struct registry *r, const struct session *s,
                        const struct chat *c); /* NULL: none */
/* ERR_NOMEM leaves all as it was; ERR_LIMIT: 65,535 positions. */
int session_sub_add(struct registry *r, struct session *s, struct chat *c, uint64_t pushed, struct sub **out);
void session_sub_drop(struct registry *r, struct session *s, struct sub *sub);
void session_behind_push(struct registry *r, struct session *s, struct sub *sub);
struct sub *session_behind_pop(struct registry *r, struct session *s);

#endif
