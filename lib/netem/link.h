/* One radio: what becomes of each packet that a phone sends or is sent. Pure and seeded: no clock, no socket,
 * no allocation, integers only, so that (profile, seed, stream) and the same offers give the same fates on
 * any machine and compiler. The link holds no packets: the driver keeps each one until its deliver_ns.
 *
 * A packet waits for the rate (drop-tail queue, in bytes; `bytes` are those of the IP packet), is on the air
 * at its depart_ns, and arrives one delay (+- jitter) later, never before its predecessor. It is lost when
 * the air is inside a blackout or a handover at depart_ns, or when the Gilbert-Elliott chain of its
 * direction, which moves once per packet on the air, is in the bad state. During a stall packets wait.
 *
 * Blackouts, handovers and stalls are drawn from (seed, number of the window), never from traffic, so two
 * links with the same seed have the same weather whatever is sent. Times are nanoseconds of any monotonic
 * clock that starts below 2^62; `now` must not go back.
 *
 * Sources: Gilbert-Elliott loss: netem's "gemodel", Hasslinger & Hohlfeld 2008; a link that waits in virtual
 * time: Mahimahi (USENIX ATC 2015), here without a tick. */
#ifndef NETEM_LINK_H
#define NETEM_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "netem/profile.h"
#include "trace/trace.h"

/* What a phone would see, worst first; `arg` of LINK_STATE records. Numbers are part of the trace format. */
enum link_state {
    LINK_UP = 0,
    LINK_STALLED = 1,
    LINK_HANDOVER = 2,       /* keeps its address */
    LINK_HANDOVER_LOSES = 3, /* and every NAT mapping is gone */
    LINK_BLACKOUT = 4,
    LINK_DETACHED = 5,
};

struct link_window {
    uint64_t start_ns;
    uint32_t length_us, number; /* the first window that ends after the latest `now` */
};

/* Plain data, caller-owned, nothing to release. */
struct link {
    const struct netem_profile *profile; /* must outlive the link */
    uint64_t seed;
    struct link_window blackout, handover, stall;
    struct {
        uint64_t rng, free_ns, deliver_ns; /* when the rate is free again; latest arrival */
    } way[2];
    uint64_t forced_from_ns, forced_until_ns; /* link_blackout */
    uint64_t detached_ns, attached_ns;        /* the latest of each */
    uint64_t active_ns; /* radio resource control: last packet, may lie ahead while waking */
    uint32_t nat_era;   /* mappings of earlier eras are gone */
    bool bad[2], detached, woken;
};
_Static_assert(sizeof(struct link) == 160, "a link stays small: millions of them are simulated");

struct link_verdict {
    enum reason reason; /* REASON_NONE: deliver it at deliver_ns */
    uint64_t depart_ns, deliver_ns;
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

/* Bring the windows up to now. The other calls do so themselves. */
void link_advance(struct link *l, uint64_t now_ns);
enum link_state link_state(struct link *l, uint64_t now_ns);
/* When the state may change next (UINT64_MAX: never by itself). */
uint64_t link_state_until(struct link *l, uint64_t now_ns);

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
