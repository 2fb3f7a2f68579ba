/* Inside the room: the process that carries packets from one TUN device to the other. One thread; what it
 * shares with its owner is counters and, if wanted, a log of fates. */
#ifndef NETEM_TUN_SHUTTLE_IMPL_H
#define NETEM_TUN_SHUTTLE_IMPL_H

#include "netem/link.h"
#include "netem/tun/capture_impl.h"
#include "netem/tun/held_impl.h"
#include "netem/tun/packet_impl.h"
#include "netem/tun/tun.h"
#include "trace/trace.h"

#define RADIOS    65536u /* NETEM_NEAR_NET is a /16 */
#define BATCH     64     /* packets read from one side before the other gets its turn */
#define NAT_FLOWS 131072 /* 2 MiB */
#define NO_GROUP  0xFFFFu

/* Orders on the control socket (SOCK_SEQPACKET), each answered by a struct shuttle_answer; the shuttle sends
 * the first answer by itself when it is ready. End of file means that the owner died. */
enum shuttle_op {
    SHUTTLE_BLACKOUT = 1,
    SHUTTLE_STOP,
    SHUTTLE_BEGIN,
    SHUTTLE_DETACH,
    SHUTTLE_ATTACH,
    SHUTTLE_PROFILE, /* `text`, its files relative to `cwd` */
    SHUTTLE_LOOK,    /* count the states of the radios */
};
struct shuttle_order {
    uint32_t op, group; /* group UINT32_MAX: all */
    uint32_t phone;     /* 0: all of the group */
    uint64_t ns;
    char text[NETEM_DESCRIPTION_MAX], cwd[1024];
};
struct shuttle_answer {
    int rc;
    char text[512];
};

struct shuttle_config {
    const struct tun_group *groups;
    uint32_t groups_n;
    uint64_t seed;
    const char *trace_dir, *capture_dir;
    struct tun_fates *fates;
    bool calm;               /* pass everything at once until SHUTTLE_BEGIN */
    struct tun_stats *stats; /* shared with the owner: one per group, and one for packets of no group */
    int tun_fd[2];           /* near, far */
    int ns_fd[2];
    int control_fd;
};

struct radio {
    struct link link;
    uint64_t timer_ns;          /* when its state is looked at next; UINT64_MAX: not */
    uint32_t held;              /* packets that have a verdict and wait for their time */
    uint32_t era;               /* link_address_era, as the phone knows it */
    struct waiting *waiting[2]; /* of directions with a drop-head queue, made when needed */
    uint16_t group;
    uint8_t state; /* enum link_state, as last seen */
    bool live;
};

/* A drop-head queue: what waits has no verdict yet, and is in the pool in the order of arrival. */
#define WAITING_MAX 8192
struct waiting {
    struct link_head head;
    struct link_waiting ring[WAITING_MAX];
    uint32_t slot[2 * WAITING_MAX]; /* a full queue has one more until the oldest has its verdict */
    uint32_t first, next;           /* of `slot`, modulo its size */
    uint64_t timer_ns;              /* its entry in shuttle.heads that counts */
};

/* What a group is told while it runs, for radios that are heard later. */
struct group_state {
    const struct netem_profile *profile;
    struct netem_profile *owned; /* after SHUTTLE_PROFILE; NULL: the configured one */
    uint64_t blackout_until_ns;
    bool detached;
};

struct shuttle {
    const struct shuttle_config *c;
    struct pool pool;
    struct heap due;    /* of packets */
    struct heap heads;  /* of drop-head queues, by radio * 2 + direction */
    struct heap states; /* of radios whose state may change; only when somebody is told of it */
    struct radio *radios;
    uint16_t *group_of; /* by the low half of the address */
    struct group_state groups[TUN_GROUPS_MAX];
    struct link_nat nat;
    struct trace *trace;
    struct trace_writer *writer;
    struct capture *capture;
    uint8_t spare[HELD_PACKET_SIZE]; /* where a packet is read to when the pool is empty */
    bool stop, orphaned, calm, watches;
};

/* Runs until told to stop or until the owner is gone, then kills what is left in the namespaces. */
void shuttle_run(const struct shuttle_config *c);

/* Counters are read by the owner meanwhile; this process alone writes them. */
static inline void count(uint64_t *counter, uint64_t n)
{
    __atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static inline struct tun_stats *stats_of(struct shuttle *s, uint32_t group)
{
    return &s->c->stats[group == NO_GROUP ? s->c->groups_n : group];
}

/* radio.c: radios and what they are seen to do. NULL: no group owns the address. */
struct radio *radio_of(struct shuttle *s, uint32_t phone, uint64_t now_ns);
static inline uint32_t radio_phone(const struct shuttle *s, const struct radio *r)
{
    return NETEM_NEAR_NET + (uint32_t)(r - s->radios);
}
/* A fresh link in what is the radio's network now. */
void radio_init_link(struct shuttle *s, struct radio *r, uint64_t now_ns);
/* Note a change of state and be back for the next one. */
void radio_watch(struct shuttle *s, struct radio *r, uint64_t now_ns);
void radio_run_states(struct shuttle *s, uint64_t now_ns);
/* Log an order, for replay. */
void radio_log(struct shuttle *s, const struct radio *r, enum tun_fate_kind kind, uint64_t now_ns,
               uint64_t until_ns);

/* Whether somebody must be told of this network's changes of state. */
bool radio_tells(const struct netem_profile *p);

/* carry.c: packets from one side to the other. */
void carry_batch(struct shuttle *s, enum netem_dir dir);
/* The packet that is due first arrives, or is lost after all (`forced`: for this reason). */
void carry_release(struct shuttle *s, uint64_t now_ns, enum reason forced);
/* The packet in pool slot `slot` has a verdict. */
void carry_decided(struct shuttle *s, struct radio *r, uint32_t slot, struct link_verdict v, uint64_t now_ns);

/* waiting.c: drop-head queues. NULL: this direction has none, or there is no memory for one (*full). */
struct waiting *waiting_of(struct shuttle *s, struct radio *r, enum netem_dir dir, bool *full);
/* Give verdicts that are due, put a packet at the end, and be back for the next. */
void waiting_put(struct shuttle *s, struct radio *r, struct waiting *w, uint32_t slot, uint64_t now_ns);
void waiting_run(struct shuttle *s, uint64_t now_ns);
/* After an order changed the radio's link: give the verdicts that follow. */
void waiting_check(struct shuttle *s, struct radio *r, uint64_t now_ns);
/* All that waits is offered anew, to the link as it is now; `forced`: or lost for this reason. */
void waiting_flush(struct shuttle *s, struct radio *r, uint64_t now_ns, enum reason forced);

/* orders.c: what the owner and the phones say. */
void orders_take(struct shuttle *s);
void orders_answer(struct shuttle *s, int rc, const char *text);
void orders_in_band(struct shuttle *s, const struct packet *p, const uint8_t *at, uint64_t now_ns);

#endif
