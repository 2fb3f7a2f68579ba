/* Packets from one side to the other: read, judged by the radio's link, held until their time, handed over.
 */
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#include "netem/tun/shuttle_impl.h"
#include "util/clock.h"

/* A packet as it was read, and what is known of it. */
struct offer {
    struct packet p;
    const uint8_t *at;
    uint32_t len, phone, peer;
    enum netem_dir dir;
    uint64_t now_ns;
    struct radio *radio; /* NULL: the address is nobody's */
};

static void trace_packet(struct shuttle *s, enum hop hop, enum reason reason, enum netem_dir dir,
                         const struct packet *p, uint64_t now_ns)
{
    struct trace_flow f = {p->src, p->dst, p->sport, p->dport, p->tcp_seq};
    struct trace_event e = {.ts_ns = now_ns,
                            .user = dir == NETEM_UP ? p->src : p->dst,
                            .arg = p->protocol == IPPROTO_TCP ? p->payload : 0,
                            .node = TRACE_NODE_LINK,
                            .hop = (uint8_t)hop,
                            .reason = (uint8_t)reason,
                            .flags = (uint8_t)(p->flags | (dir == NETEM_DOWN ? TRACE_FLAG_DOWN : 0))};
    memcpy(&e.id, &f, sizeof f);
    trace_emit(s->writer, &e);
}

static void drop(struct shuttle *s, uint32_t group, enum reason reason, enum netem_dir dir,
                 const struct packet *p, uint64_t now_ns)
{
    count(&stats_of(s, group)->dropped[reason], 1);
    trace_packet(s, HOP_LINK_DROP, reason, dir, p, now_ns);
}

/* The end of a packet's story, for log and capture. handed_ns 0: it was lost. */
static void settle(struct shuttle *s, const struct held *h, enum reason reason, uint64_t handed_ns)
{
    if (h->fate != UINT64_MAX && !h->copy) {
        struct tun_fate *f = &s->c->fates->at[h->fate];
        f->finally = (uint8_t)reason;
        f->handed_ns = handed_ns;
        __atomic_store_n(&f->flags, f->flags | TUN_FATE_FINAL, __ATOMIC_RELEASE);
    }
    if (!s->capture)
        return;
    struct capture_fate c = {.depart_ns = h->depart_ns,
                             .deliver_ns = reason ? 0 : h->deliver_ns,
                             .reason = (uint8_t)reason,
                             .state = h->state,
                             .copy = h->copy,
                             .corrupted = h->corrupted,
                             .reordered = h->reordered};
    capture_settle(s->capture, h->record, &c);
}

static void capture_arrival(struct shuttle *s, const struct held *h, const uint8_t *at, uint64_t now_ns)
{
    struct capture_fate c = {.depart_ns = h->depart_ns,
                             .deliver_ns = h->deliver_ns,
                             .sent_ns = h->at_ns,
                             .arrived = true,
                             .copy = h->copy,
                             .corrupted = h->corrupted,
                             .reordered = h->reordered};
    uint32_t record = capture_packet(s->capture, h->dir == NETEM_UP, at, h->len, now_ns);
    capture_settle(s->capture, record, &c);
}

/* Hand a packet to the kernel of the other side. */
static void deliver(struct shuttle *s, struct radio *r, const struct held *h, const struct packet *p,
                    const uint8_t *at, uint64_t now_ns)
{
    struct tun_stats *stats = stats_of(s, r->group);
    if (write(s->c->tun_fd[h->dir == NETEM_UP], at, h->len) != (ssize_t)h->len) {
        /* a flipped bit may have made it no IPv4 packet at all, which no kernel takes */
        enum reason reason = h->corrupted ? REASON_CORRUPT : REASON_QUEUE_FULL;
        drop(s, r->group, reason, h->dir, p, now_ns);
        settle(s, h, reason, 0);
        return;
    }
    settle(s, h, REASON_NONE, now_ns);
    if (s->capture)
        capture_arrival(s, h, at, now_ns);
    if (h->copy)
        count(&stats->duplicated, 1);
    if (h->corrupted)
        count(&stats->corrupted, 1);
    if (h->reordered)
        count(&stats->reordered, 1);
    if (s->writer && p->protocol == IPPROTO_TCP && (p->payload || p->flags))
        trace_packet(s, HOP_LINK_DELIVER, REASON_NONE, h->dir, p, now_ns);
}

void carry_release(struct shuttle *s, uint64_t now_ns, enum reason forced)
{
    uint32_t slot = heap_pop(&s->due);
    struct held *h = &s->pool.held[slot];
    struct radio *r = &s->radios[h->phone & 0xFFFF];
    struct packet p = {0}; /* damaged, it may be no packet any more */
    packet_parse(&p, s->pool.packet[slot], h->len);
    r->held--;
    enum reason reason = forced ? forced : link_recheck(&r->link, h->dir, h->depart_ns);
    if (reason) {
        drop(s, r->group, reason, h->dir, &p, now_ns);
        settle(s, h, reason, 0);
    } else {
        deliver(s, r, h, &p, s->pool.packet[slot], now_ns);
    }
    pool_give(&s->pool, slot);
}

static enum reason ask_nat(struct shuttle *s, struct radio *r, enum netem_dir dir, const struct packet *p,
                           uint64_t now_ns)
{
    bool up = dir == NETEM_UP;
    struct link_flow f = {.phone = up ? p->src : p->dst,
                          .peer = up ? p->dst : p->src,
                          .phone_port = up ? p->sport : p->dport,
                          .peer_port = up ? p->dport : p->sport,
                          .protocol = p->protocol,
                          .syn = (p->flags & TRACE_FLAG_SYN) && !p->ack};
    return p->later_fragment ? REASON_NONE : link_nat_pass(&r->link, &s->nat, dir, now_ns, &f);
}

/* The log's record of an offer, without a verdict yet; UINT64_MAX: none. */
static uint64_t log_offer(struct shuttle *s, const struct offer *o)
{
    struct tun_fates *f = s->c->fates;
    if (!f)
        return UINT64_MAX;
    if (f->n == f->max) {
        f->missed++;
        return UINT64_MAX;
    }
    bool up = o->dir == NETEM_UP;
    f->at[f->n] =
        (struct tun_fate){.at_ns = o->now_ns,
                          .phone = o->phone,
                          .peer = o->peer,
                          .phone_port = up ? o->p.sport : o->p.dport,
                          .peer_port = up ? o->p.dport : o->p.sport,
                          .bytes = (uint16_t)o->len,
                          .protocol = o->p.protocol,
                          .dir = (uint8_t)o->dir,
                          .flags = (uint8_t)((o->p.flags & TRACE_FLAG_SYN && !o->p.ack ? TUN_FATE_SYN : 0) |
                                             (o->p.later_fragment ? TUN_FATE_FRAGMENT : 0)),
                          .reason = TUN_FATE_OPEN};
    __atomic_store_n(&f->n, f->n + 1, __ATOMIC_RELEASE);
    return f->n - 1;
}

static void log_verdict(struct shuttle *s, uint64_t record, const struct link_verdict *v)
{
    if (record == UINT64_MAX)
        return;
    struct tun_fate *f = &s->c->fates->at[record];
    f->depart_ns = v->depart_ns;
    f->deliver_ns = v->deliver_ns;
    f->copy_ns = v->copy_ns;
    f->flags |= (uint8_t)((v->corrupt ? TUN_FATE_CORRUPT : 0) | (v->reordered ? TUN_FATE_REORDERED : 0));
    f->reason = (uint8_t)v->reason;
}

static void apply_verdict(struct held *h, const struct link_verdict *v)
{
    h->depart_ns = v->depart_ns;
    h->deliver_ns = v->deliver_ns;
    h->corrupted = v->corrupt;
    h->reordered = v->reordered;
}

/* Its sender's end of the capture sees a packet; `h` is what is known of it. */
static void note_offer(struct shuttle *s, const struct offer *o, struct held *h)
{
    *h = (struct held){.at_ns = o->now_ns,
                       .fate = o->radio ? log_offer(s, o) : UINT64_MAX,
                       .record = CAPTURE_NONE,
                       .phone = o->phone,
                       .len = (uint16_t)o->len,
                       .dir = (uint8_t)o->dir};
    if (!s->capture)
        return;
    h->record = capture_packet(s->capture, o->dir == NETEM_DOWN, o->at, o->len, o->now_ns);
    h->state = o->radio ? (uint8_t)link_state(&o->radio->link, o->now_ns) : LINK_UP;
}

/* The second copy, undamaged. Without room for it the driver's queue is full. */
static void hold_copy(struct shuttle *s, struct radio *r, uint32_t slot, uint64_t copy_ns)
{
    int64_t other = pool_take(&s->pool);
    if (other < 0 || !heap_push(&s->due, copy_ns, (uint32_t)other)) {
        count(&stats_of(s, r->group)->dropped[REASON_QUEUE_FULL], 1);
        if (other >= 0)
            pool_give(&s->pool, (uint32_t)other);
        return;
    }
    struct held *h = &s->pool.held[other];
    *h = s->pool.held[slot];
    h->copy = true;
    h->corrupted = h->reordered = false;
    h->deliver_ns = copy_ns;
    h->fate = UINT64_MAX;
    h->record = CAPTURE_NONE;
    memcpy(s->pool.packet[other], s->pool.packet[slot], h->len);
    r->held++;
}

/* A packet in the pool is lost at once. */
static void lose_held(struct shuttle *s, struct radio *r, uint32_t slot, enum reason reason, uint64_t now_ns)
{
    struct held *h = &s->pool.held[slot];
    struct packet p = {0};
    packet_parse(&p, s->pool.packet[slot], h->len);
    drop(s, r->group, reason, h->dir, &p, now_ns);
    settle(s, h, reason, 0);
    pool_give(&s->pool, slot);
}

/* It will arrive. */
static void hold(struct shuttle *s, struct radio *r, uint32_t slot, const struct link_verdict *v,
                 uint64_t now_ns)
{
    uint8_t *at = s->pool.packet[slot];
    if (!heap_push(&s->due, v->deliver_ns, slot)) {
        lose_held(s, r, slot, REASON_QUEUE_FULL, now_ns);
        return;
    }
    r->held++;
    if (v->copy_ns)
        hold_copy(s, r, slot, v->copy_ns);
    if (v->corrupt && v->corrupt_bit / 8 < s->pool.held[slot].len)
        at[v->corrupt_bit / 8] ^= (uint8_t)(0x80 >> v->corrupt_bit % 8);
}

void carry_decided(struct shuttle *s, struct radio *r, uint32_t slot, struct link_verdict v, uint64_t now_ns)
{
    struct held *h = &s->pool.held[slot];
    struct packet p;
    if (h->dir == NETEM_UP && !v.reason) {
        packet_parse(&p, s->pool.packet[slot], h->len);
        v.reason = ask_nat(s, r, NETEM_UP, &p, now_ns);
    }
    log_verdict(s, h->fate, &v);
    apply_verdict(h, &v);
    if (v.reason)
        lose_held(s, r, slot, v.reason, now_ns);
    else
        hold(s, r, slot, &v, now_ns);
}

/* Whose packet it is; false: nobody's concern. */
static bool address(struct shuttle *s, struct offer *o)
{
    if (!packet_parse(&o->p, o->at, o->len)) {
        count(&stats_of(s, NO_GROUP)->dropped[REASON_NO_ROUTE], 1);
        return false;
    }
    o->phone = o->dir == NETEM_UP ? o->p.src : o->p.dst;
    o->peer = o->dir == NETEM_UP ? o->p.dst : o->p.src;
    if (o->peer == NETEM_CONTROL_ADDR) { /* or what a kernel says to an order that nobody heard */
        if (o->p.protocol == IPPROTO_UDP && o->p.dport == NETEM_CONTROL_PORT)
            orders_in_band(s, &o->p, o->at, o->now_ns);
        return false;
    }
    o->radio = o->peer == NETEM_FAR_ADDR ? radio_of(s, o->phone, o->now_ns) : NULL;
    return true;
}

/* NAT and radio in the order in which a packet meets them, but for a drop-head queue. */
static struct link_verdict judge(struct shuttle *s, const struct offer *o)
{
    struct link_verdict v = link_offer(&o->radio->link, o->dir, o->now_ns, o->len);
    if (o->dir == NETEM_UP && !v.reason)
        v.reason = ask_nat(s, o->radio, o->dir, &o->p, o->now_ns);
    return v;
}

static void lose(struct shuttle *s, const struct offer *o, struct held *h, const struct link_verdict *v)
{
    log_verdict(s, h->fate, v);
    apply_verdict(h, v);
    drop(s, o->radio ? o->radio->group : NO_GROUP, v->reason, o->dir, &o->p, o->now_ns);
    settle(s, h, v->reason, 0);
}

/* The radio has it; true: the slot is kept. */
static bool offer(struct shuttle *s, const struct offer *o, struct held *h, int64_t slot)
{
    struct radio *r = o->radio;
    bool full;
    struct waiting *w = waiting_of(s, r, o->dir, &full);
    struct link_verdict v = {.reason = full ? REASON_QUEUE_FULL : REASON_NONE};
    if (w && slot >= 0) {
        s->pool.held[slot] = *h;
        waiting_put(s, r, w, (uint32_t)slot, o->now_ns);
        return true;
    }
    if (!full && !w)
        v = judge(s, o);
    if (!v.reason && slot < 0)
        v.reason = REASON_QUEUE_FULL;
    if (v.reason) {
        lose(s, o, h, &v);
        return false;
    }
    log_verdict(s, h->fate, &v);
    apply_verdict(h, &v);
    if (v.deliver_ns <= o->now_ns && !r->held && !v.copy_ns && !v.corrupt) {
        deliver(s, r, h, &o->p, o->at, o->now_ns);
        return false;
    }
    s->pool.held[slot] = *h;
    hold(s, r, (uint32_t)slot, &v, o->now_ns);
    return true;
}

/* Hot path: a packet was read into `at`, which is pool slot `slot`, or -1 when the pool is empty. True: the
 * slot is kept. */
static bool take(struct shuttle *s, enum netem_dir dir, const uint8_t *at, uint32_t len, int64_t slot)
{
    struct offer o = {.at = at, .len = len, .dir = dir, .now_ns = clock_mono_ns()};
    struct held h;
    if (!address(s, &o))
        return false;
    struct radio *r = o.radio;
    struct tun_stats *stats = stats_of(s, r ? r->group : NO_GROUP);
    count(dir == NETEM_UP ? &stats->packets_up : &stats->packets_down, 1);
    count(dir == NETEM_UP ? &stats->bytes_up : &stats->bytes_down, len);
    note_offer(s, &o, &h);
    struct link_verdict v = {.reason = REASON_NO_ROUTE};
    if (r)
        v.reason = dir == NETEM_DOWN ? ask_nat(s, r, dir, &o.p, o.now_ns) : REASON_NONE;
    if (!v.reason)
        return offer(s, &o, &h, slot);
    lose(s, &o, &h, &v);
    return false;
}

void carry_batch(struct shuttle *s, enum netem_dir dir)
{
    int64_t slot = pool_take(&s->pool);
    for (int i = 0; i < BATCH; i++) {
        uint8_t *at = slot < 0 ? s->spare : s->pool.packet[slot];
        ssize_t n = read(s->c->tun_fd[dir == NETEM_DOWN], at, HELD_PACKET_SIZE);
        if (n <= 0)
            break;
        if (take(s, dir, at, (uint32_t)n, slot))
            slot = pool_take(&s->pool);
    }
    if (slot >= 0)
        pool_give(&s->pool, (uint32_t)slot);
}
