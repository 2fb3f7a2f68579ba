#include "netem/stream.h"

#include "util/clock.h"
#include "util/err.h"

#define RTO_INITIAL_NS NS_PER_S
#define RTO_FLOOR_NS   (200 * NS_PER_MS)
#define RTO_MAX_NS     (120 * NS_PER_S)
#define ACK_DELAY_NS   (40 * NS_PER_MS)
#define SYN_RETRIES    6
#define RETRIES        15
#define RETRIES_ORPHAN 8
#define QUICK_ACKS     16
#define PROBE_BACKOFF  6               /* a peer that says its window is shut is alive */
#define FIN_WAIT_NS    (60 * NS_PER_S) /* an orphan waits so long for the peer's FIN */
#define CWND_INITIAL   (10 * STREAM_MSS)
#define CWND_MAX       (1u << 20)

static enum stream_side other(enum stream_side side)
{
    return side == STREAM_PHONE ? STREAM_SERVER : STREAM_PHONE;
}

static uint64_t rto(const struct stream_end *e)
{
    uint64_t ns = RTO_INITIAL_NS;
    if (e->srtt_us) {
        uint64_t wide = 4 * (uint64_t)e->rttvar_us * NS_PER_US;
        ns = e->srtt_us * NS_PER_US + (wide > RTO_FLOOR_NS ? wide : RTO_FLOOR_NS);
    }
    ns <<= e->backoff < 12 ? e->backoff : 12;
    return ns < RTO_MAX_NS ? ns : RTO_MAX_NS;
}

/* RFC 6298 section 2, in microseconds. */
static void measure(struct stream_end *e, uint64_t ns)
{
    uint32_t us = (uint32_t)(ns / NS_PER_US ? ns / NS_PER_US : 1);
    if (!e->srtt_us) {
        e->srtt_us = us;
        e->rttvar_us = us / 2;
        return;
    }
    uint32_t off = e->srtt_us > us ? e->srtt_us - us : us - e->srtt_us;
    e->rttvar_us = (uint32_t)((3ull * e->rttvar_us + off) / 4);
    e->srtt_us = (uint32_t)((7ull * e->srtt_us + us) / 8);
}

static void emit(struct stream *s, enum stream_side side, uint8_t flags, uint64_t seq, uint32_t len,
                 uint64_t now_ns)
{
    struct stream_end *e = &s->at[side];
    uint64_t waiting = e->rcv - e->read;
    struct stream_packet p = {.seq = seq,
                              .ack = e->rcv,
                              .sent_ns = now_ns,
                              .echo_ns = e->echo_ns,
                              .len = len,
                              .window =
                                  waiting < STREAM_RECEIVE_MAX ? (uint32_t)(STREAM_RECEIVE_MAX - waiting) : 0,
                              .from = (uint8_t)side,
                              .flags = flags};
    if (flags & STREAM_ACK) {
        e->ack_ns = 0;
        e->acked_sent = e->rcv;
    }
    e->used_ns = now_ns;
    s->ops->packet(s->arg, s, &p);
}

static void tell(struct stream *s, enum stream_side side, enum stream_event event)
{
    if (!s->at[side].orphan)
        s->ops->event(s->arg, s, side, event);
}

static void forget(struct stream_end *e)
{
    e->state = STREAM_GONE;
    e->rto_ns = e->ack_ns = e->rack_ns = 0;
}

/* The connection is broken; the owner is told, once. */
static void broken(struct stream *s, enum stream_side side, enum stream_event event)
{
    forget(&s->at[side]);
    tell(s, side, event);
    s->at[side].orphan = true;
}

void stream_init(struct stream *s, const struct stream_ops *ops, void *arg)
{
    *s = (struct stream){.ops = ops, .arg = arg};
    for (int i = 0; i < 2; i++) {
        struct stream_end *e = &s->at[i];
        e->end = 1; /* the SYN */
        e->cwnd = CWND_INITIAL;
        e->ssthresh = CWND_MAX;
        e->window = STREAM_RECEIVE_MAX;
    }
}

void stream_connect(struct stream *s, uint64_t now_ns)
{
    struct stream_end *e = &s->at[STREAM_PHONE];
    BUG_ON(e->state != STREAM_CLOSED);
    e->state = STREAM_SYN_SENT;
    e->nxt = 1;
    e->rto_ns = now_ns + rto(e);
    emit(s, STREAM_PHONE, STREAM_SYN, 0, 0, now_ns);
}

/* ---- sending ---- */

static uint32_t piece(const struct stream_end *e, uint64_t seq, uint64_t limit)
{
    uint64_t n = (limit < e->end ? limit : e->end) - seq;
    return n < STREAM_MSS ? (uint32_t)n : STREAM_MSS;
}

/* Hot path: what windows allow. */
static void push(struct stream *s, enum stream_side side, uint64_t now_ns)
{
    struct stream_end *e = &s->at[side];
    if (e->state != STREAM_OPEN)
        return;
    if (e->nxt == e->una && e->srtt_us && now_ns - e->used_ns > rto(e) && e->cwnd > CWND_INITIAL)
        e->cwnd = CWND_INITIAL; /* RFC 2861, as Linux does after idling */
    uint64_t span = e->cwnd < e->window ? e->cwnd : e->window, limit = e->una + span;
    while (e->nxt < e->end && e->nxt < limit) {
        uint32_t n = piece(e, e->nxt, limit);
        uint64_t seq = e->nxt;
        e->nxt += n;
        emit(s, side, STREAM_ACK, seq, n, now_ns);
    }
    if (e->fin && !e->fin_sent && e->nxt == e->end) {
        e->fin_sent = true;
        emit(s, side, STREAM_FIN | STREAM_ACK, e->nxt++, 0, now_ns);
    }
    if ((e->nxt > e->una || e->end > e->nxt) && !e->rto_ns) /* the latter: a closed window is probed */
        e->rto_ns = now_ns + rto(e);
}

/* The first piece that is not acknowledged, once more. */
static void again(struct stream *s, enum stream_side side, uint64_t seq, uint64_t now_ns)
{
    struct stream_end *e = &s->at[side];
    if (seq >= e->end) {
        if (e->fin_sent)
            emit(s, side, STREAM_FIN | STREAM_ACK, e->end, 0, now_ns);
        e->retransmitted = e->end + 1;
        return;
    }
    uint32_t n = piece(e, seq, e->nxt);
    e->retransmitted = seq + n;
    emit(s, side, STREAM_ACK, seq, n, now_ns);
}

static void recover(struct stream *s, enum stream_side side, uint64_t now_ns)
{
    struct stream_end *e = &s->at[side];
    uint64_t flight = e->nxt - e->una;
    e->ssthresh = flight / 2 > 2 * STREAM_MSS ? (uint32_t)(flight / 2) : 2 * STREAM_MSS;
    e->recover = e->nxt;
    e->rack_ns = 0;
    again(s, side, e->una, now_ns);
}

uint32_t stream_room(const struct stream *s, enum stream_side side)
{
    const struct stream_end *e = &s->at[side];
    uint64_t held = e->end - e->una;
    if (e->state != STREAM_OPEN || e->fin || held >= STREAM_SEND_MAX)
        return 0;
    return (uint32_t)(STREAM_SEND_MAX - held);
}

void stream_write(struct stream *s, enum stream_side side, uint32_t bytes, uint64_t now_ns)
{
    struct stream_end *e = &s->at[side];
    if (e->state != STREAM_OPEN || e->fin)
        return;
    e->end += bytes;
    e->full = e->end - e->una >= STREAM_SEND_MAX;
    push(s, side, now_ns);
}

void stream_fin(struct stream *s, enum stream_side side, bool orphan, uint64_t now_ns)
{
    struct stream_end *e = &s->at[side];
    e->orphan |= orphan;
    if (e->state == STREAM_SYN_SENT || e->state == STREAM_CLOSED) {
        forget(e);
        return;
    }
    if (e->state == STREAM_GONE || e->fin)
        return;
    e->fin = true;
    push(s, side, now_ns);
}

void stream_abort(struct stream *s, enum stream_side side, uint64_t now_ns)
{
    struct stream_end *e = &s->at[side];
    bool known = e->state == STREAM_OPEN || e->state == STREAM_SYN_RECEIVED;
    e->orphan = true;
    if (known)
        emit(s, side, STREAM_RST | STREAM_ACK, e->nxt, 0, now_ns);
    forget(e);
}

void stream_vanish(struct stream *s, enum stream_side side)
{
    s->at[side].orphan = true;
    forget(&s->at[side]);
}

/* ---- receiving ---- */

static void ack_soon(struct stream *s, enum stream_side side, bool now, uint64_t now_ns)
{
    struct stream_end *e = &s->at[side];
    if (now || e->quick < QUICK_ACKS || e->rcv - e->acked_sent >= 2 * STREAM_MSS) {
        e->quick += e->quick < QUICK_ACKS;
        emit(s, side, STREAM_ACK, e->nxt, 0, now_ns);
    } else if (!e->ack_ns) {
        e->ack_ns = now_ns + ACK_DELAY_NS;
    }
}

void stream_read(struct stream *s, enum stream_side side, uint64_t offset, uint64_t now_ns)
{
    struct stream_end *e = &s->at[side];
    bool was_shut = e->rcv - e->read >= STREAM_RECEIVE_MAX;
    e->read = offset + 1;
    if (was_shut && e->state == STREAM_OPEN)
        emit(s, side, STREAM_ACK, e->nxt, 0, now_ns);
}

static void take_gaps(struct stream_end *e)
{
    while (e->gaps && e->gap[0].from <= e->rcv) {
        if (e->gap[0].to > e->rcv)
            e->rcv = e->gap[0].to;
        e->gaps--;
        for (int i = 0; i < e->gaps; i++)
            e->gap[i] = e->gap[i + 1];
    }
}

static void keep_beyond(struct stream_end *e, uint64_t from, uint64_t to)
{
    int i = 0;
    while (i < e->gaps && e->gap[i].to < from)
        i++;
    if (i < e->gaps &&
        e->gap[i].from <= to) { /* touches: one piece; what it now covers is joined by take_gaps */
        e->gap[i].from = from < e->gap[i].from ? from : e->gap[i].from;
        e->gap[i].to = to > e->gap[i].to ? to : e->gap[i].to;
        return;
    }
    if (e->gaps == STREAM_GAPS_MAX)
        return;
    for (int k = e->gaps++; k > i; k--)
        e->gap[k] = e->gap[k - 1];
    e->gap[i] = (struct stream_range){from, to};
}

/* Data or FIN. */
static void take_data(struct stream *s, enum stream_side side, const struct stream_packet *p, uint64_t now_ns)
{
    struct stream_end *e = &s->at[side];
    uint64_t to = p->seq + p->len, before = e->rcv;
    if (e->orphan && p->len && to > e->rcv) { /* nobody will ever read it */
        stream_abort(s, side, now_ns);
        return;
    }
    if (to - e->read > STREAM_RECEIVE_MAX && to > e->read) { /* a probe of a shut window, or beyond it */
        ack_soon(s, side, true, now_ns);
        return;
    }
    if (p->flags & STREAM_FIN)
        e->fin_at = to;
    if (p->seq > e->rcv) {
        if (p->len)
            keep_beyond(e, p->seq, to);
        ack_soon(s, side, true, now_ns);
        return;
    }
    if (to > e->rcv) {
        e->rcv = to;
        take_gaps(e);
    }
    bool grown = e->rcv > before, ends = e->fin_at && e->rcv == e->fin_at && !e->ended;
    if (ends) {
        e->ended = true;
        e->rcv++;
    }
    ack_soon(s, side, e->rcv == before || e->gaps || ends, now_ns);
    if (grown)
        tell(s, side, STREAM_DATA);
    if (ends && e->state == STREAM_OPEN)
        tell(s, side, STREAM_ENDED);
}

static void grow(struct stream_end *e, uint64_t acked)
{
    uint64_t by = e->cwnd < e->ssthresh ? acked : (uint64_t)STREAM_MSS * acked / (e->cwnd ? e->cwnd : 1);
    e->cwnd = e->cwnd + by < CWND_MAX ? (uint32_t)(e->cwnd + by) : CWND_MAX;
}

static void take_progress(struct stream *s, enum stream_side side, const struct stream_packet *p,
                          uint64_t now_ns)
{
    struct stream_end *e = &s->at[side];
    uint64_t acked = p->ack - e->una;
    e->una = p->ack;
    e->backoff = 0;
    e->dupacks = 0;
    e->rack_ns = 0;
    if (p->echo_ns)
        measure(e, now_ns - p->echo_ns);
    if (e->recover && e->una >= e->recover)
        e->recover = 0;
    if (e->una != e->nxt || e->end > e->nxt)
        e->rto_ns = now_ns + rto(e);
    else
        e->rto_ns = e->orphan && e->fin_sent ? now_ns + FIN_WAIT_NS : 0;
    grow(e, acked);
    if (e->recover) {
        uint64_t next = e->una > e->retransmitted ? e->una : e->retransmitted;
        for (int i = 0; i < 2 && next < e->recover && next < e->una + e->cwnd; i++, next = e->retransmitted)
            again(s, side, next, now_ns);
    }
    if (e->full && stream_room(s, side)) {
        e->full = false;
        tell(s, side, STREAM_ROOM);
    }
}

static void take_duplicate(struct stream *s, enum stream_side side, uint64_t now_ns)
{
    struct stream_end *e = &s->at[side];
    if (e->recover || e->nxt == e->una)
        return;
    if (e->dupacks < UINT8_MAX)
        e->dupacks++;
    if (e->dupacks >= 3)
        recover(s, side, now_ns);
    else if (!e->rack_ns)
        e->rack_ns = now_ns + e->srtt_us / 4 * NS_PER_US + 1;
}

static void take_ack(struct stream *s, enum stream_side side, const struct stream_packet *p, uint64_t now_ns)
{
    struct stream_end *e = &s->at[side];
    if (p->ack > e->nxt)
        return;
    bool same_window = p->window == e->window;
    e->window = p->window;
    if (!e->window && e->backoff > PROBE_BACKOFF)
        e->backoff = PROBE_BACKOFF;
    if (p->ack > e->una)
        take_progress(s, side, p, now_ns);
    else if (p->ack == e->una && !p->len && !(p->flags & STREAM_FIN) && same_window)
        take_duplicate(s, side, now_ns);
    if (e->state == STREAM_OPEN)
        push(s, side, now_ns);
}

static bool closed_both_ways(const struct stream_end *e)
{
    return e->fin_sent && e->una == e->end + 1 && e->ended;
}

static void established(struct stream *s, enum stream_side side, uint64_t now_ns)
{
    struct stream_end *e = &s->at[side];
    e->state = STREAM_OPEN;
    e->rto_ns = 0;
    e->backoff = 0;
    (void)now_ns;
    tell(s, side, STREAM_CONNECTED);
}

static void arrive_syn(struct stream *s, enum stream_side side, const struct stream_packet *p,
                       uint64_t now_ns)
{
    struct stream_end *e = &s->at[side];
    if (side == STREAM_SERVER && e->state == STREAM_CLOSED) {
        if (!s->ops->accept(s->arg, s)) {
            forget(e);
            e->orphan = true;
            emit(s, side, STREAM_RST | STREAM_ACK, 0, 0, now_ns);
            return;
        }
        e->state = STREAM_SYN_RECEIVED;
    }
    e->echo_ns = p->sent_ns;
    if (side == STREAM_SERVER && e->state == STREAM_SYN_RECEIVED) {
        e->rcv = e->read = 1;
        e->nxt = 1;
        e->rto_ns = now_ns + rto(e);
        emit(s, side, STREAM_SYN | STREAM_ACK, 0, 0, now_ns);
    } else if (side == STREAM_PHONE && e->state == STREAM_SYN_SENT && p->flags & STREAM_ACK) {
        e->rcv = e->read = 1;
        e->una = 1;
        if (p->echo_ns)
            measure(e, now_ns - p->echo_ns);
        established(s, side, now_ns);
        if (e->state == STREAM_OPEN && e->acked_sent < e->rcv)
            emit(s, side, STREAM_ACK, e->nxt, 0, now_ns);
    } else if (e->state == STREAM_OPEN) { /* our acknowledgement was lost */
        emit(s, side, STREAM_ACK, e->nxt, 0, now_ns);
    } else if (e->state == STREAM_GONE && p->flags & STREAM_ACK) {
        emit(s, side, STREAM_RST, p->ack, 0, now_ns);
    }
}

void stream_arrive(struct stream *s, const struct stream_packet *p, uint64_t now_ns)
{
    enum stream_side side = other((enum stream_side)p->from);
    struct stream_end *e = &s->at[side];
    if (p->flags & STREAM_RST) {
        if (e->state == STREAM_SYN_SENT)
            broken(s, side, STREAM_REFUSED);
        else if (e->state == STREAM_OPEN || e->state == STREAM_SYN_RECEIVED)
            broken(s, side, STREAM_RESET);
        return;
    }
    if (p->flags & STREAM_SYN) {
        arrive_syn(s, side, p, now_ns);
        return;
    }
    if (e->state == STREAM_SYN_RECEIVED) {
        if (p->ack < 1)
            return;
        e->una = 1;
        if (p->echo_ns)
            measure(e, now_ns - p->echo_ns);
        established(s, side, now_ns);
    }
    if (e->state != STREAM_OPEN) {
        /* RFC 9293 section 3.5.2: no such socket. A pure acknowledgement of our own FIN needs no answer */
        if (e->state == STREAM_GONE && (p->len || p->flags & STREAM_FIN || p->ack < e->nxt))
            emit(s, side, STREAM_RST, p->ack, 0, now_ns);
        return;
    }
    if (p->len || p->flags & STREAM_FIN || p->seq >= e->rcv)
        e->echo_ns = p->sent_ns;
    take_ack(s, side, p, now_ns);
    if (e->state == STREAM_OPEN && (p->len || p->flags & STREAM_FIN))
        take_data(s, side, p, now_ns);
    if (e->state == STREAM_OPEN && closed_both_ways(e))
        forget(e);
}

/* ---- time ---- */

uint64_t stream_due(const struct stream *s, enum stream_side side)
{
    const struct stream_end *e = &s->at[side];
    uint64_t at = e->rto_ns;
    if (e->ack_ns && (!at || e->ack_ns < at))
        at = e->ack_ns;
    if (e->rack_ns && (!at || e->rack_ns < at))
        at = e->rack_ns;
    return at;
}

static void timed_out(struct stream *s, enum stream_side side, uint64_t now_ns)
{
    struct stream_end *e = &s->at[side];
    bool young = e->state == STREAM_SYN_SENT || e->state == STREAM_SYN_RECEIVED;
    int most = young ? SYN_RETRIES : e->orphan ? RETRIES_ORPHAN : RETRIES;
    if (e->backoff >= most) {
        broken(s, side, STREAM_TIMED_OUT);
        return;
    }
    e->backoff++;
    e->rto_ns = now_ns + rto(e);
    if (e->state == STREAM_SYN_SENT) {
        emit(s, side, STREAM_SYN, 0, 0, now_ns);
    } else if (e->state == STREAM_SYN_RECEIVED) {
        emit(s, side, STREAM_SYN | STREAM_ACK, 0, 0, now_ns);
    } else if (e->nxt > e->una) {
        recover(s, side, now_ns);
        e->cwnd = STREAM_MSS;
        e->dupacks = 0;
    } else if (e->end > e->nxt) { /* the window is shut: one byte asks whether it still is */
        uint64_t seq = e->nxt++;
        emit(s, side, STREAM_ACK, seq, 1, now_ns);
    }
}

void stream_timer(struct stream *s, enum stream_side side, uint64_t now_ns)
{
    struct stream_end *e = &s->at[side];
    if (e->ack_ns && e->ack_ns <= now_ns)
        emit(s, side, STREAM_ACK, e->nxt, 0, now_ns);
    if (e->rack_ns && e->rack_ns <= now_ns) {
        e->rack_ns = 0;
        if (!e->recover && e->nxt > e->una)
            recover(s, side, now_ns);
    }
    if (e->rto_ns && e->rto_ns <= now_ns) {
        e->rto_ns = 0;
        if (e->nxt > e->una || e->end > e->nxt || e->state != STREAM_OPEN)
            timed_out(s, side, now_ns);
        else if (e->orphan)
            forget(e);
    }
}

/* ---- figures ---- */

uint64_t stream_written(const struct stream *s, enum stream_side side)
{
    return s->at[side].end - 1;
}

uint64_t stream_acked(const struct stream *s, enum stream_side side)
{
    const struct stream_end *e = &s->at[side];
    uint64_t una = e->una < e->end ? e->una : e->end;
    return una ? una - 1 : 0;
}

uint64_t stream_received(const struct stream *s, enum stream_side side)
{
    const struct stream_end *e = &s->at[side];
    return e->rcv ? e->rcv - 1 - e->ended : 0;
}

bool stream_over(const struct stream *s)
{
    return s->at[0].state == STREAM_GONE &&
           (s->at[1].state == STREAM_GONE || s->at[1].state == STREAM_CLOSED);
}
