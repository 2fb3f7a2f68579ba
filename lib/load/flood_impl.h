/* Inside of the flood: flood.c (timeline), flood_phone.c (one phone), flood_link.c (what is on its way, and
 * the wheel of time), flood_report.c. */
#ifndef LOAD_FLOOD_IMPL_H
#define LOAD_FLOOD_IMPL_H

#include <stddef.h>

#include "core/client.h"
#include "load/flood.h"
#include "netem/link.h"
#include "proto/bin.h"
#include "util/hist.h"

#define WHEEL_MS    2u
#define WHEEL_SLOTS 8192u /* 16 s; what is later comes by again */
#define RTO_MS      200u
#define RTO_MAX_MS  3200u
#define CREATES_MAX 20000u /* chats being made at once */
/* Two heartbeats that did not get through: a server may then take the phone for dead. */
#define HELD_UP_MS  20000u
#define WORD_MS     5000u /* in which the server's word that it gave up is here */
#define SAMPLE_MS   5000u
#define SAMPLES_MAX 512u /* what is later is not sampled */

/* SESSION_LOST: cut by us, the server's word that it is over has yet to come. */
enum flood_session { FLOOD_NONE, FLOOD_CONNECTING, FLOOD_OPEN, FLOOD_LOST };

/* What a heartbeat touches stands first, with the client's deadlines right behind it: three cache lines of
 * four. */
struct flood_phone {
    _Alignas(64) uint64_t rng;            /* of its link */
    uint32_t wake_ms, queued_ms[2];       /* when it wants to be woken; its entries in the wheel */
    uint32_t blocked_ms[2], arrive_ms[2]; /* per direction: head of line waits till; latest arrival */
    uint8_t session, era;                 /* era: what is on its way for an earlier session is dropped */
    bool bad_up : 1, bad_down : 1, again : 1, silent : 1, dark : 1, was_ready : 1, came : 1, chosen : 1;
    bool traced : 1;
    bool held_up : 1; /* its link let nothing through for HELD_UP_MS, until the latest arrivals upward */
    struct client client;
    uint64_t sum;               /* of the hashes of all ids it knows of its chat */
    uint32_t count, unread, up; /* ids known; bytes not yet credited; bytes of the stream up */
    uint32_t chat;
    uint32_t handed_ms, handed_tag; /* when its last message reached the server's door, and which it was */
};
_Static_assert(offsetof(struct flood_phone, client) + offsetof(struct client, ready_ns) <= 192,
               "a heartbeat in three cache lines");
_Static_assert(sizeof(struct flood_phone) + 88 <= 384, "a phone with the client's memory of its chat");

enum flood_item_kind { ITEM_CONNECT, ITEM_UP, ITEM_BEAT, ITEM_CONNECTED, ITEM_DOWN };

/* Something on its way through a phone's link. */
struct flood_item {
    uint32_t phone, len;
    uint32_t mark; /* up: tag of the message in it, 0: none; down: when the server let it out */
    uint8_t kind, era, attempt, class; /* class: of its memory */
    bool head, arrived;                /* head: it is the one that was lost, others wait for it */
    char data[];
};

/* What a slot holds, in order of putting: a list of blocks that all slots share. */
struct flood_block {
    struct flood_block *next;
    uint32_t n;
    union {
        struct flood_item *item[127];
        uint32_t phone[254];
    };
};

struct flood_list {
    struct flood_block *first, *last;
};

struct flood_slot {
    struct flood_list items, wakes;
};

#define ITEM_CLASSES 4 /* 64, 128, 256, 512 bytes; larger ones come from malloc */

struct flood_chat {
    uint32_t first, accepted; /* its members begin here; messages accepted */
    uint64_t sum;             /* of their ids' hashes */
    uint32_t asked_ms;
    bool ready;
};

struct flood_cell {
    struct link link;
    uint32_t until_ms;
    bool up;
};

/* What a traced phone has beside. Offsets count DATA bytes of its session, as the server does. */
struct flood_trace {
    struct trace_lane lane;
    uint32_t sent, read;
};

/* What was between two samples, for the curve over time. */
struct flood_sample {
    uint32_t at_ms, ready;
    uint64_t accepted, delivered;
    float served_p50_ms, served_p99_ms, lag_p99_ms;
};

enum flood_phase { FLOOD_IDLE, FLOOD_RAMP, FLOOD_PLATEAU, FLOOD_MASS, FLOOD_DRAIN, FLOOD_END };

struct flood {
    struct flood_config cfg;
    struct client_config client;
    struct client_pool pool;
    struct client_io io;
    struct rng rng;
    struct claim claims[64];
    struct flood_phone *phones;
    struct flood_chat *chats;
    uint32_t chats_n;
    struct flood_cell *cells;
    struct flood_trace *traced; /* of the phones of wanted blocks, block by block */
    uint32_t *traced_first;     /* of each block of users: 1 + its first in `traced` */
    uint32_t traced_n, conns;
    struct flood_slot *wheel;
    struct flood_block *blocks;              /* unused ones */
    struct flood_item *unused[ITEM_CLASSES]; /* linked through their first bytes */
    char *arena;
    size_t arena_left;
    uint32_t done_ms; /* slots up to here were served */
    uint64_t origin_ns;
    struct proto_scratch scratch;
    struct buf out;
    char *body;
    enum flood_phase phase;
    uint64_t phase_ns, ramp_done_ns, made_ns, mass_done_ns, began_ns, plateau_ns, ended_ns;
    uint32_t started, ready, came, mass_next, mass_left, mass_back, chats_ready, create_next, creating;
    uint64_t next_send_ns, next_churn_ns;
    /* what is being said */
    uint64_t intended_ns;
    /* counts */
    uint64_t sent, accepted, expected, delivered, duplicates, gaps, gave_up, resends, cuts, connects,
        idle_closes, wrong_idle_closes, wrong_closes, ended, undecodable, outboxes, in_transit, no_phone,
        refused_creates, verified, verify_bad;
    uint64_t silent_gone, silent_max_ms, silent_since_ms, beats, bytes_down, bytes_up, lost_packets;
    uint32_t came_ms; /* of the frame that is being read */
    /* latency, served, links: of what was to be said before the mass reconnect; mass_served: from then on */
    struct hist latency_us, server_us, served_us, links_us, mass_served_us, accept_us, lag_us;
    struct hist recent_served_us, recent_lag_us; /* since the last sample */
    struct flood_sample *samples;
    uint32_t samples_n, sampled_ms;
    uint64_t mass_ns;      /* when it began; 0: not yet */
    uint32_t mass_most_ms; /* 99 % of those cut are back */
    struct flood_outside outside;
    bool drained, interrupted, checked;
    int result;
    struct err_ctx why;
};

static inline uint32_t flood_ms(const struct flood *f)
{
    return (uint32_t)((f->io.now.mono_ns - f->origin_ns) / NS_PER_MS) + 1;
}
static inline struct now flood_now(struct flood *f)
{
    return f->io.now = f->cfg.world.now(f->cfg.world.arg);
}
static inline uint32_t flood_chat_size(const struct flood *f, uint32_t c)
{
    return f->chats[c + 1].first - f->chats[c].first;
}

/* flood_link.c */
int flood_links_init(struct flood *f, struct err_ctx *ctx);
void flood_links_release(struct flood *f);
void flood_wake(struct flood *f, uint32_t phone, uint32_t at_ms); /* 0: not any more */
/* Offer to the phone's link, in the direction of the kind; false: no memory, it is lost like a packet. */
bool flood_offer(struct flood *f, uint32_t phone, enum flood_item_kind kind, const void *p, size_t n,
                 uint32_t mark);
/* Serve the next slot of the wheel; false: its time has not come. */
bool flood_turn(struct flood *f);

/* flood_phone.c */
void flood_phone_init(struct flood *f, uint32_t i);
void flood_step(struct flood *f, uint32_t i, const struct client_event *e);
void flood_simple(struct flood *f, uint32_t i, enum client_event_type type);
void flood_arrived(struct flood *f, struct flood_item *item);
void flood_fire(struct flood *f, uint32_t i);
/* Its socket breaks (RST). */
void flood_cut(struct flood *f, uint32_t i);
void flood_emit(void *arg, struct client *c, const struct client_effect *e);
void flood_send_raw(struct flood *f, uint32_t i, const struct msg *m);

/* flood_trace.c: nothing for phones that are not traced. */
int flood_trace_init(struct flood *f, struct err_ctx *ctx);
void flood_trace_release(struct flood *f);
void flood_trace_opened(struct flood *f, uint32_t i);
void flood_trace_over(struct flood *f, uint32_t i, enum reason reason, int code);
void flood_trace_sent(struct flood *f, uint32_t i, const struct client_effect *e, size_t bytes);
void flood_trace_read(struct flood *f, uint32_t i, size_t bytes);
void flood_trace_effect(struct flood *f, uint32_t i, const struct client_effect *e);
void flood_trace_end(struct flood *f); /* lanes that are still open end with the run */

/* flood.c */
void flood_on_ready(struct flood *f, uint32_t i);
void flood_on_create(struct flood *f, uint64_t chat, bool ready);

#endif
