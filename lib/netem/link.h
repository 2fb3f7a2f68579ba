/* One radio: what becomes of each packet that a phone sends or is sent. Pure and seeded: no clock, no socket,
 * no allocation, integers only, so that (profile, seed, stream) and the same offers give the same fates on
 * any machine and compiler. The link holds no packets: the driver keeps each one until its deliver_ns.
 *
 * A packet waits for the rate, or for the delivery opportunities of a Mahimahi trace (drop-tail queue, in
 * bytes; `bytes` are those of the IP packet), is on the air at its depart_ns, and arrives one delay (+-
 * jitter) later, never before its predecessor, unless it was chosen to be reordered. It is lost when the air
 * is inside a blackout or a handover at depart_ns, or when the Gilbert-Elliott chain of its direction, which
 * moves once per packet on the air, is in the bad state. During a stall, and during a handover between cells
 * of one technology, packets wait.
 *
 * Correlated jitter takes its predecessor's value again with the probability jitter_corr, so that the
 * distribution stays the one asked for and the correlation at lag k is jitter_corr^k (netem's mixing narrows
 * the distribution).
 *
 * The radio sleeps by silence: after drx_after it listens to the network only each drx_short, later each
 * drx_long (what is sent down waits for that), after rrc_fach and rrc_idle a promotion comes first, and down,
 * the paging cycle.
 *
 * Blackouts, handovers and stalls are drawn from (seed, number of the window), never from traffic, so two
 * links with the same seed have the same weather whatever is sent. Times are nanoseconds of any monotonic
 * clock that starts below 2^62; `now` must not go back.
 *
 * Sources: Gilbert-Elliott loss, reordering: netem, Hasslinger & Hohlfeld 2008; a link that waits in virtual
 * time: Mahimahi (USENIX ATC 2015), here without a tick. */
#ifndef NETEM_LINK_H
#define NETEM_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "netem/profile.h"
#include "trace/trace.h"

/* What a phone would see; `arg` of LINK_STATE records. Numbers are part of the trace format. */
enum link_state {
    LINK_UP = 0,
    LINK_STALLED = 1,
    LINK_HANDOVER = 2,       /* keeps its address */
    LINK_HANDOVER_LOSES = 3, /* and every NAT mapping is gone: the phone has a new address afterwards */
    LINK_BLACKOUT = 4,
    LINK_DETACHED = 5,
    LINK_CELL = 6,           /* handover within a technology: packets wait */
    LINK_BLACKOUT_LOSES = 7, /* a blackout after which the phone has a new address */
    LINK_STATE_COUNT
};

struct link_window {
    uint64_t start_ns;
    uint32_t length_us, number; /* the first window that ends after the latest `now` */
};

/* Plain data, caller-owned, nothing to release. */
struct link {
    const struct netem_profile *profile; /* must outlive the link, or link_change away from it */
    uint64_t seed;
    struct link_window blackout, handover, cell, stall;
    struct {
        uint64_t rng;
        uint64_t free_ns;    /* when the rate is free again; with a trace: bytes of it that are taken */
        uint64_t deliver_ns; /* latest arrival */
    } way[2];
    uint64_t begun_ns;                        /* lists of blackouts and traces start here */
    uint64_t forced_from_ns, forced_until_ns; /* link_blackout */
    uint64_t detached_ns, attached_ns;        /* the latest of each */
    uint64_t active_ns;  /* radio resource control: last packet, may lie ahead while waking */
    uint32_t jitter[2];  /* the draw of the latest packet */
    uint32_t nat_era;    /* mappings of earlier eras are gone; see link_address_era */
    uint8_t in_order[2]; /* packets since the latest reordered one, counted up to the gap */
    bool bad_up : 1, bad_down : 1, swaps_up : 1, swaps_down : 1, detached : 1, woken : 1, dozing : 1;
};
_Static_assert(sizeof(struct link) == 192, "a link stays small: millions of them are simulated");

struct link_verdict {
    enum reason reason; /* REASON_NONE: deliver it at deliver_ns */
    bool corrupt;       /* flip bit `corrupt_bit` of the IP packet before it is delivered */
    bool reordered;     /* it jumped the delay: it may arrive before its predecessors */
    uint32_t corrupt_bit;
    uint64_t depart_ns, deliver_ns;
    uint64_t copy_ns; /* deliver a second, undamaged copy then; 0: none. Same depart_ns */
};

void link_init(struct link *l, const struct netem_profile *p, uint64_t seed, uint64_t stream,
               uint64_t now_ns);

/* Hot path. The fate of a packet of `bytes` offered now. */
struct link_verdict link_offer(struct link *l, enum netem_dir dir, uint64_t now_ns, uint32_t bytes);

/* For packets that the driver still holds: REASON_NONE, or why a packet with this depart_ns is lost after all
 * (the phone detached or a blackout was forced before it was on the air). */
enum reason link_recheck(const struct link *l, enum netem_dir dir, uint64_t depart_ns);

/* The phone leaves: all that is offered, or not yet on the air, is dropped (DETACHED). */
void link_detach(struct link *l, uint64_t now_ns);
/* It is back, with an empty queue and no NAT mappings. */
void link_attach(struct link *l, uint64_t now_ns);
/* A blackout from outside, from now until `until_ns`; a later end wins. */
void link_blackout(struct link *l, uint64_t now_ns, uint64_t until_ns);
/* Another profile from now on: queue and chain begin anew, and so do those windows that it changes (with a
 * clocked blackout or a trace, also the clock they count from); other weather, address, NAT mappings, a
 * forced blackout and the order of what is in flight stay. */
void link_change(struct link *l, const struct netem_profile *p, uint64_t now_ns);

/* Bring the windows up to now. The other calls do so themselves. */
void link_advance(struct link *l, uint64_t now_ns);
enum link_state link_state(struct link *l, uint64_t now_ns);
/* When the state may change next (UINT64_MAX: never by itself). */
uint64_t link_state_until(struct link *l, uint64_t now_ns);
/* Which of its addresses the phone has: another number after a handover or blackout that lost the old one,
 * and after link_attach. A driver that sees it change tells the phone, or ends the flows of the old address.
 */
uint32_t link_address_era(struct link *l, uint64_t now_ns);

/* --- drop-head queues ---
 *
 * With queue_drop=head a full queue gives up its oldest waiting packet, so a packet's fate is open until its
 * first byte is sent. The driver keeps the waiting packets of such a direction (netem_direction.queue_head)
 * in order of arrival and offers them here instead of by link_offer:
 *
 *     link_head_offer(&h, now, bytes); append the packet to the driver's FIFO
 *     then, and whenever link_head_due(&h) <= now:
 *     while (link_head_next(&h, now, &v)) take the FIFO's first packet; v is its verdict, as of link_offer
 *
 * Each link_head_next is about the oldest packet that has no verdict. A driver that uses link_offer in spite
 * of queue_head gets a drop-tail queue, which netem_profile_lacks must then say for it. What waits when the
 * phone detaches is DETACHED. The ring is the caller's: `size` entries, a power of two; when it is full the
 * oldest packet is dropped too. */
struct link_waiting {
    uint64_t ready_ns;
    uint32_t bytes;
};
struct link_head {
    struct link *link;
    struct link_waiting *ring;
    uint32_t mask, first, next, dropped; /* the first `dropped` of [first, next) lost their place */
    uint64_t bytes;                      /* of those that wait, without the dropped */
    uint64_t due_ns;
    enum netem_dir dir;
};
void link_head_init(struct link_head *h, struct link *l, enum netem_dir dir, struct link_waiting *ring,
                    uint32_t size);
/* A bug unless link_head_next said false for this time before. */
void link_head_offer(struct link_head *h, uint64_t now_ns, uint32_t bytes);
bool link_head_next(struct link_head *h, uint64_t now_ns, struct link_verdict *v);
/* When to call link_head_next again; UINT64_MAX: nothing waits. */
uint64_t link_head_due(const struct link_head *h);

/* --- NAT ---
 *
 * One table serves any number of links: a set-associative cache of mappings in memory that is fixed at init.
 * When a set of 4 is full the longest silent mapping makes way, as in a real NAT that runs out of ports. */
struct link_mapping {
    uint64_t key, last_ns;
};
struct link_nat {
    struct link_mapping *at;
    uint64_t mask; /* number of sets - 1 */
};

struct link_flow {
    uint32_t phone, peer;
    uint16_t phone_port, peer_port; /* ICMP echo: the identifier, 0 */
    uint8_t protocol;
    bool syn; /* TCP SYN without ACK */
};

/* Room for at least `flows` mappings. ERR_NOMEM. */
int link_nat_init(struct link_nat *n, uint32_t flows);
void link_nat_release(struct link_nat *n);
/* REASON_NONE or NAT_EXPIRED. Ask before link_offer downwards, after it upwards: the NAT is beyond the radio.
 * An outbound packet makes a mapping, unless it is TCP without SYN: such a flow began under a mapping that is
 * gone. Any packet that passes refreshes it. Profiles without NAT let everything pass. */
enum reason link_nat_pass(struct link *l, struct link_nat *n, enum netem_dir dir, uint64_t now_ns,
                          const struct link_flow *f);

#endif
