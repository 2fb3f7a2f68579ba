/* What captures say about messages, as trace records: they stand in for the traces that nobody wrote.
 *
 * Each capture file is a point. Whether it lies at the phones' end or at the server's is seen in the
 * handshakes (which half of the round trip lies on which side of it). What lies at the phones' end yields
 * records as the phones' own trace would (opened, sent, received, closed), what lies at the server's end as
 * the server's (received, pushed, closed); where both are there, packets are matched one by one: what left
 * one end and did not come out at the other was dropped, the rest was delivered. With the server's end alone,
 * what the phone's TCP acknowledged counts as received.
 *
 * A capture shows bytes, not people: "surface" is inferred where a phone's TCP acknowledged a message and the
 * connection then went on, or was closed with a FIN (a close with bytes unread is a reset, RFC 1122 section
 * 4.2.2.13). What a phone got after its own last word, on a connection that it then reset, was read or was
 * not: TRACE_FLAG_UNSURE, and the verdict is not_observed.
 *
 * A phone that opens another connection has left the one before, perhaps without a word: not before the last
 * packet that the link took for it, while nothing kept its FIN from being seen, and not after the new SYN.
 * A push within what remains was to a dead socket or lost on the way: not_observed. A connection that is open
 * when its capture ends has that end (REASON_RUN_END), with the same doubt.
 *
 * Bytes and a FIN that were written behind bytes without an acknowledgement leave when that comes: they are
 * as old as these, perhaps. Such a FIN, or a reset that answers meanwhile, leaves the time of the close
 * unsure, such bytes are no sign of a living app. A phone whose TCP took new bytes had not left: after
 * close(2) it answers them with a reset (same section).
 *
 * What the server's TCP took its program has read when it pushed it, or later bytes of that stream, or came
 * to the phone's FIN; also where it had 100 ms for it on a connection that it could write to and did not
 * leave. Else the record of its arrival is TRACE_FLAG_UNSURE.
 *
 * With the server's end alone, what a phone had not acknowledged when it closed counts as lost on the way
 * down, although it may have reached a phone whose app did not read it any more; what it never tried to send
 * is not seen. With the phones' end alone, what they received is known, and not what became of what they
 * sent.
 *
 * Members of a chat are those that `create`, `join`, `leave` name, and whoever sent or was sent to there.
 *
 * Completeness: a part is complete when its capture missed nothing: no gap, no eviction, no packet dropped,
 * every WebSocket from its handshake on, no message unreadable. Else absence proves nothing (trace/join.h).
 *
 * Clocks: two points are compared by their matched packets. While both directions' least delays are
 * positive, the clocks are left as they are; else the far one is moved to the middle of what is possible.
 * Limits: addresses of IPv6 are folded to 32 bits; a NAT that rewrites ports between the points is not seen
 * through. Memory: 64 bytes a packet of a WebSocket connection, and what the tap holds. */
#ifndef WIRE_PCAP_EVIDENCE_H
#define WIRE_PCAP_EVIDENCE_H

#include "trace/reader.h"

#define EVIDENCE_POINTS_MAX 32

struct dialect;
struct evidence;

enum evidence_role { EVIDENCE_UNKNOWN, EVIDENCE_PHONES, EVIDENCE_SERVER };

struct evidence_point {
    char path[256];
    enum evidence_role role;
    uint64_t packets, connections, messages, first_ns, last_ns;
    uint64_t missed;    /* bytes, packets, connections and messages that are not whole: > 0: not complete */
    int64_t clock_ns;   /* what was added to its times */
    uint64_t clock_err; /* how far that may be off, ns; 0: not compared */
};

int evidence_new(struct evidence **out, struct dialect *dialect, size_t memory, struct err_ctx *ctx);
/* 0; on a fault what was whole counts, and the point as incomplete; the sentence is in ctx. */
int evidence_read(struct evidence *e, const char *path, struct err_ctx *ctx);
/* After the last file: roles, clocks, packets, records. `want`: sides that have no trace of their own. */
int evidence_finish(struct evidence *e, const bool want[TRACE_SIDES], struct err_ctx *ctx);
/* The parts for trace_run_load_with; they are the evidence's. */
int evidence_parts(const struct evidence *e, const struct trace_memory **part);
int evidence_points(const struct evidence *e, const struct evidence_point **point);
void evidence_free(struct evidence *e); /* NULL is fine */

#endif
