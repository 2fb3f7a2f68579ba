/* TCP streams out of captured packets: each byte once, in order, with what is missing said as a gap.
 *
 * Bytes that lie next are handed on at once, without a copy. What came too early is held until the hole
 * before it is filled. Whether a hole will be filled is decided by the acknowledgements: once the receiver
 * has acknowledged it (and TCP_CONFIRM_PACKETS more packets, or TCP_CONFIRM_NS, have not brought it), it
 * arrived and only the capture missed it; a hole that nobody acknowledged stays open until the connection
 * ends, or until TCP_HOLD_BYTES or TCP_HOLD_SEGMENTS wait behind it. A segment that says other bytes for a
 * place that is already taken does not replace them (conflicts are counted where both are at hand).
 *
 * Offsets count from the first byte after the SYN, in 64 bits, so that the 32-bit numbers may wrap. Where the
 * SYN was not captured (half.origin_known false) they count from the first byte seen.
 *
 * Memory: everything is charged against config.memory; beyond it the connections that were silent longest
 * are evicted, their loss is a gap (TCP_GAP_LIMIT) and counted.
 *
 * Must not know: files, what the bytes mean. */
#ifndef WIRE_TCP_H
#define WIRE_TCP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/err.h"
#include "wire/packet.h"

#define TCP_CONFIRM_PACKETS 32
#define TCP_CONFIRM_NS      1000000000ull
#define TCP_HOLD_BYTES      (4u << 20) /* of one direction */
#define TCP_HOLD_SEGMENTS   4096u
#define TCP_LINGER_NS       30000000000ull /* a connection that ended is remembered this long, for stragglers */
#define TCP_MARKS_MAX       4096u          /* per direction; older ones are forgotten and that is said */

enum tcp_gap {
    TCP_GAP_MISSED,  /* acknowledged: it arrived, the capture missed it */
    TCP_GAP_UNACKED, /* never captured and never acknowledged */
    TCP_GAP_SNAPPED, /* the packet was captured in part */
    TCP_GAP_LIMIT,   /* we let go of it */
    TCP_GAPS
};
enum tcp_end {
    TCP_END_OPEN,   /* the capture ends first */
    TCP_END_FIN,    /* both sides closed */
    TCP_END_RST,    /* reset; see rst_dir */
    TCP_END_REUSED, /* a new connection took its ports */
    TCP_END_EVICTED,
    TCP_ENDS
};
const char *tcp_end_name(enum tcp_end e); /* "open", "fin"... */

/* One thing that happened to a direction's bytes, for those who ask later. */
enum tcp_mark_kind {
    TCP_MARK_DATA,    /* first transmission that was captured */
    TCP_MARK_AGAIN,   /* bytes that had been captured before */
    TCP_MARK_LATE,    /* first captured after bytes that follow it: out of order, or lost before the tap */
    TCP_MARK_COPY,    /* the same packet captured twice */
    TCP_MARK_ZERO,    /* the receiver's window closed (from: what was acknowledged then) */
    TCP_MARK_OPENED,  /* and opened */
    TCP_MARK_FIN,     /* of this direction's sender */
    TCP_MARK_RST,     /* of this direction's sender */
    TCP_MARK_RST_RECV /* of this direction's receiver */
};
struct tcp_mark {
    uint64_t ts_ns, from, packet; /* packet: number in the capture */
    uint32_t len;
    uint8_t kind;
};

struct tcp_hold;
struct tcp_half {    /* the bytes that flow->addr[d] sends */
    uint32_t origin; /* sequence number of offset 0 */
    uint64_t next;   /* all below was handed on or given up */
    uint64_t acked;  /* by the receiver; valid when ack_seen */
    uint64_t acked_ns;
    uint64_t seen; /* end of the highest byte captured */
    uint64_t fin_at;
    uint64_t hole_ns;
    uint32_t hole_packet; /* 0: no acknowledged hole is waiting for confirmation */
    uint32_t held, holds; /* bytes, segments */
    struct tcp_hold *hold, *hold_last;
    uint64_t packets, bytes, again_packets, again_bytes, late_packets, missed_bytes, zero_windows, zero_ns;
    uint64_t zero_since_ns;
    struct tcp_mark *mark;
    uint32_t mark_cap, mark_at, mark_n; /* a ring */
    uint64_t marks_lost;                /* marks that were forgotten */
    uint32_t last_seq, last_len;
    uint64_t last_ns;
    uint16_t last_ip_id;
    uint8_t wscale; /* 0xff: not known */
    bool begun, origin_known, ack_seen, fin, ended, zero;
    bool skip; /* nobody wants the bytes: numbers only, nothing is held */
};

struct tcp_flow {
    uint8_t addr[2][16]; /* 0: the client, by its SYN, else the side with the higher port */
    uint16_t port[2];
    uint32_t point; /* of capture: the same 4-tuple at another point is another flow */
    uint64_t number, first_ns, last_ns, packets;
    uint64_t syn_ns, synack_ns, ack_ns; /* of the handshake; 0: not seen */
    uint64_t rst_ns, fin_ns[2];
    int rst_dir; /* valid when rst_ns */
    enum tcp_end end;
    struct tcp_half half[2];
    void *user; /* the listener's */
    bool done, client_known;
    /* the table's own */
    struct tcp_flow *chain, *newer, *older;
    uint64_t hash;
};

struct tcp_events { /* any may be NULL; none may touch the table */
    void *arg;
    void (*open)(void *arg, struct tcp_flow *f);
    /* The bytes may be changed in place and are gone when it returns. ts_ns: of the packet that made them
     * available (a filled hole releases what waited behind it). */
    void (*data)(void *arg, struct tcp_flow *f, int dir, uint64_t at, uint8_t *p, size_t n, uint64_t ts_ns);
    void (*gap)(void *arg, struct tcp_flow *f, int dir, uint64_t from, uint64_t to, enum tcp_gap why,
                uint64_t ts_ns);
    void (*acked)(void *arg, struct tcp_flow *f, int dir, uint64_t ts_ns); /* half[dir].acked rose */
    void (*close)(void *arg, struct tcp_flow *f); /* last call; user is to be freed */
    void (*shed)(void *arg, struct tcp_flow *f);  /* memory is short: drop buffers */
};

struct tcp_config {
    size_t memory;
    uint32_t flows_max; /* 0: 1 << 20 */
    bool marks;
    struct tcp_events on;
};

struct tcp_counts {
    uint64_t flows, packets, bytes, again_packets, late_packets, copies, conflicts, evicted, missed_bytes,
        unacked_bytes, snapped_bytes, limit_bytes, out_of_window, no_memory;
};

struct tcp {
    struct tcp_config c;
    struct tcp_flow **bucket, *newest, *oldest, *done_first, *done_last, *last;
    uint64_t buckets;
    size_t used, used_max;
    uint32_t live;
    uint64_t seed;
    struct tcp_counts count;
};

int tcp_init(struct tcp *t, const struct tcp_config *c, struct err_ctx *ctx);
/* Hot path: allocates only for a new connection or a segment out of order. */
void tcp_packet(struct tcp *t, const struct packet *k, uint32_t point, uint64_t ts_ns, uint64_t number);
/* Bytes that somebody else put in order (PACKET_PDU): they follow those that came before. */
void tcp_pdu(struct tcp *t, struct packet *k, uint32_t point, uint64_t ts_ns, uint64_t number);
/* End every connection as it stands. */
void tcp_finish(struct tcp *t);
void tcp_release(struct tcp *t);
/* A listener's memory for its flows. */
static inline void tcp_charge(struct tcp *t, ptrdiff_t bytes)
{
    t->used = (size_t)((ptrdiff_t)t->used + bytes);
    if (t->used > t->used_max)
        t->used_max = t->used;
}
/* Mark i of a direction, 0 the oldest that is kept. */
static inline const struct tcp_mark *tcp_mark(const struct tcp_half *h, uint32_t i)
{
    uint32_t at = h->mark_at + i;
    return &h->mark[at < h->mark_cap ? at : at - h->mark_cap];
}

#endif
