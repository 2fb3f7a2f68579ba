/* Inside the room: the state of a connection. core.c: bytes in and out; faults.c: places and ends; times.c:
 * windows and delays. */
#ifndef NETEM_PROXY_CORE_IMPL_H
#define NETEM_PROXY_CORE_IMPL_H

#include "netem/proxy/core.h"
#include "netem/proxy/follow_impl.h"
#include "netem/proxy/queue_impl.h"

#define MARKS_MAX 8     /* places ahead in one way; more are not placed, and said */
#define MSS       1448u /* what a link profile is offered at a time, in a packet of 52 bytes more */

struct mark { /* something happens when the bytes before `offset` have been passed on */
    uint64_t offset;
    uint8_t toxic; /* slot */
};

/* Offsets count what was put into the queue: what came, and what was said twice. */
struct way {
    struct queue q;
    uint64_t in;           /* bytes that came */
    uint64_t added, timed; /* put into the queue; of these: may leave at some time, the rest is held */
    uint64_t written;      /* left, or were thrown away */
    uint64_t floor_ns;     /* nothing that comes behind a stall leaves earlier */
    uint64_t gate_from;    /* a stall without end begins here; UINT64_MAX: none */
    uint64_t void_from, void_until_ns; /* a blackhole that began at a place; 0: without end */
    uint64_t paced_ns, slice_ns;       /* when the rate is free again; when the next slice may go */
    uint64_t fin_due_ns, end_due_ns;
    uint64_t key;                        /* what jitter is drawn by: the start of the frame or of the piece */
    uint64_t frame_at, frame_len, frame; /* the frame that is coming in: offset, bytes, number */
    uint64_t hold_at;                    /* bytes from here wait until it is known (UINT64_MAX: none) */
    uint32_t by_id, maybe_again;         /* toxics that wait for their id in it; of these: say it again */
    uint32_t again;                      /* toxics that say it again */
    struct buf copy;                     /* of the frame, to say it again */
    struct mark marks[MARKS_MAX];        /* rising */
    uint64_t end_for_ns;
    enum proxy_end ends_as;
    uint8_t marks_n, end_side, gate_toxic, void_toxic;
    bool over, ending; /* nothing more is taken in; by a toxic */
    bool fin_in, fin_out, reset_in, backlog;
};

struct proxy_conn {
    const struct proxy_rules *rules;
    uint64_t number, opened_ns, silent_until_ns;
    uint32_t changes;      /* of the rules, as last seen */
    uint32_t known, on;    /* slots: looked at; this connection is in the share */
    uint32_t fired;        /* slots that ended something by time */
    uint32_t counted;      /* slots whose hit was counted (those that work all the time count once) */
    struct follow *follow; /* NULL: plain */
    struct link *link;     /* of a profile, or NULL; with its profile as far as streams go */
    struct netem_profile *profile;
    uint64_t link_now_ns; /* the latest time that the link was asked about */
    uint8_t link_slot, silent;
    enum proxy_end end;
    proxy_note *note;
    void *arg;
    struct way way[2];
};

/* --- times.c --- */

/* Is the toxic in this slot at work now for this connection? *edge: when that may change. */
bool toxic_active(const struct proxy_conn *c, unsigned i, uint64_t now_ns, uint64_t *edge);
uint32_t toxics_of(const struct proxy_conn *c, enum netem_dir d); /* slots that concern this way */
bool toxics_need_bytes(const struct proxy_conn *c, enum netem_dir d, uint64_t now_ns);
/* When n bytes that are passed on now may leave. */
uint64_t leave_at(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, size_t n);
/* How much later a FIN goes. */
uint64_t fin_delay(struct proxy_conn *c, enum netem_dir d);
/* By time nothing leaves this way now, or into nowhere; *until: when that changes. */
bool way_stalled(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, uint64_t *until);
bool way_void(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, uint64_t *until);
/* How many of n bytes rate and slicer let out now; *next when none. */
size_t way_budget(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, size_t n, uint64_t *next);
void way_spend(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, size_t n);
/* Take out of a profile what no stream can have; netem_profile_lacks says so to people. */
void profile_for_streams(struct netem_profile *p);

/* --- faults.c --- */

void tell(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, const struct proxy_toxic *t,
          const char *what, uint64_t offset, bool by_place);
void forget_toxics(struct proxy_conn *c, uint32_t slots);
/* A toxic that works all the time counts, and is said, once a connection. */
void toxic_seen(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, unsigned i);
/* The place of a toxic that acts after so many bytes. */
void place_bytes(struct proxy_conn *c, unsigned i, uint64_t now_ns);
/* The header of a frame is whole; ids were found in it; it is over. */
void frame_begins(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, size_t header_n);
void frame_found(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, uint32_t found);
void frame_ends(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns);
/* Let bytes up to this offset leave, doing what is marked on the way. */
void pass_on(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns, uint64_t upto);
/* Toxics that end a connection by time alone. */
void end_by_time(struct proxy_conn *c, uint64_t now_ns);
void come_to_end(struct proxy_conn *c, enum proxy_end end, unsigned side, uint64_t for_ns, uint64_t now_ns);
void out_of_memory(struct proxy_conn *c, enum netem_dir d, uint64_t now_ns);

#endif
