/* A TCP-like stream between a phone and a server, over packets that a link may lose, delay and cut: the model
 * of what the two kernels do. Pure: no clock, no allocation, no dice, integers only. It carries lengths, not
 * bytes: whoever owns it keeps the data and takes what lies below stream_received().
 *
 * What is modelled, after Linux 6.1: three-way handshake, SYN sent again after 1, 3, 7 s; retransmission
 * timeout of RFC 6298 with Linux's floor (srtt + max(4 rttvar, 200 ms), timestamps, doubling, 15 retries or 8
 * without an owner); fast retransmit after three duplicate acknowledgements, or after a quarter of the round
 * trip when fewer packets follow (RACK); slow start and congestion avoidance from 10 segments; delayed
 * acknowledgements of 40 ms after the first 16; finite send and receive buffers, zero windows and their
 * probes; FIN, RST, and RST as the answer of a kernel that has no such socket. Left out: urgent data, SACK
 * blocks (a cumulative acknowledgement that jumps does their work), window scaling, simultaneous open, path
 * MTU.
 *
 * An end whose owner has left (fin with `orphan`, abort, vanish) reports nothing more. The stream may be
 * forgotten when stream_over() and none of its packets are on their way.
 *
 * Offsets are of the byte stream of one direction, from 0. Must not know: links, events of a world. */
#ifndef NETEM_STREAM_H
#define NETEM_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#define STREAM_MSS         1388u /* with 52 bytes of headers: 1440, a tunnelled path */
#define STREAM_HEADERS     52u   /* IPv4, TCP, timestamps */
#define STREAM_SYN_HEADERS 60u
#define STREAM_SEND_MAX    87040u  /* unacknowledged and unsent bytes that the kernel takes */
#define STREAM_RECEIVE_MAX 131072u /* bytes that wait for an owner who does not read */
#define STREAM_GAPS_MAX    4       /* separate pieces kept beyond a hole; a further one is dropped */

enum stream_side { STREAM_PHONE, STREAM_SERVER };
enum stream_flag { STREAM_SYN = 1, STREAM_ACK = 2, STREAM_FIN = 4, STREAM_RST = 8 };

/* seq and ack count SYN and FIN as TCP does: SYN is 0, the first byte 1. */
struct stream_packet {
    uint64_t seq, ack, sent_ns, echo_ns;
    uint32_t len, window;
    uint8_t from, flags;
};
static inline uint32_t stream_packet_bytes(const struct stream_packet *p)
{
    return p->len + (p->flags & STREAM_SYN ? STREAM_SYN_HEADERS : STREAM_HEADERS);
}

enum stream_event {
    STREAM_CONNECTED, /* this end may send */
    STREAM_DATA,      /* stream_received() has grown */
    STREAM_ROOM,      /* stream_room() has grown from nothing */
    STREAM_ENDED,     /* the peer's FIN, everything before it was received */
    STREAM_REFUSED,   /* RST instead of a connection */
    STREAM_RESET,
    STREAM_TIMED_OUT, /* retries are used up */
};

struct stream;
struct stream_ops {
    void (*packet)(void *arg, struct stream *s, const struct stream_packet *p);
    /* May call stream_write, _fin, _abort and _vanish of its own end. */
    void (*event)(void *arg, struct stream *s, enum stream_side side, enum stream_event e);
    /* A SYN has come: does somebody listen? */
    bool (*accept)(void *arg, struct stream *s);
};

enum stream_state {
    STREAM_CLOSED,
    STREAM_SYN_SENT,
    STREAM_SYN_RECEIVED,
    STREAM_OPEN, /* data flows; also while FINs are under way */
    STREAM_GONE, /* this kernel knows no such socket */
};

struct stream_range {
    uint64_t from, to;
};
struct stream_end {
    uint64_t una, nxt, end;                   /* acknowledged, sent, written up to; all counting SYN */
    uint64_t rcv, read;                       /* received in order; taken by the owner (counting SYN) */
    uint64_t recover;                         /* loss recovery lasts until this is acknowledged; 0: none */
    uint64_t retransmitted;                   /* in recovery: sent again up to here */
    uint64_t rto_ns, ack_ns, rack_ns;         /* deadlines, 0: none */
    uint64_t acked_sent, echo_ns;             /* last ack sent; peer's time stamp to send back */
    uint64_t used_ns;                         /* last time anything was sent */
    uint64_t fin_at;                          /* where the peer's FIN stands; 0: none seen */
    struct stream_range gap[STREAM_GAPS_MAX]; /* pieces beyond a hole, rising */
    uint32_t srtt_us, rttvar_us, cwnd, ssthresh, window;
    uint8_t state, backoff, dupacks, gaps, quick;
    bool fin, fin_sent, ended, orphan, full; /* ended: the peer's FIN is received in order */
};
struct stream {
    const struct stream_ops *ops;
    void *arg;
    struct stream_end at[2];
};

/* Nothing is connected yet; the server's end listens by ops->accept. */
void stream_init(struct stream *s, const struct stream_ops *ops, void *arg);
void stream_connect(struct stream *s, uint64_t now_ns); /* the phone sends a SYN */
/* Bytes that may be written now, 0 when there is no connection (the kernel takes a whole write if there is
 * any room at all). */
uint32_t stream_room(const struct stream *s, enum stream_side side);
void stream_write(struct stream *s, enum stream_side side, uint32_t bytes, uint64_t now_ns);
/* The owner has taken everything below `offset`: the window opens again. */
void stream_read(struct stream *s, enum stream_side side, uint64_t offset, uint64_t now_ns);
/* FIN after what was written. `orphan`: the owner leaves, what still comes is answered by RST. */
void stream_fin(struct stream *s, enum stream_side side, bool orphan, uint64_t now_ns);
/* RST at once; unsent data is gone, and so is the socket. */
void stream_abort(struct stream *s, enum stream_side side, uint64_t now_ns);
/* The socket is gone without a word (power cut, address left). */
void stream_vanish(struct stream *s, enum stream_side side);

/* A packet reaches the other side. */
void stream_arrive(struct stream *s, const struct stream_packet *p, uint64_t now_ns);
/* The earliest deadline of an end, 0: none; and what to do then (early is harmless). */
uint64_t stream_due(const struct stream *s, enum stream_side side);
void stream_timer(struct stream *s, enum stream_side side, uint64_t now_ns);

uint64_t stream_written(const struct stream *s, enum stream_side side);  /* end of what was written */
uint64_t stream_acked(const struct stream *s, enum stream_side side);    /* of it, acknowledged by the peer */
uint64_t stream_received(const struct stream *s, enum stream_side side); /* by this side, in order */
bool stream_over(const struct stream *s);

#endif
