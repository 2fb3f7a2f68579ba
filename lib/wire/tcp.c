/* The bytes of a connection. */
#include "wire/tcp.h"

#include <stdlib.h>
#include <string.h>

#include "wire/tcp_impl.h"

#define WINDOW_MAX (1ll << 30) /* RFC 7323: no window is larger */

static void give_data(struct tcp *t, struct tcp_flow *f, int dir, uint64_t at, uint8_t *p, uint32_t n,
                      uint64_t ts)
{
    t->count.bytes += n;
    if (n && t->c.on.data)
        t->c.on.data(t->c.on.arg, f, dir, at, p, n, ts);
}

static void give_gap(struct tcp *t, struct tcp_flow *f, int dir, uint64_t from, uint64_t to, enum tcp_gap why,
                     uint64_t ts)
{
    uint64_t *count[TCP_GAPS] = {&t->count.missed_bytes, &t->count.unacked_bytes, &t->count.snapped_bytes,
                                 &t->count.limit_bytes};
    if (from >= to || f->half[dir].skip)
        return;
    *count[why] += to - from;
    if (why != TCP_GAP_UNACKED)
        f->half[dir].missed_bytes += to - from;
    if (t->c.on.gap)
        t->c.on.gap(t->c.on.arg, f, dir, from, to, why, ts);
}

static void add_mark(struct tcp *t, struct tcp_half *h, enum tcp_mark_kind kind, uint64_t ts, uint64_t from,
                     uint32_t len, uint64_t packet)
{
    if (!t->c.marks || h->skip)
        return;
    if (h->mark_n == h->mark_cap && h->mark_cap < TCP_MARKS_MAX) {
        uint32_t cap = h->mark_cap ? h->mark_cap * 2 : 16;
        struct tcp_mark *m = malloc(cap * sizeof *m);
        if (m) {
            for (uint32_t i = 0; i < h->mark_n; i++)
                m[i] = *tcp_mark(h, i);
            free(h->mark);
            tcp_charge(t, (ptrdiff_t)((cap - h->mark_cap) * sizeof *m));
            h->mark = m;
            h->mark_cap = cap;
            h->mark_at = 0;
        }
    }
    if (h->mark_n == h->mark_cap) {
        h->marks_lost++;
        if (!h->mark_cap)
            return;
        h->mark_at = (h->mark_at + 1) % h->mark_cap;
        h->mark_n--;
    }
    uint32_t at = h->mark_at + h->mark_n++;
    h->mark[at < h->mark_cap ? at : at - h->mark_cap] =
        (struct tcp_mark){.ts_ns = ts, .from = from, .packet = packet, .len = len, .kind = (uint8_t)kind};
}

void tcp_half_release(struct tcp *t, struct tcp_half *h)
{
    for (struct tcp_hold *s = h->hold, *next; s; s = next) {
        next = s->next;
        tcp_charge(t, -(ptrdiff_t)(sizeof *s + s->captured));
        free(s);
    }
    tcp_charge(t, -(ptrdiff_t)(h->mark_cap * sizeof *h->mark));
    free(h->mark);
    h->hold = h->hold_last = NULL;
    h->mark = NULL;
    h->mark_cap = h->mark_n = h->held = h->holds = 0;
}

/* ---- handing on ---- */

/* Bytes [from, from + len) of which `captured` are at p; what lies below `next` was handed on before. */
static void hand_on(struct tcp *t, struct tcp_flow *f, int dir, uint64_t from, uint8_t *p, uint32_t len,
                    uint32_t captured, uint64_t ts)
{
    struct tcp_half *h = &f->half[dir];
    uint64_t end = from + len, here = from + captured;
    uint32_t skip = (uint32_t)(h->next - from);
    if (here > h->next) {
        uint64_t at = h->next;
        h->next = here;
        give_data(t, f, dir, at, p + skip, (uint32_t)(here - at), ts);
    }
    if (end > h->next) {
        uint64_t at = h->next;
        h->next = end;
        give_gap(t, f, dir, at, end, TCP_GAP_SNAPPED, ts);
    }
}

static void drain(struct tcp *t, struct tcp_flow *f, int dir, uint64_t ts)
{
    struct tcp_half *h = &f->half[dir];
    while (h->hold && h->hold->from <= h->next) {
        struct tcp_hold *s = h->hold;
        h->hold = s->next;
        if (!h->hold)
            h->hold_last = NULL;
        h->held -= s->len;
        h->holds--;
        if (s->from + s->len > h->next)
            hand_on(t, f, dir, s->from, s->data, s->len, s->captured, ts);
        tcp_charge(t, -(ptrdiff_t)(sizeof *s + s->captured));
        free(s);
    }
}

/* The hole before `to` won't be filled. */
static void give_up(struct tcp *t, struct tcp_flow *f, int dir, uint64_t to, enum tcp_gap why, uint64_t ts)
{
    struct tcp_half *h = &f->half[dir];
    uint64_t at = h->next;
    h->next = to;
    h->hole_packet = 0;
    give_gap(t, f, dir, at, to, why, ts);
    drain(t, f, dir, ts);
}

/* Acknowledged, without the FIN's own number. */
static uint64_t acked_bytes(const struct tcp_half *h)
{
    uint64_t a = h->ack_seen ? h->acked : 0;
    return h->fin && a > h->fin_at ? h->fin_at : a;
}

void tcp_half_flush(struct tcp *t, struct tcp_flow *f, int dir, uint64_t ts, bool drop)
{
    struct tcp_half *h = &f->half[dir];
    while (!drop && h->hold) {
        uint64_t acked = acked_bytes(h), to = h->hold->from;
        if (acked > h->next)
            give_up(t, f, dir, acked < to ? acked : to, TCP_GAP_MISSED, ts);
        else
            give_up(t, f, dir, to, TCP_GAP_UNACKED, ts);
    }
    if (drop && h->hold) {
        uint64_t end = h->seen, at = h->next;
        for (struct tcp_hold *s = h->hold, *next; s; s = next) {
            next = s->next;
            tcp_charge(t, -(ptrdiff_t)(sizeof *s + s->captured));
            free(s);
        }
        h->hold = h->hold_last = NULL;
        h->held = h->holds = 0;
        h->next = end > at ? end : at;
        give_gap(t, f, dir, at, h->next, TCP_GAP_LIMIT, ts);
    }
    if (h->begun && acked_bytes(h) > h->next)
        give_up(t, f, dir, acked_bytes(h), TCP_GAP_MISSED, ts);
}

/* ---- holding ---- */

static void count_conflict(struct tcp *t, const struct tcp_hold *s, uint64_t from, const uint8_t *p,
                           uint32_t n)
{
    uint64_t a = from > s->from ? from : s->from;
    uint64_t end = from + n < s->from + s->captured ? from + n : s->from + s->captured;
    if (a < end && memcmp(p + (a - from), s->data + (a - s->from), (size_t)(end - a)) != 0)
        t->count.conflicts++;
}

/* The receiver takes a segment that continues what it has as it is, and trims what it held before (as Linux
 * does in tcp_ofo_queue): forget the places that [from, end) covers. */
static void forget(struct tcp *t, struct tcp_half *h, uint64_t from, uint64_t end, const uint8_t *p,
                   uint32_t n)
{
    struct tcp_hold **at = &h->hold, *last = NULL;
    while (*at) {
        struct tcp_hold *s = *at;
        uint64_t s_end = s->from + s->len;
        if (s->from >= from && s->from < end) {
            count_conflict(t, s, from, p, n);
            uint32_t cut = (uint32_t)((s_end < end ? s_end : end) - s->from), have = s->captured;
            h->held -= cut;
            if (cut == s->len) {
                *at = s->next;
                h->holds--;
                tcp_charge(t, -(ptrdiff_t)(sizeof *s + have));
                free(s);
                continue;
            }
            uint32_t gone = cut < have ? cut : have;
            memmove(s->data, s->data + gone, have - gone);
            tcp_charge(t, -(ptrdiff_t)gone);
            s->captured = have - gone;
            s->from += cut;
            s->len -= cut;
        }
        last = s;
        at = &s->next;
    }
    h->hold_last = last;
}

/* Keep the parts of a segment that nothing held covers. */
static void hold(struct tcp *t, struct tcp_half *h, uint64_t from, const uint8_t *p, uint32_t len,
                 uint32_t captured, uint64_t ts)
{
    struct tcp_hold **at = &h->hold;
    uint64_t end = from + len, here = from + captured;
    if (h->hold_last && h->hold_last->from + h->hold_last->len <= from)
        at = &h->hold_last->next;
    while (from < end) {
        while (*at && (*at)->from + (*at)->len <= from)
            at = &(*at)->next;
        if (*at && (*at)->from <= from) {
            count_conflict(t, *at, from, p, here > from ? (uint32_t)(here - from) : 0);
            uint64_t to = (*at)->from + (*at)->len;
            to = to < end ? to : end;
            p += here > from ? (to < here ? to - from : here - from) : 0;
            from = to;
            continue;
        }
        uint64_t to = *at && (*at)->from < end ? (*at)->from : end;
        uint32_t have = here > from ? (uint32_t)((to < here ? to : here) - from) : 0;
        struct tcp_hold *s = malloc(sizeof *s + have);
        if (!s) {
            t->count.no_memory++;
            return;
        }
        *s = (struct tcp_hold){.next = *at, .from = from, .ts_ns = ts, .len = (uint32_t)(to - from)};
        s->captured = have;
        if (have)
            memcpy(s->data, p, have);
        tcp_charge(t, (ptrdiff_t)(sizeof *s + have));
        *at = s;
        if (!s->next)
            h->hold_last = s;
        h->held += s->len;
        h->holds++;
        at = &s->next;
        p += have;
        from = to;
    }
}

/* ---- one packet ---- */

/* Offset of a sequence number: nearest to what comes next. */
static int64_t offset_of(const struct tcp_half *h, uint32_t seq)
{
    return (int64_t)h->next + (int32_t)(seq - (h->origin + (uint32_t)h->next));
}

static void begin(struct tcp_half *h, uint32_t origin, bool known)
{
    h->begun = true;
    h->origin = origin;
    h->origin_known = known;
}

/* A connection whose start was not captured: nothing was handed on yet, and this lies before all we know. */
static bool rebase(struct tcp_half *h, int64_t *off)
{
    if (h->origin_known || h->next || h->seen || *off >= 0 || *off < -(1 << 20))
        return false;
    h->origin += (uint32_t)*off;
    if (h->ack_seen)
        h->acked += (uint64_t) - *off;
    *off = 0;
    return true;
}

/* A hole that was acknowledged is confirmed as missed when it stays one. */
static void confirm(struct tcp *t, struct tcp_flow *f, int dir, uint64_t ts)
{
    struct tcp_half *h = &f->half[dir];
    uint64_t acked = acked_bytes(h);
    if (acked <= h->next) {
        h->hole_packet = 0;
        return;
    }
    if (h->skip) {
        h->next = acked;
        return;
    }
    if (!h->hole_packet) {
        h->hole_packet = (uint32_t)f->packets ? (uint32_t)f->packets : 1;
        h->hole_ns = ts;
        return;
    }
    if ((uint32_t)f->packets - h->hole_packet < TCP_CONFIRM_PACKETS &&
        (ts < h->hole_ns || ts - h->hole_ns < TCP_CONFIRM_NS))
        return;
    while (acked > h->next) {
        uint64_t to = h->hold && h->hold->from < acked ? h->hold->from : acked;
        give_up(t, f, dir, to, TCP_GAP_MISSED, ts);
    }
}

static void take_ack(struct tcp *t, struct tcp_flow *f, int dir, const struct packet *k, uint64_t ts)
{
    struct tcp_half *h = &f->half[dir];
    if (!h->begun)
        begin(h, k->ack, false);
    int64_t off = offset_of(h, k->ack);
    if (off < 0 && !rebase(h, &off))
        return;
    if (off > (int64_t)h->seen + WINDOW_MAX) {
        t->count.out_of_window++;
        return;
    }
    if (!h->ack_seen || (uint64_t)off > h->acked) {
        h->ack_seen = true;
        h->acked = (uint64_t)off;
        h->acked_ns = ts;
        if (t->c.on.acked)
            t->c.on.acked(t->c.on.arg, f, dir, ts);
    }
    if (h->hole_packet || h->acked > h->next)
        confirm(t, f, dir, ts);
}

/* The window that the receiver of half[dir] announces. */
static void take_window(struct tcp *t, struct tcp_flow *f, int dir, const struct packet *k, uint64_t ts,
                        uint64_t number)
{
    struct tcp_half *h = &f->half[dir];
    bool zero = k->window == 0 && !(k->flags & (PACKET_SYN | PACKET_RST | PACKET_FIN));
    if (zero == h->zero || k->flags & PACKET_RST)
        return;
    h->zero = zero;
    if (zero) {
        h->zero_windows++;
        h->zero_since_ns = ts;
    } else if (h->zero_since_ns && ts > h->zero_since_ns) {
        h->zero_ns += ts - h->zero_since_ns;
    }
    add_mark(t, h, zero ? TCP_MARK_ZERO : TCP_MARK_OPENED, ts, h->acked, 0, number);
}

static void take_syn(struct tcp_flow *f, int dir, const struct packet *k, uint64_t ts)
{
    struct tcp_half *h = &f->half[dir];
    if (!h->begun || !h->origin_known)
        begin(h, k->seq + 1, true);
    h->wscale = k->wscale;
    uint64_t *when = k->flags & PACKET_ACK ? &f->synack_ns : &f->syn_ns;
    if (!*when)
        *when = ts;
    f->client_known = true;
}

static enum tcp_mark_kind kind_of(struct tcp *t, struct tcp_half *h, const struct packet *k, uint64_t off,
                                  uint64_t ts)
{
    uint64_t end = off + k->payload_len;
    bool again = end <= h->next;
    if (off >= h->seen)
        return TCP_MARK_DATA;
    if (h->last_seq == k->seq && h->last_len == k->payload_len && h->last_ip_id == k->ip_id && k->ip_id &&
        ts - h->last_ns < 2000000) {
        t->count.copies++;
        return TCP_MARK_COPY;
    }
    for (const struct tcp_hold *s = h->hold; s && !again && s->from <= off; s = s->next)
        again = s->from + s->len >= end;
    if (again) {
        h->again_packets++;
        h->again_bytes += k->payload_len;
        t->count.again_packets++;
        return TCP_MARK_AGAIN;
    }
    if (end > h->seen) /* repeats a part and goes on */
        return TCP_MARK_DATA;
    h->late_packets++;
    t->count.late_packets++;
    return TCP_MARK_LATE;
}

static void take_payload(struct tcp *t, struct tcp_flow *f, int dir, const struct packet *k, uint64_t ts,
                         uint64_t number)
{
    struct tcp_half *h = &f->half[dir];
    uint32_t len = k->payload_len, captured = k->captured;
    uint8_t *p = k->payload;
    uint32_t seq = k->seq + !!(k->flags & PACKET_SYN); /* TCP Fast Open: bytes in the SYN */
    if (!h->begun)
        begin(h, seq, false);
    int64_t off = offset_of(h, seq);
    if (off < 0 && !rebase(h, &off)) {
        uint64_t before = (uint64_t)-off;
        if (before >= len) { /* a keep-alive probe, or something of before the capture */
            h->again_packets++;
            t->count.again_packets++;
            return;
        }
        len -= (uint32_t)before;
        p += before < captured ? before : captured;
        captured -= before < captured ? (uint32_t)before : captured;
        off = 0;
    }
    uint64_t from = (uint64_t)off, end = from + len;
    if (off > (int64_t)h->seen + WINDOW_MAX) {
        t->count.out_of_window++;
        return;
    }
    h->packets++;
    h->bytes += len;
    enum tcp_mark_kind kind = kind_of(t, h, k, from, ts);
    if (t->c.marks)
        add_mark(t, h, kind, ts, from, len, number);
    h->last_seq = k->seq;
    h->last_len = k->payload_len;
    h->last_ip_id = k->ip_id;
    h->last_ns = ts;
    if (end > h->seen)
        h->seen = end;
    if (end <= h->next)
        return;
    if (h->skip) {
        h->next = end;
    } else if (from <= h->next) {
        hand_on(t, f, dir, from, p, len, captured, ts);
        if (h->hold)
            drain(t, f, dir, ts);
    } else {
        if (h->hold && acked_bytes(h) >= from)
            forget(t, h, from, end, p, captured);
        hold(t, h, from, p, len, captured, ts);
        while (h->held > TCP_HOLD_BYTES || h->holds > TCP_HOLD_SEGMENTS)
            give_up(t, f, dir, h->hold->from,
                    acked_bytes(h) >= h->hold->from ? TCP_GAP_MISSED : TCP_GAP_LIMIT, ts);
    }
}

static void take_end(struct tcp *t, struct tcp_flow *f, int dir, const struct packet *k, uint64_t ts,
                     uint64_t number)
{
    struct tcp_half *h = &f->half[dir];
    if (k->flags & PACKET_FIN && h->begun) {
        int64_t off = offset_of(h, k->seq + k->payload_len);
        if (off >= 0 && (uint64_t)off >= h->seen && !h->fin) {
            h->fin = true;
            h->fin_at = (uint64_t)off;
            f->fin_ns[dir] = ts;
            add_mark(t, h, TCP_MARK_FIN, ts, h->fin_at, 0, number);
        }
    }
    if (k->flags & PACKET_RST) {
        /* a blind reset has a number outside of the window (RFC 5961) */
        int64_t off = h->begun ? offset_of(h, k->seq) : 0;
        if (off < (int64_t)h->seen - (1 << 22) || off > (int64_t)h->seen + (1 << 26)) {
            t->count.out_of_window++;
            return;
        }
        if (!f->rst_ns) {
            f->rst_ns = ts;
            f->rst_dir = dir;
        }
        add_mark(t, h, TCP_MARK_RST, ts, off > 0 ? (uint64_t)off : 0, 0, number);
        add_mark(t, &f->half[!dir], TCP_MARK_RST_RECV, ts, f->half[!dir].acked, 0, number);
        if (!f->done)
            f->end = TCP_END_RST;
        tcp_flow_done(t, f);
    }
    if (!f->done && f->half[0].fin && f->half[1].fin && f->half[0].next >= f->half[0].fin_at &&
        f->half[1].next >= f->half[1].fin_at) {
        f->end = TCP_END_FIN;
        tcp_flow_done(t, f);
    }
}

void tcp_packet(struct tcp *t, const struct packet *k, uint32_t point, uint64_t ts, uint64_t number)
{
    int dir;
    t->count.packets++;
    tcp_expire(t, ts);
    struct tcp_flow *f = tcp_flow_of(t, k, point, ts, &dir);
    if (!f)
        return;
    if (ts > f->last_ns)
        f->last_ns = ts;
    f->packets++;
    if (k->flags & PACKET_SYN)
        take_syn(f, dir, k, ts);
    if (k->flags & PACKET_ACK) {
        if (!f->ack_ns && !dir && f->synack_ns && !(k->flags & PACKET_SYN))
            f->ack_ns = ts;
        take_ack(t, f, !dir, k, ts);
        take_window(t, f, !dir, k, ts, number);
    }
    if (k->payload_len && !(k->flags & PACKET_RST))
        take_payload(t, f, dir, k, ts, number);
    if (f->half[dir].hole_packet)
        confirm(t, f, dir, ts);
    if (k->flags & (PACKET_FIN | PACKET_RST) || (f->half[0].fin && f->half[1].fin))
        take_end(t, f, dir, k, ts, number);
    if (t->used > t->c.memory)
        tcp_make_room(t, f);
}

void tcp_pdu(struct tcp *t, struct packet *k, uint32_t point, uint64_t ts, uint64_t number)
{
    int dir;
    struct tcp_flow *f = tcp_flow_of(t, k, point, ts, &dir);
    if (!f)
        return;
    struct tcp_half *h = &f->half[dir];
    if (!h->begun)
        begin(h, 1, true);
    k->seq = h->origin + (uint32_t)h->next;
    k->flags = PACKET_PSH;
    tcp_packet(t, k, point, ts, number);
}
